"""A gate on the way to one TCP server: it carries bytes it does not understand, until it is told to keep them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

_CHUNK_BYTES = 65_536


@dataclass(eq=False)
class _Way:
    """One direction of one connection; `passable` is cleared to keep what comes."""

    passable: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.passable.set()


class Gate:
    """Stands before the server of a URL. Certificates for its host are good for the gate's port too.

    `held` is set when something was kept: a connection, or bytes that a client sent. `came_down` is set when an
    answer of at least `answer_bytes_min` bytes has been passed on to a client.
    """

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._port = 0
        self._new_ones_pass = asyncio.Event()
        self._new_ones_pass.set()
        self._up: set[_Way] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._answer_bytes_min: int | None = None
        self.held = asyncio.Event()
        self.came_down = asyncio.Event()

    def url(self, url: str) -> str:
        """Return the same URL by way of the gate."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{self._port}"))

    def hold_new_connections(self) -> None:
        """Take connections from now on, and carry nothing over them."""
        self._new_ones_pass.clear()

    def hold_uploads(self) -> None:
        """Keep what clients send from now on over the connections that are open now."""
        for way in self._up:
            way.passable.clear()

    def watch_for_answer(self, answer_bytes_min: int) -> None:
        """Set `came_down` when the next answer of this size has been passed on."""
        self._answer_bytes_min = answer_bytes_min

    def open(self) -> None:
        """Let everything pass, also what was kept."""
        self._new_ones_pass.set()
        for way in self._up:
            way.passable.set()

    def cut(self) -> None:
        """Break all connections; what was kept is gone."""
        for writer in self._writers:
            writer.transport.abort()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Gate"]:
        """Listen on a free port until the end of the block, which breaks all connections."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            self.open()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if not self._new_ones_pass.is_set():
            self.held.set()
            await self._new_ones_pass.wait()
        with suppress(OSError):
            there, back = await asyncio.open_connection(self._parts.hostname, self._parts.port)
            self._writers.add(back)
            up = _Way()
            self._up.add(up)
            try:
                await asyncio.gather(self._carry_up(reader, back, up), self._carry_down(there, writer))
            finally:
                self._up.discard(up)
                back.transport.abort()
        writer.transport.abort()

    async def _carry_up(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, way: _Way) -> None:
        with suppress(OSError):
            while data := await source.read(_CHUNK_BYTES):
                if not way.passable.is_set():
                    self.held.set()
                    await way.passable.wait()
                target.write(data)
                await target.drain()
        target.transport.abort()

    async def _carry_down(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(_CHUNK_BYTES):
                target.write(data)
                await target.drain()
                if self._answer_bytes_min is not None and len(data) >= self._answer_bytes_min:
                    self.came_down.set()
        target.transport.abort()
