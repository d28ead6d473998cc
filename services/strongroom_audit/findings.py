"""What an audit finds: named, and located by log, leaf index and id. Pure."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

LogName = Literal["escrow", "recovery"]

KEPT_MAX: Final = 10_000
"""Findings that are kept word for word; of more there are only figures."""


class Severity(StrEnum):
    """An error is something that no honest authority leads to; a warning wants a look."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    index: of the leaf, where it is about one. id: of the statement, record or request, or the path of a file.
    code: stable, for programs. words: for people, without secrets.
    """

    severity: Severity
    log: LogName
    index: int | None
    id: str | None
    code: str
    words: str

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        """Say it in one line."""
        place = f"{self.log} log" + ("" if self.index is None else f", leaf {self.index}")
        return f"{place}{f', {self.id}' if self.id else ''}: {self.words} [{self.code}]"


def error(log: LogName, index: int | None, code: str, words: str, *, id: str | None = None) -> Finding:  # noqa: A002
    """Make a finding that is an error."""
    return Finding(Severity.ERROR, log, index, id, code, words)


def warning(log: LogName, index: int | None, code: str, words: str, *, id: str | None = None) -> Finding:  # noqa: A002
    """Make a finding that is a warning."""
    return Finding(Severity.WARNING, log, index, id, code, words)


@dataclass(slots=True)
class Findings:
    """All findings of one audit: the first `KEPT_MAX` word for word, all of them counted."""

    kept: list[Finding] = field(default_factory=list)
    counts: Counter[tuple[Severity, str]] = field(default_factory=Counter)

    def take(self, found: Iterable[Finding]) -> None:
        """Add findings."""
        for each in found:
            self.counts[each.severity, each.code] += 1
            if len(self.kept) < KEPT_MAX:
                self.kept.append(each)

    def number(self, severity: Severity) -> int:
        """Return how many of this severity were found."""
        return sum(count for (kind, _), count in self.counts.items() if kind is severity)
