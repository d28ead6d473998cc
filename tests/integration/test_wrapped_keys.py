"""Keys that other programs wrapped, on real servers: escrowed once, proven, unwrapped after an approval."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict
from tests.support import authority as make
from tests.support import cms
from tests.support import requests as ask
from tests.support import wrapped as given
from tests.support.cryptoapi import WRAPPED
from tests.support.proving import named
from tests.support.waiting import until
from tests.support.workers import Brokers, Databases
from tests.support.wrapped_stage import OTHER, Stage, contents, officers_unwrapping, stage_of, unwrapping

from strongroom.crypto.rsa import Padding
from strongroom.crypto.secret import Secret
from strongroom.errors import ConfigurationInvalid
from strongroom.formats.alg_id import SessionAlgorithm
from strongroom.formats.cryptoapi import PlaintextKeyBlob
from strongroom.leaves import RefusalLeaf
from strongroom.mandates import SealingKeyState
from strongroom.messages import Docket, Record, WrappedFormat
from strongroom_recovery import wiring

KEY = bytes(range(32))


@pytest.fixture
async def stage(database: Databases, broker: Brokers, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage_of(database, broker, tmp_path) as made:
        yield made


def simple(
    padding: Padding = Padding.OAEP, *, marked: Padding | None = None, principal: str = make.PRINCIPAL
) -> Record:
    """Return a record of a SIMPLEBLOB that holds KEY, marked with its own padding or another."""
    material = given.simple_blob(KEY, padding)
    return given.record(
        principal, material=material, says=given.wrapping(material, padding=(marked or padding).value)
    )


def message(name: str, padding: Padding, kind: WrappedFormat = WrappedFormat.CMS) -> Record:
    material = cms.vector(name)
    says = given.wrapping(material, format=kind, padding=padding.value, kid=given.CMS.kid)
    return given.record(material=material, says=says)


# ---- the way there and back ----


async def test_every_vector_goes_in_and_comes_out(stage: Stage) -> None:
    """All 14 SIMPLEBLOBs, CMS messages of two programs, a volume_key packet: proven, opened to their content."""
    blobs = [
        given.record(material=each.simple, says=given.wrapping(each.simple, padding=each.padding.value))
        for each in WRAPPED
    ]
    messages = [
        message("default.der", Padding.PKCS1),
        message("oaep-sha1.der", Padding.OAEP),
        message("oaep-sha256.der", Padding.OAEP),
        message("nss.ber", Padding.PKCS1),
    ]
    packet = message("volume-key-asymmetric.packet", Padding.PKCS1, WrappedFormat.VOLUME_KEY)
    async with stage.workers():
        await stage.escrow(make.PRINCIPAL, *blobs, *messages, packet)
        *opened, inside = await stage.unwrapped(make.PRINCIPAL, [*blobs, *messages, packet])
    plain = [PlaintextKeyBlob.parse(Secret(each.plaintext)).key.expose() for each in WRAPPED]
    assert opened == [*plain, *([cms.CONTENT] * 4)]
    assert inside
    [proof] = await stage.proven.look()
    assert (proof.records, proof.unprovable) == (19, [])


async def test_nothing_is_unwrapped_without_an_officer(stage: Stage) -> None:
    """Policy asks a host for nothing: it gets its bytes at once, and what is inside after one officer agreed."""
    record = simple()
    request, plain = unwrapping(make.PRINCIPAL, record), ask.request(records=[record.id])
    async with stage.workers():
        await stage.escrow(make.PRINCIPAL, record)
        [released] = (await stage.place.release(plain)).records
        first = await stage.waits(request)
        again = await stage.waits(request)
        question = ask.docket_request("officer-b")
        [entry] = stage.place.signed(await stage.place.ask(question.envelope()), Docket).entries
        await stage.approve(request)
        assert contents(await stage.place.release(request), request) == [KEY]
    assert released.unwrapped is None
    assert "unwrapping asks for 1, there are 0" in first.message
    assert again.message == first.message
    assert (entry.needed, entry.approvals) == (1, [])


async def test_an_officer_unwraps_with_as_many_approvals_as_ever(stage: Stage) -> None:
    """One by another officer, as policy asks here; its own does not count."""
    record = simple(Padding.PKCS1)
    request = officers_unwrapping(make.PRINCIPAL, record)
    async with stage.workers():
        await stage.escrow(make.PRINCIPAL, record)
        await stage.waits(request)
        own = await stage.place.rejection(ask.approval(request, "officer-a").envelope())
        assert own.code == "approval_invalid"
        await stage.approve(request)
        assert contents(await stage.place.release(request), request) == [KEY]


async def test_what_is_not_wrapped_cannot_be_unwrapped(stage: Stage) -> None:
    """A request that names one such record is malformed, and refused before anybody is asked to agree."""
    wrapped, plain = simple(), make.record()
    async with stage.workers():
        await stage.escrow(make.PRINCIPAL, wrapped, plain)
        rejection = await stage.place.refusal(unwrapping(make.PRINCIPAL, wrapped, plain))
    assert rejection.code == "malformed"
    assert plain.id in rejection.message


async def test_a_name_that_was_escrowed_wrapped_is_unwrapped_by_its_name(stage: Stage) -> None:
    """The newest of the name, as in any request."""
    record = simple()
    request = unwrapping(make.PRINCIPAL, records=None, name=record.name)
    async with stage.workers():
        await stage.escrow(make.PRINCIPAL, record)
        await stage.waits(request)
        await stage.approve(request)
        [released] = (await stage.place.release(request)).records
    assert released.id == record.id
    assert released.unwrapped is not None


# ---- one answer ----


async def test_a_blob_in_another_padding_than_it_was_marked_never_gives_its_key(stage: Stage) -> None:
    """v1.5 marked OAEP is `blob_invalid`, for good; OAEP marked v1.5 gives a key that opens nothing."""
    as_oaep, as_pkcs1 = simple(Padding.PKCS1, marked=Padding.OAEP), simple(Padding.OAEP, marked=Padding.PKCS1)
    refused = unwrapping(make.PRINCIPAL, as_oaep)
    async with stage.workers():
        await stage.escrow(make.PRINCIPAL, as_oaep, as_pkcs1)
        await stage.waits(refused)
        await stage.approve(refused)
        rejection = await stage.place.refusal(refused)
        [first] = await stage.unwrapped(make.PRINCIPAL, [as_pkcs1])
        [second] = await stage.unwrapped(make.PRINCIPAL, [as_pkcs1])
    assert rejection.code == "blob_invalid"
    assert rejection.message == f"record {as_oaep.id}: the wrapped key does not open as it was signed for"
    assert first == second
    assert len(first) == len(KEY)
    assert first != KEY
    [proof] = await stage.proven.look()
    assert proof.unprovable == []


def said(lines: Sequence[EventDict]) -> list[tuple[str, str, list[str]]]:
    """Return level, outcome and members of the recovery worker's lines."""
    messages = [line for line in lines if line["event"] != "batch"]
    return [(line["log_level"], line["outcome"], sorted(line)) for line in messages]


