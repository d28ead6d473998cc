"""`Agent.docket` and `Agent.case`: what is read, and every docket that must not be taken for the answer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.agents import NOW, Clock, in_turn, lost, on, once, rejected_by
from tests.support.docket import asked_by_host, asked_by_officer, restated

from strongroom.crypto.signing import SigningKey
from strongroom.errors import Expired, NoAnswer, NotFound, Rejected, ReplyInvalid
from strongroom.fields import new_id, parse_body
from strongroom.limits import REQUEST_LIFE_SECONDS_MAX
from strongroom.messages import Docket, DocketRequest, RequestState
from strongroom.replies import Reply
from strongroom.statements import Statement, parse_envelope
from strongroom.testing import FakeAuthority, FakeMessage
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import Enrolled
from strongroom_agent.home import Home
from strongroom_agent.trust import newest_roster

Make = Callable[[str], Home]


@pytest.fixture
def officer(officer_home: Make, authority: FakeAuthority, clock: Clock) -> Iterator[Agent]:
    """The agent of alice, an officer with every role."""
    with Agent.open(officer_home("alice").path, connector=authority.connect, clock=clock) as opened:
        yield opened


def questions(authority: FakeAuthority) -> list[bytes]:
    """Return the distinct docket requests that reached the authority."""
    asked = [each.body for each in authority.received if parse_envelope(each.body).type == DocketRequest.TYPE]
    return list(dict.fromkeys(asked))


# ---- what is read ----


async def test_an_officer_sees_what_waits_newest_first_and_verified(
    officer: Agent, authority: FakeAuthority
) -> None:
    """Two officers' requests, each up to its officer's key."""
    old, new = asked_by_officer(authority, "officer-1"), asked_by_officer(authority, "officer-2")
    docket = await officer.docket()
    assert [case.id for case in docket.cases] == [new.request.id, old.request.id]
    assert [case.flaw for case in docket.cases] == [None, None]
    assert (docket.next, docket.roster_version) == (None, authority.roster.body.version)


async def test_a_hosts_request_comes_with_its_enrolment(
    enrolled: Enrolled, officer: Agent, authority: FakeAuthority
) -> None:
    """The host enrolled under an older roster, and its request verifies by that one."""
    asked_by_host(authority, enrolled.home)
    [case] = (await officer.docket()).cases
    assert (case.flaw, case.signer is not None) == (None, True)


async def test_what_was_decided_is_shown_when_asked_for(officer: Agent, authority: FakeAuthority) -> None:
    """By default only what waits; all of it with `pending` off."""
    denied = asked_by_officer(authority, "officer-1")
    authority.workers.docket.decided(denied.request.id, RequestState.DENIED, "denied")
    assert (await officer.docket()).cases == ()
    [case] = (await officer.docket(pending=False)).cases
    assert (case.state, case.code, case.decided_at) == (RequestState.DENIED, "denied", NOW)


async def test_a_docket_of_many_pages_is_read_to_its_end(officer: Agent, authority: FakeAuthority) -> None:
    """Each page is asked for by a question of its own, and nothing is left out or twice."""
    authority.workers.docket.entries_max = 2
    ids = [asked_by_officer(authority, "officer-1").request.id for _ in range(5)]
    docket = await officer.docket()
    assert [case.id for case in docket.cases] == ids[::-1]
    assert len(questions(authority)) == 3


async def test_what_is_over_does_not_wait(officer: Agent, authority: FakeAuthority, clock: Clock) -> None:
    """The worker lists it among those that nobody decided; its own word for it and the clock here say otherwise."""
    over = asked_by_officer(authority, "officer-1", expires_at=NOW + 300)
    clock.seconds += 361
    waiting = asked_by_officer(authority, "officer-1")
    entry = authority.workers.docket.entry(over)
    assert entry.state is RequestState.EXPIRED
    assert [case.id for case in (await officer.docket()).cases] == [waiting.request.id]
    assert (await officer.case(over.request.id)).state is RequestState.EXPIRED
    unaware = entry.model_copy(update={"state": RequestState.PENDING})
    authority.alter = on("recovery", restated(authority, {"entries": [unaware]}))
    assert (await officer.docket()).cases == ()


async def test_a_limit_ends_the_reading_and_says_where_to_go_on(officer: Agent, authority: FakeAuthority) -> None:
    """No more pages are asked for than needed."""
    authority.workers.docket.entries_max = 2
    ids = [asked_by_officer(authority, "officer-1").request.id for _ in range(5)]
    docket = await officer.docket(limit=2)
    assert [case.id for case in docket.cases] == ids[:2:-1]
    assert (docket.next, len(questions(authority))) == (ids[3], 1)


async def test_a_page_without_answer_is_asked_for_again_by_the_same_question(
    officer: Agent, authority: FakeAuthority
) -> None:
    """An outage leaves one question behind."""
    asked_by_officer(authority, "officer-1")
    authority.alter = on("recovery", once(lost))
    assert len((await officer.docket()).cases) == 1
    assert len(questions(authority)) == 1


async def test_a_question_that_has_expired_is_signed_anew(
    officer: Agent, authority: FakeAuthority, clock: Clock
) -> None:
    """Its life is 300 s, and an outage may be longer."""

    def slowly(_message: FakeMessage, _reply: Reply) -> None:
        clock.seconds += REQUEST_LIFE_SECONDS_MAX

    authority.alter = on("recovery", once(slowly))
    await officer.docket()
    assert len(questions(authority)) == 2


async def test_nothing_is_asked_for_after_the_time_allowed(
    officer: Agent, authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages that take all the time leave the rest unread, and that is no answer."""
    authority.workers.docket.entries_max = 1
    for _ in range(2):
        asked_by_officer(authority, "officer-1")
    monkeypatch.setattr("strongroom_agent.docket.seconds_left", lambda _deadline: 0.0)
    with pytest.raises(NoAnswer, match="last page"):
        await officer.docket(wait_seconds=0.0)


