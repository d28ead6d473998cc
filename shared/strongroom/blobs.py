"""Key blobs: key material sealed to its place (rule 4), and the fingerprint that its owner signs.

What is sealed is always `salt (32 bytes) || key material (1 to 65,536 bytes)`, in the blob of a record as in
that of a release (SPEC section 3). The fingerprint is public. The salt makes it hiding: without it nobody can
try guesses of a weak key. HMAC-SHA256 under a key of fixed length makes it binding.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import Final

from strongroom.crypto.sealing import Opener, Suite, encode_context, kid, seal
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, FingerprintMismatch, KeyUnknown, LimitExceeded
from strongroom.limits import KEY_MATERIAL_BYTES_MAX

SALT_BYTES: Final = 32
REQUEST_DIGEST_BYTES: Final = 32

_BLOB_LABEL: Final = b"strongroom/blob/v1"
_RELEASE_LABEL: Final = b"strongroom/release/v1"
_UNWRAPPED_LABEL: Final = b"strongroom/unwrapped/v1"
_FINGERPRINT_LABEL: Final = b"strongroom/fingerprint/v1"


@dataclass(frozen=True, slots=True)
class BlobContext:
    """The place of a record's blob: whose it is and which sealing key it is sealed to."""

    authority: str
    principal: str
    record_id: str
    kid: str
    suite: Suite

    def info(self) -> bytes:
        """Give the HPKE `info`: label and the five fields in UTF-8, as `encode_context` joins them."""
        fields = (self.authority, self.principal, self.record_id, self.kid, self.suite.value)
        return encode_context(_BLOB_LABEL, *(text.encode() for text in fields))


@dataclass(frozen=True, slots=True)
class ReleaseContext:
    """The place of a released key: the request it answers, the record, and the requester's one-time key.

    `request_digest` is 32 bytes (ValueError otherwise); `recipient_key_id` is the kid of the one-time key.
    """

    authority: str
    request_digest: bytes
    principal: str
    record_id: str
    recipient_key_id: str

    def __post_init__(self) -> None:
        """Refuse a digest of another length."""
        if len(self.request_digest) != REQUEST_DIGEST_BYTES:
            raise ValueError(f"a request digest is {REQUEST_DIGEST_BYTES} bytes")

    def info(self) -> bytes:
        """Give the HPKE `info`: label and the five fields, text in UTF-8, as `encode_context` joins them."""
        return self._info(_RELEASE_LABEL)

    def unwrapped_info(self) -> bytes:
        """Give the HPKE `info` for what is inside this record's wrapping: as `info`, under a label of its own."""
        return self._info(_UNWRAPPED_LABEL)

    def _info(self, label: bytes) -> bytes:
        return encode_context(
            label,
            self.authority.encode(),
            self.request_digest,
            self.principal.encode(),
            self.record_id.encode(),
            self.recipient_key_id.encode(),
        )


@dataclass(frozen=True, slots=True)
class SealedMaterial:
    """What sealing gives: the blob and the fingerprint (64 hex digits) are public, the salt is not."""

    blob: bytes = field(repr=False)
    fingerprint: str
    salt: Secret


@dataclass(frozen=True, slots=True)
class OpenedMaterial:
    """What a blob held."""

    material: Secret
    salt: Secret


def seal_material(
    material: Secret, context: BlobContext, public_key: bytes, *, salt: Secret | None = None
) -> SealedMaterial:
    """Seal key material to its place and give blob, fingerprint and salt.

    `public_key` is the raw key that `context.kid` names. `salt` (32 bytes, ValueError otherwise) is made
    afresh unless the same fingerprint must come out again, as when a blob is sealed anew to another key.
    Raises LimitExceeded for key material outside 1 to 65,536 bytes, and KeyUnknown for a public key that is
    malformed or not the one named.
    """
    if not 1 <= len(material) <= KEY_MATERIAL_BYTES_MAX:
        raise LimitExceeded(
            f"the key material is {len(material)} bytes; "
            f"KEY_MATERIAL_BYTES_MAX allows 1 to {KEY_MATERIAL_BYTES_MAX} bytes"
        )
    if salt is None:
        salt = Secret(secrets.token_bytes(SALT_BYTES))
    elif len(salt) != SALT_BYTES:
        raise ValueError(f"a salt is {SALT_BYTES} bytes, this one {len(salt)}")
    opened = OpenedMaterial(material, salt)
    blob = _seal(opened, context.info(), context.suite, public_key, context.kid)
    fingerprint = _fingerprint(opened, context.authority, context.principal, context.record_id)
    return SealedMaterial(blob, fingerprint, salt)


