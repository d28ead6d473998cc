"""Whoever owns the broker: reads, keeps, changes and repeats every message, and knows none of the keys."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic
from tests.support.workers import Brokers

from strongroom import broker as amqp
from strongroom.topology import EXCHANGE

_DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"


@dataclass(frozen=True, slots=True)
class Seen:
    """A message as it came by."""

    routing_key: str
    body: bytes
    message_id: str | None
    reply_to: str | None
    headers: dict[str, Any]

    @classmethod
    def of(cls, message: DeliveredMessage) -> "Seen":
        """Take what the driver delivered."""
        properties = message.header.properties
        return cls(
            message.routing_key or "",
            message.body,
            properties.message_id,
            properties.reply_to,
            dict(properties.headers or {}),
        )


Onward = Callable[[Seen], bytes | None]
"""What a worker is given in the place of a message; None keeps it back."""

Back = Callable[[Seen, bytes], bytes | None]
"""What the sender of a message is given in the place of its answer; None keeps it back."""


def as_it_is(message: Seen) -> bytes:
    """Let a message pass."""
    return message.body


def untouched(_message: Seen, answer: bytes) -> bytes:
    """Let an answer pass."""
    return answer


@asynccontextmanager
async def owning(brokers: Brokers) -> AsyncIterator[AbstractChannel]:
    """Open a channel as the administrator of the broker."""
    async with amqp.connect(
        brokers.url("operator"), ca_file=brokers.ca_file, name="attacker", timeout_seconds=60
    ) as connection:
        yield await connection.channel(confirms=False)


@dataclass(slots=True)
class Tap:
    """Keeps a copy of whatever is published while the block lasts, and publishes it again when asked to."""

    channel: AbstractChannel
    seen: list[Seen] = field(default_factory=list)
    answers: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)

    async def repeat(self, message: Seen) -> bytes:
        """Publish a message again, to be answered here, and return the answer."""
        await self.channel.basic_publish(
            message.body,
            exchange=EXCHANGE,
            routing_key=message.routing_key,
            properties=Basic.Properties(
                message_id=message.message_id, reply_to=_DIRECT_REPLY_TO, headers={}, delivery_mode=2
            ),
        )
        async with asyncio.timeout(60):
            return await self.answers.get()


@asynccontextmanager
async def tapping(brokers: Brokers) -> AsyncIterator[Tap]:
    """Listen in on everything that is published to the workers."""
    async with owning(brokers) as channel:
        tap = Tap(channel)

        async def keep(message: DeliveredMessage) -> None:
            tap.seen.append(Seen.of(message))

        async def answered(message: DeliveredMessage) -> None:
            tap.answers.put_nowait(message.body)

        queue = (await channel.queue_declare("", exclusive=True)).queue or ""
        await channel.queue_bind(queue, EXCHANGE, "v1.#")
        await channel.basic_consume(queue, keep, no_ack=True)
        await channel.basic_consume(_DIRECT_REPLY_TO, answered, no_ack=True)
        yield tap
        await channel.queue_delete(queue)


@asynccontextmanager
async def in_the_middle(
    brokers: Brokers, queue: str, pattern: str, *, onward: Onward = as_it_is, back: Back = untouched
) -> AsyncIterator[list[Seen]]:
    """Stand between senders and a worker: the queue gets what `onward` makes of messages, senders what `back` does.

    Yields the messages as they were sent.
    """
    seen: list[Seen] = []
    asked: dict[str | None, Seen] = {}
    async with owning(brokers) as channel:

        async def take(message: DeliveredMessage) -> None:
            sent = Seen.of(message)
            seen.append(sent)
            asked[sent.message_id] = sent
            body = onward(sent)
            if body is not None:
                await _hand_on(channel, queue, sent, body)

        async def answered(message: DeliveredMessage) -> None:
            sent = asked[message.header.properties.correlation_id]
            body = back(sent, message.body)
            if body is not None:
                await channel.basic_publish(
                    body,
                    exchange="",
                    routing_key=sent.reply_to or "",
                    properties=Basic.Properties(correlation_id=sent.message_id),
                )

        own = (await channel.queue_declare("", exclusive=True)).queue or ""
        await channel.queue_bind(own, EXCHANGE, pattern)
        await channel.queue_unbind(queue, EXCHANGE, pattern)
        try:
            await channel.basic_consume(_DIRECT_REPLY_TO, answered, no_ack=True)
            await channel.basic_consume(own, take, no_ack=True)
            yield seen
        finally:
            await channel.queue_bind(queue, EXCHANGE, pattern)
            await channel.queue_delete(own)


def _hand_on(channel: AbstractChannel, queue: str, sent: Seen, body: bytes) -> Awaitable[object]:
    return channel.basic_publish(
        body,
        exchange="",
        routing_key=queue,
        properties=Basic.Properties(
            message_id=sent.message_id, reply_to=_DIRECT_REPLY_TO, headers=sent.headers, delivery_mode=2
        ),
    )
