"""The README's demo on an authority whose sealing key never leaves a token."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from deploy.local.trial import PROVER
from tests.support.servers import lent
from tests.support.tokens import PIN, Shelf, SoftToken

ROOT = Path(__file__).parents[2]


@pytest.fixture
def soft(tmp_path: Path) -> SoftToken:
    """A token that processes use; this one does not look at it."""
    shelf = Shelf(tmp_path / "shelf")
    shelf.write()
    return shelf.add("trial")


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a local Strongroom."""
    with lent(tmp_path_factory.mktemp("token-trial")) as folder:
        yield folder


def run(module: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a module of `deploy.local` as the Makefile does."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "shared"),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_demo_passes_with_the_sealing_key_on_a_token(folder: Path, soft: SoftToken) -> None:
    """Founded there, lost and recovered from there; no file has a sealing key, and none of the settings a PIN."""
    token = {"STRONGROOM_KEYRING": soft.setting, "SOFTHSM2_CONF": str(soft.shelf.config)}
    started = run("deploy.local", "up", "--folder", str(folder), **token)
    assert started.returncode == 0, started.stderr
    told = run("deploy.local.demo", str(folder), str(ROOT / "README.md"))
    assert told.returncode == 0, told.stdout + told.stderr
    assert "equal" in told.stdout
    sealing = folder / "authority" / "recovery" / "sealing"
    assert not any(
        '"dhkem-p256"' in file.read_text() or '"x-wing"' in file.read_text() for file in sealing.iterdir()
    )
    for worker in ("escrow", "recovery", PROVER):
        settings = (folder / f"{worker}.env").read_text()
        assert ("STRONGROOM_KEYRING=" in settings) == (worker != "escrow")
        assert PIN.expose().decode() not in settings
    # The token belongs to the authority from now on: without it nothing is started that could not answer.
    refused = run("deploy.local", "up", "--folder", str(folder))
    assert refused.returncode == 1
    assert "set STRONGROOM_KEYRING" in refused.stderr
