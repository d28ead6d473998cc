"""How far a long file is: bytes, rate and time left, on standard error and only when a person is looking."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from strongroom_cli.output import legible, progress

if TYPE_CHECKING:
    from strongroom_agent.files import Watch

_NAME_WIDTH: Final = 24
_BAR_WIDTH: Final = 10  # so that a line stays within 80 columns


@contextmanager
def reading(doing: str, path: Path, *, then: str) -> "Iterator[Watch]":
    """Give what is told how far the reading of a file is; `then` says what goes on when all of it is read."""
    if not sys.stderr.isatty():
        from strongroom_agent.files import unwatched

        yield unwatched
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(_BAR_WIDTH),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    size = path.stat().st_size if path.is_file() else None
    display = Progress(*columns, console=Console(stderr=True), transient=True)
    with ExitStack() as stack:
        task = display.add_task(f"{doing} {_short(legible(path.name))}", total=size)
        stack.enter_context(display)

        def watch(read: int | None) -> None:
            if read is not None:
                display.update(task, completed=read)
            elif display.live.is_started:
                display.stop()
                stack.enter_context(progress(then))

        yield watch


def _short(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"
