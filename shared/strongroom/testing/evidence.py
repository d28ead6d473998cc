"""What an authority has found out about the keys it holds, without a database: proofs, attestations, states."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from strongroom.blobs import BlobContext, check_fingerprint, open_material
from strongroom.errors import KeyUnknown, NotFound, PermanentError, StatementConflict
from strongroom.fields import Capacity, parse_body
from strongroom.leaves import AttestationLeaf, ProofLeaf, Unprovable
from strongroom.messages import (
    Attestation,
    Disclosure,
    Escrow,
    ListedProof,
    ListedRecord,
    Record,
    RecordDescription,
    RecordState,
)
from strongroom.registry import Registry
from strongroom.replies import Reply
from strongroom.roster import check_authority, check_issued
from strongroom.statements import Statement
from strongroom.testing.trust import FakeTrust

_DAY_SECONDS: Final = 86_400


@dataclass(slots=True)
class StoredRecord:
    """A record that the authority keeps, with the statement that brought it.

    disclosure: the newest release to another than its owner, or else to the owner.
    """

    escrow: Escrow
    record: Record
    stored_at: int
    log_index: int
    disclosure: Disclosure | None = None

    @property
    def is_with_others(self) -> bool:
        """Whether somebody else than its owner was given the key."""
        given = self.disclosure
        own = Capacity.PRINCIPAL, self.escrow.principal
        return given is not None and (given.requester_kind, given.requester) != own


@dataclass(frozen=True, slots=True)
class _Look:
    """The newest proof leaf that covers an escrow leaf, and its index in the recovery log."""

    index: int
    leaf: ProofLeaf

    def finding(self, stored: StoredRecord) -> Unprovable | None:
        named = [each for each in self.leaf.unprovable if each.index == stored.log_index]
        return next((each for each in named if each.record in (stored.record.id, None)), None)


class FakeEvidence:
    """Proves records when it is told to, takes attestations, and says what state a record is in (SPEC 5.13)."""

    def __init__(self, trust: FakeTrust, registry: Registry, records: Mapping[str, StoredRecord]) -> None:
        """Speak of these records, by id, as they are now and later."""
        self._trust = trust
        self._registry = registry
        self._records = records
        self._looks: dict[int, _Look] = {}
        self._attested: dict[str, tuple[bool, int]] = {}
        self._attestations: dict[str, tuple[bytes, int]] = {}

    # ---- the prover ----

    def prove(
        self, *, first: int = 0, count: int | None = None, unprovable: Mapping[str, str] | None = None
    ) -> int:
        """Open every key of a range of the escrow log, by default all of it, and log what came of it.

        Arguments: `unprovable`, record id → code of the error, for records that shall be found unprovable although
        they open. Returns the index of the proof leaf.
        """
        log = self._trust.escrow_log
        end = log.size if count is None else first + count
        within = [each for each in self._records.values() if first <= each.log_index < end]
        codes = {each.record.id: (unprovable or {}).get(each.record.id) or self._flaw(each) for each in within}
        leaf = ProofLeaf(
            time=self._trust.now,
            first=first,
            count=end - first,
            size=log.size,
            root=log.root().hex(),
            records=sum(code is None for code in codes.values()),
            unprovable=[
                Unprovable(index=each.log_index, record=each.record.id, code=code)
                for each in within
                if (code := codes[each.record.id]) is not None
            ],
        )
        return self.log_proof(leaf)

    def log_proof(self, leaf: ProofLeaf) -> int:
        """Log a proof leaf as it is, whatever it says; return its index."""
        index = self._trust.recovery_log.append(leaf.to_bytes())
        self._looks |= dict.fromkeys(range(leaf.first, leaf.first + leaf.count), _Look(index, leaf))
        return index

    def _flaw(self, stored: StoredRecord) -> str | None:
        record, principal = stored.record, stored.escrow.principal
        context = BlobContext(self._trust.name, principal, record.id, record.kid, record.suite)
        try:
            key = next((key for key in self._trust.sealing_keys if key.kid == record.kid), None)
            if key is None:
                raise KeyUnknown(f"no sealing key {record.kid}")
            opened = open_material(record.blob, context, key)
            check_fingerprint(opened, self._trust.name, principal, record.id, record.fingerprint)
        except PermanentError as error:
            return error.code
        return None

    # ---- the owners ----

    def attest(self, statement: Statement) -> Reply:
        """Take an attestation; raises what the real worker would reject it with."""
        body = parse_body(statement, Attestation)
        check_authority(body.authority, self._trust.roster)
        signer = self._registry.verify(statement, body.principal)
        digest, index = self._attestations.get(body.id, (statement.digest, None))
        if digest != statement.digest:
            raise StatementConflict(f"id: {body.id} is taken by another statement")
        if index is None:
            check_issued(body.issued_at, self._trust.now)
            index = self._log(body, statement, signer)
            self._attestations[body.id] = statement.digest, index
        return Reply(receipt=dict(self._trust.recovery_log.receipt(index)))

    def _log(self, body: Attestation, statement: Statement, signer: str) -> int:
        for each in body.records:
            stored = self._records.get(each.id)
            if stored is None or stored.escrow.principal != body.principal:
                raise NotFound(f"records: {body.principal} has no record {each.id}")
        leaf = AttestationLeaf(
            time=self._trust.now,
            id=body.id,
            digest=statement.digest.hex(),
            principal=body.principal,
            key=signer,
            matching=[each.id for each in body.records if each.matches],
            stale=[each.id for each in body.records if not each.matches],
        )
        self._attested |= {each.id: (each.matches, self._trust.now) for each in body.records}
        return self._trust.recovery_log.append(leaf.to_bytes())

    # ---- what a listing says ----

    def listed(self, stored: StoredRecord) -> ListedRecord:
        """Return what a listing says of a record."""
        look = self._looks.get(stored.log_index)
        finding = look.finding(stored) if look else None
        attested = self._attested.get(stored.record.id)
        state = self._state(stored, look, finding, attested)
        replace_by = None
        if stored.is_with_others and stored.disclosure is not None and state is not RecordState.REPLACED:
            days = self._trust.roster.body.policy.replace_days
            replace_by = stored.disclosure.released_at + days * _DAY_SECONDS
        return ListedRecord(
            **description(stored.record),
            supersedes=stored.record.supersedes,
            issued_at=stored.escrow.issued_at,
            stored_at=stored.stored_at,
            statement=stored.escrow.id,
            log_index=stored.log_index,
            state=state,
            proof=look.index if look else None,
            proven_at=look.leaf.time if look and finding is None else None,
            code=finding.code if finding else None,
            attested_at=attested[1] if attested else None,
            disclosure=stored.disclosure,
            replace_by=replace_by,
        )

    def _state(
        self,
        stored: StoredRecord,
        look: _Look | None,
        finding: Unprovable | None,
        attested: tuple[bool, int] | None,
    ) -> RecordState:
        if self._is_replaced(stored):
            return RecordState.REPLACED
        if finding is not None:
            return RecordState.UNPROVABLE
        if attested is not None and not attested[0]:
            return RecordState.STALE
        if stored.is_with_others:
            return RecordState.DISCLOSED
        return RecordState.STORED if look is None else RecordState.PROVEN

    def _is_replaced(self, stored: StoredRecord) -> bool:
        return any(
            stored.record.id in each.record.supersedes
            and each.escrow.principal == stored.escrow.principal
            and (look := self._looks.get(each.log_index)) is not None
            and look.finding(each) is None
            for each in self._records.values()
        )

    def proofs(self, records: Sequence[ListedRecord]) -> list[ListedProof]:
        """Return the proof leaves that these records name, with their paths to the newest root."""
        return self.paths({each.proof for each in records if each.proof is not None})

    def paths(self, indexes: Collection[int]) -> list[ListedProof]:
        """Return leaves of the recovery log with their paths to its newest root."""
        log = self._trust.recovery_log
        return [
            ListedProof(index=index, leaf=log.leaves[index], hashes=log.inclusion(index))
            for index in sorted(indexes)
        ]


def description(record: Record) -> dict[str, Any]:
    """Return what is said about a record apart from its blob."""
    return record.model_dump(include=set(RecordDescription.model_fields))
