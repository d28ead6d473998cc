"""The recovery worker's loop: take a message, commit, answer, acknowledge. In that order (rule 3)."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias

from strongroom.audits import CoverageRequest, LogPageRequest
from strongroom.broker import Consumer, Delivery
from strongroom.errors import (
    BlobInvalid,
    CheckpointInvalid,
    Denied,
    FingerprintMismatch,
    KeyUnknown,
    PermanentError,
    ProofInvalid,
    StrongroomError,
    TransientError,
)
from strongroom.fields import printable
from strongroom.logs import get_logger
from strongroom.mandates import Approval, Denial, Enrolment, Invitation, Revocation
from strongroom.messages import Attestation, DocketRequest, ListingRequest, Request
from strongroom.replies import ROSTER_VERSION_HEADER, TREE_SIZE_HEADER, hint
from strongroom.service import HEARTBEAT_SECONDS, Health, patiently, unless_stopped
from strongroom.topology import check_sender, event_key
from strongroom_recovery.acts import approve, collect, deny, enrol, revoke
from strongroom_recovery.attestations import attest
from strongroom_recovery.coverage import cover
from strongroom_recovery.desk import Answer, Desk, Event, Hints
from strongroom_recovery.dockets import list_requests
from strongroom_recovery.handler import Submission, Unreadable, read
from strongroom_recovery.listing import list_records
from strongroom_recovery.log_pages import show_log
from strongroom_recovery.requests import recover
from strongroom_recovery.rosters import RosterFile

# What is stored is not what was accepted: nobody who asked is to blame, and somebody has to look.
_ALARMING: Final = (ProofInvalid, CheckpointInvalid, BlobInvalid, FingerprintMismatch, KeyUnknown)

Handler: TypeAlias = Callable[[Desk, Submission, Any, Hints, int], Awaitable[Answer]]

_HANDLERS: Final[dict[type, Handler]] = {
    Enrolment: enrol,
    Invitation: collect,
    Revocation: revoke,
    Request: recover,
    Approval: approve,
    Denial: deny,
    Attestation: attest,
    ListingRequest: list_records,
    DocketRequest: list_requests,
    LogPageRequest: show_log,
    CoverageRequest: cover,
}


class RecoveryWorker:
    """Answers the messages of the recovery queue, one at a time.

    One at a time, because then a message that brings the process down counts against its own delivery limit
    and never against its neighbours'.
    """

    def __init__(
        self,
        *,
        desk: Desk,
        roster_file: RosterFile,
        health: Health,
        clock: Callable[[], float] = time.time,
        require_user_id: bool = False,
    ) -> None:
        """Take everything that the worker needs; nothing is opened here."""
        self._require_user_id = require_user_id
        self._desk = desk
        self._roster_file = roster_file
        self._health = health
        self._clock = clock
        self._log = get_logger()

    async def prepare(self) -> None:
        """Adopt a new roster file if there is one; call it before the broker is asked for messages.

        Raises RosterExpired while no current roster is in force, DatabaseUnavailable, FatalError.
        """
        now = int(self._clock())
        await self._roster_file.refresh(now)
        self._desk.registry.current_roster(now)

    async def serve(self, consumer: Consumer, stop: asyncio.Event) -> None:
        """Handle messages until `stop` is set.

        Raises BrokerUnavailable, FatalError, RosterExpired between messages, and, when a message in hand had to
        wait for too long or `stop` was set meanwhile, whatever it waited for. It is then delivered again.
        """
        outcome = "listening"
        while not stop.is_set():
            self._health.beat(outcome)
            await self.prepare()
            batch = await unless_stopped(stop, consumer.next_batch(1, 0.0), HEARTBEAT_SECONDS)
            for delivery in batch or ():
                outcome = await self.handle(consumer, delivery, stop)

    async def handle(self, consumer: Consumer, delivery: Delivery, stop: asyncio.Event) -> str:
        """Bring one message to its end: committed, answered, quarantined if it is bad, acknowledged.

        Return the outcome, as `Answer` has it. Raises as `serve`.
        """
        began = time.monotonic()
        submission, hints = read(delivery.body), _hints(delivery.headers)
        if self._require_user_id and (denied := _denied(delivery, submission)) is not None:
            return await self._turn_away(consumer, delivery, submission, denied)
        answer = await patiently(lambda: self._answer(submission, hints), stop, self._health)
        # From here on what the answer says is in the database and in the log. If this process dies now, the
        # broker delivers the message again, and the same answer is given again.
        if answer.outcome == "quarantined" and answer.refusal is not None:
            await consumer.quarantine(delivery, answer.refusal.code, printable(answer.refusal.message))
        await consumer.reply(delivery, answer.reply.to_bytes())
        if answer.event is not None and (answer.outcome != "repeated" or delivery.redelivered):
            await self._announce(consumer, answer.event)
        await consumer.ack(delivery)
        self._tell(submission, answer, duration_ms=round((time.monotonic() - began) * 1000, 1))
        return answer.outcome

    async def _answer(self, submission: Submission | Unreadable, hints: Hints) -> Answer:
        """Return the answer to a message; whatever is wrong with the message ends in one.

        An error that is no StrongroomError leaves as it is, and ends the process.
        """
        # A roster that was put in place a moment ago, perhaps to remove an officer, counts already.
        await self.prepare()
        now = int(self._clock())
        desk = self._desk
        if isinstance(submission, Unreadable):
            return desk.quarantined(submission, submission.refusal, hints, now)
        asked = submission.asked
        try:
            return await _HANDLERS[type(asked)](desk, submission, asked, hints, now)
        except PermanentError as error:
            return desk.quarantined(submission, error, hints, now)
        except StrongroomError:
            raise
        except Exception:
            # It may have happened after COMMIT: what is true is not known, and nobody may sign a refusal (rule 5).
            # A message that does this every time counts against its own delivery limit and ends in quarantine.
            self._log.critical("unexpected error", message_id=submission.id, kind=submission.kind)
            raise

    async def _announce(self, consumer: Consumer, event: Event) -> None:
        """Tell subscribers; an event is a hint, and no trouble with it keeps anybody from an answer."""
        try:
            await consumer.announce(event_key(event.what, event.principal), event.to_bytes(), message_id=event.id)
        except TransientError as error:
            self._log.warning("event lost", kind=event.what, message_id=event.id, code=error.code)

    async def _turn_away(
        self, consumer: Consumer, delivery: Delivery, submission: Submission | Unreadable, denied: Denied
    ) -> str:
        """Quarantine a message and give no answer: nobody signed the account, so the sender may not be to blame."""
        reason = printable(denied.message)
        await consumer.quarantine(delivery, denied.code, reason)
        await consumer.ack(delivery)
        self._log.warning(
            "message",
            kind=submission.kind,
            outcome="quarantined",
            code=denied.code,
            reason=reason,
            message_id=submission.id,
        )
        return "quarantined"

    def _tell(self, submission: Submission | Unreadable, answer: Answer, *, duration_ms: float) -> None:
        """Write the one line that says what became of a message."""
        refusal = answer.refusal
        line: dict[str, object] = {
            "kind": submission.kind,
            "outcome": answer.outcome,
            "message_id": submission.id,
            "principal": submission.principal,
            "duration_ms": duration_ms,
        }
        if submission.sender is not None:
            line["requester"] = submission.sender
        if answer.records:
            line["records"] = answer.records
        if refusal is None:
            self._log.info("message", **line)
            return
        line |= {"code": refusal.code, "reason": printable(refusal.message)}
        if refusal.hint is not None:
            line["hint"] = refusal.hint
        if isinstance(refusal, _ALARMING):
            self._log.error("message", **line)
        else:
            self._log.warning("message", **line)


def _denied(delivery: Delivery, submission: Submission | Unreadable) -> Denied | None:
    """Return why a message was not sent under its sender's own broker account; None if it was, or is unreadable."""
    if isinstance(submission, Unreadable):
        return None
    sender = submission.sender or delivery.routing_key.rpartition(".")[2]
    try:
        check_sender(delivery.user_id, delivery.routing_key, sender)
    except Denied as error:
        return error
    return None


def _hints(headers: Mapping[str, object]) -> Hints:
    return Hints(hint(headers, TREE_SIZE_HEADER), hint(headers, ROSTER_VERSION_HEADER))
