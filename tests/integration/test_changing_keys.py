"""An authority's keys change under a running fleet: nothing is lost, and no key is believed after its time."""

import asyncio
import shutil
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import FreshDatabase
from tests.support.agents import MATERIAL, key
from tests.support.site import Site
from tests.support.waiting import until
from tests.support.workers import Brokers

from strongroom import broker as amqp
from strongroom.crypto.key_file import read_signing_key, write_signing_key
from strongroom.crypto.sealing import Suite
from strongroom.crypto.signing import SigningKey
from strongroom.database import connect
from strongroom.errors import RosterInvalid
from strongroom.key_cards import KeyCard, KeyUse, new_key
from strongroom.log_keys import Signers
from strongroom.mandates import SealingKeyState
from strongroom.next_rosters import Changes, next_roster, replace_roster
from strongroom.receipts import parse, verify
from strongroom.replies import parse_reply
from strongroom.root_keys import sign_change
from strongroom.roster import Roster
from strongroom.settings import read_root_key, read_roster
from strongroom.topology import routing_key
from strongroom_agent.agent import Agent
from strongroom_agent.home import Home
from strongroom_agent.trust import newest_roster
from strongroom_audit.export import export
from strongroom_audit.folder import Export
from strongroom_audit.pages import Auditor
from strongroom_audit.verify import Options
from strongroom_audit.verify import verify as verify_export
from strongroom_recovery.drill.trust import established

NEW_SECONDS = 60.0


class Fleet:
    """A site whose keys a test changes, with the files where its workers look for them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.keys = site.folder / "authority"
        self.root = read_signing_key(self.keys / "root" / "root.key", None)

    @property
    def roster(self) -> Roster:
        """The roster in the workers' file."""
        return Roster.verified(read_roster(self.keys / "roster.json"), read_root_key(self.keys / "root.pub"))

    def sign(self, **changes: Any) -> Roster:
        """Sign the roster that follows; it is nowhere yet."""
        return next_roster(self.roster, Changes(**changes), self.root, now=int(time.time()))

    def install(self, roster: Roster) -> None:
        """Put a roster where the workers look for it."""
        replace_roster(self.keys / "roster.json", roster)

    def make(self, use: KeyUse) -> tuple[KeyCard, Path]:
        """Make a key that is in use by nobody yet."""
        folder = self.keys / ("recovery/sealing" if use.is_added else use.worker)
        return new_key(use, folder, None, suite=Suite.P256)

    def swap(self, use: KeyUse, path: Path) -> None:
        """Put a key file in the place of the one that its worker reads."""
        path.replace(self.keys / use.file)

    def note_of(self, home: Path) -> str:
        """Return the newest checkpoint of the escrow log that a home holds."""
        with Agent.open(home) as agent:
            kept = agent._state.checkpoint("escrow")
        assert kept is not None
        return kept.note

    @asynccontextmanager
    async def working(self, *kinds: str) -> AsyncIterator[None]:
        """Run these workers, each started again whenever it ends, as systemd does it."""
        async with AsyncExitStack() as stack:
            for kind in kinds:
                await stack.enter_async_context(self.site.worker(kind).kept_running())
            yield


@pytest.fixture
async def fleet(database: FreshDatabase, broker: Brokers, tmp_path: Path) -> AsyncIterator[Fleet]:
    site = Site.found(tmp_path / "site", database, broker)
    await site.purge()
    with site.in_force():
        yield Fleet(site)


async def stored(home: Path, name: str) -> str:
    """Escrow a key from a home until there is a receipt; return the id of the key it was sealed to."""
    with Agent.open(home) as agent:
        delivery = await agent.escrow([key(name=name)], wait_seconds=NEW_SECONDS)
    assert (delivery.stored, delivery.error) == (1, None)
    return delivery.records[0].facts.kid


async def recovered(home: Path, *names: str) -> None:
    """Get keys back by their names."""
    with Agent.open(home) as agent:
        for name in names:
            found = await agent.recover(name=name, wait_seconds=NEW_SECONDS)
            assert [each.material.expose() for each in found.keys] == [MATERIAL]


async def test_agents_seal_to_a_new_key_after_the_next_sync_and_old_records_stay_recoverable(fleet: Fleet) -> None:
    """The recovery worker has the key first; then the roster is put in place under running workers."""
    site = fleet.site
    recovery, escrow = site.worker("recovery"), site.worker("escrow")
    async with recovery.running(), escrow.running():
        home = await site.enrol("laptop-0417")
        before = await stored(home, "disk")
    card, _ = fleet.make(KeyUse.SEALING)
    async with recovery.running(), escrow.running():
        fleet.install(fleet.sign(add_keys=[card], states={card.id: SealingKeyState.ACTIVE}))
        with Agent.open(home) as agent:
            await agent.sync(wait_seconds=NEW_SECONDS)
        assert newest_roster(Home.open(home)).active_sealing_key().kid == card.id
        after = await stored(home, "tpm")
        assert (after, before) == (card.id, site.roster.active_sealing_key().kid)
        await recovered(home, "disk", "tpm")


