"""Hosts in tests: keys of many homes, handed to the library as an application would."""

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from strongroom.crypto.secret import Secret
from strongroom_agent import Agent, KeyToEscrow
from strongroom_agent.agent import SyncReport
from strongroom_agent.delivery import Delivery

ESCROW_SECONDS_MAX: Final = 60.0


def keys(count: int = 1, *, name: str = "disk", material: bytes | None = None) -> list[KeyToEscrow]:
    """Return fresh random keys, or copies of one that is given."""
    return [
        KeyToEscrow(material=Secret(material or secrets.token_bytes(32)), name=name, kind="disk-key")
        for _ in range(count)
    ]


async def escrow(
    home: Path, given: Sequence[KeyToEscrow] | None = None, *, wait_seconds: float = ESCROW_SECONDS_MAX
) -> Delivery:
    """Hand keys over, by default a fresh one, and wait for the receipt."""
    with Agent.open(home) as agent:
        return await agent.escrow(given or keys(), wait_seconds=wait_seconds)


async def sync(home: Path, *, compare: bool = True, wait_seconds: float = ESCROW_SECONDS_MAX) -> SyncReport:
    """Send what is spooled, and compare with what the authority lists."""
    with Agent.open(home) as agent:
        return await agent.sync(wait_seconds=wait_seconds, compare=compare)


async def soon(event: asyncio.Event) -> None:
    """Wait for an event, but not for ever."""
    async with asyncio.timeout(ESCROW_SECONDS_MAX):
        await event.wait()
