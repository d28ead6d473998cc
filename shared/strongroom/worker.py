"""What all workers do around their work: settings, servers, rounds, the end. What they do is their own."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, TypeVar

from strongroom import broker, logs, service
from strongroom.errors import ConfigurationInvalid
from strongroom.service import Health, keep_running
from strongroom.settings import QueueWorkerSettings, WorkerSettings

_BROKER_SECONDS_MAX: Final = 10.0

S = TypeVar("S", bound=WorkerSettings)


class Worker(Protocol):
    """A worker of a queue, over an open database."""

    async def prepare(self) -> None:
        """Be ready for messages; called before the broker is asked for any. A TransientError: try again later."""
        ...

    async def serve(self, consumer: broker.Consumer, stop: asyncio.Event) -> None:
        """Handle messages until `stop` is set; TransientError when a server is lost, with nothing half done."""
        ...


def main(name: str, settings: type[S], serve: Callable[[S, asyncio.Event], Awaitable[None]]) -> int:
    """Run a worker as a process, with settings from the environment; return the exit code.

    Arguments: `name` is `escrow`, `recovery` or `prover`; `serve` works until the event is set.
    """
    try:
        loaded = settings.load()
    except ConfigurationInvalid as error:
        sys.stderr.write(f"strongroom {name} worker: {error.message}\n  {error.hint}\n")
        return error.exit_code
    logs.configure(loaded.log_format, service=name)
    return service.run(lambda stop: serve(loaded, stop))


async def keep_serving(
    opened: Callable[[], AbstractAsyncContextManager[Worker]],
    settings: QueueWorkerSettings,
    health: Health,
    stop: asyncio.Event,
    *,
    queue: str,
    prefetch_count: int,
) -> None:
    """Let a worker serve a queue until `stop` is set, through outages of the broker and the database.

    Arguments: `opened` opens database and trust and gives the worker. A lost broker leaves those open. Every error
    but a TransientError leaves through here.
    """

    async def with_database() -> None:
        async with opened() as worker:

            async def with_broker() -> None:
                # A worker that is not ready takes no message: one kept in hand for long would be given up.
                await worker.prepare()
                async with (
                    broker.connect(
                        settings.broker_url.get_secret_value(),
                        ca_file=settings.broker_ca_file,
                        name=f"strongroom {queue} worker",
                        timeout_seconds=_BROKER_SECONDS_MAX,
                    ) as connection,
                    broker.Consumer(connection, queue, prefetch_count=prefetch_count) as consumer,
                ):
                    await worker.serve(consumer, stop)

            await keep_running(with_broker, stop, health)

    await keep_running(with_database, stop, health)
