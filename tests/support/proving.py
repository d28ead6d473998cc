"""A place with a prover and without a broker: an escrow log that the test writes, and what is proven of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from structlog.testing import capture_logs
from structlog.typing import EventDict
from tests.support import authority as make
from tests.support import workers
from tests.support.attacker import as_superuser, ask_superuser
from tests.support.recovery import Place
from tests.support.workers import Databases

from strongroom.fields import parse_body
from strongroom.leaves import ProofLeaf
from strongroom.messages import Escrow, Record
from strongroom.service import Health
from strongroom.statements import Statement
from strongroom_recovery.prover import wiring
from strongroom_recovery.prover.worker import Prover
from strongroom_recovery.settings import ProverSettings, RecoverySettings

OTHER = "laptop-0418"
UNGUARDED = "SET session_replication_role = replica; "


class _NoBroker:
    """Stands where a prover has nobody to talk to."""

    ca_file = Path("/nonexistent")

    def url(self, user: str) -> str:
        return f"amqp://{user}@localhost:1"

    def rabbitmqctl(self, *arguments: str) -> str:
        raise NotImplementedError(arguments)


@dataclass
class Proven:
    """A database with an escrow log, and the files of a prover.

    now, monotonic: what its clocks show, in seconds; tests turn them.
    """

    place: Place
    settings: ProverSettings
    now: int = make.NOW
    monotonic: float = 0.0
    lines: list[EventDict] = field(default_factory=list)

    @property
    def databases(self) -> Databases:
        """The database; its superuser is the attacker."""
        return self.place.databases

    # ---- what is escrowed ----

    async def escrow(self, *statements: Statement) -> list[Record]:
        """Store statements as the escrow worker would; return their records in order."""
        await self.place.escrow(*statements)
        return [record for each in statements for record in parse_body(each, Escrow).records]

    async def keys(self, *counts: int, principal: str = make.PRINCIPAL) -> list[Record]:
        """Store statements with so many records each."""
        return await self.escrow(
            *(make.escrow(principal, records=[make.record(principal) for _ in range(count)]) for count in counts)
        )

    async def edit(self, *commands: str) -> None:
        """Change rows as the database's owner, whom no foreign key holds back."""
        await as_superuser(self.databases, *(UNGUARDED + command for command in commands))

    async def replace(self, index: int, statement: Statement) -> None:
        """Put other bytes into the place of a stored statement, its digest to fit."""
        await ask_superuser(
            self.databases,
            "UPDATE escrow_statements SET envelope = $2, digest = $3 WHERE leaf_index = $1",
            index,
            statement.envelope(),
            statement.digest,
        )

    # ---- the prover ----

    @asynccontextmanager
    async def prover(self, **settings: Any) -> AsyncIterator[Prover]:
        """Open a prover, with these settings changed."""
        changed = self.settings.model_copy(update=settings)
        keys = wiring.read_keys(changed)
        async with wiring.prover(
            changed, keys, Health(None), clock=lambda: self.now, monotonic=lambda: self.monotonic
        ) as opened:
            yield opened

    async def look(self, **settings: Any) -> list[ProofLeaf]:
        """Let a fresh prover look until it finds nothing more to do; return what it has appended.

        What it logged is in `lines`.
        """
        before = len(await self.proofs())
        with capture_logs() as self.lines:
            async with self.prover(**settings) as opened:
                while await opened.turn(asyncio.Event()):
                    pass
        return (await self.proofs())[before:]

    async def look_again(self, **settings: Any) -> list[ProofLeaf]:
        """Let a month pass, and look at everything again."""
        self.now += 30 * make.DAY
        return await self.look(**settings)

    async def proofs(self) -> list[ProofLeaf]:
        """Return the proof leaves of the recovery log."""
        return [leaf for leaf in await self.place.log() if isinstance(leaf, ProofLeaf)]

    def told(self) -> set[tuple[int, str | None, str]]:
        """Return (index, record, code) of all records that the last `look` has logged as errors."""
        return {
            (line["index"], line["record"], line["code"])
            for line in self.lines
            if line["event"] == "record cannot be given back" and line["log_level"] == "error"
        }


def named(proofs: list[ProofLeaf]) -> set[tuple[int, str | None, str]]:
    """Return (index, record, code) of all that is unprovable."""
    return {(each.index, each.record, each.code) for proof in proofs for each in proof.unprovable}


def uuids(records: list[Record]) -> list[UUID]:
    """Return the ids of records as the database has them."""
    return [UUID(record.id) for record in records]


async def proven_place(databases: Databases, folder: Path) -> Proven:
    """Make a place in which two principals are enrolled, each with the key of its name."""
    roster = make.roster()
    await workers.enrol_principals(databases, folder, roster, make.PRINCIPAL, OTHER)
    files = workers.write_files(folder / "recovery", roster, "recovery")
    settings = RecoverySettings.model_validate(files | workers.server_settings(databases, _NoBroker(), "recovery"))
    place = Place(databases, _NoBroker(), roster, folder, settings)
    return Proven(place, ProverSettings.model_validate(settings.model_dump()))
