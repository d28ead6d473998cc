"""Tiles and bundles against the definitions of tlog-tiles, and whole exports under an independent verifier."""

import re
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.c2sp import verify_export
from tests.support.tile_builder import HashTiles, TileBuilder, TileFile, edge_files, edge_tiles

from strongroom import tiles
from strongroom.crypto import notes, tlog
from strongroom.crypto.cosignatures import cosign, vkey
from strongroom.crypto.notes import Checkpoint
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import LimitExceeded, ProofInvalid
from strongroom.tiles import Tile, tiles_of

UNTIMED = settings(deadline=None)  # a busy machine is no failure

ORIGIN = "strongroom.example/escrow"
KEY = SigningKey.from_seed(Secret(bytes(range(32))))
WITNESS_KEY = SigningKey.from_seed(Secret(bytes(range(1, 33))))
VKEY = vkey(ORIGIN, KEY.public_key)

LARGE = 65_537
LEAVES = [str(index).encode() for index in range(LARGE)]
HASHES = [sha256(b"\x00" + leaf).digest() for leaf in LEAVES]
EDGES = [0, 1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, LARGE]

sizes = st.integers(0, LARGE) | st.sampled_from(EDGES)
large_sizes = st.integers(0, 200_000) | st.sampled_from([256**2 - 1, 256**2, 256**2 + 1])


@cache
def naive_root(begin: int, end: int) -> bytes:
    """MTH of RFC 6962 section 2.1, over HASHES[begin:end]."""
    if begin == end:
        return sha256(b"").digest()
    if end - begin == 1:
        return HASHES[begin]
    power = 1
    while 2 * power < end - begin:
        power *= 2
    return sha256(b"\x01" + naive_root(begin, begin + power) + naive_root(begin + power, end)).digest()


def naive_tile(level: int, index: int, width: int) -> bytes:
    """Return a tile by the formula of tlog-tiles: MTH(D[(n * 256 + i) * 256**l : (n * 256 + i + 1) * 256**l])."""
    return b"".join(
        naive_root((index * 256 + i) * 256**level, (index * 256 + i + 1) * 256**level) for i in range(width)
    )


def naive_files(size: int) -> dict[str, bytes]:
    """Return every file of an export of this size, but the checkpoint."""
    files: dict[str, bytes] = {}
    for level, index, width in tiles_of(0, size):
        files[tiles.tile_path(level, index, width)] = naive_tile(level, index, width)
        if level == 0:
            files[tiles.entries_path(index, width)] = b"".join(
                len(leaf).to_bytes(2, "big") + leaf for leaf in LEAVES[index * 256 : index * 256 + width]
            )
    return files


def built(leaves: Sequence[bytes]) -> TileBuilder:
    builder = TileBuilder()
    builder.add(leaves)
    return builder


# ---- where a tile stands --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "spelled"),
    [
        (0, "000"),
        (7, "007"),
        (999, "999"),
        (1_000, "x001/000"),
        (1_234_067, "x001/x234/067"),  # the example of tlog-tiles
        (1_000_000, "x001/x000/000"),
        (2**55 - 1, "x036/x028/x797/x018/x963/967"),
    ],
)
def test_an_index_is_spelled_three_digits_an_element(index: int, spelled: str) -> None:
    """Zero-padded, all but the last with an x before it, the width after it if the tile is partial."""
    assert tiles.tile_path(0, index) == f"tile/0/{spelled}"
    assert tiles.tile_path(63, index, 256) == f"tile/63/{spelled}"
    assert tiles.tile_path(2, index, 17) == f"tile/2/{spelled}.p/17"
    assert tiles.entries_path(index) == f"tile/entries/{spelled}"
    assert tiles.entries_path(index, 255) == f"tile/entries/{spelled}.p/255"


