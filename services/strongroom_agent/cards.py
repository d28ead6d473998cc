"""Enrolment cards: the host makes the one-time key, and officers sign for its public half alone (SPEC 2.6).

The private half never leaves the host, so nobody who signs or carries the invitation can enrol with it.
"""

from pathlib import Path
from typing import Final, Literal, Self

from strongroom.crypto.key_file import read_signing_key, write_signing_key
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey, key_id
from strongroom.errors import InvitationInvalid, LimitExceeded, MalformedStatement, PermanentError, UsageError
from strongroom.fields import Part, Principal, PublicKey, validated
from strongroom.private_file import sync_folder
from strongroom.statements import canonical_json, parse_json
from strongroom_agent.home import Home, Role, lock_folder, os_error
from strongroom_agent.identity import check_folder, check_name, make_folder, one_time_key_file
from strongroom_agent.state import State

FORMAT: Final = "strongroom-card/v1"
CARD_BYTES_MAX: Final = 4_096


class EnrolmentCard(Part):
    """What a host shows to the officers: the name it wants to enrol under, and its one-time key (public)."""

    format: Literal["strongroom-card/v1"]
    principal: Principal
    one_time_key: PublicKey

    @classmethod
    def parse(cls, document: bytes) -> Self:
        """Read a card strictly; raises MalformedStatement or LimitExceeded naming the member at fault."""
        try:
            if len(document) > CARD_BYTES_MAX:
                raise LimitExceeded(f"{len(document)} bytes, the limit is {CARD_BYTES_MAX} bytes")
            return validated(parse_json(document, what="document"), cls)
        except PermanentError as error:
            raise MalformedStatement(
                f"enrolment card: {error.message}", hint="have the host print it again: `strongroom card NAME`"
            ) from None

    def to_bytes(self) -> bytes:
        """Write the card; it is public."""
        return canonical_json(self.model_dump(mode="json"))

    @property
    def key_id(self) -> str:
        """The id of the one-time key, for people to compare by another channel."""
        return key_id(self.one_time_key)


def make_card(path: Path, principal: str, *, passphrase: Secret | None) -> EnrolmentCard:
    """Make the one-time key in the home folder at `path`, if it is not there yet, and return the card for it.

    The key is on disk when this returns, under the passphrase if there is one; the same call gives the same card.
    Raises UsageError for a name that is none, a home that is enrolled, an officer's or begun for another name;
    ConfigurationInvalid for a folder that can be no home; KeyFileInvalid; Busy.
    """
    check_name("principal", principal)
    make_folder(path)
    with lock_folder(path):
        if (path / "config.toml").exists():
            _check_unenrolled(Home.open(path), principal)
        else:
            check_folder(path, for_host=True)
        file = one_time_key_file(path)
        if not file.exists():
            write_signing_key(file, SigningKey.generate(), passphrase)
        public_key = read_signing_key(file, passphrase).public_key
    return EnrolmentCard(format=FORMAT, principal=principal, one_time_key=public_key)


def _check_unenrolled(home: Home, principal: str) -> None:
    elsewhere = "name another folder with --home"
    if home.config.role is not Role.PRINCIPAL:
        raise UsageError(f"{home.path}: is an officer's home", hint=elsewhere)
    if home.config.name != principal:
        raise UsageError(f"{home.path}: was begun for {home.config.name}, not for {principal}", hint=elsewhere)
    with State.open(home.state_file) as state:
        if any(each.enrolled_at is not None for each in state.enrolments()):
            raise UsageError(f"{home.path}: is enrolled as {home.config.name} already", hint=elsewhere)


def own_one_time_key(path: Path, wanted: bytes, passphrase: Secret | None) -> SigningKey:
    """Read the one-time key of the home folder at `path`, which must be the one that officers signed for.

    Arguments: `wanted` is the public key (32 bytes) that the invitation names. Raises InvitationInvalid when it is
    another one or there is none, KeyFileInvalid.
    """
    file = one_time_key_file(path)
    if not file.exists():
        raise InvitationInvalid(
            f"one_time_key: the invitation is for key {key_id(wanted)} of the host, and {file} does not exist",
            hint="name with --home the folder in which `strongroom card` made the key; if that is lost, print a new"
            " card with `strongroom card NAME` and have the officers sign for it",
        )
    key = read_signing_key(file, passphrase)
    if key.public_key != wanted:
        raise InvitationInvalid(
            f"one_time_key: the invitation is for key {key_id(wanted)}, and {file} is {key.key_id}",
            hint="have the officers sign for this host's own card: `strongroom card NAME`",
        )
    return key


def discard_one_time_key(home: Home) -> None:
    """Remove the one-time key of a home that is enrolled, if it has one; gone from disk when this returns.

    Raises ConfigurationInvalid or TransientError for a folder that cannot be written.
    """
    file = one_time_key_file(home.path)
    try:
        if file.exists():
            file.unlink()
            sync_folder(home.path)
    except OSError as error:
        raise os_error(file, error) from None
