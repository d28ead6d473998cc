"""Escrow: records a second against the obvious handler, latency of a lone key, memory under a backlog.

`make bench` runs these against servers of their own on this machine and prints figures; nothing asserts a time.
"""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import aio_pika
import asyncpg
import pytest
from tests.support import authority as make
from tests.support import workers
from tests.support.measuring import environment_of, spread
from tests.support.workers import Brokers, Databases

from strongroom import broker as amqp
from strongroom import database as pg
from strongroom.crypto.notes import Checkpoint
from strongroom.crypto.tlog import verify_consistency
from strongroom.fields import new_id
from strongroom.follower import RecoveryLogFollower
from strongroom.messages import Escrow
from strongroom.receipts import verify
from strongroom.registry import Registry
from strongroom.replies import TREE_SIZE_HEADER, parse_reply
from strongroom.roster import Roster
from strongroom.settings import read_roster
from strongroom.statements import Statement, canonical_json
from strongroom_escrow.handler import Submission, judge, read
from strongroom_escrow.settings import EscrowSettings

PREFETCH = 400
ROUNDS = 3
STATEMENTS_A_ROUND = 6_000
BACKLOG = 100_000
LONE_KEYS = 200


class Bench:
    """Servers, a roster, one enrolled principal, and a supply of distinct statements of one record each."""

    def __init__(self, databases: Databases, brokers: Brokers, folder: Path) -> None:
        self.databases, self.brokers, self.folder = databases, brokers, folder
        self.roster: Roster = workers.current_roster()
        self.settings = EscrowSettings.model_validate(
            workers.write_files(folder / "escrow", self.roster, "escrow")
            | workers.server_settings(databases, brokers, "escrow")
        )
        self._body: dict[str, Any] = make.escrow_body(issued_at=int(time.time())).model_dump(mode="json")

    def statement(self) -> Statement:
        """Return a fresh statement; the blob is always the same, and the escrow worker cannot tell."""
        record = {**self._body["records"][0], "id": new_id()}
        body = canonical_json({**self._body, "id": new_id(), "records": [record]})
        return Statement.sign(Escrow.TYPE, body, make.signing_key(make.PRINCIPAL))

    @asynccontextmanager
    async def fleet(self) -> AsyncIterator[amqp.Requester]:
        """Connect as the fleet."""
        url, ca_file = self.brokers.url("fleet"), self.brokers.ca_file
        async with (
            amqp.connect(url, ca_file=ca_file, name="fleet", timeout_seconds=60) as connection,
            amqp.Requester(connection) as requester,
        ):
            yield requester

    async def fill(self, requester: amqp.Requester, count: int) -> list[str]:
        """Publish `count` statements, confirmed; return their message ids."""

        async def publish() -> str:
            name = new_id()
            body = self.statement().envelope()
            await requester.submit(
                f"v1.escrow.{make.PRINCIPAL}", body, message_id=name, headers={}, expiration_seconds=None
            )
            return name

        names: list[str] = []
        for first in range(0, count, 200):
            names += await asyncio.gather(*(publish() for _ in range(min(200, count - first))))
        return names


@pytest.fixture
async def bench(database: Databases, broker: Brokers, tmp_path: Path) -> Bench:
    for queue in ("escrow", "quarantine"):
        broker.rabbitmqctl("purge_queue", "--vhost", "strongroom", queue)
    made = Bench(database, broker, tmp_path)
    await workers.enrol_principals(database, tmp_path, made.roster, make.PRINCIPAL)
    return made


