"""Waiting for what can only be asked for: the depth of a queue, a row in a table, a line in a health file."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

_PAUSE_SECONDS = 0.02


async def until(ask: Callable[[], Awaitable[object] | object], what: str, *, seconds_max: float = 60) -> None:
    """Ask again and again until the answer is true; AssertionError naming `what` after a while."""
    deadline = asyncio.get_running_loop().time() + seconds_max
    while True:
        answer = ask()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"after {seconds_max:g} s there is still not: {what}; the last answer: {answer!r}")
        await asyncio.sleep(_PAUSE_SECONDS)
