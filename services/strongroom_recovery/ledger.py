"""What became of every request, and who was given what: read from the recovery log and nothing else. Pure.

A database row could be deleted to undo a denial, or added to feign an approval; a leaf under a signed checkpoint
can not. So requests that wait, approvals, denials, answers, disclosures and rates are folded from the leaves.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from strongroom.approvals import Subject
from strongroom.errors import LogForked, PermanentError, RateLimited, StatementConflict
from strongroom.fields import Capacity
from strongroom.leaves import (
    ApprovalLeaf,
    AttestationLeaf,
    DenialLeaf,
    EnrolmentLeaf,
    InvitationLeaf,
    ProofLeaf,
    RefusalLeaf,
    ReleaseLeaf,
    RequestLeaf,
    ResealLeaf,
    RetirementLeaf,
    RevocationLeaf,
    parse_leaf,
)
from strongroom.limits import APPROVED_REQUEST_LIFE_SECONDS_MAX, CLOCK_SKEW_SECONDS, INVITATION_LIFE_SECONDS_MAX
from strongroom.messages import RequestState
from strongroom_recovery.proofs import Proofs
from strongroom_recovery.reseals import Reseals

HOUR_SECONDS: Final = 3_600
DAY_SECONDS: Final = 86_400

_Mandate: TypeAlias = ApprovalLeaf | DenialLeaf | RevocationLeaf | EnrolmentLeaf | AttestationLeaf
Who: TypeAlias = tuple[Capacity, str]
"""Somebody who asks: a principal and an officer of the same name are two."""


@dataclass(frozen=True, slots=True)
class Logged:
    """A statement that a leaf names: statement id, digest (32 bytes), the leaf's index and time.

    key_id: of the officer who signed an approval, else empty.
    """

    id: str
    digest: bytes
    index: int
    time: int
    key_id: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended, and the leaf that says so.

    code: of a refusal. statement: the denial. release: digest of the release statement (32 bytes). approvals: of
    those that counted, their digests in hex. records: ids of those released.
    """

    state: RequestState
    index: int
    time: int
    code: str | None = None
    statement: Logged | None = None
    release: bytes | None = None
    approvals: tuple[str, ...] = ()
    records: tuple[str, ...] = ()


@dataclass(slots=True)
class Case:
    """One request, as far as the log tells; `outcome` is None while it waits.

    key_id: of its signer. asked_at, index: of its leaf. approvals: all that were ever taken, in order.
    """

    id: str
    digest: bytes
    requester: str
    capacity: Capacity
    key_id: str
    principal: str
    asked_at: int
    index: int
    approvals: list[Logged] = field(default_factory=list)
    outcome: Outcome | None = None

    @property
    def who(self) -> Who:
        """Who asked."""
        return self.capacity, self.requester

    @property
    def is_own(self) -> bool:
        """Whether the owner of the records asked for them."""
        return self.who == (Capacity.PRINCIPAL, self.principal)

    @property
    def subject(self) -> Subject:
        """What approvals of it are judged against."""
        return Subject(self.id, self.digest, self.requester, self.capacity, self.key_id)


@dataclass(frozen=True, slots=True)
class Attested:
    """What its owner last said of a record, when (seconds): whether it holds the key that is in use."""

    matches: bool
    time: int


