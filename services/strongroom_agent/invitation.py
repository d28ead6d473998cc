"""Invitation files: written and countersigned by officers, read once by the host they are for (SPEC 2.5, 2.6)."""

import time
from base64 import b64encode
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from strongroom import limits
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SEED_BYTES, SigningKey, key_id
from strongroom.errors import (
    ConfigurationInvalid,
    InvitationInvalid,
    LimitExceeded,
    MalformedStatement,
    PermanentError,
    RosterInvalid,
    UsageError,
)
from strongroom.fields import new_id, parse_body, validated
from strongroom.mandates import Invitation, Role
from strongroom.roster import Roster, check_authority, check_issued, check_life, check_unexpired, judge_invitation
from strongroom.statements import (
    Statement,
    canonical_json,
    decode_base64,
    parse_envelope,
    parse_json,
    statement_from_document,
)
from strongroom_agent.cards import EnrolmentCard
from strongroom_agent.home import Home
from strongroom_agent.identity import check_officer, signing_key
from strongroom_agent.state import State
from strongroom_agent.trust import Trust

FORMAT: Final = "strongroom-invitation/v1"
FILE_BYTES_MAX: Final = 4_194_304
DEFAULT_LIFE_SECONDS: Final = 7 * 86_400

_MEMBERS: Final = {"format", "invitation", "one_time_key", "root_key", "roster", "broker"}
_PUBLIC_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class InvitationFile:
    """What an invitation file holds; nothing in it is verified until `check` returns.

    one_time_key: None when the host has made it and keeps it. broker_ca: the CA of the broker's certificate (PEM);
    None means the system's own.
    """

    invitation: Statement
    one_time_key: SigningKey | None
    root_key: bytes
    roster: Statement
    broker_url: str = field(repr=False)
    broker_ca: str | None = field(repr=False)

    @classmethod
    def parse(cls, document: bytes) -> Self:
        """Read a file strictly; raises InvitationInvalid naming the member at fault."""
        try:
            if len(document) > FILE_BYTES_MAX:
                raise LimitExceeded(f"{len(document)} bytes, the limit is {FILE_BYTES_MAX} bytes")
            return cls._read(parse_json(document, what="document"))
        except PermanentError as error:
            raise InvitationInvalid(
                f"invitation file: {error.message}", hint="ask the officer for the file again"
            ) from None

    @classmethod
    def _read(cls, document: object) -> Self:
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise MalformedStatement(f"format: must be {FORMAT!r}")
        if document.keys() != _MEMBERS:
            raise MalformedStatement(f"its members must be exactly {', '.join(sorted(_MEMBERS))}")
        broker = document["broker"]
        if not isinstance(broker, dict) or broker.keys() != {"url", "ca"}:
            raise MalformedStatement("broker: its members must be exactly url and ca")
        if not isinstance(broker["url"], str) or not isinstance(broker["ca"], str | None):
            raise MalformedStatement("broker: url must be text, ca text or null")
        return cls(
            invitation=statement_from_document(document["invitation"]),
            one_time_key=_one_time_key(document["one_time_key"]),
            root_key=_key(document["root_key"], "root_key", _PUBLIC_KEY_BYTES),
            roster=statement_from_document(document["roster"]),
            broker_url=broker["url"],
            broker_ca=broker["ca"],
        )

    def to_bytes(self) -> bytes:
        """Write the file; with a one-time key in it, it is a secret until the invitation was used."""
        one_time_key = self.one_time_key
        return canonical_json(
            {
                "format": FORMAT,
                "invitation": self.invitation.document(),
                "one_time_key": b64encode(one_time_key.seed().expose()).decode() if one_time_key else None,
                "root_key": b64encode(self.root_key).decode(),
                "roster": self.roster.document(),
                "broker": {"url": self.broker_url, "ca": self.broker_ca},
            }
        )

    def check(self, now: int) -> tuple[Roster, Invitation]:
        """Verify the whole chain from the file's root key down, as the authority will (SPEC 2.2, 2.5).

        Raises RosterInvalid, Expired, InvitationInvalid, WrongAuthority, SignatureInvalid, MalformedStatement or
        LimitExceeded.
        """
        roster = Roster.verified(self.roster, self.root_key)
        roster.check_current(now)
        invitation = judge_invitation(self.invitation, roster)
        check_issued(invitation.issued_at, now)
        check_unexpired(invitation.expires_at, now)
        if self.one_time_key is not None and invitation.one_time_key != self.one_time_key.public_key:
            raise InvitationInvalid("one_time_key: is not the one that the officers signed for")
        return roster, invitation

    def check_same_authority(self, pinned: bytes, newest: Roster) -> None:
        """Raise RosterInvalid unless the file's root key is the one that a home has pinned, or akin to it.

        That is one which changes of the root key, signed by both, lead to or come from (SPEC 2.12). Arguments:
        what is pinned, and the newest roster of the home.
        """
        if self.root_key == pinned or self.root_key in newest.root_keys:
            return
        if pinned not in Roster.verified(self.roster, self.root_key).root_keys:
            raise RosterInvalid(
                f"root_key: the file pins another root key, {key_id(self.root_key)}, than this home,"
                f" {key_id(pinned)}, and no change leads from one to the other"
            )


