"""The agent with both real workers, a real broker and a real database."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support import authority as make
from tests.support import workers
from tests.support.agents import MATERIAL, key
from tests.support.recovery import Place, place_of
from tests.support.workers import Brokers, Databases

from strongroom import broker as amqp
from strongroom.errors import ExitCode, NoAnswer, Rejected
from strongroom.mandates import Officer, Role
from strongroom.roster import Roster
from strongroom.service import Health
from strongroom_agent import session
from strongroom_agent.agent import Agent, Unreleased
from strongroom_agent.enrolment import enrol
from strongroom_agent.files import name_of
from strongroom_agent.home import Home
from strongroom_agent.identity import attach, create_officer_home
from strongroom_agent.invitation import InvitationFile
from strongroom_escrow import wiring
from strongroom_escrow.settings import EscrowSettings

OFFICERS = ("alice", "bob", "carol")


@dataclass(frozen=True, slots=True)
class Site:
    """Servers, the settings of both workers, and a folder for homes."""

    recovery: Place
    escrow: EscrowSettings
    roster: Roster
    folder: Path

    def invitation(self, *, replaces: bool = False) -> bytes:
        """Return an invitation file as officers write it."""
        now = int(time.time())
        officers = ("officer-a", "officer-b") if replaces else ("officer-a",)
        return InvitationFile(
            invitation=make.invitation(
                officers=officers, issued_at=now, expires_at=now + make.DAY, replaces=replaces
            ),
            one_time_key=make.signing_key("one-time"),
            root_key=make.signing_key("root").public_key,
            roster=self.roster.statement,
            broker_url=self.recovery.brokers.url("fleet"),
            broker_ca=self.recovery.brokers.ca_file.read_text(),
        ).to_bytes()

    def officer(self, name: str) -> Agent:
        """Open the home of an officer of the roster, with its roster and broker."""
        attach(
            Home.open(self.folder / name),
            root_key=make.signing_key("root").public_key,
            roster=self.roster.statement.envelope(),
            broker_url=self.recovery.brokers.url("officer"),
            broker_ca=self.recovery.brokers.ca_file.read_text(),
            now=int(time.time()),
        )
        return Agent.open(self.folder / name)

    @asynccontextmanager
    async def escrow_worker(self) -> AsyncIterator[None]:
        """Run the escrow worker for the length of the block."""
        brokers, stop = self.recovery.brokers, asyncio.Event()
        async with (
            wiring.escrow_worker(self.escrow, Health(None)) as worker,
            amqp.connect(brokers.url("escrow"), ca_file=brokers.ca_file, name="test") as connection,
            amqp.Consumer(connection, "escrow", prefetch_count=400) as consumer,
        ):
            serving = asyncio.create_task(worker.serve(consumer, stop))
            try:
                yield
            finally:
                stop.set()
                await serving

    @asynccontextmanager
    async def both_workers(self) -> AsyncIterator[None]:
        """Run both workers for the length of the block."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.recovery.worker())
            await stack.enter_async_context(self.escrow_worker())
            yield


@pytest.fixture
async def site(
    database: Databases, broker: Brokers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Site]:
    broker.rabbitmqctl("purge_queue", "--vhost", "strongroom", "escrow")
    homes = [create_officer_home(tmp_path / name, name, passphrase=None) for name in OFFICERS]
    named = [Officer(name=home.config.name, public_key=home.config.public_key, roles=list(Role)) for home in homes]
    now = int(time.time())
    roster = make.roster(
        issued_at=now - make.DAY,
        expires_at=now + 90 * make.DAY,
        officers=[*make.roster_body().officers, *named],
    )
    monkeypatch.setattr(make, "roster", lambda **_changes: roster)
    async with place_of(database, broker, tmp_path) as place:
        place.now = int(time.time())
        settings: dict[str, Any] = workers.write_files(tmp_path / "escrow", roster, "escrow")
        escrow = EscrowSettings.model_validate(settings | workers.server_settings(database, broker, "escrow"))
        yield Site(place, escrow, roster, tmp_path)


async def test_a_key_goes_in_is_proven_and_comes_back_after_everything_was_lost(site: Site) -> None:
    """Enrol, escrow, seal, sync; then a new home, enrolled by replacement, recovers key and file."""
    document = site.folder / "thesis.txt"
    document.write_bytes(b"thesis")
    async with site.both_workers():
        await enrol(site.folder / "first", site.invitation())
        with Agent.open(site.folder / "first") as agent:
            assert (await agent.escrow([key()])).stored == 1
            sealed = await agent.seal_file(document)
            report = await agent.sync()
            assert (report.compared, report.missing, report.exit_code) == (True, (), ExitCode.DONE)
        again = await enrol(site.folder / "second", site.invitation(replaces=True))
        assert again.log_index > 0
        with Agent.open(site.folder / "second") as agent:
            found = await agent.recover(name="disk", reason="lost everything")
            session_key = await agent.recover(name=name_of(sealed.path))
            listed = await agent.records()
            with Agent.open(site.folder / "first") as replaced, pytest.raises(Rejected) as refused:
                await replaced.records()
    assert found.keys[0].material.expose() == MATERIAL
    assert session_key.keys[0].record.description == "thesis.txt"
    assert all(record.disclosure is not None for record in listed.records)
    assert refused.value.remote_code == "principal_revoked"


