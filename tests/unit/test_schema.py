"""Named queries, and which migrations a database still needs."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from strongroom.errors import SchemaMismatch, StateCorrupt
from strongroom.schema import AppliedMigration, Migration, load_queries, pending, shipped_migrations

STEPS = [Migration(number, f"step_{number}", f"SELECT {number}") for number in (1, 2, 3)]
APPLIED = [AppliedMigration(step.version, step.name, step.digest) for step in STEPS]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder `sql` of a package that holds nothing yet."""
    monkeypatch.setattr("strongroom.schema.resources.files", lambda _: tmp_path)
    (tmp_path / "sql" / "migrations").mkdir(parents=True)
    load_queries.cache_clear()
    yield tmp_path / "sql"
    load_queries.cache_clear()


def test_queries_are_found_by_name(package: Path) -> None:
    """Each query is the text between its name and the next, comments and all; the head of the file is not."""
    (package / "some.sql").write_text("-- head\n\n-- name: one\n-- Why.\nSELECT 1\n\n-- name: two\nSELECT\n  2;\n")
    assert load_queries("some") == {"one": "-- Why.\nSELECT 1", "two": "SELECT\n  2;"}


@pytest.mark.parametrize("text", ["", "SELECT 1", "-- name: a\nSELECT 1\n-- name: a\nSELECT 2\n"])
def test_a_file_of_queries_that_is_none_is_refused(package: Path, text: str) -> None:
    """No query, or one name twice, is a broken installation."""
    (package / "some.sql").write_text(text)
    with pytest.raises(StateCorrupt, match=r"sql/some\.sql"):
        load_queries("some")


def test_a_missing_file_of_queries_is_refused(package: Path) -> None:
    """So is a file that is not there."""
    assert package.exists()
    with pytest.raises(StateCorrupt, match=r"sql/other\.sql is missing"):
        load_queries("other")


def test_migrations_come_in_order_of_their_numbers(package: Path) -> None:
    """Files are read by their names; others in the folder are passed over."""
    for name in ("0002_second.sql", "0001_first.sql", "README", "0003_third.sql.orig"):
        (package / "migrations" / name).write_text(f"-- {name}")
    assert [str(step) for step in shipped_migrations()] == ["0001_first", "0002_second"]
    assert shipped_migrations()[0].sql == "-- 0001_first.sql"


@pytest.mark.parametrize("names", [[], ["0002_a.sql"], ["0001_a.sql", "0003_b.sql"], ["0001_a.sql", "0001_b.sql"]])
def test_migrations_with_a_gap_or_a_double_are_refused(package: Path, names: list[str]) -> None:
    """The numbers run from 1 without a gap, each once."""
    for name in names:
        (package / "migrations" / name).touch()
    with pytest.raises(StateCorrupt, match="without a gap"):
        shipped_migrations()


@pytest.mark.parametrize("count", range(4))
def test_the_migrations_not_applied_yet_are_pending(count: int) -> None:
    """What a database has is a beginning of what the program has; the rest is due."""
    assert list(pending(STEPS, APPLIED[:count])) == STEPS[count:]


@pytest.mark.parametrize(
    ("applied", "said"),
    [
        (APPLIED[1:], "lacks migration 1 but has 0002_step_2"),
        ([APPLIED[0], APPLIED[2]], "lacks migration 2 but has 0003_step_3"),
        ([replace(APPLIED[0], digest=b"x" * 32)], "migration 0001_step_1 is not the one that was applied"),
        (
            [*APPLIED, AppliedMigration(4, "later", b"x" * 32)],
            "newer than this program: it has migration 0004_later",
        ),
    ],
)
def test_a_database_of_another_history_is_refused(applied: list[AppliedMigration], said: str) -> None:
    """Gaps, other SQL and later migrations are told apart, and each error says what to do."""
    with pytest.raises(SchemaMismatch, match=said) as caught:
        pending(STEPS, applied)
    assert caught.value.hint


def test_a_migration_does_not_show_its_sql() -> None:
    """Its repr, which may end up in a log, is short."""
    assert "SELECT" not in repr(STEPS[0])
