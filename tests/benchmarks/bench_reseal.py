"""Sealing again: records a second, database and log included, against bare verify, open and seal of the same.

`make bench` runs this against a server of its own on this machine and prints figures; nothing asserts a time.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest
from tests.conftest import FreshDatabase
from tests.support import authority as make
from tests.support.measuring import cpu_seconds, environment_of, spread
from tests.support.proving import Proven, proven_place
from tests.support.resealing import change_key, check_rows, new_key

from strongroom.blobs import BlobContext
from strongroom.crypto.sealing import PrivateSealingKey, seal
from strongroom.crypto.signing import verify
from strongroom.fields import parse_body
from strongroom.messages import Escrow
from strongroom.statements import Statement, pae

ROUNDS = 9
STATEMENTS = 3_072
BARE = 1_024
BATCH = 512
# The roster of the tests is of another time than the clock of this machine.
COMMAND = f"""
import sys, time
time.time = lambda: {make.NOW}.0
from strongroom_cli.__main__ import main
sys.argv = ["strongroom", "authority", "reseal", "-o", "json"]
sys.exit(main())
"""


@pytest.fixture
async def at(database: FreshDatabase, tmp_path: Path) -> Proven:
    return await proven_place(database, tmp_path)


async def resealing(at: Proven) -> tuple[float, float]:
    """Seal again what was not yet; return records a second, by the wall clock and of its CPU.

    Both clocks start with its first entry, so that starting a process is not counted.
    """
    connection = await asyncpg.connect(at.databases.superuser_url)
    query = "SELECT count(*) FROM resealed_blobs"
    before = await connection.fetchval(query)
    with (at.place.folder / "reseal.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220  it only starts it
            [sys.executable, "-c", COMMAND], env=environment_of(at.settings), stdout=log, stderr=log
        )
        while (first := await connection.fetchval(query)) == before:  # noqa: ASYNC110  it is another process
            await asyncio.sleep(0.01)
        began, cpu_began = time.perf_counter(), cpu_seconds(process.pid)
        while (last := await connection.fetchval(query)) < before + STATEMENTS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        seconds, cpu = time.perf_counter() - began, cpu_seconds(process.pid) - cpu_began
        assert await asyncio.to_thread(process.wait, 60) == 0
    await connection.close()
    return (last - first) / seconds, (last - first) / cpu


def bare(statements: list[Statement], target: PrivateSealingKey) -> tuple[float, float]:
    """Verify each signature, open each blob and seal it, with nothing around it; as `resealing`."""
    public_key, key = make.signing_key(make.PRINCIPAL).public_key, make.sealing_key()
    work = []
    for statement in statements:
        for record in parse_body(statement, Escrow).records:
            place = BlobContext(make.AUTHORITY, make.PRINCIPAL, record.id, record.kid, record.suite)
            there = BlobContext(make.AUTHORITY, make.PRINCIPAL, record.id, target.kid, target.suite)
            signed = pae(statement.type, statement.body)
            work.append((signed, statement.signatures[0].value, record.blob, place.info(), there.info()))
    began, cpu_began = time.perf_counter(), time.process_time()
    for signed, signature, blob, info, new_info in work:
        verify(public_key, signed, signature)
        seal(target.suite, target.public_key, key.open(blob, info).expose(), new_info)
    return len(work) / (time.perf_counter() - began), len(work) / (time.process_time() - cpu_began)


async def bench_sealing_again_against_bare_operations(at: Proven) -> None:
    """One process over one-record statements against the bare operations on one core, in turns."""
    await change_key(at)
    ours, plain = [], []
    for _ in range(ROUNDS):
        statements = [make.escrow() for _ in range(STATEMENTS)]
        for first in range(0, STATEMENTS, BATCH):
            await at.escrow(*statements[first : first + BATCH])
        plain.append(bare(statements[:BARE], new_key()))
        ours.append(await resealing(at))
        print(f"  bare {plain[-1][0]:8,.0f}   reseal {ours[-1][0]:8,.0f} records/s", flush=True)
    await check_rows(at)
    for place, clock in enumerate(("wall clock", "CPU time")):
        mine, theirs = [each[place] for each in ours], [each[place] for each in plain]
        ratios = [one / other for one, other in zip(mine, theirs, strict=True)]
        print(f"\nby {clock}")
        print(f"reseal                      records/s {spread(mine)}")
        print(f"bare verify, open and seal  records/s {spread(theirs)}")
        print(f"ratio, round by round       median {statistics.median(ratios):.2f}", end="  ")
        print(f"({min(ratios):.2f} to {max(ratios):.2f})")
