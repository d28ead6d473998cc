"""Whoever owns the database edits rows; the recovery worker gives no key for them, says why, and goes on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.attacker import as_superuser, ask_superuser
from tests.support.recovery import ANSWER_SECONDS_MAX, Place, place_of
from tests.support.workers import Brokers, Databases

from strongroom.crypto.notes import parse_checkpoint, sign_checkpoint
from strongroom.errors import LogForked
from strongroom.fields import parse_body
from strongroom.mandates import Enrolment
from strongroom.messages import Escrow, Listing, Rejection, Release, Request
from strongroom.statements import Statement

OTHER = "laptop-0418"
THIRD = "laptop-0419"


@pytest.fixture
async def place(database: Databases, broker: Brokers, tmp_path: Path) -> AsyncIterator[Place]:
    async with place_of(database, broker, tmp_path, enrolled=(make.PRINCIPAL, OTHER)) as made:
        yield made


def one_record(principal: str = make.PRINCIPAL, **changes: Any) -> tuple[str, str, Statement]:
    """Return statement id, record id and an escrow statement of one record."""
    statement = make.escrow(principal, records=[make.record(principal, **changes)])
    body = parse_body(statement, Escrow)
    return body.id, body.records[0].id, statement


@asynccontextmanager
async def alarmed(place: Place) -> AsyncIterator[None]:
    """Run a worker that refuses one message in the block: logged as an error; nothing disclosed; it goes on."""
    with capture_logs() as lines:
        async with place.worker():
            yield
            assert await place.rows("SELECT * FROM releases") == []
            await place.enrol(make.enrolment(make.invitation(THIRD), THIRD))
    levels = [line["log_level"] for line in lines if line["event"] == "message" and line["kind"] != "enrolment"]
    assert levels == ["error"]


async def refused(place: Place, request: Statement, code: str) -> Rejection:
    """Ask a worker; it refuses as `alarmed` says, by this code, on the record."""
    async with alarmed(place):
        rejection = await place.refusal(request)
    assert rejection.code == code
    return rejection


EDITS = {
    "the statement's principal": "UPDATE escrow_statements SET principal = 'laptop-0418' WHERE id = '{mine}'",
    "the statement's digest": "UPDATE escrow_statements SET digest = sha256('x') WHERE id = '{mine}'",
    "the statement's leaf": "UPDATE escrow_statements SET leaf_index = 1000 WHERE id = '{mine}'",
    "a deleted statement": "DELETE FROM escrow_statements WHERE id = '{mine}'",
    "an emptied envelope": "UPDATE escrow_statements SET envelope = '' WHERE id = '{mine}'",
    "another's envelope": """UPDATE escrow_statements SET envelope =
        (SELECT envelope FROM escrow_statements WHERE id = '{theirs}') WHERE id = '{mine}'""",
    "a deleted leaf": "DELETE FROM escrow_leaves WHERE index = 0",
    "an edited leaf": "UPDATE escrow_leaves SET leaf = leaf || ' ' WHERE index = 0",
    "another's leaf": """UPDATE escrow_leaves SET leaf =
        (SELECT leaf FROM escrow_leaves WHERE index = 1) WHERE index = 0""",
    "a deleted node": "DELETE FROM escrow_nodes WHERE level = 0 AND index = 1",
    "an edited node": "UPDATE escrow_nodes SET hash = sha256('x') WHERE level = 0 AND index = 1",
    "deleted checkpoints": "DELETE FROM escrow_checkpoints",
    "the record's statement": "UPDATE records SET statement_id = '{theirs}' WHERE id = '{record}'",
    "the record's time": "UPDATE records SET issued_at = issued_at + 1 WHERE id = '{record}'",
    "the record's key": "UPDATE records SET kid = repeat('0', 32) WHERE id = '{record}'",
    "the record's owner": "UPDATE records SET principal = 'laptop-0417' WHERE id = '{their_record}'",
    "another's name": """UPDATE records SET principal = 'laptop-0417', issued_at = issued_at + 1
        WHERE id = '{their_record}'""",
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
async def test_no_edited_row_yields_a_key(place: Place, edit: str) -> None:
    """Each edit of a row that the release stands on is refused by name, and logged for somebody to look."""
    mine, record, statement = one_record()
    theirs, their_record, other = one_record(OTHER)
    await place.escrow(statement, other)
    unguarded = "SET session_replication_role = replica; "  # the attacker's foreign keys do not hold him back
    values = {"mine": mine, "theirs": theirs, "record": record, "their_record": their_record}
    await as_superuser(place.databases, unguarded + edit.format(**values))
    await refused(place, ask.request(), "proof_invalid")


@pytest.mark.parametrize("stranger", ["another key", "for everybody"])
async def test_a_checkpoint_that_is_no_working_one_of_the_log_is_refused(place: Place, stranger: str) -> None:
    """Neither an escrow log that the attacker signed, nor the note that every agent has, is what belongs there."""
    _, _, statement = one_record()
    await place.escrow(statement)
    note = await ask_superuser(place.databases, "SELECT note FROM escrow_checkpoints")
    head, _ = parse_checkpoint(note)
    key = make.signing_key("escrow log")
    if stranger == "another key":
        key = make.signing_key("thief")
    else:
        head = replace(head, origin=place.roster.body.logs.escrow.origin)
    other = sign_checkpoint(head, key.sign, key.public_key)
    await ask_superuser(place.databases, "UPDATE escrow_checkpoints SET note = $1", other)
    await refused(place, ask.request(), "checkpoint_invalid")


ROLLED_BACK = {
    "the checkpoints are gone; 2 leaves": "DELETE FROM escrow_checkpoints",
    "went back to 1 leaves; 2": "DELETE FROM escrow_checkpoints WHERE size > 1",
}


@pytest.mark.parametrize(("words", "edit"), ROLLED_BACK.items())
@pytest.mark.parametrize("is_restarted", [False, True])
async def test_an_escrow_log_that_was_rolled_back_stops_the_worker(
    place: Place, words: str, edit: str, *, is_restarted: bool
) -> None:
    """A head that was seen, by this process or by one before it, cannot be taken back by the database."""
    await place.escrow(one_record()[2])
    await place.escrow(one_record(OTHER)[2])
    async with AsyncExitStack() as way:
        if is_restarted:
            async with place.worker():
                await place.release(ask.request())
        _, task = await way.enter_async_context(place.serving())
        if not is_restarted:
            await place.release(ask.request())
        await as_superuser(place.databases, edit)
        await place.submit(ask.request().envelope())
        await asyncio.wait({task}, timeout=ANSWER_SECONDS_MAX)
        assert task.done()
        assert isinstance(task.exception(), LogForked)
        assert words in str(task.exception())


@pytest.mark.parametrize("size", [1, 2], ids=["a size seen before", "a larger one"])
async def test_an_escrow_log_that_was_signed_anew_stops_the_worker(place: Place, size: int) -> None:
    """A head of the log's own key over other leaves is a fork: neither the same size nor a larger one passes."""
    await place.escrow(one_record()[2])
    async with place.worker():
        await place.release(ask.request())
    await as_superuser(
        place.databases,
        "TRUNCATE records, escrow_statements, escrow_leaves, escrow_nodes, escrow_checkpoints CASCADE",
    )
    (place.folder / "escrow.checkpoint").unlink()
    for _ in range(size):
        await place.escrow(one_record()[2])
    async with place.serving() as (_, task):
        await place.submit(ask.request().envelope())
        await asyncio.wait({task}, timeout=ANSWER_SECONDS_MAX)
        assert task.done()
        assert isinstance(task.exception(), LogForked)


