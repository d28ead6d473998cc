"""The spool: every escrow statement of this home until, and after, there is a receipt for it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from strongroom.crypto.secret import Secret
from strongroom.errors import NotFound
from strongroom_agent.standings import LOST, KeptStanding, Listed
from strongroom_agent.state import KeptCheckpoint, ReceiptedLeaf, State

StatementState = Literal["spooled", "stored", "rejected"]

_ROW: Final = """
    records.id, statement, records.name, kind, description, serial_number, algorithm, fingerprint, kid, labels,
    records.supersedes, state, created_at, attempts, last_error, log_index, tree_size, stored_at, statements.code,
    message, listed, listed_at, standings.proof, proven_at, standings.code, attested_at, replace_by
"""
_JOIN: Final = (
    f"SELECT {_ROW} FROM statements JOIN records ON records.statement = statements.id"  # noqa: S608
    " LEFT JOIN standings ON standings.record = records.id"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFacts:
    """What the owner has signed about one escrowed key, apart from the blob.

    supersedes: ids of records whose place it takes.
    """

    id: str
    name: str
    kind: str
    description: str
    serial_number: str
    algorithm: str
    fingerprint: str
    kid: str
    labels: dict[str, str]
    supersedes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Own:
    """A record that was escrowed from this home: its name, its fingerprint, and whether there is a receipt."""

    name: str
    fingerprint: str
    is_receipted: bool


@dataclass(frozen=True, slots=True)
class RecordRow:
    """One escrowed key and what has become of it; times in seconds.

    state, attempts, last_error: of its statement; the error is why the last attempt brought nothing. log_index,
    tree_size, stored_at: of the receipt. code, message: the authority's signed reason, of a rejected one. standing:
    what the authority's own listing last led to, or None before that.
    """

    facts: RecordFacts
    statement: str
    state: StatementState
    created_at: int
    attempts: int
    last_error: str | None
    log_index: int | None
    tree_size: int | None
    stored_at: int | None
    code: str | None
    message: str | None
    standing: KeptStanding | None

    @property
    def listed(self) -> Listed | None:
        """The state that the last listing led to, or None."""
        return self.standing.listed if self.standing else None

    @property
    def listed_at(self) -> int | None:
        """When that was learnt, in seconds, or None."""
        return self.standing.listed_at if self.standing else None

    @property
    def is_proven(self) -> bool:
        """Whether the authority has shown that it can give the key back, and nothing says otherwise since."""
        found = self.standing
        return found is not None and found.proven_at is not None and found.listed not in LOST


@dataclass(frozen=True, slots=True)
class Packed:
    """A signed escrow statement that is ready for the spool: only sealed blobs are in it.

    salts: record id → the salt of its fingerprint, of those that shall be compared with the live key.
    """

    id: str
    envelope: bytes
    digest: bytes
    records: tuple[RecordFacts, ...]
    salts: Mapping[str, Secret] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rejection whose signature was verified: the authority's code and words, and its envelope.

    retry_at: from when on it may be tried again, in seconds since 1970, where the authority says so.
    """

    code: str
    message: str
    envelope: bytes
    retry_at: int | None = None


