"""Requests on the docket, each verified by its reader up to the root key, whoever showed them (SPEC 5.8). Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from strongroom import limits
from strongroom.approvals import Subject, agreed
from strongroom.crypto.sealing import kid
from strongroom.crypto.signing import key_id
from strongroom.errors import Denied, NotFound, PermanentError, StatementConflict
from strongroom.fields import Capacity, parse_body
from strongroom.mandates import Approval, Denial, Role
from strongroom.messages import DocketEntry, Request, RequestState
from strongroom.roster import Roster, check_authority, check_issued, check_life, is_expired, judge_enrolment
from strongroom.statements import Statement, parse_envelope


@dataclass(frozen=True, slots=True)
class Consent:
    """An officer's approval that counts. Times in seconds since 1970."""

    officer: str
    issued_at: int
    expires_at: int
    reason: str


@dataclass(frozen=True, slots=True)
class Veto:
    """Who denied a request, in which capacity, and why."""

    denier: str
    capacity: Capacity
    reason: str


@dataclass(frozen=True, slots=True)
class Case:
    """A request as its reader may believe it.

    request: what was asked for, when an envelope with this id and digest is there. flaw: why nobody may agree to
    it, e.g. that it is not signed by whom it names; None when its whole chain was verified. signer: key id of
    the requester, None with a flaw. approvals: those that verify; doubts: why others do not count.
    The rest is the signed word of the recovery worker: when it was logged (asked_at, log_index), how many
    approvals policy asks for (needed), the earliest release (not_before), and what became of it (state, code,
    decided_at). Once it is decided, approvals may be left out. veto: the denial, when one decided. Digest in
    hex, times in seconds since 1970.
    """

    id: str
    digest: str
    asked_at: int
    log_index: int
    needed: int
    not_before: int
    state: RequestState
    code: str | None
    decided_at: int | None
    request: Request | None
    signer: str | None
    flaw: str | None
    approvals: tuple[Consent, ...]
    doubts: tuple[str, ...]
    veto: Veto | None = None

    @property
    def missing(self) -> int:
        """How many approvals policy still asks for."""
        return max(0, self.needed - len(self.approvals))

    @property
    def subject(self) -> Subject | None:
        """What an approval is judged against; None with a flaw."""
        request, signer = self.request, self.signer
        if request is None or signer is None:
            return None
        return Subject(self.id, bytes.fromhex(self.digest), request.requester, request.requester_kind, signer)

    @property
    def recipient_key(self) -> str | None:
        """The id of the key that the answer would be sealed to: one-time, or of another authority."""
        request = self.request
        return kid(request.recipient_suite, request.recipient_key) if request else None

    def approval_by(self, officer: str) -> Consent | None:
        """Return the approval of this officer that counts, if there is one."""
        return next((each for each in self.approvals if each.officer == officer), None)

    def document(self) -> dict[str, object]:
        """Return the case as a JSON object for programs."""
        request = self.request
        return {
            "id": self.id,
            "digest": self.digest,
            "verified": self.flaw is None,
            "flaw": self.flaw,
            "requester": request.requester if request else None,
            "requester_kind": request.requester_kind.value if request else None,
            "requester_key": self.signer,
            "principal": request.principal if request else None,
            "name": request.name if request else None,
            "records": request.records if request else None,
            "reason": request.reason if request else None,
            "recipient_key": self.recipient_key,
            "unwrap": request.unwrap if request else None,
            "destination": request.destination.model_dump() if request and request.destination else None,
            "issued_at": request.issued_at if request else None,
            "expires_at": request.expires_at if request else None,
            "asked_at": self.asked_at,
            "log_index": self.log_index,
            "not_before": self.not_before,
            "approvals": [
                {"officer": each.officer, "expires_at": each.expires_at, "reason": each.reason}
                for each in self.approvals
            ],
            "doubts": list(self.doubts),
            "denied_by": self.veto.denier if self.veto else None,
            "denied_by_kind": self.veto.capacity.value if self.veto else None,
            "denied_because": self.veto.reason if self.veto else None,
            "needed": self.needed,
            "missing": self.missing,
            "state": self.state.value,
            "code": self.code,
            "decided_at": self.decided_at,
        }


