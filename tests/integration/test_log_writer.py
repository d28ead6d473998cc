"""Appending to a log on a real PostgreSQL: by turns, through failures, and with an enemy who owns the database."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from deploy.local.postgres import PrivatePostgres
from tests.conftest import FreshDatabase
from tests.support.attacker import as_superuser, take_and_abort, taken
from tests.support.authority import AUTHORITY, signing_key
from tests.support.relay import Relay

from strongroom import receipts
from strongroom.checkpoint_file import working_origin
from strongroom.crypto import tlog
from strongroom.crypto.notes import Checkpoint, sign_checkpoint, verify_checkpoint
from strongroom.database import Database, connect
from strongroom.errors import (
    CheckpointInvalid,
    CommitUnknown,
    DatabaseUnavailable,
    LimitExceeded,
    LogForked,
    StateCorrupt,
)
from strongroom.limits import LEAF_BYTES_MAX
from strongroom.log_writer import LogName, LogWriter, Published
from strongroom.migrations import migrate
from strongroom.receipts import Receipt

ORIGIN = f"{AUTHORITY}/escrow"
WORKING = working_origin(ORIGIN)
KEY = signing_key("escrow log")


def leaves(first: int, end: int) -> list[bytes]:
    """Leaves that differ from each other."""
    return [b"leaf %d" % number for number in range(first, end)]


def root(content: Sequence[bytes]) -> bytes:
    """The root of a log with these leaves, computed apart from any database."""
    return tlog.append(tlog.Frontier.empty(), content)[0].root()


def writer_of(folder: Path, name: str = "a") -> LogWriter:
    """A writer of the escrow log with a checkpoint file of its own."""
    return LogWriter(LogName.ESCROW, ORIGIN, KEY, folder / f"{name}.checkpoint")


async def opened(database: Database, folder: Path, name: str = "a") -> LogWriter:
    """A writer that has found the head."""
    writer = writer_of(folder, name)
    await writer.open(database)
    return writer


async def append(database: Database, writer: LogWriter, content: Sequence[bytes]) -> Published:
    """The whole way of leaves into the log."""
    async with database.transaction() as tx:
        await writer.lock(tx)
        appended = await writer.append(tx, content)
    published = await writer.committed(appended)
    assert (appended.first_index, appended.size) == (published.size - len(content), published.size)
    return published


def check_receipt(receipt: Receipt, leaf: bytes, index: int, size: int) -> None:
    """What the holder of a receipt checks."""
    verified = receipts.verify(receipt.to_document(), KEY.public_key, ORIGIN)
    assert (verified.leaf, verified.index, verified.checkpoint.size) == (leaf, index, size)


async def stored_leaves(database: FreshDatabase | PrivatePostgres) -> list[bytes]:
    """The log as the database has it; its newest checkpoint must be over exactly that."""
    async with connect(database.url("strongroom_escrow")) as pool, pool.reading() as tx:
        rows = await tx.fetch("SELECT index, leaf FROM escrow_leaves ORDER BY index")
        head = await tx.fetch_row("SELECT size, note FROM escrow_checkpoints ORDER BY size DESC LIMIT 1")
    assert [row["index"] for row in rows] == list(range(len(rows)))
    content = [row["leaf"] for row in rows]
    assert (head is None) == (not rows)
    if head is not None:
        assert verify_checkpoint(head["note"], WORKING, KEY.public_key) == Checkpoint(
            WORKING, len(rows), root(content)
        )
        assert head["size"] == len(rows)
    return content


@pytest.fixture
async def pool(database: FreshDatabase) -> AsyncIterator[Database]:
    """The database as the escrow worker sees it."""
    async with connect(database.url("strongroom_escrow"), connections_max=8) as connected:
        yield connected


# ---- appending ----


@pytest.mark.parametrize("log", LogName)
async def test_each_log_has_its_own_tables_key_and_role(
    database: FreshDatabase, tmp_path: Path, log: LogName
) -> None:
    """A worker's role can write its own log, and the receipts verify under that log's origin and key."""
    key = signing_key(f"{log} log")
    writer = LogWriter(log, f"{AUTHORITY}/{log}", key, tmp_path / "checkpoint")
    async with connect(database.url(f"strongroom_{log}")) as connected:
        await writer.open(connected)
        published = await append(connected, writer, [b"leaf"])
    verified = receipts.verify(published.receipt(0).to_document(), key.public_key, f"{AUTHORITY}/{log}")
    assert verified.leaf == b"leaf"


async def test_appended_leaves_are_proven_at_once(pool: Database, database: FreshDatabase, tmp_path: Path) -> None:
    """Batches of many sizes: every fresh leaf has a receipt that verifies, and the rows make up the signed tree."""
    writer = await opened(pool, tmp_path)
    first = 0
    for count in (1, 1, 2, 3, 5, 8, 13, 1, 64, 7):
        published = await append(pool, writer, leaves(first, first + count))
        assert published.size == writer.size == first + count
        for index in range(first, first + count):
            check_receipt(published.receipt(index), b"leaf %d" % index, index, first + count)
        first += count
    assert await stored_leaves(database) == leaves(0, first)


async def test_older_leaves_are_proven_in_any_later_tree(pool: Database, tmp_path: Path) -> None:
    """A proof can be had for every leaf in every tree that has a checkpoint, and its receipt is the fresh one's."""
    writer = await opened(pool, tmp_path)
    batches = [await append(pool, writer, leaves(first, first + 3)) for first in range(0, 21, 3)]
    async with pool.reading() as tx:
        for batch in batches:
            again = await writer.leaf_proofs(tx, range(batch.size), batch.size)
            assert again.keys() == set(range(batch.size))
            for index, proof in again.items():
                check_receipt(batch.receipt_of(proof), b"leaf %d" % index, index, batch.size)
            for index in range(batch.size - 3, batch.size):
                assert batch.receipt(index) == batch.receipt_of(again[index])
        assert await writer.leaf_proofs(tx, [], 21) == {}