class Spool:
    """The statements and records in a state database; the contract of State's methods holds here too."""

    def __init__(self, state: State) -> None:
        """Work on this database."""
        self._state = state

    def add(self, statements: Iterable[Packed], now: int) -> None:
        """Take statements in, all or none; they survive a power cut once this returns.

        Arguments: `now` is the time of issue that they bear, in seconds.
        """
        with self._state.transaction():
            for packed in statements:
                self._state.execute(
                    "INSERT INTO statements (id, envelope, digest, state, created_at)"
                    " VALUES (?, ?, ?, 'spooled', ?)",
                    packed.id,
                    packed.envelope,
                    packed.digest,
                    now,
                )
                for record in packed.records:
                    self._state.execute(
                        "INSERT INTO records (id, statement, name, kind, description, serial_number, algorithm,"
                        " labels, fingerprint, kid, supersedes, salt)"
                        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                        record.id,
                        packed.id,
                        record.name,
                        record.kind,
                        record.description,
                        record.serial_number,
                        record.algorithm,
                        json.dumps(record.labels, ensure_ascii=False, sort_keys=True),
                        record.fingerprint,
                        record.kid,
                        json.dumps(record.supersedes),
                        packed.salts[record.id].expose() if record.id in packed.salts else None,
                    )

    def spooled(self) -> list[str]:
        """Return the ids of what still has to go out, in the order in which it came."""
        return [
            id_
            for (id_,) in self._state.rows("SELECT id FROM statements WHERE state = 'spooled' ORDER BY position")
        ]

    def unstored(self) -> list[str]:
        """Return the ids of what has no receipt, spooled or rejected, in the order in which it came."""
        return [
            id_
            for (id_,) in self._state.rows("SELECT id FROM statements WHERE state <> 'stored' ORDER BY position")
        ]

    def newest(self, before: int) -> tuple[int, str] | None:
        """Return the newest time of issue before `before`, and the greatest record id that bears it, or None."""
        rows = self._state.rows(
            "SELECT created_at, max(records.id) FROM statements JOIN records ON records.statement = statements.id"
            " WHERE created_at = (SELECT max(created_at) FROM statements WHERE created_at < ?) GROUP BY created_at",
            before,
        )
        return (rows[0][0], rows[0][1]) if rows else None

    def message(self, statement_id: str) -> tuple[bytes, bytes]:
        """Return envelope and statement digest (32 bytes) of a statement; NotFound without it."""
        rows = self._state.rows("SELECT envelope, digest FROM statements WHERE id = ?", statement_id)
        if not rows:
            raise NotFound(f"{statement_id}: is not in the spool")
        envelope, digest = rows[0]
        return envelope, digest

    def settle(
        self,
        *,
        stored: Mapping[str, ReceiptedLeaf],
        rejected: Mapping[str, Refusal],
        failed: Mapping[str, str],
        checkpoint: KeptCheckpoint | None,
        now: int,
    ) -> None:
        """Write down what became of one round of messages, with the checkpoint it led to, in one transaction.

        Arguments: statement id → verified receipt, verified rejection, or why nothing counts yet. Only spooled
        entries change; a stored one stays stored whatever comes after.
        """
        with self._state.transaction():
            for id_, receipt in stored.items():
                self._state.execute(
                    "UPDATE statements SET state = 'stored', leaf = ?, proof = ?, log_index = ?, tree_size = ?,"
                    " stored_at = ?, attempts = attempts + 1, last_error = NULL WHERE id = ? AND state = 'spooled'",
                    receipt.leaf,
                    receipt.proof,
                    receipt.index,
                    receipt.tree_size,
                    now,
                    id_,
                )
            for id_, refusal in rejected.items():
                self._state.execute(
                    "UPDATE statements SET state = 'rejected', code = ?, message = ?, rejection = ?,"
                    " attempts = attempts + 1, last_error = NULL WHERE id = ? AND state = 'spooled'",
                    refusal.code,
                    refusal.message,
                    refusal.envelope,
                    id_,
                )
            self.note_failures(failed)
            if checkpoint is not None:
                self._state.keep_checkpoint(checkpoint, now)

    def note_failures(self, failed: Mapping[str, str]) -> None:
        """Count one attempt for each of these spooled statements and keep why it brought nothing."""
        with self._state.transaction():
            for id_, reason in failed.items():
                self._state.execute(
                    "UPDATE statements SET attempts = attempts + 1, last_error = ?"
                    " WHERE id = ? AND state = 'spooled'",
                    reason,
                    id_,
                )

    def requeue(self, statement_id: str) -> None:
        """Let a rejected statement go out again, when its cause is gone; NotFound if it is not rejected."""
        changed = self._state.execute(
            "UPDATE statements SET state = 'spooled', code = NULL, message = NULL, rejection = NULL"
            " WHERE id = ? AND state = 'rejected'",
            statement_id,
        )
        if not changed:
            raise NotFound(f"{statement_id}: is no rejected statement of this home")

    def requeue_rejected(self) -> int:
        """Let every rejected statement go out again; return how many there are."""
        return self._state.execute(
            "UPDATE statements SET state = 'spooled', code = NULL, message = NULL, rejection = NULL"
            " WHERE state = 'rejected'"
        )

    def rejected_records(self) -> dict[str, str]:
        """Return record id → statement id of every record whose statement was rejected."""
        return dict(
            self._state.rows(
                "SELECT records.id, statements.id FROM records JOIN statements ON statements.id = records.statement"
                " WHERE state = 'rejected'"
            )
        )

    # ---- what people are shown ----

    def size(self) -> int:
        """Return how many records were escrowed from this home, in whatever state."""
        return int(self._state.rows("SELECT count(*) FROM records")[0][0])

    def counts(self) -> dict[StatementState, int]:
        """Return how many statements are in each state."""
        found = dict(self._state.rows("SELECT state, count(*) FROM statements GROUP BY state"))
        return {
            "spooled": found.get("spooled", 0),
            "stored": found.get("stored", 0),
            "rejected": found.get("rejected", 0),
        }

    def states(self, statement_ids: Iterable[str]) -> dict[str, StatementState]:
        """Return statement id → state; ids that are not in the spool are left out."""
        return {
            id_: state
            for id_ in statement_ids
            for (state,) in self._state.rows("SELECT state FROM statements WHERE id = ?", id_)
        }

    def state_of(self, record_id: str) -> StatementState | None:
        """Return the state of the statement that brings a record, or None without it."""
        rows = self._state.rows(
            "SELECT state FROM records JOIN statements ON statements.id = records.statement WHERE records.id = ?",
            record_id,
        )
        return rows[0][0] if rows else None

    def of_statements(self, statement_ids: Iterable[str]) -> list[RecordRow]:
        """Return the records of these statements, in their order, then by id."""
        return [
            _row(row)
            for id_ in statement_ids
            for row in self._state.rows(f"{_JOIN} WHERE statements.id = ? ORDER BY records.id", id_)
        ]

    def overview(self, limit: int | None) -> list[RecordRow]:
        """Return the records that need attention, oldest first, then others, newest first, up to `limit` in all."""
        attention = "state <> 'stored' OR listed IN ('missing', 'mismatched', 'unprovable', 'stale', 'disclosed')"
        urgent = self._state.rows(f"{_JOIN} WHERE {attention} ORDER BY position, records.id")
        left = -1 if limit is None else max(0, limit - len(urgent))
        others = self._state.rows(
            f"{_JOIN} WHERE NOT coalesce({attention}, 0) ORDER BY position DESC, records.id LIMIT ?", left
        )
        return [_row(row) for row in (*urgent, *others)]

    def receipted(self, name: str) -> set[str]:
        """Return the ids of the records of a name that the authority receipted and should still list.

        Those that are replaced may be lost there: another record has taken their place, and is among these.
        """
        rows = self._state.rows(
            "SELECT records.id FROM records JOIN statements ON statements.id = records.statement"
            " LEFT JOIN standings ON standings.record = records.id"
            " WHERE state = 'stored' AND records.name = ? AND coalesce(listed, 'stored') <> 'replaced'",
            name,
        )
        return {id_ for (id_,) in rows}

    def own(self) -> dict[str, Own]:
        """Return by id every record that was escrowed from this home."""
        return {
            id_: Own(name, fingerprint, state == "stored")
            for id_, name, fingerprint, state in self._state.rows(
                "SELECT records.id, name, fingerprint, state FROM records"
                " JOIN statements ON statements.id = records.statement"
            )
        }

    def place(self, record_id: str) -> tuple[str | None, int | None]:
        """Return the statement that brought a record and its place in the escrow log, as far as receipts say."""
        rows = self._state.rows(
            "SELECT statement, log_index FROM records JOIN statements ON statements.id = records.statement"
            " WHERE records.id = ? AND state = 'stored'",
            record_id,
        )
        return (rows[0][0], rows[0][1]) if rows else (None, None)

    def fingerprint(self, record_id: str) -> str | None:
        """Return the fingerprint of a record that was escrowed from this home, or None."""
        rows = self._state.rows("SELECT fingerprint FROM records WHERE id = ?", record_id)
        return str(rows[0][0]) if rows else None

    # ---- what a live key is compared with ----

    def salt(self, record_id: str) -> Secret | None:
        """Return the salt of a record's fingerprint, where it was kept."""
        rows = self._state.rows("SELECT salt FROM records WHERE id = ? AND salt IS NOT NULL", record_id)
        return Secret(rows[0][0]) if rows else None

    def newest_of(self, name: str) -> list[RecordRow]:
        """Return every record of a name, the newest first as the authority counts it (SPEC 4.4)."""
        rows = self._state.rows(f"{_JOIN} WHERE records.name = ? ORDER BY created_at DESC, records.id DESC", name)
        return [_row(row) for row in rows]

    def unproven(self) -> int:
        """Return how many stored records were not shown yet to be such that they can be given back."""
        [(count,)] = self._state.rows(
            "SELECT count(*) FROM records JOIN statements ON statements.id = records.statement"
            " LEFT JOIN standings ON standings.record = records.id WHERE state = 'stored'"
            " AND coalesce(listed, 'stored') <> 'replaced' AND proven_at IS NULL"
        )
        return int(count)


def _row(row: tuple[Any, ...]) -> RecordRow:
    id_, statement, name, kind, description, serial_number, algorithm, fingerprint, kid, labels, *rest = row
    of_statement: list[Any]
    supersedes, *of_statement = rest[:-7]
    listed, listed_at, proof, proven_at, code, attested_at, replace_by = rest[-7:]
    facts = RecordFacts(
        id=id_,
        name=name,
        kind=kind,
        description=description,
        serial_number=serial_number,
        algorithm=algorithm,
        fingerprint=fingerprint,
        kid=kid,
        labels=json.loads(labels),
        supersedes=tuple(json.loads(supersedes)),
    )
    standing = None
    if listed is not None:
        standing = KeptStanding(
            record=id_,
            name=name,
            listed=listed,
            listed_at=listed_at,
            proof=proof,
            proven_at=proven_at,
            code=code,
            attested_at=attested_at,
            replace_by=replace_by,
            supersedes=facts.supersedes,
        )
    return RecordRow(facts, statement, *[*of_statement, standing])
