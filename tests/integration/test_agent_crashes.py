"""kill -9 of the agent at every step: no key is lost, and repeating harms nobody."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.agents import MATERIAL, Clock
from tests.support.crashing_agent import run_to_its_death, serve

from strongroom.errors import ExitCode
from strongroom.testing import FakeAuthority
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import enrol
from strongroom_agent.files import name_of
from strongroom_agent.state import State

AROUND_PUBLISH = ("before publish", "after publish", "after confirm", "after answer")
UNAPPLIED = ("after spool commit", "before publish")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(clock: Clock) -> FakeAuthority:
    return FakeAuthority(clock=clock)


@pytest.fixture
async def socket(authority: FakeAuthority, tmp_path: Path) -> AsyncIterator[Path]:
    path = tmp_path / "s"
    async with serve(authority, path):
        yield path


@dataclass(frozen=True, slots=True)
class Host:
    """An enrolled host: its home, and a socket for agents that die."""

    home: Path
    socket: Path
    authority: FakeAuthority
    clock: Clock

    def reopened(self) -> Agent:
        """Open the home as the next process does."""
        return Agent.open(self.home, connector=self.authority.connect, clock=self.clock)


@pytest.fixture
async def host(authority: FakeAuthority, tmp_path: Path, socket: Path, clock: Clock) -> Host:
    document = authority.invitation_file("laptop-0417")
    enrolled = await enrol(tmp_path / "home", document, connector=authority.connect, clock=clock)
    return Host(enrolled.home.path, socket, authority, clock)


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@pytest.mark.parametrize("moment", ["before spool commit", "inside spool commit"])
async def test_an_agent_killed_before_the_spool_has_the_key_has_sent_nothing(
    host: Host, authority: FakeAuthority, moment: str
) -> None:
    """Whoever called it was not told otherwise; the spool is whole and takes the key when asked again."""
    await run_to_its_death(host.home, host.socket, "escrow", moment)
    assert authority.escrow_log.size == 0
    with host.reopened() as agent:
        report = await agent.sync()
        assert (report.delivery.stored, report.exit_code) == (0, ExitCode.DONE)
        assert agent._spool.overview(None) == []


@pytest.mark.parametrize("action", ["escrow", "sync"])
@pytest.mark.parametrize(
    "moment", ["after spool commit", *AROUND_PUBLISH, "before marking", "inside marking", "after marking"]
)
async def test_an_agent_killed_after_the_spool_has_the_key_stores_it_once(
    host: Host, authority: FakeAuthority, moment: str, action: str
) -> None:
    """Applied or not, the next sync ends with one record, one leaf, one receipt; and the key comes back."""
    if (action, moment) == ("sync", "after spool commit"):
        moment = "before publish"
    await run_to_its_death(host.home, host.socket, action, moment)
    assert authority.escrow_log.size == (0 if moment in UNAPPLIED else 1)
    with host.reopened() as agent:
        before = agent._spool.counts()
        assert before["spooled"] + before["stored"] == 1
        assert (before["stored"] == 1) == (moment == "after marking")
        assert (await agent.sync()).exit_code is ExitCode.DONE
        [row] = agent._spool.overview(None)
        kept = agent._state.checkpoint("escrow")
        assert (row.state, row.log_index, row.tree_size) == ("stored", 0, 1)
        assert kept is not None
        assert kept.note == authority.escrow_log.checkpoint()
        assert (await agent.recover(name="disk")).keys[0].material.expose() == MATERIAL
    assert authority.escrow_log.size == len(authority.workers.records) == 1


@pytest.mark.parametrize("moment", [*AROUND_PUBLISH, "before enrolled", "inside enrolled"])
async def test_an_agent_killed_while_enrolling_goes_on_with_the_same_key(
    authority: FakeAuthority, tmp_path: Path, socket: Path, clock: Clock, moment: str
) -> None:
    """The same file again: the same statement, one leaf, one key."""
    document, home = authority.invitation_file("laptop-0417"), tmp_path / "home"
    await run_to_its_death(home, socket, "enrol", moment, document.hex())
    with State.open(home / "state.db") as state:
        [kept] = state.enrolments()
        assert kept.enrolled_at is None
    done = await enrol(home, document, connector=authority.connect, clock=clock)
    assert {message.body for message in authority.received} == {kept.envelope}
    assert (done.log_index, authority.recovery_log.size) == (0, 1)


@pytest.mark.parametrize(
    ("moment", "appeared"),
    [
        ("before spool commit", False),
        ("after spool commit", False),
        ("before appearing", False),
        ("after appearing", True),
        ("before publish", True),
        ("after answer", True),
    ],
)
async def test_no_sealed_file_stands_without_its_key_in_escrow(
    host: Host, tmp_path: Path, moment: str, *, appeared: bool
) -> None:
    """When the file is there, the next sync makes its session key recoverable; when not, nothing is half there."""
    document = tmp_path / "thesis.txt"
    document.write_bytes(b"thesis")
    await run_to_its_death(host.home, host.socket, "seal", moment, str(document))
    sealed = tmp_path / "thesis.txt.age"
    assert (sealed.name in names(tmp_path)) == appeared
    with host.reopened() as agent:
        assert (await agent.sync()).exit_code is ExitCode.DONE
        if appeared:
            found = await agent.recover(name=name_of(sealed))
            identity = tmp_path / "session.key"
            identity.write_bytes(found.keys[0].material.expose())
            opened = agent.open_file(sealed, output=tmp_path / "again", identity_file=identity)
            assert opened.read_bytes() == b"thesis"
