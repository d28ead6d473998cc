"""The restore drill on real backups, in an empty place, with nothing but the backup of the keys."""

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any

import pytest
from deploy.local.postgres import PrivatePostgres
from tests.support import authority as make
from tests.support.attacker import UNGUARDED, as_superuser
from tests.support.backups import AFTER, BEFORE, HOSTS, KEYS, Backups, taken
from tests.support.command import Command, Outcome
from tests.support.keyrings import NoTransport
from tests.support.processes import command_lines, is_pending, stopped
from tests.support.proving import Proven
from tests.support.recovery import Place, place_of
from tests.support.resealing import ACTIVE, CLOSED, OLD, adopt, change_key, reseal
from tests.support.servers import lent
from tests.support.site import PROGRAMS, SYSTEM_PATH
from tests.support.waiting import until
from tests.support.workers import Brokers, Databases

from strongroom import database as databases
from strongroom.crypto.key_file import read_sealing_key, write_sealing_key
from strongroom.crypto.keyring import FileKeyring
from strongroom.crypto.sealing import Opener, PrivateSealingKey, Suite
from strongroom.crypto.secret import Secret
from strongroom.errors import (
    ConfigurationInvalid,
    KeyUnknown,
    LogForked,
    RosterInvalid,
    SchemaMismatch,
    StateCorrupt,
    StrongroomError,
)
from strongroom.fields import parse_body
from strongroom.messages import Escrow
from strongroom_recovery.drill import restored as restoring
from strongroom_recovery.drill.postgres_programs import Programs, ServerAccount, ended
from strongroom_recovery.drill.postgres_programs import started as program_started
from strongroom_recovery.drill.report import Report
from strongroom_recovery.drill.sample import Means, drill
from strongroom_recovery.drill.temporary_server import TemporaryServer, temporary_folder
from strongroom_recovery.reseal.retiring import put_aside
from strongroom_recovery.settings import ProverSettings

STATEMENTS = BEFORE * len(HOSTS)
RECORDS = STATEMENTS * KEYS

TAMPERING = {
    "flipped": """UPDATE escrow_statements SET envelope = set_byte(envelope, 400, get_byte(envelope, 400) # 1)
        WHERE leaf_index = 0;""",
    "orphaned": "DELETE FROM escrow_statements WHERE leaf_index = 1;",
    "forked": "UPDATE recovery_leaves SET leaf = leaf || ' ' WHERE index = 1;",
}


# ---- backups of an authority that is gone -----------------------------------------------------------------


@pytest.fixture(scope="module")
def backups(
    broker: Brokers, tmp_path_factory: pytest.TempPathFactory, _leftovers_removed: None
) -> Iterator[Backups]:
    folder = Path(mkdtemp(prefix="backups-", dir=gettempdir()))
    folder.chmod(0o711)  # an archive is written by the server's account
    try:
        with lent(tmp_path_factory.mktemp("backed-up")) as servers:
            yield taken(folder, PrivatePostgres(servers), broker, TAMPERING)
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def work() -> Iterator[Path]:
    """A folder to restore to, which every account may enter; after the test it is empty, and nobody uses it."""
    folder = Path(mkdtemp(prefix="drilled-", dir=gettempdir()))
    folder.chmod(0o711)
    yield folder
    left = folders_in(folder)
    running = users_of(folder)
    shutil.rmtree(folder)
    assert (left, running) == ([], [])


def folders_in(folder: Path) -> list[Path]:
    """Return what is in a folder."""
    return list(folder.iterdir())


def users_of(folder: Path) -> list[str]:
    """Return the command lines of the processes that name a folder."""
    lines = (line.replace(b"\0", b" ").decode(errors="replace") for line in command_lines())
    return [line for line in lines if str(folder) in line]


