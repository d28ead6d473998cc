"""The newest working checkpoint of a log that this host has signed or seen, on its own disk (SPEC 7.3).

It is what a database that was set back cannot take back. A missing file means a first start: the log is then
believed as the database has it, if its signatures and hashes hold. So the file belongs into a folder that
survives the process, and into no backup that is restored together with the database.
"""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from strongroom import private_file
from strongroom.crypto.notes import NOTE_BYTES_MAX, parse_checkpoint
from strongroom.errors import CheckpointInvalid, LogForked, StateCorrupt
from strongroom.log_keys import Signed, Signers


def working_origin(origin: str) -> str:
    """Return the origin of a log's working checkpoints, the only ones that are signed before COMMIT.

    They stand in the database and in these files, where whoever owns the database can take them out of a
    transaction that he then makes fail. Workers alone accept them: agents and auditors know the log's origin,
    under which it signs nothing but what is committed.
    """
    return f"{origin}/working"


class CheckpointFile:
    """A file that holds one working checkpoint, a signed note, and never goes back to a smaller log.

    Several processes of a host may share it. Its methods wait for the disk: call them in a thread.
    """

    def __init__(self, path: Path, origin: str, public_key: bytes, former: Sequence[bytes] = ()) -> None:
        """Name the file, and the log whose working checkpoints it takes; no access yet.

        Arguments: `origin` is the log's own; `public_key`, and the `former` ones, oldest first, are 32 raw bytes.
        """
        self._path = path
        self._signers = Signers(working_origin(origin), public_key, tuple(former))

    def read(self) -> Signed | None:
        """Return the checkpoint, or None when there is no file.

        Raises:
            LogForked: another key or another log signed it.
            StateCorrupt: the file is damaged or cannot be read.
        """
        try:
            with self._path.open("rb") as file:
                note = file.read(NOTE_BYTES_MAX + 1).decode()
            parse_checkpoint(note)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateCorrupt(f"{self._path}: cannot be read ({type(error).__name__})") from None
        except (UnicodeDecodeError, CheckpointInvalid):
            raise StateCorrupt(
                f"{self._path}: is damaged and holds no checkpoint",
                hint="find out why; put back a copy, or remove it to believe the database as on a first start",
            ) from None
        try:
            return self._signers.verify(note)
        except CheckpointInvalid as error:
            raise LogForked(
                f"{self._path}: is not a checkpoint that the log {self._signers.origin} signed: {error.message}",
                hint="this host worked for another authority before, or the log had a key that the roster does not"
                " name any more: give it a folder of its own",
            ) from None

    def advance(self, note: str) -> None:
        """Keep this verified note if its log is larger than that of the one kept; durable on return.

        Raises:
            LogForked: the file holds another root for the same number of leaves, or a checkpoint by a later key of
                the log than this one, or as `read`.
            StateCorrupt: it cannot be written, or as `read`.
        """
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if self._is_news(note):
                with private_file.replacing(self._path) as file:
                    file.write(note.encode())
        except OSError as error:
            raise self._unwritable(error) from None
        finally:
            os.close(folder)

    def _is_news(self, note: str) -> bool:
        kept = self.read()
        if kept is None:
            return True
        new, old = parse_checkpoint(note)[0], kept.checkpoint
        if old.size == new.size and old.root != new.root:
            raise LogForked(f"{self._path}: two roots were signed for {new.size} leaves of {self._signers.origin}")
        if old.size >= new.size:
            return False
        try:
            self._signers.check_not_superseded(kept, self._signers.verify(note))
        except CheckpointInvalid as error:
            raise LogForked(f"{self._path}: the checkpoint of {new.size} leaves: {error.message}") from None
        return True

    def _unwritable(self, error: OSError) -> StateCorrupt:
        return StateCorrupt(
            f"{self._path}: the log's checkpoint cannot be written ({error.strerror or type(error).__name__})",
            hint="make its folder exist, writable by this process, on a disk with room",
        )
