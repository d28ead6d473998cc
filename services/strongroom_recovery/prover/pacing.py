"""Which range of the escrow log the prover looks at next, and when (SPEC 5.16). Pure.

What is due is told by the times in the log; how long to wait between two looks, by a clock that nobody sets. So
a clock that jumps neither stops the prover nor makes it go round in circles.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from strongroom.limits import CLOCK_SKEW_SECONDS
from strongroom_recovery.proofs import Look, Proofs

BLOCK_LEAVES: Final = 1_024
"""Leaves of a block: what one prover claims, and the most that one proof leaf covers."""

_DAY_SECONDS: Final = 86_400
_MARGIN: Final = 0.9  # of the time that policy gives: the rest is for outages
_PATROL_SHARE: Final = 0.05  # of the time
_ROUND_SECONDS_MIN: Final = 30.0
_HOUR_SECONDS: Final = 3_600.0
_PATROL_LEAVES_MAX: Final = 10  # of one block in an hour
_HASTE: Final = 0.95  # of the period is what a round at the usual pace takes: no look begins quite on time


def period_seconds(prove_days: int) -> float:
    """Return in what time every leaf is looked at again, for the days that policy gives."""
    return prove_days * _DAY_SECONDS * _MARGIN


@dataclass(frozen=True, slots=True)
class Span:
    """Escrow leaves `first` up to `end` within one block, to be looked at.

    proof: index of the newest leaf about any of them (`newest_proof`): with a newer one the plan is void.
    is_new: whether they were never looked at, or were sealed again since. is_patrol: whether it is worth a leaf
    only if it finds something new.
    """

    first: int
    end: int
    proof: int
    is_new: bool
    is_patrol: bool = False

    @property
    def block(self) -> int:
        """The number of the block, from 0."""
        return self.first // BLOCK_LEAVES


@dataclass(slots=True)
class Pace:
    """How fast to look again at what is not overdue: so that all leaves have their turn within the period.

    since: when the last such look began, at first when the process did; seconds of a monotonic clock. leaves: how
    many it covered.
    """

    since: float
    leaves: int = field(default_factory=lambda: BLOCK_LEAVES)

    def allows(self, monotonic: float, size: int, period: float) -> bool:
        """Say whether the next look may begin: `size` leaves in all, `period` in seconds."""
        return size > 0 and monotonic - self.since >= _HASTE * period * min(self.leaves, size) / size

    def looked(self, monotonic: float, leaves: int) -> None:
        """Take note of a look at so many leaves that began then."""
        self.since, self.leaves = monotonic, leaves


@dataclass(slots=True)
class Patrol:
    """Goes round and round between the looks that are due, so that damage is found long before a proof is old.

    It takes a small share of the time, and what it finds as the log has it already takes no place there. In a small
    log a round comes every half minute; five million keys take it about half a day.

    not_before: when it goes on, at first when the process begins; seconds of a monotonic clock.
    """

    not_before: float
    _told: dict[int, deque[float]] = field(default_factory=dict)
    _at: int = 0
    _round_began: float = float("-inf")

    def span(self, proofs: Proofs, size: int, monotonic: float) -> Span | None:
        """Return where to go on in a log of `size` leaves; None while it rests."""
        if not size or monotonic < self.not_before:
            return None
        if self._at >= size:
            self._at = 0
        if self._at == 0:
            self._round_began = monotonic
        end = min(self._at - self._at % BLOCK_LEAVES + BLOCK_LEAVES, size)
        return Span(self._at, end, newest_proof(proofs, self._at, end), is_new=False, is_patrol=True)

    def may_tell(self, span: Span, monotonic: float) -> bool:
        """Say whether what it found there may take a leaf: rows that come and go must not fill the log."""
        told = self._told.setdefault(span.block, deque())
        while told and told[0] <= monotonic - _HOUR_SECONDS:
            told.popleft()
        if len(told) >= _PATROL_LEAVES_MAX:
            return False
        told.append(monotonic)
        return True

    def walked(self, end: int, size: int, began: float, ended: float) -> None:
        """Take note that it got to leaf `end` of `size` between two times, and rest in proportion."""
        self._at = end
        self.not_before = ended + (ended - began) * (1 - _PATROL_SHARE) / _PATROL_SHARE
        if end >= size:
            self.not_before = max(self.not_before, self._round_began + _ROUND_SECONDS_MIN)


def spans(proofs: Proofs, size: int, now: int, *, period: float, is_early: bool) -> Iterator[Span]:
    """Give what to look at, the most urgent first: what is new, then what is overdue, from the longest ago on.

    New are leaves that were never looked at, and then those whose blobs were sealed again since they were.

    Arguments: `size` of the escrow log in leaves; `now` and `period` in seconds; with `is_early` the look that is
    longest ago has its turn although it is not overdue. A look that is dated after now counts as the longest ago.
    """
    for first, end in proofs.gaps(size):
        yield from _new(proofs, first, end)
    for first, end in proofs.resealed():
        yield from _new(proofs, first, min(end, size))
    oldest = proofs.oldest(now + CLOCK_SKEW_SECONDS)
    if oldest is None or not (is_early or _is_overdue(oldest, now, period)):
        return
    yield _again(proofs, oldest, size)
    # Only another prover that has taken that one makes anybody ask on.
    others = sorted((look for look in proofs.looks() if _is_overdue(look, now, period)), key=lambda look: look.time)
    taken = {oldest.first // BLOCK_LEAVES}
    for look in others:
        if look.first // BLOCK_LEAVES not in taken:
            taken.add(look.first // BLOCK_LEAVES)
            yield _again(proofs, look, size)


def newest_proof(proofs: Proofs, first: int, end: int) -> int:
    """Return the index of the newest leaf that says of any place from `first` up to `end` what was found there.

    Or of the one that has sealed blobs there again since: what was read before it must not pass for a look after
    it. -1 for none.
    """
    newest, at = proofs.resealed_by(first, end), first
    while at < end:
        look = proofs.look(at)
        if look is None:
            at += 1
        else:
            newest, at = max(newest, look.proof), look.end
    return newest


def _is_overdue(look: Look, now: int, period: float) -> bool:
    return now - look.time >= period


def _new(proofs: Proofs, first: int, end: int) -> Iterator[Span]:
    for begin in range(first - first % BLOCK_LEAVES, end, BLOCK_LEAVES):
        low, high = max(first, begin), min(end, begin + BLOCK_LEAVES)
        if low < high:
            yield Span(low, high, newest_proof(proofs, low, high), is_new=True)


def _again(proofs: Proofs, look: Look, size: int) -> Span:
    """Return the rest of the block from this look on: many looks at a few leaves become one."""
    end = min(look.first - look.first % BLOCK_LEAVES + BLOCK_LEAVES, size)
    return Span(look.first, end, newest_proof(proofs, look.first, end), is_new=False)
