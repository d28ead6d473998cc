"""The command that signs the roster that follows: authority sign-roster."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rich_click as click

from strongroom.errors import RosterInvalid, UsageError
from strongroom_cli.expectations import expect_option
from strongroom_cli.options import EXISTING_FILE, output_option
from strongroom_cli.output import Output, legible, when
from strongroom_cli.policy import POLICY, by_option, officer_of, policy_values, warn
from strongroom_cli.roster_page import say_roster

if TYPE_CHECKING:
    from strongroom.crypto.signing import SigningKey
    from strongroom.key_cards import KeyCard
    from strongroom.mandates import Expectation, SealingKeyState
    from strongroom.roster import Roster
    from strongroom.statements import Statement

_DAY_SECONDS: Final = 86_400


@click.command("sign-roster")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--add-officer",
    "cards",
    multiple=True,
    metavar="CARD[:ROLE,…]",
    help="A card that `officer init` printed. Without roles it gets all, with `CARD:` none. Repeatable.",
)
@click.option("--remove-officer", "removed", multiple=True, metavar="NAME", help="Repeatable.")
@click.option(
    "--set-policy",
    "values",
    multiple=True,
    metavar="NAME=VALUE",
    help=f"One of {', '.join(POLICY)}. Repeatable.",
)
@click.option(
    "--add-key",
    "added",
    multiple=True,
    type=EXISTING_FILE,
    metavar="CARD",
    help="A sealing or transport key that `add-key` made; accepted, unless you say --activate. Repeatable.",
)
@click.option(
    "--activate",
    multiple=True,
    metavar="KID",
    help="Hosts use this key from now on; the one before is still accepted. Once of each kind.",
)
@click.option("--accept", multiple=True, metavar="KID", help="Take what uses this key, and no more. Repeatable.")
@click.option(
    "--close",
    multiple=True,
    metavar="KID",
    help="Take nothing more that uses this key; what is stored can be recovered. Repeatable.",
)
@click.option(
    "--remove-key",
    "dropped",
    multiple=True,
    metavar="KID",
    help="Take a closed key out, when `authority retire-key` has said yes. Repeatable.",
)
@click.option(
    "--replace-key",
    "replaced",
    multiple=True,
    type=EXISTING_FILE,
    metavar="CARD",
    help="A log or reply key that `add-key` made. What the log's former key has signed still counts. Repeatable.",
)
@click.option(
    "--distrust",
    multiple=True,
    metavar="KEYID",
    help="What this former key of a log has signed counts no more: it was stolen.",
)
@click.option(
    "--root-change",
    "changes",
    multiple=True,
    type=EXISTING_FILE,
    metavar="FILE",
    help="What `new-root` printed; sign with the new root key.",
)
@expect_option("They take the place of all before; `none` expects nothing any more.")
@click.option(
    "--life",
    "life_days",
    type=click.IntRange(1, 3650),
    default=365,
    show_default=True,
    metavar="DAYS",
    help="How long it is valid.",
)
@click.option(
    "--root-key-file",
    type=EXISTING_FILE,
    help="The root's private key.  [default: FOLDER/root/root.key]",
)
@click.option("--root-passphrase-file", type=click.Path(exists=True, path_type=Path), help="Opens the root key.")
@click.option("--in-place", is_flag=True, help="Replace FOLDER/roster.json, all at once, instead of printing.")
@output_option
def sign_roster(
    *,
    folder: Path,
    cards: tuple[str, ...],
    removed: tuple[str, ...],
    values: tuple[str, ...],
    added: tuple[Path, ...],
    activate: tuple[str, ...],
    accept: tuple[str, ...],
    close: tuple[str, ...],
    dropped: tuple[str, ...],
    replaced: tuple[Path, ...],
    distrust: tuple[str, ...],
    changes: tuple[Path, ...],
    expected: "list[Expectation] | None",
    life_days: int,
    root_key_file: Path | None,
    root_passphrase_file: Path | None,
    in_place: bool,
    output: Output,
) -> None:
    """Sign the roster that follows FOLDER/roster.json, and print it; what changes is said on standard error.

    Without any change it renews the one before. What has to be done before it is put in place is said, too. Workers
    take it from a file, officers and hosts with their next answer. Use --in-place to replace the file: the shell
    would empty it before it is read.

    Example: `strongroom authority sign-roster keys --add-officer dora.json:approve
    --set-policy recovery-approvals=3 --root-passphrase-file root.pass > roster-2.json` or, with a new sealing key,
    `strongroom authority sign-roster keys --add-key card.json --activate KID --in-place`
    """
    from strongroom.crypto.key_file import read_passphrase, read_signing_key
    from strongroom.next_rosters import Changes, next_roster, replace_roster
    from strongroom.roster_words import differences, pitfalls, unmeetable

    handed_over = [_statement(file) for file in changes]
    wanted = Changes(
        add_officers=[officer_of(card) for card in cards],
        remove_officers=removed,
        policy=policy_values(values) | ({} if expected is None else {"expected": expected}),
        add_keys=[_key_card(file) for file in added],
        states=_states(activate, accept, close),
        remove_keys=dropped,
        replace_keys=[_key_card(file) for file in replaced],
        distrust=distrust,
        root_changes=handed_over,
    )
    path = folder / "roster.json"
    passphrase = read_passphrase(root_passphrase_file) if root_passphrase_file else None
    key = read_signing_key(root_key_file or folder / "root" / "root.key", passphrase)
    before = _before(path, handed_over, key)
    try:
        after = next_roster(before, wanted, key, now=int(time.time()), life_seconds=life_days * _DAY_SECONDS)
    except RosterInvalid as error:
        if close and error.hint is None:
            error.hint = "before an active key is closed, another takes over: --add-key CARD --activate NEW"
        raise
    click.echo(f"roster version {after.body.version} follows version {before.body.version}", err=True)
    for words in differences(before.body, after.body) or ["nothing but its version and times changes"]:
        click.echo(f"  {legible(by_option(words))}", err=True)
    click.echo(f"  valid to {when(after.body.expires_at)}, was {when(before.body.expires_at)}", err=True)
    warn([*pitfalls(before.body, after.body), *unmeetable(after.body)])
    if in_place:
        replace_roster(path, after)
        say_roster(after, output)
    else:
        sys.stdout.buffer.write(after.statement.envelope() + b"\n")
        sys.stdout.buffer.flush()
    click.echo(
        "  next: put it in the place of the workers' roster file, which they read while they run; officers and"
        " hosts take it with their next answer",
        err=True,
    )


def _statement(file: Path) -> "Statement":
    """Read a root change, as `new-root` printed it; it is judged with the roster. Raises UsageError."""
    from strongroom.errors import PermanentError
    from strongroom.statements import parse_envelope

    try:
        return parse_envelope(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror or type(error).__name__})") from None
    except PermanentError as error:
        raise UsageError(f"{file}: {error.message}", hint="name a file that `authority new-root` printed") from None


def _key_card(file: Path) -> "KeyCard":
    from strongroom.key_cards import KeyCard

    try:
        return KeyCard.parse(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror or type(error).__name__})") from None


def _states(
    activate: tuple[str, ...], accept: tuple[str, ...], close: tuple[str, ...]
) -> "dict[str, SealingKeyState]":
    from strongroom.mandates import SealingKeyState

    wanted = {SealingKeyState.ACTIVE: activate, SealingKeyState.ACCEPTED: accept, SealingKeyState.CLOSED: close}
    states: dict[str, SealingKeyState] = {}
    for state, kids in wanted.items():
        for kid in kids:
            if states.setdefault(kid, state) is not state:
                raise UsageError(f"kid {kid}: cannot be {states[kid].value} and {state.value} at once")
    return states


def _before(path: Path, changes: "list[Statement]", key: "SigningKey") -> "Roster":
    """Return the roster that is to be followed, verified by the root key at hand or the one that hands over to it.

    Raises RosterInvalid for a roster of another root key.
    """
    from strongroom.fields import parse_body
    from strongroom.mandates import RootChange
    from strongroom.roster import Roster
    from strongroom.settings import read_roster

    former = parse_body(changes[0], RootChange).former if changes else key.public_key
    return Roster.verified(read_roster(path), former)
