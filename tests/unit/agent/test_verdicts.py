"""Approvals, denials and revocations: who may say them, what is signed, and when they count as recorded."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.support.agents import NOW, Clock, lost, on, once, rejected_by, without_consistency
from tests.support.docket import asked_by_officer

from strongroom.crypto.signing import SigningKey
from strongroom.errors import (
    ApprovalInvalid,
    CheckpointInvalid,
    Expired,
    LimitExceeded,
    LogForked,
    MalformedStatement,
    OfficerUnknown,
    Rejected,
    ReplyInvalid,
    UsageError,
)
from strongroom.fields import Body, Capacity, new_id, parse_body
from strongroom.leaves import ApprovalLeaf, DenialLeaf, RevocationLeaf, parse_leaf
from strongroom.limits import APPROVAL_LIFE_SECONDS_MAX
from strongroom.mandates import Approval, Denial, Revocation, Role
from strongroom.messages import RequestState
from strongroom.replies import Reply
from strongroom.statements import Statement, parse_envelope
from strongroom.testing import FakeAuthority, FakeLog, FakeMessage
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import Enrolled
from strongroom_agent.home import Home
from strongroom_agent.identity import signing_key

Make = Callable[[str], Home]


@pytest.fixture
def alice_home(officer_home: Make) -> Home:
    return officer_home("alice")


@pytest.fixture
def alice(alice_home: Home, authority: FakeAuthority, clock: Clock) -> Iterator[Agent]:
    """The agent of alice, an officer with every role."""
    with Agent.open(alice_home.path, connector=authority.connect, clock=clock) as opened:
        yield opened


def sent(authority: FakeAuthority, model: type[Body]) -> list[Statement]:
    """Return every message of a type that reached the authority, in order."""
    came = [parse_envelope(each.body) for each in authority.received]
    return [each for each in came if each.type == model.TYPE]


def without_roles(authority: FakeAuthority, name: str, *roles: Role) -> None:
    """Put in force a roster in which an officer lacks these roles."""
    authority.officer_roles[name] = [role for role in Role if role not in roles]
    authority.renew_roster()


# ---- approve ----


async def test_an_approval_is_over_the_digest_of_the_verified_request(
    alice: Agent, alice_home: Home, authority: FakeAuthority
) -> None:
    """Request, digest, officer, reason and life are signed by the officer's key; the receipt says where it is."""
    asked = asked_by_officer(authority, "officer-1")
    case = await alice.case(asked.request.id)
    recorded = await alice.approve(case, reason="spoke with her", life_seconds=3600)
    [statement] = sent(authority, Approval)
    body = parse_body(statement, Approval)
    statement.verify_signature(alice_home.config.public_key, alice_home.config.key_id)
    assert (body.request, body.request_digest) == (asked.request.id, asked.statement.digest.hex())
    assert (body.officer, body.reason, body.issued_at, body.expires_at) == (
        "alice",
        "spoke with her",
        NOW,
        NOW + 3600,
    )
    leaf = parse_leaf(authority.recovery_log.leaves[recorded.log_index])
    assert isinstance(leaf, ApprovalLeaf)
    assert (recorded.id, recorded.digest, recorded.time) == (leaf.id, leaf.digest, leaf.time)
    assert recorded.tree_size == authority.recovery_log.size


async def test_an_approval_is_there_at_the_next_look(alice: Agent, authority: FakeAuthority) -> None:
    """The docket then names the officer, and one approval fewer is missing."""
    asked = asked_by_officer(authority, "officer-1")
    case = await alice.case(asked.request.id)
    assert (case.missing, alice.standing_approval(case)) == (2, None)
    await alice.approve(case)
    again = await alice.case(asked.request.id)
    standing = alice.standing_approval(again)
    assert standing is not None
    assert (again.missing, standing.officer) == (1, "alice")


async def test_an_approval_stands_only_as_long_as_the_request_waits(alice: Agent, authority: FakeAuthority) -> None:
    """Of a denied request nobody is told that all is well because it was approved before."""
    case_id = asked_by_officer(authority, "officer-1").request.id
    await alice.approve(await alice.case(case_id))
    case = await alice.case(case_id)
    assert alice.standing_approval(case) is not None
    assert alice.standing_approval(replace(case, state=RequestState.DENIED)) is None


