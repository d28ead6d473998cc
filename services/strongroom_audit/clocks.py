"""The times in a log's leaves: a clock that was set back, or one that is ahead of ours. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from strongroom.limits import CLOCK_SKEW_SECONDS
from strongroom_audit.findings import Finding, LogName, warning


@dataclass(slots=True)
class Clock:
    """Takes the times of leaves, in seconds, in the order of the leaves.

    first, last: index and time of the first and of the last leaf. ahead: of the first that is later than now.
    back: index and time of each leaf that is earlier than the one before it, which follows.
    """

    log: LogName
    first: tuple[int, int] | None = None
    last: tuple[int, int] | None = None
    ahead: tuple[int, int] | None = None
    back: list[tuple[int, int, int, int]] = field(default_factory=list)

    def take(self, index: int, time: int, now: int) -> None:
        """Take the next leaf's time; `now` is the auditor's."""
        if self.last is None:
            self.first = index, time
        elif time < self.last[1] - CLOCK_SKEW_SECONDS:
            self.back.append((index, time, *self.last))
        if self.ahead is None and time > now + CLOCK_SKEW_SECONDS:
            self.ahead = index, time
        self.last = index, time

    def follow(self, other: "Clock") -> None:
        """Take what another took of the leaves right after these."""
        if other.first is not None:
            if self.last is None:
                self.first = other.first
            elif other.first[1] < self.last[1] - CLOCK_SKEW_SECONDS:
                self.back.append((*other.first, *self.last))
        self.back += other.back
        self.ahead = self.ahead or other.ahead
        self.last = other.last or self.last

    def findings(self, now: int) -> Iterator[Finding]:
        """Give a warning for each leaf at which the time goes back, and one for the first that is ahead."""
        for index, time, before, former in self.back:
            words = f"the time goes back by {former - time} s, after leaf {before}"
            yield warning(self.log, index, "clock", words)
        if self.ahead is not None:
            index, time = self.ahead
            yield warning(self.log, index, "clock", f"the time is {time - now} s ahead of ours")
