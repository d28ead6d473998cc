"""How commands speak: tables for people, one JSON document for programs, progress and errors on standard error."""

import json
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import rich_click as click

SCHEMA: Final = 1
_WHOLE: Final = frozenset({"record", "id", "stored", "since"})
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
        """Print a table for people. Ids and times stay whole, other wide cells fold; a pipe gets a line a row."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        shown = Table(header_style="bold", box=None, pad_edge=False)
        for column in columns:
            shown.add_column(column, overflow="fold", no_wrap=column in _WHOLE)
        for row in rows:
            shown.add_row(*(Text(str(cell)) for cell in row))
        console = Console(highlight=False)
        if not console.is_terminal:
            console.width = _PIPE_COLUMNS
        console.print(shown)

    def line(self, text: str) -> None:
        """Print a sentence for people; nothing in JSON mode, where the document says it."""
        if not self.json:
            click.echo(text)


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


def when(seconds: object) -> str:
    """Return a time of the protocol as people read it, in UTC; a dash for none."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if isinstance(seconds, int) else "-"


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
