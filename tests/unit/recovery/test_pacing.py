"""Which range is next: new leaves first, then the longest ago, evenly, and by no clock that somebody sets."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.leaves import ProofLeaf
from strongroom.limits import CLOCK_SKEW_SECONDS
from strongroom_recovery.proofs import Proofs
from strongroom_recovery.prover.pacing import BLOCK_LEAVES, Pace, Patrol, Span, newest_proof, period_seconds, spans

DAY = 86_400
NOW = 1_800_000_000
PERIOD = period_seconds(30)
BLOCK = BLOCK_LEAVES


class Log:
    """Proof leaves and the clocks of one prover, or of several."""

    def __init__(self, size: int) -> None:
        self.size, self.now, self.monotonic, self.leaves = size, NOW, 0.0, 0
        self.proofs = Proofs()
        self.pace = Pace(0.0)

    def look(self, first: int, end: int, *, time: int | None = None) -> None:
        """Append a proof leaf."""
        leaf = ProofLeaf(
            time=self.now if time is None else time,
            first=first,
            count=end - first,
            size=self.size,
            root="00" * 32,
            records=0,
            unprovable=[],
        )
        self.proofs.apply(leaf, self.leaves)
        self.leaves += 1

    def planned(self, *, is_early: bool = False) -> list[Span]:
        """Return all that is to be looked at now, by urgency."""
        return list(spans(self.proofs, self.size, self.now, period=PERIOD, is_early=is_early))

    def turn(self) -> Span | None:
        """Look at what is first, as the prover does."""
        is_early = self.pace.allows(self.monotonic, self.size, PERIOD)
        span = next(spans(self.proofs, self.size, self.now, period=PERIOD, is_early=is_early), None)
        if span is not None:
            if not span.is_new:
                self.pace.looked(self.monotonic, span.end - span.first)
            self.look(span.first, span.end)
        return span


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 4 * BLOCK), st.lists(st.tuples(st.integers(0, 4 * BLOCK), st.integers(1, BLOCK)), max_size=6))
def test_new_leaves_come_first_each_once_and_within_a_block(size: int, looked: list[tuple[int, int]]) -> None:
    """The spans of what was never looked at are exactly the gaps, in order."""
    log = Log(size)
    for first, count in looked:
        if first < size:
            log.look(first, min(first + count, size))
    new = [span for span in log.planned() if span.is_new]
    assert [index for span in new for index in range(span.first, span.end)] == [
        index for index in range(size) if log.proofs.look(index) is None
    ]
    assert all(span.first // BLOCK == (span.end - 1) // BLOCK == span.block for span in new)
    assert all(span.proof == -1 for span in new)


def test_nothing_is_due_before_its_time() -> None:
    """Neither a moment ago nor a second too early; at the time itself it is."""
    log = Log(10)
    log.look(0, 10)
    assert log.planned() == []
    log.now += int(PERIOD) - 1
    assert log.planned() == []
    log.now += 1
    assert log.planned() == [Span(0, 10, 0, is_new=False)]


def test_many_looks_at_single_leaves_become_one() -> None:
    """Keys that came one by one are looked at again by the block."""
    log = Log(2 * BLOCK)
    for index in range(2 * BLOCK):
        log.look(index, index + 1)
    log.now += int(PERIOD)
    assert log.planned() == [
        Span(0, BLOCK, BLOCK - 1, is_new=False),
        Span(BLOCK, 2 * BLOCK, 2 * BLOCK - 1, is_new=False),
    ]


def test_what_is_overdue_comes_by_age_for_whoever_finds_the_first_taken() -> None:
    """Another prover is at the oldest: the next oldest block follows."""
    log = Log(3 * BLOCK)
    for time, block in enumerate((1, 2, 0)):
        log.look(block * BLOCK, (block + 1) * BLOCK, time=NOW + time)
    log.now += int(PERIOD) + 2
    assert [span.block for span in log.planned()] == [1, 2, 0]
    log.now -= 1
    assert [span.block for span in log.planned()] == [1, 2]


def test_an_early_turn_is_for_the_oldest_alone() -> None:
    """Before its time one block has a turn, and no second."""
    log = Log(3 * BLOCK)
    for time, block in enumerate((1, 2, 0)):
        log.look(block * BLOCK, (block + 1) * BLOCK, time=NOW + time)
    assert [span.block for span in log.planned(is_early=True)] == [1]


def test_a_look_from_the_future_is_not_waited_for() -> None:
    """Its date says nothing: it comes first when there is time; within the clock skew it is like any other."""
    log = Log(2 * BLOCK)
    log.look(0, BLOCK, time=NOW - DAY)
    log.look(BLOCK, 2 * BLOCK, time=NOW + CLOCK_SKEW_SECONDS + 1)
    assert [span.block for span in log.planned(is_early=True)] == [1]
    log.now += 1
    assert [span.block for span in log.planned(is_early=True)] == [0]


@pytest.mark.parametrize("blocks", [2, 5, 40])
def test_looks_are_spread_over_the_whole_period(blocks: int) -> None:
    """All keys of a fleet came at once: still no hour has two looks, and no leaf is ever older than policy says."""
    log = Log(blocks * BLOCK)
    while log.turn():
        pass
    looks = 0
    for _ in range(75 * 24):
        log.now, log.monotonic = log.now + 3600, log.monotonic + 3600
        turns = 0
        while log.turn():
            turns += 1
        assert turns <= 1
        looks += turns
        oldest = log.proofs.oldest()
        assert oldest is not None
        assert log.now - oldest.time <= 30 * DAY
    assert looks <= blocks * (75 * DAY / (0.95 * PERIOD) + 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-2 * DAY, 2 * DAY), st.integers(0, 6 * 3600)), max_size=40))
def test_no_jump_of_the_clock_stops_it_or_makes_it_spin(steps: list[tuple[int, int]]) -> None:
    """After any jumps new leaves have their turn at once, and then, within a turn a block, there is an end."""
    log = Log(4 * BLOCK)
    for jump, passed in steps:
        log.now, log.monotonic, log.size = log.now + jump + passed, log.monotonic + passed, log.size + 1
        first = log.turn()
        assert first is not None
        assert first.is_new
        turns = 0
        while log.turn():
            turns += 1
            assert turns <= 8
        assert log.proofs.gaps(log.size) == []


def test_wrong_dates_are_gone_after_one_round() -> None:
    """All was looked at by a clock a year ahead; set right, it takes one period at the usual pace to look again."""
    log = Log(10 * BLOCK)
    for block in range(10):
        log.look(block * BLOCK, (block + 1) * BLOCK, time=NOW + 365 * DAY)
    for _ in range(30 * 24):
        log.now, log.monotonic = log.now + 3600, log.monotonic + 3600
        turns = 0
        while log.turn():
            turns += 1
        assert turns <= 1
    assert max(look.time for look in log.proofs.looks()) <= log.now


def test_the_newest_proof_of_a_range_is_found_across_looks_and_gaps() -> None:
    """A plan is void once any leaf of its range was looked at again."""
    log = Log(100)
    log.look(10, 20)
    log.look(30, 40)
    log.look(15, 18)
    cases = {(0, 10): -1, (0, 11): 0, (18, 30): 0, (18, 31): 1, (10, 20): 2, (0, 100): 2, (40, 100): -1}
    assert {span: newest_proof(log.proofs, *span) for span in cases} == cases


def test_an_empty_log_has_no_turn() -> None:
    """There is nothing to look at, and nothing to divide by."""
    assert Log(0).turn() is None


def test_a_patrol_goes_round_the_whole_log_block_by_block() -> None:
    """Every leaf has its turn, each span lies within one block, and after the last comes the first again."""
    log, patrol = Log(2 * BLOCK + 7), Patrol(0.0)
    seen: list[tuple[int, int]] = []
    for monotonic in range(0, 400, 100):
        span = patrol.span(log.proofs, log.size, monotonic)
        assert span is not None
        assert span.is_patrol
        assert not span.is_new
        seen.append((span.first, span.end))
        patrol.walked(span.end, log.size, monotonic, monotonic)
    assert seen == [(0, BLOCK), (BLOCK, 2 * BLOCK), (2 * BLOCK, log.size), (0, BLOCK)]


def test_a_patrol_that_was_cut_short_goes_on_where_it_stopped() -> None:
    """What a look did not get to is looked at next, to the end of its block."""
    log, patrol = Log(BLOCK), Patrol(0.0)
    patrol.span(log.proofs, log.size, 0.0)
    patrol.walked(10, log.size, 0.0, 0.0)
    span = patrol.span(log.proofs, log.size, 1.0)
    assert span is not None
    assert (span.first, span.end) == (10, BLOCK)


def test_a_patrol_takes_a_twentieth_of_the_time() -> None:
    """After two seconds of work it rests for thirty-eight."""
    log, patrol = Log(3 * BLOCK), Patrol(0.0)
    patrol.walked(BLOCK, log.size, 10.0, 12.0)
    assert patrol.not_before == pytest.approx(50.0)
    assert patrol.span(log.proofs, log.size, 49.9) is None
    assert patrol.span(log.proofs, log.size, 50.1) is not None


def test_a_patrol_of_a_small_log_begins_a_round_every_half_minute() -> None:
    """However quick it was; and in a log without leaves there is nothing to walk."""
    log, patrol = Log(5), Patrol(0.0)
    assert patrol.span(log.proofs, 0, 1.0) is None
    assert patrol.span(log.proofs, log.size, 1.0) is not None
    patrol.walked(5, log.size, 1.0, 1.01)
    assert patrol.not_before == pytest.approx(31.0)


def test_a_patrol_names_the_newest_proof_of_where_it_goes() -> None:
    """So that what another prover has said meanwhile makes its own finding void."""
    log = Log(4)
    log.look(0, 2)
    log.look(2, 4)
    span = Patrol(0.0).span(log.proofs, log.size, 1.0)
    assert span is not None
    assert span.proof == 1


def test_rows_that_come_and_go_take_ten_leaves_an_hour() -> None:
    """Of one block; another block has its own, and an hour later there is room again."""
    log, patrol = Log(2 * BLOCK), Patrol(0.0)
    span = Span(0, BLOCK, 0, is_new=False, is_patrol=True)
    assert [patrol.may_tell(span, float(second)) for second in range(12)] == [True] * 10 + [False] * 2
    assert patrol.may_tell(Span(BLOCK, log.size, 0, is_new=False, is_patrol=True), 12.0)
    assert patrol.may_tell(span, 3_600.5)
