"""What a restore drill has found out, and what that is worth. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from strongroom.mandates import SealingKeyState

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Failure:
    """A record that cannot be given back out of the backup, and why.

    record, principal, name: None for every record of the statement, when its index entries are missing, too. code:
    of the error (SPEC section 12).
    """

    record: str | None
    statement: str
    principal: str | None
    name: str | None
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class LogState:
    """A log as the backup has it.

    leaves: under its newest checkpoint. newest_leaf_at: time of the last of them, in seconds, None without one.
    behind: how many leaves more the workers' state folders know of; None when none was given.
    """

    leaves: int
    newest_leaf_at: int | None
    behind: int | None = None


@dataclass(frozen=True, slots=True)
class SealingKeyUse:
    """A sealing key that the roster names or records are sealed to.

    records: how many, by the index. state: in the roster; None where that does not name it. is_held: whether the
    keys' backup has it.
    """

    kid: str
    records: int
    state: str | None
    is_held: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with the backup as a whole, and what to do next."""

    code: str
    finding: str
    advice: str


@dataclass(frozen=True, slots=True)
class Unstored:
    """An escrow statement that the log names and the backup lacks; None where its leaf cannot be read either."""

    leaf_index: int
    statement: str | None
    principal: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a drill.

    migration: the newest one. sampled: records looked at, `opened` and `failures` together. seed: picks the same
    records again from the same backup; None when all were looked at. late: opened, by a key that was not in force.
    check_seconds: everything but restoring; open_seconds: of that, verifying and opening the records.
    """

    authority: str
    roster_version: int
    migration: str
    records: int
    statements: int
    escrow_log: LogState
    recovery_log: LogState
    sealing_keys: Sequence[SealingKeyUse]
    sampled: int
    opened: int
    late: int
    seed: int | None
    check_seconds: float
    open_seconds: float
    failures: Sequence[Failure] = ()
    unstored: Sequence[Unstored] = ()
    findings: Sequence[Finding] = field(default=())

    @property
    def failed(self) -> int:
        """Records looked at that cannot be given back."""
        return self.sampled - self.opened

    @property
    def is_passed(self) -> bool:
        """Whether every record looked at was opened, there was one, and nothing else is wrong."""
        return self.opened == self.sampled > 0 and not self.failures and not self.findings

    @property
    def bad_share_max(self) -> float | None:
        """The share of bad records that the sample excludes with `CONFIDENCE`; None after a failure."""
        if self.failed or not self.sampled:
            return None
        return 0.0 if self.seed is None else bad_share_max(self.sampled)

    @property
    def records_per_second(self) -> float:
        """How many records a second were looked at."""
        return self.sampled / self.open_seconds if self.open_seconds else 0.0

    def document(self) -> dict[str, Any]:
        """Return it as JSON; SPEC names no such document, so its members are those of this class."""
        computed = {
            "ok": self.is_passed,
            "failed": self.failed,
            "confidence": CONFIDENCE,
            "bad_share_max": self.bad_share_max,
            "records_per_second": round(self.records_per_second, 1),
        }
        seconds = {name: round(getattr(self, name), 3) for name in ("check_seconds", "open_seconds")}
        return {**asdict(self), **seconds, **computed}


def bad_share_max(opened: int) -> float:
    """Return the share of bad records at which a sample without one would be as rare as 1 in 20.

    Of `opened` records picked independently none is bad with probability (1 - p)^opened, which is 1 - CONFIDENCE at
    this p; the "rule of three" says 3 / opened. A sample drawn without putting back excludes a little more.
    """
    return float(1.0 - (1.0 - CONFIDENCE) ** (1.0 / opened))


def sampling_statement(report: Report) -> str:
    """Return the sentence that says what the sample proves, and what not."""
    if not report.sampled:
        return "there is no record in this backup: nothing is proven"
    if report.failed:
        return f"{report.failed} of {report.sampled} records that were looked at cannot be given back"
    if report.seed is None:
        return "every record of this backup was opened"
    share = bad_share_max(report.sampled)
    return f"with {CONFIDENCE:.0%} confidence fewer than {share:.2%} of the {report.records} records are bad"


def key_findings(keys: Sequence[SealingKeyUse]) -> list[Finding]:
    """Say which sealing keys the keys' backup lacks, although records or the roster need them."""
    # What is closed and not needed may be retired: recovery workers start without it.
    missing = [key for key in keys if not key.is_held and (key.records or key.state != SealingKeyState.CLOSED)]
    if not missing:
        return []
    if not any(key.is_held for key in keys):
        sentence = "none of the sealing keys in this folder is one of this authority"
        return [
            Finding("key_unknown", sentence, "is it the backup of the right authority's keys/recovery/sealing?")
        ]
    return [
        Finding(
            "key_unknown",
            f"sealing key {key.kid} is missing, to which {key.records} records are sealed",
            "put its key file into the backup of the sealing keys: without it those records never open again"
            if key.records
            else "put its key file into the backup: the roster names it, and no recovery worker starts without it",
        )
        for key in missing
    ]


def row_findings(records: int, seen: int, statements: int, leaves: int, unstored: int) -> list[Finding]:
    """Say where rows and log contradict each other.

    Arguments: `records` index entries, of which `seen` belong to stored records (0: not looked at); `statements`
    stored; `leaves` of the escrow log, of which at least `unstored` have no statement.
    """
    advice = "take another backup, and find out who changed the database"
    findings = []
    if unstored or statements < leaves:
        lost = max(unstored, leaves - statements)
        findings.append(Finding("not_found", f"{lost} escrow statements that the log names are not there", advice))
    if statements > leaves:
        more = statements - leaves
        findings.append(Finding("proof_invalid", f"{more} escrow statements are there that the log lacks", advice))
    if seen and records > seen:
        more = records - seen
        findings.append(Finding("proof_invalid", f"{more} index entries belong to no stored record", advice))
    return findings
