"""Commands of an authority whose sealing keys change: reseal, retire-key, and the counts that `show` prints."""

import asyncio
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rich_click as click

from strongroom.errors import ConfigurationInvalid, ExitCode, LogForked, RosterInvalid, StateCorrupt
from strongroom_cli.options import output_option
from strongroom_cli.output import Output, carry_out, lasting, legible, run, when

if TYPE_CHECKING:
    from strongroom.roster import Roster
    from strongroom_recovery.reseal.counting import KeyCount
    from strongroom_recovery.reseal.planning import Progress
    from strongroom_recovery.reseal.retiring import Retirement
    from strongroom_recovery.settings import ProverSettings

_LINE_SECONDS: Final = 10.0
_SHOWN_TROUBLES_MAX: Final = 20
_SHOWN_UNPROVABLE_MAX: Final = 20
_KID_DIGITS: Final = 32
_FINDING: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|leaf:(0|[1-9][0-9]{0,14})")


@click.command("reseal")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="RECORDS_PER_SECOND",
    help="Go no faster than this, so that others have the database and the processor, too.",
)
@click.option("--again", is_flag=True, help="Also try again what an earlier run had to leave.")
@output_option
def reseal(*, rate: float | None, again: bool, output: Output) -> None:
    """Seal every record again, to the first active sealing key of the roster in force.

    It runs on the host of the recovery worker, with the settings of the prover (see deploy/README.md), while
    workers and prover go on; several may run at once. Signed statements stay as they are. Every step is committed
    with its entry in the recovery log: interrupted, be it by kill -9, it goes on where it was when it is run again.

    Exit code 1 while any record is left that does not open, or when it was interrupted.

    Example: `(set -a; . prover.env; strongroom authority reseal --rate 500)`
    """
    from strongroom_recovery.reseal.wiring import reseal as seal_again

    settings = _settings("reseal")

    async def until_stopped(told: "Callable[[Progress], None]") -> "tuple[Progress, bool]":
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        return await seal_again(settings, stop, again=again, rate=rate, told=told)

    began = time.monotonic()
    with _display() as told:
        progress, is_done = run(until_stopped(told))
    seconds = time.monotonic() - began
    is_well = is_done and not progress.left
    if output.json:
        output.document("reseal", _document(progress, seconds, is_done=is_done))
    else:
        _show(progress, seconds, output, is_done=is_done)
    sys.exit(ExitCode.DONE if is_well else ExitCode.FAILED)


def _settings(command: str) -> "ProverSettings":
    """Read the prover's settings, for this command; from here on this process holds sealing keys."""
    from strongroom import logs
    from strongroom.hardening import harden_process
    from strongroom_recovery.settings import ProverSettings

    try:
        settings = ProverSettings.load()
    except ConfigurationInvalid as error:
        if error.hint is None or not error.hint.endswith("in the environment"):
            raise
        with_settings = f"`(set -a; . prover.env; strongroom authority {command})`"
        raise ConfigurationInvalid(error.message, hint=f"with the prover's settings: {with_settings}") from None
    harden_process()
    logs.configure(settings.log_format, service="reseal")
    return settings


def _document(progress: "Progress", seconds: float, *, is_done: bool) -> dict[str, object]:
    return {
        "done": is_done,
        "kid": progress.kid or None,
        "records": progress.records,
        "left": progress.left if is_done else None,
        "leaves": progress.leaves,
        "seconds": round(seconds, 3),
        "troubles": [
            {
                "index": each.index,
                "record": each.record,
                "principal": each.principal,
                "code": each.code,
                "reason": each.reason,
            }
            for each in progress.troubles
        ],
    }


def _show(progress: "Progress", seconds: float, output: Output, *, is_done: bool) -> None:
    to = f" to {progress.kid}" if progress.kid else ""
    rate = f", {progress.records / max(seconds, 1e-9):,.0f} records/s" if progress.records else ""
    output.line(f"{progress.records:,} records were sealed again{to}, in {lasting(round(seconds))}{rate}")
    if progress.troubles:
        rows = [
            [legible(each.record or f"all of leaf {each.index}"), legible(each.principal or "-"), each.code]
            for each in progress.troubles[:_SHOWN_TROUBLES_MAX]
        ]
        output.table(["record", "principal", "code"], rows)
        if (more := len(progress.troubles) - _SHOWN_TROUBLES_MAX) > 0:
            output.line(f"and {more:,} more or more: -o json lists up to 1,000, with the reasons")
    if not is_done:
        output.line("it was interrupted: run it again, and it goes on where it was")
    elif progress.left:
        output.line(f"{progress.left:,} records were left as they are, because they do not open")
        output.line("  next: see to what the prover says of them; then `strongroom authority reseal --again`")
    else:
        output.line("nothing is left to be sealed again")
        output.line("  next: when the prover has looked at them, close the old key and retire it:")
        output.line("        `strongroom authority retire-key KID` says how far that is")


