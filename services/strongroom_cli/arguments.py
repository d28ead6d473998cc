"""Names and ids on the command line, judged before anything is read, asked or sent."""

import re
from typing import Final

from strongroom.errors import UsageError

_KEY_ID: Final = re.compile("[0-9a-f]{32}")
_PREFIX: Final = re.compile("[a-z0-9-]{1,63}")


def check_principal(what: str, name: str | None) -> None:
    """Raise UsageError for what can be nobody's name; `what` is the argument. None, for one not given, passes."""
    if name is not None:
        from strongroom_agent.identity import check_name

        check_name(what, name)


def check_prefix(text: str | None) -> None:
    """Raise UsageError for what no name of a principal can begin with. None, for one not given, passes."""
    if text is not None and _PREFIX.fullmatch(text) is None:
        raise UsageError(f"--prefix: {text!r} must be 1 to 63 of a-z, 0-9 and -")


def check_record(text: str) -> None:
    """Raise UsageError for what is no record id."""
    if not is_id(text):
        raise UsageError(f"{text!r} is no record id", hint="`strongroom records` lists them")


def check_key_id(what: str, text: str | None) -> None:
    """Raise UsageError for what is no id of a key; `what` is the argument. None, for one not given, passes."""
    if text is not None and not is_key_id(text):
        raise UsageError(f"{what} {text!r}: must be a key id (32 hex digits)")


def is_key_id(text: str) -> bool:
    """Say whether this can be the id of a key."""
    return _KEY_ID.fullmatch(text) is not None


def is_id(text: str) -> bool:
    """Say whether this can be the id of a record, a request or an invitation (SPEC 1.5)."""
    from pydantic import TypeAdapter, ValidationError

    from strongroom.fields import Id

    try:
        TypeAdapter(Id).validate_python(text)
    except ValidationError:
        return False
    return True
