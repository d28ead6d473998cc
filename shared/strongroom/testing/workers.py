"""What the two workers do, without a database: verify, keep, log, answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from strongroom.blobs import BlobContext, ReleaseContext, check_fingerprint, open_material, reseal
from strongroom.crypto.sealing import kid
from strongroom.crypto.signing import key_id
from strongroom.errors import (
    ApprovalRequired,
    Denied,
    InvitationInvalid,
    MalformedStatement,
    NotFound,
    RecordConflict,
    StatementConflict,
)
from strongroom.leaves import EnrolmentLeaf, EscrowLeaf, ReleaseLeaf
from strongroom.messages import (
    Enrolment,
    Escrow,
    HistoryEntry,
    ListedRecord,
    Listing,
    ListingRequest,
    Record,
    RecordDescription,
    RecordState,
    Release,
    ReleasedRecord,
    Request,
    RequesterKind,
    Role,
    parse_body,
)
from strongroom.registry import Registry
from strongroom.replies import Reply
from strongroom.roster import check_issued, check_unexpired, judge_enrolment
from strongroom.statements import Statement
from strongroom.testing.trust import FakeTrust


@dataclass(slots=True)
class StoredRecord:
    """A record that the authority keeps, with the statement that brought it."""

    escrow: Escrow
    record: Record
    stored_at: int
    disclosed: bool = False


class FakeWorkers:
    """Both workers of an authority. `records` is what they have stored, by record id."""

    listing_records_max = 500
    """Records on one page of a listing."""

    def __init__(self, trust: FakeTrust) -> None:
        """Work with the keys of this authority, by the roster it has now and later."""
        self._trust = trust
        self._registry = Registry(trust.root.public_key, trust.roster)
        self._statements: dict[str, tuple[bytes, int]] = {}
        self._enrolments: dict[str, tuple[bytes, int]] = {}
        self._releases: dict[str, tuple[Statement, bytes, int]] = {}
        self.records: dict[str, StoredRecord] = {}

    def carry_out(self, statement: Statement) -> Reply:
        """Do what a statement asks for and answer it; raises what the real workers would reject it with."""
        work: dict[str, Callable[[Statement], Reply]] = {
            Enrolment.TYPE: self._enrol,
            Escrow.TYPE: self._escrow,
            Request.TYPE: self._release,
            ListingRequest.TYPE: self._list,
        }
        if statement.type not in work:
            raise MalformedStatement("payloadType: is not one that is taken")
        return work[statement.type](statement)

    def _enrol(self, statement: Statement) -> Reply:
        judged = judge_enrolment(statement, self._trust.roster)
        known = self._repeat(self._enrolments, judged.enrolment.id, statement)
        if known is None:
            check_unexpired(judged.invitation.expires_at, self._trust.now)
            enrolled = self._registry.is_enrolled(judged.enrolment.principal)
            if self._registry.is_used(judged.invitation.id) or (enrolled and not judged.invitation.replaces):
                raise InvitationInvalid("invitation: was used, or replaces nothing")
            leaf = EnrolmentLeaf(
                time=self._trust.now,
                id=judged.enrolment.id,
                digest=statement.digest.hex(),
                principal=judged.enrolment.principal,
                key=judged.key_id,
                invitation=judged.invitation.id,
            ).to_bytes()
            known = self._trust.recovery_log.append(leaf)
            self._registry.apply(leaf)
            self._registry.admit_enrolment(judged.enrolment.principal, statement)
            self._enrolments[judged.enrolment.id] = statement.digest, known
        return Reply(receipt=dict(self._trust.recovery_log.receipt(known)))

    def _escrow(self, statement: Statement) -> Reply:
        body = parse_body(statement, Escrow)
        known = self._repeat(self._statements, body.id, statement)
        if known is None:
            signer = self._registry.verify(statement, body.principal)
            check_issued(body.issued_at, self._trust.now)
            for record in body.records:
                self._trust.roster.accepted_sealing_key(record.kid)
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
            self.records.update({record.id: StoredRecord(body, record, self._trust.now) for record in body.records})
        return Reply(receipt=dict(self._trust.escrow_log.receipt(known)))

    def _repeat(self, known: Mapping[str, tuple[bytes, int]], id_: str, statement: Statement) -> int | None:
        digest, index = known.get(id_, (statement.digest, None))
        if digest != statement.digest:
            raise StatementConflict(f"id: {id_} is taken by another statement")
        return index

    def _release(self, statement: Statement) -> Reply:
        body = parse_body(statement, Request)
        if body.id not in self._releases:
            self._check_requester(statement, body)
            found = self._wanted(body)
            release = self._sign_release(statement, body, found)
            leaf = ReleaseLeaf(
                time=self._trust.now,
                id=body.id,
                digest=statement.digest.hex(),
                release=release.digest.hex(),
                records=[stored.record.id for stored in found],
            )
            index = self._trust.recovery_log.append(leaf.to_bytes())
            self._releases[body.id] = release, statement.digest, index
        release, digest, index = self._releases[body.id]
        if digest != statement.digest:
            raise StatementConflict(f"id: {body.id} is taken by another statement")
        return Reply(statement=release, receipt=dict(self._trust.recovery_log.receipt(index)))

    def _check_requester(self, statement: Statement, body: Request | ListingRequest) -> None:
        check_issued(body.issued_at, self._trust.now)
        check_unexpired(body.expires_at, self._trust.now)
        if body.requester_kind is RequesterKind.OFFICER:
            officer = self._trust.roster.officer(body.requester, Role.RECOVER)
            statement.verify_signature(officer.public_key, key_id(officer.public_key))
            if isinstance(body, Request):
                raise ApprovalRequired("requester: policy asks for approvals")
            return
        self._registry.verify(statement, body.requester)
        if body.requester != body.principal:
            raise Denied("principal: only one's own records")

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

    def _sign_release(self, statement: Statement, body: Request, found: Sequence[StoredRecord]) -> Statement:
        release = Release(
            authority=self._trust.name,
            request=body.id,
            request_digest=statement.digest.hex(),
            released_at=self._trust.now,
            records=[self._released(statement, body, stored) for stored in found],
            history=[
                HistoryEntry(id=s.record.id, issued_at=s.escrow.issued_at, fingerprint=s.record.fingerprint)
                for s in self._history(body)
            ],
        )
        return Statement.sign(Release.TYPE, release.to_bytes(), self._trust.recovery_reply_key)

    def _released(self, statement: Statement, body: Request, stored: StoredRecord) -> ReleasedRecord:
        record, principal = stored.record, stored.escrow.principal
        key = next(key for key in self._trust.sealing_keys if key.kid == record.kid)
        opened = open_material(
            record.blob, BlobContext(self._trust.name, principal, record.id, record.kid, record.suite), key
        )
        check_fingerprint(opened, self._trust.name, principal, record.id, record.fingerprint)
        recipient = kid(body.recipient_suite, body.recipient_key)
        context = ReleaseContext(self._trust.name, statement.digest, principal, record.id, recipient)
        stored.disclosed = True
        return ReleasedRecord(
            **_description(record),
            principal=principal,
            issued_at=stored.escrow.issued_at,
            blob=reseal(opened, context, body.recipient_suite, body.recipient_key),
        )

    def _list(self, statement: Statement) -> Reply:
        body = parse_body(statement, ListingRequest)
        self._check_requester(statement, body)
        own = sorted(id_ for id_, stored in self.records.items() if stored.escrow.principal == body.principal)
        after = [id_ for id_ in own if body.after is None or id_ > body.after]
        page = after[: self.listing_records_max]
        listing = Listing(
            authority=self._trust.name,
            request=body.id,
            request_digest=statement.digest.hex(),
            principal=body.principal,
            records=[self._listed(self.records[id_]) for id_ in page],
            next=page[-1] if len(after) > len(page) else None,
        )
        return Reply(statement=Statement.sign(Listing.TYPE, listing.to_bytes(), self._trust.recovery_reply_key))

    def _listed(self, stored: StoredRecord) -> ListedRecord:
        return ListedRecord(
            **_description(stored.record),
            issued_at=stored.escrow.issued_at,
            stored_at=stored.stored_at,
            statement=stored.escrow.id,
            state=RecordState.DISCLOSED if stored.disclosed else RecordState.STORED,
        )


def _description(record: Record) -> dict[str, Any]:
    return record.model_dump(include=set(RecordDescription.model_fields))
