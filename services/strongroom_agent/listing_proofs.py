"""What the states in a listing are worth: judged by the proof leaves that come with it (SPEC 5.4, 5.13). Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from strongroom.crypto.notes import proof_text
from strongroom.crypto.tlog import leaf_hash, verify_inclusion
from strongroom.errors import PermanentError, ReplyInvalid
from strongroom.fields import Capacity
from strongroom.leaves import ProofLeaf, Unprovable, parse_leaf
from strongroom.messages import Disclosure, ListedProof, ListedRecord, Listing, RecordState
from strongroom_agent.standings import KeptProof
from strongroom_agent.state import KeptCheckpoint

# States that a record can be in of which the newest look says that it can, or cannot, be given back.
_FOUND: Final = frozenset({RecordState.PROVEN, RecordState.STALE, RecordState.DISCLOSED, RecordState.REPLACED})
_NOT_FOUND: Final = frozenset({RecordState.UNPROVABLE, RecordState.REPLACED})
_NOT_LOOKED: Final = frozenset({RecordState.STORED, RecordState.STALE, RecordState.DISCLOSED, RecordState.REPLACED})
_WITH_OTHERS: Final = frozenset(
    {RecordState.DISCLOSED, RecordState.STALE, RecordState.UNPROVABLE, RecordState.REPLACED}
)


@dataclass(frozen=True, slots=True)
class Known:
    """What this home knows of a record: statement and place by a receipt, the newest proof leaf by a listing."""

    statement: str | None = None
    log_index: int | None = None
    proof: int | None = None


NOTHING: Final = Known()


def check_states(listing: Listing, checkpoint: KeptCheckpoint, known: Mapping[str, Known]) -> tuple[KeptProof, ...]:
    """Return the proof leaves of a page, each with its tlog-proof, when every state on the page is as they say.

    Arguments: `checkpoint` is the verified one of the reply's receipt; `known`, by record id, is what the page must
    not contradict. Raises ReplyInvalid naming the record, or the proof leaf, at fault.
    """
    leaves: dict[int, ProofLeaf] = {}
    kept: list[KeptProof] = []
    for proof in listing.proofs:
        if proof.index in leaves:
            raise ReplyInvalid(f"reply: proof leaf {proof.index} twice in a listing")
        leaves[proof.index] = _proof_leaf(proof, checkpoint)
        kept.append(KeptProof(proof.index, proof.leaf, proof_text(proof.index, proof.hashes, checkpoint.note)))
    for record in listing.records:
        why = (
            _contradiction_with_known(record, known.get(record.id, NOTHING))
            or _contradiction_with_proof(record, leaves)
            or _contradiction_with_disclosure(record, listing.principal)
            or _contradiction_in_itself(record)
        )
        if why is not None:
            raise ReplyInvalid(f"reply: a listing that says of record {record.id} {why}")
    return tuple(kept)


def _proof_leaf(proof: ListedProof, checkpoint: KeptCheckpoint) -> ProofLeaf:
    try:
        verify_inclusion(leaf_hash(proof.leaf), proof.index, checkpoint.size, proof.hashes, checkpoint.root)
        leaf = parse_leaf(proof.leaf)
    except PermanentError as error:
        raise ReplyInvalid(f"reply: proof leaf {proof.index}: {error.message}") from None
    if not isinstance(leaf, ProofLeaf):
        raise ReplyInvalid(f"reply: proof leaf {proof.index}: is none, but of type {leaf.type}")
    return leaf


def _contradiction_with_known(record: ListedRecord, known: Known) -> str | None:
    if known.statement is not None and record.statement != known.statement:
        return f"that statement {record.statement} brought it, and it was {known.statement}"
    if known.log_index is not None and record.log_index != known.log_index:
        return f"that it is at {record.log_index} of the escrow log, and its receipt says {known.log_index}"
    # What was looked at once stays so, and of the looks at one place the newest counts.
    if known.proof is not None and (record.proof is None or record.proof < known.proof):
        return f"less than proof leaf {known.proof} did before"
    return None


def _contradiction_with_proof(record: ListedRecord, leaves: Mapping[int, ProofLeaf]) -> str | None:
    if record.proof is None:
        if (record.proven_at, record.code) != (None, None) or record.state not in _NOT_LOOKED:
            return f"that it is {record.state.value}, without a proof leaf"
        return None
    leaf = leaves.get(record.proof)
    if leaf is None:
        return f"that proof leaf {record.proof} covers it, and does not bring that leaf"
    if not leaf.first <= record.log_index < leaf.first + leaf.count:
        return f"that proof leaf {record.proof} covers it, which it does not"
    finding = _finding(record, leaf)
    said = record.proven_at, record.code, record.state in (_FOUND if finding is None else _NOT_FOUND)
    true = (leaf.time, None, True) if finding is None else (None, finding.code, True)
    if said != true:
        return f"something else than its proof leaf {record.proof}: {record.state.value}"
    return None


def _finding(record: ListedRecord, leaf: ProofLeaf) -> Unprovable | None:
    """Return what the leaf names the record for; what names the record itself before what names its statement."""
    of_statement = [each for each in leaf.unprovable if each.index == record.log_index]
    own = [each for each in of_statement if each.record == record.id]
    whole = [each for each in of_statement if each.record is None]
    return next(iter([*own, *whole]), None)


def _contradiction_with_disclosure(record: ListedRecord, principal: str) -> str | None:
    if is_with_others(record.disclosure, principal):
        if record.state not in _WITH_OTHERS:
            return f"that it was released to somebody else, and that it is {record.state.value}"
        if (record.replace_by is None) is not (record.state is RecordState.REPLACED):
            return "that it was released to somebody else, and not until when to replace it"
        return None
    if record.state is RecordState.DISCLOSED:
        return "that it was released to somebody else, and not to whom"
    return None if record.replace_by is None else "that it is to be replaced, and not why"


def is_with_others(disclosure: Disclosure | None, principal: str) -> bool:
    """Say whether somebody else than the owner was given the key."""
    if disclosure is None:
        return False
    return (disclosure.requester_kind, disclosure.requester) != (Capacity.PRINCIPAL, principal)


def _contradiction_in_itself(record: ListedRecord) -> str | None:
    if record.state is RecordState.STALE and record.attested_at is None:
        return "that it is stale, which its owner has never said"
    return "that it takes its own place" if record.id in record.supersedes else None
