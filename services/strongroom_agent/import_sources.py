"""Where existing keys are imported from: a folder of files, or a CSV file. Streaming, in constant memory."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from strongroom.errors import PermanentError, UsageError
from strongroom_agent.import_csv import CsvFile
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

    def entries(self) -> Iterator[Found | RefusedEntry]:
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

    def entries(self) -> Iterator[Found | RefusedEntry]:
        """Give every file, and what is none; hidden folders as a whole."""
        for name, folder, entry in self._walk():
            self.done += 1
            yield self._entry(self.done, name, folder, entry)

    def _walk(self) -> Iterator[tuple[str, int, os.DirEntry[str] | OSError]]:
        """Give relative path, descriptor of its folder, and entry of everything but folders that are gone into."""
        waiting = [""]
        with opened_folder(self._path) as root:
            while waiting:
                relative = waiting.pop()
                try:
                    with opened_below(root, relative) as folder, os.scandir(folder) as entries:
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

    def _entry(self, row: int, name: str, folder: int, entry: os.DirEntry[str] | OSError) -> Found | RefusedEntry:
        legible = shown(name)
        if isinstance(entry, OSError):
            return RefusedEntry(row, legible, "unreadable", f"folder: {entry.strerror}")
        if (flaw := _flaw(entry)) is not None:
            return RefusedEntry(row, legible, *flaw)
        try:
            material = read_file(folder, entry.name)
            return Found(row, checked(material, {"name": name}, {}, self._defaults))
        except OSError as error:
            return RefusedEntry(row, legible, "unreadable", error.strerror or "cannot be read")
        except PermanentError as error:
            return RefusedEntry(row, legible, error.code, error.message)


def _flaw(entry: os.DirEntry[str]) -> tuple[str, str] | None:
    """Return code and words for what is no key, by its kind and name alone."""
    if entry.name.startswith("."):
        return "hidden", "its name begins with a dot"
    if entry.is_symlink():
        return "link", "is a link, which is not followed"
    if not entry.is_file(follow_symlinks=False):
        return "special", "is no regular file"
    return None
