"""What the policy of the roster says of a request: may it be asked, who must agree, how soon. Pure.

State and time are arguments. Every refusal is a PermanentError whose message names the field and the limit.
"""

from strongroom.approvals import Agreed
from strongroom.crypto.sealing import seal
from strongroom.errors import (
    ApprovalRequired,
    Denied,
    KeyUnknown,
    LimitExceeded,
    MalformedStatement,
    RateLimited,
)
from strongroom.fields import Capacity
from strongroom.limits import (
    APPROVED_REQUEST_LIFE_SECONDS_MAX,
    REQUEST_LIFE_SECONDS_MAX,
)
from strongroom.mandates import Policy, Role
from strongroom.messages import Request
from strongroom.roster import Roster, check_issued, check_life, check_unexpired
from strongroom_recovery.ledger import HOUR_SECONDS, Case, Ledger, Who

# ---- may it be asked -----------------------------------------------------------------------------------


def approvals_needed(capacity: Capacity, policy: Policy, *, unwrap: bool) -> int:
    """Return how many officers must agree to a request of an officer, or of a principal for its own keys.

    `unwrap`: whether what other programs wrapped is to be opened, which at least one has to agree to (SPEC 5.17).
    """
    is_officer = capacity is Capacity.OFFICER
    needed = policy.officer_recovery_approvals if is_officer else policy.self_recovery_approvals
    return max(needed, 1) if unwrap else needed


def delay_seconds(capacity: Capacity, policy: Policy) -> int:
    """Return how long a request must have been on the record before it is answered with keys (SPEC 5.10)."""
    return policy.officer_recovery_delay_hours * HOUR_SECONDS if capacity is Capacity.OFFICER else 0


def not_before(case: Case, policy: Policy) -> int:
    """Return the earliest time, in seconds, at which a request may be answered with keys."""
    return case.asked_at + delay_seconds(case.capacity, policy)


def check_request(request: Request, roster: Roster, now: int, *, is_waiting: bool = False) -> None:
    """Decide whether a verified requester may ask this at all (SPEC 5.1); approvals and rates come after.

    Arguments: `is_waiting`, whether it is on the record already, as one that waits for approvals.

    Raises Denied for somebody else's records, OfficerUnknown for an officer without the role `recover`, Expired,
    LimitExceeded for too long a life, MalformedStatement for a recipient key that nothing can be sealed to.
    """
    if request.requester_kind is Capacity.OFFICER:
        roster.officer(request.requester, Role.RECOVER)
    elif request.principal != request.requester:
        raise Denied(
            f"principal: {request.requester} may ask for its own records only, not for {request.principal}'s"
        )
    policy = roster.body.policy
    capacity = request.requester_kind
    waits = approvals_needed(capacity, policy, unwrap=request.unwrap) or delay_seconds(capacity, policy)
    check_issued(request.issued_at, now)
    check_life(
        request.issued_at,
        request.expires_at,
        APPROVED_REQUEST_LIFE_SECONDS_MAX if waits or is_waiting else REQUEST_LIFE_SECONDS_MAX,
    )
    check_unexpired(request.expires_at, now)
    _check_recipient(request)


def _check_recipient(request: Request) -> None:
    try:
        seal(request.recipient_suite, request.recipient_key, b"", b"")
    except KeyUnknown:
        raise MalformedStatement(
            f"recipient_key: is not a public key of suite {request.recipient_suite.value}"
        ) from None


# ---- do enough agree, and is it time ----------------------------------------------------------------------


def check_agreed(case: Case, approvals: list[Agreed], policy: Policy, now: int, *, unwrap: bool) -> None:
    """Raise ApprovalRequired unless as many officers agree as must (`approvals_needed`), and the delay is over."""
    needed = approvals_needed(case.capacity, policy, unwrap=unwrap)
    earliest = not_before(case, policy)
    if len(approvals) < needed:
        who = f" ({', '.join(each.officer.name for each in approvals)})" if approvals else ""
        asks = (
            "policy asks" if needed == approvals_needed(case.capacity, policy, unwrap=False) else "unwrapping asks"
        )
        raise ApprovalRequired(
            f"approvals: {asks} for {needed}, there are {len(approvals)}{who}",
            retry_at=earliest if earliest > now else None,
        )
    if earliest > now:
        raise ApprovalRequired(
            f"delay: policy lets {delay_seconds(case.capacity, policy) // HOUR_SECONDS} hours pass first,"
            f" {earliest - now} s are left",
            retry_at=earliest,
        )


# ---- how fast --------------------------------------------------------------------------------------------


def check_request_rate(who: Who, ledger: Ledger, policy: Policy, now: int) -> None:
    """Raise RateLimited for a new request beyond `requests_per_hour` (SPEC 5.9)."""
    retry_at = ledger.next_request_at(who, policy.requests_per_hour, now)
    if retry_at is not None:
        raise RateLimited(
            f"requester: the limit is {policy.requests_per_hour} requests an hour; the next in {retry_at - now} s",
            retry_at=retry_at,
        )


def check_release_rate(who: Who, records: int, ledger: Ledger, policy: Policy, now: int) -> None:
    """Raise RateLimited for more records than `released_records_per_day`, LimitExceeded if no waiting helps."""
    limit = policy.released_records_per_day
    if records > limit:
        raise LimitExceeded(f"records: {records} asked for, the limit is {limit} a day")
    retry_at = ledger.next_release_at(who, records, limit, now)
    if retry_at is not None:
        raise RateLimited(
            f"records: the limit is {limit} a day for one requester; the next in {retry_at - now} s",
            retry_at=retry_at,
        )
