"""Who speaks for whom, folded from the recovery log: replacements, revocations, strangers, false statements."""

from collections.abc import Callable
from contextlib import suppress
from typing import get_args

import pytest
from tests.support.authority import (
    AUTHORITY,
    DAY,
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
    revocation,
    revocation_leaf,
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
from strongroom.fields import Capacity, new_id, parse_body
from strongroom.leaves import (
    ApprovalLeaf,
    AttestationLeaf,
    DenialLeaf,
    EscrowLeaf,
    InvitationLeaf,
    Leaf,
    ProofLeaf,
    RefusalLeaf,
    ReleaseLeaf,
    RequestLeaf,
    ResealLeaf,
    RetirementLeaf,
)
from strongroom.limits import CLOCK_SKEW_SECONDS
from strongroom.mandates import Invitation, LogKey, LogKeys, Role
from strongroom.registry import Registry, Standing
from strongroom.root_keys import sign_change
from strongroom.roster import Roster
from strongroom.statements import Signature, Statement

ROOT = signing_key("root")
DIGEST = "5e" * 32
KEY = "0" * 32


def replace_key(into: Registry, key: str, principal: str = PRINCIPAL, *, time: int = NOW) -> Statement:
    """Enrol another key for the principal at this time, in log and memory; return the enrolment."""
    invited = invitation(principal, officers=("officer-a", "officer-b"), replaces=True)
    statement = enrolment(invited, principal, key=key)
    into.apply(enrolment_leaf(statement, time=time))
    into.admit_enrolment(principal, statement)
    return statement


def revoke(into: Registry, principal: str = PRINCIPAL, *, key: str | None = None, time: int = NOW) -> None:
    """Revoke the principal, or its `signing_key(key)` alone, in the log at this time."""
    statement = revocation(principal, key=signing_key(key).key_id if key else None)
    into.apply(revocation_leaf(statement, time=time))


def ways_to_verify(known: Registry) -> tuple[Callable[[Statement, str], object], ...]:
    """Both ways to ask whose a statement is: by the key in force now, and by any key that ever was."""

    def former(statement: Statement, principal: str) -> bool:
        return known.verify_former(statement, principal, statement.signatures[0].key_id, NOW)

    return known.verify, former


# ---- the key that speaks now ----


def test_the_enrolled_key_speaks_for_its_principal() -> None:
    """The answer is the id of the key that signed."""
    assert registry(PRINCIPAL).verify(escrow(), PRINCIPAL) == signing_key(PRINCIPAL).key_id


def test_nobody_speaks_for_an_unknown_principal() -> None:
    """Without an enrolment in the log there is no principal, whoever signs."""
    known = registry("server-0001")
    for verify in ways_to_verify(known):
        with pytest.raises(PrincipalUnknown, match="nobody is enrolled as laptop-0417"):
            verify(escrow(), PRINCIPAL)


def test_a_strangers_signature_is_refused() -> None:
    """So is that of another principal, of an officer, and of the one-time key that enrolled the host."""
    known = registry(PRINCIPAL, "server-0001")
    for name in ("stranger", "server-0001", "officer-a", "one-time", "root"):
        for verify in ways_to_verify(known):
            with pytest.raises(SignatureInvalid, match=r"none by|never spoke"):
                verify(escrow(key=name), PRINCIPAL)


def test_a_wrong_signature_under_the_right_key_id_is_refused() -> None:
    """The key id only selects; the signature decides."""
    forged = escrow(key="stranger")
    relabelled = Statement(
        forged.type, forged.body, (Signature(signing_key(PRINCIPAL).key_id, forged.signatures[0].value),)
    )
    known = registry(PRINCIPAL)
    for verify in ways_to_verify(known):
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


def test_one_key_speaks_for_a_principal_at_a_time() -> None:
    """The newest one, until it is revoked; no former one, no stranger's."""
    known = registry(PRINCIPAL)
    first, second = signing_key(PRINCIPAL).key_id, signing_key("second").key_id
    assert known.speaks(PRINCIPAL, first)
    assert not known.speaks(PRINCIPAL, second)
    assert not known.speaks("nobody", first)
    replace_key(known, "second")
    assert (known.speaks(PRINCIPAL, first), known.speaks(PRINCIPAL, second)) == (False, True)
    revoke(known)
    assert not known.speaks(PRINCIPAL, second)


def test_a_replaced_key_did_speak_in_its_time() -> None:
    """`verify_former` takes every key that ever was the principal's, and still no stranger's."""
    known = registry(PRINCIPAL)
    replace_key(known, "second")
    for name in (PRINCIPAL, "second"):
        assert known.verify_former(escrow(key=name), PRINCIPAL, signing_key(name).key_id, NOW)
    with pytest.raises(SignatureInvalid, match="never spoke for laptop-0417"):
        known.verify_former(escrow(key="stranger"), PRINCIPAL, signing_key("stranger").key_id, NOW)
    forged = escrow(key="stranger")
    relabelled = Statement(
        forged.type, forged.body, (Signature(signing_key(PRINCIPAL).key_id, forged.signatures[0].value),)
    )
    with pytest.raises(SignatureInvalid, match="does not hold"):
        known.verify_former(relabelled, PRINCIPAL, signing_key(PRINCIPAL).key_id, NOW)


def test_a_statement_with_two_signatures_is_judged_by_the_key_that_its_leaf_names() -> None:
    """A host that signed with its next key as well, before that was enrolled, keeps what it escrowed."""
    known = registry(PRINCIPAL)
    both = escrow().countersigned(signing_key("second"))
    replace_key(known, "second")
    assert known.verify_former(both, PRINCIPAL, signing_key(PRINCIPAL).key_id, NOW)


def test_the_newest_leaf_decides_also_for_a_key_that_came_back() -> None:
    """No worker logs an earlier key again (SPEC 2.5); were one in the log, every reader would take it alike."""
    known = registry(PRINCIPAL)
    replace_key(known, "second")
    replace_key(known, PRINCIPAL)
    assert known.verify(escrow(), PRINCIPAL) == signing_key(PRINCIPAL).key_id
    standing = known.standing(PRINCIPAL, signing_key(PRINCIPAL).key_id)
    assert standing is not None
    assert (standing.index, standing.until) == (known.size - 1, None)
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
    for verify in ways_to_verify(known):
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
    for verify in ways_to_verify(known):
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


def test_who_is_enrolled_is_known() -> None:
    """The log says who is enrolled and by which keys; admitting statements adds nothing to that."""
    known = registry()
    assert not known.is_enrolled(PRINCIPAL)
    assert not known.has_had(PRINCIPAL, signing_key(PRINCIPAL).key_id)
    known.apply(enrolment_leaf(enrolment(invitation())))
    assert known.is_enrolled(PRINCIPAL)
    assert not known.is_enrolled("server-0001")
    assert known.has_had(PRINCIPAL, signing_key(PRINCIPAL).key_id)
    assert not known.has_had(PRINCIPAL, signing_key("second").key_id)
    assert not known.has_had("server-0001", signing_key(PRINCIPAL).key_id)


def test_the_keys_that_a_principal_had_are_remembered() -> None:
    """Replaced and revoked ones too: none of them may be enrolled for it again."""
    known = registry(PRINCIPAL)
    replace_key(known, "second")
    revoke(known)
    replace_key(known, "third")
    for name in (PRINCIPAL, "second", "third"):
        assert known.has_had(PRINCIPAL, signing_key(name).key_id)


def test_the_standing_of_a_key_is_what_its_leaf_says() -> None:
    """Digest of the enrolment, place in the log, times, and the roster by which it was judged then."""
    known = registry()
    first = enrolment(invitation())
    known.apply(enrolment_leaf(first, time=NOW + 1))
    second_roster = next_roster(known.roster)
    known.apply(roster_leaf(second_roster))
    known.admit_roster(second_roster.statement)
    second = replace_key(known, "second", time=NOW + 5)
    revoke(known, key="second", time=NOW + 9)
    ids = signing_key(PRINCIPAL).key_id, signing_key("second").key_id
    expected = (
        Standing(first.digest, ids[0], roster_version=1, index=1, since=NOW + 1, until=NOW + 5),
        Standing(second.digest, ids[1], roster_version=2, index=3, since=NOW + 5, until=NOW + 9, is_revoked=True),
    )
    assert tuple(known.standing(PRINCIPAL, each) for each in ids) == expected
    assert [known.roster_of(each).body.version for each in expected] == [1, 2]
    assert known.standing(PRINCIPAL, KEY) is None
    assert known.standing("server-0001", ids[0]) is None


def test_an_enrolment_before_the_first_logged_roster_has_the_bootstrap_roster() -> None:
    """There is no other by which it could have been judged."""
    known = Registry(ROOT.public_key, roster())
    known.apply(enrolment_leaf(enrolment(invitation())))
    standing = known.standing(PRINCIPAL, signing_key(PRINCIPAL).key_id)
    assert standing is not None
    assert standing.index == 0
    assert known.roster_of(standing) is known.bootstrap


def test_the_uses_of_an_invitation_are_counted() -> None:
    """Every enrolment leaf that names it counts, of whichever principal; those of other invitations do not."""
    known = registry("server-0001")
    many = invitation(prefix="laptop-", uses=3)
    invitation_id = parse_body(many, Invitation).id
    for count, name in enumerate(("laptop-0001", "laptop-0002", "laptop-0002")):
        assert known.uses(invitation_id) == count
        known.apply(enrolment_leaf(enrolment(many, name)))
    assert known.uses(invitation_id) == 3
    assert known.uses(new_id()) == 0


def test_an_enrolment_by_an_invitation_of_many_is_admitted() -> None:
    """Each principal that the prefix covers is enrolled on its own; one that it does not cover never is."""
    known = registry()
    many = invitation(prefix="laptop-", uses=2)
    for name in ("laptop-0001", "laptop-0002"):
        statement = enrolment(many, name)
        known.apply(enrolment_leaf(statement))
        known.admit_enrolment(name, statement)
        assert known.verify(escrow(name), name) == signing_key(name).key_id
    stray = enrolment(many, "server-0001")
    known.apply(enrolment_leaf(stray))
    with pytest.raises(InvitationInvalid, match="for 2 new principals laptop-…, not for server-0001"):
        known.admit_enrolment("server-0001", stray)


# ---- revocations ----


def assert_revoked(known: Registry, *keys: str, principal: str = PRINCIPAL) -> None:
    """Nobody speaks for the principal by these keys, and the words say that they were revoked."""
    for name in keys:
        with pytest.raises(
            PrincipalRevoked, match=f"{principal} was revoked, or the key that signed for it"
        ) as caught:
            known.verify(escrow(principal, key=name), principal)
        assert caught.value.hint is not None
        assert "invite --replace" in caught.value.hint


def test_a_revoked_principal_speaks_by_no_key() -> None:
    """Without a key named, all keys that the principal has and had are revoked (SPEC 2.9)."""
    known = registry(PRINCIPAL)
    replace_key(known, "second")
    revoke(known)
    assert_revoked(known, PRINCIPAL, "second")


def test_a_revoked_key_no_longer_speaks() -> None:
    """The current key, named by its id, is revoked, and no former one comes back in its place."""
    known = registry(PRINCIPAL)
    replace_key(known, "second")
    revoke(known, key="second")
    assert_revoked(known, "second")
    with pytest.raises(PrincipalRevoked, match="was replaced"):
        known.verify(escrow(), PRINCIPAL)


def test_the_revocation_of_a_former_key_leaves_the_current_one() -> None:
    """A key that was replaced and then revoked says revoked; the one in force goes on."""
    known = registry(PRINCIPAL)
    replace_key(known, "second")
    revoke(known, key=PRINCIPAL)
    assert_revoked(known, PRINCIPAL)
    assert known.verify(escrow(key="second"), PRINCIPAL) == signing_key("second").key_id


def test_a_revocation_of_somebody_elses_key_revokes_none() -> None:
    """Only the principal's own keys are meant, and of others' principals none."""
    known = registry(PRINCIPAL, "server-0001")
    revoke(known, key="server-0001")
    assert known.verify(escrow(), PRINCIPAL) == signing_key(PRINCIPAL).key_id
    assert known.verify(escrow("server-0001"), "server-0001") == signing_key("server-0001").key_id
    revoke(known)
    assert known.verify(escrow("server-0001"), "server-0001") == signing_key("server-0001").key_id


def test_a_stranger_is_no_better_off_after_a_revocation() -> None:
    """A signature of nobody's key stays what it was."""
    known = registry(PRINCIPAL)
    revoke(known)
    with pytest.raises(SignatureInvalid, match="none by"):
        known.verify(escrow(key="stranger"), PRINCIPAL)


def test_a_revocation_takes_effect_before_any_statement_is_there() -> None:
    """The leaf is enough: neither the revocation nor the enrolment has to be admitted first."""
    known = registry()
    known.apply(enrolment_leaf(enrolment(invitation())))
    revoke(known)
    assert_revoked(known, PRINCIPAL)


def test_a_new_key_enrolled_after_a_revocation_speaks() -> None:
    """The name can be enrolled anew; the keys of before stay revoked."""
    known = registry(PRINCIPAL)
    revoke(known)
    replace_key(known, "second")
    assert known.verify(escrow(key="second"), PRINCIPAL) == signing_key("second").key_id
    assert_revoked(known, PRINCIPAL)
    both = escrow().countersigned(signing_key("second"))
    assert known.verify(both, PRINCIPAL) == signing_key("second").key_id
    revoke(known)
    assert_revoked(known, PRINCIPAL, "second")


def test_a_revoked_name_stays_taken() -> None:
    """Only an invitation that replaces may enrol it again (SPEC 2.9)."""
    known = registry(PRINCIPAL)
    revoke(known)
    assert known.is_enrolled(PRINCIPAL)


def test_a_name_that_was_never_enrolled_is_not_taken_by_its_revocation() -> None:
    """It stays unknown, and the time of the revocation is kept."""
    known = registry()
    revoke(known, time=NOW + 5)
    assert not known.is_enrolled(PRINCIPAL)
    assert known.revoked_at(PRINCIPAL) == NOW + 5
    for verify in ways_to_verify(known):
        with pytest.raises(PrincipalUnknown):
            verify(escrow(), PRINCIPAL)


def test_the_time_of_the_newest_revocation_is_known() -> None:
    """Of the principal or any of its keys; a worker's clock that went back does not make it an earlier one."""
    known = registry(PRINCIPAL, "server-0001")
    assert known.revoked_at(PRINCIPAL) is None
    revoke(known, key=PRINCIPAL, time=NOW + 10)
    assert known.revoked_at(PRINCIPAL) == NOW + 10
    revoke(known, time=NOW + 20)
    assert known.revoked_at(PRINCIPAL) == NOW + 20
    revoke(known, time=NOW + 15)
    assert known.revoked_at(PRINCIPAL) == NOW + 20
    assert known.revoked_at("server-0001") is None


# ---- when a key was in force ----


@pytest.mark.parametrize(
    ("time", "spoke"),
    [
        (1000 - CLOCK_SKEW_SECONDS - 1, False),
        (1000 - CLOCK_SKEW_SECONDS, True),
        (1000, True),
        (2000, True),
        (2000 + CLOCK_SKEW_SECONDS, True),
        (2000 + CLOCK_SKEW_SECONDS + 1, False),
    ],
)
def test_a_standing_lasts_from_leaf_to_leaf_give_or_take_the_clock_skew(time: int, spoke: bool) -> None:  # noqa: FBT001
    """Two workers' clocks may differ by 60 s, so that much counts on either side and not a second more."""
    assert Standing(b"", KEY, roster_version=1, index=0, since=1000, until=2000).spoke_at(time) is spoke


def test_a_standing_that_has_not_ended_lasts() -> None:
    """Without an end it reaches as far as anybody asks."""
    standing = Standing(b"", KEY, roster_version=1, index=0, since=1000)
    assert standing.spoke_at(2**53 - 1)
    assert not standing.spoke_at(1000 - CLOCK_SKEW_SECONDS - 1)


def in_force(known: Registry, key: str, time: int) -> bool:
    """Was this key of the principal in force at a time, by its signature on a statement."""
    return known.verify_former(escrow(key=key), PRINCIPAL, signing_key(key).key_id, time)


def test_a_key_was_in_force_until_it_was_replaced() -> None:
    """The leaf of the replacement ends one standing and begins the next (SPEC 2.10)."""
    known = registry(PRINCIPAL)
    replaced_at = NOW + DAY
    replace_key(known, "second", time=replaced_at)
    late, early = replaced_at + CLOCK_SKEW_SECONDS, replaced_at - CLOCK_SKEW_SECONDS
    assert in_force(known, PRINCIPAL, NOW)
    assert in_force(known, PRINCIPAL, late)
    assert not in_force(known, PRINCIPAL, late + 1)
    assert not in_force(known, "second", early - 1)
    assert in_force(known, "second", early)
    assert in_force(known, "second", replaced_at + DAY)
    assert not in_force(known, PRINCIPAL, NOW - CLOCK_SKEW_SECONDS - 1)


@pytest.mark.parametrize("key", [None, PRINCIPAL], ids=["principal", "key"])
def test_a_key_was_in_force_until_it_was_revoked(key: str | None) -> None:
    """What it signed before stays valid, and what it signed after is known to be too late (SPEC 2.9, 2.10)."""
    known = registry(PRINCIPAL)
    revoke(known, key=key, time=NOW + DAY)
    assert in_force(known, PRINCIPAL, NOW + DAY + CLOCK_SKEW_SECONDS)
    assert not in_force(known, PRINCIPAL, NOW + DAY + CLOCK_SKEW_SECONDS + 1)


def test_a_later_revocation_does_not_lengthen_a_standing() -> None:
    """A key that was replaced, or revoked, stays at its first end whatever is logged of it later."""
    known = registry(PRINCIPAL)
    replace_key(known, "second", time=NOW + 1000)
    revoke(known, time=NOW + 2000)
    revoke(known, time=NOW + 3000)
    replace_key(known, "third", time=NOW + 4000)
    for name, until in ((PRINCIPAL, NOW + 1000), ("second", NOW + 2000)):
        assert in_force(known, name, until + CLOCK_SKEW_SECONDS)
        assert not in_force(known, name, until + CLOCK_SKEW_SECONDS + 1)
    assert in_force(known, "third", NOW + 4000)
    assert not in_force(known, "third", NOW + 3000)


@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "revoked"])
def test_a_revocation_dated_before_the_end_of_a_standing_shortens_it(*, replaced: bool) -> None:
    """Of two ends the earlier one counts: a clock that went back between them excuses nothing."""
    known = registry(PRINCIPAL)
    if replaced:
        replace_key(known, "second", time=NOW + 2000)
    else:
        revoke(known, time=NOW + 2000)
    revoke(known, key=PRINCIPAL, time=NOW + 1000)
    assert in_force(known, PRINCIPAL, NOW + 1000 + CLOCK_SKEW_SECONDS)
    assert not in_force(known, PRINCIPAL, NOW + 1000 + CLOCK_SKEW_SECONDS + 1)


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


