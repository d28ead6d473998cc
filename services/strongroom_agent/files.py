"""Sealed files: age files for their owner, whose session key is also in escrow, and age files for a passphrase."""

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from pyrage import x25519

from strongroom import private_file
from strongroom.crypto import age_passphrase
from strongroom.crypto.age_payload import Sink
from strongroom.crypto.secret import Secret
from strongroom.errors import TransientError, UsageError
from strongroom.fields import printable
from strongroom.limits import DESCRIPTION_CHARACTERS_MAX
from strongroom_agent import age
from strongroom_agent.packing import KeyToEscrow

KIND: Final = "age-identity"
ALGORITHM: Final = "age-x25519"
SUFFIX: Final = ".age"
STANDARD: Final = Path("-")

_READ_AHEAD_BYTES: Final = 262_144
_WATCHED_BYTES: Final = 1_048_576
_WRITTEN_BYTES: Final = 8_388_608

Watch = Callable[[int | None], None]
"""Told how many bytes have been read, about once in each MiB, and None when there are no more."""


def unwatched(_read: int | None) -> None:
    """Watch nothing."""


def name_of(path: Path) -> str:
    """Give the name under which the session key of a sealed file is escrowed; UsageError if it is no age file."""
    with _reading(path) as stream:
        return age.header_name(_header(stream, path))


@contextmanager
def sealing(
    path: Path, output: Path, recipient: x25519.Recipient, *, overwrite: bool, watch: Watch = unwatched
) -> Iterator[KeyToEscrow]:
    """Seal a file to its owner and to a fresh session key; it appears at `output` when the block ends well.

    Inside the block the sealed file is complete on disk, without a name: put the session key into the spool there,
    and there is no moment at which a sealed file stands without its key in escrow. Constant memory; mode 0600.
    Arguments: `path` may be a pipe, and `-` is standard input. Raises UsageError when the file cannot be read or
    `output` exists and may not be overwritten, TransientError for a full or failing disk and for a file that
    changes while it is read.
    """
    identity, text = age.new_identity()
    with _reading(path) as stream, new_file(output, overwrite=overwrite) as (partial, writer):
        content = _Content(stream, watch)
        age.encrypt(content, _Written(writer), [recipient, identity.to_public()])
        content.check_unchanged(path)
        writer.flush()
        os.fsync(writer.fileno())
        yield _to_escrow(text, name_of(partial), output if path == STANDARD else path)


def session_key_of(path: Path, identity_file: Path) -> KeyToEscrow:
    """Find the identity that opens a sealed file, to be escrowed as its session key; reads no more than 200 KiB.

    Raises BlobInvalid when none of the identity file opens it, KeyFileInvalid, UsageError.
    """
    identities = age.read_identities(identity_file)
    with _reading(path) as stream:
        header = _header(stream, path)
        if age_passphrase.is_for_passphrase(header):
            raise UsageError(f"{path}: is sealed to a passphrase, and has no session key")
        identity = age.opening_identity(_Content(stream, already=header), identities)
    return _to_escrow(Secret(str(identity).encode()), age.header_name(header), path)


def seal_to_passphrase(
    path: Path, output: Path, passphrase: Secret, *, overwrite: bool, watch: Watch = unwatched
) -> None:
    """Seal a file to a passphrase alone. Nothing is escrowed: without the passphrase it stays closed for good.

    Arguments and errors: as for `sealing`.
    """
    with _reading(path) as stream, new_file(output, overwrite=overwrite) as (_, writer):
        content = _Content(stream, watch)
        age_passphrase.encrypt(content, _Written(writer), passphrase)
        content.check_unchanged(path)


