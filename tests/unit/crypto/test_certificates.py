"""What a certificate says of an RSA key, and what is none."""

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cms import private_key, vector

from strongroom.crypto.certificates import default_key_identifier, read_certificate
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
