"""The command that moves keys to another authority: export."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import UsageError
from strongroom_cli.arguments import check_principal, check_record
from strongroom_cli.options import EXISTING_FILE, home_option, output_option, passphrase_option, wait_option
from strongroom_cli.output import Output, legible, progress, run, when
from strongroom_cli.recovery import unreleased_document

if TYPE_CHECKING:
    from strongroom_agent.exporting import Exported
    from strongroom_agent.kept_exports import Move


@click.command()
@click.option("--principal", required=True, help="Whose records.")
@click.option("--record", "records", multiple=True, metavar="ID", help="This record. May be repeated.")
@click.option("--all", "everything", is_flag=True, help="Every record that can be moved.")
@click.option("--to", "roster", type=EXISTING_FILE, required=True, help="The other authority's newest roster.")
@click.option(
    "--to-root-key", type=EXISTING_FILE, required=True, help="Its root key (root.pub), compared with its officers."
)
@click.option("--to-principal", required=True, help="Whose records they become there.")
@click.option("--reason", required=True, help="Why; it stays on record.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The transfer file, mode 0600.")
@click.option("--force", is_flag=True, help="Overwrite it.")
@click.option("--new", "anew", is_flag=True, help="Drop what is kept of this export, and ask anew.")
@home_option
@passphrase_option
@wait_option(120.0)
@output_option
def export(
    *,
    principal: str,
    records: tuple[str, ...],
    everything: bool,
    roster: Path,
    to_root_key: Path,
    to_principal: str,
    reason: str,
    out: Path,
    force: bool,
    anew: bool,
    home: Path,
    passphrase: Secret | None,
    wait_seconds: float,
    output: Output,
) -> None:
    """Move keys to another Strongroom authority, as an officer with the role `recover`.

    Each key is sealed again by the recovery worker, to the other authority's first active sealing key: nobody on
    the way can open it, and you cannot. Requests of up to 256 records wait for officers' approvals like any other;
    the same command takes them up again and writes the file once all is released. At the other authority's host:
    `strongroom import --transfer FILE --from-root-key root.pub`.

    For this authority the keys are disclosed from then on, and due for replacement: others can get them. What each
    record took the place of is not moved. Wrapped keys stay: the transport key they are for does.

    Exit code 0: all is in the file. 1: it is written, without some that cannot be moved. 4: officers said no. 5:
    waiting for approval. 75: the daily rate is used up, or nobody answered; give the same command again.

    Example: `strongroom export --principal laptop-0417 --all --to roster.json --to-root-key root.pub
    --to-principal laptop-0417 --reason "merger" --out laptop-0417.transfer`
    """
    if bool(records) == everything:
        raise UsageError("give either --record ID, as often as need be, or --all")
    check_principal("--principal", principal)
    check_principal("--to-principal", to_principal)
    for record in records:
        check_record(record)
    if len(set(records)) != len(records):
        raise UsageError("--record: an id is repeated")
    from strongroom.settings import read_root_key, read_roster
    from strongroom_agent.exporting import Exporter, move_to

    move = move_to(
        principal,
        roster=read_roster(roster),
        root_key=read_root_key(to_root_key),
        to=to_principal,
        now=int(time.time()),
    )
    with Exporter.open(home, passphrase=passphrase) as agent, progress("Asking the authority") as show:
        done = run(
            agent.export(
                move,
                records=records or None,
                reason=reason,
                output=out,
                overwrite=force,
                anew=anew,
                watch=_watch(show),
                wait_seconds=wait_seconds,
            )
        )
    _tell(done, move, output)
    sys.exit(done.exit_code)


def _watch(show: Callable[[str], None]) -> "Callable[[Exported], None]":
    return lambda done: show(f"Asking the authority: {done.released:,} of {done.records:,} records released")


def _tell(done: "Exported", move: "Move", output: Output) -> None:
    to = move.destination
    if output.json:
        output.document(
            "export",
            {
                "principal": move.principal,
                "destination": to.model_dump(),
                "recipient_key": move.recipient.kid,
                "records": done.records,
                "released": done.released,
                "waiting": [unreleased_document(each) for each in done.waiting],
                "refused": [unreleased_document(each) for each in done.refused],
                "left_out": [{"record": each.record, "name": each.name, "why": each.why} for each in done.left_out],
                "out": str(done.path) if done.path else None,
            },
        )
        return
    for one in done.left_out:
        click.echo(f"  left out: record {one.record} {legible(one.name)}: {one.why}", err=True)
    for each in done.refused:
        click.echo(f"  refused: request {each.asked.id}: {legible(each.words)} [{each.remote_code}]", err=True)
    where = f"{to.principal} at {to.authority}, sealing key {move.recipient.kid}"
    if done.path is not None:
        output.line(f"exported {done.released:,} records of {move.principal} to {where}")
        output.line(f"  written     {done.path}")
        output.line("  next        there: `strongroom import --transfer FILE --from-root-key root.pub`")
        return
    output.line(f"not written yet: {done.released:,} of {done.records:,} records are released")
    for each in done.waiting:
        output.line(f"  waiting     {legible(each.outlook)}: request {each.asked.id}")
        output.line(f"              until {when(each.asked.expires_at)}, digest sha256:{each.asked.digest}")
    output.line(f"  to          {where}")
    if any(each.is_waiting for each in done.waiting):
        output.line("  next        officers run `strongroom requests` and `strongroom approve ID`;")
        output.line("              then give the same command again")
