"""Rosters on their way from a file into the recovery log, and the process around the recovery worker."""

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support import authority as make
from tests.support import requests as ask
from tests.support import workers
from tests.support.recovery import ANSWER_SECONDS_MAX, Place, place_of
from tests.support.workers import Brokers, Databases

from strongroom.broker import Consumer, Delivery
from strongroom.crypto.key_file import write_sealing_key, write_signing_key
from strongroom.errors import ConfigurationInvalid, RosterExpired, RosterInvalid, StrongroomError
from strongroom.mandates import Policy
from strongroom.roster import Roster
from strongroom.service import Health
from strongroom_recovery import wiring
from strongroom_recovery.settings import RecoverySettings


@pytest.fixture
async def place(database: Databases, broker: Brokers, tmp_path: Path) -> AsyncIterator[Place]:
    async with place_of(database, broker, tmp_path) as made:
        yield made


async def versions(place: Place) -> list[int]:
    """Return the roster versions that the recovery log names, in order."""
    return [leaf.version for leaf in await place.log() if leaf.type == "roster"]


async def started(place: Place) -> None:
    """Start a worker and stop it again."""
    async with place.worker():
        pass


async def refused(place: Place, roster: Roster, error: type[StrongroomError], words: str) -> None:
    """Start a worker on a roster file that it must not start on; nothing is logged for it."""
    before = await place.log()
    place.write_roster(roster)
    with pytest.raises(error, match=words):
        await started(place)
    assert await place.log() == before


async def test_the_first_start_names_the_roster_in_the_log_and_the_next_does_not_repeat_it(place: Place) -> None:
    """One leaf with its digest and one statement, however often a worker starts."""
    await started(place)
    await started(place)
    (leaf,) = await place.log()
    assert leaf.type == "roster"
    assert (leaf.version, leaf.digest) == (1, place.roster.digest.hex())
    (row,) = await place.rows("SELECT * FROM trust_statements")
    assert (row["digest"], row["id"], row["envelope"]) == (
        place.roster.digest,
        None,
        place.roster.statement.envelope(),
    )


async def test_a_newer_roster_is_adopted_at_start(place: Place) -> None:
    """The log names both versions in order, and the newer one is in force."""
    await started(place)
    place.write_roster(
        make.next_roster(place.roster, officers=[make.officer("officer-b"), make.officer("officer-d")])
    )
    async with place.worker():
        rejection = await place.rejection(make.enrolment(make.invitation()).envelope(), verb="enrol")
    assert rejection.code == "invitation_invalid"
    assert await versions(place) == [1, 2]


async def test_a_worker_does_not_start_on_a_roster_that_the_log_is_past(place: Place) -> None:
    """Older, another one of the same version, or one that does not follow: refused, nothing logged."""
    second = make.next_roster(place.roster)
    place.write_roster(second)
    await started(place)
    await refused(place, place.roster, RosterInvalid, "older")
    await refused(
        place, make.next_roster(place.roster, policy=Policy(replacement_signatures=1)), RosterInvalid, "two"
    )
    broken = make.next_roster(second, previous=place.roster.digest.hex())
    await refused(place, broken, RosterInvalid, "previous")


async def test_a_worker_does_not_start_on_a_roster_of_another_root(place: Place) -> None:
    """The pinned root key decides, also on the very first start."""
    stranger = make.signing_key("another root")
    forged = Roster.verified(make.signed(place.roster.body, stranger), stranger.public_key)
    await refused(place, forged, RosterInvalid, "root key")


async def test_a_worker_waits_at_its_start_for_a_roster_that_is_current(place: Place) -> None:
    """One that is expired or dated in the future is not named in the log; the next attempt reads the file again."""
    await refused(place, make.roster(expires_at=make.NOW - 61), RosterExpired, "expired")
    await refused(place, make.roster(issued_at=make.NOW + 61), RosterExpired, "future")
    place.write_roster(place.roster)
    await started(place)


