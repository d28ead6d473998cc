"""Reading a log over the queue, page by page; every page is signed, and nothing in it is believed (SPEC 5.15)."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from strongroom.audits import LogEntry, LogPage, LogPageRequest
from strongroom.crypto.notes import verify_checkpoint
from strongroom.crypto.signing import SigningKey
from strongroom.errors import CheckpointInvalid, ReplyInvalid, TransientError
from strongroom.fields import Capacity, new_id
from strongroom.limits import REQUEST_LIFE_SECONDS_MAX
from strongroom.mandates import LogKey, Role
from strongroom.roster import Roster
from strongroom.statements import Statement
from strongroom_agent.caller import ASK_SECONDS, Caller
from strongroom_agent.home import Home
from strongroom_agent.identity import check_officer, check_officers_home
from strongroom_agent.patience import Deadline
from strongroom_agent.proofs import Question
from strongroom_agent.session import Session
from strongroom_agent.state import KeptCheckpoint
from strongroom_audit.findings import LogName


@dataclass(frozen=True, slots=True)
class Page:
    """A page whose worker and question were verified: entries in order, each with the statement attached to it.

    checkpoint: the newest of the log, its signature verified; None for a log without leaves.
    """

    checkpoint: KeptCheckpoint | None
    entries: tuple[tuple[LogEntry, Statement | None], ...]


Take = Callable[[Page], int | None]
"""Takes a page and returns the leaf index to go on from, or None for enough."""


class Auditor(Caller):
    """An officer with the role `audit`, reading the logs."""

    def check_may_read(self) -> None:
        """Raise OfficerUnknown unless the owner of this home has the role `audit`, by the newest roster seen."""
        check_officers_home(self._home)
        if self._home.config.authority is not None:
            check_officer(self._home, self._trust().newest, Role.AUDIT)

    @property
    def roster(self) -> Roster:
        """The newest roster that this home has seen; it may have expired."""
        return self._trust().newest

    @property
    def root_key(self) -> bytes:
        """The root key that this home has pinned."""
        return self._home.authority()[1]

    def held(self) -> list[KeptCheckpoint]:
        """Return the newest checkpoint of each log that was verified in this home."""
        return [kept for log in ("escrow", "recovery") if (kept := self._state.checkpoint(log)) is not None]

    def evidence(self) -> list[str]:
        """Return the checkpoint notes that are kept as evidence against a log."""
        return [note for each in self._state.evidence() for note in (each.held_note, each.note)]

    async def read(self, log: LogName, first: int, take: Take, *, wait_seconds: float = ASK_SECONDS) -> None:
        """Give page after page of a log to `take`, from leaf `first` on, until it has enough.

        `wait_seconds`: how long to go on trying while nothing comes. Raises Rejected, ReplyInvalid,
        CheckpointInvalid, Expired, RosterInvalid, BrokerUnavailable, Unroutable, NoAnswer; and what `take` raises.
        """
        reading = _Reading(self._home, self._signing_key(), log, first=first, take=take, wait_seconds=wait_seconds)
        while reading.place is not None:
            before = reading.place
            try:
                await self._patiently(reading.attempt, wait_seconds)
            except TransientError:
                # Each page has its own time: that much of the log has come is not a reason to end.
                if reading.place == before:
                    raise


class _Reading:
    """One reading, over as many links as it takes; a question without answer is asked again, the same."""

    def __init__(
        self, home: Home, key: SigningKey, log: LogName, *, first: int, take: Take, wait_seconds: float
    ) -> None:
        self.place: int | None = first
        self._home = home
        self._key = key
        self._log: LogName = log
        self._take = take
        self._wait_seconds = wait_seconds
        self._asked: tuple[LogPageRequest, Statement] | None = None

    async def attempt(self, session: Session, _deadline: Deadline) -> None:
        """Read on until enough; raises as `Auditor.read`."""
        while self.place is not None:
            deadline = asyncio.get_running_loop().time() + self._wait_seconds
            page = await self._page(session, deadline, self.place)
            self.place = self._take(page)

    async def _page(self, session: Session, deadline: Deadline, first: int) -> Page:
        question, statement = self._question(session, first)
        answer = await session.ask(
            "recovery",
            Question("recovery", question.id, statement.digest),
            statement.envelope(),
            deadline=deadline,
            held=None,
        )
        _, page = session.signed_answer(answer, LogPage)
        if (page.request, page.request_digest) != (question.id, statement.digest.hex()) or page.log != self._log:
            raise ReplyInvalid("reply: a log page that answers something else")
        return Page(_checkpoint(page, session.roster), _entries(page, first, answer.reply.attached))

    def _question(self, session: Session, first: int) -> tuple[LogPageRequest, Statement]:
        now = session.now
        if self._asked is None or self._asked[0].first != first or self._asked[0].expires_at <= now:
            question = LogPageRequest(
                authority=session.trust.newest.body.authority,
                id=new_id(),
                issued_at=now,
                expires_at=now + REQUEST_LIFE_SECONDS_MAX,
                requester=self._home.config.name,
                requester_kind=Capacity.OFFICER,
                log=self._log,
                first=first,
            )
            self._asked = question, Statement.sign(question.TYPE, question.to_bytes(), self._key)
        return self._asked


def log_key(roster: Roster, log: LogName) -> LogKey:
    """Return the origin and the public key of a log."""
    return roster.body.logs.escrow if log == "escrow" else roster.body.logs.recovery


def _checkpoint(page: LogPage, roster: Roster) -> KeptCheckpoint | None:
    if page.checkpoint is None:
        return None
    key = log_key(roster, page.log)
    try:
        note = page.checkpoint.decode()
    except UnicodeDecodeError:
        raise CheckpointInvalid(f"{page.log} log: its checkpoint is no text") from None
    checkpoint = verify_checkpoint(note, key.origin, key.public_key)
    return KeptCheckpoint(page.log, checkpoint.size, checkpoint.root, note)


def _entries(
    page: LogPage, first: int, attached: tuple[Statement, ...]
) -> tuple[tuple[LogEntry, Statement | None], ...]:
    if [entry.index for entry in page.entries] != list(range(first, first + len(page.entries))):
        raise ReplyInvalid("reply: a log page out of order")
    if sum(entry.statement for entry in page.entries) != len(attached):
        raise ReplyInvalid("reply: a log page with other statements attached than it speaks of")
    following = iter(attached)
    return tuple((entry, next(following) if entry.statement else None) for entry in page.entries)
