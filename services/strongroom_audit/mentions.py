"""What leaves of the recovery log say of the escrow log, to be held against it once both were read. Pure."""

from typing import NamedTuple

from strongroom.leaves import ProofLeaf, ResealLeaf, RetirementLeaf


class Named(NamedTuple):
    """A record that a leaf of the recovery log speaks of, whose it has to be, and under which name (None: any)."""

    leaf: int
    record: str
    principal: str
    name: str | None
    what: str


class Proof(NamedTuple):
    """A leaf that speaks of a tree of the escrow log, and its index."""

    place: int
    leaf: ProofLeaf | ResealLeaf | RetirementLeaf
