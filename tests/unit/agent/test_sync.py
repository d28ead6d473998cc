"""`Agent.sync` and listings: what the authority says it has, compared with the receipts held here."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests.support.agents import NOW, Alteration, Clock, in_turn, key, lost, on, once, rejected_by

from strongroom.crypto.signing import SigningKey
from strongroom.errors import BrokerUnavailable, ExitCode, NoAnswer, Rejected, ReplyInvalid
from strongroom.fields import parse_body
from strongroom.limits import REQUEST_LIFE_SECONDS_MAX
from strongroom.mandates import Policy
from strongroom.messages import ListedRecord, Listing
from strongroom.replies import Reply
from strongroom.statements import Statement, parse_envelope
from strongroom.testing import FakeAuthority, FakeMessage
from strongroom_agent.agent import Agent, SyncReport, Unreleased
from strongroom_agent.home import Home
from strongroom_agent.state import KeptDisclosure, KeptPending


def relisted(authority: FakeAuthority, changes: dict[str, object]) -> Alteration:
    """Sign another listing in the place of the true one."""

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        assert reply.statement is not None
        body = parse_body(reply.statement, Listing).model_copy(update=changes)
        return replace(reply, statement=Statement.sign(Listing.TYPE, body.to_bytes(), authority.recovery_reply_key))

    return on("recovery", alter)


async def stored(agent: Agent, count: int) -> list[str]:
    done = await agent.escrow([key(name=f"key {number}") for number in range(count)])
    return [row.facts.id for row in done.records]


async def test_a_sync_with_nothing_to_do_compares_and_is_done(agent: Agent) -> None:
    """The authority lists everything that was receipted."""
    await stored(agent, 3)
    report = await agent.sync()
    assert report == SyncReport(
        delivery=report.delivery,
        roster_version=1,
        roster_changed=False,
        compared=True,
        missing=(),
        mismatched=(),
        disclosed=(),
        pending=(),
        error=None,
        now=NOW,
    )
    assert report.exit_code is ExitCode.DONE
    assert {row.listed for row in agent._spool.overview(None)} == {"stored"}


async def test_everything_that_is_spooled_goes_out_over_one_connection(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Deliveries and the listing share it."""
    for _ in range(5):
        await agent.escrow([key()], wait_seconds=0)
    opened = [0]
    connect = authority.connect

    def counted(home: object) -> Any:
        opened[0] += 1
        return connect(home)

    agent._connector = counted
    report = await agent.sync()
    assert (report.delivery.stored, report.compared) == (5, True)
    assert opened == [1]


async def test_a_record_that_the_authority_does_not_list_is_reported_and_stays_in_sight(
    agent: Agent, authority: FakeAuthority
) -> None:
    """A receipt is here and the record is gone."""
    first, second = await stored(agent, 2)
    del authority.workers.records[first]
    report = await agent.sync()
    assert (report.missing, report.mismatched) == ((first,), ())
    assert report.exit_code is ExitCode.FAILED
    assert {row.facts.id: row.listed for row in agent._spool.overview(None)} == {first: "missing", second: "stored"}


async def test_a_record_listed_with_another_fingerprint_is_reported(agent: Agent, authority: FakeAuthority) -> None:
    """The authority holds something else under this id."""
    [id_] = await stored(agent, 1)
    held = authority.workers.records[id_]
    held.record = held.record.model_copy(update={"fingerprint": "0" * 64})
    report = await agent.sync()
    assert (report.mismatched, report.missing) == ((id_,), ())
    assert report.exit_code is ExitCode.FAILED


async def test_a_disclosed_record_is_reported_for_replacement(agent: Agent) -> None:
    """Somebody has the key now; that alone is no failure."""
    [id_] = await stored(agent, 1)
    await agent.recover(records=[id_])
    report = await agent.sync()
    assert ([each.record for each in report.disclosed], report.exit_code) == ([id_], ExitCode.DONE)


