import hashlib
from typing import Any

import pytest
from tests.support import authority as make
from tests.support import requests as ask

from strongroom.crypto.sealing import Suite
from strongroom.errors import (
    ApprovalRequired,
    Denied,
    Expired,
    InvitationInvalid,
    LimitExceeded,
    MalformedStatement,
    NotFound,
    OfficerUnknown,
    PermanentError,
    PrincipalRevoked,
    PrincipalUnknown,
    SignatureInvalid,
    WrongAuthority,
)
from strongroom.leaves import EnrolmentLeaf, RefusalLeaf, ReleaseLeaf, RequestLeaf, parse_leaf
from strongroom.limits import (
    APPROVED_REQUEST_LIFE_SECONDS_MAX,
    CLOCK_SKEW_SECONDS,
    REASON_CHARACTERS_MAX,
    REQUEST_LIFE_SECONDS_MAX,
)
from strongroom.messages import Enrolment, Invitation, Policy, RequesterKind, Role, new_id, parse_body
from strongroom.registry import Registry
from strongroom.statements import Statement, parse_envelope
from strongroom_recovery.handler import (
    Submission,
    Unreadable,
    check_enrolment,
    check_listing,
    check_request,
    enrolment_leaf,
    read,
    refusal_again,
    refusal_leaf,
    release_leaf,
    request_leaf,
    verify_requester,
)

OTHER = "laptop-0418"
OFFICER: dict[str, Any] = {"requester": "officer-a", "requester_kind": RequesterKind.OFFICER}


# ---- reading ----


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        (make.enrolment(make.invitation()), "enrolment"),
        (ask.request(), "request"),
        (ask.listing_request(), "listing-request"),
    ],
)
def test_each_of_the_three_kinds_is_read(statement: Statement, kind: str) -> None:
    """A well-formed message gives its statement, its digest and its kind."""
    submission = read(statement.envelope())
    assert isinstance(submission, Submission)
    assert (submission.kind, submission.digest, submission.id) == (kind, statement.digest, submission.asked.id)


def test_bytes_that_are_no_envelope_are_named_by_their_own_digest() -> None:
    """Garbage has no id; its digest is that of the message body."""
    unreadable = read(b"\xff\xfenot json")
    assert isinstance(unreadable, Unreadable)
    assert isinstance(unreadable.refusal, MalformedStatement)
    assert (unreadable.id, unreadable.digest) == (None, hashlib.sha256(b"\xff\xfenot json").digest())


@pytest.mark.parametrize("statement", [make.escrow(), make.invitation(), make.roster().statement])
def test_a_statement_of_another_type_is_unreadable_here(statement: Statement) -> None:
    """What belongs elsewhere is refused by its type, and named by its statement digest."""
    unreadable = read(statement.envelope())
    assert isinstance(unreadable, Unreadable)
    assert unreadable.refusal.message.startswith("payloadType")
    assert unreadable.digest == statement.digest


def unreadable(**changes: Any) -> PermanentError:
    body = make.altered(ask.request_body(), **changes)
    submission = read(Statement.sign(ask.request().type, body, make.signing_key(make.PRINCIPAL)).envelope())
    assert isinstance(submission, Unreadable)
    return submission.refusal


def test_a_selection_by_both_or_by_neither_is_malformed() -> None:
    """A request names records or a name, and exactly one of the two."""
    assert isinstance(unreadable(name=None), MalformedStatement)
    assert isinstance(unreadable(records=[new_id()]), MalformedStatement)


def test_a_reason_over_the_limit_names_field_and_limit() -> None:
    """The longest reason is read; one more character is refused in words that say what the limit is."""
    assert isinstance(read(ask.request(reason="x" * REASON_CHARACTERS_MAX).envelope()), Submission)
    refusal = unreadable(reason="x" * (REASON_CHARACTERS_MAX + 1))
    assert isinstance(refusal, LimitExceeded)
    assert "reason" in refusal.message
    assert str(REASON_CHARACTERS_MAX) in refusal.message


