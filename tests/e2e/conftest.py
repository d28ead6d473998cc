"""A whole local Strongroom for the session, and hosts that use the real command on it."""

import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from deploy.local.trial import Trial
from tests.support.command import Command
from tests.support.servers import lent


@pytest.fixture(scope="session")
def trial(tmp_path_factory: pytest.TempPathFactory, _leftovers_removed: None) -> Iterator[Trial]:
    """Both servers, three officers, both workers; whoever stops a worker brings it `up` again."""
    with lent(tmp_path_factory.mktemp("e2e")) as folder:
        made = Trial(folder, {})
        made.up(lambda _step: None)
        yield made


@pytest.fixture
def place(trial: Trial, tmp_path: Path) -> Path:
    """A folder to work in, with the local Strongroom as `.local`."""
    (tmp_path / ".local").symlink_to(trial.folder)
    return tmp_path


@pytest.fixture
def strongroom(place: Path) -> Command:
    """The command in that folder."""
    return Command(place)


@pytest.fixture
def operator(trial: Trial, place: Path) -> Command:
    """The command in that folder, with what `. .local/env` puts into the environment."""
    lines = [line.removeprefix("export ") for line in (trial.folder / "env").read_text().splitlines()]
    assignments = [shlex.split(line)[0].partition("=") for line in lines if not line.startswith("PATH=")]
    return Command(place, {name: value for name, _, value in assignments})


@pytest.fixture
def keeper(trial: Trial, place: Path) -> Command:
    """The command in that folder, with the settings of the prover, who holds the sealing keys."""
    lines = (trial.folder / "prover.env").read_text().splitlines()
    assignments = [shlex.split(line.removeprefix("export "))[0].partition("=") for line in lines if line]
    return Command(place, {name: value for name, _, value in assignments})


Enrol: TypeAlias = Callable[[str], Path]


@pytest.fixture
def enrolled(strongroom: Command, place: Path) -> Enrol:
    """Enrols a host under a name that nobody has had before; returns its home."""

    def enrol(principal: str) -> Path:
        invitation = strongroom("invite", principal, home=".local/officer-1").done()
        (place / "inv.json").write_bytes(invitation.out)
        strongroom("enrol", "inv.json", home=principal).done()
        return place / principal

    return enrol
