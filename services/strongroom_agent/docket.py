"""Reading the docket: which requests there are, from the authority's signed answer (SPEC 5.8)."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Self

from strongroom.crypto.signing import SigningKey
from strongroom.errors import NoAnswer, ReplyInvalid
from strongroom.messages import Docket, DocketEntry, DocketRequest, RequestState
from strongroom_agent import cases
from strongroom_agent.cases import Case
from strongroom_agent.home import Home
from strongroom_agent.pages import Pages
from strongroom_agent.patience import Deadline, seconds_left
from strongroom_agent.session import Session


@dataclass(frozen=True, slots=True)
class VerifiedDocket:
    """What is on the docket, newest first, each case verified here; `next` goes on, or is None.

    invitations: envelopes of replacing invitations that wait for signatures, as they came, nothing verified.
    roster_version: of the roster that all this was judged by.
    """

    cases: tuple[Case, ...]
    invitations: tuple[bytes, ...]
    roster_version: int
    next: str | None

    @classmethod
    def of(cls, pages: Sequence[Self]) -> Self:
        """Join the pages of one reading, of which there is at least one."""
        last = pages[-1]
        return cls(
            cases=tuple(case for page in pages for case in page.cases),
            invitations=tuple(each for page in pages for each in page.invitations),
            roster_version=last.roster_version,
            next=last.next,
        )


@dataclass(frozen=True, slots=True)
class Scope:
    """Which requests are asked for: for whose records (None: everybody's), one id or all, only those that wait."""

    principal: str | None
    request: str | None
    pending: bool


class Reading:
    """Reads the docket page by page, over as many links as it takes, see `Pages`."""

    def __init__(self, home: Home, key: SigningKey, scope: Scope) -> None:
        """Read what `scope` says; `key` signs the questions."""
        self._home = home
        self._scope = scope
        self._pages = Pages(home, key, DocketRequest, Docket, **asdict(scope))
        self._after: str | None = None
        self._seen: dict[str, int] = {}  # request id → index of its leaf, in the order of reading

    async def pages(self, session: Session, deadline: Deadline) -> AsyncIterator[VerifiedDocket]:
        """Give each verified page as it comes; after a TransientError, go on with another link.

        Raises Rejected, ReplyInvalid, Expired, RosterInvalid, BrokerUnavailable, Unroutable, NoAnswer.
        """
        while True:
            docket = await self._page(session, deadline)
            self._seen.update({entry.id: entry.log_index for entry in docket.entries})
            self._after = docket.next
            roster, now = session.roster, session.now
            found = tuple(cases.judged(entry, roster, now) for entry in docket.entries)
            if any(each.request and self._scope.principal not in (None, each.request.principal) for each in found):
                raise ReplyInvalid("reply: a docket with requests for somebody else's records")
            yield VerifiedDocket(
                # A worker may not look whose time is over; that is nothing that waits either.
                cases=tuple(
                    each for each in found if not self._scope.pending or each.state is RequestState.PENDING
                ),
                invitations=tuple(docket.invitations),
                roster_version=roster.body.version,
                next=docket.next,
            )
            if docket.next is None:
                return
            if not seconds_left(deadline):
                raise NoAnswer("the time allowed is over before the last page of the docket")

    async def _page(self, session: Session, deadline: Deadline) -> Docket:
        docket = await self._pages.get(session, deadline, self._after)
        self._check_order(docket)
        for entry in docket.entries:
            self._check_scope(entry)
        return docket

    def _check_order(self, docket: Docket) -> None:
        """Refuse a page that does not go on, towards older requests, where the one before ended."""
        last = min(self._seen.values(), default=None)
        for entry in docket.entries:
            if (last is not None and entry.log_index >= last) or entry.id in self._seen:
                raise ReplyInvalid("reply: a docket out of order")
            last = entry.log_index
        if len({entry.id for entry in docket.entries}) != len(docket.entries):
            raise ReplyInvalid("reply: a docket that names a request twice")
        if docket.next is not None and (not docket.entries or docket.next != docket.entries[-1].id):
            raise ReplyInvalid("reply: a docket that does not go on where it ends")

    def _check_scope(self, entry: DocketEntry) -> None:
        if self._scope.request not in (None, entry.id):
            raise ReplyInvalid("reply: a docket with other requests than the one asked for")
        if self._scope.pending and entry.state not in {RequestState.PENDING, RequestState.EXPIRED}:
            raise ReplyInvalid("reply: a docket with requests that do not wait")
