"""Statements of who may do what: limits, formats and rules of rosters, invitations, approvals … (SPEC 2, 5)."""

import json
import re
from base64 import b64encode
from typing import Any

import pytest
from tests.support import authority as make
from tests.support.bodies import BODIES, Limit, Place, copies_of, parse, text_of

from strongroom import limits
from strongroom.errors import LimitExceeded, MalformedStatement
from strongroom.mandates import Enrolment, Invitation, Policy, Revocation, RosterBody
from strongroom.statements import canonical_json


def policy(member: str, smallest: int, largest: int) -> Limit:
    """A limit of the roster's policy."""
    return Limit(Place("roster", ("policy", member)), int, smallest, largest, "")


def name_of(length: int) -> str:
    """A principal's name of so many characters."""
    return "p" * length


LIMITS = [
    Limit(
        Place("roster", ("sealing_keys",)),
        copies_of("roster", "sealing_keys"),
        1,
        limits.SEALING_KEYS_MAX,
        "entries",
    ),
    Limit(Place("roster", ("officers",)), copies_of("roster", "officers"), 0, limits.OFFICERS_MAX, "entries"),
    Limit(Place("roster", ("officers", 0, "name")), name_of, 3, 64, "characters"),
    Limit(Place("roster", ("version",)), int, 1, limits.INTEGER_MAX, ""),
    policy("replacement_signatures", 1, limits.SIGNATURES_MAX),
    policy("self_recovery_approvals", 0, limits.SIGNATURES_MAX),
    policy("officer_recovery_approvals", 1, limits.SIGNATURES_MAX),
    policy("officer_recovery_delay_hours", 0, limits.RECOVERY_DELAY_HOURS_MAX),
    policy("requests_per_hour", 1, limits.RATE_MAX),
    policy("released_records_per_day", 1, limits.RATE_MAX),
    policy("prove_days", 1, limits.POLICY_DAYS_MAX),
    policy("attest_days", 1, limits.POLICY_DAYS_MAX),
    policy("replace_days", 1, limits.POLICY_DAYS_MAX),
    Limit(
        Place("roster", ("policy", "expected")),
        copies_of("roster", "policy", "expected"),
        0,
        limits.EXPECTATIONS_MAX,
        "entries",
    ),
    Limit(
        Place("roster", ("policy", "expected", 0, "names")),
        lambda count: ["disk"] * count,
        1,
        limits.EXPECTED_NAMES_MAX,
        "entries",
    ),
    Limit(Place("invitation", ("principal",)), name_of, 3, 64, "characters"),
    Limit(Place("invitation of many", ("prefix",)), name_of, 1, 63, "characters"),
    Limit(Place("invitation of many", ("uses",)), int, 1, limits.INVITATION_USES_MAX, ""),
    Limit(Place("enrolment", ("principal",)), name_of, 3, 64, "characters"),
    Limit(Place("revocation", ("reason",)), text_of, 0, limits.REASON_CHARACTERS_MAX, "characters"),
    Limit(Place("approval", ("officer",)), name_of, 3, 64, "characters"),
    Limit(Place("approval", ("reason",)), text_of, 0, limits.REASON_CHARACTERS_MAX, "characters"),
    Limit(Place("denial", ("denier",)), name_of, 3, 64, "characters"),
    Limit(Place("denial", ("reason",)), text_of, 0, limits.REASON_CHARACTERS_MAX, "characters"),
]


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_the_edges_of_a_limit_are_accepted(limit: Limit) -> None:
    """The smallest and the largest size are taken."""
    limit.assert_accepts(limit.smallest)
    limit.assert_accepts(limit.largest)


@pytest.mark.parametrize("limit", [each for each in LIMITS if each.largest < limits.INTEGER_MAX], ids=str)
def test_one_beyond_a_limit_is_refused_naming_field_and_limit(limit: Limit) -> None:
    """One more than the largest size is refused as `limit_exceeded`, and the message says where and what holds."""
    limit.assert_refuses(limit.largest + 1)


@pytest.mark.parametrize("limit", [each for each in LIMITS if each.smallest > 0], ids=str)
def test_one_below_a_limit_is_refused_naming_field_and_limit(limit: Limit) -> None:
    """One less than the smallest size is refused in the same way."""
    limit.assert_refuses(limit.smallest - 1)


def test_every_number_of_a_policy_has_its_limit_here() -> None:
    """A number added to the policy cannot go without its two edges."""
    limited = {each.place.path[1] for each in LIMITS if each.place.path[0] == "policy"}
    assert limited == Policy.model_fields.keys()


