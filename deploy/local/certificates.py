"""The certificates of a local stack: its servers', and those of agents that log in to the broker by one."""

import datetime as dt
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from deploy.local.accounts import write_private
from deploy.local.place import Place

_LIFETIME = dt.timedelta(days=3650)
_SERVER_FILES = ("ca.pem", "server.pem", "server.key")
_AGENTS_FILES = ("agents-ca.pem", "agents-ca.key")


def ensure(place: Place) -> None:
    """Make what is missing in `tls/`.

    `ca.pem`, `server.pem` and `server.key` are for localhost and 127.0.0.1; that authority's private key is
    forgotten at once, so nobody can sign a second server. `agents-ca.pem` and `agents-ca.key` sign agents.
    """
    folder = place.root / "tls"
    with place.locked("tls"):
        for names, issue in ((_SERVER_FILES, _issue_server), (_AGENTS_FILES, _issue_agents_authority)):
            if not all((folder / name).exists() for name in names):
                for name, content in zip(names, issue(), strict=True):
                    write_private(folder / name, content)
        write_private(place.ca_file, (folder / "ca.pem").read_bytes())


def issue_agent(place: Place, name: str) -> tuple[bytes, bytes]:
    """Return a certificate with the common name `name`, and its private key, both PEM.

    The broker takes it for the account of that name, whatever the account may do.
    """
    folder = place.root / "tls"
    authority = x509.load_pem_x509_certificate((folder / "agents-ca.pem").read_bytes())
    authority_key = load_pem_private_key((folder / "agents-ca.key").read_bytes(), None)
    if not isinstance(authority_key, ec.EllipticCurvePrivateKey):
        raise TypeError("agents-ca.key: not a key of this stack")
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _leaf(name, authority.subject, key, authority_key, ExtendedKeyUsageOID.CLIENT_AUTH).sign(
        authority_key, hashes.SHA256()
    )
    return certificate.public_bytes(Encoding.PEM), _private(key)


def _issue_server() -> tuple[bytes, bytes, bytes]:
    """Return the authority's certificate, the servers' certificate and its private key, all PEM."""
    authority, authority_key = _issue_authority("Strongroom local stack")
    key = ec.generate_private_key(ec.SECP256R1())
    server = (
        _leaf("localhost", authority.subject, key, authority_key, ExtendedKeyUsageOID.SERVER_AUTH)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(authority_key, hashes.SHA256())
    )
    return authority.public_bytes(Encoding.PEM), server.public_bytes(Encoding.PEM), _private(key)


def _issue_agents_authority() -> tuple[bytes, bytes]:
    """Return the certificate and the private key of the authority that signs agents, both PEM."""
    authority, key = _issue_authority("Strongroom local agents")
    return authority.public_bytes(Encoding.PEM), _private(key)


def _issue_authority(name: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(_name(name), _name(name), key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _leaf(
    common_name: str,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    authority_key: ec.EllipticCurvePrivateKey,
    use: x509.ObjectIdentifier,
) -> x509.CertificateBuilder:
    return (
        _builder(_name(common_name), issuer, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
