"""The private servers of `deploy/local`: one folder's PostgreSQL and RabbitMQ."""

import os
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM

import aio_pika
import asyncpg
import pytest
from aiormq.exceptions import AMQPConnectionError
from deploy.local import ports, process
from deploy.local.accounts import Account, identity
from deploy.local.given import GivenPostgres, GivenRabbit, given_broker, given_database
from deploy.local.postgres import ROLES, PrivatePostgres
from deploy.local.rabbitmq import USERS, PrivateRabbit
from deploy.local.server import PrivateServer, StackError
from deploy.local.stack import NOT_RUNNING, Stack
from tests.support.processes import command_lines
from tests.support.servers import lent

from strongroom.topology import ESCROW_QUEUE, EXCHANGE, VHOST

ROOT = Path(__file__).parents[2]
LOOPBACK = {"0100007F", "00000000000000000000000001000000"}  # 127.0.0.1 and ::1
LISTENING = "0A"


def stack_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy.local.stack", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "shared")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Both servers for a folder below one that nobody but its owner, here perhaps root, can enter."""
    closed = tmp_path_factory.mktemp("closed")
    closed.chmod(0o700)
    with lent(closed / "stack") as folder:
        stack = Stack(folder, {})
        stack.up()
        yield stack


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a stack; nothing of it is left after the test."""
    with lent(tmp_path / "stack") as lent_folder:
        yield lent_folder


@pytest.fixture
def other_folder(tmp_path: Path) -> Iterator[Path]:
    """Another folder for a stack."""
    with lent(tmp_path / "other") as lent_folder:
        yield lent_folder


def private_servers(stack: Stack) -> tuple[PrivatePostgres, PrivateRabbit]:
    assert isinstance(stack.database, PrivatePostgres)
    assert isinstance(stack.broker, PrivateRabbit)
    return stack.database, stack.broker


def pid_of(server: PrivateServer) -> int:
    running = server.running()
    assert running is not None
    return running.pid


def trust(server: PrivateRabbit) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=server.ca_file)


def listening_addresses(port: int) -> set[str]:
    """The local addresses, as /proc/net/tcp and tcp6 spell them, on which somebody listens on `port`."""
    tables = [file for file in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if file.exists()]
    lines = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
    return {
        address
        for fields in lines
        if fields[3] == LISTENING
        for address, _, hex_port in [fields[1].partition(":")]
        if int(hex_port, 16) == port
    }


def test_up_again_changes_nothing(stack: Stack) -> None:
    """A second `up`, from another process, finds the servers and leaves pids and ports as they are."""
    servers = private_servers(stack)
    before = [(pid_of(server), server.port) for server in servers]
    result = stack_command("up", str(stack.place.folder))
    assert result.returncode == 0, result.stderr
    assert [(pid_of(server), server.port) for server in servers] == before
    assert f"pid {before[0][0]}, port {before[0][1]}" in result.stdout


def test_down_ends_every_process_and_frees_every_port(folder: Path) -> None:
    """After `down` no process of the stack is left and its ports are free; a second `down` is a no-op."""
    stack = Stack(folder, {})
    stack.up()
    servers = private_servers(stack)
    mapper = process.find(stack.place.pid_file("epmd"))
    leaders = [*(server.running() for server in servers), mapper]
    everyone = [each for leader in leaders if leader is not None for each in leader.tree()]
    taken = [port for server in servers for port in server.state.ports.values()]
    assert len(everyone) > len(leaders)
    assert not any(ports.is_free(port) for port in taken)

    assert stack_command("status", str(folder)).returncode == 0
    assert stack_command("down", str(folder)).returncode == 0
    assert not any(each.alive() for each in everyone)
    assert all(ports.is_free(port) for port in taken)
    assert stack_command("status", str(folder)).returncode == NOT_RUNNING
    assert stack_command("down", "--purge", str(folder)).returncode == 0
    assert stack.place.root == folder or not stack.place.root.exists()
    assert [path.name for path in folder.iterdir()] == ["owner.pid"]


def test_two_stacks_run_at_once(stack: Stack, postgres: PrivatePostgres, broker: PrivateRabbit) -> None:
    """Two folders have servers of their own, with other processes, ports and passwords."""
    for mine, other in zip(private_servers(stack), (postgres, broker), strict=True):
        assert pid_of(mine) != pid_of(other)
        assert not set(mine.state.ports.values()) & set(other.state.ports.values())
        assert not set(mine.state.passwords.values()) & set(other.state.passwords.values())


def test_servers_run_without_privileges(stack: Stack) -> None:
    """Root's servers run as the unprivileged users of their packages, anybody else's as the caller."""
    for server in private_servers(stack):
        owner = Path(f"/proc/{pid_of(server)}").stat().st_uid
        assert owner == (os.geteuid() if server.account is None else server.account.uid)
        assert owner != 0


def test_files_are_closed_to_others(stack: Stack) -> None:
    """Folders of the stack are 0700, its state, keys, definitions and configuration 0600."""
    place = stack.place
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    for folder in (place.folder / "log", place.root / "state", place.root / "tls", place.root / "run"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    for server in private_servers(stack):
        assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
        assert server.data.stat().st_uid == (server.account.uid if server.account else os.geteuid())
        files = [file for file in server.data.iterdir() if file.is_file()]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_every_port_is_on_the_loopback_interface(stack: Stack) -> None:
    """Nobody listens on a port of the stack but on this machine's loopback, Erlang's own ports included."""
    for server in private_servers(stack):
        for port in server.state.ports.values():
            assert listening_addresses(port)
            assert listening_addresses(port) <= LOOPBACK


async def test_database_connections_are_encrypted(stack: Stack) -> None:
    """A role gets in by TLS with a verified certificate; without TLS it is refused, password or not."""
    database, _ = private_servers(stack)
    url = database.url("strongroom_escrow")
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True
    await connection.close()
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="no encryption"):
        await asyncpg.connect(url.partition("?")[0], ssl=False)


async def test_database_certificate_is_checked_against_the_private_ca(stack: Stack) -> None:
    """The CAs of the system do not vouch for the server."""
    database, _ = private_servers(stack)
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncpg.connect(database.url("strongroom_escrow").partition("?")[0], ssl=ssl.create_default_context())


@pytest.mark.parametrize("role", ["strongroom_escrow", "strongroom_recovery", "strongroom_auditor"])
async def test_worker_roles_cannot_create_anything(stack: Stack, role: str) -> None:
    """Workers and auditors have no right to create tables, temporary tables, schemas or databases."""
    database, _ = private_servers(stack)
    connection = await asyncpg.connect(database.url(role))
    for statement in (
        "CREATE TABLE mine ()",
        "CREATE TEMPORARY TABLE mine ()",
        "CREATE SCHEMA mine",
        "CREATE DATABASE mine",
        "CREATE ROLE mine",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


async def test_owner_owns_the_database_and_no_role_is_powerful(stack: Stack) -> None:
    """The owner creates tables; none of the four roles is a superuser, creates roles or bypasses row security."""
    database, _ = private_servers(stack)
    connection = await asyncpg.connect(database.url("strongroom_owner"))
    await connection.execute("CREATE TABLE mine (); DROP TABLE mine")
    rows = await connection.fetch(
        "SELECT rolname, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls AS powerful "
        "FROM pg_roles WHERE rolname LIKE 'strongroom%'"
    )
    await connection.close()
    assert {row["rolname"]: row["powerful"] for row in rows} == dict.fromkeys(ROLES, False)


async def test_broker_takes_its_users_by_tls_only(stack: Stack) -> None:
    """Every user of the topology logs in over TLS; plain AMQP on that port is no AMQP."""
    _, broker = private_servers(stack)
    for user in USERS:
        connection = await aio_pika.connect(broker.url(user), ssl_context=trust(broker))
        await connection.close()
    with pytest.raises(AMQPConnectionError):
        await aio_pika.connect(broker.url("operator").replace("amqps://", "amqp://"), timeout=60)


async def test_broker_has_no_default_user(stack: Stack) -> None:
    """The account `guest`, which every RabbitMQ starts with, does not exist."""
    _, broker = private_servers(stack)
    listed = broker.rabbitmqctl("list_users", "--no-table-headers").splitlines()
    assert {line.split()[0] for line in listed} == set(USERS)
    assert broker.rabbitmqctl("list_vhosts", "--no-table-headers").splitlines() == [VHOST]


def test_unknown_names_have_no_url(stack: Stack) -> None:
    """A role or user that does not exist gets an error that lists those that do."""
    database, broker = private_servers(stack)
    with pytest.raises(StackError, match="strongroom_owner, strongroom_escrow"):
        database.url("postgres")
    with pytest.raises(StackError, match="operator, escrow"):
        broker.url("guest")


class CommandLines(threading.Thread):
    """Collects every command line that shows in /proc while it runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self._over = threading.Event()

    def run(self) -> None:
        """Look again and again until `stop`."""
        while not self._over.is_set():
            self.seen.update(command_lines())

    def stop(self) -> bytes:
        """End the thread and return all that it saw."""
        self._over.set()
        self.join()
        return b"\n".join(self.seen)


