"""What the roster's policy says of a request: may it be asked, whose approval counts, how soon, how often."""

from collections.abc import Iterable
from typing import Any

import pytest
from tests.support import authority as make
from tests.support import requests as ask

from strongroom.approvals import Agreed, agreed, check_approval
from strongroom.crypto.sealing import Suite
from strongroom.errors import (
    ApprovalInvalid,
    ApprovalRequired,
    Denied,
    Expired,
    LimitExceeded,
    MalformedStatement,
    OfficerUnknown,
    RateLimited,
    SignatureInvalid,
    WrongAuthority,
)
from strongroom.fields import Capacity, new_id, parse_body
from strongroom.leaves import ReleaseLeaf
from strongroom.limits import (
    APPROVAL_LIFE_SECONDS_MAX,
    APPROVED_REQUEST_LIFE_SECONDS_MAX,
    CLOCK_SKEW_SECONDS,
    REQUEST_LIFE_SECONDS_MAX,
    SIGNATURES_MAX,
)
from strongroom.mandates import Approval, Officer, Policy, Role
from strongroom.messages import Request
from strongroom.roster import Roster
from strongroom.statements import Signature, Statement
from strongroom_recovery.ledger import DAY_SECONDS, HOUR_SECONDS, Case, Ledger, Who
from strongroom_recovery.policy import (
    approvals_needed,
    check_agreed,
    check_release_rate,
    check_request,
    check_request_rate,
    delay_seconds,
)

NOW = make.NOW
OTHER = "laptop-0418"
OFFICER: dict[str, Any] = {"requester": "officer-a", "requester_kind": Capacity.OFFICER}
WHO: Who = (Capacity.OFFICER, "officer-a")


# ---- may it be asked ----


def test_a_principal_may_ask_for_its_own_records() -> None:
    """Whether policy asks for approvals or not: those come after."""
    for needed in (0, 1):
        roster = make.roster(policy=Policy(self_recovery_approvals=needed))
        check_request(ask.request_body(), roster, NOW)


def test_a_principal_may_not_ask_for_anothers_records() -> None:
    """Somebody else's records are denied, whatever the policy, also while the request is on the record."""
    for is_waiting in (False, True):
        with pytest.raises(Denied, match=OTHER):
            check_request(
                ask.request_body(OTHER, requester=make.PRINCIPAL), make.roster(), NOW, is_waiting=is_waiting
            )


def test_an_officer_with_the_role_may_ask_for_anybodys_records() -> None:
    """Also for those of a principal who has the officer's name."""
    for principal in (make.PRINCIPAL, "officer-a"):
        check_request(ask.request_body(principal, **OFFICER), make.roster(), NOW)


@pytest.mark.parametrize("name", ["officer-c", "officer-z"])
def test_an_officer_without_the_role_may_not_ask(name: str) -> None:
    """Neither one who may only look, nor one whom the roster in force does not name."""
    body = ask.request_body(requester=name, requester_kind=Capacity.OFFICER)
    with pytest.raises(OfficerUnknown, match=name):
        check_request(body, make.roster(), NOW, is_waiting=True)


def test_an_officer_asks_as_an_officer_only() -> None:
    """A principal of an officer's name has none of that officer's rights."""
    with pytest.raises(Denied):
        check_request(ask.request_body(make.PRINCIPAL, requester="officer-a"), make.roster(), NOW)


def check_life_of(seconds: int, *, approvals: int = 0, is_waiting: bool = False, **changes: Any) -> None:
    roster = make.roster(policy=Policy(self_recovery_approvals=approvals))
    body = ask.request_body(expires_at=NOW + seconds, **changes)
    check_request(body, roster, NOW, is_waiting=is_waiting)


def test_a_request_that_is_answered_at_once_lives_300_seconds_at_most() -> None:
    """Where policy asks for nothing there is nothing to wait for."""
    check_life_of(REQUEST_LIFE_SECONDS_MAX)
    with pytest.raises(LimitExceeded, match="300"):
        check_life_of(REQUEST_LIFE_SECONDS_MAX + 1)
    with pytest.raises(Expired):
        check_life_of(0)


