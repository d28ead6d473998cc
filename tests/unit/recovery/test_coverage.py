"""Coverage without a database: what counts as what, which leaves are clean, and pages that are never torn."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import authority as make
from tests.support import requests as ask

from strongroom.audits import Counts, Coverage, Gap, GapState, Proving
from strongroom.errors import Denied, Expired, LimitExceeded, OfficerUnknown
from strongroom.fields import Capacity, new_id
from strongroom.leaves import ProofLeaf, Unprovable
from strongroom.limits import BODY_BYTES_MAX, COVERAGE_GAPS_MAX, INTEGER_MAX
from strongroom.mandates import Expectation, ExpectedLabel, Role
from strongroom.messages import RequestState
from strongroom_recovery import gaps
from strongroom_recovery.coverage import check_coverage
from strongroom_recovery.gaps import Filling, Found, Held, Judge, Place, clean_ranges, replaced, spoken_of
from strongroom_recovery.ledger import Attested, Case, Ledger, Outcome
from strongroom_recovery.proofs import Finding

WHO = make.PRINCIPAL
LATER = make.NOW + 100 * make.DAY


def place(index: int = 0, name: str = "disk", *, newest: bool = True, clean: bool = False) -> Place:
    return Place(WHO, name, new_id(), index, is_newest=newest, is_clean=clean)


def proof(first: int, count: int, *unprovable: tuple[int, str | None], time: int = make.NOW) -> ProofLeaf:
    return ProofLeaf(
        time=time,
        first=first,
        count=count,
        size=10**12,
        root="0" * 64,
        records=0,
        unprovable=[Unprovable(index=index, record=record, code="blob_invalid") for index, record in unprovable],
    )


def ledger(*proofs: ProofLeaf) -> Ledger:
    made = Ledger()
    for index, leaf in enumerate(proofs):
        made.proofs.apply(leaf, index)
    return made


def case(principal: str = WHO, *, own: bool = False, time: int = make.NOW, ended: bool = True) -> Case:
    """Return the request by which a record was released."""
    return Case(
        id=new_id(),
        digest=b"",
        requester=principal if own else "officer-a",
        capacity=Capacity.PRINCIPAL if own else Capacity.OFFICER,
        key_id="",
        principal=principal,
        asked_at=time,
        index=0,
        outcome=Outcome(RequestState.RELEASED, 0, time) if ended else None,
    )


def judge(known: Ledger, *, now: int = make.NOW, expected: Sequence[Expectation] = ()) -> Judge:
    return Judge(known, now, silent_days=30, replace_days=14, expected=expected)


# ---- one record ----


def test_a_record_is_counted_by_the_first_state_that_applies() -> None:
    """Unprovable before stale, stale before disclosed, disclosed before proven."""
    record = place(3)
    known = ledger(proof(0, 9))
    known._attested[WHO, record.id] = Attested(matches=True, time=make.NOW + 5)
    found: list[Gap | None] = [judge(known).gap(record)]
    known._disclosed[record.id] = case()
    found.append(judge(known).gap(record))
    known._attested[WHO, record.id] = Attested(matches=False, time=make.NOW + 7)
    found.append(judge(known).gap(record))
    known.proofs.apply(proof(3, 1, (3, record.id), time=make.NOW + 9), 5)
    found.append(judge(known).gap(record))
    said = [each and (each.state.value, each.since, each.code) for each in found]
    assert said == [
        None,
        ("disclosed", make.NOW, None),
        ("stale", make.NOW + 7, None),
        ("unprovable", make.NOW + 9, "blob_invalid"),
    ]


def test_what_the_prover_has_not_looked_at_is_stored() -> None:
    """Its time is looked up for those that are listed."""
    record = place(9)
    gap = judge(ledger(proof(0, 9))).gap(record)
    assert gap is not None
    assert (gap.state, gap.since) == (GapState.STORED, None)
    listed = gaps.with_time_stored([gap], {record.id: record}, {9: make.NOW - 5})
    assert [each.since for each in listed] == [make.NOW - 5]


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, "disclosed"), (14 * make.DAY, "disclosed"), (14 * make.DAY + 1, "overdue")]
)
def test_a_disclosed_key_is_overdue_after_the_days_that_policy_gives(seconds: int, state: str) -> None:
    """Not a second earlier; what is due is told."""
    record = place()
    known = ledger(proof(0, 1))
    known._disclosed[record.id] = case()
    gap = judge(known, now=make.NOW + seconds).gap(record)
    assert gap is not None
    assert gap.state.value == state
    assert gap.since == make.NOW + (14 * make.DAY if state == "overdue" else 0)


def test_neither_the_owner_nor_a_request_without_a_release_discloses() -> None:
    """Only what somebody else was given does."""
    record = place()
    known = ledger(proof(0, 1))
    for each in (case(own=True), case(ended=False)):
        known._disclosed[record.id] = each
        assert judge(known).gap(record) is None


def test_what_somebody_says_of_anothers_record_means_nothing() -> None:
    """Only its owner knows the live key."""
    record = place()
    known = ledger(proof(0, 1))
    known._attested["laptop-0418", record.id] = Attested(matches=False, time=make.NOW)
    assert judge(known).gap(record) is None
    assert spoken_of(known, {WHO}) == []


def test_records_that_something_is_said_of_are_those_of_the_page() -> None:
    """Stale and disclosed, each once; what matches, what is the owner's, and others' are left out."""
    known = ledger()
    mine, others = [new_id() for _ in range(5)], new_id()
    known._attested[WHO, mine[0]] = Attested(matches=False, time=make.NOW)
    known._attested[WHO, mine[1]] = Attested(matches=True, time=make.NOW)
    known._attested["laptop-0418", others] = Attested(matches=False, time=make.NOW)
    known._disclosed |= {mine[0]: case(), mine[2]: case(), mine[3]: case(own=True), others: case("laptop-0418")}
    assert spoken_of(known, {WHO}) == [mine[0], mine[2]]


def test_only_a_proven_record_of_the_same_principal_takes_anothers_place() -> None:
    """Whatever the index says of whose place it takes."""
    old = place()
    newer, bad = new_id(), new_id()
    known = ledger(proof(0, 2, (1, bad)))
    places = {old.id: old}
    for by, principal, index, takes in (
        (newer, WHO, 0, True),
        (newer, "laptop-0418", 0, False),
        (newer, WHO, 2, False),
        (bad, WHO, 1, False),
        (old.id, WHO, 0, False),
    ):
        assert (
            replaced(
                known, {id_: place.principal for id_, place in places.items()}, [(old.id, by, principal, index)]
            )
            == {old.id}
        ) is takes


# ---- one principal ----


def found(
    *records: tuple[Place, Gap | None],
    clean: int = 0,
    missing: Sequence[str | None] = (),
    lost: Sequence[Finding] = (),
    replaced: Sequence[str] = (),
    now: int = make.NOW,
    issued_at: int = make.NOW,
) -> dict[str, int]:
    """Return what one principal adds to the figures, but for itself."""
    held = Held(clean, issued_at, ())
    said = judge(ledger(), now=now).judge(
        WHO, make.NOW, held, missing=missing, records=records, replaced=set(replaced), lost=lost
    )
    assert said.counts.pop("principals") == 1
    listed = Counter(each.state.value for each in said.gaps)
    assert listed == {name: count for name, count in said.counts.items() if name != "proven" and count}
    return {name: count for name, count in said.counts.items() if count}


def a_gap(where: Place, state: str) -> Gap:
    return Gap(principal=WHO, state=GapState(state), name=where.name, record=where.id, since=None, code=None)


def test_what_was_counted_as_clean_is_not_counted_again() -> None:
    """A newest record of a clean leaf that something is said of moves from proven to its state."""
    stale = place(clean=True)
    assert found((stale, a_gap(stale, "stale")), clean=3) == {"proven": 2, "stale": 1}


def test_a_good_record_beside_a_bad_one_is_proven() -> None:
    """Its leaf is not clean, but nothing is wrong with it."""
    good, bad = place(1, "good"), place(1, "bad")
    assert found((good, None), (bad, a_gap(bad, "unprovable"))) == {"proven": 1, "unprovable": 1}


@pytest.mark.parametrize("state", ["unprovable", "stale", "disclosed", "overdue"])
def test_older_records_count_while_they_are_a_danger(state: str) -> None:
    """Until a proven record takes their place."""
    old = place(newest=False)
    assert found((old, a_gap(old, state)), clean=1) == {"proven": 1, state: 1}
    assert found((old, a_gap(old, state)), clean=1, replaced=[old.id]) == {"proven": 1}


def test_older_records_that_are_stored_or_proven_are_history() -> None:
    """Nobody needs them proven."""
    old = place(newest=False)
    assert found((old, a_gap(old, "stored")), clean=1) == {"proven": 1}
    assert found((old, None), clean=1) == {"proven": 1}


@pytest.mark.parametrize("clean", [True, False])
def test_a_replaced_record_counts_for_nothing(clean: bool) -> None:  # noqa: FBT001
    """Also when it is the newest of its name, because its successor has another, and whatever was said of it."""
    old = place(clean=clean)
    for gap in (None, a_gap(old, "disclosed")):
        assert found((old, gap), clean=1 + clean, replaced=[old.id]) == {"proven": 1}


def test_what_the_index_has_lost_and_what_is_missing_are_gaps() -> None:
    """With the reason, as far as it is known."""
    lost = Finding(3, None, "not_found", make.NOW - 5, 9)
    assert found(missing=["a", None], lost=[lost, lost]) == {"missing": 2, "unprovable": 2}


@pytest.mark.parametrize(
    ("issued", "attested", "silent"), [(0, None, 1), (31, None, 0), (30, None, 1), (0, 31, 0), (0, 30, 1)]
)
def test_a_principal_is_silent_by_the_newest_sign_of_life(issued: int, attested: int | None, silent: int) -> None:
    """Enrolment, escrow or attestation, in days after the first; the bound is exclusive."""
    now = make.NOW + 60 * make.DAY + make.DAY // 2
    known = ledger()
    if attested is not None:
        known._attested_at[WHO] = make.NOW + attested * make.DAY
    held = Held(1, make.NOW + issued * make.DAY, ())
    asked = judge(known, now=now)
    said = asked.judge(WHO, make.NOW, held, missing=(), records=(), replaced=set(), lost=())
    assert said.counts["silent"] == silent
    assert (WHO in asked.alive([(WHO, make.NOW)])) is (attested == 31)


@pytest.mark.parametrize(("seconds", "silent"), [(0, 0), (1, 1)])
def test_silent_is_who_was_not_heard_of_for_longer_than_the_days_asked_for(seconds: int, silent: int) -> None:
    """To the second, for the figures and for who is looked at at all."""
    asked = judge(ledger(), now=make.NOW + 30 * make.DAY + seconds)
    said = asked.judge(WHO, make.NOW, None, missing=(), records=(), replaced=set(), lost=())
    assert said.counts["silent"] == silent
    assert (WHO in asked.alive([(WHO, make.NOW)])) is not bool(silent)


def test_gaps_of_a_principal_come_the_worst_first_and_by_name() -> None:
    """The same each time, whatever the database's order."""
    records = [place(name=name) for name in "cab"]
    said = judge(ledger(), now=LATER).judge(
        WHO,
        make.NOW,
        None,
        missing=["z"],
        records=[(each, a_gap(each, "stored")) for each in records],
        replaced=set(),
        lost=[],
    )
    assert [(each.state.value, each.name) for each in said.gaps] == [
        ("missing", "z"),
        ("stored", "a"),
        ("stored", "b"),
        ("stored", "c"),
        ("silent", None),
    ]


