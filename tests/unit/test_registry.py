"""Who speaks for whom, folded from the recovery log: replacements, strangers, false statements, and eviction."""

import pytest
from tests.support.authority import (
    NOW,
    PRINCIPAL,
    enrolment,
    enrolment_body,
    enrolment_leaf,
    escrow,
    invitation,
    next_roster,
    officer,
    registry,
    roster,
    roster_body,
    roster_leaf,
    signed,
    signing_key,
)

from strongroom import registry as registry_module
from strongroom.errors import (
    InvitationInvalid,
    LogForked,
    PrincipalRevoked,
    PrincipalUnknown,
    RosterInvalid,
    SignatureInvalid,
    StateCorrupt,
    WrongAuthority,
)
from strongroom.leaves import EscrowLeaf, RefusalLeaf, ReleaseLeaf, RequestLeaf
from strongroom.messages import Invitation, LogKey, LogKeys, RequesterKind, Role, new_id, parse_body
from strongroom.registry import Registry
from strongroom.roster import Roster
from strongroom.statements import Signature, Statement

ROOT = signing_key("root")
DIGEST = "5e" * 32


def replace_key(into: Registry, key: str, principal: str = PRINCIPAL) -> Statement:
    """Enrol another key for the principal, in log and memory; return the enrolment."""
    invited = invitation(principal, officers=("officer-a", "officer-b"), replaces=True)
    statement = enrolment(invited, principal, key=key)
    into.apply(enrolment_leaf(statement))
    into.admit_enrolment(principal, statement)
    return statement


# ---- the key that speaks now ----


def test_the_enrolled_key_speaks_for_its_principal() -> None:
    """The answer is the id of the key that signed."""
    assert registry(PRINCIPAL).verify(escrow(), PRINCIPAL) == signing_key(PRINCIPAL).key_id


def test_nobody_speaks_for_an_unknown_principal() -> None:
    """Without an enrolment in the log there is no principal, whoever signs."""
    known = registry("server-0001")
    for verify in (known.verify, known.verify_former):
        with pytest.raises(PrincipalUnknown, match="nobody is enrolled as laptop-0417"):
            verify(escrow(), PRINCIPAL)


def test_a_strangers_signature_is_refused() -> None:
    """So is that of another principal, of an officer, and of the one-time key that enrolled the host."""
    known = registry(PRINCIPAL, "server-0001")
    for name in ("stranger", "server-0001", "officer-a", "one-time", "root"):
        for verify in (known.verify, known.verify_former):
            with pytest.raises(SignatureInvalid, match="none by"):
                verify(escrow(key=name), PRINCIPAL)


def test_a_wrong_signature_under_the_right_key_id_is_refused() -> None:
    """The key id only selects; the signature decides."""
    forged = escrow(key="stranger")
    relabelled = Statement(
        forged.type, forged.body, (Signature(signing_key(PRINCIPAL).key_id, forged.signatures[0].value),)
    )
    known = registry(PRINCIPAL)
    for verify in (known.verify, known.verify_former):
        with pytest.raises(SignatureInvalid, match="does not hold"):
            verify(relabelled, PRINCIPAL)


def test_a_tampered_body_is_refused() -> None:
    """A good signature over other bytes does not hold."""
    good = escrow()
    with pytest.raises(SignatureInvalid, match="does not hold"):
        registry(PRINCIPAL).verify(Statement(good.type, good.body + b" ", good.signatures), PRINCIPAL)


def test_a_replaced_key_no_longer_speaks() -> None:
    """After a replacement the new key speaks, and the old one is told that it was replaced."""
    known = registry(PRINCIPAL)
    replace_key(known, "second")
    assert known.verify(escrow(key="second"), PRINCIPAL) == signing_key("second").key_id
    with pytest.raises(PrincipalRevoked, match="the key that signed for laptop-0417 was replaced") as caught:
        known.verify(escrow(), PRINCIPAL)
    assert caught.value.hint is not None
    replace_key(known, "third")
    for name in (PRINCIPAL, "second"):
        with pytest.raises(PrincipalRevoked):
            known.verify(escrow(key=name), PRINCIPAL)


def test_the_new_key_speaks_beside_a_replaced_one() -> None:
    """A statement that both signed is the new key's."""
    known = registry(PRINCIPAL)
    replace_key(known, "second")
    assert known.verify(escrow().countersigned(signing_key("second")), PRINCIPAL) == signing_key("second").key_id


