"""Reading the recovery log: who speaks for whom, by what was signed and not by what a table says (SPEC 2.8)."""

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from strongroom.checkpoint_file import CheckpointFile, working_origin
from strongroom.crypto import tlog
from strongroom.crypto.notes import Checkpoint
from strongroom.crypto.tlog import Frontier
from strongroom.database import Transaction
from strongroom.errors import CheckpointInvalid, LogForked, PermanentError, StateCorrupt
from strongroom.log_keys import Signed, Signers
from strongroom.log_writer import RESTORED_HINT
from strongroom.mandates import LogKey
from strongroom.registry import Registry
from strongroom.schema import load_queries
from strongroom.statements import Statement, parse_envelope

PAGE_LEAVES: Final = 2_000

_QUERIES: Final = load_queries("follower")
_KEY_HINT: Final = (
    "if the authority has changed this log's key: put the newest roster in the place of this worker's roster file,"
    " and start it again; else somebody has changed the database"
)


class Fold(Protocol):
    """Something else that is read from the same leaves."""

    size: int

    def apply(self, leaf: bytes) -> None:
        """Take the next leaf into account; LogForked for one that makes no sense. Called once a leaf, in order."""
        ...


class RecoveryLogFollower:
    """Keeps a Registry at the newest state of the recovery log; shared by all transactions of a process."""

    def __init__(
        self, registry: Registry, log_key: LogKey, checkpoint_file: Path, *, also: Fold | None = None
    ) -> None:
        """Feed `registry`, and `also`, from the log of this origin and key; both are empty. No access yet."""
        if registry.size or (also is not None and also.size):
            raise ValueError("the registry has seen leaves already")
        self._also = also
        self._registry = registry
        self._signers = Signers.of(log_key, working_origin(log_key.origin))
        self._file = CheckpointFile(checkpoint_file, log_key.origin, log_key.public_key, log_key.former)
        self._kept: Checkpoint | None = None  # on disk and not yet passed on the way from the first leaf
        self._is_kept_read = False
        self._frontier = Frontier.empty()
        self._newest: Signed | None = None  # seen here or, before, on this host's disk
        self._note: str | None = None
        self._turn = asyncio.Lock()

    async def advance(self, tx: Transaction) -> None:
        """Take in what was committed to the log since, and admit the rosters that it names.

        On return the registry is as of a checkpoint that is signed, continues everything seen before, and is
        on this host's disk. Without a checkpoint file the log is believed from its first leaf: a first start.

        Args:
            tx: one that has appended nothing to the recovery log, and, if it is a reading one, a fresh one.

        Raises:
            LogForked: a checkpoint, or a leaf under it, is missing or is not the one that was signed or seen;
                names it.
            StateCorrupt: a roster's statement is missing or false, or the checkpoint file cannot be used.
            DatabaseUnavailable: try again later; the registry is at an earlier state.
        """
        async with self._turn:
            # Asked any earlier, the head could be older than what another transaction has taken in already.
            if (tx.is_snapshot and not tx.is_fresh) or "recovery" in tx.logs_appended:
                raise RuntimeError("this transaction does not see the recovery log as it is committed now")
            if not self._is_kept_read:
                self._newest = await asyncio.to_thread(self._file.read)
                self._kept = self._newest.checkpoint if self._newest else None
                self._is_kept_read = True
            row = await tx.fetch_row(_QUERIES["head"])
            if row is None or row["note"] != self._note:
                await self._follow(tx, *(tuple(row) if row else (0, "")))
            await self._admit_rosters(tx)

    async def admit(self, tx: Transaction, principals: Iterable[str], *, former: bool = False) -> None:
        """Load and verify the enrolments that the registry needs to judge these principals' signatures.

        Args:
            tx: any transaction.
            principals: names; those that nobody is enrolled under are passed over.
            former: also enrolments that were replaced since.

        Raises:
            StateCorrupt: the statement of an enrolment is missing or false; names the principal.
        """
        wanted = self._registry.enrolments_wanted(principals, former=former)
        statements = await self._statements(tx, {d: f"enrolment of {name}" for d, name in wanted.items()})
        for digest, statement in statements.items():
            try:
                self._registry.admit_enrolment(wanted[digest], statement)
            except PermanentError as error:
                raise StateCorrupt(f"enrolment of {wanted[digest]}: {error.message}") from None

    async def _admit_rosters(self, tx: Transaction) -> None:
        wanted = {digest: f"roster with digest {digest.hex()}" for digest in self._registry.rosters_wanted()}
        for digest, statement in (await self._statements(tx, wanted)).items():
            try:
                self._registry.admit_roster(statement)
            except PermanentError as error:
                raise StateCorrupt(f"{wanted[digest]}: {error.message}") from None

    async def _statements(self, tx: Transaction, wanted: dict[bytes, str]) -> dict[bytes, Statement]:
        """Load trust statements; `wanted` maps digests to words for errors. Signatures are not looked at."""
        if not wanted:
            return {}
        rows = await tx.fetch(_QUERIES["trust_statements"], wanted.keys())
        envelopes: dict[bytes, bytes] = {row["digest"]: row["envelope"] for row in rows}
        statements = {}
        for digest, what in wanted.items():
            if digest not in envelopes:
                raise StateCorrupt(f"{what}: is in the recovery log, and its statement is missing")
            try:
                statements[digest] = parse_envelope(envelopes[digest])
            except PermanentError as error:
                raise StateCorrupt(f"{what}: its statement is damaged: {error.message}") from None
            if statements[digest].digest != digest:
                raise StateCorrupt(f"{what}: the statement stored for it is another one")
        return statements

    async def _follow(self, tx: Transaction, size: int, note: str) -> None:
        """Go to a head that is not the one known: only forward, and only along what was signed."""
        known = max(self._frontier.size, self._kept.size if self._kept else 0)
        if size < known:
            what = f"went back to {size} leaves" if size else "the checkpoints are gone"
            raise _forked(f"{what}; {known} were seen before")
        if not size:
            return
        signed = self._verified(size, note)
        head = signed.checkpoint
        if size == self._frontier.size and head.root != self._frontier.root():
            raise _forked(f"the {size} leaves have another root than before")
        while self._frontier.size < size:
            await self._step(tx, head)
        await asyncio.to_thread(self._file.advance, note)
        self._newest, self._note = signed, note

    async def _step(self, tx: Transaction, head: Checkpoint) -> None:
        """Take in the leaves up to a checkpoint: the head, or on a long way one about a page on."""
        checkpoint = head
        if head.size - self._frontier.size > PAGE_LEAVES:
            row = await tx.fetch_row(_QUERIES["next_checkpoint"], self._frontier.size, PAGE_LEAVES)
            if row is not None:
                checkpoint = self._on_the_way(row["size"], row["note"]) or head
        leaves: list[bytes] = []
        frontier = self._frontier
        while frontier.size < checkpoint.size:
            end = min(frontier.size + PAGE_LEAVES, checkpoint.size)
            if self._kept is not None and frontier.size < self._kept.size < end:
                end = self._kept.size
            page = await self._page(tx, frontier.size, end)
            leaves += page
            frontier, _ = tlog.append(frontier, page)
            if self._kept is not None and self._kept.size == frontier.size and self._kept.root != frontier.root():
                raise _forked(f"the {frontier.size} leaves are not those that were seen before")
        if frontier.root() != checkpoint.root:
            raise _forked(await self._blame(tx, leaves, checkpoint.size))
        for leaf in leaves:
            self._registry.apply(leaf)
            if self._also is not None:
                self._also.apply(leaf)
        self._frontier = frontier
        if self._kept is not None and self._kept.size <= frontier.size:
            self._kept = None

    async def _page(self, tx: Transaction, first: int, end: int) -> list[bytes]:
        rows = await tx.fetch(_QUERIES["leaves"], first, end)
        for expected, row in enumerate(rows, first):
            if row["index"] != expected:
                raise _forked(f"leaf {expected} is missing")
        if len(rows) != end - first:
            raise _forked(f"leaf {first + len(rows)} is missing")
        return [row["leaf"] for row in rows]

    async def _blame(self, tx: Transaction, leaves: list[bytes], size: int) -> str:
        """Say which of the leaves just read is false, as far as the stored hashes tell."""
        first = self._frontier.size
        rows = await tx.fetch(_QUERIES["leaf_hashes"], first, size)
        hashes: dict[int, bytes] = {row["index"]: row["hash"] for row in rows}
        for index, leaf in enumerate(leaves, first):
            if hashes.get(index) != tlog.leaf_hash(leaf):
                return f"leaf {index} is not the one that was signed"
        return f"leaves {first} to {size - 1} are not those that were signed"

    def _verified(self, size: int, note: str) -> Signed:
        try:
            signed = self._signers.verify(note)
            self._signers.check_not_superseded(self._newest, signed)
        except CheckpointInvalid as error:
            raise _forked(f"the checkpoint of {size} leaves: {error.message}", hint=_KEY_HINT) from None
        if signed.checkpoint.size != size:
            raise _forked(f"the checkpoint of {size} leaves is one of {signed.checkpoint.size}")
        return signed

    def _on_the_way(self, size: int, note: str) -> Checkpoint | None:
        """Return a checkpoint before the head; None for one of a key that the roster does not name any more."""
        try:
            signed = self._signers.verify(note)
        except CheckpointInvalid:
            return None
        if signed.checkpoint.size != size:
            raise _forked(f"the checkpoint of {size} leaves is one of {signed.checkpoint.size}")
        return signed.checkpoint


def _forked(what: str, hint: str = RESTORED_HINT) -> LogForked:
    return LogForked(f"recovery log: {what}", hint=hint)
