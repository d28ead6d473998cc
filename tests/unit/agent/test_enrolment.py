import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.agents import NOW, Clock, lost, on, once, rejected_by

from strongroom.crypto.secret import Secret
from strongroom.errors import (
    BrokerUnavailable,
    Busy,
    CheckpointInvalid,
    ConfigurationInvalid,
    Expired,
    InvitationInvalid,
    KeyFileInvalid,
    LogForked,
    NoAnswer,
    PermanentError,
    Rejected,
    ReplyInvalid,
    RosterInvalid,
    UsageError,
)
from strongroom.fields import parse_body
from strongroom.leaves import EnrolmentLeaf, parse_leaf
from strongroom.mandates import Enrolment
from strongroom.replies import Reply
from strongroom.statements import parse_envelope
from strongroom.testing import FakeAuthority, FakeMessage
from strongroom_agent import identity
from strongroom_agent.enrolment import Enrolled, enrol
from strongroom_agent.home import BrokerLogin, Home
from strongroom_agent.state import State


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new-home"


class Host:
    """A host that enrols, as often as it takes, without waiting."""

    def __init__(self, path: Path, authority: FakeAuthority, clock: Clock) -> None:
        self.path, self.authority, self.clock = path, authority, clock

    async def enrol(
        self,
        document: bytes,
        passphrase: Secret | None = None,
        login: BrokerLogin | None = None,
        *,
        name: str | None = None,
        root_key_id: str | None = None,
    ) -> Enrolled:
        """Try once."""
        return await enrol(
            self.path,
            document,
            name=name,
            root_key_id=root_key_id,
            passphrase=passphrase,
            login=login,
            wait_seconds=0,
            connector=self.authority.connect,
            clock=self.clock,
        )

    def statements(self) -> list[bytes]:
        """Return the distinct enrolments that reached the authority."""
        return list(dict.fromkeys(message.body for message in self.authority.received))


@pytest.fixture
def host(path: Path, authority: FakeAuthority, clock: Clock) -> Host:
    return Host(path, authority, clock)


async def test_an_enrolled_host_holds_a_key_that_the_recovery_log_names(
    host: Host, authority: FakeAuthority
) -> None:
    """Leaf, home and report agree; both keys signed."""
    done = await host.enrol(authority.invitation_file("laptop-0417"))
    leaf = parse_leaf(authority.recovery_log.leaves[done.log_index])
    assert isinstance(leaf, EnrolmentLeaf)
    assert (leaf.principal, leaf.key) == ("laptop-0417", done.key_id)
    assert (done.authority, done.roster_version, done.tree_size) == (authority.name, 1, 1)
    assert done.age_recipient.startswith("age1")
    assert identity.signing_key(done.home, None).key_id == done.key_id
    assert len(parse_envelope(host.statements()[0]).signatures) == 2


async def test_no_secret_of_the_invitation_crosses_the_wire(host: Host, authority: FakeAuthority) -> None:
    """The one-time key only signs."""
    document = authority.invitation_file("laptop-0417")
    await host.enrol(document)
    assert json.loads(document)["one_time_key"].encode() not in authority.received[0].body


async def test_a_passphrase_protects_the_signing_key(host: Host, authority: FakeAuthority) -> None:
    """Without it the key cannot be read."""
    done = await host.enrol(authority.invitation_file("laptop-0417"), Secret(b"open sesame"))
    assert identity.signing_key(done.home, Secret(b"open sesame")).key_id == done.key_id
    with pytest.raises(KeyFileInvalid):
        identity.signing_key(done.home, None)


@pytest.mark.parametrize("damage", ["signature", "roster", "expired"])
async def test_nothing_is_made_or_sent_for_a_bad_invitation(
    host: Host, authority: FakeAuthority, clock: Clock, damage: str
) -> None:
    """The invitation is verified first."""
    document = authority.invitation_file("laptop-0417")
    if damage == "signature":
        document = authority.invitation_file("laptop-0417", replaces=True, signers=["officer-1"])
    elif damage == "roster":
        stranger = json.loads(FakeAuthority(clock=clock).invitation_file("laptop-0417"))
        document = json.dumps({**json.loads(document), "roster": stranger["roster"]}).encode()
    else:
        clock.seconds += 3600 + 61
    with pytest.raises((InvitationInvalid, RosterInvalid, Expired)):
        await host.enrol(document)
    assert not host.path.exists()
    assert authority.received == []


