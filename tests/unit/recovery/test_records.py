"""Stored escrow statements, believed only as far as signature, chain and log carry them (SPEC 5.2)."""

from dataclasses import replace
from typing import Any

import pytest
from tests.support import authority as make

from strongroom.crypto import tlog
from strongroom.crypto.notes import Checkpoint
from strongroom.errors import ProofInvalid
from strongroom.fields import new_id, parse_body
from strongroom.leaves import EscrowLeaf
from strongroom.limits import CLOCK_SKEW_SECONDS
from strongroom.messages import Escrow
from strongroom.registry import Registry
from strongroom.statements import Statement
from strongroom_recovery.records import IndexEntry, StoredRecord, StoredStatement, nodes_wanted, verify

OTHER = "laptop-0418"
STORED_AT = make.NOW + 7
ORIGIN = f"{make.AUTHORITY}/escrow"


def leaf_of(statement: Statement, **changes: Any) -> bytes:
    body = parse_body(statement, Escrow)
    members: dict[str, Any] = {
        "time": STORED_AT,
        "id": body.id,
        "digest": statement.digest.hex(),
        "principal": body.principal,
        "key": make.signing_key(make.PRINCIPAL).key_id,
    }
    return EscrowLeaf(**(members | changes)).to_bytes()


def logged(statement: Statement, leaf: bytes | None = None) -> tuple[StoredStatement, Checkpoint]:
    """Return a statement as an honest database gives it back, third of five leaves, and the log's head."""
    body = parse_body(statement, Escrow)
    leaf = leaf or leaf_of(statement)
    leaves = [b"before", b"before", leaf, b"after", b"after"]
    frontier, nodes = tlog.append(tlog.Frontier.empty(), leaves)
    head = Checkpoint(ORIGIN, frontier.size, frontier.root())
    wanted = {node: nodes[node] for node in nodes_wanted(2, head)}
    stored = StoredStatement(
        body.id, statement.digest, body.principal, statement.envelope(), leaf_index=2, leaf=leaf, nodes=wanted
    )
    return stored, head


def refused(stored: StoredStatement, head: Checkpoint, registry: Registry | None = None) -> str:
    with pytest.raises(ProofInvalid, match="what is stored is not what was accepted") as caught:
        verify(stored, head, registry or make.registry(make.PRINCIPAL, OTHER))
    return caught.value.message


def test_a_statement_that_was_accepted_is_verified_and_dated_by_its_leaf() -> None:
    """Signature, digest and inclusion hold: the body is believed, and when it was stored."""
    statement = make.escrow()
    verified = verify(*logged(statement), make.registry(make.PRINCIPAL))
    assert verified.escrow == parse_body(statement, Escrow)
    assert verified.stored_at == STORED_AT


def test_a_statement_by_a_key_that_was_replaced_since_is_still_good() -> None:
    """What was accepted in its time stays recoverable after the host was reinstalled."""
    registry = make.registry(make.PRINCIPAL)
    invited = make.invitation(officers=("officer-a", "officer-b"), replaces=True)
    replacement = make.enrolment(invited, key="the new key")
    registry.apply(make.enrolment_leaf(replacement))
    registry.admit_enrolment(make.PRINCIPAL, replacement)
    assert verify(*logged(make.escrow()), registry).escrow.principal == make.PRINCIPAL


def ended_at(time: int, *, by_revocation: bool) -> Registry:
    """Return a registry whose principal's first key was replaced, or revoked, at this time."""
    registry = make.registry(make.PRINCIPAL)
    if by_revocation:
        registry.apply(make.revocation_leaf(make.revocation(), time=time))
    else:
        invited = make.invitation(officers=("officer-a", "officer-b"), replaces=True)
        replacement = make.enrolment(invited, key="the new key")
        registry.apply(make.enrolment_leaf(replacement, time=time))
        registry.admit_enrolment(make.PRINCIPAL, replacement)
    return registry


