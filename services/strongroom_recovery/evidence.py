"""Reading stored records back, one escrow statement in memory at a time, each verified before it counts."""

from collections.abc import AsyncIterator, Iterable
from typing import Final

from strongroom.database import Transaction
from strongroom.logs import get_logger
from strongroom_recovery import store
from strongroom_recovery.desk import Desk
from strongroom_recovery.records import IndexEntry, StoredRecord, verify

_HINT: Final = "compare the workers' clocks, and find out whether the escrow worker's database was set back"


async def verified_records(
    desk: Desk, tx: Transaction, principal: str, entries: Iterable[IndexEntry]
) -> AsyncIterator[tuple[IndexEntry, StoredRecord]]:
    """Yield each index entry with the verified record that it points at, statement by statement.

    Raises ProofInvalid or CheckpointInvalid at the first that is not what was accepted, LogForked where the
    escrow log does not continue what this host saw of it before.
    """
    by_statement: dict[str, list[IndexEntry]] = {}
    for entry in entries:
        by_statement.setdefault(entry.statement_id, []).append(entry)
    if not by_statement:
        return
    await desk.admit(tx, principal, former=True)
    head = await desk.escrow_log.head(tx)
    for statement_id, wanted in by_statement.items():
        statement = verify(await store.escrow_statement(tx, statement_id, head), head, desk.registry)
        if not statement.in_force:
            # The escrow worker was shown an old state of the recovery log, or one of two clocks is wrong.
            get_logger().error(
                "escrow by a key that was not in force", message_id=statement_id, principal=principal, hint=_HINT
            )
        for entry in wanted:
            yield entry, statement.record(entry)
