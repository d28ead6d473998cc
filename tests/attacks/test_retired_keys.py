"""A sealing key that a record needs is not retired, whatever the database's owner makes the record look like."""

from pathlib import Path
from uuid import UUID

import pytest
from tests.conftest import FreshDatabase
from tests.integration.test_prover import UNREADABLE
from tests.support import authority as make
from tests.support.attacker import as_superuser, ask_superuser
from tests.support.proving import Proven, named, proven_place
from tests.support.resealing import (
    ACTIVE,
    CLOSED,
    OLD,
    adopt,
    change_key,
    kept,
    reseal,
    retired,
    retirements,
    write_key,
)

from strongroom.errors import UsageError


@pytest.fixture
async def at(database: FreshDatabase, tmp_path: Path) -> Proven:
    """A place with a prover, two enrolled hosts, and one sealing key."""
    return await proven_place(database, tmp_path)


async def test_a_garbage_row_does_not_make_a_record_one_that_can_be_given_up(at: Proven) -> None:
    """The newest blob does not open, which is all that the prover says; the first one does, by the old key."""
    [victim, _other] = await at.keys(2)
    key = await change_key(at)
    await ask_superuser(
        at.databases,
        "INSERT INTO resealed_blobs VALUES ($1, $2, $3, '\\x00', 0)",
        UUID(victim.id),
        key.kid,
        key.suite.value,
    )
    await reseal(at)
    await adopt(at, (key, ACTIVE), (OLD, CLOSED))
    assert named(await at.look()) == {(0, victim.id, "blob_invalid")}
    with pytest.raises(UsageError, match=f"{victim.id}: sealing key {OLD.kid} opens it"):
        await retired(at, OLD.kid, victim.id)
    assert await retirements(at) == []
    assert (await kept(at)).opens(OLD)[victim.id] == b"a session key"


async def test_nor_does_one_that_hides_a_blob_which_was_sealed_again(at: Proven) -> None:
    """The signed blob is of a key before; the one between is what opens, and is not the newest."""
    [victim] = await at.keys(1)
    second = await change_key(at)
    await reseal(at)
    third = make.sealing_key("a third one")
    write_key(at, third)
    await adopt(at, (third, ACTIVE), (second, CLOSED), (OLD, CLOSED))
    await ask_superuser(
        at.databases,
        "INSERT INTO resealed_blobs VALUES ($1, $2, $3, '\\x00', 1000)",
        UUID(victim.id),
        third.kid,
        third.suite.value,
    )
    assert named(await at.look()) == {(0, victim.id, "blob_invalid")}
    for key in (second, OLD):
        with pytest.raises(UsageError, match="opens it"):
            await retired(at, key.kid, victim.id)
    assert await retirements(at) == []


async def test_a_row_of_the_index_that_is_gone_for_a_while_does_not_either(at: Proven) -> None:
    """The prover says that the index does not have it; the signed statement does, and the old key opens it."""
    [victim, _other] = await at.keys(1, 1)
    key = await change_key(at)
    await at.edit(f"UPDATE records SET name = 'another' WHERE id = '{victim.id}'")  # noqa: S608  an attacker's SQL
    await reseal(at)
    await adopt(at, (key, ACTIVE), (OLD, CLOSED))
    assert named(await at.look()) == {(0, victim.id, "proof_invalid")}
    with pytest.raises(UsageError, match="opens it"):
        await retired(at, OLD.kid, victim.id)
    assert await retirements(at) == []


async def test_a_statement_that_is_taken_away_for_the_moment_is_missed(at: Proven) -> None:
    """It was there when the prover looked: what cannot be tried now is not given up on the strength of then."""
    [victim] = await at.keys(1)
    key = await change_key(at)
    await ask_superuser(
        at.databases,
        "INSERT INTO resealed_blobs VALUES ($1, $2, $3, '\\x00', 0)",
        UUID(victim.id),
        key.kid,
        key.suite.value,
    )
    await adopt(at, (key, ACTIVE), (OLD, CLOSED))
    assert named(await at.look()) == {(0, victim.id, "blob_invalid")}
    await at.edit("UPDATE escrow_statements SET leaf_index = 7000")
    with pytest.raises(UsageError, match="cannot be read any more"):
        await retired(at, OLD.kid, victim.id)
    assert await retirements(at) == []


async def test_what_the_database_cannot_read_may_be_given_up(at: Proven) -> None:
    """Nothing can be tried there, and the prover has said so of the whole statement."""
    await at.keys(1, 1)
    key = await change_key(at)
    await as_superuser(at.databases, UNREADABLE)
    await reseal(at)
    await adopt(at, (key, ACTIVE), (OLD, CLOSED))
    assert named(await at.look()) == {(1, None, "proof_invalid")}
    assert (await retired(at, OLD.kid, "leaf:1")).is_retired
