"""The SQL that ships with the package: named queries and numbered migrations. Reads package files, nothing else."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib import resources
from types import MappingProxyType

from strongroom.errors import SchemaMismatch, StateCorrupt

_QUERY_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_MIGRATION_FILE = re.compile(r"(\d{4})_(\w+)\.sql")

MIGRATE_HINT = "run `strongroom db migrate`"


@cache
def load_queries(name: str) -> Mapping[str, str]:
    """Return the queries of the package file `sql/<name>.sql` by their names.

    A query begins with the line `-- name: <name>`, followed by a comment that says what it is for.

    Raises:
        StateCorrupt: there is no such file, it holds no query, or a name in it is repeated.
    """
    file = resources.files("strongroom") / "sql" / f"{name}.sql"
    if not file.is_file():
        raise StateCorrupt(f"sql/{name}.sql is missing from this installation")
    _, *parts = _QUERY_NAME.split(file.read_text(encoding="utf-8"))
    queries = dict(zip(parts[::2], (text.strip() for text in parts[1::2]), strict=True))
    if not queries or len(queries) * 2 != len(parts):
        raise StateCorrupt(f"sql/{name}.sql holds no query, or one name twice")
    return MappingProxyType(queries)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema: its number from 1 on, its name, and its SQL, which is never edited once released."""

    version: int
    name: str
    sql: str = field(repr=False)

    @property
    def digest(self) -> bytes:
        """SHA-256 of the SQL, 32 bytes."""
        return sha256(self.sql.encode()).digest()

    def __str__(self) -> str:
        """Name it as its file is named."""
        return f"{self.version:04}_{self.name}"


@dataclass(frozen=True, slots=True)
class AppliedMigration:
    """What a database says it was migrated by."""

    version: int
    name: str
    digest: bytes


def shipped_migrations() -> tuple[Migration, ...]:
    """Return the migrations of this program, in order.

    Raises:
        StateCorrupt: their numbers do not run from 1 without a gap.
    """
    folder = resources.files("strongroom") / "sql" / "migrations"
    found = [
        Migration(int(match[1]), match[2], file.read_text(encoding="utf-8"))
        for file in folder.iterdir()
        if (match := _MIGRATION_FILE.fullmatch(file.name))
    ]
    found.sort(key=lambda migration: migration.version)
    if not found or [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise StateCorrupt("sql/migrations: the numbers do not run from 1 without a gap")
    return tuple(found)


def pending(shipped: Sequence[Migration], applied: Sequence[AppliedMigration]) -> Sequence[Migration]:
    """Return the migrations that a database still needs, given what was applied to it, in order of version.

    Raises:
        SchemaMismatch: the database was migrated by other steps than these: one is missing in between, one
            has other SQL, or it is newer than this program.
    """
    for expected, row in enumerate(applied, 1):
        if row.version != expected:
            raise SchemaMismatch(
                f"the database lacks migration {expected} but has {row.version:04}_{row.name}",
                hint="somebody changed schema_migrations by hand: restore it",
            )
        if expected > len(shipped):
            raise SchemaMismatch(
                f"the database is newer than this program: it has migration {row.version:04}_{row.name}",
                hint="install the version of Strongroom that migrated it, or a later one",
            )
        if shipped[expected - 1].digest != row.digest:
            raise SchemaMismatch(
                f"migration {shipped[expected - 1]} is not the one that was applied to the database",
                hint="a released migration must never be edited: install an unmodified Strongroom",
            )
    return shipped[len(applied) :]
