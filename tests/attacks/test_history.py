"""Whoever owns the database takes back what was decided: rows, the end of a log, a day of it, last week's dump."""

from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs
from tests.attacks.conftest import MATERIAL, Stage, is_forked
from tests.integration.test_recovery_approvals import approved, code_of, done, material, officers_request, waits
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.agents import key
from tests.support.attacker import UNGUARDED, as_superuser, ask_superuser, dump, leaves_of, remake_log, restore
from tests.support.recovery import Place

from strongroom.errors import LogForked
from strongroom.leaves import parse_leaf
from strongroom.statements import Statement


async def replace(place: Place) -> Statement:
    """Replace the host's key; return the request of whoever has stolen the former one."""
    invited = make.invitation(officers=("officer-a", "officer-b"), replaces=True)
    await place.enrol(make.enrolment(invited, key="the new key"))
    return ask.request()


async def revoke(place: Place) -> Statement:
    """Revoke the host; return the request of whoever has stolen its key."""
    await done(place, make.revocation())
    return ask.request()


async def deny(place: Place) -> Statement:
    """Deny a request that two officers have approved; return that request."""
    request = officers_request()
    await approved(place, request)
    await done(place, ask.denial(request, "officer-d"))
    return request


async def release(place: Place) -> Statement:
    """Release a key; return another request by the same requester, which policy allows one a day."""
    policy = place.roster.body.policy.model_copy(update={"released_records_per_day": 1})
    place.write_roster(make.next_roster(place.roster, policy=policy))
    await place.release(ask.request())
    return ask.request()


Decide = Callable[[Place], Awaitable[Statement]]
every_decision = pytest.mark.parametrize(
    ("decide", "kind"),
    [(replace, "enrolment"), (revoke, "revocation"), (deny, "denial"), (release, "release")],
    ids=["replacement", "revocation", "denial", "release"],
)
# What the thief is told once the rows are gone. Nobody is heard for a host whose enrolment is not to be had.
REFUSED = {
    "enrolment": ("error", "proof_invalid"),
    "revocation": ("warning", "principal_revoked"),
    "denial": ("warning", "denied"),
    "release": ("warning", "rate_limited"),
}


def index_of(leaves: list[bytes], kind: str) -> int:
    """Return the place of the last leaf of a type."""
    return max(index for index, leaf in enumerate(leaves) if parse_leaf(leaf).type == kind)


async def does_not_start(place: Place) -> None:
    """A new process on the same host finds the log set back before it takes a message."""
    with pytest.raises(LogForked):
        async with place.serving():
            pass


@every_decision
@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
async def test_deleting_the_rows_of_a_decision_undoes_nothing(
    place: Place, decide: Decide, kind: str, *, is_restarted: bool
) -> None:
    """He deletes the statement and leaves the log alone: the leaf is enough, and the thief's refusal is told."""
    level, code = REFUSED[kind]
    with capture_logs() as lines:
        async with place.worker():
            request = await decide(place)
            index = index_of(await leaves_of(place.databases, "recovery"), kind)
            await as_superuser(
                place.databases,
                UNGUARDED + f"DELETE FROM trust_statements WHERE leaf_index = {index}",  # noqa: S608
                UNGUARDED + "DELETE FROM requests; DELETE FROM releases",  # noqa: S608
            )
            if not is_restarted:
                assert await code_of(place, request) == code
        if is_restarted:
            async with place.worker():
                assert await code_of(place, request) == code
    assert await place.rows("SELECT * FROM releases") == []
    last = [line for line in lines if line["event"] == "message"][-1]
    assert (last["log_level"], last["code"]) == (level, code)


@every_decision
@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
async def test_setting_the_log_back_to_before_a_decision_stops_the_worker(
    place: Place, decide: Decide, kind: str, *, is_restarted: bool
) -> None:
    """He removes the leaf and all after it, hashes and checkpoints too, back to a head that was truly signed."""
    async with place.serving() as (_, task):
        request = await decide(place)
        leaves = await leaves_of(place.databases, "recovery")
        await remake_log(place.databases, "recovery", leaves[: index_of(leaves, kind)])
        await as_superuser(place.databases, UNGUARDED + "DELETE FROM releases")  # noqa: S608
        if not is_restarted:
            await place.submit(request.envelope())
            await is_forked(task)
    await does_not_start(place)
    assert await place.rows("SELECT * FROM releases") == []


