"""The leaves of the two logs (SPEC 7.2): who was told what, by id and digest only. Pure."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from strongroom import limits
from strongroom.errors import LimitExceeded
from strongroom.fields import (
    CapacityText,
    Code,
    Digest,
    Id,
    KeyId,
    LeafIndex,
    Part,
    Principal,
    Time,
    validated,
)
from strongroom.statements import canonical_json, parse_json


class _Leaf(Part):
    time: Time

    def to_bytes(self) -> bytes:
        """Write the leaf as it is hashed: sorted members, no white space, UTF-8."""
        return canonical_json(self.model_dump(mode="json"))


class EscrowLeaf(_Leaf):
    """Escrow log: a statement was stored; `key` is the key id of its signer."""

    type: Literal["escrow"] = "escrow"
    id: Id
    digest: Digest
    principal: Principal
    key: KeyId


class RosterLeaf(_Leaf):
    """Recovery log: from here on this roster is in force."""

    type: Literal["roster"] = "roster"
    version: Annotated[int, Field(ge=1, le=limits.INTEGER_MAX)]
    digest: Digest


class EnrolmentLeaf(_Leaf):
    """Recovery log: from here on this key speaks for the principal, and no earlier one does."""

    type: Literal["enrolment"] = "enrolment"
    id: Id
    digest: Digest
    principal: Principal
    key: KeyId
    invitation: Id


class RequestLeaf(_Leaf):
    """Recovery log: somebody known asked for keys of `principal`."""

    type: Literal["request"] = "request"
    id: Id
    digest: Digest
    requester: Principal
    requester_kind: CapacityText
    key: KeyId
    principal: Principal


class ApprovalLeaf(_Leaf):
    """Recovery log: an officer agreed to a request; `key` is the key id of its signer."""

    type: Literal["approval"] = "approval"
    id: Id
    digest: Digest
    officer: Principal
    key: KeyId
    request: Id


class DenialLeaf(_Leaf):
    """Recovery log: from here on the request is denied for good."""

    type: Literal["denial"] = "denial"
    id: Id
    digest: Digest
    denier: Principal
    denier_kind: CapacityText
    key: KeyId
    request: Id


class RevocationLeaf(_Leaf):
    """Recovery log: from here on nobody speaks for the principal, or, with a key id, nobody by that key."""

    type: Literal["revocation"] = "revocation"
    id: Id
    digest: Digest
    officer: Principal
    principal: Principal
    key: KeyId | None


class InvitationLeaf(_Leaf):
    """Recovery log: these officers have signed, so far, an invitation that replaces the key of `principal`."""

    type: Literal["invitation"] = "invitation"
    id: Id
    digest: Digest
    principal: Principal
    officers: Annotated[list[Principal], Field(min_length=1, max_length=limits.SIGNATURES_MAX)]


class ReleaseLeaf(_Leaf):
    """Recovery log: a request was answered with keys; written before the answer leaves.

    release: digest of the release statement. approvals: digests of the approvals that counted.
    """

    type: Literal["release"] = "release"
    id: Id
    digest: Digest
    release: Digest
    approvals: Annotated[list[Digest], Field(max_length=limits.OFFICERS_MAX)]
    records: Annotated[list[Id], Field(min_length=1, max_length=limits.RECORDS_MAX)]


class RefusalLeaf(_Leaf):
    """Recovery log: somebody known asked for keys and was refused."""

    type: Literal["refusal"] = "refusal"
    id: Id
    digest: Digest
    requester: Principal
    requester_kind: CapacityText
    code: Code


class Unprovable(Part):
    """A record that could not be given back when it was looked at.

    index: of the escrow log's leaf that names its statement. record: null for all records of that statement, when
    their ids are not known any more. code: of the error (SPEC section 12).
    """

    index: LeafIndex
    record: Id | None
    code: Code


_Count = Annotated[int, Field(ge=1, le=limits.INTEGER_MAX)]


class ProofLeaf(_Leaf):
    """Recovery log: the prover opened every key blob of the escrow leaves from `first` on, `count` of them.

    size, root: the tree of the escrow log under which they were verified. records: how many opened and matched.
    unprovable: the others. kids: how many opened with which sealing key; null where that was not noted, and missing
    in leaves from before it was thought of.
    """

    type: Literal["proof"] = "proof"
    first: LeafIndex
    count: Annotated[int, Field(ge=1, le=limits.INTEGER_MAX)]
    size: Annotated[int, Field(ge=1, le=limits.INTEGER_MAX)]
    root: Digest
    records: Annotated[int, Field(ge=0, le=limits.INTEGER_MAX)]
    unprovable: Annotated[list[Unprovable], Field(max_length=limits.UNPROVABLE_MAX)]
    kids: Annotated[dict[KeyId, _Count], Field(max_length=limits.SEALING_KEYS_MAX)] | None = None

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.kids is not None and sum(self.kids.values()) != self.records:
            raise ValueError("kids: the sum is not that of `records`")
        end = self.first + self.count
        if end > self.size:
            raise ValueError("first, count: go beyond the tree of `size` leaves")
        if any(not self.first <= each.index < end for each in self.unprovable):
            raise ValueError("unprovable: names a leaf that is not among those looked at")
        return self


class AttestationLeaf(_Leaf):
    """Recovery log: the owner compared its live keys with what it escrowed; `key` is the key id of its signer.

    matching, stale: ids of records whose key is still the live one, and of those whose key is not.
    """

    type: Literal["attestation"] = "attestation"
    id: Id
    digest: Digest
    principal: Principal
    key: KeyId
    matching: Annotated[list[Id], Field(max_length=limits.RECORDS_MAX)]
    stale: Annotated[list[Id], Field(max_length=limits.RECORDS_MAX)]


class ResealLeaf(_Leaf):
    """Recovery log: key blobs of the escrow leaves from `first` on, `count` of them, were sealed again to `kid`.

    size, root: the tree of the escrow log under which their statements were verified. records: how many were sealed
    again. left: how many were not: they do not open, or were sealed to that key before; a statement that does not
    verify counts as one. digest: over all that were sealed again (SPEC 7.7).
    """

    type: Literal["reseal"] = "reseal"
    first: LeafIndex
    count: Annotated[int, Field(ge=1, le=limits.INTEGER_MAX)]
    size: Annotated[int, Field(ge=1, le=limits.INTEGER_MAX)]
    root: Digest
    kid: KeyId
    records: Annotated[int, Field(ge=0, le=limits.INTEGER_MAX)]
    left: Annotated[int, Field(ge=0, le=limits.INTEGER_MAX)]
    digest: Digest

    @model_validator(mode="after")
    def _within(self) -> Self:
        if self.first + self.count > self.size:
            raise ValueError("first, count: go beyond the tree of `size` leaves")
        return self


class RetirementLeaf(_Leaf):
    """Recovery log: no record of the escrow log's tree of `size` leaves needs the sealing key `kid` any more.

    given_up: how many findings were given up with it, all that the leaves before call unprovable; missing in leaves
    from before that could be done.
    """

    type: Literal["retirement"] = "retirement"
    kid: KeyId
    size: LeafIndex
    root: Digest
    given_up: Annotated[int, Field(ge=0, le=limits.INTEGER_MAX)] = 0


Leaf = Annotated[
    EscrowLeaf
    | RosterLeaf
    | InvitationLeaf
    | EnrolmentLeaf
    | RevocationLeaf
    | RequestLeaf
    | ApprovalLeaf
    | DenialLeaf
    | ReleaseLeaf
    | RefusalLeaf
    | ProofLeaf
    | AttestationLeaf
    | ResealLeaf
    | RetirementLeaf,
    Field(discriminator="type"),
]


class _AnyLeaf(Part):
    leaf: Leaf


# An escrow leaf as it is always written: whoever goes through a whole escrow log reads nothing else.
_ESCROW_LEAF: Final = re.compile(
    rb'\{"digest":"([0-9a-f]{64})",'
    rb'"id":"([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})",'
    rb'"key":"([0-9a-f]{32})","principal":"([a-z0-9-]{3,64})",'
    rb'"time":(0|[1-9][0-9]{0,14}),"type":"escrow"\}'
)


def parse_leaf(data: bytes) -> Leaf:
    """Read one log leaf; raises MalformedStatement or LimitExceeded."""
    if (plain := _ESCROW_LEAF.fullmatch(data)) is not None:
        digest, id_, key, principal, time = map(bytes.decode, plain.groups())
        return EscrowLeaf.model_construct(digest=digest, id=id_, key=key, principal=principal, time=int(time))
    if len(data) > limits.LEAF_BYTES_MAX:
        raise LimitExceeded(f"leaf: {len(data)} bytes, the limit is {limits.LEAF_BYTES_MAX} bytes")
    return validated({"leaf": parse_json(data, what="leaf")}, _AnyLeaf).leaf
