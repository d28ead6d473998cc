"""Sealed files: an ordinary age file for its owner, whose session key is also in escrow."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from pyrage import x25519

from strongroom import private_file
from strongroom.crypto.secret import Secret
from strongroom.errors import TransientError, UsageError
from strongroom.fields import printable
from strongroom.limits import DESCRIPTION_CHARACTERS_MAX
from strongroom_agent import age

KIND: Final = "age-identity"
ALGORITHM: Final = "age-x25519"
SUFFIX: Final = ".age"


@dataclass(frozen=True, slots=True)
class SessionKey:
    """The fresh age identity, as text, that one file is sealed to, and what its record says about it."""

    identity: Secret
    name: str
    description: str


def name_of(path: Path) -> str:
    """Give the name under which the session key of a sealed file is escrowed; UsageError if it is no age file."""
    return age.header_name(path)


@contextmanager
def sealing(path: Path, output: Path, recipient: x25519.Recipient, *, overwrite: bool) -> Iterator[SessionKey]:
    """Seal a file to its owner and to a fresh session key; it appears at `output` when the block ends well.

    Inside the block the sealed file is complete on disk under another name: put the session key into the spool
    there, and there is no moment at which a sealed file stands without its key in escrow. Constant memory; mode
    0600. Raises UsageError when the file cannot be read or `output` exists and may not be overwritten,
    TransientError for a full or failing disk.
    """
    identity, text = age.new_identity()
    with _reading(path) as reader, appearing(output, overwrite=overwrite) as (partial, writer):
        age.encrypt(reader, writer, [recipient, identity.to_public()])
        writer.flush()
        os.fsync(writer.fileno())
        yield SessionKey(
            identity=text,
            name=age.header_name(partial),
            description=printable(os.fsencode(path.name).decode(errors="replace"))[:DESCRIPTION_CHARACTERS_MAX],
        )


def open_sealed(path: Path, output: Path, identity_file: Path, *, overwrite: bool) -> None:
    """Decrypt an age file; the plaintext appears at `output` only when all of it was authentic.

    Constant memory; mode 0600. Raises BlobInvalid when it does not open, KeyFileInvalid, UsageError, and
    TransientError for a full or failing disk.
    """
    identities = age.read_identities(identity_file)
    age.header_name(path)
    with _reading(path) as reader, appearing(output, overwrite=overwrite) as (_, writer):
        age.decrypt(reader, writer, identities)


def default_output(path: Path) -> Path:
    """Say where the content of a sealed file goes: its name without `.age`; UsageError if it has another name."""
    if path.suffix != SUFFIX:
        raise UsageError(f"{path}: does not end in {SUFFIX}", hint="name the output file")
    return path.with_suffix("")


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    with stream:
        yield stream


@contextmanager
def appearing(output: Path, *, overwrite: bool) -> Iterator[tuple[Path, BinaryIO]]:
    """Give where a new file of mode 0600 is, and its stream; it is at `output` when the block ends well.

    Otherwise it vanishes. Raises UsageError when `output` is taken or, before the block begins, the file cannot be
    made, and TransientError for a full or failing disk.
    """
    if not overwrite and output.exists():
        raise _taken(output)
    try:
        with ExitStack() as stack:
            try:
                fresh = stack.enter_context(private_file.appearing(output, overwrite=overwrite))
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
    return UsageError(f"{output}: exists", hint="choose another name, or overwrite it with --force")
