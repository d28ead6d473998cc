"""The prover's loop: claim a stretch of the escrow log, look at all of it, say in the recovery log what was found.

Its state is the log alone. Whatever it is stopped in the middle of is done again, and what others have done
meanwhile is not.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import Final

from strongroom.crypto.keyring import Keyring
from strongroom.crypto.notes import Checkpoint
from strongroom.database import Database, Transaction
from strongroom.errors import ProofInvalid, StateCorrupt
from strongroom.fields import printable
from strongroom.follower import RecoveryLogFollower
from strongroom.log_writer import LogWriter
from strongroom.logs import get_logger
from strongroom.registry import Registry
from strongroom.service import HEARTBEAT_SECONDS, Health, unless_stopped
from strongroom_recovery.escrow_log import EscrowLog
from strongroom_recovery.lanes import in_lanes
from strongroom_recovery.ledger import Ledger
from strongroom_recovery.opening import tell_missing
from strongroom_recovery.prover import store
from strongroom_recovery.prover.pacing import Pace, Patrol, Span, newest_proof, period_seconds, spans
from strongroom_recovery.prover.proving import Looked, Stretch, condemned, examine
from strongroom_recovery.prover.report import Report
from strongroom_recovery.prover.signers import admitted
from strongroom_recovery.records import LATE_HINT

POLL_SECONDS: Final = 1.0
PLAN_SECONDS_MAX: Final = 10.0
LOOK_SECONDS_MAX: Final = 20.0
CLAIMS_TRIED_MAX: Final = 64


class Prover:
    """Goes through the escrow log, again and again; several may do so at once."""

    def __init__(
        self,
        *,
        database: Database,
        registry: Registry,
        ledger: Ledger,
        follower: RecoveryLogFollower,
        writer: LogWriter,
        escrow_log: EscrowLog,
        keyring: Keyring,
        health: Health,
        report: Report,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take everything that the prover needs; nothing is opened here."""
        self._database = database
        self._registry = registry
        self._ledger = ledger
        self._follower = follower
        self._writer = writer
        self._escrow_log = escrow_log
        self._keyring = keyring
        self._health = health
        self._report = report
        self._clock = clock
        self._monotonic = monotonic
        self._pace = Pace(monotonic())
        self._patrol = Patrol(monotonic())
        self._idle: tuple[int, int, float] | None = None
        self._keys_told_for = 0  # version of a roster
        self._examining = asyncio.Lock()
        self._log = get_logger()

    async def serve(self, stop: asyncio.Event) -> None:
        """Look at one stretch after the other until `stop` is set; wait where there is nothing to do.

        Raises TransientError with nothing half done, CheckpointInvalid, FatalError.
        """
        await in_lanes(self._lane, stop)

    async def _lane(self, over: asyncio.Event) -> None:
        """Take turns; what two lanes of a process do at once is as if two provers did it."""
        while not over.is_set():
            is_busy = await self.turn(over)
            self._health.beat("proving" if is_busy else "listening")
            await self._report.tell(self._database, self._registry.roster.body.policy)
            if not is_busy:
                await unless_stopped(over, asyncio.sleep(POLL_SECONDS), POLL_SECONDS)

    async def turn(self, stop: asyncio.Event) -> bool:
        """Look at what is most urgent, if anything is, and append what was found; say whether there was anything.

        Raises as `serve`.
        """
        async with self._database.reading() as tx:
            await self._follower.advance(tx)
            self._escrow_log.go_by(self._registry.roster.body.logs.escrow)
            head = await self._head(tx)
        self._tell_missing_keys()
        self._report.escrow_size = head.size if head else 0
        if head is None or self._is_idle(head.size):
            return False
        began, now = self._monotonic(), int(self._clock())
        period = period_seconds(self._registry.roster.body.policy.prove_days)
        is_early = self._pace.allows(began, head.size, period)
        planned = spans(self._ledger.proofs, head.size, now, period=period, is_early=is_early)
        first = next(planned, None) or self._patrol.span(self._ledger.proofs, head.size, began)
        if first is None:
            self._idle = head.size, self._ledger.size, min(began + PLAN_SECONDS_MAX, self._patrol.not_before)
            return False
        try:
            async with self._database.reading() as tx:
                span = await _claimed(tx, first, planned)
                if span is None:
                    return False
                looked = await self._look(tx, span, stop)
        except _Unreadable as unreadable:
            span, looked = await self._look_closer(unreadable.span, head, stop)
        if span.is_patrol:
            self._patrol.walked(looked.end if looked else span.end, head.size, began, self._monotonic())
        if looked is None:
            return True
        if span.is_patrol and not (self._is_news(looked) and self._patrol.may_tell(span, began)):
            return False
        if not span.is_new and not span.is_patrol:
            self._pace.looked(began, looked.end - looked.first)
        if await self._append(looked, span):
            self._tell(looked)
        return True

    def _tell_missing_keys(self) -> None:
        """Write a line for every key of the roster that is not here, once for each roster."""
        roster = self._registry.roster
        if roster.body.version != self._keys_told_for:
            self._keys_told_for = roster.body.version
            tell_missing(roster, self._keyring.kids, self._ledger)

    def _is_news(self, looked: Looked) -> bool:
        """Say whether a look found anything that the log does not say already."""
        proofs = self._ledger.proofs
        known = proofs.findings_within(looked.first, looked.end)
        found = {(each.index, each.record, each.code) for each in looked.unprovable}
        kids = [look.kids for look in proofs.looks_within(looked.first, looked.end)]
        # A key that nothing needed comes back when rows are taken away: nobody may retire it then.
        opens = {kid for each in kids for kid, _ in each or ()}
        return (
            found != {(each.index, each.record, each.code) for each in known}
            or None in kids
            or not looked.kids.keys() <= opens
        )

    def _is_idle(self, size: int) -> bool:
        """Say whether there was nothing to do a moment ago and nothing has changed since."""
        if self._idle is None or self._idle[:2] != (size, self._ledger.size):
            return False
        return self._monotonic() < self._idle[2]

    async def _head(self, tx: Transaction) -> Checkpoint | None:
        """Return the newest checkpoint of the escrow log; None as long as it is empty."""
        try:
            return await self._escrow_log.head(tx)
        except ProofInvalid:
            return None

    async def _look(self, tx: Transaction, span: Span, stop: asyncio.Event) -> Looked | None:
        """Look at a stretch that is claimed; None where somebody else has done so already."""
        head = await self._head(tx)
        if head is None:
            return None
        try:
            stretch = await store.stretch(tx, span.first, span.end, head)
        except StateCorrupt as error:
            raise _Unreadable(span, error) from None
        # Whoever signed these was enrolled before, and the plan was made from a log that says so.
        signers = await admitted(tx, stretch, self._registry, self._follower)
        if newest_proof(self._ledger.proofs, span.first, stretch.end) > span.proof:
            return None
        async with self._examining:
            return await self._examine(stretch, signers, stop)

    async def _look_closer(self, span: Span, head: Checkpoint, stop: asyncio.Event) -> tuple[Span, Looked | None]:
        """Look at less and less of a span that the database cannot read, until what is left can be, or is one leaf.

        A damaged page of the database makes its own statements unprovable, and keeps the prover from no other.
        """
        while span.end - span.first > 1:
            span = replace(span, end=span.first + (span.end - span.first) // 2)
            try:
                async with self._database.reading() as tx:
                    return span, await self._look(tx, span, stop) if await store.claim(tx, span.block) else None
            except _Unreadable:
                continue
        return span, condemned(span.first, head, "the database cannot read what is stored of it")

    async def _examine(self, stretch: Stretch, signers: Registry, stop: asyncio.Event) -> Looked:
        """Examine in a thread, for not too long, and show signs of life meanwhile."""
        deadline = self._monotonic() + LOOK_SECONDS_MAX

        def is_enough() -> bool:
            return stop.is_set() or self._monotonic() > deadline

        work = asyncio.create_task(asyncio.to_thread(examine, stretch, signers, self._keyring, is_enough))
        while not work.done():
            self._health.beat("proving")
            await asyncio.wait({work}, timeout=HEARTBEAT_SECONDS)
        return work.result()

    async def _append(self, looked: Looked, span: Span) -> bool:
        """Put one leaf into the recovery log; False where somebody else has looked there meanwhile."""
        async with self._database.transaction() as tx:
            await self._writer.lock(tx)
            await self._follower.advance(tx)
            if newest_proof(self._ledger.proofs, looked.first, looked.end) > span.proof:
                return False
            appended = await self._writer.append(tx, [looked.leaf(int(self._clock()))])
        await self._writer.committed(appended)
        return True

    def _tell(self, looked: Looked) -> None:
        """Write a line for everything that somebody has to look at."""
        self._report.looked(looked)
        for trouble in looked.troubles:
            self._log.error(
                "record cannot be given back",
                index=trouble.index,
                record=trouble.record,
                principal=None if trouble.principal is None else printable(trouble.principal),
                code=trouble.code,
                reason=printable(trouble.reason),
            )
        for sentence in looked.false_nodes:
            self._log.error("escrow log: a stored hash is false", reason=sentence)
        for statement, principal in looked.late:
            self._log.error(
                "escrow by a key that was not in force", message_id=statement, principal=principal, hint=LATE_HINT
            )


class _Unreadable(Exception):
    """The database could not read what is stored about a span."""

    def __init__(self, span: Span, error: StateCorrupt) -> None:
        super().__init__(error.message)
        self.span = span


async def _claimed(tx: Transaction, first: Span, others: Iterator[Span]) -> Span | None:
    """Return the first of these that no other prover is at."""
    if await store.claim(tx, first.block):
        return first
    for span in islice(others, CLAIMS_TRIED_MAX):
        if span.block != first.block and await store.claim(tx, span.block):
            return span
    return None
