"""Key cards: the public half of a new key of the authority, on its way to the machine that has the root key.

One JSON object, `{"format": "strongroom-key-card/v1", "use", "id", "suite", "public_key"}`: `use` says what the key
is for, `id` is that of its public key, `suite` is null but for a sealing key. It is public; who signs the roster
compares the id by another way.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from strongroom.crypto.key_file import write_sealing_key, write_signing_key
from strongroom.crypto.rsa import PrivateRsaKey, RsaPublicKey, check_recipient
from strongroom.crypto.sealing import PUBLIC_KEY_BYTES, PrivateSealingKey, Suite, kid, transport_kid
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import PUBLIC_KEY_BYTES as SIGNING_KEY_BYTES
from strongroom.crypto.signing import SigningKey, key_id
from strongroom.crypto.transport_key_file import write_transport_key
from strongroom.errors import ConfigurationInvalid, PermanentError
from strongroom.fields import Bytes, KeyId, Part, SuiteText, validated
from strongroom.mandates import SealingKey, SealingKeyState, TransportKey
from strongroom.statements import canonical_json, parse_json

FORMAT: Final = "strongroom-key-card/v1"
CARD_BYTES_MAX: Final = 16_384
TRANSPORT_BITS: Final = 3072


class KeyUse(StrEnum):
    """What a key of the authority is for; the value is the word on the command line."""

    SEALING = "sealing"
    TRANSPORT = "transport"
    ESCROW_LOG = "escrow-log"
    RECOVERY_LOG = "recovery-log"
    ESCROW_REPLY = "escrow-reply"
    RECOVERY_REPLY = "recovery-reply"

    @property
    def worker(self) -> str:
        """The worker that holds it, and the name of its folder."""
        return "escrow" if self in (KeyUse.ESCROW_LOG, KeyUse.ESCROW_REPLY) else "recovery"

    @property
    def is_of_a_log(self) -> bool:
        """Whether checkpoints of a log are signed with it."""
        return self in (KeyUse.ESCROW_LOG, KeyUse.RECOVERY_LOG)

    @property
    def is_added(self) -> bool:
        """Whether a roster has several such keys; else it has one, and another takes its place."""
        return self in (KeyUse.SEALING, KeyUse.TRANSPORT)

    @property
    def file(self) -> str:
        """The usual path of its file below the authority's folder, where there is only one such key."""
        return f"{self.worker}/{'log' if self.is_of_a_log else 'reply'}.key"


class KeyCard(Part):
    """A new public key: use, id, suite of a sealing key, public key (a transport key's SubjectPublicKeyInfo)."""

    format: Literal["strongroom-key-card/v1"] = FORMAT
    use: Annotated[KeyUse, Field(strict=False)]
    id: KeyId
    suite: SuiteText | None
    public_key: Bytes

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if (self.suite is not None) != (self.use is KeyUse.SEALING):
            raise ValueError("suite: a sealing key has one, and no other key")
        if self.suite is not None:
            expected, length = kid(self.suite, self.public_key), PUBLIC_KEY_BYTES[self.suite]
        elif self.use is KeyUse.TRANSPORT:
            _check_transport(self.public_key)
            expected, length = transport_kid(self.public_key), len(self.public_key)
        else:
            expected, length = key_id(self.public_key), SIGNING_KEY_BYTES
        if len(self.public_key) != length:
            raise ValueError(f"public_key: {len(self.public_key)} bytes, must be {length}")
        if self.id != expected:
            raise ValueError("id: is not the id of the public key")
        return self

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a card strictly; raises ConfigurationInvalid naming what is wrong with it."""
        try:
            if len(data) > CARD_BYTES_MAX:
                raise ConfigurationInvalid(f"{len(data)} bytes, the limit is {CARD_BYTES_MAX} bytes")
            return validated(parse_json(data, what="document"), cls)
        except PermanentError as error:
            raise ConfigurationInvalid(
                f"key card: {error.message}", hint="name a file that `strongroom authority add-key` printed"
            ) from None

    def to_bytes(self) -> bytes:
        """Write it as one line."""
        return canonical_json(self.model_dump(mode="json")) + b"\n"

    @property
    def words(self) -> str:
        """What the key is, for people."""
        return self.use.value.replace("-", " ") + " key"

    def sealing_key(self, state: SealingKeyState) -> SealingKey:
        """Return a sealing key as a roster names it; ValueError for another key."""
        if self.suite is None:
            raise ValueError(f"{self.words}: is no sealing key")
        return SealingKey(kid=self.id, suite=self.suite, public_key=self.public_key, state=state)

    def transport_key(self, state: SealingKeyState) -> TransportKey:
        """Return a transport key as a roster names it."""
        return TransportKey(kid=self.id, public_key=self.public_key, state=state)


def _check_transport(spki: bytes) -> None:
    try:
        check_recipient(RsaPublicKey.from_spki(spki))
    except PermanentError as error:
        raise ValueError(f"public_key: {error.message}") from None


def new_key(
    use: KeyUse,
    folder: Path,
    passphrase: Secret | None,
    *,
    suite: Suite = Suite.X_WING,
    transport_bits: int = TRANSPORT_BITS,
) -> tuple[KeyCard, Path]:
    """Make a key and write its file into a folder; return its card, and the file.

    It is on disk when this returns. The file's name has the key's id in it, so that no key is ever overwritten.
    Arguments: `suite` is for a sealing key, `transport_bits` for a transport key; RSA takes some seconds. Raises
    KeyFileInvalid for a folder that is not there or cannot be written.
    """
    if use is KeyUse.SEALING:
        sealing = PrivateSealingKey.generate(suite)
        card = KeyCard(use=use, id=sealing.kid, suite=suite, public_key=sealing.public_key)
        path = folder / f"{card.id}.key"
        write_sealing_key(path, sealing, passphrase)
    elif use is KeyUse.TRANSPORT:
        transport = PrivateRsaKey.generate(transport_bits)
        spki = transport.public_key.to_spki()
        card = KeyCard(use=use, id=transport_kid(spki), suite=None, public_key=spki)
        path = folder / f"{card.id}.key"
        write_transport_key(path, transport, passphrase)
    else:
        signing = SigningKey.generate()
        card = KeyCard(use=use, id=signing.key_id, suite=None, public_key=signing.public_key)
        path = folder / f"{use.value}-{card.id}.key"
        write_signing_key(path, signing, passphrase)
    return card, path
