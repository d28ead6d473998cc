"""What a reply is worth, judged by itself."""

import hashlib
from dataclasses import replace

import pytest
from tests.support.agents import NOW

from strongroom.checkpoint_file import working_origin
from strongroom.crypto.notes import Checkpoint, sign_checkpoint
from strongroom.crypto.signing import SigningKey
from strongroom.errors import (
    CheckpointInvalid,
    LogForked,
    PermanentError,
    ProofInvalid,
    ReplyInvalid,
)
from strongroom.leaves import EscrowLeaf
from strongroom.messages import Rejection
from strongroom.replies import Consistency, Reply
from strongroom.statements import Statement
from strongroom.testing import FakeAuthority, FakeLog
from strongroom_agent.proofs import (
    Question,
    check_continues,
    check_same_log,
    receipted,
    refusal,
    signed_answer,
)
from strongroom_agent.state import KeptCheckpoint

ID = "01a2050e-1a43-74ad-a430-3b0ef9071f2e"
OTHER_ID = "01a2050e-1a43-74ad-a430-3b0ef9071f2f"
QUESTION = Question("escrow", ID, b"d" * 32)
LEAF = EscrowLeaf(time=NOW, id=ID, digest=QUESTION.digest.hex(), principal="laptop-0417", key="0" * 32).to_bytes()


def reply(log: FakeLog, index: int) -> Reply:
    return Reply(receipt=dict(log.receipt(index)))


def kept(log: FakeLog, size: int | None = None) -> KeptCheckpoint:
    """Give the checkpoint of the first leaves of a log."""
    other = FakeLog(log.origin)
    other.key = log.key
    for leaf in log.leaves[:size]:
        other.append(leaf)
    return KeptCheckpoint("escrow", other.size, other._frontier.root(), other.checkpoint())


def grown(log: FakeLog, leaves: int, mark: bytes = b"") -> FakeLog:
    for number in range(leaves):
        log.append(b"leaf %d" % number + mark)
    return log


# ---- receipts ----


def test_a_receipt_of_the_pinned_log_is_receipted(authority: FakeAuthority) -> None:
    """Leaf, index, size and checkpoint are what the log says."""
    grown(authority.escrow_log, 4)
    index = authority.escrow_log.append(LEAF)
    found = receipted(reply(authority.escrow_log, index), QUESTION, authority.roster)
    assert (found.receipt.index, found.receipt.tree_size, found.receipt.leaf) == (4, 5, LEAF)
    assert found.checkpoint == kept(authority.escrow_log)


@pytest.mark.parametrize("stranger", ["another key", "another origin", "a working checkpoint", "the other log"])
def test_a_receipt_that_the_pinned_log_key_did_not_sign_is_refused(authority: FakeAuthority, stranger: str) -> None:
    """A key of one's own, the right key under another origin, as before COMMIT, and the authority's other log."""
    log = FakeLog(authority.escrow_log.origin)
    if stranger == "another origin":
        log = FakeLog("elsewhere.example/escrow")
        log.key = authority.escrow_log.key
    elif stranger == "a working checkpoint":
        log = FakeLog(working_origin(log.origin))
        log.key = authority.escrow_log.key
    elif stranger == "the other log":
        log = authority.recovery_log
    with pytest.raises(CheckpointInvalid):
        receipted(reply(log, log.append(LEAF)), QUESTION, authority.roster)


def test_a_leaf_that_is_not_in_the_tree_is_refused(authority: FakeAuthority) -> None:
    """Another leaf under a true proof proves nothing."""
    authority.escrow_log.append(b"another leaf")
    true = authority.escrow_log.receipt(0)
    false = FakeLog("any")
    false.append(LEAF)
    mixed = {"leaf": false.receipt(0)["leaf"], "proof": true["proof"]}
    with pytest.raises(ProofInvalid):
        receipted(Reply(receipt=dict(mixed)), QUESTION, authority.roster)


def test_a_truncated_tree_is_refused(authority: FakeAuthority) -> None:
    """A proof for a larger tree does not lead to a smaller root that the log has signed too."""
    log = grown(authority.escrow_log, 3)
    index = log.append(LEAF)
    small = kept(log, 3)
    receipt = log.receipt(index)
    cut = receipt["proof"].partition("\n\n")[0] + "\n\n" + small.note
    with pytest.raises(ProofInvalid):
        receipted(Reply(receipt={**receipt, "proof": cut}), QUESTION, authority.roster)