def has_said(lines: Sequence[EventDict], count: int) -> bool:
    return len(said(lines)) == count


async def test_no_log_line_and_no_leaf_says_whether_the_padding_was_good(stage: Stage) -> None:
    """A good v1.5 blob and one that is badly padded are told apart by nothing but the key itself."""
    records = {"good": simple(Padding.PKCS1), "bad": simple(Padding.OAEP, marked=Padding.PKCS1)}
    told = {}
    async with stage.workers():
        await stage.escrow(make.PRINCIPAL, *records.values())
        for name, record in records.items():
            before = len(await stage.place.log())
            with capture_logs() as lines:
                await stage.unwrapped(make.PRINCIPAL, [record])
                # The worker speaks after it has answered.
                await until(partial(has_said, lines, 3), "request, approval and release")
            told[name] = (said(lines), [leaf.type for leaf in (await stage.place.log())[before:]])
    assert told["good"] == told["bad"]


async def test_a_blob_that_says_another_algorithm_gives_nothing_of_the_key(stage: Stage) -> None:
    """A v1.5 blob of 32 bytes that says AES-128 holds a key of another length: 16 bytes that have nothing of it."""
    material = bytearray(given.simple_blob(KEY, Padding.PKCS1))
    material[4:8] = SessionAlgorithm.AES_128.to_bytes(4, "little")
    says = given.wrapping(bytes(material), padding="pkcs1")
    record = given.record(material=bytes(material), says=says)
    async with stage.workers():
        await stage.escrow(make.PRINCIPAL, record)
        [opened] = await stage.unwrapped(make.PRINCIPAL, [record])
    assert len(opened) == 16
    assert opened not in KEY


# ---- the first escrow wins ----


async def test_another_principals_copy_is_refused_and_set_aside(stage: Stage) -> None:
    """A signed rejection with the field, code and reason in quarantine, and no row; nobody is told whose it is."""
    material = given.simple_blob(KEY, Padding.OAEP)
    mine = given.record(material=material)
    copy = make.escrow(OTHER, records=[make.record(OTHER), given.record(OTHER, material=material)])
    async with stage.workers():
        await stage.escrow(make.PRINCIPAL, mine)
        rejection = await stage.rejected(copy)
        again = await stage.rejected(copy)
        # The owner may escrow it again, under a record of its own.
        await stage.escrow(make.PRINCIPAL, given.record(material=material))
    assert rejection is not None
    assert again is not None
    words = "records.1.wrapping.digest: another principal escrowed this wrapped key first"
    assert (rejection.code, rejection.message) == ("record_conflict", words)
    assert await stage.quarantined() == [("record_conflict", words)] * 2
    assert make.PRINCIPAL not in rejection.message
    rows = await stage.place.rows("SELECT principal, encode(wrapped, 'hex') AS wrapped FROM records")
    assert [tuple(row) for row in rows] == [(make.PRINCIPAL, given.digest_of(material))] * 2


