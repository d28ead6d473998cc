"""The statements of those who watch over a fleet and its logs: coverage and log pages (SPEC 5.14, 5.15). Pure."""

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from strongroom import limits
from strongroom.crypto.tlog import HASH_BYTES
from strongroom.fields import Body, Bytes, Code, Digest, Id, LeafIndex, Name, Part, Principal, Time, media_type
from strongroom.messages import Asking, RosterVersion

_Count = Annotated[int, Field(ge=0, le=limits.INTEGER_MAX)]
LogText = Literal["escrow", "recovery"]
# Whatever a database may hold in place of a record id: no row may keep an auditor from the page that it is on.
_RowId = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]


def _hash(value: bytes) -> bytes:
    if len(value) != HASH_BYTES:
        raise ValueError(f"must be {HASH_BYTES} bytes")
    return value


Hash = Annotated[Bytes, AfterValidator(_hash)]


# ---- coverage ------------------------------------------------------------------------------------------


class CoverageRequest(Asking):
    """An officer asks how well the fleet is covered.

    silent_days: after how many days without a sign of life a principal counts as silent. after: the last principal
    of the page before, or null.
    """

    TYPE: ClassVar[str] = media_type("coverage-request")

    silent_days: Annotated[int, Field(ge=1, le=limits.SILENT_DAYS_MAX)]
    after: Principal | None


class GapState(StrEnum):
    """In what a principal or a record of it falls short; a record is counted once, by the first that applies."""

    MISSING = "missing"
    UNPROVABLE = "unprovable"
    STALE = "stale"
    OVERDUE = "overdue"
    DISCLOSED = "disclosed"
    STORED = "stored"
    SILENT = "silent"


class Gap(Part):
    """One shortfall.

    name: of the key; null where a principal has no key at all, is silent, or the name is lost. record: its id.
    since: when it was stored, found unprovable or stale, disclosed, due, or when the principal was last heard of.
    code: why it is unprovable.
    """

    principal: Principal
    state: Annotated[GapState, Field(strict=False)]
    name: Name | None
    record: Id | None
    since: Time | None
    code: Code | None


class Counts(Part):
    """Figures of the principals of one page.

    principals: enrolled. silent: of these, not heard of for long. missing: keys that should be there. The others
    count records: the newest of every name, and older ones with a shortfall; none that falls
    short and is replaced.
    """

    principals: _Count
    silent: _Count
    missing: _Count
    stored: _Count
    proven: _Count
    unprovable: _Count
    stale: _Count
    disclosed: _Count
    overdue: _Count


class Proving(Part):
    """How far the prover is: leaves of the escrow log, those never looked at, time of the oldest newest proof."""

    size: _Count
    backlog: _Count
    oldest_at: Time | None


class Coverage(Body):
    """How well the principals of one page are covered, in order of name; `next` is the last one looked at."""

    TYPE: ClassVar[str] = media_type("coverage")

    request: Id
    request_digest: Digest
    roster_version: RosterVersion
    as_of: Time
    proving: Proving
    counts: Counts
    gaps: Annotated[list[Gap], Field(max_length=limits.COVERAGE_GAPS_MAX)]
    next: Principal | None


# ---- logs ----------------------------------------------------------------------------------------------


class LogPageRequest(Asking):
    """An officer with role `audit` asks for the leaves of a log from index `first` on."""

    TYPE: ClassVar[str] = media_type("log-page-request")

    log: LogText
    first: LeafIndex


class LogEntry(Part):
    """What the database holds at one place of a log.

    leaf: null when it is missing. nodes: the stored hashes of the complete subtrees that end with this leaf, from
    level 0 up, null for one that is missing or no hash. statement: whether the statement is attached to the reply;
    false when the database has none, or none that can be read. rows: of an escrow statement, the record ids in the
    database's index. has_release: of the recovery log, whether the database holds a release for this place.
    """

    index: LeafIndex
    leaf: Bytes | None
    nodes: Annotated[list[Hash | None], Field(min_length=1, max_length=63)]
    statement: bool
    rows: Annotated[list[_RowId], Field(max_length=2 * limits.RECORDS_MAX)]
    has_release: bool


class LogPage(Body):
    """Leaves of a log in order, as many as fit; `checkpoint` is the log's newest checkpoint proper, a signed note.

    The statements that the leaves name are attached to the reply, in the order of the entries that have one.
    checkpoint: in UTF-8; null for a log without leaves.
    """

    TYPE: ClassVar[str] = media_type("log-page")

    request: Id
    request_digest: Digest
    roster_version: RosterVersion
    log: LogText
    checkpoint: Bytes | None
    entries: Annotated[list[LogEntry], Field(max_length=limits.LOG_PAGE_LEAVES_MAX)]
