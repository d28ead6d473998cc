"""A backup, restored for as long as somebody looks at it.

A backup was written by whoever owned the database, and to restore it is to run what he wrote. So a dump is loaded
by a role that owns one database and is no superuser, and a cluster is started on a copy, without its own settings.
Run as root, all of it happens as another account, which can read no key file.
"""

import asyncio
import os
import shlex
import stat
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from strongroom.errors import ConfigurationInvalid, StateCorrupt
from strongroom_recovery.drill.postgres_programs import (
    Programs,
    ServerAccount,
    ended,
    failed,
    read_plain,
    started,
)
from strongroom_recovery.drill.temporary_server import SUPERUSER, TemporaryServer, let_in, temporary_folder

DATABASE: Final = "strongroom"

_OWNER: Final = "strongroom_owner"
_READER: Final = "strongroom_recovery"
_HEAD_BYTES: Final = 512
_TAIL_BYTES: Final = 4096
_BLOCK_BYTES: Final = 1 << 20
_VERSION_BYTES_MAX: Final = 16
_COMPLETE: Final = b"\n-- PostgreSQL database dump complete\n"
_PACKED: Final = {
    b"\x1f\x8b": "gunzip",
    b"\x28\xb5\x2f\xfd": "unzstd",
    b"\xfd7zXZ": "unxz",
    b"\x04\x22\x4d\x18": "unlz4",
}
_PREPARE: Final = f"""
CREATE ROLE {_OWNER} LOGIN;
CREATE ROLE strongroom_escrow;
CREATE ROLE {_READER};
CREATE ROLE strongroom_auditor;
CREATE DATABASE {DATABASE} OWNER {_OWNER} TEMPLATE template0 ENCODING 'UTF8';
"""

# The server reads postgresql.auto.conf whatever else it is told. Arguments: the cluster, and a file to make there.
_TAKE_SETTINGS_AWAY: Final = """
cd -- "$1" && rm -f -- standby.signal recovery.signal postgresql.auto.conf || exit
set -C
for each in postgresql.auto.conf $2; do : > "$each" || exit; done
"""

Say: TypeAlias = Callable[[str], None]
"""Takes a few words on what is being done now."""


@dataclass(frozen=True, slots=True)
class Dump:
    """A file of pg_dump: custom, tar or plain format."""

    path: Path


@dataclass(frozen=True, slots=True)
class Cluster:
    """A folder of pg_basebackup in plain format.

    wal: a folder of archived write-ahead log to replay to its end; None replays what the backup itself brings.
    in_place: start the server on the folder itself, which is no backup afterwards. database: its name in there.
    """

    path: Path
    wal: Path | None = None
    in_place: bool = False
    database: str = DATABASE


@dataclass(frozen=True, slots=True)
class Place:
    """Where and as whom to restore.

    folder: below it a folder is made. programs: folder of PostgreSQL's programs; None looks for them. account: who
    runs the server when the caller is root; None is `postgres`. keep: leave the folder when all is done.
    """

    folder: Path
    programs: Path | None = None
    account: str | None = None
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored database: its URL, the seconds that restoring took, and where it is.

    complaint: what PostgreSQL's tools found wrong with the backup although it could be restored.
    """

    url: str
    seconds: float
    folder: Path
    complaint: str | None = None


@asynccontextmanager
async def restored(source: Dump | Cluster, place: Place, say: Say) -> AsyncIterator[Restored]:
    """Restore a backup and serve it through a private socket; at the end stop the server and remove everything.

    The server ends with this process, whatever ends that; the folder outlives only a process that was killed.

    Raises:
        ConfigurationInvalid: this is no such backup, or what restoring needs is not there; nothing was started.
        StateCorrupt: it cannot be restored; says what the program said.
    """
    began = time.monotonic()
    account = ServerAccount.find(place.account)
    if isinstance(source, Dump):
        is_archive = await asyncio.to_thread(_check_dump, source.path)
        programs = await asyncio.to_thread(Programs.find, place.programs)
    else:
        is_archive = False
        version = await asyncio.to_thread(_check_cluster, source)
        programs = await asyncio.to_thread(lambda: Programs.find(place.programs, version=version))
    async with temporary_folder(place.folder, account, keep=place.keep) as folder:
        server = TemporaryServer(programs, account, folder)
        if isinstance(source, Dump):
            say("Making an empty cluster")
            await server.initdb()
            async with server.running():
                say("Loading the dump")
                await server.sql(SUPERUSER, "postgres", _PREPARE)
                complaint = await _load(source.path, server, is_archive=is_archive)
                yield Restored(server.url(_OWNER, DATABASE), time.monotonic() - began, folder, complaint)
        else:
            complaint = await _prepare(source, server, say)
            say("Starting, and replaying the write-ahead log")
            async with server.running():
                await _check_enters(server, source.database)
                yield Restored(server.url(_READER, source.database), time.monotonic() - began, folder, complaint)


# ---- dumps ---------------------------------------------------------------------------------------------


def _check_dump(path: Path) -> bool:
    """Return whether a file is one for pg_restore, and not for psql; raise for one that is no whole dump."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            tail = file.read()
    except OSError as error:
        raise ConfigurationInvalid(
            f"{path}: {error.strerror or type(error).__name__}", hint="name a file that pg_dump has written"
        ) from None
    if head.startswith(b"PGDMP") or head[257:262] == b"ustar":
        return True
    for magic, program in _PACKED.items():
        if head.startswith(magic):
            raise ConfigurationInvalid(f"{path}: is packed", hint=f"first: {program} {shlex.quote(str(path))}")
    if b"-- PostgreSQL database cluster dump" in head:
        raise ConfigurationInvalid(
            f"{path}: is a dump of a whole cluster", hint="make one of the database: pg_dump --format=custom"
        )
    if b"-- PostgreSQL database dump" not in head:
        raise ConfigurationInvalid(f"{path}: is no dump of PostgreSQL", hint="name a file that pg_dump has written")
    if _COMPLETE not in tail:
        raise StateCorrupt(f"{path}: the dump is not whole, its end is missing", hint="take another backup")
    return False


