"""Connecting and requesting against a real broker: confirmed, routed, answered, or an error that says why not."""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiormq.abc import AbstractChannel
from deploy.local.rabbitmq import PrivateRabbit
from pamqp.commands import Basic
from pamqp.common import FieldTable
from tests.integration.broker.conftest import Link, depth, passwords, send
from tests.support.amqp import proxy, tcp_server

from strongroom.broker import Connection, Consumer, Requester, connect
from strongroom.errors import BrokerUnavailable, NoAnswer, Unroutable

SECRET = "not-" * 2 + "shown"  # never spelt out where it is used: tracebacks quote source lines
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def discreet(error: BaseException, *secrets: str) -> bool:
    """Whether an error, its causes and its hint are free of secrets."""
    shown = "".join(traceback.format_exception(error)) + str(getattr(error, "hint", ""))
    return not any(secret in shown for secret in secrets)


async def open_and_close(url: str, ca_file: Path | None, timeout_seconds: float = 60) -> None:
    """Connect and hang up."""
    async with connect(url, ca_file=ca_file, name="test", timeout_seconds=timeout_seconds):
        pass


# ---- connecting ----


async def test_a_connection_names_its_program_and_says_where_it_is(broker: PrivateRabbit, link: Link) -> None:
    """The administrator sees the program's name; `where` is host, port and virtual host."""
    async with link("fleet") as connection:
        assert connection.where == f"127.0.0.1:{broker.port}/strongroom"
        assert "test fleet" in broker.rabbitmqctl("list_connections", "client_properties")
        assert not connection.is_blocked


async def test_a_certificate_of_an_unknown_authority_is_refused(broker: PrivateRabbit) -> None:
    """Without the right CA file nothing is sent, and the error says that it was the certificate."""
    with pytest.raises(BrokerUnavailable, match="certificate verify failed") as refused:
        await open_and_close(broker.url("fleet"), None)
    assert discreet(refused.value, *passwords(broker))


async def test_a_certificate_for_another_host_is_refused(broker: PrivateRabbit) -> None:
    """The host name is verified: the broker's own certificate does not vouch for another address."""
    async with proxy(broker.port, "127.0.0.2") as (port, _):
        url = broker.url("fleet").replace(f"127.0.0.1:{broker.port}", f"127.0.0.2:{port}")
        with pytest.raises(BrokerUnavailable, match="certificate verify failed") as refused:
            await open_and_close(url, broker.ca_file)
    assert discreet(refused.value, *passwords(broker))


async def test_a_refused_login_says_so_without_the_password(broker: PrivateRabbit) -> None:
    """A wrong password is told from an absent broker, and is not repeated."""
    url = broker.url("fleet").replace(urlsplit(broker.url("fleet")).password or "", SECRET)
    with pytest.raises(BrokerUnavailable, match="refused the login") as refused:
        await open_and_close(url, broker.ca_file)
    assert discreet(refused.value, SECRET, *passwords(broker))


async def test_an_unknown_virtual_host_is_an_unavailable_broker(broker: PrivateRabbit) -> None:
    """Neither a wrong virtual host nor one without rights is shown with the URL."""
    with pytest.raises(BrokerUnavailable, match="refused the virtual host") as refused:
        await open_and_close(broker.url("fleet") + "x", broker.ca_file)
    assert discreet(refused.value, *passwords(broker))


async def test_a_closed_port_is_an_unavailable_broker(unused_tcp_port: int) -> None:
    """Nobody listens: the error names the address."""
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{unused_tcp_port}/v") as refused:
        await open_and_close(f"amqp://u:{SECRET}@127.0.0.1:{unused_tcp_port}/v", None)
    assert discreet(refused.value, SECRET)


