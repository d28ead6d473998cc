"""What every command owes its users: help with an example, JSON for programs, exit codes, and errors that help."""

import asyncio
import json
import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import click
from deploy.local.trial import Trial
from tests.e2e.conftest import Enrol
from tests.support.command import Command, Outcome
from tests.support.cryptoapi import WRAPPED

from strongroom import broker as amqp
from strongroom.errors import ExitCode
from strongroom.topology import routing_key
from strongroom_cli.app import cli

README = Path(__file__).parents[2] / "README.md"

Words = tuple[str, ...]

# What the JSON document of each command is called.
KINDS: Final[dict[Words, str]] = {
    ("enrol",): "enrolment",
    ("escrow",): "escrow",
    ("import",): "import",
    ("seal",): "escrow",
    ("open",): "open",
    ("sync",): "sync",
    ("status",): "status",
    ("records",): "records",
    ("recover",): "recovery",
    ("requests",): "requests",
    ("approve",): "approval",
    ("deny",): "denial",
    ("revoke",): "revocation",
    ("export",): "export",
    ("officer", "trust"): "officer",
    ("authority", "init"): "roster",
    ("authority", "sign-roster"): "roster",
    ("authority", "show"): "roster",
    ("authority", "export"): "transport-key",
    ("authority", "reseal"): "reseal",
    ("authority", "retire-key"): "retirement",
    ("db", "migrate"): "migration",
    ("db", "check"): "schema",
    ("broker", "apply"): "topology",
    ("broker", "check"): "topology",
    ("broker", "account"): "account",
    ("quarantine", "list"): "quarantine",
    ("quarantine", "show"): "quarantined",
    ("quarantine", "requeue"): "quarantine",
    ("quarantine", "drop"): "quarantine",
    ("doctor",): "doctor",
    ("drill",): "drill",
    ("attest",): "attestation",
    ("coverage",): "coverage",
    ("log", "export"): "log-export",
    ("log", "verify"): "log-verify",
    ("log", "cosign"): "log-cosign",
    ("log", "checkpoints"): "log-checkpoints",
    ("capi", "show"): "key-blob",
    ("capi", "derive"): "derived-key",
}


def commands(group: click.Group = cli, words: Words = ()) -> Iterator[tuple[Words, click.Command]]:
    """Every command below a group, with the words that call it."""
    for name, command in group.commands.items():
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))


def test_every_command_explains_itself(strongroom: Command) -> None:
    """`--help` of every command and group ends with 0; that of every command has an example that names it."""
    every = [*commands()]
    assert len(every) > 25
    with ThreadPoolExecutor(max_workers=2) as pool:
        told = list(pool.map(lambda each: strongroom(*each[0], "--help").done(), every))
    for (words, command), outcome in zip(every, told, strict=True):
        text = " ".join(outcome.out.decode().split())
        assert f"Usage: strongroom {' '.join(words)}" in text
        if not isinstance(command, click.Group):
            assert re.search(rf"Example: `[^`]*strongroom {' '.join(words)}", text), text


def test_the_exit_codes_are_the_documented_ones(strongroom: Command) -> None:
    """README, `strongroom --help` and the code name the same exit codes."""
    expected = {code.value for code in ExitCode}
    told = " ".join(strongroom("--help").done().out.decode().split())
    written = re.search(r"^## Exit codes\n+(.+)$", README.read_text(), re.MULTILINE)
    assert written is not None
    assert {int(code) for code in re.findall(r"(?:^|· )(\d+) ", written[1].split(". ")[0])} == expected
    assert {int(code) for code in re.findall(r"(\d+) [a-z]", told.partition("Exit codes:")[2])} == expected


async def _submit_garbage(trial: Trial) -> None:
    """Send a message that no worker can accept, and wait for the rejection."""
    url, ca_file = trial.stack.broker.url("fleet"), trial.stack.broker.ca_file
    async with (
        amqp.connect(url, ca_file=ca_file, name="garbage", timeout_seconds=60) as connection,
        amqp.Requester(connection) as requester,
    ):
        key = routing_key("escrow", "somebody")
        await requester.submit(key, b"garbage", message_id="garbage", headers={}, expiration_seconds=None)
        await requester.answer("garbage", 60)


def _recover_by_officers(run: Callable[..., dict[str, Any]]) -> None:
    """Let an officer ask for the host's key, another approve, the host deny, and a third end the host."""
    asked = ("--principal", "speaks-json", "--name", "disk", "--reason", "a test", "--out", "k4")
    waiting = run(("recover",), *asked, home=".local/officer-1", code=ExitCode.WAITING)
    request = str(waiting["request"])
    assert waiting["state"] == "pending"
    assert [each["id"] for each in run(("requests",), home=".local/officer-2")["requests"]] == [request]
    assert run(("approve",), request, "--yes", home=".local/officer-2")["missing"] == 1
    assert run(("deny",), request, "--reason", "a test", home="h")["request"] == request
    assert run(("revoke",), "speaks-json", "--reason", "a test", "--yes", home=".local/officer-3")["key"] is None


