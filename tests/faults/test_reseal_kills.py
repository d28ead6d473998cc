"""`authority reseal` as a process: killed at any moment, cut off inside COMMIT, beside others; then finished."""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.conftest import FreshDatabase
from tests.support import authority as make
from tests.support.commit_proxy import CommitProxy, Loss
from tests.support.hosts import soon
from tests.support.proving import Proven, proven_place
from tests.support.resealing import (
    ACTIVE,
    CLOSED,
    OLD,
    adopt,
    change_key,
    check_rows,
    kept,
    reseal_leaves,
    retired,
)
from tests.support.waiting import until

from strongroom.errors import CommitUnknown, ExitCode
from strongroom.messages import Record
from strongroom_recovery.reseal.retiring import put_aside

ROOT = Path(__file__).parents[2]
STATEMENTS = 400
KILLS = 20
# With small blocks it commits often; and the roster of the tests is of another time than the clock of this machine.
COMMAND = f"""
import sys, time
time.time = lambda: {make.NOW}.0
from strongroom_recovery.prover import pacing
pacing.BLOCK_LEAVES = 8
from strongroom_cli.__main__ import main
sys.argv = ["strongroom", *sys.argv[1:]]
sys.exit(main())
"""


@asynccontextmanager
async def running(at: Proven, name: str, *arguments: str) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """Run a command with the prover's settings, and kill it at the end if it is still there."""
    environment = {
        f"STRONGROOM_{field.upper()}": str(
            value.get_secret_value() if hasattr(value, "get_secret_value") else value
        )
        for field, value in at.settings
        if value is not None
    }
    environment |= {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'shared'}:{ROOT / 'services'}"}
    with (at.place.folder / f"{name}.err").open("ab") as log, (at.place.folder / f"{name}.out").open("wb") as out:
        process = subprocess.Popen(  # noqa: ASYNC220  it only starts it
            [sys.executable, "-c", COMMAND, *arguments], env=environment, stdout=out, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        await asyncio.to_thread(process.wait, 60)


async def finished(at: Proven, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run a command to its end; return the exit code and its document."""
    async with running(at, "finished", *arguments, "-o", "json") as process:
        code = await asyncio.to_thread(process.wait, 300)
    return code, json.loads((at.place.folder / "finished.out").read_text())


async def done(at: Proven) -> int:
    """Return how many leaves a committed entry covers."""
    return sum(leaf.count for leaf in await reseal_leaves(at))


async def is_past(at: Proven, count: int) -> bool:
    return await done(at) >= count


async def filled(at: Proven) -> list[Record]:
    """Escrow many statements of one to three records; return all records."""
    return await at.keys(*(1 + index % 3 for index in range(STATEMENTS)))


async def test_killed_at_twenty_points_and_finished_every_record_opens_and_none_twice(
    database: FreshDatabase, tmp_path: Path
) -> None:
    """With the new key alone; rows, entries and counts agree, and `retire-key` says no, not yet, and yes."""
    at = await proven_place(database, tmp_path)
    records = await filled(at)
    before = await kept(at)
    key = await change_key(at)
    await adopt(at, (key, ACTIVE), (OLD, CLOSED))
    code, document = await finished(at, "authority", "retire-key", OLD.kid)
    assert (code, document["retired"], document["needed"]) == (ExitCode.FAILED, False, len(records))
    chance = random.Random(7)  # noqa: S311  a test that can be repeated
    for kill in range(KILLS):
        wanted = min(STATEMENTS - 8, await done(at) + chance.randint(0, STATEMENTS // KILLS))
        async with running(at, f"killed-{kill}", "authority", "reseal") as process:
            await until(lambda wanted=wanted: is_past(at, wanted), f"{wanted} are done")  # type: ignore[misc]
            process.kill()
            assert await asyncio.to_thread(process.wait, 60) in {-9, 0}
    code, document = await finished(at, "authority", "reseal")
    assert (code, document["done"], document["left"]) == (ExitCode.DONE, True, 0)
    after = await kept(at)
    assert after.envelopes == before.envelopes
    assert after.opens(key) == {record.id: b"a session key" for record in records}
    assert sorted(after.rows) == sorted((record.id, key.kid) for record in records)
    leaves = await reseal_leaves(at)
    covered = [index for leaf in leaves for index in range(leaf.first, leaf.first + leaf.count)]
    assert sorted(covered) == list(range(STATEMENTS))
    assert sum(leaf.records for leaf in leaves) == len(records)
    await check_rows(at)
    code, document = await finished(at, "authority", "retire-key", OLD.kid)
    assert (code, document["retired"], document["unseen"]) == (ExitCode.NOT_PROVEN, False, len(records))
    assert sum(leaf.records for leaf in await at.look()) == len(records)
    code, document = await finished(at, "authority", "retire-key", OLD.kid)
    assert (code, document["retired"]) == (ExitCode.DONE, True)
    assert document["key_file"].endswith("/retired/sealing.key")


@pytest.mark.parametrize("loss", Loss, ids=str)
async def test_it_ends_when_it_cannot_know_and_the_next_run_goes_on(
    database: FreshDatabase, tmp_path: Path, loss: Loss
) -> None:
    """Cut off inside COMMIT, with the rows stored or not: the next run reads from the log which it was."""
    at = await proven_place(database, tmp_path)
    records = await filled(at)
    key = await change_key(at)
    async with CommitProxy(database.server).listening() as proxy:
        url = SecretStr(proxy.url(database.url("strongroom_recovery")))
        through = replace(at, settings=at.settings.model_copy(update={"database_url": url}))
        async with running(through, "cut", "authority", "reseal", "-o", "json") as process:
            await until(lambda: is_past(at, 16), "some are done")
            proxy.lose(loss)
            await soon(proxy.lost)
            proxy.cut()
            assert await asyncio.to_thread(process.wait, 60) == ExitCode.FAILED
        assert CommitUnknown.code in (tmp_path / "cut.err").read_text()
    code, _ = await finished(at, "authority", "reseal")
    assert code == ExitCode.DONE
    found = await kept(at)
    assert found.opens(key) == {record.id: b"a session key" for record in records}
    assert sum(leaf.records for leaf in await reseal_leaves(at)) == len(records)
    await check_rows(at)


async def test_sigterm_ends_it_after_the_batch_and_two_at_once_share_the_rest(
    database: FreshDatabase, tmp_path: Path
) -> None:
    """Interrupted it says so; two that are started then do each record once."""
    at = await proven_place(database, tmp_path)
    records = await filled(at)
    key = await change_key(at)
    async with running(at, "ended", "authority", "reseal", "-o", "json") as process:
        await until(lambda: is_past(at, 16), "some are done")
        process.terminate()
        assert await asyncio.to_thread(process.wait, 60) == ExitCode.FAILED
    document = json.loads((tmp_path / "ended.out").read_text())
    assert (document["done"], document["left"]) == (False, None)
    assert document["leaves"] == await done(at) < STATEMENTS
    async with (
        running(at, "one", "authority", "reseal") as one,
        running(at, "two", "authority", "reseal") as two,
    ):
        assert [await asyncio.to_thread(each.wait, 300) for each in (one, two)] == [ExitCode.DONE] * 2
    assert (await kept(at)).opens(key) == {record.id: b"a session key" for record in records}
    assert sum(leaf.records for leaf in await reseal_leaves(at)) == len(records)
    await check_rows(at)


async def test_a_key_file_that_was_not_put_aside_in_time_is_put_aside_by_the_next_run(
    database: FreshDatabase, tmp_path: Path
) -> None:
    """Killed between the entry and the move, the command is simply run again."""
    at = await proven_place(database, tmp_path)
    await at.keys(1)
    key = await change_key(at)
    await adopt(at, (key, ACTIVE), (OLD, CLOSED))
    assert (await finished(at, "authority", "reseal"))[0] == ExitCode.DONE
    await at.look()
    assert (await retired(at, OLD.kid)).is_retired
    assert at.settings.sealing_keys_dir is not None
    assert (at.settings.sealing_keys_dir / "sealing.key").exists()
    code, document = await finished(at, "authority", "retire-key", OLD.kid)
    assert (code, document["retired"], document["before"]) == (ExitCode.DONE, True, at.now)
    assert not (at.settings.sealing_keys_dir / "sealing.key").exists()
    assert put_aside(at.settings.sealing_keys_dir, OLD.kid) == Path(document["key_file"])
