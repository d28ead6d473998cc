"""Following the recovery log on a real PostgreSQL: who speaks for whom, whatever the tables say."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import UUID

import pytest
from tests.conftest import FreshDatabase
from tests.support import authority
from tests.support.attacker import as_superuser
from tests.support.authority import signing_key

from strongroom.checkpoint_file import working_origin
from strongroom.crypto import tlog
from strongroom.crypto.notes import Checkpoint, sign_checkpoint
from strongroom.database import Database, Transaction, connect
from strongroom.errors import LogForked, StateCorrupt
from strongroom.fields import Capacity, new_id
from strongroom.follower import RecoveryLogFollower
from strongroom.leaves import RefusalLeaf
from strongroom.log_writer import LogName, LogWriter
from strongroom.registry import Registry
from strongroom.statements import Statement

ROSTER = authority.roster()
LOG_KEY = ROSTER.body.logs.recovery
WORKING = working_origin(LOG_KEY.origin)
KEY = signing_key("recovery log")


class Follower(RecoveryLogFollower):
    """The follower under test, with its registry within reach."""

    def __init__(self, folder: Path, name: str = "follower") -> None:
        """Begin with a registry that knows the bootstrap roster alone."""
        self.registry = Registry(signing_key("root").public_key, ROSTER)
        super().__init__(self.registry, LOG_KEY, folder / f"{name}.checkpoint")


class RecoveryLog:
    """The recovery worker, as far as its log goes: statements and leaves go in together."""

    def __init__(self, database: Database, folder: Path) -> None:
        """Write with a checkpoint file of its own."""
        self.database = database
        self.writer = LogWriter(LogName.RECOVERY, LOG_KEY.origin, KEY, folder / "writer.checkpoint")

    async def add(self, *entries: tuple[bytes, Statement | None]) -> None:
        """Append (leaf, statement) pairs in one transaction."""
        async with self.database.transaction() as tx:
            await self.writer.lock(tx)
            appended = await self.writer.append(tx, [leaf for leaf, _ in entries])
            for index, (_, statement) in enumerate(entries, appended.first_index):
                if statement is not None:
                    await store(tx, statement, index)
        await self.writer.committed(appended)

    async def enrol(self, *principals: str) -> None:
        """Enrol each principal under the key of its name."""
        await self.add(*map(enrolment, principals))

    async def refuse(self, count: int) -> None:
        """Append leaves that say nothing about anybody's standing."""
        await self.add(*[(refusal(), None) for _ in range(count)])


async def store(tx: Transaction, statement: Statement, index: int) -> None:
    """Put a trust statement where followers look for it."""
    await tx.execute(
        "INSERT INTO trust_statements (digest, id, type, envelope, leaf_index) VALUES ($1, $2, $3, $4, $5)",
        statement.digest,
        UUID(int=index),
        statement.type,
        statement.envelope(),
        index,
    )


def enrolment(principal: str, key: str | None = None) -> tuple[bytes, Statement]:
    """The leaf and statement of an enrolment; with `key` one that replaces an earlier key."""
    invited = (
        authority.invitation(principal, replaces=True, officers=("officer-a", "officer-b"))
        if key
        else authority.invitation(principal)
    )
    statement = authority.enrolment(invited, principal, key=key)
    return authority.enrolment_leaf(statement), statement


def refusal() -> bytes:
    """A leaf that differs from every other."""
    return RefusalLeaf(
        time=authority.NOW,
        id=new_id(),
        digest="0" * 64,
        requester="laptop",
        requester_kind=Capacity.PRINCIPAL,
        code="denied",
    ).to_bytes()


def note(size: int, content: Sequence[bytes], origin: str = WORKING, key: str = "recovery log") -> str:
    """A working checkpoint over other leaves than those in the log."""
    signer = signing_key(key)
    root = tlog.append(tlog.Frontier.empty(), content)[0].root()
    return sign_checkpoint(Checkpoint(origin, size, root), signer.sign, signer.public_key)


async def advance(database: Database, follower: Follower) -> None:
    """Advance in a transaction of its own."""
    async with database.transaction() as tx:
        await follower.advance(tx)


