"""Receipts: written by a log, checked by their holder, offline."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.authority import AUTHORITY, signing_key

from strongroom import receipts
from strongroom.checkpoint_file import working_origin
from strongroom.crypto import tlog
from strongroom.crypto.notes import Checkpoint, proof_text, sign_checkpoint
from strongroom.errors import CheckpointInvalid, ProofInvalid
from strongroom.limits import LEAF_BYTES_MAX
from strongroom.receipts import Receipt

ORIGIN = f"{AUTHORITY}/escrow"
KEY = signing_key("escrow log")
LEAVES = [b"leaf %d" % number for number in range(13)]


def receipt(index: int, leaves: list[bytes], *, origin: str = ORIGIN, key: str = "escrow log") -> Receipt:
    """The receipt that a log of these leaves gives for one of them."""
    frontier, nodes = tlog.append(tlog.Frontier.empty(), leaves)
    signer = signing_key(key)
    note = sign_checkpoint(Checkpoint(origin, frontier.size, frontier.root()), signer.sign, signer.public_key)
    return Receipt(leaves[index], proof_text(index, tlog.inclusion_proof(index, len(leaves), nodes), note))


def verify(document: object) -> receipts.VerifiedReceipt:
    """Verify as a holder with the right pins does."""
    return receipts.verify(document, KEY.public_key, ORIGIN)


@given(st.lists(st.binary(max_size=64), min_size=1, max_size=40), st.data())
def test_a_receipt_proves_its_leaf_index_and_checkpoint(leaves: list[bytes], data: st.DataObject) -> None:
    """Written to JSON and read back, a receipt of any leaf of any log verifies and says what it proves."""
    index = data.draw(st.integers(0, len(leaves) - 1))
    given_receipt = receipt(index, leaves)
    document = given_receipt.to_document()
    assert receipts.parse(document) == given_receipt
    verified = verify(document)
    assert (verified.leaf, verified.index, verified.checkpoint.size) == (leaves[index], index, len(leaves))
    assert verified.checkpoint.root == tlog.append(tlog.Frontier.empty(), leaves)[0].root()
    assert document["proof"].endswith(f"\n\n{verified.note}")


@pytest.mark.parametrize(
    "document",
    [
        None,
        "text",
        [],
        {},
        {"leaf": "bGVhZg=="},
        {"proof": ""},
        {"leaf": "bGVhZg==", "proof": "", "more": ""},
        {"leaf": None, "proof": ""},
        {"leaf": "bGVhZg==", "proof": None},
        {"leaf": "bGVhZg==", "proof": b""},
        {"leaf": "bGVhZg", "proof": ""},
        {"leaf": "bGVhZh==", "proof": ""},
        {"leaf": "bGVh\nZg==", "proof": ""},
        {"leaf": "bGVhZg==", "proof": ""},
        {"leaf": "bGVhZg==", "proof": "c2sp.org/tlog-proof@v1\n"},
    ],
)
def test_what_is_no_receipt_is_refused(document: Any) -> None:
    """Other JSON, missing or further members, base64 that is not canonical, text that is no proof."""
    with pytest.raises(ProofInvalid):
        verify(document)


def test_a_further_member_is_refused() -> None:
    """A receipt that is valid but for a member that nobody checks is none."""
    with pytest.raises(ProofInvalid, match="members"):
        verify({**receipt(4, LEAVES).to_document(), "note": ""})


def test_a_leaf_has_a_limit() -> None:
    """The longest leaf verifies, and one that is a byte longer is refused."""
    assert verify(receipt(0, [b"x" * LEAF_BYTES_MAX]).to_document()).index == 0
    with pytest.raises(ProofInvalid, match="65536 bytes, the limit is 65535 bytes"):
        verify(receipt(0, [b"x" * (LEAF_BYTES_MAX + 1)]).to_document())


def test_another_leaf_is_refused() -> None:
    """The proof of one leaf proves no other, neither a neighbour nor a changed one."""
    proof = receipt(4, LEAVES).proof
    for leaf in (LEAVES[5], LEAVES[4] + b" ", b""):
        with pytest.raises(ProofInvalid):
            verify(Receipt(leaf, proof).to_document())


@pytest.mark.parametrize(
    "other", [{"origin": f"{AUTHORITY}/recovery"}, {"origin": working_origin(ORIGIN)}, {"key": "thief"}]
)
def test_another_log_is_refused(other: dict[str, str]) -> None:
    """A checkpoint by another key, or by this one for another log or for workers alone, is worth nothing."""
    with pytest.raises(CheckpointInvalid):
        verify(receipt(4, LEAVES, **other).to_document())


def test_every_changed_character_of_the_proof_is_noticed() -> None:
    """No character of proof or checkpoint can be changed, left out or doubled without being refused."""
    given_receipt = receipt(4, LEAVES)
    proof = given_receipt.proof
    for place, character in enumerate(proof):
        for spoiled in ("", character * 2, "A" if character != "A" else "B"):
            changed = proof[:place] + spoiled + proof[place + 1 :]
            with pytest.raises((ProofInvalid, CheckpointInvalid)):
                verify(Receipt(given_receipt.leaf, changed).to_document())
