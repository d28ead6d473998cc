"""The age program of the distribution and the command open each other's files."""

import os
import pty
import secrets
import select
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.e2e.conftest import Enrol
from tests.support.command import Command

from strongroom.errors import ExitCode

CONTENT = secrets.token_bytes(300_000)
PASSPHRASE = "seven words that nobody else has thought of"

pytestmark = pytest.mark.usefixtures("_age_program")


@pytest.fixture(scope="module")
def _age_program() -> None:
    assert shutil.which("age"), "install the program `age`: deploy/bootstrap does"


def age(place: Path, *arguments: str | Path) -> bytes:
    """Run the age program; return its output."""
    return subprocess.run(["age", *arguments], cwd=place, check=True, capture_output=True).stdout


def age_with_passphrase(place: Path, *arguments: str) -> None:
    """Run the age program on a terminal, where alone it takes a passphrase."""
    process, terminal = pty.fork()
    if not process:
        os.chdir(place)
        os.execvp("age", ["age", *arguments])  # noqa: S606
    shown = ""
    while select.select([terminal], [], [], 60)[0]:
        try:
            part = os.read(terminal, 4_096).decode()
        except OSError:
            break
        shown += part
        if part.rstrip().endswith(":"):
            os.write(terminal, PASSPHRASE.encode() + b"\n")
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, shown


def test_age_opens_what_seal_made_with_either_identity(place: Path, strongroom: Command, enrolled: Enrol) -> None:
    """With the owner's, and with the session key that the authority gives back."""
    home = enrolled("age-reader")
    (place / "report").write_bytes(CONTENT)
    strongroom("seal", "report", home=home).done()
    assert age(place, "-d", "-i", home / "keys" / "age.key", "report.age") == CONTENT
    strongroom("recover", "--file", "report.age", "--out", "recovered", home=home).done()
    assert age(place, "-d", "-i", "recovered", "report.age") == CONTENT


def test_what_age_has_sealed_is_escrowed_recovered_and_opened(
    place: Path, strongroom: Command, enrolled: Enrol
) -> None:
    """`escrow --file`, with an identity that age-keygen made; then the identity is lost."""
    home = enrolled("age-writer")
    (place / "report").write_bytes(CONTENT)
    subprocess.run(["age-keygen", "-o", "own.key"], cwd=place, check=True, capture_output=True)
    recipient = subprocess.run(["age-keygen", "-y", "own.key"], cwd=place, check=True, capture_output=True).stdout
    age(place, "-r", recipient.decode().strip(), "-o", "report.age", "report")
    strongroom("open", "report.age", "--identity", "own.key", "--output-file", "opened").done()
    assert (place / "opened").read_bytes() == CONTENT

    stored = strongroom(
        "escrow", "--file", "report.age", "--identity-file", "own.key", "-o", "json", home=home
    ).done()
    [record] = stored.document["records"]
    assert (record["kind"], record["description"]) == ("age-identity", "report.age")
    (place / "own.key").unlink()
    strongroom("recover", "--file", "report.age", "--out", "recovered", home=home).done()
    strongroom("open", "report.age", "--identity", "recovered", "--output-file", "opened", "--force").done()
    assert (place / "opened").read_bytes() == CONTENT
    own = str(home / "keys" / "age.key")
    strongroom("seal", "report", "--force", home=home).done()
    strongroom("escrow", "--file", "report.age", "--identity-file", own, home=home).done(ExitCode.USAGE)


def test_files_for_a_passphrase_open_in_both_directions(place: Path, strongroom: Command) -> None:
    """No home, no authority: nothing but the passphrase."""
    (place / "report").write_bytes(CONTENT)
    (place / "words").write_text(PASSPHRASE)
    (place / "words").chmod(0o600)
    strongroom("seal", "report", "--passphrase-from", "words", "--output-file", "ours.age").done()
    age_with_passphrase(place, "-d", "-o", "opened", "ours.age")
    assert (place / "opened").read_bytes() == CONTENT
    age_with_passphrase(place, "-p", "-o", "theirs.age", "report")
    strongroom("open", "theirs.age", "--passphrase-from", "words", "--output-file", "again").done()
    assert (place / "again").read_bytes() == CONTENT


def test_armor_is_left_to_age(place: Path, strongroom: Command) -> None:
    """The refusal says so."""
    (place / "report").write_bytes(CONTENT)
    subprocess.run(["age-keygen", "-o", "own.key"], cwd=place, check=True, capture_output=True)
    age(place, "-a", "-e", "-i", "own.key", "-o", "report.age", "report")
    refused = strongroom("open", "report.age", "--identity", "own.key", "--output-file", "opened")
    assert "armor" in refused.done(ExitCode.USAGE).err
    assert "age -d" in refused.err
