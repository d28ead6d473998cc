"""Coverage on real servers: every state brought about by doing it, and pages that add up to the fleet."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import authority as make
from tests.support import requests as ask
from tests.support import workers
from tests.support.attacker import as_superuser, ask_superuser
from tests.support.recovery import Place, place_of
from tests.support.workers import Brokers, Databases

from strongroom.audits import Counts, Coverage, GapState
from strongroom.fields import Capacity
from strongroom.leaves import AttestationLeaf, ProofLeaf, Unprovable
from strongroom.mandates import Expectation, ExpectedLabel, Officer, Policy, Role
from strongroom.messages import Attestation, AttestedRecord, Record
from strongroom.statements import Statement
from strongroom_agent.agent import Agent
from strongroom_agent.identity import attach, create_officer_home
from strongroom_recovery import coverage, gaps

OTHER = "laptop-0418"
THIRD = "server-1"
UNGUARDED = "SET session_replication_role = replica; "


@pytest.fixture
async def place(database: Databases, broker: Brokers, tmp_path: Path) -> AsyncIterator[Place]:
    """A place with three principals, of which none has a key."""
    async with place_of(database, broker, tmp_path, enrolled=(make.PRINCIPAL, OTHER, THIRD)) as made:
        made.settings.state_dir.mkdir(parents=True)
        yield made


@pytest.fixture(params=["few", "many"])
def _findings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of finding what the prover found fault with: by its place, and by going through the records."""
    if request.param == "many":
        monkeypatch.setattr(coverage, "_FINDINGS_FEW", -1)


# ---- what happens ----


async def keys(place: Place, *names: str, principal: str = make.PRINCIPAL, **changes: Any) -> list[Record]:
    """Escrow keys under these names, a statement each; return the records."""
    records = [make.record(principal, name=name, **changes) for name in names]
    await place.escrow(*(make.escrow(principal, records=[record]) for record in records))
    return records


async def prove(place: Place, *unprovable: Unprovable, first: int = 0) -> None:
    """Say that the prover has looked at every leaf from `first` on, and what it has found fault with."""
    head = await place.escrow_head()
    await place.append(
        ProofLeaf(
            time=place.now,
            first=first,
            count=head.size - first,
            size=head.size,
            root=head.root.hex(),
            records=0,
            unprovable=list(unprovable),
        )
    )


def fault(index: int, record: str | None, code: str = "blob_invalid") -> Unprovable:
    return Unprovable(index=index, record=record, code=code)


async def attest(place: Place, record: Record, *, matches: bool) -> None:
    """Let the owner say through the worker whether its live key is the one of a record."""
    body = Attestation(
        authority=make.AUTHORITY,
        id=ask.listing_body().id,
        issued_at=place.now,
        principal=make.PRINCIPAL,
        records=[AttestedRecord(id=record.id, fingerprint=record.fingerprint, matches=matches)],
    )
    reply = await place.ask(make.signed(body, make.signing_key(make.PRINCIPAL)).envelope())
    assert place.receipt(reply).leaf


async def disclose(place: Place, record: Record) -> None:
    """Let an officer recover a record, with the approval of another."""
    request = ask.request(
        requester="officer-a",
        requester_kind=Capacity.OFFICER,
        records=[record.id],
        expires_at=make.NOW + make.DAY,
    )
    await place.ask(request.envelope())
    await place.ask(ask.approval(request, "officer-b").envelope())
    await place.release(request)


async def edit(place: Place, *commands: str) -> None:
    """Change rows as the database's owner, whom no foreign key holds back."""
    await as_superuser(place.databases, *(UNGUARDED + command for command in commands))


def with_policy(place: Place, **policy: Any) -> None:
    """Put a roster in force in which one approval is enough, and with this policy."""
    place.write_roster(make.next_roster(place.roster, policy=Policy(**{"officer_recovery_approvals": 1, **policy})))


# ---- what is read ----


async def page_of(place: Place, after: str | None = None, **changes: Any) -> Coverage:
    """Ask for one page."""
    members = {"issued_at": place.now, "expires_at": place.now + 300, "after": after, **changes}
    return place.signed(await place.ask(ask.coverage_request(**members).envelope()), Coverage)