@pytest.mark.parametrize(
    "receipt", [{}, {"leaf": "", "proof": ""}, {"leaf": 1, "proof": 2}, {"leaf": "", "proof": "", "x": 1}]
)
def test_a_misshapen_receipt_is_refused(authority: FakeAuthority, receipt: dict[str, object]) -> None:
    """By the name of the member at fault."""
    with pytest.raises(ProofInvalid):
        receipted(Reply(receipt=receipt), QUESTION, authority.roster)


def test_a_leaf_of_no_known_shape_is_refused(authority: FakeAuthority) -> None:
    """Even in the right log."""
    with pytest.raises(ReplyInvalid, match="receipt"):
        receipted(reply(authority.escrow_log, authority.escrow_log.append(b"{}")), QUESTION, authority.roster)


def test_a_reply_without_receipt_proves_nothing(authority: FakeAuthority) -> None:
    """Whatever else is in it."""
    with pytest.raises(ReplyInvalid, match="without a receipt"):
        receipted(Reply(), QUESTION, authority.roster)


# ---- consistency ----

OLD, NEW = 5, 9


@pytest.fixture
def log() -> FakeLog:
    return grown(FakeLog("vault.example/escrow"), NEW)


def test_a_log_that_grew_continues(log: FakeLog) -> None:
    """With the proof from the size that was stated; without a kept checkpoint anything is a beginning."""
    check_continues(kept(log, OLD), kept(log), log.consistency(OLD))
    check_continues(kept(log), kept(log), log.consistency(NEW))
    check_continues(None, kept(log), None)


def test_a_rewritten_log_is_a_fork(log: FakeLog) -> None:
    """Its own proof does not lead from the root that was seen."""
    other = grown(FakeLog(log.origin), NEW, b" rewritten")
    with pytest.raises(LogForked, match="not the one that was seen"):
        check_continues(kept(log, OLD), kept(other), other.consistency(OLD))


@pytest.mark.parametrize("rewritten", [False, True])
def test_a_log_that_shrank_is_a_fork(log: FakeLog, rewritten: bool) -> None:  # noqa: FBT001
    """Also without any claim of consistency, as from a restored backup; also with a false one."""
    other = grown(FakeLog(log.origin), OLD, b" rewritten" if rewritten else b"")
    for claim in (None, Consistency(NEW, ()), Consistency(NEW, (b"h" * 32,))):
        with pytest.raises(LogForked, match="had 9 leaves"):
            check_continues(kept(log), kept(other), claim)


def test_two_roots_of_one_size_are_a_fork(log: FakeLog) -> None:
    """Whatever proof comes with them."""
    other = grown(FakeLog(log.origin), NEW, b" rewritten")
    with pytest.raises(LogForked):
        check_continues(kept(log), kept(other), Consistency(NEW, ()))
    with pytest.raises(LogForked, match="two histories"):
        check_same_log(kept(log), kept(other))
    check_same_log(kept(log), kept(log))
    check_same_log(kept(log), kept(other, OLD))


def test_a_reply_that_does_not_claim_to_continue_does_not_count(log: FakeLog) -> None:
    """Neither without a proof nor with one from another size; that alone is no fork."""
    held = kept(log, OLD)
    for claim in (None, log.consistency(OLD - 1), log.consistency(OLD + 1)):
        with pytest.raises(ReplyInvalid, match="no proof"):
            check_continues(held, kept(log), claim)


@pytest.mark.parametrize("position", range(4))
def test_a_proof_with_one_changed_hash_is_a_fork(log: FakeLog, position: int) -> None:
    """Somebody on the way or the authority: nothing counts either way."""
    true = log.consistency(OLD)
    assert true is not None
    hashes = list(true.hashes)
    hashes[position] = b"x" * 32
    with pytest.raises(LogForked):
        check_continues(kept(log, OLD), kept(log), replace(true, hashes=tuple(hashes)))


def test_a_late_copy_of_an_earlier_answer_is_no_fork(log: FakeLog) -> None:
    """It speaks of a smaller log because it was written before; it does not count either."""
    held = kept(log, 7)
    with pytest.raises(ReplyInvalid):
        check_continues(held, kept(log, OLD), log.consistency(OLD - 1))
    with pytest.raises(ReplyInvalid):
        check_continues(held, kept(log, OLD), None, asked_before=True)


# ---- rejections and answers ----


SENT = b"the message as it was sent"


def rejected(key: SigningKey, **changes: object) -> Reply:
    """Give a rejection of what was sent, or with some members changed, signed by this key."""
    body = Rejection(
        authority="vault.example",
        request=ID,
        digest=hashlib.sha256(SENT).hexdigest(),
        roster_version=1,
        code="denied",
        message="not you",
        rejected_at=NOW,
        retry_at=None,
    ).model_copy(update=changes)
    return Reply(statement=Statement.sign(Rejection.TYPE, body.to_bytes(), key))


