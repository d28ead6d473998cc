"""A request on the docket is believed only as far as its own signatures reach, whoever shows it."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.support import authority as make
from tests.support import requests

from strongroom.approvals import check_independent
from strongroom.crypto.sealing import kid
from strongroom.errors import ApprovalInvalid
from strongroom.fields import Capacity, parse_body
from strongroom.limits import (
    APPROVAL_LIFE_SECONDS_MAX,
    APPROVED_REQUEST_LIFE_SECONDS_MAX,
    CLOCK_SKEW_SECONDS,
)
from strongroom.mandates import LogKey, LogKeys, Role
from strongroom.messages import DocketEntry, Request, RequestState
from strongroom.roster import Roster
from strongroom.statements import Statement
from strongroom_agent.cases import Case, judged

ROOT_KEY = make.signing_key("root").public_key
OFFICERS = [*(make.officer(f"officer-{each}") for each in "abd"), make.officer("officer-c", Role.AUDIT)]
WEEK = 7 * make.DAY


def roster(**changes: Any) -> Roster:
    """Return the roster in force: officers a, b and d may do everything, c may audit."""
    return make.roster(**({"version": 2, "previous": "00" * 32, "officers": OFFICERS} | changes))


def of_host(**changes: Any) -> Statement:
    """Return a host's request that lives for a week; members as given."""
    return requests.request(**({"expires_at": make.NOW + WEEK} | changes))


def of_officer(name: str = "officer-a", *, key: str | None = None, **changes: Any) -> Statement:
    """Return an officer's request for a host's key that lives for a week; members as given."""
    members: dict[str, Any] = {"requester": name, "requester_kind": Capacity.OFFICER, "expires_at": make.NOW + WEEK}
    return requests.request(key=key, **(members | changes))


def entry(asked: Statement, *approvals: Statement, **changes: Any) -> DocketEntry:
    """Return a docket's entry for a request as an honest worker writes it; members as given."""
    body = parse_body(asked, Request)
    by_host = body.requester_kind is Capacity.PRINCIPAL
    members: dict[str, Any] = {
        "id": body.id,
        "digest": asked.digest.hex(),
        "asked_at": make.NOW,
        "log_index": 7,
        "request": asked.envelope(),
        "enrolment": enrolment(body.requester).envelope() if by_host else None,
        "roster": None,
        "approvals": [each.envelope() for each in approvals],
        "denial": None,
        "needed": 2,
        "not_before": make.NOW,
        "state": RequestState.PENDING,
        "code": None,
        "decided_at": None,
    }
    return DocketEntry(**(members | changes))


def enrolment(principal: str = make.PRINCIPAL, *, officers: Sequence[str] = ("officer-a",)) -> Statement:
    """Return the enrolment of a principal on an invitation by these officers."""
    return make.enrolment(make.invitation(principal, officers=tuple(officers)), principal)


def judge(shown: DocketEntry, *, by: Roster | None = None, now: int = make.NOW) -> Case:
    """Judge an entry as a home does."""
    return judged(shown, by or roster(), now)


# ---- what holds ----


def test_a_hosts_request_is_verified_up_to_the_root_key() -> None:
    """Enrolment, invitation and roster hold, so the request is shown as its requester's own."""
    asked = of_host()
    case = judge(entry(asked))
    assert (case.flaw, case.request, case.digest) == (None, parse_body(asked, Request), asked.digest.hex())
    assert case.signer == make.signing_key(make.PRINCIPAL).key_id
    assert case.recipient_key == kid(requests.recipient().suite, requests.recipient().public_key)


def test_an_officers_request_is_verified_by_the_roster_of_the_home() -> None:
    """The roster names the officer's key, and that key signed."""
    case = judge(entry(of_officer()))
    assert (case.flaw, case.signer) == (None, make.signing_key("officer-a").key_id)


def test_a_hosts_enrolment_is_judged_by_the_roster_of_its_time() -> None:
    """An officer who invited the host and has left since does not take the host's requests with him."""
    then = make.roster(officers=[make.officer("officer-z"), *OFFICERS])
    now = make.next_roster(then, officers=OFFICERS)
    shown = {"enrolment": enrolment(officers=["officer-z"]).envelope()}
    assert judge(entry(of_host(), **shown), by=now).flaw is not None
    case = judge(entry(of_host(), **shown, roster=then.statement.envelope()), by=now)
    assert case.flaw is None


