"""A whole Strongroom in one folder: both servers, an authority with three officers, both workers, a prover.

- `stack/`: the servers (deploy/local/stack.py)
- `authority/`: keys and roster; no key file is encrypted, for this is a trial
- `officer-1` … `officer-3`: the officers' homes
- `escrow/`, `recovery/`: each worker's state, the prover's is the recovery worker's; `escrow.env`, `recovery.env`,
  `prover.env`: their settings
- `env`: for a shell, `. .local/env`
- `log/`: what the workers say; `run/`: health files, broker URLs

With STRONGROOM_KEYRING, a PKCS #11 URI, in the environment the authority's sealing key is made on that token, and
the recovery worker and the prover use it there; `up` needs the variable each time.
"""

import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from signal import SIGTERM

from deploy.local.accounts import write_private
from deploy.local.postgres import SYSTEM_PATH
from deploy.local.process import Process, find, launch
from deploy.local.server import StackError
from deploy.local.stack import Stack
from deploy.local.supervise import STOP_TIMEOUT_S

from strongroom.errors import OfficerUnknown, StrongroomError
from strongroom.next_rosters import replace_roster
from strongroom.roster import Roster
from strongroom.settings import read_root_key, read_roster
from strongroom_agent.home import Home
from strongroom_agent.identity import check_officer
from strongroom_agent.trust import newest_roster

AUTHORITY = "trial.example.org"
OFFICERS = ("officer-1", "officer-2", "officer-3")
WORKERS = ("escrow", "recovery")
PROVER = "prover"
_PROCESSES = (*WORKERS, PROVER)
_READY_TIMEOUT_S = 120
_POLL_S = 0.05
_LOG_TAIL_LINES = 15
_KEYRING = ("STRONGROOM_KEYRING", "STRONGROOM_KEYRING_PIN_FILE")
# What modules are told in the environment themselves.
_OF_MODULES = ("SOFTHSM2_CONF", "YUBIHSM_PKCS11_CONF")
_ROOT = Path(__file__).parents[2]