def _watch(run: Callable[..., dict[str, Any]]) -> None:
    """Let an auditor see how the fleet is covered, export both logs, verify them, and a witness cosign one."""
    auditor = ".local/officer-1"
    assert run(("coverage",), "--max-missing", "100000", home=auditor)["counts"]["stale"] == 0
    assert run(("log", "export"), "export", home=auditor)["findings"] == []
    assert run(("log", "verify"), "export", home=auditor)["findings"] == []
    witness = ("--log", "escrow", "--key", "dora/keys/signing.key", "--name", "witness.example/w1")
    assert run(("log", "cosign"), "export", *witness, home=auditor)["vkey"].startswith("witness.example/w1+")
    held = run(("log", "checkpoints"), home="h")["checkpoints"]
    assert [each["origin"].rpartition("/")[2] for each in held] == ["escrow", "recovery"]


def _operate(run: Callable[..., dict[str, Any]]) -> None:
    """Look after database and broker."""
    assert run(("db", "migrate"))["applied"] == []
    assert run(("db", "check"))["ok"] is True
    assert run(("broker", "apply"))["applied"] is True
    assert run(("broker", "check"))["findings"] == []
    assert run(("broker", "account"), "pc-1", "--external").keys() >= {"users", "permissions", "topic_permissions"}


def _import_and_seal(run: Callable[..., dict[str, Any]], place: Path) -> None:
    """Look what of a folder would be imported; seal a file and open it."""
    (place / "old-keys").mkdir()
    (place / "old-keys" / ".hidden").touch()
    assert run(("import",), "old-keys", "--dry-run", home="h", code=ExitCode.FAILED)["codes"] == {"hidden": 1}
    assert run(("seal",), "k", home="h")["stored"] == 1
    assert run(("open",), "k.age", "--output-file", "k2", home="h")["path"] == "k2"


def _move_keys(run: Callable[..., dict[str, Any]]) -> None:
    """Ask for a host's keys for another authority, whose files are in the folder `keys`."""
    there = ("--to", "keys/roster.json", "--to-root-key", "keys/root.pub", "--to-principal", "speaks-json")
    moving = ("--principal", "speaks-json", "--all", *there, "--reason", "a test", "--out", "transfer")
    moved = run(("export",), *moving, home=".local/officer-1", code=ExitCode.WAITING)
    assert (moved["destination"]["authority"], moved["released"], moved["out"]) == ("new.example.org", 0, None)


def _drill(run: Callable[..., dict[str, Any]], trial: Trial, place: Path) -> None:
    """Open records from a database that was restored, as the drill takes it."""
    (place / "db-url").write_text(trial.stack.database.url("strongroom_auditor"))
    keys = ("--keys", ".local/authority/recovery/sealing", "--root-key", ".local/authority/root.pub")
    assert run(("drill",), "--database-url-file", "db-url", *keys)["ok"] is True


def _read_key_blobs(run: Callable[..., dict[str, Any]], place: Path) -> None:
    """Export the key that other programs wrap for, show a key blob of Windows, and derive a key of a password."""
    exported = ("keys", "--as", "publickeyblob", "--out", "public.blob")
    assert run(("authority", "export"), *exported)["state"] == "active"
    assert run(("capi", "show"), "public.blob")["type"] == "PUBLICKEYBLOB"
    (place / "blob").write_bytes(WRAPPED[0].simple)
    (place / "password").write_text("open sesame")
    (place / "password").chmod(0o600)
    assert run(("capi", "show"), "blob")["type"] == "SIMPLEBLOB"
    derived = ("--hash", "sha-1", "--algorithm", "aes-256", "--password-file", "password", "--out", "derived.key")
    assert run(("capi", "derive"), *derived)["key_bits"] == 256


def _change_keys(run: Callable[..., dict[str, Any]]) -> None:
    """Seal again what is sealed to the active key already, and try to retire that key."""
    sealed = run(("authority", "reseal"))
    assert (sealed["done"], sealed["records"], sealed["left"]) == (True, 0, 0)
    kept = run(("authority", "retire-key"), sealed["kid"], code=ExitCode.FAILED)
    assert (kept["retired"], kept["state"]) == (False, "active")


def _keep_keys(run: Callable[..., dict[str, Any]], trial: Trial, place: Path) -> None:
    """Do what whoever has the sealing keys does now and then."""
    _drill(run, trial, place)
    _change_keys(run)


