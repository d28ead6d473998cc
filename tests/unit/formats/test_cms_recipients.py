"""The names by which a message calls a key: from a certificate, or from the key alone."""

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cms import private_key, recipient_key, vector

from strongroom.errors import KeyUnknown, LimitExceeded, MalformedStatement
from strongroom.formats.armour import read_pem
from strongroom.formats.cms import EnvelopedData
from strongroom.formats.cms_recipients import IssuerAndSerialNumber, RecipientKey, SubjectKeyIdentifier

UNTIMED = settings(deadline=None)  # a busy machine is no failure


def test_a_certificate_gives_every_name_of_its_key() -> None:
    """As another program writes them: issuer and serial number, and the key identifier."""
    names = {
        EnvelopedData.parse(vector(name)).recipients[0].identifier for name in ("aes-256.der", "key-identifier.der")
    }
    assert {type(name) for name in names} == {IssuerAndSerialNumber, SubjectKeyIdentifier}
    assert recipient_key().names == names
    assert recipient_key().has_certificate
    assert recipient_key().public_key == private_key().public_key


def test_a_certificate_is_read_in_pem_and_der_alike() -> None:
    """And as nothing else."""
    pem = vector("authority.crt.pem")
    assert RecipientKey.from_certificate(read_pem(pem, ("CERTIFICATE",))[1]) == recipient_key()
    with pytest.raises(MalformedStatement, match=r"^PEM: is 'PRIVATE KEY', must be 'CERTIFICATE'$"):
        RecipientKey.from_certificate(vector("authority.key.pem"))
    with pytest.raises(KeyUnknown, match=r"^certificate: is not of an RSA key$"):
        RecipientKey.from_certificate(vector("elliptic.crt.pem"))


def test_the_key_identifier_of_a_certificate_may_be_any() -> None:
    """It counts as well as the usual one."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "own identifier")])
    first, last = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, first, last)
    built = builder.add_extension(x509.SubjectKeyIdentifier(b"own"), critical=False).sign(key, hashes.SHA256())
    found = RecipientKey.from_certificate(built.public_bytes(serialization.Encoding.PEM))
    issuer = IssuerAndSerialNumber(built.issuer.public_bytes(), 7)
    assert found.names == RecipientKey.from_public_key(found.public_key).names | {
        SubjectKeyIdentifier(b"own"),
        issuer,
    }


def test_a_key_alone_has_its_usual_identifier() -> None:
    """The one that openssl puts into certificates."""
    key = RecipientKey.from_public_key(private_key().public_key)
    assert key.names == {EnvelopedData.parse(vector("key-identifier.der")).recipients[0].identifier}
    assert not key.has_certificate


def test_two_certificates_of_one_issuer_are_told_apart_by_their_serial_numbers() -> None:
    """And two issuers with one serial number by their names."""
    name = next(each for each in recipient_key().names if isinstance(each, IssuerAndSerialNumber))
    assert IssuerAndSerialNumber(name.issuer, name.serial_number + 1) not in recipient_key().names
    assert IssuerAndSerialNumber(name.issuer + b"\0", name.serial_number) not in recipient_key().names


@UNTIMED
@given(st.data())
def test_no_damage_to_a_certificate_makes_the_reader_fail_otherwise(draw: st.DataObject) -> None:
    """Cut or changed, it is read or refused with one of our errors."""
    data = bytearray(read_pem(vector("authority.crt.pem"), ("CERTIFICATE",))[1])
    if draw.draw(st.booleans()):
        data = data[: draw.draw(st.integers(0, len(data) - 1))]
    else:
        data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    try:
        assert RecipientKey.from_certificate(bytes(data)).has_certificate
    except (MalformedStatement, LimitExceeded, KeyUnknown):
        return
