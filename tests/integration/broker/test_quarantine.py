"""The quarantine of a real broker: nothing gets lost in it, nothing leaves it unasked."""

import asyncio
from typing import Any

import pytest
from aiormq.abc import AbstractChannel
from aiormq.channel import Channel
from pamqp.commands import Basic
from tests.integration.broker.conftest import Link, depth, send
from tests.integration.broker.test_consumer import take
from tests.support.amqp import entry, long, publish_raw

from strongroom.broker import Consumer, Quarantined, Requester, drop, find, peek, quarantine_id, requeue
from strongroom.broker.quarantine import TIME_HEADER
from strongroom.errors import BrokerUnavailable, Unroutable
from strongroom.topology import DEAD_EXCHANGE, EXCHANGE

KEY = "v1.escrow.abc"


async def fill(operator: AbstractChannel, count: int) -> list[str]:
    """Put numbered messages into the quarantine, one a microsecond; return their ids in order."""
    bodies = [f"m-{number:03}".encode() for number in range(count)]
    for number, body in enumerate(bodies):
        await put(operator, body, number)
    return [quarantine_id(KEY, body) for body in bodies]


async def put(operator: AbstractChannel, body: bytes, microseconds: int, key: str = KEY) -> None:
    """Put one message into the quarantine, as a worker would at that time."""
    properties = Basic.Properties(headers={TIME_HEADER: microseconds})
    await operator.basic_publish(
        body, exchange=DEAD_EXCHANGE, routing_key=key, properties=properties, mandatory=True, timeout=60
    )


async def search(link: Link, wanted: str) -> Quarantined | None:
    """Find as the operator."""
    async with link("operator") as connection:
        return await find(connection, wanted)


async def look(link: Link, limit: int = 1000) -> list[Quarantined]:
    """Peek as the operator."""
    async with link("operator") as connection:
        return await peek(connection, limit)


def ids(kept: list[Quarantined]) -> list[str]:
    """The ids of what was seen."""
    return [one.id for one in kept]


# ---- into it ----


async def test_a_quarantined_message_keeps_body_and_routing_key_and_says_why(
    requester: Requester, link: Link, operator: AbstractChannel
) -> None:
    """The copy is there when quarantine returns, while the original is still unacknowledged."""
    await requester.submit(KEY, b"body", message_id="m-1", headers={"h": 1}, expiration_seconds=60)
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        (delivery,) = await consumer.next_batch(1, 0)
        await consumer.quarantine(delivery, "malformed", "payload: is no JSON")
        assert await depth(operator, "quarantine") == 1
    (kept,) = await look(link)
    assert (kept.id, kept.routing_key, kept.body) == (quarantine_id(KEY, b"body"), KEY, b"body")
    assert (kept.code, kept.reason, kept.message_id) == ("malformed", "payload: is no JSON", "m-1")
    assert kept.quarantined_at is not None
    assert "body=" not in repr(kept)
    copy = await operator.basic_get("quarantine", no_ack=True, timeout=60)
    assert copy.header.properties.delivery_mode == 2
    assert copy.header.properties.expiration is None
    assert copy.header.properties.reply_to is None
    assert (copy.header.properties.headers or {})["h"] == 1
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        (again,) = await consumer.next_batch(1, 0)
        assert again.redelivered
        await consumer.ack(again)


async def test_many_are_quarantined_at_once(requester: Requester, link: Link) -> None:
    """Copies under way together, even of messages with one id, are all confirmed."""
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=100) as consumer:
        for number in range(50):
            await send(requester, f"m-{number}")
        taken = await take(consumer, 50)
        await asyncio.gather(*(consumer.quarantine(one, "malformed", "bad") for one in [*taken, taken[0]]))
        await consumer.ack_through(taken[-1])
    assert sorted(one.body for one in await look(link)) == sorted([one.body for one in taken] + [taken[0].body])


