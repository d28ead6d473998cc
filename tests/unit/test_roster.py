"""The chain of trust, link by link: root key, roster, officer, invitation, enrolment (SPEC section 2 and 9)."""

import re
from base64 import b64decode
from collections.abc import Callable
from itertools import combinations
from typing import Any

import pytest
from tests.support.authority import (
    AUTHORITY,
    DAY,
    NOW,
    PRINCIPAL,
    altered,
    enrolment,
    enrolment_body,
    invitation,
    invitation_body,
    next_roster,
    officer,
    roster,
    roster_body,
    sealing_entry,
    sealing_key,
    signed,
    signing_key,
)

from strongroom.crypto.sealing import Suite, kid, transport_kid
from strongroom.crypto.signing import SigningKey
from strongroom.errors import (
    Expired,
    InvitationInvalid,
    KeyUnknown,
    LimitExceeded,
    MalformedStatement,
    OfficerUnknown,
    PermanentError,
    RosterInvalid,
    SignatureInvalid,
    WrongAuthority,
)
from strongroom.limits import (
    APPROVED_REQUEST_LIFE_SECONDS_MAX,
    CLOCK_SKEW_SECONDS,
    INVITATION_LIFE_SECONDS_MAX,
    REQUEST_LIFE_SECONDS_MAX,
)
from strongroom.mandates import (
    Enrolment,
    Invitation,
    LogKey,
    LogKeys,
    Policy,
    ReplyKeys,
    Role,
    RosterBody,
    SealingKeyState,
    TransportKey,
)
from strongroom.messages import Escrow
from strongroom.roster import (
    Roster,
    check_authority,
    check_issued,
    check_life,
    check_unexpired,
    judge_enrolment,
    judge_invitation,
)
from strongroom.statements import Signature, Statement

ROOT = signing_key("root")
ROSTER = roster()


def resigned(statement: Statement, body: bytes) -> Statement:
    """The signatures of a statement over another body."""
    return Statement(statement.type, body, statement.signatures)


def tampered(statement: Statement) -> Statement:
    """The same statement with one bit of its last signature changed."""
    *others, last = statement.signatures
    changed = Signature(last.key_id, bytes([last.value[0] ^ 1]) + last.value[1:])
    return Statement(statement.type, statement.body, (*others, changed))


def sign(body: RosterBody, key: SigningKey = ROOT) -> Statement:
    """A roster statement, by default signed by the root key."""
    return signed(body, key)


# ---- the roster under the root key ----


def test_a_roster_of_the_root_key_is_taken_with_its_digest() -> None:
    """Body, digest and statement are kept together."""
    statement = sign(roster_body())
    verified = Roster.verified(statement, ROOT.public_key)
    assert (verified.body, verified.digest, verified.statement) == (roster_body(), statement.digest, statement)


def test_a_strangers_signature_makes_no_roster() -> None:
    """Only the pinned root key vouches for a roster, whoever else signs it, officers and log keys included."""
    for name in ("stranger", "officer-a", "recovery log", "recovery replies"):
        with pytest.raises(RosterInvalid, match="the pinned root key did not sign it"):
            Roster.verified(sign(roster_body(), signing_key(name)), ROOT.public_key)


def test_a_stranger_beside_the_root_key_does_no_harm() -> None:
    """Further signatures are passed over."""
    statement = signed(roster_body(), signing_key("stranger"), ROOT)
    assert Roster.verified(statement, ROOT.public_key).body == roster_body()


@pytest.mark.parametrize(
    "statement",
    [
        tampered(sign(roster_body())),
        resigned(sign(roster_body()), altered(roster_body(), version=2, previous="0" * 64)),
        Statement(Escrow.TYPE, roster_body().to_bytes(), sign(roster_body()).signatures),
        Statement(
            RosterBody.TYPE,
            roster_body().to_bytes(),
            (Signature(ROOT.key_id, sign(roster_body(), signing_key("stranger")).signatures[0].value),),
        ),
        Statement(
            RosterBody.TYPE,
            roster_body().to_bytes(),
            (Signature(signing_key("stranger").key_id, sign(roster_body()).signatures[0].value),),
        ),
        Statement(RosterBody.TYPE, roster_body().to_bytes(), ()),
    ],
    ids=["signature", "body", "type", "stranger under the root's key id", "root under another key id", "unsigned"],
)
def test_a_tampered_roster_is_refused(statement: Statement) -> None:
    """Body, type, signature and key id: a change of any of them leaves no root signature."""
    with pytest.raises(RosterInvalid, match="the pinned root key did not sign it"):
        Roster.verified(statement, ROOT.public_key)


