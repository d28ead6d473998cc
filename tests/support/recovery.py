"""A place with a recovery worker: a fleet and officers that ask it, and an escrow log that the test writes."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
from tests.support import authority as make
from tests.support import workers
from tests.support.workers import Brokers, Databases

from strongroom import broker as amqp
from strongroom import database
from strongroom.crypto.notes import Checkpoint, parse_checkpoint, sign_checkpoint
from strongroom.crypto.signing import key_id
from strongroom.fields import Body, parse_body
from strongroom.leaves import EscrowLeaf, Leaf, parse_leaf
from strongroom.log_writer import LogName, LogWriter
from strongroom.mandates import Enrolment
from strongroom.messages import Escrow, Rejection, Release
from strongroom.receipts import VerifiedReceipt, verify
from strongroom.replies import Reply, parse_reply
from strongroom.roster import Roster
from strongroom.service import Health
from strongroom.statements import Statement
from strongroom.topology import Verb, routing_key
from strongroom_recovery import wiring
from strongroom_recovery.settings import RecoverySettings
from strongroom_recovery.worker import RecoveryWorker

ANSWER_SECONDS_MAX = 60

_VERBS: Mapping[str, Verb] = {Enrolment.TYPE: "enrol"}
_INSERT_STATEMENT = "INSERT INTO escrow_statements VALUES ($1, $2, $3, $4, $5, $6)"
_INSERT_RECORD = """
INSERT INTO records (
    id, statement_id, position, principal, name, issued_at, kid, leaf_index, labels, supersedes, wrapped
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""

B = TypeVar("B", bound=Body)


@dataclass
class Place:
    """A database and a broker, the files of a recovery worker, and somebody who asks it.

    now: the time by the worker's clock, in seconds; tests turn it.
    """

    databases: Databases
    brokers: Brokers
    roster: Roster
    folder: Path
    settings: RecoverySettings
    now: int = make.NOW
    requester: amqp.Requester = field(init=False)

    # ---- asking ----

    async def ask(self, body: bytes, headers: Mapping[str, int] | None = None, *, verb: Verb = "recovery") -> Reply:
        """Send a message as the fleet does and return what comes back."""
        name = await self.submit(body, headers, verb=verb)
        return await self.answer(name)

    async def submit(
        self, body: bytes, headers: Mapping[str, int] | None = None, *, verb: Verb = "recovery"
    ) -> str:
        """Send a message and return the name under which its answer comes."""
        name = hashlib.sha256(body).hexdigest()
        await self.requester.submit(
            routing_key(verb, make.PRINCIPAL), body, message_id=name, headers=headers or {}, expiration_seconds=None
        )
        return name

    async def answer(self, name: str) -> Reply:
        """Wait for an answer."""
        return parse_reply(await self.requester.answer(name, ANSWER_SECONDS_MAX))

    async def enrol(self, statement: Statement) -> VerifiedReceipt:
        """Send an enrolment and return its verified receipt."""
        reply = await self.ask(statement.envelope(), verb="enrol")
        return self.receipt(reply)

    async def release(self, statement: Statement) -> Release:
        """Send a request and return the release, its signature and its place in the log verified."""
        reply = await self.ask(statement.envelope())
        release = self.signed(reply, Release)
        leaf = parse_leaf(self.receipt(reply).leaf)
        assert leaf.type == "release"
        assert reply.statement is not None
        assert (leaf.digest, leaf.release) == (statement.digest.hex(), reply.statement.digest.hex())
        assert (release.request, release.request_digest) == (leaf.id, leaf.digest)
        return release

    async def rejection(self, body: bytes, *, verb: Verb = "recovery") -> Rejection:
        """Send a message and return the rejection, its signature verified."""
        return self.signed(await self.ask(body, verb=verb), Rejection)

    async def refusal(self, statement: Statement) -> Rejection:
        """Send a request and return the rejection; a receipt proves that the request is on record.

        So is the refusal, unless the fault is the authority's: that decides nothing, and the request waits.
        """
        reply = await self.ask(statement.envelope())
        rejection = self.signed(reply, Rejection)
        leaf = parse_leaf(self.receipt(reply).leaf)
        if rejection.code in {"proof_invalid", "checkpoint_invalid", "key_unknown"}:
            assert leaf.type == "request"
            assert leaf.digest == statement.digest.hex()
        else:
            assert leaf.type == "refusal"
            assert (leaf.digest, leaf.code) == (statement.digest.hex(), rejection.code)
        return rejection

    def signed(self, reply: Reply, model: type[B]) -> B:
        """Return the body of the reply's statement, which the recovery worker's reply key signed."""
        assert reply.statement is not None
        signer = self.roster.body.replies.recovery
        reply.statement.verify_signature(signer, key_id(signer))
        return parse_body(reply.statement, model)

    def receipt(self, reply: Reply) -> VerifiedReceipt:
        """Return the reply's receipt of the recovery log, verified."""
        assert reply.receipt is not None, reply.statement and reply.statement.body
        log = self.roster.body.logs.recovery
        return verify(reply.receipt, log.public_key, log.origin)

    # ---- the worker ----

    @asynccontextmanager
    async def worker(self, *, health: Health | None = None, **settings: Any) -> AsyncIterator[RecoveryWorker]:
        """Run a recovery worker beside the test, with these settings changed."""
        async with self.serving(health=health, **settings) as (worker, task):
            yield worker
        task.result()

    @asynccontextmanager
    async def serving(
        self, *, health: Health | None = None, **settings: Any
    ) -> AsyncIterator[tuple[RecoveryWorker, asyncio.Task[None]]]:
        """Run a recovery worker beside the test and yield it with its task, whose end is the test's to look at."""
        stop = asyncio.Event()
        changed = self.settings.model_copy(update=settings)
        async with (
            wiring.recovery_worker(
                changed, wiring.read_keys(changed), health or Health(None), clock=lambda: self.now
            ) as worker,
            amqp.connect(
                self.brokers.url("recovery"), ca_file=self.brokers.ca_file, name="test", timeout_seconds=60
            ) as connection,
            amqp.Consumer(connection, "recovery", prefetch_count=1) as consumer,
        ):
            task = asyncio.create_task(worker.serve(consumer, stop))
            try:
                yield worker, task
            finally:
                stop.set()
                await asyncio.wait({task})

    def write_roster(self, roster: Roster) -> None:
        """Replace the worker's roster file, as an operator would."""
        fresh = self.settings.roster_file.with_suffix(".new")
        fresh.write_bytes(roster.statement.envelope())
        fresh.replace(self.settings.roster_file)

    # ---- what is stored ----

    async def rows(self, query: str, *args: object) -> list[asyncpg.Record]:
        """Ask the database as its superuser."""
        connection = await asyncpg.connect(self.databases.superuser_url)
        try:
            return await connection.fetch(query, *args)
        finally:
            await connection.close()

    async def log(self) -> list[Leaf]:
        """Return the leaves of the recovery log."""
        return [
            parse_leaf(row["leaf"]) for row in await self.rows("SELECT leaf FROM recovery_leaves ORDER BY index")
        ]

    async def quarantined(self) -> list[str]:
        """Return the codes of the messages in quarantine."""
        async with _operator(self.brokers) as connection:
            return [each.code for each in await amqp.peek(connection, 1000)]

    async def escrow(self, *statements: Statement, leaves: Sequence[bytes] | None = None) -> None:
        """Put escrow statements into the database and the escrow log, as the escrow worker would."""
        log = self.roster.body.logs.escrow
        writer = LogWriter(
            LogName.ESCROW, log.origin, make.signing_key("escrow log"), self.folder / "escrow.checkpoint"
        )
        bodies = [parse_body(statement, Escrow) for statement in statements]
        if leaves is None:
            leaves = [_leaf(*pair) for pair in zip(statements, bodies, strict=True)]
        async with database.connect(self.databases.url("strongroom_escrow")) as opened:
            await writer.open(opened)
            async with opened.transaction() as tx:
                await writer.lock(tx)
                appended = await writer.append(tx, leaves)
                for index, (statement, body) in enumerate(
                    zip(statements, bodies, strict=True), start=appended.first_index
                ):
                    await _insert(tx, statement, body, index)
            await writer.committed(appended)

    async def append(self, *leaves: Leaf) -> int:
        """Put leaves into the recovery log, as another worker of it would; return the index of the first."""
        log = self.roster.body.logs.recovery
        writer = LogWriter(
            LogName.RECOVERY,
            log.origin,
            make.signing_key("recovery log"),
            self.settings.state_dir / "recovery.checkpoint",
        )
        async with database.connect(self.databases.url("strongroom_recovery")) as opened:
            await writer.open(opened)
            async with opened.transaction() as tx:
                await writer.lock(tx)
                appended = await writer.append(tx, [leaf.to_bytes() for leaf in leaves])
            await writer.committed(appended)
        return appended.first_index

    async def escrow_head(self) -> Checkpoint:
        """Return the newest checkpoint of the escrow log, as the escrow worker would sign it for everybody."""
        [row] = await self.rows("SELECT note FROM escrow_checkpoints ORDER BY size DESC LIMIT 1")
        working, _ = parse_checkpoint(row["note"])
        return Checkpoint(self.roster.body.logs.escrow.origin, working.size, working.root)

    async def publish(self) -> str:
        """Put the checkpoint proper of the escrow log into the database, as the escrow worker does; return it."""
        key, head = make.signing_key("escrow log"), await self.escrow_head()
        note = sign_checkpoint(head, key.sign, key.public_key)
        async with database.connect(self.databases.url("strongroom_escrow")) as opened, opened.transaction() as tx:
            await tx.execute("INSERT INTO escrow_published VALUES ($1, $2)", head.size, note)
        return note


def _operator(brokers: Brokers) -> AbstractAsyncContextManager[amqp.Connection]:
    return amqp.connect(brokers.url("operator"), ca_file=brokers.ca_file, name="operator", timeout_seconds=60)


def _leaf(statement: Statement, body: Escrow) -> bytes:
    signer = statement.signatures[0].key_id
    return EscrowLeaf(
        time=make.NOW, id=body.id, digest=statement.digest.hex(), principal=body.principal, key=signer
    ).to_bytes()


async def _insert(tx: database.Transaction, statement: Statement, body: Escrow, index: int) -> None:
    id_ = UUID(body.id)
    await tx.execute(
        _INSERT_STATEMENT, id_, statement.digest, body.principal, statement.envelope(), index, make.NOW
    )
    for position, record in enumerate(body.records):
        await tx.execute(
            _INSERT_RECORD,
            UUID(record.id),
            id_,
            position,
            body.principal,
            record.name,
            body.issued_at,
            record.kid,
            index,
            json.dumps(record.labels),
            [UUID(each) for each in record.supersedes],
            bytes.fromhex(record.wrapping.digest) if record.wrapping else None,
        )


@asynccontextmanager
async def place_of(
    databases: Databases, brokers: Brokers, folder: Path, *, enrolled: Sequence[str] = ()
) -> AsyncIterator[Place]:
    """Make a place with empty queues in which these principals are enrolled, each with the key of its name."""
    async with _operator(brokers) as connection:
        channel = await connection.channel(confirms=False)
        for queue in ("recovery", "quarantine"):
            await channel.queue_purge(queue)
    roster = make.roster()
    if enrolled:
        await workers.enrol_principals(databases, folder, roster, *enrolled)
    settings = RecoverySettings.model_validate(
        workers.write_files(folder / "recovery", roster, "recovery")
        | workers.server_settings(databases, brokers, "recovery")
    )
    place = Place(databases, brokers, roster, folder, settings)
    async with (
        amqp.connect(brokers.url("fleet"), ca_file=brokers.ca_file, name="fleet", timeout_seconds=60) as connection,
        amqp.Requester(connection) as place.requester,
    ):
        yield place
