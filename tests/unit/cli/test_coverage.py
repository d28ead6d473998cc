"""`strongroom coverage` as people and programs meet it, against an authority in memory."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.support.agents import NOW, Clock, officer_home
from tests.support.coverage import Fleet, gap

from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode
from strongroom.testing import FakeAuthority
from strongroom_agent.agent import Agent
from strongroom_agent.home import Home
from strongroom_cli import coverage
from strongroom_cli.app import cli

Run = Callable[..., Result]
HOSTILE = "=cmd|' /C calc'!A0,\"\u202etxt<script>"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(clock: Clock) -> FakeAuthority:
    return FakeAuthority(clock=clock)


@pytest.fixture
def alice(authority: FakeAuthority, tmp_path: Path) -> Home:
    """The home of an officer with every role."""
    return officer_home(authority, tmp_path / "alice")


@pytest.fixture
def fleet(authority: FakeAuthority) -> Fleet:
    """Five hosts with a gap of most kinds."""
    made = Fleet(authority, at_once=2)
    made.gaps["host-1"] = []
    made.add(gap("host-2", "missing"), gap("host-3", "unprovable", code="blob_invalid"))
    made.add(gap("host-4", "stored"), gap("host-4", "silent", None), gap("host-5", "disclosed", HOSTILE))
    authority.alter = made.answer
    return made


@pytest.fixture
def run(authority: FakeAuthority, alice: Home, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `coverage` as alice; it reaches the authority in memory and goes by its clock."""
    open_home = Agent.open

    def opened(path: Path, *, passphrase: Secret | None = None) -> Agent:
        return open_home(path, passphrase=passphrase, connector=authority.connect, clock=clock)

    monkeypatch.setattr(Agent, "open", opened)

    def command(*words: str, code: int = ExitCode.DONE) -> Result:
        result = CliRunner().invoke(cli, ["coverage", *words, "--home", str(alice.path)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        return result

    return command


def document(result: Result) -> dict[str, Any]:
    """Return the one JSON document on standard output."""
    return dict(json.loads(result.stdout))


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


# ---- what is said ----


def test_the_table_says_the_figures_and_the_gaps_the_worst_first(run: Run, fleet: Fleet) -> None:
    """Figures of all, one line a gap."""
    told = run(code=ExitCode.FAILED).stdout
    for words in (
        "authority vault.example, roster version 2, 2027-01-15 08:00:00Z\n",
        "  principals  5, covered 1 (20.0 %), silent for 30 days 1\n",
        "  keys        8, proven 5 (62.5 %)\n",
        "  missing     1: expected, and was never escrowed\n",
        "  prover      2 of 12 statements never looked at; oldest look 2027-01-15 07:50:00Z\n",
        "  gap         2 missing, unprovable, stale or overdue; accepted 0\n",
    ):
        assert words in told
    shown = [line.split()[:2] for line in told.splitlines() if line.startswith("host-")]
    assert shown == [
        ["host-3", "unprovable"],
        ["host-2", "missing"],
        ["host-5", "disclosed"],
        ["host-4", "stored"],
        ["host-4", "silent"],
    ]
    assert str(fleet.gaps["host-3"][0].record) in told
    assert "\u202e" not in told
    assert "stale  " not in told


def test_a_long_list_is_cut_and_says_so(run: Run, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many more there are, and how to see them."""
    monkeypatch.setattr(coverage, "TABLE_ROWS_MAX", 2)
    told = run(code=ExitCode.FAILED).stdout
    assert sum(line.startswith("host-") for line in told.splitlines()) == 2
    assert "… and 3 more: -o json or --csv FILE names all\n" in told
    assert fleet.asked


def test_gaps_that_no_page_had_room_for_are_told(run: Run, fleet: Fleet) -> None:
    """The figures count them."""
    fleet.at_once = 1
    fleet.changes = lambda page: (
        {"counts": page.counts.model_copy(update={"missing": 8})} if page.next == "host-2" else {}
    )
    assert "7 more are counted" in run(code=ExitCode.FAILED).stdout
    assert document(run("-o", "json", code=ExitCode.FAILED))["unlisted"] == 7


def test_the_document_names_everything(run: Run, fleet: Fleet) -> None:
    """Stable members, every gap with every member, times in seconds."""
    found = document(run("-o", "json", "--silent-days", "9", "--max-missing", "2"))
    assert found == {
        "schema": 1,
        "kind": "coverage",
        "ok": True,
        "authority": "vault.example",
        "roster_version": 2,
        "as_of": NOW,
        "silent_days": 9,
        "counts": {
            "principals": 5,
            "silent": 1,
            "missing": 1,
            "stored": 1,
            "proven": 5,
            "unprovable": 1,
            "stale": 0,
            "disclosed": 1,
            "overdue": 0,
        },
        "covered": 1,
        "gap": 2,
        "max_missing": 2,
        "proving": {"size": 12, "backlog": 2, "oldest_at": NOW - 600},
        "unlisted": 0,
        "gaps": [fleet.gaps[f"host-{number}"][at].model_dump(mode="json") for number, at in WORST_FIRST],
    }
    assert {each.silent_days for each in fleet.asked} == {9}


WORST_FIRST = [(3, 0), (2, 0), (5, 0), (4, 0), (4, 1)]


@pytest.mark.parametrize("state", ["missing", "unprovable", "stale", "overdue"])
def test_the_gap_is_what_is_missing_unprovable_stale_or_overdue(run: Run, fleet: Fleet, state: str) -> None:
    """One more than is accepted fails."""
    fleet.gaps = {}
    fleet.add(gap("host-1", state, "a"), gap("host-1", state, "b"))
    assert document(run("-o", "json", code=ExitCode.FAILED))["gap"] == 2
    run("--max-missing", "1", code=ExitCode.FAILED)
    run("--max-missing", "2")


@pytest.mark.parametrize("state", ["disclosed", "stored", "silent"])
def test_what_is_under_way_is_no_gap_that_fails(run: Run, fleet: Fleet, state: str) -> None:
    """It is listed."""
    fleet.gaps = {}
    fleet.add(gap("host-1", state))
    found = document(run("-o", "json"))
    assert (found["ok"], found["gap"], len(found["gaps"])) == (True, 0, 1)


def test_states_can_be_chosen(run: Run, fleet: Fleet) -> None:
    """For what is listed; the figures and the exit code stay those of all."""
    words = ("--state", "silent", "--state", "missing")
    found = document(run("-o", "json", *words, code=ExitCode.FAILED))
    assert [each["state"] for each in found["gaps"]] == ["missing", "silent"]
    assert found["counts"]["unprovable"] == 1
    told = run(*words, code=ExitCode.FAILED).stdout
    assert [line.split()[0] for line in told.splitlines() if line.startswith("host-")] == ["host-2", "host-4"]
    assert "more" not in told
    assert fleet.asked
    assert "unprovable" in run("--state", "lost", code=ExitCode.USAGE).stderr


# ---- files ----


def test_the_csv_names_every_gap_and_holds_no_formula(run: Run, fleet: Fleet, tmp_path: Path) -> None:
    """In the order of principals; its owner alone may read it."""
    path = tmp_path / "gaps.csv"
    run("--csv", str(path), code=ExitCode.FAILED)
    head, *rows = rows_of(path)
    assert head == ["principal", "state", "name", "record", "since", "code"]
    assert [row[:2] for row in rows] == [
        ["host-2", "missing"],
        ["host-3", "unprovable"],
        ["host-4", "stored"],
        ["host-4", "silent"],
        ["host-5", "disclosed"],
    ]
    unprovable = fleet.gaps["host-3"][0]
    assert rows[1] == ["host-3", "unprovable", "disk", unprovable.record, "2027-01-15T07:59:00Z", "blob_invalid"]
    assert rows[3][2:4] == ["", ""]
    assert rows[4][2] == "'=cmd|' /C calc'!A0,\"\\u202etxt<script>"
    assert path.stat().st_mode & 0o777 == 0o600
    run("--csv", str(path), "--state", "missing", code=ExitCode.FAILED)
    assert len(rows_of(path)) == 2


def test_the_page_is_written_beside_what_is_printed(run: Run, fleet: Fleet, tmp_path: Path) -> None:
    """Who asked and when is on it; names are escaped."""
    path = tmp_path / "coverage.html"
    told = run("--html", str(path), "--csv", str(tmp_path / "gaps.csv"), code=ExitCode.FAILED).stdout
    page = path.read_text(encoding="utf-8")
    assert told.startswith("authority vault.example")
    assert "read and verified by alice" in page
    assert "<script>" not in page
    assert str(fleet.gaps["host-3"][0].record) in page
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_written_is_said_before_anything_is_asked(run: Run, fleet: Fleet, tmp_path: Path) -> None:
    """And names the option."""
    told = run("--html", str(tmp_path / "nowhere" / "x.html"), code=ExitCode.USAGE).stderr
    assert "--html" in told
    assert "No such file" in told
    same = str(tmp_path / "x")
    assert "name the same file" in run("--html", same, "--csv", same, code=ExitCode.USAGE).stderr
    assert fleet.asked == []


def test_files_stay_as_they_were_when_the_reading_fails(run: Run, fleet: Fleet, tmp_path: Path) -> None:
    """Half a list looks like a whole one."""
    files = [tmp_path / "gaps.csv", tmp_path / "coverage.html"]
    for path in files:
        path.write_text("former")
    fleet.changes = lambda page: {"request_digest": "0" * 64} if page.next is None else {}
    run("--csv", str(files[0]), "--html", str(files[1]), code=ExitCode.FAILED)
    assert [path.read_text() for path in files] == ["former", "former"]
    assert sorted(tmp_path.iterdir()) == sorted([*files, tmp_path / "alice"])


def test_errors_are_documents_too(run: Run, fleet: Fleet) -> None:
    """A coverage that cannot be believed is no coverage."""
    fleet.changes = lambda _page: {"request_digest": "0" * 64}
    told = run("-o", "json", code=ExitCode.FAILED)
    assert json.loads(told.stderr)["error"]["code"] == "reply_invalid"
    assert told.stdout == ""
