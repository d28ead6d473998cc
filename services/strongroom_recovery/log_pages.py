"""Log pages: what the database holds of a log, shown to auditors as it is, for them to judge (SPEC 5.15)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from strongroom.audits import LogEntry, LogPage, LogPageRequest, LogText
from strongroom.crypto.notes import verify_checkpoint
from strongroom.crypto.tlog import HASH_BYTES, Node
from strongroom.database import Transaction
from strongroom.errors import CheckpointInvalid, PermanentError, ProofInvalid
from strongroom.limits import ENVELOPE_BYTES_MAX, LOG_PAGE_LEAVES_MAX, RECORDS_MAX
from strongroom.mandates import Role
from strongroom.schema import load_queries
from strongroom.statements import Statement, canonical_json, parse_envelope
from strongroom_recovery.desk import Answer, Desk, Hints
from strongroom_recovery.handler import Submission, check_officers_question

REPLY_ROOM_BYTES: Final = 1_572_864  # with a roster and the rest it stays below the broker's 2 MiB a message

_CHECKPOINTS_TRIED_MAX: Final = 64  # false rows that somebody put before the true ones

_SQL: Final = load_queries("pages")


@dataclass(frozen=True, slots=True)
class _Rows:
    """What was read of a range of a log, each by leaf index; nothing of it is believed, and nothing repaired."""

    leaves: Mapping[int, bytes]
    nodes: Mapping[Node, bytes]
    statements: Mapping[int, Statement]
    ids: Mapping[int, list[str]]
    releases: frozenset[int]


async def show_log(desk: Desk, submission: Submission, asked: LogPageRequest, hints: Hints, now: int) -> Answer:
    """Answer a log page request with a signed page and the statements it speaks of, or with a rejection.

    Nothing is written. Raises PermanentError when the requester cannot be verified, RosterExpired,
    DatabaseUnavailable.
    """
    async with desk.database.transaction() as tx:
        await desk.begin(tx, now)
        await desk.verify_sender(tx, submission.statement, asked.authority, asked.requester, asked.requester_kind)
        try:
            check_officers_question(asked, desk.registry.roster, {Role.AUDIT}, now)
        except PermanentError as error:
            return Answer("refused", desk.reply(hints, desk.rejection(submission, error, now)), error)
        page, attached = await _page(desk, tx, asked, submission.digest)
    statement = Statement.sign(LogPage.TYPE, page.to_bytes(), desk.reply_key)
    return Answer("listed", desk.reply(hints, statement, attached=attached))


async def _page(
    desk: Desk, tx: Transaction, asked: LogPageRequest, digest: bytes
) -> tuple[LogPage, tuple[Statement, ...]]:
    note, size = await _checkpoint(desk, tx, asked.log)
    end = min(asked.first + LOG_PAGE_LEAVES_MAX, size)
    rows = await _read(tx, asked.log, asked.first, end)
    page = LogPage(
        authority=asked.authority,
        request=asked.id,
        request_digest=digest.hex(),
        roster_version=desk.registry.roster.body.version,
        log=asked.log,
        checkpoint=None if note is None else note.encode(),
        entries=[],
    )
    entries: list[LogEntry] = []
    attached: list[Statement] = []
    used = 0
    for index in range(asked.first, end):
        statement = rows.statements.get(index)
        entry = LogEntry(
            index=index,
            leaf=rows.leaves.get(index),
            nodes=[rows.nodes.get(node) for node in _completed(index)],
            statement=statement is not None,
            rows=rows.ids.get(index, []),
            has_release=index in rows.releases,
        )
        used += _room_of(entry, statement)
        if entries and used > REPLY_ROOM_BYTES:
            break
        entries.append(entry)
        if statement is not None:
            attached.append(statement)
    return page.model_copy(update={"entries": entries}), tuple(attached)


def _room_of(entry: LogEntry, statement: Statement | None) -> int:
    """Return how many bytes an entry takes in a reply: itself in base64, its statement as it is."""
    written = len(canonical_json(entry.model_dump(mode="json")))
    return written * 4 // 3 + 8 + (0 if statement is None else len(statement.envelope()))


async def _checkpoint(desk: Desk, tx: Transaction, log: LogText) -> tuple[str | None, int]:
    """Return the newest checkpoint proper of a log and its size; none for an empty log, or when it was spoilt."""
    if log == "recovery":
        published = await desk.writer.published()
        return (published.note, published.size) if published.size else (None, 0)
    key = desk.registry.roster.body.logs.escrow
    try:
        head = await desk.escrow_log.head(tx)
    except ProofInvalid:
        return None, 0  # nothing was ever escrowed
    for row in await tx.fetch(_SQL["escrow_published"], head.size, _CHECKPOINTS_TRIED_MAX):
        try:
            checkpoint = verify_checkpoint(row["note"], key.origin, key.public_key)
        except CheckpointInvalid:
            continue
        if checkpoint.size == row["size"]:
            return row["note"], checkpoint.size
    return None, 0


async def _read(tx: Transaction, log: LogText, first: int, end: int) -> _Rows:
    if first >= end:
        return _Rows({}, {}, {}, {}, frozenset())
    leaves = await tx.fetch(_SQL["leaves"].replace("{log}", log), first, end)
    wanted = [node for index in range(first, end) for node in _completed(index)]
    levels, indexes = zip(*wanted, strict=True)
    nodes = await tx.fetch(_SQL["nodes"].replace("{log}", log), levels, indexes)
    rows = await tx.fetch(_SQL["rows"], first, end, 2 * RECORDS_MAX) if log == "escrow" else []
    releases = await tx.fetch(_SQL["releases"], first, end) if log == "recovery" else []
    return _Rows(
        leaves={row["index"]: row["leaf"] for row in leaves},
        nodes={Node(row["level"], row["index"]): row["hash"] for row in nodes if len(row["hash"]) == HASH_BYTES},
        statements=await _statements(tx, log, first, end),
        ids={row["leaf_index"]: [str(id_) for id_ in row["ids"]] for row in rows},
        releases=frozenset(row["leaf_index"] for row in releases),
    )


async def _statements(tx: Transaction, log: LogText, first: int, end: int) -> dict[int, Statement]:
    """Return the statements of a range of leaves that can be read, as many from the first on as a reply holds."""
    sizes = {row["leaf_index"]: row["bytes"] for row in await tx.fetch(_SQL[f"{log}_sizes"], first, end)}
    wanted: list[int] = []
    total = 0
    for index in sorted(sizes):
        if sizes[index] > ENVELOPE_BYTES_MAX:
            continue
        total += sizes[index]
        wanted.append(index)
        if total > REPLY_ROOM_BYTES:
            break  # it is the first that does not fit, so that the page ends before it and not before its neighbour
    found: dict[int, Statement] = {}
    for row in await tx.fetch(_SQL[f"{log}_envelopes"], wanted):
        try:
            found[row["leaf_index"]] = parse_envelope(row["envelope"])
        except PermanentError:
            continue  # the auditor sees that there is none
    return found


def _completed(index: int) -> list[Node]:
    """Name the complete subtrees that end with a leaf, from level 0 up."""
    nodes = [Node(0, index)]
    while nodes[-1].index % 2:
        nodes.append(Node(nodes[-1].level + 1, nodes[-1].index // 2))
    return nodes
