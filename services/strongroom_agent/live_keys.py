"""Looking at the live keys of a host, and comparing them with what was escrowed."""

import asyncio
import os
import signal
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.blobs import OpenedMaterial, check_fingerprint
from strongroom.crypto.secret import Secret
from strongroom.errors import FingerprintMismatch, KeyFileInvalid
from strongroom.limits import KEY_MATERIAL_BYTES_MAX
from strongroom_agent import age
from strongroom_agent.checks import Check, Kind

COMMAND_SECONDS: Final = 60.0

_MATCHES: Final = 0
_DIFFERS: Final = 1
_ENVIRONMENT: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")


@dataclass(frozen=True, slots=True)
class LiveKey:
    """What a check found.

    material: the key in use, where it can be read. opens: what a command said of it. Both None: nothing is known,
    and `reason` says why.
    """

    check: Check
    material: Secret | None = None
    opens: bool | None = None
    reason: str | None = None


async def look(check: Check) -> LiveKey:
    """Look at a live key. Never raises for what is there: a key that cannot be read is unknown, and not another."""
    if check.kind is Kind.COMMAND:
        return await _run(check)
    path = Path(check.target[0])
    try:
        # Its content is read in any case, so that what is no regular file is left alone.
        content = _read(path)
        material = read_identity(path) if check.kind is Kind.AGE else content
    except OSError as error:
        return LiveKey(check, reason=f"{path}: {error.strerror}")
    except KeyFileInvalid as error:
        return LiveKey(check, reason=error.message)
    if not 1 <= len(material) <= KEY_MATERIAL_BYTES_MAX:
        found = "is empty" if not len(material) else "is too long"
        return LiveKey(check, reason=f"{path}: {found}; a key has 1 to {KEY_MATERIAL_BYTES_MAX:,} bytes")
    return LiveKey(check, material=material)


def read_identity(path: Path) -> Secret:
    """Return the one age identity in a file as text without line end; KeyFileInvalid for none, or for several."""
    identities = age.read_identities(path)
    if len(identities) != 1:
        raise KeyFileInvalid(f"{path}: holds {len(identities)} identities, and a key is one")
    return Secret(str(identities[0]).encode())


def _read(path: Path) -> Secret:
    # Without waiting for the other end of a named pipe, which is no key file.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(None, "is no regular file")
        return Secret(stream.read(KEY_MATERIAL_BYTES_MAX + 1))


async def _run(check: Check) -> LiveKey:
    """Run a command without a shell and without anything of ours: no key, no passphrase file, no standard input."""
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    nowhere = asyncio.subprocess.DEVNULL
    program = check.target[0]
    try:
        process = await asyncio.create_subprocess_exec(
            *check.target, stdin=nowhere, stdout=nowhere, stderr=nowhere, env=environment, start_new_session=True
        )
    except OSError as error:
        return LiveKey(check, reason=f"{program}: {error.strerror}")
    try:
        code = await asyncio.wait_for(process.wait(), COMMAND_SECONDS)
    except TimeoutError:
        return LiveKey(check, reason=f"{program}: did not end within {COMMAND_SECONDS:.0f} s")
    finally:
        if process.returncode is None:
            # What it has started goes with it.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if code in (_MATCHES, _DIFFERS):
        return LiveKey(check, opens=code == _MATCHES)
    return LiveKey(check, reason=f"{program}: ended with {code}, which says nothing: 0 is yes and 1 is no")


@dataclass(frozen=True, slots=True)
class Place:
    """Whose records are compared: the fingerprint of each is bound to authority and principal (SPEC 3.5)."""

    authority: str
    principal: str

    def is_same(self, material: Secret, record_id: str, fingerprint: str, salt: Secret) -> bool:
        """Say whether a record's fingerprint is of this key; in the same time wherever they differ."""
        try:
            check_fingerprint(
                OpenedMaterial(material, salt), self.authority, self.principal, record_id, fingerprint
            )
        except FingerprintMismatch:
            return False
        return True


async def look_at(checks: Sequence[Check]) -> dict[str, LiveKey]:
    """Look at the live keys of several checks, one after the other; by name."""
    return {check.name: await look(check) for check in checks}
