"""The recovery log replayed: standing, and what the owner of its key could put into it without being entitled."""

import json
import shutil
from typing import Any

import pytest
from tests.support.exports import DAY, Authority, edited

from strongroom.crypto.signing import SigningKey
from strongroom.fields import new_id
from strongroom.leaves import RefusalLeaf, RosterLeaf, Unprovable
from strongroom.mandates import Policy, Role
from strongroom.statements import Statement, canonical_json

from .conftest import Audited, Make


@pytest.fixture
def audited(make: Make) -> Audited:
    """Two hosts with a statement each; the recovery log has three leaves."""
    made = make(policy=Policy(self_recovery_approvals=0))
    made.authority.store("laptop-1", "disk", "swap")
    made.authority.store("laptop-2", "disk")
    return made


def record(authority: Authority, index: int, place: int = 0) -> str:
    """Return the id of an escrowed record."""
    return str(authority.escrow.rows[index].beside[place])


def test_everything_that_is_in_order_has_no_findings(audited: Audited) -> None:
    """Each kind of leaf, once."""
    authority = audited.authority
    invitation, _ = authority.invite("laptop-2", replaces=True, signers=["officer-1"])
    authority.collect(invitation, ["officer-1"])
    authority.clock.seconds += 10
    authority.revoke("laptop-2", key=authority.keys["laptop-2"].key_id)
    authority.clock.seconds += 10
    authority.enrol("laptop-2", replaces=True)
    authority.renew_roster()
    authority.log_roster()
    request = authority.ask("laptop-1", "laptop-1", name="disk")
    authority.release(request, [record(authority, 0)])
    authority.refuse(authority.ask("laptop-1", "laptop-1", name="none"), "not_found")
    waiting = authority.ask("officer-1", "laptop-2", name="disk", life=DAY)
    authority.approve(waiting, "officer-2")
    authority.deny(waiting, "laptop-2")
    authority.prove(0, 2)
    authority.attest("laptop-2", record(authority, 1), matches=False)
    assert audited.findings() == []


# ---- rosters ----


def test_another_root_key_proves_nothing(audited: Audited) -> None:
    """Neither rosters nor checkpoints hold under it."""
    errors = audited.errors(root_key=SigningKey.generate().public_key)
    assert ("recovery", 0, "roster_invalid") in errors
    assert ("recovery", None, "checkpoint_invalid") in errors
    assert ("escrow", None, "checkpoint_invalid") in errors


def test_a_lost_roster_is_named(audited: Audited) -> None:
    """The one that was kept beside the logs still gives the keys of the logs."""
    audited.authority.recovery.rows[0].statement = None
    assert audited.errors()[0] == ("recovery", 0, "statement_missing")


def test_a_roster_that_does_not_follow_is_named(audited: Audited) -> None:
    """Version 2 names another roster than version 1 as the one before it."""
    authority = audited.authority
    elsewhere = Authority(first_roster=False)
    body = authority.renew_roster().body.model_copy(update={"previous": elsewhere.roster.digest.hex()})
    statement = Statement.sign(body.TYPE, body.to_bytes(), authority.root)
    authority._log(RosterLeaf(time=authority.now, version=2, digest=statement.digest.hex()), statement)
    assert audited.errors() == [("recovery", 3, "roster_invalid")]


def test_a_roster_that_goes_back_is_named(audited: Audited) -> None:
    """The same version a second time."""
    audited.authority.log_roster()
    assert audited.errors() == [("recovery", 3, "roster_order")]


def test_a_roster_under_another_version_is_named(audited: Audited) -> None:
    """The leaf says 3, the roster 2."""
    authority = audited.authority
    authority.renew_roster()
    leaf = RosterLeaf(time=authority.now, version=3, digest=authority.roster.digest.hex())
    authority._log(leaf, authority.roster.statement)
    assert audited.errors() == [("recovery", 3, "roster_invalid")]


