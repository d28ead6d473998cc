"""The rosters in an export that the root keys signed: from them come the keys of the logs."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from strongroom.crypto.notes import parse_checkpoint
from strongroom.errors import CheckpointInvalid, PermanentError
from strongroom.mandates import RosterBody
from strongroom.roster import Roster
from strongroom.statements import Statement, parse_envelope
from strongroom.tiles import TILE_WIDTH
from strongroom_audit.folder import Bundle, Export, LogFolder

_MARK: Final = RosterBody.TYPE.encode()


def rosters_of(target: Export, root_key: bytes) -> Iterator[Roster]:
    """Give every roster of an export that holds under the pinned root key (32 bytes); the others are passed over.

    One from before a change of the root key is held against the newest. Whether they stand where the recovery log
    names them is not looked at here.
    """
    folder = target.logs["recovery"]
    lines = [target.roster() or b""]
    size = _size(folder)
    for index in range(folder.bundles_there()):
        width = min(TILE_WIDTH, size - index * TILE_WIDTH)
        if width > 0:
            data = folder.read(Bundle("recovery", index, width).statements) or b""
            lines += [line for line in data.split(b"\n", width) if _MARK in line]
    statements: list[Statement] = []
    for line in lines:
        with suppress(PermanentError):
            statements.append(parse_envelope(line))
    pinned: list[Roster] = []
    for statement in statements:
        with suppress(PermanentError):
            pinned.append(Roster.verified(statement, root_key))
    yield from pinned
    if pinned:
        newest = max(pinned, key=lambda roster: roster.body.version)
        known = {roster.digest for roster in pinned}
        for statement in statements:
            with suppress(PermanentError):
                if statement.digest not in known:
                    yield newest.verified_older(statement)


def _size(folder: LogFolder) -> int:
    """Return how many leaves the folder claims to have."""
    try:
        return parse_checkpoint(folder.note() or "")[0].size
    except CheckpointInvalid:
        return folder.bundles_there() * TILE_WIDTH
