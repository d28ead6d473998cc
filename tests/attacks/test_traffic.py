"""Whoever owns the broker repeats, redirects, changes, exchanges and keeps back what passes through it."""

import json
from random import Random

import pytest
from structlog.testing import capture_logs
from tests.attacks.conftest import OFFICERS, OTHER, Stage
from tests.integration.test_recovery_approvals import approved, code_of, done, material, officers_request, waits
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.agents import MATERIAL, key
from tests.support.broker_owner import Seen, in_the_middle, tapping
from tests.support.recovery import Place

from strongroom.blobs import ReleaseContext, open_material
from strongroom.crypto.signing import SigningKey
from strongroom.errors import BlobInvalid, ReplyInvalid, RosterInvalid
from strongroom.fields import parse_body
from strongroom.messages import Escrow, Rejection, Release, Request
from strongroom.replies import Reply, parse_reply
from strongroom.statements import Signature, Statement, parse_envelope
from strongroom_agent.enrolment import enrol


def body_of(reply: Reply) -> Release | Rejection:
    """Return what a worker says in a reply."""
    assert reply.statement is not None
    if reply.statement.type == Release.TYPE:
        return parse_body(reply.statement, Release)
    return parse_body(reply.statement, Rejection)


# ---- repeating -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [None, 1, 2], ids=["as it was", "shuffled", "shuffled again"])
async def test_yesterdays_traffic_changes_nothing(stage: Stage, order: int | None) -> None:
    """He publishes every message of a day again, in any order, after a revocation: no entry, no record, no key."""
    place = stage.place
    async with stage.both_workers(), tapping(stage.brokers) as tap:
        with await stage.host() as host:
            await host.escrow([key()])
            await host.sync()
            await host.recover(name="disk")
        request, denied = officers_request(name="disk"), officers_request("officer-c", name="disk")
        await approved(place, request)
        await place.release(request)
        await waits(place, denied)
        await done(place, ask.approval(denied, "officer-a"))
        await done(place, ask.denial(denied, "officer-d"))
        await done(place, make.revocation())
        before = [await place.rows(query) for query in TABLES]
        messages = list(tap.seen)
        if order is not None:
            Random(order).shuffle(messages)  # noqa: S311
        with capture_logs() as lines:
            replies = [(message, parse_reply(await tap.repeat(message))) for message in messages]
    assert [await place.rows(query) for query in TABLES] == before
    given = [body_of(reply) for _, reply in replies if reply.statement and reply.statement.type == Release.TYPE]
    # The officer's own release comes again: the same one, sealed to her one-time key; the revoked host's does not.
    assert {release.request for release in given} == {parse_body(request, Request).id}
    assert len(messages) == len([line for line in lines if line["event"] == "message"]) + 1
    assert {line["outcome"] for line in lines if line["event"] == "message"} == {"repeated", "quarantined"}
    assert set(await place.quarantined()) == {"principal_revoked"}


TABLES = (
    "SELECT leaf FROM recovery_leaves ORDER BY index",
    "SELECT leaf FROM escrow_leaves",
    "SELECT id FROM records",
)


async def test_a_release_that_is_delivered_to_a_stranger_is_of_no_use_to_him(stage: Stage) -> None:
    """He publishes a host's own request under his reply address: what he gets is sealed, and the owner is told."""
    async with stage.both_workers(), tapping(stage.brokers) as tap:
        with await stage.host() as host:
            await host.escrow([key()])
            tap.seen.clear()
            await host.recover(name="disk")
            (asked,) = tap.seen
            stolen = body_of(parse_reply(await tap.repeat(asked)))
            report = await host.sync()
    assert isinstance(stolen, Release)
    (record,) = stolen.records
    request = parse_envelope(asked.body)
    for thiefs in (make.sealing_key("the thief's"), make.sealing_key()):
        context = ReleaseContext(make.AUTHORITY, request.digest, record.principal, record.id, thiefs.kid)
        with pytest.raises(BlobInvalid):
            open_material(record.blob, context, thiefs)
    assert MATERIAL not in record.blob
    assert [each.record for each in report.disclosed] == [record.id]


