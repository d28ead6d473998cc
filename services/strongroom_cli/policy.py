"""What the commands that sign rosters share: the policy's options, officers' cards, and warnings."""

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

from strongroom.errors import ConfigurationInvalid, PermanentError, UsageError
from strongroom_cli.options import Command

if TYPE_CHECKING:
    from collections.abc import Iterable

    from strongroom.mandates import Officer

ROLES: Final = ("invite", "recover", "approve", "revoke", "audit")

_NUMBER: Final = re.compile("[0-9]{1,9}")

# Word on the command line → member of the policy (SPEC 2.3), its bounds, default, and what it means.
POLICY: Final = {
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


def policy_options(function: Command) -> Command:
    """Add one option for each value of the policy; the command receives `policy`, by the names of SPEC 2.3."""

    @functools.wraps(function)
    def with_policy(**given: Any) -> Any:
        policy = {member: given.pop(member) for member, *_ in POLICY.values()}
        return function(**given, policy=policy)

    made: Any = with_policy
    for word, (member, least, most, default, meaning) in reversed(POLICY.items()):
        kind = click.IntRange(least, most)
        made = click.option(f"--{word}", member, type=kind, default=default, show_default=True, help=meaning)(made)
    decorated: Command = made
    return decorated


def warn(warnings: "Iterable[str]") -> None:
    """Say on standard error what a roster leads to."""
    for words in map(by_option, warnings):
        click.echo(click.style("warning: ", fg="yellow", bold=True) + words, err=True)


def by_option(words: str) -> str:
    """Call the policy in a sentence that begins with it by the name that --set-policy takes."""
    first, space, rest = words.partition(" ")
    names = {member: word for word, (member, *_) in POLICY.items()}
    return names.get(first, first) + space + rest


def officer_of(card: str) -> "Officer":
    """Read CARD, or CARD:ROLE,ROLE: a role list after the last colon decides over what the card says."""
    from strongroom.fields import validated
    from strongroom.mandates import Officer, Role
    from strongroom.statements import parse_json

    path, colon, listed = card.rpartition(":")
    chosen = [role for role in listed.split(",") if role]
    given = bool(colon) and not Path(card).exists() and (set(chosen) <= set(ROLES) or Path(path).is_file())
    if given and (unknown := set(chosen) - set(ROLES)):
        raise UsageError(f"{card}: {min(unknown)!r} is no role", hint=f"the roles are {', '.join(ROLES)}")
    opened = click.File("rb").convert(path if given else card, None, click.get_current_context())
    try:
        document = parse_json(opened.read(), what="document")
        if not isinstance(document, dict):
            raise ConfigurationInvalid("is no JSON object")
        document = {"roles": [role.value for role in Role], **document}
        if given:
            document["roles"] = chosen
        document.pop("key_id", None)
        return validated(document, Officer)
    except PermanentError as error:
        raise type(error)(
            f"officer card {opened.name}: {error.message}",
            hint="name a file that `strongroom officer init` printed",
        ) from None


def policy_values(pairs: tuple[str, ...]) -> dict[str, int]:
    """Read NAME=VALUE as `--set-policy` has it; raises UsageError."""
    values: dict[str, int] = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        name = next((word for word, (member, *_) in POLICY.items() if name in (word, member)), "")
        if not name or POLICY[name][0] in values:
            raise UsageError(
                f"--set-policy {pair[:80]!r}: must be NAME=VALUE, and each name once",
                hint=f"the names are {', '.join(POLICY)}",
            )
        member, least, most, *_ = POLICY[name]
        if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
            raise UsageError(f"--set-policy {name}: must be a whole number, {least} to {most}")
        values[member] = int(text)
    return values
