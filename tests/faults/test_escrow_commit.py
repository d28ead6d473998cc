"""The escrow worker around COMMIT, receipt and ack, each step failed and not applied, or failed but applied."""

import asyncio
from pathlib import Path

import pytest
from tests.faults.conftest import Servers
from tests.support.checker import check
from tests.support.commit_proxy import CommitProxy, Loss
from tests.support.gate import Gate
from tests.support.hosts import escrow, soon, sync
from tests.support.site import Site

from strongroom.errors import ExitCode
from strongroom_agent.delivery import Delivery


async def gone(task: asyncio.Task[Delivery]) -> None:
    """End a host in the middle of what it does; its spool stays."""
    task.cancel()
    await asyncio.wait({task})


async def rows_of(site: Site, home: Path) -> int:
    return await site.count("SELECT FROM escrow_statements WHERE principal = $1", home.name)


@pytest.mark.parametrize("how", ["cut", "killed"])
@pytest.mark.parametrize("loss", Loss, ids=lambda loss: loss.name.lower())
async def test_a_commit_that_fails_is_made_good_after_a_restart(
    site: Site, servers: Servers, loss: Loss, how: str
) -> None:
    """Applied or not, the worker ends, cut off or killed; from the next one come one row, one leaf, one receipt.

    The host waits through the former, and is gone in the latter: only the broker can bring its message again.
    """
    home = await site.enrol(f"{loss.name.lower()}-{how}")
    async with CommitProxy(servers.postgres).listening() as proxy:
        direct = site.databases.url("strongroom_escrow")
        worker = site.worker("escrow", f"escrow-{home.name}", database_url=proxy.url(direct))
        async with worker.running():
            proxy.lose(loss)
            sending = asyncio.create_task(escrow(home))
            await soon(proxy.lost)
            assert await rows_of(site, home) == (1 if loss is Loss.ANSWER else 0)
            assert not sending.done()
            if how == "killed":
                await worker.kill()
                await gone(sending)
            proxy.cut()
            code = await worker.ended()
            if how == "cut":
                # What became of the COMMIT is not known: this process may not go on.
                assert code == ExitCode.FAILED
                assert "commit_unknown" in worker.log
            # Nothing was acknowledged.
            await site.holds("escrow", 1)
            worker.start()
            if how == "killed":
                await worker.said('"batch"')
                assert (await sync(home)).delivery.stored == 1
            else:
                assert (await sending).stored == 1
    assert await rows_of(site, home) == 1
    assert await site.depth("escrow") == 0
    (await check(site)).assert_kept()


async def test_a_worker_killed_between_commit_and_receipt_gives_the_receipt_when_it_is_back(
    site: Site, servers: Servers
) -> None:
    """COMMIT has succeeded, nothing has left: the redelivered message is recognised, as is the host's repeat."""
    home = await site.enrol("before-receipt")
    async with Gate(servers.broker.url("escrow")).listening() as gate:
        worker = site.worker("escrow", "escrow-before-receipt", broker_url=gate.url(servers.broker.url("escrow")))
        async with worker.running():
            # Receipts leave over another connection than the one that consumes.
            gate.hold_new_connections()
            sending = asyncio.create_task(escrow(home))
            await soon(gate.held)
            assert await rows_of(site, home) == 1
            assert not sending.done()
            await worker.kill()
            await gone(sending)
            gate.cut()
            gate.open()
            await site.holds("escrow", 1)
            worker.start()
            await worker.said('"batch"')
            assert (await sync(home)).delivery.stored == 1
    assert await rows_of(site, home) == 1
    (await check(site)).assert_kept()


async def test_a_worker_killed_between_receipt_and_ack_stores_nothing_twice(site: Site, servers: Servers) -> None:
    """The sender has its receipt, the broker no ack: the message comes again and changes nothing."""
    home = await site.enrol("before-ack")
    async with Gate(servers.broker.url("escrow")).listening() as gate:
        worker = site.worker("escrow", "escrow-before-ack", broker_url=gate.url(servers.broker.url("escrow")))
        async with worker.running():
            gate.hold_uploads()
            delivery = await escrow(home)
            assert delivery.stored == 1
            await soon(gate.held)
            await worker.kill()
            gate.cut()
            gate.open()
            await site.holds("escrow", 1)
            worker.start()
            # The log is as long as before.
            await worker.said(f'"tree_size": {delivery.records[0].tree_size}')
    assert await site.depth("escrow") == 0
    repeated = await sync(home)
    assert (repeated.exit_code, repeated.missing, repeated.mismatched) == (ExitCode.DONE, (), ())
    assert await rows_of(site, home) == 1
    (await check(site)).assert_kept()