async def _load(path: Path, server: TemporaryServer, *, is_archive: bool) -> str | None:
    """Load a dump, as a role that can do nothing outside of its own database.

    Return what is wrong with rows that were loaded all the same: they break a constraint.
    """
    try:
        with path.open("rb") as file:
            if not is_archive:
                await server.foreign_sql(_OWNER, DATABASE, _without_restrictions(file))
                return None
            for section in ("pre-data", "data"):
                await _load_section(section, file, server, "--exit-on-error")
            try:
                await _load_section("post-data", file, server)
            except StateCorrupt as error:
                if error.hint is not None:
                    raise
                return error.message
            return None
    except StateCorrupt as error:
        if "\\restrict" in error.message:
            raise ConfigurationInvalid(
                "this psql cannot be kept from running commands that stand in a plain dump",
                hint="install the newest minor release of PostgreSQL, or make the dump with --format=custom",
            ) from None
        hint = error.hint or "was it made of Strongroom's database alone, with `pg_dump --format=custom`?"
        if " violates " in error.message:
            hint = "its rows contradict each other: try another backup, and find out who changed the database"
        raise StateCorrupt(f"{path}: {error.message}", hint=hint) from None


async def _load_section(section: str, file: BinaryIO, server: TemporaryServer, *options: str) -> None:
    file.seek(0)
    target = (f"--host={server.socket}", f"--username={_OWNER}", f"--dbname={DATABASE}", "--no-password")
    options = ("--no-owner", "--no-privileges", f"--section={section}", *options)
    await server.run("pg_restore", *options, *target, stdin=file)


def _without_restrictions(file: BinaryIO) -> Iterator[list[bytes]]:
    r"""Give the lines of a plain dump in blocks, without its own `\restrict` and `\unrestrict`: ours holds."""
    is_in_rows = False
    while lines := file.readlines(_BLOCK_BYTES):
        kept = []
        for line in lines:
            # A row may begin with `\r`, which stands for a carriage return; none begins with `\u`.
            is_in_rows = is_in_rows or line.startswith(b"COPY ")
            if not line.startswith(b"\\unrestrict " if is_in_rows else (b"\\restrict ", b"\\unrestrict ")):
                kept.append(line)
        yield kept


# ---- clusters ------------------------------------------------------------------------------------------


def _check_cluster(source: Cluster) -> int:
    """Return the major version of a base backup; raise ConfigurationInvalid for what is none that can be taken."""
    path = source.path
    version = None
    # All of it is looked at before any of it is read.
    if _is_plain(path / "PG_VERSION"):
        if os.path.lexists(path / "postmaster.pid"):
            raise ConfigurationInvalid(
                f"{path}: a server runs on this folder, or it was copied from under one",
                hint="make a copy with pg_basebackup, which is whole",
            )
        _check_files(path)
        with suppress(OSError, ValueError):
            version = int(read_plain(path / "PG_VERSION", _VERSION_BYTES_MAX))
    if version is None:
        hint = "name a folder that pg_basebackup has written"
        if any(path.glob("base.tar*")):
            hint = "unpack base.tar into a folder, and pg_wal.tar into its folder pg_wal"
        raise ConfigurationInvalid(f"{path}: is no base backup in plain format", hint=hint)
    if source.wal is not None and not source.wal.is_dir():
        raise ConfigurationInvalid(f"{source.wal}: is no folder", hint="name the folder of the archived segments")
    return version


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _check_files(path: Path) -> None:
    """Raise ConfigurationInvalid where something below a folder is neither a regular file nor a folder."""
    for place, folders, files in os.walk(path):
        for each in (Path(place, name) for name in (*folders, *files)):
            mode = each.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise ConfigurationInvalid(
                    f"{each}: is a link (a tablespace?), and the server would write to where it leads",
                    hint="restore this backup yourself, and name the database with --database-url-file",
                )
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise ConfigurationInvalid(
                    f"{each}: is a device, a pipe or a socket, and pg_basebackup writes none",
                    hint="take another backup, and find out who put it there",
                )