def test_a_replaced_key_did_speak_in_its_time() -> None:
    """`verify_former` takes every key that ever was the principal's, and still no stranger's."""
    known = registry(PRINCIPAL)
    replace_key(known, "second")
    for name in (PRINCIPAL, "second"):
        assert known.verify_former(escrow(key=name), PRINCIPAL) == signing_key(name).key_id
    with pytest.raises(SignatureInvalid, match="none by a key that ever spoke for laptop-0417"):
        known.verify_former(escrow(key="stranger"), PRINCIPAL)
    forged = escrow(key="stranger")
    relabelled = Statement(
        forged.type, forged.body, (Signature(signing_key(PRINCIPAL).key_id, forged.signatures[0].value),)
    )
    with pytest.raises(SignatureInvalid, match="does not hold"):
        known.verify_former(relabelled, PRINCIPAL)


def test_a_key_may_come_back() -> None:
    """A later enrolment of an earlier key counts: the newest leaf decides."""
    known = registry(PRINCIPAL)
    replace_key(known, "second")
    replace_key(known, PRINCIPAL)
    assert known.verify(escrow(), PRINCIPAL) == signing_key(PRINCIPAL).key_id
    with pytest.raises(PrincipalRevoked):
        known.verify(escrow(key="second"), PRINCIPAL)


def test_principals_do_not_mix() -> None:
    """A replacement of one principal's key leaves the others alone."""
    known = registry(PRINCIPAL, "server-0001")
    replace_key(known, "second")
    assert known.verify(escrow("server-0001"), "server-0001") == signing_key("server-0001").key_id


# ---- enrolments come from an untrusted store ----


def test_a_signature_is_not_judged_before_the_enrolment_is_admitted() -> None:
    """Without the enrolment's statement the log alone decides nothing; that is a fault of the caller."""
    known = registry()
    known.apply(enrolment_leaf(enrolment(invitation())))
    for verify in (known.verify, known.verify_former):
        with pytest.raises(StateCorrupt, match="was not admitted before use"):
            verify(escrow(), PRINCIPAL)


def test_enrolments_are_wanted_until_they_are_admitted() -> None:
    """The newest of each principal asked about, replaced ones on request, unknown principals never."""
    known = registry()
    first = enrolment(invitation())
    second = enrolment(invitation(officers=("officer-a", "officer-b"), replaces=True), key="second")
    known.apply(enrolment_leaf(first))
    known.apply(enrolment_leaf(second))
    asked = [PRINCIPAL, "unknown"]
    assert known.enrolments_wanted(asked) == {second.digest: PRINCIPAL}
    assert known.enrolments_wanted(asked, former=True) == {first.digest: PRINCIPAL, second.digest: PRINCIPAL}
    known.admit_enrolment(PRINCIPAL, second)
    assert known.enrolments_wanted(asked) == {}
    assert known.enrolments_wanted(asked, former=True) == {first.digest: PRINCIPAL}
    known.admit_enrolment(PRINCIPAL, first)
    assert known.enrolments_wanted(asked, former=True) == {}
    assert known.enrolments_wanted([]) == {}


def test_an_enrolment_that_the_log_does_not_name_is_not_admitted() -> None:
    """A store that hands out another enrolment, however valid, cannot enrol another key."""
    known = registry(PRINCIPAL)
    other = enrolment(invitation(), key="thief")
    with pytest.raises(StateCorrupt, match="is not a statement that the recovery log names"):
        known.admit_enrolment(PRINCIPAL, other)
    with pytest.raises(SignatureInvalid):
        known.verify(escrow(key="thief"), PRINCIPAL)


def test_an_enrolment_is_admitted_for_its_own_principal_only() -> None:
    """A leaf of another principal is no excuse, and neither is a leaf that names the wrong one."""
    known = registry(PRINCIPAL)
    other = enrolment(invitation("server-0001"), "server-0001")
    known.apply(enrolment_leaf(other))
    with pytest.raises(StateCorrupt, match="is not a statement that the recovery log names"):
        known.admit_enrolment(PRINCIPAL, other)
    known.apply(enrolment_leaf(other, principal="server-0002"))
    with pytest.raises(StateCorrupt, match="enrolment of server-0002: contradicts its leaf"):
        known.admit_enrolment("server-0002", other)


def test_one_principals_enrolment_does_not_serve_another() -> None:
    """A log that names one enrolment for two principals lets its key speak for the one inside only."""
    known = registry()
    statement = enrolment(invitation())
    known.apply(enrolment_leaf(statement))
    known.apply(enrolment_leaf(statement, principal="server-0001"))
    known.admit_enrolment(PRINCIPAL, statement)
    assert known.verify(escrow(), PRINCIPAL)
    for verify in (known.verify, known.verify_former):
        with pytest.raises(StateCorrupt, match="enrolment of server-0001: was not admitted"):
            verify(escrow("server-0001", key=PRINCIPAL), "server-0001")


