"""Folding hashes into a Merkle tree, left to right, and its root at any size on the way (RFC 6962). Pure."""

from collections.abc import Iterator

from strongroom.crypto.tlog import EMPTY_ROOT, node_hash


class Fold:
    """The complete subtrees that the leaves so far fall into, largest first; as many as `size` has one-bits."""

    def __init__(self) -> None:
        """Begin with a tree without leaves."""
        self.size = 0
        self._edge: list[tuple[int, bytes]] = []  # level and hash, smallest last

    def add(self, value: bytes, level: int = 0) -> Iterator[tuple[int, bytes]]:
        """Append a leaf's hash, or that of a complete subtree of 2**level leaves that is due here.

        Gives every subtree that it completes above `level`, level and hash; all must be taken.
        """
        self.size += 1 << level
        while self._edge and self._edge[-1][0] == level:
            value = node_hash(self._edge.pop()[1], value)
            level += 1
            yield level, value
        self._edge.append((level, value))

    def root(self, rest: bytes | None = None) -> bytes:
        """Return the root of the tree so far, or of that with `rest`, the root of what follows, to its right."""
        hashes = [value for _, value in self._edge]
        if rest is None:
            if not hashes:
                return EMPTY_ROOT
            rest = hashes.pop()
        for left in reversed(hashes):
            rest = node_hash(left, rest)
        return rest

    def rest(self, level: int) -> bytes | None:
        """Return the root of the leaves after the last complete subtree of 2**level leaves, None for none."""
        value: bytes | None = None
        for at, each in reversed(self._edge):
            if at >= level:
                break
            value = each if value is None else node_hash(each, value)
        return value
