"""The command by which a host says whether its records hold the keys in use: attest."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import NotFound
from strongroom_cli.hints import hint_for
from strongroom_cli.options import home_option, output_option, passphrase_option, wait_option
from strongroom_cli.output import Output, carry_out, legible, when

if TYPE_CHECKING:
    from strongroom_agent.agent import Examined


@click.command()
@click.option("--name", help="Only the key of this name; default: every one that has a check.")
@home_option
@passphrase_option
@wait_option(60.0)
@output_option
def attest(*, name: str | None, home: Path, passphrase: Secret | None, wait_seconds: float, output: Output) -> None:
    """Compare the keys in use with what is in escrow, and put the result on record, signed.

    checks.toml in the home says where each key is: `escrow FILE --live file` writes it, and it may hold commands,
    which end with 0 while the key opens what it should and with 1 when it does not. No key leaves this host for it.
    `sync` does the same by itself, as often as the authority's policy asks, and at once when a result changes.

    Exit code 0: every record holds the key in use. 1: one does not, so that the key in use is not in escrow. 75:
    no answer, or a key that could not be looked at, which is not the same as another key. 3: there is nothing to
    check.

    Example: `strongroom attest --name disk`
    """
    from strongroom_agent.agent import Agent
    from strongroom_agent.checks import CHECKS_FILE

    with Agent.open(home, passphrase=passphrase) as agent:
        report = carry_out("Telling the authority", agent.attest(name=name, wait_seconds=wait_seconds))
    if not report.examined:
        where = home / CHECKS_FILE
        raise NotFound(
            f"{where}: there is no check" if name is None else f"{where}: there is no check of {legible(name)}",
            hint="`strongroom escrow FILE --name NAME --live file` writes one; for a command, add by hand"
            ' [[check]], name = "NAME", command = ["/absolute/path", "argument"]',
        )
    if output.json:
        output.document(
            "attestation",
            {
                "examined": [examined_document(each) for each in report.examined],
                "log_index": report.log_index,
                "attested_at": report.attested_at,
                "error": report.error.message if report.error else None,
            },
        )
        sys.exit(report.exit_code)
    for each in report.examined:
        if each.matches and each.record is not None:
            output.line(f"{legible(each.name)}: record {each.record.id} holds the key in use")
    show_examined(report.examined)
    if report.log_index is not None:
        output.line(f"  on record   recovery log, index {report.log_index}, {when(report.attested_at)}: verified")
    if report.error is not None:
        click.echo(f"  {report.error.message}", err=True)
        if (hint := hint_for(report.error)) is not None:
            click.echo(f"  next: {hint}", err=True)
    sys.exit(report.exit_code)


def examined_document(examined: "Examined") -> dict[str, object]:
    """Return as plain values for JSON how a live key compares with its record.

    `matches` null when that is unknown.
    """
    return {
        "name": examined.name,
        "record": examined.record.id if examined.record else None,
        "matches": examined.matches,
        "reason": examined.reason,
    }


def show_examined(examined: "Iterable[Examined]") -> None:
    """Print on standard error which records do not hold the key in use, and of which keys that is unknown."""
    for each in examined:
        if each.matches is None:
            click.echo(
                f"  UNKNOWN: {legible(each.name)} was not compared, and nothing is said of it:"
                f" {legible(each.reason or '')}",
                err=True,
            )
        elif not each.matches and each.record is not None:
            click.echo(
                f"  STALE: record {each.record.id} ({legible(each.name)}) does not hold the key that is in use",
                err=True,
            )
