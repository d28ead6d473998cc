"""Listings: what is said of a record and of who waits, and pages that fit into a statement."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from tests.support import authority as make
from tests.support import requests as ask

from strongroom.fields import Capacity, new_id, parse_body
from strongroom.limits import (
    BODY_BYTES_MAX,
    CLOCK_SKEW_SECONDS,
    DESCRIPTION_CHARACTERS_MAX,
    LISTING_PENDING_MAX,
    LISTING_RECORDS_MAX,
    REASON_CHARACTERS_MAX,
)
from strongroom.messages import (
    Disclosure,
    ListedProof,
    ListedRecord,
    Listing,
    PendingRequest,
    RecordState,
    Request,
    RequestState,
    UnreadableRecord,
)
from strongroom.statements import Statement
from strongroom_recovery.ledger import Case, Ledger, Outcome
from strongroom_recovery.listing import _waiting, build, listed
from strongroom_recovery.records import StoredRecord
from strongroom_recovery.states import Standing

DIGEST = bytes(range(32))
OFFICER: dict[str, Any] = {"requester": "officer-a", "requester_kind": Capacity.OFFICER}


def stored(description: str = "") -> StoredRecord:
    record = make.record(description=description)
    return StoredRecord(
        make.AUTHORITY, make.PRINCIPAL, new_id(), make.NOW - 5, make.NOW + 7, 11, in_force=True, record=record
    )


PLAIN = Standing(RecordState.STORED, None, None, None, None, None, None)


def a_record(description: str = "", *, proof: int | None = None) -> ListedRecord:
    return listed(stored(description), replace(PLAIN, proof=proof), {})


def released() -> Case:
    """Return an officer's request as the log has it, released."""
    return Case(
        id=new_id(),
        digest=DIGEST,
        requester="officer-a",
        capacity=Capacity.OFFICER,
        key_id=make.signing_key("officer-a").key_id,
        principal=make.PRINCIPAL,
        asked_at=make.NOW + 8,
        index=3,
        outcome=Outcome(RequestState.RELEASED, index=4, time=make.NOW + 9),
    )


def disclosed(case: Case) -> Standing:
    """Return the standing of a record that was released by this request."""
    return replace(PLAIN, state=RecordState.DISCLOSED, disclosed=case)


def test_a_listed_record_says_what_was_signed() -> None:
    """Description and times come from the statement and its leaf; nobody was given it."""
    given = stored("of the disk")
    said = Standing(RecordState.STALE, 3, make.NOW + 20, "blob_invalid", make.NOW + 30, None, make.NOW + 40)
    result = listed(given, said, {})
    described = given.record.model_dump(exclude={"kid", "suite", "blob"})
    assert {name: getattr(result, name) for name in described} == described
    assert (result.issued_at, result.stored_at) == (make.NOW - 5, make.NOW + 7)
    assert (result.statement, result.log_index, result.disclosure) == (given.statement_id, 11, None)
    assert (result.state, result.proof, result.proven_at) == (RecordState.STALE, 3, make.NOW + 20)
    assert (result.code, result.attested_at, result.replace_by) == ("blob_invalid", make.NOW + 30, make.NOW + 40)


def test_a_disclosed_record_says_who_was_given_it_when_and_why() -> None:
    """Name, capacity and time come from the log, the reason from the request of exactly that id."""
    case = released()
    result = listed(stored(), disclosed(case), {case.id: "the disk died", new_id(): "another reason"})
    assert result.state is RecordState.DISCLOSED
    assert result.disclosure == Disclosure(
        request=case.id,
        requester="officer-a",
        requester_kind=Capacity.OFFICER,
        released_at=make.NOW + 9,
        reason="the disk died",
    )


def test_a_disclosure_stays_when_the_request_is_lost() -> None:
    """Deleting the request from the database takes away the reason and nothing else."""
    result = listed(stored(), disclosed(released()), {new_id(): "another reason"})
    assert result.state is RecordState.DISCLOSED
    assert result.disclosure is not None
    assert result.disclosure.reason is None


