"""Whoever owns the database makes COMMIT fail, or shows one worker an old state of a log that is genuine."""

import json
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress

import pytest
from structlog.testing import capture_logs
from tests.attacks.conftest import MATERIAL, Stage
from tests.integration.test_recovery_approvals import approved, done, material, officers_request
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.agents import key
from tests.support.attacker import Rows, all_taken, freeze, take_all_and_abort, take_and_abort, taken, thaw
from tests.support.recovery import Place

from strongroom.blobs import ReleaseContext, open_material
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, CheckpointInvalid, Rejected
from strongroom.fields import parse_body
from strongroom.limits import HISTORY_RECORDS_MAX
from strongroom.messages import Request
from strongroom.receipts import verify
from strongroom.statements import Statement
from strongroom_agent import KeyToEscrow


def byte_strings(value: object) -> Iterator[bytes]:
    """Give every byte string in a JSON document: the database's hex, envelopes' base64, documents inside those."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from byte_strings(each)
    elif isinstance(value, str):
        for decoded in _decodings(value):
            yield decoded
            with suppress(ValueError):
                document = json.loads(decoded)
                if isinstance(document, dict | list):
                    yield from byte_strings(document)


def _decodings(text: str) -> Iterator[bytes]:
    with suppress(ValueError):
        if text.startswith("\\x"):
            yield bytes.fromhex(text[2:])
    with suppress(ValueError):
        yield b64decode(text, validate=True)


def opened(rows: Rows, request: Statement, records: list[str]) -> list[bytes]:
    """Return what the requester's one-time key opens of all that is in these rows."""
    body, key_pair, found = parse_body(request, Request), ask.recipient(), []
    for candidate in set(byte_strings(rows)):
        for record in records:
            place = ReleaseContext(make.AUTHORITY, request.digest, body.principal, record, key_pair.kid)
            with suppress(BlobInvalid):
                found.append(open_material(candidate, place, key_pair).material.expose())
    return found


async def all_rows(place: Place) -> Rows:
    """Return every row of every table, as `all_taken` does."""
    tables = [
        row["tablename"] for row in await place.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    ]
    return {
        name: [json.loads(row["j"]) for row in await place.rows(f"SELECT to_jsonb(t)::text AS j FROM {name} AS t")]  # noqa: S608
        for name in tables
    }


@pytest.mark.parametrize("is_officers", [False, True], ids=["a host's request", "an approved request"])
async def test_a_release_whose_commit_he_makes_fail_gives_him_nothing(place: Place, *, is_officers: bool) -> None:
    """He copies all rows out of the entry's failing COMMIT; not even the requester's one-time key opens them."""
    request = officers_request() if is_officers else ask.request()
    records = [str(row["id"]) for row in await place.rows("SELECT id FROM records")]
    async with place.worker():
        if is_officers:
            await approved(place, request)
        before = len(await place.log())
        await take_all_and_abort(place.databases, "recovery", times=1)
        release = await place.release(request)
    (loot,) = await all_taken(place.databases, times=1)
    assert len(loot["recovery_leaves"]) > before
    assert opened(loot, request, records) == []
    # The search does find what is there to be found: after the entry, the release.
    assert opened(await all_rows(place), request, records) == [MATERIAL]
    assert material(release, request) == MATERIAL


async def test_an_entry_whose_commit_he_makes_fail_is_no_proof_of_anything(place: Place) -> None:
    """He takes note and leaves of a release and a revocation out of the failing COMMIT: nobody accepts them."""
    log, request = place.roster.body.logs.recovery, ask.request()
    async with place.worker():
        await take_and_abort(place.databases, "recovery", times=2)
        await place.release(request)
        await done(place, make.revocation())
    for loot in await taken(place.databases, times=2):
        for forged in loot.receipts(log.origin):
            with pytest.raises(CheckpointInvalid):
                verify(forged.to_document(), log.public_key, log.origin)
    assert len([leaf for leaf in await place.log() if leaf.type in {"release", "revocation"}]) == 2


# ---- a frozen view ---------------------------------------------------------------------------------------


THIEFS = KeyToEscrow(material=Secret(b"a key that only the thief knows"), name="disk", kind="disk-key")


@pytest.mark.parametrize("how", ["replaced", "revoked"])
async def test_a_key_that_goes_on_escrowing_before_a_frozen_log_is_not_the_newest(stage: Stage, how: str) -> None:
    """He hides a replacement or revocation from the escrow worker: the genuine key comes back, with an error."""
    place = stage.place
    async with place.worker(), stage.escrowing():
        with await stage.host("stolen") as host:
            assert (await host.escrow([key()])).stored == 1
        await freeze(place.databases, "recovery", "strongroom_escrow")
        place.now += 1
        if how == "revoked":
            await done(place, make.revocation(issued_at=place.now))
        place.now += 1
        with await stage.host("reinstalled", replaces=True) as host:
            place.now += 1_000
            with stage.agent("stolen") as thief:
                assert (await thief.escrow([THIEFS])).stored == 1
            with capture_logs() as lines:
                recovered = await host.recover(name="disk")
    assert [each.material.expose() for each in recovered.keys] == [key().material.expose()]
    assert len(recovered.history) == 2
    (line,) = [line for line in lines if line["event"] == "escrow by a key that was not in force"]
    assert (line["log_level"], line["principal"]) == ("error", make.PRINCIPAL)


async def test_the_escrow_worker_sees_a_thawed_log_at_once(stage: Stage) -> None:
    """Once he stops hiding it, the thief's next key is refused; what he was shown is no way back either."""
    place = stage.place
    async with place.worker(), stage.escrow_worker():
        with await stage.host("stolen") as thief:
            await freeze(place.databases, "recovery", "strongroom_escrow")
            place.now += 1
            await done(place, make.revocation(issued_at=place.now))
            await thaw(place.databases, "recovery")
            delivery = await thief.escrow([THIEFS])
    assert (delivery.stored, delivery.rejected) == (0, 1)
    assert await place.quarantined() == ["principal_revoked"]


async def test_a_former_key_does_not_crowd_the_genuine_record_out_of_its_name(stage: Stage) -> None:
    """He escrows as many records as a history holds, before a frozen log: none comes by name, the genuine by id."""
    place = stage.place
    async with place.worker(), stage.escrow_worker():
        with await stage.host("stolen") as host:
            genuine = await host.escrow([key()])
        await freeze(place.databases, "recovery", "strongroom_escrow")
        place.now += 1
        with await stage.host("reinstalled", replaces=True) as host:
            place.now += 1_000
            with stage.agent("stolen") as thief:
                delivery = await thief.escrow([THIEFS] * HISTORY_RECORDS_MAX)
                assert delivery.spooled == delivery.rejected == 0
            with capture_logs() as lines, pytest.raises(Rejected) as refused:
                await host.recover(name="disk")
            recovered = await host.recover(records=[genuine.records[0].facts.id])
    assert refused.value.remote_code == "proof_invalid"
    assert "error" in {line["log_level"] for line in lines if line["event"] == "message"}
    assert recovered.keys[0].material.expose() == key().material.expose()