class Drill:
    """Runs `strongroom drill` with the backup of the keys and nothing else."""

    def __init__(self, backups: Backups, work: Path) -> None:
        self.command = Command(work.parent)
        self.given: dict[str, str | Path] = {
            "--keys": backups.keys, "--root-key": backups.root_key, "--work-dir": work
        }  # fmt: skip

    def words(self, *arguments: str | Path) -> list[str | Path]:
        """Return the words of a command; an option that is given replaces the usual one."""
        usual = [word for option in self.given.items() if option[0] not in arguments for word in option]
        return ["drill", *usual, *arguments]

    def __call__(self, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
        """Return the JSON document, or that of the error."""
        outcome: Outcome = self.command(*self.words(*arguments), "-o", "json").done(code)
        return outcome.document if outcome.out else outcome.error


def state_dirs(backups: Backups) -> list[str | Path]:
    """Return the options that name the workers' state folders."""
    return [word for path in backups.states.values() for word in ("--state-dir", path)]


@pytest.fixture
def run(backups: Backups, work: Path) -> Drill:
    return Drill(backups, work)


@pytest.mark.parametrize("kind", ["custom", "plain", "cluster"])
def test_every_record_of_a_backup_opens_in_an_empty_place(backups: Backups, run: Drill, kind: str) -> None:
    """Of each kind of backup all records open, with no server, worker, roster or log key of the authority left.

    What was committed after the backup is counted from the workers' state folders, and is no fault of the backup.
    """
    option = "--cluster" if kind == "cluster" else "--dump"
    report = run(option, getattr(backups, kind), *state_dirs(backups))
    assert (report["kind"], report["ok"], report["findings"], report["failures"]) == ("drill", True, [], [])
    assert (report["records"], report["statements"], report["opened"]) == (RECORDS, STATEMENTS, RECORDS)
    assert (report["escrow_log"]["leaves"], report["recovery_log"]["leaves"]) == (STATEMENTS, 1 + len(HOSTS))
    assert report["source"] == {"kind": option[2:], "path": str(getattr(backups, kind))}
    (key,) = report["sealing_keys"]
    assert (key["records"], key["state"], key["is_held"]) == (RECORDS, "active", True)
    assert (report["escrow_log"]["behind"], report["recovery_log"]["behind"]) == (AFTER, 0)
    assert report["restore_seconds"] > 0
    assert report["records_per_second"] > 0


def test_a_base_backup_with_archived_log_is_as_new_as_the_archive(backups: Backups, run: Drill) -> None:
    """With --wal what was committed after the backup opens, too: no checkpoint of the workers is ahead of it."""
    report = run("--cluster", backups.cluster, "--wal", backups.wal, *state_dirs(backups))
    assert (report["ok"], report["opened"], report["escrow_log"]["behind"]) == (True, RECORDS + AFTER, 0)


def test_settings_that_come_with_a_cluster_do_not_hold(backups: Backups, run: Drill, work: Path) -> None:
    """Whoever wrote them would run programs here: a library to load and a command to restore by are passed over."""
    cluster = work / "cluster"
    shutil.copytree(backups.cluster, cluster)
    (cluster / "postgresql.auto.conf").write_text(
        f"shared_preload_libraries = 'no_such_library'\nrestore_command = 'touch {work}/ran; false'\n"
        "no_such_setting = 1\n"
    )
    (cluster / "standby.signal").touch()
    (cluster / "backup_manifest").unlink()
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "postgres", cluster], check=True)
    report = run("--cluster", cluster, "--in-place")
    shutil.rmtree(cluster)
    assert report["ok"] is True
    assert report["opened"] == RECORDS


def test_a_damaged_file_of_a_base_backup_is_found(backups: Backups, run: Drill, work: Path) -> None:
    """One byte of a table's file is another one: the backup's manifest tells, and the drill fails."""
    cluster = work / "cluster"
    shutil.copytree(backups.cluster, cluster)
    version = cluster / "global" / "pg_filenode.map"
    spoilt = bytearray(version.read_bytes())
    spoilt[-1] ^= 1
    version.write_bytes(spoilt)
    report = run("--cluster", cluster, code=1)
    shutil.rmtree(cluster)
    assert report["ok"] is False
    assert "pg_verifybackup" in report["findings"][0]["finding"]


def test_a_flipped_byte_in_a_dump_is_found_and_named(backups: Backups, run: Drill) -> None:
    """The records of the statement that it hit are listed; all others open."""
    report = run("--dump", backups.tampered["flipped"], code=1)
    assert (report["ok"], report["failed"], report["opened"]) == (False, KEYS, RECORDS + AFTER - KEYS)
    assert {each["code"] for each in report["failures"]} == {"proof_invalid"}
    assert {each["principal"] for each in report["failures"]} == {HOSTS[0]}
    assert [each["name"] for each in report["failures"]] == [f"disk-0-{number}" for number in range(KEYS)]
    assert report["bad_share_max"] is None


