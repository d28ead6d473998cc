"""A log as files: hash tiles and entry bundles (c2sp.org/tlog-tiles), as bytes under paths.

A hash tile holds up to 256 neighbouring hashes: at level 0 of leaves, at level l of complete subtrees of
256**l leaves. An entry bundle holds the leaves whose hashes are in the level 0 tile of the same index. What is
not full is *partial*: at most one tile a level, and one bundle, at the right edge of the tree.

Here is how they are spelled and packed; `strongroom_audit` writes and checks them.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Final, NamedTuple

from strongroom.crypto.tlog import HASH_BYTES, LOG_SIZE_MAX
from strongroom.errors import LimitExceeded, ProofInvalid
from strongroom.limits import LEAF_BYTES_MAX

TILE_HEIGHT: Final = 8  # levels of the Merkle tree that a level of tiles spans
TILE_WIDTH: Final = 256  # hashes in a full tile, entries in a full bundle
TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES
TILE_LEVEL_MAX: Final = 63  # the highest that has a path; a log of LOG_SIZE_MAX leaves needs level 7

_LENGTH_BYTES: Final = 2  # before each entry, big-endian
_INDEX_BASE: Final = 1_000  # an index is spelled three decimal digits a path element


class Tile(NamedTuple):
    """Where a hash tile stands and how many hashes it holds; at level 0 also an entry bundle.

    Its hashes are the nodes of level `TILE_HEIGHT * level` from `TILE_WIDTH * index` on.
    """

    level: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a coordinate
    width: int = TILE_WIDTH


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """Return the path of a hash tile, such as `tile/0/x001/x234/067` or, partial, `tile/2/000.p/17`.

    Raises:
        ProofInvalid: there is no such tile.
    """
    if not 0 <= level <= TILE_LEVEL_MAX:
        raise ProofInvalid(f"there are no tiles of level {level}")
    return _path(str(level), index, width)


def entries_path(index: int, width: int = TILE_WIDTH) -> str:
    """Return the path of an entry bundle, such as `tile/entries/x001/000` or `tile/entries/000.p/7`.

    Raises:
        ProofInvalid: there is no such bundle.
    """
    return _path("entries", index, width)


def tiles_of(old_size: int, new_size: int) -> Iterator[Tile]:
    """Name, lowest level first, the tiles of a tree of `new_size` leaves that one of `old_size` has not.

    A partial tile that has grown counts as another one. Tiles of level 0 stand for entry bundles too. With
    the sizes the other way round it names the partial tiles that a tree no longer has after it grew.

    Raises:
        ProofInvalid: there is no log of such a size (when the first tile is asked for).
    """
    _require_size(old_size)
    _require_size(new_size)
    level, old, new = 0, old_size, new_size  # hashes at this level
    while new:
        for index in range(old // TILE_WIDTH, new // TILE_WIDTH):
            yield Tile(level, index)
        if new % TILE_WIDTH and new != old:
            yield Tile(level, *divmod(new, TILE_WIDTH))
        level, old, new = level + 1, old // TILE_WIDTH, new // TILE_WIDTH


def hash_leaves(leaves: Iterable[bytes]) -> bytes:
    """Return what `tlog.leaf_hash` returns for each entry, in one piece: of a bundle its level 0 tile."""
    return b"".join([sha256(b"\x00" + leaf).digest() for leaf in leaves])


def pack_entries(leaves: Iterable[bytes]) -> bytes:
    """Return the entry bundle of these leaves: each after its length, 2 bytes big-endian.

    Raises:
        LimitExceeded: a leaf is longer than `LEAF_BYTES_MAX`, the largest length that can be written.
    """
    try:
        return b"".join([len(leaf).to_bytes(_LENGTH_BYTES, "big") + leaf for leaf in leaves])
    except OverflowError:
        raise LimitExceeded(f"an entry bundle takes leaves of at most {LEAF_BYTES_MAX} bytes") from None


def unpack_entries(data: bytes, what: str, width: int = TILE_WIDTH) -> list[bytes]:
    """Return the leaves in an entry bundle; verify nothing but its shape.

    Args:
        data: the bytes of the bundle.
        what: the path of its file, for error messages.
        width: the entries it must hold, no fewer and no more.

    Raises:
        ProofInvalid: an entry is cut off, or there are more or fewer; names path, byte and entry.
    """
    leaves: list[bytes] = []
    at = 0
    while at < len(data):
        begin = at + _LENGTH_BYTES
        end = begin + int.from_bytes(data[at:begin], "big")
        if end > len(data):
            raise ProofInvalid(f"{what}: entry {len(leaves)}, at byte {at}, is cut off")
        leaves.append(data[begin:end])
        at = end
    if len(leaves) != width:
        raise ProofInvalid(
            f"{what}: holds {len(leaves)} entries in {len(data)} bytes where {width} entries are due"
        )
    return leaves


def _path(row: str, index: int, width: int) -> str:
    if index < 0 or not 1 <= width <= TILE_WIDTH:
        raise ProofInvalid(f"there is no tile {index} of width {width}")
    rest, last = divmod(index, _INDEX_BASE)
    elements = [f"{last:03}"]
    while rest:
        rest, last = divmod(rest, _INDEX_BASE)
        elements.append(f"x{last:03}")
    path = "/".join(["tile", row, *reversed(elements)])
    return path if width == TILE_WIDTH else f"{path}.p/{width}"


def _require_size(size: int) -> None:
    if not 0 <= size <= LOG_SIZE_MAX:
        raise ProofInvalid(f"no log has {size} leaves")
