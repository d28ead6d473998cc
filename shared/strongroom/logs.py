"""Logging: one line a message, JSON unless a person is looking, and only fields on a list get through."""

import logging
import sys
from collections.abc import MutableMapping
from hashlib import sha256
from typing import Any, Final, Literal

import structlog

# Allow-list: ids, codes, counts, times and sentences written for operators. Anything else is left out,
# so that a new field cannot carry a secret by accident.
FIELDS_SHOWN: Final = frozenset(
    [
        "attempt",
        "authority",
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
        "outcome",
        "principal",
        "queue",
        "reason",
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


def configure(log_format: Literal["auto", "json", "console"] = "auto", *, service: str) -> None:
    """Set logging up for this process: unbuffered lines on standard error.

    Arguments: `auto` means for people on a terminal and JSON elsewhere; `service` is bound to every line.
    Exceptions are shown by type and place, without local variables. Libraries log warnings and above.
    """
    people = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(tracebacks),
        _allow_listed,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if people else structlog.processors.JSONRenderer(default=repr)
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
