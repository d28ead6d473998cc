"""The keys of an authority and of its officers, and what they sign: rosters and invitations."""

import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Final

from strongroom.crypto.rsa import PrivateRsaKey
from strongroom.crypto.sealing import PrivateSealingKey, Suite, transport_kid
from strongroom.crypto.signing import SigningKey
from strongroom.fields import new_id
from strongroom.mandates import (
    Invitation,
    LogKey,
    LogKeys,
    Officer,
    Policy,
    ReplyKeys,
    Role,
    RosterBody,
    SealingKey,
    SealingKeyState,
    TransportKey,
)
from strongroom.roster import Roster
from strongroom.statements import Statement, canonical_json
from strongroom.testing.log import FakeLog

ROSTER_LIFE_SECONDS: Final = 365 * 86_400


class FakeTrust:
    """Everything that signs: root key, officers (name → key), logs, reply keys; and the sealing keys, newest first.

    `transport_keys`, newest first, are none until they are put there and the roster is renewed.
    `roster` is the one in force; `officer_keys` are the public keys of all officers in it, `officer_roles` the
    roles of those who do not have every role.
    """

    def __init__(
        self,
        name: str = "vault.example",
        *,
        clock: Callable[[], float] = time.time,
        suite: Suite = Suite.X_WING,
        policy: Policy | None = None,
        officers: Sequence[str] = ("officer-1", "officer-2", "officer-3"),
    ) -> None:
        """Make all keys and roster version 1; `clock` gives seconds since 1970."""
        self.name = name
        self._clock = clock
        self._policy = policy or Policy()
        self.root = SigningKey.generate()
        self.officers = {officer: SigningKey.generate() for officer in officers}
        self.officer_keys = {officer: key.public_key for officer, key in self.officers.items()}
        self.officer_roles: dict[str, Sequence[Role]] = {}
        self.escrow_log = FakeLog(f"{name}/escrow")
        self.recovery_log = FakeLog(f"{name}/recovery")
        self.escrow_reply_key = SigningKey.generate()
        self.recovery_reply_key = SigningKey.generate()
        self.sealing_keys = [PrivateSealingKey.generate(suite)]
        self.transport_keys: list[PrivateRsaKey] = []
        self.roster = self._sign_roster(previous=None, expires_at=self.now + ROSTER_LIFE_SECONDS)

    @property
    def now(self) -> int:
        """The authority's time in seconds."""
        return int(self._clock())

    def renew_roster(
        self, *, new_sealing_key: bool = False, expires_at: int | None = None, policy: Policy | None = None
    ) -> Roster:
        """Sign and put in force the next roster, with another policy or the same.

        With a new sealing key, the old one is only accepted any more.
        """
        self._policy = policy or self._policy
        if new_sealing_key:
            self.sealing_keys.insert(0, PrivateSealingKey.generate(self.sealing_keys[0].suite))
        self.roster = self._sign_roster(
            previous=self.roster, expires_at=expires_at or self.now + ROSTER_LIFE_SECONDS
        )
        return self.roster

    def name_officer(self, name: str, public_key: bytes) -> Roster:
        """Put in force a roster that names one more officer, who keeps the private key to himself."""
        self.officer_keys[name] = public_key
        return self.renew_roster()

    def _sign_roster(self, *, previous: Roster | None, expires_at: int) -> Roster:
        public_keys = [key.public_key.to_spki() for key in self.transport_keys]
        body = RosterBody(
            authority=self.name,
            version=previous.body.version + 1 if previous else 1,
            issued_at=self.now,
            expires_at=expires_at,
            previous=previous.digest.hex() if previous else None,
            sealing_keys=[
                SealingKey(kid=key.kid, suite=key.suite, public_key=key.public_key, state=state)
                for key, state in zip(self.sealing_keys, _states(self.sealing_keys), strict=True)
            ],
            transport_keys=[
                TransportKey(kid=transport_kid(key), public_key=key, state=state)
                for key, state in zip(public_keys, _states(public_keys), strict=True)
            ],
            logs=LogKeys(
                escrow=LogKey(origin=self.escrow_log.origin, public_key=self.escrow_log.key.public_key),
                recovery=LogKey(origin=self.recovery_log.origin, public_key=self.recovery_log.key.public_key),
            ),
            replies=ReplyKeys(escrow=self.escrow_reply_key.public_key, recovery=self.recovery_reply_key.public_key),
            officers=[
                Officer(name=name, public_key=key, roles=list(self.officer_roles.get(name, Role)))
                for name, key in self.officer_keys.items()
            ],
            policy=self._policy,
        )
        return Roster.verified(Statement.sign(RosterBody.TYPE, body.to_bytes(), self.root), self.root.public_key)

    def invitation_file(
        self,
        principal: str | None,
        *,
        prefix: str | None = None,
        uses: int = 1,
        one_time_key: bytes | None = None,
        replaces: bool = False,
        signers: Sequence[str] | None = None,
        life_seconds: int = 3600,
        broker_url: str = "amqp://fleet:no-secret@broker.example/strongroom",
        broker_ca: str | None = None,
    ) -> bytes:
        """Return an invitation file (SPEC 2.6), signed by as many officers as policy asks or by `signers`.

        one_time_key: the public key of a host that has made it itself; the file then holds no secret.
        """
        made = SigningKey.generate()
        body = Invitation(
            authority=self.name,
            id=new_id(),
            issued_at=self.now,
            expires_at=self.now + life_seconds,
            principal=principal,
            prefix=prefix,
            uses=uses,
            one_time_key=one_time_key or made.public_key,
            replaces=replaces,
        )
        needed = self._policy.replacement_signatures if replaces else 1
        names = list(self.officers)[:needed] if signers is None else signers
        statement = Statement.sign(Invitation.TYPE, body.to_bytes(), *(self.officers[name] for name in names))
        return canonical_json(
            {
                "format": "strongroom-invitation/v1",
                "invitation": statement.document(),
                "one_time_key": None if one_time_key else b64encode(made.seed().expose()).decode(),
                "root_key": b64encode(self.root.public_key).decode(),
                "roster": self.roster.statement.document(),
                "broker": {"url": broker_url, "ca": broker_ca},
            }
        )


def _states(keys: Sequence[object]) -> list[SealingKeyState]:
    """Return the states of keys, newest first."""
    return [SealingKeyState.ACCEPTED if position else SealingKeyState.ACTIVE for position in range(len(keys))]
