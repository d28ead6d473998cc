"""What officers and owners say: approvals, denials, revocations, attestations, each put on record."""

from dataclasses import dataclass

from strongroom import limits
from strongroom.approvals import check_independent
from strongroom.crypto.signing import SigningKey
from strongroom.errors import ApprovalInvalid, Expired, ReplyInvalid, UsageError
from strongroom.fields import Capacity, new_id, validated
from strongroom.leaves import ApprovalLeaf, AttestationLeaf, DenialLeaf, Leaf, RevocationLeaf
from strongroom.mandates import Approval, Denial, Revocation, Role
from strongroom.messages import Attestation, Request, RequestState
from strongroom.roster import Roster
from strongroom.statements import Statement
from strongroom_agent.cases import Case, Consent
from strongroom_agent.home import Home
from strongroom_agent.home import Role as HomeRole
from strongroom_agent.identity import check_officer
from strongroom_agent.patience import Deadline
from strongroom_agent.proofs import Question
from strongroom_agent.session import Session


@dataclass(frozen=True, slots=True)
class Recorded:
    """A statement that the recovery log holds, by a verified receipt.

    id and digest (hex) of the statement, its place in the log, and the time of its entry in seconds since 1970.
    """

    id: str
    digest: str
    log_index: int
    tree_size: int
    time: int


class Verdict:
    """A signed approval, denial, revocation or attestation.

    Sending it again is harmless, because id and bytes stay the same.
    """

    def __init__(self, body: Approval | Denial | Revocation | Attestation, key: SigningKey) -> None:
        """Sign `body` with the key of this home."""
        self.body = body
        self._key_id = key.key_id
        self._statement = Statement.sign(body.TYPE, body.to_bytes(), key)

    async def deliver(self, session: Session, deadline: Deadline) -> Recorded:
        """Send it over this link and verify that the log holds it.

        Raises Rejected; ReplyInvalid, CheckpointInvalid, ProofInvalid or LogForked for an answer not to be
        believed; RosterInvalid, Expired; BrokerUnavailable, Unroutable or NoAnswer when it is worth sending again.
        """
        question = Question("recovery", self.body.id, self._statement.digest)
        answer = await session.ask(
            "recovery",
            question,
            self._statement.envelope(),
            deadline=deadline,
            held=session.state.checkpoint("recovery"),
        )
        session.raise_refusal(answer)
        receipted = session.receipted(answer)
        if receipted.leaf != self._leaf(receipted.leaf.time):
            raise ReplyInvalid("reply: a receipt for something else")
        session.state.keep_checkpoint(receipted.checkpoint, session.now)
        return Recorded(
            id=self.body.id,
            digest=self._statement.digest.hex(),
            log_index=receipted.receipt.index,
            tree_size=receipted.receipt.tree_size,
            time=receipted.leaf.time,
        )

    def _leaf(self, time: int) -> Leaf:
        body, digest = self.body, self._statement.digest.hex()
        if isinstance(body, Approval):
            return ApprovalLeaf(
                time=time,
                id=body.id,
                digest=digest,
                officer=body.officer,
                key=self._key_id,
                request=body.request,
            )
        if isinstance(body, Denial):
            return DenialLeaf(
                time=time,
                id=body.id,
                digest=digest,
                denier=body.denier,
                denier_kind=body.denier_kind,
                key=self._key_id,
                request=body.request,
            )
        if isinstance(body, Attestation):
            return AttestationLeaf(
                time=time,
                id=body.id,
                digest=digest,
                principal=body.principal,
                key=self._key_id,
                matching=[each.id for each in body.records if each.matches],
                stale=[each.id for each in body.records if not each.matches],
            )
        return RevocationLeaf(
            time=time,
            id=body.id,
            digest=digest,
            officer=body.officer,
            principal=body.principal,
            key=body.key,
        )


