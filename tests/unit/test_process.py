"""Starting background processes: what Ctrl-C may not leave behind."""

import os
from pathlib import Path
from signal import SIGINT, SIGTERM, default_int_handler, getsignal

import pytest
from deploy.local import process


def test_an_interrupt_between_start_and_pid_file_waits_for_the_pid_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C still ends the caller, and what was started is found again."""
    pid_file = tmp_path / "pid"
    write = process.write_pid_file

    def interrupted(path: Path, started: process.Process) -> None:
        os.kill(os.getpid(), SIGINT)
        write(path, started)

    monkeypatch.setattr(process, "write_pid_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        process.launch(
            ["sleep", "60"],
            pid_file=pid_file,
            log_file=tmp_path / "log",
            folder=tmp_path,
            environment={"PATH": "/usr/bin:/bin"},
        )
    started = process.find(pid_file)
    assert started is not None
    started.stop(SIGTERM, 60)
    assert getsignal(SIGINT) is default_int_handler
