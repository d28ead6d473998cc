"""The prover as a process, killed at any moment, two at once, and through an outage of the database."""

import asyncio
import itertools
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from deploy.local.postgres import PrivatePostgres
from pydantic import SecretStr
from tests.conftest import FreshDatabase
from tests.support import authority as make
from tests.support.commit_proxy import CommitProxy, Loss
from tests.support.hosts import soon
from tests.support.proving import Proven, named, proven_place
from tests.support.waiting import until

from strongroom.errors import CommitUnknown, ExitCode
from strongroom.leaves import ProofLeaf
from strongroom.migrations import migrate
from strongroom_recovery.lanes import LANES

ROOT = Path(__file__).parents[2]
STATEMENTS = 480
KILLS = 12
SMALL_BLOCKS = """
import sys
from strongroom_recovery.prover import pacing
pacing.BLOCK_LEAVES = 8
from strongroom_recovery.prover.__main__ import main
sys.exit(main())
"""


@asynccontextmanager
async def prover(at: Proven, name: str) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """Run a prover that commits often, and kill it at the end if it is still there."""
    environment = {
        f"STRONGROOM_{field.upper()}": str(
            value.get_secret_value() if hasattr(value, "get_secret_value") else value
        )
        for field, value in at.settings
        if value is not None
    }
    environment |= {
        "STRONGROOM_HEALTH_FILE": str(at.place.folder / f"{name}.health"),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT / 'shared'}:{ROOT / 'services'}",
    }
    with (at.place.folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220  it only starts it
            [sys.executable, "-c", SMALL_BLOCKS], env=environment, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        await asyncio.to_thread(process.wait, 60)


async def looked_at(at: Proven) -> set[int]:
    """Return which leaves a committed proof covers."""
    return {index for leaf in await at.proofs() for index in range(leaf.first, leaf.first + leaf.count)}


async def is_past(at: Proven, count: int) -> bool:
    return len(await looked_at(at)) >= count


def overlaps(proofs: list[ProofLeaf]) -> bool:
    """Say whether any leaf was looked at twice."""
    ranges = sorted((leaf.first, leaf.first + leaf.count) for leaf in proofs)
    return any(end > first for (_, end), (first, _) in itertools.pairwise(ranges))


async def filled(at: Proven) -> set[tuple[int, str | None, str]]:
    """Escrow many statements, every fortieth with a record that does not open; return what is to be named."""
    statements = [
        make.escrow(records=[make.record(blob=b"x") if index % 40 == 7 else make.record()])
        for index in range(STATEMENTS)
    ]
    records = await at.escrow(*statements)
    return {(index, record.id, "blob_invalid") for index, record in enumerate(records) if index % 40 == 7}


async def test_a_prover_that_is_killed_anywhere_proves_everything_once(
    database: FreshDatabase, tmp_path: Path
) -> None:
    """Kill -9 at random points of its work, again and again: each key is looked at once, and judged rightly."""
    at = await proven_place(database, tmp_path)
    expected = await filled(at)
    chance = random.Random(4)  # noqa: S311  a test that can be repeated
    for _ in range(KILLS):
        done = len(await looked_at(at))
        async with prover(at, "killed") as process:
            wanted = min(STATEMENTS, done + chance.randint(1, 2 * STATEMENTS // KILLS))
            await until(lambda wanted=wanted: is_past(at, wanted), f"{wanted} are proven")  # type: ignore[misc]
            process.kill()
    async with prover(at, "last") as process:
        await until(lambda: is_past(at, STATEMENTS), "all is proven")
        await until((at.place.folder / "last.health").exists, "it is at work")
        process.terminate()
        assert await asyncio.to_thread(process.wait, 60) == 0
    proofs = await at.proofs()
    assert not overlaps(proofs)
    assert named(proofs) == expected
    assert sum(leaf.records for leaf in proofs) == STATEMENTS - len(expected)


async def test_two_processes_share_the_work_and_one_that_dies_leaves_it_to_the_other(
    database: FreshDatabase, tmp_path: Path
) -> None:
    """What the one had claimed is looked at by the other, as soon as its connection is gone."""
    at = await proven_place(database, tmp_path)
    expected = await filled(at)
    async with prover(at, "one") as one, prover(at, "other"):
        await until(lambda: is_past(at, STATEMENTS // 3), "a third is proven")
        one.kill()
        await until(lambda: is_past(at, STATEMENTS), "all is proven")
    proofs = await at.proofs()
    assert not overlaps(proofs)
    assert named(proofs) == expected
    assert sum(leaf.records for leaf in proofs) == STATEMENTS - len(expected)


async def test_a_database_that_goes_and_comes_back_is_waited_for(
    own_postgres: PrivatePostgres, tmp_path: Path
) -> None:
    """Lost outside of COMMIT, it ends no prover: the same process goes on, and no key is called lost."""
    database = FreshDatabase(own_postgres, "strongroom")
    await migrate(database.url("strongroom_owner"))
    at = await proven_place(database, tmp_path)
    expected = await filled(at)
    log = tmp_path / "patient.log"
    async with prover(at, "patient") as process:
        await until(lambda: is_past(at, 16), "some are proven")
        async with kept_from_writing(database):
            await asyncio.to_thread(own_postgres.stop)
        await until(lambda: "backing off" in log.read_text(), "it waits")
        await asyncio.to_thread(own_postgres.start)
        await at.keys(1)
        await until(lambda: is_past(at, STATEMENTS + 1), "all is proven")
        assert process.poll() is None
    proofs = await at.proofs()
    assert not overlaps(proofs)
    assert named(proofs) == expected


@asynccontextmanager
async def kept_from_writing(database: FreshDatabase) -> AsyncIterator[None]:
    """Hold every lane of a prover in the middle of a transaction; in there the server may be stopped."""
    connection = await asyncpg.connect(database.superuser_url)
    try:
        await connection.execute("BEGIN; LOCK TABLE recovery_leaves IN EXCLUSIVE MODE")
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"

        async def are_held() -> bool:
            return bool(await connection.fetchval(waiting) == LANES)

        await until(are_held, "all lanes wait for a lock")
        yield
    finally:
        connection.terminate()


@pytest.mark.parametrize("loss", Loss, ids=str)
async def test_a_prover_that_loses_the_database_inside_commit_ends_and_the_next_goes_on(
    database: FreshDatabase, tmp_path: Path, loss: Loss
) -> None:
    """Whether its proof is stored it cannot know, so it ends; the next process reads it from the log."""
    at = await proven_place(database, tmp_path)
    expected = await filled(at)
    async with CommitProxy(database.server).listening() as proxy:
        url = SecretStr(proxy.url(database.url("strongroom_recovery")))
        through = replace(at, settings=at.settings.model_copy(update={"database_url": url}))
        async with prover(through, "cut") as process:
            await until(lambda: is_past(at, 16), "some are proven")
            proxy.lose(loss)
            await soon(proxy.lost)
            proxy.cut()
            assert await asyncio.to_thread(process.wait, 60) == ExitCode.FAILED
        assert CommitUnknown.code in (tmp_path / "cut.log").read_text()
        async with prover(through, "next") as process:
            await until(lambda: is_past(at, STATEMENTS), "all is proven")
            assert process.poll() is None
    proofs = await at.proofs()
    assert not overlaps(proofs)
    assert named(proofs) == expected
    assert sum(leaf.records for leaf in proofs) == STATEMENTS - len(expected)
