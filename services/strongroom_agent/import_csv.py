"""A CSV file of keys to import: a key a row, under a header row that names the columns."""

import binascii
import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from strongroom.crypto.secret import Secret
from strongroom.errors import LimitExceeded, MalformedStatement, PermanentError, UsageError
from strongroom.statements import decode_base64
from strongroom_agent.import_entries import (
    Defaults,
    Found,
    RefusedEntry,
    checked,
    opened_below,
    opened_folder,
    read_file,
    shown,
)

ROW_BYTES_MAX: Final = 262_144
"""Of one row of a CSV file: the longest key in hexadecimal digits and everything else at its longest fit in."""

TEXT_COLUMNS: Final = ("name", "kind", "description", "serial_number", "algorithm", "format", "padding")
KEY_COLUMNS: Final = ("file", "base64", "hex", "text")
LABEL_PREFIX: Final = "label:"

_LINE_PART_BYTES: Final = 65_536
_BOM: Final = b"\xef\xbb\xbf"


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

    def entries(self) -> Iterator[Found | RefusedEntry]:
        """Give the rows under the header; raises UsageError for a header that is none."""
        try:
            stream = self._path.open("rb")
        except OSError as error:
            raise UsageError(f"{self._path}: {error.strerror}") from None
        with stream, opened_folder(self._path.parent) as folder:
            rows = _rows(stream)
            header = self._header(rows)
            for line, row in rows:
                self.done = stream.tell()
                if row is None:
                    yield RefusedEntry(line, "", LimitExceeded.code, f"row: is longer than {ROW_BYTES_MAX:,} bytes")
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
                raise UsageError(f"{self._path}: header: column {number} has none of the names", hint=_HEADER_HINT)
        if len(set(header)) != len(header):
            raise UsageError(f"{self._path}: header: a column is repeated", hint=_HEADER_HINT)
        if "name" not in header or not set(KEY_COLUMNS) & set(header):
            raise UsageError(
                f"{self._path}: header: needs `name`, and one of {', '.join(KEY_COLUMNS)}", hint=_HEADER_HINT
            )
        return header

    def _entry(self, line: int, row: bytes, header: Sequence[str], folder: int) -> Found | RefusedEntry:
        name = ""
        try:
            cells = _cells(row)
            if len(cells) != len(header):
                raise MalformedStatement(f"row: has {len(cells)} fields, the header has {len(header)}")
            given = dict(zip(header, cells, strict=True))
            name = shown(given["name"])
            labels = {
                column.removeprefix(LABEL_PREFIX): cell
                for column, cell in given.items()
                if column.startswith(LABEL_PREFIX) and cell
            }
            return Found(line, checked(_material(given, folder), given, labels, self._defaults))
        except OSError as error:
            return RefusedEntry(line, name, "unreadable", f"file: {error.strerror or 'cannot be read'}")
        except PermanentError as error:
            return RefusedEntry(line, name, error.code, error.message)


_HEADER_HINT: Final = (
    f"the first row names the columns: {', '.join((*TEXT_COLUMNS, *KEY_COLUMNS))}, {LABEL_PREFIX}NAME"
    f" (anything else that is to be kept, e.g. {LABEL_PREFIX}site); separated by commas, in UTF-8"
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
    with opened_below(folder, "/".join(parts[:-1])) as opened:
        return read_file(opened, parts[-1])
