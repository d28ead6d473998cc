"""Exporting over the queue: the same files as any other writer, going on, damage on the way, and forks."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support import c2sp
from tests.support.exports import NOW, Authority, edited

from strongroom.audits import LogPage
from strongroom.crypto.cosignatures import vkey
from strongroom.crypto.tlog import Node
from strongroom.errors import CheckpointInvalid, LogForked, OfficerUnknown, ProofInvalid, Rejected, ReplyInvalid
from strongroom.mandates import Role
from strongroom_agent.home import Home
from strongroom_agent.identity import attach, create_officer_home
from strongroom_audit import folder
from strongroom_audit.export import Report, export
from strongroom_audit.folder import Export
from strongroom_audit.pages import Auditor
from strongroom_audit.verify import Options, verify


class Place:
    """An authority, the home of alice, who may audit, and an export."""

    def __init__(self, path: Path) -> None:
        self.authority = Authority()
        self.home = create_officer_home(path / "alice", "alice", passphrase=None)
        self.authority.name_officer("alice", self.home.config.public_key)
        self.authority.log_roster()
        self._attach(self.home)
        self.authority.enrol("laptop-1")
        self.path = path / "export"
        self.other = path / "other"

    def _attach(self, home: Home) -> None:
        attach(
            home,
            root_key=self.authority.root.public_key,
            roster=self.authority.roster.statement.envelope(),
            broker_url="amqps://officer:hidden@broker.example/strongroom",
            broker_ca=None,
            now=NOW,
        )

    def store(self, count: int) -> None:
        """Escrow so many statements."""
        for _ in range(count):
            self.authority.store("laptop-1")

    def auditor(self) -> Auditor:
        """Open the home."""
        return Auditor.open(self.home.path, connector=self.authority.connect, clock=self.authority.clock)

    def export(self, path: Path | None = None) -> Report:
        """Export, or go on with the export."""
        with self.auditor() as auditor:
            auditor.check_may_read()
            return asyncio.run(export(auditor, Export(path or self.path)))

    def asked(self, log: str) -> list[int]:
        """Return the first indexes of the pages of a log that were asked for, and forget them."""
        found = [each.first for each in self.authority.received if each.log == log]
        self.authority.received = [each for each in self.authority.received if each.log != log]
        return found

    def errors(self, path: Path | None = None) -> list[tuple[str, int | None, str]]:
        """Verify the export and return log, leaf and code of all findings."""
        options = Options(self.authority.root.public_key, now=self.authority.now)
        found = verify(Export(path or self.path), options).findings.kept
        return [(each.log, each.index, each.code) for each in found]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def files(path: Path) -> dict[str, bytes]:
    """Return all files of an export except the checkpoints that were collected."""
    found = (each for each in path.rglob("*") if each.is_file() and each.name != "checkpoints")
    return {str(each.relative_to(path)): each.read_bytes() for each in found}


# ---- the files ----


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 600])
def test_an_export_has_the_files_that_any_writer_makes(place: Place, count: int) -> None:
    """Byte for byte, by a writer that shares no code with it; and it verifies."""
    place.store(count)
    report = place.export()
    assert files(place.path) == files(place.authority.export(place.other))
    assert report.findings == []
    assert place.errors() == ([] if count else [("escrow", None, "log_missing")])
    assert report.logs["escrow"].size == count


def test_an_export_is_accepted_by_whoever_knows_the_specification_alone(place: Place) -> None:
    """Both logs, by a verifier that imports nothing of ours."""
    place.store(600)
    place.export()
    for log in place.authority.logs.values():
        size = c2sp.verify_export(place.path / log.name, vkey(log.origin, log.key.public_key))
        assert size == len(log.rows)


@pytest.mark.parametrize("steps", [(1, 1), (255, 1, 1), (256, 256), (300, 600), (100, 0, 700)])
def test_an_export_that_is_gone_on_with_has_the_files_of_one_made_at_once(
    place: Place, steps: tuple[int, ...]
) -> None:
    """Partial files that the tree has outgrown are gone."""
    for step in steps:
        place.store(step)
        place.export()
    assert files(place.path) == files(place.authority.export(place.other))
    assert place.errors() == []


def test_a_log_of_more_tiles_than_one_is_exported(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of level 1 and 2: the rows are made up, so that 66,000 leaves take no time to sign."""
    place.store(1)
    log = place.authority.escrow
    row = log.rows[0]
    for number in range(66_000):
        log.append(b'{"number":%d}' % number, None, [])
    assert row.statement is not None
    monkeypatch.setattr("strongroom.private_file.sync_folder", lambda _path: None)
    monkeypatch.setattr("os.fsync", lambda _descriptor: None)
    place.export()
    assert files(place.path) == files(place.authority.export(place.other))


