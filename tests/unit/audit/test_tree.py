"""Trees and files: whatever does not lead to the signed root is found, named and located."""

import os
import re
import shutil
import stat
from pathlib import Path

import pytest
from tests.support.exports import edited, hash_of

from strongroom.crypto.tlog import HASH_BYTES
from strongroom.errors import ConfigurationInvalid
from strongroom.tiles import pack_entries, unpack_entries
from strongroom_audit.folder import FILE_BYTES_MAX, Bundle, LogFolder
from strongroom_audit.verify import Verdict

from .conftest import Audited, Make

FULL, EDGE = Bundle("escrow", 0, 256), Bundle("escrow", 1, 44)


def rewrite(path: Path, at: int, data: bytes) -> None:
    """Change the bytes of a file from a place on."""
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)


def edit_leaf(audited: Audited, bundle: Bundle, place: int, leaf: bytes | None = None) -> bytes:
    """Put another leaf into an entry bundle, by default with another time; return it."""
    path = audited.path / "escrow" / bundle.entries
    leaves = unpack_entries(path.read_bytes(), bundle.entries, bundle.width)
    leaves[place] = edited(leaves[place], time=5) if leaf is None else leaf
    path.write_bytes(pack_entries(leaves))
    return leaves[place]


def test_an_honest_export_has_no_findings(audited: Audited) -> None:
    """Figures: every leaf, record and signature was looked at."""
    audited.export()
    verdict: Verdict = audited.verdict()
    assert verdict.findings.kept == []
    assert (verdict.sizes, verdict.records) == ({"recovery": 7, "escrow": 300}, 301)
    # 300 escrow statements; roster, two enrolments, request, attestation.
    assert verdict.signatures == 305


@pytest.mark.parametrize(("bundle", "place"), [(FULL, 7), (FULL, 255), (EDGE, 0), (EDGE, 43)])
def test_an_edited_leaf_is_named(audited: Audited, bundle: Bundle, place: int) -> None:
    """The tile and all above it vouch for another leaf; what the false one says is not judged as well."""
    audited.export()
    edit_leaf(audited, bundle, place)
    assert audited.errors() == [("escrow", bundle.first + place, "leaf_edited")]
    assert audited.warnings() == [("escrow", bundle.first + place, "statement_unnamed")]


@pytest.mark.parametrize(("bundle", "place"), [(FULL, 7), (EDGE, 43)])
def test_an_edited_hash_is_named(audited: Audited, bundle: Bundle, place: int) -> None:
    """The leaf leads to the signed root, its hash in the tile does not."""
    audited.export()
    rewrite(audited.path / "escrow" / bundle.tile, place * HASH_BYTES, b"x")
    [finding] = audited.findings()
    assert (finding.index, finding.code, finding.id) == (bundle.first + place, "tile_edited", bundle.tile)


@pytest.mark.parametrize("bundle", [FULL, EDGE])
def test_edited_leaves_and_edited_hashes_are_told_apart(audited: Audited, bundle: Bundle) -> None:
    """In one bundle: whichever of two leads, with all the others, to the signed root, is right."""
    audited.export()
    for place in (3, 20):
        edit_leaf(audited, bundle, place)
    edit_leaf(audited, bundle, 30, b"")
    for place in (5, 41):
        rewrite(audited.path / "escrow" / bundle.tile, place * HASH_BYTES, b"x")
    found = {(3, "leaf_edited"), (5, "tile_edited"), (20, "leaf_edited"), (30, "leaf_missing"), (41, "tile_edited")}
    assert set(audited.errors()) == {("escrow", bundle.first + place, code) for place, code in found}


def test_more_edits_than_can_be_told_apart_are_all_named(audited: Audited) -> None:
    """Six leaves and six hashes of one bundle."""
    audited.export()
    for place in range(6):
        edit_leaf(audited, FULL, place)
        rewrite(audited.path / "escrow" / FULL.tile, (place + 6) * HASH_BYTES, b"x")
    errors = audited.errors()
    assert {("escrow", place, "leaf_edited") for place in range(12)} <= set(errors)


def test_an_edited_hash_above_the_leaves_is_named(audited: Audited) -> None:
    """Everything below leads to the signed root."""
    audited.export()
    rewrite(audited.path / "escrow/tile/1/000.p/1", 0, b"x")
    [finding] = audited.findings()
    assert (finding.index, finding.code, finding.id) == (0, "tile_edited", "tile/1/000.p/1")


def test_a_leaf_edited_with_its_hash_is_located_in_its_bundle(audited: Audited) -> None:
    """The tile above says of which 256 leaves one was changed."""
    audited.export()
    leaf = edit_leaf(audited, FULL, 9)
    rewrite(audited.path / "escrow" / FULL.tile, 9 * HASH_BYTES, hash_of(leaf))
    assert ("escrow", 0, "leaves_edited") in audited.errors()