@pytest.mark.parametrize(
    ("level", "index", "width"), [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, -1), (0, 0, 257)]
)
def test_a_tile_that_cannot_be_has_no_path(level: int, index: int, width: int) -> None:
    """Levels are 0 to 63, indexes 0 and up, widths 1 to 256."""
    with pytest.raises(ProofInvalid, match="no tile"):
        tiles.tile_path(level, index, width)
    if 0 <= level <= 63:
        with pytest.raises(ProofInvalid, match="no tile"):
            tiles.entries_path(index, width)


def test_the_tiles_of_the_specifications_example() -> None:
    """A tree of 70,000 has 273 full and one partial tile at level 0, one and one at level 1, one at level 2."""
    expected = [
        *(Tile(0, index) for index in range(273)),
        Tile(0, 273, 112),
        Tile(1, 0),
        Tile(1, 1, 17),
        Tile(2, 0, 1),
    ]
    assert list(tiles_of(0, 70_000)) == expected
    assert list(tiles_of(0, 256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert edge_tiles(70_000) == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]


@UNTIMED
@given(size=large_sizes)
def test_the_tiles_of_a_tree_are_those_of_the_formula(size: int) -> None:
    """At each level floor(size / 256**level) hashes stand in full tiles, and the rest of them in a partial one."""
    expected, level = list[Tile](), 0
    while size // 256**level:
        full, rest = divmod(size // 256**level, 256)
        expected += [Tile(level, index) for index in range(full)] + [Tile(level, full, rest)] * bool(rest)
        level += 1
    assert list(tiles_of(0, size)) == expected
    assert edge_tiles(size) == [tile for tile in expected if tile.width < 256]
    bundles = [tiles.entries_path(tile.index, tile.width) for tile in expected if tile.level == 0]
    paths = bundles + [tiles.tile_path(*tile) for tile in expected]
    assert edge_files(size) == [path for path in paths if ".p/" in path]


@UNTIMED
@given(old=large_sizes, new=large_sizes)
def test_what_one_tree_has_and_another_has_not(old: int, new: int) -> None:
    """tiles_of names the difference, each tile once, whichever of the two is the larger."""
    difference = list(tiles_of(old, new))
    assert len(difference) == len(set(difference))
    assert set(difference) == set(tiles_of(0, new)) - set(tiles_of(0, old))


def test_the_largest_log_has_tiles() -> None:
    """2**63 - 1 leaves need eight levels of tiles."""
    edge = [Tile(level, 2 ** (55 - 8 * level) - 1, 255) for level in range(7)]
    assert edge_tiles(tlog.LOG_SIZE_MAX) == [*edge, Tile(7, 0, 127)]
    assert list(tiles_of(tlog.LOG_SIZE_MAX - 1, tlog.LOG_SIZE_MAX)) == [edge[0]]


@pytest.mark.parametrize("size", [-1, tlog.LOG_SIZE_MAX + 1])
def test_an_impossible_size_has_no_tiles(size: int) -> None:
    """No log has fewer than no leaves, or more than the largest."""
    for ask in (edge_tiles, edge_files):
        with pytest.raises(ProofInvalid, match="no log has"):
            ask(size)
    for sizes_ in ((size, 5), (5, size)):
        with pytest.raises(ProofInvalid, match="no log has"):
            next(tiles_of(*sizes_))
    for resume in (HashTiles.resume, TileBuilder.resume):
        with pytest.raises(ProofInvalid, match="no log has"):
            resume(size, {}, bytes(32))


# ---- entry bundles --------------------------------------------------------------------------------


@given(leaves=st.lists(st.binary(max_size=300), max_size=20))
def test_a_bundle_reads_back(leaves: list[bytes]) -> None:
    """Whatever pack_entries writes, unpack_entries reads; empty leaves too."""
    assert tiles.unpack_entries(tiles.pack_entries(leaves), "bundle", len(leaves)) == leaves


def test_a_bundle_is_length_and_entry_by_turns() -> None:
    """Lengths are two bytes, big-endian, up to 65,535."""
    assert tiles.pack_entries([b"ab", b"", b"c" * 258]) == b"\x00\x02ab\x00\x00\x01\x02" + b"c" * 258
    longest = bytes(65_535)
    assert tiles.unpack_entries(tiles.pack_entries([longest] * 256), "bundle") == [longest] * 256


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00", "entry 0, at byte 0, is cut off"),
        (b"\x01", "entry 0, at byte 0, is cut off"),
        (b"\x00\x01", "entry 0, at byte 0, is cut off"),
        (b"\x00\x01a\x00", "entry 1, at byte 3, is cut off"),
        (b"\x00\x01a\x00\x02b", "entry 1, at byte 3, is cut off"),
        (b"\x00\x01a\x01\x00b", "entry 1, at byte 3, is cut off"),
        (b"", "holds 0 entries in 0 bytes where 2 entries are due"),
        (b"\x00\x01a", "holds 1 entries in 3 bytes where 2 entries are due"),
        (b"\x00\x01a" * 3, "holds 3 entries in 9 bytes where 2 entries are due"),
    ],
)
def test_a_misshapen_bundle_is_refused(data: bytes, reason: str) -> None:
    """Cut off anywhere, or with another number of entries: named with its path and the byte."""
    with pytest.raises(ProofInvalid, match=re.escape(f"tile/entries/000.p/2: {reason}")):
        tiles.unpack_entries(data, "tile/entries/000.p/2", 2)


