"""What other programs made of CMS, as files (tests/vectors/cms/make.sh), and messages put together by hand."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final

from cryptography.hazmat import asn1
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.x509 import ObjectIdentifier

from strongroom.crypto.rsa import Padding, PrivateRsaKey, wrap
from strongroom.crypto.secret import Secret
from strongroom.formats.armour import read_pem
from strongroom.formats.cms_recipients import RecipientKey

VECTORS: Final = Path(__file__).parents[1] / "vectors"
CMS: Final = VECTORS / "cms"
CONTENT: Final = (CMS / "content.bin").read_bytes()

RSA_ENCRYPTION: Final = "1.2.840.113549.1.1.1"
RSAES_OAEP: Final = "1.2.840.113549.1.1.7"
AES_256_CBC: Final = "2.16.840.1.101.3.4.1.42"
DATA: Final = "1.2.840.113549.1.7.1"
ENVELOPED_DATA: Final = "1.2.840.113549.1.7.3"
NULL: Final = b"\x05\x00"
CONTENT_KEY: Final = bytes(range(32))
VECTOR: Final = bytes(range(16))


def vector(name: str) -> bytes:
    """Return the bytes of a file that another program made."""
    return (CMS / name).read_bytes()


@cache
def private_key(name: str = "authority") -> PrivateRsaKey:
    """Return the private key of `authority` or `other`."""
    return PrivateRsaKey.from_bytes(Secret(read_pem(vector(f"{name}.key.pem"), ("PRIVATE KEY",))[1]))


@cache
def recipient_key(name: str = "authority") -> RecipientKey:
    """Return what the certificate of `authority` or `other` says."""
    return RecipientKey.from_certificate(vector(f"{name}.crt.pem"))


def tlv(tag: int, *parts: bytes) -> bytes:
    """Encode an element as DER does."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def streamed(tag: int, *parts: bytes) -> bytes:
    """Encode an element with an indefinite length."""
    return bytes((tag, 0x80)) + b"".join(parts) + b"\0\0"


def oid(dotted: str) -> bytes:
    """Encode an object identifier."""
    return asn1.encode_der(ObjectIdentifier(dotted))


def integer(value: int) -> bytes:
    """Encode an integer."""
    return asn1.encode_der(value)


def algorithm(dotted: str, parameters: bytes = NULL) -> bytes:
    """Encode an AlgorithmIdentifier."""
    return tlv(0x30, oid(dotted), parameters)


def encrypted_key(key: bytes = CONTENT_KEY) -> bytes:
    """Wrap a content key for the authority with PKCS #1 v1.5."""
    return wrap(private_key().public_key, Secret(key), Padding.PKCS1)


def encrypted_content(content: bytes = CONTENT, key: bytes = CONTENT_KEY, *, padded: bool = True) -> bytes:
    """Encrypt content in AES-256-CBC under VECTOR."""
    size = 16 - len(content) % 16
    encryptor = Cipher(algorithms.AES(key), modes.CBC(VECTOR)).encryptor()
    return encryptor.update(content + bytes([size]) * size if padded else content) + encryptor.finalize()


def key_identifier() -> bytes:
    """Return the identifier of the authority's key, as it stands in a message: [0] IMPLICIT OCTET STRING."""
    message = vector("key-identifier.der")
    start = message.index(b"\x80\x14")
    return message[start : start + 22]


@dataclass
class Recipient:
    """A recipient whose every field can be another than it should."""

    version: bytes = field(default_factory=lambda: integer(2))
    identifier: bytes = field(default_factory=key_identifier)
    algorithm: bytes = field(default_factory=lambda: algorithm(RSA_ENCRYPTION))
    key: bytes = field(default_factory=lambda: tlv(0x04, encrypted_key()))
    after: bytes = b""

    def encode(self) -> bytes:
        """Give KeyTransRecipientInfo."""
        return tlv(0x30, self.version, self.identifier, self.algorithm, self.key, self.after)


@dataclass
class Message:
    """A message whose every field can be another than it should; as it is, it opens with the authority's key."""

    content_type: bytes = field(default_factory=lambda: oid(ENVELOPED_DATA))
    version: bytes = field(default_factory=lambda: integer(2))
    originator: bytes = b""
    recipients: list[bytes] = field(default_factory=lambda: [Recipient().encode()])
    inner_type: bytes = field(default_factory=lambda: oid(DATA))
    cipher: bytes = field(default_factory=lambda: algorithm(AES_256_CBC, tlv(0x04, VECTOR)))
    content: bytes = field(default_factory=lambda: tlv(0x80, encrypted_content()))
    attributes: bytes = b""
    after: bytes = b""
    beside: bytes = b""
    outside: bytes = b""

    def encode(self) -> bytes:
        """Give ContentInfo; `after`, `beside` and `outside` stand behind the last field, further out each."""
        info = tlv(0x30, self.inner_type, self.cipher, self.content)
        recipients = tlv(0x31, *self.recipients)
        data = tlv(0x30, self.version, self.originator, recipients, info, self.attributes, self.after)
        return tlv(0x30, self.content_type, tlv(0xA0, data, self.beside), self.outside)
