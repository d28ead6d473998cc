"""What became of every request, folded from the recovery log: cases, disclosures, mandates, invitations, rates."""

from collections import defaultdict
from collections.abc import Callable
from hashlib import sha256
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import authority as make

from strongroom.errors import LogForked
from strongroom.fields import Capacity, new_id
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
)
from strongroom.limits import APPROVED_REQUEST_LIFE_SECONDS_MAX, CLOCK_SKEW_SECONDS, INVITATION_LIFE_SECONDS_MAX
from strongroom.messages import RequestState
from strongroom.statements import canonical_json
from strongroom_recovery.ledger import DAY_SECONDS, HOUR_SECONDS, Attested, Case, Ledger, Logged, Outcome, Who

NOW = make.NOW
OTHER = "laptop-0418"
KEY = "0" * 32
OFFICER: Who = (Capacity.OFFICER, "officer-a")

OLD_KID, NEW_KID = "01" * 16, "02" * 16
LIFE_SECONDS = APPROVED_REQUEST_LIFE_SECONDS_MAX + 2 * CLOCK_SKEW_SECONDS


def digest(of: str) -> str:
    return sha256(of.encode()).hexdigest()


# ---- leaves ----


def looked_at(first: int, count: int = 1, **changes: Any) -> ProofLeaf:
    members: dict[str, Any] = {
        "time": NOW,
        "first": first,
        "count": count,
        "size": first + count,
        "root": digest("root"),
        "records": count,
        "unprovable": [],
    }
    return ProofLeaf(**(members | changes))


def resealed(first: int, count: int = 1, **changes: Any) -> ResealLeaf:
    members: dict[str, Any] = {
        "time": NOW,
        "first": first,
        "count": count,
        "size": first + count,
        "root": digest("root"),
        "kid": NEW_KID,
        "records": count,
        "left": 0,
        "digest": digest("blobs"),
    }
    return ResealLeaf(**(members | changes))


RETIRED: dict[str, Any] = {"time": NOW, "kid": OLD_KID, "size": 1, "root": digest("root")}


def attested(**changes: Any) -> AttestationLeaf:
    id_ = new_id()
    members: dict[str, Any] = {
        "time": NOW,
        "id": id_,
        "digest": digest(id_),
        "principal": make.PRINCIPAL,
        "key": KEY,
        "matching": [],
        "stale": [],
    }
    return AttestationLeaf(**(members | changes))


def asked(who: Who = OFFICER, **changes: Any) -> RequestLeaf:
    id_ = new_id()
    members: dict[str, Any] = {
        "time": NOW,
        "id": id_,
        "digest": digest(id_),
        "requester": who[1],
        "requester_kind": who[0],
        "key": KEY,
        "principal": make.PRINCIPAL,
    }
    return RequestLeaf(**(members | changes))


def approved(request: RequestLeaf, officer: str = "officer-b", **changes: Any) -> ApprovalLeaf:
    id_ = new_id()
    members: dict[str, Any] = {
        "time": NOW + 1,
        "id": id_,
        "digest": digest(id_),
        "officer": officer,
        "key": KEY,
        "request": request.id,
    }
    return ApprovalLeaf(**(members | changes))


def denied(request: RequestLeaf, **changes: Any) -> DenialLeaf:
    id_ = new_id()
    members: dict[str, Any] = {
        "time": NOW + 2,
        "id": id_,
        "digest": digest(id_),
        "denier": "officer-b",
        "denier_kind": Capacity.OFFICER,
        "key": KEY,
        "request": request.id,
    }
    return DenialLeaf(**(members | changes))


def released(request: RequestLeaf, *records: str, **changes: Any) -> ReleaseLeaf:
    members: dict[str, Any] = {
        "time": NOW + 2,
        "id": request.id,
        "digest": request.digest,
        "release": digest("the release"),
        "approvals": [],
        "records": list(records) or [new_id()],
    }
    return ReleaseLeaf(**(members | changes))


def refused(request: RequestLeaf, code: str = "denied", **changes: Any) -> RefusalLeaf:
    members: dict[str, Any] = {
        "time": NOW + 2,
        "id": request.id,
        "digest": request.digest,
        "requester": request.requester,
        "requester_kind": request.requester_kind,
        "code": code,
    }
    return RefusalLeaf(**(members | changes))


