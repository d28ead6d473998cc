"""Checkpoints from everywhere, held against one tree: evidence of agents, witnesses, earlier audits. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strongroom.crypto.cosignatures import VerifierKey, verify_cosignature
from strongroom.crypto.notes import Checkpoint, parse_checkpoint
from strongroom.errors import CheckpointInvalid
from strongroom.log_keys import Signers
from strongroom.roster import Roster
from strongroom_audit.findings import Finding, LogName, error, warning


@dataclass(frozen=True, slots=True)
class Known:
    """A checkpoint that one of the log's keys signed.

    term: the place of that key in the order of the log's keys. cosigned: witnesses whose signature holds, and when
    they saw it. others: names of all other signatures.
    """

    log: LogName
    source: str
    note: str
    checkpoint: Checkpoint
    term: int
    cosigned: Mapping[str, int] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    def words(self) -> str:
        """Name it for people."""
        by = ", ".join(
            [
                *(f"cosigned by {name}" for name in self.cosigned),
                *(f"with a signature of {name}" for name in self.others),
            ]
        )
        size, root = self.checkpoint.size, self.checkpoint.root.hex()
        return f"the checkpoint of {size} leaves with root {root} from {self.source}{f', {by}' if by else ''}"

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "log": self.log,
            "source": self.source,
            "size": self.checkpoint.size,
            "root": self.checkpoint.root.hex(),
            "cosigned": dict(self.cosigned),
            "other_signatures": list(self.others),
        }


def keys_of(rosters: Iterable[Roster], log: LogName) -> list[Signers]:
    """Return the signers of a log's checkpoints, now and before, as the newest roster names them; none without one.

    What an older roster names, and the newest does not, signs nothing that counts (SPEC 2.11).
    """
    newest = max(rosters, key=lambda roster: roster.body.version, default=None)
    if newest is None:
        return []
    return [Signers.of(newest.body.logs.escrow if log == "escrow" else newest.body.logs.recovery)]


def log_of(note: str, rosters: Sequence[Roster]) -> LogName | None:
    """Return whose checkpoint a note claims to be; None for neither log's."""
    try:
        origin = parse_checkpoint(note)[0].origin
    except CheckpointInvalid:
        return None
    logs: tuple[LogName, LogName] = ("escrow", "recovery")
    return next((log for log in logs if any(key.origin == origin for key in keys_of(rosters, log))), None)


def judge(
    note: str, log: LogName, source: str, keys: Sequence[Signers], witnesses: Sequence[VerifierKey]
) -> tuple[Known | None, list[Finding]]:
    """Verify a checkpoint under the keys of its log; false signatures of the witnesses asked for are found."""
    findings: list[Finding] = []
    reason = "there is no roster that names its key"
    for key in keys:
        try:
            signed = key.verify(note)
        except CheckpointInvalid as failure:
            reason = failure.message
            continue
        checkpoint, cosigned = signed.checkpoint, dict[str, int]()
        named = {line.name for line in parse_checkpoint(note)[1]} - {key.origin}
        for witness in witnesses:
            if witness.name not in named:
                continue
            try:
                cosigned[witness.name] = verify_cosignature(note, witness.name, witness.public_key)
            except CheckpointInvalid as failure:
                words = f"the checkpoint of {checkpoint.size} leaves from {source}: {failure.message}"
                findings.append(error(log, None, "cosignature_false", words, id=source))
        others = tuple(sorted(named - cosigned.keys()))
        return Known(log, source, note, checkpoint, key.term(signed.key), cosigned, others), findings
    findings.append(error(log, None, "checkpoint_invalid", f"a checkpoint that does not hold: {reason}", id=source))
    return None, findings


def compare(known: Sequence[Known], size: int, roots: Mapping[int, bytes]) -> Iterator[Finding]:
    """Give an error for each checkpoint of a log that is no prefix of its tree: `size` leaves, roots by size."""
    true = {each.checkpoint.size for each in known if roots.get(each.checkpoint.size) == each.checkpoint.root}
    for each in known:
        checkpoint = each.checkpoint
        if checkpoint.size > size:
            words = (
                f"{each.words()} goes beyond the {size} leaves here: a tail was cut off, or this was read before it"
            )
            yield error(each.log, size, "checkpoint_beyond", words, id=each.source)
        elif checkpoint.size and roots.get(checkpoint.size) != checkpoint.root:
            after = max((other for other in true if other < checkpoint.size), default=0)
            words = (
                f"{each.words()} is of another history: it forks at one of leaves {after} to {checkpoint.size - 1}"
            )
            yield error(each.log, after, "log_forked", words, id=each.source)


def superseded(known: Sequence[Known]) -> Iterator[Finding]:
    """Give an error for each checkpoint of a log by a key whose time a smaller one has ended (SPEC 2.11)."""
    for each in known:
        after = [other for other in known if other.term > each.term]
        ended = min((other.checkpoint.size for other in after), default=each.checkpoint.size)
        if ended < each.checkpoint.size:
            words = (
                f"{each.words()} is signed by a former key of the log, which signs no more: the next one has signed"
                f" for {ended} leaves"
            )
            yield error(each.log, ended, "log_forked", words, id=each.source)


def unwitnessed(own: Known, witnesses: Sequence[VerifierKey]) -> Iterator[Finding]:
    """Give a warning for each witness asked for that has not cosigned this checkpoint."""
    for witness in witnesses:
        if witness.name not in own.cosigned:
            words = f"the checkpoint of {own.checkpoint.size} leaves is not cosigned by {witness.name}"
            yield warning(own.log, None, "not_cosigned", words)
