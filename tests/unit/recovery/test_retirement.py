"""What is folded from the log about sealing keys: what is sealed again, looked at again, and may be retired."""

from collections.abc import Collection
from typing import Any

import pytest
from tests.support import authority as make

from strongroom.fields import new_id
from strongroom.leaves import ProofLeaf, ResealLeaf, RetirementLeaf, Unprovable
from strongroom.mandates import SealingKeyState
from strongroom.roster import Roster
from strongroom_recovery.ledger import Ledger
from strongroom_recovery.prover.pacing import BLOCK_LEAVES, newest_proof, period_seconds, spans
from strongroom_recovery.ranges import Ranges
from strongroom_recovery.reseal.planning import Piece, Progress, Throttle, pieces
from strongroom_recovery.reseal.retirement import Verdict, judge

OLD, NEW = make.sealing_key(), make.sealing_key("new")
ROOT = "00" * 32
SIZE = 100


def proof(first: int, end: int, kids: dict[str, int] | None, **changes: Any) -> ProofLeaf:
    members: dict[str, Any] = {
        "time": make.NOW,
        "first": first,
        "count": end - first,
        "size": SIZE,
        "root": ROOT,
        "records": sum((kids or {}).values()),
        "unprovable": [],
        "kids": kids,
    }
    return ProofLeaf(**(members | changes))


def resealed(first: int, end: int, kid: str = NEW.kid, **changes: Any) -> ResealLeaf:
    members: dict[str, Any] = {
        "time": make.NOW,
        "first": first,
        "count": end - first,
        "size": SIZE,
        "root": ROOT,
        "kid": kid,
        "records": end - first,
        "left": 0,
        "digest": ROOT,
    }
    return ResealLeaf(**(members | changes))


def folded(*leaves: ProofLeaf | ResealLeaf | RetirementLeaf) -> Ledger:
    ledger = Ledger()
    for leaf in leaves:
        ledger.apply(leaf.to_bytes())
    return ledger


def roster(old: SealingKeyState | None = SealingKeyState.CLOSED) -> Roster:
    keys = [make.sealing_entry(NEW)]
    return make.roster(sealing_keys=keys if old is None else [*keys, make.sealing_entry(OLD, old)])


def verdict(
    *leaves: ProofLeaf | ResealLeaf,
    old: SealingKeyState | None = SealingKeyState.CLOSED,
    give_up: Collection[str] = (),
) -> Verdict:
    return judge(OLD.kid, roster(old), folded(*leaves), SIZE, give_up)


WHOLE = proof(0, SIZE, {NEW.kid: SIZE})


# ---- may it be retired ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [SealingKeyState.CLOSED, None])
def test_a_key_that_opens_nothing_may_be_retired(old: SealingKeyState | None) -> None:
    """Closed, or not in the roster any more, and all was looked at."""
    found = verdict(WHOLE, old=old)
    assert found.is_clear
    assert (found.opened, list(found.unprovable), list(found.unseen), found.new) == (0, [], [], 0)


@pytest.mark.parametrize("old", [SealingKeyState.ACTIVE, SealingKeyState.ACCEPTED])
def test_a_key_that_new_blobs_may_be_sealed_to_may_not(old: SealingKeyState) -> None:
    """Whatever was looked at: the next message may need it."""
    found = verdict(WHOLE, old=old)
    assert found.is_in_use
    assert not found.is_clear
    assert not found.awaits_proof


def test_a_key_that_opens_a_single_record_may_not() -> None:
    """It is counted."""
    found = verdict(proof(0, SIZE, {NEW.kid: SIZE - 1, OLD.kid: 1}))
    assert (found.is_clear, found.opened, found.awaits_proof) == (False, 1, False)


def test_an_unprovable_record_keeps_it() -> None:
    """Nobody knows which key it needs."""
    named = Unprovable(index=3, record=None, code="blob_invalid")
    found = verdict(proof(0, SIZE, {NEW.kid: 9}, unprovable=[named]))
    assert (found.is_clear, [each.index for each in found.unprovable], found.awaits_proof) == (False, [3], False)


LOST = new_id()
BROKEN = proof(
    *(0, SIZE, {NEW.kid: 9}),
    unprovable=[
        Unprovable(index=3, record=None, code="proof_invalid"),
        Unprovable(index=5, record=LOST, code="blob_invalid"),
    ],
)


def test_what_is_unprovable_keeps_it_no_longer_once_all_of_it_is_given_up() -> None:
    """A record by its id, a whole statement by its leaf; what else keeps the key still does."""
    found = verdict(BROKEN, give_up=["leaf:3", LOST, LOST])
    assert (found.is_clear, found.given_up, list(found.unprovable)) == (True, 2, [])
    assert not verdict(BROKEN, give_up=["leaf:3", LOST], old=SealingKeyState.ACTIVE).is_clear
    needed = proof(0, SIZE, {OLD.kid: 1}, unprovable=BROKEN.unprovable)
    assert not verdict(needed, give_up=["leaf:3", LOST]).is_clear
    assert verdict(BROKEN, resealed(0, 1), give_up=["leaf:3", LOST]).awaits_proof


