"""An authority that an agent can connect to, with faults that can be switched on."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from strongroom.crypto.sealing import Suite
from strongroom.errors import BrokerUnavailable, NoAnswer, PermanentError
from strongroom.messages import Policy
from strongroom.replies import ROSTER_VERSION_HEADER, TREE_SIZE_HEADER, Reply, rejection
from strongroom.statements import Statement, parse_envelope, parse_json
from strongroom.testing.trust import FakeTrust
from strongroom.testing.workers import FakeWorkers


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
        except PermanentError as error:
            key = self.escrow_reply_key if escrow else self.recovery_reply_key
            digest = statement.digest if statement else b"\0" * 32
            refusal = rejection(
                error, authority=self.name, request=_id_of(statement), digest=digest, now=self.now, key=key
            )
            reply = Reply(statement=refusal)
        log = self.escrow_log if escrow else self.recovery_log
        seen = message.headers.get(ROSTER_VERSION_HEADER, 0)
        return Reply(
            statement=reply.statement,
            receipt=reply.receipt,
            consistency=log.consistency(int(message.headers.get(TREE_SIZE_HEADER, 0))) if reply.receipt else None,
            roster=self.roster.statement if int(seen) < self.roster.body.version else None,
        )


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
