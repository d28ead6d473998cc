"""Listings: a page of a principal's records, each verified again, cut to what a statement may hold (SPEC 5.4)."""

from collections.abc import Sequence
from typing import Final

from strongroom.database import Transaction
from strongroom.errors import PermanentError
from strongroom.limits import BODY_BYTES_MAX, LISTING_RECORDS_MAX
from strongroom.messages import ListedRecord, Listing, ListingRequest, RecordState
from strongroom.statements import Statement, canonical_json
from strongroom_recovery import store
from strongroom_recovery.desk import Answer, Desk, Hints
from strongroom_recovery.evidence import verified_records
from strongroom_recovery.handler import Submission, check_listing
from strongroom_recovery.records import IndexEntry, StoredRecord
from strongroom_recovery.release import description

_COMMA_BYTES: Final = 1


async def list_records(desk: Desk, submission: Submission, asked: ListingRequest, hints: Hints, now: int) -> Answer:
    """Answer a listing request with a signed listing, or with a rejection; nothing is written.

    Raises PermanentError when the requester cannot be verified, RosterExpired, DatabaseUnavailable.
    """
    async with desk.database.reading() as tx:
        await desk.follower.advance(tx)
        roster = desk.registry.current_roster(now)
        await desk.verify_requester(tx, submission.statement, asked)
        try:
            check_listing(asked, roster, now)
            page = await _page(desk, tx, asked, submission.digest)
        except PermanentError as error:
            return Answer("refused", desk.reply(hints, desk.rejection(submission, error, now)), error)
    statement = Statement.sign(Listing.TYPE, page.to_bytes(), desk.reply_key)
    return Answer("listed", desk.reply(hints, statement))


async def _page(desk: Desk, tx: Transaction, asked: ListingRequest, digest: bytes) -> Listing:
    entries = await store.records_page(tx, asked.principal, asked.after, LISTING_RECORDS_MAX + 1)
    is_last = len(entries) <= LISTING_RECORDS_MAX
    stored = verified_records(desk, tx, asked.principal, entries[:LISTING_RECORDS_MAX])
    records = [listed(record, entry) async for entry, record in stored]
    records.sort(key=lambda record: record.id)
    return build(asked, digest, records, is_last=is_last)


def listed(stored: StoredRecord, entry: IndexEntry) -> ListedRecord:
    """Return what a listing says of a verified record; whether it was disclosed is the index's word."""
    return ListedRecord(
        **description(stored.record),
        issued_at=stored.issued_at,
        stored_at=stored.stored_at,
        statement=stored.statement_id,
        state=RecordState.DISCLOSED if entry.disclosed else RecordState.STORED,
    )


def build(
    asked: ListingRequest, request_digest: bytes, records: Sequence[ListedRecord], *, is_last: bool
) -> Listing:
    """Return the body of the listing that answers a request with these records, or the first of them that fit.

    Arguments: `records` in order of id; `is_last`, whether the principal has none after them.
    """
    page = Listing(
        authority=asked.authority,
        request=asked.id,
        request_digest=request_digest.hex(),
        principal=asked.principal,
        records=[],
        next=asked.id,  # as long as any id, so that the size is not underestimated
    )
    room = BODY_BYTES_MAX - len(page.to_bytes())
    fitting: list[ListedRecord] = []
    for record in records:
        room -= len(canonical_json(record.model_dump(mode="json"))) + _COMMA_BYTES
        if room < 0:
            break
        fitting.append(record)
    is_cut = len(fitting) < len(records)
    following = fitting[-1].id if fitting and (is_cut or not is_last) else None
    return page.model_copy(update={"records": fitting, "next": following})
