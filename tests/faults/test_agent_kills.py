"""The agent killed between any two of its steps: nothing handed over is lost, nothing is stored twice."""

import asyncio
import logging
import random
import secrets
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.faults.conftest import Servers
from tests.support.canary import files_that_show
from tests.support.checker import check, spool
from tests.support.gate import Gate
from tests.support.hosts import soon, sync
from tests.support.site import PROGRAMS, SYSTEM_PATH, Site
from tests.support.waiting import until

from strongroom.errors import ExitCode

KILLS = 20
KILL_SECONDS_MAX = 0.6
RECEIPT_BYTES_MIN = 500

# Keys go in one after the other; each record id is told once `escrow` has returned.
HANDING_OVER = textwrap.dedent("""
    import asyncio, sys
    from pathlib import Path
    from strongroom.crypto.secret import Secret
    from strongroom_agent import Agent, KeyToEscrow

    async def hand_over(home, material):
        with Agent.open(home) as agent:
            print("ready", flush=True)
            while True:
                delivery = await agent.escrow([KeyToEscrow(material=material, name="disk", kind="disk-key")])
                print(delivery.records[0].facts.id, flush=True)

    asyncio.run(hand_over(Path(sys.argv[1]), Secret(Path(sys.argv[2]).read_bytes())))
""")


@contextmanager
def escrowing(home: Path, key: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `strongroom escrow` in the background; it is dead at the end of the block."""
    with subprocess.Popen(
        [PROGRAMS / "strongroom", "escrow", key, "--name", "disk", "--home", home, "--wait", "60"],
        env={"PATH": SYSTEM_PATH, "HOME": str(home), "LANG": "C.UTF-8"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A file with a fresh key."""
    path = tmp_path / "key"
    path.write_bytes(secrets.token_bytes(32))
    return path


def assert_no_secret_on_disk(home: Path, key: Path) -> None:
    assert files_that_show({"the key": key.read_bytes()}, home) == []


async def assert_one_record_after_sync(site: Site, home: Path) -> None:
    """The next `sync` gets the receipt, and there is one statement, one row, one leaf."""
    report = await sync(home)
    assert (report.exit_code, report.missing, report.mismatched) == (ExitCode.DONE, (), ())
    assert [each.state for each in spool(home)] == ["stored"]
    assert await site.count("SELECT FROM records WHERE principal = $1", home.name) == 1
    (await check(site)).assert_kept()


async def test_killed_after_the_spool_and_before_publishing(site: Site, servers: Servers, key: Path) -> None:
    """The key is in the spool and nowhere else; the next `sync` brings it home."""
    direct = servers.broker.url("fleet")
    async with Gate(direct).listening() as gate:
        home = await site.enrol("before-publish", broker_url=gate.url(direct))
        gate.hold_new_connections()
        with escrowing(home, key):
            await soon(gate.held)
    assert [each.state for each in spool(home)] == ["spooled"]
    assert await site.depth("escrow") == 0
    assert_no_secret_on_disk(home, key)
    site.redirect(home, direct)
    async with site.worker("escrow").running():
        await assert_one_record_after_sync(site, home)


async def test_killed_after_publishing_and_before_the_receipt(site: Site, key: Path) -> None:
    """The statement is stored although its sender is dead, and the sender's repeat gets that same leaf."""
    home = await site.enrol("before-receipt")
    with escrowing(home, key):
        await site.holds("escrow", 1)
    (sent,) = spool(home)
    assert sent.state == "spooled"
    async with site.worker("escrow").running():
        stored = "SELECT FROM escrow_statements WHERE principal = $1"
        await until(lambda: site.count(stored, home.name), "the statement is stored")
        assert spool(home) == [sent]
        assert_no_secret_on_disk(home, key)
        await assert_one_record_after_sync(site, home)


async def test_killed_with_the_receipt_in_hand_and_not_written_down(
    site: Site, servers: Servers, key: Path
) -> None:
    """The receipt has reached the agent, which dies before it can mark the key stored: it asks again."""
    direct = servers.broker.url("fleet")
    async with Gate(direct).listening() as gate:
        home = await site.enrol("before-mark", broker_url=gate.url(direct))
        with escrowing(home, key) as agent:
            await site.holds("escrow", 1)
            with closing(sqlite3.connect(home / "state.db", isolation_level=None)) as state:
                # The agent can read its spool and write nothing into it.
                state.execute("BEGIN IMMEDIATE")
                gate.watch_for_answer(RECEIPT_BYTES_MIN)
                async with site.worker("escrow").running():
                    await soon(gate.came_down)
                    assert agent.poll() is None
                    agent.kill()
                state.execute("ROLLBACK")
        assert [each.state for each in spool(home)] == ["spooled"]
        assert_no_secret_on_disk(home, key)
        async with site.worker("escrow").running():
            await assert_one_record_after_sync(site, home)


async def test_killed_at_random_points(site: Site, key: Path) -> None:
    """An agent that hands over key after key is killed again and again: every key it was told of is there."""
    home = await site.enrol("at-random")
    seed = secrets.randbits(32)
    logging.getLogger(__name__).warning("seed of the kills: %d", seed)
    moments = random.Random(seed)  # noqa: S311 - moments, not secrets
    handed_over: list[str] = []
    async with site.worker("escrow").running():
        for _ in range(KILLS):
            handed_over += await asyncio.to_thread(_hand_over, home, key, moments.uniform(0, KILL_SECONDS_MAX))
            assert_no_secret_on_disk(home, key)
        in_between = await check(site, handed_over)
        in_between.assert_kept()
        report = await sync(home)
    assert (report.exit_code, report.missing, report.mismatched) == (ExitCode.DONE, (), ())
    final = await check(site, handed_over)
    final.assert_kept()
    assert set(final.states) == {"stored"}
    assert final.rows == sum(final.states.values())


def _hand_over(home: Path, key: Path, seconds: float) -> list[str]:
    """Hand keys over for so long, then kill; return the ids of the records that were reported as handed over."""
    with subprocess.Popen(
        [sys.executable, "-c", HANDING_OVER, home, key],
        env={"PATH": SYSTEM_PATH, "HOME": str(home), "LANG": "C.UTF-8"},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        told = process.stdout.read().decode()
    return told.splitlines() if told.endswith("\n") or not told else told.splitlines()[:-1]
