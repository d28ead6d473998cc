"""`Agent.recover`: what comes back, and everything that must not be taken for it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.agents import MATERIAL, NOW, Clock, key, lost, on, once, rejected_by, without_consistency

from strongroom.crypto.signing import SigningKey
from strongroom.errors import (
    BlobInvalid,
    BrokerUnavailable,
    CheckpointInvalid,
    FingerprintMismatch,
    LogForked,
    MalformedStatement,
    NoAnswer,
    Rejected,
    ReplyInvalid,
    StrongroomError,
)
from strongroom.fields import parse_body
from strongroom.leaves import ReleaseLeaf, parse_leaf
from strongroom.limits import REQUEST_LIFE_SECONDS_MAX
from strongroom.messages import Release, Request
from strongroom.replies import TREE_SIZE_HEADER, Reply
from strongroom.statements import Statement, parse_envelope
from strongroom.testing import FakeAuthority, FakeLog, FakeMessage
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import enrol
from strongroom_agent.home import Home

Alter = Callable[[FakeMessage, Reply], Reply]


async def stored(agent: Agent, *materials: bytes, name: str = "disk") -> list[str]:
    done = await agent.escrow([key(material, name) for material in materials])
    return [row.facts.id for row in done.records]


def requests(authority: FakeAuthority) -> list[bytes]:
    """Return the distinct requests that reached the authority."""
    asked = [m.body for m in authority.received if parse_envelope(m.body).type == Request.TYPE]
    return list(dict.fromkeys(asked))


def signed(authority: FakeAuthority, release: Release, request: FakeMessage) -> Reply:
    """Sign and log another release in the place of the true one, as a dishonest recovery worker could."""
    statement = Statement.sign(Release.TYPE, release.to_bytes(), authority.recovery_reply_key)
    question = parse_envelope(request.body)
    leaf = ReleaseLeaf(
        time=NOW,
        id=parse_body(question, Request).id,
        digest=question.digest.hex(),
        release=statement.digest.hex(),
        approvals=[],
        records=[record.id for record in release.records],
    )
    log = authority.recovery_log
    held = int(request.headers[TREE_SIZE_HEADER])
    index = log.append(leaf.to_bytes())
    return Reply(statement=statement, receipt=dict(log.receipt(index)), consistency=log.consistency(held))


def rereleased(authority: FakeAuthority, change: Callable[[Release], Release]) -> Alter:
    """Answer with another release, properly signed and logged."""

    def alter(message: FakeMessage, reply: Reply) -> Reply:
        assert reply.statement is not None
        return signed(authority, change(parse_body(reply.statement, Release)), message)

    return alter


async def test_the_newest_key_of_a_name_comes_back_with_its_history(agent: Agent) -> None:
    """Older ones are named, newest first, and come back by id."""
    ids = await stored(agent, b"old", b"newer", b"newest")
    found = await agent.recover(name="disk", reason="lost the disk")
    assert [recovered.material.expose() for recovered in found.keys] == [b"newest"]
    assert [entry.id for entry in found.history] == ids[::-1]
    assert found.missing == ()
    again = await agent.recover(records=ids[:2])
    assert {each.record.id: each.material.expose() for each in again.keys} == {ids[0]: b"old", ids[1]: b"newer"}
    assert again.history == ()


async def test_a_release_is_on_record_where_the_answer_says(agent: Agent, authority: FakeAuthority) -> None:
    """The leaf names the request."""
    await stored(agent, MATERIAL)
    found = await agent.recover(name="disk")
    leaf = parse_leaf(authority.recovery_log.leaves[found.log_index])
    assert isinstance(leaf, ReleaseLeaf)
    assert leaf.id == found.request_id
    assert found.tree_size == authority.recovery_log.size


async def test_neither_repr_nor_request_shows_a_secret(agent: Agent, authority: FakeAuthority) -> None:
    """The one-time key stays here, and the material is masked."""
    await stored(agent, MATERIAL)
    found = await agent.recover(name="disk")
    assert MATERIAL.decode() not in repr(found)
    assert MATERIAL not in b"".join(message.body for message in authority.received)


async def test_every_call_has_a_one_time_key_of_its_own_and_a_short_life(
    agent: Agent, authority: FakeAuthority
) -> None:
    """A captured answer opens with nothing that is kept."""
    await stored(agent, MATERIAL)
    await agent.recover(name="disk")
    await agent.recover(name="disk")
    one, other = (parse_body(parse_envelope(body), Request) for body in requests(authority))
    assert one.recipient_key != other.recipient_key
    assert one.expires_at - one.issued_at == REQUEST_LIFE_SECONDS_MAX


async def test_a_lost_answer_is_asked_for_again_with_the_same_request(
    agent: Agent, authority: FakeAuthority
) -> None:
    """There is one release on record, whatever got lost."""
    await stored(agent, MATERIAL)
    before = authority.recovery_log.size
    authority.alter = once(lost)
    found = await agent.recover(name="disk")
    assert found.keys[0].material.expose() == MATERIAL
    assert len(requests(authority)) == 1
    assert authority.recovery_log.size == before + 2


async def test_without_answer_or_broker_it_is_worth_trying_again(agent: Agent, authority: FakeAuthority) -> None:
    """Both are told by name."""
    await stored(agent, MATERIAL)
    authority.alter = lost
    with pytest.raises(NoAnswer):
        await agent.recover(name="disk", wait_seconds=0.02)
    authority.broker_down = True
    with pytest.raises(BrokerUnavailable):
        await agent.recover(name="disk", wait_seconds=0.02)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"name": "nothing"}, "not_found"),
        ({"records": ["01a2050e-1a43-74ad-a430-3b0ef9071f2e"]}, "not_found"),
        ({"name": "disk", "principal": "laptop-0418"}, "denied"),
    ],
)
async def test_a_refusal_is_raised_with_the_authoritys_code(agent: Agent, asked: dict[str, str], code: str) -> None:
    """Signed by the recovery worker."""
    with pytest.raises(Rejected) as caught:
        await agent.recover(**asked)  # type: ignore[arg-type]
    assert caught.value.remote_code == code


async def test_an_officers_request_is_made_in_the_officers_name(
    agent: Agent, authority: FakeAuthority, officer_home: Callable[[str], Home], clock: Clock
) -> None:
    """Policy asks for approvals, and says so."""
    await stored(agent, MATERIAL)
    home = officer_home("alice")
    with (
        Agent.open(home.path, connector=authority.connect, clock=clock) as officer,
        pytest.raises(Rejected) as caught,
    ):
        await officer.recover(name="disk", principal="laptop-0417", reason="left the company")
    assert caught.value.remote_code == "approval_required"
    request = parse_body(parse_envelope(authority.received[-1].body), Request)
    assert (request.requester, request.requester_kind.value, request.principal) == (
        "alice",
        "officer",
        "laptop-0417",
    )


@pytest.mark.parametrize("asked", [{}, {"name": "disk", "records": ["01a2050e-1a43-74ad-a430-3b0ef9071f2e"]}])
async def test_exactly_one_selection_is_asked_for(agent: Agent, asked: dict[str, object]) -> None:
    """Nothing is sent otherwise."""
    with pytest.raises(MalformedStatement):
        await agent.recover(**asked)  # type: ignore[arg-type]


async def test_a_host_that_lost_everything_gets_its_keys_back_under_a_replaced_key(
    agent: Agent, authority: FakeAuthority, tmp_path: Path, clock: Clock
) -> None:
    """The new home knows nothing of the old records, and needs to know nothing."""
    await stored(agent, MATERIAL)
    document = authority.invitation_file("laptop-0417", replaces=True)
    anew = await enrol(tmp_path / "anew", document, connector=authority.connect, clock=clock)
    with Agent.open(anew.home.path, connector=authority.connect, clock=clock) as again:
        found = await again.recover(name="disk")
    assert found.keys[0].material.expose() == MATERIAL


async def test_a_record_that_the_history_does_not_have_is_reported(agent: Agent, authority: FakeAuthority) -> None:
    """The key that is there comes back; the receipt for the other one is here."""
    ids = await stored(agent, b"old", b"new")
    del authority.workers.records[ids[1]]
    found = await agent.recover(name="disk")
    assert found.keys[0].material.expose() == b"old"
    assert found.missing == (ids[1],)


# ---- answers that are not to be believed ----


async def refused(agent: Agent, error: type[StrongroomError], **asked: object) -> None:
    with pytest.raises(error) as caught:
        await agent.recover(**(asked or {"name": "disk"}))  # type: ignore[arg-type]
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"request": "01a2050e-1a43-74ad-a430-3b0ef9071f2e"}, ReplyInvalid),
        ({"request_digest": "0" * 64}, ReplyInvalid),
        ({"authority": "other.example"}, ReplyInvalid),
        ({"history": []}, ReplyInvalid),
    ],
    ids=lambda value: str(*value) if isinstance(value, dict) else value.__name__,
)
async def test_a_release_that_answers_something_else_is_refused(
    agent: Agent, authority: FakeAuthority, changes: dict[str, object], error: type[StrongroomError]
) -> None:
    """Even when the recovery worker signed and logged it."""
    await stored(agent, MATERIAL)
    authority.alter = rereleased(authority, lambda release: release.model_copy(update=changes))
    await refused(agent, error)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"principal": "laptop-0418"}, ReplyInvalid),
        ({"name": "other"}, ReplyInvalid),
        ({"id": "01a2050e-1a43-74ad-a430-3b0ef9071f2e"}, ReplyInvalid),
        ({"fingerprint": "0" * 64}, FingerprintMismatch),
        ({"blob": b"x" * 1200}, BlobInvalid),
    ],
    ids=lambda value: str(*value) if isinstance(value, dict) else value.__name__,
)
async def test_a_released_record_that_differs_is_refused(
    agent: Agent, authority: FakeAuthority, changes: dict[str, object], error: type[StrongroomError]
) -> None:
    """Another principal, name, id, fingerprint or blob."""
    await stored(agent, MATERIAL)

    def change(release: Release) -> Release:
        return release.model_copy(update={"records": [release.records[0].model_copy(update=changes)]})

    authority.alter = rereleased(authority, change)
    await refused(agent, error)


async def test_an_older_record_is_not_taken_for_the_newest(agent: Agent, authority: FakeAuthority) -> None:
    """The history shows what is newer."""
    ids = await stored(agent, b"old", b"new")
    true = await agent.recover(records=ids)

    def change(release: Release) -> Release:
        return release.model_copy(update={"records": [true.keys[0].record]})

    authority.alter = rereleased(authority, change)
    await refused(agent, ReplyInvalid)


async def test_other_records_than_were_asked_for_are_refused(agent: Agent, authority: FakeAuthority) -> None:
    """Fewer, or other ones."""
    ids = await stored(agent, b"one", b"two", b"three")
    authority.alter = rereleased(
        authority, lambda release: release.model_copy(update={"records": release.records[:1]})
    )
    await refused(agent, ReplyInvalid, records=ids[:2])


async def test_two_swapped_blobs_do_not_open(agent: Agent, authority: FakeAuthority) -> None:
    """Each is bound to its record."""
    ids = await stored(agent, b"one", b"two")

    def swap(release: Release) -> Release:
        one, two = release.records
        swapped = [one.model_copy(update={"blob": two.blob}), two.model_copy(update={"blob": one.blob})]
        return release.model_copy(update={"records": swapped})

    authority.alter = rereleased(authority, swap)
    await refused(agent, BlobInvalid, records=ids)


async def test_a_key_whose_fingerprint_is_not_the_one_signed_here_is_refused(agent: Agent) -> None:
    """A dishonest authority that makes up key and fingerprint is found out by a host that still knows its own."""
    [id_] = await stored(agent, MATERIAL)
    agent._state.execute("UPDATE records SET fingerprint = ? WHERE id = ?", "0" * 64, id_)
    await refused(agent, FingerprintMismatch)


async def test_a_host_that_knows_nothing_of_its_own_checks_the_fingerprint_all_the_same(
    agent: Agent, authority: FakeAuthority
) -> None:
    """After a loss there is nothing to compare with but the release itself."""
    await stored(agent, MATERIAL)
    agent._state.execute("DELETE FROM records")

    def change(release: Release) -> Release:
        return release.model_copy(
            update={"records": [release.records[0].model_copy(update={"fingerprint": "0" * 64})]}
        )

    authority.alter = rereleased(authority, change)
    await refused(agent, FingerprintMismatch)


async def test_a_release_signed_by_anybody_else_is_refused(agent: Agent, authority: FakeAuthority) -> None:
    """The escrow worker and strangers do not release keys."""
    await stored(agent, MATERIAL)
    for forger in (authority.escrow_reply_key, SigningKey.generate(), authority.recovery_log.key):

        def alter(_message: FakeMessage, reply: Reply, forger: SigningKey = forger) -> Reply:
            assert reply.statement is not None
            return replace(reply, statement=Statement.sign(Release.TYPE, reply.statement.body, forger))

        authority.alter = alter
        await refused(agent, ReplyInvalid)


async def test_a_release_that_is_not_on_record_is_refused(agent: Agent, authority: FakeAuthority) -> None:
    """No key without a log entry committed first: no receipt, an old receipt, another log's."""
    await stored(agent, MATERIAL)
    cases: list[tuple[Callable[[], dict[str, object] | None], type[StrongroomError]]] = [
        (lambda: None, ReplyInvalid),
        (lambda: dict(authority.recovery_log.receipt(0)), ReplyInvalid),
        (lambda: dict(authority.escrow_log.receipt(0)), CheckpointInvalid),
    ]
    for receipt, error in cases:
        authority.alter = lambda _message, reply, receipt=receipt: replace(reply, receipt=receipt())  # type: ignore[misc]
        await refused(agent, error)