def test_an_enrolment_whose_leaf_names_another_key_is_not_admitted() -> None:
    """Leaf and statement must agree on the key."""
    known = registry()
    statement = enrolment(invitation())
    known.apply(enrolment_leaf(statement, key=signing_key("thief").key_id))
    with pytest.raises(StateCorrupt, match="contradicts its leaf"):
        known.admit_enrolment(PRINCIPAL, statement)


def test_a_logged_enrolment_without_a_chain_is_not_admitted() -> None:
    """Being in the log is not enough: the chain up to the root key must hold too."""
    for statement, error in (
        (enrolment(invitation(officers=("stranger",))), InvitationInvalid),
        (enrolment(invitation(replaces=True)), InvitationInvalid),
        (signed(enrolment_body(invitation()), signing_key(PRINCIPAL)), SignatureInvalid),
    ):
        known = registry()
        known.apply(enrolment_leaf(statement))
        with pytest.raises(error):
            known.admit_enrolment(PRINCIPAL, statement)
        with pytest.raises(StateCorrupt, match="was not admitted"):
            known.verify(escrow(), PRINCIPAL)


def test_used_invitations_and_enrolled_principals_are_known() -> None:
    """The log says which invitations are used and who is enrolled; admitting statements adds nothing to that."""
    known = registry()
    invited = invitation()
    invitation_id = parse_body(invited, Invitation).id
    assert not known.is_used(invitation_id)
    assert not known.is_enrolled(PRINCIPAL)
    known.apply(enrolment_leaf(enrolment(invited)))
    assert known.is_used(invitation_id)
    assert known.is_enrolled(PRINCIPAL)
    assert not known.is_used(new_id())
    assert not known.is_enrolled("server-0001")


# ---- rosters ----


def test_the_bootstrap_roster_is_in_force_until_the_log_names_one() -> None:
    """A log without a roster leaf is judged by the roster of the configuration."""
    bootstrap = roster()
    known = Registry(ROOT.public_key, bootstrap)
    assert known.roster is bootstrap
    statement = enrolment(invitation())
    known.apply(enrolment_leaf(statement))
    known.admit_enrolment(PRINCIPAL, statement)
    assert known.verify(escrow(), PRINCIPAL) == signing_key(PRINCIPAL).key_id


def test_the_newest_logged_roster_is_in_force_once_admitted() -> None:
    """In between nobody may be judged: the roster in force is named and not there."""
    known = registry()
    second = next_roster(known.roster)
    known.apply(roster_leaf(second))
    with pytest.raises(StateCorrupt, match="roster version 2 is in the recovery log but was not admitted"):
        _ = known.roster
    assert known.rosters_wanted() == [second.digest]
    known.admit_roster(second.statement)
    assert known.roster == second
    assert known.rosters_wanted() == []


def test_a_roster_that_the_log_does_not_name_is_not_admitted() -> None:
    """Neither another version nor another roster of the same version, though the root key signed both."""
    known = registry()
    with pytest.raises(StateCorrupt, match="roster version 2 is not the one in the recovery log"):
        known.admit_roster(next_roster(known.roster).statement)
    with pytest.raises(StateCorrupt, match="roster version 1 is not the one in the recovery log"):
        known.admit_roster(roster(officers=[]).statement)


def test_a_logged_roster_without_the_root_keys_signature_is_not_admitted() -> None:
    """The log cannot put a roster in force that the root key did not sign."""
    forged = signed(roster_body(version=2, previous="0" * 64), signing_key("recovery log"))
    known = registry()
    known.apply(
        roster_leaf(known.roster)
        .replace(b'"version":1', b'"version":2')
        .replace(known.roster.digest.hex().encode(), forged.digest.hex().encode())
    )
    with pytest.raises(RosterInvalid, match="the pinned root key did not sign it"):
        known.admit_roster(forged)


def test_another_authoritys_roster_is_not_admitted() -> None:
    """Also when the root key signed it and the log names it (SPEC 1.6)."""
    logs = roster_body().logs
    other = roster(
        authority="other.example.org",
        logs=LogKeys(
            escrow=LogKey(origin="other.example.org/escrow", public_key=logs.escrow.public_key),
            recovery=LogKey(origin="other.example.org/recovery", public_key=logs.recovery.public_key),
        ),
        version=2,
        previous="0" * 64,
    )
    known = registry()
    known.apply(roster_leaf(other))
    with pytest.raises(WrongAuthority):
        known.admit_roster(other.statement)


