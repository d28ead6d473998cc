"""The only place where the prover is put together."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from strongroom.crypto.key_file import read_passphrase, read_signing_key
from strongroom.crypto.keyring import Keyring, open_keyring
from strongroom.crypto.signing import SigningKey
from strongroom.errors import ConfigurationInvalid
from strongroom.roster import Roster
from strongroom.service import Health, keep_running
from strongroom_recovery.opening import Opened, opened
from strongroom_recovery.prover.report import Report
from strongroom_recovery.prover.worker import Prover
from strongroom_recovery.settings import ProverSettings


@dataclass(frozen=True, slots=True)
class Keys:
    """Every private key of this process."""

    log: SigningKey
    sealing: Keyring

    def check_usable(self, roster: Roster) -> None:
        """Raise ConfigurationInvalid unless the log key is the roster's; a missing sealing key is told of later."""
        if self.log.public_key != roster.body.logs.recovery.public_key:
            raise ConfigurationInvalid("log key: is not the roster's recovery log key")


def read_keys(settings: ProverSettings) -> Keys:
    """Read all key files and open the token, if there is one; the passphrase is forgotten on return.

    Raises KeyFileInvalid, ConfigurationInvalid; KeyDeviceUnavailable, after which it may be tried again.
    """
    passphrase = read_passphrase(settings.passphrase_file) if settings.passphrase_file else None
    return Keys(
        log=read_signing_key(settings.log_key_file, passphrase),
        sealing=open_keyring(
            settings.keyring,
            settings.sealing_keys_dir,
            pin_file=settings.keyring_pin_file,
            passphrase=passphrase,
        ),
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
        yield prover_of(means, keys, health, settings.metrics_file, clock=clock, monotonic=monotonic)


def prover_of(
    means: Opened,
    keys: Keys,
    health: Health,
    metrics_file: Path | None,
    *,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
) -> Prover:
    """Put a prover together over what is open already; nothing is looked at yet."""
    return Prover(
        database=means.database,
        registry=means.registry,
        ledger=means.ledger,
        follower=means.follower,
        writer=means.writer,
        escrow_log=means.escrow_log,
        keyring=keys.sealing,
        health=health,
        report=Report(means.ledger, metrics_file, clock=clock, monotonic=monotonic),
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
