"""RSA-OAEP as other programs choose it: with SHA-1, SHA-256, SHA-384 or SHA-512, and an empty label (RFC 8017).

`crypto.rsa` has the one form that CryptoAPI knows. Own blobs use neither.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, cast

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from strongroom.crypto.rsa import Padding, PrivateRsaKey, Unwrapper, check_ciphertext
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, Denied

_DOES_NOT_OPEN: Final = "the wrapped key does not open with this key and padding"


class OaepHash(StrEnum):
    """The hashes that OAEP and its mask generation can be read with; the value is the name for people."""

    SHA_1 = "SHA-1"
    SHA_256 = "SHA-256"
    SHA_384 = "SHA-384"
    SHA_512 = "SHA-512"


# Collisions of SHA-1 do not touch OAEP.
_HASHES: Final[dict[OaepHash, hashes.HashAlgorithm]] = {
    OaepHash.SHA_1: hashes.SHA1(),  # noqa: S303
    OaepHash.SHA_256: hashes.SHA256(),
    OaepHash.SHA_384: hashes.SHA384(),
    OaepHash.SHA_512: hashes.SHA512(),
}


@dataclass(frozen=True, slots=True)
class Oaep:
    """The hash of OAEP, and the hash of its mask generation function MGF1, which some programs leave at SHA-1."""

    digest: OaepHash = OaepHash.SHA_1
    mask: OaepHash = OaepHash.SHA_1


def unwrap_oaep(key: Unwrapper, ciphertext: bytes, oaep: Oaep, size: int) -> Secret:
    """Give the wrapped key of exactly `size` bytes; `ciphertext` is big-endian.

    Raises what `rsa.check_ciphertext` raises, and BlobInvalid with the same words for every cause that depends on
    the private key; Denied for another hash than SHA-1 where the key is not in this process.
    """
    check_ciphertext(key.public_key, ciphertext)
    if oaep == Oaep():
        return key.unwrap(ciphertext, Padding.OAEP, range(size, size + 1))
    if not isinstance(key, PrivateRsaKey):
        raise Denied(f"OAEP with {oaep.digest} and MGF1 with {oaep.mask}: the device of this key opens SHA-1 alone")
    # Validated when the key was read; again it would take longer than the decryption.
    loaded = cast(
        "rsa.RSAPrivateKey",
        serialization.load_der_private_key(key.private_bytes().expose(), None, unsafe_skip_rsa_key_validation=True),
    )
    scheme = padding.OAEP(padding.MGF1(_HASHES[oaep.mask]), _HASHES[oaep.digest], None)
    try:
        opened = Secret(loaded.decrypt(ciphertext, scheme))
    except ValueError:
        raise BlobInvalid(_DOES_NOT_OPEN) from None
    if len(opened) != size:
        raise BlobInvalid(_DOES_NOT_OPEN)
    return opened
