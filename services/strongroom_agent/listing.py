"""What the authority says it has: signed listings, and their comparison with the receipts held here (SPEC 5.4)."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

from strongroom.crypto.signing import SigningKey
from strongroom.errors import NoAnswer, ReplyInvalid
from strongroom.messages import (
    Disclosure,
    ListedRecord,
    Listing,
    ListingRequest,
    PendingRequest,
    RecordState,
    UnreadableRecord,
)
from strongroom_agent.home import Home
from strongroom_agent.listing_proofs import Known, check_states, is_with_others
from strongroom_agent.pages import Pages
from strongroom_agent.patience import Deadline, seconds_left
from strongroom_agent.session import Session
from strongroom_agent.spool import Own, Spool
from strongroom_agent.standings import LOST, KeptProof, KeptStanding, Listed, Standings, unlisted
from strongroom_agent.state import KeptDisclosure, KeptPending


@dataclass(frozen=True, slots=True)
class RecordsPage:
    """Records of a principal in the order of their ids; `next` is what to give as `after` for more, or None.

    unreadable: records that the authority has lost all but the id of.
    """

    records: tuple[ListedRecord, ...]
    next: str | None
    unreadable: tuple[UnreadableRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class VerifiedPage:
    """A page of a listing whose states are what its proof leaves say; these, as they are kept."""

    listing: Listing
    proofs: tuple[KeptProof, ...]


class Reading:
    """Reads the records of a principal, page by page, over as many links as it takes, see `Pages`."""

    def __init__(self, home: Home, key: SigningKey, principal: str, *, after: str | None = None) -> None:
        """Read from the record id `after` on; `key` signs the requests."""
        self._principal = principal
        self._after = after
        self._pages = Pages(home, key, ListingRequest, Listing, principal=principal)

    async def pages(self, session: Session, deadline: Deadline) -> AsyncIterator[VerifiedPage]:
        """Give each verified page as it comes; after a TransientError, go on with another link.

        Raises Rejected, ReplyInvalid, CheckpointInvalid, ProofInvalid, Expired, RosterInvalid, BrokerUnavailable,
        Unroutable, NoAnswer; LogForked for a recovery log that is not the one known here, and while evidence
        against it is kept.
        """
        session.check_unforked("recovery")
        while True:
            page = await self._page(session, deadline)
            self._after = page.listing.next
            yield page
            if page.listing.next is None:
                return
            if not seconds_left(deadline):
                raise NoAnswer("the time allowed is over before the last page of the listing")

    async def _page(self, session: Session, deadline: Deadline) -> VerifiedPage:
        listing, answer = await self._pages.answered(session, deadline, self._after)
        if listing.principal != self._principal:
            raise ReplyInvalid("reply: a listing of somebody else's records")
        _check_order(listing, self._after or "")
        receipted = session.receipted(answer)
        if receipted.receipt.index != receipted.checkpoint.size - 1:
            raise ReplyInvalid("reply: a listing with a receipt of something else than the newest leaf")
        proofs = check_states(listing, receipted.checkpoint, _known(session, listing))
        session.state.keep_checkpoint(receipted.checkpoint, session.now)
        return VerifiedPage(listing, proofs)


def _known(session: Session, listing: Listing) -> dict[str, Known]:
    """Say what this home knows of the records of a page; of another host's that is nothing."""
    spool, standings = Spool(session.state), Standings(session.state)
    known: dict[str, Known] = {}
    for record in listing.records:
        statement, log_index = spool.place(record.id)
        standing = standings.of(record.id)
        known[record.id] = Known(statement, log_index, standing.proof if standing else None)
    return known


