"""Where a stack keeps its files, who may read them, and as whom its servers run.

A normal user's stack lies in the folder that was named. When root starts one, the servers run as the
unprivileged users of their Debian packages, who may not be able to enter that folder (a clone under /root): the
data then lies in /var/lib/strongroom-local under a hash of the folder's path, and the folder holds a file `place`
that says so.
"""

import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

SHARED_ROOT = Path("/var/lib/strongroom-local")
_KNOWN_ENTRIES = ("ca.pem", "data", "lock", "log", "owner.pid", "place", "run", "state", "tls")


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged user of this system."""

    uid: int
    gid: int


class Identity(TypedDict):
    """The arguments by which `subprocess` changes to another user."""

    user: int | None
    group: int | None
    extra_groups: list[int] | None


def account(name: str) -> Account | None:
    """Return whom a server runs as: None (the caller) unless root asks, then `name`, or else `nobody`.

    Raises:
        LookupError: neither user exists.
    """
    if os.geteuid() != 0:
        return None
    for candidate in (name, "nobody"):
        with suppress(KeyError):
            user = pwd.getpwnam(candidate)
            return Account(user.pw_uid, user.pw_gid)
    raise LookupError(f"root cannot run this server, and neither the user {name} nor nobody exists")


def identity(user: Account | None) -> Identity:
    """Return what `subprocess` needs to run as `user`, without supplementary groups; None changes nothing."""
    if user is None:
        return {"user": None, "group": None, "extra_groups": None}
    return {"user": user.uid, "group": user.gid, "extra_groups": []}


class Place:
    """The files of one stack.

    `folder` is the one that was named: mode 0700, it holds `ca.pem` and `log/`. `root` is where the rest lies:
    the same folder, or one in /var/lib/strongroom-local when root starts the stack.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
        self.root = SHARED_ROOT / digest if os.geteuid() == 0 else self.folder
        self.ca_file = self.folder / "ca.pem"

    def create(self) -> None:
        """Make the folders that are missing."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.root != self.folder:
            # Servers' users may pass through to the folder that is theirs, and list nothing.
            SHARED_ROOT.mkdir(mode=0o711, exist_ok=True)
            self.root.mkdir(mode=0o711, exist_ok=True)
            write_private(self.folder / "place", f"{self.root}\n")
        (self.folder / "log").mkdir(mode=0o700, exist_ok=True)
        (self.root / "data").mkdir(mode=0o711, exist_ok=True)
        for name in ("lock", "run", "state", "tls"):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)

    def log_file(self, name: str) -> Path:
        """Return the log of one process."""
        return self.folder / "log" / f"{name}.log"

    def pid_file(self, name: str) -> Path:
        """Return the pid file of one process."""
        return self.root / "run" / f"{name}.pid"

    def state_file(self, name: str) -> Path:
        """Return the file of what one server must find again, its passwords among it."""
        return self.root / "state" / f"{name}.json"

    def data(self, name: str) -> Path:
        """Return the folder that belongs to one server's user."""
        return self.root / "data" / name

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock `name` of this stack, waiting for whoever holds it now."""
        self.create()
        with (self.root / "lock" / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def remove(self) -> None:
        """Delete everything that a stack puts into its folders, and nothing else; its servers must be down."""
        if self.root != self.folder:
            shutil.rmtree(self.root, ignore_errors=True)
        for name in _KNOWN_ENTRIES:
            path = self.folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()


def private_folder(path: Path, owner: Account | None) -> None:
    """Make a folder that only `owner` (None: the caller) can enter."""
    path.mkdir(mode=0o700, exist_ok=True)
    if owner:
        os.chown(path, owner.uid, owner.gid)
    path.chmod(0o700)


def write_private(path: Path, content: str | bytes, owner: Account | None = None) -> None:
    """Replace a file in one step by one of mode 0600 that belongs to `owner` (None: the caller).

    The folder may belong to `owner`, so nothing in it is trusted: the new file gets a name that nobody can have
    planted a link under, and the rename does not follow one.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if owner:
                os.fchown(descriptor, owner.uid, owner.gid)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
