"""Replies: what a worker answers and a sender reads (SPEC section 6). Pure."""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from strongroom.crypto.signing import SigningKey
from strongroom.errors import MalformedStatement, PermanentError, ReplyInvalid
from strongroom.fields import printable
from strongroom.limits import REJECTION_CHARACTERS_MAX
from strongroom.messages import Rejection
from strongroom.roster import Roster
from strongroom.statements import (
    Statement,
    canonical_json,
    decode_base64,
    parse_json,
    statement_from_document,
)

REPLY_BYTES_MAX: Final = 4_194_304  # a release, a receipt and a roster, each at most an envelope
TREE_SIZE_HEADER: Final = "x-strongroom-tree-size"
ROSTER_VERSION_HEADER: Final = "x-strongroom-roster-version"

_MEMBERS: Final = {"statement", "receipt", "consistency", "roster", "attached"}


def hint(headers: Mapping[str, object], name: str) -> int:
    """Return the number that a sender states in a header, and 0 for whatever is no whole number above it."""
    value = headers.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


@dataclass(frozen=True, slots=True)
class Consistency:
    """An RFC 6962 consistency proof from the tree of `from_size` leaves to that of the receipt's checkpoint."""

    from_size: int
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply. Nothing in it is verified: statements, receipts and rosters vouch for themselves.

    receipt: the JSON object of SPEC 6.3, as it stands, for `receipts.Receipt`. attached: statements that the answer
    speaks of.
    """

    statement: Statement | None = None
    receipt: Mapping[str, object] | None = None
    consistency: Consistency | None = None
    roster: Statement | None = None
    attached: tuple[Statement, ...] = ()

    def to_bytes(self) -> bytes:
        """Write the reply as the body of an AMQP message."""
        document: dict[str, object] = {}
        if self.statement is not None:
            document["statement"] = self.statement.document()
        if self.receipt is not None:
            document["receipt"] = self.receipt
        if self.consistency is not None:
            hashes = [b64encode(value).decode() for value in self.consistency.hashes]
            document["consistency"] = {"from": self.consistency.from_size, "hashes": hashes}
        if self.roster is not None:
            document["roster"] = self.roster.document()
        if self.attached:
            document["attached"] = [statement.document() for statement in self.attached]
        return canonical_json(document)


def parse_reply(data: bytes) -> Reply:
    """Read a reply strictly; raises ReplyInvalid, whatever is wrong with it."""
    if len(data) > REPLY_BYTES_MAX:
        raise ReplyInvalid(f"reply: {len(data)} bytes, the limit is {REPLY_BYTES_MAX} bytes")
    try:
        return _read(parse_json(data, what="reply"))
    except PermanentError as error:
        raise ReplyInvalid(f"reply: {error.message}") from None


def _read(document: object) -> Reply:
    if not isinstance(document, dict) or not document.keys() <= _MEMBERS:
        raise MalformedStatement("is no object of known members")
    if not {"statement", "receipt"} & document.keys():
        raise MalformedStatement("has neither statement nor receipt")
    receipt = document.get("receipt")
    if receipt is not None and not isinstance(receipt, dict):
        raise MalformedStatement("receipt is no object")
    return Reply(
        statement=_statement(document, "statement"),
        receipt=receipt,
        consistency=_consistency(document.get("consistency")),
        roster=_statement(document, "roster"),
        attached=_attached(document.get("attached", [])),
    )


def _statement(document: dict[str, object], member: str) -> Statement | None:
    return statement_from_document(document[member]) if member in document else None


def _attached(value: object) -> tuple[Statement, ...]:
    if not isinstance(value, list):
        raise MalformedStatement("attached is no list")
    return tuple(map(statement_from_document, value))


def _consistency(value: object) -> Consistency | None:
    if value is None:
        return None
    if not isinstance(value, dict) or value.keys() != {"from", "hashes"}:
        raise MalformedStatement("consistency: its members must be exactly from and hashes")
    from_size, hashes = value["from"], value["hashes"]
    if not isinstance(from_size, int) or isinstance(from_size, bool) or not isinstance(hashes, list):
        raise MalformedStatement("consistency: from must be an integer, hashes a list")
    return Consistency(from_size, tuple(decode_base64(entry, "consistency.hashes") for entry in hashes))


def rejection(
    error: PermanentError, *, roster: Roster, request: str | None, received: bytes, now: int, key: SigningKey
) -> Statement:
    """Say, signed, why a message was not accepted (SPEC 6.2).

    Arguments: `request` is the id of the statement if it could be read, `received` the message body as it came,
    which may not be what its sender signed; `now` in seconds; `key` the worker's reply-signing key.
    """
    body = Rejection(
        authority=roster.body.authority,
        request=request,
        digest=hashlib.sha256(received).hexdigest(),
        roster_version=roster.body.version,
        code=error.code,
        message=printable(error.message)[:REJECTION_CHARACTERS_MAX],
        rejected_at=now,
        retry_at=error.retry_at,
    )
    return Statement.sign(Rejection.TYPE, body.to_bytes(), key)
