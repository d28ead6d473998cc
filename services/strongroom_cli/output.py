"""How commands speak: tables for people, one JSON document for programs, progress and errors on standard error."""

import json
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import rich_click as click

from strongroom.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from rich.table import Table

SCHEMA: Final = 1
_PIPE_COLUMNS: Final = 10_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Output:
    """Where a command's results go; `json` chooses one JSON document on standard output."""

    json: bool

    def document(self, kind: str, content: Mapping[str, Any]) -> None:
        """Print the JSON document of a command, with its kind and schema version."""
        click.echo(json.dumps({"schema": SCHEMA, "kind": kind, **content}, indent=2, default=str))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table for people; a pipe gets a line a row, a terminal too narrow for it a line a cell."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        shown = Table(*columns, header_style="bold", box=None, pad_edge=False)
        for row in rows:
            shown.add_row(*(Text(str(cell)) for cell in row))
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = _PIPE_COLUMNS
        elif (
            rows
            and console.measure(shown, options=console.options.update(width=_PIPE_COLUMNS)).maximum > console.width
        ):
            shown = _stacked(columns, rows)
        console.print(shown)

    def line(self, text: str) -> None:
        """Print a sentence for people; nothing in JSON mode, where the document says it."""
        if not self.json:
            click.echo(text)


def _stacked(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> "Table":
    """Return rows one below the other: a line for each cell that says something, and an empty one between rows."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, show_header=False)
    shown.add_column(style="bold", no_wrap=True)
    shown.add_column(overflow="fold")
    for number, row in enumerate(rows):
        if number:
            shown.add_row()
        for column, cell in zip(columns, row, strict=True):
            if (text := str(cell)) not in {"", "-"}:
                shown.add_row(column, Text(text))
    return shown


def conclude(kind: str, findings: Sequence[str], output: Output, *, well: str) -> NoReturn:
    """Print what a check has found, or `well` when that is nothing, and leave with the exit code that says it."""
    if output.json:
        output.document(kind, {"ok": not findings, "findings": list(findings)})
    for finding in findings or [well]:
        output.line(finding)
    sys.exit(ExitCode.FAILED if findings else ExitCode.DONE)


@contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """Show what takes its time, and for how long by now, on standard error and only when a person is looking.

    Gives a function that puts another text in its place.
    """
    if not sys.stderr.isatty():
        yield lambda _text: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(text, total=None)
        yield lambda other: display.update(task, description=other)


def carry_out(text: str, work: Coroutine[Any, Any, T]) -> T:
    """Run asynchronous work to its end with `progress`."""
    with progress(text):
        return run(work)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run asynchronous work to its end; commands that work offline never load asyncio."""
    import asyncio
    import logging

    # What a driver logs is said by our own errors; without any handler Python would print it, too.
    logging.getLogger().addHandler(logging.NullHandler())
    return asyncio.run(work)


def somebody_is_there() -> bool:
    """Say whether a person can be asked."""
    return sys.stdin.isatty()


def check_can_ask(*, yes: bool) -> None:
    """Raise UsageError where nobody can be asked and `yes` was not given; call it before anything is fetched."""
    if not yes and not somebody_is_there():
        raise UsageError("there is no terminal to ask on", hint="read what it is about, then repeat it with --yes")


def ask(question: str, *, yes: bool) -> None:
    """Ask on the terminal unless `yes` was given; leave with the exit code of a failure if the answer is no."""
    if not yes and not click.confirm(question, err=True):
        click.echo("nothing was signed", err=True)
        sys.exit(ExitCode.FAILED)


def when(seconds: object) -> str:
    """Return a time of the protocol as people read it, in UTC; a dash for none."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if isinstance(seconds, int) else "-"


def receipt(log: str, index: object, tree_size: object) -> str:
    """Return the line that says where a verified receipt proves something to be: `log` is escrow or recovery."""
    return f"  receipt     {log} log, index {index}, tree size {tree_size}: verified"


def lasting(seconds: int) -> str:
    """Return a length of time in its two largest units, e.g. `3 h 12 min`; nothing negative."""
    left = max(0, seconds)
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def legible(text: str) -> str:
    """Return other people's text with every character escaped that a terminal would act on or not show.

    Bodies hold no control characters; what turns the direction of writing or has no width is taken out here.
    """
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)
