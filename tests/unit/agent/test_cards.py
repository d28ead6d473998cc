import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.agents import Clock, lost, once

from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import (
    BrokerUnavailable,
    Busy,
    ConfigurationInvalid,
    InvitationInvalid,
    KeyFileInvalid,
    MalformedStatement,
    NoAnswer,
    UsageError,
)
from strongroom.testing import FakeAuthority
from strongroom_agent.agent import Agent
from strongroom_agent.cards import EnrolmentCard, make_card
from strongroom_agent.enrolment import Enrolled, enrol
from strongroom_agent.home import Home, lock_folder
from strongroom_agent.identity import create_officer_home

PASSPHRASE = Secret(b"open sesame")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new-home"


class Host:
    """A host that makes its one-time key itself, and enrols without waiting."""

    def __init__(self, path: Path, authority: FakeAuthority, clock: Clock) -> None:
        self.path, self.authority, self.clock = path, authority, clock
        self.key_file = path / "one-time.key"

    def card(self, principal: str = "laptop-0417", passphrase: Secret | None = None) -> EnrolmentCard:
        """Print the card."""
        return make_card(self.path, principal, passphrase=passphrase)

    def invitation(self, card: EnrolmentCard, *, replaces: bool = False) -> bytes:
        """Have officers sign for a card."""
        return self.authority.invitation_file(card.principal, one_time_key=card.one_time_key, replaces=replaces)

    async def enrol(self, document: bytes, passphrase: Secret | None = None) -> Enrolled:
        """Try once."""
        return await enrol(
            self.path,
            document,
            passphrase=passphrase,
            wait_seconds=0,
            connector=self.authority.connect,
            clock=self.clock,
        )


@pytest.fixture
def host(path: Path, authority: FakeAuthority, clock: Clock) -> Host:
    return Host(path, authority, clock)


# ---- making one ----


def test_a_card_is_the_same_each_time(host: Host) -> None:
    """The key is made once, for this user alone, and only its public half is on the card."""
    first = host.card()
    content = host.key_file.read_bytes()
    assert host.card() == first
    assert host.key_file.read_bytes() == content
    assert host.key_file.stat().st_mode & 0o777 == 0o600
    assert host.path.stat().st_mode & 0o777 == 0o700
    assert json.loads(content)["private_key"].encode() not in first.to_bytes()
    assert EnrolmentCard.parse(first.to_bytes()) == first


def test_the_one_time_key_is_under_the_homes_passphrase(host: Host) -> None:
    """Without it there is no card, and no other key is made."""
    first = host.card(passphrase=PASSPHRASE)
    assert json.loads(host.key_file.read_bytes())["protection"]["kdf"] == "argon2id"
    with pytest.raises(KeyFileInvalid):
        host.card()
    assert host.card(passphrase=PASSPHRASE) == first


@pytest.mark.parametrize("name", ["ab", "a" * 65, "Laptop", "a_b", "", "laptop-0417\n"])
def test_nobody_gets_a_card_under_a_name_that_is_none(host: Host, name: str) -> None:
    """Nothing is made for it."""
    with pytest.raises(UsageError, match="principal"):
        host.card(name)
    assert not host.path.exists()


def test_a_folder_that_can_be_no_home_gets_no_key(host: Host) -> None:
    """`enrol` would refuse it later, when officers have signed already."""
    host.path.mkdir(mode=0o700)
    (host.path / "letter").touch()
    with pytest.raises(ConfigurationInvalid, match="not empty"):
        host.card()
    assert not host.key_file.exists()


def test_a_folder_that_others_may_use_gets_no_key(host: Host) -> None:
    """They could exchange it."""
    host.path.mkdir(mode=0o755)
    with pytest.raises(ConfigurationInvalid, match="others may use it"):
        host.card()
    assert not host.key_file.exists()


def test_two_processes_do_not_make_two_keys(host: Host) -> None:
    """One of them is told to come back."""
    host.path.mkdir(mode=0o700)
    with lock_folder(host.path), pytest.raises(Busy):
        host.card()


