"""Servers that somebody else runs: given by URL in the environment, configured for Strongroom, never started.

The database server and the broker named here are changed: roles, the database `strongroom`, the virtual host
`strongroom` and its users get the state and the passwords of this stack. Give servers that are meant for it.
"""

import base64
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from deploy.local.place import Place
from deploy.local.postgres import Database
from deploy.local.rabbitmq import USERS, render_definitions
from deploy.local.server import StackError, State

from strongroom import topology

DATABASE_ADMIN_URL = "STRONGROOM_STACK_DATABASE_ADMIN_URL"
"""`postgresql://` URL of a superuser; TLS by `?sslmode=verify-full&sslrootcert=FILE`."""
BROKER_URL = "STRONGROOM_STACK_BROKER_URL"
"""`amqps://HOST:PORT`, without a user."""
BROKER_ADMIN_URL = "STRONGROOM_STACK_BROKER_ADMIN_URL"
"""`https://USER:PASSWORD@HOST:PORT` of the management plug-in's HTTP API, for an administrator."""
BROKER_CA_FILE = "STRONGROOM_STACK_BROKER_CA_FILE"
"""PEM file of the CA that vouches for both; the system's CAs when absent."""

_TIMEOUT_S = 30


class GivenPostgres(Database):
    """A PostgreSQL server that is given by the URL of a superuser."""

    name = "postgres"

    def __init__(self, folder: Path, superuser_url: str) -> None:
        self.place = Place(folder)
        self.state = State.load(self.place.state_file("postgres-given"))
        self._superuser_url = superuser_url

    @property
    def superuser_url(self) -> str:
        """The URL that was given."""
        return self._superuser_url

    def start(self) -> None:
        """Apply `roles.sql` with the passwords of this stack.

        Raises:
            StackError: the server cannot be reached, or the URL is not a superuser's.
        """
        with self.place.locked(self.name):
            self.apply_roles()
            self.state.save(self.place.state_file("postgres-given"))

    def stop(self) -> None:
        """Leave the server running: it is not ours."""


class GivenRabbit:
    """A RabbitMQ server that is given by its AMQP URL and its management URL."""

    name = "rabbitmq"

    def __init__(self, folder: Path, broker_url: str, admin_url: str, ca_file: Path | None) -> None:
        self.place = Place(folder)
        self.ca_file = ca_file
        self.state = State.load(self.place.state_file("rabbitmq-given"))
        self._broker = urlsplit(broker_url)
        self._admin = urlsplit(admin_url)
        self._login = (unquote(self._admin.username or ""), unquote(self._admin.password or ""))
        if self._login[0] in USERS:  # the import must not lock out the one who imports
            self.state.passwords[self._login[0]] = self._login[1]

    def url(self, user: str) -> str:
        """Return the AMQP URL of one user, with its password.

        Raises:
            StackError: there is no such user.
        """
        if user not in USERS:
            raise StackError(f"no broker user {user}: there are {', '.join(USERS)}")
        address = self._broker.netloc.rpartition("@")[2]
        login = f"{user}:{quote(self.state.password(user), safe='')}"
        return f"{self._broker.scheme}://{login}@{address}/{topology.VHOST}"

    def start(self) -> None:
        """Import the definitions with the passwords of this stack through the management API.

        Raises:
            StackError: the API cannot be reached, or refuses.
        """
        with self.place.locked(self.name):
            passwords = {user: self.state.password(user) for user in USERS}
            self._post("/api/definitions", render_definitions(passwords))
            self.state.save(self.place.state_file("rabbitmq-given"))

    def stop(self) -> None:
        """Leave the server running: it is not ours."""

    def _post(self, path: str, body: str) -> None:
        address = self._admin.netloc.rpartition("@")[2]
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked by `given_broker`
            f"{self._admin.scheme}://{address}{self._admin.path.rstrip('/')}{quote(path)}",
            data=body.encode(),
            headers={
                "Authorization": f"Basic {base64.b64encode(':'.join(self._login).encode()).decode()}",
                "Content-Type": "application/json",
            },
        )
        context = ssl.create_default_context(cafile=self.ca_file)
        refused = f"{BROKER_ADMIN_URL}: {address} does not take the definitions"
        try:
            urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context).close()  # noqa: S310 - the same
        except urllib.error.HTTPError as error:
            error.close()
            raise StackError(f"{refused}: HTTP {error.code}") from None
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
            raise StackError(f"{refused}: {error}") from None


def given_database(folder: Path, environment: Mapping[str, str]) -> GivenPostgres | None:
    """Return the database server that the environment gives, or None."""
    url = environment.get(DATABASE_ADMIN_URL)
    return GivenPostgres(folder, url) if url else None


def given_broker(folder: Path, environment: Mapping[str, str]) -> GivenRabbit | None:
    """Return the broker that the environment gives, or None.

    Raises:
        StackError: only one of the two URLs is given, or one is of another kind.
    """
    broker_url, admin_url = environment.get(BROKER_URL), environment.get(BROKER_ADMIN_URL)
    if not broker_url and not admin_url:
        return None
    if not broker_url or not admin_url:
        raise StackError(f"a broker is given by both {BROKER_URL} and {BROKER_ADMIN_URL}")
    if urlsplit(broker_url).scheme not in {"amqp", "amqps"}:
        raise StackError(f"{BROKER_URL} must begin with amqps:// or amqp://")
    if urlsplit(admin_url).scheme not in {"http", "https"}:
        raise StackError(f"{BROKER_ADMIN_URL} must begin with https:// or http://")
    ca_file = environment.get(BROKER_CA_FILE)
    return GivenRabbit(folder, broker_url, admin_url, Path(ca_file) if ca_file else None)
