"""Listings: a page of a principal's records, each verified again, cut to what a statement may hold (SPEC 5.4)."""

from collections.abc import Mapping, Sequence
from itertools import islice, takewhile

from strongroom.database import Transaction
from strongroom.errors import PermanentError
from strongroom.fields import parse_body
from strongroom.limits import LISTING_PENDING_MAX, LISTING_RECORDS_MAX
from strongroom.messages import (
    Disclosure,
    ListedRecord,
    Listing,
    ListingRequest,
    PendingRequest,
    RecordState,
    Request,
)
from strongroom.roster import is_expired
from strongroom.statements import Statement
from strongroom_recovery import store
from strongroom_recovery.cases import requests_of
from strongroom_recovery.desk import Answer, Desk, Hints
from strongroom_recovery.evidence import verified_records
from strongroom_recovery.handler import Submission, check_listing
from strongroom_recovery.ledger import Case
from strongroom_recovery.pages import Room
from strongroom_recovery.policy import not_before
from strongroom_recovery.records import StoredRecord
from strongroom_recovery.release import description


async def list_records(desk: Desk, submission: Submission, asked: ListingRequest, hints: Hints, now: int) -> Answer:
    """Answer a listing request with a signed listing, or with a rejection; nothing is written.

    Raises PermanentError when the requester cannot be verified, RosterExpired, DatabaseUnavailable.
    """
    async with desk.database.reading() as tx:
        roster = await desk.follow(tx, now)
        await desk.verify_sender(tx, submission.statement, asked.authority, asked.requester, asked.requester_kind)
        try:
            check_listing(asked, roster, now)
            page = await _page(desk, tx, asked, submission.digest, now)
        except PermanentError as error:
            return Answer("refused", desk.reply(hints, desk.rejection(submission, error, now)), error)
    statement = Statement.sign(Listing.TYPE, page.to_bytes(), desk.reply_key)
    return Answer("listed", desk.reply(hints, statement))


async def _page(desk: Desk, tx: Transaction, asked: ListingRequest, digest: bytes, now: int) -> Listing:
    entries = await store.records_page(tx, asked.principal, asked.after, LISTING_RECORDS_MAX + 1)
    is_last = len(entries) <= LISTING_RECORDS_MAX
    stored = [each async for _, each in verified_records(desk, tx, asked.principal, entries[:LISTING_RECORDS_MAX])]
    stored.sort(key=lambda each: each.record.id)
    by_record = {each.record.id: desk.ledger.disclosure(each.record.id) for each in stored}
    waiting = await _waiting(desk, tx, asked, now)
    reasons = await _reasons(tx, [*(case for case in by_record.values() if case), *waiting])
    records = [listed(each, by_record[each.record.id], reasons) for each in stored]
    pending = [_pending(desk, case, reasons) for case in waiting]
    version = desk.registry.roster.body.version
    return build(asked, digest, records, pending, roster_version=version, is_last=is_last)


async def _waiting(desk: Desk, tx: Transaction, asked: ListingRequest, now: int) -> list[Case]:
    """Return who else waits for this principal's keys, newest first; on the first page only."""
    if asked.after is not None:
        return []
    others = (case for case in desk.ledger.waiting(now, principal=asked.principal) if not case.is_own)
    # Expired ones are passed over, not counted: nobody hides a request behind others that expire at once.
    waiting: list[Case] = []
    while len(waiting) < LISTING_PENDING_MAX and (batch := list(islice(others, 2 * LISTING_PENDING_MAX))):
        stored = await requests_of(tx, batch)
        waiting += [
            case
            for case in batch
            if case.id not in stored or not is_expired(parse_body(stored[case.id], Request).expires_at, now)
        ]
    return waiting[:LISTING_PENDING_MAX]


async def _reasons(tx: Transaction, cases: Sequence[Case]) -> dict[str, str]:
    """Return the reasons that were signed with these requests, by request id, as far as they are stored."""
    stored = await requests_of(tx, {case.id: case for case in cases}.values())
    return {id_: parse_body(statement, Request).reason for id_, statement in stored.items()}


def listed(stored: StoredRecord, disclosed: Case | None, reasons: Mapping[str, str]) -> ListedRecord:
    """Return what a listing says of a verified record; who was given it is the log's word."""
    return ListedRecord(
        **description(stored.record),
        issued_at=stored.issued_at,
        stored_at=stored.stored_at,
        statement=stored.statement_id,
        state=RecordState.STORED if disclosed is None else RecordState.DISCLOSED,
        disclosure=None if disclosed is None else _disclosure(disclosed, reasons),
    )


def _disclosure(case: Case, reasons: Mapping[str, str]) -> Disclosure:
    return Disclosure(
        request=case.id,
        requester=case.requester,
        requester_kind=case.capacity,
        released_at=case.outcome.time if case.outcome else case.asked_at,
        reason=reasons.get(case.id),
    )


def _pending(desk: Desk, case: Case, reasons: Mapping[str, str]) -> PendingRequest:
    return PendingRequest(
        request=case.id,
        digest=case.digest.hex(),
        requester=case.requester,
        requester_kind=case.capacity,
        asked_at=case.asked_at,
        not_before=not_before(case, desk.registry.roster.body.policy),
        reason=reasons.get(case.id),
    )


def build(
    asked: ListingRequest,
    request_digest: bytes,
    records: Sequence[ListedRecord],
    pending: Sequence[PendingRequest],
    *,
    roster_version: int,
    is_last: bool,
) -> Listing:
    """Return the body of the listing that answers a request with these records, or the first of them that fit.

    Arguments: `records` in order of id; `is_last`, whether the principal has none after them.
    """
    page = Listing(
        authority=asked.authority,
        request=asked.id,
        request_digest=request_digest.hex(),
        roster_version=roster_version,
        principal=asked.principal,
        records=[],
        pending=list(pending),
        next=asked.id,  # as long as any id, so that the size is not underestimated
    )
    room = Room(page)
    fitting = list(takewhile(room.takes, records))
    is_cut = len(fitting) < len(records)
    following = fitting[-1].id if fitting and (is_cut or not is_last) else None
    return page.model_copy(update={"records": fitting, "next": following})
