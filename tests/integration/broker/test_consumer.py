"""Consuming from a real broker: batches, settling by hand, answers, and ends that are noticed at once."""

import asyncio

import pytest
from aiormq.abc import AbstractChannel
from deploy.local.rabbitmq import PrivateRabbit
from tests.integration.broker.conftest import Link, depth, send, until

from strongroom.broker import Consumer, Delivery, Requester
from strongroom.errors import BrokerUnavailable, Unroutable


async def take(consumer: Consumer, count: int) -> list[Delivery]:
    """Take exactly so many deliveries, in as many batches as it needs."""
    taken: list[Delivery] = []
    while len(taken) < count:
        taken += await consumer.next_batch(count - len(taken), 0.1)
    return taken


async def send_numbered(requester: Requester, count: int) -> list[bytes]:
    """Send messages one after another, so that their order is known; return their bodies."""
    for number in range(count):
        await send(requester, f"m-{number:03}")
    return [f"m-{number:03}".encode() for number in range(count)]


# ---- batches ----


async def test_deliveries_come_in_order_and_say_what_they_are(requester: Requester, link: Link) -> None:
    """Body, routing key, ids and a direct reply-to address arrive as sent; first deliveries are not redelivered."""
    bodies = await send_numbered(requester, 50)
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=100) as consumer:
        taken = await take(consumer, 50)
        assert [one.body for one in taken] == bodies
        assert {one.routing_key for one in taken} == {"v1.escrow.abc"}
        assert [one.message_id for one in taken] == [one.correlation_id for one in taken]
        assert all((one.reply_to or "").startswith("amq.rabbitmq.reply-to.") for one in taken)
        assert not any(one.redelivered for one in taken)
        await consumer.ack_through(taken[-1])


async def test_a_delivery_does_not_show_its_body(requester: Requester, link: Link) -> None:
    """A delivery in a log line or a traceback holds no statement."""
    await send(requester, "m-1", body=b"a-body")
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=1) as consumer:
        (delivery,) = await consumer.next_batch(1, 0)
        assert "a-body" not in repr(delivery)
        await consumer.ack(delivery)


async def test_a_batch_holds_at_most_as_many_as_asked_for(requester: Requester, link: Link) -> None:
    """What arrived beyond that opens the next batch."""
    bodies = await send_numbered(requester, 10)
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=100) as consumer:
        first = await consumer.next_batch(4, 5)
        rest = await take(consumer, 6)
        assert len(first) <= 4
        assert [one.body for one in first + rest][:10] == bodies
        await consumer.ack_through(rest[-1])


async def test_a_full_prefetch_window_ends_a_batch(requester: Requester, link: Link) -> None:
    """When nothing more can come before something is settled, a batch does not wait for it."""
    await send_numbered(requester, 10)
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=3) as consumer:
        held = await take(consumer, 3)
        waiting = asyncio.create_task(consumer.next_batch(100, 3600))
        await consumer.ack_through(held[-1])
        more = await waiting
        assert 1 <= len(more) <= 3
        await consumer.ack_through(more[-1])


async def test_cancelling_a_wait_loses_no_delivery(requester: Requester, link: Link) -> None:
    """A batch that nobody received is still there for the next call."""
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        for _ in range(3):
            waiting = asyncio.create_task(consumer.next_batch(10, 1))
            await asyncio.sleep(0)
            waiting.cancel()
        await send(requester, "m-1")
        (delivery,) = await consumer.next_batch(10, 0.1)
        assert delivery.body == b"m-1"
        assert not delivery.redelivered
        await consumer.ack(delivery)


async def test_a_stop_ends_waiting_with_an_empty_batch(requester: Requester, link: Link) -> None:
    """A worker that is told to end neither waits on nor takes what has arrived meanwhile."""
    stop = asyncio.Event()
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        waiting = asyncio.create_task(consumer.next_batch(10, 1, stop))
        await asyncio.sleep(0)
        stop.set()
        assert await waiting == []
        await send(requester, "m-1")
        assert await consumer.next_batch(10, 1, stop) == []
        (delivery,) = await consumer.next_batch(10, 1, asyncio.Event())
        await consumer.ack(delivery)


# ---- settling ----


async def test_nothing_is_acknowledged_by_itself(requester: Requester, link: Link) -> None:
    """A consumer that ends without a word gives everything back, marked as redelivered."""
    await send_numbered(requester, 5)
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        await take(consumer, 5)
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        again = await take(consumer, 5)
        assert all(one.redelivered for one in again)
        await consumer.ack_through(again[-1])


async def test_ack_through_acknowledges_the_prefix_and_nothing_after(
    requester: Requester, link: Link, operator: AbstractChannel
) -> None:
    """The first three of five are gone; the last two come again."""
    bodies = await send_numbered(requester, 5)
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        taken = await take(consumer, 5)
        await consumer.ack_through(taken[2])
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        again = await take(consumer, 2)
        assert sorted(one.body for one in again) == bodies[3:]
        await consumer.ack_through(again[-1])
    assert await depth(operator, "escrow") == 0


async def test_ack_through_leaves_out_what_was_settled_singly(
    requester: Requester, link: Link, operator: AbstractChannel
) -> None:
    """Acknowledged ones in the middle and at the end neither disturb it nor are acknowledged twice."""
    await send_numbered(requester, 6)
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=6) as consumer:
        taken = await take(consumer, 6)
        for each in (taken[0], taken[2], taken[5]):
            await consumer.ack(each)
        await consumer.ack_through(taken[4])
        await consumer.ack_through(taken[5])
    assert await depth(operator, "escrow") == 0


