"""`Agent.attest`, and what `sync` says by itself of live keys (SPEC 5.12)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.agents import NOW, Alteration, Clock, key, lost, on, once, rejected_by

from strongroom.errors import (
    BrokerUnavailable,
    ConfigurationInvalid,
    ExitCode,
    LogForked,
    NoAnswer,
    Rejected,
    ReplyInvalid,
    UsageError,
)
from strongroom.fields import parse_body
from strongroom.leaves import AttestationLeaf, parse_leaf
from strongroom.limits import ATTESTED_RECORDS_MAX, REQUEST_BODY_BYTES_MAX
from strongroom.mandates import Policy
from strongroom.messages import Attestation
from strongroom.replies import Reply
from strongroom.statements import parse_envelope
from strongroom.testing import FakeAuthority, FakeMessage
from strongroom_agent.agent import Agent
from strongroom_agent.attestation import Attesting, Examined
from strongroom_agent.checks import CHECKS_FILE, Check, Kind, keep_checks
from strongroom_agent.home import Home
from strongroom_agent.identity import signing_key
from strongroom_agent.spool import RecordFacts
from strongroom_agent.standings import KeptProof, KeptStanding, Listed
from strongroom_agent.state import Evidence
from strongroom_agent.status import status

DAY = 86_400


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


async def checked(agent: Agent, live: Path, name: str = "disk") -> str:
    """Escrow the live key under a name with a check; return the record id."""
    given = key(content(live), name)
    done = await agent.escrow([given], checks=[Check(name, Kind.FILE, (str(live),))])
    return done.records[0].facts.id


def attestations(authority: FakeAuthority) -> list[Attestation]:
    """Return what reached the authority, repeats included."""
    received = [parse_envelope(message.body) for message in authority.received]
    return [parse_body(each, Attestation) for each in received if each.type == Attestation.TYPE]


def leaves(authority: FakeAuthority) -> list[AttestationLeaf]:
    parsed = [parse_leaf(leaf) for leaf in authority.recovery_log.leaves]
    return [leaf for leaf in parsed if isinstance(leaf, AttestationLeaf)]


def attested(alteration: Alteration) -> Alteration:
    """Alter the answers to attestations only."""

    def alter(message: FakeMessage, reply: Reply) -> Reply | bytes | None:
        is_one = parse_envelope(message.body).type == Attestation.TYPE
        return alteration(message, reply) if is_one else reply

    return alter


# ---- what is kept ----


async def test_salts_are_kept_only_of_names_whose_live_key_lies_open_here(agent: Agent, live: Path) -> None:
    """A command gives no key to compare; for a name without check a salt would only help a thief."""
    keep_checks(agent._home, [Check("command", Kind.COMMAND, ("/bin/true",))])
    id_ = await checked(agent, live)
    done = await agent.escrow([key(name="command"), key(name="other"), key(name="disk")])
    rows = {row.facts.name: row.facts.id for row in done.records}
    assert agent._spool.salt(id_) is not None
    assert {name: agent._spool.salt(rows[name]) is not None for name in rows} == {
        "command": False,
        "other": False,
        "disk": True,
    }


async def test_a_check_is_written_with_the_key_and_not_for_a_key_that_breaks_a_limit(
    agent: Agent, live: Path
) -> None:
    """Otherwise a name that is none would stand in the file for ever."""
    check = Check("n" * 129, Kind.FILE, (str(live),))
    with pytest.raises(Exception, match="name"):
        await agent.escrow([key(name="n" * 129)], checks=[check])
    assert not (agent._home.path / CHECKS_FILE).exists()
    await checked(agent, live)
    assert (agent._home.path / CHECKS_FILE).exists()


async def test_a_wrong_file_of_checks_stops_escrow_before_anything_is_spooled(agent: Agent) -> None:
    """The owner is there to mend it; a key without its salt could not be compared later."""
    (agent._home.path / CHECKS_FILE).write_text("nonsense")
    (agent._home.path / CHECKS_FILE).chmod(0o600)
    with pytest.raises(ConfigurationInvalid):
        await agent.escrow([key()])
    assert agent._spool.size() == 0


# ---- attest ----


async def test_a_live_key_that_is_in_escrow_is_attested(agent: Agent, authority: FakeAuthority, live: Path) -> None:
    """Signed by the host, on record with a receipt, and kept."""
    id_ = await checked(agent, live)
    report = await agent.attest()
    assert report.exit_code is ExitCode.DONE
    assert [(each.name, each.matches) for each in report.examined] == [("disk", True)]
    [leaf] = leaves(authority)
    assert (leaf.matching, leaf.stale, leaf.principal, leaf.key) == (
        [id_],
        [],
        "laptop-0417",
        agent._home.config.key_id,
    )
    assert authority.recovery_log.leaves[report.log_index or 0] == leaf.to_bytes()
    assert report.attested_at == NOW
    kept = agent._standings.attestations()[id_]
    assert (kept.matches, kept.attested_at, kept.log_index) == (True, NOW, report.log_index)
    [said] = attestations(authority)
    assert said.records[0].fingerprint == agent._spool.fingerprint(id_)
    assert agent._state.checkpoint("recovery") is not None
    assert authority.received[-1].routing_key == "v1.recovery.laptop-0417"


async def test_another_live_key_makes_the_record_stale_at_once(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """Also offline, before the next listing; and matching again when it comes back."""
    id_ = await checked(agent, live)
    authority.workers.evidence.prove()
    await agent.sync()
    put(live, b"another key")
    report = await agent.attest()
    assert (report.exit_code, leaves(authority)[-1].stale) == (ExitCode.FAILED, [id_])
    assert status(agent._home.path).exit_code is ExitCode.FAILED
    assert agent._standings.counts() == {"stale": 1}
    put(live, b"live key")
    assert (await agent.attest()).exit_code is ExitCode.DONE
    assert agent._standings.counts() == {"proven": 1}
    assert status(agent._home.path).exit_code is ExitCode.DONE


@pytest.mark.parametrize(
    ("before", "replace_by", "proven", "stale", "matching"),
    [
        ("stored", None, False, "stale", "stored"),
        ("proven", None, True, "stale", "proven"),
        ("disclosed", NOW, True, "stale", "disclosed"),
        ("unprovable", None, True, "unprovable", "unprovable"),
        ("missing", None, True, "missing", "missing"),
        ("replaced", None, True, "replaced", "replaced"),
    ],
)
def test_what_is_attested_moves_a_state_within_its_precedence(
    *, agent: Agent, before: Listed, replace_by: int | None, proven: bool, stale: Listed, matching: Listed
) -> None:
    """What is replaced or lost stays so; and a stale one goes back to what it was."""
    standings = agent._standings
    proofs = [KeptProof(7, b"leaf", "proof")]
    standing = KeptStanding(
        record="r", name="n", listed=before, listed_at=NOW, proof=7 if proven else None, replace_by=replace_by
    )
    standings.keep([standing], proofs)
    for matches, expected in ((False, stale), (True, matching), (True, matching)):
        standings.keep_attestation({"r": matches}, NOW + 1, 9)
        found = standings.of("r")
        assert found is not None
        assert found.listed == expected


async def test_the_newest_stored_record_of_a_name_is_compared(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """Older ones may hold older keys."""
    await checked(agent, live)
    put(live, b"another key")
    newer = await checked(agent, live)
    assert (await agent.attest()).exit_code is ExitCode.DONE
    assert leaves(authority)[-1].matching == [newer]


async def test_a_name_whose_newest_key_is_still_spooled_is_not_spoken_of(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """The older record would be called stale for want of a `sync`."""
    await checked(agent, live)
    put(live, b"another key")
    await agent.escrow([key(b"another key")], wait_seconds=0)
    report = await agent.attest()
    assert (report.exit_code, leaves(authority)) == (ExitCode.TRY_LATER, [])
    assert "not stored yet" in str(report.examined[0].reason)


async def test_a_key_that_was_rejected_is_passed_over(agent: Agent, authority: FakeAuthority, live: Path) -> None:
    """The authority does not have it."""
    id_ = await checked(agent, live)
    authority.alter = on("escrow", rejected_by(authority.escrow_reply_key))
    await agent.escrow([key(b"another key")])
    assert (await agent.attest()).exit_code is ExitCode.DONE
    assert leaves(authority)[-1].matching == [id_]


async def test_a_key_that_cannot_be_read_is_unknown_and_not_another(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """Nothing is sent of it; what else there is to say is said."""
    await checked(agent, live)
    other = live.with_name("other")
    put(other, b"other key")
    other_id = await checked(agent, other, "other")
    remove(live)
    report = await agent.attest()
    assert report.exit_code is ExitCode.TRY_LATER
    assert {each.name: each.matches for each in report.examined} == {"disk": None, "other": True}
    assert "No such file" in str(report.examined[0].reason)
    assert [(leaf.matching, leaf.stale) for leaf in leaves(authority)] == [([other_id], [])]


async def test_a_key_that_was_escrowed_before_its_check_cannot_be_compared(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """No salt was kept; the report says what to do. A command needs none."""
    await agent.escrow([key(content(live))])
    keep_checks(agent._home, [Check("disk", Kind.FILE, (str(live),))])
    report = await agent.attest()
    assert (report.examined[0].matches, leaves(authority)) == (None, [])
    assert "strongroom escrow FILE --name disk" in str(report.examined[0].reason)
    keep_checks(agent._home, [Check("disk", Kind.COMMAND, ("/bin/false",))])
    assert (await agent.attest()).exit_code is ExitCode.FAILED
    assert len(leaves(authority)[-1].stale) == 1


async def test_a_name_without_key_and_one_that_is_missing_are_unknown(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """The authority would refuse to hear of a record that it does not have."""
    keep_checks(agent._home, [Check("none", Kind.FILE, (str(live),))])
    id_ = await checked(agent, live)
    authority.workers.records.pop(id_)
    agent._home.path.joinpath(CHECKS_FILE).rename(live.with_name("aside"))
    await agent.sync()
    live.with_name("aside").rename(agent._home.path / CHECKS_FILE)
    report = await agent.attest()
    assert {each.name: each.matches for each in report.examined} == {"none": None, "disk": None}
    assert (report.log_index, attestations(authority)) == (None, [])


async def test_one_name_alone_can_be_attested(agent: Agent, authority: FakeAuthority, live: Path) -> None:
    """And one without check is nothing to attest."""
    id_ = await checked(agent, live)
    await checked(agent, live, "other")
    await agent.attest(name="disk")
    assert leaves(authority)[-1].matching == [id_]
    assert (await agent.attest(name="nothing")).exit_code is ExitCode.NOT_FOUND


async def test_without_answer_it_is_to_be_tried_again_with_the_same_bytes(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """A lost answer leaves one entry behind."""
    await checked(agent, live)
    authority.alter = once(on("recovery", lost))
    assert (await agent.attest()).exit_code is ExitCode.DONE
    assert len(leaves(authority)) == 1
    first, second = attestations(authority)
    assert first == second
    authority.alter = on("recovery", lost)
    report = await agent.attest(wait_seconds=0.02)
    assert isinstance(report.error, NoAnswer)
    assert (report.exit_code, report.log_index) == (ExitCode.TRY_LATER, None)
    authority.broker_down = True
    assert isinstance((await agent.attest(wait_seconds=0)).error, BrokerUnavailable)


async def test_a_refusal_is_a_failure(agent: Agent, authority: FakeAuthority, live: Path) -> None:
    """With the authority's code."""
    id_ = await checked(agent, live)
    authority.workers.records.pop(id_)
    report = await agent.attest()
    assert isinstance(report.error, Rejected)
    assert (report.error.remote_code, report.exit_code) == ("not_found", ExitCode.FAILED)
    assert agent._standings.attestations() == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "01a2050e-1a43-74ad-a430-3b0ef9071f2e"},
        {"digest": "0" * 64},
        {"principal": "laptop-0418"},
        {"key": "0" * 32},
        {"matching": []},
        {"matching": ["01a2050e-1a43-74ad-a430-3b0ef9071f2e"]},
        {"stale": ["01a2050e-1a43-74ad-a430-3b0ef9071f2e"]},
    ],
    ids=lambda changes: " ".join(f"{name}={value}" for name, value in changes.items()),
)
async def test_a_receipt_for_something_else_is_refused(
    agent: Agent, authority: FakeAuthority, live: Path, changes: dict[str, Any]
) -> None:
    """Even when it is in the log."""
    await checked(agent, live)

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        leaf = leaves(authority)[-1].model_copy(update=changes)
        index = authority.recovery_log.append(leaf.to_bytes())
        held = reply.consistency.from_size if reply.consistency else 0
        receipt = dict(authority.recovery_log.receipt(index))
        return replace(reply, receipt=receipt, consistency=authority.recovery_log.consistency(held))

    authority.alter = attested(alter)
    report = await agent.attest()
    assert isinstance(report.error, ReplyInvalid)
    assert (report.exit_code, agent._standings.attestations()) == (ExitCode.FAILED, {})


