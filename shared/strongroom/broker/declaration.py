"""Declaring the topology, and comparing a broker with it; agents and workers declare nothing."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity, ChannelPreconditionFailed

from strongroom.broker.connection import Connection, broker_words
from strongroom.errors import ConfigurationInvalid
from strongroom.topology import EXCHANGES, QUEUES, Exchange, Queue

_Declaration = Callable[[AbstractChannel, bool], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference between a broker and the topology: what, what is wrong with it, and what to do."""

    subject: str
    problem: str
    advice: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}; {self.advice}"


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """How many read a queue, and how many messages in it nobody has been given yet."""

    queue: str
    consumers: int
    messages: int


async def queue_loads(connection: Connection) -> list[QueueLoad]:
    """Count readers and waiting messages of each queue of the topology; a queue that is missing is left out.

    Nothing is changed. Raises BrokerUnavailable: the connection is gone, or does not answer in time.
    """
    loads: list[QueueLoad] = []
    for queue in QUEUES:

        async def count(channel: AbstractChannel, passive: bool, name: str = queue.name) -> None:  # noqa: FBT001
            declared = await channel.queue_declare(name, passive=passive)
            loads.append(QueueLoad(name, declared.consumer_count or 0, declared.message_count or 0))

        await _attempt(connection, count, passive=True)
    return loads


async def apply_topology(connection: Connection) -> None:
    """Declare exchanges, queues and bindings; what exists already as it should stays untouched.

    Virtual host, users and rights cannot be declared over AMQP: import the definitions document for them.

    Raises:
        ConfigurationInvalid: something exists under one of the names and is different.
        BrokerUnavailable: no right to declare, or the connection is gone.
    """
    for subject, declaration in _declarations():
        problem = await _attempt(connection, declaration, passive=False)
        if problem is not None:
            finding = _finding(subject, problem)
            raise ConfigurationInvalid(f"{finding.subject}: {finding.problem}", hint=finding.advice)
    await _bind(connection)


async def check_topology(connection: Connection) -> list[Finding]:
    """Compare the broker with the topology and change nothing.

    Existence is checked for every user, types and arguments only for one that may configure (an operator):
    for others RabbitMQ does not say. Bindings and rights are invisible over AMQP; a missing binding shows as
    Unroutable.

    Args:
        connection: to the virtual host.

    Returns:
        What differs; empty if nothing does.

    Raises:
        BrokerUnavailable: the connection is gone, or does not answer in time.
    """
    findings = []
    for subject, declaration in _declarations():
        problem = await _attempt(connection, declaration, passive=True)
        if problem is None:
            problem = await _attempt(connection, declaration, passive=False)
            # No right to declare it means that its arguments cannot be compared, and nothing worse.
            if isinstance(problem, ChannelAccessRefused):
                continue
        if problem is not None:
            findings.append(_finding(subject, problem))
    return findings


def _declarations() -> list[tuple[str, _Declaration]]:
    exchanges = [(f"exchange {one.name}", _exchange(one)) for one in EXCHANGES]
    queues = [(f"queue {one.name}", _queue(one)) for one in QUEUES]
    return exchanges + queues


def _exchange(exchange: Exchange) -> _Declaration:
    return lambda channel, passive: channel.exchange_declare(
        exchange.name, exchange_type="topic", durable=True, passive=passive
    )


def _queue(queue: Queue) -> _Declaration:
    return lambda channel, passive: channel.queue_declare(
        queue.name, durable=True, passive=passive, arguments=dict(queue.arguments())
    )


async def _attempt(connection: Connection, declaration: _Declaration, *, passive: bool) -> Exception | None:
    """Declare on a channel of its own, because a refusal closes the channel; return the refusal."""
    channel = await connection.channel(confirms=False)
    async with connection.asking():
        try:
            await declaration(channel, passive)
        except (ChannelNotFoundEntity, ChannelPreconditionFailed, ChannelAccessRefused) as refusal:
            return refusal
        await channel.close()
    return None


async def _bind(connection: Connection) -> None:
    channel = await connection.channel(confirms=False)
    async with connection.asking():
        for queue in QUEUES:
            for binding in queue.bindings:
                await channel.queue_bind(queue.name, binding.exchange, binding.pattern)
        await channel.close()


def _finding(subject: str, problem: Exception) -> Finding:
    if isinstance(problem, ChannelNotFoundEntity):
        return Finding(subject, "missing", "run strongroom broker apply")
    if isinstance(problem, ChannelAccessRefused):
        return Finding(subject, "this user may not look at it", "import the definitions document")
    return Finding(
        subject, f"different ({broker_words(problem)})", "drain it, delete it, and run strongroom broker apply"
    )
