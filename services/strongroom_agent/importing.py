"""Bringing existing keys into escrow, as many as there are: begun again at any moment, each gets there once."""

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final

from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import Busy, ExitCode, PermanentError, Rejected, StrongroomError, TransientError
from strongroom.limits import RECORDS_MAX
from strongroom.roster import Roster
from strongroom.statements import canonical_json
from strongroom_agent.agent import Agent
from strongroom_agent.checks import read_checks
from strongroom_agent.delivery import Delivery
from strongroom_agent.import_entries import Found, RefusedEntry
from strongroom_agent.import_sources import Source
from strongroom_agent.packing import KeyToEscrow, issue_time, judge, pack
from strongroom_agent.spool import Packed
from strongroom_agent.state import State

WAIT_SECONDS: Final = 120.0
FLIGHT_STATEMENTS: Final = 16
"""So many statements go out together, while others are made: the spool holds at most twice as many unsent."""

_GROUP_BYTES_MAX: Final = 700_000  # of key material; what does not fit into one statement makes a second one


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is: entries that were looked at, and how much of the source was read."""

    entries: int
    done: int
    size: int
    seconds: float

    @property
    def rate(self) -> float:
        """Entries a second."""
        return self.entries / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the rate so far; None before anything was read."""
        return self.seconds * (self.size - self.done) / self.done if self.done else None


