"""Requests for keys: decided, put on the record together with their answer, and only then answered (SPEC 5.2)."""

import asyncio
from dataclasses import dataclass

from strongroom.database import Transaction
from strongroom.errors import LimitExceeded, NotFound, PermanentError, ProofInvalid, StatementConflict
from strongroom.leaves import RefusalLeaf, ReleaseLeaf
from strongroom.limits import BODY_BYTES_MAX
from strongroom.log_writer import Appended
from strongroom.messages import HistoryEntry, Release, Request
from strongroom.statements import Statement, parse_envelope
from strongroom_recovery import release, store
from strongroom_recovery.desk import Answer, Desk, Hints
from strongroom_recovery.evidence import verified_records
from strongroom_recovery.handler import (
    Submission,
    check_request,
    refusal_again,
    refusal_leaf,
    release_leaf,
    request_leaf,
)
from strongroom_recovery.records import StoredRecord


@dataclass(frozen=True, slots=True)
class Granted:
    """A signed release, and the ids of the records in it."""

    statement: Statement
    records: list[str]


async def recover(desk: Desk, submission: Submission, request: Request, hints: Hints, now: int) -> Answer:
    """Answer a request with keys or with a refusal; either is committed on return.

    Raises PermanentError when the requester cannot be verified, or when what is stored of an earlier answer
    contradicts the log; and as `Desk.begin`, with nothing stored.
    """
    digest = submission.digest
    async with desk.database.transaction() as tx:
        await desk.begin(tx, now)
        await desk.verify_requester(tx, submission.statement, request)
        answered = await store.answered(tx, request.id)
        if answered is not None and answered.digest == digest:
            return await _repeat(desk, tx, submission, answered, hints)
        if answered is not None:
            # The row of this id belongs to the other request; this one is on the record by its leaf alone.
            decision: Granted | PermanentError = StatementConflict(f"id: {request.id} is taken by another request")
            leaves = [_outcome_leaf(request, digest, decision, now)]
        else:
            decision = await _decide(desk, tx, request, digest, now)
            leaves = [request_leaf(request, digest, now), _outcome_leaf(request, digest, decision, now)]
        appended = await desk.writer.append(tx, leaves)
        if answered is None:
            await _store(tx, submission, request, decision, appended, now=now)
        proof = await desk.consistency(tx, hints, appended.size)
    # COMMIT has succeeded: who asked, and what they were given or refused, is on the record.
    await desk.writer.committed(appended)
    receipt = appended.receipt(appended.size - 1)
    if isinstance(decision, Granted):
        return Answer(
            "released", desk.reply(hints, decision.statement, receipt, proof), records=len(decision.records)
        )
    told = desk.rejection(submission, decision, now)
    return Answer("refused", desk.reply(hints, told, receipt, proof), decision)


async def _decide(
    desk: Desk, tx: Transaction, request: Request, digest: bytes, now: int
) -> Granted | PermanentError:
    try:
        check_request(request, desk.registry.roster, now)
        records, history = await _select(desk, tx, request)
        # A key device takes its time, and the connection to the broker must stay alive meanwhile.
        body = await asyncio.to_thread(
            release.build, request, digest, records, history=history, keyring=desk.keyring, now=now
        )
        return Granted(_signed(desk, body), [record.id for record in body.records])
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


async def _select(desk: Desk, tx: Transaction, request: Request) -> tuple[list[StoredRecord], list[HistoryEntry]]:
    """Return the verified records to release, and the history of the name if one was asked for (SPEC 5.3)."""
    if request.name is not None:
        return await _select_newest(desk, tx, request.principal, request.name)
    asked = request.records or []
    entries = await store.records_by_id(tx, request.principal, asked)
    missing = set(asked) - {entry.id for entry in entries}
    if missing:
        raise NotFound(f"records: {request.principal} has no record {min(missing)}")
    found = {entry.id: stored async for entry, stored in verified_records(desk, tx, request.principal, entries)}
    return [found[id_] for id_ in asked], []


async def _select_newest(
    desk: Desk, tx: Transaction, principal: str, name: str
) -> tuple[list[StoredRecord], list[HistoryEntry]]:
    entries = await store.records_by_name(tx, principal, name)
    if not entries:
        raise NotFound(f"name: {principal} has no record named {name!r}")
    newest: StoredRecord | None = None
    history: list[HistoryEntry] = []
    async for _, stored in verified_records(desk, tx, principal, entries):
        record = stored.record
        history.append(HistoryEntry(id=record.id, issued_at=stored.issued_at, fingerprint=record.fingerprint))
        # Which one is the newest is decided by what was signed, not by the order of rows.
        newest = stored if newest is None or stored.rank > newest.rank else newest
    history.sort(key=lambda entry: (entry.issued_at, entry.id), reverse=True)
    return [newest] if newest else [], history


def _outcome_leaf(request: Request, digest: bytes, decision: Granted | PermanentError, now: int) -> bytes:
    if isinstance(decision, Granted):
        return release_leaf(request, digest, decision.statement, decision.records, now)
    return refusal_leaf(request, digest, decision.code, now)


async def _store(
    tx: Transaction,
    submission: Submission,
    request: Request,
    decision: Granted | PermanentError,
    appended: Appended,
    *,
    now: int,
) -> None:
    first, last = appended.first_index, appended.size - 1
    await store.insert_request(tx, request, submission.digest, submission.envelope, leaf_index=first, now=now)
    if isinstance(decision, Granted):
        envelope = decision.statement.envelope()
        await store.insert_release(tx, request.id, envelope, decision.records, leaf_index=last)
    else:
        await store.insert_refusal(tx, request.id, submission.digest, decision.code, leaf_index=last)


async def _repeat(
    desk: Desk, tx: Transaction, submission: Submission, answered: store.Answered, hints: Hints
) -> Answer:
    """Give the answer that was given before, with a receipt as of now; the log says what it was.

    Raises ProofInvalid when the database says otherwise.
    """
    digest = submission.digest.hex()
    leaf, receipt = await desk.logged(tx, answered.leaf_index)
    proof = await desk.consistency(tx, hints, desk.writer.size)
    refused = (submission.id, digest, answered.code)
    if isinstance(leaf, RefusalLeaf) and (leaf.id, leaf.digest, leaf.code) == refused:
        refusal = refusal_again(leaf.code)
        told = desk.rejection(submission, refusal, leaf.time)
        return Answer("repeated", desk.reply(hints, told, receipt, proof), refusal)
    if isinstance(leaf, ReleaseLeaf) and (leaf.id, leaf.digest) == (submission.id, digest):
        stored = _read_release(answered)
        if stored is not None and stored.digest.hex() == leaf.release:
            # Signed anew: the log vouches for the body, and the key may have changed since.
            told = Statement.sign(Release.TYPE, stored.body, desk.reply_key)
            return Answer("repeated", desk.reply(hints, told, receipt, proof), records=len(leaf.records))
    raise ProofInvalid(f"request {submission.id}: the stored answer is not the one in the recovery log")


def _read_release(answered: store.Answered) -> Statement | None:
    try:
        return parse_envelope(answered.release or b"")
    except PermanentError:
        return None
