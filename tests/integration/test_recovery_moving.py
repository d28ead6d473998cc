"""Requests that move keys to another authority, decided by a real recovery worker."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.test_recovery_approvals import done, officers_request, waits, with_policy
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.recovery import Place, place_of
from tests.support.workers import Brokers, Databases
from tests.unit.recovery.test_moving import NEW_NAME, THERE, WRAPPING

from strongroom.blobs import BlobContext, check_fingerprint, open_material
from strongroom.limits import KEY_MATERIAL_BYTES_MAX
from strongroom.messages import Destination, Listing, Record, RecordState
from strongroom.statements import Statement

MATERIAL = b"a session key"


@pytest.fixture
async def place(database: Databases, broker: Brokers, tmp_path: Path) -> AsyncIterator[Place]:
    """A place with four officers and a host."""
    async with place_of(database, broker, tmp_path, enrolled=(make.PRINCIPAL,)) as made:
        made.write_roster(make.next_roster(made.roster, **with_policy()))
        yield made


def move_request(*records: Record) -> Statement:
    destination = Destination(authority=THERE, principal=NEW_NAME)
    return officers_request(records=[each.id for each in records], destination=destination)


async def test_a_move_needs_the_approvals_of_an_officers_request_and_seals_for_there(place: Place) -> None:
    """Nothing before two agree; then keys that open there, on record as a disclosure here."""
    records = [make.record(material=MATERIAL), make.record(material=MATERIAL, name="other")]
    await place.escrow(make.escrow(records=records))
    request = move_request(*records)
    async with place.worker():
        await waits(place, request)
        await done(place, ask.approval(request, "officer-b"))
        await waits(place, request)
        await done(place, ask.approval(request, "officer-c"))
        release = await place.release(request)
        again = await place.release(request)
        listing = place.signed(await place.ask(ask.listing_request().envelope()), Listing)
    assert again == release
    assert [each.id for each in release.records] == [each.id for each in records]
    key = ask.recipient()
    for given in release.records:
        opened = open_material(given.blob, BlobContext(THERE, NEW_NAME, given.id, key.kid, key.suite), key)
        assert opened.material.expose() == MATERIAL
        assert given.moved_fingerprint is not None
        check_fingerprint(opened, THERE, NEW_NAME, given.id, given.moved_fingerprint)
    assert {each.state for each in listing.records} == {RecordState.DISCLOSED}


async def test_what_cannot_be_moved_is_refused_before_anybody_agrees(place: Place) -> None:
    """A wrapped key among others, and more than one release holds; it is on record, and nothing is released."""
    plain, wrapped = make.record(material=MATERIAL), make.record(wrapping=WRAPPING)
    await place.escrow(make.escrow(records=[plain, wrapped]))
    large = [make.record(material=bytes(KEY_MATERIAL_BYTES_MAX)) for _ in range(12)]
    await place.escrow(*(make.escrow(records=large[start : start + 4]) for start in (0, 4, 8)))
    async with place.worker():
        denied = await place.refusal(move_request(plain, wrapped))
        too_much = await place.refusal(move_request(*large))
        await waits(place, move_request(plain))
        await waits(place, move_request(*large[:11]))
    assert denied.code == "denied"
    assert wrapped.id in denied.message
    assert too_much.code == "limit_exceeded"
    assert "release" not in [leaf.type for leaf in await place.log()]