async def test_one_request_is_found_by_its_id_whatever_its_state(officer: Agent, authority: FakeAuthority) -> None:
    """`case` asks for it alone."""
    asked_by_officer(authority, "officer-2")
    denied = asked_by_officer(authority, "officer-1")
    authority.workers.docket.decided(denied.request.id, RequestState.DENIED, "denied")
    asked_by_officer(authority, "officer-2")
    case = await officer.case(denied.request.id)
    assert (case.id, case.state) == (denied.request.id, RequestState.DENIED)


async def test_an_id_that_nobody_asked_under_is_not_found(officer: Agent) -> None:
    """Nothing on the docket is no case."""
    with pytest.raises(NotFound, match="not on the docket"):
        await officer.case(new_id())


async def test_a_host_sees_the_requests_for_its_own_records(agent: Agent, authority: FakeAuthority) -> None:
    """Without naming a principal a host asks for its own."""
    asked = asked_by_officer(authority, "officer-1", principal="laptop-0417")
    asked_by_officer(authority, "officer-1", principal="laptop-0418")
    assert [case.id for case in (await agent.docket()).cases] == [asked.request.id]


async def test_an_officer_may_choose_whose_records(officer: Agent, authority: FakeAuthority) -> None:
    """One principal's requests alone."""
    asked_by_officer(authority, "officer-1", principal="laptop-0417")
    asked = asked_by_officer(authority, "officer-1", principal="laptop-0418")
    assert [case.id for case in (await officer.docket(principal="laptop-0418")).cases] == [asked.request.id]


async def test_a_host_that_asks_for_anothers_is_refused(agent: Agent) -> None:
    """The authority says no, and that is told with its code."""
    with pytest.raises(Rejected) as caught:
        await agent.docket(principal="laptop-0418")
    assert caught.value.remote_code == "denied"


async def test_invitations_that_wait_are_handed_on_as_they_came(officer: Agent, authority: FakeAuthority) -> None:
    """Whoever countersigns them verifies them."""
    waiting = b"an envelope"
    authority.alter = on("recovery", restated(authority, {"invitations": [waiting]}))
    assert (await officer.docket()).invitations == (waiting,)


