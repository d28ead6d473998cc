import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.attacker import ask_superuser
from tests.support.recovery import ANSWER_SECONDS_MAX, Place, place_of
from tests.support.relay import Relay
from tests.support.workers import Brokers, Databases

from strongroom.blobs import ReleaseContext, check_fingerprint, open_material
from strongroom.crypto import tlog
from strongroom.crypto.notes import parse_checkpoint
from strongroom.crypto.sealing import Suite
from strongroom.errors import CommitUnknown, DatabaseUnavailable
from strongroom.fields import Capacity, new_id, parse_body
from strongroom.limits import HISTORY_RECORDS_MAX
from strongroom.log_writer import LogWriter
from strongroom.mandates import Enrolment
from strongroom.messages import Escrow, Listing, RecordState, Rejection, Release, Request
from strongroom.replies import ROSTER_VERSION_HEADER, TREE_SIZE_HEADER
from strongroom.service import Health
from strongroom.statements import Statement
from strongroom_recovery import store

OTHER = "laptop-0418"
OFFICER: dict[str, Any] = {"requester": "officer-a", "requester_kind": Capacity.OFFICER}
MATERIAL = b"planted-canary-key-material"


class Beats(Health):
    """Remembers the signs of life instead of writing them to a file."""

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__(None)
        self.told: list[str] = []
        self.waiting = asyncio.Event()

    def beat(self, outcome: str) -> None:
        """Remember one."""
        self.told.append(outcome)
        if outcome == "waiting":
            self.waiting.set()


@pytest.fixture
async def place(database: Databases, broker: Brokers, tmp_path: Path) -> AsyncIterator[Place]:
    async with place_of(database, broker, tmp_path, enrolled=(make.PRINCIPAL, OTHER)) as made:
        yield made


@pytest.fixture
async def empty(database: Databases, broker: Brokers, tmp_path: Path) -> AsyncIterator[Place]:
    async with place_of(database, broker, tmp_path) as made:
        yield made


def opened(release: Release, request: Statement, suite: Suite = Suite.X_WING) -> list[bytes]:
    """Open what a release holds, as the requester does, fingerprints included."""
    key = ask.recipient(suite)
    materials = []
    for record in release.records:
        context = ReleaseContext(make.AUTHORITY, request.digest, record.principal, record.id, key.kid)
        material = open_material(record.blob, context, key)
        check_fingerprint(material, make.AUTHORITY, record.principal, record.id, record.fingerprint)
        materials.append(material.material.expose())
    return materials


def replacement(key: str = "the new key") -> Statement:
    return make.enrolment(make.invitation(officers=("officer-a", "officer-b"), replaces=True), key=key)


async def kinds(place: Place) -> Sequence[str]:
    """Return the types of the recovery log's leaves after those that the place began with."""
    return [leaf.type for leaf in await place.log()][3:]


# ---- enrolment ----


async def test_an_enrolment_is_in_the_log_before_its_receipt_leaves(empty: Place) -> None:
    """The receipt's leaf names statement and key, and the envelope lies in the database byte for byte."""
    statement = make.enrolment(make.invitation())
    async with empty.worker():
        receipt = await empty.enrol(statement)
    roster, leaf = await empty.log()
    assert roster.type == "roster"
    assert leaf.type == "enrolment"
    assert leaf.to_bytes() == receipt.leaf
    assert (leaf.digest, leaf.key) == (statement.digest.hex(), make.signing_key(make.PRINCIPAL).key_id)
    (row,) = await empty.rows("SELECT * FROM trust_statements WHERE type = $1", Enrolment.TYPE)
    assert (str(row["id"]), row["envelope"], row["leaf_index"]) == (leaf.id, statement.envelope(), receipt.index)


async def test_an_enrolment_that_is_repeated_gets_the_same_leaf(empty: Place) -> None:
    """Once stored, the same statement is proven again, also when its invitation has expired meanwhile."""
    statement = make.enrolment(make.invitation())
    async with empty.worker():
        first = await empty.enrol(statement)
        empty.now += 10 * make.DAY
        second = await empty.enrol(statement)
    assert (first.leaf, first.index) == (second.leaf, second.index)
    assert len(await empty.log()) == 2