async def pages_of(place: Place, **changes: Any) -> list[Coverage]:
    """Ask for page after page."""
    pages = [await page_of(place, **changes)]
    while pages[-1].next is not None:
        pages.append(await page_of(place, pages[-1].next, **changes))
    return pages


def figures(page: Coverage) -> dict[str, int]:
    """Return the figures that are not nought, without the number of principals."""
    return {name: count for name, count in page.counts.model_dump().items() if count and name != "principals"}


def listed(page: Coverage, principal: str = make.PRINCIPAL) -> list[tuple[str, str | None, str | None]]:
    """Return state, name and record of the gaps of a principal."""
    return [(each.state.value, each.name, each.record) for each in page.gaps if each.principal == principal]


async def test_what_is_escrowed_is_stored_and_then_proven(place: Place) -> None:
    """A key is a gap until the prover has looked at it; how far that is, is said too."""
    [record] = await keys(place, "disk/root")
    async with place.worker():
        before = await page_of(place)
        place.now += 5
        await prove(place)
        after = await page_of(place)
    assert before.counts.principals == 3
    assert figures(before) == {"missing": 2, "stored": 1}
    assert before.proving.model_dump() == {"size": 1, "backlog": 1, "oldest_at": None}
    assert listed(before) == [("stored", "disk/root", record.id)]
    assert [each.since for each in before.gaps] == [make.NOW, None, None]
    assert figures(after) == {"missing": 2, "proven": 1}
    assert after.proving.model_dump() == {"size": 1, "backlog": 0, "oldest_at": place.now}
    assert [each.principal for each in after.gaps] == [OTHER, THIRD]
    assert (after.next, after.as_of, after.roster_version) == (None, place.now, 1)


async def test_only_the_newest_of_a_name_counts_while_nothing_is_said_of_the_older(place: Place) -> None:
    """An older record that is merely stored or proven is history."""
    old, new = make.record(), make.record()
    await place.escrow(
        make.escrow(issued_at=make.NOW - 9, records=[new]), make.escrow(issued_at=make.NOW - 10, records=[old])
    )
    async with place.worker():
        page = await page_of(place)
    assert listed(page) == [("stored", "disk/root", new.id)]


@pytest.mark.usefixtures("_findings")
async def test_what_the_prover_finds_fault_with_is_named_with_the_reason(place: Place) -> None:
    """Newest or not, one record of a statement or all, and what else was in it is proven."""
    old, new = make.record(name="a"), make.record(name="a")
    good, bad = make.record(name="b"), make.record(name="c")
    both = [make.record(OTHER, name=name) for name in "de"]
    await place.escrow(
        make.escrow(issued_at=make.NOW - 2, records=[old]),
        make.escrow(issued_at=make.NOW - 1, records=[new]),
        make.escrow(records=[good, bad]),
        make.escrow(OTHER, records=both),
    )
    await prove(place, fault(0, old.id, "key_unknown"), fault(2, bad.id), fault(3, None, "proof_invalid"))
    async with place.worker():
        page = await page_of(place)
    assert figures(page) == {"missing": 1, "proven": 2, "unprovable": 4}
    assert listed(page) == [("unprovable", "a", old.id), ("unprovable", "c", bad.id)]
    assert listed(page, OTHER) == [("unprovable", each.name, each.id) for each in both]
    codes = ["key_unknown", "blob_invalid", "proof_invalid", "proof_invalid", None]
    assert [each.code for each in page.gaps] == codes
    assert [each.since for each in page.gaps] == [make.NOW] * 4 + [None]


@pytest.mark.usefixtures("_findings")
async def test_what_the_index_does_not_name_any_more_stays_a_gap(place: Place) -> None:
    """Whose it was is what the log's leaf says, or else the row of the statement; the name is lost."""
    _, _, third = await keys(place, "a", "b", "c")
    await edit(
        place,
        "DELETE FROM records",
        "UPDATE escrow_leaves SET leaf = 'no leaf' WHERE index = 1",
        "DELETE FROM escrow_statements WHERE leaf_index = 0",
    )
    await prove(
        place, fault(0, None, "not_found"), fault(1, None, "proof_invalid"), fault(2, third.id, "not_found")
    )
    async with place.worker():
        page = await page_of(place)
    assert listed(page) == [
        ("missing", None, None),
        ("unprovable", None, None),
        ("unprovable", None, None),
        ("unprovable", None, third.id),
    ]
    assert figures(page) == {"missing": 3, "unprovable": 3}


