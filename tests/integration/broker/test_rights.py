"""Rights and topology on a real broker: each user can do what it should and nothing else."""

import os
from collections.abc import Awaitable, Callable, Iterator

import pytest
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused
from deploy.local.rabbitmq import PrivateRabbit
from pamqp.commands import Basic
from tests.integration.broker.conftest import Link, depth
from tests.support.accounts import import_definitions
from tests.support.amqp import entry, long, publish_raw

from strongroom.broker import apply_topology, check_topology, connect
from strongroom.errors import BrokerUnavailable, ConfigurationInvalid
from strongroom.topology import DEAD_EXCHANGE, EVENTS_EXCHANGE, EXCHANGE, EXCHANGES, QUEUES, event_key

Action = Callable[[AbstractChannel], Awaitable[object]]


async def _ignore(_message: object) -> None:
    pass


def publish(exchange: str, key: str) -> Action:
    """Publish an empty message and wait for the confirm."""
    return lambda channel: channel.basic_publish(b"", exchange=exchange, routing_key=key, timeout=60)


def consume(queue: str) -> Action:
    """Begin to consume a queue."""
    return lambda channel: channel.basic_consume(queue, _ignore, timeout=60)


def consume_replies(channel: AbstractChannel) -> Awaitable[object]:
    """Listen for direct replies."""
    return channel.basic_consume("amq.rabbitmq.reply-to", _ignore, no_ack=True, timeout=60)


async def subscribe(channel: AbstractChannel, exchange: str = EVENTS_EXCHANGE) -> None:
    """Make a queue for events, bind it, read it, let it go again."""
    await channel.queue_declare("events.mine", exclusive=True, timeout=60)
    await channel.queue_bind("events.mine", exchange, "v1.#", timeout=60)
    await channel.basic_consume("events.mine", _ignore, timeout=60)
    await channel.queue_unbind("events.mine", exchange, "v1.#", timeout=60)
    await channel.queue_delete("events.mine", timeout=60)


