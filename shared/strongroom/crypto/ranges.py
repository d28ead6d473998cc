"""Ranges of leaves under the root of a transparency log (RFC 6962 section 2.1).

Whoever goes through a log leaf by leaf would hash a whole path for each inclusion proof. Here the leaves of a
range are hashed together, with the few stored nodes to their left and right, up to the one root: a hash a
leaf and a few more for each level. As in `tlog`, this module does no input or output: `range_nodes` names what to
read, `range_root` and `verify_range` take it.
"""

from collections.abc import Mapping, Sequence

from strongroom.crypto.tlog import HASH_BYTES, LOG_SIZE_MAX, Node, node_hash, subtree_root
from strongroom.errors import ProofInvalid, StateCorrupt


def range_nodes(first: int, end: int, size: int) -> list[Node]:
    """Name the complete nodes around leaves `first` to `end - 1`, from left to right: at most 3 a level.

    Raises:
        ProofInvalid: a tree of `size` leaves has no such leaves, or these are no leaves at all.
    """
    _require_range(first, end, size)
    return _complete_nodes(0, first) + _complete_nodes(end, size)


def range_root(first: int, leaf_hashes: Sequence[bytes], size: int, nodes: Mapping[Node, bytes]) -> bytes:
    """Return the root of a tree of `size` leaves that has these leaves from `first` on, and these nodes.

    Like an inclusion proof it vouches for the leaves and not for `size`: take the size, and the root to
    compare with, from one verified checkpoint.

    Args:
        first: zero-based index of the first leaf.
        leaf_hashes: what `tlog.leaf_hash` returns for consecutive entries, 32 bytes each; at least one.
        size: leaves in the tree.
        nodes: 32-byte hashes of at least `range_nodes(first, first + len(leaf_hashes), size)`.

    Raises:
        ProofInvalid: the tree has no such leaves, or a leaf hash is not 32 bytes long.
        StateCorrupt: a node is missing or not 32 bytes long.
    """
    end = first + len(leaf_hashes)
    _require_range(first, end, size)
    if any(len(value) != HASH_BYTES for value in leaf_hashes):
        raise ProofInvalid(f"a leaf hash is not {HASH_BYTES} bytes long")
    row = b"".join(leaf_hashes)
    edge: list[tuple[int, bytes]] = []  # the complete subtrees so far, level and hash, smallest last
    for node in _complete_nodes(0, first):
        _extend(edge, node.level, _hash_of(node, nodes))
    for node in _complete_nodes(first, end):
        begin = (node.index << node.level) - first
        _extend(edge, node.level, subtree_root(row[begin * HASH_BYTES : (begin + (1 << node.level)) * HASH_BYTES]))
    for node in _complete_nodes(end, size):
        _extend(edge, node.level, _hash_of(node, nodes))
    _, root = edge.pop()
    while edge:
        root = node_hash(edge.pop()[1], root)
    return root


def verify_range(first: int, leaf_hashes: Sequence[bytes], size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that consecutive leaves are in the tree that has `size` leaves and this root.

    Args:
        first: zero-based index of the first leaf.
        leaf_hashes: as for `range_root`.
        size: leaves in the tree.
        proof: 32-byte hashes of `range_nodes(first, first + len(leaf_hashes), size)`, in that order.
        root: 32-byte root hash of the tree.

    Raises:
        ProofInvalid: the tree has no such leaves, the proof has another shape, or leads to another root.
    """
    end = first + len(leaf_hashes)
    asked = range_nodes(first, end, size)
    if len(proof) != len(asked) or any(len(value) != HASH_BYTES for value in proof):
        raise ProofInvalid(f"the proof of leaves {first} to {end - 1} is {len(asked)} hashes of {HASH_BYTES} bytes")
    if range_root(first, leaf_hashes, size, dict(zip(asked, proof, strict=True))) != root:
        raise ProofInvalid(f"leaves {first} to {end - 1} do not lead to the root of the {size} leaves")


def _complete_nodes(begin: int, end: int) -> list[Node]:
    """Split the leaves [begin, end) into the largest complete subtrees, from left to right."""
    nodes: list[Node] = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        if begin:
            level = min(level, (begin & -begin).bit_length() - 1)  # a subtree begins at a multiple of its size
        nodes.append(Node(level, begin >> level))
        begin += 1 << level
    return nodes


def _extend(edge: list[tuple[int, bytes]], level: int, value: bytes) -> None:
    """Put a complete subtree to the right of those on the edge, and pair up what is of one size."""
    while edge and edge[-1][0] == level:
        value = node_hash(edge.pop()[1], value)
        level += 1
    edge.append((level, value))


def _hash_of(node: Node, nodes: Mapping[Node, bytes]) -> bytes:
    try:
        value = nodes[node]
    except KeyError:
        raise StateCorrupt(f"the log's {node} is needed to verify a range of leaves and missing") from None
    if len(value) != HASH_BYTES:
        raise StateCorrupt(f"the log's {node} is {len(value)} bytes, not {HASH_BYTES}")
    return value


def _require_range(first: int, end: int, size: int) -> None:
    if not 0 <= first < end <= size <= LOG_SIZE_MAX:
        raise ProofInvalid(f"a log of {size} leaves has no leaves {first} to {end - 1}")
