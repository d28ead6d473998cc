"""X.509 certificates (RFC 5280), as far as they name a key; nothing is verified, whoever hands one over vouches."""

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from strongroom.crypto.rsa import RsaPublicKey
from strongroom.crypto.sealing import transport_kid
from strongroom.errors import KeyUnknown, MalformedStatement

# The last three are of no common kind with the others.
_UNREADABLE: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_SERIAL_NUMBER_BYTES: Final = 16
_SERIAL_NUMBER_END: Final = 2 ** (8 * _SERIAL_NUMBER_BYTES - 1)
_KEY_IDENTIFIER_BYTES: Final = 20
_COMMON_NAME_CHARACTERS_MAX: Final = 64
_SIGNATURE_BYTES: Final = 256
_VALID_FROM: Final = datetime(2000, 1, 1, tzinfo=UTC)
_VALID_TO: Final = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)  # RFC 5280 section 4.1.2.5: no known end


@dataclass(frozen=True, slots=True)
class CertifiedKey:
    """What a certificate says of an RSA key.

    `key_identifier` is its subject key identifier, if it has that extension; `signed` is the certificate without
    its signature, a TBSCertificate in DER, where the issuer stands as its bytes were.
    """

    public_key: RsaPublicKey
    key_identifier: bytes | None
    signed: bytes = field(repr=False)


def read_certificate(der: bytes) -> CertifiedKey:
    """Read a certificate in DER; MalformedStatement for what is none, KeyUnknown for a key that is not RSA."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        key = certificate.public_key()
        extensions = certificate.extensions
    except _UNREADABLE:
        raise MalformedStatement("certificate: is not an X.509 certificate that can be read") from None
    if not isinstance(key, rsa.RSAPublicKey):
        raise KeyUnknown("certificate: is not of an RSA key")
    try:
        identifier = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        identifier = None
    numbers = key.public_numbers()
    return CertifiedKey(RsaPublicKey(numbers.n, numbers.e), identifier, certificate.tbs_certificate_bytes)


def default_key_identifier(public_key: RsaPublicKey) -> bytes:
    """Give the key identifier of RFC 5280 section 4.2.1.2, method 1, which most certificates have: 20 bytes."""
    numbers = rsa.RSAPublicNumbers(public_key.exponent, public_key.modulus)
    return x509.SubjectKeyIdentifier.from_public_key(numbers.public_key()).digest


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """What the certificate of a transport key is called: the same each time it is made, and known without it.

    `issuer` is a Name in DER; `key_identifier` has 20 bytes.
    """

    issuer: bytes
    serial_number: int
    key_identifier: bytes


def authority_name(authority: str) -> x509.Name:
    """Give the name in which the certificates of an authority's transport keys are made: its id as common name.

    X.509 has room for 64 characters of it; which key it is, the serial number tells.
    """
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, authority[:_COMMON_NAME_CHARACTERS_MAX])])


def names_of(spki: bytes, authority: str) -> CertificateNames:
    """Give the names of the certificate of a transport key, whose SubjectPublicKeyInfo in DER is `spki`.

    The serial number is the first 16 bytes of SHA-256(spki) without their highest bit, the key identifier that of
    RFC 7093 section 2, method 1. Raises ValueError for what `RsaPublicKey.from_spki` refuses.
    """
    public_key = RsaPublicKey.from_spki(spki)
    number = int.from_bytes(hashlib.sha256(spki).digest()[:_SERIAL_NUMBER_BYTES], "big")
    bits = (
        rsa.RSAPublicNumbers(public_key.exponent, public_key.modulus)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    )
    return CertificateNames(
        authority_name(authority).public_bytes(),
        number % _SERIAL_NUMBER_END,
        hashlib.sha256(bits).digest()[:_KEY_IDENTIFIER_BYTES],
    )


def make_certificate(spki: bytes, authority: str) -> bytes:
    """Make the certificate of a transport key for programs that take no bare public key; gives PEM.

    It is the same each time, because two certificates with one issuer and serial number upset some programs. Nobody
    signs it, since nobody who exports it has a key that could: in the place of the signature are zeros, and it is
    to be believed only for where it came from. Nor does it end: whether the key may still be used, the roster says.
    Raises ValueError for what `RsaPublicKey.from_spki` refuses.
    """
    names, public_key = names_of(spki, authority), RsaPublicKey.from_spki(spki)
    subject = x509.NameAttribute(NameOID.COMMON_NAME, f"transport key {transport_kid(spki)}")
    built = (
        x509.CertificateBuilder(
            issuer_name=authority_name(authority),
            subject_name=x509.Name([subject]),
            public_key=rsa.RSAPublicNumbers(public_key.exponent, public_key.modulus).public_key(),
            serial_number=names.serial_number,
            not_valid_before=_VALID_FROM,
            not_valid_after=_VALID_TO,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_ENCIPHERS_KEYS, critical=True)
        .add_extension(x509.SubjectKeyIdentifier(names.key_identifier), critical=False)
        .sign(rsa.generate_private_key(65537, 8 * _SIGNATURE_BYTES), hashes.SHA256())
    )
    unsigned = built.public_bytes(serialization.Encoding.DER)[:-_SIGNATURE_BYTES] + bytes(_SIGNATURE_BYTES)
    return x509.load_der_x509_certificate(unsigned).public_bytes(serialization.Encoding.PEM)


_ENCIPHERS_KEYS: Final = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=True,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def public_key_pem(spki: bytes) -> bytes:
    """Give a transport key as PEM (`PUBLIC KEY`, RFC 7468 section 13); ValueError as `RsaPublicKey.from_spki`."""
    public_key = RsaPublicKey.from_spki(spki)
    return (
        rsa.RSAPublicNumbers(public_key.exponent, public_key.modulus)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
