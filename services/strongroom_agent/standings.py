"""What has become of each record by the authority's last listing, and the proof leaves that show it. Light.

The rows are of every record that the listing named, also of those that an earlier home of this host escrowed, and
of those that it should have named and did not.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from strongroom_agent.state import State

Listed = Literal["stored", "proven", "unprovable", "stale", "disclosed", "replaced", "missing", "mismatched"]

LOST: Final = frozenset({"unprovable", "missing", "mismatched"})
"""Of a record in one of these states, the authority cannot be expected to give the key back."""

_COLUMNS: Final = "record, name, listed, listed_at, proof, proven_at, code, attested_at, replace_by, supersedes"
_OF_LOST: Final = "listed IN ('unprovable', 'missing', 'mismatched')"
_OF_NEEDY: Final = "listed IN ('unprovable', 'missing', 'mismatched', 'stale', 'disclosed')"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptStanding:
    """What has become of a record; times in seconds since 1970.

    listed, listed_at: its state, and when it was learnt. proof: index in the recovery log of the newest proof leaf
    that covers it, which is kept. proven_at: when it was last proven. code: why it is unprovable. attested_at: when
    the authority was last told by its owner whether it holds the live key. replace_by: until when it is to be
    replaced, of one that others were given. supersedes: what it takes the place of.
    """

    record: str
    name: str
    listed: Listed
    listed_at: int
    proof: int | None = None
    proven_at: int | None = None
    code: str | None = None
    attested_at: int | None = None
    replace_by: int | None = None
    supersedes: tuple[str, ...] = ()

    def is_urgent(self, now: int) -> bool:
        """Say whether what is to be replaced cannot wait: `now` in seconds; a disclosed key can until its time."""
        return self.listed in LOST or self.listed == "stale" or self.is_overdue(now)

    def is_overdue(self, now: int) -> bool:
        """Say whether a key that others were given should have been replaced by `now`, in seconds."""
        return self.replace_by is not None and self.replace_by < now


def unlisted(
    before: KeptStanding | None, *, record: str, name: str, listed: Listed, code: str | None, now: int
) -> KeptStanding:
    """Say of a record that the authority says nothing of it; what was proven `before` stays as evidence."""
    known = before or KeptStanding(record=record, name=name, listed=listed, listed_at=now)
    return replace(known, listed=listed, listed_at=now, code=code)


@dataclass(frozen=True, slots=True)
class KeptProof:
    """A proof leaf and its C2SP tlog-proof: together a receipt that can be checked offline (SPEC 6.3)."""

    log_index: int
    leaf: bytes
    proof: str


@dataclass(frozen=True, slots=True)
class KeptAttestation:
    """What the owner last said of a record, with a receipt: whether it holds the live key, and when."""

    matches: bool
    attested_at: int
    log_index: int


class Standings:
    """The tables of standings, proof leaves and attestations; the contract of State's methods holds here too."""

    def __init__(self, state: State) -> None:
        """Work on this database."""
        self._state = state

    def all(self) -> dict[str, KeptStanding]:
        """Return every standing by record id."""
        return {
            row[0]: _standing(row)
            for row in self._state.rows(f"SELECT {_COLUMNS} FROM standings")  # noqa: S608
        }

    def of(self, record: str) -> KeptStanding | None:
        """Return the standing of a record, or None before a listing named it."""
        rows = self._state.rows(f"SELECT {_COLUMNS} FROM standings WHERE record = ?", record)  # noqa: S608
        return _standing(rows[0]) if rows else None

    def counts(self) -> dict[Listed, int]:
        """Return how many records of this home are in each state."""
        return dict(
            self._state.rows(
                "SELECT listed, count(*) FROM standings JOIN records ON records.id = record GROUP BY listed"
            )
        )

    def replace(self, standings: Iterable[KeptStanding], proofs: Iterable[KeptProof]) -> None:
        """Keep what a complete listing led to, in the place of what the one before it led to."""
        with self._state.transaction():
            self._state.execute("DELETE FROM standings")
            self.keep(standings, proofs)
            self._state.execute(
                "DELETE FROM proof_leaves WHERE log_index NOT IN"
                " (SELECT proof FROM standings WHERE proof IS NOT NULL)"
            )

    def keep(self, standings: Iterable[KeptStanding], proofs: Iterable[KeptProof]) -> None:
        """Keep what is known of some records anew; of the others stays what it was."""
        with self._state.transaction():
            for each in proofs:
                self._state.execute(
                    "INSERT INTO proof_leaves VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                    each.log_index,
                    each.leaf,
                    each.proof,
                )
            for standing in standings:
                self._state.execute(
                    f"INSERT OR REPLACE INTO standings ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                    standing.record,
                    standing.name,
                    standing.listed,
                    standing.listed_at,
                    standing.proof,
                    standing.proven_at,
                    standing.code,
                    standing.attested_at,
                    standing.replace_by,
                    json.dumps(standing.supersedes),
                )

    def proof(self, record: str) -> KeptProof | None:
        """Return the newest proof leaf that covers a record, or None while none is known."""
        rows = self._state.rows(
            "SELECT log_index, leaf, proof_leaves.proof FROM standings JOIN proof_leaves"
            " ON proof_leaves.log_index = standings.proof WHERE record = ?",
            record,
        )
        return KeptProof(*rows[0]) if rows else None

    # ---- what is to be replaced ----

    def superseded(self) -> set[str]:
        """Return the ids that another record takes the place of, which is sound as far as is known here.

        One that was refused, or that the authority cannot give back, replaces nothing.
        """
        rows = self._state.rows(
            "SELECT records.supersedes FROM records JOIN statements ON statements.id = records.statement"  # noqa: S608
            " LEFT JOIN standings ON standings.record = records.id WHERE state <> 'rejected'"
            f" AND records.supersedes <> '[]' AND NOT coalesce({_OF_LOST}, 0)"
            f" UNION ALL SELECT supersedes FROM standings WHERE supersedes <> '[]' AND NOT {_OF_LOST}"
        )
        return {id_ for (text,) in rows for id_ in json.loads(text)}

    def needy(self, name: str | None = None) -> list[KeptStanding]:
        """Return what is to be replaced and has no successor yet, of one name or all; the newest ids first."""
        rows = self._state.rows(
            f"SELECT {_COLUMNS} FROM standings WHERE {_OF_NEEDY} AND (? IS NULL OR name = ?) ORDER BY record DESC",  # noqa: S608
            name,
            name,
        )
        superseded = self.superseded() if rows else set()
        return [_standing(row) for row in rows if row[0] not in superseded]

    # ---- what the owner said ----

    def attestations(self) -> dict[str, KeptAttestation]:
        """Return by record id what was attested last."""
        return {
            record: KeptAttestation(bool(matches), attested_at, log_index)
            for record, matches, attested_at, log_index in self._state.rows("SELECT * FROM attestations")
        }

    def keep_attestation(self, records: Mapping[str, bool], attested_at: int, log_index: int) -> None:
        """Keep what was attested of records, by a verified receipt, and what it makes of their states."""
        with self._state.transaction():
            for record, matches in records.items():
                self._state.execute(
                    "INSERT OR REPLACE INTO attestations VALUES (?, ?, ?, ?)",
                    record,
                    matches,
                    attested_at,
                    log_index,
                )
                # Before the first listing there is nothing to change.
                self._state.execute(
                    "INSERT INTO standings (record, name, listed, listed_at)"
                    " SELECT id, name, 'stored', ? FROM records WHERE id = ? ON CONFLICT DO NOTHING",
                    attested_at,
                    record,
                )
                # The precedence of SPEC 5.13; a record that is replaced or lost stays so.
                self._state.execute(
                    "UPDATE standings SET attested_at = ?, listed = CASE WHEN NOT ? THEN 'stale'"  # noqa: S608
                    " WHEN listed <> 'stale' THEN listed WHEN replace_by IS NOT NULL THEN 'disclosed'"
                    " WHEN proof IS NOT NULL THEN 'proven' ELSE 'stored' END"
                    f" WHERE record = ? AND listed <> 'replaced' AND NOT {_OF_LOST}",
                    attested_at,
                    matches,
                    record,
                )


def _standing(row: tuple[Any, ...]) -> KeptStanding:
    record, name, listed, listed_at, proof, proven_at, code, attested_at, replace_by, supersedes = row
    return KeptStanding(
        record=record,
        name=name,
        listed=listed,
        listed_at=listed_at,
        proof=proof,
        proven_at=proven_at,
        code=code,
        attested_at=attested_at,
        replace_by=replace_by,
        supersedes=tuple(json.loads(supersedes)),
    )