def test_approvals_that_verify_count_and_are_named() -> None:
    """Two officers, neither of whom asks, are two approvals, and no more is missing."""
    asked = of_officer("officer-d")
    case = judge(entry(asked, requests.approval(asked, "officer-a"), requests.approval(asked, "officer-b")))
    assert [each.officer for each in case.approvals] == ["officer-a", "officer-b"]
    assert (case.missing, case.doubts, case.approvals[0].reason) == (0, (), "spoke with the owner")


def test_more_approvals_than_asked_for_leave_none_missing() -> None:
    """A missing number is never negative."""
    asked = of_host()
    case = judge(entry(asked, requests.approval(asked, "officer-a"), needed=0))
    assert (len(case.approvals), case.missing) == (1, 0)


def test_a_request_that_is_over_does_not_wait_whatever_the_worker_says() -> None:
    """The reader's own clock decides, by the clock skew."""
    asked = of_host()
    over = make.NOW + WEEK + CLOCK_SKEW_SECONDS
    assert judge(entry(asked), now=over).state is RequestState.PENDING
    assert judge(entry(asked), now=over + 1).state is RequestState.EXPIRED


def test_a_decided_request_keeps_the_approvals_of_its_time() -> None:
    """Approvals that have expired since the release counted when it was made."""
    asked = of_host()
    released = {"state": RequestState.RELEASED, "decided_at": make.NOW + 60}
    case = judge(entry(asked, requests.approval(asked), **released), now=make.NOW + 30 * make.DAY)
    assert ([each.officer for each in case.approvals], case.doubts) == (["officer-a"], ())


def test_a_decided_request_of_an_officer_without_the_role_is_no_flaw() -> None:
    """What was refused for want of a role is shown as its requester's own word all the same."""
    refused = {"state": RequestState.REFUSED, "code": "officer_unknown", "decided_at": make.NOW}
    assert judge(entry(of_officer("officer-c"), **refused)).flaw is None


def test_the_document_says_everything_for_programs() -> None:
    """Names, digests, times and approvals are all there, and a flaw takes the place of nothing."""
    asked = of_host()
    document = judge(entry(asked, requests.approval(asked))).document()
    body = parse_body(asked, Request)
    assert document["verified"] is True
    assert (document["id"], document["digest"]) == (body.id, asked.digest.hex())
    assert (document["requester"], document["requester_kind"]) == (make.PRINCIPAL, "principal")
    assert (document["name"], document["records"], document["reason"]) == ("disk/root", None, "the disk died")
    assert (document["needed"], document["missing"], document["state"]) == (2, 1, "pending")
    assert document["approvals"] == [
        {"officer": "officer-a", "expires_at": make.NOW + make.DAY, "reason": "spoke with the owner"}
    ]


# ---- what does not ----


def flaw_of(shown: DocketEntry, **judging: Any) -> str:
    """Return what is wrong with an entry; there must be something, and then nobody signed it."""
    case = judge(shown, **judging)
    assert case.flaw is not None
    assert (case.signer, case.approvals) == (None, ())
    assert case.document()["verified"] is False
    return case.flaw


def test_a_lost_request_is_not_verified() -> None:
    """Where the database has lost the envelope there is nothing to judge."""
    shown = entry(of_host(), request=None)
    assert "no longer has it" in flaw_of(shown)
    assert judge(shown).request is None


def test_an_envelope_that_is_none_is_not_verified() -> None:
    """Rubbish is told as such and breaks nothing."""
    assert "envelope" in flaw_of(entry(of_host(), request=b"rubbish"))


def test_another_request_in_its_place_is_not_verified() -> None:
    """The digest in the log decides, even when the other request is the requester's own under the same id."""
    logged = of_host()
    other = of_host(id=parse_body(logged, Request).id, reason="I sold it")
    shown = entry(logged, request=other.envelope())
    assert "digest" in flaw_of(shown)
    assert judge(shown).request is None


def test_a_request_under_another_id_is_not_verified() -> None:
    """An approval would name the id of the entry, so it must be the one that was signed."""
    shown = entry(of_host(), id=parse_body(of_host(), Request).id)
    assert "another id" in flaw_of(shown)
    assert judge(shown).request is None


def test_a_request_of_another_authority_is_not_verified() -> None:
    """A statement counts where it was addressed to."""
    assert "authority" in flaw_of(entry(of_host(authority="other.example.org")))


def test_another_statement_in_the_place_of_a_request_is_not_verified() -> None:
    """A listing request that its principal did sign is no request for keys."""
    shown = entry(of_host())
    other = requests.listing_request()
    assert "payloadType" in flaw_of(
        shown.model_copy(update={"request": other.envelope(), "digest": other.digest.hex()})
    )


