"""What is done with the objects of a PKCS #11 token: key pairs are made, read, used and tried.

Objects are python-pkcs11's, whose types say little: which methods one has depends on what the token says of it. The
caller holds the module's lock. Everything raises DeviceFault when the module refuses.
"""

import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from strongroom.crypto.hpke_opening import ECDH_BYTES, is_point, open_with
from strongroom.crypto.pkcs11_module import DeviceFault, faults, library
from strongroom.crypto.rsa import RSA_BITS_MAX, RSA_BITS_MIN, Padding, RsaPublicKey, wrap
from strongroom.crypto.sealing import PUBLIC_KEY_BYTES, Suite, kid, seal, transport_kid
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, ConfigurationInvalid

if TYPE_CHECKING:
    from pkcs11 import Session

P256_PARAMETERS: Final = bytes.fromhex("06082a8648ce3d030107")
"""The named curve secp256r1 as CKA_EC_PARAMS has it (RFC 5480 section 2.1.1.1)."""

_TRIAL: Final = b"strongroom/token-trial/v1"
_TRIAL_BYTES: Final = 32
_ID_BYTES: Final = 16
_POINT_BYTES: Final = PUBLIC_KEY_BYTES[Suite.P256]


class KeyLabel(StrEnum):
    """What keys are for; the value is their CKA_LABEL."""

    SEALING = "strongroom-sealing"
    TRANSPORT = "strongroom-transport"


@dataclass(frozen=True, slots=True)
class TokenKey:
    """The public half of a key: `public_key` is an uncompressed point, or SubjectPublicKeyInfo in DER."""

    label: KeyLabel
    kid: str
    public_key: bytes


def attribute(held: Any, name: str) -> Any:
    """Return what an object says of itself under `CKA_<name>`."""
    with faults():
        return held[library().Attribute[name]]


def generated(session: "Session", label: KeyLabel, bits: int) -> tuple[Any, Any]:
    """Make a key pair under a random CKA_ID; return public and private key object. `bits` is for RSA alone.

    The private key is sensitive, cannot be extracted, and may do nothing but what it is for.
    """
    pkcs11 = library()
    names, can = pkcs11.Attribute, pkcs11.MechanismFlag
    marks: dict[str, Any] = {
        "store": True,
        "label": label.value,
        "id": secrets.token_bytes(_ID_BYTES),
        "private_template": {names.SENSITIVE: True, names.EXTRACTABLE: False, names.PRIVATE: True},
    }
    with faults():
        if label is KeyLabel.TRANSPORT:
            marks["capabilities"] = can.ENCRYPT | can.DECRYPT
            return session.generate_keypair(pkcs11.KeyType.RSA, bits, **marks)
        curve = session.create_domain_parameters(pkcs11.KeyType.EC, {names.EC_PARAMS: P256_PARAMETERS}, local=True)
        return curve.generate_keypair(capabilities=can.DERIVE, **marks)


def set_id(held: Any, value: bytes) -> None:
    """Give an object another CKA_ID."""
    with faults():
        held[library().Attribute.ID] = value


def sealing_public(public: Any) -> TokenKey:
    """Read a P-256 public key object; ValueError where it is none."""
    pkcs11 = library()
    if attribute(public, "KEY_TYPE") != pkcs11.KeyType.EC or attribute(public, "EC_PARAMS") != P256_PARAMETERS:
        raise ValueError("not P-256")
    encoded = attribute(public, "EC_POINT")
    # An OCTET STRING in DER by the standard; some modules leave its head away.
    point = encoded[2:] if encoded[:2] == b"\x04\x41" and len(encoded) == _POINT_BYTES + 2 else encoded
    if not is_point(point):
        raise ValueError("not a point of the curve")
    return TokenKey(KeyLabel.SEALING, kid(Suite.P256, point), point)


def transport_public(public: Any) -> TokenKey:
    """Read an RSA public key object; ValueError where it is none."""
    if attribute(public, "KEY_TYPE") != library().KeyType.RSA:
        raise ValueError("not RSA")
    modulus, exponent = (int.from_bytes(attribute(public, name), "big") for name in ("MODULUS", "PUBLIC_EXPONENT"))
    key = RsaPublicKey(modulus, exponent)
    if not RSA_BITS_MIN <= key.bits <= RSA_BITS_MAX:
        raise ValueError("too short or too long")
    spki = key.to_spki()
    return TokenKey(KeyLabel.TRANSPORT, transport_kid(spki), spki)


def derived(private: Any, point: bytes) -> Secret:
    """Return the x-coordinate of a P-256 private key times a point.

    The token hands it out, as a session object that is deleted at once.
    """
    pkcs11 = library()
    names = pkcs11.Attribute
    with faults():
        shared = private.derive_key(
            pkcs11.KeyType.GENERIC_SECRET,
            8 * ECDH_BYTES,
            mechanism=pkcs11.Mechanism.ECDH1_DERIVE,
            mechanism_param=(pkcs11.KDF.NULL, None, point),
            template={names.TOKEN: False, names.SENSITIVE: False, names.EXTRACTABLE: True},
        )
        try:
            found = Secret(shared[names.VALUE])
        finally:
            shared.destroy()
    if len(found) != ECDH_BYTES:
        raise DeviceFault("WrongLength")
    return found


def decrypted(private: Any, ciphertext: bytes) -> Secret:
    """Return what a ciphertext holds by RSA-OAEP with SHA-1."""
    pkcs11 = library()
    with faults():
        return Secret(
            private.decrypt(
                ciphertext,
                mechanism=pkcs11.Mechanism.RSA_PKCS_OAEP,
                mechanism_param=(pkcs11.Mechanism.SHA_1, pkcs11.MGF.SHA1, None),
            )
        )


def works(key: TokenKey, private: Any) -> bool:
    """Say whether a private key opens what is sealed to its public key now."""
    text = Secret(secrets.token_bytes(_TRIAL_BYTES))
    if key.label is KeyLabel.TRANSPORT:
        return decrypted(private, wrap(RsaPublicKey.from_spki(key.public_key), text, Padding.OAEP)) == text
    blob = seal(Suite.P256, key.public_key, text.expose(), _TRIAL)
    try:
        return open_with(lambda point: derived(private, point), key.public_key, blob, _TRIAL) == text
    except BlobInvalid:
        return False


def unusable(label: KeyLabel, private: Any, cause: str, hint: str) -> ConfigurationInvalid:
    """Return the error that says which key of the token cannot be used, and why."""
    named = attribute(private, "ID").hex() or "empty"
    return ConfigurationInvalid(f"token: the private key {label} with CKA_ID {named} {cause}", hint=hint)
