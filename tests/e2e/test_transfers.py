"""Keys that move from one whole Strongroom to another, by real processes on servers of their own."""

import csv
import json
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deploy.local import trial as trials
from deploy.local.trial import Trial
from tests.e2e.conftest import Enrol
from tests.support.command import Command
from tests.support.servers import lent

from strongroom.errors import ExitCode
from strongroom.statements import canonical_json

NEW = "new.example.org"
KEYS = {"disk": "planted-e2e-disk", "mail": "planted-e2e-mail", "vault/a,b": "planted-e2e-vault"}


@pytest.fixture(scope="module")
def other_trial(tmp_path_factory: pytest.TempPathFactory, _leftovers_removed: None) -> Iterator[Trial]:
    """Another authority with everything of its own."""
    with lent(tmp_path_factory.mktemp("other")) as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "AUTHORITY", NEW)
        made = Trial(folder, {})
        made.up(lambda _step: None)
        yield made


class Both:
    """A host that has imported its keys here, a host at the other authority, and the officers of both."""

    def __init__(self, place: Path, strongroom: Command, other: Trial, home: Path) -> None:
        self.place, self.run, self.home = place, strongroom, home
        self.other = other.folder
        self.there = place / f"{home.name}-there"
        invitation = strongroom("invite", self.there.name, home=self.other / "officer-1").done()
        (place / "there.json").write_bytes(invitation.out)
        strongroom("enrol", "there.json", home=self.there).done()

    def export(self, code: int, *more: str, home: str = ".local/officer-1") -> dict[str, Any]:
        """Export everything as an officer; return what was said."""
        to = self.other / "authority"
        words = (
            *("export", "--principal", self.home.name, "--all", "--to", str(to / "roster.json")),
            *("--to-root-key", str(to / "root.pub"), "--to-principal", self.there.name, "--reason", "merger"),
            *("--out", "t", "-o", "json", *more),
        )
        return self.run(*words, home=home).done(code).document

    def approved(self) -> Path:
        """Export under the approvals of the two other officers."""
        waiting = self.export(ExitCode.WAITING)
        [request] = waiting["waiting"]
        assert not (self.place / "t").exists()
        for officer in ("officer-2", "officer-3"):
            shown = self.run("requests", request["request"], home=f".local/{officer}").done().out.decode()
            assert NEW in shown
            assert self.there.name in shown
            assert str(waiting["recipient_key"]) in shown
            self.run("approve", request["request"], "--yes", home=f".local/{officer}").done()
        assert self.export(ExitCode.DONE)["released"] == len(KEYS)
        return self.place / "t"

    def proven(self) -> dict[str, dict[str, object]]:
        """Let the other prover look at everything that is there now; return the records by name.

        It goes along the log in order: when a later key is proven, it has looked at those before.
        """
        (self.place / "later").write_bytes(b"later")
        self.run("escrow", "later", "--name", "later", "--until", "proven", home=self.there).done()
        listed = self.run("records", "-o", "json", home=self.there).done().document["records"]
        return {record["name"]: record for record in listed}


@pytest.fixture
def both(
    place: Path, strongroom: Command, enrolled: Enrol, other_trial: Trial, request: pytest.FixtureRequest
) -> Both:
    home = enrolled(str(request.node.name).removeprefix("test_").replace("_", "-")[:40].strip("-"))
    with (place / "keys.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("name", "text", "label:site"))
        writer.writerows((name, text, "Oslo") for name, text in KEYS.items())
    assert strongroom("import", "keys.csv", "-o", "json", home=home).done().document["stored"] == len(KEYS)
    return Both(place, strongroom, other_trial, home)


def test_keys_move_and_open_at_the_other_authority(both: Both) -> None:
    """Under two approvals; proven there by its own prover, recovered there byte for byte; disclosed here."""
    file = both.approved()
    assert b"planted" not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    trust = ("--from-root-key", ".local/authority/root.pub", "-o", "json")
    taken = both.run("import", "--transfer", file, *trust, home=both.there).done().document
    assert (taken["fresh"], taken["stored"]) == (len(KEYS), len(KEYS))
    again = both.run("import", "--transfer", file, *trust, home=both.there).done().document
    assert (again["fresh"], again["unchanged"]) == (0, len(KEYS))
    found = both.proven()
    assert {name: found[name]["state"] for name in KEYS} == dict.fromkeys(KEYS, "proven")
    assert found["disk"]["labels"] == {"site": "Oslo"}
    for number, (name, text) in enumerate(KEYS.items()):
        both.run("recover", "--name", name, "--out", f"k{number}", home=both.there).done()
        assert (both.place / f"k{number}").read_text() == text
    here = both.run("records", "-o", "json", home=both.home).done().document["records"]
    assert {record["state"] for record in here} == {"disclosed"}
    both.run("log", "export", "audit", home=".local/officer-1").done()
    both.run("log", "verify", "audit", home=".local/officer-1").done()


def test_a_transfer_is_for_one_host_of_one_authority(both: Both) -> None:
    """Another host there, a host here, and a file that was changed on the way get nothing."""
    file = both.approved()
    stranger = both.place / "stranger"
    invitation = both.run("invite", "stranger", home=both.other / "officer-1").done()
    (both.place / "stranger.json").write_bytes(invitation.out)
    both.run("enrol", "stranger.json", home=stranger).done()
    for home, code in ((stranger, "denied"), (both.home, "wrong_authority")):
        refused = both.run("import", "--transfer", file, "-o", "json", home=home)
        assert refused.code != ExitCode.DONE
        assert refused.error["code"] == code
    first, second = file.read_bytes().splitlines()
    line = json.loads(second)
    body = json.loads(b64decode(line["release"]["payload"]))
    blob = b64decode(body["records"][0]["blob"])
    body["records"][0]["blob"] = b64encode(blob[:-1] + bytes([blob[-1] ^ 1])).decode()
    line["release"]["payload"] = b64encode(canonical_json(body)).decode()
    file.write_bytes(first + b"\n" + canonical_json(line) + b"\n")
    words = ("import", "--transfer", file, "--from-root-key", ".local/authority/root.pub", "-o", "json")
    refused = both.run(*words, home=both.there).done(ExitCode.FAILED)
    assert refused.error["code"] == "signature_invalid"
    assert b'"records": []' in both.run("records", "-o", "json", home=both.there).done().out
    # Whoever does not ask for proof learns from the prover which key it is.
    both.run("import", "--transfer", file, home=both.there).done()
    found = both.proven()
    [broken] = [name for name in KEYS if found[name]["state"] != "proven"]
    assert (found[broken]["state"], found[broken]["code"]) == ("unprovable", "blob_invalid")
    assert found[broken]["id"] == body["records"][0]["id"]
