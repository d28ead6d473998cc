"""Which enrolments the recovery worker takes, by the roster in force and what its log says until now (SPEC 2.5)."""

import pytest
from tests.support import authority as make

from strongroom.errors import Expired, InvitationInvalid, SignatureInvalid, WrongAuthority
from strongroom.fields import parse_body
from strongroom.limits import CLOCK_SKEW_SECONDS
from strongroom.mandates import Invitation, Policy
from strongroom.registry import Registry
from strongroom.statements import Statement
from strongroom_recovery.handler import check_enrolment

OTHER = "laptop-0418"
BOTH = ("officer-a", "officer-b")


def enrolled(statement: Statement, registry: Registry | None = None, *, now: int = make.NOW) -> str:
    return check_enrolment(statement, registry or make.registry(), now).key_id


def test_an_enrolment_on_a_fresh_invitation_is_accepted_with_its_key_id() -> None:
    """The chain from the root holds, nobody is enrolled, and the invitation is new."""
    assert enrolled(make.enrolment(make.invitation())) == make.signing_key(make.PRINCIPAL).key_id


def test_an_invitation_is_used_once() -> None:
    """A second key on the same invitation is refused, also when that invitation replaces keys."""
    invited = make.invitation(officers=("officer-a", "officer-b"), replaces=True)
    registry = make.registry()
    first = make.enrolment(invited)
    check_enrolment(first, registry, make.NOW)
    registry.apply(make.enrolment_leaf(first))
    with pytest.raises(InvitationInvalid, match="used before"):
        enrolled(make.enrolment(invited, key="another key"), registry)


def test_a_principal_that_is_enrolled_is_not_enrolled_again_without_replacement() -> None:
    """A fresh plain invitation does not take an enrolled principal's name over."""
    with pytest.raises(InvitationInvalid, match="is enrolled"):
        enrolled(make.enrolment(make.invitation(), key="another key"), make.registry(make.PRINCIPAL))


def test_a_replacement_invitation_by_enough_officers_replaces_the_key() -> None:
    """With as many officers as policy asks for, an enrolled principal gets a new key."""
    invited = make.invitation(officers=("officer-a", "officer-b"), replaces=True)
    statement = make.enrolment(invited, key="another key")
    assert enrolled(statement, make.registry(make.PRINCIPAL)) == make.signing_key("another key").key_id


def test_a_replacement_invitation_short_of_officers_is_refused() -> None:
    """One officer alone does not replace a principal's key."""
    with pytest.raises(InvitationInvalid, match="signed by 1 officers"):
        enrolled(make.enrolment(make.invitation(replaces=True)), make.registry(make.PRINCIPAL))


def test_an_invitation_ends_at_its_expiry_and_not_before() -> None:
    """Until the clock skew after its expiry an invitation is good, a second later it is expired."""
    invited = make.invitation()
    last = parse_body(invited, Invitation).expires_at + CLOCK_SKEW_SECONDS
    enrolled(make.enrolment(invited), now=last)
    with pytest.raises(Expired, match="expires_at"):
        enrolled(make.enrolment(invited), now=last + 1)


def test_an_enrolment_or_invitation_from_the_future_is_refused() -> None:
    """Either may be dated up to the clock skew ahead, and no further."""
    ahead = make.NOW + CLOCK_SKEW_SECONDS
    enrolled(make.enrolment(make.invitation(), issued_at=ahead))
    enrolled(make.enrolment(make.invitation(issued_at=ahead)))
    with pytest.raises(Expired, match="issued_at"):
        enrolled(make.enrolment(make.invitation(), issued_at=ahead + 1))
    with pytest.raises(Expired, match="issued_at"):
        enrolled(make.enrolment(make.invitation(issued_at=ahead + 1)))


def test_an_enrolment_without_the_one_time_key_is_refused() -> None:
    """Who only saw the invitation, without its one-time key, cannot use it."""
    body = make.enrolment_body(make.invitation())
    with pytest.raises(SignatureInvalid):
        enrolled(make.signed(body, make.signing_key(make.PRINCIPAL)))


