"""Commands that make new keys for an authority: authority add-key, authority new-root."""

import sys
import time
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from strongroom.errors import UsageError
from strongroom_cli.options import EXISTING_FILE
from strongroom_cli.token import card_on, pkcs11_options

if TYPE_CHECKING:
    from strongroom.crypto.secret import Secret
    from strongroom.key_cards import KeyCard

_USES = ("sealing", "transport", "escrow-log", "recovery-log", "escrow-reply", "recovery-reply")
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command("add-key")
@click.argument("folder", type=_FOLDER)
@click.option(
    "--for",
    "use",
    type=click.Choice(_USES),
    default="sealing",
    show_default=True,
    help="What it is for: records are sealed to it, other programs wrap keys for it, or a worker signs with it.",
)
@click.option("--suite", type=click.Choice(["x-wing", "dhkem-p256"]), help="Of a sealing key.  [default: x-wing]")
@click.option("--bits", type=click.IntRange(2048, 8192), help="Of a transport key (RSA).  [default: 3072]")
@click.option(
    "--into",
    type=_FOLDER,
    metavar="DIR",
    help="Write the key file here.  [default: FOLDER/recovery/sealing, or the worker's folder below FOLDER]",
)
@pkcs11_options("Make a sealing or transport key on this PKCS #11 token, where it stays; no file is written.")
@click.option("--workers-passphrase-file", type=EXISTING_FILE, help="Opens the workers' keys, this one too.")
@click.option("--no-passphrase", is_flag=True, help="Leave the key file unencrypted.")
def add_key(
    *,
    folder: Path,
    use: str,
    suite: str | None,
    bits: int | None,
    into: Path | None,
    pkcs11: str | None,
    pin_file: Path | None,
    workers_passphrase_file: Path | None,
    no_passphrase: bool,
) -> None:
    """Make a new key for the authority in FOLDER, or where the worker is, and print its card.

    The private key stays in its file, or on its token. The card is public, and goes to the machine that has the
    root key, for `authority sign-roster`: --add-key for a sealing or transport key, --replace-key for the others.
    Compare the id there with the one that is said here.

    Example: `strongroom authority add-key keys --workers-passphrase-file workers.pass > card.json` or
    `strongroom authority add-key keys --for escrow-log --workers-passphrase-file workers.pass > card.json`
    """
    from strongroom.crypto.sealing import Suite
    from strongroom.key_cards import TRANSPORT_BITS, KeyUse, new_key

    wanted = KeyUse(use)
    if suite is not None and wanted is not KeyUse.SEALING:
        raise UsageError(f"--suite: a key for {use} has none")
    if bits is not None and wanted is not KeyUse.TRANSPORT:
        raise UsageError(f"--bits: the size of a key for {use} is fixed")
    if pkcs11 is not None:
        if not wanted.is_added or into is not None or suite not in (None, Suite.P256):
            raise UsageError(
                "--pkcs11: makes a sealing key of the suite dhkem-p256, or a transport key, and no file",
                hint="leave --into and --suite out, and say --for sealing or --for transport",
            )
        made = card_on(pkcs11, pin_file, wanted, bits or TRANSPORT_BITS)
        _print(made.to_bytes())
        click.echo(f"{made.words} {made.id} is on the token", err=True)
        for step in _steps(made, None):
            click.echo(f"  next: {step}", err=True)
        return
    place = into or folder / ("recovery/sealing" if wanted.is_added else wanted.worker)
    if not place.is_dir():
        raise UsageError(f"{place}: there is no such folder", hint="name the folder for the key file with --into")
    card, file = new_key(
        wanted,
        place,
        _passphrase(workers_passphrase_file, no_passphrase=no_passphrase),
        suite=Suite(suite or Suite.X_WING),
        transport_bits=bits or TRANSPORT_BITS,
    )
    _print(card.to_bytes())
    click.echo(f"{card.words} {card.id} is in {file}", err=True)
    for step in _steps(card, file):
        click.echo(f"  next: {step}", err=True)