def judged(entry: DocketEntry, roster: Roster, now: int) -> Case:
    """Verify one entry of a docket; nothing about it is raised, the case tells it.

    Arguments: the newest roster of the reader's home, the time.
    """
    request: Request | None = None
    signer: str | None = None
    flaw: str | None = None
    approvals: list[Consent] = []
    doubts: list[str] = []
    try:
        statement, request = _asked(entry, roster)
        signer = _signer(entry, statement, request, roster)
        if entry.state is RequestState.PENDING:
            _check_waiting(request, roster, now)
        subject = Subject(request.id, statement.digest, request.requester, request.requester_kind, signer)
        approvals, doubts = _approvals(entry.approvals, subject, roster, entry.decided_at or now)
    except PermanentError as error:
        flaw, signer = error.message, None
    return Case(
        id=entry.id,
        digest=entry.digest,
        asked_at=entry.asked_at,
        log_index=entry.log_index,
        needed=entry.needed,
        not_before=entry.not_before,
        state=_state(entry, request, now),
        code=entry.code,
        decided_at=entry.decided_at,
        request=request,
        signer=signer,
        flaw=flaw,
        approvals=tuple(approvals),
        doubts=tuple(doubts),
        veto=_veto(entry, roster),
    )


def _veto(entry: DocketEntry, roster: Roster) -> Veto | None:
    """Return the denial of an entry, if it is one of this request; that of an officer of today verifies as well."""
    try:
        statement = parse_envelope(entry.denial or b"")
        denial = parse_body(statement, Denial)
        officers = {each.name: each.public_key for each in roster.body.officers}
        # That of a removed officer, or of a host, counted then by the worker's own signed word.
        if denial.denier_kind is Capacity.OFFICER and denial.denier in officers:
            statement.verify_signature(officers[denial.denier], key_id(officers[denial.denier]))
    except PermanentError:
        return None
    if (denial.request, denial.request_digest) != (entry.id, entry.digest):
        return None
    return Veto(denial.denier, denial.denier_kind, denial.reason)


def _state(entry: DocketEntry, request: Request | None, now: int) -> RequestState:
    over = request is not None and is_expired(request.expires_at, now)
    return RequestState.EXPIRED if over and entry.state is RequestState.PENDING else entry.state


def _asked(entry: DocketEntry, roster: Roster) -> tuple[Statement, Request]:
    if entry.request is None:
        raise NotFound("request: the database no longer has it")
    statement = parse_envelope(entry.request)
    if statement.digest.hex() != entry.digest:
        raise StatementConflict("request: is not the one with the digest in the log")
    request = parse_body(statement, Request)
    check_authority(request.authority, roster)
    if request.id != entry.id:
        raise StatementConflict("request: has another id")
    return statement, request


def _signer(entry: DocketEntry, statement: Statement, request: Request, roster: Roster) -> str:
    """Return the id of the key by which the requester signed, after following its chain up to the root key."""
    if request.requester_kind is Capacity.OFFICER:
        officer = roster.officer(request.requester)
        signer = key_id(officer.public_key)
        statement.verify_signature(officer.public_key, signer)
        return signer
    if entry.enrolment is None:
        raise NotFound(f"enrolment: nothing shows whose key speaks for {request.requester}")
    # One that the reader could not have passed is refused.
    of_then = roster if entry.roster is None else roster.verified_older(parse_envelope(entry.roster))
    enrolled = judge_enrolment(parse_envelope(entry.enrolment), of_then)
    if enrolled.enrolment.principal != request.requester:
        raise StatementConflict(f"enrolment: is of {enrolled.enrolment.principal}, not of {request.requester}")
    statement.verify_signature(enrolled.enrolment.signing_key, enrolled.key_id)
    return enrolled.key_id


def _check_waiting(request: Request, roster: Roster, now: int) -> None:
    """Raise for a request that could not be answered with keys whatever anybody says."""
    check_issued(request.issued_at, now)
    check_life(request.issued_at, request.expires_at, limits.APPROVED_REQUEST_LIFE_SECONDS_MAX)
    if request.requester_kind is Capacity.OFFICER:
        roster.officer(request.requester, Role.RECOVER)
    elif request.requester != request.principal:
        raise Denied("principal: a host may ask for its own records only")


def _approvals(
    envelopes: Iterable[bytes], subject: Subject, roster: Roster, at: int
) -> tuple[list[Consent], list[str]]:
    """Return the approvals that count at a time, one an officer, and what is wrong with the others."""
    statements: list[Statement] = []
    doubts: list[str] = []
    for envelope in envelopes:
        try:
            statements.append(parse_envelope(envelope))
        except PermanentError as error:
            doubts.append(error.message)
    found, others = agreed(statements, subject, roster, at)
    return [_consent(each.approval) for each in found], doubts + [error.message for error in others]


def _consent(approval: Approval) -> Consent:
    return Consent(approval.officer, approval.issued_at, approval.expires_at, approval.reason)
