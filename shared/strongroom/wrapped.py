"""Key material that another program wrapped to a transport key of the authority (SPEC 4.6, 5.17). Pure.

Whoever escrows says how it is wrapped (`identify`); the prover checks that, without any private key (`check`); the
recovery worker opens it, after officers approved (`unwrap`). A wrapped key is known by the SHA-256 of its RSA
ciphertext, whatever stands around it: the same bytes in another format, or beside another content, are a copy.

What opening tells, and to whom. The requester gets either content or `blob_invalid`, and the log has which. For
PKCS #1 v1.5 that is a question about the RSA key only if good and bad padding differ in it. They do not: a key
that does not unwrap is replaced by one that nobody knows, always the same for that ciphertext. A SIMPLEBLOB then
gives that key. A CMS message gives what the replacement makes of the content, which ends in padding once in about
256 times, just as with the real key of a ciphertext that somebody put together without knowing what is in it. So
garbage is released and not looked for: every test for it would tell the two apart. What remains is whether a
content changed by the requester ends in padding, by which CBC can be read. It gives nothing that the same request
for the unchanged message would not give: the first escrow of a wrapped key wins, so nobody else can ask about it,
and each question costs an approval, whatever policy says.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from strongroom.crypto.certificates import names_of
from strongroom.crypto.rsa import Padding, RsaPublicKey, Unwrapper, check_ciphertext
from strongroom.crypto.sealing import transport_kid
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, KeyUnknown, LimitExceeded, MalformedStatement
from strongroom.formats.cms import EnvelopedData
from strongroom.formats.cms_recipients import (
    IssuerAndSerialNumber,
    Recipient,
    RecipientIdentifier,
    RecipientKey,
    SubjectKeyIdentifier,
)
from strongroom.formats.cryptoapi import SimpleBlob
from strongroom.formats.volume_key import VolumeKeyPacket
from strongroom.mandates import TransportKey
from strongroom.messages import WrappedFormat, Wrapping
from strongroom.roster import Roster

_NOT_AS_SIGNED: Final = "the key material is not the wrapped key that was signed for"
_DOES_NOT_OPEN: Final = "the wrapped key does not open as it was signed for"


def recipient_key(transport_key: TransportKey, authority: str) -> RecipientKey:
    """Give a transport key with the names by which CMS messages call it.

    They are those of its certificate, and the key identifier of RFC 5280 that other certificates of it have. Raises
    KeyUnknown when it is no RSA key, or not the one of its kid.
    """
    try:
        public_key = RsaPublicKey.from_spki(transport_key.public_key)
        names = names_of(transport_key.public_key, authority)
    except ValueError:
        raise KeyUnknown(f"transport key {transport_key.kid}: is not an RSA public key") from None
    if transport_kid(transport_key.public_key) != transport_key.kid:
        raise KeyUnknown(f"transport key {transport_key.kid}: is the id of another key")
    certified: set[RecipientIdentifier] = {
        IssuerAndSerialNumber(names.issuer, names.serial_number),
        SubjectKeyIdentifier(names.key_identifier),
    }
    return RecipientKey(public_key, RecipientKey.from_public_key(public_key).names | certified)


def identify(kind: WrappedFormat, material: Secret, padding: Padding, kid: str, roster: Roster) -> Wrapping:
    """Check key material that is to be escrowed, and give what its owner signs about it.

    Arguments: `material` as the other program wrote it; `padding` as its maker says, for the transport key `kid` of
    the roster. Raises, each with the name of the field: KeyUnknown for a transport key that is not taken;
    MalformedStatement and LimitExceeded for bytes that are not of the format, and for a CMS message that says
    another padding; BlobInvalid for a ciphertext that can be none for that key, a CMS message that is not for it or
    names it twice, and one that is for another transport key as well: whoever gets hold of the message could have
    the other copy.
    """
    key = recipient_key(roster.accepted_transport_key(kid), roster.body.authority)
    if kind is WrappedFormat.CRYPTOAPI_SIMPLE:
        blob = SimpleBlob.parse(material.expose())
        check_ciphertext(key.public_key, blob.ciphertext)
        return _wrapping(kind, padding, kid, blob.ciphertext_digest)
    message = _message(kind, material)
    recipient = message.recipient_for(key)
    if _padding(recipient) is not padding:
        raise MalformedStatement(
            f"padding: is {padding.value!r}, and the message says {_padding(recipient).value!r}"
        )
    others = (recipient_key(each, roster.body.authority) for each in roster.body.transport_keys if each.kid != kid)
    _check_alone(message, others)
    return _wrapping(kind, padding, kid, recipient.digest)


def check(wrapping: Wrapping, material: Secret) -> None:
    """Return when key material is of the format and padding that its owner signed, and holds that wrapped key.

    Needs no private key, and opens nothing. Raises BlobInvalid, always in the same words.
    """
    _inner(wrapping, material)


def unwrap(wrapping: Wrapping, material: Secret, unwrapper: Unwrapper) -> Secret:
    """Open a wrapped key with the padding that its owner signed, and give what is inside.

    That is the session key of a SIMPLEBLOB, of a length that its algorithm has, or the content of a CMS message, 1
    to 65,536 bytes. Raises BlobInvalid as `check` does, and for all else that does not open in one other message;
    KeyUnknown when `unwrapper` is not the key that was signed for; what `Unwrapper.unwrap` raises beside
    BlobInvalid. With PKCS #1 v1.5 that something came out says nothing: see the head of this module.
    """
    if transport_kid(unwrapper.public_key.to_spki()) != wrapping.kid:
        raise KeyUnknown(f"this is not the transport key {wrapping.kid}")
    inner = _inner(wrapping, material)
    try:
        opened = inner.open(unwrapper, Padding(wrapping.padding))
    except BlobInvalid:
        raise BlobInvalid(_DOES_NOT_OPEN) from None
    if not len(opened):
        raise BlobInvalid(_DOES_NOT_OPEN)
    return opened


@dataclass(frozen=True, slots=True)
class _Simple:
    blob: SimpleBlob

    def open(self, unwrapper: Unwrapper, padding: Padding) -> Secret:
        return self.blob.open(unwrapper, padding).key


@dataclass(frozen=True, slots=True)
class _Enveloped:
    message: EnvelopedData
    recipient: Recipient

    def open(self, unwrapper: Unwrapper, _padding: Padding) -> Secret:
        # The message names its padding, and `_inner` found it to be the one that was signed.
        return self.message.open(unwrapper, self.recipient)


def _inner(wrapping: Wrapping, material: Secret) -> _Simple | _Enveloped:
    try:
        if wrapping.format is WrappedFormat.CRYPTOAPI_SIMPLE:
            blob = SimpleBlob.parse(material.expose())
            found: list[_Simple | _Enveloped] = [_Simple(blob)] if _is(wrapping, blob.ciphertext_digest) else []
        else:
            message = _message(wrapping.format, material)
            found = [
                _Enveloped(message, each)
                for each in message.recipients
                if _is(wrapping, each.digest) and _padding(each) == wrapping.padding
            ]
    except (MalformedStatement, LimitExceeded):
        raise BlobInvalid(_NOT_AS_SIGNED) from None
    if len(found) != 1:
        raise BlobInvalid(_NOT_AS_SIGNED)
    return found[0]


def _is(wrapping: Wrapping, digest: str) -> bool:
    return hmac.compare_digest(wrapping.digest, digest)


def _message(kind: WrappedFormat, material: Secret) -> EnvelopedData:
    if kind is WrappedFormat.VOLUME_KEY:
        return VolumeKeyPacket.parse(material).enveloped_data()
    return EnvelopedData.parse(material.expose())


def _padding(recipient: Recipient) -> Padding:
    return Padding.PKCS1 if recipient.oaep is None else Padding.OAEP


def _check_alone(message: EnvelopedData, others: Iterable[RecipientKey]) -> None:
    for other in others:
        if any(recipient.identifier in other.names for recipient in message.recipients):
            raise BlobInvalid(
                "CMS: is for two transport keys of the authority",
                hint="encrypt it to one certificate of the authority; your own beside it does no harm",
            )


def _wrapping(kind: WrappedFormat, padding: Padding, kid: str, digest: str) -> Wrapping:
    return Wrapping(format=kind, padding=padding.value, kid=kid, digest=digest)
