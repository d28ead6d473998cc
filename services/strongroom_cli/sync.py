"""Commands that say where this host's keys are: sync, which asks the authority, and status, which does not."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom_cli.attestation import examined_document, show_examined
from strongroom_cli.delivery import or_dash, sentence
from strongroom_cli.disclosures import show_disclosures, show_needs, show_pending
from strongroom_cli.hints import hint_for
from strongroom_cli.options import home_option, output_option, passphrase_option, wait_option
from strongroom_cli.output import Output, carry_out, legible, when

if TYPE_CHECKING:
    from strongroom_agent.agent import SyncReport


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
                "unfit": {name: error.message for name, error in report.unfit.items()},
                "examined": [examined_document(each) for each in report.examined],
                "attested": report.attested,
                "error": report.error.message if report.error else None,
            },
        )
        sys.exit(report.exit_code)
    for row in report.delivery.records:
        output.line(sentence(record_document(row)))
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
    for name, error in report.unfit.items():
        click.echo(
            f"  {legible(name)}: the live key is not what its record says, and is not escrowed anew by itself:"
            f" {error.message}\n"
            "  next: see to the file, or `strongroom escrow` it by hand with the --kind that it is",
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
                or_dash(row["log_index"]),
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