async def test_the_owner_is_told_who_was_given_a_key_when_and_why(
    agent: Agent, authority: FakeAuthority, officer_home: Callable[[str], Home], clock: Clock
) -> None:
    """From the signed listing; kept, so that it is known offline too. The newest release of each record counts."""
    [first, second] = await stored(agent, 2)
    await agent.recover(records=[first], reason="a test")
    clock.seconds += 60
    with Agent.open(officer_home("alice").path, connector=authority.connect, clock=clock) as alice:
        asked: dict[str, Any] = {"principal": "laptop-0417", "records": [second, first], "reason": "left"}
        with pytest.raises(Unreleased) as caught:
            await alice.recover(**asked)
        authority.approve(caught.value.asked.id, "officer-1", "officer-2")
        clock.seconds += 60
        await alice.recover(**asked)
    report = await agent.sync()
    told = [
        KeptDisclosure(
            id_, name, caught.value.asked.id, "alice", "officer", NOW + 120, "left", NOW + 120 + 14 * 86_400
        )
        for id_, name in ((second, "key 1"), (first, "key 0"))
    ]
    assert sorted(report.disclosed, key=lambda each: each.name, reverse=True) == told
    assert sorted(agent._state.disclosures(), key=lambda each: each.name, reverse=True) == told
    assert not any(each.is_by("laptop-0417") for each in told)


async def test_what_the_host_recovered_itself_counts_as_disclosed_and_says_so(agent: Agent) -> None:
    """The key has left its place all the same."""
    [id_] = await stored(agent, 1)
    found = await agent.recover(records=[id_])
    [told] = (await agent.sync()).disclosed
    assert told == KeptDisclosure(id_, "key 0", found.request_id, "laptop-0417", "principal", NOW, "")
    assert told.is_by("laptop-0417")
    assert not told.is_by("laptop-0418")


async def test_a_disclosure_of_an_earlier_life_is_told_too(agent: Agent) -> None:
    """The host lost its receipts, and the key may still be in use."""
    [id_] = await stored(agent, 1)
    await agent.recover(records=[id_])
    with agent._state.transaction():
        agent._state.execute("DELETE FROM records")
    assert [each.record for each in (await agent.sync()).disclosed] == [id_]


async def test_the_owner_is_told_who_else_asks_for_its_keys_until_that_is_decided(
    agent: Agent, authority: FakeAuthority, officer_home: Callable[[str], Home], clock: Clock
) -> None:
    """Who, why and from when on; kept, and replaced by the next complete listing."""
    await stored(agent, 1)
    authority.renew_roster(policy=Policy(officer_recovery_delay_hours=1))
    path = officer_home("alice").path
    with (
        Agent.open(path, connector=authority.connect, clock=clock) as alice,
        pytest.raises(Unreleased) as caught,
    ):
        await alice.recover(principal="laptop-0417", name="key 0", reason="left")
    asked = caught.value.asked
    report = await agent.sync()
    expected = KeptPending(asked.id, asked.digest, "alice", "officer", NOW, NOW + 3_600, "left")
    assert (report.pending, report.disclosed, report.exit_code) == ((expected,), (), ExitCode.DONE)
    assert agent._state.pending() == [expected]
    authority.alter = on("recovery", lost)
    await agent.sync(wait_seconds=0.02)
    assert agent._state.pending() == [expected]
    authority.alter = lambda _message, reply: reply
    authority.deny(asked.id, "officer-1")
    assert (await agent.sync()).pending == ()
    assert agent._state.pending() == []


async def test_ones_own_waiting_request_is_none_of_others(agent: Agent, authority: FakeAuthority) -> None:
    """Whoever asks knows of it."""
    await stored(agent, 1)
    authority.renew_roster(policy=Policy(self_recovery_approvals=1))
    with pytest.raises(Unreleased):
        await agent.recover(name="key 0")
    assert (await agent.sync()).pending == ()


