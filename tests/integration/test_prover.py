"""The prover against a real database whose owner edits rows, and against keys that cannot be given back."""
# ruff: noqa: S608  the attacker's SQL is put together on purpose

import asyncio
import os
from pathlib import Path

import pytest
from tests.conftest import FreshDatabase
from tests.support import authority as make
from tests.support.attacker import as_superuser, ask_superuser
from tests.support.proving import OTHER, Proven, named, proven_place
from tests.support.waiting import until

from strongroom import database as pg
from strongroom.blobs import BlobContext, seal_material
from strongroom.crypto.key_file import write_sealing_key
from strongroom.crypto.notes import parse_checkpoint
from strongroom.crypto.secret import Secret
from strongroom.errors import CheckpointInvalid, DatabaseUnavailable, LogForked, NoAnswer
from strongroom.fields import new_id, parse_body
from strongroom.leaves import ProofLeaf
from strongroom.limits import ENVELOPE_BYTES_MAX
from strongroom.messages import Escrow, Record
from strongroom_recovery.prover import pacing, store
from strongroom_recovery.prover.proving import Looked, Stretch
from strongroom_recovery.prover.worker import Prover

ALL = (0, 1, 2, 3)
# As if the page with the statement of leaf 1 were damaged: whoever reads it gets the server's error.
UNREADABLE = """
ALTER TABLE escrow_statements RENAME TO kept;
CREATE FUNCTION read_page(index bigint, envelope bytea) RETURNS bytea LANGUAGE plpgsql AS $$
BEGIN
    IF index = 1 THEN
        RAISE EXCEPTION 'invalid page in block 3' USING ERRCODE = 'data_corrupted';
    END IF;
    RETURN envelope;
END $$;
CREATE VIEW escrow_statements AS
SELECT id, digest, principal, leaf_index, stored_at, read_page(leaf_index, envelope) AS envelope FROM kept;
GRANT SELECT ON escrow_statements TO strongroom_recovery;
"""


@pytest.fixture
async def at(database: FreshDatabase, tmp_path: Path) -> Proven:
    return await proven_place(database, tmp_path)


def covered(proofs: list[ProofLeaf]) -> list[int]:
    """Return the index of every leaf that was looked at, as often as it was."""
    return sorted(index for leaf in proofs for index in range(leaf.first, leaf.first + leaf.count))


async def test_new_keys_are_proven_in_one_turn_and_not_again(at: Proven) -> None:
    """Every record of every statement, by one leaf under the newest tree; then there is nothing to do."""
    async with at.prover() as prover:
        assert not await prover.turn(asyncio.Event())
        await at.keys(1, 256, 3)
        assert await prover.turn(asyncio.Event())
        assert not await prover.turn(asyncio.Event())
        await at.keys(2)
        assert await prover.turn(asyncio.Event())
        assert not await prover.turn(asyncio.Event())
    first, second = await at.proofs()
    assert (first.first, first.count, first.size, first.records, first.unprovable) == (0, 3, 3, 260, [])
    assert (second.first, second.count, second.size, second.records, second.unprovable) == (3, 1, 4, 2, [])
    [row] = await at.place.rows("SELECT note FROM escrow_checkpoints WHERE size = 4")
    assert second.root == parse_checkpoint(row["note"])[0].root.hex()


async def test_the_loop_proves_what_comes_and_ends_when_it_is_told_to(at: Proven) -> None:
    """Keys that are stored while it waits are proven without any further sign."""
    stop = asyncio.Event()
    async with at.prover() as prover:
        serving = asyncio.create_task(prover.serve(stop))
        for count in (1, 2):
            await at.keys(1)
            await until(lambda count=count: prover._ledger.proofs.covered() == [(0, count)], "the key is proven")  # type: ignore[misc]
        stop.set()
        await serving
    assert covered(await at.proofs()) == [0, 1]


# ---- rows that somebody edited -------------------------------------------------------------------------------

