"""Commands of whoever founds and keeps the authority: init, show."""

from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import UsageError
from strongroom_cli.expectations import expect_option
from strongroom_cli.options import EXISTING_FILE, output_option
from strongroom_cli.output import Output
from strongroom_cli.policy import officer_of, policy_options, warn
from strongroom_cli.reseal import key_counts
from strongroom_cli.roster_page import say_roster
from strongroom_cli.token import pkcs11_options, sealing_key_on

if TYPE_CHECKING:
    from strongroom.mandates import Expectation, RosterBody


@click.group()
def authority() -> None:
    """Found an authority, change its keys, sign its rosters, and look at them."""


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
    multiple=True,
    required=True,
    metavar="CARD[:ROLE,…]",
    help="A card that `officer init` printed; repeat it. Without roles it gets all, with `CARD:` none.",
)
@policy_options
@expect_option("Without it nothing certain is expected of anybody.")
@click.option(
    "--suite",
    type=click.Choice(["x-wing", "dhkem-p256"]),
    help="Of the sealing key.  [default: x-wing; with --pkcs11 dhkem-p256]",
)
@pkcs11_options("Make the sealing key on this PKCS #11 token, where it stays.")
@click.option(
    "--transport-key/--no-transport-key",
    default=True,
    show_default=True,
    help="Make an RSA key, too, for what other programs wrap.",
)
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
    cards: tuple[str, ...],
    policy: dict[str, int],
    expected: "list[Expectation] | None",
    suite: str | None,
    pkcs11: str | None,
    pin_file: Path | None,
    transport_key: bool,
    root_passphrase_file: Path | None,
    workers_passphrase_file: Path | None,
    no_passphrase: bool,
    output: Output,
) -> None:
    """Make every key of a new authority below FOLDER and sign its first roster.

    Afterwards take `root/` offline, and give each worker its own folder and nothing else. A sealing key on a token
    (--pkcs11) has no copy but those that the token's own tools make; the transport key is a file all the same.

    Example: `strongroom authority init keys --authority keys.example.org --officer alice.json --officer bob.json
    --officer carol.json:audit --root-passphrase-file root.pass --workers-passphrase-file workers.pass`
    """
    from strongroom.authority import Passphrases, create
    from strongroom.crypto.key_file import read_passphrase
    from strongroom.crypto.sealing import Suite
    from strongroom.key_cards import TRANSPORT_BITS
    from strongroom.mandates import Policy
    from strongroom.roster_words import unmeetable

    if pkcs11 is not None and suite not in (None, Suite.P256):
        raise UsageError(f"--suite {suite}: a token has keys of the suite {Suite.P256} alone")

    def passphrase(path: Path | None, what: str) -> Secret | None:
        if path is None and not no_passphrase:
            raise UsageError(f"no passphrase for {what}", hint="give a file, or say --no-passphrase")
        return read_passphrase(path) if path else None

    passphrases = Passphrases(
        root=passphrase(root_passphrase_file, "the root key"),
        workers=passphrase(workers_passphrase_file, "the workers' keys"),
    )
    officers = [officer_of(card) for card in cards]
    needed = policy["replacement_signatures"]
    if needed > len(officers):
        raise UsageError(f"--replacement-signatures {needed}: there are {len(officers)} officers")
    create(
        folder,
        authority=authority_id,
        officers=officers,
        policy=Policy.model_validate({**policy, "expected": expected or []}),
        suite=Suite(suite or (Suite.X_WING if pkcs11 is None else Suite.P256)),
        on_token=sealing_key_on(pkcs11, pin_file),
        passphrases=passphrases,
        transport_bits=TRANSPORT_BITS if transport_key else None,
    )
    warn(unmeetable(_show(folder / "roster.json", folder / "root.pub", output)))


@authority.command("show")
@click.argument("roster", metavar="FOLDER|ROSTER", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--root-key",
    type=EXISTING_FILE,
    help="The pinned root public key.  [default: root.pub beside the roster]",
)
@click.option(
    "--counts", is_flag=True, help="Also count records by sealing key, in the database of STRONGROOM_DATABASE_URL."
)
@output_option
def show(*, roster: Path, root_key: Path | None, counts: bool, output: Output) -> None:
    """Verify a roster under the root key and show what it says; first the id of the key that signed it, to compare.

    The pinned root key may be an earlier one: changes that both keys have signed lead from it to the one of now.

    Of a FOLDER that `authority init` made: its roster.json.

    With --counts also how many records there are by the sealing key of their newest blob, by the database's index,
    and how many of them the prover has opened by it, by the recovery log.

    Example: `strongroom authority show keys` or `strongroom authority show roster.json --root-key root.pub`
    """
    path = roster / "roster.json" if roster.is_dir() else roster
    pinned = root_key or path.parent / "root.pub"
    for file in (path, pinned):
        if not file.is_file():
            hint = "name the folder that `strongroom authority init` made, or a roster and --root-key FILE"
            raise UsageError(f"{file}: there is no such file", hint=hint)
    _show(path, pinned, output, counts=counts)


def _show(path: Path, root_key: Path, output: Output, *, counts: bool = False) -> "RosterBody":
    from strongroom.roster import Roster
    from strongroom.settings import read_root_key, read_roster

    pinned = read_root_key(root_key)
    roster = Roster.verified(read_roster(path), pinned)
    say_roster(roster, output, key_counts(roster, pinned) if counts else None)
    return roster.body
