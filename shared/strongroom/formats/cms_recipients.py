"""Recipients of a CMS message (RFC 5652 section 6.2) who have RSA keys, and the names by which they are found."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Self, TypeAlias

from strongroom.crypto.certificates import default_key_identifier, read_certificate
from strongroom.crypto.oaep import Oaep, OaepHash
from strongroom.crypto.rsa import RsaPublicKey
from strongroom.errors import LimitExceeded, MalformedStatement
from strongroom.formats.armour import is_pem, read_pem
from strongroom.formats.ber import (
    Element,
    Fields,
    Tag,
    context,
    context_constructed,
    integer,
    object_identifier,
    read,
)

CMS_RECIPIENTS_MAX: Final = 32

_OTHER_RECIPIENTS: Final = {
    context_constructed(1): "a key agreement recipient (an elliptic curve or Diffie-Hellman key)",
    context_constructed(2): "a recipient with a key encryption key",
    context_constructed(3): "a password recipient",
    context_constructed(4): "a recipient of another type (a KEM, or none that is known)",
}
_RSA_ENCRYPTION: Final = "1.2.840.113549.1.1.1"
_RSAES_OAEP: Final = "1.2.840.113549.1.1.7"
_MGF1: Final = "1.2.840.113549.1.1.8"
_P_SPECIFIED: Final = "1.2.840.113549.1.1.9"
_OAEP_HASHES: Final = {
    "1.3.14.3.2.26": OaepHash.SHA_1,
    "2.16.840.1.101.3.4.2.1": OaepHash.SHA_256,
    "2.16.840.1.101.3.4.2.2": OaepHash.SHA_384,
    "2.16.840.1.101.3.4.2.3": OaepHash.SHA_512,
}


@dataclass(frozen=True, slots=True)
class IssuerAndSerialNumber:
    """Names a certificate: its issuer as a Name in DER, and its serial number."""

    issuer: bytes
    serial_number: int


@dataclass(frozen=True, slots=True)
class SubjectKeyIdentifier:
    """Names a key, by the extension of its certificate or by a hash."""

    value: bytes


RecipientIdentifier: TypeAlias = IssuerAndSerialNumber | SubjectKeyIdentifier


@dataclass(frozen=True, slots=True)
class RecipientKey:
    """An RSA public key, and the names by which messages may call it."""

    public_key: RsaPublicKey
    names: frozenset[RecipientIdentifier]

    @classmethod
    def from_certificate(cls, certificate: bytes) -> Self:
        """Read a certificate in DER or PEM; raises what `read_certificate` and `read_pem` raise."""
        der = read_pem(certificate, ("CERTIFICATE",))[1] if is_pem(certificate) else certificate
        certified = read_certificate(der)
        names: set[RecipientIdentifier] = {SubjectKeyIdentifier(default_key_identifier(certified.public_key))}
        if certified.key_identifier is not None:
            names.add(SubjectKeyIdentifier(certified.key_identifier))
        fields = Fields(read(certified.signed), "certificate")
        fields.take_if(context_constructed(0))
        serial_number = integer(fields.take_any("serialNumber"), "certificate: serialNumber")
        fields.take(Tag.SEQUENCE, "signature")
        names.add(IssuerAndSerialNumber(fields.take(Tag.SEQUENCE, "issuer").encoded, serial_number))
        return cls(certified.public_key, frozenset(names))

    @classmethod
    def from_public_key(cls, public_key: RsaPublicKey) -> Self:
        """Take a key without a certificate; it is found by its usual key identifier, or as the only recipient."""
        return cls(public_key, frozenset({SubjectKeyIdentifier(default_key_identifier(public_key))}))

    @property
    def has_certificate(self) -> bool:
        """Whether issuer and serial number are known."""
        return any(isinstance(name, IssuerAndSerialNumber) for name in self.names)


@dataclass(frozen=True, slots=True)
class Recipient:
    """A recipient with an RSA key: what it is called, and the content key that was encrypted for it.

    `oaep` is None for PKCS #1 v1.5. `encrypted_key` is big-endian.
    """

    identifier: RecipientIdentifier
    oaep: Oaep | None
    encrypted_key: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 of the encrypted key in hex.

        Public, and the same for every copy, whatever is changed around it.
        """
        return hashlib.sha256(self.encrypted_key).hexdigest()


# ---- recipients --------------------------------------------------------------------------------


def read_recipients(infos: Element) -> Iterator[Recipient]:
    """Read recipientInfos, a SET; refuses every recipient that has no RSA key, and too many."""
    if not 1 <= len(infos.children) <= CMS_RECIPIENTS_MAX:
        raise LimitExceeded(
            f"CMS: recipientInfos: are {len(infos.children)}; must be 1 to CMS_RECIPIENTS_MAX {CMS_RECIPIENTS_MAX}"
        )
    for number, info in enumerate(infos.children, start=1):
        name = f"recipient {number}"
        if (other := _OTHER_RECIPIENTS.get(info.tag)) is not None:
            raise malformed(name, f"is {other}; supported are RSA keys")
        yield _recipient(info, name)


