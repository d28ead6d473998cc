import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.agents import NOW, Clock

from strongroom import limits
from strongroom.crypto.signing import SigningKey
from strongroom.errors import (
    ConfigurationInvalid,
    Expired,
    InvitationInvalid,
    KeyFileInvalid,
    LimitExceeded,
    MalformedStatement,
    OfficerUnknown,
    RosterInvalid,
    UsageError,
    WrongAuthority,
)
from strongroom.mandates import Invitation
from strongroom.statements import Statement, canonical_json
from strongroom.testing import FakeAuthority
from strongroom_agent.cards import make_card
from strongroom_agent.home import Home
from strongroom_agent.identity import attach, create_officer_home
from strongroom_agent.invitation import InvitationFile, countersign, invite
from strongroom_agent.state import State
from strongroom_agent.trust import Trust, newest_roster

Make = Callable[[str], Home]


def changed(document: bytes, **members: object) -> bytes:
    """Replace members of an invitation file; None for `drop` removes one."""
    return canonical_json({**json.loads(document), **members})


def resigned(document: bytes, *keys: SigningKey, **body: object) -> bytes:
    """Sign another body in the place of an invitation's."""
    file = InvitationFile.parse(document)
    content = {**json.loads(file.invitation.body), **body}
    return changed(document, invitation=Statement.sign(Invitation.TYPE, canonical_json(content), *keys).document())


def test_an_invitation_holds_up_to_the_root_key_and_brings_the_fleets_broker(officer_home: Make) -> None:
    """What the officer writes is what the host will verify, and names the URL for hosts and the CA."""
    issued = invite(officer_home("alice").path, "laptop-0417", now=NOW)
    file = InvitationFile.parse(issued.document)
    _, invitation = file.check(NOW)
    assert (invitation.principal, invitation.replaces) == ("laptop-0417", False)
    assert file.broker_url == "amqps://fleet:hidden@broker.example/strongroom"
    assert file.broker_ca == "officers' CA\n"
    assert (issued.signed_by, issued.signatures_missing) == (("alice",), 0)


def test_an_invitation_shows_neither_key_nor_broker_url_in_its_repr(officer_home: Make) -> None:
    """The document is a secret, and so is the URL."""
    issued = invite(officer_home("alice").path, "laptop-0417", now=NOW)
    for shown in (repr(issued), repr(InvitationFile.parse(issued.document))):
        assert "hidden" not in shown
        assert json.loads(issued.document)["one_time_key"] not in shown


def test_a_replacing_invitation_counts_distinct_officers(officer_home: Make) -> None:
    """Each countersignature counts once; the same officer twice is one."""
    alice, bob = officer_home("alice"), officer_home("bob")
    first = invite(alice.path, "laptop-0417", now=NOW, replaces=True)
    assert first.signatures_missing == 1
    with pytest.raises(InvitationInvalid, match="policy asks for 2"):
        InvitationFile.parse(first.document).check(NOW)
    again = countersign(first.document, alice.path, now=NOW)
    assert (again.signed_by, again.signatures_missing) == (("alice",), 1)
    both = countersign(again.document, bob.path, now=NOW)
    assert (set(both.signed_by), both.signatures_missing) == ({"alice", "bob"}, 0)
    InvitationFile.parse(both.document).check(NOW)


def test_a_countersigned_file_carries_the_newest_roster_of_both(
    officer_home: Make, authority: FakeAuthority
) -> None:
    """The countersigning officer's roster is newer: it names one officer more."""
    alice = officer_home("alice")
    first = invite(alice.path, "laptop-0417", now=NOW, replaces=True)
    both = countersign(first.document, officer_home("bob").path, now=NOW)
    assert InvitationFile.parse(both.document).check(NOW)[0].digest == authority.roster.digest


