"""Recovery that officers have to agree to, on real servers: requests that wait, approvals, denials, rates, delays.

Officers a, b and c hold every role here, officer d may only audit; policy asks for two approvals of an officer's
request.
"""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.attacker import ask_superuser
from tests.support.recovery import Place, place_of
from tests.support.workers import Brokers, Databases

from strongroom import broker as amqp
from strongroom.blobs import ReleaseContext, open_material
from strongroom.fields import Capacity, new_id, parse_body
from strongroom.leaves import Leaf, parse_leaf
from strongroom.limits import REQUEST_BODY_BYTES_MAX
from strongroom.mandates import Invitation, Officer, Policy, Role, RosterBody
from strongroom.messages import Docket, Listing, RecordState, Rejection, Release, Request, RequestState
from strongroom.roster import Roster
from strongroom.statements import Signature, Statement, parse_envelope
from strongroom.topology import EVENTS_EXCHANGE

OTHER = "laptop-0418"
MATERIAL = b"a session key"
HOUR = 3_600
OFFICERS = [*(make.officer(f"officer-{letter}") for letter in "abc"), make.officer("officer-d", Role.AUDIT)]


def officers_request(requester: str = "officer-a", **changes: Any) -> Statement:
    """Return an officer's request for a host's key, which lives a day."""
    members: dict[str, Any] = {
        "requester": requester,
        "requester_kind": Capacity.OFFICER,
        "expires_at": make.NOW + make.DAY,
        "reason": "disk dead",
    }
    return ask.request(**(members | changes))


def with_policy(**policy: int) -> dict[str, Any]:
    """Return what changes in a roster of four officers with this policy."""
    return {"officers": OFFICERS, "policy": Policy.model_validate(policy)}


@pytest.fixture
async def place(database: Databases, broker: Brokers, tmp_path: Path) -> AsyncIterator[Place]:
    """A place with four officers, two hosts, and one key of the first host."""
    async with place_of(database, broker, tmp_path, enrolled=(make.PRINCIPAL, OTHER)) as made:
        made.write_roster(make.next_roster(made.roster, **with_policy()))
        await made.escrow(make.escrow(records=[make.record(material=MATERIAL)]))
        yield made


async def waits(place: Place, request: Statement) -> Rejection:
    """Send a request and return why it waits; that it was asked is proven to be on the record."""
    reply = await place.ask(request.envelope())
    rejection = place.signed(reply, Rejection)
    assert rejection.code == "approval_required"
    leaf = parse_leaf(place.receipt(reply).leaf)
    assert leaf.type == "request"
    assert leaf.digest == request.digest.hex()
    return rejection


async def done(place: Place, statement: Statement) -> Leaf:
    """Send an approval, denial, revocation or invitation and return the leaf that proves it."""
    reply = await place.ask(statement.envelope())
    leaf = parse_leaf(place.receipt(reply).leaf)
    assert leaf.type in {"approval", "denial", "revocation", "invitation"}
    assert leaf.digest == statement.digest.hex()
    return leaf


async def code_of(place: Place, statement: Statement) -> str:
    return (await place.rejection(statement.envelope())).code


def material(release: Release, request: Statement) -> bytes:
    (record,) = release.records
    key = ask.recipient()
    place = ReleaseContext(make.AUTHORITY, request.digest, record.principal, record.id, key.kid)
    return open_material(record.blob, place, key).material.expose()


async def kinds(place: Place) -> Sequence[str]:
    """Return the types of the leaves after rosters and enrolments of the beginning."""
    return [leaf.type for leaf in (await place.log())[4:]]


# ---- approvals ----