@asynccontextmanager
async def our_worker(bench: Bench) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run the escrow worker as its own process."""
    with (bench.folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220  it only starts it
            [sys.executable, "-m", "strongroom_escrow"], env=environment_of(bench.settings), stderr=log
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 60)


@asynccontextmanager
async def obvious_worker(bench: Bench) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Run the obvious handler as its own process."""
    given = {
        "database_url": bench.settings.database_url.get_secret_value(),
        "broker_url": bench.settings.broker_url.get_secret_value(),
        "ca_file": str(bench.settings.broker_ca_file),
        "folder": str(bench.folder),
    }
    with (bench.folder / "obvious.log").open("ab") as log:
        process = subprocess.Popen(  # noqa: ASYNC220  it only starts it
            [sys.executable, "-m", "tests.benchmarks.bench_escrow"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OBVIOUS": json.dumps(given)},
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 60)


async def _obvious_main() -> None:
    """Handle one message at a time: verify, INSERT, answer, ack. No batches, no log, no receipts' proofs."""
    given = json.loads(os.environ["OBVIOUS"])
    root_key = make.signing_key("root").public_key
    roster = Roster.verified(read_roster(Path(given["folder"]) / "escrow" / "roster.json"), root_key)
    registry = Registry(root_key, roster)
    follower = RecoveryLogFollower(
        registry, roster.body.logs.recovery, Path(given["folder"]) / "obvious.checkpoint"
    )
    async with pg.connect(given["database_url"]) as opened, opened.reading() as tx:
        await follower.advance(tx)
        await follower.admit(tx, {make.PRINCIPAL})
    pool = await asyncpg.create_pool(given["database_url"], min_size=4, max_size=4)
    connection = await aio_pika.connect(given["broker_url"], ssl_options={"cafile": given["ca_file"]})
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=PREFETCH)
    queue = await channel.get_queue("escrow", ensure=False)

    async def handle(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        async with message.process():
            submission: Submission = read(message.body)
            judge(submission, registry, int(time.time()))
            if submission.escrow is None or submission.refusal is not None:
                raise ValueError("refused")
            await pool.execute(
                "INSERT INTO escrow_statements (id, digest, principal, envelope, leaf_index, stored_at) "
                "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
                UUID(submission.escrow.id),
                submission.digest,
                submission.escrow.principal,
                message.body,
                time.time_ns(),
                int(time.time()),
            )
            await channel.default_exchange.publish(
                aio_pika.Message(b'{"stored":true}', correlation_id=message.correlation_id),
                routing_key=str(message.reply_to),
            )

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await queue.consume(handle)
    await stop.wait()
    await connection.close()
    await pool.close()


async def _drain(bench: Bench, run: Callable[[Bench], Any]) -> float:
    """Publish a backlog, then run a worker until every sender has its answer; return records a second."""
    # What a worker was stopped with unacknowledged is not the next one's work.
    await asyncio.to_thread(bench.brokers.rabbitmqctl, "purge_queue", "--vhost", "strongroom", "escrow")
    async with bench.fleet() as requester:
        names = await bench.fill(requester, STATEMENTS_A_ROUND)
        async with run(bench):
            # The clock starts with the first answer, so that starting a process is not counted.
            await requester.answer(names[0], 30)
            began = time.perf_counter()
            for name in names[1:]:
                await requester.answer(name, 120)
            seconds = time.perf_counter() - began
    rate = (STATEMENTS_A_ROUND - 1) / seconds
    print(f"  {run.__name__:16} {rate:8,.0f} records/s", flush=True)
    return rate


async def bench_batches_against_one_at_a_time(bench: Bench) -> None:
    """One escrow worker process against the obvious per-message handler, in turns, one record a statement."""
    ours, obvious, ratios = [], [], []
    for _ in range(ROUNDS):
        obvious.append(await _drain(bench, obvious_worker))
        ours.append(await _drain(bench, our_worker))
        ratios.append(ours[-1] / obvious[-1])
    print(f"\nescrow worker         records/s {spread(ours)}")
    print(f"obvious handler       records/s {spread(obvious)}")
    print(f"ratio, round by round median {statistics.median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


async def bench_lone_key(bench: Bench) -> None:
    """Publish to verified receipt, one key at a time on an idle stack, over one open connection."""
    log = bench.roster.body.logs.escrow
    held: Checkpoint | None = None
    times = []
    async with our_worker(bench), bench.fleet() as requester:
        for number in range(LONE_KEYS + 20):
            statement, name = bench.statement(), new_id()
            headers = {TREE_SIZE_HEADER: held.size if held else 0}
            began = time.perf_counter()
            await requester.submit(
                f"v1.escrow.{make.PRINCIPAL}",
                statement.envelope(),
                message_id=name,
                headers=headers,
                expiration_seconds=None,
            )
            reply = parse_reply(await requester.answer(name, 60))
            receipt = verify(reply.receipt, log.public_key, log.origin).checkpoint
            if held is not None and reply.consistency is not None:
                proof = list(reply.consistency.hashes)
                verify_consistency(held.size, held.root, receipt.size, receipt.root, proof)
            if number >= 20:
                times.append((time.perf_counter() - began) * 1000)
            held = receipt
    times.sort()
    print(f"\nlone key to receipt   ms  p50 {times[len(times) // 2]:.1f}  p95 {times[len(times) * 95 // 100]:.1f}")


async def bench_memory_under_a_backlog(bench: Bench) -> None:
    """Highest resident memory of a worker that works off a backlog of 100,000 messages."""
    async with bench.fleet() as requester:
        names = await bench.fill(requester, BACKLOG)
        async with our_worker(bench) as process:
            began = time.perf_counter()
            for name in names:
                await requester.answer(name, 600)
            seconds = time.perf_counter() - began
            status = (Path("/proc") / str(process.pid) / "status").read_text()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(
        f"\nbacklog of {BACKLOG:,}   {BACKLOG / seconds:,.0f} records/s, highest memory {peak_kib / 1024:.0f} MiB"
    )


if __name__ == "__main__":
    asyncio.run(_obvious_main())