async def test_a_roster_that_names_a_key_which_the_recovery_worker_lacks_is_refused_in_words(fleet: Fleet) -> None:
    """It says which key and where to put it, and goes on by the roster of before."""
    site = fleet.site
    recovery = site.worker("recovery")
    async with recovery.running():
        card, path = fleet.make(KeyUse.SEALING)
        path.rename(site.folder / path.name)
        fleet.install(fleet.sign(add_keys=[card], states={card.id: SealingKeyState.ACTIVE}))
        home = await site.enrol("laptop-0417")
        await recovery.said("roster refused")
        assert card.id in recovery.log
        assert "put its key file into the folder of sealing keys" in recovery.log
        assert newest_roster(Home.open(home)).body.version == 1
    (site.folder / path.name).rename(path)
    async with recovery.running():
        await recovery.said("roster adopted")


@pytest.mark.parametrize("use", [KeyUse.ESCROW_REPLY, KeyUse.ESCROW_LOG])
async def test_the_escrow_worker_gets_another_key_and_no_message_is_lost(fleet: Fleet, use: KeyUse) -> None:
    """Running with the old one it ends at the next message, which waits in the queue until it has the new one."""
    site = fleet.site
    async with fleet.working("recovery"):
        escrow = site.worker("escrow")
        async with escrow.kept_running():
            home = await site.enrol("laptop-0417")
            await stored(home, "disk")
            card, path = fleet.make(use)
            fleet.install(fleet.sign(replace_keys=[card]))
            with Agent.open(home) as agent:
                await agent.sync(wait_seconds=1)  # brings the roster into force, by the recovery worker
                waiting = asyncio.create_task(agent.escrow([key(name="tpm")], wait_seconds=NEW_SECONDS))
                await escrow.said("give this worker the key file that belongs to the roster")
                assert not waiting.done()
                fleet.swap(use, path)
                delivery = await waiting
            assert (delivery.stored, delivery.error) == (1, None)
            assert set(escrow.exit_codes) <= {1, 2}
        await recovered(home, "disk", "tpm")
    assert newest_roster(Home.open(home)).body.version == 2
    log = fleet.roster.body.logs.escrow
    assert Signers.of(log).verify(fleet.note_of(home)).key == log.public_key
    assert await site.count("SELECT FROM escrow_statements") == 2
    assert await site.depth("escrow") == 0


@pytest.mark.parametrize("use", [KeyUse.RECOVERY_REPLY, KeyUse.RECOVERY_LOG])
async def test_the_recovery_worker_gets_another_key_in_the_documented_order(fleet: Fleet, use: KeyUse) -> None:
    """It refuses the roster while it holds the old key, and takes it up with the new one; the log goes on."""
    site = fleet.site
    recovery, escrow = site.worker("recovery"), site.worker("escrow")
    async with escrow.kept_running():
        async with recovery.running():
            home = await site.enrol("laptop-0417")
            await stored(home, "disk")
            card, path = fleet.make(use)
            fleet.swap(use, path)
            fleet.install(fleet.sign(replace_keys=[card]))
            await recovered(home, "disk")
            await recovery.said("roster refused")
            assert "start this worker again" in recovery.log
        async with recovery.running():
            await recovered(home, "disk")
            assert newest_roster(Home.open(home)).body.version == 2
            await stored(home, "tpm")
            await recovered(home, "disk", "tpm")
            await site.enrol("laptop-0418")
    assert await site.count("SELECT FROM trust_statements WHERE type LIKE '%roster%'") == 2


@pytest.mark.parametrize(
    "use", [KeyUse.ESCROW_REPLY, KeyUse.ESCROW_LOG, KeyUse.RECOVERY_REPLY, KeyUse.RECOVERY_LOG]
)
async def test_a_worker_with_another_key_than_the_roster_names_does_not_start_and_says_what_to_do(
    fleet: Fleet, use: KeyUse
) -> None:
    """It ends as for a wrong setting."""
    site = fleet.site
    if use.worker == "escrow":
        async with site.worker("recovery").running():
            pass
    worker = site.worker(use.worker)
    write_signing_key(fleet.keys / "other.key", SigningKey.generate(), None)
    fleet.swap(use, fleet.keys / "other.key")
    worker.start()
    assert await worker.ended() in (1, 2)
    assert "log key: is not" in worker.log if use.is_of_a_log else "reply key: is not" in worker.log
    assert "start" in worker.log


