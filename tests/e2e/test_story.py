"""What the README promises, typed as it stands there and run by real processes against real servers."""

import hashlib
import re
import secrets
import shutil
import subprocess
from pathlib import Path

import pyrage
import pytest
from deploy.local.trial import Trial
from tests.e2e.conftest import Enrol
from tests.support.attacker import ask_superuser
from tests.support.command import Command
from tests.support.site import SYSTEM_PATH

from strongroom.errors import ExitCode

README = Path(__file__).parents[2] / "README.md"

TRANSCRIPT = """
. .local/env
STRONGROOM_HOME=.local/officer-1 strongroom invite laptop-0417 > inv.json
STRONGROOM_HOME=a strongroom enrol inv.json
head -c 32 /dev/urandom > k
STRONGROOM_HOME=a strongroom escrow k --name disk --kind disk-key --description "root volume" --serial-number C02XYZ
STRONGROOM_HOME=a strongroom status -o json || test $? = 6
STRONGROOM_HOME=a strongroom recover --name disk --out k2
cmp k k2
"""


def from_the_readme() -> str:
    """The commands under "Try it by hand", for another principal, without starting and ending the stack."""
    section = re.search(r"## Try it by hand\n+```console\n(.*?)```", README.read_text(), re.DOTALL)
    assert section is not None
    lines = [line.removeprefix("$ ") for line in section[1].splitlines() if line.startswith("$ ")]
    assert lines[0].startswith("make up && ")
    assert lines[-1] == "make down"
    return "\n".join([lines[0].removeprefix("make up && "), *lines[1:-1]]).replace("laptop-0417", "laptop-readme")


class Owned:
    """The trial's database as its administrator sees it."""

    def __init__(self, trial: Trial) -> None:
        self.superuser_url = trial.stack.database.administrator_url("strongroom")


