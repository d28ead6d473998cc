"""Broker accounts as the workers' second line: `user_id` where it is required, and CC headers where they lead."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from deploy.local.rabbitmq import PrivateRabbit
from structlog.testing import capture_logs
from tests.conftest import FreshDatabase
from tests.support import authority as make
from tests.support import requests as ask
from tests.support import workers
from tests.support.accounts import own_account
from tests.support.amqp import entry, long, publish_raw, short
from tests.support.recovery import Place, place_of

from strongroom import broker as amqp
from strongroom.errors import NoAnswer
from strongroom.fields import Capacity
from strongroom.messages import Listing
from strongroom.replies import Reply, parse_reply
from strongroom.service import Health
from strongroom.statements import Statement
from strongroom.topology import ESCROW_QUEUE, EXCHANGE, Verb, routing_key
from strongroom_escrow import wiring
from strongroom_escrow.settings import EscrowSettings

OTHER = "laptop-0418"
ANSWER_SECONDS_MAX = 60


class Sender:
    """Somebody with an open connection to the broker."""

    def __init__(self, requester: amqp.Requester) -> None:
        self._requester = requester

    async def send(self, verb: Verb, name: str, body: bytes) -> str:
        """Publish under the routing key of `name`; return the name of the answer."""
        message_id = hashlib.sha256(body).hexdigest()
        await self._requester.submit(
            routing_key(verb, name), body, message_id=message_id, headers={}, expiration_seconds=None
        )
        return message_id

    async def ask(self, verb: Verb, name: str, body: bytes) -> Reply:
        """Publish and return the answer."""
        return parse_reply(await self._requester.answer(await self.send(verb, name, body), ANSWER_SECONDS_MAX))

    async def was_answered(self, message_id: str, verb: Verb, name: str = make.PRINCIPAL) -> bool:
        """Whether an answer to an earlier message has come: one to a later message comes behind it."""
        reply = await self.ask(verb, name, b"garbage that everybody is told about")
        assert reply.statement is not None
        try:
            await self._requester.answer(message_id, 0)
        except NoAnswer:
            return False
        return True


@asynccontextmanager
async def sender(broker: PrivateRabbit, url: str, name: str) -> AsyncIterator[Sender]:
    """Connect as an agent of this name does."""
    async with (
        amqp.connect(url, ca_file=broker.ca_file, name="test") as connection,
        amqp.Requester(connection, name=name) as requester,
    ):
        yield Sender(requester)


async def quarantined(broker: PrivateRabbit) -> list[tuple[str, str]]:
    """Code and first words of everything in the quarantine."""
    async with amqp.connect(broker.url("operator"), ca_file=broker.ca_file, name="operator") as connection:
        return [(each.code, each.reason.partition(":")[0]) for each in await amqp.peek(connection, 100)]


# ---- escrow ----


@asynccontextmanager
async def escrow_worker(
    database: FreshDatabase, broker: PrivateRabbit, folder: Path, *, require_user_id: bool
) -> AsyncIterator[None]:
    """Run an escrow worker with two enrolled principals, and with empty queues."""
    for queue in ("escrow", "recovery", "quarantine"):
        broker.rabbitmqctl("purge_queue", "--vhost", "strongroom", queue)
    roster = workers.current_roster()
    await workers.enrol_principals(database, folder, roster, make.PRINCIPAL, OTHER)
    settings = EscrowSettings.model_validate(
        workers.write_files(folder / "escrow", roster, "escrow")
        | workers.server_settings(database, broker, "escrow")
        | {"escrow_require_user_id": require_user_id}
    )
    stop = asyncio.Event()
    async with (
        wiring.escrow_worker(settings, Health(None)) as worker,
        amqp.connect(broker.url("escrow"), ca_file=broker.ca_file, name="test") as connection,
        amqp.Consumer(connection, ESCROW_QUEUE, prefetch_count=400) as consumer,
    ):
        serving = asyncio.create_task(worker.serve(consumer, stop))
        try:
            yield
        finally:
            stop.set()
            await serving


def escrow(principal: str = make.PRINCIPAL) -> Statement:
    """A statement of now, signed by its principal."""
    return make.escrow(principal, issued_at=int(time.time()))


async def test_escrow_takes_what_comes_from_its_senders_own_account_alone(
    database: FreshDatabase, broker: PrivateRabbit, tmp_path: Path
) -> None:
    """Over the fleet's account, or another host's, a genuine statement is quarantined, logged, and not answered."""
    with (
        own_account(broker, make.PRINCIPAL) as url,
        own_account(broker, OTHER) as others_url,
        capture_logs() as logs,
    ):
        async with (
            escrow_worker(database, broker, tmp_path, require_user_id=True),
            sender(broker, broker.url("fleet"), make.PRINCIPAL) as fleet,
            sender(broker, others_url, OTHER) as other,
            sender(broker, url, make.PRINCIPAL) as own,
        ):
            shared = await fleet.send("escrow", make.PRINCIPAL, escrow().envelope())
            lifted = await other.send("escrow", OTHER, escrow().envelope())
            assert (await own.ask("escrow", make.PRINCIPAL, escrow().envelope())).receipt is not None
            assert not await fleet.was_answered(shared, "escrow")
            assert (await other.ask("escrow", OTHER, escrow(OTHER).envelope())).receipt is not None
            with pytest.raises(NoAnswer):
                await other._requester.answer(lifted, 0)
    assert sorted(await quarantined(broker)) == [
        ("denied", "user_id"),
        ("denied", "user_id"),
        ("malformed", "envelope"),
    ]
    assert [line["reason"] for line in logs if line.get("code") == "denied"] == [
        f"user_id: is missing, must be '{make.PRINCIPAL}'",
        f"user_id: is '{OTHER}', the body names '{make.PRINCIPAL}'",
    ]


async def test_a_stored_statement_is_not_proven_again_to_another_account(
    database: FreshDatabase, broker: PrivateRabbit, tmp_path: Path
) -> None:
    """A repeat is judged like a first message."""
    statement = escrow().envelope()
    with own_account(broker, make.PRINCIPAL) as url:
        async with (
            escrow_worker(database, broker, tmp_path, require_user_id=True),
            sender(broker, broker.url("fleet"), make.PRINCIPAL) as fleet,
            sender(broker, url, make.PRINCIPAL) as own,
        ):
            assert (await own.ask("escrow", make.PRINCIPAL, statement)).receipt is not None
            repeated = await fleet.send("escrow", make.PRINCIPAL, statement)
            assert (await own.ask("escrow", make.PRINCIPAL, statement)).receipt is not None
            assert not await fleet.was_answered(repeated, "escrow")
    assert ("denied", "user_id") in await quarantined(broker)


async def test_without_the_setting_the_signature_alone_says_who_it_is(
    database: FreshDatabase, broker: PrivateRabbit, tmp_path: Path
) -> None:
    """The shared account, another's account, another's routing key: all the same to the worker."""
    with own_account(broker, OTHER) as others_url:
        async with (
            escrow_worker(database, broker, tmp_path, require_user_id=False),
            sender(broker, broker.url("fleet"), make.PRINCIPAL) as fleet,
            sender(broker, others_url, OTHER) as other,
        ):
            assert (await fleet.ask("escrow", make.PRINCIPAL, escrow().envelope())).receipt is not None
            assert (await fleet.ask("escrow", "nobody-at-all", escrow().envelope())).receipt is not None
            assert (await other.ask("escrow", OTHER, escrow().envelope())).receipt is not None


@pytest.mark.parametrize("require_user_id", [False, True])
async def test_a_carbon_copy_gets_a_message_into_a_queue_and_no_further(
    *, database: FreshDatabase, broker: PrivateRabbit, tmp_path: Path, require_user_id: bool
) -> None:
    """CC passes the topic check; the worker judges the signature, and with the setting also the account."""
    genuine, forged = escrow(OTHER), make.escrow(OTHER, key=make.PRINCIPAL, issued_at=int(time.time()))
    copied = long(entry(b"CC", b"A", long(b"S" + long(routing_key("escrow", OTHER).encode()))))
    with own_account(broker, "bob", "officer") as officers_url, own_account(broker, OTHER) as url:
        async with (
            escrow_worker(database, broker, tmp_path, require_user_id=require_user_id),
            amqp.connect(officers_url, ca_file=broker.ca_file, name="test") as connection,
            sender(broker, url, OTHER) as own,
        ):
            channel = await connection.channel(confirms=False)
            for statement in (forged, genuine):
                await publish_raw(
                    channel,
                    EXCHANGE,
                    routing_key("recovery", "bob"),
                    statement.envelope(),
                    headers=copied,
                    user_id=short(b"bob"),
                )
            assert (await own.ask("escrow", OTHER, escrow(OTHER).envelope())).receipt is not None
    refused = {"denied"} if require_user_id else {"signature_invalid"}
    assert {code for code, _ in await quarantined(broker)} == refused
    assert len(await quarantined(broker)) == (2 if require_user_id else 1)


# ---- recovery ----


@pytest.fixture
def place(database: FreshDatabase, broker: PrivateRabbit, tmp_path: Path) -> AbstractAsyncContextManager[Place]:
    """A recovery worker's place with two enrolled principals."""
    return place_of(database, broker, tmp_path, enrolled=(make.PRINCIPAL, OTHER))


