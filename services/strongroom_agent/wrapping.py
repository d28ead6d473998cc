"""Keys that another program wrapped for the authority: which transport key they are for, and what is signed of it.

Nothing is opened here. So a SIMPLEBLOB with PKCS #1 v1.5 that is said to have OAEP, or the reverse, is not found
out: that shows when somebody wants its key. Everything else is found before anything is sealed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from strongroom.crypto.rsa import Padding, check_ciphertext
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, KeyUnknown, UsageError
from strongroom.formats.cms import EnvelopedData
from strongroom.formats.cms_recipients import RecipientKey
from strongroom.formats.cryptoapi import SimpleBlob
from strongroom.formats.kinds import describe
from strongroom.formats.volume_key import VolumeKeyPacket
from strongroom.mandates import SealingKeyState, TransportKey
from strongroom.messages import WrappedFormat, Wrapping
from strongroom.roster import Roster
from strongroom.wrapped import identify, recipient_key

_SYNC: Final = "if the authority has changed its keys, `strongroom sync` brings the new ones; then try it again"


@dataclass(frozen=True, slots=True)
class Wrapped:
    """What the owner says of a key that another program wrapped (SPEC 4.6).

    padding: of the RSA encryption; None where the format says it itself, which a SIMPLEBLOB does not. kid: of the
    transport key it was wrapped for; None for the one that it can only be.
    """

    format: WrappedFormat
    padding: Padding | None = None
    kid: str | None = None


@dataclass(frozen=True, slots=True)
class Identified:
    """What is signed about a wrapped key, and the algorithm it is said to be for, e.g. `AES-256`."""

    wrapping: Wrapping
    algorithm: str


def identified(material: Secret, wrapped: Wrapped, roster: Roster) -> Identified:
    """Find out for which transport key a key was wrapped, and check everything that can be seen from outside.

    Raises UsageError where the padding or the transport key has to be said; otherwise what `wrapped.identify`
    raises.
    """
    if wrapped.kid is not None:
        _known(roster, wrapped.kid)
    try:
        kid = wrapped.kid or _fitting(material, wrapped.format, roster)
        padding = wrapped.padding or _said(material, wrapped.format, roster, kid)
        wrapping = identify(wrapped.format, material, padding, kid, roster)
    except BlobInvalid as error:
        raise BlobInvalid(error.message, hint=error.hint or _elsewhere(wrapped.format)) from None
    if wrapped.format is WrappedFormat.CRYPTOAPI_SIMPLE:
        return Identified(wrapping, SimpleBlob.parse(material.expose()).algorithm.label)
    return Identified(wrapping, describe(wrapped.format, material))


def _fitting(material: Secret, kind: WrappedFormat, roster: Roster) -> str:
    """Return the id of the one transport key that these bytes can be for, as far as anybody can see.

    Where a SIMPLEBLOB can be for several, none is taken: said to be for the wrong one, it would be kept and proven,
    and never be opened.
    """
    keys = [each for each in roster.body.transport_keys if each.state is not SealingKeyState.CLOSED]
    if not keys:
        raise KeyUnknown(
            f"the authority has no transport key in roster version {roster.body.version}",
            hint="its operators make one: `strongroom authority add-key --help`; then `strongroom sync` here",
        )
    refusals: list[BlobInvalid] = []
    fitting: list[str] = []
    for key in keys:
        try:
            _check_fits(material, kind, recipient_key(key, roster.body.authority))
        except BlobInvalid as error:
            refusals.append(error)
        else:
            fitting.append(key.kid)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(
            f"the wrapped key can be for {len(fitting)} transport keys of the authority: {', '.join(fitting)}",
            hint="say for which: --transport-key KID; `strongroom authority export` named it when it was exported",
        )
    raise refusals[0] if len(refusals) == 1 else _of_none(refusals, keys)


def _elsewhere(kind: WrappedFormat) -> str:
    """Say what is likely where a key is wrapped for none of the authority's."""
    if kind is WrappedFormat.CRYPTOAPI_SIMPLE:
        return (
            f"it is perhaps for another key: `strongroom authority export --as publickeyblob` gives ours; {_SYNC}"
        )
    return (
        f"it is perhaps for another certificate: `strongroom authority export --as certificate` gives ours; {_SYNC}"
    )


def _of_none(refusals: Sequence[BlobInvalid], keys: Sequence[TransportKey]) -> BlobInvalid:
    each = "; ".join(f"{key.kid}: {error.message}" for key, error in zip(keys, refusals, strict=True))
    return BlobInvalid(f"the wrapped key is for none of the authority's {len(keys)} transport keys: {each}")


def _known(roster: Roster, kid: str) -> None:
    """Raise KeyUnknown for a transport key that nothing may be wrapped for any more, or that is not known here."""
    try:
        roster.accepted_transport_key(kid)
    except KeyUnknown as error:
        raise KeyUnknown(error.message, hint=error.hint or _SYNC) from None


def _check_fits(material: Secret, kind: WrappedFormat, key: RecipientKey) -> None:
    if kind is WrappedFormat.CRYPTOAPI_SIMPLE:
        check_ciphertext(key.public_key, SimpleBlob.parse(material.expose()).ciphertext)
    else:
        _message(material, kind).recipient_for(key)


def _said(material: Secret, kind: WrappedFormat, roster: Roster, kid: str) -> Padding:
    """Return the padding that the format itself names."""
    if kind is WrappedFormat.CRYPTOAPI_SIMPLE:
        raise UsageError(
            "padding: a SIMPLEBLOB does not say it",
            hint="--padding oaep if it was exported with CRYPT_OAEP, otherwise --padding pkcs1",
        )
    key = recipient_key(roster.accepted_transport_key(kid), roster.body.authority)
    return Padding.PKCS1 if _message(material, kind).recipient_for(key).oaep is None else Padding.OAEP


def _message(material: Secret, kind: WrappedFormat) -> EnvelopedData:
    if kind is WrappedFormat.VOLUME_KEY:
        return VolumeKeyPacket.parse(material).enveloped_data()
    return EnvelopedData.parse(material.expose())
