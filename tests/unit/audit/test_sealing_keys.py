"""What an audit says of keys that were sealed to again, and of keys that were retired."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.exports import Authority

from strongroom.fields import new_id
from strongroom.leaves import ProofLeaf, ResealLeaf, Unprovable
from strongroom.mandates import Policy
from strongroom_audit.key_use import KeyUse

from .conftest import Audited, Make

OLD, NEW = "01" * 16, "02" * 16
ROOT = "00" * 32


@pytest.fixture
def audited(make: Make) -> Audited:
    """Three records in two statements; a new sealing key is active, and the old one is not in the roster any more.

    The recovery log has five leaves.
    """
    made = make(policy=Policy(self_recovery_approvals=0))
    authority = made.authority
    authority.store("laptop-1", "disk", "swap")
    authority.store("laptop-2", "disk")
    authority.renew_roster(new_sealing_key=True)
    authority.log_roster()
    authority.sealing_keys.pop()
    authority.renew_roster()
    authority.log_roster()
    return made


def new(authority: Authority) -> str:
    return authority.sealing_keys[0].kid


def test_a_change_of_keys_that_was_done_in_order_has_no_findings(audited: Audited) -> None:
    """Looked at, sealed again, looked at again, retired."""
    authority = audited.authority
    authority.prove(0, 2, kids={OLD: 3})
    authority.reseal(0, 2)
    authority.prove(0, 2, kids={new(authority): 3})
    authority.retire(OLD)
    assert audited.findings() == []


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"root": ROOT}, "reseal_root"),
        ({"size": 2 + 4097}, "reseal_beyond"),
        ({"records": 4}, "reseal_count"),
        ({"kid": OLD}, "reseal_key"),
    ],
)
def test_an_entry_of_sealing_again_that_is_false_is_named(
    audited: Audited, changed: dict[str, Any], code: str
) -> None:
    """Its tree, how many there were, and a key that is not the active one: a third party's, for one."""
    audited.authority.reseal(0, 2, **changed)
    assert audited.errors() == [("recovery", 5, code)]


def test_records_that_were_sealed_to_that_key_before_are_not_missed(audited: Audited) -> None:
    """None of three had to be sealed again."""
    audited.authority.reseal(0, 2, records=0)
    assert audited.findings() == []


@pytest.mark.parametrize(
    ("changed", "code"), [({"root": ROOT}, "retirement_root"), ({"size": 0}, "retirement_root")]
)
def test_a_retirement_under_a_false_tree_is_named(audited: Audited, changed: dict[str, Any], code: str) -> None:
    """The root is recomputed, also that of no leaves at all."""
    authority = audited.authority
    authority.prove(0, 2, kids={new(authority): 3})
    authority.retire(OLD, **changed)
    assert audited.errors() == [("recovery", 6, code)]


def test_a_retirement_of_a_key_that_is_in_use_is_named(audited: Audited) -> None:
    """The roster in force says so."""
    authority = audited.authority
    authority.prove(0, 2, kids={OLD: 3})
    authority.retire(new(authority))
    assert audited.errors() == [("recovery", 6, "retirement_invalid")]


def test_a_retirement_that_the_proofs_do_not_bear_out_is_named(audited: Audited) -> None:
    """Nothing was looked at; it is needed; something failed; not looked at since; keys not said."""
    authority = audited.authority
    failed = Unprovable(index=1, record=None, code="blob_invalid")
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: authority.prove(0, 2, kids={OLD: 1, new(authority): 2}),
        lambda: authority.prove(0, 2, records=2, kids={new(authority): 2}, unprovable=[failed]),
        lambda: authority.reseal(0, 1),
        lambda: authority.prove(0, 2),
        lambda: authority.prove(0, 1, kids={new(authority): 2}),
    ]
    places = []
    for step in steps:
        step()
        places.append(authority.retire(OLD))
    assert [each for each in audited.errors() if each[2] == "retirement_invalid"] == [
        ("recovery", place, "retirement_invalid") for place in places
    ]


