"""How commands speak: tables for people, one JSON document for programs, progress and errors on standard error."""

import json
import sys
from collections.abc import Coroutine, Iterator, Mapping, Sequence
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
def progress(text: str) -> Iterator[None]:
    """Show that something takes its time, on standard error and only when a person is looking."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def carry_out(text: str, work: Coroutine[Any, Any, T]) -> T:
    """Run asynchronous work to its end with `progress`; commands that work offline never load asyncio."""
    import asyncio
    import logging

    # What a driver logs is said by our own errors; without any handler Python would print it, too.
    logging.getLogger().addHandler(logging.NullHandler())
    with progress(text):
        return asyncio.run(work)


def when(seconds: object) -> str:
    """Return a time of the protocol as people read it, in UTC; a dash for none."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if isinstance(seconds, int) else "-"
