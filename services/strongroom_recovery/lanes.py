"""Several lanes of one process at the same work: one examines while another reads and writes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from strongroom.errors import TransientError

LANES: Final = 2  # one core is kept busy


async def in_lanes(lane: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> None:
    """Run `LANES` of these at once until `stop` is set or one of them ends; each is told by its event to end soon.

    Raises what they raise, and of several errors one that is no TransientError if there is one.
    """
    over = asyncio.Event()
    lanes = [asyncio.ensure_future(lane(over)) for _ in range(LANES)]
    try:
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, *lanes}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        # No lane is cancelled: a COMMIT that is interrupted leaves nobody knowing.
        over.set()
        await asyncio.wait(lanes)
    finally:
        over.set()
        for each in lanes:
            each.cancel()
    errors = [error for error in (each.exception() for each in lanes) if error is not None]
    for error in sorted(errors, key=lambda error: isinstance(error, TransientError)):
        raise error
