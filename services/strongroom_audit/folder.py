"""An export on disk: a folder a log, in the form of C2SP tlog-tiles, and what the leaves name beside it (SPEC 7.6).

`checkpoint`, `tile/…` and `tile/entries/…` are as c2sp.org/tlog-tiles has them. Spelled like an entry bundle, and
with a line for each of its leaves, there are `statements/…` (an envelope or null) and in the escrow log `rows/…`
(an array of the record ids in the database's index), in the recovery log `releases/…` (whether the database holds a
release).
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom import private_file
from strongroom.errors import ConfigurationInvalid, TransientError, UsageError
from strongroom.limits import ENVELOPE_BYTES_MAX
from strongroom.tiles import TILE_WIDTH, entries_path, tile_path, tiles_of
from strongroom_audit.findings import LogName

LOGS: Final[tuple[LogName, LogName]] = ("escrow", "recovery")

FILE_BYTES_MAX: Final = TILE_WIDTH * (ENVELOPE_BYTES_MAX + 1)
"""The largest file that an export can have: a bundle of statements, each in a line."""

_LACKING_MAX: Final = 1_000  # bundles that may lack below the last one, beside as many as are there
_ENTRIES: Final = "tile/entries/"
_SPELLED: Final = re.compile(r"((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/[0-9]{1,3})?")
_ROWS: Final = {"escrow": "rows/", "recovery": "releases/"}
# Somebody else made the folder: a FIFO in it would wait for a writer, and a link lead out of it.
_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})


@dataclass(frozen=True, slots=True)
class Bundle:
    """Where the files of a bundle are, relative to the log's folder; `width` leaves from `index * 256` on."""

    log: LogName
    index: int
    width: int

    @property
    def first(self) -> int:
        """Index of the first leaf."""
        return self.index * TILE_WIDTH

    @property
    def entries(self) -> str:
        """Path of the leaves."""
        return entries_path(self.index, self.width)

    @property
    def tile(self) -> str:
        """Path of the leaves' hashes."""
        return tile_path(0, self.index, self.width)

    @property
    def statements(self) -> str:
        """Path of what the leaves name."""
        return self.entries.replace(_ENTRIES, "statements/")

    @property
    def rows(self) -> str:
        """Path of what the database's index says."""
        return self.entries.replace(_ENTRIES, _ROWS[self.log])

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file of it; the tile comes last, so that all is there once it is."""
        return self.entries, self.statements, self.rows, self.tile


def bundles(log: LogName, size: int, first: int = 0) -> Iterator[Bundle]:
    """Name the bundles of a log of `size` leaves, from bundle `first` on."""
    full, rest = divmod(size, TILE_WIDTH)
    for index in range(first, full):
        yield Bundle(log, index, TILE_WIDTH)
    if rest and first <= full:
        yield Bundle(log, full, rest)


class LogFolder:
    """The folder of one log. Reading never fails for what is missing; writing is whole or not at all."""

    def __init__(self, path: Path, log: LogName) -> None:
        """Work below `path`; nothing is touched yet."""
        self.path = path
        self.log = log

    def read(self, relative: str) -> bytes | None:
        """Return a file; None when there is none, or something else than a regular file.

        Raises ConfigurationInvalid for one that cannot be read, or is of more than FILE_BYTES_MAX bytes.
        """
        return _read(self.path / relative)

    def write(self, relative: str, data: bytes) -> None:
        """Put a file in its place, on disk when it returns. Raises TransientError for a full or failing disk."""
        write(self.path / relative, data)

    def remove(self, relative: str) -> None:
        """Remove a file if it is there."""
        (self.path / relative).unlink(missing_ok=True)

    def has(self, bundle: Bundle) -> bool:
        """Say whether all files of a bundle are there."""
        return all((self.path / each).is_file() for each in bundle.paths)

    def note(self) -> str | None:
        """Return the checkpoint note of the export, None where there is none."""
        return _text(self.read("checkpoint"))

    def bundles_there(self) -> int:
        """Return how many bundles there are up to the last one that has a file of leaves; others may lack.

        One that lies far beyond all others is passed over: its name alone would make for any number of bundles.
        """
        found: set[int] = set()
        top = self.path / _ENTRIES
        for below, _, names in os.walk(top):
            for name in names:
                spelled = _SPELLED.fullmatch(Path(below, name).relative_to(top).as_posix())
                if spelled is not None:
                    found.add(int(spelled[1].replace("x", "").replace("/", "")))
        count = 0
        for place, index in enumerate(sorted(found)):
            if index - place > len(found) + _LACKING_MAX:
                break
            count = index + 1
        return count

    def trim(self, size: int) -> None:
        """Remove the full bundles beyond a tree of `size` leaves, which an export that was not finished left."""
        bundle = Bundle(self.log, size // TILE_WIDTH, TILE_WIDTH)
        while self.has(bundle):
            for each in bundle.paths:
                self.remove(each)
            bundle = Bundle(self.log, bundle.index + 1, TILE_WIDTH)

    def remove_partial(self, old_size: int, new_size: int) -> None:
        """Remove the partial files of a tree of `old_size` leaves that one of `new_size` does not have."""
        for tile in tiles_of(new_size, old_size):
            if tile.width == TILE_WIDTH:
                continue
            self.remove(tile_path(*tile))
            if tile.level == 0:
                for each in Bundle(self.log, tile.index, tile.width).paths:
                    self.remove(each)


class Export:
    """The folder of an export: both logs, the roster it goes by, and every checkpoint that was verified here."""

    def __init__(self, path: Path) -> None:
        """Work in `path`; nothing is touched yet."""
        self.path = path
        self.logs: dict[LogName, LogFolder] = {log: LogFolder(path / log, log) for log in LOGS}

    def check_there(self) -> None:
        """Raise UsageError unless this looks like an export."""
        if not any(
            (self.path / log / "checkpoint").exists() or (self.path / log / "tile").exists() for log in LOGS
        ):
            raise UsageError(f"{self.path}: is no export", hint="`strongroom log export DIR` makes one")

    def checkpoints(self) -> list[str]:
        """Return the checkpoint notes that were collected, in the order in which they were verified."""
        return split_notes(_text(_read(self.path / "checkpoints")) or "")

    def collect(self, *notes: str) -> None:
        """Add verified checkpoints to those collected, in this order, unless they are the newest there already."""
        known = self.checkpoints()
        fresh = list(dict.fromkeys(notes))
        if fresh and known[-len(fresh) :] != fresh:
            write(self.path / "checkpoints", join_notes([*known, *fresh]).encode())

    def exchange(self, log: LogName, note: str) -> None:
        """Put a checkpoint with more signatures in the place of the same one, in the log's folder and collected."""
        folder = self.logs[log]
        known, old = self.checkpoints(), folder.note()
        write(self.path / "checkpoints", join_notes([note if each == old else each for each in known]).encode())
        if old not in known:
            self.collect(note)
        folder.write("checkpoint", note.encode())

    def roster(self) -> bytes | None:
        """Return the envelope of the roster that the exporter went by, if it was kept."""
        return _read(self.path / "roster.json")


