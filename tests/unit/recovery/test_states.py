"""The state of a record: the first of the rules of SPEC 5.13 that holds, and what goes with it."""

from typing import Any

import pytest
from tests.support import authority as make

from strongroom.fields import Capacity, new_id
from strongroom.leaves import AttestationLeaf, Leaf, ProofLeaf, ReleaseLeaf, RequestLeaf, Unprovable
from strongroom.messages import RecordState
from strongroom_recovery.ledger import Ledger
from strongroom_recovery.records import StoredRecord
from strongroom_recovery.states import is_proven, standing

DIGEST = "5e" * 32
KEY = "0" * 32
INDEX = 7
RECORD = make.record()
DAY = 86_400


def look(*codes: str, time: int = make.NOW, record: str | None = RECORD.id) -> Leaf:
    """Return the leaf of a look at the record's place, with these codes for it."""
    unprovable = [Unprovable(index=INDEX, record=record, code=code) for code in codes]
    return ProofLeaf(time=time, first=INDEX, count=1, size=INDEX + 1, root=DIGEST, records=1, unprovable=unprovable)


def attested(*, matches: bool, principal: str = make.PRINCIPAL) -> Leaf:
    """Return the leaf of an attestation about the record."""
    matching, stale = ([RECORD.id], []) if matches else ([], [RECORD.id])
    return AttestationLeaf(
        time=make.NOW + 5, id=new_id(), digest=DIGEST, principal=principal, key=KEY, matching=matching, stale=stale
    )


def released(requester: str = "officer-a", kind: Capacity = Capacity.OFFICER) -> list[Leaf]:
    """Return the leaves of a request for the record and its release."""
    id_ = new_id()
    members: dict[str, Any] = {"time": make.NOW + 8, "id": id_, "digest": DIGEST}
    return [
        RequestLeaf(**members, requester=requester, requester_kind=kind, key=KEY, principal=make.PRINCIPAL),
        ReleaseLeaf(**members | {"time": make.NOW + 9}, release=DIGEST, approvals=[], records=[RECORD.id]),
    ]


def ledger(*leaves: Leaf) -> Ledger:
    """Fold leaves."""
    folded = Ledger()
    for leaf in leaves:
        folded.apply(leaf.to_bytes())
    return folded


STORED = StoredRecord(
    make.AUTHORITY, make.PRINCIPAL, new_id(), make.NOW, make.NOW, INDEX, in_force=True, record=RECORD
)
STALE, MATCHING = attested(matches=False), attested(matches=True)
EVERYTHING = [look("blob_invalid"), STALE, *released()]


@pytest.mark.parametrize(
    ("leaves", "state"),
    [
        ([], RecordState.STORED),
        ([look()], RecordState.PROVEN),
        ([MATCHING], RecordState.STORED),
        ([look(), *released()], RecordState.DISCLOSED),
        ([look(), *released(make.PRINCIPAL, Capacity.PRINCIPAL)], RecordState.PROVEN),
        ([look(), *released(make.PRINCIPAL)], RecordState.DISCLOSED),
        ([look(), *released(), STALE], RecordState.STALE),
        ([look(), STALE, MATCHING], RecordState.PROVEN),
        ([look(), attested(matches=False, principal="laptop-0418")], RecordState.PROVEN),
        (EVERYTHING, RecordState.UNPROVABLE),
        ([look("blob_invalid"), look()], RecordState.PROVEN),
        ([look(), look("proof_invalid", record=None)], RecordState.UNPROVABLE),
        ([look("blob_invalid", record=new_id())], RecordState.PROVEN),
    ],
)
def test_the_first_rule_that_holds_decides(leaves: list[Leaf], state: RecordState) -> None:
    """Replaced, unprovable, stale, disclosed to another, proven, stored: in this order (SPEC 5.13)."""
    known = ledger(*leaves)
    assert standing(STORED, known, is_replaced=False, replace_days=14).state is state
    assert standing(STORED, known, is_replaced=True, replace_days=14).state is RecordState.REPLACED


def test_a_proof_is_named_with_its_time_and_an_unprovable_one_with_its_code() -> None:
    """`proof` is the leaf in either case; only a record that it proves has a time of proof."""
    proven = standing(STORED, ledger(STALE, look(time=make.NOW + 3)), is_replaced=False, replace_days=14)
    assert (proven.proof, proven.proven_at, proven.code) == (1, make.NOW + 3, None)
    failed = standing(STORED, ledger(look("key_unknown")), is_replaced=False, replace_days=14)
    assert (failed.proof, failed.proven_at, failed.code) == (0, None, "key_unknown")
    nothing = standing(STORED, ledger(), is_replaced=False, replace_days=14)
    assert (nothing.proof, nothing.proven_at, nothing.code, nothing.attested_at) == (None, None, None, None)


def test_a_key_that_somebody_else_has_is_to_be_replaced_so_many_days_after_the_release() -> None:
    """The policy's days count from the release; for a replaced key and the owner's own recovery none are set."""
    others = ledger(*released())
    assert standing(STORED, others, is_replaced=False, replace_days=14).replace_by == make.NOW + 9 + 14 * DAY
    assert standing(STORED, others, is_replaced=True, replace_days=14).replace_by is None
    own = ledger(*released(make.PRINCIPAL, Capacity.PRINCIPAL))
    kept = standing(STORED, own, is_replaced=False, replace_days=14)
    assert kept.replace_by is None
    assert kept.disclosed is not None


def test_only_a_look_that_found_nothing_wrong_proves() -> None:
    """A place that was never looked at is not proven, and one that failed is not."""
    assert not is_proven(ledger(), RECORD.id, INDEX)
    assert is_proven(ledger(look()), RECORD.id, INDEX)
    assert not is_proven(ledger(look()), RECORD.id, INDEX + 1)
    assert not is_proven(ledger(look("blob_invalid")), RECORD.id, INDEX)
    assert not is_proven(ledger(look("blob_invalid", record=None)), RECORD.id, INDEX)
