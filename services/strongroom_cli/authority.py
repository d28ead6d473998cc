"""Commands of whoever founds and keeps the authority: init, sign-roster, show."""

import functools
import json
import re
import sys
import time
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import ConfigurationInvalid, UsageError
from strongroom_cli.expectations import expect_option
from strongroom_cli.options import EXISTING_FILE, Command, output_option
from strongroom_cli.output import Output, legible, when

if TYPE_CHECKING:
    from strongroom.mandates import Expectation, Officer, RosterBody
    from strongroom.roster import Roster

_DAY_SECONDS: Final = 86_400
_NUMBER: Final = re.compile("[0-9]{1,9}")
_ROLES: Final = ("invite", "recover", "approve", "revoke", "audit")

# Word on the command line → member of the policy (SPEC 2.3), its bounds, default, and what it means.
_POLICY: Final = {
    "replacement-signatures": ("replacement_signatures", 1, 16, 2, "Officers needed to replace a host's key."),
    "self-recovery-approvals": (
        "self_recovery_approvals",
        0,
        16,
        0,
        "Approvals for a host that wants its own key.",
    ),
    "recovery-approvals": ("officer_recovery_approvals", 1, 16, 2, "Approvals by other officers, for an officer."),
    "recovery-delay-hours": ("officer_recovery_delay_hours", 0, 144, 0, "Hours an officer has to wait at least."),
    "requests-per-hour": ("requests_per_hour", 1, 1_000_000, 100, "Requests of one requester in an hour."),
    "released-records-per-day": (
        "released_records_per_day",
        1,
        1_000_000,
        1000,
        "Keys for one requester in a day.",
    ),
    "prove-days": ("prove_days", 1, 365, 30, "Days in which the prover opens every key once."),
    "attest-days": ("attest_days", 1, 365, 7, "Days after which a host compares its live keys again."),
    "replace-days": ("replace_days", 1, 365, 14, "Days in which a key is replaced that an officer was given."),
}


def _policy_options(function: Command) -> Command:
    """Add one option for each value of the policy; the command receives `policy`, by the names of SPEC 2.3."""

    @functools.wraps(function)
    def with_policy(**given: Any) -> Any:
        policy = {member: given.pop(member) for member, *_ in _POLICY.values()}
        return function(**given, policy=policy)

    made: Any = with_policy
    for word, (member, least, most, default, meaning) in reversed(_POLICY.items()):
        kind = click.IntRange(least, most)
        made = click.option(f"--{word}", member, type=kind, default=default, show_default=True, help=meaning)(made)
    decorated: Command = made
    return decorated


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
    multiple=True,
    required=True,
    metavar="CARD[:ROLE,…]",
    help="A card that `officer init` printed; repeat it. Without roles it gets all, with `CARD:` none.",
)
@_policy_options
@expect_option("Without it nothing certain is expected of anybody.")
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
    cards: tuple[str, ...],
    policy: dict[str, int],
    expected: "list[Expectation] | None",
    suite: str,
    root_passphrase_file: Path | None,
    workers_passphrase_file: Path | None,
    no_passphrase: bool,
    output: Output,
) -> None:
    """Make every key of a new authority below FOLDER and sign its first roster.

    Afterwards take `root/` offline, and give each worker its own folder and nothing else.

    Example: `strongroom authority init keys --authority keys.example.org --officer alice.json --officer bob.json
    --officer carol.json:audit --root-passphrase-file root.pass --workers-passphrase-file workers.pass`
    """
    from strongroom.authority import Passphrases, create
    from strongroom.crypto.key_file import read_passphrase
    from strongroom.crypto.sealing import Suite
    from strongroom.mandates import Policy

    def passphrase(path: Path | None, what: str) -> Secret | None:
        if path is None and not no_passphrase:
            raise UsageError(f"no passphrase for {what}", hint="give a file, or say --no-passphrase")
        return read_passphrase(path) if path else None

    passphrases = Passphrases(
        root=passphrase(root_passphrase_file, "the root key"),
        workers=passphrase(workers_passphrase_file, "the workers' keys"),
    )
    officers = [_officer(card) for card in cards]
    needed = policy["replacement_signatures"]
    if needed > len(officers):
        raise UsageError(f"--replacement-signatures {needed}: there are {len(officers)} officers")
    create(
        folder,
        authority=authority_id,
        officers=officers,
        policy=Policy.model_validate({**policy, "expected": expected or []}),
        suite=Suite(suite),
        passphrases=passphrases,
    )
    body = _show(folder / "roster.json", folder / "root.pub", output)
    _warn(body)


