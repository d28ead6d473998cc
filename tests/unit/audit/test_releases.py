"""Releases: each one that was not due is found, named by leaf and request."""

from typing import Any

import pytest
from tests.support.exports import DAY, Authority, edited

from strongroom.crypto.signing import SigningKey
from strongroom.fields import new_id
from strongroom.mandates import Policy, Role
from strongroom.statements import Statement

from .conftest import Audited, Make

FIRST = 3
"""Index of the first leaf after the roster and the two enrolments."""


@pytest.fixture
def audited(make: Make) -> Audited:
    """Two hosts; laptop-1 has `disk` and `swap`, laptop-2 has `disk`. Policy as it is by default."""
    made = make()
    made.authority.store("laptop-1", "disk", "swap")
    made.authority.store("laptop-2", "disk")
    return made


def disk(authority: Authority, host: int = 1) -> str:
    """Return the id of a host's record `disk`."""
    return str(authority.escrow.rows[host - 1].beside[0])


def asked(authority: Authority, **changed: Any) -> Statement:
    """Put the request of officer-1 for the disk of laptop-1 on the record."""
    return authority.ask("officer-1", "laptop-1", **{"name": "disk", "life": DAY, **changed})


def released(authority: Authority, *officers: str, **changed: Any) -> int:
    """Let officer-1 ask, these officers approve, and put the release on the record; return its index."""
    request = asked(authority, **changed)
    approvals = [authority.approve(request, officer) for officer in officers]
    return authority.release(request, [disk(authority)], approvals)


def codes(audited: Audited) -> set[tuple[int | None, str]]:
    """Return leaf and code of all errors."""
    return {(index, code) for _, index, code in audited.errors()}


def test_a_release_with_approvals_is_in_order(audited: Audited) -> None:
    """Two officers, neither of whom asked."""
    released(audited.authority, "officer-2", "officer-3")
    assert audited.findings() == []


def test_a_hosts_own_key_needs_no_approval(audited: Audited) -> None:
    """By this policy."""
    authority = audited.authority
    request = authority.ask("laptop-1", "laptop-1", records=[disk(authority)])
    authority.release(request, [disk(authority)])
    assert audited.findings() == []


# ---- approvals ----


@pytest.mark.parametrize("officers", [(), ("officer-2",)])
def test_a_release_without_enough_approvals_is_named(audited: Audited, officers: tuple[str, ...]) -> None:
    """Policy asks for two."""
    index = released(audited.authority, *officers)
    assert codes(audited) == {(index, "release_without_approvals")}


def test_a_policy_that_asks_hosts_for_approvals_is_kept(make: Make) -> None:
    """One approval of a host's own request."""
    audited = make(policy=Policy(self_recovery_approvals=1))
    audited.authority.store("laptop-1", "disk")
    request = audited.authority.ask("laptop-1", "laptop-1", name="disk", life=DAY)
    index = audited.authority.release(request, [disk(audited.authority)])
    assert codes(audited) == {(index, "release_without_approvals")}


def test_nothing_is_unwrapped_without_an_approval(audited: Audited) -> None:
    """Also a host's own, where policy asks for none; with one officer's it is in order, and may have waited."""
    authority = audited.authority
    request = authority.ask("laptop-1", "laptop-1", name="disk", life=DAY, unwrap=True)
    index = authority.release(request, [disk(authority)])
    second = authority.ask("laptop-1", "laptop-1", name="disk", life=DAY, unwrap=True)
    authority.release(second, [disk(authority)], [authority.approve(second, "officer-2")])
    assert codes(audited) == {(index, "release_without_approvals")}


def test_unwrapping_takes_no_approval_away(audited: Audited) -> None:
    """Where policy asks for two, one is not enough."""
    index = released(audited.authority, "officer-2", unwrap=True)
    released(audited.authority, "officer-2", "officer-3", unwrap=True)
    assert codes(audited) == {(index, "release_without_approvals")}


def test_an_approval_by_the_requester_is_named(audited: Audited) -> None:
    """At its own leaf and at the release that counts it."""
    index = released(audited.authority, "officer-1", "officer-2")
    assert codes(audited) == {
        (FIRST + 1, "approval_invalid"),
        (index, "approval_invalid"),
        (index, "release_without_approvals"),
    }


