"""One `sync`: finish enrolling, send what is spooled, compare with what the authority lists."""

from collections.abc import Callable
from dataclasses import dataclass

from strongroom.crypto.signing import SigningKey
from strongroom.errors import ExitCode, Rejected, StrongroomError, TransientError
from strongroom_agent import enrolment
from strongroom_agent.delivery import Courier, Delivery
from strongroom_agent.home import Home, Role
from strongroom_agent.listing import Comparing, Comparison, Reading
from strongroom_agent.patience import Deadline
from strongroom_agent.session import Session
from strongroom_agent.spool import Spool
from strongroom_agent.state import KeptDisclosure, KeptPending


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a `sync` did and found.

    roster_changed: a newer roster was adopted. compared: the authority's listing was read to its end; missing,
    mismatched, disclosed and pending are as in `Comparison`. error: what kept something spooled or uncompared.
    """

    delivery: Delivery
    roster_version: int
    roster_changed: bool
    compared: bool
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    disclosed: tuple[KeptDisclosure, ...]
    pending: tuple[KeptPending, ...]
    error: StrongroomError | None

    @property
    def exit_code(self) -> ExitCode:
        """FAILED: a key is refused, missing, or an answer not to be believed. TRY_LATER: something is left.

        A rejected or spooled key counts whenever it came to be so, and not only in this `sync`.
        """
        trouble = self.error is not None and not isinstance(self.error, TransientError)
        if trouble or self.missing or self.mismatched or self.delivery.exit_code is ExitCode.FAILED:
            return ExitCode.FAILED
        return ExitCode.DONE if self.error is None and not self.delivery.spooled else ExitCode.TRY_LATER


class Sync:
    """The work of one `sync`; what one link did not finish, it goes on with over the next."""

    def __init__(self, home: Home, spool: Spool, key: Callable[[], SigningKey], *, compare: bool) -> None:
        """Deliver all that is spooled; `key` reads the key that signs for a listing, when it comes to that."""
        self._home = home
        self._spool = spool
        self._key = key
        self._compare = compare
        self._ids = spool.spooled()
        self._courier = Courier(spool, self._ids)
        self._reading: tuple[Reading, Comparing] | None = None
        self.comparison: Comparison | None = None
        """What a listing that was read to its end said."""

    async def attempt(self, session: Session, deadline: Deadline) -> None:
        """Do what is left over this link; raises as `Courier.deliver`, `enrolment.finish` and `Reading.pages`."""
        await enrolment.finish(self._home, session, deadline)
        await self._courier.deliver(session, deadline)
        if self._compare and self.comparison is None:
            self.comparison = await self._listing(session, deadline)
            await self._courier.deliver(session, deadline)

    def note(self, error: StrongroomError) -> None:
        """Keep why nothing was sent, for all that was not."""
        self._spool.note_failures(dict.fromkeys(self._courier.unsent, f"{error.code}: {error.message}"))

    def delivery(self, error: StrongroomError | None) -> Delivery:
        """Say what was brought home, and all that is left in the home; `error` is what ended the last attempt."""
        counts = self._spool.counts()
        return Delivery(
            records=tuple(self._spool.of_statements(self._spool.unstored())),
            stored=list(self._spool.states(self._ids).values()).count("stored"),
            rejected=counts["rejected"],
            spooled=counts["spooled"],
            error=self._courier.doubt or error or self._courier.postponed,
        )

    async def _listing(self, session: Session, deadline: Deadline) -> Comparison | None:
        if self._reading is None:
            # Taken before the first page is asked for: what is stored meanwhile may not be on a page already read.
            comparing = Comparing(self._spool.stored_fingerprints(), self._spool.rejected_records())
            self._reading = Reading(self._home, self._key(), self._home.config.name), comparing
        reading, comparing = self._reading
        try:
            async for page in reading.pages(session, deadline):
                comparing.take(page)
        except Rejected:
            # An officer has no records; the answer has brought the roster all the same.
            if self._home.config.role is Role.OFFICER:
                return None
            raise
        comparison = comparing.finish()
        with session.state.transaction():
            self._spool.note_listing(comparison.outcome, session.now)
            session.state.keep_listing(comparison.disclosed, comparison.pending)
        for statement_id in comparison.stored_after_all:
            self._spool.requeue(statement_id)
        self._ids.extend(comparison.stored_after_all)
        self._courier.add(comparison.stored_after_all)
        return comparison