async def test_a_damaged_key_stays_its_owners_gap_whoever_the_index_gives_it_to(place: Place) -> None:
    """One UPDATE that moves the row to nobody does not take the loss out of the figures."""
    _, second = await keys(place, "a", "b")
    await edit(place, "UPDATE records SET principal = 'nobody' WHERE leaf_index = 1")
    await prove(place, fault(1, second.id, "proof_invalid"))
    async with place.worker():
        page = await page_of(place)
    assert ("unprovable", None, second.id) in listed(page)


async def test_a_record_without_a_row_is_no_gap_once_it_is_replaced(place: Place) -> None:
    """What was lost from the index is made good by a proven record that supersedes it."""
    [first] = await keys(place, "a")
    await edit(place, "DELETE FROM records")
    await prove(place, fault(0, first.id, "not_found"))
    await place.escrow(make.escrow(records=[make.record(name="a", supersedes=[first.id])]))
    async with place.worker():
        before = listed(await page_of(place))
        await prove(place, fault(0, first.id, "not_found"))
        after = listed(await page_of(place))
    assert ("unprovable", None, first.id) in before
    assert [each for each in after if each[0] == "unprovable"] == []


async def test_a_statement_that_nobody_can_attribute_is_nobodys_gap(place: Place) -> None:
    """Leaf, statement and row are gone: `log verify` names the place, coverage counts principals."""
    await keys(place, "a", "b")
    await edit(
        place,
        "DELETE FROM records WHERE leaf_index = 0",
        "DELETE FROM escrow_leaves WHERE index = 0",
        "DELETE FROM escrow_statements WHERE leaf_index = 0",
    )
    await prove(place, fault(0, None, "proof_invalid"))
    async with place.worker():
        assert figures(await page_of(place)) == {"missing": 2, "proven": 1}


async def test_an_owner_can_say_that_a_key_is_stale_and_that_it_is_not(place: Place) -> None:
    """The newest attestation counts, also of an older record; somebody else's counts for nothing."""
    older, newer = make.record(), make.record()
    await place.escrow(
        make.escrow(issued_at=make.NOW - 2, records=[older]), make.escrow(issued_at=make.NOW - 1, records=[newer])
    )
    await prove(place)
    async with place.worker():
        await attest(place, older, matches=False)
        await attest(place, newer, matches=False)
        stale = await page_of(place)
        await attest(place, newer, matches=True)
        mended = await page_of(place)
        await place.append(
            AttestationLeaf(
                time=place.now,
                id=newer.id,
                digest="0" * 64,
                principal=OTHER,
                key="0" * 32,
                matching=[older.id],
                stale=[newer.id],
            )
        )
        after = await page_of(place)
    assert listed(stale) == [("stale", "disk/root", older.id), ("stale", "disk/root", newer.id)]
    assert figures(stale) == {"missing": 2, "stale": 2}
    assert listed(mended) == listed(after) == [("stale", "disk/root", older.id)]
    assert figures(mended) == figures(after) == {"missing": 2, "stale": 1, "proven": 1}


async def test_a_disclosed_key_is_overdue_after_its_time_and_no_gap_once_it_is_replaced(place: Place) -> None:
    """The deadline is the policy's; the record that takes its place has to be proven, and to be the owner's."""
    with_policy(place, replace_days=2)
    [given] = await keys(place, "disk/root")
    await prove(place)
    async with place.worker():
        await disclose(place, given)
        disclosed = await page_of(place)
        place.now += 2 * make.DAY
        in_time = await page_of(place)
        place.now += 1
        overdue = await page_of(place)
        await keys(place, "disk/other", principal=OTHER, supersedes=[given.id])
        await prove(place, first=1)
        anothers = await page_of(place)
        await keys(place, "disk/new", supersedes=[given.id])
        unproven = await page_of(place)
        await prove(place, first=2)
        replaced = await page_of(place)
    assert listed(disclosed) == listed(in_time) == [("disclosed", "disk/root", given.id)]
    assert figures(disclosed) == {"missing": 2, "disclosed": 1}
    assert disclosed.gaps[0].since == make.NOW
    assert listed(overdue) == listed(anothers) == [("overdue", "disk/root", given.id)]
    assert figures(overdue) == {"missing": 2, "overdue": 1}
    assert overdue.gaps[0].since == make.NOW + 2 * make.DAY
    assert {state for state, *_ in listed(unproven)} == {"overdue", "stored"}
    assert listed(replaced) == []
    assert figures(replaced) == {"missing": 1, "proven": 2}