def test_a_roster_that_somebody_else_signed_is_named(audited: Audited) -> None:
    """By an officer, not by the root key."""
    authority = audited.authority
    body = authority.renew_roster().body
    statement = Statement.sign(body.TYPE, body.to_bytes(), authority.officers["officer-1"])
    authority._log(RosterLeaf(time=authority.now, version=2, digest=statement.digest.hex()), statement)
    assert audited.errors() == [("recovery", 3, "roster_invalid")]


def test_leaves_after_the_rosters_expiry_are_warned_of(audited: Audited) -> None:
    """A worker that finds its roster expired stops."""
    authority = audited.authority
    authority.clock.seconds += 366 * DAY
    authority.prove(0, 2)
    assert audited.warnings() == [("recovery", 3, "roster_expired")]


# ---- enrolments ----


def test_an_enrolment_by_an_officer_without_the_role_is_named(audited: Audited) -> None:
    """And what its key signs is not found a second time where the chain does hold."""
    authority = audited.authority
    invitation, key = authority.invite("laptop-3")
    stranger = Statement.sign(invitation.type, invitation.body, SigningKey.generate())
    authority.enrol("laptop-3", invitation=(stranger, key))
    authority.store("laptop-3")
    assert audited.errors() == [("recovery", 3, "enrolment_invalid"), ("escrow", 2, "signer_unproven")]


def test_an_invitation_that_was_used_is_named(audited: Audited) -> None:
    """For the same principal, which is enrolled."""
    authority = audited.authority
    invitation = authority.invite("laptop-3")
    authority.enrol("laptop-3", invitation=invitation)
    authority.enrol("laptop-3", invitation=invitation)
    authority.store("laptop-3")
    assert audited.errors() == [("recovery", 4, "enrolment_invalid")]


def test_an_invitation_of_many_that_was_used_too_often_is_named(audited: Audited) -> None:
    """Two uses, three hosts."""
    authority = audited.authority
    invitation = authority.invite(None, prefix="server-", uses=2)
    for number in range(3):
        authority.enrol(f"server-{number}", invitation=invitation)
    assert audited.errors() == [("recovery", 5, "enrolment_invalid")]


def test_a_key_that_was_enrolled_before_is_named(audited: Audited) -> None:
    """The officers allowed another key, and it is the old one."""
    authority = audited.authority
    authority.enrol("laptop-1", replaces=True, signing_key=authority.keys["laptop-1"])
    assert audited.errors() == [("recovery", 3, "enrolment_invalid")]


def test_an_enrolment_that_replaces_without_being_allowed_to_is_named(audited: Audited) -> None:
    """The name is taken."""
    audited.authority.enrol("laptop-1", invitation=audited.authority.invite("laptop-1"))
    assert audited.errors() == [("recovery", 3, "enrolment_invalid")]


def test_a_replacement_with_too_few_officers_is_named(audited: Audited) -> None:
    """Policy asks for two."""
    authority = audited.authority
    authority.enrol("laptop-1", invitation=authority.invite("laptop-1", replaces=True, signers=["officer-1"]))
    assert audited.errors() == [("recovery", 3, "enrolment_invalid")]


def test_an_invitation_from_before_a_revocation_is_named(audited: Audited) -> None:
    """It was taken back by it."""
    authority = audited.authority
    invitation = authority.invite("laptop-1", replaces=True)
    authority.clock.seconds += 10
    authority.revoke("laptop-1")
    authority.enrol("laptop-1", invitation=invitation)
    assert audited.errors() == [("recovery", 4, "enrolment_invalid")]


def test_an_expired_invitation_is_named(audited: Audited) -> None:
    """It lived an hour."""
    authority = audited.authority
    invitation = authority.invite("laptop-3")
    authority.clock.seconds += 3600 + 61
    authority.enrol("laptop-3", invitation=invitation)
    assert audited.errors() == [("recovery", 3, "enrolment_invalid")]