def test_a_request_that_its_host_did_not_sign_is_not_verified() -> None:
    """Another key's signature, even an enrolled one's, is not the requester's."""
    assert "signatures" in flaw_of(entry(of_host(key="laptop-0418")))


def test_a_request_that_its_officer_did_not_sign_is_not_verified() -> None:
    """The roster's key for that name has to verify."""
    assert "signatures" in flaw_of(entry(of_officer(key="officer-b")))


def test_a_request_of_a_removed_officer_says_so() -> None:
    """A name that the roster does not have speaks for nobody, and what was asked can still be read."""
    shown = entry(of_officer("officer-x"))
    assert flaw_of(shown) == "officer officer-x: is not in roster version 2"
    assert judge(shown).request is not None


def test_a_waiting_request_of_an_officer_without_the_role_is_not_verified() -> None:
    """Without the role `recover` nobody may be given a key, whoever agrees."""
    assert "recover" in flaw_of(entry(of_officer("officer-c")))


def test_a_host_without_enrolment_is_not_verified() -> None:
    """The worker's word for a key is not enough."""
    assert "enrolment" in flaw_of(entry(of_host(), enrolment=None))


def test_the_enrolment_of_another_host_is_not_enough() -> None:
    """A key speaks for the principal that its enrolment names."""
    shown = entry(of_host(key="laptop-0418"), enrolment=enrolment("laptop-0418").envelope())
    assert "is of laptop-0418" in flaw_of(shown)


def test_an_enrolment_that_no_officer_vouches_for_is_not_enough() -> None:
    """The invitation in it has to be signed by an officer of the roster."""
    shown = entry(of_host(), enrolment=enrolment(officers=["somebody"]).envelope())
    assert "signed by 0 officers" in flaw_of(shown)


def test_a_roster_that_the_root_key_did_not_sign_is_not_enough() -> None:
    """An old roster is believed for its signature, not for being shown."""
    forged = make.signed(make.roster_body(officers=[make.officer("somebody")]), make.signing_key("somebody"))
    shown = entry(of_host(), enrolment=enrolment(officers=["somebody"]).envelope(), roster=forged.envelope())
    assert "root key" in flaw_of(shown)


def test_the_roster_of_another_authority_is_not_enough() -> None:
    """One root key may serve two authorities; their rosters do not mix."""
    other = make.roster(
        authority="other.example.org",
        logs=LogKeys(
            escrow=LogKey(origin="other.example.org/escrow", public_key=make.signing_key("1").public_key),
            recovery=LogKey(origin="other.example.org/recovery", public_key=make.signing_key("2").public_key),
        ),
    )
    assert "authority" in flaw_of(entry(of_host(), roster=other.statement.envelope()))


def test_a_roster_newer_than_the_homes_own_is_not_enough() -> None:
    """The worker had to send the newest one with its answer; what came otherwise is not the roster of the time."""
    newer = make.next_roster(roster())
    assert "version" in flaw_of(entry(of_host(), roster=newer.statement.envelope()))


def test_a_host_that_asks_for_anothers_records_is_not_verified() -> None:
    """No approval would make such a request one that may be answered."""
    assert "its own records only" in flaw_of(entry(of_host(requester="laptop-0418")))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"expires_at": make.NOW + APPROVED_REQUEST_LIFE_SECONDS_MAX + 1}, "limit"),
        ({"issued_at": make.NOW + CLOCK_SKEW_SECONDS + 1}, "future"),
        ({"expires_at": make.NOW}, "expires_at"),
    ],
)
def test_a_waiting_request_with_a_life_it_may_not_have_is_not_verified(changes: dict[str, Any], words: str) -> None:
    """Longer than 7 days, from the future, or none at all."""
    assert words in flaw_of(entry(of_host(**changes)))


# ---- approvals that do not count ----

ASKED = of_officer("officer-d")
OTHER = of_officer("officer-d")


