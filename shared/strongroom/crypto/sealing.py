"""Sealing to a public key: HPKE (RFC 9180) in base mode, single shot, in two suites.

A blob is bound to its place through HPKE's `info`, which `encode_context` builds. The associated data is
always empty, because the library offers none: whatever must be bound goes into `info`.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NoReturn, Protocol, Self, TypeAlias, assert_never, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, KeyUnknown


class Suite(StrEnum):
    """The HPKE suites; the value is the name in statements, rosters and key files.

    `X_WING`: MLKEM768-X25519 (KEM 0x647a of draft-ietf-hpke-pq), HKDF-SHA256, AES-256-GCM; withstands quantum
    computers. `P256`: DHKEM(P-256, HKDF-SHA256) (KEM 0x0010 of RFC 9180), HKDF-SHA256, AES-256-GCM; for keys
    that live in hardware.
    """

    X_WING = "x-wing"
    P256 = "dhkem-p256"


PUBLIC_KEY_BYTES: Final[Mapping[Suite, int]] = MappingProxyType({Suite.X_WING: 1184 + 32, Suite.P256: 65})
PRIVATE_KEY_BYTES: Final[Mapping[Suite, int]] = MappingProxyType({Suite.X_WING: 64 + 32, Suite.P256: 32})
KID_HEX_DIGITS: Final = 32
CONTEXT_FIELD_BYTES_MAX: Final = 65535

_KID_LABEL: Final = b"strongroom/sealing-key/v1"
_TRANSPORT_KID_LABEL: Final = b"strongroom/transport-key/v1"
_KEMS: Final = {Suite.X_WING: hpke.KEM.MLKEM768_X25519, Suite.P256: hpke.KEM.P256}
_CIPHERS: Final = {
    suite: hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM) for suite, kem in _KEMS.items()
}
_GCM_TAG_BYTES: Final = 16
_MLKEM_PUBLIC_BYTES: Final = 1184
_MLKEM_SEED_BYTES: Final = 64

_PublicKey: TypeAlias = hpke.MLKEM768X25519PublicKey | ec.EllipticCurvePublicKey
_PrivateKey: TypeAlias = hpke.MLKEM768X25519PrivateKey | ec.EllipticCurvePrivateKey


class Opener(Protocol):
    """A sealing private key, wherever it lives (this process, a hardware module).

    Implementations may be used by several threads at once and may block for as long as their device takes.
    """

    @property
    def kid(self) -> str:
        """The id of the key pair, as `kid()` gives it for suite and public key."""
        ...

    @property
    def suite(self) -> Suite:
        """The suite of blobs that this key opens."""
        ...

    def open(self, blob: bytes, info: bytes) -> Secret:
        """Give the plaintext of `blob` (enc || ciphertext), sealed to this key with exactly this `info`.

        Changes nothing: the same call gives the same answer. Raises BlobInvalid, with one message for every
        cause, when and only when the blob does not open; a device that does not answer is a TransientError,
        because a caller that sees BlobInvalid may report the key as lost.
        """
        ...


def encode_context(label: bytes, *fields: bytes) -> bytes:
    """Join a label and fields so that different fields never give the same bytes.

    `label`, then for each field its length as 2 bytes big-endian and the field. Labels of one program must
    not be prefixes of each other. Raises ValueError for a field over 65,535 bytes.
    """
    parts = [label]
    for field in fields:
        if len(field) > CONTEXT_FIELD_BYTES_MAX:
            raise ValueError(f"a context field is at most {CONTEXT_FIELD_BYTES_MAX} bytes, this one {len(field)}")
        parts += (len(field).to_bytes(2, "big"), field)
    return b"".join(parts)


def kid(suite: Suite, public_key: bytes) -> str:
    """Name a sealing key.

    The first 32 hex digits of SHA-256("strongroom/sealing-key/v1" || len16(suite name) || suite name ||
    public_key), the length being 2 bytes big-endian.
    """
    name = encode_context(_KID_LABEL, suite.value.encode())
    return hashlib.sha256(name + public_key).hexdigest()[:KID_HEX_DIGITS]


def transport_kid(public_key: bytes) -> str:
    """Name a transport key: an RSA key for what other programs wrapped, its SubjectPublicKeyInfo in DER.

    The first 32 hex digits of SHA-256("strongroom/transport-key/v1" || public_key). It stands here because whoever
    only reads a roster needs no RSA.
    """
    return hashlib.sha256(_TRANSPORT_KID_LABEL + public_key).hexdigest()[:KID_HEX_DIGITS]


def overhead(suite: Suite) -> int:
    """Give the number of bytes by which a blob is longer than its plaintext: encapsulated key and tag."""
    return _KEMS[suite].enc_length() + _GCM_TAG_BYTES


def seal(suite: Suite, public_key: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Seal `plaintext` to `public_key` and bind it to `info`: enc || ciphertext, fresh for every call.

    `public_key`: X-Wing 1,216 bytes (ML-KEM-768 encapsulation key || X25519 key); P-256 65 bytes
    (uncompressed point). Raises KeyUnknown for a malformed key, also for an X25519 part of small order.
    Source: RFC 9180 section 6.1 (SealBase).
    """
    try:
        return _CIPHERS[suite].encrypt(plaintext, _load_public(suite, public_key), info)
    except ValueError:
        raise KeyUnknown(f"the recipient's public key is not a valid {suite} key") from None


