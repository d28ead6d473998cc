"""What becomes of an enrolment, a request or a listing request: who sent it, and may they. Pure.

State and time are arguments. Every refusal is a PermanentError whose message names the field and the limit.
"""

import hashlib
from dataclasses import dataclass
from typing import Final, TypeAlias

from strongroom.crypto.sealing import seal
from strongroom.crypto.signing import key_id
from strongroom.errors import (
    ApprovalRequired,
    Denied,
    InvitationInvalid,
    KeyUnknown,
    MalformedStatement,
    OfficerUnknown,
    PermanentError,
    by_code,
)
from strongroom.leaves import EnrolmentLeaf, RefusalLeaf, ReleaseLeaf, RequestLeaf
from strongroom.limits import APPROVED_REQUEST_LIFE_SECONDS_MAX, REQUEST_LIFE_SECONDS_MAX
from strongroom.messages import (
    Enrolment,
    ListingRequest,
    Policy,
    Request,
    RequesterKind,
    Role,
    parse_body,
)
from strongroom.registry import Registry
from strongroom.roster import (
    JudgedEnrolment,
    Roster,
    check_authority,
    check_issued,
    check_life,
    check_unexpired,
    judge_enrolment,
)
from strongroom.statements import Statement, parse_envelope

Asked: TypeAlias = Enrolment | Request | ListingRequest

_MODELS: Final[dict[str, type[Asked]]] = {model.TYPE: model for model in (Enrolment, Request, ListingRequest)}
_KINDS: Final[dict[type[Asked], str]] = {
    Enrolment: "enrolment",
    Request: "request",
    ListingRequest: "listing-request",
}


@dataclass(frozen=True, slots=True)
class Submission:
    """One message that could be read: its body as it came, the statement in it, and what that asks for.

    No signature was checked.
    """

    envelope: bytes
    statement: Statement
    asked: Asked

    @property
    def id(self) -> str:
        """The statement id."""
        return self.asked.id

    @property
    def digest(self) -> bytes:
        """The statement digest, 32 bytes."""
        return self.statement.digest

    @property
    def kind(self) -> str:
        """What is asked for, in one word for people."""
        return _KINDS[type(self.asked)]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """One message that could not be read, and why; `digest` is as SPEC 6.2 has it."""

    digest: bytes
    refusal: PermanentError
    id: None = None
    kind: str = "unreadable"


def read(envelope: bytes) -> Submission | Unreadable:
    """Read the body of a message; never raises, whatever it is."""
    digest = hashlib.sha256(envelope).digest()
    try:
        statement = parse_envelope(envelope)
        digest = statement.digest
        model = _MODELS.get(statement.type)
        if model is None:
            raise MalformedStatement(
                f"payloadType: is {statement.type!r}, must be one of {', '.join(map(repr, sorted(_MODELS)))}"
            )
        return Submission(envelope, statement, parse_body(statement, model))
    except PermanentError as error:
        return Unreadable(digest, error)


# ---- enrolment -------------------------------------------------------------------------------------


def check_enrolment(statement: Statement, registry: Registry, now: int) -> JudgedEnrolment:
    """Decide an enrolment by the roster in force and by what the recovery log says until now (SPEC 2.5, 2.7).

    Raises InvitationInvalid for an invitation that was used, or one that replaces nothing while the principal
    is enrolled; Expired for an invitation past its expiry or anything dated in the future; and the errors of
    `judge_enrolment`.
    """
    judged = judge_enrolment(statement, registry.roster)
    invitation = judged.invitation
    check_issued(judged.enrolment.issued_at, now)
    check_issued(invitation.issued_at, now)
    check_unexpired(invitation.expires_at, now)
    if registry.is_used(invitation.id):
        raise InvitationInvalid(
            f"invitation: {invitation.id} was used before", hint="ask an officer for a new invitation"
        )
    if not invitation.replaces and registry.is_enrolled(invitation.principal):
        raise InvitationInvalid(
            f"principal: {invitation.principal} is enrolled, and the invitation does not replace its key",
            hint="ask the officers for an invitation that replaces the key",
        )
    return judged


# ---- who asks --------------------------------------------------------------------------------------


def verify_requester(statement: Statement, asked: Request | ListingRequest, registry: Registry) -> None:
    """Check that the requester the body names signed it, as a principal or as an officer of the roster.

    The requester's enrolment must have been admitted to the registry. What an officer may do is not looked
    at here. Raises WrongAuthority, PrincipalUnknown, PrincipalRevoked, OfficerUnknown, SignatureInvalid.
    """
    roster = registry.roster
    check_authority(asked.authority, roster)
    match asked.requester_kind:
        case RequesterKind.PRINCIPAL:
            registry.verify(statement, asked.requester)
        case RequesterKind.OFFICER:
            officer = roster.officer(asked.requester)
            statement.verify_signature(officer.public_key, key_id(officer.public_key))


