"""States in listings: each must be what its proof leaf says, in a log that continues the one known here."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from tests.support.agents import NOW, Alteration, Clock, key, on

from strongroom import receipts
from strongroom.errors import ExitCode, LogForked, ReplyInvalid
from strongroom.fields import Capacity, parse_body
from strongroom.leaves import ProofLeaf, Unprovable, parse_leaf
from strongroom.messages import Disclosure, Listing, RecordState, UnreadableRecord
from strongroom.replies import Reply
from strongroom.statements import Statement
from strongroom.testing import FakeAuthority, FakeLog, FakeMessage
from strongroom_agent.agent import Agent
from strongroom_agent.home import Home
from strongroom_agent.status import record_document, status

DAY = 86_400
ALICE = Disclosure(
    request="01a2050e-1a43-74ad-a430-3b0ef9071f2e",
    requester="alice",
    requester_kind=Capacity.OFFICER,
    released_at=NOW,
    reason="left",
)
OWNER = ALICE.model_copy(update={"requester": "laptop-0417", "requester_kind": Capacity.PRINCIPAL})


def named(changes: dict[str, Any]) -> str:
    """Name a change for its test."""
    names = {id(ALICE): "alice", id(OWNER): "owner"}
    return " ".join(f"{member}={names.get(id(value), value)}" for member, value in changes.items())


async def stored(agent: Agent, *names: str) -> list[str]:
    return [(await agent.escrow([key(name=name)])).records[0].facts.id for name in names]


def relisted(authority: FakeAuthority, change: Callable[[Listing], dict[str, Any]]) -> Alteration:
    """Sign another listing in the place of the true one."""

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        assert reply.statement is not None
        true = parse_body(reply.statement, Listing)
        body = true.model_copy(update=change(true))
        return replace(reply, statement=Statement.sign(Listing.TYPE, body.to_bytes(), authority.recovery_reply_key))

    return on("recovery", alter)


def first_record(**changes: Any) -> Callable[[Listing], dict[str, Any]]:
    """Change what a listing says of its first record."""

    def change(listing: Listing) -> dict[str, Any]:
        head, *rest = listing.records
        return {"records": [head.model_copy(update=changes), *rest]}

    return change


def given(changes: dict[str, Any], _listing: Listing) -> dict[str, Any]:
    """Change a listing in the same way whatever it says."""
    return changes


async def refused(agent: Agent, *words: str) -> str:
    """Sync; the listing must be refused for these words, and nothing it says may count."""
    before = agent._standings.all()
    report = await agent.sync()
    assert isinstance(report.error, ReplyInvalid), report
    assert all(word in report.error.message for word in words), report.error.message
    assert (report.compared, report.exit_code) == (False, ExitCode.FAILED)
    assert agent._standings.all() == before
    return report.error.message


# ---- what is taken, and kept ----


async def test_a_key_is_stored_and_then_proven(agent: Agent, authority: FakeAuthority, clock: Clock) -> None:
    """As the proof leaf says, with its time; known offline afterwards."""
    [id_] = await stored(agent, "disk")
    await agent.sync()
    [row] = agent._spool.overview(None)
    assert (row.listed, row.is_proven) == ("stored", False)
    clock.seconds += 60
    index = authority.workers.evidence.prove()
    report = await agent.sync()
    assert report.exit_code is ExitCode.DONE
    [row] = agent._spool.overview(None)
    assert row.standing is not None
    assert (row.listed, row.is_proven, row.standing.proof, row.standing.proven_at) == (
        "proven",
        True,
        index,
        NOW + 60,
    )
    found = status(agent._home.path)
    assert found.exit_code is ExitCode.DONE
    record = record_document(found.records[0])
    assert (record["id"], record["listed"], record["proven_at"], record["proof"]) == (
        id_,
        "proven",
        NOW + 60,
        index,
    )


async def test_the_evidence_of_a_proven_key_can_be_checked_from_the_home_alone(
    agent: Agent, authority: FakeAuthority
) -> None:
    """With the pinned log key and nothing else; it stays as it was when the log has grown."""
    first, second = await stored(agent, "disk", "other")
    index = authority.workers.evidence.prove()
    await agent.sync()
    kept = agent._standings.proof(first)
    assert kept is not None
    assert agent._standings.proof(second) == kept
    authority.recovery_log.append(b"more")
    await agent.sync()
    assert agent._standings.proof(first) == kept
    log = authority.roster.body.logs.recovery
    document = receipts.Receipt(kept.leaf, kept.proof).to_document()
    verified = receipts.verify(document, log.public_key, log.origin)
    leaf = parse_leaf(verified.leaf)
    assert isinstance(leaf, ProofLeaf)
    assert (verified.index, leaf.first, leaf.count, leaf.unprovable) == (index, 0, 2, [])


async def test_only_proof_leaves_that_a_record_rests_on_are_kept(agent: Agent, authority: FakeAuthority) -> None:
    """The newest of each record."""
    first, second = await stored(agent, "disk", "other")
    old = authority.workers.evidence.prove()
    await agent.sync()
    new = authority.workers.evidence.prove(first=1, count=1)
    await agent.sync()
    proofs = {id_: agent._standings.proof(id_) for id_ in (first, second)}
    assert {id_: kept and kept.log_index for id_, kept in proofs.items()} == {first: old, second: new}
    assert agent._state.rows("SELECT log_index FROM proof_leaves ORDER BY 1") == [(old,), (new,)]
    authority.workers.evidence.prove()
    await agent.sync()
    assert agent._state.rows("SELECT count(*) FROM proof_leaves") == [(1,)]


async def test_a_damaged_key_is_unprovable_with_its_code(agent: Agent, authority: FakeAuthority) -> None:
    """The owner is told, and it is a failure without a successor; the neighbour is proven."""
    first, second = await stored(agent, "disk", "other")
    held = authority.workers.records[first]
    held.record = held.record.model_copy(update={"blob": held.record.blob[:-1] + b"\0"})
    authority.workers.evidence.prove()
    report = await agent.sync()
    assert report.exit_code is ExitCode.FAILED
    [needy] = report.needy
    assert (needy.record, needy.listed, needy.code) == (first, "unprovable", "blob_invalid")
    rows = {row.facts.id: row.listed for row in agent._spool.overview(None)}
    assert rows == {first: "unprovable", second: "proven"}
    assert status(agent._home.path).exit_code is ExitCode.FAILED


async def test_a_proof_leaf_may_name_a_whole_statement(agent: Agent, authority: FakeAuthority) -> None:
    """With the record null, where its ids are not known any more."""
    [id_] = await stored(agent, "disk")
    authority.workers.evidence.log_proof(
        proof_leaf(authority, Unprovable(index=0, record=None, code="proof_invalid"))
    )
    [needy] = (await agent.sync()).needy
    assert (needy.record, needy.code) == (id_, "proof_invalid")


async def test_a_record_whose_statement_is_damaged_is_unprovable_and_its_proof_stays(
    agent: Agent, authority: FakeAuthority
) -> None:
    """All that the listing says of it is a code; what was proven before stays as evidence."""
    first, second = await stored(agent, "disk", "other")
    authority.workers.evidence.prove()
    await agent.sync()
    authority.workers.unreadable[first] = "proof_invalid"
    report = await agent.sync()
    assert [(each.record, each.code) for each in report.needy] == [(first, "proof_invalid")]
    assert report.missing == ()
    assert agent._standings.proof(first) is not None
    row = next(row for row in agent._spool.overview(None) if row.facts.id == first)
    assert not row.is_proven
    authority.workers.unreadable.clear()
    assert (await agent.sync()).needy == ()
    assert agent._standings.counts() == {"proven": 2}
    assert second in authority.workers.records


async def test_a_key_that_was_given_to_others_is_disclosed_until_its_time(
    agent: Agent, authority: FakeAuthority, clock: Clock
) -> None:
    """A warning first, and a failure when its time is over."""
    [id_] = await stored(agent, "disk")
    authority.workers.records[id_].disclosure = ALICE
    authority.workers.evidence.prove()
    report = await agent.sync()
    assert [(each.record, each.listed, each.replace_by) for each in report.needy] == [
        (id_, "disclosed", NOW + 14 * DAY)
    ]
    assert report.exit_code is ExitCode.DONE
    assert status(agent._home.path, now=NOW + 14 * DAY).exit_code is ExitCode.DONE
    assert status(agent._home.path, now=NOW + 14 * DAY + 1).exit_code is ExitCode.FAILED
    clock.seconds += 14 * DAY + 1
    assert (await agent.sync()).exit_code is ExitCode.FAILED


async def test_what_the_host_recovered_itself_is_proven_all_the_same(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Only others' recoveries change the state."""
    [id_] = await stored(agent, "disk")
    await agent.recover(records=[id_])
    authority.workers.evidence.prove()
    report = await agent.sync()
    assert (report.needy, [each.record for each in report.disclosed]) == ((), [id_])
    assert agent._standings.counts() == {"proven": 1}


