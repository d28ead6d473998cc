"""The agent: everything a host or an officer asks of the authority, over one home."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Final

from strongroom.errors import Expired, StrongroomError, UsageError
from strongroom.limits import SUPERSEDES_MAX
from strongroom.messages import ListedRecord, UnreadableRecord
from strongroom.roster import Roster
from strongroom_agent import age, enrolment, files, listing, worthless_receipts
from strongroom_agent.attestation import Attesting, AttestReport, Examined, examine
from strongroom_agent.caller import ASK_SECONDS
from strongroom_agent.cases import Case
from strongroom_agent.checks import Check, keep_checks, read_checks
from strongroom_agent.countersigning import SentInvitation
from strongroom_agent.delivery import Courier, Delivery
from strongroom_agent.docket import VerifiedDocket
from strongroom_agent.home import Role
from strongroom_agent.kept_requests import KeptRequests, Selection
from strongroom_agent.listing import RecordsPage
from strongroom_agent.live_keys import Place, look_at, read_identity
from strongroom_agent.officer import OfficerCalls
from strongroom_agent.packing import KeyToEscrow, issue_time, pack
from strongroom_agent.patience import Deadline, patiently
from strongroom_agent.proving import Watching
from strongroom_agent.recovery import Inquiry, RecoveredKey, Recovery
from strongroom_agent.renewal import Renewal
from strongroom_agent.session import Session
from strongroom_agent.spool import Spool
from strongroom_agent.standings import Standings
from strongroom_agent.sync import Sync, SyncReport
from strongroom_agent.verdicts import Recorded
from strongroom_agent.waiting import Asked, Unreleased, Watch, pursue

__all__ = [
    "Agent",
    "Asked",
    "AttestReport",
    "Case",
    "Delivery",
    "Examined",
    "KeyToEscrow",
    "Recorded",
    "RecordsPage",
    "RecoveredKey",
    "Recovery",
    "SealedFile",
    "SentInvitation",
    "SyncReport",
    "Unreleased",
    "VerifiedDocket",
]

ESCROW_SECONDS: Final = 30.0
SYNC_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A sealed file and its session key's way into escrow; `name` is what `recover` asks for."""

    path: Path
    name: str
    record_id: str
    delivery: Delivery


