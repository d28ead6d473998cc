"""Commands by which a host gets in: card, enrol."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import NoAnswer, Rejected, UsageError
from strongroom_cli.arguments import is_key_id
from strongroom_cli.hints import hint_for
from strongroom_cli.options import (
    EXISTING_FILE,
    broker_login,
    home_option,
    output_option,
    passphrase_option,
    wait_option,
)
from strongroom_cli.output import Output, carry_out, receipt, when


@click.command()
@click.argument("principal")
@home_option
@passphrase_option
def card(principal: str, home: Path, passphrase: Secret | None) -> None:
    """Make a one-time key in the home folder and print the enrolment card of PRINCIPAL, for an officer.

    The officers sign for that key alone, so that nobody but this host can use their invitation. The card is
    public, and the same each time. Read the key's id to the officers by another way than the card takes.

    Example: `strongroom card laptop-0417 > card.json`, then on an officer's machine
    `strongroom invite --for card.json > inv.json`, then here `strongroom enrol inv.json`
    """
    from strongroom_agent.cards import make_card
    from strongroom_agent.identity import one_time_key_file

    was_there = one_time_key_file(home).exists()
    made = make_card(home, principal, passphrase=passphrase)
    sys.stdout.buffer.write(made.to_bytes() + b"\n")
    sys.stdout.buffer.flush()
    click.echo(f"card of {made.principal}: one-time key {made.key_id}; officers compare this id", err=True)
    if was_there:
        click.echo(
            "  this folder had made that key for a card before: of all cards with it only one name can enrol here."
            " For a host of another name use another folder (--home)",
            err=True,
        )


@click.command()
@click.argument("invitation", type=click.File("rb"))
@click.option("--name", help="The principal, for an invitation of many; default: the invitation's.")
@click.option(
    "--root-key",
    metavar="FILE|KEY-ID",
    help="What the root key must be: root.pub or its id, known by another way than the invitation.",
)
@click.option(
    "--broker-url-file",
    type=EXISTING_FILE,
    help="File with this host's own AMQP URL; default: the invitation's.",
)
@click.option(
    "--broker-certificate",
    type=EXISTING_FILE,
    help="Certificate (PEM) by which this host logs in to the broker. It is copied into the home.",
)
@click.option(
    "--broker-key",
    type=EXISTING_FILE,
    help="The unencrypted private key (PEM) that belongs to it. It is copied, too, with mode 0600.",
)
@home_option
@passphrase_option
@wait_option(60.0)
@output_option
def enrol(
    *,
    invitation: BinaryIO,
    name: str | None,
    root_key: str | None,
    broker_url_file: Path | None,
    broker_certificate: Path | None,
    broker_key: Path | None,
    home: Path,
    passphrase: Secret | None,
    wait_seconds: float,
    output: Output,
) -> None:
    """Enrol this host with an officer's invitation file (`-` for standard input).

    Makes the host's keys in the home folder, pins the authority's root key, and waits for the receipt. If it is
    interrupted, run it again with the same file. Compare the root key's id with what the authority publishes, or
    name it with --root-key.

    Example: `strongroom enrol inv.json` or `strongroom enrol fleet.json --name laptop-0417 --root-key root.pub`
    """
    from strongroom_agent.enrolment import enrol as enrol_host

    work = enrol_host(
        home,
        invitation.read(),
        name=name,
        root_key_id=_root_key_id(root_key) if root_key else None,
        passphrase=passphrase,
        login=broker_login(broker_url_file, broker_certificate, broker_key),
        wait_seconds=wait_seconds,
    )
    with _told_of_folder(home):
        done = carry_out("Enrolling", work)
    if output.json:
        output.document(
            "enrolment",
            {
                "principal": done.principal,
                "authority": done.authority,
                "root_key_id": done.root_key_id,
                "key_id": done.key_id,
                "age_recipient": done.age_recipient,
                "log_index": done.log_index,
                "tree_size": done.tree_size,
                "roster_version": done.roster_version,
                "roster_expires_at": done.roster_expires_at,
            },
        )
        return
    output.line(f"enrolled {done.principal} with {done.authority}")
    output.line(f"  key         {done.key_id}")
    output.line(receipt("recovery", done.log_index, done.tree_size))
    output.line(f"  roster      version {done.roster_version}, expires {when(done.roster_expires_at)}")
    output.line(f"  home        {home}")
    told = "as you asked" if root_key else "compare it with `strongroom authority show FOLDER`, by another way"
    output.line(f"  root key    {done.root_key_id}: {told}")


@contextmanager
def _told_of_folder(home: Path) -> Iterator[None]:
    """Add to a refusal, and to silence, what becomes of the folder that the enrolment was begun in."""
    try:
        yield
    except Rejected as error:
        from strongroom_agent.status import status

        first = hint_for(error) or "ask an officer for another invitation"
        other = "for a host of another name use another folder (--home)"
        if status(home, limit=1).records_total == 0:
            other += f", or delete {home} first: no key was ever handed over in it"
        error.hint = f"{first}; {other}"
        raise
    except NoAnswer as error:
        error.hint = f"{error.hint}; the enrolment is kept in {home}" if error.hint else error.hint
        raise


def _root_key_id(text: str) -> str:
    from strongroom.crypto.signing import key_id
    from strongroom.settings import read_root_key

    if is_key_id(text):
        return text
    if not Path(text).exists():
        raise UsageError(
            f"--root-key {text!r}: neither a file nor a key id (32 hex digits)",
            hint="`strongroom authority show FOLDER` prints the id where the authority is kept",
        )
    return key_id(read_root_key(Path(text)))
