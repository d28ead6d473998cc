"""Exporting both logs over the queue into a folder, and going on with an earlier export (SPEC 7.6).

What the database's rows say is kept as it came: the tiles are slices of its nodes, the bundles its leaves. A leaf
that it has lost stands as an entry of no bytes, which no leaf has, and its tile holds the hash that the nodes give
for it, or else the hash of such an entry. So an export never stops at a hole, and whoever verifies it finds where.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from strongroom.audits import LogEntry
from strongroom.crypto.notes import Checkpoint
from strongroom.crypto.tlog import EMPTY_ROOT, HASH_BYTES, leaf_hash, subtree_root
from strongroom.errors import CheckpointInvalid, LogForked, ProofInvalid, ReplyInvalid
from strongroom.limits import LEAF_BYTES_MAX
from strongroom.log_keys import Signers
from strongroom.statements import Statement, canonical_json
from strongroom.tiles import TILE_HEIGHT, TILE_WIDTH, pack_entries, tile_path, unpack_entries
from strongroom_agent.caller import ASK_SECONDS
from strongroom_agent.state import KeptCheckpoint
from strongroom_audit.findings import Finding, LogName, error, warning
from strongroom_audit.fold import Fold
from strongroom_audit.folder import Bundle, Export, LogFolder, write
from strongroom_audit.forks import differing_tile
from strongroom_audit.pages import Auditor, Page, log_key
from strongroom_audit.tree import TreeAudit, full_row, patched

FORK_HINT: Final = (
    "keep this export and the answer: one of the two histories is false; compare with other people's checkpoints"
    " (`strongroom log verify DIR --against FILE`)"
)

# Without the statement these leaves prove nothing; of the others the log says all there is.
_BEARING: Final = frozenset(
    {"escrow", "roster", "invitation", "enrolment", "revocation", "request", "approval", "denial", "attestation"}
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Exported:
    """What one log of an export has come to: leaves before and now, and its checkpoint (None: an empty log)."""

    log: LogName
    old_size: int
    size: int
    checkpoint: KeptCheckpoint | None


@dataclass(slots=True)
class Report:
    """What an export has come to, and what was noticed on the way."""

    logs: dict[LogName, Exported] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


async def export(
    auditor: Auditor, target: Export, *, wait_seconds: float = ASK_SECONDS, say: Say = lambda _text: None
) -> Report:
    """Bring an export up to date: fetch what is new, and check that what was exported before is a prefix of it.

    Killed in the middle, it leaves a folder that the next call goes on with. What is missing at the server is
    reported and left open. Raises LogForked, with the folder as it was before, for a log that does not continue it;
    CheckpointInvalid for an export whose own checkpoint is false; TransientError for a disk; and as `Auditor.read`.
    """
    report = Report()
    notes: list[str] = []
    # The escrow log comes first and last: the recovery log then has the enrolment of whoever signed in the first
    # part, and the escrow log every record that the recovery log speaks of.
    for log in ("escrow", "recovery", "escrow"):
        before = report.logs.get(log)
        if before is not None and any((each.log, each.code) == (log, "root_mismatch") for each in report.findings):
            continue  # nothing can be added to a tree that does not lead to its root
        done = await _export_log(auditor, target, log, report.findings, wait_seconds=wait_seconds, say=say)
        report.logs[log] = done if before is None else Exported(log, before.old_size, done.size, done.checkpoint)
        if done.checkpoint is not None:
            notes.append(done.checkpoint.note)
    write(target.path / "roster.json", auditor.roster.statement.envelope())
    target.collect(*notes)
    return report


async def _export_log(
    auditor: Auditor, target: Export, log: LogName, findings: list[Finding], *, wait_seconds: float, say: Say
) -> Exported:
    work = _LogExport(target.logs[log], _earlier(auditor, target.logs[log]), findings, say)
    await auditor.read(log, work.size, work.take, wait_seconds=wait_seconds)
    if work.pinned is not None and not work.leads_to_root():
        if work.old is not None:
            tile = await differing_tile(auditor, target.logs[log], work.old.size, wait_seconds=wait_seconds)
            if tile is not None or not work.is_damaged:
                target.logs[log].trim(work.old.size)
                target.collect(work.pinned.note)
                raise _forked(work.old, work.pinned, tile)
        findings.append(
            error(
                log,
                None,
                "root_mismatch",
                f"the leaves do not lead to the signed root of {work.pinned.size} leaves",
            )
        )
    work.finish()
    old_size = work.old.size if work.old else 0
    return Exported(log, old_size, work.pinned.size if work.pinned else old_size, work.pinned or work.old)


def _earlier(auditor: Auditor, folder: LogFolder) -> KeptCheckpoint | None:
    """Return the checkpoint of the earlier export, verified; None where there is none."""
    note = folder.note()
    if note is None:
        return None
    key = log_key(auditor.roster, folder.log)
    try:
        checkpoint = Signers.of(key).verify(note).checkpoint
    except CheckpointInvalid as failure:
        raise CheckpointInvalid(
            f"{folder.path / 'checkpoint'}: {failure.message}", hint="export into another folder"
        ) from None
    return KeptCheckpoint(folder.log, checkpoint.size, checkpoint.root, note)


def _forked(old: KeptCheckpoint, new: KeptCheckpoint, tile: str | None) -> LogForked:
    where = "which tile it is cannot be told" if tile is None else f"the first tile that differs is {tile}"
    return LogForked(
        f"{old.log} log: the {new.size} leaves that are signed now do not continue the {old.size} leaves of this"
        f" export; {where}",
        hint=FORK_HINT,
    )


class _LogExport:
    """Takes the pages of one log and writes its files; the checkpoint comes last."""

    def __init__(self, folder: LogFolder, old: KeptCheckpoint | None, findings: list[Finding], say: Say) -> None:
        self.old = old
        self.pinned: KeptCheckpoint | None = None
        self._has_holes = False
        self._folder = folder
        self._findings = findings
        self._say = say
        # As the nodes have it, and as the leaves have it: the same unless rows were edited.
        self._of_nodes, self._of_leaves = Fold(), Fold()
        self._rows: list[bytearray] = []  # stored hashes of each level of tiles above 0 that fill no tile yet
        self._leaves: list[bytes] = []
        self._hashes = bytearray()
        self._statements: list[bytes] = []
        self._beside: list[bytes] = []
        self._differing: list[int] = []
        self._kept: list[tuple[bytes, bytes, bytes]] = []  # leaf, hash and statement of the old partial bundle
        self._resume()

    @property
    def size(self) -> int:
        """The number of leaves so far."""
        return self._of_nodes.size

    def _resume(self) -> None:
        """Take in the full bundles that are there, also those that an export which was killed has left."""
        old_size = self.old.size if self.old else 0
        bundle = Bundle(self._folder.log, 0, TILE_WIDTH)
        tree = TreeAudit.of(
            self._folder, Checkpoint(self._folder.log, old_size, self.old.root if self.old else EMPTY_ROOT), ()
        )
        while self._folder.has(bundle):
            is_old = bundle.first + TILE_WIDTH <= old_size
            row = full_row(self._folder, bundle, tree.parent(bundle) if is_old else None, is_old=is_old)
            if row is None:
                break
            if self.size <= old_size < self.size + TILE_WIDTH and not self._continues_old(row):
                self._folder.trim(old_size)
                break
            self._climb(subtree_root(row), subtree_root(row), TILE_HEIGHT, [])
            bundle = Bundle(self._folder.log, bundle.index + 1, TILE_WIDTH)
        if self.size + TILE_WIDTH <= old_size:
            raise ProofInvalid(
                f"{self._folder.path / bundle.tile}: is missing or damaged", hint="verify it, and export anew"
            )
        if old_size > self.size:
            self._kept = self._old_partial(Bundle(self._folder.log, bundle.index, old_size - self.size))
        elif old_size == self.size and not self._continues_old(b""):
            raise self._not_its_checkpoint("its tiles")

    def _continues_old(self, tile: bytes) -> bool:
        """Say whether the tree so far, with the first hashes of this tile, is that of the old checkpoint."""
        if self.old is None:
            return True
        rest = tile[: (self.old.size - self.size) * HASH_BYTES]
        return self._of_nodes.root(subtree_root(rest) if rest else None) == self.old.root

    def _not_its_checkpoint(self, what: str) -> ProofInvalid:
        return ProofInvalid(
            f"{self._folder.path}: {what} do not lead to its checkpoint", hint="verify it, and export anew"
        )

    def _old_partial(self, bundle: Bundle) -> list[tuple[bytes, bytes, bytes]]:
        found = [self._folder.read(each) or b"" for each in (bundle.entries, bundle.tile, bundle.statements)]
        leaves = unpack_entries(found[0], str(self._folder.path / bundle.entries), bundle.width)
        lines = found[2].split(b"\n")[: bundle.width]
        lines += [b"null"] * (bundle.width - len(lines))
        of_leaves = patched(leaves, found[1])
        row = next(
            (each for each in (found[1], of_leaves) if len(each) == len(of_leaves) and self._continues_old(each)),
            None,
        )
        if row is None:
            raise self._not_its_checkpoint(bundle.tile)
        hashes = [row[at : at + HASH_BYTES] for at in range(0, len(row), HASH_BYTES)]
        return list(zip(leaves, hashes, lines, strict=True))

    # ---- pages ----

    def take(self, page: Page) -> int | None:
        """Take a page; return where to go on, None at the end. Raises LogForked, ReplyInvalid."""
        if self.pinned is None and not self._pin(page.checkpoint):
            return None
        goal = self.pinned.size if self.pinned else 0
        wanted = [each for each in page.entries if each[0].index < goal]
        if not wanted and self.size < goal:
            raise ReplyInvalid(f"reply: a log page without leaf {self.size}, and {goal} leaves are signed")
        for entry, statement in wanted:
            self._take_entry(entry, statement)
        self._say(f"{self._folder.log} log: {self.size} of {goal} leaves")
        return self.size if self.size < goal else None

    def _pin(self, newest: KeptCheckpoint | None) -> bool:
        """Say whether there is anything to fetch; what is signed now is what this export goes up to."""
        old_size = self.old.size if self.old else 0
        size = newest.size if newest else 0
        if self.old is not None and size < old_size:
            raise LogForked(
                f"{self._folder.log} log: this export has {old_size} leaves, and the authority now signs {size}:"
                " a tail was cut off",
                hint=FORK_HINT,
            )
        if newest is None:
            return False
        if self.old is not None and size == old_size:
            if newest.root != self.old.root:
                raise LogForked(
                    f"{self._folder.log} log: two histories of {size} leaves are signed", hint=FORK_HINT
                )
            return False
        if size < self.size:
            raise LogForked(
                f"{self._folder.log} log: {self.size} leaves were fetched before, the authority now signs {size}",
                hint=FORK_HINT,
            )
        self.pinned = newest
        return True

    def _take_entry(self, entry: LogEntry, statement: Statement | None) -> None:
        leaf, value, of_leaf = self._judged(entry)
        line = b"null" if statement is None else statement.envelope()
        place = len(self._leaves)
        if self._kept and entry.index < (self.old.size if self.old else 0):
            kept_leaf, kept_value, kept_line = self._kept[place]
            if entry.index in self._differing:
                self._differing.remove(entry.index)
            if leaf and leaf != kept_leaf and kept_leaf:
                self._note("leaf_edited", entry.index, "the leaf is another now than when it was exported before")
            leaf, value, of_leaf = kept_leaf, kept_value, kept_value
            line = kept_line if statement is None else line
        if line == b"null" and _bears_statement(leaf):
            self._note("statement_missing", entry.index, "the statement that this leaf names is missing")
        if self._folder.log == "recovery":
            beside = b"true" if entry.has_release else b"false"
        else:
            beside = canonical_json(sorted(entry.rows))
        self._leaves.append(leaf)
        self._hashes += value
        self._statements.append(line)
        self._beside.append(beside)
        self._climb(value, of_leaf, 0, entry.nodes)
        if len(self._leaves) == TILE_WIDTH:
            self._write_bundle(TILE_WIDTH)

    def _judged(self, entry: LogEntry) -> tuple[bytes, bytes, bytes]:
        """Return the leaf to write, and its hash as the nodes have it and as the leaf has it."""
        leaf, stored = entry.leaf, entry.nodes[0]
        if leaf is None or not 0 < len(leaf) <= LEAF_BYTES_MAX:
            self._has_holes = self._has_holes or stored is None
            self._note("leaf_missing", entry.index, "the database has lost this leaf")
            value = stored or leaf_hash(b"")
            return b"", value, value
        value = leaf_hash(leaf)
        if stored is None:
            self._note("node_missing", entry.index, "the database has lost the hash of this leaf")
        elif stored != value:
            self._differing.append(entry.index)
        return leaf, stored or value, value

    def _climb(self, by_nodes: bytes, by_leaves: bytes, level: int, nodes: list[bytes | None]) -> None:
        """Append to both trees; compare what that completes with stored nodes; gather the tiles above level 0."""
        first = [(level, by_nodes, by_leaves)] if level else []
        added = zip(self._of_nodes.add(by_nodes, level), self._of_leaves.add(by_leaves, level), strict=True)
        for at, computed, other in [*first, *((at, one, another) for (at, one), (_, another) in added)]:
            stored = nodes[at] if at < len(nodes) else None
            if nodes and stored is None:
                self._note("node_missing", self.size - 1, f"the hash of level {at} that ends here is missing")
            elif stored not in (None, computed, other):
                self._note("node_edited", self.size - 1, f"the stored hash of level {at} that ends here is false")
            if at % TILE_HEIGHT == 0:
                self._add_row(at // TILE_HEIGHT, stored or computed)

    def _add_row(self, level: int, value: bytes) -> None:
        while len(self._rows) < level:
            self._rows.append(bytearray())
        row = self._rows[level - 1]
        row += value
        if len(row) == TILE_WIDTH * HASH_BYTES:
            index = (self.size >> (TILE_HEIGHT * (level + 1))) - 1
            path = tile_path(level, index)
            if self._folder.read(path) is None:
                self._folder.write(path, bytes(row))
            row.clear()

    def _note(self, code: str, index: int, words: str) -> None:
        make = warning if code == "node_missing" else error
        self._findings.append(make(self._folder.log, index, code, words))

    # ---- the end ----

    @property
    def is_damaged(self) -> bool:
        """Whether rows are lost or edited in such a way that another root says nothing about the log."""
        return self._has_holes or bool(self._differing)

    def leads_to_root(self) -> bool:
        """Say whether the leaves, or the hashes of them, lead to the signed root; name rows that were edited."""
        root = self.pinned.root if self.pinned else b""
        by_nodes, by_leaves = self._of_nodes.root() == root, self._of_leaves.root() == root
        for index in self._differing:
            if by_leaves and not by_nodes:
                self._note("node_edited", index, "the stored hash of this leaf is false")
            else:
                self._note(
                    "leaf_edited", index, "the leaf is not the one that was signed: its stored hash is another's"
                )
        return by_nodes or by_leaves

    def finish(self) -> None:
        """Write what is not full, and then the checkpoint; what the tree has outgrown goes."""
        if self.pinned is None:
            return
        if self._leaves:
            self._write_bundle(len(self._leaves))
        size = self.pinned.size
        for level, row in enumerate(self._rows, 1):
            if row:
                index = (size >> (TILE_HEIGHT * level)) // TILE_WIDTH
                self._folder.write(tile_path(level, index, len(row) // HASH_BYTES), bytes(row))
        self._folder.write("checkpoint", self.pinned.note.encode())
        if self.old is not None:
            self._folder.remove_partial(self.old.size, size)

    def _write_bundle(self, width: int) -> None:
        bundle = Bundle(self._folder.log, (self.size - 1) // TILE_WIDTH, width)
        self._folder.write(bundle.entries, pack_entries(self._leaves))
        self._folder.write(bundle.statements, b"\n".join(self._statements) + b"\n")
        self._folder.write(bundle.rows, b"\n".join(self._beside) + b"\n")
        self._folder.write(bundle.tile, bytes(self._hashes))
        for each in (self._leaves, self._statements, self._beside, self._kept):
            each.clear()
        self._hashes.clear()


def _bears_statement(leaf: bytes) -> bool:
    try:
        document = json.loads(leaf)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("type") in _BEARING
