"""How `sync` and `status` tell an owner who was given its keys, who asks for more, and what it has to replace."""

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import rich_click as click

from strongroom_cli.output import legible, when

if TYPE_CHECKING:
    from strongroom_agent.standings import KeptStanding
    from strongroom_agent.state import KeptDisclosure, KeptPending

_SEALED_FILE: Final = "file-"


def show_disclosures(disclosed: "Iterable[KeptDisclosure]", principal: str) -> None:
    """Print on standard error whom each key of `principal` was given to, and why, unless it is replaced by now."""
    for each in disclosed:
        if each.is_replaced:
            continue
        whom = "this host itself" if each.is_by(principal) else f"{each.requester_kind} {each.requester}"
        click.echo(
            f"  disclosed: record {each.record} ({legible(each.name)}) was released to {whom}"
            f" at {when(each.released_at)}{_why(each.reason)}; {_then(each, principal)}",
            err=True,
        )


def _then(disclosure: "KeptDisclosure", principal: str) -> str:
    if disclosure.is_by(principal):
        return "if that was somebody else, replace that key"
    return f"replace that key by {when(disclosure.replace_by)}" if disclosure.replace_by else "replace that key"


def show_needs(needy: "Iterable[KeptStanding]", now: int) -> None:
    """Print on standard error what is to be replaced and has no successor yet, why, and how; `now` in seconds."""
    for each in needy:
        click.echo(
            f"  {each.listed.upper()}: record {each.record} ({legible(each.name) or 'of an earlier home'})"
            f" {_trouble(each, now)}\n  next: {_remedy(each)}",
            err=True,
        )


def _trouble(standing: "KeptStanding", now: int) -> str:
    words = {
        "unprovable": f"cannot be given back: {standing.code}",
        "missing": "is not listed by the authority, although a receipt is here",
        "mismatched": "is another one at the authority than signed here",
        "stale": "does not hold the key that is in use",
        "disclosed": "holds a key that somebody else was given",
    }
    trouble = words[standing.listed]
    if standing.replace_by is None:
        return trouble
    due = f"replace it by {when(standing.replace_by)}"
    return f"{trouble}; {due}, which is over" if standing.is_overdue(now) else f"{trouble}; {due}"


def _remedy(standing: "KeptStanding") -> str:
    if standing.name.startswith(_SEALED_FILE):
        return "`strongroom open` that sealed file, and `strongroom seal --force` it again under the same name"
    hand_over = f"`strongroom escrow FILE --name {shlex.quote(standing.name or 'NAME')}`"
    if standing.replace_by is not None:
        return f"make a new key and put it to use in place of this one; then {hand_over}"
    if standing.listed == "stale":
        return f"hand over the key that is in use: {hand_over}"
    return f"hand the key over again, which takes its place: {hand_over}"


def show_pending(pending: "Iterable[KeptPending]") -> None:
    """Print on standard error who asks for keys of this host and waits, and how to forbid it."""
    for each in pending:
        delay = f"; not released before {when(each.not_before)}" if each.not_before > each.asked_at else ""
        click.echo(
            f"  WAITING: {each.requester_kind} {each.requester} has asked for keys of this host at"
            f" {when(each.asked_at)}{_why(each.reason)}{delay}\n"
            f"  next: if that must not be, `strongroom deny {each.request} --reason TEXT`",
            err=True,
        )


def _why(reason: str | None) -> str:
    if reason is None:
        return " (the reason is lost)"
    return f': "{legible(reason)}"' if reason else " without a reason"
