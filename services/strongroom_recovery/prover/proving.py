"""What a look at a range of the escrow log finds: which keys can be given back, and which cannot (SPEC 5.16). Pure.

It does for every record what a release would do, and believes no more: the leaf under the checkpoint by the stored
nodes, the statement up to the root key, the index row, the blob in its place, the fingerprint. It takes long: call
`examine` in a thread.

Key material exists inside `_refusal`, and what it calls, and nowhere else.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from strongroom import wrapped
from strongroom.crypto.keyring import Keyring
from strongroom.crypto.notes import Checkpoint
from strongroom.crypto.tlog import (
    Frontier,
    Node,
    frontier_nodes,
    inclusion_proof,
    leaf_hash,
    node_hash,
    verify_inclusion,
)
from strongroom.errors import BlobInvalid, FingerprintMismatch, KeyUnknown, ProofInvalid, StateCorrupt
from strongroom.leaves import ProofLeaf, Unprovable
from strongroom.limits import RECORDS_MAX, SEALING_KEYS_MAX, UNPROVABLE_MAX
from strongroom.messages import Escrow, Record
from strongroom.registry import Registry
from strongroom_recovery.key_blobs import KeyBlob, escrowed, opened_blob
from strongroom_recovery.records import StoredStatement, VerifiedStatement, verify_included

_PROOF_INVALID: Final = ProofInvalid.code
_ID: Final = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_NODES_NAMED_MAX: Final = 16


class IndexRow(NamedTuple):
    """A row of the index of records. Nothing in it is believed.

    labels: as JSON. supersedes: ids, joined by commas. wrapped: digest of the wrapped key in hex, or empty.
    """

    id: str
    statement_id: str
    position: int
    principal: str
    name: str
    issued_at: int
    kid: str
    labels: str
    supersedes: str
    wrapped: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """Escrow leaves `first` up to `end` and all that is stored about them. Nothing but `head` is believed.

    head: a verified checkpoint of the escrow log. leaves: by index, as far as they exist. nodes: the hashes of
    `node_spans`, as far as they exist. statements: by leaf index; a sentence where there is none to be used. rows:
    the index rows that point at a leaf, by its index. resealed: the newest blob of each record that was sealed
    again, by record id.
    """

    first: int
    end: int
    head: Checkpoint
    leaves: Mapping[int, bytes]
    nodes: Mapping[Node, bytes]
    statements: Mapping[int, StoredStatement | str]
    rows: Mapping[int, Sequence[IndexRow]]
    resealed: Mapping[str, KeyBlob] = field(default_factory=dict)

    def newest(self, record: Record) -> KeyBlob:
        """Return the newest key blob of a record (SPEC 5.19)."""
        return self.resealed.get(record.id) or escrowed(record)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something for a person to look at: a record that cannot be given back (None: all of a statement), and why."""

    index: int
    record: str | None
    principal: str | None
    code: str
    reason: str


@dataclass(slots=True)
class Looked:
    """What was found at escrow leaves `first` up to `end`, under the tree of `head`.

    records: opened and matched. kids: by which sealing keys, and how many each. false_nodes: sentences about hashes
    in the database. late: (statement id, principal) of statements whose key was not in force when they were stored.
    """

    first: int
    end: int
    head: Checkpoint
    records: int = 0
    kids: Counter[str] = field(default_factory=Counter)
    unprovable: list[Unprovable] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    false_nodes: list[str] = field(default_factory=list)
    late: list[tuple[str, str]] = field(default_factory=list)

    def leaf(self, now: int) -> bytes:
        """Return the leaf of the recovery log that says so; `now` in seconds."""
        return ProofLeaf(
            time=now,
            first=self.first,
            count=self.end - self.first,
            size=self.head.size,
            root=self.head.root.hex(),
            records=self.records,
            unprovable=self.unprovable,
            kids=self.kids if len(self.kids) <= SEALING_KEYS_MAX else None,
        ).to_bytes()


