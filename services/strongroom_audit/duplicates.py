"""What may stand at one place of the escrow log alone, and stands at two. Pure."""

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from strongroom_audit.findings import Finding, error


class WrappedKey(NamedTuple):
    """Who escrowed which wrapped key (digest in hex, SPEC 4.6), by which leaf and record."""

    digest: str
    principal: str
    leaf: int
    record: str


class FirstEscrows:
    """Finds wrapped keys that a second principal escrowed, which the escrow worker never takes (SPEC 4.6)."""

    def __init__(self) -> None:
        """Know of none yet."""
        self._first: dict[str, WrappedKey] = {}

    def take(self, wrapped: list[WrappedKey]) -> Iterator[Finding]:
        """Take them in the order of the log; give an error for each that another principal escrowed before."""
        for each in wrapped:
            first = self._first.setdefault(each.digest, each)
            if first.principal != each.principal:
                words = f"{each.principal} escrowed a wrapped key that was {first.principal}'s by leaf {first.leaf}"
                yield error("escrow", each.leaf, "wrapped_copy", words, id=each.record)


class Distinct:
    """Finds ids that stand at two places of a log, with 24 bytes for each in memory."""

    def __init__(self, what: str, code: str) -> None:
        """Look for the same `what` at two places; `code` of the findings."""
        self._what = what
        self._code = code
        self._buckets: list[bytearray] = [bytearray() for _ in range(256)]

    def add(self, packed: bytes | bytearray) -> None:
        """Take ids and places, 24 bytes each."""
        for at in range(0, len(packed), 24):
            self._buckets[packed[at + 15]] += packed[at : at + 24]

    def findings(self) -> Iterator[Finding]:
        """Give an error for each id that is there a second time, at the later place."""
        for bucket in self._buckets:
            rows = sorted(bytes(bucket[at : at + 24]) for at in range(0, len(bucket), 24))
            for one, other in pairwise(rows):
                if one[:16] == other[:16]:
                    text = one[:16].hex()
                    id_ = "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
                    first, second = int.from_bytes(one[16:], "big"), int.from_bytes(other[16:], "big")
                    yield error(
                        "escrow", second, self._code, f"the {self._what} is at leaf {first} already", id=id_
                    )
