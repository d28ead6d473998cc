"""What the two logs say of each other: leaves about the escrow log, and records released or attested. Pure."""

from array import array
from collections.abc import Iterable, Iterator
from typing import Final

from strongroom.crypto.tlog import EMPTY_ROOT
from strongroom.leaves import ProofLeaf, ResealLeaf, RetirementLeaf
from strongroom_audit.escrow_audit import UNKNOWN, Owner
from strongroom_audit.findings import Finding, error, warning
from strongroom_audit.mentions import Named, Proof

AHEAD_MAX: Final = 4_096
"""Leaves by which a proof may be ahead of the newest checkpoint that was published."""

# A prover goes by published checkpoints: what it proved an hour ago was to be had long before the end of this
# recovery log was. Whoever shows less than that holds the auditor at an old checkpoint.
AHEAD_SECONDS: Final = 3_600
"""For how long a proof may be ahead of the escrow log that is shown, by the times of the recovery log."""


def proofs(
    found: Iterable[Proof], counts: "array[int]", roots: dict[int, bytes], *, newest: int
) -> Iterator[Finding]:
    """Give what is wrong with leaves about the escrow log: their tree, and how many records they account for.

    `newest`: the time of the newest leaf of the recovery log, in seconds.
    """
    for index, leaf in found:
        what = _what(leaf)
        if leaf.size > len(counts):
            words = f"{what} under a tree of {leaf.size} leaves, and the escrow log has {len(counts)}"
            # The prover may be ahead of the checkpoints that are published; the next audit can tell. No log at all
            # is what whoever deletes the published checkpoint shows.
            is_near = bool(counts) and leaf.size <= len(counts) + AHEAD_MAX
            make = warning if is_near and leaf.time >= newest - AHEAD_SECONDS else error
            yield make("recovery", index, f"{leaf.type}_beyond", words)
            continue
        root = roots.get(leaf.size, EMPTY_ROOT if leaf.size == 0 else None)
        if root != bytes.fromhex(leaf.root):
            words = f"{what} under a root that the escrow log's tree of {leaf.size} leaves does not have"
            yield error("recovery", index, f"{leaf.type}_root", words)
        if not isinstance(leaf, RetirementLeaf):
            yield from _counted(index, leaf, what, counts[leaf.first : leaf.first + leaf.count])


def _what(leaf: ProofLeaf | ResealLeaf | RetirementLeaf) -> str:
    if isinstance(leaf, RetirementLeaf):
        return f"a retirement of sealing key {leaf.kid}"
    noun = "a proof" if isinstance(leaf, ProofLeaf) else "sealing again"
    return f"{noun} of escrow leaves {leaf.first} to {leaf.first + leaf.count - 1}"


def _counted(index: int, leaf: ProofLeaf | ResealLeaf, what: str, there: "array[int]") -> Iterator[Finding]:
    """Compare how many records a leaf accounts for with how many each of these places has."""
    if isinstance(leaf, ResealLeaf):
        # Some were sealed to that key before.
        if UNKNOWN not in there and leaf.records > sum(there):
            words = f"{what}: {leaf.records} are said to have been, of {sum(there)} records"
            yield error("recovery", index, "reseal_count", words)
        return
    whole = {each.index for each in leaf.unprovable if each.record is None}
    named = {(each.index, each.record) for each in leaf.unprovable if each.record is not None}
    for place in whole:
        there[place - leaf.first] = 0
    if UNKNOWN in there:
        return  # a lost statement, which is found already
    stored, excepted = sum(there), sum(place not in whole for place, _ in named)
    # More may be named than were stored: a false index row of a statement that has no such record.
    if not stored - excepted <= leaf.records <= stored:
        words = f"{what}: {leaf.records} opened and {excepted} are named that did not, of {stored} records"
        yield error("recovery", index, "proof_count", words)


def names(named: Iterable[Named], owners: Iterable[Owner], *, has_lost: bool) -> Iterator[Finding]:
    """Give what is wrong with the records that releases and attestations name: whose they are, and their name."""
    by_record: dict[str, list[Owner]] = {}
    for owner in owners:
        by_record.setdefault(owner.record, []).append(owner)
    for each in named:
        found = by_record.get(each.record, [])
        if any(owner.principal == each.principal and each.name in (None, owner.name) for owner in found):
            continue
        if not found:
            lost = " (statements of the escrow log are lost)" if has_lost else ""
            words = f"{each.what} a record that no statement of the escrow log holds{lost}"
            yield error("recovery", each.leaf, "record_unknown", words, id=each.record)
            continue
        other = found[0]
        whose = f" named {each.name!r}" if each.name else ""
        words = (
            f"{each.what} as a record{whose} of {each.principal}, and it is one of {other.principal}"
            f" named {other.name!r}, by escrow leaf {other.leaf}"
        )
        yield error("recovery", each.leaf, "record_not_theirs", words, id=each.record)
