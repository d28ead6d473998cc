"""Verifying an export: nothing is believed but the root key (SPEC 7.6). No network, no server."""

import gc
import multiprocessing
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from strongroom.crypto.cosignatures import VerifierKey
from strongroom.crypto.notes import Checkpoint, parse_checkpoint
from strongroom.errors import CheckpointInvalid, TransientError
from strongroom.roster import Roster
from strongroom.tiles import TILE_WIDTH
from strongroom_audit import checkpoints, crosschecks, escrow_audit
from strongroom_audit.checkpoints import Known
from strongroom_audit.clocks import Clock
from strongroom_audit.duplicates import Distinct, FirstEscrows
from strongroom_audit.escrow_audit import UNKNOWN, Judged, Owner, Rules
from strongroom_audit.findings import Finding, Findings, LogName, Severity, error, warning
from strongroom_audit.folder import LOGS, Bundle, Export, LogFolder, bundles
from strongroom_audit.recovery_audit import RecoveryAudit
from strongroom_audit.rosters import rosters_of
from strongroom_audit.tree import BundleRead, TreeAudit, read_bundle

_AHEAD: Final = 4  # bundles under way for each process

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """By what an export is verified.

    root_key: 32 bytes, the only thing that is believed. now: in seconds. rosters: others that are known, verified.
    against: (source, checkpoint note) from elsewhere. witnesses: whose cosignatures are asked for. signatures: also
    verify those of escrow statements. jobs: processes.
    """

    root_key: bytes
    now: int
    rosters: tuple[Roster, ...] = ()
    against: tuple[tuple[str, str], ...] = ()
    witnesses: tuple[VerifierKey, ...] = ()
    signatures: bool = True
    jobs: int = 1


@dataclass(slots=True)
class Verdict:
    """What came of it: findings, how much was looked at, and every checkpoint that was compared."""

    findings: Findings = field(default_factory=Findings)
    sizes: dict[LogName, int] = field(default_factory=dict)
    records: int = 0
    signatures: int = 0
    compared: list[Known] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """The number of errors."""
        return self.findings.number(Severity.ERROR)

    @property
    def warnings(self) -> int:
        """The number of warnings."""
        return self.findings.number(Severity.WARNING)

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "ok": not self.errors,
            "errors": self.errors,
            "warnings": self.warnings,
            "leaves": dict(self.sizes),
            "records": self.records,
            "signatures": self.signatures,
            "checkpoints": [each.document() for each in self.compared],
            "findings": [each.document() for each in self.findings.kept],
        }


def verify(target: Export, options: Options, *, say: Say = lambda _text: None) -> Verdict:
    """Verify an export; whatever is wrong with it becomes a finding. The checkpoints that hold are collected in it.

    Raises UsageError for a folder that is no export, ConfigurationInvalid for files that cannot be read.
    """
    target.check_there()
    return _Verification(target, options, say).verdict


@dataclass(frozen=True, slots=True)
class _Head:
    """The checkpoint that a log is judged under, and how many of its bundles are there.

    known: the checkpoint again, if its signature holds.
    """

    checkpoint: Checkpoint
    there: int
    known: Known | None


