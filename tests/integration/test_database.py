"""Transactions and the driver's errors, on a real PostgreSQL."""

import asyncio
import re
import traceback
from collections.abc import Awaitable, Callable
from importlib import resources
from uuid import UUID

import asyncpg
import pytest
from deploy.local.postgres import PrivatePostgres
from tests.conftest import FreshDatabase
from tests.support.attacker import as_superuser, ask_superuser
from tests.support.relay import Relay

from strongroom.database import Database, Transaction, connect, load_queries
from strongroom.errors import (
    Busy,
    CommitUnknown,
    ConfigurationInvalid,
    DatabaseUnavailable,
    SchemaMismatch,
    StateCorrupt,
    StrongroomError,
)
from strongroom.migrations import migrate

CANARY = b"a value that must not be told"
INSERT = "INSERT INTO recovery_leaves (index, leaf) VALUES ($1, $2)"
COUNT = "SELECT count(*) FROM recovery_leaves"


def recovery(database: FreshDatabase) -> str:
    """The URL that most tests use: a role that may insert and select."""
    return database.url("strongroom_recovery")


async def count(url: str) -> int:
    """How many rows another connection sees."""
    async with connect(url) as opened, opened.reading() as tx:
        value = await tx.fetch_value(COUNT)
        assert isinstance(value, int)
        return value


def told(error: BaseException) -> str:
    """Everything that a log of the error could show."""
    parts: list[str] = []
    chain: BaseException | None = error
    while chain is not None:
        parts += [repr(chain), str(chain), repr(vars(chain))]
        chain = chain.__cause__ or chain.__context__
    return "\n".join([*parts, *traceback.format_exception(error)])


# ---- transactions ----


async def test_a_transaction_that_ends_without_an_error_is_stored(database: FreshDatabase) -> None:
    """What a transaction block wrote is seen by others when the block has ended, and not earlier."""
    async with connect(recovery(database)) as opened:
        async with opened.transaction() as tx:
            assert await tx.execute(INSERT, 0, b"leaf") == "INSERT 0 1"
            assert await count(recovery(database)) == 0
        assert await count(recovery(database)) == 1


async def test_a_transaction_that_raises_stores_nothing(database: FreshDatabase) -> None:
    """An error out of the block comes through unchanged, and what the block wrote is gone."""
    async with connect(recovery(database)) as opened:
        with pytest.raises(ZeroDivisionError):
            async with opened.transaction() as tx:
                await tx.execute(INSERT, 0, b"leaf")
                raise ZeroDivisionError
        assert await count(recovery(database)) == 0


async def test_an_overlooked_error_of_a_query_is_not_committed_over(database: FreshDatabase) -> None:
    """A block that swallows a query's error still ends with that error instead of a silent rollback."""
    async with connect(recovery(database)) as opened:
        with pytest.raises(SchemaMismatch, match="no_such_table"):
            async with opened.transaction() as tx:
                await tx.execute(INSERT, 0, b"leaf")
                with pytest.raises(SchemaMismatch, match="no_such_table"):
                    await tx.fetch("SELECT * FROM no_such_table")
                with pytest.raises(SchemaMismatch, match="no_such_table"):
                    await tx.execute(INSERT, 1, b"leaf")
        assert await count(recovery(database)) == 0


async def test_a_cancelled_block_stores_nothing_and_frees_its_connection(database: FreshDatabase) -> None:
    """Cancellation outside COMMIT is passed on, and the only connection of the pool is usable again."""
    async with connect(recovery(database), connections_max=1) as opened:
        waiting = asyncio.Event()

        async def block() -> None:
            async with opened.transaction() as tx:
                await tx.execute(INSERT, 0, b"leaf")
                waiting.set()
                await tx.fetch("SELECT pg_sleep(60)")

        task = asyncio.create_task(block())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with opened.reading() as tx:
            assert await tx.fetch_value(COUNT) == 0


async def test_a_reading_transaction_sees_one_state(database: FreshDatabase) -> None:
    """What is committed after the first query of a reading transaction stays invisible to it."""
    async with connect(recovery(database)) as opened, opened.reading() as reader:
        assert await reader.fetch_value(COUNT) == 0
        async with opened.transaction() as tx:
            await tx.execute(INSERT, 0, b"leaf")
        assert await reader.fetch_value(COUNT) == 0