@pytest.mark.parametrize(
    "changed", [{"principal": "laptop-9"}, {"key": "0" * 32}, {"invitation": new_id()}, {"id": new_id()}]
)
def test_an_enrolment_leaf_that_says_something_else_is_named(audited: Audited, changed: dict[str, Any]) -> None:
    """Than the statement that it names."""
    authority = audited.authority
    leaf = authority.recovery.rows[2].leaf
    authority.recovery.rows[2].leaf = edited(leaf, **changed)
    authority.recovery = authority.recovery.rebuilt()
    assert ("recovery", 2, "leaf_differs") in audited.errors()


def test_a_lost_enrolment_is_named_and_its_keys_statements_are_unproven(audited: Audited) -> None:
    """The leaf alone does not say whom the officers vouched for."""
    audited.authority.recovery.rows[1].statement = None
    assert audited.errors() == [("recovery", 1, "statement_missing"), ("escrow", 0, "signer_unproven")]


def test_an_id_that_is_used_twice_is_named(audited: Audited) -> None:
    """The same revocation, logged again."""
    authority = audited.authority
    authority.revoke("laptop-1")
    row = authority.recovery.rows[3]
    authority.recovery.append(row.leaf or b"", row.statement, beside=False)
    assert audited.errors() == [("recovery", 4, "statement_twice")]


# ---- revocations, invitations, attestations ----


def test_a_revocation_without_the_role_is_named(audited: Audited) -> None:
    """By an officer who may only audit."""
    authority = audited.authority
    authority.officer_roles["officer-3"] = [Role.AUDIT]
    authority.renew_roster()
    authority.log_roster()
    authority.revoke("laptop-1", officer="officer-3")
    assert audited.errors() == [("recovery", 4, "revocation_invalid")]


@pytest.mark.parametrize(("principal", "key"), [("laptop-9", None), ("laptop-1", "0" * 32)])
def test_a_revocation_of_what_never_was_is_named(audited: Audited, principal: str, key: str | None) -> None:
    """Neither a name nor a key of it."""
    audited.authority.revoke(principal, key=key)
    assert audited.errors() == [("recovery", 3, "revocation_invalid")]


def test_an_invitation_with_other_signers_than_it_names_is_named(audited: Audited) -> None:
    """Officer-2 did not sign."""
    authority = audited.authority
    invitation, _ = authority.invite("laptop-1", replaces=True, signers=["officer-1"])
    authority.collect(invitation, ["officer-1", "officer-2"])
    assert audited.errors() == [("recovery", 3, "invitation_invalid")]


def test_an_attestation_of_another_principals_record_is_named(audited: Audited) -> None:
    """By leaf and record."""
    authority = audited.authority
    authority.attest("laptop-1", record(authority, 1))
    [finding] = audited.findings()
    assert (finding.index, finding.id, finding.code) == (3, record(authority, 1), "record_not_theirs")


def test_an_attestation_by_a_replaced_key_is_named(audited: Audited) -> None:
    """It does not speak for the principal any more."""
    authority = audited.authority
    old = authority.keys["laptop-1"]
    authority.enrol("laptop-1", replaces=True)
    authority.keys["laptop-1"] = old
    authority.attest("laptop-1", record(authority, 0))
    assert audited.errors() == [("recovery", 4, "attestation_invalid")]


def test_an_attestation_leaf_that_turns_it_round_is_named(audited: Audited) -> None:
    """Stale, where the owner said that it matches."""
    authority = audited.authority
    authority.attest("laptop-1", record(authority, 0))
    row = authority.recovery.rows[3]
    row.leaf = edited(row.leaf, matching=[], stale=[record(authority, 0)])
    authority.recovery = authority.recovery.rebuilt()
    assert {code for _, _, code in audited.errors()} == {"leaf_differs"}


def resigned(among: Authority, index: int, key: SigningKey, **changed: Any) -> Statement:
    """Return the statement of a leaf, changed, and signed by this key."""
    former = among.recovery.rows[index].statement
    assert former is not None
    return Statement.sign(former.type, canonical_json({**json.loads(former.body), **changed}), key)


