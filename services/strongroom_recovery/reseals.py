"""Where key blobs were sealed again and to which key, read from the recovery log and nothing else. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from strongroom.leaves import ResealLeaf, RetirementLeaf
from strongroom_recovery.ranges import Ranges


class Resealed(NamedTuple):
    """What the newest `reseal` leaf says of a range: sealed to `kid`, all but `left` records."""

    kid: str
    left: int


@dataclass(slots=True)
class Reseals:
    """Folds `reseal` and `retirement` leaves.

    retired: when a sealing key was retired, in seconds, by its kid. reach: how many leaves the escrow log must have
    for all of them to be true.
    """

    retired: dict[str, int] = field(default_factory=dict)
    reach: int = 0
    _done: Ranges[Resealed] = field(default_factory=Ranges)

    def apply(self, entry: ResealLeaf) -> None:
        """Take a `reseal` leaf into account: of those that cover the same place the newest counts."""
        end = entry.first + entry.count
        self._done.put(entry.first, end, Resealed(entry.kid, entry.left))
        self.reach = max(self.reach, end)

    def retire(self, entry: RetirementLeaf) -> None:
        """Take a `retirement` leaf into account."""
        self.retired[entry.kid] = entry.time
        self.reach = max(self.reach, entry.size)

    def due(self, kid: str, first: int, end: int, *, again: bool = False) -> Iterator[tuple[int, int]]:
        """Give the ranges between two places whose blobs nobody has sealed to this key yet, in order.

        With `again` those too where records were left.
        """
        at = first
        for low, high, each in self._done.within(first, end):
            if each.kid == kid and not (again and each.left):
                if at < low:
                    yield at, low
                at = high
        if at < end:
            yield at, end

    def left(self, kid: str) -> int:
        """Return how many records could not be sealed to this key where somebody tried."""
        return sum(each.left for _, _, each in self._done if each.kid == kid)