def test_two_approvals_of_one_officer_count_once(audited: Audited) -> None:
    """The second is named."""
    index = released(audited.authority, "officer-2", "officer-2")
    assert codes(audited) == {
        (FIRST + 2, "approval_invalid"),
        (index, "approval_invalid"),
        (index, "release_without_approvals"),
    }


def test_an_approval_by_a_removed_officer_does_not_count(audited: Audited) -> None:
    """It was valid when it was given; the roster at the release is another."""
    authority = audited.authority
    request = asked(authority)
    approvals = [authority.approve(request, officer) for officer in ("officer-2", "officer-3")]
    del authority.officer_keys["officer-3"]
    authority.renew_roster()
    authority.log_roster()
    index = authority.release(request, [disk(authority)], approvals)
    assert codes(audited) == {(index, "approval_invalid"), (index, "release_without_approvals")}


def test_an_approval_by_an_officer_who_lost_the_role_does_not_count(audited: Audited) -> None:
    """As for one who was removed."""
    authority = audited.authority
    request = asked(authority)
    approvals = [authority.approve(request, officer) for officer in ("officer-2", "officer-3")]
    authority.officer_roles["officer-3"] = [Role.AUDIT, Role.INVITE]
    authority.renew_roster()
    authority.log_roster()
    index = authority.release(request, [disk(authority)], approvals)
    assert (index, "release_without_approvals") in codes(audited)


def test_an_expired_approval_does_not_count(audited: Audited) -> None:
    """It lived for ten seconds."""
    authority = audited.authority
    request = asked(authority)
    approvals = [authority.approve(request, "officer-2", life=10), authority.approve(request, "officer-3")]
    authority.clock.seconds += 71
    index = authority.release(request, [disk(authority)], approvals)
    assert (index, "release_without_approvals") in codes(audited)


def test_an_approval_signed_by_somebody_else_is_named(audited: Audited) -> None:
    """In the name of officer-3."""
    authority = audited.authority
    request = asked(authority)
    approvals = [
        authority.approve(request, "officer-2"),
        authority.approve(request, "officer-3", key=SigningKey.generate()),
    ]
    index = authority.release(request, [disk(authority)], approvals)
    assert {(FIRST + 2, "approval_invalid"), (index, "release_without_approvals")} <= codes(audited)


def test_approvals_of_another_request_do_not_count(audited: Audited) -> None:
    """They stand in the log, for the request before."""
    authority = audited.authority
    other = asked(authority)
    approvals = [authority.approve(other, officer) for officer in ("officer-2", "officer-3")]
    index = authority.release(asked(authority), [disk(authority)], approvals)
    assert codes(audited) == {(index, "approval_unknown"), (index, "release_without_approvals")}


def test_approvals_without_a_leaf_do_not_count(audited: Audited) -> None:
    """The release names digests that the log does not."""
    index = audited.authority.release(asked(audited.authority), [disk(audited.authority)], ["11" * 32, "22" * 32])
    assert codes(audited) == {(index, "approval_unknown"), (index, "release_without_approvals")}


def test_a_lost_approval_is_named_with_the_release_that_rests_on_it(audited: Audited) -> None:
    """Nothing proves any more that it was given."""
    index = released(audited.authority, "officer-2", "officer-3")
    audited.authority.recovery.rows[FIRST + 1].statement = None
    assert {(FIRST + 1, "statement_missing"), (index, "approval_unknown")} <= codes(audited)


# ---- who asks, and whether it was decided ----


def test_a_release_without_a_request_is_named(audited: Audited) -> None:
    """No leaf before asks for it."""
    authority = audited.authority
    request = asked(authority)
    authority.recovery.rows.pop()
    authority.recovery = authority.recovery.rebuilt()
    index = authority.release(request, [disk(authority)])
    assert (index, "release_without_request") in codes(audited)