async def test_two_other_officers_approve_and_the_same_request_is_answered(place: Place) -> None:
    """It waits, waits with one approval, and is released with two; the log names both, and the owner is told."""
    request = officers_request()
    async with place.worker():
        first = await waits(place, request)
        await done(place, ask.approval(request, "officer-b"))
        second = await waits(place, request)
        await done(place, ask.approval(request, "officer-c"))
        release = await place.release(request)
        listing = place.signed(await place.ask(ask.listing_request().envelope()), Listing)
    assert material(release, request) == MATERIAL
    assert "there are 0" in first.message
    assert "there are 1 (officer-b)" in second.message
    assert await kinds(place) == ["request", "approval", "approval", "release"]
    *_, one, two, released = await place.log()
    assert released.type == "release"
    assert one.type == two.type == "approval"
    assert released.approvals == [one.digest, two.digest]
    (record,) = listing.records
    assert record.state is RecordState.DISCLOSED
    assert record.disclosure is not None
    assert (record.disclosure.requester, record.disclosure.requester_kind) == ("officer-a", Capacity.OFFICER)
    assert (record.disclosure.reason, record.disclosure.released_at) == ("disk dead", place.now)


async def test_the_owner_is_told_of_an_officer_also_after_its_own_recovery(place: Place) -> None:
    """A host that recovers its key after an officer did still hears who else has it."""
    request = officers_request()
    async with place.worker():
        await approved(place, request)
        await place.release(request)
        await place.release(ask.request())
        listing = place.signed(await place.ask(ask.listing_request().envelope()), Listing)
    (record,) = listing.records
    assert record.disclosure is not None
    assert (record.disclosure.requester, record.disclosure.reason) == ("officer-a", "disk dead")


async def test_rows_that_are_taken_away_for_a_while_do_not_end_a_request_that_waits(place: Place) -> None:
    """What was there when it was asked cannot be "not found" later; when the rows are back, it is answered."""
    request = officers_request()
    async with place.worker():
        await approved(place, request)
        await ask_superuser(place.databases, "UPDATE records SET principal = 'somebody-else'")
        rejection = await place.refusal(request)
        await ask_superuser(place.databases, "UPDATE records SET principal = $1", make.PRINCIPAL)
        await place.release(request)
    assert rejection.code == "proof_invalid"
    assert (await kinds(place))[-1] == "release"


async def test_a_request_waits_through_new_workers(place: Place) -> None:
    """Asked of one worker, approved at a second, released by a third: nothing of it is in a worker's memory."""
    request = officers_request()
    async with place.worker():
        await waits(place, request)
    async with place.worker(state_dir=place.folder / "second"):
        await done(place, ask.approval(request, "officer-b"))
        await done(place, ask.approval(request, "officer-c"))
    async with place.worker():
        assert material(await place.release(request), request) == MATERIAL


async def test_asking_again_while_it_waits_adds_nothing_to_the_log(place: Place) -> None:
    """However often a requester looks, the request is on the record once."""
    request = officers_request()
    async with place.worker():
        for _ in range(3):
            await waits(place, request)
    assert await kinds(place) == ["request"]


async def test_an_approval_that_is_repeated_is_proven_again_and_counts_once(place: Place) -> None:
    """The same statement twice is one approval; another one of the same officer is refused."""
    request = officers_request()
    approval = ask.approval(request, "officer-b")
    async with place.worker():
        await waits(place, request)
        first, second = await done(place, approval), await done(place, approval)
        code = await code_of(place, ask.approval(request, "officer-b"))
        rejection = await waits(place, request)
    assert first == second
    assert code == "approval_invalid"
    assert "there are 1" in rejection.message
    assert await kinds(place) == ["request", "approval"]


