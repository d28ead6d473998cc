"""Making keys on a PKCS #11 token, at the ceremony: what is made there never leaves it.

No copy can be made either. A token that is lost or breaks takes its keys along, and with them every record that was
sealed to them alone: two tokens, or the vendor's own way of backing up, are for whoever makes them to see to.
"""

from typing import Final

from strongroom.crypto.pkcs11_module import DeviceFault
from strongroom.crypto.pkcs11_uri import Pkcs11Uri
from strongroom.crypto.rsa import RSA_BITS_MIN
from strongroom.crypto.secret import Secret
from strongroom.crypto.token_objects import KeyLabel, TokenKey
from strongroom.crypto.token_session import TokenSession
from strongroom.errors import KeyDeviceUnavailable

TRANSPORT_KEY_BITS: Final = 3072


def make_key(uri: Pkcs11Uri, pin: Secret, label: KeyLabel, *, bits: int = TRANSPORT_KEY_BITS) -> TokenKey:
    """Make a P-256 sealing key or an RSA transport key on a token, and return its public half and its kid.

    The private key is marked sensitive and not extractable, and may do nothing but derive, or decrypt; it has
    opened what was sealed to its public key when this returns. `bits` is for RSA, at least 2,048.

    Raises ConfigurationInvalid, which says what to do, for a missing module or token and a PIN that is refused;
    KeyDeviceUnavailable when the token fails. Nothing is left on the token then.
    """
    if bits < RSA_BITS_MIN:
        raise ValueError(f"a new transport key has at least {RSA_BITS_MIN} bits")
    try:
        session = TokenSession.open(uri, pin, writing=True)
        try:
            return session.make_key(label, bits)
        finally:
            session.close()
    except DeviceFault as fault:
        cause = f"its module says {fault.name}"
    raise KeyDeviceUnavailable(
        f"token with {uri.description}: no key could be made ({cause})",
        hint="is there room on it, and may keys be made there?",
    )
