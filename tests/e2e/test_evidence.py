"""What is shown of evidence, by real processes: damage in the database is found, named, told, repaired, audited."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from deploy.local.postgres import DATABASE
from deploy.local.trial import Trial
from tests.support import c2sp
from tests.support.command import Command
from tests.support.servers import lent
from tests.support.waiting import until

from strongroom.crypto.cosignatures import vkey
from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode
from strongroom.roster import Roster
from strongroom.settings import read_root_key, read_roster
from strongroom_agent.agent import Agent, KeyToEscrow
from strongroom_agent.checks import Check, Kind, keep_checks
from strongroom_agent.home import Home

HOSTS = 10
KEYS_EACH = 100
AUDITOR = ".local/officer-1"

# Each damages the one blob of the statement at $1 in another way: by its place in the envelope, or altogether.
DAMAGES = {
    "first bit of the enc": "pg_temp.set_byte(envelope, pg_temp.blob_at(envelope, 0))",
    "middle of the enc": "pg_temp.set_byte(envelope, pg_temp.blob_at(envelope, 700))",
    "a bit of the ciphertext": "pg_temp.set_byte(envelope, pg_temp.blob_at(envelope, 1600))",
    "last character of the payload": "pg_temp.set_byte(envelope, position('\"payloadType'::bytea IN envelope) - 5)",
    "a bit of the fingerprint's place": "pg_temp.set_byte(envelope, 60)",
    "the signature": "pg_temp.set_byte(envelope, position('\"sig\"'::bytea IN envelope) + 12)",
    "cut off": "substring(envelope FROM 1 FOR length(envelope) - 100)",
    "empty": "''::bytea",
    "another's statement": "(SELECT envelope FROM escrow_statements WHERE leaf_index = $1 + 1)",
    "garbage": "decode(repeat('00', length(envelope)), 'hex')",
}
_DAMAGE = "UPDATE escrow_statements SET envelope = DAMAGED WHERE leaf_index = $1"
CUTS = (
    "DELETE FROM recovery_leaves WHERE index >= $1",
    "DELETE FROM recovery_nodes WHERE ((index + 1) << level) > $1",
    "DELETE FROM recovery_checkpoints WHERE size > $1",
    "DELETE FROM trust_statements WHERE leaf_index >= $1",
    "DELETE FROM releases WHERE leaf_index >= $1",
    "DELETE FROM requests WHERE leaf_index >= $1",
)
_FUNCTIONS = """
CREATE FUNCTION pg_temp.set_byte(data bytea, at integer) RETURNS bytea LANGUAGE sql AS
$$ SELECT set_byte(data, at, CASE get_byte(data, at) WHEN 65 THEN 66 ELSE 65 END) $$;
CREATE FUNCTION pg_temp.blob_at(data bytea, at integer) RETURNS integer LANGUAGE sql AS
$$ SELECT position('"payload"'::bytea IN data) + 12 + at $$;
"""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, _leftovers_removed: None) -> Iterator[Trial]:
    """A Strongroom of this module's own, because its database is damaged."""
    with lent(tmp_path_factory.mktemp("evidence")) as folder:
        made = Trial(folder, {})
        made.up(lambda _step: None)
        yield made


@pytest.fixture
def strongroom(fleet: Trial, tmp_path: Path) -> Command:
    """The command in a folder with that Strongroom as `.local`."""
    (tmp_path / ".local").symlink_to(fleet.folder)
    return Command(tmp_path)


async def superuser(fleet: Trial, script: str, *args: object) -> list[asyncpg.Record]:
    """Do something to the database as whoever owns it."""
    connection = await asyncpg.connect(fleet.stack.database.administrator_url(DATABASE))
    try:
        await connection.execute(_FUNCTIONS)
        return await connection.fetch(script, *args)
    finally:
        await connection.close()


def host(strongroom: Command, fleet: Trial, name: str) -> Path:
    """Return the home of a host that was enrolled before, or enrol it."""
    home = fleet.folder / name
    if not home.exists():
        invitation = strongroom("invite", name, home=AUDITOR).done()
        (strongroom.folder / "inv.json").write_bytes(invitation.out)
        strongroom("enrol", "inv.json", home=home).done()
    return home


async def escrow_live_keys(home: Path, count: int) -> None:
    """Give the authority so many keys that stay in files of the host, one statement each."""
    folder = home / "live"
    folder.mkdir(mode=0o700)
    paths = {f"key-{number}": folder / f"key-{number}" for number in range(count)}
    keep_checks(Home.open(home), [Check(name, Kind.FILE, (str(path),)) for name, path in paths.items()])
    with Agent.open(home) as agent:
        for name, path in paths.items():
            path.write_bytes(secrets.token_bytes(32))
            key = KeyToEscrow(material=Secret(path.read_bytes()), name=name, kind="session-key")
            await agent.escrow([key], wait_seconds=0)
        report = await agent.sync()
    assert (report.delivery.spooled, report.delivery.rejected) == (0, 0)


def coverage(strongroom: Command) -> dict[str, Any]:
    """Return what the command says of the fleet."""
    return strongroom("coverage", "-o", "json", home=AUDITOR).document