@pytest.mark.parametrize("request_id", [ID, None])
def test_a_rejection_by_the_reply_key_counts(authority: FakeAuthority, request_id: str | None) -> None:
    """With the id, or without it when the worker could not read it; the digest decides."""
    told = rejected(authority.escrow_reply_key, request=request_id, retry_at=NOW + 9)
    found = refusal(told, QUESTION, authority.roster, sent=SENT)
    assert found is not None
    assert (found.code, found.message, found.retry_at) == ("denied", "not you", NOW + 9)


@pytest.mark.parametrize(
    "changes",
    [
        {"request": OTHER_ID},
        {"digest": "0" * 64},
        {"digest": QUESTION.digest.hex()},
        {"authority": "other.example"},
    ],
)
def test_a_rejection_of_something_else_says_nothing(authority: FakeAuthority, changes: dict[str, str]) -> None:
    """Even when the worker signed it; the statement's digest is not enough, for it leaves the signatures out."""
    with pytest.raises(ReplyInvalid):
        refusal(rejected(authority.escrow_reply_key, **changes), QUESTION, authority.roster, sent=SENT)


def test_an_answer_by_a_roster_that_did_not_come_with_it_is_refused(authority: FakeAuthority) -> None:
    """Somebody withholds the newer one; the version that is known here is in order."""
    told = rejected(authority.escrow_reply_key, roster_version=2)
    with pytest.raises(ReplyInvalid, match="goes by roster version 2, which did not come with it"):
        refusal(told, QUESTION, authority.roster, sent=SENT)
    newer = authority.renew_roster()
    assert refusal(told, QUESTION, newer, sent=SENT) is not None


def test_a_rejection_by_anybody_else_says_nothing(authority: FakeAuthority) -> None:
    """A stranger, the other worker, the log's key, the root key."""
    strangers = (
        SigningKey.generate(),
        authority.recovery_reply_key,
        authority.escrow_log.key,
        authority.root,
    )
    for key in strangers:
        with pytest.raises(ReplyInvalid, match="did not sign"):
            refusal(rejected(key), QUESTION, authority.roster, sent=SENT)


def test_a_rejection_with_a_borrowed_key_id_says_nothing(authority: FakeAuthority) -> None:
    """The key id only selects the key to try."""
    forged = rejected(SigningKey.generate()).statement
    assert forged is not None
    borrowed = replace(forged.signatures[0], key_id=authority.escrow_reply_key.key_id)
    with pytest.raises(ReplyInvalid, match="did not sign"):
        refusal(Reply(statement=replace(forged, signatures=(borrowed,))), QUESTION, authority.roster, sent=SENT)


def test_a_signed_rejection_of_no_known_shape_says_nothing(authority: FakeAuthority) -> None:
    """The worker's signature does not make up for a missing member."""
    statement = Statement.sign(Rejection.TYPE, b"{}", authority.escrow_reply_key)
    with pytest.raises(ReplyInvalid):
        refusal(Reply(statement=statement), QUESTION, authority.roster, sent=SENT)


def test_a_reply_without_rejection_is_none(authority: FakeAuthority) -> None:
    """A receipt alone refuses nothing."""
    authority.escrow_log.append(LEAF)
    assert refusal(reply(authority.escrow_log, 0), QUESTION, authority.roster, sent=SENT) is None


def test_an_answer_that_is_missing_or_of_another_type_is_refused(authority: FakeAuthority) -> None:
    """Where a statement is due, nothing else will do."""
    for wrong in (Reply(), rejected(authority.recovery_reply_key)):
        with pytest.raises(ReplyInvalid):
            signed_answer(wrong, type(authority.roster.body), Question("recovery", ID, b"d" * 32), authority.roster)


def test_a_checkpoint_signed_for_another_size_is_refused(authority: FakeAuthority) -> None:
    """The proof must lead to the very root under the signature."""
    log = grown(authority.escrow_log, 2)
    index = log.append(LEAF)
    lie = sign_checkpoint(Checkpoint(log.origin, 4, log._frontier.root()), log.key.sign, log.key.public_key)
    receipt = log.receipt(index)
    false = receipt["proof"].partition("\n\n")[0] + "\n\n" + lie
    with pytest.raises(PermanentError):
        receipted(Reply(receipt={**receipt, "proof": false}), QUESTION, authority.roster)
