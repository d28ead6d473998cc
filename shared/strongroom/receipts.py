"""Receipts: proof, good offline and for years, that a log holds a leaf (SPEC 6.3). Pure."""

from base64 import b64encode
from dataclasses import dataclass
from typing import Final

from strongroom.crypto import tlog
from strongroom.crypto.notes import Checkpoint, parse_proof, verify_checkpoint
from strongroom.errors import MalformedStatement, ProofInvalid
from strongroom.limits import LEAF_BYTES_MAX
from strongroom.statements import decode_base64

_MEMBERS: Final = {"leaf", "proof"}


@dataclass(frozen=True, slots=True)
class Receipt:
    """A log leaf and its C2SP tlog-proof, as the log hands them out; nothing about them is checked yet."""

    leaf: bytes
    proof: str

    def to_document(self) -> dict[str, str]:
        """Return the JSON object that replies and files carry."""
        return {"leaf": b64encode(self.leaf).decode(), "proof": self.proof}


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """What a receipt proves: `leaf` is number `index` (from 0) of the log that signed `checkpoint`.

    `note` is the signed checkpoint verbatim, for keeping.
    """

    leaf: bytes
    index: int
    checkpoint: Checkpoint
    note: str


def parse(document: object) -> Receipt:
    """Read the JSON object of a receipt; verify nothing.

    Raises:
        ProofInvalid: it is none.
    """
    if not isinstance(document, dict) or document.keys() != _MEMBERS:
        raise ProofInvalid("receipt: its members must be exactly leaf and proof")
    try:
        leaf = decode_base64(document["leaf"], "receipt.leaf")
    except MalformedStatement as error:
        raise ProofInvalid(error.message) from None
    if len(leaf) > LEAF_BYTES_MAX:
        raise ProofInvalid(f"receipt.leaf: {len(leaf)} bytes, the limit is {LEAF_BYTES_MAX} bytes")
    if not isinstance(document["proof"], str):
        raise ProofInvalid("receipt.proof: must be text")
    return Receipt(leaf, document["proof"])


def verify(document: object, log_key: bytes, origin: str) -> VerifiedReceipt:
    """Check a receipt as far as the log goes (SPEC 6.3): the checkpoint's signature and the leaf's inclusion.

    The caller still has to check that the leaf names its statement, and that the checkpoint is consistent with
    the newest one it holds.

    Args:
        document: the JSON object of the receipt.
        log_key: the pinned Ed25519 public key of the log, 32 raw bytes.
        origin: the pinned origin of the log.

    Raises:
        ProofInvalid: not a receipt, or the leaf is not in the log that its checkpoint speaks of.
        CheckpointInvalid: this log did not sign the checkpoint.
    """
    receipt = parse(document)
    index, proof, note = parse_proof(receipt.proof)
    checkpoint = verify_checkpoint(note, origin, log_key)
    tlog.verify_inclusion(tlog.leaf_hash(receipt.leaf), index, checkpoint.size, proof, checkpoint.root)
    return VerifiedReceipt(receipt.leaf, index, checkpoint, note)
