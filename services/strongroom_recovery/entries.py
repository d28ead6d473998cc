"""Entries: a statement that was judged goes into the recovery log, and its sender gets the receipt."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from strongroom.database import Transaction
from strongroom.errors import StatementConflict
from strongroom.leaves import (
    ApprovalLeaf,
    AttestationLeaf,
    DenialLeaf,
    EnrolmentLeaf,
    InvitationLeaf,
    RevocationLeaf,
)
from strongroom.statements import Statement
from strongroom_recovery import store
from strongroom_recovery.desk import Answer, Desk, Event, Hints
from strongroom_recovery.handler import Submission
from strongroom_recovery.ledger import Logged


@dataclass(frozen=True, slots=True)
class Entry:
    """What goes on the record: the leaf, the statement that it names, whom it concerns, and the outcome's name."""

    leaf: EnrolmentLeaf | ApprovalLeaf | DenialLeaf | RevocationLeaf | InvitationLeaf | AttestationLeaf
    statement: Statement
    principal: str
    outcome: str
    request: str | None = None


Judge: TypeAlias = Callable[[Transaction], Awaitable[Entry | Logged]]
"""Decides in a transaction that holds the log's lock: a new entry, or the place of the same one made before."""


def earlier(desk: Desk, submission: Submission) -> Logged | None:
    """Return the place of the same statement. Raises StatementConflict for another one under its id."""
    known = desk.ledger.mandate(submission.id)
    if known is not None and known.digest != submission.digest:
        raise StatementConflict(f"id: {submission.id} is taken by another statement")
    return known


async def put_on_record(desk: Desk, judge: Judge, hints: Hints, now: int) -> Answer:
    """Log what `judge` decides on, with its statement, and answer with the receipt; committed on return.

    Raises what `judge` raises, and as `Desk.begin`; nothing is stored then.
    """
    async with desk.database.transaction() as tx:
        await desk.begin(tx, now)
        entry = await judge(tx)
        if isinstance(entry, Logged):
            _, receipt = await desk.logged(tx, entry.index)
            proof = await desk.consistency(tx, hints, desk.writer.size)
            return Answer("repeated", desk.reply(hints, receipt=receipt, consistency=proof))
        appended = await desk.writer.append(tx, [entry.leaf.to_bytes()])
        index = appended.first_index
        await store.insert_trust_statement(tx, entry.statement, id_=entry.leaf.id, leaf_index=index)
        proof = await desk.consistency(tx, hints, appended.size)
    # COMMIT has succeeded: it counts from here on, in every worker that follows the log.
    published = await desk.writer.committed(appended)
    reply = desk.reply(hints, receipt=published.receipt(index), consistency=proof)
    event = Event(entry.leaf.type, now, entry.principal, entry.leaf.id, entry.request, index)
    return Answer(entry.outcome, reply, event=event)
