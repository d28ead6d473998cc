"""Where a fleet falls short of what it should hold (SPEC 5.14), by the log and the index of records. Pure."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from heapq import nlargest
from itertools import takewhile
from typing import Any, Final, TypeAlias

from pydantic import ValidationError

from strongroom.audits import Counts, Coverage, Gap, GapState
from strongroom.limits import COVERAGE_GAPS_MAX, INTEGER_MAX
from strongroom.mandates import Expectation
from strongroom_recovery.ledger import DAY_SECONDS, Ledger
from strongroom_recovery.pages import Room
from strongroom_recovery.proofs import Finding
from strongroom_recovery.states import is_proven, replace_by

_RANGES_MAX: Final = 10_000

Ranges: TypeAlias = list[tuple[int, int]]
"""Ranges of leaves of the escrow log, each its first and the one after its last."""

_ORDER: Final = {state: place for place, state in enumerate(GapState)}


@dataclass(frozen=True, slots=True)
class Place:
    """A record as the index names it, and where its statement is in the escrow log.

    is_newest: of its name. is_clean: whether it was counted in `Held.clean`, provided that it is the newest.
    """

    principal: str
    name: str
    id: str
    leaf_index: int
    is_newest: bool
    is_clean: bool


@dataclass(frozen=True, slots=True)
class Held:
    """What the index names for one principal.

    clean: names whose newest record's statement is proven as a whole. issued_at: of its newest record, in seconds.
    others: the newest records of the names that `clean` does not count.
    """

    clean: int
    issued_at: int
    others: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What one principal adds to the figures, and its gaps in order."""

    counts: Counter[str]
    gaps: list[Gap]


def clean_ranges(ledger: Ledger) -> Ranges:
    """Return ranges of escrow leaves all of whose records are proven, in order; the longest, if there are many.

    What is left out is looked at record by record, so that leaving out the shortest costs time and nothing else.
    """
    suspects = [each.index for each in ledger.proofs.findings()]
    clean = [part for first, end in ledger.proofs.covered() for part in _without(first, end, suspects)]
    if len(clean) > _RANGES_MAX:
        clean = sorted(nlargest(_RANGES_MAX, clean, key=lambda each: each[1] - each[0]))
    return clean