class Agent(OfficerCalls):
    """Works for the owner of one home; use it as a context manager, see `Caller`."""

    @cached_property
    def _spool(self) -> Spool:
        return Spool(self._state)

    @cached_property
    def _standings(self) -> Standings:
        return Standings(self._state)

    def _place(self) -> Place:
        authority, _ = self._home.authority()
        return Place(authority, self._home.config.name)

    def _renewal(self) -> Renewal:
        return Renewal(self._spool, self._standings, self._place())

    # ---- escrow ----

    async def escrow(
        self,
        keys: Sequence[KeyToEscrow],
        *,
        wait_seconds: float = ESCROW_SECONDS,
        until_proven: bool = False,
        checks: Sequence[Check] = (),
    ) -> Delivery:
        """Seal keys, put them into the spool, and try for `wait_seconds` to have receipts for them.

        A key takes the place of the records of its name that the last listing left in need of it, unless it says
        itself of which. Whatever happens after the spool holds them is told by the Delivery and never raised;
        `wait_seconds` of 0 sends nothing. Arguments: with `until_proven`, that is waited for within the same
        time; `checks` are added to those of the home. Raises, with nothing spooled, LimitExceeded or
        MalformedStatement for a key that breaks a limit or is not of its kind, what `packing.judge` raises for one
        that is not wrapped as is said, Expired for a roster that cannot be renewed, KeyFileInvalid, UsageError for
        an officer's home, ConfigurationInvalid for its checks, and TransientError for a disk that takes nothing.
        """
        self._require_principal()
        compared = {check.name for check in (*read_checks(self._home), *checks) if check.gives_key}
        roster = await self._current_roster(wait_seconds)
        issued_at = issue_time(self._spool, self._now)
        packed = pack(
            self._renewal().succeeding(keys),
            principal=self._home.config.name,
            roster=roster,
            signing_key=self._signing_key(),
            now=issued_at,
            compared=compared,
        )
        self._spool.add(packed, issued_at)
        if checks:
            keep_checks(self._home, checks)
        return await self._deliver([each.id for each in packed], wait_seconds, until_proven=until_proven)

    def _require_principal(self) -> None:
        if self._home.config.role is not Role.PRINCIPAL:
            raise UsageError(f"{self._home.path}: is an officer's home; keys are escrowed by enrolled hosts")

    async def _current_roster(self, wait_seconds: float) -> Roster:
        try:
            return self._roster()
        except Expired:
            if not wait_seconds:
                raise
        # A newer roster comes with any answer.
        await self.records(limit=1, wait_seconds=wait_seconds)
        return self._roster()

    async def _deliver(self, ids: list[str], wait_seconds: float, *, until_proven: bool) -> Delivery:
        courier = Courier(self._spool, ids)
        watching = Watching(self._home, self._spool, self._standings, self._signing_key)
        error: StrongroomError | None = None

        async def attempt(session: Session, deadline: Deadline) -> None:
            await enrolment.finish(self._home, session, deadline)
            await courier.deliver(session, deadline)
            if until_proven:
                await watching.look(ids, session, deadline)

        if ids and wait_seconds:
            try:
                await self._patiently(attempt, wait_seconds)
            except StrongroomError as caught:
                self._spool.note_failures(dict.fromkeys(courier.unsent, f"{caught.code}: {caught.message}"))
                error = caught
        counts = list(self._spool.states(ids).values())
        return Delivery(
            records=tuple(self._spool.of_statements(ids)),
            stored=counts.count("stored"),
            rejected=counts.count("rejected"),
            spooled=counts.count("spooled"),
            error=courier.doubt or error or courier.postponed,
            until_proven=until_proven,
        )

    def requeue(self, statement_id: str) -> None:
        """Let a rejected statement go out again with the next `sync`; NotFound if it is not rejected."""
        self._spool.requeue(statement_id)

    # ---- sync ----

    async def sync(
        self, *, wait_seconds: float = SYNC_SECONDS, compare: bool = True, retry_rejected: bool = False
    ) -> SyncReport:
        """Send everything that is spooled, take a newer roster, and compare with what the authority lists.

        Keys that the authority cannot give back, and those that are not the live ones any more, are escrowed anew
        where a check of this home gives the live key; and the authority is told how the live keys compare. Before
        the rest, an enrolment without a receipt is sent again; while it is not, nothing else is. A statement that
        is rejected here and listed there goes out again for its receipt, as does one whose receipt is by a log key
        that the roster does not name any more; with `retry_rejected` all rejected ones do. One connection serves
        for all of it unless it breaks. Trouble with the authority is told by the report and never raised. Raises
        ConfigurationInvalid, KeyFileInvalid, StateCorrupt and TransientError for the home.
        """
        version = self._trust().newest.body.version
        if retry_rejected:
            self._spool.requeue_rejected()
        worthless_receipts.let_go(self._state, self._trust().newest)
        checks = read_checks(self._home) if compare and self._home.config.role is Role.PRINCIPAL else ()
        live = await look_at(checks)
        sync = Sync(self._home, self._spool, self._standings, self._signing_key, live=live, compare=compare)
        error: StrongroomError | None = None
        try:
            if compare or self._spool.counts()["spooled"]:
                await self._patiently(sync.attempt, wait_seconds)
        except StrongroomError as caught:
            sync.note(caught)
            error = caught
        return sync.report(error, before=version, newest=self._trust().newest.body.version, now=self._now)

    async def attest(self, *, name: str | None = None, wait_seconds: float = ASK_SECONDS) -> AttestReport:
        """Compare the live keys with what is in escrow, as the checks of this home say, and put it on record.

        Arguments: `name` for one name alone. Trouble with the authority is told by the report and never raised.
        Raises ConfigurationInvalid, KeyFileInvalid and StateCorrupt for the home, UsageError for an officer's.
        """
        self._require_principal()
        checks = [check for check in read_checks(self._home) if name in (None, check.name)]
        if not checks:
            return AttestReport((), None, None, None)
        place = self._place()
        examined = examine(self._spool, place, await look_at(checks))
        attesting = Attesting(
            examined, authority=place.authority, principal=place.principal, key=self._signing_key(), now=self._now
        )
        error: StrongroomError | None = None

        async def attempt(session: Session, deadline: Deadline) -> None:
            await enrolment.finish(self._home, session, deadline)
            await attesting.deliver(session, deadline)

        if any(each.matches is not None for each in examined):
            try:
                await self._patiently(attempt, wait_seconds)
            except StrongroomError as caught:
                error = caught
        return AttestReport(examined, attesting.log_index, attesting.attested_at, error)

    def clear_evidence(self) -> int:
        """Let the receipts of a log count again that evidence is kept against; return how much was dropped.

        For an operator, after an auditor has compared the log with the evidence, which is gone then. The
        checkpoints held here stay: a log that does not continue them is found out again. Raises Busy.
        """
        with self._home.lock():
            return self._state.clear_evidence()

    # ---- recovery ----

    async def recover(
        self,
        *,
        name: str | None = None,
        records: Sequence[str] | None = None,
        principal: str | None = None,
        reason: str = "",
        unwrap: bool = False,
        anew: bool = False,
        follow: bool = False,
        watch: Watch = lambda _asked, _answer: None,
        wait_seconds: float = ASK_SECONDS,
    ) -> Recovery:
        """Get keys back: the newest one of a name, or records by id; exactly one of the two is given.

        Where policy asks for approvals or a delay, the request is kept in the home, and the same call takes it up
        again; `settle` of the result ends that. While no answer comes the same request is sent again, so that there
        is one release. Arguments: `principal` is whose keys, by default the owner's of this home; `unwrap` asks
        for what is inside wrapped keys, too, which at least one officer has to approve; `anew` drops a kept request
        and signs a new one; with `follow` it goes on asking while the request waits; `watch` is told. Raises
        UsageError for an officer without a reason; Unreleased when the authority lets the request wait or refuses
        it; ReplyInvalid, CheckpointInvalid, ProofInvalid, LogForked, BlobInvalid or FingerprintMismatch for
        an answer that is not to be believed; BrokerUnavailable, Unroutable, NoAnswer or Busy when it is worth
        calling again; MalformedStatement or LimitExceeded for what is asked; KeyFileInvalid or StateCorrupt for
        what is kept.
        """
        if self._home.config.role is Role.OFFICER and not reason.strip():
            raise UsageError("reason: an officer must give one; it stays on record", hint="say why with --reason")
        inquiry = Inquiry(
            self._home,
            self._signing_key(),
            Selection(principal or self._home.config.name, name, records, unwrap),
            reason=reason,
            kept=KeptRequests(self._home, self._passphrase),
            anew=anew,
            watch=watch,
        )

        async def prepare(_deadline: Deadline) -> None:
            with self._home.lock():
                inquiry.prepare(self._trust().newest, self._now)

        await patiently(prepare, wait_seconds=wait_seconds)
        if not follow:
            return await self._patiently(inquiry.make, wait_seconds)
        return await pursue(
            partial(self._patiently, inquiry.make), wait_seconds=wait_seconds, clock=self._clock, watch=watch
        )

    async def records(
        self,
        *,
        principal: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        wait_seconds: float = ASK_SECONDS,
    ) -> RecordsPage:
        """List the records of a principal, by default the owner's own, from the record id `after` on.

        Arguments: with `limit`, no more pages are asked for once that many records are there. Raises as `recover`
        does for what an answer can be.
        """
        reading = listing.Reading(self._home, self._signing_key(), principal or self._home.config.name, after=after)
        found: list[ListedRecord] = []

        unreadable: list[UnreadableRecord] = []

        async def attempt(session: Session, deadline: Deadline) -> RecordsPage:
            following: str | None = None
            async for page in reading.pages(session, deadline):
                found.extend(page.listing.records)
                unreadable.extend(page.listing.unreadable)
                following = page.listing.next
                if limit is not None and len(found) >= limit:
                    break
            return RecordsPage(tuple(found), following, tuple(unreadable))

        return await self._patiently(attempt, wait_seconds)

    # ---- files ----

    async def seal_file(
        self,
        path: Path,
        *,
        output: Path | None = None,
        overwrite: bool = False,
        wait_seconds: float = ESCROW_SECONDS,
        until_proven: bool = False,
        watch: files.Watch = files.unwatched,
    ) -> SealedFile:
        """Encrypt a file with age to the owner and to a fresh session key, and escrow that key.

        The key is in the spool before the sealed file appears at `output` (by default the path with `.age`
        added). Where a sealed file is overwritten, it takes the place of that one's key, if that needs it.
        Arguments: as for `escrow`; `path` may be a pipe, and `-` is standard input, which needs an `output`;
        `watch` is told how far it is. Raises UsageError for paths, TransientError for a file that changes while
        it is read, and what `escrow` raises.
        """
        self._require_principal()
        await self._current_roster(wait_seconds)
        target = output or path.with_name(path.name + files.SUFFIX)
        succeeded = self._succeeded_file(target) if overwrite else ()
        recipient = age.read_identities(self._home.age_key_file)[0].to_public()
        with files.sealing(path, target, recipient, overwrite=overwrite, watch=watch) as session_key:
            spooled = await self.escrow([replace(session_key, supersedes=succeeded)], wait_seconds=0)
        delivery = await self._deliver([spooled.records[0].statement], wait_seconds, until_proven=until_proven)
        return SealedFile(target, session_key.name, spooled.records[0].facts.id, delivery)

    def _succeeded_file(self, target: Path) -> tuple[str, ...]:
        """Return what the key of a sealed file takes the place of that is written over another one."""
        if not target.is_file():
            # Whoever opens a pipe would wait for its other end.
            return ()
        try:
            name = files.name_of(target)
        except UsageError:
            return ()
        return tuple(each.record for each in self._standings.needy(name))[:SUPERSEDES_MAX]

    async def escrow_session_key(
        self,
        path: Path,
        identity_file: Path,
        *,
        wait_seconds: float = ESCROW_SECONDS,
        until_proven: bool = False,
    ) -> Delivery:
        """Escrow the identity that opens an age file as its session key, so that `recover` finds it by the file.

        Raises BlobInvalid when none in `identity_file` opens it, KeyFileInvalid, UsageError for the identity of
        this home, and what `escrow` raises.
        """
        found = files.session_key_of(path, identity_file)
        if found.material == read_identity(self._home.age_key_file):
            raise UsageError(
                f"{identity_file}: holds this home's own identity, which opens every file sealed here",
                hint="who gets one file back would have them all: name a session key of this file's own",
            )
        return await self.escrow([found], wait_seconds=wait_seconds, until_proven=until_proven)

    def open_file(
        self, path: Path, *, output: Path | None = None, identity_file: Path | None = None, overwrite: bool = False
    ) -> Path:
        """Decrypt a sealed file with the owner's identity or another identity file; return where the content is.

        `output` is by default the path without `.age`. Raises BlobInvalid, KeyFileInvalid, UsageError.
        """
        target = output or files.default_output(path)
        with files.opening(path) as sealed:
            sealed.open_with_identities(identity_file or self._home.age_key_file, target, overwrite=overwrite)
        return target