async def test_an_enrolment_id_with_other_bytes_is_a_conflict(empty: Place) -> None:
    """A second enrolment under a stored id is refused and quarantined."""
    statement = make.enrolment(make.invitation())
    async with empty.worker():
        await empty.enrol(statement)
        other = make.enrolment(make.invitation(OTHER), OTHER, id=parse_body(statement, Enrolment).id)
        rejection = await empty.rejection(other.envelope(), verb="enrol")
    assert rejection.code == "statement_conflict"
    assert len(await empty.log()) == 2


async def test_of_two_hosts_with_one_invitation_one_is_enrolled(empty: Place) -> None:
    """Two workers at once and two keys on one invitation: one leaf, one rejection."""
    invited = make.invitation()
    bodies = [make.enrolment(invited, key=key).envelope() for key in ("first key", "second key")]
    async with empty.worker(), empty.worker(state_dir=empty.folder / "second"):
        replies = await asyncio.gather(*(empty.ask(body, verb="enrol") for body in bodies))
    assert sorted(reply.receipt is not None for reply in replies) == [False, True]
    assert [leaf.type for leaf in await empty.log()] == ["roster", "enrolment"]
    assert await empty.quarantined() == ["invitation_invalid"]


async def test_an_enrolled_principal_needs_a_replacement_invitation(place: Place) -> None:
    """A plain invitation does not take the name over; one by enough officers does."""
    async with place.worker():
        rejection = await place.rejection(make.enrolment(make.invitation(), key="x").envelope(), verb="enrol")
        await place.enrol(replacement())
    assert rejection.code == "invitation_invalid"
    assert await kinds(place) == ["enrolment"]


# ---- recovery ----


async def test_an_escrowed_key_comes_back_on_the_record(place: Place) -> None:
    """The key opens with the requester's one-time key, and request and release are in database and log."""
    record = make.record(material=MATERIAL)
    await place.escrow(make.escrow(records=[record]))
    request = ask.request()
    async with place.worker():
        release = await place.release(request)
    assert opened(release, request) == [MATERIAL]
    assert [entry.id for entry in release.history] == [record.id]
    asked, released = (await place.log())[3:]
    assert (asked.type, released.type) == ("request", "release")
    assert released.type == "release"
    assert released.records == [record.id]
    (row,) = await place.rows("SELECT * FROM requests")
    assert (row["digest"], row["envelope"], row["leaf_index"]) == (request.digest, request.envelope(), 3)
    (row,) = await place.rows("SELECT * FROM releases")
    assert (str(row["request_id"]), row["leaf_index"]) == (release.request, 4)


async def test_an_enrolled_host_that_lost_everything_gets_its_old_keys_with_its_new_key(empty: Place) -> None:
    """Enrol, escrow, lose the key, be replaced by the officers, recover; the old key gets nothing."""
    async with empty.worker():
        await empty.enrol(make.enrolment(make.invitation()))
        await empty.escrow(make.escrow(records=[make.record(material=MATERIAL)]))
        await empty.enrol(replacement())
        request = ask.request(key="the new key")
        release = await empty.release(request)
        rejection = await empty.rejection(ask.request().envelope())
    assert opened(release, request) == [MATERIAL]
    assert rejection.code == "principal_revoked"
    assert [leaf.type for leaf in await empty.log()] == ["roster", "enrolment", "enrolment", "request", "release"]


async def test_a_recipient_key_of_the_hardware_suite_works_as_well(place: Place) -> None:
    """A key sealed under X-Wing is released to a one-time P-256 key."""
    await place.escrow(make.escrow(records=[make.record(material=MATERIAL)]))
    key = ask.recipient(Suite.P256).public_key
    request = ask.request(recipient_suite=Suite.P256, recipient_key=key)
    async with place.worker():
        release = await place.release(request)
    assert opened(release, request, Suite.P256) == [MATERIAL]