async def test_a_roster_that_comes_with_the_docket_judges_it(
    officer: Agent, authority: FakeAuthority, tmp_path: Path
) -> None:
    """An officer who was named since the last contact is known at once."""
    before = newest_roster(Home.open(tmp_path / "alice")).body.version
    key = SigningKey.generate()
    authority.officers["officer-9"] = key
    authority.name_officer("officer-9", key.public_key)
    asked_by_officer(authority, "officer-9")
    docket = await officer.docket()
    assert (docket.roster_version, docket.cases[0].flaw) == (before + 1, None)


async def test_an_entry_that_does_not_verify_says_so_among_the_others(
    officer: Agent, authority: FakeAuthority
) -> None:
    """One lost envelope does not hide the rest."""
    good, bad = asked_by_officer(authority, "officer-1"), asked_by_officer(authority, "officer-1")
    bad.lost = True
    flaws = {case.id: case.flaw for case in (await officer.docket()).cases}
    assert flaws == {good.request.id: None, bad.request.id: "request: the database no longer has it"}


# ---- what is not taken for the answer ----


async def refused(officer: Agent, authority: FakeAuthority, words: str, **changes: Any) -> None:
    """Have the worker sign another docket than it should, and see it refused."""
    authority.alter = on("recovery", restated(authority, changes))
    with pytest.raises(ReplyInvalid, match=words):
        await officer.docket()


async def test_a_docket_that_the_worker_did_not_sign_is_refused(officer: Agent, authority: FakeAuthority) -> None:
    """Nor is one by the other worker's key."""
    authority.alter = on("recovery", restated(authority, key=authority.escrow_reply_key))
    with pytest.raises(ReplyInvalid, match="did not sign"):
        await officer.docket()


async def test_a_docket_for_another_question_is_refused(officer: Agent, authority: FakeAuthority) -> None:
    """An answer to what somebody else asked, by id."""
    await refused(officer, authority, "something else", request=new_id())


async def test_a_docket_for_another_digest_is_refused(officer: Agent, authority: FakeAuthority) -> None:
    """Or by what was asked under the same id."""
    await refused(officer, authority, "something else", request_digest="00" * 32)


async def test_a_docket_of_another_authority_is_refused(officer: Agent, authority: FakeAuthority) -> None:
    """One reply key may serve two authorities."""
    authority.alter = on("recovery", restated(authority, {"authority": "other.example"}))
    with pytest.raises(ReplyInvalid, match="authority"):
        await officer.docket()


async def test_another_statement_in_its_place_is_refused(officer: Agent, authority: FakeAuthority) -> None:
    """A listing is no docket, though the worker signed it."""

    def listing(_message: FakeMessage, reply: Reply) -> Reply:
        assert reply.statement is not None
        kind = Docket.TYPE.replace("docket", "listing")
        return Reply(statement=Statement.sign(kind, reply.statement.body, authority.recovery_reply_key))

    authority.alter = on("recovery", listing)
    with pytest.raises(ReplyInvalid, match="payloadType"):
        await officer.docket()


async def test_an_answer_without_statement_is_refused(officer: Agent, authority: FakeAuthority) -> None:
    """A receipt alone answers nothing here."""
    asked_by_officer(authority, "officer-1")
    receipt = authority.recovery_log.receipt(0)
    authority.alter = on("recovery", lambda _message, _reply: Reply(receipt=dict(receipt)))
    with pytest.raises(ReplyInvalid, match="without the statement"):
        await officer.docket()


async def test_a_rejection_that_the_worker_did_not_sign_is_refused(
    officer: Agent, authority: FakeAuthority
) -> None:
    """It says nothing."""
    authority.alter = on("recovery", rejected_by(authority.escrow_reply_key))
    with pytest.raises(ReplyInvalid):
        await officer.docket()


async def test_a_docket_out_of_order_is_refused(officer: Agent, authority: FakeAuthority) -> None:
    """Newest first, by the place in the log."""
    for _ in range(2):
        asked_by_officer(authority, "officer-1")
    docket = authority.workers.docket
    docket.cases = dict(reversed(docket.cases.items()))
    with pytest.raises(ReplyInvalid, match="out of order"):
        await officer.docket()


async def test_a_docket_that_names_a_request_twice_is_refused(officer: Agent, authority: FakeAuthority) -> None:
    """Under two places in the log; one request has one."""
    old = asked_by_officer(authority, "officer-1")
    new = asked_by_officer(authority, "officer-1")
    authority.workers.docket.cases[new.request.id].request = old.request
    with pytest.raises(ReplyInvalid, match="twice"):
        await officer.docket()


