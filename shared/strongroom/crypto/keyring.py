"""The private keys that a process opens blobs with, all together: what the recovery worker alone holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol, TypeVar

from strongroom.crypto.key_file import read_passphrase
from strongroom.crypto.pkcs11_uri import Pkcs11Uri
from strongroom.crypto.rsa import PrivateRsaKey, Unwrapper
from strongroom.crypto.sealing import Opener, PrivateSealingKey, transport_kid
from strongroom.crypto.secret import Secret
from strongroom.crypto.transport_key_file import read_private_key
from strongroom.errors import ConfigurationInvalid, KeyFileInvalid, KeyUnknown

K = TypeVar("K")

MISSING_KEY_HINT: Final = "put its key file into the folder of sealing keys, or its key on the token"


class Keyring(Protocol):
    """The private keys that a process can use: sealing keys, and the RSA keys for what other programs wrapped."""

    @property
    def kids(self) -> frozenset[str]:
        """The ids of all its sealing keys; the same for the life of the keyring."""
        ...

    @property
    def transport_kids(self) -> frozenset[str]:
        """The ids of all its transport keys; the same for the life of the keyring."""
        ...

    def opener(self, kid: str) -> Opener:
        """Give the sealing key with this id; changes nothing. Raises KeyUnknown when the keyring has none."""
        ...

    def transport(self, kid: str) -> Unwrapper:
        """Give the transport key with this id; changes nothing. Raises KeyUnknown when the keyring has none."""
        ...


class FileKeyring:
    """A Keyring of every `*.key` file of a folder, all read and checked at construction.

    `passphrase` serves the files that are protected. Raises KeyFileInvalid when there is no such file, or one
    of them is not a sealing key or transport key that can be read: a worker starts with all its keys or not at all.
    """

    def __init__(self, directory: Path, passphrase: Secret | None) -> None:
        """Read the folder once; later changes to it are not seen."""
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
        self._sealing: Final[dict[str, PrivateSealingKey]] = {}
        self._transport: Final[dict[str, PrivateRsaKey]] = {}
        for path in paths:
            key = read_private_key(path, passphrase)
            if isinstance(key, PrivateSealingKey):
                self._sealing[key.kid] = key
            else:
                self._transport[transport_kid(key.public_key.to_spki())] = key

    @property
    def kids(self) -> frozenset[str]:
        """The ids of all sealing keys of the folder."""
        return frozenset(self._sealing)

    @property
    def transport_kids(self) -> frozenset[str]:
        """The ids of all transport keys of the folder."""
        return frozenset(self._transport)

    def opener(self, kid: str) -> Opener:
        """Give the sealing key with this id, or raise KeyUnknown."""
        return _held(self._sealing, kid, "sealing")

    def transport(self, kid: str) -> Unwrapper:
        """Give the transport key with this id, or raise KeyUnknown."""
        return _held(self._transport, kid, "transport")

    def __repr__(self) -> str:
        """Show the number of keys."""
        return f"<FileKeyring: {len(self._sealing)} sealing keys, {len(self._transport)} transport keys>"


class JoinedKeyring:
    """A Keyring of several others, as of a folder and a token while keys move from one to the other.

    Raises ConfigurationInvalid for a key that two of them have: which one is used must not be left to chance.
    """

    def __init__(self, *keyrings: Keyring) -> None:
        """Take keyrings that stay as they are."""
        self._sealing: Final[dict[str, Keyring]] = {}
        self._transport: Final[dict[str, Keyring]] = {}
        for each in keyrings:
            for kids, found in ((each.kids, self._sealing), (each.transport_kids, self._transport)):
                if twice := kids & found.keys():
                    raise ConfigurationInvalid(
                        f"the key {min(twice)} is in two keyrings", hint="take its key file out of the folder"
                    )
                found.update(dict.fromkeys(kids, each))

    @property
    def kids(self) -> frozenset[str]:
        """The ids of all sealing keys of all of them."""
        return frozenset(self._sealing)

    @property
    def transport_kids(self) -> frozenset[str]:
        """The ids of all transport keys of all of them."""
        return frozenset(self._transport)

    def opener(self, kid: str) -> Opener:
        """Give the sealing key with this id, or raise KeyUnknown."""
        return _held(self._sealing, kid, "sealing").opener(kid)

    def transport(self, kid: str) -> Unwrapper:
        """Give the transport key with this id, or raise KeyUnknown."""
        return _held(self._transport, kid, "transport").transport(kid)

    def __repr__(self) -> str:
        """Show the number of keys."""
        return f"<JoinedKeyring: {len(self._sealing)} sealing keys, {len(self._transport)} transport keys>"


def open_keyring(
    uri: str | None, directory: Path | None, *, pin_file: Path | None, passphrase: Secret | None
) -> Keyring:
    """Open the keyring of a process: the keys of a token, of a folder, or of both; at least one is named.

    Arguments: `uri` is a PKCS #11 URI (setting STRONGROOM_KEYRING); `pin_file` has the token's PIN on its first
    line (STRONGROOM_KEYRING_PIN_FILE) where the URI has no pin-source; `directory` has the key files
    (STRONGROOM_SEALING_KEYS_DIR), and `passphrase` opens them.

    Raises ConfigurationInvalid, KeyFileInvalid; KeyDeviceUnavailable, after which it may be tried again.
    """
    if uri is None and directory is None:
        raise ConfigurationInvalid(
            "sealing keys: there are none",
            hint="set STRONGROOM_SEALING_KEYS_DIR to a folder of key files, or STRONGROOM_KEYRING to a token's URI",
        )
    keyrings: list[Keyring] = []
    # First the files: a wrong passphrase can be tried as often as one likes, and a PIN cannot.
    if directory is not None:
        keyrings.append(FileKeyring(directory, passphrase))
    if uri is not None:
        # The token's module is loaded only by whoever has a token.
        from strongroom.crypto.token import TokenKeyring  # noqa: PLC0415

        parsed = Pkcs11Uri.parse(uri)
        keyrings.append(TokenKeyring(parsed, read_pin(parsed, pin_file)))
    return keyrings[0] if len(keyrings) == 1 else JoinedKeyring(*keyrings)


def read_pin(uri: Pkcs11Uri, pin_file: Path | None) -> Secret:
    """Read the PIN from the URI's pin-source, or else this file. Raises ConfigurationInvalid, KeyFileInvalid."""
    path = uri.pin_source or pin_file
    if path is None:
        raise ConfigurationInvalid(
            f"token with {uri.description}: no file with its PIN is named",
            hint="add pin-source=file:/PATH to the URI, or set STRONGROOM_KEYRING_PIN_FILE",
        )
    return read_passphrase(path)


def _held(keys: Mapping[str, K], kid: str, kind: str) -> K:
    if kid not in keys:
        raise KeyUnknown(f"this keyring does not hold the {kind} key {kid}")
    return keys[kid]