@every_decision
@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
async def test_a_decision_cut_out_of_the_middle_stops_the_worker(
    place: Place, decide: Decide, kind: str, *, is_restarted: bool
) -> None:
    """He takes a leaf out, closes the gap, leaves the head as it was signed: no worker takes that for its log."""
    async with place.serving() as (_, task):
        request = await decide(place)
        await waits(place, officers_request("officer-c"))
        head = "SELECT {} FROM recovery_checkpoints ORDER BY size DESC LIMIT 1"
        size = await ask_superuser(place.databases, head.format("size"))
        note = await ask_superuser(place.databases, head.format("note"))
        leaves = await leaves_of(place.databases, "recovery")
        del leaves[index_of(leaves, kind)]
        await remake_log(place.databases, "recovery", leaves)
        await ask_superuser(place.databases, "INSERT INTO recovery_checkpoints VALUES ($1, $2)", size, note)
        await as_superuser(place.databases, UNGUARDED + "DELETE FROM releases")  # noqa: S608
        if not is_restarted:
            await place.submit(request.envelope())
            await is_forked(task)
    await does_not_start(place)
    assert await place.rows("SELECT * FROM releases") == []


async def test_an_approval_that_was_deleted_is_missed(place: Place) -> None:
    """He deletes one of two approvals: the request waits, he is noticed, and the officer repeats hers."""
    request = officers_request()
    async with place.worker():
        await approved(place, request)
        index = index_of(await leaves_of(place.databases, "recovery"), "approval")
        await as_superuser(place.databases, f"DELETE FROM trust_statements WHERE leaf_index = {index}")  # noqa: S608
        with capture_logs() as lines:
            rejection = await waits(place, request)
        await done(place, ask.approval(request, "officer-c"))
        assert material(await place.release(request), request) == MATERIAL
    assert "there are 1 (officer-b)" in rejection.message
    assert [line["kind"] for line in lines if line["log_level"] == "error"] == ["approval"]


@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
async def test_a_whole_day_of_the_log_is_missed(place: Place, *, is_restarted: bool) -> None:
    """He removes whatever was entered on one day, and keeps the days before as they were signed."""
    async with place.serving() as (_, task):
        await place.release(ask.request())
        before = await leaves_of(place.databases, "recovery")
        place.now += make.DAY
        await done(place, make.revocation(issued_at=place.now))
        await waits(place, officers_request("officer-a", issued_at=place.now, expires_at=place.now + make.DAY))
        await remake_log(place.databases, "recovery", before)
        thiefs = ask.request(issued_at=place.now, expires_at=place.now + 300)
        if not is_restarted:
            await place.submit(thiefs.envelope())
            await is_forked(task)
    await does_not_start(place)
    assert len(await place.rows("SELECT * FROM releases")) == 1


# ---- dumps -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", ["recovery", "escrow"])
@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
async def test_last_weeks_dump_stops_both_workers(stage: Stage, worker: str, *, is_restarted: bool) -> None:
    """He restores a dump from before a revocation and a key: neither worker goes on, and the thief gets nothing."""
    place = stage.place
    async with place.serving() as (_, recovering), stage.escrowing() as (_, escrowing):
        with await stage.host() as host:
            assert (await host.escrow([key(name="first")])).stored == 1
            dumped = await dump(place.databases)
            assert (await host.escrow([key(name="second")])).stored == 1
            await done(place, make.revocation())
            await restore(place.databases, dumped)
            if not is_restarted:
                # Nobody answers: the worker has ended.
                if worker == "recovery":
                    await place.submit(officers_request().envelope())
                    await is_forked(recovering)
                else:
                    await host.escrow([key(name="third")], wait_seconds=0.2)
                    await is_forked(escrowing)
    await (does_not_start(place) if worker == "recovery" else escrow_does_not_start(stage))
    assert await place.rows("SELECT * FROM releases") == []


async def escrow_does_not_start(stage: Stage) -> None:
    """A new escrow worker on the same host finds its log set back before it takes a message."""
    with pytest.raises(LogForked):
        async with stage.escrowing():
            pass


async def test_hosts_notice_a_dump_that_workers_without_memory_took_for_the_truth(stage: Stage) -> None:
    """He restores a dump and both workers' folders are lost: they believe it, and the hosts do not."""
    place = stage.place
    async with stage.both_workers():
        with await stage.host() as host:
            await host.escrow([key(name="first")])
            dumped = await dump(place.databases)
            await host.escrow([key(name="second")])
            await host.sync()
    await restore(place.databases, dumped)
    fresh = place.folder / "fresh"
    async with (
        place.worker(state_dir=fresh / "recovery"),
        stage.escrowing(fresh / "escrow"),
    ):
        with stage.agent("host") as host:
            third = await host.escrow([key(name="third")])
            report = await host.sync()
    assert isinstance(third.error, LogForked)
    assert isinstance(report.error, LogForked)
    assert third.stored == 0