async def test_older_leaves_are_proven_in_the_tree_that_is_being_appended(pool: Database, tmp_path: Path) -> None:
    """Before COMMIT old leaves and old sizes are proven in the new tree; the receipts come after it."""
    writer = await opened(pool, tmp_path)
    await append(pool, writer, leaves(0, 5))
    async with pool.transaction() as tx:
        await writer.lock(tx)
        appended = await writer.append(tx, leaves(5, 9))
        old = await writer.leaf_proofs(tx, [4, 0], appended.size)
        proofs = await writer.consistency(tx, [5], appended.size)
    published = await writer.committed(appended)
    for index in (0, 4):
        check_receipt(published.receipt_of(old[index]), b"leaf %d" % index, index, 9)
    tlog.verify_consistency(5, root(leaves(0, 5)), 9, root(leaves(0, 9)), proofs[5])


async def test_consistency_is_proven_from_every_earlier_size(pool: Database, tmp_path: Path) -> None:
    """From each size up to the tree's own the proof verifies; sizes out of range are left out."""
    writer = await opened(pool, tmp_path)
    await append(pool, writer, leaves(0, 13))
    await append(pool, writer, leaves(13, 21))
    async with pool.reading() as tx:
        assert await writer.consistency(tx, [0], 21) == {0: []}
        for size in (13, 21):
            proofs = await writer.consistency(tx, [-1, *range(30), 2**63], size)
            assert proofs.keys() == set(range(size + 1))
            for old, proof in proofs.items():
                tlog.verify_consistency(old, root(leaves(0, old)), size, root(leaves(0, size)), proof)


async def test_an_empty_log_has_nothing_to_prove(pool: Database, tmp_path: Path) -> None:
    """Before the first leaf: no size, nothing to go on from, and the empty tree is consistent with itself alone."""
    writer = await opened(pool, tmp_path)
    assert (writer.size, writer.working_note) == (0, None)
    empty = await writer.published()
    assert verify_checkpoint(empty.note, ORIGIN, KEY.public_key) == Checkpoint(ORIGIN, 0, tlog.EMPTY_ROOT)
    async with pool.reading() as tx:
        assert await writer.consistency(tx, [0, 1], 0) == {0: []}
    assert not (tmp_path / "a.checkpoint").exists()


async def test_appending_nothing_writes_nothing(pool: Database, database: FreshDatabase, tmp_path: Path) -> None:
    """Without leaves the head comes back, and no row is made of it."""
    writer = await opened(pool, tmp_path)
    assert (await append(pool, writer, [])).size == 0
    before = await append(pool, writer, leaves(0, 2))
    nothing = await append(pool, writer, [])
    assert (nothing.size, nothing.note) == (2, before.note)
    assert await stored_leaves(database) == leaves(0, 2)
    with pytest.raises(IndexError):
        nothing.receipt(1)


