"""Commands for auditors and witnesses: export and verify the logs, cosign a checkpoint, show checkpoints."""

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode, UsageError
from strongroom_cli.options import (
    EXISTING_FILE,
    home_option,
    output_option,
    passphrase_option,
    read_text,
    wait_option,
)
from strongroom_cli.output import Output, progress, run

if TYPE_CHECKING:
    from strongroom.roster import Roster
    from strongroom_audit.export import Report
    from strongroom_audit.findings import Finding, Findings
    from strongroom_audit.folder import Export
    from strongroom_audit.verify import Options, Verdict

_FOLDER: Final = click.Path(file_okay=False, path_type=Path)
_EXISTING_FOLDER: Final = click.Path(exists=True, file_okay=False, path_type=Path)
_DATABASE_ONLY: Final = ("node_edited", "node_missing")


@click.group()
def log() -> None:
    """Export both logs, verify them from the root key alone, and witness them. No server is believed."""


@log.command()
@click.argument("folder", metavar="DIR", type=_FOLDER)
@home_option
@passphrase_option
@wait_option(60.0)
@output_option
def export(*, folder: Path, home: Path, passphrase: Secret | None, wait_seconds: float, output: Output) -> None:
    """Export both logs into DIR in the form of C2SP tlog-tiles, with the statements that their leaves name.

    As an officer with the role `audit`. An export that is there is gone on with: only what is new is fetched, and
    the old one has to be a prefix of it. What the database has lost of the new part is named and left open, with
    exit code 1; what it has lost since of the old part, `strongroom log verify` without DIR finds.

    Example: `strongroom log export /srv/audit/strongroom`
    """
    from strongroom_audit.export import export as carry_out
    from strongroom_audit.folder import Export
    from strongroom_audit.pages import Auditor

    with Auditor.open(home, passphrase=passphrase) as auditor, progress("Asking the authority") as say:
        auditor.check_may_read()
        report = run(carry_out(auditor, Export(folder), wait_seconds=wait_seconds, say=say))
    _tell_exported(folder, report, output)
    sys.exit(ExitCode.FAILED if _failed(report.findings, strict=False) else ExitCode.DONE)


def _tell_exported(folder: Path, report: "Report", output: Output) -> None:
    if output.json:
        logs = [
            {
                "log": each.log,
                "old_size": each.old_size,
                "size": each.size,
                "root": each.checkpoint.root.hex() if each.checkpoint else None,
            }
            for each in report.logs.values()
        ]
        findings = [each.document() for each in report.findings]
        output.document("log-export", {"folder": str(folder), "logs": logs, "findings": findings})
        return
    _tell_findings(report.findings, output)
    for each in report.logs.values():
        output.line(f"{each.log} log: {each.size} leaves, {each.size - each.old_size} of them new, in {folder}")


@log.command()
@click.argument("folder", metavar="[DIR]", type=_EXISTING_FOLDER, required=False)
@click.option(
    "--against",
    type=EXISTING_FILE,
    multiple=True,
    metavar="FILE",
    help="Checkpoints from elsewhere (`strongroom log checkpoints` of a host); each must be a prefix. Repeatable.",
)
@click.option(
    "--witness", "witnesses", multiple=True, metavar="VKEY", help="Key of a witness that ought to have cosigned."
)
@click.option("--root-key", type=EXISTING_FILE, metavar="FILE", help="The root public key; default: the home's.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=os.cpu_count() or 1,
    show_default="one a core",
    help="Processes that verify signatures.",
)
@click.option("--no-signatures", is_flag=True, help="Do not verify the signatures of escrow statements.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings, too.")
@home_option
@passphrase_option
@wait_option(60.0)
@output_option
def verify(
    *,
    folder: Path | None,
    against: tuple[Path, ...],
    witnesses: tuple[str, ...],
    root_key: Path | None,
    jobs: int,
    no_signatures: bool,
    strict: bool,
    home: Path,
    passphrase: Secret | None,
    wait_seconds: float,
    output: Output,
) -> None:
    """Verify both logs: the export in DIR, or what the authority has now, as an officer with the role `audit`.

    Recomputes the trees from their leaves; compares them with every tile and every checkpoint; holds each leaf
    against its statement, that against the keys of its time and up to the root key, each release against request,
    approvals and policy, and the database's index against what was signed. Whatever is wrong is named with log,
    leaf and id. Exit code 0 without errors, 1 with; warnings count with --strict.

    Example: `strongroom log verify` or `strongroom log verify DIR --root-key root.pub --against laptop.checkpoints`
    """
    from strongroom_audit.folder import Export
    from strongroom_audit.verify import verify as carry_out

    options = _options(against, witnesses, jobs=jobs, signatures=not no_signatures)
    if folder is not None:
        options = _trusting(options, root_key, home)
        with progress("Verifying") as say:
            verdict = carry_out(Export(folder), options, say=say)
    else:
        if root_key is not None:
            raise UsageError("--root-key goes with DIR; over the queue the home's root key counts")
        verdict = _verify_now(options, home, passphrase, wait_seconds)
    _tell_verdict(verdict, output)
    sys.exit(ExitCode.FAILED if verdict.errors or (strict and verdict.warnings) else ExitCode.DONE)


