"""The pure parts of the broker package: URLs that never show, reply addresses, what may be copied, ids."""

import base64
import datetime as dt
import struct
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from strongroom.broker import ClientCertificate, quarantine_id
from strongroom.broker.endpoint import Endpoint, printable
from strongroom.broker.quarantine import publishable_routing_key, quarantine_properties, safe_headers
from strongroom.broker.replies import has_narrow_process_id, reply_node
from strongroom.errors import ConfigurationInvalid

PREFIX = "amq.rabbitmq.reply-to."
NODE = b"\x83Xv\x00\x0ereply@63496052"
KEY = base64.b64encode(bytes(16)).decode()


def parse(url: str, ca_file: Path | None = None, certificate: ClientCertificate | None = None) -> Endpoint:
    """An endpoint with everything but the URL and its files fixed."""
    return Endpoint.parse(url, ca_file=ca_file, name="test", timeout_seconds=1, certificate=certificate)


def pair(folder: Path, *, passphrase: bytes | None = None) -> ClientCertificate:
    """A self-signed certificate and its private key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "abc")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    protection = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    files = ClientCertificate(folder / "client.pem", folder / "client.key")
    files.file.write_bytes(made.public_bytes(Encoding.PEM))
    files.key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection))
    return files


def address(process: bytes, key: str = KEY) -> str:
    """A direct reply-to address as RabbitMQ writes it."""
    return f"{PREFIX}{base64.b64encode(process).decode()}.{key}"


def process(identity: int = 851, serial: int = 0, creation: int = 1795379117) -> bytes:
    """A channel's process in Erlang's external term format."""
    return NODE + struct.pack(">III", identity, serial, creation)


# ---- URLs ----


def test_an_endpoint_shows_host_port_and_vhost_and_nothing_else() -> None:
    """Neither its repr nor `where` holds user, password or CA file."""
    endpoint = parse("amqps://fleet:s3cret@broker.example:5671/strongroom", Path("/etc/ca.pem"))
    assert endpoint.where == "broker.example:5671/strongroom"
    for secret in ("s3cret", "fleet", "ca.pem"):
        assert secret not in repr(endpoint)


@pytest.mark.parametrize(("scheme", "port"), [("amqp", 5672), ("amqps", 5671)])
def test_the_port_is_that_of_the_scheme_unless_given(scheme: str, port: int) -> None:
    """The registered ports of AMQP without and with TLS."""
    assert parse(f"{scheme}://u:p@h/v").where == f"h:{port}/v"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3cret",
        "https://u:s3cret@host/vhost",
        "amqps://u:s3cret@/vhost",
        "amqps://u:s3cret@host:port/vhost",
        "amqps://u:s3cret@host:99999/vhost",
        "amqps://u:12/s3cret@host/vhost",
        "amqps://u:12?s3cret@host/vhost",
        "amqps://u:12#s3cret@host/vhost",
        "amqps://u:s3cret/x@host/vhost",
        "amqps://[u:s3cret@host/vhost",
    ],
)
def test_a_malformed_url_is_refused_without_repeating_it(url: str) -> None:
    """Whatever is wrong, the error holds no part of the URL: half of a password may stand anywhere in it."""
    with pytest.raises(ConfigurationInvalid) as refused:
        parse(url)
    assert "s3cret" not in f"{refused.value}{refused.value.hint}{refused.value.__context__}"


def test_a_ca_file_for_a_url_without_tls_is_refused() -> None:
    """Whoever gives a CA file means TLS, and must not silently get none."""
    with pytest.raises(ConfigurationInvalid, match="does not use amqps"):
        parse("amqp://u:p@host/vhost", Path("ca.pem"))


# ---- certificates ----

FILES = ClientCertificate(Path("client.pem"), Path("client.key"))


def test_a_certificate_for_a_url_without_tls_is_refused() -> None:
    """It could not be shown to anybody."""
    with pytest.raises(ConfigurationInvalid, match="does not use amqps"):
        parse("amqp://host/vhost", certificate=FILES)


@pytest.mark.parametrize("url", ["amqps://fleet:s3cret@h:5671/v?heartbeat=5", "amqps://h:5671/v?heartbeat=5"])
def test_with_a_certificate_the_login_holds_no_user_and_no_password(url: str) -> None:
    """What the driver is given asks for EXTERNAL before anything else, and keeps the rest of the URL."""
    assert parse(url, certificate=FILES).login_url == "amqps://h:5671/v?auth=external&heartbeat=5"
    assert parse(url).login_url == url


def test_an_endpoint_knows_whose_account_it_uses() -> None:
    """The user name of the URL, decoded; with a certificate the broker is left to judge."""
    assert parse("amqps://pc%2D1:x@h/v").is_account_of("pc-1")
    assert not parse("amqps://fleet:x@h/v").is_account_of("pc-1")
    assert not parse("amqps://h/v").is_account_of("pc-1")
    assert parse("amqps://fleet:x@h/v", certificate=FILES).is_account_of("pc-1")


def test_a_certificate_with_its_key_can_be_used(tmp_path: Path) -> None:
    """The context that verifies the broker also holds them."""
    assert parse("amqps://h/v", certificate=pair(tmp_path)).tls() is not None


@pytest.mark.parametrize("fault", ["no certificate", "no key", "another key", "an encrypted key", "no PEM"])
def test_a_certificate_that_cannot_be_used_is_named(fault: str, tmp_path: Path) -> None:
    """The error names both files and nothing in them; nobody is asked for a passphrase on a terminal."""
    files = pair(tmp_path, passphrase=b"x" if fault == "an encrypted key" else None)
    match fault:
        case "no certificate":
            files.file.unlink()
        case "no key":
            files.key_file.unlink()
        case "another key":
            (tmp_path / "other").mkdir()
            files.key_file.write_bytes(pair(tmp_path / "other").key_file.read_bytes())
        case "no PEM":
            files.key_file.write_bytes(b"s3cret")
    with pytest.raises(ConfigurationInvalid) as refused:
        parse("amqps://h/v", certificate=files).tls()
    assert str(files.file) in str(refused.value)
    assert str(files.key_file) in str(refused.value)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_unusable_ca_file_is_named(content: str | None, tmp_path: Path) -> None:
    """A missing or senseless CA file is a mistake in the configuration, not an unavailable broker."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigurationInvalid, match=r"ca\.pem"):
        parse("amqps://u:p@host/vhost", file).tls()