def test_no_password_shows_in_a_command_line(folder: Path) -> None:
    """While both servers are made, started, asked and stopped, no process has a password among its arguments."""
    stack = Stack(folder, {})
    watcher = CommandLines()
    watcher.start()
    try:
        stack.up()
        database, broker = private_servers(stack)
        database.create_database("another")
        broker.rabbitmqctl("list_users")
    finally:
        stack.down(purge=True)
        seen = watcher.stop()
    for program in (b"initdb", b"psql", b"beam.smp", b"rabbitmqctl"):
        assert program in seen
    passwords = {*database.state.passwords.values(), *broker.state.passwords.values()}
    assert len(passwords) == 1 + len(ROLES) + len(USERS) + 1
    assert not [password for password in passwords if password.encode() in seen]


@contextmanager
def stranger(user: Account | None = None) -> Iterator[process.Process]:
    """A process of `user` that has nothing to do with any stack."""
    with subprocess.Popen(["sleep", "600"], **identity(user)) as child:
        try:
            found = process.of_pid(child.pid)
            assert found is not None
            yield found
        finally:
            child.terminate()


@pytest.mark.parametrize("kind", [PrivatePostgres, PrivateRabbit])
def test_stranger_with_the_pid_of_a_stale_file_is_left_alone(
    folder: Path, kind: type[PrivatePostgres | PrivateRabbit]
) -> None:
    """A pid file whose pid was given to somebody else, in this boot or another one, names nobody."""
    server = kind(folder)
    server.place.create()
    pid_file = server.place.pid_file(server.name)
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with stranger() as other:
        for stale in (
            f"{other.pid} {other.started_ticks - 1} {boot_id}",
            f"{other.pid} {other.started_ticks} 00000000-0000-0000-0000-000000000000",
            f"{other.pid}",
            "",
        ):
            pid_file.write_text(stale)
            assert server.running() is None
            server.stop()
            pid_file.write_text(stale)
            server.kill()
            assert other.alive()


