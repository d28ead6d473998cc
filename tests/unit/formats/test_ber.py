"""ASN.1: DER and the indefinite lengths of BER, nothing else, with bounds that hold."""

import pytest
from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cms import streamed, tlv

from strongroom.errors import LimitExceeded, MalformedStatement
from strongroom.formats.ber import (
    ASN1_DEPTH_MAX,
    Element,
    Fields,
    Tag,
    context,
    context_constructed,
    integer,
    object_identifier,
    read,
)

UNTIMED = settings(deadline=None)  # a busy machine is no failure
EMPTY = b"\x30\x00"


def refused(data: bytes, words: str, *, allow_streamed: bool = False) -> None:
    with pytest.raises(MalformedStatement, match=words):
        read(data, streamed=allow_streamed)


def element(tag: int, content: bytes) -> Element:
    return read(tlv(tag, content))


def nested(depth: int, *, indefinite: bool) -> bytes:
    data = b"\x05\x00"
    for _ in range(depth - 1):
        data = streamed(0x30, data) if indefinite else tlv(0x30, data)
    return data


@st.composite
def trees(draw: st.DrawFn) -> bytes:
    """Well-formed elements, of definite and indefinite length."""
    leaf = st.builds(tlv, st.sampled_from([2, 4, 5, 6, 0x80]), st.binary(max_size=300))
    whole = st.recursive(
        leaf,
        lambda inner: st.builds(
            lambda form, tag, parts: form(tag, *parts),
            st.sampled_from([tlv, streamed]),
            st.sampled_from([0x30, 0x31, 0xA0]),
            st.lists(inner, max_size=4),
        ),
        max_leaves=8,
    )
    return draw(whole)


def as_der(found: Element) -> bytes:
    if not found.tag & 0x20:
        return tlv(found.tag, found.content)
    return tlv(found.tag, *(as_der(child) for child in found.children))


@UNTIMED
@given(trees())
def test_every_well_formed_element_is_read_whole(data: bytes) -> None:
    """Each child lies in its parent's content, in order and without a gap; DER of the tree reads the same."""
    try:
        root = read(data, streamed=True)
    except LimitExceeded:
        return
    assert root.encoded == data
    waiting = [root]
    while waiting:
        found = waiting.pop()
        if found.tag & 0x20:
            assert b"".join(child.encoded for child in found.children) == found.content
        waiting.extend(found.children)
    assert as_der(read(as_der(root))) == as_der(root)


@UNTIMED
@given(trees(), st.data())
def test_what_is_cut_short_or_goes_on_is_refused(data: bytes, draw: st.DataObject) -> None:
    """At every place, and with anything behind it."""
    cut = draw.draw(st.integers(0, len(data) - 1))
    for wrong in (data[:cut], data + draw.draw(st.binary(min_size=1, max_size=4))):
        with pytest.raises((MalformedStatement, LimitExceeded)):
            read(wrong, streamed=True)


