"""Requests, what officers say to them, and questions, for tests; signed as all is in `tests.support.authority`."""

from typing import Any

from tests.support import authority as make

from strongroom.audits import CoverageRequest, LogPageRequest
from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.fields import Capacity, new_id, parse_body
from strongroom.leaves import ApprovalLeaf, RequestLeaf
from strongroom.limits import REQUEST_LIFE_SECONDS_MAX
from strongroom.mandates import Approval, Denial
from strongroom.messages import DocketRequest, ListingRequest, Request
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


def docket_body(requester: str = "officer-a", **changes: Any) -> DocketRequest:
    """Return an officer's question for all requests that wait; members as given."""
    members: dict[str, Any] = _asking(requester) | {
        "requester_kind": Capacity.OFFICER,
        "principal": None,
        "request": None,
        "pending": True,
        "after": None,
    }
    return DocketRequest(**(members | changes))


def docket_request(requester: str = "officer-a", *, key: str | None = None, **changes: Any) -> Statement:
    """Return a question for the docket signed by `make.signing_key(key)`, by default that of the requester."""
    body = docket_body(requester, **changes)
    return make.signed(body, make.signing_key(key or body.requester))


def coverage_body(requester: str = "officer-a", **changes: Any) -> CoverageRequest:
    """Return an officer's question for the coverage of the fleet; members as given."""
    members: dict[str, Any] = {"silent_days": 14, "after": None}
    return CoverageRequest(**(_officer_asking(requester) | members | changes))


def coverage_request(requester: str = "officer-a", *, key: str | None = None, **changes: Any) -> Statement:
    """Return a question for the coverage signed by `make.signing_key(key)`, by default that of the requester."""
    body = coverage_body(requester, **changes)
    return make.signed(body, make.signing_key(key or body.requester))


def log_page_body(requester: str = "officer-a", **changes: Any) -> LogPageRequest:
    """Return an officer's question for the first leaves of the escrow log; members as given."""
    members: dict[str, Any] = {"log": "escrow", "first": 0}
    return LogPageRequest(**(_officer_asking(requester) | members | changes))


def log_page_request(requester: str = "officer-a", *, key: str | None = None, **changes: Any) -> Statement:
    """Return a question for a log page signed by `make.signing_key(key)`, by default that of the requester."""
    body = log_page_body(requester, **changes)
    return make.signed(body, make.signing_key(key or body.requester))


# ---- what is said to a request ----


def approval_body(asked: Statement, officer: str = "officer-a", **changes: Any) -> Approval:
    """Return an officer's approval, a day long, of exactly this request; members as given."""
    members: dict[str, Any] = {
        "authority": make.AUTHORITY,
        "id": new_id(),
        "issued_at": make.NOW,
        "expires_at": make.NOW + make.DAY,
        "officer": officer,
        "request": parse_body(asked, Request).id,
        "request_digest": asked.digest.hex(),
        "reason": "spoke with the owner",
    }
    return Approval(**(members | changes))


def approval(asked: Statement, officer: str = "officer-a", *, key: str | None = None, **changes: Any) -> Statement:
    """Return an approval signed by `make.signing_key(key)`, by default that of the officer."""
    return make.signed(approval_body(asked, officer, **changes), make.signing_key(key or officer))


def denial_body(asked: Statement, denier: str = "officer-a", **changes: Any) -> Denial:
    """Return an officer's denial of exactly this request; members as given."""
    members: dict[str, Any] = {
        "authority": make.AUTHORITY,
        "id": new_id(),
        "issued_at": make.NOW,
        "denier": denier,
        "denier_kind": Capacity.OFFICER,
        "request": parse_body(asked, Request).id,
        "request_digest": asked.digest.hex(),
        "reason": "nobody here asked for this",
    }
    return Denial(**(members | changes))


def denial(asked: Statement, denier: str = "officer-a", *, key: str | None = None, **changes: Any) -> Statement:
    """Return a denial signed by `make.signing_key(key)`, by default that of the denier."""
    return make.signed(denial_body(asked, denier, **changes), make.signing_key(key or denier))


# ---- log leaves ----


def request_leaf(statement: Statement, **changes: Any) -> bytes:
    """Return the recovery log's leaf of a request; members as given."""
    body = parse_body(statement, Request)
    members: dict[str, Any] = {
        "time": make.NOW,
        "id": body.id,
        "digest": statement.digest.hex(),
        "requester": body.requester,
        "requester_kind": body.requester_kind,
        "key": statement.signatures[0].key_id,
        "principal": body.principal,
    }
    return RequestLeaf(**(members | changes)).to_bytes()


def approval_leaf(statement: Statement, **changes: Any) -> bytes:
    """Return the recovery log's leaf of an approval; members as given."""
    body = parse_body(statement, Approval)
    members: dict[str, Any] = {
        "time": make.NOW,
        "id": body.id,
        "digest": statement.digest.hex(),
        "officer": body.officer,
        "key": statement.signatures[0].key_id,
        "request": body.request,
    }
    return ApprovalLeaf(**(members | changes)).to_bytes()


def _officer_asking(officer: str) -> dict[str, Any]:
    members = _asking(officer) | {"requester_kind": Capacity.OFFICER}
    del members["principal"]
    return members


def _asking(principal: str) -> dict[str, Any]:
    return {
        "authority": make.AUTHORITY,
        "id": new_id(),
        "issued_at": make.NOW,
        "expires_at": make.NOW + REQUEST_LIFE_SECONDS_MAX,
        "requester": principal,
        "requester_kind": Capacity.PRINCIPAL,
        "principal": principal,
    }
