import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.agents import NOW

from strongroom.errors import Busy, ConfigurationInvalid, NotFound, SchemaMismatch, StateCorrupt, TransientError
from strongroom_agent import state as state_module
from strongroom_agent.spool import Packed, RecordFacts, Refusal, Spool
from strongroom_agent.standings import KeptStanding, Listed, Standings
from strongroom_agent.state import (
    Evidence,
    KeptCheckpoint,
    KeptDisclosure,
    KeptPending,
    KeptRoster,
    ReceiptedLeaf,
    State,
)
from strongroom_agent.state_schema import FIRST, MIGRATIONS, SCHEMA_VERSION

RECEIPT = ReceiptedLeaf(b"leaf", "proof", 4, 7)
REFUSAL = Refusal("denied", "no", b"envelope")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with State.create(tmp_path / "state.db") as created:
        yield created


@pytest.fixture
def spool(state: State) -> Spool:
    return Spool(state)


def facts(id_: str, name: str = "disk") -> RecordFacts:
    return RecordFacts(
        id=id_,
        name=name,
        kind="disk-key",
        description="root volume",
        serial_number="C02XYZ",
        algorithm="AES-256-XTS",
        fingerprint="f" * 64,
        kid="0" * 32,
        labels={"é": "x"},
    )


def packed(id_: str, *records: str) -> Packed:
    return Packed(id_, b"envelope of " + id_.encode(), b"d" * 32, tuple(facts(record) for record in records))


def stored(spool: Spool, *ids: str, receipt: ReceiptedLeaf = RECEIPT) -> None:
    spool.settle(stored=dict.fromkeys(ids, receipt), rejected={}, failed={}, checkpoint=None, now=9)


def test_what_is_spooled_survives_a_new_process(spool: Spool, state: State, tmp_path: Path) -> None:
    """Another connection sees statements and records, in the order in which they came."""
    spool.add([packed("b", "r1"), packed("a", "r2", "r3")], now=5)
    state.close()
    with State.open(tmp_path / "state.db") as again:
        reopened = Spool(again)
        assert reopened.spooled() == ["b", "a"]
        assert reopened.message("a") == (b"envelope of a", b"d" * 32)
        assert [row.facts for row in reopened.of_statements(["a"])] == [facts("r2"), facts("r3")]


def test_statements_are_taken_in_all_or_none(spool: Spool) -> None:
    """A record id that is taken undoes the whole batch."""
    with pytest.raises(StateCorrupt):
        spool.add([packed("a", "r1"), packed("b", "r1")], now=5)
    assert spool.spooled() == []
    assert spool.of_statements(["a", "b"]) == []


def test_the_database_is_synchronous_and_checks_references(state: State) -> None:
    """WAL with synchronous=FULL (2) survives a power cut; a record never stands without its statement."""
    assert state.rows("PRAGMA journal_mode") == [("wal",)]
    assert state.rows("PRAGMA synchronous") == [(2,)]
    assert state.rows("PRAGMA foreign_keys") == [(1,)]


def test_a_round_changes_states_and_checkpoint_together_or_not_at_all(spool: Spool, state: State) -> None:
    """When the checkpoint cannot be kept, no receipt is kept either."""
    spool.add([packed("a", "r1")], now=5)
    state.keep_checkpoint(KeptCheckpoint("escrow", 7, b"r" * 32, "note"), 5)
    conflicting = KeptCheckpoint("escrow", 7, b"x" * 32, "note")
    with pytest.raises(StateCorrupt, match="another root"):
        spool.settle(stored={"a": RECEIPT}, rejected={}, failed={}, checkpoint=conflicting, now=9)
    assert spool.states(["a"]) == {"a": "spooled"}


def test_a_stored_statement_stays_stored(spool: Spool) -> None:
    """Neither a rejection nor a failure that comes later changes it."""
    spool.add([packed("a", "r1")], now=5)
    stored(spool, "a")
    spool.settle(stored={}, rejected={"a": REFUSAL}, failed={"a": "late"}, checkpoint=None, now=10)
    row = spool.of_statements(["a"])[0]
    assert (row.state, row.log_index, row.tree_size, row.stored_at, row.last_error) == ("stored", 4, 7, 9, None)