def test_only_what_is_new_is_fetched(place: Place) -> None:
    """From the beginning of the last bundle that was not full."""
    place.store(600)
    place.export()
    assert place.asked("escrow") == [0, 256, 512, 512]
    place.store(300)
    place.export()
    assert place.asked("escrow") == [512, 768, 768]


def test_pages_may_be_of_any_length(place: Place) -> None:
    """The worker gives as many leaves as fit."""
    place.store(20)
    place.authority.page_leaves_max = 3
    place.export()
    assert files(place.path) == files(place.authority.export(place.other))


@pytest.mark.parametrize("count", range(0, 34, 3))
def test_an_export_that_was_killed_is_gone_on_with(
    place: Place, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Killed before so many files of a larger export were written; full bundles are not fetched again."""
    place.store(300)
    place.export()
    place.store(700)
    written, left = folder.write, [count]

    class Killed(BaseException):
        """The process is gone."""

    def write(path: Path, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        written(path, data)

    monkeypatch.setattr(folder, "write", write)
    with suppress(Killed):
        place.export()
    monkeypatch.setattr(folder, "write", written)
    place.asked("escrow")
    place.export()
    assert place.asked("escrow")[0] == 256 + min(2, count // 4) * 256
    assert files(place.path) == files(place.authority.export(place.other))
    assert place.errors() == []


# ---- damage at the server ----


HOLE = [(7, "leaf_missing"), (7, "statement_unnamed")]


@pytest.mark.parametrize(
    ("spoilt", "exported", "verified"),
    [
        ({"leaf": None}, [(7, "leaf_missing")], HOLE),
        ({"leaf": b"{}"}, [(7, "leaf_edited")], [(7, "leaf_edited"), (7, "statement_unnamed")]),
        ({"leaf": b"x" * 70_000}, [(7, "leaf_missing")], HOLE),
        ({"statement": None}, [(7, "statement_missing")], [(7, "statement_missing")]),
        ({"beside": []}, [], [(7, "row_missing")]),
        ({Node(0, 7): b"n" * 32}, [(7, "node_edited")], [(7, "tile_edited")]),
        ({Node(0, 7): None}, [(7, "node_missing")], []),
        ({Node(3, 0): b"n" * 32}, [(7, "node_edited")], []),
        ({Node(3, 0): None}, [(7, "node_missing")], []),
        ({Node(8, 0): b"n" * 32}, [(255, "node_edited")], [(0, "tile_edited")]),
    ],
    ids=str,
)
def test_damage_is_named_and_stops_nothing(
    place: Place,
    spoilt: dict[Any, Any],
    exported: list[tuple[int, str]],
    verified: list[tuple[int, str]],
) -> None:
    """By the export, and again by whoever verifies it; every other leaf is proven all the same."""
    place.store(300)
    log = place.authority.escrow
    for what, value in spoilt.items():
        if isinstance(what, Node):
            log.nodes[what] = value
        else:
            setattr(log.rows[7], what, value)
    report = place.export()
    assert [(each.index, each.code) for each in report.findings] == exported
    assert [(index, code) for _, index, code in place.errors()] == verified
    assert report.logs["escrow"].size == 300


def test_a_leaf_and_its_hash_that_are_lost_leave_a_hole(place: Place) -> None:
    """Nothing proves the rest of the tree any more, and the hole is named."""
    place.store(10)
    place.authority.escrow.rows[7].leaf = None
    place.authority.escrow.nodes[Node(0, 7)] = None
    codes = {(each.index, each.code) for each in place.export().findings}
    assert {(7, "leaf_missing"), (None, "root_mismatch")} <= codes
    assert {("escrow", 7, "leaf_missing"), ("escrow", None, "root_mismatch")} <= set(place.errors())


def test_a_tail_that_is_lost_below_a_signed_size_is_named(place: Place) -> None:
    """Rows deleted; the checkpoint that was signed over them is there."""
    place.store(10)
    log = place.authority.escrow
    log.sealed = log.checkpoint()
    del log.rows[8:]
    assert {(8, "leaf_missing"), (9, "leaf_missing")} <= {
        (each.index, each.code) for each in place.export().findings
    }


def test_an_old_leaf_that_is_edited_now_is_named_and_the_export_keeps_the_true_one(place: Place) -> None:
    """It was exported before in a bundle that was not full."""
    place.store(10)
    place.export()
    log = place.authority.escrow
    log.rows[4].leaf = edited(log.rows[4].leaf, time=1)
    log.rows[5].statement = None
    place.store(10)
    assert [(each.index, each.code) for each in place.export().findings] == [(4, "leaf_edited")]
    assert place.errors() == []


# ---- forks ----


def forked(place: Place, at: int, count: int) -> None:
    """Let the log's owner sign another history: the same up to leaf `at`, and others up to `count`."""
    log = place.authority.escrow
    del log.rows[at:]
    place.authority.escrow = log.rebuilt()
    place.store(count - at)


def test_a_tail_that_was_cut_off_is_a_fork(place: Place) -> None:
    """Both sizes are named."""
    place.store(300)
    place.export()
    before = files(place.path)
    forked(place, 200, 200)
    with pytest.raises(LogForked, match=r"has 300 leaves.*now signs 200"):
        place.export()
    assert files(place.path) == before


def test_another_history_of_the_same_size_is_a_fork(place: Place) -> None:
    """Two roots are signed for one size."""
    place.store(300)
    place.export()
    forked(place, 200, 300)
    with pytest.raises(LogForked, match="two histories of 300 leaves"):
        place.export()


@pytest.mark.parametrize("at", [10, 300, 800, 1100])
def test_another_longer_history_is_a_fork_and_its_place_is_named(place: Place, at: int) -> None:
    """The first tile that differs; the export stays as it was, and can be gone on with when the truth is back."""
    place.store(1200)
    place.export()
    before, truth = files(place.path), place.authority.escrow
    kept = list(truth.rows)
    forked(place, at, 1600)
    with pytest.raises(LogForked) as caught:
        place.export()
    assert "1600 leaves that are signed now do not continue the 1200" in caught.value.message
    if at < 1024:
        assert caught.value.message.endswith(f"tile/0/{at // 256:03}")
    assert files(place.path) == before
    place.authority.escrow.rows[:] = kept
    place.authority.escrow = place.authority.escrow.rebuilt()
    place.store(500)
    place.export()
    assert files(place.path) == files(place.authority.export(place.other))
    # What was signed of the other history is kept as evidence, and named ever after.
    assert {code for _, _, code in place.errors()} == {"log_forked"}


def test_an_export_that_does_not_lead_to_its_checkpoint_is_not_gone_on_with(place: Place) -> None:
    """Neither by its leaves nor by its tiles; where one of them does, it goes on."""
    place.store(300)
    place.export()
    for name in ("tile/0/001.p/44", "tile/entries/001.p/44"):
        path = place.path / "escrow" / name
        path.write_bytes(path.read_bytes().replace(path.read_bytes()[40:44], b"xxxx"))
    place.store(1)
    with pytest.raises(ProofInvalid, match=r"001\.p/44"):
        place.export()


@pytest.mark.parametrize("name", ["tile/0/001.p/44", "tile/0/000", "tile/1/000.p/1"])
def test_an_export_whose_tiles_are_damaged_is_gone_on_with_by_its_leaves(place: Place, name: str) -> None:
    """They lead to its checkpoint."""
    place.store(300)
    place.export()
    path = place.path / "escrow" / name
    path.write_bytes(b"x" + path.read_bytes()[1:])
    place.store(1)
    place.export()
    assert {code for _, _, code in place.errors()} <= {"tile_edited"}


def test_an_export_with_a_false_checkpoint_is_not_gone_on_with(place: Place) -> None:
    """The log's key did not sign it."""
    place.store(3)
    place.export()
    place.authority.escrow.key = place.authority.recovery.key
    (place.path / "escrow/checkpoint").write_text(place.authority.escrow.checkpoint())
    with pytest.raises(CheckpointInvalid, match="escrow/checkpoint"):
        place.export()


# ---- pages that are not to be taken ----


def _without(page: LogPage, place: int) -> LogPage:
    return page.model_copy(update={"entries": [each for each in page.entries if each.index != place]})


@pytest.mark.parametrize(
    "alteration",
    [
        lambda page: _without(page, 2),
        lambda page: page.model_copy(update={"entries": page.entries[::-1]}),
        lambda page: page.model_copy(update={"entries": []}),
        lambda page: page.model_copy(update={"request_digest": "00" * 32}),
        lambda page: page.model_copy(update={"roster_version": 99}),
        lambda page: page.model_copy(update={"log": "recovery" if page.log == "escrow" else "escrow"}),
        lambda page: page.model_copy(
            update={"entries": [each.model_copy(update={"statement": False}) for each in page.entries]}
        ),
    ],
    ids=["a gap", "backwards", "nothing", "another question", "a roster withheld", "another log", "attachments"],
)
def test_a_page_out_of_shape_is_refused(place: Place, alteration: Callable[[LogPage], LogPage]) -> None:
    """Signed by the worker, all the same."""
    place.store(5)
    place.authority.alter = alteration
    with pytest.raises(ReplyInvalid):
        place.export()


def test_a_page_with_a_checkpoint_of_another_key_is_refused(place: Place) -> None:
    """Somebody wrote it into the database."""
    place.store(5)
    place.authority.escrow.key = place.authority.recovery.key
    with pytest.raises(CheckpointInvalid):
        place.export()


def test_a_page_of_another_worker_is_refused(place: Place) -> None:
    """Not signed with the recovery worker's reply key."""
    place.store(5)
    place.authority.recovery_reply_key = place.authority.escrow_reply_key
    with pytest.raises(ReplyInvalid):
        place.export()


def test_an_officer_without_the_role_is_told_before_anything_is_asked(place: Place) -> None:
    """By the newest roster seen; the authority would say the same."""
    place.export()
    place.authority.officer_roles["alice"] = [Role.APPROVE]
    place.authority.renew_roster()
    with pytest.raises(Rejected):
        place.export()
    place.authority.received.clear()
    with pytest.raises(OfficerUnknown, match="audit"):
        place.export()
    assert place.authority.received == []


# ---- one log read after the other ----


def test_a_signer_who_enrolled_after_the_recovery_log_was_read_is_not_an_error(place: Place) -> None:
    """A host enrols and escrows between the two readings; the next export proves it."""
    place.store(3)
    authority = place.authority

    def alter(page: LogPage) -> LogPage:
        if page.log == "recovery" and "laptop-2" not in authority.keys:
            authority.enrol("laptop-2")
            authority.store("laptop-2")
        return page

    authority.alter = alter
    place.export()
    assert place.errors() == [("escrow", 3, "signer_unknown")]
    options = Options(authority.root.public_key, now=NOW)
    assert verify(Export(place.path), options).errors == 0
    place.export()
    assert place.errors() == []


def test_a_leaf_that_is_nested_deeply_does_not_end_the_export(place: Place) -> None:
    """The owner of the log's key can put anything there; verifying names it."""
    place.store(3)
    place.authority.escrow.rows[1].leaf = b"[" * 65_535
    place.authority.escrow.rows[1].statement = None
    place.authority.escrow = place.authority.escrow.rebuilt()
    assert place.export().findings == []
    assert ("escrow", 1, "leaf_malformed") in place.errors()


def test_what_was_settled_before_is_an_error(place: Place) -> None:
    """The same signer in the part of the escrow log that was read first."""
    place.store(3)
    key = place.authority.enrol("laptop-2")
    place.authority.store("laptop-2", key=key)
    place.authority.recovery.rows.pop()
    place.authority.recovery = place.authority.recovery.rebuilt()
    place.export()
    options = Options(place.authority.root.public_key, now=NOW)
    assert [each.code for each in verify(Export(place.path), replace(options)).findings.kept] == ["signer_unknown"]
    assert verify(Export(place.path), options).errors == 1
