"""The restore drill: can records be opened out of this database, with these keys and nothing else?

It believes the database as little as a recovery worker does, and by the same code: the recovery log is replayed
under its newest working checkpoint, rosters and enrolments are verified up to the root key, and statements against
them. Nothing is ever written into the database.
"""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from uuid import UUID

from strongroom.crypto.keyring import Keyring
from strongroom.database import Database, Transaction, load_queries
from strongroom.errors import (
    BlobInvalid,
    FingerprintMismatch,
    KeyUnknown,
    PermanentError,
    ProofInvalid,
    StateCorrupt,
)
from strongroom.leaves import EscrowLeaf, parse_leaf
from strongroom.roster import Roster
from strongroom.schema import shipped_migrations
from strongroom_recovery import store
from strongroom_recovery.drill.report import (
    Failure,
    Finding,
    LogState,
    Report,
    SealingKeyUse,
    Unstored,
    key_findings,
    row_findings,
)
from strongroom_recovery.drill.restored import Say
from strongroom_recovery.drill.temporary_server import FOLDER_PREFIX
from strongroom_recovery.drill.trust import OTHER_BACKUP, Trust, established, newest_leaf_at
from strongroom_recovery.key_blobs import opened
from strongroom_recovery.records import IndexEntry, StoredRecord, VerifiedStatement, verify

COMMAND_SECONDS_MAX: Final = 3600
PAGE_STATEMENTS: Final = 100
UNSTORED_MAX: Final = 100

_SQL: Final = load_queries("drill")
_SEED_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Means:
    """What a drill has beside the database: the pinned root public key (32 bytes) and the sealing keys' backup.

    state_dirs: state folders of workers, to compare with the newest checkpoints in there. folder: where a folder
    for a few small files may be made.
    """

    root_key: bytes
    keyring: Keyring
    folder: Path
    state_dirs: Sequence[Path] = ()


async def drill(database: Database, means: Means, *, count: int | None, seed: int, say: Say) -> Report:
    """Open records out of a database and report.

    Args:
        database: its role may read everything; nothing is written.
        means: keys and folders.
        count: how many records, picked by `seed` (0 to 2^63 - 1); all if there are no more, or if None.
        seed: picks the same records again from the same backup.
        say: is told what is being done.

    Raises:
        SchemaMismatch: it is not at the schema of this program, or none of Strongroom's.
        RosterInvalid: another root key signed its first roster.
        LogForked, StateCorrupt, CheckpointInvalid, ProofInvalid: who speaks for whom cannot be told from it at all.
        ConfigurationInvalid: a state folder holds no checkpoint.
        DatabaseUnavailable: it cannot be asked.
    """
    began = time.monotonic()
    say("Replaying the recovery log")
    with TemporaryDirectory(prefix=FOLDER_PREFIX, dir=means.folder) as folder:
        trust = await established(database, means.root_key, means.state_dirs, Path(folder))
        say("Counting")
        async with database.reading() as tx:
            survey = await _survey(tx, trust, means.keyring)
        opening = time.monotonic()
        picked = None if count is None or count >= survey.records else count
        look = _Look(database, trust, means.keyring, survey.records if picked is None else picked)
        if trust.escrow_head is not None:
            tasks = look.everything() if picked is None else look.sampled(picked, seed)
            async for some in tasks:
                await look.at(some)
                say(f"Opening records: {look.sampled_records} of {look.wanted}")
    ended = time.monotonic()
    seen = look.entries_seen if picked is None else 0
    leaves = trust.escrow_log.leaves
    rows = row_findings(survey.records, seen, survey.statements, leaves, len(survey.unstored))
    return Report(
        authority=trust.registry.roster.body.authority,
        roster_version=trust.registry.roster.body.version,
        migration=str(shipped_migrations()[-1]),
        records=survey.records,
        statements=survey.statements,
        escrow_log=LogState(leaves, survey.newest_escrow_leaf_at, trust.escrow_log.behind),
        recovery_log=trust.recovery_log,
        sealing_keys=survey.sealing_keys,
        sampled=look.sampled_records,
        opened=look.opened,
        late=look.late,
        seed=None if picked is None else seed,
        check_seconds=ended - began,
        open_seconds=ended - opening,
        failures=look.failures,
        unstored=survey.unstored,
        findings=[*survey.findings, *key_findings(survey.sealing_keys), *rows],
    )


