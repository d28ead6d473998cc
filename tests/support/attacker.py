"""Whoever owns the database server: may change any row, and knows none of the keys."""

import asyncio
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg
from deploy.local.postgres import SYSTEM_PATH, programs, psql

from strongroom.crypto import tlog
from strongroom.crypto.notes import proof_text
from strongroom.receipts import Receipt


class Owned(Protocol):
    """A database whose administrator's URL is known."""

    @property
    def superuser_url(self) -> str:
        """`postgresql://` URL of a superuser, connected to that database."""


async def as_superuser(database: Owned, *commands: str) -> None:
    """Run SQL commands as the administrator, each on its own."""
    connection = await asyncpg.connect(database.superuser_url)
    try:
        for command in commands:
            await connection.execute(command)
    finally:
        await connection.close()


async def ask_superuser(database: Owned, query: str, *args: object) -> Any:
    """Return the first value that a query of the administrator gives."""
    connection = await asyncpg.connect(database.superuser_url)
    try:
        return await connection.fetchval(query, *args)
    finally:
        await connection.close()


# A deferred constraint trigger runs inside COMMIT. The file that it writes, and the sequence, survive the rollback.
_TAKE = """
CREATE SEQUENCE thefts;
CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    turn bigint := nextval('thefts');
    loot text;
BEGIN
    IF turn > {times} THEN
        RETURN NULL;
    END IF;
    SELECT json_build_object('note', NEW.note, 'leaves', json_agg(encode(leaf, 'hex') ORDER BY index))
        INTO loot FROM {log}_leaves;
    EXECUTE format('COPY (SELECT %L) TO %L', encode(convert_to(loot, 'UTF8'), 'hex'), {path} || turn);
    RAISE EXCEPTION 'taken' USING ERRCODE = 'serialization_failure';
END $$;
CREATE CONSTRAINT TRIGGER take AFTER INSERT ON {log}_checkpoints
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION take();
"""
_LOOT_PATH = "current_setting('data_directory') || '/taken-' || current_database() || '-'"


@dataclass(frozen=True, slots=True)
class Loot:
    """What a transaction held inside the COMMIT that was made to fail: the note, and all leaves under it."""

    note: str
    leaves: list[bytes]

    def receipts(self, origin: str) -> Iterator[Receipt]:
        """Make of it what may pass for receipts of the newest leaf from the log of this origin.

        Once with the note as it is, and then with this origin written over the note's own, in either place.
        """
        frontier, nodes = tlog.append(tlog.Frontier.empty(), self.leaves)
        index = frontier.size - 1
        proof = tlog.inclusion_proof(index, frontier.size, nodes)
        text, _, signature = self.note.partition("\n\n")
        own, _, assertion = text.partition("\n")
        for first_line, key_name in product((own, origin), repeat=2):
            renamed = signature.replace(f" {own} ", f" {key_name} ")
            yield Receipt(self.leaves[index], proof_text(index, proof, f"{first_line}\n{assertion}\n\n{renamed}"))


async def take_and_abort(database: Owned, log: str, times: int) -> None:
    """Copy out what the next transactions put into a log, `times` times, and make each COMMIT fail; then let be."""
    await as_superuser(database, _TAKE.format(log=log, times=times, path=_LOOT_PATH))


async def taken(database: Owned, times: int) -> list[Loot]:
    """Return what `take_and_abort` got hold of."""
    loot = []
    for turn in range(1, times + 1):
        content = await ask_superuser(database, f"SELECT pg_read_file({_LOOT_PATH} || $1::text)", str(turn))
        document = json.loads(bytes.fromhex(content))
        loot.append(Loot(document["note"], [bytes.fromhex(leaf) for leaf in document["leaves"]]))
    return loot


# ---- what a failing COMMIT shows -------------------------------------------------------------------------

_TAKE_ALL = """
CREATE SEQUENCE thefts;
CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    turn bigint := nextval('thefts');
    loot jsonb := '{{}}';
    name text;
    content jsonb;
BEGIN
    IF turn > {times} THEN
        RETURN NULL;
    END IF;
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('SELECT coalesce(jsonb_agg(to_jsonb(t)), ''[]'') FROM %I AS t', name) INTO content;
        loot := loot || jsonb_build_object(name, content);
    END LOOP;
    EXECUTE format('COPY (SELECT %L) TO %L', encode(convert_to(loot::text, 'UTF8'), 'hex'), {path} || turn);
    RAISE EXCEPTION 'taken' USING ERRCODE = 'serialization_failure';
END $$;
CREATE CONSTRAINT TRIGGER take AFTER INSERT ON {log}_checkpoints
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION take();
"""

