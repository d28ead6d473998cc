"""Keys that other programs wrapped for the authority in tests, and that authority's transport key."""

from typing import Final

from tests.support import cms
from tests.support.cryptoapi import authority_key

from strongroom.crypto.rsa import Padding, PrivateRsaKey, wrap
from strongroom.crypto.sealing import transport_kid
from strongroom.crypto.secret import Secret
from strongroom.testing import FakeAuthority

KEY: Final = authority_key()
"""The key that the SIMPLEBLOBs of the vectors are wrapped for."""

CONTENT: Final = b"what the message holds"

_SHA_1_OAEP: Final = cms.tlv(0x30)


def kid_of(key: PrivateRsaKey) -> str:
    """Return the id of a transport key."""
    return transport_kid(key.public_key.to_spki())


KID: Final = kid_of(KEY)


def take_transport_keys(authority: FakeAuthority, *keys: PrivateRsaKey) -> None:
    """Put a roster in force that names these transport keys, the first of them active."""
    authority.transport_keys = list(keys or (KEY,))
    authority.renew_roster()


def message(padding: Padding = Padding.PKCS1, key: PrivateRsaKey | None = None, content: bytes = CONTENT) -> bytes:
    """Return a CMS message for a key, which it calls by its usual key identifier."""
    return cms.Message(
        recipients=[recipient(padding, key)], content=cms.tlv(0x80, cms.encrypted_content(content))
    ).encode()


def recipient(padding: Padding = Padding.PKCS1, key: PrivateRsaKey | None = None) -> bytes:
    """Return a recipient of such a message."""
    from strongroom.crypto.certificates import default_key_identifier

    public_key = (key or KEY).public_key
    oaep = cms.algorithm(cms.RSAES_OAEP, _SHA_1_OAEP)
    return cms.Recipient(
        identifier=cms.tlv(0x80, default_key_identifier(public_key)),
        algorithm=oaep if padding is Padding.OAEP else cms.algorithm(cms.RSA_ENCRYPTION),
        key=cms.tlv(0x04, wrap(public_key, Secret(cms.CONTENT_KEY), padding)),
    ).encode()


def packet(body: bytes) -> bytes:
    """Return an asymmetric packet of volume_key around a CMS message."""
    return b"\0volume_key\1" + body