async def test_a_record_of_an_earlier_home_is_known_and_can_be_taken_the_place_of(
    agent: Agent, authority: FakeAuthority
) -> None:
    """The reinstalled host has no receipt of it, and hands over its new key under the same name."""
    [id_] = await stored(agent, "disk")
    authority.workers.records[id_].disclosure = ALICE
    with agent._state.transaction():
        agent._state.execute("DELETE FROM records")
        agent._state.execute("DELETE FROM statements")
    await agent.sync()
    done = await agent.escrow([key(b"another", name="disk")])
    assert done.records[0].facts.supersedes == (id_,)
    del authority.workers.records[id_]
    await agent.sync()
    assert agent._standings.of(id_) is None


# ---- contradictions ----


def proof_leaf(authority: FakeAuthority, *unprovable: Unprovable, **changes: Any) -> ProofLeaf:
    size = authority.escrow_log.size
    members = {"first": 0, "count": size, "size": size, "records": size - len(unprovable), **changes}
    return ProofLeaf(
        time=authority.now, root=authority.escrow_log.root().hex(), unprovable=list(unprovable), **members
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"state": RecordState.STORED},
        {"state": RecordState.UNPROVABLE},
        {"state": RecordState.UNPROVABLE, "proven_at": None, "code": "blob_invalid"},
        {"state": RecordState.DISCLOSED},
        {"state": RecordState.STALE},
        {"proven_at": None},
        {"proven_at": NOW + 1},
        {"code": "blob_invalid"},
        {"proof": None},
        {"proof": None, "proven_at": None},
        {"proof": 0},
        {"proof": 99},
        {"log_index": 1},
        {"statement": "01a2050e-1a43-74ad-a430-3b0ef9071f2e"},
        {"replace_by": NOW},
        {"disclosure": ALICE},
        {"disclosure": ALICE, "replace_by": NOW},
        {"disclosure": ALICE, "state": RecordState.DISCLOSED},
        {"disclosure": OWNER, "state": RecordState.DISCLOSED, "replace_by": NOW},
        {"disclosure": OWNER, "replace_by": NOW},
    ],
    ids=named,
)
async def test_a_state_that_contradicts_its_proof_leaf_or_the_receipt_is_refused(
    agent: Agent, authority: FakeAuthority, changes: dict[str, Any]
) -> None:
    """Of a record that is proven; the refusal names it."""
    [id_, _] = await stored(agent, "disk", "other")
    authority.workers.evidence.prove()
    assert (await agent.sync()).error is None
    with agent._state.transaction():
        agent._state.execute("DELETE FROM standings")
    authority.alter = relisted(authority, first_record(**changes))
    await refused(agent, id_)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": RecordState.PROVEN},
        {"state": RecordState.PROVEN, "code": None, "proven_at": NOW},
        {"state": RecordState.STORED},
        {"state": RecordState.DISCLOSED},
        {"code": None},
        {"code": "fingerprint_mismatch"},
        {"proven_at": NOW},
        {"proof": None},
    ],
    ids=named,
)
async def test_a_state_that_hides_an_unprovable_key_is_refused(
    agent: Agent, authority: FakeAuthority, changes: dict[str, Any]
) -> None:
    """Or that says another reason."""
    [id_] = await stored(agent, "disk")
    authority.workers.evidence.prove(unprovable={id_: "blob_invalid"})
    authority.alter = relisted(authority, first_record(**changes))
    await refused(agent, id_)