def _warn(body: "RosterBody") -> None:
    from strongroom.authority import unmeetable

    for words in map(_by_option, unmeetable(body)):
        click.echo(click.style("warning: ", fg="yellow", bold=True) + words, err=True)


def _by_option(words: str) -> str:
    """Call the policy in a sentence that begins with it by the name that --set-policy takes."""
    first, space, rest = words.partition(" ")
    names = {member: word for word, (member, *_) in _POLICY.items()}
    return names.get(first, first) + space + rest


def _officer(card: str) -> "Officer":
    """Read CARD, or CARD:ROLE,ROLE: a role list after the last colon decides over what the card says."""
    from strongroom.fields import validated
    from strongroom.mandates import Officer, Role
    from strongroom.statements import parse_json

    path, colon, listed = card.rpartition(":")
    chosen = [role for role in listed.split(",") if role]
    given = bool(colon) and not Path(card).exists() and (set(chosen) <= set(_ROLES) or Path(path).is_file())
    if given and (unknown := set(chosen) - set(_ROLES)):
        raise UsageError(f"{card}: {min(unknown)!r} is no role", hint=f"the roles are {', '.join(_ROLES)}")
    opened = click.File("rb").convert(path if given else card, None, click.get_current_context())
    document = parse_json(opened.read(), what="officer card")
    if not isinstance(document, dict):
        raise ConfigurationInvalid("officer card: is no JSON object")
    document = {"roles": [role.value for role in Role], **document}
    if given:
        document["roles"] = chosen
    document.pop("key_id", None)
    return validated(document, Officer)


@authority.command("sign-roster")
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
    help=f"One of {', '.join(_POLICY)}. Repeatable.",
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
    expected: "list[Expectation] | None",
    life_days: int,
    root_key_file: Path | None,
    root_passphrase_file: Path | None,
    in_place: bool,
    output: Output,
) -> None:
    """Sign the roster that follows FOLDER/roster.json, and print it; what changes is said on standard error.

    Without any change it renews the one before. Workers take it from a file, officers and hosts with their next
    answer. Use --in-place to replace the file: the shell would empty it before it is read.

    Example: `strongroom authority sign-roster keys --add-officer dora.json:approve
    --set-policy recovery-approvals=3 --root-passphrase-file root.pass > roster-2.json`
    """
    from strongroom.authority import Changes, differences, next_roster, replace_roster
    from strongroom.crypto.key_file import read_passphrase, read_signing_key
    from strongroom.roster import Roster
    from strongroom.settings import read_roster

    changes = Changes(
        add_officers=[_officer(card) for card in cards],
        remove_officers=removed,
        policy=_policy_values(values) | ({} if expected is None else {"expected": expected}),
    )
    path = folder / "roster.json"
    statement = read_roster(path)
    passphrase = read_passphrase(root_passphrase_file) if root_passphrase_file else None
    key = read_signing_key(root_key_file or folder / "root" / "root.key", passphrase)
    before = Roster.verified(statement, key.public_key)
    after = next_roster(before, changes, key, now=int(time.time()), life_seconds=life_days * _DAY_SECONDS)
    click.echo(f"roster version {after.body.version} follows version {before.body.version}", err=True)
    for words in differences(before.body, after.body) or ["nothing but its version and times changes"]:
        click.echo(f"  {legible(_by_option(words))}", err=True)
    click.echo(f"  valid to {when(after.body.expires_at)}, was {when(before.body.expires_at)}", err=True)
    _warn(after.body)
    if in_place:
        replace_roster(path, after)
        _say_roster(after, key.public_key, output)
    else:
        sys.stdout.buffer.write(after.statement.envelope() + b"\n")
        sys.stdout.buffer.flush()
    click.echo(
        "  next: put it in the place of the workers' roster file, which they read while they run; officers and"
        " hosts take it with their next answer",
        err=True,
    )