async def verify(database: Database, follower: Follower, principal: str, key: str | None = None) -> str:
    """Judge a signature by `key` as a worker does for a message of this principal."""
    statement = authority.escrow(principal, key=key)
    async with database.transaction() as tx:
        await follower.advance(tx)
        await follower.admit(tx, [principal])
    return follower.registry.verify(statement, principal)


@pytest.fixture
async def pool(database: FreshDatabase) -> AsyncIterator[Database]:
    """The database as the recovery worker sees it."""
    async with connect(database.url("strongroom_recovery"), connections_max=8) as connected:
        yield connected


@pytest.fixture
async def log(pool: Database, tmp_path: Path) -> RecoveryLog:
    """A recovery log with a writer, still empty."""
    made = RecoveryLog(pool, tmp_path)
    await made.writer.open(pool)
    return made


# ---- following ----


async def test_an_empty_log_is_a_first_start(pool: Database, tmp_path: Path) -> None:
    """Without a log and without a file the bootstrap roster is in force and nobody is enrolled."""
    follower = Follower(tmp_path)
    await advance(pool, follower)
    assert follower.registry.roster is follower.registry.bootstrap
    assert not (tmp_path / "follower.checkpoint").exists()


@pytest.mark.parametrize("role", ["strongroom_escrow", "strongroom_recovery"])
async def test_what_was_logged_is_known_after_advance(
    database: FreshDatabase, log: RecoveryLog, tmp_path: Path, role: str
) -> None:
    """Rosters and enrolments are in force from the next `advance` on, for both workers' roles."""
    follower = Follower(tmp_path)
    async with connect(database.url(role)) as pool:
        await log.add((authority.roster_leaf(ROSTER), ROSTER.statement), enrolment("laptop-1"))
        assert await verify(pool, follower, "laptop-1") == signing_key("laptop-1").key_id
        newer = authority.next_roster(ROSTER)
        await log.add((authority.roster_leaf(newer), newer.statement))
        await log.enrol("laptop-2")
        assert await verify(pool, follower, "laptop-2") == signing_key("laptop-2").key_id
    assert follower.registry.roster.digest == newer.digest
    assert follower.registry.size == 4
    assert (tmp_path / "follower.checkpoint").read_text() == log.writer.working_note


async def test_replaced_keys_are_admitted_on_request(pool: Database, log: RecoveryLog, tmp_path: Path) -> None:
    """After a replacement the new key speaks; with `former` what the old one signed can be judged too."""
    follower = Follower(tmp_path)
    old = authority.escrow("laptop-1")
    await log.enrol("laptop-1")
    await log.add(enrolment("laptop-1", "new key"))
    assert await verify(pool, follower, "laptop-1", "new key") == signing_key("new key").key_id
    with pytest.raises(StateCorrupt, match="not admitted"):
        follower.registry.verify_former(old, "laptop-1", signing_key("laptop-1").key_id, authority.NOW)
    async with pool.transaction() as tx:
        await follower.admit(tx, ["laptop-1", "nobody"], former=True)
    assert follower.registry.verify_former(old, "laptop-1", signing_key("laptop-1").key_id, authority.NOW)


async def test_nothing_new_costs_one_query(pool: Database, log: RecoveryLog, tmp_path: Path) -> None:
    """Advancing without news asks for the newest checkpoint and nothing else, not even the file."""
    follower = Follower(tmp_path)
    await log.enrol("laptop-1")
    await verify(pool, follower, "laptop-1")
    (tmp_path / "follower.checkpoint").unlink()
    queries = []

    class Counting(Transaction):
        async def _ask(self, method, query, *args):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002, ANN202
            queries.append(query)
            return await super()._ask(method, query, *args)

    async with pool.transaction() as tx:
        tx.__class__ = Counting
        await follower.advance(tx)
        await follower.admit(tx, ["laptop-1"])
    assert len(queries) == 1
    assert not (tmp_path / "follower.checkpoint").exists()