async def _prepare(source: Cluster, server: TemporaryServer, say: Say) -> str | None:
    """Bring a cluster to where the server may write to it, and take its own settings away from it.

    Return how its files differ from the backup's own manifest, if they do.
    """
    if source.in_place:
        server.data = source.path.absolute()
        _check_owner(server)
    else:
        say("Copying the cluster")
        await _copy(source.path, server)
    complaint = await _manifest_complaint(source, server, say)
    server.write("postgresql.conf", "")
    server.settings["config_file"] = str(server.folder / "postgresql.conf")
    if source.wal is not None:
        archive = source.wal.absolute()
        await _check_readable(archive, server.account)
        server.settings["restore_command"] = f'cp -- {shlex.quote(str(archive)).replace("%", "%%")}/%f "%p"'
    argv = ("sh", "-c", _TAKE_SETTINGS_AWAY, "sh", str(server.data), "recovery.signal" if source.wal else "")
    code, said = await ended(await started(*argv, account=server.account, folder=server.folder))
    if code:
        raise failed("sh", said, server.folder)
    return complaint


async def _copy(path: Path, server: TemporaryServer) -> None:
    # Nobody else reaches the copy until it is given away: its files keep the modes that somebody chose.
    server.folder.chmod(0o700)
    source = await asyncio.to_thread(path.absolute)
    argv = ("cp", "--reflink=auto", "-a", "--", f"{source}/.", str(server.data))
    code, said = await ended(await started(*argv, account=None, folder=server.folder))
    if code:
        raise failed("cp", said, server.folder)
    await asyncio.to_thread(_check_files, server.data)
    if server.account is not None:
        await asyncio.to_thread(_give, server.data, server.account)
    server.data.chmod(0o700)
    let_in(server.folder, server.account)


async def _manifest_complaint(source: Cluster, server: TemporaryServer, say: Say) -> str | None:
    if not ((server.data / "backup_manifest").exists() and server.programs.has("pg_verifybackup")):
        return None
    say("Comparing the files with the backup's manifest")
    # With an archive, the segments need not be in the backup itself.
    options = ("--quiet", "--exit-on-error", *(("--no-parse-wal",) if source.wal else ()))
    try:
        await server.run("pg_verifybackup", *options, str(server.data))
    except StateCorrupt as error:
        return error.message
    return None


def _check_owner(server: TemporaryServer) -> None:
    if server.data.stat().st_uid != (server.account.uid if server.account else os.geteuid()):
        who = server.account.name if server.account else "the caller"
        raise ConfigurationInvalid(
            f"{server.data}: does not belong to {who}, who would run the server",
            hint=f"chown -R it to {who}; or leave --in-place away, then a copy is used",
        )


def _give(path: Path, account: ServerAccount) -> None:
    for place, _, files in os.walk(path):
        for each in (Path(place), *(Path(place, name) for name in files)):
            os.chown(each, account.uid, account.gid, follow_symlinks=False)


async def _check_readable(archive: Path, account: ServerAccount | None) -> None:
    # To the server, a segment that cannot be read is the end of the archive: it would stop there and say nothing.
    argv = ("sh", "-c", 'cd -- "$1" && for each in *; do test -r "$each" || exit 1; done', "sh", str(archive))
    code, _ = await ended(await started(*argv, account=account, folder=Path("/")))
    if code:
        who = account.name if account else "the caller"
        raise ConfigurationInvalid(
            f"{archive}: {who}, who runs the server, cannot read all of it",
            hint=f"give the folder and the files in it to {who}, or make a copy that is",
        )


async def _check_enters(server: TemporaryServer, database: str) -> None:
    try:
        await server.sql(_READER, database, "SELECT 1;")
    except StateCorrupt as error:
        raise ConfigurationInvalid(
            f"the role {_READER} cannot enter the database {database} of this cluster: {error.message}",
            hint="name the database with --database, if it has another name",
        ) from None