def conflicting(request: RequestLeaf, **changes: Any) -> RefusalLeaf:
    """Return the refusal of another request under the id of this one."""
    return refused(request, "statement_conflict", **({"digest": digest("something else")} | changes))


def invited(id_: str | None = None, **changes: Any) -> InvitationLeaf:
    members: dict[str, Any] = {
        "time": NOW,
        "id": id_ or new_id(),
        "digest": digest("the invitation"),
        "principal": make.PRINCIPAL,
        "officers": ["officer-a"],
    }
    return InvitationLeaf(**(members | changes))


def enrolled(invitation: str) -> EnrolmentLeaf:
    id_ = new_id()
    return EnrolmentLeaf(
        time=NOW, id=id_, digest=digest(id_), principal=make.PRINCIPAL, key=KEY, invitation=invitation
    )


def revoked() -> RevocationLeaf:
    id_ = new_id()
    return RevocationLeaf(
        time=NOW, id=id_, digest=digest(id_), officer="officer-a", principal=make.PRINCIPAL, key=None
    )


def fold(*leaves: Leaf, into: Ledger | None = None) -> Ledger:
    ledger = Ledger() if into is None else into
    for leaf in leaves:
        ledger.apply(leaf.to_bytes())
    return ledger


def case_of(ledger: Ledger, request: RequestLeaf) -> Case:
    case = ledger.case(request.id)
    assert case is not None
    return case


def outcome_of(ledger: Ledger, request: RequestLeaf) -> Outcome:
    outcome = case_of(ledger, request).outcome
    assert outcome is not None
    return outcome


def ids(ledger: Ledger, *, waiting: bool = True, now: int = NOW, **which: Any) -> list[str]:
    cases = ledger.waiting(now, **which) if waiting else ledger.cases(**which)
    return [case.id for case in cases]


# ---- what each leaf says ----


def test_a_request_waits_as_its_leaf_says() -> None:
    """Id, digest, requester, key, principal, time and place are those of the leaf; nothing has become of it."""
    leaf = asked()
    ledger = fold(revoked(), leaf)
    assert case_of(ledger, leaf) == Case(
        id=leaf.id,
        digest=bytes.fromhex(leaf.digest),
        requester="officer-a",
        capacity=Capacity.OFFICER,
        key_id=KEY,
        principal=make.PRINCIPAL,
        asked_at=NOW,
        index=1,
    )
    assert case_of(ledger, leaf).who == OFFICER
    assert ledger.case(new_id()) is None


def test_approvals_are_kept_in_order_and_decide_nothing() -> None:
    """All that were ever taken for this request and for no other; it goes on waiting."""
    request, other = asked(), asked()
    first, elsewhere, second = approved(request), approved(other), approved(request, "officer-d")
    ledger = fold(request, other, first, elsewhere, second)
    assert case_of(ledger, request).approvals == [
        Logged(first.id, bytes.fromhex(first.digest), 2, NOW + 1, first.key),
        Logged(second.id, bytes.fromhex(second.digest), 4, NOW + 1, second.key),
    ]
    assert [logged.id for logged in case_of(ledger, other).approvals] == [elsewhere.id]
    assert ids(ledger) == [other.id, request.id]


def test_a_release_ends_a_request_with_what_was_given() -> None:
    """Time, place, digest of the release, digests of the approvals that counted and the ids of its records."""
    request, records, approvals = asked(), (new_id(), new_id()), (digest("one"), digest("two"))
    ledger = fold(request, released(request, *records, approvals=list(approvals)))
    assert outcome_of(ledger, request) == Outcome(
        RequestState.RELEASED,
        1,
        NOW + 2,
        release=bytes.fromhex(digest("the release")),
        approvals=approvals,
        records=records,
    )


def test_a_refusal_ends_a_request_with_its_code() -> None:
    """The code of the leaf, whatever it is."""
    request = asked()
    ledger = fold(request, refused(request, "not_found"))
    assert outcome_of(ledger, request) == Outcome(RequestState.REFUSED, 1, NOW + 2, code="not_found")


def test_a_denial_ends_a_request_with_the_code_of_a_denial() -> None:
    """Whoever denied it, and however many approved."""
    request = asked()
    denial = denied(request)
    ledger = fold(request, approved(request), approved(request, "officer-d"), denial)
    statement = Logged(denial.id, bytes.fromhex(denial.digest), 3, NOW + 2)
    outcome = Outcome(RequestState.DENIED, 3, NOW + 2, code="denied", statement=statement)
    assert outcome_of(ledger, request) == outcome


