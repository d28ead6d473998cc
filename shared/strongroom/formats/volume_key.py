"""Escrow packets of volume_key (releases.pagure.org/volume_key): recognised and carried as they are.

A packet is 11 bytes of magic, a byte for its format, and a body. Only the body of the format `asymmetric` is CMS;
what `volume_key --save -c CERTIFICATE` and the installer's `--escrowcert` write when nothing is said is
`asymmetric_wrap_secret_only`, which only volume_key opens. Its metadata (host name, volume) are in the clear.
What is wrong with a packet is a MalformedStatement or a LimitExceeded. Source: its lib/libvolume_key.c.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

from strongroom.crypto.secret import Secret
from strongroom.errors import LimitExceeded, MalformedStatement
from strongroom.formats.cms import EnvelopedData
from strongroom.limits import KEY_MATERIAL_BYTES_MAX

_MAGIC: Final = b"\0volume_key"
_BODY_START: Final = len(_MAGIC) + 1
_PACKET_TAG: Final = bytes.fromhex("420135f4 80")  # of a structure, in volume_key's early form of KMIP
_LENGTH_BYTES: Final = 4


class PacketFormat(IntEnum):
    """What a packet's body is, and who can open it."""

    CLEARTEXT = 0
    ASYMMETRIC = 1
    PASSPHRASE = 2
    ASYMMETRIC_WRAP_SECRET_ONLY = 3
    SYMMETRIC_WRAP_SECRET_ONLY = 4


_STRUCTURES: Final = frozenset(
    {
        PacketFormat.CLEARTEXT,
        PacketFormat.ASYMMETRIC_WRAP_SECRET_ONLY,
        PacketFormat.SYMMETRIC_WRAP_SECRET_ONLY,
    }
)


@dataclass(frozen=True, slots=True)
class VolumeKeyPacket:
    """A packet: its format, and its body, which in a CLEARTEXT packet holds the key itself."""

    format: PacketFormat
    body: Secret

    @classmethod
    def parse(cls, packet: Secret) -> Self:
        """Read a packet; the body of format ASYMMETRIC must be a CMS message that `EnvelopedData.parse` reads."""
        data = packet.expose()
        if len(data) > KEY_MATERIAL_BYTES_MAX:
            raise LimitExceeded(
                f"volume_key: has {len(data)} bytes; KEY_MATERIAL_BYTES_MAX allows {KEY_MATERIAL_BYTES_MAX} bytes"
            )
        if not data.startswith(_MAGIC) or len(data) <= _BODY_START:
            raise MalformedStatement("volume_key: does not begin as an escrow packet does")
        try:
            kind = PacketFormat(data[len(_MAGIC)])
        except ValueError:
            raise MalformedStatement(f"volume_key: format: is {data[len(_MAGIC)]}, must be 0 to 4") from None
        body = Secret(data[_BODY_START:])
        if kind in _STRUCTURES:
            _check_structure(body)
        if kind is PacketFormat.ASYMMETRIC:
            EnvelopedData.parse(body.expose())
        return cls(kind, body)

    def enveloped_data(self) -> EnvelopedData:
        """Give the CMS message of a packet of format ASYMMETRIC; MalformedStatement for one of another."""
        if self.format is not PacketFormat.ASYMMETRIC:
            raise MalformedStatement(
                f"volume_key: format: is {self.format.name.lower()}; only asymmetric packets are CMS messages"
            )
        return EnvelopedData.parse(self.body.expose())


def _check_structure(body: Secret) -> None:
    start = len(_PACKET_TAG)
    head, data = body.expose()[:start], body.expose()[start:]
    if head != _PACKET_TAG or len(data) < _LENGTH_BYTES:
        raise MalformedStatement("volume_key: body: does not begin as the body of this format does")
    length = int.from_bytes(data[:_LENGTH_BYTES], "big")
    if length != len(data) - _LENGTH_BYTES:
        raise MalformedStatement(
            f"volume_key: body: has {len(data) - _LENGTH_BYTES} bytes; by its length field it has {length}"
        )