@pytest.mark.parametrize(
    ("make_approval", "code"),
    [
        (lambda asked: ask.approval(asked, "officer-a"), "approval_invalid"),
        (lambda asked: ask.approval(asked, "officer-d"), "officer_unknown"),
        (lambda asked: ask.approval(asked, "officer-z"), "officer_unknown"),
        (lambda asked: ask.approval(asked, "officer-b", key="officer-a"), "signature_invalid"),
        (lambda asked: ask.approval(asked, "officer-b", request=new_id()), "not_found"),
        (lambda asked: ask.approval(asked, "officer-b", request_digest="0" * 64), "approval_invalid"),
        (
            lambda asked: ask.approval(asked, "officer-b", issued_at=make.NOW - 100, expires_at=make.NOW - 61),
            "expired",
        ),
        (lambda asked: ask.approval(asked, "officer-b", expires_at=make.NOW + 8 * make.DAY), "limit_exceeded"),
        (lambda asked: ask.approval(asked, "officer-b", authority="other.example.org"), "wrong_authority"),
    ],
    ids=[
        "by the requester",
        "without the role",
        "by no officer",
        "signed by another",
        "of no request",
        "of an altered request",
        "expired",
        "too long a life",
        "for another authority",
    ],
)
async def test_an_approval_that_cannot_count_is_refused(place: Place, make_approval: Any, code: str) -> None:
    """It gets its named error, is quarantined, and leaves no trace in the log."""
    request = officers_request()
    async with place.worker():
        await waits(place, request)
        assert await code_of(place, make_approval(request)) == code
        await waits(place, request)
    assert await kinds(place) == ["request"]
    assert await place.quarantined() == [code]


async def test_a_requester_does_not_approve_under_another_name(place: Place) -> None:
    """The key that asked is the key that may not approve, whatever the roster calls its owner meanwhile."""
    request = officers_request()
    renamed = Officer(name="officer-x", public_key=make.signing_key("officer-a").public_key, roles=list(Role))
    async with place.worker():
        await waits(place, request)
        place.write_roster(newer(place, officers=[*OFFICERS[1:], renamed]))
        assert await code_of(place, ask.approval(request, "officer-x", key="officer-a")) == "approval_invalid"


async def test_approvals_of_a_removed_officer_no_longer_count(place: Place) -> None:
    """Both approved; then a roster removes one of them, and the request waits for another."""
    request = officers_request()
    async with place.worker():
        await waits(place, request)
        await done(place, ask.approval(request, "officer-b"))
        await done(place, ask.approval(request, "officer-c"))
        place.write_roster(newer(place, officers=[OFFICERS[0], OFFICERS[1], make.officer("officer-e")]))
        rejection = await waits(place, request)
        await done(place, ask.approval(request, "officer-e"))
        await place.release(request)
    assert "there are 1 (officer-b)" in rejection.message


async def test_one_person_under_two_keys_or_two_names_counts_once(place: Place) -> None:
    """Officer b approves, gets a new key and approves again; and again under a new name with the old key."""
    request = officers_request()
    second_key = Officer(name="officer-b", public_key=make.signing_key("b's second").public_key, roles=list(Role))
    renamed = Officer(name="officer-x", public_key=make.signing_key("officer-b").public_key, roles=list(Role))
    async with place.worker():
        await waits(place, request)
        await done(place, ask.approval(request, "officer-b"))
        place.write_roster(newer(place, officers=[OFFICERS[0], second_key, OFFICERS[2]]))
        await done(place, ask.approval(request, "officer-b", key="b's second"))
        assert "there are 1" in (await waits(place, request)).message
        place.write_roster(newer(place, officers=[OFFICERS[0], renamed, OFFICERS[2]]))
        await done(place, ask.approval(request, "officer-x", key="officer-b"))
        assert "there are 1" in (await waits(place, request)).message


def newer(place: Place, **changes: Any) -> Roster:
    """Return the roster after the one in the worker's file, with four officers and default policy, or as given."""
    before = parse_envelope(place.settings.roster_file.read_bytes())
    version = parse_body(before, RosterBody).version + 1
    members = {"officers": OFFICERS, "policy": Policy()} | changes
    return make.roster(version=version, previous=before.digest.hex(), **members)


async def test_an_approval_that_has_expired_no_longer_counts_and_may_be_given_again(place: Place) -> None:
    """Two approvals, one of which lasts an hour: two hours later there is one, and its officer gives another."""
    request = officers_request()
    async with place.worker():
        await waits(place, request)
        await done(place, ask.approval(request, "officer-b", expires_at=make.NOW + HOUR))
        await done(place, ask.approval(request, "officer-c"))
        place.now += 2 * HOUR
        assert "there are 1 (officer-c)" in (await waits(place, request)).message
        await done(place, ask.approval(request, "officer-b", issued_at=place.now))
        await place.release(request)


