"""Log leaves: the members that SPEC 7.2 gives each type, their one spelling, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from strongroom.errors import LimitExceeded, MalformedStatement, PermanentError
from strongroom.fields import Capacity, Part, new_id
from strongroom.leaves import (
    ApprovalLeaf,
    AttestationLeaf,
    DenialLeaf,
    EnrolmentLeaf,
    EscrowLeaf,
    InvitationLeaf,
    Leaf,
    ProofLeaf,
    RefusalLeaf,
    ReleaseLeaf,
    RequestLeaf,
    ResealLeaf,
    RetirementLeaf,
    RevocationLeaf,
    RosterLeaf,
    Unprovable,
    parse_leaf,
)
from strongroom.limits import INTEGER_MAX, LEAF_BYTES_MAX, OFFICERS_MAX, RECORDS_MAX, SIGNATURES_MAX

DIGEST = "5e" * 32
SPEC = (Path(__file__).parents[2] / "SPEC.md").read_text(encoding="utf-8")
ESCROW = EscrowLeaf(time=1, id=new_id(), digest=DIGEST, principal="laptop-0417", key="0" * 32)
ROSTER = RosterLeaf(time=1, version=1, digest=DIGEST)
ENROLMENT = EnrolmentLeaf(
    time=1, id=new_id(), digest=DIGEST, principal="laptop-0417", key="0" * 32, invitation=new_id()
)
REQUEST = RequestLeaf(
    time=1,
    id=new_id(),
    digest=DIGEST,
    requester="officer-a",
    requester_kind=Capacity.OFFICER,
    key="0" * 32,
    principal="laptop-0417",
)
APPROVAL = ApprovalLeaf(time=1, id=new_id(), digest=DIGEST, officer="officer-b", key="0" * 32, request=new_id())
DENIAL = DenialLeaf(
    time=1,
    id=new_id(),
    digest=DIGEST,
    denier="officer-b",
    denier_kind=Capacity.OFFICER,
    key="0" * 32,
    request=new_id(),
)
REVOCATION = RevocationLeaf(
    time=1, id=new_id(), digest=DIGEST, officer="officer-a", principal="laptop-0417", key="0" * 32
)
INVITATION = InvitationLeaf(
    time=1, id=new_id(), digest=DIGEST, principal="laptop-0417", officers=["officer-a", "officer-b"]
)
RELEASE = ReleaseLeaf(
    time=1, id=new_id(), digest=DIGEST, release=DIGEST, approvals=[DIGEST, "6f" * 32], records=[new_id()]
)
REFUSAL = RefusalLeaf(
    time=1, id=new_id(), digest=DIGEST, requester="officer-a", requester_kind=Capacity.OFFICER, code="denied"
)
PROOF = ProofLeaf(
    time=1,
    first=7,
    count=2,
    size=9,
    root=DIGEST,
    records=1,
    unprovable=[Unprovable(index=8, record=new_id(), code="blob_invalid")],
    kids={"0" * 32: 1},
)
RESEAL = ResealLeaf(
    time=1, first=7, count=2, size=9, root=DIGEST, kid="0" * 32, records=1, left=1, digest="6f" * 32
)
RETIREMENT = RetirementLeaf(time=1, kid="0" * 32, size=9, root=DIGEST)
ATTESTATION = AttestationLeaf(
    time=1,
    id=new_id(),
    digest=DIGEST,
    principal="laptop-0417",
    key="0" * 32,
    matching=[new_id()],
    stale=[new_id()],
)
LEAVES: list[Leaf] = [
    ESCROW,
    ROSTER,
    INVITATION,
    ENROLMENT,
    REVOCATION,
    REQUEST,
    APPROVAL,
    DENIAL,
    RELEASE,
    REFUSAL,
    PROOF,
    ATTESTATION,
    RESEAL,
    RETIREMENT,
]
MEMBERS = {
    "escrow": {"id", "digest", "principal", "key"},
    "roster": {"version", "digest"},
    "enrolment": {"id", "digest", "principal", "key", "invitation"},
    "invitation": {"id", "digest", "principal", "officers"},
    "revocation": {"id", "digest", "officer", "principal", "key"},
    "request": {"id", "digest", "requester", "requester_kind", "key", "principal"},
    "approval": {"id", "digest", "officer", "key", "request"},
    "denial": {"id", "digest", "denier", "denier_kind", "key", "request"},
    "release": {"id", "digest", "release", "approvals", "records"},
    "refusal": {"id", "digest", "requester", "requester_kind", "code"},
    "proof": {"first", "count", "size", "root", "records", "kids", "unprovable"},
    "reseal": {"first", "count", "size", "root", "kid", "records", "left", "digest"},
    "retirement": {"kid", "size", "root", "given_up"},
    "attestation": {"id", "digest", "principal", "key", "matching", "stale"},
}


def of_type(leaf: Part) -> str:
    """Name a parameter set by the type of its leaf."""
    return type(leaf).__name__


def test_the_types_of_leaves_and_their_members_are_those_of_the_specification() -> None:
    """The table of SPEC 7.2 and the models name the same types with the same members."""
    rows = re.findall(r"^\| (?:escrow|recovery) \| `([a-z]+)` \| (.*) \|$", SPEC, re.MULTILINE)
    specified = {type_: set(re.findall(r"`([a-z_]+)`", members)) for type_, members in rows}
    assert specified == MEMBERS
    assert {leaf.type for leaf in LEAVES} == MEMBERS.keys()


@pytest.mark.parametrize("leaf", LEAVES, ids=of_type)
def test_a_leaf_is_read_as_it_was_written(leaf: EscrowLeaf) -> None:
    """The hashed bytes are sorted JSON without white space, with the members of SPEC 7.2, and read back equal."""
    data = leaf.to_bytes()
    document = json.loads(data)
    assert parse_leaf(data) == leaf
    assert type(parse_leaf(data)) is type(leaf)
    assert document.keys() == MEMBERS[leaf.type] | {"type", "time"}
    assert data == json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("leaf", LEAVES, ids=of_type)
def test_a_leaf_lacks_nothing_and_has_nothing_more(leaf: EscrowLeaf) -> None:
    """A missing, an unknown and a repeated member are refused, and so is a member of the wrong type."""
    document: dict[str, Any] = json.loads(leaf.to_bytes())
    for member in document.keys() - {"kids", "given_up"}:
        without = {name: value for name, value in document.items() if name != member}
        with pytest.raises(MalformedStatement, match=r"^leaf"):
            parse_leaf(json.dumps(without).encode())
        if (leaf.type, member) != ("revocation", "key"):
            with pytest.raises(PermanentError, match=r"^leaf"):
                parse_leaf(json.dumps(document | {member: None}).encode())
    with pytest.raises(MalformedStatement, match="an unknown member"):
        parse_leaf(json.dumps(document | {"description": "secret"}).encode())
    with pytest.raises(MalformedStatement, match="repeated"):
        parse_leaf(leaf.to_bytes()[:-1] + b',"time":1}')


def test_a_proof_leaf_from_before_kids_were_noted_is_read() -> None:
    """It says nothing of which key opened what, be the member missing or null."""
    document = json.loads(PROOF.to_bytes())
    for older in ({k: v for k, v in document.items() if k != "kids"}, document | {"kids": None}):
        read = parse_leaf(json.dumps(older).encode())
        assert isinstance(read, ProofLeaf)
        assert read.kids is None


def test_a_retirement_leaf_from_before_anything_could_be_given_up_is_read() -> None:
    """Nothing was; a number that is none is refused."""
    document = json.loads(RETIREMENT.to_bytes())
    older = parse_leaf(json.dumps({k: v for k, v in document.items() if k != "given_up"}).encode())
    assert older == RETIREMENT
    wrong: list[Any] = [None, -1, 1.0, "1", True, [], INTEGER_MAX + 1]
    for bad in wrong:
        with pytest.raises(PermanentError, match=r"^leaf"):
            parse_leaf(json.dumps(document | {"given_up": bad}).encode())


def test_the_kids_of_a_proof_leaf_account_for_every_record() -> None:
    """A leaf that leaves a record out, or counts one twice, is refused: a key might be retired by it."""
    for kids in ({}, {"0" * 32: 2}, {"0" * 32: 1, "1" * 32: 1}):
        with pytest.raises(MalformedStatement, match="the sum is not that of"):
            parse_leaf(json.dumps(json.loads(PROOF.to_bytes()) | {"kids": kids}).encode())


def test_a_reseal_leaf_stays_within_its_tree() -> None:
    """A range that ends beyond the tree under which it was verified is refused."""
    with pytest.raises(MalformedStatement, match="go beyond the tree"):
        parse_leaf(json.dumps(json.loads(RESEAL.to_bytes()) | {"count": 3}).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"escrow"',
        b"{}",
        b'{"type":null}',
        b'{"type":1}',
        b'{"type":["escrow"]}',
        b"\xff",
    ],
    ids=repr,
)
def test_bytes_that_are_no_leaf_are_refused(data: bytes) -> None:
    """Whatever is no object with a known type is malformed."""
    with pytest.raises(MalformedStatement, match=r"^leaf"):
        parse_leaf(data)


def test_an_unknown_type_is_refused_without_repeating_it() -> None:
    """A leaf of a type that this program does not know is malformed; its name stays out of the message."""
    with pytest.raises(MalformedStatement, match="leaf: of an unknown type") as caught:
        parse_leaf(b'{"type":"hunter2-canary"}')
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("leaf", "change"),
    [
        (ROSTER, {"version": 0}),
        (ROSTER, {"version": INTEGER_MAX + 1}),
        (ROSTER, {"version": 1.0}),
        (ROSTER, {"digest": "5E" * 32}),
        (ESCROW, {"time": -1}),
        (ESCROW, {"id": new_id().upper()}),
        (ESCROW, {"key": "0" * 31}),
        (ENROLMENT, {"principal": "a b"}),
        (ENROLMENT, {"invitation": ""}),
        (REQUEST, {"requester_kind": "root"}),
        (REQUEST, {"key": ""}),
        (APPROVAL, {"key": "0" * 31}),
        (APPROVAL, {"officer": "a b"}),
        (APPROVAL, {"request": ""}),
        (DENIAL, {"denier_kind": "root"}),
        (DENIAL, {"request": ""}),
        (REVOCATION, {"key": ""}),
        (REVOCATION, {"key": "0" * 31}),
        (REVOCATION, {"principal": "a b"}),
        (INVITATION, {"officers": []}),
        (INVITATION, {"officers": ["officer-a"] * (SIGNATURES_MAX + 1)}),
        (INVITATION, {"officers": ["a b"]}),
        (RELEASE, {"approvals": [DIGEST] * (OFFICERS_MAX + 1)}),
        (RELEASE, {"approvals": ["5E" * 32]}),
        (RELEASE, {"records": []}),
        (RELEASE, {"records": [new_id()] * (RECORDS_MAX + 1)}),
        (REFUSAL, {"code": "Denied"}),
        (REFUSAL, {"type": "request"}),
    ],
    ids=repr,
)
def test_values_out_of_format_are_refused(leaf: Part, change: dict[str, Any]) -> None:
    """Leaves keep the formats of the statements that they speak of."""
    with pytest.raises(PermanentError):
        parse_leaf(json.dumps(leaf.model_dump(mode="json") | change).encode())


def test_a_revocation_leaf_names_one_key_or_none() -> None:
    """`key` null is the whole principal, and is written out as null (SPEC 7.2)."""
    whole = REVOCATION.model_copy(update={"key": None})
    assert parse_leaf(whole.to_bytes()) == whole
    assert b'"key":null' in whole.to_bytes()


def test_a_release_without_approvals_says_so() -> None:
    """Where policy asks for none the list is there, and empty."""
    alone = RELEASE.model_copy(update={"approvals": []})
    assert parse_leaf(alone.to_bytes()) == alone
    assert b'"approvals":[]' in alone.to_bytes()


def test_a_leaf_has_at_most_65535_bytes() -> None:
    """The edge of SPEC 7.2 and one beyond; the longest leaf that is ever written stays far below."""
    data = ESCROW.to_bytes()
    assert parse_leaf(data.ljust(LEAF_BYTES_MAX)) == ESCROW
    with pytest.raises(LimitExceeded, match="leaf: 65536 bytes, the limit is 65535 bytes"):
        parse_leaf(data.ljust(LEAF_BYTES_MAX + 1))
    longest = RELEASE.model_copy(
        update={"approvals": [DIGEST] * OFFICERS_MAX, "records": [new_id() for _ in range(RECORDS_MAX)]}
    )
    assert len(longest.to_bytes()) < LEAF_BYTES_MAX / 2
    assert parse_leaf(longest.to_bytes()) == longest
