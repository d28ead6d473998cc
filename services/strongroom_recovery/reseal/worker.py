"""Sealing again: claim a piece of the escrow log, seal its blobs to the active key, commit them with their entry.

Its state is the recovery log alone. Whatever it is stopped in the middle of is done again, what others have done
meanwhile is not, and nothing that was stored changes.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from strongroom.crypto.keyring import Keyring
from strongroom.database import Transaction
from strongroom.errors import ConfigurationInvalid, ProofInvalid, StateCorrupt
from strongroom.mandates import SealingKey
from strongroom.service import unless_stopped
from strongroom_recovery.lanes import in_lanes
from strongroom_recovery.opening import Opened
from strongroom_recovery.prover import store as prover_store
from strongroom_recovery.prover.proving import Stretch
from strongroom_recovery.prover.signers import admitted
from strongroom_recovery.ranges import Ranges
from strongroom_recovery.reseal import store
from strongroom_recovery.reseal.planning import Piece, Progress, Throttle, pieces
from strongroom_recovery.reseal.resealing import Resealing, given_up, reseal

POLL_SECONDS: Final = 1.0
LOOK_SECONDS_MAX: Final = 20.0


class Resealer:
    """Seals every record to the roster's first active sealing key; several may do so at once, and workers go on."""

    def __init__(
        self,
        means: Opened,
        keyring: Keyring,
        *,
        again: bool = False,
        rate: float | None = None,
        told: Callable[[Progress], None] = lambda _progress: None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take everything that it needs; nothing is opened here.

        Arguments: `again`: try again what was left before. rate: records a second at most. told: is called after
        every piece.
        """
        self._means = means
        self._keyring = keyring
        self._again = again
        self._throttle = Throttle(rate)
        self._told = told
        self._clock = clock
        self._monotonic = monotonic
        self._plan: list[Piece] | None = None
        self._tried: Ranges[None] = Ranges()
        self._at_work: set[int] = set()  # blocks, by the lanes of this process
        self._examining = asyncio.Lock()
        self._turned = asyncio.Event()
        self.progress = Progress("", monotonic())

    async def serve(self, stop: asyncio.Event) -> None:
        """Go on until there is nothing left to do, or until `stop` is set; then what is in hand is committed first.

        Raises ConfigurationInvalid without the private key that is sealed to; TransientError with nothing half
        done, RosterExpired among them; CheckpointInvalid, FatalError.
        """
        self._plan = None
        await in_lanes(self._lane, stop)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to be gone through."""
        return self._plan is not None and not self._plan and not self._at_work

    async def _lane(self, over: asyncio.Event) -> None:
        while not over.is_set():
            if await self.turn(over):
                continue
            if self.is_done:
                return
            # Another lane or process is at all that is left. Should it die, that is due again.
            self._turned.clear()
            await unless_stopped(over, self._turned.wait(), POLL_SECONDS)
            self._plan = None

    async def turn(self, stop: asyncio.Event) -> bool:
        """Go through one piece, if there is one that nobody is at; say whether there was. Raises as `serve`."""
        wait = self._throttle.free_at - self._monotonic()
        if wait > 0:
            await unless_stopped(stop, asyncio.sleep(wait), wait)
            if stop.is_set():
                return False
        async with self._means.database.reading() as tx:
            await self._means.follower.advance(tx)
            self._means.escrow_log.go_by(self._means.registry.roster.body.logs.escrow)
            try:
                head = await self._means.escrow_log.head(tx)
            except ProofInvalid:  # an empty log
                self._plan = []
                return False
        target = self._target()
        if not self._plan or target.kid != self.progress.kid:  # more may have been escrowed meanwhile
            self._draw_up(target, head.size)
        for piece in [each for each in self._plan or [] if each.block not in self._at_work]:
            self._at_work.add(piece.block)
            try:
                done = await self._go_through(piece, target, stop)
                if done is not None:
                    await self._commit(done)
                    return True
            finally:
                self._at_work.discard(piece.block)
                self._turned.set()
        return False

    def _target(self) -> SealingKey:
        """Return the key that is sealed to. Raises RosterExpired, ConfigurationInvalid."""
        roster = self._means.registry.current_roster(int(self._clock()))
        target = roster.active_sealing_key()
        if target.kid not in self._keyring.kids:
            raise ConfigurationInvalid(
                f"sealing keys: {target.kid}, which is active, is missing here",
                hint="put its private key where the recovery worker has the others: nothing could open what is"
                " sealed to it",
            )
        return target

    def _draw_up(self, target: SealingKey, size: int) -> None:
        """Plan anew, and count what there is to do."""
        progress = self.progress
        if target.kid != progress.kid:
            self._tried = Ranges()
            progress.kid = target.kid
        self._plan = pieces(
            self._means.ledger,
            target.kid,
            size,
            self._tried,
            again=self._again,
            leaves_max=self._throttle.leaves_max,
        )
        progress.total = progress.leaves + sum(each.end - each.first for each in self._plan)
        progress.left = self._means.ledger.reseals.left(target.kid)

    async def _go_through(self, piece: Piece, target: SealingKey, stop: asyncio.Event) -> Resealing | None:
        """Seal a piece again, or less and less of what the database cannot read; None where somebody else is."""
        first, end = piece.first, piece.end
        while True:
            async with self._means.database.reading() as tx:
                if not await store.claim(tx, piece.block):
                    return None
                head = await self._means.escrow_log.head(tx)
                try:
                    stretch = await prover_store.stretch(tx, first, end, head)
                except StateCorrupt as error:
                    unreadable = error.message
                else:
                    return await self._reseal(tx, stretch, target, stop)
            if end - first == 1:
                reason = f"the database cannot read what is stored of it ({unreadable})"
                return given_up(first, head, target, reason)
            end = first + (end - first) // 2

    async def _reseal(
        self, tx: Transaction, stretch: Stretch, target: SealingKey, stop: asyncio.Event
    ) -> Resealing:
        """Seal in a thread, for not too long."""
        signers = await admitted(tx, stretch, self._means.registry, self._means.follower)
        async with self._examining:
            deadline = self._monotonic() + LOOK_SECONDS_MAX

            def is_enough() -> bool:
                return stop.is_set() or self._monotonic() > deadline

            return await asyncio.to_thread(reseal, stretch, signers, self._keyring, target, is_enough)

    async def _commit(self, done: Resealing) -> None:
        """Store the new blobs with the leaf that says so, unless somebody else has been there meanwhile."""
        means, target = self._means, done.target
        async with means.database.transaction() as tx:
            await means.writer.lock(tx)
            await means.follower.advance(tx)
            due = list(means.ledger.reseals.due(target.kid, done.first, done.end, again=self._again))
            if self._target() != target or due != [(done.first, done.end)]:
                self._plan = None
                return
            others = await store.insert(tx, done.blobs, target, means.writer.size)
            if others:
                done.withdraw(others, await store.outdated(tx, others, target.kid))
            appended = await means.writer.append(tx, [done.leaf(int(self._clock()))])
        await means.writer.committed(appended)
        self._account(done)

    def _account(self, done: Resealing) -> None:
        progress = self.progress
        self._tried.put(done.first, done.end, None)
        if self._plan is not None:
            self._plan = [rest for each in self._plan if (rest := _rest(each, done)) is not None]
        progress.add(done.end - done.first, len(done.blobs), done.troubles)
        self._throttle.passed(len(done.blobs), self._monotonic())
        self._told(progress)


def _rest(piece: Piece, done: Resealing) -> Piece | None:
    """Return what is left of a piece; what is gone through begins where a piece does."""
    if not piece.first <= done.first < piece.end:
        return piece
    return Piece(done.end, piece.end) if done.end < piece.end else None
