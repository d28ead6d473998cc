"""`card`, `invite`, `countersign` and `enrol` as people meet them, against an authority in memory."""

import json
import shutil
import time
from base64 import b64encode
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from strongroom.crypto.secret import Secret
from strongroom.fields import new_id
from strongroom.leaves import InvitationLeaf, parse_leaf
from strongroom.mandates import Policy
from strongroom.testing import FakeAuthority
from strongroom_agent import enrolment
from strongroom_agent.agent import Agent
from strongroom_agent.countersigning import SentInvitation, find
from strongroom_agent.identity import attach, create_officer_home
from strongroom_agent.invitation import InvitationFile, IssuedInvitation, countersign, received
from strongroom_cli import output
from strongroom_cli.app import cli


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


class Place:
    """A folder with the homes of officers and hosts; `say` runs the command there and returns what came of it."""

    def __init__(self, folder: Path, authority: FakeAuthority) -> None:
        self.folder, self.authority = folder, authority

    def say(self, *words: str, home: str, code: int = 0, stdin: str = "") -> Result:
        """Run `strongroom` with a home, and expect this exit code."""
        result = CliRunner().invoke(cli, [*words, "--home", str(self.folder / home)], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        return result

    def file(self, name: str, content: bytes) -> str:
        """Write a file and return its path."""
        (self.folder / name).write_bytes(content)
        return str(self.folder / name)

    def found_officers(self, *names: str) -> None:
        """Make officers' homes, all under the newest roster."""
        homes = [create_officer_home(self.folder / name, name, passphrase=None) for name in names]
        for home in homes:
            self.authority.name_officer(home.config.name, home.config.public_key)
        for home in homes:
            attach(
                home,
                root_key=self.authority.root.public_key,
                roster=self.authority.roster.statement.envelope(),
                broker_url="amqps://officer:hidden@broker.example/strongroom",
                broker_ca=None,
                now=self.authority.now,
            )


@pytest.fixture
def place(authority: FakeAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """Two officers, and commands that reach the authority in memory."""
    open_home = Agent.open

    def opened(path: Path, *, passphrase: Secret | None = None) -> Agent:
        return open_home(path, passphrase=passphrase, connector=authority.connect)

    monkeypatch.setattr(Agent, "open", opened)
    monkeypatch.setattr(enrolment, "enrol", partial(enrolment.enrol, connector=authority.connect))
    made = Place(tmp_path, authority)
    made.found_officers("alice", "bob")
    return made


def error_of(result: Result) -> dict[str, Any]:
    """Return the JSON error document."""
    return dict(json.loads(result.stderr)["error"])


def _now() -> int:
    return int(time.time())


# ---- a fleet ----


def test_a_fleet_enrols_by_one_file(place: Place) -> None:
    """The file is printed, what it does is said beside it, and each host gives its own name."""
    invited = place.say("invite", "--prefix", "laptop-", "--uses", "50", home="alice")
    fleet = place.file("fleet.json", invited.stdout_bytes)
    assert "is for 50 new principals laptop-" in invited.stderr
    assert "in the file: whoever has seen the file can use it, the officers too" in invited.stderr
    refused = place.say("enrol", fleet, "-o", "json", home="h", code=2)
    assert (error_of(refused)["code"], "--name" in error_of(refused)["hint"]) == ("usage", True)
    place.say("enrol", fleet, "--name", "server-1", home="h", code=4)
    done = place.say("enrol", fleet, "--name", "laptop-0417", "-o", "json", home="h")
    assert json.loads(done.stdout)["principal"] == "laptop-0417"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("laptop-0417", "--uses", "2"),
        ("--prefix", "laptop-"),
        ("--prefix", "laptop-", "--uses", "0"),
        ("--prefix", "laptop-", "--uses", "2", "--replace"),
        ("--prefix", "laptop-", "--uses", "2", "laptop-0417"),
        ("laptop-0417", "--send"),
        ("laptop-0417", "--send", "--replace"),
        ("laptop-0417", "--for", "card"),
        ("--prefix", "laptop-", "--uses", "2", "--for", "host-card"),
        ("--for", "host-card", "--send"),
        ("other-host", "--for", "host-card"),
    ],
    ids=" ".join,
)
def test_an_invitation_that_makes_no_sense_is_a_usage_error(place: Place, words: tuple[str, ...]) -> None:
    """Nothing is printed or sent."""
    place.file("host-card", place.say("card", "laptop-0417", home="host").stdout_bytes)
    words = tuple(str(place.folder / word) if word.endswith("card") else word for word in words)
    result = place.say("invite", *words, home="alice", code=2)
    assert result.stdout == ""
    assert place.authority.received == []


# ---- a key that the host makes ----


