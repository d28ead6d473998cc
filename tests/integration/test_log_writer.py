"""Appending to a log on a real PostgreSQL: by turns, through failures, and with an enemy who owns the database."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from deploy.local.postgres import PrivatePostgres
from tests.conftest import FreshDatabase
from tests.support.attacker import as_superuser
from tests.support.authority import AUTHORITY, signing_key
from tests.support.relay import Relay

from strongroom import receipts
from strongroom.crypto import tlog
from strongroom.crypto.notes import Checkpoint, sign_checkpoint, verify_checkpoint
from strongroom.database import Database, connect
from strongroom.errors import CommitUnknown, DatabaseUnavailable, LimitExceeded, LogForked, StateCorrupt
from strongroom.limits import LEAF_BYTES_MAX
from strongroom.log_writer import Appended, LogName, LogWriter
from strongroom.migrations import migrate
from strongroom.receipts import Receipt

ORIGIN = f"{AUTHORITY}/escrow"
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


async def append(database: Database, writer: LogWriter, content: Sequence[bytes]) -> Appended:
    """The whole way of leaves into the log."""
    async with database.transaction() as tx:
        await writer.lock(tx)
        appended = await writer.append(tx, content)
    await writer.committed(appended)
    return appended


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
        assert verify_checkpoint(head["note"], ORIGIN, KEY.public_key) == Checkpoint(
            ORIGIN, len(rows), root(content)
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
        appended = await append(connected, writer, [b"leaf"])
    verified = receipts.verify(appended.receipt(0).to_document(), key.public_key, f"{AUTHORITY}/{log}")
    assert verified.leaf == b"leaf"


async def test_appended_leaves_are_proven_at_once(pool: Database, database: FreshDatabase, tmp_path: Path) -> None:
    """Batches of many sizes: every fresh leaf has a receipt that verifies, and the rows make up the signed tree."""
    writer = await opened(pool, tmp_path)
    first = 0
    for count in (1, 1, 2, 3, 5, 8, 13, 1, 64, 7):
        appended = await append(pool, writer, leaves(first, first + count))
        assert (appended.first_index, appended.size, writer.size) == (first, first + count, first + count)
        for index in range(first, first + count):
            check_receipt(appended.receipt(index), b"leaf %d" % index, index, first + count)
        first += count
    assert await stored_leaves(database) == leaves(0, first)


async def test_older_leaves_are_proven_in_any_later_tree(pool: Database, tmp_path: Path) -> None:
    """A receipt can be had for every leaf in every tree that has a checkpoint; fresh ones are equal to these."""
    writer = await opened(pool, tmp_path)
    batches = [await append(pool, writer, leaves(first, first + 3)) for first in range(0, 21, 3)]
    async with pool.reading() as tx:
        for batch in batches:
            again = await writer.receipts(tx, range(batch.size), batch.size)
            assert again.keys() == set(range(batch.size))
            for index, receipt in again.items():
                check_receipt(receipt, b"leaf %d" % index, index, batch.size)
            for index in range(batch.first_index, batch.size):
                assert batch.receipt(index) == again[index]
            assert await writer.receipts(tx, [0], batch.size, batch.checkpoint_note) == {0: again[0]}
        assert await writer.receipts(tx, [], 21) == {}


async def test_older_leaves_are_proven_in_the_tree_that_is_being_appended(pool: Database, tmp_path: Path) -> None:
    """Inside the transaction, before COMMIT: old leaves and old sizes are proven against the new checkpoint."""
    writer = await opened(pool, tmp_path)
    await append(pool, writer, leaves(0, 5))
    async with pool.transaction() as tx:
        await writer.lock(tx)
        appended = await writer.append(tx, leaves(5, 9))
        old = await writer.receipts(tx, [4, 0], appended.size, appended.checkpoint_note)
        assert old == await writer.receipts(tx, [0, 4], appended.size)
        proofs = await writer.consistency(tx, [5], appended.size)
    check_receipt(old[4], b"leaf 4", 4, 9)
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
    """Before the first leaf: no size, no checkpoint, and the empty tree is consistent with itself alone."""
    writer = await opened(pool, tmp_path)
    assert (writer.size, writer.checkpoint_note) == (0, None)
    async with pool.reading() as tx:
        assert await writer.consistency(tx, [0, 1], 0) == {0: []}
    assert not (tmp_path / "a.checkpoint").exists()


async def test_appending_nothing_writes_nothing(pool: Database, database: FreshDatabase, tmp_path: Path) -> None:
    """Without leaves the head comes back, and no second checkpoint is made of it."""
    writer = await opened(pool, tmp_path)
    assert (await append(pool, writer, [])).size == 0
    before = await append(pool, writer, leaves(0, 2))
    nothing = await append(pool, writer, [])
    assert (nothing.first_index, nothing.size, nothing.checkpoint_note) == (2, 2, before.checkpoint_note)
    assert await stored_leaves(database) == leaves(0, 2)
    with pytest.raises(IndexError):
        nothing.receipt(1)


async def test_a_leaf_has_a_limit(pool: Database, tmp_path: Path) -> None:
    """The longest leaf is taken, a byte more is LimitExceeded and nothing is stored."""
    writer = await opened(pool, tmp_path)
    await append(pool, writer, [b"x" * LEAF_BYTES_MAX])
    with pytest.raises(LimitExceeded, match="65535 bytes"):
        await append(pool, writer, [b"x" * (LEAF_BYTES_MAX + 1)])
    assert (await append(pool, writer, [b"y"])).first_index == 1


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
    before = (writer.size, writer.checkpoint_note, (tmp_path / "a.checkpoint").read_text())
    with pytest.raises(ZeroDivisionError):
        async with pool.transaction() as tx:
            await writer.lock(tx)
            assert (await writer.append(tx, [b"never"])).first_index == 3
            raise ZeroDivisionError
    assert (writer.size, writer.checkpoint_note, (tmp_path / "a.checkpoint").read_text()) == before
    assert await stored_leaves(database) == leaves(0, 3)
    check_receipt((await append(pool, writer, [b"leaf 3"])).receipt(3), b"leaf 3", 3, 4)
    assert await stored_leaves(database) == leaves(0, 4)


# ---- several writers ----


async def test_two_writers_continue_each_other(pool: Database, database: FreshDatabase, tmp_path: Path) -> None:
    """Writers that append by turns, and not strictly so, find each other's leaves and prove them."""
    writers = {"a": await opened(pool, tmp_path, "a"), "b": await opened(pool, tmp_path, "b")}
    for number, name in enumerate("abbabaaabbbbab"):
        appended = await append(pool, writers[name], [b"leaf %d" % number])
        check_receipt(appended.receipt(number), b"leaf %d" % number, number, number + 1)
    assert await stored_leaves(database) == leaves(0, 14)
    async with pool.transaction() as tx:
        await writers["a"].lock(tx)
        assert len(await writers["a"].receipts(tx, range(14), 14)) == 14