def test_a_rejected_statement_keeps_its_reason_and_may_be_tried_again(spool: Spool) -> None:
    """Its reason is shown until somebody sends it again on purpose; nothing else brings it back."""
    spool.add([packed("a", "r1")], now=5)
    spool.settle(stored={}, rejected={"a": REFUSAL}, failed={}, checkpoint=None, now=9)
    stored(spool, "a")
    row = spool.of_statements(["a"])[0]
    assert (row.state, row.code, row.message) == ("rejected", "denied", "no")
    assert spool.spooled() == []
    spool.requeue("a")
    assert spool.spooled() == ["a"]
    assert spool.of_statements(["a"])[0].code is None


@pytest.mark.parametrize("id_", ["spooled", "stored", "unknown"])
def test_only_a_rejected_statement_is_requeued(spool: Spool, id_: str) -> None:
    """Whatever else is named is not found."""
    spool.add([packed("spooled", "r1"), packed("stored", "r2")], now=5)
    stored(spool, "stored")
    with pytest.raises(NotFound):
        spool.requeue(id_)
    assert spool.states(["spooled", "stored"]) == {"spooled": "spooled", "stored": "stored"}


def test_all_rejected_statements_are_requeued_at_once(spool: Spool) -> None:
    """What is stored stays stored; a rejection is named with its records until then."""
    spool.add([packed("a", "r1", "r2"), packed("b", "r3"), packed("c", "r4")], now=5)
    spool.settle(stored={}, rejected={"a": REFUSAL, "b": REFUSAL}, failed={}, checkpoint=None, now=9)
    stored(spool, "c")
    assert spool.rejected_records() == {"r1": "a", "r2": "a", "r3": "b"}
    assert spool.unstored() == ["a", "b"]
    assert spool.requeue_rejected() == 2
    assert spool.states(["a", "b", "c"]) == {"a": "spooled", "b": "spooled", "c": "stored"}
    assert spool.rejected_records() == {}
    assert spool.size() == 4


def test_failures_are_counted_with_the_last_reason(spool: Spool) -> None:
    """Each failed attempt counts; the newest reason is kept."""
    spool.add([packed("a", "r1")], now=5)
    spool.note_failures({"a": "first"})
    spool.note_failures({"a": "second"})
    row = spool.of_statements(["a"])[0]
    assert (row.attempts, row.last_error) == (2, "second")


def test_the_overview_shows_what_needs_attention_first_and_never_cuts_it_off(spool: Spool, state: State) -> None:
    """The limit bounds only what is fine; of that, the newest is shown."""
    spool.add([packed(name, f"r-{name}") for name in ("old", "gone", "new", "waiting", "refused")], now=5)
    stored(spool, "old", "gone", "new")
    spool.settle(stored={}, rejected={"refused": REFUSAL}, failed={}, checkpoint=None, now=9)
    listed: dict[str, Listed] = {"r-old": "stored", "r-gone": "missing", "r-new": "proven"}
    standings = Standings(state)
    standings.keep(
        [KeptStanding(record=id_, name="disk", listed=what, listed_at=11) for id_, what in listed.items()], []
    )
    assert [row.statement for row in spool.overview(4)] == ["gone", "waiting", "refused", "new"]
    assert [row.statement for row in spool.overview(0)] == ["gone", "waiting", "refused"]
    assert [row.statement for row in spool.overview(None)] == ["gone", "waiting", "refused", "new", "old"]
    assert spool.counts() == {"spooled": 1, "stored": 3, "rejected": 1}
    assert standings.counts() == {"stored": 1, "missing": 1, "proven": 1}


def test_only_receipted_records_are_compared(spool: Spool) -> None:
    """What is spooled may be missing at the authority."""
    spool.add([packed("a", "r1"), packed("b", "r2")], now=5)
    stored(spool, "b")
    assert spool.receipted("disk") == {"r2"}
    assert spool.receipted("other") == set()
    assert {id_: own.is_receipted for id_, own in spool.own().items()} == {"r1": False, "r2": True}
    assert spool.fingerprint("r1") == "f" * 64
    assert spool.fingerprint("r9") is None


