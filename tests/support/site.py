"""A site: an authority on given servers, its workers as real processes, and the homes that are enrolled with it."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Final

import asyncpg
from tests.support.waiting import until
from tests.support.workers import Brokers, Databases

from strongroom import authority as founding
from strongroom import broker as amqp
from strongroom.crypto.sealing import Suite
from strongroom.mandates import LogKey, Officer, Policy, Role
from strongroom.roster import Roster
from strongroom.settings import read_root_key, read_roster
from strongroom_agent.enrolment import enrol
from strongroom_agent.home import Home
from strongroom_agent.identity import attach, create_officer_home
from strongroom_agent.invitation import invite

AUTHORITY: Final = "site.example.org"
PROGRAMS: Final = Path(sys.executable).parent
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
STOP_SECONDS_MAX: Final = 60
LISTENING_SECONDS_MAX: Final = 60


class WorkerProcess:
    """One worker as a process of its own. It dies with this process, and its log outlives it.

    prefix: a command that turns itself into the worker, e.g. `setpriv`.
    """

    def __init__(
        self, kind: str, environment: Mapping[str, str], log_file: Path, *, prefix: tuple[str, ...] = ()
    ) -> None:
        self.kind = kind
        self.environment = dict(environment)
        self.log_file = log_file
        self.exit_codes: list[int] = []
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None
        self._log_begins = 0

    @property
    def pid(self) -> int:
        """The process id while it runs, or of the last run."""
        assert self._process is not None, "it was never started"
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything it has said since it was last started."""
        return self.log_file.read_bytes()[self._log_begins :].decode(errors="replace")

    @property
    def whole_log(self) -> str:
        """Everything it has said, in all its runs."""
        return self.log_file.read_text(errors="replace")

    def start(self) -> None:
        """Start it; it need not listen yet when this returns."""
        Path(self.environment["STRONGROOM_HEALTH_FILE"]).unlink(missing_ok=True)
        command = (str(PROGRAMS / "strongroom"), "worker", self.kind)
        with self.log_file.open("ab") as log:
            self._log_begins = log.tell()
            self._process = subprocess.Popen(
                ("setpriv", "--pdeathsig", "KILL", "--", *self._prefix, *command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": f"{PROGRAMS}:{SYSTEM_PATH}", "LANG": "C.UTF-8", **self.environment},
            )

    async def listening(self) -> None:
        """Wait until it takes messages."""
        await until(self._is_listening, f"the {self.kind} worker listens", seconds_max=LISTENING_SECONDS_MAX)

    def _is_listening(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it ended with {self._process.returncode}:\n{self.log[-2000:]}"
        with suppress(FileNotFoundError):
            beat: dict[str, object] = json.loads(Path(self.environment["STRONGROOM_HEALTH_FILE"]).read_text())
            return beat["pid"] == self.pid and beat["outcome"] != "waiting"
        return False

    async def said(self, words: str) -> None:
        """Wait until these words are in its log."""
        await until(lambda: words in self.log, f"{words!r} in the log of the {self.kind} worker")

    async def ended(self) -> int:
        """Wait for its end and return the exit code, negative for a signal."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, LISTENING_SECONDS_MAX)

    def send(self, number: Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """End it as `kill -9` does, and wait until it is gone. Not for one that is kept running: `send` to that."""
        self.send(SIGKILL)
        await self.ended()

    def stop(self) -> None:
        """End it in an orderly way, if it runs; fail if it does not end, or not with exit code 0."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(SIGTERM)
        try:
            code = self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS_MAX)
            raise
        assert code == 0, f"the {self.kind} worker ended with {code} on SIGTERM:\n{self.log[-2000:]}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["WorkerProcess"]:
        """Start it, wait until it listens, and end it when the block ends."""
        self.start()
        try:
            await self.listening()
            yield self
        finally:
            await asyncio.to_thread(self.stop)

    @asynccontextmanager
    async def kept_running(self) -> AsyncIterator["WorkerProcess"]:
        """Run it, and start it again whenever it ends: what systemd does."""
        self.start()
        keeping = asyncio.create_task(self._keep())
        try:
            await self.listening()
            yield self
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})
            await asyncio.to_thread(self.stop)

    async def _keep(self) -> None:
        while True:
            await until(self._has_ended, f"the end of the {self.kind} worker", seconds_max=float("inf"))
            assert self._process is not None
            self.exit_codes.append(self._process.returncode)
            self.start()

    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None


