"""What is still to be sealed again, how fast, and how far it has come. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from strongroom_recovery.ledger import Ledger
from strongroom_recovery.proofs import Proofs
from strongroom_recovery.prover.pacing import BLOCK_LEAVES
from strongroom_recovery.prover.proving import Trouble
from strongroom_recovery.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Piece:
    """Escrow leaves `first` up to `end` within one block, to be gone through."""

    first: int
    end: int

    @property
    def block(self) -> int:
        """The number of the block, from 0."""
        return self.first // BLOCK_LEAVES


def pieces(
    ledger: Ledger, kid: str, size: int, tried: Ranges[None], *, again: bool = False, leaves_max: int = BLOCK_LEAVES
) -> list[Piece]:
    """Return what is to be gone through, in order, each piece within one block and no longer than `leaves_max`.

    That is every place among the first `size` leaves that no `reseal` leaf to this key covers (with `again` also
    where one left records), unless the prover's newest look found nothing there but records that this key opens.

    Arguments: `tried` is what this process has gone through itself.
    """
    settled: Ranges[None] = Ranges()
    for first, end, _ in tried:
        settled.put(first, end, None)
    for first, end in _sealed_to(ledger.proofs, kid):
        settled.put(first, end, None)
    return [
        piece
        for low, high in ledger.reseals.due(kid, 0, size, again=again)
        for first, end in settled.gaps_within(low, high)
        for piece in _cut(first, end, leaves_max)
    ]


def _cut(first: int, end: int, leaves_max: int) -> Iterator[Piece]:
    while first < end:
        stop = min(end, first - first % BLOCK_LEAVES + BLOCK_LEAVES, first + leaves_max)
        yield Piece(first, stop)
        first = stop


def _sealed_to(proofs: Proofs, kid: str) -> Iterator[tuple[int, int]]:
    """Give the ranges of which the prover has said that this key opens every record, and that none failed."""
    for look in proofs.looks():
        if (
            look.kids is not None
            and all(each == kid for each, _ in look.kids)
            and not proofs.findings_within(look.first, look.end)
            and proofs.resealed_by(look.first, look.end) < 0
        ):
            yield look.first, look.end


@dataclass(slots=True)
class Throttle:
    """Lets no more than so many records a second through; None for as many as can be.

    free_at: when the next may go, in seconds of a monotonic clock.
    """

    rate: float | None
    free_at: float = 0.0

    @property
    def leaves_max(self) -> int:
        """The longest piece: about a second's worth, so that a slow rate is even."""
        return BLOCK_LEAVES if self.rate is None else max(1, min(BLOCK_LEAVES, int(self.rate)))

    def passed(self, records: int, monotonic: float) -> None:
        """Take note that so many were sealed again by then."""
        if self.rate is not None:
            self.free_at = max(self.free_at, monotonic) + records / self.rate


TROUBLES_MAX: Final = 1_000


@dataclass(slots=True)
class Progress:
    """How far it has come.

    kid: the key that is sealed to. began: seconds of a monotonic clock. leaves: gone through by this process, of
    `total` that were due in all. records: sealed again, with their entries committed. troubles: what was left by
    this process, as far as there is room. left: how many records by the log, also by others and earlier.
    """

    kid: str
    began: float
    leaves: int = 0
    total: int = 0
    records: int = 0
    left: int = 0
    troubles: list[Trouble] = field(default_factory=list)

    def add(self, leaves: int, records: int, troubles: Sequence[Trouble]) -> None:
        """Take note of a piece that was committed."""
        self.leaves += leaves
        self.records += records
        self.troubles += troubles[: TROUBLES_MAX - len(self.troubles)]

    def rate(self, monotonic: float) -> float:
        """Return records a second since it began."""
        return self.records / max(monotonic - self.began, 1e-9)

    def seconds_left(self, monotonic: float) -> float | None:
        """Return about how long it will go on; None while nobody can tell."""
        if not self.leaves:
            return None
        return (self.total - self.leaves) * (monotonic - self.began) / self.leaves
