"""A small authority for tests: functions that build keys, rosters, invitations, enrolments, revocations, escrows.

Keys are made from their names, so that the same name gives the same key in every test. Nothing here checks
anything: a builder makes what it is asked for, also what a reader must refuse.
"""

import hashlib
from functools import cache
from typing import Any, Final

from strongroom.blobs import BlobContext, seal_material
from strongroom.crypto.sealing import PRIVATE_KEY_BYTES, PrivateSealingKey, Suite
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey, key_id
from strongroom.fields import Body, new_id, parse_body
from strongroom.leaves import EnrolmentLeaf, RevocationLeaf, RosterLeaf
from strongroom.mandates import (
    Enrolment,
    Invitation,
    LogKey,
    LogKeys,
    Officer,
    Policy,
    ReplyKeys,
    Revocation,
    Role,
    RosterBody,
    SealingKey,
    SealingKeyState,
)
from strongroom.messages import Escrow, Record
from strongroom.registry import Registry
from strongroom.roster import Roster
from strongroom.statements import Statement, canonical_json, parse_envelope

AUTHORITY: Final = "backup.example.org"
PRINCIPAL: Final = "laptop-0417"
NOW: Final = 1_800_000_000
DAY: Final = 86_400


# ---- keys ----


@cache
def signing_key(name: str) -> SigningKey:
    """Return the Ed25519 key of this name: `root`, `officer-a`, a principal, whatever the test calls it."""
    return SigningKey.from_seed(Secret(hashlib.sha256(b"test signing key " + name.encode()).digest()))


@cache
def sealing_key(name: str = "sealing", suite: Suite = Suite.X_WING) -> PrivateSealingKey:
    """Return the sealing key pair of this name."""
    seed = hashlib.shake_256(b"test sealing key " + name.encode()).digest(PRIVATE_KEY_BYTES[suite])
    return PrivateSealingKey.from_bytes(suite, Secret(seed))


# ---- statements ----


def signed(body: Body, *keys: SigningKey) -> Statement:
    """Sign a body with each key, in this order; without keys the statement has no signature."""
    return Statement.sign(body.TYPE, body.to_bytes(), *keys)


def altered(body: Body, **changes: Any) -> bytes:
    """Return body bytes in which members hold other JSON values, valid or not; `...` leaves a member out."""
    document = body.model_dump(mode="json") | changes
    return canonical_json({name: value for name, value in document.items() if value is not ...})


# ---- roster ----


def officer(name: str, *roles: Role) -> Officer:
    """Return an officer whose key is `signing_key(name)`; without roles given, one who may do everything."""
    return Officer(name=name, public_key=signing_key(name).public_key, roles=list(roles or Role))


def sealing_entry(
    key: PrivateSealingKey | None = None, state: SealingKeyState = SealingKeyState.ACTIVE
) -> SealingKey:
    """Return the roster's entry for a sealing key."""
    key = key or sealing_key()
    return SealingKey(kid=key.kid, suite=key.suite, public_key=key.public_key, state=state)


def roster_body(**changes: Any) -> RosterBody:
    """Return a roster body: officers a and b with every role, c with audit only, default policy; or as given."""
    members: dict[str, Any] = {
        "authority": AUTHORITY,
        "version": 1,
        "issued_at": NOW - DAY,
        "expires_at": NOW + 365 * DAY,
        "previous": None,
        "sealing_keys": [sealing_entry()],
        "logs": LogKeys(
            escrow=LogKey(origin=f"{AUTHORITY}/escrow", public_key=signing_key("escrow log").public_key),
            recovery=LogKey(origin=f"{AUTHORITY}/recovery", public_key=signing_key("recovery log").public_key),
        ),
        "replies": ReplyKeys(
            escrow=signing_key("escrow replies").public_key, recovery=signing_key("recovery replies").public_key
        ),
        "officers": [officer("officer-a"), officer("officer-b"), officer("officer-c", Role.AUDIT)],
        "policy": Policy(),
    }
    return RosterBody(**(members | changes))


def roster(**changes: Any) -> Roster:
    """Return a roster signed by `signing_key("root")` and verified; members as for `roster_body`."""
    root = signing_key("root")
    return Roster.verified(signed(roster_body(**changes), root), root.public_key)


def next_roster(before: Roster, **changes: Any) -> Roster:
    """Return the roster that follows `before`: same members but for the version, `previous` and what is given."""
    members = {name: getattr(before.body, name) for name in RosterBody.model_fields}
    chained = {"version": before.body.version + 1, "previous": before.digest.hex()}
    return roster(**(members | chained | changes))


# ---- invitation and enrolment ----


def invitation_body(principal: str = PRINCIPAL, **changes: Any) -> Invitation:
    """Return an invitation for a first enrolment, a day long, whose one-time key is `signing_key("one-time")`.

    With a `prefix` it names no principal, and with `uses` it may enrol as many; members as given.
    """
    members: dict[str, Any] = {
        "authority": AUTHORITY,
        "id": new_id(),
        "issued_at": NOW,
        "expires_at": NOW + DAY,
        "principal": None if "prefix" in changes else principal,
        "prefix": None,
        "uses": 1,
        "one_time_key": signing_key("one-time").public_key,
        "replaces": False,
    }
    return Invitation(**(members | changes))