async def test_without_a_quarantine_the_worker_is_told(
    requester: Requester, link: Link, operator: AbstractChannel
) -> None:
    """A copy that no queue takes is an error; the original is not acknowledged and comes again."""
    await send(requester, "m-1")
    await operator.queue_unbind("quarantine", DEAD_EXCHANGE, "#", timeout=60)
    try:
        async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
            (delivery,) = await consumer.next_batch(1, 0)
            with pytest.raises(Unroutable):
                await consumer.quarantine(delivery, "malformed", "bad")
    finally:
        await operator.queue_bind("quarantine", DEAD_EXCHANGE, "#", timeout=60)
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        (again,) = await consumer.next_batch(1, 0)
        await consumer.quarantine(again, "malformed", "bad")
        await consumer.ack(again)
    assert await depth(operator, "quarantine") == 1


async def test_headers_of_a_sender_do_not_pass_for_a_workers(link: Link) -> None:
    """Code, reason and time of the copy are the worker's, whatever the sender wrote there."""
    forged = {b"x-strongroom-code": b"stored", b"x-strongroom-message-id": b"other"}
    headers = long(b"".join(entry(name, b"S", long(value)) for name, value in forged.items()))
    async with link("fleet") as connection:
        channel = await connection.channel(confirms=False)
        await publish_raw(channel, EXCHANGE, KEY, b"x", headers=headers)
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=1) as consumer:
        (delivery,) = await consumer.next_batch(1, 0)
        await consumer.quarantine(delivery, "malformed", "bad")
        await consumer.ack(delivery)
    (kept,) = await look(link)
    assert (kept.code, kept.message_id) == ("malformed", None)


async def test_what_others_put_there_is_listed_too(operator: AbstractChannel, link: Link) -> None:
    """A message without the headers of a worker, even an undecodable one, is shown as far as it is known."""
    async with link("operator") as connection:
        channel = await connection.channel(confirms=False)
        await publish_raw(channel, DEAD_EXCHANGE, KEY, b"x", headers=long(entry(b"\xff", b"V")))
    (kept,) = await look(link)
    assert (kept.body, kept.code, kept.reason, kept.quarantined_at) == (b"x", "unknown", "", None)
    assert await depth(operator, "quarantine") == 1


# ---- looking ----


async def test_looking_changes_neither_content_nor_order(operator: AbstractChannel, link: Link) -> None:
    """However often one looks, all are there, in order of time; the broker itself shuffles what it gets back."""
    expected = await fill(operator, 500)
    for _ in range(3):
        assert ids(await look(link)) == expected
        assert await depth(operator, "quarantine") == 500


async def test_looking_at_a_few_takes_no_more_and_loses_none(operator: AbstractChannel, link: Link) -> None:
    """With a limit smaller than the quarantine, every look shows so many, and all are there at the end."""
    expected = await fill(operator, 10)
    for limit in (4, 10, 4, 1):
        assert len(set(ids(await look(link, limit)))) == limit
    assert ids(await look(link)) == expected


async def test_a_message_is_found_by_its_id_wherever_it_lies(operator: AbstractChannel, link: Link) -> None:
    """First, last and in between; an id that is not there is None; all are in the quarantine afterwards."""
    expected = await fill(operator, 10)
    for number in (0, 5, 9):
        found = await search(link, expected[number])
        assert found is not None
        assert (found.id, found.body) == (expected[number], f"m-{number:03}".encode())
    assert await search(link, "0" * 16) is None
    assert ids(await look(link)) == expected


async def test_a_senseless_time_is_no_time(operator: AbstractChannel, link: Link) -> None:
    """Whatever stands in the header, the list is shown."""
    await put(operator, b"far", 2**62)
    (kept,) = await look(link)
    assert kept.quarantined_at is None


async def test_one_message_is_found_by_its_id_and_stays(operator: AbstractChannel, link: Link) -> None:
    """Finding one leaves all of them where they are; an id that is not there is None."""
    expected = await fill(operator, 5)
    async with link("operator") as connection:
        found = await find(connection, expected[3])
        assert found is not None
        assert found.body == b"m-003"
        assert await find(connection, "0" * 16) is None
    assert ids(await look(link)) == expected