def _quarantine(run: Callable[..., dict[str, Any]], trial: Trial) -> None:
    """Let a message that nobody can accept be shown, sent again, and dropped."""
    asyncio.run(_submit_garbage(trial))
    messages = run(("quarantine", "list"))["messages"]
    assert isinstance(messages, list)
    (bad,) = [each for each in messages if each["routing_key"] == "v1.escrow.somebody"]
    assert bad["code"] == "malformed"
    assert run(("quarantine", "show"), bad["id"])["code"] == "malformed"
    assert run(("quarantine", "requeue"), bad["id"])["requeued"] == [bad["id"]]
    # The worker finds it as bad as before, under the same id.
    asyncio.run(_submit_garbage(trial))
    assert bad["id"] in run(("quarantine", "drop"), "--yes", bad["id"])["dropped"]


def test_every_command_speaks_json(
    trial: Trial, place: Path, strongroom: Command, operator: Command, keeper: Command
) -> None:
    """`-o json` gives one document that says its schema and kind; no command with that option is left out."""
    documents: dict[Words, dict[str, object]] = {}

    def run(words: Words, *arguments: str, home: str | None = None, code: int = 0) -> dict[str, Any]:
        needs_servers = words[0] in {"db", "broker", "quarantine", "doctor"}
        command = operator if needs_servers else strongroom
        if words[1:] in {("reseal",), ("retire-key",)}:
            command = keeper
        outcome = command(*words, *arguments, "-o", "json", home=home).done(code)
        documents[words] = outcome.document
        return outcome.document

    (place / "k").write_bytes(secrets.token_bytes(32))
    invitation = strongroom("invite", "speaks-json", home=".local/officer-1").done().out
    (place / "inv.json").write_bytes(invitation)
    assert run(("enrol",), "inv.json", home="h")["principal"] == "speaks-json"
    assert run(("escrow",), "k", "--name", "disk", "--live", "file", home="h")["stored"] == 1
    assert run(("attest",), home="h")["examined"][0]["name"] == "disk"
    _import_and_seal(run, place)
    assert run(("sync",), home="h")["compared"] is True
    assert run(("status",), home="h")["enrolled"] is True
    listed = run(("records",), home="h")["records"]
    assert isinstance(listed, list)
    assert sorted(each["kind"] for each in listed) == ["age-identity", "key"]
    assert run(("recover",), "--name", "disk", "--out", "k3", home="h")["out"] == "k3"
    _recover_by_officers(run)

    card = strongroom("officer", "init", "dora", home="dora").done()
    (place / "dora.json").write_bytes(card.out)
    assert json.loads(card.out)["name"] == "dora"
    found = ("keys", "--authority", "new.example.org", "--officer", "dora.json", "--replacement-signatures", "1")
    assert run(("authority", "init"), *found, "--no-passphrase")["authority"] == "new.example.org"
    shown = run(("authority", "show"), "keys/roster.json", "--root-key", "keys/root.pub")
    assert shown == {**documents["authority", "init"]}
    assert run(("authority", "sign-roster"), "keys", "--in-place")["version"] == 2
    _move_keys(run)
    (place / "url").write_text("amqps://officer:x@localhost/strongroom")
    trust = ("keys/roster.json", "--root-key", "keys/root.pub", "--broker-url-file", "url")
    assert run(("officer", "trust"), *trust, home="dora")["name"] == "dora"

    _operate(run)
    assert run(("doctor",), home="h")["ok"] is True
    _keep_keys(run, trial, place)
    _watch(run)
    _read_key_blobs(run, place)

    _quarantine(run, trial)
    assert {words: document["kind"] for words, document in documents.items()} == KINDS
    has_output = {words for words, each in commands() if any(p.name == "output" for p in each.params)}
    assert set(KINDS) == has_output


ERROR = re.compile(r"error: [^\n]+\n(  next: [^\n]+\n)?")
WAITING = re.compile(
    r"waiting for approval: 0 of 2\n  request +[0-9a-f-]{36}\n  expires +\S+ \S+Z\n  digest +sha256:[0-9a-f]{64}\n"
    r"  recipient +[0-9a-f]{32}\n  next: [^\n]+\n"
)


def assert_said(outcome: Outcome, code: ExitCode) -> None:
    """An error is one line `error:`, perhaps one line `next:`, and nothing else; what waits is no error."""
    outcome.done(code)
    assert outcome.out == b""
    assert (WAITING if code is ExitCode.WAITING else ERROR).fullmatch(outcome.err), outcome.err


def assert_said_in_json(outcome: Outcome, code: ExitCode) -> None:
    """With `-o json` an error is one document on standard error with code, message and hint."""
    outcome.done(code)
    # Of a request standard output tells what has become of it: a program has to find it again.
    assert outcome.out == b"" or outcome.document["kind"] == "recovery"
    assert outcome.error.keys() == {"code", "message", "hint"}


