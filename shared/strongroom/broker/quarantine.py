"""The quarantine: what is put into it, and what an operator can do with it.

A message gets here when a worker found it permanently bad, or had it given back too often; the worker says why in
`x-strongroom-code` and `x-strongroom-reason`.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic
from pamqp.common import FieldTable

from strongroom.amqp_decoding import UNDECODABLE_HEADER
from strongroom.broker.connection import Connection
from strongroom.broker.endpoint import printable
from strongroom.errors import StrongroomError
from strongroom.topology import EXCHANGE, QUARANTINE_QUEUE

CODE_HEADER: Final = "x-strongroom-code"
REASON_HEADER: Final = "x-strongroom-reason"
MESSAGE_ID_HEADER: Final = "x-strongroom-message-id"
TIME_HEADER: Final = "x-strongroom-quarantined-at"
"""Microseconds since 1970: finer than AMQP's timestamp, so that a list can be in order."""

_ROUTING_KEY_BYTES_MAX = 255
_ID_CHARACTERS = 16
_REASON_CHARACTERS_MAX = 500
_SHORT_TEXT_BYTES_MAX = 255
_HEADERS_MAX = 32
_INTEGER_BITS_MAX = 63
_RETURNING_SECONDS_MAX = 5.0
_LOOKING_SECONDS = 0.01
_EPOCH = datetime.fromtimestamp(0, UTC)
# Routed upon (CC, BCC), counted upon (x-death and its kin) or written by us: whoever passes them on changes
# what happens to the copy.
_NEVER_COPIED = frozenset(
    {"CC", "BCC", CODE_HEADER, REASON_HEADER, MESSAGE_ID_HEADER, TIME_HEADER, UNDECODABLE_HEADER}
)
_NEVER_COPIED_PREFIXES = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-opt-", "x-stream-")


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One quarantined message.

    `id` is made from body and routing key, so it is the same on every look; identical copies share it. `code` and
    `reason` are the worker's, `quarantined_at` its time, None if unknown.
    """

    id: str
    routing_key: str
    code: str
    reason: str
    quarantined_at: datetime | None
    message_id: str | None
    body: bytes = field(repr=False)


def publishable_routing_key(key: str | None) -> str:
    """Return a routing key that AMQP can carry: at most 255 bytes. One that was not UTF-8 grew by its escapes."""
    return (key or "").encode()[:_ROUTING_KEY_BYTES_MAX].decode(errors="ignore")


def quarantine_id(routing_key: str, body: bytes) -> str:
    """Return the id of a quarantined message: 16 hex digits of SHA-256 over routing key and body.

    The routing key goes first, with its length in 2 bytes before it.
    """
    key = routing_key.encode()
    return hashlib.sha256(len(key).to_bytes(2, "big") + key + body).hexdigest()[:_ID_CHARACTERS]


def safe_headers(headers: Mapping[str, object]) -> dict[str, int | str]:
    """Return those headers that can be passed on: few, flat, encodable, and without effect on RabbitMQ."""
    safe: dict[str, int | str] = {}
    for name, value in headers.items():
        if len(safe) == _HEADERS_MAX:
            break
        if name in _NEVER_COPIED or name.startswith(_NEVER_COPIED_PREFIXES) or not _is_short(name):
            continue
        if isinstance(value, str):
            if _is_short(value):
                safe[name] = value
        elif isinstance(value, int) and value.bit_length() <= _INTEGER_BITS_MAX:
            safe[name] = value
    return safe


def quarantine_properties(
    headers: Mapping[str, object], *, message_id: str | None, code: str, reason: str
) -> Basic.Properties:
    """Return the properties of a message's copy in the quarantine.

    Neither its expiration (the copy would vanish) nor its reply address nor its user is passed on, and its
    message id only as a header, because copies of one message may be under way on a channel at once.
    """
    copied: FieldTable = {
        **safe_headers(headers),
        CODE_HEADER: code,
        REASON_HEADER: printable(reason)[:_REASON_CHARACTERS_MAX],
        TIME_HEADER: time.time_ns() // 1000,
    }
    if message_id is not None and _is_short(message_id):
        copied[MESSAGE_ID_HEADER] = message_id
    return Basic.Properties(headers=copied)


async def peek(connection: Connection, limit: int) -> list[Quarantined]:
    """Look at quarantined messages without removing them, the longest quarantined first.

    At most `limit` are taken from the queue, and all are given back. If there are more, the broker decides which
    ones are seen, for it keeps no order of messages that it has given out before; the list is therefore sorted by
    time. What is being looked at is hidden from others who look at the same time. The list holds the bodies, up to
    1 MiB each.

    Raises:
        BrokerUnavailable: no right to read the quarantine, or the connection is gone.
        Unroutable: there is no quarantine.
    """
    found: list[Quarantined] = []
    async with _taking(connection) as taking:
        while len(found) < limit and (message := await _get(connection, taking)) is not None:
            found.append(_quarantined(message))
    return sorted(found, key=lambda one: (one.quarantined_at or _EPOCH, one.id))


async def find(connection: Connection, wanted: str) -> Quarantined | None:
    """Return the quarantined message with this id, see `quarantine_id`, and leave it there; None if there is none.

    The whole quarantine is searched, with one body in memory at a time. Errors as for `peek`.
    """
    async with _taking(connection) as taking:
        for _ in range(taking.ready):
            message = await _get(connection, taking)
            if message is None:
                break
            one = _quarantined(message)
            if one.id == wanted:
                return one
    return None


async def requeue(connection: Connection, ids: Collection[str]) -> frozenset[str]:
    """Publish quarantined messages again under their routing keys, then remove them.

    Each is removed when the broker has confirmed the new one, never before.

    The new message starts over: delivery count zero, no reply address. A crash between confirm and removal
    leaves both, which is harmless, since statements are idempotent.

    Args:
        connection: of a user that may read the quarantine and write to the exchange.
        ids: what to requeue, see `quarantine_id`; every copy is requeued. The whole quarantine is searched.

    Returns:
        The ids that were found.

    Raises:
        Unroutable: no queue takes one of them; it and those behind it stay in the quarantine.
        BrokerUnavailable: not confirmed; it and those behind it stay in the quarantine.
    """
    publishing = await connection.channel(confirms=True)
    try:
        return await _take(connection, ids, publishing)
    finally:
        await _close(connection, publishing)


async def drop(connection: Connection, ids: Collection[str]) -> frozenset[str]:
    """Remove quarantined messages for good; arguments and result as for `requeue`.

    Raises:
        BrokerUnavailable: no right to read the quarantine, or the connection is gone.
        Unroutable: there is no quarantine.
    """
    return await _take(connection, ids, None)


async def _take(connection: Connection, ids: Collection[str], publishing: AbstractChannel | None) -> frozenset[str]:
    found: set[str] = set()
    async with _taking(connection) as taking:
        for _ in range(taking.ready):
            message = await _get(connection, taking)
            if message is None:
                break
            one = _quarantined(message)
            if one.id not in ids:
                continue
            if publishing is not None:
                properties = Basic.Properties(
                    message_id=one.message_id, headers={**safe_headers(message.header.properties.headers or {})}
                )
                await connection.publish(publishing, EXCHANGE, one.routing_key, one.body, properties)
            async with connection.asking():
                await taking.channel.basic_ack(message.delivery_tag or 0)
            taking.removed += 1
            found.add(one.id)
    return frozenset(found)


@dataclass(slots=True)
class _Taking:
    """A channel that takes messages from a queue that held `ready` of them, and the number that it removed."""

    channel: AbstractChannel
    ready: int
    removed: int = 0


@asynccontextmanager
async def _taking(connection: Connection) -> AsyncIterator[_Taking]:
    """Open a channel for taking messages; what is not acknowledged at the end is back when this ends."""
    channel = await connection.channel(confirms=False)
    taking = _Taking(channel, await _ready(connection, channel))
    try:
        yield taking
    finally:
        with suppress(StrongroomError):
            await _close(connection, channel)
            await _returned(connection, taking)


async def _returned(connection: Connection, taking: _Taking) -> None:
    """Wait until what was given back is in the queue again: the broker does that later, a few at a time.

    Somebody else may take messages meanwhile, so this does not wait for long.
    """
    watching = await connection.channel(confirms=False)
    with suppress(TimeoutError):
        async with asyncio.timeout(_RETURNING_SECONDS_MAX):
            while await _ready(connection, watching) < taking.ready - taking.removed:  # noqa: ASYNC110  no event says so
                await asyncio.sleep(_LOOKING_SECONDS)
    await _close(connection, watching)


async def _ready(connection: Connection, channel: AbstractChannel) -> int:
    async with connection.asking():
        return (await channel.queue_declare(QUARANTINE_QUEUE, passive=True)).message_count or 0


async def _get(connection: Connection, taking: _Taking) -> DeliveredMessage | None:
    async with connection.asking():
        message = await taking.channel.basic_get(QUARANTINE_QUEUE)
    return None if isinstance(message.delivery, Basic.GetEmpty) else message


async def _close(connection: Connection, channel: AbstractChannel) -> None:
    with suppress(StrongroomError):
        async with connection.asking():
            await channel.close()


def _quarantined(message: DeliveredMessage) -> Quarantined:
    headers = message.header.properties.headers or {}
    routing_key = publishable_routing_key(message.routing_key)
    message_id = headers.get(MESSAGE_ID_HEADER)
    return Quarantined(
        id=quarantine_id(routing_key, message.body),
        routing_key=routing_key,
        code=str(headers.get(CODE_HEADER, "unknown")),
        reason=str(headers.get(REASON_HEADER, "")),
        quarantined_at=_time(headers.get(TIME_HEADER)),
        message_id=message_id if isinstance(message_id, str) and _is_short(message_id) else None,
        body=message.body,
    )


def _time(microseconds: object) -> datetime | None:
    with suppress(OverflowError):
        return _EPOCH + timedelta(microseconds=microseconds) if isinstance(microseconds, int) else None
    return None


def _is_short(text: str) -> bool:
    return len(text.encode()) <= _SHORT_TEXT_BYTES_MAX
