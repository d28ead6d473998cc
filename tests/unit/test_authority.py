"""Founding an authority: all of it, or a reason and nothing on disk; and the rosters that follow its first."""

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest
from tests.support import authority as make

from strongroom.authority import Passphrases, create
from strongroom.crypto.sealing import Suite
from strongroom.errors import (
    LimitExceeded,
    MalformedStatement,
    OfficerUnknown,
    RosterInvalid,
    StrongroomError,
    UsageError,
)
from strongroom.mandates import Officer, Policy, Role
from strongroom.next_rosters import Changes, next_roster, replace_roster
from strongroom.roster import Roster
from strongroom.roster_words import differences, unmeetable
from strongroom.settings import read_root_key, read_roster
from strongroom.statements import Statement

OFFICERS = [make.officer("officer-a"), make.officer("officer-b")]


def found(folder: Path, authority: str = make.AUTHORITY, **changes: Any) -> Statement:
    """Found an authority of two officers without passphrases; arguments as given."""
    members: dict[str, Any] = {
        "officers": OFFICERS,
        "policy": Policy(),
        "suite": Suite.P256,
        "passphrases": Passphrases(None, None),
    }
    return create(folder, authority=authority, **(members | changes))


def test_a_new_authority_has_a_roster_that_its_readers_accept(tmp_path: Path) -> None:
    """The file verifies under the root key beside it, and is the roster that was returned."""
    made = found(tmp_path / "keys")
    read = Roster.verified(
        read_roster(tmp_path / "keys" / "roster.json"), read_root_key(tmp_path / "keys" / "root.pub")
    )
    assert read.digest == made.digest
    assert read.body.authority == make.AUTHORITY
    assert read.body.officers == OFFICERS


def auditor(name: str) -> Officer:
    """Return an officer who may not invite."""
    return make.officer(name, Role.AUDIT)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"authority": "No Authority"}, MalformedStatement, "authority"),
        ({"authority": "a" * 300}, StrongroomError, "authority"),
        ({"officers": [OFFICERS[0], make.officer("officer-a")]}, RosterInvalid, "same name"),
        ({"officers": [OFFICERS[0], auditor("officer-b")]}, RosterInvalid, "1 officers with role 'invite'"),
        ({"policy": Policy(replacement_signatures=3)}, RosterInvalid, "replacement_signatures is 3"),
        ({"officers": [make.officer(f"officer-{n}") for n in range(257)]}, LimitExceeded, "officers"),
    ],
    ids=["name", "long name", "two cards", "roles", "policy", "many"],
)
def test_an_authority_that_no_reader_would_accept_leaves_nothing_on_disk(
    tmp_path: Path, changes: dict[str, Any], error: type[StrongroomError], words: str
) -> None:
    """The roster is checked as its readers check it, before the first folder is made."""
    with pytest.raises(error, match=words):
        found(tmp_path / "keys", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """Below a file there is no folder: the operator reads the path and the reason."""
    (tmp_path / "taken").write_text("a file")
    for folder in (tmp_path / "taken", tmp_path / "taken" / "keys"):
        with pytest.raises(UsageError, match=r"taken.*Not a directory"):
            found(folder)


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    """An authority is made once."""
    found(tmp_path / "keys")
    before = (tmp_path / "keys" / "roster.json").read_bytes()
    with pytest.raises(UsageError, match="not empty"):
        found(tmp_path / "keys")
    assert (tmp_path / "keys" / "roster.json").read_bytes() == before


# ---- the rosters that follow ----

ROOT = make.signing_key("root")


def follow(before: Roster | None = None, *, now: int = make.NOW, **changes: Any) -> Roster:
    """Return the roster that follows one, by default that of the builders, with these changes."""
    return next_roster(before or make.roster(), Changes(**changes), ROOT, now=now, life_seconds=make.DAY)


def test_the_next_roster_is_chained_to_the_one_before_and_else_the_same() -> None:
    """Version, previous, times; nothing else changes by itself."""
    before = make.roster()
    after = follow(before)
    after.check_follows(before)
    assert (after.body.version, after.body.previous) == (2, before.digest.hex())
    assert (after.body.issued_at, after.body.expires_at) == (make.NOW, make.NOW + make.DAY)
    for member in ("authority", "sealing_keys", "logs", "replies", "officers", "policy"):
        assert getattr(after.body, member) == getattr(before.body, member)
    third = follow(after)
    assert (third.body.version, third.body.previous) == (3, after.digest.hex())


def test_an_expired_roster_can_be_followed() -> None:
    """That is when a new one is needed most."""
    before = make.roster(expires_at=make.NOW - 1)
    assert follow(before).body.version == 2


def test_officers_come_and_go() -> None:
    """In the order of the roster before, new ones last."""
    after = follow(add_officers=[make.officer("officer-d")], remove_officers=["officer-c"])
    assert [officer.name for officer in after.body.officers] == ["officer-a", "officer-b", "officer-d"]


def test_an_officer_without_a_role_may_stand_in_a_roster() -> None:
    """He is known by name and key, and may do nothing yet."""
    idle = Officer(name="officer-d", public_key=make.signing_key("officer-d").public_key, roles=[])
    after = follow(add_officers=[idle])
    assert after.officer("officer-d").roles == []
    assert differences(make.roster().body, after.body) == [
        f"officer officer-d is added: key {make.signing_key('officer-d').key_id}, no role"
    ]


def test_an_officer_is_exchanged_in_one_step() -> None:
    """Another key and other roles under the same name; the words say both."""
    new = Officer(name="officer-c", public_key=make.signing_key("new").public_key, roles=[Role.APPROVE])
    after = follow(add_officers=[new], remove_officers=["officer-c"])
    assert after.officer("officer-c") == new
    words = differences(make.roster().body, after.body)
    old_id, new_id = (make.signing_key(name).key_id for name in ("officer-c", "new"))
    assert words == [
        f"officer officer-c has another key: {new_id}, was {old_id}",
        "officer officer-c has other roles: approve; had audit",
    ]


def test_policy_changes_are_told_with_their_former_values() -> None:
    """And no others; who was removed is told, too."""
    before = make.roster()
    after = follow(before, policy={"officer_recovery_approvals": 1}, remove_officers=["officer-c"])
    assert after.body.policy == before.body.policy.model_copy(update={"officer_recovery_approvals": 1})
    assert differences(before.body, after.body) == [
        "officer officer-c is removed",
        "officer_recovery_approvals is 1, was 2",
    ]
    assert differences(before.body, follow(before).body) == []


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"remove_officers": ["officer-x"]}, OfficerUnknown, "officer-x"),
        ({"add_officers": [make.officer("officer-a")]}, UsageError, "officer-a: is in the roster already"),
        ({"add_officers": [make.officer("officer-d")] * 2}, StrongroomError, "officer"),
        ({"remove_officers": ["officer-a"]}, RosterInvalid, "replacement_signatures is 2"),
        ({"policy": {"replacement_signatures": 3}}, RosterInvalid, "replacement_signatures is 3"),
        ({"policy": {"requests_per_hour": 0}}, LimitExceeded, "requests_per_hour"),
        ({"policy": {"generosity": 1}}, UsageError, "generosity is none of"),
        ({"now": make.NOW - make.DAY - 1}, UsageError, "1 s after what is now here"),
    ],
    ids=["nobody", "twice", "two cards", "inviters", "signatures", "bounds", "policy", "clock"],
)
def test_a_roster_that_no_reader_would_accept_is_not_signed(
    changes: dict[str, Any], error: type[StrongroomError], words: str
) -> None:
    """Nor one that says something else than whoever signs it meant."""
    with pytest.raises(error, match=words):
        follow(**changes)