def test_a_roster_going_back_is_a_fork() -> None:
    """Versions in the log only rise: neither an older nor the same one comes after."""
    known = registry()
    third = next_roster(next_roster(known.roster))
    known.apply(roster_leaf(third))
    for version, back in ((1, roster()), (2, next_roster(roster())), (3, third)):
        with pytest.raises(LogForked, match=f"recovery log: leaf 2 goes back to roster version {version}"):
            known.apply(roster_leaf(back))
    assert known.size == 2


def test_an_enrolment_is_judged_by_the_roster_of_its_time() -> None:
    """An officer who was removed later invited rightly; one who came later did not invite before (SPEC 2.7)."""
    known = registry()
    early = enrolment(invitation())
    known.apply(enrolment_leaf(early))
    later = next_roster(known.roster, officers=[officer("officer-b"), officer("officer-d", Role.INVITE)])
    known.apply(roster_leaf(later))
    known.admit_roster(later.statement)
    known.admit_enrolment(PRINCIPAL, early)
    assert known.verify(escrow(), PRINCIPAL) == signing_key(PRINCIPAL).key_id

    by_removed = enrolment(invitation("server-0001"), "server-0001")
    known.apply(enrolment_leaf(by_removed))
    with pytest.raises(InvitationInvalid, match="signed by 0 officers"):
        known.admit_enrolment("server-0001", by_removed)

    by_new = enrolment(invitation("server-0002", officers=("officer-d",)), "server-0002")
    known.apply(enrolment_leaf(by_new))
    known.admit_enrolment("server-0002", by_new)
    too_early = registry()
    too_early.apply(enrolment_leaf(by_new))
    with pytest.raises(InvitationInvalid, match="signed by 0 officers"):
        too_early.admit_enrolment("server-0002", by_new)


def test_an_enrolment_waits_for_the_roster_of_its_time() -> None:
    """It is not judged by whichever roster happens to be there."""
    known = Registry(ROOT.public_key, roster())
    statement = enrolment(invitation())
    known.apply(roster_leaf(known.bootstrap))
    known.apply(enrolment_leaf(statement))
    with pytest.raises(StateCorrupt, match="roster version 1 is in the recovery log but was not admitted"):
        known.admit_enrolment(PRINCIPAL, statement)


# ---- folding the log ----

REQUEST = RequestLeaf(
    time=NOW,
    id=new_id(),
    digest=DIGEST,
    requester="officer-a",
    requester_kind=RequesterKind.OFFICER,
    principal=PRINCIPAL,
)
RELEASE = ReleaseLeaf(time=NOW, id=new_id(), digest=DIGEST, release=DIGEST, records=[new_id()])
REFUSAL = RefusalLeaf(
    time=NOW, id=new_id(), digest=DIGEST, requester=PRINCIPAL, requester_kind=RequesterKind.PRINCIPAL, code="denied"
)


def test_a_replay_of_the_log_gives_the_same_answers() -> None:
    """A new process that folds the same leaves and admits the same statements knows the same."""
    leaves: list[bytes] = []
    statements: dict[bytes, Statement] = {}
    rosters: list[Roster] = [roster()]
    leaves.append(roster_leaf(rosters[0]))
    for key in (PRINCIPAL, "second"):
        officers = ("officer-a", "officer-b")
        statement = enrolment(invitation(officers=officers, replaces=key == "second"), key=key)
        statements[statement.digest] = statement
        leaves += [enrolment_leaf(statement), REQUEST.to_bytes(), RELEASE.to_bytes(), REFUSAL.to_bytes()]
    rosters.append(next_roster(rosters[0], officers=[]))
    leaves.append(roster_leaf(rosters[1]))
    for bootstrap in rosters:
        known = Registry(ROOT.public_key, bootstrap)
        for leaf in leaves:
            known.apply(leaf)
        assert known.size == len(leaves)
        for digest in known.rosters_wanted():
            known.admit_roster(next(each.statement for each in rosters if each.digest == digest))
        for digest, principal in known.enrolments_wanted([PRINCIPAL], former=True).items():
            known.admit_enrolment(principal, statements[digest])
        assert known.roster == rosters[1]
        assert known.verify(escrow(key="second"), PRINCIPAL) == signing_key("second").key_id
        assert known.verify_former(escrow(), PRINCIPAL) == signing_key(PRINCIPAL).key_id
        with pytest.raises(PrincipalRevoked):
            known.verify(escrow(), PRINCIPAL)