@pytest.mark.parametrize(("give_up", "left"), [([], 2), (["leaf:3"], 1), ([LOST], 1)], ids=["none", "one", "other"])
def test_giving_up_some_is_not_enough(give_up: list[str], left: int) -> None:
    """Every single one has to be named, and a look would change nothing."""
    found = verdict(BROKEN, give_up=give_up)
    assert (found.is_clear, found.awaits_proof, len(found.unprovable)) == (False, False, left)
    assert found.given_up == 2 - left
    assert found.document()["unprovable"] == left


@pytest.mark.parametrize("stranger", ["leaf:5", "leaf:4", new_id(), "x"])
def test_what_is_not_unprovable_cannot_be_given_up(stranger: str) -> None:
    """Also a leaf of which one record is: the slip is named, and nothing is retired with it."""
    found = verdict(BROKEN, give_up=["leaf:3", LOST, stranger])
    assert (found.is_clear, found.strangers) == (False, [stranger])


def test_what_opens_again_cannot_be_given_up_any_more() -> None:
    """The newest look counts: whoever looked at an older list has to look again."""
    found = verdict(BROKEN, WHOLE, give_up=[LOST])
    assert (found.is_clear, found.strangers, found.given_up) == (False, [LOST], 0)


@pytest.mark.parametrize(
    ("leaves", "unseen"),
    [
        ([], [(0, SIZE)]),
        ([proof(0, 40, {NEW.kid: 40}), proof(50, SIZE, {NEW.kid: 50})], [(40, 50)]),
        ([WHOLE, proof(40, 50, None, records=10)], [(40, 50)]),
        ([WHOLE, resealed(40, 50)], [(0, SIZE)]),
        ([proof(0, 50, {NEW.kid: 1}), proof(50, SIZE, {NEW.kid: 1}), resealed(60, 70)], [(50, SIZE)]),
        ([resealed(0, SIZE), proof(0, 50, {NEW.kid: 1})], [(50, SIZE)]),
    ],
    ids=["never", "a gap", "no keys said", "sealed again since", "in part", "before any look"],
)
def test_what_was_not_looked_at_since_keeps_it(
    leaves: list[ProofLeaf | ResealLeaf], unseen: list[tuple[int, int]]
) -> None:
    """Never, or not by a leaf that says by which keys, or not since it was sealed again: a look is all it takes."""
    found = verdict(*leaves)
    assert list(found.unseen) == unseen
    assert (found.is_clear, found.awaits_proof) == (False, True)
    assert verdict(*leaves, WHOLE).is_clear


def test_what_opened_before_it_was_sealed_again_does_not_count() -> None:
    """It was looked at with the old key, and is to be looked at again."""
    found = verdict(proof(0, SIZE, {OLD.kid: SIZE}), resealed(0, SIZE))
    assert (found.opened, list(found.unseen)) == (0, [(0, SIZE)])


def test_a_reseal_that_changed_nothing_asks_for_no_look() -> None:
    """All of it was sealed to that key before."""
    assert verdict(WHOLE, resealed(0, SIZE, records=0)).is_clear


def test_only_the_newest_few_are_looked_at_on_the_way() -> None:
    """What was sealed again, or is much, is left to the prover."""
    assert verdict(proof(0, 90, {NEW.kid: 90})).awaits_new_only
    assert not verdict(proof(0, 90, {NEW.kid: 90}), resealed(0, 10)).awaits_new_only
    many = judge(OLD.kid, roster(), Ledger(), BLOCK_LEAVES + 1)
    assert many.awaits_proof
    assert not many.awaits_new_only


# ---- what the prover looks at -----------------------------------------------------------------------------------


def test_what_was_sealed_again_is_looked_at_before_what_is_overdue() -> None:
    """All of each look that it is a part of; and what was read before is void."""
    ledger = folded(proof(0, 50, {OLD.kid: 50}, time=0), proof(50, SIZE, {OLD.kid: 50}, time=0), resealed(60, 70))
    planned = list(spans(ledger.proofs, SIZE, make.NOW, period=period_seconds(30), is_early=False))
    assert [(each.first, each.end, each.proof, each.is_new) for each in planned[:2]] == [
        (50, SIZE, 2, True),
        (0, SIZE, 2, False),
    ]
    assert newest_proof(ledger.proofs, 0, 50) == 0
    assert newest_proof(ledger.proofs, 99, SIZE) == 2
    ledger.apply(proof(50, SIZE, {NEW.kid: 50}).to_bytes())
    assert newest_proof(ledger.proofs, 50, SIZE) == 3
    assert list(ledger.proofs.resealed()) == []