class _Verification:
    """One verification, from the rosters to what the two logs say of each other."""

    def __init__(self, target: Export, options: Options, say: Say) -> None:
        self.verdict = Verdict()
        self._target = target
        self._options = options
        self._say = say
        self._found = self.verdict.findings
        self._rosters = [*options.rosters, *rosters_of(target, options.root_key)]
        self._collected = target.checkpoints()
        self._known: dict[LogName, list[Known]] = {log: [] for log in LOGS}
        self._apart: set[str | None] = set()  # sources of checkpoints that are no prefixes of these trees
        self._absent: list[LogName] = []
        heads = {log: self._head(log) for log in LOGS}
        self._gather()
        for log in LOGS:
            self._part(checkpoints.superseded(self._known[log]))
            if heads[log] is None:
                self._compare(self._known[log], 0, {})
        recovery = self._recovery(heads["recovery"])
        self._find_absent(recovery)
        self._escrow(heads["escrow"], recovery)
        for log in LOGS:
            self.verdict.compared += self._known[log]
        self._collect(heads)

    # ---- keys and checkpoints ----

    def _head(self, log: LogName) -> _Head | None:
        folder = self._target.logs[log]
        note = folder.note()
        there = folder.bundles_there()
        if note is None:
            path = f"{log}/checkpoint"
            if there:
                words = "the checkpoint of the export is missing: nothing of the log was looked at"
                self._found.take([error(log, None, "checkpoint_missing", words, id=path)])
            else:
                self._absent.append(log)
            return None
        known, findings = self._judged(note, log, f"{log}/checkpoint")
        self._found.take(findings)
        if known is not None:
            self._known[log].append(known)
            self._found.take(checkpoints.unwitnessed(known, self._options.witnesses))
            return _Head(known.checkpoint, there, known)
        try:
            # Not signed, and still what the files claim to be.
            return _Head(parse_checkpoint(note)[0], there, None)
        except CheckpointInvalid:
            return None

    def _find_absent(self, recovery: RecoveryAudit) -> None:
        for log in self._absent:
            # Every authority has a first roster on record, and for a while nothing else. What was proven, released
            # or attested was escrowed before.
            is_young = log == "escrow" and not recovery.proofs and not recovery.named
            make, path = warning if is_young else error, f"{log}/checkpoint"
            self._found.take([make(log, None, "log_missing", "there is nothing of this log here", id=path)])

    def _judged(self, note: str, log: LogName, source: str) -> tuple[Known | None, list[Finding]]:
        keys = checkpoints.keys_of(self._rosters, log)
        return checkpoints.judge(note, log, source, keys, self._options.witnesses)

    def _gather(self) -> None:
        """Take in all other checkpoints there are; one that is no log's of this authority is an error."""
        collected = [("checkpoints", note) for note in dict.fromkeys(self._collected)]
        for source, note in [*collected, *self._options.against]:
            log = checkpoints.log_of(note, self._rosters)
            if log is None:
                words = "this is no checkpoint of either log"
                self._found.take([error("escrow", None, "checkpoint_invalid", words, id=source)])
                continue
            known, findings = self._judged(note, log, source)
            self._found.take(findings)
            if known is not None and all(known.note != other.note for other in self._known[log]):
                self._known[log].append(known)

    def _compare(self, known: Sequence[Known], size: int, roots: Mapping[int, bytes]) -> None:
        self._part(checkpoints.compare(known, size, roots))

    def _part(self, findings: Iterable[Finding]) -> None:
        """Take findings about checkpoints that are not to be collected."""
        found = list(findings)
        self._found.take(found)
        self._apart |= {each.id for each in found}

    def _collect(self, heads: dict[LogName, _Head | None]) -> None:
        """Add the checkpoints that are prefixes of these trees to those collected."""
        if any(head is not None and head.known is None for head in heads.values()):
            return
        # By the figures: after so many findings those that matter here are not kept word for word.
        if any(self._found.counts[Severity.ERROR, code] for code in ("root_mismatch", "leaves_edited")):
            return
        fresh = [
            each.note
            for log in LOGS
            for each in self._known[log]
            if each.note not in self._collected and each.source not in self._apart
        ]
        if fresh:
            try:
                self._target.collect(*fresh)
            except TransientError as failure:
                words = f"the checkpoints that hold could not be added to those collected: {failure.message}"
                self._found.take([warning("recovery", None, "not_collected", words)])

    def _sizes(self, log: LogName) -> Iterator[int]:
        return (each.checkpoint.size for each in self._known[log])

    # ---- the recovery log ----

    def _recovery(self, head: _Head | None) -> RecoveryAudit:
        newest = max(self._rosters, key=lambda roster: roster.body.version, default=None)
        # The log begins with what the first root key signed, whichever of those that followed is pinned.
        root_key = newest.root_keys[0] if newest else self._options.root_key
        audit = RecoveryAudit(root_key, self._options.now)
        if head is not None:
            folder = self._target.logs["recovery"]
            tree = TreeAudit.of(folder, head.checkpoint, self._sizes("recovery"))
            for bundle in self._present(folder, head):
                read = read_bundle(folder, bundle, tree.vouched(bundle), tree.cuts(bundle))
                tree.add(bundle, read.root, read.cuts)
                self._found.take(read.findings)
                for place, leaf in enumerate(read.leaves):
                    audit.take(bundle.first + place, leaf, read.statements[place], read.beside[place])
                self._found.take(audit.findings)
                audit.findings.clear()
                self._say(f"recovery log: {bundle.first + bundle.width} of {head.checkpoint.size} leaves")
            audit.close()
            self._found.take(audit.findings)
            self._finish(tree, head, "recovery")
        self.verdict.signatures += audit.signatures
        return audit

    def _present(self, folder: LogFolder, head: _Head) -> Iterator[Bundle]:
        """Give the bundles up to the last that is there; that the others are missing is found once."""
        size = head.checkpoint.size
        due = -(-size // TILE_WIDTH)
        if head.there < due:
            first = head.there * TILE_WIDTH
            words = f"the files of leaves {first} to {size - 1} are missing"
            path = Bundle(folder.log, head.there, min(TILE_WIDTH, size - first)).entries
            self._found.take([error(folder.log, first, "file_missing", words, id=path)])
        return (
            (each for each in bundles(folder.log, min(size, head.there * TILE_WIDTH)))
            if head.there >= due
            else (Bundle(folder.log, index, TILE_WIDTH) for index in range(head.there))
        )

    def _finish(self, tree: TreeAudit, head: _Head, log: LogName) -> None:
        tree.finish()
        self._found.take(tree.findings)
        is_whole = head.there * TILE_WIDTH >= head.checkpoint.size
        others = [each for each in self._known[log] if each is not head.known]
        known = [each for each in others if is_whole or each.checkpoint.size in tree.roots]
        self._compare(known, head.checkpoint.size, tree.roots)
        self.verdict.sizes[log] = min(head.checkpoint.size, head.there * TILE_WIDTH)

    # ---- the escrow log ----

    def _escrow(self, head: _Head | None, recovery: RecoveryAudit) -> None:
        counts: array[int] = array("H")
        owners: list[Owner] = []
        roots: dict[int, bytes] = {}
        if head is not None:
            folder = self._target.logs["escrow"]
            sizes = {proof.leaf.size for proof in recovery.proofs} | set(self._sizes("escrow"))
            tree = TreeAudit.of(folder, head.checkpoint, sizes)
            records, statements = Distinct("record", "record_twice"), Distinct("statement", "statement_twice")
            clock = Clock("escrow")
            first_escrows = FirstEscrows()
            with ExitStack() as stack:
                for read, judged in self._judge_all(
                    tree, self._present(folder, head), self._rules(recovery), stack
                ):
                    tree.add(read.bundle, read.root, read.cuts)
                    self._found.take(read.findings)
                    self._found.take(judged.findings)
                    records.add(judged.records)
                    statements.add(judged.statements)
                    self._found.take(first_escrows.take(judged.wrapped))
                    counts += judged.counts
                    owners += judged.owners
                    clock.follow(judged.clock)
                    self.verdict.records += len(judged.records) // 24
                    self.verdict.signatures += judged.signatures
                    self._say(f"escrow log: {len(counts)} of {head.checkpoint.size} leaves")
            for distinct in (records, statements):
                self._found.take(distinct.findings())
            self._found.take(clock.findings(self._options.now))
            self._finish(tree, head, "escrow")
            roots = tree.roots
        self._found.take(crosschecks.proofs(recovery.proofs, counts, roots, newest=_newest(recovery)))
        self._found.take(crosschecks.names(recovery.named, owners, has_lost=UNKNOWN in counts))

    def _rules(self, recovery: RecoveryAudit) -> Rules:
        authority = self._rosters[0].body.authority if self._rosters else ""
        return Rules(
            authority=authority,
            keys=recovery.standings.keys,
            settled=self._settled(),
            newest=_newest(recovery),
            wanted=frozenset(each.record for each in recovery.named),
            signatures=self._options.signatures,
            now=self._options.now,
        )

    def _settled(self) -> int:
        """Return how many escrow leaves there were before this recovery log was read (see `export`)."""
        own = self._target.logs["recovery"].note()
        before: list[str] = []
        if own in self._collected:
            before = self._collected[: len(self._collected) - 1 - self._collected[::-1].index(own)]
        texts = set(before)
        sizes = [each.checkpoint.size for each in self._known["escrow"] if each.note in texts]
        return max(sizes, default=max(self._sizes("escrow"), default=0))

    def _judge_all(
        self, tree: TreeAudit, due: Iterable[Bundle], rules: Rules, stack: ExitStack
    ) -> Iterator[tuple[BundleRead, Judged]]:
        """Give what was read and judged of each bundle, in order, from as many processes as were asked for."""
        pool: ProcessPoolExecutor | None = None
        if self._options.jobs > 1:
            context = multiprocessing.get_context("fork")
            pool = stack.enter_context(
                ProcessPoolExecutor(
                    self._options.jobs, mp_context=context, initializer=_begin, initargs=(tree.folder, rules)
                )
            )
        waiting: deque[Future[tuple[BundleRead, Judged]]] = deque()
        try:
            for bundle in due:
                cuts = tree.cuts(bundle)
                if pool is None or bundle.width < TILE_WIDTH:
                    # What is not full is judged by the root of all before it.
                    yield from (each.result() for each in _drained(waiting))
                    yield _judge_bundle(tree.folder, rules, bundle, tree.vouched(bundle), cuts)
                    continue
                if len(waiting) >= _AHEAD * self._options.jobs:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(_judge_full, bundle, tree.parent(bundle), cuts))
            yield from (each.result() for each in _drained(waiting))
        except BrokenProcessPool:
            raise TransientError("a process that verified signatures was killed", hint="try fewer --jobs") from None