async def test_a_name_gives_its_newest_record_and_the_history(place: Place) -> None:
    """The newest by what was signed, whatever came first into the database; older ones are there by id."""
    times = {make.NOW - 20: b"older", make.NOW - 10: b"newest", make.NOW - 30: b"oldest"}
    statements = [make.escrow(issued_at=at, records=[make.record(material=text)]) for at, text in times.items()]
    await place.escrow(*statements, make.escrow(records=[make.record(name="another", material=b"another")]))
    ids = [parse_body(statement, Escrow).records[0].id for statement in statements]
    by_name, by_id = ask.request(), ask.request(records=[ids[2], ids[0]])
    async with place.worker():
        newest, older = await place.release(by_name), await place.release(by_id)
    assert opened(newest, by_name) == [b"newest"]
    assert [entry.id for entry in newest.history] == [ids[1], ids[0], ids[2]]
    assert opened(older, by_id) == [b"oldest", b"older"]
    assert older.history == []


async def test_a_name_with_more_records_than_a_history_holds_gives_the_newest_of_them(place: Place) -> None:
    """Only the newest are read: older ones, verified or not, neither stand in the history nor in the way."""
    spoilt = make.escrow(issued_at=make.NOW - 20)
    older = make.escrow(issued_at=make.NOW - 10, records=[make.record() for _ in range(HISTORY_RECORDS_MAX - 1)])
    newest = make.escrow(records=[make.record(material=b"newest")])
    await place.escrow(spoilt, older, newest)
    unread = UUID(parse_body(spoilt, Escrow).id)
    await ask_superuser(place.databases, "UPDATE escrow_statements SET envelope = '' WHERE id = $1", unread)
    request = ask.request()
    async with place.worker():
        release = await place.release(request)
    assert opened(release, request) == [b"newest"]
    ids = [record.id for record in parse_body(older, Escrow).records]
    assert [entry.id for entry in release.history[1:]] == sorted(ids, reverse=True)
    assert len(release.history) == HISTORY_RECORDS_MAX


async def test_of_two_records_with_one_time_the_greater_id_is_the_newest(place: Place) -> None:
    """Equal times are settled by record id, also inside one statement."""
    records = sorted((make.record(material=b"%d" % n) for n in range(3)), key=lambda record: record.id)
    await place.escrow(make.escrow(records=[records[2], records[0], records[1]]))
    async with place.worker():
        release = await place.release(ask.request())
    assert [record.id for record in release.records] == [records[2].id]


async def test_256_records_are_released_at_once(place: Place) -> None:
    """The largest selection comes back whole, in the order asked."""
    records = [make.record(name=f"key {n}", material=b"%d" % n) for n in range(256)]
    await place.escrow(make.escrow(records=records[:100]), make.escrow(records=records[100:]))
    request = ask.request(records=[record.id for record in reversed(records)])
    async with place.worker():
        release = await place.release(request)
    assert opened(release, request) == [b"%d" % n for n in reversed(range(256))]


async def test_a_release_over_the_body_limit_is_refused_and_nothing_is_disclosed(place: Place) -> None:
    """Sixteen keys of 64 KiB do not fit; the refusal names the limit, and the records stay undisclosed."""
    records = [make.record(name=f"key {n}", material=bytes(65_536)) for n in range(16)]
    await place.escrow(*(make.escrow(records=records[n : n + 8]) for n in (0, 8)))
    async with place.worker():
        rejection = await place.refusal(ask.request(records=[record.id for record in records]))
        fitting = ask.request(records=[record.id for record in records[:8]])
        release = await place.release(fitting)
    assert rejection.code == "limit_exceeded"
    assert "1048576 bytes" in rejection.message
    assert opened(release, fitting) == [bytes(65_536)] * 8
    assert len(await place.rows("SELECT * FROM releases")) == 1


async def test_the_checkpoint_is_on_this_hosts_disk_before_an_answer_leaves(place: Place) -> None:
    """After each answer the checkpoint file is at the size that its receipt speaks of: it cannot be taken back."""

    def kept() -> int:
        return parse_checkpoint((place.settings.state_dir / "recovery.checkpoint").read_text())[0].size

    await place.escrow(make.escrow())
    async with place.worker():
        for body in (ask.request().envelope(), ask.request(name="nothing").envelope(), replacement().envelope()):
            assert place.receipt(await place.ask(body)).checkpoint.size == kept()


# ---- repeats ----


