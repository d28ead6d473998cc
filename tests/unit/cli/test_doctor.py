"""The doctor on a worker's host: its keys against the roster, its state folder, its database's schema."""

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner
from tests.support import authority as make
from tests.support.workers import write_files

from strongroom.broker import QueueLoad
from strongroom.mandates import Officer, Role
from strongroom.roster import Roster
from strongroom_agent.home import Home
from strongroom_agent.identity import attach, create_officer_home
from strongroom_agent.state import KeptEnrolment, State
from strongroom_agent.trust import Trust
from strongroom_cli import doctor
from strongroom_cli.findings import (
    Verdict,
    enrolment_finding,
    officer_finding,
    queue_findings,
    schema_findings,
    skipped,
)

_ACCOUNTS: Final = {"OPERATOR_BROKER_URL": "operator", "BROKER_URL": "escrow"}

OTHERS: Final = [make.officer("officer-a"), make.officer("officer-b")]


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every server out of the environment."""
    for name in ("DATABASE_URL", "BROKER_URL", "OPERATOR_BROKER_URL"):
        monkeypatch.delenv(f"STRONGROOM_{name}", raising=False)
        monkeypatch.delenv(f"STRONGROOM_{name}_FILE", raising=False)


def current_roster(**changes: Any) -> Roster:
    """Return a roster that is valid for a year from yesterday on."""
    yesterday = int(time.time()) - make.DAY
    return make.roster(issued_at=yesterday, expires_at=yesterday + 365 * make.DAY, **changes)


def look(folder: Path, settings: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """Run the doctor with these settings; return check, verdict and detail of each finding."""
    environment = {f"STRONGROOM_{name.upper()}": str(value) for name, value in settings.items()}
    result = CliRunner().invoke(doctor.doctor, ["--home", str(folder / "none"), "-o", "json"], env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    told = json.loads(result.stdout)
    findings = [(each["check"], each["verdict"], each["detail"]) for each in told["findings"]]
    assert told["ok"] == all(verdict != "failed" for _, verdict, _ in findings)
    return findings


def of(findings: list[tuple[str, str, str]], check: str) -> list[tuple[str, str]]:
    """Return verdict and detail of the findings of one check."""
    return [(verdict, detail) for name, verdict, detail in findings if name == check]


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize("worker", ["escrow", "recovery"])
def test_a_workers_own_keys_are_those_of_the_roster(tmp_path: Path, worker: str) -> None:
    """Log and reply key are named by the roster for this worker, and nothing is wrong."""
    findings = look(tmp_path, write_files(tmp_path / worker, current_roster(), worker))
    log, reply = of(findings, "key")
    assert (log[0], reply[0]) == ("ok", "ok")
    assert log[1].endswith(f"log key of {worker}")
    assert reply[1].endswith(f"reply key of {worker}")
    assert "failed" not in {verdict for _, verdict, _ in findings}


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("log", "reply", "verdicts", "words"),
    [
        ("log.key", "other/reply.key", ["ok", "failed"], "reply key of recovery, not of escrow"),
        ("other/log.key", "reply.key", ["ok", "failed"], "reply key of escrow, not of recovery"),
        ("log.key", "log.key", ["ok", "failed"], "no worker's reply key"),
        ("reply.key", "reply.key", ["failed", "ok"], "no worker's log key"),
    ],
)
def test_a_key_that_the_roster_does_not_name_for_the_worker_fails(
    tmp_path: Path, log: str, reply: str, verdicts: list[str], words: str
) -> None:
    """The other worker's key, or one for another purpose, opens well and would stop the worker."""
    settings = write_files(tmp_path, current_roster(), "escrow")
    write_files(tmp_path / "other", current_roster(), "recovery")
    keys = {"log_key_file": tmp_path / log, "reply_key_file": tmp_path / reply}
    found = of(look(tmp_path, settings | keys), "key")
    assert [verdict for verdict, _ in found] == verdicts
    assert words in dict(found)["failed"]


