"""The answering side: workers take deliveries in batches, settle them by hand, answer, and quarantine."""

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from strongroom.amqp_decoding import UNDECODABLE_HEADER
from strongroom.broker.connection import Connection, Outlet
from strongroom.broker.quarantine import publishable_routing_key, quarantine_properties
from strongroom.broker.replies import Replies, reply_node
from strongroom.errors import BrokerUnavailable, StrongroomError
from strongroom.topology import DEAD_EXCHANGE, DELIVERIES_MAX, EVENTS_EXCHANGE

LULL_SECONDS: Final = 0.001
"""A batch is closed as soon as nothing has arrived for this long."""

_DELIVERY_COUNT_HEADER = "x-delivery-count"  # set by the broker, whatever the sender wrote


@dataclass(frozen=True, slots=True)
class Delivery:
    r"""One message as it was delivered; nothing in it is believed before its body's signature is verified.

    `user_id` is the broker account that published it, which RabbitMQ has checked, or None where nothing says.
    `reply_to` is a direct reply-to address or None, whatever the sender wrote. Text that was not UTF-8 has
    `\xNN` escapes, a header table that did not decode is `{amqp_decoding.UNDECODABLE_HEADER: why}`.
    `consumer_tag` and `delivery_tag` say which consumer may settle it.
    """

    body: bytes = field(repr=False)
    routing_key: str
    message_id: str | None
    correlation_id: str | None
    reply_to: str | None
    user_id: str | None
    headers: Mapping[str, object]
    redelivered: bool
    delivery_tag: int
    consumer_tag: str


