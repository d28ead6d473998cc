"""Ed25519 signatures (RFC 8032): sign with a key, verify under raw public key bytes."""

import hashlib
from functools import lru_cache
from typing import Final, NoReturn, Self, final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from strongroom.crypto.secret import Secret
from strongroom.errors import SignatureInvalid

PUBLIC_KEY_BYTES: Final = 32
SEED_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
KEY_ID_HEX_DIGITS: Final = 32

_KEYS_LOADED_MAX: Final = 4_096
_KEY_ID_LABEL: Final = b"strongroom/signing-key/v1"

# The y coordinates of the eight points of small order on edwards25519 (RFC 7748 section 4.1). Under such a
# key one signature holds for many messages, and OpenSSL accepts it.
_FIELD_PRIME: Final = 2**255 - 19
_ORDER_8_Y: Final = int.from_bytes(
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"
)
_SMALL_ORDER_Y: Final = frozenset({0, 1, _FIELD_PRIME - 1, _ORDER_8_Y, _FIELD_PRIME - _ORDER_8_Y})
_Y_MASK: Final = 2**255 - 1


def verify(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Return when `signature` is the Ed25519 signature of `message` under `public_key`.

    `public_key` is 32 raw bytes, `signature` 64 raw bytes (R || S). Raises SignatureInvalid for everything
    else: wrong lengths, a key that is not canonically encoded, not on the curve or of small order, a
    signature that does not hold.
    Source: RFC 8032 section 5.1.7 (without the cofactor, as OpenSSL does it).
    """
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureInvalid(f"an Ed25519 signature is {SIGNATURE_BYTES} bytes, this one {len(signature)}")
    try:
        _load(public_key).verify(signature, message)
    except InvalidSignature:
        raise SignatureInvalid("the signature does not hold under this key") from None


def key_id(public_key: bytes) -> str:
    """Name a public key: the first 32 hex digits of SHA-256("strongroom/signing-key/v1" || public_key)."""
    return hashlib.sha256(_KEY_ID_LABEL + public_key).hexdigest()[:KEY_ID_HEX_DIGITS]


@final
class SigningKey:
    """An Ed25519 private key; its repr shows the key id only, and it is neither copied nor pickled."""

    __slots__ = ("_key", "key_id", "public_key")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Take a loaded key; use `generate` or `from_seed`."""
        self._key: Final = key
        self.public_key: Final[bytes] = key.public_key().public_bytes_raw()
        self.key_id: Final[str] = key_id(self.public_key)

    @classmethod
    def generate(cls) -> Self:
        """Make a new random key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: Secret) -> Self:
        """Derive the key pair of a 32-byte seed (RFC 8032 section 5.1.5); ValueError for another length."""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"an Ed25519 seed is {SEED_BYTES} bytes, this one {len(seed)}")
        return cls(Ed25519PrivateKey.from_private_bytes(seed.expose()))

    def sign(self, message: bytes) -> bytes:
        """Give the 64-byte signature of `message`; the same key and message always give the same bytes."""
        return self._key.sign(message)

    def seed(self) -> Secret:
        """Give the 32-byte seed, for writing a key file."""
        return Secret(self._key.private_bytes_raw())

    def __repr__(self) -> str:
        """Show the key id, which is public."""
        return f"<SigningKey {self.key_id}>"

    def __reduce_ex__(self, _protocol: object, /) -> NoReturn:
        """Refuse with TypeError: a private key is written by the keyring and by nothing else."""
        raise TypeError("a SigningKey is neither copied nor pickled")


@lru_cache(maxsize=_KEYS_LOADED_MAX)
def _load(public_key: bytes) -> Ed25519PublicKey:
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise SignatureInvalid(f"an Ed25519 public key is {PUBLIC_KEY_BYTES} bytes, this one {len(public_key)}")
    y = int.from_bytes(public_key, "little") & _Y_MASK
    if y >= _FIELD_PRIME or y in _SMALL_ORDER_Y:
        raise SignatureInvalid("the public key is not canonically encoded or has small order")
    return Ed25519PublicKey.from_public_bytes(public_key)