@pytest.mark.timeout(600)
async def test_what_is_damaged_in_the_database_is_named_told_and_made_good(
    fleet: Trial, strongroom: Command
) -> None:
    """Of 1,000 keys ten are damaged in ten ways: exactly those are unprovable; their hosts escrow them anew."""
    homes = [host(strongroom, fleet, f"host-{number}") for number in range(HOSTS)]
    for home in homes:
        await escrow_live_keys(home, KEYS_EACH)
    total = HOSTS * KEYS_EACH
    await until(lambda: coverage(strongroom)["counts"]["proven"] == total, "every key is proven", seconds_max=240)

    for home in homes:
        strongroom("sync", home=home).done()
        strongroom("status", home=home).done()
    rows = await superuser(
        fleet, "SELECT id, leaf_index, principal FROM records ORDER BY leaf_index OFFSET 5 LIMIT $1", 10 * 97
    )
    victims = rows[::97]
    assert len(victims) == len(DAMAGES)
    for victim, damage in zip(victims, DAMAGES.values(), strict=True):
        await superuser(fleet, _DAMAGE.replace("DAMAGED", damage), victim["leaf_index"])
    expected = {str(victim["id"]) for victim in victims}

    def unprovable() -> set[str]:
        return {gap["record"] for gap in coverage(strongroom)["gaps"] if gap["state"] == "unprovable"}

    await until(lambda: unprovable() == expected, "exactly those ten are unprovable", seconds_max=120)
    strongroom("coverage", home=AUDITOR).done(ExitCode.FAILED)

    for name in sorted({victim["principal"] for victim in victims}):
        strongroom("sync", home=fleet.folder / name).done()
    await until(lambda: not unprovable(), "every key is proven again", seconds_max=120)
    after = coverage(strongroom)
    assert after["counts"]["proven"] == total
    assert after["gaps"] == []
    strongroom("coverage", home=AUDITOR).done()

    audit = strongroom("log", "verify", "-o", "json", home=AUDITOR).done(ExitCode.FAILED).document
    errors = [finding for finding in audit["findings"] if finding["severity"] == "error"]
    named = {finding["index"] for finding in errors if finding["log"] == "escrow"}
    assert named == {victim["leaf_index"] for victim in victims}


async def test_an_export_is_accepted_by_a_verifier_of_the_formats_alone(
    fleet: Trial, strongroom: Command, tmp_path: Path
) -> None:
    """Who knows nothing but the C2SP specifications and the log's key finds nothing to object to."""
    await escrow_live_keys(host(strongroom, fleet, "host-exported"), 3)
    strongroom("log", "export", "export", home=AUDITOR)  # what is damaged by now has no statement: it ends with 1
    keys = fleet.folder / "authority"
    logs = Roster.verified(read_roster(keys / "roster.json"), read_root_key(keys / "root.pub")).body.logs
    for name, log in (("escrow", logs.escrow), ("recovery", logs.recovery)):
        assert c2sp.verify_export(tmp_path / "export" / name, vkey(log.origin, log.public_key)) >= 3


async def test_a_record_and_a_log_entry_that_were_deleted_are_both_named(fleet: Trial, strongroom: Command) -> None:
    """Who owns the database takes one key's row and another's entry out: the audit locates each."""
    home = host(strongroom, fleet, "host-deleted")
    await escrow_live_keys(home, 4)
    rows = await superuser(
        fleet, "SELECT id, leaf_index FROM records WHERE principal = $1 ORDER BY leaf_index", home.name
    )
    newest = rows[-1]["leaf_index"]

    async def is_published() -> bool:
        return bool(await superuser(fleet, "SELECT FROM escrow_published WHERE size > $1", newest))

    await until(is_published, "auditors can see the newest leaf")
    await superuser(fleet, "DELETE FROM records WHERE id = $1", rows[0]["id"])
    await superuser(fleet, "DELETE FROM escrow_leaves WHERE index = $1", rows[2]["leaf_index"])
    audit = strongroom("log", "verify", "-o", "json", home=AUDITOR).done(ExitCode.FAILED).document
    places = {(finding["log"], finding["index"], finding["id"]) for finding in audit["findings"]}
    assert ("escrow", rows[0]["leaf_index"], str(rows[0]["id"])) in places
    assert rows[2]["leaf_index"] in {finding["index"] for finding in audit["findings"]}


async def test_a_host_does_not_believe_a_log_that_went_back(fleet: Trial, strongroom: Command) -> None:
    """The recovery log's tail is cut off and the workers forget it: `sync` refuses, and says so from then on."""
    home = host(strongroom, fleet, "host-forked")
    strongroom("sync", home=home).done()
    [head] = await superuser(fleet, "SELECT max(size) AS size FROM recovery_checkpoints")
    (strongroom.folder / "k").write_bytes(secrets.token_bytes(32))
    strongroom("escrow", "k", "--name", "disk", home=home).done()
    strongroom("recover", "--name", "disk", "--out", "k2", home=home).done()
    for worker in ("escrow", "recovery", "prover"):
        fleet.stop_worker(worker)
    for cut in CUTS:
        await superuser(fleet, cut, head["size"])
    for name in ("escrow", "recovery"):
        (fleet.folder / name / "recovery.checkpoint").unlink()
    fleet.up(lambda _step: None)
    refused = strongroom("sync", "-o", "json", home=home).done(ExitCode.FAILED)
    assert "recovery log" in refused.document["error"]
    shown = strongroom("status", "-o", "json", home=home).done(ExitCode.FAILED).document
    assert [each["log"] for each in shown["evidence"]] == ["recovery"]