def test_rosters_of_before_a_change_of_the_root_key_are_admitted_by_the_key_of_their_time() -> None:
    """Whichever of the two keys is pinned; the worker's own roster may be of before or after the change."""
    old, new = signing_key("root"), signing_key("next root")
    change = sign_change(AUTHORITY, old, new, now=NOW).envelope()
    first = roster()
    body = roster_body(version=2, previous=first.digest.hex(), root_changes=[change])
    second = Roster.verified(signed(body, new), old.public_key)
    for pinned, own in ((old, first), (old, second), (new, second)):
        known = Registry(pinned.public_key, Roster.verified(own.statement, pinned.public_key))
        for each in (first, second):
            known.apply(roster_leaf(each))
        for each in (first, second):
            known.admit_roster(each.statement)
        assert known.roster == second


def test_a_logged_roster_that_lacks_a_change_of_the_root_key_is_not_admitted() -> None:
    """Whoever has the former root key and the recovery log's key puts no roster in force."""
    old, new = signing_key("root"), signing_key("next root")
    change = sign_change(AUTHORITY, old, new, now=NOW).envelope()
    body = roster_body(version=2, previous=roster().digest.hex(), root_changes=[change])
    second = Roster.verified(signed(body, new), old.public_key)
    forged = Roster.verified(signed(roster_body(version=3, previous=second.digest.hex()), old), old.public_key)
    for own in (roster(), second):
        known = Registry(old.public_key, own)
        for each in (second, forged):
            known.apply(roster_leaf(each))
        known.admit_roster(second.statement)
        with pytest.raises(RosterInvalid, match="nothing here leads on"):
            known.admit_roster(forged.statement)


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
    requester_kind=Capacity.OFFICER,
    key=KEY,
    principal=PRINCIPAL,
)
SILENT: list[Leaf] = [
    REQUEST,
    ProofLeaf(time=NOW, first=0, count=1, size=1, root=DIGEST, records=1, unprovable=[]),
    AttestationLeaf(time=NOW, id=new_id(), digest=DIGEST, principal=PRINCIPAL, key=KEY, matching=[], stale=[]),
    ResealLeaf(time=NOW, first=0, count=1, size=1, root=DIGEST, kid=KEY, records=1, left=0, digest=DIGEST),
    RetirementLeaf(time=NOW, kid=KEY, size=1, root=DIGEST),
    ApprovalLeaf(time=NOW, id=new_id(), digest=DIGEST, officer="officer-a", key=KEY, request=new_id()),
    DenialLeaf(
        time=NOW,
        id=new_id(),
        digest=DIGEST,
        denier=PRINCIPAL,
        denier_kind=Capacity.PRINCIPAL,
        key=KEY,
        request=new_id(),
    ),
    InvitationLeaf(time=NOW, id=new_id(), digest=DIGEST, principal=PRINCIPAL, officers=["officer-a"]),
    ReleaseLeaf(time=NOW, id=new_id(), digest=DIGEST, release=DIGEST, approvals=[], records=[new_id()]),
    RefusalLeaf(
        time=NOW,
        id=new_id(),
        digest=DIGEST,
        requester=PRINCIPAL,
        requester_kind=Capacity.PRINCIPAL,
        code="denied",
    ),
]
TYPES = {each.model_fields["type"].default for each in get_args(get_args(Leaf)[0])}


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
        leaves += [enrolment_leaf(statement), *(leaf.to_bytes() for leaf in SILENT)]
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
        assert known.verify_former(escrow(), PRINCIPAL, signing_key(PRINCIPAL).key_id, NOW)
        with pytest.raises(PrincipalRevoked):
            known.verify(escrow(), PRINCIPAL)