class Trial:
    """The local Strongroom of one folder. Every method may be repeated at any time."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        """Look at the folder; raises StackError when the environment gives half a server."""
        self.folder = folder.resolve()
        self.stack = Stack(self.folder / "stack", environment)
        self._programs = Path(sys.executable).parent
        has_token = bool(environment.get(_KEYRING[0]))
        self._token = {
            name: environment[name] for name in (*_KEYRING, *_OF_MODULES) if has_token and environment.get(name)
        }

    def up(self, say: Callable[[str], None]) -> None:
        """Start what is not running, step by step; `say` is told each step that is done.

        Raises:
            StackError: a step failed; the message is what the step said.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("log", "run", *WORKERS):
            (self.folder / name).mkdir(mode=0o700, exist_ok=True)
        self.stack.up()
        say("PostgreSQL and RabbitMQ are running")
        self._strongroom("db", "migrate", environment=self._operator_environment())
        say("the database schema is up to date")
        self._found_authority()
        roster = self._newest_roster()
        self._check_sealing_keys(roster)
        self._tell_officers(roster)
        count = len(roster.body.officers)
        say(f"the authority {AUTHORITY} has {count} {'officer' if count == 1 else 'officers'}")
        self._write_shell_environment()
        for worker in _PROCESSES:
            self._start_worker(worker)
        for worker in _PROCESSES:
            self._await_listening(worker)
        say("the escrow worker and the recovery worker are listening, and the prover is at work")

    def down(self, *, purge: bool = False) -> None:
        """End what `up` started; `purge` deletes all it made, too."""
        for worker in _PROCESSES:
            self.stop_worker(worker)
        self.stack.down(purge=purge)
        if purge and self.folder.exists():
            for name in ("authority", "authority.unfinished", "log", "run", *OFFICERS, *WORKERS):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            for name in ("env", *(f"{worker}.env" for worker in _PROCESSES)):
                (self.folder / name).unlink(missing_ok=True)

    def status(self) -> dict[str, str]:
        """Return one line for each server and worker."""
        words = self.stack.status()
        for worker in _PROCESSES:
            running = self._supervisor(worker)
            words[self._title(worker)] = f"running, supervisor pid {running.pid}" if running else "stopped"
        return words

    def stop_worker(self, worker: str) -> None:
        """End one worker, or the prover, and its supervisor."""
        if (running := self._supervisor(worker)) is not None:
            running.stop(SIGTERM, 2 * STOP_TIMEOUT_S)
        # A supervisor that was killed could not end its worker.
        if (orphan := find(self._pid_file(f"{worker}-worker"))) is not None:
            orphan.stop(SIGTERM, STOP_TIMEOUT_S)

    def _found_authority(self) -> None:
        """Make officers, keys and the first roster once."""
        authority = self.folder / "authority"
        if not authority.exists():
            unfinished = self.folder / "authority.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            cards = [self._make_officer(officer) for officer in OFFICERS]
            self._strongroom(
                *("authority", "init", str(unfinished), "--authority", AUTHORITY, "--no-passphrase"),
                *(word for card in cards for word in ("--officer", str(card))),
                *(("--pkcs11", self._token[_KEYRING[0]]) if self._token else ()),
                environment=self._token,
            )
            unfinished.rename(authority)

    def _newest_roster(self) -> Roster:
        """Return the newest of the roster file and what officers hold; the file holds it when this returns.

        An officer may have been given a roster that the file does not hold yet, or not any more; nobody who has
        seen it would go back behind it. Raises StackError for rosters that do not follow each other.
        """
        file = self.folder / "authority" / "roster.json"
        try:
            root_key = read_root_key(file.with_name("root.pub"))
            written = Roster.verified(read_roster(file), root_key)
            homes = [Home.open(self.folder / officer) for officer in OFFICERS]
            # What a home holds under another root key is not of this authority; `officer trust` says so.
            held = [newest_roster(home) for home in homes if home.config.root_key == root_key]
            newest = max([written, *held], key=lambda roster: roster.body.version)
            for roster in (written, *held):
                newest.check_follows(roster)
            if newest.body.version > written.body.version:
                replace_roster(file, newest)
                sys.stderr.write(
                    f"up: {file} held version {written.body.version}, an officer's home version"
                    f" {newest.body.version}: now the file holds it, too\n"
                )
        except StrongroomError as error:
            raise StackError(f"the roster cannot be used: {error.message}") from None
        return newest

    def _check_sealing_keys(self, roster: Roster) -> None:
        """Raise StackError where no sealing key is in a file and no token is named, as after another `up`."""
        files = [self._sealing_keys / f"{key.kid}.key" for key in roster.body.sealing_keys]
        if not self._token and not any(file.exists() for file in files):
            raise StackError(f"the authority's sealing key is on a token: set {_KEYRING[0]}, as at the first `up`")

    def _tell_officers(self, roster: Roster) -> None:
        """Give each officer whom the roster names the roster and the broker's address; pass over the others."""
        authority = self.folder / "authority"
        for user in ("officer", "fleet"):
            write_private(self.folder / "run" / f"{user}.url", self.stack.broker.url(user) + "\n")
        trust = (
            *("officer", "trust", str(authority / "roster.json"), "--root-key", str(authority / "root.pub")),
            *("--broker-url-file", str(self.folder / "run" / "officer.url")),
            *("--agents-broker-url-file", str(self.folder / "run" / "fleet.url")),
            *(("--broker-ca", str(self.stack.broker.ca_file)) if self.stack.broker.ca_file else ()),
        )
        for officer in OFFICERS:
            home = self.folder / officer
            try:
                check_officer(Home.open(home), roster)
            except OfficerUnknown as error:
                sys.stderr.write(f"up: {home} is passed over: {error.message}\n")
                continue
            self._strongroom(*trust, "--home", str(home))

    def _make_officer(self, officer: str) -> Path:
        home = self.folder / officer
        shutil.rmtree(home, ignore_errors=True)  # of an authority that was never finished
        card = self.folder / "run" / f"{officer}.json"
        write_private(card, self._strongroom("officer", "init", officer, "--home", str(home)))
        return card

    def _operator_environment(self) -> dict[str, str]:
        return {
            "STRONGROOM_DATABASE_URL": self.stack.database.url("strongroom_owner"),
            "STRONGROOM_OPERATOR_BROKER_URL": self.stack.broker.url("operator"),
            **self._broker_ca(),
        }

    def _worker_environment(self, worker: str) -> dict[str, str]:
        keys = self.folder / "authority"
        owner = "recovery" if worker == PROVER else worker
        settings = {
            "STRONGROOM_DATABASE_URL": self.stack.database.url(f"strongroom_{owner}"),
            "STRONGROOM_ROOT_KEY_FILE": str(keys / "root.pub"),
            "STRONGROOM_ROSTER_FILE": str(keys / "roster.json"),
            "STRONGROOM_LOG_KEY_FILE": str(keys / owner / "log.key"),
            "STRONGROOM_STATE_DIR": str(self.folder / owner),
            "STRONGROOM_HEALTH_FILE": str(self._health_file(worker)),
        }
        if owner == "recovery":  # the escrow worker is not told where the sealing private keys are
            settings |= self._token
            if self._sealing_keys.exists():
                settings["STRONGROOM_SEALING_KEYS_DIR"] = str(self._sealing_keys)
        if worker == PROVER:
            return settings | {"STRONGROOM_METRICS_FILE": str(self.folder / "run" / "prover.prom")}
        return {
            **settings,
            "STRONGROOM_BROKER_URL": self.stack.broker.url(worker),
            "STRONGROOM_REPLY_KEY_FILE": str(keys / worker / "reply.key"),
            **self._broker_ca(),
        }

    @property
    def _sealing_keys(self) -> Path:
        """The folder of sealing and transport key files; it may be missing where all are on a token."""
        return self.folder / "authority" / "recovery" / "sealing"

    def _title(self, worker: str) -> str:
        return worker if worker == PROVER else f"{worker} worker"

    def _broker_ca(self) -> dict[str, str]:
        ca_file = self.stack.broker.ca_file
        return {"STRONGROOM_BROKER_CA_FILE": str(ca_file)} if ca_file else {}

    def _write_shell_environment(self) -> None:
        lines = _shell_lines(self._operator_environment(), prefix="export ")
        path = f'export PATH={shlex.quote(str(self._programs))}:"$PATH"\n'
        write_private(self.folder / "env", path + lines)

    def _start_worker(self, worker: str) -> None:
        settings = self._worker_environment(worker)
        file = self.folder / f"{worker}.env"
        lines = _shell_lines(settings)
        if self._supervisor(worker) is not None and file.exists() and file.read_text() == lines:
            return
        self.stop_worker(worker)
        write_private(file, lines)
        self._health_file(worker).unlink(missing_ok=True)
        launch(
            [
                *(sys.executable, "-m", "deploy.local.supervise", str(self._pid_file(f"{worker}-worker")), "--"),
                *(str(self._programs / "strongroom"), "worker", worker),
            ],
            pid_file=self._pid_file(worker),
            log_file=self._log_file(worker),
            folder=_ROOT,
            environment={"PATH": f"{self._programs}:{SYSTEM_PATH}", "LANG": "C.UTF-8", **settings},
        )

    def _await_listening(self, worker: str) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self._is_listening(worker):
            running = self._supervisor(worker)
            if running is None or running.wait_gone(_POLL_S) or time.monotonic() > deadline:
                log = self._log_file(worker)
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])
                raise StackError(f"the {self._title(worker)} does not listen; the end of {log}:\n{tail}")

    def _is_listening(self, worker: str) -> bool:
        try:
            beat = json.loads(self._health_file(worker).read_text())
        except FileNotFoundError:
            return False
        return bool(beat["outcome"] != "waiting")

    def _supervisor(self, worker: str) -> Process | None:
        return find(self._pid_file(worker))

    def _pid_file(self, name: str) -> Path:
        return self.stack.place.pid_file(name)

    def _log_file(self, worker: str) -> Path:
        return self.folder / "log" / f"{worker}.log"

    def _health_file(self, worker: str) -> Path:
        return self.folder / "run" / f"{worker}.health"

    def _strongroom(self, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
        """Run the `strongroom` command and return its standard output."""
        result = subprocess.run(
            [str(self._programs / "strongroom"), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env={
                "PATH": SYSTEM_PATH,
                "LANG": "C.UTF-8",
                "HOME": str(Path.home()),
                **(environment or {}),
            },
        )
        if result.returncode:
            raise StackError(f"strongroom {' '.join(arguments[:2])} failed: {result.stderr.strip()}")
        return result.stdout


def _shell_lines(variables: Mapping[str, str], *, prefix: str = "") -> str:
    return "".join(f"{prefix}{name}={shlex.quote(value)}\n" for name, value in variables.items())