async def test_an_enrolment_without_answer_is_sent_again_with_the_same_bytes(
    host: Host, authority: FakeAuthority
) -> None:
    """No second key is made, and the repeat gets the receipt of the first."""
    document = authority.invitation_file("laptop-0417")
    authority.alter = lost
    with pytest.raises(NoAnswer):
        await host.enrol(document)
    authority.alter = once(lost)
    with pytest.raises(NoAnswer):
        await host.enrol(document)
    done = await host.enrol(document)
    assert len(host.statements()) == 1
    assert authority.recovery_log.size == 1
    assert done.log_index == 0


async def test_an_answer_is_waited_for_as_long_as_allowed(
    path: Path, authority: FakeAuthority, clock: Clock
) -> None:
    """A lost answer is followed by another attempt within the same call."""
    authority.alter = once(lost)
    done = await enrol(
        path, authority.invitation_file("laptop-0417"), wait_seconds=30, connector=authority.connect, clock=clock
    )
    assert done.log_index == 0
    assert len(authority.received) == 2


async def test_enrolling_again_with_the_same_file_only_says_so(host: Host, authority: FakeAuthority) -> None:
    """Nothing is sent, also long after the invitation has expired."""
    document = authority.invitation_file("laptop-0417")
    first = await host.enrol(document)
    host.clock.seconds += 86_400
    authority.broker_down = True
    assert await host.enrol(document) == first


async def test_an_enrolment_that_may_be_logged_is_repeated_after_its_invitation_expired(
    host: Host, authority: FakeAuthority
) -> None:
    """Whether it counted is for the authority to say."""
    document = authority.invitation_file("laptop-0417")
    authority.alter = once(lost)
    with pytest.raises(NoAnswer):
        await host.enrol(document)
    host.clock.seconds += 86_400
    assert (await host.enrol(document)).log_index == 0


async def test_an_enrolled_home_takes_no_other_invitation(host: Host, authority: FakeAuthority) -> None:
    """Its spool belongs to the key that it has."""
    await host.enrol(authority.invitation_file("laptop-0417"))
    with pytest.raises(UsageError, match="already"):
        await host.enrol(authority.invitation_file("laptop-0417", replaces=True))


async def test_a_half_enrolled_home_keeps_its_key_for_another_invitation(
    host: Host, authority: FakeAuthority
) -> None:
    """The officer wrote a new file because the first one went wrong; the key stays."""
    authority.broker_down = True
    with pytest.raises(BrokerUnavailable):
        await host.enrol(authority.invitation_file("laptop-0417"))
    before = Home.open(host.path).config.key_id
    authority.broker_down = False
    done = await host.enrol(authority.invitation_file("laptop-0417"))
    assert done.key_id == before
    assert len(host.statements()) == 1


async def test_a_half_enrolled_home_is_not_enrolled_as_somebody_else(host: Host, authority: FakeAuthority) -> None:
    """Another principal needs another home."""
    authority.alter = lost
    with pytest.raises(NoAnswer):
        await host.enrol(authority.invitation_file("laptop-0417"))
    with pytest.raises(UsageError, match="laptop-0417"):
        await host.enrol(authority.invitation_file("laptop-0418"))


async def test_a_half_enrolled_home_trusts_no_other_root_key(
    host: Host, clock: Clock, authority: FakeAuthority
) -> None:
    """The pinned key stays pinned."""
    authority.alter = lost
    with pytest.raises(NoAnswer):
        await host.enrol(authority.invitation_file("laptop-0417"))
    with pytest.raises(RosterInvalid, match="another root key"):
        await host.enrol(FakeAuthority(clock=clock).invitation_file("laptop-0417"))


async def test_a_wrong_broker_in_a_file_is_corrected_by_the_next_file(host: Host, authority: FakeAuthority) -> None:
    """Also when it is the same invitation."""
    document = authority.invitation_file("laptop-0417")
    authority.alter = lost
    with pytest.raises(NoAnswer):
        await host.enrol(document)
    moved = {**json.loads(document), "broker": {"url": "amqps://elsewhere.example/strongroom", "ca": "CA\n"}}
    authority.alter = once(lambda _message, reply: reply)
    done = await host.enrol(json.dumps(moved).encode())
    assert done.home.config.broker_url == "amqps://elsewhere.example/strongroom"
    assert done.home.broker_ca is not None
    assert done.home.broker_ca.read_text() == "CA\n"


