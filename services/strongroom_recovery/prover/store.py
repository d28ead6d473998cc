"""The prover's SQL. What it reads is to be proven: nothing that comes back from here is believed."""

from typing import Final

from strongroom.crypto.notes import Checkpoint
from strongroom.crypto.tlog import Node
from strongroom.database import Transaction, load_queries
from strongroom.limits import ENVELOPE_BYTES_MAX
from strongroom_recovery.key_blobs import BLOB_BYTES_MAX, KeyBlob
from strongroom_recovery.prover.proving import IndexRow, Stretch, node_spans
from strongroom_recovery.records import StoredStatement

ENVELOPES_BYTES_MAX: Final = 4 * 1024 * 1024
INDEX_ROWS_MAX: Final = 16_384
RESEALED_BYTES_MAX: Final = 8 * 1024 * 1024  # more than what one statement's records take, to any sealing key

_SQL: Final = load_queries("prover")
_LOCK_NUMBERS: Final = 2**31


async def claim(tx: Transaction, block: int) -> bool:
    """Say whether a block of the escrow log is this transaction's to look at, until it ends."""
    return bool(await tx.fetch_value(_SQL["claim"], block % _LOCK_NUMBERS))


async def stretch(tx: Transaction, first: int, end: int, head: Checkpoint) -> Stretch:
    """Return what is stored about the leaves from `first` on, up to `end` or as far as memory allows; one at least.

    The transaction is the one that `head` was read in, and sees one state throughout.
    """
    statements: dict[int, StoredStatement | str] = {}
    for index, id_, digest, principal, count, fits, is_within, envelope in await tx.fetch(
        _SQL["statements"], first, end, ENVELOPE_BYTES_MAX, ENVELOPES_BYTES_MAX
    ):
        if not is_within:
            end = index
            break
        if count > 1:
            statements[index] = f"{count} statements are stored for it"
        elif not fits:
            statements[index] = f"its statement is longer than {ENVELOPE_BYTES_MAX} bytes"
        else:
            statements[index] = StoredStatement(id_, digest, principal, envelope, index, None, {})
    found = await tx.fetch(_SQL["records"], first, end, INDEX_ROWS_MAX)
    while len(found) == INDEX_ROWS_MAX and end - first > 1:
        end = first + (end - first) // 2
        found = await tx.fetch(_SQL["records"], first, end, INDEX_ROWS_MAX)
    rows: dict[int, list[IndexRow]] = {}
    for index, *columns in found:
        rows.setdefault(index, []).append(IndexRow(*columns))
    resealed: dict[str, KeyBlob] = {}
    for index, id_, kid, suite, is_within, blob in await tx.fetch(
        _SQL["resealed"], first, end, BLOB_BYTES_MAX, RESEALED_BYTES_MAX
    ):
        if not is_within and index > first:
            end = index
            break
        # Where one statement's have no room, rows were made up: it does not open.
        resealed[id_] = KeyBlob(kid, suite, blob or b"")
    levels, lows, highs = zip(*node_spans(first, end, head.size), strict=True)
    nodes = await tx.fetch(_SQL["nodes"], levels, lows, highs)
    return Stretch(
        first=first,
        end=end,
        head=head,
        leaves={index: leaf for index, leaf in await tx.fetch(_SQL["leaves"], first, end)},  # noqa: C416  rows are no pairs
        nodes={
            Node(level, index): value
            for level, indexes, values in nodes
            for index, value in zip(indexes, values, strict=True)
        },
        statements={index: stored for index, stored in statements.items() if index < end},
        rows={index: found for index, found in rows.items() if index < end},
        resealed=resealed,
    )
