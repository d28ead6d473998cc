"""What commands that hand keys over have in common: how long to wait, and saying what became of them."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import rich_click as click

from strongroom.errors import ExitCode, TransientError
from strongroom_cli.hints import hint_for
from strongroom_cli.output import Output, receipt, when

if TYPE_CHECKING:
    from strongroom_agent.agent import Delivery

STORED_SECONDS: Final = 10.0
PROVEN_SECONDS: Final = 120.0

Command = TypeVar("Command", bound=Callable[..., Any])


def until_options(function: Command) -> Command:
    """Add `--until stored|proven` and `--wait`; the command receives `until_proven: bool` and `wait_seconds`."""

    def is_proven(_context: click.Context, _parameter: click.Parameter, value: str) -> bool:
        return value == "proven"

    def choose(context: click.Context, _parameter: click.Parameter, value: float | None) -> float:
        return value or (PROVEN_SECONDS if context.params.get("until_proven") else STORED_SECONDS)

    until = click.option(
        "--until",
        "until_proven",
        type=click.Choice(["stored", "proven"]),
        default="stored",
        show_default=True,
        callback=is_proven,
        is_eager=True,
        help="What to wait for: a receipt, or that the authority has opened the sealed key and found it right.",
    )
    wait = click.option(
        "--wait",
        "wait_seconds",
        type=click.FloatRange(0.1, 3600),
        metavar="SECONDS",
        callback=choose,
        help=f"How long to wait in all.  [default: {STORED_SECONDS:.0f}; until proven {PROVEN_SECONDS:.0f}]",
    )
    return until(wait(function))


@contextmanager
def nothing_spooled_is_no_75() -> Iterator[None]:
    """Let no error that leaves the spool empty have the exit code that says the key is safe there."""
    try:
        yield
    except TransientError as error:
        error.exit_code = ExitCode.FAILED
        raise


def show_delivery(delivery: "Delivery", output: Output) -> None:
    """Print what became of the keys that were handed over, and leave with the exit code that says it."""
    from strongroom_agent.status import record_document

    if output.json:
        output.document(
            "escrow",
            {
                "stored": delivery.stored,
                "spooled": delivery.spooled,
                "rejected": delivery.rejected,
                "records": [record_document(row) for row in delivery.records],
                "error": delivery.error.message if delivery.error else None,
            },
        )
    else:
        for row in delivery.records:
            output.line(sentence(record_document(row)))
        if delivery.error is not None:
            click.echo(f"  {delivery.error.message}", err=True)
            if (hint := hint_for(delivery.error)) is not None:
                click.echo(f"  next: {hint}", err=True)
    sys.exit(delivery.exit_code)


def sentence(row: dict[str, object]) -> str:
    """Say of a record, as `record_document` gives it, where it is on its way."""
    if row["state"] == "stored":
        proof = receipt("escrow", row["log_index"], row["tree_size"])
        lines = [f"stored {row['name']}: record {row['id']}", proof]
        if row["proven_at"] is not None:
            lines.append(f"  proven      recovery log, index {row['proof']}, {when(row['proven_at'])}: verified")
        if row["unprovable"] is not None:
            lines.append(f"  UNPROVABLE  recovery log, index {or_dash(row['proof'])}: {row['unprovable']}")
        return "\n".join(lines)
    if row["state"] == "rejected":
        return f"rejected {row['name']}: record {row['id']}\n  reason      {row['reason']}"
    return (
        f"spooled {row['name']}: record {row['id']}\n"
        "  The sealed key is safe in the spool; no receipt yet. Run `strongroom sync`."
    )


def or_dash(value: object) -> object:
    """Return a value as a cell or a line shows it."""
    return "-" if value is None else value