def test_a_retirement_that_gives_up_all_that_failed_has_no_finding(audited: Audited) -> None:
    """A whole statement, and two records of another; what was said twice counts once."""
    authority = audited.authority
    failed = [
        Unprovable(index=0, record=new_id(), code="blob_invalid"),
        Unprovable(index=0, record=new_id(), code="blob_invalid"),
        Unprovable(index=1, record=None, code="proof_invalid"),
    ]
    authority.store("laptop-2", "swap", "home")
    authority.prove(0, 3, records=2, kids={new(authority): 2}, unprovable=[*failed, failed[0]])
    authority.retire(OLD, given_up=3)
    assert audited.errors() == []


@pytest.mark.parametrize("given_up", [0, 1, 3])
def test_a_retirement_that_gives_up_another_number_is_named(audited: Audited, given_up: int) -> None:
    """Fewer, or more, than the proofs before it name; also where they name none."""
    authority = audited.authority
    failed = [Unprovable(index=index, record=None, code="blob_invalid") for index in (0, 1)]
    authority.prove(0, 2, records=0, kids={}, unprovable=failed)
    wrong = [authority.retire(OLD, given_up=given_up)]
    authority.prove(0, 2, kids={new(authority): 3})
    if given_up:
        wrong.append(authority.retire(OLD, given_up=given_up))
    assert audited.errors() == [("recovery", place, "retirement_invalid") for place in wrong]


def test_a_retirement_does_not_give_up_what_fails_later(audited: Audited) -> None:
    """Only the leaves before it count."""
    authority = audited.authority
    place = authority.retire(OLD, given_up=1)
    failed = Unprovable(index=1, record=None, code="blob_invalid")
    authority.prove(0, 2, records=2, kids={new(authority): 2}, unprovable=[failed])
    assert ("recovery", place, "retirement_invalid") in audited.errors()


def test_a_record_that_needs_a_retired_key_is_named(audited: Audited) -> None:
    """Somebody has taken rows away, and somebody still has the key."""
    authority = audited.authority
    authority.prove(0, 2, kids={new(authority): 3})
    authority.retire(OLD)
    authority.prove(0, 2, kids={OLD: 3})
    assert audited.errors() == [("recovery", 7, "retired_key_needed")]


# ---- the fold ----

SIZE = 12
SPANS = st.tuples(st.integers(0, SIZE - 1), st.integers(1, SIZE)).map(lambda pair: (pair[0], min(SIZE, sum(pair))))
KIDS = st.one_of(st.none(), st.sets(st.sampled_from([OLD, NEW])))
STEPS = st.lists(st.tuples(SPANS, st.one_of(st.just("reseal"), st.tuples(KIDS, st.booleans()))))


def _of_one_look(places: dict[int, dict[str, Any]], place: int) -> set[int]:
    """Return the places around this one, without a gap, that the same look is the newest of."""
    found: set[int] = set()
    for step in (-1, 1):
        at = place
        while at in places and places[at]["look"] is places[place]["look"]:
            found.add(at)
            at += step
    return found


@given(STEPS, st.integers(0, SIZE))
def test_of_what_was_said_of_a_place_the_newest_counts(steps: list[Any], size: int) -> None:
    """As if every place were written down alone, with the look that it is a part of."""
    use = KeyUse()
    places: dict[int, dict[str, Any]] = {}
    for (first, end), what in steps:
        if what == "reseal":
            use.reseal(
                ResealLeaf(
                    time=1,
                    first=first,
                    count=end - first,
                    size=SIZE,
                    root=ROOT,
                    kid=NEW,
                    records=1,
                    left=0,
                    digest=ROOT,
                )
            )
            for found in {each for place in range(first, end) for each in _of_one_look(places, place)}:
                places[found]["kids"] = None
            continue
        kids, has_failed = what
        failed = [Unprovable(index=first, record=None, code="blob_invalid")] if has_failed else []
        said = None if kids is None else dict.fromkeys(kids, 1)
        use.prove(
            ProofLeaf(
                time=1,
                first=first,
                count=end - first,
                size=SIZE,
                root=ROOT,
                records=len(kids or ()),
                unprovable=failed,
                kids=said,
            )
        )
        look: list[int] = []
        for place in range(first, end):
            places[place] = {"look": look, "kids": kids, "failed": has_failed and place == first}
    is_seen = all(
        place in places and places[place]["kids"] is not None and OLD not in places[place]["kids"]
        for place in range(size)
    )
    failures = sum(place in places and places[place]["failed"] for place in range(size))
    for given_up in range(3):
        assert (use.obstacle(OLD, size, given_up) is None) == (is_seen and failures == given_up)
