"""The rosters that follow an authority's first: what may change, and in what order (SPEC 2.1, 2.11, 2.12)."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from strongroom import private_file
from strongroom.crypto.signing import SigningKey, key_id
from strongroom.errors import PermanentError, UsageError
from strongroom.fields import validated
from strongroom.key_cards import KeyCard, KeyUse
from strongroom.mandates import (
    Expectation,
    LogKey,
    LogKeys,
    Officer,
    Policy,
    ReplyKeys,
    RosterBody,
    SealingKey,
    SealingKeyState,
    TransportKey,
)
from strongroom.root_keys import judge_change
from strongroom.roster import Roster
from strongroom.statements import Statement

K = TypeVar("K", SealingKey, TransportKey)

ROSTER_LIFE_SECONDS: Final = 365 * 86_400


@dataclass(frozen=True, slots=True)
class Changes:
    """What the next roster says otherwise than the one before; without any it only renews that one.

    remove_officers: names; whoever is added under such a name has a new key or other roles. policy: new values, by
    the names of SPEC 2.3; `expected` takes the place of the whole list.
    add_keys: sealing and transport keys, accepted unless `states` says otherwise. states: kid → its new state; the
    one that becomes active becomes the first, and those that were active are accepted. remove_keys: kids.
    replace_keys: of logs and replies; the key that a log had goes to its former ones. distrust: key ids of former
    keys of logs. root_changes: statements that hand the root key over.
    """

    add_officers: Sequence[Officer] = ()
    remove_officers: Sequence[str] = ()
    policy: Mapping[str, int | Sequence[Expectation]] = field(default_factory=dict)
    add_keys: Sequence[KeyCard] = ()
    states: Mapping[str, SealingKeyState] = field(default_factory=dict)
    remove_keys: Sequence[str] = ()
    replace_keys: Sequence[KeyCard] = ()
    distrust: Sequence[str] = ()
    root_changes: Sequence[Statement] = ()


def next_roster(
    before: Roster, changes: Changes, key: SigningKey, *, now: int, life_seconds: int = ROSTER_LIFE_SECONDS
) -> Roster:
    """Sign the roster that follows `before`, and read it back as everybody who gets it will.

    Arguments: `key` is the root key that signed `before`, or the last one that `changes` hand it over to; `now` in
    seconds. Raises UsageError for an officer or key that is there already, or is not, for a change out of order,
    another root key, and a clock that is behind `before`; OfficerUnknown for one to be removed who is not there;
    RosterInvalid for officers, keys and a policy that do not fit; MalformedStatement and LimitExceeded for values
    out of bounds.
    """
    root_keys = _handed_over(before, changes.root_changes)
    if key.public_key != root_keys[-1]:
        raise UsageError(
            f"root key {key.key_id}: the next roster has to be signed by root key {key_id(root_keys[-1])}",
            hint="name its file with --root-key-file",
        )
    body = next_body(before, changes, now=now, life_seconds=life_seconds)
    after = Roster.verified(Statement.sign(RosterBody.TYPE, body.to_bytes(), key), before.root_keys[0])
    after.check_follows(before)
    return after


def next_body(before: Roster, changes: Changes, *, now: int, life_seconds: int) -> RosterBody:
    """Return the body of the roster that follows `before`: next version, its digest, new times, and the changes.

    Raises as `next_roster`, but RosterInvalid, which only the signed roster's readers find.
    """
    body = before.body
    if now < body.issued_at:
        raise UsageError(
            f"the roster before was signed {body.issued_at - now} s after what is now here",
            hint="set the clock of this machine",
        )
    _check_known(body, changes)
    unknown = changes.policy.keys() - Policy.model_fields.keys()
    if unknown:
        raise UsageError(f"policy: {min(unknown)} is none of {', '.join(Policy.model_fields)}")
    return validated(
        {
            **{name: getattr(body, name) for name in RosterBody.model_fields},
            "version": body.version + 1,
            "issued_at": now,
            "expires_at": now + life_seconds,
            "previous": before.digest.hex(),
            "officers": _officers(before, changes),
            "policy": validated({**body.policy.model_dump(), **changes.policy}, Policy),
            "sealing_keys": _keys(body.sealing_keys, changes, KeyUse.SEALING, KeyCard.sealing_key),
            "transport_keys": _keys(body.transport_keys, changes, KeyUse.TRANSPORT, KeyCard.transport_key),
            "logs": LogKeys(
                escrow=_log(body.logs.escrow, changes, KeyUse.ESCROW_LOG),
                recovery=_log(body.logs.recovery, changes, KeyUse.RECOVERY_LOG),
            ),
            "replies": ReplyKeys(
                escrow=_replaced(body.replies.escrow, changes, KeyUse.ESCROW_REPLY),
                recovery=_replaced(body.replies.recovery, changes, KeyUse.RECOVERY_REPLY),
            ),
            "root_changes": [*body.root_changes, *(each.envelope() for each in changes.root_changes)],
        },
        RosterBody,
    )


def _handed_over(before: Roster, changes: Iterable[Statement]) -> list[bytes]:
    """Return the root keys after these changes, each of which has to begin where the one before has led."""
    keys = [*before.root_keys]
    for statement in changes:
        try:
            change = judge_change(statement)
        except PermanentError as error:
            raise UsageError(f"root change: {error.message}") from None
        if change.authority != before.body.authority:
            raise UsageError(f"root change: is of the authority {change.authority!r}")
        if change.former != keys[-1]:
            raise UsageError(
                f"root change: hands over from root key {key_id(change.former)},"
                f" and the root key is {key_id(keys[-1])}"
            )
        keys.append(change.public_key)
    return keys


def _officers(before: Roster, changes: Changes) -> list[Officer]:
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
    return officers


def _check_cards(states: Mapping[str, SealingKeyState], changes: Changes) -> None:
    """Raise UsageError for cards of keys that are there already, or that stand elsewhere."""
    for card in changes.add_keys:
        if not card.use.is_added:
            raise UsageError(
                f"key card: is of the {card.words}", hint="a key that takes another's place goes with --replace-key"
            )
        if card.id in states:
            raise UsageError(f"{card.words} {card.id}: is in the roster already")
    for card in changes.replace_keys:
        if card.use.is_added:
            raise UsageError(
                f"key card: is of a {card.words}", hint="a key that stands beside the others goes with --add-key"
            )
    if len({card.use for card in changes.replace_keys}) != len(changes.replace_keys):
        raise UsageError("key cards: two of them take the place of the same key")


def _check_known(body: RosterBody, changes: Changes) -> None:
    """Raise UsageError for changes of keys that are not there, or not in a state for it."""
    states = {key.kid: key.state for key in body.sealing_keys} | {key.kid: key.state for key in body.transport_keys}
    _check_cards(states, changes)
    added = {card.id for card in changes.add_keys}
    unknown = [*(changes.states.keys() - states.keys() - added), *(set(changes.remove_keys) - states.keys())]
    if unknown:
        raise UsageError(
            f"kid {min(unknown)}: is no sealing or transport key of the roster", hint="`authority show` lists them"
        )
    for kid in changes.remove_keys:
        if states[kid] is not SealingKeyState.CLOSED:
            raise UsageError(
                f"kid {kid}: is {states[kid].value}, and only a closed key may leave the roster",
                hint="close it with --close, seal again what needs it with `authority reseal`, and remove it when"
                " `authority retire-key` has said yes",
            )
    former = {key_id(key) for log in (body.logs.escrow, body.logs.recovery) for key in log.former}
    for each in changes.distrust:
        if each not in former:
            raise UsageError(
                f"key {each}: is no former key of a log",
                hint="one in use is replaced first, with --replace-key; when its worker has signed with the new"
                " one, the next roster may distrust it",
            )


def _keys(
    keys: Iterable[K], changes: Changes, use: KeyUse, entry: Callable[[KeyCard, SealingKeyState], K]
) -> list[K]:
    added: list[K] = [entry(card, SealingKeyState.ACCEPTED) for card in changes.add_keys if card.use is use]
    there: list[K] = [key for key in keys if key.kid not in changes.remove_keys]
    there += added
    is_new = {key.kid: changes.states.get(key.kid) is SealingKeyState.ACTIVE for key in there}
    given: list[K] = []
    for key in there:
        is_over = any(is_new.values()) and key.state is SealingKeyState.ACTIVE
        state = changes.states.get(key.kid, SealingKeyState.ACCEPTED if is_over else key.state)
        given.append(key.model_copy(update={"state": state}))
    return sorted(given, key=lambda key: not is_new[key.kid])


def _log(log: LogKey, changes: Changes, use: KeyUse) -> LogKey:
    former = [key for key in log.former if key_id(key) not in changes.distrust]
    public_key = _replaced(log.public_key, changes, use)
    if public_key != log.public_key:
        former.append(log.public_key)
    return validated({"origin": log.origin, "public_key": public_key, "former": former}, LogKey)


def _replaced(public_key: bytes, changes: Changes, use: KeyUse) -> bytes:
    return next((card.public_key for card in changes.replace_keys if card.use is use), public_key)


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
