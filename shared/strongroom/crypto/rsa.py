"""RSA key transport, for keys that other programs wrapped or shall unwrap: PKCS #1 v1.5 and OAEP (RFC 8017).

Own blobs never use it. Ciphertexts are big-endian here, as in RFC 8017, and exactly as long as the modulus.

PKCS #1 v1.5 says nothing about tampering, and whoever can learn whether a ciphertext was well padded can decrypt
with the key (Bleichenbacher). So it is opened with implicit rejection, as draft-irtf-cfrg-rsa-guidance has it:
what is badly padded, or of the wrong length, gives a key that is random to everyone else and the same each time.
That no error came back means nothing; whether it is the right key shows only when it is used or compared. A key
pair for v1.5 should serve nothing else: an oracle for v1.5 opens OAEP ciphertexts of the same key, too.
"""

import hashlib
import hmac
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn, Protocol, Self, final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding as paddings
from cryptography.hazmat.primitives.asymmetric import rsa

from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, KeyUnknown, LimitExceeded

RSA_BITS_MIN: Final = 2048
RSA_BITS_MAX: Final = 8192
RSA_EXPONENT_MIN: Final = 65537
RSA_EXPONENT_MAX: Final = 2**256 - 1
WRAPPED_BYTES_MAX: Final = 64

_EXPONENT: Final = 65537
_REJECTION_LABEL: Final = b"strongroom/rsa-implicit-rejection/v1"
_DOES_NOT_OPEN: Final = "the wrapped key does not open with this key and padding"
_FERMAT_ROUNDS: Final = 100


class Padding(StrEnum):
    """How a key was padded, which no ciphertext says. OAEP: SHA-1, MGF1 with SHA-1, empty label (CRYPT_OAEP)."""

    PKCS1 = "pkcs1"
    OAEP = "oaep"


_PADDINGS: Final[dict[Padding, paddings.AsymmetricPadding]] = {
    Padding.PKCS1: paddings.PKCS1v15(),
    # Collisions of SHA-1 do not touch OAEP, and CryptoAPI knows no other hash here.
    Padding.OAEP: paddings.OAEP(paddings.MGF1(hashes.SHA1()), hashes.SHA1(), None),  # noqa: S303
}


