"""Logging: one line a message, JSON unless a person is looking, and only fields on a list get through."""

import logging
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from hashlib import sha256
from typing import Any, Final, Literal

import structlog

from strongroom.errors import StrongroomError

# Allow-list: ids, codes, counts, times and sentences written for operators. Anything else is left out,
# so that a new field cannot carry a secret by accident.
FIELDS_SHOWN: Final = frozenset(
    [
        "attempt",
        "authority",
        "backlog",
        "code",
        "count",
        "delay_seconds",
        "digest",
        "duration_ms",
        "event",
        "exception",
        "hint",
        "index",
        "kid",
        "kind",
        "level",
        "log",
        "logger",
        "message_id",
        "oldest_at",
        "outcome",
        "principal",
        "queue",
        "rate",
        "reason",
        "record",
        "records",
        "refused",
        "repeats",
        "request",
        "requester",
        "roster_version",
        "service",
        "stored",
        "timestamp",
        "tree_size",
        "unprovable",
        "version",
    ]
)


def _allow_listed(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in [name for name in event if name not in FIELDS_SHOWN]:
        event[name] = "<not shown>"
    for name, value in event.items():
        if isinstance(value, bytes | bytearray | memoryview):
            event[name] = f"sha256:{sha256(value).hexdigest()[:8]}"
    return event


def _told(error: BaseException) -> list[dict[str, Any]]:
    """Say type and place of an exception and of what led to it, the latest first.

    Only our own errors' messages are written without secrets; any other text may quote what was handled.
    """
    chain: list[dict[str, Any]] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        kind = type(current)
        told: dict[str, Any] = {"type": f"{kind.__module__}.{kind.__qualname__}"}
        if isinstance(current, StrongroomError):
            told["message"] = current.message
        told["places"] = [
            f"{frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"
            for frame, line in traceback.walk_tb(current.__traceback__)
        ]
        if isinstance(current, BaseExceptionGroup):
            told["group"] = [_told(each) for each in current.exceptions]
        chain.append(told)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return chain


def _lines(chain: list[dict[str, Any]], indent: str = "") -> Iterator[str]:
    for told in chain:
        yield f"{indent}{told['type']}: {told['message']}" if "message" in told else f"{indent}{told['type']}"
        yield from (f"{indent}  {place}" for place in told["places"])
        for each in told.get("group", ()):
            yield from _lines(each, indent + "    ")


def _for_programs(exc_info: structlog.typing.ExcInfo) -> list[dict[str, Any]]:
    return _told(exc_info[1])


def _for_people(exc_info: structlog.typing.ExcInfo) -> str:
    return "\n".join(_lines(_told(exc_info[1])))


def configure(log_format: Literal["auto", "json", "console"] = "auto", *, service: str) -> None:
    """Set logging up for this process: unbuffered lines on standard error.

    Arguments: `auto` means for people on a terminal and JSON elsewhere; `service` is bound to every line.
    Exceptions are shown by type and place, without local variables, and with their message only if they are
    StrongroomErrors. Libraries log warnings and above.
    """
    people = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(_for_people if people else _for_programs),
        _allow_listed,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if people
        else structlog.processors.JSONRenderer(default=repr)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("strongroom").setLevel(logging.INFO)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)


def get_logger() -> structlog.stdlib.BoundLogger:
    """Return the logger of Strongroom's own lines."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger("strongroom")
    return logger
