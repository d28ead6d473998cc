"""Commands that hand keys over and say what became of them: escrow, sync, status."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import rich_click as click

from strongroom import limits
from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode, TransientError, UsageError
from strongroom_cli.attestation import examined_document, show_examined
from strongroom_cli.disclosures import show_disclosures, show_needs, show_pending
from strongroom_cli.hints import hint_for
from strongroom_cli.options import home_option, output_option, passphrase_option, wait_option
from strongroom_cli.output import Output, carry_out, legible, receipt, when

if TYPE_CHECKING:
    from strongroom_agent.agent import Delivery, SyncReport
    from strongroom_agent.checks import Check

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


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--name", required=True, help="Name to recover it by, e.g. `disk`. New keys may come under an old name."
)
@click.option(
    "--kind", default="key", show_default=True, help="What it is: `disk-key`, `session-key`, `age-identity` …"
)
@click.option("--description", default="", help="For people, at most 1,024 characters. The database sees it.")
@click.option("--serial-number", default="", help="Of the device or file it opens, at most 256 characters.")
@click.option("--algorithm", default="", help="What the key is for, e.g. `AES-256-XTS`.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="May be repeated, at most 32 times.")
@click.option(
    "--live",
    type=click.Choice(["file", "age"]),
    help="FILE stays where it is and is the key in use: its exact bytes, or the one identity in an age identity"
    " file; `sync` and `attest` compare it with the record (checks.toml in the home).",
)
@home_option
@passphrase_option
@until_options
@output_option
def escrow(
    *,
    file: BinaryIO,
    name: str,
    kind: str,
    description: str,
    serial_number: str,
    algorithm: str,
    labels: tuple[str, ...],
    live: str | None,
    home: Path,
    passphrase: Secret | None,
    until_proven: bool,
    wait_seconds: float,
    output: Output,
) -> None:
    """Give the key in FILE (default: standard input) to the authority.

    The key is sealed first; only the sealed blob is written to the spool and sent. Exit code 0 means that a
    verified receipt is here; 75 means that the sealed key is safe in the spool and `sync` will send it again.
    With `--until proven`: 6 means that it is stored and was not proven in time, 1 that the authority cannot give
    it back.

    It takes the place of records of that name which `status` shows as unprovable, missing, stale or disclosed.

    Example: `strongroom escrow k --name disk --kind disk-key --serial-number C02XYZ --until proven`
    """
    from strongroom_agent.agent import Agent, KeyToEscrow

    path = getattr(file, "name", "-")
    checks = _checks(path, name, live)
    material = file.read(limits.KEY_MATERIAL_BYTES_MAX + 1)
    if not 1 <= len(material) <= limits.KEY_MATERIAL_BYTES_MAX:
        found = "is empty" if not material else "is too long"
        raise UsageError(
            f"FILE: {found}; a key has 1 to {limits.KEY_MATERIAL_BYTES_MAX:,} bytes",
            hint="for a whole file, `strongroom seal FILE`: it escrows the session key alone",
        )
    key = KeyToEscrow(
        material=_identity(path) if live == "age" else Secret(material),
        name=name,
        kind=kind,
        description=description,
        serial_number=serial_number,
        algorithm=algorithm,
        labels=_labels(labels),
    )
    with nothing_spooled_is_no_75(), Agent.open(home, passphrase=passphrase) as agent:
        work = agent.escrow([key], wait_seconds=wait_seconds, until_proven=until_proven, checks=checks)
        delivery = carry_out("Waiting for the proof" if until_proven else "Waiting for the receipt", work)
    show_delivery(delivery, output)


def _checks(file: str, name: str, live: str | None) -> "list[Check]":
    if live is None:
        return []
    from strongroom_agent.checks import Check, Kind

    if not Path(file).is_file():
        raise UsageError("--live: FILE must be a file that stays there", hint="without --live it may be a pipe")
    # Links are followed when the key is looked at, and not now: where one points may change with the key.
    return [Check(name, Kind(live), (os.path.abspath(file),))]  # noqa: PTH100


def _identity(file: str) -> Secret:
    from strongroom_agent.live_keys import read_identity

    return read_identity(Path(file))


@contextmanager
def nothing_spooled_is_no_75() -> Iterator[None]:
    """Let no error that leaves the spool empty have the exit code that says the key is safe there."""
    try:
        yield
    except TransientError as error:
        error.exit_code = ExitCode.FAILED
        raise


def _labels(pairs: tuple[str, ...]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name in labels:
            raise UsageError(f"--label {pair!r}: must be NAME=VALUE, and each name once")
        labels[name] = value
    return labels


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
            output.line(_sentence(record_document(row)))
        if delivery.error is not None:
            click.echo(f"  {delivery.error.message}", err=True)
            if (hint := hint_for(delivery.error)) is not None:
                click.echo(f"  next: {hint}", err=True)
    sys.exit(delivery.exit_code)


def _sentence(row: dict[str, object]) -> str:
    if row["state"] == "stored":
        proof = receipt("escrow", row["log_index"], row["tree_size"])
        lines = [f"stored {row['name']}: record {row['id']}", proof]
        if row["proven_at"] is not None:
            lines.append(f"  proven      recovery log, index {row['proof']}, {when(row['proven_at'])}: verified")
        if row["unprovable"] is not None:
            lines.append(f"  UNPROVABLE  recovery log, index {_or_dash(row['proof'])}: {row['unprovable']}")
        return "\n".join(lines)
    if row["state"] == "rejected":
        return f"rejected {row['name']}: record {row['id']}\n  reason      {row['reason']}"
    return (
        f"spooled {row['name']}: record {row['id']}\n"
        "  The sealed key is safe in the spool; no receipt yet. Run `strongroom sync`."
    )


@click.command()
@click.option("--retry-rejected", is_flag=True, help="Send rejected keys again too, when the cause is gone.")
@click.option(
    "--clear-evidence",
    is_flag=True,
    help="Drop the evidence against a log and let its receipts count again. Only after an auditor has looked:"
    " keep a copy of the home's state.db, for the evidence is gone then.",
)
@home_option
@passphrase_option
@wait_option(120.0)
@output_option
def sync(
    *,
    retry_rejected: bool,
    clear_evidence: bool,
    home: Path,
    passphrase: Secret | None,
    wait_seconds: float,
    output: Output,
) -> None:
    """Send what is spooled, take a newer roster, and compare with what the authority holds.

    For a timer; harmless to repeat. Says who was given a key of this host, and who else asks for one and waits.
    Finishes an enrolment first that has no receipt yet. Where checks.toml in the home says where a live key is,
    tells the authority whether the record still holds it, and escrows it anew when the record is of no use any
    more.

    Exit code 75 while something is still spooled. 1 while a key of this home is rejected; if the authority does
    not list one that it gave a receipt for; and if one is unprovable, stale, or disclosed past its time, and
    could not be escrowed anew. A key that is not proven yet is no failure here; `status` says so.

    Example: `strongroom sync -o json`
    """
    from strongroom_agent.agent import Agent
    from strongroom_agent.home import Home
    from strongroom_agent.status import disclosure_document, record_document, standing_document

    name = Home.open(home).config.name
    with Agent.open(home, passphrase=passphrase) as agent:
        if clear_evidence:
            agent.clear_evidence()
        work = agent.sync(wait_seconds=wait_seconds, retry_rejected=retry_rejected)
        report = carry_out("Synchronizing", work)
    if output.json:
        output.document(
            "sync",
            {
                "stored": report.delivery.stored,
                "spooled": report.delivery.spooled,
                "rejected": report.delivery.rejected,
                "records": [record_document(row) for row in report.delivery.records],
                "roster_version": report.roster_version,
                "roster_changed": report.roster_changed,
                "compared": report.compared,
                "missing": list(report.missing),
                "mismatched": list(report.mismatched),
                "disclosed": [disclosure_document(each, name) for each in report.disclosed],
                "pending": [asdict(each) for each in report.pending],
                "needy": [standing_document(each) for each in report.needy],
                "renewed": [record_document(row) for row in report.renewed],
                "given_up": list(report.given_up),
                "examined": [examined_document(each) for each in report.examined],
                "attested": report.attested,
                "error": report.error.message if report.error else None,
            },
        )
        sys.exit(report.exit_code)
    for row in report.delivery.records:
        output.line(_sentence(record_document(row)))
    counts = report.delivery
    output.line(
        f"sync: {counts.stored} stored, {counts.spooled} spooled, {counts.rejected} rejected; "
        f"roster version {report.roster_version}{' (new)' if report.roster_changed else ''}"
    )
    if report.compared and not report.missing and not report.mismatched:
        output.line("  The authority lists every record that this host holds a receipt for.")
    _show_live_keys(report, output)
    # What needs the owner is said with what to do; the rest was seen to, and is an alarm all the same.
    needy = {each.record for each in report.needy}
    for record in sorted({*report.missing} - needy):
        click.echo(f"  MISSING at the authority although a receipt is here: record {record}", err=True)
    for record in sorted({*report.mismatched} - needy):
        click.echo(f"  DIFFERENT at the authority than signed here: record {record}", err=True)
    show_needs(report.needy, report.now)
    show_disclosures(report.disclosed, name)
    show_pending(report.pending)
    if report.error is not None:
        click.echo(f"  {report.error.message}", err=True)
        if (hint := hint_for(report.error)) is not None:
            click.echo(f"  next: {hint}", err=True)
    sys.exit(report.exit_code)


def _show_live_keys(report: "SyncReport", output: Output) -> None:
    for row in report.renewed:
        instead = f", in the place of {', '.join(row.facts.supersedes)}" if row.facts.supersedes else ""
        output.line(f"  escrowed anew: {legible(row.facts.name)}, record {row.facts.id}{instead}")
    if report.attested:
        output.line(f"  The authority was told of {report.attested} records whether they hold the live key.")
    for name in report.given_up:
        click.echo(
            f"  {legible(name)}: the newest records were all lost, and it is not escrowed anew by itself any more\n"
            "  next: ask the operators of the authority why; then `strongroom escrow` it by hand",
            err=True,
        )
    show_examined(report.examined)


@click.command()
@home_option
@output_option
def status(home: Path, output: Output) -> None:
    """Say, offline, what is stored, proven, spooled or rejected, who was given a key, and who else asks for one.

    Exit code 0: every key is proven, or replaced by one that is. 6: some are stored and not proven yet; `sync`
    asks. 75: some are only spooled, or the host is not enrolled yet. 1: some were rejected or are missing; are
    unprovable, stale, or disclosed past the time to replace them, and were not escrowed anew; or a log
    contradicts itself.

    A disclosed key is only a warning until its time is over.

    Example: `strongroom status -o json`
    """
    from strongroom_agent.status import RECORDS_SHOWN, record_document
    from strongroom_agent.status import status as read_status

    found = read_status(home, limit=None if output.json else RECORDS_SHOWN)
    if output.json:
        output.document("status", found.document())
        sys.exit(found.exit_code)
    config = found.home.config
    output.line(f"{config.name} at {config.authority}")
    if found.enrolling:
        output.line("  not enrolled yet: nothing is sent before; `strongroom sync` tries again")
    rows = [record_document(row) for row in found.records]
    if rows:
        cells = [
            (
                row["name"],
                _state(row),
                _or_dash(row["log_index"]),
                when(row["stored_at"]),
                when(row["proven_at"]),
                row["id"],
            )
            for row in rows
        ]
        output.table(["name", "state", "index", "stored", "proven", "record"], cells)
        for row in rows:
            if row["reason"]:
                output.line(f"  {row['id']}: {row['reason']}")
        if found.records_total > len(rows):
            output.line(f"  … and {found.records_total - len(rows)} more: `strongroom status -o json` shows all")
    else:
        output.line("  no keys yet: `strongroom escrow` or `strongroom seal` hands one over")
    show_needs(found.needy, found.now)
    show_disclosures(found.disclosed, config.name)
    show_pending(found.pending)
    if found.roster is not None and found.roster.expires_at < found.now:
        click.echo(f"  the roster expired {when(found.roster.expires_at)}: run `strongroom sync`", err=True)
    for evidence in found.evidence:
        click.echo(
            f"  EVIDENCE against the {evidence.log} log, {when(evidence.seen_at)}: {evidence.reason}", err=True
        )
    sys.exit(found.exit_code)


def _state(row: dict[str, object]) -> object:
    """Say the state of a record in one word: that of its statement until it is stored, then what became of it."""
    return row["listed"] or "stored" if row["state"] == "stored" else row["state"]


def _or_dash(value: object) -> object:
    return "-" if value is None else value