SITE = ExpectedLabel(name="site", value="north")


def test_expectations_add_up_by_prefix_and_label() -> None:
    """Each name once; an empty prefix is everybody's."""
    expected = [
        Expectation(prefix="laptop-", label=None, names=["a", "b"]),
        Expectation(prefix="", label=SITE, names=["b", "c"]),
        Expectation(prefix="server-", label=None, names=["d"]),
    ]
    asked = judge(ledger(), expected=expected)
    for labelled, names in (
        ({}, ("a", "b")),
        ({("site", "north"): {WHO}}, ("a", "b", "c")),
        ({("site", "south"): {WHO}}, ("a", "b")),
    ):
        assert asked.wanted([WHO], labelled) == {WHO: names}
    assert asked.wanted(["kiosk-1"], {("site", "north"): {WHO}}) == {"kiosk-1": ()}
    assert asked.wanted([], {}) == {}


@given(
    st.lists(st.text("ab-", min_size=3, max_size=5), min_size=1, max_size=6, unique=True),
    st.lists(st.tuples(st.text("ab-", max_size=3), st.sampled_from("xyz"), st.booleans()), max_size=4),
    st.data(),
)
def test_what_is_expected_of_neighbours_is_what_is_expected_of_each(
    names: list[str], rules: list[tuple[str, str, bool]], data: st.DataObject
) -> None:
    """However the prefixes lie between the names that are asked for together."""
    expected = [
        Expectation(prefix=prefix, label=SITE if labelled else None, names=[name])
        for prefix, name, labelled in rules
    ]
    bearing = set(data.draw(st.lists(st.sampled_from(names))))
    found = judge(ledger(), expected=expected).wanted(sorted(names), {("site", "north"): bearing})
    for name in names:
        of = [
            key for prefix, key, labelled in rules if name.startswith(prefix) and (not labelled or name in bearing)
        ]
        assert found[name] == tuple(dict.fromkeys(of))


