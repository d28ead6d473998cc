"""Sealing again against a real database: what is stored, what others do meanwhile, and what false rows lead to."""
# ruff: noqa: S608  the attacker's SQL is put together on purpose

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs
from tests.conftest import FreshDatabase
from tests.integration.test_prover import UNREADABLE
from tests.support import authority as make
from tests.support.attacker import ask_superuser
from tests.support.proving import Proven, named, proven_place
from tests.support.resealing import (
    ACCEPTED,
    ACTIVE,
    CLOSED,
    OLD,
    adopt,
    change_key,
    check_rows,
    kept,
    new_key,
    reseal,
    reseal_leaves,
    resealer,
    retired,
    retirements,
    write_key,
)

from strongroom import database as databases
from strongroom.blobs import BlobContext, seal_material
from strongroom.crypto.key_file import write_sealing_key
from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.crypto.secret import Secret
from strongroom.errors import RESTORE_HINT, ConfigurationInvalid, NotFound, RosterExpired, StateCorrupt, UsageError
from strongroom.leaves import ProofLeaf
from strongroom_recovery.prover.proving import Trouble
from strongroom_recovery.reseal.counting import count
from strongroom_recovery.reseal.retiring import put_aside


@pytest.fixture
async def at(database: FreshDatabase, tmp_path: Path) -> Proven:
    return await proven_place(database, tmp_path)


@pytest.mark.parametrize("suite", Suite)
async def test_every_record_opens_with_the_new_key_alone(at: Proven, suite: Suite) -> None:
    """To a key of either suite; the signed statements stay as they are, and one entry says what was done."""
    records = await at.keys(1, 256, 3)
    before = await kept(at)
    key = await change_key(at, suite)
    progress = await reseal(at)
    assert (progress.records, progress.left, progress.troubles) == (260, 0, [])
    after = await kept(at)
    assert after.envelopes == before.envelopes
    assert after.opens(key) == {record.id: b"a session key" for record in records}
    assert sorted(after.rows) == sorted((record.id, key.kid) for record in records)
    [leaf] = await reseal_leaves(at)
    assert (leaf.first, leaf.count, leaf.size, leaf.kid, leaf.records, leaf.left) == (0, 3, 3, key.kid, 260, 0)
    await check_rows(at)


async def test_what_was_sealed_again_is_left_alone(at: Proven) -> None:
    """A second run has nothing to do; a third does what came since, sealed to either key."""
    await at.keys(2, 1)
    key = await change_key(at)
    await reseal(at)
    log = await at.place.log()
    assert (await reseal(at)).records == 0
    assert await at.place.log() == log
    [late] = await at.keys(1)
    assert (await reseal(at)).records == 1
    assert (late.id, key.kid) in (await kept(at)).rows
    await check_rows(at)


async def test_a_record_may_go_to_other_hardware_and_on_to_a_third_key(at: Proven) -> None:
    """x-wing, dhkem-p256, x-wing: the newest is what the next is made of, and all of them stay."""
    records = await at.keys(2, 2)
    second = await change_key(at, Suite.P256)
    await reseal(at)
    third = make.sealing_key("a third one")
    write_key(at, third)
    await adopt(at, (third, ACTIVE), (second, ACCEPTED), (OLD, CLOSED))
    assert (await reseal(at)).records == 4
    found = await kept(at)
    assert len(found.rows) == 8
    assert set(found.opens(third)) == set(found.opens(second)) == {record.id for record in records}
    assert [leaf.kid for leaf in await reseal_leaves(at)] == [second.kid, third.kid]
    await check_rows(at)


async def test_a_key_that_records_went_away_from_is_not_gone_back_to(at: Proven) -> None:
    """A record has one blob a key, and it is never changed: what was there before is left, and named."""
    records = await at.keys(2)
    second = await change_key(at)
    await reseal(at)
    third = make.sealing_key("a third one")
    write_key(at, third)
    await adopt(at, (third, ACTIVE), (second, ACCEPTED))
    await reseal(at)
    await adopt(at, (second, ACTIVE), (third, ACCEPTED))
    progress = await reseal(at)
    assert (progress.records, progress.left) == (0, 2)
    assert {(each.record, each.code) for each in progress.troubles} == {
        (record.id, "record_conflict") for record in records
    }
    assert len((await kept(at)).rows) == 4
    await check_rows(at)


