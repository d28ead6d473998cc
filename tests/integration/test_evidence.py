"""What owners attest, what a listing proves, and what auditors are shown: a recovery worker on real servers."""

from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.attacker import as_superuser, ask_superuser
from tests.support.recovery import Place, place_of
from tests.support.workers import Brokers, Databases

from strongroom.audits import LogEntry, LogPage
from strongroom.crypto import tlog
from strongroom.crypto.notes import verify_checkpoint
from strongroom.fields import Capacity, new_id, parse_body
from strongroom.leaves import AttestationLeaf, EscrowLeaf, ProofLeaf, Unprovable, parse_leaf
from strongroom.limits import LOG_PAGE_LEAVES_MAX
from strongroom.mandates import Policy
from strongroom.messages import Attestation, AttestedRecord, Escrow, ListedRecord, Listing, RecordState
from strongroom.replies import Reply
from strongroom.statements import Statement

OTHER = "laptop-0418"
DIGEST = "5e" * 32


@pytest.fixture
async def place(database: Databases, broker: Brokers, tmp_path: Path) -> AsyncIterator[Place]:
    """Two enrolled principals and an empty escrow log."""
    async with place_of(database, broker, tmp_path, enrolled=[make.PRINCIPAL, OTHER]) as made:
        yield made


def attestation(*records: tuple[str, bool], principal: str = make.PRINCIPAL, **changes: Any) -> Statement:
    """Return a principal's attestation about records: id, and whether it matches."""
    members: dict[str, Any] = {
        "authority": make.AUTHORITY,
        "id": new_id(),
        "issued_at": make.NOW,
        "principal": principal,
        "records": [AttestedRecord(id=id_, fingerprint=DIGEST, matches=matches) for id_, matches in records],
    }
    key = changes.pop("key", principal)
    return make.signed(Attestation(**(members | changes)), make.signing_key(key))


async def listing(
    place: Place, principal: str = make.PRINCIPAL, *, key: str | None = None
) -> tuple[Listing, Reply]:
    reply = await place.ask(ask.listing_request(principal, key=key).envelope())
    return place.signed(reply, Listing), reply


# ---- attestations ----


async def test_an_attestation_is_put_on_record_and_the_state_follows(place: Place) -> None:
    """The leaf names what matches and what is stale, the statement is kept, and the listing says stale."""
    records = [make.record(name=name) for name in ("first", "second")]
    await place.escrow(make.escrow(records=records))
    statement = attestation((records[0].id, True), (records[1].id, False))
    async with place.worker():
        receipt = place.receipt(await place.ask(statement.envelope()))
        listed, _ = await listing(place)
    leaf = parse_leaf(receipt.leaf)
    assert isinstance(leaf, AttestationLeaf)
    assert (leaf.digest, leaf.principal) == (statement.digest.hex(), make.PRINCIPAL)
    assert leaf.key == make.signing_key(make.PRINCIPAL).key_id
    assert (leaf.matching, leaf.stale) == ([records[0].id], [records[1].id])
    [row] = await place.rows("SELECT envelope FROM trust_statements WHERE leaf_index = $1", receipt.index)
    assert row["envelope"] == statement.envelope()
    assert {each.id: (each.state, each.attested_at) for each in listed.records} == {
        records[0].id: (RecordState.STORED, make.NOW),
        records[1].id: (RecordState.STALE, make.NOW),
    }


