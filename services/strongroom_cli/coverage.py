"""`strongroom coverage`: which keys of the fleet are proven, and where they are missing."""

import csv
import io
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode, UsageError
from strongroom_cli.coverage_page import STATES, Bounds, render, share
from strongroom_cli.options import home_option, output_option, passphrase_option, wait_option
from strongroom_cli.output import Output, legible, progress, run, when

if TYPE_CHECKING:
    from strongroom.audits import Coverage, Gap
    from strongroom_agent.coverage import FleetCoverage

READ_SECONDS: Final = 600.0
TABLE_ROWS_MAX: Final = 40
PAGE_ROWS_MAX: Final = 2_000

_CSV_COLUMNS: Final = ("principal", "state", "name", "record", "since", "code")
_FORMULA: Final = ("=", "+", "-", "@")  # a spreadsheet takes a cell that begins like this for one


class Gathered:
    """The gaps of the states that are asked for, as the pages come: so many of each to show, or all of them.

    kept: by state, in the order of names. counts: how many were listed, kept or not.
    """

    def __init__(self, states: Sequence[str], keep_max: int | None) -> None:
        """Take gaps of these states; keep the first `keep_max` of each, or all."""
        self._keep_max = keep_max
        self.kept: dict[str, list[Gap]] = {state: [] for state in STATES if state in states}
        self.counts: Counter[str] = Counter()

    def take(self, gap: "Gap") -> bool:
        """Take a gap, if it is asked for."""
        kept = self.kept.get(gap.state.value)
        if kept is None:
            return False
        self.counts[gap.state.value] += 1
        if self._keep_max is None or len(kept) < self._keep_max:
            kept.append(gap)
        return True

    def first(self, count_max: int) -> "list[Gap]":
        """Return the first gaps, the worst states before the others."""
        return [gap for kept in self.kept.values() for gap in kept][:count_max]


@click.command()
@click.option(
    "--silent-days",
    type=click.IntRange(1, 3650),
    default=30,
    show_default=True,
    metavar="DAYS",
    help="After how many days without enrolment, escrow or attestation a principal counts as silent.",
)
@click.option(
    "--max-missing",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Exit with 1 when more than N keys are missing, unprovable, stale or overdue, taken together. Keys that"
    " are not yet proven or disclosed and not overdue, and silent principals, do not count.",
)
@click.option(
    "--state",
    "states",
    type=click.Choice(list(STATES)),
    multiple=True,
    help="List gaps of this state only; repeatable. The figures are always of all.",
)
@click.option(
    "--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the gaps here, too."
)
@click.option(
    "--html", "html_file", type=click.Path(dir_okay=False, path_type=Path), help="Write a page to show here, too."
)
@home_option
@passphrase_option
@wait_option(READ_SECONDS)
@output_option
def coverage(
    *,
    silent_days: int,
    max_missing: int,
    states: tuple[str, ...],
    csv_file: Path | None,
    html_file: Path | None,
    home: Path,
    passphrase: Secret | None,
    wait_seconds: float,
    output: Output,
) -> None:
    """Show how well the fleet is covered: which keys are proven, and every gap; for officers who audit or recover.

    What is expected of whom stands in the roster's policy (`authority sign-roster --expect`). The table names the
    first gaps, the worst before the others; `-o json` and --csv name all. In the CSV a name that a spreadsheet
    would take for a formula begins with an apostrophe. Exit code 0, or 1 when the gap exceeds --max-missing.

    Example: `strongroom coverage --silent-days 14 --html coverage.html`
    """
    from strongroom_agent.agent import Agent

    if csv_file is not None and csv_file == html_file:
        raise UsageError("--csv and --html name the same file")
    gathered = Gathered(states or list(STATES), None if output.json else PAGE_ROWS_MAX)
    with ExitStack() as stack:
        # Opened before anything is asked: what cannot be written is said at once.
        html = stack.enter_context(_written("--html", html_file)) if html_file else None
        rows = stack.enter_context(_written("--csv", csv_file)) if csv_file else None
        write = _csv_writer(rows) if rows else None
        show = stack.enter_context(progress("Reading the coverage"))
        with Agent.open(home, passphrase=passphrase) as agent:
            take = _taker(gathered, write, show)
            found = run(agent.coverage(silent_days=silent_days, take=take, wait_seconds=wait_seconds))
        is_well = found.failing <= max_missing
        if html is not None:
            bounds = Bounds(silent_days=silent_days, max_missing=max_missing)
            html.write(render(found, bounds, gathered.first(PAGE_ROWS_MAX), gathered.counts))
    if output.json:
        output.document("coverage", _document(found, gathered, silent_days, max_missing))
    else:
        _show(found, gathered, output, silent_days=silent_days, max_missing=max_missing)
    sys.exit(ExitCode.DONE if is_well else ExitCode.FAILED)