async def test_an_expired_request_is_not_answered_whatever_was_approved(place: Place) -> None:
    """A day later the approvals do not help any more, and no new one is taken."""
    request = officers_request()
    async with place.worker():
        await waits(place, request)
        await done(place, ask.approval(request, "officer-b", expires_at=make.NOW + 3 * make.DAY))
        place.now += make.DAY + 61
        late = ask.approval(request, "officer-c", issued_at=place.now, expires_at=place.now + HOUR)
        assert await code_of(place, late) == "expired"
        assert (await place.refusal(request)).code == "expired"


async def test_a_request_altered_after_its_approval_gets_nothing(place: Place) -> None:
    """The same id with another recipient key is a conflict, on the record; under a new id it has no approvals."""
    request = officers_request()
    thief = make.sealing_key("the thief's").public_key
    body = parse_body(request, Request)
    async with place.worker():
        await waits(place, request)
        await done(place, ask.approval(request, "officer-b"))
        await done(place, ask.approval(request, "officer-c"))
        assert (await place.refusal(officers_request(id=body.id, recipient_key=thief))).code == "statement_conflict"
        await waits(place, officers_request(recipient_key=thief))
        assert material(await place.release(request), request) == MATERIAL


async def test_self_recovery_waits_for_approvals_where_policy_asks_for_them(place: Place) -> None:
    """With one approval asked for, a host's own request waits, and is answered after an officer agreed."""
    request = ask.request(expires_at=make.NOW + make.DAY)
    place.write_roster(newer(place, policy=Policy(self_recovery_approvals=1)))
    async with place.worker():
        await waits(place, request)
        await done(place, ask.approval(request, "officer-b"))
        assert material(await place.release(request), request) == MATERIAL


async def test_an_officer_without_the_role_or_without_a_reason_asks_in_vain(place: Place) -> None:
    """An auditor's request is refused on the record; one without a reason is malformed."""
    blank = Statement.sign(
        Request.TYPE,
        make.altered(parse_body(officers_request(), Request), reason=" "),
        make.signing_key("officer-a"),
    )
    async with place.worker():
        assert (await place.refusal(officers_request("officer-d"))).code == "officer_unknown"
        assert await code_of(place, blank) == "malformed"


async def test_an_approval_whose_signature_was_edited_does_not_count_and_is_reported(place: Place) -> None:
    """Digests do not cover signatures: 64 other bytes in the database take the approval away, and it is told."""
    request = officers_request()
    approval = ask.approval(request, "officer-b")
    (signature,) = approval.signatures
    edited = Statement(approval.type, approval.body, (Signature(signature.key_id, bytes(64)),))
    with capture_logs() as lines:
        async with place.worker():
            await waits(place, request)
            await done(place, approval)
            await ask_superuser(
                place.databases,
                "UPDATE trust_statements SET envelope = $1 WHERE digest = $2",
                edited.envelope(),
                approval.digest,
            )
            rejection = await waits(place, request)
    assert "there are 0" in rejection.message
    assert [(line["kind"], line["log_level"]) for line in lines if line["event"] == "stored statement lost"] == [
        ("approval", "error")
    ]


async def test_a_request_whose_signer_speaks_for_nobody_any_more_is_not_approved(place: Place) -> None:
    """The host was revoked, or the officer got another key: an officer who would approve is told so."""
    place.write_roster(newer(place, policy=Policy(self_recovery_approvals=1)))
    mine, officers = ask.request(expires_at=make.NOW + make.DAY), officers_request()
    renewed = Officer(name="officer-a", public_key=make.signing_key("a's second").public_key, roles=list(Role))
    async with place.worker():
        await waits(place, mine)
        await waits(place, officers)
        await done(place, make.revocation(officer="officer-b"))
        assert await code_of(place, ask.approval(mine, "officer-b")) == "approval_invalid"
        place.write_roster(newer(place, officers=[renewed, *OFFICERS[1:]]))
        assert await code_of(place, ask.approval(officers, "officer-b")) == "approval_invalid"


