"""Keys that other programs wrapped to transport keys: roster entries, bytes, and the records that hold them."""

from typing import Any, Final

from tests.support import authority as make
from tests.support import cms
from tests.support.cryptoapi import authority_key

from strongroom.crypto.rsa import Padding, PrivateRsaKey
from strongroom.crypto.sealing import transport_kid
from strongroom.crypto.secret import Secret
from strongroom.formats.alg_id import RsaUse, SessionAlgorithm
from strongroom.formats.cms import EnvelopedData
from strongroom.formats.cryptoapi import PlaintextKeyBlob, PublicKeyBlob, SimpleBlob
from strongroom.formats.volume_key import VolumeKeyPacket
from strongroom.mandates import SealingKeyState, TransportKey
from strongroom.messages import Record, WrappedFormat, Wrapping


def transport_key(name: str = "simple") -> PrivateRsaKey:
    """Return the key that all SIMPLEBLOBs of the vectors are wrapped for, or that of the CMS vectors (`cms`)."""
    return authority_key() if name == "simple" else cms.private_key()


def entry(name: str = "simple", state: SealingKeyState = SealingKeyState.ACTIVE) -> TransportKey:
    """Return the roster's entry for a transport key."""
    spki = transport_key(name).public_key.to_spki()
    return TransportKey(kid=transport_kid(spki), public_key=spki, state=state)


SIMPLE: Final = entry("simple")
CMS: Final = entry("cms")


def simple_blob(key: bytes, padding: Padding, algorithm: SessionAlgorithm = SessionAlgorithm.AES_256) -> bytes:
    """Wrap a session key for `SIMPLE` as CryptoAPI does; other bytes each time."""
    recipient = PublicKeyBlob(RsaUse.EXCHANGE, transport_key().public_key)
    return SimpleBlob.seal(PlaintextKeyBlob(algorithm, Secret(key)), recipient, padding).encode()


def digest_of(material: bytes) -> str:
    """Return the digest of the encrypted key inside, of a CMS message the first recipient's."""
    if material.startswith(b"\1\2"):
        return SimpleBlob.parse(material).ciphertext_digest
    if material.startswith(b"\0volume_key"):
        return VolumeKeyPacket.parse(Secret(material)).enveloped_data().recipients[0].digest
    return EnvelopedData.parse(material).recipients[0].digest


def wrapping(material: bytes, **changes: Any) -> Wrapping:
    """Return what its owner signs of a SIMPLEBLOB that was wrapped with OAEP; members as given."""
    members: dict[str, Any] = {"format": WrappedFormat.CRYPTOAPI_SIMPLE, "padding": "oaep", "kid": SIMPLE.kid}
    if "digest" not in changes:
        members["digest"] = digest_of(material)
    return Wrapping(**(members | changes))


def record(
    principal: str = make.PRINCIPAL, *, material: bytes, says: Wrapping | None = None, **changes: Any
) -> Record:
    """Return a record of a wrapped key, sealed in its place; `says` is what its owner signs of it."""
    return make.record(principal, material=material, **({"wrapping": says or wrapping(material)} | changes))