Rows: TypeAlias = dict[str, list[dict[str, Any]]]
"""All rows of all tables, by table; `bytea` as PostgreSQL writes it, `\\x` and hex digits."""


async def take_all_and_abort(database: Owned, log: str, times: int) -> None:
    """Copy every row that the next transactions on a log see, `times` times, and make each COMMIT fail."""
    await as_superuser(database, _TAKE_ALL.format(log=log, times=times, path=_LOOT_PATH))


async def all_taken(database: Owned, times: int) -> list[Rows]:
    """Return what `take_all_and_abort` got hold of."""
    query = f"SELECT pg_read_file({_LOOT_PATH} || $1::text)"
    return [json.loads(bytes.fromhex(await ask_superuser(database, query, str(turn + 1)))) for turn in range(times)]


# ---- history ---------------------------------------------------------------------------------------------

_TABLES: Final = (
    "trust_statements",
    "escrow_statements",
    "records",
    "requests",
    "releases",
    *(f"{log}_{part}" for log in ("escrow", "recovery") for part in ("leaves", "nodes", "checkpoints")),
)
UNGUARDED: Final = "SET session_replication_role = replica; "
"""Before other commands: no foreign key and no trigger holds the attacker back."""


async def dump(database: Owned) -> str:
    """Return a dump of all rows, as `pg_dump` writes it."""
    parts = urlsplit(database.superuser_url)
    plain = urlunsplit(parts._replace(netloc=f"{parts.username}@{parts.hostname}:{parts.port}"))
    tables = [f"--table={name}" for name in _TABLES]
    password = unquote(parts.password or "")

    def run() -> str:
        return subprocess.run(
            [str(programs() / "pg_dump"), "--data-only", "--no-password", *tables, plain],
            capture_output=True,
            text=True,
            check=True,
            env={"PGPASSWORD": password, "PATH": SYSTEM_PATH, "LANG": "C.UTF-8"},
        ).stdout

    return await asyncio.to_thread(run)


async def restore(database: Owned, dumped: str) -> None:
    """Put the rows of a dump into the place of all that is there now."""
    script = f"{UNGUARDED}TRUNCATE {', '.join(_TABLES)} CASCADE;\n{dumped}"
    await asyncio.to_thread(psql, database.superuser_url, script)


async def leaves_of(database: Owned, log: str) -> list[bytes]:
    """Return the leaves of a log."""
    connection = await asyncpg.connect(database.superuser_url)
    try:
        return [row["leaf"] for row in await connection.fetch(f"SELECT leaf FROM {log}_leaves ORDER BY index")]  # noqa: S608
    finally:
        await connection.close()


async def remake_log(database: Owned, log: str, leaves: Sequence[bytes], head: str | None = None) -> None:
    """Make a log of these leaves, every hash to match; of its signed checkpoints those stay that are not beyond.

    `head` is a note to put over all of it; without one the newest checkpoint that was signed is the head.
    """
    _, nodes = tlog.append(tlog.Frontier.empty(), leaves)
    connection = await asyncpg.connect(database.superuser_url)
    try:
        async with connection.transaction():
            await connection.execute(f"DELETE FROM {log}_leaves; DELETE FROM {log}_nodes")  # noqa: S608
            await connection.execute(f"DELETE FROM {log}_checkpoints WHERE size > $1", len(leaves))  # noqa: S608
            await connection.executemany(f"INSERT INTO {log}_leaves VALUES ($1, $2)", list(enumerate(leaves)))  # noqa: S608
            rows = [(node.level, node.index, value) for node, value in nodes.items()]
            await connection.executemany(f"INSERT INTO {log}_nodes VALUES ($1, $2, $3)", rows)  # noqa: S608
            if head is not None:
                await connection.execute(f"DELETE FROM {log}_checkpoints WHERE size = $1", len(leaves))  # noqa: S608
                await connection.execute(f"INSERT INTO {log}_checkpoints VALUES ($1, $2)", len(leaves), head)  # noqa: S608
    finally:
        await connection.close()


async def freeze(database: Owned, log: str, role: str) -> None:
    """Show this role no checkpoint of a log but those that are there now; everybody else sees what follows."""
    table, size = f"{log}_checkpoints", await ask_superuser(database, f"SELECT max(size) FROM {log}_checkpoints")  # noqa: S608
    await as_superuser(
        database,
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY everybody ON {table} USING (true) WITH CHECK (true)",
        f"CREATE POLICY frozen ON {table} AS RESTRICTIVE FOR SELECT TO {role} USING (size <= {size})",
    )


async def thaw(database: Owned, log: str) -> None:
    """Let everybody see the log as it is."""
    await as_superuser(database, f"ALTER TABLE {log}_checkpoints DISABLE ROW LEVEL SECURITY")
