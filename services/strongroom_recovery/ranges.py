"""Places of a log, each with what was last said of it: ranges that take the place of older ones. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

V = TypeVar("V")


@dataclass(slots=True)
class Ranges(Generic[V]):
    """Ranges `first` up to `end`, in order and without overlap, each with a value."""

    _first: list[int] = field(default_factory=list)
    _end: list[int] = field(default_factory=list)
    _value: list[V] = field(default_factory=list)

    def put(self, first: int, end: int, value: V) -> None:
        """Say this of a range; what was said of any place in it before is gone."""
        place = self.cut(first, end)
        self._first.insert(place, first)
        self._end.insert(place, end)
        self._value.insert(place, value)

    def cut(self, first: int, end: int) -> int:
        """Take a range out; what sticks out of it on either side stays. Returns where it would stand."""
        begin, stop = self._within(first, end)
        rest = [
            (max(low, each_first), min(high, each_end), value)
            for each_first, each_end, value in zip(
                self._first[begin:stop], self._end[begin:stop], self._value[begin:stop], strict=True
            )
            for low, high in ((0, first), (end, each_end))
            if max(low, each_first) < min(high, each_end)
        ]
        self._first[begin:stop] = [each[0] for each in rest]
        self._end[begin:stop] = [each[1] for each in rest]
        self._value[begin:stop] = [each[2] for each in rest]
        return bisect_left(self._first, first)

    def within(self, first: int, end: int) -> Iterator[tuple[int, int, V]]:
        """Give what was said of places from `first` up to `end`, cut to fit, in order."""
        begin, stop = self._within(first, end)
        for place in range(begin, stop):
            yield max(self._first[place], first), min(self._end[place], end), self._value[place]

    def gaps_within(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Give the ranges between `first` and `end` of which nothing was said, in order."""
        at = first
        for low, high, _ in self.within(first, end):
            if at < low:
                yield at, low
            at = high
        if at < end:
            yield at, end

    def _within(self, first: int, end: int) -> tuple[int, int]:
        begin, stop = bisect_right(self._end, first), bisect_left(self._first, end)
        return begin, max(begin, stop)

    def __iter__(self) -> Iterator[tuple[int, int, V]]:
        """Give all ranges, `first`, `end` and value, in order."""
        return zip(list(self._first), list(self._end), list(self._value), strict=True)

    def __len__(self) -> int:
        """Return the number of ranges."""
        return len(self._first)
