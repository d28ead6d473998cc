import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import asyncpg
import pytest
from tests.support import authority as make
from tests.support import workers
from tests.support.attacker import take_and_abort, taken
from tests.support.workers import Brokers, Databases

from strongroom import broker as amqp
from strongroom.broker import Delivery
from strongroom.checkpoint_file import working_origin
from strongroom.crypto import tlog
from strongroom.crypto.notes import verify_checkpoint
from strongroom.crypto.signing import key_id
from strongroom.errors import CheckpointInvalid, ConfigurationInvalid, NoAnswer, StateCorrupt
from strongroom.fields import parse_body
from strongroom.leaves import EscrowLeaf, parse_leaf
from strongroom.messages import Escrow, Rejection
from strongroom.receipts import VerifiedReceipt, verify
from strongroom.replies import ROSTER_VERSION_HEADER, TREE_SIZE_HEADER, Reply, parse_reply
from strongroom.roster import Roster
from strongroom.service import Health
from strongroom.statements import Statement
from strongroom.topology import routing_key
from strongroom_escrow import wiring
from strongroom_escrow.settings import EscrowSettings
from strongroom_escrow.worker import EscrowWorker

OTHER = "laptop-0418"
ANSWER_SECONDS_MAX = 60


@dataclass
class Place:
    """A running escrow worker, and a fleet that talks to it."""

    databases: Databases
    brokers: Brokers
    roster: Roster
    folder: Path
    settings: EscrowSettings
    requester: amqp.Requester = field(init=False)

    async def ask(self, body: bytes, headers: Mapping[str, int] | None = None) -> Reply:
        """Send a message as the fleet does and return what comes back."""
        name = hashlib.sha256(body).hexdigest()
        await self.requester.submit(
            routing_key("escrow", make.PRINCIPAL),
            body,
            message_id=name,
            headers=headers or {},
            expiration_seconds=None,
        )
        return parse_reply(await self.requester.answer(name, ANSWER_SECONDS_MAX))

    async def receipt(self, statement: Statement) -> VerifiedReceipt:
        """Send a statement and return its verified receipt."""
        reply = await self.ask(statement.envelope())
        assert reply.receipt is not None, reply.statement and reply.statement.body
        log = self.roster.body.logs.escrow
        return verify(reply.receipt, log.public_key, log.origin)

    async def rejection(self, body: bytes) -> Rejection:
        """Send a message and return the rejection, its signature verified."""
        reply = await self.ask(body)
        assert reply.statement is not None
        signer = self.roster.body.replies.escrow
        reply.statement.verify_signature(signer, key_id(signer))
        return parse_body(reply.statement, Rejection)

    async def rows(self, query: str) -> list[asyncpg.Record]:
        """Ask the database as its superuser."""
        connection = await asyncpg.connect(self.databases.superuser_url)
        try:
            return await connection.fetch(query)
        finally:
            await connection.close()

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[EscrowWorker]:
        """Run an escrow worker beside the test."""
        stop = asyncio.Event()
        async with (
            wiring.escrow_worker(self.settings, Health(None)) as worker,
            amqp.connect(
                self.brokers.url("escrow"), ca_file=self.brokers.ca_file, name="test", timeout_seconds=60
            ) as connection,
            amqp.Consumer(connection, "escrow", prefetch_count=400) as consumer,
        ):
            serving = asyncio.create_task(worker.serve(consumer, stop))
            try:
                yield worker
            finally:
                stop.set()
                await serving


@pytest.fixture
async def place(database: Databases, broker: Brokers, tmp_path: Path) -> AsyncIterator[Place]:
    for queue in ("escrow", "quarantine"):
        broker.rabbitmqctl("purge_queue", "--vhost", "strongroom", queue)
    roster = workers.current_roster()
    await workers.enrol_principals(database, tmp_path, roster, make.PRINCIPAL, OTHER)
    settings = EscrowSettings.model_validate(
        workers.write_files(tmp_path / "escrow", roster, "escrow")
        | workers.server_settings(database, broker, "escrow")
    )
    made = Place(database, broker, roster, tmp_path, settings)
    async with (
        amqp.connect(broker.url("fleet"), ca_file=broker.ca_file, name="fleet", timeout_seconds=60) as connection,
        amqp.Requester(connection) as made.requester,
    ):
        yield made


def escrow(principal: str = make.PRINCIPAL, **changes: Any) -> Statement:
    return make.escrow(principal, **({"issued_at": int(time.time())} | changes))


async def quarantined(place: Place) -> list[amqp.Quarantined]:
    async with amqp.connect(
        place.brokers.url("operator"), ca_file=place.brokers.ca_file, name="operator", timeout_seconds=60
    ) as connection:
        return await amqp.peek(connection, 1000)


