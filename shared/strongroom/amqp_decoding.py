"""Reading AMQP properties that no honest program sends, without losing the connection.

RabbitMQ checks the framing of a message and little else. It accepts a `correlation_id` that is not UTF-8, a
timestamp in the year 500,000,000 and header tables nested a thousand deep, and hands them to whoever consumes the
queue. The driver decodes properties inside its one reader task: there such a value is an exception, the connection
dies with everything that was in flight on it, the broker redelivers, and the next consumer dies in the same way.
One hostile or broken sender stops the queue for everybody.

Strongroom believes nothing in the properties (SPEC 8.2), so their content may be replaced by something harmless as
long as exactly their bytes are consumed. `pamqp` looks its decoders up by type name in the public table
`pamqp.decode.METHODS`; three entries of it are replaced here. Should anything else in a content header fail, the
whole header counts as empty: it comes in a frame of its own, so nothing after it is misread. Both act on every user
of pamqp in the process, which is why they happen when a connection is opened and not on import.
"""

from typing import Final

from pamqp import decode
from pamqp.commands import Basic
from pamqp.common import FieldTable, FieldValue
from pamqp.header import ContentHeader

TABLE_BYTES_MAX: Final = 16_384
"""Larger header tables are not decoded: pamqp copies the rest of the table for each entry, and a 128 KiB
table of tiny entries costs most of a second of the event loop. Our own headers and RabbitMQ's `x-death` need
a few hundred bytes."""

UNDECODABLE_HEADER: Final = "x-strongroom-undecodable"
"""The only key of a header table that could not be decoded; its value says why."""

_TIMESTAMP_BYTES = 8
_LENGTH_BYTES = 4
_FIXED_HEADER_BYTES = 12
_DECODING_ERRORS = (ValueError, ArithmeticError, OSError, RecursionError)
_unmarshal_header = ContentHeader.unmarshal


def decode_leniently() -> None:
    r"""Let deformed properties decode to harmless values in this process; calling it again changes nothing.

    A short string that is not UTF-8 becomes text with `\xNN` for the offending bytes, which can be logged, encoded
    and stored like any other (surrogate escapes could not); a timestamp out of range becomes None; a header table
    that does not decode, or exceeds `TABLE_BYTES_MAX`, becomes a table with the one key `UNDECODABLE_HEADER`, and
    so do all properties of a message when anything else in them fails.
    """
    decode.METHODS["shortstr"] = _short_string
    decode.METHODS["timestamp"] = _timestamp
    decode.METHODS["table"] = _table
    ContentHeader.unmarshal = _content_header  # type: ignore[method-assign, assignment]


def _short_string(value: bytes) -> tuple[int, str]:
    try:
        return decode.short_str(value)
    except UnicodeDecodeError:
        length = value[0]
        return 1 + length, value[1 : 1 + length].decode("utf-8", "backslashreplace")


def _timestamp(value: bytes) -> tuple[int, FieldValue]:
    try:
        return decode.timestamp(value)
    except _DECODING_ERRORS:
        return _TIMESTAMP_BYTES, None


def _table(value: bytes) -> tuple[int, FieldTable]:
    length = int.from_bytes(value[:_LENGTH_BYTES], "big")
    if length > TABLE_BYTES_MAX:
        return _LENGTH_BYTES + length, {UNDECODABLE_HEADER: f"a table of {length} bytes"}
    try:
        return decode.field_table(value)
    except _DECODING_ERRORS as error:
        return _LENGTH_BYTES + length, {UNDECODABLE_HEADER: type(error).__name__}


def _content_header(header: ContentHeader, data: bytes) -> None:
    try:
        _unmarshal_header(header, data)
    except Exception as error:  # whatever it is, it must not reach the reader
        if len(data) < _FIXED_HEADER_BYTES:
            raise
        header.properties = Basic.Properties(headers={UNDECODABLE_HEADER: type(error).__name__})
