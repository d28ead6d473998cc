"""The fold of proof leaves against the obvious one: the newest leaf that covers a place counts."""

from itertools import groupby

from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.fields import new_id
from strongroom.leaves import ProofLeaf, Unprovable
from strongroom_recovery.proofs import Finding, Proofs

SIZE = 24
RECORDS = [new_id(), new_id()]
CODES = ["proof_invalid", "blob_invalid"]

unprovable = st.tuples(st.integers(0, SIZE - 1), st.sampled_from([None, *RECORDS]), st.sampled_from(CODES))


@st.composite
def proof_leaves(draw: st.DrawFn) -> ProofLeaf:
    first = draw(st.integers(0, SIZE - 1))
    end = draw(st.integers(first + 1, SIZE))
    named = {(index, record): code for index, record, code in draw(st.lists(unprovable, max_size=4))}
    return ProofLeaf(
        time=draw(st.integers(0, 5)),
        first=first,
        count=end - first,
        size=SIZE,
        root="00" * 32,
        records=0,
        unprovable=[
            Unprovable(index=index, record=record, code=code)
            for (index, record), code in named.items()
            if first <= index < end
        ],
    )


class Obvious:
    """A place at a time."""

    def __init__(self, leaves: list[ProofLeaf]) -> None:
        self.newest: dict[int, int] = {}
        for proof, leaf in enumerate(leaves):
            self.newest |= dict.fromkeys(range(leaf.first, leaf.first + leaf.count), proof)
        self.findings = {
            (each.index, each.record): Finding(each.index, each.record, each.code, leaf.time, proof)
            for proof, leaf in enumerate(leaves)
            for each in leaf.unprovable
            if self.newest[each.index] == proof
        }

    def finding(self, index: int, record: str) -> Finding | None:
        """Return why a record was unprovable, if it was."""
        return self.findings.get((index, record)) or self.findings.get((index, None))


def ranges(indexes: list[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as ranges."""
    groups = (list(group) for _, group in groupby(enumerate(indexes), key=lambda pair: pair[1] - pair[0]))
    return [(group[0][1], group[-1][1] + 1) for group in groups]


@settings(max_examples=400, deadline=None)
@given(st.lists(proof_leaves(), max_size=12))
def test_the_newest_leaf_that_covers_a_place_counts(leaves: list[ProofLeaf]) -> None:
    """Whatever order and overlap: looks, findings, gaps and what is covered are those of the obvious fold."""
    folded, obvious = Proofs(), Obvious(leaves)
    for proof, leaf in enumerate(leaves):
        folded.apply(leaf, proof)
    for index in range(SIZE + 1):
        look = folded.look(index)
        assert (look and look.proof) == obvious.newest.get(index)
        if look is not None:
            assert look.first <= index < look.end
            assert {obvious.newest[each] for each in range(look.first, look.end)} == {look.proof}
            assert look.time == leaves[look.proof].time
        for record in RECORDS:
            assert folded.finding(index, record) == obvious.finding(index, record)
    assert sorted(map(repr, folded.findings())) == sorted(map(repr, obvious.findings.values()))
    assert [each.index for each in folded.findings()] == sorted(index for index, _ in obvious.findings)
    assert folded.covered() == ranges(sorted(obvious.newest))
    for size in (0, SIZE // 2, SIZE, SIZE + 3):
        assert folded.gaps(size) == ranges([index for index in range(size) if index not in obvious.newest])
    assert [(look.first, look.end) for look in folded.looks()] == sorted(
        (look.first, look.end) for look in folded.looks()
    )
    assert sum(look.end - look.first for look in folded.looks()) == len(obvious.newest)


@settings(max_examples=200, deadline=None)
@given(st.lists(proof_leaves(), max_size=12), st.none() | st.integers(0, 5))
def test_the_oldest_look_is_the_first_of_the_earliest(leaves: list[ProofLeaf], now: int | None) -> None:
    """One that is dated after now is older than all; of several of a time it is the first by place."""
    folded = Proofs()
    for proof, leaf in enumerate(leaves):
        folded.apply(leaf, proof)
    looks = list(folded.looks())
    if not looks:
        assert folded.oldest(now) is None
        return
    latest = max(look.time for look in looks)
    wanted = latest if now is not None and latest > now else min(look.time for look in looks)
    assert folded.oldest(now) == next(look for look in looks if look.time == wanted)