def test_another_statement_of_the_same_id_by_the_same_officer_is_named(audited: Audited) -> None:
    """Nothing but the digest tells them apart."""
    authority = audited.authority
    authority.revoke("laptop-1")
    authority.recovery.rows[3].statement = resigned(authority, 3, authority.officers["officer-1"], reason="other")
    assert audited.errors() == [("recovery", 3, "statement_wrong")]


@pytest.mark.parametrize("kind", ["request", "attestation", "denial", "revocation", "approval", "invitation"])
def test_a_statement_for_another_authority_is_named(audited: Audited, kind: str) -> None:
    """Rightly signed, rightly logged, and not for here."""
    authority = audited.authority
    key, code = authority.officers["officer-2"], f"{kind}_invalid"
    request = authority.ask("officer-1", "laptop-1", name="disk", life=DAY)
    match kind:
        case "request":
            key = authority.officers["officer-1"]
        case "attestation":
            authority.attest("laptop-1", record(authority, 0))
            key = authority.keys["laptop-1"]
        case "denial":
            authority.deny(request, "officer-2")
        case "revocation":
            authority.revoke("laptop-1", officer="officer-2")
        case "approval":
            authority.approve(request, "officer-2")
        case _:
            invitation, _ = authority.invite("laptop-1", replaces=True, signers=["officer-2"])
            authority.collect(invitation, ["officer-2"])
    index = 3 if kind == "request" else 4
    row = authority.recovery.rows[index]
    row.statement = resigned(authority, index, key, authority="other.example")
    row.leaf = edited(row.leaf, digest=row.statement.digest.hex())
    authority.recovery = authority.recovery.rebuilt()
    assert audited.errors() == [("recovery", index, code)]


@pytest.mark.parametrize("asker", ["officer-1", "laptop-1"])
def test_a_request_with_a_false_signature_is_named(audited: Audited, asker: str) -> None:
    """Under the right key id."""
    authority = audited.authority
    request = authority.ask(asker, "laptop-1", name="disk")
    false = type(request.signatures[0])(request.signatures[0].key_id, bytes(64))
    authority.recovery.rows[3].statement = Statement(request.type, request.body, (false,))
    assert audited.errors() == [("recovery", 3, "request_invalid")]


# ---- proofs ----


def test_a_proof_under_a_false_root_is_named(audited: Audited) -> None:
    """The root is recomputed from the escrow log."""
    audited.authority.prove(0, 2, root="00" * 32)
    assert audited.errors() == [("recovery", 3, "proof_root")]


def test_a_proof_of_an_earlier_tree_holds(audited: Audited) -> None:
    """The root is that of the tree of its time."""
    authority = audited.authority
    authority.prove(0, 2)
    authority.store("laptop-1")
    authority.prove(2, 1)
    assert audited.findings() == []


@pytest.mark.parametrize(("ahead", "is_error"), [(1, False), (4096, False), (4097, True)])
def test_a_proof_beyond_the_log_is_named(audited: Audited, ahead: int, *, is_error: bool) -> None:
    """The prover may be a little ahead of what is published, which is a warning, and not more."""
    audited.authority.prove(0, 2, size=2 + ahead)
    assert audited.errors() == ([("recovery", 3, "proof_beyond")] if is_error else [])
    assert audited.warnings() == ([] if is_error else [("recovery", 3, "proof_beyond")])


@pytest.mark.parametrize(("later", "is_error"), [(3600, False), (3601, True)])
def test_a_proof_beyond_the_log_is_an_error_an_hour_later(audited: Audited, later: int, *, is_error: bool) -> None:
    """Whoever shows an auditor an old checkpoint for ever is not taken for a prover that is a little ahead."""
    authority = audited.authority
    authority.prove(0, 2, size=3)
    authority.clock.seconds += later
    authority.prove(0, 2, size=4)
    found = [("recovery", 3, "proof_beyond"), ("recovery", 4, "proof_beyond")]
    assert audited.errors() == (found[:1] if is_error else [])
    assert audited.warnings() == (found[1:] if is_error else found)