def test_more_records_than_the_limit_are_refused() -> None:
    """A request for 256 records is read, one for 257 is not."""
    assert isinstance(read(ask.request(records=[new_id() for _ in range(256)]).envelope()), Submission)
    assert isinstance(unreadable(name=None, records=[new_id() for _ in range(257)]), LimitExceeded)


def test_an_unknown_member_is_malformed_whatever_its_name_holds() -> None:
    """A member name out of control characters is refused like any other unknown member."""
    assert isinstance(unreadable(**{"\x07": 1}), MalformedStatement)


# ---- enrolment ----


def enrolled(statement: Statement, registry: Registry | None = None, *, now: int = make.NOW) -> str:
    return check_enrolment(statement, registry or make.registry(), now).key_id


def test_an_enrolment_on_a_fresh_invitation_is_accepted_with_its_key_id() -> None:
    """The chain from the root holds, nobody is enrolled, and the invitation is new."""
    assert enrolled(make.enrolment(make.invitation())) == make.signing_key(make.PRINCIPAL).key_id


def test_an_invitation_is_used_once() -> None:
    """A second key on the same invitation is refused, also when that invitation replaces keys."""
    invited = make.invitation(officers=("officer-a", "officer-b"), replaces=True)
    registry = make.registry()
    first = make.enrolment(invited)
    check_enrolment(first, registry, make.NOW)
    registry.apply(make.enrolment_leaf(first))
    with pytest.raises(InvitationInvalid, match="used before"):
        enrolled(make.enrolment(invited, key="another key"), registry)


def test_a_principal_that_is_enrolled_is_not_enrolled_again_without_replacement() -> None:
    """A fresh plain invitation does not take an enrolled principal's name over."""
    with pytest.raises(InvitationInvalid, match="is enrolled"):
        enrolled(make.enrolment(make.invitation(), key="another key"), make.registry(make.PRINCIPAL))


def test_a_replacement_invitation_by_enough_officers_replaces_the_key() -> None:
    """With as many officers as policy asks for, an enrolled principal gets a new key."""
    invited = make.invitation(officers=("officer-a", "officer-b"), replaces=True)
    statement = make.enrolment(invited, key="another key")
    assert enrolled(statement, make.registry(make.PRINCIPAL)) == make.signing_key("another key").key_id


def test_a_replacement_invitation_short_of_officers_is_refused() -> None:
    """One officer alone does not replace a principal's key."""
    with pytest.raises(InvitationInvalid, match="signed by 1 officers"):
        enrolled(make.enrolment(make.invitation(replaces=True)), make.registry(make.PRINCIPAL))


def test_an_invitation_ends_at_its_expiry_and_not_before() -> None:
    """Until the clock skew after its expiry an invitation is good, a second later it is expired."""
    invited = make.invitation()
    last = parse_body(invited, Invitation).expires_at + CLOCK_SKEW_SECONDS
    enrolled(make.enrolment(invited), now=last)
    with pytest.raises(Expired, match="expires_at"):
        enrolled(make.enrolment(invited), now=last + 1)


def test_an_enrolment_or_invitation_from_the_future_is_refused() -> None:
    """Either may be dated up to the clock skew ahead, and no further."""
    ahead = make.NOW + CLOCK_SKEW_SECONDS
    enrolled(make.enrolment(make.invitation(), issued_at=ahead))
    enrolled(make.enrolment(make.invitation(issued_at=ahead)))
    with pytest.raises(Expired, match="issued_at"):
        enrolled(make.enrolment(make.invitation(), issued_at=ahead + 1))
    with pytest.raises(Expired, match="issued_at"):
        enrolled(make.enrolment(make.invitation(issued_at=ahead + 1)))


