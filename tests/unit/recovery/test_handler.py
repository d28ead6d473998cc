"""What a message of the recovery queue is read as, whose signature it needs, and who may look at what."""

from typing import Any

import pytest
from tests.support import authority as make
from tests.support import requests as ask

from strongroom.errors import (
    Denied,
    Expired,
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
from strongroom.fields import Capacity, new_id
from strongroom.limits import (
    CLOCK_SKEW_SECONDS,
    MANDATE_BODY_BYTES_MAX,
    REASON_CHARACTERS_MAX,
    REQUEST_BODY_BYTES_MAX,
    REQUEST_LIFE_SECONDS_MAX,
)
from strongroom.mandates import Enrolment, Invitation, Role
from strongroom.messages import DocketRequest, ListingRequest
from strongroom.registry import Registry
from strongroom.statements import Statement
from strongroom_recovery.handler import (
    Submission,
    Unreadable,
    check_docket,
    check_listing,
    read,
    refusal_again,
    verify_sender,
)

OTHER = "laptop-0418"
OFFICER: dict[str, Any] = {"requester": "officer-a", "requester_kind": Capacity.OFFICER}


# ---- reading ----


@pytest.mark.parametrize(
    ("statement", "kind", "sender", "principal"),
    [
        (make.enrolment(make.invitation()), "enrolment", make.PRINCIPAL, make.PRINCIPAL),
        (make.invitation(), "invitation", None, make.PRINCIPAL),
        (make.invitation(prefix="laptop-"), "invitation", None, None),
        (make.revocation(), "revocation", "officer-a", make.PRINCIPAL),
        (ask.request(OTHER, **OFFICER), "request", "officer-a", OTHER),
        (ask.approval(ask.request(), "officer-b"), "approval", "officer-b", None),
        (ask.denial(ask.request(), "officer-b"), "denial", "officer-b", None),
        (ask.listing_request(OTHER, **OFFICER), "listing-request", "officer-a", OTHER),
        (ask.docket_request("officer-b"), "docket-request", "officer-b", None),
        (ask.docket_request(principal=OTHER), "docket-request", "officer-a", OTHER),
    ],
)
def test_each_kind_of_message_is_read(
    statement: Statement, kind: str, sender: str | None, principal: str | None
) -> None:
    """A well-formed message gives its statement, what it is, who says to have sent it and whom it is about."""
    envelope = statement.envelope()
    submission = read(envelope)
    assert isinstance(submission, Submission)
    assert (submission.envelope, submission.statement, submission.digest) == (envelope, statement, statement.digest)
    assert (submission.kind, submission.id) == (kind, submission.asked.id)
    assert (submission.sender, submission.principal) == (sender, principal)


def test_bytes_that_are_no_envelope_are_kept_as_they_came() -> None:
    """Garbage has no id and no sender; the answer will name it by its bytes."""
    unreadable = read(b"\xff\xfenot json")
    assert isinstance(unreadable, Unreadable)
    assert isinstance(unreadable.refusal, MalformedStatement)
    assert (unreadable.id, unreadable.sender, unreadable.principal) == (None, None, None)
    assert (unreadable.envelope, unreadable.kind) == (b"\xff\xfenot json", "unreadable")


@pytest.mark.parametrize("statement", [make.escrow(), make.roster().statement])
def test_a_statement_of_another_type_is_unreadable_here(statement: Statement) -> None:
    """What belongs elsewhere is refused by its type."""
    unreadable = read(statement.envelope())
    assert isinstance(unreadable, Unreadable)
    assert unreadable.refusal.message.startswith("payloadType")
    assert unreadable.envelope == statement.envelope()


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


# ---- who asks ----


def verified(statement: Statement, registry: Registry | None = None) -> str:
    """Return the id of the key by which the sender that the statement names has signed it."""
    submission = read(statement.envelope())
    assert isinstance(submission, Submission)
    asked = submission.asked
    assert not isinstance(asked, Enrolment | Invitation)
    assert submission.sender is not None
    capacity: Capacity = getattr(asked, "requester_kind", getattr(asked, "denier_kind", Capacity.OFFICER))
    registry = registry or make.registry(make.PRINCIPAL)
    return verify_sender(statement, asked.authority, submission.sender, capacity, registry)


@pytest.mark.parametrize("build", [ask.request, ask.listing_request])
def test_a_principal_and_an_officer_are_verified_by_their_keys(build: Any) -> None:
    """Both capacities hold under the right key, for both kinds of asking, and the key is named by its id."""
    assert verified(build()) == make.signing_key(make.PRINCIPAL).key_id
    assert verified(build(**OFFICER)) == make.signing_key("officer-a").key_id


@pytest.mark.parametrize("build", [ask.approval, ask.denial])
def test_what_officers_say_is_verified_by_the_key_of_the_officer_it_names(build: Any) -> None:
    """An approval or a denial is taken under its own officer's key and under no other."""
    asked = ask.request()
    assert verified(build(asked, "officer-b")) == make.signing_key("officer-b").key_id
    for key in ("officer-a", make.PRINCIPAL, "a stranger"):
        with pytest.raises(SignatureInvalid):
            verified(build(asked, "officer-b", key=key))
    with pytest.raises(OfficerUnknown):
        verified(build(asked, "officer-z"))
    with pytest.raises(WrongAuthority):
        verified(build(asked, "officer-b", authority="other.example.org"))


def test_an_owner_denies_under_its_own_key() -> None:
    """A denial by a principal is verified by the enrolled key, not by an officer's of the same name."""
    as_owner = {"denier": make.PRINCIPAL, "denier_kind": Capacity.PRINCIPAL}
    assert verified(ask.denial(ask.request(), **as_owner)) == make.signing_key(make.PRINCIPAL).key_id
    with pytest.raises(SignatureInvalid):
        verified(ask.denial(ask.request(), **as_owner, key="officer-a"))
    with pytest.raises(PrincipalUnknown):
        verified(ask.denial(ask.request(), "officer-a", denier_kind=Capacity.PRINCIPAL))


def test_an_officer_speaks_by_the_key_of_the_roster_in_force() -> None:
    """Removed or given another key by a new roster, the former key is worth nothing."""
    registry = make.registry(make.PRINCIPAL)
    statement = ask.docket_request()
    verified(statement, registry)
    renewed = make.officer("officer-a").model_copy(update={"public_key": make.signing_key("renewed").public_key})
    first = registry.roster
    for officers, error in (([renewed], SignatureInvalid), ([], OfficerUnknown)):
        others = [make.officer(name) for name in ("officer-b", "officer-d")]
        newer = make.next_roster(registry.roster, officers=[*officers, *others])
        registry.apply(make.roster_leaf(newer))
        registry.admit_roster(newer.statement)
        with pytest.raises(error):
            verified(statement, registry)
    assert registry.roster.body.version == first.body.version + 2


@pytest.mark.parametrize("build", [ask.request, ask.listing_request])
@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"key": "a stranger"}, SignatureInvalid),
        ({"requester": OTHER, "key": make.PRINCIPAL}, PrincipalUnknown),
        ({"authority": "other.example.org"}, WrongAuthority),
        ({"requester": "officer-z", "requester_kind": Capacity.OFFICER}, OfficerUnknown),
        ({**OFFICER, "key": "officer-b"}, SignatureInvalid),
        ({**OFFICER, "key": make.PRINCIPAL}, SignatureInvalid),
        ({"requester": "officer-a"}, PrincipalUnknown),
        ({"requester_kind": Capacity.OFFICER}, OfficerUnknown),
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


