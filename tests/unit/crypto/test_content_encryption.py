"""CBC content of others: what came out, and one outcome for everything that could be an oracle."""

import pytest
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.crypto.content_encryption import ContentCipher, decrypt_content
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid

UNTIMED = settings(deadline=None)  # a busy machine is no failure
EVERY = pytest.mark.parametrize("cipher", ContentCipher)


def key(cipher: ContentCipher) -> Secret:
    return Secret(bytes(range(1, cipher.key_bytes + 1)))


def vector(cipher: ContentCipher) -> bytes:
    return bytes(range(cipher.block_bytes))


def encrypted(cipher: ContentCipher, blocks: bytes) -> bytes:
    algorithm = algorithms.AES(key(cipher).expose()) if cipher.is_aes else TripleDES(key(cipher).expose())
    encryptor = Cipher(algorithm, modes.CBC(vector(cipher))).encryptor()
    return encryptor.update(blocks) + encryptor.finalize()


def padded(cipher: ContentCipher, content: bytes) -> bytes:
    size = cipher.block_bytes - len(content) % cipher.block_bytes
    return content + bytes([size]) * size


@UNTIMED
@given(st.sampled_from(list(ContentCipher)), st.binary(max_size=100))
def test_every_content_comes_back(cipher: ContentCipher, content: bytes) -> None:
    """Of every length, the empty one as well."""
    ciphertext = encrypted(cipher, padded(cipher, content))
    assert decrypt_content(cipher, key(cipher), vector(cipher), ciphertext) == Secret(content)


@EVERY
def test_every_bad_padding_gives_the_same_error(cipher: ContentCipher) -> None:
    """No zero, none longer than a block, no byte of it another; the error carries no other one with it."""
    block = cipher.block_bytes
    whole = bytes(range(0x40, 0x40 + block))
    endings = [b"\0", bytes([block + 1]), b"\xff", b"\3\2", b"\1\3\3", b"\2\1\3\3\3\4"]
    for ending in endings:
        ciphertext = encrypted(cipher, whole + whole[: block - len(ending)] + ending)
        with pytest.raises(BlobInvalid, match=r"^the content does not open with this key$") as caught:
            decrypt_content(cipher, key(cipher), vector(cipher), ciphertext)
        assert caught.value.__suppress_context__


@EVERY
def test_another_key_does_not_open(cipher: ContentCipher) -> None:
    """As far as padding can tell."""
    ciphertext = encrypted(cipher, padded(cipher, b"content"))
    with pytest.raises(BlobInvalid):
        decrypt_content(cipher, Secret(bytes([7, 9] * (cipher.key_bytes // 2))), vector(cipher), ciphertext)


@EVERY
def test_lengths_that_the_cipher_does_not_have_are_the_callers_fault(cipher: ContentCipher) -> None:
    """Of key, initialisation vector and ciphertext."""
    good = (key(cipher), vector(cipher), encrypted(cipher, padded(cipher, b"content")))
    wrong = [
        (Secret(good[0].expose() + b"\0"), good[1], good[2]),
        (Secret(good[0].expose()[1:]), good[1], good[2]),
        (good[0], good[1] + b"\0", good[2]),
        (good[0], good[1], good[2][1:]),
        (good[0], good[1], b""),
    ]
    assert decrypt_content(cipher, *good) == Secret(b"content")
    for arguments in wrong:
        with pytest.raises(ValueError, match=r"must"):
            decrypt_content(cipher, *arguments)


def test_only_aes_is_for_new_messages() -> None:
    """3DES is there to be read."""
    assert [cipher for cipher in ContentCipher if not cipher.is_aes] == [ContentCipher.TRIPLE_DES_CBC]
    assert {cipher: cipher.key_bytes for cipher in ContentCipher} == {
        ContentCipher.AES_128_CBC: 16,
        ContentCipher.AES_192_CBC: 24,
        ContentCipher.AES_256_CBC: 32,
        ContentCipher.TRIPLE_DES_CBC: 24,
    }
