"""Text around binary formats: PEM (RFC 7468) and S/MIME (RFC 8551), read strictly.

Errors are MalformedStatement and LimitExceeded. What they say quotes nothing but the label, for what is armoured
may be a private key.
"""

import binascii
import re
from collections.abc import Collection
from typing import Final

from strongroom.errors import LimitExceeded, MalformedStatement
from strongroom.limits import KEY_MATERIAL_BYTES_MAX

ARMOURED_BYTES_MAX: Final = 2 * KEY_MATERIAL_BYTES_MAX

_PEM: Final = re.compile(
    rb"\s*-----BEGIN (?P<label>[A-Z0-9 #]{1,64})-----[ \t]*\r?\n(?P<body>[A-Za-z0-9+/=\s]*)"
    rb"-----END (?P=label)-----\s*"
)
_PEM_MARK: Final = b"-----BEGIN "
_FOLD: Final = re.compile(rb"\n[ \t]+")
_SMIME_TYPES: Final = frozenset({b"application/pkcs7-mime", b"application/x-pkcs7-mime"})


def is_pem(data: bytes) -> bool:
    """Say whether this is, or shall be, PEM: nothing but white space comes before a line that begins a block."""
    return data.lstrip().startswith(_PEM_MARK)


def is_mime(data: bytes) -> bool:
    """Say whether this begins as `openssl cms` begins S/MIME."""
    return data[:13].lower() == b"mime-version:"


def read_pem(data: bytes, labels: Collection[str]) -> tuple[str, bytes]:
    """Give label and content of the one PEM block, which has one of `labels` and nothing but white space around it.

    Headers within the block, as in old encrypted keys, are refused.
    """
    _check_size(data)
    found = _PEM.fullmatch(data)
    if found is None:
        blocks = data.count(_PEM_MARK)
        fault = "is not well-formed" if blocks == 1 else f"holds {blocks} blocks"
        raise MalformedStatement(f"PEM: {fault}; must be one block of base64, and nothing around it")
    label = found["label"].decode()
    if label not in labels:
        raise MalformedStatement(f"PEM: is {label!r}, must be {' or '.join(map(repr, sorted(labels)))}")
    return label, _base64(found["body"], "PEM")


def read_smime(data: bytes) -> bytes:
    """Give the content of an S/MIME message that says it is enveloped data in base64."""
    _check_size(data)
    head, _, body = data.replace(b"\r\n", b"\n").partition(b"\n\n")
    headers: dict[bytes, bytes] = {}
    for line in _FOLD.sub(b" ", head).split(b"\n"):
        name, colon, value = line.partition(b":")
        if not colon or name.lower() in headers:
            raise MalformedStatement("S/MIME: has misshapen headers")
        headers[name.lower()] = value.lower()
    kind, *parameters = (part.strip() for part in headers.get(b"content-type", b"").replace(b'"', b"").split(b";"))
    if kind not in _SMIME_TYPES or b"smime-type=enveloped-data" not in parameters:
        raise MalformedStatement("S/MIME: Content-Type: must be application/pkcs7-mime, smime-type=enveloped-data")
    if headers.get(b"content-transfer-encoding", b"").strip() != b"base64":
        raise MalformedStatement("S/MIME: Content-Transfer-Encoding: must be base64")
    return _base64(body, "S/MIME")


def _check_size(data: bytes) -> None:
    if len(data) > ARMOURED_BYTES_MAX:
        raise LimitExceeded(f"armour: has {len(data)} bytes; ARMOURED_BYTES_MAX allows {ARMOURED_BYTES_MAX} bytes")


def _base64(text: bytes, name: str) -> bytes:
    try:
        return binascii.a2b_base64(b"".join(text.split()), strict_mode=True)
    except binascii.Error:
        raise MalformedStatement(f"{name}: is not well-formed base64") from None