def test_killing_a_process_takes_its_descendants_along(tmp_path: Path) -> None:
    """`kill` ends a process and its children, and returns when all of them are gone."""
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    leader = process.launch(
        ["sh", "-c", f"sleep 600 & sleep 600 & echo up > {ready}; wait"],
        pid_file=tmp_path / "pid",
        log_file=tmp_path / "log",
        folder=tmp_path,
        environment={"PATH": os.environ["PATH"]},
    )
    assert ready.read_text() == "up\n"
    tree = leader.tree()
    assert len(tree) == 3
    assert process.find(tmp_path / "pid") == leader
    leader.kill()
    assert not any(each.alive() for each in tree)
    assert process.find(tmp_path / "pid") is None


def test_stopping_kills_what_does_not_listen(tmp_path: Path) -> None:
    """A process that ignores the signal is killed when its time is over."""
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    deaf = process.launch(
        ["sh", "-c", f"trap '' TERM; echo up > {ready}; while :; do sleep 600; done"],
        pid_file=tmp_path / "pid",
        log_file=tmp_path / "log",
        folder=tmp_path,
        environment={"PATH": os.environ["PATH"]},
    )
    assert ready.read_text() == "up\n"
    tree = deaf.tree()
    deaf.stop(SIGTERM, 0.1)
    assert not any(each.alive() for each in tree)


