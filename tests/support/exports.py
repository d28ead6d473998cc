"""Two logs with everything that they name, made without a server: to be exported, shown in pages, and spoilt."""

import json
from base64 import b64decode
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.tile_builder import TileBuilder

from strongroom.audits import LogEntry, LogPage, LogPageRequest
from strongroom.crypto import notes
from strongroom.crypto.signing import SigningKey
from strongroom.crypto.tlog import Frontier, Node, append, leaf_hash
from strongroom.errors import Denied
from strongroom.fields import Capacity, new_id, parse_body
from strongroom.leaves import (
    ApprovalLeaf,
    AttestationLeaf,
    DenialLeaf,
    EnrolmentLeaf,
    EscrowLeaf,
    InvitationLeaf,
    ProofLeaf,
    RefusalLeaf,
    ReleaseLeaf,
    RequestLeaf,
    ResealLeaf,
    RetirementLeaf,
    RevocationLeaf,
    RosterLeaf,
    Unprovable,
)
from strongroom.mandates import Approval, Denial, Enrolment, Invitation, Policy, Revocation
from strongroom.messages import Attestation, Escrow, Request
from strongroom.replies import Reply, rejection
from strongroom.statements import Statement, canonical_json, parse_envelope
from strongroom.testing import FakeTrust
from strongroom.tiles import entries_path

NOW = 1_800_000_000
DAY = 86_400


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self, seconds: int = NOW) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        """Give the time in seconds since 1970."""
        return self.seconds


@dataclass(slots=True)
class Row:
    """A place of a log as the database has it; `beside` are the record ids, or whether there is a release."""

    leaf: bytes | None
    statement: Statement | None
    beside: Any


@dataclass(slots=True)
class Log:
    """One log: rows, stored nodes, and the key that signs its checkpoints."""

    name: str
    origin: str
    key: SigningKey
    rows: list[Row] = field(default_factory=list)
    nodes: dict[Node, bytes | None] = field(default_factory=dict)
    frontier: Frontier = field(default_factory=Frontier.empty)
    sealed: str | None = None

    def append(self, leaf: bytes, statement: Statement | None, beside: Any) -> int:
        """Append a leaf and return its index."""
        self.frontier, completed = append(self.frontier, [leaf])
        self.nodes.update(completed)
        self.rows.append(Row(leaf, statement, beside))
        return len(self.rows) - 1

    def rebuilt(self) -> "Log":
        """Return the log that has the leaves as they are now, signed anew: what the owner of its key can make."""
        log = Log(self.name, self.origin, self.key)
        for row in self.rows:
            log.append(row.leaf or b"", row.statement, row.beside)
        return log

    def checkpoint(self, size: int | None = None) -> str:
        """Return the signed checkpoint of the first `size` leaves, or of all."""
        if size is None and self.sealed is not None:
            return self.sealed
        frontier = self.frontier
        if size is not None:
            frontier, _ = append(Frontier.empty(), [row.leaf or b"" for row in self.rows[:size]])
        checkpoint = notes.Checkpoint(self.origin, frontier.size, frontier.root())
        return notes.sign_checkpoint(checkpoint, self.key.sign, self.key.public_key)


