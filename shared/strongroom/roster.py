"""The chain of trust: root key → roster → officer → invitation → enrolment (SPEC section 2). Pure.

Every function takes the time as an argument and decides on bytes and values alone.
"""

from dataclasses import dataclass
from typing import Self

from strongroom import limits
from strongroom.crypto.sealing import kid, transport_kid
from strongroom.crypto.signing import key_id
from strongroom.errors import (
    Expired,
    InvitationInvalid,
    KeyUnknown,
    LimitExceeded,
    MalformedStatement,
    OfficerUnknown,
    RosterInvalid,
    SignatureInvalid,
    WrongAuthority,
)
from strongroom.fields import parse_body
from strongroom.mandates import (
    Enrolment,
    Invitation,
    LogKeys,
    Officer,
    Policy,
    Role,
    RosterBody,
    SealingKey,
    SealingKeyState,
    TransportKey,
)
from strongroom.root_keys import root_keys
from strongroom.statements import Statement, parse_envelope


@dataclass(frozen=True, slots=True)
class Roster:
    """A roster whose root signature was checked, with the digest of its statement.

    root_keys: the authority's root keys up to this roster, oldest first; the last one has signed it (SPEC 2.12).
    """

    body: RosterBody
    digest: bytes
    statement: Statement
    root_keys: tuple[bytes, ...]

    @classmethod
    def verified(cls, statement: Statement, root_key: bytes) -> Self:
        """Check a roster against a pinned root key (32 raw bytes), of now or of earlier, and its own rules.

        Expiry is not looked at: an expired roster still says who signed what in its time. SPEC 2.1, 2.2, 2.12.
        Raises RosterInvalid, or MalformedStatement and LimitExceeded for a body out of shape.
        """
        keys = root_keys(statement, root_key)
        try:
            statement.verify_signature(keys[-1], key_id(keys[-1]))
        except SignatureInvalid:
            which = "the pinned root key" if keys[-1] == root_key else f"root key {key_id(keys[-1])}, the last one,"
            raise RosterInvalid(
                f"roster: {which} did not sign it",
                hint="compare the root key's id with the authority's people, and name the roster and root.pub that"
                " belong together",
            ) from None
        body = parse_body(statement, RosterBody)
        _check_officers(body.officers)
        _check_policy(body.policy, body.officers)
        _check_sealing_keys(body.sealing_keys)
        _check_transport_keys(body.transport_keys)
        _check_logs(body.authority, body.logs)
        _check_keys(body, keys)
        if (body.version == 1) != (body.previous is None):
            raise RosterInvalid("previous: must be null in version 1 and in no other")
        return cls(body, statement.digest, statement, keys)

    @property
    def root_key(self) -> bytes:
        """The root key that signed this roster, 32 raw bytes."""
        return self.root_keys[-1]

    def verified_older(self, statement: Statement) -> "Roster":
        """Verify a roster of the same authority from before this one, perhaps by a root key of then.

        Who has pinned a later root key knows the earlier ones by the changes that this roster carries. Raises as
        `verified`, and RosterInvalid for one that this one does not follow.
        """
        older = Roster.verified(statement, self.root_keys[0])
        self.check_follows(older)
        return older

    def check_current(self, now: int) -> None:
        """Raise Expired when this roster is past its expiry, or dated in the future, at time `now` (seconds)."""
        check_issued(self.body.issued_at, now)
        if is_expired(self.body.expires_at, now):
            raise Expired(
                f"roster: version {self.body.version} expired at {self.body.expires_at}",
                hint="the authority's root key has to sign a new roster",
            )

    def check_follows(self, older: "Roster") -> None:
        """Raise RosterInvalid unless this roster may replace `older` (SPEC 2.4); the same roster may."""
        if self.body.authority != older.body.authority:
            raise RosterInvalid("authority: another authority's roster")
        if self.body.version < older.body.version:
            raise RosterInvalid(
                f"version: {self.body.version} is older than {older.body.version}, which was seen before"
            )
        if self.body.version == older.body.version and self.digest != older.digest:
            raise RosterInvalid(f"version: two different rosters say {self.body.version}")
        if self.body.version == older.body.version + 1 and self.body.previous != older.digest.hex():
            raise RosterInvalid("previous: is not the digest of the roster before it")
        self.check_root_keys_follow(older)

    def check_root_keys_follow(self, older: "Roster") -> None:
        """Raise RosterInvalid for a roster that lacks a change of the root key which an older one carries."""
        if self.root_keys[: len(older.root_keys)] != older.root_keys:
            raise RosterInvalid(
                f"root_changes: the root key was {key_id(older.root_key)} in version {older.body.version},"
                " and nothing here leads on from it"
            )

    def active_sealing_key(self) -> SealingKey:
        """Return the key that agents seal to: the first active one."""
        return next(key for key in self.body.sealing_keys if key.state is SealingKeyState.ACTIVE)

    def accepted_sealing_key(self, wanted: str) -> SealingKey:
        """Return the key of this kid if blobs sealed to it are still taken; else raise KeyUnknown."""
        for key in self.body.sealing_keys:
            if key.kid == wanted:
                if key.state is SealingKeyState.CLOSED:
                    raise KeyUnknown(f"kid: {wanted} is closed", hint="run `strongroom sync` and seal again")
                return key
        raise KeyUnknown(f"kid: {wanted} is not in roster version {self.body.version}")

    def accepted_transport_key(self, wanted: str) -> TransportKey:
        """Return the key of this kid if what others wrapped to it is still taken; else raise KeyUnknown."""
        for key in self.body.transport_keys:
            if key.kid == wanted:
                if key.state is SealingKeyState.CLOSED:
                    raise KeyUnknown(
                        f"wrapping: kid: {wanted} is closed", hint="wrap the key for another transport key"
                    )
                return key
        raise KeyUnknown(f"wrapping: kid: {wanted} is no transport key of roster version {self.body.version}")

    def officer(self, name: str, role: Role | None = None) -> Officer:
        """Return the officer of this name; raises OfficerUnknown without such an officer, or the role if given."""
        for officer in self.body.officers:
            if officer.name == name:
                if role is not None and role not in officer.roles:
                    raise OfficerUnknown(f"officer {name}: has no role {role.value!r}")
                return officer
        raise OfficerUnknown(f"officer {name}: is not in roster version {self.body.version}")

    def officers_who_signed(self, statement: Statement, role: Role) -> list[Officer]:
        """Return the distinct officers with `role` whose signatures on `statement` verify.

        Signatures by others are passed over; a wrong signature under an officer's key id raises
        SignatureInvalid, because somebody tampered.
        """
        by_key_id = {key_id(officer.public_key): officer for officer in self.body.officers}
        signers: dict[str, Officer] = {}
        for signature in statement.signatures:
            officer = by_key_id.get(signature.key_id)
            if officer is not None and role in officer.roles and officer.name not in signers:
                statement.verify_signature(officer.public_key, signature.key_id)
                signers[officer.name] = officer
        return list(signers.values())