async def test_what_does_not_open_is_left_and_named_and_tried_again_when_told(at: Proven) -> None:
    """The rest is sealed again; a later run passes what was left over, unless it is to try again."""
    good, bad = make.record(), make.record(blob=b"x")
    await at.escrow(make.escrow(records=[good, bad]), make.escrow(records=[make.record(blob=b"y")]))
    key = await change_key(at)
    progress = await reseal(at)
    assert (progress.records, progress.left) == (1, 2)
    assert (0, bad.id, make.PRINCIPAL, "blob_invalid") in {each[:4] for each in map(_named, progress.troubles)}
    again = await reseal(at)
    assert (again.records, again.left, again.troubles) == (0, 2, [])
    assert len(await reseal_leaves(at)) == 1
    retried = await reseal(at, again=True)
    assert (retried.records, retried.left, len(retried.troubles)) == (0, 2, 2)
    assert [(leaf.records, leaf.left) for leaf in await reseal_leaves(at)] == [(1, 2), (0, 2)]
    assert (await kept(at)).opens(key) == {good.id: b"a session key"}


def _named(trouble: Trouble) -> tuple[int, str | None, str | None, str]:
    return trouble.index, trouble.record, trouble.principal, trouble.code


async def test_a_key_that_was_missing_is_found_again(at: Proven, tmp_path: Path) -> None:
    """Records whose key is not there are left; with the key in place they are sealed again when told."""
    await at.keys(2)
    key = await change_key(at)
    folder = tmp_path / "others"
    folder.mkdir()
    write_sealing_key(folder / "new.key", key, None)
    progress = await reseal(at, sealing_keys_dir=folder)
    assert {each.code for each in progress.troubles} == {"key_unknown"}
    assert progress.left == 2
    assert (await reseal(at, again=True)).left == 0
    await check_rows(at)


async def test_nothing_is_sealed_to_a_key_that_nobody_here_can_open(at: Proven, tmp_path: Path) -> None:
    """Without the new private key it refuses to begin."""
    await at.keys(1)
    await change_key(at)
    folder = tmp_path / "old"
    folder.mkdir()
    write_sealing_key(folder / "old.key", OLD, None)
    with pytest.raises(ConfigurationInvalid, match="which is active, is missing here"):
        await reseal(at, sealing_keys_dir=folder)
    assert (await kept(at)).rows == {}


async def test_an_expired_roster_names_no_key(at: Proven) -> None:
    """It refuses, and may be run again with the next roster."""
    await at.keys(1)
    await change_key(at)
    at.now += 400 * make.DAY
    with pytest.raises(RosterExpired):
        await reseal(at)
    assert (await kept(at)).rows == {}


async def test_it_ends_after_the_batch_in_hand(at: Proven) -> None:
    """Told to stop, it commits what it has; the next run goes on behind it."""
    await at.keys(*[1] * 20)
    key = await change_key(at)
    stop = asyncio.Event()
    async with resealer(at, rate=4.0, told=lambda _progress: stop.set()) as job:
        await job.serve(stop)
        assert not job.is_done
    done = await reseal_leaves(at)
    assert 0 < sum(leaf.count for leaf in done) < 20
    await reseal(at)
    assert len((await kept(at)).opens(key)) == 20
    await check_rows(at)


async def test_a_rate_is_kept_by_pausing_between_small_pieces(at: Proven) -> None:
    """A piece is as long as the rate lets pass in a second, and the next one waits for its time."""
    await at.keys(*[1] * 6)
    await change_key(at)
    async with resealer(at, rate=2.0) as job:
        stop = asyncio.Event()
        before = job._monotonic()
        assert await job.turn(stop)
        assert (job.progress.leaves, job.progress.records) == (2, 2)
        assert job._throttle.free_at >= before + 1.0
    [leaf] = await reseal_leaves(at)
    assert leaf.count == 2