async def test_long_ways_are_read_in_pages(
    pool: Database, log: RecoveryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small transactions and some beyond a page: whatever the page, the registry ends up the same."""
    for count in (1, 1, 2, 9, 1, 30, 1, 1):
        await log.refuse(count)
    await log.enrol("laptop-1")
    for page in (1, 2, 3, 7, 46, 47, 48, 1000):
        monkeypatch.setattr("strongroom.follower.PAGE_LEAVES", page)
        follower = Follower(tmp_path, f"page-{page}")
        assert await verify(pool, follower, "laptop-1") == signing_key("laptop-1").key_id
        assert follower.registry.size == 47


async def test_a_restart_goes_by_the_checkpoint_on_disk(
    pool: Database, log: RecoveryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new process replays the log past the checkpoint that the old one kept, in pages that do not end there."""
    monkeypatch.setattr("strongroom.follower.PAGE_LEAVES", 4)
    await log.refuse(5)
    await advance(pool, Follower(tmp_path))
    await log.refuse(6)
    await log.enrol("laptop-1")
    follower = Follower(tmp_path)
    await verify(pool, follower, "laptop-1")
    assert follower.registry.size == 12


async def test_leaves_that_are_not_committed_are_not_seen(pool: Database, log: RecoveryLog, tmp_path: Path) -> None:
    """While the writer's transaction is open a follower sees the log without it."""
    follower = Follower(tmp_path)
    await log.refuse(2)
    async with pool.transaction() as tx:
        await log.writer.lock(tx)
        await log.writer.append(tx, [refusal()])
        await advance(pool, follower)
        assert follower.registry.size == 2
    await advance(pool, follower)
    assert follower.registry.size == 3


async def test_a_transaction_may_follow_and_write_the_same_log(
    pool: Database, log: RecoveryLog, tmp_path: Path
) -> None:
    """The recovery worker's order: lock, advance, decide, append; a rollback, and then the same again."""
    follower = Follower(tmp_path)
    await log.refuse(1)
    leaf, statement = enrolment("laptop-1")
    with pytest.raises(ZeroDivisionError):
        async with pool.transaction() as tx:
            await log.writer.lock(tx)
            await follower.advance(tx)
            await log.writer.append(tx, [leaf])
            raise ZeroDivisionError
    async with pool.transaction() as tx:
        await log.writer.lock(tx)
        await follower.advance(tx)
        assert not follower.registry.is_enrolled("laptop-1")
        appended = await log.writer.append(tx, [leaf])
        await store(tx, statement, appended.first_index)
        with pytest.raises(RuntimeError, match="does not see"):
            await follower.advance(tx)
    await log.writer.committed(appended)
    assert await verify(pool, follower, "laptop-1") == signing_key("laptop-1").key_id


async def test_a_reading_transaction_advances_first_or_not_at_all(
    pool: Database, log: RecoveryLog, tmp_path: Path
) -> None:
    """A snapshot taken earlier may be older than what is known; taking it for a rollback would be a false alarm."""
    follower = Follower(tmp_path)
    await log.refuse(1)
    async with pool.reading() as reading:
        await follower.advance(reading)
        await log.refuse(1)
        await advance(pool, follower)
        with pytest.raises(RuntimeError, match="does not see"):
            await follower.advance(reading)
    assert follower.registry.size == 2


async def test_transactions_side_by_side_share_one_follower(
    pool: Database, log: RecoveryLog, tmp_path: Path
) -> None:
    """Many advances at once, while the log grows: each leaf is applied once, and no false alarm is raised."""
    follower = Follower(tmp_path)

    async def follow(number: int) -> None:
        for _ in range(5):
            async with pool.reading() if number % 2 else pool.transaction() as tx:
                await follower.advance(tx)

    async def write() -> None:
        for _ in range(10):
            await log.refuse(3)

    await asyncio.gather(write(), *map(follow, range(6)))
    await advance(pool, follower)
    assert follower.registry.size == 30


async def test_the_registry_must_be_new(tmp_path: Path) -> None:
    """A registry that has seen leaves would get them twice."""
    with pytest.raises(ValueError, match="already"):
        RecoveryLogFollower(authority.registry("laptop-1"), LOG_KEY, tmp_path / "checkpoint")


# ---- statements that the log names ----


STATEMENTS: dict[str, tuple[str, str]] = {
    "deleted": ("DELETE FROM trust_statements WHERE leaf_index = {index}", "its statement is missing"),
    "damaged": (
        "UPDATE trust_statements SET envelope = 'no envelope' WHERE leaf_index = {index}",
        "its statement is damaged",
    ),
    "another": (
        """UPDATE trust_statements AS a SET envelope = b.envelope FROM trust_statements AS b
        WHERE a.leaf_index = {index} AND b.leaf_index <> a.leaf_index""",
        "is another one",
    ),
}


@pytest.mark.parametrize("case", STATEMENTS)
async def test_an_enrolment_without_its_statement_is_corrupt(
    pool: Database, database: FreshDatabase, log: RecoveryLog, tmp_path: Path, case: str
) -> None:
    """A missing, damaged or exchanged enrolment stops the worker, names the principal, and blames no message."""
    command, said = STATEMENTS[case]
    follower = Follower(tmp_path)
    await log.enrol("laptop-1", "laptop-2")
    await as_superuser(database, command.format(index=1))
    assert await verify(pool, follower, "laptop-1")
    with pytest.raises(StateCorrupt, match=f"^enrolment of laptop-2: .*{said}"):
        await verify(pool, follower, "laptop-2")


@pytest.mark.parametrize("case", STATEMENTS)
async def test_a_roster_without_its_statement_is_corrupt(
    pool: Database, database: FreshDatabase, log: RecoveryLog, tmp_path: Path, case: str
) -> None:
    """The same for a roster, at every `advance` until it is mended; then work goes on."""
    command, said = STATEMENTS[case]
    follower = Follower(tmp_path)
    await log.add(enrolment("laptop-1"), (authority.roster_leaf(ROSTER), ROSTER.statement))
    await as_superuser(database, command.format(index=1))
    for _ in range(2):
        with pytest.raises(StateCorrupt, match=f"^roster with digest {ROSTER.digest.hex()}: .*{said}"):
            await advance(pool, follower)
    await as_superuser(database, "DELETE FROM trust_statements WHERE leaf_index = 1")
    async with pool.transaction() as tx:
        await store(tx, ROSTER.statement, 1)
    await advance(pool, follower)
    assert follower.registry.roster.digest == ROSTER.digest


async def test_a_logged_roster_that_root_did_not_sign_is_corrupt(
    pool: Database, log: RecoveryLog, tmp_path: Path
) -> None:
    """Even under a valid checkpoint a roster counts only with the root key's signature."""
    forged = authority.signed(authority.roster_body(), signing_key("thief"))
    await log.add((authority.roster_leaf(ROSTER), forged))
    assert forged.digest == ROSTER.digest
    with pytest.raises(StateCorrupt, match="the pinned root key did not sign it"):
        await advance(pool, Follower(tmp_path))


async def test_a_logged_enrolment_that_no_officer_allowed_is_corrupt(
    pool: Database, log: RecoveryLog, tmp_path: Path
) -> None:
    """Even under a valid checkpoint an enrolment counts only with an officer's invitation."""
    invited = authority.invitation("laptop-1", officers=("thief",))
    statement = authority.enrolment(invited, "laptop-1")
    await log.add((authority.enrolment_leaf(statement), statement))
    with pytest.raises(StateCorrupt, match=r"^enrolment of laptop-1: .*signed by 0 officers"):
        await verify(pool, Follower(tmp_path), "laptop-1")


# ---- an enemy who owns the database ----

BACK_TO_THREE = (
    "DELETE FROM recovery_leaves WHERE index >= 3",
    "DELETE FROM recovery_nodes WHERE (index + 1) << level > 3",
    "DELETE FROM recovery_checkpoints WHERE size > 3",
)


def _set_note(size: int, text: str) -> str:
    return f"UPDATE recovery_checkpoints SET note = '{text}' WHERE size = {size}"  # noqa: S608


OTHERS = [b"other %d" % number for number in range(20)]

# A follower has seen the first 3 leaves (checkpoint 3) when the attack comes; there are 8 (checkpoints 3, 6, 8).
UNSEEN: dict[str, tuple[tuple[str, ...], str]] = {
    "unseen leaf edited": (
        ("UPDATE recovery_leaves SET leaf = leaf || ' ' WHERE index = 4",),
        "leaf 4 is not the one that was signed",
    ),
    "unseen leaf and its hash edited": (
        (
            "UPDATE recovery_leaves SET leaf = 'x' WHERE index = 4",
            r"UPDATE recovery_nodes SET hash = sha256('\x0078') WHERE level = 0 AND index = 4",
        ),
        "leaves 3 to 7 are not those that were signed",
    ),
    "unseen leaf deleted": (("DELETE FROM recovery_leaves WHERE index = 4",), "leaf 4 is missing"),
    "newest leaf deleted": (("DELETE FROM recovery_leaves WHERE index = 7",), "leaf 7 is missing"),
    "unseen leaves swapped": (
        (
            """UPDATE recovery_leaves AS a SET leaf = b.leaf FROM recovery_leaves AS b
            WHERE (a.index, b.index) IN ((4, 5), (5, 4))""",
        ),
        "leaf 4 is not the one that was signed",
    ),
    "checkpoint of another key": ((_set_note(8, note(8, OTHERS[:8], key="thief")),), "the checkpoint of 8 leaves"),
    "checkpoint of another log": (
        (_set_note(8, note(8, OTHERS[:8], origin=working_origin(ROSTER.body.logs.escrow.origin))),),
        "the checkpoint of 8 leaves",
    ),
    "checkpoint for everybody": (
        (_set_note(8, note(8, OTHERS[:8], origin=LOG_KEY.origin)),),
        "the checkpoint of 8 leaves: the note carries no signature",
    ),
    "checkpoint of another size": ((_set_note(8, note(9, OTHERS[:9])),), "checkpoint of 8 leaves is one of 9"),
    "checkpoint damaged": (("UPDATE recovery_checkpoints SET note = ''",), "the checkpoint of 8 leaves"),
    "all checkpoints deleted": (("DELETE FROM recovery_checkpoints",), "checkpoints are gone; 3 were seen"),
    "other history, signed by the log": ((_set_note(8, note(8, OTHERS[:8])),), "leaves 3 to 7 are not those"),
}


@pytest.mark.parametrize("case", UNSEEN)
@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
async def test_an_attack_on_the_unseen_part_is_found(
    pool: Database, database: FreshDatabase, log: RecoveryLog, tmp_path: Path, case: str, *, is_restarted: bool
) -> None:
    """Edited or missing leaves and false checkpoints ahead of what is known: LogForked, naming log and place."""
    commands, place = UNSEEN[case]
    follower = Follower(tmp_path)
    await log.refuse(3)
    await advance(pool, follower)
    await log.refuse(3)
    await log.refuse(2)
    await as_superuser(database, *commands)
    if is_restarted:
        follower = Follower(tmp_path)
        place = place.replace("leaves 3 to 7", "leaves 0 to 7")
    with pytest.raises(LogForked, match=f"^recovery log: .*{place}"):
        await advance(pool, follower)
    assert follower.registry.size == (0 if is_restarted else 3)


SEEN: dict[str, tuple[tuple[str, ...], str]] = {
    "older state restored": (BACK_TO_THREE, "went back to 3 leaves; 8 were seen before"),
    "newest checkpoints deleted": (
        ("DELETE FROM recovery_checkpoints WHERE size > 3",),
        "went back to 3 leaves; 8 were seen before",
    ),
    "everything deleted": (
        (
            "DELETE FROM recovery_leaves",
            "DELETE FROM recovery_nodes",
            "DELETE FROM recovery_checkpoints",
            "DELETE FROM trust_statements",
        ),
        "the checkpoints are gone; 8 were seen before",
    ),
    "checkpoint of the same size over others": (
        (_set_note(8, note(8, OTHERS[:8])),),
        "the 8 leaves have another root than before|leaves 0 to 7 are not those|the 8 leaves are not those",
    ),
}


@pytest.mark.parametrize("case", SEEN)
@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
async def test_an_attack_on_the_seen_part_is_found(
    pool: Database, database: FreshDatabase, log: RecoveryLog, tmp_path: Path, case: str, *, is_restarted: bool
) -> None:
    """Undoing what was seen, such as a replacement, by restoring an older database: LogForked, restart or not."""
    commands, place = SEEN[case]
    follower = Follower(tmp_path)
    await log.refuse(3)
    await log.enrol("laptop-1", "laptop-2")
    await log.refuse(3)
    await advance(pool, follower)
    await as_superuser(database, *commands)
    if is_restarted:
        follower = Follower(tmp_path)
    with pytest.raises(LogForked, match=f"^recovery log: .*({place})"):
        await advance(pool, follower)


async def test_a_second_history_by_the_same_key_is_found(
    pool: Database, database: FreshDatabase, log: RecoveryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database is set back and a worker without a memory writes on: whoever saw the first history refuses."""
    running = Follower(tmp_path)
    await log.refuse(3)
    await log.refuse(5)
    await advance(pool, running)
    await as_superuser(database, *BACK_TO_THREE)
    (tmp_path / "writer.checkpoint").unlink()
    forgetful = RecoveryLog(pool, tmp_path)
    await forgetful.writer.open(pool)
    await forgetful.refuse(4)
    await forgetful.refuse(4)
    with pytest.raises(LogForked, match="leaves 8 to 10 are not those that were signed"):
        await advance(pool, running)
    for page in (1, 2, 3, 2000):
        monkeypatch.setattr("strongroom.follower.PAGE_LEAVES", page)
        restarted = Follower(tmp_path)
        with pytest.raises(LogForked, match="the 8 leaves are not those that were seen before"):
            await advance(pool, restarted)


async def test_a_false_checkpoint_on_the_way_is_found(
    pool: Database, database: FreshDatabase, log: RecoveryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a long way the checkpoints in between are checked as the newest is."""
    monkeypatch.setattr("strongroom.follower.PAGE_LEAVES", 4)
    for _ in range(4):
        await log.refuse(3)
    await as_superuser(database, _set_note(6, note(6, OTHERS[:6])))
    follower = Follower(tmp_path)
    with pytest.raises(LogForked, match="leaves 3 to 5 are not those that were signed"):
        await advance(pool, follower)
    assert follower.registry.size == 3


async def test_a_checkpoint_on_the_way_by_a_key_that_is_not_named_counts_for_nothing(
    pool: Database, database: FreshDatabase, log: RecoveryLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a stolen log key its checkpoints stand in the database for ever: the head covers what is under them."""
    monkeypatch.setattr("strongroom.follower.PAGE_LEAVES", 4)
    for _ in range(4):
        await log.refuse(3)
    await as_superuser(database, _set_note(6, note(6, OTHERS[:6], key="thief")))
    follower = Follower(tmp_path)
    await advance(pool, follower)
    assert follower.registry.size == 12


async def test_leaves_of_the_other_log_are_refused(pool: Database, log: RecoveryLog, tmp_path: Path) -> None:
    """A signed leaf that makes no sense in this log stops the worker and names its index."""
    await log.refuse(1)
    await log.add((b'{"time":1,"type":"roster","version":0}', None))
    with pytest.raises(LogForked, match="recovery log: leaf 1"):
        await advance(pool, Follower(tmp_path))


async def test_a_foreign_checkpoint_file_is_a_fork(pool: Database, tmp_path: Path) -> None:
    """A file that another log key signed does not belong to this log."""
    (tmp_path / "follower.checkpoint").write_text(note(1, OTHERS[:1], key="thief"))
    with pytest.raises(LogForked, match=r"follower\.checkpoint"):
        await advance(pool, Follower(tmp_path))


async def test_a_damaged_checkpoint_file_is_not_a_first_start(pool: Database, tmp_path: Path) -> None:
    """A file that holds no checkpoint stops the worker."""
    (tmp_path / "follower.checkpoint").write_text("half a check")
    with pytest.raises(StateCorrupt, match="damaged"):
        await advance(pool, Follower(tmp_path))


async def test_a_checkpoint_that_cannot_be_kept_is_written_at_the_next_advance(
    pool: Database, log: RecoveryLog, tmp_path: Path
) -> None:
    """The file is not forgotten when writing it failed once, although nothing new was logged since."""
    folder = tmp_path / "state"
    follower = Follower(folder)
    await log.refuse(1)
    with pytest.raises(StateCorrupt, match="cannot be written"):
        await advance(pool, follower)
    folder.mkdir()
    await advance(pool, follower)
    assert (folder / "follower.checkpoint").read_text() == log.writer.working_note