def _check_officers(officers: list[Officer]) -> None:
    if len({officer.name for officer in officers}) != len(officers):
        raise RosterInvalid("officers: two have the same name")
    if len({officer.public_key for officer in officers}) != len(officers):
        raise RosterInvalid("officers: two have the same public key")


def _check_policy(policy: Policy, officers: list[Officer]) -> None:
    inviting = sum(Role.INVITE in officer.roles for officer in officers)
    if officers and policy.replacement_signatures > inviting:
        raise RosterInvalid(
            f"policy: replacement_signatures is {policy.replacement_signatures}, "
            f"and there are {inviting} officers with role 'invite'"
        )


def _check_sealing_keys(keys: list[SealingKey]) -> None:
    for key in keys:
        if key.kid != kid(key.suite, key.public_key):
            raise RosterInvalid(f"sealing_keys: kid {key.kid} is not the id of its public key")
    if len({key.kid for key in keys}) != len(keys):
        raise RosterInvalid("sealing_keys: two have the same kid")
    if all(key.state is not SealingKeyState.ACTIVE for key in keys):
        raise RosterInvalid("sealing_keys: none is active")


def _check_transport_keys(keys: list[TransportKey]) -> None:
    for key in keys:
        if key.kid != transport_kid(key.public_key):
            raise RosterInvalid(f"transport_keys: kid {key.kid} is not the id of its public key")
    if len({key.kid for key in keys}) != len(keys):
        raise RosterInvalid("transport_keys: two have the same kid")


def _check_logs(authority: str, logs: LogKeys) -> None:
    # One key or one origin for both would let a checkpoint of one log pass for the other's (SPEC 7.1).
    if (logs.escrow.origin, logs.recovery.origin) != (f"{authority}/escrow", f"{authority}/recovery"):
        raise RosterInvalid(f"logs: the origins must be {authority}/escrow and {authority}/recovery")
    if logs.escrow.public_key == logs.recovery.public_key:
        raise RosterInvalid("logs: both have the same public key")


