"""`Agent.escrow` of wrapped keys and `Agent.recover(unwrap=True)`: what is signed, asked, believed and kept."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.agents import MATERIAL, NOW, Clock, key, lost, on, once
from tests.support.cryptoapi import WRAPPED
from tests.support.wrapping import CONTENT, KID, message, packet, take_transport_keys

from strongroom.blobs import BlobContext, ReleaseContext, open_material, seal_unwrapped
from strongroom.crypto.rsa import Padding
from strongroom.crypto.sealing import kid
from strongroom.crypto.secret import Secret
from strongroom.errors import (
    BlobInvalid,
    ExitCode,
    KeyUnknown,
    MalformedStatement,
    ReplyInvalid,
    UsageError,
)
from strongroom.fields import parse_body
from strongroom.leaves import ReleaseLeaf, parse_leaf
from strongroom.limits import APPROVED_REQUEST_LIFE_SECONDS_MAX
from strongroom.mandates import Policy
from strongroom.messages import Release, Request, WrappedFormat, Wrapping
from strongroom.replies import TREE_SIZE_HEADER, Reply
from strongroom.statements import Statement, parse_envelope
from strongroom.testing import FakeAuthority, FakeMessage
from strongroom_agent import waiting as waiting_module
from strongroom_agent.agent import Agent, KeyToEscrow, Unreleased
from strongroom_agent.checks import Check, Kind
from strongroom_agent.enrolment import enrol
from strongroom_agent.home import Home
from strongroom_agent.wrapping import Wrapped

VECTOR = next(each for each in WRAPPED if each.label == "AES-256-pkcs1")
SESSION_KEY = VECTOR.plaintext[12:]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch, authority: FakeAuthority) -> None:
    """No pauses, and an authority with a transport key."""
    monkeypatch.setattr(waiting_module, "FIRST_PAUSE_SECONDS", 0.0)
    take_transport_keys(authority)


@pytest.fixture
def officer(
    agent: Agent,  # noqa: ARG001 - the host is enrolled before
    officer_home: Callable[[str], Home],
    authority: FakeAuthority,
    clock: Clock,
) -> Iterator[Agent]:
    with Agent.open(officer_home("alice").path, connector=authority.connect, clock=clock) as opened:
        yield opened


def wrapped(
    material: bytes = VECTOR.simple,
    kind: WrappedFormat = WrappedFormat.CRYPTOAPI_SIMPLE,
    padding: Padding | None = Padding.PKCS1,
    **more: Any,
) -> KeyToEscrow:
    return KeyToEscrow(
        material=Secret(material), name="archive", kind=kind.value, wrapped=Wrapped(kind, padding), **more
    )


async def stored(agent: Agent, *keys: KeyToEscrow) -> list[str]:
    done = await agent.escrow(list(keys) or [wrapped()])
    assert done.exit_code is ExitCode.DONE
    return [row.facts.id for row in done.records]


async def waiting(asked: Awaitable[object]) -> str:
    """Ask, and return the id of the request that waits."""
    with pytest.raises(Unreleased) as caught:
        await asked
    assert caught.value.is_waiting
    return caught.value.asked.id


def signed_records(authority: FakeAuthority) -> list[Wrapping | None]:
    """Return what was signed about the wrapping of every record that is stored."""
    return [each.record.wrapping for each in authority.workers.records.values()]


# ---- escrow ----


async def test_the_wrapping_is_signed_with_the_record(agent: Agent, authority: FakeAuthority) -> None:
    """And nothing of it with a record that is not wrapped; the algorithm is the blob's, unless its owner says."""
    await stored(agent, wrapped(), wrapped(algorithm="the archive of 1998"), key())
    one, own, none = authority.workers.records.values()
    assert one.record.wrapping is not None
    assert (one.record.wrapping.kid, one.record.wrapping.padding) == (KID, "pkcs1")
    assert (one.record.algorithm, own.record.algorithm) == ("AES-256", "the archive of 1998")
    assert none.record.wrapping is None


