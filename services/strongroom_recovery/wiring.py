"""The only place where the recovery worker is put together."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

from strongroom.crypto.key_file import read_passphrase, read_signing_key
from strongroom.crypto.keyring import MISSING_KEY_HINT, Keyring, open_keyring
from strongroom.crypto.signing import SigningKey
from strongroom.errors import ConfigurationInvalid, Expired, RosterExpired
from strongroom.mandates import SealingKeyState
from strongroom.roster import Roster
from strongroom.service import Health
from strongroom.topology import RECOVERY_QUEUE
from strongroom.worker import keep_serving
from strongroom_recovery.desk import Desk
from strongroom_recovery.opening import opened, tell_missing
from strongroom_recovery.rosters import RosterFile
from strongroom_recovery.settings import RecoverySettings
from strongroom_recovery.worker import RecoveryWorker

OTHER_KEY_HINT: Final = "put the key file that belongs to the roster in its place, and start this worker again"


@dataclass(frozen=True, slots=True)
class Keys:
    """Every private key of this process."""

    log: SigningKey
    reply: SigningKey
    sealing: Keyring

    def check_usable(self, roster: Roster) -> None:
        """Raise ConfigurationInvalid unless these are the keys that a roster names for the recovery worker."""
        if self.log.public_key != roster.body.logs.recovery.public_key:
            raise ConfigurationInvalid("log key: is not the roster's recovery log key", hint=OTHER_KEY_HINT)
        if self.reply.public_key != roster.body.replies.recovery:
            raise ConfigurationInvalid("reply key: is not the roster's recovery reply key", hint=OTHER_KEY_HINT)
        # One that is closed may be retired, which the log says; `tell_missing` knows.
        needed = {key.kid for key in roster.body.sealing_keys if key.state is not SealingKeyState.CLOSED}
        missing = needed - self.sealing.kids
        if missing:
            raise ConfigurationInvalid(
                f"sealing keys: {min(missing)} of roster version {roster.body.version} is missing",
                hint=f"{MISSING_KEY_HINT}: records may be sealed to it",
            )
        taken = {key.kid for key in roster.body.transport_keys if key.state is not SealingKeyState.CLOSED}
        if missing := taken - self.sealing.transport_kids:
            raise ConfigurationInvalid(
                f"transport keys: {min(missing)} of roster version {roster.body.version} is missing",
                hint=f"{MISSING_KEY_HINT}: keys may be wrapped to it",
            )


def read_keys(settings: RecoverySettings) -> Keys:
    """Read all key files and open the token, if there is one; the passphrase is forgotten on return.

    Raises KeyFileInvalid, ConfigurationInvalid; KeyDeviceUnavailable, after which it may be tried again.
    """
    passphrase = read_passphrase(settings.passphrase_file) if settings.passphrase_file else None
    return Keys(
        log=read_signing_key(settings.log_key_file, passphrase),
        reply=read_signing_key(settings.reply_key_file, passphrase),
        sealing=open_keyring(
            settings.keyring,
            settings.sealing_keys_dir,
            pin_file=settings.keyring_pin_file,
            passphrase=passphrase,
        ),
    )


@asynccontextmanager
async def recovery_worker(
    settings: RecoverySettings, keys: Keys, health: Health, clock: Callable[[], float] = time.time
) -> AsyncIterator[RecoveryWorker]:
    """Open database, trust and log, adopt the roster, and yield the worker.

    Raises ConfigurationInvalid, RosterInvalid, SchemaMismatch, LogForked; RosterExpired and DatabaseUnavailable,
    after which it may be tried again.
    """
    async with opened(settings, keys.log, keys.check_usable) as means:
        roster_file = RosterFile(
            settings.roster_file,
            database=means.database,
            registry=means.registry,
            follower=means.follower,
            writer=means.writer,
            check_usable=keys.check_usable,
        )
        try:
            await roster_file.adopt(int(clock()))
        except Expired as error:
            raise RosterExpired(error.message, hint=error.hint) from None
        tell_missing(means.registry.roster, keys.sealing.kids, means.ledger)
        desk = Desk(
            database=means.database,
            registry=means.registry,
            ledger=means.ledger,
            follower=means.follower,
            writer=means.writer,
            escrow_log=means.escrow_log,
            keyring=keys.sealing,
            reply_key=keys.reply,
            check_usable=keys.check_usable,
        )
        yield RecoveryWorker(
            desk=desk,
            roster_file=roster_file,
            health=health,
            clock=clock,
            require_user_id=settings.recovery_require_user_id,
        )


async def serve(settings: RecoverySettings, stop: asyncio.Event, clock: Callable[[], float] = time.time) -> None:
    """Run the recovery worker until `stop` is set, through outages of the broker and the database."""
    health = Health(settings.health_file)
    await keep_serving(
        partial(recovery_worker, settings, read_keys(settings), health, clock),
        settings,
        health,
        stop,
        queue=RECOVERY_QUEUE,
        prefetch_count=1,
    )