def test_an_enrolment_without_the_one_time_key_is_refused() -> None:
    """Who only saw the invitation, without its one-time key, cannot use it."""
    body = make.enrolment_body(make.invitation())
    with pytest.raises(SignatureInvalid):
        enrolled(make.signed(body, make.signing_key(make.PRINCIPAL)))


def test_an_invitation_by_a_stranger_is_refused() -> None:
    """Nobody outside the roster invites."""
    with pytest.raises(InvitationInvalid):
        enrolled(make.enrolment(make.invitation(officers=("a stranger",))))


# ---- who asks ----


def verified(statement: Statement, registry: Registry | None = None) -> None:
    submission = read(statement.envelope())
    assert isinstance(submission, Submission)
    assert not isinstance(submission.asked, Enrolment)
    verify_requester(statement, submission.asked, registry or make.registry(make.PRINCIPAL))


@pytest.mark.parametrize("build", [ask.request, ask.listing_request])
def test_a_principal_and_an_officer_are_verified_by_their_keys(build: Any) -> None:
    """Both capacities hold under the right key, for both kinds of asking."""
    verified(build())
    verified(build(**OFFICER))


@pytest.mark.parametrize("build", [ask.request, ask.listing_request])
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"key": "a stranger"}, SignatureInvalid),
        ({"requester": OTHER, "key": make.PRINCIPAL}, PrincipalUnknown),
        ({"authority": "other.example.org"}, WrongAuthority),
        ({"requester": "officer-z", "requester_kind": RequesterKind.OFFICER}, OfficerUnknown),
        ({**OFFICER, "key": "officer-b"}, SignatureInvalid),
        ({**OFFICER, "key": make.PRINCIPAL}, SignatureInvalid),
        ({"requester": "officer-a"}, PrincipalUnknown),
        ({"requester_kind": RequesterKind.OFFICER}, OfficerUnknown),
    ],
)
def test_nobody_asks_in_anothers_name(build: Any, changes: dict[str, Any], error: type[PermanentError]) -> None:
    """A stranger, another authority's member, a name without an enrolment, and each capacity by the other's key."""
    with pytest.raises(error):
        verified(build(**changes))


def test_a_replaced_key_asks_no_more() -> None:
    """After a replacement the former key's request is refused and the new key's is not."""
    registry = make.registry(make.PRINCIPAL)
    invited = make.invitation(officers=("officer-a", "officer-b"), replaces=True)
    replacement = make.enrolment(invited, key="the new key")
    registry.apply(make.enrolment_leaf(replacement))
    registry.admit_enrolment(make.PRINCIPAL, replacement)
    with pytest.raises(PrincipalRevoked):
        verified(ask.request(), registry)
    verified(ask.request(key="the new key"), registry)


def test_a_body_altered_after_signing_is_refused() -> None:
    """The signature covers every byte of the body."""
    signed = ask.request()
    other = make.altered(ask.request_body(), reason="another reason")
    with pytest.raises(SignatureInvalid):
        verified(Statement(signed.type, other, signed.signatures))


def test_a_body_under_another_type_is_refused() -> None:
    """The signature covers the type: a listing request's signature does not make a request."""
    body = ask.request_body().to_bytes()
    other = Statement.sign(ask.listing_request().type, body, make.signing_key(make.PRINCIPAL))
    with pytest.raises(SignatureInvalid):
        verified(Statement(ask.request().type, body, other.signatures))


# ---- what they may ----


def test_a_principal_may_ask_for_its_own_records() -> None:
    """Self-recovery needs no approval by default."""
    check_request(ask.request_body(), make.roster(), make.NOW)


def test_a_principal_may_not_ask_for_anothers_records() -> None:
    """Somebody else's records are denied, whatever the policy."""
    with pytest.raises(Denied, match=OTHER):
        check_request(ask.request_body(principal=OTHER, requester=make.PRINCIPAL), make.roster(), make.NOW)


