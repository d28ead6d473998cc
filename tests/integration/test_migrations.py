"""Applying migrations to a real PostgreSQL, and finding fault with a database."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest
from deploy.local.postgres import PrivatePostgres
from tests.conftest import FreshDatabase
from tests.support.attacker import as_superuser, ask_superuser

from strongroom.database import connect
from strongroom.errors import Busy, SchemaMismatch
from strongroom.migrations import check, migrate
from strongroom.schema import Migration, shipped_migrations

OWNER = "strongroom_owner"
TABLES = """SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"""


@pytest.fixture
def shipped() -> tuple[Migration, ...]:
    return shipped_migrations()


@pytest.fixture
def later(shipped: tuple[Migration, ...]) -> Migration:
    """A migration that this program does not ship."""
    return Migration(len(shipped) + 1, "later", "CREATE TABLE later (id integer); CREATE TABLE more (id integer);")


@pytest.fixture
def empty(postgres: PrivatePostgres, database: FreshDatabase) -> FreshDatabase:
    """A database that nothing was applied to."""
    postgres.drop_database(database.name)
    postgres.create_database(database.name)
    return database


async def test_an_empty_database_gets_every_migration_once(
    empty: FreshDatabase, shipped: tuple[Migration, ...]
) -> None:
    """The first run applies all, in order, and the second nothing; then the schema is the program's."""
    assert await migrate(empty.url(OWNER)) == list(shipped)
    assert await migrate(empty.url(OWNER)) == []
    async with connect(empty.url(OWNER)) as opened:
        await opened.check_schema()
    assert await check(empty.url(OWNER)) == []


async def test_a_later_migration_is_added_to_a_migrated_database(
    database: FreshDatabase, shipped: tuple[Migration, ...], later: Migration
) -> None:
    """Only what is missing is applied, statement after statement, and recorded with its digest."""
    assert await migrate(database.url(OWNER), migrations=[*shipped, later]) == [later]
    assert "later" in str(await ask_superuser(database, TABLES))
    stored = await ask_superuser(database, "SELECT digest FROM schema_migrations WHERE version = $1", later.version)
    assert stored == later.digest


async def test_runs_at_the_same_time_apply_each_migration_once(
    empty: FreshDatabase, shipped: tuple[Migration, ...], later: Migration
) -> None:
    """Four runs at once: together they apply each migration exactly once, and none fails."""
    runs = [migrate(empty.url(OWNER), migrations=[*shipped, later]) for _ in range(4)]
    applied = [step for done in await asyncio.gather(*runs) for step in done]
    assert sorted(step.version for step in applied) == [step.version for step in [*shipped, later]]


async def test_a_migration_that_fails_leaves_nothing_behind(
    database: FreshDatabase, shipped: tuple[Migration, ...], later: Migration
) -> None:
    """When the second statement of a migration fails, the first is undone and the migration is not recorded."""
    broken = replace(later, sql="CREATE TABLE later (id integer); SELECT * FROM nowhere;")
    with pytest.raises(SchemaMismatch, match="nowhere"):
        await migrate(database.url(OWNER), migrations=[*shipped, broken])
    assert "later" not in str(await ask_superuser(database, TABLES))
    assert await ask_superuser(database, "SELECT max(version) FROM schema_migrations") == len(shipped)


async def test_an_edited_migration_is_refused(database: FreshDatabase, shipped: tuple[Migration, ...]) -> None:
    """A migration whose SQL is not what was applied stops everything, named."""
    edited = replace(shipped[0], sql=shipped[0].sql + "\n-- a harmless comment\n")
    with pytest.raises(SchemaMismatch, match="0001_initial is not the one that was applied"):
        await migrate(database.url(OWNER), migrations=[edited, *shipped[1:]])
    assert "is not the one" in (await check(database.url(OWNER), migrations=[edited, *shipped[1:]]))[0]


