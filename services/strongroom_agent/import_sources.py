"""Where existing keys are imported from: a folder of files, or a CSV file. Streaming, in constant memory.

An entry is a key or a refusal. A refusal names the row and what is wrong with it, and never quotes a cell: whoever
has mixed up two columns would find his keys in a report.
"""

import binascii
import csv
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Protocol, TypeVar

from strongroom.crypto.rsa import Padding
from strongroom.crypto.secret import Secret
from strongroom.errors import LimitExceeded, MalformedStatement, PermanentError, UsageError
from strongroom.fields import Algorithm, Description, Kind, Labels, Name, Part, SerialNumber, printable, validated
from strongroom.limits import KEY_MATERIAL_BYTES_MAX, NAME_CHARACTERS_MAX
from strongroom.messages import WrappedFormat
from strongroom.statements import decode_base64
from strongroom_agent.packing import KeyToEscrow
from strongroom_agent.wrapping import Wrapped

ROW_BYTES_MAX: Final = 262_144
"""Of one row of a CSV file: the longest key in hexadecimal digits and everything else at its longest fit in."""

TEXT_COLUMNS: Final = ("name", "kind", "description", "serial_number", "algorithm", "format", "padding")
KEY_COLUMNS: Final = ("file", "base64", "hex", "text")
LABEL_PREFIX: Final = "label:"

W = TypeVar("W", bound=StrEnum)

_LINE_PART_BYTES: Final = 65_536
_BOM: Final = b"\xef\xbb\xbf"
_READ_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Refusal:
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


class Source(Protocol):
    """Gives every entry once, in any order, and says how far it is in units of its own."""

    @property
    def id(self) -> str:
        """What tells this source from others the next time."""

    @property
    def size(self) -> int:
        """How much there is, in the units of `done`."""

    @property
    def done(self) -> int:
        """How much was read."""

    def entries(self) -> Iterator[Found | Refusal]:
        """Give the entries; raises UsageError for a source that cannot be read at all."""


def source_of(path: Path, defaults: Defaults) -> "Folder | CsvFile":
    """Return the source at a path; UsageError for what is neither a folder nor a regular file."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if stat.S_ISDIR(mode):
        return Folder(path, defaults)
    if stat.S_ISREG(mode):
        return CsvFile(path, defaults)
    raise UsageError(f"{path}: is neither a folder nor a file", hint="write a pipe's content to a file first")


# ---- a folder ------------------------------------------------------------------------------------------


class Folder:
    """Every regular file below a folder is a key, and its path from there on its name. No link is followed."""

    def __init__(self, path: Path, defaults: Defaults) -> None:
        """Read below `path`."""
        self._path = path
        self._defaults = defaults
        self.done = 0
        self.size = sum(1 for _ in self._walk())

    @property
    def id(self) -> str:
        """The folder, with links resolved."""
        return os.fsencode(self._path.resolve()).decode(errors="replace")

    def entries(self) -> Iterator[Found | Refusal]:
        """Give every file, and what is none; hidden folders as a whole."""
        for name, folder, entry in self._walk():
            self.done += 1
            yield self._entry(self.done, name, folder, entry)

    def _walk(self) -> Iterator[tuple[str, int, os.DirEntry[str] | OSError]]:
        """Give relative path, descriptor of its folder, and entry of everything but folders that are gone into."""
        waiting = [""]
        with _folder(self._path) as root:
            while waiting:
                relative = waiting.pop()
                try:
                    with _below(root, relative) as folder, os.scandir(folder) as entries:
                        for entry in entries:
                            path = f"{relative}/{entry.name}" if relative else entry.name
                            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                                waiting.append(path)
                            else:
                                yield path, folder, entry
                except OSError as error:
                    if not relative:
                        raise UsageError(f"{self._path}: {error.strerror}") from None
                    yield relative, root, error

    def _entry(self, row: int, name: str, folder: int, entry: os.DirEntry[str] | OSError) -> Found | Refusal:
        shown = _shown(name)
        if isinstance(entry, OSError):
            return Refusal(row, shown, "unreadable", f"folder: {entry.strerror}")
        if (flaw := _flaw(entry)) is not None:
            return Refusal(row, shown, *flaw)
        try:
            material = _read_file(folder, entry.name)
            return Found(row, _checked(material, {"name": name}, {}, self._defaults))
        except OSError as error:
            return Refusal(row, shown, "unreadable", error.strerror or "cannot be read")
        except PermanentError as error:
            return Refusal(row, shown, error.code, error.message)


def _flaw(entry: os.DirEntry[str]) -> tuple[str, str] | None:
    """Return code and words for what is no key, by its kind and name alone."""
    if entry.name.startswith("."):
        return "hidden", "its name begins with a dot"
    if entry.is_symlink():
        return "link", "is a link, which is not followed"
    if not entry.is_file(follow_symlinks=False):
        return "special", "is no regular file"
    return None


# ---- a CSV file ------------------------------------------------------------------------------------------


class CsvFile:
    """A key a row (RFC 4180, UTF-8), under a header row of the columns that are named here.

    Files that rows name are below the folder of the CSV file; no link on the way is followed.
    """

    def __init__(self, path: Path, defaults: Defaults) -> None:
        """Read this file."""
        self._path = path
        self._defaults = defaults
        self.done = 0
        self.size = path.stat().st_size

    @property
    def id(self) -> str:
        """The file, with links resolved."""
        return os.fsencode(self._path.resolve()).decode(errors="replace")

    def entries(self) -> Iterator[Found | Refusal]:
        """Give the rows under the header; raises UsageError for a header that is none."""
        try:
            stream = self._path.open("rb")
        except OSError as error:
            raise UsageError(f"{self._path}: {error.strerror}") from None
        with stream, _folder(self._path.parent) as folder:
            rows = _rows(stream)
            header = self._header(rows)
            for line, row in rows:
                self.done = stream.tell()
                if row is None:
                    yield Refusal(line, "", LimitExceeded.code, f"row: is longer than {ROW_BYTES_MAX:,} bytes")
                elif row.strip(b"\r\n"):
                    yield self._entry(line, row, header, folder)
            self.done = self.size

    def _header(self, rows: Iterator[tuple[int, bytes | None]]) -> list[str]:
        _, first = next(rows, (1, b""))
        try:
            header = [] if first is None else _cells(first.removeprefix(_BOM))
        except MalformedStatement as error:
            raise UsageError(f"{self._path}: header: {error.message}", hint=_HEADER_HINT) from None
        # Without a header row these are cells, and perhaps keys: they are not quoted.
        for number, column in enumerate(header, start=1):
            if column not in (*TEXT_COLUMNS, *KEY_COLUMNS) and not column.startswith(LABEL_PREFIX):
                raise UsageError(f"{self._path}: header: column {number} is none that is known", hint=_HEADER_HINT)
        if len(set(header)) != len(header):
            raise UsageError(f"{self._path}: header: a column is repeated", hint=_HEADER_HINT)
        if "name" not in header or not set(KEY_COLUMNS) & set(header):
            raise UsageError(
                f"{self._path}: header: needs `name`, and one of {', '.join(KEY_COLUMNS)}", hint=_HEADER_HINT
            )
        return header

    def _entry(self, line: int, row: bytes, header: Sequence[str], folder: int) -> Found | Refusal:
        name = ""
        try:
            cells = _cells(row)
            if len(cells) != len(header):
                raise MalformedStatement(f"row: has {len(cells)} fields, the header has {len(header)}")
            given = dict(zip(header, cells, strict=True))
            name = _shown(given["name"])
            labels = {
                column.removeprefix(LABEL_PREFIX): cell
                for column, cell in given.items()
                if column.startswith(LABEL_PREFIX) and cell
            }
            return Found(line, _checked(_material(given, folder), given, labels, self._defaults))
        except OSError as error:
            return Refusal(line, name, "unreadable", f"file: {error.strerror or 'cannot be read'}")
        except PermanentError as error:
            return Refusal(line, name, error.code, error.message)


_HEADER_HINT: Final = (
    f"the first row names the columns: {', '.join((*TEXT_COLUMNS, *KEY_COLUMNS))}, {LABEL_PREFIX}NAME;"
    " separated by commas, in UTF-8"
)


def _rows(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Give the line on which a row begins, and the row; None in the place of one that is too long.

    A row ends with the first line feed outside quotes, wherever that is: nothing inside a field that is too long is
    ever taken for a row.
    """
    line = 1
    while True:
        start, size, quotes = line, 0, 0
        parts: list[bytes] = []
        while part := stream.readline(_LINE_PART_BYTES):
            size += len(part)
            quotes += part.count(b'"')
            if size <= ROW_BYTES_MAX:
                parts.append(part)
            if part.endswith(b"\n"):
                line += 1
                if quotes % 2 == 0:
                    break
        if not size:
            return
        yield start, b"".join(parts) if size <= ROW_BYTES_MAX else None


