"""Keys made of a password as CryptoAPI's CryptDeriveKey makes them: for reading old data, never for new.

One hash and no salt of its own: whoever has something encrypted with such a key can try passwords as fast as
hashes. Sources: learn.microsoft.com on CryptDeriveKey, on salt values and on the derivation sample; where these
leave room, what Windows and Wine give:

- A key is expanded when it is longer than the hash, and every AES key when the hash is MD5 or SHA-1. Microsoft's
  page says the same of 3DES; with two keys, however, 3DES takes the first 16 bytes of an MD5 or SHA-1 hash.
- Windows sets odd parity in DES keys, Wine leaves the bits of the hash. Both encrypt the same.
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from strongroom.crypto.secret import Secret
from strongroom.errors import LimitExceeded, UsageError
from strongroom.formats.alg_id import SessionAlgorithm

_BLOCK_BYTES: Final = 64
_SHORT_KEY_BYTES: Final = 5
_SALTED_BYTES: Final = 16  # the key of 40 bits and its salt


class BaseHash(StrEnum):
    """The hashes that a base can have been put through; the value is the name on command lines."""

    MD5 = "md5"
    SHA_1 = "sha-1"
    SHA_256 = "sha-256"
    SHA_384 = "sha-384"
    SHA_512 = "sha-512"


class Salt(StrEnum):
    """What follows a key of exactly 40 bits of RC2 or RC4; other keys have no salt.

    `ZERO`: 11 zero bytes, CryptoAPI's default. `CREATED`: the next 11 bytes of the hash (CRYPT_CREATE_SALT).
    `NONE`: nothing (CRYPT_NO_SALT), which encrypts otherwise than zeros do.
    """

    ZERO = "zero"
    CREATED = "created"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class DerivedKey:
    """A key as a blob would hold it, and the salt that its cipher gets besides."""

    algorithm: SessionAlgorithm
    key: Secret
    salt: Secret

    @property
    def cipher_key(self) -> Secret:
        """Key and salt, what RC2 and RC4 are keyed with; RC2 with as many effective bits as the key alone has."""
        return Secret(self.key.expose() + self.salt.expose())


def derive_key(
    base_data: Secret,
    base_hash: BaseHash,
    algorithm: SessionAlgorithm,
    *,
    bits: int,
    odd_parity: bool,
    salt: Salt = Salt.ZERO,
) -> DerivedKey:
    """Derive the key that CryptDeriveKey gives for a hash object which was fed exactly `base_data`.

    Arguments: `bits` is the length of the key, that of DES keys with their parity bits. `odd_parity` sets the
    parity of DES keys as Windows does; without it they are as Wine gives them. Raises LimitExceeded for a length
    that the algorithm does not have, and UsageError for a salt that keys of this kind do not have.
    """
    if bits % 8 or bits // 8 not in algorithm.key_bytes:
        least, most = 8 * algorithm.key_bytes[0], 8 * algorithm.key_bytes[-1]
        allowed = f"{least}" if least == most else f"{least} to {most}, in steps of 8,"
        raise LimitExceeded(f"bits: {algorithm.label} keys have {allowed} bits, not {bits}")
    size = bits // 8
    if salt is Salt.CREATED and size != _SHORT_KEY_BYTES:
        raise UsageError(f"salt: is created for keys of 40 bits only; this {algorithm.label} key has {bits}")
    digest = Secret(_hash(base_hash, base_data.expose()))
    if size > len(digest) or (algorithm.is_aes and base_hash in {BaseHash.MD5, BaseHash.SHA_1}):
        digest = _expanded(digest, base_hash)
    key = Secret(digest.expose()[:size])
    return DerivedKey(
        algorithm=algorithm,
        key=with_odd_parity(key) if odd_parity and algorithm.is_des else key,
        salt=_salt(digest, salt) if size == _SHORT_KEY_BYTES else Secret(b""),
    )


def with_odd_parity(key: Secret) -> Secret:
    """Set the lowest bit of each byte so that it has an odd number of ones, as FIPS 46-3 wants of DES keys."""
    return Secret(bytes(byte & 0xFE | ((byte >> 1).bit_count() + 1) % 2 for byte in key.expose()))


def _salt(digest: Secret, salt: Salt) -> Secret:
    match salt:
        case Salt.ZERO:
            return Secret(bytes(_SALTED_BYTES - _SHORT_KEY_BYTES))
        case Salt.CREATED:
            return Secret(digest.expose()[_SHORT_KEY_BYTES:_SALTED_BYTES])
        case Salt.NONE:
            return Secret(b"")
        case _:
            assert_never(salt)


def _expanded(digest: Secret, base_hash: BaseHash) -> Secret:
    padded = Secret(digest.expose().ljust(_BLOCK_BYTES, b"\0"))
    halves = (_hash(base_hash, bytes(byte ^ mask for byte in padded.expose())) for mask in (0x36, 0x5C))
    return Secret(b"".join(halves))


def _hash(base_hash: BaseHash, data: bytes) -> bytes:
    return hashlib.new(base_hash.replace("-", ""), data, usedforsecurity=False).digest()
