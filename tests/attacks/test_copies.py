"""Keys that other programs wrapped are as good as a copy of them: whoever escrowed one first has it, nobody else.

An enrolled host has got hold of another's wrapped bytes; the database's owner helps it.
"""
# ruff: noqa: S608  the attacker's SQL is put together on purpose

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.support import authority as make
from tests.support import cms
from tests.support import wrapped as given
from tests.support.proving import named
from tests.support.workers import Brokers, Databases
from tests.support.wrapped_stage import OTHER, Stage, contents, officers_unwrapping, stage_of, unwrapping

from strongroom.crypto.rsa import Padding
from strongroom.formats.alg_id import SessionAlgorithm
from strongroom.formats.cms import EnvelopedData
from strongroom.formats.cryptoapi import SimpleBlob
from strongroom.messages import Record, WrappedFormat

KEY = bytes(range(32))
FIRST = "another principal escrowed this wrapped key first"


@pytest.fixture
async def stage(database: Databases, broker: Brokers, tmp_path: Path) -> AsyncIterator[Stage]:
    """A place with both workers, a transport key for SIMPLEBLOBs and one for CMS messages, and two hosts."""
    async with stage_of(database, broker, tmp_path) as made:
        yield made


# ---- an enrolled host ----


BLOB = given.simple_blob(KEY, Padding.PKCS1)
MESSAGE = cms.vector("key-identifier.der")
ENCRYPTED = EnvelopedData.parse(MESSAGE).recipients[0].encrypted_key


def copied(material: bytes, kind: WrappedFormat, padding: str = "pkcs1", kid: str = given.CMS.kid) -> Record:
    return given.record(
        OTHER, material=material, says=given.wrapping(material, format=kind, padding=padding, kid=kid)
    )


def other_algorithm() -> Record:
    """The victim's SIMPLEBLOB, said to be of RC4: nothing vouches for that field."""
    material = SimpleBlob(SessionAlgorithm.RC4, SimpleBlob.parse(BLOB).ciphertext).encode()
    return copied(material, WrappedFormat.CRYPTOAPI_SIMPLE, kid=given.SIMPLE.kid)


COPIES: dict[str, Callable[[], Record]] = {
    "as it is": lambda: copied(BLOB, WrappedFormat.CRYPTOAPI_SIMPLE, kid=given.SIMPLE.kid),
    "another algorithm": other_algorithm,
    "another padding": lambda: copied(BLOB, WrappedFormat.CRYPTOAPI_SIMPLE, "oaep", given.SIMPLE.kid),
    "another transport key": lambda: copied(BLOB, WrappedFormat.CRYPTOAPI_SIMPLE),
    "around another content": lambda: copied(
        cms.Message(
            recipients=[cms.Recipient(key=cms.tlv(0x04, ENCRYPTED)).encode()],
            content=cms.tlv(0x80, bytes(64)),
        ).encode(),
        WrappedFormat.CMS,
    ),
    "out of a message": lambda: copied(
        SimpleBlob(SessionAlgorithm.AES_256, ENCRYPTED).encode(), WrappedFormat.CRYPTOAPI_SIMPLE
    ),
    "in a packet": lambda: copied(b"\0volume_key\1" + MESSAGE, WrappedFormat.VOLUME_KEY),
}


@pytest.mark.parametrize("guise", COPIES)
async def test_a_copied_wrapped_key_is_refused_in_every_guise(stage: Stage, guise: str) -> None:
    """What counts is the encrypted key, whatever is put around it; the copy lies in quarantine, and why."""
    victims = [
        given.record(material=BLOB, says=given.wrapping(BLOB, padding="pkcs1")),
        given.record(
            material=MESSAGE,
            says=given.wrapping(MESSAGE, format=WrappedFormat.CMS, padding="pkcs1", kid=given.CMS.kid),
        ),
    ]
    async with stage.workers():
        await stage.escrow(make.PRINCIPAL, *victims)
        rejection = await stage.rejected(make.escrow(OTHER, records=[COPIES[guise]()]))
        assert await stage.unwrapped(make.PRINCIPAL, victims) == [KEY, cms.CONTENT]
    assert rejection is not None
    assert (rejection.code, FIRST in rejection.message) == ("record_conflict", True)
    assert await stage.quarantined() == [("record_conflict", rejection.message)]
    assert await stage.place.rows("SELECT FROM records WHERE principal = $1", OTHER) == []


