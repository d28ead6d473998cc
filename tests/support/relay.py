"""A TCP relay on the loopback interface that can lose a connection at an exact moment."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

_CHUNK_BYTES = 65_536


class Relay:
    """Carries bytes between clients and one server, until told what to do with the next ones.

    `lose_request`: the next bytes from a client never arrive, and its connection breaks. `lose_answer`: the
    next bytes from the server never arrive, and the connection breaks. `keep_answer`: the next bytes from the
    server wait until `let_go`. `seen` is set when that has happened.
    """

    def __init__(self, url: str) -> None:
        """Stand before the server of a URL."""
        self._parts = urlsplit(url)
        self.seen = asyncio.Event()
        self._released = asyncio.Event()
        self._at_request: str | None = None
        self._at_answer: str | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._port = 0

    @property
    def url(self) -> str:
        """The URL of the server, by way of this relay."""
        credentials, at, _ = self._parts.netloc.rpartition("@")
        return urlunsplit(self._parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self._port}"))

    def lose_request(self) -> None:
        """Lose the next bytes that a client sends, and the connection with them."""
        self._at_request = "lose"

    def lose_answer(self) -> None:
        """Lose the next bytes that the server sends, and the connection with them."""
        self._at_answer = "lose"

    def keep_answer(self) -> None:
        """Hold the next bytes that the server sends back until `let_go`."""
        self._at_answer = "keep"

    def let_go(self) -> None:
        """Let bytes pass that were kept."""
        self._released.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Relay"]:
        """Listen on a free port until the end of the block, which breaks all connections."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self._released.set()
            server.close()
            for writer in self._writers:
                writer.transport.abort()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        self._writers |= {writer, back}
        await asyncio.gather(
            self._carry(reader, back, writer, self._take_request),
            self._carry(there, writer, back, self._take_answer),
        )

    async def _carry(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        take: Callable[[], str | None],
    ) -> None:
        try:
            while data := await source.read(_CHUNK_BYTES):
                match take():
                    case "lose":
                        self.seen.set()
                        break
                    case "keep":
                        self.seen.set()
                        await self._released.wait()
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass
        finally:
            target.transport.abort()
            other.transport.abort()

    def _take_request(self) -> str | None:
        action, self._at_request = self._at_request, None
        return action

    def _take_answer(self) -> str | None:
        action, self._at_answer = self._at_answer, None
        return action