async def test_a_request_padded_outside_its_body_is_kept_without_the_padding(place: Place) -> None:
    """White space around the payload is legal JSON; it does not get into the database."""
    request = officers_request()
    padded = request.envelope().replace(b'{"payload"', b"{" + b" " * 1_000_000 + b'"payload"', 1)
    async with place.worker():
        rejection = await place.rejection(padded)
    (row,) = await place.rows("SELECT envelope FROM requests")
    assert rejection.code == "approval_required"
    assert row["envelope"] == request.envelope()


# ---- denials ----


@pytest.mark.parametrize(
    ("denier", "kind"),
    [("officer-d", Capacity.OFFICER), (make.PRINCIPAL, Capacity.PRINCIPAL)],
    ids=["any officer", "the owner"],
)
async def test_a_denied_request_stays_denied(place: Place, denier: str, kind: Capacity) -> None:
    """Neither later approvals nor asking again helps."""
    request = officers_request()
    async with place.worker():
        await waits(place, request)
        await done(place, ask.approval(request, "officer-b"))
        await done(place, ask.denial(request, denier, denier_kind=kind))
        assert await code_of(place, ask.approval(request, "officer-c")) == "approval_invalid"
        rejection = await place.rejection(request.envelope())
        (entry,) = (await read_docket(place, ask.docket_request(pending=False))).entries
    assert rejection.code == "denied"
    assert f'denied by {kind.value} {denier}: "nobody here asked for this"' in rejection.message
    assert entry.denial is not None
    assert len(entry.approvals) == 1
    assert await kinds(place) == ["request", "approval", "denial"]


async def test_somebody_elses_denial_is_refused(place: Place) -> None:
    """Another host, or a stranger, stops no recovery."""
    request = officers_request()
    async with place.worker():
        await waits(place, request)
        other = ask.denial(request, OTHER, denier_kind=Capacity.PRINCIPAL)
        assert await code_of(place, other) == "approval_invalid"
        assert await code_of(place, ask.denial(request, "officer-b", key="a stranger")) == "signature_invalid"
        await waits(place, request)


# ---- delay and rates ----


async def test_approvals_do_not_shorten_the_delay(place: Place) -> None:
    """With 24 hours of delay the answer says until when, to the second; the owner sees it coming, and can deny."""
    place.write_roster(newer(place, policy=Policy(officer_recovery_delay_hours=24)))
    request = officers_request(expires_at=make.NOW + 3 * make.DAY)
    async with place.worker():
        await waits(place, request)
        for officer in ("officer-b", "officer-c"):
            await done(place, ask.approval(request, officer, expires_at=make.NOW + 3 * make.DAY))
        rejection = await waits(place, request)
        listing = place.signed(await place.ask(ask.listing_request().envelope()), Listing)
        place.now += make.DAY - 1
        await waits(place, request)
        place.now += 1
        await place.release(request)
    assert rejection.retry_at == make.NOW + make.DAY
    (pending,) = listing.pending
    assert (pending.request, pending.requester) == (parse_body(request, Request).id, "officer-a")
    assert (pending.not_before, pending.reason) == (make.NOW + make.DAY, "disk dead")