STRANGER = new_id()
EDITS: dict[str, tuple[str, set[tuple[int, str | None, str]]]] = {
    "a deleted statement": (
        "DELETE FROM escrow_statements WHERE leaf_index = 1",
        {(1, None, "proof_invalid")},
    ),
    "a statement that is elsewhere": (
        "UPDATE escrow_statements SET leaf_index = 1000 WHERE leaf_index = 1",
        {(1, None, "proof_invalid")},
    ),
    "two statements of one leaf": (
        (
            "ALTER TABLE escrow_statements DROP CONSTRAINT escrow_statements_leaf_index_key;"
            "UPDATE escrow_statements SET leaf_index = 1 WHERE leaf_index = 2"
        ),
        {(1, None, "proof_invalid"), (2, None, "proof_invalid")},
    ),
    "the statement's id": (
        "UPDATE escrow_statements SET id = gen_random_uuid() WHERE leaf_index = 1",
        {(1, None, "proof_invalid")},
    ),
    "the statement's principal": (
        f"UPDATE escrow_statements SET principal = '{OTHER}' WHERE leaf_index = 1",
        {(1, None, "proof_invalid")},
    ),
    "the statement's digest": (
        "UPDATE escrow_statements SET digest = sha256('x') WHERE leaf_index = 1",
        {(1, None, "proof_invalid")},
    ),
    "an emptied envelope": (
        "UPDATE escrow_statements SET envelope = '' WHERE leaf_index = 1",
        {(1, None, "proof_invalid")},
    ),
    "another's envelope": (
        (
            "UPDATE escrow_statements SET envelope = (SELECT envelope FROM escrow_statements WHERE leaf_index = 2)"
            " WHERE leaf_index = 1"
        ),
        {(1, None, "proof_invalid")},
    ),
    "one bit of the envelope": (
        (
            "UPDATE escrow_statements SET envelope = set_bit(envelope, 2400, 1 - get_bit(envelope, 2400))"
            " WHERE leaf_index = 1"
        ),
        {(1, None, "proof_invalid")},
    ),
    "an envelope that is too long": (
        (
            f"UPDATE escrow_statements SET envelope = convert_to(repeat('x', {ENVELOPE_BYTES_MAX + 1}), 'UTF8')"
            " WHERE leaf_index = 1"
        ),
        {(1, None, "proof_invalid")},
    ),
    "a deleted index row": ("DELETE FROM records WHERE id = '{record}'", {(1, "{record}", "not_found")}),
    "an index row that is elsewhere": (
        "UPDATE records SET leaf_index = 2 WHERE id = '{record}'",
        {(1, "{record}", "not_found"), (2, "{record}", "proof_invalid")},
    ),
    "a false index row": (
        (
            f"INSERT INTO records SELECT '{STRANGER}', statement_id, position, principal, name, issued_at + 1, kid,"
            " leaf_index FROM records WHERE id = '{record}'"
        ),
        {(1, STRANGER, "proof_invalid")},
    ),
    "a false index row that cannot be named": (
        (
            "INSERT INTO records SELECT gen_random_uuid(), statement_id, position, principal, name, issued_at, kid,"
            " leaf_index FROM records WHERE id = '{record}'"
        ),
        {(1, None, "proof_invalid")},
    ),
    **{
        f"the index row's {column}": (
            f"UPDATE records SET {column} = {value} WHERE id = '{{record}}'",
            {(1, "{record}", "proof_invalid")},
        )
        for column, value in {
            "statement_id": "gen_random_uuid()",
            "position": "7",
            "principal": f"'{OTHER}'",
            "name": "'other'",
            "issued_at": "issued_at + 1",
            "kid": "repeat('0', 32)",
            "labels": """'{{"site": "south"}}'""",
            "supersedes": f"ARRAY['{STRANGER}'::uuid]",
        }.items()
    },
    "an edited leaf": (
        "UPDATE escrow_leaves SET leaf = leaf || ' ' WHERE index = 1",
        {(1, None, "proof_invalid")},
    ),
    "another's leaf": (
        "UPDATE escrow_leaves SET leaf = (SELECT leaf FROM escrow_leaves WHERE index = 2) WHERE index = 1",
        {(1, None, "proof_invalid")},
    ),
    "a deleted leaf": ("DELETE FROM escrow_leaves WHERE index = 1", {(1, None, "proof_invalid")}),
    # A release proves its leaf with the stored hash of the neighbour: without it the neighbour's key stays in.
    "an edited hash of a leaf": (
        "UPDATE escrow_nodes SET hash = sha256('x') WHERE (level, index) = (0, 2)",
        {(3, None, "proof_invalid")},
    ),
    "a deleted hash of a leaf": (
        "DELETE FROM escrow_nodes WHERE (level, index) = (0, 2)",
        {(3, None, "proof_invalid")},
    ),
    "an edited node": (
        "UPDATE escrow_nodes SET hash = sha256('x') WHERE (level, index) = (1, 1)",
        {(0, None, "proof_invalid"), (1, None, "proof_invalid")},
    ),
}


