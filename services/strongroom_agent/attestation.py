"""What a host says, signed, of its own records: which of them hold the keys that are in use (SPEC 5.12)."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from strongroom.crypto.signing import SigningKey
from strongroom.errors import ExitCode, StrongroomError, TransientError
from strongroom.fields import new_id
from strongroom.limits import ATTESTED_RECORDS_MAX
from strongroom.messages import Attestation, AttestedRecord
from strongroom_agent.live_keys import LiveKey, Place
from strongroom_agent.patience import Deadline
from strongroom_agent.session import Session
from strongroom_agent.spool import RecordFacts, RecordRow, Spool
from strongroom_agent.standings import KeptAttestation, Standings
from strongroom_agent.verdicts import Verdict

_DAY_SECONDS: Final = 86_400


@dataclass(frozen=True, slots=True)
class Examined:
    """A name that is checked, and whether its newest stored record holds the live key.

    record: that record, None where there is none to speak of. matches: None when nothing is known, for `reason`.
    """

    name: str
    record: RecordFacts | None
    matches: bool | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class AttestReport:
    """What the checks found, and where it is on record: the recovery log's index, and the time in seconds.

    error: why it is not.
    """

    examined: tuple[Examined, ...]
    log_index: int | None
    attested_at: int | None
    error: StrongroomError | None

    @property
    def exit_code(self) -> ExitCode:
        """FAILED: a key in use is not the one in escrow, or it could not be put on record.

        NOT_FOUND: there is no check. TRY_LATER: no answer, or a key that nothing is known of.
        """
        if not self.examined:
            return ExitCode.NOT_FOUND
        refused = self.error is not None and not isinstance(self.error, TransientError)
        if refused or any(each.matches is False for each in self.examined):
            return ExitCode.FAILED
        unknown = any(each.matches is None for each in self.examined)
        return ExitCode.TRY_LATER if unknown or self.error is not None else ExitCode.DONE


def examine(spool: Spool, place: Place, live: Mapping[str, LiveKey]) -> tuple[Examined, ...]:
    """Compare each live key with the newest stored record of its name."""
    return tuple(_examine(spool, place, name, found) for name, found in live.items())


def _examine(spool: Spool, place: Place, name: str, found: LiveKey) -> Examined:
    newest = next((row for row in spool.newest_of(name) if row.state != "rejected"), None)
    if newest is None:
        return Examined(
            name, None, None, f"no key is in escrow: `strongroom escrow FILE --name {shlex.quote(name)}`"
        )
    if (reason := _unspeakable(newest)) is not None:
        return Examined(name, None, None, reason)
    facts = newest.facts
    if found.opens is not None:
        return Examined(name, facts, found.opens)
    if found.material is None:
        return Examined(name, facts, None, found.reason)
    salt = spool.salt(facts.id)
    if salt is None:
        return Examined(
            name,
            facts,
            None,
            f"record {facts.id} was escrowed before there was a check, and cannot be compared;"
            f" escrow the key once more: `strongroom escrow FILE --name {shlex.quote(name)}`",
        )
    return Examined(name, facts, place.is_same(found.material, facts.id, facts.fingerprint, salt))


def _unspeakable(row: RecordRow) -> str | None:
    if row.state != "stored":
        return f"record {row.facts.id} is not stored yet: `strongroom sync`"
    if row.listed == "missing":
        return f"record {row.facts.id} is missing at the authority"
    return None


def due(
    examined: Sequence[Examined], attested: Mapping[str, KeptAttestation], *, attest_days: int, now: int
) -> list[Examined]:
    """Return what is to be said: what changed, and what was said `attest_days` before `now` (seconds), or never."""
    return [each for each in examined if each.record is not None and _is_due(each, attested, attest_days, now)]


def _is_due(examined: Examined, attested: Mapping[str, KeptAttestation], attest_days: int, now: int) -> bool:
    if examined.record is None or examined.matches is None:
        return False
    before = attested.get(examined.record.id)
    if before is None or before.matches is not examined.matches:
        return True
    # A clock that was ahead must not silence this for long.
    return not before.attested_at <= now < before.attested_at + attest_days * _DAY_SECONDS


class Attesting:
    """Says of examined records whether they hold the live keys; goes on over the next link where one broke."""

    def __init__(
        self, examined: Sequence[Examined], *, authority: str, principal: str, key: SigningKey, now: int
    ) -> None:
        """Sign what is known of these; what is not known is left out."""
        known = [
            AttestedRecord(id=each.record.id, fingerprint=each.record.fingerprint, matches=each.matches)
            for each in examined
            if each.record is not None and each.matches is not None
        ]
        bodies = [
            Attestation(authority=authority, id=new_id(), issued_at=now, principal=principal, records=records)
            for records in _parts(known)
        ]
        # The same bytes at every attempt, so that a lost answer leaves one entry behind.
        self._left = [(body, Verdict(body, key)) for body in bodies]
        self.log_index: int | None = None
        """Where the last one is in the recovery log."""
        self.attested_at: int | None = None
        """The time of its entry, in seconds."""

    async def deliver(self, session: Session, deadline: Deadline) -> None:
        """Put everything that is left on record.

        Raises as `Verdict.deliver`, and LogForked while evidence is kept.
        """
        session.check_unforked("recovery")
        while self._left:
            body, verdict = self._left[0]
            recorded = await verdict.deliver(session, deadline)
            Standings(session.state).keep_attestation(
                {each.id: each.matches for each in body.records}, recorded.time, recorded.log_index
            )
            self.log_index, self.attested_at = recorded.log_index, recorded.time
            self._left.pop(0)


def _parts(records: Sequence[AttestedRecord]) -> Iterator[list[AttestedRecord]]:
    left = iter(records)
    while part := list(islice(left, ATTESTED_RECORDS_MAX)):
        yield part