async def test_a_cancelled_look_ends_even_while_its_channel_closes(
    link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver forgets a cancellation that comes while it closes a channel; whoever cancelled must not wait."""
    closing = asyncio.Event()
    close = Channel.close

    async def announced(self: Channel, *arguments: Any, **named: Any) -> None:
        closing.set()
        await close(self, *arguments, **named)

    monkeypatch.setattr(Channel, "close", announced)
    for turns in range(8):
        closing.clear()
        async with link("operator") as connection:
            looking = asyncio.create_task(peek(connection, 1))
            await closing.wait()
            for _ in range(turns):
                await asyncio.sleep(0)
            looking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await looking


async def test_an_empty_quarantine_is_an_empty_list(link: Link) -> None:
    """Nothing there is no error."""
    assert await look(link) == []


async def test_only_who_may_read_the_quarantine_can_look(link: Link) -> None:
    """A worker's user cannot."""
    async with link("escrow") as connection:
        with pytest.raises(BrokerUnavailable, match="ACCESS_REFUSED"):
            await peek(connection, 1)


# ---- out of it ----


async def test_requeued_messages_are_back_in_their_queue_and_gone_from_the_quarantine(
    requester: Requester, link: Link, operator: AbstractChannel
) -> None:
    """Same body, same routing key, own headers gone, nobody to answer; the others stay as they were."""
    await requester.submit(KEY, b"again", message_id="m-1", headers={"h": 1}, expiration_seconds=60)
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        (delivery,) = await consumer.next_batch(1, 0)
        await consumer.quarantine(delivery, "principal_unknown", "nobody by this name")
        await consumer.ack(delivery)
    others = await fill(operator, 40)
    wanted = quarantine_id(KEY, b"again")
    async with link("operator") as connection:
        assert await requeue(connection, [wanted, "0" * 16]) == {wanted}
    assert ids(await look(link)) == others
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        (again,) = await consumer.next_batch(1, 0)
        assert (again.body, again.routing_key, again.message_id) == (b"again", KEY, "m-1")
        assert again.reply_to is None
        assert not again.redelivered
        assert {name: value for name, value in again.headers.items() if name != "x-delivery-count"} == {"h": 1}
        await consumer.ack(again)


async def test_what_cannot_be_routed_stays_in_the_quarantine(operator: AbstractChannel, link: Link) -> None:
    """The copy is acknowledged after the confirm, so a requeue that fails loses nothing."""
    await put(operator, b"lost?", 1, "v9.x")
    wanted = quarantine_id("v9.x", b"lost?")
    async with link("operator") as connection:
        with pytest.raises(Unroutable):
            await requeue(connection, [wanted])
    assert ids(await look(link)) == [wanted]


async def test_a_requeue_without_the_right_to_publish_loses_nothing(
    operator: AbstractChannel, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused publish is an error, and everything is still in the quarantine, in order."""
    monkeypatch.setattr("strongroom.broker.quarantine.EXCHANGE", "amq.rabbitmq.log")
    expected = await fill(operator, 40)
    async with link("operator") as connection:
        with pytest.raises((BrokerUnavailable, Unroutable)):
            await requeue(connection, expected[20:])
    assert ids(await look(link)) == expected


async def test_dropped_messages_are_gone_and_the_others_stay_in_order(
    operator: AbstractChannel, link: Link
) -> None:
    """Every copy of what was named goes; nothing else does."""
    expected = await fill(operator, 50)
    await put(operator, b"m-007", 60)
    async with link("operator") as connection:
        assert await drop(connection, {expected[7], expected[49]}) == {expected[7], expected[49]}
    assert ids(await look(link)) == [one for one in expected if one not in {expected[7], expected[49]}]


async def test_ids_that_are_not_there_are_not_found(operator: AbstractChannel, link: Link) -> None:
    """The result says what was found: nothing."""
    await fill(operator, 3)
    async with link("operator") as connection:
        assert await drop(connection, ["0" * 16]) == frozenset()
        assert await requeue(connection, []) == frozenset()
    assert await depth(operator, "quarantine") == 3


async def test_publishing_for_the_quarantine_does_not_wait_on_a_lost_connection(
    requester: Requester, link: Link, operator: AbstractChannel
) -> None:
    """After its connection was lost, the next copy opens another."""
    await send(requester, "m-1")
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        (delivery,) = await consumer.next_batch(1, 0)
        await consumer.quarantine(delivery, "malformed", "bad")
        _, channel = await consumer._quarantine.use()
        await channel.close()
        await consumer.quarantine(delivery, "malformed", "bad")
        await consumer.ack(delivery)
    assert await depth(operator, "quarantine") == 2