def _taker(
    gathered: Gathered, write: "Callable[[Gap], None] | None", show: Callable[[str], None]
) -> "Callable[[Coverage], None]":
    count = 0

    def take(page: "Coverage") -> None:
        nonlocal count
        count += page.counts.principals
        for gap in page.gaps:
            if gathered.take(gap) and write is not None:
                write(gap)
        show(f"Reading the coverage: {count:,} principals")

    return take


# ---- files ----


@contextmanager
def _written(option: str, path: Path) -> Iterator[io.TextIOWrapper]:
    """Give a text file that takes its place when all is well, mode 0600: it tells where keys are missing."""
    from strongroom import private_file

    try:
        with private_file.replacing(path) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
            yield text
            text.flush()
            text.detach()
    except OSError as error:
        raise UsageError(f"{option}: {path}: {error.strerror or 'cannot be written'}") from None


def _csv_writer(stream: io.TextIOWrapper) -> "Callable[[Gap], None]":
    writer = csv.writer(stream)
    writer.writerow(_CSV_COLUMNS)

    def write(gap: "Gap") -> None:
        cells = (gap.principal, gap.state.value, gap.name, gap.record, _iso(gap.since), gap.code)
        writer.writerow([_cell(each) for each in cells])

    return write


def _cell(text: str | None) -> str:
    # Other people's words, and characters that no terminal and no spreadsheet shows, are both in names.
    shown = legible(text or "")
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _iso(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# ---- what is said ----


def _document(found: "FleetCoverage", gathered: Gathered, silent_days: int, max_missing: int) -> dict[str, Any]:
    return {
        "ok": found.failing <= max_missing,
        "authority": found.authority,
        "roster_version": found.roster_version,
        "as_of": found.as_of,
        "silent_days": silent_days,
        "counts": found.counts.model_dump(),
        "covered": found.covered,
        "gap": found.failing,
        "max_missing": max_missing,
        "proving": found.proving.model_dump(),
        "unlisted": found.unlisted,
        "gaps": [gap.model_dump(mode="json") for gap in gathered.first(sys.maxsize)],
    }


def _show(
    found: "FleetCoverage", gathered: Gathered, output: Output, *, silent_days: int, max_missing: int
) -> None:
    counts = found.counts.model_dump()
    principals = found.counts.principals
    output.line(f"authority {found.authority}, roster version {found.roster_version}, {when(found.as_of)}")
    output.line(
        f"  principals  {principals:,}, covered {found.covered:,} ({share(found.covered, principals)}),"
        f" silent for {silent_days} days {found.counts.silent:,}"
    )
    proven, records = found.counts.proven, found.records
    output.line(f"  keys        {records:,}, proven {proven:,} ({share(proven, records)})")
    for state, meaning in STATES.items():
        if state != "silent" and counts[state]:
            output.line(f"  {state:<11} {counts[state]:,}: {meaning}")
    output.line(f"  prover      {_prover(found)}")
    output.line(f"  gap         {found.failing:,} missing, unprovable, stale or overdue; accepted {max_missing:,}")
    shown = gathered.first(TABLE_ROWS_MAX)
    if shown:
        output.line("")
        output.table(("principal", "state", "name", "record", "since", "code"), [_row(gap) for gap in shown])
    rest = sum(gathered.counts.values()) - len(shown)
    if rest:
        output.line(f"… and {rest:,} more: -o json or --csv FILE names all")
    if found.unlisted:
        output.line(f"{found.unlisted:,} more are counted of principals with more gaps than fit: see `records`")


def _prover(found: "FleetCoverage") -> str:
    proving = found.proving
    backlog = f"{proving.backlog:,} of {proving.size:,} statements never looked at"
    return f"{backlog}; oldest look {when(proving.oldest_at)}"


def _row(gap: "Gap") -> tuple[str, ...]:
    name = "-" if gap.name is None else legible(gap.name)
    return gap.principal, gap.state.value, name, gap.record or "-", when(gap.since), gap.code or "-"
