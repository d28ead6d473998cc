"""Getting keys back: a signed request with a one-time key, and a release that proves itself (SPEC section 5)."""

from dataclasses import dataclass, field

from strongroom.blobs import ReleaseContext, check_fingerprint, open_material, open_unwrapped
from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import (
    ApprovalRequired,
    FingerprintMismatch,
    LimitExceeded,
    ReplyInvalid,
)
from strongroom.fields import Capacity, new_id, validated
from strongroom.limits import (
    APPROVED_REQUEST_LIFE_SECONDS_MAX,
    HISTORY_RECORDS_MAX,
    REQUEST_LIFE_SECONDS_MAX,
)
from strongroom.mandates import Policy
from strongroom.messages import HistoryEntry, Release, ReleasedRecord, Request
from strongroom.roster import Roster
from strongroom.statements import Statement
from strongroom.wrapped import check
from strongroom_agent.asking import Sent
from strongroom_agent.home import Home, Role
from strongroom_agent.kept_requests import KeptRequests, Selection, SignedRequest
from strongroom_agent.patience import Deadline
from strongroom_agent.session import Answer, Session
from strongroom_agent.spool import Refusal, Spool
from strongroom_agent.waiting import Asked, Unreleased, Watch


@dataclass(frozen=True, slots=True)
class RecoveredKey:
    """A key that came back and is the one its owner signed for.

    unwrapped: what was inside the other program's wrapping, where that was asked for: a session key, or the content
    of a message. Nobody has signed for it, and with PKCS #1 v1.5 a blob that was damaged before it was escrowed
    gives bytes like any other; whether it is right shows when it opens what it should.
    """

    material: Secret
    record: ReleasedRecord
    unwrapped: Secret | None = None


@dataclass(frozen=True, slots=True)
class Recovery:
    """A release, verified up to the root key.

    keys: in the order of the release. history: every record of the name asked for, newest first; empty when asked
    by id. missing: ids of records of that name that this home holds receipts for and the history does not have.
    request_id, digest (hex), log_index, tree_size: the request, and where the release is on record.
    """

    keys: tuple[RecoveredKey, ...]
    history: tuple[HistoryEntry, ...]
    missing: tuple[str, ...]
    request_id: str
    digest: str
    log_index: int
    tree_size: int
    kept: KeptRequests | None = field(default=None, repr=False, compare=False)

    def settle(self) -> None:
        """Remove the request and its one-time key from the home; until then, asking again gives this release again.

        For the caller, once the keys are where they shall stay. Raises ConfigurationInvalid, TransientError.
        """
        if self.kept is not None:
            self.kept.discard(self.request_id)


def may_wait(policy: Policy, role: Role, *, unwrap: bool) -> bool:
    """Say whether a request by somebody of this role waits for approvals, or for time to pass (SPEC 5.1, 5.17)."""
    if unwrap:
        return True
    if role is Role.OFFICER:
        return bool(policy.officer_recovery_approvals or policy.officer_recovery_delay_hours)
    return bool(policy.self_recovery_approvals)


