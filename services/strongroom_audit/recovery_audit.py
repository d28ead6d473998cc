"""The recovery log replayed, leaf by leaf, by the rosters that were in force then (SPEC 2, 5 and 7). Pure.

Nothing is believed but the root key: each statement is compared with the digest in its leaf and verified as its
worker ought to have verified it at that place of the log. What follows from a leaf follows also where something is
wrong with it, so that one fault is not found again in everything after it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from strongroom.approvals import Subject, check_approval
from strongroom.crypto.signing import key_id
from strongroom.errors import PermanentError, RateLimited, StatementConflict
from strongroom.fields import Capacity
from strongroom.leaves import (
    ApprovalLeaf,
    AttestationLeaf,
    DenialLeaf,
    EnrolmentLeaf,
    InvitationLeaf,
    Leaf,
    ProofLeaf,
    RefusalLeaf,
    ReleaseLeaf,
    RequestLeaf,
    ResealLeaf,
    RetirementLeaf,
    RevocationLeaf,
    RosterLeaf,
    parse_leaf,
)
from strongroom.mandates import Denial, Invitation, Revocation, Role, SealingKeyState
from strongroom.messages import Attestation, Request
from strongroom.roster import Roster, check_issued, check_unexpired, judge_enrolment
from strongroom.statements import Statement
from strongroom_audit import releases
from strongroom_audit.findings import warning
from strongroom_audit.key_use import KeyUse
from strongroom_audit.mentions import Named, Proof
from strongroom_audit.releases import Approved, Case, Rates
from strongroom_audit.replay import Replay, a

_BARE: Final = (ReleaseLeaf, RefusalLeaf, ProofLeaf, ResealLeaf, RetirementLeaf)
"""Leaves that name no statement which is kept for others to read."""


@dataclass(slots=True)
class RecoveryAudit(Replay):
    """Folds the leaves in order; what is wrong is among `findings`.

    named: records to be looked up in the escrow log. proofs: what is to be compared with its tree.
    """

    named: list[Named] = field(default_factory=list)
    proofs: list[Proof] = field(default_factory=list)
    _version: int = 0
    _cases: dict[str, Case] = field(default_factory=dict)
    _invitations: dict[str, str] = field(default_factory=dict)
    _rates: Rates = field(default_factory=Rates)
    _key_use: KeyUse = field(default_factory=KeyUse)
    _retired: dict[str, int] = field(default_factory=dict)

    def take(self, index: int, leaf: bytes, line: bytes, beside: bytes) -> None:
        """Take the next leaf, empty for a lost one, with its lines of the export; never raises."""
        self._index = index
        entry = self._parsed(leaf) if leaf else None
        if beside not in (b"true", b"false", b""):
            self._wrong("file_invalid", "the line of its release makes no sense")
        has_release = beside == b"true"
        if has_release and not isinstance(entry, ReleaseLeaf) and leaf:
            self._wrong("release_without_entry", "the database holds a release here, and the leaf is none")
        if entry is None:
            return
        self.clock.take(index, entry.time, self.now)
        self._check_roster_time(entry)
        if isinstance(entry, ReleaseLeaf) and beside == b"false":
            words = "the release is lost: who asked cannot fetch it again"
            self.findings.append(warning("recovery", index, "release_lost", words, id=entry.id))
        statement = None if isinstance(entry, _BARE) else self._statement(entry, line)
        _TAKERS[type(entry)](self, entry, statement)

    def close(self) -> None:
        """Take the end of the log."""
        self.findings += self.clock.findings(self.now)

    def _parsed(self, leaf: bytes) -> Leaf | None:
        try:
            entry = parse_leaf(leaf)
        except PermanentError as failure:
            self._wrong("leaf_malformed", f"the leaf makes no sense: {failure.message}")
            return None
        if type(entry) not in _TAKERS:
            self._wrong("leaf_malformed", f"a leaf of type {entry.type} in the recovery log")
            return None
        if entry.to_bytes() != leaf:
            self._wrong("leaf_malformed", "the leaf is not spelled as leaves are")
        return entry

    # ---- standing ----

    def _take_roster(self, entry: RosterLeaf, statement: Statement | None) -> None:
        if entry.version <= self._version:
            self._wrong("roster_order", f"version {entry.version} comes after version {self._version}")
        self._version = max(self._version, entry.version)
        if statement is None:
            return
        before = self.roster

        def judge() -> None:
            roster = Roster.verified(statement, self.root_key)
            if before is not None:
                roster.check_follows(before)
            if roster.body.version != entry.version:
                raise PermanentError("version: is not that of the leaf")
            roster.check_current(entry.time)

        try:
            roster = Roster.verified(statement, self.root_key)
        except PermanentError as failure:
            self._wrong("roster_invalid", f"a roster that does not hold: {failure.message}")
            return
        if (
            self._judged(entry, "roster_invalid", judge)
            or before is None
            or roster.body.version > before.body.version
        ):
            self.rosters.append(roster)

    def _take_invitation(self, entry: InvitationLeaf, statement: Statement | None) -> None:
        known = self._invitations.setdefault(entry.id, entry.digest)
        if known != entry.digest:
            self._wrong("statement_twice", "another invitation of this id was logged before", id=entry.id)
        roster = self.roster
        if statement is None or roster is None:
            return

        def judge() -> None:
            body = self._body(statement, Invitation, roster)
            self._compare(entry, id=body.id, principal=body.principal)
            check_issued(body.issued_at, entry.time)
            check_unexpired(body.expires_at, entry.time)
            signers = {officer.name for officer in roster.officers_who_signed(statement, Role.INVITE)}
            if signers != set(entry.officers):
                raise PermanentError("officers: are not those who signed it")
            if not body.replaces:
                raise PermanentError("replaces: one signature is enough for it")
            if self.standings.uses[body.id]:
                raise PermanentError("it was used before")

        self._judged(entry, "invitation_invalid", judge)

    def _take_enrolment(self, entry: EnrolmentLeaf, statement: Statement | None) -> None:
        self._once(entry)
        roster, public_key = self.roster, None
        if statement is not None and roster is not None:
            proven: list[bytes] = []
            self._judged(
                entry, "enrolment_invalid", lambda: self._check_enrolment(entry, statement, roster, proven)
            )
            public_key = proven[0] if proven else None
        self.standings.enrol(entry.principal, entry.key, public_key, entry.time, entry.invitation)

    def _check_enrolment(
        self, entry: EnrolmentLeaf, statement: Statement, roster: Roster, proven: list[bytes]
    ) -> None:
        judged = judge_enrolment(statement, roster)
        body, invitation = judged.enrolment, judged.invitation
        self._compare(entry, id=body.id, principal=body.principal, key=judged.key_id, invitation=invitation.id)
        if (body.principal, judged.key_id) != (entry.principal, entry.key):
            raise PermanentError("it is for another principal or key than the leaf says")
        # The officers did vouch for this key, whatever else is wrong: what it signs does not have to be found, too.
        proven.append(body.signing_key)
        check_issued(body.issued_at, entry.time)
        check_issued(invitation.issued_at, entry.time)
        check_unexpired(invitation.expires_at, entry.time)
        standings = self.standings
        if standings.uses[invitation.id] >= invitation.uses:
            raise PermanentError(f"invitation {invitation.id} was used before, {invitation.uses} times at most")
        if standings.is_enrolled(body.principal) and not invitation.replaces:
            raise PermanentError(f"{body.principal} is enrolled, and the invitation replaces nothing")
        revoked_at = standings.revoked_at.get(body.principal)
        if revoked_at is not None and invitation.issued_at <= revoked_at:
            raise PermanentError(f"{body.principal} was revoked after the invitation was issued")
        if standings.has_had(body.principal, judged.key_id):
            raise PermanentError("the key was enrolled before")

    def _take_revocation(self, entry: RevocationLeaf, statement: Statement | None) -> None:
        self._once(entry)
        roster = self.roster
        if statement is not None and roster is not None:

            def judge() -> None:
                body = self._body(statement, Revocation, roster)
                self._compare(entry, id=body.id, officer=body.officer, principal=body.principal, key=body.key)
                officer = roster.officer(body.officer, Role.REVOKE)
                statement.verify_signature(officer.public_key, key_id(officer.public_key))
                check_issued(body.issued_at, entry.time)
                if not self.standings.is_enrolled(body.principal):
                    raise PermanentError(f"nobody was ever enrolled as {body.principal}")
                if body.key is not None and not self.standings.has_had(body.principal, body.key):
                    raise PermanentError(f"{body.principal} never had this key")

            self._judged(entry, "revocation_invalid", judge)
        self.standings.revoke(entry.principal, entry.key, entry.time)

    # ---- requests ----

    def _take_request(self, entry: RequestLeaf, statement: Statement | None) -> None:
        self._once(entry)
        roster = self.roster
        bodies: list[Request] = []
        if statement is not None and roster is not None:

            def judge() -> None:
                body = self._body(statement, Request, roster)
                self._compare(
                    entry,
                    id=body.id,
                    requester=body.requester,
                    requester_kind=body.requester_kind,
                    principal=body.principal,
                )
                self._check_signed(statement, (body.requester_kind, body.requester), entry.key, roster)
                bodies.append(body)

            self._judged(entry, "request_invalid", judge)
        policy = roster.body.policy if roster else None
        case = Case(
            id=entry.id,
            digest=entry.digest,
            requester=entry.requester,
            capacity=entry.requester_kind,
            key=entry.key,
            principal=entry.principal,
            asked_at=entry.time,
            index=self._index,
            request=bodies[0] if bodies else None,
            policy=policy,
        )
        self.findings += self._rates.asked(self._index, case.who, entry, policy)
        self._cases.setdefault(entry.id, case)

    def _waiting(self, entry: ApprovalLeaf | DenialLeaf) -> Case | None:
        case = self._cases.get(entry.request)
        if case is None:
            self._wrong("request_unknown", f"{a(entry.type)} of a request that no leaf before names", id=entry.id)
        elif case.end is not None:
            words = f"{a(entry.type)} of request {case.id}, which leaf {case.end_index} has {case.end}"
            self._wrong("request_ended", words, id=entry.id)
        return case

    def _take_approval(self, entry: ApprovalLeaf, statement: Statement | None) -> None:
        self._once(entry)
        case, roster = self._waiting(entry), self.roster
        if case is None:
            return
        if statement is not None and roster is not None:
            self._judged(entry, "approval_invalid", lambda: self._check_approval(entry, statement, case, roster))
        case.approvals.append(Approved(self._index, entry.id, entry.digest, statement))

    def _check_approval(self, entry: ApprovalLeaf, statement: Statement, case: Case, roster: Roster) -> None:
        counted = check_approval(statement, case.subject, roster, entry.time)
        self._compare(
            entry, id=counted.approval.id, officer=counted.officer.name, key=key_id(counted.officer.public_key)
        )
        if case.request is not None:
            check_unexpired(case.request.expires_at, entry.time)
        if not releases.is_in_force(case, roster, self.standings):
            raise PermanentError(f"the key of {case.requester} that asked was not in force any more")
        earlier = [each.statement for each in case.approvals if each.statement is not None]
        if any(_counts(each, case.subject, roster, entry) == counted.officer.name for each in earlier):
            raise PermanentError(f"officer {counted.officer.name} had approved it already")

    def _take_denial(self, entry: DenialLeaf, statement: Statement | None) -> None:
        self._once(entry)
        case, roster = self._waiting(entry), self.roster
        if case is None:
            return
        if statement is not None and roster is not None:

            def judge() -> None:
                body = self._body(statement, Denial, roster)
                self._compare(
                    entry, id=body.id, denier=body.denier, denier_kind=body.denier_kind, request=body.request
                )
                self._check_signed(statement, (body.denier_kind, body.denier), entry.key, roster)
                check_issued(body.issued_at, entry.time)
                if body.request_digest != case.digest:
                    raise PermanentError("it is for another request")
                if body.denier_kind is Capacity.PRINCIPAL and body.denier != case.principal:
                    raise PermanentError(f"the records are not {body.denier}'s")

            self._judged(entry, "denial_invalid", judge)
        self._end(case, "denied")

    def _take_refusal(self, entry: RefusalLeaf, _statement: Statement | None) -> None:
        case = self._cases.get(entry.id)
        if case is not None and case.digest == entry.digest:
            if case.end is not None:
                self._wrong("request_ended", f"refused what leaf {case.end_index} has {case.end}", id=entry.id)
            self._compare(entry, requester=case.requester, requester_kind=case.capacity)
            self._end(case, "refused")
        elif entry.code == StatementConflict.code and case is not None:
            policy = self.roster.body.policy if self.roster else None
            who = entry.requester_kind, entry.requester
            self.findings += self._rates.asked(self._index, who, entry, policy)
        elif entry.code != RateLimited.code:
            self._wrong("request_unknown", "a refusal of what nobody asked", id=entry.id)

    def _end(self, case: Case, how: str) -> None:
        if case.end is None:
            case.end, case.end_index = how, self._index

    def _take_release(self, entry: ReleaseLeaf, _statement: Statement | None) -> None:
        case, roster = self._cases.get(entry.id), self.roster
        if case is None:
            self._wrong("release_without_request", "released what no leaf before asks for", id=entry.id)
            return
        if roster is not None:
            self.findings += releases.judge(self._index, entry, case, roster, self.standings)
            if case.released is None:
                self.findings += self._rates.given(self._index, case, entry, roster.body.policy)
        name = case.request.name if case.request else None
        self.named += [Named(self._index, each, case.principal, name, "released") for each in entry.records]
        case.released = case.released or entry
        self._end(case, "released")

    # ---- what was found about records ----

    def _take_proof(self, entry: ProofLeaf, _statement: Statement | None) -> None:
        self.proofs.append(Proof(self._index, entry))
        self._key_use.prove(entry)
        for kid in sorted((entry.kids or {}).keys() & self._retired.keys()):
            words = f"records opened by sealing key {kid}, which leaf {self._retired[kid]} has retired"
            self._wrong("retired_key_needed", words)

    def _take_reseal(self, entry: ResealLeaf, _statement: Statement | None) -> None:
        self.proofs.append(Proof(self._index, entry))
        self._key_use.reseal(entry)
        roster = self.roster
        if roster is not None and roster.active_sealing_key().kid != entry.kid:
            words = f"blobs were sealed to {entry.kid}, which is not the first active key of the roster in force"
            self._wrong("reseal_key", words)

    def _take_retirement(self, entry: RetirementLeaf, _statement: Statement | None) -> None:
        self.proofs.append(Proof(self._index, entry))
        roster = self.roster
        states = {key.kid: key.state for key in roster.body.sealing_keys} if roster else {}
        obstacle = self._key_use.obstacle(entry.kid, entry.size, entry.given_up)
        if states.get(entry.kid, SealingKeyState.CLOSED) is not SealingKeyState.CLOSED:
            obstacle = f"the roster in force calls it {states[entry.kid].value}"
        if obstacle is not None:
            self._wrong("retirement_invalid", f"sealing key {entry.kid} was retired, and {obstacle}")
        self._retired.setdefault(entry.kid, self._index)

    def _take_attestation(self, entry: AttestationLeaf, statement: Statement | None) -> None:
        self._once(entry)
        roster = self.roster
        if statement is not None and roster is not None:

            def judge() -> None:
                body = self._body(statement, Attestation, roster)
                self._compare(
                    entry,
                    id=body.id,
                    principal=body.principal,
                    matching=[each.id for each in body.records if each.matches],
                    stale=[each.id for each in body.records if not each.matches],
                )
                self._check_signed(statement, (Capacity.PRINCIPAL, body.principal), entry.key, roster)
                check_issued(body.issued_at, entry.time)

            self._judged(entry, "attestation_invalid", judge)
        self.named += [
            Named(self._index, each, entry.principal, None, "attested") for each in (*entry.matching, *entry.stale)
        ]


def _counts(statement: Statement, subject: Subject, roster: Roster, entry: ApprovalLeaf) -> str | None:
    """Return the officer of an earlier approval if it counts at this time."""
    try:
        return check_approval(statement, subject, roster, entry.time).officer.name
    except PermanentError:
        return None


_TAKERS: Final[dict[type, Callable[[RecoveryAudit, Any, Statement | None], None]]] = {
    RosterLeaf: RecoveryAudit._take_roster,  # noqa: SLF001  what each kind of leaf leads to
    InvitationLeaf: RecoveryAudit._take_invitation,  # noqa: SLF001
    EnrolmentLeaf: RecoveryAudit._take_enrolment,  # noqa: SLF001
    RevocationLeaf: RecoveryAudit._take_revocation,  # noqa: SLF001
    RequestLeaf: RecoveryAudit._take_request,  # noqa: SLF001
    ApprovalLeaf: RecoveryAudit._take_approval,  # noqa: SLF001
    DenialLeaf: RecoveryAudit._take_denial,  # noqa: SLF001
    RefusalLeaf: RecoveryAudit._take_refusal,  # noqa: SLF001
    ReleaseLeaf: RecoveryAudit._take_release,  # noqa: SLF001
    ProofLeaf: RecoveryAudit._take_proof,  # noqa: SLF001
    AttestationLeaf: RecoveryAudit._take_attestation,  # noqa: SLF001
    ResealLeaf: RecoveryAudit._take_reseal,  # noqa: SLF001
    RetirementLeaf: RecoveryAudit._take_retirement,  # noqa: SLF001
}
