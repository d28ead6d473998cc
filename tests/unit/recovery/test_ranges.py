"""Ranges that take the place of older ones: as if every place were written down alone."""

from hypothesis import given
from hypothesis import strategies as st

from strongroom_recovery.ranges import Ranges

SIZE = 30
SPANS = st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE)).map(lambda pair: (pair[0], min(SIZE, sum(pair))))


@given(st.lists(st.tuples(SPANS, st.one_of(st.none(), st.integers(0, 3)))), SPANS)
def test_of_what_was_said_of_a_place_the_newest_counts(
    said: list[tuple[tuple[int, int], int | None]], asked: tuple[int, int]
) -> None:
    """Put and cut, in any order; asked of all, of a part, and of what is missing there."""
    ranges: Ranges[int] = Ranges()
    places: dict[int, int] = {}
    for (first, end), value in said:
        for place in range(first, end):
            places.pop(place, None)
            if value is not None:
                places[place] = value
        if value is None:
            ranges.cut(first, end)
        else:
            ranges.put(first, end, value)
    assert {place: value for first, end, value in ranges for place in range(first, end)} == places
    assert sum(end - first for first, end, _ in ranges) == len(places)
    assert [first for first, _, _ in ranges] == sorted(first for first, _, _ in ranges)
    within = {place: value for first, end, value in ranges.within(*asked) for place in range(first, end)}
    assert within == {place: value for place, value in places.items() if asked[0] <= place < asked[1]}
    missing = [place for first, end in ranges.gaps_within(*asked) for place in range(first, end)]
    assert missing == [place for place in range(*asked) if place not in places]