def test_an_old_escrow_log_beside_the_newest_recovery_log_is_an_error(audited: Audited) -> None:
    """The provers go on, and tell of leaves that the auditor is not shown."""
    authority = audited.authority
    shutil.copytree(audited.export() / "escrow", audited.path.parent / "old")
    for _ in range(20):
        authority.store("laptop-1")
    authority.prove(0, 22)
    authority.clock.seconds += DAY
    authority.prove(0, 22)
    shutil.rmtree(audited.path)
    shutil.rmtree(audited.export() / "escrow")
    shutil.copytree(audited.path.parent / "old", audited.path / "escrow")
    assert audited.errors() == [("recovery", 3, "proof_beyond")]


def test_a_proof_of_a_log_that_is_not_there_is_an_error(audited: Audited) -> None:
    """Whoever hides the escrow log, however short it is, is not taken for a prover that is a little ahead."""
    audited.authority.prove(0, 2)
    shutil.rmtree(audited.export() / "escrow")
    assert ("recovery", 3, "proof_beyond") in audited.errors()


def test_a_proof_that_leaves_records_out_is_named(audited: Audited) -> None:
    """Three records, two are said to have opened, and none not to."""
    audited.authority.prove(0, 2, records=2)
    assert audited.errors() == [("recovery", 3, "proof_count")]


def test_a_proof_of_more_records_than_there_are_is_named(audited: Audited) -> None:
    """Four, of three."""
    audited.authority.prove(0, 2, records=4)
    assert audited.errors() == [("recovery", 3, "proof_count")]


def test_a_proof_that_names_what_did_not_open_accounts_for_it(audited: Audited) -> None:
    """A record by its id, and a statement as a whole."""
    authority = audited.authority
    by_id = Unprovable(index=0, record=record(authority, 0), code="blob_invalid")
    authority.prove(0, 2, unprovable=[by_id])
    authority.prove(0, 2, unprovable=[Unprovable(index=0, record=None, code="proof_invalid")], records=1)
    assert audited.findings() == []


# ---- requests that were never made, and other leaves without ground ----


def test_a_request_by_a_key_that_does_not_speak_is_named(audited: Audited) -> None:
    """Signed by the key of laptop-2 in the name of laptop-1."""
    audited.authority.ask("laptop-1", "laptop-1", name="disk", key=audited.authority.keys["laptop-2"])
    assert audited.errors() == [("recovery", 3, "request_invalid")]


def test_a_lost_request_is_named(audited: Audited) -> None:
    """By leaf and id."""
    authority = audited.authority
    authority.ask("laptop-1", "laptop-1", name="disk")
    authority.recovery.rows[3].statement = None
    [finding] = audited.findings()
    assert (finding.index, finding.code) == (3, "statement_missing")
    assert finding.id == json.loads(authority.recovery.rows[3].leaf or b"")["id"]


def test_a_refusal_of_what_nobody_asked_is_named(audited: Audited) -> None:
    """It names a request that no leaf names."""
    authority = audited.authority
    refused = RefusalLeaf.model_validate(
        {
            "time": authority.now,
            "id": new_id(),
            "digest": "00" * 32,
            "requester": "laptop-1",
            "requester_kind": "principal",
            "code": "denied",
        }
    )
    authority._log(refused, None)
    assert audited.errors() == [("recovery", 3, "request_unknown")]


def test_a_refusal_that_came_too_soon_stands_alone(audited: Audited) -> None:
    """SPEC 5.9: the first such in an hour is logged without its request."""
    authority = audited.authority
    refused = RefusalLeaf.model_validate(
        {
            "time": authority.now,
            "id": new_id(),
            "digest": "00" * 32,
            "requester": "laptop-1",
            "requester_kind": "principal",
            "code": "rate_limited",
        }
    )
    authority._log(refused, None)
    assert audited.findings() == []