async def test_settling_twice_is_refused_before_the_broker_sees_it(requester: Requester, link: Link) -> None:
    """A second ack would close the channel and redeliver all the others."""
    await send_numbered(requester, 2)
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        first, second = await take(consumer, 2)
        await consumer.ack(first)
        with pytest.raises(ValueError, match="settled already"):
            await consumer.ack(first)
        await consumer.ack(second)


async def test_a_delivery_of_an_earlier_consumer_settles_nothing_on_a_later_one(
    requester: Requester, link: Link
) -> None:
    """Tags start over on each channel: an old one must not acknowledge new messages that nobody has handled."""
    await send_numbered(requester, 3)
    async with link("escrow") as connection:
        async with Consumer(connection, "escrow", prefetch_count=10) as earlier:
            old = await take(earlier, 3)
        async with Consumer(connection, "escrow", prefetch_count=10) as later:
            await take(later, 3)
            for settle in (later.ack_through(old[-1]), later.ack(old[0])):
                with pytest.raises(BrokerUnavailable, match="redelivered"):
                    await settle
        async with Consumer(connection, "escrow", prefetch_count=10) as last:
            again = await take(last, 3)
            await last.ack_through(again[-1])


# ---- ends ----


async def test_a_missing_queue_is_unroutable(link: Link) -> None:
    """A broker without the topology is told from one that is away."""
    async with link("operator") as connection:
        with pytest.raises(Unroutable, match="NOT_FOUND"):
            async with Consumer(connection, "nowhere", prefetch_count=1):
                pass


async def test_a_queue_without_the_right_to_read_is_an_error(link: Link) -> None:
    """The escrow worker cannot listen to recovery requests."""
    async with link("escrow") as connection:
        with pytest.raises(BrokerUnavailable, match="ACCESS_REFUSED"):
            async with Consumer(connection, "recovery", prefetch_count=1):
                pass


async def test_a_deleted_queue_ends_the_consumer(link: Link, operator: AbstractChannel) -> None:
    """The broker's own cancel, which the driver leaves unnoticed, is an error at once."""
    await operator.queue_declare("brief", durable=True, arguments={"x-queue-type": "quorum"}, timeout=60)
    async with link("operator") as connection, Consumer(connection, "brief", prefetch_count=1) as consumer:
        waiting = asyncio.create_task(consumer.next_batch(1, 1))
        await operator.queue_delete("brief", timeout=60)
        with pytest.raises(BrokerUnavailable, match="ended the consumer of queue brief"):
            await waiting


async def test_a_closed_connection_ends_a_waiting_consumer(link: Link, broker: PrivateRabbit) -> None:
    """Whoever waits for a batch is told at once, and so is every later call."""
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        waiting = asyncio.create_task(consumer.next_batch(1, 1))
        await asyncio.to_thread(broker.rabbitmqctl, "close_all_user_connections", "escrow", "test")
        for one in (waiting, consumer.next_batch(1, 1)):
            with pytest.raises(BrokerUnavailable):
                await one


async def test_a_closed_connection_drops_what_had_arrived(
    requester: Requester, link: Link, broker: PrivateRabbit
) -> None:
    """A batch that could be served from memory raises: nothing in it can be acknowledged, all of it comes again."""
    await send_numbered(requester, 5)
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        taken = await consumer.next_batch(1, 0)
        await until(lambda: len(consumer._arrived) == 4)
        await asyncio.to_thread(broker.rabbitmqctl, "close_all_user_connections", "escrow", "test")
        await until(lambda: consumer._lost is not None)
        with pytest.raises(BrokerUnavailable):
            await consumer.next_batch(1, 1)
        for late in (consumer.ack_through(taken[0]), consumer.ack(taken[0])):
            with pytest.raises(BrokerUnavailable):
                await late
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        again = await take(consumer, 5)
        await consumer.ack_through(again[-1])


# ---- answers ----


async def test_an_answer_to_a_requester_that_is_gone_harms_nothing(link: Link) -> None:
    """It is sent and vanishes; the next requester gets its own."""
    async with link("fleet") as connection, Requester(connection) as requester:
        await send(requester, "m-1")
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        (gone,) = await consumer.next_batch(1, 0)
        await consumer.reply(gone, b"too late")
        async with link("fleet") as asking, Requester(asking) as requester:
            await send(requester, "m-2")
            (there,) = await consumer.next_batch(1, 0)
            assert await consumer.reply(there, b"in time")
            assert await requester.answer("m-2", 60) == b"in time"
        await consumer.ack_through(there)


async def test_answers_go_on_after_their_connection_was_closed(
    requester: Requester, link: Link, broker: PrivateRabbit
) -> None:
    """Answers have a connection of their own; when it is lost the consumer keeps consuming and opens another."""
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        await _answered(requester, consumer, "m-1")
        await _answered(requester, consumer, "m-2")
        lines = await asyncio.to_thread(broker.rabbitmqctl, "list_connections", "pid", "client_properties")
        (answers,) = [line.split("\t")[0] for line in lines.splitlines() if "test escrow answers" in line]
        await asyncio.to_thread(broker.rabbitmqctl, "close_connection", answers, "test")
        await _answered(requester, consumer, "m-3")


async def _answered(requester: Requester, consumer: Consumer, message_id: str) -> None:
    await send(requester, message_id)
    (delivery,) = await consumer.next_batch(1, 0)
    assert await consumer.reply(delivery, b"yes")
    await consumer.ack(delivery)
    assert await requester.answer(message_id, 60) == b"yes"
