"""Ranges of leaves under a root, against a naive tree straight from RFC 6962, and tampering."""

from collections.abc import Sequence
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.crypto import ranges, tlog
from strongroom.crypto.tlog import Frontier, Node
from strongroom.errors import ProofInvalid, StateCorrupt

UNTIMED = settings(deadline=None)  # a busy machine is no failure

SIZES = range(1, 41)
LEAVES = [f"leaf {index}".encode() for index in SIZES]
HASHES = [sha256(b"\x00" + leaf).digest() for leaf in LEAVES]
_, NODES = tlog.append(Frontier.empty(), LEAVES)

small_ranges = st.sampled_from(SIZES).flatmap(
    lambda size: st.tuples(st.integers(0, size - 1), st.integers(1, size), st.just(size)).filter(
        lambda drawn: drawn[0] < drawn[1]
    )
)


@cache
def naive_root(begin: int, end: int) -> bytes:
    """MTH of RFC 6962 section 2.1, over HASHES[begin:end]."""
    if end - begin == 1:
        return HASHES[begin]
    power = 1
    while 2 * power < end - begin:
        power *= 2
    return sha256(b"\x01" + naive_root(begin, begin + power) + naive_root(begin + power, end)).digest()


def flip(value: bytes, bit: int) -> bytes:
    return (int.from_bytes(value, "big") ^ (1 << bit)).to_bytes(len(value), "big")


# ---- agreement with the naive tree ----------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_every_range_of_a_tree_leads_to_its_root(size: int) -> None:
    """With the nodes that were asked for and no others, each range of leaves gives the definition's root."""
    for first in range(size):
        for end in range(first + 1, size + 1):
            asked = ranges.range_nodes(first, end, size)
            nodes = {node: NODES[node] for node in asked}
            assert ranges.range_root(first, HASHES[first:end], size, nodes) == naive_root(0, size)
            ranges.verify_range(first, HASHES[first:end], size, list(nodes.values()), naive_root(0, size))


@pytest.mark.parametrize("size", SIZES)
def test_the_nodes_asked_for_are_the_rest_of_the_tree(size: int) -> None:
    """They are complete, cover each leaf outside the range once, from left to right, and are at most 3 a level."""
    for first in range(size):
        for end in range(first + 1, size + 1):
            asked = ranges.range_nodes(first, end, size)
            covered = [
                leaf for node in asked for leaf in range(node.index << node.level, node.index + 1 << node.level)
            ]
            assert covered == [*range(first), *range(end, size)]
            levels = [node.level for node in asked]
            assert all(levels.count(level) <= 3 for level in levels)


def test_a_range_of_one_leaf_asks_for_what_its_inclusion_proof_asks_for() -> None:
    """A range of one leaf is an inclusion proof by another name: the same nodes, in the order of the tree."""
    for size in SIZES:
        for index in range(size):
            asked = ranges.range_nodes(index, index + 1, size)
            assert sorted(asked) == sorted(tlog.inclusion_nodes(index, size))


def test_the_whole_tree_needs_no_nodes() -> None:
    """All leaves alone give the root."""
    for size in SIZES:
        assert ranges.range_nodes(0, size, size) == []
        assert ranges.range_root(0, HASHES[:size], size, {}) == naive_root(0, size)


class AlikeNodes(dict[Node, bytes]):
    """The nodes of a log of any size whose entries are all empty."""

    def __missing__(self, node: Node) -> bytes:
        if node.level == 0:
            return tlog.leaf_hash(b"")
        child = self[Node(node.level - 1, 0)]
        return self.setdefault(Node(node.level, 0), tlog.node_hash(child, child))


ALIKE = AlikeNodes()
large_sizes = st.integers(1, tlog.LOG_SIZE_MAX) | st.sampled_from(
    [tlog.LOG_SIZE_MAX, *(2**level + offset for level in range(1, 63) for offset in (-1, 0, 1))]
)


@UNTIMED
@given(size=large_sizes, data=st.data())
def test_ranges_hold_in_logs_of_any_size(size: int, data: st.DataObject) -> None:
    """Up to the largest log there can be, a few hundred leaves are verified with at most 3 nodes a level."""
    first = data.draw(st.integers(0, size - 1))
    count = data.draw(st.integers(1, min(300, size - first)))
    asked = ranges.range_nodes(first, first + count, size)
    assert len(asked) <= 3 * 63
    frontier = Frontier(size, tuple(ALIKE[Node(node.level, 0)] for node in tlog.frontier_nodes(size)))
    proof = [ALIKE[Node(node.level, 0)] for node in asked]
    ranges.verify_range(first, [tlog.leaf_hash(b"")] * count, size, proof, frontier.root())


# ---- rows of hashes -------------------------------------------------------------------------------


def test_a_row_of_leaf_hashes_has_the_root_of_its_tree() -> None:
    """subtree_root of all leaf hashes is the definition's root, for every size."""
    for size in SIZES:
        assert tlog.subtree_root(b"".join(HASHES[:size])) == naive_root(0, size)


def test_a_row_of_subtrees_has_the_root_of_the_tree_over_them() -> None:
    """Rows of complete subtrees, with the smaller tree at the end if there is one, have the root of the whole."""
    for level in range(6):
        width = 1 << level
        for size in SIZES:
            begins = range(0, size, width)
            row = b"".join(naive_root(begin, min(begin + width, size)) for begin in begins)
            assert tlog.subtree_root(row) == naive_root(0, size)


def test_an_empty_row_has_the_root_of_the_empty_tree() -> None:
    """No hashes are a log without leaves."""
    assert tlog.subtree_root(b"") == tlog.EMPTY_ROOT


