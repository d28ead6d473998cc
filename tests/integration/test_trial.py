"""`make up` and `make down`: a whole local Strongroom, with workers that are kept running."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL

import pytest
from deploy.local import process
from deploy.local.place import Place
from deploy.local.trial import OFFICERS, WORKERS
from tests.support.servers import lent

ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m deploy.local` as the Makefile does."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.local", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "shared")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a local Strongroom that is up."""
    with lent(tmp_path_factory.mktemp("trial")) as folder:
        result = command("up", "--folder", str(folder))
        assert result.returncode == 0, result.stderr
        yield folder


def pid_file(folder: Path, name: str) -> Path:
    return Place(folder / "stack").pid_file(name)


def worker_process(folder: Path, worker: str) -> process.Process:
    found = process.find(pid_file(folder, f"{worker}-worker"))
    assert found is not None
    return found


def in_shell(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script in a shell that has read the folder's `env`."""
    return subprocess.run(
        ["sh", "-euc", f". {folder}/env; {script}"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_up_again_changes_nothing(folder: Path) -> None:
    """A second `up` leaves workers, keys and roster as they are."""
    before = [worker_process(folder, worker) for worker in WORKERS]
    roster = (folder / "authority" / "roster.json").read_bytes()
    result = command("up", "--folder", str(folder))
    assert result.returncode == 0, result.stderr
    assert [worker_process(folder, worker) for worker in WORKERS] == before
    assert (folder / "authority" / "roster.json").read_bytes() == roster
    assert command("status", "--folder", str(folder)).returncode == 0


def test_environment_leads_to_everything(folder: Path) -> None:
    """With `. .local/env` the doctor finds schema and topology well, and each officer can invite."""
    assert in_shell(folder, "strongroom doctor").returncode == 0
    for number, officer in enumerate(OFFICERS):
        invited = in_shell(folder, f"STRONGROOM_HOME={folder}/{officer} strongroom invite host-{number}")
        assert invited.returncode == 0, invited.stderr


def test_each_worker_is_told_its_own_secrets_only(folder: Path) -> None:
    """A worker's settings name its own role, user and keys; the escrow worker is told of no sealing key."""
    for worker, other in (WORKERS, WORKERS[::-1]):
        file = folder / f"{worker}.env"
        settings = dict(line.split("=", 1) for line in file.read_text().splitlines())
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert f"strongroom_{worker}:" in settings["STRONGROOM_DATABASE_URL"]
        assert f"//{worker}:" in settings["STRONGROOM_BROKER_URL"]
        assert ("STRONGROOM_SEALING_KEYS_DIR" in settings) == (worker == "recovery")
        assert not any(f"/{other}/" in value or f"_{other}:" in value for value in settings.values())


@pytest.mark.parametrize("worker", WORKERS)
def test_worker_that_dies_is_replaced(folder: Path, worker: str) -> None:
    """After SIGKILL of a worker `up` finds another one listening."""
    first = worker_process(folder, worker)
    first.send(SIGKILL)
    assert first.wait_gone(10)
    (folder / "run" / f"{worker}.health").unlink()
    assert command("up", "--folder", str(folder)).returncode == 0
    assert worker_process(folder, worker) != first


def test_down_ends_the_workers_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`down` ends supervisors and workers, even a worker whose supervisor was killed, and keeps all data."""
    with lent(tmp_path_factory.mktemp("another-trial")) as folder:
        assert command("up", "--folder", str(folder)).returncode == 0
        workers = [worker_process(folder, worker) for worker in WORKERS]
        supervisor = process.find(pid_file(folder, WORKERS[0]))
        assert supervisor is not None
        supervisor.send(SIGKILL)
        assert supervisor.wait_gone(10)
        assert command("down", "--folder", str(folder)).returncode == 0
        assert not any(worker.alive() for worker in workers)
        assert "stopped" in command("status", "--folder", str(folder)).stdout
        assert (folder / "authority" / "roster.json").exists()
        assert command("down", "--purge", "--folder", str(folder)).returncode == 0
        assert [path.name for path in folder.iterdir()] == ["owner.pid"]