@pytest.mark.parametrize(
    ("end", "who", "code"),
    [
        ("deny", ["officer-3"], "release_after_denial"),
        ("deny", ["laptop-1"], "release_after_denial"),
        ("refuse", [], "release_after_refusal"),
    ],
    ids=["denied by an officer", "denied by the owner", "refused"],
)
def test_a_release_of_what_was_denied_or_refused_is_named(
    audited: Audited, end: str, who: list[str], code: str
) -> None:
    """However many approved before."""
    authority = audited.authority
    request = asked(authority)
    approvals = [authority.approve(request, officer) for officer in ("officer-2", "officer-3")]
    getattr(authority, end)(request, *who)
    index = authority.release(request, [disk(authority)], approvals)
    assert codes(audited) == {(index, code)}


def test_a_release_to_an_officer_who_was_removed_is_named(audited: Audited) -> None:
    """The requester has to be in force still."""
    authority = audited.authority
    request = asked(authority)
    approvals = [authority.approve(request, officer) for officer in ("officer-2", "officer-3")]
    del authority.officer_keys["officer-1"]
    authority.renew_roster()
    authority.log_roster()
    index = authority.release(request, [disk(authority)], approvals)
    assert codes(audited) == {(index, "requester_not_in_force")}


def test_a_release_to_an_officer_without_the_role_is_named(audited: Audited) -> None:
    """Role `recover`."""
    authority = audited.authority
    authority.officer_roles["officer-1"] = [Role.APPROVE, Role.INVITE]
    authority.renew_roster()
    authority.log_roster()
    index = released(authority, "officer-2", "officer-3")
    assert codes(audited) == {(index, "requester_not_in_force")}


def test_a_release_to_a_revoked_host_is_named(audited: Audited) -> None:
    """Its key does not speak for it any more."""
    authority = audited.authority
    request = authority.ask("laptop-1", "laptop-1", name="disk")
    authority.revoke("laptop-1")
    index = authority.release(request, [disk(authority)])
    assert codes(audited) == {(index, "requester_not_in_force")}


def test_a_host_that_was_given_anothers_records_is_named(audited: Audited) -> None:
    """A host asks for its own records only."""
    authority = audited.authority
    request = authority.ask("laptop-2", "laptop-1", name="disk")
    index = authority.release(request, [disk(authority)])
    assert codes(audited) == {(index, "release_wrong")}


# ---- when ----


def test_a_release_before_the_delay_is_named(make: Make) -> None:
    """Two hours; a second is missing."""
    audited = make(policy=Policy(officer_recovery_delay_hours=2))
    authority = audited.authority
    authority.store("laptop-1", "disk")
    request = asked(authority)
    approvals = [authority.approve(request, officer) for officer in ("officer-2", "officer-3")]
    authority.clock.seconds += 7199
    index = authority.release(request, [disk(authority)], approvals)
    assert codes(audited) == {(index, "release_before_delay")}


def test_a_release_right_after_the_delay_is_in_order(make: Make) -> None:
    """To the second."""
    audited = make(policy=Policy(officer_recovery_delay_hours=2))
    authority = audited.authority
    authority.store("laptop-1", "disk")
    request = asked(authority)
    approvals = [authority.approve(request, officer) for officer in ("officer-2", "officer-3")]
    authority.clock.seconds += 7200
    authority.release(request, [disk(authority)], approvals)
    assert audited.findings() == []


@pytest.mark.parametrize(("late", "is_error"), [(60, False), (61, True)])
def test_a_release_after_the_requests_expiry_is_named(audited: Audited, late: int, *, is_error: bool) -> None:
    """Beyond the clock skew."""
    authority = audited.authority
    request = authority.ask("laptop-1", "laptop-1", name="disk", life=300)
    authority.clock.seconds += 300 + late
    index = authority.release(request, [disk(authority)])
    assert codes(audited) == ({(index, "release_expired")} if is_error else set())


def test_a_request_that_lived_longer_than_it_may_is_named(audited: Audited) -> None:
    """A host's own, where policy asks for no approval: 300 s."""
    authority = audited.authority
    index = authority.release(authority.ask("laptop-1", "laptop-1", name="disk", life=301), [disk(authority)])
    assert codes(audited) == {(index, "release_expired")}


# ---- what ----


