"""A private PostgreSQL: TLS and SCRAM only, no Unix socket, roles from `deploy/postgres/roles.sql`."""

import hashlib
import shutil
import subprocess
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from signal import SIGINT, Signals
from typing import ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit, urlunsplit

from deploy.local.accounts import identity
from deploy.local.process import Process, launch, of_pid
from deploy.local.server import PrivateServer, StackError, State

VERSION_MIN = 15
DATABASE = "strongroom"
SUPERUSER = "postgres"
ROLES = ("strongroom_owner", "strongroom_escrow", "strongroom_recovery", "strongroom_auditor")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ROLES_SQL = Path(__file__).parents[1] / "postgres" / "roles.sql"
_DEBIAN_ROOT = Path("/usr/lib/postgresql")
_READY_LINE = 7

# initdb has tried out what this machine's shared memory allows, and written that down.
_CONFIGURATION = """\
include '{cluster}/postgresql.conf'
data_directory = '{cluster}'
hba_file = '{hba}'
ident_file = '{cluster}/pg_ident.conf'
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 100
shared_buffers = 128MB
ssl = on
ssl_cert_file = '{certificate}'
ssl_key_file = '{key}'
ssl_min_protocol_version = 'TLSv1.2'
password_encryption = 'scram-sha-256'
fsync = on
synchronous_commit = on
timezone = 'UTC'
log_timezone = 'UTC'
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
"""
_HBA = "hostssl all all 127.0.0.1/32 scram-sha-256\n"


def programs() -> Path:
    """Return the folder of the newest installed PostgreSQL server's programs.

    Raises:
        StackError: there is none of version 15 or later.
    """
    versions = [int(path.parent.parent.name) for path in _DEBIAN_ROOT.glob("[0-9]*/bin/initdb")]
    if max(versions, default=0) >= VERSION_MIN:
        return _DEBIAN_ROOT / str(max(versions)) / "bin"
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    raise StackError(
        f"there is no PostgreSQL server {VERSION_MIN} or later; on Debian deploy/bootstrap installs it"
    )


