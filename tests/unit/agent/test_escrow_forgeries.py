"""Receipts, histories and rosters that must not count, as an escrowing agent meets them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.support.agents import NOW, Alteration, Clock, in_turn, key, on, once, without_consistency

from strongroom.checkpoint_file import working_origin
from strongroom.errors import (
    BrokerUnavailable,
    CheckpointInvalid,
    ExitCode,
    Expired,
    LogForked,
    ProofInvalid,
    ReplyInvalid,
    RosterInvalid,
    StrongroomError,
)
from strongroom.fields import parse_body
from strongroom.leaves import EscrowLeaf, parse_leaf
from strongroom.messages import Escrow
from strongroom.replies import TREE_SIZE_HEADER, Consistency, Reply
from strongroom.statements import parse_envelope
from strongroom.testing import FakeAuthority, FakeLog, FakeMessage
from strongroom_agent import delivery
from strongroom_agent.agent import Agent, Delivery
from strongroom_agent.state import Evidence


def evidence(agent: Agent) -> list[Evidence]:
    return agent._state.evidence()


def sizes(authority: FakeAuthority) -> list[object]:
    return [m.headers[TREE_SIZE_HEADER] for m in authority.received if m.routing_key.startswith("v1.escrow.")]


# ---- receipts that are not to be believed ----


def replayed(authority: FakeAuthority) -> Alteration:
    """Answer with the receipt of leaf 0 in the newest tree."""
    return lambda _message, reply: replace(reply, receipt=dict(authority.escrow_log.receipt(0)))


def signed_by_stranger(authority: FakeAuthority) -> Alteration:
    """Answer with a receipt from a log of the same name under another key."""

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        log = FakeLog(authority.escrow_log.origin)
        for leaf in authority.escrow_log.leaves:
            log.append(leaf)
        held = reply.consistency.from_size if reply.consistency else 0
        return replace(reply, receipt=dict(log.receipt(log.size - 1)), consistency=log.consistency(held))

    return alter


def not_committed(authority: FakeAuthority) -> Alteration:
    """Answer with a receipt under a working checkpoint, as whoever owns the database may have come by."""

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        log = FakeLog(working_origin(authority.escrow_log.origin))
        log.key = authority.escrow_log.key
        for leaf in authority.escrow_log.leaves:
            log.append(leaf)
        return replace(reply, receipt=dict(log.receipt(log.size - 1)))

    return alter


def false_proof(_message: FakeMessage, reply: Reply) -> Reply:
    """Change the leaf under a true proof."""
    assert reply.receipt is not None
    leaf = "e30="  # {}
    return replace(reply, receipt={**reply.receipt, "leaf": leaf})


def from_nothing(_message: FakeMessage, reply: Reply) -> Reply:
    """Claim to continue the empty tree, as every tree does."""
    return replace(reply, consistency=Consistency(0, ()))


def without_receipt(_message: FakeMessage, reply: Reply) -> Reply:
    """Leave the receipt out, and have something else in its place."""
    return replace(reply, receipt=None, statement=parse_envelope(_message.body))


@pytest.mark.parametrize(
    ("forge", "error"),
    [
        pytest.param(replayed, ReplyInvalid, id="replayed"),
        pytest.param(signed_by_stranger, CheckpointInvalid, id="another log key"),
        pytest.param(not_committed, CheckpointInvalid, id="working checkpoint"),
        pytest.param(lambda _authority: false_proof, ProofInvalid, id="another leaf"),
        pytest.param(lambda _authority: without_consistency, ReplyInvalid, id="no consistency"),
        pytest.param(lambda _authority: from_nothing, ReplyInvalid, id="consistency from nothing"),
        pytest.param(lambda _authority: without_receipt, ReplyInvalid, id="no receipt"),
        pytest.param(lambda _authority: lambda _message, _reply: b"{}", ReplyInvalid, id="empty"),
        pytest.param(lambda _authority: lambda _message, _reply: b"\x1f\x8b", ReplyInvalid, id="compressed"),
        pytest.param(lambda _authority: lambda _message, _reply: b" " * 4_194_305, ReplyInvalid, id="large"),
    ],
)
async def test_a_forged_receipt_never_counts(
    agent: Agent,
    authority: FakeAuthority,
    forge: Callable[[FakeAuthority], Alteration],
    error: type[StrongroomError],
) -> None:
    """The entry stays spooled, the checkpoint stays, the error has its name; the true receipt counts later."""
    await agent.escrow([key()])
    before = agent._state.checkpoint("escrow")
    authority.alter = forge(authority)
    done = await agent.escrow([key()], wait_seconds=5)
    assert type(done.error) is error
    assert (done.stored, done.spooled, done.exit_code) == (0, 1, ExitCode.FAILED)
    assert done.records[0].last_error == f"{error.code}: {done.error.message}"
    assert agent._state.checkpoint("escrow") == before
    assert evidence(agent) == []
    authority.alter = lambda _message, reply: reply
    assert (await agent.sync()).delivery.stored == 1


@pytest.mark.parametrize("member", ["id", "digest"])
async def test_a_leaf_that_names_another_statement_does_not_count(
    agent: Agent, authority: FakeAuthority, member: str
) -> None:
    """Even under a checkpoint that the real log signed."""
    other = {"id": "01a2050e-1a43-74ad-a430-3b0ef9071f2e", "digest": "0" * 64}[member]

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        leaf = parse_leaf(authority.escrow_log.leaves[-1]).model_copy(update={member: other})
        index = authority.escrow_log.append(leaf.to_bytes())
        return replace(reply, receipt=dict(authority.escrow_log.receipt(index)))

    authority.alter = alter
    done = await agent.escrow([key()])
    assert isinstance(done.error, ReplyInvalid)
    assert done.spooled == 1


async def test_one_forged_receipt_does_not_spoil_the_others(agent: Agent, authority: FakeAuthority) -> None:
    """The true ones of the round count."""
    for _ in range(3):
        await agent.escrow([key()], wait_seconds=0)
    authority.alter = once(false_proof)
    report = await agent.sync()
    assert (report.delivery.stored, report.delivery.spooled) == (2, 1)
    assert isinstance(report.error, ProofInvalid)


# ---- logs that contradict themselves ----


def rewritten(authority: FakeAuthority, size: int) -> FakeLog:
    """Give another history of `size` leaves, signed by the true log key."""
    log = FakeLog(authority.escrow_log.origin)
    log.key = authority.escrow_log.key
    for number in range(size):
        log.append(b"another history %d" % number)
    return log


def from_log(log: FakeLog) -> Alteration:
    """Answer out of this log: it takes the leaf that the true one was given."""

    def alter(message: FakeMessage, reply: Reply) -> Reply:
        statement = parse_envelope(message.body)
        escrow = parse_body(statement, Escrow)
        index = log.append(
            EscrowLeaf(
                time=NOW,
                id=escrow.id,
                digest=statement.digest.hex(),
                principal=escrow.principal,
                key=statement.signatures[0].key_id,
            ).to_bytes()
        )
        held = message.headers[TREE_SIZE_HEADER]
        return replace(reply, receipt=dict(log.receipt(index)), consistency=log.consistency(int(held)))

    return alter


async def forked(agent: Agent, authority: FakeAuthority, log: FakeLog) -> Delivery:
    before = agent._state.checkpoint("escrow")
    authority.alter = on("escrow", from_log(log))
    done = await agent.escrow([key()])
    assert isinstance(done.error, LogForked)
    assert (done.stored, done.spooled, done.exit_code) == (0, 1, ExitCode.FAILED)
    assert agent._state.checkpoint("escrow") == before
    return done


@pytest.mark.parametrize("size", [0, 1, 2, 3, 10])
async def test_another_history_is_a_fork_whatever_its_size(
    agent: Agent, authority: FakeAuthority, size: int
) -> None:
    """Smaller, as large, larger: the entry stays spooled and both signed checkpoints are kept."""
    for _ in range(3):
        await agent.escrow([key()])
    held = agent._state.checkpoint("escrow")
    assert held is not None
    log = rewritten(authority, size)
    await forked(agent, authority, log)
    [kept] = evidence(agent)
    assert (kept.log, kept.held_note, kept.note) == ("escrow", held.note, log.checkpoint())
    assert kept.statement == agent._spool.spooled()[0]


async def test_a_log_that_went_back_in_time_is_a_fork(agent: Agent, authority: FakeAuthority) -> None:
    """A restored backup of the true log is a prefix of what was seen, and still no receipt counts."""
    await agent.escrow([key()])
    log = rewritten(authority, 0)
    log.append(authority.escrow_log.leaves[0])
    await agent.escrow([key()])
    await agent.escrow([key()])
    await forked(agent, authority, log)


async def test_after_a_fork_nothing_more_is_sent_in_that_call(agent: Agent, authority: FakeAuthority) -> None:
    """The window holds one statement here; the second is never sent."""
    await agent.escrow([key()])
    for _ in range(2):
        await agent.escrow([key()], wait_seconds=0)
    authority.alter = on("escrow", from_log(rewritten(authority, 5)))
    before = len(authority.received)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "WINDOW_STATEMENTS_MAX", 1)
        report = await agent.sync()
    assert len(authority.received) == before + 1
    assert (report.compared, report.exit_code) == (False, ExitCode.FAILED)
    assert report.delivery.spooled == 2


async def test_after_a_fork_nothing_counts_until_the_evidence_is_cleared(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Not even receipts of the true log; listing and roster still come, and every call says why it failed."""
    await agent.escrow([key()])
    await forked(agent, authority, rewritten(authority, 5))
    authority.alter = lambda _message, reply: reply
    sent = [message for message in authority.received if message.routing_key.startswith("v1.escrow.")]
    authority.renew_roster()
    report = await agent.sync()
    assert isinstance(report.error, LogForked)
    assert report.error.hint is not None
    assert (report.delivery.stored, report.delivery.spooled, report.exit_code) == (0, 1, ExitCode.FAILED)
    assert report.delivery.records[0].last_error == f"log_forked: {report.error.message}"
    assert (report.compared, report.roster_changed) == (True, True)
    done = await agent.escrow([key()])
    assert isinstance(done.error, LogForked)
    assert [m for m in authority.received if m.routing_key.startswith("v1.escrow.")] == sent
    assert agent.clear_evidence() == 1
    assert evidence(agent) == []
    after = await agent.sync()
    assert (after.delivery.stored, after.exit_code) == (2, ExitCode.DONE)


