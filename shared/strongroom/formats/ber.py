"""ASN.1 as messages and key files hold it: DER, and the one liberty of BER that streaming encoders take.

Lengths are definite and as short as they can be, as DER has them. Where it is allowed, a constructed element may
have an indefinite length instead: so CMS is written by `openssl cms -stream`, by NSS (volume_key) and by macOS.
Nothing is decompressed, and nesting is bounded, so reading takes time and memory in proportion to the input.
What is wrong is a MalformedStatement or a LimitExceeded that names the place and quotes nothing.
Source: ITU-T X.690 (2021), sections 8 and 10.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from strongroom.errors import LimitExceeded, MalformedStatement

ASN1_DEPTH_MAX: Final = 16

_CONSTRUCTED: Final = 0x20
_TAG_NUMBER: Final = 0x1F
_LONG_FORM: Final = 0x80
_LENGTH_BYTES_MAX: Final = 4
_END_OF_CONTENTS: Final = b"\0\0"
_INTEGER_BYTES_MAX: Final = 64
_ARC_BYTES_MAX: Final = 9
_ROOT_ARCS: Final = 40


class Tag(IntEnum):
    """The identifier octets of the universal types that occur; `context` and `context_constructed` give others."""

    INTEGER = 0x02
    OCTET_STRING = 0x04
    NULL = 0x05
    OBJECT_IDENTIFIER = 0x06
    SEQUENCE = 0x30
    SET = 0x31


def context(number: int) -> int:
    """Give the identifier octet of a primitive element with a context-specific tag of 0 to 30."""
    return 0x80 | number


def context_constructed(number: int) -> int:
    """Give the identifier octet of a constructed element with a context-specific tag of 0 to 30."""
    return 0xA0 | number


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its identifier octet, all its bytes, its content, and the elements in it if it is constructed.

    `content` of an element of indefinite length ends before the end-of-contents octets.
    """

    tag: int
    encoded: bytes = field(repr=False)
    content: bytes = field(repr=False)
    children: tuple["Element", ...] = field(repr=False)


def read(data: bytes, *, streamed: bool = False) -> Element:
    """Read exactly one element and everything in it.

    Arguments: `streamed` allows indefinite lengths. The caller bounds the length of `data`. Raises LimitExceeded
    for nesting deeper than ASN1_DEPTH_MAX.
    """
    element, end = _element(data, 0, len(data), 1, streamed=streamed)
    if end != len(data):
        raise MalformedStatement(f"ASN.1: {len(data) - end} bytes follow the end of the outermost element")
    return element


def _element(data: bytes, start: int, limit: int, depth: int, *, streamed: bool) -> tuple[Element, int]:
    if depth > ASN1_DEPTH_MAX:
        raise LimitExceeded(f"ASN.1: is nested deeper than ASN1_DEPTH_MAX, {ASN1_DEPTH_MAX} levels")
    if limit - start < len(_END_OF_CONTENTS):
        raise _malformed(start, "ends within an element")
    tag = data[start]
    if tag & _TAG_NUMBER == _TAG_NUMBER:
        raise _malformed(start, "has a tag number above 30, which no format here uses")
    if tag == 0:
        raise _malformed(start, "has end-of-contents octets where no indefinite length is open")
    body, length = _length(data, start, limit)
    constructed = bool(tag & _CONSTRUCTED)
    if length is None:
        if not streamed:
            raise _malformed(start, "has an indefinite length, which DER does not know")
        if not constructed:
            raise _malformed(start, "has an indefinite length and is not constructed")
    end = limit if length is None else body + length
    children: list[Element] = []
    position = body
    while constructed and (position < end or length is None):
        if length is None and data[position : min(position + 2, limit)] == _END_OF_CONTENTS:
            end = position
            break
        child, position = _element(data, position, end, depth + 1, streamed=streamed)
        children.append(child)
    after = end + len(_END_OF_CONTENTS) if length is None else end
    return Element(tag, data[start:after], data[body:end], tuple(children)), after