def _cells(row: bytes) -> list[str]:
    try:
        text = row.decode()
    except UnicodeDecodeError:
        raise MalformedStatement("row: is not UTF-8") from None
    try:
        [cells] = csv.reader([text], strict=True)
    except (csv.Error, ValueError):
        raise MalformedStatement("row: is not CSV: see to its quotes and line ends") from None
    return cells


def _material(given: Mapping[str, str], folder: int) -> Secret:
    """Return the key of a row; OSError for a file that cannot be read."""
    columns = [column for column in KEY_COLUMNS if given.get(column)]
    if len(columns) != 1:
        names = ", ".join(column for column in KEY_COLUMNS if column in given)
        raise MalformedStatement(f"{names}: {len(columns) or 'none'} of them {'are' if columns else 'is'} filled")
    [column] = columns
    cell = given[column]
    if column == "file":
        return _named_file(folder, cell)
    try:
        if column == "base64":
            content = decode_base64(cell, column)
        else:
            content = binascii.unhexlify(cell) if column == "hex" else cell.encode()
    except (ValueError, MalformedStatement):
        words = "canonical base64" if column == "base64" else "hexadecimal digits, two a byte"
        raise MalformedStatement(f"{column}: is not {words}") from None
    return Secret(content)


def _named_file(folder: int, path: str) -> Secret:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise MalformedStatement("file: must be a path below the folder of the CSV file")
    with _below(folder, "/".join(parts[:-1])) as opened:
        return _read_file(opened, parts[-1])


# ---- what both share -----------------------------------------------------------------------------------


class _Described(Part):
    name: Name
    kind: Kind
    description: Description
    serial_number: SerialNumber
    algorithm: Algorithm
    labels: Labels


def _checked(
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


def _shown(name: str) -> str:
    return printable(name)[:NAME_CHARACTERS_MAX]


def _read_file(folder: int, name: str) -> Secret:
    """Read a regular file, one byte beyond the limit at most; OSError, also for anything else than a file."""
    descriptor = os.open(name, _READ_FLAGS, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(None, "is no regular file")
        return Secret(stream.read(KEY_MATERIAL_BYTES_MAX + 1))


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _below(folder: int, relative: str) -> Iterator[int]:
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
