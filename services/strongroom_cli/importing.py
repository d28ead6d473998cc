"""The command that brings many existing keys into escrow: import."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import UsageError
from strongroom_cli.arguments import check_key_id
from strongroom_cli.escrow import labels_of
from strongroom_cli.hints import hint_for
from strongroom_cli.options import EXISTING_FILE, home_option, output_option, passphrase_option, wait_option
from strongroom_cli.output import Output, lasting, legible, progress, run

if TYPE_CHECKING:
    from strongroom_agent.import_entries import RefusedEntry
    from strongroom_agent.importing import Imported, Progress

_SHOWN: Final = 10
_LISTED: Final = 1_000
_EITHER: Final = "`strongroom import keys.csv`, or `strongroom import --transfer FILE` for what `export` wrote"
_FIELDS: Final = ("row", "name", "code", "message")
_COUNTS: Final = ("entries", "fresh", "unchanged", "refused", "stored", "spooled", "rejected")


@click.command("import")
@click.argument("source", type=click.Path(exists=True, path_type=Path), required=False)
@click.option(
    "--transfer",
    type=EXISTING_FILE,
    help="In place of SOURCE: a file that officers of another authority wrote for this host, by `export`.",
)
@click.option(
    "--from-root-key",
    type=EXISTING_FILE,
    help="Root key (root.pub) of the authority that the transfer comes from. Without it nothing shows that the keys"
    " in the file came from there.",
)
@click.option("--dry-run", is_flag=True, help="Check everything; change and send nothing.")
@click.option(
    "--report", type=click.Path(path_type=Path), help="Write every refusal here: CSV (.csv), else JSON lines."
)
@click.option(
    "--kind", default="", help="Of keys that do not say it, as for `escrow`.  [default: key, or the format]"
)
@click.option(
    "--format",
    "wrapped_format",
    type=click.Choice(["cryptoapi-simple", "cms", "volume-key"]),
    help="Of keys that do not say it: another program wrapped them for the authority, as for `escrow`.",
)
@click.option("--padding", type=click.Choice(["pkcs1", "oaep"]), help="Of wrapped keys, as for `escrow`.")
@click.option("--transport-key", metavar="KID", help="For which they were wrapped, as for `escrow`.")
@click.option("--algorithm", default="", help="Of keys that do not say it.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Added to each key. May be repeated.")
@home_option
@passphrase_option
@wait_option(120.0)
@output_option
def import_(
    *,
    source: Path | None,
    transfer: Path | None,
    from_root_key: Path | None,
    dry_run: bool,
    report: Path | None,
    kind: str,
    wrapped_format: str | None,
    padding: str | None,
    transport_key: str | None,
    algorithm: str,
    labels: tuple[str, ...],
    home: Path,
    passphrase: Secret | None,
    wait_seconds: float,
    output: Output,
) -> None:
    """Escrow existing keys as this host's: a folder of files, or a CSV file; any number, in constant memory.

    SOURCE, a folder: each regular file is a key, its path from there on its name. Links are not followed; hidden
    and special files are refused. A CSV file (RFC 4180, UTF-8) has a header row with `name` and one or more of
    `file` (a path below the CSV file's folder), `base64`, `hex` and `text`, of which each row fills one; also
    `kind`, `description`, `serial_number`, `algorithm`, `format`, `padding`, and `label:NAME` columns. Names are
    distinct, 1 to 128 characters; keys 1 to 65,536 bytes.

    It may be cut off at any moment: the same command goes on, and every key is stored once. A row that was imported
    from this source before is passed over; one that has changed is a new record of its name. For that this home
    keeps a keyed digest of each key: whoever reads the home could try guesses of a weak one.

    With -o json up to 1,000 refusals are listed; --report writes all of them, one at a time.

    Exit code 0: all stored. 1: some were refused, and the rest is stored. 75: some are still in the spool; give the
    same command again.

    Example: `strongroom import keys.csv --kind disk-key --report refused.csv`
    """
    told = {"kind": kind, "format": wrapped_format, "padding": padding, "transport-key": transport_key}
    given = [name for name, value in {**told, "algorithm": algorithm, "label": labels}.items() if value]
    if (source is None) == (transfer is None):
        raise UsageError("give either SOURCE or --transfer FILE", hint=_EITHER)
    if transfer is None and from_root_key is not None:
        raise UsageError("--from-root-key goes with --transfer")
    if transfer is not None and given:
        raise UsageError(f"--{given[0]}: goes with SOURCE; what is transferred says all of itself")
    check_key_id("--transport-key", transport_key)
    from strongroom.crypto.rsa import Padding
    from strongroom.messages import WrappedFormat
    from strongroom.settings import read_root_key
    from strongroom_agent.import_entries import Defaults
    from strongroom_agent.import_sources import source_of
    from strongroom_agent.receiving import Receiver

    defaults = Defaults(
        kind=kind,
        algorithm=algorithm,
        labels=labels_of(labels),
        format=None if wrapped_format is None else WrappedFormat(wrapped_format),
        padding=None if padding is None else Padding(padding),
        transport_key=transport_key,
    )
    root_key = None if from_root_key is None else read_root_key(from_root_key)
    with (
        Receiver.open(home, passphrase=passphrase) as agent,
        _refusals(report) as refused,
        progress("Importing") as show,
        _going_on(dry_run=dry_run),
    ):
        if transfer is not None:
            work = partial(agent.take_in, transfer, root_key=root_key)
        else:
            work = partial(agent.import_keys, source_of(source or Path(), defaults))
        watch = _watch(show)
        done = run(work(dry_run=dry_run, refuse=refused.take, watch=watch, wait_seconds=wait_seconds))
    unvouched = transfer is not None and root_key is None
    _tell(done, refused, output, dry_run=dry_run, unvouched=unvouched)
    sys.exit(done.exit_code)


@contextmanager
def _going_on(*, dry_run: bool) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if not dry_run:
            sys.stderr.write("\nthe same command goes on from here\n")
        raise


class _Refusals:
    """Writes every refusal to the report, if there is one, and keeps the first 1,000."""

    def __init__(self, path: Path | None, stream: TextIO | None) -> None:
        self.first: list[RefusedEntry] = []
        self.path = path
        self._stream = stream
        self._writer = csv.writer(stream) if stream is not None and path and path.suffix == ".csv" else None
        if self._writer is not None:
            self._writer.writerow(_FIELDS)

    def take(self, refusal: "RefusedEntry") -> None:
        """Note one."""
        if len(self.first) < _LISTED:
            self.first.append(refusal)
        if self._writer is not None:
            self._writer.writerow([getattr(refusal, name) for name in _FIELDS])
        elif self._stream is not None:
            self._stream.write(json.dumps(asdict(refusal), ensure_ascii=False) + "\n")


@contextmanager
def _refusals(path: Path | None) -> Iterator[_Refusals]:
    if path is None:
        yield _Refusals(None, None)
        return
    try:
        # Written as it goes, so that it is there however the import ends.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UsageError(f"--report: {error.strerror}: {path}") from None
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="", buffering=1) as stream:
        yield _Refusals(path, stream)


def _watch(show: "Callable[[str], None]") -> "Callable[[Progress], None]":
    def watch(now: "Progress") -> None:
        left = now.seconds_left
        rest = "" if left is None else f", {lasting(round(left))} left"
        show(f"Importing: {now.entries:,} looked at, {now.rate:,.0f} a second{rest}")

    return watch


def _tell(done: "Imported", refused: _Refusals, output: Output, *, dry_run: bool, unvouched: bool) -> None:
    if output.json:
        content = {name: getattr(done, name) for name in _COUNTS}
        error = None if done.error is None else {"code": done.error.code, "message": done.error.message}
        refusals = [asdict(each) for each in refused.first]
        document = {"dry_run": dry_run, **content, "codes": done.codes, "refusals": refusals, "error": error}
        output.document("import", document)
    else:
        verb = "would be imported" if dry_run else "imported"
        output.line(
            f"{verb}: {done.fresh:,} of {done.entries:,} that were looked at; {done.unchanged:,} were before"
        )
        if not dry_run:
            output.line(f"  stored      {done.stored:,}, each with a verified receipt")
        if done.spooled:
            output.line(f"  spooled     {done.spooled:,}: give the same command again, or `strongroom sync`")
        if done.rejected:
            output.line(f"  rejected    {done.rejected:,} by the authority: `strongroom status` says why")
        if done.refused:
            codes = ", ".join(f"{code} {count:,}" for code, count in sorted(done.codes.items()))
            output.line(f"  refused     {done.refused:,}: {codes}")
        if unvouched:
            output.line("  not shown   that these keys came from the authority named: --from-root-key would")
    if done.refused and not output.json:
        _tell_refusals(done, refused, dry_run=dry_run)
    if done.error is not None and not output.json:
        click.echo(f"  {done.error.message}", err=True)
        if (hint := hint_for(done.error)) is not None:
            click.echo(f"  next: {hint}", err=True)


def _tell_refusals(done: "Imported", refused: _Refusals, *, dry_run: bool) -> None:
    if refused.path is None:
        for each in refused.first[:_SHOWN]:
            click.echo(
                f"  {each.row}: {legible(each.name) or '-'}: {legible(each.message)} [{each.code}]", err=True
            )
        if (more := done.refused - _SHOWN) > 0:
            click.echo(f"  and {more:,} more; --report FILE names them all", err=True)
    then = "try it again" if dry_run else "give the same command again: what is in escrow is passed over"
    click.echo(f"  next: put right what was refused{_where(refused)}, and {then}", err=True)


def _where(refused: _Refusals) -> str:
    return "" if refused.path is None else f" ({refused.path} says why)"
