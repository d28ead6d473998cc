"""A transparency log in memory."""

from strongroom.crypto import notes, tlog
from strongroom.crypto.signing import SigningKey
from strongroom.receipts import Receipt
from strongroom.replies import Consistency


class FakeLog:
    """A Merkle log in memory, with its own key."""

    def __init__(self, origin: str) -> None:
        """Begin an empty log; `origin` is the first line of its checkpoints."""
        self.origin = origin
        self.key = SigningKey.generate()
        self.leaves: list[bytes] = []
        self._frontier = tlog.Frontier.empty()
        self._nodes: dict[tlog.Node, bytes] = {}

    @property
    def size(self) -> int:
        """The number of leaves."""
        return len(self.leaves)

    def append(self, leaf: bytes) -> int:
        """Append a leaf and return its index."""
        self._frontier, completed = tlog.append(self._frontier, [leaf])
        self._nodes.update(completed)
        self.leaves.append(leaf)
        return self.size - 1

    def root(self) -> bytes:
        """Return the root of the whole log, 32 bytes."""
        return self._frontier.root()

    def checkpoint(self) -> str:
        """Return the signed checkpoint of the whole log."""
        checkpoint = notes.Checkpoint(self.origin, self.size, self.root())
        return notes.sign_checkpoint(checkpoint, self.key.sign, self.key.public_key)

    def receipt(self, index: int) -> dict[str, str]:
        """Return the receipt of a leaf under the newest checkpoint, as replies carry it."""
        proof = self.inclusion(index)
        return Receipt(self.leaves[index], notes.proof_text(index, proof, self.checkpoint())).to_document()

    def inclusion(self, index: int) -> list[bytes]:
        """Return the path of a leaf to the newest root."""
        return tlog.inclusion_proof(index, self.size, self._nodes)

    def consistency(self, held: int) -> Consistency | None:
        """Return the proof from a tree of `held` leaves to the newest; None where there is nothing to prove."""
        if not 0 < held <= self.size:
            return None
        return Consistency(held, tuple(tlog.consistency_proof(held, self.size, self._nodes)))