async def test_what_is_escrowed_are_the_bytes_of_the_other_program(agent: Agent) -> None:
    """Unchanged, whatever the format."""
    for material, kind in (
        (VECTOR.simple, WrappedFormat.CRYPTOAPI_SIMPLE),
        (message(), WrappedFormat.CMS),
        (packet(message()), WrappedFormat.VOLUME_KEY),
    ):
        padding = Padding.PKCS1 if kind is WrappedFormat.CRYPTOAPI_SIMPLE else None
        [id_] = await stored(agent, wrapped(material, kind, padding))
        recovery = await agent.recover(records=[id_])
        assert recovery.keys[0].material.expose() == material
        assert recovery.keys[0].unwrapped is None
        assert recovery.keys[0].record.wrapping is not None


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (wrapped(VECTOR.simple[:-1]), BlobInvalid),
        (wrapped(padding=None), UsageError),
        (wrapped(message(), WrappedFormat.CMS, Padding.OAEP), MalformedStatement),
        (replace(wrapped(), wrapped=Wrapped(WrappedFormat.CRYPTOAPI_SIMPLE, Padding.PKCS1, "0" * 32)), KeyUnknown),
        (replace(wrapped(), kind="pkcs8"), MalformedStatement),
        (
            KeyToEscrow(material=Secret(b"123456-"), name="disk", kind="recovery-password-bitlocker"),
            MalformedStatement,
        ),
    ],
)
async def test_a_key_that_is_not_what_is_said_is_refused_before_anything_is_spooled(
    agent: Agent, authority: FakeAuthority, bad: KeyToEscrow, error: type[Exception]
) -> None:
    """Also the good ones beside it; for the owner has it still, and can say it better."""
    before = len(authority.received)
    with pytest.raises(error):
        await agent.escrow([key(), bad])
    assert agent._spool.size() == 0
    assert len(authority.received) == before


async def test_a_wrapped_key_that_another_host_escrowed_first_is_refused(
    agent: Agent, authority: FakeAuthority, tmp_path: Path, clock: Clock
) -> None:
    """Signed word of the authority; a copy in another format, too."""
    await stored(agent, wrapped(message(), WrappedFormat.CMS, None))
    document = authority.invitation_file("thief")
    enrolled = await enrol(tmp_path / "thief", document, connector=authority.connect, clock=clock)
    same = message_in_packet(authority)
    with Agent.open(enrolled.home.path, connector=authority.connect, clock=clock) as thief:
        done = await thief.escrow([wrapped(same, WrappedFormat.VOLUME_KEY, None)])
    assert done.exit_code is ExitCode.FAILED
    assert done.records[0].code == "record_conflict"


def message_in_packet(authority: FakeAuthority) -> bytes:
    """Return the message that is in escrow, as a packet of volume_key."""
    [stored] = authority.workers.records.values()
    record = stored.record
    context = BlobContext(authority.name, stored.escrow.principal, record.id, record.kid, record.suite)
    return packet(open_material(record.blob, context, authority.sealing_keys[0]).material.expose())


# ---- recovery ----


async def test_the_key_inside_comes_back_after_an_approval_whatever_policy_says(
    agent: Agent, authority: FakeAuthority
) -> None:
    """The host's policy asks for none; the request is one that may wait, and says what it asks for."""
    assert authority.roster.body.policy == Policy()
    assert Policy().self_recovery_approvals == 0
    await stored(agent)
    id_ = await waiting(agent.recover(name="archive", unwrap=True))
    request = authority.workers.docket.cases[id_].request
    assert request.unwrap
    assert request.expires_at - request.issued_at == APPROVED_REQUEST_LIFE_SECONDS_MAX
    authority.approve(id_, "officer-1")
    found = (await agent.recover(name="archive", unwrap=True)).keys[0]
    assert found.material.expose() == VECTOR.simple
    assert found.unwrapped is not None
    assert found.unwrapped.expose() == SESSION_KEY