@pytest.mark.parametrize("file", ["log.key", "reply.key"])
async def test_a_worker_does_not_start_with_other_keys_than_the_roster_names(place: Place, file: str) -> None:
    """Its receipts or answers would be refused by everybody."""
    path = place.settings.log_key_file.with_name(file)
    path.unlink()
    write_signing_key(path, make.signing_key("another key"), None)
    with pytest.raises(ConfigurationInvalid, match=file.removesuffix(".key")):
        await started(place)


async def test_a_worker_does_not_start_without_a_sealing_key_of_the_roster(place: Place) -> None:
    """Records may be sealed to every key of the roster, whatever its state."""
    missing = make.sealing_key("missing")
    place.write_roster(make.roster(sealing_keys=[make.sealing_entry(), make.sealing_entry(missing)]))
    with pytest.raises(ConfigurationInvalid, match=missing.kid):
        await started(place)
    assert place.settings.sealing_keys_dir is not None
    write_sealing_key(place.settings.sealing_keys_dir / "missing.key", missing, None)
    await started(place)


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch) -> asyncio.Queue[None]:
    """Gets an entry each time the worker begins to wait for a message."""
    entries: asyncio.Queue[None] = asyncio.Queue()
    next_batch = Consumer.next_batch

    async def announced(*args: Any) -> list[Delivery]:
        entries.put_nowait(None)
        return await next_batch(*args)

    monkeypatch.setattr(Consumer, "next_batch", announced)
    return entries


async def test_a_roster_put_in_place_while_running_counts_from_the_next_message(
    place: Place, listening: asyncio.Queue[None]
) -> None:
    """An officer who was removed invites nobody any more, without a restart, though the worker was listening."""
    async with place.worker():
        await place.enrol(make.enrolment(make.invitation()))
        await listening.get()
        await listening.get()
        place.write_roster(
            make.next_roster(place.roster, officers=[make.officer("officer-b"), make.officer("officer-d")])
        )
        late = make.enrolment(make.invitation("laptop-0418"), "laptop-0418")
        rejection = await place.rejection(late.envelope(), verb="enrol")
    assert rejection.code == "invitation_invalid"
    assert [leaf.type for leaf in await place.log()] == ["roster", "enrolment", "roster"]


@pytest.mark.parametrize("kind", ["garbage", "gone", "stranger", "unheld key"])
async def test_a_roster_file_that_cannot_be_adopted_is_told_once_and_the_old_roster_stays(
    place: Place, kind: str
) -> None:
    """A damaged or missing file, another root's roster, a sealing key that is not here: work goes on as before."""
    stranger = make.signing_key("another root")
    unheld = [make.sealing_entry(), make.sealing_entry(make.sealing_key("missing"))]
    with capture_logs() as lines:
        async with place.worker():
            match kind:
                case "garbage":
                    place.settings.roster_file.write_bytes(b"garbage")
                case "gone":
                    place.settings.roster_file.unlink()
                case "stranger":
                    body = make.next_roster(place.roster).body
                    place.write_roster(Roster.verified(make.signed(body, stranger), stranger.public_key))
                case _:
                    place.write_roster(make.next_roster(place.roster, sealing_keys=unheld))
            await place.enrol(make.enrolment(make.invitation()))
            await place.refusal(ask.request())
    assert [line["log_level"] for line in lines if line["event"] == "roster refused"] == ["error"]
    assert await versions(place) == [1]


async def adopted_elsewhere(place: Place, roster: Roster) -> None:
    """Let another worker, with a file of its own, adopt a roster."""
    file = place.folder / "elsewhere.json"
    file.write_bytes(roster.statement.envelope())
    settings = place.settings.model_copy(update={"roster_file": file, "state_dir": place.folder / "elsewhere"})
    keys = wiring.read_keys(settings)
    async with wiring.recovery_worker(settings, keys, Health(None), clock=lambda: place.now):
        pass


async def test_one_worker_follows_the_roster_that_another_one_adopted(place: Place) -> None:
    """The log decides which roster is in force, not a worker's own file."""
    async with place.worker():
        await place.enrol(make.enrolment(make.invitation()))
        await adopted_elsewhere(
            place, make.next_roster(place.roster, officers=[make.officer("officer-b"), make.officer("officer-d")])
        )
        late = make.enrolment(make.invitation("laptop-0418"), "laptop-0418")
        rejection = await place.rejection(late.envelope(), verb="enrol")
    assert rejection.code == "invitation_invalid"


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when the worker says that it waits for something."""
    event = asyncio.Event()
    monkeypatch.setattr(Health, "beat", lambda _, outcome: event.set() if outcome == "waiting" else None)
    return event


async def test_a_roster_learned_from_the_log_is_not_judged_by_after_its_expiry(
    place: Place, waiting: asyncio.Event
) -> None:
    """The worker's own roster would be current still; the log names a newer one, which has expired."""
    async with place.worker():
        await place.enrol(make.enrolment(make.invitation("laptop-0418"), "laptop-0418"))
        short = make.next_roster(place.roster, expires_at=make.NOW + 5 * make.DAY)
        await adopted_elsewhere(place, short)
        place.now = make.NOW + 6 * make.DAY
        statement = make.enrolment(make.invitation(expires_at=make.NOW + 20 * make.DAY))
        name = await place.submit(statement.envelope(), verb="enrol")
        await asyncio.wait_for(waiting.wait(), ANSWER_SECONDS_MAX)
        assert [leaf.type for leaf in await place.log()] == ["roster", "enrolment", "roster"]
        place.write_roster(make.next_roster(short, expires_at=make.NOW + 90 * make.DAY))
        place.receipt(await place.answer(name))


async def test_a_worker_asks_for_no_message_once_its_roster_is_expired(place: Place) -> None:
    """Between messages, too, the roster has to be current."""
    async with place.worker() as worker:
        await worker.prepare()
        place.now += 366 * make.DAY
        with pytest.raises(RosterExpired):
            await worker.prepare()


SHORT = make.roster(expires_at=make.NOW + 5 * make.DAY)


async def expired_with_a_message_in_hand(
    place: Place, listening: asyncio.Queue[None], waiting: asyncio.Event
) -> str:
    """Let the roster `SHORT` expire while the worker listens, and send an enrolment; return its name."""
    await asyncio.wait_for(listening.get(), ANSWER_SECONDS_MAX)
    place.now = make.NOW + 6 * make.DAY
    statement = make.enrolment(make.invitation(expires_at=make.NOW + 20 * make.DAY))
    name = await place.submit(statement.envelope(), verb="enrol")
    await asyncio.wait_for(waiting.wait(), ANSWER_SECONDS_MAX)
    assert len(await place.log()) == 1
    return name


async def test_a_message_in_hand_waits_for_a_current_roster(
    place: Place, listening: asyncio.Queue[None], waiting: asyncio.Event
) -> None:
    """Nothing is judged by an expired roster; when the operator replaces the file, the message is answered."""
    place.write_roster(SHORT)
    async with place.worker():
        name = await expired_with_a_message_in_hand(place, listening, waiting)
        place.write_roster(make.next_roster(SHORT, expires_at=make.NOW + 90 * make.DAY))
        place.receipt(await place.answer(name))
    assert [leaf.type for leaf in await place.log()] == ["roster", "roster", "enrolment"]


async def test_a_worker_told_to_stop_while_its_roster_is_expired_gives_the_message_back(
    place: Place, listening: asyncio.Queue[None], waiting: asyncio.Event
) -> None:
    """It is in the queue again, and the next worker, with a current roster, answers it."""
    place.write_roster(SHORT)
    async with place.serving() as (_, task):
        name = await expired_with_a_message_in_hand(place, listening, waiting)
    assert isinstance(task.exception(), RosterExpired)
    place.write_roster(make.next_roster(SHORT, expires_at=make.NOW + 90 * make.DAY))
    async with place.worker():
        place.receipt(await place.answer(name))


