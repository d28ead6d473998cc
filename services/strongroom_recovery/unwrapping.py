"""Wrapped keys that a request wants opened: whether there is something to open, and whose it is (SPEC 5.17)."""

from collections.abc import Sequence

from strongroom.database import Transaction
from strongroom.errors import RESTORE_HINT, MalformedStatement, ProofInvalid, RecordConflict
from strongroom_recovery import store
from strongroom_recovery.desk import Desk
from strongroom_recovery.evidence import verified_records
from strongroom_recovery.records import StoredRecord


async def check_unwrappable(desk: Desk, tx: Transaction, records: Sequence[StoredRecord]) -> None:
    """Refuse to unwrap what is not wrapped, and what another principal escrowed first (SPEC 4.6).

    Of the index only which record came first is taken, and that one is verified like any other: rows can hide an
    earlier one, and not make one up. Raises MalformedStatement, RecordConflict, ProofInvalid for a first record
    that is not what was accepted, and what `verified_records` raises.
    """
    digests = [_digest(stored) for stored in records]
    known = {stored.record.id for stored in records}
    for entry in await store.records_wrapped(tx, sorted(set(digests))):
        if entry.id in known:
            continue
        async for _, first in verified_records(desk, tx, entry.principal, [entry]):
            if first.record.wrapping is None or first.record.wrapping.digest not in digests:
                raise ProofInvalid(
                    f"record {entry.id}: the database's index gives it a wrapped key", hint=RESTORE_HINT
                )
            check_first(records, first)


def check_first(records: Sequence[StoredRecord], first: StoredRecord) -> None:
    """Raise RecordConflict where another principal had escrowed one of these wrapped keys earlier.

    Arguments: all of `records` and `first` have `wrapping`. Places in the escrow log decide, not times or rows.
    """
    for stored in records:
        is_copy = _digest(stored) == _digest(first) and stored.principal != first.principal
        if is_copy and first.log_index < stored.log_index:
            raise RecordConflict(
                f"record {stored.record.id}: another principal escrowed this wrapped key first",
                hint="deny it, and find out how both came to have it",
            )


def _digest(stored: StoredRecord) -> str:
    wrapping = stored.record.wrapping
    if wrapping is None:
        raise MalformedStatement(
            f"unwrap: record {stored.record.id} is not a wrapped key",
            hint="ask for it without unwrapping, and for wrapped keys in a request of their own",
        )
    return wrapping.digest
