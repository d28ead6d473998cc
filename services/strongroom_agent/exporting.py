"""Moving keys to another authority: officers ask for them, sealed to its key, and write them into a file."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from strongroom.crypto.signing import SigningKey
from strongroom.errors import (
    ExitCode,
    LimitExceeded,
    PermanentError,
    ReplyInvalid,
    UsageError,
    by_code,
)
from strongroom.fields import Capacity, new_id, validated
from strongroom.limits import APPROVED_REQUEST_LIFE_SECONDS_MAX, RECORDS_MAX
from strongroom.messages import Destination, ListedRecord, RecordState, Request
from strongroom.roster import Roster
from strongroom.statements import Statement, parse_json
from strongroom_agent import listing
from strongroom_agent.agent import Agent
from strongroom_agent.asking import Sent
from strongroom_agent.files import check_free, new_file
from strongroom_agent.kept_exports import Chosen, KeptExport, LeftOut, Move
from strongroom_agent.patience import Deadline, patiently
from strongroom_agent.session import Answer, Session
from strongroom_agent.transfer_file import Header, Moved, TransferFile
from strongroom_agent.waiting import Asked, Unreleased

EXPORT_SECONDS: Final = 120.0


def move_to(principal: str, *, roster: Statement, root_key: bytes, to: str, now: int) -> Move:
    """Say where keys go: to the principal `to` of the authority whose roster this is, to its first active key.

    Raises RosterInvalid when that root key did not sign the roster, Expired when it has expired.
    """
    verified = Roster.verified(roster, root_key)
    verified.check_current(now)
    destination = Destination(authority=verified.body.authority, principal=to)
    return Move(principal, destination, verified.active_sealing_key())


@dataclass(slots=True)
class Exported:
    """How far an export is.

    records: that are to be moved. released: of these, already here. waiting: requests that are not answered with
    keys yet. refused: those that never will be; the same call asks anew for their records. left_out: what is not
    asked for. path: the transfer file, once it is there.
    """

    records: int = 0
    released: int = 0
    waiting: list[Unreleased] = field(default_factory=list)
    refused: list[Unreleased] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    path: Path | None = None

    @property
    def exit_code(self) -> ExitCode:
        """DONE: all is in the file. FAILED: all but what was left out. Else by what is refused or waited for."""
        if self.refused:
            return by_code(self.refused[0].remote_code).exit_code
        if self.waiting:
            is_waiting = any(each.is_waiting for each in self.waiting)
            return ExitCode.WAITING if is_waiting else ExitCode.TRY_LATER
        return ExitCode.FAILED if self.left_out or self.path is None else ExitCode.DONE


class Exporter(Agent):
    """An officer's agent that moves keys to another authority."""

    async def export(
        self,
        move: Move,
        *,
        records: Sequence[str] | None,
        reason: str,
        output: Path,
        overwrite: bool = False,
        anew: bool = False,
        watch: Callable[[Exported], None] = lambda _exported: None,
        wait_seconds: float = EXPORT_SECONDS,
    ) -> Exported:
        """Ask for records of a principal, or for all that can be moved; write the file once every one is here.

        Requests wait for officers' approvals as any other; until then each is kept in the home, and the same call
        takes them up again. What one release cannot hold is asked for in two. Arguments: `records` by id, None for
        all; `anew` drops what is kept of this export; `watch` is told after each answer. Raises OfficerUnknown for
        the home of a host; UsageError without a reason, for a file that is there, and for this authority as
        destination; ReplyInvalid, CheckpointInvalid, ProofInvalid or LogForked for an answer that is not to be
        believed; TransientError when it is worth calling again; StateCorrupt for what is kept.
        """
        self.check_is_officer()
        if not reason.strip():
            raise UsageError("reason: an officer must give one; it stays on record", hint="say why with --reason")
        if move.destination.authority == self._home.authority()[0]:
            raise UsageError(f"{move.destination.authority}: is the authority that the keys are with")
        check_free(output, overwrite=overwrite)
        done = Exported()
        kept = KeptExport(self._home, move, records)
        key = self._signing_key()
        chosen = Chosen(list(records)) if records is not None else Chosen([])
        if records is None and (anew or not kept.exists()):
            chosen = await self._all(move, wait_seconds)

        async def prepare(_deadline: Deadline) -> Exporting:
            with self._home.lock():
                if anew:
                    kept.discard()
                return Exporting(kept, kept.selection(chosen), done, move=move, reason=reason, key=key)

        exporting = await patiently(prepare, wait_seconds=wait_seconds)

        async def attempt(session: Session, deadline: Deadline) -> None:
            exporting.sign_missing(session)
            await exporting.ask(session, deadline, watch)

        await self._patiently(attempt, wait_seconds)
        if not done.waiting and not done.refused:
            with self._home.lock():
                exporting.write(output, self._trust().newest, overwrite=overwrite)
        return done

    async def _all(self, move: Move, wait_seconds: float) -> Chosen:
        """Return all records that can be moved, oldest first, and what is left out."""
        reading = listing.Reading(self._home, self._signing_key(), move.principal)
        found = Chosen([])

        async def attempt(session: Session, deadline: Deadline) -> None:
            async for page in reading.pages(session, deadline):
                for record in page.listing.records:
                    if (why := _immovable(record)) is None:
                        found.records.append(record.id)
                    else:
                        found.left_out.append(LeftOut(record.id, record.name, why))
                found.left_out.extend(
                    LeftOut(each.id, "", f"is not what was accepted ({each.code})")
                    for each in page.listing.unreadable
                )

        await self._patiently(attempt, wait_seconds)
        if not found.records:
            raise UsageError(f"{move.principal}: has no record that can be moved")
        return found


