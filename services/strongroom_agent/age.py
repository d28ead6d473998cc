"""age files and identities: what `seal` writes and any age tool can read (c2sp.org/age)."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

import pyrage
from pyrage import x25519

from strongroom import private_file
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, KeyFileInvalid, UsageError

NAME_PREFIX: Final = "file-"
NAME_HEX_DIGITS: Final = 32
HEADER_BYTES_MAX: Final = 65_536
IDENTITY_FILE_BYTES_MAX: Final = 65_536

_VERSION_LINE: Final = b"age-encryption.org/v1\n"
_MAC_MARK: Final = b"--- "


def new_identity() -> tuple[x25519.Identity, Secret]:
    """Make an identity; give it also as the text that identity files hold (AGE-SECRET-KEY-1…, no line end)."""
    identity = x25519.Identity.generate()
    return identity, Secret(str(identity).encode())


def write_identity(path: Path, identity: x25519.Identity) -> None:
    """Write a new identity file of mode 0600; it is on disk when this returns. Raises FileExistsError."""
    with private_file.appearing(path, overwrite=False) as (_, stream):
        stream.write(f"# public key: {identity.to_public()}\n{identity}\n".encode())


def read_identities(path: Path) -> list[x25519.Identity]:
    """Read an age identity file: one X25519 identity a line, empty lines and lines that begin with # aside.

    Raises KeyFileInvalid when it cannot be read or holds anything else; its content is never shown.
    """
    try:
        with path.open("rb") as stream:
            content = Secret(stream.read(IDENTITY_FILE_BYTES_MAX + 1))
    except OSError as error:
        raise KeyFileInvalid(f"{path}: {error.strerror}", hint="name an age identity file") from None
    invalid = KeyFileInvalid(f"{path}: is no age identity file", hint="name a file with an AGE-SECRET-KEY-1 line")
    if len(content) > IDENTITY_FILE_BYTES_MAX:
        raise invalid
    try:
        identities = [
            x25519.Identity.from_str(line.strip())
            for line in content.expose().decode("ascii").splitlines()
            if line.strip() and not line.startswith("#")
        ]
    except (ValueError, pyrage.IdentityError):
        # Raised below, out of reach of the parser's exception, which may quote the line.
        identities = []
    if not identities:
        raise invalid
    return identities


def encrypt(reader: BinaryIO, writer: BinaryIO, recipients: Sequence[x25519.Recipient]) -> None:
    """Encrypt a stream to every recipient, in constant memory; OSError when a stream fails."""
    try:
        pyrage.encrypt_io(reader, writer, recipients)
    except pyrage.EncryptError as error:
        reason = str(error)
    else:
        return
    raise OSError(reason)


def decrypt(reader: BinaryIO, writer: BinaryIO, identities: Sequence[x25519.Identity]) -> None:
    """Decrypt a stream in constant memory.

    What was written counts only when this returns. Raises BlobInvalid when no identity fits, or the file is
    damaged, cut short or no age file; OSError when a stream fails.
    """
    try:
        pyrage.decrypt_io(reader, writer, identities)
    except pyrage.DecryptError as error:
        reason = str(error)
    except OSError as error:
        # A chunk that is not authentic is reported as an OSError too, but without a number.
        if error.errno is not None:
            raise
        reason = str(error)
    else:
        return
    raise BlobInvalid(
        f"the file does not open: {reason}",
        hint="if the identity it was sealed to is lost, `strongroom recover --file` gets its session key back",
    )


def header_name(path: Path) -> str:
    """Give the name under which the session key of a sealed file is escrowed.

    It is `file-` and the first 32 hex digits of the SHA-256 of the age header: the bytes from the beginning of the
    file through the line feed of the `---` line. Raises UsageError for a file that is no binary age file.
    """
    digest = sha256()
    left = HEADER_BYTES_MAX
    try:
        with path.open("rb") as stream:
            line = stream.readline(left)
            if line != _VERSION_LINE:
                raise UsageError(
                    f"{path}: is no age file, or one in ASCII armor", hint="name a file that `seal` wrote"
                )
            while line.endswith(b"\n"):
                digest.update(line)
                if line.startswith(_MAC_MARK):
                    return NAME_PREFIX + digest.hexdigest()[:NAME_HEX_DIGITS]
                left -= len(line)
                line = stream.readline(left) if left > 0 else b""
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    raise UsageError(f"{path}: its age header does not end within {HEADER_BYTES_MAX} bytes")
