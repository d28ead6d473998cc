"""What a restore drill makes of what it saw, and what it takes for a backup."""

import os
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support import authority as make
from tests.support.keyrings import NoTransport

from strongroom.crypto.sealing import Opener
from strongroom.errors import ConfigurationInvalid, KeyUnknown, StateCorrupt, StrongroomError
from strongroom.messages import Record
from strongroom_recovery.drill import restored
from strongroom_recovery.drill.postgres_programs import Programs, ServerAccount, failed, read_plain
from strongroom_recovery.drill.report import (
    Failure,
    Finding,
    LogState,
    Report,
    SealingKeyUse,
    bad_share_max,
    key_findings,
    row_findings,
    sampling_statement,
)
from strongroom_recovery.drill.restored import Cluster
from strongroom_recovery.drill.sample import opens
from strongroom_recovery.drill.temporary_server import TemporaryServer, temporary_folder
from strongroom_recovery.records import StoredRecord

FAILURE = Failure("r", "s", "laptop", "disk", "blob_invalid", "does not open")


def report(**changes: Any) -> Report:
    """Return a report of 100 records out of 5,000, all of them opened; members as given."""
    log = LogState(leaves=2_000, newest_leaf_at=make.NOW)
    members: dict[str, Any] = {
        "authority": make.AUTHORITY,
        "roster_version": 1,
        "migration": "0001_initial",
        "records": 5_000,
        "statements": 2_000,
        "escrow_log": log,
        "recovery_log": log,
        "sealing_keys": [],
        "sampled": 100,
        "opened": 100,
        "late": 0,
        "seed": 7,
        "check_seconds": 3.0,
        "open_seconds": 2.0,
    }
    return Report(**(members | changes))


# ---- the report ----


@pytest.mark.parametrize(("opened", "share"), [(1, 0.95), (10, 0.25887), (100, 0.029513), (1_000, 0.0029912)])
def test_the_bound_is_the_exact_one(opened: int, share: float) -> None:
    """A share that large would leave a sample without a bad one with 5 %; for many it is near the rule of three."""
    assert bad_share_max(opened) == pytest.approx(share, rel=1e-4)
    assert (1 - bad_share_max(opened)) ** opened == pytest.approx(0.05)
    assert bad_share_max(opened) < 3 / opened


def test_a_sample_says_what_it_proves() -> None:
    """The sentence names the share and the number of records; all of them, a failure and none say another one."""
    assert sampling_statement(report()) == "with 95% confidence fewer than 2.95% of the 5000 records are bad"
    assert sampling_statement(report(seed=None)) == "every record of this backup was opened"
    assert "1 of 100" in sampling_statement(report(opened=99, failures=[FAILURE]))
    assert "nothing is proven" in sampling_statement(report(sampled=0, opened=0))


def test_a_drill_passes_only_if_everything_opened_and_nothing_else_is_wrong() -> None:
    """A failure, a finding, and a backup without records each fail it."""
    assert report().is_passed
    assert not report(opened=99, failures=[FAILURE]).is_passed
    assert not report(findings=[Finding("key_unknown", "is missing", "look for it")]).is_passed
    assert not report(sampled=0, opened=0, records=0).is_passed


def test_the_document_has_the_figures() -> None:
    """Rate, bound and verdict are in the JSON, beside everything that was counted; no bound after a failure."""
    document = report().document()
    assert (document["ok"], document["failed"], document["records_per_second"]) == (True, 0, 50.0)
    assert document["bad_share_max"] == pytest.approx(0.029513, rel=1e-4)
    assert document["escrow_log"] == {"leaves": 2_000, "newest_leaf_at": make.NOW, "behind": None}
    assert report(opened=99, failures=[FAILURE]).document()["bad_share_max"] is None
    assert report(seed=None).document()["bad_share_max"] == 0.0
    assert "schema" not in document
    assert "kind" not in document


# ---- findings ----

HELD = SealingKeyUse("a" * 32, records=5, state="active", is_held=True)