async def test_a_leaf_has_a_limit(pool: Database, tmp_path: Path) -> None:
    """The longest leaf is taken, a byte more is LimitExceeded and nothing is stored."""
    writer = await opened(pool, tmp_path)
    await append(pool, writer, [b"x" * LEAF_BYTES_MAX])
    with pytest.raises(LimitExceeded, match="65535 bytes"):
        await append(pool, writer, [b"x" * (LEAF_BYTES_MAX + 1)])
    assert (await append(pool, writer, [b"y"])).size == 2


async def test_the_order_of_calls_is_enforced(pool: Database, tmp_path: Path) -> None:
    """Appending without the lock, twice, or locking after appending is a bug that is told at once."""
    writer = writer_of(tmp_path)
    with pytest.raises(RuntimeError, match="open"):
        assert writer.size
    await writer.open(pool)
    async with pool.transaction() as tx:
        with pytest.raises(RuntimeError, match="after locking"):
            await writer.append(tx, [b"leaf"])
        await writer.lock(tx)
        await writer.lock(tx)
        await writer.append(tx, [b"leaf"])
        with pytest.raises(RuntimeError, match="once"):
            await writer.append(tx, [b"leaf"])
        with pytest.raises(RuntimeError, match="before anything is appended"):
            await writer.lock(tx)
    async with pool.transaction() as other:
        with pytest.raises(RuntimeError, match="after locking"):
            await writer.append(other, [b"leaf"])
    async with pool.reading() as reading:
        with pytest.raises(RuntimeError, match="writing transaction"):
            await writer.lock(reading)


async def test_a_rolled_back_transaction_leaves_no_trace(
    pool: Database, database: FreshDatabase, tmp_path: Path
) -> None:
    """After a rollback the writer, its file and the database are as before, and the same index is given again."""
    writer = await opened(pool, tmp_path)
    await append(pool, writer, leaves(0, 3))
    before = (writer.size, writer.working_note, (tmp_path / "a.checkpoint").read_text())
    with pytest.raises(ZeroDivisionError):
        async with pool.transaction() as tx:
            await writer.lock(tx)
            assert (await writer.append(tx, [b"never"])).first_index == 3
            raise ZeroDivisionError
    assert (writer.size, writer.working_note, (tmp_path / "a.checkpoint").read_text()) == before
    assert await stored_leaves(database) == leaves(0, 3)
    check_receipt((await append(pool, writer, [b"leaf 3"])).receipt(3), b"leaf 3", 3, 4)
    assert await stored_leaves(database) == leaves(0, 4)


# ---- nothing for agents before COMMIT ----


class Recording:
    """A signing key that notes down what it signs."""

    def __init__(self) -> None:
        self.public_key = KEY.public_key
        self.signed: list[str] = []

    def sign(self, message: bytes) -> bytes:
        """Sign, and keep the first line."""
        self.signed.append(message.decode().partition("\n")[0])
        return KEY.sign(message)


