"""A witness: a key of its own under a checkpoint, after the log was seen to continue all it has signed before."""

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from strongroom.crypto import cosignatures
from strongroom.crypto.signing import SigningKey
from strongroom.errors import Busy, CheckpointInvalid, ConfigurationInvalid, LogForked, NotFound, ProofInvalid
from strongroom.roster import Roster
from strongroom.tiles import TILE_WIDTH
from strongroom_audit import checkpoints
from strongroom_audit.checkpoints import Known
from strongroom_audit.findings import Finding, LogName
from strongroom_audit.folder import Export, bundles, join_notes, split_notes, write
from strongroom_audit.tree import TreeAudit, read_bundle

Say = Callable[[str], None]


class Witness:
    """A witness by name and key, and what it has cosigned so far: the newest checkpoint of each log, in a file."""

    def __init__(self, name: str, key: SigningKey, state: Path) -> None:
        """Sign as `name`; the file at `state` is made by the first cosignature."""
        self._name = name
        self._key = key
        self._state = state

    def cosign(
        self, target: Export, log: LogName, rosters: Sequence[Roster], *, now: int, say: Say = lambda _text: None
    ) -> Known:
        """Cosign the checkpoint of an export and put it back with the new signature; return it.

        Safe to repeat. Raises NotFound without a checkpoint, CheckpointInvalid for one that the log did not sign,
        ProofInvalid when the export's tree does not lead to it, LogForked when it does not continue what was
        cosigned before, ConfigurationInvalid for the state file, Busy while that is in use.
        """
        note = target.logs[log].note()
        if note is None:
            raise NotFound(f"{target.path}: there is no checkpoint of the {log} log", hint="export it first")
        known = _held(note, log, f"{log}/checkpoint", rosters)
        with _locked(self._state):
            notes = self._seen()
            own = [each for each in notes if checkpoints.log_of(each, rosters) == log]
            seen = [_held(each, log, str(self._state), rosters) for each in own]
            tree = _tree(target, known, [each.checkpoint.size for each in seen], say)
            forks = list(checkpoints.compare(seen, known.checkpoint.size, tree.roots))
            if forks:
                raise LogForked(
                    f"{log} log: {forks[0].words}", hint="nothing was signed; keep both, and tell the others"
                )
            cosigned = cosignatures.cosign(note, self._name, self._key, now)
            # On disk before anybody sees it: what was signed is never forgotten.
            write(self._state, join_notes([*(each for each in notes if each not in own), cosigned]).encode())
            target.exchange(log, cosigned)
        return _held(cosigned, log, f"{log}/checkpoint", rosters)

    def _seen(self) -> list[str]:
        """Return what this witness has cosigned; whoever writes to the file cannot add another's."""
        try:
            notes = split_notes(self._state.read_text(encoding="utf-8"))
            for note in notes:
                cosignatures.verify_cosignature(note, self._name, self._key.public_key)
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError):
            raise ConfigurationInvalid(f"{self._state}: cannot be read") from None
        except CheckpointInvalid as failure:
            raise ConfigurationInvalid(
                f"{self._state}: {failure.message}", hint="restore it from a backup"
            ) from None
        return notes


def _held(note: str, log: LogName, source: str, rosters: Sequence[Roster]) -> Known:
    known, findings = checkpoints.judge(note, log, source, checkpoints.keys_of(rosters, log), ())
    if known is None:
        raise CheckpointInvalid(f"{source}: {findings[0].words}")
    return known


def _tree(target: Export, known: Known, sizes: Sequence[int], say: Say) -> TreeAudit:
    """Recompute the tree. Raises ProofInvalid naming the first thing that does not belong to it."""
    folder, size = target.logs[known.log], known.checkpoint.size
    tree = TreeAudit.of(folder, known.checkpoint, sizes)
    found: list[Finding] = []
    if folder.bundles_there() * TILE_WIDTH < size:
        raise ProofInvalid(f"{folder.path}: holds no files of leaf {size - 1}; nothing was signed")
    for bundle in bundles(known.log, size):
        read = read_bundle(folder, bundle, tree.vouched(bundle), tree.cuts(bundle))
        tree.add(bundle, read.root, read.cuts)
        # What the leaves name is the audit's concern: a witness vouches for the tree alone.
        found += [each for each in read.findings if each.id is None or each.id.startswith("tile/")]
        say(f"{known.log} log: {bundle.first + bundle.width} of {size} leaves")
    tree.finish()
    found += tree.findings
    if found:
        raise ProofInvalid(f"{found[0]}; nothing was signed", hint="`strongroom log verify DIR` says all")
    return tree


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as failure:
        raise ConfigurationInvalid(f"{lock}: {failure.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{path}: another process is signing") from None
        yield
    finally:
        os.close(descriptor)
