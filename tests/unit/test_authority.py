"""Founding an authority: all of it, or a reason and nothing on disk."""

from pathlib import Path
from typing import Any

import pytest
from tests.support import authority as make

from strongroom.authority import Passphrases, create
from strongroom.crypto.sealing import Suite
from strongroom.errors import LimitExceeded, MalformedStatement, RosterInvalid, StrongroomError, UsageError
from strongroom.messages import Officer, Policy, Role
from strongroom.roster import Roster
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
