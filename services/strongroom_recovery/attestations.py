"""Attestations: what an owner says of its records goes on the record (SPEC 5.12)."""

from strongroom.database import Transaction
from strongroom.errors import NotFound
from strongroom.leaves import AttestationLeaf
from strongroom.messages import Attestation
from strongroom.roster import check_authority, check_issued
from strongroom_recovery import store
from strongroom_recovery.desk import Answer, Desk, Hints
from strongroom_recovery.entries import Entry, earlier, put_on_record
from strongroom_recovery.handler import Submission
from strongroom_recovery.ledger import Logged


async def attest(desk: Desk, submission: Submission, attestation: Attestation, hints: Hints, now: int) -> Answer:
    """Take an owner's attestation; committed on return.

    Raises NotFound for a record that the principal does not have, other PermanentErrors for a false signature; and
    as `Desk.begin`, with nothing stored.
    """

    async def judge(tx: Transaction) -> Entry | Logged:
        principal = attestation.principal
        check_authority(attestation.authority, desk.registry.roster)
        await desk.admit(tx, principal)
        signer = desk.registry.verify(submission.statement, principal)
        if (known := earlier(desk, submission)) is not None:
            return known
        check_issued(attestation.issued_at, now)
        ids = [each.id for each in attestation.records]
        own = {entry.id for entry in await store.records_by_id(tx, principal, ids)}
        if unknown := [id_ for id_ in ids if id_ not in own]:
            raise NotFound(f"records: {principal} has no record {unknown[0]}")
        leaf = AttestationLeaf(
            time=now,
            id=attestation.id,
            digest=submission.digest.hex(),
            principal=principal,
            key=signer,
            matching=[each.id for each in attestation.records if each.matches],
            stale=[each.id for each in attestation.records if not each.matches],
        )
        return Entry(leaf, submission.statement, principal, "attested")

    return await put_on_record(desk, judge, hints, now)
