"""What an independent CryptoAPI implementation made, as Strongroom's own values."""

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from strongroom.crypto.rsa import Padding, PrivateRsaKey
from strongroom.crypto.secret import Secret
from strongroom.formats.alg_id import SessionAlgorithm

VECTORS: Final[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "vectors" / "cryptoapi.json").read_text())
PUBLIC: Final = bytes.fromhex(VECTORS["authority_public_key_blob"])
OWN_PRIVATE: Final = bytes.fromhex(VECTORS["application_private_key_blob"])
OWN_PUBLIC: Final = bytes.fromhex(VECTORS["application_public_key_blob"])


class Wrapped(NamedTuple):
    """A session key as SIMPLEBLOB and PLAINTEXTKEYBLOB, and data that it encrypts (CBC with a zero IV, or RC4)."""

    algorithm: SessionAlgorithm
    padding: Padding
    simple: bytes
    plaintext: bytes
    data: bytes
    encrypted: bytes

    @property
    def label(self) -> str:
        """A name for the test's id."""
        return f"{self.algorithm.label}-{self.padding}"


def algorithm(label: str) -> SessionAlgorithm:
    """Return the algorithm of a name in the vectors, where RC2 and RC4 have their bits behind them."""
    names = {each.label: each for each in SessionAlgorithm}
    return names[label.removesuffix("-128") if label.startswith("RC") else label]


WRAPPED: Final = [
    Wrapped(
        algorithm(each["algorithm"]),
        Padding.OAEP if each["oaep"] else Padding.PKCS1,
        bytes.fromhex(each["simple_blob"]),
        bytes.fromhex(each["plaintext_key_blob"]),
        each["plaintext"].encode(),
        bytes.fromhex(each["ciphertext"]),
    )
    for each in VECTORS["simple_blobs"]
]


@cache
def authority_key() -> PrivateRsaKey:
    """Return the private key that every SIMPLEBLOB of the vectors is wrapped for."""
    lines = VECTORS["authority_private_key_pem"].strip().splitlines()
    return PrivateRsaKey.from_bytes(Secret(base64.b64decode("".join(lines[1:-1]))))
