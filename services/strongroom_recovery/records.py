"""Stored records, believed only after the statement that brought them was verified again (rule 2). Pure.

Whoever owns the database can write any row. What counts is the escrow statement itself: signed by a key that
spoke for its principal, and named by a leaf of the escrow log under a checkpoint of that log's key.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from strongroom.crypto.notes import Checkpoint
from strongroom.crypto.tlog import Node, inclusion_nodes, inclusion_proof, leaf_hash, verify_inclusion
from strongroom.errors import RESTORE_HINT, PermanentError, ProofInvalid, StateCorrupt, StrongroomError
from strongroom.fields import parse_body
from strongroom.leaves import EscrowLeaf, parse_leaf
from strongroom.messages import Escrow, Record
from strongroom.registry import Registry
from strongroom.roster import check_authority
from strongroom.statements import parse_envelope
from strongroom_recovery.key_blobs import KeyBlob

LATE_HINT: Final = "compare the workers' clocks, and find out whether the escrow worker's database was set back"
"""What to do about a statement whose key was not in force when it was stored (SPEC 2.10)."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What the database's index says of a record. Nothing in it is believed."""

    id: str
    statement_id: str
    principal: str
    name: str
    issued_at: int
    kid: str


@dataclass(frozen=True, slots=True)
class StoredStatement:
    """An escrow statement as the database gives it back. Nothing in it is believed.

    leaf: the bytes of the escrow log's leaf `leaf_index`, None where there is none. nodes: the hashes for its
    inclusion proof, as far as they exist.
    """

    id: str
    digest: bytes
    principal: str
    envelope: bytes
    leaf_index: int
    leaf: bytes | None
    nodes: Mapping[Node, bytes]


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record out of a verified escrow statement, with what that statement says of all its records.

    issued_at: as its owner signed it. stored_at: the time of the statement's leaf. Both in seconds. log_index: of
    that leaf in the escrow log. in_force: whether the key that signed spoke for the principal then (SPEC 2.10).
    """

    authority: str
    principal: str
    statement_id: str
    issued_at: int
    stored_at: int
    log_index: int
    in_force: bool
    record: Record
    resealed: tuple[KeyBlob, ...] = ()

    @property
    def rank(self) -> tuple[bool, int, str]:
        """The greater, the newer among the records of a name (SPEC 2.10, 4.4)."""
        return self.in_force, self.issued_at, self.record.id


@dataclass(frozen=True, slots=True)
class VerifiedStatement:
    """An escrow statement whose signature and place in the escrow log were checked; made by `verify`."""

    escrow: Escrow
    stored_at: int
    log_index: int
    in_force: bool

    def record(self, entry: IndexEntry) -> StoredRecord:
        """Return the record that an index entry points at. Raises ProofInvalid where the entry says otherwise."""
        escrow = self.escrow
        for record in escrow.records:
            if record.id == entry.id:
                signed = (escrow.id, escrow.principal, record.name, escrow.issued_at, record.kid)
                if signed != (entry.statement_id, entry.principal, entry.name, entry.issued_at, entry.kid):
                    break
                return StoredRecord(
                    authority=escrow.authority,
                    principal=escrow.principal,
                    statement_id=escrow.id,
                    issued_at=escrow.issued_at,
                    stored_at=self.stored_at,
                    log_index=self.log_index,
                    in_force=self.in_force,
                    record=record,
                )
        raise ProofInvalid(f"record {entry.id}: the database's index contradicts the signed escrow statement")


def nodes_wanted(leaf_index: int, head: Checkpoint) -> list[Node]:
    """Name the nodes that prove a leaf under a checkpoint; none where the log has no such leaf."""
    try:
        return inclusion_nodes(leaf_index, head.size)
    except ProofInvalid:
        return []


def verify(stored: StoredStatement, head: Checkpoint, registry: Registry) -> VerifiedStatement:
    """Check a stored escrow statement up to the root key and against the escrow log (SPEC 5.2).

    Arguments: `head` is a checkpoint of the escrow log whose signature was verified; the principal's
    enrolments, former ones too, must have been admitted to `registry`. Raises ProofInvalid, whatever is wrong:
    the sender of the request is not to blame, and someone has to look at the database.
    """
    try:
        if stored.leaf is None:
            raise ProofInvalid(f"the escrow log has no leaf {stored.leaf_index}")
        proof = inclusion_proof(stored.leaf_index, head.size, stored.nodes)
        verify_inclusion(leaf_hash(stored.leaf), stored.leaf_index, head.size, proof, head.root)
        return _verify(stored, stored.leaf, registry)
    except (PermanentError, StateCorrupt) as error:
        raise _not_as_accepted(stored.id, error) from None


def verify_included(stored: StoredStatement, leaf: bytes, registry: Registry) -> VerifiedStatement:
    """Check a stored escrow statement as `verify` does, where `leaf` was found in the escrow log's tree already."""
    try:
        return _verify(stored, leaf, registry)
    except (PermanentError, StateCorrupt) as error:
        raise _not_as_accepted(stored.id, error) from None


def _not_as_accepted(id_: str, error: StrongroomError) -> ProofInvalid:
    return ProofInvalid(
        f"escrow statement {id_}: what is stored is not what was accepted ({error.message})", hint=RESTORE_HINT
    )


def _verify(stored: StoredStatement, leaf: bytes, registry: Registry) -> VerifiedStatement:
    statement = parse_envelope(stored.envelope)
    escrow = parse_body(statement, Escrow)
    check_authority(escrow.authority, registry.roster)
    if (escrow.id, escrow.principal, statement.digest) != (stored.id, stored.principal, stored.digest):
        raise ProofInvalid("id, principal or digest of the row differ from the statement")
    entry = parse_leaf(leaf)
    named = (escrow.id, statement.digest.hex(), escrow.principal)
    if not isinstance(entry, EscrowLeaf) or (entry.id, entry.digest, entry.principal) != named:
        raise ProofInvalid(f"leaf {stored.leaf_index} of the escrow log is about something else")
    in_force = registry.verify_former(statement, escrow.principal, entry.key, entry.time)
    return VerifiedStatement(escrow, entry.time, stored.leaf_index, in_force)