@pytest.mark.parametrize("principal", [make.PRINCIPAL, "officer-a"])
def test_an_officer_needs_approvals_also_for_a_namesake(principal: str) -> None:
    """An officer's request waits for approvals, even where a principal has the officer's name."""
    with pytest.raises(ApprovalRequired, match="2"):
        check_request(ask.request_body(principal, **OFFICER), make.roster(), make.NOW)


def test_an_officer_without_the_role_may_not_ask() -> None:
    """The role `recover` is needed before approvals are even counted."""
    body = ask.request_body(requester="officer-c", requester_kind=RequesterKind.OFFICER)
    with pytest.raises(OfficerUnknown, match="recover"):
        check_request(body, make.roster(), make.NOW)


def test_self_recovery_fails_closed_where_policy_asks_for_approvals() -> None:
    """With one approval asked for and none to be had, the principal's own request is not answered."""
    roster = make.roster(policy=Policy(self_recovery_approvals=1))
    with pytest.raises(ApprovalRequired, match="1"):
        check_request(ask.request_body(), roster, make.NOW)


def test_a_request_lives_as_long_as_policy_lets_it() -> None:
    """300 seconds without approvals and 7 days with them; a second more is refused, and so is no life at all."""
    approving = make.roster(policy=Policy(self_recovery_approvals=1))

    def check(seconds: int, *, approvals: bool) -> None:
        body = ask.request_body(expires_at=make.NOW + seconds)
        check_request(body, approving if approvals else make.roster(), make.NOW)

    check(REQUEST_LIFE_SECONDS_MAX, approvals=False)
    with pytest.raises(LimitExceeded, match="300"):
        check(REQUEST_LIFE_SECONDS_MAX + 1, approvals=False)
    with pytest.raises(ApprovalRequired):
        check(APPROVED_REQUEST_LIFE_SECONDS_MAX, approvals=True)
    with pytest.raises(LimitExceeded, match="604800"):
        check(APPROVED_REQUEST_LIFE_SECONDS_MAX + 1, approvals=True)
    with pytest.raises(Expired):
        check(0, approvals=False)


def test_a_request_is_good_within_the_clock_skew_of_its_times() -> None:
    """From a clock skew before it was issued until one after it expired, and not a second longer."""
    body = ask.request_body()
    first, last = body.issued_at - CLOCK_SKEW_SECONDS, body.expires_at + CLOCK_SKEW_SECONDS
    for now in (first, last):
        check_request(body, make.roster(), now)
    for now in (first - 1, last + 1):
        with pytest.raises(Expired):
            check_request(body, make.roster(), now)


def test_a_recipient_key_of_either_suite_is_taken() -> None:
    """The one-time key may be X-Wing or P-256."""
    for suite in Suite:
        body = ask.request_body(recipient_suite=suite, recipient_key=ask.recipient(suite).public_key)
        check_request(body, make.roster(), make.NOW)


@pytest.mark.parametrize(
    ("suite", "key"),
    [
        (Suite.X_WING, b""),
        (Suite.X_WING, b"\xff" * 1216),
        (Suite.X_WING, ask.recipient().public_key[:1184] + bytes(32)),
        (Suite.X_WING, ask.recipient(Suite.P256).public_key),
        (Suite.P256, b"\x04" + bytes(64)),
        (Suite.P256, ask.recipient(Suite.P256).public_key[:-1]),
    ],
)
def test_a_recipient_key_that_is_none_is_malformed(suite: Suite, key: bytes) -> None:
    """Wrong lengths, another suite's key, a point off the curve or of small order are refused by field name."""
    with pytest.raises(MalformedStatement, match="recipient_key"):
        check_request(ask.request_body(recipient_suite=suite, recipient_key=key), make.roster(), make.NOW)


