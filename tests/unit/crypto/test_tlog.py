"""The Merkle tree against published vectors, a naive tree straight from RFC 6962, and tampering."""

import json
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.crypto import tlog
from strongroom.crypto.tlog import Frontier, Node
from strongroom.errors import ProofInvalid, StateCorrupt

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "tlog" / "rfc6962.json").read_text(encoding="utf-8")
)
RFC_LEAVES = [bytes.fromhex(leaf) for leaf in VECTORS["leaves"]]
RFC_ROOTS = [bytes.fromhex(root) for root in VECTORS["roots"]]
RFC_NODES = {
    Node(level, index): bytes.fromhex(value)
    for level, row in enumerate(VECTORS["nodes"])
    for index, value in enumerate(row)
}

UNTIMED = settings(deadline=None)  # a busy machine is no failure

SIZES = range(70)
LEAVES = [f"leaf {index}".encode() for index in SIZES]
FRONTIER, NODES = tlog.append(Frontier.empty(), LEAVES)


# ---- the reference: definitions of RFC 6962 section 2.1, recursive and slow, over LEAVES[begin:end] ----


def split(begin: int, end: int) -> int:
    power = 1
    while 2 * power < end - begin:
        power *= 2
    return begin + power


@cache
def naive_root(begin: int, end: int) -> bytes:
    if begin == end:
        return sha256(b"").digest()
    if end - begin == 1:
        return sha256(b"\x00" + LEAVES[begin]).digest()
    middle = split(begin, end)
    return sha256(b"\x01" + naive_root(begin, middle) + naive_root(middle, end)).digest()


def naive_path(index: int, begin: int, end: int) -> list[bytes]:
    if end - begin == 1:
        return []
    middle = split(begin, end)
    if index < middle:
        return [*naive_path(index, begin, middle), naive_root(middle, end)]
    return [*naive_path(index, middle, end), naive_root(begin, middle)]


def naive_subproof(old: int, begin: int, end: int, *, known: bool) -> list[bytes]:
    if old == end:
        return [] if known else [naive_root(begin, end)]
    middle = split(begin, end)
    if old <= middle:
        return [*naive_subproof(old, begin, middle, known=known), naive_root(middle, end)]
    return [*naive_subproof(old, middle, end, known=False), naive_root(begin, middle)]


def root_of(size: int) -> bytes:
    return naive_root(0, size)


def frontier_of(size: int) -> Frontier:
    return Frontier(size, tuple(NODES[node] for node in tlog.frontier_nodes(size)))


def flip(value: bytes, bit: int) -> bytes:
    return (int.from_bytes(value, "big") ^ (1 << bit)).to_bytes(len(value), "big")


# ---- published values -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_published_vectors(size: int) -> None:
    """The root after each of the first eight published leaves is the published one."""
    frontier, _ = tlog.append(Frontier.empty(), RFC_LEAVES[:size])
    assert frontier.root() == RFC_ROOTS[size]


def test_nodes_are_those_of_the_published_vectors() -> None:
    """Appending the published leaves completes exactly the published nodes, each under its coordinate."""
    _, completed = tlog.append(Frontier.empty(), RFC_LEAVES)
    assert completed == RFC_NODES


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda case: f"{case['index']}-in-{case['size']}")
def test_inclusion_proofs_are_those_of_the_published_vectors(case: dict[str, Any]) -> None:
    """The published inclusion proofs are made and verified."""
    index, size = case["index"], case["size"]
    proof = tlog.inclusion_proof(index, size, RFC_NODES)
    assert [value.hex() for value in proof] == case["proof"]
    tlog.verify_inclusion(RFC_NODES[Node(0, index)], index, size, proof, RFC_ROOTS[size])


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda case: f"{case['old']}-to-{case['new']}")
def test_consistency_proofs_are_those_of_the_published_vectors(case: dict[str, Any]) -> None:
    """The published consistency proofs are made and verified."""
    old, new = case["old"], case["new"]
    proof = tlog.consistency_proof(old, new, RFC_NODES)
    assert [value.hex() for value in proof] == case["proof"]
    tlog.verify_consistency(old, RFC_ROOTS[old], new, RFC_ROOTS[new], proof)