def test_the_key_of_another_officer_is_not_taken_twice() -> None:
    """Under another name it would count as two."""
    twin = Officer(name="officer-d", public_key=make.signing_key("officer-a").public_key, roles=list(Role))
    with pytest.raises(RosterInvalid, match="same public key"):
        follow(add_officers=[twin])


@pytest.mark.parametrize(
    ("officers", "policy", "words"),
    [
        ([make.officer("aaa"), make.officer("bbb"), make.officer("ccc")], {}, []),
        ([make.officer("aaa"), make.officer("bbb")], {}, ["officer_recovery_approvals is 2.*aaa, bbb"]),
        ([make.officer("aaa"), make.officer("bbb")], {"officer_recovery_approvals": 1}, []),
        (
            [
                make.officer("aaa"),
                make.officer("bbb"),
                make.officer("ccc", Role.RECOVER),
            ],
            {},
            ["officer_recovery_approvals is 2.*for aaa, bbb to"],
        ),
        (
            [make.officer("aaa"), make.officer("bbb"), make.officer("ccc")],
            {"self_recovery_approvals": 4},
            ["self_recovery_approvals is 4, and 3 officers"],
        ),
        ([make.officer("aaa"), make.officer("bbb"), make.officer("ccc")], {"self_recovery_approvals": 3}, []),
        (
            [make.officer("aaa", Role.INVITE), make.officer("bbb", Role.INVITE)],
            {},
            ["role 'recover'", "role 'revoke'"],
        ),
        ([], {}, ["role 'invite'", "role 'recover'", "role 'revoke'"]),
    ],
    ids=["fits", "two", "one approval", "one can", "self", "all of them", "roles", "nobody"],
)
def test_a_policy_that_can_never_be_met_is_told(
    officers: list[Officer], policy: dict[str, int], words: list[str]
) -> None:
    """By the officers that there are, without the one who asks."""
    found = unmeetable(make.roster_body(officers=officers, policy=Policy.model_validate(policy)))
    assert len(found) == len(words)
    for each, expected in zip(found, words, strict=True):
        assert re.search(expected, each)


def test_a_roster_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Content, and the mode that its readers need; nothing is left beside it."""
    path = tmp_path / "roster.json"
    path.write_bytes(make.roster().statement.envelope())
    path.chmod(0o640)
    after = follow()
    replace_roster(path, after)
    assert Roster.verified(read_roster(path), ROOT.public_key).digest == after.digest
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_a_roster_file_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full: the former roster is whole, and the error names the file."""
    path = tmp_path / "roster.json"
    path.write_bytes(b"former")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match=r"roster\.json: cannot be written \(No space"):
        replace_roster(path, follow())
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]