def test_another_statement_of_the_root_key_is_no_roster() -> None:
    """The type decides, not the shape, even when the root key signed it."""
    statement = Statement.sign(Escrow.TYPE, roster_body().to_bytes(), ROOT)
    with pytest.raises(MalformedStatement, match="payloadType"):
        Roster.verified(statement, ROOT.public_key)


def test_a_malformed_roster_of_the_root_key_is_refused() -> None:
    """The root key's signature does not excuse a body out of shape."""
    statement = Statement.sign(RosterBody.TYPE, altered(roster_body(), version=0), ROOT)
    with pytest.raises(LimitExceeded, match="version"):
        Roster.verified(statement, ROOT.public_key)
    statement = Statement.sign(RosterBody.TYPE, altered(roster_body(), policy=...), ROOT)
    with pytest.raises(MalformedStatement, match="policy"):
        Roster.verified(statement, ROOT.public_key)


OTHER = sealing_key("other")
TRANSPORT = TransportKey(kid=transport_kid(b"spki"), public_key=b"spki", state=SealingKeyState.ACTIVE)
LOGS = roster_body().logs
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "two officers of one name": (
        {"officers": [officer("officer-a"), officer("officer-b").model_copy(update={"name": "officer-a"})]},
        "officers: two have the same name",
    ),
    "two officers of one key": (
        {"officers": [officer("officer-a"), officer("officer-a").model_copy(update={"name": "officer-b"})]},
        "officers: two have the same public key",
    ),
    "a kid of another key": (
        {"sealing_keys": [sealing_entry().model_copy(update={"kid": OTHER.kid})]},
        f"sealing_keys: kid {OTHER.kid} is not the id of its public key",
    ),
    "a kid of another suite": (
        {"sealing_keys": [sealing_entry().model_copy(update={"suite": Suite.P256})]},
        "is not the id of its public key",
    ),
    "a wrong kid in the second place": (
        {"sealing_keys": [sealing_entry(), sealing_entry(OTHER).model_copy(update={"kid": "0" * 32})]},
        f"sealing_keys: kid {'0' * 32} is not the id of its public key",
    ),
    "one sealing key twice": (
        {"sealing_keys": [sealing_entry(), sealing_entry(state=SealingKeyState.CLOSED)]},
        "sealing_keys: two have the same kid",
    ),
    "no active sealing key": (
        {
            "sealing_keys": [
                sealing_entry(state=SealingKeyState.ACCEPTED),
                sealing_entry(OTHER, SealingKeyState.CLOSED),
            ]
        },
        "sealing_keys: none is active",
    ),
    "a kid of another transport key": (
        {"transport_keys": [TRANSPORT, TRANSPORT.model_copy(update={"public_key": b"another"})]},
        f"transport_keys: kid {TRANSPORT.kid} is not the id of its public key",
    ),
    "one transport key twice": (
        {"transport_keys": [TRANSPORT, TRANSPORT.model_copy(update={"state": SealingKeyState.CLOSED})]},
        "transport_keys: two have the same kid",
    ),
    "version 1 with a predecessor": ({"previous": "0" * 64}, "previous: must be null in version 1"),
    "version 2 without a predecessor": ({"version": 2}, "previous: must be null in version 1 and in no other"),
    "origins exchanged": (
        {"logs": LogKeys(escrow=LOGS.recovery, recovery=LOGS.escrow)},
        f"logs: the origins must be {AUTHORITY}/escrow and {AUTHORITY}/recovery",
    ),
    "the origin of another authority": (
        {
            "logs": LogKeys(
                escrow=LogKey(origin="other/escrow", public_key=LOGS.escrow.public_key), recovery=LOGS.recovery
            )
        },
        "logs: the origins",
    ),
    "one key for both logs": (
        {
            "logs": LogKeys(
                escrow=LogKey(origin=LOGS.escrow.origin, public_key=LOGS.recovery.public_key),
                recovery=LOGS.recovery,
            )
        },
        "logs: both have the same public key",
    ),
}


@pytest.mark.parametrize(("members", "says"), BROKEN.values(), ids=BROKEN.keys())
def test_a_roster_that_breaks_a_rule_is_refused(members: dict[str, Any], says: str) -> None:
    """SPEC 2.1, 2.2 and 7.1 hold also for what the root key signed: a slip of the ceremony is found by all."""
    with pytest.raises(RosterInvalid, match=says):
        Roster.verified(sign(roster_body(**members)), ROOT.public_key)


