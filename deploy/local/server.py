"""What the two private servers share: a place, a state file, free ports, a lock, a start and an end."""

import json
import secrets
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from pathlib import Path
from signal import Signals
from typing import ClassVar, Self

from deploy.local import certificates, ports
from deploy.local.accounts import account, private_folder, write_private
from deploy.local.place import Place
from deploy.local.process import Process, find

_START_TRIES_MAX = 3
_POLL_S = 0.05
_LOG_TAIL_LINES = 15


class StackError(Exception):
    """A server cannot be started, reached or ended; the message says what to do about it."""


@dataclass(slots=True)
class State:
    """What a server must find again at its next start. It holds passwords: the file is 0600."""

    ports: dict[str, int] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict, repr=False)
    prepared: str = ""

    def password(self, name: str) -> str:
        """Return the password of `name`, made at the first call."""
        return self.passwords.setdefault(name, secrets.token_urlsafe(24))

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read a state file; an empty state when there is none."""
        try:
            return cls(**json.loads(file.read_text()))
        except FileNotFoundError:
            return cls()

    def save(self, file: Path) -> None:
        """Replace the state file."""
        write_private(file, json.dumps(asdict(self), indent=2) + "\n")


class PrivateServer(ABC):
    """One server that belongs to one folder.

    Its methods hold a lock of that folder, so they may be called from any process at any time; starting what
    runs and stopping what does not are no-ops. Ports stay the same from start to start unless somebody else has
    taken one meanwhile.
    """

    name: ClassVar[str]
    port_names: ClassVar[tuple[str, ...]]
    stop_signal: ClassVar[Signals]
    start_timeout_s: ClassVar[float] = 120
    stop_timeout_s: ClassVar[float] = 60

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder)
        self.account = account(self.name)
        self.state = State.load(self.place.state_file(self.name))

    @property
    def ca_file(self) -> Path:
        """The PEM certificate that vouches for the server."""
        return self.place.ca_file

    @property
    def port(self) -> int:
        """The TCP port that clients connect to.

        Raises:
            StackError: it was never started.
        """
        try:
            return self.state.ports[self.port_names[0]]
        except KeyError:
            raise StackError(f"{self.name} was never started for {self.place.folder}") from None

    @property
    def data(self) -> Path:
        """The folder that the server's user owns."""
        return self.place.data(self.name)

    def running(self) -> Process | None:
        """Return the running server, or None."""
        return find(self.place.pid_file(self.name))

    def start(self) -> None:
        """Start the server and return when it takes connections.

        Raises:
            StackError: it is not installed, or did not come up; the message ends with the end of its log.
        """
        with self.place.locked(self.name):
            self.state = State.load(self.place.state_file(self.name))
            if (running := self.running()) is not None:
                self._await_ready(running)
            else:
                self.clear_leftovers()
                certificates.ensure(self.place)
                self._start_on_free_ports()
            self.prepare()

    def stop(self) -> None:
        """End the server in an orderly way, or by force when it takes longer than `stop_timeout_s`."""
        with self.place.locked(self.name):
            if (running := self.running()) is not None:
                running.stop(self.stop_signal, self.stop_timeout_s)
            self.clear_leftovers()

    def kill(self) -> None:
        """End the server and its children by SIGKILL, as a crash would."""
        with self.place.locked(self.name):
            if (running := self.running()) is not None:
                running.kill()
            self.clear_leftovers()

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    @abstractmethod
    def configure(self) -> None:
        """Make the server's data, when it is not there yet, and the configuration for `state.ports`."""

    @abstractmethod
    def launch(self) -> Process:
        """Start the server's processes and write their pid files."""

    @abstractmethod
    def is_ready(self, running: Process) -> bool:
        """Tell whether this very process takes connections."""

    @abstractmethod
    def prepare(self) -> None:
        """Do what needs a running server, unless it was done; called under the lock after each start."""

    def clear_leftovers(self) -> None:
        """Remove the pid file, and end helpers that a dead server left behind."""
        self.place.pid_file(self.name).unlink(missing_ok=True)

    def save(self) -> None:
        """Write the state file."""
        self.state.save(self.place.state_file(self.name))

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file of the server's own data folder, readable by its user alone, and return its path."""
        path = self.data / name
        write_private(path, content, self.account)
        return path

    def copy_certificates(self) -> dict[str, Path]:
        """Give the server's user its copies of the TLS files, and return their paths by name."""
        tls = self.place.root / "tls"
        names = ("ca.pem", "server.pem", "server.key")
        return {name: self.write(name, (tls / name).read_bytes()) for name in names}

    def log_text(self) -> str:
        """Return what the server has logged since its last start."""
        try:
            return self.place.log_file(self.name).read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def _start_on_free_ports(self) -> None:
        for last in (False,) * (_START_TRIES_MAX - 1) + (True,):
            self.state.ports = ports.choose(self.port_names, self.state.ports)
            private_folder(self.data, self.account)
            self.configure()
            self.save()
            log = self.place.log_file(self.name)
            if log.exists():
                log.replace(log.with_suffix(".log.old"))
            try:
                self._await_ready(self.launch())
            except _PortTakenError:
                if last:
                    raise
            else:
                return

    def _await_ready(self, running: Process) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while not self.is_ready(running):
            if running.wait_gone(_POLL_S):
                raise self._failure("ended while it was starting")
            if time.monotonic() > deadline:
                running.kill()
                raise self._failure(f"did not start within {self.start_timeout_s:.0f} s")

    def _failure(self, what: str) -> StackError:
        log = self.log_text()
        kind = _PortTakenError if "already in use" in log or "eaddrinuse" in log else StackError
        tail = "\n".join(log.splitlines()[-_LOG_TAIL_LINES:])
        return kind(f"{self.name} {what}; the end of {self.place.log_file(self.name)}:\n{tail}")


class _PortTakenError(StackError):
    """Somebody took a port between the choice and the listen."""