async def test_a_growing_escrow_log_is_followed(place: Place) -> None:
    """Each look at a larger log that continues the one before is kept on the worker's disk, and keys are given."""
    async with place.worker():
        for _ in range(3):
            await place.escrow(one_record()[2])
            await place.release(ask.request())
    kept, _ = parse_checkpoint((place.settings.state_dir / "escrow.checkpoint").read_text())
    assert kept.size == 3


async def test_a_blob_swapped_inside_the_stored_statement_is_refused(place: Place) -> None:
    """A body with another record's blob no longer carries its owner's signature, digests edited to fit or not."""
    mine, _, statement = one_record()
    _, _, other = one_record(name="other")
    await place.escrow(statement, other)
    body, donor = parse_body(statement, Escrow), parse_body(other, Escrow)
    records = [body.records[0].model_copy(update={"blob": donor.records[0].blob})]
    forged = Statement(
        statement.type, body.model_copy(update={"records": records}).to_bytes(), statement.signatures
    )
    await ask_superuser(
        place.databases,
        "UPDATE escrow_statements SET envelope = $1, digest = $2 WHERE id = $3",
        forged.envelope(),
        forged.digest,
        UUID(mine),
    )
    await refused(place, ask.request(), "proof_invalid")


async def test_a_statement_that_no_leaf_names_is_refused(place: Place) -> None:
    """A stolen key signs a record into the past, and the database takes it: without a leaf it does not count."""
    _, _, genuine = one_record(name="genuine")
    await place.escrow(genuine)
    mine, record, statement = one_record(name="forged")
    body = parse_body(statement, Escrow)
    await ask_superuser(
        place.databases,
        "INSERT INTO escrow_statements VALUES ($1, $2, $3, $4, 1, 0)",
        UUID(mine),
        statement.digest,
        make.PRINCIPAL,
        statement.envelope(),
    )
    await ask_superuser(
        place.databases,
        "INSERT INTO records VALUES ($1, $2, 0, $3, 'forged', $4, $5, 1)",
        UUID(record),
        UUID(mine),
        make.PRINCIPAL,
        body.issued_at,
        body.records[0].kid,
    )
    await refused(place, ask.request(name="forged"), "proof_invalid")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"blob": make.record().blob}, "blob_invalid"),
        ({"blob": b"short"}, "blob_invalid"),
        ({"fingerprint": "ab" * 32}, "fingerprint_mismatch"),
        ({"kid": "0" * 32}, "key_unknown"),
    ],
    ids=["lifted", "short", "fingerprint", "kid"],
)
async def test_a_record_that_its_owner_sealed_wrongly_is_refused_by_name(
    place: Place, changes: dict[str, Any], code: str
) -> None:
    """Signed and in the log, but the blob does not open in its place, or holds another key than was signed for."""
    _, record, statement = one_record(**changes)
    await place.escrow(statement)
    rejection = await refused(place, ask.request(), code)
    assert record in rejection.message