def test_an_invitation_by_a_stranger_is_refused() -> None:
    """Nobody outside the roster invites."""
    with pytest.raises(InvitationInvalid):
        enrolled(make.enrolment(make.invitation(officers=("a stranger",))))


# ---- invitations of many ----


def log_enrolment(registry: Registry, statement: Statement, principal: str = make.PRINCIPAL) -> None:
    registry.apply(make.enrolment_leaf(statement))
    registry.admit_enrolment(principal, statement)


def test_an_invitation_of_many_enrols_as_many_as_it_says_and_no_more() -> None:
    """Each new principal that its prefix covers, until the uses in the recovery log reach the number."""
    many = make.invitation(prefix="laptop-", uses=2)
    registry = make.registry()
    for name in ("laptop-0001", "laptop-0002"):
        statement = make.enrolment(many, name)
        assert enrolled(statement, registry) == make.signing_key(name).key_id
        log_enrolment(registry, statement, name)
    with pytest.raises(InvitationInvalid, match="was used before, 2 times at most") as caught:
        enrolled(make.enrolment(many, "laptop-0003"), registry)
    assert caught.value.hint is not None


def test_the_uses_of_other_invitations_do_not_count() -> None:
    """A fresh invitation of many is fresh however many were enrolled by others."""
    registry = make.registry(*(f"laptop-000{number}" for number in range(4)))
    many = make.invitation(prefix="laptop-", uses=1)
    assert enrolled(make.enrolment(many), registry) == make.signing_key(make.PRINCIPAL).key_id


def test_an_invitation_of_many_enrols_nobody_whom_its_prefix_does_not_cover() -> None:
    """The name has to begin with the prefix."""
    many = make.invitation(prefix="laptop-", uses=50)
    with pytest.raises(InvitationInvalid, match="for 50 new principals laptop-…, not for server-0001"):
        enrolled(make.enrolment(many, "server-0001"))


def test_an_invitation_of_many_takes_nobodys_name() -> None:
    """A principal that is enrolled, by it or by another, is not enrolled again by it, also after a revocation."""
    many = make.invitation(prefix="laptop-", uses=50, issued_at=make.NOW + 2)
    registry = make.registry(make.PRINCIPAL)
    with pytest.raises(InvitationInvalid, match=f"{make.PRINCIPAL} is enrolled"):
        enrolled(make.enrolment(many, key="another key"), registry)
    registry.apply(make.revocation_leaf(make.revocation()))
    with pytest.raises(InvitationInvalid, match=f"{make.PRINCIPAL} is enrolled"):
        enrolled(make.enrolment(many, key="another key"), registry)
    enrolled(make.enrolment(many, OTHER), registry)


# ---- after a revocation ----

REVOKED_AT = make.NOW + 100


def revoked(*, key: str | None = None) -> Registry:
    """A registry in which the principal was enrolled, and then it or one key of it revoked at REVOKED_AT."""
    registry = make.registry(make.PRINCIPAL)
    statement = make.revocation(key=make.signing_key(key).key_id if key else None)
    registry.apply(make.revocation_leaf(statement, time=REVOKED_AT))
    return registry


def replacing(issued_at: int) -> Statement:
    """An enrolment of another key by an invitation that replaces, issued at this time."""
    return make.enrolment(make.invitation(officers=BOTH, replaces=True, issued_at=issued_at), key="another key")


@pytest.mark.parametrize("key", [None, make.PRINCIPAL], ids=["principal", "key"])
def test_a_revoked_principal_is_enrolled_by_an_invitation_issued_after_the_revocation(key: str | None) -> None:
    """One second after is enough, the same second and any time before is not (SPEC 2.5)."""
    now = REVOKED_AT + 10
    assert enrolled(replacing(REVOKED_AT + 1), revoked(key=key), now=now) == make.signing_key("another key").key_id
    for issued_at in (REVOKED_AT, REVOKED_AT - 1, make.NOW):
        with pytest.raises(InvitationInvalid, match="was revoked after it was issued"):
            enrolled(replacing(issued_at), revoked(key=key), now=now)


