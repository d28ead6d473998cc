"""Whoever owns the database would like officers to have agreed: rows, leaves and rosters that say so."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.attacks.conftest import MATERIAL, OFFICERS, OTHER, is_forked
from tests.integration.test_recovery_approvals import (
    approved,
    code_of,
    done,
    material,
    officers_request,
    read_docket,
    waits,
)
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.attacker import UNGUARDED, as_superuser, ask_superuser, leaves_of, remake_log
from tests.support.recovery import ANSWER_SECONDS_MAX, Place

from strongroom.checkpoint_file import working_origin
from strongroom.crypto import tlog
from strongroom.crypto.notes import Checkpoint, sign_checkpoint
from strongroom.errors import LogForked, StateCorrupt
from strongroom.fields import parse_body
from strongroom.mandates import Approval, Policy
from strongroom.messages import Request
from strongroom.statements import Statement

_INSERT = (
    "INSERT INTO trust_statements (digest, id, type, envelope, leaf_index) VALUES ($1, $2::text::uuid, $3, $4, $5)"
)


async def insert_approval(place: Place, approval: Statement, index: int) -> None:
    """Put the row of an approval into the database, as if it had been taken."""
    id_ = parse_body(approval, Approval).id
    await ask_superuser(place.databases, _INSERT, approval.digest, id_, approval.type, approval.envelope(), index)


def forged_head(place: Place, leaves: list[bytes]) -> str:
    """Return a checkpoint over these leaves that looks like the recovery log's, signed by the attacker."""
    frontier, _ = tlog.append(tlog.Frontier.empty(), leaves)
    head = Checkpoint(working_origin(place.roster.body.logs.recovery.origin), frontier.size, frontier.root())
    thief = make.signing_key("a thief")
    return sign_checkpoint(head, thief.sign, thief.public_key)


async def ends(place: Place, message: Statement) -> BaseException:
    """Send a message to a new worker, or to one that does not even start; return the error that ends it."""
    try:
        async with place.serving() as (_, task):
            await place.submit(message.envelope())
            await asyncio.wait({task}, timeout=ANSWER_SECONDS_MAX)
            assert task.done()
            error = task.exception()
    except (LogForked, StateCorrupt) as refused:
        return refused
    assert error is not None
    return error


# ---- approvals -------------------------------------------------------------------------------------------


async def test_rows_of_approvals_that_the_log_does_not_name_count_for_nothing(place: Place) -> None:
    """He inserts two approvals, which bad officers even signed: nothing is released, and the docket shows none."""
    request = officers_request()
    async with place.worker():
        await waits(place, request)
        for index, officer in enumerate(("officer-b", "officer-c"), start=100):
            await insert_approval(place, ask.approval(request, officer), index)
        assert "there are 0" in (await waits(place, request)).message
        (entry,) = (await read_docket(place, ask.docket_request())).entries
    assert entry.approvals == []
    assert await place.rows("SELECT * FROM releases") == []


@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("has_head", [False, True], ids=["beyond the head", "under a forged head"])
async def test_leaves_of_approvals_that_the_log_key_did_not_sign_stop_the_worker(
    place: Place, *, is_restarted: bool, has_head: bool
) -> None:
    """He adds approvals, leaves and hashes that fit, without the log's key: no release, and the log is forked."""
    request = officers_request()
    forged = [ask.approval(request, officer) for officer in ("officer-b", "officer-c")]

    async def forge() -> None:
        leaves = await leaves_of(place.databases, "recovery")
        for index, approval in enumerate(forged, start=len(leaves)):
            await insert_approval(place, approval, index)
        leaves += [ask.approval_leaf(approval) for approval in forged]
        head = forged_head(place, leaves) if has_head else None
        await remake_log(place.databases, "recovery", leaves, head)

    # Leaves beyond the head are no part of the log, and are in the way of the next that is.
    message = request if has_head else officers_request("officer-b")
    async with place.serving() as (_, task):
        await waits(place, request)
        await forge()
        if not is_restarted:
            await place.submit(message.envelope())
            await is_forked(task)
    if is_restarted:
        assert isinstance(await ends(place, message), LogForked)
    assert await place.rows("SELECT * FROM releases") == []


