"""The authority's keys change: what goes on in homes of hosts and officers, what is asked anew, what is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.agents import Clock, key, on

from strongroom.crypto.notes import note_signature_line
from strongroom.crypto.signing import SigningKey, key_id
from strongroom.errors import CheckpointInvalid, ExitCode, RosterInvalid
from strongroom.fields import validated
from strongroom.mandates import LogKeys, RosterBody
from strongroom.replies import Reply
from strongroom.root_keys import sign_change
from strongroom.roster import Roster
from strongroom.statements import Statement
from strongroom.testing import FakeAuthority, FakeLog, FakeMessage
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import Enrolled, enrol
from strongroom_agent.home import Home
from strongroom_agent.identity import attach, create_officer_home
from strongroom_agent.invitation import InvitationFile, countersign, invite
from strongroom_agent.trust import newest_roster


def in_force(authority: FakeAuthority, **members: Any) -> Roster:
    """Sign and put in force a roster like the one before but for these members, by the root key of now."""
    before = authority.roster
    body = validated(
        {
            **{name: getattr(before.body, name) for name in RosterBody.model_fields},
            "version": before.body.version + 1,
            "previous": before.digest.hex(),
            "issued_at": authority.now,
            **members,
        },
        RosterBody,
    )
    statement = Statement.sign(RosterBody.TYPE, body.to_bytes(), authority.root)
    authority.roster = Roster.verified(statement, before.root_keys[0])
    return authority.roster


def hand_over(authority: FakeAuthority) -> SigningKey:
    """Change the root key, and put the roster that says so in force; return the old key."""
    old, new = authority.root, SigningKey.generate()
    change = sign_change(authority.name, old, new, now=authority.now)
    authority.root = new
    in_force(authority, root_changes=[*authority.roster.body.root_changes, change.envelope()])
    return old


def change_log_key(authority: FakeAuthority, *, distrusted: bool = False) -> SigningKey:
    """Change the key of the escrow log, and put the roster that says so in force; return the old key."""
    log = authority.roster.body.logs.escrow
    old, authority.escrow_log.key = authority.escrow_log.key, SigningKey.generate()
    former = [] if distrusted else [*log.former, log.public_key]
    changed = log.model_copy(update={"public_key": authority.escrow_log.key.public_key, "former": former})
    in_force(authority, logs=LogKeys(escrow=changed, recovery=authority.roster.body.logs.recovery))
    return old


# ---- the root key ----


async def test_a_home_follows_a_change_of_the_root_key_with_its_next_answer(
    agent: Agent, authority: FakeAuthority
) -> None:
    """What it has pinned stays; it goes by the roster of the new root key from then on."""
    old = hand_over(authority)
    report = await agent.sync()
    assert (report.exit_code, report.roster_version) == (ExitCode.DONE, 2)
    assert (await agent.escrow([key()])).stored == 1
    roster = newest_roster(agent._home)
    assert roster.root_keys == (old.public_key, authority.root.public_key)
    assert agent._home.config.root_key == old.public_key


async def test_whoever_stole_the_former_root_key_is_not_believed_after_the_change(
    agent: Agent, authority: FakeAuthority
) -> None:
    """A newer roster by it alone lacks the change that this home has seen."""
    old = hand_over(authority)
    await agent.sync()
    body = authority.roster.body.model_copy(update={"version": 9, "root_changes": []})
    forged = Statement.sign(RosterBody.TYPE, body.to_bytes(), old)
    with pytest.raises(RosterInvalid, match="nothing here leads on"):
        agent._trust().adopt(forged, authority.now)
    assert newest_roster(agent._home).body.version == 2


async def test_a_host_that_enrols_after_the_change_pins_the_new_root_key(
    authority: FakeAuthority, tmp_path: Path, clock: Clock
) -> None:
    """Also by an invitation file that still pins the old one, and whichever of the two it was told."""
    old = hand_over(authority)

    def file_of(name: str) -> bytes:
        return replace(InvitationFile.parse(authority.invitation_file(name)), root_key=old.public_key).to_bytes()

    for name, told in (("laptop-1", None), ("laptop-2", old), ("laptop-3", authority.root)):
        enrolled = await enrol(
            tmp_path / name,
            file_of(name),
            root_key_id=key_id(told.public_key) if told else None,
            connector=authority.connect,
            clock=clock,
        )
        assert enrolled.home.config.root_key == authority.root.public_key
    with pytest.raises(RosterInvalid, match="the root key must be"):
        await enrol(
            tmp_path / "laptop-4",
            file_of("laptop-4"),
            root_key_id="0" * 32,
            connector=authority.connect,
            clock=clock,
        )


@pytest.fixture
def officers(authority: FakeAuthority, tmp_path: Path, clock: Clock) -> Callable[[str], Home]:
    """Attach the home of an officer of this name, made at the first call, under the root key of now."""
    homes = {name: create_officer_home(tmp_path / name, name, passphrase=None) for name in ("alice", "bob")}
    for name, home in homes.items():
        authority.name_officer(name, home.config.public_key)

    def attached(name: str) -> Home:
        return attach(
            Home.open(homes[name].path),
            root_key=authority.root.public_key,
            roster=authority.roster.statement.envelope(),
            broker_url="amqps://officer:hidden@broker.example/strongroom",
            broker_ca=None,
            now=int(clock()),
        )

    return attached


def test_officers_on_both_sides_of_a_change_sign_each_others_invitations(
    officers: Callable[[str], Home], authority: FakeAuthority
) -> None:
    """One has pinned the old root key and not heard of the change, the other has come after it."""
    alice = officers("alice")
    early = invite(alice.path, "laptop-1", replaces=True, now=authority.now)
    hand_over(authority)
    bob = officers("bob")
    assert countersign(early.document, bob.path, now=authority.now).signatures_missing == 0
    late = invite(bob.path, "laptop-2", replaces=True, now=authority.now)
    assert InvitationFile.parse(late.document).root_key == authority.root.public_key
    assert countersign(late.document, alice.path, now=authority.now).signatures_missing == 0


def test_an_invitation_under_a_strangers_root_key_is_not_signed(
    officers: Callable[[str], Home], authority: FakeAuthority
) -> None:
    """A roster of his own, with a change of his own, leads nowhere from what is pinned."""
    home = officers("alice")
    issued = InvitationFile.parse(invite(home.path, "laptop-1", replaces=True, now=authority.now).document)
    stranger, other = SigningKey.generate(), SigningKey.generate()
    change = sign_change(authority.name, stranger, other, now=authority.now).envelope()
    body = authority.roster.body.model_copy(update={"root_changes": [change]})
    roster = Statement.sign(RosterBody.TYPE, body.to_bytes(), other)
    for root_key in (stranger, other):
        file = replace(issued, root_key=root_key.public_key, roster=roster)
        with pytest.raises(RosterInvalid, match="no change leads"):
            countersign(file.to_bytes(), home.path, now=authority.now)


def test_an_officer_may_pin_the_new_root_key_and_never_goes_back(
    officers: Callable[[str], Home], authority: FakeAuthority, clock: Clock
) -> None:
    """`officer trust` with the new root.pub moves the pin along the change; nothing else moves it."""
    home = officers("alice")
    old = hand_over(authority)
    envelope = authority.roster.statement.envelope()

    def pinned(root_key: bytes) -> bytes | None:
        given = attach(
            Home.open(home.path),
            root_key=root_key,
            roster=envelope,
            broker_url=None,
            broker_ca=None,
            now=int(clock()),
        )
        return given.config.root_key

    assert pinned(old.public_key) == old.public_key
    assert pinned(authority.root.public_key) == authority.root.public_key
    assert pinned(old.public_key) == authority.root.public_key
    stranger = SigningKey.generate()
    body = authority.roster.body.model_copy(update={"root_changes": []})
    theirs = Statement.sign(RosterBody.TYPE, body.to_bytes(), stranger).envelope()
    with pytest.raises(RosterInvalid, match="another one is pinned"):
        attach(
            Home.open(home.path),
            root_key=stranger.public_key,
            roster=theirs,
            broker_url=None,
            broker_ca=None,
            now=int(clock()),
        )


# ---- the log's key ----


async def test_a_receipt_by_the_new_log_key_is_believed_with_the_roster_that_comes_with_it(
    agent: Agent, authority: FakeAuthority
) -> None:
    """And continues what was signed by the old one."""
    await agent.escrow([key()])
    change_log_key(authority)
    delivery = await agent.escrow([key(b"another key, of thirty-two bytes", "tpm")])
    assert (delivery.stored, delivery.error) == (1, None)
    kept = agent._state.checkpoint("escrow")
    assert kept is not None
    assert kept.size == 2
    assert (await agent.sync()).delivery.spooled == 0


async def test_a_fresh_receipt_by_a_former_log_key_is_refused(agent: Agent, authority: FakeAuthority) -> None:
    """Whoever has the former key, lost or stolen, cannot make a host believe that a key is stored."""
    await agent.escrow([key()])
    old = change_log_key(authority)
    await agent.sync()

    def forged(_message: FakeMessage, reply: Reply) -> Reply:
        log = FakeLog(authority.escrow_log.origin)
        log.key = old
        for leaf in authority.escrow_log.leaves:
            log.append(leaf)
        return replace(reply, receipt=dict(log.receipt(log.size - 1)), consistency=log.consistency(1))

    authority.alter = on("escrow", forged)
    delivery = await agent.escrow([key(b"another key, of thirty-two bytes", "tpm")], wait_seconds=0.1)
    assert (delivery.stored, delivery.spooled) == (0, 1)
    assert isinstance(delivery.error, CheckpointInvalid)
    assert agent._state.evidence() == []


async def test_receipts_by_a_former_key_stay_while_the_roster_names_it(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Nothing goes out again for a key that was replaced in good order."""
    await agent.escrow([key()])
    change_log_key(authority)
    for _ in range(2):
        assert (await agent.sync()).delivery.stored == 0
    assert len([each for each in authority.received if each.routing_key.startswith("v1.escrow.")]) == 1


