"""Which approvals of a request count: one rule for the worker that releases and the officers who read (SPEC 5.6).

Pure: state and time are arguments.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from strongroom.crypto.signing import key_id
from strongroom.errors import ApprovalInvalid, PermanentError
from strongroom.fields import Capacity, parse_body
from strongroom.limits import APPROVAL_LIFE_SECONDS_MAX
from strongroom.mandates import Approval, Officer, Role
from strongroom.roster import Roster, check_authority, check_issued, check_life, check_unexpired
from strongroom.statements import Statement


@dataclass(frozen=True, slots=True)
class Subject:
    """The request that is approved: id, digest (32 bytes), who asks, and the key id that signed it."""

    id: str
    digest: bytes
    requester: str
    capacity: Capacity
    key_id: str


@dataclass(frozen=True, slots=True)
class Agreed:
    """An approval that counts: the statement, what it says, and the officer of the roster who gave it."""

    statement: Statement
    approval: Approval
    officer: Officer


def check_independent(officer: Officer, subject: Subject) -> None:
    """Raise ApprovalInvalid for an officer who is the requester, by name or by key.

    A requester does not become a second person under another name, or with another key. A host may bear the name
    of an officer, and is somebody else then.
    """
    is_requester = (Capacity.OFFICER, officer.name) == (subject.capacity, subject.requester)
    if is_requester or key_id(officer.public_key) == subject.key_id:
        raise ApprovalInvalid(f"officer: {officer.name} is the one who asks", hint="another officer has to approve")


def check_approval(statement: Statement, subject: Subject, roster: Roster, now: int) -> Agreed:
    """Decide whether an approval counts for a request at this time, by this roster.

    Whether the same officer approved before is not looked at. Raises OfficerUnknown for somebody who is no officer
    with role `approve`, SignatureInvalid, WrongAuthority, Expired, LimitExceeded for too long a life,
    ApprovalInvalid for another request or an approval by the requester, MalformedStatement.
    """
    approval = parse_body(statement, Approval)
    check_authority(approval.authority, roster)
    officer = roster.officer(approval.officer, Role.APPROVE)
    statement.verify_signature(officer.public_key, key_id(officer.public_key))
    check_issued(approval.issued_at, now)
    check_life(approval.issued_at, approval.expires_at, APPROVAL_LIFE_SECONDS_MAX)
    check_unexpired(approval.expires_at, now)
    if (approval.request, approval.request_digest) != (subject.id, subject.digest.hex()):
        raise ApprovalInvalid(f"request_digest: the approval of {officer.name} is for another request")
    check_independent(officer, subject)
    return Agreed(statement, approval, officer)


def agreed(
    statements: Iterable[Statement], subject: Subject, roster: Roster, now: int
) -> tuple[list[Agreed], list[PermanentError]]:
    """Return the approvals that count now, one an officer, and why the others do not.

    Officers are distinct by name and by key; in a verified roster either follows from the other.
    """
    found: dict[str, Agreed] = {}
    doubts: list[PermanentError] = []
    for statement in statements:
        try:
            each = check_approval(statement, subject, roster, now)
        except PermanentError as error:
            doubts.append(error.with_traceback(None))
            continue
        is_known = any(each.officer.public_key == other.officer.public_key for other in found.values())
        if is_known or each.officer.name in found:
            doubts.append(ApprovalInvalid(f"officer: {each.officer.name} has approved already"))
        else:
            found[each.officer.name] = each
    return list(found.values()), doubts