# ---- clean leaves ----


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 12), st.lists(st.integers(0, 11), max_size=3)), max_size=8
    ),
    st.integers(1, 4),
)
def test_clean_ranges_hold_no_leaf_that_has_to_be_looked_at(
    looks: list[tuple[int, int, list[int]]], ranges_max: int
) -> None:
    """With all ranges exactly the leaves that are proven as a whole, with few of them the longest."""
    leaves = [proof(first, count, *((first + at % count, None) for at in bad)) for first, count, bad in looks]
    known = ledger(*leaves)
    proven = {
        index
        for index in range(50)
        if known.proofs.look(index) is not None and known.proofs.finding(index, "any") is None
    }
    whole = clean_ranges(known)
    assert all(first < end for first, end in whole)
    assert {index for first, end in whole for index in range(first, end)} == proven
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaps, "_RANGES_MAX", ranges_max)
        few = clean_ranges(known)
    assert set(few) <= set(whole)
    assert few == sorted(few)
    assert len(few) == min(ranges_max, len(whole))
    longest = sorted((end - first for first, end in whole), reverse=True)[:ranges_max]
    assert sorted((end - first for first, end in few), reverse=True) == longest


# ---- pages ----


def empty() -> Coverage:
    body = ask.coverage_body()
    return Coverage(
        authority=body.authority,
        request=body.id,
        request_digest="0" * 64,
        roster_version=INTEGER_MAX,
        as_of=INTEGER_MAX,
        proving=Proving(size=INTEGER_MAX, backlog=INTEGER_MAX, oldest_at=INTEGER_MAX),
        counts=Counts(**dict.fromkeys(Counts.model_fields, INTEGER_MAX)),
        gaps=[],
        next="z" * 64,
    )