def test_a_message_that_is_not_in_the_spool_is_not_found(spool: Spool) -> None:
    """The id is named."""
    with pytest.raises(NotFound, match="nowhere"):
        spool.message("nowhere")


# ---- the database around it ----


def test_a_checkpoint_never_goes_back(state: State) -> None:
    """A smaller one changes nothing, a larger one takes over."""
    for size in (3, 7, 5):
        state.keep_checkpoint(KeptCheckpoint("escrow", size, bytes([size]) * 32, f"note {size}"), size)
    assert state.checkpoint("escrow") == KeptCheckpoint("escrow", 7, b"\x07" * 32, "note 7")
    assert state.checkpoint("recovery") is None


def test_the_newest_roster_is_the_one_with_the_highest_version(state: State) -> None:
    """Whatever the order in which they came."""
    for version in (2, 3, 1):
        state.keep_roster(KeptRoster(version, b"envelope", 100 + version), 5)
    assert state.roster() == KeptRoster(3, b"envelope", 103)


def test_the_same_evidence_is_kept_once(state: State) -> None:
    """A pair of checkpoints proves what it proves however often it comes."""
    evidence = Evidence("escrow", "a", "why", "held", "new", b"reply", 5)
    state.keep_evidence(evidence)
    state.keep_evidence(evidence)
    assert state.evidence() == [evidence]


def test_an_error_inside_a_transaction_undoes_it(state: State) -> None:
    """Also when the error is not the database's."""

    def change_and_fail() -> None:
        with state.transaction():
            state.keep_roster(KeptRoster(1, b"envelope", 5), 5)
            raise LookupError

    with pytest.raises(LookupError):
        change_and_fail()
    assert state.roster() is None


def test_a_database_that_is_locked_for_long_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: State
) -> None:
    """Nothing is written, and it is worth trying again."""
    monkeypatch.setattr(state_module, "BUSY_SECONDS", 0.0)
    with State.open(tmp_path / "state.db") as other, state.transaction():
        state.keep_roster(KeptRoster(1, b"envelope", 5), 5)
        with pytest.raises(Busy):
            other.keep_roster(KeptRoster(2, b"envelope", 5), 5)
    assert state.roster() == KeptRoster(1, b"envelope", 5)


def test_a_full_disk_is_a_reason_to_try_later_and_loses_nothing(state: State, spool: Spool) -> None:
    """What was committed is still there."""
    spool.add([packed("a", "r1")], now=5)
    pages = state.rows("PRAGMA page_count")[0][0]
    state.rows(f"PRAGMA max_page_count = {pages}")
    large = Packed("b", b"e" * 1_000_000, b"d" * 32, ())
    with pytest.raises(TransientError) as caught:
        spool.add([large], now=6)
    assert type(caught.value) is TransientError
    assert spool.spooled() == ["a"]


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    """A file of garbage is no database."""
    path = tmp_path / "state.db"
    path.write_bytes(b"garbage " * 1000)
    with pytest.raises(StateCorrupt, match=r"state\.db"):
        State.open(path)


def test_a_missing_database_is_not_made_anew(tmp_path: Path) -> None:
    """Opening never makes an empty spool where one was lost."""
    with pytest.raises(StateCorrupt, match="missing"):
        State.open(tmp_path / "state.db")
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_another_schema_is_refused(tmp_path: Path, state: State) -> None:
    """A newer program may have left it."""
    state.close()
    with sqlite3.connect(tmp_path / "state.db") as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(SchemaMismatch):
        State.open(tmp_path / "state.db")


