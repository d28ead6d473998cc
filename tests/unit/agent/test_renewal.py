"""What `sync` escrows anew by itself, and what an owner's own escrow takes the place of (SPEC 4.5)."""

from pathlib import Path

import pytest
from tests.support.agents import NOW, Clock, key, lost, on, once, rejected_by

from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode
from strongroom.fields import Capacity
from strongroom.messages import Disclosure, RecordState
from strongroom.testing import FakeAuthority
from strongroom_agent.agent import Agent, SyncReport
from strongroom_agent.checks import Check, Kind, keep_checks
from strongroom_agent.packing import KeyToEscrow
from strongroom_agent.renewal import RENEWALS_MAX
from strongroom_agent.status import status

ALICE = Disclosure(
    request="01a2050e-1a43-74ad-a430-3b0ef9071f2e",
    requester="alice",
    requester_kind=Capacity.OFFICER,
    released_at=NOW,
    reason="left",
)


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """The file that holds the live key."""
    path = tmp_path / "live"
    path.write_bytes(b"live key")
    return path


def put(path: Path, what: bytes) -> None:
    path.write_bytes(what)


def content(path: Path) -> bytes:
    return path.read_bytes()


def remove(path: Path) -> None:
    path.unlink()


def check(live: Path, name: str = "disk") -> Check:
    return Check(name, Kind.FILE, (str(live),))


async def checked(agent: Agent, live: Path, name: str = "disk") -> str:
    """Escrow the live key under a name with a check; return the record id."""
    done = await agent.escrow([key(content(live), name)], checks=[check(live, name)])
    return done.records[0].facts.id


def damage(authority: FakeAuthority, id_: str) -> None:
    """Flip a bit of a blob and let the prover find it."""
    held = authority.workers.records[id_]
    blob = held.record.blob[:-1] + bytes([held.record.blob[-1] ^ 1])
    held.record = held.record.model_copy(update={"blob": blob})
    authority.workers.evidence.prove()


def states(authority: FakeAuthority) -> dict[str, RecordState]:
    """Return the state of every record as the authority has it, in the order of their ids."""
    evidence = authority.workers.evidence
    return {id_: evidence.listed(stored).state for id_, stored in sorted(authority.workers.records.items())}


def recovered(authority: FakeAuthority, id_: str) -> bytes:
    """Return the key that the authority would give back for a record."""
    from strongroom.blobs import BlobContext, open_material

    record = authority.workers.records[id_].record
    context = BlobContext(authority.name, "laptop-0417", record.id, record.kid, record.suite)
    return open_material(record.blob, context, authority.sealing_keys[0]).material.expose()


async def renewed(agent: Agent, *supersedes: str) -> tuple[SyncReport, str]:
    """Sync; exactly one key must have been escrowed anew, in the place of these. Return its record id."""
    report = await agent.sync()
    [row] = report.renewed
    assert (row.state, set(row.facts.supersedes)) == ("stored", set(supersedes))
    return report, row.facts.id


# ---- by itself ----