def lacking(count: int, name: str = "disk") -> Found:
    """Return a principal that lacks so many keys."""
    gaps_ = [
        Gap(principal=WHO, state=GapState.MISSING, name=name, record=None, since=None, code=None)
        for _ in range(count)
    ]
    return Found(Counter(principals=1, missing=count), gaps_)


def test_a_page_takes_whole_principals_until_it_is_full() -> None:
    """What does not fit any more is not counted."""
    filling = Filling(empty())
    assert filling.takes(lacking(COVERAGE_GAPS_MAX - 1))
    assert filling.takes(lacking(1))
    before = filling.is_full
    assert not filling.takes(lacking(1))
    assert (before, filling.is_full) == (False, True)
    assert len(filling.gaps) == filling.counts["missing"] == COVERAGE_GAPS_MAX
    assert filling.counts["principals"] == 2


def test_a_principal_that_no_page_can_hold_is_counted_in_full_and_named_in_part() -> None:
    """Else its page would be asked for again for ever."""
    filling = Filling(empty())
    filling.takes_plain([4, 5])
    assert filling.takes(lacking(COVERAGE_GAPS_MAX + 7))
    assert filling.is_full
    assert len(filling.gaps) == COVERAGE_GAPS_MAX
    assert filling.figures() == Counts(
        **dict.fromkeys(Counts.model_fields, 0) | {"principals": 3, "proven": 9, "missing": COVERAGE_GAPS_MAX + 7}
    )


