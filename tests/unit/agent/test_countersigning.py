from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.agents import NOW, Clock, lost, on, once, rejected_by

from strongroom import limits
from strongroom.crypto.signing import SigningKey
from strongroom.errors import (
    CheckpointInvalid,
    Expired,
    InvitationInvalid,
    LogForked,
    NoAnswer,
    NotFound,
    Rejected,
    ReplyInvalid,
    SignatureInvalid,
    UsageError,
    WrongAuthority,
)
from strongroom.fields import new_id
from strongroom.leaves import EnrolmentLeaf, InvitationLeaf, parse_leaf
from strongroom.mandates import Invitation
from strongroom.replies import Reply
from strongroom.statements import Signature, Statement
from strongroom.testing import FakeAuthority, FakeMessage
from strongroom_agent.agent import Agent
from strongroom_agent.cards import EnrolmentCard, make_card
from strongroom_agent.countersigning import SentInvitation, find
from strongroom_agent.home import Home
from strongroom_agent.invitation import InvitationFile, IssuedInvitation, countersign, invite, received
from strongroom_agent.state import Evidence, State

Make = Callable[[str], Home]


@pytest.fixture
def card(tmp_path: Path) -> EnrolmentCard:
    return make_card(tmp_path / "host", "laptop-0417", passphrase=None)


class Officer:
    """An officer who invites, sends and fetches, each time once and without waiting."""

    def __init__(self, home: Home, authority: FakeAuthority, clock: Clock) -> None:
        self.home, self.authority, self.clock = home, authority, clock

    def invite(self, card: EnrolmentCard, *, replaces: bool = True) -> IssuedInvitation:
        """Sign for a card."""
        return invite(self.home.path, card=card, replaces=replaces, now=NOW)

    async def send(self, issued: IssuedInvitation) -> SentInvitation:
        """Send an invitation to the authority."""
        with Agent.open(self.home.path, connector=self.authority.connect, clock=self.clock) as agent:
            return await agent.send_invitation(issued, wait_seconds=0)

    async def docket(self) -> tuple[bytes, ...]:
        """Return the envelopes that wait for signatures."""
        with Agent.open(self.home.path, connector=self.authority.connect, clock=self.clock) as agent:
            return (await agent.docket(limit=1, wait_seconds=0)).invitations


@pytest.fixture
def officers(officer_home: Make, authority: FakeAuthority, clock: Clock) -> tuple[Officer, Officer]:
    """Two officers, alice and bob; alice's home knows an older roster."""
    alice, bob = (Officer(officer_home(name), authority, clock) for name in ("alice", "bob"))
    return alice, bob


async def test_two_officers_complete_an_invitation_over_the_queue(
    officers: tuple[Officer, Officer], authority: FakeAuthority, card: EnrolmentCard
) -> None:
    """What one sends, the other finds, signs and sends back; the file is complete and names the host's key."""
    alice, bob = officers
    first = alice.invite(card)
    sent = await alice.send(first)
    leaf = parse_leaf(authority.recovery_log.leaves[sent.log_index])
    assert isinstance(leaf, InvitationLeaf)
    assert (leaf.id, leaf.principal, sent.officers) == (first.invitation.id, "laptop-0417", ("alice",))
    found = received(find(await bob.docket(), first.invitation.id), bob.home.path, now=NOW)
    assert (found.signed_by, found.signatures_missing, found.host_made_key) == (("alice",), 1, True)
    both = countersign(found.document, bob.home.path, now=NOW)
    assert both.signatures_missing == 0
    sent = await bob.send(both)
    assert set(sent.officers) == {"alice", "bob"}
    file = InvitationFile.parse(both.document)
    _, invitation = file.check(NOW)
    assert (file.one_time_key, invitation.one_time_key) == (None, card.one_time_key)
    assert file.broker_url == "amqps://fleet:hidden@broker.example/strongroom"
    assert file.broker_ca == "officers' CA\n"


