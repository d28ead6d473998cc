"""The SQL of sealing again."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

from strongroom.database import Transaction, load_queries
from strongroom.fields import printable
from strongroom.mandates import SealingKey
from strongroom_recovery.reseal.resealing import NewBlob

_SQL: Final = load_queries("reseal")
_LOCK_NUMBERS: Final = 2**31


async def claim(tx: Transaction, block: int) -> bool:
    """Say whether a block of the escrow log is this transaction's to seal again, until it ends."""
    return bool(await tx.fetch_value(_SQL["claim"], block % _LOCK_NUMBERS))


async def insert(tx: Transaction, blobs: Sequence[NewBlob], target: SealingKey, leaf_index: int) -> set[str]:
    """Write new blobs; return the records that have one to this key already, whose blob was not written.

    `leaf_index` is that of the `reseal` leaf, which the same transaction appends.
    """
    if not blobs:
        return set()
    ids = [each.record for each in blobs]
    written = await tx.execute(
        _SQL["insert"], ids, target.kid, target.suite.value, [each.blob for each in blobs], leaf_index
    )
    if written == f"INSERT 0 {len(blobs)}":
        return set()
    return {row["record_id"] for row in await tx.fetch(_SQL["others"], ids, target.kid, leaf_index)}


async def outdated(tx: Transaction, ids: Collection[str], kid: str) -> set[str]:
    """Return those of these records that were sealed to this key before they were sealed to another."""
    rows = await tx.fetch(_SQL["outdated"], list(ids), kid) if ids else []
    return {row["record_id"] for row in rows}


async def kids(tx: Transaction) -> dict[str, int]:
    """Return how many records there are by the key of their newest blob, as the database says; for people.

    It goes to their terminals: what cannot stand in an id is replaced.
    """
    found: Counter[str] = Counter()
    for row in await tx.fetch(_SQL["kids"]):
        found[printable(row["kid"] or "")] += row["records"]
    return dict(found)


async def principals(tx: Transaction, leaves: Collection[int]) -> dict[int, str]:
    """Return whose records those of these leaves are, as the database says; for people."""
    rows = await tx.fetch(_SQL["principals"], sorted(leaves)) if leaves else []
    return {row["leaf_index"]: row["principal"] for row in rows}


async def records_within(tx: Transaction, ranges: Sequence[tuple[int, int]]) -> int:
    """Return how many records there are in ranges of leaves, as the database says; for people."""
    if not ranges:
        return 0
    lows, highs = zip(*ranges, strict=True)
    return int(await tx.fetch_value(_SQL["within"], lows, highs))
