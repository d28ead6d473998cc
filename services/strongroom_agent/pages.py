"""Long answers come in pages: signed questions, each answered by a signed page (SPEC 5.4, 5.8, 5.14)."""

from typing import Any, Generic, TypeVar

from strongroom.audits import Coverage, CoverageRequest
from strongroom.crypto.signing import SigningKey
from strongroom.errors import ReplyInvalid
from strongroom.fields import Capacity, new_id, validated
from strongroom.limits import REQUEST_LIFE_SECONDS_MAX
from strongroom.messages import Docket, DocketRequest, Listing, ListingRequest
from strongroom.statements import Statement
from strongroom_agent.home import Home
from strongroom_agent.patience import Deadline
from strongroom_agent.proofs import Question
from strongroom_agent.session import Answer, Session

Q = TypeVar("Q", ListingRequest, DocketRequest, CoverageRequest)
P = TypeVar("P", Listing, Docket, Coverage)


class Pages(Generic[Q, P]):
    """Asks for the pages of one reading, over as many links as it takes.

    A page without answer is asked for again by the same question as long as that lives, so that an outage leaves
    one question behind and not one for every attempt; it never expires inside the broker, for the same reason.
    """

    def __init__(self, home: Home, key: SigningKey, question: type[Q], page: type[P], **scope: Any) -> None:
        """Ask as the owner of `home`; `key` signs the questions; `scope` are their members that stay the same."""
        self._home = home
        self._key = key
        self._question_model: type[Q] = question
        self._page_model: type[P] = page
        self._scope = scope
        self._asked: tuple[Q, Statement] | None = None

    async def get(self, session: Session, deadline: Deadline, after: str | None) -> P:
        """Return the page that goes on from `after`; raises as `answered`."""
        page, _ = await self.answered(session, deadline, after)
        return page

    async def answered(self, session: Session, deadline: Deadline, after: str | None) -> tuple[P, Answer]:
        """Return the page that goes on from `after`, and the answer that brought it, whose receipt is unverified.

        That it goes on from there is not checked, nor whose page it is. Raises Rejected; ReplyInvalid, also for a
        page that answers another question; MalformedStatement for what is asked; Expired, RosterInvalid,
        BrokerUnavailable, Unroutable, NoAnswer.
        """
        question, statement = self._question(session, after)
        answer = await session.ask(
            "recovery",
            Question("recovery", question.id, statement.digest),
            statement.envelope(),
            deadline=deadline,
            held=session.state.checkpoint("recovery"),
        )
        _, page = session.signed_answer(answer, self._page_model)
        if (page.request, page.request_digest) != (question.id, statement.digest.hex()):
            raise ReplyInvalid(f"reply: a {self._page_model.__name__.lower()} that answers something else")
        return page, answer

    def _question(self, session: Session, after: str | None) -> tuple[Q, Statement]:
        now = session.now
        if self._asked is None or self._asked[0].after != after or self._asked[0].expires_at <= now:
            question = validated(
                {
                    "authority": session.trust.newest.body.authority,
                    "id": new_id(),
                    "issued_at": now,
                    "expires_at": now + REQUEST_LIFE_SECONDS_MAX,
                    "requester": self._home.config.name,
                    "requester_kind": Capacity(self._home.config.role.value),
                    "after": after,
                    **self._scope,
                },
                self._question_model,
            )
            self._asked = question, Statement.sign(question.TYPE, question.to_bytes(), self._key)
        return self._asked
