"""Importing: every key once, however often it is begun and wherever it was cut off."""

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tests.support.agents import Clock, lost, on, rejected_by

from strongroom.crypto.secret import Secret
from strongroom.errors import Busy, ExitCode, PermanentError, PrincipalRevoked, UsageError
from strongroom.messages import WrappedFormat
from strongroom.testing import FakeAuthority
from strongroom_agent import importing
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import Enrolled
from strongroom_agent.home import Home
from strongroom_agent.import_csv import CsvFile
from strongroom_agent.import_entries import Defaults, Found, RefusedEntry
from strongroom_agent.import_sources import Folder
from strongroom_agent.importing import Imported, Importer, Progress
from strongroom_agent.packing import KeyToEscrow, judge, pack
from strongroom_agent.spool import Spool
from strongroom_agent.wrapping import Wrapped


@pytest.fixture
def importer(enrolled: Enrolled, authority: FakeAuthority, clock: Clock) -> Iterator[Importer]:
    with Importer.open(enrolled.home.path, connector=authority.connect, clock=clock) as opened:
        yield opened


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "keys.csv"


def write(path: Path, rows: Mapping[str, str], *, kind: str = "") -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("name", "text", "kind"))
        writer.writerows((name, text, kind) for name, text in rows.items())


async def run(importer: Importer, path: Path, *, dry_run: bool = False, wait_seconds: float = 60) -> Imported:
    return await importer.import_keys(CsvFile(path, Defaults()), dry_run=dry_run, wait_seconds=wait_seconds)


def held(authority: FakeAuthority) -> dict[str, int]:
    """Return how many records of each name the authority has."""
    names = [stored.record.name for stored in authority.workers.records.values()]
    return {name: names.count(name) for name in names}


async def test_every_key_is_stored_and_comes_back(
    importer: Importer, authority: FakeAuthority, table: Path
) -> None:
    """As few statements as may be, a receipt for each, and the bytes of the table."""
    rows = {f"key {number}": f"secret {number}" for number in range(600)}
    write(table, rows)
    done = await run(importer, table)
    assert (done.entries, done.fresh, done.stored, done.exit_code) == (600, 600, 600, ExitCode.DONE)
    assert authority.escrow_log.size == 3
    assert held(authority) == dict.fromkeys(rows, 1)
    for name in ("key 0", "key 255", "key 256", "key 599"):
        assert (await importer.recover(name=name)).keys[0].material.expose() == rows[name].encode()


async def test_again_nothing_is_new_and_a_changed_row_is(
    importer: Importer, authority: FakeAuthority, clock: Clock, table: Path
) -> None:
    """An unchanged row is passed over; a changed key, or what is said of it, is a new record; back again too."""
    write(table, {"a": "1", "b": "2"})
    await run(importer, table)
    assert (await run(importer, table)).unchanged == 2
    for rows, kind, fresh in (({"a": "1", "b": "3"}, "", 1), ({"a": "1", "b": "3"}, "x", 2), ({"b": "2"}, "x", 1)):
        clock.seconds += 1
        write(table, rows, kind=kind)
        done = await run(importer, table)
        assert (done.fresh, done.unchanged, done.exit_code) == (fresh, len(rows) - fresh, ExitCode.DONE)
    assert held(authority) == {"a": 2, "b": 4}
    assert (await importer.recover(name="b")).keys[0].material.expose() == b"2"


async def test_the_same_rows_of_another_source_are_another_import(
    importer: Importer, authority: FakeAuthority, table: Path
) -> None:
    """Two hosts' exports may use one name for two keys."""
    for path in (table, table.with_name("other.csv")):
        write(path, {"a": "1"})
        assert (await run(importer, path)).fresh == 1
    assert held(authority) == {"a": 2}


def write_flawed(path: Path) -> None:
    path.write_text(
        "name,text,kind\na,planted-1,\nb,planted-2,recovery-password-bitlocker\na,planted-3,\nc,,\nd,x,\n"
    )