@pytest.mark.parametrize("leaf", SILENT, ids=lambda leaf: type(leaf).__name__)
def test_leaves_that_say_nothing_about_standing_only_count(leaf: RequestLeaf) -> None:
    """They move the size and nothing else, by the short cut and without it."""
    known = registry(PRINCIPAL)
    size = known.size
    known.apply(leaf.to_bytes())
    known.apply(leaf.to_bytes() + b"\n")
    assert known.size == size + 2
    assert known.verify(escrow(), PRINCIPAL) == signing_key(PRINCIPAL).key_id
    assert known.revoked_at(PRINCIPAL) is None


def test_only_leaves_that_say_nothing_about_standing_are_passed_over() -> None:
    """Of all types there are, exactly these are not parsed; every other has to make sense."""
    passed_over = set()
    # As leaves of most types end, and as those of the prover begin and go on.
    for form in (b'{"time":1,"type":"%b"}', b'{"count":1,"time":1,"type":"%b","x":1}'):
        for type_ in TYPES:
            with suppress(LogForked):
                registry().apply(form % type_.encode())
                passed_over.add(type_)
    assert passed_over == {leaf.type for leaf in SILENT}
    assert TYPES - passed_over == {"roster", "enrolment", "revocation", "escrow"}


@pytest.mark.parametrize("type_", ["promotion", "prerequest", "requests", "Request", "", " request"])
def test_a_leaf_of_an_unknown_type_is_a_fork(type_: str) -> None:
    """A later program may have given it a meaning; an older one stops, also when the name resembles a known one."""
    known = registry()
    with pytest.raises(LogForked, match="recovery log: leaf 1: leaf: of an unknown type"):
        known.apply(REQUEST.to_bytes().replace(b'"type":"request"', b'"type":"%b"' % type_.encode()))
    assert known.size == 1


@pytest.mark.parametrize(
    "leaf",
    [
        b"",
        b"garbage",
        b"{}",
        b'{"type":"enrolment"}',
        b'{"type":"roster"}',
        b'{"digest":"' + DIGEST.encode() + b'","time":1,"type":"revocation"}',
        revocation_leaf(revocation())[:-1],
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
        "bare revocation",
        "revocation cut short",
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


def test_a_revocation_leaf_is_seen_however_it_is_spaced() -> None:
    """The same for the leaf that ends a standing."""
    known = registry(PRINCIPAL)
    known.apply(revocation_leaf(revocation()).replace(b":", b" : ").replace(b",", b" , ") + b"\n")
    assert_revoked(known, PRINCIPAL)


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
