"""PostgreSQL's own programs: where they are, as whom they run, and how a run of one ends."""

import asyncio
import os
import pwd
import re
import shutil
import stat
import subprocess
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self

from strongroom.errors import ConfigurationInvalid, StateCorrupt
from strongroom.fields import printable

VERSION_MIN: Final = 15
ROOT_FOLDER: Final = Path("/usr/lib/postgresql")
"""Where Debian has every version's programs, in `VERSION/bin`."""

_NEEDED: Final = ("initdb", "postgres", "psql", "pg_restore")
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "PGCONNECT_TIMEOUT": "30",
}
_MAJOR: Final = re.compile(r"\(PostgreSQL\) (\d+)")
_TELLING: Final = re.compile(r"(ERROR|error|FATAL|PANIC): +(.*)")
_SAID_CHARACTERS_MAX: Final = 300
_TERMINATE_SECONDS_MAX: Final = 30


def read_plain(path: Path, bytes_max: int) -> bytes:
    """Read the beginning of a file that somebody else may have put there: no link is followed, no pipe waited for.

    Raises OSError where no regular file is.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a Path cannot open a descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path} is no regular file")
        return file.read(bytes_max)


@dataclass(frozen=True, slots=True)
class ServerAccount:
    """The unprivileged user as whom root runs a server."""

    name: str
    uid: int
    gid: int

    def may_replace_in(self, folder: Path) -> bool:
        """Say whether this user could move away what another one owns in a folder. Raises OSError."""
        state = folder.stat()
        if state.st_uid == self.uid:
            return True
        groups = os.getgrouplist(self.name, self.gid)
        writes = state.st_mode & (stat.S_IWGRP if state.st_gid in groups else stat.S_IWOTH)
        return bool(writes) and not state.st_mode & stat.S_ISVTX

    @classmethod
    def find(cls, name: str | None) -> Self | None:
        """Return as whom the server runs: `name`, or else `postgres`; None, the caller, who is not root.

        Raises ConfigurationInvalid where that cannot be.
        """
        if os.geteuid() != 0:
            if name is not None and name != pwd.getpwuid(os.geteuid()).pw_name:
                raise ConfigurationInvalid(f"only root can run the server as {name}", hint="leave --as-user away")
            return None
        try:
            user = pwd.getpwnam(name or "postgres")
        except KeyError:
            raise ConfigurationInvalid(
                f"there is no user {name or 'postgres'}, and PostgreSQL refuses to run as root",
                hint="name an unprivileged user with --as-user",
            ) from None
        if user.pw_uid == 0:
            raise ConfigurationInvalid("PostgreSQL refuses to run as root", hint="name another user with --as-user")
        return cls(user.pw_name, user.pw_uid, user.pw_gid)


@dataclass(frozen=True, slots=True)
class Programs:
    """A folder with the programs of one PostgreSQL version."""

    folder: Path
    version: int

    @classmethod
    def find(cls, given: Path | None, *, version: int | None = None, root: Path = ROOT_FOLDER) -> Self:
        """Find the programs: in `given`, or else on PATH or below `root`, where the newest version counts.

        Arguments: `version` is the only major version that will do; None takes any from 15 on.
        Raises ConfigurationInvalid when they are not there.
        """
        folders = [given] if given is not None else _folders(root)
        found = [cls(folder, major) for folder in folders if (major := _major(folder))]
        fitting = [
            each for each in found if each.version in (version, each.version if version is None else version)
        ]
        fitting = [each for each in fitting if each.version >= VERSION_MIN]
        if fitting:
            return max(fitting, key=lambda each: each.version)
        wanted = f"PostgreSQL {version}" if version else f"PostgreSQL {VERSION_MIN} or later"
        have = ", ".join(f"{each.version} in {each.folder}" for each in found) or "none at all"
        raise ConfigurationInvalid(
            f"the programs of {wanted} are needed ({', '.join(_NEEDED)}), and there are {have}",
            hint=f"install {wanted}, or name the folder of its programs with --postgres-bin",
        )

    def path(self, program: str) -> str:
        """Return the path of one of the programs."""
        return str(self.folder / program)

    def has(self, program: str) -> bool:
        """Say whether a program is there that is not always needed."""
        return os.access(self.path(program), os.X_OK)


def _folders(root: Path) -> list[Path]:
    on_path = shutil.which("initdb")
    return [*([Path(on_path).resolve().parent] if on_path else []), *root.glob("[0-9]*/bin")]


def _major(folder: Path) -> int | None:
    """Return the version of the programs in a folder; None if one is missing."""
    if not all(os.access(folder / name, os.X_OK) for name in _NEEDED):
        return None
    said = subprocess.run(
        [folder / "postgres", "--version"], capture_output=True, text=True, check=False, env=_ENVIRONMENT
    ).stdout
    match = _MAJOR.search(said)
    return int(match[1]) if match else None


async def started(
    *argv: str,
    account: ServerAccount | None,
    folder: Path,
    stdin: BinaryIO | None = None,
    is_fed: bool = False,
    log: BinaryIO | None = None,
    at_our_death: str = "TERM",
) -> Process:
    """Start a program in a session of its own, out of reach of the terminal's Ctrl-C.

    Args:
        argv: the program and its arguments; no secret belongs here.
        account: who it runs as; None for the caller.
        folder: the working directory.
        stdin: what it reads; nothing if None, or what `ended` feeds to it.
        is_fed: whether `ended` will.
        log: gets all it says, instead of `ended`.
        at_our_death: the signal that it gets when this process is killed.

    Raises:
        ConfigurationInvalid: there is no such program, or it may not be run.
    """
    setpriv = shutil.which("setpriv")
    prefix: Sequence[str] = (setpriv, "--pdeathsig", at_our_death, "--") if setpriv else ()
    try:
        return await asyncio.create_subprocess_exec(
            *prefix,
            *argv,
            stdin=PIPE if is_fed else stdin or DEVNULL,
            stdout=log or DEVNULL,
            stderr=log or PIPE,
            cwd=folder,
            env={**_ENVIRONMENT, "HOME": str(folder)},
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            umask=0o077,
        )
    except OSError as error:
        raise ConfigurationInvalid(f"{argv[0]}: {error.strerror or type(error).__name__}") from None


async def ended(process: Process, blocks: Iterator[list[bytes]] | None = None) -> tuple[int, bytes]:
    """Wait for the end of a program that has no log; return its exit code and what it said on standard error.

    Arguments: `blocks` are lines that it gets to read. Cancelled, it ends the program first.
    """
    assert process.stderr is not None  # noqa: S101 - `started` made a pipe of it
    saying = asyncio.create_task(process.stderr.read())
    try:
        if blocks is not None and process.stdin is not None:
            await _feed(process.stdin, blocks)
        said = await saying
        return await process.wait(), said
    except BaseException:
        await stop(process)
        raise
    finally:
        saying.cancel()


async def _feed(stdin: asyncio.StreamWriter, blocks: Iterator[list[bytes]]) -> None:
    # A program that has ended does not read on; why it has is in what it said.
    with suppress(BrokenPipeError, ConnectionResetError):
        for block in blocks:
            stdin.writelines(block)
            await stdin.drain()
        stdin.close()
        await stdin.wait_closed()


async def stop(process: Process, *, by: int | None = None) -> None:
    """End a program by its process id: with signal `by` (default SIGTERM), or after a while by force."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate() if by is None else process.send_signal(by)
    try:
        async with asyncio.timeout(_TERMINATE_SECONDS_MAX):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def failed(program: str, said: bytes, folder: Path) -> StateCorrupt:
    """Return the error that says why a program failed, by the first line in which it complained."""
    lines = said.decode(errors="replace").splitlines()
    telling = next((match[2] for line in lines if (match := _TELLING.search(line))), lines[-1] if lines else "")
    hint = None
    if "No space left on device" in "\n".join(lines):
        hint = f"make room on the disk of {folder.parent}, or name another folder with --work-dir"
    sentence = printable(telling)[:_SAID_CHARACTERS_MAX] or "it said nothing"
    return StateCorrupt(f"{Path(program).name} failed: {sentence}", hint=hint)
