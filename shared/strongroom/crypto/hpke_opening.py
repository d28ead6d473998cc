"""Opening a blob of the suite `dhkem-p256` where somebody else does the Diffie-Hellman. Pure.

The library opens such blobs with a private key in hand only. A hardware token gives nothing but the shared point;
what follows after it is RFC 9180: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, base mode, single shot.
"""

import hashlib
import hmac
from collections.abc import Callable
from typing import Final, TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from strongroom.crypto.sealing import PUBLIC_KEY_BYTES, Suite, overhead
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid

Ecdh: TypeAlias = Callable[[bytes], Secret]
"""Gives the x-coordinate, 32 bytes, of the private key times a point of the curve (65 bytes, uncompressed)."""

ECDH_BYTES: Final = 32

_VERSION: Final = b"HPKE-v1"
_MODE_BASE: Final = b"\x00"
_KEM: Final = (0x0010).to_bytes(2, "big")
_KDF: Final = (0x0001).to_bytes(2, "big")
_AES_256_GCM: Final = (0x0002).to_bytes(2, "big")
_UNCOMPRESSED: Final = b"\x04"
_KEM_SUITE: Final = b"KEM" + _KEM
_SECRET_BYTES: Final = 32
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_DOES_NOT_OPEN: Final = "the blob does not open with this key in this place"


def open_with(ecdh: Ecdh, public_key: bytes, blob: bytes, info: bytes) -> Secret:
    """Give the plaintext of `blob` (enc || ciphertext), sealed to `public_key` with exactly this `info`.

    `ecdh` is asked once at most, and never with a point that is not on the curve: a private key answers those with
    parts of itself. Raises BlobInvalid, with one message for every cause, when the blob does not open; what `ecdh`
    raises leaves as it is. Source: RFC 9180 sections 4.1 (Decap), 5.1 (KeySchedule) and 6.1 (OpenBase).
    """
    point = blob[: PUBLIC_KEY_BYTES[Suite.P256]]
    if len(blob) < overhead(Suite.P256) or not is_point(point):
        raise BlobInvalid(_DOES_NOT_OPEN)
    key, nonce = key_schedule(kem_secret(ecdh(point), point, public_key), info)
    try:
        return Secret(AESGCM(key.expose()).decrypt(nonce.expose(), blob[len(point) :], None))
    except InvalidTag:
        raise BlobInvalid(_DOES_NOT_OPEN) from None


def is_point(raw: bytes) -> bool:
    """Say whether these bytes are an uncompressed point of P-256 other than the one at infinity."""
    if len(raw) != PUBLIC_KEY_BYTES[Suite.P256] or raw[:1] != _UNCOMPRESSED:
        return False
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
    except ValueError:
        return False
    return True


def kem_secret(shared: Secret, point: bytes, public_key: bytes) -> Secret:
    """Give the shared secret of the KEM, 32 bytes (RFC 9180 section 4.1, ExtractAndExpand).

    Arguments: `shared` is the x-coordinate that both sides computed, `point` the one-time public key.
    """
    extracted = _labeled_extract(_KEM_SUITE, b"", b"eae_prk", shared)
    return _labeled_expand(_KEM_SUITE, extracted, b"shared_secret", point + public_key, _SECRET_BYTES)


def key_schedule(
    secret: Secret, info: bytes, *, aead: bytes = _AES_256_GCM, key_bytes: int = _KEY_BYTES
) -> tuple[Secret, Secret]:
    """Give key and nonce of the cipher in base mode (RFC 9180 section 5.1, with an empty psk and psk_id).

    `aead` is the cipher's number as 2 bytes, and `key_bytes` how long its key is; published figures are for another
    than ours.
    """
    suite = b"HPKE" + _KEM + _KDF + aead
    hashed = (_labeled_extract(suite, b"", label, Secret(value)) for label, value in _hashed(info))
    context = _MODE_BASE + b"".join(each.expose() for each in hashed)
    extracted = _labeled_extract(suite, secret.expose(), b"secret", Secret(b""))
    return (
        _labeled_expand(suite, extracted, b"key", context, key_bytes),
        _labeled_expand(suite, extracted, b"base_nonce", context, _NONCE_BYTES),
    )


def _hashed(info: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return (b"psk_id_hash", b""), (b"info_hash", info)


def _labeled_extract(suite: bytes, salt: bytes, label: bytes, material: Secret) -> Secret:
    """RFC 9180 section 4, LabeledExtract; HKDF-Extract is HMAC with the salt as its key (RFC 5869 section 2.2)."""
    return Secret(hmac.digest(salt, _VERSION + suite + label + material.expose(), hashlib.sha256))


def _labeled_expand(suite: bytes, key: Secret, label: bytes, info: bytes, length: int) -> Secret:
    """RFC 9180 section 4, LabeledExpand."""
    labeled = length.to_bytes(2, "big") + _VERSION + suite + label + info
    return Secret(HKDFExpand(hashes.SHA256(), length, labeled).derive(key.expose()))
