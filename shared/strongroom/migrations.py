"""Bring a database to the schema of this program, and say what is wrong with one. The owner's tool, no worker's."""

from collections.abc import Sequence
from typing import Final

from strongroom.database import Transaction, connect, load_queries
from strongroom.errors import SchemaMismatch
from strongroom.schema import MIGRATE_HINT, AppliedMigration, Migration, pending, shipped_migrations

ROLES: Final = ("strongroom_escrow", "strongroom_recovery", "strongroom_auditor")
COMMAND_SECONDS_MAX: Final = 3600
LOCK_SECONDS_MAX: Final = 10

_QUERIES: Final = load_queries("migrations")


async def migrate(url: str, *, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """Apply what the database lacks, each migration in a transaction of its own; return what was applied.

    May be repeated and run from several places at once: each migration is applied once. Those that committed
    before an error stay.

    Args:
        url: `postgresql://` URL of the owner role.
        migrations: instead of the ones that ship with this program.

    Raises:
        SchemaMismatch: a role is missing, or the database was migrated by other steps (`schema.pending`).
        Busy: another migration, or a transaction on a table to change, did not end in `LOCK_SECONDS_MAX`.
        DatabaseUnavailable: try again later.
        CommitUnknown: run it again.
    """
    shipped = shipped_migrations() if migrations is None else migrations
    done: list[Migration] = []
    async with connect(url, connections_max=1, command_timeout_seconds=COMMAND_SECONDS_MAX) as database:
        while True:
            async with database.transaction() as tx:
                await tx.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS_MAX}s'")
                await tx.fetch(_QUERIES["lock"])
                await tx.execute(_QUERIES["create_register"])
                missing = pending(shipped, await _applied(tx))
                if not missing:
                    return done
                await _check_roles(tx)
                step = missing[0]
                await tx.execute(step.sql)
                await tx.execute(_QUERIES["record"], step.version, step.name, step.digest)
            done.append(step)


async def check(url: str, *, migrations: Sequence[Migration] | None = None) -> list[str]:
    """Return what is wrong with a database, a sentence each; nothing when all is well.

    Looked at: applied migrations, roles, privileges to change or delete rows, settings that durability stands on.

    Args:
        url: `postgresql://` URL of any role of the database.
        migrations: instead of the ones that ship with this program.

    Raises:
        DatabaseUnavailable: it cannot be asked.
    """
    shipped = shipped_migrations() if migrations is None else migrations
    async with connect(url, connections_max=1) as database:
        findings = []
        try:
            async with database.reading() as tx:
                findings += [
                    f"migration {step} is not applied: {MIGRATE_HINT}"
                    for step in pending(shipped, await _applied(tx))
                ]
        except SchemaMismatch as error:
            findings.append(error.message)
        async with database.reading() as tx:
            findings += [
                f"role {row['name']} is missing: apply deploy/postgres/roles.sql"
                for row in await tx.fetch(_QUERIES["missing_roles"], ROLES)
            ]
            findings += [
                f"role {row['role']} has the privilege {row['privilege']} on table {row['table']}: revoke it"
                for row in await tx.fetch(_QUERIES["mutable_tables"])
            ]
            findings += [
                f"the server's setting {row['name']} is off: a crash would lose what was acknowledged"
                for row in await tx.fetch(_QUERIES["settings"])
                if row["setting"] == "off"
            ]
    return findings


async def _applied(tx: Transaction) -> list[AppliedMigration]:
    rows = await tx.fetch(_QUERIES["applied"])
    return [AppliedMigration(row["version"], row["name"], row["digest"]) for row in rows]


async def _check_roles(tx: Transaction) -> None:
    missing = [row["name"] for row in await tx.fetch(_QUERIES["missing_roles"], ROLES)]
    if missing:
        raise SchemaMismatch(
            f"the server lacks the roles {', '.join(missing)}", hint="apply deploy/postgres/roles.sql first"
        )
