"""A PostgreSQL server of one folder, which nobody reaches but through a socket in there.

What it serves may have been written by an adversary, so nothing of the settings that came with it holds, and what
is loaded into it runs as a role without rights outside of its own database. Run as root, two folders are
the server's account's own, its data and its socket: what else there is belongs to root, in a folder of root's, for
whoever owns a folder chooses where a name in it leads.
"""

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGINT
from tempfile import mkdtemp
from typing import BinaryIO, Final
from urllib.parse import quote, urlencode

from strongroom.errors import ConfigurationInvalid
from strongroom_recovery.drill.postgres_programs import (
    Programs,
    ServerAccount,
    ended,
    failed,
    read_plain,
    started,
    stop,
)

FOLDER_PREFIX: Final = "strongroom-drill-"
SUPERUSER: Final = "postgres"
PORT: Final = "5432"

_SOCKET_PATH_BYTES_MAX: Final = 107  # sockaddr_un(7)
_READY_LINE: Final = 7  # of postmaster.pid
_PID_FILE_BYTES_MAX: Final = 4096
_SOCKET: Final = "socket"
_LOOK_SECONDS: Final = 0.05

_SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": PORT,
    "ssl": "off",
    "max_connections": "20",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "4GB",
    "autovacuum": "off",
    "archive_mode": "off",
    "restore_command": "",
    "archive_cleanup_command": "",
    "recovery_end_command": "",
    "primary_conninfo": "",
    "hot_standby": "off",
    "shared_preload_libraries": "",
    "session_preload_libraries": "",
    "local_preload_libraries": "",
    # Lost with the process at worst, and it starts over then.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    # No value out of a row or a statement goes to the log.
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_statement": "none",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class TemporaryServer:
    """A server below a `temporary_folder`: its log, its socket and, unless `data` is another place, its cluster.

    settings: what the server is told, over everything else; add to it before `running`.
    """

    def __init__(self, programs: Programs, account: ServerAccount | None, folder: Path) -> None:
        """Name everything; nothing is run yet."""
        self.programs = programs
        self.account = account
        self.folder = folder
        self.data = folder / "data"
        self.socket = folder / _SOCKET
        self.settings = {
            **_SETTINGS,
            "unix_socket_directories": str(self.socket),
            "hba_file": str(folder / "hba.conf"),
            "ident_file": str(folder / "ident.conf"),
        }

    def url(self, user: str, database: str) -> str:
        """Return the URL by which a role reaches a database; there is no password."""
        query = urlencode({"host": str(self.socket), "port": PORT})
        return f"postgresql://{quote(user)}@/{quote(database, safe='')}?{query}"

    def write(self, name: str, content: str) -> None:
        """Make a file in the folder that the server may read and not change. Raises OSError where something is."""
        with _created(self.folder / name) as file:
            if self.account is not None:
                os.fchown(file.fileno(), -1, self.account.gid)
            os.fchmod(file.fileno(), 0o640)
            file.write(content.encode())

    async def initdb(self) -> None:
        """Make an empty cluster; raises StateCorrupt."""
        _make_folder(self.data, self.account)
        options = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions")
        await self.run("initdb", f"--pgdata={self.data}", f"--username={SUPERUSER}", *options)

    async def run(self, program: str, *arguments: str, stdin: BinaryIO | None = None) -> None:
        """Run one of PostgreSQL's programs to its end; raises StateCorrupt with what it complained of."""
        process = await started(
            self.programs.path(program), *arguments, account=self.account, folder=self.folder, stdin=stdin
        )
        code, said = await ended(process)
        if code:
            raise failed(program, said, self.folder)

    async def sql(self, user: str, database: str, script: str) -> None:
        """Run SQL of our own. Raises StateCorrupt."""
        await self._psql(user, database, iter([[script.encode()]]))

    async def foreign_sql(self, user: str, database: str, blocks: Iterator[list[bytes]]) -> None:
        r"""Run SQL of somebody else, lines in blocks, with every command of psql itself forbidden (`\restrict`).

        Raises StateCorrupt, naming `\restrict` where psql is too old to know it.
        """

        def restricted() -> Iterator[list[bytes]]:
            yield [b"\\restrict " + secrets.token_hex(16).encode() + b"\n"]
            yield from blocks

        await self._psql(user, database, restricted())

    async def _psql(self, user: str, database: str, blocks: Iterator[list[bytes]]) -> None:
        options = ("-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-h", str(self.socket), "-p", PORT)
        argv = (self.programs.path("psql"), *options, "-U", user, "-d", database)
        process = await started(*argv, account=self.account, folder=self.folder, is_fed=True)
        code, said = await ended(process, blocks)
        if code:
            raise failed("psql", said, self.folder)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start the server, wait until it takes connections, however long, and stop it when the block ends.

        Raises StateCorrupt when it ends instead.
        """
        self.write("hba.conf", "local all all trust\n")
        self.write("ident.conf", "")
        log_file = self.folder / "server.log"
        options = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        argv = (self.programs.path("postgres"), "-D", str(self.data), *options)
        with _created(log_file) as log:
            # SIGINT is a fast shutdown; at SIGTERM it would wait for its clients to leave.
            process = await started(*argv, account=self.account, folder=self.folder, log=log, at_our_death="INT")
        try:
            while not self._is_ready(process.pid):
                if process.returncode is not None:
                    raise failed("the PostgreSQL server", log_file.read_bytes(), self.folder)
                await asyncio.sleep(_LOOK_SECONDS)
            yield
        finally:
            await stop(process, by=SIGINT)

    def _is_ready(self, pid: int) -> bool:
        """Read the postmaster's own file: its first line is the pid, its eighth the status."""
        try:
            content = read_plain(self.data / "postmaster.pid", _PID_FILE_BYTES_MAX)
        except OSError:
            return False
        lines = content.decode(errors="replace").splitlines()
        return len(lines) > _READY_LINE and lines[0] == str(pid) and lines[_READY_LINE].strip() == "ready"