async def test_an_attestation_that_is_repeated_gets_its_first_receipt(place: Place) -> None:
    """The same bytes take no second entry, and other bytes under the same id are refused."""
    record = make.record()
    await place.escrow(make.escrow(records=[record]))
    id_ = new_id()
    async with place.worker():
        first = place.receipt(await place.ask(attestation((record.id, True), id=id_).envelope()))
        again = place.receipt(await place.ask(attestation((record.id, True), id=id_).envelope()))
        other = await place.rejection(attestation((record.id, False), id=id_).envelope())
    assert again.index == first.index
    assert other.code == "statement_conflict"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"key": OTHER}, "signature_invalid"),
        ({"principal": "laptop-0499"}, "principal_unknown"),
        ({"authority": "another.example"}, "wrong_authority"),
        ({"issued_at": make.NOW + 61}, "expired"),
        ({"principal": OTHER}, "not_found"),
    ],
    ids=str,
)
async def test_an_attestation_that_is_not_the_owners_is_refused(
    place: Place, changes: dict[str, Any], code: str
) -> None:
    """A stranger's, one by another key, from the future, or about another's record leaves no entry."""
    record = make.record()
    await place.escrow(make.escrow(records=[record]))
    before = len(await place.log())
    async with place.worker():
        rejection = await place.rejection(attestation((record.id, False), **changes).envelope())
    assert rejection.code == code
    assert len(await place.log()) == before


# ---- what a listing proves ----


async def proof(place: Place, *unprovable: Unprovable, first: int = 0, count: int = 1) -> ProofLeaf:
    head = await place.escrow_head()
    return ProofLeaf(
        time=make.NOW + 5,
        first=first,
        count=count,
        size=head.size,
        root=head.root.hex(),
        records=count - len(unprovable),
        unprovable=list(unprovable),
    )


def verified(reply: Reply, listed: Listing, place: Place) -> None:
    """Check every proof of a listing against the checkpoint of the reply's receipt."""
    checkpoint = place.receipt(reply).checkpoint
    for each in listed.proofs:
        tlog.verify_inclusion(tlog.leaf_hash(each.leaf), each.index, checkpoint.size, each.hashes, checkpoint.root)


async def test_states_come_with_the_leaves_that_prove_them(place: Place) -> None:
    """Proven, unprovable by record, unprovable as a whole, and stored: each with its leaf under the checkpoint."""
    records = [make.record(name=f"key {number}") for number in range(5)]
    await place.escrow(
        make.escrow(records=records[:2]), make.escrow(records=[records[2]]), make.escrow(records=[records[3]])
    )
    await place.escrow(make.escrow(records=[records[4]]))
    async with place.worker():
        index = await place.append(
            await proof(place, Unprovable(index=0, record=records[1].id, code="blob_invalid"), count=2),
            await proof(place, Unprovable(index=2, record=None, code="proof_invalid"), first=2),
        )
        listed, reply = await listing(place)
    verified(reply, listed, place)
    assert [each.index for each in listed.proofs] == [index, index + 1]
    assert [parse_leaf(each.leaf).type for each in listed.proofs] == ["proof", "proof"]

    def facts(each: ListedRecord) -> tuple[object, ...]:
        return each.log_index, each.state, each.proof, each.proven_at, each.code

    time = make.NOW + 5
    assert {each.name: facts(each) for each in listed.records} == {
        "key 0": (0, RecordState.PROVEN, index, time, None),
        "key 1": (0, RecordState.UNPROVABLE, index, None, "blob_invalid"),
        "key 2": (1, RecordState.PROVEN, index, time, None),
        "key 3": (2, RecordState.UNPROVABLE, index + 1, None, "proof_invalid"),
        "key 4": (3, RecordState.STORED, None, None, None),
    }


async def test_a_record_is_replaced_when_what_supersedes_it_is_proven(place: Place) -> None:
    """Not before, and not by what another principal says of it."""
    old = make.record(name="disk")
    await place.escrow(make.escrow(records=[old]))
    await place.escrow(
        make.escrow(records=[make.record(name="disk", supersedes=[old.id])]),
        make.escrow(OTHER, records=[make.record(OTHER, name="disk", supersedes=[old.id])]),
    )
    states = []
    async with place.worker():
        for first in (0, 2, 1):
            await place.append(await proof(place, first=first))
            listed, _ = await listing(place)
            states.append({each.id: each.state for each in listed.records}[old.id])
    assert states == [RecordState.PROVEN, RecordState.PROVEN, RecordState.REPLACED]


