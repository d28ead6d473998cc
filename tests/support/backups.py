"""Backups of a real authority's database, taken with PostgreSQL's own tools, and the backup of its keys."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from deploy.local.postgres import SYSTEM_PATH, PrivatePostgres, programs, psql
from tests.conftest import FreshDatabase
from tests.support.attacker import UNGUARDED
from tests.support.site import Site
from tests.support.waiting import until
from tests.support.workers import Brokers

from strongroom.crypto.secret import Secret
from strongroom.migrations import migrate
from strongroom_agent.agent import Agent
from strongroom_agent.packing import KeyToEscrow

BEFORE = 3
"""Escrow statements of each of two hosts before the backups, with `KEYS` records each."""
KEYS = 4
AFTER = 2
"""Escrow statements, of a record each, after the backups and before the end of the archive."""
HOSTS = ("laptop-1", "laptop-2")


@dataclass(frozen=True, slots=True)
class Backups:
    """What a drill gets, and nothing of the authority behind it runs any more.

    custom, plain: of pg_dump. cluster: of pg_basebackup. wal: segments archived since. keys: sealing keys.
    tampered: dumps of copies in which somebody has changed something, by what. states: the workers' folders.
    """

    folder: Path
    tampered: dict[str, Path]
    states: dict[str, Path]
    site: Site

    @property
    def custom(self) -> Path:
        """The dump in custom format."""
        return self.folder / "custom.dump"

    @property
    def plain(self) -> Path:
        """The dump in plain format."""
        return self.folder / "plain.sql"

    @property
    def cluster(self) -> Path:
        """The base backup."""
        return self.folder / "cluster"

    @property
    def wal(self) -> Path:
        """The archived segments."""
        return self.folder / "wal"

    @property
    def keys(self) -> Path:
        """The backup of the sealing keys."""
        return self.folder / "sealing"

    @property
    def root_key(self) -> Path:
        """The root public key."""
        return self.folder / "root.pub"


def run(url: str, program: str, *arguments: str | Path) -> None:
    """Run one of PostgreSQL's programs against a server."""
    parts = urlsplit(url)
    plain = urlunsplit(parts._replace(netloc=f"{parts.username}@{parts.hostname}:{parts.port}"))
    environment = {"PGPASSWORD": unquote(parts.password or ""), "PATH": SYSTEM_PATH, "LANG": "C.UTF-8"}
    argv = [programs() / program, "--no-password", f"--dbname={plain}", *arguments]
    subprocess.run(argv, check=True, env=environment, capture_output=True)


def taken(folder: Path, server: PrivatePostgres, broker: Brokers, tampering: Mapping[str, str]) -> Backups:
    """Run an authority on a server of its own, let two hosts escrow keys, take backups, and stop all of it.

    Arguments: `tampering` gives for each name the SQL that is run in a copy of the database before that is dumped.
    """
    server.start()
    (folder / "wal").mkdir()
    _archive_into(folder / "wal", server)
    database = FreshDatabase(server, "strongroom")
    asyncio.run(migrate(server.url("strongroom_owner")))
    server.create_database("stranger")
    site = Site.found(folder / "site", database, broker)
    asyncio.run(_fill(folder, server, site))
    dumps = {}
    for name, script in tampering.items():
        server.create_database(name, template="strongroom")
        url = server.administrator_url(name)
        psql(url, f"{UNGUARDED}\n{script}")
        dumps[name] = folder / f"{name}.dump"
        run(url, "pg_dump", "--format=custom", f"--file={dumps[name]}")
    dumps["stranger"] = folder / "stranger.dump"
    run(server.administrator_url("stranger"), "pg_dump", "--format=custom", f"--file={dumps['stranger']}")
    server.stop()
    shutil.copytree(site.folder / "authority" / "recovery" / "sealing", folder / "sealing")
    shutil.copy(site.folder / "authority" / "root.pub", folder)
    states = {kind: site.folder / f"state-{kind}" for kind in ("escrow", "recovery")}
    return Backups(folder, dumps, states, site)


def _archive_into(wal: Path, server: PrivatePostgres) -> None:
    """Set up what deploy/BACKUP.md says: archiving, and a role that may take base backups."""
    wal.chmod(0o777)
    psql(
        server.superuser_url,
        f"ALTER SYSTEM SET archive_mode = on;\n"
        f"ALTER SYSTEM SET archive_command = 'test ! -f {wal}/%f && cp %p {wal}/%f';\n",
    )
    server.stop()
    server.start()
    hba = server.data / "pg_hba.conf"
    hba.write_text(hba.read_text() + "hostssl replication all 127.0.0.1/32 scram-sha-256\n")
    psql(server.superuser_url, "SELECT pg_reload_conf();")


async def _fill(folder: Path, server: PrivatePostgres, site: Site) -> None:
    with site.in_force():
        async with site.worker("recovery").running(), site.worker("escrow").running():
            homes = [await site.enrol(name) for name in HOSTS]
            for number in range(BEFORE):
                for home in homes:
                    await _escrow(home, [f"disk-{number}-{key}" for key in range(KEYS)])
            url = server.administrator_url("strongroom")
            run(url, "pg_dump", "--format=custom", f"--file={folder / 'custom.dump'}")
            run(url, "pg_dump", "--format=plain", f"--file={folder / 'plain.sql'}")
            run(url, "pg_basebackup", "--checkpoint=fast", f"--pgdata={folder / 'cluster'}")
            for number in range(AFTER):
                await _escrow(homes[0], [f"later-{number}"])
        segment = psql(url, "SELECT pg_walfile_name(pg_current_wal_insert_lsn()); SELECT pg_switch_wal();").split()[
            0
        ]
        await until((folder / "wal" / segment).exists, f"{segment} is archived")


async def _escrow(home: Path, names: Sequence[str]) -> None:
    with Agent.open(home) as agent:
        keys = [KeyToEscrow(material=Secret(os.urandom(32)), name=name, kind="key") for name in names]
        delivery = await agent.escrow(keys, wait_seconds=60)
        assert delivery.stored == 1, delivery
