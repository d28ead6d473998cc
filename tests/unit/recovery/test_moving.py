"""Keys on their way to another authority: they open there, in one place and to one key, and nowhere else."""

from typing import Any

import pytest
from tests.support import authority as make
from tests.support import requests as ask
from tests.unit.recovery.test_release import KEYRING, MATERIAL, stored

from strongroom.blobs import BlobContext, check_fingerprint, open_material
from strongroom.crypto.sealing import Suite
from strongroom.errors import BlobInvalid, Denied, FingerprintMismatch, LimitExceeded
from strongroom.fields import Capacity
from strongroom.limits import BODY_BYTES_MAX, KEY_MATERIAL_BYTES_MAX
from strongroom.messages import Destination, ReleasedRecord, Request, WrappedFormat, Wrapping
from strongroom_recovery import release
from strongroom_recovery.moving import check_movable
from strongroom_recovery.records import StoredRecord

THERE, NEW_NAME = "new.example.org", "desktop-0001"
DIGEST = bytes(range(32))
WRAPPING = Wrapping(format=WrappedFormat.CMS, padding="oaep", kid="0" * 32, digest="0" * 64)


def move_request(*records: StoredRecord, suite: Suite = Suite.X_WING, **changes: Any) -> Request:
    """Return an officer's request to move these records to a sealing key of the other authority."""
    members: dict[str, Any] = {
        "requester": "officer-a",
        "requester_kind": Capacity.OFFICER,
        "records": [each.record.id for each in records],
        "recipient_suite": suite,
        "recipient_key": ask.recipient(suite).public_key,
        "destination": Destination(authority=THERE, principal=NEW_NAME),
    }
    return ask.request_body(**(members | changes))


def moved(record: StoredRecord, *, suite: Suite = Suite.X_WING) -> ReleasedRecord:
    body = release.build(
        move_request(record, suite=suite),
        DIGEST,
        [record],
        history=[],
        keyring=KEYRING,
        roster_version=1,
        now=make.NOW,
    )
    return body.records[0]


@pytest.mark.parametrize("suite", list(Suite))
def test_a_moved_key_is_the_same_key_in_its_place_over_there(suite: Suite) -> None:
    """It opens under the other authority's key and principal, and its new fingerprint is of that place."""
    record, key = stored(), ask.recipient(suite)
    given = moved(record, suite=suite)
    there = BlobContext(THERE, NEW_NAME, record.record.id, key.kid, suite)
    opened = open_material(given.blob, there, key)
    assert opened.material.expose() == MATERIAL
    assert given.moved_fingerprint is not None
    check_fingerprint(opened, THERE, NEW_NAME, record.record.id, given.moved_fingerprint)
    assert given.fingerprint == record.record.fingerprint
    with pytest.raises(FingerprintMismatch):
        check_fingerprint(opened, THERE, NEW_NAME, record.record.id, given.fingerprint)


@pytest.mark.parametrize(
    "change",
    [{"authority": make.AUTHORITY}, {"principal": make.PRINCIPAL}, {"record_id": make.record().id}],
)
def test_a_moved_key_opens_in_no_other_place(change: dict[str, str]) -> None:
    """Neither here, nor under another name there, nor as another record."""
    record, key = stored(), ask.recipient()
    members: dict[str, Any] = {
        "authority": THERE,
        "principal": NEW_NAME,
        "record_id": record.record.id,
        "kid": key.kid,
        "suite": key.suite,
    }
    with pytest.raises(BlobInvalid):
        open_material(moved(record).blob, BlobContext(**(members | change)), key)


def test_a_wrapped_key_stays_where_its_transport_key_is() -> None:
    """One wrapped record among others refuses the whole request."""
    plain = stored()
    wrapped = stored(make.record(wrapping=WRAPPING))
    check_movable(move_request(plain), [plain])
    with pytest.raises(Denied, match=wrapped.record.id):
        check_movable(move_request(plain, wrapped), [plain, wrapped])


@pytest.mark.parametrize("suite", list(Suite))
def test_more_than_a_release_holds_is_refused_before_anybody_agrees(suite: Suite) -> None:
    """What passes fits into a release, and what does not would not have fitted by much."""
    large = [stored(make.record(material=bytes(KEY_MATERIAL_BYTES_MAX))) for _ in range(12)]
    with pytest.raises(LimitExceeded, match="the limit is"):
        check_movable(move_request(*large, suite=suite), large)
    passing = large[:11]
    request = move_request(*passing, suite=suite)
    check_movable(request, passing)
    body = release.build(request, DIGEST, passing, history=[], keyring=KEYRING, roster_version=1, now=make.NOW)
    assert len(body.to_bytes()) <= BODY_BYTES_MAX
