"""Which roster a home goes by."""

from collections.abc import Iterator

import pytest
from tests.support.agents import NOW, Clock

from strongroom.crypto.signing import SigningKey
from strongroom.errors import (
    ConfigurationInvalid,
    Expired,
    MalformedStatement,
    RosterInvalid,
    StateCorrupt,
    WrongAuthority,
)
from strongroom.limits import CLOCK_SKEW_SECONDS
from strongroom.mandates import RosterBody
from strongroom.statements import Statement
from strongroom.testing import FakeAuthority
from strongroom_agent.enrolment import Enrolled
from strongroom_agent.home import Home
from strongroom_agent.state import State
from strongroom_agent.trust import Trust, newest_roster


@pytest.fixture
def state(enrolled: Enrolled) -> Iterator[State]:
    with State.open(enrolled.home.state_file) as opened:
        yield opened


@pytest.fixture
def trust(enrolled: Enrolled, state: State) -> Trust:
    return Trust.of(enrolled.home, state)


def test_a_newer_roster_is_kept_across_processes(
    trust: Trust, enrolled: Enrolled, authority: FakeAuthority
) -> None:
    """The same one again is no news."""
    newer = authority.renew_roster()
    assert trust.adopt(newer.statement, NOW)
    assert not trust.adopt(newer.statement, NOW)
    assert newest_roster(enrolled.home).digest == newer.digest


def test_versions_may_be_skipped(trust: Trust, authority: FakeAuthority) -> None:
    """A host that slept through one takes the next."""
    authority.renew_roster()
    assert trust.adopt(authority.renew_roster().statement, NOW)
    assert trust.newest.body.version == 3


def test_an_older_a_conflicting_and_a_forged_roster_are_refused(
    trust: Trust, authority: FakeAuthority, clock: Clock
) -> None:
    """Each is a RosterInvalid, and the newest stays."""
    older = authority.roster
    newer = authority.renew_roster()
    trust.adopt(newer.statement, NOW)
    conflicting = authority._sign_roster(previous=older, expires_at=NOW + 5)
    forged = Statement.sign(RosterBody.TYPE, newer.statement.body, SigningKey.generate())
    stranger = FakeAuthority(clock=clock).renew_roster()
    for statement in (older.statement, conflicting.statement, forged, stranger.statement):
        with pytest.raises(RosterInvalid):
            trust.adopt(statement, NOW)
    assert trust.newest.digest == newer.digest


def test_an_expired_roster_is_neither_adopted_nor_gone_by(trust: Trust, authority: FakeAuthority) -> None:
    """At the last second of the skew it still is."""
    last = authority.roster.body.expires_at + CLOCK_SKEW_SECONDS
    assert trust.current(last).digest == authority.roster.digest
    with pytest.raises(Expired):
        trust.current(last + 1)
    newer = authority.renew_roster(expires_at=NOW)
    with pytest.raises(Expired):
        trust.adopt(newer.statement, NOW + CLOCK_SKEW_SECONDS + 1)
    assert trust.newest.body.version == 1


def test_another_statement_by_the_root_key_is_no_roster(trust: Trust, authority: FakeAuthority) -> None:
    """The type is under the signature."""
    with pytest.raises(MalformedStatement):
        trust.adopt(Statement.sign("application/other", authority.roster.statement.body, authority.root), NOW)


def test_a_roster_put_into_the_database_by_somebody_else_is_found_out(
    enrolled: Enrolled, state: State, clock: Clock
) -> None:
    """What was kept is verified again whenever it is used."""
    stranger = FakeAuthority(clock=clock).renew_roster()
    state.execute("INSERT INTO rosters VALUES (99, ?, ?, ?)", stranger.statement.envelope(), NOW + 99, NOW)
    with pytest.raises(RosterInvalid):
        Trust.of(enrolled.home, state)


def test_a_roster_of_another_authority_under_the_same_root_key_is_refused(
    enrolled: Enrolled, state: State, authority: FakeAuthority
) -> None:
    """One root key may sign for two authorities; a home belongs to one."""
    authority.name = "other.example"
    for log in (authority.escrow_log, authority.recovery_log):
        log.origin = log.origin.replace("vault", "other")
    other = authority._sign_roster(previous=authority.roster, expires_at=NOW + 99)
    with pytest.raises(RosterInvalid, match="authority"):
        Trust.of(enrolled.home, state).adopt(other.statement, NOW)
    state.execute("INSERT INTO rosters VALUES (99, ?, ?, ?)", other.statement.envelope(), NOW + 99, NOW)
    with pytest.raises(WrongAuthority):
        Trust.of(enrolled.home, state)


def test_a_home_without_roster_is_named(enrolled: Enrolled, state: State) -> None:
    """Lost rows, and an officer's home before its first roster."""
    state.execute("DELETE FROM rosters")
    with pytest.raises(StateCorrupt, match="no roster"):
        Trust.of(enrolled.home, state)
    bare = Home(
        enrolled.home.path,
        enrolled.home.config.__class__(
            name="alice", role=enrolled.home.config.role, key_id="0" * 32, public_key=b"p" * 32
        ),
    )
    with pytest.raises(ConfigurationInvalid, match="no roster was attached"):
        Trust.of(bare, state)