def test_the_owners_own_recovery_does_not_hide_that_somebody_else_has_the_key() -> None:
    """The newest release to another is the one to tell of; with none, the newest to the owner."""
    record = new_id()
    first, theirs, mine = (
        asked((Capacity.PRINCIPAL, make.PRINCIPAL)),
        asked(),
        asked((Capacity.PRINCIPAL, make.PRINCIPAL)),
    )
    ledger = fold(first, released(first, record))
    assert ledger.disclosure(record) is case_of(ledger, first)
    fold(theirs, released(theirs, record), mine, released(mine, record), into=ledger)
    assert ledger.disclosure(record) is case_of(ledger, theirs)
    later = asked()
    fold(later, released(later, record), into=ledger)
    assert ledger.disclosure(record) is case_of(ledger, later)


def test_what_becomes_of_one_request_is_nothing_to_another() -> None:
    """Of three alike, the one that was denied has ended and the others wait."""
    first, second, third = asked(), asked(), asked()
    ledger = fold(first, second, third, denied(second))
    assert ids(ledger) == [third.id, first.id]


def test_each_leaf_of_the_recovery_log_takes_one_place() -> None:
    """Every type that this log may have is folded and counts as one; the registry refuses the other log's."""
    first, second = asked(), asked()
    leaves: list[Leaf] = [
        RosterLeaf(time=NOW, version=1, digest=digest("roster")),
        *(invited(), enrolled(new_id()), revoked(), first, approved(first), released(first), conflicting(first)),
        *(second, denied(second), looked_at(0), attested(), resealed(0), RetirementLeaf(**RETIRED)),
    ]
    ledger = Ledger()
    for number, leaf in enumerate(leaves):
        assert ledger.size == number
        fold(leaf, into=ledger)
    assert {type(leaf) for leaf in leaves} | {EscrowLeaf} == set(get_args(get_args(Leaf)[0]))


# ---- what the prover and the owners say ----


def test_a_proof_leaf_is_folded_under_its_own_place_in_the_log() -> None:
    """The ledger hands proof leaves on with the index that a receipt of them has."""
    ledger = fold(asked(), looked_at(5, 2))
    look = ledger.proofs.look(6)
    assert look is not None
    assert (look.first, look.end, look.proof, look.time) == (5, 7, 1, NOW)


def test_the_newest_attestation_of_a_record_counts_and_only_its_own_principals() -> None:
    """What a record's owner says replaces what it said before; another's word about it is nobody's word."""
    record, other = new_id(), new_id()
    ledger = fold(attested(stale=[record, other], time=NOW), attested(matching=[record], time=NOW + 5))
    fold(attested(principal=OTHER, stale=[record], time=NOW + 9), into=ledger)
    assert ledger.attested(make.PRINCIPAL, record) == Attested(matches=True, time=NOW + 5)
    assert ledger.attested(make.PRINCIPAL, other) == Attested(matches=False, time=NOW)
    assert ledger.attested(make.PRINCIPAL, new_id()) is None
    assert (ledger.attested_at(make.PRINCIPAL), ledger.attested_at(OTHER)) == (NOW + 5, NOW + 9)
    assert ledger.attested_at("laptop-0419") is None
    assert set(ledger.stale()) == {(make.PRINCIPAL, other, NOW), (OTHER, record, NOW + 9)}


def test_an_attestation_is_found_again_by_its_id() -> None:
    """A repeat of the same statement gets the same place."""
    leaf = attested()
    logged = fold(asked(), leaf).mandate(leaf.id)
    assert logged is not None
    assert (logged.index, logged.digest.hex()) == (1, leaf.digest)


# ---- what makes no sense ----


@pytest.mark.parametrize("leaf", [b"", b"not json", b"{}", canonical_json({"time": NOW, "type": "amnesty"})])
def test_a_leaf_that_cannot_be_read_is_a_forked_log(leaf: bytes) -> None:
    """Also one of a type that this program does not know: what it says might be a denial."""
    ledger = fold(asked())
    with pytest.raises(LogForked, match="leaf 1"):
        ledger.apply(leaf)
    assert ledger.size == 1


