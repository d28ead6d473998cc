"""Lenient decoding: deformed properties become harmless values, and exactly their bytes are consumed."""

import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import decode, encode
from pamqp.header import ContentHeader
from tests.support.amqp import entry, long

from strongroom.amqp_decoding import TABLE_BYTES_MAX, UNDECODABLE_HEADER, decode_leniently

REST = b"what follows"


@pytest.fixture(autouse=True)
def _lenient() -> Iterator[None]:
    original, unmarshal = dict(decode.METHODS), ContentHeader.unmarshal
    decode_leniently()
    yield
    decode.METHODS.update(original)
    ContentHeader.unmarshal = unmarshal  # type: ignore[method-assign]


def deep_table(levels: int) -> bytes:
    """A table within a table, and so on."""
    table = b""
    for _ in range(levels):
        table = entry(b"a", b"F", long(table))
    return long(table)


def test_decoding_twice_leniently_is_decoding_leniently() -> None:
    """A second call must not wrap the wrappers."""
    once = dict(decode.METHODS)
    decode_leniently()
    twice = dict(decode.METHODS)
    assert once == twice


@given(st.binary(max_size=255))
def test_short_strings_consume_their_length_whatever_they_hold(value: bytes) -> None:
    """Any bytes decode to text that can be encoded again, and the next field begins where it should."""
    consumed, text = decode.by_type(bytes([len(value)]) + value + REST, "shortstr")
    assert consumed == 1 + len(value)
    assert isinstance(text, str)
    text.encode()


@given(st.text(max_size=60))
def test_proper_text_is_left_alone(text: str) -> None:
    """What is UTF-8 decodes as ever."""
    assert decode.by_type(encode.short_string(text), "shortstr") == (1 + len(text.encode()), text)


def test_bytes_that_are_no_text_are_shown_as_escapes() -> None:
    """The harmless value shows what was there."""
    assert decode.by_type(b"\x03a\xff\xfe", "shortstr") == (4, r"a\xff\xfe")


@given(st.binary(min_size=8, max_size=8))
def test_timestamps_consume_eight_bytes_whatever_they_hold(value: bytes) -> None:
    """Any eight bytes decode, to a time or to None."""
    assert decode.by_type(value + REST, "timestamp")[0] == 8


@pytest.mark.parametrize("seconds", [2**64 - 1, 2**62, 253_402_300_800_000])
def test_a_time_beyond_the_calendar_is_none(seconds: int) -> None:
    """Years that Python has no date for become None."""
    assert decode.by_type(struct.pack(">Q", seconds), "timestamp") == (8, None)


@given(st.binary(max_size=400))
def test_tables_consume_their_length_whatever_they_hold(content: bytes) -> None:
    """Arbitrary bytes as a table either decode or become the one key that says they did not."""
    consumed, table = decode.by_type(long(content) + REST, "table")
    assert consumed == 4 + len(content)
    assert isinstance(table, dict)


@pytest.mark.parametrize(
    "table",
    [
        long(entry(b"\xff\xfe", b"V")),
        long(entry(b"a", b"T", b"\xff" * 8)),
        long(entry(b"a", b"Z")),
        long(entry(b"a", b"F", long(entry(b"\xff", b"V")))),
        deep_table(1_500),
    ],
    ids=["key not text", "bad time", "unknown type", "bad key inside", "too deep"],
)
def test_an_undecodable_table_becomes_one_key_that_says_so(table: bytes) -> None:
    """The consumer sees that there were headers, and not what was wrong with the sender's mind."""
    assert len(table) <= 4 + TABLE_BYTES_MAX
    consumed, headers = decode.by_type(table + REST, "table")
    assert consumed == len(table)
    assert isinstance(headers, dict)
    assert list(headers) == [UNDECODABLE_HEADER]


def test_a_table_up_to_the_limit_is_decoded_and_one_beyond_is_not() -> None:
    """The edge of TABLE_BYTES_MAX."""
    overhead = len(entry(b"a", b"S", long(b"")))
    fits = long(entry(b"a", b"S", long(b"x" * (TABLE_BYTES_MAX - overhead))))
    beyond = long(entry(b"a", b"S", long(b"x" * (TABLE_BYTES_MAX - overhead + 1))))
    assert decode.by_type(fits, "table") == (len(fits), {"a": "x" * (TABLE_BYTES_MAX - overhead)})
    consumed, headers = decode.by_type(beyond, "table")
    assert consumed == len(beyond)
    assert headers == {UNDECODABLE_HEADER: f"a table of {TABLE_BYTES_MAX + 1} bytes"}


@given(st.binary(min_size=12, max_size=200))
def test_no_content_header_is_an_error(data: bytes) -> None:
    """Whatever stands in the frame, the reader gets a header; the frame's length keeps the rest in step."""
    ContentHeader().unmarshal(data)


def test_a_content_header_that_cannot_be_read_keeps_its_body_size() -> None:
    """The size stands in front of what went wrong, and the properties say that they are not the sender's."""
    header = ContentHeader()
    header.unmarshal(struct.pack(">HHQH", 60, 0, 17, 0x0001))
    assert header.body_size == 17
    assert list(header.properties.headers or {}) == [UNDECODABLE_HEADER]


def test_a_content_header_without_a_body_size_is_an_error() -> None:
    """Fewer bytes than the fixed part are no message; nothing sensible can follow."""
    with pytest.raises(struct.error):
        ContentHeader().unmarshal(bytes(11))
