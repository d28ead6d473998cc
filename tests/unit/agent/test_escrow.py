"""From `Agent.escrow` to a receipt: what is spooled, sent, stored, and what happens in trouble that passes."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.agents import (
    MATERIAL,
    NOW,
    BackwardLink,
    Clock,
    CountingLink,
    ForgingLink,
    SilentLink,
    key,
    linked,
    lost,
    on,
    once,
    rejected_by,
)

from strongroom.crypto.signing import SigningKey
from strongroom.errors import (
    BrokerUnavailable,
    Busy,
    ExitCode,
    LimitExceeded,
    NoAnswer,
    ReplyInvalid,
    UsageError,
)
from strongroom.leaves import EscrowLeaf, parse_leaf
from strongroom.replies import ROSTER_VERSION_HEADER, TREE_SIZE_HEADER, Reply
from strongroom.statements import parse_envelope
from strongroom.testing import FakeAuthority, FakeMessage
from strongroom_agent import delivery
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import Enrolled, enrol
from strongroom_agent.home import Home
from strongroom_agent.state import State


def sizes(authority: FakeAuthority) -> list[object]:
    return [m.headers[TREE_SIZE_HEADER] for m in authority.received if m.routing_key.startswith("v1.escrow.")]


async def test_a_stored_key_is_in_the_authoritys_log_and_its_receipt_is_kept(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Record, leaf and report agree."""
    done = await agent.escrow([key()])
    [row] = done.records
    assert (done.stored, done.spooled, done.rejected, done.error) == (1, 0, 0, None)
    assert (row.state, row.log_index, row.tree_size, row.stored_at) == ("stored", 0, 1, NOW)
    assert done.exit_code is ExitCode.DONE
    assert authority.workers.records[row.facts.id].record.fingerprint == row.facts.fingerprint
    leaf = parse_leaf(authority.escrow_log.leaves[0])
    assert isinstance(leaf, EscrowLeaf)
    assert leaf.id == row.statement


async def test_the_next_message_states_the_size_that_was_proven(agent: Agent, authority: FakeAuthority) -> None:
    """So that the authority can prove that it only added."""
    for _ in range(3):
        await agent.escrow([key()])
    assert sizes(authority) == [0, 1, 2]
    assert {m.headers[ROSTER_VERSION_HEADER] for m in authority.received} == {1}


async def test_no_key_material_touches_the_disk(agent: Agent, enrolled: Enrolled) -> None:
    """No file of the home holds it, before or after the receipt."""
    await agent.escrow([key()], wait_seconds=0)
    await agent.escrow([key()])
    for path in enrolled.home.path.rglob("*"):
        assert path.is_dir() or MATERIAL not in path.read_bytes(), path


async def test_a_key_is_in_the_spool_before_anything_is_published(
    agent: Agent, authority: FakeAuthority, enrolled: Enrolled
) -> None:
    """At the moment the message reaches a worker, another process finds it in the spool."""
    seen: list[list[tuple[Any, ...]]] = []

    def look(_message: FakeMessage, reply: Reply) -> Reply:
        with State.open(enrolled.home.state_file) as state:
            seen.append(state.rows("SELECT state, envelope FROM statements"))
        return reply

    authority.alter = look
    await agent.escrow([key()])
    assert seen == [[("spooled", authority.received[-1].body)]]


async def test_waiting_not_at_all_sends_nothing(agent: Agent, authority: FakeAuthority) -> None:
    """The key is spooled; `sync` sends it."""
    before = len(authority.received)
    done = await agent.escrow([key()], wait_seconds=0)
    assert (done.spooled, done.error, done.exit_code) == (1, None, ExitCode.TRY_LATER)
    assert len(authority.received) == before


async def test_an_officer_escrows_nothing(
    authority: FakeAuthority, officer_home: Callable[[str], Home], clock: Clock
) -> None:
    """Nobody is enrolled under an officer's name."""
    with (
        Agent.open(officer_home("alice").path, connector=authority.connect, clock=clock) as agent,
        pytest.raises(UsageError),
    ):
        await agent.escrow([key()])


