"""What becomes of an escrow message: decided here, from bytes, the registry and what the database holds. Pure."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from strongroom.blobs import SALT_BYTES
from strongroom.crypto.sealing import Suite, overhead
from strongroom.errors import (
    RESTORE_HINT,
    Denied,
    LimitExceeded,
    MalformedStatement,
    PermanentError,
    ProofInvalid,
    RecordConflict,
    StatementConflict,
)
from strongroom.fields import parse_body
from strongroom.leaves import EscrowLeaf, parse_leaf
from strongroom.limits import KEY_MATERIAL_BYTES_MAX
from strongroom.messages import Escrow, Record
from strongroom.registry import Registry
from strongroom.roster import Roster, check_authority, check_issued
from strongroom.statements import Statement, parse_envelope

_BLOB_BYTES: Final = {
    suite: (overhead(suite) + SALT_BYTES + 1, overhead(suite) + SALT_BYTES + KEY_MATERIAL_BYTES_MAX)
    for suite in Suite
}


@dataclass(slots=True)
class Submission:
    """One message of a batch and what is known of it so far.

    envelope: the message body. statement, escrow: set once they could be read. key_id: the signer, set once
    the signature was verified. refusal: why it is not accepted. leaf_index: its place in the log, once it has one.
    rival_index: the leaf of another statement which, a database row says, has its id.
    """

    envelope: bytes
    statement: Statement | None = None
    escrow: Escrow | None = None
    key_id: str | None = None
    refusal: PermanentError | None = None
    leaf_index: int | None = None
    rival_index: int | None = None

    @property
    def is_told(self) -> bool:
        """Whether the sender is told of the refusal.

        Where the fault may not be the sender's (a row that contradicts the log, an error nobody expected, a broker
        account, which nobody signed) it is not: the message lies in quarantine, and the sender goes on holding its
        key and trying.
        """
        withheld = (ProofInvalid.code, PermanentError.code, Denied.code)
        return self.refusal is not None and self.refusal.code not in withheld

    @property
    def id(self) -> str | None:
        """The statement id, if the body could be read."""
        return self.escrow.id if self.escrow else None

    @property
    def digest(self) -> bytes:
        """The statement digest, or the SHA-256 of a message that is no envelope (SPEC 6.2)."""
        return self.statement.digest if self.statement else hashlib.sha256(self.envelope).digest()


def read(envelope: bytes) -> Submission:
    """Read a message as far as it can be read; what is wrong with it becomes its refusal."""
    submission = Submission(envelope)
    try:
        submission.statement = parse_envelope(envelope)
        submission.escrow = parse_body(submission.statement, Escrow)
    except PermanentError as error:
        submission.refusal = error
    return submission


def judge(submission: Submission, registry: Registry, now: int) -> None:
    """Verify who signed a readable submission and whether the roster takes its blobs (SPEC 4.2).

    Sets `key_id` or `refusal`. The enrolment of its principal must have been admitted to the registry.
    """
    if submission.refusal is not None or submission.statement is None or submission.escrow is None:
        return
    try:
        roster = registry.roster
        check_authority(submission.escrow.authority, roster)
        submission.key_id = registry.verify(submission.statement, submission.escrow.principal)
        check_issued(submission.escrow.issued_at, now)
        for position, record in enumerate(submission.escrow.records):
            _check_blob(record, position, roster)
            if record.wrapping is not None:
                roster.accepted_transport_key(record.wrapping.kid)
    except PermanentError as error:
        submission.refusal = error


def _check_blob(record: Record, position: int, roster: Roster) -> None:
    key = roster.accepted_sealing_key(record.kid)
    if record.suite is not key.suite:
        raise MalformedStatement(f"records.{position}.suite: key {key.kid} is of suite {key.suite.value}")
    shortest, longest = _BLOB_BYTES[key.suite]
    if not shortest <= len(record.blob) <= longest:
        raise LimitExceeded(
            f"records.{position}.blob: {len(record.blob)} bytes, must be {shortest} to {longest} bytes"
        )


@dataclass(frozen=True, slots=True)
class Existing:
    """What the database holds already of these messages.

    statements: id → (digest, leaf index). records: id → statement id. wrapped: digest of a wrapped key (hex) → the
    principal that escrowed it first.
    """

    statements: Mapping[str, tuple[bytes, int]] = field(default_factory=dict)
    records: Mapping[str, str] = field(default_factory=dict)
    wrapped: Mapping[str, str] = field(default_factory=dict)


def settle(submissions: Iterable[Submission], existing: Existing, size: int) -> list[Submission]:
    """Decide, in order, which submissions are stored now; return those, each statement once.

    Arguments: `size` is the number of leaves in the log before this batch.

    A repeat of a stored statement gets that statement's leaf index, also if it would be refused today: its
    receipt stands. The same id with other bytes, a record id that is taken (SPEC 4.3), and a wrapped key that
    another principal escrowed first (SPEC 4.6), are refused.
    A repeat inside the batch is left without leaf index and refusal; `adopt` completes it.
    """
    statements: dict[str, bytes] = {id_: digest for id_, (digest, _) in existing.statements.items()}
    records, wrapped = dict(existing.records), dict(existing.wrapped)
    fresh: list[Submission] = []
    for submission in submissions:
        escrow = submission.escrow
        if escrow is None:
            continue
        if statements.get(escrow.id) == submission.digest:
            submission.refusal = None
            if escrow.id in existing.statements:
                _repeat(submission, existing.statements[escrow.id][1], size)
            continue
        if submission.refusal is not None:
            continue
        if escrow.id in statements:
            if escrow.id in existing.statements:
                submission.rival_index = existing.statements[escrow.id][1]
            submission.refusal = StatementConflict(f"id: {escrow.id} is taken by another statement")
            continue
        taken = next((record.id for record in escrow.records if record.id in records), None)
        if taken is not None:
            submission.refusal = RecordConflict(f"records: id {taken} is taken by another record")
            continue
        if (copy := _copy(escrow, wrapped)) is not None:
            submission.refusal = RecordConflict(
                f"records.{copy}.wrapping.digest: another principal escrowed this wrapped key first",
                hint="whoever wraps a key for the authority escrows it; tell the officers if this one is yours",
            )
            continue
        statements[escrow.id] = submission.digest
        records.update((record.id, escrow.id) for record in escrow.records)
        wrapped.update((digest, escrow.principal) for digest in wrapped_digests(escrow))
        fresh.append(submission)
    return fresh


def wrapped_digests(escrow: Escrow) -> list[str]:
    """Return the digests of the wrapped keys among the records of a statement, in hex."""
    return [record.wrapping.digest for record in escrow.records if record.wrapping is not None]


def _copy(escrow: Escrow, wrapped: Mapping[str, str]) -> int | None:
    """Return the position of the first record whose wrapped key is another principal's."""
    for position, record in enumerate(escrow.records):
        if record.wrapping is not None:
            first = wrapped.get(record.wrapping.digest, escrow.principal)
            if first != escrow.principal:
                return position
    return None


