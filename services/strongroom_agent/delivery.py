"""Taking spooled statements to the authority, in rounds, until each is receipted or refused for good."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from strongroom.errors import (
    ExitCode,
    Expired,
    LogForked,
    NoAnswer,
    PermanentError,
    ReplyInvalid,
    StrongroomError,
    TransientError,
)
from strongroom.leaves import EscrowLeaf
from strongroom_agent import proofs
from strongroom_agent.patience import Deadline, seconds_left
from strongroom_agent.proofs import Question, Receipted
from strongroom_agent.session import Answer, Session
from strongroom_agent.spool import RecordRow, Refusal, Spool
from strongroom_agent.standings import LOST
from strongroom_agent.state import KeptCheckpoint, ReceiptedLeaf

WINDOW_STATEMENTS_MAX: Final = 128
WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of some statements of the spool.

    records: those in the statements. stored, rejected, spooled: how many statements. error: why something is
    still spooled, or not proven; None when nothing is. until_proven: that was waited for. Of a `sync`: `stored`
    counts what it brought home, and records, rejected and spooled are of everything in the home that is not stored.
    """

    records: tuple[RecordRow, ...]
    stored: int
    rejected: int
    spooled: int
    error: StrongroomError | None
    until_proven: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """DONE: all stored. TRY_LATER: something is spooled. FAILED: refused, or an answer not to be believed.

        Where it was waited for, FAILED also when the authority cannot give a key back, and NOT_PROVEN as long as it
        has not shown of every key that it can.
        """
        if self.rejected or (self.error is not None and not isinstance(self.error, TransientError)):
            return ExitCode.FAILED
        if self.until_proven and any(row.listed in LOST for row in self.records):
            return ExitCode.FAILED
        if self.spooled:
            return ExitCode.TRY_LATER
        is_waiting = self.until_proven and not all(row.is_proven for row in self.records)
        return ExitCode.NOT_PROVEN if is_waiting else ExitCode.DONE


class Postponed(TransientError):
    """The authority holds a statement to be from the future: one of two clocks is wrong, and time heals that."""

    code = Expired.code


class Courier:
    """Delivers a list of spooled statements; what it has not finished it goes on with over the next link.

    A round sends some statements and waits for all their answers. Only receipts under the newest checkpoint of
    the round count, and the others are asked for again: each was shown to continue the checkpoint that was held
    before the round, but not to belong to the same log as the newest one.
    """

    def __init__(self, spool: Spool, statement_ids: list[str]) -> None:
        """Deliver these statements, in this order."""
        self._spool = spool
        self._pending = deque(statement_ids)
        self._tried: set[str] = set()
        self.doubt: StrongroomError | None = None
        """The first answer that was not to be believed; its statement stays spooled and is not sent again here."""
        self.postponed: Postponed | None = None
        """The first `expired`; its statement stays spooled too, and the next call sends it again."""

    def add(self, statement_ids: Sequence[str]) -> None:
        """Deliver these spooled statements as well."""
        self._pending.extend(statement_ids)

    @property
    def unsent(self) -> tuple[str, ...]:
        """What is pending and was never part of a round, so that no round has noted why it is still spooled."""
        return tuple(id_ for id_ in self._pending if id_ not in self._tried)

    async def deliver(self, session: Session, deadline: Deadline) -> None:
        """Send everything that is pending over one link.

        Raises a TransientError when something is still pending: call again with another link. Raises LogForked
        when the log is not to be believed any more; then nothing of that round counts. While evidence of that is
        kept, nothing is sent and `doubt` says why.
        """
        try:
            session.check_unforked("escrow")
        except LogForked as error:
            self._spool.note_failures(dict.fromkeys(self._pending, f"{error.code}: {error.message}"))
            self._pending.clear()
            self.doubt = error
            return
        answered: set[str] = set()
        while self._pending:
            if not seconds_left(deadline):
                raise NoAnswer(f"the time allowed is over with {len(self._pending)} statements still spooled")
            await self._round(session, self._window(answered), answered, deadline)

    def _window(self, answered: set[str]) -> list[str]:
        """Take what goes out next; what was answered before goes alone, so that nothing new moves the log on."""
        window: list[str] = []
        size = 0
        again = bool(self._pending) and self._pending[0] in answered
        while self._pending and len(window) < WINDOW_STATEMENTS_MAX and size < WINDOW_BYTES_MAX:
            if again and self._pending[0] not in answered:
                break
            size += len(self._spool.message(self._pending[0])[0])
            window.append(self._pending.popleft())
        return window

    async def _round(self, session: Session, window: list[str], answered: set[str], deadline: Deadline) -> None:
        held = session.state.checkpoint("escrow")

        async def ask(id_: str) -> Answer | StrongroomError:
            envelope, digest = self._spool.message(id_)
            try:
                return await session.ask(
                    "escrow", Question("escrow", id_, digest), envelope, deadline=deadline, held=held
                )
            except StrongroomError as error:
                return error

        try:
            answers = dict(zip(window, await asyncio.gather(*map(ask, window)), strict=True))
        except BaseException:
            self._pending.extendleft(reversed(window))
            raise
        self._tried.update(window)
        verdict = _Verdict()
        for id_, answer in answers.items():
            verdict.take(session, id_, answer, asked_before=id_ in answered)
        verdict.compare(session)
        answered.update(verdict.receipted)
        newest = verdict.newest()
        self._spool.settle(
            stored=verdict.stored() if verdict.fork is None else {},
            rejected=verdict.refused,
            failed={id_: f"{error.code}: {error.message}" for id_, error in verdict.failed().items()},
            checkpoint=newest if verdict.fork is None else None,
            now=session.now,
        )
        self._after(verdict)

    def _after(self, verdict: "_Verdict") -> None:
        transient = [
            id_
            for id_, error in verdict.errors.items()
            if isinstance(error, TransientError) and not isinstance(error, Postponed)
        ]
        self._pending.extendleft(reversed([id_ for id_ in verdict.receipted if id_ not in verdict.stored()]))
        self._pending.extend(transient)
        for error in verdict.errors.values():
            if not isinstance(error, TransientError | PermanentError):
                raise error
            if self.doubt is None and isinstance(error, PermanentError):
                self.doubt = error
            if self.postponed is None and isinstance(error, Postponed):
                self.postponed = error
        if transient:
            raise verdict.errors[transient[0]]