@pytest.mark.parametrize("end", [None, released, refused, denied])
@pytest.mark.parametrize("changes", [{}, {"digest": digest("something else")}])
def test_an_id_is_asked_under_once(end: Any, changes: dict[str, Any]) -> None:
    """A second request leaf of an id would undo what became of the first."""
    request = asked()
    ledger = fold(request, *([end(request)] if end else []))
    before = case_of(ledger, request)
    with pytest.raises(LogForked, match="asks again what leaf 0 asked"):
        fold(request.model_copy(update=changes), into=ledger)
    assert case_of(ledger, request) is before


@pytest.mark.parametrize("about", [approved, denied, released])
def test_nothing_is_said_to_a_request_that_nobody_made(about: Any) -> None:
    """An approval, denial or release of an unknown id is no leaf that a worker has written."""
    with pytest.raises(LogForked, match="leaf 1 is about a request that no leaf before it names"):
        fold(asked(), about(asked()))


def test_a_release_answers_the_request_of_its_digest() -> None:
    """An id alone is not enough: the leaf names the request that was answered by its digest."""
    request = asked()
    ledger = fold(request)
    with pytest.raises(LogForked, match="answers another request than leaf 0 names"):
        fold(released(request, digest=digest("something else")), into=ledger)
    assert ids(ledger) == [request.id]


@pytest.mark.parametrize("first", [released, refused, denied])
@pytest.mark.parametrize("second", [released, refused, denied])
def test_what_was_decided_stays_decided(first: Any, second: Any) -> None:
    """No end follows another, but for the release of a request whose release was lost."""
    request = asked()
    ledger = fold(request, first(request))
    before = outcome_of(ledger, request)
    if first is second is released:
        fold(second(request), into=ledger)
        return
    with pytest.raises(LogForked, match="leaf 2 decides what leaf 1 has decided"):
        fold(second(request), into=ledger)
    assert outcome_of(ledger, request) is before


def test_a_second_release_takes_the_place_of_the_one_that_was_lost() -> None:
    """The newer leaf is the answer; what the first one named stays disclosed; the loss costs nothing."""
    request, first, second = asked(), new_id(), new_id()
    again = released(request, second, time=NOW + 3, release=digest("another release"))
    ledger = fold(request, released(request, first), again)
    assert outcome_of(ledger, request) == Outcome(
        RequestState.RELEASED,
        2,
        NOW + 3,
        release=bytes.fromhex(digest("another release")),
        records=(second,),
    )
    assert ids(ledger) == []
    assert ledger.disclosure(first) is ledger.disclosure(second) is case_of(ledger, request)
    assert ledger.next_release_at(OFFICER, 1, 2, NOW + 3) is None
    assert ledger.next_release_at(OFFICER, 2, 2, NOW + 3) == NOW + 2 + DAY_SECONDS


# ---- refusals that stand alone ----


@pytest.mark.parametrize("code", ["denied", "approval_required", "expired", "malformed"])
@pytest.mark.parametrize("is_known", [True, False])
def test_a_refusal_of_what_nobody_asked_is_a_forked_log(code: str, is_known: bool) -> None:  # noqa: FBT001
    """A refusal stands alone only for a conflict of ids or for haste, under a known id or an unknown one."""
    request = asked()
    ledger = fold(*([request] if is_known else []))
    with pytest.raises(LogForked, match="refuses what nobody asked"):
        fold(refused(request, code, digest=digest("something else")), into=ledger)


def test_a_conflict_leaves_the_request_alone_whose_id_it_took() -> None:
    """Whoever sends other bytes under somebody's id does not decide that request, and has asked once himself."""
    request, other = asked(), (Capacity.PRINCIPAL, OTHER)
    ledger = fold(request, conflicting(request, requester=OTHER, requester_kind=Capacity.PRINCIPAL))
    assert case_of(ledger, request).outcome is None
    assert ids(ledger) == [request.id]
    assert ledger.next_request_at(other, 1, NOW + 2) == NOW + 2 + HOUR_SECONDS
    assert ledger.next_request_at(OFFICER, 2, NOW + 2) is None


def test_a_request_that_came_too_soon_may_come_again() -> None:
    """Its refusal makes no case, counts as no request, and does not stand in the way of the same request later."""
    request = asked(time=NOW + 10)
    ledger = fold(refused(request, "rate_limited"))
    assert ledger.case(request.id) is None
    assert ledger.next_request_at(OFFICER, 1, NOW + 2) is None
    fold(request, into=ledger)
    assert ids(ledger) == [request.id]


