"""The SQLite database of a home: rosters, checkpoints, evidence, the enrolment; the spool's tables live in it too.

WAL with synchronous=FULL: what was committed survives a power cut. Every commit is one fsync.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

from strongroom.errors import Busy, ConfigurationInvalid, SchemaMismatch, StateCorrupt, TransientError

SCHEMA_VERSION: Final = 2
BUSY_SECONDS: Final = 5.0

LogName = Literal["escrow", "recovery"]

_SCHEMA: Final = """
CREATE TABLE rosters (
    version    INTEGER PRIMARY KEY,
    envelope   BLOB    NOT NULL,
    expires_at INTEGER NOT NULL,
    seen_at    INTEGER NOT NULL
);
CREATE TABLE checkpoints (                    -- the newest of each log
    log     TEXT    PRIMARY KEY CHECK (log IN ('escrow', 'recovery')),
    size    INTEGER NOT NULL,
    root    BLOB    NOT NULL,
    note    TEXT    NOT NULL,
    seen_at INTEGER NOT NULL
);
CREATE TABLE evidence (                       -- signed checkpoints of one log that do not belong together
    id        INTEGER PRIMARY KEY,
    log       TEXT    NOT NULL,
    statement TEXT    NOT NULL,
    reason    TEXT    NOT NULL,
    held_note TEXT    NOT NULL,
    note      TEXT    NOT NULL,
    reply     BLOB    NOT NULL,
    seen_at   INTEGER NOT NULL,
    UNIQUE (held_note, note)
);
CREATE TABLE enrolments (
    invitation  TEXT    PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    envelope    BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    leaf        BLOB,
    proof       TEXT,
    log_index   INTEGER,
    tree_size   INTEGER,
    enrolled_at INTEGER
);
CREATE TABLE statements (
    position   INTEGER PRIMARY KEY,           -- the order in which they were spooled
    id         TEXT    NOT NULL UNIQUE,
    envelope   BLOB    NOT NULL,
    digest     BLOB    NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('spooled', 'stored', 'rejected')),
    created_at INTEGER NOT NULL,
    attempts   INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    leaf       BLOB,
    proof      TEXT,
    log_index  INTEGER,
    tree_size  INTEGER,
    stored_at  INTEGER,
    code       TEXT,
    message    TEXT,
    rejection  BLOB,
    CHECK (state <> 'stored' OR (leaf IS NOT NULL AND proof IS NOT NULL AND log_index IS NOT NULL
                                 AND tree_size IS NOT NULL AND stored_at IS NOT NULL)),
    CHECK (state <> 'rejected' OR (code IS NOT NULL AND message IS NOT NULL AND rejection IS NOT NULL))
);
CREATE INDEX statements_open ON statements (position) WHERE state <> 'stored';
CREATE INDEX statements_created ON statements (created_at);
CREATE TABLE records (
    id            TEXT PRIMARY KEY,
    statement     TEXT NOT NULL REFERENCES statements (id),
    name          TEXT NOT NULL,
    kind          TEXT NOT NULL,
    description   TEXT NOT NULL,
    serial_number TEXT NOT NULL,
    algorithm     TEXT NOT NULL,
    labels        TEXT NOT NULL,              -- a JSON object
    fingerprint   TEXT NOT NULL,
    kid           TEXT NOT NULL,
    listed        TEXT CHECK (listed IN ('stored', 'disclosed', 'missing', 'mismatched')),
    listed_at     INTEGER                     -- when the authority's own listing was last compared
) WITHOUT ROWID;
CREATE INDEX records_statement ON records (statement);
CREATE INDEX records_name ON records (name);
"""

_LISTING: Final = """
CREATE TABLE disclosures (                    -- as the last complete listing has them: the newest of each record
    record         TEXT    PRIMARY KEY,
    name           TEXT    NOT NULL,
    request        TEXT    NOT NULL,
    requester      TEXT    NOT NULL,
    requester_kind TEXT    NOT NULL CHECK (requester_kind IN ('principal', 'officer')),
    released_at    INTEGER NOT NULL,
    reason         TEXT
) WITHOUT ROWID;
CREATE TABLE pending_requests (               -- of others for this principal's records, from the same listing
    request        TEXT    PRIMARY KEY,
    digest         TEXT    NOT NULL,
    requester      TEXT    NOT NULL,
    requester_kind TEXT    NOT NULL CHECK (requester_kind IN ('principal', 'officer')),
    asked_at       INTEGER NOT NULL,
    not_before     INTEGER NOT NULL,
    reason         TEXT
) WITHOUT ROWID;
"""

# The step from each schema version to the next one.
_MIGRATIONS: Final = {1: _LISTING}


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
    """An enrolment: the statement that is sent, and the place of its leaf once it is proven."""

    invitation: str
    id: str
    envelope: bytes
    log_index: int | None
    tree_size: int | None
    enrolled_at: int | None


@dataclass(frozen=True, slots=True)
class ProvenLeaf:
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
    """Who was given the key of a record last, when and why; the reason is None where the authority has lost it."""

    record: str
    name: str
    request: str
    requester: str
    requester_kind: str
    released_at: int
    reason: str | None

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
            state._connection.executescript(
                f"BEGIN; {_SCHEMA} {_LISTING} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
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
        if self._version() in _MIGRATIONS:
            with self.transaction():
                self._migrate()
        if self._version() != SCHEMA_VERSION:
            raise SchemaMismatch(f"{self._path}: schema {self._version()}, this program knows {SCHEMA_VERSION}")

    def _migrate(self) -> None:
        # The version is read again: another process may have done it while this one waited.
        while (version := self._version()) in _MIGRATIONS:
            for statement in _MIGRATIONS[version].split(";\n"):
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
        """Keep a checkpoint that was proven to continue the kept one; a smaller one changes nothing.

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
                self.execute("INSERT INTO disclosures VALUES (?, ?, ?, ?, ?, ?, ?)", *astuple(disclosure))
            for request in pending:
                self.execute("INSERT INTO pending_requests VALUES (?, ?, ?, ?, ?, ?, ?)", *astuple(request))

    def disclosures(self) -> list[KeptDisclosure]:
        """Return what was handed out, by the last complete listing; the newest first."""
        return [
            KeptDisclosure(*row)
            for row in self.rows("SELECT * FROM disclosures ORDER BY released_at DESC, record DESC")
        ]

    def pending(self) -> list[KeptPending]:
        """Return others' requests that waited at the last complete listing; the newest first."""
        return [
            KeptPending(*row)
            for row in self.rows("SELECT * FROM pending_requests ORDER BY asked_at DESC, request DESC")
        ]

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

    def mark_enrolled(self, statement_id: str, receipt: ProvenLeaf, now: int) -> None:
        """Record that an enrolment is proven to be in the recovery log."""
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
