"""Acts: enrolments, approvals, denials, revocations, invitations; judged, then logged (SPEC 2 and 5)."""

from contextlib import suppress

from strongroom.approvals import agreed, check_approval
from strongroom.crypto.signing import key_id
from strongroom.database import Transaction
from strongroom.errors import ApprovalInvalid, InvitationInvalid, NotFound, SignatureInvalid, StatementConflict
from strongroom.fields import Capacity
from strongroom.leaves import ApprovalLeaf, DenialLeaf, EnrolmentLeaf, InvitationLeaf, RevocationLeaf
from strongroom.limits import INVITATION_LIFE_SECONDS_MAX
from strongroom.mandates import Approval, Denial, Enrolment, Invitation, Revocation, Role
from strongroom.roster import check_authority, check_issued, check_life, check_unexpired
from strongroom.statements import Signature, Statement
from strongroom_recovery.cases import approvals_of, request_of, statement_of
from strongroom_recovery.desk import Answer, Desk, Hints
from strongroom_recovery.entries import Entry, earlier, put_on_record
from strongroom_recovery.handler import Submission, check_enrolment
from strongroom_recovery.ledger import Case, Logged


async def enrol(desk: Desk, submission: Submission, enrolment: Enrolment, hints: Hints, now: int) -> Answer:
    """Enrol a principal: from here on this key speaks for it (SPEC 2.7); committed on return.

    Raises PermanentError when the chain does not hold, the invitation is expired or used, or the id is taken by
    another statement; and as `Desk.begin`, with nothing stored.
    """

    async def judge(_tx: Transaction) -> Entry | Logged:
        if (known := earlier(desk, submission)) is not None:
            return known
        judged = check_enrolment(submission.statement, desk.registry, now)
        leaf = EnrolmentLeaf(
            time=now,
            id=enrolment.id,
            digest=submission.digest.hex(),
            principal=enrolment.principal,
            key=judged.key_id,
            invitation=judged.invitation.id,
        )
        return Entry(leaf, submission.statement, enrolment.principal, "enrolled")

    return await put_on_record(desk, judge, hints, now)


async def approve(desk: Desk, submission: Submission, approval: Approval, hints: Hints, now: int) -> Answer:
    """Take an officer's approval of a request that waits (SPEC 5.6); committed on return.

    Raises ApprovalInvalid, OfficerUnknown, SignatureInvalid, Expired and other PermanentErrors for one that cannot
    count; and as `Desk.begin`, with nothing stored.
    """

    async def judge(tx: Transaction) -> Entry | Logged:
        await desk.verify_sender(tx, submission.statement, approval.authority, approval.officer, Capacity.OFFICER)
        if (known := earlier(desk, submission)) is not None:
            return known
        roster = desk.registry.roster
        case = _waiting(desk, approval.request, approval.request_digest)
        officer = check_approval(submission.statement, case.subject, roster, now).officer
        _check_in_force(desk, case)
        request = await request_of(tx, case)
        check_unexpired(request.expires_at, now)
        counting, _ = agreed(await approvals_of(tx, case, roster), case.subject, roster, now)
        for other in counting:
            if other.officer.name == officer.name:
                raise ApprovalInvalid(f"officer: {officer.name} has approved request {case.id} already")
        leaf = ApprovalLeaf(
            time=now,
            id=approval.id,
            digest=submission.digest.hex(),
            officer=officer.name,
            key=key_id(officer.public_key),
            request=case.id,
        )
        return Entry(leaf, submission.statement, case.principal, "approved", case.id)

    return await put_on_record(desk, judge, hints, now)


async def deny(desk: Desk, submission: Submission, denial: Denial, hints: Hints, now: int) -> Answer:
    """Take a denial of a request that waits, by any officer or by the owner of the records (SPEC 5.7).

    Committed on return. Raises ApprovalInvalid, OfficerUnknown, PrincipalRevoked and other PermanentErrors; and as
    `Desk.begin`, with nothing stored.
    """

    async def judge(tx: Transaction) -> Entry | Logged:
        signer = await desk.verify_sender(
            tx, submission.statement, denial.authority, denial.denier, denial.denier_kind
        )
        if (known := earlier(desk, submission)) is not None:
            return known
        check_issued(denial.issued_at, now)
        case = _waiting(desk, denial.request, denial.request_digest)
        if denial.denier_kind is Capacity.PRINCIPAL and denial.denier != case.principal:
            raise ApprovalInvalid(f"denier: request {case.id} is not for records of {denial.denier}")
        leaf = DenialLeaf(
            time=now,
            id=denial.id,
            digest=submission.digest.hex(),
            denier=denial.denier,
            denier_kind=denial.denier_kind,
            key=signer,
            request=case.id,
        )
        return Entry(leaf, submission.statement, case.principal, "denied", case.id)

    return await put_on_record(desk, judge, hints, now)