@pytest.mark.parametrize("by_revocation", [True, False])
def test_a_statement_stored_after_its_key_had_ended_is_told_apart(by_revocation: bool) -> None:  # noqa: FBT001
    """It is still verified; but beyond the clock skew after the end the key was not in force any more."""
    statement = make.escrow()
    stored, head = logged(statement)
    for ended, in_force in (
        (STORED_AT + 1, True),
        (STORED_AT - CLOCK_SKEW_SECONDS, True),
        (STORED_AT - CLOCK_SKEW_SECONDS - 1, False),
    ):
        verified = verify(stored, head, ended_at(ended, by_revocation=by_revocation))
        assert verified.in_force is in_force
        assert verified.record(entry(statement)).in_force is in_force


def test_a_statement_stored_before_its_key_was_enrolled_is_told_apart() -> None:
    """A leaf dated before the enrolment's, beyond the clock skew, is by a key that did not speak yet."""
    statement = make.escrow()
    for time, in_force in ((make.NOW - CLOCK_SKEW_SECONDS, True), (make.NOW - CLOCK_SKEW_SECONDS - 1, False)):
        verified = verify(*logged(statement, leaf_of(statement, time=time)), make.registry(make.PRINCIPAL))
        assert verified.in_force is in_force


def test_the_newest_of_a_name_is_in_force_then_latest_signed_then_of_the_highest_id() -> None:
    """A record by a key that had ended is behind every other, however late it says to have been signed."""
    records = sorted((make.record() for _ in range(2)), key=lambda record: record.id)
    oldest_first = [
        StoredRecord(make.AUTHORITY, make.PRINCIPAL, new_id(), issued_at, STORED_AT, 0, in_force, record)
        for issued_at, in_force, record in (
            (make.NOW + 2, False, records[0]),
            (make.NOW + 3, False, records[1]),
            (make.NOW, True, records[1]),
            (make.NOW + 1, True, records[0]),
            (make.NOW + 1, True, records[1]),
        )
    ]
    newest_first = oldest_first[::-1]
    assert sorted(newest_first, key=lambda stored: stored.rank) == oldest_first


@pytest.mark.parametrize(
    "changes", [{"id": new_id()}, {"principal": OTHER}, {"digest": bytes(32)}], ids=["id", "principal", "digest"]
)
def test_a_row_that_contradicts_its_statement_is_refused(changes: dict[str, Any]) -> None:
    """Id, principal and digest of the row are an index over the statement, never a correction of it."""
    stored, head = logged(make.escrow())
    assert "differ" in refused(replace(stored, **changes), head)


def test_another_statement_in_the_place_of_the_envelope_is_refused() -> None:
    """A genuine statement of the same principal under another id does not stand in for this one."""
    stored, head = logged(make.escrow())
    refused(replace(stored, envelope=make.escrow().envelope()), head)


def test_an_envelope_that_was_altered_is_refused() -> None:
    """A changed body does not carry its owner's signature, whatever digest the row says."""
    statement = make.escrow()
    stored, head = logged(statement)
    body = parse_body(statement, Escrow)
    forged = Statement(statement.type, make.altered(body, issued_at=make.NOW + 1), statement.signatures)
    altered, altered_head = logged(forged)
    assert "signature" in refused(altered, altered_head)
    refused(replace(stored, envelope=b"{}"), head)
    refused(replace(stored, envelope=b""), head)


def test_a_statement_signed_by_a_key_that_never_spoke_for_the_principal_is_refused() -> None:
    """A stranger's statement does not become true by standing in the database and in the log."""
    stored, head = logged(make.escrow(key="a stranger"))
    assert "none by key" in refused(stored, head)


def test_a_statement_of_somebody_who_is_not_enrolled_is_refused() -> None:
    """Without an enrolment in the recovery log there is no principal."""
    stored, head = logged(make.escrow())
    refused(stored, head, make.registry(OTHER))


def test_a_principal_whose_enrolment_was_not_admitted_is_refused_and_nothing_stops() -> None:
    """An enrolment that the database does not give back spoils its own principal's records alone."""
    registry = make.registry(OTHER)
    registry.apply(make.enrolment_leaf(make.enrolment(make.invitation())))
    stored, head = logged(make.escrow())
    assert "not admitted" in refused(stored, head, registry)


def test_a_statement_of_another_authority_is_refused() -> None:
    """The same key in another authority's name does not count here."""
    stored, head = logged(make.escrow(authority="other.example.org"))
    assert "authority" in refused(stored, head)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": new_id()},
        {"digest": "00" * 32},
        {"principal": OTHER},
    ],
    ids=["id", "digest", "principal"],
)
def test_a_leaf_that_names_something_else_is_refused(changes: dict[str, str]) -> None:
    """The leaf has to name id, digest and principal of this very statement."""
    statement = make.escrow()
    stored, head = logged(statement, leaf_of(statement, **changes))
    assert "something else" in refused(stored, head)