def invitation(
    principal: str = PRINCIPAL, *, officers: tuple[str, ...] = ("officer-a",), **changes: Any
) -> Statement:
    """Return an invitation signed by these officers."""
    return signed(invitation_body(principal, **changes), *map(signing_key, officers))


def enrolment_body(
    invited: Statement, principal: str = PRINCIPAL, *, key: str | None = None, **changes: Any
) -> Enrolment:
    """Return the enrolment of `signing_key(key)`, by default named as the principal, on this invitation."""
    members: dict[str, Any] = {
        "authority": AUTHORITY,
        "id": new_id(),
        "issued_at": NOW,
        "principal": principal,
        "signing_key": signing_key(key or principal).public_key,
        "invitation": invited.envelope(),
    }
    return Enrolment(**(members | changes))


def enrolment(
    invited: Statement, principal: str = PRINCIPAL, *, key: str | None = None, **changes: Any
) -> Statement:
    """Return an enrolment signed by the new key and by `signing_key("one-time")`."""
    body = enrolment_body(invited, principal, key=key, **changes)
    return signed(body, signing_key(key or principal), signing_key("one-time"))


# ---- revocation ----


def revocation_body(principal: str = PRINCIPAL, **changes: Any) -> Revocation:
    """Return officer a's revocation of a principal with all its keys; members as given."""
    members: dict[str, Any] = {
        "authority": AUTHORITY,
        "id": new_id(),
        "issued_at": NOW,
        "officer": "officer-a",
        "principal": principal,
        "key": None,
        "reason": "the host was stolen",
    }
    return Revocation(**(members | changes))


def revocation(principal: str = PRINCIPAL, *, signer: str | None = None, **changes: Any) -> Statement:
    """Return a revocation signed by `signing_key(signer)`, by default that of the officer it names."""
    body = revocation_body(principal, **changes)
    return signed(body, signing_key(signer or body.officer))


# ---- log leaves and the registry ----


def roster_leaf(logged: Roster) -> bytes:
    """Return the recovery log's leaf that puts a roster in force."""
    return RosterLeaf(time=NOW, version=logged.body.version, digest=logged.digest.hex()).to_bytes()


def enrolment_leaf(statement: Statement, **changes: Any) -> bytes:
    """Return the recovery log's leaf of an enrolment; members as given."""
    body = parse_body(statement, Enrolment)
    members: dict[str, Any] = {
        "time": NOW,
        "id": body.id,
        "digest": statement.digest.hex(),
        "principal": body.principal,
        "key": key_id(body.signing_key),
        "invitation": parse_body(parse_envelope(body.invitation), Invitation).id,
    }
    return EnrolmentLeaf(**(members | changes)).to_bytes()


def revocation_leaf(statement: Statement, **changes: Any) -> bytes:
    """Return the recovery log's leaf of a revocation; members as given."""
    body = parse_body(statement, Revocation)
    members: dict[str, Any] = {
        "time": NOW,
        "id": body.id,
        "digest": statement.digest.hex(),
        "officer": body.officer,
        "principal": body.principal,
        "key": body.key,
    }
    return RevocationLeaf(**(members | changes)).to_bytes()


def registry(*principals: str, bootstrap: Roster | None = None) -> Registry:
    """Return a registry whose log put the roster in force and then enrolled these principals; all admitted."""
    bootstrap = bootstrap or roster()
    made = Registry(signing_key("root").public_key, bootstrap)
    made.apply(roster_leaf(bootstrap))
    made.admit_roster(bootstrap.statement)
    for principal in principals:
        statement = enrolment(invitation(principal), principal)
        made.apply(enrolment_leaf(statement))
        made.admit_enrolment(principal, statement)
    return made


# ---- escrow ----


def record(principal: str = PRINCIPAL, *, material: bytes = b"a session key", **changes: Any) -> Record:
    """Return a record whose blob holds `material`, sealed to `sealing_key()` in its place."""
    key = sealing_key()
    record_id: str = changes.get("id") or new_id()
    sealed = seal_material(
        Secret(material), BlobContext(AUTHORITY, principal, record_id, key.kid, key.suite), key.public_key
    )
    members: dict[str, Any] = {
        "id": record_id,
        "name": "disk/root",
        "kind": "session-key",
        "description": "key of the root file system",
        "serial_number": "S3Z8NB0K",
        "algorithm": "AES-256",
        "fingerprint": sealed.fingerprint,
        "labels": {"site": "north"},
        "kid": key.kid,
        "suite": key.suite,
        "blob": sealed.blob,
    }
    return Record(**(members | changes))


def escrow_body(principal: str = PRINCIPAL, **changes: Any) -> Escrow:
    """Return an escrow body, by default with one record."""
    members: dict[str, Any] = {
        "authority": AUTHORITY,
        "id": new_id(),
        "issued_at": NOW,
        "principal": principal,
    }
    if "records" not in changes:
        members["records"] = [record(principal)]
    return Escrow(**(members | changes))


def escrow(principal: str = PRINCIPAL, *, key: str | None = None, **changes: Any) -> Statement:
    """Return an escrow statement signed by `signing_key(key)`, by default named as the principal."""
    return signed(escrow_body(principal, **changes), signing_key(key or principal))
