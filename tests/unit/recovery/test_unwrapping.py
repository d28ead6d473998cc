"""Whose a wrapped key is: the first escrow by its place in the log, and nothing else."""

import pytest
from tests.support import authority as make
from tests.support import wrapped as given

from strongroom.crypto.rsa import Padding
from strongroom.errors import MalformedStatement, RecordConflict
from strongroom.fields import new_id
from strongroom_recovery.records import StoredRecord
from strongroom_recovery.unwrapping import check_first

OTHER = "laptop-0418"
BLOB = given.simple_blob(bytes(32), Padding.OAEP)
ANOTHER = given.simple_blob(bytes(32), Padding.OAEP)


def stored(principal: str, log_index: int, blob: bytes = BLOB, *, issued_at: int = make.NOW) -> StoredRecord:
    """Return a verified record of a wrapped key at a place of the escrow log."""
    return StoredRecord(
        authority=make.AUTHORITY,
        principal=principal,
        statement_id=new_id(),
        issued_at=issued_at,
        stored_at=issued_at,
        log_index=log_index,
        in_force=True,
        record=given.record(principal, material=blob),
    )


def test_a_copy_is_refused_to_who_came_later() -> None:
    """The refusal names the record that was asked for, and not whose the first was."""
    copy = stored(make.PRINCIPAL, 5)
    with pytest.raises(RecordConflict, match=copy.record.id) as caught:
        check_first([stored(make.PRINCIPAL, 4, ANOTHER), copy], stored(OTHER, 4))
    assert OTHER not in f"{caught.value.message} {caught.value.hint}"


def test_the_place_in_the_log_decides_and_not_the_time() -> None:
    """The sender's clock says what it likes."""
    early = stored(OTHER, 9, issued_at=make.NOW - 10)
    check_first([stored(make.PRINCIPAL, 8)], early)
    with pytest.raises(RecordConflict):
        check_first([stored(make.PRINCIPAL, 10, issued_at=make.NOW - 20)], early)


def test_a_principals_own_earlier_escrow_is_no_conflict() -> None:
    """It may escrow the same wrapped key as often as it likes."""
    check_first([stored(make.PRINCIPAL, 8)], stored(make.PRINCIPAL, 2))


def test_another_wrapped_key_is_no_conflict() -> None:
    """Only the same digest counts."""
    check_first([stored(make.PRINCIPAL, 8)], stored(OTHER, 2, ANOTHER))


def test_a_key_that_is_not_wrapped_cannot_be_asked_about() -> None:
    """The message names the record and what to do."""
    plain = make.record()
    asked = StoredRecord(
        make.AUTHORITY, make.PRINCIPAL, new_id(), make.NOW, make.NOW, 0, in_force=True, record=plain
    )
    with pytest.raises(MalformedStatement, match=f"unwrap: record {plain.id} is not a wrapped key"):
        check_first([asked], stored(OTHER, 2))