class Authority(FakeTrust):
    """The keys of an authority and two logs, `escrow` and `recovery`; each method puts a leaf on the record.

    Every method returns the index of its leaf or what it made. `time` is that of the next leaves.
    """

    def __init__(self, *, policy: Policy | None = None, first_roster: bool = True) -> None:
        """Make all keys; the recovery log begins with the roster."""
        self.clock = Clock()
        super().__init__(clock=self.clock, policy=policy)
        self.escrow = Log("escrow", self.escrow_log.origin, self.escrow_log.key)
        self.recovery = Log("recovery", self.recovery_log.origin, self.recovery_log.key)
        self.keys: dict[str, SigningKey] = {}
        self.received: list[LogPageRequest] = []
        self.alter: Callable[[LogPage], LogPage] = _unaltered
        self.page_leaves_max = 256
        if first_roster:
            self.log_roster()

    @property
    def logs(self) -> Mapping[str, Log]:
        """Both logs by name."""
        return {"escrow": self.escrow, "recovery": self.recovery}

    # ---- standing ----

    def log_roster(self) -> int:
        """Put the roster in force on the record."""
        leaf = RosterLeaf(time=self.now, version=self.roster.body.version, digest=self.roster.digest.hex())
        return self._log(leaf, self.roster.statement)

    def enrol(self, principal: str, *, replaces: bool = False, **changed: Any) -> SigningKey:
        """Enrol a principal with a new key, by an invitation of its own or `invitation`, with its key."""
        key = changed.pop("signing_key", None) or SigningKey.generate()
        invitation, one_time = changed.pop("invitation", None) or self.invite(principal, replaces=replaces)
        body = Enrolment(
            authority=self.name,
            id=new_id(),
            issued_at=self.now,
            principal=principal,
            signing_key=key.public_key,
            invitation=invitation.envelope(),
        )
        statement = Statement.sign(Enrolment.TYPE, body.to_bytes(), key, one_time)
        leaf = EnrolmentLeaf(
            time=self.now,
            id=body.id,
            digest=statement.digest.hex(),
            principal=principal,
            key=key.key_id,
            invitation=parse_body(invitation, Invitation).id,
        ).model_copy(update=changed)
        self._log(leaf, statement)
        self.keys[principal] = key
        return key

    def invite(
        self,
        principal: str | None,
        *,
        replaces: bool = False,
        signers: Sequence[str] | None = None,
        prefix: str | None = None,
        uses: int = 1,
    ) -> tuple[Statement, SigningKey]:
        """Sign an invitation; return it with its one-time key."""
        file = self.invitation_file(principal, prefix=prefix, uses=uses, replaces=replaces, signers=signers)
        document = json.loads(file)
        from strongroom.crypto.secret import Secret

        invitation = parse_envelope(canonical_json(document["invitation"]))
        return invitation, SigningKey.from_seed(Secret(b64decode(document["one_time_key"])))

    def collect(self, invitation: Statement, officers: Sequence[str]) -> int:
        """Put a partly signed invitation on the record."""
        body = parse_body(invitation, Invitation)
        leaf = InvitationLeaf(
            time=self.now,
            id=body.id,
            digest=invitation.digest.hex(),
            principal=body.principal or "",
            officers=list(officers),
        )
        return self._log(leaf, invitation)

    def revoke(self, principal: str, *, officer: str = "officer-1", key: str | None = None) -> int:
        """Revoke a principal or a key of it."""
        body = Revocation(
            authority=self.name,
            id=new_id(),
            issued_at=self.now,
            officer=officer,
            principal=principal,
            key=key,
            reason="lost",
        )
        statement = Statement.sign(Revocation.TYPE, body.to_bytes(), self.officers[officer])
        leaf = RevocationLeaf(
            time=self.now,
            id=body.id,
            digest=statement.digest.hex(),
            officer=officer,
            principal=principal,
            key=key,
        )
        return self._log(leaf, statement)

    # ---- escrow ----

    def store(self, principal: str, *names: str, key: SigningKey | None = None, time: int | None = None) -> Escrow:
        """Escrow a record under each name; return the statement's body."""
        body = Escrow.model_validate(
            {
                "authority": self.name,
                "id": new_id(),
                "issued_at": self.now,
                "principal": principal,
                "records": [_record(name, self.sealing_keys[0].kid) for name in names or ("disk",)],
            }
        )
        self.store_statement(body, key or self.keys[principal], time=time)
        return body

    def store_statement(self, body: Escrow, key: SigningKey, *, time: int | None = None) -> int:
        """Put an escrow statement on the record, signed by this key."""
        statement = Statement.sign(Escrow.TYPE, body.to_bytes(), key)
        leaf = EscrowLeaf(
            time=self.now if time is None else time,
            id=body.id,
            digest=statement.digest.hex(),
            principal=body.principal,
            key=key.key_id,
        )
        return self.escrow.append(leaf.to_bytes(), statement, [record.id for record in body.records])

    # ---- recovery ----

    def ask(
        self,
        requester: str,
        principal: str,
        *,
        records: list[str] | None = None,
        name: str | None = None,
        life: int = 300,
        key: SigningKey | None = None,
        unwrap: bool = False,
    ) -> Statement:
        """Put a request on the record, an officer's if the requester is one; return its statement."""
        is_officer = requester in self.officers
        body = Request(
            authority=self.name,
            id=new_id(),
            issued_at=self.now,
            expires_at=self.now + life,
            requester=requester,
            requester_kind=Capacity.OFFICER if is_officer else Capacity.PRINCIPAL,
            principal=principal,
            records=records,
            name=name,
            reason="ticket",
            recipient_suite=self.sealing_keys[0].suite,
            recipient_key=self.sealing_keys[0].public_key,
            unwrap=unwrap,
        )
        signer = key or (self.officers if is_officer else self.keys)[requester]
        statement = Statement.sign(Request.TYPE, body.to_bytes(), signer)
        leaf = RequestLeaf(
            time=self.now,
            id=body.id,
            digest=statement.digest.hex(),
            requester=requester,
            requester_kind=body.requester_kind,
            key=signer.key_id,
            principal=principal,
        )
        self._log(leaf, statement)
        return statement

    def approve(
        self, request: Statement, officer: str, *, life: int = 7 * DAY, key: SigningKey | None = None
    ) -> str:
        """Put an approval on the record; return its digest in hex."""
        body = Approval(
            authority=self.name,
            id=new_id(),
            issued_at=self.now,
            expires_at=self.now + life,
            officer=officer,
            request=parse_body(request, Request).id,
            request_digest=request.digest.hex(),
            reason="",
        )
        signer = key or self.officers[officer]
        statement = Statement.sign(Approval.TYPE, body.to_bytes(), signer)
        leaf = ApprovalLeaf(
            time=self.now,
            id=body.id,
            digest=statement.digest.hex(),
            officer=officer,
            key=signer.key_id,
            request=body.request,
        )
        self._log(leaf, statement)
        return statement.digest.hex()

    def deny(self, request: Statement, denier: str, *, digest: str | None = None) -> int:
        """Put a denial on the record, by an officer or by a principal."""
        is_officer = denier in self.officers
        asked = parse_body(request, Request)
        body = Denial(
            authority=self.name,
            id=new_id(),
            issued_at=self.now,
            denier=denier,
            denier_kind=Capacity.OFFICER if is_officer else Capacity.PRINCIPAL,
            request=asked.id,
            request_digest=digest or request.digest.hex(),
            reason="no",
        )
        signer = (self.officers if is_officer else self.keys)[denier]
        statement = Statement.sign(Denial.TYPE, body.to_bytes(), signer)
        leaf = DenialLeaf(
            time=self.now,
            id=body.id,
            digest=statement.digest.hex(),
            denier=denier,
            denier_kind=body.denier_kind,
            key=signer.key_id,
            request=asked.id,
        )
        return self._log(leaf, statement)

    def release(
        self, request: Statement, records: Sequence[str], approvals: Sequence[str] = (), *, has_release: bool = True
    ) -> int:
        """Put a release on the record."""
        leaf = ReleaseLeaf(
            time=self.now,
            id=parse_body(request, Request).id,
            digest=request.digest.hex(),
            release="ab" * 32,
            approvals=list(approvals),
            records=list(records),
        )
        return self.recovery.append(leaf.to_bytes(), None, has_release)

    def refuse(self, request: Statement, code: str = "denied") -> int:
        """Put a refusal on the record."""
        asked = parse_body(request, Request)
        leaf = RefusalLeaf(
            time=self.now,
            id=asked.id,
            digest=request.digest.hex(),
            requester=asked.requester,
            requester_kind=asked.requester_kind,
            code=code,
        )
        return self._log(leaf, None)

    # ---- proofs ----

    def prove(self, first: int, count: int, *, unprovable: Sequence[Unprovable] = (), **changed: Any) -> int:
        """Put a proof of these escrow leaves on the record, under the tree as it is now."""
        rows = self.escrow.rows[first : first + count]
        leaf = ProofLeaf(
            time=self.now,
            first=first,
            count=count,
            size=self.escrow.frontier.size,
            root=self.escrow.frontier.root().hex(),
            records=sum(len(row.beside) for row in rows) - len(unprovable),
            unprovable=list(unprovable),
        ).model_copy(update=changed)
        return self._log(leaf, None)

    def reseal(self, first: int, count: int, **changed: Any) -> int:
        """Put it on the record that these escrow leaves were sealed again, to the active key."""
        leaf = ResealLeaf(
            time=self.now,
            first=first,
            count=count,
            size=self.escrow.frontier.size,
            root=self.escrow.frontier.root().hex(),
            kid=self.sealing_keys[0].kid,
            records=sum(len(row.beside) for row in self.escrow.rows[first : first + count]),
            left=0,
            digest="00" * 32,
        ).model_copy(update=changed)
        return self._log(leaf, None)

    def retire(self, kid: str, **changed: Any) -> int:
        """Put it on the record that a sealing key is retired."""
        root = self.escrow.frontier.root().hex()
        leaf = RetirementLeaf(time=self.now, kid=kid, size=self.escrow.frontier.size, root=root)
        return self._log(leaf.model_copy(update=changed), None)

    def attest(self, principal: str, *records: str, matches: bool = True) -> int:
        """Put an attestation on the record."""
        body = Attestation.model_validate(
            {
                "authority": self.name,
                "id": new_id(),
                "issued_at": self.now,
                "principal": principal,
                "records": [{"id": each, "fingerprint": "cd" * 32, "matches": matches} for each in records],
            }
        )
        statement = Statement.sign(Attestation.TYPE, body.to_bytes(), self.keys[principal])
        leaf = AttestationLeaf(
            time=self.now,
            id=body.id,
            digest=statement.digest.hex(),
            principal=principal,
            key=self.keys[principal].key_id,
            matching=list(records) if matches else [],
            stale=[] if matches else list(records),
        )
        return self._log(leaf, statement)

    def _log(self, leaf: Any, statement: Statement | None) -> int:
        return self.recovery.append(leaf.to_bytes(), statement, beside=False)

    # ---- as an export, and over the queue ----

    def export(self, path: Path) -> Path:
        """Write an export of both logs, by another way than the program's own."""
        for log in self.logs.values():
            folder = path / log.name
            builder = TileBuilder()
            files = list(builder.add([row.leaf or b"" for row in log.rows])) + builder.edge()
            for file in files:
                _put(folder / file.path, file.data)
            for index in range(0, len(log.rows), 256):
                rows = log.rows[index : index + 256]
                name = entries_path(index // 256, len(rows)).removeprefix("tile/entries/")
                lines = [b"null" if row.statement is None else row.statement.envelope() for row in rows]
                _put(folder / "statements" / name, b"".join(line + b"\n" for line in lines))
                beside = "rows" if log.name == "escrow" else "releases"
                _put(folder / beside / name, b"".join(canonical_json(row.beside) + b"\n" for row in rows))
            if log.rows:
                _put(folder / "checkpoint", log.checkpoint().encode())
        _put(path / "roster.json", self.roster.statement.envelope())
        return path

    def page(self, body: LogPageRequest, digest: bytes) -> tuple[LogPage, tuple[Statement, ...]]:
        """Return a page of a log as the database has it, and the statements that go with it."""
        log = self.logs[body.log]
        size = notes.parse_checkpoint(log.checkpoint())[0].size if log.rows or log.sealed else 0
        entries: list[LogEntry] = []
        attached: list[Statement] = []
        for index in range(body.first, min(size, body.first + self.page_leaves_max)):
            row = (
                log.rows[index]
                if index < len(log.rows)
                else Row(None, None, False if body.log == "recovery" else [])
            )
            completed = [Node(0, index)]
            while completed[-1].index % 2:
                completed.append(Node(completed[-1].level + 1, completed[-1].index // 2))
            entries.append(
                LogEntry(
                    index=index,
                    leaf=row.leaf,
                    nodes=[log.nodes.get(node) for node in completed],
                    statement=row.statement is not None,
                    rows=row.beside if body.log == "escrow" else [],
                    has_release=body.log == "recovery" and row.beside,
                )
            )
            attached += [] if row.statement is None else [row.statement]
        page = LogPage(
            authority=self.name,
            request=body.id,
            request_digest=digest.hex(),
            roster_version=self.roster.body.version,
            log=body.log,
            checkpoint=log.checkpoint().encode() if size else None,
            entries=entries,
        )
        return self.alter(page), tuple(attached)

    @asynccontextmanager
    async def connect(self, _home: object = None) -> AsyncIterator["PageLink"]:
        """Connect as an auditor does."""
        yield PageLink(self)


class PageLink:
    """A link to a worker that answers log page requests and nothing else."""

    def __init__(self, authority: Authority) -> None:
        """Talk to this authority."""
        self._authority = authority
        self._answers: dict[str, bytes] = {}

    async def submit(
        self,
        routing_key: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, int | str],  # noqa: ARG002
        expiration_seconds: float | None,  # noqa: ARG002
    ) -> None:
        """Answer a request at once."""
        assert routing_key.startswith("v1.recovery.")
        authority = self._authority
        statement = parse_envelope(body)
        asked = parse_body(statement, LogPageRequest)
        authority.received.append(asked)
        key = authority.recovery_reply_key
        if "audit" not in {role.value for role in authority.roster.officer(asked.requester).roles}:
            told = rejection(
                Denied("no role"),
                roster=authority.roster,
                request=asked.id,
                received=body,
                now=authority.now,
                key=key,
            )
            self._answers[message_id] = Reply(statement=told, roster=authority.roster.statement).to_bytes()
            return
        page, attached = authority.page(asked, statement.digest)
        signed = Statement.sign(LogPage.TYPE, page.to_bytes(), key)
        self._answers[message_id] = Reply(
            statement=signed, attached=attached, roster=authority.roster.statement
        ).to_bytes()

    async def answer(self, message_id: str, timeout_seconds: float) -> bytes:  # noqa: ARG002
        """Return the answer."""
        return self._answers.pop(message_id)


def edited(leaf: bytes | None, **changed: Any) -> bytes:
    """Return a leaf with other members."""
    return canonical_json({**json.loads(leaf or b"{}"), **changed})


def hash_of(leaf: bytes) -> bytes:
    """Return the hash of a leaf."""
    return leaf_hash(leaf)


def _record(name: str, kid: str) -> dict[str, Any]:
    return {
        "id": new_id(),
        "name": name,
        "kind": "disk-key",
        "description": "",
        "serial_number": "",
        "algorithm": "",
        "fingerprint": "ef" * 32,
        "labels": {},
        "kid": kid,
        "suite": "x-wing",
        "blob": b"blob of no key",
        "supersedes": [],
    }


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _unaltered(page: LogPage) -> LogPage:
    return page
