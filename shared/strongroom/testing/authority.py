"""An authority that an agent can connect to, with faults that can be switched on."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from strongroom.crypto.sealing import Suite
from strongroom.errors import BrokerUnavailable, NoAnswer, PermanentError
from strongroom.fields import Capacity, new_id
from strongroom.mandates import Approval, Denial, Policy
from strongroom.replies import ROSTER_VERSION_HEADER, TREE_SIZE_HEADER, Reply, rejection
from strongroom.statements import Statement, parse_envelope, parse_json
from strongroom.testing.trust import FakeTrust
from strongroom.testing.workers import FakeWorkers, OnRecord


@dataclass(slots=True)
class FakeMessage:
    """A message as the broker hands it over."""

    routing_key: str
    body: bytes
    headers: Mapping[str, int | str] = field(default_factory=dict)
    message_id: str | None = None
    expiration_seconds: float | None = None


class FakeAuthority(FakeTrust):
    """An authority with two workers and, in place of a broker, `connect`.

    Attributes to read, beside those of FakeTrust: `workers`; `received`, every message that reached a worker.

    Faults to switch on: `broker_down`; `workers_stopped` (messages wait in `queue` until `work_off`); `alter`, a
    function of message and reply that gives the reply that arrives instead, as bytes or as a Reply, or None for
    one that gets lost.
    """

    def __init__(
        self,
        name: str = "vault.example",
        *,
        clock: Callable[[], float] = time.time,
        suite: Suite = Suite.X_WING,
        policy: Policy | None = None,
        officers: Sequence[str] = ("officer-1", "officer-2", "officer-3"),
    ) -> None:
        """Make all keys, roster version 1 and empty logs; `clock` gives seconds since 1970."""
        super().__init__(name, clock=clock, suite=suite, policy=policy, officers=officers)
        self.workers = FakeWorkers(self)
        self.received: list[FakeMessage] = []
        self.queue: list[FakeMessage] = []
        self.broker_down = False
        self.workers_stopped = False
        self.alter: Callable[[FakeMessage, Reply], Reply | bytes | None] = _unaltered

    @asynccontextmanager
    async def connect(self, _home: object = None) -> AsyncIterator["FakeLink"]:
        """Connect as an agent does; raises BrokerUnavailable while `broker_down`."""
        if self.broker_down:
            raise BrokerUnavailable("broker.example does not answer")
        yield FakeLink(self)

    def work_off(self) -> None:
        """Handle what waited while the workers were stopped; nobody is there any more to hear the answers."""
        self.workers_stopped = False
        waiting, self.queue = self.queue, []
        for message in waiting:
            self.handle(message)

    def handle(self, message: FakeMessage) -> Reply:
        """Carry out what a message asks for, and answer as the workers do; unaltered."""
        self.received.append(message)
        escrow = message.routing_key.startswith("v1.escrow.")
        statement: Statement | None = None
        try:
            statement = parse_envelope(message.body)
            reply = self.workers.carry_out(statement)
        except OnRecord as refused:
            receipt = dict(self.recovery_log.receipt(refused.index))
            reply = Reply(statement=self._rejection(refused.error, message, statement), receipt=receipt)
        except PermanentError as error:
            reply = Reply(statement=self._rejection(error, message, statement))
        log = self.escrow_log if escrow else self.recovery_log
        seen = message.headers.get(ROSTER_VERSION_HEADER, 0)
        return Reply(
            statement=reply.statement,
            receipt=reply.receipt,
            consistency=log.consistency(int(message.headers.get(TREE_SIZE_HEADER, 0))) if reply.receipt else None,
            roster=self.roster.statement if int(seen) < self.roster.body.version else None,
        )

    def _rejection(self, error: PermanentError, message: FakeMessage, statement: Statement | None) -> Statement:
        escrow = message.routing_key.startswith("v1.escrow.")
        return rejection(
            error,
            roster=self.roster,
            request=_id_of(statement),
            received=message.body,
            now=self.now,
            key=self.escrow_reply_key if escrow else self.recovery_reply_key,
        )

    # ---- what officers say ----

    def approve(self, request: str, *officers: str) -> None:
        """Let these officers, by names in `officers`, approve a request that waits; the errors are the worker's."""
        for officer in officers:
            case = self.workers.docket.cases[request]
            body = Approval(
                authority=self.name,
                id=new_id(),
                issued_at=self.now,
                expires_at=case.request.expires_at,
                officer=officer,
                request=request,
                request_digest=case.statement.digest.hex(),
                reason="",
            )
            self.workers.carry_out(Statement.sign(Approval.TYPE, body.to_bytes(), self.officers[officer]))

    def deny(self, request: str, officer: str) -> None:
        """Let this officer deny a request that waits; the errors are the worker's."""
        case = self.workers.docket.cases[request]
        body = Denial(
            authority=self.name,
            id=new_id(),
            issued_at=self.now,
            denier=officer,
            denier_kind=Capacity.OFFICER,
            request=request,
            request_digest=case.statement.digest.hex(),
            reason="no",
        )
        self.workers.carry_out(Statement.sign(Denial.TYPE, body.to_bytes(), self.officers[officer]))


class FakeLink:
    """A connection to the fake authority: submits requests and gives their answers, as the broker's client does."""

    def __init__(self, authority: FakeAuthority) -> None:
        """Talk to this authority."""
        self._authority = authority
        self._answers: dict[str, bytes | None] = {}

    async def submit(
        self,
        routing_key: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, int | str],
        expiration_seconds: float | None,
    ) -> None:
        """Hand a message over; a worker takes it at once unless they are stopped. Nothing expires here."""
        authority = self._authority
        if authority.broker_down:
            raise BrokerUnavailable("the connection to broker.example was lost")
        message = FakeMessage(routing_key, body, headers, message_id, expiration_seconds)
        if authority.workers_stopped:
            authority.queue.append(message)
            self._answers[message_id] = None
            return
        altered = authority.alter(message, authority.handle(message))
        self._answers[message_id] = altered.to_bytes() if isinstance(altered, Reply) else altered

    async def answer(self, message_id: str, timeout_seconds: float) -> bytes:  # noqa: ARG002
        """Return the answer, or raise NoAnswer at once where none would ever come."""
        answer = self._answers.pop(message_id)
        if answer is None:
            raise NoAnswer("no answer from broker.example")
        return answer


def _unaltered(_message: FakeMessage, reply: Reply) -> Reply:
    return reply


def _id_of(statement: Statement | None) -> str | None:
    document = parse_json(statement.body, what="body") if statement else None
    return str(document["id"]) if isinstance(document, dict) and "id" in document else None
