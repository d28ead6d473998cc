"""Which sealing keys the prover says open the records, place by place of the escrow log (SPEC 7.7). Pure.

Of the leaves that speak of a place the newest counts. What a leaf says of keys, it says of its whole range.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from strongroom.leaves import ProofLeaf, ResealLeaf


class _Said(NamedTuple):
    """What is known of a range: the keys that open records there (None: not known now), and leaves of failures.

    failed: the escrow leaf of each failure, in order.
    """

    end: int
    keys: frozenset[str] | None
    failed: tuple[int, ...]


@dataclass(slots=True)
class KeyUse:
    """Takes proof and reseal leaves in the order of the recovery log."""

    _firsts: list[int] = field(default_factory=list)  # in order, without overlap; `_said` has the rest
    _said: list[_Said] = field(default_factory=list)
    _keys: dict[frozenset[str], frozenset[str]] = field(default_factory=dict)  # fleets repeat themselves

    def prove(self, leaf: ProofLeaf) -> None:
        """Take what was found at a look."""
        keys = None if leaf.kids is None else frozenset(leaf.kids)
        if keys is not None:
            keys = self._keys.setdefault(keys, keys)
        end = leaf.first + leaf.count
        failed = sorted(index for index, _ in {(each.index, each.record) for each in leaf.unprovable})
        self._put(leaf.first, _Said(end, keys, tuple(failed)))

    def reseal(self, leaf: ResealLeaf) -> None:
        """Forget which keys open what was sealed again."""
        if not leaf.records:
            return
        for place in range(*self._touched(leaf.first, leaf.first + leaf.count)):
            self._said[place] = self._said[place]._replace(keys=None)

    def obstacle(self, kid: str, size: int, given_up: int = 0) -> str | None:
        """Say why a key could not be retired in a tree of so many leaves; None where nothing needs it.

        given_up: how many failures were given up; it has to be all that there are.
        """
        at = 0
        failed: list[int] = []
        for first, said in zip(self._firsts, self._said, strict=True):
            if first >= size:
                break
            if first > at:
                break
            if said.keys is None:
                return (
                    f"escrow leaf {first} was not looked at, by a leaf that names keys, since it was sealed again"
                )
            if kid in said.keys:
                return f"it opened records of the escrow leaves {first} to {said.end - 1}"
            failed += (each for each in said.failed if each < size)
            at = said.end
        if at < size:
            return f"escrow leaf {at} was never looked at"
        if len(failed) == given_up:
            return None
        if not given_up:
            return f"a record of escrow leaf {failed[0]} did not open"
        return f"{given_up} unprovable records were given up, and the proofs before it name {len(failed)}"

    def _touched(self, first: int, end: int) -> tuple[int, int]:
        """Return which of the ranges lie within this one, be it in part."""
        begin = bisect_right(self._firsts, first) - 1
        if begin < 0 or self._said[begin].end <= first:
            begin += 1
        return begin, max(begin, bisect_left(self._firsts, end))

    def _put(self, first: int, said: _Said) -> None:
        begin, stop = self._touched(first, said.end)
        kept = [*self._rests(begin, stop, first, said.end), (first, said)]
        kept.sort(key=lambda each: each[0])
        self._firsts[begin:stop] = [each[0] for each in kept]
        self._said[begin:stop] = [each[1] for each in kept]

    def _rests(self, begin: int, stop: int, first: int, end: int) -> Iterable[tuple[int, _Said]]:
        """Give what sticks out of a range on either side."""
        for place in range(begin, stop):
            low, said = self._firsts[place], self._said[place]
            if low < first:
                yield low, said._replace(end=first, failed=tuple(each for each in said.failed if each < first))
            if said.end > end:
                yield end, said._replace(failed=tuple(each for each in said.failed if each >= end))