def _options(against: tuple[Path, ...], witnesses: tuple[str, ...], *, jobs: int, signatures: bool) -> "Options":
    from strongroom.crypto.cosignatures import parse_vkey
    from strongroom.crypto.notes import SignatureType
    from strongroom_audit.folder import split_notes
    from strongroom_audit.verify import Options

    keys = tuple(map(parse_vkey, witnesses))
    if any(key.kind is not SignatureType.COSIGNATURE for key in keys):
        raise UsageError("--witness: is a log's key, not a witness's")
    notes = [(str(path), note) for path in against for note in split_notes(read_text("--against", path))]
    return Options(
        root_key=b"", now=int(time.time()), against=tuple(notes), witnesses=keys, signatures=signatures, jobs=jobs
    )


def _trusting(options: "Options", root_key: Path | None, home: Path) -> "Options":
    """Add what is believed: the root key of a file, or that of the home with the roster it knows."""
    from dataclasses import replace

    from strongroom.settings import read_root_key
    from strongroom_agent.home import Home
    from strongroom_agent.trust import newest_roster

    if root_key is not None:
        return replace(options, root_key=read_root_key(root_key))
    opened = Home.open(home)
    return replace(options, root_key=opened.authority()[1], rosters=(newest_roster(opened),))


def _verify_now(options: "Options", home: Path, passphrase: Secret | None, wait_seconds: float) -> "Verdict":
    """Export what there is now into a folder that is gone afterwards, and verify that."""
    from dataclasses import replace

    from strongroom_audit.export import export as fetch
    from strongroom_audit.folder import Export
    from strongroom_audit.pages import Auditor
    from strongroom_audit.verify import verify as carry_out

    with (
        Auditor.open(home, passphrase=passphrase) as auditor,
        TemporaryDirectory(prefix="strongroom-audit-") as place,
        progress("Asking the authority") as say,
    ):
        auditor.check_may_read()
        target = Export(Path(place))
        report = run(fetch(auditor, target, wait_seconds=wait_seconds, say=say))
        held = [(str(home), note) for note in [*(kept.note for kept in auditor.held()), *auditor.evidence()]]
        options = replace(
            options,
            root_key=auditor.root_key,
            rosters=(auditor.roster,),
            against=(*options.against, *held),
        )
        verdict = carry_out(target, options, say=say)
    # Of the database's nodes an export keeps those that tiles are made of.
    verdict.findings.take(each for each in report.findings if each.code in _DATABASE_ONLY)
    return verdict


def _tell_verdict(verdict: "Verdict", output: Output) -> None:
    if output.json:
        output.document("log-verify", verdict.document())
        return
    _tell_findings(verdict.findings.kept, output)
    _tell_rest(verdict.findings, output)
    for name, size in verdict.sizes.items():
        output.line(f"{name} log: {size} leaves")
    output.line(
        f"{verdict.records} records, {verdict.signatures} signatures, {len(verdict.compared)} checkpoints compared:"
        f" {verdict.errors} errors, {verdict.warnings} warnings"
    )
    if not verdict.sizes:
        output.line("there is nothing in it")


def _tell_findings(findings: "list[Finding]", output: Output) -> None:
    if not findings:
        return
    rows = [
        (
            each.severity.value,
            each.log,
            "-" if each.index is None else each.index,
            each.id or "-",
            each.code,
            each.words,
        )
        for each in findings
    ]
    output.table(["severity", "log", "leaf", "id", "code", "what"], rows)