@final
class PrivateSealingKey:
    """A sealing private key held in this process (an Opener); its repr shows suite and kid only."""

    __slots__ = ("_key", "_private", "kid", "public_key", "suite")

    def __init__(self, suite: Suite, private: Secret, key: _PrivateKey, public_key: bytes) -> None:
        """Take a loaded key; use `generate` or `from_bytes`."""
        self.suite: Final[Suite] = suite
        self.public_key: Final[bytes] = public_key
        self.kid: Final[str] = kid(suite, public_key)
        self._key: Final[_PrivateKey] = key
        self._private: Final = private

    @classmethod
    def generate(cls, suite: Suite) -> Self:
        """Make a new random key."""
        match suite:
            case Suite.X_WING:
                private = Secret(
                    mlkem.MLKEM768PrivateKey.generate().private_bytes_raw()
                    + x25519.X25519PrivateKey.generate().private_bytes_raw()
                )
            case Suite.P256:
                scalar = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value
                private = Secret(scalar.to_bytes(PRIVATE_KEY_BYTES[suite], "big"))
            case _:
                assert_never(suite)
        return cls.from_bytes(suite, private)

    @classmethod
    def from_bytes(cls, suite: Suite, private: Secret) -> Self:
        """Build the key pair from its private bytes.

        X-Wing: 96 bytes, the ML-KEM-768 seed (d || z, 64 bytes) || X25519 private key (32 bytes). P-256: the
        scalar, 32 bytes big-endian. Raises ValueError for a wrong length or a scalar out of range.
        """
        if len(private) != PRIVATE_KEY_BYTES[suite]:
            raise ValueError(f"a {suite} private key is {PRIVATE_KEY_BYTES[suite]} bytes, this one {len(private)}")
        try:
            key, public_key = _load_private(suite, private)
        except ValueError:
            raise ValueError(f"these bytes are not a {suite} private key") from None
        return cls(suite, private, key, public_key)

    def private_bytes(self) -> Secret:
        """Give the private bytes in the form that `from_bytes` takes."""
        return self._private

    def open(self, blob: bytes, info: bytes) -> Secret:
        """Give the plaintext of a blob as Opener says. Source: RFC 9180 section 6.1 (OpenBase)."""
        try:
            return Secret(_CIPHERS[self.suite].decrypt(blob, self._key, info))
        except (InvalidTag, ValueError):
            raise BlobInvalid("the blob does not open with this key in this place") from None

    def __repr__(self) -> str:
        """Show suite and kid, which are public."""
        return f"<PrivateSealingKey {self.suite} {self.kid}>"

    def __reduce_ex__(self, _protocol: object, /) -> NoReturn:
        """Refuse with TypeError: a private key is written by the keyring and by nothing else."""
        raise TypeError("a PrivateSealingKey is neither copied nor pickled")


@lru_cache(maxsize=64)  # most of what is sealed is sealed to the same key
def _load_public(suite: Suite, raw: bytes) -> _PublicKey:
    if len(raw) != PUBLIC_KEY_BYTES[suite]:
        raise ValueError("wrong length")
    match suite:
        case Suite.X_WING:
            return hpke.MLKEM768X25519PublicKey(
                mlkem.MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_BYTES]),
                x25519.X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC_BYTES:]),
            )
        case Suite.P256:
            return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
        case _:
            assert_never(suite)


def _load_private(suite: Suite, private: Secret) -> tuple[_PrivateKey, bytes]:
    # The exposed bytes get no name here: a traceback that shows local variables must not show them.
    match suite:
        case Suite.X_WING:
            mlkem_key = mlkem.MLKEM768PrivateKey.from_seed_bytes(private.expose()[:_MLKEM_SEED_BYTES])
            x25519_key = x25519.X25519PrivateKey.from_private_bytes(private.expose()[_MLKEM_SEED_BYTES:])
            public = mlkem_key.public_key().public_bytes_raw() + x25519_key.public_key().public_bytes_raw()
            return hpke.MLKEM768X25519PrivateKey(mlkem_key, x25519_key), public
        case Suite.P256:
            p256_key = ec.derive_private_key(int.from_bytes(private.expose(), "big"), ec.SECP256R1())
            point = p256_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
            return p256_key, point
        case _:
            assert_never(suite)