def _recipient(info: Element, name: str) -> Recipient:
    fields = Fields(info, f"CMS: {name}")
    version = integer(fields.take_any("version"), f"CMS: {name}: version")
    identifier = _identifier(fields.take_any("rid"), name)
    expected = 0 if isinstance(identifier, IssuerAndSerialNumber) else 2
    if version != expected:
        raise malformed(name, f"version: is {version}, must be {expected} with such a name")
    oaep = _key_encryption(fields.take(Tag.SEQUENCE, "keyEncryptionAlgorithm"), name)
    encrypted_key = fields.take(Tag.OCTET_STRING, "encryptedKey").content
    fields.end()
    return Recipient(identifier, oaep, encrypted_key)


def _identifier(element: Element, name: str) -> RecipientIdentifier:
    if element.tag == context(0):
        return SubjectKeyIdentifier(element.content)
    if element.tag == context_constructed(0):
        return SubjectKeyIdentifier(segments(element, f"{name}: subjectKeyIdentifier"))
    fields = Fields(element, f"CMS: {name}: rid")
    issuer = fields.take(Tag.SEQUENCE, "issuer").encoded
    serial_number = integer(fields.take_any("serialNumber"), f"CMS: {name}: serialNumber")
    fields.end()
    return IssuerAndSerialNumber(issuer, serial_number)


def _key_encryption(algorithm: Element, name: str) -> Oaep | None:
    """Give None for PKCS #1 v1.5."""
    identifier, parameters = algorithm_identifier(algorithm, f"{name}: keyEncryptionAlgorithm")
    if identifier == _RSA_ENCRYPTION:
        _check_null(parameters, f"{name}: keyEncryptionAlgorithm")
        return None
    if identifier != _RSAES_OAEP:
        raise malformed(name, f"keyEncryptionAlgorithm: is {identifier}, must be rsaEncryption or id-RSAES-OAEP")
    if parameters is None:
        raise malformed(name, "keyEncryptionAlgorithm: OAEP comes without its parameters")
    return _oaep(parameters, name)


def _oaep(parameters: Element, name: str) -> Oaep:
    """Read RSAES-OAEP-params (RFC 4055 section 4.1): what is not there is SHA-1, MGF1 with SHA-1, no label."""
    fields = Fields(parameters, f"CMS: {name}: OAEP")
    digest = mask = OaepHash.SHA_1
    if (found := fields.take_if(context_constructed(0))) is not None:
        digest = _hash(_explicit(found, name), name)
    if (found := fields.take_if(context_constructed(1))) is not None:
        identifier, generator = algorithm_identifier(_explicit(found, name), f"{name}: OAEP: maskGenAlgorithm")
        if identifier != _MGF1 or generator is None:
            raise malformed(name, f"OAEP: maskGenAlgorithm: is {identifier}, must be MGF1 with a hash")
        mask = _hash(generator, name)
    if (found := fields.take_if(context_constructed(2))) is not None:
        identifier, label = algorithm_identifier(_explicit(found, name), f"{name}: OAEP: pSourceAlgorithm")
        if identifier != _P_SPECIFIED or label is None or label.tag != Tag.OCTET_STRING or label.content:
            raise malformed(name, "OAEP: pSourceAlgorithm: must be an empty label")
    fields.end()
    return Oaep(digest, mask)


def _hash(algorithm: Element, name: str) -> OaepHash:
    identifier, parameters = algorithm_identifier(algorithm, f"{name}: OAEP: hash")
    if identifier not in _OAEP_HASHES:
        raise malformed(name, f"OAEP: hash: is {identifier}, must be SHA-1, SHA-256, SHA-384 or SHA-512")
    _check_null(parameters, f"{name}: OAEP: hash")
    return _OAEP_HASHES[identifier]


def _explicit(element: Element, name: str) -> Element:
    if len(element.children) != 1:
        raise malformed(name, "OAEP: has a field with no value, or with several")
    return element.children[0]


def _check_null(parameters: Element | None, name: str) -> None:
    if parameters is not None and (parameters.tag != Tag.NULL or parameters.content):
        raise malformed(name, "has parameters, and must have none")


# ---- what recipients and content have in common -------------------------------------------------


def algorithm_identifier(element: Element, name: str) -> tuple[str, Element | None]:
    """Give the identifier and the parameters of an AlgorithmIdentifier."""
    fields = Fields(element, f"CMS: {name}")
    identifier = object_identifier(fields.take_any("algorithm"), f"CMS: {name}: algorithm")
    parameters = element.children[1] if len(element.children) > 1 else None
    if parameters is not None:
        fields.take_any("parameters")
    fields.end()
    return identifier, parameters


def segments(constructed: Element, name: str) -> bytes:
    """Join the parts in which BER may write an OCTET STRING."""
    if any(part.tag != Tag.OCTET_STRING for part in constructed.children):
        raise malformed(name, "has a part that is no OCTET STRING")
    return b"".join(part.content for part in constructed.children)


def malformed(name: str, wrong: str) -> MalformedStatement:
    """Give the error for what is wrong with a field of a message."""
    return MalformedStatement(f"CMS: {name}: {wrong}")