def _one_time_key(text: object) -> SigningKey | None:
    if text is None:
        return None
    return SigningKey.from_seed(Secret(_key(text, "one_time_key", SEED_BYTES)))


def _key(text: object, field_name: str, length: int) -> bytes:
    value = decode_base64(text, field_name)
    if len(value) != length:
        raise MalformedStatement(f"{field_name}: {len(value)} bytes, must be {length}")
    return value


@dataclass(frozen=True, slots=True)
class IssuedInvitation:
    """An invitation as far as officers have signed it.

    document: the file for the host; a secret unless `host_made_key`, which says that the file holds no private
    key, so that only whoever made the one-time key can use it. signed_by: the officers whose signatures count.
    signatures_missing: how many more officers have to countersign it before it can be used. remark: why a
    countersignature was not added, or not needed; None when it was of use.
    """

    document: bytes = field(repr=False)
    statement: Statement
    invitation: Invitation
    host_made_key: bool
    signed_by: tuple[str, ...]
    signatures_missing: int
    remark: str | None = None


def invite(
    path: Path,
    principal: str | None = None,
    *,
    prefix: str | None = None,
    uses: int = 1,
    card: EnrolmentCard | None = None,
    now: int | None = None,
    replaces: bool = False,
    life_seconds: int = DEFAULT_LIFE_SECONDS,
    passphrase: Secret | None = None,
) -> IssuedInvitation:
    """Invite a host to enrol as `principal`, signed by the officer who owns the home at `path`.

    Arguments: `prefix` instead of `principal` invites `uses` new principals whose names begin with it; `card` is
    that of a host which made the one-time key itself, and names the principal; `now` in seconds, by default the
    clock's; `replaces` lets it take over from the key that is enrolled now, and needs further signatures;
    `life_seconds` from 1 to INVITATION_LIFE_SECONDS_MAX.
    Raises UsageError for a card of another principal, OfficerUnknown, Expired (roster), KeyFileInvalid,
    ConfigurationInvalid, LimitExceeded or MalformedStatement.
    """
    if card is not None and (prefix is not None or principal not in (None, card.principal)):
        raise UsageError(
            f"the card is that of {card.principal}", hint="invite that principal, or leave the card out"
        )
    home, now = Home.open(path), _now(now)
    authority, _ = home.authority()
    if not 1 <= life_seconds <= limits.INVITATION_LIFE_SECONDS_MAX:
        raise LimitExceeded(f"life: the limit is 1 to {limits.INVITATION_LIFE_SECONDS_MAX} seconds")
    url, broker_ca = _agents_broker(home)
    roster = _current_roster(home, now)
    check_officer(home, roster, Role.INVITE)
    one_time_key: SigningKey | None = None
    if card is None:
        one_time_key = SigningKey.generate()
        public_key = one_time_key.public_key
    else:
        principal, public_key = card.principal, card.one_time_key
    invitation = validated(
        {
            "authority": authority,
            "id": new_id(),
            "issued_at": now,
            "expires_at": now + life_seconds,
            "principal": principal,
            "prefix": prefix,
            "uses": uses,
            "one_time_key": public_key,
            "replaces": replaces,
        },
        Invitation,
    )
    file = InvitationFile(
        invitation=Statement.sign(Invitation.TYPE, invitation.to_bytes(), signing_key(home, passphrase)),
        one_time_key=one_time_key,
        root_key=roster.root_key,
        roster=roster.statement,
        broker_url=url,
        broker_ca=broker_ca,
    )
    return _issued(file, roster, invitation)


