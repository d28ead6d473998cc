"""What a worker needs to run in a test: key files, roster, settings, and principals in the recovery log."""

import time
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from uuid import UUID

from tests.support import authority as make

from strongroom import database
from strongroom.crypto.key_file import write_sealing_key, write_signing_key
from strongroom.fields import parse_body
from strongroom.log_writer import LogName, LogWriter
from strongroom.mandates import Enrolment
from strongroom.roster import Roster
from strongroom.statements import Statement

_INSERT = "INSERT INTO trust_statements (digest, id, type, envelope, leaf_index) VALUES ($1, $2, $3, $4, $5)"


class Databases(Protocol):
    """A migrated database that one test has to itself (the fixture `database`)."""

    @property
    def superuser_url(self) -> str:
        """The URL of the administrator."""

    def url(self, role: str) -> str:
        """Return the URL of a role."""


class Brokers(Protocol):
    """A running broker (the fixture `broker`)."""

    @property
    def ca_file(self) -> Path:
        """The certificate that vouches for it."""

    def url(self, user: str) -> str:
        """Return the URL of a user."""

    def rabbitmqctl(self, *arguments: str) -> str:
        """Run `rabbitmqctl` against it."""


def current_roster() -> Roster:
    """Return the roster of `make.authority` as of now: the real clock runs in these tests."""
    now = int(time.time())
    return make.roster(issued_at=now - make.DAY, expires_at=now + 90 * make.DAY)


def write_files(folder: Path, roster: Roster, worker: str) -> dict[str, object]:
    """Write the files of `escrow` or `recovery` below `folder`; return the settings that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "root.pub").write_text(b64encode(make.signing_key("root").public_key).decode())
    (folder / "roster.json").write_bytes(roster.statement.envelope())
    write_signing_key(folder / "log.key", make.signing_key(f"{worker} log"), None)
    write_signing_key(folder / "reply.key", make.signing_key(f"{worker} replies"), None)
    settings: dict[str, object] = {
        "root_key_file": folder / "root.pub",
        "roster_file": folder / "roster.json",
        "log_key_file": folder / "log.key",
        "reply_key_file": folder / "reply.key",
        "state_dir": folder / "state",
        "log_format": "json",
    }
    if worker == "recovery":
        sealing = folder / "sealing"
        sealing.mkdir()
        write_sealing_key(sealing / "sealing.key", make.sealing_key(), None)
        settings["sealing_keys_dir"] = sealing
    return settings


def server_settings(databases: Databases, brokers: Brokers, worker: str) -> dict[str, object]:
    """Return the settings that name the servers for `escrow` or `recovery`."""
    return {
        "database_url": databases.url(f"strongroom_{worker}"),
        "broker_url": brokers.url(worker),
        "broker_ca_file": brokers.ca_file,
    }


async def enrol(databases: Databases, folder: Path, roster: Roster, statements: Sequence[Statement]) -> None:
    """Put the roster and these enrolments into the recovery log, as the recovery worker would."""
    key = make.signing_key("recovery log")
    writer = LogWriter(LogName.RECOVERY, roster.body.logs.recovery.origin, key, folder / "enrol.checkpoint")
    async with database.connect(databases.url("strongroom_recovery")) as opened:
        await writer.open(opened)
        async with opened.transaction() as tx:
            await writer.lock(tx)
            known = [] if writer.size else [roster.statement]
            leaves = [make.roster_leaf(roster) for _ in known] + [make.enrolment_leaf(each) for each in statements]
            appended = await writer.append(tx, leaves)
            for index, statement in enumerate([*known, *statements], start=appended.first_index):
                enrolled = UUID(parse_body(statement, Enrolment).id) if statement.type == Enrolment.TYPE else None
                await tx.execute(
                    _INSERT,
                    statement.digest,
                    enrolled,
                    statement.type,
                    statement.envelope(),
                    index,
                )
        await writer.committed(appended)


async def log_roster(databases: Databases, folder: Path, roster: Roster) -> None:
    """Name another roster in the recovery log, as the recovery worker would."""
    key = make.signing_key("recovery log")
    writer = LogWriter(LogName.RECOVERY, roster.body.logs.recovery.origin, key, folder / "enrol.checkpoint")
    async with database.connect(databases.url("strongroom_recovery")) as opened:
        await writer.open(opened)
        async with opened.transaction() as tx:
            await writer.lock(tx)
            appended = await writer.append(tx, [make.roster_leaf(roster)])
            statement = roster.statement
            await tx.execute(
                _INSERT, statement.digest, None, statement.type, statement.envelope(), appended.first_index
            )
        await writer.committed(appended)


async def enrol_principals(databases: Databases, folder: Path, roster: Roster, *principals: str) -> None:
    """Enrol these principals, each with the key of its name."""
    statements = [make.enrolment(make.invitation(principal), principal) for principal in principals]
    await enrol(databases, folder, roster, statements)
