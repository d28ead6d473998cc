"""Private keys of others: named when they are whole, refused without a word of them when they are not."""

from base64 import b64decode
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, mlkem, rsa, x448, x25519
from tests.support.cms import VECTORS

from strongroom.crypto.private_keys import check_openssh, pkcs8_algorithm
from strongroom.crypto.secret import Secret
from strongroom.errors import MalformedStatement

NOT_LOADED = r"^private key: does not load: it is damaged, or of an unknown algorithm$"
KEYS: dict[str, Callable[[], object]] = {
    "RSA 2048": lambda: rsa.generate_private_key(65537, 2048),
    "RSA 1024": lambda: rsa.generate_private_key(65537, 1024),  # noqa: S505 - old keys are kept, too
    "EC P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EC P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "EC P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "EC secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "EC brainpoolP256r1": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
    "X25519": x25519.X25519PrivateKey.generate,
    "X448": x448.X448PrivateKey.generate,
    "ML-DSA-44": mldsa.MLDSA44PrivateKey.generate,
    "ML-DSA-65": mldsa.MLDSA65PrivateKey.generate,
    "ML-DSA-87": mldsa.MLDSA87PrivateKey.generate,
    "ML-KEM-768": mlkem.MLKEM768PrivateKey.generate,
    "ML-KEM-1024": mlkem.MLKEM1024PrivateKey.generate,
}


def written(name: str) -> bytes:
    return (VECTORS / "openssh" / f"{name}.key").read_bytes()


def public_half(key: bytes) -> bytes:
    loaded = serialization.load_ssh_private_key(key, None)
    line = loaded.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return b64decode(line.split()[1])


def der(algorithm: str) -> bytes:
    key: Any = KEYS[algorithm]()
    return bytes(
        key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@pytest.mark.parametrize("algorithm", KEYS)
def test_every_algorithm_is_named(algorithm: str) -> None:
    """With its size or curve where it has several."""
    assert pkcs8_algorithm(Secret(der(algorithm))) == algorithm


@pytest.mark.parametrize("algorithm", ["RSA 2048", "EC P-256", "Ed25519"])
def test_what_does_not_load_is_refused_without_the_loaders_words(algorithm: str) -> None:
    """Cut, extended, and of an algorithm that nobody knows."""
    data = der(algorithm)
    start = data.index(b"\x06") + 2
    unknown = data[:start] + b"\x2b\x7f" + data[start + 2 :]
    for wrong in (data[:-1], data + b"\0", unknown, b""):
        with pytest.raises(MalformedStatement, match=NOT_LOADED) as caught:
            pkcs8_algorithm(Secret(wrong))
        assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_numbers_that_do_not_belong_together_are_refused() -> None:
    """One bit of a prime is enough."""
    data = bytearray(der("RSA 2048"))
    data[700] ^= 1
    with pytest.raises(MalformedStatement, match=NOT_LOADED):
        pkcs8_algorithm(Secret(bytes(data)))


def test_an_openssh_key_that_is_encrypted_or_damaged_does_not_load() -> None:
    """One in the clear does."""
    key = written("ed25519")
    check_openssh(Secret(key), public_half(key))
    damaged = key[:200] + bytes([key[200] ^ 1]) + key[201:]
    for wrong in (damaged, written("ed25519-aes256-ctr"), b""):
        with pytest.raises(MalformedStatement, match=NOT_LOADED) as caught:
            check_openssh(Secret(wrong), public_half(key))
        assert caught.value.__suppress_context__


@pytest.mark.parametrize("name", ["ed25519", "ecdsa-256", "rsa-3072"])
def test_an_openssh_key_must_be_the_private_half_of_its_public_key(name: str) -> None:
    """Which the loader leaves open for elliptic curves."""
    key = written(name)
    check_openssh(Secret(key), public_half(key))
    with pytest.raises(
        MalformedStatement, match=r"^private key: is not the private half of the public key beside it$"
    ):
        check_openssh(Secret(key), public_half(key)[:-1] + b"x")
