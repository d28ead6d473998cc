"""Who speaks for whom in a database that was restored: found in there, and believed up to the root key alone."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.checkpoint_file import CheckpointFile
from strongroom.crypto.notes import Checkpoint
from strongroom.crypto.tlog import inclusion_proof, leaf_hash, verify_inclusion
from strongroom.database import Database, Transaction, load_queries
from strongroom.errors import (
    CheckpointInvalid,
    ConfigurationInvalid,
    LogForked,
    PermanentError,
    ProofInvalid,
    RosterInvalid,
    SchemaMismatch,
    StateCorrupt,
)
from strongroom.follower import RecoveryLogFollower
from strongroom.leaves import RosterLeaf, parse_leaf
from strongroom.log_writer import LogName
from strongroom.mandates import LogKey, RosterBody
from strongroom.registry import Registry
from strongroom.roster import Roster
from strongroom.schema import MIGRATE_HINT
from strongroom.statements import parse_envelope
from strongroom_recovery import store
from strongroom_recovery.drill.report import LogState
from strongroom_recovery.escrow_log import EscrowLog
from strongroom_recovery.records import nodes_wanted

OTHER_BACKUP: Final = "keep this backup as it is, try another one, and find out who changed the database"

_SQL: Final = load_queries("drill")


@dataclass(frozen=True, slots=True)
class Trust:
    """What a database may be judged by.

    registry, follower: at the newest state of its recovery log. escrow_head: of its escrow log; None while that is
    empty. escrow_log, recovery_log: how long they are, and how much longer they are elsewhere.
    """

    registry: Registry
    follower: RecoveryLogFollower
    escrow_head: Checkpoint | None
    escrow_log: LogState
    recovery_log: LogState


async def established(database: Database, root_key: bytes, state_dirs: Sequence[Path], folder: Path) -> Trust:
    """Replay the recovery log of a database, and find the head of its escrow log.

    Arguments: `folder` is empty, and for checkpoints that have to be continued; `state_dirs` are workers' folders,
    whose checkpoints are. Raises as `drill`.
    """
    await _check_schema(database)
    async with database.reading() as tx:
        roster = await _newest_roster(tx, root_key)
        sizes = {log: await tx.fetch_value(_SQL[f"{log}_size"]) or 0 for log in LogName}
        counts = await tx.fetch_row(_SQL["counts"])
    keys = {LogName.ESCROW: roster.body.logs.escrow, LogName.RECOVERY: roster.body.logs.recovery}
    behind = {
        log: await asyncio.to_thread(_remember, log, keys[log], sizes[log], state_dirs, folder) for log in LogName
    }
    if state_dirs and all(each is None for each in behind.values()):
        raise ConfigurationInvalid(
            f"{state_dirs[0]}: holds no checkpoint", hint="name the folder that is a worker's STRONGROOM_STATE_DIR"
        )
    registry = Registry(root_key, roster)
    with _unfit():
        recovery_file = _file(folder, LogName.RECOVERY)
        follower = RecoveryLogFollower(registry, keys[LogName.RECOVERY], recovery_file)
        escrow_log = EscrowLog(keys[LogName.ESCROW], _file(folder, LogName.ESCROW))
        async with database.reading() as tx:
            await follower.advance(tx)
            has_escrow = bool(sizes[LogName.ESCROW] or (counts and counts["statements"]))
            head = await escrow_log.head(tx) if has_escrow else None
            if not registry.size:
                raise LogForked("recovery log: it has leaves, and its checkpoints are gone")
            leaf = await tx.fetch_value(_SQL["recovery_leaf"], registry.size - 1)
    return Trust(
        registry,
        follower,
        head,
        LogState(head.size if head else 0, None, behind[LogName.ESCROW]),
        LogState(registry.size, parse_leaf(leaf).time, behind[LogName.RECOVERY]),
    )


async def newest_leaf_at(tx: Transaction, head: Checkpoint) -> int:
    """Return the time of the escrow log's newest leaf, in seconds; ProofInvalid when it is not what was signed."""
    index = head.size - 1
    leaf = await tx.fetch_value(_SQL["escrow_leaf"], index)
    if leaf is None:
        raise ProofInvalid(f"escrow log: leaf {index} is missing")
    try:
        proof = inclusion_proof(index, head.size, await store.escrow_nodes(tx, nodes_wanted(index, head)))
        verify_inclusion(leaf_hash(leaf), index, head.size, proof, head.root)
        return parse_leaf(leaf).time
    except (PermanentError, StateCorrupt):
        tx.check()
        raise ProofInvalid(f"escrow log: leaf {index}, or a node above it, is not what was signed") from None


