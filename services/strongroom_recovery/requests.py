"""Requests for keys: decided, put on the record, and only then answered (SPEC 5.2)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import dropwhile
from typing import Final

from strongroom.approvals import agreed
from strongroom.database import Transaction
from strongroom.errors import (
    RESTORE_HINT,
    ApprovalRequired,
    CheckpointInvalid,
    Denied,
    KeyUnknown,
    LimitExceeded,
    NotFound,
    PermanentError,
    ProofInvalid,
    RateLimited,
    StatementConflict,
)
from strongroom.fields import parse_body
from strongroom.leaves import RefusalLeaf, ReleaseLeaf, RequestLeaf
from strongroom.limits import BODY_BYTES_MAX, HISTORY_RECORDS_MAX
from strongroom.logs import get_logger
from strongroom.mandates import Denial
from strongroom.messages import HistoryEntry, Release, Request, RequestState
from strongroom.receipts import Receipt
from strongroom.statements import Statement, parse_envelope
from strongroom_recovery import moving, policy, release, store, unwrapping
from strongroom_recovery.cases import approvals_of, denial_of
from strongroom_recovery.desk import Answer, Desk, Event, Hints
from strongroom_recovery.evidence import examined_records, verified_records
from strongroom_recovery.handler import Submission, refusal_again
from strongroom_recovery.ledger import Case
from strongroom_recovery.records import IndexEntry, StoredRecord

# These decide nothing: the request waits, and is looked at again when it comes again.
_WAITING: Final = (ApprovalRequired, RateLimited)
_OUR_FAULT: Final = (ProofInvalid, CheckpointInvalid, KeyUnknown)
_UNDECIDED: Final = (*_WAITING, *_OUR_FAULT)


@dataclass(frozen=True, slots=True)
class Granted:
    """A signed release, the ids of the records in it, and the digests of the approvals that counted."""

    statement: Statement
    records: list[str]
    approvals: list[str]


@dataclass(frozen=True, slots=True)
class VerifiedRequest:
    """A request whose signer was verified, with its digest (32 bytes) and the signer's key id; and its leaves."""

    request: Request
    digest: bytes
    signer: str

    def case(self, now: int, index: int) -> Case:
        """Return it as a case that is new on the record, at this index of the log."""
        return Case(
            id=self.request.id,
            digest=self.digest,
            requester=self.request.requester,
            capacity=self.request.requester_kind,
            key_id=self.signer,
            principal=self.request.principal,
            asked_at=now,
            index=index,
        )

    def leaf(self, now: int) -> bytes:
        """Return the leaf that says who asked for whose keys (SPEC 7.2)."""
        return RequestLeaf(
            time=now,
            id=self.request.id,
            digest=self.digest.hex(),
            requester=self.request.requester,
            requester_kind=self.request.requester_kind,
            key=self.signer,
            principal=self.request.principal,
        ).to_bytes()

    def release_leaf(self, granted: Granted, now: int) -> bytes:
        """Return the leaf that says which keys it was answered with, and by whose approvals."""
        return ReleaseLeaf(
            time=now,
            id=self.request.id,
            digest=self.digest.hex(),
            release=granted.statement.digest.hex(),
            approvals=granted.approvals,
            records=granted.records,
        ).to_bytes()

    def refusal_leaf(self, code: str, now: int) -> bytes:
        """Return the leaf that says that it was refused, and by what code."""
        return RefusalLeaf(
            time=now,
            id=self.request.id,
            digest=self.digest.hex(),
            requester=self.request.requester,
            requester_kind=self.request.requester_kind,
            code=code,
        ).to_bytes()


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a request leads to: keys or an error, and the leaves that say so; `is_new`: it is to be stored."""

    decision: Granted | PermanentError
    leaves: list[bytes]
    is_new: bool = False


async def recover(desk: Desk, submission: Submission, request: Request, hints: Hints, now: int) -> Answer:
    """Answer a request with keys, with a refusal, or with what it waits for; all of it is committed on return.

    Raises PermanentError when the requester cannot be verified, or when what is stored of an earlier answer
    contradicts the log; and as `Desk.begin`, with nothing stored.
    """
    receipt: Receipt | None = None
    async with desk.database.transaction() as tx:
        await desk.begin(tx, now)
        signer = await desk.verify_sender(
            tx, submission.statement, request.authority, request.requester, request.requester_kind
        )
        known = desk.ledger.case(request.id)
        if known is not None and known.digest != submission.digest:
            known = None  # another request, of which nothing is told to this sender
        if known is not None and known.outcome is not None:
            repeated = await _repeat(desk, tx, submission, known, hints)
            if repeated is not None:
                return repeated
        ruling = await _rule(desk, tx, VerifiedRequest(request, submission.digest, signer), now)
        appended = await desk.writer.append(tx, ruling.leaves)
        if ruling.is_new:
            await store.insert_request(tx, request, submission.statement, leaf_index=appended.first_index, now=now)
        if known is not None and not ruling.leaves and isinstance(ruling.decision, _UNDECIDED):
            _, receipt = await desk.logged(tx, known.index)
        proof = await desk.consistency(tx, hints, appended.size)
    # COMMIT has succeeded: who asked, and what they were given or refused, is on the record.
    index = appended.size - 1
    if ruling.leaves:
        published = await desk.writer.committed(appended)
        receipt = published.receipt(index)
    decision = ruling.decision
    if isinstance(decision, Granted):
        # Kept only now: whoever owns the database and undoes the COMMIT has nothing that opens to the requester.
        async with desk.database.transaction() as tx:
            await store.insert_release(tx, request.id, decision.statement.envelope(), leaf_index=index)
        reply = desk.reply(hints, decision.statement, receipt, proof)
        event = Event("release", now, request.principal, request.id, request.id, index)
        return Answer("released", reply, records=len(decision.records), event=event)
    reply = desk.reply(hints, desk.rejection(submission, decision, now), receipt, proof)
    is_logged = ruling.is_new or known is not None
    outcome = "pending" if isinstance(decision, _WAITING) and is_logged else "refused"
    what = "request" if isinstance(decision, _UNDECIDED) and is_logged else "refusal"
    told = Event(what, now, request.principal, request.id, request.id, index) if ruling.leaves else None
    return Answer(outcome, reply, decision, event=told)


async def _rule(desk: Desk, tx: Transaction, asked: VerifiedRequest, now: int) -> Ruling:
    """Decide a request that has no answer yet, or whose release was lost before it was handed out."""
    request = asked.request
    known = desk.ledger.case(request.id)
    is_taken = known is not None and known.digest != asked.digest
    case = asked.case(now, desk.writer.size) if known is None or is_taken else known
    if case is not known:
        try:
            policy.check_request_rate(case.who, desk.ledger, desk.registry.roster.body.policy, now)
        except RateLimited as error:
            # A flood does not fill the log: of those that come too soon the first in an hour is on the record.
            is_told = desk.ledger.was_limited(case.who, now)
            return Ruling(error, [] if is_told else [asked.refusal_leaf(error.code, now)])
    if is_taken:
        # That id is another request's: this one is on the record by its refusal alone.
        conflict = StatementConflict(f"id: {request.id} is taken by another request")
        return Ruling(conflict, [asked.refusal_leaf(conflict.code, now)])
    leaves = [] if known else [asked.leaf(now)]
    decision = await _decide(desk, tx, request, case, now, is_waiting=known is not None)
    if isinstance(decision, Granted):
        leaves.append(asked.release_leaf(decision, now))
    elif not isinstance(decision, _UNDECIDED) and case.outcome is None:
        leaves.append(asked.refusal_leaf(decision.code, now))
    return Ruling(decision, leaves, is_new=known is None)


async def _decide(
    desk: Desk, tx: Transaction, request: Request, case: Case, now: int, *, is_waiting: bool
) -> Granted | PermanentError:
    roster, lost = desk.registry.roster, case.outcome
    try:
        policy.check_request(request, roster, now, is_waiting=is_waiting)
        entries = await _entries(tx, request, is_waiting=is_waiting)
        granted = lost.records if lost else None
        selected = None
        if request.destination is not None or request.unwrap:
            # What cannot be moved or unwrapped is refused before officers have agreed to it in vain.
            selected = await _select(desk, tx, request, entries, granted=granted)
            if request.unwrap:
                await unwrapping.check_unwrappable(desk, tx, selected[0])
            else:
                moving.check_movable(request, selected[0])
        if lost is None:
            counting, _ = agreed(await approvals_of(tx, case, roster), case.subject, roster, now)
            policy.check_agreed(case, counting, roster.body.policy, now, unwrap=request.unwrap)
            count = 1 if request.name is not None else len(entries)
            policy.check_release_rate(case.who, count, desk.ledger, roster.body.policy, now)
            approvals = [each.statement.digest.hex() for each in counting]
        else:
            approvals = list(lost.approvals)
        records, history = selected or await _select(desk, tx, request, entries, granted=granted)
        records = await store.with_resealed(tx, records, desk.keyring.kids)
        # A key device takes its time, and the connection to the broker must stay alive meanwhile.
        body = await asyncio.to_thread(
            release.build,
            request,
            case.digest,
            records,
            history=history,
            keyring=desk.keyring,
            roster_version=roster.body.version,
            now=now,
        )
        return Granted(
            _signed(desk, body),
            [record.id for record in body.records],
            approvals,
        )
    except PermanentError as error:
        return error.with_traceback(None)


def _signed(desk: Desk, body: Release) -> Statement:
    data = body.to_bytes()
    if len(data) > BODY_BYTES_MAX:
        raise LimitExceeded(
            f"release: {len(data)} bytes, the limit is {BODY_BYTES_MAX} bytes",
            hint="ask for fewer records at a time",
        )
    return Statement.sign(Release.TYPE, data, desk.reply_key)


# ---- which records ---------------------------------------------------------------------------------------


async def _entries(tx: Transaction, request: Request, *, is_waiting: bool) -> list[IndexEntry]:
    """Return what the index has of the records asked for.

    Raises NotFound; ProofInvalid for a request that waits, because they were there when it was asked.
    """
    try:
        return await _indexed(tx, request)
    except NotFound as error:
        if not is_waiting:
            raise
        raise ProofInvalid(f"{error.message} any more", hint=RESTORE_HINT) from None


async def _indexed(tx: Transaction, request: Request) -> list[IndexEntry]:
    principal = request.principal
    if request.name is not None:
        entries = await store.records_by_name(tx, principal, request.name)
        if not entries:
            raise NotFound(f"name: {principal} has no record named {request.name!r}")
        return entries
    asked = request.records or []
    entries = await store.records_by_id(tx, principal, asked)
    if missing := set(asked) - {entry.id for entry in entries}:
        raise NotFound(f"records: {principal} has no record {min(missing)}")
    return entries


async def _select(
    desk: Desk, tx: Transaction, request: Request, entries: list[IndexEntry], *, granted: Sequence[str] | None
) -> tuple[list[StoredRecord], list[HistoryEntry]]:
    """Return the verified records to release, and the history of the name if one was asked for (SPEC 5.3).

    Arguments: `granted` are the ids of a release that was lost: these are given again, and nothing newer.
    """
    if request.name is None:
        records = [stored async for _, stored in verified_records(desk, tx, request.principal, entries)]
        places = {id_: place for place, id_ in enumerate(request.records or [])}
        return sorted(records, key=lambda stored: places[stored.record.id]), []
    found = await _of_name(desk, tx, request, entries)
    if len(found) == HISTORY_RECORDS_MAX and not found[0].in_force:
        # One by a key that was in force may be among those that were not read, and would come first (SPEC 2.10).
        raise ProofInvalid(
            f"name: the newest {len(found)} records named {request.name!r} are by keys that were not in force",
            hint="list the principal's records, and ask for one by its id",
        )
    if granted is not None:
        found = list(dropwhile(lambda stored: stored.record.id != granted[0], found))
        if not found:
            raise NotFound(f"name: {request.principal} has no record {granted[0]} any more")
    history = [
        HistoryEntry(id=stored.record.id, issued_at=stored.issued_at, fingerprint=stored.record.fingerprint)
        for stored in found
    ]
    return found[:1], history


async def _of_name(desk: Desk, tx: Transaction, request: Request, entries: list[IndexEntry]) -> list[StoredRecord]:
    """Return the verified records of a name, the newest first, without older ones that are damaged.

    Raises ProofInvalid where a damaged one may be the newest: an older key is not given in its place.
    """
    found: list[StoredRecord] = []
    damaged: list[tuple[IndexEntry, ProofInvalid]] = []
    async for entry, each in examined_records(desk, tx, request.principal, entries):
        if isinstance(each, StoredRecord):
            found.append(each)
        else:
            damaged.append((entry, each))
    # Which one is the newest is decided by what was signed, not by the order of rows.
    found.sort(key=lambda stored: stored.rank, reverse=True)
    for entry, error in damaged:
        if not found or (entry.issued_at, entry.id) > (found[0].issued_at, found[0].record.id):
            raise ProofInvalid(
                f"record {entry.id}: {error.message}",
                hint="`strongroom records` lists the others: ask for one of them by its id, `recover --record ID`",
            )
        get_logger().error("record is not what was accepted", record=entry.id, reason=error.message)
    return found


# ---- a request that was answered before --------------------------------------------------------------------


async def _repeat(desk: Desk, tx: Transaction, submission: Submission, case: Case, hints: Hints) -> Answer | None:
    """Give the answer that was given before, with a receipt as of now; None for a release that was lost."""
    outcome = case.outcome
    if outcome is None:
        return None
    leaf, receipt = await desk.logged(tx, outcome.index)
    proof = await desk.consistency(tx, hints, desk.writer.size)
    if outcome.state is not RequestState.RELEASED:
        denial = await denial_of(tx, case)
        refusal = refusal_again(outcome.code or "") if denial is None else _denied(denial)
        told = desk.rejection(submission, refusal, leaf.time)
        return Answer("repeated", desk.reply(hints, told, receipt, proof), refusal)
    envelope = await store.release(tx, outcome.index)
    stored = _read_release(envelope)
    if stored is None or stored.digest != outcome.release:
        if envelope is not None:
            get_logger().error("stored statement lost", kind="release", request=case.id, index=outcome.index)
        return None
    # Signed anew: the log vouches for the body, and the key may have changed since.
    told = Statement.sign(Release.TYPE, stored.body, desk.reply_key)
    event = Event("release", outcome.time, case.principal, case.id, case.id, outcome.index)
    return Answer("repeated", desk.reply(hints, told, receipt, proof), records=len(outcome.records), event=event)


def _denied(denial: Statement) -> Denied:
    body = parse_body(denial, Denial)
    who = f"{body.denier_kind.value} {body.denier}"
    return Denied(f'request was denied by {who}: "{body.reason}"', hint="ask the one who denied it")


def _read_release(envelope: bytes | None) -> Statement | None:
    try:
        return parse_envelope(envelope or b"")
    except PermanentError:
        return None