def test_process_lives_until_its_last_thread_has_ended() -> None:
    """A first thread that ended makes the state say zombie, while the ports are still held: that is no end."""
    program = (
        "import ctypes, socket, threading\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "threading.Thread(target=server.accept).start()\n"
        "print(server.getsockname()[1], flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            port = int(child.stdout.readline())
            while Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                os.sched_yield()
            found = process.of_pid(child.pid)
            assert found is not None
            assert found.alive()
            assert not found.wait_gone(0)
            assert not ports.is_free(port)
            found.kill()
            assert ports.is_free(port)
            assert not found.alive()
        finally:
            child.kill()


async def test_database_survives_a_kill(own_postgres: PrivatePostgres) -> None:
    """After SIGKILL and a start the committed rows are there, under the same URL."""
    url = own_postgres.url("strongroom_owner")
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
    own_postgres.kill()
    assert own_postgres.running() is None
    connection.terminate()
    own_postgres.start()
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT value FROM kept") == 7
    await connection.close()


async def test_leftovers_of_a_crash_do_not_hinder_a_start(own_postgres: PrivatePostgres) -> None:
    """A half-made cluster, a postmaster whose pid file was lost and a lock file of nobody are dealt with."""
    forgotten = own_postgres.running()
    assert forgotten is not None
    (own_postgres.data / "cluster.unfinished" / "base").mkdir(parents=True)
    own_postgres.place.pid_file(own_postgres.name).unlink()
    own_postgres.start()
    assert not forgotten.alive()
    assert pid_of(own_postgres) != forgotten.pid

    own_postgres.kill()
    with stranger(own_postgres.account) as other:
        (own_postgres.data / "cluster" / "postmaster.pid").write_text(f"{other.pid}\n")
        own_postgres.start()
        assert other.alive()
    connection = await asyncpg.connect(own_postgres.url("strongroom_escrow"))
    await connection.close()


def test_half_made_cluster_is_made_again(folder: Path) -> None:
    """An `initdb` that was interrupted is started over."""
    server = PrivatePostgres(folder)
    server.place.create()
    (server.data / "cluster.unfinished" / "base").mkdir(parents=True)
    server.start()
    assert not (server.data / "cluster.unfinished").exists()


async def test_deleted_folder_starts_anew(folder: Path) -> None:
    """Whoever deletes the folder gets a new server with new passwords; root's old one, kept elsewhere, is ended."""
    server = PrivatePostgres(folder)
    server.start()
    forgotten = server.running()
    assert forgotten is not None
    shutil.rmtree(folder)
    again = PrivatePostgres(folder)
    again.start()
    assert os.geteuid() != 0 or not forgotten.alive()
    forgotten.kill()
    assert again.superuser_url != server.superuser_url
    connection = await asyncpg.connect(again.url("strongroom_owner"))
    await connection.close()


async def test_port_that_was_taken_meanwhile_is_given_up(own_postgres: PrivatePostgres) -> None:
    """When somebody else listens on the port at the next start, the server takes another one."""
    port = own_postgres.port
    own_postgres.stop()
    with socket.create_server(("127.0.0.1", port)):
        own_postgres.start()
        assert own_postgres.port != port
        connection = await asyncpg.connect(own_postgres.url("strongroom_escrow"))
        await connection.close()


def test_server_that_cannot_start_says_why(own_postgres: PrivatePostgres) -> None:
    """The error of a failed start ends with the server's own words."""
    own_postgres.stop()
    (own_postgres.data / "cluster" / "global" / "pg_control").unlink()
    with pytest.raises(StackError, match="pg_control"):
        own_postgres.start()


async def test_broker_keeps_confirmed_messages_through_a_kill(own_broker: PrivateRabbit) -> None:
    """After SIGKILL and a start a confirmed message is still in its queue, under the same URL."""
    url = own_broker.url("operator")
    connection = await aio_pika.connect(url, ssl_context=trust(own_broker))
    channel = await connection.channel(on_return_raises=True)
    exchange = await channel.get_exchange(EXCHANGE, ensure=False)
    message = aio_pika.Message(b"kept", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
    await exchange.publish(message, routing_key="v1.escrow.laptop-0417", timeout=60)
    await connection.close()
    own_broker.kill()
    own_broker.start()
    assert own_broker.url("operator") == url
    async with await aio_pika.connect(url, ssl_context=trust(own_broker)) as connection:
        channel = await connection.channel()
        queue = await channel.get_queue(ESCROW_QUEUE, ensure=False)
        kept = await queue.get(timeout=60)
        assert kept.body == b"kept"
        await kept.ack()


async def test_copies_of_a_template_are_separate_databases(stack: Stack) -> None:
    """A database made from a template holds what the template holds; what is done to one is not in another."""
    database, _ = private_servers(stack)
    database.create_database("pattern", template="strongroom")
    connection = await asyncpg.connect(database.url("strongroom_owner", database="pattern"))
    await connection.execute("CREATE TABLE shape ()")
    await connection.close()
    for name in ("copy_1", "copy_2"):
        database.create_database(name, template="pattern")
    connection = await asyncpg.connect(database.url("strongroom_owner", database="copy_1"))
    await connection.execute("DROP TABLE shape")
    database.drop_database("copy_1")
    connection.terminate()
    connection = await asyncpg.connect(database.url("strongroom_owner", database="copy_2"))
    await connection.execute("SELECT FROM shape")
    await connection.close()
    worker = await asyncpg.connect(database.url("strongroom_escrow", database="copy_2"))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await worker.execute("CREATE TABLE mine ()")
    await worker.close()


async def test_given_database_is_configured_and_left_running(own_postgres: PrivatePostgres, folder: Path) -> None:
    """A server given by its administrator's URL gets the roles, and passwords that only this stack knows."""
    environment = {"STRONGROOM_STACK_DATABASE_ADMIN_URL": own_postgres.superuser_url}
    given = given_database(folder, environment)
    assert isinstance(given, GivenPostgres)
    given.start()
    given.start()
    given.stop()
    for role in ROLES:
        connection = await asyncpg.connect(given.url(role))
        assert await connection.fetchval("SELECT current_user") == role
        await connection.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(own_postgres.url("strongroom_escrow"))


class ManagedRabbit(PrivateRabbit):
    """A node with the management plug-in, as an operator's broker has it."""

    port_names = (*PrivateRabbit.port_names, "management")

    def configure(self) -> None:
        """Add the plug-in and its listener."""
        super().configure()
        self.write("enabled_plugins", "[rabbitmq_management].\n")
        settings = (self.data / "rabbitmq.conf").read_text() + "\n".join(
            [
                f"management.ssl.port = {self.state.ports['management']}",
                "management.ssl.ip = 127.0.0.1",
                f"management.ssl.cacertfile = {self.data / 'ca.pem'}",
                f"management.ssl.certfile = {self.data / 'server.pem'}",
                f"management.ssl.keyfile = {self.data / 'server.key'}\n",
            ]
        )
        self.write("rabbitmq.conf", settings)


async def test_given_broker_is_configured_and_left_running(folder: Path, other_folder: Path) -> None:
    """A broker given by its management URL gets the topology, and passwords that only this stack knows."""
    server = ManagedRabbit(folder)
    server.start()
    login = f"operator:{server.state.passwords['operator']}"
    environment = {
        "STRONGROOM_STACK_BROKER_URL": f"amqps://127.0.0.1:{server.port}",
        "STRONGROOM_STACK_BROKER_ADMIN_URL": f"https://{login}@127.0.0.1:{server.state.ports['management']}",
        "STRONGROOM_STACK_BROKER_CA_FILE": str(server.ca_file),
    }
    given = given_broker(other_folder, environment)
    assert isinstance(given, GivenRabbit)
    given.start()
    given.start()
    given.stop()
    for user in ("fleet", "operator"):
        connection = await aio_pika.connect(given.url(user), ssl_context=trust(server))
        await connection.close()

    admin_url = environment["STRONGROOM_STACK_BROKER_ADMIN_URL"].replace(login, "operator:wrong")
    refused = given_broker(other_folder, {**environment, "STRONGROOM_STACK_BROKER_ADMIN_URL": admin_url})
    assert refused is not None
    with pytest.raises(StackError, match="HTTP 401") as caught:
        refused.start()
    assert "wrong" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"STRONGROOM_STACK_BROKER_URL": "amqps://127.0.0.1:1"}, "both"),
        ({"STRONGROOM_STACK_BROKER_ADMIN_URL": "https://127.0.0.1:1"}, "both"),
        (
            {
                "STRONGROOM_STACK_BROKER_URL": "https://127.0.0.1:1",
                "STRONGROOM_STACK_BROKER_ADMIN_URL": "https://127.0.0.1:1",
            },
            "amqps://",
        ),
        (
            {
                "STRONGROOM_STACK_BROKER_URL": "amqps://127.0.0.1:1",
                "STRONGROOM_STACK_BROKER_ADMIN_URL": "file:///etc/passwd",
            },
            "https://",
        ),
    ],
)
def test_half_a_given_broker_is_refused(tmp_path: Path, environment: dict[str, str], words: str) -> None:
    """One URL without the other, or one of another kind, is an error that names the variable."""
    with pytest.raises(StackError, match=words):
        Stack(tmp_path / "stack", environment)
