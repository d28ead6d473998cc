"""The escrow worker's SQL: what is taken already, and the rows of a batch."""

from collections.abc import Sequence
from uuid import UUID

from strongroom.database import Transaction, load_queries
from strongroom.errors import StateCorrupt
from strongroom.messages import Escrow
from strongroom.statements import canonical_json
from strongroom_escrow.handler import Existing, Submission, wrapped_digests

_SQL = load_queries("escrow")


async def existing(tx: Transaction, submissions: Sequence[Submission]) -> Existing:
    """Look up which ids and wrapped keys of these submissions the database holds.

    Needs the log's lock to stay true until COMMIT.
    """
    escrows = _escrows(submissions)
    if not escrows:
        return Existing()
    statements = await tx.fetch(_SQL["existing_statements"], [UUID(escrow.id) for escrow in escrows])
    record_ids = [UUID(record.id) for escrow in escrows for record in escrow.records]
    records = await tx.fetch(_SQL["existing_records"], record_ids)
    digests = [bytes.fromhex(digest) for escrow in escrows for digest in wrapped_digests(escrow)]
    wrapped = await tx.fetch(_SQL["existing_wrapped"], digests) if digests else []
    return Existing(
        statements={str(row["id"]): (row["digest"], row["leaf_index"]) for row in statements},
        records={str(row["id"]): str(row["statement_id"]) for row in records},
        wrapped={row["wrapped"].hex(): row["principal"] for row in wrapped},
    )


async def insert(tx: Transaction, fresh: Sequence[Submission], now: int) -> None:
    """Write the statements of `fresh`, verbatim, and one index row a record."""
    escrows = _escrows(fresh)
    inserted = await tx.execute(
        _SQL["insert_statements"],
        [UUID(escrow.id) for escrow in escrows],
        [submission.digest for submission in fresh],
        [escrow.principal for escrow in escrows],
        [submission.envelope for submission in fresh],
        [submission.leaf_index for submission in fresh],
        [now] * len(fresh),
    )
    _check_inserted("escrow_statements", inserted, len(escrows))
    rows = [
        (
            UUID(record.id),
            UUID(escrow.id),
            position,
            escrow.principal,
            record.name,
            escrow.issued_at,
            record.kid,
            submission.leaf_index,
            canonical_json(record.labels).decode(),
            ",".join(record.supersedes),
            bytes.fromhex(record.wrapping.digest) if record.wrapping is not None else None,
        )
        for submission, escrow in zip(fresh, escrows, strict=True)
        for position, record in enumerate(escrow.records)
    ]
    inserted = await tx.execute(_SQL["insert_records"], *map(list, zip(*rows, strict=True)))
    _check_inserted("records", inserted, len(rows))


async def publish(tx: Transaction, size: int, note: str) -> None:
    """Write a checkpoint proper, signed after the COMMIT of its leaves, for auditors. Safe to repeat."""
    await tx.execute(_SQL["publish"], size, note)


def _check_inserted(table: str, tag: str, count: int) -> None:
    """Raise StateCorrupt unless the database says that every row went in; a trigger may have dropped some."""
    if tag != f"INSERT 0 {count}":
        raise StateCorrupt(f"{table}: the database answered {tag!r} to an insert of {count} rows")


def _escrows(submissions: Sequence[Submission]) -> list[Escrow]:
    return [submission.escrow for submission in submissions if submission.escrow is not None]