async def test_a_request_that_is_repeated_gets_the_same_release(place: Place) -> None:
    """Byte for byte, after a restart and after its expiry, with a receipt of the same leaf, and nothing logged."""
    await place.escrow(make.escrow())
    request = ask.request().envelope()
    async with place.worker():
        first = await place.ask(request)
        again = await place.ask(request)
    place.now += 10 * make.DAY
    async with place.worker():
        await place.enrol(replacement_of_other())
        later = await place.ask(request)
    assert first.statement == again.statement == later.statement
    assert place.signed(first, Release).records
    receipts = [place.receipt(reply) for reply in (first, again, later)]
    assert len({(receipt.leaf, receipt.index) for receipt in receipts}) == 1
    assert receipts[2].checkpoint.size > receipts[0].checkpoint.size
    assert await kinds(place) == ["request", "release", "enrolment"]


def replacement_of_other() -> Statement:
    later = {"issued_at": make.NOW + 10 * make.DAY, "expires_at": make.NOW + 11 * make.DAY}
    invited = make.invitation(OTHER, officers=("officer-a", "officer-b"), replaces=True, **later)
    return make.enrolment(invited, OTHER, key="new key of the other")


async def test_the_same_request_at_two_workers_is_answered_once(place: Place) -> None:
    """Whoever comes second gives the first one's release."""
    await place.escrow(make.escrow())
    request = ask.request().envelope()
    body, names = request, [str(n) for n in range(6)]
    for name in names:
        await place.requester.submit(
            "v1.recovery.laptop-0417", body, message_id=name, headers={}, expiration_seconds=None
        )
    async with place.worker(), place.worker(state_dir=place.folder / "second"):
        replies = [await place.answer(name) for name in names]
    assert len({reply.statement.digest for reply in replies if reply.statement}) == 1
    assert await kinds(place) == ["request", "release"]


async def test_a_request_id_with_other_bytes_is_refused_on_the_record(place: Place) -> None:
    """The altered request gets a logged conflict and no key; the first one's answer stays."""
    await place.escrow(make.escrow())
    request = ask.request()
    altered = ask.request(id=parse_body(request, Request).id, reason="altered")
    async with place.worker():
        first = await place.ask(request.envelope())
        rejection = await place.refusal(altered)
        again = await place.ask(request.envelope())
    assert rejection.code == "statement_conflict"
    assert again.statement == first.statement
    assert await kinds(place) == ["request", "release", "refusal"]


async def test_a_refused_request_that_is_repeated_gets_the_same_refusal(place: Place) -> None:
    """Also when it could be granted by now: what was refused is asked for anew, under another id."""
    request = ask.request()
    async with place.worker():
        first = await place.ask(request.envelope())
        await place.escrow(make.escrow())
        place.now += 30
        again = await place.ask(request.envelope())
        await place.release(ask.request())
    assert place.signed(first, Rejection).code == place.signed(again, Rejection).code == "not_found"
    assert place.receipt(first).leaf == place.receipt(again).leaf
    assert await kinds(place) == ["request", "refusal", "request", "release"]


# ---- refusals ----


@pytest.mark.parametrize(
    ("changes", "code", "word"),
    [
        ({"principal": OTHER, "requester": make.PRINCIPAL}, "denied", "principal"),
        ({**OFFICER, "requester": "officer-c"}, "officer_unknown", "recover"),
        ({"name": "no such name"}, "not_found", "no such name"),
        ({"records": [new_id()]}, "not_found", "records"),
        ({"expires_at": make.NOW + 301}, "limit_exceeded", "300"),
        ({"issued_at": make.NOW - 362, "expires_at": make.NOW - 62}, "expired", "expires_at"),
        ({"issued_at": make.NOW + 61, "expires_at": make.NOW + 70}, "expired", "issued_at"),
        ({"recipient_key": b"\xff" * 1216}, "malformed", "recipient_key"),
        ({"recipient_suite": Suite.P256}, "malformed", "recipient_key"),
    ],
    ids=[
        "another's records",
        "officer without the role",
        "unknown name",
        "unknown record",
        "too long a life",
        "expired",
        "from the future",
        "no public key",
        "a key of the other suite",
    ],
)
async def test_a_known_requester_is_refused_on_the_record(
    place: Place, changes: dict[str, Any], code: str, word: str
) -> None:
    """The refusal is signed, logged with its request, says what was wrong, and discloses nothing."""
    await place.escrow(make.escrow(), make.escrow(OTHER))
    request = ask.request(**changes)
    async with place.worker():
        rejection = await place.refusal(request)
    assert (rejection.code, rejection.digest) == (code, sha256(request.envelope()).hexdigest())
    assert word in rejection.message
    assert await kinds(place) == ["request", "refusal"]
    assert await place.quarantined() == []
    assert await place.rows("SELECT * FROM releases") == []


