"""The doctor: looks at everything this place has, says what is wrong and what to do."""

import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import rich_click as click

from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode, StrongroomError
from strongroom_cli.findings import (
    Finding,
    Skipped,
    Verdict,
    enrolment_finding,
    failure,
    officer_finding,
    queue_findings,
    schema_findings,
    skipped,
    skipped_line,
)
from strongroom_cli.options import home_option, output_option, passphrase_option
from strongroom_cli.output import Output, carry_out, when

if TYPE_CHECKING:
    from strongroom.broker import ClientCertificate
    from strongroom.roster import Roster

ROSTER_WARNING_SECONDS: Final = 30 * 86_400
CLOCK_WARNING_SECONDS: Final = 30


@click.command()
@click.option(
    "--health",
    type=click.Path(path_type=Path),
    help="Only look at a worker's health file (for container health checks).",
)
@click.option(
    "--max-age",
    type=click.FloatRange(1, 86_400),
    default=90.0,
    show_default=True,
    metavar="SECONDS",
    help="How old it may be.",
)
@home_option
@passphrase_option
@output_option
def doctor(health: Path | None, max_age: float, home: Path, passphrase: Secret | None, output: Output) -> None:
    """Check what is configured here: home, keys, roster, broker, workers, database, schema, clock.

    It looks at the home folder if there is one, and at every server whose URL is in the environment
    (STRONGROOM_DATABASE_URL, STRONGROOM_BROKER_URL, STRONGROOM_OPERATOR_BROKER_URL); with the operator's also at
    whether workers read their queues, and at the quarantine. What is not configured is named as not looked at.
    Exit code 1 if a check failed.

    Example: `strongroom doctor`
    """
    if health is not None:
        findings = [_health(health, max_age)]
        unseen: list[Skipped] = []
    else:
        findings = [*_home(home, passphrase), *_worker_files()]
        findings += carry_out("Looking around", _servers(home, has_home=home.exists()))
        findings = findings or [_nothing(home)]
        unseen = skipped(os.environ, has_home=home.exists())
    failed = any(finding.verdict is Verdict.FAILED for finding in findings)
    if output.json:
        found, not_looked_at = ([asdict(each) for each in some] for some in (findings, unseen))
        output.document("doctor", {"ok": not failed, "findings": found, "not_looked_at": not_looked_at})
    colours = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.FAILED: "red"}
    for finding in findings:
        mark = click.style(f"{finding.verdict.value:8}", fg=colours[finding.verdict])
        output.line(f"{mark} {finding.check:12} {finding.detail}")
        if finding.advice:
            output.line(f"{'':8} {'':12} next: {finding.advice}")
    if unseen:
        output.line(skipped_line(unseen))
    sys.exit(ExitCode.FAILED if failed else ExitCode.DONE)


def _health(path: Path, max_age: float) -> Finding:
    try:
        beat = json.loads(path.read_text())
        age = time.time() - beat["time"]
    except (OSError, ValueError, KeyError, TypeError):
        return Finding("health", Verdict.FAILED, f"no sign of life in {path}", "read the worker's log")
    if age > max_age:
        return Finding("health", Verdict.FAILED, f"last sign of life {age:.0f} s ago", "restart the worker")
    return Finding("health", Verdict.OK, f"{beat.get('outcome')} {age:.0f} s ago")


def _nothing(home: Path) -> Finding:
    return Finding(
        "setup",
        Verdict.FAILED,
        f"there is no home at {home}, and no server in the environment",
        "a host: `strongroom enrol INVITATION`; a server: set STRONGROOM_DATABASE_URL and STRONGROOM_BROKER_URL",
    )


def _home(path: Path, passphrase: Secret | None) -> Iterator[Finding]:
    if not path.exists():
        return
    from strongroom_agent.home import Home, Role
    from strongroom_agent.identity import signing_key
    from strongroom_agent.state import State
    from strongroom_agent.trust import newest_roster

    try:
        home = Home.open(path)
        yield Finding("home", Verdict.OK, f"{home.config.role.value} {home.config.name} in {path}")
        key = signing_key(home, passphrase)
        yield Finding("key", Verdict.OK, f"signing key {key.key_id} opens")
        if home.config.role is Role.PRINCIPAL:
            with State.open(home.state_file) as state:
                yield enrolment_finding(home.config.name, state.enrolments())
        if home.config.authority is not None:
            roster = newest_roster(home)
            yield from _roster(roster)
            if home.config.role is Role.OFFICER:
                yield officer_finding(home, roster)
    except StrongroomError as error:
        yield failure("home", error)