async def test_a_key_that_its_owner_recovered_is_not_disclosed(place: Place) -> None:
    """Nobody else has it."""
    await keys(place, "disk/root")
    await prove(place)
    async with place.worker():
        await place.release(ask.request())
        assert figures(await page_of(place)) == {"missing": 2, "proven": 1}


async def test_policy_says_what_is_expected_by_prefix_and_by_label(place: Place) -> None:
    """Of whom nothing is expected it is enough to hold anything; a label counts on any record."""
    north = ExpectedLabel(name="site", value="north")
    with_policy(
        place,
        expected=[
            Expectation(prefix="laptop-", label=None, names=["disk/root", "disk/home"]),
            Expectation(prefix="", label=north, names=["vpn"]),
        ],
    )
    await keys(place, "disk/root", "vpn")
    await keys(place, "anything", principal=THIRD, labels={"site": "south"})
    await prove(place)
    async with place.worker():
        first = await page_of(place)
        await keys(place, "more", principal=THIRD, labels={"site": "north", "floor": "2"})
        second = await page_of(place)
    assert listed(first) == [("missing", "disk/home", None)]
    assert listed(first, OTHER) == [("missing", "disk/home", None), ("missing", "disk/root", None)]
    assert listed(first, THIRD) == []
    assert figures(first) == {"missing": 3, "proven": 3}
    assert listed(second, THIRD)[0] == ("missing", "vpn", None)


async def test_who_is_not_heard_of_for_long_is_silent(place: Place) -> None:
    """The newest of enrolment, escrow and attestation counts, each by itself."""
    [mine] = await keys(place, "disk/root")
    await prove(place)
    async with place.worker():
        place.now = make.NOW + 10 * make.DAY
        assert figures(await page_of(place, silent_days=10)) == {"missing": 2, "proven": 1}
        place.now += 1
        everybody = await page_of(place, silent_days=10)
        await attest(place, mine, matches=True)
        await place.escrow(make.escrow(OTHER, issued_at=place.now, records=[make.record(OTHER)]))
        again = await page_of(place, silent_days=10)
        await workers.enrol(
            place.databases,
            place.folder,
            place.roster,
            [make.enrolment(make.invitation(THIRD, replaces=True), THIRD, key="new")],
        )
    assert figures(everybody) == {"silent": 3, "missing": 2, "proven": 1}
    assert {each.since for each in everybody.gaps if each.state is GapState.SILENT} == {make.NOW}
    assert [each.principal for each in again.gaps if each.state is GapState.SILENT] == [THIRD]


async def test_who_was_revoked_is_not_counted(place: Place) -> None:
    """Only principals that a key speaks for are, also where their records lie among the others'."""
    with_policy(place, expected=[Expectation(prefix="", label=None, names=["a"])])
    for name in (make.PRINCIPAL, OTHER, THIRD):
        await keys(place, "b", principal=name)
    async with place.worker():
        await place.ask(make.revocation(OTHER).envelope())
        page = await page_of(place)
    assert figures(page) == {"missing": 2, "stored": 2}
    assert page.counts.principals == 2
    assert {each.principal for each in page.gaps} == {make.PRINCIPAL, THIRD}


async def test_principals_are_read_in_the_order_of_their_bytes(place: Place) -> None:
    """In the order of a language a host could lie outside of the page that it belongs to, and count as missing."""
    collation = "SELECT collation_name FROM information_schema.columns WHERE (table_name, column_name) = ($1, $2)"
    assert await ask_superuser(place.databases, collation, "records", "principal") == "C"


