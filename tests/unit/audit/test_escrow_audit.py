"""Escrow leaves against their statements, keys, rows, and each other."""

import json
from typing import Any

import pytest
from tests.support.exports import DAY, edited

from strongroom.crypto.signing import SigningKey
from strongroom.fields import new_id
from strongroom.messages import Escrow
from strongroom.statements import Statement, canonical_json
from strongroom_audit.folder import Bundle, join_notes

from .conftest import Audited, Make


@pytest.fixture
def audited(make: Make) -> Audited:
    """Two hosts with three statements each, of two records."""
    made = make()
    for number in range(6):
        made.authority.store(f"laptop-{number % 2 + 1}", "disk", "swap")
    return made


def resigned(audited: Audited, index: int, key: SigningKey, **changed: Any) -> Statement:
    """Return the statement of a leaf, changed, and signed by this key."""
    former = audited.authority.escrow.rows[index].statement
    assert former is not None
    return Statement.sign(Escrow.TYPE, canonical_json({**json.loads(former.body), **changed}), key)


def relogged(audited: Audited, index: int, statement: Statement, **changed: Any) -> None:
    """Let the owner of the log's key put a leaf for another statement in the place of one, and sign all anew."""
    log = audited.authority.escrow
    row = log.rows[index]
    row.leaf = edited(row.leaf, digest=statement.digest.hex(), **changed)
    row.statement = statement
    audited.authority.escrow = log.rebuilt()


def id_of(audited: Audited, index: int) -> str:
    """Return the id of a statement."""
    return str(json.loads(audited.authority.escrow.rows[index].leaf or b"")["id"])


def record_of(audited: Audited, index: int, place: int = 0) -> str:
    """Return the id of a record."""
    return str(audited.authority.escrow.rows[index].beside[place])


def test_honest_statements_have_no_findings(audited: Audited) -> None:
    """Also with signatures left out, which are not counted then."""
    assert audited.findings() == []
    assert audited.verdict(signatures=False).signatures == audited.verdict().signatures - 6


def test_a_missing_statement_is_named(audited: Audited) -> None:
    """By leaf and statement id."""
    audited.authority.escrow.rows[3].statement = None
    [finding] = audited.findings()
    assert (finding.index, finding.id, finding.code) == (3, id_of(audited, 3), "statement_missing")


def test_swapped_statements_are_named(audited: Audited) -> None:
    """Each is signed, and stands at the other's place."""
    rows = audited.authority.escrow.rows
    rows[1].statement, rows[3].statement = rows[3].statement, rows[1].statement
    assert [each for each in audited.errors() if each[2] == "statement_wrong"] == [
        ("escrow", 1, "statement_wrong"),
        ("escrow", 3, "statement_wrong"),
    ]


def test_another_statement_of_the_same_id_by_the_same_owner_is_named(audited: Audited) -> None:
    """Nothing but the digest tells them apart."""
    key = audited.authority.keys["laptop-1"]
    issued_at = audited.authority.now - 1
    audited.authority.escrow.rows[2].statement = resigned(audited, 2, key, issued_at=issued_at)
    assert ("escrow", 2, "statement_wrong") in audited.errors()


def test_a_statement_signed_again_by_another_key_is_named(audited: Audited) -> None:
    """The digest does not cover signatures, so this is the signature's work alone."""
    audited.authority.escrow.rows[2].statement = resigned(audited, 2, SigningKey.generate())
    assert audited.errors() == [("escrow", 2, "signature_invalid")]


def test_a_statement_with_a_false_signature_is_named(audited: Audited) -> None:
    """Under the right key id."""
    former = audited.authority.escrow.rows[2].statement
    assert former is not None
    false = type(former.signatures[0])(former.signatures[0].key_id, bytes(64))
    audited.authority.escrow.rows[2].statement = Statement(former.type, former.body, (false,))
    assert audited.errors() == [("escrow", 2, "signature_invalid")]


def test_a_false_signature_beside_anothers_is_named(audited: Audited) -> None:
    """An envelope with two signatures goes the long way, and is refused there too."""
    former = audited.authority.escrow.rows[2].statement
    assert former is not None
    false = type(former.signatures[0])(former.signatures[0].key_id, bytes(64))
    both = Statement(former.type, former.body, (false,)).countersigned(SigningKey.generate())
    audited.authority.escrow.rows[2].statement = both
    assert audited.errors() == [("escrow", 2, "signature_invalid")]


