"""What the prover has found, read from the recovery log and nothing else. Pure.

Each proof leaf speaks of a range of the escrow log. Of the leaves that cover the same place the newest counts.
Where blobs were sealed again since, it counts for what it says, and not for by which key a record opens.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TypeAlias

from strongroom.leaves import ProofLeaf, ResealLeaf
from strongroom_recovery.ranges import Ranges

Kids: TypeAlias = tuple[tuple[str, int], ...]
"""How many records opened by which sealing key: pairs of kid and number, in order of kid."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a record is unprovable, since when (seconds); `proof` is the index of the leaf that says so.

    index: of the escrow log's leaf. record: None for every record of that statement.
    """

    index: int
    record: str | None
    code: str
    time: int
    proof: int


@dataclass(frozen=True, slots=True)
class Look:
    """A range of escrow leaves, `first` up to `end`, that was last looked at by one proof leaf, and when.

    kids: by which keys how many records opened, in all of the range that the leaf covers; None where it is silent.
    """

    first: int
    end: int
    proof: int
    time: int
    kids: Kids | None = None


@dataclass(slots=True)
class Proofs:
    """Folds proof leaves into the newest look at every place of the escrow log."""

    # Parallel, in order of `first`, without overlap; gaps are what was never looked at. Arrays, because a fleet
    # that trickles in gives as many looks as keys.
    _first: "array[int]" = field(default_factory=lambda: array("q"))
    _end: "array[int]" = field(default_factory=lambda: array("q"))
    _proof: "array[int]" = field(default_factory=lambda: array("q"))
    _time: "array[int]" = field(default_factory=lambda: array("q"))
    _kids: "array[int]" = field(default_factory=lambda: array("q"))  # places in `_known_kids`, -1 for None
    _known_kids: list[Kids] = field(default_factory=list)  # hosts with one key each say the same again and again
    _kids_places: dict[Kids, int] = field(default_factory=dict)
    _resealed: Ranges[int] = field(default_factory=Ranges)  # since the newest look; index of the newest such leaf
    _findings: dict[int, dict[str | None, Finding]] = field(default_factory=dict)

    def apply(self, entry: ProofLeaf, index: int) -> None:
        """Take a proof leaf into account; `index` is its own in the recovery log."""
        first, end = entry.first, entry.first + entry.count
        self._cut(first, end)
        place = bisect_left(self._first, first)
        for column, value in (
            (self._first, first),
            (self._end, end),
            (self._proof, index),
            (self._time, entry.time),
            (self._kids, self._place_of(entry)),
        ):
            column.insert(place, value)
        self._resealed.cut(first, end)
        for old in self._found_within(first, end):
            del self._findings[old]
        for each in entry.unprovable:
            finding = Finding(each.index, each.record, each.code, entry.time, index)
            self._findings.setdefault(each.index, {})[each.record] = finding

    def reseal(self, entry: ResealLeaf, index: int) -> None:
        """Take a `reseal` leaf into account: where it changed anything, the looks before it are out of date."""
        if not entry.records:
            return
        first, end = entry.first, entry.first + entry.count
        # What a look says of keys it says of its whole range: all of it is out of date.
        for look in list(self.looks_within(first, end)):
            first, end = min(first, look.first), max(end, look.end)
        self._resealed.put(first, end, index)

    def _place_of(self, entry: ProofLeaf) -> int:
        if entry.kids is None:
            return -1
        kids = tuple(sorted(entry.kids.items()))
        place = self._kids_places.setdefault(kids, len(self._known_kids))
        if place == len(self._known_kids):
            self._known_kids.append(kids)
        return place

    def _cut(self, first: int, end: int) -> None:
        """Take the range out of the looks that it overlaps; what sticks out on either side stays."""
        begin = bisect_right(self._end, first)
        stop = bisect_left(self._first, end)
        if begin >= stop:
            return
        rest = [
            replace(each, first=max(low, each.first), end=min(high, each.end))
            for each in (self._look(begin), self._look(stop - 1))
            for low, high in ((each.first, first), (end, each.end))
            if max(low, each.first) < min(high, each.end)
        ]
        distinct = list(dict.fromkeys(rest))
        self._first[begin:stop] = array("q", [each.first for each in distinct])
        self._end[begin:stop] = array("q", [each.end for each in distinct])
        self._proof[begin:stop] = array("q", [each.proof for each in distinct])
        self._time[begin:stop] = array("q", [each.time for each in distinct])
        places = [-1 if each.kids is None else self._kids_places[each.kids] for each in distinct]
        self._kids[begin:stop] = array("q", places)

    def _look(self, place: int) -> Look:
        kids = self._kids[place]
        return Look(
            self._first[place],
            self._end[place],
            self._proof[place],
            self._time[place],
            None if kids < 0 else self._known_kids[kids],
        )

    def look(self, index: int) -> Look | None:
        """Return the newest look at a leaf of the escrow log; None while there was none."""
        place = bisect_right(self._first, index) - 1
        return self._look(place) if place >= 0 and index < self._end[place] else None

    def finding(self, index: int, record: str) -> Finding | None:
        """Return why a record of the statement at this place was unprovable at the newest look, if it was."""
        found = self._findings.get(index, {})
        return found.get(record) or found.get(None)

    def findings(self) -> Iterator[Finding]:
        """Give everything that was unprovable at the newest look, in order of index."""
        for index in sorted(self._findings):
            yield from self._findings[index].values()

    def findings_within(self, first: int, end: int) -> list[Finding]:
        """Return what was unprovable at the newest looks at the leaves from `first` up to `end`."""
        return [each for index in self._found_within(first, end) for each in self._findings[index].values()]

    def _found_within(self, first: int, end: int) -> list[int]:
        if end - first < len(self._findings):
            return [index for index in range(first, end) if index in self._findings]
        return [index for index in self._findings if first <= index < end]

    def looks(self) -> Iterator[Look]:
        """Give the newest looks in order of place."""
        return map(self._look, range(len(self._first)))

    def looks_within(self, first: int, end: int) -> Iterator[Look]:
        """Give the newest looks at any of the leaves from `first` up to `end`, whole, in order of place."""
        return map(self._look, range(bisect_right(self._end, first), bisect_left(self._first, end)))

    def resealed(self) -> Iterator[tuple[int, int]]:
        """Give the ranges whose blobs were sealed again since the newest look at them, or before any, in order."""
        return ((first, end) for first, end, _ in self._resealed)

    def resealed_by(self, first: int, end: int) -> int:
        """Return the newest leaf that sealed blobs of a range again and was not followed by a look; -1 for none."""
        return max((leaf for _, _, leaf in self._resealed.within(first, end)), default=-1)

    @property
    def reach(self) -> int:
        """How many leaves the escrow log must have for all looks to be true."""
        return self._end[-1] if self._end else 0

    def covered(self) -> list[tuple[int, int]]:
        """Return what was looked at as ranges, as few as possible, each `first` up to `end`."""
        ranges: list[tuple[int, int]] = []
        for first, end in zip(self._first, self._end, strict=True):
            if ranges and ranges[-1][1] == first:
                ranges[-1] = ranges[-1][0], end
            else:
                ranges.append((first, end))
        return ranges

    def gaps(self, size: int) -> list[tuple[int, int]]:
        """Return the ranges, within the first `size` leaves, that were never looked at."""
        edges = [(0, 0), *self.covered(), (size, size)]
        between = ((end, min(following, size)) for (_, end), (following, _) in pairwise(edges))
        return [(first, end) for first, end in between if first < end]

    def oldest(self, now: int | None = None) -> Look | None:
        """Return the look that is longest ago, of several the first.

        With `now`, in seconds, one that is dated later counts as longer ago than all: its date says nothing.
        """
        if not self._time:
            return None
        latest = max(self._time)
        chosen = latest if now is not None and latest > now else min(self._time)
        return self._look(self._time.index(chosen))
