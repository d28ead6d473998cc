"""Requests and listing requests for tests, signed like everything in `tests.support.authority`."""

from typing import Any

from tests.support import authority as make

from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.limits import REQUEST_LIFE_SECONDS_MAX
from strongroom.messages import ListingRequest, Request, RequesterKind, new_id
from strongroom.statements import Statement


def recipient(suite: Suite = Suite.X_WING) -> PrivateSealingKey:
    """Return the requester's one-time key pair."""
    return make.sealing_key("one-time recipient", suite)


def request_body(principal: str = make.PRINCIPAL, **changes: Any) -> Request:
    """Return a principal's request for the newest of its own records named `disk/root`; members as given."""
    members: dict[str, Any] = _asking(principal) | {
        "records": None,
        "name": None if "records" in changes else "disk/root",
        "reason": "the disk died",
        "recipient_suite": Suite.X_WING,
        "recipient_key": recipient().public_key,
    }
    return Request(**(members | changes))


def request(principal: str = make.PRINCIPAL, *, key: str | None = None, **changes: Any) -> Statement:
    """Return a request signed by `make.signing_key(key)`, by default that of the requester."""
    body = request_body(principal, **changes)
    return make.signed(body, make.signing_key(key or body.requester))


def listing_body(principal: str = make.PRINCIPAL, **changes: Any) -> ListingRequest:
    """Return a principal's request for the list of its own records; members as given."""
    return ListingRequest(**(_asking(principal) | {"after": None} | changes))


def listing_request(principal: str = make.PRINCIPAL, *, key: str | None = None, **changes: Any) -> Statement:
    """Return a listing request signed by `make.signing_key(key)`, by default that of the requester."""
    body = listing_body(principal, **changes)
    return make.signed(body, make.signing_key(key or body.requester))


def _asking(principal: str) -> dict[str, Any]:
    return {
        "authority": make.AUTHORITY,
        "id": new_id(),
        "issued_at": make.NOW,
        "expires_at": make.NOW + REQUEST_LIFE_SECONDS_MAX,
        "requester": principal,
        "requester_kind": RequesterKind.PRINCIPAL,
        "principal": principal,
    }
