"""A shared broker with empty queues for each test, and a guard: no test may leave a password in the log."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias
from urllib.parse import urlsplit

import pytest
from aiormq.abc import AbstractChannel
from deploy.local.rabbitmq import USERS, PrivateRabbit

from strongroom.broker import Connection, Requester, connect
from strongroom.topology import QUEUES

Link: TypeAlias = Callable[[str], AbstractAsyncContextManager[Connection]]


def passwords(server: PrivateRabbit) -> list[str]:
    """The passwords of all users of a broker."""
    return [urlsplit(server.url(user)).password or "" for user in USERS]


@pytest.fixture(autouse=True)
def _no_password_is_logged(broker: PrivateRabbit, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    assert not [password for password in passwords(broker) if password in caplog.text]


@pytest.fixture
def link(broker: PrivateRabbit) -> Link:
    """Connects one of the users to the shared broker."""
    return lambda user: connect(broker.url(user), ca_file=broker.ca_file, name=f"test {user}", timeout_seconds=60)


@pytest.fixture(autouse=True)
async def operator(link: Link) -> AsyncIterator[AbstractChannel]:
    """The operator's channel, with confirms; all queues are empty when a test begins."""
    async with link("operator") as connection:
        channel = await connection.channel(confirms=True)
        for queue in QUEUES:
            await channel.queue_purge(queue.name, timeout=60)
        yield channel


@pytest.fixture
async def requester(link: Link) -> AsyncIterator[Requester]:
    """An open requester of the fleet's user."""
    async with link("fleet") as connection, Requester(connection) as opened:
        yield opened


async def send(
    requester: Requester, message_id: str, *, key: str = "v1.escrow.abc", body: bytes | None = None
) -> None:
    """Submit a request whose body is its id unless given."""
    await requester.submit(
        key,
        message_id.encode() if body is None else body,
        message_id=message_id,
        headers={},
        expiration_seconds=None,
    )


async def depth(channel: AbstractChannel, queue: str) -> int:
    """How many messages a queue holds ready."""
    declared = await asyncio.wait_for(channel.queue_declare(queue, passive=True), 60)
    return declared.message_count or 0


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until something has happened in this process."""
    while not condition():  # noqa: ASYNC110  the program under test has no event for it, and needs none
        await asyncio.sleep(0)
