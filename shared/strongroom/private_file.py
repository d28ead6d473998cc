"""Files that only their owner may use, and that are whole and on disk or not there at all.

New content is written beside its place and moved into it. What is being written is locked, so that the next writer
can tell it from what a crash left behind, and remove the latter: no key stays in a file that nobody knows of.
Everything here raises OSError; callers say in their own words what it means to them.
"""

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

MODE: Final = 0o600

_TOKEN_BYTES: Final = 8
# What a kernel or a file system says that knows no files without a name.
_NO_UNNAMED_FILES: Final = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def appearing(path: Path, *, overwrite: bool) -> Iterator[tuple[Path, BinaryIO]]:
    """Give a new file of mode 0600 and where it is; it takes its place at `path` when the block ends well.

    Content and name are on disk then; otherwise it vanishes, and what was at `path` stays. Several processes may do
    so at once. Raises FileExistsError when the path is taken, be it by a link, and not to be overwritten.
    """
    sweep(path)
    fresh, descriptor = _open_beside(path)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield fresh, stream
            _finish(stream)
            if overwrite:
                fresh.replace(path)
            else:
                _move(fresh, path)
                fresh = path
        sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise


@contextmanager
def arising(path: Path, *, overwrite: bool) -> Iterator[tuple[Path, BinaryIO]]:
    """Do as `appearing`, for content that may take long: until it is whole it has no name at all.

    However the process ends, nothing of it stays. Where a file system cannot do that, this is `appearing`. The
    place that is given is good inside the block only.
    """
    sweep(path)
    descriptor = _open_unnamed(path.parent)
    if descriptor is None:
        with appearing(path, overwrite=overwrite) as named:
            yield named
        return
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, MODE)
        place = _place(descriptor)
        yield place, stream
        _finish(stream)
        if overwrite:
            _name_over(place, descriptor, path)
        else:
            _name(place, path)
    try:
        sync_folder(path.parent)
    except BaseException:
        if not overwrite:
            with suppress(OSError):
                path.unlink()
        raise


def _open_unnamed(folder: Path) -> int | None:
    try:
        descriptor = os.open(folder, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, MODE)
    except OSError as error:
        if error.errno in _NO_UNNAMED_FILES:
            return None
        raise
    if os.path.lexists(_place(descriptor)):
        return descriptor
    os.close(descriptor)
    return None


def _place(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}")


def _name(place: Path, path: Path) -> None:
    # Only with a folder's descriptor does Python follow the link that /proc has; the folder is not looked at.
    folder = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(place, path, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _name_over(place: Path, descriptor: int, path: Path) -> None:
    # Locked, so that no other writer sweeps it away before it is in its place.
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    fresh = path.with_name(f".{path.name}.{os.urandom(_TOKEN_BYTES).hex()}")
    _name(place, fresh)
    try:
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise


@contextmanager
def replacing(path: Path, *, by: Path | None = None) -> Iterator[BinaryIO]:
    """Give a file of mode 0600 that takes the place of `path` when the block ends well, as `appearing` does.

    Arguments: `by` is the name to write it under first, for a caller that looks for it after a crash. It must be in
    a folder of the caller's own and have one writer at a time. It stays when the block fails, and is written anew
    the next time.
    """
    if by is None:
        with appearing(path, overwrite=True) as (_, stream):
            yield stream
        return
    descriptor = os.open(by, _FLAGS | os.O_TRUNC, MODE)
    with os.fdopen(descriptor, "wb") as stream:
        os.fchmod(descriptor, MODE)
        yield stream
        _finish(stream)
    by.replace(path)
    sync_folder(path.parent)


def sweep(path: Path) -> None:
    """Remove what writers of `path` left who ended halfway; harmless at any time, and every new writer does it.

    What is being written is locked and stays, and so does what cannot be removed.
    """
    left_over = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{{2 * _TOKEN_BYTES}}}")
    try:
        found = [each for each in path.parent.iterdir() if left_over.fullmatch(each.name)]
    except OSError:
        # A folder that may be written and not be listed.
        return
    for each in found:
        with suppress(OSError):
            _remove_if_abandoned(each)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finish(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _open_beside(path: Path) -> tuple[Path, int]:
    """Make a locked file under a name that nobody can have planted a link under."""
    while True:
        fresh = path.with_name(f".{path.name}.{os.urandom(_TOKEN_BYTES).hex()}")
        descriptor = os.open(fresh, _FLAGS | os.O_EXCL, MODE)
        try:
            # Whatever the umask took away.
            os.fchmod(descriptor, MODE)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return fresh, descriptor
        except BaseException:
            os.close(descriptor)
            with suppress(OSError):
                fresh.unlink()
            raise
        # Somebody swept it away before it was locked.
        os.close(descriptor)


def _remove_if_abandoned(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    finally:
        os.close(descriptor)


def _move(fresh: Path, path: Path) -> None:
    try:
        # Unlike a rename, this never replaces a file that has appeared meanwhile.
        path.hardlink_to(fresh)
    except FileExistsError:
        raise
    except OSError:
        # A file system without hard links.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        fresh.replace(path)
    else:
        fresh.unlink()
