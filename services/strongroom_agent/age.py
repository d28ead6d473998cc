"""age files and identities: what `seal` writes and any age tool can read (c2sp.org/age)."""

import io
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, Final

import pyrage
from pyrage import x25519

from strongroom import private_file
from strongroom.crypto import age_recipient
from strongroom.crypto.age_payload import CHUNK_BYTES, Sink, Source
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, KeyFileInvalid, UsageError

NAME_PREFIX: Final = "file-"
NAME_HEX_DIGITS: Final = 32
HEADER_BYTES_MAX: Final = 65_536
IDENTITY_FILE_BYTES_MAX: Final = 65_536

_VERSION_LINE: Final = b"age-encryption.org/v1\n"
_ARMOR_LINE: Final = b"-----BEGIN AGE ENCRYPTED FILE-----"
_MAC_MARK: Final = b"--- "
_FIRST_CHUNK_BYTES: Final = 16 + CHUNK_BYTES + 16 + 1  # nonce, chunk, tag, and whether there is more


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


def encrypt(reader: Source, writer: Sink, recipients: Sequence[x25519.Recipient]) -> None:
    """Encrypt a stream to every recipient, in constant memory; what a stream raises goes through."""
    age_recipient.encrypt(reader, writer, [str(each) for each in recipients])


def decrypt(reader: Source, writer: Sink, identities: Sequence[x25519.Identity]) -> None:
    """Decrypt a stream in constant memory; what a stream raises goes through.

    What was written counts only when this returns. Raises BlobInvalid when no identity fits, or the file is
    damaged, cut short or no age file.
    """
    source, sink = _Reading(reader), _Writing(writer)
    try:
        pyrage.decrypt_io(source, sink, identities)
    except (pyrage.DecryptError, OSError) as error:
        failure = source.failure or sink.failure or _unopened(str(error))
    else:
        return
    raise failure


def opening_identity(reader: Source, identities: Sequence[x25519.Identity]) -> x25519.Identity:
    """Return the first identity that opens an age file; only its header and first chunk are read and opened.

    Raises BlobInvalid when none does, or that much of the file is damaged; OSError of the stream goes through.
    """
    start = reader.read(HEADER_BYTES_MAX + _FIRST_CHUNK_BYTES)
    for identity in identities:
        try:
            decrypt(io.BytesIO(start), _OneByte(), [identity])
        except _EnoughError:
            return identity
        except BlobInvalid:
            continue
        # A file without content.
        return identity
    raise _unopened("no identity fits, or it is damaged")


def read_header(stream: BinaryIO, name: str) -> bytes:
    """Read the header of an age file: all through the line feed of its `---` line, and nothing behind it.

    Arguments: `name` is what errors call the file. Raises UsageError when it is no binary age file; OSError.
    """
    left = HEADER_BYTES_MAX
    line = stream.readline(left)
    if line.startswith(_ARMOR_LINE):
        raise UsageError(
            f"{name}: is in ASCII armor, which is not read here", hint="`age -d -i IDENTITY FILE` opens it"
        )
    if line != _VERSION_LINE:
        raise UsageError(f"{name}: is no age file", hint="name a file that `seal` wrote, or another age file")
    lines = []
    while line.endswith(b"\n"):
        lines.append(line)
        if line.startswith(_MAC_MARK):
            return b"".join(lines)
        left -= len(line)
        line = stream.readline(left) if left > 0 else b""
    raise UsageError(f"{name}: its age header does not end within {HEADER_BYTES_MAX} bytes")


def header_name(header: bytes) -> str:
    """Give the name under which the session key of the sealed file with this header is escrowed (SPEC 5.5)."""
    return NAME_PREFIX + sha256(header).hexdigest()[:NAME_HEX_DIGITS]


def _unopened(reason: str) -> BlobInvalid:
    return BlobInvalid(
        f"the file does not open: {reason}",
        hint="if the identity it was sealed to is lost, `strongroom recover --file` gets its session key back",
    )


class _EnoughError(Exception):
    """Says that content came out."""


class _OneByte:
    """Takes no content; the first of it ends the opening."""

    def write(self, _content: bytes, /) -> int:
        raise _EnoughError


# pyrage makes other errors of what a stream raises, Ctrl-C included, so that it is kept here.
class _Reading:
    def __init__(self, stream: Source) -> None:
        self.failure: BaseException | None = None
        self._read = stream.read

    def read(self, size: int = -1) -> bytes:
        try:
            return self._read(size)
        except BaseException as error:
            self.failure = error
            raise


class _Writing:
    def __init__(self, stream: Sink) -> None:
        self.failure: BaseException | None = None
        self._write = stream.write

    def write(self, content: bytes) -> object:
        try:
            return self._write(content)
        except BaseException as error:
            self.failure = error
            raise

    def flush(self) -> None:
        """Do nothing: whoever gave the stream flushes it."""