async def test_a_record_that_comes_back_is_no_longer_missing(agent: Agent, authority: FakeAuthority) -> None:
    """The last comparison counts."""
    [id_] = await stored(agent, 1)
    record = authority.workers.records.pop(id_)
    await agent.sync()
    authority.workers.records[id_] = record
    assert (await agent.sync()).exit_code is ExitCode.DONE
    assert agent._standings.counts() == {"stored": 1}


async def test_what_is_only_spooled_is_not_missing(agent: Agent, authority: FakeAuthority) -> None:
    """The comparison looks at receipts."""
    await agent.escrow([key()], wait_seconds=0)
    authority.alter = on("escrow", lost)
    report = await agent.sync(wait_seconds=0.02)
    assert (report.missing, report.exit_code) == ((), ExitCode.TRY_LATER)


async def test_records_of_an_earlier_life_are_no_discrepancy(agent: Agent) -> None:
    """After a loss, the authority lists more than the new home knows."""
    await stored(agent, 2)
    with agent._state.transaction():
        agent._state.execute("DELETE FROM records")
    report = await agent.sync()
    assert (report.compared, report.missing, report.mismatched) == (True, (), ())


async def test_a_listing_is_read_to_its_last_page(agent: Agent, authority: FakeAuthority) -> None:
    """With pages of two, five records take three."""
    ids = await stored(agent, 5)
    authority.workers.listing_records_max = 2
    before = len(authority.received)
    report = await agent.sync()
    assert (report.compared, report.missing) == (True, ())
    assert len(authority.received) == before + 3
    page = await agent.records()
    assert [record.id for record in page.records] == sorted(ids)
    assert page.next is None


async def test_records_are_listed_from_where_one_left_off(agent: Agent, authority: FakeAuthority) -> None:
    """A limit stops after the page that reaches it; `next` goes on."""
    ids = sorted(await stored(agent, 5))
    authority.workers.listing_records_max = 2
    first = await agent.records(limit=1)
    assert ([record.id for record in first.records], first.next) == (ids[:2], ids[1])
    rest = await agent.records(after=first.next)
    assert ([record.id for record in rest.records], rest.next) == (ids[2:], None)


async def test_a_newer_roster_is_picked_up_with_nothing_spooled(agent: Agent, authority: FakeAuthority) -> None:
    """It comes with the listing."""
    authority.renew_roster()
    report = await agent.sync()
    assert (report.roster_version, report.roster_changed) == (2, True)


async def test_without_comparison_nothing_is_asked(agent: Agent, authority: FakeAuthority) -> None:
    """Nothing spooled and nothing compared needs no connection."""
    authority.broker_down = True
    report = await agent.sync(compare=False)
    assert (report.compared, report.exit_code) == (False, ExitCode.DONE)


async def test_a_lost_listing_is_tried_again_and_then_told(agent: Agent, authority: FakeAuthority) -> None:
    """One lost answer is asked for again; without any, the sync is not done."""
    authority.alter = once(on("recovery", lost))
    assert (await agent.sync()).compared
    authority.alter = on("recovery", lost)
    report = await agent.sync(wait_seconds=0.02)
    assert isinstance(report.error, NoAnswer)
    assert (report.compared, report.exit_code) == (False, ExitCode.TRY_LATER)


async def test_without_broker_a_sync_is_to_be_tried_later(agent: Agent, authority: FakeAuthority) -> None:
    """Every spooled entry keeps the reason."""
    await agent.escrow([key()], wait_seconds=0)
    authority.broker_down = True
    report = await agent.sync(wait_seconds=0.02)
    assert isinstance(report.error, BrokerUnavailable)
    assert report.exit_code is ExitCode.TRY_LATER
    assert report.delivery.records[0].last_error == f"broker_unavailable: {report.error.message}"