def reseal(opened: OpenedMaterial, context: ReleaseContext, suite: Suite, recipient_public_key: bytes) -> bytes:
    """Seal opened key material, salt included, to the requester's one-time key and give the blob.

    Raises KeyUnknown when the public key is malformed or is not the one that `context` names.
    """
    return _seal(opened, context.info(), suite, recipient_public_key, context.recipient_key_id)


def seal_again(opened: OpenedMaterial, place: BlobContext, public_key: bytes) -> bytes:
    """Seal opened key material, salt included, to another sealing key in its place and give the blob (SPEC 7.7).

    The fingerprint stays what it was. Raises KeyUnknown as `seal_material` does.
    """
    return _seal(opened, place.info(), place.suite, public_key, place.kid)


def move(opened: OpenedMaterial, place: BlobContext, public_key: bytes) -> SealedMaterial:
    """Seal opened key material to another authority's place for it, under the same salt (SPEC 5.18).

    The fingerprint is the one in that place. Raises KeyUnknown as `seal_material` does.
    """
    return seal_material(opened.material, place, public_key, salt=opened.salt)


def seal_unwrapped(content: Secret, context: ReleaseContext, suite: Suite, recipient_public_key: bytes) -> bytes:
    """Seal what was inside a wrapped key, 1 to 65,536 bytes, to the requester's one-time key (SPEC 5.17).

    There is no salt: nobody signed a fingerprint of it. Raises LimitExceeded for another size, and KeyUnknown when
    the public key is malformed or is not the one that `context` names.
    """
    if not 1 <= len(content) <= KEY_MATERIAL_BYTES_MAX:
        raise LimitExceeded(
            f"the unwrapped content is {len(content)} bytes; "
            f"KEY_MATERIAL_BYTES_MAX allows 1 to {KEY_MATERIAL_BYTES_MAX} bytes"
        )
    _check_named(suite, recipient_public_key, context.recipient_key_id)
    return seal(suite, recipient_public_key, content.expose(), context.unwrapped_info())


def open_unwrapped(blob: bytes, context: ReleaseContext, opener: Opener) -> Secret:
    """Open what `seal_unwrapped` sealed in this place; raises as `open_material` does."""
    content = opener.open(blob, context.unwrapped_info())
    if not 1 <= len(content) <= KEY_MATERIAL_BYTES_MAX:
        raise BlobInvalid("the blob opens and does not hold unwrapped content")
    return content


def open_material(blob: bytes, context: BlobContext | ReleaseContext, opener: Opener) -> OpenedMaterial:
    """Open the blob of a record, or of a release, in its place.

    Raises BlobInvalid when it does not open there, or does not hold a salt and 1 to 65,536 bytes of key
    material; a device that does not answer raises what its Opener raises.
    """
    plaintext = opener.open(blob, context.info())
    if not 1 <= len(plaintext) - SALT_BYTES <= KEY_MATERIAL_BYTES_MAX:
        raise BlobInvalid("the blob opens and does not hold a salt and key material")
    return OpenedMaterial(
        material=Secret(plaintext.expose()[SALT_BYTES:]), salt=Secret(plaintext.expose()[:SALT_BYTES])
    )


def check_fingerprint(
    opened: OpenedMaterial, authority: str, principal: str, record_id: str, fingerprint: str
) -> None:
    """Return when the opened key is the one that this fingerprint (64 lower-case hex digits) was made of.

    Takes the same time wherever they differ. Raises FingerprintMismatch.
    """
    expected = _fingerprint(opened, authority, principal, record_id)
    if not hmac.compare_digest(expected.encode(), fingerprint.encode(errors="replace")):
        raise FingerprintMismatch(f"the blob of record {record_id} holds another key than was signed for")


def _seal(opened: OpenedMaterial, info: bytes, suite: Suite, public_key: bytes, named: str) -> bytes:
    _check_named(suite, public_key, named)
    return seal(suite, public_key, opened.salt.expose() + opened.material.expose(), info)


def _check_named(suite: Suite, public_key: bytes, named: str) -> None:
    # Sealed to another key than the one named, the blob would be lost without anyone noticing.
    if kid(suite, public_key) != named:
        raise KeyUnknown(f"the public key is not the {suite} key {named}")


def _fingerprint(opened: OpenedMaterial, authority: str, principal: str, record_id: str) -> str:
    place = encode_context(_FINGERPRINT_LABEL, authority.encode(), principal.encode(), record_id.encode())
    return hmac.new(opened.salt.expose(), place + opened.material.expose(), hashlib.sha256).hexdigest()
