"""The Merkle tree of a transparency log: node hashes, the append frontier, and proofs (RFC 6962 section 2.1).

A subtree is *complete* when all of its 2**level leaves are in the log. The hash of a complete subtree never
changes again, so storage keeps complete nodes only, inserts them once, and never updates one. Whatever else
a tree of some size needs, its ragged right edge, is computed from complete nodes here.

Building a proof takes two steps, so that this module does no input or output: `…_nodes` names the nodes to
read from storage, `…_proof` makes the proof out of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, NamedTuple, Self

from strongroom.errors import ProofInvalid, StateCorrupt

HASH_BYTES: Final = 32
LOG_SIZE_MAX: Final = 2**63 - 1  # leaves: the range of a PostgreSQL bigint and of other tools' int64
EMPTY_ROOT: Final = sha256(b"").digest()

_PAIR_BYTES: Final = 2 * HASH_BYTES


def leaf_hash(leaf: bytes) -> bytes:
    """Hash one log entry: SHA-256(0x00 || leaf), 32 bytes (RFC 6962 section 2.1)."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two 32-byte subtrees into their parent: SHA-256(0x01 || left || right) (RFC 6962 section 2.1)."""
    return sha256(b"\x01" + left + right).digest()


class Node(NamedTuple):
    """Where a complete subtree stands: it holds the 2**level leaves from leaf index * 2**level on.

    Level 0 holds the leaf hashes. The children of (level, index) are (level - 1, 2 * index) and the next one.
    """

    level: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a coordinate


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree of `size` leaves, which is all that appending and the root need.

    `hashes` are the 32-byte hashes of the complete subtrees that the tree falls into, largest first: one for
    each one-bit of `size`, in the order of `frontier_nodes(size)`.

    Raises:
        StateCorrupt: as many hashes as `size` needs, of 32 bytes each, were not given.
    """

    size: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        _require_size(self.size)
        if len(self.hashes) != self.size.bit_count() or any(len(h) != HASH_BYTES for h in self.hashes):
            raise StateCorrupt(f"these are not the frontier hashes of a log of {self.size} leaves")

    @classmethod
    def empty(cls) -> Self:
        """Return the frontier of a log without leaves."""
        return cls(0, ())

    def root(self) -> bytes:
        """Return the 32-byte root hash of the tree; of the empty tree it is SHA-256 of nothing."""
        return _fold(self.hashes) if self.hashes else EMPTY_ROOT


def frontier_nodes(size: int) -> list[Node]:
    """Name the complete subtrees that a tree of `size` leaves falls into, largest (leftmost) first.

    Raises:
        StateCorrupt: `size` is negative or above `LOG_SIZE_MAX`.
    """
    _require_size(size)
    return _complete_nodes(0, size)


def append(frontier: Frontier, leaves: Sequence[bytes]) -> tuple[Frontier, dict[Node, bytes]]:
    """Append log entries; return the new frontier and every node that they complete, of level 0 and up.

    Args:
        frontier: the right edge before; its last leaf has index `frontier.size - 1`.
        leaves: the entries themselves (not their hashes), in the order they get in the log.

    Raises:
        StateCorrupt: the log would grow beyond `LOG_SIZE_MAX` leaves.
    """
    completed: dict[Node, bytes] = {}
    old_edge = list(frontier.hashes)  # smallest last
    new_edge: list[bytes] = []  # smallest first
    hashes = [leaf_hash(leaf) for leaf in leaves]
    level, index = 0, frontier.size  # `hashes` are the nodes of this level from this index on
    while hashes:
        completed.update((Node(level, place), value) for place, value in enumerate(hashes, index))
        if index % 2 == 1:
            hashes.insert(0, old_edge.pop())  # the left sibling, which waited on the edge
        if len(hashes) % 2 == 1:
            new_edge.append(hashes.pop())  # has no right sibling yet
        hashes = list(map(node_hash, hashes[::2], hashes[1::2]))
        level, index = level + 1, index // 2
    return Frontier(frontier.size + len(leaves), (*old_edge, *reversed(new_edge))), completed


def inclusion_nodes(index: int, size: int) -> list[Node]:
    """Name the complete nodes that `inclusion_proof` needs.

    Raises:
        ProofInvalid: a tree of `size` leaves has no leaf `index`.
    """
    return [node for begin, end in _inclusion_path(index, size) for node in _complete_nodes(begin, end)]


def inclusion_proof(index: int, size: int, nodes: Mapping[Node, bytes]) -> list[bytes]:
    """Prove that leaf `index` is in the tree of the first `size` leaves (audit path, RFC 6962 section 2.1.1).

    Args:
        index: zero-based leaf index.
        size: leaves in the tree.
        nodes: hashes of at least `inclusion_nodes(index, size)`.

    Returns:
        32-byte hashes, from the leaf's sibling up to the root's child.

    Raises:
        ProofInvalid: a tree of `size` leaves has no leaf `index`.
        StateCorrupt: a node is missing.
    """
    return [_subtree_hash(begin, end, nodes) for begin, end in _inclusion_path(index, size)]


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf is in the tree that has `size` leaves and this root (RFC 6962 section 2.1.1).

    Trees of neighbouring sizes may have paths of the same shape, so a proof vouches for the place of a leaf
    but not for `size`. Take size and root from one verified checkpoint, which does.

    Args:
        leaf_hash: what `leaf_hash` returns for the entry, 32 bytes.
        index: zero-based leaf index.
        size: leaves in the tree.
        proof: 32-byte hashes as `inclusion_proof` makes them.
        root: 32-byte root hash of the tree.

    Raises:
        ProofInvalid: the proof has another shape than index and size ask for, or leads to another root.
    """
    path = _inclusion_path(index, size)
    _require_proof(proof, len(path), leaf_hash, root)
    computed = leaf_hash
    for (begin, _), sibling in zip(path, proof, strict=True):
        computed = node_hash(sibling, computed) if begin < index else node_hash(computed, sibling)
    if computed != root:
        raise ProofInvalid(f"the proof does not lead from leaf {index} to the root of the {size} leaves")