def test_a_missing_sealing_key_is_named() -> None:
    """One that records are sealed to, and one that the roster alone names, are told apart; held ones are fine."""
    used = SealingKeyUse("b" * 32, records=3, state=None, is_held=False)
    unused = SealingKeyUse("c" * 32, records=0, state="active", is_held=False)
    assert key_findings([HELD]) == []
    first, second = key_findings([HELD, used, unused])
    assert "b" * 32 in first.finding
    assert "3 records" in first.finding
    assert "never open" in first.advice
    assert "worker" in second.advice
    (whole,) = key_findings([used, unused])
    assert "none of the sealing keys" in whole.finding


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({}, []),
        ({"statements": 9}, ["1 escrow statements that the log names are not there"]),
        ({"unstored": 1}, ["1 escrow statements that the log names are not there"]),
        ({"statements": 12}, ["2 escrow statements are there that the log lacks"]),
        ({"records": 22}, ["2 index entries belong to no stored record"]),
        ({"records": 22, "seen": 0}, []),
    ],
)
def test_rows_and_log_that_contradict_each_other_are_told(counts: dict[str, int], said: list[str]) -> None:
    """Statements lost, statements added, entries of no record; what was not looked at is not judged."""
    usual = {"records": 20, "seen": 20, "statements": 10, "leaves": 10, "unstored": 0}
    found = row_findings(**(usual | counts))
    assert [each.finding for each in found] == said


# ---- opening ----


class OneKey(NoTransport):
    """A keyring that holds the usual sealing key."""

    kids = frozenset({make.sealing_key().kid})

    def opener(self, kid: str) -> Opener:
        """Give it, or refuse."""
        if kid not in self.kids:
            raise KeyUnknown(f"this keyring does not hold the sealing key {kid}")
        return make.sealing_key()


def stored(record: Record) -> StoredRecord:
    """Return a record as it comes out of a verified statement."""
    members: dict[str, Any] = {
        "authority": make.AUTHORITY,
        "principal": make.PRINCIPAL,
        "statement_id": "s",
        "issued_at": make.NOW,
        "stored_at": make.NOW,
        "log_index": 0,
        "in_force": True,
        "record": record,
    }
    known = StoredRecord.__dataclass_fields__
    return StoredRecord(**{name: value for name, value in members.items() if name in known})


def test_a_record_opens_in_its_place_or_says_why_not() -> None:
    """The right blob opens; another's blob, another fingerprint and a key that is not held are told apart."""
    good = make.record()
    assert opens(stored(good), OneKey()) is None
    swapped = good.model_copy(update={"blob": make.record().blob})
    lying = good.model_copy(update={"fingerprint": "0" * 64})
    foreign = good.model_copy(update={"kid": "f" * 32})
    codes = []
    for record in (swapped, lying, foreign):
        refusal = opens(stored(record), OneKey())
        assert refusal is not None
        assert refusal.__traceback__ is None
        codes.append(refusal.code)
    assert codes == ["blob_invalid", "fingerprint_mismatch", "key_unknown"]


# ---- what is taken for a backup ----


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (b"\x1f\x8b\x08...", "gunzip"),
        (b"--\n-- PostgreSQL database cluster dump\n--\n", "pg_dump --format=custom"),
        (b"SQLite format 3\x00", "pg_dump"),
        (b"", "pg_dump"),
        (b"--\n-- PostgreSQL database dump\n--\nCOPY records FROM stdin;\n1\n", "another backup"),
    ],
)
def test_a_file_that_is_no_whole_dump_is_refused(tmp_path: Path, content: bytes, hint: str) -> None:
    """Packed, of a whole cluster, of something else, empty, cut off: each says what to give instead."""
    path = tmp_path / "backup"
    path.write_bytes(content)
    with pytest.raises(StrongroomError) as caught:
        restored._check_dump(path)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("content", "is_archive"),
    [
        (b"PGDMP\x01\x0e\x00", True),
        (b"toc.dat".ljust(257, b"\0") + b"ustar\x00", True),
        (b"--\n-- PostgreSQL database dump\n--\n\n--\n-- PostgreSQL database dump complete\n--\n", False),
    ],
)
def test_the_format_of_a_dump_is_told_from_its_content(tmp_path: Path, content: bytes, *, is_archive: bool) -> None:
    """Custom and tar go to pg_restore, plain SQL to psql."""
    path = tmp_path / "backup"
    path.write_bytes(content)
    assert restored._check_dump(path) is is_archive