async def test_a_receipt_of_a_forked_log_is_refused(agent: Agent, authority: FakeAuthority, live: Path) -> None:
    """And while evidence is kept, nothing is said."""
    await checked(agent, live)
    agent._state.keep_evidence(Evidence("recovery", "a", "why", "held", "new", b"reply", NOW))
    report = await agent.attest()
    assert isinstance(report.error, LogForked)
    assert (report.exit_code, attestations(authority)) == (ExitCode.FAILED, [])


async def test_officers_attest_nothing(
    authority: FakeAuthority, officer_home: Callable[[str], Home], clock: Clock
) -> None:
    """They have no keys in escrow."""
    path = officer_home("alice").path
    with Agent.open(path, connector=authority.connect, clock=clock) as alice, pytest.raises(UsageError):
        await alice.attest()


def test_many_records_are_said_in_statements_that_fit(agent: Agent) -> None:
    """Each as long as ids and fingerprints can make it."""
    home = agent._home
    records = [
        RecordFacts(
            id=f"01a2050e-1a43-74ad-a430-{number:012x}",
            name="n",
            kind="k",
            description="",
            serial_number="",
            algorithm="",
            fingerprint="f" * 64,
            kid="0" * 32,
            labels={},
        )
        for number in range(ATTESTED_RECORDS_MAX + 1)
    ]
    examined = [Examined("n", record, matches=False) for record in records]
    attesting = Attesting(
        examined, authority="a" * 128, principal="p" * 64, key=signing_key(home, None), now=2**53 - 1
    )
    bodies = [body for body, _ in attesting._left]
    assert [len(body.records) for body in bodies] == [ATTESTED_RECORDS_MAX, 1]
    assert all(len(body.to_bytes()) <= REQUEST_BODY_BYTES_MAX for body in bodies)


