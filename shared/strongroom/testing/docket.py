"""The recovery worker's docket, without a database: requests that wait, and what officers say about them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from strongroom import limits
from strongroom.crypto.signing import key_id
from strongroom.errors import (
    ApprovalInvalid,
    Denied,
    InvitationInvalid,
    NotFound,
    StatementConflict,
)
from strongroom.fields import Capacity, parse_body
from strongroom.leaves import ApprovalLeaf, DenialLeaf, InvitationLeaf, RequestLeaf, RevocationLeaf
from strongroom.mandates import Approval, Denial, Invitation, Revocation, Role
from strongroom.messages import Docket, DocketEntry, DocketRequest, Request, RequestState
from strongroom.registry import Registry
from strongroom.replies import Reply
from strongroom.roster import (
    JudgedEnrolment,
    Roster,
    check_authority,
    check_issued,
    check_life,
    check_unexpired,
    is_expired,
)
from strongroom.statements import Statement
from strongroom.testing.trust import FakeTrust

_Body: TypeAlias = Approval | Denial | Revocation
_SECONDS_AN_HOUR = 3600


@dataclass(slots=True)
class FakeCase:
    """A request as the authority has it on record: the signed request, when it was logged, and what became of it.

    key: key id of its signer. index: of its leaf. lost: the database no longer has the envelope.
    denial: the statement that ended it.
    """

    request: Request
    statement: Statement
    key: str
    index: int
    asked_at: int
    approvals: list[Statement] = field(default_factory=list)
    state: RequestState = RequestState.PENDING
    code: str | None = None
    decided_at: int | None = None
    lost: bool = False
    denial: Statement | None = None


class FakeDocket:
    """The part of a recovery worker that keeps requests, and takes approvals, denials, revocations and invitations.

    `cases` is what it knows, by request id, in the order of the log. `FakeWorkers` tells it of enrolments
    (`enrolled`), of requests (`asked`) and of their outcome (`decided`), and asks `waits_for`.
    """

    entries_max = limits.DOCKET_ENTRIES_MAX
    """Entries on one page."""

    def __init__(self, trust: FakeTrust, registry: Registry) -> None:
        """Judge by the roster that `trust` has now and later, and by the standings in `registry`."""
        self._trust = trust
        self._registry = registry
        self.cases: dict[str, FakeCase] = {}
        self._enrolments: dict[str, tuple[Statement, bytes, Roster]] = {}
        self._taken: dict[str, tuple[bytes, int]] = {}
        self._invitations: dict[str, Statement] = {}

    # ---- what the worker tells ----

    def enrolled(self, judged: JudgedEnrolment) -> None:
        """Remember the enrolment that a principal's key rests on, and the roster that it was judged by."""
        enrolment = judged.enrolment
        self._enrolments[enrolment.principal] = judged.statement, enrolment.signing_key, self._trust.roster
        self._invitations.pop(judged.invitation.id, None)

    def asked(self, request: Request, statement: Statement) -> FakeCase:
        """Log a request whose requester was verified, and return its case; the same one for a repeated request.

        Raises StatementConflict when its id is taken by other bytes.
        """
        known = self.cases.get(request.id)
        if known is None:
            key = key_id(self._requesters_key(request))
            leaf = RequestLeaf(
                time=self._trust.now,
                id=request.id,
                digest=statement.digest.hex(),
                requester=request.requester,
                requester_kind=request.requester_kind,
                key=key,
                principal=request.principal,
            )
            index = self._trust.recovery_log.append(leaf.to_bytes())
            known = self.cases[request.id] = FakeCase(request, statement, key, index, self._trust.now)
        if known.statement.digest != statement.digest:
            raise StatementConflict(f"id: {request.id} is taken by another statement")
        return known

    def decided(self, request: str, state: RequestState, code: str | None = None) -> None:
        """Note the outcome of a request: released, or refused with a code."""
        case = self.cases[request]
        case.state, case.code, case.decided_at = state, code, self._trust.now

    def needed(self, request: Request) -> int:
        """Return how many approvals the policy in force asks for; one at least for what is to be unwrapped."""
        policy = self._trust.roster.body.policy
        is_officer = request.requester_kind is Capacity.OFFICER
        needed = policy.officer_recovery_approvals if is_officer else policy.self_recovery_approvals
        return max(needed, 1) if request.unwrap else needed

    def not_before(self, case: FakeCase) -> int:
        """Return the earliest time of a release."""
        hours = self._trust.roster.body.policy.officer_recovery_delay_hours
        return case.asked_at + (hours * _SECONDS_AN_HOUR if case.request.requester_kind is Capacity.OFFICER else 0)

    def counting(self, case: FakeCase) -> list[Statement]:
        """Return the approvals of a case that count now: unexpired, of officers who still have the role."""
        able = {o.name: o.public_key for o in self._trust.roster.body.officers if Role.APPROVE in o.roles}
        return [
            each
            for each in case.approvals
            if (body := parse_body(each, Approval)).officer in able
            and each.signatures[0].key_id == key_id(able[body.officer])
            and body.expires_at >= self._trust.now - limits.CLOCK_SKEW_SECONDS
        ]

    def waits_for(self, case: FakeCase) -> int:
        """Return how many approvals a case still lacks."""
        return max(0, self.needed(case.request) - len(self.counting(case)))

    # ---- what people send ----

    def carry_out(self, statement: Statement) -> Reply | None:
        """Do what a statement asks for, or return None for a type that is somebody else's work.

        Raises what the real worker would reject it with.
        """
        work: dict[str, Callable[[Statement], Reply]] = {
            DocketRequest.TYPE: self._answer,
            Approval.TYPE: self._approve,
            Denial.TYPE: self._deny,
            Revocation.TYPE: self._revoke,
            Invitation.TYPE: self._collect,
        }
        return work[statement.type](statement) if statement.type in work else None

    def _answer(self, statement: Statement) -> Reply:
        body = parse_body(statement, DocketRequest)
        check_authority(body.authority, self._trust.roster)
        check_issued(body.issued_at, self._trust.now)
        check_unexpired(body.expires_at, self._trust.now)
        check_life(body.issued_at, body.expires_at, limits.REQUEST_LIFE_SECONDS_MAX)
        self._verify(statement, body.requester, body.requester_kind)
        by_officer = body.requester_kind is Capacity.OFFICER
        if not by_officer and body.principal != body.requester:
            raise Denied("principal: only requests for one's own records")
        found = [case for case in reversed(self.cases.values()) if self._is_wanted(case, body)]
        if body.after is not None:
            ids = [case.request.id for case in found]
            found = found[ids.index(body.after) + 1 :] if body.after in ids else []
        page = found[: self.entries_max]
        docket = Docket(
            authority=self._trust.name,
            request=body.id,
            request_digest=statement.digest.hex(),
            roster_version=self._trust.roster.body.version,
            entries=[self.entry(case) for case in page],
            invitations=self._open_invitations() if by_officer and body.after is None else [],
            next=page[-1].request.id if len(found) > len(page) else None,
        )
        return Reply(statement=Statement.sign(Docket.TYPE, docket.to_bytes(), self._trust.recovery_reply_key))

    def _is_wanted(self, case: FakeCase, body: DocketRequest) -> bool:
        return (
            body.principal in (None, case.request.principal)
            and body.request in (None, case.request.id)
            and not (body.pending and body.request is None and case.state is not RequestState.PENDING)
        )

    def _state(self, case: FakeCase) -> RequestState:
        over = is_expired(case.request.expires_at, self._trust.now)
        return RequestState.EXPIRED if over and case.state is RequestState.PENDING else case.state

    def entry(self, case: FakeCase) -> DocketEntry:
        """Return a case as a docket shows it."""
        enrolment: bytes | None = None
        older: bytes | None = None
        if case.request.requester_kind is Capacity.PRINCIPAL:
            signed, _, roster = self._enrolments[case.request.requester]
            enrolment = signed.envelope()
            older = roster.statement.envelope() if roster.digest != self._trust.roster.digest else None
        counting = self.counting(case) if case.state is RequestState.PENDING else []
        return DocketEntry(
            id=case.request.id,
            digest=case.statement.digest.hex(),
            asked_at=case.asked_at,
            log_index=case.index,
            request=None if case.lost else case.statement.envelope(),
            enrolment=enrolment,
            roster=older,
            approvals=[each.envelope() for each in counting],
            denial=None if case.denial is None else case.denial.envelope(),
            needed=self.needed(case.request),
            not_before=self.not_before(case),
            state=self._state(case),
            code=case.code,
            decided_at=case.decided_at,
        )

    def _approve(self, statement: Statement) -> Reply:
        body = parse_body(statement, Approval)
        if (index := self._known(body, statement)) is None:
            check_life(body.issued_at, body.expires_at, limits.APPROVAL_LIFE_SECONDS_MAX)
            check_unexpired(body.expires_at, self._trust.now)
            officer = self._trust.roster.officer(body.officer, Role.APPROVE)
            signer = key_id(officer.public_key)
            statement.verify_signature(officer.public_key, signer)
            case = self._waiting(body)
            asker = case.request.requester_kind, case.request.requester
            if asker == (Capacity.OFFICER, body.officer) or signer == case.key:
                raise ApprovalInvalid("officer: is the one who asks")
            if body.officer in {parse_body(each, Approval).officer for each in self.counting(case)}:
                raise ApprovalInvalid(f"officer: {body.officer} has approved this request already")
            leaf = ApprovalLeaf(
                time=self._trust.now,
                id=body.id,
                digest=statement.digest.hex(),
                officer=body.officer,
                key=signer,
                request=body.request,
            )
            case.approvals.append(statement)
            index = self._log(body, statement, leaf.to_bytes())
        return self._receipt(index)

    def _deny(self, statement: Statement) -> Reply:
        body = parse_body(statement, Denial)
        if (index := self._known(body, statement)) is None:
            signer = self._verify(statement, body.denier, body.denier_kind)
            case = self._waiting(body)
            if body.denier_kind is Capacity.PRINCIPAL and body.denier != case.request.principal:
                raise ApprovalInvalid("denier: is not whose records are asked for")
            leaf = DenialLeaf(
                time=self._trust.now,
                id=body.id,
                digest=statement.digest.hex(),
                denier=body.denier,
                denier_kind=body.denier_kind,
                key=signer,
                request=body.request,
            )
            self.decided(body.request, RequestState.DENIED, Denied.code)
            case.denial = statement
            index = self._log(body, statement, leaf.to_bytes())
        return self._receipt(index)

    def _revoke(self, statement: Statement) -> Reply:
        body = parse_body(statement, Revocation)
        if (index := self._known(body, statement)) is None:
            officer = self._trust.roster.officer(body.officer, Role.REVOKE)
            statement.verify_signature(officer.public_key, key_id(officer.public_key))
            if not self._registry.is_enrolled(body.principal):
                raise NotFound(f"principal: nobody was ever enrolled as {body.principal}")
            if body.key is not None and not self._registry.has_had(body.principal, body.key):
                raise NotFound(f"key: {body.principal} never had the key {body.key}")
            leaf = RevocationLeaf(
                time=self._trust.now,
                id=body.id,
                digest=statement.digest.hex(),
                officer=body.officer,
                principal=body.principal,
                key=body.key,
            ).to_bytes()
            index = self._log(body, statement, leaf)
            self._registry.apply(leaf)
        return self._receipt(index)

    def _collect(self, statement: Statement) -> Reply:
        body = parse_body(statement, Invitation)
        check_authority(body.authority, self._trust.roster)
        check_unexpired(body.expires_at, self._trust.now)
        signers = self._trust.roster.officers_who_signed(statement, Role.INVITE)
        if not body.replaces or body.principal is None or not signers:
            raise InvitationInvalid("invitation: replaces nothing, or no officer signed it")
        kept = self._invitations.get(body.id, statement)
        if kept.digest != statement.digest:
            raise StatementConflict(f"id: {body.id} is taken by another statement")
        merged = dict.fromkeys((*kept.signatures, *statement.signatures))
        self._invitations[body.id] = Statement(statement.type, statement.body, tuple(merged))
        leaf = InvitationLeaf(
            time=self._trust.now,
            id=body.id,
            digest=statement.digest.hex(),
            principal=body.principal,
            officers=[
                o.name for o in self._trust.roster.officers_who_signed(self._invitations[body.id], Role.INVITE)
            ],
        )
        return self._receipt(self._trust.recovery_log.append(leaf.to_bytes()))

    def _open_invitations(self) -> list[bytes]:
        # Complete ones, too: of officers who sign at the same time, none has all signatures in his own file.
        soonest = self._trust.now - limits.CLOCK_SKEW_SECONDS
        return [
            each.envelope()
            for each in self._invitations.values()
            if parse_body(each, Invitation).expires_at >= soonest
        ]

    # ---- what they share ----

    def _requesters_key(self, request: Request) -> bytes:
        if request.requester_kind is Capacity.OFFICER:
            return self._trust.roster.officer(request.requester).public_key
        return self._enrolments[request.requester][1]

    def _verify(self, statement: Statement, name: str, capacity: Capacity) -> str:
        if capacity is Capacity.PRINCIPAL:
            return self._registry.verify(statement, name)
        officer = self._trust.roster.officer(name)
        signer = key_id(officer.public_key)
        statement.verify_signature(officer.public_key, signer)
        return signer

    def _waiting(self, body: Approval | Denial) -> FakeCase:
        case = self.cases.get(body.request)
        if case is None:
            raise NotFound(f"request: there is none {body.request}")
        if case.statement.digest.hex() != body.request_digest:
            raise ApprovalInvalid(f"request_digest: is not that of request {body.request}")
        check_unexpired(case.request.expires_at, self._trust.now)
        if case.state is not RequestState.PENDING:
            raise ApprovalInvalid(f"request: {body.request} does not wait any more")
        return case

    def _known(self, body: _Body, statement: Statement) -> int | None:
        check_authority(body.authority, self._trust.roster)
        digest, index = self._taken.get(body.id, (statement.digest, None))
        if digest != statement.digest:
            raise StatementConflict(f"id: {body.id} is taken by another statement")
        if index is None:
            check_issued(body.issued_at, self._trust.now)
        return index

    def _log(self, body: _Body, statement: Statement, leaf: bytes) -> int:
        index = self._trust.recovery_log.append(leaf)
        self._taken[body.id] = statement.digest, index
        return index

    def _receipt(self, index: int) -> Reply:
        return Reply(receipt=dict(self._trust.recovery_log.receipt(index)))
