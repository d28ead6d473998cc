"""Key files of RSA transport keys: the format of `key_file`, with the algorithm `rsa`.

The private key is PKCS #8 in DER, the public key SubjectPublicKeyInfo in DER, the id `sealing.transport_kid`.
The other kinds have a module of their own because the escrow worker, which reads them, has no business with RSA.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from strongroom.crypto.key_file import (
    DEFAULT_KDF_COST,
    KdfCost,
    KeyKind,
    Public,
    load_sealing_key,
    read_key,
    write_key,
)
from strongroom.crypto.rsa import PrivateRsaKey
from strongroom.crypto.sealing import PrivateSealingKey, transport_kid
from strongroom.crypto.secret import Secret

_ALGORITHM: Final = "rsa"


def write_transport_key(
    path: Path, key: PrivateRsaKey, passphrase: Secret | None, *, cost: KdfCost = DEFAULT_KDF_COST
) -> None:
    """Write a new key file for a transport key; the contract is that of `key_file.write_signing_key`."""
    write_key(path, _public(key), key.private_bytes(), passphrase, cost)


def read_transport_key(path: Path, passphrase: Secret | None) -> PrivateRsaKey:
    """Read a transport key; the contract is that of `key_file.read_signing_key`."""
    return read_key(path, passphrase, {KeyKind.TRANSPORT: _transport_key})


def read_private_key(path: Path, passphrase: Secret | None) -> PrivateSealingKey | PrivateRsaKey:
    """Read a sealing key or a transport key; the contract is that of `key_file.read_signing_key`."""
    loaders: dict[KeyKind, Callable[[str, Secret], tuple[Public, PrivateSealingKey | PrivateRsaKey]]] = {
        KeyKind.SEALING: load_sealing_key,
        KeyKind.TRANSPORT: _transport_key,
    }
    return read_key(path, passphrase, loaders)


def _transport_key(_algorithm: str, private: Secret) -> tuple[Public, PrivateRsaKey]:
    key = PrivateRsaKey.from_bytes(private)
    return _public(key), key


def _public(key: PrivateRsaKey) -> Public:
    spki = key.public_key.to_spki()
    return Public(_ALGORITHM, transport_kid(spki), spki)
