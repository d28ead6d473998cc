"""Other people's private keys: read once to see that they are whole, and named; nothing here uses them."""

from base64 import b64encode
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import (
    ec,
    ed448,
    ed25519,
    mldsa,
    mlkem,
    rsa,
    types,
    x448,
    x25519,
)

from strongroom.crypto.secret import Secret
from strongroom.errors import MalformedStatement

_DOES_NOT_LOAD: Final = "private key: does not load: it is damaged, or of an unknown algorithm"
_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_FIXED: Final[dict[type, str]] = {
    ed25519.Ed25519PrivateKey: "Ed25519",
    ed448.Ed448PrivateKey: "Ed448",
    x25519.X25519PrivateKey: "X25519",
    x448.X448PrivateKey: "X448",
    mldsa.MLDSA44PrivateKey: "ML-DSA-44",
    mldsa.MLDSA65PrivateKey: "ML-DSA-65",
    mldsa.MLDSA87PrivateKey: "ML-DSA-87",
    mlkem.MLKEM768PrivateKey: "ML-KEM-768",
    mlkem.MLKEM1024PrivateKey: "ML-KEM-1024",
}


def pkcs8_algorithm(private: Secret) -> str:
    """Name the algorithm of a private key in DER that is not encrypted, e.g. `RSA 3072`, `EC P-256`, `Ed25519`.

    Raises MalformedStatement for what does not load: its numbers do not belong together, or it is of an algorithm
    that is not known here.
    """
    try:
        algorithm = _algorithm(serialization.load_der_private_key(private.expose(), None))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without the loader's own words, which may speak of the content.
        algorithm = None
    if algorithm is None:
        raise MalformedStatement(_DOES_NOT_LOAD)
    return algorithm


def check_openssh(pem: Secret, public: bytes) -> None:
    """Return for a private key of OpenSSH, not encrypted, that is the private half of `public`, as its file has it.

    Raises MalformedStatement for every other.
    """
    try:
        key = serialization.load_ssh_private_key(pem.expose(), None)
        written = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    except (ValueError, TypeError, NotImplementedError, UnsupportedAlgorithm):  # a compressed point is the third
        raise MalformedStatement(_DOES_NOT_LOAD) from None
    # The loader compares the public halves that a file holds twice, but not with the private one.
    if written.split()[1] != b64encode(public):
        raise MalformedStatement("private key: is not the private half of the public key beside it")


def _algorithm(key: types.PrivateKeyTypes) -> str | None:
    match key:
        case rsa.RSAPrivateKey():
            return f"RSA {key.key_size}"
        case ec.EllipticCurvePrivateKey():
            return f"EC {curve_name(key.curve.name)}"
        case _:
            return next((name for kind, name in _FIXED.items() if isinstance(key, kind)), None)


def curve_name(name: str) -> str:
    """Give the name by which people know an elliptic curve, e.g. `P-256` for `secp256r1`."""
    return _CURVES.get(name, name)
