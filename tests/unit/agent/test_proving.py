"""`escrow` and `seal` until proven: what is waited for, and how it ends."""

from pathlib import Path

import pytest
from tests.support.agents import Clock, key, lost, on, rejected_by

from strongroom.errors import ExitCode, ReplyInvalid
from strongroom.messages import ListingRequest
from strongroom.replies import Reply
from strongroom.statements import parse_envelope
from strongroom.testing import FakeAuthority, FakeMessage
from strongroom_agent.agent import Agent
from strongroom_agent.proving import NotProven, _before
from strongroom_agent.status import record_document, status


def proves(authority: FakeAuthority, *, at_listing: int = 1, unprovable: str | None = None) -> None:
    """Let the prover come by when a listing is asked for the so many-th time."""
    left = [at_listing]
    handle = authority.handle

    def handled(message: FakeMessage) -> Reply:
        if parse_envelope(message.body).type == ListingRequest.TYPE:
            left[0] -= 1
            if left[0] == 0:
                codes = dict.fromkeys(authority.workers.records, unprovable) if unprovable else {}
                authority.workers.evidence.prove(unprovable=codes)
        return handle(message)

    authority.handle = handled  # type: ignore[method-assign]  # as the broker would hand it to somebody else first


async def test_a_key_is_waited_for_until_it_is_proven(agent: Agent, authority: FakeAuthority) -> None:
    """Asked again until it is; the rows say it, and so does the status, offline."""
    proves(authority, at_listing=3)
    done = await agent.escrow([key()], until_proven=True)
    assert (done.exit_code, done.error) == (ExitCode.DONE, None)
    [row] = done.records
    assert (row.listed, row.is_proven) == ("proven", True)
    assert record_document(row)["proof"] == authority.recovery_log.size - 1
    assert agent._standings.proof(row.facts.id) is not None
    assert status(agent._home.path).exit_code is ExitCode.DONE
    assert authority.escrow_log.size == 1


async def test_a_key_that_is_not_proven_in_time_is_stored(agent: Agent, authority: FakeAuthority) -> None:
    """Exit code 6, and what to do; without waiting for it the same is exit code 0."""
    done = await agent.escrow([key()], wait_seconds=0.05, until_proven=True)
    assert isinstance(done.error, NotProven)
    assert "1 of 1" in done.error.message
    assert (done.exit_code, done.stored) == (ExitCode.NOT_PROVEN, 1)
    assert (await agent.escrow([key()])).exit_code is ExitCode.DONE
    assert authority.escrow_log.size == 2


async def test_a_key_that_is_found_unprovable_is_a_failure_at_once(agent: Agent, authority: FakeAuthority) -> None:
    """Nothing is gained by waiting."""
    proves(authority, unprovable="blob_invalid")
    done = await agent.escrow([key()], until_proven=True)
    assert (done.exit_code, done.error, done.records[0].listed) == (ExitCode.FAILED, None, "unprovable")
    assert record_document(done.records[0])["unprovable"] == "blob_invalid"


async def test_a_key_whose_statement_was_damaged_is_a_failure_too(agent: Agent, authority: FakeAuthority) -> None:
    """The listing can say nothing but a code."""
    handle = authority.handle

    def handled(message: FakeMessage) -> Reply:
        authority.workers.unreadable = dict.fromkeys(authority.workers.records, "proof_invalid")
        return handle(message)

    authority.handle = handled  # type: ignore[method-assign]
    done = await agent.escrow([key()], until_proven=True)
    assert (done.exit_code, done.records[0].listed) == (ExitCode.FAILED, "unprovable")


async def test_another_fingerprint_than_signed_is_a_failure(agent: Agent, authority: FakeAuthority) -> None:
    """Proven or not."""
    handle = authority.handle

    def handled(message: FakeMessage) -> Reply:
        for held in authority.workers.records.values():
            held.record = held.record.model_copy(update={"fingerprint": "0" * 64})
        return handle(message)

    authority.handle = handled  # type: ignore[method-assign]
    done = await agent.escrow([key()], until_proven=True)
    assert (done.exit_code, done.records[0].listed) == (ExitCode.FAILED, "mismatched")


async def test_what_is_only_spooled_or_rejected_is_not_waited_for(agent: Agent, authority: FakeAuthority) -> None:
    """Their exit codes stay."""
    authority.alter = on("escrow", lost)
    done = await agent.escrow([key()], wait_seconds=0.02, until_proven=True)
    assert (done.exit_code, done.spooled) == (ExitCode.TRY_LATER, 1)
    authority.alter = on("escrow", rejected_by(authority.escrow_reply_key))
    done = await agent.escrow([key()], until_proven=True)
    assert (done.exit_code, done.rejected, done.error) == (ExitCode.FAILED, 1, None)


async def test_without_a_listing_a_stored_key_is_not_proven(agent: Agent, authority: FakeAuthority) -> None:
    """No answer says nothing; a forged one is a failure."""
    authority.alter = on("recovery", lost)
    done = await agent.escrow([key()], wait_seconds=0.05, until_proven=True)
    assert (done.exit_code, done.stored) == (ExitCode.NOT_PROVEN, 1)
    authority.alter = on("recovery", rejected_by(authority.escrow_reply_key))
    done = await agent.escrow([key()], until_proven=True)
    assert isinstance(done.error, ReplyInvalid)
    assert done.exit_code is ExitCode.FAILED


async def test_only_the_pages_of_the_new_keys_are_read_and_what_was_known_stays(
    agent: Agent, authority: FakeAuthority, clock: Clock
) -> None:
    """A host may have thousands of older ones."""
    for _ in range(4):
        await agent.escrow([key(name="old")])
    authority.workers.evidence.prove(unprovable={min(authority.workers.records): "blob_invalid"})
    await agent.sync()
    before = agent._standings.all()
    authority.workers.listing_records_max = 2
    authority.received.clear()
    clock.seconds += 1
    proves(authority)
    done = await agent.escrow([key(name="a"), key(name="b")], until_proven=True)
    assert done.exit_code is ExitCode.DONE
    assert [message.routing_key.split(".")[1] for message in authority.received] == ["escrow", "recovery"]
    after = agent._standings.all()
    assert {id_: after[id_] for id_ in before} == before


async def test_a_sealed_file_is_waited_for_too(agent: Agent, authority: FakeAuthority, tmp_path: Path) -> None:
    """Its session key is what is proven."""
    (tmp_path / "report").write_bytes(b"content")
    sealed = await agent.seal_file(tmp_path / "report", wait_seconds=0.05, until_proven=True)
    assert sealed.delivery.exit_code is ExitCode.NOT_PROVEN
    proves(authority)
    sealed = await agent.seal_file(tmp_path / "report", overwrite=True, until_proven=True)
    assert sealed.delivery.exit_code is ExitCode.DONE


@pytest.mark.parametrize(
    ("id_", "before"),
    [
        ("01a2050e-1a43-74ad-a430-3b0ef9071f2e", "01a2050e-1a43-74ad-a430-3b0ef9071f2d"),
        ("01a2050e-1a43-74ad-a430-000000000000", "01a2050e-1a43-74ad-a42f-ffffffffffff"),
        ("01a2050e-1a43-74ad-8000-000000000000", None),
    ],
)
def test_the_id_before_an_id_is_an_id_or_none(id_: str, before: str | None) -> None:
    """The bits of version and variant stay as they are."""
    assert _before(id_) == before