async def test_a_flood_of_requests_is_limited_and_does_not_fill_the_log(place: Place) -> None:
    """Three an hour: the fourth is told when to come back, once on the record; others go on, and it does later."""
    place.write_roster(newer(place, policy=Policy(requests_per_hour=3)))
    late = ask.request(expires_at=make.NOW + 300)
    async with place.worker():
        for _ in range(3):
            await place.release(ask.request())
        rejections = [await place.rejection(ask.request().envelope()) for _ in range(5)]
        rejections.append(await place.rejection(late.envelope()))
        await place.escrow(make.escrow(OTHER))
        await place.release(ask.request(OTHER))
        place.now += HOUR
        again = ask.request(issued_at=place.now, expires_at=place.now + 300)
        await place.release(again)
    assert {(each.code, each.retry_at) for each in rejections} == {("rate_limited", make.NOW + HOUR)}
    assert (await kinds(place)).count("refusal") == 1


async def test_released_records_are_counted_over_a_day(place: Place) -> None:
    """Two records a day: the third waits, and the same request is answered when its time has come."""
    place.write_roster(newer(place, policy=Policy(released_records_per_day=2)))
    request = officers_request(expires_at=make.NOW + 3 * make.DAY)
    async with place.worker():
        for _ in range(2):
            mine = officers_request()
            await approved(place, mine)
            await place.release(mine)
        await approved(place, request)
        rejection = await place.rejection(request.envelope())
        place.now += make.DAY
        await place.release(request)
    assert (rejection.code, rejection.retry_at) == ("rate_limited", make.NOW + make.DAY)


async def approved(place: Place, request: Statement) -> None:
    await waits(place, request)
    for officer in ("officer-b", "officer-c"):
        await done(place, ask.approval(request, officer, expires_at=make.NOW + 3 * make.DAY))


# ---- dockets ----


async def test_an_officer_reads_the_signed_request_itself(place: Place) -> None:
    """The docket carries what the requester signed, who agreed, how many must; decided ones only if asked for."""
    waiting, other = officers_request(), officers_request("officer-b", reason="audit")
    async with place.worker():
        await waits(place, waiting)
        await waits(place, other)
        await done(place, ask.approval(waiting, "officer-c"))
        await done(place, ask.denial(other, "officer-c"))
        docket = await read_docket(place, ask.docket_request("officer-d"))
        everything = await read_docket(place, ask.docket_request("officer-d", pending=False))
        one = await read_docket(place, ask.docket_request(request=parse_body(other, Request).id))
    (entry,) = docket.entries
    assert entry.request == waiting.envelope()
    assert entry.digest == waiting.digest.hex()
    assert [parse_envelope(each).signatures[0].key_id for each in entry.approvals] == [
        make.signing_key("officer-c").key_id
    ]
    assert (entry.needed, entry.state, entry.not_before) == (2, RequestState.PENDING, place.now)
    assert [each.state for each in everything.entries] == [RequestState.DENIED, RequestState.PENDING]
    assert [each.id for each in one.entries] == [parse_body(other, Request).id]


async def test_a_principal_sees_what_concerns_its_own_records_and_nothing_else(place: Place) -> None:
    """The owner gets the request for its records with nothing left out; another host gets none, and may not ask."""
    request = officers_request()
    async with place.worker():
        await waits(place, request)
        mine = await read_docket(place, hosts_docket(make.PRINCIPAL, make.PRINCIPAL))
        others = await read_docket(place, hosts_docket(OTHER, OTHER))
        denied = await code_of(place, hosts_docket(OTHER, make.PRINCIPAL))
        all_of_them = await code_of(place, hosts_docket(OTHER, None))
    assert [entry.request for entry in mine.entries] == [request.envelope()]
    assert others.entries == []
    assert (denied, all_of_them) == ("denied", "denied")


def hosts_docket(host: str, principal: str | None) -> Statement:
    return ask.docket_request(host, requester_kind=Capacity.PRINCIPAL, principal=principal)


async def test_a_hosts_request_comes_with_what_its_key_rests_on(place: Place) -> None:
    """Its enrolment, and the roster of that time when another one is in force now."""
    place.write_roster(newer(place, policy=Policy(self_recovery_approvals=1)))
    request = ask.request(expires_at=make.NOW + make.DAY)
    async with place.worker():
        await waits(place, request)
        docket = await read_docket(place, ask.docket_request())
    (entry,) = docket.entries
    assert entry.enrolment is not None
    assert entry.roster == place.roster.statement.envelope()