@pytest.mark.parametrize(
    "changes",
    [
        {"state": RecordState.PROVEN},
        {"state": RecordState.UNPROVABLE},
        {"proven_at": NOW},
        {"code": "blob_invalid"},
        {"state": RecordState.STALE},
    ],
    ids=named,
)
async def test_a_state_without_any_proof_leaf_is_refused(
    agent: Agent, authority: FakeAuthority, changes: dict[str, Any]
) -> None:
    """Of a record that nobody has looked at; and one that is stale without a word of its owner."""
    [id_] = await stored(agent, "disk")
    authority.alter = relisted(authority, first_record(**changes))
    await refused(agent, id_)


@pytest.mark.parametrize("covered", [0, 2])
async def test_a_proof_leaf_that_covers_another_place_is_refused(
    agent: Agent, authority: FakeAuthority, covered: int
) -> None:
    """The one before, or the one after; it says nothing of this record."""
    ids = await stored(agent, "before", "disk", "after")
    index = authority.workers.evidence.prove(first=covered, count=1)

    def change(listing: Listing) -> dict[str, Any]:
        said = {"state": RecordState.PROVEN, "proof": index, "proven_at": NOW}
        return {"records": [each.model_copy(update=said if each.id == ids[1] else {}) for each in listing.records]}

    authority.alter = relisted(authority, change)
    await refused(agent, ids[1], "covers")


