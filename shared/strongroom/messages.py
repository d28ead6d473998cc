"""The statements about keys: escrow, requests and their answers (SPEC sections 4, 5 and 6). Pure."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from strongroom import limits
from strongroom.fields import (
    Algorithm,
    Authority,
    Body,
    Bytes,
    Capacity,
    CapacityText,
    Code,
    Description,
    Digest,
    Id,
    KeyId,
    Kind,
    Labels,
    LeafIndex,
    Name,
    Part,
    Principal,
    Reason,
    SerialNumber,
    SuiteText,
    Time,
    media_type,
    plain_text,
)

RosterVersion = Annotated[int, Field(ge=1, le=limits.INTEGER_MAX)]


class WrappedFormat(StrEnum):
    """What another program wrapped a key in, to a transport key of the authority (SPEC 4.6)."""

    CRYPTOAPI_SIMPLE = "cryptoapi-simple"
    CMS = "cms"
    VOLUME_KEY = "volume-key"


class Wrapping(Part):
    """Says that the key material is itself wrapped, by another program, to a transport key (SPEC 4.6).

    padding: of the RSA encryption, which no ciphertext tells. kid: of the transport key. digest: SHA-256 of the
    encrypted key inside, by which a copy is known.
    """

    format: Annotated[WrappedFormat, Field(strict=False)]
    padding: Literal["pkcs1", "oaep"]
    kid: KeyId
    digest: Digest


class RecordDescription(Part):
    """What is said about an escrowed key, apart from the blob (SPEC 4.1).

    wrapping: null for key material that is the key itself; may be missing, which means null.
    """

    id: Id
    name: Name
    kind: Kind
    description: Description
    serial_number: SerialNumber
    algorithm: Algorithm
    fingerprint: Digest
    labels: Labels
    wrapping: Wrapping | None = None


_Superseded = Annotated[list[Id], Field(max_length=limits.SUPERSEDES_MAX)]


class Record(RecordDescription):
    """One escrowed key with its key blob; `supersedes` names older records whose place it takes (SPEC 4.5)."""

    kid: KeyId
    suite: SuiteText
    blob: Bytes
    supersedes: _Superseded = Field(
        default_factory=list
    )  # may be missing: statements were signed before it was thought of


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
        if any(record.id in record.supersedes for record in self.records):
            raise ValueError("records: one supersedes itself")
        return self


class Asking(Body):
    """Somebody asks for something, within a time."""

    id: Id
    issued_at: Time
    expires_at: Time
    requester: Principal
    requester_kind: CapacityText


class Destination(Part):
    """Where keys are moved to: a principal of another authority, whose sealing key is the recipient (SPEC 5.18)."""

    authority: Authority
    principal: Principal


class Request(Asking):
    """Somebody asks for keys, to be re-sealed to a one-time key (SPEC 5.1).

    unwrap: whether what other programs wrapped is to be opened (SPEC 5.17). destination: null for keys that the
    requester itself is to have. Both may be missing, which means no.
    """

    TYPE: ClassVar[str] = media_type("request")

    principal: Principal
    records: Annotated[list[Id], Field(min_length=1, max_length=limits.RECORDS_MAX)] | None
    name: Name | None
    reason: Reason
    recipient_suite: SuiteText
    recipient_key: Bytes
    unwrap: bool = False
    destination: Destination | None = None

    @model_validator(mode="after")
    def _one_selection(self) -> Self:
        if (self.records is None) == (self.name is None):
            raise ValueError("records, name: exactly one must be given")
        if self.records is not None and len(set(self.records)) != len(self.records):
            raise ValueError("records: an id is repeated")
        if self.requester_kind is Capacity.OFFICER and not self.reason.strip():
            raise ValueError("reason: an officer must give one")
        return self

    @model_validator(mode="after")
    def _one_destination(self) -> Self:
        if self.destination is None:
            return self
        if self.requester_kind is not Capacity.OFFICER:
            raise ValueError("destination: only officers move keys to another authority")
        if self.destination.authority == self.authority:
            raise ValueError("destination: is this authority")
        if self.records is None or self.unwrap:
            raise ValueError("destination: goes with records, and without unwrap")
        return self


class ListingRequest(Asking):
    """Somebody asks which records a principal has (SPEC 5.4)."""

    TYPE: ClassVar[str] = media_type("listing-request")

    principal: Principal
    after: Id | None


class DocketRequest(Asking):
    """Somebody asks which requests there are (SPEC 5.8).

    principal: for whose records; null for everybody's. request: this one alone, or null. pending: those that wait
    for approvals, or all. after: the last id of the page before.
    """

    TYPE: ClassVar[str] = media_type("docket-request")

    principal: Principal | None
    request: Id | None
    pending: bool
    after: Id | None


class ReleasedRecord(RecordDescription):
    """A record whose key is handed out: `blob` is sealed to the requester's one-time key.

    unwrapped: what was inside the other program's wrapping, sealed to the same key, where the request asked for it.
    moved_fingerprint: where the request names a destination, the fingerprint in that place, which `blob` is sealed
    for. Both null otherwise; either may be missing, which means null.
    """

    principal: Principal
    issued_at: Time
    blob: Bytes
    unwrapped: Bytes | None = None
    moved_fingerprint: Digest | None = None


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
    roster_version: RosterVersion
    released_at: Time
    records: Annotated[list[ReleasedRecord], Field(min_length=1, max_length=limits.RECORDS_MAX)]
    history: list[HistoryEntry]


class Disclosure(Part):
    """Who was given a key, when and why; of several the newest."""

    request: Id
    requester: Principal
    requester_kind: CapacityText
    released_at: Time
    reason: Reason | None


class PendingRequest(Part):
    """A request for somebody's keys that waits for approvals; `not_before` is the earliest time of a release."""

    request: Id
    digest: Digest
    requester: Principal
    requester_kind: CapacityText
    asked_at: Time
    not_before: Time
    reason: Reason | None


