"""Trying again for a while: exponential backoff with full jitter, so that a fleet does not come back in step."""

import asyncio
from collections.abc import Awaitable, Callable
from secrets import SystemRandom
from typing import Final, TypeVar

from strongroom.errors import NoAnswer, TransientError

FIRST_PAUSE_SECONDS_MAX: Final = 0.25
PAUSE_SECONDS_MAX: Final = 10.0

_RANDOM: Final = SystemRandom()

T = TypeVar("T")
Deadline = float
"""A moment on the event loop's own clock, in seconds."""


class Silence(NoAnswer):
    """Nobody answered an attempt; `patiently` says in its place for how long it has asked in all."""

    def __init__(self, where: str, *, wait_seconds: float | None = None) -> None:
        """Keep whom was asked, e.g. `host:port/vhost`; `wait_seconds` is the whole time that it has taken."""
        lasting = "" if wait_seconds is None else f" within {max(1, round(wait_seconds))} s"
        super().__init__(
            f"no answer from {where}{lasting}",
            hint="is a worker running? `strongroom doctor` says; then give the same command again",
        )
        self.where = where


async def patiently(
    attempt: Callable[[Deadline], Awaitable[T]],
    *,
    wait_seconds: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    draw: Callable[[float, float], float] = _RANDOM.uniform,
) -> T:
    """Call `attempt` until it returns, and return what it returned.

    It is called at least once, with the deadline it has to keep. A TransientError is followed by a pause, drawn
    evenly from nothing to a bound that doubles each time, and by another call; the last one is raised when a
    pause would pass the deadline, a Silence with all of `wait_seconds`. Every other error passes through at once.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait_seconds
    bound = FIRST_PAUSE_SECONDS_MAX
    while True:
        try:
            return await attempt(deadline)
        except TransientError as error:
            pause = draw(0.0, bound)
            if clock() + pause >= deadline:
                if isinstance(error, Silence):
                    raise Silence(error.where, wait_seconds=wait_seconds) from None
                raise
        await sleep(pause)
        bound = min(PAUSE_SECONDS_MAX, bound * 2)


def seconds_left(deadline: Deadline) -> float:
    """Return how long it is until a deadline, never less than nothing."""
    return max(0.0, deadline - asyncio.get_running_loop().time())
