"""Background processes that are known by their pid file: started, found again, waited for, stopped.

A pid alone names nobody: the kernel gives it out again. A process is therefore known by its pid, the kernel's
start time of that pid and the boot it was read in, and it is signalled through a pidfd that was opened before
the check, so that a stranger who got the pid later is never hit (pidfd_open(2), proc_pid_stat(5)).
"""

import os
import select
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGSTOP, Signals, pidfd_send_signal, signal
from types import FrameType

from deploy.local.accounts import Account, identity, write_private

_KILL_TIMEOUT_S = 30
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# The child reports its own stat line and then becomes the program: same pid, same start time.
_BECOME = 'read -r line </proc/$$/stat && printf "%s\\n" "$line" && exec "$@" >&2'


@dataclass(frozen=True, slots=True)
class Process:
    """One process of this boot: its pid and its start time in clock ticks since the boot."""

    pid: int
    started_ticks: int

    def alive(self) -> bool:
        """Tell whether any of its threads still runs; a zombie does not."""
        return not self.wait_gone(0)

    def send(self, number: Signals) -> None:
        """Send a signal to this process, or do nothing when it has ended."""
        with _pidfd(self) as descriptor:
            if descriptor is not None:
                with suppress(ProcessLookupError):
                    pidfd_send_signal(descriptor, number)

    def wait_gone(self, timeout_s: float) -> bool:
        """Wait for its end; False when it still runs after `timeout_s` seconds.

        The end is that of its last thread: until then its ports stay taken, although the state in /proc, which is
        that of the first thread, may say zombie already (pidfd_open(2)).
        """
        with _pidfd(self) as descriptor:
            if descriptor is None:
                return True
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            return bool(poller.poll(timeout_s * 1000))

    def tree(self) -> list["Process"]:
        """Return this process, if it runs, and everything that descends from it."""
        children: dict[int, list[Process]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and (stat := _stat(int(entry.name))) is not None:
                children.setdefault(stat.parent, []).append(Process(int(entry.name), stat.started_ticks))
        found = [self] if self.alive() else []
        for process in found:
            found.extend(children.get(process.pid, []))
        return found

    def stop(self, number: Signals, timeout_s: float) -> None:
        """Ask it to end and wait `timeout_s` seconds; whatever of its tree is left then is killed."""
        tree = self.tree()
        self.send(number)
        self.wait_gone(timeout_s)
        _kill_all(tree)

    def kill(self) -> None:
        """SIGKILL it and everything that descends from it; none of them gets to see another one die."""
        self.send(SIGSTOP)
        _kill_all(self.tree())


def launch(
    argv: Sequence[str],
    *,
    pid_file: Path,
    log_file: Path,
    folder: Path,
    environment: Mapping[str, str],
    account: Account | None = None,
) -> Process:
    """Start a process in a session of its own that outlives this one, and write its pid file.

    Args:
        argv: the program and its arguments; no secret belongs here.
        pid_file: replaced by "pid ticks boot-id".
        log_file: gets stdout and stderr, appended, mode 0600.
        folder: the working directory.
        environment: the whole environment.
        account: who it runs as; None for the caller.

    Raises:
        OSError: a file cannot be written, or the user cannot be changed to.
    """
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        with _uninterrupted():
            report = subprocess.run(
                ["setsid", "--fork", "sh", "-c", _BECOME, "sh", *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env=dict(environment),
                umask=0o077,
                check=True,
                start_new_session=True,  # out of reach of the terminal's Ctrl-C from the first moment on
                **identity(account),
            ).stdout.decode()
            process = Process(int(report.split(" ", 1)[0]), _parse_stat(report).started_ticks)
            write_pid_file(pid_file, process)
    finally:
        os.close(log)
    return process


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put a Ctrl-C off to the end of the block: between a start and its pid file it would leave an unknown process.

    Python interrupts the main thread alone, so in others there is nothing to put off.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    former = signal(SIGINT, remember)
    try:
        yield
    finally:
        signal(SIGINT, former)
    if came:
        raise KeyboardInterrupt


def write_pid_file(pid_file: Path, process: Process) -> None:
    """Write "pid ticks boot-id"."""
    boot_id = _BOOT_ID.read_text().strip()
    write_private(pid_file, f"{process.pid} {process.started_ticks} {boot_id}\n")


def find(pid_file: Path) -> Process | None:
    """Return the running process that a pid file speaks of; None when it ended or the file says nothing."""
    try:
        pid, ticks, boot_id = pid_file.read_text().split()
        process = Process(int(pid), int(ticks))
    except (FileNotFoundError, ValueError):
        return None
    return process if boot_id == _BOOT_ID.read_text().strip() and process.alive() else None


def of_pid(pid: int) -> Process | None:
    """Return the process that has this pid now, or None."""
    stat = _stat(pid)
    return None if stat is None else Process(pid, stat.started_ticks)


def this_process() -> Process:
    """Return the caller.

    Raises:
        FileNotFoundError: /proc is not there.
    """
    process = of_pid(os.getpid())
    if process is None:
        raise FileNotFoundError("/proc is not mounted: without it processes cannot be told apart")
    return process


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    started_ticks: int


def _parse_stat(line: str) -> _Stat:
    fields = line.rpartition(")")[2].split()  # the second field is a name that may hold blanks and brackets
    return _Stat(int(fields[1]), int(fields[19]))


def _stat(pid: int) -> _Stat | None:
    try:
        return _parse_stat(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    except (FileNotFoundError, ProcessLookupError):
        return None


@contextmanager
def _pidfd(process: Process) -> Iterator[int | None]:
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        stat = _stat(process.pid)
        yield descriptor if stat is not None and stat.started_ticks == process.started_ticks else None
    finally:
        os.close(descriptor)


def _kill_all(processes: Sequence[Process]) -> None:
    for process in processes:
        process.send(SIGKILL)
    for process in processes:
        if not process.wait_gone(_KILL_TIMEOUT_S):
            raise TimeoutError(f"process {process.pid} does not end, not even by SIGKILL")
