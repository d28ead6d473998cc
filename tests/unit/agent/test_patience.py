import pytest

from strongroom.errors import BrokerUnavailable, NoAnswer, ReplyInvalid
from strongroom_agent import patience
from strongroom_agent.patience import PAUSE_SECONDS_MAX, Silence, patiently, seconds_left

FIRST = 0.25


@pytest.fixture(autouse=True)
def _with_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what tests of agents do without."""
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS_MAX", FIRST)


class Failing:
    """An attempt that fails a number of times; remembers its deadlines."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.deadlines: list[float] = []

    async def __call__(self, deadline: float) -> str:
        """Fail while there are failures left."""
        self.deadlines.append(deadline)
        if self.failures:
            raise self.failures.pop(0)
        return "done"


class Pauses:
    """Draws the longest pause and never sleeps."""

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.least: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Remember the pause."""
        self.slept.append(seconds)

    def draw(self, low: float, high: float) -> float:
        """Remember the least and give the most."""
        self.least.append(low)
        return high


async def test_an_attempt_that_succeeds_is_made_once() -> None:
    """Its result is the result."""
    attempt = Failing()
    assert await patiently(attempt, wait_seconds=0) == "done"
    assert len(attempt.deadlines) == 1


async def test_pauses_are_drawn_from_nothing_to_a_bound_that_doubles_up_to_its_limit() -> None:
    """Full jitter; every attempt is given the same deadline."""
    attempt, pauses = Failing(*[NoAnswer("none") for _ in range(8)]), Pauses()
    await patiently(attempt, wait_seconds=1000, sleep=pauses.sleep, draw=pauses.draw)
    expected = [min(PAUSE_SECONDS_MAX, FIRST * 2**n) for n in range(8)]
    assert pauses.slept == expected
    assert set(pauses.least) == {0.0}
    assert len(set(attempt.deadlines)) == 1


async def test_the_last_error_is_raised_when_a_pause_would_pass_the_deadline() -> None:
    """Nobody waits for an attempt that cannot be made any more."""
    attempt, pauses = Failing(NoAnswer("first"), BrokerUnavailable("second")), Pauses()
    with pytest.raises(BrokerUnavailable, match="second"):
        await patiently(attempt, wait_seconds=0.4, sleep=pauses.sleep, draw=pauses.draw)
    assert pauses.slept == [FIRST]


async def test_an_error_that_would_come_again_is_raised_at_once() -> None:
    """Only transient errors are worth another attempt."""
    attempt, pauses = Failing(ReplyInvalid("forged")), Pauses()
    with pytest.raises(ReplyInvalid):
        await patiently(attempt, wait_seconds=1000, sleep=pauses.sleep, draw=pauses.draw)
    assert pauses.slept == []


async def test_a_deadline_that_passed_leaves_nothing() -> None:
    """Never a negative number of seconds."""
    assert seconds_left(0.0) == 0.0


async def test_draws_differ_between_processes_that_start_alike() -> None:
    """The default draws come from the operating system."""
    assert type(patience._RANDOM).__name__ == "SystemRandom"


async def test_silence_names_the_whole_time_in_whole_seconds() -> None:
    """Not that of the last attempt; and what to look at."""
    attempt, pauses = Failing(Silence("broker:5671/strongroom"), Silence("broker:5671/strongroom")), Pauses()
    with pytest.raises(Silence) as caught:
        await patiently(attempt, wait_seconds=1.4, sleep=pauses.sleep, draw=lambda _low, high: high * 4)
    assert caught.value.message == "no answer from broker:5671/strongroom within 1 s"
    assert pauses.slept == [4 * FIRST]
    assert "strongroom doctor" in (caught.value.hint or "")
