"""Coverage of a whole fleet, page by page through the worker's function: seconds, and memory beside the log state.

1,000,000 principals with 5,000,000 records take minutes to be put into the database, so that is what
COVERAGE_PRINCIPALS=1000000 asks for; the default is 50,000. Nothing asserts a time.
"""

import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.workers import Databases

from strongroom import database as pg
from strongroom.audits import Coverage, CoverageRequest
from strongroom.fields import Capacity, parse_body
from strongroom.leaves import ProofLeaf, Unprovable
from strongroom.mandates import Expectation, Policy
from strongroom.messages import RequestState
from strongroom.registry import Registry, Standing
from strongroom_recovery.coverage import cover
from strongroom_recovery.desk import Desk, Hints
from strongroom_recovery.handler import Submission
from strongroom_recovery.ledger import Attested, Case, Ledger, Outcome

PRINCIPALS = int(os.environ.get("COVERAGE_PRINCIPALS", "50000"))
RECORDS = 5
NAMES = 4  # one of them has an older record
EVERY = 1_000  # one principal in so many has a record of each bad kind

_FILL = """
INSERT INTO records (id, statement_id, position, principal, name, issued_at, kid, leaf_index)
SELECT ('018f0000-0000-7000-8000-' || lpad(to_hex(p * 8 + k), 12, '0'))::uuid,
    '018f0000-0000-7000-8000-000000000000', k, 'host-' || lpad(p::text, 7, '0'), 'disk/' || (k % $3), $4 + k,
    '0123456789abcdef0123456789abcdef', p * $2 + k
FROM generate_series(0, $1 - 1) AS p, generate_series(0, $2 - 1) AS k
"""


def name_of(principal: int) -> str:
    return f"host-{principal:07}"


def record_of(principal: int, number: int) -> str:
    return f"018f0000-0000-7000-8000-{principal * 8 + number:012x}"


def registry() -> Registry:
    """Return a registry in which everybody is enrolled."""
    policy = Policy(expected=[Expectation(prefix="host-", label=None, names=["disk/0", "disk/1"])])
    made = make.registry(bootstrap=make.roster(policy=policy))
    standing = Standing(bytes(32), "0" * 32, 1, 1, make.NOW - 90 * make.DAY)
    made._standings |= {name_of(each): (replace(standing, index=each),) for each in range(PRINCIPALS)}
    return made


def ledger() -> Ledger:
    """Return what the prover, the owners and the officers have said: one in a thousand of each kind is bad."""
    made = Ledger()
    size = PRINCIPALS * RECORDS
    for first in range(0, size, 10_000):
        end = min(size, first + 10_000)
        bad = [
            Unprovable(index=each * RECORDS + 1, record=record_of(each, 1), code="blob_invalid")
            for each in range(0, PRINCIPALS, EVERY)
            if first <= each * RECORDS + 1 < end
        ]
        leaf = ProofLeaf(
            time=make.NOW - 60, first=first, count=end - first, size=size, root="0" * 64, records=0, unprovable=bad
        )
        made.proofs.apply(leaf, first)
    for each in range(1, PRINCIPALS, EVERY):
        made._attested[name_of(each), record_of(each, 2)] = Attested(matches=False, time=make.NOW - 60)
    for each in range(2, PRINCIPALS, EVERY):
        outcome = Outcome(RequestState.RELEASED, 0, make.NOW - 60, records=(record_of(each, 3),))
        case = Case("", b"", "officer-a", Capacity.OFFICER, "", name_of(each), make.NOW, 0, outcome=outcome)
        made._disclosed[record_of(each, 3)] = case
    return made


class Standstill:
    """A recovery log that does not grow, and an escrow log of which only the size counts."""

    size = PRINCIPALS * RECORDS

    async def advance(self, _tx: object) -> None:
        """Find nothing new."""

    def go_by(self, _log: object) -> None:
        """Take any keys for those of the log."""

    async def head(self, _tx: object) -> SimpleNamespace:
        """Return the head of the escrow log."""
        return SimpleNamespace(size=self.size)


@pytest.fixture
async def desk(database: Databases) -> AsyncIterator[Desk]:
    """A recovery worker's desk over a full database."""
    began = time.perf_counter()
    connection = await asyncpg.connect(database.superuser_url)
    await connection.execute("ALTER TABLE records DROP CONSTRAINT records_statement_id_fkey")
    await connection.execute(_FILL, PRINCIPALS, RECORDS, NAMES, make.NOW - make.DAY, timeout=1_800)
    await connection.execute("CHECKPOINT", timeout=600)
    await connection.execute("VACUUM (ANALYZE) records", timeout=600)
    await connection.close()
    print(f"\n{PRINCIPALS * RECORDS:,} records made in {time.perf_counter() - began:.0f} s", flush=True)
    still: Any = Standstill()
    async with pg.connect(database.url("strongroom_recovery")) as opened:
        yield Desk(
            database=opened,
            registry=registry(),
            ledger=ledger(),
            follower=still,
            writer=still,
            escrow_log=still,
            keyring=still,
            reply_key=make.signing_key("recovery replies"),
            check_usable=lambda _roster: None,
        )


def memory(what: str) -> float:
    """Return VmRSS or VmHWM of this process in MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what)) * 1024 / 1e6


def forget_peak() -> None:
    """Let VmHWM begin anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


async def read_all(desk: Desk) -> tuple[Counter[str], int, float]:
    """Ask for page after page; return all figures, how many pages they came on, and the slowest page's seconds."""
    counts: Counter[str] = Counter()
    after, pages, slowest = None, 0, 0.0
    while True:
        began = time.perf_counter()
        statement = ask.coverage_request(after=after)
        asked = parse_body(statement, CoverageRequest)
        answer = await cover(desk, Submission(statement.envelope(), statement, asked), asked, Hints(0, 1), make.NOW)
        assert answer.reply.statement is not None
        page = parse_body(answer.reply.statement, Coverage)
        slowest = max(slowest, time.perf_counter() - began)
        counts.update(page.counts.model_dump())
        pages += 1
        after = page.next
        if after is None:
            return counts, pages, slowest


async def bench_coverage_of_a_fleet(desk: Desk) -> None:
    """Read the whole coverage twice: the first time fills caches."""
    counts: Counter[str] = Counter()
    for turn in ("first", "again"):
        forget_peak()
        before, began, spent = memory("VmRSS"), time.perf_counter(), time.process_time()
        counts, pages, slowest = await read_all(desk)
        seconds, grown = time.perf_counter() - began, memory("VmHWM") - before
        print(
            f"{turn}: {counts['principals']:,} principals, {pages} pages, {seconds:.2f} s"
            f" ({time.process_time() - spent:.2f} s of it here, the rest in PostgreSQL),"
            f" slowest page {slowest * 1000:.0f} ms, peak memory +{grown:.0f} MB over {before:.0f} MB of log state"
        )
        print(f"       {dict(counts)}", flush=True)
    assert counts["principals"] == PRINCIPALS
    assert counts["unprovable"] == counts["stale"] == counts["disclosed"] == -(-PRINCIPALS // EVERY)
    assert counts["proven"] == PRINCIPALS * NAMES - 3 * -(-PRINCIPALS // EVERY)