# ---- changing what is sent -------------------------------------------------------------------------------


def without_signatures(message: Seen) -> bytes:
    """Put signatures that are none in the place of those of a statement; its digest stays as it is."""
    true = parse_envelope(message.body)
    dead = tuple(Signature(each.key_id, bytes(64)) for each in true.signatures)
    return Statement(true.type, true.body, dead).envelope()


async def test_signatures_taken_off_a_key_do_not_end_the_agents_trying(stage: Stage) -> None:
    """The worker truly rejects what reached it: the agent sees that it is not what it sent, and keeps the key."""
    async with stage.both_workers():
        with await stage.host() as host:
            async with in_the_middle(stage.brokers, "escrow", "v1.escrow.*", onward=without_signatures):
                delivery = await host.escrow([key()])
            again = await host.sync()
    assert (delivery.stored, delivery.rejected, delivery.spooled) == (0, 0, 1)
    assert isinstance(delivery.error, ReplyInvalid)
    assert (again.delivery.stored, again.error) == (1, None)
    assert await stage.place.quarantined() == ["signature_invalid"]


async def test_signatures_taken_off_a_request_or_an_enrolment_do_not_end_them(stage: Stage) -> None:
    """The same with what goes to the recovery worker: the answer is not believed, and asking again succeeds."""
    document = stage.invitation()
    home = stage.place.folder / "host"
    async with stage.both_workers():
        async with in_the_middle(stage.brokers, "recovery", "v1.enrol.*", onward=without_signatures):
            with pytest.raises(ReplyInvalid):
                await enrol(home, document, clock=stage.clock)
        await enrol(home, document, clock=stage.clock)
        with stage.agent("host") as host:
            await host.escrow([key()])
            async with in_the_middle(stage.brokers, "recovery", "v1.recovery.*", onward=without_signatures):
                with pytest.raises(ReplyInvalid):
                    await host.recover(name="disk")
            recovered = await host.recover(name="disk")
    assert recovered.keys[0].material.expose() == MATERIAL
    assert await stage.place.quarantined() == ["signature_invalid", "signature_invalid"]


async def test_a_recipient_key_changed_in_flight_gets_nothing(stage: Stage) -> None:
    """He writes his own one-time key into a host's request: its signature does not hold, and the host is told."""
    thiefs = make.sealing_key("the thief's")

    def with_his_key(message: Seen) -> bytes:
        true = parse_envelope(message.body)
        body = parse_body(true, Request).model_copy(update={"recipient_key": thiefs.public_key})
        return Statement(true.type, body.to_bytes(), true.signatures).envelope()

    async with stage.both_workers():
        with await stage.host() as host:
            await host.escrow([key()])
            async with in_the_middle(stage.brokers, "recovery", "v1.recovery.*", onward=with_his_key):
                with pytest.raises(ReplyInvalid):
                    await host.recover(name="disk")
    assert await stage.place.rows("SELECT * FROM releases") == []
    assert await stage.place.quarantined() == ["signature_invalid"]


async def test_messages_exchanged_between_hosts_store_and_release_nothing_wrong(stage: Stage) -> None:
    """He gives the worker one host's message for both: what is stored is what was signed, nobody is fooled."""
    first: list[Seen] = []

    def the_other(message: Seen) -> bytes:
        first.append(message)
        return first[0].body

    async with stage.both_workers():
        with await stage.host("one") as one, await stage.host("two", OTHER) as two:
            async with in_the_middle(stage.brokers, "escrow", "v1.escrow.*", onward=the_other):
                mine, theirs = await one.escrow([key()]), await two.escrow([key()])
    assert (mine.stored, theirs.stored) == (1, 0)
    assert isinstance(theirs.error, ReplyInvalid)
    stored = [parse_body(parse_envelope(message.body), Escrow).principal for message in first[:1]]
    assert [row["principal"] for row in await stage.place.rows("SELECT principal FROM records")] == stored


# ---- changing what is answered ---------------------------------------------------------------------------