def test_a_log_rewritten_by_nobody_with_its_key_does_not_lead_to_the_signed_root(audited: Audited) -> None:
    """All hashes were changed with a leaf, and the checkpoint could not be."""
    checkpoint = audited.authority.escrow.checkpoint()
    log = audited.authority.escrow
    log.rows[9].leaf = edited(log.rows[9].leaf, time=audited.authority.now - 1)
    audited.authority.escrow = log.rebuilt()
    audited.authority.escrow.sealed = checkpoint
    assert ("escrow", None, "root_mismatch") in audited.errors()


def test_a_lost_leaf_is_a_hole_that_is_named(audited: Audited) -> None:
    """Its hash still proves everything around it; the statement that is there is named too."""
    audited.export()
    edit_leaf(audited, FULL, 9, b"")
    assert audited.errors() == [("escrow", 9, "leaf_missing")]
    assert audited.warnings() == [("escrow", 9, "statement_unnamed")]


def test_a_lost_leaf_in_the_recovery_log_is_named(audited: Audited) -> None:
    """What is said there of a release can no longer be judged, and nothing stops."""
    audited.export()
    path = audited.path / "recovery/tile/entries/000.p/7"
    leaves = unpack_entries(path.read_bytes(), "x", 7)
    leaves[3] = b""
    path.write_bytes(pack_entries(leaves))
    assert audited.errors()[0] == ("recovery", 3, "leaf_missing")


@pytest.mark.parametrize("path", FULL.paths + EDGE.paths)
@pytest.mark.parametrize("how", ["missing", "empty", "cut", "garbage", "longer"])
def test_a_spoilt_file_is_named(audited: Audited, path: str, how: str) -> None:
    """Every file of a bundle, spoilt in every way."""
    audited.export()
    file = audited.path / "escrow" / path
    content = file.read_bytes()
    spoilt = {
        "empty": b"",
        "cut": content[: len(content) // 2],
        "garbage": b"\xff" * len(content),
        "longer": content + b"x",
    }
    file.unlink() if how == "missing" else file.write_bytes(spoilt[how])
    findings = audited.findings()
    assert findings
    assert {each.log for each in findings} <= {"escrow", "recovery"}
    assert any(each.id == path for each in findings) or how == "garbage"


def test_a_missing_tile_above_the_leaves_is_named(audited: Audited) -> None:
    """The tree is recomputed without it."""
    audited.export()
    (audited.path / "escrow/tile/1/000.p/1").unlink()
    [finding] = audited.findings()
    assert (finding.code, finding.id) == ("file_missing", "tile/1/000.p/1")


def test_a_tail_without_files_is_named_once(audited: Audited) -> None:
    """The checkpoint says how many leaves there ought to be."""
    audited.export()
    for path in EDGE.paths:
        (audited.path / "escrow" / path).unlink()
    assert ("escrow", 256, "file_missing") in audited.errors()


@pytest.mark.parametrize("log", ["escrow", "recovery"])
def test_a_missing_checkpoint_is_found(audited: Audited, log: str) -> None:
    """Without it nothing vouches for the leaves."""
    audited.export()
    (audited.path / log / "checkpoint").unlink()
    assert (log, None, "checkpoint_missing") in audited.errors()


def test_a_log_that_is_not_there_is_found(audited: Audited) -> None:
    """No recovery log is an error; so is no escrow log, as the recovery log speaks of it."""
    audited.export()
    shutil.rmtree(audited.path / "escrow")
    assert ("escrow", None, "log_missing") in audited.errors()
    note = audited.authority.escrow.checkpoint(7)
    assert ("escrow", 0, "checkpoint_beyond") in audited.errors(against=(("laptop", note),))
    audited.export()
    shutil.rmtree(audited.path / "recovery")
    assert ("recovery", None, "log_missing") in audited.errors()


@pytest.mark.parametrize("spoken_of", ["nowhere", "proof", "release", "attestation"])
def test_an_escrow_log_that_is_not_there_is_one_of_a_new_authority_or_an_error(make: Make, spoken_of: str) -> None:
    """A proof, a release or an attestation tells that there was one."""
    made = make()
    authority = made.authority
    stored = authority.store("laptop-1").records[0].id
    if spoken_of == "proof":
        authority.prove(0, 1)
    elif spoken_of == "release":
        authority.release(authority.ask("laptop-1", "laptop-1", records=[stored]), [stored])
    elif spoken_of == "attestation":
        authority.attest("laptop-1", stored)
    shutil.rmtree(made.export() / "escrow")
    named = made.warnings() if spoken_of == "nowhere" else made.errors()
    assert ("escrow", None, "log_missing") in named


def test_a_log_of_one_far_file_has_no_bundles_below_it(tmp_path: Path) -> None:
    """A name alone does not make for a million million bundles to be looked at, and hides none that are there."""
    far = tmp_path / "tile/entries/x999/x999/x999/999"
    far.parent.mkdir(parents=True)
    far.touch()
    assert LogFolder(tmp_path, "escrow").bundles_there() == 0
    (tmp_path / "tile/entries/002.p").mkdir()
    (tmp_path / "tile/entries/002.p/17").touch()
    (tmp_path / "tile/entries/not-one").touch()
    assert LogFolder(tmp_path, "escrow").bundles_there() == 3


def test_a_checkpoint_that_nobody_signed_and_a_far_file_do_not_hold_the_audit_up(audited: Audited) -> None:
    """The files that are there are looked at, and the others are missing."""
    path = audited.export() / "escrow/checkpoint"
    lines = path.read_text().split("\n")
    lines[1] = str(2**52)
    path.write_text("\n".join(lines))
    far = audited.path / "escrow/tile/entries/x999/x999/x999/999"
    far.parent.mkdir(parents=True)
    far.touch()
    errors = audited.errors()
    assert ("escrow", None, "checkpoint_invalid") in errors
    assert ("escrow", 512, "file_missing") in errors


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "socket"])
def test_what_is_no_regular_file_counts_as_missing(audited: Audited, kind: str) -> None:
    """A named pipe would wait for a writer, and a link lead out of the export."""
    path = audited.export() / "escrow" / EDGE.entries
    kept = path.rename(audited.path / "kept")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(kept)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mknod(path, stat.S_IFSOCK | 0o600)
    assert ("escrow", 256, "file_missing") in audited.errors()


