"""The SQLite database of a home: rosters, checkpoints, evidence, the enrolment; the spool's tables live in it too.

WAL with synchronous=FULL: what was committed survives a power cut. Every commit is one fsync.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from strongroom.errors import Busy, ConfigurationInvalid, SchemaMismatch, StateCorrupt, TransientError
from strongroom_agent.state_schema import MIGRATIONS, SCHEMA, SCHEMA_VERSION

BUSY_SECONDS: Final = 5.0

LogName = Literal["escrow", "recovery"]


@dataclass(frozen=True, slots=True)
class KeptCheckpoint:
    """The newest verified checkpoint of a log: number of leaves, root (32 bytes), the signed note."""

    log: LogName
    size: int
    root: bytes
    note: str


@dataclass(frozen=True, slots=True)
class KeptRoster:
    """The newest roster seen: its envelope, verified when it was kept."""

    version: int
    envelope: bytes
    expires_at: int


@dataclass(frozen=True, slots=True)
class KeptEnrolment:
    """An enrolment: the statement that is sent, and the place of its leaf once it has a receipt."""

    invitation: str
    id: str
    envelope: bytes
    log_index: int | None
    tree_size: int | None
    enrolled_at: int | None


@dataclass(frozen=True, slots=True)
class ReceiptedLeaf:
    """A receipt in the form in which it is kept: leaf, tlog-proof text, and the numbers in it."""

    leaf: bytes
    proof: str
    index: int
    tree_size: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a log is not believed any more: two checkpoints that its key signed, and the reply that came."""

    log: LogName
    statement: str
    reason: str
    held_note: str
    note: str
    reply: bytes
    seen_at: int


@dataclass(frozen=True, slots=True)
class KeptDisclosure:
    """Who was given the key of a record last, when and why; the reason is None where the authority has lost it.

    replace_by: until when the key is to be replaced, of one that others were given. is_replaced: that is done.
    """

    record: str
    name: str
    request: str
    requester: str
    requester_kind: str
    released_at: int
    reason: str | None
    replace_by: int | None = None
    is_replaced: bool = False

    def is_by(self, principal: str) -> bool:
        """Say whether the principal recovered it itself."""
        return (self.requester_kind, self.requester) == ("principal", principal)


@dataclass(frozen=True, slots=True)
class KeptPending:
    """Somebody else's request for keys of this principal that waits; not released before `not_before`."""

    request: str
    digest: str
    requester: str
    requester_kind: str
    asked_at: int
    not_before: int
    reason: str | None