@pytest.mark.parametrize("member", ["id", "digest", "release", "records"])
async def test_a_release_leaf_that_differs_in_one_member_is_refused(
    agent: Agent, authority: FakeAuthority, member: str
) -> None:
    """What is on record must be exactly what was handed out."""
    await stored(agent, MATERIAL)
    other = "01a2050e-1a43-74ad-a430-3b0ef9071f2e"
    changes = {"id": other, "digest": "0" * 64, "release": "0" * 64, "records": [other]}
    before = authority.recovery_log.size

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        log = authority.recovery_log
        leaf = parse_leaf(log.leaves[-1]).model_copy(update={member: changes[member]})
        index = log.append(leaf.to_bytes())
        return replace(reply, receipt=dict(log.receipt(index)), consistency=log.consistency(before))

    authority.alter = alter
    await refused(agent, ReplyInvalid)


async def test_a_rewritten_recovery_log_is_a_fork_with_evidence(agent: Agent, authority: FakeAuthority) -> None:
    """A log that lost entries has released keys unseen."""
    await stored(agent, MATERIAL)
    await agent.recover(name="disk")
    log = FakeLog(authority.recovery_log.origin)
    log.key = authority.recovery_log.key

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        index = log.append(authority.recovery_log.leaves[-1])
        return replace(reply, receipt=dict(log.receipt(index)), consistency=None)

    authority.alter = alter
    await refused(agent, LogForked)
    assert [each.log for each in agent._state.evidence()] == ["recovery"]


async def test_a_release_without_consistency_is_refused(agent: Agent, authority: FakeAuthority) -> None:
    """A checkpoint is held since the enrolment."""
    await stored(agent, MATERIAL)
    authority.alter = without_consistency
    await refused(agent, ReplyInvalid)


async def test_a_forged_refusal_says_nothing(agent: Agent, authority: FakeAuthority) -> None:
    """Only the recovery worker refuses."""
    await stored(agent, MATERIAL)
    authority.alter = on("recovery", rejected_by(authority.escrow_reply_key))
    await refused(agent, ReplyInvalid)
    authority.alter = on("recovery", rejected_by(authority.recovery_reply_key, of=b"x" * 32))
    await refused(agent, ReplyInvalid)