def page(
    records: Sequence[ListedRecord],
    *,
    unreadable: Mapping[str, str] | None = None,
    proofs: Sequence[ListedProof] = (),
    pending: Sequence[PendingRequest] = (),
    is_last: bool = True,
) -> Listing:
    return build(
        ask.listing_body(),
        DIGEST,
        {each.id: each for each in records},
        unreadable or {},
        proofs={each.index: each for each in proofs},
        pending=pending,
        roster_version=7,
        is_last=is_last,
    )


def waiting(reason: str | None = "ticket 4711") -> PendingRequest:
    return PendingRequest(
        request=new_id(),
        digest="5e" * 32,
        requester="officer-a",
        requester_kind=Capacity.OFFICER,
        asked_at=make.NOW,
        not_before=make.NOW + 3_600,
        reason=reason,
    )


def test_a_page_names_the_request_the_roster_and_who_waits() -> None:
    """What the answer is to, by which roster, and the pending requests in the order given."""
    asked, pending = ask.listing_body(), [waiting(), waiting(None)]
    body = build(asked, DIGEST, {}, {}, proofs={}, pending=pending, roster_version=7, is_last=True)
    assert (body.authority, body.request, body.request_digest) == (make.AUTHORITY, asked.id, DIGEST.hex())
    assert (body.principal, body.roster_version) == (make.PRINCIPAL, 7)
    assert (body.records, body.pending, body.next) == ([], pending, None)


def test_the_last_page_points_nowhere_and_an_earlier_one_at_its_last_record() -> None:
    """`next` is the record id to ask after, and null when nothing follows."""
    records = [a_record(), a_record()]
    assert page(records).next is None
    assert page(records, is_last=False).next == records[-1].id
    assert page([]).records == []


def test_a_page_is_cut_to_what_a_statement_may_hold_and_the_rest_follows() -> None:
    """Records with the longest descriptions fill several pages; together the pages hold each record once.

    The first page has also as many pending requests, with as long reasons, as it may hold.
    """
    wide = "\N{CJK UNIFIED IDEOGRAPH-4E2D}"
    one = stored(wide * DESCRIPTION_CHARACTERS_MAX)
    records = sorted(
        (
            listed(replace(one, record=one.record.model_copy(update={"id": new_id()})), PLAIN, {})
            for _ in range(500)
        ),
        key=lambda record: record.id,
    )
    pending = [waiting(wide * REASON_CHARACTERS_MAX) for _ in range(LISTING_PENDING_MAX)]
    seen: list[ListedRecord] = []
    while len(seen) < len(records):
        body = page(records[len(seen) :], pending=() if seen else pending)
        statement = Statement.sign(Listing.TYPE, body.to_bytes(), make.signing_key("recovery replies"))
        assert parse_body(statement, Listing) == body
        assert len(statement.body) > BODY_BYTES_MAX - 5_000 or len(seen) + len(body.records) == len(records)
        seen += body.records
        assert body.next == (None if len(seen) == len(records) else seen[-1].id)
    assert seen == records


def a_proof(index: int, hashes: int = 1) -> ListedProof:
    return ListedProof(index=index, leaf=b"leaf", hashes=[bytes(32)] * hashes)


def test_a_page_has_the_proofs_that_its_records_name_each_once() -> None:
    """Two records that one leaf proves share it, and a leaf that no record names stays out."""
    records = [a_record(proof=4), a_record(proof=9), a_record(proof=4), a_record()]
    body = page(records, proofs=[a_proof(9), a_proof(4), a_proof(5)])
    assert [each.index for each in body.proofs] == [4, 9]


def test_what_cannot_be_read_stands_beside_the_records_and_counts_for_the_next_page() -> None:
    """It is listed by id and code, in its place in the order of ids."""
    record, spoilt = a_record(), new_id()
    body = page([record], unreadable={spoilt: "proof_invalid"}, is_last=False)
    assert body.unreadable == [UnreadableRecord(id=spoilt, code="proof_invalid")]
    assert (body.records, body.next) == ([record], spoilt)


