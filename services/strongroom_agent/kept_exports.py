"""Exports to other authorities that wait, kept in the officer's home until their file is complete.

    exports/<digest>/selection.json   the ids of the records that are to be moved
    exports/<digest>/<id>.json        a signed request for some of them, as it is sent
    exports/<digest>/<id>.jsonl       the release that answered it, as it stands in the file

Nothing here opens to anybody but the other authority.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from strongroom.errors import LimitExceeded, MalformedStatement, StateCorrupt
from strongroom.fields import Id, Part, validated
from strongroom.mandates import SealingKey
from strongroom.messages import Destination
from strongroom.private_file import sync_folder
from strongroom.statements import canonical_json, parse_json
from strongroom_agent.asking import Sent
from strongroom_agent.home import Home, check_private, os_error, write_atomically
from strongroom_agent.kept_requests import read_own

_HINT: Final = "give the command with --new: it begins this export anew"


@dataclass(frozen=True, slots=True)
class Move:
    """Whose keys are moved, to whom, and the sealing key there."""

    principal: str
    destination: Destination
    recipient: SealingKey


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A record that cannot be moved, and why."""

    record: str
    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """The ids of the records that an export moves, and what it leaves out."""

    records: list[str]
    left_out: list[LeftOut] = field(default_factory=list)


class _KeptChoice(Part):
    records: list[Id]
    left_out: list[Annotated[list[str], Field(min_length=3, max_length=3)]]


class KeptExport:
    """What is kept of one export; call its methods while the home's lock is held."""

    def __init__(self, home: Home, move: Move, records: Sequence[str] | None) -> None:
        """Keep it in this home, by what is moved where."""
        self._home = home
        what = {
            "principal": move.principal,
            "destination": move.destination.model_dump(),
            "kid": move.recipient.kid,
            "records": None if records is None else sorted(records),
        }
        name = hashlib.sha256(canonical_json(what)).hexdigest()[:32]
        self._folder = home.path / "exports" / name

    @property
    def officer(self) -> str:
        """Who asks."""
        return self._home.config.name

    @property
    def _selection(self) -> Path:
        return self._folder / "selection.json"

    def exists(self) -> bool:
        """Say whether this export was begun."""
        return self._selection.exists()

    def selection(self, chosen: Chosen) -> Chosen:
        """Return what this export moves: as it was written down when it was begun, else this."""
        try:
            if not self.exists():
                for folder in (self._folder.parent, self._folder):
                    folder.mkdir(mode=0o700, exist_ok=True)
                    sync_folder(folder.parent)
                document = {"records": chosen.records, "left_out": [[*astuple(each)] for each in chosen.left_out]}
                write_atomically(self._selection, canonical_json(document))
            check_private(self._folder)
            kept = validated(parse_json(self._selection.read_bytes(), what="selection"), _KeptChoice)
        except OSError as error:
            raise os_error(self._folder, error) from None
        except (MalformedStatement, LimitExceeded) as error:
            raise StateCorrupt(f"{self._selection}: {error.message}", hint=_HINT) from None
        return Chosen(kept.records, [LeftOut(*each) for each in kept.left_out])

    def requests(self) -> list[Sent]:
        """Return the requests, oldest first; StateCorrupt for one that is damaged or not of this home."""
        return [self._read(path) for path in sorted(self._folder.glob("*-*.json"))]

    def _read(self, path: Path) -> Sent:
        statement, request = read_own(path, self._home, hint=_HINT)
        if request.destination is None:
            raise StateCorrupt(f"{path}: is a request that moves nothing", hint=_HINT)
        return Sent(request, statement, self._home.config.key_id)

    def keep(self, sent: Sent) -> None:
        """Write a request down; on disk when it returns."""
        write_atomically(self._path(sent.request.id, "json"), sent.statement.envelope())

    def keep_release(self, sent: Sent, line: bytes) -> None:
        """Write down what answered a request; on disk when it returns."""
        write_atomically(self._path(sent.request.id, "jsonl"), line)

    def is_released(self, request: str) -> bool:
        """Say whether a request was answered with keys."""
        return self._path(request, "jsonl").exists()

    def release(self, request: str) -> bytes:
        """Return what answered a request."""
        try:
            return self._path(request, "jsonl").read_bytes()
        except OSError as error:
            raise os_error(self._folder, error) from None

    def drop(self, request: str) -> None:
        """Remove a request that leads to nothing."""
        self._unlink(self._path(request, "json"))

    def drop_release(self, request: str) -> None:
        """Remove what answered a request, which is asked again then."""
        self._unlink(self._path(request, "jsonl"))

    def discard(self) -> None:
        """Remove everything of this export; harmless when nothing is there."""
        try:
            # The selection last: what is left of a removal that was cut off is still this export.
            for path in sorted(self._folder.glob("*"), key=lambda path: path == self._selection):
                path.unlink(missing_ok=True)
            if self._folder.exists():
                self._folder.rmdir()
        except OSError as error:
            raise os_error(self._folder, error) from None

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            sync_folder(self._folder)
        except OSError as error:
            raise os_error(path, error) from None

    def _path(self, request: str, suffix: str) -> Path:
        return self._folder / f"{request}.{suffix}"
