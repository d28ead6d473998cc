"""Faults of the broker: it dies, it comes back, it runs out of memory. Each has a broker of its own."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
from deploy.local.rabbitmq import PrivateRabbit
from tests.integration.broker.conftest import passwords, send
from tests.integration.broker.test_consumer import take
from tests.support.amqp import entry, long, publish_raw, short

from strongroom.broker import Connection, Consumer, Requester, connect
from strongroom.errors import BrokerUnavailable
from strongroom.topology import EXCHANGE

OwnLink = Callable[[str], AbstractAsyncContextManager[Connection]]


@pytest.fixture
def own_link(own_broker: PrivateRabbit) -> OwnLink:
    """Connects one of the users to the broker of this test."""

    def link(user: str) -> AbstractAsyncContextManager[Connection]:
        return connect(own_broker.url(user), ca_file=own_broker.ca_file, name=f"test {user}", timeout_seconds=10)

    return link


def waits_for_at_most(connection: Connection, seconds: float) -> None:
    """Let an open connection give up sooner, on a broker that will not answer."""
    connection.endpoint = replace(connection.endpoint, timeout_seconds=seconds)


async def test_a_killed_broker_ends_all_waiting_and_keeps_what_it_confirmed(
    own_broker: PrivateRabbit, own_link: OwnLink, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGKILL: answers, batches and submits fail at once; after its return every confirmed message is delivered."""
    async with (
        own_link("fleet") as asking,
        Requester(asking) as requester,
        own_link("escrow") as answering,
        Consumer(answering, "escrow", prefetch_count=10) as consumer,
    ):
        await send(requester, "m-1")
        await send(requester, "m-2")
        held = await take(consumer, 2)
        assert await consumer.reply(held[0], b"yes")
        waiting = [
            asyncio.create_task(requester.answer("m-2", 3600)),
            asyncio.create_task(consumer.next_batch(1, 1)),
        ]
        await asyncio.to_thread(own_broker.kill)
        for one in waiting:
            with pytest.raises(BrokerUnavailable):
                await one
        assert await requester.answer("m-1", 0) == b"yes"
        assert not await consumer.reply(held[1], b"dropped")
        for late in (
            consumer.ack(held[0]),
            consumer.quarantine(held[0], "malformed", "bad"),
            send(requester, "m-3"),
        ):
            with pytest.raises(BrokerUnavailable):
                await late
    with pytest.raises(BrokerUnavailable):
        async with own_link("fleet"):
            pass
    await asyncio.to_thread(own_broker.start)
    async with own_link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        again = await take(consumer, 2)
        assert sorted(one.body for one in again) == [b"m-1", b"m-2"]
        await consumer.ack_through(again[-1])
    assert not [password for password in passwords(own_broker) if password in caplog.text]


async def test_a_memory_alarm_holds_up_publishers_and_not_consumers(
    own_broker: PrivateRabbit, own_link: OwnLink
) -> None:
    """A submit fails and says why; the worker goes on taking and acking, and drops answers; then all is well."""
    async with own_link("escrow") as answering, Consumer(answering, "escrow", prefetch_count=1) as consumer:
        async with own_link("fleet") as asking, Requester(asking) as requester:
            for name in ("m-1", "m-2", "m-3"):
                await send(requester, name)
            (first,) = await take(consumer, 1)
            assert await consumer.reply(first, b"yes")
            waits_for_at_most(asking, 2)
            own_broker.rabbitmqctl("set_vm_memory_high_watermark", "0.00001")
            with pytest.raises(BrokerUnavailable, match="takes no messages now"):
                await send(requester, "m-4")
            while await consumer.reply(first, b"until the broker has said that it takes none"):
                pass
            assert consumer._replies._no_answer_before == 0, (
                "dropped because sending failed, not because it must not"
            )
            # With a prefetch of one, the next message comes only when the broker has read the ack of the last.
            await consumer.ack(first)
            for body in (b"m-2", b"m-3"):
                (delivery,) = await take(consumer, 1)
                assert delivery.body == body
                await consumer.ack(delivery)
        own_broker.rabbitmqctl("set_vm_memory_high_watermark", "0.6")
        async with own_link("fleet") as asking, Requester(asking) as requester:
            await send(requester, "m-5")
            (delivery,) = await take(consumer, 1)
            while delivery.body == b"m-4":  # it may have arrived after all: nothing was known about it
                await consumer.ack(delivery)
                (delivery,) = await take(consumer, 1)
            assert await consumer.reply(delivery, b"answered again")
            assert await requester.answer("m-5", 60) == b"answered again"


async def test_closing_a_blocked_connection_does_not_hang(own_broker: PrivateRabbit, own_link: OwnLink) -> None:
    """A full socket to a broker that does not read ends within the closing time, not with the heartbeat."""
    own_broker.rabbitmqctl("set_vm_memory_high_watermark", "0.00001")
    async with own_link("fleet") as asking, Requester(asking) as requester:
        waits_for_at_most(asking, 1)
        submits = [
            asyncio.create_task(send(requester, f"m-{number}", body=bytes(1_000_000))) for number in range(20)
        ]
        results = await asyncio.gather(*submits, return_exceptions=True)
    assert all(isinstance(result, BrokerUnavailable) for result in results)


async def test_forged_death_records_do_not_take_a_queue_down(own_broker: PrivateRabbit, own_link: OwnLink) -> None:
    """With any dead-letter exchange, these would end a queue on 3.10, at once or at its next start."""
    forged = long(entry(b"x-death", b"A", long(b"S" + long(b"no table"))))
    async with own_link("fleet") as connection:
        channel = await connection.channel(confirms=False)
        for number in range(20):
            for key in ("v1.recovery.abc", "v1.escrow.abc"):
                lifetime = short(str(number % 3).encode())
                await publish_raw(channel, EXCHANGE, key, b"forged", headers=forged, expiration=lifetime)
    await both_queues_work(own_link)
    await asyncio.to_thread(own_broker.restart)
    await both_queues_work(own_link)


async def both_queues_work(own_link: OwnLink) -> None:
    """Ask and be answered over both work queues; what else is in them is acknowledged."""
    for queue in ("recovery", "escrow"):
        async with own_link("fleet") as asking, Requester(asking) as requester, own_link(queue) as answering:
            await send(requester, "m-1", key=f"v1.{queue}.abc")
            async with Consumer(answering, queue, prefetch_count=100) as consumer:
                bodies: list[bytes] = []
                while b"m-1" not in bodies:
                    batch = await consumer.next_batch(100, 0.1)
                    bodies += [one.body for one in batch]
                    await consumer.reply(batch[-1], b"alive")
                    await consumer.ack_through(batch[-1])
            assert await requester.answer("m-1", 60) == b"alive"
