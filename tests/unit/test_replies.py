"""Replies: the one shape that is read, and rejections that name the very message they answer (SPEC section 6)."""

import hashlib
import json
from base64 import b64encode
from typing import Any

import pytest
from tests.support import authority as make
from tests.support import requests as ask

from strongroom.errors import (
    Denied,
    MalformedStatement,
    PermanentError,
    RateLimited,
    Rejected,
    ReplyInvalid,
)
from strongroom.fields import new_id, parse_body
from strongroom.limits import REJECTION_CHARACTERS_MAX
from strongroom.messages import Rejection, Request
from strongroom.replies import REPLY_BYTES_MAX, Consistency, Reply, hint, parse_reply, rejection
from strongroom.statements import Signature, Statement

KEY = make.signing_key("recovery replies")
ROSTER = make.next_roster(make.roster())
ASKED = ask.request()


def rejected(error: PermanentError, *, request: str | None = None, received: bytes = b"message") -> Rejection:
    """The body of the rejection of a message; its signature by the worker's key is checked."""
    statement = rejection(error, roster=ROSTER, request=request, received=received, now=make.NOW, key=KEY)
    statement.verify_signature(KEY.public_key, KEY.key_id)
    return parse_body(statement, Rejection)


# ---- rejections ----


def test_a_rejection_says_what_was_refused_why_and_by_whose_roster() -> None:
    """Authority and version come from the roster in force, code and words from the error."""
    request = parse_body(ASKED, Request).id
    received = ASKED.envelope()
    assert rejected(Denied("principal: not yours"), request=request, received=received) == Rejection(
        authority=make.AUTHORITY,
        request=request,
        digest=hashlib.sha256(received).hexdigest(),
        roster_version=2,
        code="denied",
        message="principal: not yours",
        rejected_at=make.NOW,
        retry_at=None,
    )


def test_a_rejection_names_the_message_with_its_signatures() -> None:
    """The same statement under a tampered signature is another message: its rejection is no answer to the first."""
    spoilt = Statement(ASKED.type, ASKED.body, (Signature(ASKED.signatures[0].key_id, bytes(64)),))
    assert spoilt.digest == ASKED.digest
    digests = {rejected(Denied("no"), received=each.envelope()).digest for each in (ASKED, spoilt)}
    assert digests == {hashlib.sha256(each.envelope()).hexdigest() for each in (ASKED, spoilt)}
    assert len(digests) == 2
    assert ASKED.digest.hex() not in digests


@pytest.mark.parametrize("received", [b"", b"\xff\xfe", b"{}"], ids=repr)
def test_what_could_not_be_read_is_named_by_its_bytes_alone(received: bytes) -> None:
    """There is no id to name, and the digest is of whatever bytes came."""
    body = rejected(MalformedStatement("envelope: is no JSON"), received=received)
    assert (body.request, body.digest) == (None, hashlib.sha256(received).hexdigest())


def test_a_rejection_says_when_to_come_back() -> None:
    """The time that the error knows is signed with it; most errors know none."""
    assert rejected(RateLimited("requests: too many", retry_at=make.NOW + 60)).retry_at == make.NOW + 60
    assert rejected(RateLimited("requests: too many")).retry_at is None


@pytest.mark.parametrize("error", [each for each in PermanentError.__subclasses__() if each is not Rejected])
def test_every_permanent_error_can_be_said(error: type[PermanentError]) -> None:
    """The code on the wire is the error's own."""
    assert rejected(error("field: what is wrong")).code == error.code


def test_the_words_of_a_rejection_are_cut_and_cleaned() -> None:
    """Whatever an error repeats of its input, the answer is a body that every reader takes."""
    edge = "x" * REJECTION_CHARACTERS_MAX
    assert rejected(Denied(edge)).message == edge
    assert rejected(Denied(edge + "y")).message == edge
    assert rejected(Denied("a\nb\x00c\ud800d")).message == "a?b?c?d"


def test_a_rejection_keeps_the_hint_to_itself() -> None:
    """Hints speak to whoever runs the command that found the error; only the message crosses the wire."""
    statement = rejection(
        Denied("no", hint="hunter2-canary"), roster=ROSTER, request=new_id(), received=b"", now=make.NOW, key=KEY
    )
    assert b"hunter2" not in statement.body


# ---- the shape of a reply ----

RECEIPT = {"leaf": "", "proof": ""}
CONSISTENCY = {"from": 3, "hashes": [b64encode(b"h" * 32).decode()]}


def test_a_reply_is_read_as_it_was_written() -> None:
    """With all of its members, and with as few as there may be."""
    full = Reply(ASKED, RECEIPT, Consistency(3, (b"h" * 32,)), ROSTER.statement)
    for reply in (full, Reply(statement=ASKED), Reply(receipt=RECEIPT)):
        assert parse_reply(reply.to_bytes()) == reply


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"consistency": CONSISTENCY},
        {"roster": ROSTER.statement.document()},
        {"receipt": RECEIPT, "surprise": 1},
        {"receipt": []},
        {"statement": {}},
        {"statement": None},
        {"receipt": RECEIPT, "roster": {}},
        {"receipt": RECEIPT, "consistency": {"from": 3}},
        {"receipt": RECEIPT, "consistency": CONSISTENCY | {"to": 4}},
        {"receipt": RECEIPT, "consistency": {"from": True, "hashes": []}},
        {"receipt": RECEIPT, "consistency": {"from": "3", "hashes": []}},
        {"receipt": RECEIPT, "consistency": {"from": 3, "hashes": "YQ=="}},
        {"receipt": RECEIPT, "consistency": {"from": 3, "hashes": ["YR=="]}},
    ],
    ids=json.dumps,
)
def test_what_is_no_reply_is_refused(document: Any) -> None:
    """SPEC 6.1: known members only, a statement or a receipt among them, each in its shape."""
    with pytest.raises(ReplyInvalid, match=r"^reply: "):
        parse_reply(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b'{"receipt":{},"receipt":{}}'], ids=repr)
def test_bytes_that_are_no_json_object_are_refused(data: bytes) -> None:
    """Nor is one whose members are repeated."""
    with pytest.raises(ReplyInvalid, match=r"^reply: "):
        parse_reply(data)


def test_a_reply_has_a_limit() -> None:
    """The edge is read, a byte more is refused before anything is looked at."""
    data = Reply(receipt=RECEIPT).to_bytes()
    assert parse_reply(data.ljust(REPLY_BYTES_MAX)) == Reply(receipt=RECEIPT)
    with pytest.raises(ReplyInvalid, match="4194305 bytes, the limit is 4194304 bytes"):
        parse_reply(data.ljust(REPLY_BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("value", "expected"), [(7, 7), (0, 0), (-7, 0), (True, 0), ("7", 0), (7.0, 0), (None, 0), (b"8", 0)]
)
def test_a_hint_is_a_whole_number_or_counts_for_nothing(value: object, expected: int) -> None:
    """Whatever a sender puts into a header, or does not."""
    assert hint({"x-number": value}, "x-number") == expected
    assert hint({}, "x-number") == 0