async def test_a_log_that_does_not_continue_is_a_fork_again_after_clearing(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Clearing drops the evidence and not the checkpoint that is held."""
    await agent.escrow([key()])
    log = rewritten(authority, 5)
    await forked(agent, authority, log)
    agent.clear_evidence()
    authority.alter = on("escrow", from_log(log))
    report = await agent.sync()
    assert isinstance(report.error, LogForked)
    assert report.delivery.stored == 0
    assert len(evidence(agent)) == 1


async def test_two_histories_within_one_round_are_a_fork_and_neither_counts(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Each alone continues what was held; together they show the lie."""
    for _ in range(2):
        await agent.escrow([key()], wait_seconds=0)
    first = rewritten(authority, 0)
    second = rewritten(authority, 0)
    logs = from_log(first), from_log(second)
    authority.alter = in_turn(*logs)
    report = await agent.sync(compare=False)
    assert isinstance(report.error, LogForked)
    assert (report.delivery.stored, report.delivery.spooled) == (0, 2)
    assert agent._state.checkpoint("escrow") is None
    assert {each.note for each in evidence(agent)} | {each.held_note for each in evidence(agent)} == {
        first.checkpoint(),
        second.checkpoint(),
    }


async def test_histories_that_part_between_the_answers_of_a_round_are_noticed(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Two sizes, both continuing what was held, but not each other: the smaller one is asked for again."""
    await agent.escrow([key()])
    for _ in range(2):
        await agent.escrow([key()], wait_seconds=0)
    one, other = rewritten(authority, 0), rewritten(authority, 0)
    for log in (one, other):
        log.append(authority.escrow_log.leaves[0])
    other.append(b"only in the other")
    authority.alter = on("escrow", in_turn(from_log(one), from_log(other), from_log(one)))
    report = await agent.sync(compare=False)
    assert isinstance(report.error, LogForked)
    assert report.delivery.stored == 1
    assert report.delivery.spooled == 1
    assert len(evidence(agent)) == 1


async def test_answers_of_different_sizes_are_all_receipted_under_one_history(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Each of many statements in flight gets its own tree size; in the end every receipt is in the newest log."""
    for number in range(10):
        await agent.escrow([key(name=f"key {number}")], wait_seconds=0)
    report = await agent.sync()
    assert (report.delivery.stored, report.error) == (10, None)
    assert authority.escrow_log.size == 10
    kept = agent._state.checkpoint("escrow")
    assert kept is not None
    assert kept.note == authority.escrow_log.checkpoint()
    assert {row.tree_size for row in agent._spool.overview(None)} == {10}
    assert sizes(authority) == [0] * 10 + [10] * 9


async def test_what_is_asked_for_again_goes_alone(
    agent: Agent, authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing new moves the log on meanwhile, so asking once more is enough: at most twice as many messages."""
    for _ in range(8):
        await agent.escrow([key()], wait_seconds=0)
    monkeypatch.setattr(delivery, "WINDOW_STATEMENTS_MAX", 4)
    assert (await agent.sync(compare=False)).delivery.stored == 8
    assert sizes(authority) == [0] * 4 + [4] * 3 + [4] * 4 + [8] * 3


async def test_a_late_copy_of_an_earlier_answer_is_no_fork(agent: Agent, authority: FakeAuthority) -> None:
    """The worker answered twice; the copy speaks of an older log and is passed over for a new connection."""
    for _ in range(3):
        await agent.escrow([key()], wait_seconds=0)
    first: dict[bytes, Reply] = {}
    seen: list[bytes] = []

    def alter(message: FakeMessage, reply: Reply) -> Reply:
        seen.append(message.body)
        return first.setdefault(message.body, reply) if seen.count(message.body) <= 2 else reply

    authority.alter = on("escrow", alter)
    report = await agent.sync(compare=False)
    assert (report.delivery.stored, report.error) == (3, None)
    assert evidence(agent) == []


# ---- rosters ----


async def test_a_newer_roster_is_adopted_and_sealed_to(agent: Agent, authority: FakeAuthority) -> None:
    """The next key is sealed to the new sealing key."""
    authority.renew_roster(new_sealing_key=True)
    first = await agent.escrow([key()])
    second = await agent.escrow([key()])
    assert first.records[0].facts.kid == authority.sealing_keys[1].kid
    assert second.records[0].facts.kid == authority.sealing_keys[0].kid


async def test_an_answer_with_a_roster_that_may_not_be_adopted_does_not_count(
    agent: Agent, authority: FakeAuthority, clock: Clock
) -> None:
    """Forged, older, conflicting, expired: each by its name, and the newest roster stays."""
    older = authority.roster
    await agent.escrow([key()])
    newer = authority.renew_roster()
    await agent.escrow([key()])
    conflicting = authority._sign_roster(previous=older, expires_at=NOW + 5)
    expired = authority._sign_roster(previous=newer, expires_at=NOW - 61)
    stranger = FakeAuthority(clock=clock).renew_roster()
    cases: list[tuple[Any, type[StrongroomError]]] = [
        (older, RosterInvalid),
        (conflicting, RosterInvalid),
        (stranger, RosterInvalid),
        (expired, Expired),
    ]
    for roster, error in cases:
        authority.alter = lambda _message, reply, roster=roster: replace(reply, roster=roster.statement)  # type: ignore[misc]
        done = await agent.escrow([key()])
        assert type(done.error) is error
        assert (done.spooled, done.exit_code) == (1, ExitCode.FAILED)
        assert agent._trust().newest.digest == newer.digest


async def test_an_expired_roster_is_renewed_before_a_key_is_sealed(
    agent: Agent, authority: FakeAuthority, clock: Clock
) -> None:
    """The authority has a newer one; without it, nothing is sealed and nothing is spooled."""
    clock.seconds = authority.roster.body.expires_at + 61
    authority.broker_down = True
    with pytest.raises(BrokerUnavailable):
        await agent.escrow([key()], wait_seconds=0.01)
    with pytest.raises(Expired):
        await agent.escrow([key()], wait_seconds=0)
    assert agent._spool.spooled() == []
    authority.broker_down = False
    authority.renew_roster(new_sealing_key=True)
    done = await agent.escrow([key()])
    assert (done.stored, done.records[0].facts.kid) == (1, authority.sealing_keys[0].kid)


async def test_no_receipt_counts_under_an_expired_roster(
    agent: Agent, authority: FakeAuthority, clock: Clock
) -> None:
    """Its log key may be one that the authority has given up."""
    await agent.escrow([key()], wait_seconds=0)
    clock.seconds = authority.roster.body.expires_at + 61
    report = await agent.sync()
    assert isinstance(report.error, Expired)
    assert report.delivery.spooled == 1