def _tell_rest(findings: "Findings", output: Output) -> None:
    rest = sum(findings.counts.values()) - len(findings.kept)
    if rest:
        output.line(f"and {rest} more like these")


def _failed(findings: "list[Finding]", *, strict: bool) -> bool:
    from strongroom_audit.findings import Severity

    return any(strict or each.severity is Severity.ERROR for each in findings)


@log.command()
@click.argument("folder", metavar="DIR", type=_EXISTING_FOLDER)
@click.option("--log", "name", type=click.Choice(["escrow", "recovery"]), required=True, help="Whose checkpoint.")
@click.option("--key", type=EXISTING_FILE, required=True, metavar="KEYFILE", help="The witness's own signing key.")
@click.option(
    "--name", "witness", required=True, metavar="NAME", help="The witness's name, e.g. `witness.example/w1`."
)
@click.option(
    "--state",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What it has cosigned so far.  [default: KEYFILE.cosigned]",
)
@click.option("--root-key", type=EXISTING_FILE, metavar="FILE", help="The root public key; default: the home's.")
@home_option
@passphrase_option
@output_option
def cosign(
    *,
    folder: Path,
    name: str,
    key: Path,
    witness: str,
    state: Path | None,
    root_key: Path | None,
    home: Path,
    passphrase: Secret | None,
    output: Output,
) -> None:
    """Cosign the checkpoint of the export in DIR, as a witness, and write it back with the new signature.

    Nothing is signed unless the export's tree leads to the checkpoint and continues the newest one that this
    witness has cosigned before. Prints the witness's key for `log verify --witness`.

    Example: `strongroom log cosign DIR --log escrow --key w1.key --name witness.example/w1 --root-key root.pub`
    """
    from strongroom.crypto.cosignatures import vkey
    from strongroom.crypto.key_file import read_signing_key
    from strongroom.crypto.notes import SignatureType
    from strongroom_audit.folder import Export
    from strongroom_audit.witness import Witness

    target = Export(folder)
    target.check_there()
    rosters = _rosters(target, root_key, home)
    signing_key = read_signing_key(key, passphrase)
    public = vkey(witness, signing_key.public_key, SignatureType.COSIGNATURE)
    signer = Witness(witness, signing_key, state or key.with_name(f"{key.name}.cosigned"))
    with progress("Verifying") as say:
        known = signer.cosign(target, name, rosters, now=int(time.time()), say=say)  # type: ignore[arg-type]
    if output.json:
        output.document("log-cosign", {**known.document(), "vkey": public, "note": known.note})
        return
    output.line(f"cosigned the {name} log at {known.checkpoint.size} leaves, root {known.checkpoint.root.hex()}")
    output.line(f"  witness     {public}")


def _rosters(target: "Export", root_key: Path | None, home: Path) -> "list[Roster]":
    from strongroom_audit.rosters import rosters_of

    trusting = _trusting(_options((), (), jobs=1, signatures=False), root_key, home)
    return [*trusting.rosters, *rosters_of(target, trusting.root_key)]


@log.command()
@home_option
@output_option
def checkpoints(home: Path, output: Output) -> None:
    """Print the checkpoints that this home holds, for auditors: what it has seen of both logs.

    Also those that are kept as evidence against a log. One signed note after the other, with an empty line between,
    for `strongroom log verify --against FILE`. Works offline.

    Example: `strongroom log checkpoints > laptop-0417.checkpoints`
    """
    from strongroom.crypto.notes import parse_checkpoint
    from strongroom_agent.home import Home
    from strongroom_agent.state import State
    from strongroom_audit.folder import join_notes

    with State.open(Home.open(home).state_file) as state:
        held = [kept.note for kept in (state.checkpoint("escrow"), state.checkpoint("recovery")) if kept]
        notes = list(dict.fromkeys([*held, *(n for each in state.evidence() for n in (each.held_note, each.note))]))
    if output.json:
        found = [(parse_checkpoint(note)[0], note) for note in notes]
        listed = [{"origin": c.origin, "size": c.size, "root": c.root.hex(), "note": note} for c, note in found]
        output.document("log-checkpoints", {"checkpoints": listed})
        return
    if notes:
        click.echo(join_notes(notes), nl=False)