# ---- what there is -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Survey:
    statements: int
    records: int
    newest_escrow_leaf_at: int | None
    sealing_keys: list[SealingKeyUse]
    unstored: list[Unstored]
    findings: list[Finding]


async def _survey(tx: Transaction, trust: Trust, keyring: Keyring) -> _Survey:
    row = await tx.fetch_row(_SQL["counts"])
    statements, records = (row["statements"], row["records"]) if row else (0, 0)
    findings: list[Finding] = []
    newest = None
    if trust.escrow_head is not None:
        try:
            newest = await newest_leaf_at(tx, trust.escrow_head)
        except ProofInvalid as error:
            findings.append(Finding(error.code, error.message, OTHER_BACKUP))
    kids: dict[str, int] = {each["kid"]: each["records"] for each in await tx.fetch(_SQL["kids"])}
    unstored = await tx.fetch(_SQL["unstored"], trust.escrow_log.leaves, UNSTORED_MAX)
    return _Survey(
        statements,
        records,
        newest,
        _sealing_keys(kids, trust.registry.roster, keyring),
        [_unstored(each["index"], each["leaf"]) for each in unstored],
        findings,
    )


def _sealing_keys(kids: dict[str, int], roster: Roster, keyring: Keyring) -> list[SealingKeyUse]:
    states = {key.kid: key.state.value for key in roster.body.sealing_keys}
    return [
        SealingKeyUse(kid, kids.get(kid, 0), states.get(kid), kid in keyring.kids)
        for kid in (*states, *sorted(kids.keys() - states.keys()))
    ]


def _unstored(index: int, leaf: bytes) -> Unstored:
    try:
        entry = parse_leaf(leaf)
    except PermanentError:
        entry = None
    if isinstance(entry, EscrowLeaf):
        return Unstored(index, entry.id, entry.principal)
    return Unstored(index, None, None)


# ---- looking at records --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Task:
    """A statement to look at, and the index entries of the records that are wanted of it; None wants all."""

    statement_id: str
    entries: list[IndexEntry] | None = None


@dataclass(slots=True)
class _Outcome:
    """What became of a statement's records: how many were opened, how many of those by a late key, and the rest.

    seen: index entries that belong to it.
    """

    opened: int = 0
    late: int = 0
    seen: int = 0
    failures: list[Failure] = field(default_factory=list)


