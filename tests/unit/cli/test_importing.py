"""import and export at the command: what is refused before anything is read, reports, and words."""

import asyncio
import csv
import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from strongroom.errors import ExitCode
from strongroom.testing import FakeAuthority
from strongroom_agent.enrolment import enrol
from strongroom_cli.app import cli

CANARY = "planted-canary-cell"
FLAWED = f"name,base64,kind\ngood,YWJj,\nbad,{CANARY},\ngood,YWJj,\n=cmd(),YWJj,{'k' * 65}\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of an enrolled host, in a folder with a table of which one row is a key."""
    authority = FakeAuthority()
    document = authority.invitation_file("laptop-0417")
    path = tmp_path / "home"
    asyncio.run(enrol(path, document, connector=authority.connect))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRONGROOM_HOME", str(path))
    (tmp_path / "keys.csv").write_text(FLAWED)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.mark.parametrize("name", ["report.csv", "report.jsonl"])
def test_a_report_names_every_refusal_and_no_value(home: Path, name: str) -> None:
    """As CSV or JSON lines, mode 0600, anew each time."""
    words = ("import", "keys.csv", "--dry-run", "--report", name, "-o", "json")
    run(*words)
    told = run(*words)
    assert told.exit_code == ExitCode.FAILED
    document = json.loads(told.stdout)
    assert (document["kind"], document["fresh"], document["refused"]) == ("import", 1, 3)
    assert document["codes"] == {"malformed": 2, "duplicate": 1}
    path = home.parent / name
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert CANARY not in text + told.output
    rows = (
        [*csv.DictReader(text.splitlines())] if name.endswith(".csv") else list(map(json.loads, text.splitlines()))
    )
    assert [(int(row["row"]), row["name"], row["code"]) for row in rows] == [
        (3, "bad", "malformed"),
        (4, "good", "duplicate"),
        (5, "=cmd()", "malformed"),
    ]


@pytest.mark.usefixtures("home")
def test_without_a_report_the_first_refusals_are_shown() -> None:
    """On standard error, by line and name; the value is not."""
    told = run("import", "keys.csv", "--dry-run")
    assert "would be imported: 1 of 4" in told.stdout
    assert "3: bad: base64: is not canonical base64 [malformed]" in told.stderr
    assert CANARY not in told.output


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "words",
    [
        ("import",),
        ("import", "keys.csv", "--transfer", "keys.csv"),
        ("import", "keys.csv", "--from-root-key", "keys.csv"),
        ("import", "--transfer", "keys.csv"),
        ("import", "--transfer", "keys.csv", "--label", "a=b"),
        ("import", "missing.csv"),
        ("import", "keys.csv", "--label", "a"),
        ("import", "keys.csv", "--transport-key", "x"),
        ("import", "keys.csv", "--report", "missing/report.csv"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(words: tuple[str, ...]) -> None:
    """Before anything is imported, and with a hint or the way to the help."""
    told = run(*words)
    assert told.exit_code == ExitCode.USAGE, told.output
    assert CANARY not in told.output


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    "choice",
    [(), ("--all", "--record", "x"), ("--record", "x"), ("--all", "--to-principal", "X")],
)
def test_an_export_says_whose_and_which(choice: tuple[str, ...]) -> None:
    """Exactly one of records and all; names and ids that can be some."""
    there = ("--to", "keys.csv", "--to-root-key", "keys.csv", "--to-principal", "other-host")
    told = run("export", "--principal", "laptop-0417", *there, "--reason", "x", "--out", "t", *choice)
    assert told.exit_code == ExitCode.USAGE, told.output


@pytest.mark.usefixtures("home")
def test_refusals_are_listed_in_the_document_and_followed_by_what_to_do() -> None:
    """A dry run stores nothing, and says nothing of receipts."""
    told = run("import", "keys.csv", "--dry-run")
    assert "verified receipt" not in told.output
    assert "next: put right what was refused, and try it again" in told.stderr
    document = json.loads(run("import", "keys.csv", "--dry-run", "-o", "json").stdout)
    assert [(each["row"], each["name"], each["code"]) for each in document["refusals"]] == [
        (3, "bad", "malformed"),
        (4, "good", "duplicate"),
        (5, "=cmd()", "malformed"),
    ]
    assert document["refusals"][0]["message"] == "base64: is not canonical base64"
    reported = run("import", "keys.csv", "--dry-run", "--report", "r.csv").stderr
    assert "next: put right what was refused (r.csv says why)" in reported


def test_a_thousand_refusals_are_listed_and_ten_are_shown(home: Path) -> None:
    """The rest is counted."""
    (home.parent / "many.csv").write_text("name,hex\n" + "".join(f"k{n},x\n" for n in range(1001)))
    document = json.loads(run("import", "many.csv", "--dry-run", "-o", "json").stdout)
    assert (document["refused"], len(document["refusals"])) == (1001, 1000)
    told = run("import", "many.csv", "--dry-run").stderr
    assert told.count("[malformed]") == 10
    assert "and 991 more; --report FILE names them all" in told


def test_a_mistyped_kind_is_refused_by_row_and_not_quoted(home: Path) -> None:
    """As for `escrow`; a cell may be anything."""
    (home.parent / "kinds.csv").write_text("name,text,kind\na,b,opensh\nc,d,disk-key\n")
    told = run("import", "kinds.csv", "--dry-run")
    assert "would be imported: 1 of 2" in told.stdout
    assert "2: a: kind: is nearly openssh" in told.stderr
    assert "opensh," not in told.output


def test_an_unknown_column_is_told_by_its_place_and_the_names_there_are(home: Path) -> None:
    """Never by its cell: without a header row that may be a key."""
    (home.parent / "header.csv").write_text(f"name,text,{CANARY}\na,b,c\n")
    told = run("import", "header.csv", "--dry-run")
    assert told.exit_code == ExitCode.USAGE
    assert "column 3" in told.stderr
    assert "serial_number" in told.stderr
    assert "label:NAME" in told.stderr
    assert CANARY not in told.output


def test_a_choice_of_two_is_followed_by_both() -> None:
    """Neither was given."""
    told = run("import").stderr
    assert "strongroom import keys.csv" in told
    assert "--transfer FILE" in told
