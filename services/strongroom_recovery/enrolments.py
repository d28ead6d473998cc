"""Enrolments: from here on this key speaks for that principal (SPEC 2.7)."""

from strongroom.errors import ProofInvalid, StatementConflict
from strongroom.leaves import EnrolmentLeaf
from strongroom.messages import Enrolment
from strongroom_recovery import store
from strongroom_recovery.desk import Answer, Desk, Hints
from strongroom_recovery.handler import Submission, check_enrolment, enrolment_leaf


async def enrol(desk: Desk, submission: Submission, enrolment: Enrolment, hints: Hints, now: int) -> Answer:
    """Enrol a principal, or prove again that it was; committed on return.

    Raises PermanentError when the chain does not hold, the invitation is expired or used, or the id is taken by
    another enrolment; and as `Desk.begin`, with nothing stored.
    """
    async with desk.database.transaction() as tx:
        await desk.begin(tx, now)
        stored = await store.trust_statement(tx, enrolment.id, submission.digest)
        if stored is not None:
            digest, leaf_index = stored
            if digest != submission.digest:
                raise StatementConflict(f"id: {enrolment.id} is taken by another enrolment")
            leaf, receipt = await desk.logged(tx, leaf_index)
            if not isinstance(leaf, EnrolmentLeaf) or leaf.digest != digest.hex():
                raise ProofInvalid(f"enrolment {enrolment.id}: leaf {leaf_index} is about something else")
            proof = await desk.consistency(tx, hints, desk.writer.size)
            return Answer("repeated", desk.reply(hints, receipt=receipt, consistency=proof))
        judged = check_enrolment(submission.statement, desk.registry, now)
        appended = await desk.writer.append(tx, [enrolment_leaf(judged, now)])
        index = appended.first_index
        await store.insert_trust_statement(
            tx, submission.statement, submission.envelope, id_=enrolment.id, leaf_index=index
        )
        proof = await desk.consistency(tx, hints, appended.size)
    # COMMIT has succeeded: the log says whose key it is, and every worker will read it there.
    await desk.writer.committed(appended)
    return Answer("enrolled", desk.reply(hints, receipt=appended.receipt(index), consistency=proof))
