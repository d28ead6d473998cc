"""What every long-running process does the same way: signals, backing off, the health file, the exit code."""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

from strongroom.errors import ExitCode, FatalError, StrongroomError, TransientError
from strongroom.hardening import harden_process
from strongroom.logs import get_logger

BACKOFF_SECONDS_MIN: Final = 0.5
BACKOFF_SECONDS_MAX: Final = 30.0
HEARTBEAT_SECONDS: Final = 15.0

# The broker takes messages back after 30 minutes without acknowledgement, and counts that as a failed delivery.
IN_HAND_SECONDS_MAX: Final = 900.0

T = TypeVar("T")


class Health:
    """The health file: one JSON line with the time of the last sign of life and what it was.

    A container's health check looks at its age: `strongroom doctor --health FILE`. Without a path nothing is
    written. It says that the loop turns; it does not say that servers are there, or an outage of the
    database would make the orchestrator kill every worker.
    """

    def __init__(self, path: Path | None) -> None:
        """Keep the path; the folder must exist."""
        self._path = path

    def beat(self, outcome: str) -> None:
        """Replace the file atomically; `outcome` is a short word such as `stored` or `waiting`."""
        if self._path is None:
            return
        line = json.dumps({"time": int(time.time()), "outcome": outcome, "pid": os.getpid()})
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.write_text(line + "\n")
        fresh.replace(self._path)


async def keep_running(round_: Callable[[], Awaitable[None]], stop: asyncio.Event, health: Health) -> None:
    """Call `round_` (connect, work until something breaks) again and again until `stop` is set.

    A TransientError ends a round, not the process: the next one starts after a growing, fully jittered delay,
    which begins anew after a round that lasted longer than the longest delay. Everything else leaves through here.
    """
    attempt = 0
    while not stop.is_set():
        began = time.monotonic()
        try:
            await round_()
        except TransientError as error:
            attempt = 0 if time.monotonic() - began > BACKOFF_SECONDS_MAX else attempt + 1
            delay = _jittered(attempt)
            _tell(error, attempt, delay)
            health.beat("waiting")
            await unless_stopped(stop, asyncio.sleep(delay), delay)


async def patiently(work: Callable[[], Awaitable[T]], stop: asyncio.Event, health: Health) -> T:
    """Do work that holds messages in hand until it succeeds, through outages, and return what it returns.

    Messages that are given back count against their delivery limit; so they are kept while a TransientError is
    retried with a growing, fully jittered delay. Raises that error after `IN_HAND_SECONDS_MAX`, or once `stop`
    is set; the broker delivers the messages again then. Every other error leaves at once.
    """
    deadline = time.monotonic() + IN_HAND_SECONDS_MAX
    for attempt in count(1):
        try:
            return await work()
        except TransientError as error:
            if stop.is_set() or time.monotonic() > deadline:
                raise
            delay = _jittered(attempt)
            _tell(error, attempt, delay)
        health.beat("waiting")
        await unless_stopped(stop, asyncio.sleep(delay), delay)
    raise AssertionError("count() ends")


def _tell(error: TransientError, attempt: int, delay: float) -> None:
    get_logger().warning(
        "backing off", code=error.code, reason=error.message, attempt=attempt, delay_seconds=round(delay, 1)
    )


def _jittered(attempt: int) -> float:
    ceiling = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_MIN * 2**attempt)
    return random.uniform(BACKOFF_SECONDS_MIN, ceiling)  # noqa: S311  jitter, not a secret


async def unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, T], seconds_max: float) -> T | None:
    """Return what `work` returns, or None once `stop` is set or the time is over; then `work` is cancelled.

    `work` must lose nothing by being cancelled. If it ends at the same moment, its result counts.
    """
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({working, stopping}, timeout=seconds_max, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.wait({working, stopping})
    return None if working.cancelled() else working.result()


def run(serve: Callable[[asyncio.Event], Awaitable[None]]) -> ExitCode:
    """Run a process until SIGTERM or SIGINT; return its exit code.

    `serve` gets an event that is set when the process is to end after the work in hand. A FatalError, or an
    error nobody expected, ends the process at once with exit code 1: what was not acknowledged is delivered
    again to whoever comes next.
    """
    harden_process()
    log = get_logger()

    async def until_stopped() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serve(stop)

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(until_stopped())
    except FatalError as error:
        log.critical("stopping: state is unknown", code=error.code, reason=error.message, hint=error.hint)
        return ExitCode.FAILED
    except StrongroomError as error:
        log.error("cannot run", code=error.code, reason=error.message, hint=error.hint)  # noqa: TRY400  no traceback: it is for an operator
        return error.exit_code
    except Exception:
        log.critical("stopping: unexpected error", exc_info=True)
        return ExitCode.FAILED
    return ExitCode.DONE


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop  # noqa: PLC0415  installed with the server extra only
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
