"""Sealing the blobs of a range of the escrow log again, to another sealing key (SPEC 7.7). Pure.

It believes no more than the prover does, by the prover's own code: the leaf under the checkpoint, the statement up
to the root key, the index row, the blob in its place, the fingerprint. It takes long: call `reseal` in a thread.

Key material exists inside `_sealed`, and what it calls, and nowhere else.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from strongroom.blobs import BlobContext, seal_again
from strongroom.crypto.keyring import Keyring
from strongroom.crypto.notes import Checkpoint
from strongroom.errors import BlobInvalid, FingerprintMismatch, KeyUnknown, ProofInvalid, RecordConflict
from strongroom.leaves import ResealLeaf
from strongroom.mandates import SealingKey
from strongroom.messages import Escrow, Record
from strongroom.registry import Registry
from strongroom_recovery.key_blobs import KeyBlob, opened
from strongroom_recovery.prover.proving import (
    IndexRow,
    Stretch,
    Trouble,
    false_leaves,
    misplaced,
    said_principal,
    verified_at,
)
from strongroom_recovery.records import VerifiedStatement


class NewBlob(NamedTuple):
    """A record's key, sealed to the new sealing key. place: index of the escrow leaf with its statement."""

    place: int
    record: str
    principal: str
    blob: bytes


@dataclass(slots=True)
class Resealing:
    """What came of escrow leaves `first` up to `end`, under the tree of `head`.

    blobs: in order of place. troubles: what was left, as it was. looked: records, also those that were sealed to
    `target` before.
    """

    first: int
    end: int
    head: Checkpoint
    target: SealingKey
    blobs: list[NewBlob] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    looked: int = 0

    def withdraw(self, others: Collection[str], outdated: Collection[str]) -> None:
        """Take note of records whose blob was not stored, because they have one to this key already.

        Those in `outdated` were sealed to another key after that, and are left; the others were done meanwhile.
        """
        for each in self.blobs:
            if each.record in outdated:
                why = f"it was sealed to {self.target.kid} before, and to another key since: add a new key"
                self.troubles.append(Trouble(each.place, each.record, each.principal, RecordConflict.code, why))
        self.blobs = [each for each in self.blobs if each.record not in others]

    def leaf(self, now: int) -> bytes:
        """Return the leaf of the recovery log that says so; `now` in seconds."""
        return ResealLeaf(
            time=now,
            first=self.first,
            count=self.end - self.first,
            size=self.head.size,
            root=self.head.root.hex(),
            kid=self.target.kid,
            records=len(self.blobs),
            left=len(self.troubles),
            digest=digest((each.record, each.blob) for each in self.blobs),
        ).to_bytes()


def digest(blobs: Iterable[tuple[str, bytes]]) -> str:
    """Return the digest of a `reseal` leaf, in hex: over record ids and new blobs, in order of place."""
    found = hashlib.sha256()
    for record, blob in blobs:
        found.update(record.encode() + hashlib.sha256(blob).digest())
    return found.hexdigest()


def reseal(
    stretch: Stretch,
    registry: Registry,
    keyring: Keyring,
    target: SealingKey,
    is_enough: Callable[[], bool] = lambda: False,
) -> Resealing:
    """Seal every record of a stretch to `target` whose newest blob is sealed to another key.

    The end comes earlier where `is_enough` says so; at least one leaf is gone through. Arguments as for
    `proving.examine`. Raises what a key device raises when it does not answer.
    """
    done = Resealing(stretch.first, stretch.first, stretch.head, target)
    false = false_leaves(stretch) or {}
    for index in range(stretch.first, stretch.end):
        try:
            verified = verified_at(stretch, index, registry, false)
        except ProofInvalid as error:
            principal = said_principal(stretch, index)
            done.troubles.append(Trouble(index, None, principal, error.code, error.message))
        else:
            _reseal_statement(stretch, verified, keyring, done)
        done.end = index + 1
        if is_enough():
            break
    return done


def given_up(index: int, head: Checkpoint, target: SealingKey, reason: str) -> Resealing:
    """Return what comes of a leaf about which nothing can be read: its statement is left."""
    trouble = Trouble(index, None, None, ProofInvalid.code, reason)
    return Resealing(index, index + 1, head, target, troubles=[trouble])


def _reseal_statement(stretch: Stretch, verified: VerifiedStatement, keyring: Keyring, done: Resealing) -> None:
    escrow, index, target = verified.escrow, verified.log_index, done.target
    rows: dict[str, list[IndexRow]] = {}
    for row in stretch.rows.get(index, ()):
        rows.setdefault(row.id, []).append(row)
    for position, record in enumerate(escrow.records):
        done.looked += 1
        newest = stretch.resealed.get(record.id)
        if (newest or record).kid == target.kid:
            continue
        found = misplaced(escrow, position, record, rows.get(record.id, [])) or _sealed(
            escrow, record, newest, keyring, target
        )
        if isinstance(found, bytes):
            done.blobs.append(NewBlob(index, record.id, escrow.principal, found))
        else:
            done.troubles.append(Trouble(index, record.id, escrow.principal, *found))


def _sealed(
    escrow: Escrow, record: Record, newest: KeyBlob | None, keyring: Keyring, target: SealingKey
) -> bytes | tuple[str, str]:
    """Return a record's key, sealed to `target` in the same place, or code and reason where it does not open."""
    place = BlobContext(escrow.authority, escrow.principal, record.id, target.kid, target.suite)
    try:
        key = opened(escrow.authority, escrow.principal, record, keyring, (newest,) if newest else ())
        return seal_again(key, place, target.public_key)
    except (BlobInvalid, FingerprintMismatch, KeyUnknown) as error:
        return error.code, error.message