def test_a_host_enrols_by_the_key_of_its_own_card(place: Place) -> None:
    """The card is the same each time; nobody else can use the file; the key is gone afterwards."""
    printed = place.say("card", "laptop-0417", home="host")
    assert place.say("card", "laptop-0417", home="host").stdout == printed.stdout
    assert json.loads(printed.stdout).keys() == {"format", "principal", "one_time_key"}
    card = place.file("card.json", printed.stdout_bytes)
    invited = place.say("invite", "--for", card, home="alice")
    document = json.loads(invited.stdout)
    assert document["one_time_key"] is None
    key_id = printed.stderr.partition("one-time key ")[2].split(";")[0]
    assert f"one-time key  {key_id}, not in the file: no officer can use it" in invited.stderr
    inv = place.file("inv.json", invited.stdout_bytes)
    refused = place.say("enrol", inv, "-o", "json", home="elsewhere", code=4)
    assert error_of(refused)["code"] == "invitation_invalid"
    assert "strongroom card" in error_of(refused)["hint"]
    place.say("enrol", inv, home="host")
    assert not (place.folder / "host" / "one-time.key").exists()


def test_a_card_that_is_none_is_refused_with_what_to_do(place: Place) -> None:
    """An officer's card has other members."""
    card = place.file("card.json", b'{"name": "alice"}')
    result = place.say("invite", "--for", card, home="alice", code=1)
    assert "enrolment card" in result.stderr
    assert "strongroom card NAME" in result.stderr


def test_a_countersigning_officer_is_told_what_the_signature_does(place: Place) -> None:
    """Whom it replaces, the key's id, until when, by whom, and whether the officers could use it."""
    card = place.file("card.json", place.say("card", "laptop-0417", home="host").stdout_bytes)
    for words, said in (
        (("--for", card), "not in the file: no officer can use it"),
        (("laptop-0417",), "the officers too"),
    ):
        first = place.say("invite", "--replace", *words, home="alice")
        assert "signed by     alice; signatures still needed: 1" in first.stderr
        both = place.say("countersign", place.file("inv.json", first.stdout_bytes), home="bob")
        _, invitation = InvitationFile.parse(both.stdout_bytes).check(_now())
        assert f"invitation {invitation.id} replaces the key of laptop-0417" in both.stderr
        assert "one-time key  " in both.stderr
        assert said in both.stderr
        assert "expires       20" in both.stderr
        assert "signed by     alice, bob" in both.stderr
        assert "still needed" not in both.stderr


# ---- signatures over the queue ----


def sent_invitation(place: Place) -> tuple[str, bytes]:
    """Let alice invite a host by its card and send that; return id and file."""
    card = place.file("card.json", place.say("card", "laptop-0417", home="host").stdout_bytes)
    result = place.say("invite", "laptop-0417", "--replace", "--for", card, "--send", home="alice")
    document = result.stdout_bytes
    identifier = str(json.loads(InvitationFile.parse(document).invitation.body)["id"])
    assert "recovery log, index 0, tree size 1: verified; signed by alice" in result.stderr
    assert f"other officers run `strongroom countersign {identifier}`" in result.stderr
    return identifier, document


def test_officers_complete_an_invitation_over_the_queue(place: Place) -> None:
    """Only ids go from one to the other; the second prints the file, and the host enrols by it."""
    identifier, _ = sent_invitation(place)
    result = place.say("countersign", identifier, "--yes", home="bob")
    assert "replaces the key of laptop-0417" in result.stderr
    assert "signed by alice, bob" in result.stderr
    place.say("enrol", place.file("inv.json", result.stdout_bytes), home="host")
    place.say("countersign", identifier, "--yes", home="bob", code=3)