async def test_somebody_elses_record_is_not_found_even_by_its_id(place: Place) -> None:
    """A principal learns nothing about records that are not its own."""
    record = make.record(OTHER)
    await place.escrow(make.escrow(OTHER, records=[record]))
    async with place.worker():
        rejection = await place.refusal(ask.request(records=[record.id]))
    assert rejection.code == "not_found"


async def test_strangers_and_garbage_are_quarantined_and_leave_the_log_alone(place: Place) -> None:
    """Each gets a signed rejection under its code; nothing of it is logged, and good neighbours are answered."""
    await place.escrow(make.escrow())
    signer = make.signing_key(make.PRINCIPAL)
    request = ask.request_body()
    bad = {
        b"\xff not an envelope": "malformed",
        b"": "malformed",
        make.escrow().envelope(): "malformed",
        Statement.sign(Request.TYPE, b"{}", signer).envelope(): "malformed",
        Statement.sign(Request.TYPE, make.altered(request, **{"\x1b[31m": 1}), signer).envelope(): "malformed",
        Statement.sign(Request.TYPE, make.altered(request, reason="x" * 1025), signer).envelope(): "limit_exceeded",
        make.signed(request).envelope(): "signature_invalid",
        ask.request(key="a stranger").envelope(): "signature_invalid",
        ask.request(requester="laptop-9999", principal=make.PRINCIPAL).envelope(): "principal_unknown",
        ask.request(authority="other.example.org").envelope(): "wrong_authority",
        ask.request(**{**OFFICER, "requester": "officer-z"}).envelope(): "officer_unknown",
        make.enrolment(make.invitation(officers=("a stranger",))).envelope(): "invitation_invalid",
        make.enrolment(
            make.invitation("new-host", expires_at=make.NOW + 31 * make.DAY)
        ).envelope(): "limit_exceeded",
    }
    names = {await place.submit(body): code for body, code in bad.items()}
    good = ask.request()
    last = await place.submit(good.envelope())
    async with place.worker():
        codes = {name: place.signed(await place.answer(name), Rejection).code for name in names}
        reply = await place.answer(last)
    assert codes == names
    assert sorted(await place.quarantined()) == sorted(bad.values())
    assert place.signed(reply, Release).records
    assert await kinds(place) == ["request", "release"]


async def test_a_body_over_the_limit_is_refused_with_the_limit_in_words(place: Place) -> None:
    """A message larger than an envelope may be is refused before it is parsed."""
    async with place.worker():
        rejection = await place.rejection(b" " * 1_409_025)
        await place.refusal(ask.request())
    assert rejection.code == "limit_exceeded"
    assert "1409024 bytes" in rejection.message


# ---- listings ----


async def test_a_principal_lists_its_records_and_sees_what_it_was_given(place: Place) -> None:
    """Descriptions from the signed statements, times of the log, and whom it was given to; its own is no loss."""
    records = [make.record(name=name) for name in ("first", "second")]
    await place.escrow(make.escrow(records=records), make.escrow(OTHER))
    async with place.worker():
        await place.release(ask.request(name="second"))
        listing = place.signed(await place.ask(ask.listing_request().envelope()), Listing)
    assert listing.next is None
    assert {record.state for record in listing.records} == {RecordState.STORED}
    assert {record.name: record.disclosure is not None for record in listing.records} == {
        "first": False,
        "second": True,
    }
    assert {record.id for record in listing.records} == {record.id for record in records}
    assert listing.records[0].stored_at == make.NOW


