"""The escrow worker's loop: take a batch, commit it, answer, acknowledge. In that order (rule 3)."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from strongroom.broker import Consumer, Delivery
from strongroom.crypto.signing import SigningKey
from strongroom.database import Database, Transaction
from strongroom.errors import ConfigurationInvalid, Denied, FatalError, PermanentError, ProofInvalid, StateCorrupt
from strongroom.fields import printable
from strongroom.follower import RecoveryLogFollower
from strongroom.log_writer import LogWriter
from strongroom.logs import get_logger
from strongroom.receipts import Receipt
from strongroom.registry import Registry
from strongroom.replies import ROSTER_VERSION_HEADER, TREE_SIZE_HEADER, Consistency, Reply, hint, rejection
from strongroom.roster import Roster
from strongroom.service import HEARTBEAT_SECONDS, Health, patiently, unless_stopped
from strongroom.statements import Statement
from strongroom.topology import check_sender
from strongroom_escrow import store
from strongroom_escrow.handler import Submission, adopt, compare, judge, leaf, logged_indexes, read, settle
from strongroom_escrow.settings import EscrowSettings

PUBLISH_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Settled:
    """A committed batch: every submission has a leaf index or a refusal; receipts by leaf index."""

    submissions: list[Submission]
    receipts: dict[int, Receipt]
    proofs: dict[int, list[bytes]]


class EscrowWorker:
    """Stores batches of escrow messages and proves to each sender that it did."""

    def __init__(
        self,
        *,
        settings: EscrowSettings,
        database: Database,
        registry: Registry,
        follower: RecoveryLogFollower,
        writer: LogWriter,
        reply_key: SigningKey,
        check_usable: Callable[[Roster], None],
        health: Health,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take everything that the worker needs; nothing is opened here."""
        self._settings = settings
        self._database = database
        self._registry = registry
        self._follower = follower
        self._writer = writer
        self._reply_key = reply_key
        self._check_usable = check_usable
        self._health = health
        self._clock = clock
        self._log = get_logger()
        self._published = 0
        self._published_at = time.monotonic()

    async def prepare(self) -> None:
        """Follow the recovery log; call it before the broker is asked for messages.

        Raises RosterExpired while no current roster is in force, ConfigurationInvalid when that names other keys
        than this worker's, DatabaseUnavailable, LogForked.
        """
        async with self._database.reading() as tx:
            await self._follower.advance(tx)
        self._check_usable(self._registry.current_roster(int(self._clock())))

    async def serve(self, consumer: Consumer, stop: asyncio.Event) -> None:
        """Handle batches until `stop` is set. Raises BrokerUnavailable, FatalError, and others after long waits."""
        wait_seconds = self._settings.batch_wait_ms / 1000
        while not stop.is_set():
            self._health.beat("listening")
            coming = consumer.next_batch(self._settings.batch_messages_max, wait_seconds)
            # Auditors can wait a second for the newest checkpoint; a busy worker's next batch cannot.
            patience = HEARTBEAT_SECONDS if self._writer.size == self._published else PUBLISH_SECONDS
            batch = await unless_stopped(stop, coming, patience)
            if batch:
                await self.handle(consumer, batch, stop)
            if not batch or time.monotonic() - self._published_at > PUBLISH_SECONDS:
                await self._publish()

    async def _publish(self) -> None:
        """Put the checkpoint proper of what is committed into the database, for auditors (SPEC 7.5)."""
        if self._writer.size == self._published:
            return
        published = await self._writer.published()
        async with self._database.transaction() as tx:
            await store.publish(tx, published.size, published.note)
        self._published, self._published_at = published.size, time.monotonic()

    async def handle(self, consumer: Consumer, batch: Sequence[Delivery], stop: asyncio.Event) -> None:
        """Bring one batch to its end: committed, answered, quarantined where refused, acknowledged."""
        began = time.monotonic()
        settled = await patiently(lambda: self._settle(batch), stop, self._health)
        # From here on the batch is in the database and in the log. If this process dies now, the broker
        # delivers it again, and the same receipts are given again.
        pairs = list(zip(batch, settled.submissions, strict=True))
        refused = [(delivery, each) for delivery, each in pairs if each.refusal is not None]
        await asyncio.gather(*(self._refuse(consumer, delivery, each) for delivery, each in refused))
        for delivery, submission in pairs:
            if submission.leaf_index is not None:
                await consumer.reply(delivery, self._receipt_reply(delivery, submission.leaf_index, settled))
        await consumer.ack_through(batch[-1])
        self._log.info(
            "batch",
            outcome="stored",
            count=len(batch),
            stored=len(batch) - len(refused),
            refused=len(refused),
            records=sum(len(each.escrow.records) for each in settled.submissions if each.escrow),
            tree_size=self._writer.size,
            duration_ms=round((time.monotonic() - began) * 1000, 1),
        )

    async def _settle(self, batch: Sequence[Delivery]) -> Settled:
        now = int(self._clock())
        submissions = [self._read(delivery) for delivery in batch]
        principals = {each.escrow.principal for each in submissions if each.escrow is not None}
        async with self._database.transaction() as tx:
            await self._follow(tx, now)
            await self._admit(tx, principals, submissions)
            self._judge(submissions, now)
            # Verified outside the lock, so that several workers can verify at once.
            judged_at_size = self._registry.size
            await self._writer.lock(tx)
            await self._follow(tx, now)
            if self._registry.size != judged_at_size:
                await self._admit(tx, principals, submissions)
                self._judge(submissions, now)
            fresh = settle(submissions, await store.existing(tx, submissions), self._writer.size)
            appended = await self._writer.append(tx, [leaf(each, now) for each in fresh])
            adopt(submissions, fresh, appended.first_index)
            if fresh:
                await store.insert(tx, fresh, now)
            older = logged_indexes(submissions, appended.first_index)
            logged = await self._writer.leaf_proofs(tx, older, appended.size)
            leaves = {index: proof.leaf for index, proof in logged.items()}
            for submission in submissions:
                compare(submission, leaves)
            held = {hint(delivery.headers, TREE_SIZE_HEADER) for delivery in batch}
            sizes = {each for each in held if 0 < each <= appended.size}
            proofs = await self._writer.consistency(tx, sizes, appended.size)
        # COMMIT has succeeded: the batch is durable, and only now the log signs for its leaves.
        published = await self._writer.committed(appended)
        receipts = {index: published.receipt_of(proof) for index, proof in logged.items()}
        receipts |= {
            each.leaf_index: published.receipt(each.leaf_index) for each in fresh if each.leaf_index is not None
        }
        return Settled(submissions, receipts, proofs)

    async def _follow(self, tx: Transaction, now: int) -> None:
        """Take in what the recovery log says until now.

        Raises StateCorrupt when the roster in force names other keys for this worker: nobody would believe what it
        signs. So it ends, its messages are delivered again, and it is to be started again with other key files.
        """
        await self._follower.advance(tx)
        try:
            self._check_usable(self._registry.current_roster(now))
        except ConfigurationInvalid as error:
            raise StateCorrupt(error.message, hint=error.hint) from None

    async def _admit(self, tx: Transaction, principals: set[str], submissions: Sequence[Submission]) -> None:
        """Make the principals' keys known; one whose stored enrolment is spoilt has its own messages refused."""
        with suppress(StateCorrupt):
            await self._follower.admit(tx, principals)
            return
        for submission in submissions:
            if submission.escrow is not None and submission.refusal is None:
                try:
                    await self._follower.admit(tx, [submission.escrow.principal])
                except StateCorrupt as error:
                    submission.refusal = ProofInvalid(error.message, hint=error.hint)

    def _read(self, delivery: Delivery) -> Submission:
        try:
            submission = read(delivery.body)
            if self._settings.escrow_require_user_id and submission.escrow is not None:
                check_sender(delivery.user_id, delivery.routing_key, submission.escrow.principal)
        except MemoryError:
            raise
        except Denied as error:
            return Submission(delivery.body, refusal=error)
        except Exception:  # noqa: BLE001  no input brings a worker down (rule 5)
            return self._baffled(Submission(delivery.body))
        return submission

    def _judge(self, submissions: Sequence[Submission], now: int) -> None:
        self._registry.current_roster(now)
        for submission in submissions:
            try:
                judge(submission, self._registry, now)
            except (FatalError, MemoryError):
                raise
            except Exception:  # noqa: BLE001  no input brings a worker down (rule 5)
                self._baffled(submission)

    def _baffled(self, submission: Submission) -> Submission:
        self._log.exception("unexpected error", message_id=submission.id)
        submission.refusal = PermanentError("the worker could not handle this message")
        return submission

    def _receipt_reply(self, delivery: Delivery, leaf_index: int, settled: Settled) -> bytes:
        held = hint(delivery.headers, TREE_SIZE_HEADER)
        consistency = Consistency(held, tuple(settled.proofs[held])) if held in settled.proofs else None
        return Reply(
            receipt=settled.receipts[leaf_index].to_document(),
            consistency=consistency,
            roster=self._newer_roster(delivery),
        ).to_bytes()

    def _rejection_reply(self, delivery: Delivery, submission: Submission, error: PermanentError) -> bytes:
        statement = rejection(
            error,
            roster=self._registry.roster,
            request=submission.id,
            received=submission.envelope,
            now=int(self._clock()),
            key=self._reply_key,
        )
        return Reply(statement=statement, roster=self._newer_roster(delivery)).to_bytes()

    def _newer_roster(self, delivery: Delivery) -> Statement | None:
        roster = self._registry.roster
        return roster.statement if hint(delivery.headers, ROSTER_VERSION_HEADER) < roster.body.version else None

    async def _refuse(self, consumer: Consumer, delivery: Delivery, submission: Submission) -> None:
        error = submission.refusal
        if error is None:
            raise ValueError("only a refused submission is refused")
        await consumer.quarantine(delivery, error.code, printable(error.message))
        if submission.is_told:
            await consumer.reply(delivery, self._rejection_reply(delivery, submission, error))
        self._log.warning(
            "message",
            kind="escrow",
            outcome="quarantined",
            code=error.code,
            reason=printable(error.message),
            message_id=submission.id,
            principal=submission.escrow.principal if submission.escrow else None,
        )