def _roster(roster: "Roster") -> Iterator[Finding]:
    now = time.time()
    left = roster.body.expires_at - now
    named = f"version {roster.body.version} of {roster.body.authority}"
    if left < 0:
        yield Finding(
            "roster",
            Verdict.FAILED,
            f"{named} expired {when(roster.body.expires_at)}",
            "on a host: `strongroom sync`; at the authority: sign a new roster",
        )
    elif left < ROSTER_WARNING_SECONDS:
        yield Finding(
            "roster",
            Verdict.WARNING,
            f"{named} expires {when(roster.body.expires_at)}",
            "sign a new roster in time",
        )
    else:
        yield Finding("roster", Verdict.OK, f"{named}, expires {when(roster.body.expires_at)}")
    if now < roster.body.issued_at - CLOCK_WARNING_SECONDS:
        yield Finding(
            "clock",
            Verdict.FAILED,
            f"it is {when(int(now))} here, and the roster is from {when(roster.body.issued_at)}",
            "set the clock",
        )


def _worker_files() -> Iterator[Finding]:
    names = ("STRONGROOM_ROOT_KEY_FILE", "STRONGROOM_ROSTER_FILE")
    if not all(os.environ.get(name) for name in names):
        return
    from strongroom.crypto.key_file import read_passphrase
    from strongroom.crypto.keyring import open_keyring
    from strongroom.roster import Roster
    from strongroom.settings import read_root_key, read_roster

    try:
        root_key, roster_file = (Path(os.environ[name]) for name in names)
        roster = Roster.verified(read_roster(roster_file), read_root_key(root_key))
        yield from _roster(roster)
        named = os.environ.get("STRONGROOM_PASSPHRASE_FILE")
        passphrase = read_passphrase(Path(named)) if named else None
        yield from _worker_keys(roster, passphrase)
        folder, uri, pin_file = (
            os.environ.get(f"STRONGROOM_{name}") or None
            for name in ("SEALING_KEYS_DIR", "KEYRING", "KEYRING_PIN_FILE")
        )
        if folder or uri:
            held = open_keyring(uri, _path(folder), pin_file=_path(pin_file), passphrase=passphrase).kids
            where = " and ".join([*([folder] if folder else []), *(["the token"] if uri else [])])
            missing = {key.kid for key in roster.body.sealing_keys} - held
            if missing:
                yield Finding(
                    "sealing keys",
                    Verdict.FAILED,
                    f"the roster names keys that are not in {where}: {', '.join(sorted(missing))}",
                    "restore them from the backup: blobs sealed to them cannot be opened",
                )
            else:
                yield Finding("sealing keys", Verdict.OK, f"{len(held)} open in {where}")
    except StrongroomError as error:
        yield failure("files", error)
    if folder := os.environ.get("STRONGROOM_STATE_DIR"):
        yield _state_dir(Path(folder))


def _path(name: str | None) -> Path | None:
    return Path(name) if name else None


def _worker_keys(roster: "Roster", passphrase: Secret | None) -> Iterator[Finding]:
    """Compare log and reply key with the roster; both have to be those of the same worker."""
    from strongroom.crypto.key_file import read_signing_key

    logs, replies = roster.body.logs, roster.body.replies
    named = {
        "log": {"escrow": logs.escrow.public_key, "recovery": logs.recovery.public_key},
        "reply": {"escrow": replies.escrow, "recovery": replies.recovery},
    }
    workers = set(named["log"])
    for what, owners in named.items():
        path = os.environ.get(f"STRONGROOM_{what.upper()}_KEY_FILE")
        if not path:
            continue
        key = read_signing_key(Path(path), passphrase)
        theirs = {worker for worker, public_key in owners.items() if public_key == key.public_key}
        if workers & theirs:
            workers &= theirs
            yield Finding(
                "key", Verdict.OK, f"{path}: {key.key_id} opens, {what} key of {' and '.join(sorted(theirs))}"
            )
            continue
        version = roster.body.version
        owner = f"the {what} key of {min(theirs)}, not of {min(workers)}" if theirs else f"no worker's {what} key"
        yield Finding(
            "key",
            Verdict.FAILED,
            f"{path}: {key.key_id} is {owner} in roster version {version}",
            "give the worker the key files of its own folder, and the roster that was signed for them",
        )


def _state_dir(folder: Path) -> Finding:
    if not folder.exists():
        return Finding("state", Verdict.WARNING, f"{folder} is not there", "the worker makes it on its first start")
    try:
        with TemporaryFile(dir=folder) as file:
            file.write(b"\0")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Finding(
            "state",
            Verdict.FAILED,
            f"{folder}: cannot be written ({error.strerror})",
            "make it a folder of the worker's user, on a disk with room",
        )
    return Finding("state", Verdict.OK, f"{folder} can be written")