def test_haste_is_remembered_for_an_hour() -> None:
    """From the leaf on for 3,599 seconds, of that requester in that capacity; a later one renews it."""
    ledger = fold(refused(asked(), "rate_limited", time=NOW))
    assert ledger.was_limited(OFFICER, NOW)
    assert ledger.was_limited(OFFICER, NOW + HOUR_SECONDS - 1)
    assert not ledger.was_limited(OFFICER, NOW + HOUR_SECONDS)
    assert not ledger.was_limited((Capacity.PRINCIPAL, "officer-a"), NOW)
    assert not ledger.was_limited((Capacity.OFFICER, "officer-b"), NOW)
    fold(refused(asked(), "rate_limited", time=NOW + HOUR_SECONDS), into=ledger)
    assert ledger.was_limited(OFFICER, NOW + 2 * HOUR_SECONDS - 1)


# ---- requests, newest first ----


def test_requests_are_given_newest_first_by_their_place_in_the_log() -> None:
    """Not by the times in their leaves, which come from several clocks."""
    requests = [asked(time=NOW - number) for number in range(4)]
    ledger = fold(*requests, released(requests[1]), denied(requests[3]))
    newest_first = [request.id for request in reversed(requests)]
    assert ids(ledger, waiting=False) == newest_first
    assert ids(ledger) == [requests[2].id, requests[0].id]


def test_requests_are_given_by_whose_records_they_are_for() -> None:
    """The principal of the leaf, not the requester."""
    own, others = asked((Capacity.PRINCIPAL, make.PRINCIPAL)), asked(principal=OTHER)
    by_other = asked((Capacity.PRINCIPAL, OTHER), principal=OTHER)
    ledger = fold(own, others, by_other, denied(others))
    assert ids(ledger, principal=make.PRINCIPAL) == [own.id]
    assert ids(ledger, principal=OTHER) == [by_other.id]
    assert ids(ledger, principal=OTHER, waiting=False) == [by_other.id, others.id]
    assert ids(ledger, principal="laptop-0419", waiting=False) == []


def test_pages_follow_each_other_also_after_a_request_that_was_decided_meanwhile() -> None:
    """What comes after the last of a page is the same whether that one still waits, was denied or was released."""
    requests = [asked() for _ in range(6)]
    newest_first = [request.id for request in reversed(requests)]
    for end in (None, denied, refused, released):
        ledger = fold(*requests)
        first = ids(ledger)[:2]
        assert first == newest_first[:2]
        fold(*([end(requests[4])] if end else []), asked(), into=ledger)
        assert ids(ledger, after=first[-1]) == newest_first[2:]
        assert ids(ledger, after=first[-1], waiting=False) == newest_first[2:]
        assert ids(ledger, after=newest_first[-1]) == []


def test_no_page_follows_an_unknown_request() -> None:
    """An id that the log does not name does not begin the list anew."""
    ledger = fold(asked(), asked())
    assert ids(ledger, after=new_id()) == ids(ledger, after=new_id(), waiting=False) == []


def test_a_request_that_has_lived_longer_than_any_may_is_not_waiting() -> None:
    """Seven days and the clock skew of both ends after its leaf nobody can answer it any more."""
    ledger = fold(asked(time=NOW))
    assert len(ids(ledger, now=NOW + LIFE_SECONDS)) == 1
    assert ids(ledger, now=NOW + LIFE_SECONDS + 1) == []


def test_requests_being_given_are_those_of_the_moment_they_were_asked_for() -> None:
    """Leaves that are folded while a reader is half way neither disturb it nor show up."""
    requests = [asked() for _ in range(3)]
    ledger = fold(*requests)
    reading = ledger.waiting(NOW)
    seen = [next(reading).id]
    fold(denied(requests[1]), asked(), into=ledger)
    assert seen + [case.id for case in reading] == [request.id for request in reversed(requests)]


# ---- disclosures, mandates, invitations ----


def test_a_disclosure_names_the_newest_release_of_a_record() -> None:
    """Of several requests the one released last, whichever was made first; a record never given has none."""
    record, only_first = new_id(), new_id()
    first, second, waiting = asked(), asked(), asked()
    ledger = fold(first, second, waiting, released(second, record), released(first, record, only_first))
    assert ledger.disclosure(record) is ledger.disclosure(only_first) is case_of(ledger, first)
    assert ledger.disclosure(new_id()) is None
    fold(released(waiting, record), into=ledger)
    assert ledger.disclosure(record) is case_of(ledger, waiting)
    assert ledger.disclosure(only_first) is case_of(ledger, first)


