"""A proxy before PostgreSQL that knows a COMMIT when it sees one, and can lose it or its answer.

It ends TLS with the certificate and key of the server behind it, so that clients verify it as they always do.
PostgreSQL documentation, "Frontend/Backend Protocol": a request for TLS, one untyped startup message, then
messages of a type byte, a length that counts itself, and a body.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from urllib.parse import urlsplit, urlunsplit

from deploy.local.postgres import PrivatePostgres

_TLS_REQUEST = bytes.fromhex("0000000804d2162f")
_TLS_ACCEPTED = b"S"
_QUERY_COMMIT = b"Q" + (4 + len(b"COMMIT\0")).to_bytes(4, "big") + b"COMMIT\0"
_DONE_COMMIT = b"C" + (4 + len(b"COMMIT\0")).to_bytes(4, "big") + b"COMMIT\0"
_CHUNK_BYTES = 65_536


class Loss(Enum):
    """What is lost of the next COMMIT."""

    REQUEST = "failed and not applied"
    ANSWER = "failed but applied"


class CommitProxy:
    """Carries sessions to one server. After `lose`, the next COMMIT, or its answer, gets no further.

    `lost` is set at that moment: for ANSWER the server has committed by then. The session then hangs, as it
    would on a network that is gone, until `cut` breaks all connections.
    """

    def __init__(self, server: PrivatePostgres) -> None:
        self._server = server
        self._port = 0
        self._loss: Loss | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._gone = asyncio.Event()
        self.lost = asyncio.Event()

    def url(self, url: str) -> str:
        """Return the same database URL by way of the proxy."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self._port}"))

    def lose(self, loss: Loss) -> None:
        """Lose this of the next COMMIT."""
        self._loss = loss

    def cut(self) -> None:
        """Break all connections; new ones are carried as if nothing had been."""
        for writer in self._writers:
            writer.transport.abort()
        self._gone.set()
        self._gone = asyncio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["CommitProxy"]:
        """Listen on a free port until the end of the block, which breaks all connections."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            if await reader.readexactly(len(_TLS_REQUEST)) == _TLS_REQUEST:
                writer.write(_TLS_ACCEPTED)
                await writer.start_tls(self._certificate())
                there, back = await self._connect()
                self._writers |= {writer, back}
                await asyncio.gather(self._carry_up(reader, back), self._carry_down(there, writer))
        writer.transport.abort()

    def _certificate(self) -> ssl.SSLContext:
        tls = self._server.place.root / "tls"
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls / "server.pem", tls / "server.key")
        return context

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        writer.write(_TLS_REQUEST)
        if await reader.readexactly(1) != _TLS_ACCEPTED:
            raise ConnectionError("the server takes no TLS")
        context = ssl.create_default_context(cafile=self._server.ca_file)
        await writer.start_tls(context, server_hostname="127.0.0.1")
        return reader, writer

    async def _carry_up(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Carry a client's messages one by one: only whole ones can be recognised."""
        with suppress(OSError, asyncio.IncompleteReadError):
            length = await source.readexactly(4)
            target.write(length + await source.readexactly(int.from_bytes(length, "big") - 4))
            while True:
                head = await source.readexactly(5)
                message = head + await source.readexactly(int.from_bytes(head[1:], "big") - 4)
                if message == _QUERY_COMMIT and self._loss is Loss.REQUEST:
                    await self._lose_it()
                    break
                target.write(message)
                await target.drain()
        target.transport.abort()

    async def _carry_down(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(_CHUNK_BYTES):
                if self._loss is Loss.ANSWER and _DONE_COMMIT in data:
                    await self._lose_it()
                    break
                target.write(data)
                await target.drain()
        target.transport.abort()

    async def _lose_it(self) -> None:
        self._loss = None
        gone = self._gone
        self.lost.set()
        await gone.wait()