async def revoke(desk: Desk, submission: Submission, revocation: Revocation, hints: Hints, now: int) -> Answer:
    """Take an officer's revocation of a principal or of one of its keys (SPEC 2.9); committed on return.

    Raises OfficerUnknown for an officer without the role, NotFound for a principal or key that was never enrolled,
    and other PermanentErrors; and as `Desk.begin`, with nothing stored.
    """

    async def judge(tx: Transaction) -> Entry | Logged:
        await desk.verify_sender(
            tx, submission.statement, revocation.authority, revocation.officer, Capacity.OFFICER
        )
        if (known := earlier(desk, submission)) is not None:
            return known
        desk.registry.roster.officer(revocation.officer, Role.REVOKE)
        check_issued(revocation.issued_at, now)
        principal, key = revocation.principal, revocation.key
        if not desk.registry.is_enrolled(principal):
            raise NotFound(f"principal: nobody was ever enrolled as {principal}")
        if key is not None and not desk.registry.has_had(principal, key):
            raise NotFound(f"key: {principal} never had key {key}")
        leaf = RevocationLeaf(
            time=now,
            id=revocation.id,
            digest=submission.digest.hex(),
            officer=revocation.officer,
            principal=principal,
            key=key,
        )
        return Entry(leaf, submission.statement, principal, "revoked")

    return await put_on_record(desk, judge, hints, now)


async def collect(desk: Desk, submission: Submission, invitation: Invitation, hints: Hints, now: int) -> Answer:
    """Keep the officers' signatures on an invitation that replaces a key, until there are enough (SPEC 2.6).

    Committed on return. Raises InvitationInvalid for one that needs no second signature, or is used or out of date,
    SignatureInvalid when no officer signed it, StatementConflict; and as `Desk.begin`, with nothing stored.
    """

    async def judge(tx: Transaction) -> Entry | Logged:
        check_authority(invitation.authority, desk.registry.roster)
        if invitation.principal is None or not invitation.replaces:
            raise InvitationInvalid("replaces: one officer's signature is enough for this invitation")
        check_issued(invitation.issued_at, now)
        check_life(invitation.issued_at, invitation.expires_at, INVITATION_LIFE_SECONDS_MAX)
        check_unexpired(invitation.expires_at, now)
        if desk.registry.uses(invitation.id):
            raise InvitationInvalid(f"invitation: {invitation.id} was used before")
        earlier = desk.ledger.invitation(invitation.id)
        if earlier is not None and earlier.digest != submission.digest:
            raise StatementConflict(f"id: {invitation.id} is taken by another invitation")
        signed = _officers_signatures(desk, submission.statement)
        if not signed:
            raise SignatureInvalid("signatures: none by an officer with role 'invite'")
        if earlier is not None:
            before = await statement_of(tx, earlier, "invitation")
            known = {signature.key_id for signature in before.signatures}
            added = {name: each for name, each in signed.items() if each.key_id not in known}
            if not added:
                return earlier
            signed = _officers_signatures(desk, before) | added
        collected = Statement(submission.statement.type, submission.statement.body, tuple(signed.values()))
        leaf = InvitationLeaf(
            time=now,
            id=invitation.id,
            digest=submission.digest.hex(),
            principal=invitation.principal,
            officers=sorted(signed),
        )
        return Entry(leaf, collected, invitation.principal, "invited")

    return await put_on_record(desk, judge, hints, now)


def _officers_signatures(desk: Desk, statement: Statement) -> dict[str, Signature]:
    """Return one true signature of each officer who may invite, by name, and none but these.

    Whoever carries a message can add signatures to it, also worthless ones under an officer's key id.
    """
    officers = {key_id(each.public_key): each for each in desk.registry.roster.body.officers}
    kept: dict[str, Signature] = {}
    for signature in statement.signatures:
        officer = officers.get(signature.key_id)
        if officer is not None and Role.INVITE in officer.roles and officer.name not in kept:
            alone = Statement(statement.type, statement.body, (signature,))
            with suppress(SignatureInvalid):
                alone.verify_signature(officer.public_key, signature.key_id)
                kept[officer.name] = signature
    return kept


def _check_in_force(desk: Desk, case: Case) -> None:
    """Raise ApprovalInvalid when the key that asked speaks for its owner no more: it would be given nothing."""
    if case.capacity is Capacity.PRINCIPAL:
        is_in_force = desk.registry.speaks(case.principal, case.key_id)
    else:
        officers = {each.name: key_id(each.public_key) for each in desk.registry.roster.body.officers}
        is_in_force = officers.get(case.requester) == case.key_id
    if not is_in_force:
        raise ApprovalInvalid(
            f"requester: the key of {case.requester} that signed this request was replaced, revoked or removed",
            hint="deny it",
        )


def _waiting(desk: Desk, request_id: str, digest: str) -> Case:
    case = desk.ledger.case(request_id)
    if case is None:
        raise NotFound(f"request: there is no request {request_id} on the record")
    if case.digest.hex() != digest:
        raise ApprovalInvalid(f"request_digest: is not that of request {request_id}")
    if case.outcome is not None:
        raise ApprovalInvalid(f"request: {request_id} is {case.outcome.state.value} already")
    return case
