"""What exceptions of the database driver mean to us; the server's own answers are met in the integration tests."""

import asyncpg
import pytest
from asyncpg.exceptions import ConnectionDoesNotExistError, InterfaceError, InternalClientError, _base

from strongroom.database_errors import is_rollback, translated
from strongroom.errors import Busy, DatabaseUnavailable, SchemaMismatch, StateCorrupt, StrongroomError

CANARY = "a value that must not be told"


def server_error(state: str, **fields: str) -> asyncpg.PostgresError:
    """The exception that the driver makes of an error message of the server."""
    return asyncpg.PostgresError.new(
        {"S": "ERROR", "V": "ERROR", "C": state, "M": CANARY, "D": CANARY, "H": CANARY, "W": CANARY, **fields},
        query=CANARY,
    )


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("08006", DatabaseUnavailable),
        ("0A000", DatabaseUnavailable),
        ("21000", StateCorrupt),
        ("22P02", StateCorrupt),
        ("23505", StateCorrupt),
        ("25001", StateCorrupt),
        ("25006", DatabaseUnavailable),
        ("25P02", StateCorrupt),
        ("25P03", DatabaseUnavailable),
        ("28P01", DatabaseUnavailable),
        ("3D000", DatabaseUnavailable),
        ("40001", DatabaseUnavailable),
        ("40P01", DatabaseUnavailable),
        ("53100", DatabaseUnavailable),
        ("53300", DatabaseUnavailable),
        ("54000", StateCorrupt),
        ("55P03", Busy),
        ("55006", StateCorrupt),
        ("57014", DatabaseUnavailable),
        ("57P01", DatabaseUnavailable),
        ("57P03", DatabaseUnavailable),
        ("58030", DatabaseUnavailable),
        ("P0001", StateCorrupt),
        ("XX000", StateCorrupt),
        ("XX001", StateCorrupt),
        ("ZZ999", StateCorrupt),
    ],
)
def test_an_answer_of_the_server_is_sorted_and_not_quoted(state: str, expected: type[StrongroomError]) -> None:
    """The state decides what it means and is told, and nothing else of the server's text is."""
    error = translated(server_error(state))
    assert type(error) is expected
    assert f"SQLSTATE {state}" in error.message
    assert CANARY not in f"{error!r} {error.message} {error.hint}"


@pytest.mark.parametrize("state", ["26000", "3F000", "42501", "42601", "42703", "42883", "42P01"])
def test_what_the_schema_lacks_is_told_in_the_servers_words(state: str) -> None:
    """In these classes the server's sentence names objects, which people need; DETAIL and the query stay away."""
    error = translated(server_error(state, M="relation x does not exist"))
    assert type(error) is SchemaMismatch
    assert "relation x does not exist" in error.message
    assert CANARY not in f"{error!r} {error.message} {error.hint}"
    assert error.hint


def test_a_broken_rule_is_named() -> None:
    """Table and constraint are names of ours and are told."""
    error = translated(server_error("23505", t="records", n="records_pkey"))
    assert "records.records_pkey" in error.message


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (TimeoutError(CANARY), DatabaseUnavailable),
        (ConnectionRefusedError(CANARY), DatabaseUnavailable),
        (FileNotFoundError(CANARY), DatabaseUnavailable),
        (ConnectionDoesNotExistError(CANARY), DatabaseUnavailable),
        (InterfaceError("connection is closed"), DatabaseUnavailable),
        (InterfaceError("pool is closing"), DatabaseUnavailable),
        (InterfaceError("cannot call x(): connection has been released back to the pool"), DatabaseUnavailable),
        (InternalClientError(CANARY), DatabaseUnavailable),
        (InterfaceError("cannot perform operation: another operation is in progress"), StateCorrupt),
        (InterfaceError(CANARY), StateCorrupt),
        (_base.DataError(CANARY), StateCorrupt),
        (ValueError(CANARY), StateCorrupt),
        (ZeroDivisionError(CANARY), StateCorrupt),
    ],
)
def test_trouble_on_our_side_is_sorted_and_not_quoted(raised: Exception, expected: type[StrongroomError]) -> None:
    """A lost connection is tried again, a wrong use of the driver is not, and no text of it is passed on."""
    error = translated(raised)
    assert type(error) is expected
    assert CANARY not in f"{error!r} {error.message} {error.hint}"


def test_our_own_errors_stay_as_they_are() -> None:
    """What is ours already comes back unchanged."""
    error = Busy("held")
    assert translated(error) is error


@pytest.mark.parametrize(
    ("state", "expected"),
    [("40001", True), ("23503", True), ("40003", False), ("57P01", False), ("08006", False), ("XX000", False)],
)
def test_only_a_certain_rollback_is_one(state: str, expected: object) -> None:
    """In answer to COMMIT, anything but a rollback for a known reason leaves the outcome open."""
    assert is_rollback(server_error(state)) is expected