def test_a_signature_under_another_key_id_is_named(audited: Audited) -> None:
    """It would hold under the right key, and no reader would try that (SPEC 1.3)."""
    former = audited.authority.escrow.rows[2].statement
    assert former is not None
    renamed = type(former.signatures[0])("0" * 32, former.signatures[0].value)
    audited.authority.escrow.rows[2].statement = Statement(former.type, former.body, (renamed,))
    assert audited.errors() == [("escrow", 2, "signature_invalid")]


def test_a_second_signature_beside_the_right_one_harms_nobody(audited: Audited) -> None:
    """An envelope that is not spelled as ours are goes the long way, and holds."""
    former = audited.authority.escrow.rows[2].statement
    assert former is not None
    audited.authority.escrow.rows[2].statement = former.countersigned(SigningKey.generate())
    assert audited.findings() == []


def test_a_statement_by_a_key_that_was_never_enrolled_is_named(audited: Audited) -> None:
    """The owner of the escrow log's key logs a statement of somebody else."""
    stranger = SigningKey.generate()
    relogged(audited, 4, resigned(audited, 4, stranger), key=stranger.key_id)
    assert audited.errors() == [("escrow", 4, "signer_unknown")]


@pytest.mark.parametrize(("later", "is_error"), [(60, False), (61, True)])
def test_the_order_of_collected_checkpoints_excuses_no_old_statement(
    audited: Audited, later: int, *, is_error: bool
) -> None:
    """By its time the recovery log has whoever could have signed, whatever the export says was read first."""
    authority = audited.authority
    early = authority.escrow.checkpoint(1)
    authority.store("laptop-2", key=SigningKey.generate())
    authority.clock.seconds += later
    authority.prove(0, 7)
    audited.export()
    own, new = ((audited.path / log / "checkpoint").read_text() for log in ("recovery", "escrow"))
    (audited.path / "checkpoints").write_text(join_notes([early, own, new]))
    found = [("escrow", 6, "signer_unknown")]
    assert (audited.errors(), audited.warnings()) == ((found, []) if is_error else ([], found))


def test_a_key_of_another_principal_is_named(audited: Audited) -> None:
    """Leaf 0 is of laptop-1; the key of laptop-2 is enrolled, but not for that."""
    key = audited.authority.keys["laptop-2"]
    relogged(audited, 0, resigned(audited, 0, key), key=key.key_id)
    assert audited.errors() == [("escrow", 0, "signer_unknown")]


@pytest.mark.parametrize(
    ("changed", "codes"),
    [
        ({"principal": "laptop-2"}, {"statement_wrong"}),
        ({"id": new_id()}, {"statement_wrong"}),
        ({"authority": "other.example"}, {"statement_wrong"}),
        ({"records": []}, {"statement_malformed"}),
        ({"issued_at": "now"}, {"statement_malformed"}),
        ({"more": 1}, {"statement_malformed"}),
    ],
)
def test_a_statement_that_says_something_else_than_its_leaf_is_named(
    audited: Audited, changed: dict[str, Any], codes: set[str]
) -> None:
    """The digest fits, and the owner signed it."""
    relogged(audited, 0, resigned(audited, 0, audited.authority.keys["laptop-1"], **changed))
    assert {code for _, index, code in audited.errors() if index == 0 and "row" not in code} == codes


def test_a_body_that_is_spelled_otherwise_is_read_and_holds(audited: Audited) -> None:
    """A reader does not rely on sorted members and no white space (SPEC 1.5)."""
    former = audited.authority.escrow.rows[0].statement
    assert former is not None
    body = json.dumps(json.loads(former.body), indent=1).encode()
    relogged(audited, 0, Statement.sign(Escrow.TYPE, body, audited.authority.keys["laptop-1"]))
    assert audited.findings() == []


def test_a_body_with_a_member_twice_is_named(audited: Audited) -> None:
    """What one reader takes for the id is not what another does."""
    former = audited.authority.escrow.rows[0].statement
    assert former is not None
    body = former.body.replace(b'{"authority"', b'{"authority":"x","authority"', 1)
    relogged(audited, 0, Statement.sign(Escrow.TYPE, body, audited.authority.keys["laptop-1"]))
    assert ("escrow", 0, "statement_malformed") in audited.errors()


@pytest.mark.parametrize("leaf", [b"{}", b"no json", b'{"type":"escrow"}', b"\xff"])
def test_a_leaf_that_makes_no_sense_is_named(audited: Audited, leaf: bytes) -> None:
    """Signed by the log's key, all the same."""
    audited.authority.escrow.rows[2].leaf = leaf
    audited.authority.escrow = audited.authority.escrow.rebuilt()
    assert ("escrow", 2, "leaf_malformed") in audited.errors()