def test_an_officer_whose_roster_is_older_than_the_files_learns_of_it(
    officer_home: Make, authority: FakeAuthority
) -> None:
    """Otherwise the signature of an officer who is new would not count."""
    alice = officer_home("alice")
    bob = officer_home("bob")
    first = invite(bob.path, "laptop-0417", now=NOW, replaces=True)
    both = countersign(first.document, alice.path, now=NOW)
    assert both.signatures_missing == 0
    assert newest_roster(alice).digest == authority.roster.digest


@pytest.mark.parametrize("life", [1, limits.INVITATION_LIFE_SECONDS_MAX])
def test_an_invitation_may_live_up_to_its_limit(officer_home: Make, life: int) -> None:
    """Both ends of the range are usable."""
    issued = invite(officer_home("alice").path, "laptop-0417", now=NOW, life_seconds=life)
    assert issued.invitation.expires_at == NOW + life


@pytest.mark.parametrize("life", [0, -1, limits.INVITATION_LIFE_SECONDS_MAX + 1])
def test_an_invitation_may_not_live_beyond_its_limit(officer_home: Make, life: int) -> None:
    """The limit is named in the error."""
    with pytest.raises(LimitExceeded, match="life"):
        invite(officer_home("alice").path, "laptop-0417", now=NOW, life_seconds=life)


@pytest.mark.parametrize("principal", ["ab", "a" * 65, "Laptop", "a_b", ""])
def test_nobody_is_invited_under_a_name_that_is_none(officer_home: Make, principal: str) -> None:
    """The field is named."""
    with pytest.raises((LimitExceeded, MalformedStatement), match="principal"):
        invite(officer_home("alice").path, principal, now=NOW)


def test_only_an_officer_of_the_roster_invites(officer_home: Make, authority: FakeAuthority) -> None:
    """A home whose key the newest roster does not name, under that name, signs nothing."""
    alice, bob = officer_home("alice"), officer_home("bob")
    authority.name_officer("alice", SigningKey.generate().public_key)
    attach(
        bob,
        root_key=authority.root.public_key,
        roster=authority.roster.statement.envelope(),
        broker_url=None,
        broker_ca=None,
        now=NOW,
    )
    file = invite(bob.path, "laptop-0417", now=NOW, replaces=True).document
    with pytest.raises(OfficerUnknown):
        countersign(file, alice.path, now=NOW)


def test_an_officer_whose_key_the_roster_no_longer_names_invites_nobody(
    officer_home: Make, authority: FakeAuthority
) -> None:
    """The host would refuse it; better here."""
    alice = officer_home("alice")
    authority.name_officer("alice", SigningKey.generate().public_key)
    with State.open(alice.state_file) as state:
        Trust.of(alice, state).adopt(authority.roster.statement, NOW)
    with pytest.raises(OfficerUnknown, match="another key"):
        invite(alice.path, "laptop-0417", now=NOW)


def test_an_officer_does_not_countersign_for_another_authority(
    officer_home: Make, authority: FakeAuthority
) -> None:
    """One root key may sign for two."""
    alice = officer_home("alice")
    document = resigned(
        authority.invitation_file("laptop-0417"), authority.officers["officer-1"], authority="other.example"
    )
    with pytest.raises(WrongAuthority):
        countersign(document, alice.path, now=NOW)


def test_a_home_whose_key_file_was_exchanged_signs_nothing(officer_home: Make) -> None:
    """The configuration says which key it was made with; the folder of keys is private."""
    alice, bob = officer_home("alice"), officer_home("bob")
    bob.signing_key_file.replace(alice.signing_key_file)
    with pytest.raises(KeyFileInvalid, match="is not the key"):
        invite(alice.path, "laptop-0417", now=NOW)
    alice.keys.chmod(0o755)
    with pytest.raises(ConfigurationInvalid, match="others may use it"):
        invite(alice.path, "laptop-0417", now=NOW)


def test_an_officer_without_roster_signs_nothing(tmp_path: Path) -> None:
    """The error says what is missing."""
    home = create_officer_home(tmp_path / "carol", "carol", passphrase=None)
    with pytest.raises(ConfigurationInvalid, match="no roster"):
        invite(home.path, "laptop-0417", now=NOW)


