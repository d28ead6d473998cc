"""Announcing events on a real broker: with subscribers, with none, and where it cannot be done."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiormq.abc import AbstractChannel
from deploy.local.rabbitmq import PrivateRabbit
from pamqp.commands import Basic
from pamqp.common import FieldValue
from tests.integration.broker.conftest import Link

from strongroom.broker import Consumer, connect
from strongroom.errors import BrokerUnavailable, Unroutable
from strongroom.topology import EVENTS_EXCHANGE, event_key

QUEUE = "events.siem"
KEY = event_key("released", "laptop-7")


@pytest.fixture
async def subscriber(link: Link) -> AsyncIterator[AbstractChannel]:
    """A channel of the subscribers' user, whose durable queue hears of releases."""
    async with link("events") as connection:
        channel = await connection.channel(confirms=False)
        await channel.queue_declare(QUEUE, durable=True, timeout=60)
        await channel.queue_bind(QUEUE, EVENTS_EXCHANGE, "v1.released.*", timeout=60)
        yield channel
        await channel.queue_delete(QUEUE, timeout=60)


@pytest.fixture
async def consumer(link: Link) -> AsyncIterator[Consumer]:
    """An open consumer with the rights of the recovery worker."""
    async with link("recovery") as connection, Consumer(connection, "recovery", prefetch_count=1) as opened:
        yield opened


async def test_a_subscriber_gets_the_event_as_it_was_announced(
    consumer: Consumer, subscriber: AbstractChannel
) -> None:
    """Body, routing key and id; persistent; both tries of an event that is repeated, under one id."""
    for _ in range(2):
        assert await consumer.announce(KEY, b"{}", message_id="request-1")
    for _ in range(2):
        message = await subscriber.basic_get(QUEUE, no_ack=True, timeout=60)
        properties = message.header.properties
        assert (message.body, message.routing_key) == (b"{}", KEY)
        assert (properties.message_id, properties.delivery_mode) == ("request-1", 2)


async def test_an_event_that_nobody_subscribed_to_is_no_error(
    consumer: Consumer, subscriber: AbstractChannel
) -> None:
    """The broker confirms it and forgets it; the next one arrives."""
    assert await consumer.announce(event_key("proven", "laptop-7"), b"unheard", message_id="m-1")
    assert await consumer.announce(KEY, b"heard", message_id="m-2")
    assert (await subscriber.basic_get(QUEUE, no_ack=True, timeout=60)).body == b"heard"
    assert isinstance((await subscriber.basic_get(QUEUE, timeout=60)).delivery, Basic.GetEmpty)


async def test_announcing_without_the_right_to_is_refused_and_harms_nothing(link: Link) -> None:
    """BrokerUnavailable in the broker's words; the consumer goes on."""
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=1) as consumer:
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match=EVENTS_EXCHANGE):
                await consumer.announce(KEY, b"{}", message_id="m-1")
        assert await consumer.next_batch(1, 0, _set()) == []


async def test_a_subscribers_full_queue_cannot_hold_up_whoever_announces(
    consumer: Consumer, subscriber: AbstractChannel, link: Link
) -> None:
    """The event is announced, the others get it, and False says that not everybody did."""
    async with link("events") as connection:
        channel = await connection.channel(confirms=False)
        full: dict[str, FieldValue] = {"x-max-length": 0, "x-overflow": "reject-publish"}
        await channel.queue_declare("events.full", exclusive=True, arguments=full, timeout=60)
        await channel.queue_bind("events.full", EVENTS_EXCHANGE, "#", timeout=60)
        assert not await consumer.announce(KEY, b"1", message_id="m-1")
        await channel.queue_delete("events.full", timeout=60)
    assert await consumer.announce(KEY, b"2", message_id="m-2")
    assert [(await subscriber.basic_get(QUEUE, no_ack=True, timeout=60)).body for _ in range(2)] == [b"1", b"2"]


async def test_without_the_exchange_the_operator_is_told_to_apply_the_topology(broker: PrivateRabbit) -> None:
    """Unroutable, which may be tried again, with the hint."""
    host = "no-events"
    broker.rabbitmqctl("add_vhost", host)
    try:
        broker.rabbitmqctl("set_permissions", "-p", host, "operator", ".*", ".*", ".*")
        url = broker.url("operator").rpartition("/")[0] + f"/{host}"
        async with connect(url, ca_file=broker.ca_file, name="test") as connection:
            channel = await connection.channel(confirms=False)
            await channel.queue_declare("recovery", durable=True, timeout=60)
            async with Consumer(connection, "recovery", prefetch_count=1) as consumer:
                with pytest.raises(Unroutable) as refused:
                    await consumer.announce(KEY, b"{}", message_id="m-1")
        assert "broker apply" in (refused.value.hint or "")
    finally:
        broker.rabbitmqctl("delete_vhost", host)


def _set() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event