async def read_docket(place: Place, statement: Statement) -> Docket:
    return place.signed(await place.ask(statement.envelope()), Docket)


async def test_large_requests_hide_no_others_from_the_docket(place: Place) -> None:
    """Sixty requests, each as large as one may be: page by page every one of them is shown, newest first."""
    place.write_roster(newer(place, policy=Policy(requests_per_hour=100)))
    asked = []
    for _ in range(60):
        body = parse_body(officers_request(), Request)
        padded = body.to_bytes().ljust(REQUEST_BODY_BYTES_MAX)
        asked.append(Statement.sign(Request.TYPE, padded, make.signing_key("officer-a")))
    seen: list[str] = []
    after: str | None = None
    async with place.worker():
        for request in asked:
            await waits(place, request)
        for _ in asked:
            docket = await read_docket(place, ask.docket_request(after=after))
            seen += [entry.digest for entry in docket.entries]
            after = docket.next
            if after is None:
                break
    assert seen == [request.digest.hex() for request in reversed(asked)]


# ---- revocation ----


async def test_a_revoked_principal_gets_nothing_until_it_is_invited_anew(place: Place) -> None:
    """Its requests are refused at once; an older invitation does not help; a newer, replacing one does."""
    old = make.invitation(officers=("officer-a", "officer-b"), replaces=True)
    async with place.worker():
        await place.release(ask.request())
        await done(place, make.revocation())
        assert await code_of(place, ask.request()) == "principal_revoked"
        before = make.enrolment(old, key="new")
        assert (await place.rejection(before.envelope(), verb="enrol")).code == "invitation_invalid"
        place.now += 1
        fresh = make.invitation(officers=("officer-a", "officer-b"), replaces=True, issued_at=place.now)
        again = make.enrolment(fresh, key=make.PRINCIPAL)
        assert (await place.rejection(again.envelope(), verb="enrol")).code == "invitation_invalid"
        await place.enrol(make.enrolment(fresh, key="new"))
        release = await place.release(ask.request(key="new"))
    assert release.records


@pytest.mark.parametrize(
    ("revocation", "code"),
    [
        (lambda: make.revocation(officer="officer-d"), "officer_unknown"),
        (lambda: make.revocation(signer="a stranger"), "signature_invalid"),
        (lambda: make.revocation("laptop-9999"), "not_found"),
        (lambda: make.revocation(key=make.signing_key("unknown").key_id), "not_found"),
    ],
    ids=["without the role", "by a stranger", "of nobody", "of an unknown key"],
)
async def test_a_revocation_that_cannot_be_is_refused(place: Place, revocation: Any, code: str) -> None:
    """It gets its named error, and the host goes on."""
    async with place.worker():
        assert await code_of(place, revocation()) == code
        await place.release(ask.request())


async def test_a_request_of_a_requester_who_was_revoked_or_removed_meanwhile_is_not_answered(place: Place) -> None:
    """Two approvals are there; the roster loses the requesting officer before the release."""
    request = officers_request()
    async with place.worker():
        await approved(place, request)
        place.write_roster(newer(place, officers=OFFICERS[1:]))
        assert await code_of(place, request) == "officer_unknown"


# ---- invitations on the way ----


async def test_signatures_on_a_replacing_invitation_are_collected_in_any_order(place: Place) -> None:
    """Two officers send their copies; the docket shows both signatures, until the invitation was used."""
    body = make.invitation_body(replaces=True)
    copies = [make.signed(body, make.signing_key(name)) for name in ("officer-b", "officer-a")]
    async with place.worker():
        first = await done(place, copies[0])
        second = await done(place, copies[1])
        docket = await read_docket(place, ask.docket_request())
        (envelope,) = docket.invitations
        await place.enrol(make.enrolment(parse_envelope(envelope), key="new"))
        assert (await read_docket(place, ask.docket_request())).invitations == []
        assert await code_of(place, copies[0]) == "invitation_invalid"
    assert first.type == second.type == "invitation"
    assert (first.officers, second.officers) == (["officer-b"], ["officer-a", "officer-b"])


