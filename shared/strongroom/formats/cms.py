"""CMS EnvelopedData (RFC 5652) of other programs: read strictly, and opened with an RSA key.

Read is what `openssl cms -encrypt`, NSS (volume_key) and macOS (FileVault's escrowed recovery key) write: as DER,
as BER of indefinite length, as PEM or as S/MIME. Recipients have RSA keys, named by issuer and serial number or by
subject key identifier, with PKCS #1 v1.5 or OAEP; the content is data, in AES of 128, 192 or 256 bits or 3DES, in
CBC mode. Refused, each by name: every other recipient (key agreement, key encryption key, password, KEM), every
other cipher (RC2, AES-GCM and so AuthEnvelopedData), detached content, originator info, unprotected attributes,
an OAEP label, and content that is CMS itself.

A message names neither its maker nor its owner, and vouches for nothing in it: that content came out says neither
that it is the right one, nor that nobody changed it (see crypto.rsa and crypto.content_encryption for what that
asks of whoever opens one). What is wrong with a message is a MalformedStatement or a LimitExceeded.
"""

from dataclasses import dataclass, field
from typing import Final, Self

from strongroom.crypto.content_encryption import ContentCipher, decrypt_content
from strongroom.crypto.oaep import unwrap_oaep
from strongroom.crypto.rsa import Padding, Unwrapper, check_ciphertext
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, LimitExceeded
from strongroom.formats.armour import is_mime, is_pem, read_pem, read_smime
from strongroom.formats.ber import (
    Element,
    Fields,
    Tag,
    context,
    context_constructed,
    integer,
    object_identifier,
    read,
)
from strongroom.formats.cms_recipients import (
    IssuerAndSerialNumber,
    Recipient,
    RecipientKey,
    algorithm_identifier,
    malformed,
    read_recipients,
    segments,
)
from strongroom.limits import KEY_MATERIAL_BYTES_MAX

CMS_BYTES_MAX: Final = KEY_MATERIAL_BYTES_MAX

_DOES_NOT_OPEN: Final = "CMS: does not open with this key"
_PEM_LABELS: Final = ("CMS", "PKCS7")
_DATA: Final = "1.2.840.113549.1.7.1"
_ENVELOPED_DATA: Final = "1.2.840.113549.1.7.3"
_CONTENT_TYPES: Final = {
    _DATA: "data",
    "1.2.840.113549.1.7.2": "SignedData",
    _ENVELOPED_DATA: "EnvelopedData",
    "1.2.840.113549.1.7.5": "DigestedData",
    "1.2.840.113549.1.7.6": "EncryptedData",
    "1.2.840.113549.1.9.16.1.2": "AuthenticatedData",
    "1.2.840.113549.1.9.16.1.9": "CompressedData",
    "1.2.840.113549.1.9.16.1.23": "AuthEnvelopedData",
}
_CIPHERS: Final = {
    "2.16.840.1.101.3.4.1.2": ContentCipher.AES_128_CBC,
    "2.16.840.1.101.3.4.1.22": ContentCipher.AES_192_CBC,
    "2.16.840.1.101.3.4.1.42": ContentCipher.AES_256_CBC,
    "1.2.840.113549.3.7": ContentCipher.TRIPLE_DES_CBC,
}
_OTHER_CIPHERS: Final = {
    "1.2.840.113549.3.2": "RC2-CBC",
    "1.2.840.113549.3.4": "RC4",
    "1.3.14.3.2.7": "DES-CBC",
    "2.16.840.1.101.3.4.1.6": "AES-128-GCM",
    "2.16.840.1.101.3.4.1.26": "AES-192-GCM",
    "2.16.840.1.101.3.4.1.46": "AES-256-GCM",
}