@pytest.mark.parametrize("life_seconds", [APPROVAL_LIFE_SECONDS_MAX, 10**9])
async def test_an_approval_never_outlives_its_request(
    alice: Agent, authority: FakeAuthority, clock: Clock, life_seconds: int
) -> None:
    """However long a life is asked for."""
    case = await alice.case(asked_by_officer(authority, "officer-1").request.id)
    assert case.request is not None
    clock.seconds += 3 * 86_400
    await alice.approve(case, life_seconds=life_seconds)
    [statement] = sent(authority, Approval)
    assert parse_body(statement, Approval).expires_at == case.request.expires_at


async def test_an_approval_lives_seven_days_at_most(alice: Agent, authority: FakeAuthority) -> None:
    """A request by a host whose clock is a little fast ends later than an approval may."""
    ahead: dict[str, Any] = {"issued_at": NOW + 60, "expires_at": NOW + 60 + APPROVAL_LIFE_SECONDS_MAX}
    case = await alice.case(asked_by_officer(authority, "officer-1", **ahead).request.id)
    await alice.approve(case, life_seconds=10**9)
    [statement] = sent(authority, Approval)
    assert parse_body(statement, Approval).expires_at == NOW + APPROVAL_LIFE_SECONDS_MAX


async def test_an_approval_without_answer_is_sent_again_the_same(alice: Agent, authority: FakeAuthority) -> None:
    """So there is one of it, whether or not the first one arrived."""
    case = await alice.case(asked_by_officer(authority, "officer-1").request.id)
    authority.alter = on("recovery", once(lost))
    await alice.approve(case)
    first, second = sent(authority, Approval)
    assert first.envelope() == second.envelope()
    assert len(authority.workers.docket.cases[case.id].approvals) == 1


async def test_the_checkpoint_of_a_receipt_is_kept(alice: Agent, authority: FakeAuthority) -> None:
    """The log that was seen is the one that later answers have to continue."""
    case = await alice.case(asked_by_officer(authority, "officer-1").request.id)
    await alice.approve(case)
    kept = alice._state.checkpoint("recovery")
    assert kept is not None
    assert kept.size == authority.recovery_log.size


async def approval_refused(alice: Agent, authority: FakeAuthority, case_id: str, words: str) -> None:
    """See an approval refused before anything is signed or sent, by the question and by the deed."""
    case = await alice.case(case_id)
    with pytest.raises(ApprovalInvalid, match=words):
        alice.check_approvable(case)
    with pytest.raises(ApprovalInvalid, match=words):
        await alice.approve(case)
    assert sent(authority, Approval) == []


async def test_ones_own_request_is_not_approved(alice: Agent, alice_home: Home, authority: FakeAuthority) -> None:
    """An officer's word for himself counts for nothing."""
    asked = asked_by_officer(authority, "alice", key=signing_key(alice_home, None))
    await approval_refused(alice, authority, asked.request.id, "is the one who asks")


async def test_a_request_that_is_not_verified_is_not_approved(alice: Agent, authority: FakeAuthority) -> None:
    """Whatever is wrong with it is said."""
    asked = asked_by_officer(authority, "officer-1")
    asked.lost = True
    await approval_refused(alice, authority, asked.request.id, "not verified: .*no longer has it")


async def test_a_request_that_its_requester_did_not_sign_is_not_approved(
    alice: Agent, authority: FakeAuthority
) -> None:
    """What can be read and is nobody's signed word is no more than what cannot."""
    asked = asked_by_officer(authority, "officer-1", key=authority.officers["officer-2"])
    await approval_refused(alice, authority, asked.request.id, "not verified: signatures")


@pytest.mark.parametrize("state", [RequestState.RELEASED, RequestState.REFUSED, RequestState.DENIED])
async def test_a_request_that_does_not_wait_is_not_approved(
    alice: Agent, authority: FakeAuthority, state: RequestState
) -> None:
    """Released, refused and denied ones are past saying anything to."""
    asked = asked_by_officer(authority, "officer-1")
    authority.workers.docket.decided(asked.request.id, state)
    await approval_refused(alice, authority, asked.request.id, f"does not wait any more: it is {state.value}")