async def test_the_next_file_may_be_older_than_what_an_answer_brought(host: Host, authority: FakeAuthority) -> None:
    """The refusal came with a newer roster than the officer had; the newest stays."""
    first = authority.invitation_file("laptop-0417")
    second = authority.invitation_file("laptop-0417", replaces=True)
    await Host(host.path.with_name("other"), authority, host.clock).enrol(first)
    authority.renew_roster()
    with pytest.raises(Rejected):
        await host.enrol(first)
    done = await host.enrol(second)
    assert done.roster_version == 2


async def test_the_next_file_may_be_for_a_broker_that_the_systems_cas_vouch_for(
    host: Host, authority: FakeAuthority
) -> None:
    """The CA of the first file goes away with its broker."""
    authority.alter = lost
    with pytest.raises(NoAnswer):
        await host.enrol(authority.invitation_file("laptop-0417", broker_ca="CA\n"))
    assert Home.open(host.path).broker_ca is not None
    authority.alter = once(lost)
    with pytest.raises(NoAnswer):
        await host.enrol(authority.invitation_file("laptop-0417"))
    assert Home.open(host.path).broker_ca is None


async def test_an_officers_home_is_not_enrolled(
    authority: FakeAuthority, officer_home: object, clock: Clock, tmp_path: Path
) -> None:
    """It has another purpose and no age key."""
    assert callable(officer_home)
    home = officer_home("alice")
    with pytest.raises(UsageError, match="officer"):
        await Host(home.path, authority, clock).enrol(authority.invitation_file("laptop-0417"))
    with pytest.raises(ConfigurationInvalid):
        await Host(tmp_path, authority, clock).enrol(authority.invitation_file("laptop-0417"))


async def test_a_refused_enrolment_says_why(host: Host, authority: FakeAuthority) -> None:
    """A used invitation is refused with the authority's code."""
    document = authority.invitation_file("laptop-0417")
    await host.enrol(document)
    other = Host(host.path.with_name("other"), authority, host.clock)
    with pytest.raises(Rejected) as caught:
        await other.enrol(document)
    assert caught.value.remote_code == "invitation_invalid"


async def test_a_home_in_use_is_busy(host: Host, authority: FakeAuthority) -> None:
    """Two processes do not enrol one home at once."""
    host.path.mkdir(mode=0o700)
    with Home(host.path, None).lock(), pytest.raises(Busy):  # type: ignore[arg-type]
        await host.enrol(authority.invitation_file("laptop-0417"))


# ---- answers that are not to be believed ----


async def refuses(host: Host, error: type[PermanentError | LogForked]) -> None:
    with pytest.raises(error):
        await host.enrol(host.authority.invitation_file("laptop-0417"))
    with State.open(host.path / "state.db") as state:
        assert [each.enrolled_at for each in state.enrolments()] == [None]
        assert state.checkpoint("recovery") is None


async def test_a_receipt_for_another_enrolment_does_not_count(host: Host, authority: FakeAuthority) -> None:
    """The leaf must name this id, digest, principal, key and invitation."""
    await Host(host.path.with_name("other"), authority, host.clock).enrol(authority.invitation_file("laptop-0418"))
    authority.alter = lambda _message, reply: replace(reply, receipt=dict(authority.recovery_log.receipt(0)))
    await refuses(host, ReplyInvalid)


