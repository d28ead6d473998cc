"""Requests on the fake authority's docket, and dockets that its worker should not have signed."""

from collections.abc import Callable, Mapping
from typing import Any

from tests.support.agents import NOW

from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.crypto.signing import SigningKey
from strongroom.fields import Capacity, new_id, parse_body
from strongroom.limits import APPROVED_REQUEST_LIFE_SECONDS_MAX
from strongroom.messages import Docket, Request
from strongroom.replies import Reply
from strongroom.statements import Statement
from strongroom.testing import FakeAuthority, FakeMessage
from strongroom.testing.docket import FakeCase
from strongroom_agent.home import Home
from strongroom_agent.identity import signing_key


def asked_by_officer(
    authority: FakeAuthority, name: str, *, key: SigningKey | None = None, **changes: Any
) -> FakeCase:
    """Put on the docket an officer's request for the disk key of laptop-0417; members as given.

    `key` is the officer's, when the authority does not hold it itself.
    """
    members = {"requester": name, "requester_kind": Capacity.OFFICER, "reason": "ticket 4711"}
    return _asked(authority, key or authority.officers[name], **(members | changes))


def asked_by_host(authority: FakeAuthority, home: Home, **changes: Any) -> FakeCase:
    """Put on the docket the request of an enrolled host for its own disk key; members as given."""
    name = home.config.name
    members = {"requester": name, "requester_kind": Capacity.PRINCIPAL, "principal": name}
    return _asked(authority, signing_key(home, None), **(members | changes))


def _asked(authority: FakeAuthority, key: SigningKey, **changes: Any) -> FakeCase:
    recipient = PrivateSealingKey.generate(Suite.X_WING)
    members: dict[str, Any] = {
        "authority": authority.name,
        "id": new_id(),
        "issued_at": NOW,
        "expires_at": NOW + APPROVED_REQUEST_LIFE_SECONDS_MAX,
        "principal": "laptop-0417",
        "records": None,
        "name": None if "records" in changes else "disk",
        "reason": "",
        "recipient_suite": recipient.suite,
        "recipient_key": recipient.public_key,
    }
    request = Request(**(members | changes))
    return authority.workers.docket.asked(request, Statement.sign(Request.TYPE, request.to_bytes(), key))


def restated(
    authority: FakeAuthority, changes: Mapping[str, Any] | None = None, *, key: SigningKey | None = None
) -> Callable[[FakeMessage, Reply], Reply]:
    """Change members of the docket in every answer; sign it as a dishonest worker could, or with another key."""

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        assert reply.statement is not None
        body = parse_body(reply.statement, Docket).model_copy(update=dict(changes or {}))
        statement = Statement.sign(Docket.TYPE, body.to_bytes(), key or authority.recovery_reply_key)
        return Reply(statement=statement, roster=reply.roster)

    return alter
