"""`log export`, `verify`, `cosign` and `checkpoints` as auditors meet them, against logs in memory."""

import json
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.support.exports import Authority

from strongroom.crypto.key_file import write_signing_key
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.fields import new_id
from strongroom_agent.identity import attach, create_officer_home
from strongroom_agent.state import Evidence, KeptCheckpoint, State
from strongroom_audit.pages import Auditor
from strongroom_cli.app import cli


class Place:
    """A folder with the home of alice, an auditor, and an authority with a host that has three records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(first_roster=False)
        self.authority.clock.seconds = int(time.time())
        self.authority.renew_roster()
        home = create_officer_home(folder / "alice", "alice", passphrase=None)
        self.authority.name_officer("alice", home.config.public_key)
        self.authority.log_roster()
        attach(
            home,
            root_key=self.authority.root.public_key,
            roster=self.authority.roster.statement.envelope(),
            broker_url="amqps://officer:hidden@broker.example/strongroom",
            broker_ca=None,
            now=self.authority.now,
        )
        self.authority.enrol("laptop-1")
        for _ in range(3):
            self.authority.store("laptop-1")
        self.root = folder / "root.pub"
        self.root.write_text(b64encode(self.authority.root.public_key).decode() + "\n")

    def say(self, *words: str, code: int = 0) -> Result:
        """Run `strongroom log` with alice's home, and expect this exit code."""
        result = CliRunner().invoke(cli, ["log", *words, "--home", str(self.folder / "alice")])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        return result

    def document(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Run it with `-o json` and return the document."""
        found: dict[str, Any] = json.loads(self.say(*words, "-o", "json", code=code).stdout)
        return found

    @property
    def export(self) -> str:
        """The folder of the export."""
        return str(self.folder / "export")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    open_home = Auditor.open

    def opened(path: Path, *, passphrase: Secret | None = None) -> Auditor:
        return open_home(path, passphrase=passphrase, connector=made.authority.connect)

    monkeypatch.setattr(Auditor, "open", opened)
    return made


def keep(place: Place, note: str, size: int) -> None:
    """Let alice's home hold a checkpoint of the escrow log."""
    with State.open(place.folder / "alice" / "state.db") as state:
        state.keep_checkpoint(KeptCheckpoint("escrow", size, bytes(32), note), 1)


# ---- export ----


def test_an_export_says_how_much_is_new(place: Place) -> None:
    """Then it is gone on with."""
    assert "escrow log: 3 leaves, 3 of them new" in place.say("export", place.export).output
    place.authority.store("laptop-1")
    logs = place.document("export", place.export)["logs"]
    assert [(each["log"], each["old_size"], each["size"]) for each in logs] == [
        ("escrow", 3, 4),
        ("recovery", 2, 2),
    ]


def test_an_export_of_damage_fails_and_is_there(place: Place) -> None:
    """Exit code 1, the finding, and all the files."""
    place.authority.escrow.rows[1].leaf = None
    document = place.document("export", place.export, code=1)
    assert [(each["index"], each["code"]) for each in document["findings"]] == [(1, "leaf_missing")]
    assert (Path(place.export) / "escrow/checkpoint").exists()


def test_a_fork_is_told_with_what_to_do(place: Place) -> None:
    """By the export that is not a prefix any more."""
    place.say("export", place.export)
    del place.authority.escrow.rows[1:]
    place.authority.escrow = place.authority.escrow.rebuilt()
    output = place.say("export", place.export, code=1).output
    assert "a tail was cut off" in output
    assert "next:" in output


# ---- verify ----


def test_an_export_is_verified_with_the_root_key_alone(place: Place) -> None:
    """No home is looked at."""
    place.say("export", place.export)
    result = CliRunner().invoke(
        cli, ["log", "verify", place.export, "--root-key", str(place.root), "--home", "/nowhere"]
    )
    assert result.exit_code == 0, result.output
    assert "3 records, 5 signatures, 2 checkpoints compared: 0 errors, 0 warnings" in result.output


def test_without_a_folder_the_logs_are_fetched_and_verified(place: Place) -> None:
    """Nothing stays on disk."""
    document = place.document("verify")
    assert (document["ok"], document["leaves"], document["records"]) == (True, {"recovery": 2, "escrow": 3}, 3)


def test_what_is_wrong_is_named_over_the_queue(place: Place) -> None:
    """A deleted record, a deleted leaf, a false node: log, index, id and code, and exit code 1."""
    rows = place.authority.escrow.rows
    record, rows[0].beside = rows[0].beside[0], []
    rows[2].leaf = None
    document = place.document("verify", code=1)
    found = {(each["log"], each["index"], each["id"], each["code"]) for each in document["findings"]}
    assert {("escrow", 0, record, "row_missing"), ("escrow", 2, None, "leaf_missing")} <= found
    assert document["errors"] == 2
    text = place.say("verify", code=1).output
    assert record in text
    assert "leaf_missing" in text


def test_warnings_fail_with_strict_alone(place: Place) -> None:
    """A lost release wants a look, and is no error."""
    request = place.authority.ask("laptop-1", "laptop-1", name="disk")
    place.authority.release(request, [place.authority.escrow.rows[0].beside[0]], has_release=False)
    assert place.document("verify")["warnings"] == 1
    place.say("verify", "--strict", code=1)


def test_signatures_may_be_left_out(place: Place) -> None:
    """Those of escrow statements; the recovery log is replayed in full."""
    assert place.document("verify", "--no-signatures")["signatures"] == 2


def test_a_hosts_checkpoints_are_compared(place: Place) -> None:
    """One of another history is named with the file it came in."""
    place.say("export", place.export)
    other = place.authority.escrow.rebuilt()
    other.rows.pop()
    other = other.rebuilt()
    other.append(b"{}", None, [])
    file = place.folder / "laptop.checkpoints"
    file.write_text(f"{place.authority.escrow.checkpoint(2)}\n{other.checkpoint()}")
    found = place.document("verify", place.export, "--against", str(file), code=1)["findings"]
    assert [(each["code"], each["id"]) for each in found] == [("log_forked", str(file))]


def test_what_the_home_has_seen_itself_is_compared_over_the_queue(place: Place) -> None:
    """The auditor's own home holds a checkpoint of another history."""
    other = place.authority.escrow.rebuilt()
    other.append(b"{}", None, [])
    keep(place, other.checkpoint(), 4)
    assert [each["code"] for each in place.document("verify", code=1)["findings"]] == ["checkpoint_beyond"]


def test_a_folder_that_is_no_export_is_a_usage_error(place: Place) -> None:
    """Nothing to verify is not the same as nothing wrong."""
    (place.folder / "empty").mkdir()
    assert "is no export" in place.say("verify", str(place.folder / "empty"), code=2).output


def test_a_root_key_goes_with_a_folder(place: Place) -> None:
    """Over the queue the home's counts."""
    place.say("verify", "--root-key", str(place.root), code=2)


def test_a_witness_key_has_to_be_one(place: Place) -> None:
    """Not a log's, and not nonsense."""
    place.say("export", place.export)
    assert "verifier key" in place.say("verify", place.export, "--witness", "nonsense", code=1).output


# ---- cosign ----


def test_a_witness_cosigns_and_the_audit_sees_it(place: Place) -> None:
    """Its key is printed for `--witness`."""
    place.say("export", place.export)
    write_signing_key(place.folder / "w.key", SigningKey.generate(), None)
    words = [
        "cosign",
        place.export,
        "--log",
        "escrow",
        "--key",
        str(place.folder / "w.key"),
        "--name",
        "w.example/1",
    ]
    document = place.document(*words)
    assert document["size"] == 3
    verified = place.document("verify", place.export, "--witness", document["vkey"])
    cosigned = {each["log"]: list(each["cosigned"]) for each in verified["checkpoints"]}
    assert cosigned == {"escrow": ["w.example/1"], "recovery": []}
    assert (place.folder / "w.key.cosigned").exists()


# ---- checkpoints ----


def test_the_checkpoints_of_a_home_are_printed_as_they_are(place: Place) -> None:
    """Those it holds, and those that are evidence; as `--against` takes them."""
    notes = [place.authority.escrow.checkpoint(size) for size in (3, 2, 1)]
    keep(place, notes[0], 3)
    with State.open(place.folder / "alice" / "state.db") as state:
        state.keep_evidence(Evidence("escrow", new_id(), "forked", notes[1], notes[2], b"", 1))
    file = place.folder / "alice.checkpoints"
    file.write_text(place.say("checkpoints").stdout)
    place.say("export", place.export)
    verified = place.document("verify", place.export, "--against", str(file))
    assert sorted(each["size"] for each in verified["checkpoints"] if each["log"] == "escrow") == [1, 2, 3]
    assert [each["size"] for each in place.document("checkpoints")["checkpoints"]] == [3, 2, 1]


def test_a_home_without_checkpoints_prints_nothing(place: Place) -> None:
    """An empty file compares with nothing."""
    assert place.say("checkpoints").stdout == ""