def _without(first: int, end: int, suspects: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut a range at the places in `suspects`, which are in order."""
    for index in suspects[bisect_left(suspects, first) : bisect_left(suspects, end)]:
        if first < index:
            yield first, index
        first = index + 1
    if first < end:
        yield first, end


def spoken_of(ledger: Ledger, principals: AbstractSet[str]) -> list[str]:
    """Return the ids of the records of these principals that are stale, or were released to somebody else."""
    stale = [record for principal, record, _ in ledger.stale() if principal in principals]
    disclosed = [
        record
        for record, case in ledger.disclosures()
        if not case.is_own and case.outcome is not None and case.principal in principals
    ]
    return list(dict.fromkeys([*stale, *disclosed]))


@dataclass(frozen=True, slots=True)
class Judge:
    """Says what state records and principals are in.

    now: seconds. silent_days: as asked for. replace_days, expected: of the policy in force.
    """

    ledger: Ledger
    now: int
    silent_days: int
    replace_days: int
    expected: Sequence[Expectation]

    def gap(self, place: Place) -> Gap | None:
        """Return in what a record falls short, not asking whether it is replaced; None for a proven one."""
        finding = self.ledger.proofs.finding(place.leaf_index, place.id)
        if finding is not None:
            return _gap(place, GapState.UNPROVABLE, finding.time, finding.code)
        attested = self.ledger.attested(place.principal, place.id)
        if attested is not None and not attested.matches:
            return _gap(place, GapState.STALE, attested.time)
        case = self.ledger.disclosure(place.id)
        if case is not None and case.principal == place.principal and not case.is_own and case.outcome is not None:
            due = replace_by(case, self.replace_days)
            if due is not None and due < self.now:
                return _gap(place, GapState.OVERDUE, due)
            return _gap(place, GapState.DISCLOSED, case.outcome.time)
        return None if is_proven(self.ledger, place.id, place.leaf_index) else _gap(place, GapState.STORED, None)

    @property
    def silent_before(self) -> int:
        """The time, in seconds, since which a principal must have been heard of not to be silent."""
        return self.now - self.silent_days * DAY_SECONDS

    def alive(self, principals: Iterable[tuple[str, int]]) -> set[str]:
        """Return those of these principals, each with the time of its enrolment, that are not silent by the log."""
        before, attested_at = self.silent_before, self.ledger.attested_at
        return {name for name, since in principals if since >= before or (attested_at(name) or 0) >= before}

    def wanted(
        self, principals: Sequence[str], labelled: Mapping[tuple[str, str], AbstractSet[str]]
    ) -> dict[str, tuple[str, ...]]:
        """Return the names that policy expects of each of these principals, which are in order of name.

        Arguments: `labelled`, which principals have a record that bears a label, by its name and value.
        """
        if not principals:
            return {}
        # What begins with a prefix stands together: of neighbours mostly the same is expected.
        rules = [each for each in self.expected if _may_begin(each.prefix, principals)]
        if all(each.label is None and _all_begin(each.prefix, principals) for each in rules):
            return dict.fromkeys(principals, _names(rules))
        return {
            principal: _names(
                each
                for each in rules
                if principal.startswith(each.prefix)
                and (each.label is None or principal in labelled.get((each.label.name, each.label.value), ()))
            )
            for principal in principals
        }

    def judge(
        self,
        principal: str,
        since: int,
        held: Held | None,
        *,
        missing: Iterable[str | None],
        records: Iterable[tuple[Place, Gap | None]],
        replaced: AbstractSet[str],
        lost: Iterable[Finding],
    ) -> Found:
        """Put together what is said of one principal.

        Arguments: `records` are `held.others` and records that something is said of, each once and with its gap,
        or None if it is proven; `replaced`, ids of those that count no more; `lost`, findings about records that
        the index does not name.
        """
        counts = Counter(principals=1, proven=held.clean if held else 0)
        gaps: list[Gap] = [
            Gap(principal=principal, state=GapState.MISSING, name=name, record=None, since=None, code=None)
            for name in missing
        ]
        for place, gap in records:
            is_proven = gap is None and place.id not in replaced
            if place.is_newest:
                counts["proven"] += is_proven - place.is_clean
            if (
                gap is not None
                and place.id not in replaced
                and (place.is_newest or gap.state is not GapState.STORED)
            ):
                gaps.append(gap)
        gaps += _lost(principal, lost)
        heard_at = max(since, held.issued_at if held else 0, self.ledger.attested_at(principal) or 0)
        if heard_at < self.silent_before:
            gaps.append(
                Gap(principal=principal, state=GapState.SILENT, name=None, record=None, since=heard_at, code=None)
            )
        counts.update(gap.state.value for gap in gaps)
        gaps.sort(key=lambda gap: (_ORDER[gap.state], gap.name or "", gap.record or ""))
        return Found(counts, gaps)


def _names(rules: Iterable[Expectation]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for each in rules for name in each.names))


def _may_begin(prefix: str, names: Sequence[str]) -> bool:
    """Say whether any of these names, which are in order, may begin with a prefix."""
    return names[-1] >= prefix and names[0][: len(prefix)] <= prefix


def _all_begin(prefix: str, names: Sequence[str]) -> bool:
    return names[0].startswith(prefix) and names[-1].startswith(prefix)


def _lost(principal: str, findings: Iterable[Finding]) -> Iterator[Gap]:
    named: set[str] = set()
    for each in findings:
        if each.record is None or each.record not in named:
            yield Gap(
                principal=principal,
                state=GapState.UNPROVABLE,
                name=None,
                record=each.record,
                since=each.time,
                code=each.code,
            )
        named |= {each.record} if each.record else set()


def _gap(place: Place, state: GapState, since: int | None, code: str | None = None) -> Gap:
    members: dict[str, Any] = {"principal": place.principal, "state": state, "since": since, "code": code}
    try:
        return Gap(name=place.name, record=place.id, **members)
    except ValidationError:
        # Somebody wrote into the index what no statement can say: it is a gap all the same.
        return Gap(name=None, record=None, **members)


def replaced(ledger: Ledger, owners: Mapping[str, str], newer: Iterable[tuple[str, str, str, int]]) -> set[str]:
    """Return the ids of those of these records whose place a proven record of the same principal takes.

    Arguments: `owners`, the principal of each by id; `newer`, what is said to take whose place, as
    `coverage_store.superseding` gives it.
    """
    return {
        id_
        for id_, by, principal, leaf_index in newer
        if id_ != by and principal == owners[id_] and is_proven(ledger, by, leaf_index)
    }


class Filling:
    """A page as it fills up, principal after principal: only what is said of one in full counts.

    The one exception is a principal whose gaps alone are more than a page holds: its page names the first of them,
    counts them all, and ends with it, so that the next page goes on behind it.
    """

    def __init__(self, page: Coverage) -> None:
        """Begin with a page without gaps, everything else in it as long as it can get."""
        self._room = Room(page)
        self.counts: Counter[str] = Counter()
        self.gaps: list[Gap] = []
        self.is_full = False

    def takes(self, found: Found) -> bool:
        """Take a principal into account; False when there is no room for it, and nothing is said of it."""
        left = COVERAGE_GAPS_MAX - len(self.gaps)
        fitting = list(takewhile(self._room.takes, found.gaps[:left]))
        if len(fitting) < len(found.gaps):
            self.is_full = True
            if self.gaps:
                return False
        self.gaps += fitting
        self.counts.update(found.counts)
        return True

    def takes_plain(self, clean: Collection[int]) -> None:
        """Take principals into account of which all that can be said is how many keys of each are proven."""
        self.counts["principals"] += len(clean)
        self.counts["proven"] += sum(clean)

    def figures(self) -> Counts:
        """Return the figures of the principals that were taken."""
        return Counts(**{name: self.counts[name] for name in Counts.model_fields})


def with_time_stored(gaps: Collection[Gap], places: Mapping[str, Place], times: Mapping[int, int]) -> list[Gap]:
    """Return gaps in which what is only stored says since when: `times` by place in the escrow log, in seconds."""
    return [
        gap.model_copy(update={"since": at})
        if gap.state is GapState.STORED
        and gap.record is not None
        and 0 <= (at := times.get(places[gap.record].leaf_index, -1)) <= INTEGER_MAX
        else gap
        for gap in gaps
    ]
