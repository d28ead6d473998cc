"""Messages that no honest client sends, over a real broker: they cost the worker nothing but their own handling."""

import base64
import struct
from collections.abc import AsyncIterator

import pytest
from aiormq.abc import AbstractChannel
from pamqp import decode
from tests.integration.broker.conftest import Link, depth, send
from tests.integration.broker.test_consumer import take
from tests.integration.broker.test_quarantine import look
from tests.support.amqp import entry, long, publish_raw, short

from strongroom.amqp_decoding import UNDECODABLE_HEADER
from strongroom.broker import Consumer, Delivery, Requester, peek
from strongroom.errors import NoAnswer
from strongroom.topology import DELIVERIES_MAX, EXCHANGE


async def give_back(consumer: Consumer, deliveries: list[Delivery]) -> None:
    """Return deliveries to the queue, which counts it, as it does for a consumer that was lost."""
    for delivery in deliveries:
        await consumer._check_unsettled(delivery).basic_nack(delivery.delivery_tag, requeue=True)


def _nested(levels: int) -> bytes:
    table = b""
    for _ in range(levels):
        table = entry(b"a", b"F", long(table))
    return long(table)


POISON: dict[str, dict[str, bytes]] = {
    **{
        f"{name} is no text": {name: short(b"\xff\xfe")}
        for name in (
            "correlation_id",
            "message_id",
            "reply_to",
            "content_type",
            "message_type",
            "app_id",
            "cluster_id",
        )
    },
    "timestamp beyond the calendar": {"timestamp": b"\xff" * 8},
    "header name is no text": {"headers": long(entry(b"\xff\xfe", b"V"))},
    "header time beyond the calendar": {"headers": long(entry(b"a", b"T", b"\xff" * 8))},
    "headers nested too deep": {"headers": _nested(3_000)},
    "sixty thousand headers": {"headers": long(entry(b"", b"V") * 60_000)},
    "forged x-death": {"headers": long(entry(b"x-death", b"A", long(b"S" + long(b"hi"))))},
    "decimal out of range": {"headers": long(entry(b"a", b"D", b"\xff\0\0\0\x05"))},
    "priority out of range": {"priority": b"\xff"},
}


@pytest.fixture
async def attacker(link: Link) -> AsyncIterator[AbstractChannel]:
    """A raw channel with the rights of any host of the fleet."""
    async with link("fleet") as connection:
        yield await connection.channel(confirms=False)


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
async def test_poison_in_the_properties_is_received_like_its_neighbours(
    attacker: AbstractChannel, requester: Requester, link: Link, poison: dict[str, bytes]
) -> None:
    """The poisoned message and those around it arrive once; it can be answered, quarantined, looked at, acked."""
    await send(requester, "before")
    await publish_raw(attacker, EXCHANGE, "v1.escrow.abc", b"poison", **poison)
    await send(requester, "after")
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        taken = await take(consumer, 3)
        assert [one.body for one in taken] == [b"before", b"poison", b"after"]
        assert not any(one.redelivered for one in taken)
        assert not await consumer.reply(taken[1], b"answer")
        await consumer.quarantine(taken[1], "malformed", "it is poison")
        await consumer.ack_through(taken[2])
    async with link("operator") as connection:
        (kept,) = await peek(connection, 10)
        assert (kept.body, kept.code, kept.routing_key) == (b"poison", "malformed", "v1.escrow.abc")


async def test_a_header_table_that_is_too_large_is_not_decoded(attacker: AbstractChannel, link: Link) -> None:
    """Its decoding would hold up the worker; the message arrives all the same."""
    await publish_raw(attacker, EXCHANGE, "v1.escrow.abc", b"poison", **POISON["sixty thousand headers"])
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        (delivery,) = await consumer.next_batch(1, 0)
        assert list(delivery.headers) == [UNDECODABLE_HEADER]
        await consumer.ack(delivery)


