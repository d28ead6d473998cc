"""Key blobs of CryptoAPI: read strictly, written byte for byte as CryptoAPI writes them.

All integers are little-endian. Every blob begins with 8 bytes: bType (1), bVersion (1, always 2), reserved (2,
zero), aiKeyAlg (4). What follows is told at each class. A SIMPLEBLOB names neither its owner, nor the RSA key it
was made for, nor its padding: whoever keeps one has to keep these beside it, and to know that a copy is as good.

What is wrong with a blob is a MalformedStatement or a LimitExceeded that begins with the names of blob and field
and quotes no secret. Objects are judged when they are made, so that nothing else can be written either.
Sources: learn.microsoft.com, "Base Provider Key BLOBs" and "PUBLICKEYSTRUC structure".
"""

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import ClassVar, Final, Self, TypeAlias, TypeVar, assert_never

from strongroom.crypto.rsa import (
    RSA_BITS_MAX,
    RSA_BITS_MIN,
    Padding,
    PrivateRsaKey,
    RsaPrivateNumbers,
    RsaPublicKey,
    Unwrapper,
    wrap,
)
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, LimitExceeded, MalformedStatement
from strongroom.formats.alg_id import RsaUse, SessionAlgorithm

RSA_BITS_LEGACY_MIN: Final = 384  # the shortest that CryptoAPI has ever made
KEY_BLOB_BYTES_MAX: Final = 20 + 9 * RSA_BITS_MAX // 16  # a PRIVATEKEYBLOB

_HEADER: Final = struct.Struct("<BBHI")
_UINT32: Final = struct.Struct("<I")
_VERSION: Final = 2
_RSA_START: Final = _HEADER.size + 3 * _UINT32.size
_KEY_START: Final = _HEADER.size + _UINT32.size
_EXPONENT_MIN: Final = 3
_EXPONENT_END: Final = 2**32

Number = TypeVar("Number", bound=IntEnum)


class BlobType(IntEnum):
    """The kinds of blobs that can be read and written; the value is bType."""

    SIMPLEBLOB = 0x1
    PUBLICKEYBLOB = 0x6
    PRIVATEKEYBLOB = 0x7
    PLAINTEXTKEYBLOB = 0x8


_OTHER_TYPES: Final = {
    0x9: "OPAQUEKEYBLOB",
    0xA: "PUBLICKEYBLOBEX",
    0xB: "SYMMETRICWRAPKEYBLOB",
    0xC: "KEYSTATEBLOB",
}
_MAGIC: Final = {BlobType.PUBLICKEYBLOB: 0x31415352, BlobType.PRIVATEKEYBLOB: 0x32415352}  # "RSA1", "RSA2"
_HALVES: Final = {BlobType.PUBLICKEYBLOB: 2, BlobType.PRIVATEKEYBLOB: 9}  # what follows, in halves of the modulus


@dataclass(frozen=True, slots=True)
class PlaintextKeyBlob:
    """A session key in the clear: header (aiKeyAlg is the key's), length (4), the key in its natural order."""

    TYPE: ClassVar[BlobType] = BlobType.PLAINTEXTKEYBLOB
    algorithm: SessionAlgorithm
    key: Secret

    def __post_init__(self) -> None:
        """Refuse a key of a length that its algorithm does not have."""
        lengths = self.algorithm.key_bytes
        if len(self.key) not in lengths:
            allowed = f"{lengths[0]}" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
            raise _malformed(
                self.TYPE,
                "dwKeySize",
                f"is {len(self.key)} bytes; {self.algorithm.label} keys have {allowed} bytes",
            )

    @classmethod
    def parse(cls, blob: Secret) -> Self:
        """Read a blob. The parity of DES keys is not judged, because CryptoAPI exports keys without it, too."""
        algorithm = _number(cls.TYPE, "aiKeyAlg", _header(cls.TYPE, blob), SessionAlgorithm)
        _check_size(cls.TYPE, blob, _KEY_START + _uint32(cls.TYPE, blob, _HEADER.size))
        return cls(algorithm, Secret(blob.expose()[_KEY_START:]))

    def encode(self) -> Secret:
        """Give the bytes of the blob."""
        return Secret(_head(self.TYPE, self.algorithm) + _UINT32.pack(len(self.key)) + self.key.expose())


