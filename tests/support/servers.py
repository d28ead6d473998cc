"""Folders for servers that end with the test run, even when the run is killed and a later one has to see to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from deploy.local.process import find, this_process, write_pid_file
from deploy.local.stack import Stack
from deploy.local.trial import Trial

_OWNER_FILE: Final = "owner.pid"


@contextmanager
def lent(folder: Path) -> Iterator[Path]:
    """Lend a folder below pytest's base folder for one stack or trial; at the end nothing of it runs or is left."""
    folder.mkdir(mode=0o700, exist_ok=True)
    write_pid_file(folder / _OWNER_FILE, this_process())
    try:
        yield folder
    finally:
        _take_back(folder)


def remove_leftovers(base: Path) -> None:
    """End what earlier test runs lent and did not take back; `base` is pytest's base folder of this run."""
    for depth in ("*", "*/*"):
        for owner_file in base.parent.glob(f"pytest-*/{depth}/{_OWNER_FILE}"):
            if find(owner_file) is None:
                _take_back(owner_file.parent)


def _take_back(folder: Path) -> None:
    # In this order: without root a stack keeps its pid files in a folder that the other one would delete.
    Stack(folder, {}).down(purge=True)
    Trial(folder, {}).down(purge=True)
    (folder / _OWNER_FILE).unlink(missing_ok=True)