def test_long_names_fill_a_page_before_it_has_many_gaps() -> None:
    """The statement stays within its bound."""
    filling = Filling(empty())
    long = "\U0001f512" * 128
    while filling.takes(lacking(10, long)):
        pass
    assert filling.is_full
    assert len(filling.gaps) < COVERAGE_GAPS_MAX
    page = empty().model_copy(update={"gaps": filling.gaps})
    assert BODY_BYTES_MAX - 11_000 < len(page.to_bytes()) <= BODY_BYTES_MAX


# ---- who may ask ----


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, None),
        ({"requester": "officer-c"}, None),
        ({"requester": "officer-r"}, None),
        ({"requester": "officer-i"}, OfficerUnknown),
        ({"requester": "officer-x"}, OfficerUnknown),
        ({"requester": WHO, "requester_kind": Capacity.PRINCIPAL}, Denied),
        ({"expires_at": make.NOW + 301}, LimitExceeded),
        ({"issued_at": make.NOW - 300, "expires_at": make.NOW - 61}, Expired),
        ({"issued_at": make.NOW + 61, "expires_at": make.NOW + 120}, Expired),
    ],
)
def test_officers_who_audit_or_recover_may_ask(changes: dict[str, Any], error: type[Exception] | None) -> None:
    """For a short time, and nobody else."""
    officers = [
        make.officer("officer-a"),
        make.officer("officer-b"),
        make.officer("officer-c", Role.AUDIT),
        make.officer("officer-r", Role.RECOVER),
        make.officer("officer-i", Role.INVITE, Role.APPROVE, Role.REVOKE),
    ]
    body = ask.coverage_body(**changes)
    if error is None:
        check_coverage(body, make.roster(officers=officers), make.NOW)
        return
    with pytest.raises(error):
        check_coverage(body, make.roster(officers=officers), make.NOW)


# ---- who is counted ----


def test_principals_come_in_order_of_name_from_where_the_page_before_ended() -> None:
    """Also those who came since, and with the time of the newest enrolment; the order is that of the bytes."""
    registry = make.registry("b-2", "b--2", "b20", "aaa")
    assert registry.speaking(None, 9) == [(name, make.NOW) for name in ("aaa", "b--2", "b-2", "b20")]
    late = make.enrolment(make.invitation("b-0"), "b-0")
    again = make.enrolment(make.invitation("b20", replaces=True), "b20", key="new")
    registry.apply(make.enrolment_leaf(late, time=make.NOW + 5))
    registry.apply(make.enrolment_leaf(again, time=make.NOW + 6))
    assert registry.speaking("b--2", 9) == [("b-0", make.NOW + 5), ("b-2", make.NOW), ("b20", make.NOW + 6)]
    assert registry.speaking("b--3", 2) == [("b-0", make.NOW + 5), ("b-2", make.NOW)]
    assert registry.speaking("zzz", 9) == []


def test_revoked_principals_are_passed_over_until_they_are_enrolled_again() -> None:
    """So is a name that was only ever revoked; a former key's revocation ends nobody."""
    registry = make.registry("aaa", "bbb", "ccc")
    registry.apply(make.revocation_leaf(make.revocation("bbb")))
    registry.apply(make.revocation_leaf(make.revocation("never-enrolled")))
    assert [name for name, _ in registry.speaking(None, 9)] == ["aaa", "ccc"]
    again = make.enrolment(make.invitation("bbb", replaces=True), "bbb", key="new")
    registry.apply(make.enrolment_leaf(again))
    former = make.revocation("bbb", key=make.signing_key("bbb").key_id)
    registry.apply(make.revocation_leaf(former))
    assert [name for name, _ in registry.speaking(None, 9)] == ["aaa", "bbb", "ccc"]
