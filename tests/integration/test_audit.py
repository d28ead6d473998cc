"""An audit over the queue: a recovery worker on real servers, and a database that its owner has changed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.attacker import as_superuser
from tests.support.recovery import Place, place_of
from tests.support.workers import Brokers, Databases

from strongroom.crypto.signing import SigningKey
from strongroom.fields import parse_body
from strongroom.leaves import ProofLeaf
from strongroom.messages import Escrow
from strongroom.statements import Statement
from strongroom_agent import identity
from strongroom_agent.home import Home
from strongroom_agent.link import Link
from strongroom_audit.export import Report, export
from strongroom_audit.folder import Export
from strongroom_audit.pages import Auditor
from strongroom_audit.verify import Options, verify

AUDITOR = "officer-c"


@pytest.fixture
async def place(database: Databases, broker: Brokers, tmp_path: Path) -> AsyncIterator[Place]:
    """One enrolled principal and an empty escrow log."""
    async with place_of(database, broker, tmp_path, enrolled=[make.PRINCIPAL]) as made:
        yield made


@pytest.fixture
def home(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The home of the officer who may audit and nothing else."""
    monkeypatch.setattr(SigningKey, "generate", staticmethod(lambda: make.signing_key(AUDITOR)))
    made = identity.create_officer_home(tmp_path / AUDITOR, AUDITOR, passphrase=None)
    identity.attach(
        made,
        root_key=make.signing_key("root").public_key,
        roster=place.roster.statement.envelope(),
        broker_url="amqps://officer:hidden@broker.example/strongroom",
        broker_ca=None,
        now=make.NOW,
    )
    return Home.open(made.path)


async def exported(place: Place, home: Home, path: Path) -> Report:
    """Export both logs over the real queue."""

    @asynccontextmanager
    async def connect(_home: Home) -> AsyncIterator[Link]:
        yield place.requester

    with Auditor.open(home.path, connector=connect, clock=lambda: place.now) as auditor:
        auditor.check_may_read()
        return await export(auditor, Export(path))


def found(path: Path) -> list[tuple[str, int | None, str | None, str]]:
    """Verify an export with the root key alone; return log, leaf, id and code of all findings."""
    options = Options(make.signing_key("root").public_key, now=make.NOW)
    return [(each.log, each.index, each.id, each.code) for each in verify(Export(path), options).findings.kept]


def record_of(statement: Statement) -> str:
    """Return the id of the only record in an escrow statement."""
    return parse_body(statement, Escrow).records[0].id


async def test_an_honest_authority_has_no_findings(place: Place, home: Home, tmp_path: Path) -> None:
    """300 statements, a release and a proof; then more, and the export is gone on with."""
    statements = [make.escrow(records=[make.record(name=f"key {n}")]) for n in range(300)]
    await place.escrow(*statements[:10])
    await place.publish()
    async with place.worker():
        await place.release(ask.request(records=[record_of(statements[0])]))
        head = await place.escrow_head()
    proof = {"first": 0, "count": 10, "size": head.size, "root": head.root.hex(), "records": 10, "unprovable": []}
    await place.append(ProofLeaf.model_validate({"time": make.NOW, **proof}))
    async with place.worker():
        first = await exported(place, home, tmp_path / "export")
    await place.escrow(*statements[10:])
    await place.publish()
    async with place.worker():
        second = await exported(place, home, tmp_path / "export")
    assert (first.findings, second.findings) == ([], [])
    assert (first.logs["escrow"].size, second.logs["escrow"].size) == (10, 300)
    assert found(tmp_path / "export") == []


async def test_what_a_superuser_changes_is_named(place: Place, home: Home, tmp_path: Path) -> None:
    """A record row and a leaf deleted, a leaf and a node edited, a statement swapped: each with index and id."""
    statements = [make.escrow(records=[make.record(name=f"key {n}")]) for n in range(10)]
    await place.escrow(*statements)
    await place.publish()
    envelope = statements[8].envelope().hex()
    await as_superuser(
        place.databases,
        f"DELETE FROM records WHERE id = '{record_of(statements[1])}'",  # noqa: S608  an id that was made here
        "DELETE FROM escrow_leaves WHERE index = 3",
        "UPDATE escrow_leaves SET leaf = '{}' WHERE index = 5",
        r"UPDATE escrow_nodes SET hash = decode(repeat('00', 32), 'hex') WHERE level = 0 AND index = 6",
        f"UPDATE escrow_statements SET envelope = '\\x{envelope}' WHERE leaf_index = 7",  # noqa: S608
    )
    async with place.worker():
        await exported(place, home, tmp_path / "export")
    codes = {(index, code) for _, index, _, code in found(tmp_path / "export")}
    assert {(1, "row_missing"), (3, "leaf_missing"), (5, "leaf_edited"), (6, "tile_edited")} <= codes
    assert (7, "statement_wrong") in codes
    assert ("escrow", 1, record_of(statements[1]), "row_missing") in found(tmp_path / "export")


def test_the_auditors_key_is_the_one_of_the_roster(home: Home) -> None:
    """The home under test is that of the officer whom the roster names."""
    assert home.config.public_key == make.signing_key(AUDITOR).public_key
