"""Rosters in words for people: what one says otherwise than the one before, and what it can never bring about."""

from collections.abc import Iterator, Sequence
from typing import Final

from strongroom.crypto.signing import key_id
from strongroom.mandates import (
    Expectation,
    LogKey,
    Officer,
    Role,
    RosterBody,
    SealingKey,
    SealingKeyState,
    TransportKey,
)

_STATE_WORDS: Final = {
    SealingKeyState.ACTIVE: "active: hosts use it",
    SealingKeyState.ACCEPTED: "accepted: what hosts use it for is still taken",
    SealingKeyState.CLOSED: "closed: nothing more is taken to it",
}


def differences(before: RosterBody, after: RosterBody) -> list[str]:
    """Say in words for people what of keys, officers and policy is another than before."""
    old = {officer.name: officer for officer in before.officers}
    new = {officer.name: officer for officer in after.officers}
    found = [*_key_differences(before, after)]
    found += [f"officer {name} is removed" for name in old if name not in new]
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


def _key_differences(before: RosterBody, after: RosterBody) -> Iterator[str]:
    if len(after.root_changes) > len(before.root_changes):
        yield "the root key is another one: it has signed this roster"
    yield from _list_differences("sealing", before.sealing_keys, after.sealing_keys)
    yield from _list_differences("transport", before.transport_keys, after.transport_keys)
    for log, old, new in (
        ("escrow", before.logs.escrow, after.logs.escrow),
        ("recovery", before.logs.recovery, after.logs.recovery),
    ):
        yield from _log_differences(log, old, new)
    for worker, one, other in (
        ("escrow", before.replies.escrow, after.replies.escrow),
        ("recovery", before.replies.recovery, after.replies.recovery),
    ):
        if one != other:
            yield f"the {worker} worker signs replies with another key: {key_id(other)}, was {key_id(one)}"


def _list_differences(
    kind: str, before: Sequence[SealingKey | TransportKey], after: Sequence[SealingKey | TransportKey]
) -> Iterator[str]:
    old, new = {key.kid: key for key in before}, {key.kid: key for key in after}
    for kid in old.keys() - new.keys():
        yield f"{kind} key {kid} is removed: no record may need it"
    for kid, key in new.items():
        if kid not in old:
            yield f"{kind} key {kid} is added, {_STATE_WORDS[key.state]}"
        elif key.state is not old[kid].state:
            yield f"{kind} key {kid} is {_STATE_WORDS[key.state]}; was {old[kid].state.value}"
    first, first_before = (
        next((key.kid for key in keys if key.state is SealingKeyState.ACTIVE), None) for keys in (after, before)
    )
    if first is not None and first != first_before and first in old and old[first].state is SealingKeyState.ACTIVE:
        yield f"{kind} key {first} is the one that hosts use"


def _log_differences(log: str, before: LogKey, after: LogKey) -> Iterator[str]:
    if after.public_key != before.public_key:
        yield (
            f"the {log} log is signed with another key: {key_id(after.public_key)}, was"
            f" {key_id(before.public_key)}; receipts by that one still count"
        )
    for key in before.former:
        if key not in after.former:
            yield f"the {log} log's former key {key_id(key)} counts no more: nor do receipts that it signed"


def pitfalls(before: RosterBody, after: RosterBody) -> list[str]:
    """Say in words for people what has to be done before the workers get this roster, or hosts will run into."""
    found = []
    keys: list[SealingKey | TransportKey] = [*before.sealing_keys, *before.transport_keys]
    former = {key.kid: key.state for key in keys}
    keys = [*after.sealing_keys, *after.transport_keys]
    for key in keys:
        if key.kid not in former:
            found.append(
                f"key {key.kid} is new: the recovery worker refuses this roster until it has the key file and was"
                " started again; the prover needs it, too"
            )
        elif key.state is SealingKeyState.CLOSED and former[key.kid] is SealingKeyState.ACTIVE:
            found.append(
                f"key {key.kid} was active until now: what hosts have sealed to it and not yet sent is refused;"
                " accept it until they all have this roster, and close it then"
            )
    if before.transport_keys and all(key.state is SealingKeyState.CLOSED for key in after.transport_keys):
        found.append("no transport key is left: nothing that other programs wrap is taken any more")
    for worker, was, now in (
        (
            "escrow",
            (before.logs.escrow.public_key, before.replies.escrow),
            (after.logs.escrow.public_key, after.replies.escrow),
        ),
        (
            "recovery",
            (before.logs.recovery.public_key, before.replies.recovery),
            (after.logs.recovery.public_key, after.replies.recovery),
        ),
    ):
        if was != now:
            found.append(
                f"the {worker} worker has another key: first put its key file in place, then this roster, then"
                " start the worker again; until that is done nobody believes its answers, and hosts go on trying"
            )
    if before.logs.recovery.public_key != after.logs.recovery.public_key:
        found.append(
            "the recovery log has another key: every worker needs this roster file before it is started again"
        )
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
