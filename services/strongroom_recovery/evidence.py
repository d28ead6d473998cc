"""Reading stored records back, one escrow statement in memory at a time, each verified before it counts."""

from collections.abc import AsyncIterator, Iterable

from strongroom.database import Transaction
from strongroom.errors import ProofInvalid
from strongroom.logs import get_logger
from strongroom_recovery import store
from strongroom_recovery.desk import Desk
from strongroom_recovery.records import LATE_HINT, IndexEntry, StoredRecord, verify


async def verified_records(
    desk: Desk, tx: Transaction, principal: str, entries: Iterable[IndexEntry]
) -> AsyncIterator[tuple[IndexEntry, StoredRecord]]:
    """Yield each index entry with the verified record that it points at, statement by statement.

    Raises ProofInvalid or CheckpointInvalid at the first that is not what was accepted, LogForked where the
    escrow log does not continue what this host saw of it before.
    """
    async for entry, found in examined_records(desk, tx, principal, entries):
        if isinstance(found, ProofInvalid):
            raise found
        yield entry, found


async def examined_records(
    desk: Desk, tx: Transaction, principal: str, entries: Iterable[IndexEntry]
) -> AsyncIterator[tuple[IndexEntry, StoredRecord | ProofInvalid]]:
    """Yield each index entry with the verified record that it points at, or with why there is none.

    Raises ProofInvalid when the principal's own enrolment is not what was accepted; CheckpointInvalid and LogForked
    as `verified_records`.
    """
    by_statement: dict[str, list[IndexEntry]] = {}
    for entry in entries:
        by_statement.setdefault(entry.statement_id, []).append(entry)
    if not by_statement:
        return
    await desk.admit(tx, principal, former=True)
    head = await desk.escrow_log.head(tx)
    for statement_id, wanted in by_statement.items():
        try:
            statement = verify(await store.escrow_statement(tx, statement_id, head), head, desk.registry)
        except ProofInvalid as error:
            for entry in wanted:
                yield entry, error
            continue
        if not statement.in_force:
            # The escrow worker was shown an old state of the recovery log, or one of two clocks is wrong.
            get_logger().error(
                "escrow by a key that was not in force",
                message_id=statement_id,
                principal=principal,
                hint=LATE_HINT,
            )
        for entry in wanted:
            try:
                found: StoredRecord | ProofInvalid = statement.record(entry)
            except ProofInvalid as error:
                found = error
            yield entry, found
