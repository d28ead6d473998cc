"""The doctor on a worker's host: its keys against the roster, its state folder, its database's schema."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support import authority as make
from tests.support.workers import write_files

from strongroom.roster import Roster
from strongroom_cli import doctor


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every server out of the environment."""
    for name in ("DATABASE_URL", "BROKER_URL", "OPERATOR_BROKER_URL"):
        monkeypatch.delenv(f"STRONGROOM_{name}", raising=False)
        monkeypatch.delenv(f"STRONGROOM_{name}_FILE", raising=False)


def current_roster() -> Roster:
    """Return a roster that is valid for a year from yesterday on."""
    yesterday = int(time.time()) - make.DAY
    return make.roster(issued_at=yesterday, expires_at=yesterday + 365 * make.DAY)


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
    findings = doctor.schema_findings(sentences)
    assert [(each.verdict, each.detail, each.advice) for each in findings] == [
        (doctor.Verdict.FAILED, sentence, "") for sentence in sentences
    ]
    assert [each.verdict for each in doctor.schema_findings([])] == [doctor.Verdict.OK]