async def test_a_writing_transaction_sees_what_was_committed_meanwhile(database: FreshDatabase) -> None:
    """Every query of a writing transaction sees the newest committed state, whatever the server's default is."""
    await as_superuser(
        database, "ALTER ROLE strongroom_recovery SET default_transaction_isolation = 'serializable'"
    )
    try:
        async with connect(recovery(database)) as opened, opened.transaction() as first:
            assert await first.fetch_value(COUNT) == 0
            async with opened.transaction() as second:
                await second.execute(INSERT, 0, b"leaf")
            assert await first.fetch_value(COUNT) == 1
    finally:
        await as_superuser(database, "ALTER ROLE strongroom_recovery RESET default_transaction_isolation")


async def test_fetches_return_rows_a_row_and_a_value(database: FreshDatabase) -> None:
    """Rows are read by column name; no row is an empty list, None and None."""
    async with connect(recovery(database)) as opened, opened.reading() as tx:
        rows = await tx.fetch("SELECT n, n * 2 AS double FROM generate_series(1, 2) AS n")
        assert [(row["n"], row["double"]) for row in rows] == [(1, 2), (2, 4)]
        row = await tx.fetch_row("SELECT 7 AS seven, $1::uuid AS id", UUID(int=3))
        assert row is not None
        assert (row["seven"], row["id"]) == (7, UUID(int=3))
        assert await tx.fetch_value("SELECT 7") == 7
        assert await tx.fetch("SELECT 1 WHERE false") == []
        assert await tx.fetch_row("SELECT 1 WHERE false") is None
        assert await tx.fetch_value("SELECT 1 WHERE false") is None


async def test_sessions_are_durable_and_look_in_one_schema(database: FreshDatabase) -> None:
    """A server that would acknowledge before the disk has it, or search elsewhere, is overruled."""
    await as_superuser(
        database,
        "ALTER ROLE strongroom_recovery SET synchronous_commit = 'off'",
        "ALTER ROLE strongroom_recovery SET search_path = 'pg_temp, elsewhere'",
    )
    try:
        async with connect(recovery(database), connections_max=1) as opened:
            for _ in range(2):  # the second time on a connection that was released and reset
                async with opened.reading() as tx:
                    assert await tx.fetch_value("SHOW synchronous_commit") == "on"
                    assert await tx.fetch_value("SHOW search_path") == "public, pg_temp"
    finally:
        await as_superuser(database, "ALTER ROLE strongroom_recovery RESET ALL")


# ---- errors of queries ----

Action = Callable[[Transaction], Awaitable[object]]


async def _insert_twice(tx: Transaction) -> None:
    await tx.execute(INSERT, 0, CANARY)
    await tx.execute(INSERT, 0, CANARY)


async def _wait_for_lock(tx: Transaction) -> None:
    await tx.execute("SET LOCAL lock_timeout = 1")
    await tx.fetch("SELECT pg_advisory_xact_lock(1)")


async def _time_out(tx: Transaction) -> None:
    await tx.execute("SET LOCAL statement_timeout = 1")
    await tx.fetch("SELECT pg_sleep(60)")


async def _raise(tx: Transaction, state: str) -> None:
    await tx.execute(
        f"DO $$ BEGIN RAISE EXCEPTION '{CANARY.decode()}'"
        f" USING ERRCODE = '{state}', DETAIL = '{CANARY.decode()}', HINT = '{CANARY.decode()}'; END $$"
    )