def test_an_officer_with_an_expired_roster_signs_nothing(officer_home: Make, authority: FakeAuthority) -> None:
    """Nobody knows any more who the officers are."""
    alice = officer_home("alice")
    with pytest.raises(Expired):
        invite(alice.path, "laptop-0417", now=authority.roster.body.expires_at + limits.CLOCK_SKEW_SECONDS + 1)


def test_an_officer_does_not_countersign_for_another_root_key(officer_home: Make, clock: Clock) -> None:
    """Another authority's file is refused by its root key."""
    with pytest.raises(RosterInvalid, match="root_key"):
        countersign(FakeAuthority(clock=clock).invitation_file("laptop-0417"), officer_home("alice").path, now=NOW)


def test_an_officer_does_not_countersign_what_is_expired_or_lives_too_long(
    officer_home: Make, authority: FakeAuthority
) -> None:
    """Signing it would only make it look good."""
    alice = officer_home("alice")
    document = authority.invitation_file("laptop-0417")
    with pytest.raises(Expired):
        countersign(document, alice.path, now=NOW + 3600 + limits.CLOCK_SKEW_SECONDS + 1)
    long = resigned(
        document, authority.officers["officer-1"], expires_at=NOW + limits.INVITATION_LIFE_SECONDS_MAX + 1
    )
    with pytest.raises(LimitExceeded):
        countersign(long, alice.path, now=NOW)


# ---- for many, and for the key of a host ----


def test_an_invitation_of_many_names_prefix_and_uses(officer_home: Make) -> None:
    """It replaces nothing, and its one-time key is in the file."""
    issued = invite(officer_home("alice").path, prefix="laptop-", uses=50, now=NOW)
    _, invitation = InvitationFile.parse(issued.document).check(NOW)
    assert (invitation.principal, invitation.prefix, invitation.uses) == (None, "laptop-", 50)
    assert not invitation.replaces
    assert not issued.host_made_key


@pytest.mark.parametrize(
    "members",
    [
        {"prefix": ""},
        {"prefix": "Laptop"},
        {"prefix": "a" * 64},
        {"prefix": "laptop-", "uses": 0},
        {"prefix": "laptop-", "uses": limits.INVITATION_USES_MAX + 1},
        {"prefix": "laptop-", "replaces": True},
        {"prefix": "laptop-", "principal": "laptop-0417"},
        {"principal": "laptop-0417", "uses": 2},
        {},
    ],
    ids=str,
)
def test_an_invitation_that_nobody_would_accept_is_not_signed(
    officer_home: Make, members: dict[str, object]
) -> None:
    """Exactly one of principal and prefix, and bounds on how often."""
    with pytest.raises((LimitExceeded, MalformedStatement)):
        invite(officer_home("alice").path, now=NOW, **members)  # type: ignore[arg-type]


def test_an_invitation_for_a_card_holds_no_secret(officer_home: Make, tmp_path: Path) -> None:
    """It names principal and key of the card; the private half is nowhere but in the host's folder."""
    card = make_card(tmp_path / "host", "laptop-0417", passphrase=None)
    issued = invite(officer_home("alice").path, card=card, now=NOW)
    file = InvitationFile.parse(issued.document)
    _, invitation = file.check(NOW)
    assert (invitation.principal, invitation.one_time_key) == ("laptop-0417", card.one_time_key)
    assert json.loads(issued.document)["one_time_key"] is file.one_time_key is None
    assert issued.host_made_key


@pytest.mark.parametrize("members", [{"principal": "laptop-0418"}, {"prefix": "laptop-", "uses": 2}])
def test_a_card_is_not_used_for_anybody_else(
    officer_home: Make, tmp_path: Path, members: dict[str, object]
) -> None:
    """Whoever holds its key could enrol under the other name."""
    card = make_card(tmp_path / "host", "laptop-0417", passphrase=None)
    with pytest.raises(UsageError, match="that of laptop-0417"):
        invite(officer_home("alice").path, card=card, now=NOW, **members)  # type: ignore[arg-type]