@pytest.mark.parametrize("waits", [{"approvals": 1}, OFFICER, {"is_waiting": True}])
def test_a_request_that_waits_lives_seven_days_at_most(waits: dict[str, Any]) -> None:
    """For its own principal with approvals, for an officer always, and once it waits also when policy was eased."""
    check_life_of(APPROVED_REQUEST_LIFE_SECONDS_MAX, **waits)
    with pytest.raises(LimitExceeded, match="604800"):
        check_life_of(APPROVED_REQUEST_LIFE_SECONDS_MAX + 1, **waits)
    with pytest.raises(Expired):
        check_life_of(0, **waits)


@pytest.mark.parametrize("is_waiting", [True, False])
def test_a_request_is_good_within_the_clock_skew_of_its_times(is_waiting: bool) -> None:  # noqa: FBT001
    """From a clock skew before it was issued until one after it expired and no longer, also while it waits."""
    body = ask.request_body()
    first, last = body.issued_at - CLOCK_SKEW_SECONDS, body.expires_at + CLOCK_SKEW_SECONDS
    for now in (first, last):
        check_request(body, make.roster(), now, is_waiting=is_waiting)
    for now in (first - 1, last + 1):
        with pytest.raises(Expired):
            check_request(body, make.roster(), now, is_waiting=is_waiting)


def test_a_recipient_key_of_either_suite_is_taken() -> None:
    """The one-time key may be X-Wing or P-256."""
    for suite in Suite:
        body = ask.request_body(recipient_suite=suite, recipient_key=ask.recipient(suite).public_key)
        check_request(body, make.roster(), NOW)


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
        check_request(ask.request_body(recipient_suite=suite, recipient_key=key), make.roster(), NOW)


def test_policy_asks_of_officers_and_of_owners_apart() -> None:
    """Approvals are set for each; the delay, in hours, is for officers alone."""
    policy = Policy(self_recovery_approvals=1, officer_recovery_approvals=3, officer_recovery_delay_hours=2)
    assert approvals_needed(Capacity.PRINCIPAL, policy, unwrap=False) == 1
    assert approvals_needed(Capacity.OFFICER, policy, unwrap=False) == 3
    assert delay_seconds(Capacity.PRINCIPAL, policy) == 0
    assert delay_seconds(Capacity.OFFICER, policy) == 7_200


@pytest.mark.parametrize("capacity", list(Capacity))
@pytest.mark.parametrize("asks", [0, 1, 3])
def test_unwrapping_needs_an_officer_whatever_policy_says(capacity: Capacity, asks: int) -> None:
    """One approval where policy asks for none; where it asks for more, as many as ever."""
    # A roster cannot say 0 for officers; the rule does not rest on that.
    policy = Policy().model_copy(update={"self_recovery_approvals": asks, "officer_recovery_approvals": asks})
    assert approvals_needed(capacity, policy, unwrap=True) == max(asks, 1)
    assert approvals_needed(capacity, policy, unwrap=False) == asks


def test_a_request_to_unwrap_may_wait_for_its_approval() -> None:
    """It may live for seven days where one that releases at once has 300 seconds; longer it may not."""
    roster = make.roster(policy=Policy(self_recovery_approvals=0))
    for life, is_allowed in (
        (APPROVED_REQUEST_LIFE_SECONDS_MAX, True),
        (APPROVED_REQUEST_LIFE_SECONDS_MAX + 1, False),
    ):
        request = ask.request_body(unwrap=True, expires_at=NOW + life)
        if is_allowed:
            check_request(request, roster, NOW)
        else:
            with pytest.raises(LimitExceeded):
                check_request(request, roster, NOW)
    with pytest.raises(LimitExceeded):
        check_request(ask.request_body(expires_at=NOW + REQUEST_LIFE_SECONDS_MAX + 1), roster, NOW)


# ---- one approval ----

APPROVERS = ("officer-b", "officer-d", "officer-e", "officer-f")


def renewed(name: str, key: str) -> Officer:
    """Return an officer of this name, with every role, whose key is `make.signing_key(key)`."""
    return make.officer(name).model_copy(update={"public_key": make.signing_key(key).public_key})


def roster_of(*officers: Officer, policy: Policy | None = None) -> Roster:
    """Return a roster of these officers; without any, of officer a, the approvers, and c who may only look."""
    named = officers or tuple(map(make.officer, ("officer-a", *APPROVERS)))
    inviting = [make.officer(name, Role.INVITE) for name in ("officer-i", "officer-j")]
    looking = [make.officer("officer-c", Role.AUDIT)]
    return make.roster(officers=[*named, *inviting, *looking], policy=policy or Policy())


