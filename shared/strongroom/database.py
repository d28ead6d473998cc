"""PostgreSQL: connections, transactions, and the line behind which the driver's exceptions stay.

What a caller sees is ours: a transaction either committed durably, or one of three things is the case.
`DatabaseUnavailable` (or `Busy`): nothing was stored, try again later. `CommitUnknown`: it may or may not be
stored. Any other FatalError: this program and this database do not fit each other.

No message carries the URL, SQL parameters, or the server's DETAIL, which quotes rows.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from asyncpg.pool import PoolConnectionProxy

from strongroom.database_errors import is_rollback, translated
from strongroom.errors import (
    CommitUnknown,
    ConfigurationInvalid,
    DatabaseUnavailable,
    SchemaMismatch,
    StateCorrupt,
    StrongroomError,
)
from strongroom.schema import MIGRATE_HINT, AppliedMigration, load_queries, pending, shipped_migrations

__all__ = ["Database", "Record", "Transaction", "connect", "load_queries"]

SERVER_VERSION_MIN: Final = 15
IDLE_IN_TRANSACTION_SECONDS_MAX: Final = 120
CONNECT_SECONDS_MAX: Final = 30
CLOSE_SECONDS_MAX: Final = 10

_SERVER_SETTINGS: Final = {
    "application_name": "strongroom",
    # Objects of the system first, then ours; never a temporary table that shadows one of them.
    "search_path": "public, pg_temp",
    # A receipt promises a commit on disk, whatever the server's default is, and a warning that it may not be
    # on the standby's disk must arrive.
    "synchronous_commit": "on",
    "client_min_messages": "warning",
    # A worker that hangs must not keep a log's lock for ever.
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS_MAX}s",
    "jit": "off",
}

Record: TypeAlias = asyncpg.Record
T = TypeVar("T")
_Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"  # no generic at run time


class Transaction:
    """Queries inside one transaction; made by `Database.transaction` and `Database.reading`.

    One query at a time. After the first that failed nothing of the transaction can be committed any more: every
    further query and the end of the block raise that error again.

    Every query raises: DatabaseUnavailable or Busy when the same may succeed later; SchemaMismatch when a
    table, column or privilege is missing; StateCorrupt when the database refuses the values or contradicts
    itself.

    `is_snapshot`: every query sees the state that the first one saw. `is_fresh`: there was no query yet.
    `logs_appended`: the logs whose rows in here include some of its own, which may yet be rolled back.
    `is_committed`: COMMIT has succeeded.
    """

    def __init__(self, connection: _Connection, *, snapshot: bool) -> None:
        """Wrap a connection on which BEGIN was executed."""
        self._connection = connection
        self.is_snapshot = snapshot
        self.is_fresh = True
        self._failure: StrongroomError | None = None
        self.logs_appended: set[str] = set()
        self.is_committed = False

    def check(self) -> None:
        """Raise the first error of a query again, if there was one."""
        if self._failure is not None:
            raise self._failure

    async def fetch(self, query: str, *args: object) -> list[Record]:
        """Run a query and return all its rows."""
        return await self._ask(self._connection.fetch, query, *args)

    async def fetch_row(self, query: str, *args: object) -> Record | None:
        """Run a query and return its first row, or None."""
        return await self._ask(self._connection.fetchrow, query, *args)

    async def fetch_value(self, query: str, *args: object) -> Any:
        """Run a query and return the first value of its first row, or None."""
        return await self._ask(self._connection.fetchval, query, *args)

    async def execute(self, query: str, *args: object) -> str:
        """Run a command and return its tag, e.g. `INSERT 0 3`; without arguments it may be a whole script."""
        return await self._ask(self._connection.execute, query, *args)

    async def _ask(self, method: Callable[..., Awaitable[T]], query: str, *args: object) -> T:
        self.check()
        self.is_fresh = False
        try:
            return await method(query, *args)
        except Exception as error:  # noqa: BLE001 - whatever a driver raises stops here
            failure = translated(error)
        # Raised outside the handler: the driver's exception, which may quote values, is not even its context.
        self._failure = failure
        raise failure


class Database:
    """A pool of connections to the primary; made by `connect`."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", *, acquire_timeout_seconds: float) -> None:
        """Use a pool; a transaction waits at most so long for a connection."""
        self._pool = pool
        self._acquire_timeout_seconds = acquire_timeout_seconds

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Run the block in a transaction (READ COMMITTED): COMMIT at its end, ROLLBACK if it raises.

        When the block is left without an error, everything in it is on the primary's disk, and on the disks
        of its synchronous standbys.

        Raises:
            DatabaseUnavailable: no connection could be had, or the server rolled back; nothing is stored.
            CommitUnknown: connection lost, time out, cancellation or a warning inside COMMIT.
            StrongroomError: the first error of a query, also when the block caught it.
        """
        async with self._connection() as connection:
            await self._begin(connection, "BEGIN ISOLATION LEVEL READ COMMITTED")
            tx = Transaction(connection, snapshot=False)
            try:
                yield tx
                tx.check()
            except BaseException:
                await _roll_back(connection)
                raise
            await _commit(connection)
            tx.is_committed = True

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Transaction]:
        """Run the block in a transaction that cannot write and sees one state throughout (REPEATABLE READ).

        Raises:
            DatabaseUnavailable: no connection could be had.
        """
        async with self._connection() as connection:
            await self._begin(connection, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                yield Transaction(connection, snapshot=True)
            finally:
                await _roll_back(connection)

    async def check_schema(self) -> None:
        """Return when the database is at exactly the schema of this program.

        Raises:
            SchemaMismatch: it is older, newer, or another.
            DatabaseUnavailable: it cannot be asked.
        """
        async with self.reading() as tx:
            rows = await tx.fetch(load_queries("migrations")["applied"])
        applied = [AppliedMigration(row["version"], row["name"], row["digest"]) for row in rows]
        if missing := pending(shipped_migrations(), applied):
            raise SchemaMismatch(f"the database lacks migration {missing[0]}", hint=MIGRATE_HINT)

    async def _begin(self, connection: _Connection, command: str) -> None:
        try:
            await connection.execute(command)
        except Exception as error:  # noqa: BLE001 - whatever a driver raises stops here
            failure = translated(error)
        except asyncio.CancelledError:
            _hang_up(connection)  # it may or may not have begun
            raise
        else:
            return
        _hang_up(connection)
        raise failure

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Connection]:
        connection = await self._acquire()
        try:
            yield connection
        except DatabaseUnavailable:
            # After a failover every connection of the pool is of the old primary: none is used again.
            await self._pool.expire_connections()
            raise
        finally:
            # Releasing resets the session. What was committed stays so, whatever comes of that.
            with suppress(Exception):
                await self._pool.release(connection, timeout=CLOSE_SECONDS_MAX)

    async def _acquire(self) -> _Connection:
        try:
            return await self._pool.acquire(timeout=self._acquire_timeout_seconds)
        except Exception as error:  # noqa: BLE001 - whatever a driver raises stops here
            failure = translated(error)
        raise failure


def connect(
    url: str, *, connections_max: int = 4, command_timeout_seconds: float = 30
) -> AbstractAsyncContextManager[Database]:
    """Open a pool of connections to the primary; leave the context manager to close it.

    Args:
        url: `postgresql://` URL; with several hosts the one that takes writes is used. It is a secret.
        connections_max: how many transactions may run at a time; others wait for a connection.
        command_timeout_seconds: bound on one query, and on waiting for a connection.

    Raises:
        ConfigurationInvalid: the URL is no `postgresql://` URL.
        DatabaseUnavailable: there is no primary, it refuses the role or its password, or a file is missing.
        SchemaMismatch: the server is older than PostgreSQL 15.
    """
    return _connected(url, connections_max, command_timeout_seconds)


@asynccontextmanager
async def _connected(url: str, connections_max: int, command_timeout_seconds: float) -> AsyncIterator[Database]:
    pool = asyncpg.create_pool(
        url,
        min_size=0,
        max_size=connections_max,
        timeout=CONNECT_SECONDS_MAX,
        command_timeout=command_timeout_seconds,
        target_session_attrs=SessionAttribute.read_write,
        server_settings=_SERVER_SETTINGS,
    )
    try:
        await _check_server(pool)
        yield Database(pool, acquire_timeout_seconds=command_timeout_seconds)
        with suppress(Exception):  # whatever was committed stays so, however the connections end
            async with asyncio.timeout(CLOSE_SECONDS_MAX):
                await pool.close()
    finally:
        pool.terminate()


async def _check_server(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    failure: StrongroomError
    try:
        await pool
        async with pool.acquire(timeout=CONNECT_SECONDS_MAX) as connection:
            version = connection.get_server_version().major
    except OSError as error:  # before ValueError: a certificate that does not verify is both
        failure = translated(error)
    except ValueError:  # the driver's text quotes the URL
        failure = ConfigurationInvalid("the database URL is no postgresql:// URL, or has options that are none")
    except Exception as error:  # noqa: BLE001 - whatever a driver raises stops here
        failure = translated(error)
    else:
        if version >= SERVER_VERSION_MIN:
            return
        failure = SchemaMismatch(f"this is PostgreSQL {version}, {SERVER_VERSION_MIN} or later is needed")
    raise failure


async def _roll_back(connection: _Connection) -> None:
    """End a transaction without storing anything; a connection that cannot even do that is thrown away."""
    try:
        await connection.execute("ROLLBACK")
    except Exception:  # noqa: BLE001 - the server rolls back what is not committed, at the latest when we hang up
        _hang_up(connection)
    except asyncio.CancelledError:
        _hang_up(connection)
        raise


async def _commit(connection: _Connection) -> None:
    """COMMIT, and believe in it only if the server says so without reservation."""
    warnings: list[str] = []

    def listen(_connection: object, message: asyncpg.PostgresLogMessage) -> None:
        # 01000 while a commit waits for a standby: it is on this server's disk, perhaps nowhere else.
        if (message.severity_en or message.severity) == "WARNING":
            warnings.append(message.sqlstate)

    try:
        connection.add_log_listener(listen)
    except asyncpg.InterfaceError as error:
        failure: StrongroomError | None = translated(error)  # lost already: COMMIT is never sent
    else:
        failure = await _send_commit(connection)
        if failure is None:
            connection.remove_log_listener(listen)
            if warnings:
                what = f"the database committed with warning {warnings[0]}, perhaps without its standby,"
                failure = _unknown(what)
    if failure is not None:
        _hang_up(connection)
        raise failure


async def _send_commit(connection: _Connection) -> StrongroomError | None:
    """Send COMMIT and return what went wrong."""
    try:
        tag = await connection.execute("COMMIT")
    except asyncpg.PostgresError as error:
        return translated(error) if is_rollback(error) else _unknown("the database broke off")
    except asyncio.CancelledError:
        return _unknown("the task was cancelled")
    except TimeoutError:
        return _unknown("no answer came in time")
    except Exception:  # noqa: BLE001 - whatever a driver raises stops here
        return _unknown("the connection was lost")
    return None if tag == "COMMIT" else StateCorrupt("the database rolled back where it was told to commit")


def _hang_up(connection: _Connection) -> None:
    """Throw a connection away, if it is not gone yet."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


def _unknown(what: str) -> CommitUnknown:
    return CommitUnknown(
        f"{what} inside COMMIT: whether the transaction is stored is not known",
        hint="restart the process; what was not acknowledged is delivered again and stored once",
    )