@pytest.mark.parametrize(("edit", "expected"), EDITS.values(), ids=EDITS)
async def test_an_edited_row_is_named_and_its_neighbours_are_proven(
    at: Proven, edit: str, expected: set[tuple[int, str | None, str]]
) -> None:
    """By the leaf and by a line of the log, with index, record and code; nothing else is unprovable."""
    records = await at.keys(2, 2, 2, 2)
    victim = records[2].id
    await at.edit(edit.format(record=victim))
    expected = {(index, record and record.format(record=victim), code) for index, record, code in expected}
    [leaf] = await at.look()
    assert named([leaf]) == expected
    whole = {index for index, record, _ in expected if record is None}
    own = {record.id for record in records}
    single = {record for index, record, _ in expected if record in own and index == 1}
    assert leaf.records == 8 - 2 * len(whole) - len(single)
    assert {(index, code) for index, _, code in at.told()} == {(index, code) for index, _, code in expected}
    assert {told for told in expected if told[1] is not None} <= at.told()


async def test_an_edited_node_above_is_logged_although_every_key_can_be_given_back(at: Proven) -> None:
    """A hash that no proof of these leaves needs is false: one line says which; nothing is unprovable."""
    await at.keys(1, 1, 1)
    await at.edit("UPDATE escrow_nodes SET hash = sha256('x') WHERE (level, index) = (1, 0)")
    [leaf] = await at.look()
    assert named([leaf]) == {(2, None, "proof_invalid")}
    sentences = {line["reason"] for line in at.lines if line["event"] == "escrow log: a stored hash is false"}
    assert "node 0 of level 1 is not the hash of the two below it" in sentences


async def test_what_is_repaired_is_proven_at_the_next_look(at: Proven) -> None:
    """The newest look counts: a statement that came back is no longer unprovable."""
    [record] = await at.keys(1)
    await at.edit("CREATE TABLE aside AS SELECT * FROM records", "DELETE FROM records")
    assert named(await at.look()) == {(0, record.id, "not_found")}
    await at.edit("INSERT INTO records SELECT * FROM aside")
    [leaf] = await at.look_again()
    assert (leaf.records, leaf.unprovable) == (1, [])


async def test_damage_is_found_long_before_the_proof_is_old_and_so_is_its_repair(at: Proven) -> None:
    """The patrol appends a leaf where something has changed, and none where the log says all that it finds."""
    [record, *_] = await at.keys(1, 1, 1)
    lengths = []
    async with at.prover() as prover:

        async def rounds(count: int) -> None:
            for _ in range(count):
                at.monotonic += 60
                await prover.turn(asyncio.Event())
            lengths.append(len(await at.proofs()))

        await rounds(3)
        await at.edit("CREATE TABLE aside AS SELECT * FROM records", "DELETE FROM records WHERE leaf_index = 0")
        await rounds(1)
        await rounds(3)
        await at.edit("INSERT INTO records SELECT * FROM aside WHERE leaf_index = 0")
        await rounds(1)
        await rounds(3)
    assert lengths == [1, 2, 2, 3, 3]
    proven, damaged, repaired = await at.proofs()
    assert (damaged.first, damaged.count) == (proven.first, proven.count)
    assert named([damaged]) == {(0, record.id, "not_found")}
    assert (repaired.records, repaired.unprovable) == (3, [])