async def test_a_request_that_comes_again_on_a_later_page_is_refused(
    officer: Agent, authority: FakeAuthority
) -> None:
    """It has one place in the log, so the second time it stands in another's."""
    docket = authority.workers.docket
    docket.entries_max = 1
    old, new = asked_by_officer(authority, "officer-1"), asked_by_officer(authority, "officer-1")
    twice = docket.entry(old).model_copy(update={"id": new.request.id})
    alter = restated(authority, {"entries": [twice]})
    authority.alter = on("recovery", in_turn(lambda _message, reply: reply, alter))
    with pytest.raises(ReplyInvalid, match="out of order"):
        await officer.docket()


async def test_a_page_that_begins_again_is_refused(officer: Agent, authority: FakeAuthority) -> None:
    """Otherwise reading would never end."""
    authority.workers.docket.entries_max = 1
    for _ in range(2):
        asked_by_officer(authority, "officer-1")
    first: list[dict[str, Any]] = []

    def again(message: FakeMessage, reply: Reply) -> Reply:
        changes = first[0] if first else {}
        altered = restated(authority, changes)(message, reply)
        assert altered.statement is not None
        body = parse_body(altered.statement, Docket)
        first.append({"entries": body.entries, "next": body.next})
        return altered

    authority.alter = on("recovery", again)
    with pytest.raises(ReplyInvalid, match="out of order"):
        await officer.docket()


async def test_a_page_that_does_not_go_on_where_it_ends_is_refused(
    officer: Agent, authority: FakeAuthority
) -> None:
    """What lies between would be left out unseen."""
    for _ in range(2):
        asked_by_officer(authority, "officer-1")
    authority.alter = on("recovery", once(restated(authority, {"next": new_id()})))
    with pytest.raises(ReplyInvalid, match="go on where it ends"):
        await officer.docket()


async def test_an_empty_page_that_goes_on_is_refused(officer: Agent, authority: FakeAuthority) -> None:
    """Reading would never end."""
    await refused(officer, authority, "go on where it ends", next=new_id())


async def test_a_docket_with_other_requests_than_asked_for_is_refused(
    officer: Agent, authority: FakeAuthority
) -> None:
    """An officer who asked for one must not be shown another under its name."""
    asked, other = asked_by_officer(authority, "officer-1"), asked_by_officer(authority, "officer-1")
    entry = authority.workers.docket.entry(other)
    authority.alter = on("recovery", restated(authority, {"entries": [entry]}))
    with pytest.raises(ReplyInvalid, match="other requests"):
        await officer.case(asked.request.id)


async def test_a_docket_with_what_does_not_wait_is_refused(officer: Agent, authority: FakeAuthority) -> None:
    """Only what waits was asked for."""
    case = asked_by_officer(authority, "officer-1")
    entry = authority.workers.docket.entry(case).model_copy(update={"state": RequestState.DENIED})
    await refused(officer, authority, "do not wait", entries=[entry])


async def test_a_docket_with_requests_for_anothers_records_is_refused(
    agent: Agent, authority: FakeAuthority
) -> None:
    """A host that asked for its own is shown nobody else's."""
    entry = authority.workers.docket.entry(asked_by_officer(authority, "officer-1", principal="laptop-0418"))
    authority.alter = on("recovery", restated(authority, {"entries": [entry]}))
    with pytest.raises(ReplyInvalid, match="somebody else's"):
        await agent.docket()


async def test_a_docket_by_a_roster_that_did_not_come_with_it_is_refused(
    officer: Agent, authority: FakeAuthority
) -> None:
    """A broker that withholds the newer roster is found out."""
    await refused(officer, authority, "roster version", roster_version=authority.roster.body.version + 1)


async def test_nothing_is_judged_by_an_expired_roster(
    officer: Agent, authority: FakeAuthority, clock: Clock
) -> None:
    """A home whose roster is over believes nothing until a newer one comes."""
    clock.seconds = authority.roster.body.expires_at + 61
    with pytest.raises(Expired):
        await officer.docket()
