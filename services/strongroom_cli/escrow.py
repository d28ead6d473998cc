"""Commands that hand keys over and say what became of them: escrow, sync, status."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import rich_click as click

from strongroom import limits
from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode, TransientError, UsageError
from strongroom_cli.disclosures import show_disclosures, show_pending
from strongroom_cli.hints import hint_for
from strongroom_cli.options import home_option, output_option, passphrase_option, wait_option
from strongroom_cli.output import Output, carry_out, receipt, when

if TYPE_CHECKING:
    from strongroom_agent.agent import Delivery


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
@home_option
@passphrase_option
@wait_option(10.0)
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
    home: Path,
    passphrase: Secret | None,
    wait_seconds: float,
    output: Output,
) -> None:
    """Give the key in FILE (default: standard input) to the authority.

    The key is sealed first; only the sealed blob is written to the spool and sent. Exit code 0 means that a
    verified receipt is here; 75 means that the sealed key is safe in the spool and `sync` will send it again.

    Example: `strongroom escrow k --name disk --kind disk-key --serial-number C02XYZ`
    """
    from strongroom_agent.agent import Agent, KeyToEscrow

    material = file.read(limits.KEY_MATERIAL_BYTES_MAX + 1)
    if not 1 <= len(material) <= limits.KEY_MATERIAL_BYTES_MAX:
        found = "is empty" if not material else "is too long"
        raise UsageError(
            f"FILE: {found}; a key has 1 to {limits.KEY_MATERIAL_BYTES_MAX:,} bytes",
            hint="for a whole file, `strongroom seal FILE`: it escrows the session key alone",
        )
    key = KeyToEscrow(
        material=Secret(material),
        name=name,
        kind=kind,
        description=description,
        serial_number=serial_number,
        algorithm=algorithm,
        labels=_labels(labels),
    )
    with nothing_spooled_is_no_75(), Agent.open(home, passphrase=passphrase) as agent:
        delivery = carry_out("Waiting for the receipt", agent.escrow([key], wait_seconds=wait_seconds))
    show_delivery(delivery, output)


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
        return f"stored {row['name']}: record {row['id']}\n{proof}"
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
    Finishes an enrolment first that has no receipt yet. Exit code 75 while
    something is still spooled, 1 while a key of this home is rejected, or if the authority does not list one that
    it gave a receipt for.

    Example: `strongroom sync -o json`
    """
    from strongroom_agent.agent import Agent
    from strongroom_agent.home import Home
    from strongroom_agent.status import disclosure_document, record_document

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
    for record in report.missing:
        click.echo(f"  MISSING at the authority although a receipt is here: record {record}", err=True)
    for record in report.mismatched:
        click.echo(f"  DIFFERENT at the authority than signed here: record {record}", err=True)
    show_disclosures(report.disclosed, name)
    show_pending(report.pending)
    if report.error is not None:
        click.echo(f"  {report.error.message}", err=True)
        if (hint := hint_for(report.error)) is not None:
            click.echo(f"  next: {hint}", err=True)
    sys.exit(report.exit_code)


@click.command()
@home_option
@output_option
def status(home: Path, output: Output) -> None:
    """Say, offline, what is stored, spooled or rejected, who was given a key, and who else asks for one.

    Exit code 0: every key is stored. 75: some are only spooled, or the host is not enrolled yet. 1: some were
    rejected, or the log contradicts itself.

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
            (row["name"], row["state"], _or_dash(row["log_index"]), when(row["stored_at"]), row["id"])
            for row in rows
        ]
        output.table(["name", "state", "index", "stored", "record"], cells)
        for row in rows:
            if row["reason"]:
                output.line(f"  {row['id']}: {row['reason']}")
        if found.records_total > len(rows):
            output.line(f"  … and {found.records_total - len(rows)} more: `strongroom status -o json` shows all")
    else:
        output.line("  no keys yet: `strongroom escrow` or `strongroom seal` hands one over")
    show_disclosures(found.disclosed, config.name)
    show_pending(found.pending)
    if found.roster is not None and found.roster.expires_at < found.now:
        click.echo(f"  the roster expired {when(found.roster.expires_at)}: run `strongroom sync`", err=True)
    for evidence in found.evidence:
        click.echo(
            f"  EVIDENCE against the {evidence.log} log, {when(evidence.seen_at)}: {evidence.reason}", err=True
        )
    sys.exit(found.exit_code)


def _or_dash(value: object) -> object:
    return "-" if value is None else value
