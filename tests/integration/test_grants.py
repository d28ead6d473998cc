"""What each database role may do, and what not: the whole table, and the attempts that matter."""

import asyncpg
import pytest
from tests.conftest import FreshDatabase
from tests.support.attacker import ask_superuser

ESCROW, RECOVERY, AUDITOR = "strongroom_escrow", "strongroom_recovery", "strongroom_auditor"

# Privileges on whole tables: S selects, I inserts. Nobody has any other.
TABLES = {
    #                         escrow  recovery  auditor
    "schema_migrations":     ("S",    "S",      "S"),
    "trust_statements":      ("S",    "SI",     "S"),
    "escrow_statements":     ("I",    "S",      "S"),
    "records":               ("I",    "S",      "S"),
    "resealed_blobs":        ("",     "SI",     "S"),
    "requests":              ("",     "SI",     "S"),
    "releases":              ("",     "SI",     ""),
    "escrow_leaves":         ("SI",   "S",      "S"),
    "escrow_nodes":          ("SI",   "S",      "S"),
    "escrow_checkpoints":    ("SI",   "S",      "S"),
    "escrow_published":      ("SI",   "S",      "S"),
    "recovery_leaves":       ("S",    "SI",     "S"),
    "recovery_nodes":        ("S",    "SI",     "S"),
    "recovery_checkpoints":  ("S",    "SI",     "S"),
}  # fmt: skip

# Where a role may select some columns of a table only.
COLUMNS = {
    (ESCROW, "escrow_statements"): {"id", "digest", "leaf_index"},
    (ESCROW, "records"): {"id", "statement_id", "principal", "leaf_index", "wrapped"},
    (AUDITOR, "releases"): {"request_id", "leaf_index"},
}

PRIVILEGES = {"S": "SELECT", "I": "INSERT"}
ALL_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


def _expected() -> list[tuple[str, str, str, bool]]:
    return [
        (role, table, privilege, privilege in {PRIVILEGES[letter] for letter in letters})
        for table, row in TABLES.items()
        for role, letters in zip((ESCROW, RECOVERY, AUDITOR), row, strict=True)
        for privilege in ALL_PRIVILEGES
    ]


async def _attempt(database: FreshDatabase, role: str, command: str) -> None:
    connection = await asyncpg.connect(database.url(role))
    try:
        await connection.execute(command)
    finally:
        await connection.close()


async def test_the_table_names_every_table(database: FreshDatabase) -> None:
    """No table of the schema is without a row in the table above."""
    names = await ask_superuser(
        database,
        "SELECT array_agg(relname::text) FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'm', 'p', 'f', 'S')",
    )
    assert set(names) == set(TABLES)


async def test_each_role_has_the_privileges_of_the_table_and_no_other(database: FreshDatabase) -> None:
    """For every role, table and privilege the server says what the table above says."""
    connection = await asyncpg.connect(database.superuser_url)
    try:
        wrong = [
            (role, table, privilege, expected)
            for role, table, privilege, expected in _expected()
            if await connection.fetchval("SELECT has_table_privilege($1, $2, $3)", role, table, privilege)
            != expected
        ]
    finally:
        await connection.close()
    assert wrong == []


async def test_each_role_selects_the_columns_of_the_table_and_no_other(database: FreshDatabase) -> None:
    """For every role, table, column and column privilege the server says what the tables above say."""
    connection = await asyncpg.connect(database.superuser_url)
    wrong = []
    try:
        for role, table, privilege, whole in _expected():
            if privilege not in {"SELECT", "INSERT", "UPDATE", "REFERENCES"}:
                continue
            some = COLUMNS.get((role, table), set()) if privilege == "SELECT" else set()
            rows = await connection.fetch(
                "SELECT attname, has_column_privilege($1, $2, attname, $3) AS granted FROM pg_attribute"
                " WHERE attrelid = $2::text::regclass AND attnum > 0 AND NOT attisdropped",
                role,
                table,
                privilege,
            )
            wrong += [
                (role, table, privilege, row["attname"])
                for row in rows
                if row["granted"] != (whole or row["attname"] in some)
            ]
    finally:
        await connection.close()
    assert wrong == []


_STORE = (
    "INSERT INTO escrow_statements VALUES"
    " ('00000000-0000-7000-8000-000000000001', sha256('s'), 'laptop', 'envelope', 0, 1800000000)"
)

