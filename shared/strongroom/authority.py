"""A backup authority: its keys, their folders, its first roster and those that follow (SPEC section 2)."""

import os
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from strongroom import private_file
from strongroom.crypto.key_file import write_sealing_key, write_signing_key
from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey, key_id
from strongroom.errors import UsageError
from strongroom.fields import validated
from strongroom.mandates import Expectation, Officer, Policy, Role, RosterBody, SealingKey, SealingKeyState
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


# ---- the rosters that follow ----


@dataclass(frozen=True, slots=True)
class Changes:
    """What the next roster says otherwise than the one before; without any it only renews that one.

    remove_officers: names; whoever is added under such a name has a new key or other roles. policy: new values, by
    the names of SPEC 2.3; `expected` takes the place of the whole list.
    """

    add_officers: Sequence[Officer] = ()
    remove_officers: Sequence[str] = ()
    policy: Mapping[str, int | Sequence[Expectation]] = field(default_factory=dict)


def next_roster(
    before: Roster, changes: Changes, key: SigningKey, *, now: int, life_seconds: int = ROSTER_LIFE_SECONDS
) -> Roster:
    """Sign the roster that follows `before`, and read it back as everybody who gets it will.

    Arguments: `key` is the root key that signed `before`; `now` in seconds. Raises UsageError for an officer who is
    there already and for a clock that is behind `before`, OfficerUnknown for one to be removed who is not there,
    RosterInvalid for officers and a policy that do not fit, MalformedStatement and LimitExceeded for values out of
    bounds.
    """
    body = next_body(before, changes, now=now, life_seconds=life_seconds)
    after = Roster.verified(Statement.sign(RosterBody.TYPE, body.to_bytes(), key), key.public_key)
    after.check_follows(before)
    return after


def next_body(before: Roster, changes: Changes, *, now: int, life_seconds: int) -> RosterBody:
    """Return the body of the roster that follows `before`: next version, its digest, new times, and the changes.

    Raises as `next_roster`, but RosterInvalid, which only the signed roster's readers find.
    """
    if now < before.body.issued_at:
        raise UsageError(
            f"the roster before was signed {before.body.issued_at - now} s after what is now here",
            hint="set the clock of this machine",
        )
    for name in changes.remove_officers:
        before.officer(name)
    officers = [officer for officer in before.body.officers if officer.name not in changes.remove_officers]
    there = {officer.name for officer in officers}
    for officer in changes.add_officers:
        if officer.name in there:
            raise UsageError(
                f"officer {officer.name}: is in the roster already",
                hint="remove the officer in the same call to exchange key or roles",
            )
        officers.append(officer)
    unknown = changes.policy.keys() - Policy.model_fields.keys()
    if unknown:
        raise UsageError(f"policy: {min(unknown)} is none of {', '.join(Policy.model_fields)}")
    return validated(
        {
            **{name: getattr(before.body, name) for name in RosterBody.model_fields},
            "version": before.body.version + 1,
            "issued_at": now,
            "expires_at": now + life_seconds,
            "previous": before.digest.hex(),
            "officers": officers,
            "policy": validated({**before.body.policy.model_dump(), **changes.policy}, Policy),
        },
        RosterBody,
    )


def differences(before: RosterBody, after: RosterBody) -> list[str]:
    """Say in words for people who of the officers, and what of the policy, is another than before."""
    old = {officer.name: officer for officer in before.officers}
    new = {officer.name: officer for officer in after.officers}
    found = [f"officer {name} is removed" for name in old if name not in new]
    for name, officer in new.items():
        if name not in old:
            found.append(f"officer {name} is added: key {key_id(officer.public_key)}, {_roles(officer)}")
            continue
        if officer.public_key != old[name].public_key:
            found.append(
                f"officer {name} has another key: {key_id(officer.public_key)}, was {key_id(old[name].public_key)}"
            )
        if set(officer.roles) != set(old[name].roles):
            found.append(f"officer {name} has other roles: {_roles(officer)}; had {_roles(old[name])}")
    values, former = after.policy.model_dump(exclude={"expected"}), before.policy.model_dump()
    found += [f"{name} is {value}, was {former[name]}" for name, value in values.items() if value != former[name]]
    wanted, wanted_before = map(_expected, (after, before))
    found += [f"{each} is not expected any more" for each in wanted_before if each not in wanted]
    found += [f"{each} is expected" for each in wanted if each not in wanted_before]
    return found


def _expected(body: RosterBody) -> list[str]:
    return [expectation_text(each) for each in body.policy.expected]


def expectation_text(expected: Expectation) -> str:
    """Write an expectation as people write it: `PREFIX:NAME,NAME` or `PREFIX[LABEL=VALUE]:NAME,NAME`."""
    label = f"[{expected.label.name}={expected.label.value}]" if expected.label else ""
    return f"{expected.prefix}{label}:{','.join(expected.names)}"


def _roles(officer: Officer) -> str:
    return ", ".join(sorted(officer.roles)) or "no role"


def unmeetable(body: RosterBody) -> list[str]:
    """Say in words for people what this roster's policy allows and its officers can never bring about."""
    able = {role: [officer.name for officer in body.officers if role in officer.roles] for role in Role}
    approving, policy = set(able[Role.APPROVE]), body.policy
    found = [
        f"no officer has the role {role.value!r}: {lack}"
        for role, lack in (
            (Role.INVITE, "no host can be enrolled"),
            (Role.RECOVER, "no officer can recover a key"),
            (Role.REVOKE, "no principal can be revoked"),
        )
        if not able[role]
    ]
    if policy.self_recovery_approvals > len(approving):
        found.append(
            f"self_recovery_approvals is {policy.self_recovery_approvals}, and {len(approving)} officers have the"
            " role 'approve': no host can recover its own keys"
        )
    stuck = [name for name in able[Role.RECOVER] if len(approving - {name}) < policy.officer_recovery_approvals]
    if stuck:
        found.append(
            f"officer_recovery_approvals is {policy.officer_recovery_approvals}, by others than who asks: too few"
            f" have the role 'approve' for {', '.join(stuck)} to recover a key"
        )
    return found


def replace_roster(path: Path, roster: Roster) -> None:
    """Put a roster in the place of the file at `path`, atomically; owner and mode stay. On disk when it returns.

    Raises UsageError for a place that cannot be written.
    """
    try:
        former = path.stat()
        with private_file.replacing(path) as file:
            os.fchmod(file.fileno(), former.st_mode & 0o777)
            os.fchown(file.fileno(), former.st_uid, former.st_gid)
            file.write(roster.statement.envelope() + b"\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or type(error).__name__})") from None
