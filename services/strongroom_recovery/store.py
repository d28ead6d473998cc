"""The recovery worker's SQL. What it reads is an index: nothing that comes back from here is believed."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from strongroom.crypto.notes import Checkpoint
from strongroom.crypto.tlog import Node
from strongroom.database import Record, Transaction, load_queries
from strongroom.errors import ProofInvalid
from strongroom.limits import HISTORY_RECORDS_MAX
from strongroom.messages import Request
from strongroom.statements import Statement
from strongroom_recovery.key_blobs import BLOB_BYTES_MAX, KeyBlob
from strongroom_recovery.records import IndexEntry, StoredRecord, StoredStatement, nodes_wanted

_SQL = load_queries("recovery")
# More than the records of any release have; whoever writes rows fills no memory with them.
_RESEALED_BYTES_MAX: Final = 64 * 1024 * 1024


# ---- statements that the recovery log names ----------------------------------------------------------------


async def trust_statements(tx: Transaction, leaf_indexes: Collection[int]) -> dict[int, bytes]:
    """Return the envelopes of those of these leaves whose statement is stored, by index."""
    rows = await tx.fetch(_SQL["trust_statements"], list(leaf_indexes)) if leaf_indexes else []
    return {row["leaf_index"]: row["envelope"] for row in rows}


async def insert_trust_statement(
    tx: Transaction, statement: Statement, *, id_: str | None, leaf_index: int
) -> None:
    """Write the statement that a leaf names, verbatim; a roster has no id."""
    uuid = UUID(id_) if id_ else None
    await tx.execute(
        _SQL["insert_trust_statement"], statement.digest, uuid, statement.type, statement.envelope(), leaf_index
    )


# ---- requests ----------------------------------------------------------------------------------------------


async def requests(tx: Transaction, ids: Collection[str]) -> dict[str, bytes]:
    """Return the envelopes of those of these requests that are stored, by id."""
    rows = await tx.fetch(_SQL["requests"], [UUID(id_) for id_ in ids]) if ids else []
    return {str(row["id"]): row["envelope"] for row in rows}


async def insert_request(
    tx: Transaction, request: Request, statement: Statement, *, leaf_index: int, now: int
) -> None:
    """Write a request, in the envelope that it has without white space."""
    await tx.execute(
        _SQL["insert_request"],
        UUID(request.id),
        statement.digest,
        request.requester,
        request.requester_kind.value,
        request.principal,
        statement.envelope(),
        leaf_index,
        now,
    )


async def release(tx: Transaction, leaf_index: int) -> bytes | None:
    """Return the envelope of the release that a leaf names, if it is stored."""
    envelope = await tx.fetch_value(_SQL["release"], leaf_index)
    return envelope if isinstance(envelope, bytes) else None


async def insert_release(tx: Transaction, request_id: str, envelope: bytes, *, leaf_index: int) -> None:
    """Write a release whose leaf was committed before, verbatim."""
    await tx.execute(_SQL["insert_release"], UUID(request_id), envelope, leaf_index)


# ---- records -----------------------------------------------------------------------------------------------


async def records_by_id(tx: Transaction, principal: str, ids: Sequence[str]) -> list[IndexEntry]:
    """Return the index entries of those of these records that the principal has, in the order asked."""
    rows = await tx.fetch(_SQL["records_by_id"], principal, [UUID(id_) for id_ in ids])
    entries = {entry.id: entry for entry in map(_entry, rows)}
    return [entries[id_] for id_ in ids if id_ in entries]


async def records_by_name(tx: Transaction, principal: str, name: str) -> list[IndexEntry]:
    """Return the index entries of the newest `HISTORY_RECORDS_MAX` of the principal's records under a name."""
    rows = await tx.fetch(_SQL["records_by_name"], principal, name, HISTORY_RECORDS_MAX)
    return [_entry(row) for row in rows]


async def records_page(tx: Transaction, principal: str, after: str | None, count_max: int) -> list[IndexEntry]:
    """Return the next index entries of the principal in order of id, after a record id or from the first."""
    rows = await tx.fetch(_SQL["records_page"], principal, UUID(after) if after else None, count_max)
    return [_entry(row) for row in rows]


async def records_superseding(tx: Transaction, principal: str, ids: Sequence[str]) -> list[IndexEntry]:
    """Return the index entries of the principal's records that are said to take the place of any of these."""
    rows = await tx.fetch(_SQL["records_superseding"], principal, [UUID(id_) for id_ in ids]) if ids else []
    return [_entry(row) for row in rows]


async def records_wrapped(tx: Transaction, digests: Collection[str]) -> list[IndexEntry]:
    """Return of each of these wrapped keys (hex) the index entry of the record that is said to be the first."""
    packed = [bytes.fromhex(digest) for digest in digests]
    rows = await tx.fetch(_SQL["records_wrapped"], packed) if packed else []
    return [_entry(row) for row in rows]


def _entry(row: Record) -> IndexEntry:
    return IndexEntry(
        id=str(row["id"]),
        statement_id=str(row["statement_id"]),
        principal=row["principal"],
        name=row["name"],
        issued_at=row["issued_at"],
        kid=row["kid"],
    )


async def with_resealed(
    tx: Transaction, records: Sequence[StoredRecord], kids: Collection[str]
) -> list[StoredRecord]:
    """Return these records with what is stored of their keys sealed again to any of these sealing keys."""
    ids = [UUID(stored.record.id) for stored in records]
    rows = await tx.fetch(_SQL["resealed"], ids, list(kids), BLOB_BYTES_MAX, _RESEALED_BYTES_MAX) if ids else []
    blobs: dict[str, list[KeyBlob]] = {}
    for id_, kid, suite, blob in rows:
        blobs.setdefault(str(id_), []).append(KeyBlob(kid, suite, blob))
    return [replace(stored, resealed=tuple(blobs.get(stored.record.id, ()))) for stored in records]


# ---- the escrow log ----------------------------------------------------------------------------------------


async def escrow_checkpoint(tx: Transaction) -> str | None:
    """Return the note of the escrow log's newest working checkpoint, if there is one."""
    note = await tx.fetch_value(_SQL["escrow_head"])
    return note if isinstance(note, str) else None


async def escrow_nodes(tx: Transaction, wanted: Sequence[Node]) -> dict[Node, bytes]:
    """Return the hashes of those of these nodes of the escrow log that exist."""
    levels, indexes = [node.level for node in wanted], [node.index for node in wanted]
    rows = await tx.fetch(_SQL["escrow_nodes"], levels, indexes) if wanted else []
    return {Node(row["level"], row["index"]): row["hash"] for row in rows}


async def escrow_statement(tx: Transaction, id_: str, head: Checkpoint) -> StoredStatement:
    """Return a stored escrow statement with its leaf and what proves that leaf under `head`.

    Raises ProofInvalid when there is no such statement.
    """
    row = await tx.fetch_row(_SQL["escrow_statement"], UUID(id_))
    if row is None:
        raise ProofInvalid(f"escrow statement {id_}: is named by the database's index and missing")
    return StoredStatement(
        id=id_,
        digest=row["digest"],
        principal=row["principal"],
        envelope=row["envelope"],
        leaf_index=row["leaf_index"],
        leaf=row["leaf"],
        nodes=await escrow_nodes(tx, nodes_wanted(row["leaf_index"], head)),
    )