async def test_recovery_takes_what_comes_from_its_senders_own_account_alone(
    broker: PrivateRabbit, place: AbstractAsyncContextManager[Place]
) -> None:
    """Over the fleet's account, or another host's, a genuine request is quarantined, logged, and not answered."""
    with (
        own_account(broker, make.PRINCIPAL) as url,
        own_account(broker, OTHER) as others_url,
        capture_logs() as logs,
    ):
        async with (
            place as stage,
            stage.worker(recovery_require_user_id=True),
            sender(broker, broker.url("fleet"), make.PRINCIPAL) as fleet,
            sender(broker, others_url, OTHER) as other,
            sender(broker, url, make.PRINCIPAL) as own,
        ):
            before = len(await stage.log())
            shared = await fleet.send("recovery", make.PRINCIPAL, ask.request().envelope())
            lifted = await other.send("recovery", OTHER, ask.request().envelope())
            assert not await fleet.was_answered(shared, "recovery")
            assert not await other.was_answered(lifted, "recovery", OTHER)
            assert len(await stage.log()) == before
            reply = await own.ask("recovery", make.PRINCIPAL, ask.listing_request().envelope())
            assert stage.signed(reply, Listing).principal == make.PRINCIPAL
            assert await stage.quarantined() == ["denied", "denied", "malformed", "malformed"]
    assert [line["reason"] for line in logs if line.get("code") == "denied"] == [
        f"user_id: is missing, must be '{make.PRINCIPAL}'",
        f"user_id: is '{OTHER}', the body names '{make.PRINCIPAL}'",
    ]


async def test_a_new_host_enrols_over_its_own_account_and_an_officer_asks_over_hers(
    broker: PrivateRabbit, place: AbstractAsyncContextManager[Place]
) -> None:
    """The sender of an enrolment is the principal that it names, that of an officer's request the officer."""
    new = "laptop-0419"
    listing = ask.listing_request(requester="officer-a", requester_kind=Capacity.OFFICER)
    with own_account(broker, new) as url, own_account(broker, "officer-a", "officer") as officers_url:
        async with (
            place as stage,
            stage.worker(recovery_require_user_id=True),
            sender(broker, url, new) as host,
            sender(broker, officers_url, "officer-a") as officer,
        ):
            enrolment = make.enrolment(make.invitation(new), new)
            assert (await host.ask("enrol", new, enrolment.envelope())).receipt is not None
            reply = await officer.ask("recovery", "officer-a", listing.envelope())
            assert stage.signed(reply, Listing).principal == make.PRINCIPAL
