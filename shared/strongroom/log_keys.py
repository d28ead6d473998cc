"""The keys of one log, one after the other: whose checkpoint counts, and no longer (SPEC 2.11). Pure."""

from dataclasses import dataclass

from strongroom.crypto.notes import Checkpoint, verify_checkpoint
from strongroom.errors import CheckpointInvalid
from strongroom.mandates import LogKey


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint that was verified, its note verbatim, and the key of the log (32 bytes) that signed it."""

    checkpoint: Checkpoint
    note: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Signers:
    """Who signs the checkpoints of an origin: the key in use, and before it the former ones, oldest first.

    All 32 raw bytes.
    """

    origin: str
    public_key: bytes
    former: tuple[bytes, ...] = ()

    @classmethod
    def of(cls, log: LogKey, origin: str | None = None) -> "Signers":
        """Return the signers that a roster names for a log; for another origin of it, such as the working one."""
        return cls(origin or log.origin, log.public_key, tuple(log.former))

    def verify(self, note: str) -> Signed:
        """Check that the log's key, or one that it had, signed this checkpoint.

        Raises CheckpointInvalid, with what is wrong under the key in use.
        """
        failure: CheckpointInvalid | None = None
        for key in (self.public_key, *reversed(self.former)):
            try:
                return Signed(verify_checkpoint(note, self.origin, key), note, key)
            except CheckpointInvalid as error:
                failure = failure or error
        raise failure or CheckpointInvalid("no key is named for this log")

    def check_not_superseded(self, known: Signed | None, new: Signed) -> None:
        """Raise CheckpointInvalid for a checkpoint by a key whose time was over when the one known was signed.

        The first checkpoint by a log's next key ends the time of the one before: who has seen it takes no newer one
        by a former key. So a former key that gets lost later is worth nothing against them.
        """
        if known is not None and self.term(new.key) < self.term(known.key):
            raise CheckpointInvalid(
                "it is signed by a former key of the log, which signs no more: the next key's checkpoints were seen"
            )

    def term(self, key: bytes) -> int:
        """Give a key's place in the order of their times; one that is not listed any more counts as newest."""
        return self.former.index(key) if key in self.former else len(self.former)
