"""Keys that cannot go out yet, or were refused: none is stuck for good, and none is forgotten by an exit code."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.agents import NOW, Clock, key, lost, on, once, rejected_by

from strongroom.errors import BrokerUnavailable, ExitCode, LogForked, NoAnswer, Rejected
from strongroom.testing import FakeAuthority
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import enrol
from strongroom_agent.state import Evidence
from strongroom_agent.status import status
from strongroom_cli.sync import sync


def verbs(authority: FakeAuthority) -> list[str]:
    return [message.routing_key.split(".")[1] for message in authority.received]


# ---- rejected ----


def given_to_another(authority: FakeAuthority) -> None:
    """Have the authority list what it stores as another statement's."""
    [held] = authority.workers.records.values()
    held.escrow = held.escrow.model_copy(update={"id": "01a2050e-1a43-74ad-a430-3b0ef9071f2e"})


async def refused(agent: Agent, authority: FakeAuthority) -> str:
    """Have the authority store a key and say that it did not."""
    authority.alter = once(on("escrow", rejected_by(authority.escrow_reply_key)))
    done = await agent.escrow([key()])
    assert done.rejected == 1
    return done.records[0].statement


async def test_rejected_keys_go_out_again_on_demand_with_the_same_bytes(
    agent: Agent, authority: FakeAuthority
) -> None:
    """One that the authority had stored yields its receipt, and is not stored twice."""
    statement = await refused(agent, authority)
    envelope = agent._spool.message(statement)[0]
    report = await agent.sync(compare=False, retry_rejected=True)
    assert (report.delivery.stored, report.exit_code) == (1, ExitCode.DONE)
    assert authority.received[-1].body == envelope
    assert authority.escrow_log.size == 1