@pytest.mark.usefixtures("clean")
def test_the_state_folder_is_written_to_and_left_as_it_was(tmp_path: Path) -> None:
    """Writable is well, missing is a warning, and what no file can be made in fails."""
    settings = write_files(tmp_path, current_roster(), "escrow")
    state = tmp_path / "state"
    assert [verdict for verdict, _ in of(look(tmp_path, settings), "state")] == ["warning"]
    state.mkdir()
    assert [verdict for verdict, _ in of(look(tmp_path, settings), "state")] == ["ok"]
    assert list(state.iterdir()) == []
    state.rmdir()
    state.write_text("a file")
    ((verdict, detail),) = of(look(tmp_path, settings), "state")
    assert verdict == "failed"
    assert "Not a directory" in detail


def test_each_schema_finding_keeps_its_own_advice() -> None:
    """A missing role is not mended by migrating; without findings all is well."""
    sentences = ["role strongroom_escrow is missing: apply deploy/postgres/roles.sql", "fsync is off"]
    findings = schema_findings(sentences)
    assert [(each.verdict, each.detail, each.advice) for each in findings] == [
        (Verdict.FAILED, sentence, "") for sentence in sentences
    ]
    assert [each.verdict for each in schema_findings([])] == [Verdict.OK]


def test_a_queue_that_nobody_reads_fails_and_says_how_much_waits() -> None:
    """Each worker's queue is judged by its readers alone; the next step names the worker."""
    loads = [QueueLoad("escrow", 0, 3), QueueLoad("recovery", 0, 1)]
    escrow, recovery = queue_findings(loads)
    assert (escrow.check, escrow.verdict) == ("workers", Verdict.FAILED)
    assert escrow.detail == "nobody reads the queue escrow (3 messages wait)"
    assert recovery.detail == "nobody reads the queue recovery (1 message waits)"
    assert "strongroom worker escrow" in escrow.advice
    assert "strongroom worker recovery" in recovery.advice


def test_a_queue_that_is_read_is_well_however_much_waits() -> None:
    """A backlog is no fault; how many read and how much waits is told."""
    (found,) = queue_findings([QueueLoad("escrow", 2, 1000)])
    assert found.verdict is Verdict.OK
    assert found.detail == "2 workers read the queue escrow (1000 messages wait)"


def test_what_lies_in_the_quarantine_is_a_warning() -> None:
    """Nobody reads the quarantine, which is as it should be; messages in it are for the operator to look at."""
    (empty,) = queue_findings([QueueLoad("quarantine", 0, 0)])
    (filled,) = queue_findings([QueueLoad("quarantine", 0, 2)])
    assert empty.verdict is Verdict.OK
    assert (filled.verdict, filled.advice) == (Verdict.WARNING, "`strongroom quarantine list`")
    assert filled.detail.startswith("2 messages")


def test_an_officer_whom_the_newest_roster_does_not_name_fails(tmp_path: Path) -> None:
    """Name and key both have to be those of the home; only then its signatures count."""
    home = create_officer_home(tmp_path / "home", "alice", passphrase=None)
    key = home.config.public_key
    named, other_key, removed = (
        make.roster(officers=officers)
        for officers in (
            [Officer(name="alice", public_key=key, roles=[Role.INVITE]), *OTHERS],
            [make.officer("alice"), *OTHERS],
            OTHERS,
        )
    )
    assert officer_finding(home, named).verdict is Verdict.OK
    for roster, words in ((other_key, "another key"), (removed, "is not in roster version 1")):
        found = officer_finding(home, roster)
        assert (found.check, found.verdict) == ("officer", Verdict.FAILED)
        assert words in found.detail
        assert "strongroom officer trust" in found.advice


def test_an_enrolment_without_receipt_is_not_well() -> None:
    """Only a receipt proves an enrolment; one of several is enough."""
    begun = KeptEnrolment("i", "a", b"", None, None, None)
    proven = KeptEnrolment("j", "b", b"", 7, 8, 1_000)
    for enrolments in ([], [begun]):
        found = enrolment_finding("pc-1", enrolments)
        assert (found.check, found.verdict) == ("enrolment", Verdict.FAILED)
        assert "pc-1" in found.detail
        assert "strongroom enrol" in found.advice
    assert enrolment_finding("pc-1", [begun, proven]).verdict is Verdict.OK


