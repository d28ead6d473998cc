"""Records by sealing key: how many there are by the database's index, and how many were proven, by the log."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from strongroom.database import Database
from strongroom.follower import RecoveryLogFollower
from strongroom.registry import Registry
from strongroom.roster import Roster
from strongroom_recovery.ledger import Ledger
from strongroom_recovery.reseal import store


@dataclass(frozen=True, slots=True)
class KeyCount:
    """A sealing key, and what is sealed to it.

    suite, state: as the roster has it; None for a key that it does not name. records: whose newest blob is sealed
    to it, by rows, which nothing vouches for. proven: that it opened when the prover last looked; where a part of a
    range was looked at again, at most. retired_at: in seconds, None if it is not retired.
    """

    kid: str
    suite: str | None
    state: str | None
    records: int
    proven: int
    retired_at: int | None

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)


async def count(database: Database, root_key: bytes, roster: Roster) -> list[KeyCount]:
    """Count records by key, those of the roster first, in its order; the recovery log is replayed and verified.

    Arguments: `roster` was verified under `root_key`. Raises LogForked, StateCorrupt, SchemaMismatch,
    DatabaseUnavailable.
    """
    ledger = Ledger()
    log = roster.body.logs.recovery
    with TemporaryDirectory() as folder:
        path = Path(folder) / "recovery.checkpoint"
        follower = RecoveryLogFollower(Registry(root_key, roster), log, path, also=ledger)
        async with database.reading() as tx:
            await follower.advance(tx)
            records = await store.kids(tx)
    proven: Counter[str] = Counter()
    for look in ledger.proofs.looks():
        proven.update(dict(look.kids or ()))
    named = {key.kid: key for key in roster.body.sealing_keys}
    others = sorted((records.keys() | proven.keys() | ledger.reseals.retired.keys()) - named.keys())
    return [
        KeyCount(
            kid=kid,
            suite=named[kid].suite.value if kid in named else None,
            state=named[kid].state.value if kid in named else None,
            records=records.get(kid, 0),
            proven=proven[kid],
            retired_at=ledger.reseals.retired.get(kid),
        )
        for kid in (*named, *others)
    ]
