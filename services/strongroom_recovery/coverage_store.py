"""What coverage reads from the index of records, which is believed for which records there are (SPEC 5.14)."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final, TypeVar
from uuid import UUID

from strongroom.database import Record, Transaction, load_queries
from strongroom.errors import PermanentError
from strongroom.leaves import EscrowLeaf, parse_leaf
from strongroom.mandates import ExpectedLabel
from strongroom_recovery.gaps import Held, Place, Ranges
from strongroom_recovery.proofs import Finding

_SQL = load_queries("coverage")

_AT_ONCE: Final = 5_000  # looked up by one query, so that none takes long

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Holdings:
    """What some principals hold, of those that hold anything.

    plain: the many that are alive and have of each name a newest record that is clean; how many. others: the rest.
    short: the names of those in either who do not have every name that is expected.
    """

    plain: dict[str, int]
    others: dict[str, Held]
    short: list[str]


async def held(
    tx: Transaction,
    principals: Sequence[str],
    clean: Ranges,
    expected: Collection[str],
    *,
    alive: AbstractSet[str],
    since: int,
) -> Holdings:
    """Return what these principals hold, which are some and follow each other in order of name.

    Arguments: `clean`, ranges of escrow leaves all of whose records are proven; `expected`, names; alive are those
    in `alive`, and who has a record that was issued since `since` (seconds).
    """
    plain: dict[str, int] = {}
    others: dict[str, tuple[int, int]] = {}
    odd: list[str] = []
    short: list[str] = []
    every, ranges, among = len(expected), _bounds(clean), frozenset(principals)
    for row in await tx.fetch(_SQL["held"], principals[0], principals[-1], *ranges, list(expected)):
        principal, names, count, issued_at, named = row
        if principal not in among:
            continue  # nobody speaks for it any more
        if named < every:
            short.append(principal)
        if names == count and (issued_at >= since or principal in alive):
            plain[principal] = count
            continue
        others[principal] = count, issued_at
        if names > count:
            odd.append(principal)
    places: dict[str, list[Place]] = {}
    for row in await tx.fetch(_SQL["newest"], odd, *ranges) if odd else ():
        places.setdefault(row["principal"], []).append(_place(row))
    return Holdings(
        plain, {name: Held(*figures, tuple(places.get(name, ()))) for name, figures in others.items()}, short
    )


async def names(tx: Transaction, principals: Sequence[str], expected: Collection[str]) -> dict[str, set[str]]:
    """Return which of these names each of these principals has, for those that have any."""
    found: dict[str, set[str]] = {}
    for row in await tx.fetch(_SQL["names"], list(principals), list(expected)) if principals else ():
        found.setdefault(row["principal"], set()).add(row["name"])
    return found


async def by_id(tx: Transaction, ids: Iterable[str], clean: Ranges) -> list[Place]:
    """Return those of these records that the index names."""
    found: list[Place] = []
    for some in _at_once(list(ids)):
        found += map(_place, await tx.fetch(_SQL["by_id"], [UUID(id_) for id_ in some], *_bounds(clean)))
    return found


async def unclean(tx: Transaction, principals: Sequence[str], clean: Ranges) -> list[Place]:
    """Return the records of these principals whose statements are outside of these ranges of the escrow log."""
    return [_place(row) for row in await tx.fetch(_SQL["unclean"], list(principals), *_bounds(clean))]


def _place(row: Record) -> Place:
    return Place(
        row["principal"],
        row["name"],
        str(row["id"]),
        row["leaf_index"],
        is_newest=row["is_newest"],
        is_clean=row["is_clean"],
    )


async def by_finding(
    tx: Transaction, findings: Iterable[Finding]
) -> tuple[list[tuple[str, str]], dict[str, list[Finding]]]:
    """Return (principal, id) of the records that findings are about, and the findings about lost ones by principal.

    Lost is what the index does not name in its place, or gives to another than its owner. Whose it was is what the
    escrow log's leaf says, or else the row of the statement; where both are gone nobody knows, and the finding is
    left out.
    """
    records: list[tuple[str, str]] = []
    lost: dict[str, list[Finding]] = {}
    for some in _at_once(list(findings)):
        about = {(each.index, each.record): each for each in some}
        ids = [UUID(each.record) if each.record else None for each in some]
        for row in await tx.fetch(_SQL["by_leaf"], [each.index for each in some], ids):
            owner = _owner(row["leaf"]) or row["owner"]
            # A row that gives the record to somebody else does not take the loss from its owner.
            if row["id"] is not None and owner in (None, row["principal"]):
                records.append((row["principal"], str(row["id"])))
            elif owner is not None:
                finding = about[row["leaf_index"], str(row["record"]) if row["record"] else None]
                lost.setdefault(owner, []).append(finding)
    return records, lost


def _owner(leaf: bytes | None) -> str | None:
    if leaf is None:
        return None
    try:
        entry = parse_leaf(leaf)
    except PermanentError:
        return None
    return entry.principal if isinstance(entry, EscrowLeaf) else None


async def superseding(tx: Transaction, ids: Sequence[str]) -> list[tuple[str, str, str, int]]:
    """Return what supersedes any of these records: (id, id of the newer one, its principal, its leaf's index)."""
    found: list[tuple[str, str, str, int]] = []
    for some in _at_once(list(ids)):
        rows = await tx.fetch(_SQL["superseding"], [UUID(id_) for id_ in some])
        found += ((str(row["id"]), str(row["by"]), row["principal"], row["leaf_index"]) for row in rows)
    return found


async def stored_at(tx: Transaction, indexes: Collection[int]) -> Mapping[int, int]:
    """Return when the statements at these places of the escrow log were stored (seconds), if they exist."""
    found: dict[int, int] = {}
    for some in _at_once(list(indexes)):
        found |= {row["leaf_index"]: row["stored_at"] for row in await tx.fetch(_SQL["stored_at"], some)}
    return found


async def labelled(tx: Transaction, principals: Sequence[str], label: ExpectedLabel) -> set[str]:
    """Return those of these principals that have a record with this label."""
    rows = await tx.fetch(_SQL["labelled"], list(principals), label.name, label.value)
    return {row["principal"] for row in rows}


def _bounds(ranges: Ranges) -> tuple[list[int], list[int]]:
    return [first for first, _ in ranges], [end for _, end in ranges]


def _at_once(wanted: list[T]) -> Iterator[list[T]]:
    return (wanted[first : first + _AT_ONCE] for first in range(0, len(wanted), _AT_ONCE))