# ---- sync ----


async def test_sync_says_it_once_and_again_after_the_policys_days(
    agent: Agent, authority: FakeAuthority, live: Path, clock: Clock
) -> None:
    """At the first time, at once when the result changes, and when `attest_days` are over."""
    authority.renew_roster(policy=Policy(attest_days=3))
    id_ = await checked(agent, live)
    report = await agent.sync()
    assert (report.attested, report.exit_code, leaves(authority)[-1].matching) == (1, ExitCode.DONE, [id_])
    clock.seconds += 3 * DAY - 1
    assert (await agent.sync()).attested == 0
    clock.seconds += 1
    assert (await agent.sync()).attested == 1
    assert len(leaves(authority)) == 2
    clock.seconds -= DAY
    assert (await agent.sync()).attested == 1


async def test_sync_says_at_once_that_a_result_has_changed(agent: Agent, tmp_path: Path) -> None:
    """Here of a command; that record stays stale for its owner to see to, and is no failure of the comparison."""
    works = tmp_path / "works"
    works.touch()
    keep_checks(agent._home, [Check("disk", Kind.COMMAND, ("/usr/bin/test", "-e", str(works)))])
    await agent.escrow([key()])
    assert (await agent.sync()).exit_code is ExitCode.DONE
    works.unlink()
    report = await agent.sync()
    assert (report.attested, report.compared, report.exit_code) == (1, True, ExitCode.FAILED)
    assert [each.listed for each in report.needy] == ["stale"]
    assert (await agent.sync()).attested == 0
    works.touch()
    report = await agent.sync()
    assert (report.attested, report.needy, report.exit_code) == (1, (), ExitCode.DONE)


async def test_what_is_unknown_is_told_by_sync_and_is_no_failure(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """A disk that is not mounted now."""
    await checked(agent, live)
    remove(live)
    report = await agent.sync()
    assert (report.exit_code, report.attested, leaves(authority)) == (ExitCode.DONE, 0, [])
    assert [each.matches for each in report.examined] == [None]


async def test_a_refused_attestation_is_told_by_sync_and_said_again_by_the_next(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """Everything else is done by then."""
    await checked(agent, live)
    authority.alter = attested(rejected_by(authority.recovery_reply_key))
    report = await agent.sync()
    assert isinstance(report.error, Rejected)
    assert (report.compared, report.attested, report.exit_code) == (True, 0, ExitCode.FAILED)
    authority.alter = lambda _message, reply: reply
    assert (await agent.sync()).attested == 1


async def test_a_sync_without_comparison_looks_at_no_key(
    agent: Agent, authority: FakeAuthority, live: Path
) -> None:
    """It only delivers."""
    await checked(agent, live)
    report = await agent.sync(compare=False)
    assert (report.examined, attestations(authority)) == ((), [])
