"""Private keys of OpenSSH, openssh-key-v1: read strictly as far as nothing secret is needed.

The public half lies in the clear beside the private one, which may be encrypted. What is wrong is a
MalformedStatement that quotes nothing. Source: PROTOCOL.key and PROTOCOL of OpenSSH, RFC 4253 section 6.6,
RFC 5656 section 3.1, RFC 8709 section 4.
"""

from dataclasses import dataclass
from typing import Final, Self

from strongroom.crypto.private_keys import check_openssh
from strongroom.crypto.secret import Secret
from strongroom.errors import MalformedStatement
from strongroom.formats.armour import read_pem

_MAGIC: Final = b"openssh-key-v1\0"
_LABEL: Final = "OPENSSH PRIVATE KEY"
_UINT32_BYTES: Final = 4
_ED25519_BYTES: Final = 32
_NONE: Final = "none"
_CIPHERS: Final = {  # block and authentication tag in bytes
    _NONE: (8, 0),
    "3des-cbc": (8, 0),
    "aes128-cbc": (16, 0),
    "aes192-cbc": (16, 0),
    "aes256-cbc": (16, 0),
    "aes128-ctr": (16, 0),
    "aes192-ctr": (16, 0),
    "aes256-ctr": (16, 0),
    "aes128-gcm@openssh.com": (16, 16),
    "aes256-gcm@openssh.com": (16, 16),
    "chacha20-poly1305@openssh.com": (8, 16),
}
_CURVES: Final = {"nistp256": "P-256", "nistp384": "P-384", "nistp521": "P-521"}
_ON_TOKENS: Final = frozenset({"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com"})


@dataclass(frozen=True, slots=True)
class OpensshKey:
    """What can be said of a private key: its algorithm, e.g. `Ed25519` or `RSA 3072`, and what it is encrypted in.

    `cipher` is None for a key that is not encrypted.
    """

    algorithm: str
    cipher: str | None

    @classmethod
    def parse(cls, key: Secret) -> Self:
        """Read a file with one key; one that is not encrypted must load, and its halves belong together."""
        _, data = read_pem(key.expose(), (_LABEL,))
        if not data.startswith(_MAGIC):
            raise MalformedStatement("OpenSSH key: does not begin with openssh-key-v1")
        fields = _Fields(Secret(data[len(_MAGIC) :]), "OpenSSH key")
        cipher, kdf = fields.name("cipher"), fields.name("key derivation")
        options = fields.string("key derivation options")
        if cipher not in _CIPHERS:
            raise MalformedStatement("OpenSSH key: cipher: is none that OpenSSH has")
        _check_kdf(cipher, kdf, options)
        count = fields.uint32("number of keys")
        if count != 1:
            raise MalformedStatement(f"OpenSSH key: holds {count} keys, must hold 1")
        public = fields.string("public key")
        algorithm = _algorithm(public)
        block, tag = _CIPHERS[cipher]
        size = len(fields.string("private key"))
        if not size or size % block:
            raise MalformedStatement(f"OpenSSH key: private key: has {size} bytes, must be whole blocks of {block}")
        fields.skip(tag, "authentication tag")
        fields.end()
        if cipher != _NONE:
            return cls(algorithm, cipher)
        check_openssh(key, public.expose())
        return cls(algorithm, None)


def _check_kdf(cipher: str, kdf: str, options: Secret) -> None:
    if (cipher == _NONE) != (kdf == _NONE) or kdf not in (_NONE, "bcrypt"):
        raise MalformedStatement("OpenSSH key: key derivation: must be bcrypt, and none without encryption")
    if kdf == _NONE:
        if len(options):
            raise MalformedStatement("OpenSSH key: key derivation options: must be empty without encryption")
        return
    fields = _Fields(options, "OpenSSH key: key derivation options")
    salt, rounds = fields.string("salt"), fields.uint32("rounds")
    fields.end()
    if not len(salt) or not rounds:
        raise MalformedStatement("OpenSSH key: key derivation options: must have a salt and rounds")


def _algorithm(public: Secret) -> str:
    fields = _Fields(public, "OpenSSH key: public key")
    kind = fields.name("type")
    if kind in _ON_TOKENS:
        raise MalformedStatement("OpenSSH key: is on a security token; this file holds no private key")
    if kind == "ssh-rsa":
        fields.string("exponent")
        algorithm = f"RSA {int.from_bytes(fields.string('modulus').expose(), 'big').bit_length()}"
    elif kind == "ssh-ed25519":
        size, algorithm = len(fields.string("point")), "Ed25519"
        if size != _ED25519_BYTES:
            raise MalformedStatement(f"OpenSSH key: public key: has {size} bytes, must have {_ED25519_BYTES}")
    elif kind.startswith("ecdsa-sha2-"):
        curve = fields.name("curve")
        fields.string("point")
        if curve not in _CURVES or kind != f"ecdsa-sha2-{curve}":
            raise MalformedStatement("OpenSSH key: public key: curve: is none that OpenSSH has, or another")
        algorithm = f"EC {_CURVES[curve]}"
    else:
        raise MalformedStatement("OpenSSH key: public key: type: must be RSA, ECDSA or Ed25519")
    fields.end()
    return algorithm


class _Fields:
    """Strings and numbers in their order (RFC 4251 section 5), each judged against what is left."""

    def __init__(self, data: Secret, name: str) -> None:
        self._left = data
        self._name = name

    def uint32(self, name: str) -> int:
        return int.from_bytes(self._take(_UINT32_BYTES, name), "big")

    def string(self, name: str) -> Secret:
        return Secret(self._take(self.uint32(name), name))

    def name(self, name: str) -> str:
        try:
            return self.string(name).expose().decode("ascii")
        except UnicodeDecodeError:
            raise MalformedStatement(f"{self._name}: {name}: is not ASCII") from None

    def skip(self, size: int, name: str) -> None:
        self._take(size, name)

    def end(self) -> None:
        if len(self._left):
            raise MalformedStatement(f"{self._name}: {len(self._left)} bytes follow the last field")

    def _take(self, size: int, name: str) -> bytes:
        if size > len(self._left):
            raise MalformedStatement(f"{self._name}: {name}: ends beyond what it lies in")
        taken = self._left.expose()[:size]
        self._left = Secret(self._left.expose()[size:])
        return taken