async def test_refusals_are_told_one_by_one_and_the_rest_is_stored(importer: Importer, table: Path) -> None:
    """A name twice, a kind that the bytes are not of, an empty cell: by line, and never the value."""
    write_flawed(table)
    told: list[RefusedEntry] = []
    done = await importer.import_keys(CsvFile(table, Defaults()), refuse=told.append)
    assert [(each.row, each.name, each.code) for each in told] == [
        (3, "b", "malformed"),
        (4, "a", "duplicate"),
        (5, "c", "malformed"),
    ]
    assert not any("planted" in each.message for each in told)
    assert (done.refused, done.stored, done.exit_code) == (3, 2, ExitCode.FAILED)
    assert done.codes == {"malformed": 2, "duplicate": 1}
    assert (await importer.recover(name="a")).keys[0].material.expose() == b"planted-1"
    assert (await run(importer, table)).fresh == 0


async def test_a_dry_run_judges_everything_and_changes_nothing(
    importer: Importer, authority: FakeAuthority, table: Path
) -> None:
    """What it says is what happens afterwards."""
    write(table, {"a": "1", "": "2", "b": "3"})
    authority.received.clear()
    dry = await run(importer, table, dry_run=True)
    assert (dry.entries, dry.fresh, dry.refused, dry.stored) == (3, 2, 1, 0)
    assert authority.received == []
    assert importer._state.rows("SELECT * FROM import_key") == []
    assert Spool(importer._state).size() == 0
    wet = await run(importer, table)
    assert (wet.entries, wet.fresh, wet.refused, wet.stored) == (3, 2, 1, 2)
    assert (await run(importer, table, dry_run=True)).unchanged == 2


