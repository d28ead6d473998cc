"""Servers that fault tests may kill, and for each module a site on them, with a database of its own."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from deploy.local.postgres import DATABASE, PrivatePostgres
from deploy.local.rabbitmq import PrivateRabbit
from tests.conftest import FreshDatabase
from tests.support.servers import lent
from tests.support.site import Site

from strongroom.migrations import migrate


@dataclass(frozen=True, slots=True)
class Servers:
    """Both servers of these tests; whoever stops one starts it again."""

    postgres: PrivatePostgres
    broker: PrivateRabbit


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, _leftovers_removed: None) -> Iterator[Servers]:
    with lent(tmp_path_factory.mktemp("faults")) as folder, ThreadPoolExecutor(max_workers=2) as pool:
        made = Servers(PrivatePostgres(folder), PrivateRabbit(folder))
        for started in [pool.submit(server.start) for server in (made.postgres, made.broker)]:
            started.result()
        yield made


@pytest.fixture(scope="module")
def site(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A new authority whose recovery worker runs, so that tests can enrol homes; no escrow worker runs."""
    name = Path(str(request.path)).stem
    servers.postgres.create_database(name, template=DATABASE)
    databases = FreshDatabase(servers.postgres, name)
    asyncio.run(migrate(databases.url("strongroom_owner")))
    made = Site.found(tmp_path_factory.mktemp(name) / "site", databases, servers.broker)
    asyncio.run(made.purge())
    with made.in_force():
        recovery = made.worker("recovery")
        recovery.start()
        asyncio.run(recovery.listening())
        yield made
    servers.postgres.drop_database(name)