def test_tls_verifies_chain_and_host_name() -> None:
    """Nothing in a URL's query can switch that off, and the scheme counts however it is spelt."""
    context = parse("AMQPS://u:p@host/vhost?no_verify_ssl=1").tls()
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode.name == "CERT_REQUIRED"
    assert parse("amqp://u:p@host/vhost").tls() is None


def test_words_from_elsewhere_are_printable() -> None:
    """A broker's words cannot drive the terminal of whoever reads the error."""
    assert printable("no\x1b[31m\n\udcff way") == "no?[31m?? way"


# ---- reply addresses ----


def test_the_node_of_a_genuine_address_is_found() -> None:
    """The node is the process without its three numbers."""
    assert reply_node(address(process())) == NODE


@pytest.mark.parametrize(
    "forged",
    [
        None,
        "",
        "escrow",
        "amq.rabbitmq.reply-to",
        PREFIX,
        f"{PREFIX}x",
        f"{PREFIX}!!!.x",
        f"{PREFIX}AAAA.{KEY}",
        f"x{address(process())}",
        f"{address(process())}\n",
        f"{address(process())}.{KEY}",
        address(process(), key=""),
        address(process(), key="%%"),
        address(process()).replace("==.", "=."),
        address(process()).replace("==.", "===="),
        address(process()).replace("Q==.", "R==."),
        address(process()[:12]),
    ],
)
def test_anything_but_a_canonical_address_has_no_node(forged: str | None) -> None:
    """Queue names, other shapes, padding too short or too long, and set padding bits are all refused."""
    assert reply_node(forged) is None


