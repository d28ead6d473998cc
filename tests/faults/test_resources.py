"""Full disks, a read-only database, a broker out of memory, poison: said clearly, and nothing is lost."""

import asyncio
import os
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from tests.faults.conftest import Servers
from tests.support.amqp import publish_raw, short
from tests.support.attacker import as_superuser
from tests.support.checker import check, spool
from tests.support.command import Command
from tests.support.hosts import escrow, keys, sync
from tests.support.site import Site
from tests.support.waiting import until

from strongroom import broker as amqp
from strongroom.errors import BrokerUnavailable, ExitCode
from strongroom.topology import EXCHANGE, routing_key

TMPFS_BYTES = 1024 * 1024
QUOTA_BYTES = 8192
MESSAGE_BYTES_MAX = 2 * 1024 * 1024  # deploy/rabbitmq/rabbitmq.conf.in


class FullDisk(Protocol):
    """A home on a disk that can be filled, and emptied again."""

    home: Path

    def fill(self) -> tuple[str, ...]:
        """Leave no room; return a prefix for the command that is to notice."""

    def empty(self) -> None:
        """Make room."""


@dataclass
class Tmpfs:
    """A file system of its own; only root can mount one."""

    home: Path

    def mount(self) -> bool:
        """Mount it over the home; False when that is not allowed."""
        self.home.mkdir(mode=0o700, parents=True)
        options = f"size={TMPFS_BYTES},mode=0700"
        command = ["mount", "-t", "tmpfs", "-o", options, "strongroom-test", str(self.home)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def fill(self) -> tuple[str, ...]:
        """Write until nothing more fits."""
        with (self.home / "filler").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        return ()

    def empty(self) -> None:
        """Remove what filled it."""
        (self.home / "filler").unlink()

    def unmount(self) -> None:
        """Take it away, and leave what is on it in its place."""
        kept = self.home.with_name(f"{self.home.name}-kept")
        shutil.copytree(self.home, kept)
        subprocess.run(["umount", str(self.home)], check=True)
        shutil.copytree(kept, self.home, dirs_exist_ok=True)
        shutil.rmtree(kept)


@dataclass
class Quota:
    """A limit on the size of files: what a user who may not mount anything can have."""

    home: Path

    def fill(self) -> tuple[str, ...]:
        """Let no file grow beyond two pages: the database's log of changes has no room for a statement."""
        # Python 3.11 would write truncated bytecode into the tree, and trip over it ever after.
        return ("env", "PYTHONDONTWRITEBYTECODE=1", "prlimit", f"--fsize={QUOTA_BYTES}")

    def empty(self) -> None:
        """Nothing was filled."""


@pytest.fixture(params=["quota", "tmpfs"] if os.geteuid() == 0 else ["quota"])
def full_disk(request: pytest.FixtureRequest, site: Site) -> Iterator[FullDisk]:
    home = site.folder / "homes" / f"full-{request.param}"
    if request.param == "tmpfs" and (tmpfs := Tmpfs(home)).mount():
        yield tmpfs
        tmpfs.unmount()
    else:
        yield Quota(home)


async def test_a_full_disk_is_said_and_leaves_nothing_half_written(
    site: Site, full_disk: FullDisk, tmp_path: Path
) -> None:
    """The exit code is not 75, which would say that the key is safe in the spool; with room all is well again."""
    home = await site.enrol(full_disk.home.name)
    (tmp_path / "key").write_bytes(secrets.token_bytes(32))
    (tmp_path / "file").write_bytes(secrets.token_bytes(1000))
    strongroom = Command(tmp_path, prefix=full_disk.fill())
    for command in (("escrow", "key", "--name", "disk"), ("seal", "file")):
        outcome = (await asyncio.to_thread(strongroom, *command, "-o", "json", home=home)).done(ExitCode.FAILED)
        assert str(home / "state.db") in outcome.error["message"]
        assert outcome.error["hint"]
    assert not (tmp_path / "file.age").exists()
    full_disk.empty()
    with closing(sqlite3.connect(home / "state.db")) as state:
        assert state.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert spool(home) == []
    async with site.worker("escrow").running():
        outcome = await asyncio.to_thread(Command(tmp_path), "escrow", "key", "--name", "disk", home=home)
        outcome.done()
    (await check(site)).assert_kept()


async def test_a_database_that_takes_no_writes_is_waited_for(site: Site) -> None:
    """The worker lives and keeps what it has; once the database takes writes again, the message is stored."""
    home = await site.enrol("read-only")
    async with site.worker("escrow").running() as worker:
        await set_read_only(site, "on")
        try:
            sending = asyncio.create_task(escrow(home))
            await worker.said("SQLSTATE 25006")
            assert await site.count("SELECT FROM escrow_statements WHERE principal = $1", home.name) == 0
            assert not sending.done()
        finally:
            await set_read_only(site, "off")
        assert (await sending).stored == 1
    (await check(site)).assert_kept()


async def set_read_only(site: Site, value: str) -> None:
    await as_superuser(
        site.databases,
        "SET default_transaction_read_only = off",
        f"ALTER SYSTEM SET default_transaction_read_only = {value}",
        "SELECT pg_reload_conf()",
    )


async def test_a_broker_without_memory_keeps_what_it_has_and_takes_no_more(site: Site, servers: Servers) -> None:
    """During the alarm workers store what is queued, and agents spool; afterwards everyone gets a receipt."""
    queued, held_up = [await site.enrol(name) for name in ("queued", "held-up")]
    assert (await escrow(queued, wait_seconds=5)).spooled == 1
    await site.holds("escrow", 1)
    await limit_memory(servers, "0.00001")
    try:
        held = asyncio.create_task(escrow(held_up, wait_seconds=5))
        async with site.worker("escrow").running():
            stored = "SELECT FROM escrow_statements WHERE principal = $1"
            await until(lambda: site.count(stored, queued.name), "what was queued is stored")
            delivery = await held
            assert (delivery.exit_code, delivery.spooled) == (ExitCode.TRY_LATER, 1)
            assert isinstance(delivery.error, BrokerUnavailable)
            assert "alarm" in delivery.error.message
            await limit_memory(servers, "absolute", "1GB")
            for home in (queued, held_up):
                report = await sync(home)
                assert (report.exit_code, report.delivery.stored) == (ExitCode.DONE, 1)
    finally:
        await limit_memory(servers, "absolute", "1GB")
    (await check(site)).assert_kept()


async def limit_memory(servers: Servers, *limit: str) -> None:
    await asyncio.to_thread(servers.broker.rabbitmqctl, "set_vm_memory_high_watermark", *limit)


async def test_poison_does_not_stop_the_worker(site: Site) -> None:
    """Properties that are not UTF-8 and a body of 2 MiB end in quarantine; the good ones around them are stored."""
    home = await site.enrol("beside-poison")
    async with site.worker("escrow").running() as worker:
        assert (await escrow(home)).stored == 1
        async with site.connected("fleet") as connection:
            channel = await connection.channel(confirms=True)
            await publish_raw(
                channel,
                EXCHANGE,
                routing_key("escrow", home.name),
                b"no envelope",
                message_id=short(b"\xff\xfe"),
                correlation_id=short(b"\xc3\x28"),
                message_type=short(b"\x80"),
            )
            async with amqp.Requester(connection) as requester:
                await requester.submit(
                    routing_key("escrow", home.name),
                    bytes(MESSAGE_BYTES_MAX),
                    message_id="large",
                    headers={},
                    expiration_seconds=None,
                )
                await requester.answer("large", 60)
        assert (await escrow(home, keys(3))).stored == 1
        assert worker.exit_codes == []
    async with site.connected("operator") as connection:
        quarantined = {len(each.body): each.code for each in await amqp.peek(connection, 10)}
    assert quarantined == {len(b"no envelope"): "malformed", MESSAGE_BYTES_MAX: "limit_exceeded"}
    (await check(site)).assert_kept()
