"""`Agent.coverage`: what is read and added up, and every page that must not be taken for the answer."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.agents import NOW, Clock, in_turn, lost
from tests.support.coverage import PROVING, Fleet, gap

from strongroom.audits import Coverage, Gap, GapState
from strongroom.crypto.signing import SigningKey
from strongroom.errors import NoAnswer, OfficerUnknown, Rejected, ReplyInvalid
from strongroom.limits import INTEGER_MAX
from strongroom.testing import FakeAuthority
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import Enrolled
from strongroom_agent.home import Home

Make = Callable[[str], Home]


@pytest.fixture
def officer(officer_home: Make, authority: FakeAuthority, clock: Clock) -> Iterator[Agent]:
    """The agent of alice, an officer with every role."""
    with Agent.open(officer_home("alice").path, connector=authority.connect, clock=clock) as opened:
        yield opened


@pytest.fixture
def fleet(authority: FakeAuthority) -> Fleet:
    """Four hosts: one is well, the others have a gap each, or two."""
    made = Fleet(authority)
    made.gaps["host-1"] = []
    made.add(gap("host-2", "missing"), gap("host-3", "unprovable", code="blob_invalid"))
    made.add(gap("host-4", "stored"), gap("host-4", "silent", None))
    authority.alter = made.answer
    return made


def every_gap(fleet: Fleet) -> list[Gap]:
    return [each for name in sorted(fleet.gaps) for each in fleet.gaps[name]]


# ---- what is read ----


@pytest.mark.parametrize(("at_once", "pages"), [(1, 4), (2, 2), (3, 2), (4, 1)])
async def test_pages_are_added_up_and_handed_on_as_they_come(
    officer: Agent, fleet: Fleet, at_once: int, pages: int
) -> None:
    """However many they are, the figures and the gaps are the same; each question goes on where the last ended."""
    fleet.at_once = at_once
    taken: list[Coverage] = []
    found = await officer.coverage(silent_days=9, take=taken.append)
    assert [each for page in taken for each in page.gaps] == every_gap(fleet)
    assert (found.pages, found.covered, found.failing, found.records, found.unlisted) == (pages, 1, 2, 6, 0)
    counted = {name: count for name, count in found.counts.model_dump().items() if count}
    assert counted == {"principals": 4, "silent": 1, "missing": 1, "stored": 1, "proven": 4, "unprovable": 1}
    assert (found.authority, found.asked_by, found.proving) == (fleet.authority.name, "alice", PROVING)
    assert (found.as_of, found.until, found.roster_version) == (NOW, NOW, fleet.authority.roster.body.version)
    assert [each.after for each in fleet.asked] == [None, *(page.next for page in taken[:-1])]
    assert {each.silent_days for each in fleet.asked} == {9}


async def test_a_page_without_answer_is_asked_for_again_and_none_is_counted_twice(
    officer: Agent, fleet: Fleet
) -> None:
    """An outage between pages leaves what was read before."""
    fleet.at_once = 2
    fleet.authority.alter = in_turn(lost, fleet.answer, lost, lost, fleet.answer)
    taken: list[Coverage] = []
    found = await officer.coverage(silent_days=9, take=taken.append)
    assert (found.counts.principals, len(taken)) == (4, 2)


async def test_nothing_is_asked_for_after_the_time_allowed(
    officer: Agent, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a coverage is none."""
    fleet.at_once = 2
    monkeypatch.setattr("strongroom_agent.coverage.seconds_left", lambda _deadline: 0.0)
    with pytest.raises(NoAnswer, match="last page"):
        await officer.coverage(silent_days=9, wait_seconds=0.0)


async def test_a_principal_with_more_gaps_than_fit_is_counted_in_full(officer: Agent, fleet: Fleet) -> None:
    """Its page names some of them, and how many were not named is told."""
    fleet.at_once = 1

    def torn(page: Coverage) -> dict[str, Any]:
        if page.gaps and page.gaps[0].principal == "host-3":
            return {"counts": page.counts.model_copy(update={"unprovable": 70})}
        return {}

    fleet.changes = torn
    found = await officer.coverage(silent_days=9)
    assert (found.counts.unprovable, found.unlisted, found.covered) == (70, 69, 1)


async def test_records_whose_ids_are_lost_may_be_several(officer: Agent, fleet: Fleet) -> None:
    """Nothing tells them apart, and each is a gap."""
    lost_one = gap("host-3", "unprovable", None, record=None, code="proof_invalid")
    fleet.add(lost_one, lost_one)
    assert (await officer.coverage(silent_days=9)).counts.unprovable == 3


async def test_the_home_of_a_host_asks_nothing(
    enrolled: Enrolled, authority: FakeAuthority, fleet: Fleet, clock: Clock
) -> None:
    """It is told before anything is sent."""
    with (
        Agent.open(enrolled.home.path, connector=authority.connect, clock=clock) as agent,
        pytest.raises(OfficerUnknown),
    ):
        await agent.coverage(silent_days=9)
    assert fleet.asked == []


async def test_a_refusal_is_told(officer: Agent, authority: FakeAuthority) -> None:
    """An authority that knows nothing of coverage says so."""
    with pytest.raises(Rejected) as caught:
        await officer.coverage(silent_days=9)
    assert caught.value.remote_code == "malformed"
    assert authority.received