async def test_an_answer_to_somebody_elses_question_is_ignored(stage: Stage) -> None:
    """He hands a host the true release of another host's key, and of its own earlier request: it takes neither."""
    answers: list[bytes] = []

    def the_first(_message: Seen, answer: bytes) -> bytes:
        answers.append(answer)
        return answers[0]

    async with stage.both_workers():
        with await stage.host("one") as one, await stage.host("two", OTHER) as two:
            for host in (one, two):
                await host.escrow([key()])
            async with in_the_middle(stage.brokers, "recovery", "v1.recovery.*", back=the_first):
                await one.recover(name="disk")
                for host in (two, one):
                    with pytest.raises(ReplyInvalid):
                        await host.recover(name="disk")
            released = await two.recover(name="disk")
    assert released.keys[0].material.expose() == MATERIAL
    assert len([leaf for leaf in await stage.place.log() if leaf.type == "release"]) == 4


async def test_a_receipt_for_another_key_does_not_count(stage: Stage) -> None:
    """He keeps a key back and answers with the receipt of an earlier one: the key stays in the spool."""
    answers: list[bytes] = []

    def the_first(_message: Seen, answer: bytes) -> bytes:
        answers.append(answer)
        return answers[0]

    async with stage.both_workers():
        with await stage.host() as host:
            async with in_the_middle(stage.brokers, "escrow", "v1.escrow.*", back=the_first):
                first, second = await host.escrow([key()]), await host.escrow([key(name="second")])
    assert (first.stored, second.stored, second.spooled) == (1, 0, 1)
    assert isinstance(second.error, ReplyInvalid)


async def test_a_roster_that_is_kept_back_is_missed(stage: Stage) -> None:
    """He strips a newer roster from every answer to a host: what is signed in those answers betrays him."""
    place = stage.place

    def without_roster(_message: Seen, answer: bytes) -> bytes:
        document = json.loads(answer)
        document.pop("roster", None)
        return json.dumps(document).encode()

    async with stage.both_workers():
        with await stage.host() as host:
            await host.escrow([key()])
            place.write_roster(make.next_roster(place.roster, officers=OFFICERS[:3]))
            async with in_the_middle(stage.brokers, "recovery", "v1.recovery.*", back=without_roster):
                report = await host.sync()
                with pytest.raises(ReplyInvalid) as refused:
                    await host.recover(name="disk")
            after = await host.sync()
    assert isinstance(report.error, ReplyInvalid)
    assert "roster version 2" in report.error.message
    assert "withhold" in (refused.value.hint or "")
    assert (after.roster_version, after.error) == (2, None)


async def test_a_roster_of_a_stranger_in_an_answer_is_refused(stage: Stage) -> None:
    """He adds a roster that he signed, with a sealing key of his own: the host adopts nothing and says so."""
    own = make.signed(
        make.roster_body(version=2, previous=stage.place.roster.digest.hex()), make.signing_key("a stranger")
    )

    def with_his_roster(_message: Seen, answer: bytes) -> bytes:
        return json.dumps(json.loads(answer) | {"roster": own.document()}).encode()

    async with stage.both_workers():
        with await stage.host() as host:
            async with in_the_middle(stage.brokers, "escrow", "v1.escrow.*", back=with_his_roster):
                delivery = await host.escrow([key()])
            report = await host.sync()
    assert (delivery.stored, delivery.spooled) == (0, 1)
    assert isinstance(delivery.error, RosterInvalid)
    assert (report.roster_version, report.delivery.stored) == (1, 1)


async def test_a_message_that_he_makes_up_is_nobodys(place: Place) -> None:
    """He may publish under any routing key and name, with keys of his own: nothing counts, all is set aside."""
    own = SigningKey.generate()
    requests = [ask.request_body(), ask.request_body(OTHER), parse_body(officers_request(), Request)]
    made_up = [make.signed(body, own) for body in requests]
    made_up += [make.signed(parse_body(ask.request(), Request), make.signing_key(OTHER))]
    async with place.worker():
        codes = [await code_of(place, statement) for statement in made_up]
        request = officers_request()
        await approved(place, request)
        assert material(await place.release(request), request)
    assert codes == ["signature_invalid"] * 4
    assert await place.quarantined() == codes
