"""A place with both workers and a prover, whose roster names transport keys; policy asks hosts for no approval.

Officers a, b and c hold every role. All go by one clock, that of `place`.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import authority as make
from tests.support import requests as ask
from tests.support import workers
from tests.support import wrapped as given
from tests.support.attacker import as_superuser
from tests.support.proving import Proven
from tests.support.recovery import Place, place_of
from tests.support.workers import Brokers, Databases

from strongroom import broker as amqp
from strongroom.blobs import ReleaseContext, open_material, open_unwrapped
from strongroom.crypto.signing import key_id
from strongroom.crypto.transport_key_file import write_transport_key
from strongroom.fields import Capacity, parse_body
from strongroom.leaves import parse_leaf
from strongroom.mandates import Policy
from strongroom.messages import Record, Rejection, Release, Request
from strongroom.receipts import verify
from strongroom.roster import Roster
from strongroom.service import Health
from strongroom.statements import Statement
from strongroom_escrow import wiring
from strongroom_escrow.settings import EscrowSettings
from strongroom_recovery.settings import ProverSettings

OTHER = "laptop-0418"
TRANSPORT_KEYS = ("simple", "cms")


@dataclass(frozen=True)
class Stage:
    """Both workers of a place in which two hosts are enrolled, and the roster that comes into force there."""

    place: Place
    settings: EscrowSettings
    roster: Roster

    # ---- workers ----

    @asynccontextmanager
    async def workers(self, escrowing: int = 1) -> AsyncIterator[None]:
        """Run the recovery worker and so many escrow workers, which share a state folder."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.place.worker())
            for _ in range(escrowing):
                await stack.enter_async_context(self._escrow_worker())
            yield

    @asynccontextmanager
    async def _escrow_worker(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        brokers = self.place.brokers
        async with (
            wiring.escrow_worker(self.settings, Health(None)) as worker,
            amqp.connect(
                brokers.url("escrow"), ca_file=brokers.ca_file, name="test", timeout_seconds=60
            ) as connection,
            amqp.Consumer(connection, "escrow", prefetch_count=400) as consumer,
        ):
            worker._clock = lambda: self.place.now
            task = asyncio.create_task(worker.serve(consumer, stop))
            try:
                yield
            finally:
                stop.set()
                await task

    @property
    def proven(self) -> Proven:
        """The same place, to be looked at by a prover while the recovery worker does not run."""
        return Proven(self.place, ProverSettings.model_validate(self.place.settings.model_dump()))

    # ---- hosts ----

    async def rejected(self, statement: Statement) -> Rejection | None:
        """Send an escrow statement; return the rejection, its signature verified, or None for a true receipt."""
        reply = await self.place.ask(statement.envelope(), verb="escrow")
        body = self.place.roster.body
        if reply.receipt is None:
            assert reply.statement is not None
            reply.statement.verify_signature(body.replies.escrow, key_id(body.replies.escrow))
            return parse_body(reply.statement, Rejection)
        leaf = parse_leaf(verify(reply.receipt, body.logs.escrow.public_key, body.logs.escrow.origin).leaf)
        assert leaf.type == "escrow"
        assert leaf.digest == statement.digest.hex()
        return None

    async def escrow(self, principal: str, *records: Record) -> None:
        """Let a host escrow these records; fail if they are not taken."""
        assert await self.rejected(make.escrow(principal, records=list(records))) is None

    async def quarantined(self) -> list[tuple[str, str]]:
        """Return code and reason of each message in quarantine."""
        brokers = self.place.brokers
        async with amqp.connect(
            brokers.url("operator"), ca_file=brokers.ca_file, name="operator", timeout_seconds=60
        ) as connection:
            return [(each.code, each.reason) for each in await amqp.peek(connection, 1000)]

    # ---- asking ----

    async def waits(self, request: Statement) -> Rejection:
        """Send a request that has to wait for approval; it is on the record by its own leaf."""
        reply = await self.place.ask(request.envelope())
        rejection = self.place.signed(reply, Rejection)
        assert rejection.code == "approval_required", rejection
        assert parse_leaf(self.place.receipt(reply).leaf).type == "request"
        return rejection

    async def approve(self, request: Statement, *officers: str) -> None:
        """Let officers approve a request, by default officer b."""
        for officer in officers or ("officer-b",):
            reply = await self.place.ask(ask.approval(request, officer).envelope())
            assert parse_leaf(self.place.receipt(reply).leaf).type == "approval"

    async def unwrapped(self, principal: str, records: Sequence[Record]) -> list[bytes]:
        """Ask, wait, let an officer approve, and return what is inside each record, in order."""
        request = unwrapping(principal, *records)
        await self.waits(request)
        await self.approve(request)
        return contents(await self.place.release(request), request)

    async def edit(self, *commands: str) -> None:
        """Change rows as the database's owner, whom no foreign key holds back."""
        await as_superuser(
            self.place.databases, *(f"SET session_replication_role = replica; {each}" for each in commands)
        )


def unwrapping(principal: str, *records: Record, **changes: Any) -> Statement:
    """Return a host's request to unwrap these records of its own, which lives a day; members as given."""
    members: dict[str, Any] = {
        "records": [each.id for each in records],
        "unwrap": True,
        "expires_at": make.NOW + make.DAY,
    }
    return ask.request(principal, **(members | changes))


def officers_unwrapping(principal: str, *records: Record) -> Statement:
    """Return officer a's request to unwrap a host's records."""
    return unwrapping(principal, *records, requester="officer-a", requester_kind=Capacity.OFFICER)


def contents(release: Release, request: Statement) -> list[bytes]:
    """Open what a release holds of each record's inside; the bytes as they were escrowed open beside it."""
    found = []
    key = ask.recipient()
    for record in release.records:
        context = ReleaseContext(make.AUTHORITY, request.digest, record.principal, record.id, key.kid)
        assert record.wrapping is not None
        assert given.digest_of(open_material(record.blob, context, key).material.expose())
        assert record.unwrapped is not None
        found.append(open_unwrapped(record.unwrapped, context, key).expose())
    assert [each.id for each in release.records] == parse_body(request, Request).records
    return found


@asynccontextmanager
async def stage_of(databases: Databases, brokers: Brokers, folder: Path) -> AsyncIterator[Stage]:
    """Make a stage with empty queues on which two hosts are enrolled and nothing is stored."""
    async with place_of(databases, brokers, folder, enrolled=(make.PRINCIPAL, OTHER)) as place:
        brokers.rabbitmqctl("purge_queue", "--vhost", "strongroom", "escrow")
        keys = place.settings.sealing_keys_dir
        assert keys is not None
        for name in TRANSPORT_KEYS:
            write_transport_key(keys / f"{name}.key", given.transport_key(name), None)
        roster = make.next_roster(
            place.roster,
            transport_keys=[given.SIMPLE, given.CMS],
            officers=[make.officer(f"officer-{letter}") for letter in "abc"],
            policy=Policy(self_recovery_approvals=0, officer_recovery_approvals=1),
        )
        place.write_roster(roster)
        settings = workers.write_files(folder / "escrow", place.roster, "escrow")
        settings |= workers.server_settings(databases, brokers, "escrow")
        yield Stage(place, EscrowSettings.model_validate(settings), roster)