REFUSED: dict[str, tuple[Action, type[StrongroomError], str]] = {
    "no such table": (lambda tx: tx.fetch("SELECT * FROM nowhere"), SchemaMismatch, "42P01"),
    "no such column": (lambda tx: tx.fetch("SELECT nothing FROM requests"), SchemaMismatch, "42703"),
    "no privilege": (lambda tx: tx.execute("DELETE FROM recovery_leaves"), SchemaMismatch, "42501"),
    "no SQL": (lambda tx: tx.fetch("SELEC"), SchemaMismatch, "42601"),
    "row is there already": (_insert_twice, StateCorrupt, "recovery_leaves_pkey"),
    "row refers to nothing": (
        lambda tx: tx.execute("INSERT INTO releases VALUES ($1, $2, 0)", UUID(int=1), CANARY),
        StateCorrupt,
        "releases_request_id_fkey",
    ),
    "row breaks a rule": (lambda tx: tx.execute(INSERT, -1, CANARY), StateCorrupt, "recovery_leaves_index_check"),
    "value of another type": (lambda tx: tx.execute(INSERT, CANARY, CANARY), StateCorrupt, "does not fit"),
    "value out of range": (lambda tx: tx.execute(INSERT, 2**63, CANARY), StateCorrupt, "does not fit"),
    "text that is no Unicode": (
        lambda tx: tx.fetch("SELECT $1::text", CANARY.decode() + "\ud800"),
        StateCorrupt,
        "does not fit",
    ),
    "value the server cannot read": (
        lambda tx: tx.fetch("SELECT $1::text::uuid", CANARY.decode()),
        StateCorrupt,
        "22P02",
    ),
    "too few arguments": (lambda tx: tx.execute(INSERT, 0), StateCorrupt, "wrongly"),
    "lock held by somebody else": (_wait_for_lock, Busy, "55P03"),
    "query cancelled": (_time_out, DatabaseUnavailable, "57014"),
    "serialization failure": (lambda tx: _raise(tx, "40001"), DatabaseUnavailable, "40001"),
    "deadlock": (lambda tx: _raise(tx, "40P01"), DatabaseUnavailable, "40P01"),
    "disk full": (lambda tx: _raise(tx, "53100"), DatabaseUnavailable, "53100"),
    "shutdown": (lambda tx: _raise(tx, "57P01"), DatabaseUnavailable, "57P01"),
    "corrupt data": (lambda tx: _raise(tx, "XX001"), StateCorrupt, "XX001"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_errors_of_queries_become_ours_and_tell_no_value(database: FreshDatabase, case: str) -> None:
    """The driver's exception stays inside; what comes out has the right class and quotes no parameter or row."""
    action, expected, named = REFUSED[case]
    url = recovery(database)
    async with connect(url) as opened, opened.transaction() as holder:
        await holder.fetch("SELECT pg_advisory_xact_lock(1)")
        with pytest.raises(expected, match=named) as caught:
            async with opened.transaction() as tx:
                await action(tx)
    assert type(caught.value) is expected
    assert CANARY.decode() not in told(caught.value)
    assert url not in told(caught.value)
    assert "asyncpg" not in repr([caught.value.__cause__, caught.value.__context__])


async def test_a_real_deadlock_is_tried_again_later(database: FreshDatabase) -> None:
    """Of two transactions that wait for each other one becomes DatabaseUnavailable and the other commits."""
    barrier = asyncio.Barrier(2)

    async def cross(opened: Database, first: int, second: int) -> None:
        async with opened.transaction() as tx:
            await tx.fetch("SELECT pg_advisory_xact_lock(9, $1)", first)
            await barrier.wait()
            await tx.fetch("SELECT pg_advisory_xact_lock(9, $1)", second)

    async with connect(recovery(database)) as opened:
        results = await asyncio.gather(cross(opened, 1, 2), cross(opened, 2, 1), return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [DatabaseUnavailable]


async def test_a_reading_transaction_cannot_write(database: FreshDatabase) -> None:
    """A write in a reading transaction is refused by the server, as it is by a standby."""
    async with connect(recovery(database)) as opened:
        with pytest.raises(DatabaseUnavailable, match="25006"):
            async with opened.reading() as tx:
                await tx.execute(INSERT, 0, b"leaf")


async def test_a_terminated_connection_is_replaced(database: FreshDatabase) -> None:
    """A backend that is terminated costs its transaction; the next one gets another connection."""
    async with connect(recovery(database), connections_max=1) as opened:
        with pytest.raises(DatabaseUnavailable):
            async with opened.transaction() as tx:
                await tx.execute(INSERT, 0, b"leaf")
                pid = await tx.fetch_value("SELECT pg_backend_pid()")
                assert await ask_superuser(database, "SELECT pg_terminate_backend($1, 10000)", pid)
                await tx.execute(INSERT, 1, b"leaf")
        async with opened.transaction() as tx:
            await tx.execute(INSERT, 0, b"leaf")
        assert await count(recovery(database)) == 1


async def test_a_query_without_an_answer_is_given_up(database: FreshDatabase) -> None:
    """The command timeout ends a query that hangs, and the connection works again afterwards."""
    async with connect(recovery(database), connections_max=1, command_timeout_seconds=3) as opened:
        with pytest.raises(DatabaseUnavailable, match="in time"):
            async with opened.transaction() as tx:
                await tx.fetch("SELECT pg_sleep(60)")
        async with opened.reading() as tx:
            assert await tx.fetch_value(COUNT) == 0


async def test_waiting_for_a_connection_has_an_end(database: FreshDatabase) -> None:
    """With every connection in use the next transaction is told to try later."""
    async with (
        connect(recovery(database), connections_max=1, command_timeout_seconds=3) as opened,
        opened.reading(),
    ):
        with pytest.raises(DatabaseUnavailable):
            async with opened.reading():
                pytest.fail("two transactions on one connection")


# ---- connecting ----


async def test_unusable_urls_are_refused_without_being_quoted(database: FreshDatabase) -> None:
    """A URL that leads nowhere raises the error that says why, and neither it nor its password is quoted."""
    good = recovery(database)
    password = good.split(":")[2].split("@")[0]
    cases: list[tuple[str, type[StrongroomError]]] = [
        (good.replace("postgresql://", "mysql://"), ConfigurationInvalid),
        (good.replace("sslmode=verify-full", "sslmode=perhaps"), ConfigurationInvalid),
        (good + "-is-not-there", DatabaseUnavailable),
        (good.replace(password, "wrong" + password), DatabaseUnavailable),
        (good.replace(f"/{database.name}", "/no-such-database"), DatabaseUnavailable),
        (good.replace("127.0.0.1", "127.0.0.2"), DatabaseUnavailable),
    ]
    for url, expected in cases:
        with pytest.raises(expected) as caught:
            async with connect(url):
                pytest.fail(f"connected, {expected} was due")
        assert password not in told(caught.value)
        assert "asyncpg" not in repr([caught.value.__cause__, caught.value.__context__])


async def test_a_stopped_server_is_unavailable_and_comes_back(own_postgres: PrivatePostgres) -> None:
    """While the server is down everything is DatabaseUnavailable; the same pool works when it is up again."""
    url = own_postgres.url("strongroom_owner")
    await migrate(url)
    async with connect(url) as opened:
        async with opened.reading() as tx:
            assert await tx.fetch_value(COUNT) == 0
        await asyncio.to_thread(own_postgres.stop)
        with pytest.raises(DatabaseUnavailable):
            async with opened.reading() as tx:
                await tx.fetch(COUNT)
        with pytest.raises(DatabaseUnavailable):
            async with connect(url):
                pytest.fail("connected to a server that is down")
        await asyncio.to_thread(own_postgres.start)
        assert own_postgres.url("strongroom_owner") == url
        async with opened.reading() as tx:
            assert await tx.fetch_value(COUNT) == 0


async def test_a_server_that_takes_no_writes_is_not_connected_to(database: FreshDatabase) -> None:
    """A primary that is fenced off by default_transaction_read_only is as good as none."""
    async with connect(recovery(database)) as opened:
        await as_superuser(database, f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on')
        with pytest.raises(DatabaseUnavailable):
            async with connect(recovery(database)):
                pytest.fail("connected to a database that takes no writes")
        # The connection of before still takes writes; it is thrown away once one was refused.
        with pytest.raises(DatabaseUnavailable, match="25006"):
            async with opened.transaction() as tx:
                await tx.execute("SET TRANSACTION READ ONLY")
                await tx.execute(INSERT, 0, b"leaf")
        with pytest.raises(DatabaseUnavailable):
            async with opened.transaction():
                pytest.fail("used a connection of before the failover")


async def test_an_old_server_is_refused(database: FreshDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of an earlier major version than the oldest supported is not worked with."""
    monkeypatch.setattr("strongroom.database.SERVER_VERSION_MIN", 1000)
    with pytest.raises(SchemaMismatch, match="1000 or later is needed"):
        async with connect(recovery(database)):
            pytest.fail("connected to an old server")


# ---- BEGIN and ROLLBACK ----


async def test_a_connection_that_breaks_at_begin_is_replaced(database: FreshDatabase) -> None:
    """A transaction that could not begin is unavailable; the next one gets another connection."""
    async with Relay(recovery(database)).listening() as relay, connect(relay.url, connections_max=1) as opened:
        relay.lose_request()
        with pytest.raises(DatabaseUnavailable):
            async with opened.transaction():
                pytest.fail("began on a broken connection")
        async with opened.transaction() as tx:
            await tx.execute(INSERT, 0, b"leaf")
    assert await count(recovery(database)) == 1


@pytest.mark.parametrize("at", ["BEGIN", "ROLLBACK"])
async def test_a_connection_that_was_cancelled_is_not_used_again(database: FreshDatabase, at: str) -> None:
    """Cancelled inside BEGIN or ROLLBACK, nobody knows whether it is in a transaction: it is thrown away."""
    async with Relay(recovery(database)).listening() as relay, connect(relay.url, connections_max=1) as opened:

        async def block() -> None:
            if at == "BEGIN":
                relay.keep_answer()
            async with opened.transaction() as tx:
                await tx.execute(INSERT, 0, b"leaf")
                relay.keep_answer()
                raise ZeroDivisionError

        task = asyncio.create_task(block())
        await relay.seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with opened.transaction() as tx:
            assert await tx.fetch_value(COUNT) == 0


# ---- COMMIT, in pairs: it failed and nothing is stored; it failed and everything is stored ----


async def _commit_through(relay: Relay, trap: Callable[[], None]) -> None:
    async with connect(relay.url) as opened:
        with pytest.raises(CommitUnknown, match="inside COMMIT"):
            async with opened.transaction() as tx:
                await tx.execute(INSERT, 0, b"leaf")
                trap()
        assert relay.seen.is_set()


async def test_a_commit_that_did_not_arrive_is_unknown(database: FreshDatabase) -> None:
    """The connection breaks on the way to the server: CommitUnknown, and nothing is stored."""
    async with Relay(recovery(database)).listening() as relay:
        await _commit_through(relay, relay.lose_request)
    assert await count(recovery(database)) == 0


async def test_a_commit_whose_answer_did_not_arrive_is_unknown(database: FreshDatabase) -> None:
    """The connection breaks on the way back: CommitUnknown, and everything is stored."""
    async with Relay(recovery(database)).listening() as relay:
        await _commit_through(relay, relay.lose_answer)
    assert await count(recovery(database)) == 1


async def test_a_commit_without_an_answer_in_time_is_unknown(database: FreshDatabase) -> None:
    """The server commits, its answer hangs until the timeout: CommitUnknown."""
    async with (
        Relay(recovery(database)).listening() as relay,
        connect(relay.url, command_timeout_seconds=3) as opened,
    ):
        with pytest.raises(CommitUnknown, match="in time"):
            async with opened.transaction() as tx:
                await tx.execute(INSERT, 0, b"leaf")
                relay.keep_answer()
        assert relay.seen.is_set()
        assert await count(recovery(database)) == 1


async def test_a_cancelled_commit_is_unknown(database: FreshDatabase) -> None:
    """A task that is cancelled inside COMMIT does not know either."""
    async with Relay(recovery(database)).listening() as relay, connect(relay.url) as opened:

        async def block() -> None:
            async with opened.transaction() as tx:
                await tx.execute(INSERT, 0, b"leaf")
                relay.keep_answer()

        task = asyncio.create_task(block())
        await relay.seen.wait()
        task.cancel()
        with pytest.raises(CommitUnknown, match="cancelled"):
            await task
    assert await count(recovery(database)) == 1


async def test_a_connection_that_was_lost_before_commit_has_stored_nothing(database: FreshDatabase) -> None:
    """When COMMIT cannot even be sent, that is certain: try again later."""
    async with connect(recovery(database)) as opened:
        with pytest.raises(DatabaseUnavailable):
            async with opened.transaction() as tx:
                await tx.execute(INSERT, 0, b"leaf")
                tx._connection.terminate()
    assert await count(recovery(database)) == 0


async def test_a_commit_that_cannot_be_sent_whole_is_unknown(
    database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the network while COMMIT is on its way leaves it open whether it arrived."""

    async def fail(*_: object) -> str:
        raise BrokenPipeError

    async with connect(recovery(database)) as opened:
        with pytest.raises(CommitUnknown, match="lost"):
            async with opened.transaction() as tx:
                await tx.execute(INSERT, 0, b"leaf")
                monkeypatch.setattr(asyncpg.Connection, "execute", fail)


async def test_a_silent_rollback_is_no_commit(database: FreshDatabase) -> None:
    """COMMIT of a transaction that failed unnoticed is answered with ROLLBACK, and that is believed."""
    async with connect(recovery(database)) as opened:
        with pytest.raises(StateCorrupt, match="rolled back where it was told to commit"):
            async with opened.transaction() as tx:
                await tx.execute(INSERT, 0, b"leaf")
                with pytest.raises(asyncpg.UndefinedTableError):
                    await tx._connection.execute("SELECT * FROM nowhere")
    assert await count(recovery(database)) == 0


async def test_a_deferred_constraint_fails_in_commit_for_certain(database: FreshDatabase) -> None:
    """An error that the server gives in answer to COMMIT is no unknown: nothing is stored."""
    await as_superuser(
        database,
        "ALTER TABLE releases ALTER CONSTRAINT releases_request_id_fkey DEFERRABLE INITIALLY DEFERRED",
    )
    async with connect(recovery(database)) as opened:
        with pytest.raises(StateCorrupt, match="releases_request_id_fkey"):
            async with opened.transaction() as tx:
                await tx.execute("INSERT INTO releases VALUES ($1, $2, 0)", UUID(int=1), CANARY)
    assert await ask_superuser(database, "SELECT count(*) FROM releases") == 0


async def _insert(url: str) -> None:
    async with connect(url) as opened, opened.transaction() as tx:
        await tx.execute(INSERT, 0, b"leaf")


async def _hang_in_commit(server: PrivatePostgres) -> tuple[asyncio.Task[None], int]:
    """Commit a row on a server that waits for a standby it does not have; return the task and its backend."""
    await migrate(server.url("strongroom_owner"))
    await as_superuser(
        server,
        "ALTER SYSTEM SET synchronous_standby_names = 'nobody'",
        "ALTER SYSTEM SET client_min_messages = 'error'",
    )
    await asyncio.to_thread(server.restart)
    task = asyncio.create_task(_insert(server.url("strongroom_recovery")))
    waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    while (pid := await ask_superuser(server, waiting)) is None:
        assert not task.done()
    return task, pid


async def test_a_commit_that_no_standby_confirmed_is_unknown(own_postgres: PrivatePostgres) -> None:
    """The server gives up waiting for its standby and commits with a warning: that is not durable."""
    task, pid = await _hang_in_commit(own_postgres)
    assert await ask_superuser(own_postgres, "SELECT pg_cancel_backend($1)", pid)
    with pytest.raises(CommitUnknown, match="warning 01000"):
        await task
    assert await count(own_postgres.url("strongroom_recovery")) == 1


async def test_a_server_killed_inside_commit_leaves_the_commit_unknown(own_postgres: PrivatePostgres) -> None:
    """The server is killed while COMMIT waits for a standby: CommitUnknown; its own disk has the row."""
    task, _ = await _hang_in_commit(own_postgres)
    await asyncio.to_thread(own_postgres.kill)
    with pytest.raises(CommitUnknown):
        await task
    await asyncio.to_thread(own_postgres.start)
    assert await count(own_postgres.url("strongroom_recovery")) == 1


async def test_a_server_killed_before_commit_has_stored_nothing(own_postgres: PrivatePostgres) -> None:
    """The server is killed between the last query and COMMIT: nobody is told that it is stored, and it is not."""
    await migrate(own_postgres.url("strongroom_owner"))
    async with connect(own_postgres.url("strongroom_recovery")) as opened:
        with pytest.raises((CommitUnknown, DatabaseUnavailable)):
            async with opened.transaction() as tx:
                await tx.execute(INSERT, 0, b"leaf")
                await asyncio.to_thread(own_postgres.kill)
    await asyncio.to_thread(own_postgres.start)
    assert await count(own_postgres.url("strongroom_recovery")) == 0


# ---- schema ----


async def test_a_migrated_database_passes_the_schema_check_of_every_role(database: FreshDatabase) -> None:
    """Each worker role and the auditor may ask whether the schema is theirs, and it is."""
    for role in ("strongroom_escrow", "strongroom_recovery", "strongroom_auditor"):
        async with connect(database.url(role)) as opened:
            await opened.check_schema()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("DROP TABLE schema_migrations", "schema_migrations"),
        ("DELETE FROM schema_migrations", "lacks migration 0001_initial"),
        ("UPDATE schema_migrations SET digest = sha256('other')", "is not the one that was applied"),
        ("INSERT INTO schema_migrations VALUES (1000, 'later', sha256(''))", "lacks migration"),
        (
            "INSERT INTO schema_migrations SELECT max(version) + 1, 'later', sha256('') FROM schema_migrations",
            "newer than this program",
        ),
    ],
)
async def test_another_schema_is_refused(database: FreshDatabase, change: str, said: str) -> None:
    """A worker does not start on a schema that is older, newer, edited, or not there at all."""
    await as_superuser(database, change)
    async with connect(recovery(database)) as opened:
        with pytest.raises(SchemaMismatch, match=said) as caught:
            await opened.check_schema()
    assert caught.value.hint is not None


def _query_files() -> list[tuple[str, str, str]]:
    """Every (file, role, log) under which the queries of a file are used.

    A file says its roles in the line `-- roles: …`; one that does not is named for its role.
    """
    cases = []
    for file in sorted((resources.files("strongroom") / "sql").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            stem = file.name.removesuffix(".sql")
            text = file.read_text(encoding="utf-8")
            found = re.search(r"^-- roles: (.*)$", text, re.MULTILINE)
            roles = found[1] if found else f"strongroom_{stem}"
            for log in ("escrow", "recovery") if "{log}" in text else ("",):
                cases += [(stem, role.strip(), log) for role in roles.replace("{log}", log).split(",")]
    return cases


@pytest.mark.parametrize(("file", "role", "log"), _query_files())
async def test_every_query_is_understood_by_the_schema(
    database: FreshDatabase, file: str, role: str, log: str
) -> None:
    """Each query of the package is parsed and planned against the migrated schema, by the role that uses it."""
    queries = load_queries(file)
    assert queries
    connection = await asyncpg.connect(database.url(role))
    try:
        for query in queries.values():
            await connection.prepare(query.replace("{log}", log))
    finally:
        await connection.close()


@pytest.mark.parametrize(("file", "role", "log"), _query_files())
async def test_every_query_is_within_the_privileges_of_its_role(
    database: FreshDatabase, file: str, role: str, log: str
) -> None:
    """Each query is executed, with null for every argument, without lacking a privilege."""
    connection = await asyncpg.connect(database.url(role))
    try:
        for name, query in load_queries(file).items():
            statement = await connection.prepare(query.replace("{log}", log))
            try:
                await statement.fetch(*[None] * len(statement.get_parameters()))
            except asyncpg.InsufficientPrivilegeError:
                pytest.fail(f"{role} may not run {file}.{name}")
            except (asyncpg.IntegrityConstraintViolationError, asyncpg.DuplicateTableError):
                pass  # privileges are checked first, and null is no row
    finally:
        await connection.close()


@pytest.mark.parametrize("file", sorted({file for file, _, _ in _query_files()}))
def test_every_query_says_what_it_is_for(file: str) -> None:
    """The line after a query's name is a comment."""
    assert all(query.startswith("-- ") for query in load_queries(file).values())