def test_nodes_asked_for_are_those_of_the_drawn_example_tree() -> None:
    """In the seven-leaf tree drawn in RFC 6962 section 2.1.3 the proofs ask for the nodes named there."""
    b, c, d, g = (Node(0, index) for index in (1, 2, 3, 6))
    h, i, j, k = Node(1, 0), Node(1, 1), Node(1, 2), Node(2, 0)
    assert tlog.inclusion_nodes(0, 7) == [b, i, j, g]  # l is not complete: it is made of j and g
    assert tlog.inclusion_nodes(3, 7) == [c, h, j, g]
    assert tlog.inclusion_nodes(6, 7) == [j, k]
    assert tlog.consistency_nodes(3, 7) == [c, d, h, j, g]
    assert tlog.consistency_nodes(4, 7) == [j, g]
    assert tlog.consistency_nodes(6, 7) == [j, g, k]
    assert tlog.frontier_nodes(7) == [k, j, g]


# ---- agreement with the naive tree ----------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_root_agrees_with_the_naive_tree(size: int) -> None:
    """A frontier read from stored nodes has the root that the definition gives."""
    assert frontier_of(size).root() == root_of(size)


@pytest.mark.parametrize("size", SIZES)
def test_inclusion_agrees_with_the_naive_tree_for_every_index(size: int) -> None:
    """Every inclusion proof equals the definition's, is made of complete nodes alone, and verifies."""
    for index in range(size):
        asked = tlog.inclusion_nodes(index, size)
        assert all((node.index + 1) << node.level <= size for node in asked)
        proof = tlog.inclusion_proof(index, size, {node: NODES[node] for node in asked})
        assert proof == naive_path(index, 0, size)
        tlog.verify_inclusion(tlog.leaf_hash(LEAVES[index]), index, size, proof, root_of(size))


@pytest.mark.parametrize("new", SIZES)
def test_consistency_agrees_with_the_naive_tree_for_every_old_size(new: int) -> None:
    """Every consistency proof equals the definition's, is made of complete nodes alone, and verifies."""
    for old in range(new + 1):
        asked = tlog.consistency_nodes(old, new)
        assert all((node.index + 1) << node.level <= new for node in asked)
        proof = tlog.consistency_proof(old, new, {node: NODES[node] for node in asked})
        assert proof == (naive_subproof(old, 0, new, known=True) if old else [])
        tlog.verify_consistency(old, root_of(old), new, root_of(new), proof)


@UNTIMED
@given(cuts=st.lists(st.sampled_from(SIZES)))
def test_batches_do_not_matter(cuts: Sequence[int]) -> None:
    """However the leaves are cut into batches, each node is completed once and the edge is the same."""
    frontier, collected = Frontier.empty(), dict[Node, bytes]()
    for begin, end in pairwise([0, *sorted(cuts), len(LEAVES)]):
        before = frontier
        frontier, completed = tlog.append(frontier, LEAVES[begin:end])
        assert before == frontier_of(begin)
        assert not collected.keys() & completed.keys()
        collected |= completed
    assert frontier == FRONTIER
    assert collected == NODES


def test_every_complete_node_of_the_tree_is_handed_to_storage_with_its_hash() -> None:
    """What append returns is every complete subtree, under its coordinate, with the definition's hash."""
    expected = {
        Node(level, index): naive_root(index << level, (index + 1) << level)
        for level in range(7)
        for index in range(len(LEAVES) >> level)
    }
    assert expected == NODES


def test_the_given_frontier_is_left_alone() -> None:
    """Appending leaves the old frontier as it was: a failed transaction can be tried again from it."""
    before = frontier_of(7)
    tlog.append(before, LEAVES[7:20])
    assert before == frontier_of(7)


# ---- trees too large to build: all leaves alike, so that the hash of a node follows from its level ---


