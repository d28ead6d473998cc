"""CryptDeriveKey: the keys that Wine, Windows and Microsoft's manual give."""

import hashlib

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4, TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cryptoapi import VECTORS, algorithm

from strongroom.crypto.secret import Secret
from strongroom.errors import LimitExceeded, UsageError
from strongroom.formats.alg_id import SessionAlgorithm
from strongroom.formats.cryptderivekey import BaseHash, Salt, derive_key, with_odd_parity

UNTIMED = settings(deadline=None)  # a busy machine is no failure
SAMPLE = VECTORS["microsoft_rc4_sample"]
# By another implementation, Windows, for the password PasswordGoesHere: tests of .NET's PasswordDeriveBytes.
WINDOWS = [
    ("SHA-1", "3DES", 192, "97628A641949D99DCED35DB0ABCE20F21FF4DA9B46E00BCE"),
    ("SHA-1", "DES", 64, "B0685D8C98F4854A"),
    ("SHA-1", "RC2", 128, "B0695D8D98F5844B9650A9F68EFF105B"),
    ("SHA-256", "RC2", 128, "CF4A1CA60093E71D6B740DBB962B3C66"),
    ("MD5", "RC2", 128, "84F4B6854CDF896A86FB493B852B6E1F"),
]


def derive(
    password: str,
    base_hash: str,
    label: str,
    bits: int,
    *,
    odd_parity: bool = False,
    salt: Salt = Salt.ZERO,
) -> bytes:
    derived = derive_key(
        Secret(password.encode()),
        BaseHash(base_hash.lower()),
        algorithm(label),
        bits=bits,
        odd_parity=odd_parity,
        salt=salt,
    )
    return derived.cipher_key.expose()


@pytest.mark.parametrize("vector", VECTORS["derive_key"], ids=lambda each: f"{each['hash']}-{each['algorithm']}")
def test_keys_are_those_of_another_implementation(vector: dict[str, str]) -> None:
    """Wine, which leaves the parity of DES keys as it comes."""
    key = bytes.fromhex(vector["key"])
    assert derive(vector["password"], vector["hash"], vector["algorithm"], 8 * len(key)) == key


@pytest.mark.parametrize(("base_hash", "label", "bits", "key"), WINDOWS)
def test_keys_are_those_of_windows(base_hash: str, label: str, bits: int, key: str) -> None:
    """Windows sets the parity of DES keys to odd."""
    assert derive("PasswordGoesHere", base_hash, label, bits, odd_parity=True) == bytes.fromhex(key)


def test_an_aes_key_is_expanded_although_the_hash_is_long_enough() -> None:
    """SHA-1 has 20 bytes; the key of Password1 is known from Wine's own tests."""
    assert derive("Password1", "SHA-1", "AES-128", 128).hex() == "2d7239a9975d28d1c6cf44bffe3c33a5"
    assert derive("Password1", "SHA-256", "AES-128", 128) == hashlib.sha256(b"Password1").digest()[:16]


@pytest.mark.parametrize("base_hash", BaseHash)
def test_a_key_of_two_des_keys_is_the_beginning_of_the_hash(base_hash: BaseHash) -> None:
    """Each hash has the 16 bytes that it needs."""
    hashed = hashlib.new(base_hash.replace("-", ""), b"password").digest()
    assert derive("password", base_hash, "3DES-112", 128) == hashed[:16]