# ---- formats ----

BAD_KEYS = [b64encode(bytes(length)).decode() for length in (0, 31, 33)]
BAD_NAMES = ["Laptop", "lap_top", "lap.top", "läptop", "laptop\n", "lap\0top", "a*b", "a#b"]
BAD_DIGESTS = ["", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n"]
BAD_IDS = ["", "01890a5d-ac96-474b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8057\n"]
BAD_FORMATS: dict[Place, list[Any]] = {
    Place("enrolment", ("signing_key",)): BAD_KEYS,
    Place("invitation", ("one_time_key",)): BAD_KEYS,
    Place("invitation", ("principal",)): BAD_NAMES,
    Place("invitation of many", ("prefix",)): BAD_NAMES,
    Place("invitation", ("replaces",)): [0, 1, "true", None],
    Place("roster", ("officers", 0, "public_key")): BAD_KEYS,
    Place("roster", ("logs", "recovery", "public_key")): BAD_KEYS,
    Place("roster", ("replies", "escrow")): BAD_KEYS,
    Place("roster", ("sealing_keys", 0, "state")): ["", "ACTIVE", "retired"],
    Place("roster", ("officers", 0, "roles")): [["root"], ["invite\n"], [1], "invite"],
    Place("roster", ("previous",)): ["", "0" * 63, "A" * 64],
    Place("roster", ("logs", "escrow", "origin")): ["Backup/escrow", "a b", "abc\n", "a+b"],
    Place("revocation of a key", ("key",)): ["", "0" * 31, "0" * 33, "A" * 32, "0" * 32 + "\n"],
    Place("approval", ("request",)): BAD_IDS,
    Place("approval", ("request_digest",)): BAD_DIGESTS,
    Place("denial", ("request",)): BAD_IDS,
    Place("denial", ("request_digest",)): BAD_DIGESTS,
    Place("denial", ("denier_kind",)): ["", "root", "OFFICER", "officer\n"],
}


@pytest.mark.parametrize("place", BAD_FORMATS, ids=str)
def test_a_value_out_of_format_is_malformed(place: Place) -> None:
    """Names, ids, digests, keys, states, roles and kinds have one spelling; the message names the field."""
    for value in BAD_FORMATS[place]:
        with pytest.raises(MalformedStatement, match=rf"^{re.escape('.'.join(map(str, place.path)))}\b"):
            parse(place.kind, place.changed(value))


def test_roles_are_those_of_the_specification() -> None:
    """SPEC 2.2: an officer may have each of five roles, all of them or none."""
    place = Place("roster", ("officers", 0, "roles"))
    roles = ["invite", "recover", "approve", "revoke", "audit"]
    for held in (*([each] for each in roles), roles, []):
        assert json.loads(parse("roster", place.changed(held)).to_bytes())["officers"][0]["roles"] == held
    with pytest.raises(LimitExceeded, match="roles"):
        parse("roster", place.changed([*roles, "audit"]))


# ---- policy ----

LATER = {"prove_days", "attest_days", "replace_days", "expected"}


def test_a_policy_has_defaults_when_it_is_written_and_none_when_it_is_read() -> None:
    """SPEC 2.3 gives a writer defaults; a reader wants every number signed (SPEC 1.5), or defaults could drift."""
    assert Policy().model_dump() == {
        "replacement_signatures": 2,
        "self_recovery_approvals": 0,
        "officer_recovery_approvals": 2,
        "officer_recovery_delay_hours": 0,
        "requests_per_hour": 100,
        "released_records_per_day": 1000,
        "prove_days": 30,
        "attest_days": 7,
        "replace_days": 14,
        "expected": [],
    }
    place = Place("roster", ("policy",))
    for left_out in Policy.model_fields.keys() - LATER:
        with pytest.raises(MalformedStatement, match="policy: a member is missing"):
            parse("roster", place.changed({n: v for n, v in place.value().items() if n != left_out}))


def test_what_was_added_to_the_policy_may_be_missing_and_has_its_fixed_meaning() -> None:
    """SPEC 2.3: rosters that were signed before go on to be valid, with the values that the specification fixes."""
    place = Place("roster", ("policy",))
    read = parse("roster", place.changed({n: v for n, v in place.value().items() if n not in LATER}))
    assert isinstance(read, RosterBody)
    assert {name: getattr(read.policy, name) for name in LATER} == {
        "prove_days": 30,
        "attest_days": 7,
        "replace_days": 14,
        "expected": [],
    }


def test_a_policy_is_written_out_whole() -> None:
    """A roster body carries every number of its policy, also those that are a writer's defaults."""
    body = make.roster_body(policy=Policy(officer_recovery_delay_hours=24))
    written = json.loads(body.to_bytes())["policy"]
    assert written == Policy().model_dump() | {"officer_recovery_delay_hours": 24}


# ---- invitations ----


def invited(**changes: Any) -> bytes:
    """The body bytes of an invitation with other JSON values."""
    return make.altered(BODIES["invitation"], **changes)


@pytest.mark.parametrize(
    ("principal", "prefix"), [(None, None), ("laptop-0417", "laptop-")], ids=["neither", "both"]
)
def test_an_invitation_is_for_one_principal_or_for_a_prefix(principal: str | None, prefix: str | None) -> None:
    """Exactly one of `principal` and `prefix` is given (SPEC 2.5)."""
    with pytest.raises(MalformedStatement, match="principal, prefix: exactly one must be given"):
        parse("invitation", invited(principal=principal, prefix=prefix))


@pytest.mark.parametrize("uses", [2, limits.INVITATION_USES_MAX])
def test_an_invitation_of_one_principal_is_used_once(uses: int) -> None:
    """SPEC 2.5: more than one use goes with a prefix only."""
    with pytest.raises(MalformedStatement, match="uses: must be 1 for an invitation of one principal"):
        parse("invitation", invited(uses=uses))


@pytest.mark.parametrize("uses", [1, 2])
def test_an_invitation_of_many_never_replaces(uses: int) -> None:
    """SPEC 2.5: whoever held it could otherwise take over every host whose name begins so."""
    with pytest.raises(MalformedStatement, match="replaces: must be false for an invitation of many"):
        parse("invitation of many", invited(principal=None, prefix="laptop-", uses=uses, replaces=True))


def test_an_invitation_of_one_principal_may_replace() -> None:
    """The rule against replacing is for prefixes alone."""
    read = parse("invitation", invited(replaces=True))
    assert isinstance(read, Invitation)
    assert read.replaces


def test_a_prefix_covers_the_names_that_begin_with_it() -> None:
    """The prefix itself and whatever follows it; not what merely holds it, nor a shorter name."""
    many = make.invitation_body(prefix="laptop-04", uses=50)
    assert all(map(many.covers, ("laptop-04", "laptop-0417", "laptop-04-spare")))
    assert not any(
        map(many.covers, ("laptop-0", "laptop-1417", "my-laptop-0417", "server-0001", "", "LAPTOP-0417"))
    )


def test_an_invitation_of_one_principal_covers_that_name_alone() -> None:
    """It is no prefix of longer names, and no name that is its own prefix gets in."""
    one = make.invitation_body("laptop-0417")
    assert one.covers("laptop-0417")
    assert not any(map(one.covers, ("laptop-04170", "laptop-041", "", "server-0001")))


def test_an_invitation_says_in_words_whom_it_is_for() -> None:
    """The name of one principal, or how many of which prefix."""
    assert make.invitation_body("laptop-0417").whom == "laptop-0417"
    assert make.invitation_body(prefix="laptop-", uses=50).whom == "50 new principals laptop-…"


# ---- revocations ----


def test_a_revocation_is_of_a_principal_or_of_one_key() -> None:
    """`key` is a key id, or null for the principal with all its keys; it is never left out (SPEC 2.9)."""
    whole, one_key = BODIES["revocation"], BODIES["revocation of a key"]
    assert isinstance(whole, Revocation)
    assert isinstance(one_key, Revocation)
    assert (whole.key, one_key.key) == (None, "0" * 32)
    with pytest.raises(MalformedStatement, match="key: Field required"):
        parse("revocation", make.altered(whole, key=...))


# ---- all of them ----


def test_a_mandate_without_its_authority_is_refused() -> None:
    """SPEC 1.6: every mandate says for which authority it was signed."""
    for kind in ("roster", "invitation", "enrolment", "revocation", "approval", "denial"):
        document = json.loads(BODIES[kind].to_bytes())
        del document["authority"]
        with pytest.raises(MalformedStatement, match="authority: Field required"):
            parse(kind, canonical_json(document))


def test_an_enrolment_carries_the_invitation_verbatim() -> None:
    """The bytes of the invitation's envelope come out as they were put in: its officers' signatures cover them."""
    envelope = make.invitation().envelope()
    body = make.enrolment_body(make.invitation()).model_copy(update={"invitation": envelope})
    read = parse("enrolment", body.to_bytes())
    assert isinstance(read, Enrolment)
    assert read.invitation == envelope
