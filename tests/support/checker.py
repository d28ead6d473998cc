"""The checker: after whatever happened to a site, does the promise hold?

*Stored.* Every receipt that a home holds verifies, its leaf is in the log and its row is in the database. Every key
that was handed over is in a spool. No id has two rows, nothing is stored that was not sent, and what is stored is
byte for byte what was sent. The log is what its checkpoints say, and its leaves are about the stored statements.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.support.site import Site

from strongroom import receipts
from strongroom.checkpoint_file import working_origin
from strongroom.crypto import tlog
from strongroom.crypto.notes import verify_checkpoint
from strongroom.crypto.tlog import Frontier
from strongroom.fields import parse_body
from strongroom.leaves import (
    ApprovalLeaf,
    DenialLeaf,
    EnrolmentLeaf,
    EscrowLeaf,
    InvitationLeaf,
    ReleaseLeaf,
    RequestLeaf,
    ResealLeaf,
    RevocationLeaf,
    RosterLeaf,
    parse_leaf,
)
from strongroom.mandates import LogKey
from strongroom.messages import Escrow
from strongroom.statements import parse_envelope


@dataclass(frozen=True, slots=True)
class Spooled:
    """One statement as its home has it."""

    id: str
    envelope: bytes
    digest: bytes
    state: str
    leaf: bytes | None
    proof: str | None
    records: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """One statement as the database has it."""

    digest: bytes
    envelope: bytes
    principal: str
    leaf_index: int


@dataclass(frozen=True, slots=True)
class Report:
    """What was found: statements by their state in the homes, rows, leaves, and every broken promise by name."""

    states: Mapping[str, int]
    rows: int
    leaves: int
    records: int
    lost: tuple[str, ...]
    duplicate: tuple[str, ...]
    unexpected: tuple[str, ...]

    def assert_kept(self) -> None:
        """Fail when anything was lost, doubled or made up."""
        assert (self.lost, self.duplicate, self.unexpected) == ((), (), ()), self


def spool(home: Path) -> list[Spooled]:
    """Read the spool of a home as it lies on disk, oldest statement first."""
    with closing(sqlite3.connect(f"file:{home / 'state.db'}?mode=ro", uri=True)) as connection:
        records: dict[str, list[str]] = {}
        for record, statement in connection.execute("SELECT id, statement FROM records"):
            records.setdefault(statement, []).append(record)
        return [
            Spooled(id_, envelope, digest, state, leaf, proof, tuple(sorted(records[id_])))
            for id_, envelope, digest, state, leaf, proof in connection.execute(
                "SELECT id, envelope, digest, state, leaf, proof FROM statements ORDER BY position"
            )
        ]


async def check(site: Site, handed_over: Iterable[str] = ()) -> Report:
    """Check a site with all its homes.

    Arguments: `handed_over` are the ids of records for which `escrow` returned.
    """
    spooled = [each for home in site.homes for each in spool(home)]
    rows = await site.rows("SELECT id, digest, envelope, principal, leaf_index FROM escrow_statements")
    stored = {str(r["id"]): Stored(r["digest"], r["envelope"], r["principal"], r["leaf_index"]) for r in rows}
    index = await site.rows("SELECT id, statement_id FROM records")
    leaves = [row["leaf"] for row in await site.rows("SELECT index, leaf FROM escrow_leaves ORDER BY index")]
    roots = await _verified_roots(site, "escrow", leaves)
    kept = {record for each in spooled for record in each.records}
    lost = [
        *_lost_receipts(site, spooled, stored, leaves, roots),
        *(f"record {id_} was handed over and is in no spool" for id_ in set(handed_over) - kept),
    ]
    duplicate = [
        *(f"row {id_}" for id_, count in Counter(str(row["id"]) for row in rows).items() if count > 1),
        *(f"record {id_}" for id_, count in Counter(str(row["id"]) for row in index).items() if count > 1),
        *(f"leaf of {id_}" for id_, count in _leaf_ids(leaves).items() if count > 1),
    ]
    unexpected = [
        *_unexpected(spooled, stored, leaves),
        *_unexpected_index(stored, {str(row["id"]): str(row["statement_id"]) for row in index}),
    ]
    return Report(
        states=Counter(each.state for each in spooled),
        rows=len(rows),
        leaves=len(leaves),
        records=len(index),
        lost=tuple(lost),
        duplicate=tuple(duplicate),
        unexpected=tuple(unexpected),
    )


TrustLeaf = RosterLeaf | InvitationLeaf | EnrolmentLeaf | RevocationLeaf | ApprovalLeaf | DenialLeaf


async def check_recovery(site: Site) -> None:
    """Fail unless the recovery log is what its checkpoints say, and answers, new blobs and leaves pair off."""
    leaves = [row["leaf"] for row in await site.rows("SELECT leaf FROM recovery_leaves ORDER BY index")]
    await _verified_roots(site, "recovery", leaves)
    parsed = dict(enumerate(map(parse_leaf, leaves)))
    trusted = await site.rows("SELECT digest, leaf_index FROM trust_statements")
    asked = await site.rows("SELECT id, digest, leaf_index FROM requests")
    released = await site.rows("SELECT request_id, envelope, leaf_index FROM releases")
    assert {row["leaf_index"]: row["digest"].hex() for row in trusted} == {
        index: leaf.digest for index, leaf in parsed.items() if isinstance(leaf, TrustLeaf)
    }
    assert {row["leaf_index"]: (str(row["id"]), row["digest"].hex()) for row in asked} == {
        index: (leaf.id, leaf.digest) for index, leaf in parsed.items() if isinstance(leaf, RequestLeaf)
    }
    logged = {index: (leaf.id, leaf.release) for index, leaf in parsed.items() if isinstance(leaf, ReleaseLeaf)}
    kept = {
        row["leaf_index"]: (str(row["request_id"]), parse_envelope(row["envelope"]).digest.hex())
        for row in released
    }
    assert kept.items() <= logged.items()
    # A release that was logged and not kept was followed by one that was.
    assert {id_ for id_, _ in kept.values()} == {id_ for id_, _ in logged.values()}
    resealed = await site.rows("SELECT leaf_index, kid, count(*) FROM resealed_blobs GROUP BY leaf_index, kid")
    assert {(row["leaf_index"], row["kid"], row["count"]) for row in resealed} == {
        (index, leaf.kid, leaf.records)
        for index, leaf in parsed.items()
        if isinstance(leaf, ResealLeaf) and leaf.records
    }


async def _verified_roots(site: Site, log: str, leaves: list[bytes]) -> dict[int, bytes]:
    """Return the root of the log at every size, all leaves hashed again; every checkpoint must be one of them."""
    frontier, roots = Frontier.empty(), {}
    for leaf in leaves:
        frontier, _ = tlog.append(frontier, [leaf])
        roots[frontier.size] = frontier.root()
    key: LogKey = getattr(site.roster.body.logs, log)
    checkpoints = await site.rows(f"SELECT size, note FROM {log}_checkpoints ORDER BY size")  # noqa: S608 - one of two
    for row in checkpoints:
        checkpoint = verify_checkpoint(row["note"], working_origin(key.origin), key.public_key)
        assert (checkpoint.size, checkpoint.root) == (row["size"], roots[row["size"]])
    assert max((row["size"] for row in checkpoints), default=0) == len(leaves)
    return roots


def _lost_receipts(
    site: Site,
    spooled: list[Spooled],
    stored: Mapping[str, Stored],
    leaves: list[bytes],
    roots: Mapping[int, bytes],
) -> Iterable[str]:
    """Receipts that the log or the database does not bear out."""
    for each in spooled:
        if each.leaf is None or each.proof is None:
            continue
        document = receipts.Receipt(each.leaf, each.proof).to_document()
        receipt = receipts.verify(document, site.escrow_log.public_key, site.escrow_log.origin)
        row = stored.get(each.id)
        if roots.get(receipt.checkpoint.size) != receipt.checkpoint.root or leaves[receipt.index] != each.leaf:
            yield f"the log does not continue the receipt of {each.id}"
        if row is None or (row.digest, row.leaf_index) != (each.digest, receipt.index):
            yield f"{each.id} has a receipt and no row"


def _unexpected(spooled: list[Spooled], stored: Mapping[str, Stored], leaves: list[bytes]) -> Iterable[str]:
    """Rows and leaves that are not exactly what some home sent."""
    sent = {each.id: each for each in spooled}
    if sorted(row.leaf_index for row in stored.values()) != list(range(len(leaves))):
        yield "rows and leaves do not pair off"
        return
    for id_, row in stored.items():
        leaf = parse_leaf(leaves[row.leaf_index])
        if id_ not in sent:
            yield f"row {id_} was never sent"
        elif row.envelope != sent[id_].envelope or parse_envelope(row.envelope).digest != sent[id_].digest:
            yield f"row {id_} is not what was sent"
        if not isinstance(leaf, EscrowLeaf) or (leaf.id, leaf.digest, leaf.principal) != (
            id_,
            row.digest.hex(),
            row.principal,
        ):
            yield f"leaf {row.leaf_index} is not about row {id_}"


def _unexpected_index(stored: Mapping[str, Stored], index: Mapping[str, str]) -> Iterable[str]:
    """Rows of the records' index that the statements do not bear out, or the other way round."""
    signed = {
        record.id: id_
        for id_, row in stored.items()
        for record in parse_body(parse_envelope(row.envelope), Escrow).records
    }
    if signed != dict(index):
        yield "the records' index is not that of the stored statements"


def _leaf_ids(leaves: list[bytes]) -> Counter[str]:
    parsed = [parse_leaf(leaf) for leaf in leaves]
    return Counter(leaf.id for leaf in parsed if isinstance(leaf, EscrowLeaf))