async def test_an_officers_sync_brings_the_roster(
    authority: FakeAuthority, officer_home: Callable[[str], Home], clock: Clock
) -> None:
    """An officer has no records to compare."""
    home = officer_home("alice")
    authority.renew_roster()
    with Agent.open(home.path, connector=authority.connect, clock=clock) as officer:
        report = await officer.sync()
    assert report.roster_changed
    assert report.exit_code is ExitCode.DONE


async def test_an_officer_who_may_not_list_gets_the_roster_all_the_same(
    authority: FakeAuthority, officer_home: Callable[[str], Home], clock: Clock
) -> None:
    """The refusal brings it; for a principal a refused listing is a failure."""
    home = officer_home("alice")
    authority.alter = rejected_by(authority.recovery_reply_key)
    with Agent.open(home.path, connector=authority.connect, clock=clock) as officer:
        report = await officer.sync()
    assert (report.compared, report.error, report.exit_code) == (False, None, ExitCode.DONE)


async def test_a_principal_whose_listing_is_refused_is_told(agent: Agent, authority: FakeAuthority) -> None:
    """Nothing was compared."""
    authority.alter = on("recovery", rejected_by(authority.recovery_reply_key))
    report = await agent.sync()
    assert isinstance(report.error, Rejected)
    assert (report.compared, report.exit_code) == (False, ExitCode.FAILED)


async def test_an_officer_lists_the_records_of_a_principal(
    agent: Agent, authority: FakeAuthority, officer_home: Callable[[str], Home], clock: Clock
) -> None:
    """Under the officer's own name and key."""
    ids = await stored(agent, 2)
    home = officer_home("alice")
    with Agent.open(home.path, connector=authority.connect, clock=clock) as officer:
        page = await officer.records(principal="laptop-0417")
    assert [record.id for record in page.records] == sorted(ids)
    assert authority.received[-1].routing_key == "v1.recovery.alice"


# ---- listings that are not to be believed ----


async def refused(agent: Agent) -> None:
    report = await agent.sync()
    assert isinstance(report.error, ReplyInvalid)
    assert (report.compared, report.missing, report.exit_code) == (False, (), ExitCode.FAILED)
    assert agent._standings.counts() == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"request": "01a2050e-1a43-74ad-a430-3b0ef9071f2e"},
        {"request_digest": "0" * 64},
        {"principal": "laptop-0418"},
        {"authority": "other.example"},
        {"next": "00000000-0000-7000-8000-000000000000"},
    ],
    ids=lambda changes: str(*changes),
)
async def test_a_listing_of_something_else_is_refused(
    agent: Agent, authority: FakeAuthority, changes: dict[str, object]
) -> None:
    """Even when the recovery worker signed it."""
    await stored(agent, 2)
    authority.alter = relisted(authority, changes)
    await refused(agent)


async def test_a_listing_by_a_roster_that_did_not_come_with_it_is_refused(
    agent: Agent, authority: FakeAuthority
) -> None:
    """A newer roster is in force, and somebody on the way withholds it."""
    await stored(agent, 1)
    authority.renew_roster()
    authority.alter = on("recovery", lambda _message, reply: replace(reply, roster=None))
    await refused(agent)
    authority.alter = lambda _message, reply: reply
    assert (await agent.sync()).compared


async def test_a_listing_out_of_order_is_refused(agent: Agent, authority: FakeAuthority) -> None:
    """Twice the same record, or backwards."""
    await stored(agent, 2)
    page = (await agent.records()).records
    disordered: list[list[ListedRecord]] = [[page[0], page[0]], [page[1], page[0]]]
    for records in disordered:
        authority.alter = relisted(authority, {"records": records})
        await refused(agent)


async def test_a_listing_that_goes_on_where_it_has_been_is_refused(agent: Agent, authority: FakeAuthority) -> None:
    """It would never end: back to the first record, or a page of nothing that promises more."""
    ids = sorted(await stored(agent, 3))
    changes: list[dict[str, object]] = [{"next": ids[0]}, {"records": [], "next": ids[0]}]
    for change in changes:
        authority.alter = relisted(authority, change)
        await refused(agent)


