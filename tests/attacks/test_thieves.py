"""What somebody can do with one thing that he stole: a host, an officer, a worker's keys; beside the database."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from tests.attacks.conftest import OTHER, Stage, is_forked
from tests.conftest import FreshDatabase
from tests.integration.test_recovery_approvals import code_of, done
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.agents import MATERIAL, key
from tests.support.attacker import as_superuser, dump, restore
from tests.support.recovery import Place

from strongroom.crypto.secret import Secret
from strongroom.database import connect
from strongroom.errors import LogForked, Rejected
from strongroom.fields import parse_body
from strongroom.leaves import EscrowLeaf
from strongroom.log_writer import LogName, LogWriter
from strongroom.messages import Escrow
from strongroom.statements import Statement
from strongroom_agent import KeyToEscrow


def escrow_leaf(statement: Statement, **changes: Any) -> bytes:
    """Return the leaf that the escrow worker's stolen key puts into its log; members as given."""
    body = parse_body(statement, Escrow)
    members: dict[str, Any] = {
        "time": make.NOW,
        "id": body.id,
        "digest": statement.digest.hex(),
        "principal": body.principal,
        "key": statement.signatures[0].key_id,
    }
    return EscrowLeaf(**(members | changes)).to_bytes()


# ---- a host ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["recovery", "escrow"])
async def test_a_revoked_host_is_refused_by_both_workers_at_once(stage: Stage, verb: str) -> None:
    """A thief goes on with a stolen home: from the revocation on each worker refuses him, signed, and says so."""
    with capture_logs() as lines:
        async with stage.both_workers():
            with await stage.host() as thief:
                assert (await thief.escrow([key()])).stored == 1
                await done(stage.place, make.revocation())
                if verb == "escrow":
                    assert (await thief.escrow([key(name="second")])).rejected == 1
                else:
                    with pytest.raises(Rejected) as refused:
                        await thief.recover(name="disk")
                    assert refused.value.remote_code == "principal_revoked"
    assert [line["code"] for line in lines if line.get("outcome") == "quarantined"] == ["principal_revoked"]
    assert await stage.place.quarantined() == ["principal_revoked"]


async def test_a_stolen_host_gets_its_own_keys_and_the_owner_is_told(stage: Stage) -> None:
    """By default policy a thief with a host's home gets that host's keys, and no others; its next sync tells it."""
    async with stage.both_workers():
        with await stage.host("one") as one, await stage.host("two", OTHER) as thief:
            for host in (one, thief):
                await host.escrow([key()])
            with pytest.raises(Rejected) as refused:
                await thief.recover(name="disk", principal=make.PRINCIPAL)
            await thief.recover(name="disk")
            mine, theirs = await one.sync(), await thief.sync()
    assert refused.value.remote_code == "denied"
    assert (len(mine.disclosed), len(theirs.disclosed)) == (0, 1)


# ---- one officer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "signers",
    [("officer-a",), ("officer-a", "officer-a"), ("officer-a", "a stranger"), ("officer-a", "officer-d")],
    ids=["alone", "twice", "with a stranger", "with an auditor"],
)
async def test_one_bad_officer_replaces_nobodys_key(place: Place, signers: tuple[str, ...]) -> None:
    """Policy asks for two who may invite: what one signs, however often, enrols no key in a host's place."""
    invited = make.invitation(officers=signers, replaces=True)
    async with place.worker():
        rejection = await place.rejection(make.enrolment(invited, key="the officer's").envelope(), verb="enrol")
        assert await code_of(place, ask.request(key="the officer's")) == "signature_invalid"
        await place.release(ask.request())
    assert rejection.code == "invitation_invalid"
    assert sorted(await place.quarantined()) == ["invitation_invalid", "signature_invalid"]


# ---- the escrow worker -----------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["the victim's key", "the thief's key"])
async def test_the_escrow_workers_keys_put_no_record_under_anybodys_name(place: Place, names: str) -> None:
    """With the log's own key he logs a record that the victim never signed: it is refused, and told as an error."""
    forged = make.escrow(key="a thief", issued_at=make.NOW + 10)
    signer = make.signing_key(make.PRINCIPAL if names == "the victim's key" else "a thief").key_id
    await place.escrow(forged, leaves=[escrow_leaf(forged, key=signer)])
    with capture_logs() as lines:
        async with place.worker():
            assert (await place.refusal(ask.request())).code == "proof_invalid"
    assert [line["log_level"] for line in lines if line["event"] == "message"] == ["error"]