def test_a_leaf_of_the_other_log_is_named(audited: Audited) -> None:
    """A roster leaf has no business here."""
    audited.authority.escrow.rows[2].leaf = audited.authority.recovery.rows[0].leaf
    audited.authority.escrow = audited.authority.escrow.rebuilt()
    assert ("escrow", 2, "leaf_malformed") in audited.errors()


def test_a_leaf_with_white_space_is_named(audited: Audited) -> None:
    """A leaf has one spelling."""
    leaf = audited.authority.escrow.rows[2].leaf or b""
    audited.authority.escrow.rows[2].leaf = leaf.replace(b",", b", ")
    audited.authority.escrow = audited.authority.escrow.rebuilt()
    assert audited.errors() == [("escrow", 2, "leaf_malformed")]


# ---- rows ----


def test_a_missing_row_is_named_by_leaf_and_record(audited: Audited) -> None:
    """A record deleted by a superuser."""
    record = record_of(audited, 3, 1)
    audited.authority.escrow.rows[3].beside = [record_of(audited, 3)]
    [finding] = audited.findings()
    assert (finding.index, finding.id, finding.code) == (3, record, "row_missing")


def test_an_extra_row_is_named_by_leaf_and_record(audited: Audited) -> None:
    """A record that nobody signed."""
    extra = new_id()
    audited.authority.escrow.rows[3].beside.append(extra)
    [finding] = audited.findings()
    assert (finding.index, finding.id, finding.code) == (3, extra, "row_extra")


def test_a_row_that_points_elsewhere_is_missing_here_and_extra_there(audited: Audited) -> None:
    """Both places are named."""
    rows = audited.authority.escrow.rows
    rows[5].beside.append(rows[3].beside.pop())
    assert audited.errors() == [("escrow", 3, "row_missing"), ("escrow", 5, "row_extra")]


@pytest.mark.parametrize("line", [b"nonsense", b"{}", b"[1]", b"null"])
def test_a_line_of_rows_that_makes_no_sense_is_named(audited: Audited, line: bytes) -> None:
    """Nothing crashes on it."""
    audited.export()
    path = audited.path / "escrow" / Bundle("escrow", 0, 6).rows
    lines = path.read_bytes().split(b"\n")
    lines[2] = line
    path.write_bytes(b"\n".join(lines))
    assert audited.errors() == [("escrow", 2, "file_invalid")]


@pytest.mark.parametrize("line", [b"nonsense", b"{}", b'{"payload":"AA==","payloadType":"x","signatures":[]}'])
def test_a_line_of_statements_that_makes_no_sense_is_named(audited: Audited, line: bytes) -> None:
    """Nothing crashes on it."""
    audited.export()
    path = audited.path / "escrow" / Bundle("escrow", 0, 6).statements
    lines = path.read_bytes().split(b"\n")
    lines[2] = line
    path.write_bytes(b"\n".join(lines))
    assert ("escrow", 2, "statement_malformed") in audited.errors()


def test_base64_with_unused_bits_is_no_second_spelling(audited: Audited) -> None:
    """The strict reader refuses it, and so does the fast one."""
    audited.export()
    path = audited.path / "escrow" / Bundle("escrow", 0, 6).statements
    lines = path.read_bytes().split(b"\n")
    at = lines[2].index(b'=="}]') - 1  # the last digit of a 64-byte signature holds four bits of nothing
    lines[2] = lines[2][:at] + bytes([lines[2][at] + 1]) + lines[2][at + 1 :]
    path.write_bytes(b"\n".join(lines))
    assert ("escrow", 2, "statement_malformed") in audited.errors()


# ---- the whole log ----


def test_a_record_id_in_two_statements_is_named_at_the_later(audited: Audited) -> None:
    """The owner of the log's key let it through."""
    first = audited.authority.escrow.rows[0].statement
    assert first is not None
    records = json.loads(first.body)["records"]
    body = Escrow.model_validate(
        {
            "authority": "vault.example",
            "id": new_id(),
            "issued_at": audited.authority.now,
            "principal": "laptop-1",
            "records": records,
        }
    )
    audited.authority.store_statement(body, audited.authority.keys["laptop-1"])
    found = [(each.index, each.id, each.code) for each in audited.findings()]
    assert sorted(found) == sorted((6, record_of(audited, 0, place), "record_twice") for place in (0, 1))