async def test_signatures_come_together_whoever_sends_first(
    officers: tuple[Officer, Officer], card: EnrolmentCard
) -> None:
    """Each sends a signature of his own; the log names both, and each accepts the receipt."""
    alice, bob = officers
    first = alice.invite(card)
    by_bob = countersign(first.document, bob.home.path, now=NOW)
    alone = replace(by_bob, statement=replace_signatures(by_bob.statement, by_bob.statement.signatures[1:]))
    assert (await bob.send(alone)).officers == ("bob",)
    assert set((await alice.send(first)).officers) == {"alice", "bob"}


def replace_signatures(statement: Statement, signatures: tuple[Signature, ...]) -> Statement:
    """Return the statement with other signatures."""
    return Statement(statement.type, statement.body, signatures)


async def test_sending_again_is_harmless(officers: tuple[Officer, Officer], card: EnrolmentCard) -> None:
    """The answer was lost; the same invitation is sent once more."""
    alice, _ = officers
    first = alice.invite(card)
    alice.authority.alter = once(lost)
    with pytest.raises(NoAnswer):
        await alice.send(first)
    assert (await alice.send(first)).officers == ("alice",)


async def test_the_newest_checkpoint_is_kept(officers: tuple[Officer, Officer], card: EnrolmentCard) -> None:
    """The next answer has to continue the log that this one showed."""
    alice, _ = officers
    sent = await alice.send(alice.invite(card))
    with State.open(alice.home.state_file) as state:
        kept = state.checkpoint("recovery")
    assert kept is not None
    assert kept.size == sent.tree_size


# ---- what is not sent ----


async def test_an_invitation_with_a_secret_is_not_sent(officers: tuple[Officer, Officer]) -> None:
    """Only the officer who made the key could complete the file; the hint names the card."""
    alice, _ = officers
    with pytest.raises(UsageError, match="secret") as caught:
        await alice.send(invite(alice.home.path, "laptop-0417", replaces=True, now=NOW))
    assert "strongroom card" in str(caught.value.hint)
    assert alice.authority.received == []


async def test_an_invitation_that_needs_no_other_signature_is_not_sent(
    officers: tuple[Officer, Officer], card: EnrolmentCard
) -> None:
    """It is for the host."""
    alice, _ = officers
    with pytest.raises(UsageError, match="no other officer"):
        await alice.send(alice.invite(card, replaces=False))
    assert alice.authority.received == []


# ---- answers that are not to be believed ----


