"""The agent over a real broker, with a real authority's answers from inside the test."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from deploy.local.rabbitmq import PrivateRabbit
from tests.support.accounts import certificate, own_account
from tests.support.agents import MATERIAL, key

from strongroom.broker import Consumer, connect
from strongroom.errors import BrokerUnavailable, ExitCode, NoAnswer
from strongroom.testing import FakeAuthority, FakeMessage
from strongroom.topology import QUEUES
from strongroom_agent import session
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import enrol
from strongroom_agent.files import name_of
from strongroom_agent.home import BrokerLogin, Home

Queue = Literal["escrow", "recovery"]


@asynccontextmanager
async def working(
    authority: FakeAuthority, broker: PrivateRabbit, queue: Queue, senders: list[str | None] | None = None
) -> AsyncIterator[None]:
    """Answer a queue as its worker does, with that worker's own rights; keep who sent each in `senders`."""
    stop = asyncio.Event()

    async def work(consumer: Consumer) -> None:
        while batch := await consumer.next_batch(100, 0.02, stop):
            for delivery in batch:
                headers = {name: value for name, value in delivery.headers.items() if isinstance(value, int)}
                message = FakeMessage(delivery.routing_key, delivery.body, headers)
                if senders is not None:
                    senders.append(delivery.user_id)
                await consumer.reply(delivery, authority.handle(message).to_bytes())
            await consumer.ack_through(batch[-1])

    async with (
        connect(broker.url(queue), ca_file=broker.ca_file, name=f"test {queue}") as connection,
        Consumer(connection, queue, prefetch_count=200) as consumer,
    ):
        task = asyncio.create_task(work(consumer))
        try:
            yield
        finally:
            stop.set()
            await task


@pytest.fixture
async def _empty_queues(broker: PrivateRabbit) -> None:
    async with connect(broker.url("operator"), ca_file=broker.ca_file, name="test operator") as connection:
        channel = await connection.channel(confirms=True)
        for queue in QUEUES:
            await channel.queue_purge(queue.name, timeout=60)


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority(clock=time.time)


@pytest.fixture
async def home(authority: FakeAuthority, broker: PrivateRabbit, tmp_path: Path, _empty_queues: None) -> Home:
    document = authority.invitation_file(
        "laptop-0417", broker_url=broker.url("fleet"), broker_ca=broker.ca_file.read_text()
    )
    async with working(authority, broker, "recovery"):
        return (await enrol(tmp_path / "home", document)).home


async def test_a_host_that_was_invited_escrows_and_recovers_over_the_broker(
    home: Home, authority: FakeAuthority, broker: PrivateRabbit
) -> None:
    """With the fleet's user, its rights, TLS and the CA of the invitation."""
    async with working(authority, broker, "escrow"), working(authority, broker, "recovery"):
        with Agent.open(home.path) as agent:
            done = await agent.escrow([key()])
            assert (done.stored, done.error) == (1, None)
            report = await agent.sync()
            assert (report.compared, report.exit_code) == (True, ExitCode.DONE)
            found = await agent.recover(name="disk")
    assert found.keys[0].material.expose() == MATERIAL
    assert {message.routing_key for message in authority.received} == {
        "v1.enrol.laptop-0417",
        "v1.escrow.laptop-0417",
        "v1.recovery.laptop-0417",
    }


async def test_a_sealed_file_is_recovered_by_its_header_over_the_broker(
    home: Home, authority: FakeAuthority, broker: PrivateRabbit, tmp_path: Path
) -> None:
    """The whole way of a file."""
    document = tmp_path / "thesis.txt"
    document.write_bytes(b"thesis")
    async with working(authority, broker, "escrow"), working(authority, broker, "recovery"):
        with Agent.open(home.path) as agent:
            sealed = await agent.seal_file(document)
            found = await agent.recover(name=name_of(sealed.path))
    assert found.keys[0].record.id == sealed.record_id


async def test_a_key_waits_in_the_queue_while_the_worker_is_away_and_is_stored_once(
    home: Home, authority: FakeAuthority, broker: PrivateRabbit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every attempt leaves a copy; all of them are one record."""
    monkeypatch.setattr(session, "ANSWER_SECONDS_MAX", 0.1)
    with Agent.open(home.path) as agent:
        done = await agent.escrow([key()], wait_seconds=3)
        assert isinstance(done.error, NoAnswer)
        assert (done.spooled, done.exit_code) == (1, ExitCode.TRY_LATER)
        monkeypatch.undo()
        async with working(authority, broker, "escrow"), working(authority, broker, "recovery"):
            report = await agent.sync()
    assert (report.delivery.stored, report.exit_code) == (1, ExitCode.DONE)
    assert authority.escrow_log.size == len(authority.workers.records) == 1


async def test_a_large_spool_goes_out_over_one_connection(
    home: Home, authority: FakeAuthority, broker: PrivateRabbit
) -> None:
    """Three hundred statements, all proven under one history."""
    with Agent.open(home.path) as agent:
        for number in range(300):
            await agent.escrow([key(name=f"key {number}")], wait_seconds=0)
        async with working(authority, broker, "escrow"), working(authority, broker, "recovery"):
            report = await agent.sync()
        assert (report.delivery.stored, report.exit_code) == (300, ExitCode.DONE)
        kept = agent._state.checkpoint("escrow")
    assert kept is not None
    assert kept.note == authority.escrow_log.checkpoint()
    assert authority.escrow_log.size == 300


@pytest.mark.usefixtures("_empty_queues")
@pytest.mark.parametrize("external", [False, True])
async def test_a_host_with_an_account_of_its_own_says_so_in_every_message(
    *, authority: FakeAuthority, broker: PrivateRabbit, tmp_path: Path, external: bool
) -> None:
    """Enrolled and escrowing by its own password, or by its certificate; the shared password is not used."""
    document = authority.invitation_file(
        "laptop-0417", broker_url="amqps://fleet:wrong@127.0.0.1:1/strongroom", broker_ca=broker.ca_file.read_text()
    )
    senders: list[str | None] = []
    with own_account(broker, "laptop-0417", external=external) as url:
        login = BrokerLogin(url=url)
        if external:
            files = certificate(broker, "laptop-0417", tmp_path)
            login = BrokerLogin(url=url, certificate=files.file.read_bytes(), key=files.key_file.read_bytes())
        async with working(authority, broker, "escrow", senders), working(authority, broker, "recovery", senders):
            home = (await enrol(tmp_path / "home", document, login=login)).home
            with Agent.open(home.path) as agent:
                assert (await agent.escrow([key()])).stored == 1
    assert senders == ["laptop-0417"] * 2


async def test_a_host_of_the_fleet_names_no_account(
    home: Home, authority: FakeAuthority, broker: PrivateRabbit
) -> None:
    """The broker would refuse any name but the shared account's, which says nothing."""
    senders: list[str | None] = []
    async with working(authority, broker, "escrow", senders):
        with Agent.open(home.path) as agent:
            assert (await agent.escrow([key()])).stored == 1
    assert senders == [None]


async def test_a_refused_login_leaves_the_key_spooled_and_names_no_password(
    home: Home, broker: PrivateRabbit
) -> None:
    """The reason is kept in the home, so it must be fit to be shown."""
    url = broker.url("fleet")
    wrong = url.replace("fleet:", "fleet:wrong-and-secret-")
    home.write_config(replace(home.config, broker_url=wrong))
    with Agent.open(home.path) as agent:
        done = await agent.escrow([key()], wait_seconds=0.1)
    assert isinstance(done.error, BrokerUnavailable)
    assert "secret" not in str(done.error) + str(done.records[0].last_error)