async def test_a_listing_is_not_read_beyond_the_time_allowed(agent: Agent, authority: FakeAuthority) -> None:
    """However many pages are promised."""
    await stored(agent, 3)
    authority.workers.listing_records_max = 1
    before = len(authority.received)
    report = await agent.sync(wait_seconds=0)
    assert isinstance(report.error, NoAnswer)
    assert (report.compared, len(authority.received)) == (False, before + 1)


async def test_a_listing_signed_by_anybody_else_is_refused(agent: Agent, authority: FakeAuthority) -> None:
    """The escrow worker and strangers do not speak for the recovery worker."""
    await stored(agent, 1)
    for forger in (authority.escrow_reply_key, SigningKey.generate()):

        def alter(_message: FakeMessage, reply: Reply, forger: SigningKey = forger) -> Reply:
            assert reply.statement is not None
            return replace(reply, statement=Statement.sign(Listing.TYPE, reply.statement.body, forger))

        authority.alter = on("recovery", alter)
        await refused(agent)


async def test_an_older_listing_is_not_an_answer(agent: Agent, authority: FakeAuthority) -> None:
    """A true listing, replayed, names another request."""
    replayed: list[Reply] = []

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        replayed.append(reply)
        return replayed[0]

    authority.alter = on("recovery", alter)
    await agent.sync()
    report = await agent.sync()
    assert isinstance(report.error, ReplyInvalid)


async def test_a_refused_listing_raises_with_the_authoritys_code(agent: Agent, authority: FakeAuthority) -> None:
    """Only one's own records, for a principal."""
    with pytest.raises(Rejected) as caught:
        await agent.records(principal="laptop-0418")
    assert caught.value.remote_code == "denied"
    authority.alter = rejected_by(authority.escrow_reply_key)
    with pytest.raises(ReplyInvalid):
        await agent.records()


async def test_a_listing_request_is_signed_and_dies_in_time(agent: Agent, authority: FakeAuthority) -> None:
    """Nobody can ask in the host's name, or replay the question for long."""
    await agent.records()
    statement = parse_envelope(authority.received[-1].body)
    config = agent._home.config
    statement.verify_signature(config.public_key, config.key_id)


async def test_an_outage_leaves_one_listing_request_behind(agent: Agent, authority: FakeAuthority) -> None:
    """However often it is asked for again; and it does not expire inside the broker."""
    for ask in (agent.sync, agent.records):
        authority.received.clear()
        authority.alter = in_turn(lost, lost, lambda _message, reply: reply)
        await ask()
        assert len(authority.received) == 3
        assert len({(message.message_id, message.body) for message in authority.received}) == 1
        assert {message.expiration_seconds for message in authority.received} == {None}


async def test_a_listing_request_that_outlived_its_life_is_made_anew(
    agent: Agent, authority: FakeAuthority, clock: Clock
) -> None:
    """The worker would refuse the old one for ever."""

    def lose_and_age(_message: FakeMessage, _reply: Reply) -> None:
        clock.seconds += REQUEST_LIFE_SECONDS_MAX

    authority.alter = once(lose_and_age)
    before = len(authority.received)
    assert (await agent.sync()).compared
    assert len({message.message_id for message in authority.received[before:]}) == 2


async def test_a_listing_goes_on_where_it_broke_off(agent: Agent, authority: FakeAuthority) -> None:
    """Pages that arrived are not asked for again, and count."""
    ids = await stored(agent, 5)
    del authority.workers.records[ids[0]]
    authority.workers.listing_records_max = 2
    authority.alter = in_turn(lambda _message, reply: reply, lost, lambda _message, reply: reply)
    before = len(authority.received)
    report = await agent.sync()
    assert (report.compared, report.missing) == (True, (ids[0],))
    assert len(authority.received) == before + 3
