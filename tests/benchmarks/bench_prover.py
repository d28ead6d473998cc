"""The prover: records a second, database and log included, against bare HPKE open and Ed25519 verify of the same.

`make bench` runs this against a server of its own on this machine and prints figures; nothing asserts a time.
"""

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from tests.conftest import FreshDatabase
from tests.support import authority as make
from tests.support.measuring import cpu_seconds, environment_of, spread
from tests.support.proving import Proven, proven_place

from strongroom.blobs import BlobContext
from strongroom.crypto.signing import verify
from strongroom.fields import parse_body
from strongroom.messages import Escrow
from strongroom.statements import Statement, pae

ROUNDS = 5
STATEMENTS = 8_192
BATCH = 512


@pytest.fixture
async def at(database: FreshDatabase, tmp_path: Path) -> Proven:
    return await proven_place(database, tmp_path)


@asynccontextmanager
async def prover(at: Proven) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """Run a prover as its own process."""
    with (at.place.folder / "prover.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220  it only starts it
            [sys.executable, "-m", "strongroom_recovery.prover"], env=environment_of(at.settings), stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 60)


async def proving(at: Proven) -> tuple[float, float]:
    """Let a prover loose on what was not looked at; return records a second, by the wall clock and of its CPU.

    Both clocks start with its first proof, so that starting a process is not counted.
    """
    connection = await asyncpg.connect(at.databases.superuser_url)
    query = "SELECT coalesce(sum((convert_from(leaf, 'UTF8')::jsonb ->> 'records')::int), 0) FROM recovery_leaves"
    before = await connection.fetchval(query)
    async with prover(at) as process:
        while (first := await connection.fetchval(query)) == before:  # noqa: ASYNC110  it is another process
            await asyncio.sleep(0.01)
        began, cpu_began = time.perf_counter(), cpu_seconds(process.pid)
        while (last := await connection.fetchval(query)) < before + STATEMENTS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        seconds, cpu = time.perf_counter() - began, cpu_seconds(process.pid) - cpu_began
    await connection.close()
    return (last - first) / seconds, (last - first) / cpu


def bare(statements: list[Statement]) -> tuple[float, float]:
    """Verify each signature and open each blob, with nothing around it; return records a second, as `proving`."""
    public_key, key = make.signing_key(make.PRINCIPAL).public_key, make.sealing_key()
    work = []
    for statement in statements:
        for record in parse_body(statement, Escrow).records:
            place = BlobContext(make.AUTHORITY, make.PRINCIPAL, record.id, record.kid, record.suite)
            signed = pae(statement.type, statement.body)
            work.append((signed, statement.signatures[0].value, record.blob, place.info()))
    began, cpu_began = time.perf_counter(), time.process_time()
    for signed, signature, blob, info in work:
        verify(public_key, signed, signature)
        key.open(blob, info)
    return len(work) / (time.perf_counter() - began), len(work) / (time.process_time() - cpu_began)


async def bench_proving_against_bare_opening(at: Proven) -> None:
    """One prover process over one-record statements against the bare operations on one core, in turns."""
    ours, opening = [], []
    for _ in range(ROUNDS):
        statements = [make.escrow() for _ in range(STATEMENTS)]
        for first in range(0, STATEMENTS, BATCH):
            await at.escrow(*statements[first : first + BATCH])
        opening.append(bare(statements[:4096]))
        ours.append(await proving(at))
        print(f"  bare {opening[-1][0]:8,.0f}   prover {ours[-1][0]:8,.0f} records/s", flush=True)
    assert not any(leaf.unprovable for leaf in await at.proofs())
    for place, clock in enumerate(("wall clock", "CPU time")):
        proven, opened = [each[place] for each in ours], [each[place] for each in opening]
        ratios = [mine / other for mine, other in zip(proven, opened, strict=True)]
        print(f"\nby {clock}")
        print(f"prover                records/s {spread(proven)}")
        print(f"bare open and verify  records/s {spread(opened)}")
        print(f"ratio, round by round median {statistics.median(ratios):.2f}", end="  ")
        print(f"({min(ratios):.2f} to {max(ratios):.2f})")