@pytest.mark.parametrize("leaf", [REQUEST, RELEASE, REFUSAL], ids=lambda leaf: type(leaf).__name__)
def test_leaves_that_say_nothing_about_standing_only_count(leaf: RequestLeaf) -> None:
    """Requests, releases and refusals move the size and nothing else, by the short cut and without it."""
    known = registry(PRINCIPAL)
    size = known.size
    known.apply(leaf.to_bytes())
    known.apply(leaf.to_bytes() + b"\n")
    assert known.size == size + 2
    assert known.verify(escrow(), PRINCIPAL) == signing_key(PRINCIPAL).key_id


@pytest.mark.parametrize(
    "leaf",
    [
        b"",
        b"garbage",
        b"{}",
        b'{"type":"enrolment"}',
        b'{"type":"roster"}',
        b'{"digest":"' + DIGEST.encode() + b'","time":1,"type":"revocation"}',
        enrolment_leaf(enrolment(invitation()))[:-1],
        enrolment_leaf(enrolment(invitation()))[:-1] + b',"type":"enrolment"}',
        EscrowLeaf(time=NOW, id=new_id(), digest=DIGEST, principal=PRINCIPAL, key="0" * 32).to_bytes(),
    ],
    ids=[
        "empty",
        "garbage",
        "no type",
        "bare enrolment",
        "bare roster",
        "unknown type",
        "cut short",
        "repeated member",
        "of the escrow log",
    ],
)
def test_a_leaf_that_makes_no_sense_is_a_fork(leaf: bytes) -> None:
    """No leaf that might say something about standing is passed over: an older program does not go on blindly."""
    known = registry()
    with pytest.raises(LogForked, match="recovery log: leaf 1"):
        known.apply(leaf)
    assert known.size == 1


def test_an_enrolment_leaf_is_seen_however_it_is_spaced() -> None:
    """The short cut past other leaves depends on nothing that an enrolment or roster leaf could look like."""
    statement = enrolment(invitation())
    known = registry()
    known.apply(enrolment_leaf(statement).replace(b":", b" : ").replace(b",", b" , ") + b"\n")
    assert known.is_enrolled(PRINCIPAL)


# ---- the bounded memory of verified enrolments ----


def test_eviction_keeps_the_answers_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for two of five principals, each is wanted again after eviction and judged as before."""
    monkeypatch.setattr(registry_module, "VERIFIED_ENROLMENTS_KEPT_MAX", 2)
    known = registry()
    names = [f"server-{number:04}" for number in range(5)]
    statements = {name: enrolment(invitation(name), name) for name in names}
    for name in names:
        known.apply(enrolment_leaf(statements[name]))
    for name in [*names, *reversed(names), names[0], names[3], names[0]]:
        for digest, principal in known.enrolments_wanted([name]).items():
            assert digest == statements[principal].digest
            known.admit_enrolment(principal, statements[principal])
        assert known.verify(escrow(name), name) == signing_key(name).key_id
        with pytest.raises(SignatureInvalid):
            known.verify(escrow(name, key="stranger"), name)
        assert len(known._verified) <= 2


def test_what_was_just_asked_for_is_not_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Admitting the missing part of a batch does not push out the part that was there: the batch can be judged."""
    monkeypatch.setattr(registry_module, "VERIFIED_ENROLMENTS_KEPT_MAX", 2)
    known = registry("server-0000", "server-0001")
    late = enrolment(invitation("server-0002"), "server-0002")
    known.apply(enrolment_leaf(late))
    batch = ["server-0000", "server-0002"]  # the oldest of the two that are kept, and one that is not
    assert known.enrolments_wanted(batch) == {late.digest: "server-0002"}
    known.admit_enrolment("server-0002", late)
    for name in batch:
        assert known.verify(escrow(name), name) == signing_key(name).key_id


def test_admitting_again_evicts_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """An enrolment that is admitted twice takes one place."""
    monkeypatch.setattr(registry_module, "VERIFIED_ENROLMENTS_KEPT_MAX", 2)
    known = registry("server-0000")
    twice = enrolment(invitation("server-0001"), "server-0001")
    known.apply(enrolment_leaf(twice))
    known.admit_enrolment("server-0001", twice)
    known.admit_enrolment("server-0001", twice)
    for name in ("server-0000", "server-0001"):
        assert known.verify(escrow(name), name) == signing_key(name).key_id
