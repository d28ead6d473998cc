"""Recomputing a log's tree from its entry bundles, and finding what in an export does not belong to it.

Everything is compared: leaves with the level 0 tiles, these with the tiles above, all with the signed root, and the
root at every size that a checkpoint or a proof leaf names. Of two that disagree the one is right that leads to the
signed root.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Final

from strongroom.crypto.notes import Checkpoint
from strongroom.crypto.tlog import HASH_BYTES, subtree_root
from strongroom.errors import ProofInvalid
from strongroom.tiles import TILE_HEIGHT, TILE_WIDTH, hash_leaves, tile_path, unpack_entries
from strongroom_audit.findings import Finding, error
from strongroom_audit.fold import Fold
from strongroom_audit.folder import Bundle, LogFolder

_LENGTH_BYTES: Final = 2
_TRIED_PLACES_MAX: Final = 10  # 1,024 ways of telling edited leaves from edited hashes

Vouched = Callable[[bytes], bool]
"""Says whether the root of a bundle's hashes is the one that the tree above it has."""


@dataclass(frozen=True, slots=True)
class BundleRead:
    """A bundle as it was found; a leaf without bytes is a hole.

    statements, beside: a line a leaf; empty where a line is missing. root: of the hashes that lead to the signed
    root, or else of the leaves. cuts: of the first so many of them.
    """

    bundle: Bundle
    leaves: list[bytes]
    statements: list[bytes]
    beside: list[bytes]
    root: bytes
    cuts: dict[int, bytes]
    findings: list[Finding]


def read_bundle(folder: LogFolder, bundle: Bundle, vouched: Vouched, cuts: Sequence[int] = ()) -> BundleRead:
    """Read a bundle and its tile, and compare them; whatever is missing or misshapen becomes a finding."""
    findings: list[Finding] = []
    leaves, whole = _leaves(folder, bundle, findings)
    tile = folder.read(bundle.tile)
    if tile is None or len(tile) != bundle.width * HASH_BYTES:
        findings.append(_bad_file(bundle, bundle.tile, tile))
        tile = None
    row, root = _judged(bundle, leaves, tile, vouched, findings, whole=whole)
    statements, beside = (_lines(folder, bundle, path, findings) for path in (bundle.statements, bundle.rows))
    return BundleRead(
        bundle=bundle,
        leaves=leaves,
        statements=statements,
        beside=beside,
        root=root,
        cuts={cut: subtree_root(row[: cut * HASH_BYTES]) for cut in cuts},
        findings=findings,
    )


def _leaves(folder: LogFolder, bundle: Bundle, findings: list[Finding]) -> tuple[list[bytes], bool]:
    """Return the leaves, as many as are due, and whether the file could be read to its end."""
    data = folder.read(bundle.entries)
    try:
        return unpack_entries(data or b"", bundle.entries, bundle.width), True
    except ProofInvalid:
        findings.append(_bad_file(bundle, bundle.entries, data))
    leaves: list[bytes] = []
    at, data = 0, data or b""
    while len(leaves) < bundle.width:
        begin = at + _LENGTH_BYTES
        end = begin + int.from_bytes(data[at:begin], "big")
        if begin > len(data) or end > len(data):
            break
        leaves.append(data[begin:end])
        at = end
    return leaves + [b""] * (bundle.width - len(leaves)), False


def _judged(
    bundle: Bundle,
    leaves: list[bytes],
    tile: bytes | None,
    vouched: Vouched,
    findings: list[Finding],
    *,
    whole: bool,
) -> tuple[bytes, bytes]:
    """Return the hashes that are right, as far as can be told, and their root; name what differs from them."""
    row = hash_leaves(leaves)
    holes = [place for place, leaf in enumerate(leaves) if not leaf]
    if whole:
        findings += [
            error(bundle.log, bundle.first + each, "leaf_missing", "the leaf is missing") for each in holes
        ]
    if row == tile or tile is None:
        return row, subtree_root(row)
    if holes:
        row = _mixed(row, tile, frozenset(holes))
        if row == tile:
            return row, subtree_root(row)
    differing = [
        at // HASH_BYTES
        for at in range(0, len(row), HASH_BYTES)
        if row[at : at + HASH_BYTES] != tile[at : at + HASH_BYTES]
    ]
    by_tile = _true_places(row, tile, differing, vouched)
    if by_tile is None:
        words = "the leaf and its hash in the tile differ"
        findings += [error(bundle.log, bundle.first + each, "leaf_edited", words) for each in differing]
        return row, subtree_root(row)
    for each in differing:
        if each in by_tile:
            words = "the leaf is not the one that was signed"
            findings.append(error(bundle.log, bundle.first + each, "leaf_edited", words))
            leaves[each] = b""  # what it says is nobody's word
        else:
            words = "its hash in the tile is false"
            findings.append(error(bundle.log, bundle.first + each, "tile_edited", words, id=bundle.tile))
    row = _mixed(row, tile, by_tile)
    return row, subtree_root(row)


