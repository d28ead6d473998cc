"""Answers that come in pages: how much one statement holds. Pure."""

from typing import Final

from strongroom.fields import Body, Part
from strongroom.limits import BODY_BYTES_MAX
from strongroom.statements import canonical_json

_COMMA_BYTES: Final = 1


class Room:
    """The bytes that a page has left for its parts."""

    def __init__(self, page: Body) -> None:
        """Begin with a page without parts, everything else in it as long as it can get."""
        self._bytes = BODY_BYTES_MAX - len(page.to_bytes())

    def takes(self, part: Part) -> bool:
        """Make room for a part; False when there is none, and nothing fits after it."""
        self._bytes -= len(canonical_json(part.model_dump(mode="json"))) + _COMMA_BYTES
        return self._bytes >= 0
