"""Key files under passphrases: founded by the command, opened by workers and hosts, and nothing shown meanwhile."""

import asyncio
import os
import re
import resource
import secrets
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from deploy.local.rabbitmq import PrivateRabbit
from tests.conftest import FreshDatabase
from tests.support.canary import files_that_show, shows
from tests.support.command import Command
from tests.support.site import AUTHORITY, SYSTEM_PATH, Site, WorkerProcess

from strongroom.errors import ExitCode
from strongroom.roster import Roster
from strongroom.settings import read_root_key, read_roster

PASSPHRASES = ("root", "workers", "officer", "host")

# Root may look into any process; without these capabilities it may look into its own that allow it, as others do.
_LOOKING = "-sys_ptrace,-sys_admin,-perfmon"
ORDINARY = ("setpriv", "--bounding-set", _LOOKING, "--inh-caps", "-all", "--") if os.geteuid() == 0 else ()

# As large a core file as this user may allow.
_CORE = "unlimited" if os.geteuid() == 0 else str(resource.getrlimit(resource.RLIMIT_CORE)[1])
WITH_CORE = ("prlimit", f"--core={_CORE}")


@dataclass(frozen=True, slots=True)
class Guarded:
    """A site whose every key file is encrypted; `secrets` are the passphrases, each also in `<name>.pass`."""

    site: Site
    strongroom: Command
    secrets: dict[str, bytes]

    def worker(self, kind: str, *, passphrase: str | None = "workers") -> WorkerProcess:
        """Return a worker that is told this passphrase file, or none."""
        told = {"passphrase_file": str(self.site.folder / f"{passphrase}.pass")} if passphrase else {}
        return self.site.worker(kind, prefix=(*WITH_CORE, *ORDINARY), **told)


@pytest.fixture
async def guarded(database: FreshDatabase, broker: PrivateRabbit, tmp_path: Path) -> AsyncIterator[Guarded]:
    strongroom = Command(tmp_path)
    words = {name: secrets.token_hex(12).encode() for name in PASSPHRASES}
    for name, word in words.items():
        (tmp_path / f"{name}.pass").write_bytes(word + b"\n")
        (tmp_path / f"{name}.pass").chmod(0o600)
    for name in ("log", "run"):
        (tmp_path / name).mkdir()
    (tmp_path / "officer.url").write_text(broker.url("officer"))
    (tmp_path / "fleet.url").write_text(broker.url("fleet"))
    card = strongroom("officer", "init", "alice", "--passphrase-file", "officer.pass", home="officer").done()
    (tmp_path / "alice.json").write_bytes(card.out)
    strongroom(
        *("authority", "init", "authority", "--authority", AUTHORITY, "--officer", "alice.json"),
        *("--replacement-signatures", "1"),
        *("--root-passphrase-file", "root.pass", "--workers-passphrase-file", "workers.pass"),
    ).done()
    strongroom(
        *("officer", "trust", "authority/roster.json", "--root-key", "authority/root.pub"),
        *("--broker-url-file", "officer.url", "--agents-broker-url-file", "fleet.url"),
        *("--broker-ca", broker.ca_file),
        home="officer",
    ).done()
    root_key = read_root_key(tmp_path / "authority" / "root.pub")
    roster = Roster.verified(read_roster(tmp_path / "authority" / "roster.json"), root_key)
    roster.check_current(int(time.time()))
    site = Site(tmp_path, database, broker, roster, root_key, tmp_path / "officer")
    await site.purge()
    with site.in_force():
        yield Guarded(site, strongroom, words)


async def test_every_key_may_lie_under_a_passphrase(guarded: Guarded) -> None:
    """Founded, enrolled, escrowed and recovered with encrypted key files; no file or output shows a passphrase."""
    strongroom, folder = guarded.strongroom, guarded.site.folder
    (folder / "k").write_bytes(secrets.token_bytes(32))
    async with guarded.worker("escrow").running() as escrow, guarded.worker("recovery").running() as recovery:
        invited = strongroom("invite", "guarded", "--passphrase-file", "officer.pass", home="officer").done()
        (folder / "inv.json").write_bytes(invited.out)
        strongroom("enrol", "inv.json", "--passphrase-file", "host.pass", home="h").done()
        strongroom("escrow", "k", "--name", "disk", "--passphrase-file", "host.pass", home="h").done()
        wrong = strongroom("escrow", "k", "--name", "disk", "--passphrase-file", "root.pass", home="h")
        assert "passphrase" in wrong.done(ExitCode.FAILED).err
        without = strongroom("recover", "--name", "disk", "--out", "k2", home="h")
        assert "passphrase" in without.done(ExitCode.FAILED).err
        strongroom("recover", "--name", "disk", "--out", "k2", "--passphrase-file", "host.pass", home="h").done()
        for worker in (escrow, recovery):
            await asyncio.to_thread(assert_closed, worker)
    assert (folder / "k").read_bytes() == (folder / "k2").read_bytes()
    assert sorted(files_that_show(guarded.secrets, folder)) == sorted(
        f"{name}: {folder / name}.pass" for name in PASSPHRASES
    )
    for outcome in strongroom.outcomes:
        assert not any(shows(outcome.out + outcome.err.encode(), word) for word in guarded.secrets.values())


def assert_closed(worker: WorkerProcess) -> None:
    """No process of the same user can look into a worker, as it can into any other; and it leaves no core file."""
    # It stays the program that it is: while one turns into another its environment can be seen as empty.
    look, waiting = (*ORDINARY, "cat"), (*ORDINARY, "sh", "-c", "echo; read -r _")
    with subprocess.Popen(
        waiting, env={"CONTROL": "yes", "PATH": SYSTEM_PATH}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == b"\n"
            seen = subprocess.run([*look, f"/proc/{other.pid}/environ"], capture_output=True, check=False)
            assert b"CONTROL=yes" in seen.stdout
        finally:
            other.kill()
    for name in ("environ", "mem", "maps"):
        refused = subprocess.run([*look, f"/proc/{worker.pid}/{name}"], capture_output=True, check=False)
        assert refused.returncode != 0
        assert refused.stdout == b""
    limits = Path(f"/proc/{worker.pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)


@pytest.mark.parametrize("kind", ["escrow", "recovery"])
@pytest.mark.parametrize(("passphrase", "says"), [("root", "passphrase"), (None, "passphrase")])
async def test_a_worker_without_the_right_passphrase_says_so_and_ends(
    guarded: Guarded, kind: str, passphrase: str | None, says: str
) -> None:
    """Exit code 1, one line that names the key file and what to do, and nothing of any secret."""
    worker = guarded.worker(kind, passphrase=passphrase)
    worker.start()
    assert await worker.ended() == ExitCode.FAILED
    (line,) = worker.log.splitlines()
    assert says in line
    assert "key_file_invalid" in line
    assert ".key" in line
    assert not any(word in worker.log.encode() for word in guarded.secrets.values())


async def test_a_passphrase_file_that_others_may_read_is_refused(guarded: Guarded) -> None:
    """A worker does not start on a passphrase that is no secret any more, and says which file to mend."""
    (guarded.site.folder / "workers.pass").chmod(0o644)
    worker = guarded.worker("escrow")
    worker.start()
    assert await worker.ended() == ExitCode.FAILED
    assert "workers.pass" in worker.log
    assert "chmod" in worker.log
