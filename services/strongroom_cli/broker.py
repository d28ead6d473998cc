"""Commands for the broker: apply, check, definitions."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TextIO

import rich_click as click

from strongroom.errors import ExitCode, UsageError
from strongroom_cli.options import output_option
from strongroom_cli.output import Output, carry_out

if TYPE_CHECKING:
    from strongroom.broker import Connection


@click.group()
def broker() -> None:
    """Declare exchanges and queues, or check them. Needs STRONGROOM_OPERATOR_BROKER_URL (or _FILE)."""


@asynccontextmanager
async def operator_connection() -> AsyncIterator["Connection"]:
    """Connect with the operator's URL from the environment; the errors are those of `broker.connect`."""
    from strongroom import broker as amqp
    from strongroom_cli.settings import OperatorBrokerSettings

    settings = OperatorBrokerSettings.load()
    async with amqp.connect(
        settings.operator_broker_url.get_secret_value(),
        ca_file=settings.broker_ca_file,
        name="strongroom operator",
        timeout_seconds=10,
    ) as connection:
        yield connection


@broker.command("apply")
@output_option
def apply(output: Output) -> None:
    """Declare the exchanges, queues and bindings. Repeatable; nothing that exists is changed.

    Users and permissions come by definitions file: `strongroom broker definitions`.

    Example: `strongroom broker apply`
    """
    from strongroom import broker as amqp

    async def run() -> None:
        async with operator_connection() as connection:
            await amqp.apply_topology(connection)

    carry_out("Declaring", run())
    if output.json:
        output.document("topology", {"applied": True})
    output.line("exchanges, queues and bindings are in place")


@broker.command("check")
@output_option
def check(output: Output) -> None:
    """Say what is missing or differs. Exit code 1 if anything does.

    Example: `strongroom broker check`
    """
    from strongroom import broker as amqp

    async def run() -> list[str]:
        async with operator_connection() as connection:
            return [str(finding) for finding in await amqp.check_topology(connection)]

    findings = carry_out("Checking", run())
    if output.json:
        output.document("topology", {"ok": not findings, "findings": findings})
    for finding in findings:
        output.line(finding)
    if not findings:
        output.line("the broker is as it should be")
    sys.exit(ExitCode.FAILED if findings else ExitCode.DONE)


@broker.command("definitions")
@click.option(
    "--passwords", type=click.File("r"), help="JSON file: user name to password; adds users with salted hashes."
)
def definitions(passwords: TextIO | None) -> None:
    """Print the RabbitMQ definitions file: exchanges, queues, users, permissions.

    Let the broker load it at boot (`load_definitions`).

    Example: `strongroom broker definitions --passwords passwords.json > definitions.json`
    """
    import secrets

    from strongroom.topology import definitions as render
    from strongroom.topology import password_hash

    given = _passwords(passwords) if passwords else {}
    hashes = {user: password_hash(password, secrets.token_bytes(4)) for user, password in given.items()}
    click.echo(json.dumps(render(hashes), indent=2))


def _passwords(file: TextIO) -> dict[str, str]:
    try:
        given = json.load(file)
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(password, str) for password in given.values()):
        raise UsageError(f"{file.name}: must be a JSON object of user names and their passwords")
    return given