def test_a_plain_dump_loses_its_own_restrictions_and_no_row(tmp_path: Path) -> None:
    r"""`\restrict` before the first row and `\unrestrict` anywhere go; a row that begins with `\r` stays."""
    path = tmp_path / "backup"
    path.write_bytes(b"\\restrict abc\nSET x;\nCOPY t FROM stdin;\n\\restrict is a row\n\\.\n\n\\unrestrict abc\n")
    with path.open("rb") as file:
        lines: Iterator[list[bytes]] = restored._without_restrictions(file)
        kept = b"".join(line for block in lines for line in block)
    assert kept == b"SET x;\nCOPY t FROM stdin;\n\\restrict is a row\n\\.\n\n"


def test_a_folder_that_is_no_base_backup_is_refused(tmp_path: Path) -> None:
    """Empty, still packed, of a running server, with links, with an archive that is none: each says what to do."""

    def refused(source: Cluster) -> str:
        with pytest.raises(ConfigurationInvalid) as caught:
            restored._check_cluster(source)
        return f"{caught.value.message} {caught.value.hint}"

    source = Cluster(tmp_path)
    assert "pg_basebackup has written" in refused(source)
    (tmp_path / "base.tar.gz").touch()
    assert "unpack" in refused(source)
    (tmp_path / "PG_VERSION").write_text("15\n")
    assert restored._check_cluster(source) == 15
    assert "is no folder" in refused(replace(source, wal=tmp_path / "none"))
    (tmp_path / "pg_tblspc").mkdir()
    (tmp_path / "pg_tblspc" / "16400").symlink_to(tmp_path)
    assert "tablespace" in refused(source)
    (tmp_path / "postmaster.pid").touch()
    assert "a server runs" in refused(source)


def listen(path: Path) -> None:
    """Leave a Unix socket behind."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def make_device(path: Path) -> None:
    """Make a character device, which only root can: for anybody else a pipe stands in."""
    if os.geteuid() == 0:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    else:
        os.mkfifo(path)


@pytest.mark.parametrize("make_special", [os.mkfifo, listen, make_device])
def test_a_cluster_with_something_that_is_no_file_is_refused(
    tmp_path: Path, make_special: Callable[[Path], None]
) -> None:
    """A copy of it would go to the server's account, and a pipe would be waited for; however deep it lies."""
    (tmp_path / "PG_VERSION").write_text("15\n")
    (tmp_path / "base").mkdir()
    make_special(tmp_path / "base" / "1")
    with pytest.raises(ConfigurationInvalid, match="base/1: is a device, a pipe or a socket"):
        restored._check_cluster(Cluster(tmp_path))


@pytest.mark.parametrize("make_special", [os.mkfifo, listen, make_device])
def test_a_version_file_that_is_none_is_not_read(tmp_path: Path, make_special: Callable[[Path], None]) -> None:
    """Whoever reads a pipe waits for a writer who never comes."""
    make_special(tmp_path / "PG_VERSION")
    with pytest.raises(ConfigurationInvalid, match="no base backup"):
        restored._check_cluster(Cluster(tmp_path))


def test_a_version_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    """It leads to wherever the backup's author wants."""
    (tmp_path / "elsewhere").write_text("15\n")
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "PG_VERSION").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationInvalid, match="no base backup"):
        restored._check_cluster(Cluster(tmp_path / "cluster"))


def test_only_a_regular_file_is_read_and_only_its_beginning(tmp_path: Path) -> None:
    """What stands at a name can change after it was looked at: reading refuses a link and a pipe by itself."""
    (tmp_path / "file").write_bytes(b"123456")
    assert read_plain(tmp_path / "file", 4) == b"1234"
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError, match=name):
            read_plain(tmp_path / name, 4)


# ---- the server's folder ----


def myself() -> ServerAccount:
    """Return the caller as the account of a server."""
    return ServerAccount("root" if os.geteuid() == 0 else "somebody", os.geteuid(), os.getegid())


