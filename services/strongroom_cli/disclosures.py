"""How `sync` and `status` tell an owner who was given its keys, and who else asks for them."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import rich_click as click

from strongroom_cli.output import legible, when

if TYPE_CHECKING:
    from strongroom_agent.state import KeptDisclosure, KeptPending


def show_disclosures(disclosed: "Iterable[KeptDisclosure]", principal: str) -> None:
    """Print on standard error whom each key of `principal` was given to, when and why."""
    for each in disclosed:
        whom = "this host itself" if each.is_by(principal) else f"{each.requester_kind} {each.requester}"
        click.echo(
            f"  disclosed: record {each.record} ({legible(each.name)}) was released to {whom}"
            f" at {when(each.released_at)}{_why(each.reason)}; replace that key",
            err=True,
        )


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
