"""Collecting officers' signatures: an invitation goes to the recovery worker, and is on dockets then (SPEC 2.6)."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from strongroom.errors import NotFound, PermanentError, ReplyInvalid, UsageError
from strongroom.fields import parse_body
from strongroom.leaves import InvitationLeaf
from strongroom.mandates import Invitation, Role
from strongroom.statements import parse_envelope
from strongroom_agent.invitation import IssuedInvitation
from strongroom_agent.patience import Deadline
from strongroom_agent.proofs import Question
from strongroom_agent.session import Session


@dataclass(frozen=True, slots=True)
class SentInvitation:
    """An invitation whose signatures the recovery worker keeps, by a verified receipt.

    officers: the names of all who have signed it by now, as the log says. log_index, tree_size: of its newest leaf.
    """

    officers: tuple[str, ...]
    log_index: int
    tree_size: int


def check_sendable(issued: IssuedInvitation) -> None:
    """Raise UsageError unless an invitation may be completed over the queue.

    It must be one that replaces, for only these need several signatures, and the host must have made the one-time
    key: where an officer did, nobody else could hand the complete file to the host.
    """
    if not issued.host_made_key:
        raise UsageError(
            f"invitation {issued.invitation.id}: holds a secret, which is not sent over the queue",
            hint="have the host make the key, `strongroom card NAME`, and invite it with --for CARD; or hand the"
            " file to the other officers",
        )
    if not issued.invitation.replaces:
        raise UsageError(
            f"invitation {issued.invitation.id}: needs no other officer's signature",
            hint="hand it to the host, without --send",
        )


def find(envelopes: Sequence[bytes], invitation_id: str) -> bytes:
    """Return the envelope of the invitation with this id among those of a docket; raises NotFound.

    What is no invitation is passed over; nothing about the one that is returned is verified.
    """
    for envelope in envelopes:
        with suppress(PermanentError):
            if parse_body(parse_envelope(envelope), Invitation).id == invitation_id:
                return envelope
    raise NotFound(
        f"invitation {invitation_id}: is not on the docket",
        hint="it is there until it is used or expired; have the officer who made it send it: `strongroom"
        " countersign FILE --send`",
    )


async def send(issued: IssuedInvitation, session: Session, deadline: Deadline) -> SentInvitation:
    """Send an invitation with the signatures that it has, and verify that the log holds these; safe to repeat.

    Raises UsageError as `check_sendable`; Rejected; ReplyInvalid, CheckpointInvalid, ProofInvalid or LogForked for
    an answer not to be believed; RosterInvalid, Expired; BrokerUnavailable, Unroutable or NoAnswer.
    """
    check_sendable(issued)
    invitation, statement = issued.invitation, issued.statement
    session.check_unforked("recovery")
    answer = await session.ask(
        "recovery",
        Question("recovery", invitation.id, statement.digest),
        statement.envelope(),
        deadline=deadline,
        held=session.state.checkpoint("recovery"),
    )
    session.raise_refusal(answer)
    receipted = session.receipted(answer)
    leaf = receipted.leaf
    # Others may have signed meanwhile; the officers are judged by the roster that came with the answer, if one did.
    sent = {officer.name for officer in session.roster.officers_who_signed(statement, Role.INVITE)}
    if (
        not isinstance(leaf, InvitationLeaf)
        or (leaf.id, leaf.digest, leaf.principal) != (invitation.id, statement.digest.hex(), invitation.principal)
        or not sent <= set(leaf.officers)
    ):
        raise ReplyInvalid("reply: a receipt for something else")
    session.state.keep_checkpoint(receipted.checkpoint, session.now)
    return SentInvitation(tuple(leaf.officers), receipted.receipt.index, receipted.receipt.tree_size)