KEY_PLACES = {
    "root": "root",
    "escrow log": "escrow log",
    "recovery log": "recovery log",
    "former escrow log": "former escrow log",
    "former recovery log": "former recovery log",
    "escrow replies": "escrow replies",
    "recovery replies": "recovery replies",
    "officer": "officer-a",
    "another officer": "officer-b",
}


def roster_with_keys(names: dict[str, str]) -> Statement:
    """A roster statement by the root key whose keys are those of these names, by place."""
    keys = {place: signing_key(name).public_key for place, name in names.items()}
    body = roster_body(
        logs=LogKeys(
            escrow=LogKey(
                origin=LOGS.escrow.origin, public_key=keys["escrow log"], former=[keys["former escrow log"]]
            ),
            recovery=LogKey(
                origin=LOGS.recovery.origin, public_key=keys["recovery log"], former=[keys["former recovery log"]]
            ),
        ),
        replies=ReplyKeys(escrow=keys["escrow replies"], recovery=keys["recovery replies"]),
        officers=[
            officer("officer-a").model_copy(update={"public_key": keys["officer"]}),
            officer("officer-b").model_copy(update={"public_key": keys["another officer"]}),
        ],
    )
    return sign(body, signing_key(names["root"]))


@pytest.mark.parametrize(("one", "two"), list(combinations(KEY_PLACES, 2)))
def test_no_key_stands_in_two_places(one: str, two: str) -> None:
    """SPEC 2.2: whichever two places share a key, nobody could tell who of the two has spoken."""
    Roster.verified(roster_with_keys(KEY_PLACES), ROOT.public_key)
    shared = KEY_PLACES | {two: KEY_PLACES[one]}
    with pytest.raises(RosterInvalid, match="same public key"):
        Roster.verified(roster_with_keys(shared), ROOT.public_key)


def test_every_signing_key_of_a_roster_is_among_those_places() -> None:
    """A place for a key that is added to the roster cannot go without its pairs."""
    found = set(re.findall(r'"[a-z_]+":"([A-Za-z0-9+/]{43}=)"', roster_body().to_bytes().decode()))
    named = [name for place, name in KEY_PLACES.items() if place != "root" and not place.startswith("former")]
    expected = {signing_key(name).public_key for name in named}
    assert {b64decode(each) for each in found} == expected | {signing_key("officer-c").public_key}


def test_a_roster_may_have_no_officers_and_several_sealing_keys() -> None:
    """The edges of the lists that rules speak of."""
    keys = [sealing_entry(state=SealingKeyState.CLOSED), sealing_entry(OTHER), sealing_entry(sealing_key("third"))]
    verified = roster(officers=[], sealing_keys=keys, version=2, previous="0" * 64)
    assert verified.body.officers == []


# ---- one roster after another ----


def test_the_same_roster_and_a_newer_one_follow() -> None:
    """The same again, the next, and one further on, whose predecessors were not seen."""
    second = next_roster(ROSTER)
    third = next_roster(second)
    for newer in (ROSTER, second, third):
        newer.check_follows(ROSTER)
    third.check_follows(second)


def test_a_signature_more_is_still_the_same_roster() -> None:
    """Rosters are compared by digest, which no signature changes."""
    again = Roster.verified(ROSTER.statement.countersigned(signing_key("stranger")), ROOT.public_key)
    again.check_follows(ROSTER)


def test_a_rolled_back_roster_is_refused() -> None:
    """SPEC 2.4: a lower version than the newest seen, however valid it once was."""
    second = next_roster(ROSTER)
    with pytest.raises(RosterInvalid, match="version: 1 is older than 2, which was seen before"):
        ROSTER.check_follows(second)
    with pytest.raises(RosterInvalid, match="version: 1 is older than 3"):
        ROSTER.check_follows(next_roster(second))


def test_two_rosters_of_one_version_are_refused() -> None:
    """SPEC 2.4: another roster under the same version, whichever of the two came first."""
    other = roster(officers=[])
    for one, two in ((ROSTER, other), (other, ROSTER)):
        with pytest.raises(RosterInvalid, match="version: two different rosters say 1"):
            one.check_follows(two)


def test_the_next_roster_must_name_its_predecessor() -> None:
    """The chain by digest: version n + 1 follows only the version n that it names."""
    fork = next_roster(roster(officers=[]))
    with pytest.raises(RosterInvalid, match="previous: is not the digest of the roster before it"):
        fork.check_follows(ROSTER)