ALLOWED = [
    (ESCROW, _STORE),
    (ESCROW, _STORE + " ON CONFLICT (id) DO NOTHING RETURNING id, digest, leaf_index"),
    (ESCROW, "SELECT id, digest, leaf_index FROM escrow_statements"),
    (ESCROW, "SELECT id, statement_id FROM records"),
    (ESCROW, "SELECT * FROM trust_statements"),
    (RECOVERY, "SELECT * FROM escrow_statements, records, releases"),
    (RECOVERY, "INSERT INTO trust_statements VALUES (sha256('s'), NULL, 'roster', 'envelope', 0)"),
    (AUDITOR, "SELECT * FROM escrow_statements, records, requests, recovery_leaves"),
    (AUDITOR, "SELECT request_id, leaf_index FROM releases"),
]

REFUSED = [
    # The escrow worker cannot take out what it handed in, nor see who asked for what.
    (ESCROW, "SELECT envelope FROM escrow_statements"),
    (ESCROW, "SELECT * FROM escrow_statements"),
    (ESCROW, _STORE + " RETURNING envelope"),
    (ESCROW, "SELECT principal FROM escrow_statements"),
    (ESCROW, "SELECT name FROM records"),
    (ESCROW, "SELECT id FROM requests"),
    (ESCROW, "SELECT request_id FROM releases"),
    (ESCROW, "SELECT id FROM requests"),
    (ESCROW, "COPY escrow_statements TO STDOUT"),
    # It writes no trust and no recovery log.
    (ESCROW, "INSERT INTO trust_statements VALUES (sha256('s'), NULL, 'roster', 'envelope', 0)"),
    (ESCROW, "INSERT INTO recovery_leaves VALUES (0, 'leaf')"),
    (ESCROW, "INSERT INTO recovery_checkpoints VALUES (1, 'note')"),
    # The recovery worker adds nothing to what was escrowed.
    (RECOVERY, _STORE),
    (RECOVERY, "INSERT INTO escrow_leaves VALUES (0, 'leaf')"),
    (RECOVERY, "INSERT INTO escrow_checkpoints VALUES (1, 'note')"),
    # The auditor writes nothing and sees no released key.
    (AUDITOR, "SELECT envelope FROM releases"),
    (AUDITOR, "SELECT * FROM releases"),
    (AUDITOR, "INSERT INTO trust_statements VALUES (sha256('s'), NULL, 'x', '', 0)"),
    *(
        (role, command)
        for role in (ESCROW, RECOVERY, AUDITOR)
        for command in (
            # Nobody undoes anything.
            "UPDATE escrow_statements SET digest = digest",
            "DELETE FROM recovery_leaves",
            "DELETE FROM recovery_checkpoints",
            "TRUNCATE escrow_nodes",
            "UPDATE schema_migrations SET version = version",
            "INSERT INTO schema_migrations VALUES (2, 'x', sha256(''))",
            # Nobody makes or changes objects, or goes around the privileges.
            "CREATE TABLE mine (id integer)",
            "CREATE SCHEMA mine",
            "CREATE TEMPORARY TABLE escrow_leaves (index bigint, leaf bytea)",
            "ALTER TABLE escrow_statements DISABLE TRIGGER ALL",
            "CREATE TRIGGER t BEFORE UPDATE ON requests EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "SET ROLE strongroom_owner",
            "SET session_replication_role = replica",
            "BEGIN; LOCK TABLE escrow_leaves IN SHARE ROW EXCLUSIVE MODE",
            "CREATE EXTENSION pgcrypto",
            "SELECT pg_read_file('pg_hba.conf')",
            "ALTER SYSTEM SET fsync = off",
        )
    ),
]


@pytest.mark.parametrize("role", [ESCROW, RECOVERY, AUDITOR])
async def test_a_role_may_do_its_work(database: FreshDatabase, role: str) -> None:
    """What a role's work needs is allowed."""
    for command in [command for whose, command in ALLOWED if whose == role]:
        await _attempt(database, role, command)


@pytest.mark.parametrize("role", [ESCROW, RECOVERY, AUDITOR])
async def test_a_role_may_not_do_what_is_not_its_work(database: FreshDatabase, role: str) -> None:
    """What a role must not do fails for lack of privilege, and for no other reason."""
    for command in [command for whose, command in REFUSED if whose == role]:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await _attempt(database, role, command)
