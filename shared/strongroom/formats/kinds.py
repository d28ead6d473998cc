"""The kinds of key material that are judged before they are escrowed, so that nobody finds out in need.

A kind that is not here is a word for people; its bytes are taken as they are, as those of `raw`. A word that is
nearly one of these is refused: mistyped, it would skip the look at the bytes. Nothing is changed: what is escrowed,
and what comes back, are the bytes that were given. What is wrong is said in a sentence that names the place and
never quotes the secret.
"""

import re
from collections.abc import Callable
from difflib import get_close_matches
from enum import StrEnum
from typing import Final

import pyrage
from pyrage import x25519

from strongroom.crypto.private_keys import pkcs8_algorithm
from strongroom.crypto.secret import Secret
from strongroom.errors import LimitExceeded, MalformedStatement, UsageError
from strongroom.formats.armour import is_pem, read_pem
from strongroom.formats.ber import (
    Element,
    Fields,
    Tag,
    context_constructed,
    integer,
    object_identifier,
    read,
)
from strongroom.formats.cms import EnvelopedData
from strongroom.formats.openssh import OpensshKey
from strongroom.formats.volume_key import VolumeKeyPacket

_NEAR: Final = 0.88  # a letter too many, too few or wrong; `openssl` and `pkcs7` are words of their own


class KeyKind(StrEnum):
    """The kinds that say what the bytes are; the value is the record's `kind`."""

    RAW = "raw"
    PKCS8 = "pkcs8"
    OPENSSH = "openssh"
    AGE_IDENTITY = "age-identity"
    BITLOCKER = "recovery-password-bitlocker"
    CMS = "cms"
    VOLUME_KEY = "volume-key"


def validate(kind: str, material: Secret) -> str | None:
    """Say in one sentence why these bytes are not of this kind; None when they are, or when the kind says nothing.

    `raw`: any bytes. `pkcs8`: one PrivateKeyInfo or EncryptedPrivateKeyInfo (RFC 5208) in PEM or DER; one that is
    not encrypted must load. `openssh`: one openssh-key-v1, likewise. `age-identity`: one AGE-SECRET-KEY-1 line,
    beside empty lines and comments. `recovery-password-bitlocker`: 8 groups of 6 digits with their check digits.
    `cms`: what `EnvelopedData.parse` reads. `volume-key`: what `VolumeKeyPacket.parse` reads.
    """
    try:
        describe(kind, material)
    except (MalformedStatement, LimitExceeded, UsageError) as error:
        return error.message
    return None


def describe(kind: str, material: Secret) -> str:
    """Name the algorithm for the record's `algorithm`, e.g. `RSA 3072`; empty where there is none to name.

    Raises MalformedStatement or LimitExceeded with what `validate` says; UsageError, which does not quote it, for a
    kind that is nearly one of those that are judged.
    """
    check = _CHECKS.get(kind)
    if check is not None:
        return check(material)
    near = get_close_matches(kind.lower(), _CHECKS, n=1, cutoff=_NEAR)
    if near:
        raise UsageError(
            f"kind: is nearly {near[0]}, whose bytes are checked, and is not it",
            hint=f"say kind {near[0]}, or a word that nobody mistakes for it",
        )
    return ""


# ---- private keys ------------------------------------------------------------------------------

_PLAIN_LABEL: Final = "PRIVATE KEY"
_ENCRYPTED_LABEL: Final = "ENCRYPTED PRIVATE KEY"
_PBES2: Final = "1.2.840.113549.1.5.13"
_ALGORITHMS: Final = frozenset(
    {
        "1.2.840.113549.1.1.1",  # RSA
        "1.2.840.113549.1.1.10",  # RSA for PSS alone
        "1.2.840.10045.2.1",  # elliptic curves
        *(f"1.3.101.{arc}" for arc in range(110, 114)),  # X25519, X448, Ed25519, Ed448
        *(f"2.16.840.1.101.3.4.3.{arc}" for arc in range(17, 20)),  # ML-DSA-44, -65, -87
        *(f"2.16.840.1.101.3.4.4.{arc}" for arc in range(2, 4)),  # ML-KEM-768, -1024
    }
)