class SealedContent:
    """A sealed file that is being read; only its header has been, so far."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        """Read the header; raises what `opening` raises."""
        self._stream = stream
        self._header = _header(stream, path)
        self.is_for_passphrase = age_passphrase.is_for_passphrase(self._header)
        if self.is_for_passphrase:
            age_passphrase.check_header(self._header)

    def open_with_identities(
        self, identity_file: Path, output: Path, *, overwrite: bool, watch: Watch = unwatched
    ) -> None:
        """Decrypt with what an age identity file holds; the content is at `output` only when all was authentic.

        Constant memory; mode 0600. Arguments: `output` may be `-`, standard output, to which content goes that
        counts only when this returns. Raises BlobInvalid when it does not open, KeyFileInvalid, UsageError, and
        TransientError for a full or failing disk.
        """
        identities = age.read_identities(identity_file)
        with _writing(output, overwrite=overwrite) as writer:
            age.decrypt(_Content(self._stream, watch, already=self._header), writer, identities)

    def open_with_passphrase(
        self, passphrase: Secret, output: Path, *, overwrite: bool, watch: Watch = unwatched
    ) -> None:
        """Decrypt with a passphrase; the contract is that of `open_with_identities`."""
        with _writing(output, overwrite=overwrite) as writer:
            age_passphrase.decrypt(self._header, _Content(self._stream, watch), writer, passphrase)


@contextmanager
def opening(path: Path) -> Iterator[SealedContent]:
    """Begin to read an age file, which may be a pipe or `-`, standard input.

    Raises UsageError when it cannot be read or is none, LimitExceeded for a passphrase that takes too much work,
    BlobInvalid for what only seems to be sealed to a passphrase.
    """
    with _reading(path) as stream:
        yield SealedContent(stream, path)


def default_output(path: Path) -> Path:
    """Say where the content of a sealed file goes: its name without `.age`; UsageError if it has another name."""
    if path.suffix != SUFFIX:
        raise UsageError(
            f"{_called(path)}: does not end in {SUFFIX}", hint="name the output file with --output-file"
        )
    return path.with_suffix("")


class _Content:
    """Counts what is read of a stream, and gives first what was read before."""

    def __init__(self, stream: BinaryIO, watch: Watch = unwatched, *, already: bytes = b"") -> None:
        self._stream = stream
        self._already = already
        self._watch = watch
        self._read = self._told = 0
        self._ended = False
        self._before = _state(stream)

    def read(self, size: int, /) -> bytes:
        if self._already:
            given, self._already = self._already[:size], self._already[size:]
            return given if len(given) == size else given + self.read(size - len(given))
        chunk = self._stream.read(size)
        self._read += len(chunk)
        if not chunk and not self._ended:
            self._ended = True
            self._watch(None)
        elif self._read - self._told >= _WATCHED_BYTES:
            self._told = self._read
            self._watch(self._read)
        return chunk

    def check_unchanged(self, path: Path) -> None:
        """Raise TransientError for a file that is not what it was when it began to be read."""
        if self._before is not None and self._before != _state(self._stream):
            raise TransientError(
                f"{path}: changed while it was read, so that nothing was sealed",
                hint="do it again; what always changes goes through a pipe: `cat FILE | strongroom seal - …`",
            )


class _Written:
    """Has the kernel begin to write to disk what there is, so that little is left to do when all must be there."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._size = self._begun = 0

    def write(self, content: bytes, /) -> int:
        written = self._stream.write(content)
        self._size += written
        if self._size - self._begun >= _WRITTEN_BYTES:
            self._stream.flush()
            # It says that the pages are not needed again: dirty ones are written first, in the background.
            length = self._size - self._begun
            os.posix_fadvise(self._stream.fileno(), self._begun, length, os.POSIX_FADV_DONTNEED)
            self._begun = self._size
        return written


def _state(stream: BinaryIO) -> tuple[int, int] | None:
    try:
        status = os.fstat(stream.fileno())
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _to_escrow(identity: Secret, name: str, path: Path) -> KeyToEscrow:
    described = printable(os.fsencode(path.name).decode(errors="replace"))[:DESCRIPTION_CHARACTERS_MAX]
    return KeyToEscrow(material=identity, name=name, kind=KIND, description=described, algorithm=ALGORITHM)


def _called(path: Path) -> str:
    return "standard input" if path == STANDARD else str(path)


def _header(stream: BinaryIO, path: Path) -> bytes:
    try:
        return age.read_header(stream, _called(path))
    except OSError as error:
        raise UsageError(f"{_called(path)}: {error.strerror}") from None


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    if path == STANDARD:
        yield sys.stdin.buffer
        return
    try:
        stream = path.open("rb", buffering=_READ_AHEAD_BYTES)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    with stream:
        yield stream


@contextmanager
def _writing(output: Path, *, overwrite: bool) -> Iterator[Sink]:
    if output != STANDARD:
        with new_file(output, overwrite=overwrite) as (_, writer):
            yield _Written(writer)
        return
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except OSError as error:
        raise TransientError(f"standard output: {error.strerror or error}") from None


def check_free(output: Path, *, overwrite: bool) -> None:
    """Raise UsageError where something is already, unless it is a file that may be overwritten."""
    if output.exists() and not (overwrite and output.is_file()):
        raise _taken(output)


@contextmanager
def new_file(output: Path, *, overwrite: bool) -> Iterator[tuple[Path, BinaryIO]]:
    """Give where a new file of mode 0600 is, and its stream; it is at `output` when the block ends well.

    Otherwise it vanishes. Raises UsageError when `output` is taken, or no file and not to be replaced by one, or,
    before the block begins, the file cannot be made, and TransientError for a full or failing disk.
    """
    check_free(output, overwrite=overwrite)
    try:
        with ExitStack() as stack:
            try:
                fresh = stack.enter_context(private_file.arising(output, overwrite=overwrite))
            except OSError as error:
                raise UsageError(
                    f"{output}: {error.strerror}", hint="choose a folder that this user may write"
                ) from None
            yield fresh
    except FileExistsError:
        raise _taken(output) from None
    except OSError as error:
        raise TransientError(
            f"{output}: {error.strerror or error}", hint="make room or see to the file system, and do it again"
        ) from None


def _taken(output: Path) -> UsageError:
    if output.exists() and not output.is_file():
        return UsageError(f"{output}: is no regular file", hint="choose another name")
    return UsageError(f"{output}: exists", hint="choose another name, or overwrite it with --force")
