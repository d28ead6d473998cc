"""Odd rows of blobs that were sealed again: nobody falls over them, and the keys that are there are given back."""
# ruff: noqa: S608  the attacker's SQL is put together on purpose

from pathlib import Path

import pytest
from tests.conftest import FreshDatabase
from tests.support import authority as make
from tests.support.proving import Proven, proven_place
from tests.support.resealing import OLD, change_key, kept, reseal, retired

from strongroom.database import connect
from strongroom_recovery.reseal.counting import count

ROWS = {
    "nothing in it": "'{id}', '{kid}', 'x-wing', '', 7",
    "of no suite": "'{id}', '{kid}', repeat('x', 3000000), '\\x00', 7",
    "too long": "'{id}', '{kid}', 'x-wing', convert_to(repeat('x', 20000000), 'UTF8'), 7",
    "of a key that is none": "'{id}', E'\\x1b]0;\\x07\\n' || repeat('k', 3000000), 'x-wing', '\\x00', 7",
    "newer than all": "'{id}', '{kid}', 'x-wing', '\\x00', 9223372036854775807",
    "null everywhere": "'{id}', NULL, NULL, NULL, NULL",
    "of no record": "'019b2c7e-7a10-7c3e-9d57-1f4e6a0b8c21', '{kid}', 'x-wing', '\\x00', 7",
}
LAX = (
    "DROP INDEX resealed_blobs_newest",
    "ALTER TABLE resealed_blobs DROP CONSTRAINT resealed_blobs_pkey",
    *(
        f"ALTER TABLE resealed_blobs ALTER {column} DROP NOT NULL"
        for column in ("record_id", "kid", "suite", "blob", "leaf_index")
    ),
)


@pytest.fixture
async def at(database: FreshDatabase, tmp_path: Path) -> Proven:
    """A place with a prover, two enrolled hosts, and one sealing key."""
    return await proven_place(database, tmp_path)


@pytest.mark.parametrize("row", ROWS)
async def test_an_odd_row_stops_nobody(at: Proven, row: str) -> None:
    """The prover says of that record at most that it does not open; the others are sealed again, the key stays."""
    victim, other = await at.keys(1, 1)
    key = await change_key(at)
    await at.edit(*LAX, f"INSERT INTO resealed_blobs VALUES ({ROWS[row].format(id=victim.id, kid=key.kid)})")
    assert {each.record for proof in await at.look() for each in proof.unprovable} <= {victim.id}
    progress = await reseal(at)
    assert {each.record for each in progress.troubles} <= {victim.id}
    async with connect(at.settings.database_url.get_secret_value()) as opened:
        counted = await count(opened, make.signing_key("root").public_key, at.place.roster)
    assert sum(each.records for each in counted) >= 2
    assert all(each.kid.isprintable() for each in counted)
    assert not (await retired(at, OLD.kid)).is_retired
    await at.edit(
        "DELETE FROM resealed_blobs WHERE octet_length(blob) IS NULL OR octet_length(blob) NOT BETWEEN 99 AND 9999"
    )
    await reseal(at, again=True)
    assert other.id in (await kept(at)).opens(key)
    assert (await kept(at)).opens(OLD).keys() == {victim.id, other.id}