async def _silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _talkative(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def _rude(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def _older(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"AMQP\x00\x00\x08\x00")
    writer.close()


@pytest.mark.parametrize("serve", [_silent, _talkative, _rude, _older])
async def test_a_server_that_is_no_broker_is_an_unavailable_broker(serve: Serve) -> None:
    """Silence ends with the timeout; other protocols and hang-ups end at once."""
    async with tcp_server(serve) as port:
        with pytest.raises(BrokerUnavailable) as refused:
            await open_and_close(f"amqp://u:{SECRET}@127.0.0.1:{port}/v", None, timeout_seconds=0.5)
    assert discreet(refused.value, SECRET)


# ---- publishing ----


async def test_a_submitted_message_is_in_the_queue_and_persistent(
    requester: Requester, operator: AbstractChannel
) -> None:
    """When submit returns, the queue has it, with id, reply address, headers and lifetime."""
    await requester.submit(
        "v1.escrow.abc", b"body", message_id="m-1", headers={"x-strongroom-tree-size": 7}, expiration_seconds=90.5
    )
    message = await operator.basic_get("escrow", no_ack=True, timeout=60)
    properties = message.header.properties
    assert message.body == b"body"
    assert properties.delivery_mode == 2
    assert properties.message_id == "m-1"
    assert properties.expiration == "90500"
    assert (properties.reply_to or "").startswith("amq.rabbitmq.reply-to.")
    assert (properties.headers or {})["x-strongroom-tree-size"] == 7


async def test_an_unroutable_message_raises_and_the_requester_goes_on(
    requester: Requester, operator: AbstractChannel, broker: PrivateRabbit
) -> None:
    """The broker confirms what it cannot route; we do not take that for stored, and the id is free again."""
    await operator.queue_unbind("escrow", "strongroom", "v1.escrow.*", timeout=60)
    try:
        with pytest.raises(Unroutable, match="NO_ROUTE") as refused:
            await send(requester, "m-1")
    finally:
        await operator.queue_bind("escrow", "strongroom", "v1.escrow.*", timeout=60)
    assert discreet(refused.value, *passwords(broker))
    await send(requester, "m-1")
    assert await depth(operator, "escrow") == 1


async def test_unroutable_and_routable_messages_in_flight_together_get_their_own_results(
    link: Link, operator: AbstractChannel
) -> None:
    """Returned messages are matched to their own submit among many in flight."""
    await operator.queue_unbind("recovery", "strongroom", "v1.enrol.*", timeout=60)
    try:
        async with link("fleet") as connection, Requester(connection) as requester:
            keys = ["v1.enrol.abc" if number % 3 else "v1.escrow.abc" for number in range(60)]
            results = await asyncio.gather(
                *(send(requester, f"m-{number}", key=key) for number, key in enumerate(keys)),
                return_exceptions=True,
            )
    finally:
        await operator.queue_bind("recovery", "strongroom", "v1.enrol.*", timeout=60)
    assert [isinstance(result, Unroutable) for result in results] == [key == "v1.enrol.abc" for key in keys]
    assert await depth(operator, "escrow") == keys.count("v1.escrow.abc")


async def test_a_missing_exchange_is_unroutable(link: Link) -> None:
    """404 closes the channel; for the sender it is the same as no queue."""
    async with link("operator") as connection:
        channel = await connection.channel(confirms=True)
        with pytest.raises(Unroutable, match="NOT_FOUND"):
            await connection.publish(channel, "nowhere", "key", b"", Basic.Properties())


async def publish_many(connection: Connection, channel: AbstractChannel, queue: str, count: int) -> None:
    """Publish empty messages to a queue, one after another."""
    for _ in range(count):
        await connection.publish(channel, "", queue, b"", Basic.Properties())


async def test_a_full_queue_refuses_and_the_sender_is_told(link: Link, operator: AbstractChannel) -> None:
    """`reject-publish` comes back as a negative confirm, never as success."""
    arguments: FieldTable = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    await operator.queue_declare("tiny", durable=True, arguments=arguments, timeout=60)
    try:
        async with link("operator") as connection:
            channel = await connection.channel(confirms=True)
            with pytest.raises(BrokerUnavailable, match="full"):
                await publish_many(connection, channel, "tiny", 10)
    finally:
        await operator.queue_delete("tiny", timeout=60)


async def test_an_id_cannot_be_under_way_twice(requester: Requester, operator: AbstractChannel) -> None:
    """The driver would swap the results of two messages with one id, so the second is refused and never sent."""
    first = asyncio.create_task(send(requester, "m-1"))
    await asyncio.sleep(0)
    with pytest.raises(ValueError, match="m-1 is already under way"):
        await send(requester, "m-1")
    await first
    with pytest.raises(ValueError, match="m-1 is already under way"):
        await send(requester, "m-1")
    assert await depth(operator, "escrow") == 1


async def test_a_forbidden_routing_key_is_an_error_and_uses_the_requester_up(
    requester: Requester, broker: PrivateRabbit
) -> None:
    """403 closes the channel: this submit and every later one raise, in the broker's words."""
    with pytest.raises(BrokerUnavailable, match="ACCESS_REFUSED") as refused:
        await send(requester, "m-1", key="v2.escrow.abc")
    assert discreet(refused.value, *passwords(broker))
    with pytest.raises(BrokerUnavailable):
        await send(requester, "m-2")


async def test_a_failed_precondition_is_an_error(link: Link) -> None:
    """406, here for a lifetime that no queue accepts, is mapped too."""
    async with link("fleet") as connection, Requester(connection) as requester:
        with pytest.raises(BrokerUnavailable, match="PRECONDITION_FAILED"):
            await requester.submit("v1.escrow.abc", b"", message_id="m", headers={}, expiration_seconds=-1)


async def test_cancelling_a_submit_uses_the_requester_up(requester: Requester) -> None:
    """Nobody knows whether it was sent, so the same channel must not be asked again."""
    submitting = asyncio.create_task(send(requester, "m-1"))
    await asyncio.sleep(0)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    with pytest.raises(BrokerUnavailable, match="not confirmed"):
        await send(requester, "m-1")


# ---- answers ----


async def answer_all(connection: Connection, queue: str, count: int) -> None:
    """Be a worker that answers `count` messages with their body in capitals."""
    async with Consumer(connection, queue, prefetch_count=100) as consumer:
        while count > 0:
            batch = await consumer.next_batch(100, 0.1)
            for delivery in batch:
                assert await consumer.reply(delivery, delivery.body.upper())
            await consumer.ack_through(batch[-1])
            count -= len(batch)


@pytest.mark.parametrize(
    ("user", "worker", "key"),
    [
        ("fleet", "escrow", "v1.escrow.abc"),
        ("fleet", "recovery", "v1.enrol.abc"),
        ("officer", "recovery", "v1.recovery.x-1"),
    ],
)
async def test_a_round_trip_needs_only_the_rights_of_the_topology(
    link: Link, user: str, worker: str, key: str
) -> None:
    """Least rights on both sides: publish and direct reply-to here, consume and answer there."""
    async with link(user) as asking, Requester(asking) as requester, link(worker) as answering:
        await send(requester, "hello", key=key)
        answered = asyncio.create_task(answer_all(answering, worker, 1))
        assert await requester.answer("hello", 60) == b"HELLO"
        await answered


async def test_every_request_of_a_pipeline_gets_its_own_answer(requester: Requester, link: Link) -> None:
    """A thousand requests at once, far more than may be unconfirmed, are all confirmed and answered."""
    ids = [f"m-{number}" for number in range(1000)]
    async with link("escrow") as answering:
        answered = asyncio.create_task(answer_all(answering, "escrow", len(ids)))
        await asyncio.gather(*(send(requester, one) for one in ids))
        answers = await asyncio.gather(*(requester.answer(one, 60) for one in ids))
        await answered
    assert answers == [one.upper().encode() for one in ids]


async def test_no_answer_in_time_frees_the_id_for_another_try(requester: Requester, link: Link) -> None:
    """NoAnswer says that nothing is known; the same request may be sent again and answered."""
    await send(requester, "m-1")
    with pytest.raises(NoAnswer):
        await requester.answer("m-1", 0.05)
    await send(requester, "m-1")
    async with link("escrow") as answering:
        answered = asyncio.create_task(answer_all(answering, "escrow", 2))
        assert await requester.answer("m-1", 60) == b"M-1"
        await answered


async def test_only_what_was_submitted_can_be_waited_for(requester: Requester) -> None:
    """A wrong id is a mistake of the program and not a silence of the authority."""
    with pytest.raises(ValueError, match="no request m-9"):
        await requester.answer("m-9", 1)


async def test_closing_the_requester_ends_waiting_for_answers(link: Link) -> None:
    """Whoever still waits is told at once."""
    async with link("fleet") as connection:
        async with Requester(connection) as requester:
            await send(requester, "m-1")
            waiting = asyncio.create_task(requester.answer("m-1", 3600))
            await asyncio.sleep(0)
        with pytest.raises(BrokerUnavailable, match="closed"):
            await waiting


async def test_a_connection_closed_by_the_operator_ends_waiting_for_answers(
    requester: Requester, broker: PrivateRabbit
) -> None:
    """All waiting answers fail at once, and so does whatever is asked later."""
    await send(requester, "m-1")
    await send(requester, "m-2")
    waiting = [asyncio.create_task(requester.answer(one, 3600)) for one in ("m-1", "m-2")]
    await asyncio.to_thread(broker.rabbitmqctl, "close_all_user_connections", "fleet", "test")
    for one in waiting:
        with pytest.raises(BrokerUnavailable) as lost:
            await one
        assert discreet(lost.value, *passwords(broker))
    with pytest.raises(BrokerUnavailable):
        await send(requester, "m-3")


async def test_a_connection_that_fell_silent_ends_waiting_after_three_heartbeats(
    broker: PrivateRabbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half open: nothing was closed, nothing arrives. Answer and submit fail with our error, uncancelled."""
    monkeypatch.setattr("strongroom.broker.connection.HEARTBEAT_SECONDS", 1)
    async with proxy(broker.port) as (port, silence):
        url = broker.url("fleet").replace(f":{broker.port}/", f":{port}/")
        async with (
            connect(url, ca_file=broker.ca_file, name="test", timeout_seconds=120) as connection,
            Requester(connection) as requester,
        ):
            await send(requester, "m-1")
            silence.set()
            waiting = [
                asyncio.create_task(requester.answer("m-1", 3600)),
                asyncio.create_task(send(requester, "m-2")),
            ]
            for one in waiting:
                with pytest.raises(BrokerUnavailable):
                    await one
