import base64
import copy
import dataclasses
import hmac
import io
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError
from rich.console import Console
from rich.pretty import pretty_repr
from rich.traceback import Traceback

from strongroom.crypto.secret import Secret

CANARY = b"canary-5e0f-do-not-show"
MASK = "<Secret: 23 bytes>"


class Holder(BaseModel):
    """A model with a Secret in it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    secret: Secret


@dataclasses.dataclass
class Record:
    """A dataclass with a Secret in it."""

    secret: Secret


def assert_hidden(text: str) -> None:
    """Fail when the canary stands in the text in any usual notation."""
    notations = (
        CANARY.decode(),
        CANARY.hex(),
        base64.b64encode(CANARY).decode().rstrip("="),
        ", ".join(str(byte) for byte in CANARY[:4]),
    )
    for notation in notations:
        assert notation not in text


def raised_with_locals() -> BaseException:
    """Give an exception whose frame and arguments hold a Secret."""

    def fail(secret: Secret) -> None:
        held = [secret, {"key": secret}]
        raise RuntimeError(secret, held)

    try:
        fail(Secret(CANARY))
    except RuntimeError as error:
        return error
    raise AssertionError


def log_line() -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    record = logging.LogRecord("test", logging.INFO, "", 0, "%s %r", (Secret(CANARY), Secret(CANARY)), None)
    handler.emit(record)
    return stream.getvalue()


def rich_traceback() -> str:
    error = raised_with_locals()
    shown = Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True)
    console = Console(file=io.StringIO(), record=True, width=200)
    console.print(shown)
    return console.export_text()


def structlog_traceback() -> str:
    error = raised_with_locals()
    exc_info = (type(error), error, error.__traceback__)
    return json.dumps(structlog.processors.dict_tracebacks(None, "error", {"exc_info": exc_info}))


def captured_traceback() -> str:
    return "".join(traceback.TracebackException.from_exception(raised_with_locals(), capture_locals=True).format())


def pickled_with(protocol: int) -> Callable[[Secret], object]:
    return lambda secret: pickle.dumps(secret, protocol)


SHOWN: dict[str, Callable[[Secret], str]] = {
    "repr": repr,
    "str": str,
    "f-string": lambda secret: f"{secret}",
    "format specification": lambda secret: f"{secret:>99s}",
    "format of another type": lambda secret: f"{secret:x}",
    "conversion": lambda secret: f"{secret!r} {secret!s} {secret!a}",
    "percent": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - this notation is under test
    "list": lambda secret: repr([secret, (secret,), {"key": secret}]),
    "dataclass": lambda secret: repr(Record(secret)),
    "model": lambda secret: repr(Holder(secret=secret)),
    "model as a dict": lambda secret: repr(Holder(secret=secret).model_dump()),
    "model through a fallback": lambda secret: Holder(secret=secret).model_dump_json(fallback=str),
    "json through a fallback": lambda secret: json.dumps(secret, default=repr),
    "rich": lambda secret: pretty_repr({"key": secret}),
    "exception": lambda secret: repr(ValueError(secret)) + str(ValueError(secret)),
    "log line": lambda _: log_line(),
    "traceback with locals": lambda _: captured_traceback(),
    "traceback of rich with locals": lambda _: rich_traceback(),
    "traceback of structlog with locals": lambda _: structlog_traceback(),
}

REFUSED: dict[str, Callable[[Secret], object]] = {
    **{f"pickle protocol {number}": pickled_with(number) for number in range(pickle.HIGHEST_PROTOCOL + 1)},
    "pickle inside a list": lambda secret: pickle.dumps([secret]),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "deepcopy inside a dict": lambda secret: copy.deepcopy({"key": secret}),
    "dataclasses.asdict": lambda secret: dataclasses.asdict(Record(secret)),
    "state": lambda secret: secret.__getstate__(),
    "vars": vars,
    "json": json.dumps,
    "json through vars": lambda secret: json.dumps(secret, default=vars),
    "bytes": bytes,  # type: ignore[dict-item]
    "iteration": list,  # type: ignore[dict-item]
    "index": lambda secret: secret[0],  # type: ignore[index]
    "memoryview": memoryview,  # type: ignore[dict-item]
    "hash": hash,
    "set": lambda secret: {secret},
    "pydantic model": lambda secret: Holder(secret=secret).model_dump_json(),
    "pydantic model as JSON values": lambda secret: Holder(secret=secret).model_dump(mode="json"),
    "pydantic without a type": lambda secret: TypeAdapter(Any).dump_json(secret),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
def test_a_secret_is_shown_by_its_length_only(show: Callable[[Secret], str]) -> None:
    """Whatever turns a Secret into text gives the mask and no byte of it."""
    shown = show(Secret(CANARY))
    assert MASK in shown
    assert_hidden(shown)


@pytest.mark.parametrize("leak", REFUSED.values(), ids=REFUSED)
def test_a_secret_cannot_be_serialised_or_copied(leak: Callable[[Secret], object]) -> None:
    """Pickle, copy, JSON and pydantic refuse a Secret, and their error does not show it."""
    with pytest.raises((TypeError, PydanticSerializationError)) as caught:
        leak(Secret(CANARY))
    assert_hidden(f"{caught.value!r} {caught.value}")


def test_a_validation_error_about_a_secret_hides_it() -> None:
    """Pydantic prints rejected input; a Secret in the wrong field stays masked."""

    class Count(BaseModel):
        count: int

    with pytest.raises(ValidationError) as caught:
        Count.model_validate({"count": Secret(CANARY)})
    assert_hidden(f"{caught.value} {caught.value!r} {caught.value.errors()}")


def test_expose_gives_the_bytes_back() -> None:
    """The one way out gives exactly what went in, and the length is open."""
    secret = Secret(CANARY)
    assert secret.expose() == CANARY
    assert len(secret) == len(CANARY)
    assert not Secret(b"")


@pytest.mark.parametrize("value", [bytearray(b"abc"), memoryview(b"abc"), memoryview(b"a-b-c")[::2]])
def test_a_secret_takes_any_buffer_of_bytes(value: bytearray | memoryview) -> None:
    """Bytes come in from mutable and strided buffers too."""
    assert Secret(value).expose() == b"abc"


def test_a_secret_keeps_its_own_copy() -> None:
    """Changing the buffer that it was made from does not change the Secret."""
    buffer = bytearray(b"abc")
    secret = Secret(buffer)
    buffer[0] = 0
    assert secret.expose() == b"abc"


@pytest.mark.parametrize("value", [5, "text", None, [1, 2], Secret(b"x")])
def test_a_secret_is_made_of_bytes_only(value: object) -> None:
    """A number does not become as many zero bytes, nor a list its numbers."""
    with pytest.raises(TypeError):
        Secret(value)  # type: ignore[arg-type]


def test_equality_is_of_content() -> None:
    """Equal bytes are equal; other bytes, another length, and bare bytes are not."""
    assert Secret(b"abc") == Secret(b"abc")
    assert Secret(b"abc") != Secret(b"abd")
    assert Secret(b"abc") != Secret(b"ab")
    assert Secret(b"abc") != b"abc"


def test_equality_takes_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is left to hmac.compare_digest, whose time does not depend on the content."""
    compared: list[tuple[bytes, bytes]] = []

    def watched(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return True

    monkeypatch.setattr(hmac, "compare_digest", watched)
    assert Secret(b"abc") == Secret(b"xyz")
    assert compared == [(b"abc", b"xyz")]