def schema(path: Path) -> list[tuple[str, str]]:
    """Return every table and index of a database with its definition."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
        ).fetchall()


def as_of_version(path: Path, version: int) -> None:
    """Put in the place of a database what that version of this program made."""
    for each in (path, *path.parent.glob(f"{path.name}-*")):
        each.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        steps = [FIRST, *(MIGRATIONS[number] for number in range(1, version)), f"PRAGMA user_version = {version};"]
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript("".join(steps))


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION))
def test_a_database_of_an_older_version_is_brought_up_to_date_in_place(tmp_path: Path, version: int) -> None:
    """What is in it stays, it ends as a new one begins, and once is enough."""
    path = tmp_path / "state.db"
    as_of_version(path, version)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO rosters VALUES (7, ?, ?, ?)", (b"roster", NOW, NOW))
    for _ in range(2):
        with State.open(path) as opened:
            kept = opened.roster()
            assert (kept, opened.disclosures(), opened.pending()) == (KeptRoster(7, b"roster", NOW), [], [])
            assert opened.rows("PRAGMA user_version") == [(SCHEMA_VERSION,)]
    State.create(tmp_path / "new.db").close()
    assert schema(path) == schema(tmp_path / "new.db")


def test_records_of_version_2_keep_what_was_known_of_them(tmp_path: Path) -> None:
    """A receipt, and what the listing said; who was given a key is kept too, and is asked for anew."""
    path = tmp_path / "state.db"
    as_of_version(path, 2)
    with closing(sqlite3.connect(path)) as connection, connection:
        for id_, state, listed in (
            ("a", "stored", "stored"),
            ("b", "stored", "disclosed"),
            ("c", "stored", "missing"),
            ("d", "spooled", None),
        ):
            connection.execute(
                "INSERT INTO statements (id, envelope, digest, state, created_at, leaf, proof, log_index,"
                " tree_size, stored_at) VALUES (?, ?, ?, ?, 5, ?, 'proof', 4, 7, 9)",
                (f"s-{id_}", b"e", b"d", state, b"leaf"),
            )
            connection.execute(
                "INSERT INTO records VALUES (?, ?, 'disk', 'k', '', '', '', '{}', 'f', '0', ?, ?)",
                (id_, f"s-{id_}", listed, 11 if listed else None),
            )
        connection.execute("INSERT INTO disclosures VALUES ('b', 'disk', 'q', 'alice', 'officer', 7, 'why')")
    with State.open(path) as opened:
        rows = {row.facts.id: row for row in Spool(opened).overview(None)}
        assert {id_: row.listed for id_, row in rows.items()} == {
            "a": "stored",
            "b": "stored",
            "c": "missing",
            "d": None,
        }
        assert {row.state for row in rows.values() if row.facts.id != "d"} == {"stored"}
        assert (rows["a"].log_index, rows["a"].listed_at, rows["a"].facts.supersedes) == (4, 11, ())
        assert not any(row.is_proven for row in rows.values())
        assert opened.disclosures() == [KeptDisclosure("b", "disk", "q", "alice", "officer", 7, "why")]
        assert Spool(opened).salt("a") is None
        assert [each.record for each in Standings(opened).needy()] == ["c"]


def test_a_migration_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """Here because a table that it makes is there already, the second of the two."""
    path = tmp_path / "state.db"
    as_of_version(path, 1)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("CREATE TABLE pending_requests (strange TEXT)")
    before = schema(path)
    with pytest.raises(StateCorrupt):
        State.open(path)
    assert schema(path) == before
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_listing_takes_the_place_of_the_one_before_it(state: State) -> None:
    """Newest first; what is not in it is gone."""
    old = [KeptDisclosure(f"r{n}", "disk", "q", "alice", "officer", NOW + n, None) for n in range(2)]
    asked = [KeptPending(f"q{n}", "d", "bob", "officer", NOW + n, NOW + 9, "why") for n in range(2)]
    state.keep_listing(old, asked)
    assert (state.disclosures(), state.pending()) == (old[::-1], asked[::-1])
    state.keep_listing(old[:1], [])
    assert (state.disclosures(), state.pending()) == (old[:1], [])


def test_a_database_is_made_once(tmp_path: Path, state: State) -> None:
    """An existing one is never overwritten."""
    with pytest.raises(ConfigurationInvalid, match="exists"):
        State.create(tmp_path / "state.db")
    state.close()
