"""The requesting side: agents and officers publish, and wait for answers by direct reply-to."""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic
from pamqp.common import FieldTable

from strongroom.broker.connection import Connection
from strongroom.errors import BrokerUnavailable, NoAnswer, Unroutable
from strongroom.topology import EXCHANGE

DIRECT_REPLY_TO: Final = "amq.rabbitmq.reply-to"
"""RabbitMQ's pseudo-queue: consumed on the channel that publishes, needing no right and no queue."""

IN_FLIGHT_MAX: Final = 256
"""Messages published and not yet confirmed; more of them would only wait longer."""

_MILLISECONDS = 1000


class Requester:
    """Publishes requests on one channel and collects their answers; use it as an async context manager.

    Many requests may be under way at once. An answer belongs to the request whose `message_id` it carries as
    `correlation_id`. Answers come at most once and die with the channel; a request is therefore safe to
    repeat, and what an answer says must be verified from its own signature.

    After a publish that was not confirmed in time, or was cancelled, nothing is known about it and the
    requester is used up: every later call raises BrokerUnavailable and the caller opens another. (The driver
    tells messages that come back as unroutable apart by `message_id`; a second try beside the first would
    swap their results.)
    """

    def __init__(self, connection: Connection, *, name: str | None = None) -> None:
        """Take an open connection.

        Args:
            connection: to the broker.
            name: the sender; if the connection logged in under an account of its own, messages say so in
                `user_id`, which RabbitMQ checks.
        """
        self._connection = connection
        is_own = name is not None and connection.endpoint.is_account_of(name)
        self._user_id = name if is_own else None
        self._channel: AbstractChannel | None = None
        self._unconfirmed = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._answers: dict[str, asyncio.Future[bytes]] = {}
        self._lost: str | None = None

    async def __aenter__(self) -> Self:
        """Open the channel and listen for answers.

        Raises:
            BrokerUnavailable: the connection is gone or does not answer in time.
        """
        channel = await self._connection.channel(confirms=True)
        async with self._connection.asking():
            await channel.basic_consume(DIRECT_REPLY_TO, self._on_answer, no_ack=True)
        channel.closing.add_done_callback(lambda _: self._lose("the connection was lost"))
        self._channel = channel
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop listening; whoever still waits for an answer gets BrokerUnavailable."""
        self._lose("the requester was closed")

    async def submit(
        self,
        routing_key: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, int | str],
        expiration_seconds: float | None,
    ) -> None:
        """Publish a request; when this returns, the broker has confirmed it: it is on disk in a queue.

        Args:
            routing_key: see `strongroom.topology.routing_key`.
            body: the bytes to publish.
            message_id: at most 255 bytes; names the request and its answer.
            headers: hints for the worker; nobody believes them.
            expiration_seconds: when the broker drops it undelivered; None keeps it until a worker takes it.

        Raises:
            ValueError: a request with this id is still unconfirmed or unanswered here.
            Unroutable: no queue took it; it is nowhere.
            BrokerUnavailable: not confirmed; whether the broker has it is not known, unless its queue is
                full.
        """
        if message_id in self._answers:
            raise ValueError(f"request {message_id} is already under way")
        self._answers[message_id] = asyncio.get_running_loop().create_future()
        properties = Basic.Properties(
            message_id=message_id,
            correlation_id=message_id,
            reply_to=DIRECT_REPLY_TO,
            user_id=self._user_id,
            headers=FieldTable(headers),
            expiration=None if expiration_seconds is None else str(int(expiration_seconds * _MILLISECONDS)),
        )
        try:
            async with self._unconfirmed:
                await self._publish(routing_key, body, properties)
        except BaseException:
            self._answers.pop(message_id, None)
            raise

    async def answer(self, message_id: str, timeout_seconds: float) -> bytes:
        """Wait for the answer to a request that was submitted here, and return its body.

        Whatever the outcome, the id is free again afterwards: the same request may be submitted again.

        Raises:
            NoAnswer: none within `timeout_seconds`; whether the request was carried out is not known.
            BrokerUnavailable: the connection was lost, so that none can come any more.
            ValueError: nothing was submitted under this id, or its answer was collected already.
        """
        waiting = self._answers.get(message_id)
        if waiting is None:
            raise ValueError(f"no request {message_id} is under way")
        try:
            async with asyncio.timeout(timeout_seconds):
                return await waiting
        except TimeoutError:
            raise NoAnswer(f"no answer from {self._connection.where} within {timeout_seconds:g} s") from None
        finally:
            self._answers.pop(message_id, None)

    async def _publish(self, routing_key: str, body: bytes, properties: Basic.Properties) -> None:
        if self._lost is not None or self._channel is None:
            raise BrokerUnavailable(self._lost or "the requester is not open")
        outcome_known = False
        try:
            await self._connection.publish(self._channel, EXCHANGE, routing_key, body, properties)
            outcome_known = True
        except Unroutable:
            outcome_known = True
            raise
        finally:
            if not outcome_known:
                self._lose("a message was not confirmed")

    async def _on_answer(self, message: DeliveredMessage) -> None:
        waiting = self._answers.get(message.header.properties.correlation_id or "")
        if waiting is not None and not waiting.done():
            waiting.set_result(message.body)

    def _lose(self, how: str) -> None:
        """Fail everything that waits, now and later."""
        if self._lost is None:
            self._lost = f"{how} ({self._connection.where})"
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(BrokerUnavailable(self._lost))
                waiting.exception()  # an answer that nobody collects is no error
