from tests.support import authority as make
from tests.support import requests as ask

from strongroom.limits import BODY_BYTES_MAX, DESCRIPTION_CHARACTERS_MAX
from strongroom.messages import ListedRecord, Listing, RecordState, new_id, parse_body
from strongroom.statements import Statement
from strongroom_recovery.listing import build, listed
from strongroom_recovery.records import IndexEntry, StoredRecord

DIGEST = bytes(range(32))


def a_record(description: str = "", *, is_disclosed: bool = False) -> ListedRecord:
    record = make.record(description=description)
    stored = StoredRecord(make.AUTHORITY, make.PRINCIPAL, new_id(), make.NOW - 5, make.NOW + 7, record)
    entry = IndexEntry(
        record.id,
        stored.statement_id,
        make.PRINCIPAL,
        record.name,
        make.NOW - 5,
        record.kid,
        disclosed=is_disclosed,
    )
    result = listed(stored, entry)
    assert (result.id, result.fingerprint, result.labels) == (record.id, record.fingerprint, record.labels)
    assert (result.issued_at, result.stored_at, result.statement) == (
        make.NOW - 5,
        make.NOW + 7,
        stored.statement_id,
    )
    return result


def test_a_listed_record_says_what_was_signed_and_what_became_of_it() -> None:
    """Description and times come from the statement and its leaf; the state says whether it was released."""
    assert a_record("of the disk").description == "of the disk"
    assert a_record().state is RecordState.STORED
    assert a_record(is_disclosed=True).state is RecordState.DISCLOSED


def test_the_last_page_points_nowhere_and_an_earlier_one_at_its_last_record() -> None:
    """`next` is the record id to ask after, and null when nothing follows."""
    records = [a_record(), a_record()]
    assert build(ask.listing_body(), DIGEST, records, is_last=True).next is None
    assert build(ask.listing_body(), DIGEST, records, is_last=False).next == records[-1].id
    assert build(ask.listing_body(), DIGEST, [], is_last=True).records == []


def test_a_page_is_cut_to_what_a_statement_may_hold_and_the_rest_follows() -> None:
    """Records with the longest descriptions fill several pages; together the pages hold each record once."""
    wide = "\N{CJK UNIFIED IDEOGRAPH-4E2D}" * DESCRIPTION_CHARACTERS_MAX
    records = sorted((a_record(wide) for _ in range(500)), key=lambda record: record.id)
    seen: list[ListedRecord] = []
    while len(seen) < len(records):
        page = build(ask.listing_body(), DIGEST, records[len(seen) :], is_last=True)
        statement = Statement.sign(Listing.TYPE, page.to_bytes(), make.signing_key("recovery replies"))
        assert len(statement.body) <= BODY_BYTES_MAX
        assert parse_body(statement, Listing) == page
        seen += page.records
        assert page.next == (None if len(seen) == len(records) else seen[-1].id)
    assert seen == records
