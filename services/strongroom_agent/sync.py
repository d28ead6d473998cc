"""One `sync`: finish enrolling, send what is spooled, compare with what the authority lists, renew what is lost."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from strongroom.crypto.signing import SigningKey
from strongroom.errors import ExitCode, PermanentError, Rejected, StrongroomError, TransientError
from strongroom_agent import enrolment
from strongroom_agent.attestation import Attesting, Examined, due, examine
from strongroom_agent.delivery import Courier, Delivery
from strongroom_agent.home import Home, Role
from strongroom_agent.listing import Comparing, Comparison, Reading
from strongroom_agent.live_keys import LiveKey, Place
from strongroom_agent.packing import fitting, issue_time, pack
from strongroom_agent.patience import Deadline
from strongroom_agent.renewal import Plan, Renewal
from strongroom_agent.session import Session
from strongroom_agent.spool import RecordRow, Spool
from strongroom_agent.standings import KeptStanding, Standings
from strongroom_agent.state import KeptDisclosure, KeptPending


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a `sync` did and found.

    roster_changed: a newer roster was adopted. compared: the authority's listing was read to its end; missing,
    mismatched, disclosed and pending are as in `Comparison`. needy: what is to be replaced and has no successor.
    now: when that was judged, in seconds. renewed: what was escrowed anew by itself. given_up: names for which
    that was done in vain too often. unfit: name → why a live key, which is not what its record says, was not.
    examined: how the live keys compare. attested: how many records the authority was told so of. error: what kept
    something spooled, uncompared or unsaid.
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
    now: int
    needy: tuple[KeptStanding, ...] = ()
    renewed: tuple[RecordRow, ...] = ()
    given_up: tuple[str, ...] = ()
    examined: tuple[Examined, ...] = ()
    attested: int = 0
    unfit: Mapping[str, PermanentError] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """FAILED: a key is refused, missing, or of no use and without successor, or an answer not to be believed.

        TRY_LATER: something is left. A rejected or spooled key counts whenever it came to be so, and not only in
        this `sync`. A disclosed key counts once its time is over, and one that is not proven yet does not.
        """
        trouble = self.error is not None and not isinstance(self.error, TransientError)
        urgent = any(each.is_urgent(self.now) for each in self.needy)
        if trouble or urgent or self.missing or self.mismatched or self.delivery.exit_code is ExitCode.FAILED:
            return ExitCode.FAILED
        return ExitCode.DONE if self.error is None and not self.delivery.spooled else ExitCode.TRY_LATER


class Sync:
    """The work of one `sync`; what one link did not finish, it goes on with over the next."""

    def __init__(
        self,
        home: Home,
        spool: Spool,
        standings: Standings,
        key: Callable[[], SigningKey],
        *,
        live: Mapping[str, LiveKey],
        compare: bool,
    ) -> None:
        """Deliver all that is spooled; `key` reads the key that signs, when it comes to that.

        Arguments: `live` is what the checks of this home have found, by name.
        """
        self._home = home
        self._spool = spool
        self._standings = standings
        self._key = key
        self._live = live
        self._compare = compare
        self._ids = spool.spooled()
        self._courier = Courier(spool, self._ids)
        self._reading: tuple[Reading, Comparing] | None = None
        self._attesting: Attesting | None = None
        self._comparison: Comparison | None = None
        """What a listing that was read to its end said."""
        self._plan: Plan | None = None
        """What was escrowed anew."""
        self._renewed: list[str] = []
        """The statements that did it."""
        self._unfit: dict[str, PermanentError] = {}
        """What was not, because the live key is not of the kind that its record is."""
        self._examined: tuple[Examined, ...] = ()
        """How the live keys compare."""
        self._attested = 0
        """How many records the authority was told of."""
        self._unsaid: StrongroomError | None = None
        """Why the authority was not told, where it refused."""

    async def attempt(self, session: Session, deadline: Deadline) -> None:
        """Do what is left over this link; raises as `Courier.deliver`, `enrolment.finish` and `Reading.pages`."""
        await enrolment.finish(self._home, session, deadline)
        await self._courier.deliver(session, deadline)
        if self._compare and self._comparison is None:
            self._comparison = await self._listing(session, deadline)
            await self._courier.deliver(session, deadline)
        if self._comparison is not None and self._live:
            self._renew(session)
            await self._courier.deliver(session, deadline)
            await self._attest(session, deadline)

    def note(self, error: StrongroomError) -> None:
        """Keep why nothing was sent, for all that was not."""
        self._spool.note_failures(dict.fromkeys(self._courier.unsent, f"{error.code}: {error.message}"))

    def report(self, error: StrongroomError | None, *, before: int, newest: int, now: int) -> SyncReport:
        """Say what was done and found.

        Arguments: `error` is what ended the last attempt; `before` and `newest` are the roster's versions at the
        beginning and now; `now` in seconds.
        """
        delivery = self._delivery(error)
        comparison = self._comparison
        return SyncReport(
            delivery=delivery,
            roster_version=newest,
            roster_changed=newest != before,
            compared=comparison is not None,
            missing=comparison.missing if comparison else (),
            mismatched=comparison.mismatched if comparison else (),
            disclosed=comparison.disclosed if comparison else (),
            pending=comparison.pending if comparison else (),
            error=delivery.error,
            now=now,
            needy=tuple(self._standings.needy()) if comparison else (),
            renewed=tuple(self._spool.of_statements(self._renewed)),
            given_up=self._plan.given_up if self._plan else (),
            examined=self._examined,
            attested=self._attested,
            unfit=self._unfit,
        )

    def _delivery(self, error: StrongroomError | None) -> Delivery:
        """Say what was brought home, and all that is left in the home; `error` is what ended the last attempt."""
        counts = self._spool.counts()
        return Delivery(
            records=tuple(self._spool.of_statements(self._spool.unstored())),
            stored=list(self._spool.states(self._ids).values()).count("stored"),
            rejected=counts["rejected"],
            spooled=counts["spooled"],
            error=self._courier.doubt or error or self._courier.postponed or self._unsaid,
        )

    async def _listing(self, session: Session, deadline: Deadline) -> Comparison | None:
        if self._reading is None:
            # Taken before the first page is asked for: what is stored meanwhile may not be on a page already read.
            comparing = Comparing(
                self._spool.own(), self._spool.rejected_records(), self._standings.all(), session.now
            )
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
            self._standings.replace(comparison.standings, comparison.proofs)
            session.state.keep_listing(comparison.disclosed, comparison.pending)
        for statement_id in comparison.stored_after_all:
            self._spool.requeue(statement_id)
        self._ids.extend(comparison.stored_after_all)
        self._courier.add(comparison.stored_after_all)
        return comparison

    def _renew(self, session: Session) -> None:
        """Put into the spool, once, what is to be escrowed anew."""
        if self._plan is not None:
            return
        roster = session.roster
        principal = self._home.config.name
        place = Place(roster.body.authority, principal)
        # The records that the live keys are compared with are those before the new ones.
        self._examined = examine(self._spool, place, self._live)
        plan = Renewal(self._spool, self._standings, place).plan(self._live)
        keys, self._unfit = fitting(plan.keys, roster)
        if keys:
            issued_at = issue_time(self._spool, session.now)
            packed = pack(
                keys,
                principal=principal,
                roster=roster,
                signing_key=self._key(),
                now=issued_at,
                compared=self._live.keys(),
            )
            self._spool.add(packed, issued_at)
            self._renewed = [each.id for each in packed]
            self._ids.extend(self._renewed)
            self._courier.add(self._renewed)
        self._plan = plan

    async def _attest(self, session: Session, deadline: Deadline) -> None:
        """Tell the authority what is new, or what it was not told for long."""
        if self._attesting is None:
            body, now = session.roster.body, session.now
            said = due(self._examined, self._standings.attestations(), attest_days=body.policy.attest_days, now=now)
            self._attested = len(said)
            self._attesting = Attesting(
                said, authority=body.authority, principal=self._home.config.name, key=self._key(), now=now
            )
        try:
            await self._attesting.deliver(session, deadline)
        except PermanentError as error:
            # Keys are safe by now; this is told, and said again next time.
            self._attested, self._unsaid = 0, error
