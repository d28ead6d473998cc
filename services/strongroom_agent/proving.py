"""Waiting until the authority has shown of some records that it can give their keys back."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final
from uuid import UUID

from strongroom.crypto.signing import SigningKey
from strongroom.errors import ExitCode, TransientError
from strongroom_agent.home import Home
from strongroom_agent.listing import Reading, VerifiedPage, standing_of
from strongroom_agent.patience import Deadline
from strongroom_agent.session import Session
from strongroom_agent.spool import RecordRow, Spool
from strongroom_agent.standings import LOST, Standings, unlisted

_RANDOM_BITS: Final = (1 << 62) - 1


class NotProven(TransientError):
    """The keys are stored, and the prover has not come to them yet."""

    code = "not_proven"
    exit_code = ExitCode.NOT_PROVEN


class Watching:
    """Looks at what the authority lists of records, and keeps what it says of their states."""

    def __init__(self, home: Home, spool: Spool, standings: Standings, key: Callable[[], SigningKey]) -> None:
        """Look at records of this home; `key` reads the key that signs the requests."""
        self._home = home
        self._spool = spool
        self._standings = standings
        self._key = key

    async def look(self, statement_ids: Sequence[str], session: Session, deadline: Deadline) -> None:
        """Return once each record of these statements that is stored is proven, or found unprovable.

        Raises NotProven while one is neither: call again after a pause. Otherwise as `Reading.pages`.
        """
        rows = {row.facts.id: row for row in self._spool.of_statements(statement_ids) if row.state == "stored"}
        if not rows:
            return
        # Ids rise with time: behind these there is next to nothing, and before them thousands may be.
        reading = Reading(self._home, self._key(), self._home.config.name, after=_before(min(rows)))
        async for page in reading.pages(session, deadline):
            self._keep(page, rows, session.now)
        rows = {row.facts.id: row for row in self._spool.of_statements(statement_ids) if row.state == "stored"}
        if any(row.listed in LOST for row in rows.values()):
            return
        if waiting := sum(not row.is_proven for row in rows.values()):
            raise NotProven(
                f"stored, and not proven yet: {waiting} of {len(rows)} records",
                hint="`strongroom sync` and `strongroom status` say when they are; is a prover running?",
            )

    def _keep(self, page: VerifiedPage, rows: dict[str, RecordRow], now: int) -> None:
        found = [
            standing_of(record, now)
            if record.fingerprint == rows[record.id].facts.fingerprint
            else replace(standing_of(record, now), listed="mismatched")
            for record in page.listing.records
            if record.id in rows
        ]
        found += [
            unlisted(
                self._standings.of(each.id),
                record=each.id,
                name=rows[each.id].facts.name,
                listed="unprovable",
                code=each.code,
                now=now,
            )
            for each in page.listing.unreadable
            if each.id in rows
        ]
        self._standings.keep(found, page.proofs)


def _before(record_id: str) -> str | None:
    """Return an id that a listing goes on from with this one.

    None, for the beginning, where there is no such id.
    """
    number = UUID(record_id).int
    return str(UUID(int=number - 1)) if number & _RANDOM_BITS else None