def test_a_revoked_key_asks_no_more() -> None:
    """After a revocation of the principal its requests are refused, and so are its denials."""
    registry = make.registry(make.PRINCIPAL)
    registry.apply(make.revocation_leaf(make.revocation()))
    for statement in (ask.request(), ask.denial(ask.request(), make.PRINCIPAL, denier_kind=Capacity.PRINCIPAL)):
        with pytest.raises(PrincipalRevoked):
            verified(statement, registry)


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


# ---- what they may look at ----


@pytest.mark.parametrize("officer", ["officer-a", "officer-c"])
def test_principals_list_their_own_records_and_officers_with_a_role_anyones(officer: str) -> None:
    """Own records, or the role `audit` or `recover`."""
    officers = [make.officer("officer-a", Role.RECOVER), make.officer("officer-c", Role.AUDIT)]
    inviting = [make.officer(name, Role.INVITE) for name in ("officer-d", "officer-e")]
    roster = make.roster(officers=officers + inviting)
    check_listing(ask.listing_body(), roster, make.NOW)
    body = ask.listing_body(requester=officer, requester_kind=Capacity.OFFICER)
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


def test_officers_see_the_whole_docket_whatever_their_roles() -> None:
    """Any officer may deny, so any officer may look: at all requests, at one, and at one principal's."""
    for changes in ({}, {"principal": OTHER}, {"request": new_id()}):
        check_docket(ask.docket_body("officer-c", **changes), make.NOW)