def refusal(audited: Audited, code: str, id_: str) -> None:
    """Put a refusal of a request that is not on the record under this id there."""
    body = {"time": audited.authority.now, "id": id_, "digest": "00" * 32, "requester": "laptop-1", "code": code}
    audited.authority._log(RefusalLeaf.model_validate({**body, "requester_kind": "principal"}), None)


def test_a_refusal_for_a_taken_id_stands_alone(audited: Audited) -> None:
    """SPEC 5.2: it is on the record by its refusal alone, and the first request goes on."""
    authority = audited.authority
    request = authority.ask("laptop-1", "laptop-1", name="disk")
    refusal(audited, "statement_conflict", json.loads(request.body)["id"])
    authority.release(request, [record(authority, 0)])
    assert audited.findings() == []


def test_a_refusal_for_an_id_that_nobody_has_taken_is_named(audited: Audited) -> None:
    """There is nothing that it could conflict with."""
    refusal(audited, "statement_conflict", new_id())
    assert audited.errors() == [("recovery", 3, "request_unknown")]


@pytest.mark.parametrize("end", ["deny", "refuse"])
def test_a_request_ends_once(audited: Audited, end: str) -> None:
    """A refusal of what was decided before is named."""
    authority = audited.authority
    request = authority.ask("officer-1", "laptop-1", name="disk", life=DAY)
    getattr(authority, end)(request, *(["officer-3"] if end == "deny" else []))
    authority.refuse(request)
    assert audited.errors() == [("recovery", 5, "request_ended")]


def test_a_request_that_is_logged_twice_is_named(audited: Audited) -> None:
    """The first one counts."""
    authority = audited.authority
    request = authority.ask("laptop-1", "laptop-1", name="disk")
    row = authority.recovery.rows[3]
    authority.recovery.append(row.leaf or b"", row.statement, beside=False)
    authority.release(request, [record(authority, 0)])
    assert audited.errors() == [("recovery", 4, "statement_twice")]


def test_leaves_before_any_roster_are_named(audited: Audited) -> None:
    """Nobody was entitled to anything then."""
    authority = audited.authority
    del authority.recovery.rows[0]
    authority.recovery = authority.recovery.rebuilt()
    assert {("recovery", 0, "roster_missing"), ("recovery", 1, "roster_missing")} <= set(audited.errors())


def test_an_approval_of_no_request_is_named(audited: Audited) -> None:
    """No leaf before names it."""
    authority = audited.authority
    request = authority.ask("officer-1", "laptop-1", name="disk", life=DAY)
    authority.approve(request, "officer-2")
    rows = authority.recovery.rows
    rows[3], rows[4] = rows[4], rows[3]
    authority.recovery = authority.recovery.rebuilt()
    assert ("recovery", 3, "request_unknown") in audited.errors()


@pytest.mark.parametrize("end", ["deny", "refuse"])
def test_an_approval_of_a_request_that_has_ended_is_named(audited: Audited, end: str) -> None:
    """The one that ended it is named in its words."""
    authority = audited.authority
    request = authority.ask("officer-1", "laptop-1", name="disk", life=DAY)
    getattr(authority, end)(request, *(["officer-3"] if end == "deny" else []))
    authority.approve(request, "officer-2")
    [finding] = audited.findings()
    assert (finding.index, finding.code) == (5, "request_ended")
    assert "leaf 4" in finding.words


def test_a_denial_by_another_host_is_named(audited: Audited) -> None:
    """Only officers and the owner may deny."""
    authority = audited.authority
    authority.deny(authority.ask("officer-1", "laptop-1", name="disk", life=DAY), "laptop-2")
    assert audited.errors() == [("recovery", 4, "denial_invalid")]