def node_spans(first: int, end: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Name the nodes that prove each leaf from `first` up to `end` under `size` leaves, and those above them.

    Gives level, lowest and highest index; each span of a level begins with a left child.
    """
    for level in range(size.bit_length()):
        edge = (size >> level) - 1  # the last that is complete
        low, high = (first >> level) & ~1, min(((end - 1) >> level) | 1, edge)
        if low <= high:
            yield level, low, high
        if (size >> level) & 1 and not low <= edge <= high:
            yield level, edge, edge


def examine(
    stretch: Stretch, registry: Registry, keyring: Keyring, is_enough: Callable[[], bool] = lambda: False
) -> Looked:
    """Look at every statement of a stretch, and say what was found; the end may come earlier than asked.

    It does where `is_enough` says so, and where a proof leaf is full; at least one leaf is looked at.

    Arguments: enrolments of the principals that the statements' rows name, former ones too, have been admitted to
    `registry`, which nobody changes meanwhile. Raises what a key device raises when it does not answer.
    """
    looked = Looked(stretch.first, stretch.first, stretch.head)
    false = false_leaves(stretch)
    if false is not None:
        looked.false_nodes += _false_nodes(stretch)
    for index in range(stretch.first, stretch.end):
        found = _Statement(stretch, index, registry, keyring, false or {})
        if len(looked.unprovable) + len(found.unprovable) > UNPROVABLE_MAX:
            break
        looked.end = index + 1
        looked.records += found.records
        looked.kids.update(found.kids)
        looked.unprovable += found.unprovable
        looked.troubles += found.troubles
        looked.late += found.late
        if is_enough():
            break
    return looked


def condemned(index: int, head: Checkpoint, reason: str) -> Looked:
    """Return what was found at a leaf about which nothing can be read: its whole statement is unprovable."""
    looked = Looked(index, index + 1, head)
    looked.unprovable = [Unprovable(index=index, record=None, code=_PROOF_INVALID)]
    looked.troubles = [Trouble(index, None, None, _PROOF_INVALID, reason)]
    return looked


class _Statement:
    """What was found at one leaf; the members as in Looked."""

    def __init__(
        self, stretch: Stretch, index: int, registry: Registry, keyring: Keyring, false: Mapping[int, str]
    ) -> None:
        self.records = 0
        self.kids: Counter[str] = Counter()
        self.unprovable: list[Unprovable] = []
        self.troubles: list[Trouble] = []
        self.late: list[tuple[str, str]] = []
        self._index = index
        self._rows = stretch.rows.get(index, ())
        try:
            verified = verified_at(stretch, index, registry, false)
        except ProofInvalid as error:
            self._condemn(error.message, said_principal(stretch, index))
        else:
            self._open(stretch, verified, keyring)

    def _condemn(self, reason: str, principal: str | None) -> None:
        """Give the whole statement up: nobody vouches for which records it has, so none of them is named alone."""
        self.records = 0
        self.kids.clear()
        self.unprovable = [Unprovable(index=self._index, record=None, code=_PROOF_INVALID)]
        named: list[str | None] = [row.id for row in self._rows[:RECORDS_MAX]]
        self.troubles = [Trouble(self._index, id_, principal, _PROOF_INVALID, reason) for id_ in named or [None]]

    def _open(self, stretch: Stretch, verified: VerifiedStatement, keyring: Keyring) -> None:
        escrow = verified.escrow
        if not verified.in_force:
            self.late.append((escrow.id, escrow.principal))
        rows: dict[str, list[IndexRow]] = {}
        for row in self._rows:
            rows.setdefault(row.id, []).append(row)
        for position, record in enumerate(escrow.records):
            blob = stretch.newest(record)
            refusal = misplaced(escrow, position, record, rows.pop(record.id, []))
            refusal = refusal or _refusal(escrow.authority, escrow.principal, record, blob, keyring)
            if refusal is None:
                self.records += 1
                self.kids[blob.kid] += 1
            else:
                self._name(record.id, escrow.principal, *refusal)
        strangers = rows.keys()
        if len(self.unprovable) + len(strangers) > UNPROVABLE_MAX or not all(map(_ID.fullmatch, strangers)):
            self._condemn("the database's index has more false rows here than can be named", escrow.principal)
            return
        for stranger in strangers:
            reason = "the database's index gives this record to a statement that does not have it"
            self._name(stranger, escrow.principal, _PROOF_INVALID, reason)

    def _name(self, record: str, principal: str, code: str, reason: str) -> None:
        self.unprovable.append(Unprovable(index=self._index, record=record, code=code))
        self.troubles.append(Trouble(self._index, record, principal, code, reason))


def verified_at(stretch: Stretch, index: int, registry: Registry, false: Mapping[int, str]) -> VerifiedStatement:
    """Return the statement of a leaf, verified up to the root key; `false` as `false_leaves` gives it.

    Raises ProofInvalid for one that is missing or not what was accepted.
    """
    stored = stretch.statements.get(index, "its statement is missing")
    if index in false:
        raise ProofInvalid(false[index])
    if isinstance(stored, str):
        raise ProofInvalid(stored)
    return verify_included(stored, stretch.leaves[index], registry)


def said_principal(stretch: Stretch, index: int) -> str | None:
    """Return whose the statement of a leaf is, as far as the database says; that is not believed."""
    stored, rows = stretch.statements.get(index), stretch.rows.get(index, ())
    if isinstance(stored, StoredStatement):
        return stored.principal
    return rows[0].principal if rows else None


def misplaced(escrow: Escrow, position: int, record: Record, rows: Sequence[IndexRow]) -> tuple[str, str] | None:
    """Return code and reason where the index does not have a record as it was signed."""
    if not rows:
        return "not_found", "the database's index does not have it"
    row = rows[0]
    signed = (
        *(record.id, escrow.id, position, escrow.principal, record.name, escrow.issued_at, record.kid),
        *(row.labels, ",".join(record.supersedes), record.wrapping.digest if record.wrapping else ""),
    )
    if len(rows) > 1 or row != signed or not _is_same(row.labels, record.labels):
        return _PROOF_INVALID, "the database's index contradicts the signed escrow statement"
    return None


def _is_same(text: str, labels: Mapping[str, str]) -> bool:
    try:
        return bool(_parsed(text) == labels)
    except (ValueError, RecursionError):
        return False


@lru_cache(maxsize=64)  # hosts of a fleet say much the same about their keys
def _parsed(text: str) -> object:
    return json.loads(text)


def _refusal(
    authority: str, principal: str, record: Record, blob: KeyBlob, keyring: Keyring
) -> tuple[str, str] | None:
    """Return code and reason where a key cannot be given back; None where it opens and is the one signed for."""
    try:
        found = opened_blob(authority, principal, record, blob, keyring)
        if record.wrapping is not None:
            wrapped.check(record.wrapping, found.material)
    except (BlobInvalid, FingerprintMismatch, KeyUnknown) as error:
        return error.code, error.message
    return None


# ---- the log -------------------------------------------------------------------------------------------------


def false_leaves(stretch: Stretch) -> dict[int, str] | None:
    """Return, by index, which leaves cannot be proven by what is stored, and why; None where all of it is whole."""
    if _is_whole(stretch):
        return None
    found = {}
    head, nodes = stretch.head, stretch.nodes
    for index in range(stretch.first, stretch.end):
        leaf = stretch.leaves.get(index)
        if leaf is None:
            found[index] = f"leaf {index} of the escrow log is missing"
            continue
        try:
            proof = inclusion_proof(index, head.size, nodes)
            verify_inclusion(leaf_hash(leaf), index, head.size, proof, head.root)
        except ProofInvalid:
            found[index] = f"leaf {index} of the escrow log, or a node above it, is not the one that was signed"
        except StateCorrupt as error:
            found[index] = f"leaf {index} of the escrow log cannot be proven: {error.message}"
    return found


def _is_whole(stretch: Stretch) -> bool:
    """Say whether all leaves and all nodes are there, and every one leads to the root."""
    nodes, head = stretch.nodes, stretch.head
    try:
        edge = Frontier(head.size, tuple(nodes[node] for node in frontier_nodes(head.size)))
        return (
            edge.root() == head.root
            and all(
                nodes[Node(0, index)] == leaf_hash(stretch.leaves[index])
                for index in range(stretch.first, stretch.end)
            )
            and not any(_false_parents(stretch))
        )
    except (KeyError, StateCorrupt):
        return False


def _false_parents(stretch: Stretch) -> Iterator[Node]:
    """Give the nodes that are not the hash of the two below them; KeyError where one of the three is missing."""
    nodes = stretch.nodes
    for parent, left, right in _families(stretch):
        if nodes[parent] != node_hash(nodes[left], nodes[right]):
            yield parent


def _families(stretch: Stretch) -> Iterator[tuple[Node, Node, Node]]:
    """Give every node with the two below it."""
    for level, low, high in node_spans(stretch.first, stretch.end, stretch.head.size):
        for index in range(low, high, 2):
            yield Node(level + 1, index // 2), Node(level, index), Node(level, index + 1)


def _false_nodes(stretch: Stretch) -> list[str]:
    """Name, in sentences, the first of the stored hashes that are missing or contradict each other."""
    nodes, size = stretch.nodes, stretch.head.size
    found = [
        f"node {index} of level {level} is missing"
        for level, low, high in node_spans(stretch.first, stretch.end, size)
        for index in range(low, high + 1)
        if Node(level, index) not in nodes
    ]
    found += [
        f"node {index} of level 0 is not the hash of leaf {index}"
        for index in range(stretch.first, stretch.end)
        if index in stretch.leaves and nodes.get(Node(0, index)) not in (None, leaf_hash(stretch.leaves[index]))
    ]
    found += [
        f"node {parent.index} of level {parent.level} is not the hash of the two below it"
        for parent, left, right in _families(stretch)
        if nodes.keys() >= {parent, left, right} and nodes[parent] != node_hash(nodes[left], nodes[right])
    ]
    return found[:_NODES_NAMED_MAX]