@dataclass(frozen=True, slots=True)
class EnvelopedData:
    """A message: who can open it, and its content, encrypted, with the cipher and its initialisation vector."""

    recipients: tuple[Recipient, ...]
    cipher: ContentCipher
    vector: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)

    @classmethod
    def parse(cls, message: bytes) -> Self:
        """Read a message as DER, BER, PEM (CMS or PKCS7) or S/MIME."""
        return cls._from_ber(_without_armour(message))

    @classmethod
    def _from_ber(cls, message: bytes) -> Self:
        if len(message) > CMS_BYTES_MAX:
            raise LimitExceeded(f"CMS: has {len(message)} bytes; CMS_BYTES_MAX allows {CMS_BYTES_MAX} bytes")
        outer = Fields(read(message, streamed=True), "CMS")
        content_type = object_identifier(outer.take_any("contentType"), "CMS: contentType")
        if content_type != _ENVELOPED_DATA:
            raise malformed("contentType", f"is {_named(content_type, _CONTENT_TYPES)}, must be EnvelopedData")
        explicit = Fields(outer.take(context_constructed(0), "content"), "CMS: content", context_constructed(0))
        outer.end()
        fields = Fields(explicit.take_any("EnvelopedData"), "CMS: EnvelopedData")
        explicit.end()
        version = integer(fields.take_any("version"), "CMS: version")
        if fields.take_if(context_constructed(0)) is not None:
            raise malformed("originatorInfo", "is there, and is not supported")
        recipients = tuple(read_recipients(fields.take(Tag.SET, "recipientInfos")))
        cipher, vector, ciphertext = _content(fields.take(Tag.SEQUENCE, "encryptedContentInfo"))
        if fields.take_if(context_constructed(1)) is not None:
            raise malformed("unprotectedAttrs", "are there, and are not supported")
        fields.end()
        # After what gives a message another version, so that it is named.
        if version not in (0, 2):
            raise malformed("version", f"is {version}, must be 0 or 2")
        return cls(recipients, cipher, vector, ciphertext)

    def recipient_for(self, key: RecipientKey) -> Recipient:
        """Give the recipient that is this key; anybody can find it, and nothing is opened.

        A key without a certificate is also taken to be the only recipient that is named by issuer and serial
        number, as long as the encrypted key can be one for it. Raises BlobInvalid when there is none, or more than
        one, and what `rsa.check_ciphertext` raises.
        """
        named = [each for each in self.recipients if each.identifier in key.names]
        if not named and not key.has_certificate:
            named = [each for each in self.recipients if isinstance(each.identifier, IssuerAndSerialNumber)]
            if len(named) > 1:
                raise BlobInvalid("CMS: which of its recipients is this key cannot be told without a certificate")
        if len(named) != 1:
            found = "none" if not named else f"{len(named)}"
            raise BlobInvalid(f"CMS: {found} of its recipients has the name of this key; there must be one")
        check_ciphertext(key.public_key, named[0].encrypted_key)
        return named[0]

    def open(self, key: Unwrapper, recipient: Recipient | None = None) -> Secret:
        """Give the content; `recipient`, one of `recipients`, is left out where the key alone tells it.

        Raises what `recipient_for` and `rsa.check_ciphertext` raise, which anybody can see, and BlobInvalid with
        the same words for every cause that depends on the private key. With PKCS #1 v1.5 a content key that does
        not unwrap is replaced by one that is random to everyone else (RFC 3218), so that it looks the same as
        changed content: mostly it does not open, once in about 256 times it gives content that nobody wrote.
        """
        if recipient is None:
            recipient = self.recipient_for(RecipientKey.from_public_key(key.public_key))
        check_ciphertext(key.public_key, recipient.encrypted_key)
        size = self.cipher.key_bytes
        try:
            if recipient.oaep is None:
                content_key = key.unwrap(recipient.encrypted_key, Padding.PKCS1, range(size, size + 1))
            else:
                content_key = unwrap_oaep(key, recipient.encrypted_key, recipient.oaep, size)
            return decrypt_content(self.cipher, content_key, self.vector, self.ciphertext)
        except BlobInvalid:
            raise BlobInvalid(_DOES_NOT_OPEN) from None


def _without_armour(message: bytes) -> bytes:
    if is_pem(message):
        return read_pem(message, _PEM_LABELS)[1]
    return read_smime(message) if is_mime(message) else message


def _named(identifier: str, names: dict[str, str]) -> str:
    return names.get(identifier, identifier)


# ---- content -----------------------------------------------------------------------------------


def _content(info: Element) -> tuple[ContentCipher, bytes, bytes]:
    fields = Fields(info, "CMS: encryptedContentInfo")
    content_type = object_identifier(fields.take_any("contentType"), "CMS: encryptedContentInfo: contentType")
    if content_type != _DATA:
        raise malformed(
            "encryptedContentInfo", f"contentType: is {_named(content_type, _CONTENT_TYPES)}, must be data"
        )
    name = "contentEncryptionAlgorithm"
    identifier, parameters = algorithm_identifier(fields.take(Tag.SEQUENCE, name), name)
    cipher = _CIPHERS.get(identifier)
    if cipher is None:
        supported = ", ".join(ContentCipher)
        raise malformed(name, f"is {_named(identifier, _OTHER_CIPHERS)}; supported are {supported}")
    if parameters is None or parameters.tag != Tag.OCTET_STRING or len(parameters.content) != cipher.block_bytes:
        raise malformed(name, f"must have an initialisation vector of {cipher.block_bytes} bytes")
    ciphertext = _ciphertext(fields)
    fields.end()
    if not ciphertext or len(ciphertext) % cipher.block_bytes:
        raise malformed(
            "encryptedContent", f"has {len(ciphertext)} bytes, must be whole blocks of {cipher.block_bytes}"
        )
    return cipher, parameters.content, ciphertext


def _ciphertext(fields: Fields) -> bytes:
    if (whole := fields.take_if(context(0))) is not None:
        return whole.content
    if (streamed := fields.take_if(context_constructed(0))) is not None:
        return segments(streamed, "encryptedContent")
    raise malformed("encryptedContent", "is not in the message")
