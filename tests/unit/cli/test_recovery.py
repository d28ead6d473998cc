"""`recover`, and what `sync` and `status` say of recoveries, as people and programs meet them."""

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from tests.support.agents import MATERIAL, NOW, Clock, key, officer_home

from strongroom.crypto.secret import Secret
from strongroom.errors import ApprovalRequired, ExitCode
from strongroom.mandates import Policy
from strongroom.messages import Request
from strongroom.statements import parse_envelope
from strongroom.testing import FakeAuthority
from strongroom.testing.authority import FakeMessage
from strongroom_agent import waiting
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import Enrolled, enrol
from strongroom_agent.home import Home
from strongroom_agent.state import KeptPending
from strongroom_cli import recovery
from strongroom_cli.app import cli
from strongroom_cli.disclosures import show_pending

Run = Callable[..., Result]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(clock: Clock) -> FakeAuthority:
    return FakeAuthority(clock=clock)


@pytest.fixture
async def host(authority: FakeAuthority, tmp_path: Path, clock: Clock) -> Enrolled:
    """A host, enrolled as laptop-0417, with one key in escrow."""
    document = authority.invitation_file("laptop-0417")
    done = await enrol(tmp_path / "host", document, connector=authority.connect, clock=clock)
    with Agent.open(done.home.path, connector=authority.connect, clock=clock) as agent:
        await agent.escrow([key()])
    return done


@pytest.fixture
def alice(authority: FakeAuthority, host: Enrolled, tmp_path: Path) -> Home:  # noqa: ARG001
    """An officer, named after the host was enrolled."""
    return officer_home(authority, tmp_path / "alice")


