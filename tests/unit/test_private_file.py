import errno
import fcntl
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from strongroom.private_file import appearing, arising, replacing, sweep


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.secret"


@contextmanager
def of_umask(umask: int) -> Iterator[None]:
    before = os.umask(umask)
    try:
        yield
    finally:
        os.umask(before)


def put(path: Path, content: bytes, *, overwrite: bool = True) -> None:
    with appearing(path, overwrite=overwrite) as (_, stream):
        stream.write(content)


def left_over(path: Path, content: bytes = b"half a sec") -> Path:
    """Leave what a writer of `path` leaves that is killed before its end."""
    child = os.fork()
    if not child:
        with appearing(path, overwrite=True) as (_, stream):
            stream.write(content)
            stream.flush()
            os._exit(0)
    os.waitpid(child, 0)
    [found] = path.parent.glob(f".{path.name}.*")
    return found


def full(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_file_is_for_its_owner_alone(path: Path, umask: int, overwrite: bool) -> None:  # noqa: FBT001
    """Whatever the umask, mode 0600 from the first moment on."""
    with of_umask(umask), appearing(path, overwrite=overwrite) as (fresh, stream):
        assert stat.S_IMODE(fresh.stat().st_mode) == 0o600
        stream.write(b"x")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"x"


def test_nothing_is_at_the_path_before_all_of_it_is(path: Path) -> None:
    """Neither a new file nor the new content of an old one."""
    with appearing(path, overwrite=False) as (_, stream):
        stream.write(b"one")
        stream.flush()
        assert not path.exists()
    with replacing(path) as stream:
        stream.write(b"two")
        stream.flush()
        assert path.read_bytes() == b"one"
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("how", ["new", "replacing", "by a name"])
def test_the_content_is_on_disk_before_its_name(path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced while nothing is at the path, the folder once it is."""
    synced: list[tuple[bool, bool]] = []
    bare = os.fsync

    def watched(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))
        bare(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    if how == "by a name":
        with replacing(path, by=path.with_name("partial")) as stream:
            stream.write(b"x")
    else:
        put(path, b"x", overwrite=how == "replacing")
    assert synced == [(False, False), (True, True)]


@pytest.mark.parametrize("at", ["disk", "block"])
def test_a_failure_leaves_everything_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """The old content stays, and no part of the new one, whether the disk or the block fails."""
    put(path, b"old")
    with monkeypatch.context() as patch, pytest.raises((OSError, KeyboardInterrupt)):  # noqa: SIM117
        with replacing(path) as stream:
            stream.write(b"new")
            if at == "block":
                raise KeyboardInterrupt
            patch.setattr(os, "fsync", full)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_new_file_whose_name_is_not_on_disk_does_not_stay(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder cannot be synced: who is told so may try again."""
    bare = os.fsync

    def full_folder(descriptor: int) -> None:
        (full if stat.S_ISDIR(os.fstat(descriptor).st_mode) else bare)(descriptor)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", full_folder)
        put(path, b"x", overwrite=False)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("link", [True, False], ids=["link", "file"])
@pytest.mark.parametrize("hard_links", [True, False], ids=["hard links", "no hard links"])
def test_what_is_taken_is_not_overwritten_unasked(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    link: bool,  # noqa: FBT001
    hard_links: bool,  # noqa: FBT001
) -> None:
    """Not even what appears meanwhile, a link to nowhere included, nor where files can have one name only."""
    if not hard_links:

        def refuse(_path: Path, _target: Path) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(FileExistsError) as caught, appearing(path, overwrite=False) as (_, stream):
        stream.write(b"new")
        if link:
            path.symlink_to("nowhere")
        else:
            path.write_bytes(b"old")
    assert caught.value.strerror == "File exists"
    assert path.is_symlink() if link else path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_a_new_file_appears_without_hard_links_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system that has none."""

    def refuse(_path: Path, _target: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    put(path, b"x", overwrite=False)
    assert path.read_bytes() == b"x"
    assert list(path.parent.iterdir()) == [path]


def test_what_a_crash_left_is_gone_with_the_next_writing(path: Path) -> None:
    """Also one that fails; a file of another name's stays."""
    other = left_over(path.with_name("other"))
    left_over(path)
    put(path, b"whole")
    assert set(path.parent.iterdir()) == {path, other}
    left_over(path)
    with pytest.raises(FileExistsError):
        put(path, b"x", overwrite=False)
    assert set(path.parent.iterdir()) == {path, other}


def test_what_is_being_written_is_not_swept_away(path: Path) -> None:
    """Two writers at once: each puts its whole content in place, the later one stays."""
    with appearing(path, overwrite=True) as (first, stream):
        stream.write(b"first")
        put(path, b"second")
        assert first.exists()
        sweep(path)
        assert first.exists()
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_swept_before_it_is_locked_is_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer notices, and nothing is written into a file without a name."""
    lock = fcntl.flock
    swept: list[Path] = []

    def late(descriptor: int, operation: int) -> None:
        if not swept:
            swept.extend(path.parent.glob(f".{path.name}.*"))
            swept[0].unlink()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    put(path, b"whole")
    assert len(swept) == 1
    assert path.read_bytes() == b"whole"


def test_only_own_files_of_exactly_that_name_are_swept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links, pipes, other people's files and everything of another shape stay, and do not hold up the writer."""
    token = "0123456789abcde"
    (path.parent / "target").write_bytes(b"kept")
    (path.parent / f".a.secret.{token}1").symlink_to(path.parent / "target")
    os.mkfifo(path.parent / f".a.secret.{token}2")
    for name in (
        f".a.secret.{token}",
        f".a.secret.{token}34",
        f"a.secret.{token}5",
        f".a-secret.{token}6",
        ".a.secret.partial",
    ):
        (path.parent / name).write_bytes(b"kept")
    (path.parent / f".a.secret.{token}7").write_bytes(b"another user's")
    before = {each.name for each in path.parent.iterdir()}
    owner = os.geteuid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: owner + 1)
        sweep(path)
    assert {each.name for each in path.parent.iterdir()} == before
    sweep(path)
    assert {each.name for each in path.parent.iterdir()} == before - {f".a.secret.{token}7"}
    assert (path.parent / "target").read_bytes() == b"kept"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """By the writer; there is nothing to sweep in it."""
    sweep(tmp_path / "missing" / "secret")
    with pytest.raises(FileNotFoundError):
        put(tmp_path / "missing" / "secret", b"x")


def test_a_name_of_the_callers_own_is_written_anew_and_found_after_a_failure(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays when the disk fails, and its former content and mode are gone with the next writing."""
    by = path.with_name("a.secret.partial")
    by.write_bytes(b"something long of before")
    by.chmod(0o644)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"), replacing(path, by=by) as stream:
            stream.write(b"new")
    assert by.exists()
    assert not path.exists()
    with replacing(path, by=by) as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_name_of_the_callers_own_is_not_written_through_a_link(path: Path) -> None:
    """What the link leads to stays as it is."""
    (path.parent / "target").write_bytes(b"kept")
    path.with_name("a.secret.partial").symlink_to("target")
    with (
        pytest.raises(OSError, match="symbolic links"),
        replacing(path, by=path.with_name("a.secret.partial")) as stream,
    ):
        stream.write(b"new")
    assert (path.parent / "target").read_bytes() == b"kept"


# ---- content without a name until it is whole ----


def kinds_of_file_systems(monkeypatch: pytest.MonkeyPatch, *, unnamed: bool) -> None:
    if not unnamed:
        bare = os.open

        def refuse(path: str, flags: int, mode: int = 0o777, **options: int) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            return bare(path, flags, mode, **options)

        monkeypatch.setattr(os, "open", refuse)


@pytest.fixture(params=[True, False], ids=["unnamed", "named"])
def unnamed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system has files without a name."""
    kinds_of_file_systems(monkeypatch, unnamed=request.param)
    return bool(request.param)


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("umask", [0o000, 0o277])
def test_what_arises_is_there_whole_or_not_at_all(
    path: Path,
    unnamed: bool,  # noqa: FBT001
    overwrite: bool,  # noqa: FBT001
    umask: int,
) -> None:
    """Its place can be read inside the block, and in the folder there is nothing where files need no name."""
    with of_umask(umask), arising(path, overwrite=overwrite) as (place, stream):
        stream.write(b"content")
        stream.flush()
        assert place.read_bytes() == b"content"
        assert not path.exists()
        assert len(list(path.parent.iterdir())) == (0 if unnamed else 1)
    assert path.read_bytes() == b"content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("unnamed")
def test_what_arises_replaces_only_when_asked(path: Path) -> None:
    """Whatever appears meanwhile stays."""
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError), arising(path, overwrite=False) as (_, stream):
        stream.write(b"new")
    assert path.read_bytes() == b"old"
    with arising(path, overwrite=True) as (_, stream):
        stream.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("unnamed")
@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("at", ["disk", "block", "folder"])
def test_what_fails_to_arise_leaves_nothing(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    overwrite: bool,  # noqa: FBT001
) -> None:
    """What was there before stays; a new name that is not on disk goes, and a replaced one cannot come back."""
    if overwrite:
        path.write_bytes(b"old")
    bare = os.fsync

    def full_folder(descriptor: int) -> None:
        (full if stat.S_ISDIR(os.fstat(descriptor).st_mode) else bare)(descriptor)

    with (
        monkeypatch.context() as patch,
        pytest.raises((OSError, KeyboardInterrupt)),
        arising(path, overwrite=overwrite) as (_, stream),
    ):
        stream.write(b"new")
        if at == "block":
            raise KeyboardInterrupt
        patch.setattr(os, "fsync", full_folder if at == "folder" else full)
    assert [each.read_bytes() for each in path.parent.iterdir()] == (
        [] if not overwrite else [b"new" if at == "folder" else b"old"]
    )


def test_a_killed_writer_of_what_arises_leaves_nothing(path: Path) -> None:
    """No code of ours runs at its end, and there is nothing to sweep."""
    child = os.fork()
    if not child:
        with arising(path, overwrite=False) as (_, stream):
            stream.write(b"half a sec")
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert list(path.parent.iterdir()) == []


def test_what_was_left_over_is_swept_before_something_arises(path: Path) -> None:
    """By a writer of the other kind."""
    found = left_over(path)
    with arising(path, overwrite=False):
        assert not found.exists()
