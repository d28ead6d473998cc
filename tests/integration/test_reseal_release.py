"""Keys that were sealed again, asked for as ever: the recovery worker gives what the owner signed for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.proving import Proven
from tests.support.recovery import Place, place_of
from tests.support.resealing import ACTIVE, CLOSED, OLD, adopt, change_key, reseal, retired
from tests.support.workers import Brokers, Databases

from strongroom.blobs import ReleaseContext, check_fingerprint, open_material
from strongroom.crypto.sealing import Suite
from strongroom.messages import Release
from strongroom.statements import Statement
from strongroom_recovery.reseal.retiring import put_aside
from strongroom_recovery.settings import ProverSettings


@pytest.fixture
async def at(database: Databases, broker: Brokers, tmp_path: Path) -> AsyncIterator[Proven]:
    async with place_of(database, broker, tmp_path, enrolled=(make.PRINCIPAL,)) as made:
        yield Proven(made, ProverSettings.model_validate(made.settings.model_dump()))


def opened(release: Release, request: Statement) -> list[bytes]:
    """Open what a release holds, as the requester does, fingerprints included."""
    key = ask.recipient(Suite.X_WING)
    materials = []
    for record in release.records:
        context = ReleaseContext(make.AUTHORITY, request.digest, record.principal, record.id, key.kid)
        material = open_material(record.blob, context, key)
        check_fingerprint(material, make.AUTHORITY, record.principal, record.id, record.fingerprint)
        materials.append(material.material.expose())
    return materials


@pytest.mark.parametrize("suite", Suite)
async def test_a_record_is_given_by_its_new_blob_when_the_old_key_is_gone(at: Proven, suite: Suite) -> None:
    """The old key is retired, its file is put aside, and the host notices nothing."""
    await at.escrow(make.escrow(records=[make.record(material=b"what was escrowed")]))
    key = await change_key(at, suite)
    await adopt(at, (key, ACTIVE), (OLD, CLOSED))
    await reseal(at)
    await at.look()
    assert (await retired(at, OLD.kid)).is_retired
    assert at.settings.sealing_keys_dir is not None
    put_aside(at.settings.sealing_keys_dir, OLD.kid)
    request = ask.request()
    async with at.place.worker():
        release = await at.place.release(request)
    assert opened(release, request) == [b"what was escrowed"]


@pytest.mark.parametrize("blob", ["''", "convert_to(repeat('x', 100000), 'UTF8')", "sha256('x')"])
async def test_a_damaged_new_blob_costs_nothing_while_the_old_key_is_there(at: Proven, blob: str) -> None:
    """The signed one opens; without its key the request is refused, and no other key is given."""
    place: Place = at.place
    await at.escrow(make.escrow(records=[make.record(material=b"what was escrowed")]))
    key = await change_key(at)
    await reseal(at)
    await at.edit(f"UPDATE resealed_blobs SET blob = {blob}")  # noqa: S608  the attacker's SQL
    request = ask.request()
    async with place.worker():
        release = await place.release(request)
    assert opened(release, request) == [b"what was escrowed"]
    await adopt(at, (key, ACTIVE), (OLD, CLOSED))
    assert at.settings.sealing_keys_dir is not None
    put_aside(at.settings.sealing_keys_dir, OLD.kid)
    async with place.worker():
        refusal = await place.rejection(ask.request().envelope())
    assert refusal.code in {"blob_invalid", "key_unknown"}
