"""The only place where the escrow worker is put together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from strongroom import database
from strongroom.crypto.key_file import read_passphrase, read_signing_key
from strongroom.crypto.signing import SigningKey
from strongroom.errors import ConfigurationInvalid
from strongroom.follower import RecoveryLogFollower
from strongroom.log_writer import LogName, LogWriter
from strongroom.registry import Registry
from strongroom.roster import Roster
from strongroom.service import Health
from strongroom.settings import read_root_key, read_roster
from strongroom.topology import ESCROW_QUEUE
from strongroom.worker import keep_serving
from strongroom_escrow.settings import EscrowSettings
from strongroom_escrow.worker import EscrowWorker


def check_usable(log_key: SigningKey, reply_key: SigningKey, roster: Roster) -> None:
    """Raise ConfigurationInvalid unless these are the keys that a roster names for the escrow worker."""
    for name, held, wanted in (
        ("log key", log_key.public_key, roster.body.logs.escrow.public_key),
        ("reply key", reply_key.public_key, roster.body.replies.escrow),
    ):
        if held != wanted:
            raise ConfigurationInvalid(
                f"{name}: is not the escrow worker's {name} in roster version {roster.body.version}",
                hint="give this worker the key file that belongs to the roster, and start it again",
            )


@asynccontextmanager
async def escrow_worker(settings: EscrowSettings, health: Health) -> AsyncIterator[EscrowWorker]:
    """Open database, keys, trust and log, and yield the worker.

    Raises ConfigurationInvalid, KeyFileInvalid, RosterInvalid, SchemaMismatch, LogForked, DatabaseUnavailable.
    """
    passphrase = read_passphrase(settings.passphrase_file) if settings.passphrase_file else None
    root_key = read_root_key(settings.root_key_file)
    roster = Roster.verified(read_roster(settings.roster_file), root_key)
    log_key = read_signing_key(settings.log_key_file, passphrase)
    reply_key = read_signing_key(settings.reply_key_file, passphrase)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    registry = Registry(root_key, roster)
    follower = RecoveryLogFollower(registry, roster.body.logs.recovery, settings.state_dir / "recovery.checkpoint")
    async with database.connect(settings.database_url.get_secret_value()) as opened:
        await opened.check_schema()
        async with opened.reading() as tx:
            await follower.advance(tx)
        # The file may be older than what the recovery log names, or newer than what is named yet.
        newest = max(roster, registry.roster, key=lambda each: each.body.version)
        log = newest.body.logs.escrow
        writer = LogWriter(
            LogName.ESCROW, log.origin, log_key, settings.state_dir / "escrow.checkpoint", former=log.former
        )
        await writer.open(opened)
        yield EscrowWorker(
            settings=settings,
            database=opened,
            registry=registry,
            follower=follower,
            writer=writer,
            reply_key=reply_key,
            check_usable=partial(check_usable, log_key, reply_key),
            health=health,
        )


async def serve(settings: EscrowSettings, stop: asyncio.Event) -> None:
    """Run the escrow worker until `stop` is set, through outages of the broker and the database."""
    health = Health(settings.health_file)
    await keep_serving(
        partial(escrow_worker, settings, health),
        settings,
        health,
        stop,
        queue=ESCROW_QUEUE,
        prefetch_count=settings.prefetch_count,
    )
