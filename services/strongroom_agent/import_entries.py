"""The entries of what is imported: a key, or a refusal with its reason; and how files of keys are read.

A refusal names the row and what is wrong with it, and never quotes a cell: whoever has mixed up two columns would
find his keys in a report.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeVar

from strongroom.crypto.rsa import Padding
from strongroom.crypto.secret import Secret
from strongroom.errors import LimitExceeded, MalformedStatement, UsageError
from strongroom.fields import Algorithm, Description, Kind, Labels, Name, Part, SerialNumber, printable, validated
from strongroom.limits import KEY_MATERIAL_BYTES_MAX, NAME_CHARACTERS_MAX
from strongroom.messages import WrappedFormat
from strongroom_agent.packing import KeyToEscrow
from strongroom_agent.wrapping import Wrapped

W = TypeVar("W", bound=StrEnum)

_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class RefusedEntry:
    """An entry that is not imported: where it is, its name as far as it is known, and why.

    row: the line of a CSV file on which it begins, or the number of a file in the order in which it was found.
    code: that of an error (SPEC section 12), or `duplicate`, `hidden`, `link`, `special`, `unreadable`.
    """

    row: int
    name: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that is a key; what it says of itself keeps all limits."""

    row: int
    key: KeyToEscrow


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What is said of every key that does not say it itself; labels are added to its own.

    kind: when empty, the format of a wrapped key, else `key`. format, padding, transport_key: of wrapped keys, as
    `Wrapped` has them.
    """

    kind: str = ""
    algorithm: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    format: WrappedFormat | None = None
    padding: Padding | None = None
    transport_key: str | None = None

    def wrapped(self, kind: str = "", padding: str = "") -> Wrapped | None:
        """Return how a key is wrapped; MalformedStatement for words that say nothing."""
        of = self.format if not kind else _member(WrappedFormat, kind, "format")
        by = self.padding if not padding else _member(Padding, padding, "padding")
        if of is None:
            if padding:
                raise MalformedStatement("padding: is said of wrapped keys alone, and no format is")
            return None
        return Wrapped(of, by, self.transport_key)


class _Described(Part):
    name: Name
    kind: Kind
    description: Description
    serial_number: SerialNumber
    algorithm: Algorithm
    labels: Labels


def checked(
    material: Secret, given: Mapping[str, str], labels: Mapping[str, str], defaults: Defaults
) -> KeyToEscrow:
    """Return a key that keeps all limits; MalformedStatement or LimitExceeded naming the field that does not."""
    wrapped = defaults.wrapped(given.get("format", ""), given.get("padding", ""))
    said = validated(
        {
            "name": given["name"],
            "kind": given.get("kind") or defaults.kind or (wrapped.format.value if wrapped else "key"),
            "description": given.get("description", ""),
            "serial_number": given.get("serial_number", ""),
            "algorithm": given.get("algorithm") or defaults.algorithm,
            "labels": {**defaults.labels, **labels},
        },
        _Described,
    )
    if not 1 <= len(material) <= KEY_MATERIAL_BYTES_MAX:
        found = "is longer" if len(material) else "is empty"
        raise LimitExceeded(f"key: {found}; the limit is 1 to {KEY_MATERIAL_BYTES_MAX:,} bytes")
    return KeyToEscrow(
        material=material,
        name=said.name,
        kind=said.kind,
        description=said.description,
        serial_number=said.serial_number,
        algorithm=said.algorithm,
        labels=said.labels,
        wrapped=wrapped,
    )


def _member(kind: type[W], word: str, column: str) -> W:
    try:
        return kind(word)
    except ValueError:
        raise MalformedStatement(f"{column}: must be one of {', '.join(kind)}") from None


def shown(name: str) -> str:
    """Return as much of a name as a refusal shows: cut to its limit, and without what a terminal would act on."""
    return printable(name)[:NAME_CHARACTERS_MAX]


def read_file(folder: int, name: str) -> Secret:
    """Read a regular file, one byte beyond the limit at most; OSError, also for anything else than a file."""
    descriptor = os.open(name, _READ_FLAGS, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(None, "is no regular file")
        return Secret(stream.read(KEY_MATERIAL_BYTES_MAX + 1))


@contextmanager
def opened_folder(path: Path) -> Iterator[int]:
    """Open a folder for as long as the context lasts, and give its descriptor; UsageError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_below(folder: int, relative: str) -> Iterator[int]:
    """Open a folder below another one, part by part, so that no link leads out; OSError."""
    current = os.dup(folder)
    try:
        for part in filter(None, relative.split("/")):
            following = os.open(part, _FOLDER_FLAGS, dir_fd=current)
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)