def test_a_leaf_that_is_too_long_is_not_packed() -> None:
    """65,536 bytes have no length that could be written; the builder is as before."""
    with pytest.raises(LimitExceeded, match="at most 65535 bytes"):
        tiles.pack_entries([bytes(65_536)])
    builder = built(LEAVES[:3])
    with pytest.raises(LimitExceeded, match="at most 65535 bytes"):
        builder.add([b"a", bytes(65_536)])
    assert (builder.size, builder.root(), builder.edge()) == (3, naive_root(0, 3), built(LEAVES[:3]).edge())


# ---- building -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", EDGES)
def test_a_tree_is_built_to_the_files_of_the_definition(size: int) -> None:
    """Full and partial, every file has the path and the bytes that the specification gives it, and comes once."""
    builder = TileBuilder()
    files = [
        file for begin in range(0, size, 1_000) for file in builder.add(LEAVES[begin : min(begin + 1_000, size)])
    ]
    files += builder.edge()
    assert len(dict(files)) == len(files)
    assert dict(files) == naive_files(size)
    assert (builder.size, builder.root()) == (size, naive_root(0, size))


@pytest.mark.parametrize("size", range(0, 1_100, 7))
def test_the_root_is_that_of_the_definition_at_any_size(size: int) -> None:
    """It is put together out of the unfinished tiles alone."""
    assert built(LEAVES[:size]).root() == naive_root(0, size)


@UNTIMED
@given(cuts=st.lists(st.integers(0, 3_000), max_size=8))
def test_batches_do_not_matter(cuts: list[int]) -> None:
    """However the leaves are cut into batches, the same files are filled, and the same are partial after each."""
    builder, files = TileBuilder(), list[TileFile]()
    for begin, end in pairwise([0, *sorted(cuts), 3_000]):
        files += builder.add(LEAVES[begin:end])
        assert dict(builder.edge()).keys() == set(edge_files(end))
    at_once = TileBuilder()
    assert sorted(files) == sorted(at_once.add(LEAVES[:3_000]))
    assert builder.edge() == at_once.edge()


@UNTIMED
@given(size=sizes, more=st.integers(0, 700))
def test_an_export_goes_on_from_its_partial_files(size: int, more: int) -> None:
    """Whoever has the partial files alone gives the same files from there on as whoever built it all."""
    whole = built(LEAVES[:size])
    edge = dict(whole.edge())
    assert list(edge) == edge_files(size)
    resumed = TileBuilder.resume(size, edge, whole.root())
    hashes = HashTiles.resume(size, edge, whole.root())
    assert (resumed.size, resumed.root(), dict(resumed.edge())) == (size, whole.root(), edge)
    added = whole.add(LEAVES[size : size + more])
    assert resumed.add(LEAVES[size : size + more]) == added
    assert resumed.edge() == whole.edge()
    expected = [file for file in added + whole.edge() if "entries" not in file.path]
    assert hashes.add(b"".join(HASHES[size : size + more])) + hashes.edge() == expected


