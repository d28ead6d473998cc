"""Releases: open a stored blob in its place, and seal the key to the requester's one-time key. Pure.

Key material exists inside `_reseal`, or inside whoever calls `opened`, and nowhere else. Errors are made anew
outside, because a traceback keeps the local variables of the function it passed through alive.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from strongroom.blobs import BlobContext, OpenedMaterial, ReleaseContext, check_fingerprint, open_material, reseal
from strongroom.crypto.keyring import Keyring
from strongroom.crypto.sealing import kid
from strongroom.errors import BlobInvalid, FingerprintMismatch, KeyUnknown, PermanentError
from strongroom.messages import HistoryEntry, Record, RecordDescription, Release, ReleasedRecord, Request
from strongroom_recovery.records import StoredRecord


def build(
    request: Request,
    request_digest: bytes,
    records: Iterable[StoredRecord],
    *,
    history: Sequence[HistoryEntry],
    keyring: Keyring,
    roster_version: int,
    now: int,
) -> Release:
    """Return the body of the release that answers a request with these records (SPEC 5.3).

    Arguments: the recipient key of `request` was checked; `request_digest` is 32 bytes; `now` in seconds.
    Raises BlobInvalid, FingerprintMismatch, KeyUnknown for a record whose key cannot be given back, or what a
    key device raises when it does not answer. Blocks for as long as such a device takes.
    """
    return Release(
        authority=request.authority,
        request=request.id,
        request_digest=request_digest.hex(),
        roster_version=roster_version,
        released_at=now,
        records=[_released(stored, request, request_digest, keyring) for stored in records],
        history=list(history),
    )


def description(record: Record) -> dict[str, Any]:
    """Return what its owner said about a record, by field name, without the blob."""
    return record.model_dump(include=set(RecordDescription.model_fields))


def _released(stored: StoredRecord, request: Request, digest: bytes, keyring: Keyring) -> ReleasedRecord:
    refusal: PermanentError
    try:
        return ReleasedRecord(
            **description(stored.record),
            principal=stored.principal,
            issued_at=stored.issued_at,
            blob=_reseal(stored, request, digest, keyring),
        )
    except (BlobInvalid, FingerprintMismatch, KeyUnknown) as error:
        refusal = type(error)(f"record {stored.record.id}: {error.message}")
    raise refusal


def _reseal(stored: StoredRecord, request: Request, digest: bytes, keyring: Keyring) -> bytes:
    recipient = kid(request.recipient_suite, request.recipient_key)
    target = ReleaseContext(stored.authority, digest, stored.principal, stored.record.id, recipient)
    key = opened(stored.authority, stored.principal, stored.record, keyring)
    return reseal(key, target, request.recipient_suite, request.recipient_key)


def opened(authority: str, principal: str, record: Record, keyring: Keyring) -> OpenedMaterial:
    """Open a record's blob in its place (SPEC 3.4); it holds the key that the record's fingerprint was made of.

    Raises BlobInvalid, FingerprintMismatch, KeyUnknown, or what a key device raises when it does not answer.
    """
    place = BlobContext(authority, principal, record.id, record.kid, record.suite)
    found = open_material(record.blob, place, keyring.opener(record.kid))
    check_fingerprint(found, authority, principal, record.id, record.fingerprint)
    return found