async def test_a_request_is_not_approved_twice_by_one_officer(alice: Agent, authority: FakeAuthority) -> None:
    """The second one is refused here as the authority would refuse it."""
    case_id = asked_by_officer(authority, "officer-1").request.id
    await alice.approve(await alice.case(case_id))
    case = await alice.case(case_id)
    with pytest.raises(ApprovalInvalid, match="alice has approved it already"):
        await alice.approve(case)
    assert len(sent(authority, Approval)) == 1


async def test_the_authority_refuses_a_second_approval_that_the_docket_did_not_show(
    alice: Agent, authority: FakeAuthority
) -> None:
    """Two runs at once: the later one is told so by the authority, with the exit code of a denial."""
    case = await alice.case(asked_by_officer(authority, "officer-1").request.id)
    await alice.approve(case)
    with pytest.raises(Rejected, match="approved this request already") as caught:
        await alice.approve(case)
    assert (caught.value.remote_code, caught.value.exit_code) == ("approval_invalid", 4)


async def test_an_officer_without_the_role_approves_nothing(alice: Agent, authority: FakeAuthority) -> None:
    """The newest roster counts, which came with the docket."""
    asked = asked_by_officer(authority, "officer-1")
    without_roles(authority, "alice", Role.APPROVE)
    case = await alice.case(asked.request.id)
    for refuse in (alice.check_approvable, alice.standing_approval):
        with pytest.raises(OfficerUnknown, match="has no role 'approve'"):
            refuse(case)
    with pytest.raises(OfficerUnknown, match="has no role 'approve'"):
        await alice.approve(case)
    assert sent(authority, Approval) == []


async def test_an_officer_whose_key_the_roster_no_longer_names_approves_nothing(
    alice: Agent, authority: FakeAuthority
) -> None:
    """The name alone is nothing."""
    case = await alice.case(asked_by_officer(authority, "officer-1").request.id)
    renamed = authority.name_officer("alice", SigningKey.generate().public_key)
    alice._trust().adopt(renamed.statement, NOW)
    with pytest.raises(OfficerUnknown, match="another key"):
        await alice.approve(case)


async def test_a_host_approves_nothing(agent: Agent, enrolled: Enrolled, authority: FakeAuthority) -> None:
    """It is no officer, not even for requests for its own records."""
    asked = asked_by_officer(authority, "officer-1", principal=enrolled.principal)
    case = await agent.case(asked.request.id)
    with pytest.raises(OfficerUnknown):
        await agent.approve(case)


async def test_a_request_that_ends_at_this_moment_is_not_approved(
    alice: Agent, authority: FakeAuthority, clock: Clock
) -> None:
    """An approval would have no life."""
    case = await alice.case(asked_by_officer(authority, "officer-1").request.id)
    assert case.request is not None
    clock.seconds = case.request.expires_at
    with pytest.raises(Expired, match="is over"):
        await alice.approve(case)


async def test_a_request_that_is_over_is_neither_approved_nor_denied(
    alice: Agent, authority: FakeAuthority, clock: Clock
) -> None:
    """Nothing said to it would matter."""
    asked = asked_by_officer(authority, "officer-1")
    clock.seconds = asked.request.expires_at + 61
    case = await alice.case(asked.request.id)
    with pytest.raises(Expired, match="is over"):
        await alice.approve(case)
    with pytest.raises(Expired, match="is over"):
        await alice.deny(case, reason="no")
    assert sent(authority, Approval) + sent(authority, Denial) == []


async def test_a_reason_beyond_the_limit_is_refused_before_anything_is_sent(
    alice: Agent, authority: FakeAuthority
) -> None:
    """1,024 characters."""
    case = await alice.case(asked_by_officer(authority, "officer-1").request.id)
    with pytest.raises(LimitExceeded, match="reason"):
        await alice.approve(case, reason="x" * 1025)
    assert sent(authority, Approval) == []


# ---- answers that are not to be believed ----