# ---- what they may -----------------------------------------------------------------------------------


def approvals_needed(request: Request, policy: Policy) -> int:
    """Return how many approvals the policy asks for (SPEC 2.3). Raises Denied where none would help."""
    match request.requester_kind:
        case RequesterKind.OFFICER:
            return policy.officer_recovery_approvals
        case RequesterKind.PRINCIPAL:
            _require_own(request)
            return policy.self_recovery_approvals


def check_request(request: Request, roster: Roster, now: int) -> None:
    """Decide whether a request of a verified requester may be answered with keys now (SPEC 5.1, 5.2).

    Raises Denied, OfficerUnknown for an officer without the role `recover`, Expired, LimitExceeded for too long a
    life, MalformedStatement for a recipient key that nothing can be sealed to, ApprovalRequired.
    """
    if request.requester_kind is RequesterKind.OFFICER:
        roster.officer(request.requester, Role.RECOVER)
    needed = approvals_needed(request, roster.body.policy)
    check_issued(request.issued_at, now)
    life_seconds_max = APPROVED_REQUEST_LIFE_SECONDS_MAX if needed else REQUEST_LIFE_SECONDS_MAX
    check_life(request.issued_at, request.expires_at, life_seconds_max)
    check_unexpired(request.expires_at, now)
    _check_recipient(request)
    if needed:
        raise ApprovalRequired(f"approvals: policy asks for {needed}, there are 0")


def check_listing(asked: ListingRequest, roster: Roster, now: int) -> None:
    """Decide whether a listing request of a verified requester may be answered (SPEC 5.4).

    Raises Denied, OfficerUnknown for an officer with neither role `audit` nor `recover`, Expired, LimitExceeded for
    too long a life.
    """
    match asked.requester_kind:
        case RequesterKind.PRINCIPAL:
            _require_own(asked)
        case RequesterKind.OFFICER:
            if not {Role.AUDIT, Role.RECOVER} & set(roster.officer(asked.requester).roles):
                raise OfficerUnknown(f"officer {asked.requester}: has neither role 'audit' nor role 'recover'")
    check_issued(asked.issued_at, now)
    check_life(asked.issued_at, asked.expires_at, REQUEST_LIFE_SECONDS_MAX)
    check_unexpired(asked.expires_at, now)


def _require_own(asked: Request | ListingRequest) -> None:
    if asked.principal != asked.requester:
        raise Denied(f"principal: {asked.requester} may ask for its own records only, not for {asked.principal}'s")


def _check_recipient(request: Request) -> None:
    try:
        seal(request.recipient_suite, request.recipient_key, b"", b"")
    except KeyUnknown:
        raise MalformedStatement(
            f"recipient_key: is not a public key of suite {request.recipient_suite.value}"
        ) from None


# ---- what goes on the record ---------------------------------------------------------------------------


def enrolment_leaf(judged: JudgedEnrolment, now: int) -> bytes:
    """Return the leaf after which the enrolled key speaks for its principal (SPEC 7.2)."""
    return EnrolmentLeaf(
        time=now,
        id=judged.enrolment.id,
        digest=judged.statement.digest.hex(),
        principal=judged.enrolment.principal,
        key=judged.key_id,
        invitation=judged.invitation.id,
    ).to_bytes()


def request_leaf(request: Request, digest: bytes, now: int) -> bytes:
    """Return the leaf that says who asked for whose keys (SPEC 7.2)."""
    return RequestLeaf(
        time=now,
        id=request.id,
        digest=digest.hex(),
        requester=request.requester,
        requester_kind=request.requester_kind,
        principal=request.principal,
    ).to_bytes()


def release_leaf(request: Request, digest: bytes, release: Statement, records: list[str], now: int) -> bytes:
    """Return the leaf that says which keys a request was answered with (SPEC 7.2)."""
    return ReleaseLeaf(
        time=now, id=request.id, digest=digest.hex(), release=release.digest.hex(), records=records
    ).to_bytes()


def refusal_leaf(request: Request, digest: bytes, code: str, now: int) -> bytes:
    """Return the leaf that says that a request was refused, and by what code (SPEC 7.2)."""
    return RefusalLeaf(
        time=now,
        id=request.id,
        digest=digest.hex(),
        requester=request.requester,
        requester_kind=request.requester_kind,
        code=code,
    ).to_bytes()


def refusal_again(code: str) -> PermanentError:
    """Return the refusal of a request that was refused before with `code`.

    The words of the first answer are not kept: only what the log vouches for is signed again.
    """
    return by_code(code)(f"this request was refused before, with code {code}", hint="sign a new request")