async def test_approvals_of_another_request_do_not_count_wherever_they_are_put(place: Place) -> None:
    """He puts two approvals of one request where those of another belong: lost ones are reported, none counts."""
    good, bad = officers_request(), officers_request("officer-c", reason="for myself")
    async with place.worker():
        await approved(place, good)
        await waits(place, bad)
        await done(place, ask.approval(bad, "officer-a"))
        indexes = [(await place.log()).index(leaf) for leaf in await place.log() if leaf.type == "approval"]
        await as_superuser(
            place.databases,
            f"""UPDATE trust_statements SET (digest, id, envelope) = (SELECT digest, id, envelope
                FROM trust_statements WHERE leaf_index = {indexes[0]}) WHERE leaf_index = {indexes[2]}""",  # noqa: S608
        )
        with capture_logs() as lines:
            rejection = await waits(place, bad)
        released = await place.release(good)
    assert "there are 0" in rejection.message
    lost = [line for line in lines if line["event"] == "stored statement lost"]
    assert [(line["kind"], line["log_level"], line["index"]) for line in lost] == [
        ("approval", "error", indexes[2])
    ]
    assert material(released, good) == MATERIAL


async def test_a_leaf_copied_from_another_request_stops_the_worker(place: Place) -> None:
    """He repeats an approval's leaf behind the log: no checkpoint covers it, and the next entry finds it."""
    good, bad = officers_request(), officers_request("officer-c")
    async with place.serving() as (_, task):
        await approved(place, good)
        await waits(place, bad)
        leaves = await leaves_of(place.databases, "recovery")
        copied = next(leaf for leaf in leaves if b'"type":"approval"' in leaf)
        await remake_log(place.databases, "recovery", [*leaves, copied])
        assert "there are 0" in (await waits(place, bad)).message
        await place.submit(ask.approval(bad, "officer-a").envelope())
        await is_forked(task)


# ---- requests --------------------------------------------------------------------------------------------


async def test_officers_do_not_agree_to_a_request_that_was_swapped(place: Place) -> None:
    """He puts a request with his recipient key under the id of another: nobody can approve, and it is said."""
    request = officers_request()
    body = parse_body(request, Request)
    thiefs = officers_request(id=body.id, recipient_key=make.sealing_key("the thief's").public_key)
    async with place.worker():
        await waits(place, request)
        await ask_superuser(
            place.databases, "UPDATE requests SET envelope = $1, digest = $2", thiefs.envelope(), thiefs.digest
        )
        with capture_logs() as lines:
            (entry,) = (await read_docket(place, ask.docket_request())).entries
            codes = [await code_of(place, ask.approval(each, "officer-b")) for each in (request, thiefs)]
        assert (await place.refusal(thiefs)).code == "statement_conflict"
    assert (entry.request, entry.digest) == (None, request.digest.hex())
    assert codes == ["proof_invalid", "approval_invalid"]
    lost = {(line["kind"], line["log_level"]) for line in lines if line["event"] == "stored statement lost"}
    assert lost == {("request", "error")}
    assert await place.rows("SELECT * FROM releases") == []


COLUMNS = {
    "the requester": "UPDATE requests SET requester = 'officer-b'",
    "the kind of requester": "UPDATE requests SET requester_kind = 'principal', requester = 'laptop-0417'",
    "the principal": "UPDATE requests SET principal = 'laptop-0418'",
    "the time": "UPDATE requests SET received_at = 0",
    "the leaf": "UPDATE requests SET leaf_index = 0",
}


@pytest.mark.parametrize("edit", COLUMNS.values(), ids=COLUMNS)
async def test_columns_of_a_request_decide_nothing(place: Place, edit: str) -> None:
    """He edits who asked, for whom, when: the requester still may not approve, and the request still waits."""
    request = officers_request()
    async with place.worker():
        await waits(place, request)
        await as_superuser(place.databases, edit)
        code = await code_of(place, ask.approval(request, "officer-a"))
        (entry,) = (await read_docket(place, ask.docket_request())).entries
        await waits(place, request)
    assert code == "approval_invalid"
    assert (entry.request, entry.asked_at, entry.log_index) == (request.envelope(), make.NOW, 3)
    assert await place.rows("SELECT * FROM releases") == []


async def test_a_release_row_put_in_by_hand_is_not_an_answer(place: Place) -> None:
    """He takes a release that was given, and puts it under a request that waits: it goes on waiting."""
    given, waiting = ask.request(), officers_request()
    async with place.worker():
        await place.release(given)
        await waits(place, waiting)
        await ask_superuser(
            place.databases,
            """INSERT INTO releases (request_id, envelope, leaf_index)
                SELECT $1::text::uuid, envelope, leaf_index + 1 FROM releases""",
            parse_body(waiting, Request).id,
        )
        await waits(place, waiting)


