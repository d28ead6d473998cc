"""The only place where sealing again, and retiring a key, are put together."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from strongroom.errors import RosterExpired
from strongroom.service import Health, keep_running
from strongroom_recovery.opening import Opened, opened
from strongroom_recovery.prover.wiring import Keys, read_keys
from strongroom_recovery.reseal.planning import Progress
from strongroom_recovery.reseal.worker import Resealer
from strongroom_recovery.settings import ProverSettings


@asynccontextmanager
async def resealer(
    settings: ProverSettings,
    keys: Keys,
    *,
    again: bool = False,
    rate: float | None = None,
    told: Callable[[Progress], None] = lambda _progress: None,
    clock: Callable[[], float] = time.time,
) -> AsyncIterator[Resealer]:
    """Open database, trust and logs, and yield what seals again; arguments as of `Resealer`.

    Raises ConfigurationInvalid, RosterInvalid, SchemaMismatch, LogForked; DatabaseUnavailable.
    """
    async with opened(settings, keys.log, keys.check_usable) as means:
        yield Resealer(means, keys.sealing, again=again, rate=rate, told=told, clock=clock)


async def reseal(
    settings: ProverSettings,
    stop: asyncio.Event,
    *,
    again: bool = False,
    rate: float | None = None,
    told: Callable[[Progress], None] = lambda _progress: None,
) -> tuple[Progress, bool]:
    """Seal again until nothing is left to do, through outages, or until `stop` is set; say whether all is done.

    Raises as `resealer` before anything was done; later RosterExpired, ConfigurationInvalid, CheckpointInvalid,
    FatalError.
    """
    keys = await asyncio.to_thread(read_keys, settings)
    expired: RosterExpired | None = None
    async with resealer(settings, keys, again=again, rate=rate, told=told) as job:

        async def until_done() -> None:
            nonlocal expired
            try:
                await job.serve(stop)
            except RosterExpired as error:
                expired = error
            stop.set()

        # No health file: the settings are the prover's, and so is that file.
        await keep_running(until_done, stop, Health(None))
    if expired is not None:
        raise expired
    return job.progress, job.is_done


@asynccontextmanager
async def means_of(settings: ProverSettings) -> AsyncIterator[tuple[Opened, Keys]]:
    """Open what retiring a key needs. Raises as `resealer`."""
    keys = await asyncio.to_thread(read_keys, settings)
    async with opened(settings, keys.log, keys.check_usable) as means:
        yield means, keys
