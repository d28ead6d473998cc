"""`requests`, `approve`, `deny` and `revoke` as people and programs meet them, against an authority in memory."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.support.agents import Clock, officer_home
from tests.support.docket import asked_by_host, asked_by_officer

from strongroom.crypto.sealing import kid
from strongroom.crypto.secret import Secret
from strongroom.fields import new_id, parse_body
from strongroom.mandates import Approval, Policy, Role
from strongroom.messages import Destination, RequestState
from strongroom.statements import parse_envelope
from strongroom.testing import FakeAuthority
from strongroom.testing.docket import FakeCase
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import Enrolled, enrol
from strongroom_agent.home import Home
from strongroom_agent.identity import signing_key
from strongroom_cli import approval, output, requests
from strongroom_cli.app import cli

Run = Callable[..., Result]
HOUR = 3600


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(request: pytest.FixtureRequest, clock: Clock) -> FakeAuthority:
    """An authority that asks for two approvals, or for one and what else a test says of its policy."""
    policy = {"officer_recovery_approvals": 1, **request.param} if hasattr(request, "param") else {}
    return FakeAuthority(clock=clock, policy=Policy(**policy))


@pytest.fixture
def alice(authority: FakeAuthority, tmp_path: Path) -> Home:
    """The home of an officer with every role."""
    return officer_home(authority, tmp_path / "alice")


@pytest.fixture
async def host(authority: FakeAuthority, tmp_path: Path, clock: Clock) -> Enrolled:
    """A host that is enrolled as laptop-0417."""
    document = authority.invitation_file("laptop-0417")
    return await enrol(tmp_path / "host", document, connector=authority.connect, clock=clock)


@pytest.fixture
def run(authority: FakeAuthority, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command with a home; it reaches the authority in memory and goes by its clock."""
    open_home = Agent.open

    def opened(path: Path, *, passphrase: Secret | None = None) -> Agent:
        return open_home(path, passphrase=passphrase, connector=authority.connect, clock=clock)

    monkeypatch.setattr(Agent, "open", opened)
    for module in (approval, requests):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=clock))

    def command(home: Home, *words: str, stdin: str = "") -> Result:
        result = CliRunner().invoke(cli, [*words, "--home", str(home.path)], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return command


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command think that somebody sits there."""
    monkeypatch.setattr(output, "somebody_is_there", lambda: True)


def document(result: Result) -> dict[str, Any]:
    """Return the one JSON document on standard output."""
    return dict(json.loads(result.stdout))


def error(result: Result) -> dict[str, Any]:
    """Return the one JSON error on standard error."""
    return dict(json.loads(result.stderr)["error"])


def approvals(authority: FakeAuthority) -> list[Approval]:
    """Return the approvals that reached the authority."""
    came = [parse_envelope(each.body) for each in authority.received]
    return [parse_body(each, Approval) for each in came if each.type == Approval.TYPE]


def words_of(text: str) -> str:
    """Return a text without its line breaks and repeated spaces."""
    return " ".join(text.split())


# ---- requests ----


def test_no_requests_are_said_in_words(run: Run, alice: Home) -> None:
    """An empty table would say nothing."""
    assert run(alice, "requests").stdout == "no requests wait\n"
    assert run(alice, "requests", "--all").stdout == "no requests\n"


def test_the_table_has_a_line_for_each_request(
    run: Run, alice: Home, host: Enrolled, authority: FakeAuthority, clock: Clock
) -> None:
    """Who, whose, which, why, how old, until when, approvals by whom, state."""
    asked = asked_by_officer(authority, "officer-1", reason="ticket 4711")
    own = asked_by_host(authority, host.home, records=[new_id()])
    assert run(alice, "approve", asked.request.id, "--yes").exit_code == 0
    clock.seconds += HOUR + 60
    head, newer, older = run(alice, "requests").stdout.splitlines()
    assert head.split() == ["id", "who", "whose", "which", "why", "age", "expires", "approvals", "state"]
    for word in (asked.request.id, "officer-1 (officer)", "laptop-0417", "disk", "ticket 4711", "1 h 1 min"):
        assert word in older
    assert older.rstrip().endswith("1/2 alice  pending")
    for word in (own.request.id, "laptop-0417 (principal)", (own.request.records or [""])[0], "0/0"):
        assert word in newer


def test_what_waits_comes_first(run: Run, alice: Home, authority: FakeAuthority) -> None:
    """Decided requests follow, newest first in each part."""
    cases = [asked_by_officer(authority, "officer-1") for _ in range(3)]
    authority.workers.docket.decided(cases[2].request.id, RequestState.DENIED, "denied")
    shown = document(run(alice, "requests", "--all", "-o", "json"))["requests"]
    assert [each["id"] for each in shown] == [cases[index].request.id for index in (1, 0, 2)]
    assert [each["state"] for each in shown] == ["pending", "pending", "denied"]


@pytest.mark.usefixtures("terminal")
def test_an_officer_sees_where_keys_are_to_be_moved(run: Run, alice: Home, authority: FakeAuthority) -> None:
    """Authority, principal and the key there: in the table, in the words, in JSON, and in the question."""
    there = Destination(authority="vault.other.example", principal="laptop-9")
    asked = asked_by_officer(authority, "officer-1", records=[new_id()], destination=there)
    key = kid(asked.request.recipient_suite, asked.request.recipient_key)
    assert "(moved to laptop-9 at vault.other.example)" in run(alice, "requests").stdout
    for words in (run(alice, "requests", asked.request.id).stdout, run(alice, "approve", asked.request.id).stderr):
        told = words_of(words)
        assert "MOVED TO laptop-9 at the authority vault.other.example, for good" in told
        assert f"to the key {key} (sealing key of that authority)" in told
        assert "one-time key" not in told
    question = words_of(run(alice, "approve", asked.request.id, stdin="n\n").stderr)
    assert f"The keys go to laptop-9 at vault.other.example, sealed to its key {key}." in question
    shown = document(run(alice, "requests", asked.request.id, "-o", "json"))
    assert shown["destination"] == {"authority": "vault.other.example", "principal": "laptop-9"}
    assert shown["unwrap"] is False


def test_requests_are_chosen_by_whose_records_they_are_for(run: Run, alice: Home, authority: FakeAuthority) -> None:
    """`--principal` leaves the others out."""
    asked_by_officer(authority, "officer-1", principal="laptop-0417")
    wanted = asked_by_officer(authority, "officer-1", principal="laptop-0418")
    found = document(run(alice, "requests", "--principal", "laptop-0418", "-o", "json"))["requests"]
    assert [each["id"] for each in found] == [wanted.request.id]


def test_one_request_is_told_in_full(run: Run, alice: Home, authority: FakeAuthority, clock: Clock) -> None:
    """Everything that an officer signs over: digest and recipient's key in full, and what policy asks for."""
    asked = asked_by_officer(authority, "officer-1", reason="the disk of her laptop died")
    clock.seconds += 3 * HOUR
    told = words_of(run(alice, "requests", asked.request.id).stdout)
    for words in (
        f"request {asked.request.id}",
        f"officer-1 (officer), signed by key {authority.officers['officer-1'].key_id}",
        "whose keys laptop-0417",
        'which the newest key named "disk"',
        "why the disk of her laptop died",
        f"to the key {kid(asked.request.recipient_suite, asked.request.recipient_key)}",
        f"sha256:{asked.statement.digest.hex()}",
        "asked 2027-01-15 08:00:00Z, 3 h ago",
        "expires 2027-01-22 08:00:00Z",
        "state pending",
        "approvals 0 of 2 that are needed",
        f"next: `strongroom approve {asked.request.id}`",
    ):
        assert words in told


@pytest.mark.parametrize("authority", [{"officer_recovery_delay_hours": 24}], indirect=True)
def test_the_delay_that_policy_asks_for_is_told(
    run: Run, alice: Home, authority: FakeAuthority, clock: Clock
) -> None:
    """Whoever approves learns from when on the key is handed out, and after that that it is now."""
    asked = asked_by_officer(authority, "officer-1")
    assert "not before 2027-01-16 08:00:00Z" in words_of(run(alice, "requests", asked.request.id).stdout)
    told = words_of(run(alice, "approve", asked.request.id, "--yes").stdout)
    assert "1 of 1; enough: the requester can fetch the key from 2027-01-16 08:00:00Z on" in told
    clock.seconds += 24 * HOUR
    assert "fetch the key now" in words_of(run(alice, "approve", asked.request.id, "--yes").stdout)


def test_one_request_is_one_json_document(run: Run, alice: Home, authority: FakeAuthority) -> None:
    """For programs, with the same facts."""
    asked = asked_by_officer(authority, "officer-1")
    told = document(run(alice, "requests", asked.request.id, "-o", "json"))
    assert (told["kind"], told["id"], told["digest"]) == ("request", asked.request.id, asked.statement.digest.hex())
    assert told["recipient_key"] == kid(asked.request.recipient_suite, asked.request.recipient_key)
    assert (told["verified"], told["needed"], told["missing"]) == (True, 2, 2)


def test_records_by_id_are_named_one_by_one_in_full_and_counted_in_the_table(
    run: Run, alice: Home, authority: FakeAuthority
) -> None:
    """A table stays readable; who signs sees all."""
    ids = [new_id() for _ in range(5)]
    asked = asked_by_officer(authority, "officer-1", records=ids)
    table, whole = run(alice, "requests").stdout, run(alice, "requests", asked.request.id).stdout
    assert "5 records" in table
    assert ids[0] not in table
    assert all(each in whole for each in ids)
    assert [line.split()[-1] for line in whole.splitlines() if line.split()[-1] in ids] == ids


@pytest.mark.parametrize(("columns", "is_table"), [(80, False), (139, False), (140, True), (None, True)])
def test_a_narrow_terminal_shows_what_the_table_says_below_each_other(
    run: Run, alice: Home, request: pytest.FixtureRequest, columns: int | None, *, is_table: bool
) -> None:
    """Nine columns do not fit there; nothing is left out, and no line is wider than the terminal."""
    asked_by_officer(request.getfixturevalue("authority"), "officer-1", reason="word " * 40)
    request.getfixturevalue("monkeypatch").setattr(requests, "screen_columns", lambda: columns)
    shown = run(alice, "requests").stdout
    assert shown.startswith("id ") is is_table
    if not is_table:
        assert max(map(len, shown.splitlines())) <= (columns or 0)
        for words in ("officer-1 (officer) asks for keys of laptop-0417: disk", "0/2", "pending", "0 s ago"):
            assert words in words_of(shown)
        assert words_of(shown).count("word") == 40


def test_a_request_that_does_not_verify_is_told_with_the_reason(
    run: Run, alice: Home, authority: FakeAuthority
) -> None:
    """In the table, in full, and for programs; nobody is invited to approve it."""
    asked = asked_by_officer(authority, "officer-1")
    asked.lost = True
    assert "not verified: request: the database no longer has it" in run(alice, "requests").stdout
    whole = run(alice, "requests", asked.request.id).stdout
    assert "NOT VERIFIED" in whole
    assert "strongroom approve" not in whole
    assert document(run(alice, "requests", asked.request.id, "-o", "json"))["verified"] is False


def test_an_approval_that_does_not_count_is_told(run: Run, alice: Home, authority: FakeAuthority) -> None:
    """Beside the number of those that do."""
    asked = asked_by_officer(authority, "officer-1")
    other = asked_by_officer(authority, "officer-1")
    run(alice, "approve", other.request.id, "--yes")
    asked.approvals += other.approvals
    whole = words_of(run(alice, "requests", asked.request.id).stdout)
    assert "approvals 0 of 2" in whole
    assert "one does not count: request_digest: the approval of alice is for another request" in whole


def test_others_words_neither_steer_the_terminal_nor_leave_their_column(
    run: Run, alice: Home, host: Enrolled, authority: FakeAuthority
) -> None:
    """What turns the direction of writing is escaped, and a long reason cannot feign a line of its own."""
    reason = "please \u202eetorw " + " " * 150 + "approvals   2 of 2 " + "x" * 300
    asked = asked_by_host(authority, host.home, reason=reason, name="disk\u200b")
    table, whole = run(alice, "requests").stdout, run(alice, "requests", asked.request.id).stdout
    for text in (table, whole):
        assert all(each.isprintable() or each == "\n" for each in text)
        assert "\\u202e" in text
        assert "disk\\u200b" in text
    lines = whole.splitlines()
    assert [line for line in lines if line.startswith("  approvals")] == ["  approvals     0 of 0 that are needed"]
    assert max(len(line) for line in lines[:-1]) <= 100


def test_a_request_that_nobody_made_is_not_found(run: Run, alice: Home) -> None:
    """Exit code 3."""
    result = run(alice, "requests", new_id(), "-o", "json")
    assert (result.exit_code, error(result)["code"]) == (3, "not_found")


@pytest.mark.parametrize("command", [["requests"], ["approve", "--yes"], ["deny", "--reason", "no"]])
def test_what_is_no_request_id_is_refused_at_once(
    run: Run, alice: Home, authority: FakeAuthority, command: list[str]
) -> None:
    """Nobody is asked about it."""
    result = run(alice, *command, "4711", "-o", "json")
    assert (result.exit_code, error(result)["code"]) == (2, "usage")
    assert "'4711' is no request id" in error(result)["message"]
    assert authority.received == []


@pytest.mark.parametrize("choice", [["--all"], ["--principal", "laptop-0417"]])
def test_an_id_and_a_choice_do_not_go_together(run: Run, alice: Home, choice: list[str]) -> None:
    """One or the other."""
    assert run(alice, "requests", new_id(), *choice).exit_code == 2


def test_a_host_sees_who_asks_for_its_records(run: Run, host: Enrolled, authority: FakeAuthority) -> None:
    """Its own requests page, by the same command."""
    asked = asked_by_officer(authority, "officer-1")
    asked_by_officer(authority, "officer-1", principal="laptop-0418")
    shown = document(run(host.home, "requests", "-o", "json"))["requests"]
    assert [each["id"] for each in shown] == [asked.request.id]


def test_a_host_that_asks_about_another_is_denied(run: Run, host: Enrolled) -> None:
    """Exit code 4."""
    assert run(host.home, "requests", "--principal", "laptop-0418").exit_code == 4


# ---- approve ----


@pytest.mark.usefixtures("terminal")
def test_an_approval_is_shown_and_asked_for_before_it_is_signed(
    run: Run, alice: Home, authority: FakeAuthority
) -> None:
    """On a terminal: everything about it, the question, and after yes what is still missing."""
    asked = asked_by_officer(authority, "officer-1")
    result = run(alice, "approve", asked.request.id, "--reason", "spoke with her", stdin="y\n")
    assert result.exit_code == 0
    assert f"sha256:{asked.statement.digest.hex()}" in result.stderr
    assert "Approve it? [y/N]" in result.stderr
    assert f"approved request {asked.request.id}" in result.stdout
    assert "1 of 2; 1 missing" in result.stdout
    [body] = approvals(authority)
    assert (body.request_digest, body.reason) == (asked.statement.digest.hex(), "spoke with her")


@pytest.mark.usefixtures("terminal")
def test_without_a_yes_nothing_is_signed(run: Run, alice: Home, authority: FakeAuthority) -> None:
    """Anything else leaves the request as it was, with exit code 1."""
    asked = asked_by_officer(authority, "officer-1")
    result = run(alice, "approve", asked.request.id, stdin="\n")
    assert (result.exit_code, approvals(authority)) == (1, [])
    assert "nothing was signed" in result.stderr


@pytest.mark.parametrize("command", [["approve", new_id()], ["revoke", "laptop-0417", "--reason", "stolen"]])
def test_without_terminal_and_yes_nothing_happens(
    run: Run, alice: Home, authority: FakeAuthority, command: list[str]
) -> None:
    """A script has to say --yes; nothing is asked of anybody before."""
    result = run(alice, *command, "-o", "json")
    assert (result.exit_code, error(result)["code"]) == (2, "usage")
    assert "--yes" in error(result)["hint"]
    assert authority.received == []


def test_an_approval_for_programs_is_one_document_and_nothing_else(
    run: Run, alice: Home, authority: FakeAuthority
) -> None:
    """Where it is on the record, and how many are there and missing."""
    asked = asked_by_officer(authority, "officer-1")
    result = run(alice, "approve", asked.request.id, "--yes", "-o", "json")
    told = document(result)
    assert (result.stderr, told["kind"], told["request"]) == ("", "approval", asked.request.id)
    assert (told["repeated"], told["approvals"], told["needed"], told["missing"]) == (False, 1, 2, 1)
    assert told["log_index"] == authority.recovery_log.size - 1


def test_the_life_of_an_approval_is_chosen(run: Run, alice: Home, authority: FakeAuthority) -> None:
    """In days, at most 7."""
    asked = asked_by_officer(authority, "officer-1")
    assert run(alice, "approve", asked.request.id, "--yes", "--life", "8").exit_code == 2
    assert run(alice, "approve", asked.request.id, "--yes", "--life", "0.5").exit_code == 0
    [body] = approvals(authority)
    assert body.expires_at - body.issued_at == 12 * HOUR


def test_an_approval_may_be_repeated(run: Run, alice: Home, authority: FakeAuthority) -> None:
    """The second run says that it is there, sends nothing, and ends well."""
    asked = asked_by_officer(authority, "officer-1")
    run(alice, "approve", asked.request.id, "--yes")
    again = run(alice, "approve", asked.request.id, "--yes")
    assert again.exit_code == 0
    assert f"you have approved request {asked.request.id} already" in again.stdout
    assert "1 of 2; 1 missing" in again.stdout
    third = document(run(alice, "approve", asked.request.id, "--yes", "-o", "json"))
    assert (third["repeated"], third["id"], third["approvals"]) == (True, None, 1)
    assert len(approvals(authority)) == 1


def test_an_approval_of_what_was_released_meanwhile_is_refused(
    run: Run, alice: Home, authority: FakeAuthority
) -> None:
    """It does not wait any more, and neither table nor words count approvals then."""
    asked = asked_by_officer(authority, "officer-1")
    run(alice, "approve", asked.request.id, "--yes")
    authority.workers.docket.decided(asked.request.id, RequestState.RELEASED)
    result = run(alice, "approve", asked.request.id, "--yes", "-o", "json")
    assert (result.exit_code, error(result)["code"]) == (4, "approval_invalid")
    assert "released" in error(result)["message"]
    assert run(alice, "requests", "--all").stdout.rstrip().endswith("-          released")
    assert "approvals" not in run(alice, "requests", asked.request.id).stdout


@pytest.mark.parametrize("authority", [{}], indirect=True)
def test_the_last_approval_says_that_it_was_the_last(run: Run, alice: Home, authority: FakeAuthority) -> None:
    """The requester can fetch the key."""
    asked = asked_by_officer(authority, "officer-1")
    told = run(alice, "approve", asked.request.id, "--yes").stdout
    assert "1 of 1; enough: the requester can fetch the key now" in told


def test_ones_own_request_is_refused_as_the_authority_would(
    run: Run, alice: Home, authority: FakeAuthority
) -> None:
    """Exit code 4, code approval_invalid, and what to do instead."""
    asked = asked_by_officer(authority, "alice", key=signing_key(alice, None))
    result = run(alice, "approve", asked.request.id, "--yes", "-o", "json")
    assert (result.exit_code, error(result)["code"]) == (4, "approval_invalid")
    assert error(result)["hint"] == "another officer has to approve"
    assert approvals(authority) == []


def test_an_officer_without_the_role_is_refused_as_the_authority_would(
    run: Run, alice: Home, authority: FakeAuthority
) -> None:
    """Exit code 4, code officer_unknown."""
    asked = asked_by_officer(authority, "officer-1")
    authority.officer_roles["alice"] = [Role.INVITE]
    authority.renew_roster()
    result = run(alice, "approve", asked.request.id, "--yes", "-o", "json")
    assert (result.exit_code, error(result)["code"]) == (4, "officer_unknown")


def test_a_request_that_does_not_verify_is_not_approved(run: Run, alice: Home, authority: FakeAuthority) -> None:
    """Exit code 4, and a warning to the other officers as the next step."""
    asked = asked_by_officer(authority, "officer-1")
    asked.lost = True
    result = run(alice, "approve", asked.request.id, "--yes", "-o", "json")
    assert (result.exit_code, error(result)["code"]) == (4, "approval_invalid")
    assert "not verified" in error(result)["message"]


def test_a_denied_request_is_not_approved_even_where_an_approval_is_there(
    run: Run, alice: Home, authority: FakeAuthority
) -> None:
    """A denial is final, and saying otherwise would mislead."""
    asked = asked_by_officer(authority, "officer-1")
    run(alice, "approve", asked.request.id, "--yes")
    authority.workers.docket.decided(asked.request.id, RequestState.DENIED, "denied")
    result = run(alice, "approve", asked.request.id, "--yes", "-o", "json")
    assert (result.exit_code, error(result)["code"]) == (4, "approval_invalid")


@pytest.mark.usefixtures("terminal")
def test_what_may_not_be_approved_is_refused_before_the_question(
    run: Run, alice: Home, authority: FakeAuthority
) -> None:
    """Nobody is asked to agree to what cannot be agreed to."""
    asked = asked_by_officer(authority, "alice", key=signing_key(alice, None))
    result = run(alice, "approve", asked.request.id, stdin="y\n")
    assert (result.exit_code, "Approve it?" in result.stderr) == (4, False)


# ---- deny ----


@pytest.fixture
def asked(authority: FakeAuthority) -> FakeCase:
    """An officer's request for the disk key of laptop-0417."""
    return asked_by_officer(authority, "officer-1")


def test_an_officer_denies_with_a_reason(run: Run, alice: Home, authority: FakeAuthority, asked: FakeCase) -> None:
    """What was denied is said, and that it is for good."""
    result = run(alice, "deny", asked.request.id, "--reason", "no ticket")
    assert result.exit_code == 0
    assert f"denied request {asked.request.id} of officer-1 for keys of laptop-0417" in result.stdout
    assert authority.workers.docket.cases[asked.request.id].state is RequestState.DENIED


def test_the_owner_denies_from_its_own_home(run: Run, host: Enrolled, authority: FakeAuthority) -> None:
    """A host whose records are asked for."""
    case = asked_by_officer(authority, "officer-1")
    told = document(run(host.home, "deny", case.request.id, "--reason", "still here", "-o", "json"))
    assert (told["kind"], told["request"], told["repeated"]) == ("denial", case.request.id, False)
    assert authority.workers.docket.cases[case.request.id].state is RequestState.DENIED


def test_the_request_of_another_is_not_there_for_a_host(run: Run, host: Enrolled, authority: FakeAuthority) -> None:
    """A host cannot even see it."""
    case = asked_by_officer(authority, "officer-1", principal="laptop-0418")
    assert run(host.home, "deny", case.request.id, "--reason", "no").exit_code == 3


def test_a_denial_may_be_repeated(run: Run, alice: Home, asked: FakeCase) -> None:
    """The second run says so and ends well."""
    run(alice, "deny", asked.request.id, "--reason", "no ticket")
    again = run(alice, "deny", asked.request.id, "--reason", "no ticket")
    assert (again.exit_code, "denied already" in again.stdout) == (0, True)


def test_what_was_released_is_not_denied(run: Run, alice: Home, authority: FakeAuthority, asked: FakeCase) -> None:
    """Exit code 4: it is too late."""
    authority.workers.docket.decided(asked.request.id, RequestState.RELEASED)
    result = run(alice, "deny", asked.request.id, "--reason", "no", "-o", "json")
    assert (result.exit_code, error(result)["code"]) == (4, "approval_invalid")


@pytest.mark.parametrize("command", [["deny", new_id()], ["revoke", "laptop-0417", "--yes"]])
def test_a_reason_must_be_given(run: Run, alice: Home, authority: FakeAuthority, command: list[str]) -> None:
    """None, or one of spaces, is refused before anybody is asked."""
    assert run(alice, *command).exit_code == 2
    assert run(alice, *command, "--reason", "  ").exit_code == 2
    assert authority.received == []


# ---- revoke ----


def test_a_revocation_says_what_it_does_and_the_way_back(run: Run, alice: Home, host: Enrolled) -> None:
    """Refused from now on, recoverable still, and an invitation that replaces lets it in again."""
    result = run(alice, "revoke", host.principal, "--reason", "stolen", "--yes")
    assert result.exit_code == 0
    for words in (
        "revoked laptop-0417, with all its keys",
        "escrow and recovery by it are refused",
        "`strongroom invite laptop-0417 --replace`",
    ):
        assert words in result.stdout
    assert run(host.home, "requests").exit_code == 1


@pytest.mark.usefixtures("terminal")
def test_a_revocation_is_asked_for_first(run: Run, alice: Home, host: Enrolled) -> None:
    """On a terminal; without a yes nothing is signed."""
    result = run(alice, "revoke", host.principal, "--reason", "stolen", stdin="n\n")
    assert result.exit_code == 1
    assert "Revoke laptop-0417, with all its keys?" in result.stderr
    assert run(host.home, "requests").exit_code == 0


def test_one_key_is_revoked_by_its_id(run: Run, alice: Home, host: Enrolled) -> None:
    """For programs: principal, key, and where it is on the record."""
    words = ("revoke", host.principal, "--key", host.key_id, "--reason", "copied", "--yes", "-o", "json")
    told = document(run(alice, *words))
    assert (told["kind"], told["principal"], told["key"]) == ("revocation", host.principal, host.key_id)
    assert isinstance(told["log_index"], int)


def test_an_officer_without_the_role_revokes_nobody(run: Run, alice: Home, authority: FakeAuthority) -> None:
    """Exit code 4, before any question."""
    authority.officer_roles["alice"] = [Role.APPROVE]
    authority.renew_roster()
    run(alice, "requests")
    result = run(alice, "revoke", "laptop-0417", "--reason", "stolen", "--yes", "-o", "json")
    assert (result.exit_code, error(result)["code"]) == (4, "officer_unknown")


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(("reason", "code"), [("stolen", 4), ("  ", 2)])
def test_what_may_not_be_revoked_is_refused_before_the_question(
    run: Run, alice: Home, authority: FakeAuthority, reason: str, code: int
) -> None:
    """Without the role, or without a reason, which is looked at first."""
    authority.officer_roles["alice"] = [Role.APPROVE]
    authority.renew_roster()
    run(alice, "requests")
    result = run(alice, "revoke", "laptop-0417", "--reason", reason, stdin="y\n")
    assert (result.exit_code, "Revoke laptop" in result.stderr) == (code, False)


@pytest.mark.parametrize("command", ["requests", "approve", "deny", "revoke"])
def test_help_shows_an_example(command: str) -> None:
    """Every command of officers does."""
    told = CliRunner().invoke(cli, [command, "--help"]).stdout
    assert f"Example: `strongroom {command}" in words_of(told)
