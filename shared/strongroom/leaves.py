"""The leaves of the two logs (SPEC 7.2): who was told what, by id and digest only. Pure."""

from typing import Annotated, Literal

from pydantic import Field

from strongroom import limits
from strongroom.errors import LimitExceeded
from strongroom.fields import CapacityText, Digest, Id, KeyId, Part, Principal, Time, validated
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
    code: Annotated[str, Field(pattern=r"^[a-z_]{1,64}$")]


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
    | RefusalLeaf,
    Field(discriminator="type"),
]


class _AnyLeaf(Part):
    leaf: Leaf


def parse_leaf(data: bytes) -> Leaf:
    """Read one log leaf; raises MalformedStatement or LimitExceeded."""
    if len(data) > limits.LEAF_BYTES_MAX:
        raise LimitExceeded(f"leaf: {len(data)} bytes, the limit is {limits.LEAF_BYTES_MAX} bytes")
    return validated({"leaf": parse_json(data, what="leaf")}, _AnyLeaf).leaf