@pytest.mark.parametrize("kind", [WrappedFormat.CMS, WrappedFormat.VOLUME_KEY])
@pytest.mark.parametrize("padding", list(Padding))
async def test_the_content_of_a_message_comes_back(
    agent: Agent, officer: Agent, authority: FakeAuthority, kind: WrappedFormat, padding: Padding
) -> None:
    """To officers as well, by id."""
    made = message(padding)
    material = packet(made) if kind is WrappedFormat.VOLUME_KEY else made
    [id_] = await stored(agent, wrapped(material, kind, None))
    asked: dict[str, Any] = {"records": [id_], "principal": "laptop-0417", "reason": "left", "unwrap": True}
    authority.approve(await waiting(officer.recover(**asked)), "officer-1", "officer-2")
    found = (await officer.recover(**asked)).keys[0]
    assert found.unwrapped is not None
    assert found.unwrapped.expose() == CONTENT


async def test_a_request_that_unwraps_and_one_that_does_not_are_never_taken_for_each_other(
    agent: Agent, officer: Agent, authority: FakeAuthority
) -> None:
    """Each is kept, taken up again by its own call, and settled alone."""
    await stored(agent)
    asked: dict[str, Any] = {"name": "archive", "principal": "laptop-0417", "reason": "left"}
    plain = await waiting(officer.recover(**asked))
    opening = await waiting(officer.recover(**asked, unwrap=True))
    assert plain != opening
    assert await waiting(officer.recover(**asked)) == plain
    assert await waiting(officer.recover(**asked, unwrap=True)) == opening
    authority.approve(plain, "officer-1", "officer-2")
    found = await officer.recover(**asked)
    assert (found.request_id, found.keys[0].unwrapped) == (plain, None)
    found.settle()
    assert await waiting(officer.recover(**asked, unwrap=True)) == opening


async def test_a_lost_answer_is_asked_for_again_and_gives_the_same_key(
    agent: Agent, authority: FakeAuthority
) -> None:
    """By the same request, so that there is one release."""
    await stored(agent)
    authority.approve(await waiting(agent.recover(name="archive", unwrap=True)), "officer-1")
    authority.alter = on("recovery", once(lost))
    found = (await agent.recover(name="archive", unwrap=True)).keys[0]
    again = (await agent.recover(name="archive", unwrap=True)).keys[0]
    assert found.unwrapped == again.unwrapped
    leaves = [parse_leaf(data) for data in authority.recovery_log.leaves]
    assert sum(isinstance(leaf, ReleaseLeaf) for leaf in leaves) == 1


async def test_a_key_that_is_not_wrapped_is_refused_by_the_authority(
    agent: Agent, authority: FakeAuthority
) -> None:
    """There is nothing inside it."""
    await stored(agent, key())
    authority.approve(await waiting(agent.recover(name="disk", unwrap=True)), "officer-1")
    with pytest.raises(Unreleased) as caught:
        await agent.recover(name="disk", unwrap=True)
    assert caught.value.remote_code == "malformed"


# ---- a dishonest recovery worker ----


def release_with(
    authority: FakeAuthority, change: Callable[[Release, Statement], Release]
) -> Callable[[FakeMessage, Reply], Reply]:
    """Answer with another release, properly signed and logged."""

    def alter(came: FakeMessage, reply: Reply) -> Reply:
        if reply.statement is None or reply.statement.type != Release.TYPE:
            return reply
        question = parse_envelope(came.body)
        release = change(parse_body(reply.statement, Release), question)
        statement = Statement.sign(Release.TYPE, release.to_bytes(), authority.recovery_reply_key)
        leaf = ReleaseLeaf(
            time=NOW,
            id=release.request,
            digest=release.request_digest,
            release=statement.digest.hex(),
            approvals=[],
            records=[record.id for record in release.records],
        )
        log = authority.recovery_log
        held = int(came.headers[TREE_SIZE_HEADER])
        index = log.append(leaf.to_bytes())
        return Reply(statement=statement, receipt=dict(log.receipt(index)), consistency=log.consistency(held))

    return alter


def without_content(release: Release, _question: Statement) -> Release:
    return release.model_copy(
        update={"records": [r.model_copy(update={"unwrapped": None}) for r in release.records]}
    )


def without_wrapping(release: Release, _question: Statement) -> Release:
    return release.model_copy(
        update={"records": [r.model_copy(update={"wrapping": None}) for r in release.records]}
    )