class State:
    """An open state database; close it, or use it as a context manager.

    Every method that changes something is one transaction, or joins the one that is open. Raises Busy while
    another process writes for longer than BUSY_SECONDS, TransientError for a full or failing disk,
    StateCorrupt for a damaged file.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """Wrap a connection; `open` and `create` make one."""
        self._connection = connection
        self._path = path

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make the database: mode 0600, with the schema. The path must be free (ConfigurationInvalid)."""
        try:
            path.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            raise ConfigurationInvalid(f"{path}: exists already") from None
        state = cls(_connect(path), path)
        with state._translated():
            state._connection.execute("PRAGMA journal_mode = WAL")
            state._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        return state

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the database; one of an older program is brought up to date, all at once or not at all.

        Raises SchemaMismatch if a newer program made it.
        """
        if not path.exists():
            raise StateCorrupt(f"{path}: is missing", hint="restore the home from its backup, or enrol anew")
        state = cls(_connect(path), path)
        try:
            state._bring_up_to_date()
        except BaseException:
            state.close()
            raise
        return state

    def _version(self) -> int:
        return int(self.rows("PRAGMA user_version")[0][0])

    def _bring_up_to_date(self) -> None:
        if self._version() in MIGRATIONS:
            with self.transaction():
                self._migrate()
        if self._version() != SCHEMA_VERSION:
            raise SchemaMismatch(f"{self._path}: schema {self._version()}, this program knows {SCHEMA_VERSION}")

    def _migrate(self) -> None:
        # The version is read again: another process may have done it while this one waited.
        while (version := self._version()) in MIGRATIONS:
            for statement in MIGRATIONS[version].split(";\n"):
                self.execute(statement)
            self.execute(f"PRAGMA user_version = {version + 1}")

    def close(self) -> None:
        """Close the connection; nothing that was committed is affected."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything inside one durable change, or none of it; nested ones join the outermost."""
        if self._connection.in_transaction:
            yield
            return
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.rollback()
                raise
            try:
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                self._connection.rollback()
                raise

    def execute(self, sql: str, *values: object) -> int:
        """Run one statement that changes rows; return how many it changed."""
        with self._translated():
            return self._connection.execute(sql, values).rowcount

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run one query and return its rows."""
        with self._translated(), closing(self._connection.execute(sql, values)) as cursor:
            return cursor.fetchall()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _translate(error, self._path) from None

    # ---- rosters ----

    def roster(self) -> KeptRoster | None:
        """Return the newest roster seen."""
        rows = self.rows("SELECT version, envelope, expires_at FROM rosters ORDER BY version DESC LIMIT 1")
        return KeptRoster(*rows[0]) if rows else None

    def keep_roster(self, roster: KeptRoster, now: int) -> None:
        """Keep a verified roster."""
        self.execute(
            "INSERT INTO rosters VALUES (?, ?, ?, ?) ON CONFLICT (version) DO NOTHING",
            roster.version,
            roster.envelope,
            roster.expires_at,
            now,
        )

    # ---- checkpoints ----

    def checkpoint(self, log: LogName) -> KeptCheckpoint | None:
        """Return the newest checkpoint of a log that was verified here."""
        rows = self.rows("SELECT log, size, root, note FROM checkpoints WHERE log = ?", log)
        return KeptCheckpoint(*rows[0]) if rows else None

    def keep_checkpoint(self, new: KeptCheckpoint, now: int) -> None:
        """Keep a checkpoint that was shown to continue the kept one; a smaller one changes nothing.

        Raises StateCorrupt for the kept size under another root: the caller proved something else.
        """
        with self.transaction():
            kept = self.checkpoint(new.log)
            if kept is not None and kept.size == new.size and kept.root != new.root:
                raise StateCorrupt(f"{new.log} log: a checkpoint of {new.size} leaves with another root")
            if kept is None or kept.size < new.size:
                self.execute(
                    "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?)",
                    new.log,
                    new.size,
                    new.root,
                    new.note,
                    now,
                )

    def keep_evidence(self, evidence: Evidence) -> None:
        """Keep what shows that a log was forked; the same pair of checkpoints is kept once."""
        self.execute(
            "INSERT INTO evidence (log, statement, reason, held_note, note, reply, seen_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            evidence.log,
            evidence.statement,
            evidence.reason,
            evidence.held_note,
            evidence.note,
            evidence.reply,
            evidence.seen_at,
        )

    def clear_evidence(self) -> int:
        """Drop all evidence and return how much there was; the checkpoints that are held stay."""
        return self.execute("DELETE FROM evidence")

    def evidence(self) -> list[Evidence]:
        """Return all evidence, oldest first."""
        columns = "log, statement, reason, held_note, note, reply, seen_at"
        return [Evidence(*row) for row in self.rows(f"SELECT {columns} FROM evidence ORDER BY id")]  # noqa: S608

    # ---- what the authority's listing said ----

    def keep_listing(self, disclosures: Iterable[KeptDisclosure], pending: Iterable[KeptPending]) -> None:
        """Keep what a complete listing said, in the place of what the one before it said."""
        with self.transaction():
            self.execute("DELETE FROM disclosures")
            self.execute("DELETE FROM pending_requests")
            for disclosure in disclosures:
                self.execute("INSERT INTO disclosures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", *astuple(disclosure))
            for request in pending:
                self.execute("INSERT INTO pending_requests VALUES (?, ?, ?, ?, ?, ?, ?)", *astuple(request))

    def disclosures(self) -> list[KeptDisclosure]:
        """Return what was handed out, by the last complete listing; the newest first."""
        return [
            replace(KeptDisclosure(*row), is_replaced=bool(row[-1]))
            for row in self.rows("SELECT * FROM disclosures ORDER BY released_at DESC, record DESC")
        ]

    def pending(self) -> list[KeptPending]:
        """Return others' requests that waited at the last complete listing; the newest first."""
        return [
            KeptPending(*row)
            for row in self.rows("SELECT * FROM pending_requests ORDER BY asked_at DESC, request DESC")
        ]

    def forget_pending(self, request: str) -> None:
        """Drop a request that does not wait any more; one that is not kept changes nothing."""
        self.execute("DELETE FROM pending_requests WHERE request = ?", request)

    # ---- enrolment ----

    def enrolments(self) -> list[KeptEnrolment]:
        """Return the enrolments that were prepared here, oldest first."""
        rows = self.rows(
            "SELECT invitation, id, envelope, log_index, tree_size, enrolled_at FROM enrolments ORDER BY rowid"
        )
        return [KeptEnrolment(*row) for row in rows]

    def keep_enrolment(self, invitation: str, statement_id: str, envelope: bytes, now: int) -> None:
        """Keep an enrolment before it is sent, so that a repeat sends the same bytes."""
        self.execute(
            "INSERT INTO enrolments (invitation, id, envelope, created_at) VALUES (?, ?, ?, ?)",
            invitation,
            statement_id,
            envelope,
            now,
        )

    def mark_enrolled(self, statement_id: str, receipt: ReceiptedLeaf, now: int) -> None:
        """Record that a receipt shows an enrolment in the recovery log."""
        self.execute(
            "UPDATE enrolments SET leaf = ?, proof = ?, log_index = ?, tree_size = ?, enrolled_at = ? WHERE id = ?",
            receipt.leaf,
            receipt.proof,
            receipt.index,
            receipt.tree_size,
            now,
            statement_id,
        )


def _connect(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
    except sqlite3.Error as error:
        raise _translate(error, path) from None
    return connection


def _translate(error: sqlite3.Error, path: Path) -> Busy | TransientError | StateCorrupt:
    match getattr(error, "sqlite_errorname", "").split("_")[1:2]:
        case ["BUSY"] | ["LOCKED"]:
            return Busy(f"{path}: another process has been writing for {BUSY_SECONDS:.0f} s")
        case ["FULL"] | ["IOERR"] | ["READONLY"] | ["CANTOPEN"]:
            return TransientError(f"{path}: {error}", hint="see to the file system; nothing that was kept is lost")
        case _:
            return StateCorrupt(f"{path}: {error}", hint="restore the home from its backup")
