"""Connections to RabbitMQ, and the one place where the driver's exceptions become ours.

Nothing here reconnects by itself: a connection that is lost says so at once to everybody who waits on it, and
whoever owns it opens another (agents with backoff, workers by starting over).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, Self, cast

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from aiormq.channel import Channel
from aiormq.exceptions import (
    ChannelNotFoundEntity,
    DeliveryError,
    InvalidFrameError,
    ProbableAuthenticationError,
    ProtocolSyntaxError,
    PublishError,
)
from pamqp.commands import Basic
from pamqp.exceptions import PAMQPException

from strongroom.amqp_decoding import decode_leniently
from strongroom.broker.endpoint import ClientCertificate, Endpoint, printable
from strongroom.errors import BrokerUnavailable, StrongroomError, Unroutable

TIMEOUT_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 20
"""A peer that vanished without closing is noticed after three of these, so after about a minute."""

_CLOSE_SECONDS_MAX = 5
_REASON_CHARACTERS_MAX = 300
_APPLY_HINT = "apply the topology: strongroom broker apply"
_DRIVER_ERRORS = (aiormq.AMQPError, PAMQPException, OSError, RuntimeError, StopAsyncIteration)


class Connection:
    """One open AMQP connection; made by `connect`."""

    def __init__(self, endpoint: Endpoint, driver: AbstractConnection) -> None:
        self.endpoint = endpoint
        self._driver = driver

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Self:
        """Connect and log in.

        Raises:
            BrokerUnavailable: not reachable in time, not the certificate we trust, or the login was refused.
            ConfigurationInvalid: the CA file, the client's certificate or its key cannot be used.
        """
        decode_leniently()
        context = endpoint.tls()
        with driver_errors_as_ours(endpoint.where):
            try:
                async with asyncio.timeout(endpoint.timeout_seconds):
                    driver = await aio_pika.connect(
                        endpoint.login_url,
                        ssl_context=context,
                        heartbeat=HEARTBEAT_SECONDS,
                        client_properties={"connection_name": endpoint.name, "product": "strongroom"},
                    )
            except InvalidFrameError:
                # The driver loses the broker's reason when it hangs up instead of opening the virtual host.
                raise BrokerUnavailable(
                    f"{endpoint.where} refused the virtual host, or is no AMQP 0-9-1 broker",
                    hint="check the virtual host of the broker URL, and the user's rights in it",
                ) from None
        return cls(endpoint, driver)

    @property
    def where(self) -> str:
        """`host:port/vhost`, for messages to people."""
        return self.endpoint.where

    @property
    def server_properties(self) -> dict[str, object]:
        """What the broker says of itself: `product`, `version`, `platform` and more."""
        transport = self._driver.transport
        return {} if transport is None else dict(transport.connection.server_properties or {})

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has announced that it takes no messages from here (memory or disk alarm)."""
        if self._driver.transport is None:
            return False
        # The driver offers this only to be waited for: one step shows whether there is anything to wait for.
        waiting = self._driver.transport.connection.ready()
        try:
            waiting.send(None)
        except StopIteration:
            return False
        waiting.close()
        return True

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """Bound what is asked of the broker in time, and raise our errors instead of the driver's.

        Raises:
            BrokerUnavailable: no answer in time, refused, or the connection is gone.
            Unroutable: there is no such queue or exchange.
        """
        with driver_errors_as_ours(self.where):
            async with asyncio.timeout(self.endpoint.timeout_seconds):
                yield

    async def channel(self, *, confirms: bool) -> Channel:
        """Open a channel; with `confirms`, a publish returns when the broker has the message and raises if not.

        Raises:
            BrokerUnavailable: the connection is gone, or the broker does not answer in time.
        """
        async with self.asking():
            channel = await self._driver.channel(publisher_confirms=confirms, on_return_raises=confirms)
            # The driver's message class refuses values that RabbitMQ accepts, and costs a fifth of the time.
            return cast("Channel", await channel.get_underlay_channel())

    async def publish(
        self,
        channel: AbstractChannel,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Basic.Properties,
        *,
        mandatory: bool = True,
    ) -> bool:
        """Publish a persistent message on a channel with confirms, and wait for the confirm.

        After a timeout nothing is known: the channel must not be used again for the same `message_id`,
        because the driver tells returned messages apart by that id.

        Returns:
            True; False if it was not `mandatory` and one of the queues that it was for is full or down. Whether
            there are any queues is then no matter either.

        Raises:
            Unroutable: no queue took a mandatory message, or there is no such exchange.
            BrokerUnavailable: no confirm in time, the queue of a mandatory message is full, no right to publish
                there, or connection lost.
        """
        properties.delivery_mode = 2
        with driver_errors_as_ours(self.where):
            try:
                async with asyncio.timeout(self.endpoint.timeout_seconds):
                    await channel.basic_publish(
                        body,
                        exchange=exchange,
                        routing_key=routing_key,
                        properties=properties,
                        mandatory=mandatory,
                    )
            except TimeoutError:
                if self.is_blocked:
                    raise BrokerUnavailable(f"{self.where} takes no messages now (memory or disk alarm)") from None
                raise
            except DeliveryError:
                if mandatory:
                    raise
                return False
        return True

    async def close(self) -> None:
        """Close within seconds, whatever state the connection is in; never raises."""
        with suppress(StrongroomError), driver_errors_as_ours(self.where):
            async with asyncio.timeout(_CLOSE_SECONDS_MAX):
                await self._driver.close()


