"""What `escrow`, `seal`, `sync`, `status` and `attest` say of proofs and live keys, to people and to programs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.support.agents import NOW, Clock

from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode
from strongroom.fields import Capacity
from strongroom.messages import Disclosure
from strongroom.testing import FakeAuthority
from strongroom_agent import patience
from strongroom_agent.agent import Agent
from strongroom_agent.checks import CHECKS_FILE, Check, Kind, keep_checks, read_checks
from strongroom_agent.enrolment import Enrolled, enrol
from strongroom_agent.home import Home
from strongroom_cli.app import cli

Run = Callable[..., Result]
SECRET = b"the live key, which is a secret"
DAY = 86_400


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(clock: Clock) -> FakeAuthority:
    return FakeAuthority(clock=clock)


@pytest.fixture
async def host(authority: FakeAuthority, tmp_path: Path, clock: Clock) -> Enrolled:
    document = authority.invitation_file("laptop-0417")
    return await enrol(tmp_path / "host", document, connector=authority.connect, clock=clock)


@pytest.fixture
def live(tmp_path: Path) -> Path:
    path = tmp_path / "live"
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def run(authority: FakeAuthority, host: Enrolled, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command on the host; it reaches the authority in memory. No output may hold the key."""
    open_home = Agent.open

    def opened(path: Path, *, passphrase: Secret | None = None, **_faked: object) -> Agent:
        return open_home(path, passphrase=passphrase, connector=authority.connect, clock=clock)

    monkeypatch.setattr(Agent, "open", opened)
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS_MAX", 0.0)
    monkeypatch.setattr("strongroom_agent.status.time.time", clock)

    def command(*words: str) -> Result:
        result = CliRunner().invoke(cli, [*words, "--home", str(host.home.path)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert SECRET.decode() not in result.output
        return result

    return command


def ids(authority: FakeAuthority) -> list[str]:
    return sorted(authority.workers.records)


def unprovable(authority: FakeAuthority, *records: str) -> None:
    authority.workers.evidence.prove(unprovable=dict.fromkeys(records, "blob_invalid"))


# ---- escrow ----


def test_escrow_with_live_writes_the_check_and_keeps_the_salt(run: Run, host: Enrolled, live: Path) -> None:
    """By its absolute path, wherever the command was given."""
    relative = os.path.relpath(live)
    assert run("escrow", relative, "--name", "disk", "--live", "file").exit_code == ExitCode.DONE
    assert read_checks(host.home) == (Check("disk", Kind.FILE, (str(live),)),)
    assert (host.home.path / CHECKS_FILE).stat().st_mode & 0o777 == 0o600
    assert run("attest").exit_code == ExitCode.DONE


def test_escrow_with_live_age_hands_over_the_identity(run: Run, host: Enrolled, tmp_path: Path) -> None:
    """And refuses a file that is none, without quoting it."""
    own = host.home.age_key_file
    assert run("escrow", str(own), "--name", "own", "--live", "age").exit_code == ExitCode.DONE
    assert "own: record" in run("attest").stdout
    bad = tmp_path / "bad"
    bad.write_bytes(SECRET)
    assert run("escrow", str(bad), "--name", "bad", "--live", "age").exit_code == ExitCode.FAILED


def test_escrow_with_live_needs_a_file_that_stays(run: Run) -> None:
    """Standard input does not."""
    told = CliRunner().invoke(cli, ["escrow", "-", "--name", "disk", "--live", "file"], input="key")
    assert told.exit_code == ExitCode.USAGE
    assert run("escrow", "/dev/null", "--name", "disk", "--live", "file").exit_code == ExitCode.USAGE


def test_escrow_until_proven_says_so(run: Run, live: Path, authority: FakeAuthority) -> None:
    """Exit code 6 while it is not; with the place in the log when it is."""
    words = ("escrow", str(live), "--name", "disk", "--until", "proven", "--wait", "0.1")
    told = run(*words)
    assert told.exit_code == ExitCode.NOT_PROVEN
    assert "stored disk: record" in told.stdout
    assert "stored, and not proven yet: 1 of 1 records" in told.stderr
    handle = authority.handle

    def handled(message: object) -> object:
        if authority.escrow_log.size > 1:
            authority.workers.evidence.prove()
        return handle(message)  # type: ignore[arg-type]

    authority.handle = handled  # type: ignore[assignment, method-assign]
    told = run(*words)
    assert told.exit_code == ExitCode.DONE
    assert "  proven      recovery log, index " in told.stdout
    document = json.loads(run(*words, "-o", "json").stdout)
    assert document["records"][0]["proven_at"] == NOW


def test_escrow_says_what_it_waits_for_by_default(run: Run) -> None:
    """A receipt for 10 s, a proof for longer."""
    told = run("escrow", "--help").stdout
    assert "[stored|proven]" in told
    assert "until proven" in told


# ---- sync and status ----


def test_sync_and_status_tell_states_with_times_and_what_to_do(
    run: Run, live: Path, authority: FakeAuthority
) -> None:
    """Of a key that cannot be given back and is not at hand."""
    run("escrow", str(live), "--name", "the disk")
    run("escrow", str(live), "--name", "other")
    first, _ = ids(authority)
    assert run("status").exit_code == ExitCode.NOT_PROVEN
    unprovable(authority, first)
    for command in ("sync", "status"):
        told = run(command)
        assert told.exit_code == ExitCode.FAILED
        assert f"UNPROVABLE: record {first} (the disk) cannot be given back: blob_invalid" in told.stderr
        assert "`strongroom escrow FILE --name 'the disk'`" in told.stderr
        document = json.loads(run(command, "-o", "json").stdout)
        assert [(each["id"], each["listed"], each["unprovable"]) for each in document["needy"]] == [
            (first, "unprovable", "blob_invalid")
        ]
    table = run("status").stdout
    assert "unprovable" in table
    assert "proven" in table
    assert "2027-01-15 08:00:00Z" in table
    run("escrow", str(live), "--name", "the disk")
    told = run("status")
    assert (told.exit_code, "UNPROVABLE" in told.stderr) == (ExitCode.NOT_PROVEN, False)
    authority.workers.evidence.prove(first=1)
    assert run("sync").exit_code == ExitCode.DONE
    told = run("status")
    assert told.exit_code == ExitCode.DONE
    assert "replaced" in told.stdout


def test_a_disclosed_key_is_a_warning_until_its_time(
    run: Run, live: Path, authority: FakeAuthority, clock: Clock
) -> None:
    """With the day, and that it takes a new key."""
    run("escrow", str(live), "--name", "disk")
    [id_] = ids(authority)
    authority.workers.records[id_].disclosure = Disclosure(
        request="01a2050e-1a43-74ad-a430-3b0ef9071f2e",
        requester="alice",
        requester_kind=Capacity.OFFICER,
        released_at=NOW,
        reason="left",
    )
    authority.workers.evidence.prove()
    for command in ("sync", "status"):
        told = run(command)
        assert told.exit_code == ExitCode.DONE
        assert f"DISCLOSED: record {id_} (disk)" in told.stderr
        assert "replace it by 2027-01-29 08:00:00Z" in told.stderr
        assert "make a new key" in told.stderr
    clock.seconds += 15 * DAY
    for command in ("sync", "status"):
        told = run(command)
        assert told.exit_code == ExitCode.FAILED
        assert "which is over" in told.stderr


def test_sync_says_what_it_escrowed_anew(run: Run, host: Enrolled, live: Path, authority: FakeAuthority) -> None:
    """In words and for programs; done in one sync, it is no failure."""
    run("escrow", str(live), "--name", "disk", "--live", "file")
    [old] = ids(authority)
    unprovable(authority, old)
    told = run("sync")
    new = ids(authority)[-1]
    assert told.exit_code == ExitCode.DONE
    assert f"escrowed anew: disk, record {new}, in the place of {old}" in told.stdout
    unprovable(authority, old, new)
    document = json.loads(run("sync", "-o", "json").stdout)
    assert [each["supersedes"] for each in document["renewed"]] == [[new, old]]
    assert (document["needy"], document["given_up"]) == ([], [])
    assert [(each["name"], each["matches"]) for each in document["examined"]] == [("disk", True)]
    newest = ids(authority)
    unprovable(authority, *newest)
    told = run("sync")
    assert told.exit_code == ExitCode.FAILED
    assert "not escrowed anew by itself any more" in told.stderr
    assert host.home.config.name == "laptop-0417"


def test_a_sealed_file_whose_key_is_lost_is_sealed_again(
    run: Run, tmp_path: Path, authority: FakeAuthority
) -> None:
    """Its session key is nowhere else."""
    path = tmp_path / "report"
    path.write_bytes(b"content")
    run("seal", str(path))
    unprovable(authority, *ids(authority))
    told = run("sync")
    assert "strongroom seal --force" in told.stderr
    assert run("seal", str(path), "--force").exit_code == ExitCode.DONE
    told = run("status")
    assert (told.exit_code, told.stderr) == (ExitCode.NOT_PROVEN, "")


# ---- attest ----


def test_attest_says_what_is_in_escrow_and_where_it_is_on_record(
    run: Run, live: Path, authority: FakeAuthority
) -> None:
    """For people and for programs."""
    run("escrow", str(live), "--name", "disk", "--live", "file")
    [id_] = ids(authority)
    told = run("attest")
    assert told.exit_code == ExitCode.DONE
    assert f"disk: record {id_} holds the key in use" in told.stdout
    assert "on record   recovery log, index 1, 2027-01-15 08:00:00Z: verified" in told.stdout
    document = json.loads(run("attest", "--name", "disk", "-o", "json").stdout)
    assert document["examined"] == [{"name": "disk", "record": id_, "matches": True, "reason": None}]
    assert (document["kind"], document["log_index"], document["attested_at"]) == ("attestation", 2, NOW)


def test_attest_fails_for_another_key_and_not_for_one_that_cannot_be_read(
    run: Run, live: Path, authority: FakeAuthority
) -> None:
    """1 and 75, in words that do not mix them up."""
    run("escrow", str(live), "--name", "disk", "--live", "file")
    live.write_bytes(b"another key")
    told = run("attest")
    assert told.exit_code == ExitCode.FAILED
    assert f"STALE: record {ids(authority)[0]} (disk) does not hold the key that is in use" in told.stderr
    assert run("status").exit_code == ExitCode.FAILED
    live.unlink()
    told = run("attest")
    assert told.exit_code == ExitCode.TRY_LATER
    assert "UNKNOWN: disk was not compared" in told.stderr
    assert "STALE" not in told.stderr
    authority.broker_down = True
    live.write_bytes(SECRET)
    assert run("attest", "--wait", "0.1").exit_code == ExitCode.TRY_LATER


def test_attest_with_nothing_to_check_says_how_to_begin(run: Run, host: Enrolled) -> None:
    """Exit code 3, for all names and for one."""
    told = run("attest")
    assert told.exit_code == ExitCode.NOT_FOUND
    assert "--live file" in told.stderr
    assert "[[check]]" in told.stderr
    keep_checks(host.home, [Check("disk", Kind.COMMAND, ("/bin/true",))])
    told = run("attest", "--name", "other")
    assert (told.exit_code, "other" in told.stderr) == (ExitCode.NOT_FOUND, True)


def test_a_wrong_file_of_checks_is_named(run: Run, host: Enrolled) -> None:
    """By every command that would go by it."""
    path = host.home.path / CHECKS_FILE
    path.write_text("nonsense")
    path.chmod(0o600)
    for command in ("attest", "sync"):
        told = run(command)
        assert told.exit_code == ExitCode.USAGE
        assert "checks.toml" in told.stderr


def test_the_home_shows_no_key(run: Run, host: Enrolled, live: Path) -> None:
    """Neither in its state nor in any file beside it; the salt alone is there."""
    run("escrow", str(live), "--name", "disk", "--live", "file")
    run("sync")
    run("attest")
    assert isinstance(host.home, Home)
    for path in host.home.path.rglob("*"):
        if path.is_file():
            assert SECRET not in path.read_bytes()


def test_help_loads_nothing_slow() -> None:
    """No validation, cryptography, broker or event loop stands between a person and the help of a command."""
    program = """
import sys
from click.testing import CliRunner
from strongroom_cli.app import cli
for words in (["--help"], ["attest", "--help"], ["escrow", "--help"]):
    assert CliRunner().invoke(cli, words).exit_code == 0
print(" ".join(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, check=True, capture_output=True, env=env, text=True).stdout.split()
    assert {"pydantic", "cryptography", "aio_pika", "pyrage", "sqlite3"} & set(loaded) == set()


def test_what_the_authority_has_lost_is_told_once_and_with_what_to_do(
    run: Run, host: Enrolled, live: Path, authority: FakeAuthority
) -> None:
    """As an alarm, also when it was escrowed anew."""
    run("escrow", str(live), "--name", "disk")
    [lost] = ids(authority)
    held = authority.workers.records.pop(lost)
    told = run("sync")
    assert told.exit_code == ExitCode.FAILED
    assert (
        f"MISSING: record {lost} (disk) is not listed by the authority, although a receipt is here" in told.stderr
    )
    assert told.stderr.count("MISSING") == 1
    held.record = held.record.model_copy(update={"fingerprint": "0" * 64})
    authority.workers.records[lost] = held
    told = run("sync")
    assert f"MISMATCHED: record {lost} (disk)" in told.stderr
    assert "DIFFERENT" not in told.stderr
    keep_checks(host.home, [Check("disk", Kind.FILE, (str(live),))])
    told = run("sync")
    assert told.exit_code == ExitCode.FAILED
    assert f"DIFFERENT at the authority than signed here: record {lost}" in told.stderr
    del authority.workers.records[lost]
    told = run("sync")
    assert f"MISSING at the authority although a receipt is here: record {lost}" in told.stderr
