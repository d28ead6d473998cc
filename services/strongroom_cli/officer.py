"""Commands of officers: a key of one's own, invitations and countersignatures."""

import sys
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom_cli.options import home_option, output_option, passphrase_option, read_text
from strongroom_cli.output import Output

if TYPE_CHECKING:
    from strongroom_agent.invitation import IssuedInvitation

_DAY_SECONDS = 86_400


@click.group()
def officer() -> None:
    """Be an officer: make a key, and take the authority's roster."""


@officer.command("init")
@click.argument("name")
@home_option
@passphrase_option
def init(name: str, home: Path, passphrase: Secret | None) -> None:
    """Make the key of officer NAME in the home folder and print the card that goes into the roster.

    Example: `strongroom officer init alice --passphrase-file alice.pass > alice.json`
    """
    import json

    from strongroom_agent.identity import create_officer_home

    made = create_officer_home(home, name, passphrase=passphrase)
    public_key = b64encode(made.config.public_key).decode()
    click.echo(json.dumps({"name": name, "public_key": public_key, "key_id": made.config.key_id}))


@officer.command("trust")
@click.argument("roster", type=click.File("rb"))
@click.option(
    "--root-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="The root public key (root.pub).",
)
@click.option(
    "--broker-url-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="File with the officers' AMQP URL.",
)
@click.option(
    "--agents-broker-url-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the AMQP URL that invitations hand to hosts; default: the same.",
)
@click.option(
    "--broker-ca",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CA certificate of the broker (PEM).",
)
@home_option
@output_option
def trust(
    *,
    roster: BinaryIO,
    root_key: Path,
    broker_url_file: Path,
    agents_broker_url_file: Path | None,
    broker_ca: Path | None,
    home: Path,
    output: Output,
) -> None:
    """Pin the root key and take the ROSTER and the broker's address into the home folder. Repeatable.

    Example: `strongroom officer trust roster.json --root-key root.pub --broker-url-file url --broker-ca ca.pem`
    """
    import time

    from strongroom.settings import read_root_key
    from strongroom_agent.home import Home
    from strongroom_agent.identity import attach

    attached = attach(
        Home.open(home),
        root_key=read_root_key(root_key),
        roster=roster.read(),
        broker_url=read_text("--broker-url-file", broker_url_file).strip(),
        broker_ca=read_text("--broker-ca", broker_ca) if broker_ca else None,
        agents_broker_url=(
            read_text("--agents-broker-url-file", agents_broker_url_file).strip()
            if agents_broker_url_file
            else None
        ),
        now=int(time.time()),
    )
    if output.json:
        output.document("officer", {"name": attached.config.name, "authority": attached.config.authority})
    output.line(f"officer {attached.config.name} trusts the roster of {attached.config.authority}")


@click.command()
@click.argument("principal")
@click.option(
    "--replace",
    is_flag=True,
    help="For a host that lost its keys: replaces the principal's key. Other officers countersign.",
)
@click.option(
    "--life",
    "life_days",
    type=click.FloatRange(0.01, 30),
    default=7.0,
    show_default=True,
    metavar="DAYS",
    help="How long it may be used.",
)
@home_option
@passphrase_option
def invite(principal: str, replace: bool, life_days: float, home: Path, passphrase: Secret | None) -> None:
    """Let PRINCIPAL enrol: print an invitation file. It is a secret until it is used, and works once.

    Example: `strongroom invite laptop-0417 > inv.json`
    """
    from strongroom_agent.invitation import invite as issue

    issued = issue(
        home, principal, replaces=replace, life_seconds=int(life_days * _DAY_SECONDS), passphrase=passphrase
    )
    _print_invitation(issued)


@click.command()
@click.argument("invitation", type=click.File("rb"))
@home_option
@passphrase_option
def countersign(invitation: BinaryIO, home: Path, passphrase: Secret | None) -> None:
    """Add your signature to a replacement INVITATION file and print the new file.

    Read on standard error whom it is for before you hand it on.

    Example: `strongroom countersign inv.json > inv2.json`
    """
    from strongroom_agent.invitation import countersign as sign

    _print_invitation(sign(invitation.read(), home, passphrase=passphrase))


def _print_invitation(issued: "IssuedInvitation") -> None:
    sys.stdout.buffer.write(issued.document)
    sys.stdout.buffer.flush()
    invitation, missing = issued.invitation, issued.signatures_missing
    verb = "replaces the key of" if invitation.replaces else "is for"
    signers = ", ".join(issued.signed_by)
    needed = f"; signatures still needed: {missing} (`strongroom countersign`)" if missing else ""
    click.echo(f"invitation {invitation.id} {verb} {invitation.principal}; signed by {signers}{needed}", err=True)