def _true_places(row: bytes, tile: bytes, differing: list[int], vouched: Vouched) -> frozenset[int] | None:
    """Return at which of these places the tile is right and the leaf is not; None where nothing fits."""
    everywhere = frozenset(differing)
    tried = [everywhere, frozenset[int]()]
    if len(differing) <= _TRIED_PLACES_MAX:
        counts = range(1, len(differing))
        tried += [frozenset(some) for count in counts for some in combinations(differing, count)]
    return next((some for some in tried if vouched(subtree_root(_mixed(row, tile, some)))), None)


def _mixed(row: bytes, tile: bytes, by_tile: frozenset[int]) -> bytes:
    """Return the hashes of `row`, with those of `tile` at some places."""
    mixed = bytearray(row)
    for place in by_tile:
        at = place * HASH_BYTES
        mixed[at : at + HASH_BYTES] = tile[at : at + HASH_BYTES]
    return bytes(mixed)


def full_row(folder: LogFolder, bundle: Bundle, parent: bytes | None, *, is_old: bool) -> bytes | None:
    """Return the hashes of a full bundle, those that lead to the tile above it; None for files of no use.

    What an export that was killed has left is vouched for by nothing yet: its leaves have to fit.
    """
    tile = folder.read(bundle.tile) or b""
    if len(tile) != TILE_WIDTH * HASH_BYTES:
        return None
    if is_old and parent in (None, subtree_root(tile)):
        return tile
    try:
        row = patched(unpack_entries(folder.read(bundle.entries) or b"", bundle.entries), tile)
    except ProofInvalid:
        return tile if is_old else None
    if not is_old:
        return tile if row == tile else None
    return row if subtree_root(row) == parent else tile


def patched(leaves: list[bytes], tile: bytes) -> bytes:
    """Return the leaves' hashes, with the tile's in place of those of holes."""
    row = bytearray(hash_leaves(leaves))
    for place, leaf in enumerate(leaves):
        at = place * HASH_BYTES
        if not leaf and len(tile) == len(row):
            row[at : at + HASH_BYTES] = tile[at : at + HASH_BYTES]
    return bytes(row)


def _lines(folder: LogFolder, bundle: Bundle, path: str, findings: list[Finding]) -> list[bytes]:
    data = folder.read(path)
    lines = [] if data is None else data.split(b"\n", bundle.width + 1)
    if len(lines) == bundle.width + 1 and not lines[-1]:
        lines.pop()
        return lines
    findings.append(_bad_file(bundle, path, data))
    if lines:
        lines.pop()  # the last may be cut off
    return (lines + [b""] * bundle.width)[: bundle.width]


def _bad_file(bundle: Bundle, path: str, data: bytes | None) -> Finding:
    last = bundle.first + bundle.width - 1
    if data is None:
        return error(
            bundle.log,
            bundle.first,
            "file_missing",
            f"the file of leaves {bundle.first} to {last} is missing",
            id=path,
        )
    words = f"the file of leaves {bundle.first} to {last}, {len(data)} bytes, is cut off or garbled"
    return error(bundle.log, bundle.first, "file_invalid", words, id=path)


