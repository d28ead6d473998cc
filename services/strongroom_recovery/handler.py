"""What a message of the recovery queue is, who sent it, and may they. Pure.

State and time are arguments. Every refusal is a PermanentError whose message names the field and the limit.
What the policy says of a request is in `policy`.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, TypeAlias

from strongroom.audits import CoverageRequest, LogPageRequest
from strongroom.crypto.signing import key_id
from strongroom.errors import (
    Denied,
    InvitationInvalid,
    LimitExceeded,
    MalformedStatement,
    OfficerUnknown,
    PermanentError,
    by_code,
)
from strongroom.fields import Capacity, parse_body
from strongroom.limits import MANDATE_BODY_BYTES_MAX, REQUEST_BODY_BYTES_MAX, REQUEST_LIFE_SECONDS_MAX
from strongroom.mandates import Approval, Denial, Enrolment, Invitation, Revocation, Role
from strongroom.messages import Asking, Attestation, DocketRequest, ListingRequest, Request
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

Asked: TypeAlias = (
    Enrolment
    | Invitation
    | Revocation
    | Request
    | Approval
    | Denial
    | Attestation
    | ListingRequest
    | DocketRequest
    | CoverageRequest
    | LogPageRequest
)

_KINDS: Final[dict[type[Asked], str]] = {
    Enrolment: "enrolment",
    Invitation: "invitation",
    Revocation: "revocation",
    Request: "request",
    Approval: "approval",
    Denial: "denial",
    Attestation: "attestation",
    ListingRequest: "listing-request",
    DocketRequest: "docket-request",
    CoverageRequest: "coverage-request",
    LogPageRequest: "log-page-request",
}
_MODELS: Final[dict[str, type[Asked]]] = {model.TYPE: model for model in _KINDS}


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

    @property
    def sender(self) -> str | None:
        """Who says to have sent it; None for an invitation, which may have several signers."""
        match self.asked:
            case Asking():
                return self.asked.requester
            case Approval() | Revocation():
                return self.asked.officer
            case Denial():
                return self.asked.denier
            case Enrolment() | Attestation():
                return self.asked.principal
            case Invitation():
                return None

    @property
    def principal(self) -> str | None:
        """Whose keys or standing it is about, as far as it says."""
        match self.asked:
            case Approval() | Denial() | CoverageRequest() | LogPageRequest():
                return None
            case _:
                return self.asked.principal


@dataclass(frozen=True, slots=True)
class Unreadable:
    """One message that could not be read: its body as it came, and why."""

    envelope: bytes
    refusal: PermanentError
    id: None = None
    sender: None = None
    principal: None = None
    kind: str = "unreadable"


def read(envelope: bytes) -> Submission | Unreadable:
    """Read the body of a message; never raises, whatever it is."""
    try:
        statement = parse_envelope(envelope)
        model = _MODELS.get(statement.type)
        if model is None:
            raise MalformedStatement(
                f"payloadType: is {statement.type!r}, must be one of {', '.join(map(repr, sorted(_MODELS)))}"
            )
        _check_size(statement, model)
        return Submission(envelope, statement, parse_body(statement, model))
    except PermanentError as error:
        return Unreadable(envelope, error)


def _check_size(statement: Statement, model: type[Asked]) -> None:
    """Refuse a body that white space has made larger than it can be: a docket has to find room for several."""
    is_long = issubclass(model, Asking | Attestation)
    limit = REQUEST_BODY_BYTES_MAX if is_long else MANDATE_BODY_BYTES_MAX
    if len(statement.body) > limit:
        raise LimitExceeded(f"body: {len(statement.body)} bytes, the limit for a {_KINDS[model]} is {limit} bytes")


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
    principal = judged.enrolment.principal
    if registry.uses(invitation.id) >= invitation.uses:
        raise InvitationInvalid(
            f"invitation: {invitation.id} was used before, {invitation.uses} times at most",
            hint="ask an officer for a new invitation",
        )
    if not invitation.replaces and registry.is_enrolled(principal):
        raise InvitationInvalid(
            f"principal: {principal} is enrolled, and the invitation does not replace its key",
            hint="ask the officers for an invitation that replaces the key",
        )
    revoked_at = registry.revoked_at(principal)
    if revoked_at is not None and invitation.issued_at <= revoked_at:
        raise InvitationInvalid(
            f"invitation: {principal} was revoked after it was issued", hint="ask the officers for a new invitation"
        )
    if registry.has_had(principal, judged.key_id):
        raise InvitationInvalid(f"signing_key: was enrolled for {principal} before", hint="make a new home")
    return judged


# ---- who asks --------------------------------------------------------------------------------------


def verify_sender(statement: Statement, authority: str, name: str, capacity: Capacity, registry: Registry) -> str:
    """Check that `name` signed a statement, as a principal or as an officer of the roster; return the key's id.

    The enrolment of a principal must have been admitted to the registry. What an officer may do is not looked at
    here. Raises WrongAuthority, PrincipalUnknown, PrincipalRevoked, OfficerUnknown, SignatureInvalid.
    """
    roster = registry.roster
    check_authority(authority, roster)
    match capacity:
        case Capacity.PRINCIPAL:
            return registry.verify(statement, name)
        case Capacity.OFFICER:
            signer = key_id(roster.officer(name).public_key)
            statement.verify_signature(roster.officer(name).public_key, signer)
            return signer


# ---- what they may look at ---------------------------------------------------------------------------


def check_listing(asked: ListingRequest, roster: Roster, now: int) -> None:
    """Decide whether a listing request of a verified requester may be answered (SPEC 5.4).

    Raises Denied, OfficerUnknown for an officer with neither role `audit` nor `recover`, Expired, LimitExceeded for
    too long a life.
    """
    if asked.requester_kind is Capacity.OFFICER:
        check_officers_question(asked, roster, {Role.AUDIT, Role.RECOVER}, now)
        return
    if asked.principal != asked.requester:
        raise Denied(f"principal: {asked.requester} may ask for its own records only, not for {asked.principal}'s")
    _check_short_life(asked, now)


def check_docket(asked: DocketRequest, now: int) -> None:
    """Decide whether a docket request of a verified requester may be answered (SPEC 5.8).

    Every officer may see all of it, a principal what concerns its own records. Raises Denied, Expired,
    LimitExceeded for too long a life.
    """
    if asked.requester_kind is Capacity.PRINCIPAL and asked.principal != asked.requester:
        raise Denied(f"principal: {asked.requester} may ask about its own records only")
    _check_short_life(asked, now)


def check_officers_question(asked: Asking, roster: Roster, roles: AbstractSet[Role], now: int) -> None:
    """Decide whether a question that only officers with one of these roles may ask is to be answered.

    Its signature was verified (SPEC 5.4, 5.14, 5.15). Raises Denied for a principal, OfficerUnknown without any of
    the roles, Expired, LimitExceeded for too long a life.
    """
    if asked.requester_kind is not Capacity.OFFICER:
        raise Denied("requester_kind: only officers may ask this")
    if not roles & set(roster.officer(asked.requester).roles):
        words = " nor ".join(f"role {role.value!r}" for role in sorted(roles))
        raise OfficerUnknown(f"officer {asked.requester}: has {'no' if len(roles) == 1 else 'neither'} {words}")
    _check_short_life(asked, now)


def _check_short_life(asked: Asking, now: int) -> None:
    check_issued(asked.issued_at, now)
    check_life(asked.issued_at, asked.expires_at, REQUEST_LIFE_SECONDS_MAX)
    check_unexpired(asked.expires_at, now)


def refusal_again(code: str) -> PermanentError:
    """Return the refusal of a request that was refused before with `code`.

    The words of the first answer are not kept: only what the log vouches for is signed again.
    """
    return by_code(code)(f"this request was refused before, with code {code}", hint="sign a new request")
