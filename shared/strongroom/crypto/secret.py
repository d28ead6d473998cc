"""A byte string that must never be shown: the one type in which key material and passphrases travel."""

import hmac
from typing import Final, NoReturn, final


@final
class Secret:
    """Holds secret bytes and shows only their number.

    `repr`, `str` and `format` give `<Secret: N bytes>`. It has no `__dict__`, no `__bytes__` and no iterator,
    so JSON and pydantic cannot serialise it. Pickling and copying raise TypeError: a second copy is always a
    decision that is written down as `Secret(secret.expose())`.

    What it cannot do: Python's `bytes` cannot be wiped, so the memory stays readable to whoever can read the
    process.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes | bytearray | memoryview) -> None:
        """Take a copy of `value`; raises TypeError for anything but bytes, without showing it."""
        # bytes(5) would be five zero bytes, and bytes of a list its numbers; a memoryview takes neither.
        self._value: Final = bytes(memoryview(value))

    def expose(self) -> bytes:
        """Give the secret bytes themselves; every call is a place to review."""
        return self._value

    def __len__(self) -> int:
        """Give the number of bytes, which is not secret."""
        return len(self._value)

    def __repr__(self) -> str:
        """Give the number of bytes and nothing else."""
        return f"<Secret: {len(self._value)} bytes>"

    def __format__(self, _format_spec: str, /) -> str:
        """Give the same text for every format specification."""
        return repr(self)

    def __eq__(self, other: object) -> bool:
        """Compare with another Secret in constant time for equal lengths; anything else is not equal."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    # A hash would be computed from the secret and would stay in dicts and sets.
    __hash__ = None  # type: ignore[assignment]

    def __getstate__(self) -> NoReturn:
        """Refuse with TypeError; pickle, copy and deepcopy all ask here."""
        raise TypeError("a Secret is neither copied nor pickled")
