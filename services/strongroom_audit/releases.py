"""Whether a release was due: an independent reading of SPEC 5.1, 5.2, 5.6, 5.9, 5.10 and 5.17. Pure.

The recovery worker decides by its own policy module; this one knows the specification and the log alone.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from strongroom.approvals import Subject, agreed
from strongroom.crypto.signing import key_id
from strongroom.fields import Capacity
from strongroom.leaves import RefusalLeaf, ReleaseLeaf, RequestLeaf
from strongroom.limits import APPROVED_REQUEST_LIFE_SECONDS_MAX, CLOCK_SKEW_SECONDS, REQUEST_LIFE_SECONDS_MAX
from strongroom.mandates import Policy, Role
from strongroom.messages import Request
from strongroom.roster import Roster
from strongroom.statements import Statement
from strongroom_audit.findings import Finding, error, warning
from strongroom_audit.standings import Standings

HOUR_SECONDS: Final = 3_600
DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class Approved:
    """An approval of the log: index of its leaf, id, digest in hex, and the statement if it is not lost."""

    index: int
    id: str
    digest: str
    statement: Statement | None


@dataclass(slots=True)
class Case:
    """A request of the log and what became of it.

    request: None where its statement is lost or does not hold. policy: of the roster in force at its leaf.
    end: `released`, `refused` or `denied`, None while it waits; `end_index` of the leaf that says so.
    """

    id: str
    digest: str
    requester: str
    capacity: Capacity
    key: str
    principal: str
    asked_at: int
    index: int
    request: Request | None
    policy: Policy | None
    approvals: list[Approved] = field(default_factory=list)
    end: str | None = None
    end_index: int | None = None
    released: ReleaseLeaf | None = None

    @property
    def who(self) -> tuple[Capacity, str]:
        """Who asked: a principal and an officer of one name are two."""
        return self.capacity, self.requester

    @property
    def subject(self) -> Subject:
        """What approvals of it are judged against."""
        return Subject(self.id, bytes.fromhex(self.digest), self.requester, self.capacity, self.key)


def needed(case: Case, policy: Policy) -> int:
    """Return how many officers have to agree; nothing is unwrapped without one, whatever policy says."""
    is_officer = case.capacity is Capacity.OFFICER
    asked = policy.officer_recovery_approvals if is_officer else policy.self_recovery_approvals
    return asked or int(case.request is not None and case.request.unwrap)


def delay_seconds(capacity: Capacity, policy: Policy) -> int:
    """Return how long after the request's leaf nothing is released."""
    return policy.officer_recovery_delay_hours * HOUR_SECONDS if capacity is Capacity.OFFICER else 0


def is_in_force(case: Case, roster: Roster, standings: Standings, *, role: Role | None = None) -> bool:
    """Say whether the key that asked speaks for its owner now; an officer's only with the role, if one is given."""
    if case.capacity is Capacity.PRINCIPAL:
        return standings.speaking(case.requester, case.key) is not None
    return any(
        officer.name == case.requester
        and key_id(officer.public_key) == case.key
        and (role is None or role in officer.roles)
        for officer in roster.body.officers
    )


def judge(index: int, leaf: ReleaseLeaf, case: Case, roster: Roster, standings: Standings) -> Iterator[Finding]:
    """Give what is wrong with a release at this place of the log, by the roster in force there."""

    def wrong(code: str, words: str) -> Finding:
        return error("recovery", index, code, words, id=leaf.id)

    if case.digest != leaf.digest:
        yield wrong("release_wrong", f"answers another request than leaf {case.index} names")
    if case.end in ("refused", "denied"):
        yield wrong(
            f"release_after_{'denial' if case.end == 'denied' else 'refusal'}",
            f"leaf {case.end_index} {case.end} it",
        )
    if not is_in_force(case, roster, standings, role=Role.RECOVER):
        yield wrong("requester_not_in_force", f"the key of {case.requester} that asked was not in force any more")
    if case.capacity is Capacity.PRINCIPAL and case.requester != case.principal:
        yield wrong("release_wrong", f"{case.requester} was given records of {case.principal}")
    if case.released is not None:
        yield from _again(index, leaf, case)
    else:
        yield from _approvals(index, leaf, case, roster)
        earliest = case.asked_at + delay_seconds(case.capacity, roster.body.policy)
        if leaf.time < earliest:
            yield wrong("release_before_delay", f"released {earliest - leaf.time} s before the delay was over")
    if case.request is None:
        yield wrong(
            "request_unproven", "the request that it answers is lost or does not hold: its records cannot be judged"
        )
        return
    yield from _request(index, leaf, case, case.request)


