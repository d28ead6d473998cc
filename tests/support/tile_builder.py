"""Tiles and bundles made straight from leaves: another way to the files that an export consists of."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from strongroom.crypto.tlog import EMPTY_ROOT, HASH_BYTES, LOG_SIZE_MAX, subtree_root
from strongroom.errors import LimitExceeded, ProofInvalid
from strongroom.limits import LEAF_BYTES_MAX
from strongroom.tiles import (
    TILE_BYTES,
    TILE_LEVEL_MAX,
    TILE_WIDTH,
    Tile,
    entries_path,
    hash_leaves,
    pack_entries,
    tile_path,
    unpack_entries,
)


class TileFile(NamedTuple):
    """A file of an export: its path, relative to the folder of the log and with slashes, and its bytes."""

    path: str
    data: bytes


def edge_tiles(size: int) -> list[Tile]:
    """Name the partial tiles of a tree of `size` leaves, lowest level first: what `resume` reads.

    Raises:
        ProofInvalid: there is no log of this size.
    """
    _require_size(size)
    tiles, level = list[Tile](), 0
    while size:
        index, width = divmod(size, TILE_WIDTH)  # full tiles at this level, and hashes beyond them
        if width:
            tiles.append(Tile(level, index, width))
        level, size = level + 1, index
    return tiles


def edge_files(size: int) -> list[str]:
    """Name the partial files of an export of `size` leaves: the bundle, then the tiles from level 0 up.

    Raises:
        ProofInvalid: there is no log of this size.
    """
    tiles = edge_tiles(size)
    bundle = [entries_path(tile.index, tile.width) for tile in tiles if tile.level == 0]
    return bundle + [tile_path(*tile) for tile in tiles]


class HashTiles:
    """The hash tiles of a tree, from its leaf hashes in their order."""

    def __init__(self) -> None:
        """Begin with a tree without leaves."""
        self._size = 0
        self._edge: list[bytearray] = []  # the hashes of each level that do not fill a tile yet

    @classmethod
    def resume(cls, size: int, files: Mapping[str, bytes], root: bytes) -> Self:
        """Go on from a tree of `size` leaves whose full tiles are somewhere else.

        Args:
            size: leaves in the tree.
            files: path and bytes of at least its partial hash tiles (`edge_tiles`, `tile_path`).
            root: its 32-byte root hash, from a verified checkpoint.

        Raises:
            ProofInvalid: there is no log of this size; a file is missing or of another length (names its
                path); or they do not lead to the root.
        """
        tiles = cls()
        for tile in edge_tiles(size):
            path = tile_path(*tile)
            hashes = _of(files, path)
            if len(hashes) != tile.width * HASH_BYTES:
                raise ProofInvalid(f"{path}: is {len(hashes)} bytes where {tile.width * HASH_BYTES} are due")
            tiles._row(tile.level).extend(hashes)
        tiles._size = size
        if tiles.root() != root:
            raise ProofInvalid(f"the partial tiles do not lead to the root of the {size} leaves")
        return tiles

    @property
    def size(self) -> int:
        """Return the number of leaves so far."""
        return self._size

    def root(self) -> bytes:
        """Return the 32-byte root hash of the tree so far."""
        root = b""
        for row in self._edge:
            if row:
                root = subtree_root(bytes(row) + root)
        return root or EMPTY_ROOT

    def add(self, hashes: bytes, level: int = 0) -> list[TileFile]:
        """Append leaves, or whole subtrees; return the tiles that this fills, lowest level first.

        Args:
            hashes: 32 bytes each, in one piece: of leaves, or of complete subtrees of 256**level leaves.
            level: level of the tiles that they stand in. Above 0 the tree so far must end at a full tile of
                the level below, as it does when bundles are checked apart and only the roots of their tiles
                come together here.

        Raises:
            ProofInvalid: a piece is shorter than a hash, the level is none or not due yet, or the log would
                grow beyond `LOG_SIZE_MAX` leaves.
        """
        count, rest = divmod(len(hashes), HASH_BYTES)
        if rest or not 0 <= level <= TILE_LEVEL_MAX or self._size % TILE_WIDTH**level:
            raise ProofInvalid(
                f"after {self._size} leaves, {len(hashes)} bytes are no hashes of tiles of level {level}"
            )
        size = self._size + count * TILE_WIDTH**level
        _require_size(size)
        filled: list[TileFile] = []
        while hashes:
            index = self._size // TILE_WIDTH ** (level + 1)
            row = self._row(level)
            row += hashes
            whole = len(row) // TILE_BYTES * TILE_BYTES
            tiles = [bytes(row[at : at + TILE_BYTES]) for at in range(0, whole, TILE_BYTES)]
            del row[:whole]
            filled += [TileFile(tile_path(level, place), tile) for place, tile in enumerate(tiles, index)]
            hashes = b"".join(map(subtree_root, tiles))
            level += 1
        self._size = size
        return filled

    def edge(self) -> list[TileFile]:
        """Return the partial tiles of the tree as it is now, lowest level first."""
        return [TileFile(tile_path(*tile), bytes(self._edge[tile.level])) for tile in edge_tiles(self._size)]

    def _row(self, level: int) -> bytearray:
        while len(self._edge) <= level:
            self._edge.append(bytearray())
        return self._edge[level]


class TileBuilder:
    """The entry bundles and hash tiles of a tree, from its leaves in their order."""

    def __init__(self) -> None:
        """Begin with a tree without leaves."""
        self._tiles = HashTiles()
        self._leaves: list[bytes] = []  # those that do not fill a bundle yet

    @classmethod
    def resume(cls, size: int, files: Mapping[str, bytes], root: bytes) -> Self:
        """Go on from an export of `size` leaves: read its `edge_files`, and no others.

        Args:
            size: leaves in the export.
            files: path and bytes of at least `edge_files(size)`.
            root: 32-byte root hash of the export, from a verified checkpoint.

        Raises:
            ProofInvalid: there is no log of this size; a file is missing or misshapen, or the bundle is not
                that of its tile (names the path); or the tiles do not lead to the root.
        """
        builder = cls()
        builder._tiles = HashTiles.resume(size, files, root)
        index, width = divmod(size, TILE_WIDTH)
        if width:
            path = entries_path(index, width)
            builder._leaves = unpack_entries(_of(files, path), path, width)
            if hash_leaves(builder._leaves) != files[tile_path(0, index, width)]:
                raise ProofInvalid(f"{path}: its entries are not those of {tile_path(0, index, width)}")
        return builder

    @property
    def size(self) -> int:
        """Return the number of leaves so far."""
        return self._tiles.size

    def root(self) -> bytes:
        """Return the 32-byte root hash of the tree so far."""
        return self._tiles.root()

    def add(self, leaves: Sequence[bytes]) -> list[TileFile]:
        """Append leaves; return the bundles and tiles that this fills. Write them, they are not given again.

        Everything filled is returned at once: add a log page by page.

        Raises:
            LimitExceeded: a leaf is longer than `LEAF_BYTES_MAX`; nothing was appended.
            ProofInvalid: the log would grow beyond `LOG_SIZE_MAX` leaves.
        """
        if any(len(leaf) > LEAF_BYTES_MAX for leaf in leaves):
            raise LimitExceeded(f"an entry bundle takes leaves of at most {LEAF_BYTES_MAX} bytes")
        _require_size(self.size + len(leaves))
        first = self.size // TILE_WIDTH
        self._leaves += leaves
        whole = len(self._leaves) // TILE_WIDTH * TILE_WIDTH
        filled = [
            TileFile(entries_path(index), pack_entries(self._leaves[at : at + TILE_WIDTH]))
            for index, at in enumerate(range(0, whole, TILE_WIDTH), first)
        ]
        del self._leaves[:whole]
        return filled + self._tiles.add(hash_leaves(leaves))

    def edge(self) -> list[TileFile]:
        """Return the partial bundle and tiles of the tree as it is now, under the paths of `edge_files`."""
        tiles = self._tiles.edge()
        if not self._leaves:
            return tiles
        path = entries_path(self.size // TILE_WIDTH, len(self._leaves))
        return [TileFile(path, pack_entries(self._leaves)), *tiles]


def _of(files: Mapping[str, bytes], path: str) -> bytes:
    if path not in files:
        raise ProofInvalid(f"{path}: is missing")
    return files[path]


def _require_size(size: int) -> None:
    if not 0 <= size <= LOG_SIZE_MAX:
        raise ProofInvalid(f"no log has {size} leaves")
