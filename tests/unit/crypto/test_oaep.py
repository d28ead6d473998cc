"""RSA-OAEP with the hashes that other programs choose, and one outcome for every cause that is secret."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cms import private_key

from strongroom.crypto.oaep import Oaep, OaepHash, unwrap_oaep
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid

UNTIMED = settings(deadline=None, max_examples=30)  # a busy machine is no failure
NOT_OPEN = r"^the wrapped key does not open with this key and padding$"
KEY = bytes(range(32))
HASHES = {
    OaepHash.SHA_1: hashes.SHA1(),  # noqa: S303 - others choose it
    OaepHash.SHA_256: hashes.SHA256(),
    OaepHash.SHA_384: hashes.SHA384(),
    OaepHash.SHA_512: hashes.SHA512(),
}
EVERY = [Oaep(digest, mask) for digest in OaepHash for mask in OaepHash]


def wrapped(oaep: Oaep, key: bytes = KEY, label: bytes | None = None) -> bytes:
    public = private_key().public_key
    scheme = padding.OAEP(padding.MGF1(HASHES[oaep.mask]), HASHES[oaep.digest], label)
    return rsa.RSAPublicNumbers(public.exponent, public.modulus).public_key().encrypt(key, scheme)


@pytest.mark.parametrize("oaep", EVERY, ids=lambda each: f"{each.digest}-{each.mask}")
def test_a_key_comes_back_with_the_hashes_it_was_wrapped_with_and_no_others(oaep: Oaep) -> None:
    """Hash and mask hash are each one of four."""
    ciphertext = wrapped(oaep)
    assert unwrap_oaep(private_key(), ciphertext, oaep, 32) == Secret(KEY)
    other = next(each for each in EVERY if each.digest != oaep.digest and each.mask != oaep.mask)
    with pytest.raises(BlobInvalid, match=NOT_OPEN):
        unwrap_oaep(private_key(), ciphertext, other, 32)


def test_nothing_said_means_sha_1() -> None:
    """As RFC 8017 has it."""
    assert Oaep() == Oaep(OaepHash.SHA_1, OaepHash.SHA_1)


@UNTIMED
@given(st.integers(0, 2047))
def test_a_changed_ciphertext_gives_one_of_two_errors(bit: int) -> None:
    """Not below the modulus, which anybody sees, or the one that tells nothing."""
    changed = bytearray(wrapped(Oaep()))
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BlobInvalid, match=f"{NOT_OPEN}|is not below the modulus") as caught:
        unwrap_oaep(private_key(), bytes(changed), Oaep(), 32)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_another_length_label_or_key_does_not_open() -> None:
    """All in the same words."""
    causes = [
        (private_key(), wrapped(Oaep(), bytes(31))),
        (private_key(), wrapped(Oaep(), bytes(33))),
        (private_key(), wrapped(Oaep(), KEY, b"label")),
        (private_key("other"), bytes(1) + wrapped(Oaep())[1:]),
    ]
    for key, ciphertext in causes:
        with pytest.raises(BlobInvalid, match=NOT_OPEN):
            unwrap_oaep(key, ciphertext, Oaep(), 32)


def test_a_ciphertext_of_another_size_is_told_apart() -> None:
    """Anybody can see it."""
    with pytest.raises(BlobInvalid, match=r"^wrapped key: has 255 bytes"):
        unwrap_oaep(private_key(), wrapped(Oaep())[1:], Oaep(), 32)