def _again(index: int, leaf: ReleaseLeaf, case: Case) -> Iterator[Finding]:
    """A release that was lost before it was handed out is made again, the same (SPEC 5.2)."""
    former = case.released
    if former is not None and (former.records, former.approvals) == (leaf.records, leaf.approvals):
        words = f"released a second time, the same records, after leaf {case.end_index}"
        yield warning("recovery", index, "release_repeated", words, id=leaf.id)
    else:
        words = f"released a second time, and not the same as in leaf {case.end_index}"
        yield error("recovery", index, "release_twice", words, id=leaf.id)


def _approvals(index: int, leaf: ReleaseLeaf, case: Case, roster: Roster) -> Iterator[Finding]:
    known = {each.digest: each for each in case.approvals}
    statements: list[Statement] = []
    for digest in dict.fromkeys(leaf.approvals):
        approved = known.get(digest)
        if approved is None or approved.statement is None:
            why = (
                "no leaf before names such an approval"
                if approved is None
                else f"the statement of leaf {approved.index} is lost"
            )
            words = f"counts the approval with digest {digest}, and {why}"
            yield error("recovery", index, "approval_unknown", words, id=leaf.id)
            continue
        counting, doubts = agreed([*statements, approved.statement], case.subject, roster, leaf.time)
        if len(counting) == len(statements) + 1:
            statements.append(approved.statement)
        else:
            why = doubts[-1].message if doubts else "it does not count"
            words = f"counts the approval {approved.id} of leaf {approved.index}: {why}"
            yield error("recovery", index, "approval_invalid", words, id=leaf.id)
    asked = needed(case, roster.body.policy)
    if len(statements) < asked:
        words = f"{asked} approvals were needed, {len(statements)} counted"
        yield error("recovery", index, "release_without_approvals", words, id=leaf.id)


def _request(index: int, leaf: ReleaseLeaf, case: Case, request: Request) -> Iterator[Finding]:
    def wrong(code: str, words: str) -> Finding:
        return error("recovery", index, code, words, id=leaf.id)

    if leaf.time > request.expires_at + CLOCK_SKEW_SECONDS:
        yield wrong("release_expired", f"released {leaf.time - request.expires_at} s after the request expired")
    if request.issued_at > leaf.time + CLOCK_SKEW_SECONDS:
        yield warning(
            "recovery",
            index,
            "clock",
            f"released {request.issued_at - leaf.time} s before it was asked",
            id=leaf.id,
        )
    if case.policy is not None:
        waits = needed(case, case.policy) or delay_seconds(case.capacity, case.policy)
        life_max = APPROVED_REQUEST_LIFE_SECONDS_MAX if waits else REQUEST_LIFE_SECONDS_MAX
        life = request.expires_at - request.issued_at
        if not 0 < life <= life_max:
            yield wrong("release_expired", f"the request's life was {life} s, the limit is {life_max} s")
    if request.records is not None and list(leaf.records) != list(request.records):
        other = sorted(set(leaf.records) ^ set(request.records))
        yield wrong(
            "release_wrong", f"not the records that were asked for: {', '.join(other[:4]) or 'another order'}"
        )
    if request.name is not None and len(leaf.records) != 1:
        yield wrong("release_wrong", f"{len(leaf.records)} records were released by one name")


@dataclass(slots=True)
class Rates:
    """Counts what each requester asked for and was given (SPEC 5.9)."""

    _asked: dict[tuple[Capacity, str], deque[int]] = field(default_factory=dict)
    _given: dict[tuple[Capacity, str], deque[tuple[int, int]]] = field(default_factory=dict)

    def asked(
        self, index: int, who: tuple[Capacity, str], leaf: RequestLeaf | RefusalLeaf, policy: Policy | None
    ) -> Iterator[Finding]:
        """Take a request; give a warning for one beyond the rate."""
        time = leaf.time
        times = self._asked.setdefault(who, deque())
        while times and times[0] <= time - HOUR_SECONDS:
            times.popleft()
        lately = sum(time - HOUR_SECONDS < each <= time for each in times)
        if policy is not None and lately >= policy.requests_per_hour:
            words = f"{lately + 1} requests of {who[1]} within an hour, the limit is {policy.requests_per_hour}"
            yield warning("recovery", index, "rate", words, id=leaf.id)
        times.append(time)

    def given(self, index: int, case: Case, leaf: ReleaseLeaf, policy: Policy) -> Iterator[Finding]:
        """Take a first release; give a warning for one beyond the rate."""
        records, time = len(leaf.records), leaf.time
        entries = self._given.setdefault(case.who, deque())
        while entries and entries[0][0] <= time - DAY_SECONDS:
            entries.popleft()
        lately = sum(count for at, count in entries if time - DAY_SECONDS < at <= time)
        limit = policy.released_records_per_day
        if lately + records > limit:
            words = f"{lately + records} records given to {case.requester} within a day, the limit is {limit}"
            yield warning("recovery", index, "rate", words, id=leaf.id)
        entries.append((time, records))