def received(envelope: bytes, path: Path, *, now: int | None = None) -> IssuedInvitation:
    """Return an invitation that came over the queue as the officer who owns the home at `path` may sign it.

    Its `document` is what `countersign` takes: the file is completed from the officer's home. Raises as
    `countersign`, and InvitationInvalid for one that no officer has signed.
    """
    home, now = Home.open(path), _now(now)
    url, broker_ca = _agents_broker(home)
    roster = _current_roster(home, now)
    statement = parse_envelope(envelope)
    invitation = _signable(statement, roster, now)
    issued = _issued(
        InvitationFile(
            invitation=statement,
            one_time_key=None,
            root_key=roster.root_key,
            roster=roster.statement,
            broker_url=url,
            broker_ca=broker_ca,
        ),
        roster,
        invitation,
    )
    if not issued.signed_by:
        raise InvitationInvalid(f"invitation {invitation.id}: no officer has signed it")
    return issued


def countersign(
    document: bytes, path: Path, *, now: int | None = None, passphrase: Secret | None = None
) -> IssuedInvitation:
    """Add the signature of the officer who owns the home at `path` to an invitation file; once is enough.

    Raises InvitationInvalid, RosterInvalid when the file pins another root key, OfficerUnknown, Expired,
    WrongAuthority, SignatureInvalid, KeyFileInvalid.
    """
    home, now = Home.open(path), _now(now)
    file = InvitationFile.parse(document)
    with State.open(home.state_file) as state:
        file.check_same_authority(home.authority()[1], Trust.of(home, state).newest)
    roster = _current_roster(home, now, newer=file.roster)
    check_officer(home, roster, Role.INVITE)
    invitation = _signable(file.invitation, roster, now)
    file = replace(file, roster=roster.statement)
    before = _issued(file, roster, invitation)
    if home.config.name in before.signed_by:
        return replace(before, remark="you have signed it already: nothing was added")
    signed = file.invitation.countersigned(signing_key(home, passphrase))
    remark = None if before.signatures_missing else "it needed no more signatures"
    return replace(_issued(replace(file, invitation=signed), roster, invitation), remark=remark)


def _signable(statement: Statement, roster: Roster, now: int) -> Invitation:
    invitation = parse_body(statement, Invitation)
    check_authority(invitation.authority, roster)
    check_issued(invitation.issued_at, now)
    check_unexpired(invitation.expires_at, now)
    check_life(invitation.issued_at, invitation.expires_at, limits.INVITATION_LIFE_SECONDS_MAX)
    return invitation


def _agents_broker(home: Home) -> tuple[str, str | None]:
    """Return the broker's URL for hosts and its CA (PEM), as invitations hand them out."""
    url = home.config.agents_broker_url or home.config.broker_url
    if url is None:
        raise ConfigurationInvalid(f"{home.path}: agents_broker_url: is missing", hint="add it to config.toml")
    return url, home.broker_ca.read_text() if home.broker_ca else None


def _now(now: int | None) -> int:
    return int(time.time()) if now is None else now


def _current_roster(home: Home, now: int, newer: Statement | None = None) -> Roster:
    """Return the roster of a home, after a look at one that may be newer."""
    with State.open(home.state_file) as state:
        trust = Trust.of(home, state)
        if newer is not None:
            roster = Roster.verified(newer, trust.newest.root_keys[0])
            if roster.body.version >= trust.newest.body.version:
                trust.adopt(newer, now)
        return trust.current(now)


def _issued(file: InvitationFile, roster: Roster, invitation: Invitation) -> IssuedInvitation:
    signers = roster.officers_who_signed(file.invitation, Role.INVITE)
    needed = roster.body.policy.replacement_signatures if invitation.replaces else 1
    return IssuedInvitation(
        document=file.to_bytes(),
        statement=file.invitation,
        invitation=invitation,
        host_made_key=file.one_time_key is None,
        signed_by=tuple(officer.name for officer in signers),
        signatures_missing=max(0, needed - len(signers)),
    )