def test_another_authoritys_roster_does_not_follow() -> None:
    """A root key that serves two authorities by mistake does not mix them."""
    logs = LogKeys(
        escrow=LogKey(origin="other.example.org/escrow", public_key=LOGS.escrow.public_key),
        recovery=LogKey(origin="other.example.org/recovery", public_key=LOGS.recovery.public_key),
    )
    other = next_roster(ROSTER, authority="other.example.org", logs=logs)
    with pytest.raises(RosterInvalid, match="authority: another authority's roster"):
        other.check_follows(ROSTER)


def test_a_roster_expires_the_clock_skew_after_its_time() -> None:
    """Valid up to and including 60 s past its expiry; a second later it is not."""
    expires_at = ROSTER.body.expires_at
    ROSTER.check_current(expires_at + CLOCK_SKEW_SECONDS)
    with pytest.raises(Expired, match=f"roster: version 1 expired at {expires_at}") as caught:
        ROSTER.check_current(expires_at + CLOCK_SKEW_SECONDS + 1)
    assert caught.value.hint is not None


def test_a_roster_from_the_future_is_not_current() -> None:
    """Dated up to 60 s ahead of this clock it is taken; a second more is refused (SPEC section 9)."""
    issued_at = ROSTER.body.issued_at
    ROSTER.check_current(issued_at - CLOCK_SKEW_SECONDS)
    with pytest.raises(Expired, match="issued_at: 61 s in the future"):
        ROSTER.check_current(issued_at - CLOCK_SKEW_SECONDS - 1)


def test_an_expired_roster_is_still_verified() -> None:
    """Expiry is a question of now; who signed what in a roster's time is not."""
    old = roster(issued_at=0, expires_at=1)
    judge_invitation(invitation(), old)
    with pytest.raises(Expired):
        old.check_current(NOW)


# ---- what a roster says ----


def test_agents_seal_to_the_first_active_key() -> None:
    """States before it in the list do not matter, nor does a second active key (SPEC 2.2)."""
    third = sealing_key("third")
    chosen = roster(
        sealing_keys=[
            sealing_entry(sealing_key(), SealingKeyState.CLOSED),
            sealing_entry(OTHER),
            sealing_entry(third),
        ]
    ).active_sealing_key()
    assert chosen.kid == OTHER.kid == kid(chosen.suite, chosen.public_key)


def test_blobs_are_taken_to_active_and_accepted_keys_only() -> None:
    """A closed key and an unknown one are refused, each in its own words."""
    keys = [
        sealing_entry(),
        sealing_entry(OTHER, SealingKeyState.ACCEPTED),
        sealing_entry(sealing_key("third"), SealingKeyState.CLOSED),
    ]
    mixed = roster(sealing_keys=keys)
    for taken in keys[:2]:
        assert mixed.accepted_sealing_key(taken.kid) == taken
    with pytest.raises(KeyUnknown, match="is closed"):
        mixed.accepted_sealing_key(keys[2].kid)
    with pytest.raises(KeyUnknown, match="is not in roster version 1"):
        mixed.accepted_sealing_key("0" * 32)


def test_an_officer_is_found_by_name_and_role() -> None:
    """A stranger and an officer without the role are told apart in words, and refused alike."""
    assert ROSTER.officer("officer-c", Role.AUDIT) == ROSTER.body.officers[2]
    with pytest.raises(OfficerUnknown, match="officer officer-c: has no role 'recover'"):
        ROSTER.officer("officer-c", Role.RECOVER)
    with pytest.raises(OfficerUnknown, match="officer stranger: is not in roster version 1"):
        ROSTER.officer("stranger", Role.AUDIT)


def test_each_officer_counts_once() -> None:
    """Signatures of officers with the role are counted by officer, in the order of signing; no others are."""
    names = ["officer-b", "stranger", "officer-c", "officer-a", "officer-b"]
    statement = signed(invitation_body(), *map(signing_key, names))
    counted = ROSTER.officers_who_signed(statement, Role.INVITE)
    assert [each.name for each in counted] == ["officer-b", "officer-a"]
    assert ROSTER.officers_who_signed(signed(invitation_body()), Role.INVITE) == []


def test_a_wrong_signature_under_an_officers_name_is_noticed() -> None:
    """An officer's key id beside a signature that does not hold is tampering, not a missing signature."""
    good = invitation(officers=("officer-a", "officer-b"))
    with pytest.raises(SignatureInvalid, match="does not hold"):
        ROSTER.officers_who_signed(tampered(good), Role.INVITE)


# ---- time and authority ----


def test_the_edge_of_issued_at() -> None:
    """60 s ahead of the clock is taken, 61 s is not, and the past always is."""
    check_issued(NOW + CLOCK_SKEW_SECONDS, NOW)
    check_issued(0, NOW)
    with pytest.raises(Expired, match="issued_at: 61 s in the future, the limit is 60 s"):
        check_issued(NOW + CLOCK_SKEW_SECONDS + 1, NOW)