class Inquiry:
    """Asks for keys by one request; sending it again gives the same answer, because id and bytes stay the same.

    Where policy lets it wait, the request and its one-time key are on disk before they are sent.
    """

    def __init__(
        self,
        home: Home,
        key: SigningKey,
        selection: Selection,
        *,
        reason: str,
        kept: KeptRequests,
        anew: bool = False,
        watch: Watch = lambda _asked, _answer: None,
    ) -> None:
        """Ask for `selection`; with `anew`, by a new request even if one is kept, which is dropped then."""
        self._home = home
        self._key = key
        self._selection = selection
        self._reason = reason
        self._kept = kept
        self._anew = anew
        self._watch = watch
        self._signed: SignedRequest | None = None
        self._was_kept = False

    def prepare(self, roster: Roster, now: int) -> None:
        """Take up the kept request, or sign one. Call it once, with the home's lock held.

        Raises MalformedStatement or LimitExceeded for what is asked; ConfigurationInvalid, KeyFileInvalid,
        StateCorrupt or TransientError for what is kept.
        """
        self._kept.sweep(now)
        found = None if self._anew else self._kept.find(self._selection)
        if found is None:
            self._sign(roster, now)
            return
        self._signed, self._was_kept = found, True
        self._watch(self.asked, None)

    @property
    def asked(self) -> Asked:
        """The request that is sent now."""
        request, digest = self._request, self._statement.digest.hex()
        return Asked(
            id=request.id,
            digest=digest,
            recipient_key=self._one_time_key.kid,
            principal=request.principal,
            reason=request.reason,
            issued_at=request.issued_at,
            expires_at=request.expires_at,
            is_kept=self._is_long,
            was_kept=self._was_kept,
            unwrap=request.unwrap,
        )

    async def make(self, session: Session, deadline: Deadline) -> Recovery:
        """Send the request over this link, verify the release and open its keys.

        A request whose life does not suit the roster that comes with the answer is signed anew. Raises Unreleased;
        ReplyInvalid, CheckpointInvalid, ProofInvalid, LogForked, BlobInvalid or FingerprintMismatch for an answer
        not to be believed; RosterInvalid, Expired; BrokerUnavailable, Unroutable or NoAnswer when it is worth
        making again.
        """
        answer = await self._sent.ask(session, deadline)
        refusal = session.refusal(answer)
        if refusal is not None:
            self._sent.check_on_record(session, answer, refusal)
            if self._is_unsuited(refusal, session.roster):
                self._kept.discard(self._request.id)
                self._sign(session.roster, session.now)
                return await self.make(session, deadline)
            unreleased = Unreleased(refusal, self.asked)
            if not unreleased.is_open:
                self._kept.discard(self._request.id)
            raise unreleased
        return self._take(session, answer)

    def _take(self, session: Session, answer: Answer) -> Recovery:
        _, release, receipted = self._sent.released(session, answer)
        keys = tuple(self._open(record) for record in release.records)
        spool = Spool(session.state)
        for recovered in keys:
            _check_against_own(recovered.record, spool)
        return Recovery(
            keys=keys,
            history=tuple(release.history),
            missing=self._missing(release, spool),
            request_id=self._request.id,
            digest=self._statement.digest.hex(),
            log_index=receipted.receipt.index,
            tree_size=receipted.receipt.tree_size,
            kept=self._kept,
        )

    # ---- the request ----

    @property
    def _ready(self) -> SignedRequest:
        if self._signed is None:
            raise RuntimeError("an inquiry is prepared before it is made")
        return self._signed

    @property
    def _sent(self) -> Sent:
        return Sent(self._request, self._statement, self._home.config.key_id)

    @property
    def _request(self) -> Request:
        return self._ready.request

    @property
    def _statement(self) -> Statement:
        return self._ready.statement

    @property
    def _one_time_key(self) -> PrivateSealingKey:
        return self._ready.one_time_key

    @property
    def _is_long(self) -> bool:
        return self._request.expires_at - self._request.issued_at > REQUEST_LIFE_SECONDS_MAX

    def _is_unsuited(self, refusal: Refusal, roster: Roster) -> bool:
        if self._may_wait(roster) == self._is_long:
            return False
        return refusal.code == (LimitExceeded.code if self._is_long else ApprovalRequired.code)

    def _may_wait(self, roster: Roster) -> bool:
        return may_wait(roster.body.policy, self._home.config.role, unwrap=self._selection.unwrap)

    def _sign(self, roster: Roster, now: int) -> None:
        waits = self._may_wait(roster)
        key = PrivateSealingKey.generate(Suite.X_WING)
        request = validated(
            {
                "authority": roster.body.authority,
                "id": new_id(),
                "issued_at": now,
                "expires_at": now + (APPROVED_REQUEST_LIFE_SECONDS_MAX if waits else REQUEST_LIFE_SECONDS_MAX),
                "requester": self._home.config.name,
                "requester_kind": Capacity(self._home.config.role.value),
                "principal": self._selection.principal,
                "records": None if self._selection.records is None else list(self._selection.records),
                "name": self._selection.name,
                "reason": self._reason,
                "recipient_suite": key.suite,
                "recipient_key": key.public_key,
                "unwrap": self._selection.unwrap,
            },
            Request,
        )
        signed = SignedRequest(request, Statement.sign(Request.TYPE, request.to_bytes(), self._key), key)
        if waits:
            self._kept.keep(signed)
        self._kept.discard_others(self._selection, request.id)
        self._signed, self._was_kept = signed, False
        self._watch(self.asked, None)

    # ---- what an answer is worth ----

    def _open(self, record: ReleasedRecord) -> RecoveredKey:
        context = ReleaseContext(
            authority=self._request.authority,
            request_digest=self._statement.digest,
            principal=record.principal,
            record_id=record.id,
            recipient_key_id=self._one_time_key.kid,
        )
        opened = open_material(record.blob, context, self._one_time_key)
        check_fingerprint(opened, self._request.authority, record.principal, record.id, record.fingerprint)
        if not self._request.unwrap:
            return RecoveredKey(opened.material, record)
        if record.wrapping is None or record.unwrapped is None:
            raise ReplyInvalid("reply: a release without what is inside the wrapped keys, which was asked for")
        check(record.wrapping, opened.material)
        inside = open_unwrapped(record.unwrapped, context, self._one_time_key)
        return RecoveredKey(opened.material, record, inside)

    def _missing(self, release: Release, spool: Spool) -> tuple[str, ...]:
        if self._request.name is None or self._request.principal != self._home.config.name:
            return ()
        missing = spool.receipted(self._request.name) - {entry.id for entry in release.history}
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
