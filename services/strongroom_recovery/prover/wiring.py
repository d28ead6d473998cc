"""The only place where the prover is put together."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from strongroom.crypto.key_file import read_passphrase, read_signing_key
from strongroom.crypto.keyring import FileKeyring, Keyring
from strongroom.crypto.signing import SigningKey
from strongroom.errors import ConfigurationInvalid
from strongroom.logs import get_logger
from strongroom.roster import Roster
from strongroom.service import Health, keep_running
from strongroom_recovery.opening import opened
from strongroom_recovery.prover.report import Report
from strongroom_recovery.prover.worker import Prover
from strongroom_recovery.settings import ProverSettings


@dataclass(frozen=True, slots=True)
class Keys:
    """Every private key of this process."""

    log: SigningKey
    sealing: Keyring

    def check_usable(self, roster: Roster) -> None:
        """Raise ConfigurationInvalid unless the log key is the roster's; a sealing key that is missing is logged.

        What is sealed to that one is unprovable, which somebody has to be told; the rest is proven.
        """
        if self.log.public_key != roster.body.logs.recovery.public_key:
            raise ConfigurationInvalid("log key: is not the roster's recovery log key")
        for kid in sorted({key.kid for key in roster.body.sealing_keys} - self.sealing.kids):
            get_logger().error(
                "a sealing key is missing",
                kid=kid,
                roster_version=roster.body.version,
                hint="put its key file into the folder of sealing keys: records may be sealed to it",
            )


def read_keys(settings: ProverSettings) -> Keys:
    """Read all key files; the passphrase is forgotten on return. Raises KeyFileInvalid."""
    passphrase = read_passphrase(settings.passphrase_file) if settings.passphrase_file else None
    return Keys(
        log=read_signing_key(settings.log_key_file, passphrase),
        sealing=FileKeyring(settings.sealing_keys_dir, passphrase),
    )


@asynccontextmanager
async def prover(
    settings: ProverSettings,
    keys: Keys,
    health: Health,
    *,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Prover]:
    """Open database, trust and log, and yield the prover.

    Raises ConfigurationInvalid, RosterInvalid, SchemaMismatch, LogForked; DatabaseUnavailable, after which it may
    be tried again.
    """
    async with opened(settings, keys.log, keys.check_usable) as means:
        yield Prover(
            database=means.database,
            registry=means.registry,
            ledger=means.ledger,
            follower=means.follower,
            writer=means.writer,
            escrow_log=means.escrow_log,
            keyring=keys.sealing,
            health=health,
            report=Report(means.ledger, settings.metrics_file, clock=clock, monotonic=monotonic),
            clock=clock,
            monotonic=monotonic,
        )


async def serve(settings: ProverSettings, stop: asyncio.Event, clock: Callable[[], float] = time.time) -> None:
    """Run the prover until `stop` is set, through outages of the database."""
    health = Health(settings.health_file)
    keys = read_keys(settings)

    async def with_database() -> None:
        async with prover(settings, keys, health, clock=clock) as running:
            # An outage leaves what was read from the log in memory: only a first failure reads it all again.
            await keep_running(lambda: running.serve(stop), stop, health)

    await keep_running(with_database, stop, health)