async def test_a_page_that_the_database_cannot_read_spoils_its_own_statement_alone(at: Proven) -> None:
    """An error of the server while it reads one row neither ends the prover nor hides the keys beside it."""
    await at.keys(1, 1, 1)
    await as_superuser(at.databases, UNREADABLE)
    proofs = await at.look()
    assert named(proofs) == {(1, None, "proof_invalid")}
    assert covered(proofs) == [0, 1, 2]
    assert sum(leaf.records for leaf in proofs) == 2


async def test_a_statement_that_was_signed_again_by_another_key_is_unprovable(at: Proven) -> None:
    """The same body under another enrolled key, or under a stranger's, is not what the leaf names."""
    statements = [make.escrow(), make.escrow(), make.escrow()]
    await at.escrow(*statements)
    for index, name in enumerate((OTHER, "thief")):
        signed = make.signed(parse_body(statements[index], Escrow), make.signing_key(name))
        await at.replace(index, signed)
    assert named(await at.look()) == {(0, None, "proof_invalid"), (1, None, "proof_invalid")}


async def test_a_damaged_enrolment_spoils_its_own_principals_keys_only(at: Proven) -> None:
    """Whose key cannot be verified up to the root cannot be given anything; everybody else can."""
    await at.escrow(make.escrow(), make.escrow(OTHER), make.escrow())
    await at.edit("UPDATE trust_statements SET envelope = '' WHERE leaf_index = 2")
    assert named(await at.look()) == {(1, None, "proof_invalid")}


@pytest.mark.parametrize(
    "edit", ["DELETE FROM escrow_checkpoints WHERE size > 1", "DELETE FROM escrow_checkpoints"]
)
async def test_a_log_that_went_back_stops_the_prover(at: Proven, edit: str) -> None:
    """What was seen before, by this process or by one before it, cannot be taken away."""
    await at.keys(1)
    await at.keys(1)
    async with at.prover() as prover:
        assert await prover.turn(asyncio.Event())
        await at.edit(edit)
        with pytest.raises(LogForked):
            await prover.serve(asyncio.Event())
    async with at.prover() as prover:
        with pytest.raises(LogForked):
            await prover.turn(asyncio.Event())


async def test_a_checkpoint_of_another_key_stops_the_prover(at: Proven) -> None:
    """Nothing is proven under a tree that the log's key did not sign."""
    await at.keys(1)
    await at.edit("UPDATE escrow_checkpoints SET note = replace(note, 'escrow/working', 'escrow')")
    async with at.prover() as prover:
        with pytest.raises(CheckpointInvalid):
            await prover.turn(asyncio.Event())
    assert await at.proofs() == []


# ---- keys that cannot be given back --------------------------------------------------------------------------


def flipped(record: Record, place: int) -> Record:
    """Return the record with one bit of its blob changed."""
    blob = bytearray(record.blob)
    blob[place] ^= 1
    return record.model_copy(update={"blob": bytes(blob)})


def sealed_to_another_key() -> Record:
    """Return a record whose blob only a key opens that the authority does not have."""
    thief, id_ = make.sealing_key("thief"), new_id()
    place = BlobContext(make.AUTHORITY, make.PRINCIPAL, id_, thief.kid, thief.suite)
    sealed = seal_material(Secret(b"x"), place, thief.public_key)
    return make.record(id=id_, blob=sealed.blob, fingerprint=sealed.fingerprint)


def lifted(principal: str = make.PRINCIPAL) -> Record:
    """Return a record with the blob and the fingerprint of another one of this principal."""
    other = make.record(principal)
    return make.record(blob=other.blob, fingerprint=other.fingerprint)


