"""The roster that a home goes by: the newest it has seen, under the root key it has pinned (SPEC 2.4)."""

from typing import Self

from strongroom.errors import StateCorrupt
from strongroom.roster import Roster, check_authority
from strongroom.statements import Statement, parse_envelope
from strongroom_agent.home import Home
from strongroom_agent.state import KeptRoster, State


class Trust:
    """The newest roster of a home, and the rules for taking a newer one."""

    def __init__(self, state: State, root_key: bytes, roster: Roster) -> None:
        """Go by a verified roster; `of` is the usual way to make one."""
        self._state = state
        self._root_key = root_key
        self._roster = roster

    @classmethod
    def of(cls, home: Home, state: State) -> Self:
        """Read and verify the newest roster that a home has kept.

        Raises ConfigurationInvalid for a home without authority, RosterInvalid when the pinned root key did not
        sign what was kept, WrongAuthority, StateCorrupt.
        """
        authority, root_key = home.authority()
        kept = state.roster()
        if kept is None:
            raise StateCorrupt(f"{home.state_file}: holds no roster", hint="restore the home from its backup")
        roster = Roster.verified(parse_envelope(kept.envelope), root_key)
        check_authority(authority, roster)
        return cls(state, root_key, roster)

    @property
    def newest(self) -> Roster:
        """The newest roster seen; it may have expired."""
        return self._roster

    def current(self, now: int) -> Roster:
        """Return the newest roster; Expired if it is past its expiry, because nothing may be judged by it then."""
        self._roster.check_current(now)
        return self._roster

    def adopt(self, statement: Statement, now: int) -> bool:
        """Take a roster that came with an answer or in a file; return whether it is a newer one.

        It is on disk when this returns. Raises RosterInvalid for one that the root key did not sign, an older
        one or another one under the same version; Expired, WrongAuthority, MalformedStatement, LimitExceeded.
        """
        roster = Roster.verified(statement, self._root_key)
        roster.check_follows(self._roster)
        roster.check_current(now)
        if roster.body.version == self._roster.body.version:
            return False
        keep_roster(self._state, roster, now)
        self._roster = roster
        return True


def keep_roster(state: State, roster: Roster, now: int) -> None:
    """Write a verified roster down."""
    state.keep_roster(KeptRoster(roster.body.version, roster.statement.envelope(), roster.body.expires_at), now)


def newest_roster(home: Home) -> Roster:
    """Return the newest roster that a home has seen, verified; it may have expired. Raises as `Trust.of`."""
    with State.open(home.state_file) as state:
        return Trust.of(home, state).newest