def psql(url: str, script: str, *, variables: dict[str, str] | None = None) -> str:
    """Run SQL with psql and return its unaligned output; secrets travel in the environment.

    Args:
        url: a `postgresql://` URL whose query may hold `sslmode` and `sslrootcert`.
        script: SQL and psql commands, read from standard input.
        variables: more environment, for psql's `getenv`.

    Raises:
        StackError: a statement failed; the message is the server's.
    """
    parts = urlsplit(url)
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    environment = {
        "PATH": SYSTEM_PATH,
        "LANG": "C.UTF-8",
        "PGHOST": parts.hostname or "127.0.0.1",
        "PGPORT": str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": unquote(parts.path.lstrip("/")) or SUPERUSER,
        "PGSSLMODE": options.get("sslmode", "prefer"),
        "PGCONNECT_TIMEOUT": "10",
        "PGAPPNAME": "strongroom-local",
        **({"PGSSLROOTCERT": options["sslrootcert"]} if "sslrootcert" in options else {}),
        **(variables or {}),
    }
    result = subprocess.run(
        ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if result.returncode:
        raise StackError(f"psql failed: {result.stderr.strip()}")
    return result.stdout.strip()


class Database(ABC):
    """A PostgreSQL server with the database `strongroom` and the roles `ROLES`, as its administrator sees it."""

    state: State

    @property
    @abstractmethod
    def superuser_url(self) -> str:
        """The URL of the database administrator."""

    def administrator_url(self, database: str) -> str:
        """Return the URL of the database administrator, connected to `database`."""
        return urlunsplit(urlsplit(self.superuser_url)._replace(path=f"/{database}"))

    def url(self, role: str, *, database: str = DATABASE) -> str:
        """Return the URL of one of `ROLES`, with its password.

        Raises:
            StackError: the server was never started, or knows no such role.
        """
        parts = urlsplit(self.superuser_url)
        if role not in ROLES:
            raise StackError(f"no database role {role}: there are {', '.join(ROLES)}")
        address = parts.netloc.rpartition("@")[2]
        return urlunsplit(
            parts._replace(netloc=f"{role}:{self.state.password(role)}@{address}", path=f"/{database}")
        )

    def apply_roles(self) -> None:
        """Make the database and its roles, or bring them to what `deploy/postgres/roles.sql` says; repeatable.

        Raises:
            StackError: the script failed.
        """
        passwords = {f"{role.upper()}_PASSWORD": self.state.password(role) for role in ROLES}
        psql(self.superuser_url, _ROLES_SQL.read_text(), variables=passwords)

    def create_database(self, name: str, *, template: str = "template0") -> None:
        """Make a database of the owner's as a copy of `template`, which nobody may be connected to.

        Privileges on a database are not copied with it, so they are given anew.

        Raises:
            StackError: the name is taken, or the template is in use.
        """
        roles = ", ".join(ROLES)
        psql(
            self.superuser_url,
            f'CREATE DATABASE "{name}" TEMPLATE "{template}" OWNER strongroom_owner;\n'
            f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC;\n'
            f'GRANT CONNECT ON DATABASE "{name}" TO {roles};\n',
        )

    def drop_database(self, name: str) -> None:
        """Drop a database, if it exists, and throw out whoever is connected to it."""
        psql(self.superuser_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE);')


class PrivatePostgres(PrivateServer, Database):
    """A PostgreSQL server of one folder."""

    name: ClassVar[str] = "postgres"
    port_names: ClassVar[tuple[str, ...]] = ("postgresql",)
    stop_signal: ClassVar[Signals] = SIGINT  # a "fast" shutdown; at SIGTERM it would wait for its clients to leave

    @property
    def superuser_url(self) -> str:
        """The URL of the database administrator, connected to the database `postgres`.

        Raises:
            StackError: the server was never started.
        """
        user = f"{SUPERUSER}:{self.state.password(SUPERUSER)}"
        tls = f"sslmode=verify-full&sslrootcert={quote(str(self.ca_file))}"
        return f"postgresql://{user}@127.0.0.1:{self.port}/{SUPERUSER}?{tls}"

    def configure(self) -> None:
        """Run `initdb` once, into a folder that is renamed when complete; write the configuration."""
        cluster = self.data / "cluster"
        for role in (SUPERUSER, *ROLES):
            self.state.password(role)
        if not cluster.exists():
            self._initdb(cluster)
        tls = self.copy_certificates()
        settings = _CONFIGURATION.format(
            cluster=cluster,
            hba=self.write("pg_hba.conf", _HBA),
            port=self.port,
            certificate=tls["server.pem"],
            key=tls["server.key"],
        )
        self.write("postgresql.conf", settings)

    def launch(self) -> Process:
        """Start the postmaster."""
        return launch(
            [str(programs() / "postgres"), "-c", f"config_file={self.data / 'postgresql.conf'}"],
            pid_file=self.place.pid_file(self.name),
            log_file=self.place.log_file(self.name),
            folder=self.data,
            environment=self._environment(),
            account=self.account,
        )

    def is_ready(self, running: Process) -> bool:
        """Read the postmaster's own file: its first line is the pid, its eighth the status."""
        try:
            lines = (self.data / "cluster" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > _READY_LINE and lines[0] == str(running.pid) and lines[_READY_LINE].strip() == "ready"

    def prepare(self) -> None:
        """Apply `roles.sql` when it is not the one that was applied last."""
        digest = hashlib.sha256(_ROLES_SQL.read_bytes()).hexdigest()
        if self.state.prepared != digest:
            self.apply_roles()
            self.state.prepared = digest
            self.save()

    def clear_leftovers(self) -> None:
        """End a postmaster of this very cluster that no pid file of ours speaks of, and remove its lock file.

        The server would trust its lock file's pid, which a zombie keeps taken where nobody reaps orphans.
        """
        super().clear_leftovers()
        cluster = self.data / "cluster"
        lock_file = cluster / "postmaster.pid"
        # That pid may be a stranger's by now, into whom only root may look, or who ends this very moment.
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            pid = int(lock_file.read_text().splitlines()[0])
            postmaster = of_pid(pid)
            if postmaster is not None and Path(f"/proc/{pid}/cwd").readlink() == cluster:
                postmaster.stop(self.stop_signal, self.stop_timeout_s)
        lock_file.unlink(missing_ok=True)

    def _initdb(self, cluster: Path) -> None:
        unfinished = cluster.with_name("cluster.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        password_file = self.write("initdb.password", self.state.passwords[SUPERUSER])
        argv = [
            str(programs() / "initdb"),
            *("--pgdata", str(unfinished), "--username", SUPERUSER, "--pwfile", str(password_file)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--data-checksums"),
        ]
        try:
            result = subprocess.run(
                argv,
                capture_output=True,
                text=True,
                check=False,
                cwd=self.data,
                env=self._environment(),
                umask=0o077,
                **identity(self.account),
            )
        finally:
            password_file.unlink(missing_ok=True)
        if result.returncode:
            raise StackError(f"initdb failed:\n{result.stderr.strip()}")
        self.save()  # the cluster knows this superuser password and no other
        unfinished.rename(cluster)

    def _environment(self) -> dict[str, str]:
        return {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", "HOME": str(self.data)}