def logged_instead(authority: FakeAuthority, **changes: Any) -> Callable[[FakeMessage, Reply], Reply]:
    """Answer with the receipt of another leaf than the one that the message asks for."""

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        assert reply.receipt is not None
        log = authority.recovery_log
        true = parse_leaf(log.leaves[-1])
        held = log.size - 1
        index = log.append(true.model_copy(update=changes).to_bytes())
        return Reply(receipt=dict(log.receipt(index)), consistency=log.consistency(held))

    return alter


@pytest.mark.parametrize(
    "changes",
    [
        {"id": new_id()},
        {"digest": "00" * 32},
        {"officer": "officer-2"},
        {"key": "00" * 16},
        {"request": new_id()},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_receipt_for_another_approval_is_refused(
    alice: Agent, authority: FakeAuthority, changes: dict[str, Any]
) -> None:
    """Every member of the leaf names what was sent."""
    case = await alice.case(asked_by_officer(authority, "officer-1").request.id)
    authority.alter = on("recovery", logged_instead(authority, **changes))
    with pytest.raises(ReplyInvalid, match="something else"):
        await alice.approve(case)


async def test_a_receipt_of_another_type_is_refused(alice: Agent, authority: FakeAuthority) -> None:
    """The leaf of the request itself is no approval."""
    case = await alice.case(asked_by_officer(authority, "officer-1").request.id)
    log = authority.recovery_log
    authority.alter = on("recovery", lambda _message, reply: replace(reply, receipt=dict(log.receipt(0))))
    with pytest.raises(ReplyInvalid, match="something else"):
        await alice.approve(case)


async def test_an_answer_without_receipt_is_refused(alice: Agent, authority: FakeAuthority) -> None:
    """A docket again is no receipt."""
    case = await alice.case(asked_by_officer(authority, "officer-1").request.id)

    def no_receipt(_message: FakeMessage, reply: Reply) -> Reply:
        return Reply(statement=authority.roster.statement, roster=reply.roster)

    authority.alter = on("recovery", no_receipt)
    with pytest.raises(ReplyInvalid, match="without a receipt"):
        await alice.approve(case)


async def test_a_receipt_of_another_log_is_refused(alice: Agent, authority: FakeAuthority) -> None:
    """Only the recovery log's key signs for what officers say."""
    case = await alice.case(asked_by_officer(authority, "officer-1").request.id)

    def elsewhere(_message: FakeMessage, _reply: Reply) -> Reply:
        log = FakeLog(authority.recovery_log.origin)
        return Reply(receipt=dict(log.receipt(log.append(authority.recovery_log.leaves[-1]))))

    authority.alter = on("recovery", elsewhere)
    with pytest.raises(CheckpointInvalid):
        await alice.approve(case)


async def test_a_log_that_does_not_continue_what_was_seen_is_refused(
    alice: Agent, authority: FakeAuthority
) -> None:
    """A second receipt has to prove that its log grew out of the first one's."""
    await alice.approve(await alice.case(asked_by_officer(authority, "officer-1").request.id))
    case = await alice.case(asked_by_officer(authority, "officer-2").request.id)
    authority.alter = on("recovery", without_consistency)
    with pytest.raises(ReplyInvalid, match="continues"):
        await alice.approve(case)


async def test_a_log_that_was_rewritten_is_evidence(alice: Agent, authority: FakeAuthority) -> None:
    """The fork is told and kept."""
    await alice.approve(await alice.case(asked_by_officer(authority, "officer-1").request.id))
    case = await alice.case(asked_by_officer(authority, "officer-2").request.id)
    held = alice._state.checkpoint("recovery")
    assert held is not None

    def rewritten(_message: FakeMessage, reply: Reply) -> Reply:
        true, fork = authority.recovery_log, FakeLog(authority.recovery_log.origin)
        fork.key = true.key
        for leaf in [b"{}", *true.leaves[1:]]:
            fork.append(leaf)
        receipt = fork.receipt(fork.size - 1)
        return replace(reply, receipt=dict(receipt), consistency=fork.consistency(held.size))

    authority.alter = on("recovery", rewritten)
    with pytest.raises(LogForked):
        await alice.approve(case)
    assert [each.log for each in alice._state.evidence()] == ["recovery"]


async def test_a_rejection_that_the_worker_did_not_sign_says_nothing(
    alice: Agent, authority: FakeAuthority
) -> None:
    """It is no refusal, and no receipt either."""
    case = await alice.case(asked_by_officer(authority, "officer-1").request.id)
    authority.alter = on("recovery", rejected_by(authority.escrow_reply_key))
    with pytest.raises(ReplyInvalid):
        await alice.approve(case)


# ---- deny ----


async def test_an_officer_denies_a_request(alice: Agent, alice_home: Home, authority: FakeAuthority) -> None:
    """Any officer may, without any role; the denial is over the digest and is on the record."""
    without_roles(authority, "alice", *Role)
    asked = asked_by_officer(authority, "officer-1")
    recorded = await alice.deny(await alice.case(asked.request.id), reason="no ticket")
    [statement] = sent(authority, Denial)
    body = parse_body(statement, Denial)
    statement.verify_signature(alice_home.config.public_key, alice_home.config.key_id)
    assert (body.denier, body.denier_kind, body.reason) == ("alice", Capacity.OFFICER, "no ticket")
    assert (body.request, body.request_digest) == (asked.request.id, asked.statement.digest.hex())
    assert isinstance(parse_leaf(authority.recovery_log.leaves[recorded.log_index]), DenialLeaf)
    assert (await alice.case(asked.request.id)).state is RequestState.DENIED


async def test_the_owner_denies_a_request_for_its_own_records(
    agent: Agent, enrolled: Enrolled, authority: FakeAuthority
) -> None:
    """A host says no for itself, by its own key."""
    asked = asked_by_officer(authority, "officer-1", principal=enrolled.principal)
    await agent.deny(await agent.case(asked.request.id), reason="still here")
    [statement] = sent(authority, Denial)
    statement.verify_signature(enrolled.home.config.public_key, enrolled.home.config.key_id)
    body = parse_body(statement, Denial)
    assert (body.denier, body.denier_kind) == (enrolled.principal, Capacity.PRINCIPAL)
    assert authority.workers.docket.cases[asked.request.id].state is RequestState.DENIED


async def test_a_request_that_is_not_verified_may_be_denied(alice: Agent, authority: FakeAuthority) -> None:
    """A denial harms nobody who asks honestly, and what is amiss had better be stopped."""
    asked = asked_by_officer(authority, "officer-1")
    asked.lost = True
    await alice.deny(await alice.case(asked.request.id), reason="odd")
    assert authority.workers.docket.cases[asked.request.id].state is RequestState.DENIED


async def test_a_host_does_not_deny_requests_for_anothers_records(
    alice: Agent, agent: Agent, authority: FakeAuthority
) -> None:
    """Only officers speak for others."""
    case = await alice.case(asked_by_officer(authority, "officer-1", principal="laptop-0418").request.id)
    with pytest.raises(ApprovalInvalid, match="laptop-0418"):
        await agent.deny(case, reason="no")
    assert sent(authority, Denial) == []


async def test_somebody_who_is_no_officer_any_more_denies_nothing(alice: Agent, authority: FakeAuthority) -> None:
    """The newest roster seen decides; here it is one that came with another answer."""
    asked = asked_by_officer(authority, "officer-1")
    case = await alice.case(asked.request.id)
    del authority.officer_keys["alice"]
    alice._trust().adopt(authority.renew_roster().statement, NOW)
    with pytest.raises(OfficerUnknown, match="alice"):
        await alice.deny(case, reason="no")
    assert sent(authority, Denial) == []


async def test_a_request_that_does_not_wait_is_not_denied(alice: Agent, authority: FakeAuthority) -> None:
    """What was released cannot be taken back."""
    asked = asked_by_officer(authority, "officer-1")
    authority.workers.docket.decided(asked.request.id, RequestState.RELEASED)
    case = await alice.case(asked.request.id)
    with pytest.raises(ApprovalInvalid, match="it is released"):
        await alice.deny(case, reason="no")
    assert sent(authority, Denial) == []


@pytest.mark.parametrize("reason", ["", "  "])
async def test_a_denial_needs_a_reason(alice: Agent, authority: FakeAuthority, reason: str) -> None:
    """It stays on record, and somebody will ask."""
    case = await alice.case(asked_by_officer(authority, "officer-1").request.id)
    with pytest.raises(UsageError, match="reason"):
        await alice.deny(case, reason=reason)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": new_id()},
        {"digest": "00" * 32},
        {"denier": "officer-2"},
        {"denier_kind": Capacity.PRINCIPAL},
        {"key": "00" * 16},
        {"request": new_id()},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_receipt_for_another_denial_is_refused(
    alice: Agent, authority: FakeAuthority, changes: dict[str, Any]
) -> None:
    """Every member of the leaf names what was sent."""
    case = await alice.case(asked_by_officer(authority, "officer-1").request.id)
    authority.alter = on("recovery", logged_instead(authority, **changes))
    with pytest.raises(ReplyInvalid, match="something else"):
        await alice.deny(case, reason="no")


# ---- revoke ----


async def test_a_revoked_principal_is_refused_from_then_on(
    alice: Agent, agent: Agent, enrolled: Enrolled, authority: FakeAuthority
) -> None:
    """The revocation is on the record, and what the host signs afterwards is not taken."""
    recorded = await alice.revoke(enrolled.principal, reason="stolen")
    [statement] = sent(authority, Revocation)
    body = parse_body(statement, Revocation)
    assert (body.officer, body.principal, body.key, body.reason) == ("alice", enrolled.principal, None, "stolen")
    assert isinstance(parse_leaf(authority.recovery_log.leaves[recorded.log_index]), RevocationLeaf)
    with pytest.raises(Rejected) as caught:
        await agent.docket()
    assert caught.value.remote_code == "principal_revoked"


async def test_one_key_of_a_principal_may_be_revoked(
    alice: Agent, enrolled: Enrolled, authority: FakeAuthority
) -> None:
    """The key is named by its id, in the statement and in the leaf."""
    recorded = await alice.revoke(enrolled.principal, key=enrolled.key_id, reason="copied")
    leaf = parse_leaf(authority.recovery_log.leaves[recorded.log_index])
    assert isinstance(leaf, RevocationLeaf)
    assert leaf.key == enrolled.key_id


async def test_a_principal_that_nobody_is_cannot_be_revoked(alice: Agent) -> None:
    """The authority knows who is enrolled."""
    with pytest.raises(Rejected) as caught:
        await alice.revoke("laptop-9999", reason="stolen")
    assert (caught.value.remote_code, caught.value.exit_code) == ("not_found", 3)


async def test_an_officer_without_the_role_revokes_nobody(alice: Agent, authority: FakeAuthority) -> None:
    """Refused before anything is sent, by the newest roster seen."""
    without_roles(authority, "alice", Role.REVOKE)
    alice._trust().adopt(authority.roster.statement, NOW)
    with pytest.raises(OfficerUnknown, match="has no role 'revoke'"):
        alice.check_revoker()
    with pytest.raises(OfficerUnknown, match="has no role 'revoke'"):
        await alice.revoke("laptop-0417", reason="stolen")
    assert authority.received == []


@pytest.mark.parametrize("reason", ["", "\u2003"])
async def test_a_revocation_needs_a_reason(alice: Agent, reason: str) -> None:
    """It stays on record, and somebody will ask."""
    with pytest.raises(UsageError, match="reason"):
        await alice.revoke("laptop-0417", reason=reason)


@pytest.mark.parametrize(("principal", "key"), [("Laptop 1", None), ("laptop-0417", "0xabc")])
async def test_names_and_key_ids_that_are_none_are_refused(
    alice: Agent, authority: FakeAuthority, principal: str, key: str | None
) -> None:
    """Before anything is sent."""
    with pytest.raises(MalformedStatement):
        await alice.revoke(principal, key=key, reason="stolen")
    assert authority.received == []


@pytest.mark.parametrize(
    "changes",
    [
        {"id": new_id()},
        {"digest": "00" * 32},
        {"officer": "officer-2"},
        {"principal": "laptop-0418"},
        {"key": "00" * 16},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_receipt_for_another_revocation_is_refused(
    alice: Agent, enrolled: Enrolled, authority: FakeAuthority, changes: dict[str, Any]
) -> None:
    """Every member of the leaf names what was sent."""
    authority.alter = on("recovery", logged_instead(authority, **changes))
    with pytest.raises(ReplyInvalid, match="something else"):
        await alice.revoke(enrolled.principal, reason="stolen")
