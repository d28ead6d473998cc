"""Commands of officers: a key of one's own, invitations and countersignatures."""

import re
import sys
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import UsageError
from strongroom_cli.arguments import check_prefix, check_principal
from strongroom_cli.options import (
    EXISTING_FILE,
    home_option,
    output_option,
    passphrase_option,
    read_text,
    wait_option,
)
from strongroom_cli.output import Output, ask, carry_out, check_can_ask, when

if TYPE_CHECKING:
    from strongroom_agent.agent import Agent, SentInvitation
    from strongroom_agent.invitation import IssuedInvitation

_DAY_SECONDS: Final = 86_400
_ID: Final = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


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
    type=EXISTING_FILE,
    required=True,
    help="The root public key (root.pub).",
)
@click.option(
    "--broker-url-file",
    type=EXISTING_FILE,
    required=True,
    help="File with the officers' AMQP URL.",
)
@click.option(
    "--agents-broker-url-file",
    type=EXISTING_FILE,
    help="File with the AMQP URL that invitations hand to hosts; default: the same.",
)
@click.option(
    "--broker-ca",
    type=EXISTING_FILE,
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
@click.argument("principal", required=False)
@click.option("--prefix", help="Instead of PRINCIPAL: invite new hosts whose names begin with it, for a fleet.")
@click.option("--uses", type=click.IntRange(1, 100_000), help="With --prefix: how many hosts may enrol by it.")
@click.option(
    "--for",
    "card_file",
    type=click.File("rb"),
    metavar="CARD",
    help="Sign for the key of the host that printed this card (`strongroom card`): nobody else can use it then.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="For a host that lost its keys: replaces the principal's key. Other officers countersign.",
)
@click.option(
    "--send",
    is_flag=True,
    help="Send it to the authority, too, where other officers can countersign it by its id.",
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
@wait_option(60.0)
def invite(
    *,
    principal: str | None,
    prefix: str | None,
    uses: int | None,
    card_file: BinaryIO | None,
    replace: bool,
    send: bool,
    life_days: float,
    home: Path,
    passphrase: Secret | None,
    wait_seconds: float,
) -> None:
    """Let PRINCIPAL enrol: print an invitation file.

    The file is a secret until it is used, and works once; with --prefix as often as --uses says. With --for it
    holds no secret, and names the principal of the card.

    Example: `strongroom invite laptop-0417 > inv.json`, or
    `strongroom invite --prefix laptop- --uses 50 > fleet.json`, or
    `strongroom invite --replace --for card.json --send > inv.json`
    """
    from strongroom_agent.agent import Agent
    from strongroom_agent.cards import EnrolmentCard
    from strongroom_agent.invitation import invite as issue

    if prefix is None:
        if uses is not None:
            raise UsageError("--uses: goes with --prefix")
        if principal is None and card_file is None:
            raise UsageError("whom to invite? Name a PRINCIPAL, or give --for CARD or --prefix")
    elif principal is not None or card_file is not None or replace:
        raise UsageError("--prefix: goes with neither PRINCIPAL nor --for nor --replace")
    elif uses is None:
        raise UsageError("--prefix: say with --uses how many hosts may enrol by it")
    if send and not (replace and card_file):
        raise UsageError(
            "--send: goes with --replace and --for",
            hint="have the host make the key (`strongroom card NAME`); other files are handed to officers directly",
        )
    check_principal("principal", principal)
    check_prefix(prefix)
    issued = issue(
        home,
        principal,
        prefix=prefix,
        uses=uses or 1,
        card=EnrolmentCard.parse(card_file.read()) if card_file else None,
        replaces=replace,
        life_seconds=int(life_days * _DAY_SECONDS),
        passphrase=passphrase,
    )
    _print_invitation(issued)
    _tell(issued)
    if send:
        with Agent.open(home, passphrase=passphrase) as agent:
            sent = carry_out(
                "Sending it to the authority", agent.send_invitation(issued, wait_seconds=wait_seconds)
            )
        _tell_sent(issued, sent)


@click.command()
@click.argument("invitation", metavar="FILE|ID")
@click.option("--send", is_flag=True, help="Send the signatures of a FILE to the authority, too.")
@click.option(
    "--print", "print_anyway", is_flag=True, help="With ID: print the file although signatures are missing."
)
@click.option("--yes", is_flag=True, help="With ID: do not ask. Needed where there is no terminal.")
@home_option
@passphrase_option
@wait_option(60.0)
def countersign(
    *,
    invitation: str,
    send: bool,
    print_anyway: bool,
    yes: bool,
    home: Path,
    passphrase: Secret | None,
    wait_seconds: float,
) -> None:
    """Add your signature to a replacement invitation and print the new file.

    Of a FILE: read on standard error whom it is for before you hand it on. Of an ID that another officer sent:
    fetches the invitation, shows it, asks, signs it and sends it back; the file is printed once it is complete,
    also when it is called again.

    Example: `strongroom countersign inv.json > inv2.json` or
    `strongroom countersign 019b2c7e-7a10-7c3e-9d57-1f4e6a0b8c21 > inv.json`
    """
    from strongroom_agent.agent import Agent
    from strongroom_agent.home import Home, Role
    from strongroom_agent.invitation import countersign as sign

    if not _ID.fullmatch(invitation):
        # The parameter type says what is wrong with a path as for every other file.
        file = click.File("rb").convert(invitation, None, click.get_current_context())
        issued = sign(file.read(), home, passphrase=passphrase)
        _print_invitation(issued)
        _tell(issued)
        if issued.remark is not None:
            click.echo(f"  {issued.remark}", err=True)
        if send:
            with Agent.open(home, passphrase=passphrase) as agent:
                work = agent.send_invitation(issued, wait_seconds=wait_seconds)
                _tell_sent(issued, carry_out("Sending it to the authority", work))
        return
    if Home.open(home).config.role is not Role.OFFICER:
        raise UsageError(f"{home}: is a host's home", hint="name an officer's with --home")
    check_can_ask(yes=yes)
    with Agent.open(home, passphrase=passphrase) as agent:
        issued = _countersign_sent(agent, invitation, home, passphrase, yes=yes, wait_seconds=wait_seconds)
    if print_anyway or not issued.signatures_missing:
        _print_invitation(issued)


def _countersign_sent(
    agent: "Agent", wanted: str, home: Path, passphrase: Secret | None, *, yes: bool, wait_seconds: float
) -> "IssuedInvitation":
    """Sign and send an invitation that is on the docket; return it with every signature that there is."""
    from strongroom_agent.countersigning import find
    from strongroom_agent.home import Home
    from strongroom_agent.invitation import countersign as sign
    from strongroom_agent.invitation import received

    def waiting() -> "IssuedInvitation":
        docket = carry_out("Asking the authority", agent.docket(limit=1, wait_seconds=wait_seconds))
        return received(find(docket.invitations, wanted), home)

    issued = waiting()
    _tell(issued)
    mine = Home.open(home).config.name in issued.signed_by
    if mine or not issued.signatures_missing:
        why = "you have signed it already" if mine else "it is complete"
        click.echo(f"  {why}: nothing was signed or sent", err=True)
        return issued
    ask("Sign it?", yes=yes)
    issued = sign(issued.document, home, passphrase=passphrase)
    sent = carry_out("Sending it to the authority", agent.send_invitation(issued, wait_seconds=wait_seconds))
    if set(sent.officers) - set(issued.signed_by):
        # Others have signed meanwhile; the authority has put the signatures together.
        issued = waiting()
    _tell_sent(issued, sent)
    return issued


def _print_invitation(issued: "IssuedInvitation") -> None:
    sys.stdout.buffer.write(issued.document)
    sys.stdout.buffer.flush()


def _tell(issued: "IssuedInvitation") -> None:
    """Say on standard error what an invitation does, for somebody who has to answer for it."""
    from strongroom.crypto.signing import key_id

    invitation = issued.invitation
    verb = "replaces the key of" if invitation.replaces else "is for"
    key = (
        "not in the file: no officer can use it, if the host itself shows this id (`strongroom card`)"
        if issued.host_made_key
        else "in the file: whoever has seen the file can use it, the officers too; keep it secret"
    )
    for line in (
        f"invitation {invitation.id} {verb} {invitation.whom}",
        f"  one-time key  {key_id(invitation.one_time_key)}, {key}",
        f"  expires       {when(invitation.expires_at)}",
        f"  signed by     {', '.join(issued.signed_by) or '-'}{_needed(issued)}",
    ):
        click.echo(line, err=True)


def _needed(issued: "IssuedInvitation") -> str:
    missing = issued.signatures_missing
    return f"; signatures still needed: {missing} (`strongroom countersign`)" if missing else ""


def _tell_sent(issued: "IssuedInvitation", sent: "SentInvitation") -> None:
    place = f"recovery log, index {sent.log_index}, tree size {sent.tree_size}: verified"
    click.echo(f"  receipt       {place}; signed by {', '.join(sent.officers)}", err=True)
    if issued.signatures_missing:
        click.echo(f"next: other officers run `strongroom countersign {issued.invitation.id}`", err=True)
