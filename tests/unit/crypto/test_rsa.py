"""RSA key transport: both paddings, one outcome for everything that could be an oracle, and no weak keys."""

import copy
import hashlib
import math
import pickle
import secrets
from dataclasses import replace
from functools import cache
from itertools import count
from typing import Any

import pytest
from cryptography.hazmat.backends.openssl import backend
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric import padding as paddings
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cryptoapi import authority_key

from strongroom.crypto.rsa import (
    RSA_BITS_MAX,
    WRAPPED_BYTES_MAX,
    Padding,
    PrivateRsaKey,
    RsaPublicKey,
    check_ciphertext,
    check_recipient,
    wrap,
)
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, KeyUnknown, LimitExceeded, PermanentError

UNTIMED = settings(deadline=None)  # a busy machine is no failure
AES_256 = range(32, 33)
RC4 = range(5, 17)
SESSION_KEY = Secret(bytes(range(32)))
NOT_OPEN = "^the wrapped key does not open with this key and padding$"


@cache
def key(bits: int = 2048) -> PrivateRsaKey:
    return authority_key() if bits == 2048 else PrivateRsaKey.generate(bits)


@cache
def short_key() -> PrivateRsaKey:
    return PrivateRsaKey(rsa.generate_private_key(65537, 1024))  # noqa: S505 - the point of it


def integer(secret: Secret) -> int:
    return int.from_bytes(secret.expose(), "big")


def encrypted(block: bytes) -> bytes:
    """Encrypt a block as it is, without any padding."""
    public = key().public_key
    return pow(int.from_bytes(block, "big"), public.exponent, public.modulus).to_bytes(public.size, "big")


def block(content: bytes, *, start: bytes = b"\x00\x02", zero: bytes = b"\x00") -> bytes:
    """Pad as PKCS #1 v1.5 does, or nearly."""
    return start + b"\x5a" * (256 - len(start) - len(zero) - len(content)) + zero + content


BADLY_PADDED = {
    "block type 1": block(b"k" * 32, start=b"\x00\x01"),
    "block type 0": block(b"k" * 32, start=b"\x00\x00"),
    "first byte": block(b"k" * 32, start=b"\x01\x02"),
    "no end of the filler": block(b"", zero=b""),
    "filler of 7 bytes": block(b"k" * 246),
    "nothing but zeros": bytes(256),
    "one": bytes(255) + b"\x01",
}
WRONG_LENGTHS = {f"{size} bytes": block(b"k" * size) for size in (0, 1, 31, 33, 245)}
NOT_A_KEY = {name: encrypted(each) for name, each in (BADLY_PADDED | WRONG_LENGTHS).items()}
EVERY_ONE = pytest.mark.parametrize("ciphertext", NOT_A_KEY.values(), ids=NOT_A_KEY.keys())


# ---- there and back ----------------------------------------------------------------------------


@UNTIMED
@given(st.sampled_from(Padding), st.binary(min_size=1, max_size=WRAPPED_BYTES_MAX))
def test_what_is_wrapped_is_unwrapped(padding: Padding, content: bytes) -> None:
    """Up to 64 bytes; the ciphertext is as long as the modulus."""
    wrapped = wrap(key().public_key, Secret(content), padding)
    assert len(wrapped) == 256
    assert key().unwrap(wrapped, padding, range(len(content), len(content) + 1)).expose() == content


def test_a_longer_key_is_not_wrapped() -> None:
    """The message names the limit."""
    for padding in Padding:
        with pytest.raises(LimitExceeded, match="key: has 65 bytes; WRAPPED_BYTES_MAX is 64 bytes"):
            wrap(key().public_key, Secret(bytes(WRAPPED_BYTES_MAX + 1)), padding)