@dataclass(slots=True)
class TreeAudit:
    """Puts the bundles of one log together, in order, under its checkpoint.

    wanted: sizes at which the root is asked for. roots: what it was there.
    """

    folder: LogFolder
    checkpoint: Checkpoint
    wanted: "array[int]"
    findings: list[Finding] = field(default_factory=list)
    roots: dict[int, bytes] = field(default_factory=dict)
    _fold: Fold = field(default_factory=Fold)
    _from_stored: dict[int, Fold] = field(default_factory=dict)
    _false: list[tuple[int, int]] = field(default_factory=list)
    _tiles: dict[int, tuple[int, bytes | None]] = field(default_factory=dict)
    _next: int = 0

    @classmethod
    def of(cls, folder: LogFolder, checkpoint: Checkpoint, sizes: Iterable[int]) -> "TreeAudit":
        """Begin; `sizes` may be any, those beyond the tree have no root."""
        wanted = array("q", sorted({size for size in sizes if 0 < size <= checkpoint.size} | {checkpoint.size}))
        return cls(folder, checkpoint, wanted)

    def vouched(self, bundle: Bundle) -> Vouched:
        """Return what says whether a bundle's root is right: the tile above, or at the edge the signed root."""
        if bundle.width < TILE_WIDTH:
            return lambda root: self._fold.root(root) == self.checkpoint.root
        parent = self.parent(bundle)
        return lambda root: root == parent

    def parent(self, bundle: Bundle) -> bytes | None:
        """Return the hash of a full bundle in the tile of level 1; None when it is lost."""
        return self._stored(1, bundle.index)

    def cuts(self, bundle: Bundle) -> list[int]:
        """Return at how many leaves of this bundle, which is the next one, a root is asked for."""
        found: list[int] = []
        end = bundle.first + bundle.width
        while self._next < len(self.wanted) and self.wanted[self._next] <= end:
            found.append(self.wanted[self._next] - bundle.first)
            self._next += 1
        return found

    def add(self, bundle: Bundle, root: bytes, cuts: dict[int, bytes]) -> None:
        """Append a bundle: the root of its hashes, and of the first of them at the sizes that were asked for."""
        for cut, value in cuts.items():
            self.roots[bundle.first + cut] = self._fold.root(value)
        if bundle.width < TILE_WIDTH:
            self._edge_root = root
            return
        completed = [(TILE_HEIGHT, root), *self._fold.add(root, TILE_HEIGHT)]
        for level, value in completed:
            if level % TILE_HEIGHT:
                continue
            place = (self._fold.size >> level) - 1
            stored = self._stored(level // TILE_HEIGHT, place)
            if stored is not None and stored != value:
                self._false.append((level, place))
            list(self._from_stored.setdefault(level, Fold()).add(stored or value, level))

    _edge_root: bytes | None = None

    def finish(self) -> None:
        """Compare with the signed root; what does not belong is among `findings` then."""
        log, edge = self.folder.log, self._edge_root
        if self._fold.root(edge) == self.checkpoint.root:
            self.findings += [self._false_tile(level, place) for level, place in self._false]
            return
        for level in sorted(self._from_stored):
            rest = self._rest(level)
            if self._from_stored[level].root(rest) == self.checkpoint.root:
                width = 1 << level
                self.findings += [
                    error(
                        log,
                        place * width,
                        "leaves_edited",
                        f"leaves {place * width} to {(place + 1) * width - 1} are not those that were signed,"
                        " and their hashes were changed with them",
                    )
                    for at, place in self._false
                    if at == level
                ]
                return
        self.findings += [self._false_tile(level, place) for level, place in self._false]
        self.findings.append(
            error(
                log,
                None,
                "root_mismatch",
                f"the {self.checkpoint.size} leaves do not lead to the root that the log signed",
            )
        )

    def _rest(self, level: int) -> bytes | None:
        """Return the root of what stands to the right of the last complete subtree of this level."""
        edge = self._edge_root
        if edge is None:
            return self._fold.rest(level)
        joined = Fold()
        joined._edge = [each for each in self._fold._edge if each[0] < level]  # noqa: SLF001  a fold of its own
        return joined.root(edge)

    def _false_tile(self, level: int, place: int) -> Finding:
        tile = level // TILE_HEIGHT
        path = tile_path(tile, place // TILE_WIDTH, self._width(tile, place // TILE_WIDTH))
        last = ((place + 1) << level) - 1
        words = f"hash {place % TILE_WIDTH} of the tile is not that of leaves {place << level} to {last}"
        return error(self.folder.log, place << level, "tile_edited", words, id=path)

    def _width(self, level: int, index: int) -> int:
        return min(TILE_WIDTH, (self.checkpoint.size >> (TILE_HEIGHT * level)) - index * TILE_WIDTH)

    def _stored(self, level: int, place: int) -> bytes | None:
        """Return a hash of a tile above level 0; None for a file missing or misshapen, which is found once."""
        index, at = divmod(place, TILE_WIDTH)
        known = self._tiles.get(level)
        if known is None or known[0] != index:
            width = self._width(level, index)
            path = tile_path(level, index, width)
            data = self.folder.read(path)
            if data is None or len(data) != width * HASH_BYTES:
                code, words = (
                    ("file_missing", "the tile is missing")
                    if data is None
                    else ("file_invalid", f"the tile is {len(data)} bytes where {width * HASH_BYTES} are due")
                )
                first = index * TILE_WIDTH << (TILE_HEIGHT * level)
                self.findings.append(error(self.folder.log, first, code, words, id=path))
                data = None
            known = self._tiles[level] = index, data
        return None if known[1] is None else known[1][at * HASH_BYTES : (at + 1) * HASH_BYTES]