async def test_a_bad_key_among_good_ones_spools_nothing(agent: Agent, authority: FakeAuthority) -> None:
    """All or none: the caller knows that nothing was taken."""
    with pytest.raises(LimitExceeded):
        await agent.escrow([key(), key(b"")])
    assert agent._spool.spooled() == []
    assert authority.escrow_log.size == 0


# ---- trouble that passes ----


async def test_without_broker_the_key_stays_spooled_and_later_goes_out_once(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Nothing is lost and nothing is raised; the reason is kept."""
    authority.broker_down = True
    done = await agent.escrow([key()], wait_seconds=0.02)
    assert isinstance(done.error, BrokerUnavailable)
    assert (done.spooled, done.exit_code) == (1, ExitCode.TRY_LATER)
    assert done.records[0].last_error == f"broker_unavailable: {done.error.message}"
    authority.broker_down = False
    assert (await agent.sync()).delivery.stored == 1
    assert len(authority.workers.records) == 1


async def test_without_worker_the_key_stays_spooled_and_repeats_store_one_record(
    agent: Agent, authority: FakeAuthority
) -> None:
    """The copies in the queue all hold the same statement."""
    authority.workers_stopped = True
    done = await agent.escrow([key()], wait_seconds=0.02)
    assert isinstance(done.error, NoAnswer)
    assert done.exit_code is ExitCode.TRY_LATER
    assert len(authority.queue) >= 1
    assert len({message.body for message in authority.queue}) == 1
    authority.work_off()
    report = await agent.sync()
    assert (report.delivery.stored, report.exit_code) == (1, ExitCode.DONE)
    assert authority.escrow_log.size == len(authority.workers.records) == 1


async def test_a_lost_answer_is_asked_for_again_in_the_same_call(agent: Agent, authority: FakeAuthority) -> None:
    """The repeat is answered with the same leaf."""
    authority.alter = once(lost)
    done = await agent.escrow([key()])
    assert (done.stored, done.records[0].log_index) == (1, 0)
    assert authority.escrow_log.size == 1


async def test_one_lost_answer_does_not_hold_up_the_others(agent: Agent, authority: FakeAuthority) -> None:
    """The rest of the round counts at once."""
    await agent.escrow([key()], wait_seconds=0)
    await agent.escrow([key()], wait_seconds=0)
    victim = agent._spool.spooled()[0]

    def lose_victim(message: FakeMessage, reply: Reply) -> Reply | None:
        return None if victim.encode() in parse_envelope(message.body).body else reply

    authority.alter = lose_victim
    report = await agent.sync(wait_seconds=0.02, compare=False)
    assert (report.delivery.stored, report.delivery.spooled) == (1, 1)
    assert report.delivery.records[0].statement == victim


async def test_a_home_in_use_leaves_the_key_spooled(agent: Agent, enrolled: Enrolled) -> None:
    """Two processes never publish for one home at once; the key is safe all the same."""
    with enrolled.home.lock():
        done = await agent.escrow([key()], wait_seconds=0.02)
    assert isinstance(done.error, Busy)
    assert (done.spooled, done.exit_code) == (1, ExitCode.TRY_LATER)


async def test_two_agents_of_one_home_take_turns(
    agent: Agent, enrolled: Enrolled, authority: FakeAuthority, clock: Clock
) -> None:
    """Both get their receipts; the log saw each once."""
    with Agent.open(enrolled.home.path, connector=authority.connect, clock=clock) as other:
        both = await asyncio.gather(agent.escrow([key(name="a")]), other.escrow([key(name="b")]))
    assert [done.stored for done in both] == [1, 1]
    assert authority.escrow_log.size == 2


async def test_a_call_that_is_cancelled_leaves_the_key_spooled(agent: Agent, authority: FakeAuthority) -> None:
    """And the home free for the next one."""
    agent._connector = linked(authority.connect, SilentLink)
    task = asyncio.create_task(agent.escrow([key()]))
    await SilentLink.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(agent._spool.spooled()) == 1
    agent._connector = authority.connect
    assert (await agent.sync()).delivery.stored == 1


# ---- what the authority refuses ----


async def test_a_rejected_key_is_kept_with_the_authoritys_reason(agent: Agent, authority: FakeAuthority) -> None:
    """It is not sent again by itself, and is sent again on demand."""
    authority.alter = once(on("escrow", rejected_by(authority.escrow_reply_key)))
    done = await agent.escrow([key()])
    [row] = done.records
    assert (done.rejected, done.exit_code) == (1, ExitCode.FAILED)
    assert (row.state, row.code, row.message) == ("rejected", "denied", "no")
    report = await agent.sync(compare=False)
    assert (report.delivery.stored, report.delivery.rejected, report.exit_code) == (0, 1, ExitCode.FAILED)
    agent.requeue(row.statement)
    assert (await agent.sync()).delivery.stored == 1


async def test_a_replaced_key_is_refused_by_name(
    agent: Agent, authority: FakeAuthority, tmp_path: Path, clock: Clock
) -> None:
    """Somebody enrolled anew under this name; the key stays in the spool's care."""
    document = authority.invitation_file("laptop-0417", replaces=True)
    await enrol(tmp_path / "newer", document, connector=authority.connect, clock=clock)
    done = await agent.escrow([key()])
    assert done.records[0].code == "principal_revoked"


async def test_a_rejection_by_another_key_changes_nothing(agent: Agent, authority: FakeAuthority) -> None:
    """Neither a stranger's nor the other worker's; the entry stays spooled and is stored later."""
    for forger in (SigningKey.generate(), authority.recovery_reply_key):
        authority.alter = rejected_by(forger)
        done = await agent.escrow([key()])
        assert isinstance(done.error, ReplyInvalid)
        assert (done.rejected, done.spooled, done.exit_code) == (0, 1, ExitCode.FAILED)
    authority.alter = lambda _message, reply: reply
    assert (await agent.sync()).delivery.stored == 2


async def test_a_rejection_of_another_statement_changes_nothing(agent: Agent, authority: FakeAuthority) -> None:
    """A true rejection, replayed."""
    authority.alter = rejected_by(authority.escrow_reply_key, of=b"x" * 32)
    done = await agent.escrow([key()])
    assert isinstance(done.error, ReplyInvalid)
    assert (done.rejected, done.spooled) == (0, 1)


async def test_a_true_rejection_of_a_message_whose_signatures_were_taken_off_changes_nothing(
    agent: Agent, authority: FakeAuthority
) -> None:
    """The broker had somebody else sign the statement: the worker is right to refuse that, and the key stays."""
    agent._connector = linked(authority.connect, ForgingLink)
    done = await agent.escrow([key()])
    assert authority.workers.records == {}
    assert isinstance(done.error, ReplyInvalid)
    assert (done.rejected, done.spooled, done.exit_code) == (0, 1, ExitCode.FAILED)
    assert done.records[0].last_error == f"reply_invalid: {done.error.message}"
    agent._connector = authority.connect
    assert (await agent.sync()).exit_code is ExitCode.DONE


async def test_a_rejection_by_a_roster_that_did_not_come_with_it_changes_nothing(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Somebody withholds the roster that the worker goes by."""
    authority.alter = rejected_by(authority.escrow_reply_key, roster_version=2)
    done = await agent.escrow([key()])
    assert isinstance(done.error, ReplyInvalid)
    assert (done.rejected, done.spooled) == (0, 1)


# ---- large spools ----


async def test_a_spool_goes_out_in_bounded_windows(
    agent: Agent, authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never more in flight than the window allows, by number and by bytes; every one arrives."""
    flying: set[str] = set()
    agent._connector = linked(authority.connect, lambda link: CountingLink(link, flying))
    for limit, value in (("WINDOW_STATEMENTS_MAX", 4), ("WINDOW_BYTES_MAX", 1)):
        for _ in range(9):
            await agent.escrow([key()], wait_seconds=0)
        monkeypatch.setattr(delivery, limit, value)
        monkeypatch.setattr(CountingLink, "most", 0)
        assert (await agent.sync(compare=False)).delivery.stored == 9
        assert CountingLink.most == value


async def test_answers_that_arrive_out_of_order_all_count(agent: Agent, authority: FakeAuthority) -> None:
    """The checkpoint that was stated decides, not the one that came last."""
    await agent.escrow([key()])
    for _ in range(3):
        await agent.escrow([key()], wait_seconds=0)
    agent._connector = linked(authority.connect, BackwardLink)
    report = await agent.sync(compare=False)
    assert (report.delivery.stored, report.error) == (3, None)