async def test_writers_at_the_same_time_make_one_log(
    pool: Database, database: FreshDatabase, tmp_path: Path
) -> None:
    """Three processes' worth of writers, each with transactions side by side, some of which fail at the end.

    Every leaf that was committed is in the log once, none that was rolled back is, and each receipt verifies.
    """
    writers = [await opened(pool, tmp_path, name) for name in "abc"]

    async def one(number: int) -> tuple[bytes, Appended] | None:
        writer, leaf = writers[number % 3], b"leaf %d" % number
        with suppress(ZeroDivisionError):
            async with pool.transaction() as tx:
                await writer.lock(tx)
                appended = await writer.append(tx, [leaf, leaf])
                _ = 1 // (number % 7)
            await writer.committed(appended)
            return leaf, appended
        return None

    results = [result for result in await asyncio.gather(*map(one, range(60))) if result is not None]
    assert len(results) == 60 - 9
    content = await stored_leaves(database)
    assert sorted(content) == sorted(leaf for leaf, _ in results for _ in range(2))
    for leaf, appended in results:
        check_receipt(appended.receipt(appended.first_index), leaf, appended.first_index, appended.size)
        assert content[appended.first_index] == leaf
    for name in "abc":
        kept = verify_checkpoint((tmp_path / f"{name}.checkpoint").read_text(), ORIGIN, KEY.public_key)
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
    await writer.committed(first)
    assert (second.first_index, writer.size) == (3, 5)
    assert (tmp_path / "a.checkpoint").read_text() == second.checkpoint_note
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
    """The file changes with `committed`, to the very note of the receipts; no temporary file is left."""
    writer = await opened(pool, tmp_path)
    async with pool.transaction() as tx:
        await writer.lock(tx)
        appended = await writer.append(tx, leaves(0, 3))
    assert not (tmp_path / "a.checkpoint").exists()
    await writer.committed(appended)
    assert os.listdir(tmp_path) == ["a.checkpoint"]  # noqa: PTH208
    assert (tmp_path / "a.checkpoint").read_text() == appended.checkpoint_note