def _check_order(listing: Listing, after: str) -> None:
    """Refuse a page that does not go on from `after`: reading would never end."""
    for ids in ([each.id for each in listing.records], [each.id for each in listing.unreadable]):
        if any(one >= other for one, other in zip([after, *ids], ids, strict=False)):
            raise ReplyInvalid("reply: a listing out of order")
    records, unreadable = ({each.id for each in part} for part in (listing.records, listing.unreadable))
    if both := records & unreadable:
        raise ReplyInvalid(
            f"reply: a listing that says of record {min(both)} that it can be read and that it cannot"
        )
    if listing.next is not None and listing.next < max(records | unreadable, default="g"):
        raise ReplyInvalid("reply: a listing that goes on where it has been")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a complete listing said, first of all about the records that were receipted before it was asked for.

    missing: receipted here, and the authority does not list them. mismatched: listed with another fingerprint.
    Ids, in order; without those that another record has taken the place of. disclosed: what was handed out,
    receipted here or not. pending: others' requests that wait. Both newest first. stored_after_all: ids of the
    statements that are rejected here and listed there. standings: of every record, listed or missing; proofs: the
    leaves that those name.
    """

    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    disclosed: tuple[KeptDisclosure, ...]
    pending: tuple[KeptPending, ...]
    stored_after_all: tuple[str, ...]
    standings: tuple[KeptStanding, ...]
    proofs: tuple[KeptProof, ...]


class Comparing:
    """Compares what is known here with a listing, page by page."""

    def __init__(
        self, own: Mapping[str, Own], rejected: Mapping[str, str], before: Mapping[str, KeptStanding], now: int
    ) -> None:
        """Compare these records, as they were before the listing was asked for.

        Arguments: record id → what was escrowed here, record id → statement id of the rejected ones, record id →
        what the listing before led to; `now` in seconds.
        """
        self._own = own
        self._rejected = rejected
        self._before = before
        self._now = now
        self._stored_after_all: dict[str, None] = {}
        self._standings: dict[str, KeptStanding] = {}
        self._proofs: dict[int, KeptProof] = {}
        self._disclosed: list[KeptDisclosure] = []
        self._pending: dict[str, KeptPending] = {}

    def take(self, page: VerifiedPage) -> None:
        """Take one page into account."""
        self._pending.update({each.request: _pending(each) for each in page.listing.pending})
        self._proofs.update({each.log_index: each for each in page.proofs})
        for record in page.listing.records:
            if record.disclosure is not None:
                self._disclosed.append(_disclosed(record, record.disclosure, page.listing.principal))
            if self._rejected.get(record.id) == record.statement:
                self._stored_after_all[record.statement] = None
            own = self._own.get(record.id)
            standing = standing_of(record, self._now)
            if own is not None and own.is_receipted and own.fingerprint != record.fingerprint:
                standing = replace(standing, listed="mismatched")
            self._standings[record.id] = standing
        for unreadable in page.listing.unreadable:
            self._standings[unreadable.id] = self._unlisted(unreadable.id, "unprovable", unreadable.code)

    def _unlisted(self, id_: str, what: Listed, code: str | None) -> KeptStanding:
        own = self._own.get(id_)
        name = own.name if own else ""
        return unlisted(self._before.get(id_), record=id_, name=name, listed=what, code=code, now=self._now)

    def finish(self) -> Comparison:
        """Say what came of it, after the last page.

        Raises ReplyInvalid for what its pages cannot all be right in.
        """
        self._check_replaced()
        for id_, own in self._own.items():
            if own.is_receipted and id_ not in self._standings:
                self._standings[id_] = self._unlisted(id_, "missing", None)
        # The authority calls replaced what it knows of; what it has lost can be replaced, too.
        done = {id_ for each in self._standings.values() if _is_proven(each) for id_ in each.supersedes}
        standings = {
            id_: replace(each, listed="replaced") if id_ in done else each for id_, each in self._standings.items()
        }

        def those(what: Listed) -> tuple[str, ...]:
            return tuple(sorted(id_ for id_, each in standings.items() if each.listed == what))

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
            standings=tuple(standings.values()),
            proofs=tuple(self._proofs.values()),
        )

    def _check_replaced(self) -> None:
        looked_at = {id_ for each in self._standings.values() if each.proof is not None for id_ in each.supersedes}
        for id_, standing in self._standings.items():
            if standing.listed == "replaced" and id_ not in looked_at:
                raise ReplyInvalid(
                    f"reply: a listing that says of record {id_} that it is replaced, and not by what"
                )


def standing_of(record: ListedRecord, now: int) -> KeptStanding:
    """Return what a listing says of a record, as it is kept."""
    return KeptStanding(
        record=record.id,
        name=record.name,
        listed=record.state.value,
        listed_at=now,
        proof=record.proof,
        proven_at=record.proven_at,
        code=record.code,
        attested_at=record.attested_at,
        replace_by=record.replace_by,
        supersedes=tuple(record.supersedes),
    )


def _is_proven(standing: KeptStanding) -> bool:
    return standing.proven_at is not None and standing.listed not in LOST


def _disclosed(record: ListedRecord, disclosure: Disclosure, principal: str) -> KeptDisclosure:
    return KeptDisclosure(
        record=record.id,
        name=record.name,
        request=disclosure.request,
        requester=disclosure.requester,
        requester_kind=disclosure.requester_kind.value,
        released_at=disclosure.released_at,
        reason=disclosure.reason,
        replace_by=record.replace_by,
        is_replaced=record.state is RecordState.REPLACED and is_with_others(disclosure, principal),
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
