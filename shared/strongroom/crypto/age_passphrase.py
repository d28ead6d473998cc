"""age files sealed to a passphrase, of any length.

pyrage takes the content of such files whole into memory, and lets the file say how much work opening it takes.
Source: https://c2sp.org/age, "The scrypt recipient type".
"""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from strongroom.crypto import age_payload
from strongroom.crypto.age_payload import Sink, Source
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, LimitExceeded

LOG_N: Final = 18
LOG_N_MAX: Final = 22

_STANZA: Final = b"-> scrypt "
_SALT_LABEL: Final = b"age-encryption.org/v1/scrypt"
_SALT_BYTES: Final = 16
_LINES: Final = 5  # version, stanza, its body, MAC, and nothing behind the last line feed
_WORK_DIGITS_MAX: Final = 3


def is_for_passphrase(header: bytes) -> bool:
    """Say whether the first stanza of an age header is one for a passphrase."""
    return header.startswith(age_payload.VERSION + b"\n" + _STANZA)


def encrypt(source: Source, sink: Sink, passphrase: Secret, *, log_n: int = LOG_N) -> None:
    """Write an age file that the passphrase opens, in constant memory; what the streams raise goes through.

    Arguments: `log_n` is how much work each try at the passphrase is: 2^log_n blocks of 1 KiB, all in memory at
    once. 18 takes 256 MiB and about a second, and is what the age program takes.
    """
    file_key = age_payload.new_file_key()
    salt = os.urandom(_SALT_BYTES)
    cipher = ChaCha20Poly1305(_wrapping_key(passphrase, salt, log_n))
    wrapped = cipher.encrypt(age_payload.ZERO_NONCE, file_key.expose(), None)
    stanza = b"%b%b %d\n%b" % (_STANZA, age_payload.encode(salt), log_n, age_payload.encode(wrapped))
    age_payload.encrypt(source, sink, file_key, [stanza])


def decrypt(header: bytes, source: Source, sink: Sink, passphrase: Secret) -> None:
    """Write the content of an age file that a passphrase opens; otherwise as `age_payload.decrypt`.

    Raises what `check_header` raises, before any work, and BlobInvalid for a wrong passphrase.
    """
    salt, log_n, wrapped = _parse(header)
    cipher = ChaCha20Poly1305(_wrapping_key(passphrase, salt, log_n))
    try:
        file_key = Secret(cipher.decrypt(age_payload.ZERO_NONCE, wrapped, None))
    except InvalidTag:
        raise BlobInvalid("the passphrase does not open the file", hint="try again: mind capital letters") from None
    age_payload.decrypt(header, source, sink, file_key)


def check_header(header: bytes) -> None:
    """Look at a header before anybody is asked for a passphrase.

    Raises BlobInvalid when it is not one for a passphrase and for nothing else, LimitExceeded when it asks for more
    work than 2^22.
    """
    _parse(header)


def _parse(header: bytes) -> tuple[bytes, int, bytes]:
    """Return salt, work factor and the wrapped file key."""
    lines = header.split(b"\n")
    arguments = lines[1].removeprefix(_STANZA).split(b" ") if is_for_passphrase(header) else []
    if len(lines) != _LINES or lines[4] or not lines[3].startswith(b"--- ") or len(arguments) != 2:  # noqa: PLR2004
        raise BlobInvalid("the file does not open: its header is not one for a passphrase alone")
    salt, digits = arguments
    if not digits.isdigit() or digits.startswith(b"0") or len(digits) > _WORK_DIGITS_MAX:
        raise BlobInvalid("the file does not open: its work factor is no number")
    log_n = int(digits)
    if log_n > LOG_N_MAX:
        raise LimitExceeded(
            f"the file asks for 2^{log_n} of work on its passphrase, and 2^{LOG_N_MAX} is the most",
            hint="nothing was tried; ask whoever made it for another",
        )
    age_payload.decode(lines[3][4:], age_payload.MAC_BYTES)
    wrapped = age_payload.decode(lines[2], age_payload.FILE_KEY_BYTES + age_payload.TAG_BYTES)
    return age_payload.decode(salt, _SALT_BYTES), log_n, wrapped


def _wrapping_key(passphrase: Secret, salt: bytes, log_n: int) -> bytes:
    try:
        return Scrypt(salt=_SALT_LABEL + salt, length=32, n=1 << log_n, r=8, p=1).derive(passphrase.expose())
    except MemoryError:
        raise LimitExceeded(f"the passphrase takes {1 << log_n >> 10} MiB of memory, which are not there") from None
