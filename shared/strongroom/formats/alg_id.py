"""The ALG_IDs of CryptoAPI that may stand in a key blob. Source: wincrypt.h, its type ALG_ID."""

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final


class SessionAlgorithm(IntEnum):
    """The symmetric algorithms whose keys travel in blobs; the value is the ALG_ID.

    `TRIPLE_DES_112` has two keys, the first of which is used again as the third. CALG_AES (0x6611), which does not
    say how long its key is, is not among them.
    """

    DES = 0x6601
    RC2 = 0x6602
    TRIPLE_DES = 0x6603
    TRIPLE_DES_112 = 0x6609
    AES_128 = 0x660E
    AES_192 = 0x660F
    AES_256 = 0x6610
    RC4 = 0x6801

    @property
    def label(self) -> str:
        """The name for people and command lines, e.g. `AES-256`, `3DES-112`."""
        return self.name.replace("TRIPLE_", "3").replace("_", "-")

    @property
    def key_bytes(self) -> range:
        """The lengths that a key may have, in bytes; those of DES include the parity bits."""
        return _KEY_BYTES[self]

    @property
    def is_aes(self) -> bool:
        """Whether new keys may be of this algorithm; the others are there to be read, and no longer safe."""
        return self in _AES

    @property
    def is_des(self) -> bool:
        """Whether the lowest bit of each byte of the key is for parity, and has no part in encryption."""
        return self in _DES


class RsaUse(IntEnum):
    """What an RSA key pair is for; the value is the ALG_ID. Session keys are wrapped with EXCHANGE keys alone."""

    SIGNATURE = 0x2400
    EXCHANGE = 0xA400


_AES: Final = frozenset({SessionAlgorithm.AES_128, SessionAlgorithm.AES_192, SessionAlgorithm.AES_256})
_DES: Final = frozenset({SessionAlgorithm.DES, SessionAlgorithm.TRIPLE_DES, SessionAlgorithm.TRIPLE_DES_112})
_VARIABLE: Final = range(5, 17)  # 40 to 128 bits, what Microsoft's Enhanced provider takes
_KEY_BYTES: Final[Mapping[SessionAlgorithm, range]] = MappingProxyType(
    {
        SessionAlgorithm.DES: range(8, 9),
        SessionAlgorithm.RC2: _VARIABLE,
        SessionAlgorithm.TRIPLE_DES: range(24, 25),
        SessionAlgorithm.TRIPLE_DES_112: range(16, 17),
        SessionAlgorithm.AES_128: range(16, 17),
        SessionAlgorithm.AES_192: range(24, 25),
        SessionAlgorithm.AES_256: range(32, 33),
        SessionAlgorithm.RC4: _VARIABLE,
    }
)