class AlikeNodes(dict[Node, bytes]):
    """The nodes of a log of any size whose entries are all empty."""

    def __missing__(self, node: Node) -> bytes:
        if node.level == 0:
            return tlog.leaf_hash(b"")
        child = self[Node(node.level - 1, 0)]
        return self.setdefault(Node(node.level, 0), tlog.node_hash(child, child))


ALIKE = AlikeNodes()


def alike_root(size: int) -> bytes:
    return Frontier(size, tuple(ALIKE[Node(node.level, 0)] for node in tlog.frontier_nodes(size))).root()


large_sizes = st.integers(1, tlog.LOG_SIZE_MAX) | st.sampled_from(
    [tlog.LOG_SIZE_MAX, *(2**level + offset for level in range(1, 63) for offset in (-1, 0, 1))]
)


@UNTIMED
@given(size=large_sizes, data=st.data())
def test_inclusion_proofs_hold_in_logs_of_any_size(size: int, data: st.DataObject) -> None:
    """Up to the largest log there can be, proofs are made from complete nodes and verify."""
    index = data.draw(st.integers(0, size - 1) | st.just(size - 1))
    proof = tlog.inclusion_proof(index, size, ALIKE)
    assert len(proof) <= (size - 1).bit_length()
    tlog.verify_inclusion(tlog.leaf_hash(b""), index, size, proof, alike_root(size))


@UNTIMED
@given(new=large_sizes, data=st.data())
def test_consistency_proofs_hold_in_logs_of_any_size(new: int, data: st.DataObject) -> None:
    """Up to the largest log there can be, any earlier size is shown to be a prefix."""
    old = data.draw(st.integers(0, new))
    proof = tlog.consistency_proof(old, new, ALIKE)
    tlog.verify_consistency(old, alike_root(old), new, alike_root(new), proof)


# ---- tampering ------------------------------------------------------------------------------------


@UNTIMED
@given(size=st.integers(1, 69), data=st.data())
def test_an_altered_inclusion_proof_is_refused(size: int, data: st.DataObject) -> None:
    """One flipped bit in leaf hash, index, root or any hash of the proof refuses."""
    index = data.draw(st.integers(0, size - 1))
    leaf, root = tlog.leaf_hash(LEAVES[index]), root_of(size)
    proof = tlog.inclusion_proof(index, size, NODES)
    place = data.draw(st.integers(-3, len(proof) - 1))
    bit = data.draw(st.integers(0, 255))
    if place == -3:
        leaf = flip(leaf, bit)
    elif place == -2:
        root = flip(root, bit)
    elif place == -1:
        index ^= 1 << bit % 64
    else:
        proof[place] = flip(proof[place], bit)
    with pytest.raises(ProofInvalid):
        tlog.verify_inclusion(leaf, index, size, proof, root)


@UNTIMED
@given(new=st.integers(1, 69), data=st.data())
def test_an_altered_consistency_proof_is_refused(new: int, data: st.DataObject) -> None:
    """One flipped bit in the old size, either root or any hash of the proof refuses."""
    old = data.draw(st.integers(1, new))
    old_size, old_root, new_root = old, root_of(old), root_of(new)
    proof = tlog.consistency_proof(old, new, NODES)
    place = data.draw(st.integers(-3, len(proof) - 1))
    bit = data.draw(st.integers(0, 255))
    if place == -3:
        old_root = flip(old_root, bit)
    elif place == -2:
        new_root = flip(new_root, bit)
    elif place == -1:
        old_size ^= 1 << bit % 64
    else:
        proof[place] = flip(proof[place], bit)
    with pytest.raises(ProofInvalid):
        tlog.verify_consistency(old_size, old_root, new, new_root, proof)


def test_an_inclusion_proof_of_another_length_is_refused() -> None:
    """A hash taken out of an inclusion proof, or put into it anywhere, refuses."""
    proof = tlog.inclusion_proof(2, 7, NODES)
    for place in range(len(proof)):
        for wrong in (proof[:place] + proof[place + 1 :], [*proof[:place], root_of(7), *proof[place:]]):
            with pytest.raises(ProofInvalid, match="hashes where 3 are due"):
                tlog.verify_inclusion(NODES[Node(0, 2)], 2, 7, wrong, root_of(7))


