"""The authority's root keys, one after the other: who may sign a roster now (SPEC 2.12). Pure."""

from typing import Final

from strongroom import limits
from strongroom.crypto.signing import SigningKey, key_id
from strongroom.errors import PermanentError, RosterInvalid, SignatureInvalid
from strongroom.fields import parse_body, validated
from strongroom.mandates import RootChange, RosterBody
from strongroom.statements import Statement, decode_base64, parse_envelope, parse_json

_SIGNERS: Final = 2


def root_keys(statement: Statement, pinned: bytes) -> tuple[bytes, ...]:
    """Return the root keys that a roster goes by, oldest first: the last one has to have signed it.

    Of the roster `authority` and `root_changes` alone are read; nothing of it is verified but the changes, and each
    of these by both its keys. Without changes it is the pinned key alone. Arguments: `pinned` is 32 raw bytes.
    Raises RosterInvalid for changes that do not hold, and where the pinned key is none of these.
    """
    authority, envelopes = _head(statement)
    keys: list[bytes] = []
    for position, envelope in enumerate(envelopes):
        try:
            change = judge_change(parse_envelope(envelope))
        except PermanentError as error:
            raise RosterInvalid(f"root_changes.{position}: {error.message}") from None
        if change.authority != authority:
            raise RosterInvalid(f"root_changes.{position}: is of the authority {change.authority!r}")
        if keys and change.former != keys[-1]:
            raise RosterInvalid(f"root_changes.{position}: does not follow the change before it")
        keys = keys or [change.former]
        if change.public_key in keys:
            raise RosterInvalid(f"root_changes.{position}: goes back to an earlier root key")
        keys.append(change.public_key)
    if keys and pinned not in keys:
        raise RosterInvalid(f"root_changes: the pinned root key {key_id(pinned)} is none of these")
    return tuple(keys) or (pinned,)


def judge_change(statement: Statement) -> RootChange:
    """Return what a root-change says, after verifying both signatures of it, and that there is no other.

    Raises SignatureInvalid, MalformedStatement or LimitExceeded.
    """
    change = parse_body(statement, RootChange)
    signers = {key_id(change.former), key_id(change.public_key)}
    if len(statement.signatures) != _SIGNERS or {each.key_id for each in statement.signatures} != signers:
        raise SignatureInvalid("signatures: must be one by the root key, and one by the key that follows it")
    for key in (change.former, change.public_key):
        statement.verify_signature(key, key_id(key))
    return change


def sign_change(authority: str, former: SigningKey, new: SigningKey, *, now: int) -> Statement:
    """Hand over from one root key to another; both sign. `now` in seconds."""
    members = {
        "authority": authority,
        "issued_at": now,
        "former": former.public_key,
        "public_key": new.public_key,
    }
    change = validated(members, RootChange)
    return Statement.sign(RootChange.TYPE, change.to_bytes(), former, new)


def _head(statement: Statement) -> tuple[str, list[bytes]]:
    """Read the two members of a roster that say by which key it has to be signed.

    What is no roster, or not readable, has no changes: the pinned key's signature is asked for first then. Raises
    RosterInvalid for changes that are no list of so many envelopes.
    """
    try:
        document = parse_json(statement.body, what="roster") if statement.type == RosterBody.TYPE else None
    except PermanentError:
        document = None
    if not isinstance(document, dict):
        return "", []
    authority, changes = document.get("authority"), document.get("root_changes", [])
    if not isinstance(authority, str) or not isinstance(changes, list):
        raise RosterInvalid("roster: without an authority, or with root_changes that are no list")
    if len(changes) > limits.ROOT_CHANGES_MAX:
        raise RosterInvalid(f"root_changes: {len(changes)}, the limit is {limits.ROOT_CHANGES_MAX}")
    try:
        return authority, [decode_base64(each, "root_changes") for each in changes]
    except PermanentError as error:
        raise RosterInvalid(error.message) from None
