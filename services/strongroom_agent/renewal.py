"""Which keys a host escrows anew by itself, because the record that held one is of no use any more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from strongroom.crypto.rsa import Padding
from strongroom.crypto.secret import Secret
from strongroom.fields import parse_body
from strongroom.limits import SUPERSEDES_MAX
from strongroom.messages import Escrow
from strongroom.statements import parse_envelope
from strongroom_agent.live_keys import LiveKey, Place
from strongroom_agent.packing import KeyToEscrow
from strongroom_agent.spool import RecordRow, Spool
from strongroom_agent.standings import LOST, KeptStanding, Standings
from strongroom_agent.wrapping import Wrapped

RENEWALS_MAX: Final = 3
"""After so many records of a name in a row that the authority cannot give back, a person has to look."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is escrowed anew, and the names of what is not because it was tried often enough."""

    keys: tuple[KeyToEscrow, ...]
    given_up: tuple[str, ...]


class Renewal:
    """Decides from what is kept in the home and from the live keys; changes nothing."""

    def __init__(self, spool: Spool, standings: Standings, place: Place) -> None:
        """Go by these."""
        self._spool = spool
        self._standings = standings
        self._place = place

    def plan(self, live: Mapping[str, LiveKey]) -> Plan:
        """Say what is to be escrowed anew now; once that is in the spool, the answer is: nothing more."""
        keys: list[KeyToEscrow] = []
        given_up: list[str] = []
        for name, found in live.items():
            rows = self._spool.newest_of(name)
            if found.material is None or not rows:
                continue
            targets = self._replaceable(rows[0], found.material)
            if not targets and not self._is_wanted(rows[0], found.material):
                continue
            if self._is_refused(rows[0], found.material):
                # The same bytes would be refused again; `sync --retry-rejected` is for when the cause is gone.
                continue
            if len(rows) >= RENEWALS_MAX and all(row.listed in LOST for row in rows[:RENEWALS_MAX]):
                given_up.append(name)
                continue
            keys.append(_again(rows[0], found.material, targets, self._wrapped(rows[0])))
        return Plan(tuple(keys), tuple(given_up))

    def _replaceable(self, newest: RecordRow, material: Secret) -> list[str]:
        """Return the ids of what a record of the live key takes the place of: at most SUPERSEDES_MAX, newest first.

        A key that others were given is not replaced by the same key, nor by one that may be the same. The newest
        record is replaced as soon as the live key is another one, before the authority knows that it is stale.
        """
        needy = self._standings.needy(newest.facts.name)
        targets = [each.record for each in needy if not self._is_known_to_others(each, material)]
        newest_id = newest.facts.id
        is_stale = newest.state != "rejected" and self._is_same(newest_id, material) is False
        if is_stale and newest_id not in targets:
            targets.insert(0, newest_id)
        return targets[:SUPERSEDES_MAX]

    def succeeding(self, keys: Sequence[KeyToEscrow]) -> list[KeyToEscrow]:
        """Return keys that their owner hands over, each with what it takes the place of where that is not said.

        Of several keys of a name that is the last, which counts as the newest. Here the owner is believed to hand
        over another key than a disclosed one, unless it is certainly the same.
        """
        last = {key.name: position for position, key in enumerate(keys)}
        return [
            replace(key, supersedes=self._succeeded(key))
            if last[key.name] == position and not key.supersedes
            else key
            for position, key in enumerate(keys)
        ]

    def _succeeded(self, key: KeyToEscrow) -> tuple[str, ...]:
        return tuple(
            each.record
            for each in self._standings.needy(key.name)
            if each.replace_by is None or self._is_same(each.record, key.material) is not True
        )[:SUPERSEDES_MAX]

    def _is_known_to_others(self, standing: KeptStanding, material: Secret) -> bool:
        return standing.replace_by is not None and self._is_same(standing.record, material) is not False

    def _is_wanted(self, newest: RecordRow, material: Secret) -> bool:
        """Say whether the newest record of a name leaves the live key without an escrow that is good."""
        return newest.listed in LOST or self._is_same(newest.facts.id, material) is False

    def _is_refused(self, newest: RecordRow, material: Secret) -> bool:
        return newest.state == "rejected" and self._is_same(newest.facts.id, material) is not False

    def _wrapped(self, row: RecordRow) -> Wrapped | None:
        """Return what was signed about the wrapping of a record, which the spool's index does not have."""
        escrow = parse_body(parse_envelope(self._spool.message(row.statement)[0]), Escrow)
        wrapping = next(record.wrapping for record in escrow.records if record.id == row.facts.id)
        if wrapping is None:
            return None
        return Wrapped(wrapping.format, Padding(wrapping.padding), wrapping.kid)

    def _is_same(self, record_id: str, material: Secret) -> bool | None:
        salt, fingerprint = self._spool.salt(record_id), self._spool.fingerprint(record_id)
        if salt is None or fingerprint is None:
            return None
        return self._place.is_same(material, record_id, fingerprint, salt)


def _again(row: RecordRow, material: Secret, targets: Sequence[str], wrapped: Wrapped | None) -> KeyToEscrow:
    facts = row.facts
    return KeyToEscrow(
        material=material,
        name=facts.name,
        kind=facts.kind,
        description=facts.description,
        serial_number=facts.serial_number,
        algorithm=facts.algorithm,
        labels=facts.labels,
        supersedes=tuple(targets),
        wrapped=wrapped,
    )