def _steps(card: "KeyCard", file: Path | None) -> list[str]:
    """Say what to do with a new key, which is on a token if it has no file."""
    if card.use.is_added or file is None:
        return [
            "back the file up with the sealing keys: what is sealed to it does not open without it"
            if file
            else "copy it to a second token as the token's maker says, if you can: there is no other copy",
            "start the recovery worker and the prover again, so that they hold it",
            f"where the root key is: `strongroom authority sign-roster FOLDER --add-key CARD --activate {card.id}`",
            "put that roster in the place of the workers' roster file",
        ]
    usual = file.with_name(Path(card.use.file).name)
    return [
        "back the file up with the keys of the workers",
        "where the root key is: `strongroom authority sign-roster FOLDER --replace-key CARD`",
        f"put the file in the place of {usual}, that roster in the place of the workers' roster file, and start the"
        f" {card.use.worker} worker again" + (", the prover too" if card.use.value == "recovery-log" else ""),
    ]


@click.command("new-root")
@click.argument("folder", type=_FOLDER)
@click.option("--root-key-file", type=EXISTING_FILE, help="The root key of now.  [default: FOLDER/root/root.key]")
@click.option("--root-passphrase-file", type=EXISTING_FILE, help="Opens the root key of now.")
@click.option("--new-passphrase-file", type=EXISTING_FILE, help="Opens the new root key.")
@click.option("--no-passphrase", is_flag=True, help="Leave the new root key's file unencrypted.")
@click.option(
    "--into",
    type=_FOLDER,
    metavar="DIR",
    help="Write the new root key here.  [default: the folder of the one of now]",
)
def new_root(
    *,
    folder: Path,
    root_key_file: Path | None,
    root_passphrase_file: Path | None,
    new_passphrase_file: Path | None,
    no_passphrase: bool,
    into: Path | None,
) -> None:
    """Make another root key, and print the statement by which the one of now hands over to it; both sign.

    Nothing changes until the new key signs a roster that carries the statement: `authority sign-roster FOLDER
    --root-change FILE --root-key-file NEW`. So it can be made long before it is needed, and kept apart from the
    root key of now: if that one gets lost, the spare takes over. Whoever has pinned the old one goes on as before.

    Example: `strongroom authority new-root keys --root-passphrase-file root.pass --new-passphrase-file spare.pass
    --into spare > root-change.json`
    """
    from strongroom.crypto.key_file import read_passphrase, read_signing_key, write_signing_key
    from strongroom.crypto.signing import SigningKey
    from strongroom.root_keys import sign_change
    from strongroom.roster import Roster
    from strongroom.settings import read_roster

    now_file = root_key_file or folder / "root" / "root.key"
    protection = _passphrase(new_passphrase_file, no_passphrase=no_passphrase, option="--new-passphrase-file")
    old = read_signing_key(now_file, read_passphrase(root_passphrase_file) if root_passphrase_file else None)
    roster = Roster.verified(read_roster(folder / "roster.json"), old.public_key)
    if roster.root_key != old.public_key:
        raise UsageError(
            f"{now_file}: has handed over to another root key already", hint="name that one with --root-key-file"
        )
    new = SigningKey.generate()
    place = into or now_file.parent
    file, public = place / f"root-{new.key_id}.key", place / f"root-{new.key_id}.pub"
    write_signing_key(file, new, protection)
    try:
        public.write_text(b64encode(new.public_key).decode() + "\n")
    except OSError as error:
        raise UsageError(f"{public}: cannot be written ({error.strerror or type(error).__name__})") from None
    change = sign_change(roster.body.authority, old, new, now=int(time.time()))
    _print(change.envelope() + b"\n")
    click.echo(f"root key {old.key_id} hands over to root key {new.key_id}, in {file}", err=True)
    for step in (
        "keep what was printed: it is public, and without it the new key is worth nothing",
        f"to hand over: `strongroom authority sign-roster FOLDER --root-change FILE --root-key-file {file}`",
        f"then give {public.name} to whoever pins a root key from then on, in the place of root.pub",
    ):
        click.echo(f"  next: {step}", err=True)


def _passphrase(
    file: Path | None, *, no_passphrase: bool, option: str = "--workers-passphrase-file"
) -> "Secret | None":
    from strongroom.crypto.key_file import read_passphrase

    if file is None and not no_passphrase:
        raise UsageError("no passphrase for the new key", hint=f"give {option}, or say --no-passphrase")
    return read_passphrase(file) if file else None


def _print(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
