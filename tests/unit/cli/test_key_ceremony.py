"""deploy/BACKUP.md on changing keys, command by command as it stands there, on a new authority."""

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.support.containers import ROOT

from strongroom.crypto.signing import key_id
from strongroom.key_cards import KeyCard
from strongroom.mandates import SealingKeyState
from strongroom.roster import Roster
from strongroom.settings import read_root_key, read_roster
from strongroom_cli.app import cli


def documented() -> list[str]:
    """Return the commands of the section, in order."""
    text = (ROOT / "deploy" / "BACKUP.md").read_text()
    section = text.partition("## Changing keys\n")[2].partition("\n## ")[0]
    return [line for block in re.findall(r"```\n(.*?)```", section, re.DOTALL) for line in block.splitlines()]


class Table:
    """The offline machine: a folder with `keys`, and the files that lie beside it."""

    def run(self, line: str) -> None:
        """Run one documented command; what stands for an id is looked up."""
        words = [self.fill(word) for word in shlex.split(line)]
        if words[0] == "mkdir":
            Path(words[1]).mkdir()
            return
        target = Path(words.pop()) if words[-2] == ">" else None
        if target is not None:
            words.pop()
        result = CliRunner().invoke(cli, words[1:])
        assert result.exit_code == 0, (line, result.output)
        if target is not None:
            target.write_bytes(result.stdout_bytes)

    def fill(self, word: str) -> str:
        """Put the id in the place of the word that stands for it."""
        match word:
            case "KID":
                return KeyCard.parse(Path("card.json").read_bytes()).id
            case "OLD":
                return next(key.kid for key in self.roster.body.sealing_keys if key.kid != self.fill("KID"))
            case "FORMER":
                return key_id(self.roster.body.logs.escrow.former[0])
            case "spare/root-SPARE.key":
                (made,) = Path("spare").glob("*.key")
                return str(made)
        return word

    @property
    def roster(self) -> Roster:
        """The roster as it is now, under the root key of the first day."""
        return Roster.verified(read_roster(Path("keys/roster.json")), read_root_key(Path("keys/root.pub")))


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Table:
    monkeypatch.chdir(tmp_path)
    for name in ("root", "workers", "spare"):
        secret = Path(f"{name}.pass")
        secret.write_text(f"the passphrase of {name}\n")
        secret.chmod(0o600)
    made = Table()
    for home, name in (("alice", "alice"), ("bob", "bob"), ("alice-2", "alice")):
        made.run(f"strongroom officer init {name} --home {home} > {home}.json")
    made.run(
        "strongroom authority init keys --authority keys.example.org --officer alice.json --officer bob.json"
        " --root-passphrase-file root.pass --workers-passphrase-file workers.pass"
    )
    return made


def test_the_documented_commands_change_every_kind_of_key(table: Table) -> None:
    """Each ends well, in the order of the text; the officer comes first, while the first root key signs."""
    lines = documented()
    assert {line.split()[2] for line in lines if line.startswith("strongroom")} == {
        "add-key", "sign-roster", "new-root", "show"
    }  # fmt: skip
    first = table.roster
    *before, officer = lines
    assert "--remove-officer" in officer
    table.run(officer)
    for line in before:
        table.run(line)
    roster = table.roster
    roster.check_follows(first)
    (sealing,) = roster.body.sealing_keys
    assert (sealing.kid, sealing.state) == (table.fill("KID"), SealingKeyState.ACTIVE)
    assert roster.body.logs.escrow.public_key != first.body.logs.escrow.public_key
    assert roster.body.logs.escrow.former == []
    assert roster.root_keys[0] == first.root_key != roster.root_key
    assert roster.officer("alice").public_key != first.officer("alice").public_key
