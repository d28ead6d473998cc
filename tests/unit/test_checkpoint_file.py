"""The newest checkpoint on a host's own disk."""

import os
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
from tests.support.authority import AUTHORITY, signing_key

from strongroom.checkpoint_file import CheckpointFile, working_origin
from strongroom.crypto.notes import NOTE_BYTES_MAX, Checkpoint, sign_checkpoint
from strongroom.errors import LogForked, StateCorrupt
from strongroom.log_keys import Signed

ORIGIN = f"{AUTHORITY}/escrow"
WORKING = working_origin(ORIGIN)
KEY = signing_key("escrow log")


def note(size: int, content: bytes = b"", *, origin: str = WORKING, key: str = "escrow log") -> str:
    """A working checkpoint over this many leaves, whatever they are."""
    signer = signing_key(key)
    return sign_checkpoint(Checkpoint(origin, size, sha256(content).digest()), signer.sign, signer.public_key)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "escrow.checkpoint"


@pytest.fixture
def file(path: Path) -> CheckpointFile:
    return CheckpointFile(path, ORIGIN, KEY.public_key)


def test_no_file_is_a_first_start(file: CheckpointFile) -> None:
    """Before anything was kept there is nothing to read."""
    assert file.read() is None


def test_what_was_kept_is_read_back(file: CheckpointFile, path: Path) -> None:
    """The note stands in the file verbatim, so that other tools can read it, and nothing else is left behind."""
    file.advance(note(3))
    assert path.read_text() == note(3)
    assert file.read() == Signed(Checkpoint(WORKING, 3, sha256(b"").digest()), note(3), KEY.public_key)
    assert list(path.parent.iterdir()) == [path]


def test_it_only_goes_forward(file: CheckpointFile, path: Path) -> None:
    """A smaller log, or the same again, does not replace what is kept."""
    for size, kept in ((3, 3), (2, 3), (3, 3), (7, 7), (1, 7)):
        file.advance(note(size))
        assert path.read_text() == note(kept)


def test_two_roots_for_one_size_are_a_fork(file: CheckpointFile, path: Path) -> None:
    """The log signed two histories: the first is kept, and the second is reported."""
    file.advance(note(3))
    with pytest.raises(LogForked, match="two roots were signed for 3 leaves"):
        file.advance(note(3, b"other"))
    assert path.read_text() == note(3)


def test_processes_that_share_it_do_not_set_it_back(file: CheckpointFile, path: Path) -> None:
    """Many at once, in any order: the largest stays."""
    sizes = [number * 37 % 101 for number in range(1, 101)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda size: file.advance(note(size)), sizes))
    assert path.read_text() == note(max(sizes))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        note(3).encode()[:40],
        note(3).encode()[:-1],
        b"\xff" + note(3).encode(),
        b"x" * (NOTE_BYTES_MAX + 1),
    ],
)
def test_a_damaged_file_is_not_a_first_start(file: CheckpointFile, path: Path, content: bytes) -> None:
    """Whatever is no checkpoint is told with a hint, and is not written over."""
    path.write_bytes(content)
    for use in (file.read, lambda: file.advance(note(7))):
        with pytest.raises(StateCorrupt, match=r"escrow\.checkpoint: is damaged") as caught:
            use()
        assert caught.value.hint
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "foreign",
    [
        note(3, key="thief"),
        note(3, origin=working_origin(f"{AUTHORITY}/recovery")),
        note(3, origin=ORIGIN),
        note(3).replace("\n3\n", "\n4\n"),
    ],
    ids=["another key", "another log", "a checkpoint for everybody", "a changed size"],
)
def test_a_foreign_signature_is_a_fork(file: CheckpointFile, path: Path, foreign: str) -> None:
    """Another key or log, a checkpoint that is not a working one, or a changed size: not what belongs here."""
    path.write_text(foreign)
    with pytest.raises(LogForked, match=r"escrow\.checkpoint: is not a checkpoint that the log"):
        file.read()


def test_a_file_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    """A folder in its place, a missing folder: StateCorrupt, with the path."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(StateCorrupt, match="folder: cannot be read"):
        CheckpointFile(tmp_path / "folder", ORIGIN, KEY.public_key).read()
    with pytest.raises(StateCorrupt, match="missing/file: the log's checkpoint cannot be written") as caught:
        CheckpointFile(tmp_path / "missing/file", ORIGIN, KEY.public_key).advance(note(3))
    assert caught.value.hint


def test_a_failed_write_leaves_the_file_as_it_was(
    file: CheckpointFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the disk refuses, the old checkpoint stays and no temporary file does."""
    file.advance(note(3))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateCorrupt, match="No space left on device"):
        file.advance(note(7))
    assert path.read_text() == note(3)
    assert list(path.parent.iterdir()) == [path]


def test_the_file_and_its_folder_are_synced_before_it_counts(
    file: CheckpointFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First the new content reaches the disk, under another name, then the rename does."""
    synced: list[tuple[bool, bool]] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        synced.append((os.path.isdir(f"/proc/self/fd/{descriptor}"), path.exists()))  # noqa: PTH112
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    file.advance(note(3))
    assert synced == [(False, False), (True, True)]