WRONG = {
    "garbage": (make.record(blob=b"\x00" * 1200), "blob_invalid"),
    "short": (make.record(blob=b"short"), "blob_invalid"),
    "for another key": (sealed_to_another_key(), "blob_invalid"),
    "a bit of the ML-KEM part": (flipped(make.record(), 0), "blob_invalid"),
    "a bit of the X25519 part": (flipped(make.record(), 1100), "blob_invalid"),
    "a bit of the ciphertext": (flipped(make.record(), 1125), "blob_invalid"),
    "a bit of the tag": (flipped(make.record(), -1), "blob_invalid"),
    "another record's blob": (lifted(), "blob_invalid"),
    "another principal's blob": (lifted(OTHER), "blob_invalid"),
    "another fingerprint": (make.record(fingerprint="ab" * 32), "fingerprint_mismatch"),
    "a key nobody has": (make.record(kid="0" * 32), "key_unknown"),
}


async def test_a_record_that_cannot_be_given_back_is_named_and_its_neighbours_are_proven(at: Proven) -> None:
    """Signed by its owner and in the log as it was signed: code by code, in one statement and in many."""
    wrong = [record for record, _ in WRONG.values()]
    await at.escrow(make.escrow(records=[make.record(), *wrong, make.record()]), make.escrow())
    [leaf] = await at.look()
    assert named([leaf]) == {(0, record.id, code) for record, code in WRONG.values()} == at.told()
    assert leaf.records == 3


async def test_a_statement_without_one_good_record_fits(at: Proven) -> None:
    """256 records that do not open are named one by one, and the leaf ends before the next that does not."""
    wrong = [[make.record(blob=b"short") for _ in range(count)] for count in (256, 1)]
    await at.escrow(*(make.escrow(records=records) for records in wrong))
    first, second = await at.look()
    assert named([first]) == {(0, record.id, "blob_invalid") for record in wrong[0]}
    assert (first.first, first.count, second.first, second.count) == (0, 1, 1, 1)
    await at.edit(
        f"INSERT INTO records SELECT '{STRANGER}', statement_id, position, principal, name, issued_at, kid,"
        " leaf_index FROM records WHERE leaf_index = 0 LIMIT 1"
    )
    [again] = await at.look_again()
    assert named([again]) == {(0, None, "proof_invalid"), (1, wrong[1][0].id, "blob_invalid")}


async def test_a_missing_sealing_key_is_told_and_ends_with_the_key(at: Proven, tmp_path: Path) -> None:
    """Records that are sealed to it are unprovable, loudly; with the key file in place they are proven."""
    (tmp_path / "others").mkdir()
    write_sealing_key(tmp_path / "others" / "thief.key", make.sealing_key("thief"), None)
    [record] = await at.keys(1)
    assert named(await at.look(sealing_keys_dir=tmp_path / "others")) == {(0, record.id, "key_unknown")}
    missing = [line for line in at.lines if line["event"] == "a sealing key is missing"]
    assert [(line["log_level"], line["kid"]) for line in missing] == [("error", make.sealing_key().kid)]
    [leaf] = await at.look_again()
    assert (leaf.records, leaf.unprovable) == (1, [])


