"""Commands on a host: card, enrol, escrow, sync, status, seal, open."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode, TransientError, UsageError
from strongroom_cli.disclosures import show_disclosures, show_pending
from strongroom_cli.options import broker_login, home_option, output_option, passphrase_option, wait_option
from strongroom_cli.output import Output, carry_out, progress, when

if TYPE_CHECKING:
    from strongroom_agent.agent import Delivery

_KEY_ID: Final = re.compile("[0-9a-f]{32}")


@click.command()
@click.argument("principal")
@home_option
@passphrase_option
def card(principal: str, home: Path, passphrase: Secret | None) -> None:
    """Make a one-time key in the home folder and print the enrolment card of PRINCIPAL, for an officer.

    The officers sign for that key alone, so that nobody but this host can use their invitation. The card is
    public, and the same each time. Read the key's id to the officers by another way than the card takes.

    Example: `strongroom card laptop-0417 > card.json`, then on an officer's machine
    `strongroom invite --for card.json > inv.json`, then here `strongroom enrol inv.json`
    """
    from strongroom_agent.cards import make_card

    made = make_card(home, principal, passphrase=passphrase)
    sys.stdout.buffer.write(made.to_bytes() + b"\n")
    sys.stdout.buffer.flush()
    click.echo(f"card of {made.principal}: one-time key {made.key_id}; officers compare this id", err=True)


@click.command()
@click.argument("invitation", type=click.File("rb"))
@click.option("--name", help="The principal, for an invitation of many; default: the invitation's.")
@click.option(
    "--root-key",
    metavar="FILE|KEY-ID",
    help="What the root key must be: root.pub or its id, known by another way than the invitation.",
)
@click.option(
    "--broker-url-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with this host's own AMQP URL; default: the invitation's.",
)
@click.option(
    "--broker-certificate",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Certificate (PEM) by which this host logs in to the broker. It is copied into the home.",
)
@click.option(
    "--broker-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The unencrypted private key (PEM) that belongs to it. It is copied, too, with mode 0600.",
)
@home_option
@passphrase_option
@wait_option(60.0)
@output_option
def enrol(
    *,
    invitation: BinaryIO,
    name: str | None,
    root_key: str | None,
    broker_url_file: Path | None,
    broker_certificate: Path | None,
    broker_key: Path | None,
    home: Path,
    passphrase: Secret | None,
    wait_seconds: float,
    output: Output,
) -> None:
    """Enrol this host with an officer's invitation file (`-` for standard input).

    Makes the host's keys in the home folder, pins the authority's root key, and waits for the receipt. If it is
    interrupted, run it again with the same file. Compare the root key's id with what the authority publishes, or
    name it with --root-key.

    Example: `strongroom enrol inv.json` or `strongroom enrol fleet.json --name laptop-0417 --root-key root.pub`
    """
    from strongroom_agent.enrolment import enrol as enrol_host

    work = enrol_host(
        home,
        invitation.read(),
        name=name,
        root_key_id=_root_key_id(root_key) if root_key else None,
        passphrase=passphrase,
        login=broker_login(broker_url_file, broker_certificate, broker_key),
        wait_seconds=wait_seconds,
    )
    done = carry_out("Enrolling", work)
    if output.json:
        output.document(
            "enrolment",
            {
                "principal": done.principal,
                "authority": done.authority,
                "root_key_id": done.root_key_id,
                "key_id": done.key_id,
                "age_recipient": done.age_recipient,
                "log_index": done.log_index,
                "tree_size": done.tree_size,
                "roster_version": done.roster_version,
                "roster_expires_at": done.roster_expires_at,
            },
        )
        return
    output.line(f"enrolled {done.principal} with {done.authority}")
    output.line(f"  key         {done.key_id}")
    output.line(f"  receipt     recovery log, index {done.log_index}, tree size {done.tree_size}: verified")
    output.line(f"  roster      version {done.roster_version}, expires {when(done.roster_expires_at)}")
    output.line(f"  home        {home}")
    told = "as you asked" if root_key else "compare it with `strongroom authority show`, by another way"
    output.line(f"  root key    {done.root_key_id}: {told}")


def _root_key_id(text: str) -> str:
    from strongroom.crypto.signing import key_id
    from strongroom.settings import read_root_key

    return text if _KEY_ID.fullmatch(text) else key_id(read_root_key(Path(text)))


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

    key = KeyToEscrow(
        material=Secret(file.read()),
        name=name,
        kind=kind,
        description=description,
        serial_number=serial_number,
        algorithm=algorithm,
        labels=_labels(labels),
    )
    with _nothing_spooled_is_no_75(), Agent.open(home, passphrase=passphrase) as agent:
        delivery = carry_out("Waiting for the receipt", agent.escrow([key], wait_seconds=wait_seconds))
    show_delivery(delivery, output)


@contextmanager
def _nothing_spooled_is_no_75() -> Iterator[None]:
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
    sys.exit(delivery.exit_code)


def _sentence(row: dict[str, object]) -> str:
    if row["state"] == "stored":
        return (
            f"stored {row['name']}: record {row['id']}\n"
            f"  receipt     escrow log, index {row['log_index']}, tree size {row['tree_size']}: verified"
        )
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
        if report.error.hint is not None:
            click.echo(f"  next: {report.error.hint}", err=True)
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


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output-file", type=click.Path(path_type=Path), help="Default: FILE.age")
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@home_option
@passphrase_option
@wait_option(10.0)
@output_option
def seal(
    *,
    file: Path,
    output_file: Path | None,
    force: bool,
    home: Path,
    passphrase: Secret | None,
    wait_seconds: float,
    output: Output,
) -> None:
    """Encrypt FILE with age to your own identity and to a fresh session key, and escrow that session key.

    The result is an ordinary age file. `open` reads it with your identity; when that is lost,
    `recover --file` gets the session key back.

    Example: `strongroom seal report.pdf`
    """
    from strongroom_agent.agent import Agent

    with _nothing_spooled_is_no_75(), Agent.open(home, passphrase=passphrase) as agent:
        work = agent.seal_file(file, output=output_file, overwrite=force, wait_seconds=wait_seconds)
        sealed = carry_out(f"Sealing {file.name}", work)
    output.line(f"sealed {file} to {sealed.path}")
    show_delivery(sealed.delivery, output)


@click.command("open")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--identity", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A recovered session key."
)
@click.option("--output-file", type=click.Path(path_type=Path), help="Default: FILE without .age")
@click.option("--force", is_flag=True, help="Overwrite the output file.")
@home_option
@passphrase_option
@output_option
def open_(
    *,
    file: Path,
    identity: Path | None,
    output_file: Path | None,
    force: bool,
    home: Path,
    passphrase: Secret | None,
    output: Output,
) -> None:
    """Decrypt a sealed FILE with your own identity, or with a recovered session key.

    Example: `strongroom open report.pdf.age --identity session.key`
    """
    from strongroom_agent.agent import Agent

    with Agent.open(home, passphrase=passphrase) as agent, progress(f"Opening {file.name}"):
        opened = agent.open_file(file, output=output_file, identity_file=identity, overwrite=force)
    if output.json:
        output.document("open", {"path": str(opened)})
    output.line(f"opened {file} to {opened}")