# ---- what is refused ----


def figures(**changes: int) -> Callable[[Coverage], dict[str, Any]]:
    """Let these figures be others."""
    return lambda page: {"counts": page.counts.model_copy(update=changes)}


DISHONEST: dict[str, tuple[Callable[[Coverage], dict[str, Any]], str]] = {
    "another request": (lambda _: {"request": gap("xxx").record}, "answers something else"),
    "another digest": (lambda _: {"request_digest": "0" * 64}, "answers something else"),
    "another authority": (lambda _: {"authority": "other.example"}, "authority"),
    "a newer roster": (lambda page: {"roster_version": page.roster_version + 1}, "roster"),
    "out of order": (lambda page: {"gaps": page.gaps[::-1]}, "out of order"),
    "twice": (lambda page: {"gaps": [*page.gaps, page.gaps[-1]]}, "names a gap twice"),
    "a gap hidden": (lambda page: {"gaps": page.gaps[1:]}, "lists others"),
    "a gap less counted": (figures(unprovable=0), "lists others"),
    "a gap more counted": (figures(stale=1), "lists others"),
    "another state": (
        lambda page: {"gaps": [each.model_copy(update={"state": GapState.STORED}) for each in page.gaps]},
        "lists others",
    ),
    "principals not counted": (figures(principals=2), "of more principals than it counts"),
    "more silent than there are": (
        lambda page: {
            "gaps": [gap("host-4", "silent", str(number)) for number in range(5)],
            "counts": page.counts.model_copy(update={"silent": 5, "missing": 0, "unprovable": 0, "stored": 0}),
        },
        "of more principals than it counts",
    ),
    "goes on within": (lambda _: {"next": "host-3"}, "goes on where it has been"),
    "counts nobody": (
        lambda page: {
            "gaps": [],
            "next": "host-9",
            "counts": page.counts.model_copy(update=dict.fromkeys(type(page.counts).model_fields, 0)),
        },
        "counts nobody",
    ),
    "backlog": (lambda _: {"proving": PROVING.model_copy(update={"backlog": 13})}, "backlog"),
}


@pytest.mark.parametrize("lie", DISHONEST)
async def test_a_page_that_contradicts_itself_or_the_question_is_refused(
    officer: Agent, fleet: Fleet, lie: str
) -> None:
    """Also when the worker signed it."""
    fleet.changes, said = DISHONEST[lie]
    with pytest.raises(ReplyInvalid, match=said):
        await officer.coverage(silent_days=9)


async def test_a_page_that_another_key_signed_is_refused(officer: Agent, fleet: Fleet) -> None:
    """Only the recovery worker's reply key counts, and not the escrow worker's."""
    for key in (SigningKey.generate(), fleet.authority.escrow_reply_key):
        fleet.key = key
        with pytest.raises(ReplyInvalid):
            await officer.coverage(silent_days=9)


@pytest.mark.parametrize("lie", ["again", "before", "at the same place"])
async def test_a_page_that_goes_back_is_refused(officer: Agent, fleet: Fleet, lie: str) -> None:
    """Pages of one reading cannot repeat a principal, nor go on for ever."""
    fleet.at_once = 2

    def back(page: Coverage) -> dict[str, Any]:
        if page.next is not None:
            return {}
        if lie == "at the same place":
            return {
                "gaps": [],
                "next": "host-2",
                "counts": page.counts.model_copy(update={"stored": 0, "silent": 0, "unprovable": 0}),
            }
        name = "host-2" if lie == "again" else "host-1"
        return {"gaps": [each.model_copy(update={"principal": name}) for each in page.gaps]}

    fleet.changes = back
    with pytest.raises(ReplyInvalid, match=r"out of order|where it has been"):
        await officer.coverage(silent_days=9)


async def test_a_page_that_goes_on_before_its_own_end_is_refused(officer: Agent, fleet: Fleet) -> None:
    """The next page, though honest, would count principals again."""
    pages = iter([{"next": "host-3"}])
    fleet.changes = lambda _page: next(pages, {})
    with pytest.raises(ReplyInvalid, match="where it has been"):
        await officer.coverage(silent_days=9)
    assert len(fleet.asked) == 1


async def test_pages_of_two_readings_do_not_mix(
    officer: Agent, fleet: Fleet, officer_home: Make, authority: FakeAuthority, clock: Clock
) -> None:
    """An answer to somebody else's question about the same page is none to this one."""
    fleet.at_once = 2
    with Agent.open(officer_home("bob").path, connector=authority.connect, clock=clock) as other:
        await other.coverage(silent_days=9)
    earlier = fleet.asked[-1]
    fleet.changes = lambda _page: {"request": earlier.id}
    with pytest.raises(ReplyInvalid, match="answers something else"):
        await officer.coverage(silent_days=9)


async def test_figures_beyond_all_bounds_are_refused(officer: Agent, fleet: Fleet) -> None:
    """A body with integers that JSON readers do not agree on is malformed."""
    fleet.changes = figures(proven=INTEGER_MAX + 1)
    with pytest.raises(ReplyInvalid):
        await officer.coverage(silent_days=9)