RESUMED = 65_536 + 513  # partial at three levels: 1 leaf, 2 full tiles, a full tile of those


@cache
def edge_of_resumed() -> tuple[dict[str, bytes], bytes]:
    builder = built([*LEAVES, *LEAVES[: RESUMED - LARGE]])
    return dict(builder.edge()), builder.root()


@pytest.mark.parametrize("path", edge_files(RESUMED))
def test_an_export_does_not_go_on_from_damaged_files(path: str) -> None:
    """A partial file that is missing, cut off, too long or altered in any byte is refused."""
    edge, root = edge_of_resumed()
    TileBuilder.resume(RESUMED, edge, root)
    without = {name: data for name, data in edge.items() if name != path}
    with pytest.raises(ProofInvalid, match=f"{re.escape(path)}: is missing"):
        TileBuilder.resume(RESUMED, without, root)
    for data in (edge[path][:-1], edge[path] + b"\x00", b""):
        with pytest.raises(ProofInvalid, match=re.escape(path)):
            TileBuilder.resume(RESUMED, edge | {path: data}, root)
    for place in range(len(edge[path])):
        altered = edge[path][:place] + bytes([edge[path][place] ^ 1]) + edge[path][place + 1 :]
        with pytest.raises(ProofInvalid, match=f"{re.escape(path)}|do not lead to the root"):
            TileBuilder.resume(RESUMED, edge | {path: altered}, root)


def test_an_export_goes_on_from_its_own_root_alone() -> None:
    """The partial tiles of a tree lead to its root and to no other; an empty tree has one too."""
    edge, root = edge_of_resumed()
    with pytest.raises(ProofInvalid, match=f"do not lead to the root of the {RESUMED} leaves"):
        TileBuilder.resume(RESUMED, edge, root[::-1])
    assert TileBuilder.resume(0, {}, tlog.EMPTY_ROOT).root() == tlog.EMPTY_ROOT
    with pytest.raises(ProofInvalid, match="do not lead"):
        TileBuilder.resume(0, {}, bytes(32))


def test_subtrees_may_be_put_in_whole() -> None:
    """The roots of full tiles, computed apart, stand for their leaves; those of the partial bundle follow."""
    parts = HashTiles()
    full = [b"".join(HASHES[begin : begin + 256]) for begin in range(0, 1_024, 256)]
    above = parts.add(b"".join(map(tlog.subtree_root, full)), level=1)
    assert (above, parts.size) == ([], 1_024)
    parts.add(b"".join(HASHES[1_024:1_030]))
    whole = HashTiles()
    whole.add(b"".join(HASHES[:1_030]))
    assert (parts.size, parts.root(), parts.edge()) == (whole.size, whole.root(), whole.edge())
    with pytest.raises(ProofInvalid, match="after 1030 leaves, 32 bytes are no hashes of tiles of level 1"):
        parts.add(bytes(32), level=1)
    assert parts.edge() == whole.edge()


@pytest.mark.parametrize(("length", "level"), [(31, 0), (33, 0), (32, -1), (32, 64)])
def test_what_are_no_hashes_of_a_level_is_refused(length: int, level: int) -> None:
    """Hashes are 32 bytes, levels 0 to 63; nothing is appended."""
    row = HashTiles()
    with pytest.raises(ProofInvalid, match="are no hashes"):
        row.add(bytes(length), level)
    assert (row.size, row.edge()) == (0, [])