def _policy_values(pairs: tuple[str, ...]) -> dict[str, int]:
    values: dict[str, int] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        name = next((word for word, (member, *_) in _POLICY.items() if name in (word, member)), "")
        if not name or _POLICY[name][0] in values:
            raise UsageError(
                f"--set-policy {pair[:80]!r}: must be NAME=VALUE, and each name once",
                hint=f"the names are {', '.join(_POLICY)}",
            )
        member, least, most, *_ = _POLICY[name]
        if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
            raise UsageError(f"--set-policy {name}: must be a whole number, {least} to {most}")
        values[member] = int(text)
    return values


@authority.command("show")
@click.argument("roster", metavar="FOLDER|ROSTER", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--root-key",
    type=EXISTING_FILE,
    help="The pinned root public key.  [default: root.pub beside the roster]",
)
@output_option
def show(roster: Path, root_key: Path | None, output: Output) -> None:
    """Verify a roster under the root key and show what it says; first the id of the root key, to be compared.

    Of a FOLDER that `authority init` made: its roster.json.

    Example: `strongroom authority show keys` or `strongroom authority show roster.json --root-key root.pub`
    """
    path = roster / "roster.json" if roster.is_dir() else roster
    pinned = root_key or path.parent / "root.pub"
    for file in (path, pinned):
        if not file.is_file():
            hint = "name the folder that `strongroom authority init` made, or a roster and --root-key FILE"
            raise UsageError(f"{file}: there is no such file", hint=hint)
    _show(path, pinned, output)


def _show(path: Path, root_key: Path, output: Output) -> "RosterBody":
    from strongroom.roster import Roster
    from strongroom.settings import read_root_key, read_roster

    pinned = read_root_key(root_key)
    roster = Roster.verified(read_roster(path), pinned)
    _say_roster(roster, pinned, output)
    return roster.body


def _say_roster(roster: "Roster", root_key: bytes, output: Output) -> None:
    from strongroom.authority import expectation_text
    from strongroom.crypto.signing import key_id

    body = roster.body
    if output.json:
        output.document(
            "roster",
            {
                "root_key": b64encode(root_key).decode(),
                "root_key_id": key_id(root_key),
                "digest": roster.digest.hex(),
                **json.loads(body.to_bytes()),
            },
        )
        return
    expired = " (EXPIRED)" if body.expires_at < time.time() else ""
    output.line(f"authority {body.authority}: roster version {body.version}, signed by root key {key_id(root_key)}")
    output.line(f"  valid       {when(body.issued_at)} to {when(body.expires_at)}{expired}")
    for key in body.sealing_keys:
        output.line(f"  sealing key {key.kid}  {key.suite.value}  {key.state.value}")
    for log in (body.logs.escrow, body.logs.recovery):
        output.line(f"  log         {log.origin}  key {key_id(log.public_key)}")
    for each in body.officers:
        output.line(f"  officer     {each.name}  key {key_id(each.public_key)}  {', '.join(each.roles) or '-'}")
    for word, (member, *_) in _POLICY.items():
        output.line(f"  policy      {word} {getattr(body.policy, member)}")
    for expected in map(expectation_text, body.policy.expected):
        output.line(f"  expected    {legible(expected)}")