def test_a_denial_of_another_request_is_named(audited: Audited) -> None:
    """The leaf names this one, the statement the digest of another."""
    authority = audited.authority
    authority.deny(authority.ask("officer-1", "laptop-1", name="disk", life=DAY), "officer-2", digest="00" * 32)
    assert audited.errors() == [("recovery", 4, "denial_invalid")]


def test_an_approval_of_what_a_revoked_key_asked_is_named(audited: Audited) -> None:
    """It would be given nothing."""
    authority = audited.authority
    request = authority.ask("laptop-1", "laptop-1", name="disk")
    authority.revoke("laptop-1")
    authority.approve(request, "officer-2")
    assert audited.errors() == [("recovery", 5, "approval_invalid")]


def test_an_approval_after_the_requests_expiry_is_named(audited: Audited) -> None:
    """Beyond the clock skew."""
    authority = audited.authority
    request = authority.ask("officer-1", "laptop-1", name="disk", life=100)
    authority.clock.seconds += 161
    authority.approve(request, "officer-2")
    assert audited.errors() == [("recovery", 4, "approval_invalid")]


def test_a_signature_under_another_key_id_is_named(audited: Audited) -> None:
    """The officer's signature holds, the leaf and the envelope name a key that is not hers."""
    authority = audited.authority
    request = authority.ask("officer-1", "laptop-1", name="disk", life=DAY)
    row = authority.recovery.rows[3]
    renamed = type(request.signatures[0])("0" * 32, request.signatures[0].value)
    row.statement = Statement(request.type, request.body, (renamed,))
    row.leaf = edited(row.leaf, key="0" * 32)
    authority.recovery = authority.recovery.rebuilt()
    assert audited.errors() == [("recovery", 3, "request_invalid")]


def test_a_leaf_with_white_space_is_named(audited: Audited) -> None:
    """A leaf has one spelling."""
    row = audited.authority.recovery.rows[1]
    row.leaf = (row.leaf or b"").replace(b",", b", ")
    audited.authority.recovery = audited.authority.recovery.rebuilt()
    assert audited.errors() == [("recovery", 1, "leaf_malformed")]


def test_a_release_without_an_entry_is_named(audited: Audited) -> None:
    """The database holds one at the place of a request."""
    authority = audited.authority
    authority.ask("laptop-1", "laptop-1", name="disk")
    authority.recovery.rows[3].beside = True
    assert audited.errors() == [("recovery", 3, "release_without_entry")]


def test_a_lost_release_is_a_warning(audited: Audited) -> None:
    """It was given, on the record, and cannot be fetched again."""
    authority = audited.authority
    request = authority.ask("laptop-1", "laptop-1", name="disk")
    authority.release(request, [record(authority, 0)], has_release=False)
    assert audited.warnings() == [("recovery", 4, "release_lost")]
    assert audited.errors() == []


def test_a_leaf_of_the_escrow_log_is_named(audited: Audited) -> None:
    """It has no business in the recovery log."""
    audited.authority.recovery.append(audited.authority.escrow.rows[0].leaf or b"", None, beside=False)
    assert audited.errors() == [("recovery", 3, "leaf_malformed")]


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_clock_that_jumps_a_day_is_a_warning(audited: Audited, jump: int) -> None:
    """An attestation is logged on another day than it was signed; nothing crashes."""
    authority = audited.authority
    authority.attest("laptop-1", record(authority, 0))
    row = authority.recovery.rows[3]
    row.leaf = edited(row.leaf, time=authority.now + jump)
    authority.recovery = authority.recovery.rebuilt()
    authority.prove(0, 2)
    assert audited.errors() == []
    assert ("recovery", 4 if jump > 0 else 3, "clock") in audited.warnings()


def test_too_many_requests_in_an_hour_are_a_warning(make: Make) -> None:
    """The third of two."""
    audited = make(policy=Policy(requests_per_hour=2))
    audited.authority.store("laptop-1", "disk")
    for _ in range(3):
        audited.authority.ask("laptop-1", "laptop-1", name="disk")
    assert audited.warnings() == [("recovery", 5, "rate")]