def test_a_dump_whose_rows_contradict_each_other_is_drilled_all_the_same(backups: Backups, run: Drill) -> None:
    """A statement is gone: PostgreSQL says so, the log says so, the leaf is named, and what is left opens."""
    report = run("--dump", backups.tampered["orphaned"], code=1)
    assert (report["ok"], report["opened"]) == (False, RECORDS + AFTER - KEYS)
    (lost,) = report["unstored"]
    assert (lost["leaf_index"], lost["principal"]) == (1, HOSTS[1])
    assert [each["code"] for each in report["findings"]] == ["state_corrupt", "not_found", "proof_invalid"]


def test_a_forked_recovery_log_ends_the_drill(backups: Backups, run: Drill) -> None:
    """Who speaks for whom is not known then; the leaf is named."""
    error = run("--dump", backups.tampered["forked"], code=1)
    assert (error["code"], error["message"]) == (
        "log_forked",
        "recovery log: leaf 1 is not the one that was signed",
    )
    assert "another" in error["hint"]


def test_a_dump_of_another_program_is_refused(backups: Backups, run: Drill) -> None:
    """The wrong database was backed up: it is said in these words, and what to do."""
    error = run("--dump", backups.tampered["stranger"], code=1)
    assert error["code"] == "schema_mismatch"
    assert "no database of Strongroom" in error["message"]
    assert error["hint"]


def test_a_dump_without_its_end_is_refused(backups: Backups, run: Drill, tmp_path: Path) -> None:
    """Loading it would give half a table and no error."""
    half = tmp_path / "half.sql"
    half.write_bytes(backups.plain.read_bytes()[:-1000])
    assert "not whole" in run("--dump", half, code=1)["message"]
    half.write_bytes(backups.custom.read_bytes()[:-1000])
    assert "pg_restore failed" in run("--dump", half, code=1)["message"]


@pytest.mark.parametrize("line", ["\\! touch {}", "COPY (SELECT 1) TO PROGRAM 'cat';"])
def test_a_dump_runs_no_program(backups: Backups, run: Drill, work: Path, tmp_path: Path, line: str) -> None:
    """Commands of psql, and SQL that only a superuser may use, end the restore instead of being carried out."""
    planted = tmp_path / "planted.sql"
    head, end, tail = backups.plain.read_text().partition("\n-- PostgreSQL database dump complete")
    planted.write_text(f"{head}\n{line.format(work / 'ran')}\n{end}{tail}")
    assert "psql failed" in run("--dump", planted, code=1)["message"]


# ---- the account of the server -----------------------------------------------------------------------------

OWN = {"data", "socket"}
ALL = OWN | {"hba.conf", "ident.conf", "server.log"}


def owned_by(account: ServerAccount | None, folder: Path) -> set[str]:
    """Return the names in a folder that an account owns, or the caller."""
    uid = account.uid if account else os.geteuid()
    return {each.name for each in folder.iterdir() if each.lstat().st_uid == uid}


async def test_the_servers_account_owns_its_data_and_its_socket_alone(work: Path) -> None:
    """Run as root, the account can plant no link where root writes, nor change what is there."""
    account = ServerAccount.find(None)
    async with temporary_folder(work, account, keep=False) as folder:
        server = TemporaryServer(Programs.find(None), account, folder)
        await server.initdb()
        async with server.running():
            assert owned_by(None, folder) | owned_by(account, folder) == ALL
            assert owned_by(account, folder) == (OWN if account else ALL)
            assert folder.stat().st_uid == os.geteuid()
            for command in ("ln -s cron planted", "rm -f server.log", "mv hba.conf mine", "echo >>ident.conf"):
                code, _ = await ended(await program_started("sh", "-c", command, account=account, folder=folder))
                assert bool(code) is (account is not None)