def split_notes(text: str) -> list[str]:
    """Split checkpoint notes that follow one another with an empty line between; what is none comes as it is."""
    notes: list[str] = []
    lines: list[str] = []
    in_signatures = False
    for line in text.split("\n"):
        if line == "" and (in_signatures or not lines):
            if lines:
                notes.append("\n".join(lines) + "\n")
            lines, in_signatures = [], False
            continue
        in_signatures = in_signatures or line == ""
        lines.append(line)
    return [*notes, "\n".join(lines) + "\n"] if lines else notes


def join_notes(notes: list[str]) -> str:
    """Put checkpoint notes one after the other, with an empty line between."""
    return "\n".join(notes)


def write(path: Path, data: bytes) -> None:
    """Write a file whole, with the folders above it. Raises TransientError for a place that cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with private_file.replacing(path) as stream:
            stream.write(data)
    except OSError as failure:
        raise TransientError(f"{path}: {failure.strerror}", hint="see to the folder and its file system") from None


def _read(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, _FLAGS)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            if status.st_size > FILE_BYTES_MAX:
                raise ConfigurationInvalid(f"{path}: is of more than {FILE_BYTES_MAX} bytes")
            with open(descriptor, "rb", closefd=False) as stream:
                return stream.read(status.st_size)
        finally:
            os.close(descriptor)
    except OSError as failure:
        if failure.errno in _NO_FILE:
            return None
        raise ConfigurationInvalid(f"{path}: {failure.strerror}") from None


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="replace")