async def test_a_long_listing_comes_in_pages(place: Place) -> None:
    """More records than a page holds: asking after the last id gives the rest, each record once."""
    statements = [make.escrow(records=[make.record(name=f"{m}/{n}") for n in range(167)]) for m in range(3)]
    await place.escrow(*statements)
    seen: list[str] = []
    after: str | None = None
    async with place.worker():
        for size in (500, 1):
            listing = place.signed(await place.ask(ask.listing_request(after=after).envelope()), Listing)
            assert len(listing.records) == size
            seen += [record.id for record in listing.records]
            after = listing.next
    assert after is None
    expected = sorted(record.id for statement in statements for record in parse_body(statement, Escrow).records)
    assert seen == expected


async def test_an_auditor_lists_anyones_records_and_nobody_else_does(place: Place) -> None:
    """An officer with the role `audit` gets the listing; another principal is denied, and nothing is logged."""
    await place.escrow(make.escrow())
    auditor = ask.listing_request(requester="officer-c", requester_kind=Capacity.OFFICER)
    async with place.worker():
        listing = place.signed(await place.ask(auditor.envelope()), Listing)
        denied = await place.rejection(ask.listing_request(requester=OTHER).envelope())
        empty = place.signed(await place.ask(ask.listing_request(OTHER).envelope()), Listing)
    assert len(listing.records) == 1
    assert denied.code == "denied"
    assert empty.records == []
    assert await kinds(place) == []


# ---- replies ----


async def test_a_reply_continues_the_checkpoint_that_the_sender_holds(place: Place) -> None:
    """With the size of the held checkpoint in the header, the reply proves that the log only grew."""
    async with place.worker():
        held = place.receipt(await place.ask(ask.request().envelope())).checkpoint
        reply = await place.ask(ask.request().envelope(), {TREE_SIZE_HEADER: held.size})
        beyond = await place.ask(ask.request().envelope(), {TREE_SIZE_HEADER: 1_000})
    assert reply.consistency is not None
    now = place.receipt(reply).checkpoint
    tlog.verify_consistency(held.size, held.root, now.size, now.root, list(reply.consistency.hashes))
    assert beyond.consistency is None


async def test_a_newer_roster_comes_with_the_reply_and_only_then(place: Place) -> None:
    """A sender that names the roster in force gets none; one that names none gets it."""
    async with place.worker():
        without = await place.ask(ask.request().envelope(), {ROSTER_VERSION_HEADER: 1})
        given = await place.ask(ask.request().envelope())
    assert without.roster is None
    assert given.roster is not None
    assert given.roster.digest == place.roster.digest


# ---- trouble ----


ONCE = ["request", "release"]


@dataclass(frozen=True)
class Loss:
    """A COMMIT that is lost after an insert: it, or (applied) its answer; and what is logged then, and at last."""

    step: str
    is_applied: bool
    logged: list[str]
    at_last: list[str]


@pytest.mark.parametrize(
    "loss",
    [
        Loss("insert_request", is_applied=False, logged=[], at_last=ONCE),
        Loss("insert_request", is_applied=True, logged=ONCE, at_last=[*ONCE, "release"]),
        Loss("insert_release", is_applied=False, logged=ONCE, at_last=[*ONCE, "release"]),
        Loss("insert_release", is_applied=True, logged=ONCE, at_last=ONCE),
    ],
    ids=["entry not applied", "entry applied", "release not applied", "release applied"],
)
async def test_after_an_unknown_commit_the_message_is_answered_by_the_next_worker(
    place: Place, monkeypatch: pytest.MonkeyPatch, loss: Loss
) -> None:
    """The requester gets its key each time.

    A release that was logged and not kept is decided again, with a new entry; one that was kept is the answer.
    """
    await place.escrow(make.escrow())
    request = ask.request()
    insert = getattr(store, loss.step)
    async with Relay(place.settings.database_url.get_secret_value()).listening() as relay:

        async def insert_and_break(*args: Any, **kwargs: Any) -> None:
            await insert(*args, **kwargs)
            if loss.is_applied:
                relay.lose_answer()
            else:
                relay.lose_request()

        with monkeypatch.context() as patch:
            patch.setattr(store, loss.step, insert_and_break)
            url = place.settings.database_url.__class__(relay.url)
            async with place.serving(database_url=url) as (_, task):
                name = await place.submit(request.envelope())
                await asyncio.wait({task}, timeout=ANSWER_SECONDS_MAX)
                assert task.done()
                assert isinstance(task.exception(), CommitUnknown)
    assert await kinds(place) == loss.logged
    async with place.worker():
        reply = await place.answer(name)
    assert opened(place.signed(reply, Release), request) == [b"a session key"]
    assert await kinds(place) == loss.at_last


