"""What the two workers do, without a database: verify, keep, log, answer."""

from collections.abc import Callable, Mapping

from strongroom.crypto.signing import key_id
from strongroom.errors import (
    ApprovalRequired,
    Denied,
    InvitationInvalid,
    MalformedStatement,
    NotFound,
    PermanentError,
    RateLimited,
    RecordConflict,
    StatementConflict,
    by_code,
)
from strongroom.fields import Capacity, parse_body
from strongroom.leaves import (
    DenialLeaf,
    EnrolmentLeaf,
    EscrowLeaf,
    RefusalLeaf,
    ReleaseLeaf,
    RosterLeaf,
    parse_leaf,
)
from strongroom.limits import (
    APPROVED_REQUEST_LIFE_SECONDS_MAX,
    CLOCK_SKEW_SECONDS,
    LISTING_PENDING_MAX,
    LISTING_RECORDS_MAX,
    REQUEST_LIFE_SECONDS_MAX,
)
from strongroom.mandates import Enrolment, Role
from strongroom.messages import (
    Attestation,
    Disclosure,
    Escrow,
    Listing,
    ListingRequest,
    PendingRequest,
    Record,
    Request,
    RequestState,
    UnreadableRecord,
)
from strongroom.registry import Registry
from strongroom.replies import Reply
from strongroom.roster import (
    JudgedEnrolment,
    check_authority,
    check_issued,
    check_life,
    check_unexpired,
    judge_enrolment,
)
from strongroom.statements import Statement
from strongroom.testing.docket import FakeCase, FakeDocket
from strongroom.testing.evidence import FakeEvidence, StoredRecord
from strongroom.testing.release import signed_release
from strongroom.testing.trust import FakeTrust

_HOUR_SECONDS = 3_600


class OnRecord(Exception):
    """A refusal that the recovery log holds: the error, and the index of the leaf that its receipt shows."""

    def __init__(self, error: PermanentError, index: int) -> None:
        """Keep both."""
        super().__init__(error.message)
        self.error = error
        self.index = index