ACTIONS: dict[str, Action] = {
    "publish escrow": publish(EXCHANGE, "v1.escrow.abc"),
    "publish enrol": publish(EXCHANGE, "v1.enrol.abc"),
    "publish recovery": publish(EXCHANGE, "v1.recovery.abc"),
    "publish a bad name": publish(EXCHANGE, "v1.recovery.A_B"),
    "publish a name with a line break": publish(EXCHANGE, "v1.recovery.abc\n"),
    "publish another version": publish(EXCHANGE, "v2.escrow.abc"),
    "publish to the quarantine": publish(DEAD_EXCHANGE, "v1.escrow.abc"),
    "publish an event": publish(EVENTS_EXCHANGE, event_key("released", "abc")),
    "publish an event under a bad key": publish(EVENTS_EXCHANGE, "v1.released.abc\n"),
    "publish to a queue": publish("", "recovery"),
    "publish to another exchange": publish("amq.topic", "v1.escrow.abc"),
    "consume escrow": consume("escrow"),
    "consume recovery": consume("recovery"),
    "consume quarantine": consume("quarantine"),
    "consume direct replies": consume_replies,
    "get from escrow": lambda channel: channel.basic_get("escrow", timeout=60),
    "declare a queue": lambda channel: channel.queue_declare("mine", exclusive=True, timeout=60),
    "declare an exchange": lambda channel: channel.exchange_declare("mine", auto_delete=True, timeout=60),
    "bind a queue": lambda channel: channel.queue_bind("escrow", EXCHANGE, "v1.escrow.*", timeout=60),
    "unbind a queue": lambda channel: channel.queue_unbind("recovery", EXCHANGE, "v1.nothing", timeout=60),
    "purge a queue": lambda channel: channel.queue_purge("escrow", timeout=60),
    "subscribe to events": subscribe,
    "bind a queue of events to requests": lambda channel: subscribe(channel, EXCHANGE),
    "bind another queue to events": lambda channel: channel.queue_bind("escrow", EVENTS_EXCHANGE, "#", timeout=60),
    "delete a queue": lambda channel: channel.queue_delete("quarantine", if_empty=True, timeout=60),
}
ALLOWED = {
    "fleet": {"publish escrow", "publish enrol", "publish recovery", "consume direct replies"},
    "officer": {"publish recovery", "consume direct replies"},
    # Writing to the default exchange is what answering needs; it reaches every queue, so a worker's broker
    # password must not fall into other hands. Workers believe signatures, not queues.
    "escrow": {
        "publish to the quarantine",
        "publish to a queue",
        "consume escrow",
        "consume direct replies",
        "get from escrow",
        "purge a queue",
    },
    "recovery": {
        "publish to the quarantine",
        "publish to a queue",
        "publish an event",
        "consume recovery",
        "consume direct replies",
    },
    "events": {"subscribe to events", "consume direct replies"},
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("user", ALLOWED)
async def test_a_user_can_do_what_it_should_and_nothing_else(user: str, action: str, link: Link) -> None:
    """Every action that is not on a user's list is refused with 403, every one that is works."""
    async with link(user) as connection:
        channel = await connection.channel(confirms=True)
        if action in ALLOWED[user]:
            await ACTIONS[action](channel)
        else:
            with pytest.raises(ChannelAccessRefused):
                await ACTIONS[action](channel)


async def test_a_user_cannot_give_itself_another_name(link: Link) -> None:
    """`user_id` is checked by the broker: 406 for anybody else's."""
    async with link("fleet") as connection:
        channel = await connection.channel(confirms=True)
        with pytest.raises(BrokerUnavailable, match="PRECONDITION_FAILED"):
            await connection.publish(channel, EXCHANGE, "v1.escrow.abc", b"", Basic.Properties(user_id="operator"))


@pytest.mark.parametrize("header", [b"CC", b"BCC"])
async def test_a_carbon_copy_header_gets_around_topic_rights(
    header: bytes, link: Link, operator: AbstractChannel
) -> None:
    """RabbitMQ checks the routing key alone, which the copy keeps: one reason why workers believe signatures."""
    carbon_copy = long(entry(header, b"A", long(b"S" + long(b"v1.escrow.abc"))))
    async with link("officer") as connection:
        channel = await connection.channel(confirms=False)
        await publish_raw(channel, EXCHANGE, "v1.recovery.abc", b"x", headers=carbon_copy)
    copy = await operator.basic_get("escrow", no_ack=True, timeout=60)
    assert (copy.body, copy.routing_key) == (b"x", "v1.recovery.abc")


async def test_a_user_with_an_empty_hash_cannot_log_in(broker: PrivateRabbit) -> None:
    """The shipped definitions leave accounts that no password opens, the empty one included."""
    blank = {
        "name": "blank",
        "password_hash": "",
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": [],
    }
    rights = {"user": "blank", "vhost": "strongroom", "configure": ".*", "write": ".*", "read": ".*"}
    import_definitions(broker, {"users": [blank], "permissions": [rights]})
    try:
        for password in ("", "blank", "x"):
            with pytest.raises(BrokerUnavailable, match="refused the login"):
                async with connect(
                    f"amqps://blank:{password}@127.0.0.1:{broker.port}/strongroom",
                    ca_file=broker.ca_file,
                    name="test",
                ):
                    pass
    finally:
        broker.rabbitmqctl("delete_user", "blank")


# ---- topology ----


@pytest.fixture
def empty_host(broker: PrivateRabbit) -> Iterator[str]:
    """The URL of an empty virtual host for the operator."""
    name = f"empty-{os.getpid()}"
    broker.rabbitmqctl("add_vhost", name)
    broker.rabbitmqctl("set_permissions", "-p", name, "operator", ".*", ".*", ".*")
    yield broker.url("operator").rpartition("/")[0] + f"/{name}"
    broker.rabbitmqctl("delete_vhost", name)


def listed(broker: PrivateRabbit, host: str) -> list[list[str]]:
    """What a virtual host holds, as `rabbitmqctl` lists it."""
    queries = (
        ("list_exchanges", "name", "type", "durable", "auto_delete", "internal", "arguments"),
        ("list_queues", "name", "durable", "auto_delete", "arguments"),
        ("list_bindings", "source_name", "destination_name", "destination_kind", "routing_key", "arguments"),
    )
    return [sorted(broker.rabbitmqctl(query[0], "-p", host, *query[1:]).splitlines()) for query in queries]


async def test_applying_declares_exactly_what_the_definitions_hold(broker: PrivateRabbit, empty_host: str) -> None:
    """Both ways into a broker give the same; applying twice changes nothing."""
    async with connect(empty_host, ca_file=broker.ca_file, name="test") as connection:
        await apply_topology(connection)
        await apply_topology(connection)
        assert await check_topology(connection) == []
    assert listed(broker, empty_host.rpartition("/")[2]) == listed(broker, "strongroom")


async def test_what_is_missing_is_found_and_not_created(broker: PrivateRabbit, empty_host: str) -> None:
    """Checking names every exchange and queue that is missing, says what to do, and leaves the broker as it was."""
    async with connect(empty_host, ca_file=broker.ca_file, name="test") as connection:
        for _ in range(2):
            findings = await check_topology(connection)
            assert [one.subject for one in findings] == [
                *(f"exchange {exchange.name}" for exchange in EXCHANGES),
                *(f"queue {queue.name}" for queue in QUEUES),
            ]
            assert {str(one).partition(": ")[2] for one in findings} == {"missing; run strongroom broker apply"}


async def test_a_difference_is_found_and_applying_refuses_to_touch_it(
    broker: PrivateRabbit, empty_host: str
) -> None:
    """A queue without its arguments, and an exchange of another type, are named with the broker's words."""
    async with connect(empty_host, ca_file=broker.ca_file, name="test") as connection:
        channel = await connection.channel(confirms=False)
        await channel.queue_declare("escrow", durable=True, arguments={"x-queue-type": "quorum"}, timeout=60)
        await channel.exchange_declare(DEAD_EXCHANGE, exchange_type="fanout", durable=True, timeout=60)
        findings = {one.subject: one for one in await check_topology(connection)}
        assert "inequivalent arg" in findings["queue escrow"].problem
        assert "fanout" in findings[f"exchange {DEAD_EXCHANGE}"].problem
        with pytest.raises(ConfigurationInvalid, match="PRECONDITION_FAILED") as refused:
            await apply_topology(connection)
        assert "delete it" in (refused.value.hint or "")


@pytest.mark.parametrize("user", ["escrow", "recovery", "events", "fleet", "officer"])
async def test_a_user_without_rights_to_configure_can_check_what_exists(user: str, link: Link) -> None:
    """On 3.10 a passive declaration needs no right, so a worker can look for its queue before it starts."""
    async with link(user) as connection:
        assert await check_topology(connection) == []


async def test_only_the_operator_can_apply(link: Link, operator: AbstractChannel) -> None:
    """A worker's user is refused, in words."""
    async with link("escrow") as connection:
        with pytest.raises(ConfigurationInvalid, match="this user may not"):
            await apply_topology(connection)
    assert await depth(operator, "escrow") == 0
