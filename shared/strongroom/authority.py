"""Founding a backup authority: its keys, their folders, its first roster (SPEC section 2)."""

import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from strongroom.crypto.key_file import write_sealing_key, write_signing_key
from strongroom.crypto.rsa import PrivateRsaKey
from strongroom.crypto.sealing import PrivateSealingKey, Suite, transport_kid
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.crypto.transport_key_file import write_transport_key
from strongroom.errors import UsageError
from strongroom.fields import validated
from strongroom.mandates import Officer, Policy, RosterBody, SealingKey, SealingKeyState, TransportKey
from strongroom.next_rosters import ROSTER_LIFE_SECONDS
from strongroom.roster import Roster
from strongroom.statements import Statement

if TYPE_CHECKING:
    from strongroom.crypto.token_objects import TokenKey

_WORKERS: Final = ("escrow", "recovery")


@dataclass(frozen=True, slots=True)
class Passphrases:
    """What the new key files are encrypted under, for the root key and for the workers; None is unprotected."""

    root: Secret | None
    workers: Secret | None


def create(
    folder: Path,
    *,
    authority: str,
    officers: list[Officer],
    policy: Policy,
    suite: Suite,
    passphrases: Passphrases,
    transport_bits: int | None = None,
    on_token: "Callable[[], TokenKey] | None" = None,
) -> Statement:
    """Make every key of a new authority below `folder` and sign roster version 1; return the roster.

    Written: `root/root.key` (to be taken offline), `root.pub`, `roster.json`, `escrow/` and `recovery/` with
    `log.key` and `reply.key` each, and `recovery/sealing/<kid>.key`; with `transport_bits` there is a transport key
    of that size among these. Each worker is given its own folder and nothing else. Nothing is written unless the
    roster passes every check of its readers.

    `on_token` makes the sealing key, of the suite P256, on a token, and is called once everything else is known to
    fit; no sealing key file is written then. If writing fails afterwards, the key stays on the token.

    Raises UsageError when the folder holds anything already or cannot be written, RosterInvalid for officers and
    a policy that do not fit, MalformedStatement and LimitExceeded for names out of shape, KeyFileInvalid, and what
    `on_token` raises.
    """
    keys = _Keys.generate(suite, transport_bits)
    roster = _first_roster(keys, authority=authority, officers=officers, policy=policy)
    try:
        if folder.exists() and any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty", hint="an authority is made once; name a new folder")
        if on_token is not None:
            keys = replace(keys, sealing=on_token())
            roster = _first_roster(keys, authority=authority, officers=officers, policy=policy)
        for name in ("root", "escrow", "recovery"):
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
    sealing: "PrivateSealingKey | TokenKey"
    transport: PrivateRsaKey | None

    @classmethod
    def generate(cls, suite: Suite, transport_bits: int | None) -> Self:
        return cls(
            root=SigningKey.generate(),
            logs={worker: SigningKey.generate() for worker in _WORKERS},
            replies={worker: SigningKey.generate() for worker in _WORKERS},
            sealing=PrivateSealingKey.generate(suite),
            transport=None if transport_bits is None else PrivateRsaKey.generate(transport_bits),
        )

    def write(self, folder: Path, passphrases: Passphrases) -> None:
        write_signing_key(folder / "root" / "root.key", self.root, passphrases.root)
        for worker in _WORKERS:
            write_signing_key(folder / worker / "log.key", self.logs[worker], passphrases.workers)
            write_signing_key(folder / worker / "reply.key", self.replies[worker], passphrases.workers)
        sealing = folder / "recovery" / "sealing"
        if isinstance(self.sealing, PrivateSealingKey):
            sealing.mkdir(mode=0o700)
            write_sealing_key(sealing / f"{self.sealing.kid}.key", self.sealing, passphrases.workers)
        if self.transport is not None:
            sealing.mkdir(mode=0o700, exist_ok=True)
            kid = transport_kid(self.transport.public_key.to_spki())
            write_transport_key(sealing / f"{kid}.key", self.transport, passphrases.workers)


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
                kid=sealing.kid,
                suite=sealing.suite if isinstance(sealing, PrivateSealingKey) else Suite.P256,
                public_key=sealing.public_key,
                state=SealingKeyState.ACTIVE,
            )
        ],
        "transport_keys": [] if keys.transport is None else [_transport_entry(keys.transport)],
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


def _transport_entry(key: PrivateRsaKey) -> TransportKey:
    spki = key.public_key.to_spki()
    return TransportKey(kid=transport_kid(spki), public_key=spki, state=SealingKeyState.ACTIVE)