def test_an_officers_home_gets_no_card(host: Host) -> None:
    """And a folder with the key of a card becomes no officer's home."""
    create_officer_home(host.path, "alice", passphrase=None)
    with pytest.raises(UsageError, match="officer's home"):
        host.card("alice")
    other = host.path.with_name("other")
    make_card(other, "alice", passphrase=None)
    with pytest.raises(ConfigurationInvalid, match="not empty"):
        create_officer_home(other, "alice", passphrase=None)


async def test_an_enrolled_home_gets_no_card(host: Host, authority: FakeAuthority) -> None:
    """Its key is enrolled; a replacement is for a home that is new."""
    await host.enrol(authority.invitation_file("laptop-0417"))
    with pytest.raises(UsageError, match="enrolled as laptop-0417 already"):
        host.card()
    assert not host.key_file.exists()


@pytest.mark.parametrize(
    "members",
    [
        {"format": "strongroom-card/v2"},
        {"format": ...},
        {"principal": "A"},
        {"principal": None},
        {"one_time_key": b64encode(b"k" * 31).decode()},
        {"one_time_key": None},
        {"extra": 1},
    ],
)
def test_a_misshapen_card_is_refused(host: Host, members: dict[str, object]) -> None:
    """Nothing unknown, missing or of another length passes."""
    document = {**json.loads(host.card().to_bytes()), **members}
    content = json.dumps({name: value for name, value in document.items() if value is not ...})
    with pytest.raises(MalformedStatement, match="enrolment card"):
        EnrolmentCard.parse(content.encode())


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"null", b" " * 4_097])
def test_what_is_no_card_at_all_is_refused(content: bytes) -> None:
    """Also when it is larger than a card can be."""
    with pytest.raises(MalformedStatement, match="enrolment card"):
        EnrolmentCard.parse(content)


def test_a_card_that_is_far_too_long_is_refused(host: Host) -> None:
    """However well it reads."""
    content = host.card().to_bytes()
    EnrolmentCard.parse(content.ljust(4_096))
    with pytest.raises(MalformedStatement, match="the limit is 4096 bytes"):
        EnrolmentCard.parse(content.ljust(4_097))


# ---- enrolling by it ----


async def test_a_host_enrols_by_its_own_one_time_key_and_removes_it_then(
    host: Host, authority: FakeAuthority
) -> None:
    """The file held no secret at all."""
    document = host.invitation(host.card())
    assert json.loads(document)["one_time_key"] is None
    done = await host.enrol(document)
    assert authority.recovery_log.size == done.tree_size == 1
    assert not host.key_file.exists()


async def test_a_reinstalled_host_replaces_its_key_by_its_own_one_time_key(
    host: Host, authority: FakeAuthority
) -> None:
    """The way back after a loss needs no secret from the officers either."""
    other = Host(host.path.with_name("lost"), authority, host.clock)
    await other.enrol(authority.invitation_file("laptop-0417"))
    done = await host.enrol(host.invitation(host.card(), replaces=True))
    assert done.log_index == 1


async def test_an_officer_who_has_the_file_cannot_use_it(host: Host, authority: FakeAuthority) -> None:
    """Without the host's one-time key nothing is made, sent or used up; the error says what to do."""
    document = host.invitation(host.card())
    thief = Host(host.path.with_name("thief"), authority, host.clock)
    with pytest.raises(InvitationInvalid, match=r"one_time_key.*does not exist") as caught:
        await thief.enrol(document)
    assert "strongroom card" in str(caught.value.hint)
    assert not thief.path.exists()
    thief.card()
    with pytest.raises(InvitationInvalid, match=r"one_time_key: the invitation is for key .*thief.* is ") as caught:
        await thief.enrol(document)
    assert "strongroom card" in str(caught.value.hint)
    assert sorted(entry.name for entry in thief.path.iterdir()) == ["lock", "one-time.key"]
    assert authority.received == []
    await host.enrol(document)


async def test_the_one_time_key_stays_until_the_receipt_is_here(host: Host, authority: FakeAuthority) -> None:
    """Another invitation for the same card may still be needed."""
    document = host.invitation(host.card())
    authority.alter = once(lost)
    with pytest.raises(NoAnswer):
        await host.enrol(document)
    assert host.key_file.exists()
    await host.enrol(document)
    assert not host.key_file.exists()


