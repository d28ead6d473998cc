"""Where the live keys of a host are: `checks.toml` in its home, one `[[check]]` for each name that is compared.

[[check]]
name = "disk"
file = "/etc/keys/disk"                          # the key is the content of this file

[[check]]
name = "backup"
age = "/root/backup.age-identity"                # the key is the one identity in this age identity file

[[check]]
name = "database"
command = ["/usr/local/sbin/opens", "database"]  # ends with 0 while the key opens what it should, with 1 else
"""

import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from strongroom.errors import ConfigurationInvalid
from strongroom.fields import plain_text
from strongroom.limits import NAME_CHARACTERS_MAX
from strongroom_agent.home import Home, check_private, os_error, write_atomically

CHECKS_FILE: Final = "checks.toml"
CHECKS_BYTES_MAX: Final = 65_536
CHECKS_MAX: Final = 256
ARGUMENTS_MAX: Final = 64


class Kind(StrEnum):
    """How a live key is looked at."""

    FILE = "file"
    AGE = "age"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Check:
    """How the live key of a name is looked at.

    target: an absolute path, or for a command its arguments, the first of them an absolute path.
    """

    name: str
    kind: Kind
    target: tuple[str, ...]

    @property
    def gives_key(self) -> bool:
        """Whether the key itself can be read here, so that a fingerprint can be made of it."""
        return self.kind is not Kind.COMMAND


def read_checks(home: Home) -> tuple[Check, ...]:
    """Return the checks of a home, none where there is no file.

    Raises ConfigurationInvalid for a file that belongs to somebody else or is open to others, since whoever writes
    it has commands run, and for what is wrong in it, naming the check by its number and member.
    """
    path = home.path / CHECKS_FILE
    try:
        check_private(path)
        with path.open("rb") as stream:
            content = stream.read(CHECKS_BYTES_MAX + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise os_error(path, error) from None
    if len(content) > CHECKS_BYTES_MAX:
        raise ConfigurationInvalid(f"{path}: is longer than {CHECKS_BYTES_MAX:,} bytes")
    return parse_checks(content, where=str(path))


def parse_checks(content: bytes, *, where: str) -> tuple[Check, ...]:
    """Read the document; `where` names it in errors. Raises ConfigurationInvalid."""
    try:
        document = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise ConfigurationInvalid(f"{where}: is not TOML") from None
    if unknown := document.keys() - {"check"}:
        raise ConfigurationInvalid(f"{where}: {min(unknown)[:NAME_CHARACTERS_MAX]!r}: an unknown member")
    entries = document.get("check", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigurationInvalid(f"{where}: check: must be tables, each begun by [[check]]")
    if len(entries) > CHECKS_MAX:
        raise ConfigurationInvalid(f"{where}: {len(entries)} checks, the limit is {CHECKS_MAX}")
    checks = tuple(_check(entry, f"{where}: check {number}") for number, entry in enumerate(entries, 1))
    names = [check.name for check in checks]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise ConfigurationInvalid(f"{where}: name: two checks of {min(repeated)!r}")
    return checks


def _check(entry: dict[str, object], where: str) -> Check:
    name, kinds = entry.get("name"), [kind for kind in Kind if kind.value in entry]
    if unknown := entry.keys() - {"name", *Kind}:
        raise ConfigurationInvalid(f"{where}: {min(unknown)[:NAME_CHARACTERS_MAX]!r}: an unknown member")
    if not isinstance(name, str) or not _is_name(name):
        raise ConfigurationInvalid(f"{where}: name: must be text of 1 to {NAME_CHARACTERS_MAX} characters")
    if len(kinds) != 1:
        raise ConfigurationInvalid(f"{where}: must have exactly one of {', '.join(Kind)}")
    [kind] = kinds
    value = entry[kind]
    target = tuple(value) if kind is Kind.COMMAND and isinstance(value, list) else (value,)
    if not 1 <= len(target) <= ARGUMENTS_MAX or not all(
        isinstance(part, str) and "\0" not in part for part in target
    ):
        raise ConfigurationInvalid(f"{where}: {kind.value}: {_SHAPES[kind]}")
    if not str(target[0]).startswith("/") or (kind is Kind.COMMAND and not isinstance(value, list)):
        raise ConfigurationInvalid(f"{where}: {kind.value}: {_SHAPES[kind]}")
    return Check(name, kind, tuple(map(str, target)))


_SHAPES: Final = {
    Kind.FILE: "must be an absolute path",
    Kind.AGE: "must be an absolute path",
    Kind.COMMAND: f"must be a list of 1 to {ARGUMENTS_MAX} texts, the first an absolute path",
}


def _is_name(text: str) -> bool:
    try:
        plain_text(text)
    except ValueError:
        return False
    return 1 <= len(text) <= NAME_CHARACTERS_MAX


def keep_checks(home: Home, new: Iterable[Check]) -> None:
    """Write checks into the home, each in the place of the one that its name had; on disk when this returns.

    Comments in the file are lost. Raises ConfigurationInvalid, also when what is there cannot be read.
    """
    kept = {check.name: check for check in read_checks(home)}
    kept |= {check.name: check for check in new}
    content = "\n".join(_to_toml(check) for check in kept.values()).encode()
    path = home.path / CHECKS_FILE
    parse_checks(content, where=str(path))
    if len(content) > CHECKS_BYTES_MAX:
        raise ConfigurationInvalid(f"{path}: would be longer than {CHECKS_BYTES_MAX:,} bytes")
    write_atomically(path, content)


def _to_toml(check: Check) -> str:
    value = list(check.target) if check.kind is Kind.COMMAND else check.target[0]
    # A JSON string is a TOML basic string, but for DEL; JSON's list of strings is TOML's.
    name, target = (json.dumps(each, ensure_ascii=False).replace("\x7f", "\\u007f") for each in (check.name, value))
    return f"[[check]]\nname = {name}\n{check.kind.value} = {target}\n"