@pytest.mark.parametrize("principal", [OTHER, None])
def test_a_principal_sees_of_the_docket_what_is_about_its_own_records(principal: str | None) -> None:
    """Its own name is answered; another's, or everybody's, is denied."""
    own = ask.docket_body(make.PRINCIPAL, requester_kind=Capacity.PRINCIPAL, principal=make.PRINCIPAL)
    check_docket(own, make.NOW)
    with pytest.raises(Denied):
        check_docket(own.model_copy(update={"principal": principal}), make.NOW)
    with pytest.raises(Denied):
        check_docket(own.model_copy(update={"principal": principal, "request": new_id()}), make.NOW)


def _check(asked: ListingRequest | DocketRequest, now: int) -> None:
    if isinstance(asked, DocketRequest):
        check_docket(asked, now)
    else:
        check_listing(asked, make.roster(), now)


@pytest.mark.parametrize("build", [ask.listing_body, ask.docket_body])
def test_a_question_lives_300_seconds_at_most(build: Any) -> None:
    """Exactly as long is answered; a second more is refused, and so is no life at all."""
    _check(build(expires_at=make.NOW + REQUEST_LIFE_SECONDS_MAX), make.NOW)
    with pytest.raises(LimitExceeded, match="300"):
        _check(build(expires_at=make.NOW + REQUEST_LIFE_SECONDS_MAX + 1), make.NOW)
    with pytest.raises(Expired):
        _check(build(expires_at=make.NOW), make.NOW)


@pytest.mark.parametrize("build", [ask.listing_body, ask.docket_body])
def test_a_question_is_good_within_the_clock_skew_of_its_times(build: Any) -> None:
    """From a clock skew before it was issued until one after it expired, and not a second longer."""
    asked = build()
    first, last = asked.issued_at - CLOCK_SKEW_SECONDS, asked.expires_at + CLOCK_SKEW_SECONDS
    for now in (first, last):
        _check(asked, now)
    for now in (first - 1, last + 1):
        with pytest.raises(Expired):
            _check(asked, now)


# ---- a refusal repeated ----


def test_a_refusal_comes_back_as_the_error_it_was() -> None:
    """The code is the same as the first time; words that a database row could have changed are not signed again."""
    again = refusal_again("not_found")
    assert isinstance(again, NotFound)
    assert "refused before, with code not_found" in again.message


@pytest.mark.parametrize(
    ("statement", "limit"),
    [
        (make.signed(ask.request_body(), make.signing_key(make.PRINCIPAL)), REQUEST_BODY_BYTES_MAX),
        (ask.docket_request(), REQUEST_BODY_BYTES_MAX),
        (ask.approval(ask.request()), MANDATE_BODY_BYTES_MAX),
        (make.invitation(), MANDATE_BODY_BYTES_MAX),
        (make.enrolment(make.invitation()), MANDATE_BODY_BYTES_MAX),
    ],
    ids=["request", "docket-request", "approval", "invitation", "enrolment"],
)
def test_a_body_that_white_space_has_blown_up_is_refused(statement: Statement, limit: int) -> None:
    """Up to the limit white space is legal; beyond it a few such statements would fill a docket."""
    key = make.signing_key("officer-a")
    full = Statement.sign(statement.type, statement.body.ljust(limit), key)
    assert isinstance(read(full.envelope()), Submission)
    beyond = read(Statement.sign(statement.type, statement.body.ljust(limit + 1), key).envelope())
    assert isinstance(beyond, Unreadable)
    assert beyond.refusal.code == "limit_exceeded"
    assert str(limit) in beyond.refusal.message