async def test_a_sync_that_finishes_the_enrolment_removes_the_key(host: Host, authority: FakeAuthority) -> None:
    """The timer may be earlier than the person."""
    authority.broker_down = True
    with pytest.raises(BrokerUnavailable):
        await host.enrol(host.invitation(host.card()))
    authority.broker_down = False
    with Agent.open(host.path, connector=authority.connect, clock=host.clock) as agent:
        assert (await agent.sync(wait_seconds=0)).error is None
    assert not host.key_file.exists()


@pytest.mark.parametrize("again", ["enrol", "sync"])
async def test_a_key_that_a_crash_left_behind_is_removed_later(
    host: Host, authority: FakeAuthority, again: str
) -> None:
    """The receipt was kept, the key not removed yet."""
    document = host.invitation(host.card())
    content = host.key_file.read_bytes()
    await host.enrol(document)
    host.key_file.write_bytes(content)
    if again == "enrol":
        await host.enrol(document)
    else:
        with Agent.open(host.path, connector=authority.connect, clock=host.clock) as agent:
            await agent.sync(wait_seconds=0)
    assert not host.key_file.exists()


async def test_the_passphrase_opens_the_one_time_key(host: Host, authority: FakeAuthority) -> None:
    """Without it nothing is made or sent."""
    document = host.invitation(host.card(passphrase=PASSPHRASE))
    with pytest.raises(KeyFileInvalid):
        await host.enrol(document)
    assert authority.received == []
    assert not (host.path / "config.toml").exists()
    await host.enrol(document, PASSPHRASE)


async def test_a_half_enrolled_home_takes_a_card_for_its_own_name_only(
    host: Host, authority: FakeAuthority
) -> None:
    """The first invitation went wrong, and officers sign another one for the host's own key."""
    authority.broker_down = True
    with pytest.raises(BrokerUnavailable):
        await host.enrol(authority.invitation_file("laptop-0417"))
    before = Home.open(host.path).config.key_id
    with pytest.raises(UsageError, match="was begun for laptop-0417"):
        host.card("laptop-0418")
    authority.broker_down = False
    document = host.invitation(host.card())
    Host(host.path.with_name("other"), authority, host.clock).card()
    assert (await host.enrol(document)).key_id == before
    assert not host.key_file.exists()


async def test_a_home_whose_making_was_cut_short_keeps_its_one_time_key(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is begun anew is the home; the officers have signed for the key."""
    document = host.invitation(host.card())

    class PowerCut(BaseException):
        pass

    def cut(*_arguments: object, **_named: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr("strongroom_agent.identity.write_signing_key", cut)
        with pytest.raises(PowerCut):
            await host.enrol(document)
    assert host.key_file.exists()
    await host.enrol(document)
    assert not host.key_file.exists()


async def test_a_one_time_key_in_the_file_comes_before_the_hosts_own(host: Host, authority: FakeAuthority) -> None:
    """An officer may still write a file with a secret, although the host has printed a card."""
    host.card()
    await host.enrol(authority.invitation_file("laptop-0417"))
    assert not host.key_file.exists()


def test_a_key_file_that_is_no_key_is_no_card(host: Host) -> None:
    """What is damaged is named, and not overwritten."""
    host.card()
    host.key_file.write_bytes(b"{}")
    with pytest.raises(KeyFileInvalid, match=r"one-time\.key"):
        host.card()
    assert host.key_file.read_bytes() == b"{}"


def test_the_key_of_a_card_is_a_key_of_its_own(officer_home: Callable[[str], Home], host: Host) -> None:
    """Neither an officer's nor another host's."""
    other = make_card(host.path.with_name("other"), "laptop-0417", passphrase=None)
    assert len({host.card().key_id, other.key_id, officer_home("alice").config.key_id}) == 3
    assert SigningKey.generate().key_id != other.key_id


def test_a_card_is_made_although_the_making_of_one_was_cut_short(tmp_path: Path) -> None:
    """What the crash left of the one-time key is gone, and does not make the folder a stranger's."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    (path / f".one-time.key.{'0' * 16}").write_bytes(b"half a key")
    made = make_card(path, "laptop-0417", passphrase=None)
    assert make_card(path, "laptop-0417", passphrase=None) == made
    assert {each.name for each in path.iterdir()} == {"one-time.key", "lock"}