def _immovable(record: ListedRecord) -> str | None:
    if record.wrapping is not None:
        return "is wrapped to a transport key of this authority"
    if record.state is RecordState.UNPROVABLE:
        return f"cannot be opened ({record.code})"
    return None


class Exporting:
    """Asks for everything that one export lacks."""

    def __init__(
        self, kept: KeptExport, chosen: Chosen, done: Exported, *, move: Move, reason: str, key: SigningKey
    ) -> None:
        """Go on with what is kept, and tell `done` how far that is; `key` signs the requests."""
        self._kept = kept
        self._move = move
        self._reason = reason
        self._key = key
        self._chosen = chosen.records
        self._done = done
        self._sent = {each.request.id: each for each in kept.requests()}
        self._pending = deque(id_ for id_ in self._sent if not kept.is_released(id_))
        self._turned_down: set[str] = set()
        done.records = len(chosen.records)
        done.left_out = chosen.left_out
        self._count()

    def sign_missing(self, session: Session) -> None:
        """Sign requests for the records that none asks for; each is on disk before it is sent."""
        asked = {id_ for sent in self._sent.values() for id_ in sent.request.records or ()}
        missing = [id_ for id_ in self._chosen if id_ not in asked | self._turned_down]
        for start in range(0, len(missing), RECORDS_MAX):
            self._sign(session, missing[start : start + RECORDS_MAX])

    def _sign(self, session: Session, records: Sequence[str]) -> None:
        request = validated(
            {
                "authority": session.roster.body.authority,
                "id": new_id(),
                "issued_at": session.now,
                "expires_at": session.now + APPROVED_REQUEST_LIFE_SECONDS_MAX,
                "requester": self._kept.officer,
                "requester_kind": Capacity.OFFICER,
                "principal": self._move.principal,
                "records": list(records),
                "name": None,
                "reason": self._reason,
                "recipient_suite": self._move.recipient.suite,
                "recipient_key": self._move.recipient.public_key,
                "destination": self._move.destination.model_dump(),
            },
            Request,
        )
        sent = Sent(request, Statement.sign(Request.TYPE, request.to_bytes(), self._key), self._key.key_id)
        self._kept.keep(sent)
        self._sent[request.id] = sent
        self._pending.append(request.id)

    async def ask(self, session: Session, deadline: Deadline, watch: Callable[[Exported], None]) -> None:
        """Send every request that has no answer, one after the other; after a TransientError call it again."""
        while self._pending:
            sent = self._sent[self._pending[0]]
            answer = await sent.ask(session, deadline)
            self._take(session, sent, answer)
            self._pending.popleft()
            self._count()
            watch(self._done)

    def _take(self, session: Session, sent: Sent, answer: Answer) -> None:
        refusal = session.refusal(answer)
        if refusal is None:
            statement, _, _ = sent.released(session, answer)
            self._kept.keep_release(sent, Moved.line(sent.statement, statement, answer.reply.receipt or {}))
            return
        sent.check_on_record(session, answer, refusal)
        unreleased = Unreleased(refusal, self._asked(sent))
        if unreleased.is_open:
            self._done.waiting.append(unreleased)
            return
        self._kept.drop(sent.request.id)
        del self._sent[sent.request.id]
        records = sent.request.records or []
        if refusal.code == LimitExceeded.code and len(records) > 1:
            # Listings do not say how long keys are; nobody was asked to approve it.
            middle = len(records) // 2
            self._sign(session, records[:middle])
            self._sign(session, records[middle:])
            return
        self._turned_down.update(records)
        self._done.refused.append(unreleased)

    def _asked(self, sent: Sent) -> Asked:
        return Asked(
            id=sent.request.id,
            digest=sent.statement.digest.hex(),
            recipient_key=self._move.recipient.kid,
            principal=sent.request.principal,
            reason=sent.request.reason,
            issued_at=sent.request.issued_at,
            expires_at=sent.request.expires_at,
            is_kept=True,
            was_kept=False,
            unwrap=False,
        )

    def _count(self) -> None:
        self._done.released = sum(
            len(sent.request.records or ()) for id_, sent in self._sent.items() if self._kept.is_released(id_)
        )

    def write(self, output: Path, roster: Roster, *, overwrite: bool) -> None:
        """Write the transfer file, mode 0600, whole or not at all; what was kept for it is removed then.

        Raises ReplyInvalid, with the release dropped, for one that the newest roster does not vouch for any more.
        """
        order = {id_: place for place, id_ in enumerate(self._chosen)}
        sent = sorted(self._sent.values(), key=lambda each: order[(each.request.records or [""])[0]])
        header = Header(
            authority=roster.body.authority,
            principal=self._move.principal,
            destination=self._move.destination,
            releases=len(sent),
            records=self._done.released,
        )
        with new_file(output, overwrite=overwrite) as (_, stream):
            stream.write(TransferFile.first_line(header, roster.statement))
            for each in sent:
                stream.write(self._vouched(each.request.id, roster))
        self._kept.discard()
        self._done.path = output

    def _vouched(self, request: str, roster: Roster) -> bytes:
        line = self._kept.release(request)
        try:
            Moved.of(parse_json(line, what="transfer")).check_signed(roster)
        except PermanentError as error:
            self._kept.drop_release(request)
            raise ReplyInvalid(
                f"request {request}: its release does not verify any more: {error.message}",
                hint="give the same command again: it is asked for anew",
            ) from None
        return line