ROSTER = roster_of()


def case_of(asked: Statement, *, time: int = NOW) -> Case:
    """Return a request as the log has it, on the record since this time."""
    ledger = Ledger()
    ledger.apply(ask.request_leaf(asked, time=time))
    case = ledger.case(parse_body(asked, Request).id)
    assert case is not None
    return case


def judged(
    statement: Statement, asked: Statement, roster: Roster = ROSTER, *, now: int = NOW, case: Case | None = None
) -> Officer:
    return check_approval(statement, (case or case_of(asked)).subject, roster, now).officer


@pytest.mark.parametrize("asked", [ask.request(), ask.request(**OFFICER)], ids=["owner", "officer"])
def test_an_approval_by_another_officer_with_the_role_counts(asked: Statement) -> None:
    """For an owner's request and for an officer's; what comes back is the officer as the roster has him."""
    assert judged(ask.approval(asked, "officer-b"), asked) == make.officer("officer-b")


def test_the_role_that_counts_is_that_of_approving() -> None:
    """It is enough alone, and all others together are not."""
    asked = ask.request(**OFFICER)
    approving = roster_of(make.officer("officer-a"), make.officer("officer-b", Role.APPROVE))
    judged(ask.approval(asked, "officer-b"), asked, approving)
    others = make.officer("officer-b", *(role for role in Role if role is not Role.APPROVE))
    with pytest.raises(OfficerUnknown, match="no role 'approve'"):
        judged(ask.approval(asked, "officer-b"), asked, roster_of(make.officer("officer-a"), others))


def test_an_officer_who_was_removed_does_not_count() -> None:
    """What he signed in his time is worth nothing under the roster in force."""
    asked = ask.request(**OFFICER)
    with pytest.raises(OfficerUnknown, match="officer-b"):
        judged(ask.approval(asked, "officer-b"), asked, roster_of(make.officer("officer-a")))


@pytest.mark.parametrize("signer", ["officer-a", "officer-d", make.PRINCIPAL, "a stranger"])
def test_an_approval_signed_by_somebody_else_does_not_count(signer: str) -> None:
    """The key has to be that of the officer whom the approval names."""
    asked = ask.request(**OFFICER)
    with pytest.raises(SignatureInvalid):
        judged(ask.approval(asked, "officer-b", key=signer), asked)


def test_an_approval_altered_after_signing_does_not_count() -> None:
    """The signature covers every byte: a longer life is not written in afterwards."""
    asked = ask.request(**OFFICER)
    signed = ask.approval(asked, "officer-b")
    longer = make.altered(parse_body(signed, Approval), expires_at=NOW + 2 * make.DAY)
    with pytest.raises(SignatureInvalid):
        judged(Statement(signed.type, longer, signed.signatures), asked)


def test_an_approval_under_another_key_id_does_not_count() -> None:
    """A key id is a hint: a stranger's signature under the officer's key id is no signature of his."""
    asked = ask.request(**OFFICER)
    signed = ask.approval(asked, "officer-b", key="a stranger")
    posing = Signature(make.signing_key("officer-b").key_id, signed.signatures[0].value)
    with pytest.raises(SignatureInvalid):
        judged(Statement(signed.type, signed.body, (posing,)), asked)


def test_an_approval_for_another_authority_does_not_count() -> None:
    """The same officer may be one elsewhere."""
    asked = ask.request(**OFFICER)
    with pytest.raises(WrongAuthority):
        judged(ask.approval(asked, "officer-b", authority="other.example.org"), asked)


def test_an_approval_of_another_request_does_not_count() -> None:
    """Neither another request's, nor one that mixes the id of one with the digest of another."""
    asked, other = ask.request(**OFFICER), ask.request(**OFFICER)
    mixed = {"request": parse_body(other, Request).id, "request_digest": other.digest.hex()}
    for statement in (
        ask.approval(other, "officer-b"),
        *(ask.approval(asked, "officer-b", **{name: value}) for name, value in mixed.items()),
    ):
        with pytest.raises(ApprovalInvalid, match="request_digest"):
            judged(statement, asked)


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": "another reason"},
        {"recipient_suite": Suite.P256, "recipient_key": ask.recipient(Suite.P256).public_key},
        {"principal": OTHER},
        {"name": "another name"},
        {"expires_at": NOW + 1},
    ],
)
def test_an_approval_of_an_altered_request_does_not_count(changes: dict[str, Any]) -> None:
    """Under the same id, for another reason, recipient, principal, record or expiry, it is another request."""
    asked = ask.request(**OFFICER)
    altered = ask.request(**(parse_body(asked, Request).model_dump() | changes))
    assert parse_body(altered, Request).id == parse_body(asked, Request).id
    with pytest.raises(ApprovalInvalid, match="request_digest"):
        judged(ask.approval(altered, "officer-b"), asked)