def _check_keys(body: RosterBody, root_keys: tuple[bytes, ...]) -> None:
    # Each key speaks in one capacity; one that had two would let an officer pass for a worker.
    logs, replies = body.logs, body.replies
    keys = [*root_keys, replies.escrow, replies.recovery, *(officer.public_key for officer in body.officers)]
    for log in (logs.escrow, logs.recovery):
        keys += [log.public_key, *log.former]
    if len(set(keys)) != len(keys):
        raise RosterInvalid("roster: the same public key stands in two places")


@dataclass(frozen=True, slots=True)
class JudgedEnrolment:
    """An enrolment whose whole chain was checked."""

    enrolment: Enrolment
    invitation: Invitation
    statement: Statement
    key_id: str


def check_authority(theirs: str, roster: Roster) -> None:
    """Raise WrongAuthority unless a body's `authority` is the roster's (SPEC 1.6)."""
    if theirs != roster.body.authority:
        raise WrongAuthority(f"authority: is {theirs!r}, this is {roster.body.authority!r}")


def check_issued(issued_at: int, now: int) -> None:
    """Raise Expired for a statement dated beyond the clock skew into the future (SPEC section 9)."""
    if issued_at > now + limits.CLOCK_SKEW_SECONDS:
        raise Expired(
            f"issued_at: {issued_at - now} s in the future, the limit is {limits.CLOCK_SKEW_SECONDS} s",
            hint="set the clock of the host that signed it",
        )


def is_expired(expires_at: int, now: int) -> bool:
    """Say whether something is past its expiry by more than the clock skew (SPEC section 9)."""
    return expires_at < now - limits.CLOCK_SKEW_SECONDS


def check_unexpired(expires_at: int, now: int) -> None:
    """Raise Expired for a statement past its expiry by more than the clock skew (SPEC section 9)."""
    if is_expired(expires_at, now):
        raise Expired(f"expires_at: was {now - expires_at} s ago")


def check_life(issued_at: int, expires_at: int, seconds_max: int) -> None:
    """Raise LimitExceeded for a statement that claims a longer life than it may have, Expired for one with none."""
    if expires_at <= issued_at:
        raise Expired("expires_at: is not after issued_at")
    if expires_at - issued_at > seconds_max:
        raise LimitExceeded(f"expires_at: {expires_at - issued_at} s after issued_at, the limit is {seconds_max} s")


def judge_invitation(statement: Statement, roster: Roster) -> Invitation:
    """Check an invitation against a roster: authority, life, and as many officers as policy asks (SPEC 2.5).

    Whether it is expired or used is the caller's to ask, because an enrolment is judged again later.
    Raises InvitationInvalid, WrongAuthority, Expired, SignatureInvalid, MalformedStatement, LimitExceeded.
    """
    invitation = parse_body(statement, Invitation)
    check_authority(invitation.authority, roster)
    check_life(invitation.issued_at, invitation.expires_at, limits.INVITATION_LIFE_SECONDS_MAX)
    signers = roster.officers_who_signed(statement, Role.INVITE)
    needed = roster.body.policy.replacement_signatures if invitation.replaces else 1
    if len(signers) < needed:
        raise InvitationInvalid(
            f"invitation: signed by {len(signers)} officers with role 'invite', policy asks for {needed}",
            hint="have another officer run `strongroom countersign` on the invitation file",
        )
    return invitation


def judge_enrolment(statement: Statement, roster: Roster) -> JudgedEnrolment:
    """Check an enrolment's chain by the roster of its time (SPEC 2.7); errors as `judge_invitation`.

    Not looked at here: expiry of the invitation, whether it was used, whether the principal is enrolled.
    """
    enrolment = parse_body(statement, Enrolment)
    check_authority(enrolment.authority, roster)
    invitation = judge_invitation(parse_envelope(enrolment.invitation), roster)
    if not invitation.covers(enrolment.principal):
        raise InvitationInvalid(
            f"principal: the invitation is for {invitation.whom}, not for {enrolment.principal}"
        )
    if enrolment.signing_key == invitation.one_time_key:
        raise MalformedStatement("signing_key: must not be the invitation's one-time key")
    signer = key_id(enrolment.signing_key)
    statement.verify_signature(enrolment.signing_key, signer)
    statement.verify_signature(invitation.one_time_key, key_id(invitation.one_time_key))
    return JudgedEnrolment(enrolment, invitation, statement, signer)