def test_a_revoked_principal_is_not_enrolled_without_replacement() -> None:
    """Its name stays taken: a plain invitation, one officer's, does not bring it back, however fresh (SPEC 2.9)."""
    invited = make.invitation(issued_at=REVOKED_AT + 1)
    with pytest.raises(InvitationInvalid, match="is enrolled, and the invitation does not replace"):
        enrolled(make.enrolment(invited, key="another key"), revoked(), now=REVOKED_AT + 1)


def test_a_revoked_principal_is_not_enrolled_by_one_officer_who_replaces() -> None:
    """As many officers as for any other replacement."""
    invited = make.invitation(replaces=True, issued_at=REVOKED_AT + 1)
    with pytest.raises(InvitationInvalid, match="signed by 1 officers"):
        enrolled(make.enrolment(invited, key="another key"), revoked(), now=REVOKED_AT + 1)


def test_a_name_revoked_before_it_was_enrolled_needs_a_later_invitation() -> None:
    """An invitation that was already out cannot be used for it; a plain one issued later can."""
    registry = make.registry()
    registry.apply(make.revocation_leaf(make.revocation(), time=REVOKED_AT))
    for early in (make.invitation(), make.invitation(prefix="laptop-", uses=5)):
        with pytest.raises(InvitationInvalid, match="was revoked after it was issued"):
            enrolled(make.enrolment(early), registry, now=REVOKED_AT + 1)
    enrolled(make.enrolment(make.invitation(issued_at=REVOKED_AT + 1)), registry, now=REVOKED_AT + 1)


def test_a_revocation_holds_up_nobody_else() -> None:
    """Invitations of other principals, also by the same invitation of many, are as good as before."""
    many = make.invitation(prefix="laptop-", uses=5)
    enrolled(make.enrolment(many, OTHER), revoked(), now=REVOKED_AT + 1)


# ---- the same key again ----


def test_a_key_that_the_principal_had_is_not_enrolled_again() -> None:
    """Neither the one in force, nor a replaced one, nor a revoked one, whatever invitation comes with it."""
    registry = make.registry(make.PRINCIPAL)
    log_enrolment(registry, make.enrolment(make.invitation(officers=BOTH, replaces=True), key="second"))
    again = make.invitation(officers=BOTH, replaces=True, issued_at=REVOKED_AT + 1)
    for _ in range(2):
        for key in (make.PRINCIPAL, "second"):
            with pytest.raises(InvitationInvalid, match=f"signing_key: was enrolled for {make.PRINCIPAL} before"):
                enrolled(make.enrolment(again, key=key), registry, now=REVOKED_AT + 1)
        assert enrolled(make.enrolment(again, key="third"), registry, now=REVOKED_AT + 1)
        registry.apply(make.revocation_leaf(make.revocation(), time=REVOKED_AT))


def test_a_key_of_another_principal_is_judged_by_its_own_past() -> None:
    """Keys are remembered by principal: what was enrolled elsewhere stands in nobody's way."""
    statement = make.enrolment(make.invitation(), key=OTHER)
    assert enrolled(statement, make.registry(OTHER)) == make.signing_key(OTHER).key_id


# ---- the roster in force ----


def test_the_roster_in_force_decides_how_many_officers_replace() -> None:
    """A stricter policy takes effect for invitations that are out already."""
    statement = make.enrolment(make.invitation(replaces=True), key="another key")
    lenient = make.registry(make.PRINCIPAL, bootstrap=make.roster(policy=Policy(replacement_signatures=1)))
    enrolled(statement, lenient)
    stricter = make.next_roster(lenient.roster, policy=Policy(replacement_signatures=2))
    lenient.apply(make.roster_leaf(stricter))
    lenient.admit_roster(stricter.statement)
    with pytest.raises(InvitationInvalid, match="signed by 1 officers with role 'invite', policy asks for 2"):
        enrolled(statement, lenient)


def test_an_enrolment_for_another_authority_is_refused() -> None:
    """Enrolment or invitation, whichever names it (SPEC 1.6)."""
    for statement in (
        make.enrolment(make.invitation(), authority="other.example.org"),
        make.enrolment(make.invitation(authority="other.example.org")),
    ):
        with pytest.raises(WrongAuthority):
            enrolled(statement)