@pytest.mark.parametrize("bits", range(40, 136, 8))
@pytest.mark.parametrize("label", ["RC2", "RC4"])
def test_a_short_key_is_the_beginning_of_the_hash(label: str, bits: int) -> None:
    """In steps of a byte."""
    key = derive("password", "SHA-1", label, bits, salt=Salt.NONE)
    assert key == hashlib.sha1(b"password").digest()[: bits // 8]  # noqa: S324 - what CryptoAPI does


def test_a_key_of_40_bits_is_followed_by_zeros() -> None:
    """Microsoft's own sample: MD5, RC4, plaintext and ciphertext of their manual."""
    password, plaintext = SAMPLE["password"], bytes.fromhex(SAMPLE["plaintext"])
    assert hashlib.md5(password.encode()).hexdigest() == SAMPLE["md5"]  # noqa: S324 - what CryptoAPI does
    key = derive(password, "MD5", "RC4", 40)
    assert key.hex() == SAMPLE["rc4_40_key"]
    assert Cipher(ARC4(key), None).encryptor().update(plaintext).hex() == SAMPLE["ciphertext"]


def test_a_created_salt_is_the_next_part_of_the_hash() -> None:
    """The second ciphertext of Microsoft's sample."""
    key = derive(SAMPLE["password"], "MD5", "RC4", 40, salt=Salt.CREATED)
    assert key.hex() == SAMPLE["md5"]
    ciphertext = Cipher(ARC4(key), None).encryptor().update(bytes.fromhex(SAMPLE["plaintext"]))
    assert ciphertext.hex() == "47f45de2cc3b871b95bcfc39fb86d305daa291fb80f12a22c3b9ec91dd9faf50"


def test_key_and_salt_of_40_bits_are_told_apart() -> None:
    """A blob holds the key alone; RC2 counts its effective bits alone."""
    for salt, rest in ((Salt.ZERO, bytes(11)), (Salt.CREATED, bytes.fromhex(SAMPLE["md5"])[5:]), (Salt.NONE, b"")):
        derived = derive_key(
            Secret(SAMPLE["password"].encode()),
            BaseHash.MD5,
            SessionAlgorithm.RC2,
            bits=40,
            odd_parity=True,
            salt=salt,
        )
        assert derived.key.expose() == bytes.fromhex(SAMPLE["md5"])[:5]
        assert derived.salt.expose() == rest


@pytest.mark.parametrize("salt", [Salt.ZERO, Salt.NONE])
def test_longer_keys_have_no_salt(salt: Salt) -> None:
    """The eleven zeros come with keys of exactly 40 bits."""
    for each in SessionAlgorithm:
        derived = derive_key(
            Secret(b"p"), BaseHash.SHA_1, each, bits=8 * each.key_bytes[-1], odd_parity=False, salt=salt
        )
        assert derived.salt == Secret(b"")
        assert derived.cipher_key == derived.key


@pytest.mark.parametrize("algorithm", SessionAlgorithm)
def test_a_salt_is_created_for_40_bits_only(algorithm: SessionAlgorithm) -> None:
    """The request is refused rather than passed over."""
    with pytest.raises(UsageError, match="salt: is created for keys of 40 bits only"):
        derive_key(
            Secret(b"p"),
            BaseHash.SHA_1,
            algorithm,
            bits=8 * algorithm.key_bytes[-1],
            odd_parity=False,
            salt=Salt.CREATED,
        )


@pytest.mark.parametrize(
    ("algorithm", "allowed"),
    [
        (SessionAlgorithm.DES, "64"),
        (SessionAlgorithm.TRIPLE_DES_112, "128"),
        (SessionAlgorithm.TRIPLE_DES, "192"),
        (SessionAlgorithm.AES_128, "128"),
        (SessionAlgorithm.AES_192, "192"),
        (SessionAlgorithm.AES_256, "256"),
        (SessionAlgorithm.RC2, "40 to 128, in steps of 8,"),
        (SessionAlgorithm.RC4, "40 to 128, in steps of 8,"),
    ],
)
def test_a_length_that_the_algorithm_does_not_have_is_refused(algorithm: SessionAlgorithm, allowed: str) -> None:
    """DES counts its parity bits; the message says what is allowed."""
    sizes = [8 * size for size in algorithm.key_bytes]
    for bits in {0, -8, 1, 39, 56, 112, 168, 32, 136, 512, *(each + 1 for each in sizes)} - set(sizes):
        with pytest.raises(LimitExceeded, match=f"bits: {algorithm.label} keys have {allowed} bits, not {bits}$"):
            derive_key(Secret(b"p"), BaseHash.SHA_512, algorithm, bits=bits, odd_parity=False)


@UNTIMED
@given(
    st.binary(max_size=64),
    st.sampled_from(list(BaseHash)),
    st.sampled_from([each for each in SessionAlgorithm if each.is_des]),
)
def test_parity_changes_nothing_but_the_lowest_bits(
    password: bytes, base_hash: BaseHash, algorithm: SessionAlgorithm
) -> None:
    """Every byte has an odd number of ones, and encrypts as before."""
    bits = 8 * algorithm.key_bytes[0]
    plain, odd = (
        derive_key(Secret(password), base_hash, algorithm, bits=bits, odd_parity=parity).key.expose()
        for parity in (False, True)
    )
    assert [byte & 0xFE for byte in odd] == [byte & 0xFE for byte in plain]
    assert all(byte.bit_count() % 2 for byte in odd)
    one, other = (
        Cipher(TripleDES((key * 3)[:24]), modes.CBC(bytes(8))).encryptor().update(bytes(range(16)))
        for key in (plain, odd)
    )
    assert one == other


@UNTIMED
@given(st.binary(max_size=64), st.sampled_from([each for each in SessionAlgorithm if not each.is_des]))
def test_parity_is_for_des_alone(password: bytes, algorithm: SessionAlgorithm) -> None:
    """Other keys need their lowest bits."""
    bits = 8 * algorithm.key_bytes[-1]
    assert derive_key(Secret(password), BaseHash.SHA_1, algorithm, bits=bits, odd_parity=True) == derive_key(
        Secret(password), BaseHash.SHA_1, algorithm, bits=bits, odd_parity=False
    )


def test_odd_parity_of_every_byte() -> None:
    """All 256; once set, it stays."""
    every = Secret(bytes(range(256)))
    odd = with_odd_parity(every)
    assert {byte.bit_count() % 2 for byte in odd.expose()} == {1}
    assert len(set(odd.expose())) == 128
    assert with_odd_parity(odd) == odd


def test_a_derived_key_shows_nothing_of_itself() -> None:
    """Neither key nor salt."""
    derived = derive_key(
        Secret(b"password"), BaseHash.MD5, SessionAlgorithm.RC4, bits=40, odd_parity=False, salt=Salt.CREATED
    )
    assert "<Secret: 5 bytes>" in repr(derived)
    assert "<Secret: 11 bytes>" in repr(derived)