async def test_a_false_index_row_does_not_replace_a_record(place: Place) -> None:
    """What supersedes what is read from the signed statement; the column only finds it."""
    old, new = make.record(name="disk"), make.record(name="disk")
    await place.escrow(make.escrow(records=[old]), make.escrow(records=[new]))
    await ask_superuser(
        place.databases, "UPDATE records SET supersedes = $1 WHERE id = $2", [UUID(old.id)], UUID(new.id)
    )
    async with place.worker():
        await place.append(await proof(place, count=2))
        listed, _ = await listing(place)
    assert {each.state for each in listed.records} == {RecordState.PROVEN}


async def test_a_key_that_was_not_in_force_replaces_nothing(place: Place) -> None:
    """Whoever goes on by a former key does not talk a record out of being unprovable (SPEC 2.10)."""
    old = make.record(name="disk")
    await place.escrow(make.escrow(records=[old]))
    async with place.worker():
        again = make.enrolment(
            make.invitation(officers=("officer-a", "officer-b"), replaces=True), key="a newer key of the host"
        )
        await place.enrol(again)
        late = make.escrow(records=[make.record(name="disk", supersedes=[old.id])])
        await place.escrow(late, leaves=[_leaf_at(late, make.NOW + 3_600)])
        await place.append(await proof(place, count=2))
        listed, _ = await listing(place, key="a newer key of the host")
    assert {each.id: each.state for each in listed.records}[old.id] is RecordState.PROVEN


def _leaf_at(statement: Statement, time: int) -> bytes:
    body = parse_body(statement, Escrow)
    return EscrowLeaf(
        time=time,
        id=body.id,
        digest=statement.digest.hex(),
        principal=body.principal,
        key=statement.signatures[0].key_id,
    ).to_bytes()


async def test_a_key_that_an_officer_was_given_is_disclosed_until_it_is_replaced(place: Place) -> None:
    """The listing gives the day by which it is to be replaced."""
    old = make.record(name="disk")
    await place.escrow(make.escrow(records=[old]))
    place.write_roster(make.next_roster(place.roster, policy=Policy(officer_recovery_approvals=1)))
    request = ask.request(
        requester="officer-a", requester_kind=Capacity.OFFICER, expires_at=make.NOW + make.DAY, name="disk"
    )
    async with place.worker():
        await place.ask(request.envelope())
        await place.ask(ask.approval(request, "officer-b").envelope())
        await place.release(request)
        listed, _ = await listing(place)
        [record] = listed.records
        assert (record.state, record.replace_by) == (RecordState.DISCLOSED, make.NOW + 14 * make.DAY)
        await place.escrow(make.escrow(records=[make.record(name="disk", supersedes=[old.id])]))
        await place.append(await proof(place, first=1))
        listed, _ = await listing(place)
    states = {each.id: (each.state, each.replace_by) for each in listed.records}
    assert states[old.id] == (RecordState.REPLACED, None)


# ---- what auditors are shown ----


async def page(place: Place, **changes: Any) -> tuple[LogPage, Reply]:
    reply = await place.ask(ask.log_page_request(**changes).envelope())
    return place.signed(reply, LogPage), reply


async def test_a_page_of_the_escrow_log_holds_leaves_nodes_rows_and_statements(place: Place) -> None:
    """Whoever has the pages can compute the root that the checkpoint signs, and read every statement."""
    statements = [make.escrow(records=[make.record(name=f"key {n}")]) for n in range(5)]
    await place.escrow(*statements)
    note = await place.publish()
    async with place.worker():
        shown, reply = await page(place)
        rest, _ = await page(place, first=3)
    assert (shown.log, shown.checkpoint) == ("escrow", note.encode())
    leaves = [each.leaf or b"" for each in shown.entries]
    frontier, nodes = tlog.append(tlog.Frontier.empty(), leaves)
    checkpoint = verify_checkpoint(note, f"{make.AUTHORITY}/escrow", make.signing_key("escrow log").public_key)
    assert (frontier.size, frontier.root()) == (checkpoint.size, checkpoint.root)
    assert [each.nodes for each in shown.entries] == [
        [value for node, value in sorted(nodes.items()) if (node.index + 1) << node.level == index + 1]
        for index in range(5)
    ]
    assert reply.attached == tuple(statements)
    assert [each.rows for each in shown.entries] == [[_only_record(each)] for each in statements]
    assert [each.index for each in rest.entries] == [3, 4]