async def test_a_key_device_that_does_not_answer_condemns_nothing(
    at: Proven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look is given up and comes again; only what was opened, or did not open, goes into the log."""
    await at.keys(1)
    key = make.sealing_key()

    class Device:
        kids = frozenset([key.kid])

        def opener(self, kid: str) -> object:
            raise NoAnswer(f"the device with {kid} does not answer")

    async with at.prover() as prover:
        with monkeypatch.context() as patch:
            patch.setattr(prover, "_keyring", Device())
            with pytest.raises(NoAnswer):
                await prover.turn(asyncio.Event())
        assert await at.proofs() == []
        assert await prover.turn(asyncio.Event())
    assert named(await at.proofs()) == set()


# ---- several, restarts, clocks -------------------------------------------------------------------------------


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "BLOCK_LEAVES", 4)


@pytest.mark.usefixtures("_small_blocks")
async def test_two_provers_share_the_work(at: Proven) -> None:
    """Every leaf is looked at once, whichever of the two comes to it first."""
    await at.keys(*[1] * 30)
    stop = asyncio.Event()
    async with at.prover() as one, at.prover() as other:
        serving = [asyncio.create_task(each.serve(stop)) for each in (one, other)]
        for each in (one, other):
            await until(lambda each=each: each._ledger.proofs.covered() == [(0, 30)], "all is proven")  # type: ignore[misc]
        stop.set()
        await asyncio.gather(*serving)
    assert covered(await at.proofs()) == list(range(30))


@pytest.mark.usefixtures("_small_blocks")
async def test_a_block_that_another_prover_is_at_is_left_to_it(at: Proven) -> None:
    """The next one is taken, until the other has gone, with or without an end to its work."""
    await at.keys(*[1] * 8)
    async with pg.connect(at.settings.database_url.get_secret_value()) as opened, at.prover() as prover:
        async with opened.reading() as tx:
            assert await store.claim(tx, 0)
            assert await prover.turn(asyncio.Event())
            assert not await prover.turn(asyncio.Event())
        assert covered(await at.proofs()) == [4, 5, 6, 7]
        assert await prover.turn(asyncio.Event())
    assert covered(await at.proofs()) == list(range(8))


async def test_a_look_that_somebody_else_has_finished_first_is_dropped(
    at: Proven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the claim was lost with its connection, both look; one leaf is appended, not two."""
    await at.keys(3)

    async def claim(_tx: pg.Transaction, _block: int) -> bool:
        return True

    monkeypatch.setattr(store, "claim", claim)
    examine = Prover._examine
    async with at.prover() as slow, at.prover() as fast:

        async def overtaken(prover: Prover, *args: object) -> Looked:
            if prover is slow:
                assert await fast.turn(asyncio.Event())
            return await examine(prover, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(Prover, "_examine", overtaken)
        assert await slow.turn(asyncio.Event())
    assert covered(await at.proofs()) == [0]


@pytest.mark.usefixtures("_small_blocks")
async def test_a_restart_goes_on_where_the_log_ends(at: Proven) -> None:
    """Nothing is kept but the log: the next process looks at what the one before it did not."""
    await at.keys(*[1] * 10)
    async with at.prover() as prover:
        assert await prover.turn(asyncio.Event())
    await at.look()
    assert covered(await at.proofs()) == list(range(10))


async def test_a_stop_ends_the_look_early_and_keeps_what_was_found(at: Proven) -> None:
    """A process that is told to end appends what it has looked at, and no more."""
    await at.keys(*[1] * 5)
    stop = asyncio.Event()
    stop.set()
    async with at.prover() as prover:
        assert await prover.turn(stop)
    assert covered(await at.proofs()) == [0]


@pytest.mark.parametrize("days", [1, -1, 400, -400])
async def test_a_clock_that_jumps_neither_stops_the_prover_nor_keeps_it_busy(at: Proven, days: int) -> None:
    """New keys are proven at once by any clock, and then there is an end, also when it is set right again."""
    await at.keys(1)
    await at.look()
    async with at.prover() as prover:
        for jump in (days, -days):
            at.now += jump * make.DAY
            await at.keys(1)
            turns = 0
            while await prover.turn(asyncio.Event()):
                turns += 1
                assert turns < 4
            assert prover._ledger.proofs.gaps(prover._report.escrow_size) == []


@pytest.mark.usefixtures("_small_blocks")
async def test_everything_is_looked_at_again_in_time_and_evenly(at: Proven) -> None:
    """Six hours at a time: no leaf is older than policy allows, and no six hours have more than one look."""
    await at.keys(*[1] * 40)
    await at.look()
    async with at.prover() as prover:
        most = 0
        for _ in range(60 * 24 // 6):
            at.now, at.monotonic = at.now + 6 * 3600, at.monotonic + 6 * 3600
            turns = 0
            while await prover.turn(asyncio.Event()):
                turns += 1
            most = max(most, turns)
            oldest = prover._ledger.proofs.oldest()
            assert oldest is not None
            assert at.now - oldest.time <= 30 * make.DAY
    assert most == 1


async def test_large_statements_are_read_a_few_at_a_time(at: Proven, monkeypatch: pytest.MonkeyPatch) -> None:
    """No look holds more envelopes than memory is meant for, and all are looked at."""
    held: list[int] = []
    read = store.stretch

    async def measured(*args: object) -> Stretch:
        found = await read(*args)  # type: ignore[arg-type]
        held.append(sum(len(each.envelope) for each in found.statements.values() if not isinstance(each, str)))
        return found

    monkeypatch.setattr(store, "stretch", measured)
    large = [make.record(material=b"x" * 65_536) for _ in range(8)]
    await at.escrow(*(make.escrow(records=[each, make.record()]) for each in large), make.escrow())
    monkeypatch.setattr(store, "ENVELOPES_BYTES_MAX", 300_000)
    looks = await at.look()
    assert covered(looks) == list(range(9))
    assert max(held) <= 300_000
    assert len(held) >= 3


async def test_a_flood_of_index_rows_is_not_read_whole(at: Proven, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look becomes shorter until what belongs to it can be held; what is too many is unprovable."""
    await at.keys(1, 1, 1, 1)
    monkeypatch.setattr(store, "INDEX_ROWS_MAX", 300)
    await at.edit(
        "INSERT INTO records SELECT gen_random_uuid(), statement_id, position, principal, name, issued_at, kid,"
        " leaf_index FROM records, generate_series(1, 1000) WHERE leaf_index = 2"
    )
    looks = await at.look()
    assert named(looks) == {(2, None, "proof_invalid")}
    assert covered(looks) == [0, 1, 2, 3]


async def test_a_look_that_cannot_be_written_down_is_done_again(
    at: Proven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn ends with what the database said, nothing half done; the next one does all of it."""
    await at.keys(1)

    async def lock(_tx: pg.Transaction) -> None:
        raise DatabaseUnavailable("database: it is shutting down")

    async with at.prover() as prover:
        with monkeypatch.context() as patch:
            patch.setattr(prover._writer, "lock", lock)
            with pytest.raises(DatabaseUnavailable):
                await prover.serve(asyncio.Event())
        assert await at.proofs() == []
        assert await prover.turn(asyncio.Event())
    assert covered(await at.proofs()) == [0]


# ---- what it says --------------------------------------------------------------------------------------------


async def test_the_metrics_file_counts_what_was_found(at: Proven, tmp_path: Path) -> None:
    """Outcomes, backlog, the oldest look and what is unprovable, in Prometheus' text format, replaced whole."""
    await at.escrow(make.escrow(), make.escrow(records=[make.record(blob=b"short")]))
    file = tmp_path / "prover.prom"
    async with at.prover(metrics_file=file) as prover:
        assert await prover.turn(asyncio.Event())
        await prover.turn(asyncio.Event())
        await prover._report.tell(prover._database, at.place.roster.body.policy)
    lines = set(file.read_text().splitlines())
    assert lines >= {
        'strongroom_prover_records_total{outcome="blob_invalid"} 1.0',
        'strongroom_prover_records_total{outcome="proven"} 1.0',
        "strongroom_prover_backlog_leaves 0.0",
        f"strongroom_prover_oldest_look_timestamp_seconds {make.NOW / 1e9}e+09",
        "strongroom_prover_unprovable_records 1.0",
        "strongroom_disclosed_overdue_records 0.0",
    }
    assert [name for name in os.listdir(tmp_path) if name.startswith("prover")] == ["prover.prom"]  # noqa: PTH208


async def test_nothing_but_the_recovery_log_is_written(at: Proven) -> None:
    """One leaf, its nodes and its checkpoint; every other table is as it was."""
    await at.keys(2)
    tables = ("records", "escrow_statements", "escrow_leaves", "trust_statements", "requests", "releases")
    query = " || ".join(
        f"(SELECT coalesce(string_agg(t::text, ',' ORDER BY t::text), '') FROM {t} AS t)" for t in tables
    )
    before = await ask_superuser(at.databases, f"SELECT md5({query})")
    await at.look()
    assert await ask_superuser(at.databases, f"SELECT md5({query})") == before
