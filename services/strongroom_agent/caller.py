"""Whoever asks the authority over one home: what its owner holds, and one patient conversation at a time."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.roster import Roster
from strongroom_agent.home import Home
from strongroom_agent.identity import signing_key
from strongroom_agent.link import Connector, broker_link
from strongroom_agent.patience import Deadline, patiently
from strongroom_agent.session import Session
from strongroom_agent.state import State
from strongroom_agent.trust import Trust

ASK_SECONDS: Final = 60.0

T = TypeVar("T")


class Caller:
    """The owner of one home, in conversation with the authority; use it as a context manager.

    No connection is held open: each call connects, asks, and disconnects. Calls that send hold the home's lock,
    so another process on the same home waits, or is told Busy when its time is over.
    """

    def __init__(
        self,
        home: Home,
        state: State,
        *,
        passphrase: Secret | None = None,
        connector: Connector = broker_link,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Work over an open state database; `open` is the usual way to make one."""
        self._home = home
        self._state = state
        self._passphrase = passphrase
        self._connector = connector
        self._clock = clock

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        passphrase: Secret | None = None,
        connector: Connector = broker_link,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Open the home at `path`; `passphrase` opens its signing key when a call needs it.

        Raises ConfigurationInvalid, StateCorrupt, SchemaMismatch.
        """
        home = Home.open(path)
        return cls(home, State.open(home.state_file), passphrase=passphrase, connector=connector, clock=clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state.close()

    # ---- for the calls themselves ----

    @property
    def _now(self) -> int:
        return int(self._clock())

    def _signing_key(self) -> SigningKey:
        return signing_key(self._home, self._passphrase)

    def _trust(self) -> Trust:
        return Trust.of(self._home, self._state)

    def _roster(self) -> Roster:
        return self._trust().current(self._now)

    async def _patiently(self, attempt: Callable[[Session, Deadline], Awaitable[T]], wait_seconds: float) -> T:
        return await patiently(partial(self._once, attempt), wait_seconds=wait_seconds)

    async def _once(self, attempt: Callable[[Session, Deadline], Awaitable[T]], deadline: Deadline) -> T:
        async with self._session() as session:
            return await attempt(session, deadline)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        with self._home.lock():
            trust = self._trust()
            async with self._connector(self._home) as link:
                name = self._home.config.name
                yield Session(link=link, name=name, state=self._state, trust=trust, clock=self._clock)
