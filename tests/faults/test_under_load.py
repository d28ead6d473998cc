"""Servers and workers that crash while a fleet hands keys over: afterwards the checker finds every promise kept."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL

import pytest
from tests.faults.conftest import Servers
from tests.support.checker import check, check_recovery, spool
from tests.support.hosts import escrow, keys, sync
from tests.support.site import Site
from tests.support.waiting import until

from strongroom.errors import CommitUnknown, ExitCode

HOSTS = 4
STATEMENTS_A_HOST = 25
RECORDS_A_STATEMENT = 10
STATEMENTS = HOSTS * STATEMENTS_A_HOST
WAIT_SECONDS = 3.0


@dataclass
class Fleet:
    """Hosts that hand over keys, statement by statement, whatever comes of it.

    handed_over: the ids of all records for which `escrow` has returned. statements, receipts: how many so far.
    """

    homes: list[Path]
    handed_over: list[str] = field(default_factory=list)
    statements: int = 0
    receipts: int = 0

    async def work(self) -> None:
        """Hand all keys over, all hosts at once."""
        await asyncio.gather(*map(self._work, self.homes))

    async def _work(self, home: Path) -> None:
        for _ in range(STATEMENTS_A_HOST):
            delivery = await escrow(home, keys(RECORDS_A_STATEMENT), wait_seconds=WAIT_SECONDS)
            assert not delivery.rejected
            self.handed_over += [row.facts.id for row in delivery.records]
            self.statements += 1
            self.receipts += delivery.stored

    async def has(self, what: str, count: int) -> None:
        """Wait until `statements` or `receipts` have come so far."""
        await until(lambda: getattr(self, what) >= count, f"{count} {what}", seconds_max=120)


@pytest.fixture
async def fleet(site: Site, request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    """Hosts that nobody has heard of before; a recovery worker is kept running."""
    site.stop_workers()
    prefix = request.node.name.removeprefix("test_").split("_")[0]
    async with site.worker("recovery").kept_running():
        yield Fleet([await site.enrol(f"{prefix}-{number}") for number in range(HOSTS)])


@asynccontextmanager
async def under_load(fleet: Fleet) -> AsyncIterator[None]:
    """Let the fleet work meanwhile, and wait at the end until it is done."""
    working = asyncio.create_task(fleet.work())
    try:
        yield
        await working
    finally:
        working.cancel()


async def assert_promise_kept(site: Site, fleet: Fleet) -> None:
    """Nothing is lost now, and after a `sync` of every host everything is stored, once."""
    assert len(fleet.handed_over) == STATEMENTS * RECORDS_A_STATEMENT
    (await check(site, fleet.handed_over)).assert_kept()
    for home in fleet.homes:
        report = await sync(home)
        assert (report.exit_code, report.missing, report.mismatched) == (ExitCode.DONE, (), ())
        assert {each.state for each in spool(home)} == {"stored"}
    final = await check(site, fleet.handed_over)
    final.assert_kept()
    assert final.rows == sum(final.states.values())
    await check_recovery(site)


async def test_postgresql_crashes_under_load(site: Site, servers: Servers, fleet: Fleet) -> None:
    """PostgreSQL is killed three times while statements come in; nothing is lost, doubled or made up."""
    async with site.worker("escrow").kept_running() as worker:
        async with under_load(fleet):
            for crash in range(1, 4):
                await fleet.has("statements", crash * STATEMENTS // 5)
                await asyncio.to_thread(servers.postgres.kill)
                await asyncio.to_thread(servers.postgres.start)
        # Only a COMMIT whose outcome is unknown may end the process.
        assert set(worker.exit_codes) <= {ExitCode.FAILED}
        assert worker.whole_log.count('"level": "critical"') == worker.whole_log.count(CommitUnknown.code)
        await assert_promise_kept(site, fleet)


async def test_rabbitmq_crashes_under_load(site: Site, servers: Servers, fleet: Fleet) -> None:
    """The broker is killed while statements come in; what it had confirmed comes back, the rest is spooled."""
    async with site.worker("escrow").kept_running() as worker:
        async with under_load(fleet):
            await fleet.has("statements", STATEMENTS // 3)
            await asyncio.to_thread(servers.broker.kill)
            await asyncio.to_thread(servers.broker.start)
        assert worker.exit_codes == []
        await assert_promise_kept(site, fleet)


async def test_one_of_two_workers_is_killed_again_and_again(site: Site, fleet: Fleet) -> None:
    """Two workers share queue and log; one dies six times, and every receipt that was given holds."""
    doomed, other = site.worker("escrow", "escrow-doomed"), site.worker("escrow", "escrow-other")
    async with doomed.kept_running(), other.kept_running():
        async with under_load(fleet):
            for death in range(1, 7):
                await fleet.has("receipts", death * STATEMENTS // 8)
                doomed.send(SIGKILL)
        assert set(doomed.exit_codes) == {-SIGKILL}
        assert other.exit_codes == []
        await assert_promise_kept(site, fleet)
