"""Inclusion proofs: how long one takes in a log of ten million leaves, in a real PostgreSQL.

`make bench` runs this against a server of its own on this machine and prints figures; nothing asserts a time.
`STRONGROOM_BENCH_LEAVES` makes a smaller log. The rows are made by SQL, with the hashes that RFC 6962 asks for.
"""

import os
import random
import statistics
import time
from hashlib import sha256
from pathlib import Path

import asyncpg
from tests.support import authority as make
from tests.support.workers import Databases

from strongroom import database as pg
from strongroom.checkpoint_file import working_origin
from strongroom.crypto import tlog
from strongroom.crypto.notes import Checkpoint, sign_checkpoint
from strongroom.log_writer import LogName, LogWriter

LEAVES = int(os.environ.get("STRONGROOM_BENCH_LEAVES", "10000000"))
ASKED = 1_000

_LEAVES = """
INSERT INTO escrow_leaves SELECT i, convert_to('leaf ' || i, 'UTF8') FROM generate_series(0, $1::bigint - 1) AS i
"""
_LEVEL_0 = "INSERT INTO escrow_nodes SELECT 0, index, sha256('\\x00' || leaf) FROM escrow_leaves"
_NEXT_LEVEL = """
INSERT INTO escrow_nodes
SELECT $1::smallint, l.index / 2, sha256('\\x01' || l.hash || r.hash)
FROM escrow_nodes AS l JOIN escrow_nodes AS r ON r.level = l.level AND r.index = l.index + 1
WHERE l.level = $1::smallint - 1 AND l.index % 2 = 0
"""


async def bench_an_inclusion_proof_of_any_leaf(database: Databases, tmp_path: Path) -> None:
    """A receipt's proof for random leaves: rows read, checked against the signed root, put together."""
    origin, key = f"{make.AUTHORITY}/escrow", make.signing_key("escrow log")
    began = time.monotonic()
    connection = await asyncpg.connect(database.superuser_url, command_timeout=3_600)
    try:
        await connection.execute(_LEAVES, LEAVES)
        await connection.execute(_LEVEL_0)
        for level in range(1, LEAVES.bit_length()):
            await connection.execute(_NEXT_LEVEL, level)
        edge = tlog.frontier_nodes(LEAVES)
        hashes = [
            await connection.fetchval("SELECT hash FROM escrow_nodes WHERE level = $1 AND index = $2", *node)
            for node in edge
        ]
        root = tlog.Frontier(LEAVES, tuple(hashes)).root()
        note = sign_checkpoint(Checkpoint(working_origin(origin), LEAVES, root), key.sign, key.public_key)
        await connection.execute("INSERT INTO escrow_checkpoints VALUES ($1, $2)", LEAVES, note)
        await connection.execute("ANALYZE escrow_leaves, escrow_nodes")
    finally:
        await connection.close()
    print(f"\n{LEAVES:,} leaves made in {time.monotonic() - began:.0f} s")
    writer = LogWriter(LogName.ESCROW, origin, key, tmp_path / "escrow.checkpoint")
    took: list[float] = []
    async with pg.connect(database.url("strongroom_escrow")) as opened:
        await writer.open(opened)
        chance = random.Random(4711)  # noqa: S311  which leaves are asked for is no secret
        for _ in range(ASKED):
            index = chance.randrange(LEAVES)
            begins = time.perf_counter()
            async with opened.reading() as tx:
                proofs = await writer.leaf_proofs(tx, [index], LEAVES)
            took.append((time.perf_counter() - begins) * 1000)
            assert proofs[index].leaf == f"leaf {index}".encode()
            assert proofs[index].root == root
            assert len(proofs[index].hashes) <= LEAVES.bit_length()
            assert sha256(b"\x00" + proofs[index].leaf).digest() == tlog.leaf_hash(proofs[index].leaf)
    took.sort()
    print(
        f"inclusion proof of a random leaf: median {statistics.median(took):.2f} ms, "
        f"p95 {took[int(ASKED * 0.95)]:.2f}, p99 {took[int(ASKED * 0.99)]:.2f}, "
        f"longest {took[-1]:.2f} ({ASKED} asked)"
    )
