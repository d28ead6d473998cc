"""What the recovery worker and the prover open alike: database, trust, and both logs."""

from collections.abc import AsyncIterator, Callable
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass

from strongroom import database
from strongroom.crypto.keyring import MISSING_KEY_HINT
from strongroom.crypto.signing import SigningKey
from strongroom.database import Database
from strongroom.follower import RecoveryLogFollower
from strongroom.log_writer import LogName, LogWriter
from strongroom.logs import get_logger
from strongroom.registry import Registry
from strongroom.roster import Roster
from strongroom.settings import WorkerSettings, read_root_key, read_roster
from strongroom_recovery.escrow_log import EscrowLog
from strongroom_recovery.ledger import Ledger


def tell_missing(roster: Roster, kids: AbstractSet[str], ledger: Ledger) -> None:
    """Log an error for each sealing key of a roster that is neither among `kids` nor retired.

    What is sealed to one of those cannot be given back, which somebody has to be told; all else can.
    """
    for kid in sorted({key.kid for key in roster.body.sealing_keys} - kids - ledger.reseals.retired.keys()):
        get_logger().error(
            "a sealing key is missing",
            kid=kid,
            roster_version=roster.body.version,
            hint=f"{MISSING_KEY_HINT}: records may be sealed to it; what nothing needs may be retired",
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """An open database, what is folded from the recovery log, and both logs, which never go back on this host."""

    database: Database
    registry: Registry
    ledger: Ledger
    follower: RecoveryLogFollower
    writer: LogWriter
    escrow_log: EscrowLog


@asynccontextmanager
async def opened(
    settings: WorkerSettings, log_key: SigningKey, check_usable: Callable[[Roster], None]
) -> AsyncIterator[Opened]:
    """Verify the roster file, then open database and logs; nothing is followed yet.

    Arguments: `log_key` is the recovery log's; `check_usable` raises for a roster that names other keys than the
    process has. Raises ConfigurationInvalid, RosterInvalid, SchemaMismatch, LogForked; DatabaseUnavailable, after
    which it may be tried again.
    """
    root_key = read_root_key(settings.root_key_file)
    roster = Roster.verified(read_roster(settings.roster_file), root_key)
    check_usable(roster)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    checkpoint_file = settings.state_dir / "recovery.checkpoint"
    log = roster.body.logs.recovery
    registry = Registry(root_key, roster)
    ledger = Ledger()
    follower = RecoveryLogFollower(registry, log, checkpoint_file, also=ledger)
    escrow_log = EscrowLog(roster.body.logs.escrow, settings.state_dir / "escrow.checkpoint")
    writer = LogWriter(LogName.RECOVERY, log.origin, log_key, checkpoint_file, former=log.former)
    async with database.connect(settings.database_url.get_secret_value()) as connected:
        await connected.check_schema()
        await writer.open(connected)
        yield Opened(connected, registry, ledger, follower, writer, escrow_log)