@pytest.mark.parametrize("old", [3, 4])
def test_a_consistency_proof_of_another_length_is_refused(old: int) -> None:
    """A hash taken out of a consistency proof, or put into it anywhere, refuses."""
    proof = tlog.consistency_proof(old, 7, NODES)
    for place in range(len(proof)):
        for wrong in (proof[:place] + proof[place + 1 :], [*proof[:place], root_of(old), *proof[place:]]):
            with pytest.raises(ProofInvalid, match="hashes where"):
                tlog.verify_consistency(old, root_of(old), 7, root_of(7), wrong)


def test_a_root_alone_does_not_fix_the_size() -> None:
    """Why size and root come from one checkpoint: the same path serves leaf 0 of five and of six leaves."""
    proof = tlog.inclusion_proof(0, 5, NODES)
    tlog.verify_inclusion(NODES[Node(0, 0)], 0, 6, proof, root_of(5))


@pytest.mark.parametrize("cut", [31, 33])
def test_a_hash_of_another_length_is_refused(cut: int) -> None:
    """Hashes are 32 bytes everywhere: in a proof, as leaf hash, as root."""
    leaf, root, odd = NODES[Node(0, 2)], root_of(5), b"\x00" * cut
    proof = tlog.inclusion_proof(2, 5, NODES)
    for arguments in ((odd, proof, root), (leaf, [*proof[:-1], odd], root), (leaf, proof, odd)):
        with pytest.raises(ProofInvalid, match="32 bytes"):
            tlog.verify_inclusion(arguments[0], 2, 5, arguments[1], arguments[2])
    steps = tlog.consistency_proof(3, 5, NODES)
    old = root_of(3)
    for old_root, path, new_root in ((odd, steps, root), (old, [odd, *steps[1:]], root), (old, steps, odd)):
        with pytest.raises(ProofInvalid, match="32 bytes"):
            tlog.verify_consistency(3, old_root, 5, new_root, path)


# ---- ranges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "size"),
    [(-1, 5), (5, 5), (6, 5), (0, 0), (0, -1), (0, tlog.LOG_SIZE_MAX + 1)],
)
def test_an_index_outside_the_tree_is_refused(index: int, size: int) -> None:
    """There is no proof for a leaf that a tree does not have, nor in a tree that cannot be."""
    with pytest.raises(ProofInvalid, match="has no leaf"):
        tlog.inclusion_nodes(index, size)
    with pytest.raises(ProofInvalid, match="has no leaf"):
        tlog.inclusion_proof(index, size, NODES)
    with pytest.raises(ProofInvalid, match="has no leaf"):
        tlog.verify_inclusion(NODES[Node(0, 0)], index, size, [], NODES[Node(0, 0)])


@pytest.mark.parametrize(("old", "new"), [(6, 5), (1, 0), (-1, 5), (-1, -1), (1, tlog.LOG_SIZE_MAX + 1)])
def test_a_log_that_shrinks_is_refused(old: int, new: int) -> None:
    """There is no proof that a larger tree is a prefix of a smaller one, nor for sizes that cannot be."""
    with pytest.raises(ProofInvalid, match="does not continue"):
        tlog.consistency_nodes(old, new)
    with pytest.raises(ProofInvalid, match="does not continue"):
        tlog.consistency_proof(old, new, NODES)
    with pytest.raises(ProofInvalid, match="does not continue"):
        tlog.verify_consistency(old, root_of(5), new, root_of(5), [])


def test_the_empty_log_is_a_prefix_of_every_log() -> None:
    """An old size of 0 asks for nothing and verifies with the root of the empty tree."""
    assert tlog.consistency_nodes(0, 5) == []
    assert tlog.consistency_proof(0, 5, {}) == []
    tlog.verify_consistency(0, tlog.EMPTY_ROOT, 5, root_of(5), [])
    tlog.verify_consistency(0, tlog.EMPTY_ROOT, 0, tlog.EMPTY_ROOT, [])