def test_a_file_of_the_server_is_not_written_through_a_link(tmp_path: Path) -> None:
    """Where a name is taken nothing is written, and what the link leads to keeps its content, mode and owner."""
    target = tmp_path / "shadow"
    target.write_text("root:x")
    target.chmod(0o400)
    before = target.stat()
    (tmp_path / "hba.conf").symlink_to(target)
    server = TemporaryServer(Programs(tmp_path, 15), myself(), tmp_path)
    with pytest.raises(FileExistsError):
        server.write("hba.conf", "local all all trust\n")
    after = target.stat()
    assert target.read_text() == "root:x"
    assert (after.st_mode, after.st_uid, after.st_ctime_ns) == (before.st_mode, before.st_uid, before.st_ctime_ns)
    server.write("ident.conf", "")
    assert stat.S_IMODE((tmp_path / "ident.conf").stat().st_mode) == 0o640


async def test_a_log_that_is_there_before_the_server_is_not_written(tmp_path: Path) -> None:
    """A link in its place would have root create the file that it leads to."""
    (tmp_path / "server.log").symlink_to(tmp_path / "cron")
    server = TemporaryServer(Programs(tmp_path, 15), None, tmp_path)
    with pytest.raises(FileExistsError):
        async with server.running():
            pass
    assert not (tmp_path / "cron").exists()


async def test_a_work_folder_of_the_servers_account_is_refused(tmp_path: Path) -> None:
    """Whoever may write to it could put a folder of his own in the place of ours."""
    with pytest.raises(ConfigurationInvalid, match="could put another folder") as caught:
        async with temporary_folder(tmp_path, myself(), keep=False):
            pass
    assert "--work-dir" in (caught.value.hint or "")


def test_who_may_move_what_others_own_is_told_from_owner_mode_and_sticky_bit(tmp_path: Path) -> None:
    """The owner of a folder may, and whoever may write to it, unless it is sticky."""
    assert myself().may_replace_in(tmp_path)
    stranger = ServerAccount("root", os.geteuid() + 54_321, os.getegid())
    for mode, is_open in ((0o755, False), (0o775, True), (0o777, True), (0o1777, False)):
        tmp_path.chmod(mode)
        assert stranger.may_replace_in(tmp_path) is is_open


# ---- PostgreSQL's programs ----


def programs_of(folder: Path, version: str) -> Path:
    """Make a folder of programs that say a version."""
    folder.mkdir(parents=True)
    for name in ("initdb", "postgres", "psql", "pg_restore"):
        (folder / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


def test_the_programs_of_the_right_version_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest for a dump, those of its version for a cluster; too old and missing ones say what to do."""
    monkeypatch.setattr("shutil.which", lambda _: None)
    for version in ("14.1", "16.2", "17.0"):
        programs_of(tmp_path / version.partition(".")[0] / "bin", version)
    assert Programs.find(None, root=tmp_path).version == 17
    assert Programs.find(None, version=16, root=tmp_path).folder == tmp_path / "16" / "bin"
    with pytest.raises(ConfigurationInvalid, match="PostgreSQL 15 are needed") as caught:
        Programs.find(None, version=15, root=tmp_path)
    assert "--postgres-bin" in (caught.value.hint or "")
    with pytest.raises(ConfigurationInvalid, match="none at all"):
        Programs.find(tmp_path, root=tmp_path)
    with pytest.raises(ConfigurationInvalid, match="14 in"):
        Programs.find(tmp_path / "14" / "bin", root=tmp_path)


def test_a_program_that_failed_is_quoted_by_its_first_complaint(tmp_path: Path) -> None:
    """Not what it printed before, nothing a terminal would act on, and a full disk says where to make room."""
    said = b"working\npg_restore: error: could not \x1b[1mextend file: No space left on device\nHINT: x\n"
    error = failed("/usr/bin/pg_restore", said, tmp_path / "work")
    assert isinstance(error, StateCorrupt)
    assert error.message == "pg_restore failed: could not ?[1mextend file: No space left on device"
    assert str(tmp_path) in (error.hint or "")
    assert failed("cp", b"", tmp_path).message == "cp failed: it said nothing"
