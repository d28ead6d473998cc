"""Whether an unprovable record that is to be given up opens after all, by the very key that is to be retired.

The prover looks at the newest blob alone, and at the index: one false row makes a good record unprovable. Whoever
writes it must not talk anybody into giving up the key that opens the signed blob underneath.
"""

import asyncio
from collections.abc import Collection, Sequence

from strongroom.crypto.keyring import Keyring
from strongroom.database import Transaction
from strongroom.errors import (
    BlobInvalid,
    FingerprintMismatch,
    KeyUnknown,
    ProofInvalid,
    StateCorrupt,
    UsageError,
)
from strongroom.registry import Registry
from strongroom_recovery import store
from strongroom_recovery.key_blobs import escrowed, opened_blob
from strongroom_recovery.opening import Opened
from strongroom_recovery.proofs import Finding
from strongroom_recovery.prover import store as prover_store
from strongroom_recovery.prover.proving import Stretch, false_leaves, verified_at
from strongroom_recovery.prover.signers import admitted
from strongroom_recovery.records import StoredRecord
from strongroom_recovery.reseal.retirement import name_of


async def check_hopeless(means: Opened, keyring: Keyring, kid: str, give_up: Collection[str]) -> None:
    """Return when none of the findings that are to be given up opens by this sealing key.

    Every blob of a record that is sealed to it is tried, not the newest alone. A key that is not in the keyring
    opens nothing; of one that is retired already nothing is asked any more. Arguments:
    `give_up`, findings by `name_of`; what is none is passed over.

    Raises UsageError for one that opens, and for one of a statement that cannot be read any more and could be when
    the prover looked; DatabaseUnavailable, FatalError, and what a key device raises when it does not answer.
    """
    if kid not in keyring.kids or not give_up:
        return
    async with means.database.reading() as tx:
        await means.follower.advance(tx)
    if kid in means.ledger.reseals.retired:
        return
    means.escrow_log.go_by(means.registry.roster.body.logs.escrow)
    named = set(give_up)
    for finding in [each for each in means.ledger.proofs.findings() if name_of(each) in named]:
        async with means.database.reading() as tx:
            records = await _records(means, tx, finding, kid)
        if records is None:
            raise UsageError(
                f"{name_of(finding)}: its statement cannot be read any more, and could be when the prover looked",
                hint="find out who changes the database; when the prover has looked again, see what it says",
            )
        if await asyncio.to_thread(_opens, records, keyring, kid):
            raise UsageError(
                f"{name_of(finding)}: sealing key {kid} opens it; what is false is in the database's other rows",
                hint="have the rows of `records` and `resealed_blobs` put right, and seal again; then it is proven",
            )


async def _records(means: Opened, tx: Transaction, finding: Finding, kid: str) -> Sequence[StoredRecord] | None:
    """Return the records that a finding is about, with their blobs; None where what it names is gone."""
    try:
        stretch = await prover_store.stretch(tx, finding.index, finding.index + 1, await means.escrow_log.head(tx))
        signers = await admitted(tx, stretch, means.registry, means.follower)
        records = _verified(stretch, finding, signers)
        return await store.with_resealed(tx, records, [kid])
    except (ProofInvalid, StateCorrupt):
        # Of a whole statement that does not verify the finding said as much.
        return [] if finding.record is None else None


def _verified(stretch: Stretch, finding: Finding, signers: Registry) -> list[StoredRecord]:
    verified = verified_at(stretch, finding.index, signers, false_leaves(stretch) or {})
    escrow = verified.escrow
    return [
        StoredRecord(
            authority=escrow.authority,
            principal=escrow.principal,
            statement_id=escrow.id,
            issued_at=escrow.issued_at,
            stored_at=verified.stored_at,
            log_index=verified.log_index,
            in_force=verified.in_force,
            record=record,
        )
        for record in escrow.records
        if finding.record in (None, record.id)
    ]


def _opens(records: Sequence[StoredRecord], keyring: Keyring, kid: str) -> bool:
    for stored in records:
        for blob in (*stored.resealed, escrowed(stored.record)):
            if blob.kid != kid:
                continue
            try:
                opened_blob(stored.authority, stored.principal, stored.record, blob, keyring)
            except (BlobInvalid, FingerprintMismatch, KeyUnknown):
                continue
            return True
    return False
