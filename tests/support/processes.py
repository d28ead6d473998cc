"""What the kernel tells of processes, any of which may end while it is asked (proc(5)).

A read of a process that has ended meanwhile fails with ENOENT or ESRCH; here that is an answer, or a failed test
that says which process it was.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import SIGCONT, SIGSTOP, Signals

from tests.support.waiting import until

_PROC = Path("/proc")


def command_lines() -> Iterator[bytes]:
    """Return the words of every process that runs now, each word with a NUL byte behind it."""
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                yield (entry / "cmdline").read_bytes()


def open_files(pid: int) -> list[str]:
    """Return where the descriptors of a process lead; one that is closed meanwhile is left out.

    Raises PermissionError where nobody may look.
    """
    found = []
    for descriptor in (_PROC / str(pid) / "fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return found


def is_stopped(pid: int) -> bool:
    """Say whether SIGSTOP has taken effect; AssertionError when the process has ended."""
    return _status(pid)["State"].startswith("T")


def is_pending(pid: int, number: Signals) -> bool:
    """Say whether a signal waits to be delivered to a process; AssertionError when it has ended."""
    return bool(int(_status(pid)["ShdPnd"], 16) & 1 << number - 1)


@asynccontextmanager
async def stopped(pid: int) -> AsyncIterator[None]:
    """Keep a process from running until the end of the block; what is sent to it in there stays pending.

    A signal is only queued when `kill` returns. Of several that wait, the kernel delivers the one with the lowest
    number first: before the stop has taken effect, SIGINT would overtake it.
    """
    os.kill(pid, SIGSTOP)
    try:
        await until(lambda: is_stopped(pid), f"process {pid} is stopped")
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, SIGCONT)


def _status(pid: int) -> dict[str, str]:
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        raise AssertionError(f"process {pid} has ended") from None
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