@contextmanager
def _display() -> "Iterator[Callable[[Progress], None]]":
    """Give what shows progress on standard error: a bar where a person is looking, else a line now and then."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Beginning", total=None)

        def told(progress: "Progress") -> None:
            bar.update(task, description=_pace(progress), completed=progress.leaves, total=progress.total)

        yield told


def _lines() -> "Callable[[Progress], None]":
    shown_at = time.monotonic()

    def told(progress: "Progress") -> None:
        nonlocal shown_at
        now = time.monotonic()
        if now - shown_at >= _LINE_SECONDS or progress.leaves >= progress.total:
            shown_at = now
            leaves = f"{progress.leaves:,} of {progress.total:,} statements"
            click.echo(f"sealing again: {leaves}, {_pace(progress)}", err=True)

    return told


def _pace(progress: "Progress") -> str:
    now = time.monotonic()
    left = progress.seconds_left(now)
    ends = "" if left is None else f", {lasting(round(left))} left"
    trouble = f", {len(progress.troubles)} do not open" if progress.troubles else ""
    return f"{progress.rate(now):,.0f} records/s{ends}{trouble}"


# ---- retiring --------------------------------------------------------------------------------------------------


@click.command("retire-key")
@click.argument("kid")
@click.option(
    "--give-up",
    multiple=True,
    metavar="RECORD",
    help="An unprovable record that shall not keep the key; all of them have to be named. Repeatable.",
)
@output_option
def retire_key(*, kid: str, give_up: tuple[str, ...], output: Output) -> None:
    """Retire a sealing key that no record needs any more, and put its key file aside.

    It runs where `reseal` does, with the prover's settings. The recovery log decides, not the database's rows: the
    roster in force says that the key is closed, or does not name it, and the prover has looked at every record
    since it was sealed again, and opened none by this key. The key file is moved into `retired`, never deleted.

    A record that is unprovable keeps every key, for perhaps that key alone opens it. What can never open, garbage
    of a broken host, say, is given up by name: its id, or `leaf:N` for a whole statement. How many were is put on
    record. Before that every blob of it is tried with the key, and one that opens keeps the key.

    Exit code 6 while only looks of the prover are missing, 1 while records need the key or are unprovable.

    Example: `(set -a; . prover.env; strongroom authority retire-key 3f0c9a52d1e84b7796a0c5d2e8f41b63)`
    """
    from strongroom_recovery.reseal.retiring import put_aside, retire
    from strongroom_recovery.reseal.wiring import means_of

    if len(kid) != _KID_DIGITS or set(kid) - set("0123456789abcdef"):
        raise click.UsageError(f"{kid[:80]!r} is no id of a sealing key: {_KID_DIGITS} hex digits")
    slip = next((each for each in give_up if not _FINDING.fullmatch(each)), None)
    if slip is not None:
        raise click.UsageError(f"--give-up {slip[:80]!r}: neither the id of a record nor leaf:N")
    settings = _settings(f"retire-key {kid}")

    async def retired() -> "Retirement":
        async with means_of(settings) as (means, keys):
            return await retire(means, keys, kid, give_up=give_up)

    done = carry_out("Judging", retired())
    path = None
    if done.is_retired and settings.sealing_keys_dir is not None:
        path = put_aside(settings.sealing_keys_dir, kid)
    if output.json:
        output.document("retirement", _retirement(done, path))
    else:
        _say(done, path, output)
    sys.exit(_exit_code(done))


def _exit_code(done: "Retirement") -> ExitCode:
    if done.is_retired:
        return ExitCode.DONE
    return ExitCode.NOT_PROVEN if done.awaits_proof else ExitCode.FAILED


def _retirement(done: "Retirement", path: Path | None) -> dict[str, object]:
    return {
        **done.verdict.document(),
        "unprovable_records": [
            {
                "index": each.index,
                "record": each.record,
                "principal": done.principals.get(each.index),
                "code": each.code,
            }
            for each in done.verdict.unprovable
        ],
        "retired": done.is_retired,
        "before": done.before,
        "needed": done.needed,
        "unseen": done.unseen,
        "key_file": str(path) if path else None,
    }


def _say(done: "Retirement", path: Path | None, output: Output) -> None:
    verdict = done.verdict
    if done.is_retired:
        since = f" since {when(done.before)}" if done.before is not None else ""
        which = "no record that opens" if verdict.given_up else "no record"
        output.line(f"sealing key {verdict.kid} is retired{since}: {which} needs it")
        if verdict.given_up and done.before is None:
            output.line(f"  {verdict.given_up:,} unprovable records were given up, which is on record")
        if path is not None:
            output.line(f"  its key file is now {path}")
        else:
            output.line("  it has no key file here: if it is on a token, take it off there when you are sure")
        if verdict.state is None:
            output.line("  next: start the recovery worker and the prover again, so that they forget it;")
        else:
            output.line("  next: start the recovery worker and the prover again, so that they forget it; then")
            output.line(f"        `strongroom authority sign-roster FOLDER --remove-key {verdict.kid}`;")
        output.line("        destroy it when a drill has passed without it: older backups of the database need it")
        return
    output.line(f"sealing key {verdict.kid} cannot be retired yet:")
    for words in _obstacles(done):
        output.line(f"  {words}")
    if not verdict.unprovable:
        return
    from strongroom_recovery.reseal.retirement import name_of

    output.line("unprovable:")
    rows = [
        [legible(name_of(each)), legible(done.principals.get(each.index, "-")), each.code]
        for each in verdict.unprovable[:_SHOWN_UNPROVABLE_MAX]
    ]
    output.table(["record", "principal", "code"], rows)
    if (more := len(verdict.unprovable) - _SHOWN_UNPROVABLE_MAX) > 0:
        output.line(f"and {more:,} more: -o json lists all of them")


def _obstacles(done: "Retirement") -> Iterator[str]:
    from strongroom.mandates import SealingKeyState

    verdict = done.verdict
    if verdict.is_in_use and verdict.state is not None:
        yield f"the roster in force calls it {verdict.state.value}: blobs sealed to it are still taken"
        if verdict.state is SealingKeyState.ACTIVE:
            yield "  next: another key takes over first: `strongroom authority add-key`, and"
            yield "        `strongroom authority sign-roster FOLDER --add-key CARD --activate NEW`; then"
            yield f"        `strongroom authority sign-roster FOLDER --close {verdict.kid}`"
        else:
            yield f"  next: `strongroom authority sign-roster FOLDER --close {verdict.kid}`; if that is in"
            yield "        place already, the recovery worker puts it in force within half a minute: ask again"
    if done.needed:
        yield f"{done.needed:,} records need it: their newest blob is sealed to it"
        yield "  next: `strongroom authority reseal`"
    if verdict.unprovable:
        beside = f", beside the {verdict.given_up:,} that were named" if verdict.given_up else ""
        yield f"{len(verdict.unprovable):,} records are unprovable{beside}: perhaps this key alone opens them"
        yield "  next: see why the prover says so; let hosts that still have the keys escrow them anew;"
        yield "        what can never open keeps it until it is given up: `--give-up RECORD` for every one of them"
    if verdict.unseen:
        leaves = f"in {verdict.unseen_leaves:,} statements"
        yield f"{done.unseen:,} records, {leaves}, were not looked at since they were escrowed or sealed again"
        yield "  next: let the prover go on (`strongroom worker prover`), and ask again"


# ---- counts ----------------------------------------------------------------------------------------------------


def key_counts(roster: "Roster", root_key: bytes) -> "list[KeyCount]":
    """Count records by sealing key in the database of STRONGROOM_DATABASE_URL.

    Raises ConfigurationInvalid without such a setting, and as `counting.count`; what is wrong with its logs may be
    that they are another authority's, which is said first.
    """
    from strongroom.database import connect
    from strongroom_cli.settings import DatabaseSettings
    from strongroom_recovery.drill.sample import COMMAND_SECONDS_MAX
    from strongroom_recovery.reseal.counting import count

    url = DatabaseSettings.load().database_url.get_secret_value()

    async def counted() -> "list[KeyCount]":
        async with connect(url, command_timeout_seconds=COMMAND_SECONDS_MAX) as database:
            await database.check_schema()
            return await count(database, root_key, roster)

    try:
        return carry_out("Counting", counted())
    except (LogForked, RosterInvalid, StateCorrupt) as error:
        raise type(error)(
            f"this may be another authority's database, and not that of {roster.body.authority}: {error.message}",
            hint="compare STRONGROOM_DATABASE_URL with the setting of this authority's workers"
            + (f"; if it is theirs, {error.hint}" if error.hint else ""),
        ) from None


def show_counts(counts: "list[KeyCount]", output: Output) -> None:
    """Print records by sealing key, for people."""
    rows = [
        [
            each.kid,
            each.suite or "-",
            "retired" if each.retired_at is not None else each.state or "not in the roster",
            f"{each.records:,}",
            f"{each.proven:,}",
        ]
        for each in counts
    ]
    output.table(["id", "suite", "state", "records", "proven"], rows)
