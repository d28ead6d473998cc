"""Commands of whoever founds and keeps the authority: init, show."""

import json
import time
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import ConfigurationInvalid, UsageError
from strongroom_cli.options import output_option
from strongroom_cli.output import Output, when

if TYPE_CHECKING:
    from strongroom.messages import Officer


@click.group()
def authority() -> None:
    """Found an authority, and look at its roster."""


@authority.command("init")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--authority",
    "authority_id",
    required=True,
    help="Its name, e.g. `keys.example.org`; it stands in everything that is signed.",
)
@click.option(
    "--officer",
    "cards",
    type=click.File("rb"),
    multiple=True,
    required=True,
    help="A card that `officer init` printed; repeat it.",
)
@click.option(
    "--replacement-signatures",
    type=click.IntRange(1, 16),
    default=2,
    show_default=True,
    help="Officers needed to replace a host's key.",
)
@click.option("--suite", type=click.Choice(["x-wing", "dhkem-p256"]), default="x-wing", show_default=True)
@click.option("--root-passphrase-file", type=click.Path(exists=True, path_type=Path), help="Opens the root key.")
@click.option(
    "--workers-passphrase-file", type=click.Path(exists=True, path_type=Path), help="Opens the workers' keys."
)
@click.option(
    "--no-passphrase", is_flag=True, help="Leave key files unencrypted whose passphrase file is not given."
)
@output_option
def init(
    *,
    folder: Path,
    authority_id: str,
    cards: tuple[BinaryIO, ...],
    replacement_signatures: int,
    suite: str,
    root_passphrase_file: Path | None,
    workers_passphrase_file: Path | None,
    no_passphrase: bool,
    output: Output,
) -> None:
    """Make every key of a new authority below FOLDER and sign its first roster.

    Afterwards take `root/` offline, and give each worker its own folder and nothing else.

    Example: `strongroom authority init keys --authority keys.example.org --officer alice.json --officer bob.json
    --officer carol.json --root-passphrase-file root.pass --workers-passphrase-file workers.pass`
    """
    from strongroom.authority import Passphrases, create
    from strongroom.crypto.keyring import read_passphrase
    from strongroom.crypto.sealing import Suite
    from strongroom.messages import Policy

    def passphrase(path: Path | None, what: str) -> Secret | None:
        if path is None and not no_passphrase:
            raise UsageError(f"no passphrase for {what}", hint="give a file, or say --no-passphrase")
        return read_passphrase(path) if path else None

    passphrases = Passphrases(
        root=passphrase(root_passphrase_file, "the root key"),
        workers=passphrase(workers_passphrase_file, "the workers' keys"),
    )
    officers = [_officer(card.read()) for card in cards]
    if replacement_signatures > len(officers):
        raise UsageError(f"--replacement-signatures {replacement_signatures}: there are {len(officers)} officers")
    policy = Policy(replacement_signatures=replacement_signatures)
    create(
        folder,
        authority=authority_id,
        officers=officers,
        policy=policy,
        suite=Suite(suite),
        passphrases=passphrases,
    )
    _show(folder / "roster.json", folder / "root.pub", output)


def _officer(card: bytes) -> "Officer":
    from strongroom.messages import Officer, Role, validated
    from strongroom.statements import parse_json

    document = parse_json(card, what="officer card")
    if not isinstance(document, dict):
        raise ConfigurationInvalid("officer card: is no JSON object")
    document = {"roles": [role.value for role in Role], **document}
    document.pop("key_id", None)
    return validated(document, Officer)


@authority.command("show")
@click.argument("roster", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--root-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="The pinned root public key (root.pub).",
)
@output_option
def show(roster: Path, root_key: Path, output: Output) -> None:
    """Verify a ROSTER under the root key and show what it says.

    Example: `strongroom authority show keys/roster.json --root-key keys/root.pub`
    """
    _show(roster, root_key, output)


def _show(path: Path, root_key: Path, output: Output) -> None:
    from strongroom.crypto.signing import key_id
    from strongroom.roster import Roster
    from strongroom.settings import read_root_key, read_roster

    pinned = read_root_key(root_key)
    roster = Roster.verified(read_roster(path), pinned)
    body = roster.body
    if output.json:
        output.document(
            "roster",
            {"root_key": b64encode(pinned).decode(), "digest": roster.digest.hex(), **json.loads(body.to_bytes())},
        )
        return
    expired = " (EXPIRED)" if body.expires_at < time.time() else ""
    output.line(f"authority {body.authority}: roster version {body.version}, signed by root key {key_id(pinned)}")
    output.line(f"  valid       {when(body.issued_at)} to {when(body.expires_at)}{expired}")
    for key in body.sealing_keys:
        output.line(f"  sealing key {key.kid}  {key.suite.value}  {key.state.value}")
    for log in (body.logs.escrow, body.logs.recovery):
        output.line(f"  log         {log.origin}  key {key_id(log.public_key)}")
    for each in body.officers:
        output.line(f"  officer     {each.name}  key {key_id(each.public_key)}  {', '.join(each.roles)}")
    output.line(
        f"  policy      {body.policy.replacement_signatures} signatures replace a key; "
        f"self-recovery needs {body.policy.self_recovery_approvals} approvals, "
        f"recovery by an officer {body.policy.officer_recovery_approvals}"
    )