async def test_a_receipt_proves_that_the_statement_is_in_the_log_and_the_database(place: Place) -> None:
    """The leaf names id and digest, and the envelope lies in the database byte for byte."""
    statement = escrow()
    async with place.worker():
        receipt = await place.receipt(statement)
    leaf = parse_leaf(receipt.leaf)
    assert isinstance(leaf, EscrowLeaf)
    assert leaf.digest == statement.digest.hex()
    (row,) = await place.rows("SELECT * FROM escrow_statements")
    assert (str(row["id"]), row["envelope"], row["leaf_index"]) == (leaf.id, statement.envelope(), receipt.index)
    assert len(await place.rows("SELECT * FROM records")) == 1


async def test_a_repeat_is_stored_once_and_gets_the_same_leaf(place: Place) -> None:
    """The same statement twice: one row, one leaf, two receipts."""
    statement = escrow()
    async with place.worker():
        first, second = await place.receipt(statement), await place.receipt(statement)
    assert (first.leaf, first.index) == (second.leaf, second.index)
    assert len(await place.rows("SELECT * FROM escrow_leaves")) == 1


async def test_one_bad_member_does_not_touch_its_neighbours(place: Place) -> None:
    """Of a batch with garbage, a stranger and two good statements, the good ones are stored."""
    good = [escrow(), escrow(OTHER)]
    stranger = escrow(key="a stranger")
    bodies = [good[0].envelope(), b"\xff garbage", stranger.envelope(), good[1].envelope()]
    for number, body in enumerate(bodies):
        await place.requester.submit(
            routing_key("escrow", make.PRINCIPAL), body, message_id=str(number), headers={}, expiration_seconds=None
        )
    async with place.worker():
        replies = [parse_reply(await place.requester.answer(str(n), ANSWER_SECONDS_MAX)) for n in range(4)]
    assert [reply.receipt is not None for reply in replies] == [True, False, False, True]
    assert sorted(each.code for each in await quarantined(place)) == ["malformed", "signature_invalid"]
    assert len(await place.rows("SELECT * FROM escrow_statements")) == 2


async def test_a_rejection_is_signed_and_names_field_and_limit(place: Place) -> None:
    """The sender learns which limit was exceeded, and the message lies in quarantine under the same code."""
    too_long = make.altered(make.escrow_body(), principal="x" * 65)
    body = Statement.sign(make.escrow().type, too_long, make.signing_key(make.PRINCIPAL)).envelope()
    async with place.worker():
        rejection = await place.rejection(body)
    assert rejection.code == "limit_exceeded"
    assert "principal" in rejection.message
    assert "64" in rejection.message
    assert [each.code for each in await quarantined(place)] == ["limit_exceeded"]


async def test_the_same_id_with_other_bytes_is_refused_and_the_first_stays(place: Place) -> None:
    """A second statement under a stored id is a conflict; what was stored is unchanged."""
    first = escrow()
    async with place.worker():
        await place.receipt(first)
        rejection = await place.rejection(escrow(id=parse_body(first, Escrow).id).envelope())
    assert rejection.code == "statement_conflict"
    (row,) = await place.rows("SELECT envelope FROM escrow_statements")
    assert row["envelope"] == first.envelope()


async def test_somebody_elses_record_id_is_refused(place: Place) -> None:
    """A record id that another principal holds cannot be taken over."""
    record = make.record()
    async with place.worker():
        await place.receipt(escrow(records=[record]))
        rejection = await place.rejection(escrow(OTHER, records=[make.record(OTHER, id=record.id)]).envelope())
    assert rejection.code == "record_conflict"


async def test_a_receipt_continues_the_checkpoint_that_the_sender_holds(place: Place) -> None:
    """With the size of the held checkpoint in the header, the reply proves that the log only grew."""
    log = place.roster.body.logs.escrow
    async with place.worker():
        held = (await place.receipt(escrow())).checkpoint
        for _ in range(5):
            await place.receipt(escrow())
        reply = await place.ask(escrow().envelope(), {TREE_SIZE_HEADER: held.size})
    assert reply.receipt is not None
    assert reply.consistency is not None
    now = verify(reply.receipt, log.public_key, log.origin).checkpoint
    assert now.size == 7
    tlog.verify_consistency(held.size, held.root, now.size, now.root, list(reply.consistency.hashes))


async def test_a_newer_roster_comes_with_the_reply_and_only_then(place: Place) -> None:
    """A sender that names the roster in force gets none; one that names none gets it."""
    async with place.worker():
        without = await place.ask(escrow().envelope(), {ROSTER_VERSION_HEADER: 1})
        given = await place.ask(escrow().envelope())
    assert without.roster is None
    assert given.roster is not None
    assert given.roster.digest == place.roster.digest


async def test_a_replacement_counts_at_once_for_a_worker_that_knew_the_old_key(place: Place) -> None:
    """A running worker refuses the former key with the next message after the replacement was logged."""
    invited = make.invitation(officers=("officer-a", "officer-b"), replaces=True)
    async with place.worker():
        await place.receipt(escrow())
        await workers.enrol(
            place.databases, place.folder, place.roster, [make.enrolment(invited, key="the new key")]
        )
        rejection = await place.rejection(escrow().envelope())
        await place.receipt(escrow(key="the new key"))
    assert rejection.code == "principal_revoked"


