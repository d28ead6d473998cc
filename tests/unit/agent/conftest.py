"""A host, officers and an authority, all in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.agents import Clock

from strongroom.testing import FakeAuthority
from strongroom_agent import patience
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import Enrolled, enrol
from strongroom_agent.home import Home
from strongroom_agent.identity import attach, create_officer_home


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""
    monkeypatch.setattr(patience, "FIRST_PAUSE_SECONDS_MAX", 0.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(clock: Clock) -> FakeAuthority:
    return FakeAuthority(clock=clock)


@pytest.fixture
async def enrolled(authority: FakeAuthority, tmp_path: Path, clock: Clock) -> Enrolled:
    document = authority.invitation_file("laptop-0417")
    return await enrol(tmp_path / "home", document, connector=authority.connect, clock=clock)


@pytest.fixture
def agent(enrolled: Enrolled, authority: FakeAuthority, clock: Clock) -> Iterator[Agent]:
    with Agent.open(enrolled.home.path, connector=authority.connect, clock=clock) as opened:
        yield opened


@pytest.fixture
def officer_home(authority: FakeAuthority, tmp_path: Path, clock: Clock) -> Callable[[str], Home]:
    """Make the home of a new officer, whom the authority's next roster names."""

    def make(name: str) -> Home:
        home = create_officer_home(tmp_path / name, name, passphrase=None)
        authority.name_officer(name, home.config.public_key)
        return attach(
            home,
            root_key=authority.root.public_key,
            roster=authority.roster.statement.envelope(),
            broker_url="amqps://officer:hidden@broker.example/strongroom",
            broker_ca="officers' CA\n",
            agents_broker_url="amqps://fleet:hidden@broker.example/strongroom",
            now=int(clock()),
        )

    return make
