"""Commands that say something to what others ask for, or about a principal: approve, deny, revoke."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import UsageError
from strongroom_cli.arguments import check_key_id, check_principal
from strongroom_cli.options import home_option, output_option, passphrase_option, wait_option
from strongroom_cli.output import Output, ask, carry_out, check_can_ask, receipt, when
from strongroom_cli.requests import check_id, words

if TYPE_CHECKING:
    from strongroom_agent.agent import Recorded
    from strongroom_agent.cases import Case

_DAY_SECONDS = 86_400


@click.command()
@click.argument("request_id", metavar="ID")
@click.option("--reason", default="", help="Why you agree; it stays on record.")
@click.option(
    "--life",
    "life_days",
    type=click.FloatRange(0.01, 7),
    default=7.0,
    show_default=True,
    metavar="DAYS",
    help="How long the approval counts; never longer than the request.",
)
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal.")
@home_option
@passphrase_option
@wait_option(60.0)
@output_option
def approve(
    *,
    request_id: str,
    reason: str,
    life_days: float,
    yes: bool,
    home: Path,
    passphrase: Secret | None,
    wait_seconds: float,
    output: Output,
) -> None:
    """Agree to the request ID, as an officer with the role `approve` who is not the one who asks.

    Fetches the signed request itself, verifies it, shows it, asks, and signs over its digest: over who asks, for
    which records, why, until when, and for which key; whether what other programs wrapped is opened; and where keys
    are moved to. May be repeated: as long as the request waits, what you have approved already stays approved, and
    the exit code is 0.

    Example: `strongroom approve 019b2c7e-7a10-7c3e-9d57-1f4e6a0b8c21 --reason "ticket 4711"`
    """
    from strongroom_agent.agent import Agent

    check_id(request_id)
    check_can_ask(yes=yes)
    with Agent.open(home, passphrase=passphrase) as agent:
        agent.check_is_officer()
        case = carry_out("Asking the authority", agent.case(request_id, wait_seconds=wait_seconds))
        if agent.standing_approval(case) is not None:
            _tell_approved(case, None, output)
            return
        agent.check_approvable(case)
        if not (yes and output.json):
            click.echo("\n".join(words(case, int(time.time()))), err=True)
        ask(_question(case), yes=yes)
        work = agent.approve(
            case, reason=reason, life_seconds=int(life_days * _DAY_SECONDS), wait_seconds=wait_seconds
        )
        recorded = carry_out("Waiting for the receipt", work)
        _tell_approved(case, recorded, output)


def _question(case: "Case") -> str:
    request = case.request
    if request is not None and request.unwrap:
        return "Approve it, and with it that the wrapped keys are opened?"
    if request is not None and request.destination is not None:
        there = request.destination
        return (
            f"Approve it? The keys go to {there.principal} at {there.authority},"
            f" sealed to its key {case.recipient_key}."
        )
    return "Approve it?"


def _tell_approved(case: "Case", recorded: "Recorded | None", output: Output) -> None:
    there = len(case.approvals) + (recorded is not None)
    missing = max(0, case.needed - there)
    if output.json:
        output.document(
            "approval",
            {
                "request": case.id,
                "digest": case.digest,
                "repeated": recorded is None,
                **_recorded(recorded),
                "approvals": there,
                "needed": case.needed,
                "missing": missing,
            },
        )
        return
    if recorded is None:
        output.line(f"you have approved request {case.id} already: nothing was sent")
    else:
        output.line(f"approved request {case.id}")
        output.line(receipt("recovery", recorded.log_index, recorded.tree_size))
    output.line(f"  approvals   {there} of {case.needed}; {_outlook(case, missing)}")


def _outlook(case: "Case", missing: int) -> str:
    if missing:
        return f"{missing} missing"
    if case.not_before > time.time():
        return f"enough: the requester can fetch the key from {when(case.not_before)} on"
    return "enough: the requester can fetch the key now"


def _recorded(recorded: "Recorded | None") -> dict[str, object]:
    return {
        "id": recorded.id if recorded else None,
        "statement_digest": recorded.digest if recorded else None,
        "log_index": recorded.log_index if recorded else None,
        "tree_size": recorded.tree_size if recorded else None,
        "logged_at": recorded.time if recorded else None,
    }


@click.command()
@click.argument("request_id", metavar="ID")
@click.option("--reason", required=True, help="Why not; it stays on record.")
@home_option
@passphrase_option
@wait_option(60.0)
@output_option
def deny(
    *, request_id: str, reason: str, home: Path, passphrase: Secret | None, wait_seconds: float, output: Output
) -> None:
    """Forbid the request ID for good: as an officer, or on a host whose own records it asks for.

    Approvals do not help any more then; whoever still needs the key has to ask anew. May be repeated: a request
    that is denied already stays denied, and the exit code is 0.

    Example: `strongroom deny 019b2c7e-7a10-7c3e-9d57-1f4e6a0b8c21 --reason "nobody here asked for that"`
    """
    from strongroom_agent.agent import Agent

    check_id(request_id)
    if not reason.strip():
        raise UsageError("--reason: must say why; it stays on record")
    with Agent.open(home, passphrase=passphrase) as agent:
        case = carry_out("Asking the authority", agent.case(request_id, wait_seconds=wait_seconds))
        recorded = None
        if case.state.value != "denied":
            work = agent.deny(case, reason=reason, wait_seconds=wait_seconds)
            recorded = carry_out("Waiting for the receipt", work)
    if output.json:
        content = {"request": case.id, "digest": case.digest, "repeated": recorded is None, **_recorded(recorded)}
        output.document("denial", content)
    elif recorded is None:
        output.line(f"request {case.id} is denied already, since {when(case.decided_at)}: nothing was sent")
    else:
        output.line(f"denied request {case.id}{_gist(case)}: it is never answered with keys")
        output.line(receipt("recovery", recorded.log_index, recorded.tree_size))


def _gist(case: "Case") -> str:
    return f" of {case.request.requester} for keys of {case.request.principal}" if case.request else ""


@click.command()
@click.argument("principal")
@click.option(
    "--key", "key_id", metavar="KEY-ID", help="Only this key of it; default: the principal, all its keys."
)
@click.option("--reason", required=True, help="Why; it stays on record.")
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal.")
@home_option
@passphrase_option
@wait_option(60.0)
@output_option
def revoke(
    *,
    principal: str,
    key_id: str | None,
    reason: str,
    yes: bool,
    home: Path,
    passphrase: Secret | None,
    wait_seconds: float,
    output: Output,
) -> None:
    """End PRINCIPAL at once, as an officer with the role `revoke`: for a stolen or retired host.

    From then on nothing that it signs is taken and no key is given to it. What it escrowed before stays, and
    officers can recover it. Only an invitation that replaces, made afterwards, lets a host of that name in again.

    Example: `strongroom revoke laptop-0417 --reason "stolen on the train"`
    """
    from strongroom_agent.agent import Agent

    if not reason.strip():
        raise UsageError("--reason: must say why; it stays on record")
    check_principal("principal", principal)
    check_key_id("--key", key_id)
    check_can_ask(yes=yes)
    what = f"key {key_id} of {principal}" if key_id else f"{principal}, with all its keys"
    with Agent.open(home, passphrase=passphrase) as agent:
        agent.check_revoker()
        ask(f"Revoke {what}? There is no way back but a new invitation.", yes=yes)
        work = agent.revoke(principal, key=key_id, reason=reason, wait_seconds=wait_seconds)
        recorded = carry_out("Waiting for the receipt", work)
    if output.json:
        output.document("revocation", {"principal": principal, "key": key_id, **_recorded(recorded)})
        return
    output.line(f"revoked {what}")
    output.line(receipt("recovery", recorded.log_index, recorded.tree_size))
    output.line("  from now on escrow and recovery by it are refused; what it escrowed before stays recoverable")
    output.line(f"  to let it in again: `strongroom invite {principal} --replace`")
