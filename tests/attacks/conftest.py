"""Where the attacks take place: both real servers, both real workers, hosts and officers who go about their work.

All of them go by one clock, that of `place`. Officers a, b and c hold every role, officer d may only audit; policy
asks for two approvals of an officer's request.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support import authority as make
from tests.support import workers
from tests.support.recovery import ANSWER_SECONDS_MAX, Place, place_of
from tests.support.workers import Brokers, Databases

from strongroom import broker as amqp
from strongroom.errors import LogForked
from strongroom.mandates import Policy, Role
from strongroom.service import Health
from strongroom_agent import Agent
from strongroom_agent.enrolment import enrol
from strongroom_agent.invitation import InvitationFile
from strongroom_escrow import wiring
from strongroom_escrow.settings import EscrowSettings
from strongroom_escrow.worker import EscrowWorker

OTHER = "laptop-0418"
MATERIAL = b"a session key"
OFFICERS = [*(make.officer(f"officer-{letter}") for letter in "abc"), make.officer("officer-d", Role.AUDIT)]


@dataclass(frozen=True, slots=True)
class Stage:
    """A place with a recovery worker, and beside it an escrow worker and the homes of hosts."""

    place: Place
    escrow: EscrowSettings

    @property
    def databases(self) -> Databases:
        """The database of this test; its superuser is the attacker."""
        return self.place.databases

    @property
    def brokers(self) -> Brokers:
        """The broker; its administrator is the attacker."""
        return self.place.brokers

    # ---- workers ----

    @asynccontextmanager
    async def escrowing(
        self, state_dir: Path | None = None
    ) -> AsyncIterator[tuple[EscrowWorker, asyncio.Task[None]]]:
        """Run the escrow worker beside the test and yield it with its task, whose end is the test's to look at."""
        stop = asyncio.Event()
        changed = self.escrow.model_copy(update={"state_dir": state_dir or self.escrow.state_dir})
        async with (
            wiring.escrow_worker(changed, Health(None)) as worker,
            amqp.connect(
                self.brokers.url("escrow"), ca_file=self.brokers.ca_file, name="test", timeout_seconds=60
            ) as connection,
            amqp.Consumer(connection, "escrow", prefetch_count=400) as consumer,
        ):
            worker._clock = lambda: self.place.now
            task = asyncio.create_task(worker.serve(consumer, stop))
            try:
                yield worker, task
            finally:
                stop.set()
                await asyncio.wait({task})

    @asynccontextmanager
    async def escrow_worker(self) -> AsyncIterator[None]:
        """Run the escrow worker for the length of the block."""
        async with self.escrowing() as (_, task):
            yield
        task.result()

    @asynccontextmanager
    async def both_workers(self) -> AsyncIterator[None]:
        """Run both workers for the length of the block."""
        async with self.place.worker(), self.escrow_worker():
            yield

    # ---- hosts ----

    def invitation(
        self, principal: str = make.PRINCIPAL, *, officers: Sequence[str] = ("officer-a",), replaces: bool = False
    ) -> bytes:
        """Return an invitation file as officers write it."""
        return InvitationFile(
            invitation=make.invitation(
                principal,
                officers=tuple(officers),
                issued_at=self.place.now,
                expires_at=self.place.now + make.DAY,
                replaces=replaces,
            ),
            one_time_key=make.signing_key("one-time"),
            root_key=make.signing_key("root").public_key,
            roster=self.place.roster.statement,
            broker_url=self.brokers.url("fleet"),
            broker_ca=self.brokers.ca_file.read_text(),
        ).to_bytes()

    async def host(self, name: str = "host", principal: str = make.PRINCIPAL, *, replaces: bool = False) -> Agent:
        """Enrol a new home; the recovery worker runs meanwhile."""
        officers = ("officer-a", "officer-b") if replaces else ("officer-a",)
        home = self.place.folder / name
        document = self.invitation(principal, officers=officers, replaces=replaces)
        await enrol(home, document, clock=self.clock)
        return self.agent(name)

    def agent(self, name: str) -> Agent:
        """Open a home; the test closes it."""
        return Agent.open(self.place.folder / name, clock=self.clock)

    def clock(self) -> float:
        """Give the time of the place."""
        return self.place.now


@pytest.fixture
def _four_officers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the first roster of every place name four officers."""
    first, build = make.roster(officers=OFFICERS, policy=Policy()), make.roster
    with monkeypatch.context() as patch:
        patch.setattr(make, "roster", lambda **changes: build(**changes) if changes else first)
        yield


@pytest.fixture
async def place(database: Databases, broker: Brokers, tmp_path: Path, _four_officers: None) -> AsyncIterator[Place]:
    """A recovery worker's place with two hosts, and one key of the first."""
    async with place_of(database, broker, tmp_path, enrolled=(make.PRINCIPAL, OTHER)) as made:
        await made.escrow(make.escrow(records=[make.record(material=MATERIAL)]))
        yield made


@pytest.fixture
async def stage(database: Databases, broker: Brokers, tmp_path: Path, _four_officers: None) -> AsyncIterator[Stage]:
    """A place where nobody is enrolled and nothing is stored yet, with an escrow worker's files beside it."""
    broker.rabbitmqctl("purge_queue", "--vhost", "strongroom", "escrow")
    async with place_of(database, broker, tmp_path) as made:
        settings = workers.write_files(tmp_path / "escrow", made.roster, "escrow")
        settings |= workers.server_settings(database, broker, "escrow")
        yield Stage(made, EscrowSettings.model_validate(settings))


async def is_forked(task: asyncio.Task[None]) -> None:
    """Wait for the end of a worker, which says that the log is not the one that it knows."""
    await asyncio.wait({task}, timeout=ANSWER_SECONDS_MAX)
    assert task.done()
    assert isinstance(task.exception(), LogForked)
