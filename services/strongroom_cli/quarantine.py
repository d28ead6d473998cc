"""Commands for the quarantine: list, show, requeue, drop."""

import json
from typing import TYPE_CHECKING

import rich_click as click

from strongroom.errors import NotFound
from strongroom_cli.broker import operator_connection
from strongroom_cli.options import output_option
from strongroom_cli.output import Output, carry_out

if TYPE_CHECKING:
    from strongroom.broker import Quarantined

_LOOK_MAX = 10_000


@click.group()
def quarantine() -> None:
    """Look after messages that no worker could accept. Needs STRONGROOM_OPERATOR_BROKER_URL (or _FILE).

    Nothing is lost that lies here: it stays until you requeue or drop it.
    """


@quarantine.command("list")
@click.option("--limit", type=click.IntRange(1, _LOOK_MAX), default=100, show_default=True)
@output_option
def list_(limit: int, output: Output) -> None:
    """List quarantined messages with the reason, the longest quarantined first.

    Example: `strongroom quarantine list`
    """
    found = carry_out("Looking", _peek(limit))
    if output.json:
        output.document("quarantine", {"messages": [_document(each) for each in found]})
        return
    if not found:
        output.line("the quarantine is empty")
        return
    rows = [
        (each["id"], each["code"], each["routing_key"], each["bytes"], each["since"] or "-", each["reason"])
        for each in map(_document, found)
    ]
    output.table(["id", "code", "routing key", "bytes", "since", "reason"], rows)


@quarantine.command("show")
@click.argument("message")
@output_option
def show(message: str, output: Output) -> None:
    """Show one message: its envelope and, if it can be read, the body of its statement. Nothing in it is trusted.

    Example: `strongroom quarantine show 0f3c9a77b1d2e4f5`
    """
    from strongroom import broker

    async def run() -> "Quarantined | None":
        async with operator_connection() as connection:
            return await broker.find(connection, message)

    found = carry_out("Looking", run())
    if found is None:
        raise _missing({message})
    document = {**_document(found), "type": None, "signed_by": [], "body": None}
    document.update(_statement(found.body))
    if output.json:
        output.document("quarantined", document)
        return
    for name in ("id", "code", "reason", "routing_key", "since", "message_id", "bytes", "type"):
        output.line(f"{name:12} {document[name]}")
    output.line(json.dumps(document["body"], indent=2, default=str))


def _statement(body: bytes) -> dict[str, object]:
    from strongroom.errors import PermanentError
    from strongroom.statements import parse_envelope, parse_json

    try:
        statement = parse_envelope(body)
        parsed = parse_json(statement.body, what="body")
    except PermanentError as error:
        return {"body": f"cannot be read: {error.message}"}
    return {"type": statement.type, "signed_by": [s.key_id for s in statement.signatures], "body": parsed}


@quarantine.command("requeue")
@click.argument("messages", nargs=-1, required=True)
@output_option
def requeue(messages: tuple[str, ...], output: Output) -> None:
    """Give messages back to the workers, for example after what was wrong has been mended.

    Each is confirmed by the broker before it leaves the quarantine.

    Example: `strongroom quarantine requeue 0f3c9a77b1d2e4f5`
    """
    from strongroom import broker

    async def run() -> frozenset[str]:
        async with operator_connection() as connection:
            return await broker.requeue(connection, messages)

    _report("requeued", messages, carry_out("Requeueing", run()), output)


@quarantine.command("drop")
@click.argument("messages", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@output_option
def drop(messages: tuple[str, ...], yes: bool, output: Output) -> None:
    """Remove messages for good. The sender's own spool still has what it got no receipt for.

    Example: `strongroom quarantine drop --yes 0f3c9a77b1d2e4f5`
    """
    from strongroom import broker

    if not yes:
        click.confirm(f"Drop {len(messages)} quarantined message(s) for good?", abort=True, err=True)

    async def run() -> frozenset[str]:
        async with operator_connection() as connection:
            return await broker.drop(connection, messages)

    _report("dropped", messages, carry_out("Dropping", run()), output)


async def _peek(limit: int) -> "list[Quarantined]":
    from strongroom import broker

    async with operator_connection() as connection:
        return await broker.peek(connection, limit)


def _document(each: "Quarantined") -> dict[str, object]:
    from strongroom.fields import printable

    return {
        "id": each.id,
        "code": each.code,
        "reason": each.reason,
        "routing_key": printable(each.routing_key),
        "message_id": printable(each.message_id or ""),
        "since": each.quarantined_at.isoformat() if each.quarantined_at else None,
        "bytes": len(each.body),
    }


def _report(verb: str, wanted: tuple[str, ...], done: frozenset[str], output: Output) -> None:
    if output.json:
        output.document("quarantine", {verb: sorted(done)})
    for message in sorted(done):
        output.line(f"{verb} {message}")
    if missing := set(wanted) - done:
        raise _missing(missing)


def _missing(ids: set[str]) -> NotFound:
    return NotFound(
        f"not in the quarantine: {', '.join(sorted(ids))}", hint="`strongroom quarantine list` shows what is"
    )