def _only_record(statement: Statement) -> str:
    return parse_body(statement, Escrow).records[0].id


async def test_a_page_of_the_recovery_log_holds_every_statement_and_where_releases_are(place: Place) -> None:
    """Rosters, enrolments and requests are attached; a release is only said to be there."""
    await place.escrow(make.escrow(records=[make.record()]))
    request = ask.request()
    async with place.worker():
        await place.release(request)
        shown, reply = await page(place, log="recovery")
    types = [parse_leaf(each.leaf or b"").type for each in shown.entries]
    assert types == ["roster", "enrolment", "enrolment", "request", "release"]
    assert [each.statement for each in shown.entries] == [True, True, True, True, False]
    assert [each.has_release for each in shown.entries] == [False, False, False, False, True]
    assert reply.attached[0] == place.roster.statement
    assert reply.attached[-1] == request
    assert shown.checkpoint is not None
    checkpoint = verify_checkpoint(
        shown.checkpoint.decode(), f"{make.AUTHORITY}/recovery", make.signing_key("recovery log").public_key
    )
    assert checkpoint.size == len(shown.entries)


async def test_what_is_missing_in_the_database_is_shown_as_missing(place: Place) -> None:
    """A leaf, a node, a statement and a row that somebody deleted or spoilt stop no page."""
    await place.escrow(*(make.escrow(records=[make.record(name=f"key {n}")]) for n in range(6)))
    await place.publish()
    await as_superuser(
        place.databases,
        """DELETE FROM escrow_leaves WHERE index = 0;
        DELETE FROM escrow_nodes WHERE level = 1 AND index = 0;
        UPDATE escrow_statements SET envelope = 'garbage' WHERE leaf_index = 2;
        DELETE FROM records WHERE leaf_index = 3;
        UPDATE escrow_statements SET envelope = decode(repeat('00', 1500000), 'hex') WHERE leaf_index = 4;""",
    )
    async with place.worker():
        shown, reply = await page(place)
    by_index: dict[int, LogEntry] = {each.index: each for each in shown.entries}
    assert by_index[0].leaf is None
    assert [value is None for value in by_index[1].nodes] == [False, True]
    assert [each.statement for each in shown.entries] == [True, True, False, True, False, True]
    assert by_index[3].rows == []
    assert len(reply.attached) == 4


async def test_what_nobody_could_have_written_stops_no_page(place: Place) -> None:
    """A row whose id is no UUIDv7 is shown; a node that is no hash is as good as missing."""
    await place.escrow(make.escrow(records=[make.record()]))
    await place.publish()
    odd = "11111111-1111-4111-8111-111111111111"
    await as_superuser(
        place.databases,
        f"""UPDATE records SET id = '{odd}';
        ALTER TABLE escrow_nodes DROP CONSTRAINT escrow_nodes_hash_check;
        UPDATE escrow_nodes SET hash = 'short';""",  # noqa: S608
    )
    async with place.worker():
        shown, _ = await page(place)
    assert [(each.rows, each.nodes) for each in shown.entries] == [([odd], [None])]


async def test_pages_end_where_statements_no_longer_fit_and_none_is_left_out(place: Place) -> None:
    """Large statements make short pages; asking from the next index on gives the rest, each once."""
    big = [
        make.escrow(records=[make.record(name=f"{n}/{m}", material=b"k" * 60_000) for m in range(10)])
        for n in range(6)
    ]
    await place.escrow(*big)
    await place.publish()
    seen: list[Statement] = []
    first = 0
    async with place.worker():
        while first < len(big):
            shown, reply = await page(place, first=first)
            assert len(reply.to_bytes()) <= 2 * 1024 * 1024
            assert len(shown.entries) == len(reply.attached)
            seen += reply.attached
            first += len(shown.entries)
    assert seen == big