async def test_two_that_run_at_once_do_each_record_once(at: Proven) -> None:
    """They share the blocks, and what both went through counts for one."""
    await at.keys(*[1] * 1500)
    key = await change_key(at)
    first, second = await asyncio.gather(reseal(at), reseal(at))
    assert first.records + second.records == 1500
    assert len((await kept(at)).opens(key)) == 1500
    assert sum(leaf.records for leaf in await reseal_leaves(at)) == 1500
    await check_rows(at)


@pytest.mark.parametrize("change", ["done by another", "another key is active"])
async def test_what_was_overtaken_before_its_commit_is_thrown_away(
    at: Proven, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Under the log's lock it looks once more at what is due and to which key; no record is sealed twice."""
    await at.keys(2)
    second, third = await change_key(at), make.sealing_key("a third one")
    write_key(at, third)
    async with resealer(at) as job:
        going = job._go_through

        async def meanwhile(*args: Any) -> Any:
            found = await going(*args)
            monkeypatch.undo()
            if change == "done by another":
                await reseal(at)
            else:
                await adopt(at, (third, ACTIVE), (second, ACCEPTED), (OLD, CLOSED))
            return found

        monkeypatch.setattr(job, "_go_through", meanwhile)
        assert await job.turn(asyncio.Event())
        assert job.progress.records == 0
        await job.serve(asyncio.Event())
    [leaf] = await reseal_leaves(at)
    assert leaf.kid == (second.kid if change == "done by another" else third.kid)
    await check_rows(at)


async def test_a_page_that_the_database_cannot_read_keeps_no_other_from_the_new_key(at: Proven) -> None:
    """Its statement is left, by a piece of its own."""
    await at.keys(1, 1, 1, 1)
    key = await change_key(at)
    await at.edit(UNREADABLE)
    progress = await reseal(at)
    assert (progress.records, progress.left) == (3, 1)
    assert [(each.index, each.record, each.code) for each in progress.troubles] == [(1, None, "proof_invalid")]
    rows = await at.place.rows("SELECT kid FROM resealed_blobs")
    assert [row["kid"] for row in rows] == [key.kid] * 3


# ---- the prover, and what it says of keys -----------------------------------------------------------------------


async def test_the_prover_looks_again_at_what_was_sealed_again(at: Proven) -> None:
    """At once, not in a month; and it says by which key each record opened."""
    await at.keys(1, 2)
    [first] = await at.look()
    assert first.kids == {OLD.kid: 3}
    key = await change_key(at)
    await reseal(at)
    [second] = await at.look()
    assert (second.first, second.count, second.records, second.kids) == (0, 2, 3, {key.kid: 3})
    assert await at.look() == []


async def test_a_look_from_before_does_not_pass_for_one_after(at: Proven, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the prover read while blobs were sealed again is thrown away, and read again."""
    await at.keys(2)
    key = await change_key(at)
    async with at.prover() as prover:
        looked = prover._look

        async def meanwhile(*args: Any) -> Any:
            found = await looked(*args)
            monkeypatch.undo()
            await reseal(at)
            return found

        monkeypatch.setattr(prover, "_look", meanwhile)
        assert await prover.turn(asyncio.Event())
        assert await at.proofs() == []
        assert await prover.turn(asyncio.Event())
    [leaf] = await at.proofs()
    assert leaf.kids == {key.kid: 2}


async def test_records_are_counted_by_the_key_that_they_need_now(at: Proven) -> None:
    """Those of the roster first, then others; what is proven by a key is what the log says."""
    await at.keys(1, 2)
    await at.look()
    key = await change_key(at)
    async with databases.connect(at.databases.url("strongroom_owner")) as opened:
        before = await count(opened, make.signing_key("root").public_key, at.place.roster)
        await reseal(at)
        await at.look()
        await at.edit("UPDATE records SET kid = repeat('f', 32) WHERE leaf_index = 0; DELETE FROM resealed_blobs")
        after = await count(opened, make.signing_key("root").public_key, at.place.roster)
    assert [(each.kid, each.state, each.records, each.proven) for each in before] == [
        (key.kid, "active", 0, 0),
        (OLD.kid, "accepted", 3, 3),
    ]
    assert [(each.kid, each.state, each.records, each.proven) for each in after] == [
        (key.kid, "active", 0, 3),
        (OLD.kid, "accepted", 2, 0),
        ("f" * 32, None, 1, 0),
    ]
    assert {each.suite for each in before} == {"x-wing"}


# ---- retiring ---------------------------------------------------------------------------------------------------


async def closed(at: Proven, key: PrivateSealingKey) -> None:
    await adopt(at, (key, ACTIVE), (OLD, CLOSED))


async def test_a_key_is_retired_when_nothing_needs_it_and_not_before(at: Proven) -> None:
    """In use, needed, not proven, retired: each step is said with its figures, and only the last is logged."""
    await at.keys(1, 2)
    await at.look()
    in_use = await retired(at, OLD.kid)
    assert in_use.verdict.is_in_use
    assert (in_use.is_retired, in_use.needed) == (False, 3)
    key = await change_key(at)
    await closed(at, key)
    needed = await retired(at, OLD.kid)
    assert (needed.is_retired, needed.needed, needed.verdict.opened, needed.verdict.awaits_proof) == (
        False,
        3,
        3,
        False,
    )
    await reseal(at)
    unproven = await retired(at, OLD.kid)
    assert (unproven.is_retired, unproven.needed, unproven.unseen) == (False, 0, 3)
    assert unproven.verdict.awaits_proof
    assert await retirements(at) == []
    await at.look()
    done = await retired(at, OLD.kid)
    assert done.is_retired
    head = await at.place.escrow_head()
    [leaf] = await retirements(at)
    assert (leaf.kid, leaf.size, leaf.root) == (OLD.kid, 2, head.root.hex())
    again = await retired(at, OLD.kid)
    assert (again.is_retired, again.before) == (True, at.now)
    assert len(await retirements(at)) == 1


async def test_the_newest_keys_of_a_fleet_that_never_stops_are_looked_at_on_the_way(at: Proven) -> None:
    """Where nothing else is missing they are proven then and there."""
    await at.keys(1)
    key = await change_key(at)
    await closed(at, key)
    await reseal(at)
    await at.look()
    fresh = make.record(kid=key.kid, suite=key.suite)
    sealed = seal_material(
        Secret(b"new"), BlobContext(make.AUTHORITY, make.PRINCIPAL, fresh.id, key.kid, key.suite), key.public_key
    )
    await at.escrow(
        make.escrow(records=[fresh.model_copy(update={"blob": sealed.blob, "fingerprint": sealed.fingerprint})])
    )
    done = await retired(at, OLD.kid)
    assert done.is_retired
    assert [leaf.kids for leaf in await at.proofs()][-1] == {key.kid: 1}


async def test_an_unprovable_record_keeps_every_key(at: Proven) -> None:
    """Perhaps the key opens it one day; the count says so."""
    await at.escrow(make.escrow(records=[make.record(), make.record(blob=b"x")]))
    key = await change_key(at)
    await closed(at, key)
    await reseal(at)
    await at.look()
    done = await retired(at, OLD.kid)
    assert (done.is_retired, done.verdict.opened, len(done.verdict.unprovable)) == (False, 0, 1)
    assert not done.verdict.awaits_proof


async def test_the_garbage_of_a_broken_host_is_given_up_by_name_and_on_record(at: Proven) -> None:
    """All of it or nothing: some, or others beside, leave the log as it was; the rest is proven without the key."""
    good, garbage, lost = await at.escrow(
        make.escrow(records=[make.record(), make.record(blob=b"x")]), make.escrow(records=[make.record()])
    )
    await ask_superuser(at.databases, "DELETE FROM records WHERE id = $1", UUID(lost.id))
    await ask_superuser(at.databases, "DELETE FROM escrow_statements WHERE leaf_index = 1")
    key = await change_key(at)
    await closed(at, key)
    await reseal(at)
    await at.look()
    refused = await retired(at, OLD.kid)
    assert [(each.record, each.index) for each in refused.verdict.unprovable] == [(garbage.id, 0), (None, 1)]
    assert refused.principals == {0: make.PRINCIPAL}
    some = await retired(at, OLD.kid, garbage.id)
    assert (some.is_retired, some.verdict.given_up, len(some.verdict.unprovable)) == (False, 1, 1)
    for stranger in (good.id, lost.id, "leaf:0"):
        with pytest.raises(UsageError, match=f"{stranger}: nothing that the prover calls unprovable"):
            await retired(at, OLD.kid, garbage.id, "leaf:1", stranger)
    assert await retirements(at) == []
    done = await retired(at, OLD.kid, garbage.id, "leaf:1")
    [leaf] = await retirements(at)
    assert (done.is_retired, leaf.given_up, leaf.size) == (True, 2, 2)
    again = await retired(at, OLD.kid, garbage.id, "leaf:1")
    assert (again.before, len(await retirements(at))) == (at.now, 1)
    folder = at.settings.sealing_keys_dir
    assert folder is not None
    put_aside(folder, OLD.kid)
    [proof] = await at.look_again()
    assert (proof.records, proof.kids, len(proof.unprovable)) == (1, {key.kid: 1}, 2)


async def test_a_second_run_finds_the_key_retired_whatever_opens_by_now(at: Proven) -> None:
    """After a crash between the entry and the key file's move, it goes on to that."""
    [record] = await at.escrow(make.escrow(records=[make.record(blob=b"x")]))
    key = await change_key(at)
    await closed(at, key)
    await reseal(at)
    await at.look()
    assert (await retired(at, OLD.kid, record.id)).is_retired
    await ask_superuser(at.databases, "DELETE FROM records")
    await ask_superuser(at.databases, "DELETE FROM escrow_statements")
    again = await retired(at, OLD.kid, record.id)
    assert (again.is_retired, again.before, len(await retirements(at))) == (True, at.now, 1)


@pytest.mark.parametrize("what", ["looked at", "sealed again"])
async def test_an_escrow_log_without_its_checkpoint_is_not_an_empty_one(at: Proven, what: str) -> None:
    """Whoever deletes the checkpoint, also from this host's folder, does not get a key retired that is needed."""
    await at.keys(1, 1)
    if what == "looked at":
        await at.look()
    key = await change_key(at)
    await closed(at, key)
    if what == "sealed again":
        await reseal(at)
    await ask_superuser(at.databases, "DELETE FROM escrow_checkpoints")
    for file in at.settings.state_dir.glob("*escrow*"):
        file.unlink()
    with pytest.raises(
        StateCorrupt, match="its checkpoint has 0 leaves, and the recovery log speaks of 2"
    ) as caught:
        await retired(at, OLD.kid)
    assert caught.value.hint == RESTORE_HINT
    assert await retirements(at) == []


async def test_one_that_is_found_on_the_way_has_to_be_named_too(at: Proven) -> None:
    """What came after the list was read is not given up unseen."""
    first = (await at.escrow(make.escrow(records=[make.record(blob=b"x")])))[0]
    key = await change_key(at)
    await closed(at, key)
    await reseal(at)
    await at.look()
    second = (await at.escrow(make.escrow(records=[make.record(blob=b"y")])))[0]
    done = await retired(at, OLD.kid, first.id)
    assert [each.record for each in done.verdict.unprovable] == [second.id]
    assert (done.is_retired, await retirements(at)) == (False, [])
    assert (await retired(at, OLD.kid, first.id, second.id)).is_retired


async def test_proofs_that_do_not_say_by_which_keys_do_not_count(at: Proven) -> None:
    """Those of an older program: the prover has to look again."""
    await at.keys(1)
    key = await change_key(at)
    await closed(at, key)
    await reseal(at)
    head = await at.place.escrow_head()
    await at.place.append(
        ProofLeaf(time=at.now, first=0, count=1, size=1, root=head.root.hex(), records=1, unprovable=[])
    )
    done = await retired(at, OLD.kid)
    assert (done.is_retired, done.unseen, done.verdict.awaits_proof) == (False, 1, True)


async def test_nobody_retires_a_key_that_nobody_knows(at: Proven) -> None:
    """A slip of the keyboard does not get into the log."""
    with pytest.raises(NotFound, match="neither the roster nor the keyring knows it"):
        await retired(at, "0" * 32)
    assert await retirements(at) == []


async def test_a_retired_key_is_missed_by_nobody(at: Proven) -> None:
    """Its file is put aside, the recovery worker and the prover start without it, and every record is proven."""
    await at.keys(3)
    key = await change_key(at)
    await closed(at, key)
    folder = at.settings.sealing_keys_dir
    assert folder is not None
    await reseal(at)
    await at.look()
    assert (await retired(at, OLD.kid)).is_retired
    path = put_aside(folder, OLD.kid)
    assert path == folder / "retired" / "sealing.key"
    assert put_aside(folder, OLD.kid) == path
    assert put_aside(folder, "0" * 32) is None
    with capture_logs() as lines:
        await adopt(at, (key, ACTIVE), (OLD, CLOSED))
    assert [line for line in lines if line["event"] == "a sealing key is missing"] == []
    [leaf] = await at.look_again()
    assert (leaf.records, leaf.kids) == (3, {key.kid: 3})
    assert [line for line in at.lines if line["event"] == "a sealing key is missing"] == []


async def test_a_closed_key_that_was_not_retired_is_missed_loudly(at: Proven) -> None:
    """The recovery worker starts without it, and says what is to be done."""
    await at.keys(1)
    key = await change_key(at)
    folder = at.settings.sealing_keys_dir
    assert folder is not None
    put_aside(folder, OLD.kid)
    with capture_logs() as lines:
        await closed(at, key)
    [line] = [line for line in lines if line["event"] == "a sealing key is missing"]
    assert (line["log_level"], line["kid"]) == ("error", OLD.kid)
    with pytest.raises(ConfigurationInvalid, match="is missing"):
        await adopt(at, (key, ACTIVE), (OLD, ACCEPTED))


# ---- false rows -------------------------------------------------------------------------------------------------

THIRD = make.sealing_key("a third party's")
FALSE_ROWS = {
    "a blob for a third party": (
        (
            f"INSERT INTO resealed_blobs SELECT record_id, '{THIRD.kid}', suite, blob, leaf_index + 1"
            " FROM resealed_blobs"
        ),
        "key_unknown",
    ),
    "another record's blob": (
        "UPDATE resealed_blobs AS b SET blob = o.blob FROM resealed_blobs AS o WHERE o.record_id <> b.record_id",
        "blob_invalid",
    ),
    "an empty blob": ("UPDATE resealed_blobs SET blob = ''", "blob_invalid"),
    "a blob without end": (
        "UPDATE resealed_blobs SET blob = convert_to(repeat('x', 200000), 'UTF8')",
        "blob_invalid",
    ),
    "one bit": ("UPDATE resealed_blobs SET blob = set_bit(blob, 99, 1 - get_bit(blob, 99))", "blob_invalid"),
    "another suite": ("UPDATE resealed_blobs SET suite = 'dhkem-p256'", "blob_invalid"),
    "no suite": ("UPDATE resealed_blobs SET suite = repeat('x', 100000)", "blob_invalid"),
    "another key": (f"UPDATE resealed_blobs SET kid = '{OLD.kid}'", "blob_invalid"),
    "no key": ("UPDATE resealed_blobs SET kid = repeat('x', 1000)", "key_unknown"),
}


@pytest.mark.parametrize("attack", FALSE_ROWS)
async def test_a_false_row_is_named_by_the_prover_and_gives_no_wrong_key(at: Proven, attack: str) -> None:
    """Whoever owns the database makes records unprovable; what is given is the key that was signed for, or none."""
    records = await at.keys(1, 1)
    await change_key(at)
    await reseal(at)
    await at.look()
    command, code = FALSE_ROWS[attack]
    await at.edit(command)
    at.monotonic += 3_600
    leaves = await at.look()
    assert named(leaves) == {(index, record.id, code) for index, record in enumerate(records)}
    # With both keys there, each record still opens by its other blob, to what its owner signed.
    key, found = new_key(), await kept(at)
    assert found.opens(OLD, key) == {record.id: b"a session key" for record in records}


async def test_a_blob_of_another_key_in_the_right_place_is_not_given(at: Proven) -> None:
    """Whoever knows the new public key can seal what he likes to the place: the fingerprint is not of it."""
    [record] = await at.keys(1)
    key = await change_key(at)
    await reseal(at)
    place = BlobContext(make.AUTHORITY, make.PRINCIPAL, record.id, key.kid, key.suite)
    forged = seal_material(Secret(b"the attacker's"), place, key.public_key).blob
    await ask_superuser(at.databases, "UPDATE resealed_blobs SET blob = $1", forged)
    assert named(await at.look()) == {(0, record.id, "fingerprint_mismatch")}
    assert (await kept(at)).opens(OLD, key) == {record.id: b"a session key"}


async def test_rows_deleted_after_the_old_key_is_gone_are_noticed(at: Proven) -> None:
    """The keys are lost then, and the prover says so of each; before, the old key was needed again."""
    records = await at.keys(2)
    key = await change_key(at)
    await closed(at, key)
    await reseal(at)
    await at.look()
    await at.edit("DELETE FROM resealed_blobs")
    at.monotonic += 3_600
    [back] = await at.look()
    assert back.kids == {OLD.kid: 2}
    needed = await retired(at, OLD.kid)
    assert (needed.is_retired, needed.verdict.opened) == (False, 2)
    folder = at.settings.sealing_keys_dir
    assert folder is not None
    put_aside(folder, OLD.kid)
    at.monotonic += 3_600
    assert named(await at.look()) == {(0, record.id, "key_unknown") for record in records}
    assert at.told() == {(0, record.id, "key_unknown") for record in records}


async def test_a_damaged_new_blob_is_mended_by_the_next_change(at: Proven) -> None:
    """The next key is given what the signed blob holds, as long as its key is there."""
    [record] = await at.keys(1)
    second = await change_key(at)
    await reseal(at)
    await at.edit("UPDATE resealed_blobs SET blob = 'x'")
    third = make.sealing_key("a third one")
    write_key(at, third)
    await adopt(at, (third, ACTIVE), (second, ACCEPTED))
    assert (await reseal(at)).records == 1
    assert (await kept(at)).opens(third) == {record.id: b"a session key"}


async def test_rows_of_records_that_do_not_exist_do_no_harm(at: Proven) -> None:
    """Nobody asks for them."""
    await at.keys(1)
    key = await change_key(at)
    await at.edit(
        f"INSERT INTO resealed_blobs SELECT gen_random_uuid(), '{key.kid}', 'x-wing', 'x', n"
        " FROM generate_series(1, 100) AS n"
    )
    assert (await reseal(at)).records == 1
    [leaf] = await at.look()
    assert (leaf.records, leaf.unprovable) == (1, [])


async def test_a_false_statement_is_not_sealed_again(at: Proven) -> None:
    """What is not the statement that was accepted is left, whole."""
    records = await at.keys(1, 1)
    key = await change_key(at)
    await at.replace(1, make.escrow(records=[make.record()], key="thief"))
    progress = await reseal(at)
    assert (progress.records, progress.left) == (1, 1)
    assert [(each.index, each.record, each.code) for each in progress.troubles] == [(1, None, "proof_invalid")]
    assert list((await kept(at)).rows) == [(records[0].id, key.kid)]