def test_oaep_is_that_of_cryptoapi() -> None:
    """SHA-1 twice and no label: another OAEP does not open."""
    public = key().public_key
    block_ = int.from_bytes(wrap(public, SESSION_KEY, Padding.OAEP), "big")
    encoded = pow(block_, integer(key().numbers().private_exponent), public.modulus).to_bytes(256, "big")

    def mask(seed: bytes, size: int) -> bytes:
        # MGF1 of RFC 8017 appendix B.2.1
        digests = (hashlib.sha1(seed + n.to_bytes(4, "big")).digest() for n in range(size // 20 + 1))  # noqa: S324
        return b"".join(digests)[:size]

    def xor(one: bytes, other: bytes) -> bytes:
        return bytes(a ^ b for a, b in zip(one, other, strict=True))

    masked_seed, masked = encoded[1:21], encoded[21:]
    seed = xor(masked_seed, mask(masked, 20))
    data = xor(masked, mask(seed, len(masked)))
    assert encoded[0] == 0
    assert data[:20] == hashlib.sha1(b"").digest()  # noqa: S324 - the hash of the empty label
    assert data[20:] == bytes(256 - 42 - 32) + b"\x01" + SESSION_KEY.expose()


def test_a_key_pair_survives_writing_and_reading() -> None:
    """As PKCS #8 and as numbers; both open what was wrapped before."""
    wrapped = wrap(key().public_key, SESSION_KEY, Padding.OAEP)
    for again in (
        PrivateRsaKey.from_bytes(key().private_bytes()),
        PrivateRsaKey.from_numbers(key().numbers()),
    ):
        assert again.public_key == key().public_key
        assert again.numbers() == key().numbers()
        assert again.unwrap(wrapped, Padding.OAEP, AES_256) == SESSION_KEY
    loaded = serialization.load_der_private_key(key().private_bytes().expose(), None)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    assert loaded.private_numbers().public_numbers.n == key().public_key.modulus


def test_the_numbers_have_the_lengths_of_the_key() -> None:
    """Leading zeros included, whatever the key."""
    for bits in (2048, 2056):
        numbers = key(bits).numbers()
        assert key(bits).public_key.size == bits // 8
        halves = (numbers.prime1, numbers.prime2, numbers.exponent1, numbers.exponent2, numbers.coefficient)
        assert {len(each) for each in halves} == {(bits // 8 + 1) // 2}
        assert len(numbers.private_exponent) == bits // 8


def test_the_fingerprint_is_a_digest_of_the_modulus() -> None:
    """Big-endian, without leading zeros; the exponent has no part in it."""
    assert RsaPublicKey(0xABCDEF, 3).fingerprint == hashlib.sha256(b"\xab\xcd\xef").hexdigest()
    assert RsaPublicKey(0xABCDEF, 5).fingerprint == RsaPublicKey(0xABCDEF, 3).fingerprint
    assert key().public_key.fingerprint in repr(key())


# ---- one outcome -------------------------------------------------------------------------------


def test_the_library_rejects_implicitly() -> None:
    """Bad padding raises nothing and gives the same random bytes again: OpenSSL from 3.2 on."""
    assert backend.openssl_version_number() >= 0x30200000
    loaded = serialization.load_der_private_key(key().private_bytes().expose(), None)
    assert isinstance(loaded, rsa.RSAPrivateKey)
    for each in BADLY_PADDED.values():
        first, second = (loaded.decrypt(encrypted(each), paddings.PKCS1v15()) for _ in range(2))
        assert first == second
        assert b"k" * 32 not in first


@EVERY_ONE
def test_what_holds_no_key_gives_one_all_the_same(ciphertext: bytes) -> None:
    """Of the right length, random to look at, and again the same, for bad padding as for a wrong length."""
    first, second = (key().unwrap(ciphertext, Padding.PKCS1, AES_256) for _ in range(2))
    assert len(first) == 32
    assert first == second
    assert len(set(first.expose())) > 8


def test_each_ciphertext_is_rejected_with_bytes_of_its_own() -> None:
    """Two that hold no key never look alike."""
    given_ = [key().unwrap(each, Padding.PKCS1, AES_256).expose() for each in NOT_A_KEY.values()]
    assert len(set(given_)) == len(NOT_A_KEY)


def test_rejection_for_one_length_says_nothing_about_that_for_another() -> None:
    """Who asks for 16 bytes, then for 24 and 32, cannot compare the answers to learn that none was in there."""
    for each in NOT_A_KEY.values():
        lengths = (range(16, 17), range(24, 25), range(32, 33), range(5, 17))
        given_ = [key().unwrap(each, Padding.PKCS1, length).expose()[:5] for length in lengths]
        assert len(set(given_)) == len(lengths)


def test_rejection_depends_on_the_private_key() -> None:
    """Nobody else can compute what is given for a ciphertext that holds no key."""
    ciphertext = bytes(255) + b"\x01"
    other = PrivateRsaKey.generate(2048)
    assert key().unwrap(ciphertext, Padding.PKCS1, AES_256) != other.unwrap(ciphertext, Padding.PKCS1, AES_256)


@EVERY_ONE
def test_rejection_is_the_same_after_a_restart(ciphertext: bytes) -> None:
    """Asking again later tells nothing either."""
    again = PrivateRsaKey.from_bytes(key().private_bytes())
    assert again.unwrap(ciphertext, Padding.PKCS1, AES_256) == key().unwrap(ciphertext, Padding.PKCS1, AES_256)


@EVERY_ONE
def test_a_key_of_unknown_length_is_rejected_within_its_lengths(ciphertext: bytes) -> None:
    """RC2 and RC4 keys have 5 to 16 bytes; the blob does not say how many."""
    assert len(key().unwrap(ciphertext, Padding.PKCS1, RC4)) in RC4


@pytest.mark.parametrize("size", RC4)
def test_every_length_that_is_allowed_is_unwrapped(size: int) -> None:
    """At both ends of the range."""
    content = Secret(secrets.token_bytes(size))
    for padding in Padding:
        assert key().unwrap(wrap(key().public_key, content, padding), padding, RC4) == content


class Library:
    """An RSA key of a library that says when the padding was bad, as OpenSSL did before 3.2."""

    def __init__(self, real: PrivateRsaKey) -> None:
        self._real = serialization.load_der_private_key(real.private_bytes().expose(), None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def decrypt(self, _ciphertext: bytes, _padding: object) -> bytes:
        """Say that the padding is bad."""
        raise ValueError("Decryption failed")


def test_a_library_that_tells_bad_padding_is_not_heard() -> None:
    """What it raises has the same outcome."""
    telling: Any = Library(key())
    own = PrivateRsaKey(telling)
    for each in NOT_A_KEY.values():
        assert len(own.unwrap(each, Padding.PKCS1, AES_256)) == 32


def test_oaep_fails_with_the_same_words_whatever_the_cause() -> None:
    """No key, a key of another length, another padding: nobody learns which (Manger's attack)."""
    shorter = wrap(key().public_key, Secret(bytes(16)), Padding.OAEP)
    longer = wrap(key().public_key, Secret(bytes(33)), Padding.OAEP)
    v15 = wrap(key().public_key, SESSION_KEY, Padding.PKCS1)
    for ciphertext in (*NOT_A_KEY.values(), shorter, longer, v15):
        with pytest.raises(BlobInvalid, match=NOT_OPEN) as caught:
            key().unwrap(ciphertext, Padding.OAEP, AES_256)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_oaep_ciphertext_never_opens_as_v15() -> None:
    """It gives some other key."""
    wrapped = wrap(key().public_key, SESSION_KEY, Padding.OAEP)
    assert key().unwrap(wrapped, Padding.PKCS1, AES_256) != SESSION_KEY


@pytest.mark.parametrize("padding", Padding)
@pytest.mark.parametrize("size", [0, 1, 255, 257, 512])
def test_a_ciphertext_of_another_length_is_refused(padding: Padding, size: int) -> None:
    """Everybody can see that, so it is said."""
    with pytest.raises(BlobInvalid, match=f"^wrapped key: has {size} bytes; with this RSA key it has 256$"):
        key().unwrap(bytes(size), padding, AES_256)


@pytest.mark.parametrize("padding", Padding)
def test_a_number_that_is_not_below_the_modulus_is_refused(padding: Padding) -> None:
    """A ciphertext plus the modulus is no second name of the same blob."""
    modulus = key().public_key.modulus
    below = next(
        wrapped
        for wrapped in (wrap(key().public_key, SESSION_KEY, padding) for _ in count())
        if int.from_bytes(wrapped, "big") + modulus < 2**2048
    )
    twin = (int.from_bytes(below, "big") + modulus).to_bytes(256, "big")
    for number in (modulus.to_bytes(256, "big"), b"\xff" * 256, twin):
        with pytest.raises(BlobInvalid, match=r"^wrapped key: is not below the modulus of this RSA key$"):
            key().unwrap(number, padding, AES_256)
    check_ciphertext(key().public_key, (modulus - 1).to_bytes(256, "big"))


# ---- keys --------------------------------------------------------------------------------------


def with_modulus(modulus: int, exponent: int = 65537) -> RsaPublicKey:
    return RsaPublicKey(modulus, exponent)


def prime_below(limit: int) -> int:
    """Give the largest odd number below that has no small factor; no test needs more."""
    small = math.prod(each for each in range(3, 2000, 2) if all(each % d for d in range(3, 45, 2) if d < each))
    return next(number for number in range(limit - 1 | 1, 0, -2) if number < limit and math.gcd(number, small) == 1)


GOOD_MODULUS = key().public_key.modulus
NEAR = prime_below(3 << 1022)
ROCA_BASE = math.prod(each for each in range(3, 168) if all(each % d for d in range(2, each)))


def roca_modulus() -> int:
    """Give a modulus that is a power of 65537 modulo each small prime, as those of CVE-2017-15361 are."""
    residue = pow(65537, 12345, ROCA_BASE)
    start = (1 << 2047) // ROCA_BASE + 7
    small = math.prod(each for each in range(2, 752) if all(each % d for d in range(2, math.isqrt(each) + 1)))
    moduli = (residue + ROCA_BASE * (start + step) for step in count())
    return next(modulus for modulus in moduli if math.gcd(modulus, small) == 1)


@pytest.mark.parametrize("bits", [2048, 2056, 3072])
def test_a_good_key_may_be_wrapped_for(bits: int) -> None:
    """From 2,048 bits on."""
    check_recipient(key(bits).public_key)
    check_recipient(RsaPublicKey(key(bits).public_key.modulus, 2**32 - 1))


Case = tuple[RsaPublicKey, type[PermanentError], str]
WEAK: dict[str, Case] = {
    "2047 bits": (with_modulus(GOOD_MODULUS >> 1 | 1), LimitExceeded, r"has 2047 bits; .* RSA_BITS_MIN 2048"),
    "1024 bits": (with_modulus(1 << 1023 | 1), LimitExceeded, r"has 1024 bits; .* RSA_BITS_MIN 2048"),
    "8193 bits": (with_modulus(1 << RSA_BITS_MAX | 1), LimitExceeded, r"has 8193 bits; .* RSA_BITS_MAX 8192"),
    "exponent 3": (with_modulus(GOOD_MODULUS, 3), LimitExceeded, "exponent: is 3; RSA_EXPONENT_MIN is 65537"),
    "exponent 65535": (with_modulus(GOOD_MODULUS, 65535), LimitExceeded, "exponent: is 65535"),
    "exponent 2^256": (with_modulus(GOOD_MODULUS, 2**256 + 1), LimitExceeded, r"exponent: .* RSA_EXPONENT_MAX 2"),
    "even exponent": (with_modulus(GOOD_MODULUS, 65538), KeyUnknown, "exponent: is even"),
    "even modulus": (with_modulus(GOOD_MODULUS - 1), KeyUnknown, "modulus: has a small factor"),
    "factor 751": (with_modulus(751 * prime_below(GOOD_MODULUS // 751)), KeyUnknown, "modulus: has a small factor"),
    "square": (with_modulus(NEAR * NEAR), KeyUnknown, "modulus: its primes are too close"),
    "close primes": (with_modulus(NEAR * prime_below(NEAR)), KeyUnknown, "modulus: its primes are too close"),
    "CVE-2017-15361": (with_modulus(roca_modulus()), KeyUnknown, "CVE-2017-15361"),
}


@pytest.mark.parametrize(("public_key", "error", "words"), WEAK.values(), ids=WEAK.keys())
def test_nothing_is_wrapped_for_a_weak_key(
    public_key: RsaPublicKey, error: type[PermanentError], words: str
) -> None:
    """Short, long, of a small exponent, or easily factored."""
    for padding in Padding:
        with pytest.raises(error, match=words):
            wrap(public_key, SESSION_KEY, padding)


def test_random_moduli_are_not_taken_for_weak_ones() -> None:
    """Of many numbers without small factors, none is refused."""
    for step in range(200):
        modulus = prime_below(GOOD_MODULUS - 10_000 * step)
        check_recipient(RsaPublicKey(modulus, 65537))


@pytest.mark.parametrize("bits", [512, 1024, 2047, RSA_BITS_MAX + 1])
def test_no_short_or_long_key_is_made(bits: int) -> None:
    """Outside 2,048 to 8,192 bits."""
    with pytest.raises(ValueError, match="a new RSA key has 2048 to 8192 bits"):
        PrivateRsaKey.generate(bits)


def test_a_short_key_pair_is_read_only_on_demand() -> None:
    """1,024 bits; what was wrapped for it long ago opens then."""
    private, numbers = short_key().private_bytes(), short_key().numbers()
    words = "this RSA key has 1024 bits; it must have at least 2048, at most 8192"
    with pytest.raises(ValueError, match=words):
        PrivateRsaKey.from_bytes(private)
    with pytest.raises(ValueError, match=words):
        PrivateRsaKey.from_numbers(numbers)
    wrapped = short_key()._key.public_key().encrypt(bytes(16), paddings.PKCS1v15())
    for read in (
        PrivateRsaKey.from_bytes(private, bits_min=1024),
        PrivateRsaKey.from_numbers(numbers, bits_min=1024),
    ):
        assert read.unwrap(wrapped, Padding.PKCS1, range(16, 17)) == Secret(bytes(16))


def test_numbers_that_are_no_key_pair_are_refused() -> None:
    """Without quoting any of them."""
    numbers = key().numbers()
    wrong = replace(numbers, exponent1=numbers.exponent2, exponent2=numbers.exponent1)
    with pytest.raises(ValueError, match=r"^these numbers are not an RSA key pair$") as caught:
        PrivateRsaKey.from_numbers(wrong)
    assert caught.value.__suppress_context__


def test_bytes_that_are_no_key_pair_are_refused() -> None:
    """Noise, a cut key, a key with a passphrase, a key of another kind."""
    whole = key().private_bytes().expose()
    format_ = serialization.PrivateFormat.PKCS8
    protected = serialization.load_der_private_key(whole, None).private_bytes(
        serialization.Encoding.DER, format_, serialization.BestAvailableEncryption(b"p")
    )
    curve = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.DER, format_, serialization.NoEncryption()
    )
    for wrong in (b"", b"noise", whole[:-1], protected):
        with pytest.raises(ValueError, match=r"^these bytes are not an RSA private key in DER$"):
            PrivateRsaKey.from_bytes(Secret(wrong))
    with pytest.raises(ValueError, match=r"^this private key is of another kind$"):
        PrivateRsaKey.from_bytes(Secret(curve))


def test_a_private_key_neither_shows_nor_copies_itself() -> None:
    """repr, pickle, copy; its numbers show their lengths only."""
    assert repr(key()) == f"<PrivateRsaKey: 2048 bits, {key().public_key.fingerprint}>"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither copied nor pickled"):
            attempt(key())
    shown = repr(key().numbers())
    for secret in ("prime1", "prime2", "exponent1", "exponent2", "coefficient"):
        assert f"{secret}=<Secret: 128 bytes>" in shown
    assert "private_exponent=<Secret: 256 bytes>" in shown
