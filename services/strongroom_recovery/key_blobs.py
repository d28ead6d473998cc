"""The key blobs of a record: as it was escrowed, and as it was sealed again (SPEC 5.19, 7.7). Pure.

Any row may be false. A blob counts only if it opens in its record's place, to the key of the fingerprint that the
owner signed.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from strongroom.blobs import SALT_BYTES, BlobContext, OpenedMaterial, check_fingerprint, open_material
from strongroom.crypto.keyring import Keyring
from strongroom.crypto.sealing import Suite, overhead
from strongroom.errors import BlobInvalid, FingerprintMismatch, KeyUnknown, PermanentError
from strongroom.limits import KEY_MATERIAL_BYTES_MAX
from strongroom.messages import Record

BLOB_BYTES_MAX: Final = max(map(overhead, Suite)) + SALT_BYTES + KEY_MATERIAL_BYTES_MAX


class KeyBlob(NamedTuple):
    """A record's key, sealed to the sealing key `kid`; `suite` as the row or the statement names it."""

    kid: str
    suite: str
    blob: bytes


def escrowed(record: Record) -> KeyBlob:
    """Return the blob that its owner signed."""
    return KeyBlob(record.kid, record.suite.value, record.blob)


def opened_blob(authority: str, principal: str, record: Record, blob: KeyBlob, keyring: Keyring) -> OpenedMaterial:
    """Open one blob of a record in its place (SPEC 3.4); it holds the key that the fingerprint was made of.

    Raises BlobInvalid, FingerprintMismatch, KeyUnknown, or what a key device raises when it does not answer.
    """
    opener = keyring.opener(blob.kid)
    if blob.suite != opener.suite.value:
        raise BlobInvalid(f"the blob is said to be of another suite than its key {blob.kid}")
    place = BlobContext(authority, principal, record.id, blob.kid, opener.suite)
    found = open_material(blob.blob, place, opener)
    check_fingerprint(found, authority, principal, record.id, record.fingerprint)
    return found


def opened(
    authority: str, principal: str, record: Record, keyring: Keyring, resealed: Sequence[KeyBlob] = ()
) -> OpenedMaterial:
    """Open a record by the first of its blobs that opens: the newest that there is a key for, then the others.

    Arguments: `resealed` are those that were sealed again, newest first. Raises as `opened_blob`, of the blob that
    was tried first.
    """
    if not resealed:
        return opened_blob(authority, principal, record, escrowed(record), keyring)
    refusal: PermanentError | None = None
    for blob in sorted([*resealed, escrowed(record)], key=lambda each: each.kid not in keyring.kids):
        try:
            return opened_blob(authority, principal, record, blob, keyring)
        except (BlobInvalid, FingerprintMismatch, KeyUnknown) as error:
            # Made anew: a traceback keeps what was opened alive.
            refusal = refusal or type(error)(error.message)
    raise refusal or KeyUnknown("there is no blob")