def test_enrolments_approvals_denials_and_revocations_are_found_by_id() -> None:
    """With digest, place and time of their leaf; requests and their answers are not among them."""
    request = asked()
    mandates: list[EnrolmentLeaf | ApprovalLeaf | DenialLeaf | RevocationLeaf] = [
        enrolled(new_id()),
        approved(request),
        denied(request),
        revoked(),
    ]
    ledger = fold(request, *mandates)
    for index, leaf in enumerate(mandates, start=1):
        signer = leaf.key if isinstance(leaf, ApprovalLeaf) else ""
        assert ledger.mandate(leaf.id) == Logged(leaf.id, bytes.fromhex(leaf.digest), index, leaf.time, signer)
    assert ledger.mandate(request.id) is None
    assert ledger.mandate(new_id()) is None


def test_a_partly_signed_invitation_is_kept_in_its_newest_form_until_it_is_used() -> None:
    """A later leaf takes the place of an earlier one; an enrolment by it, and by no other, ends it."""
    first, second = invited(), invited()
    ledger = fold(first, second)
    assert [logged.id for logged in ledger.invitations(NOW)] == [second.id, first.id]
    fold(invited(first.id, time=NOW + 5), enrolled(new_id()), into=ledger)
    newest = Logged(first.id, bytes.fromhex(first.digest), 2, NOW + 5)
    assert ledger.invitation(first.id) == newest
    assert [logged.id for logged in ledger.invitations(NOW)] == [first.id, second.id]
    fold(enrolled(first.id), into=ledger)
    assert ledger.invitation(first.id) is None
    assert [logged.id for logged in ledger.invitations(NOW)] == [second.id]
    assert ledger.invitation(new_id()) is None


def test_an_invitation_older_than_any_may_live_is_not_given() -> None:
    """Thirty days and the clock skew of both ends after its leaf."""
    ledger = fold(invited(time=NOW))
    last = NOW + INVITATION_LIFE_SECONDS_MAX + 2 * CLOCK_SKEW_SECONDS
    assert len(ledger.invitations(last)) == 1
    assert ledger.invitations(last + 1) == []


# ---- rates ----


def test_requests_up_to_the_limit_may_be_made_and_the_next_when_the_oldest_is_an_hour_old() -> None:
    """Exactly the limit holds; beyond it the window slides request by request, to the second."""
    ledger = fold(asked(time=NOW), asked(time=NOW + 10), asked(time=NOW + 20))
    assert ledger.next_request_at(OFFICER, 4, NOW + 20) is None
    assert ledger.next_request_at(OFFICER, 3, NOW + 20) == NOW + HOUR_SECONDS
    assert ledger.next_request_at(OFFICER, 3, NOW + HOUR_SECONDS - 1) == NOW + HOUR_SECONDS
    assert ledger.next_request_at(OFFICER, 3, NOW + HOUR_SECONDS) is None
    fold(asked(time=NOW + HOUR_SECONDS), into=ledger)
    assert ledger.next_request_at(OFFICER, 3, NOW + HOUR_SECONDS) == NOW + 10 + HOUR_SECONDS


def test_what_happened_within_the_window_is_not_forgotten_when_the_next_is_counted() -> None:
    """What is a second short of an hour, or of a day, when a leaf is folded still counts after it."""
    ledger = fold(asked(time=NOW), asked(time=NOW + 1), asked(time=NOW + HOUR_SECONDS))
    assert ledger.next_request_at(OFFICER, 2, NOW + HOUR_SECONDS) == NOW + 1 + HOUR_SECONDS
    ledger = given_records((NOW, 3), (NOW + 1, 4), (NOW + DAY_SECONDS, 2))
    assert ledger.next_release_at(OFFICER, 5, 10, NOW + DAY_SECONDS) == NOW + 1 + DAY_SECONDS
    assert ledger.next_release_at(OFFICER, 4, 10, NOW + DAY_SECONDS) is None


def test_a_limit_that_was_lowered_counts_what_was_asked_before() -> None:
    """With more on the record than the new limit lets, as many have to grow old as it takes."""
    ledger = fold(*(asked(time=NOW + number) for number in range(5)))
    assert ledger.next_request_at(OFFICER, 2, NOW + 4) == NOW + 3 + HOUR_SECONDS
    assert ledger.next_request_at(OFFICER, 1, NOW + 4) == NOW + 4 + HOUR_SECONDS


