"""What every age file has, whoever opens it: the header around the stanzas, its MAC, and the encrypted content.

pyrage reads what is sealed to identities. What is written is written here: pyrage takes half as long again as the
age program. Source: https://c2sp.org/age, "Header" and "Payload".
"""

import base64
import os
from collections.abc import Sequence
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid

VERSION: Final = b"age-encryption.org/v1"
FILE_KEY_BYTES: Final = 16
CHUNK_BYTES: Final = 65_536
TAG_BYTES: Final = 16
MAC_BYTES: Final = 32
ZERO_NONCE: Final = bytes(12)
"""The nonce under which a stanza holds the file key; each wrapping key is used once."""

_NONCE_BYTES: Final = 16
_COUNTER_BYTES: Final = 11


class Source(Protocol):
    """What content is read from."""

    def read(self, size: int, /) -> bytes:
        """Return `size` bytes, and fewer only at the end; OSError."""


class Sink(Protocol):
    """What content is written to."""

    def write(self, content: bytes, /) -> object:
        """Take all of `content`; OSError."""


def new_file_key() -> Secret:
    """Make the key of one file."""
    return Secret(os.urandom(FILE_KEY_BYTES))


def encrypt(source: Source, sink: Sink, file_key: Secret, stanzas: Sequence[bytes]) -> None:
    """Write an age file in constant memory; what the streams raise goes through.

    Arguments: `stanzas`, each without its last line feed, hold the file key for somebody.
    """
    start = b"\n".join((VERSION, *stanzas, b"---"))
    sink.write(b"%b %b\n" % (start, encode(_mac(file_key, start).finalize())))
    nonce = os.urandom(_NONCE_BYTES)
    sink.write(nonce)
    cipher = _cipher(file_key, nonce)
    counter = 0
    chunk = source.read(CHUNK_BYTES)
    while following := source.read(CHUNK_BYTES):
        sink.write(cipher.encrypt(_chunk_nonce(counter, last=False), chunk, None))
        counter, chunk = counter + 1, following
    sink.write(cipher.encrypt(_chunk_nonce(counter, last=True), chunk, None))


def decrypt(header: bytes, source: Source, sink: Sink, file_key: Secret) -> None:
    """Write the content of an age file in constant memory; what the streams raise goes through.

    Every chunk is authentic when it is written; that nothing is missing is known when this returns. Arguments:
    `header` ends with the line feed of the MAC, `source` goes on behind it. Raises BlobInvalid for a changed
    header, and for damaged, truncated and extended content.
    """
    start, _, mac = header.removesuffix(b"\n").rpartition(b" ")
    try:
        _mac(file_key, start).verify(decode(mac, MAC_BYTES))
    except InvalidSignature:
        raise BlobInvalid("the file does not open: its header was changed") from None
    nonce = source.read(_NONCE_BYTES)
    if len(nonce) != _NONCE_BYTES:
        raise _damaged()
    cipher = _cipher(file_key, nonce)
    counter = 0
    chunk = source.read(CHUNK_BYTES + TAG_BYTES)
    while following := source.read(CHUNK_BYTES + TAG_BYTES):
        sink.write(_opened(cipher, chunk, counter, last=False))
        counter, chunk = counter + 1, following
    content = _opened(cipher, chunk, counter, last=True)
    if counter and not content:
        raise _damaged()
    sink.write(content)


def derive(secret: bytes, *, salt: bytes | None, info: bytes) -> bytes:
    """Give 32 bytes of HKDF-SHA-256, by which every key of an age file is made."""
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(secret)


def encode(raw: bytes) -> bytes:
    """Give the base64 of age headers, which has no padding."""
    return base64.b64encode(raw).rstrip(b"=")


def decode(text: bytes, length: int) -> bytes:
    """Read base64 of so many bytes; BlobInvalid for other bytes, padding, and bits that say nothing."""
    try:
        raw = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        raw = b""
    if len(raw) != length or encode(raw) != text:
        raise BlobInvalid("the file does not open: its header is malformed")
    return raw


def _opened(cipher: ChaCha20Poly1305, chunk: bytes, counter: int, *, last: bool) -> bytes:
    try:
        return cipher.decrypt(_chunk_nonce(counter, last=last), chunk, None)
    except InvalidTag:
        raise _damaged() from None


def _damaged() -> BlobInvalid:
    return BlobInvalid("the file does not open: it is damaged or cut short")


def _cipher(file_key: Secret, nonce: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(derive(file_key.expose(), salt=nonce, info=b"payload"))


def _chunk_nonce(counter: int, *, last: bool) -> bytes:
    return counter.to_bytes(_COUNTER_BYTES) + bytes([last])


def _mac(file_key: Secret, start: bytes) -> hmac.HMAC:
    mac = hmac.HMAC(derive(file_key.expose(), salt=None, info=b"header"), hashes.SHA256())
    mac.update(start)
    return mac