def test_every_error_has_its_exit_code_and_says_what_next(
    trial: Trial, place: Path, strongroom: Command, operator: Command, enrolled: Enrol
) -> None:
    """Failed, usage, not found, denied, waiting for approval, try again later: in words and in JSON."""
    home, officer = enrolled("goes-wrong"), ".local/officer-1"
    (place / "k").write_bytes(secrets.token_bytes(32))
    (place / "not-age").write_bytes(b"no age file")
    (place / "no-text").write_bytes(b"\xff\xfe\xff\xfe")
    strongroom("escrow", "k", "--name", "disk", home=home).done()
    strongroom("seal", "k", home=home).done()
    unreachable = {"STRONGROOM_OPERATOR_BROKER_URL": "amqps://u:p@127.0.0.1:1/strongroom"}
    nowhere = Command(place, {**operator.environment, **unreachable})
    roster = str(trial.folder / "authority" / "roster.json")

    cases: list[tuple[ExitCode, Command, Path | str | None, Words]] = [
        (ExitCode.FAILED, strongroom, home, ("escrow", "k", "--name", "x" * 129)),
        (ExitCode.FAILED, strongroom, home, ("open", "k.age", "--identity", "k", "--output-file", "opened")),
        (ExitCode.USAGE, strongroom, None, ("nonsense",)),
        (ExitCode.USAGE, strongroom, home, ("recover", "--nonsense")),
        (ExitCode.USAGE, strongroom, home, ("escrow", "k")),
        (ExitCode.USAGE, strongroom, home, ("escrow", "not there", "--name", "disk")),
        (ExitCode.USAGE, strongroom, home, ("recover", "--out", "k2")),
        (ExitCode.USAGE, strongroom, home, ("recover", "--name", "disk")),
        (ExitCode.USAGE, strongroom, home, ("recover", "--name", "disk", "--out", "not/there")),
        (ExitCode.USAGE, strongroom, home, ("open", "not-age", "--output-file", "opened")),
        (ExitCode.USAGE, strongroom, "nobody", ("status",)),
        (ExitCode.USAGE, strongroom, None, ("db", "check")),
        (ExitCode.USAGE, strongroom, None, ("broker", "definitions", "--passwords", "not-age")),
        (ExitCode.USAGE, strongroom, None, ("authority", "show", roster, "--root-key", "no-text")),
        (ExitCode.NOT_FOUND, strongroom, home, ("recover", "--name", "nothing", "--out", "k2")),
        (ExitCode.NOT_FOUND, operator, None, ("quarantine", "show", "0" * 16)),
        (ExitCode.DENIED, strongroom, home, ("records", "--principal", "somebody-else")),
        (ExitCode.DENIED, strongroom, home, ("invite", "somebody-else")),
        (
            ExitCode.WAITING,
            strongroom,
            officer,
            ("recover", "--principal", "goes-wrong", "--name", "disk", "--reason", "a test", "--out", "k2"),
        ),
        (ExitCode.TRY_LATER, nowhere, None, ("broker", "check")),
    ]
    with ThreadPoolExecutor(max_workers=2) as pool:
        told = list(pool.map(lambda case: case[1](*case[3], home=case[2]), cases))
    for (code, *_), outcome in zip(cases, told, strict=True):
        assert_said(outcome, code)
    for code, command, at, words in (cases[0], cases[4], cases[-6], cases[-4], cases[-2], cases[-1]):
        assert_said_in_json(command(*words, "-o", "json", home=at), code)
    assert not (place / "k2").exists()
    assert not (place / "opened").exists()


def test_a_key_that_has_no_place_to_go_is_not_released(place: Path, strongroom: Command, enrolled: Enrol) -> None:
    """Where the output cannot be written, the authority is not even asked: the record is not disclosed."""
    home = enrolled("no-place")
    (place / "k").write_bytes(secrets.token_bytes(32))
    (place / "taken").mkdir()
    strongroom("escrow", "k", "--name", "disk", home=home).done()
    for out in ("not/there", "k", "taken"):
        strongroom("recover", "--name", "disk", "--out", out, home=home).done(ExitCode.USAGE)
    strongroom("recover", "--name", "disk", "--out", "taken", "--force", home=home).done(ExitCode.USAGE)
    (listed,) = strongroom("records", "-o", "json", home=home).done().document["records"]
    assert listed["disclosure"] is None
    strongroom("recover", "--name", "disk", "--out", "k2", home=home).done()
    (listed,) = strongroom("records", "-o", "json", home=home).done().document["records"]
    assert listed["disclosure"] is not None
    assert sorted(path.name for path in place.iterdir() if "k2" in path.name) == ["k2"]
