"""Wire models: the bodies of statements and of replies (SPEC sections 2, 4, 5 and 6). Pure."""

import re
from base64 import b64encode
from enum import StrEnum
from typing import Annotated, ClassVar, Self, TypeVar

import uuid_utils
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from strongroom import limits
from strongroom.crypto.sealing import Suite
from strongroom.crypto.signing import PUBLIC_KEY_BYTES
from strongroom.errors import LimitExceeded, MalformedStatement
from strongroom.statements import Statement, canonical_json, decode_base64, parse_json

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def _plain_text(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("holds a control character or an unpaired surrogate")
    return value


def printable(text: str) -> str:
    """Return text with every character that a statement must not hold replaced by `?`, for messages to people."""
    return _CONTROL.sub("?", text)


def _decoded(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    try:
        return decode_base64(value, "value")
    except MalformedStatement as error:
        raise ValueError(error.message.removeprefix("value: ")) from None


def _public_key(value: bytes) -> bytes:
    if len(value) != PUBLIC_KEY_BYTES:
        raise ValueError(f"must be {PUBLIC_KEY_BYTES} bytes")
    return value


def _encoded(value: bytes) -> str:
    return b64encode(value).decode()


Bytes = Annotated[bytes, BeforeValidator(_decoded), PlainSerializer(_encoded, when_used="json")]
PublicKey = Annotated[Bytes, AfterValidator(_public_key)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Id = Annotated[str, Field(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")]
Authority = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{2,127}$")]
Principal = Annotated[str, Field(min_length=3, max_length=64, pattern=r"^[a-z0-9-]*$")]
Time = Annotated[int, Field(ge=0, le=limits.INTEGER_MAX)]
Kind = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
Name = Annotated[str, Field(min_length=1, max_length=limits.NAME_CHARACTERS_MAX), AfterValidator(_plain_text)]
Description = Annotated[str, Field(max_length=limits.DESCRIPTION_CHARACTERS_MAX), AfterValidator(_plain_text)]
SerialNumber = Annotated[str, Field(max_length=limits.SERIAL_NUMBER_CHARACTERS_MAX), AfterValidator(_plain_text)]
Algorithm = Annotated[str, Field(max_length=limits.ALGORITHM_CHARACTERS_MAX), AfterValidator(_plain_text)]
Reason = Annotated[str, Field(max_length=limits.REASON_CHARACTERS_MAX), AfterValidator(_plain_text)]
LabelName = Annotated[
    str, Field(min_length=1, max_length=limits.LABEL_NAME_CHARACTERS_MAX), AfterValidator(_plain_text)
]
LabelValue = Annotated[str, Field(max_length=limits.LABEL_VALUE_CHARACTERS_MAX), AfterValidator(_plain_text)]
Labels = Annotated[dict[LabelName, LabelValue], Field(max_length=limits.LABELS_MAX)]


def new_id() -> str:
    """Return a fresh UUIDv7 (RFC 9562) in lower-case text form."""
    return str(uuid_utils.uuid7())


class Part(BaseModel):
    """An object inside a body: unknown members refused, values never coerced, inputs never shown in errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class Body(Part):
    """The body of a statement; `TYPE` is its media type."""

    TYPE: ClassVar[str]

    authority: Authority

    def to_bytes(self) -> bytes:
        """Write the body as its signer does: sorted members, no white space (SPEC 1.5)."""
        return canonical_json(self.model_dump(mode="json"))


B = TypeVar("B", bound=Body)
P = TypeVar("P", bound=BaseModel)


def media_type(noun: str) -> str:
    """Return the media type of a statement, e.g. `application/vnd.strongroom.escrow.v1+json`."""
    return f"application/vnd.strongroom.{noun}.v1+json"


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


# JSON carries enumerations as text; strict mode would refuse that without this.
_SuiteText = Annotated[Suite, Field(strict=False)]
_StateText = Annotated[SealingKeyState, Field(strict=False)]
_RoleText = Annotated[Role, Field(strict=False)]


class SealingKey(Part):
    """A sealing key of the authority: kid, suite, raw public key, state."""

    kid: KeyId
    suite: _SuiteText
    public_key: Bytes
    state: _StateText


class LogKey(Part):
    """A log: the origin line of its checkpoints and its raw Ed25519 public key."""

    origin: Annotated[str, Field(min_length=3, max_length=192, pattern=r"^[a-z0-9./-]+$")]
    public_key: PublicKey


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


class Policy(Part):
    """How many signatures and approvals each case asks for (SPEC 2.3)."""

    replacement_signatures: Annotated[int, Field(ge=1, le=limits.SIGNATURES_MAX)] = 2
    self_recovery_approvals: Annotated[int, Field(ge=0, le=limits.SIGNATURES_MAX)] = 0
    officer_recovery_approvals: Annotated[int, Field(ge=1, le=limits.SIGNATURES_MAX)] = 2


def _explicit(value: object) -> object:
    # A signed policy says all that it means: the default of a writer may change from release to release.
    if isinstance(value, dict) and not Policy.model_fields.keys() <= value.keys():
        raise ValueError("a member is missing")
    return value


class RosterBody(Body):
    """The root-signed document that names the authority's keys, logs, officers and policy (SPEC 2.1)."""

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


class Invitation(Body):
    """Officers let one principal enrol, once, with the one-time key (SPEC 2.5)."""

    TYPE: ClassVar[str] = media_type("invitation")

    id: Id
    issued_at: Time
    expires_at: Time
    principal: Principal
    one_time_key: PublicKey
    replaces: bool


class Enrolment(Body):
    """A host binds its signing key to a principal on the strength of an invitation (SPEC 2.7)."""

    TYPE: ClassVar[str] = media_type("enrolment")

    id: Id
    issued_at: Time
    principal: Principal
    signing_key: PublicKey
    invitation: Bytes


class RecordDescription(Part):
    """What is said about an escrowed key, apart from the blob (SPEC 4.1)."""

    id: Id
    name: Name
    kind: Kind
    description: Description
    serial_number: SerialNumber
    algorithm: Algorithm
    fingerprint: Digest
    labels: Labels


class Record(RecordDescription):
    """One escrowed key with its key blob."""

    kid: KeyId
    suite: _SuiteText
    blob: Bytes


class Escrow(Body):
    """A principal hands over 1 to 256 records (SPEC 4.1)."""

    TYPE: ClassVar[str] = media_type("escrow")

    id: Id
    issued_at: Time
    principal: Principal
    records: Annotated[list[Record], Field(min_length=1, max_length=limits.RECORDS_MAX)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({record.id for record in self.records}) != len(self.records):
            raise ValueError("records: two have the same id")
        return self


class RequesterKind(StrEnum):
    """In which capacity somebody asks."""

    PRINCIPAL = "principal"
    OFFICER = "officer"


RequesterKindText = Annotated[RequesterKind, Field(strict=False)]


class _Asking(Body):
    id: Id
    issued_at: Time
    expires_at: Time
    requester: Principal
    requester_kind: RequesterKindText
    principal: Principal


class Request(_Asking):
    """Somebody asks for keys, to be re-sealed to a one-time key (SPEC 5.1)."""

    TYPE: ClassVar[str] = media_type("request")

    records: Annotated[list[Id], Field(min_length=1, max_length=limits.RECORDS_MAX)] | None
    name: Name | None
    reason: Reason
    recipient_suite: _SuiteText
    recipient_key: Bytes

    @model_validator(mode="after")
    def _one_selection(self) -> Self:
        if (self.records is None) == (self.name is None):
            raise ValueError("records, name: exactly one must be given")
        if self.records is not None and len(set(self.records)) != len(self.records):
            raise ValueError("records: an id is repeated")
        return self


class ListingRequest(_Asking):
    """Somebody asks which records a principal has (SPEC 5.4)."""

    TYPE: ClassVar[str] = media_type("listing-request")

    after: Id | None


class ReleasedRecord(RecordDescription):
    """A record whose key is handed out: `blob` is sealed to the requester's one-time key."""

    principal: Principal
    issued_at: Time
    blob: Bytes


class HistoryEntry(Part):
    """An earlier or later record under the same name."""

    id: Id
    issued_at: Time
    fingerprint: Digest


class Release(Body):
    """The answer that carries keys (SPEC 5.3)."""

    TYPE: ClassVar[str] = media_type("release")

    request: Id
    request_digest: Digest
    released_at: Time
    records: Annotated[list[ReleasedRecord], Field(min_length=1, max_length=limits.RECORDS_MAX)]
    history: list[HistoryEntry]


class RecordState(StrEnum):
    """What has become of a record so far."""

    STORED = "stored"
    DISCLOSED = "disclosed"


class ListedRecord(RecordDescription):
    """A record in a listing; times in seconds, `statement` is the escrow statement that brought it."""

    issued_at: Time
    stored_at: Time
    statement: Id
    state: Annotated[RecordState, Field(strict=False)]


class Listing(Body):
    """The records of a principal, a page at a time (SPEC 5.4)."""

    TYPE: ClassVar[str] = media_type("listing")

    request: Id
    request_digest: Digest
    principal: Principal
    records: Annotated[list[ListedRecord], Field(max_length=limits.LISTING_RECORDS_MAX)]
    next: Id | None


class Rejection(Body):
    """A worker says, signed, why it did not do what it was asked (SPEC 6.2)."""

    TYPE: ClassVar[str] = media_type("rejection")

    request: Id | None
    digest: Digest
    code: Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")]
    message: Annotated[str, Field(max_length=2048), AfterValidator(_plain_text)]
    rejected_at: Time


def parse_body(statement: Statement, model: type[B]) -> B:
    """Parse the body bytes of a statement as `model` (SPEC 1.5).

    Raises MalformedStatement naming the first field at fault, also when the statement's type is not the
    model's, or LimitExceeded naming the field and its limit.
    """
    if statement.type != model.TYPE:
        raise MalformedStatement(f"payloadType: is {statement.type[:128]!r}, must be {model.TYPE!r}")
    return validated(parse_json(statement.body, what="body"), model)


def validated(document: object, model: type[P]) -> P:
    """Check a parsed JSON document against a model; errors as `parse_body`. Inputs never appear in them."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
    # Label names and unknown members' names are the sender's words: of any length, and perhaps a secret.
    ours = _member_names(Part) | model.model_fields.keys()
    field = ".".join(str(part) for part in first["loc"] if isinstance(part, int) or part in ours) or "body"
    for name, unit in _LIMIT_UNITS.items():
        if first["type"] == name:
            context = first.get("ctx", {})
            bound = next((context[k] for k in ("max_length", "min_length", "le", "ge") if k in context), "")
            edge = "at least" if {"min_length", "ge"} & context.keys() else "at most"
            raise LimitExceeded(f"{field}: the limit is {edge} {bound} {unit}".rstrip())
    if first["type"] == "extra_forbidden":
        raise MalformedStatement(f"{field}: an unknown member")
    if first["type"] == "union_tag_invalid":
        raise MalformedStatement(f"{field}: of an unknown type")
    raise MalformedStatement(f"{field}: {first['msg'].removeprefix('Value error, ')}")


def _member_names(part: type[Part]) -> set[str]:
    return set(part.model_fields).union(*map(_member_names, part.__subclasses__()))


_LIMIT_UNITS = {
    "string_too_long": "characters",
    "string_too_short": "characters",
    "bytes_too_long": "bytes",
    "bytes_too_short": "bytes",
    "too_long": "entries",
    "too_short": "entries",
    "less_than_equal": "",
    "greater_than_equal": "",
}
