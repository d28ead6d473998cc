"""Trying again for a while: exponential backoff with full jitter, so that a fleet does not come back in step."""

import asyncio
from collections.abc import Awaitable, Callable
from secrets import SystemRandom
from typing import Final, TypeVar

from strongroom.errors import TransientError

FIRST_PAUSE_SECONDS_MAX: Final = 0.25
PAUSE_SECONDS_MAX: Final = 10.0

_RANDOM: Final = SystemRandom()

T = TypeVar("T")
Deadline = float
"""A moment on the event loop's own clock, in seconds."""


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
    pause would pass the deadline. Every other error passes through at once.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + wait_seconds
    bound = FIRST_PAUSE_SECONDS_MAX
    while True:
        try:
            return await attempt(deadline)
        except TransientError:
            pause = draw(0.0, bound)
            if clock() + pause >= deadline:
                raise
        await sleep(pause)
        bound = min(PAUSE_SECONDS_MAX, bound * 2)


def seconds_left(deadline: Deadline) -> float:
    """Return how long it is until a deadline, never less than nothing."""
    return max(0.0, deadline - asyncio.get_running_loop().time())
