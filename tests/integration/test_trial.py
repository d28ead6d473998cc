"""`make up` and `make down`: a whole local Strongroom, with workers that are kept running."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT, SIGKILL

import pytest
from deploy.local import process
from deploy.local.place import Place
from deploy.local.trial import OFFICERS, PROVER, WORKERS, Trial
from tests.support.servers import lent

from strongroom_agent.home import Home
from strongroom_agent.trust import newest_roster

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


def test_doctor_sees_who_reads_the_queues(folder: Path) -> None:
    """With both workers their queues are read; without the escrow worker the doctor fails and says so."""
    with_both = in_shell(folder, "strongroom doctor")
    assert with_both.returncode == 0
    for worker in WORKERS:
        assert f"1 worker reads the queue {worker} (0 messages wait)" in with_both.stdout
    assert "answers the account operator" in with_both.stdout
    Trial(folder, {}).stop_worker("escrow")
    without = in_shell(folder, "strongroom doctor")
    assert without.returncode == 1
    assert "nobody reads the queue escrow (0 messages wait)" in without.stdout
    assert "1 worker reads the queue recovery" in without.stdout
    assert command("up", "--folder", str(folder)).returncode == 0
    assert in_shell(folder, "strongroom doctor").returncode == 0


def newest_version(folder: Path, officer: str) -> int:
    """The version of the newest roster that an officer's home holds."""
    return newest_roster(Home.open(folder / officer)).body.version


def test_up_passes_over_an_officer_whom_the_roster_does_not_name(folder: Path) -> None:
    """After a removal `up` says so in one line and does all else; a roster that only an officer got is taken."""
    gone, *left = OFFICERS
    roster = folder / "authority" / "roster.json"
    signed = in_shell(
        folder, f"strongroom authority sign-roster {folder}/authority --remove-officer {gone} --in-place"
    )
    assert signed.returncode == 0, signed.stderr
    Trial(folder, {}).stop_worker("escrow")
    result = command("up", "--folder", str(folder))
    assert result.returncode == 0, result.stderr
    assert result.stderr == f"up: {folder / gone} is passed over: officer {gone}: is not in roster version 2\n"
    assert [newest_version(folder, officer) for officer in OFFICERS] == [1, 2, 2]
    assert command("status", "--folder", str(folder)).returncode == 0

    before = roster.read_bytes()
    again = in_shell(folder, f"strongroom authority sign-roster {folder}/authority --in-place")
    assert again.returncode == 0, again.stderr
    assert command("up", "--folder", str(folder)).returncode == 0
    assert newest_version(folder, left[0]) == 3
    newest = roster.read_bytes()
    roster.write_bytes(before)
    result = command("up", "--folder", str(folder))
    assert result.returncode == 0, result.stderr
    assert "held version 2" in result.stderr
    assert roster.read_bytes() == newest
    assert [newest_version(folder, officer) for officer in OFFICERS] == [1, 3, 3]


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


def test_the_prover_has_the_recovery_workers_keys_and_state_and_no_broker(folder: Path) -> None:
    """Both write one log, and keep one checkpoint of it; messages are none of the prover's business."""
    prover, recovery = (
        dict(line.split("=", 1) for line in (folder / f"{name}.env").read_text().splitlines())
        for name in (PROVER, "recovery")
    )
    own = {"STRONGROOM_HEALTH_FILE", "STRONGROOM_METRICS_FILE"}
    assert {name: prover[name] for name in prover.keys() - own} == {
        name: recovery[name] for name in prover.keys() - own
    }
    assert not any("BROKER" in name or "REPLY" in name for name in prover)


@pytest.mark.parametrize("worker", [*WORKERS, PROVER])
def test_worker_that_dies_is_replaced(folder: Path, worker: str) -> None:
    """After SIGKILL of a worker `up` finds another one listening."""
    first = worker_process(folder, worker)
    first.send(SIGKILL)
    assert first.wait_gone(60)
    (folder / "run" / f"{worker}.health").unlink()
    assert command("up", "--folder", str(folder)).returncode == 0
    assert worker_process(folder, worker) != first


def test_interrupted_up_says_one_line_and_goes_on(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ctrl-C reaches everything of the terminal's; no traceback is shown, and a repeat brings all of it up."""
    with lent(tmp_path_factory.mktemp("interrupted-trial")) as folder:
        arguments = [sys.executable, "-m", "deploy.local", "up", "--folder", str(folder)]
        with subprocess.Popen(
            arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as up:
            assert up.stdout is not None
            assert "PostgreSQL and RabbitMQ" in up.stdout.readline()
            os.killpg(up.pid, SIGINT)
            _, said = up.communicate()
        assert up.returncode == 130
        assert said == "up: interrupted; run it again, it goes on where it was\n"
        result = command("up", "--folder", str(folder))
        assert result.returncode == 0, result.stderr
        assert command("status", "--folder", str(folder)).returncode == 0


def test_down_ends_the_workers_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    """`down` ends supervisors and workers, even a worker whose supervisor was killed, and keeps all data."""
    with lent(tmp_path_factory.mktemp("another-trial")) as folder:
        assert command("up", "--folder", str(folder)).returncode == 0
        workers = [worker_process(folder, worker) for worker in (*WORKERS, PROVER)]
        supervisor = process.find(pid_file(folder, WORKERS[0]))
        assert supervisor is not None
        supervisor.send(SIGKILL)
        assert supervisor.wait_gone(60)
        assert command("down", "--folder", str(folder)).returncode == 0
        assert not any(worker.alive() for worker in workers)
        assert "stopped" in command("status", "--folder", str(folder)).stdout
        assert (folder / "authority" / "roster.json").exists()
        assert command("down", "--purge", "--folder", str(folder)).returncode == 0
        assert [path.name for path in folder.iterdir()] == ["owner.pid"]