@dataclass
class Site:
    """An authority with one officer, whose signature alone is enough, and what its workers are told."""

    folder: Path
    databases: Databases
    brokers: Brokers
    roster: Roster
    root_key: bytes
    officer: Path
    _made: list[WorkerProcess] = field(default_factory=list)

    @classmethod
    def found(cls, folder: Path, databases: Databases, brokers: Brokers) -> "Site":
        """Make every key and the first roster in `folder`, unprotected, and the home of one officer."""
        folder.mkdir(mode=0o700, exist_ok=True)
        for name in ("log", "run", "homes"):
            (folder / name).mkdir(mode=0o700)
        keys, officer = folder / "authority", folder / "officer"
        config = create_officer_home(officer, "officer-1", passphrase=None).config
        named = Officer(name=config.name, public_key=config.public_key, roles=list(Role))
        founding.create(
            keys,
            authority=AUTHORITY,
            officers=[named],
            policy=Policy(replacement_signatures=1),
            suite=Suite.X_WING,
            passphrases=founding.Passphrases(root=None, workers=None),
        )
        root_key = read_root_key(keys / "root.pub")
        attach(
            Home.open(officer),
            root_key=root_key,
            roster=(keys / "roster.json").read_bytes(),
            broker_url=brokers.url("officer"),
            agents_broker_url=brokers.url("fleet"),
            broker_ca=brokers.ca_file.read_text(),
            now=int(time.time()),
        )
        roster = Roster.verified(read_roster(keys / "roster.json"), root_key)
        return cls(folder, databases, brokers, roster, root_key, officer)

    @property
    def escrow_log(self) -> LogKey:
        """Origin and key of the escrow log."""
        return self.roster.body.logs.escrow

    # ---- workers ----

    def worker(
        self,
        kind: str,
        name: str | None = None,
        *,
        database_url: str | None = None,
        broker_url: str | None = None,
        prefix: tuple[str, ...] = (),
        **settings: str,
    ) -> WorkerProcess:
        """Return a worker that is not started yet.

        Arguments: `name` tells apart several of a kind, each with its own state; the URLs replace the direct ones;
        `prefix` is that of WorkerProcess.
        """
        name = name or kind
        state = self.folder / f"state-{name}"
        state.mkdir(mode=0o700, exist_ok=True)
        keys = self.folder / "authority"
        environment = {
            "STRONGROOM_DATABASE_URL": database_url or self.databases.url(f"strongroom_{kind}"),
            "STRONGROOM_BROKER_URL": broker_url or self.brokers.url(kind),
            "STRONGROOM_BROKER_CA_FILE": str(self.brokers.ca_file),
            "STRONGROOM_ROOT_KEY_FILE": str(keys / "root.pub"),
            "STRONGROOM_ROSTER_FILE": str(keys / "roster.json"),
            "STRONGROOM_LOG_KEY_FILE": str(keys / kind / "log.key"),
            "STRONGROOM_REPLY_KEY_FILE": str(keys / kind / "reply.key"),
            "STRONGROOM_STATE_DIR": str(state),
            "STRONGROOM_HEALTH_FILE": str(self.folder / "run" / f"{name}.health"),
            **({"STRONGROOM_SEALING_KEYS_DIR": str(keys / kind / "sealing")} if kind == "recovery" else {}),
            **{f"STRONGROOM_{key.upper()}": value for key, value in settings.items()},
        }
        made = WorkerProcess(kind, environment, self.folder / "log" / f"{name}.log", prefix=prefix)
        self._made.append(made)
        return made

    def stop_workers(self) -> None:
        """End every worker of this site that runs."""
        for worker in self._made:
            worker.stop()

    @contextmanager
    def in_force(self) -> Iterator["Site"]:
        """End every worker of this site when the block ends."""
        try:
            yield self
        finally:
            self.stop_workers()

    # ---- homes ----

    @property
    def homes(self) -> list[Path]:
        """Every home that was enrolled here."""
        return sorted(path for path in (self.folder / "homes").iterdir() if (path / "state.db").exists())

    async def enrol(self, principal: str, *, broker_url: str | None = None) -> Path:
        """Enrol a new home, which needs a recovery worker; then let it talk to `broker_url`, if that is given."""
        path = self.folder / "homes" / principal
        await enrol(path, invite(self.officer, principal).document, wait_seconds=60)
        if broker_url is not None:
            self.redirect(path, broker_url)
        return path

    def invitation(self, principal: str) -> bytes:
        """Return an invitation file."""
        return invite(self.officer, principal).document

    def redirect(self, home: Path, broker_url: str) -> None:
        """Let a home talk to another address of the broker."""
        opened = Home.open(home)
        opened.write_config(replace(opened.config, broker_url=broker_url))

    # ---- what is stored ----

    async def rows(self, query: str, *args: object) -> list[asyncpg.Record]:
        """Ask the database as its superuser."""
        connection = await asyncpg.connect(self.databases.superuser_url)
        try:
            return await connection.fetch(query, *args)
        finally:
            await connection.close()

    async def count(self, query: str, *args: object) -> int:
        """Return how many rows a query gives."""
        return len(await self.rows(query, *args))

    # ---- the broker ----

    @asynccontextmanager
    async def connected(self, user: str) -> AsyncIterator[amqp.Connection]:
        """Connect to the broker as one of its users."""
        async with amqp.connect(
            self.brokers.url(user), ca_file=self.brokers.ca_file, name=f"test {user}", timeout_seconds=60
        ) as connection:
            yield connection

    async def purge(self) -> None:
        """Empty all queues."""
        async with self.connected("operator") as connection:
            channel = await connection.channel(confirms=False)
            for queue in ("escrow", "recovery", "quarantine"):
                await channel.queue_purge(queue)

    async def depth(self, queue: str) -> int:
        """Return how many messages of a queue are ready for delivery."""
        async with self.connected("operator") as connection:
            channel = await connection.channel(confirms=False)
            declared = await channel.queue_declare(queue, passive=True)
            return declared.message_count or 0

    async def holds(self, queue: str, count: int) -> None:
        """Wait until exactly so many messages of a queue are ready for delivery."""
        async with self.connected("operator") as connection:
            channel = await connection.channel(confirms=False)

            async def is_so() -> bool:
                return (await channel.queue_declare(queue, passive=True)).message_count == count

            await until(is_so, f"{count} messages in the queue {queue}")