def _file(folder: Path, log: LogName) -> Path:
    """Return where a worker keeps the newest checkpoint of a log in its state folder."""
    return folder / f"{log}.checkpoint"


async def _check_schema(database: Database) -> None:
    async with database.reading() as tx:
        is_ours = await tx.fetch_value(_SQL["is_ours"])
    if not is_ours:
        raise SchemaMismatch(
            "this is no database of Strongroom: it has no table schema_migrations",
            hint="name the backup of Strongroom's own database; in a cluster, its name with --database",
        )
    try:
        await database.check_schema()
    except SchemaMismatch as error:
        hint = error.hint
        if hint == MIGRATE_HINT:
            hint = (
                "the backup is older than this program: drill it with the version of then; or restore it yourself, "
                "run `strongroom db migrate` on that, and drill it by --database-url-file"
            )
        raise SchemaMismatch(error.message, hint=hint) from None


async def _newest_roster(tx: Transaction, root_key: bytes) -> Roster:
    """Return the newest roster that there is, verified by the root key, after a look at the first.

    It names the keys that the logs have and had. Rows that withhold a newer one are found out by its keys.
    """
    leaf = await tx.fetch_value(_SQL["recovery_leaf"], 0)
    if leaf is None:
        raise StateCorrupt(
            "the recovery log is empty: no recovery worker has ever worked on this database",
            hint="is this the backup of the right database?",
        )
    try:
        entry = parse_leaf(leaf)
        if not isinstance(entry, RosterLeaf):
            raise LogForked("recovery log: leaf 0 names no roster", hint=OTHER_BACKUP)
        envelope = await tx.fetch_value(_SQL["trust_statement"], bytes.fromhex(entry.digest))
        if envelope is None:
            raise StateCorrupt("the roster that leaf 0 of the recovery log names is missing", hint=OTHER_BACKUP)
        first = parse_envelope(envelope)
        rows = await tx.fetch(_SQL["rosters"], RosterBody.TYPE)
        newest = max(_verified((row["envelope"] for row in rows), root_key), key=_version, default=None)
        if newest is None:
            return Roster.verified(first, root_key)
        newest.verified_older(first)
    except RosterInvalid as error:
        raise RosterInvalid(
            error.message, hint="is --root-key the root.pub of this database's authority?"
        ) from None
    except PermanentError as error:
        raise LogForked(f"recovery log: leaf 0, or its roster: {error.message}", hint=OTHER_BACKUP) from None
    return newest


def _verified(envelopes: Iterable[bytes], root_key: bytes) -> Iterator[Roster]:
    """Give the rosters that hold under the root key; earlier ones may be by an earlier root key."""
    for envelope in envelopes:
        with suppress(PermanentError):
            yield Roster.verified(parse_envelope(envelope), root_key)


def _version(roster: Roster) -> int:
    return roster.body.version


def _remember(log: LogName, key: LogKey, size: int, state_dirs: Sequence[Path], folder: Path) -> int | None:
    """Put the newest checkpoint that a log of `size` leaves must continue into `folder`.

    Return how many leaves more the state folders know of; None when they know nothing of this log.
    """
    mine = CheckpointFile(_file(folder, log), key.origin, key.public_key, key.former)
    known = []
    for state_dir in state_dirs:
        kept = CheckpointFile(_file(state_dir, log), key.origin, key.public_key, key.former).read()
        if kept is not None:
            known.append(kept.checkpoint.size)
            if kept.checkpoint.size <= size:
                mine.advance(kept.note)
    return max(0, max(known) - size) if known else None


@contextmanager
def _unfit() -> Iterator[None]:
    """Say of a log that does not hold what to do about a backup, which is not what a worker would do."""
    try:
        yield
    except (LogForked, StateCorrupt, CheckpointInvalid, ProofInvalid) as error:
        raise type(error)(error.message, hint=OTHER_BACKUP) from None