async def test_a_page_holds_as_many_leaves_as_a_tile(place: Place) -> None:
    """Small statements come 256 at a time."""
    await place.escrow(*(make.escrow(records=[make.record()]) for _ in range(LOG_PAGE_LEAVES_MAX + 3)))
    await place.publish()
    async with place.worker():
        shown, _ = await page(place)
        rest, _ = await page(place, first=len(shown.entries))
    assert [each.index for each in shown.entries + rest.entries] == list(range(LOG_PAGE_LEAVES_MAX + 3))


async def test_false_checkpoints_do_not_hide_the_true_one(place: Place) -> None:
    """Rows of absurd sizes, garbage and old notes under other sizes are passed over."""
    await place.escrow(make.escrow())
    old = await place.publish()
    await place.escrow(make.escrow(), make.escrow())
    note = await place.publish()
    for size, false in ((2**62, old), (2, old)):
        await ask_superuser(place.databases, "INSERT INTO escrow_published VALUES ($1, $2)", size, false)
    async with place.worker():
        shown, _ = await page(place)
    assert shown.checkpoint == note.encode()
    assert [each.index for each in shown.entries] == [0, 1, 2]


async def test_without_a_checkpoint_proper_no_leaf_is_shown(place: Place) -> None:
    """Auditors are shown what was signed for everybody; a working checkpoint is not."""
    await place.escrow(make.escrow())
    async with place.worker():
        shown, _ = await page(place)
        await ask_superuser(place.databases, "INSERT INTO escrow_published VALUES (9, 'garbage')")
        spoilt, _ = await page(place)
    assert (shown.checkpoint, shown.entries) == (None, [])
    assert (spoilt.checkpoint, spoilt.entries) == (None, [])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"requester": "officer-e"}, "officer_unknown"),
        ({"requester": make.PRINCIPAL, "requester_kind": Capacity.PRINCIPAL}, "denied"),
        ({"expires_at": make.NOW + 301}, "limit_exceeded"),
        ({"issued_at": make.NOW - 400, "expires_at": make.NOW - 100}, "expired"),
    ],
    ids=str,
)
async def test_only_auditors_are_shown_a_log(place: Place, changes: dict[str, Any], code: str) -> None:
    """Who is no officer with role `audit` of the roster in force, or asks out of time, is refused."""
    async with place.worker():
        rejection = await place.rejection(ask.log_page_request(**changes).envelope())
    assert rejection.code == code


def test_an_entry_says_in_base64_what_the_database_holds() -> None:
    """Bytes that are no text come through unchanged."""
    entry = LogEntry(index=0, leaf=b"\xff", nodes=[None], statement=False, rows=[], has_release=False)
    assert entry.model_dump(mode="json")["leaf"] == b64encode(b"\xff").decode()


# ---- recovery beside damage ----


@pytest.mark.parametrize("damaged", ["older", "newest"])
async def test_a_name_gives_its_newest_key_although_an_older_one_is_damaged(place: Place, damaged: str) -> None:
    """An older record that is lost stands in nobody's way; in the newest one's place no older key is given."""
    records = {name: make.record(name="disk", material=name.encode()) for name in ("older", "newest")}
    await place.escrow(
        make.escrow(records=[records["older"]]), make.escrow(records=[records["newest"]], issued_at=make.NOW + 1)
    )
    await ask_superuser(
        place.databases,
        "UPDATE escrow_statements SET envelope = 'garbage' WHERE leaf_index = $1",
        list(records).index(damaged),
    )
    request = ask.request(name="disk")
    async with place.worker():
        if damaged == "newest":
            assert (await place.refusal(request)).code == "proof_invalid"
            return
        release = await place.release(request)
    assert [each.id for each in release.records] == [records["newest"].id]
    assert [each.id for each in release.history] == [records["newest"].id]