async def _servers(home: Path, *, has_home: bool) -> list[Finding]:
    findings: list[Finding] = []
    if os.environ.get("STRONGROOM_DATABASE_URL") or os.environ.get("STRONGROOM_DATABASE_URL_FILE"):
        findings += [finding async for finding in _database()]
    for variable in ("STRONGROOM_OPERATOR_BROKER_URL", "STRONGROOM_BROKER_URL"):
        if os.environ.get(variable) or os.environ.get(variable + "_FILE"):
            findings += await _broker_in_environment(variable)
    if has_home:
        findings += await _broker_of_home(home)
    return findings


async def _broker_in_environment(variable: str) -> list[Finding]:
    from strongroom_cli.settings import BrokerSettings, OperatorBrokerSettings

    operates = variable == "STRONGROOM_OPERATOR_BROKER_URL"
    try:
        settings: BrokerSettings | OperatorBrokerSettings
        if operates:
            settings = OperatorBrokerSettings.load()
            url = settings.operator_broker_url.get_secret_value()
        else:
            settings = BrokerSettings.load()
            url = settings.broker_url.get_secret_value()
    except StrongroomError as error:
        return [failure("broker", error, f"correct {variable}")]
    return await _broker(url, settings.broker_ca_file, source=variable, queues=True, loads=operates)


async def _broker_of_home(path: Path) -> list[Finding]:
    from strongroom.broker import ClientCertificate
    from strongroom_agent.home import Home

    try:
        home = Home.open(path)
        if home.config.broker_url is None:
            return [Finding("broker", Verdict.WARNING, "this home has no broker yet", "`strongroom officer trust`")]
        files = home.broker_certificate()
    except StrongroomError as error:
        return [failure("broker", error, f"see to the home {path}")]
    certificate = ClientCertificate(*files) if files else None
    return await _broker(home.config.broker_url, home.broker_ca, source=str(path), certificate=certificate)


async def _broker(
    url: str,
    ca_file: Path | None,
    *,
    source: str,
    queues: bool = False,
    loads: bool = False,
    certificate: "ClientCertificate | None" = None,
) -> list[Finding]:
    """Look at a broker as one account; `source` is where its URL stands.

    `queues`: compare the topology. `loads`: count who reads the queues, and what lies in them.
    """
    from strongroom import broker

    who = _account(url, certificate)
    try:
        async with broker.connect(
            url, ca_file=ca_file, name="strongroom doctor", timeout_seconds=10, certificate=certificate
        ) as connection:
            differences = await broker.check_topology(connection) if queues else []
            counted = await broker.queue_loads(connection) if loads else []
    except StrongroomError as error:
        advice = f"start the broker, or correct its address in {source}"
        return [replace(found := failure("broker", error, advice), detail=f"{who}: {found.detail}")]
    if differences:
        problems = "; ".join(str(each) for each in differences)
        found = Finding("broker", Verdict.FAILED, f"{who}: {problems}", "run `strongroom broker apply`")
    else:
        found = Finding("broker", Verdict.OK, f"{connection.where} answers {who}")
    return [found, *queue_findings(counted)]


def _account(url: str, certificate: "ClientCertificate | None") -> str:
    """Return as whom a broker is looked at; the rest of a URL may hold a password and is never shown."""
    from strongroom.broker.endpoint import printable

    if certificate is not None:
        return f"the certificate {certificate.file}"
    with suppress(ValueError):
        return f"the account {printable(unquote(urlsplit(url).username or '-'))}"
    return "the account -"


async def _database() -> AsyncIterator[Finding]:
    from strongroom import database
    from strongroom.migrations import check
    from strongroom_cli.settings import DatabaseSettings

    try:
        url = DatabaseSettings.load().database_url.get_secret_value()
        async with database.connect(url, connections_max=1) as opened:
            async with opened.reading() as tx:
                theirs = await tx.fetch_value("SELECT extract(epoch FROM clock_timestamp())::bigint")
            yield Finding("database", Verdict.OK, "answers")
        skew = abs(int(theirs) - time.time())
        if skew > CLOCK_WARNING_SECONDS:
            yield Finding(
                "clock", Verdict.FAILED, f"{skew:.0f} s apart from the database's", "set both clocks by NTP"
            )
        else:
            yield Finding("clock", Verdict.OK, f"{skew:.0f} s apart from the database's")
        for finding in schema_findings(await check(url)):
            yield finding
    except StrongroomError as error:
        yield failure("database", error)
