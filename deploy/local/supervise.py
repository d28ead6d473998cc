"""Keep one worker running: `python -m deploy.local.supervise PID_FILE -- COMMAND…`.

A worker ends itself in an unknown state and counts on being started again (ARCHITECTURE.md); in production systemd
or the container engine does that, here this does. SIGTERM ends the worker, then the supervisor.
"""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from deploy.local.process import of_pid, write_pid_file

DELAY_S_MIN, DELAY_S_MAX = 0.5, 15.0
STOP_TIMEOUT_S = 20.0
USAGE = 2


def next_delay_s(delay_s: float, lived_s: float) -> float:
    """Return the wait before the next start: twice as long each time, unless the worker lived for a while."""
    return DELAY_S_MIN if lived_s > DELAY_S_MAX else min(delay_s * 2, DELAY_S_MAX)


async def supervise(pid_file: Path, command: list[str]) -> None:
    """Start the command again whenever it ends, until SIGTERM or SIGINT; its pid is in `pid_file`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    delay_s = DELAY_S_MIN
    while not stop.is_set():
        began = loop.time()
        worker = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
        if (process := of_pid(worker.pid)) is not None:
            write_pid_file(pid_file, process)
        await _until_ended_or_stopped(worker, stop)
        if not stop.is_set():
            print(f"supervisor: the worker ended with {worker.returncode}, next start in {delay_s} s", flush=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), delay_s)
            delay_s = next_delay_s(delay_s, loop.time() - began)


async def _until_ended_or_stopped(worker: asyncio.subprocess.Process, stop: asyncio.Event) -> None:
    ended, stopping = asyncio.create_task(worker.wait()), asyncio.create_task(stop.wait())
    await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not ended.done():
        worker.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(ended), STOP_TIMEOUT_S)
        except TimeoutError:
            worker.kill()
            await ended


def main() -> int:
    """Run; return the exit code."""
    if len(sys.argv) < 4 or sys.argv[2] != "--":  # noqa: PLR2004 - program, file, dashes, command
        sys.stderr.write(f"{__doc__}\n")
        return USAGE
    asyncio.run(supervise(Path(sys.argv[1]), sys.argv[3:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