async def test_a_repeated_statement_is_answered_with_a_receipt_by_the_log_key_of_now(fleet: Fleet) -> None:
    """So whoever holds a receipt by a key that is not believed any more gets another one by sending again."""
    site = fleet.site
    async with fleet.working("recovery", "escrow"):
        home = await site.enrol("laptop-0417")
        await stored(home, "disk")
    card, path = fleet.make(KeyUse.ESCROW_LOG)
    fleet.swap(KeyUse.ESCROW_LOG, path)
    former = fleet.roster.body.logs.escrow.public_key
    fleet.install(fleet.sign(replace_keys=[card]))
    async with fleet.working("recovery", "escrow"):
        with Agent.open(home) as agent:
            await agent.sync(wait_seconds=NEW_SECONDS)
            await agent.sync(wait_seconds=NEW_SECONDS)
            (statement,) = agent._state.rows("SELECT id, envelope FROM statements")
            async with site.connected("fleet") as connection, amqp.Requester(connection) as requester:
                await requester.submit(
                    routing_key("escrow", "laptop-0417"),
                    bytes(statement[1]),
                    message_id=statement[0],
                    headers={},
                    expiration_seconds=None,
                )
                reply = parse_reply(await requester.answer(statement[0], NEW_SECONDS))
    log = fleet.roster.body.logs.escrow
    assert reply.receipt is not None
    found = verify(reply.receipt, log.public_key, log.origin)
    assert (found.index, log.former) == (0, [former])
    assert parse(reply.receipt).leaf == found.leaf


async def test_the_root_key_changes_under_a_running_fleet(fleet: Fleet) -> None:
    """Hosts, officers and workers that pin the old one go on; new hosts pin the new one, and so may the workers."""
    site = fleet.site
    async with fleet.working("recovery", "escrow"):
        home = await site.enrol("laptop-0417")
        await stored(home, "disk")
        new = SigningKey.generate()
        change = sign_change(fleet.roster.body.authority, fleet.root, new, now=int(time.time()))
        fleet.root = new
        fleet.install(fleet.sign(root_changes=[change]))
        with Agent.open(home) as agent:
            await agent.sync(wait_seconds=NEW_SECONDS)
        assert newest_roster(Home.open(home)).root_key == new.public_key
        await stored(home, "tpm")
        await site.enrol("laptop-0418")  # by an officer whose home heard of nothing
    shutil.copy(fleet.keys / "root.pub", site.folder / "old.pub")
    (fleet.keys / "root.pub").write_text(b64encode(new.public_key).decode())
    shutil.rmtree(site.folder / "state-escrow")
    async with fleet.working("recovery", "escrow"):
        await recovered(home, "disk", "tpm")
        other = await site.enrol("laptop-0419")
        await stored(other, "disk")
        await recovered(other, "disk")


async def test_audits_and_drills_hold_after_every_key_has_changed(fleet: Fleet, tmp_path: Path) -> None:
    """Under the root key of then and under that of now; what the logs' former keys signed still counts."""
    site = fleet.site
    pins = [fleet.root.public_key]
    async with fleet.working("recovery", "escrow"):
        home = await site.enrol("laptop-0417")
        await stored(home, "disk")
        early = await exported(site, tmp_path / "early")
    cards = {use: fleet.make(use) for use in KeyUse}
    for use, (_, path) in cards.items():
        if not use.is_added:
            fleet.swap(use, path)
    new = SigningKey.generate()
    change = sign_change(fleet.roster.body.authority, fleet.root, new, now=int(time.time()))
    fleet.root = new
    pins.append(new.public_key)
    fleet.install(
        fleet.sign(
            root_changes=[change],
            add_keys=[card for use, (card, _) in cards.items() if use.is_added],
            replace_keys=[card for use, (card, _) in cards.items() if not use.is_added],
        )
    )
    async with fleet.working("recovery", "escrow"):
        await until(lambda: resigned(site), "the newest checkpoint of the escrow log signed again")
        # The first export holds what the former key signed, and goes on from there.
        for path in (early, tmp_path / "late"):
            await exported(site, path)
            for pin in pins:
                verdict = verify_export(Export(path), Options(root_key=pin, now=int(time.time())))
                assert [each.document() for each in verdict.findings.kept] == []
                assert verdict.sizes == {"escrow": 1, "recovery": 3}
        await recovered(home, "disk")
        await stored(home, "tpm")
    for number, pin in enumerate([*pins, SigningKey.generate().public_key]):
        folder = tmp_path / f"drill-{number}"
        folder.mkdir()
        async with connect(site.databases.url("strongroom_recovery")) as database:
            if number == len(pins):
                with pytest.raises(RosterInvalid):
                    await established(database, pin, [site.folder / "state-recovery"], folder)
                continue
            trust = await established(database, pin, [site.folder / "state-recovery"], folder)
        assert (trust.escrow_log.leaves, trust.escrow_log.behind, trust.recovery_log.behind) == (2, 0, 0)
        assert trust.registry.roster.root_keys == tuple(pins)


async def exported(site: Site, path: Path) -> Path:
    """Bring an export of both logs up to date."""
    with Auditor.open(site.officer) as auditor:
        report = await export(auditor, Export(path), wait_seconds=NEW_SECONDS)
    assert report.findings == []
    return path


async def resigned(site: Site) -> bool:
    """Say whether the newest checkpoint proper stands under two keys."""
    return await site.count("SELECT FROM escrow_published WHERE size = 1") == 2
