"""Releases as the recovery worker makes them: keys opened in their places, and sealed to the requester."""

from collections.abc import Sequence

from strongroom.blobs import (
    BlobContext,
    OpenedMaterial,
    ReleaseContext,
    check_fingerprint,
    move,
    open_material,
    reseal,
    seal_unwrapped,
)
from strongroom.crypto.sealing import kid, transport_kid
from strongroom.errors import MalformedStatement
from strongroom.messages import HistoryEntry, Record, Release, ReleasedRecord, Request
from strongroom.statements import Statement
from strongroom.testing.evidence import StoredRecord, description
from strongroom.testing.trust import FakeTrust
from strongroom.wrapped import unwrap


def signed_release(
    trust: FakeTrust,
    statement: Statement,
    body: Request,
    found: Sequence[StoredRecord],
    history: Sequence[StoredRecord],
) -> Statement:
    """Return the release that answers a request, signed by the recovery worker.

    Arguments: `body` is that of `statement`; `found` are the records that it gets, `history` those of the name it
    asks for, newest first. Raises MalformedStatement where it wants unwrapped what is not wrapped, and what opening
    a blob and a wrapped key raises.
    """
    release = Release(
        authority=trust.name,
        request=body.id,
        request_digest=statement.digest.hex(),
        roster_version=trust.roster.body.version,
        released_at=trust.now,
        records=[_released(trust, statement, body, stored) for stored in found],
        history=[
            HistoryEntry(id=s.record.id, issued_at=s.escrow.issued_at, fingerprint=s.record.fingerprint)
            for s in history
        ],
    )
    return Statement.sign(Release.TYPE, release.to_bytes(), trust.recovery_reply_key)


def _released(trust: FakeTrust, statement: Statement, body: Request, stored: StoredRecord) -> ReleasedRecord:
    record, principal = stored.record, stored.escrow.principal
    key = next(key for key in trust.sealing_keys if key.kid == record.kid)
    opened = open_material(
        record.blob, BlobContext(trust.name, principal, record.id, record.kid, record.suite), key
    )
    check_fingerprint(opened, trust.name, principal, record.id, record.fingerprint)
    recipient = kid(body.recipient_suite, body.recipient_key)
    if (to := body.destination) is not None:
        place = BlobContext(to.authority, to.principal, record.id, recipient, body.recipient_suite)
        moved = move(opened, place, body.recipient_key)
        return ReleasedRecord(
            **description(record),
            principal=principal,
            issued_at=stored.escrow.issued_at,
            blob=moved.blob,
            moved_fingerprint=moved.fingerprint,
        )
    context = ReleaseContext(trust.name, statement.digest, principal, record.id, recipient)
    return ReleasedRecord(
        **description(record),
        principal=principal,
        issued_at=stored.escrow.issued_at,
        blob=reseal(opened, context, body.recipient_suite, body.recipient_key),
        unwrapped=_unwrapped(trust, record, opened, context, body) if body.unwrap else None,
    )


def _unwrapped(
    trust: FakeTrust, record: Record, opened: OpenedMaterial, context: ReleaseContext, body: Request
) -> bytes:
    wrapping = record.wrapping
    if wrapping is None:
        raise MalformedStatement(f"unwrap: record {record.id} is not a wrapped key")
    key = next(each for each in trust.transport_keys if transport_kid(each.public_key.to_spki()) == wrapping.kid)
    content = unwrap(wrapping, opened.material, key)
    return seal_unwrapped(content, context, body.recipient_suite, body.recipient_key)