async def test_a_victims_blob_in_the_attackers_own_escrow_does_not_open(place: Place) -> None:
    """An enrolled attacker who copied a blob escrows it under the same record id, and gets nothing out."""
    _, record, _ = one_record()
    victims = make.record(id=record)
    attackers = make.record(OTHER, id=record, blob=victims.blob, fingerprint=victims.fingerprint)
    await place.escrow(make.escrow(OTHER, records=[attackers]))
    await refused(place, ask.request(OTHER), "blob_invalid")


async def test_an_edited_row_spoils_its_own_record_in_a_listing_and_no_other(place: Place) -> None:
    """A listing is made of signed statements; a record whose index row contradicts its statement is unreadable."""
    _, record, statement = one_record()
    _, untouched, other = one_record()
    await place.escrow(statement, other)
    await ask_superuser(place.databases, "UPDATE records SET name = 'edited' WHERE id = $1", UUID(record))
    with capture_logs() as lines:
        async with place.worker():
            listing = place.signed(await place.ask(ask.listing_request().envelope()), Listing)
    assert [line["record"] for line in lines if line["log_level"] == "error"] == [record]
    assert [(each.id, each.code) for each in listing.unreadable] == [(record, "proof_invalid")]
    assert [each.id for each in listing.records] == [untouched]


async def test_a_row_whose_id_nobody_could_have_signed_keeps_no_listing_back(place: Place) -> None:
    """It is of no record: the listing has the others, and the prover finds it."""
    _, record, statement = one_record()
    _, untouched, other = one_record()
    await place.escrow(statement, other)
    odd = UUID("11111111-1111-4111-8111-111111111111")
    await ask_superuser(place.databases, "UPDATE records SET id = $2 WHERE id = $1", UUID(record), odd)
    async with place.worker():
        listing = place.signed(await place.ask(ask.listing_request().envelope()), Listing)
    assert ([each.id for each in listing.records], listing.unreadable) == ([untouched], [])


