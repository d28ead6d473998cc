"""What a look finds, without a database: the same as a release would, leaf by leaf."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import authority as make
from tests.support import cms
from tests.support import wrapped as foreign
from tests.support.keyrings import NoTransport

from strongroom.crypto import tlog
from strongroom.crypto.notes import Checkpoint
from strongroom.crypto.rsa import Padding
from strongroom.crypto.sealing import PrivateSealingKey
from strongroom.crypto.tlog import Node, inclusion_nodes
from strongroom.errors import KeyUnknown, NoAnswer, ProofInvalid, SignatureInvalid
from strongroom.fields import new_id, parse_body, validated
from strongroom.leaves import EscrowLeaf, ProofLeaf, _AnyLeaf, parse_leaf
from strongroom.messages import Escrow, WrappedFormat
from strongroom.registry import Registry
from strongroom.statements import Statement, parse_json
from strongroom_recovery.key_blobs import KeyBlob, escrowed
from strongroom_recovery.prover.proving import IndexRow, Looked, Stretch, examine, node_spans
from strongroom_recovery.records import StoredStatement, verify

OTHER = "laptop-0418"
KEY_ID = make.escrow().signatures[0].key_id


class Ring(NoTransport):
    """A keyring with the one key of the tests."""

    kids = frozenset([make.sealing_key().kid])

    def opener(self, kid: str) -> PrivateSealingKey:
        """Give the key."""
        if kid not in self.kids:
            raise KeyUnknown("not here")
        return make.sealing_key()


def escrow_leaf(statement: Statement) -> bytes:
    body = parse_body(statement, Escrow)
    return EscrowLeaf(
        time=make.NOW, id=body.id, digest=statement.digest.hex(), principal=body.principal, key=KEY_ID
    ).to_bytes()


def index_rows(statement: Statement) -> list[IndexRow]:
    body = parse_body(statement, Escrow)
    return [
        IndexRow(
            *(record.id, body.id, position, body.principal, record.name, body.issued_at, record.kid),
            *(json.dumps(record.labels), ",".join(record.supersedes)),
            record.wrapping.digest if record.wrapping else "",
        )
        for position, record in enumerate(body.records)
    ]


def stored(statement: Statement, index: int) -> StoredStatement:
    body = parse_body(statement, Escrow)
    return StoredStatement(body.id, statement.digest, body.principal, statement.envelope(), index, None, {})


def nodes_of(leaves: list[bytes], first: int, end: int) -> tuple[Checkpoint, dict[Node, bytes]]:
    """Return the head of a log, and its nodes as far as the prover asks for them."""
    frontier, nodes = tlog.append(tlog.Frontier.empty(), leaves)
    wanted = [
        Node(level, index)
        for level, low, high in node_spans(first, end, len(leaves))
        for index in range(low, high + 1)
    ]
    return Checkpoint("log", frontier.size, frontier.root()), {node: nodes[node] for node in wanted}


def stretch(*statements: Statement) -> Stretch:
    """Return what is stored about these statements, all of it true."""
    leaves = [escrow_leaf(each) for each in statements]
    head, nodes = nodes_of(leaves, 0, len(leaves))
    return Stretch(
        first=0,
        end=len(leaves),
        head=head,
        leaves=dict(enumerate(leaves)),
        nodes=nodes,
        statements={index: stored(each, index) for index, each in enumerate(statements)},
        rows={index: index_rows(each) for index, each in enumerate(statements)},
    )


def look(given_: Stretch, is_enough: Callable[[], bool] = lambda: False) -> Looked:
    return examine(given_, make.registry(make.PRINCIPAL), Ring(), is_enough)


def named(looked: Looked) -> set[tuple[int, str | None, str]]:
    return {(each.index, each.record, each.code) for each in looked.unprovable}


# ---- the log -------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 200), st.data())
def test_the_nodes_asked_for_prove_every_leaf_and_each_other(size: int, data: st.DataObject) -> None:
    """All that any leaf's inclusion proof takes, each once, every pair with its parent, and the right edge."""
    first = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(first + 1, size))
    asked = [
        Node(level, index) for level, low, high in node_spans(first, end, size) for index in range(low, high + 1)
    ]
    assert len(asked) == len(set(asked))
    assert {node for index in range(first, end) for node in inclusion_nodes(index, size)} <= set(asked)
    assert set(tlog.frontier_nodes(size)) <= set(asked)
    assert all((node.index + 1) << node.level <= size for node in asked)
    for node in set(asked) - set(tlog.frontier_nodes(size)):
        assert {Node(node.level, node.index ^ 1), Node(node.level + 1, node.index // 2)} <= set(asked)


STATEMENTS = [make.escrow() for _ in range(7)]
WHOLE = stretch(*STATEMENTS)


def refused_to_a_release(given_: Stretch) -> set[int]:
    """Return the leaves of which a release would say that they are not proven."""
    refused = set()
    for index in range(given_.first, given_.end):
        row = given_.statements[index]
        assert isinstance(row, StoredStatement)
        try:
            verify(
                replace(row, leaf=given_.leaves.get(index), nodes=given_.nodes),
                given_.head,
                make.registry(make.PRINCIPAL),
            )
        except ProofInvalid:
            refused.add(index)
    return refused


@pytest.mark.parametrize("value", [b"\x00" * 32, None], ids=["false", "missing"])
@pytest.mark.parametrize("node", sorted(WHOLE.nodes), ids=lambda node: f"{node.level}/{node.index}")
def test_a_false_node_costs_what_it_costs_a_release(node: Node, value: bytes | None) -> None:
    """Node by node: the leaves that are named are those whose keys a release would refuse, and the node is told."""
    nodes = {**WHOLE.nodes, node: value}
    damaged = replace(WHOLE, nodes={place: each for place, each in nodes.items() if each is not None})
    looked = look(damaged)
    assert {index for index, _, _ in named(looked)} == refused_to_a_release(damaged)
    assert looked.false_nodes


@pytest.mark.parametrize(
    "leaf", [b"", b"{}", WHOLE.leaves[0], None], ids=["empty", "other", "another's", "missing"]
)
@pytest.mark.parametrize("index", range(1, 7))
def test_a_false_leaf_costs_its_own_statement(index: int, leaf: bytes | None) -> None:
    """The others are proven past it."""
    leaves: Mapping[int, bytes | None] = {**WHOLE.leaves, index: leaf}
    damaged = replace(WHOLE, leaves={place: each for place, each in leaves.items() if each is not None})
    looked = look(damaged)
    assert named(looked) == {(index, None, "proof_invalid")}
    assert refused_to_a_release(damaged) == {index}
    assert looked.records == 6


def test_another_root_proves_nothing() -> None:
    """Where the checkpoint is of another tree, every leaf is named."""
    looked = look(replace(WHOLE, head=replace(WHOLE.head, root=b"\x01" * 32)))
    assert {index for index, _, _ in named(looked)} == set(range(7))
    assert looked.records == 0


# ---- what is said --------------------------------------------------------------------------------------------


def test_the_leaf_says_what_was_looked_at() -> None:
    """Range, tree, count and keys; it reads back as it was written."""
    leaf = parse_leaf(look(WHOLE).leaf(make.NOW))
    assert leaf == ProofLeaf(
        time=make.NOW,
        first=0,
        count=7,
        size=7,
        root=WHOLE.head.root.hex(),
        records=7,
        unprovable=[],
        kids={make.sealing_key().kid: 7},
    )


def test_the_newest_blob_alone_is_looked_at_and_its_key_is_noted() -> None:
    """A record that was sealed again to a key that is not here is unprovable, although its first blob opens."""
    first, second = (parse_body(each, Escrow).records[0] for each in STATEMENTS[:2])
    newest = {first.id: KeyBlob("0" * 32, "x-wing", b""), second.id: escrowed(second)}
    looked = look(replace(WHOLE, resealed=newest))
    assert named(looked) == {(0, first.id, "key_unknown")}
    assert looked.kids == {make.sealing_key().kid: 6}


def test_a_look_ends_early_where_it_is_told_to() -> None:
    """After a whole statement, and after one at least."""
    asked = iter([False, False, True])
    looked = look(WHOLE, lambda: next(asked))
    assert (looked.first, looked.end, looked.records) == (0, 3, 3)
    assert look(WHOLE, lambda: True).end == 1


def test_a_look_ends_where_its_leaf_is_full() -> None:
    """No more than 256 are named; the statement that does not fit is left for the next look."""
    wrong = [make.escrow(records=[make.record(blob=b"x") for _ in range(count)]) for count in (200, 56, 1)]
    looked = look(stretch(*wrong))
    assert (looked.end, len(looked.unprovable)) == (2, 256)
    looked.leaf(make.NOW)


def test_ids_that_are_in_doubt_are_not_named_alone() -> None:
    """A deleted statement leaves one of its two index rows: the other record must not pass for proven."""
    given_ = stretch(make.escrow(records=[make.record(), make.record()]))
    kept = given_.rows[0][0]
    looked = look(replace(given_, statements={}, rows={0: [kept]}))
    assert named(looked) == {(0, None, "proof_invalid")}
    assert [trouble.record for trouble in looked.troubles] == [kept.id]


@pytest.mark.parametrize("labels", ["", "[]", "{", "{}", '{"site": "north", "x": "y"}', "[" * 100_000])
def test_labels_that_were_not_signed_contradict_the_statement(labels: str) -> None:
    """Coverage goes by the labels of the index: so they are compared, whatever stands there."""
    row = WHOLE.rows[0][0]._replace(labels=labels)
    looked = look(replace(WHOLE, rows={**WHOLE.rows, 0: [row]}))
    assert named(looked) == {(0, row.id, "proof_invalid")}


def test_a_wrapped_key_is_proven_to_be_the_one_that_was_signed_for() -> None:
    """Format, padding where the message says it, and digest; whoever lies about one of them has nothing proven."""
    blob, message = foreign.simple_blob(bytes(32), Padding.OAEP), cms.Message().encode()
    says = foreign.wrapping(message, format=WrappedFormat.CMS, padding="pkcs1", kid=foreign.CMS.kid)
    lies = [
        foreign.wrapping(blob, digest="ab" * 32),
        foreign.wrapping(blob, format=WrappedFormat.CMS),
        says.model_copy(update={"padding": "oaep"}),
    ]
    good = [foreign.record(material=blob), foreign.record(material=message, says=says)]
    false = [foreign.record(material=message if lie.kid == foreign.CMS.kid else blob, says=lie) for lie in lies]
    looked = look(stretch(make.escrow(records=[*good, *false])))
    assert looked.records == 2
    assert named(looked) == {(0, record.id, "blob_invalid") for record in false}
    assert len({trouble.reason for trouble in looked.troubles}) == 1


@pytest.mark.parametrize("row", ["", "ab" * 32])
def test_a_row_that_hides_a_wrapped_key_contradicts_the_statement(row: str) -> None:
    """None, or another: by it the escrow worker would take another principal's copy."""
    record = foreign.record(material=foreign.simple_blob(bytes(32), Padding.OAEP))
    whole = stretch(make.escrow(records=[record]))
    [true] = whole.rows[0]
    assert named(look(whole)) == set()
    assert named(look(replace(whole, rows={0: [true._replace(wrapped=row)]}))) == {(0, record.id, "proof_invalid")}


def test_a_row_that_is_there_twice_contradicts_the_statement() -> None:
    """Two rows of one record: nobody knows which of them a reader would take."""
    [row] = WHOLE.rows[0]
    assert named(look(replace(WHOLE, rows={**WHOLE.rows, 0: [row, row]}))) == {(0, row.id, "proof_invalid")}


def test_a_key_that_was_not_in_force_is_told_and_its_records_are_proven() -> None:
    """The key can be given back; that the escrow worker took it has to be looked into."""
    statement = make.escrow()
    late = parse_leaf(escrow_leaf(statement)).model_copy(update={"time": make.NOW - make.DAY}).to_bytes()
    head, nodes = nodes_of([late], 0, 1)
    looked = look(replace(stretch(statement), head=head, nodes=nodes, leaves={0: late}))
    assert (looked.records, looked.unprovable) == (1, [])
    assert looked.late == [(parse_body(statement, Escrow).id, make.PRINCIPAL)]


def test_a_device_that_does_not_answer_ends_the_look() -> None:
    """Nothing is said of a record that was not tried."""

    class Device(Ring):
        def opener(self, kid: str) -> PrivateSealingKey:
            raise NoAnswer(f"nothing about {kid}")

    with pytest.raises(NoAnswer):
        examine(WHOLE, make.registry(make.PRINCIPAL), Device())


# ---- what it stands on ---------------------------------------------------------------------------------------


def test_a_view_judges_as_its_registry_did_and_does_not_change_with_it() -> None:
    """What a thread verifies by stays as it was while the log goes on."""
    registry = make.registry(make.PRINCIPAL, OTHER)
    view = registry.view([make.PRINCIPAL, "nobody-here"])
    statement = make.escrow()
    assert view.verify_former(statement, make.PRINCIPAL, KEY_ID, make.NOW)
    assert view.roster is registry.roster
    registry.apply(make.revocation_leaf(make.revocation()))
    registry.apply(make.roster_leaf(make.next_roster(make.roster())))
    later = make.NOW + make.DAY
    assert not registry.view([make.PRINCIPAL])._standings[make.PRINCIPAL][0].spoke_at(later)
    assert view.verify_former(statement, make.PRINCIPAL, KEY_ID, later)
    assert view.roster.body.version == 1
    with pytest.raises(SignatureInvalid):
        view.verify_former(make.escrow(key="thief"), make.PRINCIPAL, KEY_ID, make.NOW)
    assert not view.is_enrolled(OTHER)
    assert isinstance(view, Registry)


def read_at_length(data: bytes) -> object:
    return validated({"leaf": parse_json(data, what="leaf")}, _AnyLeaf).leaf


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 2**53 - 1),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=3, max_size=64),
    st.binary(min_size=32, max_size=32),
)
def test_an_escrow_leaf_is_read_as_any_leaf_is(time: int, principal: str, digest: bytes) -> None:
    """The short way gives what the long one gives."""
    leaf = EscrowLeaf(time=time, id=new_id(), digest=digest.hex(), principal=principal, key=KEY_ID)
    data = leaf.to_bytes()
    assert parse_leaf(data) == read_at_length(data) == leaf
    assert parse_leaf(data).to_bytes() == data


PLAIN = escrow_leaf(STATEMENTS[0])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(PLAIN) - 1), st.integers(0, 255))
def test_no_other_bytes_are_read_as_an_escrow_leaf(place: int, value: int) -> None:
    """A leaf with a byte changed reads as it does the long way, or is refused as it is there."""
    data = PLAIN[:place] + bytes([value]) + PLAIN[place + 1 :]
    try:
        expected: object = read_at_length(data)
    except Exception as error:  # noqa: BLE001  whatever it is, it has to be the same
        with pytest.raises(type(error)):
            parse_leaf(data)
    else:
        assert parse_leaf(data) == expected