def test_the_edge_of_expires_at() -> None:
    """60 s past the expiry is taken, 61 s is not."""
    check_unexpired(NOW - CLOCK_SKEW_SECONDS, NOW)
    check_unexpired(NOW + DAY, NOW)
    with pytest.raises(Expired, match="expires_at: was 61 s ago"):
        check_unexpired(NOW - CLOCK_SKEW_SECONDS - 1, NOW)


@pytest.mark.parametrize(
    "seconds_max", [REQUEST_LIFE_SECONDS_MAX, APPROVED_REQUEST_LIFE_SECONDS_MAX, INVITATION_LIFE_SECONDS_MAX]
)
def test_the_edges_of_a_statements_life(seconds_max: int) -> None:
    """A life of 1 s and of the longest allowed is taken; none, a negative one and one second more are not."""
    check_life(NOW, NOW + 1, seconds_max)
    check_life(NOW, NOW + seconds_max, seconds_max)
    with pytest.raises(
        LimitExceeded, match=f"expires_at: {seconds_max + 1} s after issued_at, the limit is {seconds_max} s"
    ):
        check_life(NOW, NOW + seconds_max + 1, seconds_max)
    for expires_at in (NOW, NOW - 1):
        with pytest.raises(Expired, match="expires_at: is not after issued_at"):
            check_life(NOW, expires_at, seconds_max)


def test_another_authoritys_statement_is_refused() -> None:
    """SPEC 1.6: the id must be the same, not similar."""
    check_authority(AUTHORITY, ROSTER)
    for theirs in ("other.example.org", AUTHORITY + ".", AUTHORITY.upper(), ""):
        with pytest.raises(WrongAuthority, match="authority: is"):
            check_authority(theirs, ROSTER)


# ---- invitation ----


def test_an_officer_with_the_role_invites() -> None:
    """One signature is enough for a first enrolment."""
    body = invitation_body()
    assert judge_invitation(signed(body, signing_key("officer-b")), ROSTER) == body


@pytest.mark.parametrize(
    "officers",
    [(), ("officer-c",), ("stranger",), ("officer-c", "stranger"), ("one-time",), ("root",)],
    ids=["nobody", "an auditor", "a stranger", "an auditor and a stranger", "the one-time key", "the root key"],
)
def test_an_invitation_needs_an_officer_with_the_role(officers: tuple[str, ...]) -> None:
    """No signature, one of an officer without the role, and one of anybody else count for nothing."""
    with pytest.raises(InvitationInvalid, match="signed by 0 officers with role 'invite', policy asks for 1"):
        judge_invitation(invitation(officers=officers), ROSTER)


@pytest.mark.parametrize(
    "officers",
    [(), ("officer-a",), ("officer-a", "officer-a"), ("officer-a", "officer-c"), ("officer-a", "stranger")],
    ids=["nobody", "one", "the same twice", "one without the role", "one stranger"],
)
def test_a_replacement_needs_two_distinct_officers(officers: tuple[str, ...]) -> None:
    """The default policy asks for two; the same officer twice is one."""
    with pytest.raises(InvitationInvalid, match="policy asks for 2"):
        judge_invitation(invitation(officers=officers, replaces=True), ROSTER)


def test_two_officers_replace() -> None:
    """Two distinct officers with the role satisfy the default policy, in either order and with others between."""
    for officers in (("officer-a", "officer-b"), ("officer-b", "stranger", "officer-a")):
        assert judge_invitation(invitation(officers=officers, replaces=True), ROSTER).replaces


@pytest.mark.parametrize("needed", [1, 3, 16])
def test_the_policy_says_how_many_officers_replace(needed: int) -> None:
    """As many signatures as `replacement_signatures` are enough, and one less is not."""
    names = tuple(f"officer-{number}" for number in range(16))
    policy = Policy(replacement_signatures=needed)
    many = roster(officers=[officer(name) for name in names], policy=policy)
    judge_invitation(invitation(officers=names[:needed], replaces=True), many)
    with pytest.raises(InvitationInvalid, match=f"signed by {needed - 1} officers .* asks for {needed}"):
        judge_invitation(invitation(officers=names[: needed - 1], replaces=True), many)


def test_an_invitation_that_replaces_cannot_pass_for_one_that_does_not() -> None:
    """`replaces` is under the signature: one officer's first invitation does not become a replacement."""
    one = invitation()
    body = altered(invitation_body(), replaces=True)
    with pytest.raises(SignatureInvalid, match="does not hold"):
        judge_invitation(resigned(one, body), ROSTER)