@pytest.mark.parametrize(
    ("approval", "words"),
    [
        pytest.param(requests.approval(ASKED, "officer-d"), "is the one who asks", id="of the requester"),
        pytest.param(requests.approval(ASKED, "officer-c"), "has no role 'approve'", id="without the role"),
        pytest.param(requests.approval(ASKED, "officer-x"), "is not in roster", id="of nobody in the roster"),
        pytest.param(requests.approval(ASKED, key="officer-b"), "signatures", id="not signed by its officer"),
        pytest.param(requests.approval(OTHER), "for another request", id="for another request"),
        pytest.param(
            requests.approval(ASKED, request_digest=OTHER.digest.hex()), "for another request", id="other digest"
        ),
        pytest.param(
            requests.approval(ASKED, request=parse_body(OTHER, Request).id), "for another request", id="other id"
        ),
        pytest.param(requests.approval(ASKED, authority="other.example.org"), "authority", id="other authority"),
        pytest.param(
            requests.approval(
                ASKED, issued_at=make.NOW - 2 * make.DAY, expires_at=make.NOW - CLOCK_SKEW_SECONDS - 1
            ),
            "expires_at",
            id="expired",
        ),
        pytest.param(
            requests.approval(ASKED, expires_at=make.NOW + APPROVAL_LIFE_SECONDS_MAX + 1), "limit", id="too long"
        ),
        pytest.param(
            requests.approval(ASKED, issued_at=make.NOW + CLOCK_SKEW_SECONDS + 1), "future", id="from the future"
        ),
        pytest.param(requests.denial(ASKED), "payloadType", id="a denial"),
    ],
)
def test_an_approval_that_does_not_verify_does_not_count(approval: Statement, words: str) -> None:
    """It is told with the reason; the good one beside it counts, and the request stays one that can be approved."""
    case = judge(entry(ASKED, approval, requests.approval(ASKED, "officer-b")))
    assert [each.officer for each in case.approvals] == ["officer-b"]
    assert len(case.doubts) == 1
    assert words in case.doubts[0]
    assert (case.flaw, case.missing) == (None, 1)


def test_an_officers_second_approval_does_not_count() -> None:
    """One officer is one approval, however often he signs."""
    case = judge(entry(ASKED, requests.approval(ASKED), requests.approval(ASKED)))
    assert ([each.officer for each in case.approvals], case.missing) == (["officer-a"], 1)
    assert case.doubts == ("officer: officer-a has approved already",)


def test_an_officer_who_approves_with_the_requesters_key_does_not_count() -> None:
    """A host whose key is an officer's, too, cannot approve its own request under the officer's name."""
    asked = of_host(key="officer-a")
    own = make.enrolment(make.invitation(officers=("officer-b",)), key="officer-a")
    case = judge(entry(asked, requests.approval(asked), enrolment=own.envelope()))
    assert (case.flaw, case.approvals) == (None, ())
    assert case.doubts == ("officer: officer-a is the one who asks",)


def test_an_officer_may_approve_what_a_host_of_his_name_asks() -> None:
    """Hosts and officers are different people, whatever they are called; keys tell them apart."""
    asked = of_host(requester="officer-b", principal="officer-b", key="a host's own")
    own = make.enrolment(make.invitation("officer-b"), "officer-b", key="a host's own")
    case = judge(entry(asked, requests.approval(asked, "officer-b"), enrolment=own.envelope()))
    assert (case.flaw, [each.officer for each in case.approvals]) == (None, ["officer-b"])


def test_an_officer_with_another_key_is_still_the_one_who_asks() -> None:
    """A new key does not make a second person of the same officer."""
    case = judge(entry(ASKED))
    assert case.subject is not None
    renewed = make.officer("officer-d").model_copy(update={"public_key": make.signing_key("a new key").public_key})
    with pytest.raises(ApprovalInvalid, match="is the one who asks"):
        check_independent(renewed, case.subject)


# ---- who denied it ----


DENIED = {"state": RequestState.DENIED, "code": "denied", "decided_at": make.NOW + 5}


def test_a_denial_tells_who_and_why() -> None:
    """An officer's verifies by the roster; a host's, and that of an officer removed since, is the worker's word."""
    for denier, kind in (
        ("officer-b", Capacity.OFFICER),
        ("officer-z", Capacity.OFFICER),
        (make.PRINCIPAL, Capacity.PRINCIPAL),
    ):
        denial = requests.denial(ASKED, denier, denier_kind=kind)
        veto = judge(entry(ASKED, denial=denial.envelope(), **DENIED)).veto
        assert veto is not None
        assert (veto.denier, veto.capacity, veto.reason) == (denier, kind, "nobody here asked for this")


def test_a_denial_that_is_none_of_this_request_is_not_shown() -> None:
    """One of another request, one that its officer did not sign, another statement, no envelope."""
    other = requests.denial(of_officer("officer-d"), "officer-b")
    forged = requests.denial(ASKED, "officer-b", key="a stranger")
    for envelope in (other.envelope(), forged.envelope(), ASKED.envelope(), b"", None):
        assert judge(entry(ASKED, denial=envelope, **DENIED)).veto is None