async def test_a_worthless_signature_in_front_of_an_officers_does_not_spoil_an_invitation(place: Place) -> None:
    """Whoever carries the message can add one under the officer's key id; the true one is kept."""
    body = make.invitation_body(replaces=True)
    true = make.signed(body, make.signing_key("officer-b"))
    worthless = Signature(make.signing_key("officer-b").key_id, bytes(64))
    async with place.worker():
        spoilt = Statement(true.type, true.body, (worthless, *true.signatures))
        first = await done(place, spoilt)
        second = await done(place, make.signed(body, make.signing_key("officer-a")))
        (envelope,) = (await read_docket(place, ask.docket_request())).invitations
        await place.enrol(make.enrolment(parse_envelope(envelope), key="new"))
    assert first.type == second.type == "invitation"
    assert second.officers == ["officer-a", "officer-b"]


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        (lambda: make.invitation(replaces=True, officers=("a stranger",)), "signature_invalid"),
        (lambda: make.invitation(replaces=True, officers=("officer-d",)), "signature_invalid"),
        (make.invitation, "invitation_invalid"),
        (lambda: make.invitation(replaces=True, expires_at=make.NOW - 61, issued_at=make.NOW - 99), "expired"),
    ],
    ids=["by a stranger", "without the role", "one signature is enough", "expired"],
)
async def test_an_invitation_that_needs_no_collecting_is_refused(place: Place, statement: Any, code: str) -> None:
    """It gets its named error and is not kept."""
    async with place.worker():
        assert await code_of(place, statement()) == code
    assert await kinds(place) == []


async def test_a_fleet_enrols_by_one_invitation_as_often_as_it_says(place: Place) -> None:
    """Two uses: two new hosts of that prefix, not a third, not another name, not an enrolled one."""
    invited = make.invitation(prefix="laptop-", uses=2)
    assert parse_body(invited, Invitation).uses == 2
    async with place.worker():
        wrong = make.enrolment(invited, "desktop-1")
        assert (await place.rejection(wrong.envelope(), verb="enrol")).code == "invitation_invalid"
        taken = make.enrolment(invited, key="another key")
        assert (await place.rejection(taken.envelope(), verb="enrol")).code == "invitation_invalid"
        await place.enrol(make.enrolment(invited, "laptop-1"))
        await place.enrol(make.enrolment(invited, "laptop-2"))
        third = make.enrolment(invited, "laptop-3")
        assert (await place.rejection(third.envelope(), verb="enrol")).code == "invitation_invalid"


# ---- events ----


async def test_subscribers_hear_ids_and_nothing_else(place: Place) -> None:
    """Request, approval and release are announced under the principal's key, without reason, name or key."""
    request = officers_request()
    async with (
        amqp.connect(
            place.brokers.url("events"), ca_file=place.brokers.ca_file, name="test", timeout_seconds=60
        ) as connection,
        place.worker(),
    ):
        channel = await connection.channel(confirms=False)
        await channel.queue_declare("events.test", exclusive=True, timeout=60)
        await channel.queue_bind("events.test", EVENTS_EXCHANGE, f"v1.*.{make.PRINCIPAL}", timeout=60)
        await approved(place, request)
        await place.release(request)
        got = [await channel.basic_get("events.test", no_ack=True, timeout=60) for _ in range(4)]
        await channel.queue_delete("events.test", timeout=60)
    heard = [json.loads(each.body) for each in got]
    assert [each["what"] for each in heard] == ["request", "approval", "approval", "release"]
    assert {each["principal"] for each in heard} == {make.PRINCIPAL}
    assert {each["request"] for each in heard} == {parse_body(request, Request).id}
    assert set(heard[0]) == {"what", "time", "principal", "id", "request", "log_index"}
