"""A roster, as a page for people or a document for programs."""

import json
import time
from base64 import b64encode
from typing import TYPE_CHECKING

from strongroom_cli.output import Output, legible, when
from strongroom_cli.policy import POLICY
from strongroom_cli.reseal import show_counts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from strongroom.mandates import RosterBody
    from strongroom.roster import Roster
    from strongroom_recovery.reseal.counting import KeyCount


def say_roster(roster: "Roster", output: Output, counts: "list[KeyCount] | None" = None) -> None:
    """Show a verified roster; first the id of the root key that signed it, to be compared; and records by key."""
    from strongroom.crypto.signing import key_id
    from strongroom.roster_words import expectation_text

    body, root_key = roster.body, roster.root_key
    if output.json:
        output.document(
            "roster",
            {
                "root_key": b64encode(root_key).decode(),
                "root_key_id": key_id(root_key),
                "digest": roster.digest.hex(),
                **json.loads(body.to_bytes()),
                **({} if counts is None else {"counts": [each.document() for each in counts]}),
            },
        )
        return
    expired = " (EXPIRED)" if body.expires_at < time.time() else ""
    output.line(f"authority {body.authority}: roster version {body.version}, signed by root key {key_id(root_key)}")
    output.line(f"  valid       {when(body.issued_at)} to {when(body.expires_at)}{expired}")
    for former in reversed(roster.root_keys[:-1]):
        output.line(f"  former root {key_id(former)}")
    for key in body.sealing_keys:
        output.line(f"  sealing key {key.kid}  {key.suite.value}  {key.state.value}")
    for transport in body.transport_keys:
        output.line(f"  transport   {transport.kid}  rsa  {transport.state.value}")
    for line in _workers_keys(body):
        output.line(f"  {line}")
    for each in body.officers:
        output.line(f"  officer     {each.name}  key {key_id(each.public_key)}  {', '.join(each.roles) or '-'}")
    for word, (member, *_) in POLICY.items():
        output.line(f"  policy      {word} {getattr(body.policy, member)}")
    for expected in map(expectation_text, body.policy.expected):
        output.line(f"  expected    {legible(expected)}")
    if counts is not None:
        show_counts(counts, output)


def _workers_keys(body: "RosterBody") -> "Iterator[str]":
    from strongroom.crypto.signing import key_id

    for log in (body.logs.escrow, body.logs.recovery):
        yield f"log         {log.origin}  key {key_id(log.public_key)}"
        for public_key in reversed(log.former):
            yield f"former key  {log.origin}  key {key_id(public_key)}"
    for worker, public_key in (("escrow", body.replies.escrow), ("recovery", body.replies.recovery)):
        yield f"replies     {worker} worker  key {key_id(public_key)}"