@pytest.mark.parametrize("member", ["id", "digest", "principal", "key", "invitation"])
async def test_a_leaf_that_differs_in_one_member_does_not_count(
    host: Host, authority: FakeAuthority, member: str
) -> None:
    """Even under a checkpoint that the real log signed."""
    other = {
        "id": "01a2050e-1a43-74ad-a430-3b0ef9071f2e",
        "digest": "0" * 64,
        "principal": "laptop-0418",
        "key": "0" * 32,
        "invitation": "01a2050e-1a43-74ad-a430-3b0ef9071f2e",
    }

    def alter(message: FakeMessage, reply: Reply) -> Reply:
        statement = parse_envelope(message.body)
        enrolment = parse_body(statement, Enrolment)
        leaf = parse_leaf(authority.recovery_log.leaves[-1]).model_copy(update={member: other[member]})
        assert enrolment.principal == "laptop-0417"
        index = authority.recovery_log.append(leaf.to_bytes())
        return replace(reply, receipt=dict(authority.recovery_log.receipt(index)))

    authority.alter = alter
    await refuses(host, ReplyInvalid)


async def test_a_receipt_of_another_log_does_not_count(host: Host, authority: FakeAuthority) -> None:
    """The escrow log does not say who speaks for whom, and neither does a stranger's log."""

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        index = authority.escrow_log.append(authority.recovery_log.leaves[-1])
        return replace(reply, receipt=dict(authority.escrow_log.receipt(index)))

    authority.alter = alter
    await refuses(host, CheckpointInvalid)


async def test_an_answer_without_receipt_does_not_count(host: Host, authority: FakeAuthority) -> None:
    """A signed statement is no proof."""
    authority.alter = rejected_by(authority.escrow_reply_key)
    await refuses(host, ReplyInvalid)


async def test_a_roster_that_comes_with_the_answer_is_adopted(host: Host, authority: FakeAuthority) -> None:
    """The file was written under version 1."""
    document = authority.invitation_file("laptop-0417")
    authority.renew_roster()
    assert (await host.enrol(document)).roster_version == 2


async def test_garbage_is_an_invalid_reply(host: Host, authority: FakeAuthority) -> None:
    """Whatever comes in from the broker."""
    authority.alter = on("enrol", lambda _message, _reply: b"\xff garbage")
    await refuses(host, ReplyInvalid)


# ---- a making that was cut short ----


@pytest.mark.parametrize("step", ["write_signing_key", "sync_folder", "write_atomically"])
async def test_a_home_whose_making_was_cut_short_is_begun_anew(
    host: Host, authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Nothing was sent from it, so nothing in it counts; nothing is left of it either."""
    document = json.loads(authority.invitation_file("laptop-0417"))
    document["broker"]["ca"] = "CA\n"

    class PowerCut(BaseException):
        pass

    def cut(*_arguments: object, **_named: object) -> None:
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(identity, step, cut)
        with pytest.raises(PowerCut):
            await host.enrol(json.dumps(document).encode())
    assert not (host.path / "config.toml").exists()
    assert authority.received == []
    done = await host.enrol(json.dumps(document).encode())
    assert identity.signing_key(done.home, None).key_id == done.key_id
    assert {entry.name for entry in host.path.iterdir()} == {
        "broker-ca.pem",
        "config.toml",
        "keys",
        "lock",
        "state.db",
    }
    assert done.roster_expires_at > NOW


# ---- a login of its own ----


async def test_a_host_that_is_given_a_login_of_its_own_uses_it(host: Host, authority: FakeAuthority) -> None:
    """The invitation's URL is not taken; certificate and key lie in the home before anything is sent."""
    login = BrokerLogin(url="amqps://broker.example/strongroom", certificate=b"certificate", key=b"key")
    home = (await host.enrol(authority.invitation_file("laptop-0417"), login=login)).home
    assert home.config.broker_url == login.url
    files = home.broker_certificate()
    assert files is not None
    assert [file.read_bytes() for file in files] == [b"certificate", b"key"]


async def test_an_enrolment_that_was_cut_short_goes_on_with_the_login_it_is_given_then(
    host: Host, authority: FakeAuthority
) -> None:
    """A wrong certificate can be replaced; without a new one it stays, and the URL is the invitation's."""
    document = authority.invitation_file("laptop-0417")
    authority.broker_down = True
    with pytest.raises(BrokerUnavailable):
        await host.enrol(document, login=BrokerLogin(certificate=b"wrong", key=b"wrong key"))
    with pytest.raises(BrokerUnavailable):
        await host.enrol(document, login=BrokerLogin(url="amqps://own", certificate=b"right", key=b"right key"))
    kept = Home.open(host.path)
    assert kept.config.broker_url == "amqps://own"
    authority.broker_down = False
    home = (await host.enrol(document)).home
    files = home.broker_certificate()
    assert files is not None
    assert [file.read_bytes() for file in files] == [b"right", b"right key"]
    assert home.config.broker_url != "amqps://own"


# ---- an invitation of many ----


async def test_a_fleet_enrols_by_one_file_as_often_as_it_says(host: Host, authority: FakeAuthority) -> None:
    """Each host names itself; the next one is refused by the authority."""
    document = authority.invitation_file(None, prefix="laptop-", uses=2)
    for name in ("laptop-0417", "laptop-0418"):
        done = await Host(host.path.with_name(name), authority, host.clock).enrol(document, name=name)
        assert done.principal == done.home.config.name == name
    with pytest.raises(Rejected) as caught:
        await host.enrol(document, name="laptop-0419")
    assert caught.value.remote_code == "invitation_invalid"


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        (None, UsageError, "5 new principals laptop-"),
        ("server-1", InvitationInvalid, "not for server-1"),
        ("my-laptop-1", InvitationInvalid, "not for my-laptop-1"),
        ("laptop-A", UsageError, "--name"),
        ("laptop-" + "1" * 58, UsageError, "--name"),
    ],
    ids=["missing", "other", "inside", "letters", "long"],
)
async def test_a_host_says_which_of_many_it_is(
    host: Host, authority: FakeAuthority, name: str | None, error: type[PermanentError], words: str
) -> None:
    """Nothing is made or sent for a name that is missing, none, or not invited."""
    document = authority.invitation_file(None, prefix="laptop-", uses=5)
    with pytest.raises(error, match=words):
        await host.enrol(document, name=name)
    assert not host.path.exists()
    assert authority.received == []