async def test_two_workers_share_the_queue_and_one_log(place: Place) -> None:
    """Two workers at once: every statement once, leaves without gap, the last checkpoint over all of them."""
    statements = [escrow() for _ in range(60)]
    other = Place(place.databases, place.brokers, place.roster, place.folder, place.settings)
    other.settings = place.settings.model_copy(
        update={"state_dir": place.folder / "second", "batch_messages_max": 7}
    )
    async with place.worker(), other.worker():
        receipts = await asyncio.gather(*(place.receipt(statement) for statement in statements))
    assert sorted(receipt.index for receipt in receipts) == list(range(60))
    (row,) = await place.rows("SELECT note FROM escrow_checkpoints ORDER BY size DESC LIMIT 1")
    log = place.roster.body.logs.escrow
    assert verify_checkpoint(row["note"], working_origin(log.origin), log.public_key).size == 60


async def test_a_commit_that_a_thief_makes_fail_gives_him_no_receipt(place: Place) -> None:
    """He copies note and leaves out of it; no agent takes them, and the worker's next try stores the key."""
    statement, log = escrow(), place.roster.body.logs.escrow
    await take_and_abort(place.databases, "escrow", times=1)
    async with place.worker():
        receipt = await place.receipt(statement)
    (loot,) = await taken(place.databases, times=1)
    stolen = parse_leaf(loot.leaves[-1])
    assert isinstance(stolen, EscrowLeaf)
    assert stolen.digest == statement.digest.hex()
    for forged in loot.receipts(log.origin):
        with pytest.raises(CheckpointInvalid):
            verify(forged.to_document(), log.public_key, log.origin)
    assert (receipt.index, receipt.checkpoint.size) == (0, 1)


async def test_a_spoilt_enrolment_costs_its_own_principal_and_nobody_else(place: Place) -> None:
    """One edited row: the other principal's keys are stored, and the sender concerned is not told a falsehood."""
    good, spoilt = escrow(), escrow(OTHER)
    connection = await asyncpg.connect(place.databases.superuser_url)
    try:
        await connection.execute("DELETE FROM trust_statements WHERE leaf_index = 2")
    finally:
        await connection.close()
    body = spoilt.envelope()
    await place.requester.submit(
        routing_key("escrow", OTHER), body, message_id="spoilt", headers={}, expiration_seconds=None
    )
    async with place.worker():
        await place.receipt(good)
        await place.receipt(good)
    with pytest.raises(NoAnswer):
        await place.requester.answer("spoilt", 0.1)
    assert [each.code for each in await quarantined(place)] == ["proof_invalid"]


async def test_an_edited_leaf_index_gives_no_receipt_and_stops_nobody(place: Place) -> None:
    """A row that points at another statement's leaf, or at none, is quarantined when its statement comes again."""
    first, second = escrow(), escrow()
    async with place.worker():
        await place.receipt(first)
        await place.receipt(second)
        connection = await asyncpg.connect(place.databases.superuser_url)
        try:
            await connection.execute("UPDATE escrow_statements SET leaf_index = 10 - leaf_index")
        finally:
            await connection.close()
        for number, statement in enumerate((first, second)):
            await place.requester.submit(
                routing_key("escrow", make.PRINCIPAL),
                statement.envelope(),
                message_id=str(number),
                headers={},
                expiration_seconds=None,
            )
        await place.receipt(escrow())
    assert sorted(each.code for each in await quarantined(place)) == ["proof_invalid", "proof_invalid"]


@pytest.mark.parametrize("given", ["sealing_keys_dir", "keyring"])
def test_an_escrow_worker_that_is_given_sealing_keys_refuses_to_start(
    given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings that name the sealing keys are errors here."""
    for name, setting in EscrowSettings.model_fields.items():
        if setting.is_required() or name == given:
            monkeypatch.setenv(f"STRONGROOM_{name.upper()}", "/keys")
    with pytest.raises(ConfigurationInvalid, match="sealing"):
        EscrowSettings.load()


@pytest.mark.parametrize("key", ["log", "reply"])
async def test_a_running_worker_stores_nothing_once_a_roster_names_another_key_for_it(
    place: Place, key: str
) -> None:
    """It ends with the message in hand: what it would sign nobody would believe."""
    other = make.signing_key("another key").public_key
    body = place.roster.body
    log = body.logs.escrow.model_copy(update={"public_key": other, "former": [body.logs.escrow.public_key]})
    changed = (
        {"logs": body.logs.model_copy(update={"escrow": log})}
        if key == "log"
        else {"replies": body.replies.model_copy(update={"escrow": other})}
    )
    statement = escrow()
    delivery = SimpleNamespace(body=statement.envelope(), headers={}, user_id=None, routing_key="")
    async with wiring.escrow_worker(place.settings, Health(None)) as worker:
        await workers.log_roster(place.databases, place.folder, make.next_roster(place.roster, **changed))
        with pytest.raises(StateCorrupt, match=f"{key} key: is not the escrow worker's"):
            await worker._settle([cast("Delivery", delivery)])
    assert await place.rows("SELECT FROM escrow_statements") == []