@asynccontextmanager
async def temporary_folder(below: Path, account: ServerAccount | None, *, keep: bool) -> AsyncIterator[Path]:
    """Make a folder of the caller's with one for the socket in it; at the end remove it with everything in it.

    Raises ConfigurationInvalid where a server could not work in there, or its account could put another folder in
    the place of this one.
    """
    try:
        place = await asyncio.to_thread(below.resolve)
        _check_kept_from(place, account)
        folder = Path(mkdtemp(prefix=FOLDER_PREFIX, dir=place))
    except OSError as error:
        raise ConfigurationInvalid(
            f"{below}: {error.strerror or type(error).__name__}", hint="name a folder to work in with --work-dir"
        ) from None
    is_used = False
    try:
        _make_folder(folder / _SOCKET, account)
        let_in(folder, account)
        await _check_usable(folder, account)
        is_used = True
        yield folder
    finally:
        if not (keep and is_used):
            shutil.rmtree(folder, ignore_errors=True)


def let_in(folder: Path, account: ServerAccount | None) -> None:
    """Let the server's account reach its own in a folder of root's, and neither list nor change that folder."""
    folder.chmod(0o700 if account is None else 0o711)


def _created(path: Path) -> BinaryIO:
    """Open a file that was not there, not even as a link, for the caller alone. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return open(descriptor, "wb")  # noqa: PTH123 - a Path cannot open a descriptor


def _make_folder(path: Path, account: ServerAccount | None) -> None:
    path.mkdir(mode=0o700)
    if account is not None:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def _check_kept_from(place: Path, account: ServerAccount | None) -> None:
    for each in (place, *place.parents):
        if account is not None and account.may_replace_in(each):
            raise ConfigurationInvalid(
                f"{each}: {account.name}, who runs the server, could put another folder in the place of ours",
                hint="name another folder with --work-dir, e.g. /var/tmp",
            )


async def _check_usable(folder: Path, account: ServerAccount | None) -> None:
    if len(os.fsencode(folder / _SOCKET / f".s.PGSQL.{PORT}.lock")) > _SOCKET_PATH_BYTES_MAX:
        raise ConfigurationInvalid(
            f"{folder.parent}: this path is too long for a Unix socket", hint="name a shorter one with --work-dir"
        )
    code, _ = await ended(await started("test", "-w", str(folder / _SOCKET), account=account, folder=Path("/")))
    if code:
        raise ConfigurationInvalid(
            f"{folder.parent}: {account.name if account else 'the caller'}, who runs the server, cannot enter it",
            hint="name another folder with --work-dir, e.g. /var/tmp",
        )