async def test_the_name_of_a_plain_invitation_may_be_said_and_no_other(
    host: Host, authority: FakeAuthority
) -> None:
    """Its principal is the default."""
    document = authority.invitation_file("laptop-0417")
    with pytest.raises(InvitationInvalid, match="is for laptop-0417, not for laptop-0418"):
        await host.enrol(document, name="laptop-0418")
    assert not host.path.exists()
    assert (await host.enrol(document, name="laptop-0417")).principal == "laptop-0417"


async def test_a_host_of_many_that_was_interrupted_need_not_say_its_name_again(
    host: Host, authority: FakeAuthority
) -> None:
    """The home knows it, with this file and with the next, and is nobody else's."""
    first = authority.invitation_file(None, prefix="laptop-", uses=5)
    second = authority.invitation_file(None, prefix="laptop-", uses=5)
    authority.broker_down = True
    with pytest.raises(BrokerUnavailable):
        await host.enrol(first, name="laptop-0417")
    for document in (first, second):
        with pytest.raises(UsageError, match="begun for laptop-0417"):
            await host.enrol(document, name="laptop-0418")
    with pytest.raises(BrokerUnavailable):
        await host.enrol(second)
    authority.broker_down = False
    assert (await host.enrol(first)).principal == "laptop-0417"
    with pytest.raises(UsageError, match="enrolled as laptop-0417"):
        await host.enrol(first, name="laptop-0418")


# ---- the root key, known by another way ----


async def test_a_file_with_another_root_key_than_the_one_asked_for_is_refused(
    host: Host, authority: FakeAuthority
) -> None:
    """Both ids are named and nothing is made or sent; also by a home that is enrolled already."""
    document = authority.invitation_file("laptop-0417")
    with pytest.raises(RosterInvalid, match=f"{authority.root.key_id}.*{'0' * 32}"):
        await host.enrol(document, root_key_id="0" * 32)
    assert not host.path.exists()
    assert authority.received == []
    await host.enrol(document)
    with pytest.raises(RosterInvalid, match="must be 0000"):
        await host.enrol(document, root_key_id="0" * 32)


async def test_the_root_key_that_was_asked_for_is_the_one_that_is_pinned(
    host: Host, authority: FakeAuthority
) -> None:
    """And its id is in the report, to be compared where none was asked for."""
    done = await host.enrol(authority.invitation_file("laptop-0417"), root_key_id=authority.root.key_id)
    assert done.root_key_id == authority.root.key_id
    assert done.home.config.root_key == authority.root.public_key