async def test_an_outage_of_the_database_is_waited_out_with_the_message_in_hand(place: Place) -> None:
    """The connection breaks before anything is stored; the worker tries again and the sender notices nothing."""
    await place.escrow(make.escrow())
    async with Relay(place.settings.database_url.get_secret_value()).listening() as relay:
        url = place.settings.database_url.__class__(relay.url)
        async with place.worker(database_url=url):
            with capture_logs() as lines:
                relay.lose_request()
                release = await place.release(ask.request())
    assert release.records
    assert [line["code"] for line in lines if line["event"] == "backing off"] == ["database_unavailable"]
    assert await place.quarantined() == []


async def test_a_worker_told_to_stop_during_an_outage_gives_the_message_back(place: Place) -> None:
    """It does not wait for the database to come back; the next worker answers."""
    await place.escrow(make.escrow())
    beats = Beats()
    async with AsyncExitStack() as way:
        relay = await way.enter_async_context(Relay(place.settings.database_url.get_secret_value()).listening())
        url = place.settings.database_url.__class__(relay.url)
        async with place.serving(health=beats, database_url=url) as (_, task):
            await way.aclose()
            name = await place.submit(ask.request().envelope())
            await asyncio.wait_for(beats.waiting.wait(), ANSWER_SECONDS_MAX)
        assert isinstance(task.exception(), DatabaseUnavailable)
    assert await kinds(place) == []
    async with place.worker():
        assert place.signed(await place.answer(name), Release).records


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError("a disk"), MemoryError()])
async def test_an_error_nobody_expected_after_commit_ends_the_worker_and_the_next_one_answers(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Nobody signs a refusal of what is committed: the message goes back, and its answer gets a new entry."""

    async def broken(*_: object) -> None:
        raise error

    await place.escrow(make.escrow())
    request = ask.request()
    with monkeypatch.context() as patch, capture_logs() as lines:
        async with place.serving() as (_, task):
            patch.setattr(LogWriter, "committed", broken)
            name = await place.submit(request.envelope())
            await asyncio.wait({task}, timeout=ANSWER_SECONDS_MAX)
            assert task.done()
            assert task.exception() is error
    told = [line for line in lines if line["event"] == "unexpected error"]
    assert [line["message_id"] for line in told] == [parse_body(request, Request).id]
    assert await kinds(place) == ["request", "release"]
    assert await place.quarantined() == []
    async with place.worker():
        reply = await place.answer(name)
    assert opened(place.signed(reply, Release), request) == [b"a session key"]
    assert await kinds(place) == ["request", "release", "release"]


async def test_one_line_a_message_says_what_became_of_it_and_holds_no_secret(place: Place) -> None:
    """Kind, outcome, code, ids and duration; no key material, no description and no reason given by the sender."""
    await place.escrow(make.escrow(records=[make.record(material=MATERIAL, description="secret-description")]))
    with capture_logs() as lines:
        async with place.worker():
            await place.release(ask.request(reason="secret-reason"))
            await place.refusal(ask.request(name="nothing"))
            await place.rejection(b"garbage")
            await place.enrol(replacement())
    told = [line for line in lines if line["event"] == "message"]
    assert [(line["kind"], line["outcome"], line.get("code")) for line in told] == [
        ("request", "released", None),
        ("request", "refused", "not_found"),
        ("unreadable", "quarantined", "malformed"),
        ("enrolment", "enrolled", None),
    ]
    assert told[0]["records"] == 1
    assert told[0]["duration_ms"] > 0
    assert not {"planted-canary", "secret-"} & {
        word for word in ("planted-canary", "secret-") if word in str(lines)
    }


async def test_the_health_file_follows_the_outcomes(place: Place) -> None:
    """Each round of the loop is a sign of life, which says what the last outcome was."""
    beats = Beats()
    async with place.worker(health=beats):
        await place.refusal(ask.request())
        await place.rejection(b"garbage")
    assert beats.told == ["listening", "refused", "quarantined"][: len(beats.told)]
    assert len(beats.told) >= 2
