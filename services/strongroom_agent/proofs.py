"""What a reply is worth: judged from its bytes, the roster, and the checkpoint that is held. Pure."""

import hashlib
from dataclasses import dataclass
from typing import Final, TypeVar

from strongroom import receipts
from strongroom.audits import Coverage, LogPage
from strongroom.crypto.signing import key_id
from strongroom.crypto.tlog import verify_consistency
from strongroom.errors import LogForked, PermanentError, ProofInvalid, ReplyInvalid, SignatureInvalid
from strongroom.fields import Body, parse_body
from strongroom.leaves import Leaf, parse_leaf
from strongroom.messages import Docket, Listing, Rejection, Release
from strongroom.replies import Consistency, Reply
from strongroom.roster import Roster, check_authority
from strongroom.statements import Statement
from strongroom_agent.spool import Refusal
from strongroom_agent.state import KeptCheckpoint, LogName, ReceiptedLeaf

FORK_HINT = (
    "nothing new counts as stored; show the auditors the evidence that `strongroom status` lists,"
    " and compare with their copy of the log; when they have cleared it up, `strongroom sync --clear-evidence`"
)

B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked: statement id and digest (32 bytes), and the worker whose answer is due.

    `worker` names its log too: each of the two workers has one log and one reply key.
    """

    worker: LogName
    id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Receipted:
    """A receipt that holds as far as the log goes: the parsed leaf, and both in the form in which they are kept."""

    leaf: Leaf
    receipt: ReceiptedLeaf
    checkpoint: KeptCheckpoint


def refusal(reply: Reply, question: Question, roster: Roster, *, sent: bytes) -> Refusal | None:
    """Return the rejection that a reply carries, or None if it carries none.

    Arguments: `sent` is the message as it left here. A rejection of the same statement in another envelope does not
    count: somebody on the way may have taken its signatures off. Raises ReplyInvalid for a rejection that the
    worker did not sign or that is about something else; such a rejection says nothing.
    """
    if reply.statement is None or reply.statement.type != Rejection.TYPE:
        return None
    body = _signed(reply.statement, Rejection, question, roster)
    if body.digest != hashlib.sha256(sent).hexdigest() or body.request not in (None, question.id):
        raise ReplyInvalid("reply: a rejection of something else than was sent")
    return Refusal(body.code, body.message, reply.statement.envelope(), body.retry_at)


def signed_answer(reply: Reply, model: type[B], question: Question, roster: Roster) -> tuple[Statement, B]:
    """Return the statement that a reply answers with, and its body.

    The caller still has to check that the body names the question. Raises ReplyInvalid.
    """
    if reply.statement is None:
        raise ReplyInvalid("reply: without the statement that was asked for")
    return reply.statement, _signed(reply.statement, model, question, roster)


def _signed(statement: Statement, model: type[B], question: Question, roster: Roster) -> B:
    replies = roster.body.replies
    public_key = replies.escrow if question.worker == "escrow" else replies.recovery
    try:
        statement.verify_signature(public_key, key_id(public_key))
        body = parse_body(statement, model)
        check_authority(body.authority, roster)
    except SignatureInvalid:
        raise ReplyInvalid(f"reply: the {question.worker} worker did not sign it") from None
    except PermanentError as error:
        raise ReplyInvalid(f"reply: {error.message}") from None
    _check_roster_version(body, roster)
    return body


_ANSWERS: Final = (Release, Listing, Docket, Coverage, LogPage, Rejection)


def _check_roster_version(body: Body, roster: Roster) -> None:
    """Refuse an answer by a roster that is newer than the newest known here: it is being withheld (SPEC 6.2)."""
    if isinstance(body, _ANSWERS) and body.roster_version > roster.body.version:
        raise ReplyInvalid(
            f"reply: goes by roster version {body.roster_version}, which did not come with it",
            hint=f"version {roster.body.version} is the newest here; somebody on the way may withhold the other",
        )


def receipted(reply: Reply, question: Question, roster: Roster) -> Receipted:
    """Check the receipt in a reply as far as its log goes (SPEC 6.3).

    The caller still has to check that the leaf names the question, and `check_continues`. Raises ReplyInvalid
    without a receipt, CheckpointInvalid, ProofInvalid.
    """
    if reply.receipt is None:
        raise ReplyInvalid("reply: without a receipt")
    logs = roster.body.logs
    log = logs.escrow if question.worker == "escrow" else logs.recovery
    verified = receipts.verify(reply.receipt, log.public_key, log.origin)
    try:
        leaf = parse_leaf(verified.leaf)
    except PermanentError as error:
        raise ReplyInvalid(f"reply: receipt: {error.message}") from None
    checkpoint = verified.checkpoint
    return Receipted(
        leaf=leaf,
        receipt=ReceiptedLeaf(verified.leaf, receipts.parse(reply.receipt).proof, verified.index, checkpoint.size),
        checkpoint=KeptCheckpoint(question.worker, checkpoint.size, checkpoint.root, verified.note),
    )


def check_continues(
    held: KeptCheckpoint | None, new: KeptCheckpoint, consistency: Consistency | None, *, asked_before: bool = False
) -> None:
    """Check that the log of a new checkpoint continues the log of the one whose size was stated (SPEC 6.4).

    Arguments: `asked_before` says that the same question was answered on the same link already; a late copy of
    that answer would speak of an earlier log, and is no sign of a fork. Raises LogForked when the log shrank or
    was rewritten, ReplyInvalid when the reply does not even claim to continue it.
    """
    if held is None:
        return
    late = asked_before or (consistency is not None and consistency.from_size < held.size)
    if new.size < held.size and not late:
        raise LogForked(
            f"{new.log} log: had {held.size} leaves, and the authority now signs that it has {new.size}",
            hint=FORK_HINT,
        )
    if new.size < held.size or consistency is None or consistency.from_size != held.size:
        raise ReplyInvalid(f"reply: no proof that the {new.log} log continues the {held.size} leaves known here")
    try:
        verify_consistency(held.size, held.root, new.size, new.root, consistency.hashes)
    except ProofInvalid as error:
        raise LogForked(
            f"{new.log} log: is not the one that was seen before: {error.message}", hint=FORK_HINT
        ) from None


def check_same_log(one: KeptCheckpoint, other: KeptCheckpoint) -> None:
    """Raise LogForked for two checkpoints of the same size with different roots."""
    if one.size == other.size and one.root != other.root:
        raise LogForked(f"{one.log} log: two histories of {one.size} leaves are signed", hint=FORK_HINT)
