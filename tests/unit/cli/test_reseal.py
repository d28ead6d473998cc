"""What people read while keys are sealed again, and when a key is retired or not yet."""

import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn

import pytest
from click.testing import CliRunner

from strongroom.errors import ExitCode, LogForked, RosterInvalid, StateCorrupt, StrongroomError
from strongroom.mandates import SealingKeyState
from strongroom.testing import FakeAuthority
from strongroom_cli import reseal
from strongroom_cli.app import cli
from strongroom_cli.output import Output
from strongroom_recovery.proofs import Finding
from strongroom_recovery.prover.proving import Trouble
from strongroom_recovery.reseal.counting import KeyCount
from strongroom_recovery.reseal.planning import Progress
from strongroom_recovery.reseal.retirement import Verdict
from strongroom_recovery.reseal.retiring import Retirement

KID = "3f0c9a52d1e84b7796a0c5d2e8f41b63"
RECORD = "01890a5d-ac96-774b-bcce-b302099a8057"
FINDINGS = [Finding(n, None if n else RECORD, "blob_invalid", 0, 9) for n in range(25)]
TABLE = Output(json=False)


def verdict(**changes: Any) -> Verdict:
    members: dict[str, Any] = {
        "kid": KID,
        "state": SealingKeyState.CLOSED,
        "size": 10,
        "opened": 0,
        "unprovable": [],
        "unseen": [],
        "new": 0,
    }
    return Verdict(**(members | changes))


def retirement(**changes: Any) -> Retirement:
    members: dict[str, Any] = {"verdict": verdict(), "is_retired": False, "before": None, "needed": 0, "unseen": 0}
    return Retirement(**(members | changes))


@pytest.mark.parametrize(
    ("done", "words", "code"),
    [
        (retirement(verdict=verdict(state=SealingKeyState.ACTIVE)), "calls it active", ExitCode.FAILED),
        (retirement(verdict=verdict(state=SealingKeyState.ACTIVE)), "--activate NEW", ExitCode.FAILED),
        (retirement(verdict=verdict(state=SealingKeyState.ACCEPTED)), "within half a minute", ExitCode.FAILED),
        (retirement(needed=1234), "1,234 records need it", ExitCode.FAILED),
        (retirement(verdict=verdict(unprovable=FINDINGS[:2])), "2 records are unprovable", ExitCode.FAILED),
        (
            retirement(verdict=verdict(unseen=[(0, 2000)]), unseen=3000),
            "3,000 records, in 2,000 statements, were not looked at",
            ExitCode.NOT_PROVEN,
        ),
        (retirement(verdict=verdict(unseen=[(0, 1)]), unseen=1, needed=1), "were not looked at", ExitCode.FAILED),
    ],
)
def test_each_obstacle_is_said_with_its_figure_and_what_to_do(
    done: Retirement, words: str, code: ExitCode, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the exit code tells what is missing: a look, or more."""
    reseal._say(done, None, TABLE)
    said = capsys.readouterr().out
    assert f"{KID} cannot be retired yet" in said
    assert words in said
    assert "next: " in said
    assert reseal._exit_code(done) == code


def test_what_keeps_a_key_is_named_with_its_owner_and_how_to_give_it_up(capsys: pytest.CaptureFixture[str]) -> None:
    """As many as there is room for, spelled as they are to be typed; whose they are may be anything at all."""
    done = retirement(verdict=verdict(unprovable=FINDINGS, given_up=3), principals={0: "host\x1b[2J"})
    reseal._say(done, None, TABLE)
    said = capsys.readouterr().out
    assert "25 records are unprovable, beside the 3 that were named" in said
    assert "`--give-up RECORD` for every one of them" in said
    rows = [line.split() for line in said.splitlines() if "blob_invalid" in line]
    assert (len(rows), rows[0][0], rows[1]) == (20, RECORD, ["leaf:1", "-", "blob_invalid"])
    assert "and 5 more: -o json lists all of them" in said
    assert "\x1b" not in said
    listed = reseal._retirement(done, None)["unprovable_records"]
    assert isinstance(listed, list)
    assert len(listed) == 25
    assert listed[1] == {"index": 1, "record": None, "principal": None, "code": "blob_invalid"}


def test_what_was_given_up_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """By the run that has done it."""
    reseal._say(retirement(verdict=verdict(given_up=2), is_retired=True), None, TABLE)
    assert "2 unprovable records were given up" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["x", "leaf:", "leaf:-1", "leaf:01", RECORD.upper(), RECORD + "0", ""])
def test_what_is_no_record_cannot_be_given_up(name: str) -> None:
    """Before anything is read."""
    result = CliRunner().invoke(cli, ["authority", "retire-key", KID, "--give-up", name])
    assert result.exit_code == ExitCode.USAGE
    assert "neither the id of a record nor leaf:N" in " ".join(result.output.replace("│", "").split())


@pytest.mark.parametrize("path", [Path("/keys/retired/x.key"), None])
def test_a_retired_key_is_said_to_be_so_and_where_its_file_is(
    path: Path | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a token it has none, which is said, too."""
    done = retirement(is_retired=True, before=0)
    reseal._say(done, path, TABLE)
    said = capsys.readouterr().out
    assert f"{KID} is retired since 1970-01-01 00:00:00Z" in said
    assert (str(path) if path else "on a token") in said
    assert reseal._exit_code(done) == ExitCode.DONE


def test_what_was_left_is_listed_as_far_as_there_is_room(capsys: pytest.CaptureFixture[str]) -> None:
    """Whose it is may be anything that the database holds."""
    troubles = [Trouble(n, None if n else "id", "host\x1b[2J", "blob_invalid", "why") for n in range(25)]
    progress = Progress(KID, began=0.0, leaves=30, total=30, records=10, left=25, troubles=troubles)
    reseal._show(progress, 2.0, TABLE, is_done=True)
    said = capsys.readouterr().out
    assert f"10 records were sealed again to {KID}, in 2 s, 5 records/s" in said
    assert "25 records were left as they are" in said
    assert "5 more or more" in said
    assert "\x1b" not in said


def test_an_interrupted_run_does_not_say_that_nothing_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    """It says that it goes on, and counts nothing that it does not know."""
    progress = Progress(KID, began=0.0, leaves=3, total=30, records=3)
    reseal._show(progress, 1.0, TABLE, is_done=False)
    said = capsys.readouterr().out
    assert "interrupted" in said
    assert "nothing is left" not in said
    assert reseal._document(progress, 1.0, is_done=False)["left"] is None


def test_progress_is_a_line_now_and_then_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    """And the last one always; on standard error."""
    with reseal._display() as told:
        told(Progress(KID, began=0.0, leaves=10, total=30, records=10))
        told(Progress(KID, began=0.0, leaves=30, total=30, records=30, troubles=[Trouble(0, None, None, "x", "y")]))
    said = capsys.readouterr()
    [line] = said.err.splitlines()
    assert line.startswith("sealing again: 30 of 30 statements, ")
    assert line.endswith(", 0 s left, 1 do not open")
    assert said.out == ""


def test_counts_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """A key that the roster does not name, or that is retired, is said to be so."""
    counts = [
        KeyCount(KID, "x-wing", "active", 1000, 900, None),
        KeyCount("0" * 32, None, None, 1, 0, None),
        KeyCount("1" * 32, "dhkem-p256", "closed", 0, 0, 5),
    ]
    reseal.show_counts(counts, TABLE)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        [KID, "x-wing", "active", "1,000", "900"],
        ["0" * 32, "-", "not", "in", "the", "roster", "1", "0"],
        ["1" * 32, "dhkem-p256", "retired", "0", "0"],
    ]