class _Look:
    """Looks at records and keeps count."""

    def __init__(self, database: Database, trust: Trust, keyring: Keyring, wanted: int) -> None:
        self._database = database
        self._trust = trust
        self._keyring = keyring
        self.wanted = wanted
        self.opened = 0
        self.late = 0
        self.entries_seen = 0
        self.failures: list[Failure] = []

    @property
    def sampled_records(self) -> int:
        return self.opened + len(self.failures)

    async def sampled(self, count: int, seed: int) -> AsyncIterator[list[_Task]]:
        """Pick records by a seed, and give their statements, some at a time."""
        async with self._database.reading() as tx:
            rows = await tx.fetch(_SQL["sample"], seed.to_bytes(_SEED_BYTES, "big"), count)
        by_statement: dict[str, list[IndexEntry]] = {}
        for entry in (IndexEntry(*row) for row in rows):
            by_statement.setdefault(entry.statement_id, []).append(entry)
        tasks = [_Task(*each) for each in by_statement.items()]
        for first in range(0, len(tasks), PAGE_STATEMENTS):
            yield tasks[first : first + PAGE_STATEMENTS]

    async def everything(self) -> AsyncIterator[list[_Task]]:
        """Give all statements in the order of the escrow log, some at a time."""
        after = -1
        while True:
            async with self._database.reading() as tx:
                rows = await tx.fetch(_SQL["statements_after"], after, PAGE_STATEMENTS)
            if not rows:
                return
            after = rows[-1]["leaf_index"]
            yield [_Task(row["id"]) for row in rows]

    async def at(self, tasks: Sequence[_Task]) -> None:
        """Look at some statements; what is wrong with one of them, down to a page of its table, is its own."""
        try:
            async with self._database.reading() as tx:
                outcomes = [await self._outcome(tx, task) for task in tasks]
        except StateCorrupt as error:
            # The server could not give back what it has: after that the transaction is of no use any more.
            if len(tasks) > 1:
                for task in tasks:
                    await self.at([task])
                return
            outcomes = [await self._unreadable(tasks[0], error)]
        for outcome in outcomes:
            self.opened += outcome.opened
            self.late += outcome.late
            self.entries_seen += outcome.seen
            self.failures += outcome.failures

    async def _outcome(self, tx: Transaction, task: _Task) -> _Outcome:
        try:
            statement = await self._verified(tx, task.statement_id)
        except ProofInvalid as error:
            return _all_failed(task, await self._entries(tx, task), error)
        outcome = _Outcome()
        placed: list[tuple[IndexEntry, StoredRecord]] = []
        for entry in await self._wanted(tx, task, statement, outcome):
            outcome.seen += 1
            try:
                placed.append((entry, statement.record(entry)))
            except ProofInvalid as error:
                outcome.failures.append(_failure(entry, error))
        records = await store.with_resealed(tx, [record for _, record in placed], self._keyring.kids)
        for (entry, _), record in zip(placed, records, strict=True):
            refusal = opens(record, self._keyring)
            if refusal is not None:
                outcome.failures.append(_failure(entry, refusal))
                continue
            outcome.opened += 1
            outcome.late += not record.in_force
        return outcome

    async def _verified(self, tx: Transaction, id_: str) -> VerifiedStatement:
        head, trust = self._trust.escrow_head, self._trust
        if head is None:
            raise ProofInvalid("the escrow log has no checkpoint")
        stored = await store.escrow_statement(tx, id_, head)
        try:
            await trust.follower.admit(tx, [stored.principal], former=True)
        except StateCorrupt as error:
            tx.check()  # it may have been the server's own
            raise ProofInvalid(error.message) from None
        return verify(stored, head, trust.registry)

    async def _wanted(
        self, tx: Transaction, task: _Task, statement: VerifiedStatement, outcome: _Outcome
    ) -> list[IndexEntry]:
        """Return the index entries to look at; a record of the statement that has none has failed."""
        if task.entries is not None:
            return task.entries
        escrow = statement.escrow
        rows = await tx.fetch(_SQL["records_by_id"], [UUID(record.id) for record in escrow.records])
        entries = {entry.id: entry for entry in (IndexEntry(*row) for row in rows)}
        for record in escrow.records:
            if record.id not in entries:
                why = "the index has no entry for it: nobody is given it who asks by name"
                outcome.failures.append(
                    Failure(record.id, escrow.id, escrow.principal, record.name, "not_found", why)
                )
        return [entries[record.id] for record in escrow.records if record.id in entries]

    async def _entries(self, tx: Transaction, task: _Task) -> list[IndexEntry]:
        if task.entries is not None:
            return task.entries
        rows = await tx.fetch(_SQL["records_of_statement"], UUID(task.statement_id))
        return [IndexEntry(*row) for row in rows]

    async def _unreadable(self, task: _Task, error: StateCorrupt) -> _Outcome:
        entries: list[IndexEntry] = task.entries or []
        if task.entries is None:
            try:
                async with self._database.reading() as tx:
                    entries = await self._entries(tx, task)
            except StateCorrupt:
                entries = []
        return _all_failed(task, entries, error)


def opens(stored: StoredRecord, keyring: Keyring) -> PermanentError | None:
    """Open a record's blob in its place and compare the fingerprint; return what is wrong, None when nothing is.

    The key that it opens is gone when this returns, and so is the error that was raised beside it.
    """
    try:
        opened(stored.authority, stored.principal, stored.record, keyring, stored.resealed)
    except (BlobInvalid, FingerprintMismatch, KeyUnknown) as error:
        return type(error)(error.message)
    return None


def _failure(entry: IndexEntry, error: PermanentError | StateCorrupt) -> Failure:
    return Failure(entry.id, entry.statement_id, entry.principal, entry.name, error.code, error.message)


def _all_failed(task: _Task, entries: Sequence[IndexEntry], error: PermanentError | StateCorrupt) -> _Outcome:
    failures = [_failure(entry, error) for entry in entries]
    if not entries:
        failures = [Failure(None, task.statement_id, None, None, error.code, error.message)]
    return _Outcome(seen=len(entries), failures=failures)
