"""A new backup authority: its keys, their folders, and the first roster (SPEC section 2)."""

import time
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from strongroom.crypto.keyring import write_sealing_key, write_signing_key
from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import UsageError
from strongroom.messages import (
    Officer,
    Policy,
    RosterBody,
    SealingKey,
    SealingKeyState,
    validated,
)
from strongroom.roster import Roster
from strongroom.statements import Statement

ROSTER_LIFE_SECONDS: Final = 365 * 86_400

_WORKERS: Final = ("escrow", "recovery")


@dataclass(frozen=True, slots=True)
class Passphrases:
    """What the new key files are encrypted under, for the root key and for the workers; None is unprotected."""

    root: Secret | None
    workers: Secret | None


def create(
    folder: Path, *, authority: str, officers: list[Officer], policy: Policy, suite: Suite, passphrases: Passphrases
) -> Statement:
    """Make every key of a new authority below `folder` and sign roster version 1; return the roster.

    Written: `root/root.key` (to be taken offline), `root.pub`, `roster.json`, `escrow/` and `recovery/` with
    `log.key` and `reply.key` each, and `recovery/sealing/<kid>.key`. Each worker is given its own folder and
    nothing else. Nothing is written unless the roster passes every check of its readers.

    Raises UsageError when the folder holds anything already or cannot be written, RosterInvalid for officers and
    a policy that do not fit, MalformedStatement and LimitExceeded for names out of shape, KeyFileInvalid.
    """
    keys = _Keys.generate(suite)
    roster = _first_roster(keys, authority=authority, officers=officers, policy=policy)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty", hint="an authority is made once; name a new folder")
        for name in ("root", "escrow", "recovery", "recovery/sealing"):
            (folder / name).mkdir(mode=0o700, parents=True)
        keys.write(folder, passphrases)
        (folder / "root.pub").write_text(b64encode(keys.root.public_key).decode() + "\n")
        (folder / "roster.json").write_bytes(roster.envelope() + b"\n")
    except OSError as error:
        raise UsageError(
            f"{error.filename or folder}: cannot be written ({error.strerror or type(error).__name__})",
            hint="name a new folder that this user may make, on a disk with room",
        ) from None
    return roster


@dataclass(frozen=True, slots=True)
class _Keys:
    """Every private key of an authority; logs and replies by the worker that has them."""

    root: SigningKey
    logs: dict[str, SigningKey]
    replies: dict[str, SigningKey]
    sealing: PrivateSealingKey

    @classmethod
    def generate(cls, suite: Suite) -> Self:
        return cls(
            root=SigningKey.generate(),
            logs={worker: SigningKey.generate() for worker in _WORKERS},
            replies={worker: SigningKey.generate() for worker in _WORKERS},
            sealing=PrivateSealingKey.generate(suite),
        )

    def write(self, folder: Path, passphrases: Passphrases) -> None:
        write_signing_key(folder / "root" / "root.key", self.root, passphrases.root)
        for worker in _WORKERS:
            write_signing_key(folder / worker / "log.key", self.logs[worker], passphrases.workers)
            write_signing_key(folder / worker / "reply.key", self.replies[worker], passphrases.workers)
        sealing = folder / "recovery" / "sealing" / f"{self.sealing.kid}.key"
        write_sealing_key(sealing, self.sealing, passphrases.workers)


def _first_roster(keys: _Keys, *, authority: str, officers: list[Officer], policy: Policy) -> Statement:
    """Sign roster version 1, and read it back as everybody who gets it will."""
    now = int(time.time())
    sealing = keys.sealing
    document = {
        "authority": authority,
        "version": 1,
        "issued_at": now,
        "expires_at": now + ROSTER_LIFE_SECONDS,
        "previous": None,
        "sealing_keys": [
            SealingKey(
                kid=sealing.kid, suite=sealing.suite, public_key=sealing.public_key, state=SealingKeyState.ACTIVE
            )
        ],
        "logs": {
            worker: {"origin": f"{authority}/{worker}", "public_key": keys.logs[worker].public_key}
            for worker in _WORKERS
        },
        "replies": {worker: keys.replies[worker].public_key for worker in _WORKERS},
        "officers": officers,
        "policy": policy,
    }
    body = validated(document, RosterBody)
    statement = Statement.sign(RosterBody.TYPE, body.to_bytes(), keys.root)
    return Roster.verified(statement, keys.root.public_key).statement
