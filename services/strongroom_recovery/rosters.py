"""The roster's way from the configured file into the recovery log."""

from collections.abc import Callable
from pathlib import Path

from strongroom.database import Database
from strongroom.errors import Expired, PermanentError
from strongroom.follower import RecoveryLogFollower
from strongroom.leaves import RosterLeaf
from strongroom.log_writer import LogWriter
from strongroom.logs import get_logger
from strongroom.registry import Registry
from strongroom.roster import Roster
from strongroom.settings import read_roster
from strongroom_recovery import store


class RosterFile:
    """The configured roster file, and its way into the recovery log; the file may be replaced at any time."""

    def __init__(
        self,
        path: Path,
        *,
        database: Database,
        registry: Registry,
        follower: RecoveryLogFollower,
        writer: LogWriter,
        check_usable: Callable[[Roster], None],
    ) -> None:
        """Take what adopting needs; nothing is read here.

        Arguments: `check_usable` raises ConfigurationInvalid for a roster whose keys this process does not hold.
        """
        self._path = path
        self._database = database
        self._registry = registry
        self._follower = follower
        self._writer = writer
        self._check_usable = check_usable
        self._seen: tuple[int, int, int] | None = None
        self._log = get_logger()

    async def adopt(self, now: int) -> None:
        """Read the file, and name its roster in the recovery log unless the log names it already.

        From the commit on that roster is in force, for every worker that follows the log. Safe to repeat.
        Raises RosterInvalid for a roster that the root key did not sign, that is older than the log's or
        conflicts with it; Expired; ConfigurationInvalid; MalformedStatement and LimitExceeded for a body out of
        shape; DatabaseUnavailable.
        """
        seen = self._mark()
        roster = Roster.verified(read_roster(self._path), self._registry.root_key)
        roster.check_current(now)
        self._check_usable(roster)
        if await self._append(roster, now):
            async with self._database.reading() as tx:
                await self._follower.advance(tx)
            self._log.info("roster adopted", roster_version=roster.body.version, digest=roster.digest.hex())
        self._seen = seen

    async def refresh(self, now: int) -> None:
        """Adopt the file's roster if the file was replaced. One that cannot be adopted is logged and left alone.

        Raises DatabaseUnavailable.
        """
        seen = self._mark()
        if seen == self._seen:
            return
        try:
            await self.adopt(now)
        except PermanentError as error:
            self._log.error("roster refused", code=error.code, reason=error.message, hint=error.hint)
            # One that is dated in the future becomes current by waiting.
            if not isinstance(error, Expired):
                self._seen = seen

    async def _append(self, roster: Roster, now: int) -> bool:
        async with self._database.transaction() as tx:
            await self._writer.lock(tx)
            await self._follower.advance(tx)
            if self._registry.logged_roster_version:
                roster.check_follows(self._registry.roster)
                if roster.digest == self._registry.roster.digest:
                    return False
            leaf = RosterLeaf(time=now, version=roster.body.version, digest=roster.digest.hex()).to_bytes()
            appended = await self._writer.append(tx, [leaf])
            await store.insert_trust_statement(tx, roster.statement, id_=None, leaf_index=appended.first_index)
        # COMMIT has succeeded: the log names the roster.
        await self._writer.committed(appended)
        return True

    def _mark(self) -> tuple[int, int, int] | None:
        """Return what changes when the file is replaced; None while there is none."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino
