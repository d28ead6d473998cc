"""Keys on their way from one authority to another: only there do they open, and nothing else is taken in there."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.agents import NOW, Clock, key, lost, on, once

from strongroom.crypto.signing import SigningKey
from strongroom.errors import (
    Denied,
    ExitCode,
    KeyUnknown,
    LimitExceeded,
    MalformedStatement,
    NoAnswer,
    PermanentError,
    ProofInvalid,
    ReplyInvalid,
    RosterInvalid,
    SignatureInvalid,
    UsageError,
    WrongAuthority,
)
from strongroom.limits import RECORDS_MAX
from strongroom.messages import Destination
from strongroom.replies import Reply
from strongroom.statements import Statement, canonical_json
from strongroom.testing import FakeAuthority, FakeMessage
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import Enrolled, enrol
from strongroom_agent.exporting import Exported, Exporter, move_to
from strongroom_agent.home import Home
from strongroom_agent.import_entries import RefusedEntry
from strongroom_agent.kept_exports import Move
from strongroom_agent.packing import KeyToEscrow
from strongroom_agent.receiving import Receiver
from strongroom_agent.transfer_file import TransferFile

NEW_NAME = "desktop-0001"


@pytest.fixture
def there(clock: Clock) -> FakeAuthority:
    """The other authority."""
    return FakeAuthority("new.example.org", clock=clock)


@pytest.fixture
def officer(officer_home: Callable[[str], Home], authority: FakeAuthority, clock: Clock) -> Iterator[Exporter]:
    with Exporter.open(officer_home("officer-9").path, connector=authority.connect, clock=clock) as opened:
        yield opened


@pytest.fixture
async def receiver(there: FakeAuthority, tmp_path: Path, clock: Clock) -> Receiver:
    document = there.invitation_file(NEW_NAME)
    home = (await enrol(tmp_path / "there", document, connector=there.connect, clock=clock)).home
    return Receiver.open(home.path, connector=there.connect, clock=clock)


@pytest.fixture
def move(there: FakeAuthority) -> Move:
    return to(there)


def to(there: FakeAuthority, principal: str = NEW_NAME) -> Move:
    return move_to(
        "laptop-0417", roster=there.roster.statement, root_key=there.root.public_key, to=principal, now=NOW
    )


def leaks(folder: Path) -> list[Path]:
    """Return the files below a folder that hold a planted key."""
    return [path for path in folder.rglob("*") if path.is_file() and b"planted" in path.read_bytes()]


async def held(agent: Agent, *keys: KeyToEscrow) -> list[str]:
    """Escrow keys and return the ids of their records."""
    delivery = await agent.escrow(keys)
    assert delivery.exit_code is ExitCode.DONE
    return [row.facts.id for row in delivery.records]


async def export(officer: Exporter, move: Move, output: Path, **options: Any) -> Exported:
    given: dict[str, Any] = {"records": None, "reason": "merger", "wait_seconds": 60}
    return await officer.export(move, output=output, **(given | options))


async def exported(authority: FakeAuthority, officer: Exporter, move: Move, output: Path, **options: Any) -> Path:
    """Export with the approvals of two others; return the file."""
    waiting = await export(officer, move, output, **options)
    for each in waiting.waiting:
        authority.approve(each.asked.id, "officer-1", "officer-2")
    done = await export(officer, move, output, **options)
    assert (done.exit_code, done.path) == (ExitCode.DONE, output)
    return output


async def test_keys_arrive_as_they_were_and_open_only_there(
    *,
    agent: Agent,
    authority: FakeAuthority,
    there: FakeAuthority,
    officer: Exporter,
    receiver: Receiver,
    move: Move,
    tmp_path: Path,
) -> None:
    """Same ids, names and bytes; nothing of the file opens to the officer or with the source's keys."""
    one, other = await held(agent, key(b"planted-key-1", "disk"), key(b"planted-key-2", "mail"))
    file = await exported(authority, officer, move, tmp_path / "t")
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"planted" not in file.read_bytes()
    done = await receiver.take_in(file, root_key=authority.root.public_key)
    assert (done.fresh, done.stored, done.exit_code) == (2, 2, ExitCode.DONE)
    assert set(there.workers.records) == {one, other}
    record = there.workers.records[one].record
    assert (record.name, record.kind, record.serial_number) == ("disk", "disk-key", "C02XYZ")
    for name, material in (("disk", b"planted-key-1"), ("mail", b"planted-key-2")):
        assert (await receiver.recover(name=name)).keys[0].material.expose() == material
    assert leaks(tmp_path) == []
    assert list((officer._home.path / "exports").iterdir()) == []


async def test_nothing_is_written_before_enough_agree(
    agent: Agent, authority: FakeAuthority, officer: Exporter, move: Move, tmp_path: Path
) -> None:
    """It waits, exit code 5, with the same request each time; one approval of two is not enough."""
    await held(agent, key())
    first = await export(officer, move, tmp_path / "t")
    assert first.exit_code is ExitCode.WAITING
    [waiting] = first.waiting
    request = authority.workers.docket.cases[waiting.asked.id].request
    assert request.destination == Destination(authority="new.example.org", principal=NEW_NAME)
    assert waiting.asked.recipient_key == move.recipient.kid
    authority.approve(waiting.asked.id, "officer-1")
    again = await export(officer, move, tmp_path / "t")
    assert [each.asked.id for each in again.waiting] == [waiting.asked.id]
    assert not (tmp_path / "t").exists()
    authority.deny(waiting.asked.id, "officer-2")
    denied = await export(officer, move, tmp_path / "t")
    assert denied.exit_code is ExitCode.DENIED
    anew = await export(officer, move, tmp_path / "t")
    assert anew.waiting[0].asked.id != waiting.asked.id


async def test_many_records_are_asked_for_in_as_many_requests_as_need_be(
    *, agent: Agent, authority: FakeAuthority, officer: Exporter, receiver: Receiver, move: Move, tmp_path: Path
) -> None:
    """At most 256 records each; released ones are kept while others wait."""
    ids = await held(agent, *(key(b"%d" % number, f"k{number}") for number in range(RECORDS_MAX + 2)))
    first = await export(officer, move, tmp_path / "t")
    cases = [authority.workers.docket.cases[each.asked.id].request for each in first.waiting]
    assert [len(case.records or ()) for case in cases] == [RECORDS_MAX, 2]
    authority.approve(first.waiting[1].asked.id, "officer-1", "officer-2")
    second = await export(officer, move, tmp_path / "t")
    assert (second.released, second.records, second.exit_code) == (2, len(ids), ExitCode.WAITING)
    authority.approve(first.waiting[0].asked.id, "officer-1", "officer-2")
    # What was released is not asked for again.
    before = len(authority.received)
    assert (await export(officer, move, tmp_path / "t")).exit_code is ExitCode.DONE
    assert len(authority.received) == before + 1
    assert (await receiver.take_in(tmp_path / "t", root_key=authority.root.public_key)).stored == len(ids)


async def test_what_no_release_holds_is_asked_for_in_halves(
    agent: Agent, authority: FakeAuthority, officer: Exporter, move: Move, tmp_path: Path
) -> None:
    """The refusal comes before anybody has agreed; each record ends up in one request."""
    ids = await held(agent, *(key(b"x", f"k{number}") for number in range(5)))
    limited = authority.workers._check_request

    def check(body: Any, **options: bool) -> None:
        limited(body, **options)
        if len(body.records or ()) > 2:
            raise LimitExceeded("release: too long")

    authority.workers._check_request = check  # type: ignore[method-assign]
    done = await export(officer, move, tmp_path / "t", records=ids)
    cases = [authority.workers.docket.cases[each.asked.id].request.records or [] for each in done.waiting]
    assert sorted(id_ for case in cases for id_ in case) == sorted(ids)
    assert max(map(len, cases)) == 2
    assert done.refused == []


async def test_an_answer_that_is_lost_is_asked_for_again(
    agent: Agent, authority: FakeAuthority, officer: Exporter, move: Move, tmp_path: Path
) -> None:
    """The release was logged; the same request gives it again, and it is logged once."""
    await held(agent, key())
    waiting = await export(officer, move, tmp_path / "t")
    authority.approve(waiting.waiting[0].asked.id, "officer-1", "officer-2")
    authority.alter = on("recovery", lost)
    with pytest.raises(NoAnswer):
        await export(officer, move, tmp_path / "t", wait_seconds=0.01)
    size = authority.recovery_log.size
    authority.alter = lambda _message, reply: reply
    assert (await export(officer, move, tmp_path / "t")).exit_code is ExitCode.DONE
    assert authority.recovery_log.size == size


async def test_a_forged_release_is_not_written(
    agent: Agent, authority: FakeAuthority, officer: Exporter, move: Move, tmp_path: Path
) -> None:
    """Signed by another key: refused; the true one comes afterwards."""
    await held(agent, key())
    waiting = await export(officer, move, tmp_path / "t")
    authority.approve(waiting.waiting[0].asked.id, "officer-1", "officer-2")

    def forge(_message: FakeMessage, reply: Reply) -> Reply:
        assert reply.statement is not None
        forged = Statement.sign(reply.statement.type, reply.statement.body, SigningKey.generate())
        return Reply(statement=forged, receipt=reply.receipt, consistency=reply.consistency)

    authority.alter = on("recovery", once(forge))
    with pytest.raises(ReplyInvalid):
        await export(officer, move, tmp_path / "t")
    assert not (tmp_path / "t").exists()
    assert (await export(officer, move, tmp_path / "t")).exit_code is ExitCode.DONE


async def test_only_officers_export_with_a_reason_to_another_authority_that_its_root_key_signs(
    *,
    agent: Agent,
    authority: FakeAuthority,
    there: FakeAuthority,
    officer: Exporter,
    move: Move,
    tmp_path: Path,
    enrolled: Enrolled,
    clock: Clock,
) -> None:
    """And never over a file that is there."""
    await held(agent, key())
    with pytest.raises(RosterInvalid):
        move_to("laptop-0417", roster=there.roster.statement, root_key=bytes(32), to=NEW_NAME, now=NOW)
    with pytest.raises(UsageError, match="reason"):
        await export(officer, move, tmp_path / "t", reason=" ")
    with pytest.raises(UsageError, match="authority that the keys are with"):
        await export(officer, to(authority), tmp_path / "t")
    with (
        Exporter.open(enrolled.home.path, connector=authority.connect, clock=clock) as host,
        pytest.raises(PermanentError, match="host's"),
    ):
        await export(host, move, tmp_path / "t")
    (tmp_path / "t").touch()
    with pytest.raises(UsageError, match="exists"):
        await export(officer, move, tmp_path / "t")
    assert authority.workers.docket.cases == {}


# ---- taking in ---------------------------------------------------------------------------------------


async def test_taking_in_again_changes_nothing(
    *,
    agent: Agent,
    authority: FakeAuthority,
    there: FakeAuthority,
    officer: Exporter,
    receiver: Receiver,
    move: Move,
    tmp_path: Path,
) -> None:
    """Not after it was stored, and not after the answer was lost."""
    await held(agent, key())
    file = await exported(authority, officer, move, tmp_path / "t")
    dry = await receiver.take_in(file, root_key=None, dry_run=True)
    assert (dry.fresh, dry.stored) == (1, 0)
    there.alter = on("escrow", lost)
    assert (await receiver.take_in(file, root_key=None, wait_seconds=0.01)).exit_code is ExitCode.TRY_LATER
    there.alter = lambda _message, reply: reply
    for _ in range(2):
        done = await receiver.take_in(file, root_key=authority.root.public_key)
        assert (done.fresh, done.unchanged, done.stored, done.exit_code) == (0, 1, 1, ExitCode.DONE)
    assert there.escrow_log.size == 1


async def test_the_newest_key_of_a_name_stays_the_newest(
    *,
    agent: Agent,
    authority: FakeAuthority,
    officer: Exporter,
    receiver: Receiver,
    move: Move,
    clock: Clock,
    tmp_path: Path,
) -> None:
    """Among those that are moved, and against a key that was escrowed there before they came."""
    for material in (b"first", b"second"):
        await held(agent, key(material, "disk"))
        clock.seconds += 10
    await held(agent, key(b"old", "mail"))
    clock.seconds += 10
    await held(receiver, key(b"newer, escrowed there", "mail"))
    clock.seconds += 10
    file = await exported(authority, officer, move, tmp_path / "t")
    assert (await receiver.take_in(file, root_key=authority.root.public_key)).stored == 3
    assert (await receiver.recover(name="disk")).keys[0].material.expose() == b"second"
    assert (await receiver.recover(name="mail")).keys[0].material.expose() == b"newer, escrowed there"


@pytest.mark.parametrize(
    ("elsewhere", "error"),
    [("authority", WrongAuthority), ("principal", Denied), ("key", KeyUnknown)],
)
async def test_what_is_for_somebody_else_is_refused(
    *,
    agent: Agent,
    authority: FakeAuthority,
    there: FakeAuthority,
    officer: Exporter,
    receiver: Receiver,
    clock: Clock,
    tmp_path: Path,
    elsewhere: str,
    error: type[PermanentError],
) -> None:
    """Another authority, another principal, a key that this authority does not name."""
    await held(agent, key())
    stranger = FakeAuthority("third.example.org", clock=clock)
    moves = {
        "authority": to(stranger),
        "principal": to(there, "desktop-0002"),
        "key": Move("laptop-0417", to(there).destination, to(stranger).recipient),
    }
    file = await exported(authority, officer, moves[elsewhere], tmp_path / "t")
    with pytest.raises(error):
        await receiver.take_in(file, root_key=authority.root.public_key)
    assert there.workers.records == {}


Damage = Callable[[list[dict[str, Any]]], None]


def flip_blob(lines: list[dict[str, Any]]) -> None:
    """Change the key blob inside the release, as whoever carries the file can."""
    release = lines[1]["release"]
    body = json.loads(b64decode(release["payload"]))
    blob = body["records"][0]["blob"]
    body["records"][0]["blob"] = blob[:-5] + ("A" if blob[-5] != "A" else "B") + blob[-4:]
    release["payload"] = b64encode(canonical_json(body)).decode()


def other_request(lines: list[dict[str, Any]]) -> None:
    """Put the request of another release beside it."""
    lines[1]["request"], lines[2]["request"] = lines[2]["request"], lines[1]["request"]


def readdressed(lines: list[dict[str, Any]]) -> None:
    """Change a word in the request, whose signature nobody looks at here: the release names its digest."""
    body = json.loads(b64decode(lines[1]["request"]["payload"]))
    body["reason"] = "another"
    lines[1]["request"]["payload"] = b64encode(canonical_json(body)).decode()


def other_receipt(lines: list[dict[str, Any]]) -> None:
    """Put the receipt of another release beside it."""
    lines[1]["receipt"], lines[2]["receipt"] = lines[2]["receipt"], lines[1]["receipt"]


def missing(lines: list[dict[str, Any]]) -> None:
    """Leave the last release out."""
    lines.pop()


def renamed(lines: list[dict[str, Any]]) -> None:
    """Say that it is somebody else's."""
    lines[0]["principal"] = "laptop-9999"


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (flip_blob, SignatureInvalid),
        (other_request, MalformedStatement),
        (readdressed, MalformedStatement),
        (other_receipt, ProofInvalid),
        (missing, MalformedStatement),
        (renamed, MalformedStatement),
    ],
)
async def test_a_file_that_was_tampered_with_is_refused_as_a_whole(
    *,
    agent: Agent,
    authority: FakeAuthority,
    there: FakeAuthority,
    officer: Exporter,
    receiver: Receiver,
    move: Move,
    tmp_path: Path,
    damage: Damage,
    error: type[PermanentError],
) -> None:
    """Nothing of it is escrowed, the good releases in it neither."""
    await held(agent, *(key(b"%d" % number, f"k{number}") for number in range(RECORDS_MAX + 1)))
    file = await exported(authority, officer, move, tmp_path / "t")
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    damage(lines)
    file.write_bytes(b"".join(canonical_json(line) + b"\n" for line in lines))
    with pytest.raises(error):
        await receiver.take_in(file, root_key=authority.root.public_key)
    assert there.workers.records == {}
    assert receiver._spool.size() == 0


async def test_without_the_sources_root_key_a_changed_blob_is_taken_and_another_root_key_is_not(
    *,
    agent: Agent,
    authority: FakeAuthority,
    there: FakeAuthority,
    officer: Exporter,
    receiver: Receiver,
    move: Move,
    tmp_path: Path,
) -> None:
    """What is changed then shows when the prover opens it: it does not open."""
    await held(agent, key())
    file = await exported(authority, officer, move, tmp_path / "t")
    with pytest.raises(RosterInvalid):
        await receiver.take_in(file, root_key=there.root.public_key)
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    flip_blob(lines)
    file.write_bytes(b"".join(canonical_json(line) + b"\n" for line in lines))
    assert (await receiver.take_in(file, root_key=None)).stored == 1
    with pytest.raises(PermanentError):
        await receiver.recover(name="disk")


async def test_a_record_id_that_this_home_has_for_another_key_is_refused(
    *,
    agent: Agent,
    authority: FakeAuthority,
    officer: Exporter,
    receiver: Receiver,
    move: Move,
    tmp_path: Path,
) -> None:
    """It is reported, and the others are taken."""
    one, _ = await held(agent, key(b"a", "a"), key(b"b", "b"))
    file = await exported(authority, officer, move, tmp_path / "t")
    await held(receiver, key(b"c", "c"))
    receiver._state.execute("UPDATE records SET id = ? WHERE name = 'c'", one)
    told: list[RefusedEntry] = []
    done = await receiver.take_in(file, root_key=None, refuse=told.append)
    assert [(each.name, each.code) for each in told] == [("a", "record_conflict")]
    assert (done.fresh, done.refused, done.exit_code) == (1, 1, ExitCode.FAILED)


@pytest.mark.parametrize(
    "content", [b"", b"{}\n", b"null\n", b"[]\n", b"garbage\n", b'{"format":"strongroom-transfer/v1"}\n', b"\xff\n"]
)
def test_another_file_is_no_transfer(tmp_path: Path, content: bytes) -> None:
    """Said before anything is read of it."""
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(UsageError, match="no transfer file"):
        TransferFile(tmp_path / "t")


@pytest.mark.parametrize("rest", [b"null\n", b"null\ngarbage", b"[]\n", b"garbage\n", b"{}\n", b"{"])
async def test_what_follows_the_releases_is_refused_and_is_no_end(
    *,
    agent: Agent,
    authority: FakeAuthority,
    officer: Exporter,
    receiver: Receiver,
    move: Move,
    tmp_path: Path,
    rest: bytes,
) -> None:
    """A line that is no object does not pass for the end of the file; nothing is taken in."""
    await held(agent, key())
    file = await exported(authority, officer, move, tmp_path / "t")
    file.write_bytes(file.read_bytes() + rest)
    with pytest.raises(MalformedStatement, match="transfer: "):
        await receiver.take_in(file, root_key=authority.root.public_key)
    assert receiver._spool.size() == 0


async def test_a_file_that_vanishes_or_is_for_somebody_else_is_said_with_what_to_do(
    *, agent: Agent, authority: FakeAuthority, there: FakeAuthority, officer: Exporter, move: Move, tmp_path: Path
) -> None:
    """The first line was read, and the file is opened again for the others."""
    await held(agent, key())
    path = await exported(authority, officer, move, tmp_path / "t")
    file = TransferFile(path)
    [moved] = file.moved()
    for destination in (
        Destination(authority="third.example.org", principal=NEW_NAME),
        Destination(authority="new.example.org", principal="desktop-0002"),
    ):
        with pytest.raises(PermanentError, match="transfer: is for") as other:
            moved.check_for(destination, there.roster)
        assert "strongroom export" in (other.value.hint or "")
    path.unlink()
    with pytest.raises(UsageError, match="No such file") as caught:
        list(file.moved())
    assert "stay in its place" in (caught.value.hint or "")
