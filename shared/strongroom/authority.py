"""A new backup authority: its keys, their folders, and the first roster (SPEC section 2)."""

import time
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from strongroom.crypto.keyring import write_sealing_key, write_signing_key
from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import UsageError
from strongroom.messages import (
    LogKey,
    LogKeys,
    Officer,
    Policy,
    ReplyKeys,
    RosterBody,
    SealingKey,
    SealingKeyState,
)
from strongroom.statements import Statement

ROSTER_LIFE_SECONDS: Final = 365 * 86_400


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
    nothing else. Raises UsageError when the folder holds anything already, KeyFileInvalid, LimitExceeded.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", hint="an authority is made once; name a new folder")
    for name in ("root", "escrow", "recovery", "recovery/sealing"):
        (folder / name).mkdir(mode=0o700, parents=True)
    root = SigningKey.generate()
    logs = {name: SigningKey.generate() for name in ("escrow", "recovery")}
    replies = {name: SigningKey.generate() for name in ("escrow", "recovery")}
    sealing = PrivateSealingKey.generate(suite)
    now = int(time.time())
    body = RosterBody(
        authority=authority,
        version=1,
        issued_at=now,
        expires_at=now + ROSTER_LIFE_SECONDS,
        previous=None,
        sealing_keys=[
            SealingKey(kid=sealing.kid, suite=suite, public_key=sealing.public_key, state=SealingKeyState.ACTIVE)
        ],
        logs=LogKeys(
            escrow=LogKey(origin=f"{authority}/escrow", public_key=logs["escrow"].public_key),
            recovery=LogKey(origin=f"{authority}/recovery", public_key=logs["recovery"].public_key),
        ),
        replies=ReplyKeys(escrow=replies["escrow"].public_key, recovery=replies["recovery"].public_key),
        officers=officers,
        policy=policy,
    )
    roster = Statement.sign(RosterBody.TYPE, body.to_bytes(), root)
    write_signing_key(folder / "root" / "root.key", root, passphrases.root)
    for name in ("escrow", "recovery"):
        write_signing_key(folder / name / "log.key", logs[name], passphrases.workers)
        write_signing_key(folder / name / "reply.key", replies[name], passphrases.workers)
    write_sealing_key(folder / "recovery" / "sealing" / f"{sealing.kid}.key", sealing, passphrases.workers)
    (folder / "root.pub").write_text(b64encode(root.public_key).decode() + "\n")
    (folder / "roster.json").write_bytes(roster.envelope() + b"\n")
    return roster