async def test_a_rejected_key_that_the_authority_lists_gets_its_receipt_in_the_same_sync(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Here it is rejected and there it is stored: asking again settles it."""
    statement = await refused(agent, authority)
    report = await agent.sync()
    assert (report.delivery.stored, report.delivery.rejected, report.exit_code) == (1, 0, ExitCode.DONE)
    assert report.compared
    assert agent._spool.states([statement]) == {statement: "stored"}


async def test_a_rejected_key_whose_id_belongs_to_another_statement_is_not_asked_for(
    agent: Agent, authority: FakeAuthority
) -> None:
    """It would be refused again with every sync."""
    await refused(agent, authority)
    given_to_another(authority)
    before = len(authority.received)
    report = await agent.sync()
    assert (report.error, report.delivery.rejected, len(authority.received)) == (None, 1, before + 1)


async def test_a_rejected_key_is_not_compared(agent: Agent, authority: FakeAuthority) -> None:
    """Whatever is listed under its id, there is no receipt that it could contradict."""
    await refused(agent, authority)
    given_to_another(authority)
    [held] = authority.workers.records.values()
    held.record = held.record.model_copy(update={"fingerprint": "0" * 64})
    assert (await agent.sync()).mismatched == ()


async def test_a_sync_is_no_success_while_a_rejected_or_spooled_key_is_in_the_home(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Whenever it was rejected; its record and reason are in the report."""
    await refused(agent, authority)
    authority.workers.records.clear()
    for _ in range(2):
        report = await agent.sync()
        assert (report.error, report.delivery.rejected, report.exit_code) == (None, 1, ExitCode.FAILED)
        assert [row.message for row in report.delivery.records] == ["no"]


# ---- expired ----


async def test_a_key_from_the_future_waits_until_time_has_caught_up(
    agent: Agent, authority: FakeAuthority, clock: Clock
) -> None:
    """One of the two clocks is wrong; the key stays spooled with that reason, and holds up no other."""
    clock.seconds += 100
    await agent.escrow([key()], wait_seconds=0)
    clock.seconds = NOW
    await agent.escrow([key()], wait_seconds=0)
    report = await agent.sync(wait_seconds=10)
    assert (report.delivery.stored, report.delivery.spooled, report.delivery.rejected) == (1, 1, 0)
    assert (report.compared, report.exit_code) == (True, ExitCode.TRY_LATER)
    assert str(report.delivery.records[0].last_error).startswith("expired: the authority says: issued_at")
    assert verbs(authority).count("escrow") == 2
    clock.seconds += 40
    assert (await agent.sync()).exit_code is ExitCode.DONE


async def test_what_is_not_to_be_believed_outweighs_what_waits(agent: Agent, authority: FakeAuthority) -> None:
    """A forged answer beside an `expired` one is still a failure."""
    agent._clock = lambda: NOW + 100
    await agent.escrow([key()], wait_seconds=0)
    agent._clock = lambda: NOW
    await agent.escrow([key()], wait_seconds=0)
    authority.alter = lambda _message, reply: reply if reply.receipt is None else b"{}"
    report = await agent.sync(compare=False)
    assert (report.delivery.spooled, report.exit_code) == (2, ExitCode.FAILED)


# ---- not enrolled yet ----


@pytest.fixture
async def unenrolled(authority: FakeAuthority, tmp_path: Path, clock: Clock) -> AsyncIterator[Agent]:
    """Begin a home while the broker is down, and give it back when it is up again."""
    path = tmp_path / "home"
    document = authority.invitation_file("laptop-0417")
    authority.broker_down = True
    with pytest.raises(BrokerUnavailable):
        await enrol(path, document, wait_seconds=0, connector=authority.connect, clock=clock)
    with Agent.open(path, connector=authority.connect, clock=clock) as agent:
        done = await agent.escrow([key()], wait_seconds=0.02)
        assert (done.spooled, done.exit_code) == (1, ExitCode.TRY_LATER)
        authority.broker_down = False
        yield agent


async def test_a_sync_finishes_the_enrolment_and_then_sends_the_spool(
    unenrolled: Agent, authority: FakeAuthority
) -> None:
    """In this order, so that no key is refused for want of a principal."""
    assert status(unenrolled._home.path).enrolling
    report = await unenrolled.sync()
    assert (report.delivery.stored, report.exit_code) == (1, ExitCode.DONE)
    assert verbs(authority) == ["enrol", "escrow", "recovery"]
    found = status(unenrolled._home.path)
    assert (found.enrolling, found.exit_code) == (False, ExitCode.NOT_PROVEN)


async def test_the_next_escrow_finishes_the_enrolment_too(unenrolled: Agent, authority: FakeAuthority) -> None:
    """Nobody has to know that a sync is due first."""
    assert (await unenrolled.escrow([key(name="other")])).stored == 1
    assert verbs(authority) == ["enrol", "escrow"]


async def test_nothing_is_sent_while_the_enrolment_is_not_receipted(
    unenrolled: Agent, authority: FakeAuthority
) -> None:
    """Neither without an answer nor when the log that would prove it is disputed."""
    authority.alter = on("enrol", lost)
    report = await unenrolled.sync(wait_seconds=0.02)
    assert isinstance(report.error, NoAnswer)
    assert (report.delivery.spooled, report.exit_code) == (1, ExitCode.TRY_LATER)
    assert set(verbs(authority)) == {"enrol"}
    unenrolled._state.keep_evidence(Evidence("recovery", "a", "why", "held", "new", b"reply", NOW))
    authority.received.clear()
    disputed = await unenrolled.sync(wait_seconds=0.02)
    assert isinstance(disputed.error, LogForked)
    assert authority.received == []


async def test_a_refused_enrolment_leaves_the_spool_for_the_next_invitation(
    unenrolled: Agent, authority: FakeAuthority, clock: Clock, tmp_path: Path
) -> None:
    """The key stays spooled and is stored under the enrolment that works."""
    await enrol(
        tmp_path / "other", authority.invitation_file("laptop-0417"), connector=authority.connect, clock=clock
    )
    report = await unenrolled.sync()
    assert isinstance(report.error, Rejected)
    assert report.error.remote_code == "invitation_invalid"
    assert "not enrolled yet" in report.error.message
    assert (report.delivery.spooled, report.delivery.rejected) == (1, 0)
    document = authority.invitation_file("laptop-0417", replaces=True)
    await enrol(unenrolled._home.path, document, connector=authority.connect, clock=clock)
    assert (await unenrolled.sync()).delivery.stored == 1


async def test_an_older_enrolment_may_be_the_one_that_is_in_the_log(
    unenrolled: Agent, authority: FakeAuthority, clock: Clock
) -> None:
    """Its answer was lost and a second invitation refused: the first one proves itself."""
    authority.alter = lost
    await unenrolled.sync(wait_seconds=0)
    assert authority.recovery_log.size == 1
    authority.broker_down = True
    with pytest.raises(BrokerUnavailable):
        await enrol(
            unenrolled._home.path,
            authority.invitation_file("laptop-0417"),
            wait_seconds=0,
            connector=authority.connect,
            clock=clock,
        )
    authority.broker_down = False
    authority.alter = lambda _message, reply: reply
    assert (await unenrolled.sync()).exit_code is ExitCode.DONE
    assert authority.recovery_log.size == 1


# ---- from the command line ----


def test_the_command_retries_rejected_keys_and_clears_evidence_when_told(
    agent: Agent, authority: FakeAuthority, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each flag does its part, and without them the command fails."""
    asyncio.run(refused(agent, authority))
    [held] = authority.workers.records.values()
    true = held.escrow
    given_to_another(authority)
    agent._state.keep_evidence(Evidence("escrow", "a", "why", "held", "new", b"reply", NOW))
    monkeypatch.setattr(Agent, "open", partial(Agent.open, connector=authority.connect, clock=clock))

    def run(*flags: str) -> tuple[int, str]:
        done = CliRunner().invoke(sync, ["--home", str(agent._home.path), *flags])
        return done.exit_code, done.output

    code, told = run()
    assert code == ExitCode.FAILED
    assert "--clear-evidence" in told
    assert run("--retry-rejected")[0] == ExitCode.FAILED
    assert agent._spool.counts()["spooled"] == 1
    held.escrow = true
    assert run("--clear-evidence")[0] == ExitCode.DONE
    assert agent._state.evidence() == []
    assert agent._spool.counts() == {"spooled": 0, "stored": 1, "rejected": 0}