ANSWER_EDITS = {
    "another's release": """UPDATE releases SET envelope =
        (SELECT envelope FROM releases WHERE request_id = '{other}') WHERE request_id = '{mine}'""",
    "another's release and leaf": """ALTER TABLE releases DROP CONSTRAINT releases_pkey;
        UPDATE releases SET (envelope, leaf_index) =
        (SELECT envelope, leaf_index FROM releases WHERE request_id = '{other}') WHERE request_id = '{mine}'""",
    "an emptied release": "UPDATE releases SET envelope = '' WHERE request_id = '{mine}'",
    "a leaf that is not there": "UPDATE releases SET leaf_index = 1000 WHERE request_id = '{mine}'",
    "the leaf of the request": "UPDATE releases SET leaf_index = 3 WHERE request_id = '{mine}'",
    "a deleted release": "DELETE FROM releases WHERE request_id = '{mine}'",
}


@pytest.mark.parametrize("edit", ANSWER_EDITS.values(), ids=ANSWER_EDITS)
async def test_an_edited_answer_is_not_repeated(place: Place, edit: str) -> None:
    """What the log does not vouch for is not given: the request is decided again, with an entry of its own."""
    await place.escrow(one_record()[2])
    request, other = ask.request(), ask.request()
    async with place.worker():
        first = await place.release(request)
        await place.release(other)
        ids = {"mine": parse_body(request, Request).id, "other": parse_body(other, Request).id}
        await as_superuser(place.databases, edit.format(**ids))
        again = await place.release(request)
        others = place.signed(await place.ask(other.envelope()), Release)
    assert again.request == ids["mine"]
    assert again.records[0].blob != first.records[0].blob
    assert others.request == ids["other"]
    assert [leaf.type for leaf in await place.log()][3:] == ["request", "release", "request", "release", "release"]


@pytest.mark.parametrize("edit", ["UPDATE releases SET envelope = ''", "UPDATE releases SET envelope = '{}'"])
async def test_an_edited_answer_is_reported(place: Place, edit: str) -> None:
    """An edit leaves its trace in the worker's own log."""
    await place.escrow(one_record()[2])
    request = ask.request()
    with capture_logs() as lines:
        async with place.worker():
            await place.release(request)
            await as_superuser(place.databases, edit)
            await place.release(request)
    assert [(line["kind"], line["log_level"]) for line in lines if line["event"] == "stored statement lost"] == [
        ("release", "error")
    ]


async def test_a_lost_release_of_an_expired_request_is_not_decided_again(place: Place) -> None:
    """Deleting a release does not let its request be answered out of its time, and the log gains nothing."""
    await place.escrow(one_record()[2])
    request = ask.request()
    async with place.worker():
        await place.release(request)
        await as_superuser(place.databases, "DELETE FROM releases")
        place.now += 400
        rejection = await place.rejection(request.envelope())
    assert rejection.code == "expired"
    assert [leaf.type for leaf in await place.log()][3:] == ["request", "release"]


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE trust_statements SET leaf_index = 1000 WHERE leaf_index = 3",
        "UPDATE trust_statements SET digest = sha256('x') WHERE leaf_index = 3",
        "DELETE FROM trust_statements WHERE leaf_index = 3",
    ],
    ids=["another leaf", "another digest", "deleted"],
)
async def test_a_repeated_enrolment_is_proven_by_the_log_whatever_its_row_says(place: Place, edit: str) -> None:
    """The leaf says that it was logged; no row makes it a conflict or points its receipt elsewhere."""
    statement = make.enrolment(make.invitation(THIRD), THIRD)
    async with place.worker():
        first = await place.enrol(statement)
        await as_superuser(place.databases, edit)
        again = await place.enrol(statement)
    assert (first.index, first.leaf) == (again.index, again.leaf)


