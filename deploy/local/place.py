"""Where a stack keeps its files.

A normal user's stack lies in the folder that was named. When root starts one, the servers run as the
unprivileged users of their Debian packages, who may not be able to enter that folder (a clone under /root): the
data then lies in /var/lib/strongroom-local under a hash of the folder's path, and the folder holds a file `place`
that says so.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deploy.local.accounts import write_private
from deploy.local.process import find

SHARED_ROOT = Path("/var/lib/strongroom-local")
_KNOWN_ENTRIES = ("ca.pem", "data", "lock", "log", "place", "run", "state", "tls")


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
        """Make the folders that are missing.

        A root without its folder's `place` file belongs to a folder that was deleted, passwords and keys with it:
        what still runs there is killed, and the data that nobody can use any more is removed.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self.root != self.folder:
            # Servers' users may pass through to the folder that is theirs, and list nothing.
            SHARED_ROOT.mkdir(mode=0o711, exist_ok=True)
            with _locked(SHARED_ROOT / "lock"):
                sign = self.folder / "place"
                if not sign.exists():
                    self._remove_root()
                    write_private(sign, f"{self.root}\n")
                self.root.mkdir(mode=0o711, exist_ok=True)
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
        with _locked(self.root / "lock" / name):
            yield

    def remove(self) -> None:
        """Delete everything that a stack puts into its folders, and nothing else; its servers must be down."""
        if self.root != self.folder:
            self._remove_root()
        for name in _KNOWN_ENTRIES:
            path = self.folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _remove_root(self) -> None:
        for pid_file in (self.root / "run").glob("*.pid"):
            if (running := find(pid_file)) is not None:
                running.kill()
        shutil.rmtree(self.root, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
