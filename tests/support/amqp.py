"""What no honest client sends: messages put together byte by byte, and servers that are none."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from aiormq.abc import AbstractChannel, ChannelFrame
from pamqp.commands import Basic

_METHOD, _HEADER, _BODY, _END = 1, 2, 3, b"\xce"
_PROPERTIES = (
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "message_type",
    "user_id",
    "app_id",
    "cluster_id",
)


def short(value: bytes) -> bytes:
    """Encode a short string."""
    return bytes([len(value)]) + value


def long(value: bytes) -> bytes:
    """Encode a long string; a table and an array have the same outside."""
    return struct.pack(">I", len(value)) + value


def entry(key: bytes, kind: bytes, value: bytes = b"") -> bytes:
    """Encode one entry of a header table: its key, its one-letter type, its encoded value."""
    return short(key) + kind + value


async def publish_raw(
    channel: AbstractChannel, exchange: str, routing_key: str, body: bytes, **properties: bytes
) -> None:
    """Publish a message whose properties are given as their bytes on the wire.

    Returns when the broker has taken it: a channel answers in order.
    """
    flags = 0
    encoded = b""
    for name in _PROPERTIES:
        if name in properties:
            flags |= Basic.Properties.flags[name]
            encoded += properties[name]
    method = struct.pack(">HHH", Basic.frame_id, 40, 0) + short(exchange.encode()) + short(routing_key.encode())
    frames = [
        _frame(_METHOD, channel.number, method + b"\0"),
        _frame(_HEADER, channel.number, struct.pack(">HHQH", Basic.frame_id, 0, len(body), flags) + encoded),
        _frame(_BODY, channel.number, body),
    ]
    await channel.connection.write_queue.put(ChannelFrame(payload=b"".join(frames), should_close=False))
    await channel.basic_qos(prefetch_count=1, timeout=60)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + _END


@asynccontextmanager
async def tcp_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], host: str = "127.0.0.1"
) -> AsyncIterator[int]:
    """Run a server for one test and yield its port; open connections end with it."""
    writers: list[asyncio.StreamWriter] = []

    async def remember(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await serve(reader, writer)

    server = await asyncio.start_server(remember, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()


@asynccontextmanager
async def proxy(to_port: int, host: str = "127.0.0.1") -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Forward a port of our own to a server; once the event is set, whatever is sent vanishes, ends included."""
    silence, end = asyncio.Event(), asyncio.Event()
    onward: list[asyncio.StreamWriter] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if not silence.is_set():
                    writer.write(data)
        if silence.is_set():
            await end.wait()
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", to_port)
        onward.append(to_server)
        await asyncio.gather(pump(reader, to_server), pump(from_server, writer))

    async with tcp_server(forward, host) as port:
        try:
            yield port, silence
        finally:
            end.set()
            for writer in onward:
                writer.close()
