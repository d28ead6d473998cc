"""The escrow log's head, believed only while the log continues what this host saw of it before (SPEC 7.3)."""

import asyncio
from pathlib import Path

from strongroom.checkpoint_file import CheckpointFile, working_origin
from strongroom.crypto import tlog
from strongroom.crypto.notes import Checkpoint, verify_checkpoint
from strongroom.database import Transaction
from strongroom.errors import LogForked, ProofInvalid, StateCorrupt
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
        self._log = log
        self._file = CheckpointFile(path, log.origin, log.public_key)
        kept = self._file.read()
        self._known = kept[0] if kept else None

    async def head(self, tx: Transaction) -> Checkpoint:
        """Return the log's newest working checkpoint; it continues all seen before and is on disk on return.

        Raises:
            ProofInvalid: there is none, and none was seen before.
            CheckpointInvalid: the log's key did not sign it.
            LogForked: it does not continue what was seen before.
            StateCorrupt: the checkpoint file cannot be used.
        """
        note = await store.escrow_checkpoint(tx)
        if note is None:
            if self._known is not None:
                raise _forked(f"the checkpoints are gone; {self._known.size} leaves were seen before")
            raise ProofInvalid("the escrow log has no checkpoint")
        head = verify_checkpoint(note, working_origin(self._log.origin), self._log.public_key)
        if head == self._known:
            return head
        if self._known is not None:
            await _check_continues(tx, self._known, head)
        await asyncio.to_thread(self._file.advance, note)
        self._known = head
        return head


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
