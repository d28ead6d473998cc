"""Whether a sealing key may be retired, by the roster and the folded recovery log, by no row (SPEC 7.7). Pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from strongroom.mandates import SealingKeyState
from strongroom.roster import Roster
from strongroom_recovery.ledger import Ledger
from strongroom_recovery.proofs import Finding
from strongroom_recovery.prover.pacing import BLOCK_LEAVES


@dataclass(frozen=True, slots=True)
class Verdict:
    """What stands in the way of retiring the sealing key `kid`, by the log; nothing, if `is_clear`.

    state: of the key in the roster in force; None where it is not named any more. size: leaves of the escrow log.
    opened: records that it opened when they were last looked at, and that were not sealed again since (at most).
    unprovable: findings that nobody gives up, whichever key those records need. unseen: ranges of escrow leaves
    that were not looked at, or not since their blobs were sealed again, or in a leaf that does not say by which
    keys. new: how many leaves were never looked at. given_up: how many findings are given up. strangers: what was
    to be given up, and is none.
    """

    kid: str
    state: SealingKeyState | None
    size: int
    opened: int
    unprovable: Sequence[Finding]
    unseen: Sequence[tuple[int, int]]
    new: int
    given_up: int = 0
    strangers: Sequence[str] = ()

    @property
    def is_in_use(self) -> bool:
        """Whether new blobs may still be sealed to it."""
        return self.state in {SealingKeyState.ACTIVE, SealingKeyState.ACCEPTED}

    @property
    def unseen_leaves(self) -> int:
        """The number of escrow leaves in `unseen`."""
        return sum(end - first for first, end in self.unseen)

    @property
    def is_clear(self) -> bool:
        """Whether it may be retired."""
        return not (self.is_in_use or self.opened or self.unprovable or self.unseen or self.strangers)

    @property
    def awaits_proof(self) -> bool:
        """Whether nothing but looks of the prover is missing."""
        return bool(self.unseen) and not (self.is_in_use or self.opened or self.unprovable)

    @property
    def awaits_new_only(self) -> bool:
        """Whether nothing is missing but a look at some of the newest keys: a fleet never stops sending."""
        return self.awaits_proof and self.unseen_leaves == self.new <= BLOCK_LEAVES

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "kid": self.kid,
            "state": self.state.value if self.state else None,
            "opened": self.opened,
            "unprovable": len(self.unprovable),
            "given_up": self.given_up,
            "unseen_leaves": self.unseen_leaves,
        }


def name_of(finding: Finding) -> str:
    """Return how a finding is named by whoever gives it up: the record's id, or `leaf:N` for a whole statement."""
    return finding.record or f"leaf:{finding.index}"


def judge(kid: str, roster: Roster, ledger: Ledger, size: int, give_up: Collection[str] = ()) -> Verdict:
    """Judge a sealing key.

    Arguments: `size`, of the escrow log's verified head; `give_up`, findings that shall not keep the key, by
    `name_of`.
    """
    proofs = ledger.proofs
    findings = list(proofs.findings())
    named, all_names = set(give_up), {name_of(each) for each in findings}
    unprovable = [each for each in findings if name_of(each) not in named]
    gaps = proofs.gaps(size)
    unseen = [*gaps, *((first, min(end, size)) for first, end in proofs.resealed() if first < size)]
    opened = 0
    for look in proofs.looks():
        if look.kids is None:
            unseen.append((look.first, look.end))
        elif proofs.resealed_by(look.first, look.end) < 0:
            opened += dict(look.kids).get(kid, 0)
    return Verdict(
        kid=kid,
        state=next((key.state for key in roster.body.sealing_keys if key.kid == kid), None),
        size=size,
        opened=opened,
        unprovable=unprovable,
        unseen=_merged(unseen),
        new=sum(end - first for first, end in gaps),
        given_up=len(findings) - len(unprovable),
        strangers=sorted(named - all_names),
    )


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if merged and first <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((first, end))
    return merged