def of_another_digest(release: Release, _question: Statement) -> Release:
    def changed(wrapping: Wrapping | None) -> Wrapping | None:
        return wrapping and wrapping.model_copy(update={"digest": "0" * 64})

    records = [r.model_copy(update={"wrapping": changed(r.wrapping)}) for r in release.records]
    return release.model_copy(update={"records": records})


def sealed_for_another_record(release: Release, question: Statement) -> Release:
    body = parse_body(question, Request)
    recipient = kid(body.recipient_suite, body.recipient_key)
    place = ReleaseContext(body.authority, question.digest, body.principal, body.id, recipient)
    sealed = seal_unwrapped(Secret(b"another key"), place, body.recipient_suite, body.recipient_key)
    return release.model_copy(
        update={"records": [r.model_copy(update={"unwrapped": sealed}) for r in release.records]}
    )


def with_the_blob_in_its_place(release: Release, _question: Statement) -> Release:
    return release.model_copy(
        update={"records": [r.model_copy(update={"unwrapped": r.blob}) for r in release.records]}
    )


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (without_content, ReplyInvalid),
        (without_wrapping, ReplyInvalid),
        (of_another_digest, BlobInvalid),
        (sealed_for_another_record, BlobInvalid),
        (with_the_blob_in_its_place, BlobInvalid),
    ],
)
async def test_an_answer_that_does_not_hold_what_was_asked_for_is_not_believed(
    agent: Agent,
    authority: FakeAuthority,
    change: Callable[[Release, Statement], Release],
    error: type[Exception],
) -> None:
    """And the request stays, so that an honest answer can follow."""
    await stored(agent)
    authority.approve(await waiting(agent.recover(name="archive", unwrap=True)), "officer-1")
    authority.alter = release_with(authority, change)
    with pytest.raises(error):
        await agent.recover(name="archive", unwrap=True)
    authority.alter = lambda _message, reply: reply
    found = (await agent.recover(name="archive", unwrap=True)).keys[0]
    assert found.unwrapped is not None
    assert found.unwrapped.expose() == SESSION_KEY


# ---- what is escrowed anew ----


async def test_a_wrapped_key_that_is_escrowed_anew_stays_a_wrapped_one(
    agent: Agent, authority: FakeAuthority, tmp_path: Path
) -> None:
    """With the same format, padding and key; as an opaque one nobody could ever have it opened."""
    live = tmp_path / "blob"
    live.write_bytes(VECTOR.simple)
    done = await agent.escrow([wrapped()], checks=[Check("archive", Kind.FILE, (str(live),))])
    before = done.records[0].facts.id
    authority.workers.evidence.prove(unprovable={before: "blob_invalid"})
    report = await agent.sync()
    assert [row.facts.supersedes for row in report.renewed] == [(before,)]
    old, new = signed_records(authority)
    assert old == new is not None


async def test_a_live_key_that_is_no_more_of_its_kind_is_told_and_hinders_no_other(
    agent: Agent, tmp_path: Path
) -> None:
    """`sync` fails for it alone, with what is wrong, and never quotes it."""
    good = tmp_path / "good"
    bad = tmp_path / "bad"
    good.write_bytes(MATERIAL)
    bad.write_bytes(b"-".join([b"000000"] * 8))
    password = KeyToEscrow(material=Secret(bad.read_bytes()), name="bitlocker", kind="recovery-password-bitlocker")
    checks = [Check("disk", Kind.FILE, (str(good),)), Check("bitlocker", Kind.FILE, (str(bad),))]
    await agent.escrow([key(), password], checks=checks)
    good.write_bytes(b"a new disk key")
    bad.write_bytes(b"-".join([b"000001"] * 8))
    report = await agent.sync()
    assert [row.facts.name for row in report.renewed] == ["disk"]
    assert report.unfit.keys() == {"bitlocker"}
    assert "group 1" in report.unfit["bitlocker"].message
    assert "000001" not in report.unfit["bitlocker"].message
    assert report.exit_code is ExitCode.FAILED