def test_a_record_of_another_principal_is_named(audited: Audited) -> None:
    """By its id, and by whose it is."""
    authority = audited.authority
    request = authority.ask("laptop-1", "laptop-1", name="disk")
    index = authority.release(request, [disk(authority, 2)])
    [finding] = audited.findings()
    assert (finding.index, finding.id, finding.code) == (index, disk(authority, 2), "record_not_theirs")
    assert "laptop-2" in finding.words


def test_a_record_under_another_name_is_named(audited: Audited) -> None:
    """`swap` was asked for and `disk` released."""
    authority = audited.authority
    index = authority.release(authority.ask("laptop-1", "laptop-1", name="swap"), [disk(authority)])
    assert codes(audited) == {(index, "record_not_theirs")}


def test_other_records_than_were_asked_for_are_named(audited: Audited) -> None:
    """By their ids."""
    authority = audited.authority
    other = str(authority.escrow.rows[0].beside[1])
    index = authority.release(authority.ask("laptop-1", "laptop-1", records=[disk(authority)]), [other])
    assert codes(audited) == {(index, "release_wrong")}


def test_two_records_of_one_name_are_named(audited: Audited) -> None:
    """A name is one record, the newest."""
    authority = audited.authority
    authority.store("laptop-1", "disk")
    both = [disk(authority), str(authority.escrow.rows[2].beside[0])]
    index = authority.release(authority.ask("laptop-1", "laptop-1", name="disk"), both)
    assert codes(audited) == {(index, "release_wrong")}


def test_a_record_that_nobody_escrowed_is_named(audited: Audited) -> None:
    """No statement of the escrow log holds it."""
    authority = audited.authority
    record = new_id()
    index = authority.release(authority.ask("laptop-1", "laptop-1", name="disk"), [record])
    assert codes(audited) == {(index, "record_unknown")}


def test_the_same_release_a_second_time_is_a_warning(audited: Audited) -> None:
    """SPEC 5.2: one that was lost is made again, with an entry of its own."""
    authority = audited.authority
    request = authority.ask("laptop-1", "laptop-1", name="disk")
    authority.release(request, [disk(authority)])
    index = authority.release(request, [disk(authority)])
    assert audited.errors() == []
    assert audited.warnings() == [("recovery", index, "release_repeated")]


def test_another_release_of_the_same_request_is_named(audited: Audited) -> None:
    """Of newer records than those approved."""
    authority = audited.authority
    authority.store("laptop-1", "disk")
    request = authority.ask("laptop-1", "laptop-1", name="disk")
    authority.release(request, [disk(authority)])
    index = authority.release(request, [str(authority.escrow.rows[2].beside[0])])
    assert codes(audited) == {(index, "release_twice")}


def test_a_release_of_another_request_under_its_id_is_named(audited: Audited) -> None:
    """The digest in the leaf is not that of the request."""
    authority = audited.authority
    index = authority.release(authority.ask("laptop-1", "laptop-1", name="disk"), [disk(authority)])
    row = authority.recovery.rows[index]
    row.leaf = edited(row.leaf, digest="00" * 32)
    authority.recovery = authority.recovery.rebuilt()
    assert codes(audited) == {(index, "release_wrong")}


def test_a_release_whose_request_is_lost_is_named(audited: Audited) -> None:
    """What was asked for cannot be compared any more."""
    authority = audited.authority
    index = authority.release(authority.ask("laptop-1", "laptop-1", name="disk"), [disk(authority)])
    authority.recovery.rows[FIRST].statement = None
    assert codes(audited) == {(FIRST, "statement_missing"), (index, "request_unproven")}


def test_too_many_records_in_a_day_are_a_warning(make: Make) -> None:
    """The second of one."""
    audited = make(policy=Policy(released_records_per_day=1))
    authority = audited.authority
    authority.store("laptop-1", "disk")
    authority.release(authority.ask("laptop-1", "laptop-1", name="disk"), [disk(authority)])
    index = authority.release(authority.ask("laptop-1", "laptop-1", name="disk"), [disk(authority)])
    assert audited.warnings() == [("recovery", index, "rate")]
