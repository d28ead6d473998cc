"""Counting who reads the queues of a real broker, and what waits in them."""

from aiormq.abc import AbstractChannel, DeliveredMessage
from tests.integration.broker.conftest import Link, send

from strongroom.broker import QueueLoad, Requester, queue_loads
from strongroom.topology import DEAD_EXCHANGE


async def loads(link: Link) -> dict[str, QueueLoad]:
    """Count as the operator."""
    async with link("operator") as connection:
        return {load.queue: load for load in await queue_loads(connection)}


async def test_readers_and_waiting_messages_of_each_queue_are_counted(
    requester: Requester, operator: AbstractChannel, link: Link
) -> None:
    """What was confirmed is counted where it lies, a reader where it reads, and counting takes nothing away."""

    async def take(_message: DeliveredMessage) -> None:
        """Nothing comes."""

    for number in range(2):
        await send(requester, f"m-{number}")
    await operator.basic_publish(b"bad", exchange=DEAD_EXCHANGE, routing_key="v1.escrow.abc", timeout=60)
    await operator.basic_consume("recovery", take, timeout=60)
    expected = {
        "escrow": QueueLoad("escrow", consumers=0, messages=2),
        "recovery": QueueLoad("recovery", consumers=1, messages=0),
        "quarantine": QueueLoad("quarantine", consumers=0, messages=1),
    }
    assert await loads(link) == expected
    assert await loads(link) == expected