async def test_a_restarted_writer_goes_on(pool: Database, database: FreshDatabase, tmp_path: Path) -> None:
    """With its file, with an older file, or with none: the head is found and kept."""
    writer = await opened(pool, tmp_path)
    await append(pool, writer, leaves(0, 3))
    older = (tmp_path / "a.checkpoint").read_text()
    newest = (await append(pool, writer, leaves(3, 7))).checkpoint_note
    (tmp_path / "old.checkpoint").write_text(older)
    for name in ("a", "old", "new"):
        writer = await opened(pool, tmp_path, name)
        assert writer.size == 7
        assert (tmp_path / f"{name}.checkpoint").read_text() == newest
    assert (await append(pool, writer, [b"leaf 7"])).first_index == 7
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


@pytest.mark.parametrize(("origin", "key"), [(ORIGIN, "another key"), (f"{AUTHORITY}/recovery", "escrow log")])
async def test_a_foreign_checkpoint_file_is_a_fork(pool: Database, tmp_path: Path, origin: str, key: str) -> None:
    """A file with another key's or another log's checkpoint does not belong to this log."""
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
        appended = await append(pool, writer, leaves(size, 9))
        check_receipt(appended.receipt(8), b"leaf 8", 8, 9)
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
        assert (await append(pool, writer, leaves(3, 5))).first_index == 3
    assert await stored_leaves(own_postgres) == leaves(0, 5)


# ---- an enemy who owns the database ----


def _note(origin: str, size: int, content: Sequence[bytes], key: str = "escrow log") -> str:
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
        (_set_note(7, _note(ORIGIN, 7, leaves(0, 7), "thief")),),
        "checkpoint of 7 leaves",
    ),
    "checkpoint of another log": (
        (_set_note(7, _note(f"{AUTHORITY}/recovery", 7, leaves(0, 7))),),
        "checkpoint of 7 leaves",
    ),
    "checkpoint cut off": (("UPDATE escrow_checkpoints SET note = left(note, 60)",), "checkpoint of 7 leaves"),
    "checkpoint of another size": ((_set_note(7, _note(ORIGIN, 4, leaves(0, 4))),), "is one of 4"),
    "other leaves, signed by the log": (
        (_set_note(7, _note(ORIGIN, 7, leaves(10, 17))),),
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
    #                  what the superuser does, what a receipt says, what a consistency proof says
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
    "checkpoint edited": (_set_note(7, _note(ORIGIN, 7, leaves(10, 17))), "leaf 2", "between 3 and 7"),
    "checkpoint deleted": (
        "DELETE FROM escrow_checkpoints WHERE size = 7",
        "checkpoint of 7 leaves is missing",
        "checkpoint of 7 leaves is missing",
    ),
    "checkpoint replaced": (_set_note(7, _note(ORIGIN, 4, leaves(0, 4))), "is one of 4", "is one of 4"),
}


@pytest.mark.parametrize("case", PROOFS)
async def test_no_proof_is_handed_out_that_does_not_hold(
    pool: Database, database: FreshDatabase, tmp_path: Path, case: str
) -> None:
    """An edited or missing leaf, node or checkpoint is found before a receipt or proof with it leaves."""
    command, in_receipt, in_consistency = PROOFS[case]
    writer = await opened(pool, tmp_path)
    await append(pool, writer, leaves(0, 7))
    await append(pool, writer, leaves(7, 12))
    await as_superuser(database, command)
    async with pool.reading() as tx:
        with pytest.raises(LogForked, match=f"^escrow log: .*{in_receipt}"):
            await writer.receipts(tx, [2], 7)
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
            await writer.receipts(tx, [3, 7], 7)