@pytest.fixture
def run(authority: FakeAuthority, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command with a home; it reaches the authority in memory and goes by its clock."""
    open_home = Agent.open

    def opened(path: Path, *, passphrase: Secret | None = None, **_faked: object) -> Agent:
        return open_home(path, passphrase=passphrase, connector=authority.connect, clock=clock)

    monkeypatch.setattr(Agent, "open", opened)
    monkeypatch.setattr(waiting, "FIRST_PAUSE_SECONDS", 0.0)

    def command(home: Home, *words: str) -> Result:
        result = CliRunner().invoke(cli, [*words, "--home", str(home.path)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return command


def wanted(out: Path | str, *more: str) -> list[str]:
    """Give the words of an officer's command for the host's disk key."""
    return ["recover", "--name", "disk", "--principal", "laptop-0417", "--reason", "left", "--out", str(out), *more]


def asked(authority: FakeAuthority) -> list[str]:
    """Return the ids of the requests that the authority knows."""
    return list(authority.workers.docket.cases)


def kept(home: Home) -> int:
    folder = home.path / "requests"
    return len(list(folder.iterdir())) if folder.exists() else 0


def test_an_officer_is_told_what_the_request_waits_for(
    run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path
) -> None:
    """Exit code 5, and no file in the place of the key."""
    told = run(alice, *wanted(tmp_path / "k"))
    [id_] = asked(authority)
    assert told.exit_code == ExitCode.WAITING
    digest = authority.workers.docket.cases[id_].statement.digest.hex()
    lines = told.stderr.splitlines()
    assert lines[0] == "waiting for approval: 0 of 2"
    assert lines[1:4] == [
        f"  request     {id_}",
        "  expires     2027-01-22 08:00:00Z",
        f"  digest      sha256:{digest}",
    ]
    assert re.fullmatch("  recipient   [0-9a-f]{32}", lines[4])
    assert lines[5].startswith("  next: officers run ")
    assert f"strongroom approve {id_}" in lines[5]
    assert "--wait" in lines[5]
    assert len(lines) == 6
    assert not (tmp_path / "k").exists()


def test_a_request_that_lacks_only_time_says_when_and_asks_for_no_approval(
    run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place of the count; the moment is the authority's."""
    run(alice, *wanted(tmp_path / "k"))
    [id_] = asked(authority)
    authority.approve(id_, "officer-1", "officer-2")

    for words in (
        "delay: policy lets 24 hours pass first, 86400 s are left",
        "approvals: policy asks for 2, there are 2 (officer-1, officer-2)",
    ):

        def too_soon(*_given: object, words: str = words, **_named: object) -> None:
            raise ApprovalRequired(words, retry_at=NOW + 86_400)

        monkeypatch.setattr(authority.workers, "_check_agreed", too_soon)
        told = run(alice, *wanted(tmp_path / "k"))
        assert told.exit_code == ExitCode.WAITING
        assert "waiting: approved; the key can be fetched from 2027-01-16 08:00:00Z on\n" in told.stderr
        assert "strongroom approve" not in told.stderr


def test_an_interrupted_wait_says_that_the_request_is_kept(
    run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ctrl-C after the first answer; the same command goes on with the same request."""
    handle = authority.handle

    def interrupted(message: FakeMessage) -> object:
        if asked(authority):
            raise KeyboardInterrupt
        return handle(message)

    with monkeypatch.context() as patch:
        patch.setattr(authority, "handle", interrupted)
        told = run(alice, *wanted(tmp_path / "k", "--wait", "600"))
    [id_] = asked(authority)
    assert told.exit_code != ExitCode.DONE
    assert f"request {id_} is kept: the same command goes on with it" in told.stderr
    assert kept(alice) == 2
    authority.approve(id_, "officer-1", "officer-2")
    assert run(alice, *wanted(tmp_path / "k", "--wait", "600")).exit_code == ExitCode.DONE
    assert asked(authority) == [id_]


def test_trouble_on_the_way_says_that_the_request_is_kept(
    run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path
) -> None:
    """Without a broker: exit code 75, and the same request goes out later."""
    authority.broker_down = True
    told = run(alice, *wanted(tmp_path / "k", "--wait", "0.1"))
    assert told.exit_code == ExitCode.TRY_LATER
    assert re.search("next: .*request [0-9a-f-]{36} is kept", told.stderr)
    assert kept(alice) == 2


@pytest.mark.parametrize("names", [0, 1, 16])
def test_the_line_of_the_progress_begins_with_the_count_and_is_short(
    *, run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: int
) -> None:
    """However many have approved, and however long their names are."""
    shown: list[str] = []

    @contextmanager
    def progress(_text: str) -> Iterator[Callable[[str], None]]:
        yield shown.append

    who = f" ({', '.join(['o' * 64] * names)})" if names else ""

    def missing(*_given: object, **_named: object) -> None:
        raise ApprovalRequired(f"approvals: policy asks for 16, there are {names}{who}")

    monkeypatch.setattr(recovery, "progress", progress)
    monkeypatch.setattr(authority.workers, "_check_agreed", missing)
    told = run(alice, *wanted(tmp_path / "k", "--wait", "0.1"))
    assert told.exit_code == ExitCode.WAITING
    assert told.stderr.count("  digest ") == 1
    assert told.stderr.count("  next: ") == 2
    assert shown
    assert all(line.startswith(f"{names} of 16") and len(line) + len(" 100:00:00") + 2 <= 80 for line in shown)


def test_the_same_command_brings_the_key_and_then_forgets_the_request(
    run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path
) -> None:
    """The key is in its file, for its owner alone, before the request is dropped."""
    run(alice, *wanted(tmp_path / "k"))
    assert kept(alice) == 2
    authority.approve(asked(authority)[0], "officer-1", "officer-2")
    told = run(alice, *wanted(tmp_path / "k"))
    assert told.exit_code == ExitCode.DONE
    assert f"taking up request {asked(authority)[0]}" in told.stderr
    assert (tmp_path / "k").read_bytes() == MATERIAL
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    assert kept(alice) == 0


def test_a_key_that_could_not_be_written_leaves_the_request(
    run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at the last moment: the same command brings it again."""
    run(alice, *wanted(tmp_path / "k"))
    authority.approve(asked(authority)[0], "officer-1", "officer-2")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert run(alice, *wanted(tmp_path / "k")).exit_code == ExitCode.TRY_LATER
    assert kept(alice) == 2
    assert run(alice, *wanted(tmp_path / "k")).exit_code == ExitCode.DONE
    assert (tmp_path / "k").read_bytes() == MATERIAL
    assert len(asked(authority)) == 1


def test_waiting_goes_on_through_approvals(
    run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --wait; the two officers approve while it waits."""
    answered: list[int] = []
    handle = authority.handle

    def approving(message: object) -> object:
        reply = handle(message)  # type: ignore[arg-type]
        for id_ in asked(authority):
            if len(answered) < 2:
                answered.append(1)
                authority.approve(id_, f"officer-{len(answered)}")
        return reply

    monkeypatch.setattr(authority, "handle", approving)
    told = run(alice, *wanted(tmp_path / "k", "--wait", "600"))
    assert told.exit_code == ExitCode.DONE
    assert (tmp_path / "k").read_bytes() == MATERIAL
    requests = [message for message in authority.received if parse_envelope(message.body).type == Request.TYPE]
    assert len(requests) == 3
    assert len({message.body for message in requests}) == 1


def test_a_denial_ends_it_with_exit_code_4(run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path) -> None:
    """Also in the document for programs."""
    run(alice, *wanted(tmp_path / "k"))
    [id_] = asked(authority)
    authority.deny(id_, "officer-1")
    told = run(alice, *wanted(tmp_path / "k", "-o", "json"))
    assert told.exit_code == ExitCode.DENIED
    document = json.loads(told.stdout)
    assert (document["kind"], document["request"], document["state"], document["code"]) == (
        "recovery",
        id_,
        "denied",
        "denied",
    )
    assert kept(alice) == 0


def test_a_program_is_told_what_waits(run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path) -> None:
    """One JSON document on standard output, with what identifies the request; after the release, too."""
    told = run(alice, *wanted(tmp_path / "k", "-o", "json"))
    [case] = authority.workers.docket.cases.values()
    assert told.exit_code == ExitCode.WAITING
    assert json.loads(told.stderr.splitlines()[-1])["error"]["code"] == "rejected"
    document = json.loads(told.stdout)
    assert document.pop("recipient_key")
    assert document == {
        "schema": 1,
        "kind": "recovery",
        "request": case.request.id,
        "digest": f"sha256:{case.statement.digest.hex()}",
        "state": "pending",
        "code": "approval_required",
        "message": "approvals: policy asks for 2, there are 0",
        "principal": "laptop-0417",
        "reason": "left",
        "unwrap": False,
        "expires_at": NOW + 7 * 86_400,
        "retry_at": None,
    }
    authority.approve(case.request.id, "officer-1", "officer-2")
    document = json.loads(run(alice, *wanted(tmp_path / "k", "-o", "json")).stdout)
    assert (document["request"], document["digest"], document["state"]) == (
        case.request.id,
        f"sha256:{case.statement.digest.hex()}",
        "released",
    )


def test_a_request_that_comes_too_soon_has_exit_code_75_and_says_when(
    run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path
) -> None:
    """The next chance is in an hour."""
    authority.renew_roster(policy=Policy(requests_per_hour=1))
    run(alice, *wanted(tmp_path / "k"))
    told = run(alice, *wanted(tmp_path / "k", "--new", "-o", "json"))
    assert told.exit_code == ExitCode.TRY_LATER
    document = json.loads(told.stdout)
    assert (document["state"], document["code"], document["retry_at"]) == ("pending", "rate_limited", NOW + 3_600)
    assert "2027-01-15 09:00:00Z" in told.stderr


def test_another_reason_does_not_change_a_kept_request(
    run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path
) -> None:
    """It says so; --new signs another one."""
    run(alice, *wanted(tmp_path / "k"))
    other = [word if word != "left" else "stolen" for word in wanted(tmp_path / "k")]
    told = run(alice, *other)
    assert 'it goes on with its own reason, "left"' in told.stderr
    assert len(asked(authority)) == 1
    assert "its own reason" not in run(alice, *wanted(tmp_path / "k")).stderr
    told = run(alice, *other, "--new")
    assert "taking up" not in told.stderr
    assert [case.request.reason for case in authority.workers.docket.cases.values()] == ["left", "stolen"]
    assert kept(alice) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--name", "disk", "--principal", "Laptop 1"),
            "--principal: 'Laptop 1' must be 3 to 64 of a-z, 0-9 and -",
        ),
        (("--record", "disk"), "'disk' is no record id"),
    ],
)
def test_a_word_that_can_be_no_name_or_id_is_a_usage_error(
    *, run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """In words of our own, before anything is sent."""
    told = run(alice, "recover", *words, "--reason", "a test", "--out", str(tmp_path / "k"))
    assert told.exit_code == ExitCode.USAGE
    assert said in told.stderr
    assert asked(authority) == []


def test_a_folder_is_no_place_for_a_key(run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path) -> None:
    """It says that it is one, with --force, too."""
    for more in ((), ("--force",)):
        told = run(alice, *wanted(tmp_path, *more))
        assert told.exit_code == ExitCode.USAGE
        assert f"{tmp_path}: is a folder" in told.stderr
    assert asked(authority) == []


def test_a_name_that_is_not_there_points_to_the_list(run: Run, host: Enrolled, tmp_path: Path) -> None:
    """Exit code 3, and what to do next."""
    told = run(host.home, "recover", "--name", "nothing", "--out", str(tmp_path / "k"))
    assert told.exit_code == ExitCode.NOT_FOUND
    assert "next: " in told.stderr
    assert "`strongroom records" in told.stderr


@pytest.mark.parametrize("size", [0, 65_537])
def test_a_key_of_no_or_of_too_many_bytes_is_a_usage_error(
    run: Run, host: Enrolled, tmp_path: Path, size: int
) -> None:
    """The limit is named, and nothing is spooled."""
    (tmp_path / "big").write_bytes(bytes(size))
    told = run(host.home, "escrow", str(tmp_path / "big"), "--name", "big")
    assert told.exit_code == ExitCode.USAGE
    assert "a key has 1 to 65,536 bytes" in told.stderr
    assert "big" not in run(host.home, "status").stdout


def test_an_officer_gives_a_reason(run: Run, alice: Home, authority: FakeAuthority, tmp_path: Path) -> None:
    """Exit code 2 before anything is sent."""
    told = run(alice, "recover", "--name", "disk", "--principal", "laptop-0417", "--out", str(tmp_path / "k"))
    assert told.exit_code == ExitCode.USAGE
    assert "reason" in told.stderr
    assert asked(authority) == []


def test_a_host_recovers_at_once_where_policy_lets_it(run: Run, host: Enrolled, tmp_path: Path) -> None:
    """Without reason, without waiting, and nothing is kept."""
    told = run(host.home, "recover", "--name", "disk", "--out", str(tmp_path / "k"))
    assert told.exit_code == ExitCode.DONE
    assert (tmp_path / "k").read_bytes() == MATERIAL
    assert kept(host.home) == 0


# ---- what the owner is told ----


def test_sync_and_status_say_who_was_given_a_key(
    run: Run, host: Enrolled, alice: Home, authority: FakeAuthority, tmp_path: Path
) -> None:
    """Who, when and why; `status` says it offline."""
    run(alice, *wanted(tmp_path / "k"))
    authority.approve(asked(authority)[0], "officer-1", "officer-2")
    run(alice, *wanted(tmp_path / "k"))
    told = run(host.home, "sync")
    authority.broker_down = True
    for each, code in ((told, ExitCode.DONE), (run(host.home, "status"), ExitCode.NOT_PROVEN)):
        assert each.exit_code == code
        assert (
            '(disk) was released to officer alice at 2027-01-15 08:00:00Z: "left";'
            " replace that key by 2027-01-29 08:00:00Z" in each.stderr
        )
    document = json.loads(run(host.home, "status", "-o", "json").stdout)
    [disclosed] = document["disclosed"]
    assert {name: disclosed[name] for name in ("name", "requester", "requester_kind", "reason", "by_owner")} == {
        "name": "disk",
        "requester": "alice",
        "requester_kind": "officer",
        "reason": "left",
        "by_owner": False,
    }


def test_a_recovery_by_the_host_itself_is_told_as_such(run: Run, host: Enrolled, tmp_path: Path) -> None:
    """The key was handed out all the same."""
    run(host.home, "recover", "--name", "disk", "--out", str(tmp_path / "k"))
    told = run(host.home, "sync")
    assert "was released to this host itself at 2027-01-15 08:00:00Z without a reason" in told.stderr
    document = json.loads(run(host.home, "sync", "-o", "json").stdout)
    assert [each["by_owner"] for each in document["disclosed"]] == [True]


def test_sync_and_status_say_who_asks_for_a_key_and_how_to_forbid_it(
    run: Run, host: Enrolled, alice: Home, authority: FakeAuthority, tmp_path: Path
) -> None:
    """In words and for programs; characters that turn the writing round are shown as what they are."""
    words = [word if word != "left" else "left \u202eton" for word in wanted(tmp_path / "k")]
    run(alice, *words)
    [id_] = asked(authority)
    told = run(host.home, "sync")
    for each, code in ((told, ExitCode.DONE), (run(host.home, "status"), ExitCode.NOT_PROVEN)):
        assert "WAITING: officer alice has asked for keys of this host at 2027-01-15 08:00:00Z" in each.stderr
        assert "not released before" not in each.stderr
        assert '"left \\u202eton"' in each.stderr
        assert f"`strongroom deny {id_} --reason TEXT`" in each.stderr
        assert each.exit_code == code
    for command in ("sync", "status"):
        [pending] = json.loads(run(host.home, command, "-o", "json").stdout)["pending"]
        assert (pending["request"], pending["requester"], pending["not_before"]) == (id_, "alice", NOW)
    authority.deny(id_, "officer-1")
    run(host.home, "sync")
    assert "WAITING" not in run(host.home, "status").stderr


def test_what_the_owner_has_denied_waits_no_more_in_its_own_words(
    run: Run, host: Enrolled, alice: Home, authority: FakeAuthority, tmp_path: Path
) -> None:
    """Without another `sync`; neither what an officer has denied, once the owner has seen that."""
    for by_owner in (True, False):
        run(alice, *wanted(tmp_path / "k", "--new"))
        id_ = asked(authority)[-1]
        run(host.home, "sync")
        assert id_ in run(host.home, "status").stderr
        if not by_owner:
            authority.deny(id_, "officer-1")
        denied = run(host.home, "deny", id_, "--reason", "not by me")
        assert denied.exit_code == ExitCode.DONE, denied.output
        assert "WAITING" not in run(host.home, "status").stderr


def test_a_delay_is_told_where_there_is_one() -> None:
    """And only there."""
    for delay in (0, 3_600):
        waits = KeptPending("id", "0" * 64, "alice", "officer", NOW, NOW + delay, "left")
        told = CliRunner().invoke(click.command()(lambda: show_pending([waits])))  # noqa: B023
        assert ("not released before 2027-01-15 09:00:00Z" in told.stderr) is bool(delay)
        assert ("not released before" in told.stderr) is bool(delay)
