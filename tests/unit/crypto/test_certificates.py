"""What a certificate says of an RSA key, and what is none."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cms import private_key, vector

from strongroom.crypto.certificates import (
    default_key_identifier,
    make_certificate,
    names_of,
    public_key_pem,
    read_certificate,
)
from strongroom.crypto.sealing import transport_kid
from strongroom.errors import KeyUnknown, MalformedStatement
from strongroom.formats.armour import read_pem

UNTIMED = settings(deadline=None)  # a busy machine is no failure


def der(name: str) -> bytes:
    return read_pem(vector(f"{name}.crt.pem"), ("CERTIFICATE",))[1]


def test_a_certificate_names_its_key() -> None:
    """With the identifier of its extension, which is the usual one here, and its bytes without the signature."""
    certified = read_certificate(der("authority"))
    assert certified.public_key == private_key().public_key
    assert certified.key_identifier == default_key_identifier(certified.public_key)
    assert certified.signed in der("authority")


def test_a_certificate_of_no_known_version_is_refused() -> None:
    """There are v1 and v3."""
    with pytest.raises(MalformedStatement):
        read_certificate(der("authority").replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x22", 1))


def test_a_certificate_without_the_extension_has_no_identifier() -> None:
    """Nor is one made up."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "plain")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7)
    built = builder.not_valid_before(datetime(2026, 1, 1, tzinfo=UTC)).not_valid_after(
        datetime(2027, 1, 1, tzinfo=UTC)
    )
    certificate = built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    assert read_certificate(certificate).key_identifier is None


def test_a_certificate_of_another_kind_of_key_is_refused() -> None:
    """Only RSA keys are recipients here."""
    with pytest.raises(KeyUnknown, match=r"^certificate: is not of an RSA key$"):
        read_certificate(der("elliptic"))


@UNTIMED
@given(st.data())
def test_no_damage_makes_the_reader_fail_otherwise(draw: st.DataObject) -> None:
    """Cut, extended or changed: it is read, or refused with one of two errors."""
    data = bytearray(der("authority"))
    if draw.draw(st.booleans()):
        data = data[: draw.draw(st.integers(0, len(data) - 1))]
    else:
        data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    try:
        assert read_certificate(bytes(data)).signed
    except (MalformedStatement, KeyUnknown) as error:
        assert error.__cause__ is None  # noqa: PT017 - either outcome is right
        assert error.__suppress_context__ or error.__context__ is None  # noqa: PT017
    with pytest.raises(MalformedStatement):
        read_certificate(der("authority") + b"\0")


# ---- a certificate of a transport key ----

AUTHORITY = "keys.example.org"


def spki() -> bytes:
    return private_key().public_key.to_spki()


def made(authority: str = AUTHORITY) -> bytes:
    return read_pem(make_certificate(spki(), authority), ("CERTIFICATE",))[1]


def test_the_certificate_of_a_transport_key_is_the_same_each_time() -> None:
    """Two certificates with one issuer and serial number would upset the programs that keep them."""
    assert make_certificate(spki(), AUTHORITY) == make_certificate(spki(), AUTHORITY)
    assert make_certificate(spki(), AUTHORITY) != make_certificate(spki(), "other.example.org")


def test_it_has_the_names_by_which_messages_are_found_to_be_for_the_key() -> None:
    """Issuer, serial number and key identifier are those that are known without it."""
    certificate, names = x509.load_der_x509_certificate(made()), names_of(spki(), AUTHORITY)
    assert certificate.issuer.public_bytes() == names.issuer
    assert certificate.serial_number == names.serial_number
    certified = read_certificate(made())
    assert (certified.public_key, certified.key_identifier) == (private_key().public_key, names.key_identifier)
    assert transport_kid(spki()) in certificate.subject.rfc4514_string()


def test_it_enciphers_keys_and_does_nothing_else() -> None:
    """Whoever trusts it for more has made a mistake that it does not share in."""
    extensions = x509.load_der_x509_certificate(made()).extensions
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_encipherment
    assert not any((usage.value.digital_signature, usage.value.key_cert_sign, usage.value.data_encipherment))
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_nobody_seems_to_have_signed_it() -> None:
    """Zeros verify under no key."""
    certificate = x509.load_der_x509_certificate(made())
    assert certificate.signature == bytes(256)
    assert certificate.issuer != certificate.subject


def test_an_authority_with_a_long_name_has_certificates_too() -> None:
    """X.509 takes 64 characters of it; messages are found to be for the key all the same."""
    long = "a" * 127
    certificate = x509.load_der_x509_certificate(made(long))
    assert certificate.issuer.public_bytes() == names_of(spki(), long).issuer
    assert certificate.issuer.rfc4514_string() == "CN=" + "a" * 64


def test_a_public_key_in_pem_is_the_key() -> None:
    """As OpenSSL writes it."""
    label, content = read_pem(public_key_pem(spki()), ("PUBLIC KEY",))
    assert (label, content) == ("PUBLIC KEY", spki())


@pytest.mark.parametrize("write", [public_key_pem, lambda spki: make_certificate(spki, AUTHORITY)])
def test_what_is_no_rsa_key_is_not_written(write: Callable[[bytes], bytes]) -> None:
    """Nor one in another encoding, which would have another id."""
    for wrong in (b"", spki() + b"\0", spki()[:-1]):
        with pytest.raises(ValueError, match="RSA"):
            write(wrong)
