"""One request on its way: how it is sent, and what an answer to it is worth (SPEC 5.2, 5.3)."""

from dataclasses import dataclass

from strongroom.errors import ApprovalRequired, Denied, ReplyInvalid
from strongroom.fields import parse_body
from strongroom.leaves import DenialLeaf, Leaf, RefusalLeaf, ReleaseLeaf, RequestLeaf
from strongroom.limits import REQUEST_LIFE_SECONDS_MAX
from strongroom.messages import Release, Request
from strongroom.statements import Statement
from strongroom_agent.patience import Deadline
from strongroom_agent.proofs import Question, Receipted
from strongroom_agent.session import Answer, Session
from strongroom_agent.spool import Refusal
from strongroom_agent.waiting import OPEN


@dataclass(frozen=True, slots=True)
class Sent:
    """A signed request, and the id of the key that signed it."""

    request: Request
    statement: Statement
    key_id: str

    async def ask(self, session: Session, deadline: Deadline) -> Answer:
        """Send it over this link and return what comes back; raises as `Session.ask`."""
        life = min(self.request.expires_at - session.now, REQUEST_LIFE_SECONDS_MAX)
        return await session.ask(
            "recovery",
            Question("recovery", self.request.id, self.statement.digest),
            self.statement.envelope(),
            deadline=deadline,
            held=session.state.checkpoint("recovery"),
            # It is sent again as long as it lives; no copy of it needs to wait in a queue for days.
            expiration_seconds=max(1, life),
        )

    def check_on_record(self, session: Session, answer: Answer, refusal: Refusal) -> None:
        """Verify that the log says what the refusal says; whoever waits has to be on record (SPEC 5.2).

        Raises ReplyInvalid, CheckpointInvalid, ProofInvalid or LogForked for an answer not to be believed.
        """
        if answer.reply.receipt is None and refusal.code != ApprovalRequired.code:
            return
        receipted = session.receipted(answer)
        leaf = receipted.leaf
        expected: Leaf | None = None
        if isinstance(leaf, RequestLeaf) and refusal.code in OPEN:
            expected = RequestLeaf(
                time=leaf.time,
                id=self.request.id,
                digest=self.statement.digest.hex(),
                requester=self.request.requester,
                requester_kind=self.request.requester_kind,
                key=self.key_id,
                principal=self.request.principal,
            )
        elif isinstance(leaf, RefusalLeaf) and refusal.code != ApprovalRequired.code:
            expected = RefusalLeaf(
                time=leaf.time,
                id=self.request.id,
                digest=self.statement.digest.hex(),
                requester=self.request.requester,
                requester_kind=self.request.requester_kind,
                code=refusal.code,
            )
        elif isinstance(leaf, DenialLeaf) and refusal.code == Denied.code:
            expected = leaf.model_copy(update={"request": self.request.id})
        if leaf != expected:
            raise ReplyInvalid("reply: a receipt for something else")
        session.state.keep_checkpoint(receipted.checkpoint, session.now)

    def released(self, session: Session, answer: Answer) -> tuple[Statement, Release, Receipted]:
        """Return the release that an answer carries, which is this request's, and the receipt that proves it.

        What is sealed in it is not opened. Raises as `check_on_record`.
        """
        statement, release = session.signed_answer(answer, Release)
        self._check_release(release)
        receipted = session.receipted(answer)
        self._check_leaf(receipted.leaf, statement)
        session.state.keep_checkpoint(receipted.checkpoint, session.now)
        return statement, release, receipted

    def _check_release(self, release: Release) -> None:
        if (release.request, release.request_digest) != (self.request.id, self.statement.digest.hex()):
            raise ReplyInvalid("reply: a release that answers something else")
        if any(record.principal != self.request.principal for record in release.records):
            raise ReplyInvalid("reply: a release of somebody else's records")
        ids = [record.id for record in release.records]
        if self.request.records is not None and sorted(ids) != sorted(self.request.records):
            raise ReplyInvalid("reply: a release of other records than were asked for")
        if self.request.name is not None and (
            [record.name for record in release.records] != [self.request.name]
            or not release.history
            or release.history[0].id != ids[0]
        ):
            raise ReplyInvalid("reply: a release that is not of the newest record of the name asked for")

    def _check_leaf(self, leaf: Leaf, statement: Statement) -> None:
        if not isinstance(leaf, ReleaseLeaf) or leaf != ReleaseLeaf(
            time=leaf.time,
            id=self.request.id,
            digest=self.statement.digest.hex(),
            release=statement.digest.hex(),
            approvals=leaf.approvals,
            records=[record.id for record in parse_body(statement, Release).records],
        ):
            raise ReplyInvalid("reply: a receipt for something else")