def test_a_leaf_that_names_another_signer_is_refused() -> None:
    """The key in the leaf has to be one that spoke for the principal, and to have signed."""
    statement = make.escrow()
    stored, head = logged(statement, leaf_of(statement, key=make.signing_key("a stranger").key_id))
    assert "never spoke" in refused(stored, head)


def test_a_leaf_that_names_a_former_key_needs_a_signature_by_that_key() -> None:
    """A statement by the new key does not pass under a leaf of the replaced one, nor the other way round."""
    registry = ended_at(make.NOW, by_revocation=False)
    for signer, named in (("the new key", make.PRINCIPAL), (make.PRINCIPAL, "the new key")):
        statement = make.escrow(key=signer)
        stored, head = logged(statement, leaf_of(statement, key=make.signing_key(named).key_id))
        assert "none by key" in refused(stored, head, registry)
        verify(*logged(statement, leaf_of(statement, key=make.signing_key(signer).key_id)), registry)


def test_a_leaf_of_another_type_is_refused() -> None:
    """A leaf of the recovery log does not name an escrow statement."""
    statement = make.escrow()
    stored, head = logged(statement, make.roster_leaf(make.roster()))
    assert "something else" in refused(stored, head)


def test_a_statement_without_its_leaf_is_refused() -> None:
    """A row whose leaf is gone, or was never in the log, proves nothing."""
    stored, head = logged(make.escrow())
    assert "no leaf 2" in refused(replace(stored, leaf=None), head)


def test_a_leaf_that_is_not_in_the_log_is_refused() -> None:
    """The leaf itself may say all the right things: it counts under the signed root only."""
    statement = make.escrow()
    stored, head = logged(statement)
    refused(replace(stored, leaf=leaf_of(statement, time=STORED_AT + 1)), head)
    refused(replace(stored, leaf_index=1), head)
    refused(replace(stored, leaf_index=head.size), head)
    refused(stored, replace(head, root=bytes(32)))
    refused(stored, replace(head, size=2))


def test_nodes_that_are_missing_or_false_are_refused() -> None:
    """A proof that cannot be made, or does not lead to the root, is no proof and stops nothing."""
    stored, head = logged(make.escrow())
    refused(replace(stored, nodes={}), head)
    refused(replace(stored, nodes=dict.fromkeys(stored.nodes, bytes(32))), head)
    assert nodes_wanted(head.size, head) == []


def entry(statement: Statement, **changes: Any) -> IndexEntry:
    body = parse_body(statement, Escrow)
    record = body.records[0]
    honest = IndexEntry(record.id, body.id, body.principal, record.name, body.issued_at, record.kid)
    return replace(honest, **changes)


def test_a_record_is_found_at_its_id_inside_the_statement() -> None:
    """What comes back is the signed record and what its statement says of it."""
    first, second = make.record(name="first"), make.record(name="second")
    statement = make.escrow(records=[first, second])
    verified = verify(*logged(statement), make.registry(make.PRINCIPAL))
    stored = verified.record(entry(statement, id=second.id, name="second"))
    assert (stored.record, stored.principal, stored.issued_at) == (second, make.PRINCIPAL, make.NOW)
    assert (stored.authority, stored.statement_id, stored.stored_at) == (
        make.AUTHORITY,
        verified.escrow.id,
        STORED_AT,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"id": new_id()},
        {"statement_id": new_id()},
        {"principal": OTHER},
        {"name": "another name"},
        {"issued_at": make.NOW + 1},
        {"kid": "0" * 32},
    ],
    ids=["id", "statement", "principal", "name", "issued_at", "kid"],
)
def test_an_index_entry_that_contradicts_the_statement_is_refused(changes: dict[str, Any]) -> None:
    """An edited row of the index points at nothing."""
    statement = make.escrow()
    verified = verify(*logged(statement), make.registry(make.PRINCIPAL))
    with pytest.raises(ProofInvalid, match="index contradicts"):
        verified.record(entry(statement, **changes))