class Outlet:
    """A channel on a connection of its own, opened when it is first needed and again after it was lost.

    For publishing beside a consumer: RabbitMQ stops reading from connections that publish during a memory or
    disk alarm, and on the consumer's own connection that would hold up the very acks that relieve it.
    """

    def __init__(self, endpoint: Endpoint, purpose: str, *, confirms: bool) -> None:
        self._endpoint = replace(endpoint, name=f"{endpoint.name} {purpose}")
        self._confirms = confirms
        self._opening = asyncio.Lock()
        self._open: tuple[Connection, Channel] | None = None

    async def use(self) -> tuple[Connection, Channel]:
        """Return the connection and the channel, opening them if need be.

        Raises:
            BrokerUnavailable: they cannot be opened.
        """
        async with self._opening:
            if self._open is not None and self._open[1].is_closed:
                await self.close()
            if self._open is None:
                connection = await Connection.open(self._endpoint)
                try:
                    self._open = connection, await connection.channel(confirms=self._confirms)
                except BaseException:
                    await connection.close()
                    raise
            return self._open

    async def abandon(self, channel: AbstractChannel) -> None:
        """Close the connection if this is still its channel: nobody knows what became of a message on it."""
        if self._open is not None and self._open[1] is channel:
            await self.close()

    async def close(self) -> None:
        """Close what is open; never raises."""
        opened, self._open = self._open, None
        if opened is not None:
            await opened[0].close()


@asynccontextmanager
async def connect(
    url: str,
    *,
    ca_file: Path | None,
    name: str,
    timeout_seconds: float = TIMEOUT_SECONDS,
    certificate: ClientCertificate | None = None,
) -> AsyncIterator[Connection]:
    """Hold a connection to the broker open for the length of a `with` block.

    Args:
        url: `amqps://user:password@host:port/vhost`; never shown. `amqp` connects without TLS.
        ca_file: the certificates that vouch for the broker; None means those the system trusts.
        name: the program, as the broker's administrator sees it in the list of connections.
        timeout_seconds: for connecting, and for each later question to the broker.
        certificate: to log in by instead of user and password, which are then ignored.

    Raises:
        BrokerUnavailable: see `Connection.open`.
        ConfigurationInvalid: the URL, the CA file or the certificate cannot be used.
    """
    connection = await Connection.open(
        Endpoint.parse(url, ca_file=ca_file, name=name, timeout_seconds=timeout_seconds, certificate=certificate)
    )
    try:
        yield connection
    finally:
        await connection.close()


@contextmanager
def driver_errors_as_ours(where: str) -> Iterator[None]:
    """Turn whatever the AMQP driver raises into Unroutable or BrokerUnavailable that name only `where`.

    The driver mixes cancellation up with its own business: it ends what waits on a lost connection with
    CancelledError, and forgets a cancellation that comes while it closes a channel. Here the first becomes
    BrokerUnavailable, and a cancellation of this task always leaves as CancelledError.
    """
    before = _cancellations()
    try:
        yield
    except (*_DRIVER_ERRORS, asyncio.CancelledError) as error:
        if _cancellations() > before:
            raise asyncio.CancelledError from None
        raise _as_ours(where, error) from None
    if _cancellations() > before:
        raise asyncio.CancelledError


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _as_ours(where: str, error: BaseException) -> StrongroomError:
    match error:
        case PublishError() | ChannelNotFoundEntity():
            return Unroutable(f"{where} has no place for this: {broker_words(error)}", hint=_APPLY_HINT)
        case DeliveryError():
            return BrokerUnavailable(f"{where} refused the message: its queue is full or down")
        case TimeoutError():
            return BrokerUnavailable(f"{where} did not answer in time")
        case asyncio.CancelledError():
            return BrokerUnavailable(f"the connection to {where} was lost")
        case ProbableAuthenticationError():
            return BrokerUnavailable(
                f"{where} refused the login",
                hint="check user name and password of the broker URL, or whether the certificate's common name is"
                " an account of the broker",
            )
        case _:
            return BrokerUnavailable(f"the connection to {where} failed: {broker_words(error)}")


def broker_words(error: BaseException) -> str:
    """Say why in the words of the broker or the operating system; the driver's own may hold anything."""
    if isinstance(error, aiormq.AMQPError | OSError) and not isinstance(error, ProtocolSyntaxError):
        words = " ".join(str(part) for part in error.args if isinstance(part, str | int))
    else:
        words = ""
    return printable(words)[:_REASON_CHARACTERS_MAX] or type(error).__name__
