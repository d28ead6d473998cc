"""What the doctor finds, and what it makes of what it has seen. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import TYPE_CHECKING, Final

from strongroom.errors import OfficerUnknown, StrongroomError

if TYPE_CHECKING:
    from strongroom.broker import QueueLoad
    from strongroom.roster import Roster
    from strongroom_agent.home import Home
    from strongroom_agent.state import KeptEnrolment

_WORKERS: Final = ("escrow", "recovery")
_QUARANTINE: Final = "quarantine"


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, how it came out, what was seen, what to do."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A check that was not made, and what is not configured for it."""

    check: str
    why: str


def failure(check: str, error: StrongroomError, advice: str = "") -> Finding:
    """Return what an error says of a check; `advice` is for an error without a hint of its own."""
    return Finding(check, Verdict.FAILED, error.message, error.hint or advice)


def schema_findings(sentences: Sequence[str]) -> list[Finding]:
    """Return a finding for each sentence of `migrations.check`, which says itself what to do."""
    failed = [Finding("schema", Verdict.FAILED, sentence) for sentence in sentences]
    return failed or [Finding("schema", Verdict.OK, "up to date")]


def queue_findings(loads: Iterable["QueueLoad"]) -> Iterator[Finding]:
    """Judge readers and contents of the queues: each worker's has to be read, the quarantine should be empty."""
    for load in loads:
        if load.queue in _WORKERS:
            yield _worker(load)
        elif load.queue == _QUARANTINE and load.messages:
            yield Finding(
                "quarantine",
                Verdict.WARNING,
                f"{_messages(load.messages)} that no worker could accept",
                "`strongroom quarantine list`",
            )
        elif load.queue == _QUARANTINE:
            yield Finding("quarantine", Verdict.OK, "empty")


def _worker(load: "QueueLoad") -> Finding:
    waiting = f"{_messages(load.messages)} {'waits' if load.messages == 1 else 'wait'}"
    if load.consumers == 0:
        return Finding(
            "workers",
            Verdict.FAILED,
            f"nobody reads the queue {load.queue} ({waiting})",
            f"start the {load.queue} worker (`strongroom worker {load.queue}`); if it runs, read its log",
        )
    readers = "1 worker reads" if load.consumers == 1 else f"{load.consumers} workers read"
    return Finding("workers", Verdict.OK, f"{readers} the queue {load.queue} ({waiting})")


def _messages(count: int) -> str:
    return "1 message" if count == 1 else f"{count} messages"


def officer_finding(home: "Home", roster: "Roster") -> Finding:
    """Say whether the newest roster that an officer's home holds names the officer, with this home's key."""
    from strongroom_agent.identity import check_officer

    try:
        officer = check_officer(home, roster)
    except OfficerUnknown as error:
        return Finding(
            "officer",
            Verdict.FAILED,
            error.message,
            "nothing that is signed here counts; ask the authority for a roster that names"
            f" {home.config.name} with the key {home.config.key_id}, and take it by `strongroom officer trust`",
        )
    roles = ", ".join(role.value for role in officer.roles) or "no role"
    return Finding("officer", Verdict.OK, f"{officer.name} in roster version {roster.body.version}: {roles}")


def enrolment_finding(name: str, enrolments: Iterable["KeptEnrolment"]) -> Finding:
    """Say whether a receipt proves that a host is enrolled; `enrolments` are those that were begun in its home."""
    proven = [each for each in enrolments if each.enrolled_at is not None]
    if not proven:
        return Finding(
            "enrolment",
            Verdict.FAILED,
            f"nothing proves yet that {name} is enrolled, and before that no key is sent from here",
            "`strongroom enrol` with the same invitation file again, or `strongroom sync`",
        )
    return Finding("enrolment", Verdict.OK, f"{name} is enrolled: recovery log, index {proven[-1].log_index}")


def skipped(environment: Mapping[str, str], *, has_home: bool) -> list[Skipped]:
    """Return which checks are not made because nothing is configured for them, in the order of the checks."""

    def given(name: str) -> bool:
        return bool(environment.get(f"STRONGROOM_{name}"))

    def url_given(name: str) -> bool:
        return given(name) or given(f"{name}_FILE")

    files = given("ROOT_KEY_FILE") and given("ROSTER_FILE")
    without_files = f"no STRONGROOM_{'ROOT_KEY_FILE' if given('ROSTER_FILE') else 'ROSTER_FILE'}"

    def without(setting: str) -> str:
        return f"no STRONGROOM_{setting}" if files else without_files

    operator = url_given("OPERATOR_BROKER_URL")
    without_operator = "no STRONGROOM_OPERATOR_BROKER_URL"
    checks = (
        ("home", has_home, "none there"),
        ("roster", has_home or files, f"no home, {without_files}"),
        ("worker's keys", files and (given("LOG_KEY_FILE") or given("REPLY_KEY_FILE")), without("LOG_KEY_FILE")),
        (
            "sealing keys",
            files and (given("SEALING_KEYS_DIR") or given("KEYRING")),
            without("SEALING_KEYS_DIR") + (", no STRONGROOM_KEYRING" if files else ""),
        ),
        ("state", files and given("STATE_DIR"), without("STATE_DIR")),
        ("database", url_given("DATABASE_URL"), "no STRONGROOM_DATABASE_URL"),
        ("broker", has_home or operator or url_given("BROKER_URL"), "no home, no STRONGROOM_BROKER_URL"),
        ("workers", operator, without_operator),
        ("quarantine", operator, without_operator),
    )
    return [Skipped(check, why) for check, looked_at, why in checks if not looked_at]


def skipped_line(unseen: Sequence[Skipped]) -> str:
    """Return what was not looked at in one line; neighbours that lack the same are named together."""
    groups = groupby(unseen, key=lambda each: each.why)
    return "not looked at: " + ", ".join(f"{', '.join(one.check for one in same)} ({why})" for why, same in groups)