def _length(data: bytes, start: int, limit: int) -> tuple[int, int | None]:
    """Give where the content begins, and its length; None for an indefinite one."""
    first, body = data[start + 1], start + 2
    if first == _LONG_FORM:
        return body, None
    length = first
    if first > _LONG_FORM:
        size = first - _LONG_FORM
        if size > _LENGTH_BYTES_MAX or size > limit - body:
            raise _malformed(start, "has a length that is longer than the data")
        length = int.from_bytes(data[body : body + size], "big")
        body += size
        if length < _LONG_FORM or length < 1 << 8 * (size - 1):
            raise _malformed(start, "has a length that is not written in the fewest bytes")
    if length > limit - body:
        raise _malformed(start, "has a length that goes beyond what it lies in")
    return body, length


def _malformed(start: int, wrong: str) -> MalformedStatement:
    return MalformedStatement(f"ASN.1: element at byte {start}: {wrong}")


class Fields:
    """The elements within a constructed one, taken in their order; `name` is what messages call the whole."""

    def __init__(self, element: Element, name: str, tag: int = Tag.SEQUENCE) -> None:
        """Begin at the first; MalformedStatement for an element of another tag than `tag`."""
        if element.tag != tag:
            raise MalformedStatement(f"{name}: is {_tag_name(element.tag)}, must be {_tag_name(tag)}")
        self._name = name
        self._left: Iterator[Element] = iter(element.children)
        self._next = next(self._left, None)

    def take(self, tag: int, name: str) -> Element:
        """Take the next element; MalformedStatement naming the field when there is none, or another."""
        found = self.take_any(name)
        if found.tag != tag:
            raise MalformedStatement(f"{self._name}: {name}: is {_tag_name(found.tag)}, must be {_tag_name(tag)}")
        return found

    def take_any(self, name: str) -> Element:
        """Take the next element, whatever its tag; MalformedStatement naming the field when there is none."""
        found = self._next
        if found is None:
            raise MalformedStatement(f"{self._name}: {name}: is missing")
        self._next = next(self._left, None)
        return found

    def take_if(self, tag: int) -> Element | None:
        """Take the next element if it has this tag, for what is optional."""
        return self.take_any("") if self._next is not None and self._next.tag == tag else None

    def end(self) -> None:
        """Refuse with MalformedStatement what has not been taken."""
        if self._next is not None:
            raise MalformedStatement(f"{self._name}: {_tag_name(self._next.tag)} follows the last field")


def integer(element: Element, name: str) -> int:
    """Give the value of an INTEGER of at most 64 bytes; MalformedStatement for one not in the fewest bytes."""
    content = element.content
    if element.tag != Tag.INTEGER:
        raise MalformedStatement(f"{name}: is {_tag_name(element.tag)}, must be {_tag_name(Tag.INTEGER)}")
    if not 1 <= len(content) <= _INTEGER_BYTES_MAX:
        raise MalformedStatement(f"{name}: is an integer of {len(content)} bytes, must have 1 to 64")
    value = int.from_bytes(content, "big", signed=True)
    if len(content) > 1 and -(1 << 8 * len(content) - 9) <= value < 1 << 8 * len(content) - 9:
        raise MalformedStatement(f"{name}: is an integer that is not written in the fewest bytes")
    return value


def object_identifier(element: Element, name: str) -> str:
    """Give an OBJECT IDENTIFIER in dotted notation; MalformedStatement for a misshapen one."""
    content = element.content
    if element.tag != Tag.OBJECT_IDENTIFIER:
        raise MalformedStatement(f"{name}: is {_tag_name(element.tag)}, must be an object identifier")
    if not content or len(content) > _INTEGER_BYTES_MAX or content[-1] & _LONG_FORM:
        raise MalformedStatement(f"{name}: is a misshapen object identifier")
    arcs: list[int] = []
    value = size = 0
    for byte in content:
        size += 1
        if (size == 1 and byte == _LONG_FORM) or size > _ARC_BYTES_MAX:
            raise MalformedStatement(f"{name}: is a misshapen object identifier")
        value = value << 7 | byte & 0x7F
        if not byte & _LONG_FORM:
            arcs.append(value)
            value = size = 0
    root = min(arcs[0] // _ROOT_ARCS, 2)
    return ".".join(str(arc) for arc in (root, arcs[0] - _ROOT_ARCS * root, *arcs[1:]))


def _tag_name(tag: int) -> str:
    try:
        return Tag(tag).name.replace("_", " ")
    except ValueError:
        pass
    if tag & 0xC0 == context(0):
        return f"[{tag & _TAG_NUMBER}]{' (constructed)' if tag & _CONSTRUCTED else ''}"
    return f"an element with tag 0x{tag:02x}"