async def test_an_empty_authority_has_no_gaps(database: Databases, broker: Brokers, tmp_path: Path) -> None:
    """Nobody is enrolled, and nothing was ever escrowed."""
    async with place_of(database, broker, tmp_path) as place, place.worker():
        page = await page_of(place)
    assert (page.gaps, page.next, page.proving.size) == ([], None, 0)
    assert page.counts == Counts(**dict.fromkeys(Counts.model_fields, 0))


# ---- pages ----


@pytest.mark.parametrize("at_once", [1, 2, 1000])
@pytest.mark.parametrize(("principals", "gaps_max"), [(1, 99), (2, 99), (20_000, 2), (20_000, 3), (2, 2)])
async def test_pages_add_up_to_the_fleet(
    place: Place, monkeypatch: pytest.MonkeyPatch, at_once: int, principals: int, gaps_max: int
) -> None:
    """However long pages may get, no principal is left out, counted twice, or torn."""
    await keys(place, "a", "b")
    await keys(place, "c", principal=THIRD)
    async with place.worker():
        whole = await page_of(place)
        monkeypatch.setattr(coverage, "_PRINCIPALS_FIRST", at_once)
        monkeypatch.setattr(coverage, "COVERAGE_PRINCIPALS_MAX", principals)
        monkeypatch.setattr(gaps, "COVERAGE_GAPS_MAX", gaps_max)
        pages = await pages_of(place)
    assert len(whole.gaps) == 4
    assert len(pages) > 1
    assert [gap for page in pages for gap in page.gaps] == whole.gaps
    totals = Counter[str]()
    for page in pages:
        totals.update(page.counts.model_dump())
    assert dict(totals) == whole.counts.model_dump()
    assert all(page.counts.principals for page in pages)


async def test_a_principal_with_more_gaps_than_a_page_holds_does_not_stop_the_reading(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its page names the first of them, counts all, and ends with it."""
    await keys(place, "a", "b", "c")
    monkeypatch.setattr(gaps, "COVERAGE_GAPS_MAX", 2)
    async with place.worker():
        pages = await pages_of(place)
    assert [page.next for page in pages] == [make.PRINCIPAL, None]
    assert [name for _, name, _ in listed(pages[0])] == ["a", "b"]
    assert pages[0].counts.stored == 3
    assert [page.counts.principals for page in pages] == [1, 2]


async def test_an_officers_agent_reads_what_the_worker_signs(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a real broker, page by page; figures and gaps of all pages are those of one."""
    home = create_officer_home(tmp_path / "alice", "alice", passphrase=None)
    alice = Officer(name="alice", public_key=home.config.public_key, roles=[Role.AUDIT])
    roster = make.next_roster(place.roster, officers=[*place.roster.body.officers, alice])
    place.write_roster(roster)
    attach(
        home,
        root_key=make.signing_key("root").public_key,
        roster=roster.statement.envelope(),
        broker_url=place.brokers.url("officer"),
        broker_ca=place.brokers.ca_file.read_text(),
        now=make.NOW,
    )
    await keys(place, "a", "b")
    await prove(place, first=1)
    taken: list[Coverage] = []
    async with place.worker():
        whole = await page_of(place, silent_days=14)
        monkeypatch.setattr(coverage, "COVERAGE_PRINCIPALS_MAX", 1)
        with Agent.open(home.path, clock=lambda: place.now) as agent:
            found = await agent.coverage(silent_days=14, take=taken.append)
    assert [gap for page in taken for gap in page.gaps] == whole.gaps
    assert (found.counts, found.proving, found.pages) == (whole.counts, whole.proving, 3)
    assert (found.covered, found.failing, found.records) == (0, 2, 2)


# ---- who may ask, and what is shown to whom ----


@pytest.mark.parametrize(
    ("requester", "code"),
    [("officer-c", None), ("officer-r", None), ("officer-i", "officer_unknown"), ("officer-x", "officer_unknown")],
)
async def test_officers_with_role_audit_or_recover_may_ask(place: Place, requester: str, code: str | None) -> None:
    """Others are told no."""
    officers = [
        *place.roster.body.officers,
        make.officer("officer-r", Role.RECOVER),
        make.officer("officer-i", Role.INVITE, Role.APPROVE, Role.REVOKE),
    ]
    place.write_roster(make.next_roster(place.roster, officers=officers))
    async with place.worker():
        assert await code_of(place, ask.coverage_request(requester)) == code


async def test_principals_may_not_ask_about_the_fleet(place: Place) -> None:
    """Not even about themselves: a listing is what says that."""
    asked = ask.coverage_request(make.PRINCIPAL, requester_kind=Capacity.PRINCIPAL)
    async with place.worker():
        assert await code_of(place, asked) == "denied"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"expires_at": make.NOW + 301}, "limit_exceeded"),
        ({"issued_at": make.NOW - 400, "expires_at": make.NOW - 100}, "expired"),
        ({"authority": "other.example.org"}, "wrong_authority"),
        ({"key": "officer-b"}, "signature_invalid"),
    ],
)
async def test_a_question_that_must_not_be_answered_is_refused(
    place: Place, changes: dict[str, Any], code: str
) -> None:
    """As every question is."""
    async with place.worker():
        assert await code_of(place, ask.coverage_request(**changes)) == code