@pytest.mark.parametrize(
    "change",
    [
        {"principal": "server-0001"},
        {"principal": None, "prefix": "laptop-"},
        {"principal": None, "prefix": "laptop-", "uses": 50},
        {"one_time_key": "A" * 43 + "="},
        {"expires_at": NOW + 2 * DAY},
    ],
    ids=" and ".join,
)
def test_a_tampered_invitation_is_refused(change: dict[str, Any]) -> None:
    """An officer's signature over another body does not hold."""
    body = invitation_body()
    with pytest.raises(SignatureInvalid, match="does not hold"):
        judge_invitation(resigned(signed(body, signing_key("officer-a")), altered(body, **change)), ROSTER)


def test_one_officer_invites_many() -> None:
    """One with the role is enough for a prefix too, for none of its names is taken by it (SPEC 2.5)."""
    body = invitation_body(prefix="laptop-", uses=50)
    assert judge_invitation(signed(body, signing_key("officer-b")), ROSTER) == body
    with pytest.raises(InvitationInvalid, match="signed by 0 officers with role 'invite', policy asks for 1"):
        judge_invitation(signed(body, signing_key("officer-c")), ROSTER)


@pytest.mark.parametrize("change", [{"uses": 51}, {"prefix": "l"}, {"prefix": "server-"}], ids=str)
def test_a_tampered_invitation_of_many_is_refused(change: dict[str, Any]) -> None:
    """How many and whom it enrols is under the officer's signature."""
    body = invitation_body(prefix="laptop-", uses=50)
    with pytest.raises(SignatureInvalid, match="does not hold"):
        judge_invitation(resigned(signed(body, signing_key("officer-a")), altered(body, **change)), ROSTER)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"principal": None}, "principal, prefix: exactly one must be given"),
        ({"prefix": "laptop-"}, "principal, prefix: exactly one must be given"),
        ({"uses": 2}, "uses: must be 1"),
        ({"principal": None, "prefix": "laptop-", "replaces": True}, "replaces: must be false"),
    ],
    ids=["nobody", "one and many", "one principal twice", "many replaced"],
)
def test_an_officer_does_not_excuse_an_invitation_out_of_shape(changes: dict[str, Any], says: str) -> None:
    """The rules of SPEC 2.5 hold whoever has signed: here as many officers as any policy asks."""
    signers = [signing_key("officer-a"), signing_key("officer-b")]
    statement = Statement.sign(Invitation.TYPE, altered(invitation_body(), **changes), *signers)
    with pytest.raises(MalformedStatement, match=says):
        judge_invitation(statement, ROSTER)


def test_a_wrong_second_signature_spoils_a_replacement() -> None:
    """A tampered signature of the second officer is noticed, not passed over."""
    with pytest.raises(SignatureInvalid, match="does not hold"):
        judge_invitation(tampered(invitation(officers=("officer-a", "officer-b"), replaces=True)), ROSTER)


def test_an_invitation_lives_30_days_at_most() -> None:
    """The edge and one second beyond."""
    judge_invitation(invitation(expires_at=NOW + INVITATION_LIFE_SECONDS_MAX), ROSTER)
    with pytest.raises(LimitExceeded, match="expires_at: 2592001 s after issued_at, the limit is 2592000 s"):
        judge_invitation(invitation(expires_at=NOW + INVITATION_LIFE_SECONDS_MAX + 1), ROSTER)
    with pytest.raises(Expired, match="expires_at: is not after issued_at"):
        judge_invitation(invitation(expires_at=NOW), ROSTER)


def test_an_invitation_of_another_authority_is_refused() -> None:
    """The same officers may serve two authorities; their invitations do not."""
    with pytest.raises(WrongAuthority):
        judge_invitation(invitation(authority="other.example.org"), ROSTER)


def test_another_statement_of_an_officer_is_no_invitation() -> None:
    """The signed type decides."""
    statement = Statement.sign(Enrolment.TYPE, invitation_body().to_bytes(), signing_key("officer-a"))
    with pytest.raises(MalformedStatement, match="payloadType"):
        judge_invitation(statement, ROSTER)


# ---- enrolment ----

NEW = signing_key(PRINCIPAL)
ONE_TIME = signing_key("one-time")


