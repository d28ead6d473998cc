"""Getting keys back: a signed request with a one-time key, and a release that proves itself (SPEC section 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

from strongroom.blobs import ReleaseContext, check_fingerprint, open_material
from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import FingerprintMismatch, ReplyInvalid
from strongroom.leaves import ReleaseLeaf
from strongroom.limits import HISTORY_RECORDS_MAX, REQUEST_LIFE_SECONDS_MAX
from strongroom.messages import (
    HistoryEntry,
    Release,
    ReleasedRecord,
    Request,
    RequesterKind,
    new_id,
    parse_body,
    validated,
)
from strongroom.statements import Statement
from strongroom_agent.home import Home
from strongroom_agent.patience import Deadline
from strongroom_agent.proofs import Proven, Question
from strongroom_agent.session import Session
from strongroom_agent.spool import Spool


@dataclass(frozen=True, slots=True)
class RecoveredKey:
    """A key that came back and is the one its owner signed for."""

    material: Secret
    record: ReleasedRecord


@dataclass(frozen=True, slots=True)
class Recovery:
    """A release, verified up to the root key.

    keys: in the order of the release. history: every record of the name asked for, newest first; empty when asked
    by id. missing: ids of records of that name that this home holds receipts for and the history does not have.
    request_id, log_index, tree_size: where the release is on record.
    """

    keys: tuple[RecoveredKey, ...]
    history: tuple[HistoryEntry, ...]
    missing: tuple[str, ...]
    request_id: str
    log_index: int
    tree_size: int


class Inquiry:
    """One request for keys; sending it again gives the same release, because id and bytes stay the same."""

    def __init__(
        self,
        home: Home,
        key: SigningKey,
        *,
        authority: str,
        principal: str,
        name: str | None,
        records: Sequence[str] | None,
        reason: str,
        now: int,
    ) -> None:
        """Make the one-time key and sign the request; raises MalformedStatement or LimitExceeded for its fields."""
        self._home = home
        self._one_time_key = PrivateSealingKey.generate(Suite.X_WING)
        self.request = validated(
            {
                "authority": authority,
                "id": new_id(),
                "issued_at": now,
                "expires_at": now + REQUEST_LIFE_SECONDS_MAX,
                "requester": home.config.name,
                "requester_kind": RequesterKind(home.config.role.value),
                "principal": principal,
                "records": None if records is None else list(records),
                "name": name,
                "reason": reason,
                "recipient_suite": self._one_time_key.suite,
                "recipient_key": self._one_time_key.public_key,
            },
            Request,
        )
        self._statement = Statement.sign(Request.TYPE, self.request.to_bytes(), key)
        self._question = Question("recovery", self.request.id, self._statement.digest)

    async def make(self, session: Session, deadline: Deadline) -> Recovery:
        """Send the request over this link, verify the release and open its keys.

        Raises Rejected; ReplyInvalid, CheckpointInvalid,
        ProofInvalid, LogForked, BlobInvalid or FingerprintMismatch for an answer not to be believed; RosterInvalid,
        Expired; BrokerUnavailable, Unroutable or NoAnswer when it is worth making again.
        """
        answer = await session.ask(
            "recovery",
            self._question,
            self._statement.envelope(),
            deadline=deadline,
            held=session.state.checkpoint("recovery"),
            expiration_seconds=max(1, self.request.expires_at - session.now),
        )
        statement, release = session.signed_answer(answer, Release)
        self._check_release(release)
        proven = session.proven(answer)
        self._check_leaf(proven, statement)
        session.state.keep_checkpoint(proven.checkpoint, session.now)
        keys = tuple(self._open(record) for record in release.records)
        spool = Spool(session.state)
        for recovered in keys:
            _check_against_own(recovered.record, spool)
        return Recovery(
            keys=keys,
            history=tuple(release.history),
            missing=self._missing(release, spool),
            request_id=self.request.id,
            log_index=proven.receipt.index,
            tree_size=proven.receipt.tree_size,
        )

    def _check_release(self, release: Release) -> None:
        if (release.request, release.request_digest) != (self.request.id, self._statement.digest.hex()):
            raise ReplyInvalid("reply: a release that answers something else")
        if any(record.principal != self.request.principal for record in release.records):
            raise ReplyInvalid("reply: a release of somebody else's records")
        ids = [record.id for record in release.records]
        if self.request.records is not None and sorted(ids) != sorted(self.request.records):
            raise ReplyInvalid("reply: a release of other records than were asked for")
        if self.request.name is not None and (
            [record.name for record in release.records] != [self.request.name]
            or not release.history
            or release.history[0].id != ids[0]
        ):
            raise ReplyInvalid("reply: a release that is not of the newest record of the name asked for")

    def _check_leaf(self, proven: Proven, statement: Statement) -> None:
        leaf = proven.leaf
        if not isinstance(leaf, ReleaseLeaf) or leaf != ReleaseLeaf(
            time=leaf.time,
            id=self.request.id,
            digest=self._statement.digest.hex(),
            release=statement.digest.hex(),
            records=[record.id for record in parse_body(statement, Release).records],
        ):
            raise ReplyInvalid("reply: a receipt for something else")

    def _open(self, record: ReleasedRecord) -> RecoveredKey:
        context = ReleaseContext(
            authority=self.request.authority,
            request_digest=self._statement.digest,
            principal=record.principal,
            record_id=record.id,
            recipient_key_id=self._one_time_key.kid,
        )
        opened = open_material(record.blob, context, self._one_time_key)
        check_fingerprint(opened, self.request.authority, record.principal, record.id, record.fingerprint)
        return RecoveredKey(opened.material, record)

    def _missing(self, release: Release, spool: Spool) -> tuple[str, ...]:
        if self.request.name is None or self.request.principal != self._home.config.name:
            return ()
        missing = spool.stored_fingerprints(self.request.name).keys() - {entry.id for entry in release.history}
        if len(release.history) >= HISTORY_RECORDS_MAX:
            # The history was cut off; what is older than its last entry may be there. Ids rise with time.
            missing = {id_ for id_ in missing if id_ > release.history[-1].id}
        return tuple(sorted(missing))


def _check_against_own(record: ReleasedRecord, spool: Spool) -> None:
    """Compare with what was signed here; a host that lost its home has nothing to compare with."""
    own = spool.fingerprint(record.id)
    if own is not None and own != record.fingerprint:
        raise FingerprintMismatch(
            f"record {record.id}: the authority names another fingerprint than was signed here"
        )
