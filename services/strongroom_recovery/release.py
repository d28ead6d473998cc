"""Releases: open a stored blob in its place, and seal the key to the requester's one-time key. Pure.

Key material exists inside `_reseal` and `_moved`, or inside whoever calls `opened`, and nowhere else. Errors are
made anew outside, because a traceback keeps the local variables of the function it passed through alive.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from strongroom.blobs import (
    ReleaseContext,
    reseal,
    seal_unwrapped,
)
from strongroom.crypto.keyring import Keyring
from strongroom.crypto.sealing import kid
from strongroom.errors import BlobInvalid, Denied, FingerprintMismatch, KeyUnknown, PermanentError
from strongroom.messages import HistoryEntry, Record, RecordDescription, Release, ReleasedRecord, Request
from strongroom.wrapped import unwrap
from strongroom_recovery.key_blobs import opened
from strongroom_recovery.moving import moved
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
    Raises BlobInvalid, FingerprintMismatch, KeyUnknown for a record whose key cannot be given back, Denied for a
    wrapped key in a padding that its key device does not open, or what a key device raises when it does not answer.
    Blocks for as long as such a device takes.
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
        if request.destination is not None:
            return _moved(stored, request, keyring)
        blob, unwrapped = _reseal(stored, request, digest, keyring)
        return ReleasedRecord(
            **description(stored.record),
            principal=stored.principal,
            issued_at=stored.issued_at,
            blob=blob,
            unwrapped=unwrapped,
        )
    except (BlobInvalid, Denied, FingerprintMismatch, KeyUnknown) as error:
        refusal = type(error)(f"record {stored.record.id}: {error.message}")
    raise refusal


def _moved(stored: StoredRecord, request: Request, keyring: Keyring) -> ReleasedRecord:
    key = opened(stored.authority, stored.principal, stored.record, keyring, stored.resealed)
    there = moved(request, stored.record.id, key)
    return ReleasedRecord(
        **description(stored.record),
        principal=stored.principal,
        issued_at=stored.issued_at,
        blob=there.blob,
        moved_fingerprint=there.fingerprint,
    )


def _reseal(stored: StoredRecord, request: Request, digest: bytes, keyring: Keyring) -> tuple[bytes, bytes | None]:
    """Give the blob for the requester, and what is inside the wrapping where that was asked for (SPEC 5.17)."""
    recipient = kid(request.recipient_suite, request.recipient_key)
    target = ReleaseContext(stored.authority, digest, stored.principal, stored.record.id, recipient)
    key = opened(stored.authority, stored.principal, stored.record, keyring, stored.resealed)
    blob = reseal(key, target, request.recipient_suite, request.recipient_key)
    wrapping = stored.record.wrapping
    if not request.unwrap or wrapping is None:
        return blob, None
    content = unwrap(wrapping, key.material, keyring.transport(wrapping.kid))
    return blob, seal_unwrapped(content, target, request.recipient_suite, request.recipient_key)