async def test_a_newer_database_is_refused(
    database: FreshDatabase, shipped: tuple[Migration, ...], later: Migration
) -> None:
    """A program does not touch a database that a later one has migrated."""
    await migrate(database.url(OWNER), migrations=[*shipped, later])
    with pytest.raises(SchemaMismatch, match="newer than this program"):
        await migrate(database.url(OWNER))
    assert "newer than this program" in (await check(database.url(OWNER)))[0]


async def test_a_gap_in_what_was_applied_is_refused(
    database: FreshDatabase, shipped: tuple[Migration, ...], later: Migration
) -> None:
    """A register without one of its first rows is not built upon."""
    await migrate(database.url(OWNER), migrations=[*shipped, later])
    await as_superuser(database, "DELETE FROM schema_migrations WHERE version = 1")
    with pytest.raises(SchemaMismatch, match="lacks migration 1"):
        await migrate(database.url(OWNER), migrations=[*shipped, later])


async def test_a_migration_does_not_wait_for_ever(
    database: FreshDatabase,
    shipped: tuple[Migration, ...],
    later: Migration,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A transaction that holds a table makes the migration Busy instead of blocking everybody behind it."""
    monkeypatch.setattr("strongroom.migrations.LOCK_SECONDS_MAX", 0.1)
    step = replace(later, sql="ALTER TABLE requests ADD COLUMN later integer")
    async with connect(database.url("strongroom_recovery")) as opened, opened.reading() as tx:
        await tx.fetch("SELECT id FROM requests")
        with pytest.raises(Busy):
            await migrate(database.url(OWNER), migrations=[*shipped, step])
    assert await migrate(database.url(OWNER), migrations=[*shipped, step]) == [step]


async def test_a_server_without_the_roles_is_refused(own_postgres: PrivatePostgres) -> None:
    """Without the roles that the grants name, nothing is applied and the missing ones are named."""
    connection = await asyncpg.connect(own_postgres.administrator_url("strongroom"))
    try:
        await connection.execute("DROP OWNED BY strongroom_auditor; DROP ROLE strongroom_auditor")
    finally:
        await connection.close()
    with pytest.raises(SchemaMismatch, match="strongroom_auditor") as caught:
        await migrate(own_postgres.url(OWNER))
    assert "roles.sql" in str(caught.value.hint)


async def test_a_worker_role_cannot_migrate(empty: FreshDatabase) -> None:
    """Migrations are the owner's: the role of a worker may not even make the register."""
    with pytest.raises(SchemaMismatch, match="42501"):
        await migrate(empty.url("strongroom_recovery"))


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        ("DELETE FROM schema_migrations", "migration 0001_initial is not applied"),
        ("DROP TABLE schema_migrations", "schema_migrations"),
        (
            "GRANT UPDATE ON escrow_leaves TO strongroom_escrow",
            "role strongroom_escrow has the privilege UPDATE on table escrow_leaves",
        ),
        ("GRANT DELETE ON requests TO PUBLIC", "role PUBLIC has the privilege DELETE on table requests"),
        (
            "GRANT UPDATE (note) ON recovery_checkpoints TO strongroom_recovery",
            "role strongroom_recovery has the privilege UPDATE on table recovery_checkpoints",
        ),
    ],
)
async def test_a_check_finds_what_is_wrong(database: FreshDatabase, change: str, finding: str) -> None:
    """Each fault is one finding, in words that name the place; any role may look."""
    assert await check(database.url("strongroom_auditor")) == []
    await as_superuser(database, change)
    findings = await check(database.url("strongroom_auditor"))
    assert finding in findings[0]
    assert len(findings) == (len(shipped_migrations()) if "is not applied" in finding else 1)


async def test_a_check_finds_a_server_that_does_not_sync(own_postgres: PrivatePostgres) -> None:
    """A server that runs without fsync is found out."""
    await migrate(own_postgres.url(OWNER))
    await as_superuser(own_postgres, "ALTER SYSTEM SET fsync = off")
    await asyncio.to_thread(own_postgres.restart)
    assert [finding for finding in await check(own_postgres.url(OWNER)) if "fsync" in finding]