def test_a_tree_does_not_grow_beyond_the_largest_log() -> None:
    """127 subtrees of 256**7 leaves fit and one more does not; so with the last leaf."""
    row = HashTiles()
    row.add(bytes(32 * 127), level=7)
    with pytest.raises(ProofInvalid, match="no log has"):
        row.add(bytes(32), level=7)
    assert row.size == 127 * 256**7
    edge = {tiles.tile_path(*tile): bytes(32 * tile.width) for tile in edge_tiles(tlog.LOG_SIZE_MAX)}
    bundle = tiles.pack_entries([b"x"] * 255)
    edge[tiles.tile_path(0, 2**55 - 1, 255)] = tiles.hash_leaves([b"x"] * 255)
    edge[tiles.entries_path(2**55 - 1, 255)] = bundle
    root = b""
    for tile in edge_tiles(tlog.LOG_SIZE_MAX):
        root = tlog.subtree_root(edge[tiles.tile_path(*tile)] + root)
    full = TileBuilder.resume(tlog.LOG_SIZE_MAX, edge, root)
    with pytest.raises(ProofInvalid, match="no log has"):
        full.add([b"x"])
    assert (full.size, full.edge()[0].data) == (tlog.LOG_SIZE_MAX, bundle)


# ---- whole exports, read by a verifier that knows the specifications alone ------------------------


def write(folder: Path, files: Sequence[TileFile]) -> None:
    for path, data in files:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def write_checkpoint(folder: Path, builder: TileBuilder) -> None:
    checkpoint = Checkpoint(ORIGIN, builder.size, builder.root())
    note = notes.sign_checkpoint(checkpoint, KEY.sign, KEY.public_key)
    (folder / "checkpoint").write_text(cosign(note, "witness.example/w1", WITNESS_KEY, 1_700_000_000), "utf-8")


def export(folder: Path, size: int) -> None:
    builder = TileBuilder()
    for begin in range(0, size, 1_000):
        write(folder, builder.add(LEAVES[begin : min(begin + 1_000, size)]))
    write(folder, builder.edge())
    write_checkpoint(folder, builder)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an export with three levels of tiles; whoever alters it puts it back."""
    folder = tmp_path_factory.mktemp("large")
    export(folder, LARGE)
    return folder


@pytest.mark.parametrize("size", [0, 1, 2, 255, 256, 257, 512, 513])
def test_an_export_is_accepted(size: int, tmp_path: Path) -> None:
    """Checkpoint, bundles, tiles and root of an export hold for a verifier that shares no code with us."""
    export(tmp_path, size)
    assert verify_export(tmp_path, VKEY) == size


def test_a_large_export_is_accepted(large: Path) -> None:
    """So does one with a full tile at level 1 and a tile at level 2."""
    assert verify_export(large, VKEY) == LARGE
    assert (large / "tile/1/000").exists()
    assert (large / "tile/2/000.p/1").exists()


FILES = [
    "tile/entries/000",
    "tile/entries/001",
    "tile/entries/002.p/1",
    "tile/0/000",
    "tile/0/001",
    "tile/0/002.p/1",
    "tile/1/000.p/2",
]


@pytest.mark.parametrize("path", FILES)
def test_tampering_with_any_file_is_found(path: str, tmp_path: Path) -> None:
    """A byte flipped anywhere, cut off or added, and a file taken away: the file is named."""
    export(tmp_path, 513)
    assert sorted(FILES) == sorted(
        str(file.relative_to(tmp_path)) for file in tmp_path.glob("tile/**/*[0-9]") if file.is_file()
    )
    file = tmp_path / path
    data = file.read_bytes()
    for place in {*range(0, len(data), 211), len(data) - 1}:
        file.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        with pytest.raises(ValueError, match=re.escape(path)):
            verify_export(tmp_path, VKEY)
    for other in (data[:-1], data + b"\x00", b""):
        file.write_bytes(other)
        with pytest.raises(ValueError, match=re.escape(path)):
            verify_export(tmp_path, VKEY)
    file.unlink()
    with pytest.raises(ValueError, match=f"{re.escape(path)}: cannot be read"):
        verify_export(tmp_path, VKEY)
    file.write_bytes(data)
    assert verify_export(tmp_path, VKEY) == 513


@pytest.mark.parametrize(
    "path", ["tile/entries/128", "tile/0/255", "tile/0/256.p/1", "tile/1/000", "tile/2/000.p/1"]
)
def test_tampering_with_a_large_export_is_found(path: str, large: Path) -> None:
    """At every level: the file is named."""
    data = (large / path).read_bytes()
    (large / path).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ValueError, match=re.escape(path)):
        verify_export(large, VKEY)
    (large / path).write_bytes(data)


def test_tampering_with_the_checkpoint_is_found(tmp_path: Path) -> None:
    """Each byte of its text and of the log's signature line matters."""
    export(tmp_path, 3)
    data = (tmp_path / "checkpoint").read_bytes()
    for place in range(data.index("\N{EM DASH} witness".encode())):
        (tmp_path / "checkpoint").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ValueError, match="checkpoint"):
            verify_export(tmp_path, VKEY)
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(ValueError, match="checkpoint: cannot be read"):
        verify_export(tmp_path, VKEY)