async def test_a_row_under_the_id_of_a_coming_enrolment_does_not_keep_it_out(place: Place) -> None:
    """Whoever writes a row with the id of a message in flight makes no conflict of it."""
    statement = make.enrolment(make.invitation(THIRD), THIRD)
    await ask_superuser(
        place.databases,
        "INSERT INTO trust_statements VALUES ($1, $2, $3, 'x', 999)",
        bytes(32),
        UUID(parse_body(statement, Enrolment).id),
        Enrolment.TYPE,
    )
    async with place.worker():
        await place.enrol(statement)


async def test_a_lost_release_is_made_again_of_the_same_record_and_of_no_newer_one(place: Place) -> None:
    """The newest of a name was released, then replaced, and the release deleted: the old one comes again."""
    old_id, new_id = make.record().id, make.record().id
    old = make.record(id=min(old_id, new_id))
    new = make.record(id=max(old_id, new_id), material=b"the key that took its place")
    await place.escrow(make.escrow(records=[old]))
    request = ask.request()
    async with place.worker():
        await place.release(request)
        await place.escrow(make.escrow(records=[new]))
        await as_superuser(place.databases, "DELETE FROM releases")
        again = await place.release(request)
        fresh = await place.release(ask.request())
    assert [record.id for record in again.records] == [old.id]
    assert [entry.id for entry in again.history] == [old.id]
    assert [record.id for record in fresh.records] == [new.id]


async def test_what_the_authority_has_to_mend_does_not_end_a_request(place: Place) -> None:
    """A row is edited and put back: the request waits meanwhile, and is answered then, under the same id."""
    id_, _, statement = one_record()
    await place.escrow(statement)
    request = ask.request()
    async with place.worker():
        await ask_superuser(place.databases, "UPDATE escrow_statements SET envelope = 'x' WHERE id = $1", UUID(id_))
        rejection = await place.refusal(request)
        await ask_superuser(
            place.databases,
            "UPDATE escrow_statements SET envelope = $1 WHERE id = $2",
            statement.envelope(),
            UUID(id_),
        )
        await place.release(request)
    assert rejection.code == "proof_invalid"
    assert [leaf.type for leaf in await place.log()][3:] == ["request", "release"]


async def test_release_signatures_that_were_edited_are_made_again(place: Place) -> None:
    """The log vouches for the body of the stored release; its signature is the worker's to give."""
    await place.escrow(one_record()[2])
    request = ask.request()
    async with place.worker():
        first = await place.ask(request.envelope())
        assert first.statement is not None
        stranger = Statement.sign(first.statement.type, first.statement.body, make.signing_key("a stranger"))
        await ask_superuser(place.databases, "UPDATE releases SET envelope = $1", stranger.envelope())
        again = await place.ask(request.envelope())
    assert again.statement == first.statement


@pytest.mark.parametrize(
    "edit",
    [
        "DELETE FROM trust_statements WHERE leaf_index = 1",
        "UPDATE trust_statements SET envelope = '' WHERE leaf_index = 1",
    ],
    ids=["deleted", "emptied"],
)
async def test_a_spoilt_enrolment_stops_its_own_principal_alone(place: Place, edit: str) -> None:
    """Without its statement the key that the log names is not known; the other principal is served."""
    await place.escrow(one_record()[2], one_record(OTHER)[2])
    await as_superuser(place.databases, edit)
    async with alarmed(place):
        rejection = await place.rejection(ask.request().envelope())
    async with place.worker():
        await place.release(ask.request(OTHER))
    assert rejection.code == "proof_invalid"
    assert await place.quarantined() == ["proof_invalid"]


async def test_an_enrolment_that_only_the_table_knows_speaks_for_nobody(place: Place) -> None:
    """A row of a genuine but never logged replacement, inserted by hand, does not let its key in."""
    await place.escrow(one_record()[2])
    invited = make.invitation(officers=("officer-a", "officer-b"), replaces=True)
    forged = make.enrolment(invited, key="the attacker's key")
    await ask_superuser(
        place.databases,
        "INSERT INTO trust_statements VALUES ($1, NULL, $2, $3, 99)",
        forged.digest,
        forged.type,
        forged.envelope(),
    )
    async with place.worker():
        rejection = await place.rejection(ask.request(key="the attacker's key").envelope())
        await place.release(ask.request())
    assert rejection.code == "signature_invalid"
