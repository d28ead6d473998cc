"""Whoever owns the database server: may change any row, and knows none of the keys."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Protocol

import asyncpg

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