def test_an_export_with_other_leaves_throughout_is_found(tmp_path: Path) -> None:
    """Bundles and tiles that agree with each other and not with the signed root are refused."""
    export(tmp_path, 300)
    builder = TileBuilder()
    write(tmp_path, builder.add([*LEAVES[:299], b"another"]))
    write(tmp_path, builder.edge())
    with pytest.raises(ValueError, match="checkpoint: its root is not that of the entries"):
        verify_export(tmp_path, VKEY)


@pytest.mark.parametrize(
    "other", [vkey(ORIGIN, WITNESS_KEY.public_key), vkey("another.example/log", KEY.public_key)]
)
def test_an_export_of_another_log_is_refused(other: str, tmp_path: Path) -> None:
    """Neither another key nor another name accepts it."""
    export(tmp_path, 3)
    with pytest.raises(ValueError, match="checkpoint: is not signed by this key"):
        verify_export(tmp_path, other)


@pytest.mark.parametrize(
    "path",
    ["tile/0/003", "tile/0/002", "tile/1/000", "tile/2/000.p/1", "tile/x", "tile/0/002.p/01", "tile/0/000.p/256"],
)
def test_a_file_that_is_no_part_of_the_log_is_found(path: str, tmp_path: Path) -> None:
    """Whatever else lies below tile/ is refused."""
    export(tmp_path, 513)
    write(tmp_path, [TileFile(path, bytes(32))])
    with pytest.raises(ValueError, match=f"{re.escape(path)}: is no resource"):
        verify_export(tmp_path, VKEY)


def test_an_export_that_went_on_is_accepted(tmp_path: Path) -> None:
    """Outdated partial files may stay or go, after it went on from them; a false one is found."""
    export(tmp_path, 300)
    checkpoint = notes.verify_checkpoint((tmp_path / "checkpoint").read_text("utf-8"), ORIGIN, KEY.public_key)
    files = {path: (tmp_path / path).read_bytes() for path in edge_files(300)}
    builder = TileBuilder.resume(checkpoint.size, files, checkpoint.root)
    write(tmp_path, builder.add(LEAVES[300:1_000]))
    write(tmp_path, builder.edge())
    write_checkpoint(tmp_path, builder)
    assert verify_export(tmp_path, VKEY) == 1_000
    (tmp_path / "tile/entries/001.p/44").write_bytes(b"\x00\x00" * 44)
    with pytest.raises(ValueError, match=r"tile/entries/001\.p/44: is not what the log holds"):
        verify_export(tmp_path, VKEY)
    outdated = list(tiles_of(1_000, 300))
    assert outdated == [Tile(0, 1, 44), Tile(1, 0, 1)]
    for tile in outdated:
        (tmp_path / tiles.tile_path(*tile)).unlink()
    (tmp_path / "tile/entries/001.p/44").unlink()
    assert verify_export(tmp_path, VKEY) == 1_000