class Consumer:
    """Consumes one queue with a bounded number of unsettled deliveries; use it as an async context manager.

    Nothing is acknowledged unless the caller says so, with one exception: a message that was given back more than
    `DELIVERIES_MAX` times, because it or one beside it brought a worker down or made it fail, is put into the
    quarantine with the code `delivery_limit` and then acknowledged; the caller never sees it. A worker that takes
    one message at a time (`prefetch_count=1`) loses none of the others by that.

    When the connection or the channel is lost, or the broker cancels the consumer (its queue was deleted or
    moved), `next_batch` raises BrokerUnavailable at once; everything unsettled is then redelivered by the broker,
    to this or another worker. The caller opens a new connection and consumer.
    """

    def __init__(self, connection: Connection, queue: str, *, prefetch_count: int) -> None:
        self._connection = connection
        self._queue = queue
        self._prefetch_count = prefetch_count
        self._channel: AbstractChannel | None = None
        self._consumer_tag = ""
        self._arrived: deque[DeliveredMessage] = deque()
        self._arrival = asyncio.Event()
        self._unsettled: dict[int, Delivery] = {}
        self._lost: str | None = None
        self._replies = Replies(connection.endpoint)
        self._quarantine = Outlet(connection.endpoint, "quarantine", confirms=True)
        self._events = Outlet(connection.endpoint, "events", confirms=True)

    async def __aenter__(self) -> Self:
        """Start consuming.

        Raises:
            Unroutable: there is no such queue.
            BrokerUnavailable: no right to read it, or the connection is gone.
        """
        channel = await self._connection.channel(confirms=False)
        channel.closing.add_done_callback(lambda _: self._lose("the connection was lost"))
        channel.on_consumer_cancel_callbacks.add(
            lambda _: self._lose(f"the broker ended the consumer of queue {self._queue}")
        )
        async with self._connection.asking():
            await channel.basic_qos(prefetch_count=self._prefetch_count)
            consuming = await channel.basic_consume(self._queue, self._on_delivery)
        self._consumer_tag = consuming.consumer_tag or ""
        self._channel = channel
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop consuming; what is unsettled goes back to the queue."""
        self._lose("the consumer was closed")
        try:
            if self._channel is not None:
                with suppress(StrongroomError):
                    async with self._connection.asking():
                        await self._channel.close()
        finally:
            await self._replies.close()
            await self._quarantine.close()
            await self._events.close()

    async def next_batch(
        self, count_max: int, wait_seconds_max: float, stop: asyncio.Event | None = None
    ) -> list[Delivery]:
        """Wait for a delivery, then return it with those that arrived close behind it, in order of delivery.

        The batch ends at `count_max` deliveries, or when nothing arrives for `LULL_SECONDS`, or `wait_seconds_max`
        after the first. So a lone message is handed over about a millisecond after it came, while under load
        batches grow as far as they may. Cancelling loses nothing. Only one task may wait here.

        Args:
            count_max: the largest batch; a prefetch of twice as many keeps the next one coming meanwhile.
            wait_seconds_max: how long a batch may grow while deliveries keep coming.
            stop: once this is set the batch is empty, and what has arrived is left for others.

        Raises:
            BrokerUnavailable: the connection, channel or consumer is gone; deliveries not yet returned are
                redelivered.
        """
        while True:
            await self._gather(count_max, wait_seconds_max, stop)
            if stop is not None and stop.is_set():
                return []
            await self._set_aside()
            batch = [self._delivery(self._arrived.popleft()) for _ in range(min(count_max, len(self._arrived)))]
            if not self._arrived:
                self._arrival.clear()
            if batch:
                break
        self._unsettled |= {delivery.delivery_tag: delivery for delivery in batch}
        return batch

    async def ack_through(self, delivery: Delivery) -> None:
        """Acknowledge this delivery and every unsettled one before it, in one frame.

        Those that must not be acknowledged have to be requeued first. Returns when the frame is on its way; a
        lost connection means redelivery, so what was done must be safe to repeat.

        Raises:
            BrokerUnavailable: the connection is gone, or the delivery came over an earlier one.
        """
        self._check_mine(delivery)
        tags = [tag for tag in self._unsettled if tag <= delivery.delivery_tag]
        if tags:
            await self._ack(tags, multiple=True)

    async def ack(self, delivery: Delivery) -> None:
        """Acknowledge one delivery.

        Raises:
            BrokerUnavailable: the connection is gone, or the delivery came over an earlier one.
            ValueError: it is settled already.
        """
        self._check_unsettled(delivery)
        await self._ack([delivery.delivery_tag], multiple=False)

    async def reply(self, delivery: Delivery, body: bytes) -> bool:
        """Answer the sender, at most once; False if the answer was dropped. Never raises.

        It is dropped when `reply_to` was no direct reply-to address, when the broker holds publishers up, and
        when it cannot be sent. A sender that is gone cannot be noticed.
        """
        return await self._replies.send(delivery.reply_to, delivery.message_id or delivery.correlation_id, body)

    async def quarantine(self, delivery: Delivery, code: str, reason: str) -> None:
        """Put a copy of a permanently bad message into the quarantine; the caller acknowledges it afterwards.

        The copy has the same body and routing key, those headers and properties that are safe to pass on, and
        the headers `x-strongroom-code` and `x-strongroom-reason`. When this returns the broker has confirmed
        it.

        Raises:
            BrokerUnavailable: not confirmed; the delivery must not be acknowledged.
            Unroutable: the quarantine does not exist.
        """
        connection, channel = await self._quarantine.use()
        properties = quarantine_properties(
            delivery.headers, message_id=delivery.message_id, code=code, reason=reason
        )
        try:
            await connection.publish(channel, DEAD_EXCHANGE, delivery.routing_key, delivery.body, properties)
        except BrokerUnavailable:
            await self._quarantine.abandon(channel)
            raise

    async def announce(self, routing_key: str, body: bytes, *, message_id: str) -> bool:
        """Publish an event to whoever subscribed to it, perhaps nobody; the broker has dealt with it on return.

        It may be repeated, and subscribers see each try: `message_id` lets them tell. No subscriber can make this
        fail: what a subscriber's queue refuses is that subscriber's loss.

        Args:
            routing_key: see `strongroom.topology.event_key`.
            body: the bytes to publish.
            message_id: at most 255 bytes; the same for each try.

        Returns:
            Whether it is on disk in the queue of every subscriber; False if one of them is full or down.

        Raises:
            BrokerUnavailable: not confirmed; whether anybody got it is not known.
            Unroutable: there is no exchange for events.
        """
        connection, channel = await self._events.use()
        properties = Basic.Properties(message_id=message_id)
        try:
            return await connection.publish(
                channel, EVENTS_EXCHANGE, routing_key, body, properties, mandatory=False
            )
        except BrokerUnavailable:
            await self._events.abandon(channel)
            raise

    async def _ack(self, tags: list[int], *, multiple: bool) -> None:
        for tag in tags:
            del self._unsettled[tag]
        channel = self._raise_if_lost()
        async with self._connection.asking():
            await channel.basic_ack(tags[-1], multiple=multiple)

    async def _gather(self, count_max: int, wait_seconds_max: float, stop: asyncio.Event | None) -> None:
        if not self._arrival.is_set():
            await _first_of(self._arrival, stop)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait_seconds_max
        seen = 0
        while seen < len(self._arrived) < count_max and loop.time() < deadline:
            seen = len(self._arrived)
            await asyncio.sleep(LULL_SECONDS)
        self._raise_if_lost()

    async def _set_aside(self) -> None:
        for message in [one for one in self._arrived if one.redelivered]:
            if (reason := _worn_out(message)) is None:
                continue
            delivery = self._delivery(message)
            await self.quarantine(delivery, "delivery_limit", reason)
            self._arrived.remove(message)
            self._unsettled[delivery.delivery_tag] = delivery
            await self.ack(delivery)

    async def _on_delivery(self, message: DeliveredMessage) -> None:
        self._arrived.append(message)
        self._arrival.set()

    def _delivery(self, message: DeliveredMessage) -> Delivery:
        properties = message.header.properties
        return Delivery(
            body=message.body,
            routing_key=publishable_routing_key(message.routing_key),
            message_id=properties.message_id,
            correlation_id=properties.correlation_id,
            reply_to=properties.reply_to if reply_node(properties.reply_to) else None,
            user_id=properties.user_id,
            headers=properties.headers or {},
            redelivered=bool(message.redelivered),
            delivery_tag=message.delivery_tag or 0,
            consumer_tag=self._consumer_tag,
        )

    def _check_mine(self, delivery: Delivery) -> AbstractChannel:
        channel = self._raise_if_lost()
        if delivery.consumer_tag != self._consumer_tag:
            raise BrokerUnavailable("this delivery came over a connection that is gone; it will be redelivered")
        return channel

    def _check_unsettled(self, delivery: Delivery) -> AbstractChannel:
        channel = self._check_mine(delivery)
        if delivery.delivery_tag not in self._unsettled:
            raise ValueError(f"delivery {delivery.delivery_tag} is settled already")
        return channel

    def _raise_if_lost(self) -> AbstractChannel:
        if self._lost is not None or self._channel is None:
            raise BrokerUnavailable(f"{self._lost or 'the consumer is not open'} ({self._connection.where})")
        return self._channel

    def _lose(self, how: str) -> None:
        self._lost = self._lost or how
        self._arrival.set()


def _worn_out(message: DeliveredMessage) -> str | None:
    headers = message.header.properties.headers or {}
    count = headers.get(_DELIVERY_COUNT_HEADER)
    if isinstance(count, int) and count > DELIVERIES_MAX:
        return f"given back {count} times"
    if UNDECODABLE_HEADER in headers:
        return "given back, with headers that nobody honest sends and in which nothing can be counted"
    return None


async def _first_of(arrival: asyncio.Event, stop: asyncio.Event | None) -> None:
    if stop is None:
        await arrival.wait()
        return
    waiting = {asyncio.ensure_future(event.wait()) for event in (arrival, stop)}
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