async def test_an_unprovable_key_is_escrowed_anew_in_the_same_sync_and_ends_replaced(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """From the live file, with everything that was said of it; proven in the end, and nothing needs a person."""
    keep_checks(agent._home, [check(live)])
    given = KeyToEscrow(
        material=Secret(b"live key"),
        name="disk",
        kind="disk-key",
        description="root",
        serial_number="C02",
        algorithm="AES",
        labels={"a": "b"},
    )
    old = (await agent.escrow([given])).records[0].facts
    damage(authority, old.id)
    report, new = await renewed(agent, old.id)
    assert report.exit_code is ExitCode.DONE
    assert report.needy == ()
    facts = report.renewed[0].facts
    for member in ("name", "kind", "description", "serial_number", "algorithm", "labels"):
        assert getattr(facts, member) == getattr(old, member)
    assert recovered(authority, new) == b"live key"
    assert status(agent._home.path).exit_code is ExitCode.NOT_PROVEN
    authority.workers.evidence.prove()
    assert (await agent.sync()).exit_code is ExitCode.DONE
    assert states(authority) == {old.id: RecordState.REPLACED, new: RecordState.PROVEN}
    assert agent._standings.counts() == {"replaced": 1, "proven": 1}
    assert status(agent._home.path).exit_code is ExitCode.DONE


async def test_a_second_sync_escrows_nothing_again(agent: Agent, authority: FakeAuthority, live: Path) -> None:
    """Not while the new record waits to be proven, nor while it could not even be sent."""
    old = await checked(agent, live)
    damage(authority, old)
    authority.alter = on("escrow", lost)
    report = await agent.sync(wait_seconds=0.05)
    assert ([row.state for row in report.renewed], report.exit_code) == (["spooled"], ExitCode.TRY_LATER)
    assert (await agent.sync(wait_seconds=0.05)).renewed == ()
    authority.alter = lambda _message, reply: reply
    for _ in range(2):
        report = await agent.sync()
        assert (report.renewed, report.exit_code) == ((), ExitCode.DONE)
    assert len(authority.workers.records) == 2


async def test_a_missing_and_another_key_are_escrowed_anew_and_end_replaced(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """They are told as failures until their successors are proven."""
    missing, other = await checked(agent, live), await checked(agent, live, "other")
    del authority.workers.records[missing]
    held = authority.workers.records[other]
    held.record = held.record.model_copy(update={"fingerprint": "0" * 64})
    report = await agent.sync()
    assert {row.facts.supersedes for row in report.renewed} == {(missing,), (other,)}
    assert (report.missing, report.mismatched, report.exit_code) == ((missing,), (other,), ExitCode.FAILED)
    assert (await agent.sync()).renewed == ()
    assert status(agent._home.path).exit_code is ExitCode.FAILED
    authority.workers.evidence.prove()
    report = await agent.sync()
    assert (report.missing, report.mismatched, report.needy, report.exit_code) == ((), (), (), ExitCode.DONE)
    assert agent._standings.counts() == {"replaced": 2, "proven": 2}
    found = await agent.recover(name="disk")
    assert (found.keys[0].material.expose(), found.missing) == (b"live key", ())


async def test_a_live_key_that_has_changed_is_escrowed_and_the_old_record_called_stale(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """In one sync; afterwards the new one is what is compared."""
    old = await checked(agent, live)
    authority.workers.evidence.prove()
    await agent.sync()
    put(live, b"another key")
    report, new = await renewed(agent, old)
    assert (report.attested, report.exit_code, report.needy) == (1, ExitCode.DONE, ())
    assert recovered(authority, new) == b"another key"
    assert states(authority) == {old: RecordState.STALE, new: RecordState.STORED}
    assert status(agent._home.path).exit_code is ExitCode.NOT_PROVEN
    report = await agent.sync()
    assert (report.renewed, [each.matches for each in report.examined]) == ((), [True])
    authority.workers.evidence.prove()
    report = await agent.sync()
    assert (report.needy, report.exit_code) == ((), ExitCode.DONE)
    assert states(authority) == {old: RecordState.REPLACED, new: RecordState.PROVEN}


async def test_a_lost_answer_in_between_changes_nothing(agent: Agent, authority: FakeAuthority, live: Path) -> None:
    """The next link goes on with what was decided over the one before."""
    old = await checked(agent, live)
    put(live, b"another key")
    authority.alter = on("escrow", once(lost))
    report, new = await renewed(agent, old)
    assert (report.attested, [each.matches for each in report.examined]) == (1, [False])
    assert states(authority) == {old: RecordState.STALE, new: RecordState.STORED}


async def test_a_key_that_was_escrowed_before_its_check_is_taken_as_it_is(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """There is no salt to compare by; the live key of that name is the best there is."""
    old = (await agent.escrow([key(b"unknown")])).records[0].facts.id
    keep_checks(agent._home, [check(live)])
    damage(authority, old)
    _, new = await renewed(agent, old)
    assert recovered(authority, new) == b"live key"


async def test_a_key_that_is_not_at_hand_is_left_to_its_owner(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """Without check, by a command, and from a file that is gone; told as a failure that names it."""
    keep_checks(agent._home, [Check("command", Kind.COMMAND, ("/bin/true",))])
    ids = {(await agent.escrow([key(name=name)])).records[0].facts.id for name in ("none", "command")}
    ids.add(await checked(agent, live))
    remove(live)
    authority.workers.evidence.prove(unprovable=dict.fromkeys(ids, "blob_invalid"))
    report = await agent.sync()
    assert (report.renewed, report.exit_code) == ((), ExitCode.FAILED)
    assert {each.record for each in report.needy} == ids


async def test_an_age_identity_is_escrowed_anew_as_its_text(
    agent: Agent, authority: FakeAuthority, tmp_path: Path
) -> None:
    """Without the comments and the line end of its file."""
    from strongroom_agent import age

    identity, text = age.new_identity()
    path = tmp_path / "identity"
    age.write_identity(path, identity)
    aged = Check("backup", Kind.AGE, (str(path),))
    given = KeyToEscrow(material=text, name="backup", kind="age-identity")
    old = (await agent.escrow([given], checks=[aged])).records[0].facts.id
    assert (await agent.attest()).exit_code is ExitCode.DONE
    damage(authority, old)
    _, new = await renewed(agent, old)
    assert recovered(authority, new) == text.expose()


# ---- disclosed ----


async def test_a_disclosed_key_is_never_replaced_by_itself(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """It is known to others; a new live key replaces it, and closes the loop."""
    old = await checked(agent, live)
    authority.workers.records[old].disclosure = ALICE
    authority.workers.evidence.prove()
    report = await agent.sync()
    assert (report.renewed, [each.record for each in report.needy]) == ((), [old])
    put(live, b"new key")
    report, new = await renewed(agent, old)
    assert report.needy == ()
    authority.workers.evidence.prove()
    assert (await agent.sync()).exit_code is ExitCode.DONE
    assert states(authority) == {old: RecordState.REPLACED, new: RecordState.PROVEN}
    assert [each.is_replaced for each in agent._state.disclosures()] == [True]


async def test_a_disclosed_key_that_is_lost_too_is_saved_and_stays_disclosed(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """The key in use has an escrow again, and nobody is told that it was replaced."""
    old = await checked(agent, live)
    authority.workers.records[old].disclosure = ALICE
    damage(authority, old)
    report, _ = await renewed(agent)
    assert [each.record for each in report.needy] == [old]
    assert (await agent.sync()).renewed == ()


async def test_a_disclosed_key_without_salt_may_be_the_live_one(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """So it is not replaced by itself; by hand it is, because its owner knows."""
    old = (await agent.escrow([key(b"live key")])).records[0].facts.id
    keep_checks(agent._home, [check(live)])
    authority.workers.records[old].disclosure = ALICE
    assert (await agent.sync()).renewed == ()
    done = await agent.escrow([key(b"new key")])
    assert done.records[0].facts.supersedes == (old,)


# ---- by hand ----


async def test_an_escrow_by_hand_takes_the_place_of_what_needs_it(agent: Agent, authority: FakeAuthority) -> None:
    """Of its own name, by the last listing; what is sound stays."""
    ids = [(await agent.escrow([key(name=name)])).records[0].facts.id for name in ("disk", "disk", "other")]
    authority.workers.evidence.prove(unprovable=dict.fromkeys(ids[1:], "blob_invalid"))
    await agent.sync()
    done = await agent.escrow([key(), key(name="disk"), key(name="more")])
    assert [row.facts.supersedes for row in done.records] == [(), (ids[1],), ()]
    assert (await agent.escrow([key()])).records[0].facts.supersedes == ()
    held = authority.workers.records[done.records[1].facts.id].record
    assert held.supersedes == [ids[1]]


async def test_the_same_key_by_hand_does_not_replace_a_disclosed_one(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """Where that is certain."""
    old = await checked(agent, live)
    authority.workers.records[old].disclosure = ALICE
    await agent.sync()
    assert (await agent.escrow([key(b"live key")])).records[0].facts.supersedes == ()
    assert (await agent.escrow([key(b"new key")])).records[0].facts.supersedes == (old,)


async def test_what_a_caller_says_itself_is_kept(agent: Agent) -> None:
    """Ids of its own choice."""
    old = (await agent.escrow([key()])).records[0].facts.id
    given = KeyToEscrow(material=Secret(b"k"), name="new name", kind="k", supersedes=[old])
    assert (await agent.escrow([given])).records[0].facts.supersedes == (old,)


async def test_no_more_than_sixteen_are_taken_the_place_of_and_the_rest_by_the_next(
    agent: Agent, authority: FakeAuthority
) -> None:
    """The newest first."""
    ids = sorted([(await agent.escrow([key()])).records[0].facts.id for _ in range(17)])
    authority.workers.evidence.prove(unprovable=dict.fromkeys(ids, "blob_invalid"))
    await agent.sync()
    assert (await agent.escrow([key()])).records[0].facts.supersedes == tuple(ids[:0:-1])
    assert (await agent.escrow([key()])).records[0].facts.supersedes == (ids[0],)


async def test_a_successor_that_was_refused_or_is_lost_replaces_nothing(
    agent: Agent, authority: FakeAuthority
) -> None:
    """The next one takes the place of both."""
    old = (await agent.escrow([key()])).records[0].facts.id
    authority.workers.evidence.prove(unprovable={old: "blob_invalid"})
    await agent.sync()
    authority.alter = on("escrow", rejected_by(authority.escrow_reply_key))
    refused = (await agent.escrow([key()])).records[0].facts
    assert refused.supersedes == (old,)
    del authority.workers.records[refused.id]
    authority.alter = lambda _message, reply: reply
    second = (await agent.escrow([key()])).records[0].facts
    assert second.supersedes == (old,)
    authority.workers.evidence.prove(unprovable={old: "blob_invalid", second.id: "blob_invalid"})
    await agent.sync()
    assert (await agent.escrow([key()])).records[0].facts.supersedes == (second.id, old)


# ---- limits ----


async def test_a_check_of_a_name_without_key_renews_nothing(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """What it is and what is said of it is for its owner to say first."""
    keep_checks(agent._home, [check(live)])
    report = await agent.sync()
    assert (report.renewed, report.error, authority.workers.records) == ((), None, {})


async def test_older_lost_records_are_replaced_too_sixteen_at_a_time(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """Although the newest is sound: they would stay gaps for ever."""
    old = sorted([await checked(agent, live) for _ in range(17)])
    newest = await checked(agent, live)
    authority.workers.evidence.prove(unprovable=dict.fromkeys(old, "blob_invalid"))
    assert agent._spool.newest_of("disk")[0].facts.id == newest
    await renewed(agent, *old[1:])
    _, last = await renewed(agent, old[0])
    assert (await agent.sync()).renewed == ()
    authority.workers.evidence.prove(unprovable=dict.fromkeys(old, "blob_invalid"))
    assert (await agent.sync()).needy == ()
    assert states(authority)[last] is RecordState.PROVEN


async def test_what_replaced_a_missing_key_replaces_it_no_more_when_it_is_lost(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """That it was proven once does not help any more."""
    old = await checked(agent, live)
    del authority.workers.records[old]
    _, new = await renewed(agent, old)
    authority.workers.evidence.prove()
    await agent.sync()
    assert agent._standings.counts() == {"replaced": 1, "proven": 1}
    remove(live)
    authority.workers.unreadable[new] = "proof_invalid"
    report = await agent.sync()
    assert (report.missing, {each.record for each in report.needy}) == ((old,), {old, new})


async def test_a_key_that_is_lost_again_and_again_is_left_to_a_person(
    agent: Agent, authority: FakeAuthority, live: Path, clock: Clock
) -> None:
    """Something is wrong on the other side, and every sync would add a record."""
    id_ = await checked(agent, live)
    for _ in range(RENEWALS_MAX - 1):
        authority.workers.evidence.prove(unprovable=dict.fromkeys(authority.workers.records, "key_unknown"))
        report = await agent.sync()
        assert (len(report.renewed), report.given_up) == (1, ())
    authority.workers.evidence.prove(unprovable=dict.fromkeys(authority.workers.records, "key_unknown"))
    clock.seconds += 1
    report = await agent.sync()
    assert (report.renewed, report.given_up, report.exit_code) == ((), ("disk",), ExitCode.FAILED)
    assert id_ in {each.record for each in report.needy}


async def test_a_key_that_the_authority_refuses_is_not_escrowed_anew_with_every_sync(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """It is rejected, and told so; another live key is another matter."""
    old = await checked(agent, live)
    damage(authority, old)
    authority.alter = on("escrow", rejected_by(authority.escrow_reply_key))
    [row] = (await agent.sync()).renewed
    assert row.state == "rejected"
    del authority.workers.records[row.facts.id]
    assert (await agent.sync()).renewed == ()
    put(live, b"another key")
    [row] = (await agent.sync()).renewed
    assert row.facts.supersedes == (old,)


# ---- sealed files ----


async def test_sealing_a_file_again_over_itself_takes_the_place_of_its_lost_key(
    agent: Agent, authority: FakeAuthority, tmp_path: Path
) -> None:
    """The new session key has another name, and the old sealed file is gone."""
    path = tmp_path / "report"
    put(path, b"content")
    old = await agent.seal_file(path)
    authority.workers.evidence.prove(unprovable={old.record_id: "blob_invalid"})
    await agent.sync()
    new = await agent.seal_file(path, overwrite=True)
    assert new.name != old.name
    assert authority.workers.records[new.record_id].record.supersedes == [old.record_id]
    (tmp_path / "report.age").write_bytes(b"no age file")
    last = await agent.seal_file(path, overwrite=True)
    assert authority.workers.records[last.record_id].record.supersedes == []