def test_an_approval_ends_at_its_expiry_and_not_before() -> None:
    """Until the clock skew after its expiry it counts, a second later it does not."""
    asked = ask.request(**OFFICER)
    statement = ask.approval(asked, "officer-b", expires_at=NOW + 10)
    judged(statement, asked, now=NOW + 10 + CLOCK_SKEW_SECONDS)
    with pytest.raises(Expired, match="expires_at"):
        judged(statement, asked, now=NOW + 10 + CLOCK_SKEW_SECONDS + 1)


def test_an_approval_lives_seven_days_at_most() -> None:
    """Exactly as long counts; a second more does not, however soon it is used, and no life at all neither."""
    asked = ask.request(**OFFICER)
    judged(ask.approval(asked, "officer-b", expires_at=NOW + APPROVAL_LIFE_SECONDS_MAX), asked)
    with pytest.raises(LimitExceeded, match="604800"):
        judged(ask.approval(asked, "officer-b", expires_at=NOW + APPROVAL_LIFE_SECONDS_MAX + 1), asked)
    with pytest.raises(Expired):
        judged(ask.approval(asked, "officer-b", expires_at=NOW), asked)


def test_an_approval_from_the_future_does_not_count() -> None:
    """It may be dated up to the clock skew ahead, and no further."""
    asked = ask.request(**OFFICER)
    judged(ask.approval(asked, "officer-b", issued_at=NOW + CLOCK_SKEW_SECONDS), asked)
    with pytest.raises(Expired, match="issued_at"):
        judged(ask.approval(asked, "officer-b", issued_at=NOW + CLOCK_SKEW_SECONDS + 1), asked)


# ---- nobody approves his own ----


def test_an_officer_does_not_approve_his_own_request() -> None:
    """Neither with the key that asked, nor with another one that a later roster gives him under the same name."""
    asked = ask.request(**OFFICER)
    with pytest.raises(ApprovalInvalid, match="officer-a is the one who asks"):
        judged(ask.approval(asked, "officer-a"), asked)
    roster = roster_of(renewed("officer-a", "another key"), make.officer("officer-b"))
    with pytest.raises(ApprovalInvalid, match="officer-a is the one who asks"):
        judged(ask.approval(asked, "officer-a", key="another key"), asked, roster)


def test_an_officer_does_not_approve_his_own_request_under_another_name() -> None:
    """A roster that renames him does not make him a second person: the key is the one that asked."""
    asked = ask.request(**OFFICER)
    roster = roster_of(renewed("officer-z", "officer-a"), make.officer("officer-b"))
    with pytest.raises(ApprovalInvalid, match="officer-z is the one who asks"):
        judged(ask.approval(asked, "officer-z", key="officer-a"), asked, roster)


def test_an_owner_does_not_approve_its_own_request_as_an_officer() -> None:
    """A principal that was enrolled with an officer's key is that officer."""
    asked = ask.request(key="officer-b")
    with pytest.raises(ApprovalInvalid, match="officer-b is the one who asks"):
        judged(ask.approval(asked, "officer-b"), asked)
    judged(ask.approval(asked, "officer-d"), asked)


def test_an_officer_approves_the_request_of_a_principal_of_his_name() -> None:
    """A principal and an officer of one name are two, as long as their keys are."""
    asked = ask.request("officer-b", key="the host called officer-b")
    assert judged(ask.approval(asked, "officer-b"), asked).name == "officer-b"


# ---- who agrees ----


def counting(statements: Iterable[Statement], asked: Statement, roster: Roster, now: int = NOW) -> list[Agreed]:
    """Return the approvals that count."""
    return agreed(statements, case_of(asked).subject, roster, now)[0]


def names(
    statements: Iterable[Statement], asked: Statement, roster: Roster = ROSTER, *, now: int = NOW
) -> list[str]:
    """Return the names of the officers whose approvals count, in order."""
    return [each.officer.name for each in counting(statements, asked, roster, now)]


