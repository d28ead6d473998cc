"""The statements that say who may do what: roster, invitation, enrolment, approval, denial, revocation. Pure.

SPEC sections 2 and 5. What they are worth is decided in `roster` and `registry`.
"""

from enum import StrEnum
from typing import Annotated, ClassVar, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from strongroom import limits
from strongroom.fields import (
    Body,
    Bytes,
    CapacityText,
    Digest,
    Id,
    KeyId,
    LabelName,
    LabelValue,
    Name,
    Part,
    Principal,
    PublicKey,
    Reason,
    SuiteText,
    Time,
    media_type,
)


class SealingKeyState(StrEnum):
    """What a sealing key of the roster may still be used for (SPEC 2.2)."""

    ACTIVE = "active"
    ACCEPTED = "accepted"
    CLOSED = "closed"


class Role(StrEnum):
    """What an officer may do (SPEC 2.2)."""

    INVITE = "invite"
    RECOVER = "recover"
    APPROVE = "approve"
    REVOKE = "revoke"
    AUDIT = "audit"


Prefix = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9-]*$")]
_StateText = Annotated[SealingKeyState, Field(strict=False)]
_RoleText = Annotated[Role, Field(strict=False)]


class SealingKey(Part):
    """A sealing key of the authority: kid, suite, raw public key, state."""

    kid: KeyId
    suite: SuiteText
    public_key: Bytes
    state: _StateText


class TransportKey(Part):
    """An RSA key of the authority, for what other programs wrapped: SubjectPublicKeyInfo in DER, kid, state."""

    kid: KeyId
    public_key: Bytes
    state: _StateText


class LogKey(Part):
    """A log: the origin line of its checkpoints and its raw Ed25519 public key.

    former: keys that signed its checkpoints earlier, oldest first; what was kept from then counts (SPEC 2.11).
    """

    origin: Annotated[str, Field(min_length=3, max_length=192, pattern=r"^[a-z0-9./-]+$")]
    public_key: PublicKey
    former: Annotated[list[PublicKey], Field(max_length=limits.FORMER_KEYS_MAX)] = Field(default_factory=list)


class LogKeys(Part):
    """The authority's two logs."""

    escrow: LogKey
    recovery: LogKey


class ReplyKeys(Part):
    """The keys that the two workers sign replies with."""

    escrow: PublicKey
    recovery: PublicKey


class Officer(Part):
    """A person named in the roster, with a raw Ed25519 public key and roles."""

    name: Principal
    public_key: PublicKey
    roles: Annotated[list[_RoleText], Field(max_length=len(Role))]


class ExpectedLabel(Part):
    """A label by which records are picked out."""

    name: LabelName
    value: LabelValue


class Expectation(Part):
    """Names under which principals should hold a key each (SPEC 2.3).

    prefix: the beginning of the principals' names, empty for all. label: only principals with a record that bears
    it; null for all.
    """

    prefix: Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9-]*$")]
    label: ExpectedLabel | None
    names: Annotated[list[Name], Field(min_length=1, max_length=limits.EXPECTED_NAMES_MAX)]


_Days = Annotated[int, Field(ge=1, le=limits.POLICY_DAYS_MAX)]


class Policy(Part):
    """How many signatures and approvals each case asks for, and how fast anybody may ask (SPEC 2.3).

    officer_recovery_delay_hours: from the request's entry in the log to the earliest release to an officer.
    requests_per_hour, released_records_per_day: of one requester. prove_days: in which every blob is opened once.
    attest_days: after which an owner compares its live keys again. replace_days: in which a key that somebody else
    was given is to be replaced. expected: what principals should hold.
    """

    replacement_signatures: Annotated[int, Field(ge=1, le=limits.SIGNATURES_MAX)] = 2
    self_recovery_approvals: Annotated[int, Field(ge=0, le=limits.SIGNATURES_MAX)] = 0
    officer_recovery_approvals: Annotated[int, Field(ge=1, le=limits.SIGNATURES_MAX)] = 2
    officer_recovery_delay_hours: Annotated[int, Field(ge=0, le=limits.RECOVERY_DELAY_HOURS_MAX)] = 0
    requests_per_hour: Annotated[int, Field(ge=1, le=limits.RATE_MAX)] = 100
    released_records_per_day: Annotated[int, Field(ge=1, le=limits.RATE_MAX)] = 1000
    prove_days: _Days = 30
    attest_days: _Days = 7
    replace_days: _Days = 14
    expected: Annotated[list[Expectation], Field(max_length=limits.EXPECTATIONS_MAX)] = Field(default_factory=list)