async def test_a_repeat_of_a_wrapped_key_gets_its_receipt_again(stage: Stage) -> None:
    """The same statement, sent again, is no conflict with itself."""
    statement = make.escrow(records=[simple()])
    async with stage.workers():
        assert await stage.rejected(statement) is None
        assert await stage.rejected(statement) is None
    assert len(await stage.place.rows("SELECT FROM records")) == 1


async def test_of_copies_that_race_one_principals_is_stored(stage: Stage) -> None:
    """Two workers, both hosts at once, in one batch or in two: each wrapped key becomes one host's."""
    materials = [given.simple_blob(KEY, Padding.OAEP) for _ in range(24)]
    statements = [
        make.escrow(principal, records=[given.record(principal, material=material)])
        for material in materials
        for principal in (make.PRINCIPAL, OTHER)
    ]
    async with stage.workers(escrowing=2):
        answers = await asyncio.gather(*(stage.rejected(statement) for statement in statements))
    codes = [None if answer is None else answer.code for answer in answers]
    pairs = [set(codes[at : at + 2]) for at in range(0, len(codes), 2)]
    assert pairs == [{None, "record_conflict"}] * len(materials)
    rows = await stage.place.rows("SELECT wrapped, count(*) FROM records GROUP BY wrapped")
    assert sorted(row["count"] for row in rows) == [1] * len(materials)


async def test_a_closed_transport_key_is_not_taken_any_more(stage: Stage) -> None:
    """What was escrowed before is still unwrapped."""
    before = simple()
    closed = [given.entry(state=SealingKeyState.CLOSED), given.CMS]
    async with stage.workers():
        await stage.escrow(make.PRINCIPAL, before)
        stage.place.write_roster(make.next_roster(stage.roster, transport_keys=closed))
        assert await stage.unwrapped(make.PRINCIPAL, [before]) == [KEY]
        rejection = await stage.rejected(make.escrow(records=[simple()]))
    assert rejection is not None
    assert rejection.code == "key_unknown"


# ---- lies ----


async def test_who_lies_about_the_digest_has_nothing_proven_and_nothing_opened(stage: Stage) -> None:
    """The escrow worker cannot see inside: the copy is taken, found by the prover, and never unwrapped."""
    material = given.simple_blob(KEY, Padding.OAEP)
    mine = given.record(material=material)
    lie = given.record(OTHER, material=material, says=given.wrapping(material, digest="ab" * 32))
    request = unwrapping(OTHER, lie)
    async with stage.workers():
        await stage.escrow(make.PRINCIPAL, mine)
        await stage.escrow(OTHER, lie)
        await stage.waits(request)
        await stage.approve(request)
        rejection = await stage.place.refusal(request)
        leaf = (await stage.place.log())[-1]
    assert (rejection.code, isinstance(leaf, RefusalLeaf)) == ("blob_invalid", True)
    assert await stage.place.rows("SELECT * FROM releases") == []
    assert named(await stage.proven.look()) == {(1, lie.id, "blob_invalid")}


async def test_a_worker_does_not_start_without_the_transport_keys_of_its_roster(stage: Stage) -> None:
    """As with sealing keys; one that is closed need not be there."""
    keys = stage.place.settings.sealing_keys_dir
    assert keys is not None
    (keys / "simple.key").unlink()
    held = wiring.read_keys(stage.place.settings)
    with pytest.raises(ConfigurationInvalid, match=f"transport keys: {given.SIMPLE.kid}") as caught:
        held.check_usable(stage.roster)
    assert caught.value.hint
    closed = [given.entry(state=SealingKeyState.CLOSED), given.CMS]
    held.check_usable(make.next_roster(stage.roster, transport_keys=closed))


async def test_a_transport_key_that_is_missing_decides_nothing(stage: Stage) -> None:
    """The request goes on waiting: with the key back it is answered."""
    record, keys = simple(), stage.place.settings.sealing_keys_dir
    assert keys is not None
    request = unwrapping(make.PRINCIPAL, record)
    async with stage.workers():
        await stage.escrow(make.PRINCIPAL, record)
        await stage.waits(request)
        await stage.approve(request)
    closed = [given.entry(state=SealingKeyState.CLOSED), given.CMS]
    stage.place.write_roster(make.next_roster(stage.roster, transport_keys=closed))
    (keys / "simple.key").rename(keys / "simple.aside")
    async with stage.workers():
        assert (await stage.place.rejection(request.envelope())).code == "key_unknown"
    (keys / "simple.aside").rename(keys / "simple.key")
    async with stage.workers():
        assert contents(await stage.place.release(request), request) == [KEY]
