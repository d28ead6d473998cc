"""Appending to a log inside the transaction that the entries speak of (SPEC section 7).

The order is always: `lock`, whatever else the transaction does, `append`, COMMIT, `committed`; only that gives
what receipts are made from. A transaction that is rolled back leaves nothing behind, in the database or here.

The transaction carries a working checkpoint, because whoever owns the database can take it out of there and
make COMMIT fail. The checkpoint that agents and auditors accept is signed for committed leaves only.

Several processes may write one log by turns, all with the log's key. None of them trusts the database: each
compares the head that it finds with the newest one it knows, and keeps that on its own disk.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Final

from strongroom.checkpoint_file import CheckpointFile, working_origin
from strongroom.crypto import tlog
from strongroom.crypto.notes import Checkpoint, proof_text, sign_checkpoint
from strongroom.crypto.signing import SigningKey
from strongroom.crypto.tlog import Frontier, Node
from strongroom.database import Database, Record, Transaction
from strongroom.errors import CheckpointInvalid, LimitExceeded, LogForked, ProofInvalid
from strongroom.limits import LEAF_BYTES_MAX
from strongroom.log_keys import Signed, Signers
from strongroom.receipts import Receipt
from strongroom.schema import load_queries

RESTORED_HINT: Final = "stop all workers; if the database was restored, restore its newest state instead"


class LogName(StrEnum):
    """The two logs of an authority."""

    ESCROW = "escrow"
    RECOVERY = "recovery"


_LOCK_NUMBERS: Final = {LogName.ESCROW: 1, LogName.RECOVERY: 2}


@dataclass(frozen=True, slots=True)
class LeafProof:
    """A leaf and its path to the root of the tree of `size` leaves. No receipt: that takes a `Published`.

    root: 32 bytes. hashes: 32 bytes each, from the leaf's sibling up.
    """

    leaf: bytes
    index: int
    size: int
    root: bytes
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Appended:
    """What `LogWriter.append` has put into a transaction: the leaves from `first_index` up to `size`.

    `working_note` is the working checkpoint over all `size` leaves, None over an empty log. Nothing in here
    convinces anybody but workers; after COMMIT, `LogWriter.committed` takes it.
    """

    first_index: int
    size: int
    working_note: str | None
    frontier: Frontier = field(repr=False)
    leaves: tuple[bytes, ...] = field(repr=False)
    nodes: Mapping[Node, bytes] = field(repr=False)  # all that proofs of these leaves need
    transaction: Transaction = field(repr=False)


@dataclass(frozen=True, slots=True)
class Published:
    """The checkpoint of a committed log of `size` leaves, signed for everybody, and the maker of its receipts.

    Only `LogWriter.committed` and `LogWriter.published` make one. `note` is the signed checkpoint.
    """

    size: int
    root: bytes
    note: str
    appended: Appended | None = field(default=None, repr=False)  # whose leaves `receipt` is about

    def receipt(self, index: int) -> Receipt:
        """Return the receipt of a leaf just appended, by its index in the log; IndexError for any other."""
        appended = self.appended
        if appended is None or not appended.first_index <= index < appended.size:
            raise IndexError(f"leaf {index} was not appended just now")
        hashes = tlog.inclusion_proof(index, self.size, appended.nodes)
        leaf = appended.leaves[index - appended.first_index]
        return self.receipt_of(LeafProof(leaf, index, self.size, self.root, tuple(hashes)))

    def receipt_of(self, proof: LeafProof) -> Receipt:
        """Return the receipt of a leaf that was proven in this tree; ValueError for a proof in another."""
        if (proof.size, proof.root) != (self.size, self.root):
            raise ValueError(f"leaf {proof.index} was proven in another tree, one of {proof.size} leaves")
        return Receipt(proof.leaf, proof_text(proof.index, proof.hashes, self.note))


@dataclass(frozen=True)
class _Head:
    """The newest committed state of the log that was verified: its right edge, and the working checkpoint.

    signed: None for a log without leaves.
    """

    frontier: Frontier
    signed: Signed | None

    @property
    def note(self) -> str | None:
        return self.signed.note if self.signed else None

    @cached_property
    def root(self) -> bytes:
        return self.frontier.root()


class LogWriter:
    """One process's writing end of one log; shared by all its transactions."""

    def __init__(
        self, log: LogName, origin: str, key: SigningKey, checkpoint_file: Path, *, former: Sequence[bytes] = ()
    ) -> None:
        """Name the log, origin and key of its checkpoints, and where the newest is kept. No access yet.

        Arguments: `former` are the public keys of those before, oldest first.
        """
        self._log = log
        self._origin = origin
        self._key = key
        self._signers = Signers(working_origin(origin), key.public_key, tuple(former))
        self._file = CheckpointFile(checkpoint_file, origin, key.public_key, former)
        self._queries = {name: query.replace("{log}", log.value) for name, query in load_queries("log").items()}
        self._opened: _Head | None = None
        self._holder: Transaction | None = None
        self._appended: Appended | None = None

    @property
    def size(self) -> int:
        """Leaves in the log as of the newest head that this writer knows; after `lock`, of the head itself."""
        return self._head.frontier.size

    @property
    def working_note(self) -> str | None:
        """The working checkpoint over `size` leaves; None for a log without leaves."""
        return self._head.note

    @property
    def _head(self) -> _Head:
        if self._opened is None:
            raise RuntimeError("LogWriter.open was not called")
        return self._opened

    async def open(self, database: Database) -> None:
        """Find the head of the log, once, before anything else.

        Without a checkpoint file the head is believed if its signature and hashes hold: a first start.

        Raises:
            LogForked: the head does not continue the checkpoint on this host's disk, or contradicts itself.
            StateCorrupt: the checkpoint file is damaged or cannot be written.
            DatabaseUnavailable: try again later.
        """
        kept = await asyncio.to_thread(self._file.read)
        async with database.reading() as tx:
            head = await self._continued(tx, kept, await tx.fetch_row(self._queries["head"]))
        if head.note is not None:
            await asyncio.to_thread(self._file.advance, head.note)
        self._opened = head

    async def lock(self, tx: Transaction) -> None:
        """Wait until no other transaction writes this log, then take in what others have appended since.

        The lock is held until the transaction ends. Before `append`, and not again after it.

        Raises:
            LogForked: the head does not continue the newest one that this writer knows, or that is on this host's
                disk; names the place.
            StateCorrupt: the checkpoint file cannot be used.
            DatabaseUnavailable: the lock could not be had in time.
        """
        if tx.is_snapshot or self._log in tx.logs_appended:
            raise RuntimeError("a log is locked in a writing transaction, before anything is appended to it")
        await tx.fetch(self._queries["lock"], _LOCK_NUMBERS[self._log])
        # A statement of its own: the one that waited for the lock does not see what was committed meanwhile.
        row = await tx.fetch_row(self._queries["head"])
        head = self._head
        if row is None or row["note"] != head.note:
            self._opened = await self._continued(tx, head.signed, row)
        await self._check_not_behind()
        self._holder, self._appended = tx, None

    async def append(self, tx: Transaction, leaves: Sequence[bytes]) -> Appended:
        """Put leaves, the nodes they complete, and one working checkpoint over all into the transaction.

        At most once in a transaction, which must hold the lock. This writer's own state changes with
        `committed`. Without leaves nothing is written, and the head comes back.

        Raises:
            LogForked: rows stand already where these belong.
            LimitExceeded: a leaf is longer than `LEAF_BYTES_MAX`.
        """
        if tx is not self._holder or self._log in tx.logs_appended:
            raise RuntimeError("a log is appended to once in a transaction, after locking it")
        if any(len(leaf) > LEAF_BYTES_MAX for leaf in leaves):
            raise LimitExceeded(f"{self._log} log: the limit is {LEAF_BYTES_MAX} bytes a leaf")
        before = self._head.frontier
        frontier, completed = tlog.append(before, leaves)
        note = self._sign(self._signers.origin, frontier.size, frontier.root()) if leaves else self._head.note
        edge = zip(tlog.frontier_nodes(before.size), before.hashes, strict=True)
        nodes = {**dict(edge), **completed}
        appended = Appended(before.size, frontier.size, note, frontier, tuple(leaves), nodes, tx)
        if leaves:
            tx.logs_appended.add(self._log)
            self._appended = appended
            await self._insert(tx, appended, completed)
        return appended

    async def committed(self, appended: Appended) -> Published:
        """Go on from what was appended, and sign the checkpoint over it that everybody accepts.

        Call it after COMMIT has succeeded, never before it and never after a rollback. On return the working
        checkpoint is on this host's disk. The same note comes back each time.

        Raises:
            LogForked: the checkpoint file contradicts it.
            StateCorrupt: the checkpoint file cannot be written.
        """
        if appended.leaves and not appended.transaction.is_committed:
            raise RuntimeError("nothing is signed for everybody before COMMIT has succeeded")
        note = appended.working_note
        head = _Head(appended.frontier, None if note is None else self._verified(appended.size, note))
        if appended.size > self.size:
            self._opened = head
        return await self._publish(head, appended)

    async def published(self) -> Published:
        """Sign the checkpoint of the head that this writer knows, in or after any transaction.

        That head was read from committed rows, or was `committed`; what the transaction itself has appended
        is not in it. Called after `lock`, it is the log's own head. Raises as `committed` does.
        """
        return await self._publish(self._head)

    async def leaf_proofs(self, tx: Transaction, indexes: Collection[int], size: int) -> dict[int, LeafProof]:
        """Return proofs of leaves that were appended earlier, by index, each checked before it is returned.

        Args:
            tx: any transaction that sees a log of at least `size` leaves.
            indexes: which leaves.
            size: leaves in the tree that they are proven in: a size that was committed, or that this
                transaction appends to.

        Raises:
            LogForked: a leaf, node or checkpoint is missing or is not the one that was signed; names it.
        """
        wanted = set(indexes)
        if not wanted:
            return {}
        if not 0 <= min(wanted) <= max(wanted) < size:
            raise self._forked(f"a row speaks of leaf {max(wanted)}, the log has {size}")
        root = await self._root(tx, size)
        rows = await tx.fetch(self._queries["leaves"], wanted)
        leaves: dict[int, bytes] = {row["index"]: row["leaf"] for row in rows}
        if missing := wanted - leaves.keys():
            raise self._forked(f"leaf {min(missing)} is missing")
        nodes = await self._nodes(tx, (node for index in wanted for node in tlog.inclusion_nodes(index, size)))
        proofs = {}
        for index, leaf in leaves.items():
            hashes = tlog.inclusion_proof(index, size, nodes)
            try:
                tlog.verify_inclusion(tlog.leaf_hash(leaf), index, size, hashes, root)
            except ProofInvalid:
                raise self._forked(f"leaf {index}, or a node above it, is not what was signed") from None
            proofs[index] = LeafProof(leaf, index, size, root, tuple(hashes))
        return proofs

    async def consistency(self, tx: Transaction, pairs: Collection[int], size: int) -> dict[int, list[bytes]]:
        """Return proofs that the log of `size` leaves continues each of the earlier sizes in `pairs`.

        Sizes out of range are left out. Each proof is checked before it is returned.

        Args:
            tx: any transaction that sees a log of at least `size` leaves.
            pairs: the earlier sizes, in leaves.
            size: leaves in the later tree, as for `leaf_proofs`.

        Raises:
            LogForked: a node or the checkpoint is missing or is not what was signed; names it.
        """
        olds = {old for old in pairs if 0 <= old <= size}
        if not olds or not size:
            return {old: [] for old in olds}
        root = await self._root(tx, size)
        wanted = {node for old in olds for node in tlog.consistency_nodes(old, size) + tlog.frontier_nodes(old)}
        nodes = await self._nodes(tx, wanted)
        proofs = {}
        for old in olds:
            proofs[old] = tlog.consistency_proof(old, size, nodes)
            frontier = Frontier(old, tuple(nodes[node] for node in tlog.frontier_nodes(old)))
            try:
                tlog.verify_consistency(old, frontier.root(), size, root, proofs[old])
            except ProofInvalid:
                raise self._forked(f"a node between {old} and {size} leaves is not what was signed") from None
        return proofs

    async def _check_not_behind(self) -> None:
        """Raise LogForked where another process with the same checkpoint file has gone further than this database.

        Whoever holds the log's lock sees all that was committed, and what is on disk was: so a database that has
        less is another one, or an older state of it, and was put before this process alone.
        """
        kept = await asyncio.to_thread(self._file.read)
        signed = kept.checkpoint.size if kept else 0
        if signed > self.size:
            raise self._forked(f"has {self.size} leaves here; {signed} were signed before on this host")

    async def _insert(self, tx: Transaction, appended: Appended, completed: Mapping[Node, bytes]) -> None:
        levels, indexes = zip(*completed, strict=True)
        row = await tx.fetch_row(
            self._queries["append"],
            appended.first_index,
            appended.leaves,
            levels,
            indexes,
            list(completed.values()),
            appended.size,
            appended.working_note,
        )
        if row is None or tuple(row) != (appended.size - appended.first_index, len(completed), 1):
            raise self._forked(f"rows stand already where leaf {appended.first_index} and its successors belong")

    async def _continued(self, tx: Transaction, newest: Signed | None, row: Record | None) -> _Head:
        """Verify the head in the database, by itself and as a continuation of the newest one known."""
        known = newest.checkpoint if newest else Checkpoint(self._signers.origin, 0, tlog.EMPTY_ROOT)
        if row is None:
            if known.size:
                raise self._forked(f"the checkpoints are gone; {known.size} leaves were signed before")
            return _Head(Frontier.empty(), None)
        size, note = row["size"], row["note"]
        signed = self._verified(size, note, newest)
        if size < known.size:
            raise self._forked(f"went back to {size} leaves; {known.size} were signed before")
        edge = tlog.frontier_nodes(size)
        nodes = await self._nodes(tx, edge + tlog.consistency_nodes(known.size, size))
        frontier = Frontier(size, tuple(nodes[node] for node in edge))
        if frontier.root() != signed.checkpoint.root:
            raise self._forked(f"the nodes at the edge of the {size} leaves are not those that were signed")
        try:
            proof = tlog.consistency_proof(known.size, size, nodes)
            tlog.verify_consistency(known.size, known.root, size, frontier.root(), proof)
        except ProofInvalid:
            raise self._forked(f"the {size} leaves do not continue the {known.size} signed before") from None
        return _Head(frontier, signed)

    async def _publish(self, head: _Head, appended: Appended | None = None) -> Published:
        """Sign a committed head for everybody, after this host has written down that it must never go back."""
        if head.note is not None:
            await asyncio.to_thread(self._file.advance, head.note)
        size, root = head.frontier.size, head.root
        return Published(size, root, self._sign(self._origin, size, root), appended)

    async def _root(self, tx: Transaction, size: int) -> bytes:
        """Return the root of the first `size` leaves, from memory if it is the newest, else as it was signed."""
        if size == self.size:
            return self._head.root
        if self._appended is not None and tx is self._holder and size == self._appended.size:
            return self._appended.frontier.root()
        note = await tx.fetch_value(self._queries["checkpoint"], size)
        if not isinstance(note, str):
            raise self._forked(f"the checkpoint of {size} leaves is missing")
        return self._verified(size, note).checkpoint.root

    async def _nodes(self, tx: Transaction, wanted: Iterable[Node]) -> dict[Node, bytes]:
        """Read nodes in one query; nobody vouches for them yet."""
        distinct = list(dict.fromkeys(wanted))
        if not distinct:
            return {}
        levels, indexes = zip(*distinct, strict=True)
        rows = await tx.fetch(self._queries["nodes"], levels, indexes)
        nodes: dict[Node, bytes] = {}
        for node, (value,) in zip(distinct, rows, strict=True):
            if value is None:
                raise self._forked(f"node {node.index} of level {node.level} is missing")
            nodes[node] = value
        return nodes

    def _verified(self, size: int, note: str, known: Signed | None = None) -> Signed:
        try:
            signed = self._signers.verify(note)
            self._signers.check_not_superseded(known, signed)
        except CheckpointInvalid as error:
            raise self._forked(f"the checkpoint of {size} leaves: {error.message}") from None
        if signed.checkpoint.size != size:
            raise self._forked(f"the checkpoint of {size} leaves is one of {signed.checkpoint.size}")
        return signed

    def _sign(self, origin: str, size: int, root: bytes) -> str:
        return sign_checkpoint(Checkpoint(origin, size, root), self._key.sign, self._key.public_key)

    def _forked(self, what: str) -> LogForked:
        return LogForked(f"{self._log} log: {what}", hint=RESTORED_HINT)
