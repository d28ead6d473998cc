"""Taking in keys that another authority has moved here: sealed as they are, under their own ids (SPEC 5.18)."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from strongroom.crypto.sealing import kid
from strongroom.errors import MalformedStatement, RecordConflict
from strongroom.fields import validated
from strongroom.messages import Destination, Record, RecordDescription
from strongroom.roster import Roster, check_authority
from strongroom_agent.delivery import WINDOW_STATEMENTS_MAX
from strongroom_agent.import_entries import RefusedEntry
from strongroom_agent.importing import WAIT_SECONDS, Imported, Importer, Progress
from strongroom_agent.packing import signed
from strongroom_agent.spool import Packed
from strongroom_agent.transfer_file import Moved, TransferFile


class Receiver(Importer):
    """An agent to whose principal keys are moved."""

    async def take_in(
        self,
        path: Path,
        *,
        root_key: bytes | None,
        dry_run: bool = False,
        refuse: Callable[[RefusedEntry], None] = lambda _refusal: None,
        watch: Callable[[Progress], None] = lambda _progress: None,
        wait_seconds: float = WAIT_SECONDS,
    ) -> Imported:
        """Escrow every record of a transfer file, and have receipts for all; to repeat it does no harm.

        The whole file is checked before anything of it is escrowed. Every record keeps its id and all that is said
        about it, and is signed as of the time at which it was issued there, so that the newest key of a name stays
        the newest; what it took the place of there is not carried over. Whether the keys open here the authority's
        prover finds out. Arguments: `root_key` (32 bytes) of the source; without it nothing shows that what is in
        the file came from there. The others, and what is told and not raised, as for `import_keys`. Raises
        UsageError for a file that is none; RosterInvalid, SignatureInvalid, ProofInvalid or CheckpointInvalid for
        one that the source does not vouch for; MalformedStatement, LimitExceeded, WrongAuthority, Denied or
        KeyUnknown for one that is damaged, or for another authority, principal or key.
        """
        self._require_principal()
        file = TransferFile(path)
        source = None if root_key is None else Roster.verified(file.roster, root_key)
        roster = self._trust().newest if dry_run else await self._current_roster(wait_seconds)
        for _ in self._verified(file, source, roster):
            pass
        done, ids = Imported(), list[str]()
        began = time.monotonic()
        flight = self._flight(wait_seconds, WINDOW_STATEMENTS_MAX)
        try:
            if not dry_run:
                await flight.clear(self._spool.spooled())
            for number, moved in enumerate(self._verified(file, source, roster), start=1):
                fresh = self._fresh(moved, done, refuse)
                ids.extend(record.id for record in moved.release.records)
                for issued_at, records in fresh:
                    if not dry_run:
                        packed = self._signed(records, issued_at, roster)
                        self._spool.add(packed, issued_at)
                        await flight.take([each.id for each in packed])
                    done.fresh += len(records)
                    if flight.error is not None:
                        break
                watch(Progress(done.entries, number, file.header.releases, time.monotonic() - began))
                if flight.error is not None:
                    break
            await flight.land()
        except BaseException:
            await flight.abandon()
            raise
        done.error = flight.error
        states = [self._spool.state_of(id_) for id_ in ids]
        done.stored, done.spooled = states.count("stored"), states.count("spooled")
        done.rejected = states.count("rejected")
        return done

    def _verified(self, file: TransferFile, source: Roster | None, roster: Roster) -> Iterator[Moved]:
        """Give every release of a file once it is checked; raises as `take_in`."""
        own = Destination(authority=roster.body.authority, principal=self._home.config.name)
        if source is not None:
            check_authority(file.header.authority, source)
        for moved in file.moved():
            moved.check_for(own, roster)
            if (moved.request.authority, moved.request.principal) != (file.header.authority, file.header.principal):
                raise MalformedStatement("transfer: a release of other keys than its first line says")
            if source is not None:
                moved.check_signed(source)
            yield moved

    def _fresh(
        self, moved: Moved, done: Imported, refuse: Callable[[RefusedEntry], None]
    ) -> list[tuple[int, list[Record]]]:
        """Return what of a release is not in the spool, by time of issue; records of one time go together."""
        recipient = kid(moved.request.recipient_suite, moved.request.recipient_key)
        fresh: list[tuple[int, Record]] = []
        for given in moved.release.records:
            done.entries += 1
            held = self._spool.fingerprint(given.id)
            if held is not None:
                if held == given.moved_fingerprint:
                    done.unchanged += 1
                    continue
                words = "this home holds another record of this id"
                refusal = RefusedEntry(done.entries, given.name, RecordConflict.code, f"record {given.id}: {words}")
                done.refuse(refusal)
                refuse(refusal)
                continue
            described = given.model_dump(include=set(RecordDescription.model_fields))
            here = {
                "fingerprint": given.moved_fingerprint,
                "kid": recipient,
                "suite": moved.request.recipient_suite,
                "blob": given.blob,
            }
            # Never ahead of this clock: the authority would take it for one that is wrong.
            fresh.append((min(given.issued_at, self._now), validated({**described, **here}, Record)))
        fresh.sort(key=lambda each: (each[0], each[1].id))
        return [
            (issued_at, [record for _, record in group])
            for issued_at, group in groupby(fresh, key=lambda each: each[0])
        ]

    def _signed(self, records: Sequence[Record], issued_at: int, roster: Roster) -> list[Packed]:
        return signed(
            records,
            authority=roster.body.authority,
            principal=self._home.config.name,
            signing_key=self._unlocked,
            issued_at=issued_at,
            salts={},
        )
