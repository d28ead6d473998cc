"""Listings: a page of a principal's records, each verified again, cut to what a statement may hold (SPEC 5.4)."""

from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from strongroom.database import Transaction
from strongroom.errors import PermanentError, ProofInvalid
from strongroom.fields import parse_body
from strongroom.limits import LISTING_PENDING_MAX, LISTING_RECORDS_MAX
from strongroom.logs import get_logger
from strongroom.messages import (
    Disclosure,
    ListedProof,
    ListedRecord,
    Listing,
    ListingRequest,
    PendingRequest,
    Request,
    UnreadableRecord,
)
from strongroom.roster import is_expired
from strongroom.statements import Statement
from strongroom_recovery import store
from strongroom_recovery.cases import requests_of
from strongroom_recovery.desk import Answer, Desk, Hints
from strongroom_recovery.evidence import examined_records
from strongroom_recovery.handler import Submission, check_listing
from strongroom_recovery.ledger import Case
from strongroom_recovery.pages import Room
from strongroom_recovery.policy import not_before
from strongroom_recovery.records import StoredRecord
from strongroom_recovery.release import description
from strongroom_recovery.states import Standing, is_proven, standing


async def list_records(desk: Desk, submission: Submission, asked: ListingRequest, hints: Hints, now: int) -> Answer:
    """Answer a listing request with a signed listing, or with a rejection; nothing is written.

    The answer carries the newest checkpoint of the recovery log, and the proof leaves that the states rest on.
    Raises PermanentError when the requester cannot be verified, RosterExpired, DatabaseUnavailable.
    """
    async with desk.database.transaction() as tx:
        await desk.begin(tx, now)
        await desk.verify_sender(tx, submission.statement, asked.authority, asked.requester, asked.requester_kind)
        try:
            check_listing(asked, desk.registry.roster, now)
            page = await _page(desk, tx, asked, submission.digest, now)
        except PermanentError as error:
            return Answer("refused", desk.reply(hints, desk.rejection(submission, error, now)), error)
        # Whoever is verified has an enrolment or a roster in the log, so that there is a newest leaf.
        _, receipt = await desk.logged(tx, desk.writer.size - 1)
        consistency = await desk.consistency(tx, hints, desk.writer.size)
    statement = Statement.sign(Listing.TYPE, page.to_bytes(), desk.reply_key)
    return Answer("listed", desk.reply(hints, statement, receipt, consistency))


async def _page(desk: Desk, tx: Transaction, asked: ListingRequest, digest: bytes, now: int) -> Listing:
    entries = await store.records_page(tx, asked.principal, asked.after, LISTING_RECORDS_MAX + 1)
    is_last = len(entries) <= LISTING_RECORDS_MAX
    examined = [each async for each in examined_records(desk, tx, asked.principal, entries[:LISTING_RECORDS_MAX])]
    examined.sort(key=lambda each: each[0].id)
    stored = [found for _, found in examined if isinstance(found, StoredRecord)]
    unreadable = {entry.id: found for entry, found in examined if isinstance(found, ProofInvalid)}
    for id_, error in unreadable.items():
        get_logger().error("record is not what was accepted", record=id_, reason=error.message, hint=error.hint)
    replaced = await _replaced(desk, tx, asked.principal, stored)
    replace_days = desk.registry.roster.body.policy.replace_days
    standings = {
        each.record.id: standing(
            each, desk.ledger, is_replaced=each.record.id in replaced, replace_days=replace_days
        )
        for each in stored
    }
    waiting = await _waiting(desk, tx, asked, now)
    reasons = await _reasons(tx, [*(each.disclosed for each in standings.values() if each.disclosed), *waiting])
    proofs = await _proofs(desk, tx, {each.proof for each in standings.values() if each.proof is not None})
    return build(
        asked,
        digest,
        {each.record.id: listed(each, standings[each.record.id], reasons) for each in stored},
        {id_: error.code for id_, error in unreadable.items()},
        proofs=proofs,
        pending=[_pending(desk, case, reasons) for case in waiting],
        roster_version=desk.registry.roster.body.version,
        is_last=is_last,
    )


async def _replaced(desk: Desk, tx: Transaction, principal: str, stored: Sequence[StoredRecord]) -> set[str]:
    """Return the ids of those of these records that a proven record supersedes, by its own signed statement."""
    wanted = {each.record.id for each in stored}
    found: set[str] = set()
    entries = await store.records_superseding(tx, principal, list(wanted))
    async for _, newer in examined_records(desk, tx, principal, entries):
        if (
            isinstance(newer, StoredRecord)
            and newer.in_force
            and is_proven(desk.ledger, newer.record.id, newer.log_index)
        ):
            found |= wanted & set(newer.record.supersedes)
    return found


async def _proofs(desk: Desk, tx: Transaction, indexes: Collection[int]) -> dict[int, ListedProof]:
    """Return proof leaves by index, each with its path to the root of the recovery log as it is now."""
    proofs = await desk.writer.leaf_proofs(tx, indexes, desk.writer.size)
    return {
        index: ListedProof(index=index, leaf=proof.leaf, hashes=list(proof.hashes))
        for index, proof in proofs.items()
    }


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


def listed(stored: StoredRecord, standing: Standing, reasons: Mapping[str, str]) -> ListedRecord:
    """Return what a listing says of a verified record; what has become of it is the log's word."""
    return ListedRecord(
        **description(stored.record),
        supersedes=stored.record.supersedes,
        issued_at=stored.issued_at,
        stored_at=stored.stored_at,
        statement=stored.statement_id,
        log_index=stored.log_index,
        state=standing.state,
        proof=standing.proof,
        proven_at=standing.proven_at,
        code=standing.code,
        attested_at=standing.attested_at,
        disclosure=None if standing.disclosed is None else _disclosure(standing.disclosed, reasons),
        replace_by=standing.replace_by,
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
    records: Mapping[str, ListedRecord],
    unreadable: Mapping[str, str],
    *,
    proofs: Mapping[int, ListedProof],
    pending: Sequence[PendingRequest],
    roster_version: int,
    is_last: bool,
) -> Listing:
    """Return the body of the listing that answers a request with these records, or the first of them that fit.

    Arguments: `records` and `unreadable` (to the code of the error) by record id; `proofs` by index, all that the
    records name; `is_last`, whether the principal has no records after these.
    """
    page = Listing(
        authority=asked.authority,
        request=asked.id,
        request_digest=request_digest.hex(),
        roster_version=roster_version,
        principal=asked.principal,
        records=[],
        unreadable=[],
        proofs=[],
        pending=list(pending),
        next=asked.id,  # as long as any id, so that the size is not underestimated
    )
    room = Room(page)
    fitting: list[ListedRecord | UnreadableRecord] = []
    carried: dict[int, ListedProof] = {}
    ids = sorted({*records, *unreadable})
    for id_ in ids:
        part = records[id_] if id_ in records else UnreadableRecord(id=id_, code=unreadable[id_])
        proof = part.proof if isinstance(part, ListedRecord) else None
        is_new = proof is not None and proof not in carried
        if not room.takes(part) or (is_new and proof is not None and not room.takes(proofs[proof])):
            break
        if proof is not None:
            carried[proof] = proofs[proof]
        fitting.append(part)
    is_cut = len(fitting) < len(ids)
    return page.model_copy(
        update={
            "records": [part for part in fitting if isinstance(part, ListedRecord)],
            "unreadable": [part for part in fitting if isinstance(part, UnreadableRecord)],
            "proofs": [carried[index] for index in sorted(carried)],
            "next": fitting[-1].id if fitting and (is_cut or not is_last) else None,
        }
    )
