"""Which roster the local Strongroom goes by: the newest of its roster file and what its officers hold."""

from base64 import b64encode
from pathlib import Path

import pytest
from deploy.local.server import StackError
from deploy.local.trial import OFFICERS, Trial
from tests.support import authority as make

from strongroom.mandates import Officer, Role
from strongroom.roster import Roster
from strongroom_agent.home import Home
from strongroom_agent.identity import attach, create_officer_home


@pytest.fixture
def homes(tmp_path: Path) -> list[Home]:
    """The officers' homes of a local Strongroom in `tmp_path`, without a roster yet."""
    return [create_officer_home(tmp_path / officer, officer, passphrase=None) for officer in OFFICERS]


@pytest.fixture
def first(homes: list[Home]) -> Roster:
    """The first roster: it names every home."""
    return make.roster(
        officers=[
            Officer(name=home.config.name, public_key=home.config.public_key, roles=list(Role)) for home in homes
        ]
    )


def write(folder: Path, roster: Roster) -> Path:
    """Write a roster and its root key where the local Strongroom keeps them; return the roster file."""
    (folder / "authority").mkdir(exist_ok=True)
    root_key = make.signing_key("root").public_key
    (folder / "authority" / "root.pub").write_text(b64encode(root_key).decode())
    file = folder / "authority" / "roster.json"
    file.write_bytes(roster.statement.envelope())
    return file


def give(home: Home, roster: Roster) -> Home:
    """Let an officer trust a roster."""
    return attach(
        home,
        root_key=make.signing_key("root").public_key,
        roster=roster.statement.envelope(),
        broker_url=None,
        broker_ca=None,
        now=make.NOW,
    )


def test_a_newer_file_is_taken_as_it_is(
    tmp_path: Path, homes: list[Home], first: Roster, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file stays, and nothing has to be said."""
    give(homes[0], first)
    second = make.next_roster(first)
    file = write(tmp_path, second)
    before = file.read_bytes()
    assert Trial(tmp_path, {})._newest_roster().digest == second.digest
    assert file.read_bytes() == before
    assert capsys.readouterr().err == ""


def test_what_an_officer_got_before_the_file_is_taken_into_the_file(
    tmp_path: Path, homes: list[Home], first: Roster, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody goes back behind what an officer has seen; the workers read the same file."""
    file = write(tmp_path, first)
    second = make.next_roster(first)
    give(homes[1], second)
    assert Trial(tmp_path, {})._newest_roster().digest == second.digest
    assert file.read_bytes().strip() == second.statement.envelope()
    assert capsys.readouterr().err.count("\n") == 1


def test_two_rosters_of_the_same_version_are_refused(tmp_path: Path, homes: list[Home], first: Roster) -> None:
    """Which one is right is not for a program to guess; neither file nor home is changed."""
    give(homes[0], make.next_roster(first))
    file = write(tmp_path, make.next_roster(first, expires_at=make.NOW + make.DAY))
    before = file.read_bytes()
    with pytest.raises(StackError, match="two different rosters say 2"):
        Trial(tmp_path, {})._newest_roster()
    assert file.read_bytes() == before