# ---- rosters and policy ----------------------------------------------------------------------------------


ROSTERS: dict[str, dict[str, Any]] = {
    "no approvals": {"policy": Policy().model_copy(update={"officer_recovery_approvals": 0})},
    "one approval": {"policy": Policy(officer_recovery_approvals=1)},
    "an officer of his own": {"officers": [*OFFICERS, make.officer("officer-x")]},
}


@pytest.mark.parametrize("changes", ROSTERS.values(), ids=ROSTERS)
@pytest.mark.parametrize("signer", ["a stranger", None], ids=["signed by a stranger", "under root's signature"])
@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
async def test_a_roster_row_written_by_hand_is_not_in_force(
    place: Place, changes: dict[str, Any], signer: str | None, *, is_restarted: bool
) -> None:
    """He edits policy or officers in the stored roster: a running worker stays with its own, a new one stops."""
    genuine = place.roster.statement
    body = make.roster_body(officers=OFFICERS).model_copy(update=changes).to_bytes()
    forged = Statement(genuine.type, body, genuine.signatures)
    if signer is not None:
        forged = Statement.sign(genuine.type, body, make.signing_key(signer))
    request = officers_request()

    async def edit() -> None:
        await ask_superuser(
            place.databases,
            "UPDATE trust_statements SET envelope = $1 WHERE type = $2",
            forged.envelope(),
            forged.type,
        )

    async with place.worker():
        await waits(place, request)
        await done(place, ask.approval(request, "officer-b"))
        await edit()
        if not is_restarted:
            assert await code_of(place, ask.approval(request, "officer-x")) == "officer_unknown"
            assert "asks for 2" in (await waits(place, request)).message
    error = await ends(place, request)
    assert isinstance(error, StateCorrupt)
    assert "roster" in str(error)
    assert await place.rows("SELECT * FROM releases") == []


@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
async def test_a_roster_leaf_without_the_log_key_puts_nobody_in_force(place: Place, *, is_restarted: bool) -> None:
    """He adds a whole new roster, row, leaf and head, with his own officer in it: the worker stops at it."""
    own = make.next_roster(place.roster, **ROSTERS["an officer of his own"])
    request = officers_request()

    async def forge() -> None:
        leaves = [*await leaves_of(place.databases, "recovery"), make.roster_leaf(own)]
        await ask_superuser(
            place.databases,
            _INSERT,
            own.digest,
            None,
            own.statement.type,
            own.statement.envelope(),
            len(leaves) - 1,
        )
        await remake_log(place.databases, "recovery", leaves, forged_head(place, leaves))

    async with place.serving() as (_, task):
        await waits(place, request)
        await forge()
        if not is_restarted:
            await place.submit(ask.approval(request, "officer-x").envelope())
            await is_forked(task)
    assert isinstance(await ends(place, request), LogForked)


# ---- enrolments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
async def test_an_enrolment_with_a_leaf_of_its_own_gives_nobody_a_name(place: Place, *, is_restarted: bool) -> None:
    """He adds a replacement that two officers signed, row, leaf and head: the thief's key speaks for nobody."""
    invited = make.invitation(officers=("officer-a", "officer-b"), replaces=True)
    forged = make.enrolment(invited, key="the thief's")
    request = ask.request(key="the thief's")

    async def forge() -> None:
        leaves = [*await leaves_of(place.databases, "recovery"), make.enrolment_leaf(forged)]
        await ask_superuser(
            place.databases, _INSERT, forged.digest, None, forged.type, forged.envelope(), len(leaves) - 1
        )
        await remake_log(place.databases, "recovery", leaves, forged_head(place, leaves))

    async with place.serving() as (_, task):
        assert await code_of(place, request) == "signature_invalid"
        await forge()
        if not is_restarted:
            await place.submit(request.envelope())
            await is_forked(task)
    assert isinstance(await ends(place, request), LogForked)
    assert await place.rows("SELECT * FROM releases") == []


async def test_a_records_rows_moved_to_another_principal_open_for_nobody(place: Place) -> None:
    """He files a victim's record, row and statement, under his own enrolled host: it is refused on the record."""
    await as_superuser(
        place.databases,
        UNGUARDED + f"UPDATE records SET principal = '{OTHER}'; UPDATE escrow_statements SET principal = '{OTHER}'",  # noqa: S608
    )
    with capture_logs() as lines:
        async with place.worker():
            assert (await place.refusal(ask.request(OTHER))).code == "proof_invalid"
    assert [line["log_level"] for line in lines if line["event"] == "message"] == ["error"]