async def test_a_copied_cluster_is_looked_at_again(
    backups: Backups, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was put into the backup after it was checked is refused before the server's account gets the copy."""
    cluster = work / "cluster"
    shutil.copytree(backups.cluster, cluster)
    given: list[Path] = []
    monkeypatch.setattr(restoring, "_give", lambda path, _: given.append(path))

    def say(what: str) -> None:
        if what.startswith("Copying"):
            os.mkfifo(cluster / "base" / "pipe")

    place = restoring.Place(work)
    with pytest.raises(ConfigurationInvalid, match="base/pipe: is a device, a pipe or a socket"):
        async with restoring.restored(restoring.Cluster(cluster), place, say):
            pass
    shutil.rmtree(cluster)
    assert given == []


# ---- keys --------------------------------------------------------------------------------------------------


def test_other_keys_open_nothing(backups: Backups, run: Drill, tmp_path: Path) -> None:
    """With the backup of another authority's keys every record fails, and the report says what is missing."""
    write_sealing_key(tmp_path / "other.key", PrivateSealingKey.generate(Suite.X_WING), None)
    report = run("--dump", backups.custom, "--keys", tmp_path, code=1)
    assert (report["opened"], report["failed"]) == (0, RECORDS)
    assert {each["code"] for each in report["failures"]} == {"key_unknown"}
    assert [key["is_held"] for key in report["sealing_keys"]] == [False]
    assert report["findings"][0]["finding"].startswith("none of the sealing keys")


def test_key_files_that_cannot_be_read_are_told_before_anything_is_restored(
    backups: Backups, run: Drill, tmp_path: Path
) -> None:
    """No key file; one under a passphrase; the folder of the signing keys: each says what to give instead."""
    assert "*.key" in run("--dump", backups.custom, "--keys", tmp_path, code=1)["message"]
    write_sealing_key(tmp_path / "a.key", PrivateSealingKey.generate(Suite.X_WING), Secret(b"a passphrase"))
    assert "--passphrase-file" in run("--dump", backups.custom, "--keys", tmp_path, code=1)["hint"]
    logs = backups.site.folder / "authority" / "recovery"
    assert "sealing" in run("--dump", backups.custom, "--keys", logs, code=1)["hint"]


def test_protected_keys_open_with_their_passphrase_and_keep_leaves_the_cluster(
    backups: Backups, run: Drill, work: Path, tmp_path: Path
) -> None:
    """A backup of keys under a passphrase is as good as one without; the folder stays, the server is stopped."""
    (file,) = backups.keys.iterdir()
    (tmp_path / "keys").mkdir()
    write_sealing_key(tmp_path / "keys" / "a.key", read_sealing_key(file, None), Secret(b"a passphrase"))
    phrase = tmp_path / "passphrase"
    phrase.write_text("a passphrase\n")
    phrase.chmod(0o600)
    arguments = (
        "--keys",
        tmp_path / "keys",
        "--passphrase-file",
        phrase,
        "--records",
        "5",
        "--seed",
        "1",
        "--keep",
    )
    report = run("--dump", backups.custom, *arguments)
    assert (report["opened"], report["seed"]) == (5, 1)
    kept = Path(report["kept"])
    assert kept.parent == work
    assert (kept / "data" / "PG_VERSION").exists()
    assert not (kept / "data" / "postmaster.pid").exists()
    shutil.rmtree(kept)


# ---- the way out -------------------------------------------------------------------------------------------


@asynccontextmanager
async def loading(
    run: Drill, work: Path, backups: Backups, folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a drill that gets no further than the end of its dump; after the block nothing of it runs any more."""
    endless = folder / "endless.sql"
    head, end, tail = backups.plain.read_text().partition("\n-- PostgreSQL database dump complete")
    endless.write_text(f"{head}\nSELECT pg_sleep('infinity');\n{end}{tail}")
    process = await asyncio.create_subprocess_exec(
        PROGRAMS / "strongroom",
        *map(str, run.words("--dump", endless)),
        env={"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await until(lambda: any("-U strongroom_owner" in line for line in users_of(work)), "the dump is loaded")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
        await until(lambda: not users_of(work), "the end of the server")


def postmaster(work: Path) -> int:
    """Return the process id of the restored server."""
    (file,) = work.glob("*/data/postmaster.pid")
    return int(file.read_text().splitlines()[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_drill_leaves_nothing(
    backups: Backups, run: Drill, work: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """The server is stopped and the folder is removed when the command ends, also if the signal comes twice."""
    async with loading(run, work, backups, tmp_path) as process:
        server = postmaster(work)
        async with stopped(server):
            process.send_signal(number)
            await until(lambda: is_pending(server, signal.SIGINT), "the server is told to stop")
            process.send_signal(number)
            await until(lambda: not is_pending(process.pid, number), "the second signal has arrived")
        out, err = await process.communicate()
        assert (process.returncode, out) == (1, b"")
        assert b"interrupted: nothing is left" in err
        assert users_of(work) == []


async def test_a_drill_that_is_killed_takes_its_server_with_it(
    backups: Backups, run: Drill, work: Path, tmp_path: Path
) -> None:
    """Nobody can clean up then; but no server goes on serving what was restored."""
    async with loading(run, work, backups, tmp_path) as process:
        assert postmaster(work)
        process.kill()
        await process.communicate()
        await until(lambda: not users_of(work), "the end of the server")
    left = sorted(folders_in(work))
    assert [each.name[:17] for each in left] == ["strongroom-drill-"]
    shutil.rmtree(left[0])


# ---- a database that somebody has restored -----------------------------------------------------------------

OTHER = "laptop-0418"

TAMPERED = {
    "an edited leaf": ("UPDATE escrow_leaves SET leaf = leaf || ' ' WHERE index = 0", "proof_invalid"),
    "a deleted leaf": ("DELETE FROM escrow_leaves WHERE index = 0", "proof_invalid"),
    "an edited node": ("UPDATE escrow_nodes SET hash = sha256('x') WHERE level = 0 AND index = 1", "proof_invalid"),
    "a deleted enrolment": ("DELETE FROM trust_statements WHERE leaf_index = 1", "proof_invalid"),
    "another enrolment": (
        """UPDATE trust_statements SET envelope = (SELECT envelope FROM trust_statements WHERE leaf_index = 2)
        WHERE leaf_index = 1""",
        "proof_invalid",
    ),
    "a deleted index entry": ("DELETE FROM records WHERE statement_id = '{mine}'", "not_found"),
    "a renamed index entry": ("UPDATE records SET name = 'x' WHERE statement_id = '{mine}'", "proof_invalid"),
    "another owner": (
        "UPDATE records SET principal = 'laptop-0418' WHERE statement_id = '{mine}'",
        "proof_invalid",
    ),
}


class NoKeys(NoTransport):
    """A keyring without keys."""

    kids: frozenset[str] = frozenset()

    def opener(self, kid: str) -> Opener:
        """Hold nothing."""
        raise KeyUnknown(kid)


@pytest.fixture
async def place(database: Databases, broker: Brokers, tmp_path: Path) -> Any:
    async with place_of(database, broker, tmp_path, enrolled=(make.PRINCIPAL, OTHER)) as made:
        yield made


async def looked_at(
    place: Place,
    *state_dirs: Path,
    count: int | None = None,
    root: str = "root",
    role: str = "strongroom_recovery",
) -> Report:
    """Drill the database of a place."""
    settings = place.settings
    assert settings.sealing_keys_dir is not None
    keyring = FileKeyring(settings.sealing_keys_dir, None)
    means = Means(make.signing_key(root).public_key, keyring, place.folder, state_dirs)
    async with databases.connect(place.databases.url(role)) as opened:
        return await drill(opened, means, count=count, seed=7, say=lambda _: None)


@pytest.mark.parametrize(("edit", "code"), TAMPERED.values(), ids=TAMPERED)
async def test_what_was_tampered_with_is_found_and_named(place: Place, edit: str, code: str) -> None:
    """The record that the edit hits fails by name and reason; the other principal's opens."""
    mine, theirs = make.escrow(), make.escrow(OTHER)
    await place.escrow(mine, theirs)
    body = parse_body(mine, Escrow)
    await as_superuser(place.databases, UNGUARDED + edit.format(mine=body.id))
    report = await looked_at(place)
    assert not report.is_passed
    assert report.opened == 1
    (failure,) = report.failures
    assert (failure.record, failure.statement, failure.code) == (body.records[0].id, body.id, code)


async def test_index_entries_of_no_record_are_counted(place: Place) -> None:
    """An entry that somebody added to a true statement is no record, and the drill does not pass."""
    mine = make.escrow()
    await place.escrow(mine)
    await as_superuser(
        place.databases,
        "INSERT INTO records SELECT (jsonb_populate_record(r, jsonb_build_object('id', gen_random_uuid()))).*"
        " FROM records AS r",
    )
    report = await looked_at(place)
    assert (report.records, report.opened) == (2, 1)
    assert [each.finding for each in report.findings] == ["1 index entries belong to no stored record"]


async def test_a_blob_that_does_not_open_in_its_place_is_named(place: Place) -> None:
    """Statement, signature and log are in order, and the blob is another record's: only opening it tells."""
    stranger = make.record()
    mine = make.escrow(records=[make.record(blob=stranger.blob), make.record(name="good")])
    lying = make.escrow(records=[make.record(fingerprint="0" * 64)])
    await place.escrow(mine, lying)
    report = await looked_at(place)
    assert [each.code for each in report.failures] == ["blob_invalid", "fingerprint_mismatch"]
    assert [each.name for each in report.failures] == ["disk/root", "disk/root"]
    assert report.opened == 1


async def test_a_row_that_the_server_cannot_read_is_one_failure(place: Place) -> None:
    """As with a damaged page: the transaction is lost, the statement is named, and the others are opened."""
    mine, theirs = make.escrow(), make.escrow(OTHER)
    await place.escrow(mine, theirs)
    await as_superuser(
        place.databases,
        """ALTER TABLE escrow_statements RENAME TO kept;
        CREATE VIEW escrow_statements AS
            SELECT id, digest, principal, leaf_index,
                CASE WHEN leaf_index = 0 THEN (1 / leaf_index)::text::bytea ELSE envelope END AS envelope
            FROM kept;
        GRANT SELECT ON escrow_statements TO strongroom_recovery""",
    )
    report = await looked_at(place)
    (failure,) = report.failures
    assert (failure.statement, failure.code) == (parse_body(mine, Escrow).id, "state_corrupt")
    assert failure.name == "disk/root"
    assert report.opened == 1


async def test_the_same_seed_picks_the_same_records(place: Place) -> None:
    """A sample is as large as asked, a matter of the seed, and says so; each of its records is bad or it is not."""
    statements = [make.escrow(records=[make.record(fingerprint=f"{number:064x}")]) for number in range(8)]
    await place.escrow(*statements)
    first, again = [await looked_at(place, count=3) for _ in range(2)]
    assert first.sampled == 3
    assert first.seed == 7
    assert [each.record for each in first.failures] == [each.record for each in again.failures]
    everything = await looked_at(place)
    assert (everything.sampled, everything.seed) == (8, None)


async def test_a_database_without_records_does_not_pass(place: Place) -> None:
    """Nothing failed, and nothing is proven."""
    report = await looked_at(place)
    assert (report.records, report.failed, report.is_passed) == (0, 0, False)


async def test_the_drill_leaves_no_file(place: Place) -> None:
    """Its checkpoint files are its own, in a folder that is gone."""
    await place.escrow(make.escrow())
    before = sorted(place.folder.rglob("*"))
    assert (await looked_at(place)).is_passed
    assert sorted(place.folder.rglob("*")) == before


async def test_the_drill_needs_no_right_to_write(place: Place) -> None:
    """The auditor's role, which may write nothing and sees no release, is enough."""
    await place.escrow(make.escrow())
    assert (await looked_at(place, role="strongroom_auditor")).is_passed


async def test_records_that_were_sealed_again_are_opened_by_the_new_key_alone(place: Place) -> None:
    """A backup without the old key passes, and the counts are by the key that each record needs now."""
    at = Proven(place, ProverSettings.model_validate(place.settings.model_dump()))
    await place.escrow(make.escrow(records=[make.record(), make.record()]), make.escrow())
    key = await change_key(at)
    await reseal(at)
    await adopt(at, (key, ACTIVE), (OLD, CLOSED))
    assert place.settings.sealing_keys_dir is not None
    put_aside(place.settings.sealing_keys_dir, OLD.kid)
    report = await looked_at(place, role="strongroom_auditor")
    assert (report.opened, report.failed, report.is_passed) == (3, 0, True)
    uses = {each.kid: (each.records, each.is_held) for each in report.sealing_keys}
    assert uses == {key.kid: (3, True), OLD.kid: (0, False)}


async def test_a_database_that_was_never_used_does_not_pass(database: Databases, tmp_path: Path) -> None:
    """Its schema is right, and no worker has ever signed anything in it."""
    means = Means(make.signing_key("root").public_key, NoKeys(), tmp_path)
    async with databases.connect(database.url("strongroom_auditor")) as opened:
        with pytest.raises(StateCorrupt, match="the recovery log is empty"):
            await drill(opened, means, count=None, seed=0, say=lambda _: None)


async def test_a_database_is_drilled_by_its_url(place: Place, run: Drill, tmp_path: Path) -> None:
    """Somebody has restored it already: no server is started; exactly one source is taken."""
    await place.escrow(make.escrow())
    url = tmp_path / "url"
    url.write_text(place.databases.url("strongroom_auditor") + "\n")
    keys = ("--keys", str(place.settings.sealing_keys_dir), "--root-key", place.settings.root_key_file)
    report = await asyncio.to_thread(run, "--database-url-file", url, *keys)
    assert (report["ok"], report["opened"], report["restore_seconds"]) == (True, 1, 0.0)
    assert report["source"] == {"kind": "database", "path": str(url)}
    for wrong in ((), ("--dump", url, "--cluster", url), ("--dump", url, "--in-place")):
        error = await asyncio.to_thread(run, *wrong, *keys, code=2)
        assert error["code"] == "usage"


async def test_a_backup_from_before_an_upgrade_says_so(place: Place) -> None:
    """The program is newer than the backup: the advice is not to migrate what is in use."""
    await as_superuser(
        place.databases,
        "DELETE FROM schema_migrations WHERE version = (SELECT max(version) FROM schema_migrations)",
    )
    with pytest.raises(SchemaMismatch, match="lacks migration") as caught:
        await looked_at(place)
    assert "older than this program" in (caught.value.hint or "")


async def test_another_root_key_is_refused(place: Place) -> None:
    """The roster in the database is one that this root key did not sign."""
    with pytest.raises(RosterInvalid) as caught:
        await looked_at(place, root="another root")
    assert "--root-key" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("edit", "kind", "said"),
    [
        ("DELETE FROM recovery_leaves WHERE index = 2", LogForked, "leaf 2 is missing"),
        ("DELETE FROM recovery_checkpoints", LogForked, "recovery log"),
        ("DELETE FROM trust_statements WHERE leaf_index = 0", StateCorrupt, "the roster that leaf 0"),
        ("UPDATE recovery_leaves SET leaf = '{}' WHERE index = 0", LogForked, "leaf 0"),
        ("DELETE FROM escrow_checkpoints", StrongroomError, "no checkpoint"),
    ],
)
async def test_a_log_that_does_not_hold_ends_the_drill(
    place: Place, edit: str, kind: type[StrongroomError], said: str
) -> None:
    """Each is named, and the advice is one about backups."""
    await place.escrow(make.escrow())
    await as_superuser(place.databases, edit)
    with pytest.raises(kind, match=said) as caught:
        await looked_at(place)
    assert "another one" in (caught.value.hint or "")


async def test_a_backup_that_contradicts_a_workers_checkpoint_is_refused(place: Place, tmp_path: Path) -> None:
    """It is as long as what the worker signed, and not the same: no older state, but another one."""
    await place.escrow(make.escrow())
    state = tmp_path / "kept"
    state.mkdir()
    shutil.copy(place.folder / "escrow.checkpoint", state / "escrow.checkpoint")
    assert (await looked_at(place, state)).escrow_log.behind == 0
    await as_superuser(
        place.databases, "DELETE FROM escrow_leaves; DELETE FROM escrow_nodes; DELETE FROM escrow_checkpoints;"
        "DELETE FROM records; DELETE FROM escrow_statements"
    )  # fmt: skip
    (place.folder / "escrow.checkpoint").unlink()
    await place.escrow(make.escrow())
    with pytest.raises(LogForked):
        await looked_at(place, state)
    with pytest.raises(ConfigurationInvalid, match="holds no checkpoint"):
        await looked_at(place, tmp_path / "recovery" / "sealing")