def consistency_nodes(old: int, new: int) -> list[Node]:
    """Name the complete nodes that `consistency_proof` needs.

    Raises:
        ProofInvalid: `old` is larger than `new`.
    """
    return [node for begin, end in _consistency_path(old, new) for node in _complete_nodes(begin, end)]


def consistency_proof(old: int, new: int, nodes: Mapping[Node, bytes]) -> list[bytes]:
    """Prove that the first `old` leaves are a prefix of the first `new` (RFC 6962 section 2.1.2).

    Args:
        old: leaves in the earlier tree.
        new: leaves in the later tree.
        nodes: hashes of at least `consistency_nodes(old, new)`.

    Returns:
        32-byte hashes; none if `old` is 0 or equals `new`, where there is nothing to prove.

    Raises:
        ProofInvalid: `old` is larger than `new`.
        StateCorrupt: a node is missing.
    """
    return [_subtree_hash(begin, end, nodes) for begin, end in _consistency_path(old, new)]


def verify_consistency(
    old_size: int, old_root: bytes, new_size: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the old tree is a prefix of the new one (RFC 6962 section 2.1.2).

    Equal sizes need equal roots and an empty proof. Every tree continues the empty one: an old size of 0
    needs the root of the empty tree and an empty proof. Take each size and its root from one verified
    checkpoint: a proof does not vouch for `new_size`.

    Args:
        old_size: leaves in the earlier tree.
        old_root: its 32-byte root hash.
        new_size: leaves in the later tree.
        new_root: its 32-byte root hash.
        proof: 32-byte hashes as `consistency_proof` makes them.

    Raises:
        ProofInvalid: the proof has another shape than the sizes ask for, or leads to another old or new root.
    """
    path = _consistency_path(old_size, new_size)
    _require_proof(proof, len(path), old_root, new_root)
    if old_size == 0 and old_root != EMPTY_ROOT:
        raise ProofInvalid("the old root is not that of a tree without leaves")
    if old_size == new_size and old_root != new_root:
        raise ProofInvalid(f"two roots for the same {old_size} leaves")
    if old_size in (0, new_size):
        return
    steps = zip(path, proof, strict=True)
    # RFC 6962 leaves the first hash out where it is the old root itself, which the verifier has.
    start = old_root if old_size.bit_count() == 1 else next(steps)[1]
    old_computed = new_computed = start
    for (begin, _), sibling in steps:
        if begin < old_size:
            old_computed = node_hash(sibling, old_computed)
            new_computed = node_hash(sibling, new_computed)
        else:
            new_computed = node_hash(new_computed, sibling)
    if old_computed != old_root:
        raise ProofInvalid(f"the proof does not lead to the old root, of {old_size} leaves")
    if new_computed != new_root:
        raise ProofInvalid(f"the proof does not lead to the new root, of {new_size} leaves")


def subtree_root(hashes: bytes) -> bytes:
    """Hash neighbouring subtrees of one size up into the tree over all of them (RFC 6962 section 2.1).

    Args:
        hashes: their 32-byte hashes, in order and in one piece. Each is of a complete subtree of the same
            size; the last may be of a smaller tree.

    Returns:
        32 bytes; for no hashes at all the root of the empty tree.

    Raises:
        ProofInvalid: a piece is left over that is shorter than a hash.
    """
    if len(hashes) % HASH_BYTES:
        raise ProofInvalid(f"{len(hashes)} bytes are no row of hashes of {HASH_BYTES} bytes")
    while len(hashes) > HASH_BYTES:
        paired = len(hashes) // _PAIR_BYTES * _PAIR_BYTES
        # What node_hash does, without cutting each pair in two only to put it together again.
        parents = [sha256(b"\x01" + hashes[at : at + _PAIR_BYTES]).digest() for at in range(0, paired, _PAIR_BYTES)]
        hashes = b"".join([*parents, hashes[paired:]])
    return hashes or EMPTY_ROOT


def _inclusion_path(index: int, size: int) -> list[tuple[int, int]]:
    """Return the leaf ranges whose subtree hashes make up the inclusion proof, in its order."""
    if not 0 <= index < size <= LOG_SIZE_MAX:
        raise ProofInvalid(f"a log of {size} leaves has no leaf {index}")
    return _siblings(index, size, 1)


def _consistency_path(old: int, new: int) -> list[tuple[int, int]]:
    """Return the leaf ranges whose subtree hashes make up the consistency proof, in its order."""
    if not 0 <= old <= new <= LOG_SIZE_MAX:
        raise ProofInvalid(f"a log of {new} leaves does not continue one of {old}")
    if old in (0, new):
        return []
    last_width = old & -old  # leaves in the last, smallest of the complete subtrees of the old tree
    siblings = _siblings(old - 1, new, last_width)
    return siblings if last_width == old else [(old - last_width, old), *siblings]


def _siblings(index: int, size: int, width: int) -> list[tuple[int, int]]:
    """Walk down to the complete subtree of `width` leaves around leaf `index`; return the subtrees passed by.

    They are leaf ranges [begin, end), lowest first. One that begins before `index` lies to its left.
    """
    siblings: list[tuple[int, int]] = []
    begin, end = 0, size
    while end - begin > width:
        # The left child holds the largest power of two that is smaller than the number of leaves.
        middle = begin + (1 << (end - begin - 1).bit_length() - 1)
        if index < middle:
            siblings.append((middle, end))
            end = middle
        else:
            siblings.append((begin, middle))
            begin = middle
    siblings.reverse()
    return siblings


def _complete_nodes(begin: int, end: int) -> list[Node]:
    """Split the subtree over these leaves into complete ones, largest first."""
    nodes: list[Node] = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        nodes.append(Node(level, begin >> level))
        begin += 1 << level
    return nodes


def _subtree_hash(begin: int, end: int, nodes: Mapping[Node, bytes]) -> bytes:
    try:
        return _fold([nodes[node] for node in _complete_nodes(begin, end)])
    except KeyError as missing:
        raise StateCorrupt(f"the log's {missing} is needed for a proof and missing") from None


def _fold(hashes: Sequence[bytes]) -> bytes:
    """Hash the complete subtrees of a tree, given largest first, into its root."""
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def _require_size(size: int) -> None:
    if not 0 <= size <= LOG_SIZE_MAX:
        raise StateCorrupt(f"no log has {size} leaves")


def _require_proof(proof: Sequence[bytes], length: int, *others: bytes) -> None:
    """Refuse a proof of another length, and any hash, in the proof or beside it, that is not 32 bytes."""
    if len(proof) != length:
        raise ProofInvalid(f"the proof holds {len(proof)} hashes where {length} are due")
    _require_hashes(proof)
    _require_hashes(others)


def _require_hashes(hashes: Iterable[bytes]) -> None:
    if any(len(value) != HASH_BYTES for value in hashes):
        raise ProofInvalid(f"a hash is not {HASH_BYTES} bytes long")
