"""One good body of every kind there is, and ways to change a value anywhere in it and to meet its limits."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import pytest
from tests.support import authority as make
from tests.support import requests as ask

from strongroom.audits import Counts, Coverage, Gap, GapState, LogEntry, LogPage, Proving
from strongroom.errors import LimitExceeded
from strongroom.fields import Body, Capacity, new_id, parse_body
from strongroom.mandates import (
    Expectation,
    ExpectedLabel,
    LogKey,
    LogKeys,
    Policy,
    RootChange,
    SealingKeyState,
    TransportKey,
)
from strongroom.messages import (
    Attestation,
    AttestedRecord,
    Destination,
    Disclosure,
    Docket,
    DocketEntry,
    HistoryEntry,
    ListedProof,
    ListedRecord,
    Listing,
    PendingRequest,
    RecordState,
    Rejection,
    Release,
    ReleasedRecord,
    RequestState,
    UnreadableRecord,
    WrappedFormat,
    Wrapping,
)
from strongroom.statements import Statement

DIGEST: Final = "0" * 64
_WRAPPING: Final = Wrapping(format=WrappedFormat.CRYPTOAPI_SIMPLE, padding="pkcs1", kid=DIGEST[:32], digest=DIGEST)
_DESCRIPTION: Final = make.record(wrapping=_WRAPPING).model_dump(
    include=set(ReleasedRecord.model_fields) - {"blob"}
)
_ANSWER: Final[dict[str, Any]] = {
    "authority": make.AUTHORITY,
    "request": new_id(),
    "request_digest": DIGEST,
    "roster_version": 1,
}
_REQUEST: Final = ask.request()
_OFFICER: Final[dict[str, Any]] = {"requester": "officer-a", "requester_kind": Capacity.OFFICER}


def _log(name: str) -> LogKey:
    keys = [make.signing_key(f"{prefix}{name} log").public_key for prefix in ("", "former ")]
    return LogKey(origin=f"{make.AUTHORITY}/{name}", public_key=keys[0], former=keys[1:])


BODIES: Final[dict[str, Body]] = {
    "roster": make.roster_body(
        logs=LogKeys(escrow=_log("escrow"), recovery=_log("recovery")),
        transport_keys=[TransportKey(kid=DIGEST[:32], public_key=b"key", state=SealingKeyState.ACTIVE)],
        root_changes=[b"envelope"],
        policy=Policy(
            expected=[Expectation(prefix="laptop-", label=ExpectedLabel(name="role", value="db"), names=["disk"])]
        ),
    ),
    "root-change": RootChange(
        authority=make.AUTHORITY,
        issued_at=make.NOW,
        former=make.signing_key("root").public_key,
        public_key=make.signing_key("next root").public_key,
    ),
    "invitation": make.invitation_body(),
    "invitation of many": make.invitation_body(prefix="laptop-", uses=50),
    "enrolment": make.enrolment_body(make.invitation()),
    "revocation": make.revocation_body(),
    "revocation of a key": make.revocation_body(key="0" * 32),
    "escrow": make.escrow_body(records=[make.record(wrapping=_WRAPPING)]),
    "request by ids": ask.request_body(records=[new_id(), new_id()]),
    "request by name": ask.request_body(),
    "request to move": ask.request_body(
        **_OFFICER,
        records=[new_id()],
        destination=Destination(authority="keys.example.net", principal="archive"),
    ),
    "listing-request": ask.listing_body(after=new_id()),
    "docket-request": ask.docket_body(principal=make.PRINCIPAL, request=new_id(), after=new_id()),
    "approval": ask.approval_body(_REQUEST),
    "denial": ask.denial_body(_REQUEST),
    "release": Release(
        **_ANSWER,
        released_at=make.NOW,
        records=[
            ReleasedRecord(
                **_DESCRIPTION,
                principal=make.PRINCIPAL,
                issued_at=make.NOW,
                blob=b"sealed",
                unwrapped=b"sealed",
                moved_fingerprint=DIGEST,
            )
        ],
        history=[HistoryEntry(id=new_id(), issued_at=make.NOW, fingerprint=DIGEST)],
    ),
    "listing": Listing(
        **_ANSWER,
        principal=make.PRINCIPAL,
        records=[
            ListedRecord(
                **_DESCRIPTION,
                issued_at=make.NOW,
                stored_at=make.NOW,
                statement=new_id(),
                supersedes=[new_id()],
                log_index=0,
                state=RecordState.DISCLOSED,
                proof=0,
                proven_at=make.NOW,
                code="blob_invalid",
                attested_at=make.NOW,
                disclosure=Disclosure(request=new_id(), **_OFFICER, released_at=make.NOW, reason="the owner left"),
                replace_by=make.NOW,
            )
        ],
        unreadable=[UnreadableRecord(id=new_id(), code="proof_invalid")],
        proofs=[ListedProof(index=0, leaf=b"leaf", hashes=[b"h" * 32])],
        pending=[
            PendingRequest(
                request=new_id(),
                digest=DIGEST,
                **_OFFICER,
                asked_at=make.NOW,
                not_before=make.NOW,
                reason="the owner left",
            )
        ],
        next=None,
    ),
    "docket": Docket(
        **_ANSWER,
        entries=[
            DocketEntry(
                id=new_id(),
                digest=DIGEST,
                asked_at=make.NOW,
                log_index=0,
                request=b"envelope",
                enrolment=b"envelope",
                roster=b"envelope",
                approvals=[b"envelope"],
                denial=b"envelope",
                needed=2,
                not_before=make.NOW,
                state=RequestState.REFUSED,
                code="denied",
                decided_at=make.NOW,
            )
        ],
        invitations=[b"envelope"],
        next=None,
    ),
    "attestation": Attestation(
        authority=make.AUTHORITY,
        id=new_id(),
        issued_at=make.NOW,
        principal=make.PRINCIPAL,
        records=[AttestedRecord(id=new_id(), fingerprint=DIGEST, matches=True)],
    ),
    "coverage-request": ask.coverage_body(after=make.PRINCIPAL),
    "coverage": Coverage(
        **_ANSWER,
        as_of=make.NOW,
        proving=Proving(size=1, backlog=0, oldest_at=make.NOW),
        counts=Counts(
            principals=1,
            silent=0,
            missing=0,
            stored=0,
            proven=0,
            unprovable=1,
            stale=0,
            disclosed=0,
            overdue=0,
        ),
        gaps=[
            Gap(
                principal=make.PRINCIPAL,
                state=GapState.UNPROVABLE,
                name="disk/root",
                record=new_id(),
                since=make.NOW,
                code="blob_invalid",
            )
        ],
        next=make.PRINCIPAL,
    ),
    "log-page-request": ask.log_page_body(),
    "log-page": LogPage(
        **_ANSWER,
        log="escrow",
        checkpoint=b"note",
        entries=[
            LogEntry(
                index=0, leaf=b"leaf", nodes=[b"h" * 32, None], statement=True, rows=[new_id()], has_release=False
            )
        ],
    ),
    "rejection": Rejection(
        authority=make.AUTHORITY,
        request=None,
        digest=DIGEST,
        roster_version=1,
        code="malformed",
        message="why",
        rejected_at=make.NOW,
        retry_at=make.NOW,
    ),
}
DOCUMENTS: Final[dict[str, dict[str, Any]]] = {name: body.model_dump(mode="json") for name, body in BODIES.items()}

Path = tuple[str | int, ...]


class Place(NamedTuple):
    """Where in which kind of body a value stands."""

    kind: str
    path: Path

    def __str__(self) -> str:
        """Name it as errors do, after the kind of body."""
        return f"{self.kind}: {'.'.join(map(str, self.path)) or 'body'}"

    def changed(self, value: object) -> bytes:
        """Return the body with this value there; `...` takes the member away."""
        document = copy.deepcopy(DOCUMENTS[self.kind])
        if not self.path:
            return json.dumps(value).encode()
        holder: Any = document
        for step in self.path[:-1]:
            holder = holder[step]
        if value is ...:
            del holder[self.path[-1]]
        else:
            holder[self.path[-1]] = value
        return json.dumps(document).encode()

    def value(self) -> Any:
        """Return what stands there in the good body."""
        value: Any = DOCUMENTS[self.kind]
        for step in self.path:
            value = value[step]
        return value


def parse(kind: str, data: bytes) -> Body:
    """Parse body bytes as the kind of statement that they are; no signature is looked at."""
    model = type(BODIES[kind])
    return parse_body(Statement(model.TYPE, data, ()), model)


def _places(value: object, path: Path = ()) -> Iterator[Path]:
    yield path
    steps: list[str | int] = []
    if isinstance(value, dict):
        steps = list(value)
    elif isinstance(value, list):
        steps = list(range(len(value)))
    for step in steps:
        yield from _places(value[step], (*path, step))  # type: ignore[index]  # a dict or a list, see above


EVERYWHERE: Final = [Place(kind, path) for kind, document in DOCUMENTS.items() for path in _places(document)]


# ---- limits ----


def text_of(length: int) -> str:
    """Return text of so many characters, each of four bytes in UTF-8: limits count characters."""
    return "\U0001f511" * length


def ids_of(count: int) -> list[str]:
    """Return so many distinct ids."""
    return [new_id() for _ in range(count)]


def copies_of(kind: str, *members: str) -> Callable[[int], list[Any]]:
    """Return a maker of lists of so many entries like the one in the good body, with distinct ids if it has one."""
    entry = Place(kind, (*members, 0)).value()
    if isinstance(entry, dict) and "id" in entry:
        return lambda count: [entry | {"id": new_id()} for _ in range(count)]
    return lambda count: [entry] * count


class Limit(NamedTuple):
    """A limit: where it holds, how to make a value of some size, the smallest and largest size, and its unit."""

    place: Place
    make: Callable[[int], object]
    smallest: int
    largest: int
    unit: str

    def __str__(self) -> str:
        """Name the place and both ends."""
        return f"{self.place} {self.smallest} to {self.largest}"

    def assert_accepts(self, size: int) -> None:
        """Fail unless a value of this size is read."""
        parse(self.place.kind, self.place.changed(self.make(size)))

    def assert_refuses(self, size: int) -> None:
        """Fail unless a value of this size is refused in words that name the field and the limit it breaks."""
        edge = f"at most {self.largest}" if size > self.largest else f"at least {self.smallest}"
        expected = f"{'.'.join(map(str, self.place.path))}: the limit is {edge} {self.unit}".rstrip()
        with pytest.raises(LimitExceeded) as caught:
            parse(self.place.kind, self.place.changed(self.make(size)))
        assert caught.value.message == expected