async def test_what_nobody_thought_of_does_not_break_the_reader_either(
    attacker: AbstractChannel, requester: Requester, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other failure while properties are decoded, here a made-up one, leaves an empty header and the body."""
    octet = decode.METHODS["octet"]

    def breaks_on_the_unthought_of(value: bytes) -> tuple[int, object]:
        if value[:1] == b"\x71":
            raise IndexError
        return octet(value)

    monkeypatch.setitem(decode.METHODS, "octet", breaks_on_the_unthought_of)
    await publish_raw(attacker, EXCHANGE, "v1.escrow.abc", b"unthought-of", priority=b"\x71")
    await send(requester, "neighbour")
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        taken = await take(consumer, 2)
        assert [one.body for one in taken] == [b"unthought-of", b"neighbour"]
        assert taken[0].headers == {UNDECODABLE_HEADER: "IndexError"}
        assert taken[0].reply_to is None
        await consumer.ack_through(taken[1])


async def test_a_message_that_brings_workers_down_ends_in_quarantine(
    requester: Requester, link: Link, operator: AbstractChannel
) -> None:
    """Given back once too often it is set aside, confirmed, and not handed out again; the others are served."""
    await send(requester, "culprit")
    await send(requester, "neighbour")
    seen: list[bytes] = []
    for _ in range(DELIVERIES_MAX + 2):
        async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=1) as consumer:
            (delivery,) = await consumer.next_batch(1, 0)
            seen.append(delivery.body)
    assert seen == [b"culprit"] * (DELIVERIES_MAX + 1) + [b"neighbour"]
    (kept,) = await look(link)
    assert (kept.body, kept.code) == (b"culprit", "delivery_limit")
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        (neighbour,) = await consumer.next_batch(10, 0)
        assert neighbour.body == b"neighbour"
        await consumer.ack(neighbour)
    assert await depth(operator, "escrow") == 0


async def test_messages_given_back_once_too_often_are_set_aside_from_the_middle_of_a_batch(
    attacker: AbstractChannel, requester: Requester, link: Link
) -> None:
    """What cannot be counted is set aside when it first comes back; the rest is handed out as it is."""
    await send(requester, "before")
    await publish_raw(attacker, EXCHANGE, "v1.escrow.abc", b"poison", headers=long(entry(b"\xff", b"V")))
    await send(requester, "after")
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        await give_back(consumer, await take(consumer, 3))
        taken = await take(consumer, 2)
        assert [one.body for one in taken] == [b"before", b"after"]
        await consumer.ack_through(taken[1])
    (kept,) = await look(link)
    assert (kept.body, kept.code) == (b"poison", "delivery_limit")


async def test_a_forged_delivery_count_is_the_brokers_again(attacker: AbstractChannel, link: Link) -> None:
    """A sender cannot have its message set aside, or keep it from being, by counting itself."""
    count = long(entry(b"x-delivery-count", b"l", struct.pack(">q", 1_000)))
    await publish_raw(attacker, EXCHANGE, "v1.escrow.abc", b"x", headers=count)
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        await give_back(consumer, await take(consumer, 1))
        (again,) = await take(consumer, 1)
        assert again.headers["x-delivery-count"] == 1
        await consumer.ack(again)


# ---- forged reply addresses ----


async def genuine_address(requester: Requester, consumer: Consumer) -> str:
    """The address that the broker gives to a requester; its node is known to the consumer afterwards."""
    await send(requester, "genuine")
    (delivery,) = await consumer.next_batch(1, 0)
    assert await consumer.reply(delivery, b"yes")
    await consumer.ack(delivery)
    assert await requester.answer("genuine", 60) == b"yes"
    assert delivery.reply_to is not None
    return delivery.reply_to


def with_process(address: str, process: bytes) -> str:
    """An address with another channel process inside."""
    return f"amq.rabbitmq.reply-to.{base64.b64encode(process).decode()}.{address.rpartition('.')[2]}"


async def answered_after(forged: str, requester: Requester, consumer: Consumer, attacker: AbstractChannel) -> bool:
    """Answer a message with a forged address, then prove that the next genuine one is answered too.

    Returns whether the forged one was handed to the broker.
    """
    await publish_raw(
        attacker, EXCHANGE, "v1.escrow.abc", b"forged", reply_to=short(forged.encode()), message_id=short(b"f")
    )
    (delivery,) = await consumer.next_batch(1, 0)
    sent = await consumer.reply(delivery, b"not for you")
    await consumer.ack(delivery)
    await genuine_address(requester, consumer)
    return sent


@pytest.mark.parametrize(
    "forged",
    ["recovery", "quarantine", "amq.rabbitmq.reply-to.!!!.x", "amq.rabbitmq.reply-to.AAAA.AAAA"],
)
async def test_an_address_that_is_no_reply_address_is_never_answered(
    forged: str, attacker: AbstractChannel, requester: Requester, link: Link, operator: AbstractChannel
) -> None:
    """A queue's name would make the worker write there for others; the last two close its connection on 3.10."""
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        await genuine_address(requester, consumer)
        assert not await answered_after(forged, requester, consumer, attacker)
    assert await depth(operator, "recovery") == 0
    assert await depth(operator, "quarantine") == 0


async def test_what_is_no_reply_address_is_not_handed_on(attacker: AbstractChannel, link: Link) -> None:
    """A worker that looks at `reply_to` sees None, so that it cannot be led to write to a queue by other means."""
    await publish_raw(attacker, EXCHANGE, "v1.escrow.abc", b"forged", reply_to=short(b"recovery"))
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        (delivery,) = await consumer.next_batch(1, 0)
        assert delivery.reply_to is None
        await consumer.ack(delivery)


async def test_an_address_on_an_unknown_node_does_not_cost_the_connection_for_answers(
    attacker: AbstractChannel, requester: Requester, link: Link
) -> None:
    """RabbitMQ 3.10 closes the connection that answers it; that one was made for the purpose."""
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        address = await genuine_address(requester, consumer)
        process = base64.b64decode(address.split(".")[-2])
        start = process.index(b"@") + 1
        other = process[:start] + bytes(57 - (digit - 48) for digit in process[start:-12]) + process[-12:]
        for _ in range(3):
            assert not await answered_after(with_process(address, other), requester, consumer, attacker)


@pytest.mark.parametrize(("identity", "serial"), [(2**15, 0), (0, 2**13), (2**32 - 1, 2**32 - 1)])
async def test_an_address_with_an_impossible_process_does_not_cost_the_connection_for_answers(
    identity: int, serial: int, attacker: AbstractChannel, requester: Requester, link: Link
) -> None:
    """On a known node, process numbers that Erlang 25 does not decode close the connection; they are not sent."""
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        address = await genuine_address(requester, consumer)
        process = base64.b64decode(address.split(".")[-2])
        forged = process[:-12] + struct.pack(">II", identity, serial) + process[-4:]
        await answered_after(with_process(address, forged), requester, consumer, attacker)
        assert not connection.is_blocked


async def test_an_answer_to_somebody_elses_channel_is_not_delivered_without_its_key(
    attacker: AbstractChannel, requester: Requester, link: Link
) -> None:
    """The key inside an address is the broker's secret: with another one nobody receives anything."""
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        address = await genuine_address(requester, consumer)
        stolen = address.rpartition(".")[0] + "." + base64.b64encode(bytes(16)).decode()
        await send(requester, "f", key="v1.recovery.abc")
        await answered_after(stolen, requester, consumer, attacker)
        with pytest.raises(NoAnswer):
            await requester.answer("f", 0)
