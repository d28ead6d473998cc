"""Keys that are moved to another authority: which may go, and how they are sealed for it (SPEC 5.18). Pure."""

from collections.abc import Sequence
from typing import Final

from strongroom.blobs import BlobContext, OpenedMaterial, SealedMaterial, move
from strongroom.crypto.sealing import kid, overhead
from strongroom.errors import Denied, LimitExceeded
from strongroom.limits import BODY_BYTES_MAX
from strongroom.messages import RecordDescription, Request
from strongroom.statements import canonical_json
from strongroom_recovery.records import StoredRecord

# More than what a release has beside its records, and a released record beside description and blob.
_RELEASE_BYTES: Final = 1_024
_RECORD_BYTES: Final = 512


def check_movable(request: Request, records: Sequence[StoredRecord]) -> None:
    """Refuse what could not be moved whoever agrees, before anybody is asked to agree.

    Raises Denied for a wrapped key, whose transport key stays with this authority, and LimitExceeded for more than
    one release holds.
    """
    for stored in records:
        if stored.record.wrapping is not None:
            raise Denied(
                f"record {stored.record.id}: is wrapped to a transport key of this authority, which stays here",
                hint="export the others, and let the owner of this one escrow it anew over there",
            )
    size = _RELEASE_BYTES + sum(_size(stored, request) for stored in records)
    if size > BODY_BYTES_MAX:
        raise LimitExceeded(
            f"release: would be about {size} bytes, the limit is {BODY_BYTES_MAX} bytes",
            hint="ask for fewer records at a time",
        )


def _size(stored: StoredRecord, request: Request) -> int:
    record = stored.record
    blob = len(record.blob) - overhead(record.suite) + overhead(request.recipient_suite)
    described = canonical_json(record.model_dump(mode="json", include=set(RecordDescription.model_fields)))
    return len(described) + 4 * (blob // 3 + 1) + _RECORD_BYTES


def moved(request: Request, record_id: str, key: OpenedMaterial) -> SealedMaterial:
    """Seal an opened key to its place at the destination that the request names; its fingerprint is the one there.

    Raises ValueError for a request without destination, KeyUnknown for a recipient key that is malformed.
    """
    to = request.destination
    if to is None:
        raise ValueError("the request names no destination")
    recipient = kid(request.recipient_suite, request.recipient_key)
    place = BlobContext(to.authority, to.principal, record_id, recipient, request.recipient_suite)
    return move(key, place, request.recipient_key)
