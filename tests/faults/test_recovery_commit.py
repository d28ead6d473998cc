"""The recovery worker around COMMIT, for enrolments and for requests: not applied or applied, cut off or killed."""

import asyncio
import secrets
from pathlib import Path

import pytest
from tests.faults.conftest import Servers
from tests.support.checker import check_recovery
from tests.support.commit_proxy import CommitProxy, Loss
from tests.support.hosts import escrow, keys, soon
from tests.support.site import Site, WorkerProcess

from strongroom import broker as amqp
from strongroom.errors import ExitCode
from strongroom.fields import parse_body
from strongroom.leaves import EnrolmentLeaf, Leaf, ReleaseLeaf, RequestLeaf, parse_leaf
from strongroom.messages import Release, Request
from strongroom.replies import Reply, parse_reply
from strongroom.statements import Statement, parse_envelope
from strongroom.topology import routing_key
from strongroom_agent import Agent
from strongroom_agent.enrolment import enrol

pairs = pytest.mark.parametrize(
    ("loss", "how"), [(loss, how) for loss in Loss for how in ("cut", "killed")], ids=str
)


@pytest.fixture
def site(site: Site) -> Site:
    """The module's site without a recovery worker: each test runs its own."""
    site.stop_workers()
    return site


async def log(site: Site) -> list[Leaf]:
    return [parse_leaf(row["leaf"]) for row in await site.rows("SELECT leaf FROM recovery_leaves ORDER BY index")]


async def lose_commit(site: Site, proxy: CommitProxy, worker: WorkerProcess, how: str) -> None:
    """End the session that is inside COMMIT, and the worker with it; then start the worker anew.

    Meanwhile the message is back in its queue: nothing was acknowledged.
    """
    if how == "killed":
        await worker.kill()
    proxy.cut()
    code = await worker.ended()
    if how == "cut":
        assert code == ExitCode.FAILED
        assert "commit_unknown" in worker.log
    await site.holds("recovery", 1)
    worker.start()


@pairs
async def test_an_enrolment_is_in_the_log_once(site: Site, servers: Servers, loss: Loss, how: str) -> None:
    """The host is enrolled after the restart, by one leaf and one row, whatever became of the COMMIT.

    If the worker is killed, so is the host: only the broker can bring its message again.
    """
    principal = f"enrol-{loss.name.lower()}-{how}"
    home, invitation = site.folder / "homes" / principal, site.invitation(principal)
    async with CommitProxy(servers.postgres).listening() as proxy:
        worker = site.worker("recovery", database_url=proxy.url(site.databases.url("strongroom_recovery")))
        async with worker.running():
            proxy.lose(loss)
            enrolling = asyncio.create_task(enrol(home, invitation, wait_seconds=60))
            await soon(proxy.lost)
            applied = [
                leaf for leaf in await log(site) if isinstance(leaf, EnrolmentLeaf) and leaf.principal == principal
            ]
            assert len(applied) == (1 if loss is Loss.ANSWER else 0)
            if how == "killed":
                enrolling.cancel()
                await asyncio.wait({enrolling})
            await lose_commit(site, proxy, worker, how)
            if how == "killed":
                await worker.said('"enrolment"')
                enrolling = asyncio.create_task(enrol(home, invitation, wait_seconds=60))
            enrolled = await enrolling
    leaves = [leaf for leaf in await log(site) if isinstance(leaf, EnrolmentLeaf) and leaf.principal == principal]
    assert [leaf.key for leaf in leaves] == [enrolled.key_id]
    rows = await site.rows("SELECT leaf_index FROM trust_statements WHERE id = $1", leaves[0].id)
    assert [row["leaf_index"] for row in rows] == [enrolled.log_index]
    await check_recovery(site)


async def answer_to(site: Site, request: Statement, asked: Request) -> Reply:
    """Send a request once more, as a host that got no answer does."""
    async with site.connected("fleet") as connection, amqp.Requester(connection) as requester:
        await requester.submit(
            routing_key("recovery", asked.requester),
            request.envelope(),
            message_id=asked.id,
            headers={},
            expiration_seconds=None,
        )
        return parse_reply(await requester.answer(asked.id, 60))


@pairs
async def test_a_request_is_released_once_and_its_repeat_gives_the_same(
    site: Site, servers: Servers, loss: Loss, how: str
) -> None:
    """One request, one release, one leaf of each; sending the request again brings the very same release."""
    principal, material = f"request-{loss.name.lower()}-{how}", secrets.token_bytes(32)
    async with CommitProxy(servers.postgres).listening() as proxy:
        worker = site.worker("recovery", database_url=proxy.url(site.databases.url("strongroom_recovery")))
        async with worker.running():
            home = await escrowed(site, principal, material)
            proxy.lose(loss)
            with Agent.open(home) as agent:
                recovering = asyncio.create_task(agent.recover(name="disk", wait_seconds=60))
                await soon(proxy.lost)
                before = await site.count("SELECT FROM requests WHERE principal = $1", principal)
                assert before == (1 if loss is Loss.ANSWER else 0)
                await lose_commit(site, proxy, worker, how)
                recovery = await recovering
            assert [key.material.expose() for key in recovery.keys] == [material]
            (row,) = await site.rows(
                "SELECT q.envelope AS request, r.envelope AS release, r.leaf_index"
                " FROM requests AS q JOIN releases AS r ON r.request_id = q.id WHERE q.principal = $1",
                principal,
            )
            request = parse_envelope(row["request"])
            reply = await answer_to(site, request, parse_body(request, Request))
    about = [
        leaf
        for leaf in await log(site)
        if isinstance(leaf, RequestLeaf | ReleaseLeaf) and leaf.id == recovery.request_id
    ]
    # What was logged and not kept, because the worker ended in between, is decided again under a new entry.
    again = [ReleaseLeaf] if loss is Loss.ANSWER else []
    assert [type(leaf) for leaf in about] == [RequestLeaf, ReleaseLeaf, *again]
    assert row["leaf_index"] == recovery.log_index
    assert reply.statement is not None
    assert isinstance(about[-1], ReleaseLeaf)
    assert reply.statement.digest.hex() == parse_envelope(row["release"]).digest.hex() == about[-1].release
    assert parse_body(reply.statement, Release).request == recovery.request_id
    await check_recovery(site)


async def escrowed(site: Site, principal: str, material: bytes) -> Path:
    """Enrol a home and escrow one key from it."""
    home = await site.enrol(principal)
    async with site.worker("escrow").running():
        assert (await escrow(home, keys(material=material))).stored == 1
    return home