class Attestation(Body):
    """An owner says which of its records hold the key that is in use, and which one that is not (SPEC 5.12)."""

    TYPE: ClassVar[str] = media_type("attestation")

    id: Id
    issued_at: Time
    principal: Principal
    records: Annotated[list["AttestedRecord"], Field(min_length=1, max_length=limits.ATTESTED_RECORDS_MAX)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len({record.id for record in self.records}) != len(self.records):
            raise ValueError("records: two have the same id")
        return self


class AttestedRecord(Part):
    """One record that was compared with the live key, by the fingerprint that was signed for it."""

    id: Id
    fingerprint: Digest
    matches: bool


class RecordState(StrEnum):
    """What has become of a record so far (SPEC 5.13)."""

    STORED = "stored"
    PROVEN = "proven"
    UNPROVABLE = "unprovable"
    STALE = "stale"
    DISCLOSED = "disclosed"
    REPLACED = "replaced"


class ListedRecord(RecordDescription):
    """A record in a listing; times in seconds, `statement` is the escrow statement that brought it.

    log_index: of its leaf in the escrow log. proof: index of the newest proof leaf that covers it, null while none
    does; it is among the listing's `proofs`. proven_at: the time of that leaf if it proves the record. code: why it
    is unprovable. attested_at: when its owner last found it matching or stale. replace_by: until when a disclosed
    key is to be replaced.
    """

    supersedes: _Superseded
    issued_at: Time
    stored_at: Time
    statement: Id
    log_index: LeafIndex
    state: Annotated[RecordState, Field(strict=False)]
    proof: LeafIndex | None
    proven_at: Time | None
    code: Code | None
    attested_at: Time | None
    disclosure: Disclosure | None
    replace_by: Time | None


class UnreadableRecord(Part):
    """A record that the database's index names, and whose statement is not what was accepted; `code` says why."""

    id: Id
    code: Code


class ListedProof(Part):
    """A leaf of the recovery log and its path (32-byte hashes) to the root of the reply's checkpoint."""

    index: LeafIndex
    leaf: Bytes
    hashes: list[Bytes]


class Listing(Body):
    """The records of a principal, a page at a time, and on the first page who waits for its keys (SPEC 5.4).

    unreadable: records of this page that are unprovable, and of which nothing else can be said. proofs: the proof
    leaves that the records' states rest on.
    """

    TYPE: ClassVar[str] = media_type("listing")

    request: Id
    request_digest: Digest
    principal: Principal
    roster_version: RosterVersion
    records: Annotated[list[ListedRecord], Field(max_length=limits.LISTING_RECORDS_MAX)]
    unreadable: Annotated[list[UnreadableRecord], Field(max_length=limits.LISTING_RECORDS_MAX)]
    proofs: Annotated[list[ListedProof], Field(max_length=limits.LISTING_RECORDS_MAX)]
    pending: Annotated[list[PendingRequest], Field(max_length=limits.LISTING_PENDING_MAX)]
    next: Id | None


class RequestState(StrEnum):
    """What has become of a request."""

    PENDING = "pending"
    EXPIRED = "expired"
    RELEASED = "released"
    REFUSED = "refused"
    DENIED = "denied"


class DocketEntry(Part):
    """A request on the docket, with what proves it to its reader.

    request: its envelope, null when the database no longer has it. enrolment: the envelope of the requester's
    enrolment, and `roster` that of the roster which was in force then, when it is not the one in force now; both
    null for an officer. approvals: envelopes of those that count, or counted when it was decided. denial: envelope
    of the one that decided. needed: how many policy asks for.
    decided_at: of the release, refusal or denial.
    """

    id: Id
    digest: Digest
    asked_at: Time
    log_index: Annotated[int, Field(ge=0, le=limits.INTEGER_MAX)]
    request: Bytes | None
    enrolment: Bytes | None
    roster: Bytes | None
    approvals: Annotated[list[Bytes], Field(max_length=limits.SIGNATURES_MAX)]
    denial: Bytes | None
    needed: Annotated[int, Field(ge=0, le=limits.SIGNATURES_MAX)]
    not_before: Time
    state: Annotated[RequestState, Field(strict=False)]
    code: Code | None
    decided_at: Time | None


class Docket(Body):
    """The requests that there are, newest first, a page at a time (SPEC 5.8).

    invitations: envelopes of replacing invitations that wait for countersignatures, on an officer's first page.
    """

    TYPE: ClassVar[str] = media_type("docket")

    request: Id
    request_digest: Digest
    roster_version: RosterVersion
    entries: Annotated[list[DocketEntry], Field(max_length=limits.DOCKET_ENTRIES_MAX)]
    invitations: Annotated[list[Bytes], Field(max_length=limits.DOCKET_INVITATIONS_MAX)]
    next: Id | None


class Rejection(Body):
    """A worker says, signed, why it did not do what it was asked (SPEC 6.2).

    digest: SHA-256 of the message as it was received, signatures and all. retry_at: when it may be tried again.
    """

    TYPE: ClassVar[str] = media_type("rejection")

    request: Id | None
    digest: Digest
    roster_version: RosterVersion
    code: Code
    message: Annotated[str, Field(max_length=limits.REJECTION_CHARACTERS_MAX), AfterValidator(plain_text)]
    rejected_at: Time
    retry_at: Time | None
