"""age files sealed to X25519 recipients. Source: https://c2sp.org/age, "The X25519 recipient type"."""

from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from strongroom.crypto import age_payload
from strongroom.crypto.age_payload import Sink, Source
from strongroom.crypto.secret import Secret

PREFIX: Final = "age1"

_LABEL: Final = b"age-encryption.org/v1/X25519"
_BECH32: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_CHECKSUM_CHARACTERS: Final = 6
_KEY_BYTES: Final = 32
_BITS_TO_SPARE: Final = 4  # of 52 characters of 5 bits, beside the 256 of the key


def encrypt(source: Source, sink: Sink, recipients: Sequence[str]) -> None:
    """Write an age file to every recipient, in constant memory; what the streams raise goes through.

    Arguments: `recipients` are `age1…`, as pyrage gives them; their check characters are not looked at again.
    """
    file_key = age_payload.new_file_key()
    age_payload.encrypt(source, sink, file_key, [_stanza(_public_key(each), file_key) for each in recipients])


def _public_key(recipient: str) -> bytes:
    value = 0
    for character in recipient.removeprefix(PREFIX)[:-_CHECKSUM_CHARACTERS]:
        value = value << 5 | _BECH32.index(character)
    return (value >> _BITS_TO_SPARE).to_bytes(_KEY_BYTES)


def _stanza(public_key: bytes, file_key: Secret) -> bytes:
    ephemeral = X25519PrivateKey.generate()
    share = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public_key))
    wrapping_key = age_payload.derive(shared, salt=share + public_key, info=_LABEL)
    wrapped = ChaCha20Poly1305(wrapping_key).encrypt(age_payload.ZERO_NONCE, file_key.expose(), None)
    return b"-> X25519 %b\n%b" % (age_payload.encode(share), age_payload.encode(wrapped))