async def test_a_lie_about_the_digest_opens_nothing(stage: Stage) -> None:
    """It gets past the escrow worker, who cannot look inside. No officer's approval has it unwrapped."""
    victim = given.record(material=BLOB, says=given.wrapping(BLOB, padding="pkcs1"))
    lie = given.record(OTHER, material=BLOB, says=given.wrapping(BLOB, padding="pkcs1", digest="ab" * 32))
    async with stage.workers():
        await stage.escrow(make.PRINCIPAL, victim)
        await stage.escrow(OTHER, lie)
        for request in (unwrapping(OTHER, lie), officers_unwrapping(OTHER, lie)):
            await stage.waits(request)
            await stage.approve(request)
            assert (await stage.place.refusal(request)).code == "blob_invalid"
    assert await stage.place.rows("SELECT FROM releases") == []
    assert named(await stage.proven.look()) == {(1, lie.id, "blob_invalid")}


# ---- with the database's owner ----


async def both_have_it(stage: Stage) -> tuple[Record, Record]:
    """Let the victim escrow, its row be hidden, and the thief escrow the copy; return both records."""
    victim = given.record(material=BLOB, says=given.wrapping(BLOB, padding="pkcs1"))
    copy = COPIES["as it is"]()
    await stage.escrow(make.PRINCIPAL, victim)
    await stage.edit("UPDATE records SET wrapped = NULL")
    await stage.escrow(OTHER, copy)
    return victim, copy


async def test_hiding_that_a_wrapped_key_was_escrowed_is_found_and_takes_it_from_nobody(stage: Stage) -> None:
    """The copy is taken. The owner has its key unwrapped all the same; the prover names the row that was edited."""
    async with stage.workers():
        victim, _copy = await both_have_it(stage)
        assert await stage.unwrapped(make.PRINCIPAL, [victim]) == [KEY]
    at = stage.proven
    assert named(await at.look()) == {(0, victim.id, "proof_invalid")}
    assert any(line["log_level"] == "error" for line in at.lines)


async def test_a_copy_that_was_taken_is_not_unwrapped_once_the_row_is_mended(stage: Stage) -> None:
    """Approved or not: the first escrow is asked for at every request, not only when the copy came."""
    async with stage.workers():
        victim, copy = await both_have_it(stage)
        request = unwrapping(OTHER, copy)
        await stage.waits(request)
        await stage.approve(request)
        await stage.edit(f"UPDATE records SET wrapped = '\\x{given.digest_of(BLOB)}' WHERE id = '{victim.id}'")
        refused = await stage.place.refusal(request)
        second = await stage.place.refusal(officers_unwrapping(OTHER, copy))
    assert refused.code == second.code == "record_conflict"
    assert await stage.place.rows("SELECT FROM releases") == []


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE records SET leaf_index = leaf_index + 10 WHERE principal = '{victim}'",
        "UPDATE records SET leaf_index = 0 WHERE principal = '{thief}'",
        "UPDATE records SET leaf_index = CASE WHEN principal = '{thief}' THEN 0 ELSE 1 END",
    ],
)
async def test_rows_in_another_order_take_a_wrapped_key_from_nobody(stage: Stage, edit: str) -> None:
    """Which escrow was first is read from the log: the owner is answered, whatever its row says."""
    async with stage.workers():
        victim, _copy = await both_have_it(stage)
        await stage.edit(
            f"UPDATE records SET wrapped = '\\x{given.digest_of(BLOB)}'",
            edit.format(victim=make.PRINCIPAL, thief=OTHER),
        )
        assert await stage.unwrapped(make.PRINCIPAL, [victim]) == [KEY]


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE records SET wrapped = '{wrapped}' WHERE principal = '{thief}'",
        "UPDATE records SET wrapped = '{wrapped}', statement_id = gen_random_uuid() WHERE principal = '{thief}'",
        "UPDATE records SET wrapped = '{wrapped}', principal = 'nobody-here' WHERE principal = '{thief}'",
    ],
    ids=["another key", "no statement", "nobody"],
)
async def test_a_row_made_up_of_a_first_escrow_does_not_refuse_the_owner(stage: Stage, edit: str) -> None:
    """The first record is verified like any other: a false one decides nothing, and the request goes on later."""
    victim = given.record(material=BLOB, says=given.wrapping(BLOB, padding="pkcs1"))
    request = unwrapping(make.PRINCIPAL, victim)
    async with stage.workers():
        await stage.escrow(OTHER, make.record(OTHER))
        await stage.escrow(make.PRINCIPAL, victim)
        await stage.waits(request)
        await stage.approve(request)
        wrapped = f"\\x{given.digest_of(BLOB)}"
        await stage.edit(edit.format(wrapped=wrapped, thief=OTHER))
        assert (await stage.place.refusal(request)).code == "proof_invalid"
        await stage.edit(f"UPDATE records SET wrapped = NULL WHERE id <> '{victim.id}'")
        assert contents(await stage.place.release(request), request) == [KEY]
