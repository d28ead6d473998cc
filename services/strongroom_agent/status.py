"""What a home knows about its keys, offline (`strongroom status`). Imports nothing slow."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from strongroom.errors import ExitCode
from strongroom_agent.home import Home, Role
from strongroom_agent.spool import RecordRow, Spool, StatementState
from strongroom_agent.standings import KeptStanding, Listed, Standings
from strongroom_agent.state import (
    Evidence,
    KeptCheckpoint,
    KeptDisclosure,
    KeptEnrolment,
    KeptPending,
    KeptRoster,
    State,
)

RECORDS_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Status:
    """What a home knows; times in seconds.

    enrolment: the one with a receipt, None for an officer or while enrolling. counts: statements by state.
    listed: records by what the authority's listing said last. records: as many as were asked for, those that need
    attention first; records_total: how many there are. unproven: how many are stored, not replaced, and were not
    shown to be such that they can be given back. needy: what is to be replaced and has no successor. disclosed,
    pending: what the last complete listing said of keys that were handed out and of others who ask for some.
    evidence: of a log that contradicted itself.
    """

    home: Home
    now: int
    enrolment: KeptEnrolment | None
    roster: KeptRoster | None
    checkpoints: tuple[KeptCheckpoint, ...]
    counts: Mapping[StatementState, int]
    listed: Mapping[Listed, int]
    records: tuple[RecordRow, ...]
    records_total: int
    unproven: int
    needy: tuple[KeptStanding, ...]
    disclosed: tuple[KeptDisclosure, ...]
    pending: tuple[KeptPending, ...]
    evidence: tuple[Evidence, ...]

    @property
    def exit_code(self) -> ExitCode:
        """FAILED: a key is rejected, missing or different, or is to be replaced at once; or a log forked.

        At once is what is unprovable or stale, and what others were given when its time is over. TRY_LATER:
        something is spooled, or the enrolment has no receipt. NOT_PROVEN: something is stored and not proven yet.
        """
        urgent = any(each.is_urgent(self.now) for each in self.needy)
        lost = self.listed.get("missing") or self.listed.get("mismatched")
        if self.counts["rejected"] or lost or urgent or self.evidence:
            return ExitCode.FAILED
        if self.counts["spooled"] or self.enrolling:
            return ExitCode.TRY_LATER
        return ExitCode.NOT_PROVEN if self.unproven else ExitCode.DONE

    @property
    def enrolling(self) -> bool:
        """Whether this is a host's home whose enrolment has no receipt yet, so that nothing is sent from it."""
        return self.home.config.role is Role.PRINCIPAL and self.enrolment is None

    def document(self) -> dict[str, object]:
        """Return everything as plain values for JSON; the proofs themselves stay in the home."""
        config, enrolment, roster = self.home.config, self.enrolment, self.roster
        return {
            "principal": config.name,
            "role": config.role.value,
            "authority": config.authority,
            "key_id": config.key_id,
            "enrolled": enrolment is not None,
            "enrolment_log_index": enrolment.log_index if enrolment else None,
            "enrolled_at": enrolment.enrolled_at if enrolment else None,
            "roster_version": roster.version if roster else None,
            "roster_expires_at": roster.expires_at if roster else None,
            "roster_expired": roster is not None and roster.expires_at < self.now,
            "tree_sizes": {checkpoint.log: checkpoint.size for checkpoint in self.checkpoints},
            "statements": dict(self.counts),
            "listed": dict(self.listed),
            "unproven": self.unproven,
            "needy": [standing_document(each) for each in self.needy],
            "records": [record_document(row) for row in self.records],
            "disclosed": [disclosure_document(each, config.name) for each in self.disclosed],
            "pending": [asdict(each) for each in self.pending],
            "evidence": [
                {"log": each.log, "statement": each.statement, "reason": each.reason, "seen_at": each.seen_at}
                for each in self.evidence
            ],
        }


def status(path: Path, *, limit: int | None = RECORDS_SHOWN, now: int | None = None) -> Status:
    """Read the home at `path`; nothing is sent and nothing is changed.

    Arguments: `limit` bounds the records that need no attention; None shows all. Raises ConfigurationInvalid,
    StateCorrupt, SchemaMismatch, Busy.
    """
    home = Home.open(path)
    with State.open(home.state_file) as state:
        spool, standings = Spool(state), Standings(state)
        enrolments = [each for each in state.enrolments() if each.enrolled_at is not None]
        checkpoints = (state.checkpoint("escrow"), state.checkpoint("recovery"))
        return Status(
            home=home,
            now=int(time.time()) if now is None else now,
            enrolment=enrolments[-1] if enrolments else None,
            roster=state.roster(),
            checkpoints=tuple(each for each in checkpoints if each is not None),
            counts=spool.counts(),
            listed=standings.counts(),
            records=tuple(spool.overview(limit)),
            records_total=spool.size(),
            unproven=spool.unproven(),
            needy=tuple(standings.needy()),
            disclosed=tuple(state.disclosures()),
            pending=tuple(state.pending()),
            evidence=tuple(state.evidence()),
        )


def disclosure_document(disclosure: KeptDisclosure, principal: str) -> dict[str, object]:
    """Return as plain values for JSON who was given a key of `principal`, and whether that was itself."""
    return {**asdict(disclosure), "by_owner": disclosure.is_by(principal)}


def record_document(row: RecordRow) -> dict[str, object]:
    """Return one record as plain values for JSON.

    `reason` says why it is not stored: the authority's words for a rejected one, else why the last attempt failed.
    """
    rejected = f"{row.code}: {row.message}" if row.state == "rejected" else None
    return {
        **asdict(row.facts),
        "statement": row.statement,
        "state": row.state,
        "reason": rejected or row.last_error,
        "created_at": row.created_at,
        "attempts": row.attempts,
        "stored_at": row.stored_at,
        "log_index": row.log_index,
        "tree_size": row.tree_size,
        "listed": row.listed,
        "listed_at": row.listed_at,
        **(_evidence(row.standing) if row.standing else dict.fromkeys(_EVIDENCE)),
    }


def standing_document(standing: KeptStanding) -> dict[str, object]:
    """Return what has become of a record as plain values for JSON."""
    return {"id": standing.record, "name": standing.name, "listed": standing.listed, **_evidence(standing)}


_EVIDENCE: Final = ("proof", "proven_at", "unprovable", "attested_at", "replace_by")


def _evidence(standing: KeptStanding) -> dict[str, object]:
    """Return index of the newest proof leaf, when it was proven, or why it is not, and until when to replace it."""
    found = standing.proof, standing.proven_at, standing.code, standing.attested_at, standing.replace_by
    return dict(zip(_EVIDENCE, found, strict=True))