def test_each_officer_who_approved_agrees_once() -> None:
    """In the order of the log, each with its statement, what it says, and the officer of today's roster."""
    asked = ask.request(**OFFICER)
    first, second = ask.approval(asked, "officer-d"), ask.approval(asked, "officer-b")
    found = counting([first, second], asked, ROSTER, NOW)
    assert [each.statement for each in found] == [first, second]
    assert [each.approval for each in found] == [parse_body(first, Approval), parse_body(second, Approval)]
    assert [each.officer for each in found] == [make.officer("officer-d"), make.officer("officer-b")]
    assert names([], asked) == []


def test_an_officer_who_approved_twice_agrees_once() -> None:
    """However often he signs, also where others come between; the first that counts is taken."""
    asked = ask.request(**OFFICER)
    first, other, second = (ask.approval(asked, name) for name in ("officer-b", "officer-d", "officer-b"))
    found = counting([first, other, second, first], asked, ROSTER, NOW)
    assert [each.statement for each in found] == [first, other]


def test_an_approval_that_expired_is_passed_over_and_a_later_one_counts() -> None:
    """Not the first approval of an officer but the first that still counts is taken."""
    asked = ask.request(**OFFICER)
    early = ask.approval(asked, "officer-b", expires_at=NOW + 10)
    late = ask.approval(asked, "officer-b", expires_at=NOW + make.DAY)
    now = NOW + 10 + CLOCK_SKEW_SECONDS
    assert names([early], asked, now=now) == ["officer-b"]
    assert names([early], asked, now=now + 1) == []
    (only,) = counting([early, late], asked, ROSTER, now + 1)
    assert only.statement == late


def test_an_officer_with_another_key_agrees_once_and_with_that_key_only() -> None:
    """After a roster gave him another key the old approval is nothing, and a new one beside it is one."""
    asked = ask.request(**OFFICER)
    old, new = ask.approval(asked, "officer-b"), ask.approval(asked, "officer-b", key="another key")
    roster = roster_of(make.officer("officer-a"), renewed("officer-b", "another key"))
    assert names([old], asked, roster) == []
    assert names([new], asked) == []
    for statements in ([old, new], [new, old]):
        (only,) = counting(statements, asked, roster, NOW)
        assert only.statement == new


def test_an_officer_with_another_name_agrees_once_and_under_that_name_only() -> None:
    """After a roster renamed him the approval under the old name is nothing, and a new one beside it is one."""
    asked = ask.request(**OFFICER)
    old, new = ask.approval(asked, "officer-b"), ask.approval(asked, "officer-z", key="officer-b")
    roster = roster_of(make.officer("officer-a"), renewed("officer-z", "officer-b"))
    assert names([old], asked, roster) == []
    for statements in ([old, new], [new, old]):
        (only,) = counting(statements, asked, roster, NOW)
        assert only.statement == new


def test_an_officers_old_key_in_anothers_hands_is_the_others() -> None:
    """Names and keys swapped by a roster: an approval counts for the one whose name and key it bears now."""
    asked = ask.request(**OFFICER)
    before = [ask.approval(asked, "officer-b"), ask.approval(asked, "officer-d")]
    swapped = roster_of(
        make.officer("officer-a"), renewed("officer-b", "officer-d"), renewed("officer-d", "officer-b")
    )
    assert names(before, asked, swapped) == []
    after = ask.approval(asked, "officer-b", key="officer-d")
    assert names([*before, after], asked, swapped) == ["officer-b"]


def test_two_officers_of_one_key_agree_once() -> None:
    """No roster is verified that has them; if one were, a person with two names would still be one."""
    asked = ask.request(**OFFICER)
    body = make.roster_body(officers=[renewed(name, "one key") for name in ("officer-b", "officer-d")])
    root = make.signing_key("root")
    roster = Roster(body, bytes(32), make.signed(body, root), (root.public_key,))
    statements = [ask.approval(asked, name, key="one key") for name in ("officer-b", "officer-d")]
    assert names(statements, asked, roster) == ["officer-b"]
    assert names(statements[::-1], asked, roster) == ["officer-d"]