async def test_the_whole_worker_takes_no_message_without_a_current_roster_and_goes_on_by_itself(
    place: Place, waiting: asyncio.Event
) -> None:
    """Started on an expired roster it waits; when the operator replaces the file, it answers without a restart."""
    stop = asyncio.Event()
    place.write_roster(make.roster(expires_at=make.NOW - 61))
    name = await place.submit(make.enrolment(make.invitation()).envelope(), verb="enrol")
    with capture_logs() as lines:
        serving = asyncio.create_task(wiring.serve(place.settings, stop, clock=lambda: place.now))
        await asyncio.wait_for(waiting.wait(), ANSWER_SECONDS_MAX)
        place.write_roster(place.roster)
        place.receipt(await place.answer(name))
        stop.set()
        await serving
    assert {line["code"] for line in lines if line["event"] == "backing off"} == {"roster_expired"}


# ---- the process ----


def environment(settings: RecoverySettings) -> dict[str, str]:
    """Return the environment of a recovery worker's process."""
    values: dict[str, Any] = settings.model_dump(exclude_none=True)
    values["database_url"] = settings.database_url.get_secret_value()
    values["broker_url"] = settings.broker_url.get_secret_value()
    ours = {f"STRONGROOM_{name.upper()}": str(value) for name, value in values.items()}
    return {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)} | ours


@asynccontextmanager
async def process(variables: dict[str, str]) -> AsyncIterator[Process]:
    """Run `python -m strongroom_recovery`; it is gone at the end of the block."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "strongroom_recovery", env=variables, stderr=PIPE
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def told(running: Process) -> dict[str, Any]:
    """Return the next line that the process logs."""
    assert running.stderr is not None
    line: dict[str, Any] = json.loads(await running.stderr.readline())
    return line


@pytest.fixture
def live(place: Place) -> Place:
    """The place by the real clock, which a process goes by."""
    place.roster = workers.current_roster()
    place.write_roster(place.roster)
    place.now = int(time.time())
    return place


async def test_the_process_serves_until_it_is_told_to_end_and_then_exits_0(live: Place) -> None:
    """It adopts the roster, answers, and after SIGTERM leaves in peace; its health file says that it lived."""
    settings = live.settings.model_copy(update={"health_file": live.folder / "health"})
    invited = make.invitation(issued_at=live.now, expires_at=live.now + make.DAY)
    async with process(environment(settings)) as running:
        assert (await told(running))["event"] == "roster adopted"
        await live.enrol(make.enrolment(invited, issued_at=live.now))
        line = await told(running)
        assert (line["event"], line["outcome"], line["service"]) == ("message", "enrolled", "recovery")
        running.send_signal(signal.SIGTERM)
        assert await running.wait() == 0
    assert json.loads((live.folder / "health").read_text())["outcome"] in {"listening", "enrolled"}


async def test_a_process_whose_log_was_set_back_stops_with_exit_code_1(live: Place, database: Databases) -> None:
    """A database that has lost what this host has signed is not served: somebody has to look."""
    other_state = live.folder / "other-state"
    await started(live)
    place = live.settings.model_copy(update={"state_dir": other_state})
    shutil.copytree(live.settings.state_dir, other_state)
    for table in ("recovery_checkpoints", "recovery_nodes", "recovery_leaves", "trust_statements"):
        await live.rows(f"TRUNCATE {table}")
    async with process(environment(place)) as running:
        line = await told(running)
        assert await running.wait() == 1
    assert line["code"] == "log_forked"
    assert database.url("strongroom_recovery") not in str(line)


async def test_a_process_that_lacks_a_setting_names_it_and_exits_2(live: Place) -> None:
    """The variable at fault stands in the message."""
    variables = environment(live.settings)
    del variables["STRONGROOM_SEALING_KEYS_DIR"]
    async with process(variables) as running:
        assert running.stderr is not None
        words = (await running.stderr.read()).decode()
        assert await running.wait() == 2
    assert "STRONGROOM_SEALING_KEYS_DIR" in words
    assert "STRONGROOM_KEYRING" in words