async def test_receipts_by_a_key_that_is_disowned_are_fetched_anew(agent: Agent, authority: FakeAuthority) -> None:
    """At the sync after the one that brings the roster: the same statement, the same leaf, the key of now."""
    sent = await agent.escrow([key()])
    change_log_key(authority, distrusted=True)
    assert (await agent.sync()).roster_changed
    report = await agent.sync()
    assert (report.exit_code, report.delivery.stored) == (ExitCode.DONE, 1)
    ((leaf, proof, index),) = agent._state.rows("SELECT leaf, proof, log_index FROM statements")
    assert (bytes(leaf), index) == (authority.escrow_log.leaves[0], sent.records[0].log_index)
    assert str(proof).endswith(authority.escrow_log.checkpoint())
    assert (await agent.sync()).delivery.stored == 0


async def test_a_thief_does_not_save_his_receipts_by_naming_the_next_key_beside(
    agent: Agent, authority: FakeAuthority
) -> None:
    """A host that knows the stolen key alone passes a false signature by the next one over; later it is judged."""
    log, stolen, following = authority.escrow_log, authority.escrow_log.key, SigningKey.generate()

    def forged(_message: FakeMessage, reply: Reply) -> Reply:
        assert reply.receipt is not None
        beside = note_signature_line(log.origin, following.public_key, bytes(64))
        return replace(reply, receipt={**reply.receipt, "proof": f"{reply.receipt['proof']}{beside}"})

    authority.alter = on("escrow", forged)
    assert (await agent.escrow([key()])).stored == 1
    authority.alter = lambda _message, reply: reply
    change_log_key(authority, distrusted=True)
    log.key = following
    named = authority.roster.body.logs.escrow.model_copy(update={"public_key": following.public_key})
    in_force(authority, logs=LogKeys(escrow=named, recovery=authority.roster.body.logs.recovery))
    assert (await agent.sync()).roster_changed
    assert (await agent.sync()).delivery.stored == 1
    ((proof,),) = agent._state.rows("SELECT proof FROM statements")
    assert str(proof).endswith(log.checkpoint())
    assert stolen.public_key != log.key.public_key
    assert (await agent.sync()).delivery.stored == 0


async def test_a_receipt_with_a_witness_beside_stays(agent: Agent, authority: FakeAuthority) -> None:
    """What a key of the log has signed counts, whoever else did."""

    def witnessed(_message: FakeMessage, reply: Reply) -> Reply:
        assert reply.receipt is not None
        beside = note_signature_line("witness", SigningKey.generate().public_key, bytes(64))
        return replace(reply, receipt={**reply.receipt, "proof": f"{reply.receipt['proof']}{beside}"})

    authority.alter = on("escrow", witnessed)
    assert (await agent.escrow([key()])).stored == 1
    change_log_key(authority)
    for _ in range(2):
        assert (await agent.sync()).delivery.stored == 0


def test_enrolled_homes_name_the_root_key_they_pin(enrolled: Enrolled, authority: FakeAuthority) -> None:
    """The id that people compare is that of the key which signs rosters now."""
    assert enrolled.root_key_id == key_id(authority.root.public_key)