def test_what_does_not_count_is_passed_over_and_spoils_nothing() -> None:
    """The requester's own, a stranger's, one without the role, of another request, of another type, or no body."""
    asked = ask.request(**OFFICER)
    good = ask.approval(asked, "officer-b")
    other = ask.approval(ask.request(**OFFICER), "officer-d")
    worthless = [
        ask.approval(asked, "officer-a"),
        ask.approval(asked, "officer-d", key="a stranger"),
        ask.approval(asked, "officer-c"),
        ask.approval(asked, "officer-z"),
        ask.denial(asked, "officer-d"),
        other,
        Statement.sign(good.type, b"not json", make.signing_key("officer-d")),
        Statement(good.type, good.body.replace(b"officer-b", b"officer-d"), good.signatures),
    ]
    assert names(worthless, asked) == []
    assert names([*worthless, good, *worthless], asked) == ["officer-b"]


# ---- are they enough, and is it time ----


def check(
    asked: Statement, approvers: Iterable[str], policy: Policy, *, now: int = NOW, asked_at: int = NOW
) -> None:
    """Check a request that these officers approved, and that is on the record since `asked_at`."""
    case = case_of(asked, time=asked_at)
    statements = [ask.approval(asked, name, expires_at=NOW + APPROVAL_LIFE_SECONDS_MAX) for name in approvers]
    approvals, _ = agreed(statements, case.subject, ROSTER, now)
    assert len(approvals) == len(statements)
    check_agreed(case, approvals, policy, now, unwrap=parse_body(asked, Request).unwrap)


@pytest.mark.parametrize("needed", range(1, len(APPROVERS) + 1))
@pytest.mark.parametrize("capacity", list(Capacity))
def test_as_many_officers_as_policy_asks_for_are_enough(needed: int, capacity: Capacity) -> None:
    """One fewer is refused, with their names; as many pass, and so do more."""
    asked = ask.request(**OFFICER) if capacity is Capacity.OFFICER else ask.request()
    name = "officer" if capacity is Capacity.OFFICER else "self"
    policy = Policy.model_validate({f"{name}_recovery_approvals": needed})
    check(asked, APPROVERS[:needed], policy)
    check(asked, APPROVERS, policy)
    with pytest.raises(ApprovalRequired, match=f"asks for {needed}, there are {needed - 1}") as caught:
        check(asked, APPROVERS[: needed - 1], policy)
    assert all(name in caught.value.message for name in APPROVERS[: needed - 1])
    assert caught.value.retry_at is None


def test_without_any_approval_nothing_passes_that_policy_asks_approvals_for() -> None:
    """For every number that a roster may hold, however long the request has waited; only an owner needs none."""
    for needed in range(1, SIGNATURES_MAX + 1):
        policy = Policy(self_recovery_approvals=needed, officer_recovery_approvals=needed)
        for asked in (ask.request(), ask.request(**OFFICER)):
            with pytest.raises(ApprovalRequired, match=f"asks for {needed}, there are 0$"):
                check(asked, (), policy, now=NOW + 10 * make.DAY)
    check(ask.request(), (), Policy(self_recovery_approvals=0))


def test_nothing_is_unwrapped_without_an_approval() -> None:
    """Also where policy lets an owner have its keys alone; the refusal says why one is needed, and one will do."""
    policy, asked = Policy(self_recovery_approvals=0), ask.request(unwrap=True)
    with pytest.raises(ApprovalRequired, match=r"unwrapping asks for 1, there are 0$"):
        check(asked, (), policy)
    check(asked, APPROVERS[:1], policy)
    with pytest.raises(ApprovalRequired, match="policy asks for 2, there are 1"):
        check(asked, APPROVERS[:1], Policy(self_recovery_approvals=2))


def test_one_setting_does_not_stand_for_the_other() -> None:
    """Officers are not let through by the number for owners, nor owners held up by that for officers."""
    policy = Policy(self_recovery_approvals=0, officer_recovery_approvals=3)
    check(ask.request(), (), policy)
    with pytest.raises(ApprovalRequired, match="asks for 3, there are 2"):
        check(ask.request(**OFFICER), APPROVERS[:2], policy)


def test_an_officer_is_given_nothing_before_the_delay_is_over() -> None:
    """To the second, from the request's leaf on, whatever its signed times and however many approve."""
    asked = ask.request(**OFFICER, issued_at=NOW - 7_200, expires_at=NOW + 3 * make.DAY)
    policy = Policy(officer_recovery_approvals=1, officer_recovery_delay_hours=2)
    asked_at = NOW + 5
    over = asked_at + 7_200
    for now in (asked_at, over - 1):
        with pytest.raises(ApprovalRequired, match=f"2 hours pass first, {over - now} s are left") as caught:
            check(asked, APPROVERS, policy, now=now, asked_at=asked_at)
        assert caught.value.retry_at == over
    check(asked, APPROVERS[:1], policy, now=over, asked_at=asked_at)