async def test_keys_that_were_spooled_without_worker_are_stored_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three hundred statements and copies of some in the queue: one record each, under one history."""
    async with site.recovery.worker():
        await enrol(site.folder / "home", site.invitation())
    with Agent.open(site.folder / "home") as agent:
        with monkeypatch.context() as patch:
            patch.setattr(session, "ANSWER_SECONDS_MAX", 0.1)
            assert isinstance((await agent.escrow([key()], wait_seconds=3)).error, NoAnswer)
        for number in range(299):
            await agent.escrow([key(name=f"key {number}")], wait_seconds=0)
        async with site.both_workers():
            report = await agent.sync()
    assert (report.delivery.stored, report.missing, report.exit_code) == (300, (), ExitCode.DONE)
    assert len(await site.recovery.rows("SELECT * FROM records")) == 300
    assert len(await site.recovery.rows("SELECT * FROM escrow_leaves")) == 300


async def test_an_officers_request_waits_is_approved_and_told_to_the_owner(site: Site) -> None:
    """It outlives the worker and the officer's process; the owner hears of it before and after."""
    async with site.both_workers():
        await enrol(site.folder / "home", site.invitation())
        with Agent.open(site.folder / "home") as host:
            assert (await host.escrow([key()])).stored == 1
        principal = host._home.config.name
        wanted: dict[str, Any] = {"name": "disk", "principal": principal, "reason": "left"}
        with site.officer("alice") as alice, pytest.raises(Unreleased) as waits:
            await alice.recover(**wanted)
        with Agent.open(site.folder / "home") as host:
            pending = (await host.sync()).pending
    asked = waits.value.asked
    async with site.both_workers():
        for name in ("bob", "carol"):
            with site.officer("alice") as alice, pytest.raises(Unreleased) as waits:
                await alice.recover(**wanted)
            with site.officer(name) as officer:
                await officer.approve(await officer.case(asked.id))
        with site.officer("alice") as alice:
            found = await alice.recover(**wanted)
            found.settle()
        with Agent.open(site.folder / "home") as host:
            report = await host.sync()
    assert (waits.value.exit_code, waits.value.asked.id) == (ExitCode.WAITING, asked.id)
    assert "there are 1 (bob)" in waits.value.message
    assert [(each.request, each.digest, each.requester, each.reason) for each in pending] == [
        (asked.id, asked.digest, "alice", "left")
    ]
    assert found.keys[0].material.expose() == MATERIAL
    assert found.request_id == asked.id
    assert [(each.record, each.request, each.requester, each.reason) for each in report.disclosed] == [
        (found.keys[0].record.id, asked.id, "alice", "left")
    ]
    assert (report.pending, report.exit_code) == ((), ExitCode.DONE)


async def test_a_denied_request_is_over_for_its_officer(site: Site) -> None:
    """The owner says no; the receipt of the denial is verified by the one who asked."""
    async with site.both_workers():
        await enrol(site.folder / "home", site.invitation())
        with Agent.open(site.folder / "home") as host:
            await host.escrow([key()])
            wanted: dict[str, Any] = {"name": "disk", "principal": host._home.config.name, "reason": "left"}
            with site.officer("alice") as alice:
                with pytest.raises(Unreleased) as waits:
                    await alice.recover(**wanted)
                await host.deny(await host.case(waits.value.asked.id), reason="not mine to give")
                with pytest.raises(Unreleased) as denied:
                    await alice.recover(**wanted)
    assert (denied.value.remote_code, denied.value.exit_code) == ("denied", ExitCode.DENIED)
    assert list((site.folder / "alice" / "requests").iterdir()) == []


async def test_refusals_of_the_real_workers_count(site: Site) -> None:
    """Each is signed and named: nothing of that name, somebody else's records, a used invitation."""
    document = site.invitation()
    async with site.both_workers():
        await enrol(site.folder / "home", document)
        codes = []
        with Agent.open(site.folder / "home") as agent:
            for name, principal in (("nothing", None), ("disk", "laptop-9999")):
                with pytest.raises(Rejected) as refused:
                    await agent.recover(name=name, principal=principal)
                codes.append(refused.value.remote_code)
        with pytest.raises(Rejected) as refused:
            await enrol(site.folder / "other", document)
        codes.append(refused.value.remote_code)
    assert codes == ["not_found", "denied", "invitation_invalid"]