async def test_without_an_answer_reading_ends_and_the_same_call_goes_on(
    importer: Importer, authority: FakeAuthority, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The spool does not grow without bound; afterwards every key is there once."""
    monkeypatch.setattr(importing, "FLIGHT_STATEMENTS", 2)
    rows = {f"key {number}": "x" for number in range(256 * 7)}
    write(table, rows)
    authority.broker_down = True
    done = await run(importer, table, wait_seconds=0.01)
    assert done.exit_code is ExitCode.TRY_LATER
    assert 0 < done.entries < len(rows)
    assert importer._spool.counts()["spooled"] <= 2 * importing.FLIGHT_STATEMENTS
    again = await run(importer, table, wait_seconds=0.01)
    assert again.fresh == 0
    authority.broker_down = False
    assert (await run(importer, table)).exit_code is ExitCode.DONE
    assert held(authority) == dict.fromkeys(rows, 1)


async def test_what_was_stored_without_an_answer_is_not_stored_twice(
    importer: Importer, authority: FakeAuthority, table: Path
) -> None:
    """Failed but applied."""
    write(table, {"a": "1", "b": "2"})
    authority.alter = lost
    assert (await run(importer, table, wait_seconds=0.01)).exit_code is ExitCode.TRY_LATER
    assert authority.escrow_log.size == 1
    authority.alter = lambda _message, reply: reply
    done = await run(importer, table)
    assert (done.fresh, done.unchanged, done.stored, done.exit_code) == (0, 2, 2, ExitCode.DONE)
    assert authority.escrow_log.size == 1


async def test_a_refusal_by_the_authority_ends_the_import(
    importer: Importer, authority: FakeAuthority, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says of one statement it would say of all; nothing more is put into the spool."""
    monkeypatch.setattr(importing, "FLIGHT_STATEMENTS", 2)
    write(table, {f"key {number}": "x" for number in range(256 * 7)})
    refusal = rejected_by(authority.escrow_reply_key, error=PrincipalRevoked("laptop-0417 was revoked"))
    authority.alter = on("escrow", refusal)
    done = await run(importer, table)
    assert done.exit_code is ExitCode.FAILED
    assert done.error is not None
    assert "revoked" in done.error.message
    assert done.rejected >= 256
    assert done.entries < 256 * 7


async def test_two_imports_of_one_source_at_once_do_not_double_anything(
    importer: Importer, authority: FakeAuthority, enrolled: Enrolled, clock: Clock, table: Path
) -> None:
    """Whoever comes second to a key is told so."""
    write(table, {"a": "1"})
    source = CsvFile(table, Defaults())

    def meanwhile(_progress: Progress) -> None:
        raise AssertionError("it was not refused")

    original = importer._keep

    def keep(*arguments: object) -> None:
        with Importer.open(enrolled.home.path, connector=authority.connect, clock=clock) as other:
            journal = importing.Journal(other._state, source.id)
            [(key, digest)] = [
                (each.key, journal.digest(each.key)) for each in source.entries() if isinstance(each, Found)
            ]
            packed = pack(
                [key],
                principal="laptop-0417",
                roster=authority.roster,
                signing_key=other._unlocked,
                now=int(clock()),
            )
            other._keep(packed, {key.name: digest}, journal, int(clock()))
        original(*arguments)  # type: ignore[arg-type]

    importer._keep = keep  # type: ignore[method-assign, assignment]
    with pytest.raises(Busy):
        await importer.import_keys(source, watch=meanwhile)
    assert Spool(importer._state).size() == 1


async def test_a_folder_is_imported_by_relative_paths(
    importer: Importer, authority: FakeAuthority, tmp_path: Path
) -> None:
    """And progress is told in files."""
    for name in ("a/k", "b/k"):
        (tmp_path / "f" / name).parent.mkdir(parents=True)
        (tmp_path / "f" / name).write_bytes(name.encode())
    seen: list[Progress] = []
    done = await importer.import_keys(Folder(tmp_path / "f", Defaults()), watch=seen.append)
    assert (done.stored, done.exit_code) == (2, ExitCode.DONE)
    assert held(authority) == {"a/k": 1, "b/k": 1}
    assert (seen[-1].entries, seen[-1].done, seen[-1].size) == (2, 2, 2)
    assert seen[-1].seconds_left == 0


async def test_officers_import_nothing(authority: FakeAuthority, officers_agent: Agent, table: Path) -> None:
    """Keys are escrowed by enrolled hosts."""
    write(table, {"a": "1"})
    with (
        Importer.open(officers_agent._home.path, connector=authority.connect) as importer,
        pytest.raises(UsageError),
    ):
        await run(importer, table)


@pytest.fixture
def officers_agent(officer_home: "Mapping[str, Home]", authority: FakeAuthority, clock: Clock) -> Iterator[Agent]:
    home = officer_home("officer-9")  # type: ignore[operator]
    with Agent.open(home.path, connector=authority.connect, clock=clock) as opened:
        yield opened


async def test_the_journal_holds_no_key_and_digests_differ_between_homes(importer: Importer, table: Path) -> None:
    """Only sealed blobs touch the disk, and a digest says nothing without this home's key."""
    write(table, {"a": "planted-canary-key"})
    await run(importer, table)
    for path in importer._home.path.rglob("*"):
        assert path.is_dir() or b"planted-canary" not in path.read_bytes()
    [(digest, key)] = importer._state.rows("SELECT digest, key FROM imports, import_key")
    assert (len(digest), len(key)) == (32, 32)
    importer._state.execute("UPDATE import_key SET key = ?", bytes(32))
    assert (await run(importer, table)).fresh == 1


async def test_a_wrapped_key_that_nobody_could_open_is_refused(importer: Importer, table: Path) -> None:
    """As `escrow --format` does, in the words of whoever judges it there; plain ones beside it are stored."""
    write(table, {"a": "1"})
    told: list[RefusedEntry] = []
    source = CsvFile(table, Defaults(format=WrappedFormat.CMS))
    done = await importer.import_keys(source, refuse=told.append)
    assert (done.fresh, done.refused, done.exit_code) == (0, 1, ExitCode.FAILED)
    [refusal] = told
    with pytest.raises(PermanentError) as caught:
        judge(
            KeyToEscrow(material=Secret(b"1"), name="a", kind="cms", wrapped=Wrapped(WrappedFormat.CMS)),
            importer._roster(),
        )
    assert (refusal.code, refusal.message) == (caught.value.code, caught.value.message)
