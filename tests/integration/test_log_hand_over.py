"""A log goes on under its next key, and the former one is worth nothing to whoever has it (SPEC 2.11)."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from tests.conftest import FreshDatabase
from tests.support import authority as make
from tests.support.attacker import as_superuser

from strongroom import receipts
from strongroom.checkpoint_file import CheckpointFile, working_origin
from strongroom.crypto import tlog
from strongroom.crypto.notes import Checkpoint, sign_checkpoint
from strongroom.crypto.signing import SigningKey
from strongroom.database import Database, connect
from strongroom.errors import CheckpointInvalid, LogForked
from strongroom.fields import Capacity, new_id
from strongroom.follower import RecoveryLogFollower
from strongroom.leaves import RefusalLeaf
from strongroom.log_writer import LogName, LogWriter, Published
from strongroom.mandates import LogKey
from strongroom.registry import Registry
from strongroom_recovery.escrow_log import EscrowLog

FIRST, SECOND, THIRD = (make.signing_key(f"log {number}") for number in range(3))


def leaf(number: int) -> bytes:
    """Return a leaf of the recovery log that says nothing of importance."""
    return RefusalLeaf(
        time=make.NOW + number,
        id=new_id(),
        digest="0" * 64,
        requester="laptop-0417",
        requester_kind=Capacity.PRINCIPAL,
        code="denied",
    ).to_bytes()


def log_key(log: LogName, *keys: SigningKey) -> LogKey:
    """Return a log as a roster names it; the last key is the one in use."""
    *former, now = (key.public_key for key in keys)
    return LogKey(origin=f"{make.AUTHORITY}/{log}", public_key=now, former=former)


class Log:
    """One log of a database, and a thief who owns the database."""

    def __init__(self, log: LogName, database: FreshDatabase, pool: Database, folder: Path) -> None:
        self.log, self.database, self.pool, self.folder = log, database, pool, folder
        self.leaves: list[bytes] = []

    async def writer(self, *keys: SigningKey, name: str = "writer") -> LogWriter:
        """Start a writer with the last of these keys, that knows of the others."""
        named = log_key(self.log, *keys)
        file = self.folder / f"{name}.checkpoint"
        writer = LogWriter(self.log, named.origin, keys[-1], file, former=named.former)
        await writer.open(self.pool)
        return writer

    async def append(self, writer: LogWriter, count: int = 1) -> Published:
        """Let a writer append leaves."""
        fresh = [leaf(number) for number in range(count)]
        async with self.pool.transaction() as tx:
            await writer.lock(tx)
            appended = await writer.append(tx, fresh)
        self.leaves += fresh
        return await writer.committed(appended)

    async def forge(self, key: SigningKey, added: Sequence[bytes]) -> None:
        """Append leaves as the thief of a key does who writes to the tables by hand."""
        frontier, _ = tlog.append(tlog.Frontier.empty(), self.leaves)
        size = len(self.leaves)
        frontier, completed = tlog.append(frontier, added)
        checkpoint = Checkpoint(working_origin(f"{make.AUTHORITY}/{self.log}"), frontier.size, frontier.root())
        note = sign_checkpoint(checkpoint, key.sign, key.public_key)
        into = f"INSERT INTO {self.log}"
        rows = [f"{into}_leaves VALUES ({index}, '\\x{each.hex()}')" for index, each in enumerate(added, size)]
        for node, value in completed.items():
            found = f"({node.level}, {node.index}, '\\x{value.hex()}')"
            rows.append(f"{into}_nodes (level, index, hash) VALUES {found}")
        rows.append(f"{into}_checkpoints (size, note) VALUES ({frontier.size}, '{note}')")
        await as_superuser(self.database, *rows)


@pytest.fixture(params=LogName)
async def log(request: pytest.FixtureRequest, database: FreshDatabase, tmp_path: Path) -> AsyncIterator[Log]:
    async with connect(database.url(f"strongroom_{request.param}")) as pool:
        yield Log(request.param, database, pool, tmp_path)


@pytest.fixture
async def recovery_log(database: FreshDatabase, tmp_path: Path) -> AsyncIterator[Log]:
    async with connect(database.url("strongroom_recovery")) as pool:
        yield Log(LogName.RECOVERY, database, pool, tmp_path)


# ---- the writer ----


@pytest.mark.parametrize("has_file", [True, False], ids=["on its host", "on another host"])
async def test_a_writer_with_the_next_key_goes_on_and_signs_with_it(log: Log, has_file: bool) -> None:  # noqa: FBT001
    """Receipts of old and new leaves are by the key of now, and by no other."""
    first = await log.writer(FIRST)
    await log.append(first, 3)
    if not has_file:
        (log.folder / "writer.checkpoint").unlink()
    second = await log.writer(FIRST, SECOND)
    published = await log.append(second, 2)
    assert published.size == 5
    async with log.pool.reading() as tx:
        proofs = await second.leaf_proofs(tx, [0, 4], 5)
    for index, proof in proofs.items():
        document = published.receipt_of(proof).to_document()
        origin = f"{make.AUTHORITY}/{log.log}"
        assert receipts.verify(document, SECOND.public_key, origin).leaf == log.leaves[index]
        with pytest.raises(CheckpointInvalid):
            receipts.verify(document, FIRST.public_key, origin)
    third = await log.writer(FIRST, SECOND, THIRD)
    assert (await log.append(third)).size == 6


async def test_a_writer_does_not_go_on_from_a_key_that_is_not_named(log: Log) -> None:
    """Neither from the database nor from its own disk."""
    await log.append(await log.writer(FIRST), 3)
    with pytest.raises(LogForked):
        await log.writer(SECOND)
    with pytest.raises(LogForked, match="checkpoint of 3 leaves"):
        await log.writer(SECOND, name="elsewhere")


async def test_a_stolen_key_is_disowned_once_the_next_has_signed(log: Log) -> None:
    """From its first entry on the log needs the former key no more, at its head."""
    await log.append(await log.writer(FIRST), 3)
    await log.append(await log.writer(FIRST, SECOND))
    alone = await log.writer(SECOND)
    assert (await log.append(alone)).size == 5
    assert (await log.writer(SECOND, name="elsewhere")).size == 5


async def test_after_the_hand_over_a_writer_takes_nothing_by_the_former_key(log: Log) -> None:
    """Running, and started again: a history that the thief of the former key has written is refused."""
    await log.append(await log.writer(FIRST), 3)
    running = await log.writer(FIRST, SECOND)
    await log.append(running)
    await log.forge(FIRST, [leaf(9)])
    with pytest.raises(LogForked, match="signs no more"):
        await log.append(running)
    with pytest.raises(LogForked, match="signs no more"):
        await log.writer(FIRST, SECOND)


def test_a_checkpoint_file_does_not_go_back_to_a_former_key(tmp_path: Path) -> None:
    """Whatever was to be written there: it is what protects a host that is started again."""
    origin = f"{make.AUTHORITY}/escrow"
    file = CheckpointFile(tmp_path / "checkpoint", origin, SECOND.public_key, [FIRST.public_key])

    def note(key: SigningKey, size: int) -> str:
        return sign_checkpoint(Checkpoint(working_origin(origin), size, bytes(32)), key.sign, key.public_key)

    file.advance(note(FIRST, 3))
    file.advance(note(SECOND, 4))
    with pytest.raises(LogForked, match="signs no more"):
        file.advance(note(FIRST, 5))
    kept = file.read()
    assert kept is not None
    assert (kept.checkpoint.size, kept.key) == (4, SECOND.public_key)


# ---- readers ----


def follower(log: Log, *keys: SigningKey, name: str = "follower") -> RecoveryLogFollower:
    """Return a reader that knows these keys, the last being the one of now."""
    root = make.roster()
    registry = Registry(root.root_key, root)
    return RecoveryLogFollower(registry, log_key(log.log, *keys), log.folder / f"{name}.checkpoint")


async def advance(log: Log, reader: RecoveryLogFollower) -> int:
    """Let a reader follow the log; return how far it is."""
    async with log.pool.reading() as tx:
        await reader.advance(tx)
    return reader._registry.size


async def test_a_reader_follows_the_log_over_the_hand_over(recovery_log: Log) -> None:
    """Running, started again, and from the first leaf; one that was not told of the new key says what to do."""
    log = recovery_log
    old = follower(log, FIRST, name="old")
    await log.append(await log.writer(FIRST), 3)
    assert await advance(log, old) == 3
    running = follower(log, FIRST, SECOND)
    assert await advance(log, running) == 3
    await log.append(await log.writer(FIRST, SECOND), 2)
    assert await advance(log, running) == 5
    assert await advance(log, follower(log, FIRST, SECOND)) == 5
    assert await advance(log, follower(log, FIRST, SECOND, name="fresh")) == 5
    with pytest.raises(LogForked) as caught:
        await advance(log, old)
    assert "put the newest roster in the place of this worker's roster file" in str(caught.value.hint)


async def test_after_the_hand_over_a_reader_takes_nothing_by_the_former_key(recovery_log: Log) -> None:
    """A thief could else replay a revocation away; the first look at the new key's checkpoint ends his time."""
    log = recovery_log
    await log.append(await log.writer(FIRST), 3)
    running = follower(log, FIRST, SECOND)
    await advance(log, running)
    await log.append(await log.writer(FIRST, SECOND))
    await advance(log, running)
    await log.forge(FIRST, [leaf(9)])
    with pytest.raises(LogForked, match="signs no more"):
        await advance(log, running)
    assert running._registry.size == 4
    with pytest.raises(LogForked, match="signs no more"):
        await advance(log, follower(log, FIRST, SECOND))


async def test_the_escrow_logs_reader_goes_by_the_keys_of_each_roster(
    database: FreshDatabase, tmp_path: Path
) -> None:
    """It learns the new key while it runs, holds to it, and takes nothing by the former one afterwards."""
    async with (
        connect(database.url("strongroom_escrow")) as writing,
        connect(database.url("strongroom_recovery")) as reading,
    ):
        log = Log(LogName.ESCROW, database, writing, tmp_path)
        await log.append(await log.writer(FIRST), 3)
        reader = EscrowLog(log_key(log.log, FIRST), tmp_path / "reader.checkpoint")

        async def head() -> int:
            async with reading.reading() as tx:
                return (await reader.head(tx)).size

        assert await head() == 3
        await log.append(await log.writer(FIRST, SECOND))
        with pytest.raises(CheckpointInvalid):
            await head()
        reader.go_by(log_key(log.log, FIRST, SECOND))
        assert await head() == 4
        await log.forge(FIRST, [leaf(9)])
        with pytest.raises(LogForked, match="signs no more"):
            await head()
        reader = EscrowLog(log_key(log.log, FIRST, SECOND), tmp_path / "reader.checkpoint")
        with pytest.raises(LogForked, match="signs no more"):
            await head()
