"""The restarter that keeps a local worker running (`deploy/local/supervise.py`)."""

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest
from deploy.local import process, supervise
from deploy.local.process import Process

ROOT = Path(__file__).parents[2]


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """A named pipe into which a worker writes a line at each start."""
    pipe = tmp_path / "started"
    os.mkfifo(pipe)
    return pipe


@pytest.fixture
def supervisor(tmp_path: Path, started: Path) -> Iterator[Process]:
    """A supervisor of a worker that says so when it starts, and then waits to be told to end."""
    script = f"echo $$ > {started}; exec sleep 600"
    launched = process.launch(
        [sys.executable, "-m", "deploy.local.supervise", str(tmp_path / "worker.pid"), "--", "sh", "-c", script],
        pid_file=tmp_path / "supervisor.pid",
        log_file=tmp_path / "log",
        folder=ROOT,
        environment={"PATH": os.environ["PATH"]},
    )
    yield launched
    launched.kill()


def test_worker_that_ends_is_started_again(supervisor: Process, started: Path, tmp_path: Path) -> None:
    """A worker that was killed is replaced by another, and the pid file follows."""
    first = process.of_pid(int(started.read_text()))
    assert first is not None
    first.send(SIGKILL)
    second = process.of_pid(int(started.read_text()))
    assert second is not None
    assert first != second
    assert supervisor.alive()
    supervisor.stop(SIGTERM, 60)
    assert "the worker ended with -9" in (tmp_path / "log").read_text()


def test_stopping_the_supervisor_ends_the_worker(supervisor: Process, started: Path, tmp_path: Path) -> None:
    """SIGTERM reaches the worker, which ends first; nothing is started again."""
    worker = process.of_pid(int(started.read_text()))
    assert worker is not None
    supervisor.send(SIGTERM)
    assert supervisor.wait_gone(60)
    assert not worker.alive()
    assert process.find(tmp_path / "worker.pid") is None


async def test_worker_that_does_not_listen_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, started: Path
) -> None:
    """A worker that ignores SIGTERM is killed when its time is over."""
    monkeypatch.setattr(supervise, "STOP_TIMEOUT_S", 0.1)
    script = f"trap '' TERM; echo $$ > {started}; while :; do sleep 600; done"
    supervising = asyncio.create_task(supervise.supervise(tmp_path / "worker.pid", ["sh", "-c", script]))
    pid = int(await asyncio.to_thread(started.read_text))
    worker = process.of_pid(pid)
    assert worker is not None
    children = worker.tree()
    os.kill(os.getpid(), SIGTERM)
    await supervising
    assert not worker.alive()
    for child in children:
        child.send(SIGKILL)


@pytest.mark.parametrize(
    ("delay_s", "lived_s", "expected_s"),
    [(0.5, 0, 1), (8, 15, 15), (15, 0, 15), (15, 15.1, 0.5)],
)
def test_delay_doubles_and_is_forgiven(delay_s: float, lived_s: float, expected_s: float) -> None:
    """Each start waits twice as long, up to 15 s; a worker that lived longer than that starts at once again."""
    assert supervise.next_delay_s(delay_s, lived_s) == expected_s