@pytest.mark.parametrize("name", ["escrow/checkpoint", "checkpoints", "roster.json"])
def test_a_named_pipe_does_not_hold_the_audit_up(audited: Audited, name: str) -> None:
    """It is as good as no file, wherever it stands."""
    path = audited.export() / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert (("escrow", None, "checkpoint_missing") in audited.errors()) is (name == "escrow/checkpoint")


def test_a_file_that_no_export_can_have_is_refused(audited: Audited) -> None:
    """Memory is not given for whatever a file says its size is."""
    path = audited.export() / "escrow" / FULL.statements
    os.truncate(path, FILE_BYTES_MAX + 1)
    with pytest.raises(ConfigurationInvalid, match=re.escape(f"{path}: is of more than")):
        audited.verdict()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff\xfe", b"a\n1\nAAAA\n\n\xe2\x80\x94 a AAAAAAAA\n"])
def test_a_garbled_checkpoint_is_found(audited: Audited, content: bytes) -> None:
    """Nothing crashes on it."""
    audited.export()
    (audited.path / "escrow/checkpoint").write_bytes(content)
    assert ("escrow", None, "checkpoint_invalid") in audited.errors()


def test_a_checkpoint_by_another_key_is_found(audited: Audited) -> None:
    """The log's key is the one that the roster names."""
    audited.export()
    log = audited.authority.escrow
    log.key = audited.authority.recovery.key
    (audited.path / "escrow/checkpoint").write_text(log.checkpoint())
    assert ("escrow", None, "checkpoint_invalid") in audited.errors()


def test_a_huge_size_that_nobody_signed_does_not_keep_the_audit_busy(audited: Audited) -> None:
    """Only what is there is read."""
    audited.export()
    note = (audited.path / "escrow/checkpoint").read_text().replace("\n300\n", f"\n{2**62}\n")
    (audited.path / "escrow/checkpoint").write_text(note)
    assert ("escrow", None, "checkpoint_invalid") in audited.errors()


def test_no_byte_of_an_export_can_be_changed_unnoticed(make: Make) -> None:
    """One byte after the other, spread over every file of both logs; nothing crashes on any of it."""
    audited = make()
    first = audited.authority.store("laptop-1", "disk")
    audited.authority.store("laptop-2", "disk")
    audited.authority.release(audited.authority.ask("laptop-1", "laptop-1", name="disk"), [first.records[0].id])
    audited.export()
    unnoticed: list[tuple[str, int]] = []
    for log in ("escrow", "recovery"):
        for file in sorted(each for each in (audited.path / log).rglob("*") if each.is_file()):
            content = file.read_bytes()
            for at in range(0, len(content), max(1, len(content) // 12)):
                file.write_bytes(content[:at] + bytes([content[at] ^ 0x01]) + content[at + 1 :])
                if not audited.verdict().findings.kept:
                    unnoticed.append((str(file.relative_to(audited.path)), at))
            file.write_bytes(content)
    assert unnoticed == []


def test_many_processes_find_what_one_finds(make: Make) -> None:
    """Three full bundles and an edge, with a fault in two of them."""
    audited = make()
    for _ in range(800):
        audited.authority.store("laptop-1")
    rows = audited.authority.escrow.rows
    rows[300].statement = rows[301].statement
    rows[799].beside = []
    assert audited.errors(jobs=3) == audited.errors(jobs=1)
    assert audited.errors() == [("escrow", 300, "statement_wrong"), ("escrow", 799, "row_missing")]