def test_a_statement_that_is_logged_twice_is_named_at_the_later(audited: Audited) -> None:
    """With its records."""
    row = audited.authority.escrow.rows[1]
    audited.authority.escrow.append(row.leaf or b"", row.statement, row.beside)
    assert {(index, code) for _, index, code in audited.errors()} == {(6, "record_twice"), (6, "statement_twice")}


def store_wrapped(audited: Audited, principal: str, digest: str = "ab" * 32) -> str:
    """Let a host escrow a key that another program wrapped; return the id of its record."""
    authority = audited.authority
    body = authority.store(principal).model_dump(mode="json")
    del authority.escrow.rows[-1]
    authority.escrow = authority.escrow.rebuilt()
    body["records"][0]["wrapping"] = {"format": "cms", "padding": "pkcs1", "kid": "0" * 32, "digest": digest}
    authority.store_statement(Escrow.model_validate(body), authority.keys[principal])
    return str(body["records"][0]["id"])


def test_a_wrapped_key_of_two_principals_is_named_at_the_later(audited: Audited) -> None:
    """The escrow worker takes none (SPEC 4.6): a row hid the first from it. A host's own second one is in order."""
    store_wrapped(audited, "laptop-1")
    store_wrapped(audited, "laptop-2", "cd" * 32)
    copy = store_wrapped(audited, "laptop-2")
    store_wrapped(audited, "laptop-1")
    found = [(each.index, each.id, each.code) for each in audited.findings()]
    assert found == [(8, copy, "wrapped_copy")]


def test_a_wrapped_key_is_found_however_its_statement_is_spelled(audited: Audited) -> None:
    """JSON has many ways to write a name; the second host used another."""
    store_wrapped(audited, "laptop-1")
    copy = store_wrapped(audited, "laptop-2")
    body = audited.authority.escrow.rows[7].statement
    assert body is not None
    spelled = body.body.replace(b'"wrapping"', b'"wrappi\\u006eg"')
    assert spelled != body.body
    relogged(audited, 7, Statement.sign(Escrow.TYPE, spelled, audited.authority.keys["laptop-2"]))
    assert [(each.index, each.id, each.code) for each in audited.findings()] == [(7, copy, "wrapped_copy")]


# ---- times ----


def test_a_statement_by_a_replaced_key_is_a_warning(audited: Audited) -> None:
    """SPEC 2.10: reported, and believed to be its owner's."""
    authority = audited.authority
    old = authority.keys["laptop-1"]
    authority.clock.seconds += 100
    authority.enrol("laptop-1", replaces=True)
    authority.clock.seconds += 100
    authority.store("laptop-1", key=old)
    assert audited.errors() == []
    assert audited.warnings() == [("escrow", 6, "not_in_force")]


def test_a_statement_by_a_revoked_key_is_a_warning(audited: Audited) -> None:
    """As for one that was replaced; within the clock skew it is none."""
    authority = audited.authority
    authority.clock.seconds += 100
    authority.revoke("laptop-1")
    authority.clock.seconds += 50
    authority.store("laptop-1")
    authority.clock.seconds += 50
    authority.store("laptop-1")
    assert audited.warnings() == [("escrow", 7, "not_in_force")]


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_clock_that_jumps_a_day_is_a_warning_at_the_leaf(audited: Audited, jump: int) -> None:
    """One statement is stored with a time of another day; nothing is an error, and nothing crashes."""
    authority = audited.authority
    authority.store("laptop-1", time=authority.now + jump)
    authority.store("laptop-1")
    warnings = audited.warnings()
    assert audited.errors() == []
    assert {("escrow", 6, "clock"), *([("escrow", 7, "clock")] if jump > 0 else [])} <= set(warnings)
    assert {code for _, _, code in warnings} <= {"clock", "not_in_force"}


def test_times_in_many_bundles_are_compared_across_their_edges(make: Make) -> None:
    """The clock goes back right where a bundle ends."""
    audited = make()
    for _ in range(256):
        audited.authority.store("laptop-1", time=audited.authority.now + 500)
    audited.authority.store("laptop-1")
    audited.authority.clock.seconds += 1000
    assert audited.warnings() == [("escrow", 256, "clock")]


def test_a_line_of_rows_that_is_nested_deeply_is_named(audited: Audited) -> None:
    """Nothing crashes on it."""
    path = audited.export() / "escrow" / Bundle("escrow", 0, 6).rows
    path.write_bytes(b"\n".join([b"[" * 200_000, *path.read_bytes().split(b"\n")[1:]]))
    assert audited.errors() == [("escrow", 0, "file_invalid")]