@pytest.mark.parametrize("script", [TRANSCRIPT, from_the_readme()], ids=["issue", "readme"])
def test_a_key_that_was_escrowed_comes_back(place: Path, script: str) -> None:
    """Invite, enrol, escrow, look, recover, compare: every line succeeds as it is written."""
    result = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", script],
        cwd=place,
        env={"PATH": SYSTEM_PATH, "HOME": str(place), "LANG": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert (place / "k").read_bytes() == (place / "k2").read_bytes()
    assert (place / "k2").stat().st_mode & 0o777 == 0o600
    shown = Command(place)("status", "-o", "json", home="a")
    assert shown.code in {ExitCode.DONE, ExitCode.NOT_PROVEN}
    [record] = shown.document["records"]
    assert (record["name"], record["state"]) == ("disk", "stored")
    assert record["log_index"] is not None


async def test_a_key_is_stored_once_although_the_worker_was_away(
    trial: Trial, place: Path, strongroom: Command, enrolled: Enrol
) -> None:
    """Without an escrow worker `escrow` ends with 75 and spools; once there is one, `sync` stores the key, once."""
    home = enrolled("worker-away")
    (place / "k").write_bytes(secrets.token_bytes(32))
    trial.stop_worker("escrow")
    try:
        spooled = strongroom("escrow", "k", "--name", "disk", "--wait", "2", "-o", "json", home=home)
        assert spooled.done(ExitCode.TRY_LATER).document["spooled"] == 1
        status = strongroom("status", "-o", "json", home=home).done(ExitCode.TRY_LATER).document
        assert [record["state"] for record in status["records"]] == ["spooled"]
        told = strongroom("status", home=home).done(ExitCode.TRY_LATER)
        assert "spooled" in told.out.decode()
    finally:
        trial.up(lambda _step: None)
    report = strongroom("sync", "-o", "json", home=home).done().document
    assert (report["stored"], report["spooled"], report["compared"], report["missing"]) == (1, 0, True, [])
    shown = strongroom("status", "-o", "json", home=home)
    assert shown.code in {ExitCode.DONE, ExitCode.NOT_PROVEN}
    assert [record["state"] for record in shown.document["records"]] == ["stored"]
    for table in ("records", "escrow_statements"):
        count = f"SELECT count(*) FROM {table} WHERE principal = $1"  # noqa: S608 - one of two
        assert await ask_superuser(Owned(trial), count, "worker-away") == 1
    strongroom("recover", "--name", "disk", "--out", "k2", home=home).done()
    assert (place / "k2").read_bytes() == (place / "k").read_bytes()


def test_a_sealed_file_opens_after_its_host_has_lost_everything(
    place: Path, strongroom: Command, enrolled: Enrol
) -> None:
    """Two officers replace the key of the reinstalled host, which recovers the session key and opens the file."""
    home = enrolled("lost-laptop")
    (place / "report").write_bytes(content := secrets.token_bytes(100_000))
    strongroom("seal", "report", home=home).done()
    own = pyrage.x25519.Identity.from_str((home / "keys" / "age.key").read_text().splitlines()[-1])
    assert pyrage.decrypt((place / "report.age").read_bytes(), [own]) == content
    shutil.rmtree(home)
    (place / "report").unlink()

    once = strongroom("invite", "lost-laptop", "--replace", home=".local/officer-1").done()
    (place / "inv-1.json").write_bytes(once.out)
    assert "signatures still needed: 1" in once.err
    refused = strongroom("enrol", "inv-1.json", "-o", "json", home=home).done(ExitCode.DENIED)
    assert refused.error["code"] == "invitation_invalid"
    again = strongroom("countersign", "inv-1.json", home=".local/officer-1").done()
    assert "signatures still needed: 1" in again.err
    twice = strongroom("countersign", "inv-1.json", home=".local/officer-2").done()
    (place / "inv-2.json").write_bytes(twice.out)
    assert "still needed" not in twice.err
    strongroom("enrol", "inv-2.json", home=home).done()

    # The new host's own identity is another one: the file was never sealed to it.
    strongroom("open", "report.age", "--output-file", "no", home=home).done(ExitCode.FAILED)
    strongroom("recover", "--file", "report.age", "--out", "session.key", home=home).done()
    strongroom("open", "report.age", "--identity", "session.key", "--output-file", "opened", home=home).done()
    assert hashlib.sha256((place / "opened").read_bytes()).digest() == hashlib.sha256(content).digest()

    # Any age tool reads it: the file is an age file, and what was recovered is an age identity.
    session = pyrage.x25519.Identity.from_str((place / "session.key").read_text().strip())
    assert pyrage.decrypt((place / "report.age").read_bytes(), [session]) == content


def test_a_replaced_host_speaks_for_nobody_any_more(place: Path, strongroom: Command, enrolled: Enrol) -> None:
    """After a replacement the former key is refused, and the invitation that was used cannot be used again."""
    former = enrolled("replaced")
    (place / "k").write_bytes(secrets.token_bytes(32))
    strongroom("escrow", "k", "--name", "disk", home=former).done()
    once = strongroom("invite", "replaced", "--replace", home=".local/officer-1").done()
    (place / "inv-1.json").write_bytes(once.out)
    (place / "inv-2.json").write_bytes(strongroom("countersign", "inv-1.json", home=".local/officer-2").done().out)
    strongroom("enrol", "inv-2.json", home="present").done()
    used = strongroom("enrol", "inv-2.json", home="third").done(ExitCode.DENIED)
    assert "was used before" in used.err
    for command in (("recover", "--name", "disk", "--out", "k2"), ("escrow", "k", "--name", "disk")):
        outcome = strongroom(*command, home=former).done(ExitCode.FAILED)
        assert "replaced" in outcome.err + outcome.out.decode()
    assert not (place / "k2").exists()
    strongroom("recover", "--name", "disk", "--out", "k2", home="present").done()
    assert (place / "k2").read_bytes() == (place / "k").read_bytes()