def check_approvable(case: Case, home: Home, roster: Roster) -> Request:
    """Return the request of a case that the owner of this home may approve; refuse as the authority would.

    Raises OfficerUnknown without the role `approve`; ApprovalInvalid for a request that was not verified, does not
    wait, is the officer's own, or was approved by this officer already; Expired.
    """
    officer = check_officer(home, roster, Role.APPROVE)
    if case.request is None or case.subject is None or case.flaw is not None:
        raise ApprovalInvalid(
            f"request {case.id}: not verified: {case.flaw}", hint="do not approve it; tell the other officers"
        )
    check_waits(case)
    check_independent(officer, case.subject)
    if case.approval_by(officer.name) is not None:
        raise ApprovalInvalid(f"request {case.id}: {officer.name} has approved it already")
    return case.request


def standing_approval(case: Case, home: Home, roster: Roster) -> Consent | None:
    """Return the approval by the owner of this home that counts for a request that waits, if there is one.

    Raises OfficerUnknown without the role `approve`.
    """
    officer = check_officer(home, roster, Role.APPROVE)
    return case.approval_by(officer.name) if case.state is RequestState.PENDING else None


def check_deniable(case: Case, home: Home, roster: Roster) -> None:
    """Raise unless the owner of this home may deny a request, which need not be a verified one.

    OfficerUnknown for an officer whom the roster does not name; ApprovalInvalid for a host whose records it is not
    about, or when it does not wait; Expired.
    """
    if home.config.role is HomeRole.OFFICER:
        check_officer(home, roster)
    elif case.request is not None and case.request.principal != home.config.name:
        raise ApprovalInvalid(f"request {case.id}: is for records of {case.request.principal}, not of this host")
    check_waits(case)


def check_revoker(home: Home, roster: Roster) -> None:
    """Raise OfficerUnknown unless the owner of this home is an officer with the role `revoke`."""
    check_officer(home, roster, Role.REVOKE)


def check_waits(case: Case) -> None:
    """Raise Expired or ApprovalInvalid for a request that nothing can be said to any more."""
    if case.state is RequestState.EXPIRED:
        raise Expired(f"request {case.id}: is over", hint="whoever still needs the key asks anew")
    if case.state is not RequestState.PENDING:
        raise ApprovalInvalid(f"request {case.id}: does not wait any more: it is {case.state.value}")


def approval(
    case: Case, home: Home, roster: Roster, key: SigningKey, *, reason: str, life_seconds: int, now: int
) -> Verdict:
    """Sign an approval that ends after `life_seconds`, or with the request; raises as `check_approvable`.

    Also Expired for a request that ends at this moment, MalformedStatement or LimitExceeded for the reason.
    """
    request = check_approvable(case, home, roster)
    expires_at = min(now + min(life_seconds, limits.APPROVAL_LIFE_SECONDS_MAX), request.expires_at)
    if expires_at <= now:
        raise Expired(f"request {case.id}: is over")
    members = {
        "authority": request.authority,
        "id": new_id(),
        "issued_at": now,
        "expires_at": expires_at,
        "officer": home.config.name,
        "request": case.id,
        "request_digest": case.digest,
        "reason": reason,
    }
    return Verdict(validated(members, Approval), key)


def denial(case: Case, home: Home, roster: Roster, key: SigningKey, *, reason: str, now: int) -> Verdict:
    """Sign a denial of a request; raises as `check_deniable`, UsageError without a reason."""
    check_deniable(case, home, roster)
    members = {
        "authority": roster.body.authority,
        "id": new_id(),
        "issued_at": now,
        "denier": home.config.name,
        "denier_kind": Capacity(home.config.role.value),
        "request": case.id,
        "request_digest": case.digest,
        "reason": _given(reason),
    }
    return Verdict(validated(members, Denial), key)


def revocation(
    principal: str, home: Home, roster: Roster, key: SigningKey, *, key_id: str | None, reason: str, now: int
) -> Verdict:
    """Sign the end of a principal, or of the one key of it with this id.

    Raises OfficerUnknown without the role `revoke`, UsageError without a reason, MalformedStatement or
    LimitExceeded for a name or key id that is none.
    """
    check_revoker(home, roster)
    members = {
        "authority": roster.body.authority,
        "id": new_id(),
        "issued_at": now,
        "officer": home.config.name,
        "principal": principal,
        "key": key_id,
        "reason": _given(reason),
    }
    return Verdict(validated(members, Revocation), key)


def _given(reason: str) -> str:
    if not reason.strip():
        raise UsageError("reason: must be given; it stays on record")
    return reason