@dataclass(slots=True)
class Imported:
    """What became of a source.

    entries: looked at. fresh: new or changed, and now in the spool (in a dry run: what would be). unchanged: in the
    spool or stored since an earlier run. refused: entries that are no keys. stored, spooled, rejected: records of
    this source by what became of their statements, earlier runs included. error: why the rest of the source was not
    read, or why something is still spooled. codes: how often each code of a refusal came.
    """

    entries: int = 0
    fresh: int = 0
    unchanged: int = 0
    refused: int = 0
    stored: int = 0
    spooled: int = 0
    rejected: int = 0
    error: StrongroomError | None = None
    codes: dict[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> ExitCode:
        """DONE: all stored. TRY_LATER: the same command goes on. FAILED: something was refused, here or there."""
        if self.rejected or (self.error is not None and not isinstance(self.error, TransientError)):
            return ExitCode.FAILED
        if self.spooled or self.error is not None:
            return ExitCode.TRY_LATER
        return ExitCode.FAILED if self.refused else ExitCode.DONE

    def refuse(self, refusal: RefusedEntry) -> None:
        """Count one."""
        self.refused += 1
        self.codes[refusal.code] = self.codes.get(refusal.code, 0) + 1


class Journal:
    """What of a source was put into the spool, so that it is not done twice; in the home's state.

    The digests are made under a key of this home. Whoever reads the home can try guesses of a weak key on them, as
    its owner can on the source.
    """

    def __init__(self, state: State, source: str, *, read_only: bool = False) -> None:
        """Work on the entries of this source; with `read_only` nothing is noted."""
        self._state = state
        self._source = source
        self._key = self._kept_key() or Secret(secrets.token_bytes(32))
        if not read_only:
            state.execute("INSERT INTO import_key VALUES (0, ?) ON CONFLICT DO NOTHING", self._key.expose())
            self._key = self._kept_key() or self._key
        # Of this run and connection: rows of a name that was there before are told from changed ones.
        state.execute("CREATE TEMP TABLE IF NOT EXISTS import_names (name TEXT PRIMARY KEY) WITHOUT ROWID")
        state.execute("DELETE FROM import_names")

    def _kept_key(self) -> Secret | None:
        rows = self._state.rows("SELECT key FROM import_key")
        return Secret(rows[0][0]) if rows else None

    def is_first(self, name: str) -> bool:
        """Say whether this run has not seen the name before."""
        return bool(self._state.execute("INSERT OR IGNORE INTO import_names VALUES (?)", name))

    def digest(self, key: KeyToEscrow) -> bytes:
        """Return what tells a key, and what is said of it, from every other; 32 bytes."""
        wrapped = key.wrapped
        said = canonical_json(
            {
                "name": key.name,
                "kind": key.kind,
                "description": key.description,
                "serial_number": key.serial_number,
                "algorithm": key.algorithm,
                "labels": dict(key.labels),
                "wrapped": None if wrapped is None else [wrapped.format, wrapped.padding, wrapped.kid],
            }
        )
        made = hmac.new(self._key.expose(), len(said).to_bytes(4, "big") + said, hashlib.sha256)
        made.update(key.material.expose())
        return made.digest()

    def has(self, name: str, digest: bytes) -> bool:
        """Say whether this is what was imported last under a name."""
        rows = self._state.rows(
            "SELECT 1 FROM imports WHERE source = ? AND name = ? AND digest = ?", self._source, name, digest
        )
        return bool(rows)

    def note(self, name: str, digest: bytes, record: str) -> None:
        """Write down what is imported now; call it in the transaction that brings the record."""
        self._state.execute(
            "INSERT OR REPLACE INTO imports VALUES (?, ?, ?, ?)", self._source, name, digest, record
        )

    def counts(self) -> dict[str, int]:
        """Return how many records of the source are in statements of each state."""
        return dict(
            self._state.rows(
                "SELECT state, count(*) FROM imports JOIN records ON records.id = imports.record"
                " JOIN statements ON statements.id = records.statement WHERE source = ? GROUP BY state",
                self._source,
            )
        )


Fresh = tuple[KeyToEscrow, bytes]
"""A key that is to be escrowed, and its digest in the journal."""


class Importer(Agent):
    """An agent that is handed more keys than memory holds."""

    async def import_keys(
        self,
        source: Source,
        *,
        dry_run: bool = False,
        refuse: Callable[[RefusedEntry], None] = lambda _refusal: None,
        watch: Callable[[Progress], None] = lambda _progress: None,
        wait_seconds: float = WAIT_SECONDS,
    ) -> Imported:
        """Escrow every key of a source that was not escrowed from it before, and have receipts for all.

        A key is in the spool and in the journal together or not at all. While some statements are under way the
        next are made; when the authority does not answer for `wait_seconds`, or refuses, reading ends, and the same
        call goes on from there. Trouble with the authority is told by the result and never raised. Arguments:
        `refuse` is told of every entry that is no key, `watch` how far it is; `dry_run` changes and sends nothing.
        Raises UsageError for a source that cannot be read and for an officer's home, ConfigurationInvalid,
        KeyFileInvalid, StateCorrupt and TransientError for the home; Busy when another import of the same source
        comes between.
        """
        self._require_principal()
        journal = Journal(self._state, source.id, read_only=dry_run)
        done = Imported()
        began = time.monotonic()

        def tell(refusal: RefusedEntry) -> None:
            done.refuse(refusal)
            refuse(refusal)

        roster = self._trust().newest if dry_run else await self._current_roster(wait_seconds)
        groups = self._groups(source, journal, roster, done, tell)
        flight = self._flight(wait_seconds, FLIGHT_STATEMENTS)
        try:
            if not dry_run:
                await flight.clear(self._spool.spooled())
            while flight.error is None and (group := next(groups, None)) is not None:
                if not dry_run:
                    await flight.take(await self._spooled(group, journal, wait_seconds))
                done.fresh += len(group)
                watch(Progress(done.entries, source.done, source.size, time.monotonic() - began))
            await flight.land()
        except BaseException:
            await flight.abandon()
            raise
        finally:
            groups.close()
        done.error = flight.error
        counts = journal.counts()
        done.stored, done.spooled = counts.get("stored", 0), counts.get("spooled", 0)
        done.rejected = counts.get("rejected", 0)
        return done

    def _flight(self, wait_seconds: float, statements: int) -> "Flight":
        return Flight(partial(self._deliver, wait_seconds=wait_seconds, until_proven=False), statements)

    @cached_property
    def _unlocked(self) -> SigningKey:
        return self._signing_key()

    @cached_property
    def _compared(self) -> frozenset[str]:
        return frozenset(check.name for check in read_checks(self._home) if check.gives_key)

    def _groups(
        self,
        source: Source,
        journal: Journal,
        roster: Roster,
        done: Imported,
        refuse: Callable[[RefusedEntry], None],
    ) -> Generator[list[Fresh], None, None]:
        """Give what is new, as much at a time as about fits into a statement; now and then nothing, to go on."""
        group: list[Fresh] = []
        size = since = 0
        for entry in source.entries():
            done.entries += 1
            since += 1
            fresh = _judged(entry, journal, roster)
            if isinstance(fresh, RefusedEntry):
                refuse(fresh)
            elif fresh is None:
                done.unchanged += 1
            else:
                group.append(fresh)
                size += len(fresh[0].material)
            if len(group) == RECORDS_MAX or size > _GROUP_BYTES_MAX or since == 16 * RECORDS_MAX:
                yield group
                group, size, since = [], 0, 0
        yield group

    async def _spooled(self, group: Sequence[Fresh], journal: Journal, wait_seconds: float) -> list[str]:
        if not group:
            return []
        roster = await self._current_roster(wait_seconds)
        issued_at = issue_time(self._spool, self._now)
        # In a thread, so that what is under way goes on meanwhile.
        packed = await asyncio.to_thread(
            pack,
            self._renewal().succeeding([key for key, _ in group]),
            principal=self._home.config.name,
            roster=roster,
            signing_key=self._unlocked,
            now=issued_at,
            compared=self._compared,
        )
        self._keep(packed, {key.name: digest for key, digest in group}, journal, issued_at)
        return [each.id for each in packed]

    def _keep(self, packed: Sequence[Packed], digests: dict[str, bytes], journal: Journal, issued_at: int) -> None:
        with self._state.transaction():
            for name, digest in digests.items():
                if journal.has(name, digest):
                    raise Busy("another import of the same source is under way", hint="wait until it has ended")
            self._spool.add(packed, issued_at)
            for each in packed:
                for record in each.records:
                    journal.note(record.name, digests[record.name], record.id)


def _judged(entry: Found | RefusedEntry, journal: Journal, roster: Roster) -> Fresh | RefusedEntry | None:
    """Return what is to be escrowed; None for what was, unchanged; a refusal for what cannot be."""
    if isinstance(entry, RefusedEntry):
        return entry
    key = entry.key
    if not journal.is_first(key.name):
        return RefusedEntry(entry.row, key.name, "duplicate", "name: an earlier entry of the same source has it")
    digest = journal.digest(key)
    if journal.has(key.name, digest):
        return None
    try:
        judge(key, roster)
    except PermanentError as error:
        return RefusedEntry(entry.row, key.name, error.code, error.message)
    return key, digest


class Flight:
    """Statements on their way: some under way, others gathering until those have arrived."""

    def __init__(self, deliver: Callable[[list[str]], Awaitable[Delivery]], statements: int) -> None:
        """Let `statements` fly together."""
        self._deliver = deliver
        self._statements = statements
        self._gathered: list[str] = []
        self._under_way: asyncio.Task[None] | None = None
        self.error: StrongroomError | None = None

    async def clear(self, ids: Sequence[str]) -> None:
        """Deliver what was spooled before, oldest first."""
        for start in range(0, len(ids), self._statements):
            if self.error is None:
                await self._fly(list(ids[start : start + self._statements]))

    async def take(self, ids: Sequence[str]) -> None:
        """Take spooled statements along, and wait only when enough are gathered and others still under way."""
        self._gathered.extend(ids)
        if len(self._gathered) >= self._statements:
            await self._arrived()
            if self.error is None:
                self._under_way = asyncio.create_task(self._fly(self._gathered))
                self._gathered = []

    async def land(self) -> None:
        """Wait for everything, unless something is wrong; what stays behind stays in the spool."""
        await self._arrived()
        if self._gathered and self.error is None:
            await self._fly(self._gathered)

    async def abandon(self) -> None:
        """Wait for nothing any more."""
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.wait({self._under_way})

    async def _arrived(self) -> None:
        if self._under_way is not None:
            await self._under_way
            self._under_way = None

    async def _fly(self, ids: list[str]) -> None:
        delivery = await self._deliver(ids)
        refused = next((row for row in delivery.records if row.state == "rejected"), None)
        if refused is None:
            self.error = delivery.error
            return
        # What the authority says of one statement it would say of those that follow.
        self.error = Rejected(
            f"the authority refuses keys of this host: {refused.message}",
            remote_code=refused.code or "",
            hint="when the cause is gone, `strongroom sync --retry-rejected`, and give the same command again",
        )