def _repeat(submission: Submission, leaf_index: int, size: int) -> None:
    if leaf_index < size:
        submission.leaf_index = leaf_index
    else:
        submission.refusal = _row_edited(submission)


def _row_edited(submission: Submission) -> ProofInvalid:
    return ProofInvalid(
        f"id: the database names a leaf of the escrow log that is not about {submission.id}",
        hint=RESTORE_HINT,
    )


def leaf(submission: Submission, now: int) -> bytes:
    """Return the log leaf of a submission that is about to be stored (SPEC 7.2)."""
    if submission.escrow is None or submission.key_id is None:
        raise ValueError("only a verified submission has a leaf")
    return EscrowLeaf(
        time=now,
        id=submission.escrow.id,
        digest=submission.digest.hex(),
        principal=submission.escrow.principal,
        key=submission.key_id,
    ).to_bytes()


def logged_indexes(submissions: Iterable[Submission], size: int) -> list[int]:
    """Return the leaves below `size` that database rows name for these submissions; `compare` has to see them."""
    named = {index for each in submissions for index in (each.leaf_index, each.rival_index) if index is not None}
    return sorted(index for index in named if index < size)


def compare(submission: Submission, logged: Mapping[int, bytes]) -> None:
    """Hold what the database says of a repeat or a conflict against the log's own leaves, by index.

    A repeat whose leaf is not that of its statement, and a conflict whose leaf is not that of another statement
    with this id, come from an edited row. Nobody gets a receipt for something else, or is told a falsehood.
    """
    if submission.leaf_index is not None and submission.leaf_index in logged:
        is_true = _leaf_of(submission.id, logged[submission.leaf_index]) == submission.digest.hex()
    elif submission.rival_index is not None:
        rival = _leaf_of(submission.id, logged.get(submission.rival_index, b""))
        is_true = rival not in (None, submission.digest.hex())
    else:
        return
    if not is_true:
        submission.leaf_index = None
        submission.refusal = _row_edited(submission)


def _leaf_of(statement_id: str | None, logged: bytes) -> str | None:
    """Return the digest in a leaf of the escrow log if that leaf is about this statement id."""
    entry = parse_leaf(logged) if logged else None
    return entry.digest if isinstance(entry, EscrowLeaf) and entry.id == statement_id else None


def adopt(submissions: Iterable[Submission], fresh: Sequence[Submission], first_index: int) -> None:
    """Give every stored submission its leaf index: the fresh ones from `first_index` on, then their repeats."""
    indexes: dict[str | None, int] = {}
    for offset, submission in enumerate(fresh):
        submission.leaf_index = indexes[submission.id] = first_index + offset
    for submission in submissions:
        if submission.refusal is None and submission.leaf_index is None:
            submission.leaf_index = indexes[submission.id]
