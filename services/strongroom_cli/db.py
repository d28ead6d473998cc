"""Commands for the database: migrate, check."""

import rich_click as click

from strongroom_cli.options import output_option
from strongroom_cli.output import Output, carry_out, conclude


@click.group()
def db() -> None:
    """Bring the database schema up to date, or check it. Needs STRONGROOM_DATABASE_URL (or _FILE)."""


@db.command("migrate")
@output_option
def migrate(output: Output) -> None:
    """Apply the migrations that are missing, each in its own transaction, under a lock. Run it as the owner.

    Example: `strongroom db migrate`
    """
    from strongroom.migrations import migrate as apply
    from strongroom_cli.settings import DatabaseSettings

    settings = DatabaseSettings.load()
    applied = carry_out("Migrating", apply(settings.database_url.get_secret_value()))
    names = [str(migration) for migration in applied]
    if output.json:
        output.document("migration", {"applied": names})
    for name in names:
        output.line(f"applied {name}")
    if not names:
        output.line("nothing to do: the schema is up to date")


@db.command("check")
@output_option
def check(output: Output) -> None:
    """Say whether the schema is the one that this program was written for. Exit code 1 if not.

    Example: `strongroom db check`
    """
    from strongroom.migrations import check as find
    from strongroom_cli.settings import DatabaseSettings

    settings = DatabaseSettings.load()
    findings = [str(each) for each in carry_out("Checking", find(settings.database_url.get_secret_value()))]
    conclude("schema", findings, output, well="the schema is up to date")