@pytest.mark.parametrize("officer", ["officer-a", "officer-c"])
def test_principals_list_their_own_records_and_officers_with_a_role_anyones(officer: str) -> None:
    """Own records, or the role `audit` or `recover`."""
    officers = [make.officer("officer-a", Role.RECOVER), make.officer("officer-c", Role.AUDIT)]
    inviting = [make.officer(name, Role.INVITE) for name in ("officer-d", "officer-e")]
    roster = make.roster(officers=officers + inviting)
    check_listing(ask.listing_body(), roster, make.NOW)
    body = ask.listing_body(requester=officer, requester_kind=RequesterKind.OFFICER)
    check_listing(body, roster, make.NOW)


def test_a_principal_does_not_list_anothers_records() -> None:
    """Descriptions and serial numbers are for their owner."""
    with pytest.raises(Denied):
        check_listing(ask.listing_body(OTHER, requester=make.PRINCIPAL), make.roster(), make.NOW)


def test_an_officer_without_a_fitting_role_lists_nothing() -> None:
    """Inviting, approving and revoking give no view of the records."""
    officers = [make.officer(name, Role.INVITE, Role.APPROVE, Role.REVOKE) for name in ("officer-a", "officer-b")]
    roster = make.roster(officers=officers)
    with pytest.raises(OfficerUnknown, match="audit"):
        check_listing(ask.listing_body(**OFFICER), roster, make.NOW)


def test_a_listing_request_out_of_its_time_is_refused() -> None:
    """Too long a life, from the future, or expired."""
    with pytest.raises(LimitExceeded, match="300"):
        check_listing(ask.listing_body(expires_at=make.NOW + 301), make.roster(), make.NOW)
    with pytest.raises(Expired):
        check_listing(ask.listing_body(), make.roster(), make.NOW - 61)
    with pytest.raises(Expired):
        check_listing(ask.listing_body(), make.roster(), make.NOW + 361)


# ---- what goes on the record ----


def test_the_leaves_name_who_asked_for_what_and_what_became_of_it() -> None:
    """Each leaf reads back as what SPEC 7.2 says."""
    statement, body = ask.request(), ask.request_body()
    digest, release = statement.digest, make.escrow()
    asked = parse_leaf(request_leaf(body, digest, make.NOW))
    assert asked == RequestLeaf(
        time=make.NOW,
        id=body.id,
        digest=digest.hex(),
        requester=make.PRINCIPAL,
        requester_kind=RequesterKind.PRINCIPAL,
        principal=make.PRINCIPAL,
    )
    records = [new_id()]
    released = parse_leaf(release_leaf(body, digest, release, records, make.NOW))
    assert released == ReleaseLeaf(
        time=make.NOW, id=body.id, digest=digest.hex(), release=release.digest.hex(), records=records
    )
    refused = parse_leaf(refusal_leaf(body, digest, Denied.code, make.NOW))
    assert refused == RefusalLeaf(
        time=make.NOW,
        id=body.id,
        digest=digest.hex(),
        requester=make.PRINCIPAL,
        requester_kind=RequesterKind.PRINCIPAL,
        code="denied",
    )


def test_the_enrolment_leaf_names_key_and_invitation() -> None:
    """What a follower of the log needs to know who speaks for the principal."""
    statement = make.enrolment(make.invitation())
    body = parse_body(statement, Enrolment)
    leaf = parse_leaf(enrolment_leaf(check_enrolment(statement, make.registry(), make.NOW), make.NOW))
    assert leaf == EnrolmentLeaf(
        time=make.NOW,
        id=body.id,
        digest=statement.digest.hex(),
        principal=make.PRINCIPAL,
        key=make.signing_key(make.PRINCIPAL).key_id,
        invitation=parse_body(parse_envelope(body.invitation), Invitation).id,
    )


def test_a_refusal_comes_back_as_the_error_it_was() -> None:
    """The code is the same as the first time; words that a database row could have changed are not signed again."""
    again = refusal_again("not_found")
    assert isinstance(again, NotFound)
    assert "refused before, with code not_found" in again.message
