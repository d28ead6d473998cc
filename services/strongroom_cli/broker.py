"""Commands for the broker: apply, check, definitions, account."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import rich_click as click

from strongroom.errors import UsageError
from strongroom_cli.options import output_option
from strongroom_cli.output import Output, carry_out, conclude

if TYPE_CHECKING:
    from strongroom.broker import Connection
    from strongroom.topology import AccountKind


_ADDRESS = re.compile(r"amqps://(?P<address>[^@/?#\s]+/[^@?#\s]+)")


@click.group()
def broker() -> None:
    """Declare exchanges and queues, check them, make accounts.

    `apply` and `check` need STRONGROOM_OPERATOR_BROKER_URL (or _FILE).
    """


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

    conclude("topology", carry_out("Checking", run()), output, well="the broker is as it should be")


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


@broker.command("account")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["agent", "officer"]),
    default="agent",
    show_default=True,
    help="What it may publish: all that a host sends, or what an officer asks.",
)
@click.option(
    "--external", is_flag=True, help="No password: the client logs in by a certificate with this common name."
)
@click.option("--url", help="The broker without user: `amqps://host:5671/strongroom`. Goes with --url-file.")
@click.option(
    "--url-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="New file (0600) for the AMQP URL with its new password. Needed without --external.",
)
@output_option
def account(
    *,
    name: str,
    kind: "AccountKind",
    external: bool,
    url: str | None,
    url_file: Path | None,
    output: Output,
) -> None:
    """Print the definitions of a broker account that may publish as principal or officer NAME, and as nobody else.

    The document holds no password, only its salted hash. Importing it (`rabbitmqctl import_definitions`) changes
    nothing else in the broker; an account of this name that exists gets the new password. With `-o json` it also
    says its kind and schema, which RabbitMQ passes over.

    Example: `strongroom broker account pc-1 --url amqps://mq.example:5671/strongroom --url-file pc-1.url > d.json`
    """
    import secrets

    from strongroom import topology

    if (url is None) != (url_file is None):
        raise UsageError("--url and --url-file go together")
    if url_file is None and not external:
        raise UsageError("--url-file: is needed for the password, or give --external")
    password = None if external else secrets.token_urlsafe(24)
    user = topology.account(name, kind)
    if url is not None and url_file is not None:
        login = "" if password is None else f"{name}:{password}@"
        _write_new(url_file, f"{_with_login(url, login)}\n")
    hashed = None if password is None else topology.password_hash(password, secrets.token_bytes(4))
    definitions = topology.account_definitions(user, hashed)
    if output.json:
        output.document("account", definitions)
    else:
        click.echo(json.dumps(definitions, indent=2))


def _with_login(url: str, login: str) -> str:
    match = _ADDRESS.fullmatch(url)
    if match is None:
        raise UsageError("--url: must be amqps://host:port/vhost, without user and password")
    return f"amqps://{login}{match['address']}"


def _write_new(path: Path, text: str) -> None:
    from strongroom.private_file import appearing

    try:
        with appearing(path, overwrite=False) as (_, stream):
            stream.write(text.encode())
    except OSError as error:
        raise UsageError(f"--url-file: {error.strerror}: {path}") from None
