"""The command that shows who asks for keys: requests; and how a request is put into words."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import UsageError
from strongroom_cli.arguments import check_principal, is_id
from strongroom_cli.options import home_option, output_option, passphrase_option, wait_option
from strongroom_cli.output import Output, carry_out, lasting, legible, when

if TYPE_CHECKING:
    from strongroom_agent.cases import Case

_COLUMNS = ("id", "who", "whose", "which", "why", "age", "expires", "approvals", "state")
_WIDTH_MAX = 100
_TABLE_WIDTH = 140
_INDENT = " " * 16


@click.command("requests")
@click.argument("request_id", metavar="[ID]", required=False)
@click.option("--all", "everything", is_flag=True, help="Also those that were decided or are over.")
@click.option("--principal", help="For whose records; default: everybody's, on a host its own.")
@home_option
@passphrase_option
@wait_option(60.0)
@output_option
def requests_(
    *,
    request_id: str | None,
    everything: bool,
    principal: str | None,
    home: Path,
    passphrase: Secret | None,
    wait_seconds: float,
    output: Output,
) -> None:
    """Show who asks for keys and waits for approval; with ID, all about one request.

    Every request is verified here up to the root key, whatever the database says; one that does not verify says
    so. On a host: the requests for its own records.

    Example: `strongroom requests --all --principal laptop-0417`
    """
    from strongroom_agent.agent import Agent

    check_principal("--principal", principal)
    with Agent.open(home, passphrase=passphrase) as agent:
        if request_id is not None:
            if everything or principal:
                raise UsageError("give an ID, or choose by --all and --principal")
            check_id(request_id)
            case = carry_out("Asking the authority", agent.case(request_id, wait_seconds=wait_seconds))
            _show(case, output)
            return
        work = agent.docket(pending=not everything, principal=principal, wait_seconds=wait_seconds)
        docket = carry_out("Asking the authority", work)
    found = sorted(docket.cases, key=lambda case: case.state.value != "pending")
    if output.json:
        documents = [case.document() for case in found]
        output.document("requests", {"roster_version": docket.roster_version, "requests": documents})
    elif found:
        now = int(time.time())
        if (screen_columns() or _TABLE_WIDTH) < _TABLE_WIDTH:
            output.line("\n\n".join(_card(case, now) for case in found))
        else:
            output.table(_COLUMNS, [_row(case, now) for case in found])
    else:
        output.line("no requests" if everything else "no requests wait")


def check_id(text: str) -> None:
    """Raise UsageError for what is no request id."""
    if not is_id(text):
        raise UsageError(f"{text!r} is no request id", hint="`strongroom requests` lists them")


def _row(case: "Case", now: int) -> tuple[str, ...]:
    state = f"not verified: {legible(case.flaw)}" if case.flaw else case.state.value
    request = case.request
    return (
        case.id,
        f"{request.requester} ({request.requester_kind.value})" if request else "-",
        request.principal if request else "-",
        _which(case),
        legible(request.reason) if request else "-",
        lasting(now - case.asked_at),
        when(request.expires_at) if request else "-",
        _approvals(case),
        state,
    )


def screen_columns() -> int | None:
    """Return how wide the terminal is that people read on; None where standard output is none."""
    return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else None


def _card(case: "Case", now: int) -> str:
    """Say what a line of the table says, for a terminal that is too narrow for it."""
    id_, who, whose, which, why, age, expires, approvals, state = _row(case, now)
    lines = [id_, *_quote("who", f"{who} asks for keys of {whose}: {which}"), *_quote("why", why or "-")]
    lines.append(_fact("asked", f"{age} ago, expires {expires}"))
    return "\n".join([*lines, _fact("approvals", approvals), *_quote("state", state)])


def _which(case: "Case") -> str:
    request = case.request
    if request is None:
        return "-"
    records = request.records or []
    which = records[0] if len(records) == 1 else f"{len(records)} records"
    if request.name is not None:
        which = legible(request.name)
    if request.unwrap:
        which += " (unwrapped)"
    if request.destination is not None:
        which += f" (moved to {request.destination.principal} at {request.destination.authority})"
    return which


def _approvals(case: "Case") -> str:
    if not case.approvals and case.state.value != "pending":
        return "-"
    names = ", ".join(each.officer for each in case.approvals)
    return f"{len(case.approvals)}/{case.needed} {names}".rstrip()


def words(case: "Case", now: int) -> list[str]:
    """Say everything about a request, for somebody who has to judge it."""
    lines = [f"request {case.id}"]
    if case.flaw:
        lines += _quote("NOT VERIFIED", f"{case.flaw}. Do not approve it; what follows is nobody's signed word.")
    request = case.request
    if request is not None:
        by = f", signed by key {case.signer}" if case.signer else ""
        lines.append(_fact("who asks", f"{request.requester} ({request.requester_kind.value}){by}"))
        lines.append(_fact("whose keys", request.principal))
        if request.name is not None:
            lines += _quote("which", f'the newest key named "{request.name}"')
        labels = ["which", *[""] * len(request.records or ())]
        lines += [_fact(*each) for each in zip(labels, request.records or (), strict=False)]
        lines += _quote("why", request.reason or "no reason given")
        lines += _wish(case)
        lines.append(_fact("expires", when(request.expires_at)))
    lines.append(_fact("digest", f"sha256:{case.digest}"))
    lines.append(
        _fact("asked", f"{when(case.asked_at)}, {lasting(now - case.asked_at)} ago; index {case.log_index}")
    )
    if case.not_before > case.asked_at:
        lines.append(_fact("not before", when(case.not_before)))
    lines.append(_fact("state", _state(case)))
    if case.veto is not None:
        lines += _quote("denied by", f"{case.veto.denier} ({case.veto.capacity.value}): {case.veto.reason}")
    if case.approvals or case.state.value == "pending":
        lines.append(_fact("approvals", f"{len(case.approvals)} of {case.needed} that are needed"))
    for each in case.approvals:
        why = f": {each.reason}" if each.reason else ""
        lines += _quote("", f"{each.officer}, until {when(each.expires_at)}{why}")
    for doubt in case.doubts:
        lines += _quote("", f"one does not count: {doubt}")
    return lines


def _wish(case: "Case") -> list[str]:
    """Say what would be handed out, and to which key: what an approval agrees to beside the records themselves."""
    request = case.request
    lines: list[str] = []
    if request is None:
        return lines
    if request.unwrap:
        lines += _quote("UNWRAP", "what other programs wrapped for the authority is opened for the requester")
    if request.destination is None:
        return [*lines, _fact("to the key", f"{case.recipient_key} (one-time key of the requester)")]
    there = request.destination
    lines += _quote("MOVED TO", f"{there.principal} at the authority {there.authority}, for good")
    return [*lines, _fact("to the key", f"{case.recipient_key} (sealing key of that authority)")]


def _state(case: "Case") -> str:
    code = f" ({case.code})" if case.code else ""
    decided = f" since {when(case.decided_at)}" if case.decided_at is not None else ""
    return f"{case.state.value}{code}{decided}"


def _fact(label: str, text: str) -> str:
    return f"  {label}".ljust(len(_INDENT)) + text


def _quote(label: str, text: str) -> list[str]:
    # Other people's words stay in their column, however long they are.
    width = min(_WIDTH_MAX, screen_columns() or _WIDTH_MAX) - len(_INDENT)
    from textwrap import wrap

    shown = wrap(legible(text), width=max(1, width), break_on_hyphens=False)
    return [_fact(label, line) if index == 0 else _fact("", line) for index, line in enumerate(shown)]


def _show(case: "Case", output: Output) -> None:
    if output.json:
        output.document("request", case.document())
        return
    output.line("\n".join(words(case, int(time.time()))))
    if case.state.value == "pending" and not case.flaw:
        output.line(f"next: `strongroom approve {case.id}` or `strongroom deny {case.id} --reason …`")