@pytest.mark.parametrize("length", [1, 31, 33, 63, 65, 95, 97])
def test_a_row_that_ends_within_a_hash_is_refused(length: int) -> None:
    """What is not a whole number of hashes has no root, not even the row's own bytes."""
    with pytest.raises(ProofInvalid, match=f"{length} bytes are no row"):
        tlog.subtree_root(bytes(length))


# ---- tampering ------------------------------------------------------------------------------------


@UNTIMED
@given(drawn=small_ranges, data=st.data())
def test_an_altered_range_is_refused(drawn: tuple[int, int, int], data: st.DataObject) -> None:
    """One flipped bit in any leaf hash, any hash of the proof or the root refuses."""
    first, end, size = drawn
    leaves, root = HASHES[first:end], naive_root(0, size)
    proof = [NODES[node] for node in ranges.range_nodes(first, end, size)]
    place = data.draw(st.integers(-1, len(leaves) + len(proof) - 1))
    bit = data.draw(st.integers(0, 255))
    if place == -1:
        root = flip(root, bit)
    elif place < len(leaves):
        leaves[place] = flip(leaves[place], bit)
    else:
        proof[place - len(leaves)] = flip(proof[place - len(leaves)], bit)
    with pytest.raises(ProofInvalid, match=f"leaves {first} to {end - 1} do not lead to the root of the {size}"):
        ranges.verify_range(first, leaves, size, proof, root)


@UNTIMED
@given(drawn=small_ranges, data=st.data())
def test_leaves_in_another_place_are_refused(drawn: tuple[int, int, int], data: st.DataObject) -> None:
    """Leaves swapped, doubled, left out or moved to another index refuse."""
    first, end, size = drawn
    leaves, root = HASHES[first:end], naive_root(0, size)
    proof = [NODES[node] for node in ranges.range_nodes(first, end, size)]
    at = data.draw(st.integers(0, len(leaves) - 1))
    wrong: list[tuple[int, Sequence[bytes]]] = [
        (first, leaves[:at] + leaves[at + 1 :]),
        (first, [*leaves[: at + 1], *leaves[at:]]),
        (first + 1, leaves),
        (first - 1, leaves),
    ]
    if at:
        wrong.append((first, [*leaves[: at - 1], leaves[at], leaves[at - 1], *leaves[at + 1 :]]))
    for place, others in wrong:
        with pytest.raises(ProofInvalid):
            ranges.verify_range(place, others, size, proof, root)


def test_a_proof_of_another_length_is_refused() -> None:
    """A hash taken out of the proof of a range, or put into it anywhere, refuses."""
    proof = [NODES[node] for node in ranges.range_nodes(5, 11, 23)]
    for place in range(len(proof)):
        for wrong in (proof[:place] + proof[place + 1 :], [*proof[:place], HASHES[0], *proof[place:]]):
            with pytest.raises(ProofInvalid, match=f"is {len(proof)} hashes of 32 bytes"):
                ranges.verify_range(5, HASHES[5:11], 23, wrong, naive_root(0, 23))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_hash_of_another_length_is_refused(length: int) -> None:
    """Hashes are 32 bytes everywhere: two neighbours that hold 64 together are no way round."""
    proof = [NODES[node] for node in ranges.range_nodes(5, 11, 23)]
    odd = bytes(length)
    with pytest.raises(ProofInvalid, match="32 bytes"):
        ranges.verify_range(5, HASHES[5:11], 23, [*proof[:-1], odd], naive_root(0, 23))
    pair = HASHES[8] + HASHES[9]
    shifted = [*HASHES[5:8], pair[:length], pair[length:], HASHES[10]]
    with pytest.raises(ProofInvalid, match="a leaf hash is not 32 bytes"):
        ranges.verify_range(5, shifted, 23, proof, naive_root(0, 23))
    with pytest.raises(ProofInvalid, match="a leaf hash is not 32 bytes"):
        ranges.range_root(5, shifted, 23, NODES)


@pytest.mark.parametrize(
    ("first", "end", "size"),
    [(-1, 3, 5), (0, 6, 5), (5, 6, 5), (3, 3, 5), (3, 2, 5), (0, 0, 0), (0, 1, 0), (0, 1, tlog.LOG_SIZE_MAX + 1)],
)
def test_a_range_outside_the_tree_is_refused(first: int, end: int, size: int) -> None:
    """Leaves that a tree does not have, and no leaves at all, are no range."""
    leaves = [HASHES[0]] * max(0, end - first)
    with pytest.raises(ProofInvalid, match="has no leaves"):
        ranges.range_nodes(first, end, size)
    with pytest.raises(ProofInvalid, match="has no leaves"):
        ranges.range_root(first, leaves, size, NODES)
    with pytest.raises(ProofInvalid, match="has no leaves"):
        ranges.verify_range(first, leaves, size, [], HASHES[0])


@pytest.mark.parametrize("missing", ranges.range_nodes(5, 11, 23))
def test_a_node_that_storage_lacks_is_corrupt_state(missing: Node) -> None:
    """A node that storage should have and has not, or has cut off, stops the process and is named."""
    nodes = {node: NODES[node] for node in ranges.range_nodes(5, 11, 23) if node != missing}
    for stored, reason in ((nodes, "is needed"), (nodes | {missing: NODES[missing][:31]}, "is 31 bytes")):
        with pytest.raises(StateCorrupt, match=rf"level={missing.level}, index={missing.index}\) {reason}"):
            ranges.range_root(5, HASHES[5:11], 23, stored)