# Rosters that were signed before these were thought of stay valid, and mean what is the default here for ever.
_LATER_MEMBERS: Final = frozenset({"prove_days", "attest_days", "replace_days", "expected"})


def _explicit(value: object) -> object:
    # A signed policy says all that it means: the default of a writer may change from release to release.
    if isinstance(value, dict) and not Policy.model_fields.keys() - _LATER_MEMBERS <= value.keys():
        raise ValueError("a member is missing")
    return value


class RosterBody(Body):
    """The root-signed document that names the authority's keys, logs, officers and policy (SPEC 2.1).

    transport_keys, root_changes (envelopes), and `former` of a log may be missing: rosters were signed before they
    were thought of.
    """

    TYPE: ClassVar[str] = media_type("roster")

    version: Annotated[int, Field(ge=1, le=limits.INTEGER_MAX)]
    issued_at: Time
    expires_at: Time
    previous: Digest | None
    sealing_keys: Annotated[list[SealingKey], Field(min_length=1, max_length=limits.SEALING_KEYS_MAX)]
    logs: LogKeys
    replies: ReplyKeys
    officers: Annotated[list[Officer], Field(max_length=limits.OFFICERS_MAX)]
    policy: Annotated[Policy, BeforeValidator(_explicit)]
    transport_keys: Annotated[list[TransportKey], Field(max_length=limits.TRANSPORT_KEYS_MAX)] = Field(
        default_factory=list
    )
    root_changes: Annotated[list[Bytes], Field(max_length=limits.ROOT_CHANGES_MAX)] = Field(default_factory=list)


class RootChange(Body):
    """The root key `former` hands over to another one; both sign (SPEC 2.12)."""

    TYPE: ClassVar[str] = media_type("root-change")

    issued_at: Time
    former: PublicKey
    public_key: PublicKey


class Invitation(Body):
    """Officers let one principal enrol, or `uses` new ones whose names begin with `prefix` (SPEC 2.5)."""

    TYPE: ClassVar[str] = media_type("invitation")

    id: Id
    issued_at: Time
    expires_at: Time
    principal: Principal | None
    prefix: Prefix | None
    uses: Annotated[int, Field(ge=1, le=limits.INVITATION_USES_MAX)]
    one_time_key: PublicKey
    replaces: bool

    @model_validator(mode="after")
    def _one_scope(self) -> Self:
        if (self.principal is None) == (self.prefix is None):
            raise ValueError("principal, prefix: exactly one must be given")
        if self.prefix is None and self.uses != 1:
            raise ValueError("uses: must be 1 for an invitation of one principal")
        if self.prefix is not None and self.replaces:
            raise ValueError("replaces: must be false for an invitation of many")
        return self

    def covers(self, principal: str) -> bool:
        """Say whether this principal may enrol by it."""
        return principal == self.principal or (self.prefix is not None and principal.startswith(self.prefix))

    @property
    def whom(self) -> str:
        """Whom it is for, in words for people."""
        return self.principal or f"{self.uses} new principals {self.prefix}…"


class Enrolment(Body):
    """A host binds its signing key to a principal on the strength of an invitation (SPEC 2.7)."""

    TYPE: ClassVar[str] = media_type("enrolment")

    id: Id
    issued_at: Time
    principal: Principal
    signing_key: PublicKey
    invitation: Bytes


class Revocation(Body):
    """An officer ends a principal, or one of its keys, at once (SPEC 2.9); `key` null ends the principal."""

    TYPE: ClassVar[str] = media_type("revocation")

    id: Id
    issued_at: Time
    officer: Principal
    principal: Principal
    key: KeyId | None
    reason: Reason


class Approval(Body):
    """An officer agrees to a request; its digest fixes records, recipient, reason and expiry (SPEC 5.6)."""

    TYPE: ClassVar[str] = media_type("approval")

    id: Id
    issued_at: Time
    expires_at: Time
    officer: Principal
    request: Id
    request_digest: Digest
    reason: Reason


class Denial(Body):
    """An officer, or the owner of the records, forbids a request for good (SPEC 5.7)."""

    TYPE: ClassVar[str] = media_type("denial")

    id: Id
    issued_at: Time
    denier: Principal
    denier_kind: CapacityText
    request: Id
    request_digest: Digest
    reason: Reason