def test_proofs_take_their_room_on_a_page() -> None:
    """Long paths make pages shorter, and no page names a proof that it does not carry."""
    records = sorted((a_record(proof=number) for number in range(500)), key=lambda record: record.id)
    proofs = [a_proof(number, hashes=63) for number in range(500)]
    body = page(records, proofs=proofs)
    assert len(body.to_bytes()) <= BODY_BYTES_MAX
    assert 0 < len(body.records) < len(records)
    assert body.next == body.records[-1].id
    assert {each.proof for each in body.records} == {each.index for each in body.proofs}


# ---- who waits ----


class Rows:
    """Stands for a transaction: a database that has these requests and nothing else."""

    def __init__(self, *statements: Statement) -> None:
        self._rows = {parse_body(each, Request).id: each.envelope() for each in statements}

    async def fetch(self, _sql: str, ids: list[UUID]) -> list[dict[str, object]]:
        """Give the rows of those of these requests that there are."""
        wanted = [str(id_) for id_ in ids]
        return [{"id": id_, "envelope": self._rows[id_]} for id_ in wanted if id_ in self._rows]


def by_officer(expires_at: int, **changes: Any) -> Statement:
    members: dict[str, Any] = {**OFFICER, "expires_at": expires_at}
    return ask.request(**(members | changes))


async def who_waits(
    asked: Sequence[Statement], *, now: int, lost: Sequence[Statement] = (), after: str | None = None
) -> list[bytes]:
    """Return the digests of the requests that a listing shows when these and the lost ones are on the record."""
    desk: Any = SimpleNamespace(ledger=Ledger())
    for statement in [*asked, *lost]:
        desk.ledger.apply(ask.request_leaf(statement))
    rows: Any = Rows(*asked)
    return [case.digest for case in await _waiting(desk, rows, ask.listing_body(after=after), now)]


async def test_the_owner_sees_the_newest_requests_of_others_that_wait() -> None:
    """As many as fit, newest first, an officer of its name too; not its own, not for others'; on page one."""
    namesake = by_officer(make.NOW + make.DAY, requester=make.PRINCIPAL)
    others = [*(by_officer(make.NOW + make.DAY) for _ in range(LISTING_PENDING_MAX)), namesake]
    strangers = by_officer(make.NOW + make.DAY, principal="laptop-0418")
    asked = [*others, ask.request(), strangers]
    newest_first = [statement.digest for statement in reversed(others)]
    assert await who_waits(asked, now=make.NOW) == newest_first[:LISTING_PENDING_MAX]
    assert await who_waits(asked, now=make.NOW, after=new_id()) == []


@pytest.mark.parametrize("count", [LISTING_PENDING_MAX, LISTING_RECORDS_MAX + 1])
async def test_a_request_does_not_hide_behind_others_that_have_expired(count: int) -> None:
    """However many came after it and are over, the one that waits is shown; at its own end it goes too."""
    waits = by_officer(make.NOW + 7 * make.DAY)
    expired = [by_officer(make.NOW + 1) for _ in range(count)]
    last = make.NOW + 7 * make.DAY + CLOCK_SKEW_SECONDS
    for now in (make.NOW + CLOCK_SKEW_SECONDS + 2, last):
        assert await who_waits([waits, *expired], now=now) == [waits.digest]
    assert await who_waits([waits, *expired], now=last + 1) == []


async def test_a_request_that_the_database_lost_is_shown_while_it_may_be_good() -> None:
    """Deleting the row does not hide it: until no request of its time can be good any more, by both clocks."""
    lost = by_officer(make.NOW + 1)
    last = make.NOW + 7 * make.DAY + 2 * CLOCK_SKEW_SECONDS
    assert await who_waits([], lost=[lost], now=last) == [lost.digest]
    assert await who_waits([], lost=[lost], now=last + 1) == []