@pytest.mark.parametrize("kid", ["x", KID.upper(), KID + "0", "../" + KID])
def test_what_is_no_id_of_a_key_is_a_slip(kid: str) -> None:
    """Before anything is read."""
    result = CliRunner().invoke(cli, ["authority", "retire-key", kid])
    assert result.exit_code == ExitCode.USAGE
    assert "is no id of a sealing key" in result.output


@pytest.mark.parametrize("rate", ["0", "-1", "much"])
def test_a_rate_is_a_positive_number(rate: str) -> None:
    """Zero would wait for ever."""
    result = CliRunner().invoke(cli, ["authority", "reseal", "--rate", rate])
    assert result.exit_code == ExitCode.USAGE


def test_a_retired_key_that_has_left_the_roster_is_not_taken_out_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The other steps stay."""
    for state, is_named in ((SealingKeyState.CLOSED, True), (None, False)):
        reseal._say(retirement(verdict=verdict(state=state), is_retired=True), None, TABLE)
        said = capsys.readouterr().out
        assert ("--remove-key" in said) == is_named
        assert "start the recovery worker" in said
        assert "destroy it when a drill has passed" in said


@pytest.mark.parametrize("command", [("retire-key", KID), ("reseal",)])
def test_without_settings_those_of_the_prover_are_asked_for(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a whole and out of the operator's shell, not variable by variable; a slip in one is said as it is."""
    for name in list(os.environ):
        if name.startswith("STRONGROOM_"):
            monkeypatch.delenv(name)
    told = CliRunner().invoke(cli, ["authority", *command])
    assert told.exit_code == ExitCode.USAGE
    assert f"(set -a; . prover.env; strongroom authority {' '.join(command)})" in told.stderr
    assert "set STRONGROOM_" not in told.stderr
    monkeypatch.setenv("STRONGROOM_RECOVERY_REQUIRE", "x")
    assert "the nearest one is" in CliRunner().invoke(cli, ["authority", *command]).stderr


@pytest.mark.parametrize("error", [LogForked, RosterInvalid, StateCorrupt])
def test_a_log_that_does_not_fit_is_perhaps_another_authoritys(
    error: type[StrongroomError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before anybody restores a database that is well."""

    def fail(_text: str, work: Coroutine[Any, Any, Any]) -> NoReturn:
        work.close()
        raise error("the log key did not sign it", hint="restore it")

    monkeypatch.setattr(reseal, "carry_out", fail)
    monkeypatch.setenv("STRONGROOM_DATABASE_URL", "postgresql://localhost/x")
    with pytest.raises(error, match=r"^this may be another authority's database") as caught:
        reseal.key_counts(FakeAuthority().roster, bytes(32))
    assert caught.value.hint == (
        "compare STRONGROOM_DATABASE_URL with the setting of this authority's workers; if it is theirs, restore it"
    )