async def test_receipts_for_keys_that_were_thrown_away_are_found_by_the_next_sync(stage: Stage) -> None:
    """He answers with true receipts and drops the keys: the recovery worker's listing does not have them."""
    async with stage.both_workers():
        with await stage.host() as host:
            assert (await host.escrow([key()])).stored == 1
            await as_superuser(stage.databases, "TRUNCATE records, escrow_statements, resealed_blobs")
            report = await host.sync()
    assert report.missing
    assert report.exit_code != 0


# ---- rows that are gone ----------------------------------------------------------------------------------


async def test_a_newest_record_that_was_hidden_is_missed_by_who_holds_its_receipt(stage: Stage) -> None:
    """He deletes the rows of the newest key: an older one comes, and the host names what is missing."""
    async with stage.both_workers():
        with await stage.host() as host:
            await host.escrow([key()])
            stage.place.now += 1
            newest = await host.escrow([KeyToEscrow(material=Secret(b"the newest"), name="disk", kind="disk-key")])
            id_ = newest.records[0].facts.id
            await as_superuser(stage.databases, f"DELETE FROM records WHERE id = '{id_}'")  # noqa: S608
            recovered = await host.recover(name="disk")
            report = await host.sync()
    assert recovered.keys[0].material.expose() == MATERIAL
    assert recovered.missing == (id_,)
    assert id_ in report.missing


# ---- two databases ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fork:
    """A second database, to which the attacker takes one of the workers."""

    database: FreshDatabase

    async def became(self, dumped: str) -> str:
        """Fill it with a dump; return the URL under which the worker takes it for the one it knows."""
        await restore(self.database, dumped)
        return self.database.url("strongroom_recovery")


@pytest.fixture
def fork(database: FreshDatabase) -> Iterator[Fork]:
    name = f"{database.name}_fork"
    database.server.create_database(name, template="strongroom_template")
    yield Fork(FreshDatabase(database.server, name))
    database.server.drop_database(name)


async def enter(place: Place, leaf: bytes) -> None:
    """Put a leaf into the recovery log as another worker does that has the same folder."""
    log = place.roster.body.logs.recovery
    file = place.settings.state_dir / "recovery.checkpoint"
    writer = LogWriter(LogName.RECOVERY, log.origin, make.signing_key("recovery log"), file)
    async with connect(place.databases.url("strongroom_recovery")) as opened:
        await writer.open(opened)
        async with opened.transaction() as tx:
            await writer.lock(tx)
            appended = await writer.append(tx, [leaf])
        await writer.committed(appended)


@pytest.mark.parametrize("is_running", [False, True], ids=["started on it", "running on it"])
async def test_workers_with_one_folder_are_not_shown_two_histories(
    place: Place, fork: Fork, *, is_running: bool
) -> None:
    """He takes one of two workers to an older copy of the database: what the other one knows stops it."""
    async with place.worker():
        await place.release(ask.request())
    url = await fork.became(await dump(place.databases))
    if not is_running:
        async with place.worker():
            await done(place, make.revocation())
        with pytest.raises(LogForked):
            async with place.serving(database_url=SecretStr(url)):
                pass
        return
    async with place.serving(database_url=SecretStr(url)) as (_, task):
        await enter(place, make.revocation_leaf(make.revocation()))
        await place.submit(ask.request().envelope())
        await is_forked(task)


async def test_a_host_notices_that_two_workers_were_shown_two_histories(stage: Stage, fork: Fork) -> None:
    """Workers with a folder each cannot know of each other: hosts that have heard of one log refuse the other."""
    place = stage.place
    async with stage.both_workers():
        with await stage.host() as host:
            await host.escrow([key()])
            await host.recover(name="disk")
            url = await fork.became(await dump(place.databases))
            await host.recover(name="disk")
    async with place.worker(state_dir=place.folder / "second", database_url=SecretStr(url)):
        with stage.agent("host") as host, pytest.raises(LogForked):
            await host.recover(name="disk")
        with stage.agent("host") as host:
            (evidence,) = host._state.evidence()
    assert evidence.log == "recovery"
