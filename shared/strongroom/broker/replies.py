"""Answers by direct reply-to, at most once, to addresses that anybody may have forged.

The address in `reply_to` is whatever the sender wrote, unless it wrote the one name that RabbitMQ replaces by
a real address. A queue's name there would turn the worker into somebody who writes to that queue for others.
An address of the right shape but with a wrong inside makes RabbitMQ 3.10 fail while it decodes it, and it
then closes the connection that tried to answer. Both must cost the worker nothing, so:

- only the shape of a real address is answered, byte for byte canonical;
- answers leave over a connection of their own, never the consumer's;
- the first answer to each broker node is tried over a connection made for it, because only a broker can tell
  whether the node in an address exists; a failure there bars unknown nodes for a moment.
"""

import asyncio
import base64
import binascii
import re
from dataclasses import replace
from typing import Final

from pamqp.commands import Basic

from strongroom.broker.connection import Connection, Outlet, driver_errors_as_ours
from strongroom.broker.endpoint import Endpoint
from strongroom.errors import StrongroomError

KNOWN_NODES_MAX: Final = 64
"""Broker nodes remembered; the one not heard of for longest is forgotten first."""

NEW_NODES_AT_ONCE: Final = 8
"""So many nodes may turn up without a pause between them: more than a cluster has."""

UNKNOWN_NODE_PAUSE_SECONDS: Final = 10.0
"""After a node that does not exist, or one too many, the next unknown one waits this long, and answers to it
are dropped: each name leaves a trace in the broker's memory that it never frees."""

OUTLET_PAUSE_SECONDS: Final = 5.0
"""After an answer that could not be sent, answers are dropped for this long."""

SENDING_SECONDS_MAX: Final = 2.0
"""A network that does not take an answer within this time holds the worker up no longer."""

ANSWERS_UNFLUSHED_MAX: Final = 32
"""After so many answers the next one waits until the network has taken them."""

_CORRELATION_ID_BYTES_MAX = 255
_ADDRESS = re.compile(r"amq\.rabbitmq\.reply-to\.(?P<channel>[A-Za-z0-9+/]+=?=?)\.[A-Za-z0-9+/]+=?=?")
# Erlang's external term format of a process id ends in id, serial and creation, 4 bytes each.
_PROCESS_NUMBERS_BYTES = 12
_PLATFORM = re.compile(r"Erlang/OTP (?P<release>\d+)")
# Before this release, process ids beyond these bounds do not decode; after it there are none.
_ERLANG_WIDE_PROCESS_IDS = 26
_NARROW_ID_MAX = 2**15 - 1
_NARROW_SERIAL_MAX = 2**13 - 1


def reply_node(address: str | None) -> bytes | None:
    """Return the broker node inside a direct reply-to address, or None for anything else.

    Args:
        address: `amq.rabbitmq.reply-to.<channel process, base64>.<key, base64>` as RabbitMQ writes it
            (rabbit_channel, pid_recomposition).
    """
    process = _process(address)
    return None if process is None else process[:-_PROCESS_NUMBERS_BYTES]


def has_narrow_process_id(address: str) -> bool:
    """Whether the process id in an address decodes on Erlang before release 26."""
    process = _process(address)
    if process is None:
        return False
    numbers = process[-_PROCESS_NUMBERS_BYTES:]
    return (
        int.from_bytes(numbers[0:4], "big") <= _NARROW_ID_MAX
        and int.from_bytes(numbers[4:8], "big") <= _NARROW_SERIAL_MAX
    )


def _process(address: str | None) -> bytes | None:
    match = _ADDRESS.fullmatch(address or "")
    if match is None:
        return None
    try:
        process = base64.b64decode(match["channel"], validate=True)
    except binascii.Error:
        return None
    if len(process) <= _PROCESS_NUMBERS_BYTES or base64.b64encode(process).decode("ascii") != match["channel"]:
        return None
    return process


class Replies:
    """Sends answers; nothing that happens to one of them reaches the caller."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = replace(
            endpoint, name=f"{endpoint.name} first answer", timeout_seconds=SENDING_SECONDS_MAX
        )
        self._outlet = Outlet(endpoint, "answers", confirms=False)
        self._nodes: dict[bytes, None] = {}
        self._introducing = asyncio.Lock()
        self._no_new_node_before = 0.0
        self._no_answer_before = 0.0
        self._sent = 0

    async def send(self, address: str | None, correlation_id: str | None, body: bytes) -> bool:
        """Hand an answer to the broker, if it may be and can be; False when it was dropped.

        True says that it was sent, not that anybody received it. An answer is dropped, never waited with,
        while the broker holds publishers up.
        """
        node = reply_node(address)
        if address is None or node is None or correlation_id is None:
            return False
        if len(correlation_id.encode()) > _CORRELATION_ID_BYTES_MAX:
            return False
        properties = Basic.Properties(correlation_id=correlation_id, message_id=correlation_id)
        if node not in self._nodes:
            async with self._introducing:
                if node not in self._nodes:
                    return await self._introduce(node, address, body, properties)
        return await self._send(node, address, body, properties)

    async def close(self) -> None:
        """Close the connection for answers; never raises."""
        await self._outlet.close()

    async def _send(self, node: bytes, address: str, body: bytes, properties: Basic.Properties) -> bool:
        if _now() < self._no_answer_before:
            return False
        try:
            connection, channel = await self._outlet.use()
            if connection.is_blocked or not _decodes(address, connection):
                return False
            with driver_errors_as_ours(connection.where):
                async with asyncio.timeout(SENDING_SECONDS_MAX):
                    # Waiting for the socket now and then keeps a slow network from piling answers up in memory;
                    # waiting every time would make each answer a packet and a turn of the loop of its own.
                    self._sent += 1
                    flush = self._sent % ANSWERS_UNFLUSHED_MAX == 0
                    await channel.basic_publish(body, routing_key=address, properties=properties, wait=flush)
        except StrongroomError:
            self._no_answer_before = _now() + OUTLET_PAUSE_SECONDS
            return False
        self._nodes[node] = self._nodes.pop(node, None)
        return True

    async def _introduce(self, node: bytes, address: str, body: bytes, properties: Basic.Properties) -> bool:
        if _now() < self._no_new_node_before:
            return False
        self._no_new_node_before = _now() + UNKNOWN_NODE_PAUSE_SECONDS
        try:
            if not await self._reaches(address, body, properties):
                return False
        except StrongroomError:
            return False
        if len(self._nodes) >= KNOWN_NODES_MAX:
            del self._nodes[next(iter(self._nodes))]
        self._nodes[node] = None
        if len(self._nodes) < NEW_NODES_AT_ONCE:
            self._no_new_node_before = 0.0
        return True

    async def _reaches(self, address: str, body: bytes, properties: Basic.Properties) -> bool:
        connection = await Connection.open(self._endpoint)
        try:
            channel = await connection.channel(confirms=False)
            if not _decodes(address, connection):
                return False
            async with connection.asking():
                await channel.basic_publish(body, routing_key=address, properties=properties)
                # A channel answers in order: whoever answers this has survived the address.
                await channel.basic_qos(prefetch_count=1)
        finally:
            await connection.close()
        return True


def _decodes(address: str, connection: Connection) -> bool:
    match = _PLATFORM.match(str(connection.server_properties.get("platform")))
    is_narrow = match is not None and int(match["release"]) < _ERLANG_WIDE_PROCESS_IDS
    return not is_narrow or has_narrow_process_id(address)


def _now() -> float:
    return asyncio.get_running_loop().time()