@pytest.mark.parametrize(
    "changes",
    [
        {"id": new_id()},
        {"digest": "00" * 32},
        {"principal": "laptop-0418"},
        {"officers": ["bob"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_a_receipt_for_another_invitation_is_refused(
    officers: tuple[Officer, Officer], authority: FakeAuthority, card: EnrolmentCard, changes: dict[str, Any]
) -> None:
    """The leaf names what was sent, and at least who has signed that."""
    alice, _ = officers

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        leaf = parse_leaf(authority.recovery_log.leaves[-1]).model_copy(update=changes)
        index = authority.recovery_log.append(leaf.to_bytes())
        return replace(reply, receipt=dict(authority.recovery_log.receipt(index)))

    authority.alter = on("recovery", alter)
    with pytest.raises(ReplyInvalid, match="something else"):
        await alice.send(alice.invite(card))
    with State.open(alice.home.state_file) as state:
        assert state.checkpoint("recovery") is None


async def test_a_leaf_of_another_type_is_refused(
    officers: tuple[Officer, Officer], authority: FakeAuthority, card: EnrolmentCard
) -> None:
    """An enrolment says nothing about signatures, even if it has id, digest and principal in common."""
    alice, _ = officers
    issued = alice.invite(card)
    leaf = EnrolmentLeaf(
        time=NOW,
        id=issued.invitation.id,
        digest=issued.statement.digest.hex(),
        principal="laptop-0417",
        key="00" * 16,
        invitation=issued.invitation.id,
    )

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        index = authority.recovery_log.append(leaf.to_bytes())
        return replace(reply, receipt=dict(authority.recovery_log.receipt(index)))

    authority.alter = alter
    with pytest.raises(ReplyInvalid, match="something else"):
        await alice.send(issued)


async def test_a_receipt_of_the_escrow_log_is_refused(
    officers: tuple[Officer, Officer], authority: FakeAuthority, card: EnrolmentCard
) -> None:
    """Who may enrol is said by the recovery log alone."""

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        index = authority.escrow_log.append(authority.recovery_log.leaves[-1])
        return replace(reply, receipt=dict(authority.escrow_log.receipt(index)))

    authority.alter = alter
    alice, _ = officers
    with pytest.raises(CheckpointInvalid):
        await alice.send(alice.invite(card))


async def test_a_log_with_evidence_against_it_counts_no_more(
    officers: tuple[Officer, Officer], authority: FakeAuthority, card: EnrolmentCard
) -> None:
    """Nothing is sent before an auditor has looked."""
    alice, _ = officers
    with State.open(alice.home.state_file) as state:
        state.keep_evidence(
            Evidence(log="recovery", statement=new_id(), reason="", held_note="a", note="b", reply=b"", seen_at=NOW)
        )
    with pytest.raises(LogForked):
        await alice.send(alice.invite(card))
    assert authority.received == []


async def test_a_refusal_is_told(
    officers: tuple[Officer, Officer], authority: FakeAuthority, card: EnrolmentCard
) -> None:
    """With the authority's own code, when the recovery worker signed it."""
    alice, _ = officers
    authority.alter = on("recovery", rejected_by(authority.recovery_reply_key))
    with pytest.raises(Rejected) as caught:
        await alice.send(alice.invite(card))
    assert caught.value.remote_code == "denied"


# ---- what comes from a docket ----


def test_an_invitation_is_found_by_its_id_among_others(
    card: EnrolmentCard, officers: tuple[Officer, Officer]
) -> None:
    """What is no invitation does not hide it."""
    alice, _ = officers
    one, two = (alice.invite(card) for _ in range(2))
    envelopes = [b"garbage", alice.authority.roster.statement.envelope(), one.statement.envelope()]
    envelopes.append(two.statement.envelope())
    assert find(envelopes, two.invitation.id) == two.statement.envelope()
    with pytest.raises(NotFound, match="not on the docket"):
        find(envelopes, new_id())


def signed(card: EnrolmentCard, *keys: SigningKey, **changes: object) -> bytes:
    """Return the envelope of an invitation with other members."""
    members: dict[str, Any] = {
        "authority": "vault.example",
        "id": new_id(),
        "issued_at": NOW,
        "expires_at": NOW + 3600,
        "principal": card.principal,
        "prefix": None,
        "uses": 1,
        "one_time_key": card.one_time_key,
        "replaces": True,
    }
    body = Invitation(**(members | changes))
    return Statement.sign(Invitation.TYPE, body.to_bytes(), *keys).envelope()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"authority": "other.example"}, WrongAuthority),
        ({"expires_at": NOW - limits.CLOCK_SKEW_SECONDS - 1, "issued_at": NOW - 1000}, Expired),
        ({"issued_at": NOW + limits.CLOCK_SKEW_SECONDS + 1}, Expired),
    ],
    ids=["authority", "expired", "future"],
)
def test_what_no_officer_should_sign_is_refused(
    officers: tuple[Officer, Officer],
    authority: FakeAuthority,
    card: EnrolmentCard,
    changes: dict[str, object],
    error: type[Exception],
) -> None:
    """Before it is shown at all."""
    envelope = signed(card, authority.officers["officer-1"], **changes)
    with pytest.raises(error):
        received(envelope, officers[1].home.path, now=NOW)


def test_an_invitation_that_no_officer_has_signed_is_refused(
    officers: tuple[Officer, Officer], card: EnrolmentCard
) -> None:
    """Whoever owns the database may have put it there."""
    with pytest.raises(InvitationInvalid, match="no officer has signed"):
        received(signed(card, SigningKey.generate()), officers[1].home.path, now=NOW)


def test_a_false_signature_in_an_officers_name_is_refused(
    officers: tuple[Officer, Officer], authority: FakeAuthority, card: EnrolmentCard
) -> None:
    """Somebody tampered with it."""
    _, bob = officers
    issued = officers[0].invite(card)
    false = Signature(authority.officers["officer-1"].key_id, b"\x01" * 64)
    tampered = replace_signatures(issued.statement, (*issued.statement.signatures, false))
    with pytest.raises(SignatureInvalid):
        received(tampered.envelope(), bob.home.path, now=NOW)
