"""Packets of volume_key: recognised by every field that shows, carried as they are, opened where they are CMS."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cms import Message, private_key, recipient_key, vector

from strongroom.crypto.secret import Secret
from strongroom.errors import LimitExceeded, MalformedStatement
from strongroom.formats.volume_key import PacketFormat, VolumeKeyPacket

UNTIMED = settings(deadline=None)  # a busy machine is no failure
PACKETS = {
    "volume-key-default.packet": PacketFormat.ASYMMETRIC_WRAP_SECRET_ONLY,
    "volume-key-asymmetric.packet": PacketFormat.ASYMMETRIC,
    "volume-key-cleartext.packet": PacketFormat.CLEARTEXT,
}
HEAD = b"\0volume_key"


def structure(content: bytes, *, tag: str = "420135f480", longer: int = 0) -> bytes:
    return bytes.fromhex(tag) + (len(content) + longer).to_bytes(4, "big") + content


def packet(kind: int, body: bytes) -> Secret:
    return Secret(HEAD + bytes([kind]) + body)


@pytest.mark.parametrize("name", PACKETS)
def test_what_volume_key_wrote_is_recognised_and_carried_as_it_is(name: str) -> None:
    """Format and body are what is in the file."""
    found = VolumeKeyPacket.parse(Secret(vector(name)))
    assert found.format is PACKETS[name]
    assert HEAD + bytes([found.format]) + found.body.expose() == vector(name)


def test_an_asymmetric_packet_opens_as_cms_to_the_body_of_a_cleartext_packet() -> None:
    """So that volume_key can read it again; nothing is read of it here."""
    message = VolumeKeyPacket.parse(Secret(vector("volume-key-asymmetric.packet"))).enveloped_data()
    content = message.open(private_key(), message.recipient_for(recipient_key()))
    again = VolumeKeyPacket.parse(packet(PacketFormat.CLEARTEXT, content.expose()))
    assert len(again.body) == len(VolumeKeyPacket.parse(Secret(vector("volume-key-cleartext.packet"))).body)


@pytest.mark.parametrize("name", [name for name, kind in PACKETS.items() if kind is not PacketFormat.ASYMMETRIC])
def test_other_packets_are_no_cms(name: str) -> None:
    """The one that volume_key writes when nothing is said is among them."""
    with pytest.raises(MalformedStatement, match=r"only asymmetric packets are CMS messages$"):
        VolumeKeyPacket.parse(Secret(vector(name))).enveloped_data()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (Secret(b""), "does not begin as an escrow packet does"),
        (Secret(HEAD), "does not begin as an escrow packet does"),
        (packet(2, b""), "does not begin as an escrow packet does"),
        (Secret(b"\1volume_key\2body"), "does not begin as an escrow packet does"),
        (packet(5, b"body"), "^volume_key: format: is 5, must be 0 to 4$"),
        (packet(255, b"body"), "^volume_key: format: is 255, must be 0 to 4$"),
        (packet(0, structure(b"x", tag="420135f580")), "body: does not begin as"),
        (packet(3, structure(b"x", tag="420135f404")), "body: does not begin as"),
        (packet(4, structure(b"")[:8]), "body: does not begin as"),
        (packet(0, structure(b"x", longer=1)), "^volume_key: body: has 1 bytes; by its length field it has 2$"),
        (packet(3, structure(b"x", longer=-1)), "^volume_key: body: has 1 bytes; by its length field it has 0$"),
        (packet(1, structure(b"x")), "ASN.1"),
        (packet(1, Message(version=b"\x05\x00").encode()), "^CMS: version: is NULL, must be INTEGER$"),
    ],
)
def test_what_is_no_packet_is_refused_by_name(data: Secret, words: str) -> None:
    """Magic, format, and what each format's body must begin with."""
    with pytest.raises(MalformedStatement, match=words):
        VolumeKeyPacket.parse(data)


def test_packets_of_every_format_are_carried() -> None:
    """What a passphrase encrypts is OpenPGP, and not looked at."""
    for kind in (0, 3, 4):
        assert VolumeKeyPacket.parse(packet(kind, structure(b"content"))).format == kind
    assert VolumeKeyPacket.parse(packet(2, b"anything")).format is PacketFormat.PASSPHRASE


def test_a_packet_is_read_to_its_limit_and_no_further() -> None:
    """That of key material."""
    assert len(VolumeKeyPacket.parse(packet(2, bytes(65_536 - 12))).body) == 65_524
    with pytest.raises(LimitExceeded, match=r"^volume_key: has 65537 bytes; KEY_MATERIAL_BYTES_MAX allows 65536"):
        VolumeKeyPacket.parse(packet(2, bytes(65_536 - 11)))


@UNTIMED
@given(st.sampled_from(sorted(PACKETS)), st.data())
def test_damage_is_refused_or_leaves_a_packet(name: str, draw: st.DataObject) -> None:
    """Cut or extended it is always refused; changed, it is refused or carried as it is."""
    whole = vector(name)
    cut = whole[: draw.draw(st.integers(0, len(whole) - 1))]
    for wrong in (cut, whole + draw.draw(st.binary(min_size=1, max_size=8))):
        with pytest.raises((MalformedStatement, LimitExceeded)):
            VolumeKeyPacket.parse(Secret(wrong))
    changed = bytearray(whole)
    changed[draw.draw(st.integers(0, len(whole) - 1))] ^= draw.draw(st.integers(1, 255))
    try:
        found = VolumeKeyPacket.parse(Secret(bytes(changed)))
    except (MalformedStatement, LimitExceeded):
        return
    assert HEAD + bytes([found.format]) + found.body.expose() == changed


def test_the_body_is_not_shown() -> None:
    """That of a cleartext packet is the key."""
    found = VolumeKeyPacket.parse(packet(0, structure(b"secret")))
    assert "secret" not in repr(found)
