"""PKCS #11 URIs (RFC 7512): which token has the private keys, by which module it is reached, where its PIN is.

`pkcs11:token=authority;serial=c8a25fc3c286000b?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/pin`

Only what is needed is taken, and everything else refused: an attribute that was passed over could have meant
another token. No message repeats the URI: somebody may have written a PIN into it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote, unquote_to_bytes

from strongroom.errors import ConfigurationInvalid

URI_CHARACTERS_MAX: Final = 8192

_SCHEME: Final = "pkcs11:"
_REFUSED: Final = {
    "pin-value": ("no PIN may stand in a setting", "write it into a file, and name that by pin-source=file:/PATH"),
    "module-name": ("a module is named by its file", "use module-path=/PATH"),
    **dict.fromkeys(
        ("object", "id", "type"),
        ("keys are found by themselves, not by name", "leave it out: every Strongroom key of the token is used"),
    ),
}
_RESERVED: Final = r":\[\]@!$'()*+,="
_PATH_VALUE: Final = re.compile(rf"(?:[A-Za-z0-9._~{_RESERVED}&-]|%[0-9A-Fa-f]{{2}})*")
_QUERY_VALUE: Final = re.compile(rf"(?:[A-Za-z0-9._~{_RESERVED}/?|-]|%[0-9A-Fa-f]{{2}})*")
_NUMBER: Final = re.compile("[0-9]{1,19}")
_HINT: Final = "e.g. pkcs11:token=NAME?module-path=/PATH/TO/MODULE.so&pin-source=file:/PATH/TO/PIN"


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """A token and the way to it. Members that are None say nothing; at least one of the first three says something.

    token: the label. slot_id: the number of its slot, which some modules change at every start. pin_source: the
    file whose first line is the PIN.
    """

    module_path: Path
    token: str | None = None
    serial: str | None = None
    slot_id: int | None = None
    manufacturer: str | None = None
    model: str | None = None
    pin_source: Path | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a URI; raises ConfigurationInvalid for everything that is not one of these."""
        if not text.startswith(_SCHEME):
            raise _invalid("does not begin with `pkcs11:`")
        if len(text) > URI_CHARACTERS_MAX:
            raise _invalid(f"is longer than {URI_CHARACTERS_MAX} characters")
        path, _, query = text.removeprefix(_SCHEME).partition("?")
        of_path, of_query = _attributes(path, ";", _PATH_VALUE), _attributes(query, "&", _QUERY_VALUE)
        for name, (cause, hint) in _REFUSED.items():
            if name in of_path | of_query:
                raise _invalid(f"{name}: {cause}", hint)
        found = _members(of_path, _OF_TOKEN, "before") | _members(of_query, _OF_MODULE, "after")
        if "module_path" not in found:
            raise _invalid("module-path is missing: the file of the token's PKCS #11 module")
        if not found.keys() & {"token", "serial", "slot_id"}:
            raise _invalid("names no token: token, serial or slot-id is missing")
        return cls(**found)  # type: ignore[arg-type]  # each by the type of its member

    def __str__(self) -> str:
        """Give the URI again, in one order and with nothing escaped that need not be."""
        said = ((name, getattr(self, member)) for name, (member, _) in _OF_TOKEN.items())
        path = [f"{name}={quote(str(value), safe='')}" for name, value in said if value is not None]
        query = [f"module-path={quote(str(self.module_path), safe='/')}"]
        if self.pin_source is not None:
            query.append(f"pin-source=file:{quote(str(self.pin_source), safe='/')}")
        return f"{_SCHEME}{';'.join(path)}?{'&'.join(query)}"

    @property
    def description(self) -> str:
        """What it says of the token, for people: `token 'authority', serial 'c8a2'`."""
        said = ((name, getattr(self, member)) for name, (member, _) in _OF_TOKEN.items())
        return ", ".join(f"{name} {value!r}" for name, value in said if value is not None)


def _attributes(text: str, separator: str, allowed: re.Pattern[str]) -> dict[str, bytes]:
    """Split and unescape; names are not judged yet."""
    found: dict[str, bytes] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise _invalid(f"has a part without a name or without `=` between its `{separator}`")
        if not allowed.fullmatch(value) and name != "pin-value":
            raise _invalid("has a character that must be written as % and two hex digits")
        if name in found:
            raise _invalid("says one thing twice")
        # A PIN in the URI is refused whatever it is, and is not looked at.
        found[name] = unquote_to_bytes(value) if name != "pin-value" else b""
    return found


def _members(
    attributes: Mapping[str, bytes], readers: Mapping[str, tuple[str, Callable[[str, bytes], object]]], where: str
) -> dict[str, object]:
    if not attributes.keys() <= readers.keys():
        raise _invalid(
            f"has an attribute {where} the `?` that means nothing here", f"known are {', '.join(readers)}"
        )
    return {readers[name][0]: readers[name][1](name, value) for name, value in attributes.items()}


def _text(most: int) -> Callable[[str, bytes], str]:
    """Return the reader of what a token's own information has `most` bytes for (PKCS #11, CK_TOKEN_INFO)."""

    def read(name: str, value: bytes) -> str:
        if not 0 < len(value) <= most:
            raise _invalid(f"{name}: has {len(value)} bytes; it must have 1 to {most}")
        try:
            text = value.decode()
        except UnicodeDecodeError:
            raise _invalid(f"{name}: is no UTF-8") from None
        if not text.isprintable() or text != text.strip():
            raise _invalid(f"{name}: begins or ends with a blank, or has a character that is not printed")
        return text

    return read


def _number(name: str, value: bytes) -> int:
    text = value.decode("ascii", "replace")
    if not _NUMBER.fullmatch(text):
        raise _invalid(f"{name}: is no number")
    return int(text)


def _file(name: str, value: bytes) -> Path:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise _invalid(f"{name}: is no UTF-8") from None
    if not text.startswith("/") or "\0" in text:
        raise _invalid(f"{name}: is no absolute path")
    # A second slash at the beginning would mean something of its own to POSIX.
    return Path("/" + text.lstrip("/"))


def _pin_source(name: str, value: bytes) -> Path:
    scheme, _, path = value.partition(b":")
    if scheme != b"file":
        raise _invalid(f"{name}: is no file", "use pin-source=file:/PATH; no program is run for a PIN")
    return _file(name, path.removeprefix(b"//"))


def _invalid(cause: str, hint: str = _HINT) -> ConfigurationInvalid:
    return ConfigurationInvalid(f"PKCS #11 URI: {cause}", hint=hint)


_OF_TOKEN: Final[Mapping[str, tuple[str, Callable[[str, bytes], object]]]] = {
    "token": ("token", _text(32)),
    "serial": ("serial", _text(16)),
    "manufacturer": ("manufacturer", _text(32)),
    "model": ("model", _text(16)),
    "slot-id": ("slot_id", _number),
}
_OF_MODULE: Final[Mapping[str, tuple[str, Callable[[str, bytes], object]]]] = {
    "module-path": ("module_path", _file),
    "pin-source": ("pin_source", _pin_source),
}