def _pkcs8(material: Secret) -> str:
    label, der = None, material.expose()
    if is_pem(der):
        label, der = read_pem(der, (_PLAIN_LABEL, _ENCRYPTED_LABEL))
    outer = read(der)
    encrypted = bool(outer.children) and outer.children[0].tag == Tag.SEQUENCE
    if label is not None and encrypted != (label == _ENCRYPTED_LABEL):
        raise MalformedStatement(f"PKCS #8: is labelled {label!r}, and is {'' if encrypted else 'not '}encrypted")
    if encrypted:
        return _encrypted_pkcs8(outer)
    fields = Fields(outer, "PKCS #8")
    version = integer(fields.take_any("version"), "PKCS #8: version")
    if version != 0:
        raise MalformedStatement(
            f"PKCS #8: version: is {version}; only 0, without a public key, can be judged; escrow it as kind raw"
        )
    name = "PKCS #8: privateKeyAlgorithm"
    algorithm = Fields(fields.take(Tag.SEQUENCE, "privateKeyAlgorithm"), name)
    identifier = object_identifier(algorithm.take_any("algorithm"), name)
    if identifier not in _ALGORITHMS:
        raise MalformedStatement(f"{name}: is {identifier}, which cannot be judged; escrow it as kind raw")
    fields.take(Tag.OCTET_STRING, "privateKey")
    fields.take_if(context_constructed(0))
    fields.end()
    return pkcs8_algorithm(Secret(der))


def _encrypted_pkcs8(outer: Element) -> str:
    fields = Fields(outer, "PKCS #8")
    algorithm = Fields(fields.take(Tag.SEQUENCE, "encryptionAlgorithm"), "PKCS #8: encryptionAlgorithm")
    identifier = object_identifier(algorithm.take_any("algorithm"), "PKCS #8: encryptionAlgorithm")
    encrypted = fields.take(Tag.OCTET_STRING, "encryptedData")
    fields.end()
    if not encrypted.content:
        raise MalformedStatement("PKCS #8: encryptedData: is empty")
    return f"encrypted ({'PBES2' if identifier == _PBES2 else identifier})"[:64]


def _openssh(material: Secret) -> str:
    key = OpensshKey.parse(material)
    return key.algorithm if key.cipher is None else f"{key.algorithm}, encrypted ({key.cipher})"


# ---- age ---------------------------------------------------------------------------------------

_AGE_PREFIX: Final = b"AGE-SECRET-KEY-1"


def _age_identity(material: Secret) -> str:
    lines = [line.removesuffix(b"\r") for line in material.expose().split(b"\n")]
    keys = [line for line in lines if line and not line.startswith(b"#")]
    if len(keys) != 1:
        raise MalformedStatement(f"age identity: has {len(keys)} lines with a key, must have 1")
    if not keys[0].startswith(_AGE_PREFIX):
        raise MalformedStatement(f"age identity: does not begin with {_AGE_PREFIX.decode()}")
    try:
        x25519.Identity.from_str(keys[0].decode("ascii"))
    except (ValueError, pyrage.IdentityError):
        raise MalformedStatement("age identity: is mistyped or cut: its check characters do not fit") from None
    return "X25519"


# ---- recovery passwords ------------------------------------------------------------------------

_GROUPS: Final = 8
_GROUP_DIGITS: Final = 6
_GROUP_END: Final = 11 * 2**16
_GROUP: Final = re.compile(rb"[0-9]{6}")
_SEPARATORS: Final = re.compile(rb"[ -]+")


def _bitlocker(material: Secret) -> str:
    """Judge a BitLocker recovery password: each group is 11 times a 16-bit number, so its last digit checks it.

    Source: learn.microsoft.com, si_team blog, "BitLocker recovery password details".
    """
    text = material.expose().strip(b" \t\r\n")
    if b"\0" in text:
        raise MalformedStatement("recovery password: holds zero bytes; is it UTF-16? Save it as plain text")
    groups = _SEPARATORS.split(text)
    if len(groups) == 1 and len(text) == _GROUPS * _GROUP_DIGITS:
        groups = [text[start : start + _GROUP_DIGITS] for start in range(0, len(text), _GROUP_DIGITS)]
    if len(groups) != _GROUPS:
        raise MalformedStatement(f"recovery password: has {len(groups)} groups, must have 8 of 6 digits")
    for number, group in enumerate(groups, start=1):
        if _GROUP.fullmatch(group) is None:
            raise MalformedStatement(f"recovery password: group {number} is not 6 digits")
        if int(group) % 11:
            raise MalformedStatement(f"recovery password: group {number} is mistyped: it is not a multiple of 11")
        if int(group) >= _GROUP_END:
            raise MalformedStatement(f"recovery password: group {number} is mistyped: it is not below 720,896")
    return ""


# ---- messages that others made -----------------------------------------------------------------


def _cms(material: Secret) -> str:
    return f"CMS, {EnvelopedData.parse(material.expose()).cipher}"


def _volume_key(material: Secret) -> str:
    return f"volume_key, {VolumeKeyPacket.parse(material).format.name.lower()}"


_CHECKS: Final[dict[str, Callable[[Secret], str]]] = {
    KeyKind.PKCS8: _pkcs8,
    KeyKind.OPENSSH: _openssh,
    KeyKind.AGE_IDENTITY: _age_identity,
    KeyKind.BITLOCKER: _bitlocker,
    KeyKind.CMS: _cms,
    KeyKind.VOLUME_KEY: _volume_key,
}
