"""Dockets: the requests that there are, each with what proves it to its reader (SPEC 5.8)."""

from itertools import islice

from strongroom.approvals import agreed
from strongroom.database import Transaction
from strongroom.errors import PermanentError
from strongroom.fields import Capacity, parse_body
from strongroom.limits import (
    DOCKET_ENTRIES_MAX,
    DOCKET_INVITATIONS_MAX,
    SIGNATURES_MAX,
)
from strongroom.mandates import Invitation
from strongroom.messages import Docket, DocketEntry, DocketRequest, Request, RequestState
from strongroom.roster import is_expired
from strongroom.statements import Statement
from strongroom_recovery import policy
from strongroom_recovery.cases import approvals_of, denial_of, enrolment_of, requests_of, statements_of
from strongroom_recovery.desk import Answer, Desk, Hints
from strongroom_recovery.handler import Submission, check_docket
from strongroom_recovery.ledger import Case
from strongroom_recovery.pages import Room


async def list_requests(desk: Desk, submission: Submission, asked: DocketRequest, hints: Hints, now: int) -> Answer:
    """Answer a docket request with a signed docket, or with a rejection; nothing is written.

    Raises PermanentError when the requester cannot be verified, RosterExpired, DatabaseUnavailable.
    """
    async with desk.database.reading() as tx:
        await desk.follow(tx, now)
        await desk.verify_sender(tx, submission.statement, asked.authority, asked.requester, asked.requester_kind)
        try:
            check_docket(asked, now)
            page = await _page(desk, tx, asked, submission.digest, now)
        except PermanentError as error:
            return Answer("refused", desk.reply(hints, desk.rejection(submission, error, now)), error)
    return Answer("listed", desk.reply(hints, Statement.sign(Docket.TYPE, page.to_bytes(), desk.reply_key)))


async def _page(desk: Desk, tx: Transaction, asked: DocketRequest, digest: bytes, now: int) -> Docket:
    is_first = asked.after is None
    invitations = await _invitations(desk, tx, now) if is_first and asked.requester_kind is Capacity.OFFICER else []
    page = Docket(
        authority=asked.authority,
        request=asked.id,
        request_digest=digest.hex(),
        roster_version=desk.registry.roster.body.version,
        entries=[],
        invitations=[statement.envelope() for statement in invitations],
        next=asked.id,  # as long as any id, so that the size is not underestimated
    )
    cases = _cases(desk, asked, now)
    stored = await requests_of(tx, cases[:DOCKET_ENTRIES_MAX])
    room = Room(page)
    entries: list[DocketEntry] = []
    for case in cases[:DOCKET_ENTRIES_MAX]:
        entry = await _entry(desk, tx, case, stored.get(case.id), now)
        if not room.takes(entry):
            break
        entries.append(entry)
    following = entries[-1].id if entries and len(entries) < len(cases) else None
    return page.model_copy(update={"entries": entries, "next": following})


def _cases(desk: Desk, asked: DocketRequest, now: int) -> list[Case]:
    """Return the cases of a page, and one more if there are more."""
    if asked.request is not None:
        case = desk.ledger.case(asked.request)
        return [case] if case is not None and asked.principal in (None, case.principal) else []
    if asked.pending:
        found = desk.ledger.waiting(now, principal=asked.principal, after=asked.after)
    else:
        found = desk.ledger.cases(principal=asked.principal, after=asked.after)
    return list(islice(found, DOCKET_ENTRIES_MAX + 1))


async def _entry(desk: Desk, tx: Transaction, case: Case, request: Statement | None, now: int) -> DocketEntry:
    roster = desk.registry.roster
    enrolment, its_roster = (
        await enrolment_of(tx, desk.registry, case) if case.capacity is Capacity.PRINCIPAL else (None, None)
    )
    outcome = case.outcome
    approvals = await approvals_of(tx, case, roster)
    if outcome is not None and outcome.state is RequestState.RELEASED:
        counting = [each for each in approvals if each.digest.hex() in outcome.approvals]
    else:
        at = now if outcome is None else outcome.time
        counting = [each.statement for each in agreed(approvals, case.subject, roster, at)[0]]
    denial = await denial_of(tx, case)
    return DocketEntry(
        id=case.id,
        digest=case.digest.hex(),
        asked_at=case.asked_at,
        log_index=case.index,
        request=None if request is None else request.envelope(),
        enrolment=None if enrolment is None else enrolment.envelope(),
        roster=None if its_roster in (None, roster) else its_roster.statement.envelope(),
        approvals=[each.envelope() for each in counting[:SIGNATURES_MAX]],
        denial=None if denial is None else denial.envelope(),
        needed=policy.approvals_needed(case.capacity, roster.body.policy, unwrap=_is_to_unwrap(request)),
        not_before=policy.not_before(case, roster.body.policy),
        state=_state(case, request, now),
        code=outcome.code if outcome else None,
        decided_at=outcome.time if outcome else None,
    )


def _is_to_unwrap(request: Statement | None) -> bool:
    return request is not None and parse_body(request, Request).unwrap


def _state(case: Case, request: Statement | None, now: int) -> RequestState:
    if case.outcome is not None:
        return case.outcome.state
    if request is not None and is_expired(parse_body(request, Request).expires_at, now):
        return RequestState.EXPIRED
    return RequestState.PENDING


async def _invitations(desk: Desk, tx: Transaction, now: int) -> list[Statement]:
    """Return the partly signed invitations that may still be used, newest first; a lost one is left out."""
    found: list[Statement] = []
    logged = iter(desk.ledger.invitations(now))
    while len(found) < DOCKET_INVITATIONS_MAX and (batch := list(islice(logged, DOCKET_INVITATIONS_MAX))):
        found += [
            statement
            for statement in await statements_of(tx, batch, "invitation")
            if not is_expired(parse_body(statement, Invitation).expires_at, now)
        ]
    return found[:DOCKET_INVITATIONS_MAX]