def _newest(recovery: RecoveryAudit) -> int:
    """Return the time of the newest leaf of the recovery log that makes sense; 0 where there is none."""
    return recovery.clock.last[1] if recovery.clock.last else 0


def _drained(waiting: deque[Future[tuple[BundleRead, Judged]]]) -> Iterator[Future[tuple[BundleRead, Judged]]]:
    while waiting:
        yield waiting.popleft()


def _judge_bundle(
    folder: LogFolder, rules: Rules, bundle: Bundle, vouched: Callable[[bytes], bool], cuts: Sequence[int]
) -> tuple[BundleRead, Judged]:
    read = read_bundle(folder, bundle, vouched, cuts)
    judged = escrow_audit.judge(bundle.first, read.leaves, read.statements, read.beside, rules)
    # What was judged is not needed any more, and would have to be carried from process to process.
    return BundleRead(bundle, [], [], [], read.root, read.cuts, read.findings), judged


# What a process of the pool works with: the keys of a fleet are too many to send with every bundle.
_WORK: Final[list[tuple[LogFolder, Rules]]] = []


def _begin(folder: LogFolder, rules: Rules) -> None:
    _WORK[:] = [(folder, rules)]
    # What came from the parent is never garbage here, and looking through it would copy all of its memory.
    gc.freeze()


def _judge_full(bundle: Bundle, parent: bytes | None, cuts: Sequence[int]) -> tuple[BundleRead, Judged]:
    [(folder, rules)] = _WORK
    return _judge_bundle(folder, rules, bundle, partial(_is, parent), cuts)


def _is(parent: bytes | None, root: bytes) -> bool:
    return parent == root