@dataclass(frozen=True, slots=True)
class PublicKeyBlob:
    """An RSA public key: header (aiKeyAlg is its use), "RSA1", bit length (4), exponent (4), modulus."""

    TYPE: ClassVar[BlobType] = BlobType.PUBLICKEYBLOB
    use: RsaUse
    key: RsaPublicKey

    def __post_init__(self) -> None:
        """Refuse numbers that no blob can hold, or that no RSA key has."""
        _judge_public(self.TYPE, self.key)

    @classmethod
    def parse(cls, blob: bytes, *, rsa_bits_min: int = RSA_BITS_MIN) -> Self:
        """Read a blob; `rsa_bits_min` is lowered only to look at keys that shall not be used."""
        return cls(*_parse_rsa(cls.TYPE, Secret(blob), rsa_bits_min))

    def encode(self) -> bytes:
        """Give the bytes of the blob."""
        return _rsa_head(self.TYPE, self.use, self.key)


@dataclass(frozen=True, slots=True)
class PrivateKeyBlob:
    """An RSA key pair in the clear.

    As a PUBLICKEYBLOB with "RSA2", and after the modulus: prime1, prime2, exponent1, exponent2, coefficient, each
    of half its length, and the private exponent in its full length. A blob that was encrypted when it was
    exported looks like noise after its header, and is refused.
    """

    TYPE: ClassVar[BlobType] = BlobType.PRIVATEKEYBLOB
    use: RsaUse
    key: RsaPrivateNumbers

    def __post_init__(self) -> None:
        """Refuse numbers that do not belong together; whether the primes are prime is left to `load`."""
        _judge_public(self.TYPE, self.key.public)
        if fault := next(_faults(self.key), None):
            raise _malformed(self.TYPE, *fault)

    @classmethod
    def parse(cls, blob: Secret, *, rsa_bits_min: int = RSA_BITS_MIN) -> Self:
        """Read a blob; `rsa_bits_min` is lowered only to read what was wrapped for a short key long ago."""
        use, public = _parse_rsa(cls.TYPE, blob, rsa_bits_min)
        ends = [_RSA_START + public.bits // 16 * halves for halves in (2, 3, 4, 5, 6, 7, 9)]
        parts = (Secret(blob.expose()[start:end][::-1]) for start, end in pairwise(ends))
        return cls(use, RsaPrivateNumbers(public, *parts))

    def encode(self) -> Secret:
        """Give the bytes of the blob, which are not encrypted."""
        head = _rsa_head(self.TYPE, self.use, self.key.public)
        return Secret(head + b"".join(part.expose()[::-1] for part in _parts(self.key)))

    def load(self, *, rsa_bits_min: int = RSA_BITS_MIN) -> PrivateRsaKey:
        """Give the key pair for use; MalformedStatement for one that OpenSSL refuses, or that is too short."""
        try:
            return PrivateRsaKey.from_numbers(self.key, bits_min=rsa_bits_min)
        except ValueError as error:
            raise _malformed(self.TYPE, "key", str(error)) from None


@dataclass(frozen=True, slots=True)
class SimpleBlob:
    """A session key wrapped for an RSA key: header (aiKeyAlg is the session key's), RSA's ALG_ID (4), ciphertext.

    `ciphertext` is big-endian, as RFC 8017 has it; in the blob it is little-endian. Nothing vouches for aiKeyAlg:
    two blobs may differ there and hold the same key, so compare `ciphertext_digest`.
    """

    TYPE: ClassVar[BlobType] = BlobType.SIMPLEBLOB
    algorithm: SessionAlgorithm
    ciphertext: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse a ciphertext of a length that no RSA key has."""
        least, most = (RSA_BITS_LEGACY_MIN + 7) // 8, RSA_BITS_MAX // 8
        if not least <= len(self.ciphertext) <= most:
            raise _malformed(
                self.TYPE, "encryptedKey", f"is {len(self.ciphertext)} bytes, must be {least} to {most} bytes"
            )

    @classmethod
    def parse(cls, blob: bytes) -> Self:
        """Read a blob. Whether it is as long as its RSA key wants shows only when it is opened."""
        algorithm = _number(cls.TYPE, "aiKeyAlg", _header(cls.TYPE, Secret(blob)), SessionAlgorithm)
        wrapping = _uint32(cls.TYPE, Secret(blob), _HEADER.size)
        if wrapping != RsaUse.EXCHANGE:
            raise _malformed(cls.TYPE, "algid", f"is 0x{wrapping:08x}, must be 0x{RsaUse.EXCHANGE:08x} (RSA_KEYX)")
        return cls(algorithm, blob[_KEY_START:][::-1])

    def encode(self) -> bytes:
        """Give the bytes of the blob."""
        return _head(self.TYPE, self.algorithm) + _UINT32.pack(RsaUse.EXCHANGE) + self.ciphertext[::-1]

    @property
    def ciphertext_digest(self) -> str:
        """SHA-256 of the ciphertext (big-endian) in hex; public, and the same for every copy of a wrapped key."""
        return hashlib.sha256(self.ciphertext).hexdigest()

    @classmethod
    def seal(cls, key: PlaintextKeyBlob, recipient: PublicKeyBlob, padding: Padding) -> Self:
        """Wrap a session key for a public key; raises BlobInvalid for a signature key, and what `rsa.wrap` does."""
        if recipient.use is not RsaUse.EXCHANGE:
            raise BlobInvalid("PUBLICKEYBLOB: aiKeyAlg: is RSA_SIGN; session keys are wrapped for RSA_KEYX keys")
        return cls(key.algorithm, wrap(recipient.key, key.key, padding))

    def open(self, key: Unwrapper, padding: Padding) -> PlaintextKeyBlob:
        """Unwrap the session key; the padding is never guessed, because the wrong one can give a wrong key.

        Raises what `Unwrapper.unwrap` does: with Padding.PKCS1 never because of the padding; a blob
        that was tampered with gives another key instead.
        """
        return PlaintextKeyBlob(self.algorithm, key.unwrap(self.ciphertext, padding, self.algorithm.key_bytes))


KeyBlob: TypeAlias = SimpleBlob | PublicKeyBlob | PrivateKeyBlob | PlaintextKeyBlob


def parse_key_blob(blob: Secret, *, rsa_bits_min: int = RSA_BITS_MIN) -> KeyBlob:
    """Read a blob of whatever kind it says it is."""
    kind, _ = _any_header(blob)
    match kind:
        case BlobType.SIMPLEBLOB:
            return SimpleBlob.parse(blob.expose())
        case BlobType.PUBLICKEYBLOB:
            return PublicKeyBlob.parse(blob.expose(), rsa_bits_min=rsa_bits_min)
        case BlobType.PRIVATEKEYBLOB:
            return PrivateKeyBlob.parse(blob, rsa_bits_min=rsa_bits_min)
        case BlobType.PLAINTEXTKEYBLOB:
            return PlaintextKeyBlob.parse(blob)
        case _:
            assert_never(kind)


# ---- header ------------------------------------------------------------------------------------


def _malformed(kind: BlobType, name: str, wrong: str) -> MalformedStatement:
    return MalformedStatement(f"{kind.name}: {name}: {wrong}")


def _any_header(blob: Secret) -> tuple[BlobType, int]:
    """Judge the first 8 bytes, and give the blob's type and its aiKeyAlg."""
    if len(blob) > KEY_BLOB_BYTES_MAX:
        raise LimitExceeded(
            f"key blob: has {len(blob)} bytes; KEY_BLOB_BYTES_MAX allows {KEY_BLOB_BYTES_MAX} bytes"
        )
    if len(blob) < _HEADER.size:
        raise MalformedStatement(f"key blob: is {len(blob)} bytes; a header alone has {_HEADER.size} bytes")
    type_, version, reserved, algorithm = _HEADER.unpack_from(blob.expose())
    try:
        kind = BlobType(type_)
    except ValueError:
        other = _OTHER_TYPES.get(type_, "no type of a key blob")
        readable = ", ".join(each.name for each in BlobType)
        raise MalformedStatement(
            f"key blob: bType: is 0x{type_:02x} ({other}); must be one of {readable}"
        ) from None
    if version != _VERSION:
        raise _malformed(kind, "bVersion", f"is {version}, must be {_VERSION}")
    if reserved:
        raise _malformed(kind, "reserved", f"is 0x{reserved:04x}, must be 0")
    return kind, algorithm


def _header(kind: BlobType, blob: Secret) -> int:
    found, algorithm = _any_header(blob)
    if found is not kind:
        raise _malformed(kind, "bType", f"is 0x{found:02x} ({found.name}), must be 0x{kind:02x}")
    return algorithm


def _number(kind: BlobType, name: str, value: int, numbers: type[Number]) -> Number:
    try:
        return numbers(value)
    except ValueError:
        known = ", ".join(f"0x{each:04x} ({each.name})" for each in numbers)
        raise _malformed(kind, name, f"is 0x{value:08x}, must be one of {known}") from None


def _uint32(kind: BlobType, blob: Secret, offset: int) -> int:
    if len(blob) < offset + _UINT32.size:
        raise _malformed(kind, "length", f"is {len(blob)} bytes, which ends before byte {offset + _UINT32.size}")
    (value,) = _UINT32.unpack_from(blob.expose(), offset)
    return int(value)


def _check_size(kind: BlobType, blob: Secret, size: int) -> None:
    if len(blob) != size:
        raise _malformed(kind, "length", f"is {len(blob)} bytes; by its fields it has {size} bytes")


def _head(kind: BlobType, algorithm: int) -> bytes:
    return _HEADER.pack(kind, _VERSION, 0, algorithm)


# ---- RSA ---------------------------------------------------------------------------------------


def _parse_rsa(kind: BlobType, blob: Secret, bits_min: int) -> tuple[RsaUse, RsaPublicKey]:
    """Read what PUBLICKEYBLOB and PRIVATEKEYBLOB have in common, and judge the length of the whole."""
    use = _number(kind, "aiKeyAlg", _header(kind, blob), RsaUse)
    magic, bits, exponent = (_uint32(kind, blob, _HEADER.size + offset) for offset in (0, 4, 8))
    if magic != _MAGIC[kind]:
        noise = "; is the key encrypted? Export it without a key" if kind is BlobType.PRIVATEKEYBLOB else ""
        raise _malformed(kind, "magic", f"is 0x{magic:08x}, must be 0x{_MAGIC[kind]:08x}{noise}")
    if not bits_min <= bits <= RSA_BITS_MAX:
        raise LimitExceeded(
            f"{kind.name}: bitlen: is {bits} bits; allowed are RSA_BITS_MIN {bits_min} to"
            f" RSA_BITS_MAX {RSA_BITS_MAX} bits"
        )
    _check_size(kind, blob, _RSA_START + bits * _HALVES[kind] // 16)
    key = RsaPublicKey(int.from_bytes(blob.expose()[_RSA_START : _RSA_START + bits // 8], "little"), exponent)
    if key.bits != bits:
        raise _malformed(kind, "modulus", f"has {key.bits} bits, must have the {bits} of bitlen")
    return use, key


def _judge_public(kind: BlobType, key: RsaPublicKey) -> None:
    step = 8 if kind is BlobType.PUBLICKEYBLOB else 16
    if not RSA_BITS_LEGACY_MIN <= key.bits <= RSA_BITS_MAX or key.bits % step:
        raise _malformed(
            kind,
            "bitlen",
            f"is {key.bits} bits, must be {RSA_BITS_LEGACY_MIN} to {RSA_BITS_MAX} bits and a multiple of {step}",
        )
    if key.modulus % 2 == 0:
        raise _malformed(kind, "modulus", "is even")
    if not _EXPONENT_MIN <= key.exponent < _EXPONENT_END or key.exponent % 2 == 0:
        raise _malformed(
            kind, "pubexp", f"is {key.exponent}, must be odd, at least {_EXPONENT_MIN} and below {_EXPONENT_END}"
        )


def _rsa_head(kind: BlobType, use: RsaUse, key: RsaPublicKey) -> bytes:
    numbers = b"".join(_UINT32.pack(each) for each in (_MAGIC[kind], key.bits, key.exponent))
    return _head(kind, use) + numbers + key.modulus.to_bytes(key.size, "little")


def _parts(key: RsaPrivateNumbers) -> tuple[Secret, ...]:
    return key.prime1, key.prime2, key.exponent1, key.exponent2, key.coefficient, key.private_exponent


def _faults(key: RsaPrivateNumbers) -> Iterator[tuple[str, str]]:
    """Give name and fault of the first number that does not belong to the others; nothing is raised from here.

    Not in constant time: it is done once, when a key pair is read.
    """
    halves = (1, 1, 1, 1, 1, 2)
    if any(len(part) * 16 != key.public.bits * count for part, count in zip(_parts(key), halves, strict=True)):
        yield "length", "of a private number is not the one that bitlen asks for"
    p, q, dp, dq, qinv, d = (int.from_bytes(part.expose(), "big") for part in _parts(key))
    e = key.public.exponent
    if p * q != key.public.modulus:
        yield "prime1, prime2", "are not two numbers whose product is the modulus"
    if d >= key.public.modulus or d * e % (p - 1) != 1 or d * e % (q - 1) != 1:
        yield "privateExponent", "is not the inverse of pubexp"
    if dp != d % (p - 1):
        yield "exponent1", "is not the private exponent modulo prime1 - 1"
    if dq != d % (q - 1):
        yield "exponent2", "is not the private exponent modulo prime2 - 1"
    if qinv >= p or qinv * q % p != 1:
        yield "coefficient", "is not the inverse of prime2 modulo prime1"