@pytest.mark.parametrize("end", [released, refused, denied])
def test_a_request_counts_whatever_became_of_it(end: Any) -> None:
    """An end does not give the chance back."""
    request = asked()
    assert fold(request, end(request)).next_request_at(OFFICER, 1, NOW + 2) == NOW + HOUR_SECONDS


def test_a_principal_and_an_officer_of_one_name_have_a_rate_each() -> None:
    """What one of them asks and is given is not counted against the other, nor against anybody else."""
    request = asked()
    ledger = fold(request, released(request))
    for who in ((Capacity.PRINCIPAL, "officer-a"), (Capacity.OFFICER, "officer-b")):
        assert ledger.next_request_at(who, 1, NOW + 2) is None
        assert ledger.next_release_at(who, 1, 1, NOW + 2) is None
    assert ledger.next_request_at(OFFICER, 1, NOW + 2) is not None
    assert ledger.next_release_at(OFFICER, 1, 1, NOW + 2) is not None


def given_records(*given: tuple[int, int]) -> Ledger:
    """Return a ledger in which the officer was given so many records at each of these times."""
    ledger = Ledger()
    for time, count in given:
        request = asked(time=time)
        fold(request, released(request, *(new_id() for _ in range(count)), time=time), into=ledger)
    return ledger


def test_records_up_to_the_limit_may_be_given_and_more_when_enough_are_a_day_old() -> None:
    """Exactly the limit holds; beyond it the answer is when the room is large enough, not when there is any."""
    ledger = given_records((NOW, 3), (NOW + 100, 4))
    assert ledger.next_release_at(OFFICER, 3, 10, NOW + 100) is None
    assert ledger.next_release_at(OFFICER, 4, 10, NOW + 100) == NOW + DAY_SECONDS
    assert ledger.next_release_at(OFFICER, 6, 10, NOW + 100) == NOW + DAY_SECONDS
    assert ledger.next_release_at(OFFICER, 7, 10, NOW + 100) == NOW + 100 + DAY_SECONDS
    assert ledger.next_release_at(OFFICER, 10, 10, NOW + 100) == NOW + 100 + DAY_SECONDS
    assert ledger.next_release_at(OFFICER, 4, 10, NOW + DAY_SECONDS - 1) == NOW + DAY_SECONDS
    assert ledger.next_release_at(OFFICER, 4, 10, NOW + DAY_SECONDS) is None
    assert ledger.next_release_at(OFFICER, 10, 10, NOW + 100 + DAY_SECONDS) is None
    assert Ledger().next_release_at(OFFICER, 10, 10, NOW) is None


def test_a_daily_limit_that_was_lowered_counts_what_was_given_before() -> None:
    """With more given than the new limit lets, as many have to grow old as it takes."""
    ledger = given_records((NOW, 3), (NOW + 100, 4))
    assert ledger.next_release_at(OFFICER, 1, 5, NOW + 100) == NOW + DAY_SECONDS
    assert ledger.next_release_at(OFFICER, 2, 5, NOW + 100) == NOW + 100 + DAY_SECONDS


# ---- any sequence that the worker can write ----

PER_HOUR, PER_DAY = 3, 5
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ask", "conflict", "approve", "deny", "refuse", "release", "lose"]),
        st.integers(0, 5),
        st.sampled_from([0, 1, 600, 1_800, HOUR_SECONDS, 40_000]),
    ),
    max_size=40,
)
SAY: dict[str, Callable[..., Leaf]] = {"approve": approved, "deny": denied, "refuse": refused}
ASKERS: list[Who] = [OFFICER, (Capacity.PRINCIPAL, "officer-a")]


def busiest(events: list[tuple[int, int]], seconds: int) -> int:
    """Return how much there was at most in any window of so many seconds; events are (time, amount)."""
    return max(
        (sum(amount for time, amount in events if end - seconds < time <= end) for end, _ in events), default=0
    )


