"""X.509 certificates (RFC 5280), as far as they name a key; nothing is verified, whoever hands one over vouches."""

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa

from strongroom.crypto.rsa import RsaPublicKey
from strongroom.errors import KeyUnknown, MalformedStatement


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
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
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