class FakeWorkers:
    """Both workers, and the prover.

    `records` is what they have stored, by record id; `docket` knows who asked for keys; `evidence` proves records
    when it is told to, and knows their states.
    """

    listing_records_max = LISTING_RECORDS_MAX
    """Records on one page of a listing."""

    def __init__(self, trust: FakeTrust) -> None:
        """Work with the keys of this authority, by the roster it has now and later."""
        self._trust = trust
        self._registry = Registry(trust.root.public_key, trust.roster)
        self._statements: dict[str, tuple[bytes, int]] = {}
        self._enrolments: dict[str, tuple[bytes, int]] = {}
        self._releases: dict[str, tuple[Statement, int]] = {}
        self.docket = FakeDocket(trust, self._registry)
        self.records: dict[str, StoredRecord] = {}
        self.unreadable: dict[str, str] = {}
        """Record id → code, of records whose stored statements are not what was accepted."""
        self.evidence = FakeEvidence(trust, self._registry, self.records)

    def carry_out(self, statement: Statement) -> Reply:
        """Do what a statement asks for and answer it.

        Raises what the real workers would reject it with; OnRecord where they would add a receipt.
        """
        if (reply := self.docket.carry_out(statement)) is not None:
            return reply
        work: dict[str, Callable[[Statement], Reply]] = {
            Enrolment.TYPE: self._enrol,
            Escrow.TYPE: self._escrow,
            Request.TYPE: self._recover,
            ListingRequest.TYPE: self._list,
            Attestation.TYPE: self.evidence.attest,
        }
        if statement.type not in work:
            raise MalformedStatement("payloadType: is not one that is taken")
        return work[statement.type](statement)

    def _enrol(self, statement: Statement) -> Reply:
        judged = judge_enrolment(statement, self._trust.roster)
        known = self._repeat(self._enrolments, judged.enrolment.id, statement)
        if known is None:
            self._check_invitation(judged)
            leaf = EnrolmentLeaf(
                time=self._trust.now,
                id=judged.enrolment.id,
                digest=statement.digest.hex(),
                principal=judged.enrolment.principal,
                key=judged.key_id,
                invitation=judged.invitation.id,
            ).to_bytes()
            known = self._trust.recovery_log.append(leaf)
            self._registry.bootstrap = self._trust.roster
            self._registry.apply(leaf)
            self._registry.admit_enrolment(judged.enrolment.principal, statement)
            self.docket.enrolled(judged)
            self._enrolments[judged.enrolment.id] = statement.digest, known
        return Reply(receipt=dict(self._trust.recovery_log.receipt(known)))

    def _check_invitation(self, judged: JudgedEnrolment) -> None:
        invitation, principal = judged.invitation, judged.enrolment.principal
        check_unexpired(invitation.expires_at, self._trust.now)
        if self._registry.uses(invitation.id) >= invitation.uses:
            raise InvitationInvalid("invitation: was used")
        if self._registry.is_enrolled(principal) and not invitation.replaces:
            raise InvitationInvalid("invitation: replaces nothing")
        revoked_at = self._registry.revoked_at(principal)
        if revoked_at is not None and invitation.issued_at <= revoked_at:
            raise InvitationInvalid(f"invitation: {principal} was revoked after it was issued")
        if self._registry.has_had(principal, judged.key_id):
            raise InvitationInvalid(f"signing_key: was enrolled for {principal} before")

    def _escrow(self, statement: Statement) -> Reply:
        body = parse_body(statement, Escrow)
        known = self._repeat(self._statements, body.id, statement)
        if known is None:
            signer = self._registry.verify(statement, body.principal)
            check_issued(body.issued_at, self._trust.now)
            for record in body.records:
                self._trust.roster.accepted_sealing_key(record.kid)
                self._check_wrapping(body.principal, record)
                if record.id in self.records:
                    raise RecordConflict(f"records: id {record.id} is taken")
            known = self._trust.escrow_log.append(
                EscrowLeaf(
                    time=self._trust.now,
                    id=body.id,
                    digest=statement.digest.hex(),
                    principal=body.principal,
                    key=signer,
                ).to_bytes()
            )
            self._statements[body.id] = statement.digest, known
            # In place: the evidence speaks of the same ones.
            self.records |= {
                record.id: StoredRecord(body, record, self._trust.now, known) for record in body.records
            }
        return Reply(receipt=dict(self._trust.escrow_log.receipt(known)))

    def _check_wrapping(self, principal: str, record: Record) -> None:
        if record.wrapping is None:
            return
        self._trust.roster.accepted_transport_key(record.wrapping.kid)
        for stored in self.records.values():
            theirs = stored.record.wrapping
            is_copy = theirs is not None and theirs.digest == record.wrapping.digest
            if is_copy and stored.escrow.principal != principal:
                raise RecordConflict(f"record {record.id}: another principal escrowed this wrapped key first")

    def _repeat(self, known: Mapping[str, tuple[bytes, int]], id_: str, statement: Statement) -> int | None:
        digest, index = known.get(id_, (statement.digest, None))
        if digest != statement.digest:
            raise StatementConflict(f"id: {id_} is taken by another statement")
        return index

    def _recover(self, statement: Statement) -> Reply:
        body = parse_body(statement, Request)
        self._verify(statement, body)
        is_waiting = body.id in self.docket.cases
        if not is_waiting:
            self._check_rate(body)
        case = self.docket.asked(body, statement)
        if body.id not in self._releases:
            if case.state is not RequestState.PENDING:
                refusal = by_code(case.code or "")("this request was refused before")
                raise OnRecord(refusal, self._outcome_index(body.id))
            self._release(statement, body, case, is_waiting=is_waiting)
        release, index = self._releases[body.id]
        return Reply(statement=release, receipt=dict(self._trust.recovery_log.receipt(index)))

    def _release(self, statement: Statement, body: Request, case: FakeCase, *, is_waiting: bool) -> None:
        try:
            self._check_request(body, may_wait=is_waiting or self._waits(body))
            found = self._wanted(body)
            self._check_agreed(case)
            release = signed_release(self._trust, statement, body, found, self._history(body))
        except ApprovalRequired as error:
            raise OnRecord(error, case.index) from None
        except PermanentError as error:
            self.docket.decided(body.id, RequestState.REFUSED, error.code)
            raise OnRecord(error, self._log_refusal(body, case.statement, error.code)) from None
        leaf = ReleaseLeaf(
            time=self._trust.now,
            id=body.id,
            digest=statement.digest.hex(),
            release=release.digest.hex(),
            approvals=[approval.digest.hex() for approval in self.docket.counting(case)],
            records=[stored.record.id for stored in found],
        )
        self._releases[body.id] = release, self._trust.recovery_log.append(leaf.to_bytes())
        self.docket.decided(body.id, RequestState.RELEASED)
        own = body.requester_kind is Capacity.PRINCIPAL
        for stored in found:
            if own and stored.is_with_others:
                continue
            stored.disclosure = Disclosure(
                request=body.id,
                requester=body.requester,
                requester_kind=body.requester_kind,
                released_at=self._trust.now,
                reason=body.reason,
            )

    def _verify(self, statement: Statement, body: Request | ListingRequest) -> None:
        check_authority(body.authority, self._trust.roster)
        if body.requester_kind is Capacity.OFFICER:
            officer = self._trust.roster.officer(body.requester, Role.RECOVER)
            statement.verify_signature(officer.public_key, key_id(officer.public_key))
        else:
            self._registry.verify(statement, body.requester)

    def _check_rate(self, body: Request) -> None:
        policy = self._trust.roster.body.policy
        lately = [
            case.asked_at
            for case in self.docket.cases.values()
            if (case.request.requester_kind, case.request.requester) == (body.requester_kind, body.requester)
            and case.asked_at > self._trust.now - _HOUR_SECONDS
        ]
        if len(lately) >= policy.requests_per_hour:
            raise RateLimited(
                f"requester: the limit is {policy.requests_per_hour} requests an hour",
                retry_at=lately[-policy.requests_per_hour] + _HOUR_SECONDS,
            )

    def _check_request(self, body: Request | ListingRequest, *, may_wait: bool = False) -> None:
        check_issued(body.issued_at, self._trust.now)
        check_life(
            body.issued_at,
            body.expires_at,
            APPROVED_REQUEST_LIFE_SECONDS_MAX if may_wait else REQUEST_LIFE_SECONDS_MAX,
        )
        check_unexpired(body.expires_at, self._trust.now)
        if body.requester_kind is Capacity.PRINCIPAL and body.requester != body.principal:
            raise Denied("principal: only one's own records")

    def _waits(self, body: Request) -> bool:
        delayed = self._trust.roster.body.policy.officer_recovery_delay_hours > 0
        return self.docket.needed(body) > 0 or (delayed and body.requester_kind is Capacity.OFFICER)

    def _check_agreed(self, case: FakeCase) -> None:
        needed, given = self.docket.needed(case.request), len(self.docket.counting(case))
        not_before = self.docket.not_before(case)
        if self.docket.waits_for(case) or not_before > self._trust.now:
            who = "unwrapping" if case.request.unwrap else "policy"
            raise ApprovalRequired(
                f"approvals: {who} asks for {needed}, there are {given}",
                retry_at=not_before if not_before > self._trust.now else None,
            )

    def _log_refusal(self, body: Request, statement: Statement, code: str) -> int:
        leaf = RefusalLeaf(
            time=self._trust.now,
            id=body.id,
            digest=statement.digest.hex(),
            requester=body.requester,
            requester_kind=body.requester_kind,
            code=code,
        )
        return self._trust.recovery_log.append(leaf.to_bytes())

    def _outcome_index(self, request: str) -> int:
        for index, data in enumerate(self._trust.recovery_log.leaves):
            leaf = parse_leaf(data)
            if (isinstance(leaf, DenialLeaf) and leaf.request == request) or (
                isinstance(leaf, RefusalLeaf) and leaf.id == request
            ):
                return index
        raise NotFound(f"request {request}: has no outcome")

    def _wanted(self, body: Request) -> list[StoredRecord]:
        own = [stored for stored in self.records.values() if stored.escrow.principal == body.principal]
        if body.name is not None:
            found = self._history(body)[:1]
        else:
            found = [stored for stored in own if stored.record.id in (body.records or ())]
        if len(found) != len(body.records or [body.name]):
            raise NotFound("records: not all are there")
        return found

    def _history(self, body: Request) -> list[StoredRecord]:
        named = [
            stored
            for stored in self.records.values()
            if stored.escrow.principal == body.principal and stored.record.name == body.name
        ]
        return sorted(named, key=lambda stored: (stored.escrow.issued_at, stored.record.id), reverse=True)

    def _list(self, statement: Statement) -> Reply:
        body = parse_body(statement, ListingRequest)
        self._verify(statement, body)
        self._check_request(body)
        own = sorted(id_ for id_, stored in self.records.items() if stored.escrow.principal == body.principal)
        after = [id_ for id_ in own if body.after is None or id_ > body.after]
        page = after[: self.listing_records_max]
        records = [self.evidence.listed(self.records[id_]) for id_ in page if id_ not in self.unreadable]
        if not self._trust.recovery_log.size:
            # As the real worker does before anything else; here it is the exception that keeps the logs short.
            roster = self._trust.roster
            leaf = RosterLeaf(time=self._trust.now, version=roster.body.version, digest=roster.digest.hex())
            self._trust.recovery_log.append(leaf.to_bytes())
        listing = Listing(
            authority=self._trust.name,
            request=body.id,
            request_digest=statement.digest.hex(),
            principal=body.principal,
            roster_version=self._trust.roster.body.version,
            records=records,
            unreadable=[
                UnreadableRecord(id=id_, code=self.unreadable[id_]) for id_ in page if id_ in self.unreadable
            ],
            proofs=self.evidence.proofs(records),
            pending=self._pending(body.principal) if body.after is None else [],
            next=page[-1] if len(after) > len(page) else None,
        )
        return Reply(
            statement=Statement.sign(Listing.TYPE, listing.to_bytes(), self._trust.recovery_reply_key),
            receipt=dict(self._trust.recovery_log.receipt(self._trust.recovery_log.size - 1)),
        )

    def _pending(self, principal: str) -> list[PendingRequest]:
        waiting = [
            PendingRequest(
                request=case.request.id,
                digest=case.statement.digest.hex(),
                requester=case.request.requester,
                requester_kind=case.request.requester_kind,
                asked_at=case.asked_at,
                not_before=self.docket.not_before(case),
                reason=None if case.lost else case.request.reason,
            )
            for case in self.docket.cases.values()
            if case.request.principal == principal
            and case.request.requester != principal
            and case.state is RequestState.PENDING
            and case.request.expires_at >= self._trust.now - CLOCK_SKEW_SECONDS
        ]
        return waiting[: -LISTING_PENDING_MAX - 1 : -1]
