"""Reading how well a fleet is covered, from the authority's signed pages (SPEC 5.14)."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from strongroom.audits import Counts, Coverage, CoverageRequest, Gap, GapState, Proving
from strongroom.crypto.signing import SigningKey
from strongroom.errors import NoAnswer, ReplyInvalid
from strongroom_agent.home import Home
from strongroom_agent.pages import Pages
from strongroom_agent.patience import Deadline, seconds_left
from strongroom_agent.session import Session

# What is missing, broken, out of date or known to others for too long: somebody has to do something about it.
FAILING: Final = (GapState.MISSING, GapState.UNPROVABLE, GapState.STALE, GapState.OVERDUE)


@dataclass(frozen=True, slots=True)
class FleetCoverage:
    """How well all principals are covered, added up from verified pages.

    counts: of all of them. covered: principals without any gap. unlisted: gaps that are counted and that no page
    had room for. as_of: time of the first page, in seconds; until: of the last, which says `proving` and
    `roster_version`. pages: how many there were. asked_by: the officer who read them.
    """

    authority: str
    asked_by: str
    roster_version: int
    counts: Counts
    covered: int
    unlisted: int
    proving: Proving
    as_of: int
    until: int
    pages: int

    @property
    def records(self) -> int:
        """How many records are counted."""
        counted = self.counts
        sound = counted.stored + counted.proven
        return sound + counted.unprovable + counted.stale + counted.disclosed + counted.overdue

    @property
    def failing(self) -> int:
        """How many keys are missing, unprovable, stale or overdue."""
        figures = self.counts.model_dump()
        return sum(int(figures[state.value]) for state in FAILING)


class Reading:
    """Reads the coverage page by page, over as many links as it takes, see `Pages`."""

    def __init__(self, home: Home, key: SigningKey, *, silent_days: int) -> None:
        """Ask as the officer of this home; `key` signs the questions."""
        self._pages = Pages(home, key, CoverageRequest, Coverage, silent_days=silent_days)
        self._asked_by = home.config.name
        self._after: str | None = None
        self._totals: Counter[str] = Counter()
        self._named = 0
        self._unlisted = 0
        self._count = 0
        self._first_at: int | None = None
        self._newest: Coverage | None = None

    async def pages(self, session: Session, deadline: Deadline) -> AsyncIterator[Coverage]:
        """Give each verified page as it comes; after a TransientError, go on with another link.

        Raises Rejected, ReplyInvalid, Expired, RosterInvalid, BrokerUnavailable, Unroutable, NoAnswer.
        """
        while True:
            page = await self._pages.get(session, deadline, self._after)
            check(page, self._after)
            self._add(page)
            yield page
            if page.next is None:
                return
            self._after = page.next
            if not seconds_left(deadline):
                raise NoAnswer("the time allowed is over before the last page of the coverage")

    def _add(self, page: Coverage) -> None:
        self._totals.update(page.counts.model_dump())
        self._named += len({gap.principal for gap in page.gaps})
        self._unlisted += _counted(page.counts) - len(page.gaps)
        self._count += 1
        self._first_at = page.as_of if self._first_at is None else self._first_at
        self._newest = page

    def result(self) -> FleetCoverage:
        """Return what all pages say together, after the last of them."""
        newest, first_at = self._newest, self._first_at
        if newest is None or first_at is None or newest.next is not None:
            raise NoAnswer("the coverage was not read to its end")
        return FleetCoverage(
            authority=newest.authority,
            asked_by=self._asked_by,
            roster_version=newest.roster_version,
            counts=Counts(**self._totals),
            covered=self._totals["principals"] - self._named,
            unlisted=self._unlisted,
            proving=newest.proving,
            as_of=first_at,
            until=newest.as_of,
            pages=self._count,
        )


def _counted(counts: Counts) -> int:
    figures = counts.model_dump()
    return sum(int(figures[state.value]) for state in GapState)


def check(page: Coverage, after: str | None) -> None:
    """Raise ReplyInvalid for a page that does not go on from `after`, or whose figures its gaps contradict."""
    _check_order(page, after or "")
    _check_figures(page)


def _check_order(page: Coverage, after: str) -> None:
    """Refuse a page that names principals out of order or a gap twice, or goes on where it has been."""
    last = after
    for gap in page.gaps:
        if gap.principal <= after or gap.principal < last:
            raise ReplyInvalid("reply: a coverage out of order")
        last = gap.principal
    if len({_identity(gap) for gap in page.gaps}) != len(page.gaps):
        raise ReplyInvalid("reply: a coverage that names a gap twice")
    if page.next is not None and (page.next <= after or page.next < last):
        raise ReplyInvalid("reply: a coverage that goes on where it has been")


def _identity(gap: Gap) -> tuple[object, ...]:
    # Where the index has lost even the id of a record, several are told apart by nothing.
    is_lost = gap.record is None and gap.state not in {GapState.MISSING, GapState.SILENT}
    return (gap.principal, gap.state, gap.name, gap.record, id(gap) if is_lost else None)


def _check_figures(page: Coverage) -> None:
    """Refuse a page whose figures do not fit its gaps: each is listed, unless one principal's fill the page."""
    listed = Counter(gap.state.value for gap in page.gaps)
    counted = page.counts.model_dump()
    named = {gap.principal for gap in page.gaps}
    is_torn = len(named) == 1 and (page.next is None or page.next in named)
    for state in GapState:
        if listed[state.value] > counted[state.value] or (
            not is_torn and listed[state.value] != counted[state.value]
        ):
            raise ReplyInvalid(
                f"reply: a coverage that counts {counted[state.value]} {state.value}, and lists others"
            )
    if len(named) > page.counts.principals or page.counts.silent > page.counts.principals:
        raise ReplyInvalid("reply: a coverage of more principals than it counts")
    if page.next is not None and not page.counts.principals:
        raise ReplyInvalid("reply: a coverage that counts nobody and goes on")
    if page.proving.backlog > page.proving.size:
        raise ReplyInvalid("reply: a coverage with a backlog of more leaves than there are")