async def test_what_names_the_record_goes_before_what_names_its_statement(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Of two entries of one leaf; those of another place, or of a neighbour, do not count."""
    [id_, other] = await stored(agent, "disk", "other")
    entries = [
        Unprovable(index=1, record=None, code="proof_invalid"),
        Unprovable(index=0, record=None, code="proof_invalid"),
        Unprovable(index=0, record=other, code="not_found"),
        Unprovable(index=0, record=id_, code="blob_invalid"),
    ]
    index = authority.workers.evidence.log_proof(proof_leaf(authority, *entries, records=0))
    true = {"state": RecordState.UNPROVABLE, "proof": index, "proven_at": None}
    authority.alter = relisted(authority, first_record(code="blob_invalid", **true))
    assert (await agent.sync()).error is None
    authority.alter = relisted(authority, first_record(code="proof_invalid", **true))
    await refused(agent, id_)


async def test_a_proof_leaf_that_is_not_in_the_log_is_refused(agent: Agent, authority: FakeAuthority) -> None:
    """Another leaf, another path, another index, twice the same, or a leaf of another type."""
    await stored(agent, "disk", "other")
    index = authority.workers.evidence.prove(unprovable={})

    def changed(**changes: Any) -> Callable[[Listing], dict[str, Any]]:
        return lambda listing: {"proofs": [listing.proofs[0].model_copy(update=changes)]}

    [true] = authority.workers.evidence.paths([index])
    forged = proof_leaf(authority, Unprovable(index=0, record=None, code="not_found")).to_bytes()
    for change in (
        changed(leaf=forged),
        changed(hashes=[]),
        changed(hashes=[b"\0" * 32, *true.hashes[1:]]),
        changed(hashes=[b"short", *true.hashes[1:]]),
        changed(index=index - 1),
    ):
        authority.alter = relisted(authority, change)
        await refused(agent, "proof leaf")
    authority.alter = relisted(authority, lambda listing: {"proofs": listing.proofs * 2})
    await refused(agent, f"proof leaf {index} twice")
    [enrolment] = authority.workers.evidence.paths([0])
    authority.alter = relisted(authority, lambda listing: {"proofs": [*listing.proofs, enrolment]})
    await refused(agent, "proof leaf 0", "enrolment")


async def test_a_listing_that_falls_back_behind_what_was_proven_is_refused(
    agent: Agent, authority: FakeAuthority
) -> None:
    """The newest look counts; an older leaf, however true, hides what came after it."""
    [id_] = await stored(agent, "disk")
    old = authority.workers.evidence.prove()
    authority.workers.evidence.prove(unprovable={id_: "blob_invalid"})
    await agent.sync()
    [older] = authority.workers.evidence.paths([old])
    record = {"state": RecordState.PROVEN, "proof": old, "proven_at": NOW, "code": None}
    authority.alter = relisted(authority, lambda listing: first_record(**record)(listing) | {"proofs": [older]})
    await refused(agent, id_)
    stored_again = {"state": RecordState.STORED, "proof": None, "proven_at": None, "code": None}
    authority.alter = relisted(authority, first_record(**stored_again))
    await refused(agent, id_)


async def test_a_replaced_record_must_have_a_successor_that_was_looked_at(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Otherwise somebody hides what needs the owner."""
    old, new = await stored(agent, "disk", "disk")
    authority.workers.evidence.prove()
    authority.alter = relisted(authority, first_record(state=RecordState.REPLACED))
    await refused(agent, old, "not by what")

    def replaced(**changes: Any) -> Callable[[Listing], dict[str, Any]]:
        def change(listing: Listing) -> dict[str, Any]:
            first, second = listing.records
            return {
                "records": [
                    first.model_copy(update={"state": RecordState.REPLACED}),
                    second.model_copy(update={"supersedes": [old], **changes}),
                ]
            }

        return change

    authority.alter = relisted(authority, replaced())
    assert (await agent.sync()).error is None
    agent._state.execute("DELETE FROM standings")
    unproven = {"state": RecordState.STORED, "proof": None, "proven_at": None}
    authority.alter = relisted(authority, replaced(**unproven))
    await refused(agent, old, "not by what")
    authority.alter = relisted(authority, replaced(supersedes=[old, new]))
    await refused(agent, new, "own place")


async def test_whoever_lists_records_is_told_which_are_lost(agent: Agent, authority: FakeAuthority) -> None:
    """A record of which the authority has nothing but the id is not left out in silence."""
    _, lost = await stored(agent, "kept", "lost")
    authority.workers.unreadable[lost] = "proof_invalid"
    page = await agent.records()
    assert [each.name for each in page.records] == ["kept"]
    assert [(each.id, each.code) for each in page.unreadable] == [(lost, "proof_invalid")]


async def test_unreadable_records_have_their_place_in_the_order(agent: Agent, authority: FakeAuthority) -> None:
    """Neither backwards, nor beside what can be read, nor behind the place where the next page goes on."""
    ids = sorted(await stored(agent, "a", "b", "c"))
    changes: list[dict[str, Any]] = [
        {"unreadable": [UnreadableRecord(id=ids[1], code="proof_invalid")]},
        {"records": [], "unreadable": [UnreadableRecord(id=id_, code="x") for id_ in ids[::-1]]},
        {"records": [], "unreadable": [UnreadableRecord(id=id_, code="x") for id_ in ids], "next": ids[1]},
    ]
    for change in changes:
        authority.alter = relisted(authority, partial(given, change))
        await refused(agent)
    authority.alter = lambda _message, reply: reply
    authority.workers.unreadable = dict.fromkeys(ids[:2], "proof_invalid")
    authority.workers.listing_records_max = 1
    report = await agent.sync()
    assert report.error is None
    assert {each.record for each in report.needy} == set(ids[:2])


# ---- the receipt of the reply ----


async def test_a_listing_without_receipt_or_consistency_is_refused(agent: Agent, authority: FakeAuthority) -> None:
    """Nothing would tie its states to the log."""
    await stored(agent, "disk")
    authority.alter = on("recovery", lambda _message, reply: replace(reply, receipt=None))
    await refused(agent, "without a receipt")
    authority.alter = on("recovery", lambda _message, reply: replace(reply, consistency=None))
    await refused(agent, "no proof")


async def test_a_receipt_of_an_older_leaf_is_refused(agent: Agent, authority: FakeAuthority) -> None:
    """The checkpoint would be the newest all the same; the specification asks for the newest leaf."""
    await stored(agent, "disk")
    authority.workers.evidence.prove()
    older = authority.recovery_log.receipt(0)
    authority.alter = on("recovery", lambda _message, reply: replace(reply, receipt=dict(older)))
    await refused(agent, "newest leaf")


async def test_a_forked_recovery_log_is_refused_by_a_listing_and_kept_as_evidence(
    agent: Agent, authority: FakeAuthority
) -> None:
    """The checkpoint of the last listing is held; until the evidence is cleared, no listing counts."""
    await stored(agent, "disk")
    authority.workers.evidence.prove()
    await agent.sync()
    held = agent._state.checkpoint("recovery")
    assert held is not None
    assert held.size == authority.recovery_log.size
    fork = FakeLog(authority.recovery_log.origin)
    fork.key = authority.recovery_log.key
    for leaf in (*authority.recovery_log.leaves[:-1], proof_leaf(authority, records=99).to_bytes()):
        fork.append(leaf)
    true, authority.recovery_log = authority.recovery_log, fork
    report = await agent.sync()
    assert isinstance(report.error, LogForked)
    assert (report.compared, report.exit_code) == (False, ExitCode.FAILED)
    [evidence] = agent._state.evidence()
    assert (evidence.log, evidence.held_note, evidence.note) == ("recovery", held.note, fork.checkpoint())
    assert agent._state.checkpoint("recovery") == held
    authority.recovery_log = true
    assert isinstance((await agent.sync()).error, LogForked)
    with pytest.raises(LogForked):
        await agent.records()
    agent.clear_evidence()
    assert (await agent.sync()).error is None


async def test_an_officers_listing_is_verified_too(
    agent: Agent, authority: FakeAuthority, officer_home: Callable[[str], Home], clock: Clock
) -> None:
    """An officer holds no receipts, and believes no state without its proof leaf."""
    [id_] = await stored(agent, "disk")
    authority.workers.evidence.prove()
    with Agent.open(officer_home("alice").path, connector=authority.connect, clock=clock) as alice:
        [record] = (await alice.records(principal="laptop-0417")).records
        assert (record.state, record.proven_at) == (RecordState.PROVEN, NOW)
        authority.alter = relisted(authority, first_record(proven_at=NOW - 1))
        with pytest.raises(ReplyInvalid, match=id_):
            await alice.records(principal="laptop-0417")