@pytest.mark.parametrize("host_made", [True, False])
def test_both_kinds_of_file_are_countersigned(officer_home: Make, tmp_path: Path, *, host_made: bool) -> None:
    """The second signature leaves the one-time key as it is: in the file, or not."""
    card = make_card(tmp_path / "host", "laptop-0417", passphrase=None) if host_made else None
    first = invite(officer_home("alice").path, "laptop-0417", card=card, replaces=True, now=NOW)
    both = countersign(first.document, officer_home("bob").path, now=NOW)
    assert json.loads(both.document)["one_time_key"] == json.loads(first.document)["one_time_key"]
    assert (both.host_made_key, both.signatures_missing) == (host_made, 0)
    InvitationFile.parse(both.document).check(NOW)


# ---- what a host is given ----


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"format": "strongroom-invitation/v2"}, "format"),
        ({"extra": 1}, "members"),
        ({"broker": {"url": "amqp://x"}}, "broker"),
        ({"broker": {"url": 5, "ca": None}}, "url"),
        ({"broker": {"url": "amqp://x", "ca": 5}}, "ca"),
        ({"one_time_key": b64encode(b"k" * 31).decode()}, "one_time_key"),
        ({"one_time_key": 5}, "one_time_key"),
        ({"one_time_key": ""}, "one_time_key"),
        ({"root_key": b64encode(b"k" * 33).decode()}, "root_key"),
        ({"root_key": "=="}, "root_key"),
        ({"roster": []}, "envelope"),
        ({"invitation": {"payload": ""}}, "envelope"),
    ],
)
def test_a_misshapen_file_is_refused_by_the_name_of_the_member(
    authority: FakeAuthority, members: dict[str, object], named: str
) -> None:
    """Nothing unknown, missing or of another length passes."""
    with pytest.raises(InvitationInvalid, match=named):
        InvitationFile.parse(changed(authority.invitation_file("laptop-0417"), **members))


@pytest.mark.parametrize(
    "document", [b"", b"\xff", b"[]", b"null", b'{"format": 1, "format": 1}', b" " * 4_194_305]
)
def test_what_is_no_file_at_all_is_refused(document: bytes) -> None:
    """Also when it is larger than any file can be."""
    with pytest.raises(InvitationInvalid):
        InvitationFile.parse(document)


def test_a_one_time_key_other_than_the_signed_one_is_refused(authority: FakeAuthority) -> None:
    """The enrolment would be refused later; better here."""
    other = b64encode(SigningKey.generate().seed().expose()).decode()
    with pytest.raises(InvitationInvalid, match="one_time_key"):
        InvitationFile.parse(changed(authority.invitation_file("laptop-0417"), one_time_key=other)).check(NOW)


def test_a_roster_that_the_files_root_key_did_not_sign_is_refused(authority: FakeAuthority, clock: Clock) -> None:
    """The file's root key vouches for everything in it."""
    stranger = FakeAuthority(clock=clock)
    mixed = changed(authority.invitation_file("laptop-0417"), root_key=b64encode(stranger.root.public_key).decode())
    with pytest.raises(RosterInvalid):
        InvitationFile.parse(mixed).check(NOW)


def test_an_expired_roster_and_an_expired_or_future_invitation_are_refused(
    authority: FakeAuthority, clock: Clock
) -> None:
    """Each at the first second beyond the clock skew, and not before."""
    clock.seconds += 500
    issued = NOW + 500
    file = InvitationFile.parse(authority.invitation_file("laptop-0417", life_seconds=1000))
    skew = limits.CLOCK_SKEW_SECONDS
    file.check(issued + 1000 + skew)
    file.check(issued - skew)
    with pytest.raises(Expired, match="expires_at"):
        file.check(issued + 1000 + skew + 1)
    with pytest.raises(Expired, match="issued_at"):
        file.check(issued - skew - 1)
    clock.seconds = NOW
    authority.renew_roster(expires_at=NOW + 10)
    file = InvitationFile.parse(authority.invitation_file("laptop-0417", life_seconds=1000))
    file.check(NOW + 10 + skew)
    with pytest.raises(Expired, match="roster"):
        file.check(NOW + 10 + skew + 1)


