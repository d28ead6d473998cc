"""What a log line may hold of an exception: its type and place, and words only where they are ours."""

import json
import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from strongroom.errors import DatabaseUnavailable
from strongroom.logs import configure, get_logger

CANARY = "canary-of-a-secret"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave logging as it was found."""
    root = logging.getLogger()
    handlers, level, own = root.handlers[:], root.level, logging.getLogger("strongroom").level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("strongroom").setLevel(own)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def fail() -> None:
    """Raise an error of ours that was caused by others, a group among them; all of those hold the canary."""
    try:
        try:
            int(CANARY)  # its error quotes it
        except ValueError as error:
            raise ExceptionGroup(CANARY, [KeyError(CANARY), error]) from error
    except ExceptionGroup as group:
        group.add_note(CANARY)
        raise DatabaseUnavailable("words of our own") from group


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("is_library", [False, True], ids=["ours", "a library's"])
def test_an_exception_is_told_by_type_and_place_without_its_words(
    capsys: pytest.CaptureFixture[str], log_format: Literal["json", "console"], *, is_library: bool
) -> None:
    """Types of the whole chain, the function that failed, and no text but that of our own error."""
    configure(log_format, service="test")
    try:
        fail()
    except DatabaseUnavailable:
        if is_library:
            logging.getLogger("some.library").exception("it broke")
        else:
            get_logger().exception("it broke")
    told = capsys.readouterr().err
    assert CANARY not in told
    assert "Logging error" not in told
    for words in ("it broke", "strongroom.errors.DatabaseUnavailable", "words of our own", " in fail"):
        assert words in told
    for name in ("ExceptionGroup", "KeyError", "ValueError"):
        assert f"builtins.{name}" in told
    assert told.index("DatabaseUnavailable") < told.index("ExceptionGroup")


def test_an_exception_in_a_json_line_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    """The line stays one line, and its exception a list from the latest to the first."""
    configure("json", service="test")
    try:
        int(CANARY)
    except ValueError:
        get_logger().critical("it broke", exc_info=True)
    (line,) = capsys.readouterr().err.splitlines()
    (told,) = json.loads(line)["exception"]
    assert told.keys() == {"type", "places"}
    assert told["type"] == "builtins.ValueError"