# ---- what is to be sealed again --------------------------------------------------------------------------------


def planned(ledger: Ledger, kid: str = NEW.kid, **options: Any) -> list[tuple[int, int]]:
    tried: Ranges[None] = options.pop("tried", Ranges())
    return [(each.first, each.end) for each in pieces(ledger, kid, SIZE, tried, **options)]


def test_what_an_entry_covers_is_done_for_that_key_alone() -> None:
    """Of several entries the newest counts: to seal to another key again is work again."""
    ledger = folded(resealed(0, 40), resealed(60, SIZE))
    assert planned(ledger) == [(40, 60)]
    assert planned(ledger, OLD.kid) == [(0, SIZE)]
    ledger.apply(resealed(10, 20, OLD.kid).to_bytes())
    assert planned(ledger) == [(10, 20), (40, 60)]


def test_what_was_left_is_tried_again_when_told_and_once() -> None:
    """A run that tries again does not go round in circles."""
    ledger = folded(resealed(0, 40, left=2), resealed(40, SIZE))
    assert planned(ledger) == []
    assert planned(ledger, again=True) == [(0, 40)]
    tried: Ranges[None] = Ranges()
    tried.put(0, 40, None)
    assert planned(ledger, again=True, tried=tried) == []
    assert ledger.reseals.left(NEW.kid) == 2
    ledger.apply(resealed(0, 40).to_bytes())
    assert ledger.reseals.left(NEW.kid) == 0


def test_what_the_prover_found_sealed_to_that_key_is_passed_over() -> None:
    """All of it, since nothing was sealed again, and nothing failed."""
    failed = Unprovable(index=45, record=None, code="blob_invalid")
    ledger = folded(
        proof(0, 20, {NEW.kid: 20}),
        proof(20, 40, {NEW.kid: 19, OLD.kid: 1}),
        proof(40, 60, {NEW.kid: 19}, unprovable=[failed]),
        proof(60, 80, None, records=20),
        proof(80, SIZE, {NEW.kid: 20}),
        resealed(80, SIZE, OLD.kid),
    )
    assert planned(ledger) == [(20, SIZE)]


def test_a_piece_lies_in_one_block_and_is_as_long_as_the_rate_allows() -> None:
    """So that several share the work, and a slow rate is even."""
    size = 2 * BLOCK_LEAVES + 1
    assert pieces(Ledger(), NEW.kid, size, Ranges()) == [
        Piece(0, BLOCK_LEAVES),
        Piece(BLOCK_LEAVES, 2 * BLOCK_LEAVES),
        Piece(2 * BLOCK_LEAVES, size),
    ]
    short = pieces(Ledger(), NEW.kid, size, Ranges(), leaves_max=1000)
    assert [(each.first, each.end, each.block) for each in short[:3]] == [
        (0, 1000, 0),
        (1000, BLOCK_LEAVES, 0),
        (BLOCK_LEAVES, BLOCK_LEAVES + 1000, 1),
    ]


@pytest.mark.parametrize(
    ("rate", "leaves"), [(None, BLOCK_LEAVES), (0.5, 1), (1, 1), (10.9, 10), (1e9, BLOCK_LEAVES)]
)
def test_the_rate_bounds_a_piece(rate: float | None, leaves: int) -> None:
    """About a second's worth, one leaf at least."""
    assert Throttle(rate).leaves_max == leaves


def test_no_more_than_the_rate_passes() -> None:
    """What has passed keeps the next one waiting, and time that was not used is not saved up."""
    throttle = Throttle(10)
    throttle.passed(20, 100.0)
    assert throttle.free_at == pytest.approx(102.0)
    throttle.passed(10, 101.0)
    assert throttle.free_at == pytest.approx(103.0)
    throttle.passed(10, 200.0)
    assert throttle.free_at == pytest.approx(201.0)
    free = Throttle(None)
    free.passed(1_000_000, 100.0)
    assert free.free_at == 0


def test_progress_says_how_fast_and_how_long() -> None:
    """By what was done so far; before anything was, nobody can tell."""
    progress = Progress(NEW.kid, began=10.0, total=300)
    assert progress.seconds_left(20.0) is None
    progress.add(100, 50, [])
    assert progress.rate(20.0) == pytest.approx(5.0)
    assert progress.seconds_left(20.0) == pytest.approx(20.0)


def test_a_retired_key_is_remembered() -> None:
    """When, by its kid; the newest counts."""
    leaves = [RetirementLeaf(time=make.NOW + n, kid=OLD.kid, size=1, root=ROOT) for n in range(2)]
    assert folded(*leaves).reseals.retired == {OLD.kid: make.NOW + 1}
