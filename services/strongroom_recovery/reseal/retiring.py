"""Retiring a sealing key that no record needs any more: an entry in the recovery log, then its file put aside."""

import asyncio
import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from strongroom.crypto.tlog import EMPTY_ROOT
from strongroom.errors import RESTORE_HINT, KeyFileInvalid, NotFound, ProofInvalid, StateCorrupt, UsageError
from strongroom.leaves import RetirementLeaf
from strongroom.private_file import sync_folder
from strongroom.service import Health
from strongroom_recovery.opening import Opened
from strongroom_recovery.prover.wiring import Keys, prover_of
from strongroom_recovery.reseal import store
from strongroom_recovery.reseal.giving_up import check_hopeless
from strongroom_recovery.reseal.retirement import Verdict, judge

RETIRED_FOLDER: Final = "retired"

_TRIES: Final = 20
_PAUSE_SECONDS: Final = 0.25
_NAMED_MAX: Final = 20
_KEY_FILE_BYTES_MAX: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Retirement:
    """What came of it: the verdict, whether the log says now that the key is retired, and figures for people.

    before: when it was retired already, in seconds; None if it was not. needed, unseen: records by the database's
    index: those whose newest blob is sealed to the key, and those in places that the prover has to look at.
    principals: whose statements those are that have unprovable records, by escrow leaf, by that index, too.
    """

    verdict: Verdict
    is_retired: bool
    before: int | None
    needed: int
    unseen: int
    principals: Mapping[int, str] = field(default_factory=dict)

    @property
    def awaits_proof(self) -> bool:
        """Whether nothing but looks of the prover is missing, by the log and by the rows."""
        return not self.is_retired and self.verdict.awaits_proof and not self.needed


async def retire(
    means: Opened, keys: Keys, kid: str, *, give_up: Collection[str] = (), clock: Callable[[], float] = time.time
) -> Retirement:
    """Log that a sealing key is retired, if the log shows that nothing needs it (SPEC 7.7); committed on return.

    A fleet never stops sending: where nothing but the newest keys was not looked at, they are looked at here.
    Arguments: `give_up`, unprovable records that shall not keep it, all of them, spelled as by `name_of`.

    Raises NotFound for a key that nobody knows, UsageError for one in `give_up` that is not unprovable, or that
    this very key opens; RosterExpired and DatabaseUnavailable, and nothing was logged; FatalError, also for an
    escrow log that is shorter than the recovery log says. A key that is retired already is called so, whatever is
    given up.
    """
    prover = prover_of(means, keys, Health(None), None, clock=clock)
    stop = asyncio.Event()
    await check_hopeless(means, keys.sealing, kid, give_up)
    done = await _tried(means, keys, kid, give_up, int(clock()))
    for _ in range(_TRIES):
        if done.is_retired or not done.verdict.awaits_new_only:
            break
        if not await prover.turn(stop):
            await asyncio.sleep(_PAUSE_SECONDS)  # another prover is at it
        done = await _tried(means, keys, kid, give_up, int(clock()))
    return done


async def _tried(means: Opened, keys: Keys, kid: str, give_up: Collection[str], now: int) -> Retirement:
    appended = None
    async with means.database.transaction() as tx:
        await means.writer.lock(tx)
        await means.follower.advance(tx)
        roster = means.registry.current_roster(now)
        means.escrow_log.go_by(roster.body.logs.escrow)
        try:
            head = await means.escrow_log.head(tx)
            size, root = head.size, head.root
        except ProofInvalid:
            size, root = 0, EMPTY_ROOT
        before, reach = means.ledger.reseals.retired.get(kid), means.ledger.reach
        if before is None and size < reach:
            # Nothing would be unseen in a log whose checkpoint somebody has taken away.
            raise StateCorrupt(
                f"escrow log: its checkpoint has {size} leaves, and the recovery log speaks of {reach}",
                hint=RESTORE_HINT,
            )
        verdict = judge(kid, roster, means.ledger, size, give_up)
        if before is None and verdict.is_clear and (verdict.state is not None or kid in keys.sealing.kids):
            leaf = RetirementLeaf(time=now, kid=kid, size=size, root=root.hex(), given_up=verdict.given_up)
            appended = await means.writer.append(tx, [leaf.to_bytes()])
    if appended is not None:
        await means.writer.committed(appended)
    if appended is not None or before is not None:
        return Retirement(verdict, is_retired=True, before=before, needed=0, unseen=0)
    async with means.database.reading() as tx:
        by_key = await store.kids(tx)
        unseen = await store.records_within(tx, verdict.unseen)
        principals = await store.principals(tx, {each.index for each in verdict.unprovable})
    if verdict.state is None and kid not in by_key and kid not in keys.sealing.kids:
        raise NotFound(
            f"sealing key {kid}: neither the roster nor the keyring knows it",
            hint="`strongroom authority show` lists the keys of a roster",
        )
    if verdict.strangers:
        raise UsageError(
            f"{', '.join(verdict.strangers[:_NAMED_MAX])}: nothing that the prover calls unprovable",
            hint="without --give-up the command lists what is; name exactly that",
        )
    # Where the rows know nothing of what was opened, the log does.
    needed = by_key.get(kid, 0) or verdict.opened
    return Retirement(verdict, is_retired=False, before=None, needed=needed, unseen=unseen, principals=principals)


def put_aside(folder: Path, kid: str) -> Path | None:
    """Move the key file of a retired key out of the folder of sealing keys; return where it is now.

    It is on disk there on return. None where the folder has no such file. Raises KeyFileInvalid.
    """
    retired = folder / RETIRED_FOLDER
    try:
        path = next((each for each in sorted(folder.glob("*.key")) if _is_of(each, kid)), None)
        if path is None:
            return next((each for each in sorted(retired.glob("*.key")) if _is_of(each, kid)), None)
        retired.mkdir(mode=0o700, exist_ok=True)
        target = retired / path.name
        if target.exists():
            raise KeyFileInvalid(f"{target}: this file exists already", hint="move one of the two away")
        path.rename(target)
        for each in (retired, folder):
            sync_folder(each)
    except OSError as error:
        raise KeyFileInvalid(
            f"{error.filename or folder}: {error.strerror or type(error).__name__}",
            hint=f"move the key file of {kid} into {retired} by hand, so that no worker loads it",
        ) from None
    return target


def _is_of(path: Path, kid: str) -> bool:
    """Say whether a key file says that it holds this key; what it holds is not looked at."""
    try:
        with path.open("rb") as stream:
            document = json.loads(stream.read(_KEY_FILE_BYTES_MAX))
    except ValueError:
        return False
    return isinstance(document, dict) and document.get("id") == kid
