"""What has become of a record (SPEC 5.13): from the log, and from what its statement says now. Pure."""

from dataclasses import dataclass

from strongroom.messages import RecordState
from strongroom_recovery.ledger import DAY_SECONDS, Case, Ledger
from strongroom_recovery.records import StoredRecord


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a record, and what it rests on; the members as in a listing (SPEC 5.4). Times in seconds."""

    state: RecordState
    proof: int | None
    proven_at: int | None
    code: str | None
    attested_at: int | None
    disclosed: Case | None
    replace_by: int | None


def standing(stored: StoredRecord, ledger: Ledger, *, is_replaced: bool, replace_days: int) -> Standing:
    """Say what has become of a verified record.

    Arguments: `is_replaced`, whether a proven record supersedes it; `replace_days` of the policy in force.
    """
    id_, index = stored.record.id, stored.log_index
    look, finding = ledger.proofs.look(index), ledger.proofs.finding(index, id_)
    attested = ledger.attested(stored.principal, id_)
    disclosed = ledger.disclosure(id_)
    if disclosed is not None and disclosed.principal != stored.principal:
        disclosed = None  # ids can be taken by others once the rows of their owner are gone
    is_others = disclosed is not None and not disclosed.is_own
    if is_replaced:
        state = RecordState.REPLACED
    elif finding is not None:
        state = RecordState.UNPROVABLE
    elif attested is not None and not attested.matches:
        state = RecordState.STALE
    elif is_others:
        state = RecordState.DISCLOSED
    else:
        state = RecordState.STORED if look is None else RecordState.PROVEN
    return Standing(
        state=state,
        proof=None if look is None else look.proof,
        proven_at=look.time if look is not None and finding is None else None,
        code=None if finding is None else finding.code,
        attested_at=None if attested is None else attested.time,
        disclosed=disclosed,
        replace_by=replace_by(disclosed, replace_days) if is_others and not is_replaced else None,
    )


def replace_by(disclosed: Case | None, replace_days: int) -> int | None:
    """Return until when a key is to be replaced that somebody was given by this request, in seconds."""
    if disclosed is None or disclosed.outcome is None:
        return None
    return disclosed.outcome.time + replace_days * DAY_SECONDS


def is_proven(ledger: Ledger, record_id: str, log_index: int) -> bool:
    """Say whether the newest look at an escrow leaf found that this record of its statement can be given back."""
    return ledger.proofs.look(log_index) is not None and ledger.proofs.finding(log_index, record_id) is None