def test_an_enrolment_on_an_invitation_is_taken() -> None:
    """Enrolment, invitation, statement and the new key's id are handed on together, also for a replacement."""
    for invited in (invitation(), invitation(officers=("officer-a", "officer-b"), replaces=True)):
        statement = enrolment(invited)
        judged = judge_enrolment(statement, ROSTER)
        assert judged.enrolment.signing_key == NEW.public_key
        assert judged.invitation.principal == judged.enrolment.principal == PRINCIPAL
        assert judged.statement is statement
        assert judged.key_id == NEW.key_id


@pytest.mark.parametrize(
    ("signers", "missing"),
    [
        ((), NEW),
        ((NEW,), ONE_TIME),
        ((ONE_TIME,), NEW),
        ((NEW, NEW), ONE_TIME),
        ((signing_key("stranger"), ONE_TIME), NEW),
        ((NEW, signing_key("stranger")), ONE_TIME),
        ((NEW, signing_key("officer-a")), ONE_TIME),
        ((signing_key("officer-a"), signing_key("root")), NEW),
    ],
    ids=[
        "nobody",
        "new key",
        "one-time key",
        "new twice",
        "stranger for new",
        "stranger",
        "officer",
        "both others",
    ],
)
def test_an_enrolment_needs_both_signatures(signers: tuple[SigningKey, ...], missing: SigningKey) -> None:
    """The new signing key and the invitation's one-time key sign; nobody else's signature stands in for either."""
    with pytest.raises(SignatureInvalid, match=f"none by key {missing.key_id}"):
        judge_enrolment(signed(enrolment_body(invitation()), *signers), ROSTER)


@pytest.mark.parametrize("signers", [(NEW, ONE_TIME), (ONE_TIME, NEW)], ids=["one-time key's", "new key's"])
def test_a_tampered_signature_of_an_enrolment_is_refused(signers: tuple[SigningKey, ...]) -> None:
    """Each of the two signatures is verified, not only looked for."""
    with pytest.raises(SignatureInvalid, match="does not hold"):
        judge_enrolment(tampered(signed(enrolment_body(invitation()), *signers)), ROSTER)


def test_a_tampered_enrolment_is_refused() -> None:
    """Another key cannot be put into a signed enrolment."""
    body = enrolment_body(invitation())
    thief = signing_key("thief")
    statement = resigned(signed(body, NEW, ONE_TIME), altered(body, id="01890a5d-ac96-774b-bcce-b302099a8057"))
    with pytest.raises(SignatureInvalid, match="does not hold"):
        judge_enrolment(statement, ROSTER)
    stolen = signed(enrolment_body(invitation(), key="thief"), thief, NEW)
    with pytest.raises(SignatureInvalid, match=f"none by key {ONE_TIME.key_id}"):
        judge_enrolment(stolen, ROSTER)


def test_the_one_time_key_does_not_become_the_signing_key() -> None:
    """Whoever saw the invitation file could sign for the principal for ever; so it is refused."""
    statement = signed(enrolment_body(invitation(), key="one-time"), ONE_TIME)
    with pytest.raises(MalformedStatement, match="signing_key: must not be the invitation's one-time key"):
        judge_enrolment(statement, ROSTER)


def test_an_invitation_enrols_its_own_principal_only() -> None:
    """The names in invitation and enrolment must agree."""
    with pytest.raises(
        InvitationInvalid, match="principal: the invitation is for laptop-0417, not for server-0001"
    ):
        judge_enrolment(enrolment(invitation(), "server-0001"), ROSTER)


@pytest.mark.parametrize("principal", ["laptop-", "laptop-0417", "laptop-" + "0" * 57])
def test_an_invitation_of_many_enrols_the_principals_that_its_prefix_covers(principal: str) -> None:
    """The prefix alone, a longer name, and the longest that there is."""
    judged = judge_enrolment(enrolment(invitation(prefix="laptop-", uses=50), principal), ROSTER)
    assert judged.enrolment.principal == principal
    assert (judged.invitation.principal, judged.invitation.prefix) == (None, "laptop-")


@pytest.mark.parametrize("principal", ["laptop", "server-0001", "my-laptop-0417"])
def test_an_invitation_of_many_enrols_no_others(principal: str) -> None:
    """A name that is shorter, another, or holds the prefix further on is refused."""
    with pytest.raises(InvitationInvalid, match=f"for 50 new principals laptop-…, not for {principal}"):
        judge_enrolment(enrolment(invitation(prefix="laptop-", uses=50), principal), ROSTER)


def test_an_enrolment_for_another_authority_is_refused() -> None:
    """In the enrolment itself, and in the invitation inside it."""
    with pytest.raises(WrongAuthority):
        judge_enrolment(enrolment(invitation(), authority="other.example.org"), ROSTER)
    with pytest.raises(WrongAuthority):
        judge_enrolment(enrolment(invitation(authority="other.example.org")), ROSTER)