@UNTIMED
@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_make_the_reader_fail_otherwise(data: bytes, allow: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever is read has every byte accounted for; whatever is not is refused with one of two errors."""
    try:
        assert read(data, streamed=allow).encoded == data
    except (MalformedStatement, LimitExceeded):
        return


@asn1.sequence
class _Numbers:
    first: int
    second: bytes


@UNTIMED
@given(st.integers(-(2**70), 2**70), st.binary(max_size=300), st.data())
def test_another_reader_agrees_on_what_is_der(number: int, octets: bytes, draw: st.DataObject) -> None:
    """With a byte changed, both read the same numbers, or both refuse them."""
    data = bytearray(asn1.encode_der(_Numbers(first=number, second=octets)))
    if draw.draw(st.booleans()):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    try:
        theirs = asn1.decode_der(_Numbers, bytes(data))
        expected = (theirs.first, theirs.second)
    except ValueError:
        expected = None
    try:
        fields = Fields(read(bytes(data)), "numbers")
        found = (integer(fields.take_any("first"), "first"), fields.take(Tag.OCTET_STRING, "second").content)
        fields.end()
    except (MalformedStatement, LimitExceeded):
        assert expected is None
    else:
        assert found == expected


@pytest.mark.parametrize("indefinite", [False, True])
def test_nesting_is_read_to_its_limit_and_no_deeper(indefinite: bool) -> None:  # noqa: FBT001 - a parameter
    """The outermost element is the first level."""
    assert read(nested(ASN1_DEPTH_MAX, indefinite=indefinite), streamed=True).children
    with pytest.raises(LimitExceeded, match=r"^ASN.1: is nested deeper than ASN1_DEPTH_MAX, 16 levels$"):
        read(nested(ASN1_DEPTH_MAX + 1, indefinite=indefinite), streamed=True)


def test_endless_nesting_is_refused_before_anything_else() -> None:
    """Neither the stack nor the memory grows with it."""
    with pytest.raises(LimitExceeded, match="ASN1_DEPTH_MAX"):
        read(b"\x30\x80" * 32_768, streamed=True)


def test_an_indefinite_length_is_read_only_where_it_is_allowed() -> None:
    """Key files are DER."""
    data = streamed(0x30, EMPTY)
    assert read(data, streamed=True).children[0].encoded == EMPTY
    refused(data, "^ASN.1: element at byte 0: has an indefinite length, which DER does not know$")


def test_the_content_of_an_indefinite_length_ends_before_its_end_mark() -> None:
    """The element itself has it."""
    found = read(streamed(0x30, EMPTY, streamed(0xA0)), streamed=True)
    assert found.content == EMPTY + b"\xa0\x80\0\0"
    assert found.encoded == b"\x30\x80" + EMPTY + b"\xa0\x80\0\0" + b"\0\0"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "byte 0: ends within an element"),
        (b"\x30", "byte 0: ends within an element"),
        (b"\x04\x80\x00\x00", "is not constructed"),
        (b"\x30\x80", "byte 2: ends within"),
        (b"\x30\x80\x00", "byte 2: ends within"),
        (b"\x30\x02\x00\x00", "end-of-contents octets where no"),
        (b"\x00\x00", "end-of-contents octets where no"),
        (b"\x3f\x81\x01\x00", "tag number above 30"),
        (b"\x04\x81\x7f" + bytes(127), "fewest bytes"),
        (b"\x04\x82\x00\xff" + bytes(255), "fewest bytes"),
        (b"\x04\x85\x01\x00\x00\x00\x00", "longer than the data"),
        (b"\x04\xff" + bytes(200), "longer than the data"),
        (b"\x04\x84\xff\xff\xff\xff", "goes beyond what it lies in"),
        (b"\x04\x82\x01", "longer than the data"),
        (b"\x30\x03\x04\x02\x00\x00", "goes beyond what it lies in|follow the end"),
        (b"\x30\x02\x04\x01\x00", "goes beyond what it lies in"),
        (b"\x30\x03\x04\x02\x00", "goes beyond what it lies in"),
        (b"\x30\x80\x04\x05\x00\x00", "goes beyond what it lies in"),
        (b"\x05\x00\x00", "^ASN.1: 1 bytes follow the end of the outermost element$"),
    ],
)
def test_what_is_misshapen_is_refused_and_told_where(data: bytes, words: str) -> None:
    """Lengths that lie, marks that are missing or misplaced, what follows."""
    refused(data, words, allow_streamed=True)


def test_what_is_refused_is_not_quoted() -> None:
    """Neither by the error nor by the repr of an element."""
    with pytest.raises(MalformedStatement) as caught:
        read(b"\x04\x7fsecret")
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(element(0x04, b"secret"))


# ---- fields ------------------------------------------------------------------------------------


def test_fields_are_taken_in_their_order() -> None:
    """What is optional may be missing; nothing may be left."""
    fields = Fields(read(tlv(0x30, tlv(2, b"\1"), tlv(0xA0), tlv(4, b"x"))), "whole")
    assert fields.take_if(context_constructed(0)) is None
    assert fields.take(Tag.INTEGER, "first").content == b"\1"
    assert fields.take_if(context_constructed(0)) is not None
    with pytest.raises(MalformedStatement, match=r"^whole: OCTET STRING follows the last field$"):
        fields.end()
    assert fields.take_any("last").content == b"x"
    assert fields.take_if(Tag.OCTET_STRING) is None
    fields.end()


def test_a_field_that_is_missing_or_another_is_named() -> None:
    """With the name of the whole."""
    fields = Fields(read(tlv(0x30, tlv(context(3), b"x"), tlv(0x0C, b"text"))), "whole")
    with pytest.raises(MalformedStatement, match=r"^whole: first: is \[3\], must be INTEGER$"):
        fields.take(Tag.INTEGER, "first")
    with pytest.raises(MalformedStatement, match=r"^whole: next: is an element with tag 0x0c, must be SET$"):
        fields.take(Tag.SET, "next")
    with pytest.raises(MalformedStatement, match=r"^whole: last: is missing$"):
        fields.take(Tag.SET, "last")
    with pytest.raises(MalformedStatement, match=r"^whole: is \[1\] \(constructed\), must be SEQUENCE$"):
        Fields(read(tlv(context_constructed(1))), "whole")


# ---- integers and object identifiers -----------------------------------------------------------


@UNTIMED
@given(st.integers(-(2**511), 2**511 - 1))
def test_every_integer_is_read(value: int) -> None:
    """Of at most 64 bytes, of either sign."""
    assert integer(read(asn1.encode_der(value)), "n") == value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "of 0 bytes"),
        (bytes(65), "of 65 bytes"),
        (b"\x00\x7f", "fewest bytes"),
        (b"\xff\x80", "fewest bytes"),
        (b"\x00\x00", "fewest bytes"),
    ],
)
def test_an_integer_must_be_as_short_as_it_can_be(content: bytes, words: str) -> None:
    """And not longer than 64 bytes."""
    with pytest.raises(MalformedStatement, match=f"^n: is an integer .*{words}"):
        integer(element(Tag.INTEGER, content), "n")
    with pytest.raises(MalformedStatement, match=r"^n: is OCTET STRING, must be INTEGER$"):
        integer(element(Tag.OCTET_STRING, b"\1"), "n")


@UNTIMED
@given(st.integers(0, 2), st.lists(st.integers(0, 2**60), min_size=1, max_size=6))
def test_every_object_identifier_is_read(root: int, arcs: list[int]) -> None:
    """As dotted text."""
    dotted = ".".join(map(str, (root, arcs[0] % 40, *arcs[1:])))
    assert object_identifier(read(asn1.encode_der(ObjectIdentifier(dotted))), "id") == dotted


@pytest.mark.parametrize("content", [b"", b"\x80\x01", b"\x2a\x86", b"\x2a\x80\x01", b"\x2a" + b"\xff" * 9 + b"\1"])
def test_a_misshapen_object_identifier_is_refused(content: bytes) -> None:
    """Empty, padded, cut short, or with an arc that no registry has."""
    with pytest.raises(MalformedStatement, match=r"^id: is a misshapen object identifier$"):
        object_identifier(element(Tag.OBJECT_IDENTIFIER, content), "id")
    with pytest.raises(MalformedStatement, match=r"^id: is NULL, must be an object identifier$"):
        object_identifier(element(Tag.NULL, b""), "id")


def test_the_arcs_below_2_have_no_end() -> None:
    """2.999 is the registry's example."""
    assert object_identifier(element(Tag.OBJECT_IDENTIFIER, b"\x88\x37"), "id") == "2.999"
    with pytest.raises(MalformedStatement):
        object_identifier(element(Tag.OBJECT_IDENTIFIER, b"\x2a" * 65), "id")
