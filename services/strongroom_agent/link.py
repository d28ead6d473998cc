"""How an agent reaches its authority: one short-lived connection, requests and answers."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol, TypeAlias

from strongroom.broker import ClientCertificate, Requester, connect
from strongroom.errors import ConfigurationInvalid, NoAnswer
from strongroom_agent.home import Home
from strongroom_agent.patience import Silence

BROKER_SECONDS_MAX: Final = 10.0


class Link(Protocol):
    """An open connection to the broker that takes requests and brings their answers back.

    Answers come at most once and may come from anybody: they have to be verified. Several requests may be under
    way at once, each under an id of its own.
    """

    async def submit(
        self,
        routing_key: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, int | str],
        expiration_seconds: float | None,
    ) -> None:
        """Publish a request; it is on the broker's disk when this returns. Safe to repeat.

        Raises BrokerUnavailable (whether the broker has it is not known) or Unroutable (it is nowhere).
        """
        ...

    async def answer(self, message_id: str, timeout_seconds: float) -> bytes:
        """Wait for the answer to a submitted request; raises NoAnswer or BrokerUnavailable."""
        ...


class BrokerLink:
    """A link over one connection to the broker; its silence names no time, which only the whole call knows."""

    def __init__(self, requester: Requester, where: str) -> None:
        """Ask by `requester`; `where` is the broker, for messages to people."""
        self._requester = requester
        self._where = where

    async def submit(
        self,
        routing_key: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, int | str],
        expiration_seconds: float | None,
    ) -> None:
        """Publish a request, see `Link`."""
        await self._requester.submit(
            routing_key, body, message_id=message_id, headers=headers, expiration_seconds=expiration_seconds
        )

    async def answer(self, message_id: str, timeout_seconds: float) -> bytes:
        """Wait for the answer, see `Link`; raises Silence or BrokerUnavailable."""
        try:
            return await self._requester.answer(message_id, timeout_seconds)
        except NoAnswer:
            raise Silence(self._where) from None


Connector: TypeAlias = Callable[[Home], AbstractAsyncContextManager[Link]]


@asynccontextmanager
async def broker_link(home: Home) -> AsyncIterator[Link]:
    """Connect to the broker that a home is configured for; raises BrokerUnavailable or ConfigurationInvalid."""
    url = home.config.broker_url
    if url is None:
        raise ConfigurationInvalid(f"{home.path}: broker_url: is missing", hint="add it to config.toml in the home")
    files = home.broker_certificate()
    async with (
        connect(
            url,
            ca_file=home.broker_ca,
            name=f"strongroom {home.config.role.value} {home.config.name}",
            timeout_seconds=BROKER_SECONDS_MAX,
            certificate=ClientCertificate(*files) if files else None,
        ) as connection,
        Requester(connection, name=home.config.name) as requester,
    ):
        yield BrokerLink(requester, connection.where)
