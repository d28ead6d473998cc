"""Who may have signed a stretch of the escrow log, by the recovery log alone."""

from contextlib import suppress

from strongroom.database import Transaction
from strongroom.errors import StateCorrupt
from strongroom.follower import RecoveryLogFollower
from strongroom.registry import Registry
from strongroom_recovery.prover.proving import Stretch
from strongroom_recovery.records import StoredStatement


async def admitted(
    tx: Transaction, stretch: Stretch, registry: Registry, follower: RecoveryLogFollower
) -> Registry:
    """Return who may have signed a stretch, in a view that stays as it is, but those whose enrolment is damaged.

    `tx` is the transaction that the stretch was read in. Raises DatabaseUnavailable.
    """
    names = {each.principal for each in stretch.statements.values() if isinstance(each, StoredStatement)}
    try:
        await follower.admit(tx, names, former=True)
    except StateCorrupt:
        tx.check()
        for name in names:
            with suppress(StateCorrupt):
                await follower.admit(tx, [name], former=True)
            tx.check()
    return registry.view(names)
