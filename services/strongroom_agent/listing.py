"""What the authority says it has: signed listings, and their comparison with the receipts held here (SPEC 5.4)."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from strongroom.crypto.signing import SigningKey
from strongroom.errors import NoAnswer, ReplyInvalid
from strongroom.messages import (
    Disclosure,
    ListedRecord,
    Listing,
    ListingRequest,
    PendingRequest,
    RecordState,
)
from strongroom_agent.home import Home
from strongroom_agent.pages import Pages
from strongroom_agent.patience import Deadline, seconds_left
from strongroom_agent.session import Session
from strongroom_agent.spool import Listed
from strongroom_agent.state import KeptDisclosure, KeptPending


@dataclass(frozen=True, slots=True)
class RecordsPage:
    """Records of a principal in the order of their ids; `next` is what to give as `after` for more, or None."""

    records: tuple[ListedRecord, ...]
    next: str | None


class Reading:
    """Reads the records of a principal, page by page, over as many links as it takes, see `Pages`."""

    def __init__(self, home: Home, key: SigningKey, principal: str, *, after: str | None = None) -> None:
        """Read from the record id `after` on; `key` signs the requests."""
        self._principal = principal
        self._after = after
        self._pages = Pages(home, key, ListingRequest, Listing, principal=principal)

    async def pages(self, session: Session, deadline: Deadline) -> AsyncIterator[Listing]:
        """Give each verified page as it comes; after a TransientError, go on with another link.

        Raises Rejected, ReplyInvalid, Expired, RosterInvalid, BrokerUnavailable, Unroutable, NoAnswer.
        """
        while True:
            listing = await self._page(session, deadline)
            self._after = listing.next
            yield listing
            if listing.next is None:
                return
            if not seconds_left(deadline):
                raise NoAnswer("the time allowed is over before the last page of the listing")

    async def _page(self, session: Session, deadline: Deadline) -> Listing:
        listing = await self._pages.get(session, deadline, self._after)
        if listing.principal != self._principal:
            raise ReplyInvalid("reply: a listing of somebody else's records")
        _check_order(listing, self._after or "")
        _check_disclosures(listing)
        return listing


def _check_order(listing: Listing, after: str) -> None:
    """Refuse a page that does not go on from `after`: reading would never end."""
    last = after
    for record in listing.records:
        if record.id <= last:
            raise ReplyInvalid("reply: a listing out of order")
        last = record.id
    if listing.next is not None and (not listing.records or listing.next < last):
        raise ReplyInvalid("reply: a listing that goes on where it has been")


def _check_disclosures(listing: Listing) -> None:
    """Refuse a page that says of a record that it was handed out and not to whom, or the other way round."""
    for record in listing.records:
        if (record.state is RecordState.DISCLOSED) != (record.disclosure is not None):
            raise ReplyInvalid(f"reply: a listing that does not say to whom record {record.id} was released")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a complete listing said, first of all about the records that were receipted before it was asked for.

    missing: receipted here, and the authority does not list them. mismatched: listed with another fingerprint. Ids,
    in order. disclosed: what was handed out, so that the keys should be replaced, receipted here or not. pending:
    others' requests that wait. Both newest first. stored_after_all: ids of the statements that are rejected here
    and listed there.
    """

    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    disclosed: tuple[KeptDisclosure, ...]
    pending: tuple[KeptPending, ...]
    stored_after_all: tuple[str, ...]
    outcome: Mapping[str, Listed]


class Comparing:
    """Compares what is known here with a listing, page by page."""

    def __init__(self, receipted: Mapping[str, str], rejected: Mapping[str, str]) -> None:
        """Compare these records, as they were before the listing was asked for.

        Arguments: record id → fingerprint of those with a receipt, record id → statement id of the rejected ones.
        """
        self._receipted = receipted
        self._rejected = rejected
        self._stored_after_all: dict[str, None] = {}
        self._outcome: dict[str, Listed] = {}
        self._disclosed: list[KeptDisclosure] = []
        self._pending: dict[str, KeptPending] = {}

    def take(self, listing: Listing) -> None:
        """Take one page into account."""
        self._pending.update({each.request: _pending(each) for each in listing.pending})
        for record in listing.records:
            if record.disclosure is not None:
                self._disclosed.append(_disclosed(record, record.disclosure))
            if self._rejected.get(record.id) == record.statement:
                self._stored_after_all[record.statement] = None
            fingerprint = self._receipted.get(record.id)
            if fingerprint is None:
                continue
            if record.fingerprint != fingerprint:
                self._outcome[record.id] = "mismatched"
            elif record.state is RecordState.DISCLOSED:
                self._outcome[record.id] = "disclosed"
            else:
                self._outcome[record.id] = "stored"

    def finish(self) -> Comparison:
        """Say what came of it, after the last page."""
        outcome: dict[str, Listed] = dict.fromkeys(self._receipted, "missing")
        outcome.update(self._outcome)

        def those(what: Listed) -> tuple[str, ...]:
            return tuple(sorted(id_ for id_, found in outcome.items() if found == what))

        return Comparison(
            missing=those("missing"),
            mismatched=those("mismatched"),
            disclosed=tuple(
                sorted(self._disclosed, key=lambda each: (each.released_at, each.record), reverse=True)
            ),
            pending=tuple(
                sorted(self._pending.values(), key=lambda each: (each.asked_at, each.request), reverse=True)
            ),
            stored_after_all=tuple(self._stored_after_all),
            outcome=outcome,
        )


def _disclosed(record: ListedRecord, disclosure: Disclosure) -> KeptDisclosure:
    return KeptDisclosure(
        record=record.id,
        name=record.name,
        request=disclosure.request,
        requester=disclosure.requester,
        requester_kind=disclosure.requester_kind.value,
        released_at=disclosure.released_at,
        reason=disclosure.reason,
    )


def _pending(pending: PendingRequest) -> KeptPending:
    return KeptPending(
        request=pending.request,
        digest=pending.digest,
        requester=pending.requester,
        requester_kind=pending.requester_kind.value,
        asked_at=pending.asked_at,
        not_before=pending.not_before,
        reason=pending.reason,
    )
