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
