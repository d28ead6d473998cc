"""Enrolments: from here on this key speaks for that principal (SPEC 2.7)."""

from strongroom.errors import ProofInvalid, StatementConflict
from strongroom.leaves import EnrolmentLeaf
from strongroom.mandates import Enrolment
from strongroom_recovery import store
from strongroom_recovery.desk import Answer, Desk, Event, Hints
from strongroom_recovery.handler import Submission, check_enrolment


async def enrol(desk: Desk, submission: Submission, enrolment: Enrolment, hints: Hints, now: int) -> Answer:
    """Enrol a principal, or prove again that it was; committed on return.

    Raises PermanentError when the chain does not hold, the invitation is expired or used, or the id is taken by
    another enrolment; and as `Desk.begin`, with nothing stored.
    """
    async with desk.database.transaction() as tx:
        await desk.begin(tx, now)
        stored = await store.enrolment(tx, enrolment.id, submission.digest)
        if stored is not None:
            digest, leaf_index = stored
            if digest != submission.digest:
                raise StatementConflict(f"id: {enrolment.id} is taken by another enrolment")
            leaf, receipt = await desk.logged(tx, leaf_index)
            if not isinstance(leaf, EnrolmentLeaf) or leaf.digest != digest.hex():
                raise ProofInvalid(f"enrolment {enrolment.id}: leaf {leaf_index} is about something else")
            proof = await desk.consistency(tx, hints, desk.writer.size)
            event = Event("enrolment", leaf.time, enrolment.principal, enrolment.id, None, leaf_index)
            return Answer("repeated", desk.reply(hints, receipt=receipt, consistency=proof), event=event)
        judged = check_enrolment(submission.statement, desk.registry, now)
        leaf = EnrolmentLeaf(
            time=now,
            id=enrolment.id,
            digest=submission.digest.hex(),
            principal=enrolment.principal,
            key=judged.key_id,
            invitation=judged.invitation.id,
        )
        appended = await desk.writer.append(tx, [leaf.to_bytes()])
        index = appended.first_index
        await store.insert_trust_statement(tx, submission.statement, id_=enrolment.id, leaf_index=index)
        proof = await desk.consistency(tx, hints, appended.size)
    # COMMIT has succeeded: the log says whose key it is, and every worker will read it there.
    published = await desk.writer.committed(appended)
    event = Event("enrolment", now, enrolment.principal, enrolment.id, None, index)
    reply = desk.reply(hints, receipt=published.receipt(index), consistency=proof)
    return Answer("enrolled", reply, event=event)