def test_the_delay_alone_releases_nothing() -> None:
    """With approvals missing the answer names the time while it is ahead, and none when it is over."""
    asked = ask.request(**OFFICER)
    policy = Policy(officer_recovery_approvals=2, officer_recovery_delay_hours=1)
    for now, retry_at in ((NOW + 3_599, NOW + 3_600), (NOW + 3_600, None), (NOW + make.DAY, None)):
        with pytest.raises(ApprovalRequired, match="asks for 2, there are 1") as caught:
            check(asked, APPROVERS[:1], policy, now=now)
        assert caught.value.retry_at == retry_at


def test_an_owner_waits_for_no_delay() -> None:
    """The delay gives the owner time to object; to its own request it has no objection."""
    check(ask.request(), (), Policy(officer_recovery_delay_hours=144))


# ---- how fast ----


def test_requests_beyond_the_hourly_limit_are_told_when_to_come_again() -> None:
    """The last that the limit lets passes; the next is refused until the oldest is an hour old."""
    ledger = Ledger()
    for number in range(3):
        ledger.apply(ask.request_leaf(ask.request(**OFFICER), time=NOW + number))
    check_request_rate(WHO, ledger, Policy(requests_per_hour=4), NOW + 2)
    policy = Policy(requests_per_hour=3)
    with pytest.raises(RateLimited, match="3 requests an hour; the next in 3598 s") as caught:
        check_request_rate(WHO, ledger, policy, NOW + 2)
    assert caught.value.retry_at == NOW + HOUR_SECONDS
    with pytest.raises(RateLimited):
        check_request_rate(WHO, ledger, policy, NOW + HOUR_SECONDS - 1)
    check_request_rate(WHO, ledger, policy, NOW + HOUR_SECONDS)
    for other in ((Capacity.OFFICER, "officer-b"), (Capacity.PRINCIPAL, "officer-a")):
        check_request_rate(other, ledger, policy, NOW + 2)


def given(count: int) -> Ledger:
    """Return the ledger of an officer who was given so many records at NOW."""
    ledger, asked = Ledger(), ask.request(**OFFICER)
    ledger.apply(ask.request_leaf(asked))
    leaf = ReleaseLeaf(
        time=NOW,
        id=parse_body(asked, Request).id,
        digest=asked.digest.hex(),
        release="5e" * 32,
        approvals=[],
        records=[new_id() for _ in range(count)],
    )
    ledger.apply(leaf.to_bytes())
    return ledger


def test_records_beyond_the_daily_limit_are_told_when_to_come_again() -> None:
    """As many as there is room for pass; one more is refused until what was given is a day old."""
    ledger, policy = given(4), Policy(released_records_per_day=10)
    check_release_rate(WHO, 6, ledger, policy, NOW + 1)
    with pytest.raises(RateLimited, match="10 a day for one requester; the next in 86399 s") as caught:
        check_release_rate(WHO, 7, ledger, policy, NOW + 1)
    assert caught.value.retry_at == NOW + DAY_SECONDS
    with pytest.raises(RateLimited):
        check_release_rate(WHO, 7, ledger, policy, NOW + DAY_SECONDS - 1)
    check_release_rate(WHO, 7, ledger, policy, NOW + DAY_SECONDS)
    check_release_rate((Capacity.OFFICER, "officer-b"), 7, ledger, policy, NOW + 1)


@pytest.mark.parametrize("before", [0, 4])
def test_more_records_at_once_than_a_days_limit_are_refused_for_good(before: int) -> None:
    """No waiting helps: the refusal names the limit and no time. Exactly the limit passes on a fresh day."""
    ledger, policy = given(before) if before else Ledger(), Policy(released_records_per_day=10)
    for now in (NOW + 1, NOW + DAY_SECONDS):
        with pytest.raises(LimitExceeded, match="11 asked for, the limit is 10 a day") as caught:
            check_release_rate(WHO, 11, ledger, policy, now)
        assert caught.value.retry_at is None
    check_release_rate(WHO, 10, ledger, policy, NOW + DAY_SECONDS)
