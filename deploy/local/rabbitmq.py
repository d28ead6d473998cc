"""A private RabbitMQ node: TLS only, users and queues from definitions that are loaded at each start."""

import json
import secrets
import shutil
import subprocess
from pathlib import Path
from signal import SIGTERM, Signals
from string import Template
from typing import ClassVar

from deploy.local.accounts import identity
from deploy.local.postgres import SYSTEM_PATH
from deploy.local.process import Process, find, launch
from deploy.local.server import PrivateServer, StackError

from strongroom import topology

USERS = tuple(user.name for user in topology.USERS)
_CONFIGURATION = Path(__file__).parents[1] / "rabbitmq" / "rabbitmq.conf.in"
_DEBIAN_PROGRAMS = Path("/usr/lib/rabbitmq/bin")
_NODE = "strongroom@localhost"
_LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"
_READY = "Server startup complete"
_SALT_BYTES = 4
_CTL_TIMEOUT_S = 60


def programs() -> Path:
    """Return the folder of RabbitMQ's own scripts.

    Debian's wrappers on PATH insist on their own user and their own node, so they are used for nothing.

    Raises:
        StackError: RabbitMQ is not installed.
    """
    if (_DEBIAN_PROGRAMS / "rabbitmq-server").exists():
        return _DEBIAN_PROGRAMS
    if found := shutil.which("rabbitmq-server"):
        return Path(found).resolve().parent
    raise StackError("there is no RabbitMQ server; on Debian deploy/bootstrap installs it")


def render_definitions(passwords: dict[str, str]) -> str:
    """Return the definitions document, JSON, with the salted hashes of the users' passwords."""
    hashes = {user: topology.password_hash(passwords[user], secrets.token_bytes(_SALT_BYTES)) for user in USERS}
    return json.dumps(topology.definitions(hashes))


class PrivateRabbit(PrivateServer):
    """A RabbitMQ node of one folder, with the virtual host, queues and users of `strongroom.topology`.

    It has an epmd (the Erlang port mapper) of its own, so that other nodes on this machine, which may share the
    default one, are neither seen nor disturbed.
    """

    name: ClassVar[str] = "rabbitmq"
    port_names: ClassVar[tuple[str, ...]] = ("amqps", "distribution", "epmd")
    stop_signal: ClassVar[Signals] = SIGTERM

    def url(self, user: str) -> str:
        """Return the AMQP URL of one user, with its password; `ca_file` vouches for the server.

        Raises:
            StackError: the server was never started, or knows no such user.
        """
        port = self.port
        if user not in USERS:
            raise StackError(f"no broker user {user}: there are {', '.join(USERS)}")
        return f"amqps://{user}:{self.state.passwords[user]}@127.0.0.1:{port}/{topology.VHOST}"

    def rabbitmqctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` against this node and return its output; no secret may be among the arguments.

        Raises:
            StackError: it failed; the message is its own.
        """
        result = subprocess.run(
            [str(programs() / "rabbitmqctl"), "--quiet", *arguments],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=_CTL_TIMEOUT_S,
            cwd=self.data,
            env=self._environment(),
            **identity(self.account),
        )
        if result.returncode:
            raise StackError(f"rabbitmqctl {arguments[0]} failed: {(result.stderr or result.stdout).strip()}")
        return result.stdout.strip()

    def configure(self) -> None:
        """Write cookie, plug-in list, definitions and configuration."""
        if not self.state.prepared:
            # A node that was killed inside its first start may have left half a database.
            shutil.rmtree(self.data / "mnesia", ignore_errors=True)
        for user in USERS:
            self.state.password(user)
        self.write(".erlang.cookie", self.state.password("erlang-cookie"))
        self.write("enabled_plugins", "[rabbitmq_auth_mechanism_ssl].\n")
        tls = self.copy_certificates()
        settings = Template(_CONFIGURATION.read_text()).substitute(
            port=self.port,
            agents_ca=self.write("agents-ca.pem", (self.place.root / "tls" / "agents-ca.pem").read_bytes()),
            certificate=tls["server.pem"],
            key=tls["server.key"],
            definitions=self.write("definitions.json", render_definitions(self.state.passwords)),
        )
        self.write("rabbitmq.conf", settings)

    def launch(self) -> Process:
        """Start the port mapper and the node."""
        self._launch("epmd", "epmd")
        return self._launch(self.name, str(programs() / "rabbitmq-server"))

    def is_ready(self, running: Process) -> bool:
        """Look for the line that the node logs after its listeners have been opened."""
        return _READY in self.log_text() and running.alive()

    def prepare(self) -> None:
        """Remember that the first start was completed."""
        if not self.state.prepared:
            self.state.prepared = "started"
            self.save()

    def clear_leftovers(self) -> None:
        """End the port mapper too."""
        super().clear_leftovers()
        if (mapper := find(self.place.pid_file("epmd"))) is not None:
            mapper.stop(SIGTERM, self.stop_timeout_s)
        self.place.pid_file("epmd").unlink(missing_ok=True)

    def _launch(self, name: str, *argv: str) -> Process:
        return launch(
            argv,
            pid_file=self.place.pid_file(name),
            log_file=self.place.log_file(name),
            folder=self.data,
            environment=self._environment(),
            account=self.account,
        )

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": SYSTEM_PATH,
            "LANG": "C.UTF-8",
            "HOME": str(self.data),
            "ERL_AFLAGS": "-start_epmd false",  # or Erlang starts one that nobody would end
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.state.ports["epmd"]),
            "ERL_CRASH_DUMP_BYTES": "0",  # a dump would hold messages
            "RABBITMQ_NODENAME": _NODE,
            "RABBITMQ_DIST_PORT": str(self.state.ports["distribution"]),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": str(self.data / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.data / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.data / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.data / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _LOOPBACK_ONLY,
            "RABBITMQ_CTL_ERL_ARGS": _LOOPBACK_ONLY,
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the node instead of its parent
        }