async def test_nothing_that_an_agent_accepts_is_signed_before_commit(
    pool: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old leaves proven, new ones appended: until `committed` the key has signed one working checkpoint."""
    writer, key = await opened(pool, tmp_path), Recording()
    await append(pool, writer, leaves(0, 5))
    monkeypatch.setattr(writer, "_key", key)
    async with pool.transaction() as tx:
        await writer.lock(tx)
        appended = await writer.append(tx, leaves(5, 7))
        await writer.leaf_proofs(tx, range(5), 7)
        await writer.consistency(tx, [5], 7)
    assert key.signed == [WORKING]
    published = await writer.committed(appended)
    assert key.signed == [WORKING, ORIGIN]
    assert verify_checkpoint(published.note, ORIGIN, KEY.public_key).root == root(leaves(0, 7))


async def test_the_log_always_signs_the_same_for_the_same_leaves(pool: Database, tmp_path: Path) -> None:
    """`committed` again, `published`, and another writer: one note for one size."""
    writer = await opened(pool, tmp_path)
    async with pool.transaction() as tx:
        await writer.lock(tx)
        appended = await writer.append(tx, leaves(0, 3))
    published = await writer.committed(appended)
    assert await writer.committed(appended) == published
    other = await opened(pool, tmp_path, "b")
    assert {(await each.published()).note for each in (writer, other)} == {published.note}


async def test_a_published_head_proves_what_others_appended(pool: Database, tmp_path: Path) -> None:
    """A writer that appends nothing signs the head that it found, once that is on its own disk."""
    first, second = await opened(pool, tmp_path, "a"), await opened(pool, tmp_path, "b")
    await append(pool, first, leaves(0, 5))
    async with pool.transaction() as tx:
        await second.lock(tx)
        assert not (tmp_path / "b.checkpoint").exists()
        published = await second.published()
        assert (tmp_path / "b.checkpoint").read_text() == first.working_note
        proofs = await second.leaf_proofs(tx, [3], published.size)
    check_receipt(published.receipt_of(proofs[3]), b"leaf 3", 3, 5)
    with pytest.raises(IndexError):
        published.receipt(3)


async def test_a_published_head_is_never_that_of_an_open_transaction(pool: Database, tmp_path: Path) -> None:
    """While leaves are appended the head stays the one before, and proofs in the new tree do not fit to it."""
    writer = await opened(pool, tmp_path)
    before = await append(pool, writer, leaves(0, 5))
    with pytest.raises(ZeroDivisionError):
        async with pool.transaction() as tx:
            await writer.lock(tx)
            appended = await writer.append(tx, leaves(5, 7))
            proofs = await writer.leaf_proofs(tx, [4], appended.size)
            published = await writer.published()
            assert (published.size, published.note) == (5, before.note)
            with pytest.raises(ValueError, match="another tree, one of 7 leaves"):
                published.receipt_of(proofs[4])
            raise ZeroDivisionError
    # The same size with other leaves: a proof out of the transaction that failed does not fit either.
    other = await append(pool, writer, leaves(10, 12))
    with pytest.raises(ValueError, match="another tree, one of 7 leaves"):
        other.receipt_of(proofs[4])


@pytest.mark.parametrize("log", LogName)
async def test_what_is_taken_out_of_a_commit_that_fails_is_no_receipt(
    database: FreshDatabase, tmp_path: Path, log: LogName
) -> None:
    """A superuser copies note and leaves out of the failing COMMIT: no agent takes them, and the writer goes on."""
    key, origin = signing_key(f"{log} log"), f"{AUTHORITY}/{log}"
    writer = LogWriter(log, origin, key, tmp_path / "checkpoint")
    async with connect(database.url(f"strongroom_{log}")) as connected:
        await writer.open(connected)
        await append(connected, writer, leaves(0, 4))
        await take_and_abort(database, log, times=2)
        for never in (b"never", b"never either"):
            with pytest.raises(DatabaseUnavailable):
                await append(connected, writer, [never])
        published = await append(connected, writer, [b"leaf 4"])
    loot = await taken(database, times=2)
    assert [each.leaves for each in loot] == [[*leaves(0, 4), b"never"], [*leaves(0, 4), b"never either"]]
    for each in loot:
        # It is genuine, and a worker would go on from it.
        assert verify_checkpoint(each.note, working_origin(origin), key.public_key).root == root(each.leaves)
        for forged in each.receipts(origin):
            with pytest.raises(CheckpointInvalid):
                receipts.verify(forged.to_document(), key.public_key, origin)
    receipt = published.receipt(4)
    assert receipts.verify(receipt.to_document(), key.public_key, origin).leaf == b"leaf 4"


# ---- several writers ----


async def test_two_writers_continue_each_other(pool: Database, database: FreshDatabase, tmp_path: Path) -> None:
    """Writers that append by turns, and not strictly so, find each other's leaves and prove them."""
    writers = {"a": await opened(pool, tmp_path, "a"), "b": await opened(pool, tmp_path, "b")}
    for number, name in enumerate("abbabaaabbbbab"):
        published = await append(pool, writers[name], [b"leaf %d" % number])
        check_receipt(published.receipt(number), b"leaf %d" % number, number, number + 1)
    assert await stored_leaves(database) == leaves(0, 14)
    async with pool.transaction() as tx:
        await writers["a"].lock(tx)
        assert len(await writers["a"].leaf_proofs(tx, range(14), 14)) == 14


async def test_writers_at_the_same_time_make_one_log(
    pool: Database, database: FreshDatabase, tmp_path: Path
) -> None:
    """Three processes' worth of writers, each with transactions side by side, some of which fail at the end.

    Every leaf that was committed is in the log once, none that was rolled back is, and each receipt verifies.
    """
    writers = [await opened(pool, tmp_path, name) for name in "abc"]

    async def one(number: int) -> tuple[bytes, Published] | None:
        writer, leaf = writers[number % 3], b"leaf %d" % number
        with suppress(ZeroDivisionError):
            async with pool.transaction() as tx:
                await writer.lock(tx)
                appended = await writer.append(tx, [leaf, leaf])
                _ = 1 // (number % 7)
            return leaf, await writer.committed(appended)
        return None

    results = [result for result in await asyncio.gather(*map(one, range(60))) if result is not None]
    assert len(results) == 60 - 9
    content = await stored_leaves(database)
    assert sorted(content) == sorted(leaf for leaf, _ in results for _ in range(2))
    for leaf, published in results:
        for index in (published.size - 2, published.size - 1):
            check_receipt(published.receipt(index), leaf, index, published.size)
            assert content[index] == leaf
    for name in "abc":
        kept = verify_checkpoint((tmp_path / f"{name}.checkpoint").read_text(), WORKING, KEY.public_key)
        assert kept.root == root(content[: kept.size])


async def test_the_next_transaction_need_not_wait_for_committed(
    pool: Database, database: FreshDatabase, tmp_path: Path
) -> None:
    """A transaction of the same process may lock between another's COMMIT and its `committed`."""
    writer = await opened(pool, tmp_path)
    async with pool.transaction() as tx:
        await writer.lock(tx)
        first = await writer.append(tx, leaves(0, 3))
    second = await append(pool, writer, leaves(3, 5))
    check_receipt((await writer.committed(first)).receipt(2), b"leaf 2", 2, 3)
    check_receipt(second.receipt(3), b"leaf 3", 3, 5)
    assert writer.size == 5
    assert (tmp_path / "a.checkpoint").read_text() == writer.working_note
    assert await stored_leaves(database) == leaves(0, 5)


async def test_the_lock_is_held_until_the_transaction_ends(pool: Database, tmp_path: Path) -> None:
    """A second writer does not get past `lock` before the first has committed; then it sees the new head."""
    first, second = await opened(pool, tmp_path, "a"), await opened(pool, tmp_path, "b")
    order: list[str] = []

    async def wait_for_lock() -> None:
        async with pool.transaction() as tx:
            await second.lock(tx)
            order.append(f"second sees {second.size}")

    async with pool.transaction() as tx:
        await first.lock(tx)
        task = asyncio.create_task(wait_for_lock())
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while await tx.fetch_value(waiting) == 0:
            assert not task.done()
        await first.append(tx, leaves(0, 2))
        order.append("first appended")
    await task
    assert order == ["first appended", "second sees 2"]


# ---- the checkpoint file ----


async def test_the_checkpoint_is_on_disk_after_committed_and_not_before(pool: Database, tmp_path: Path) -> None:
    """The file changes with `committed`, to the very note of the transaction; no temporary file is left."""
    writer = await opened(pool, tmp_path)
    async with pool.transaction() as tx:
        await writer.lock(tx)
        appended = await writer.append(tx, leaves(0, 3))
    assert not (tmp_path / "a.checkpoint").exists()
    await writer.committed(appended)
    assert os.listdir(tmp_path) == ["a.checkpoint"]  # noqa: PTH208
    assert (tmp_path / "a.checkpoint").read_text() == appended.working_note


async def test_a_restarted_writer_goes_on(pool: Database, database: FreshDatabase, tmp_path: Path) -> None:
    """With its file, with an older file, or with none: the head is found and kept."""
    writer = await opened(pool, tmp_path)
    await append(pool, writer, leaves(0, 3))
    older = (tmp_path / "a.checkpoint").read_text()
    await append(pool, writer, leaves(3, 7))
    newest = writer.working_note
    (tmp_path / "old.checkpoint").write_text(older)
    for name in ("a", "old", "new"):
        writer = await opened(pool, tmp_path, name)
        assert writer.size == 7
        assert (tmp_path / f"{name}.checkpoint").read_text() == newest
    check_receipt((await append(pool, writer, [b"leaf 7"])).receipt(7), b"leaf 7", 7, 8)
    assert await stored_leaves(database) == leaves(0, 8)


async def test_a_checkpoint_that_cannot_be_kept_is_fatal(pool: Database, tmp_path: Path) -> None:
    """When the folder of the file is gone, no receipt leaves: `committed` raises StateCorrupt."""
    folder = tmp_path / "state"
    folder.mkdir()
    writer = await opened(pool, folder)
    async with pool.transaction() as tx:
        await writer.lock(tx)
        appended = await writer.append(tx, [b"leaf"])
    folder.rmdir()
    with pytest.raises(StateCorrupt, match=r"a\.checkpoint.*cannot be written"):
        await writer.committed(appended)


async def test_a_damaged_checkpoint_file_is_not_a_first_start(pool: Database, tmp_path: Path) -> None:
    """A file that holds anything but a checkpoint stops the writer, with a hint."""
    (tmp_path / "a.checkpoint").write_text("")
    with pytest.raises(StateCorrupt, match="damaged") as caught:
        await opened(pool, tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("origin", "key"),
    [(WORKING, "another key"), (working_origin(f"{AUTHORITY}/recovery"), "escrow log"), (ORIGIN, "escrow log")],
    ids=["another key", "another log", "a checkpoint for everybody"],
)
async def test_a_foreign_checkpoint_file_is_a_fork(pool: Database, tmp_path: Path, origin: str, key: str) -> None:
    """A file with anything but a working checkpoint of this key and log does not belong to this log."""
    other = signing_key(key)
    note = sign_checkpoint(Checkpoint(origin, 1, root([b"leaf"])), other.sign, other.public_key)
    (tmp_path / "a.checkpoint").write_text(note)
    with pytest.raises(LogForked, match=ORIGIN):
        await opened(pool, tmp_path)


# ---- COMMIT, in pairs ----


@pytest.mark.parametrize(("trap", "size"), [(Relay.lose_request, 3), (Relay.lose_answer, 5)])
async def test_after_an_unknown_commit_a_restart_finds_a_consistent_log(
    database: FreshDatabase, tmp_path: Path, trap: Callable[[Relay], None], size: int
) -> None:
    """COMMIT fails, once not applied and once applied: the restarted writer continues either, without a fork."""
    async with Relay(database.url("strongroom_escrow")).listening() as relay, connect(relay.url) as pool:
        writer = await opened(pool, tmp_path)
        await append(pool, writer, leaves(0, 3))
        with pytest.raises(CommitUnknown):
            async with pool.transaction() as tx:
                await writer.lock(tx)
                await writer.append(tx, leaves(3, 5))
                trap(relay)
    assert await stored_leaves(database) == leaves(0, size)
    async with connect(database.url("strongroom_escrow")) as pool:
        writer = await opened(pool, tmp_path)
        assert writer.size == size
        published = await append(pool, writer, leaves(size, 9))
        check_receipt(published.receipt(8), b"leaf 8", 8, 9)
    assert await stored_leaves(database) == leaves(0, 9)


async def test_a_server_killed_between_append_and_commit_forgets_the_leaves(
    own_postgres: PrivatePostgres, tmp_path: Path
) -> None:
    """The database dies before COMMIT: what was acknowledged before is there, the rest is not, and work goes on."""
    await migrate(own_postgres.url("strongroom_owner"))
    async with connect(own_postgres.url("strongroom_escrow")) as pool:
        writer = await opened(pool, tmp_path)
        await append(pool, writer, leaves(0, 3))
        with pytest.raises((CommitUnknown, DatabaseUnavailable)):
            async with pool.transaction() as tx:
                await writer.lock(tx)
                await writer.append(tx, leaves(3, 5))
                await asyncio.to_thread(own_postgres.kill)
        await asyncio.to_thread(own_postgres.start)
    assert await stored_leaves(own_postgres) == leaves(0, 3)
    async with connect(own_postgres.url("strongroom_escrow")) as pool:
        assert writer.size == 3
        check_receipt((await append(pool, writer, leaves(3, 5))).receipt(3), b"leaf 3", 3, 5)
    assert await stored_leaves(own_postgres) == leaves(0, 5)


# ---- an enemy who owns the database ----


def _note(size: int, content: Sequence[bytes], origin: str = WORKING, key: str = "escrow log") -> str:
    signer = signing_key(key)
    return sign_checkpoint(Checkpoint(origin, size, root(content)), signer.sign, signer.public_key)


def _set_note(size: int, note: str) -> str:
    return f"UPDATE escrow_checkpoints SET note = '{note}' WHERE size = {size}"  # noqa: S608


BACK_TO_FOUR = (
    "DELETE FROM escrow_leaves WHERE index >= 4",
    "DELETE FROM escrow_checkpoints WHERE size > 4",
    "DELETE FROM escrow_nodes WHERE (index + 1) << level > 4",
)

# The log has 4 leaves in a first and 3 in a second transaction: checkpoints 4 and 7. The edge of 7 leaves are the
# nodes 0 of level 2, 2 of level 1 and 6 of level 0.
HEADS: dict[str, tuple[tuple[str, ...], str]] = {
    "all checkpoints deleted": (("DELETE FROM escrow_checkpoints",), "checkpoints are gone; 7 leaves"),
    "newest checkpoint deleted": (("DELETE FROM escrow_checkpoints WHERE size = 7",), "back to 4 leaves; 7"),
    "older state restored": (BACK_TO_FOUR, "back to 4 leaves; 7"),
    "checkpoint of another key": (
        (_set_note(7, _note(7, leaves(0, 7), key="thief")),),
        "checkpoint of 7 leaves",
    ),
    "checkpoint of another log": (
        (_set_note(7, _note(7, leaves(0, 7), working_origin(f"{AUTHORITY}/recovery"))),),
        "checkpoint of 7 leaves",
    ),
    "checkpoint for everybody": ((_set_note(7, _note(7, leaves(0, 7), ORIGIN)),), "checkpoint of 7 leaves"),
    "checkpoint cut off": (("UPDATE escrow_checkpoints SET note = left(note, 60)",), "checkpoint of 7 leaves"),
    "checkpoint of another size": ((_set_note(7, _note(4, leaves(0, 4))),), "is one of 4"),
    "other leaves, signed by the log": (
        (_set_note(7, _note(7, leaves(10, 17))),),
        "(7 leaves do not continue the 7|edge of the 7 leaves)",
    ),
}


@pytest.mark.parametrize("case", HEADS)
async def test_a_false_head_stops_a_running_writer(
    pool: Database, database: FreshDatabase, tmp_path: Path, case: str
) -> None:
    """Whatever is done to the newest checkpoint, the next `lock` says LogForked and names the place."""
    commands, place = HEADS[case]
    writer = await opened(pool, tmp_path)
    await append(pool, writer, leaves(0, 4))
    await append(pool, writer, leaves(4, 7))
    await as_superuser(database, *commands)
    with pytest.raises(LogForked, match=f"^escrow log: .*{place}"):
        await append(pool, writer, [b"more"])


@pytest.mark.parametrize("case", HEADS)
async def test_a_false_head_stops_a_starting_writer(
    pool: Database, database: FreshDatabase, tmp_path: Path, case: str
) -> None:
    """The same at a start: the checkpoint on the writer's own disk is what the database cannot take back."""
    commands, place = HEADS[case]
    writer = await opened(pool, tmp_path)
    await append(pool, writer, leaves(0, 4))
    await append(pool, writer, leaves(4, 7))
    await as_superuser(database, *commands)
    with pytest.raises(LogForked, match=f"^escrow log: .*{place}"):
        await opened(pool, tmp_path)


EDGES: dict[str, tuple[str, str]] = {
    "node deleted": ("DELETE FROM escrow_nodes WHERE level = 1 AND index = 2", "node 2 of level 1 is missing"),
    "node edited": ("UPDATE escrow_nodes SET hash = sha256('x') WHERE level = 2", "edge of the 7 leaves"),
}


@pytest.mark.parametrize("case", EDGES)
async def test_a_false_node_on_the_edge_stops_a_starting_writer(
    pool: Database, database: FreshDatabase, tmp_path: Path, case: str
) -> None:
    """A start needs the nodes at the right edge, with and without a checkpoint file; a false one is found."""
    command, place = EDGES[case]
    writer = await opened(pool, tmp_path)
    await append(pool, writer, leaves(0, 7))
    await as_superuser(database, command)
    for name in ("a", "without-file"):
        with pytest.raises(LogForked, match=f"^escrow log: .*{place}"):
            await opened(pool, tmp_path, name)


async def test_what_another_writer_signed_is_not_believed_unseen(
    pool: Database, database: FreshDatabase, tmp_path: Path
) -> None:
    """Two histories signed by the same key: a writer that knows one does not go over to the other.

    That is what a database looks like that was set back and then written by a writer without a memory.
    """
    writer = await opened(pool, tmp_path)
    await append(pool, writer, leaves(0, 4))
    await append(pool, writer, leaves(4, 7))
    await as_superuser(database, *BACK_TO_FOUR)
    forgetful = await opened(pool, tmp_path, "forgetful")
    await append(pool, forgetful, leaves(10, 19))
    with pytest.raises(LogForked, match="13 leaves do not continue the 7"):
        await append(pool, writer, [b"more"])
    with pytest.raises(LogForked, match="13 leaves do not continue the 7"):
        await opened(pool, tmp_path)


ROWS_AHEAD: dict[str, str] = {
    "leaf": "INSERT INTO escrow_leaves VALUES (7, 'planted')",
    "node": "INSERT INTO escrow_nodes VALUES (0, 7, sha256('planted'))",
}


@pytest.mark.parametrize("case", ROWS_AHEAD)
async def test_rows_planted_beyond_the_head_are_not_built_upon(
    pool: Database, database: FreshDatabase, tmp_path: Path, case: str
) -> None:
    """A leaf or node that stands already where the next one belongs stops the writer, which stores nothing."""
    writer = await opened(pool, tmp_path)
    await append(pool, writer, leaves(0, 7))
    await as_superuser(database, ROWS_AHEAD[case])
    with pytest.raises(LogForked, match="escrow log: rows stand already where leaf 7"):
        await append(pool, writer, [b"more", b"and more"])
    assert writer.size == 7


PROOFS: dict[str, tuple[str, str, str]] = {
    #                  what the superuser does, what a leaf's proof says, what a consistency proof says
    "leaf edited": (
        "UPDATE escrow_leaves SET leaf = 'forged' WHERE index = 2",
        "leaf 2, or a node above it, is not what was signed",
        "",
    ),
    "leaf deleted": ("DELETE FROM escrow_leaves WHERE index = 2", "leaf 2 is missing", ""),
    "leaves swapped": (
        "UPDATE escrow_leaves AS a SET leaf = b.leaf FROM escrow_leaves AS b WHERE a.index = 2 AND b.index = 3",
        "leaf 2",
        "",
    ),
    "node edited": (
        "UPDATE escrow_nodes SET hash = sha256('x') WHERE level = 0 AND index = 3",
        "leaf 2, or a node above it",
        "a node between 3 and 7 leaves is not what was signed",
    ),
    "node deleted": (
        "DELETE FROM escrow_nodes WHERE level = 0 AND index = 3",
        "node 3 of level 0 is missing",
        "node 3 of level 0 is missing",
    ),
    "checkpoint edited": (_set_note(7, _note(7, leaves(10, 17))), "leaf 2", "between 3 and 7"),
    "checkpoint deleted": (
        "DELETE FROM escrow_checkpoints WHERE size = 7",
        "checkpoint of 7 leaves is missing",
        "checkpoint of 7 leaves is missing",
    ),
    "checkpoint replaced": (_set_note(7, _note(4, leaves(0, 4))), "is one of 4", "is one of 4"),
}


@pytest.mark.parametrize("case", PROOFS)
async def test_no_proof_is_handed_out_that_does_not_hold(
    pool: Database, database: FreshDatabase, tmp_path: Path, case: str
) -> None:
    """An edited or missing leaf, node or checkpoint is found before a proof with it leaves."""
    command, in_leaf_proof, in_consistency = PROOFS[case]
    writer = await opened(pool, tmp_path)
    await append(pool, writer, leaves(0, 7))
    await append(pool, writer, leaves(7, 12))
    await as_superuser(database, command)
    async with pool.reading() as tx:
        with pytest.raises(LogForked, match=f"^escrow log: .*{in_leaf_proof}"):
            await writer.leaf_proofs(tx, [2], 7)
        if in_consistency:
            with pytest.raises(LogForked, match=f"^escrow log: .*{in_consistency}"):
                await writer.consistency(tx, [3], 7)
        else:
            assert (await writer.consistency(tx, [3], 7)).keys() == {3}


async def test_a_row_that_points_beyond_the_log_is_a_fork(pool: Database, tmp_path: Path) -> None:
    """A leaf index that some row claims and that the tree does not have is no fault of the sender."""
    writer = await opened(pool, tmp_path)
    await append(pool, writer, leaves(0, 7))
    async with pool.reading() as tx:
        with pytest.raises(LogForked, match="leaf 7, the log has 7"):
            await writer.leaf_proofs(tx, [3, 7], 7)