def test_an_invitation_signed_by_nobody_of_the_roster_is_refused(authority: FakeAuthority) -> None:
    """A stranger's signature does not count."""
    document = resigned(authority.invitation_file("laptop-0417"), SigningKey.generate())
    with pytest.raises(InvitationInvalid):
        InvitationFile.parse(document).check(NOW)


def test_an_invitation_of_another_authority_is_refused(authority: FakeAuthority) -> None:
    """Even when an officer of this one signed it."""
    document = resigned(
        authority.invitation_file("laptop-0417"), authority.officers["officer-1"], authority="other.example"
    )
    with pytest.raises(WrongAuthority):
        InvitationFile.parse(document).check(NOW)


# ---- attaching an officer's home to its authority ----


def test_a_pinned_root_key_never_changes(officer_home: Make, clock: Clock) -> None:
    """Another authority with the same officer cannot take the home over."""
    alice = officer_home("alice")
    stranger = FakeAuthority(clock=clock)
    stranger.name_officer("alice", alice.config.public_key)
    with pytest.raises(RosterInvalid, match="another one is pinned"):
        attach(
            alice,
            root_key=stranger.root.public_key,
            roster=stranger.roster.statement.envelope(),
            broker_url=None,
            broker_ca=None,
            now=NOW,
        )
    assert Home.open(alice.path) == alice


def test_an_expired_roster_is_not_attached(authority: FakeAuthority, tmp_path: Path) -> None:
    """Neither as the first one."""
    home = create_officer_home(tmp_path / "alice", "alice", passphrase=None)
    authority.name_officer("alice", home.config.public_key)
    with pytest.raises(Expired):
        attach(
            home,
            root_key=authority.root.public_key,
            roster=authority.roster.statement.envelope(),
            broker_url=None,
            broker_ca=None,
            now=authority.roster.body.expires_at + limits.CLOCK_SKEW_SECONDS + 1,
        )
    assert Home.open(home.path).config.root_key is None


def test_an_older_roster_is_not_attached(officer_home: Make, authority: FakeAuthority) -> None:
    """The newest one stays."""
    alice = officer_home("alice")
    older = authority.roster.statement.envelope()
    officer_home("bob")
    attach(
        alice,
        root_key=authority.root.public_key,
        roster=authority.roster.statement.envelope(),
        broker_url=None,
        broker_ca=None,
        now=NOW,
    )
    with pytest.raises(RosterInvalid, match="older"):
        attach(alice, root_key=authority.root.public_key, roster=older, broker_url=None, broker_ca=None, now=NOW)
    assert newest_roster(alice).digest == authority.roster.digest


def test_a_roster_that_does_not_name_the_homes_key_is_not_attached(
    authority: FakeAuthority, tmp_path: Path
) -> None:
    """Also when it names the officer with another key."""
    home = create_officer_home(tmp_path / "officer-1", "officer-1", passphrase=None)
    with pytest.raises(OfficerUnknown):
        attach(
            home,
            root_key=authority.root.public_key,
            roster=authority.roster.statement.envelope(),
            broker_url=None,
            broker_ca=None,
            now=NOW,
        )


@pytest.mark.parametrize("name", ["A", "ab", "with space", "a" * 65])
def test_an_officer_has_an_officers_name(tmp_path: Path, name: str) -> None:
    """Nothing is made under any other."""
    with pytest.raises(UsageError):
        create_officer_home(tmp_path / "home", name, passphrase=None)
    assert not (tmp_path / "home").exists()