class Worker:
    """Writes leaves as the recovery worker does: what the ledger lets it, under the two rates."""

    def __init__(self) -> None:
        self.now, self.ledger, self.leaves = NOW, Ledger(), 0
        self.requests: list[RequestLeaf] = []
        self.asks: dict[Who, list[tuple[int, int]]] = defaultdict(list)
        self.gifts: dict[Who, list[tuple[int, int]]] = defaultdict(list)
        self.limited: dict[Who, list[tuple[int, int]]] = defaultdict(list)

    def write(self, leaf: Leaf) -> None:
        """Put a leaf on the record."""
        self.ledger.apply(leaf.to_bytes())
        self.leaves += 1

    def ask(self, who: Who) -> None:
        """Put a request on the record, or that it came too soon; when it says to come again is the first time."""
        retry_at = self.ledger.next_request_at(who, PER_HOUR, self.now)
        request = asked(who, time=self.now)
        if retry_at is None:
            self.write(request)
            self.requests.append(request)
            self.asks[who].append((self.now, 1))
            return
        assert self.ledger.next_request_at(who, PER_HOUR, retry_at - 1) == retry_at > self.now
        assert self.ledger.next_request_at(who, PER_HOUR, retry_at) is None
        if not self.ledger.was_limited(who, self.now):
            self.write(refused(request, "rate_limited", time=self.now))
            self.limited[who].append((self.now, 1))

    def release(self, request: RequestLeaf, count: int) -> None:
        """Release so many records if the rate lets it; when it says to come again is the first time."""
        who = request.requester_kind, request.requester
        retry_at = self.ledger.next_release_at(who, count, PER_DAY, self.now)
        if retry_at is None:
            self.write(released(request, *(new_id() for _ in range(count)), time=self.now))
            self.gifts[who].append((self.now, count))
            return
        assert self.ledger.next_release_at(who, count, PER_DAY, retry_at - 1) == retry_at > self.now
        assert self.ledger.next_release_at(who, count, PER_DAY, retry_at) is None

    def step(self, what: str, number: int) -> None:
        """Do one thing, if there is a request that it can be done to; `number` picks which."""
        waiting = [request for request in self.requests if case_of(self.ledger, request).outcome is None]
        ended = [request for request in self.requests if request not in waiting]
        request = waiting[number % len(waiting)] if waiting else None
        if what == "ask":
            self.ask(ASKERS[number % 2])
        elif what == "lose" and ended:
            again = ended[number % len(ended)]
            outcome = outcome_of(self.ledger, again)
            if outcome.state is RequestState.RELEASED:
                # What was lost before it was handed out is made anew of the same records, and counts once.
                self.write(released(again, *outcome.records, time=self.now))
        elif request is not None and what == "conflict":
            self.write(conflicting(request, time=self.now, requester="officer-b"))
        elif request is not None and what == "release":
            self.release(request, 1 + number % PER_DAY)
        elif request is not None and what in SAY:
            self.write(SAY[what](request, time=self.now))


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_whatever_the_worker_writes_folds_and_keeps_what_was_promised(steps: list[tuple[str, int, int]]) -> None:
    """No leaf is refused, who waits is who has no outcome, and no window holds more than the rates let."""
    worker = Worker()
    for what, number, seconds in steps:
        worker.now += seconds
        worker.step(what, number)
        ledger = worker.ledger
        every = list(ledger.cases())
        assert [case.id for case in every] == [request.id for request in reversed(worker.requests)]
        oldest = worker.now - LIFE_SECONDS
        waiting = [case for case in every if case.outcome is None and case.asked_at >= oldest]
        assert list(ledger.waiting(worker.now)) == waiting
        for case in every:
            for record in case.outcome.records if case.outcome else ():
                assert ledger.disclosure(record) is case
    assert worker.ledger.size == worker.leaves
    for who in ASKERS:
        assert busiest(worker.asks[who], HOUR_SECONDS) <= PER_HOUR
        assert busiest(worker.gifts[who], DAY_SECONDS) <= PER_DAY
        assert busiest(worker.limited[who], HOUR_SECONDS) <= 1


def test_the_escrow_log_must_reach_as_far_as_anything_that_was_said_of_it() -> None:
    """By a look, by sealing again, and by a retirement; the farthest counts."""
    assert fold(asked()).reach == 0
    assert fold(looked_at(5, 2), looked_at(0, 1)).reach == 7
    assert fold(looked_at(5, 2), resealed(0, 9), resealed(0, 1)).reach == 9
    assert fold(RetirementLeaf(**RETIRED | {"size": 12}), RetirementLeaf(**RETIRED), looked_at(0, 3)).reach == 12
