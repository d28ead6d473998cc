"""A PostgreSQL server of one folder, which nobody reaches but through a socket in there.

What it serves may have been written by an adversary, so nothing of the settings that came with it holds, and what
is loaded into it runs as a role without rights outside of its own database.
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
from strongroom_recovery.drill.postgres_programs import Programs, ServerAccount, ended, failed, started, stop

FOLDER_PREFIX: Final = "strongroom-drill-"
SUPERUSER: Final = "postgres"
PORT: Final = "5432"

_SOCKET_PATH_BYTES_MAX: Final = 107  # sockaddr_un(7)
_READY_LINE: Final = 7  # of postmaster.pid
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
    """A server below `folder`: its log, its socket, and, unless `data` is set to another place, its cluster.

    settings: what the server is told, over everything else; add to it before `running`.
    """

    def __init__(self, programs: Programs, account: ServerAccount | None, folder: Path) -> None:
        """Name everything; nothing is run yet."""
        self.programs = programs
        self.account = account
        self.folder = folder
        self.data = folder / "data"
        self.settings = {
            **_SETTINGS,
            "unix_socket_directories": str(folder),
            "hba_file": str(folder / "hba.conf"),
            "ident_file": str(folder / "ident.conf"),
        }

    def url(self, user: str, database: str) -> str:
        """Return the URL by which a role reaches a database; there is no password."""
        query = urlencode({"host": str(self.folder), "port": PORT})
        return f"postgresql://{quote(user)}@/{quote(database, safe='')}?{query}"

    def write(self, path: Path, content: str) -> None:
        """Write a file that belongs to the server, in the place of what is there."""
        path.unlink(missing_ok=True)
        path.write_text(content)
        path.chmod(0o600)
        if self.account is not None:
            os.chown(path, self.account.uid, self.account.gid)

    async def initdb(self) -> None:
        """Make an empty cluster; raises StateCorrupt."""
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
        options = ("-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1", "-h", str(self.folder), "-p", PORT)
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
        self.write(self.folder / "hba.conf", "local all all trust\n")
        self.write(self.folder / "ident.conf", "")
        log_file = self.folder / "server.log"
        options = [word for name, value in self.settings.items() for word in ("-c", f"{name}={value}")]
        argv = (self.programs.path("postgres"), "-D", str(self.data), *options)
        with log_file.open("wb") as log:
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
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > _READY_LINE and lines[0] == str(pid) and lines[_READY_LINE].strip() == "ready"


@asynccontextmanager
async def temporary_folder(below: Path, account: ServerAccount | None, *, keep: bool) -> AsyncIterator[Path]:
    """Make a folder that the server's account alone may enter, and remove it with everything in it at the end.

    Raises ConfigurationInvalid where a server could not work in there.
    """
    try:
        folder = Path(mkdtemp(prefix=FOLDER_PREFIX, dir=await asyncio.to_thread(below.absolute)))
    except OSError as error:
        raise ConfigurationInvalid(
            f"{below}: {error.strerror or type(error).__name__}", hint="name a folder to work in with --work-dir"
        ) from None
    is_used = False
    try:
        if account is not None:
            os.chown(folder, account.uid, account.gid)
        await _check_usable(folder, account)
        is_used = True
        yield folder
    finally:
        if not (keep and is_used):
            shutil.rmtree(folder, ignore_errors=True)


async def _check_usable(folder: Path, account: ServerAccount | None) -> None:
    if len(os.fsencode(folder / f".s.PGSQL.{PORT}.lock")) > _SOCKET_PATH_BYTES_MAX:
        raise ConfigurationInvalid(
            f"{folder.parent}: this path is too long for a Unix socket", hint="name a shorter one with --work-dir"
        )
    code, _ = await ended(await started("test", "-w", str(folder), account=account, folder=Path("/")))
    if code:
        raise ConfigurationInvalid(
            f"{folder.parent}: {account.name if account else 'the caller'}, who runs the server, cannot enter it",
            hint="name another folder with --work-dir, e.g. /var/tmp",
        )