@dataclass(slots=True)
class Ledger:
    """Folds the leaves of the recovery log, in order; they must be those under a verified checkpoint.

    proofs: what the prover has found. reseals: what was sealed again, and which sealing keys are retired.
    """

    size: int = 0
    proofs: Proofs = field(default_factory=Proofs)
    reseals: Reseals = field(default_factory=Reseals)
    _cases: dict[str, Case] = field(default_factory=dict)
    _waiting: dict[str, Case] = field(default_factory=dict)
    _disclosed: dict[str, Case] = field(default_factory=dict)
    _mandates: dict[str, Logged] = field(default_factory=dict)
    _invitations: dict[str, Logged] = field(default_factory=dict)
    _asked: dict[Who, deque[int]] = field(default_factory=dict)
    _given: dict[Who, deque[tuple[int, int]]] = field(default_factory=dict)
    _limited_at: dict[Who, int] = field(default_factory=dict)
    _attested: dict[tuple[str, str], Attested] = field(default_factory=dict)
    _attested_at: dict[str, int] = field(default_factory=dict)
    _stale: dict[tuple[str, str], int] = field(default_factory=dict)

    # ---- folding the log ----

    def apply(self, leaf: bytes) -> None:
        """Take the next leaf into account. Raises LogForked for one that makes no sense."""
        try:
            entry = parse_leaf(leaf)
        except PermanentError as error:
            raise LogForked(f"recovery log: leaf {self.size}: {error.message}") from None
        take = _TAKERS.get(type(entry))
        if take is not None:
            take(self, entry)
        self.size += 1

    def _take_approval(self, entry: ApprovalLeaf) -> None:
        logged = self._take_mandate(entry)
        self._case(entry.request).approvals.append(logged)

    def _take_denial(self, entry: DenialLeaf) -> None:
        logged = self._take_mandate(entry)
        outcome = Outcome(RequestState.DENIED, self.size, entry.time, code="denied", statement=logged)
        self._end(entry.request, outcome)

    def _take_invitation(self, entry: InvitationLeaf) -> None:
        self._invitations[entry.id] = Logged(entry.id, bytes.fromhex(entry.digest), self.size, entry.time)

    def _take_enrolment(self, entry: EnrolmentLeaf) -> None:
        self._take_mandate(entry)
        self._invitations.pop(entry.invitation, None)

    def _take_proof(self, entry: ProofLeaf) -> None:
        self.proofs.apply(entry, self.size)

    def _take_reseal(self, entry: ResealLeaf) -> None:
        self.reseals.apply(entry)
        self.proofs.reseal(entry, self.size)

    def _take_retirement(self, entry: RetirementLeaf) -> None:
        self.reseals.retire(entry)

    def _take_request(self, entry: RequestLeaf) -> None:
        case = Case(
            id=entry.id,
            digest=bytes.fromhex(entry.digest),
            requester=entry.requester,
            capacity=entry.requester_kind,
            key_id=entry.key,
            principal=entry.principal,
            asked_at=entry.time,
            index=self.size,
        )
        if entry.id in self._cases:
            raise LogForked(
                f"recovery log: leaf {self.size} asks again what leaf {self._cases[entry.id].index} asked"
            )
        self._cases[entry.id] = self._waiting[entry.id] = case
        self._count_asked(case.who, entry.time)

    def _take_attestation(self, entry: AttestationLeaf) -> None:
        self._take_mandate(entry)
        # Under the owner's name: what somebody says of another's records means nothing.
        for ids, matches in ((entry.matching, True), (entry.stale, False)):
            for id_ in ids:
                self._attested[entry.principal, id_] = Attested(matches, entry.time)
                if matches:
                    self._stale.pop((entry.principal, id_), None)
                else:
                    self._stale[entry.principal, id_] = entry.time
        self._attested_at[entry.principal] = entry.time

    def _take_mandate(self, entry: _Mandate) -> Logged:
        signer = entry.key if isinstance(entry, ApprovalLeaf) else ""
        logged = Logged(entry.id, bytes.fromhex(entry.digest), self.size, entry.time, signer)
        self._mandates[entry.id] = logged
        return logged

    def _take_release(self, entry: ReleaseLeaf) -> None:
        case = self._case(entry.id)
        if case.digest.hex() != entry.digest:
            raise LogForked(f"recovery log: leaf {self.size} answers another request than leaf {case.index} names")
        outcome = Outcome(
            RequestState.RELEASED,
            self.size,
            entry.time,
            release=bytes.fromhex(entry.release),
            approvals=tuple(entry.approvals),
            records=tuple(entry.records),
        )
        is_first = case.outcome is None
        self._end(entry.id, outcome)
        for record in entry.records:
            known = self._disclosed.get(record)
            # Having got one's own key back does not hide that somebody else has it.
            if known is None or known.is_own or not case.is_own:
                self._disclosed[record] = case
        if not is_first:
            return  # the one before was lost before it was handed out, and was counted
        given = self._given.setdefault(case.who, deque())
        while given and given[0][0] <= entry.time - DAY_SECONDS:
            given.popleft()
        given.append((entry.time, len(entry.records)))

    def _take_refusal(self, entry: RefusalLeaf) -> None:
        case = self._cases.get(entry.id)
        if case is not None and case.digest.hex() == entry.digest:
            self._end(entry.id, Outcome(RequestState.REFUSED, self.size, entry.time, code=entry.code))
            return
        # It stands alone: its id is another request's, or it came too soon and may come again.
        who = entry.requester_kind, entry.requester
        if entry.code == RateLimited.code:
            self._limited_at[who] = entry.time
        elif entry.code == StatementConflict.code:
            self._count_asked(who, entry.time)
        else:
            raise LogForked(f"recovery log: leaf {self.size} refuses what nobody asked")

    def _count_asked(self, who: Who, time: int) -> None:
        asked = self._asked.setdefault(who, deque())
        while asked and asked[0] <= time - HOUR_SECONDS:
            asked.popleft()
        asked.append(time)

    def _case(self, request_id: str) -> Case:
        case = self._cases.get(request_id)
        if case is None:
            raise LogForked(f"recovery log: leaf {self.size} is about a request that no leaf before it names")
        return case

    def _end(self, request_id: str, outcome: Outcome) -> None:
        case = self._case(request_id)
        # Only a release may follow an end, and only its own: the first one was lost before it was handed out.
        again = case.outcome is not None and case.outcome.state is outcome.state is RequestState.RELEASED
        if case.outcome is not None and not again:
            raise LogForked(f"recovery log: leaf {self.size} decides what leaf {case.outcome.index} has decided")
        case.outcome = outcome
        self._waiting.pop(request_id, None)

    # ---- requests ----

    def case(self, request_id: str) -> Case | None:
        """Return the request of this id, if the log names one."""
        return self._cases.get(request_id)

    def waiting(self, now: int, *, principal: str | None = None, after: str | None = None) -> Iterator[Case]:
        """Give requests that wait, newest first, unless they have lived longer than any request may.

        Arguments: for one principal's records or anybody's; `after` is the id of the request that came before the
        first; unknown, none follow.
        """
        oldest = now - APPROVED_REQUEST_LIFE_SECONDS_MAX - 2 * CLOCK_SKEW_SECONDS
        found = self._newest_first(self._waiting, principal, after)
        return (case for case in found if case.asked_at >= oldest)

    def cases(self, *, principal: str | None = None, after: str | None = None) -> Iterator[Case]:
        """Give all requests, newest first; arguments as for `waiting`."""
        return self._newest_first(self._cases, principal, after)

    def _newest_first(self, cases: dict[str, Case], principal: str | None, after: str | None) -> Iterator[Case]:
        before = self.size
        if after is not None:
            before = self._cases[after].index if after in self._cases else 0
        found = reversed(list(cases.values()))
        return (case for case in found if case.index < before and principal in (None, case.principal))

    def disclosure(self, record_id: str) -> Case | None:
        """Return the newest request by which a record was released to another than its owner, else to the owner."""
        return self._disclosed.get(record_id)

    def attested(self, principal: str, record_id: str) -> Attested | None:
        """Return what the principal last said of a record of its own, if it ever did."""
        return self._attested.get((principal, record_id))

    def attested_at(self, principal: str) -> int | None:
        """Return when a principal last compared any of its keys."""
        return self._attested_at.get(principal)

    def stale(self) -> Iterator[tuple[str, str, int]]:
        """Give (principal, record id, since) of all records whose owner last said that they are stale."""
        return ((*of, since) for of, since in self._stale.items())

    def disclosures(self) -> Iterator[tuple[str, Case]]:
        """Give every record that was released, by id, with its `disclosure`."""
        return iter(self._disclosed.items())

    def mandate(self, statement_id: str) -> Logged | None:
        """Return the enrolment, approval, denial, revocation or attestation of this id."""
        return self._mandates.get(statement_id)

    def invitation(self, invitation_id: str) -> Logged | None:
        """Return where the newest form of a partly signed invitation is, until it is used."""
        return self._invitations.get(invitation_id)

    def invitations(self, now: int) -> list[Logged]:
        """Return the invitations that collect signatures, newest first, unless used or too old for any to live."""
        oldest = now - INVITATION_LIFE_SECONDS_MAX - 2 * CLOCK_SKEW_SECONDS
        found = (logged for logged in self._invitations.values() if logged.time >= oldest)
        return sorted(found, key=lambda logged: -logged.index)

    # ---- the escrow log ----

    @property
    def reach(self) -> int:
        """How many leaves the escrow log must have, by what was looked at, sealed again and retired."""
        return max(self.proofs.reach, self.reseals.reach)

    # ---- rates ----

    def next_request_at(self, who: Who, per_hour: int, now: int) -> int | None:
        """Return when somebody may ask again who asked `per_hour` times in the last hour; None for now."""
        asked = [time for time in self._asked.get(who, ()) if time > now - HOUR_SECONDS]
        return None if len(asked) < per_hour else asked[-per_hour] + HOUR_SECONDS

    def next_release_at(self, who: Who, count: int, per_day: int, now: int) -> int | None:
        """Return when somebody may be given `count` (at most `per_day`) more records; None for now."""
        given = [entry for entry in self._given.get(who, ()) if entry[0] > now - DAY_SECONDS]
        room = per_day - sum(records for _, records in given)
        for time, records in given:
            if room >= count:
                return None
            room += records
            if room >= count:
                return time + DAY_SECONDS
        return None

    def was_limited(self, who: Who, now: int) -> bool:
        """Say whether the log names, within the last hour, a request of theirs that came too soon."""
        return self._limited_at.get(who, now - HOUR_SECONDS) > now - HOUR_SECONDS


_TAKERS: Final[dict[type, Callable[[Ledger, Any], object]]] = {
    RequestLeaf: Ledger._take_request,  # noqa: SLF001  what each kind of leaf leads to
    ApprovalLeaf: Ledger._take_approval,  # noqa: SLF001
    DenialLeaf: Ledger._take_denial,  # noqa: SLF001
    RevocationLeaf: Ledger._take_mandate,  # noqa: SLF001
    ReleaseLeaf: Ledger._take_release,  # noqa: SLF001
    RefusalLeaf: Ledger._take_refusal,  # noqa: SLF001
    InvitationLeaf: Ledger._take_invitation,  # noqa: SLF001
    EnrolmentLeaf: Ledger._take_enrolment,  # noqa: SLF001
    ProofLeaf: Ledger._take_proof,  # noqa: SLF001
    AttestationLeaf: Ledger._take_attestation,  # noqa: SLF001
    ResealLeaf: Ledger._take_reseal,  # noqa: SLF001
    RetirementLeaf: Ledger._take_retirement,  # noqa: SLF001
}
