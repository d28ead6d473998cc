"""As whom a server runs, and files that only that user can read."""

import os
import pwd
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged user of this system."""

    uid: int
    gid: int


class Identity(TypedDict):
    """The arguments by which `subprocess` changes to another user."""

    user: int | None
    group: int | None
    extra_groups: list[int] | None


def account(name: str) -> Account | None:
    """Return whom a server runs as: None (the caller) unless root asks, then `name`, or else `nobody`.

    Raises:
        LookupError: neither user exists.
    """
    if os.geteuid() != 0:
        return None
    for candidate in (name, "nobody"):
        with suppress(KeyError):
            user = pwd.getpwnam(candidate)
            return Account(user.pw_uid, user.pw_gid)
    raise LookupError(f"root cannot run this server, and neither the user {name} nor nobody exists")


def identity(user: Account | None) -> Identity:
    """Return what `subprocess` needs to run as `user`, without supplementary groups; None changes nothing."""
    if user is None:
        return {"user": None, "group": None, "extra_groups": None}
    return {"user": user.uid, "group": user.gid, "extra_groups": []}


def private_folder(path: Path, owner: Account | None) -> None:
    """Make a folder that only `owner` (None: the caller) can enter."""
    path.mkdir(mode=0o700, exist_ok=True)
    if owner:
        os.chown(path, owner.uid, owner.gid)
    path.chmod(0o700)


def write_private(path: Path, content: str | bytes, owner: Account | None = None) -> None:
    """Replace a file in one step by one of mode 0600 that belongs to `owner` (None: the caller).

    The folder may belong to `owner`, so nothing in it is trusted: the new file gets a name that nobody can have
    planted a link under, and the rename does not follow one.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if owner:
                os.fchown(descriptor, owner.uid, owner.gid)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