REFUSED_INVITATIONS: dict[str, tuple[Callable[[], Statement], type[PermanentError]]] = {
    "no officer": (lambda: invitation(officers=()), SignatureInvalid),
    "officer without the role": (lambda: invitation(officers=("officer-c",)), InvitationInvalid),
    "stranger": (lambda: invitation(officers=("stranger",)), InvitationInvalid),
    "one for a replacement": (lambda: invitation(replaces=True), InvitationInvalid),
    "tampered": (lambda: tampered(invitation()), SignatureInvalid),
    "too long a life": (lambda: invitation(expires_at=NOW + 31 * DAY), LimitExceeded),
    "of another type": (lambda: signed(enrolment_body(invitation()), signing_key("officer-a")), MalformedStatement),
}


@pytest.mark.parametrize(("invited", "error"), REFUSED_INVITATIONS.values(), ids=REFUSED_INVITATIONS.keys())
def test_an_enrolment_is_no_better_than_its_invitation(
    invited: Callable[[], Statement], error: type[PermanentError]
) -> None:
    """Whatever is wrong with the invitation inside is wrong with the enrolment."""
    with pytest.raises(error):
        judge_enrolment(enrolment(invited()), ROSTER)


@pytest.mark.parametrize("inside", [b"", b"{}", b"null", b"\xff"], ids=repr)
def test_an_enrolment_holds_a_whole_invitation(inside: bytes) -> None:
    """Bytes that are no envelope where the invitation stands are malformed."""
    statement = signed(enrolment_body(invitation()).model_copy(update={"invitation": inside}), NEW, ONE_TIME)
    with pytest.raises(MalformedStatement, match="envelope"):
        judge_enrolment(statement, ROSTER)


def test_another_statement_is_no_enrolment() -> None:
    """The signed type decides."""
    statement = Statement.sign(Invitation.TYPE, enrolment_body(invitation()).to_bytes(), NEW, ONE_TIME)
    with pytest.raises(MalformedStatement, match="payloadType"):
        judge_enrolment(statement, ROSTER)


@pytest.mark.parametrize("needed", [1, 2, 3, 16])
def test_a_policy_that_its_officers_cannot_meet_is_refused(needed: int) -> None:
    """Two of three officers may invite: no replacement could ever be signed by more than two."""
    policy = Policy(replacement_signatures=needed)
    body = roster_body(policy=policy)
    if needed <= 2:
        assert Roster.verified(signed(body, ROOT), ROOT.public_key).body.policy == policy
        return
    with pytest.raises(RosterInvalid, match=f"replacement_signatures is {needed}.* 2 officers with role 'invite'"):
        Roster.verified(signed(body, ROOT), ROOT.public_key)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.INVITE])
def test_only_officers_who_invite_count_towards_replacements(role: Role) -> None:
    """One with the role and one with another role do not meet a policy that asks for two."""
    body = roster_body(officers=[officer("officer-a", Role.INVITE), officer("officer-b", role)])
    with pytest.raises(RosterInvalid, match="there are 1 officers with role 'invite'"):
        Roster.verified(signed(body, ROOT), ROOT.public_key)


@pytest.mark.parametrize("role", list(Role))
def test_a_signature_counts_for_the_roles_of_its_officer_alone(role: Role) -> None:
    """Whoever may do everything else is not counted where this one role is asked for."""
    others = [each for each in Role if each is not role]
    many = roster(
        officers=[officer("officer-a", role), officer("officer-b", *others), officer("officer-d")],
    )
    statement = signed(invitation_body(), *map(signing_key, ("officer-a", "officer-b", "officer-d")))
    assert [each.name for each in many.officers_who_signed(statement, role)] == ["officer-a", "officer-d"]


def test_a_roster_without_officers_has_nobody_to_fall_short() -> None:
    """The default policy stands in a roster that names no officer: nobody is invited by it at all."""
    assert roster(officers=[]).body.policy == Policy()


def test_an_invitation_is_judged_by_the_roster_it_is_given() -> None:
    """An officer who was removed, or lost the role, invites nobody by the new roster and did by the old."""
    statement = enrolment(invitation())
    judge_enrolment(statement, ROSTER)
    others = [officer("officer-b"), officer("officer-d")]
    for officers in (others, [officer("officer-a", Role.AUDIT), *others]):
        with pytest.raises(InvitationInvalid, match="signed by 0 officers"):
            judge_enrolment(statement, next_roster(ROSTER, officers=officers))
