"""What auditors are shown of a database: as it is, so that no row of it keeps the page back."""

import pytest

from strongroom.audits import LogEntry
from strongroom.errors import MalformedStatement
from strongroom.fields import validated

ID = "0190a5d4-2c3b-7e1f-8a9b-0c1d2e3f4a5b"


def shown(row: str) -> LogEntry:
    entry = {"index": 0, "leaf": None, "nodes": [None], "statement": False, "rows": [row], "has_release": False}
    return validated(entry, LogEntry)


@pytest.mark.parametrize("row", [ID, ID.replace("-7", "-4"), "00000000-0000-0000-0000-000000000000"])
def test_an_entry_shows_a_row_whose_id_nobody_could_have_signed(row: str) -> None:
    """An id in the index may be any UUID; the auditor finds that it is none of the statement's."""
    assert shown(row).rows == [row]


@pytest.mark.parametrize("row", ["", "x" * 36, "0" * 32, ID.upper()])
def test_what_is_no_uuid_is_no_row(row: str) -> None:
    """The database's column holds nothing else."""
    with pytest.raises(MalformedStatement, match="rows"):
        shown(row)