async def code_of(place: Place, statement: Statement) -> str | None:
    """Return the code of the refusal, None for an answer."""
    reply = await place.ask(statement.envelope())
    assert reply.statement is not None
    if reply.statement.type == Coverage.TYPE:
        assert place.signed(reply, Coverage).request_digest == statement.digest.hex()
        return None
    return (await place.rejection(statement.envelope())).code


async def test_a_row_that_somebody_moved_to_another_leaf_does_not_prove_its_record(place: Place) -> None:
    """The prover's next look at the leaf names what does not belong there; until then the index is believed."""
    [record] = await keys(place, "disk/root")
    await keys(place, "other", principal=OTHER)
    await prove(place, first=1)
    await ask_superuser(place.databases, "UPDATE records SET leaf_index = 1 WHERE id = $1 RETURNING 1", record.id)
    async with place.worker():
        assert figures(await page_of(place))["proven"] == 2
        await prove(place, fault(1, record.id, "proof_invalid"))
        page = await page_of(place)
    # It is named for whom the row gives it to, and for whom the place in the log belongs to.
    assert [(each.principal, each.name) for each in page.gaps if each.state is GapState.UNPROVABLE] == [
        (make.PRINCIPAL, "disk/root"),
        (OTHER, None),
    ]
    assert figures(page) == {"missing": 1, "proven": 1, "unprovable": 2}


@pytest.mark.usefixtures("_findings")
async def test_a_row_that_was_moved_away_does_not_hide_what_is_wrong_with_its_record(place: Place) -> None:
    """The finding is about a place in the log, and the index does not name the record there any more."""
    [record] = await keys(place, "disk/root")
    await keys(place, "other", principal=OTHER)
    await prove(place, fault(0, record.id, "proof_invalid"))
    await ask_superuser(place.databases, "UPDATE records SET leaf_index = 1 WHERE id = $1 RETURNING 1", record.id)
    async with place.worker():
        page = await page_of(place)
    assert listed(page) == [("unprovable", None, record.id)]


async def test_rows_that_no_statement_can_have_brought_are_gaps_and_stop_nobody(place: Place) -> None:
    """Names out of shape, ids that are none, times before all time."""
    await keys(place, "a", "b")
    await edit(
        place,
        "UPDATE records SET name = E'\\x07' || repeat('x', 200), issued_at = -5 WHERE leaf_index = 0",
        "UPDATE records SET id = '00000000-0000-0000-0000-000000000000' WHERE leaf_index = 1",
        "UPDATE escrow_statements SET stored_at = 9000000000000000000",
    )
    async with place.worker():
        page = await page_of(place)
    assert listed(page) == [("stored", None, None), ("stored", None, None)]
    assert figures(page) == {"missing": 2, "stored": 2}


async def test_asking_leaves_nothing_behind(place: Place) -> None:
    """Coverage is read; the log does not grow."""
    async with place.worker():
        before = len(await place.log())
        await page_of(place)
        assert len(await place.log()) == before
