"""The escrow log's head, believed only while the log continues what this host saw of it before (SPEC 7.3)."""

import asyncio
from pathlib import Path

from strongroom.checkpoint_file import CheckpointFile, working_origin
from strongroom.crypto import tlog
from strongroom.crypto.notes import Checkpoint
from strongroom.database import Transaction
from strongroom.errors import LogForked, ProofInvalid, StateCorrupt
from strongroom.log_keys import Signed, Signers
from strongroom.log_writer import RESTORED_HINT
from strongroom.mandates import LogKey
from strongroom_recovery import store


class EscrowLog:
    """The escrow log as one reader has seen it. One transaction at a time looks at it.

    The file is read once, before any look: read any later, it could be ahead of what a snapshot shows.
    """

    def __init__(self, log: LogKey, path: Path) -> None:
        """Read the newest checkpoint seen before from `path`; without that file the first look is believed.

        Raises LogForked and StateCorrupt as `CheckpointFile.read`.
        """
        self._path = path
        self._log = log
        self._signers = Signers.of(log, working_origin(log.origin))
        self._file = CheckpointFile(path, log.origin, log.public_key, log.former)
        self._newest: Signed | None = self._file.read()

    def go_by(self, log: LogKey) -> None:
        """Take the keys that the roster in force names for this log; the same ones change nothing."""
        if log != self._log:
            self._log = log
            self._signers = Signers.of(log, working_origin(log.origin))
            self._file = CheckpointFile(self._path, log.origin, log.public_key, log.former)

    async def head(self, tx: Transaction) -> Checkpoint:
        """Return the log's newest working checkpoint; it continues all seen before and is on disk on return.

        Raises:
            ProofInvalid: there is none, and none was seen before.
            CheckpointInvalid: the log's key did not sign it, nor a former one in its time.
            LogForked: it does not continue what was seen before.
            StateCorrupt: the checkpoint file cannot be used.
        """
        note = await store.escrow_checkpoint(tx)
        if note is None:
            if self._newest is not None:
                raise _forked(f"the checkpoints are gone; {self._newest.checkpoint.size} leaves were seen before")
            raise ProofInvalid("the escrow log has no checkpoint")
        if self._newest is not None and note == self._newest.note:
            return self._newest.checkpoint
        signed = self._signers.verify(note)
        if self._newest is not None:
            await _check_continues(tx, self._newest.checkpoint, signed.checkpoint)
        # What is kept on disk does not go back to a former key either.
        await asyncio.to_thread(self._file.advance, note)
        self._newest = signed
        return signed.checkpoint


async def _check_continues(tx: Transaction, known: Checkpoint, head: Checkpoint) -> None:
    if head.size < known.size:
        raise _forked(f"went back to {head.size} leaves; {known.size} were seen before")
    try:
        nodes = await store.escrow_nodes(tx, tlog.consistency_nodes(known.size, head.size))
        proof = tlog.consistency_proof(known.size, head.size, nodes)
        tlog.verify_consistency(known.size, known.root, head.size, head.root, proof)
    except (ProofInvalid, StateCorrupt):
        raise _forked(f"the {head.size} leaves do not continue the {known.size} seen before") from None


def _forked(what: str) -> LogForked:
    return LogForked(f"escrow log: {what}", hint=RESTORED_HINT)