def test_what_is_not_configured_is_named_as_not_looked_at() -> None:
    """Without anything all is named with what it lacks; what is configured is not."""
    names = [each.check for each in skipped({}, has_home=False)]
    assert names == [
        *("home", "roster", "worker's keys", "sealing keys", "state"),
        *("database", "broker", "workers", "quarantine"),
    ]
    with_home = {each.check: each.why for each in skipped({}, has_home=True)}
    assert not {"home", "roster", "broker"} & with_home.keys()
    assert with_home["workers"] == "no STRONGROOM_OPERATOR_BROKER_URL"
    operator = {"STRONGROOM_OPERATOR_BROKER_URL_FILE": "f", "STRONGROOM_DATABASE_URL": "u"}
    assert not {"database", "broker", "workers", "quarantine"} & {
        each.check for each in skipped(operator, has_home=False)
    }
    worker = {
        f"STRONGROOM_{name}": "x"
        for name in ("ROOT_KEY_FILE", "ROSTER_FILE", "LOG_KEY_FILE", "SEALING_KEYS_DIR", "STATE_DIR")
    }
    assert [each.check for each in skipped(worker, has_home=True)] == ["database", "workers", "quarantine"]


@pytest.mark.usefixtures("clean")
def test_what_was_not_looked_at_is_one_line(tmp_path: Path) -> None:
    """People read one line of checks and reasons, programs a list of them."""
    told = CliRunner().invoke(doctor.doctor, ["--home", str(tmp_path / "none")]).stdout
    (line,) = [line for line in told.splitlines() if line.startswith("not looked at: ")]
    assert "worker's keys, sealing keys, state (no STRONGROOM_ROSTER_FILE)" in line
    assert line.endswith("workers, quarantine (no STRONGROOM_OPERATOR_BROKER_URL)")
    document = json.loads(
        CliRunner().invoke(doctor.doctor, ["--home", str(tmp_path / "none"), "-o", "json"]).stdout
    )
    assert {"check": "workers", "why": "no STRONGROOM_OPERATOR_BROKER_URL"} in document["not_looked_at"]


@pytest.mark.usefixtures("clean")
def test_a_broker_that_fails_names_the_account_and_a_next_step(tmp_path: Path) -> None:
    """The same broker looked at by two accounts is told apart, and no password is shown."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens here
        where = f"127.0.0.1:{taken.getsockname()[1]}/strongroom"
        settings = {f"STRONGROOM_{name}": f"amqp://{user}:hush-hush@{where}" for name, user in _ACCOUNTS.items()}
        told = (
            CliRunner().invoke(doctor.doctor, ["--home", str(tmp_path / "none"), "-o", "json"], env=settings).stdout
        )
    findings = [each for each in json.loads(told)["findings"] if each["check"] == "broker"]
    assert [each["verdict"] for each in findings] == ["failed", "failed"]
    for finding, (variable, user) in zip(findings, _ACCOUNTS.items(), strict=True):
        assert f"the account {user}" in finding["detail"]
        assert f"STRONGROOM_{variable}" in finding["advice"]
    assert "hush-hush" not in told


@pytest.mark.usefixtures("clean")
def test_a_removed_officers_home_fails(tmp_path: Path) -> None:
    """The doctor judges the home by the newest roster that it holds."""
    made = create_officer_home(tmp_path / "home", "alice", passphrase=None)
    mine = Officer(name="alice", public_key=made.config.public_key, roles=[Role.INVITE])
    first = current_roster(officers=[mine, *OTHERS])
    home = attach(
        made,
        root_key=make.signing_key("root").public_key,
        roster=first.statement.envelope(),
        broker_url=None,
        broker_ca=None,
        now=int(time.time()),
    )
    assert ("officer", "ok") in verdicts(home)
    second = make.next_roster(first, officers=OTHERS)
    with State.open(home.state_file) as state:
        Trust.of(home, state).adopt(second.statement, int(time.time()))
    assert ("officer", "failed") in verdicts(home)


def verdicts(home: Home) -> list[tuple[str, str]]:
    """Run the doctor on a home; return check and verdict of each finding."""
    told = CliRunner().invoke(doctor.doctor, ["--home", str(home.path), "-o", "json"]).stdout
    return [(each["check"], each["verdict"]) for each in json.loads(told)["findings"]]