@given(st.text(max_size=255))
def test_no_text_breaks_the_address_check(text: str) -> None:
    """The check is total: it answers for any text, and says no to what has not the prefix."""
    assert reply_node(text) is None
    reply_node(PREFIX + text)


@pytest.mark.parametrize(
    ("numbers", "narrow"),
    [
        ((0, 0), True),
        ((2**15 - 1, 2**13 - 1), True),
        ((2**15, 0), False),
        ((0, 2**13), False),
    ],
)
def test_process_numbers_are_narrow_up_to_fifteen_and_thirteen_bits(
    numbers: tuple[int, int],
    *,
    narrow: bool,
) -> None:
    """The edge of what Erlang before release 26 decodes."""
    assert has_narrow_process_id(address(process(*numbers))) is narrow


# ---- quarantine ----


def test_the_quarantine_id_depends_on_body_and_routing_key_and_their_border() -> None:
    """Sixteen hex digits, stable for ever: operators write them down."""
    assert quarantine_id("v1.escrow.abc", b"body") == "9822a0e013fadf22"
    assert quarantine_id("ab", b"c") != quarantine_id("a", b"bc")


def test_headers_that_act_or_do_not_encode_are_not_copied() -> None:
    """Routing, counting and our own headers stay behind, as do nested, huge and unencodable values."""
    assert safe_headers(
        {
            "x-strongroom-tree-size": 17,
            "traceparent": "00-abc",
            "CC": "v1.recovery.abc",
            "BCC": ["v1.recovery.abc"],
            "x-death": [{}],
            "x-first-death-queue": "escrow",
            "x-delivery-count": 3,
            "x-strongroom-code": "forged",
            "x-strongroom-reason": "forged",
            "x-strongroom-message-id": "forged",
            "x-strongroom-quarantined-at": 0,
            "x-strongroom-undecodable": "ValueError",
            "nested": {"a": 1},
            "long": "x" * 256,
            "wide": "ö" * 128,
            "huge": 2**63,
            "k" * 256: 1,
            "nothing": None,
            "real": 1.5,
        }
    ) == {"x-strongroom-tree-size": 17, "traceparent": "00-abc"}


def test_at_most_thirty_two_headers_are_copied() -> None:
    """A message with many headers does not make its copy unpublishable."""
    assert len(safe_headers({f"h{number}": number for number in range(40)})) == 32


def test_a_copy_has_reason_code_and_time_and_neither_expiration_nor_reply_address() -> None:
    """An expiration would empty the quarantine by itself, a reply address would answer to nobody."""
    properties = quarantine_properties({"h": 1}, message_id="m-1", code="malformed", reason="a\nb" + "x" * 600)
    copied = dict(properties.headers or {})
    assert copied.pop("x-strongroom-quarantined-at")
    assert copied == {
        "h": 1,
        "x-strongroom-code": "malformed",
        "x-strongroom-reason": "a?b" + "x" * 497,
        "x-strongroom-message-id": "m-1",
    }
    for name in ("expiration", "reply_to", "user_id", "message_id", "correlation_id"):
        assert getattr(properties, name) is None


def test_a_routing_key_that_grew_by_its_escapes_can_be_published_again() -> None:
    """A key of 255 bytes that were no UTF-8 is cut to what AMQP carries; every other one stays as it is."""
    grown = publishable_routing_key("v1.escrow." + r"\xff" * 244)
    assert len(grown.encode()) == 255
    assert publishable_routing_key("v1.escrow.laptop-0417") == "v1.escrow.laptop-0417"
    assert publishable_routing_key("é" * 128) == "é" * 127
    assert publishable_routing_key(None) == ""