@pytest.mark.parametrize("new", [0, 5])
def test_an_empty_log_with_another_root_is_refused(new: int) -> None:
    """An old size of 0 with any other root than the empty tree's was never signed honestly."""
    with pytest.raises(ProofInvalid, match="without leaves"):
        tlog.verify_consistency(0, root_of(5), new, root_of(5), [])


@pytest.mark.parametrize(("old", "new"), [(0, 0), (0, 5), (5, 5)])
def test_where_nothing_is_to_be_proved_the_proof_is_empty(old: int, new: int) -> None:
    """An old size of 0, and equal sizes, refuse a proof that is not empty."""
    with pytest.raises(ProofInvalid, match="1 hashes where 0"):
        tlog.verify_consistency(old, root_of(old), new, root_of(new), [root_of(old)])


def test_equal_sizes_need_equal_roots() -> None:
    """Two roots for one size are a fork, whatever the proof."""
    tlog.verify_consistency(5, root_of(5), 5, root_of(5), [])
    with pytest.raises(ProofInvalid, match="two roots"):
        tlog.verify_consistency(5, root_of(5), 5, root_of(6), [])


# ---- storage at fault -----------------------------------------------------------------------------


@pytest.mark.parametrize("missing", tlog.inclusion_nodes(3, 7))
def test_an_inclusion_proof_that_misses_a_node_is_corrupt_state(missing: Node) -> None:
    """A node that storage should have and has not stops the process and is named."""
    nodes = {node: NODES[node] for node in tlog.inclusion_nodes(3, 7) if node != missing}
    with pytest.raises(StateCorrupt, match=rf"level={missing.level}, index={missing.index}"):
        tlog.inclusion_proof(3, 7, nodes)


@pytest.mark.parametrize("missing", tlog.consistency_nodes(3, 7))
def test_a_consistency_proof_that_misses_a_node_is_corrupt_state(missing: Node) -> None:
    """A node that storage should have and has not stops the process and is named."""
    nodes = {node: NODES[node] for node in tlog.consistency_nodes(3, 7) if node != missing}
    with pytest.raises(StateCorrupt, match=rf"level={missing.level}, index={missing.index}"):
        tlog.consistency_proof(3, 7, nodes)


@pytest.mark.parametrize(
    ("size", "hashes"),
    [
        (7, (root_of(4), root_of(2))),
        (8, (root_of(4), root_of(2))),
        (0, (root_of(0),)),
        (1, (root_of(1)[:-1],)),
        (-1, ()),
        (tlog.LOG_SIZE_MAX + 1, (root_of(1),)),
    ],
)
def test_a_frontier_that_does_not_fit_its_size_is_corrupt_state(size: int, hashes: tuple[bytes, ...]) -> None:
    """A frontier read wrong, one hash short or over, of a wrong length or an impossible size, is refused."""
    with pytest.raises(StateCorrupt):
        Frontier(size, hashes)


@pytest.mark.parametrize("size", [-1, tlog.LOG_SIZE_MAX + 1])
def test_frontier_nodes_of_an_impossible_size_are_corrupt_state(size: int) -> None:
    """No log has fewer than no leaves, or more than fit the database's bigint."""
    with pytest.raises(StateCorrupt):
        tlog.frontier_nodes(size)


def test_a_log_does_not_grow_beyond_its_largest_size() -> None:
    """The last leaf fits, one more is refused."""
    size = tlog.LOG_SIZE_MAX - 1
    almost = Frontier(size, tuple(ALIKE[Node(node.level, 0)] for node in tlog.frontier_nodes(size)))
    full, _ = tlog.append(almost, [b""])
    assert full.root() == alike_root(tlog.LOG_SIZE_MAX)
    with pytest.raises(StateCorrupt):
        tlog.append(full, [b""])