class _Verdict:
    """One round: what each answer is worth, alone and beside the others."""

    def __init__(self) -> None:
        self.receipted: dict[str, tuple[Receipted, Answer]] = {}
        self.refused: dict[str, Refusal] = {}
        self.errors: dict[str, StrongroomError] = {}
        self.fork: LogForked | None = None

    def take(self, session: Session, id_: str, answer: Answer | StrongroomError, *, asked_before: bool) -> None:
        """Judge one answer by itself."""
        if isinstance(answer, StrongroomError):
            self.errors[id_] = answer
            return
        try:
            refusal = session.refusal(answer)
            if refusal is not None and refusal.code == Expired.code:
                self.errors[id_] = Postponed(
                    f"the authority says: {refusal.message}",
                    hint="compare the clocks of this host and of the workers",
                )
                return
            if refusal is not None:
                self.refused[id_] = refusal
                return
            receipted = session.receipted(answer, asked_before=asked_before)
            _check_leaf(receipted, answer.question)
            self.receipted[id_] = receipted, answer
        except LogForked as error:
            self.errors[id_] = self.fork = error
        except StrongroomError as error:
            # A late copy of an earlier answer ends here too; the next link cannot bring one.
            late = asked_before and isinstance(error, ReplyInvalid)
            self.errors[id_] = NoAnswer(f"only an outdated answer came: {error.message}") if late else error

    def compare(self, session: Session) -> None:
        """Look for two histories among the checkpoints of the round."""
        by_size: dict[int, Receipted] = {}
        for id_, (receipted, answer) in self.receipted.items():
            other = by_size.setdefault(receipted.checkpoint.size, receipted)
            try:
                proofs.check_same_log(other.checkpoint, receipted.checkpoint)
            except LogForked as error:
                session.keep_evidence(answer, other.checkpoint, receipted.checkpoint, error)
                self.errors[id_] = self.fork = error

    def newest(self) -> KeptCheckpoint | None:
        """Return the checkpoint with the most leaves, if there is any."""
        return max(
            (receipted.checkpoint for receipted, _ in self.receipted.values()), key=lambda c: c.size, default=None
        )

    def stored(self) -> dict[str, ReceiptedLeaf]:
        """Return the receipts under the newest checkpoint."""
        newest = self.newest()
        return {
            id_: receipted.receipt
            for id_, (receipted, _) in self.receipted.items()
            if newest is not None and receipted.checkpoint.size == newest.size
        }

    def failed(self) -> dict[str, StrongroomError]:
        """Return why statements stay spooled; after a fork that is true of every receipt of the round."""
        if self.fork is None:
            return self.errors
        return dict.fromkeys(self.receipted, self.fork) | self.errors


def _check_leaf(receipted: Receipted, question: Question) -> None:
    leaf = receipted.leaf
    if not isinstance(leaf, EscrowLeaf) or (leaf.id, leaf.digest) != (question.id, question.digest.hex()):
        raise ReplyInvalid("reply: a receipt for something else")