@dataclass(frozen=True, slots=True)
class RsaPublicKey:
    """Modulus and exponent of an RSA key; nothing is said about whether they are any good."""

    modulus: int
    exponent: int

    @property
    def bits(self) -> int:
        """The length of the modulus in bits."""
        return self.modulus.bit_length()

    @property
    def size(self) -> int:
        """The length of the modulus, and of every ciphertext, in bytes."""
        return (self.bits + 7) // 8

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the modulus (big-endian, without leading zeros) in hex: the same for both halves of a pair."""
        return hashlib.sha256(self.modulus.to_bytes(self.size, "big")).hexdigest()

    def to_spki(self) -> bytes:
        """Give the key as SubjectPublicKeyInfo in DER (RFC 8017 appendix A.1); ValueError if no key can be so."""
        return (
            rsa.RSAPublicNumbers(self.exponent, self.modulus)
            .public_key()
            .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        )

    @classmethod
    def from_spki(cls, spki: bytes) -> Self:
        """Read what `to_spki` gives; ValueError for everything else, another DER of the same key included."""
        try:
            key = serialization.load_der_public_key(spki)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("these bytes are not an RSA public key in DER") from None
        if not isinstance(key, rsa.RSAPublicKey):
            raise ValueError("this public key is of another kind")  # noqa: TRY004 - bytes, not an argument
        numbers = key.public_numbers()
        found = cls(numbers.n, numbers.e)
        if found.to_spki() != spki:
            raise ValueError("this RSA public key is not in the one form of DER")
        return found


@dataclass(frozen=True, slots=True)
class RsaPrivateNumbers:
    """The numbers of an RSA key pair (RFC 8017 section 3.2), the secret ones big-endian.

    `prime1` (p), `prime2` (q), `exponent1` (d mod p-1), `exponent2` (d mod q-1) and `coefficient` (1/q mod p) have
    half the bytes of the modulus, rounded up; `private_exponent` (d) has as many as the modulus.
    """

    public: RsaPublicKey
    prime1: Secret
    prime2: Secret
    exponent1: Secret
    exponent2: Secret
    coefficient: Secret
    private_exponent: Secret


class Unwrapper(Protocol):
    """An RSA private key that unwraps keys, wherever it lives (this process, a hardware module).

    Implementations may be used by several threads at once and may block for as long as their device takes.
    """

    @property
    def public_key(self) -> RsaPublicKey:
        """The public half."""
        ...

    def unwrap(self, ciphertext: bytes, padding: Padding, lengths: range) -> Secret:
        """Give the wrapped key, whose length in bytes is one of `lengths`, as `PrivateRsaKey.unwrap` does.

        Changes nothing: the same call gives the same answer. Raises BlobInvalid as that one; Denied for a padding
        that this key may not be used with; a device that does not answer is a TransientError, because a caller
        that sees BlobInvalid may report the key as lost.
        """
        ...


def check_recipient(public_key: RsaPublicKey) -> None:
    """Return when new keys may be wrapped for this public key, which its owner may have made badly.

    Raises LimitExceeded outside RSA_BITS_MIN to RSA_BITS_MAX bits, and for an exponent outside RSA_EXPONENT_MIN to
    RSA_EXPONENT_MAX; KeyUnknown for an even exponent, and for a modulus that is easily factored: with a factor
    below 752 (NIST SP 800-89 section 5.3.3), with primes close to each other (CVE-2022-26320), or with primes of
    the form of CVE-2017-15361.
    """
    if not RSA_BITS_MIN <= public_key.bits <= RSA_BITS_MAX:
        raise LimitExceeded(
            f"modulus: has {public_key.bits} bits; new keys are wrapped for keys of"
            f" RSA_BITS_MIN {RSA_BITS_MIN} to RSA_BITS_MAX {RSA_BITS_MAX} bits"
        )
    if not RSA_EXPONENT_MIN <= public_key.exponent <= RSA_EXPONENT_MAX:
        raise LimitExceeded(
            f"public exponent: is {public_key.exponent}; RSA_EXPONENT_MIN is {RSA_EXPONENT_MIN},"
            " RSA_EXPONENT_MAX 2^256 - 1"
        )
    if public_key.exponent % 2 == 0:
        raise KeyUnknown("public exponent: is even")
    modulus = public_key.modulus
    if math.gcd(modulus, _SMALL_PRIMES_PRODUCT) != 1:
        raise KeyUnknown("modulus: has a small factor: this is no safe RSA key")
    if _has_close_primes(modulus):
        raise KeyUnknown("modulus: its primes are too close to each other: this is no safe RSA key")
    if all(modulus % prime in powers for prime, powers in _ROCA_POWERS.items()):
        raise KeyUnknown(
            "modulus: was made by a generator whose keys can be broken (CVE-2017-15361)",
            hint="make a new key pair in another device or program",
        )


def wrap(public_key: RsaPublicKey, plaintext: Secret, padding: Padding) -> bytes:
    """Wrap a key of at most 64 bytes for `public_key`; the ciphertext is another one each time.

    Raises what `check_recipient` raises, and LimitExceeded for a longer plaintext.
    """
    check_recipient(public_key)
    if len(plaintext) > WRAPPED_BYTES_MAX:
        raise LimitExceeded(f"key: has {len(plaintext)} bytes; WRAPPED_BYTES_MAX is {WRAPPED_BYTES_MAX} bytes")
    loaded = rsa.RSAPublicNumbers(public_key.exponent, public_key.modulus).public_key()
    return loaded.encrypt(plaintext.expose(), _PADDINGS[padding])


def check_ciphertext(public_key: RsaPublicKey, ciphertext: bytes) -> None:
    """Return when these bytes can be a ciphertext for this public key; anybody can see that, and nothing more.

    Raises BlobInvalid for another length than that of the modulus, and for a number that is not below it: adding
    the modulus would give a copy that looks like another blob.
    """
    if len(ciphertext) != public_key.size:
        raise BlobInvalid(f"wrapped key: has {len(ciphertext)} bytes; with this RSA key it has {public_key.size}")
    if int.from_bytes(ciphertext, "big") >= public_key.modulus:
        raise BlobInvalid("wrapped key: is not below the modulus of this RSA key")


@final
class PrivateRsaKey:
    """An RSA private key held in this process; its repr shows size and fingerprint only."""

    __slots__ = ("_key", "_rejection_key", "public_key")

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        """Take a loaded key; use `generate`, `from_numbers` or `from_bytes`."""
        numbers = key.public_key().public_numbers()
        self.public_key: Final = RsaPublicKey(numbers.n, numbers.e)
        self._key: Final = key
        # From the key itself, so that the same ciphertext is rejected with the same bytes after a restart, too.
        self._rejection_key: Final = Secret(
            hmac.digest(_private_exponent(key).expose(), _REJECTION_LABEL, hashlib.sha512)
        )

    @classmethod
    def generate(cls, bits: int) -> Self:
        """Make a new random key of 2,048 to 8,192 bits; ValueError for another size. The longest take a minute."""
        if not RSA_BITS_MIN <= bits <= RSA_BITS_MAX:
            raise ValueError(f"a new RSA key has {RSA_BITS_MIN} to {RSA_BITS_MAX} bits")
        return cls(rsa.generate_private_key(_EXPONENT, bits))

    @classmethod
    def from_numbers(cls, numbers: RsaPrivateNumbers, *, bits_min: int = RSA_BITS_MIN) -> Self:
        """Build the key pair of these numbers; ValueError if they are not one, or a modulus too short or long.

        `bits_min`, not below 1,024, is lowered only to read what was wrapped long ago.
        """
        _check_bits(numbers.public.bits, bits_min)
        try:
            key = rsa.RSAPrivateNumbers(
                p=_integer(numbers.prime1),
                q=_integer(numbers.prime2),
                d=_integer(numbers.private_exponent),
                dmp1=_integer(numbers.exponent1),
                dmq1=_integer(numbers.exponent2),
                iqmp=_integer(numbers.coefficient),
                public_numbers=rsa.RSAPublicNumbers(numbers.public.exponent, numbers.public.modulus),
            ).private_key()
        except ValueError:
            raise ValueError("these numbers are not an RSA key pair") from None
        return cls(key)

    @classmethod
    def from_bytes(cls, private: Secret, *, bits_min: int = RSA_BITS_MIN) -> Self:
        """Build the key pair from what `private_bytes` gave; otherwise as `from_numbers`."""
        try:
            key = serialization.load_der_private_key(private.expose(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise ValueError("these bytes are not an RSA private key in DER") from None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ValueError("this private key is of another kind")  # noqa: TRY004 - bytes, not an argument
        _check_bits(key.key_size, bits_min)
        return cls(key)

    def private_bytes(self) -> Secret:
        """Give the key as PKCS #8 PrivateKeyInfo in DER, not encrypted."""
        return Secret(
            self._key.private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def numbers(self) -> RsaPrivateNumbers:
        """Give the numbers of the key pair."""
        half = (self.public_key.size + 1) // 2
        found = self._key.private_numbers()
        return RsaPrivateNumbers(
            public=self.public_key,
            prime1=Secret(found.p.to_bytes(half, "big")),
            prime2=Secret(found.q.to_bytes(half, "big")),
            exponent1=Secret(found.dmp1.to_bytes(half, "big")),
            exponent2=Secret(found.dmq1.to_bytes(half, "big")),
            coefficient=Secret(found.iqmp.to_bytes(half, "big")),
            private_exponent=_private_exponent(self._key),
        )

    def unwrap(self, ciphertext: bytes, padding: Padding, lengths: range) -> Secret:
        """Give the wrapped key, whose length in bytes is one of `lengths` (at most 64).

        Raises what `check_ciphertext` raises, and BlobInvalid with the same words for every cause that depends on
        the private key.

        With Padding.PKCS1 nothing of the latter is ever raised. A ciphertext of bad padding, or of a key of another
        length, gives the longest of `lengths` in bytes that depend on both and on the private key alone: see the
        head of this module for what that asks of the caller.
        """
        check_ciphertext(self.public_key, ciphertext)
        if padding is Padding.PKCS1:
            return self._unwrap_pkcs1(ciphertext, lengths)
        try:
            opened = Secret(self._key.decrypt(ciphertext, _PADDINGS[padding]))
        except ValueError:
            raise BlobInvalid(_DOES_NOT_OPEN) from None
        if len(opened) not in lengths:
            raise BlobInvalid(_DOES_NOT_OPEN)
        return opened

    def _unwrap_pkcs1(self, ciphertext: bytes, lengths: range) -> Secret:
        # Made each time, so that it costs the same whether it is needed or not. Without the lengths in it, asking
        # for 16 bytes and for 32 would show, by what the answers have in common, that neither was in there.
        asked = bytes((lengths[0], lengths[-1])) + ciphertext
        substitute = Secret(hmac.digest(self._rejection_key.expose(), asked, hashlib.sha512)[: lengths[-1]])
        try:
            opened = Secret(self._key.decrypt(ciphertext, _PADDINGS[Padding.PKCS1]))
        except ValueError:
            # OpenSSL rejects implicitly since 3.2; an older one must not be heard either.
            opened = Secret(b"")
        return opened if len(opened) in lengths else substitute

    def __repr__(self) -> str:
        """Show size and fingerprint, which are public."""
        return f"<PrivateRsaKey: {self.public_key.bits} bits, {self.public_key.fingerprint}>"

    def __reduce_ex__(self, _protocol: object, /) -> NoReturn:
        """Refuse with TypeError: a private key is written as a decision, by `private_bytes` or `numbers`."""
        raise TypeError("a PrivateRsaKey is neither copied nor pickled")


def _check_bits(bits: int, bits_min: int) -> None:
    if not bits_min <= bits <= RSA_BITS_MAX:
        raise ValueError(f"this RSA key has {bits} bits; it must have at least {bits_min}, at most {RSA_BITS_MAX}")


def _integer(secret: Secret) -> int:
    return int.from_bytes(secret.expose(), "big")


def _private_exponent(key: rsa.RSAPrivateKey) -> Secret:
    return Secret(key.private_numbers().d.to_bytes((key.key_size + 7) // 8, "big"))


# ---- moduli that are easily factored -----------------------------------------------------------


def _primes_below(limit: int) -> list[int]:
    return [number for number in range(2, limit) if all(number % each for each in range(2, math.isqrt(number) + 1))]


_SMALL_PRIMES_PRODUCT: Final = math.prod(_primes_below(752))
# Where the generator's primes were powers of 65537 modulo each of these primes, their product is, too.
_ROCA_POWERS: Final = {
    prime: frozenset(pow(65537, power, prime) for power in range(prime)) for prime in _primes_below(168)[1:]
}


def _has_close_primes(modulus: int) -> bool:
    """Try Fermat's method for as many rounds as the CA/Browser Forum asks for; safe keys withstand any number."""
    middle = math.isqrt(modulus - 1) + 1
    return any(
        math.isqrt(square := (middle + step) ** 2 - modulus) ** 2 == square for step in range(_FERMAT_ROUNDS)
    )
