"""One conversation with the authority: a link, and what its answers are judged by."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from strongroom.errors import LogForked, Rejected
from strongroom.fields import Body
from strongroom.replies import ROSTER_VERSION_HEADER, TREE_SIZE_HEADER, Reply, parse_reply
from strongroom.roster import Roster
from strongroom.statements import Statement
from strongroom.topology import Verb, routing_key
from strongroom_agent import proofs
from strongroom_agent.link import Link
from strongroom_agent.patience import Deadline, seconds_left
from strongroom_agent.proofs import Question, Receipted
from strongroom_agent.spool import Refusal
from strongroom_agent.state import Evidence, KeptCheckpoint, LogName, State
from strongroom_agent.trust import Trust

ANSWER_SECONDS_MAX = 15.0
"""How long one attempt waits for its answer. It is sent again then, on another link."""

B = TypeVar("B", bound=Body)


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply whose roster, if there was one, was adopted; nothing else about it is verified.

    sent: the message that it answers. held: the checkpoint whose size was stated in the question.
    """

    question: Question
    sent: bytes
    raw: bytes
    reply: Reply
    held: KeptCheckpoint | None


class Session:
    """Asks over one link and judges the answers by the newest roster and the checkpoints of one home."""

    def __init__(self, *, link: Link, name: str, state: State, trust: Trust, clock: Callable[[], float]) -> None:
        """Ask as `name`; `clock` gives seconds since 1970."""
        self._link = link
        self._name = name
        self._clock = clock
        self.state = state
        self.trust = trust

    @property
    def now(self) -> int:
        """The time in whole seconds since 1970."""
        return int(self._clock())

    @property
    def roster(self) -> Roster:
        """The roster to judge answers by; Expired when it has."""
        return self.trust.current(self.now)

    def check_unforked(self, log: LogName) -> None:
        """Raise LogForked while evidence against a log is kept: an auditor has to look before it counts again."""
        if any(each.log == log for each in self.state.evidence()):
            raise LogForked(f"{log} log: evidence against it is kept in this home", hint=proofs.FORK_HINT)

    async def ask(
        self,
        verb: Verb,
        question: Question,
        envelope: bytes,
        *,
        deadline: Deadline,
        held: KeptCheckpoint | None,
        expiration_seconds: float | None = None,
    ) -> Answer:
        """Send a statement and return what comes back.

        Raises BrokerUnavailable, Unroutable or NoAnswer; ReplyInvalid for an answer out of shape; RosterInvalid
        or Expired for one that brings a roster that may not be adopted.
        """
        await self._link.submit(
            routing_key(verb, self._name),
            envelope,
            message_id=question.id,
            headers={
                TREE_SIZE_HEADER: held.size if held else 0,
                ROSTER_VERSION_HEADER: self.trust.newest.body.version,
            },
            expiration_seconds=expiration_seconds,
        )
        raw = await self._link.answer(question.id, min(ANSWER_SECONDS_MAX, seconds_left(deadline)))
        reply = parse_reply(raw)
        if reply.roster is not None:
            self.trust.adopt(reply.roster, self.now)
        return Answer(question, envelope, raw, reply, held)

    def receipted(self, answer: Answer, *, asked_before: bool = False) -> Receipted:
        """Verify the receipt of an answer, up to the checkpoint that was held.

        Raises ReplyInvalid, CheckpointInvalid, ProofInvalid, Expired; LogForked, after the evidence was kept.
        """
        receipted = proofs.receipted(answer.reply, answer.question, self.roster)
        try:
            proofs.check_continues(
                answer.held, receipted.checkpoint, answer.reply.consistency, asked_before=asked_before
            )
        except LogForked as error:
            if answer.held is not None:
                self.keep_evidence(answer, answer.held, receipted.checkpoint, error)
            raise
        return receipted

    def keep_evidence(self, answer: Answer, one: KeptCheckpoint, other: KeptCheckpoint, error: LogForked) -> None:
        """Keep two signed checkpoints that do not belong to one log, and the reply that showed it."""
        self.state.keep_evidence(
            Evidence(
                log=other.log,
                statement=answer.question.id,
                reason=error.message,
                held_note=one.note,
                note=other.note,
                reply=answer.raw,
                seen_at=self.now,
            )
        )

    def refusal(self, answer: Answer) -> Refusal | None:
        """Return the rejection that the worker signed of what was sent, or None; ReplyInvalid for another one."""
        return proofs.refusal(answer.reply, answer.question, self.roster, sent=answer.sent)

    def raise_refusal(self, answer: Answer) -> None:
        """Raise Rejected if the answer is a rejection that the worker signed, ReplyInvalid if a forged one."""
        refusal = self.refusal(answer)
        if refusal is not None:
            raise Rejected(
                f"the authority says: {refusal.message}", remote_code=refusal.code, retry_at=refusal.retry_at
            )

    def signed_answer(self, answer: Answer, model: type[B]) -> tuple[Statement, B]:
        """Return the statement that an answer carries; Rejected if it is a rejection instead, ReplyInvalid."""
        self.raise_refusal(answer)
        return proofs.signed_answer(answer.reply, model, answer.question, self.roster)