def test_without_a_terminal_an_id_is_not_signed_unseen(place: Place) -> None:
    """The signature would be out once it is made."""
    identifier, _ = sent_invitation(place)
    before = len(place.authority.received)
    result = place.say("countersign", identifier, home="bob", code=2)
    assert "--yes" in result.stderr
    assert len(place.authority.received) == before


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("y\n", 0)])
def test_on_a_terminal_it_is_shown_and_asked(
    place: Place, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    """A no signs and prints nothing."""
    identifier, _ = sent_invitation(place)
    monkeypatch.setattr(output, "somebody_is_there", lambda: True)
    result = place.say("countersign", identifier, home="bob", code=code, stdin=answer)
    assert "replaces the key of laptop-0417" in result.stderr.partition("Sign it?")[0]
    assert bool(result.stdout) == (code == 0)
    leaves = [parse_leaf(leaf) for leaf in place.authority.recovery_log.leaves]
    signers = [leaf.officers for leaf in leaves if isinstance(leaf, InvitationLeaf)]
    assert (["alice", "bob"] in signers) == (code == 0)


def test_who_has_signed_already_sends_nothing_and_may_print(place: Place) -> None:
    """Incomplete, it is printed only when asked for."""
    identifier, document = sent_invitation(place)
    before = place.authority.recovery_log.size
    result = place.say("countersign", identifier, "--yes", home="alice")
    assert (result.stdout, "you have signed it already" in result.stderr) == ("", True)
    printed = place.say("countersign", identifier, "--yes", "--print", home="alice")
    assert json.loads(printed.stdout)["invitation"] == json.loads(document)["invitation"]
    assert place.authority.recovery_log.size == before


def test_an_invitation_that_is_nowhere_is_not_found(place: Place) -> None:
    """The hint says where it may be."""
    result = place.say("countersign", new_id(), "--yes", home="bob", code=3)
    assert "countersign FILE --send" in result.stderr


def test_a_hosts_home_countersigns_nothing(place: Place) -> None:
    """Nothing is sent from it."""
    invited = place.say("invite", "laptop-0417", home="alice")
    place.say("enrol", place.file("inv.json", invited.stdout_bytes), home="host")
    before = len(place.authority.received)
    place.say("countersign", new_id(), "--yes", home="host", code=2)
    assert len(place.authority.received) == before


def test_a_file_that_is_not_there_is_named(place: Place) -> None:
    """It is neither a file nor an id."""
    assert "nothing-here" in place.say("countersign", "nothing-here", home="bob", code=2).stderr


def test_the_signatures_of_a_file_can_be_sent_too(place: Place) -> None:
    """When sending it failed at first; a file with a secret is refused with a hint."""
    _, document = sent_invitation(place)
    inv = place.file("inv.json", document)
    assert "signed by alice, bob" in place.say("countersign", inv, "--send", home="bob").stderr
    secret = place.say("invite", "laptop-0417", "--replace", home="alice").stdout_bytes
    refused = place.say("countersign", place.file("inv2.json", secret), "--send", home="bob", code=2)
    assert "strongroom card" in refused.stderr


@pytest.fixture
def three(authority: FakeAuthority) -> FakeAuthority:
    """Three officers have to sign."""
    authority._policy = Policy(replacement_signatures=3)
    return authority


@pytest.mark.usefixtures("three")
def test_the_file_of_who_signs_last_has_all_signatures(place: Place) -> None:
    """Three officers, one after the other."""
    place.found_officers("carol")
    identifier, _ = sent_invitation(place)
    second = place.say("countersign", identifier, "--yes", home="bob")
    assert (second.stdout, f"countersign {identifier}" in second.stderr) == ("", True)
    third = place.say("countersign", identifier, "--yes", home="carol")
    InvitationFile.parse(third.stdout_bytes).check(_now())


@pytest.mark.usefixtures("three")
def test_officers_who_sign_at_the_same_time_get_one_complete_file(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one reads, the other signs: the authority has put the signatures together."""
    place.found_officers("carol")
    identifier, _ = sent_invitation(place)
    send: Callable[..., Any] = Agent.send_invitation
    meanwhile = [True]

    async def late(self: Agent, issued: IssuedInvitation, *, wait_seconds: float) -> SentInvitation:
        if meanwhile:
            meanwhile.clear()
            with Agent.open(place.folder / "carol") as carol:
                docket = await carol.docket(limit=1)
                found = received(find(docket.invitations, identifier), place.folder / "carol")
                await send(carol, countersign(found.document, place.folder / "carol"), wait_seconds=wait_seconds)
        sent: SentInvitation = await send(self, issued, wait_seconds=wait_seconds)
        return sent

    monkeypatch.setattr(Agent, "send_invitation", late)
    result = place.say("countersign", identifier, "--yes", home="bob")
    InvitationFile.parse(result.stdout_bytes).check(_now())
    assert "still needed" not in result.stderr.partition("receipt")[2]


def test_whoever_asks_is_given_the_complete_file_and_signs_no_more(place: Place) -> None:
    """An officer whose signature is not needed, and the one who sent it first."""
    place.found_officers("carol")
    identifier, _ = sent_invitation(place)
    complete = place.say("countersign", identifier, "--yes", home="bob")
    for name, words in (("carol", "it is complete"), ("alice", "you have signed it already")):
        result = place.say("countersign", identifier, "--yes", home=name)
        assert json.loads(result.stdout)["invitation"] == json.loads(complete.stdout)["invitation"]
        assert words in result.stderr


def test_a_signature_that_adds_nothing_says_so(place: Place) -> None:
    """Of a file: signed already by the same officer, and complete without."""
    place.found_officers("carol")
    one = place.file("one.json", place.say("invite", "laptop-0417", "--replace", home="alice").stdout_bytes)
    again = place.say("countersign", one, home="alice")
    assert "you have signed it already: nothing was added" in again.stderr
    assert json.loads(again.stdout)["invitation"] == json.loads(Path(one).read_bytes())["invitation"]
    both = place.say("countersign", one, home="bob")
    for words in ("already", "no more signatures"):
        assert words not in both.stderr
    two = place.file("two.json", both.stdout_bytes)
    assert "it needed no more signatures" in place.say("countersign", two, home="carol").stderr


def test_a_folder_that_made_a_card_before_says_so(place: Place) -> None:
    """The cards have one key, so only one name can enrol there."""
    first = place.say("card", "laptop-0417", home="host")
    second = place.say("card", "laptop-0418", home="host")
    assert "before" not in first.stderr
    assert "this folder had made that key for a card before" in second.stderr
    keys = {json.loads(each.stdout)["one_time_key"] for each in (first, second)}
    assert len(keys) == 1


def test_a_hosts_home_is_no_officers(place: Place) -> None:
    """Approving, revoking and inviting from it say so."""
    inv = place.file("inv.json", place.say("invite", "laptop-0417", home="alice").stdout_bytes)
    place.say("enrol", inv, home="h")
    for words in (
        ("approve", new_id(), "--yes"),
        ("revoke", "laptop-0417", "--reason", "a test", "--yes"),
        ("invite", "laptop-0418"),
    ):
        assert "this home is a host's, not an officer's" in place.say(*words, home="h", code=4).stderr


def test_a_name_that_can_be_nobodys_is_a_usage_error(place: Place) -> None:
    """In words of our own, and before anything is signed."""
    for words in (
        ("invite", "Laptop"),
        ("revoke", "Laptop", "--reason", "a test", "--yes"),
        ("records", "--principal", "Laptop"),
        ("requests", "--principal", "Laptop"),
    ):
        told = place.say(*words, home="alice", code=2)
        assert "'Laptop' must be 3 to 64 of a-z, 0-9 and -" in told.stderr
        assert told.stdout == ""
    told = place.say("invite", "--prefix", "Laptop", "--uses", "2", home="alice", code=2)
    assert "--prefix: 'Laptop' must be 1 to 63 of a-z, 0-9 and -" in told.stderr
    told = place.say("revoke", "laptop-0417", "--key", "1", "--reason", "a test", "--yes", home="alice", code=2)
    assert "--key '1': must be a key id (32 hex digits)" in told.stderr


def test_a_refused_enrolment_says_what_becomes_of_its_folder(place: Place) -> None:
    """And how to get an invitation that replaces; the folder that it names is free after it is deleted."""
    inv = place.file("inv.json", place.say("invite", "laptop-0417", home="alice").stdout_bytes)
    place.say("enrol", inv, home="h")
    again = place.file("again.json", place.say("invite", "laptop-0417", home="alice").stdout_bytes)
    refused = place.say("enrol", again, home="h2", code=4)
    assert f"delete {place.folder / 'h2'} first: no key was ever handed over in it" in refused.stderr
    other = place.file("other.json", place.say("invite", "laptop-0418", home="alice").stdout_bytes)
    place.say("enrol", other, home="h2", code=2)
    shutil.rmtree(place.folder / "h2")
    place.say("enrol", other, home="h2")


# ---- the root key ----


def test_a_host_compares_the_root_key_or_names_it(place: Place) -> None:
    """By file or by id; another one is refused with both ids, and nothing is made."""
    authority = place.authority
    inv = place.file("inv.json", place.say("invite", "laptop-0417", home="alice").stdout_bytes)
    other = FakeAuthority()
    other_pub = place.file("other.pub", _pub(other))
    refused = place.say("enrol", inv, "--root-key", other_pub, home="h", code=1)
    assert authority.root.key_id in refused.stderr
    assert other.root.key_id in refused.stderr
    place.say("enrol", inv, "--root-key", other.root.key_id, home="h", code=1)
    nothing = place.say("enrol", inv, "--root-key", "deadbeef", home="h", code=2)
    assert "'deadbeef': neither a file nor a key id (32 hex digits)" in nothing.stderr
    assert not (place.folder / "h").exists()
    told = place.say("enrol", inv, home="h")
    assert f"root key    {authority.root.key_id}: compare it with `strongroom authority show FOLDER`" in told.stdout
    for named in (place.file("root.pub", _pub(authority)), authority.root.key_id):
        again = place.say("enrol", inv, "--root-key", named, "-o", "json", home="h")
        assert json.loads(again.stdout)["root_key_id"] == authority.root.key_id


def _pub(authority: FakeAuthority) -> bytes:
    return b64encode(authority.root.public_key) + b"\n"
