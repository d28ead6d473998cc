"""The sealing private keys that a process can use, all together: what the recovery worker alone holds."""

from pathlib import Path
from typing import Final, Protocol

from strongroom.crypto.key_file import read_sealing_key
from strongroom.crypto.sealing import Opener, PrivateSealingKey
from strongroom.crypto.secret import Secret
from strongroom.errors import KeyFileInvalid, KeyUnknown


class Keyring(Protocol):
    """The sealing private keys that a process can use."""

    @property
    def kids(self) -> frozenset[str]:
        """The ids of all its keys; the same for the life of the keyring."""
        ...

    def opener(self, kid: str) -> Opener:
        """Give the key with this id; changes nothing. Raises KeyUnknown when the keyring does not hold it."""
        ...


class FileKeyring:
    """A Keyring of every `*.key` file of a folder, all read and checked at construction.

    `passphrase` serves the files that are protected. Raises KeyFileInvalid when there is no such file, or one
    of them is not a sealing key that can be read: a worker starts with all its keys or not at all.
    """

    def __init__(self, directory: Path, passphrase: Secret | None) -> None:
        """Read the folder once; later changes to it are not seen."""
        self._keys: Final[dict[str, PrivateSealingKey]] = {}
        try:
            paths = sorted(path for path in directory.iterdir() if path.suffix == ".key")
        except OSError as error:
            raise KeyFileInvalid(
                f"{directory}: {error.strerror or type(error).__name__}",
                hint="name the folder that holds the sealing keys",
            ) from None
        if not paths:
            raise KeyFileInvalid(
                f"{directory}: there is no *.key file in this folder", hint="put the sealing keys there"
            )
        keys = [read_sealing_key(path, passphrase) for path in paths]
        self._keys.update((key.kid, key) for key in keys)

    @property
    def kids(self) -> frozenset[str]:
        """The ids of all keys of the folder."""
        return frozenset(self._keys)

    def opener(self, kid: str) -> Opener:
        """Give the key with this id, or raise KeyUnknown."""
        if kid not in self._keys:
            raise KeyUnknown(f"this keyring does not hold the sealing key {kid}")
        return self._keys[kid]

    def __repr__(self) -> str:
        """Show the number of keys."""
        return f"<FileKeyring: {len(self._keys)} keys>"
