"""Real servers for tests: `postgres` and `broker` for the session, `own_postgres` and `own_broker` for one test.

The session's servers start in the background, both at once, and only if a collected test asks for them. A test that
stops or kills a server takes one of its own. Each `database` is a fresh, migrated copy of a template.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import pytest
from deploy.local.postgres import DATABASE, PrivatePostgres
from deploy.local.rabbitmq import PrivateRabbit
from tests.support.servers import lent, remove_leftovers

from strongroom.migrations import migrate

TEMPLATE = "strongroom_template"


@pytest.fixture(scope="session")
def _leftovers_removed(tmp_path_factory: pytest.TempPathFactory) -> None:
    """End the servers of earlier test runs that were killed before they could."""
    remove_leftovers(tmp_path_factory.getbasetemp())


@dataclass(frozen=True)
class _SessionServers:
    postgres: PrivatePostgres
    broker: PrivateRabbit
    starts: dict[str, Future[None]]


@pytest.fixture(scope="session")
def _session_servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, _leftovers_removed: None
) -> Iterator[_SessionServers]:
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    with (
        lent(tmp_path_factory.mktemp("servers")) as folder,
        ThreadPoolExecutor(max_workers=2) as pool,
    ):
        postgres, broker = PrivatePostgres(folder), PrivateRabbit(folder)
        starters = {"postgres": postgres.start, "broker": broker.start}
        starts = {name: pool.submit(start) for name, start in starters.items() if name in wanted}
        yield _SessionServers(postgres, broker, starts)


@pytest.fixture(scope="session")
def postgres(_session_servers: _SessionServers) -> PrivatePostgres:
    """The session's PostgreSQL; tests take a `database` of it and leave the server alone."""
    _session_servers.starts["postgres"].result()
    return _session_servers.postgres


@pytest.fixture(scope="session")
def broker(_session_servers: _SessionServers) -> PrivateRabbit:
    """The session's RabbitMQ, with the queues of `strongroom.topology`; tests share them."""
    _session_servers.starts["broker"].result()
    return _session_servers.broker


@pytest.fixture
def own_postgres(tmp_path_factory: pytest.TempPathFactory, _leftovers_removed: None) -> Iterator[PrivatePostgres]:
    """A PostgreSQL of this test alone, to be stopped and killed; its database `strongroom` is not migrated."""
    with lent(tmp_path_factory.mktemp("own-postgres")) as folder:
        server = PrivatePostgres(folder)
        server.start()
        yield server


@pytest.fixture
def own_broker(tmp_path_factory: pytest.TempPathFactory, _leftovers_removed: None) -> Iterator[PrivateRabbit]:
    """A RabbitMQ of this test alone, to be stopped and killed."""
    with lent(tmp_path_factory.mktemp("own-broker")) as folder:
        server = PrivateRabbit(folder)
        server.start()
        yield server


@dataclass(frozen=True, slots=True)
class FreshDatabase:
    """A database that one test has to itself."""

    server: PrivatePostgres
    name: str

    def url(self, role: str) -> str:
        """Return the URL of one of `deploy.local.postgres.ROLES`."""
        return self.server.url(role, database=self.name)

    @property
    def superuser_url(self) -> str:
        """The URL of the administrator: the attacker who owns the database."""
        return self.server.administrator_url(self.name)


@pytest.fixture(scope="session")
def _database_names(postgres: PrivatePostgres) -> Iterator[str]:
    postgres.create_database(TEMPLATE, template=DATABASE)
    asyncio.run(migrate(postgres.url("strongroom_owner", database=TEMPLATE)))
    return (f"test_{number}" for number in count(1))


@pytest.fixture
def database(postgres: PrivatePostgres, _database_names: Iterator[str]) -> Iterator[FreshDatabase]:
    """A fresh database at the newest schema; it is dropped after the test, whoever is still connected."""
    name = next(_database_names)
    postgres.create_database(name, template=TEMPLATE)
    yield FreshDatabase(postgres, name)
    postgres.drop_database(name)
