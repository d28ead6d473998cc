"""CMS: what other programs wrote opens to the same bytes, nothing else is read, and failure tells nothing."""

import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs7
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cms import (
    AES_256_CBC,
    CMS,
    CONTENT,
    CONTENT_KEY,
    NULL,
    VECTOR,
    Message,
    Recipient,
    algorithm,
    encrypted_content,
    encrypted_key,
    integer,
    oid,
    private_key,
    recipient_key,
    streamed,
    tlv,
    vector,
)

from strongroom.crypto.content_encryption import ContentCipher
from strongroom.crypto.oaep import Oaep, OaepHash
from strongroom.crypto.rsa import Padding, RsaPublicKey
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, LimitExceeded, MalformedStatement, PermanentError
from strongroom.formats.cms import CMS_BYTES_MAX, EnvelopedData
from strongroom.formats.cms_recipients import CMS_RECIPIENTS_MAX

UNTIMED = settings(deadline=None)  # a busy machine is no failure
NOT_OPEN = r"^CMS: does not open with this key$"
SHA_256 = Oaep(OaepHash.SHA_256, OaepHash.SHA_256)
WRITTEN = {
    "default.smime": (ContentCipher.TRIPLE_DES_CBC, None),
    "default.pem": (ContentCipher.TRIPLE_DES_CBC, None),
    "default.der": (ContentCipher.TRIPLE_DES_CBC, None),
    "aes-128.der": (ContentCipher.AES_128_CBC, None),
    "aes-192.der": (ContentCipher.AES_192_CBC, None),
    "aes-256.der": (ContentCipher.AES_256_CBC, None),
    "aes-256-streamed.ber": (ContentCipher.AES_256_CBC, None),
    "key-identifier.der": (ContentCipher.AES_256_CBC, None),
    "two-recipients.der": (ContentCipher.AES_256_CBC, None),
    "nss.ber": (ContentCipher.AES_128_CBC, None),
    "oaep-sha1.der": (ContentCipher.AES_256_CBC, Oaep()),
    "oaep-sha256.der": (ContentCipher.AES_256_CBC, SHA_256),
    "oaep-sha384.der": (ContentCipher.AES_256_CBC, Oaep(OaepHash.SHA_384, OaepHash.SHA_384)),
    "oaep-sha512.der": (ContentCipher.AES_256_CBC, Oaep(OaepHash.SHA_512, OaepHash.SHA_512)),
    "oaep-sha256-mgf1-sha1.der": (ContentCipher.AES_256_CBC, Oaep(OaepHash.SHA_256, OaepHash.SHA_1)),
}
EVERY = pytest.mark.parametrize("name", WRITTEN)


def opened(message: bytes) -> bytes:
    found = EnvelopedData.parse(message)
    return found.open(private_key(), found.recipient_for(recipient_key())).expose()


def refused(message: bytes, words: str, error: type[PermanentError] = MalformedStatement) -> None:
    with pytest.raises(error, match=words) as caught:
        EnvelopedData.parse(message)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


# ---- what other programs wrote -----------------------------------------------------------------


@EVERY
def test_what_another_program_encrypted_opens_to_the_same_bytes(name: str) -> None:
    """Cipher and padding are what its command asked for."""
    found = EnvelopedData.parse(vector(name))
    recipient = found.recipient_for(recipient_key())
    assert (found.cipher, recipient.oaep) == WRITTEN[name]
    assert opened(vector(name)) == CONTENT


def test_empty_content_opens() -> None:
    """It is a block of padding."""
    assert opened(vector("empty.der")) == b""


def test_each_of_two_recipients_opens_with_its_own_key() -> None:
    """And is found by its certificate."""
    found = EnvelopedData.parse(vector("two-recipients.der"))
    assert len(found.recipients) == 2
    for name in ("authority", "other"):
        recipient = found.recipient_for(recipient_key(name))
        assert found.open(private_key(name), recipient) == Secret(CONTENT)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("refused-oaep-label.der", "recipient 1: OAEP: pSourceAlgorithm: must be an empty label"),
        ("refused-oaep-sha224.der", "recipient 1: OAEP: hash: is 2.16.840.1.101.3.4.2.4, must be SHA-1, SHA-256"),
        ("refused-rc2.der", "contentEncryptionAlgorithm: is RC2-CBC; supported are AES-128-CBC"),
        ("refused-des.der", "contentEncryptionAlgorithm: is DES-CBC; supported are AES-128-CBC"),
        ("refused-auth-enveloped.der", "contentType: is AuthEnvelopedData, must be EnvelopedData"),
        ("refused-password.der", "recipient 2: is a password recipient; supported are RSA keys"),
        ("refused-key-encryption-key.der", "recipient 2: is a recipient with a key encryption key"),
        ("refused-key-agreement.der", "recipient 2: is a key agreement recipient"),
        ("refused-signed.der", "contentType: is SignedData, must be EnvelopedData"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(name: str, words: str) -> None:
    """Although another program wrote it rightly."""
    refused(vector(name), f"^CMS: {words}")


def test_another_library_opens_the_same_messages() -> None:
    """Those that it can: DER, PKCS #1 v1.5, AES of 128 and 256 bits."""
    certificate = x509.load_pem_x509_certificate(vector("authority.crt.pem"))
    key = serialization.load_pem_private_key(vector("authority.key.pem"), None)
    for name in ("aes-128.der", "aes-256.der"):
        assert pkcs7.pkcs7_decrypt_der(vector(name), certificate, key, []) == CONTENT  # type: ignore[arg-type]


def test_another_program_reads_what_is_put_together_here() -> None:
    """So that what is refused below is refused for the one thing in it that is another."""
    command = ["openssl", "cms", "-decrypt", "-inform", "DER", "-inkey", str(CMS / "authority.key.pem")]
    done = subprocess.run(command, input=Message().encode(), capture_output=True, check=True)
    assert done.stdout == CONTENT == opened(Message().encode())


# ---- shapes ------------------------------------------------------------------------------------


def test_content_may_come_in_parts_and_every_length_may_be_indefinite() -> None:
    """As streaming encoders write it."""
    whole = encrypted_content(CONTENT * 5)
    parts = [tlv(0x04, whole[:48]), tlv(0x04), tlv(0x04, whole[48:])]
    for content in (tlv(0xA0, *parts), streamed(0xA0, *parts)):
        assert opened(Message(content=content).encode()) == CONTENT * 5
    info = streamed(0x30, oid("1.2.840.113549.1.7.1"), Message().cipher, streamed(0xA0, *parts))
    data = streamed(0x30, integer(2), streamed(0x31, Recipient().encode()), info)
    message = streamed(0x30, oid("1.2.840.113549.1.7.3"), streamed(0xA0, data))
    assert opened(message) == CONTENT * 5


def test_parameters_that_say_nothing_may_be_missing() -> None:
    """NULL and nothing mean the same for RSA; for hashes, see what OAEP does not say."""
    recipient = Recipient(algorithm=algorithm("1.2.840.113549.1.1.1", b""))
    assert opened(Message(recipients=[recipient.encode()]).encode()) == CONTENT


def test_a_key_identifier_may_come_in_parts() -> None:
    """BER allows it."""
    identifier = Recipient().identifier
    parts = tlv(0xA0, tlv(0x04, identifier[2:10]), tlv(0x04, identifier[10:]))
    assert opened(Message(recipients=[Recipient(identifier=parts).encode()]).encode()) == CONTENT


OAEP_PARAMETERS: list[tuple[bytes, Oaep]] = [
    (tlv(0x30), Oaep()),
    (tlv(0x30, tlv(0xA0, algorithm("2.16.840.1.101.3.4.2.1"))), Oaep(OaepHash.SHA_256, OaepHash.SHA_1)),
    (
        tlv(0x30, tlv(0xA1, algorithm("1.2.840.113549.1.1.8", algorithm("2.16.840.1.101.3.4.2.3")))),
        Oaep(OaepHash.SHA_1, OaepHash.SHA_512),
    ),
    (tlv(0x30, tlv(0xA2, algorithm("1.2.840.113549.1.1.9", tlv(0x04)))), Oaep()),
    (tlv(0x30, tlv(0xA0, algorithm("1.3.14.3.2.26", b""))), Oaep()),
]


@pytest.mark.parametrize(("parameters", "expected"), OAEP_PARAMETERS)
def test_what_oaep_does_not_say_is_sha_1_without_a_label(parameters: bytes, expected: Oaep) -> None:
    """RFC 4055 section 4.1."""
    recipient = Recipient(algorithm=algorithm("1.2.840.113549.1.1.7", parameters)).encode()
    assert EnvelopedData.parse(Message(recipients=[recipient]).encode()).recipients[0].oaep == expected


def with_recipient(**fields: bytes) -> bytes:
    return Message(recipients=[Recipient(**fields).encode()]).encode()


def with_oaep(*parameters: bytes) -> bytes:
    return with_recipient(algorithm=algorithm("1.2.840.113549.1.1.7", *parameters))


def named_by_certificate() -> bytes:
    return tlv(0x30, tlv(0x30), integer(1))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Message(content_type=oid("1.2.840.113549.1.7.6")).encode(), "contentType: is EncryptedData"),
        (Message(content_type=oid("1.2.840.113549.1.9.16.1.9")).encode(), "contentType: is CompressedData"),
        (Message(content_type=oid("1.2.3")).encode(), "contentType: is 1.2.3, must be EnvelopedData"),
        (Message(content_type=NULL).encode(), "contentType: is NULL"),
        (tlv(0x30, oid("1.2.840.113549.1.7.3")), "content: is missing"),
        (tlv(0x30, oid("1.2.840.113549.1.7.3"), tlv(0xA0)), "content: EnvelopedData: is missing"),
        (Message(version=integer(3)).encode(), "version: is 3, must be 0 or 2"),
        (Message(version=integer(1)).encode(), "version: is 1, must be 0 or 2"),
        (Message(version=integer(-2)).encode(), "version: is -2, must be 0 or 2"),
        (Message(originator=tlv(0xA0)).encode(), "originatorInfo: is there, and is not supported"),
        (Message(attributes=tlv(0xA1)).encode(), "unprotectedAttrs: are there, and are not supported"),
        (Message(after=NULL).encode(), "EnvelopedData: NULL follows the last field"),
        (Message(beside=NULL).encode(), "content: NULL follows the last field"),
        (Message(outside=NULL).encode(), "CMS: NULL follows the last field"),
        (
            Message(recipients=[tlv(0xA4, oid("1.2.3"))]).encode(),
            r"recipient 1: is a recipient of another type \(a KEM",
        ),
        (Message(recipients=[tlv(0xA5)]).encode(), r"recipient 1: is \[5\] \(constructed\), must be SEQUENCE"),
        (Message(inner_type=oid("1.2.840.113549.1.7.2")).encode(), "contentType: is SignedData, must be data"),
        (Message(content=b"").encode(), "encryptedContent: is not in the message"),
        (Message(content=tlv(0x80)).encode(), "encryptedContent: has 0 bytes, must be whole blocks of 16"),
        (Message(content=tlv(0x80, bytes(17))).encode(), "encryptedContent: has 17 bytes"),
        (Message(content=tlv(0xA0)).encode(), "encryptedContent: has 0 bytes"),
        (
            Message(content=tlv(0xA0, tlv(0x24, tlv(0x04, bytes(16))))).encode(),
            "has a part that is no OCTET STRING",
        ),
        (Message(content=tlv(0x80, bytes(16)) + NULL).encode(), "encryptedContentInfo: NULL follows"),
        (Message(cipher=algorithm(AES_256_CBC)).encode(), "must have an initialisation vector of 16 bytes"),
        (Message(cipher=algorithm(AES_256_CBC, b"")).encode(), "must have an initialisation vector of 16 bytes"),
        (Message(cipher=algorithm(AES_256_CBC, tlv(4, bytes(15)))).encode(), "initialisation vector of 16 bytes"),
        (Message(cipher=algorithm("1.2.840.113549.3.7", tlv(4, bytes(16)))).encode(), "vector of 8 bytes"),
        (Message(cipher=algorithm("2.16.840.1.101.3.4.1.46", tlv(0x30))).encode(), "is AES-256-GCM; supported"),
        (Message(cipher=algorithm("1.2.3")).encode(), "is 1.2.3; supported are"),
        (Message(cipher=algorithm(AES_256_CBC, tlv(4, VECTOR) + NULL)).encode(), "NULL follows the last field"),
        (with_recipient(version=integer(0)), "recipient 1: version: is 0, must be 2 with such a name"),
        (with_recipient(identifier=named_by_certificate()), "version: is 2, must be 0 with such a name"),
        (with_recipient(identifier=tlv(0x30, tlv(0x30))), "rid: serialNumber: is missing"),
        (with_recipient(identifier=tlv(0x30, tlv(0x30), integer(1), NULL)), "rid: NULL follows the last field"),
        (with_recipient(identifier=tlv(0xA0, NULL)), "subjectKeyIdentifier: has a part that is no OCTET"),
        (
            with_recipient(algorithm=algorithm("1.2.840.113549.1.1.1", integer(1))),
            "has parameters, and must have none",
        ),
        (
            with_recipient(algorithm=algorithm("1.2.840.113549.1.9.16.3.14")),
            "is 1.2.840.113549.1.9.16.3.14, must be rsa",
        ),
        (with_recipient(key=tlv(0x03, bytes(256))), "encryptedKey: is an element with tag 0x03"),
        (with_recipient(after=NULL), "recipient 1: NULL follows the last field"),
        (with_oaep(b""), "OAEP comes without its parameters"),
        (with_oaep(NULL), "OAEP: is NULL, must be SEQUENCE"),
        (with_oaep(tlv(0x30, tlv(0xA0))), "OAEP: has a field with no value, or with several"),
        (
            with_oaep(tlv(0x30, tlv(0xA0, algorithm("1.3.14.3.2.26"), NULL))),
            "OAEP: has a field with no value, or with",
        ),
        (with_oaep(tlv(0x30, tlv(0xA0, algorithm("1.3.14.3.2.26", integer(1))))), "has parameters, and must have"),
        (
            with_oaep(tlv(0x30, tlv(0xA1, algorithm("1.2.3")))),
            "maskGenAlgorithm: is 1.2.3, must be MGF1 with a hash",
        ),
        (with_oaep(tlv(0x30, tlv(0xA1, algorithm("1.2.840.113549.1.1.8", b"")))), "must be MGF1 with a hash"),
        (with_oaep(tlv(0x30, tlv(0xA2, algorithm("1.2.840.113549.1.1.9", b"")))), "must be an empty label"),
        (with_oaep(tlv(0x30, tlv(0xA2, algorithm("1.2.3", tlv(4))))), "must be an empty label"),
        (with_oaep(tlv(0x30, tlv(0xA3))), r"OAEP: \[3\] \(constructed\) follows the last field"),
        (Message().encode() + b"\0", "ASN.1: 1 bytes follow the end"),
        (b"", "ASN.1: element at byte 0: ends"),
    ],
)
def test_a_message_with_one_thing_wrong_is_refused_by_name(message: bytes, words: str) -> None:
    """Each of them is otherwise a message that opens."""
    refused(message, words)


def test_recipients_are_read_to_their_limit_and_no_further() -> None:
    """None is too few."""
    each = Recipient(key=tlv(0x04, encrypted_key())).encode()
    assert len(EnvelopedData.parse(Message(recipients=[each] * CMS_RECIPIENTS_MAX).encode()).recipients) == 32
    for count in (0, CMS_RECIPIENTS_MAX + 1):
        message = Message(recipients=[each] * count).encode()
        refused(message, f"^CMS: recipientInfos: are {count}; must be 1 to CMS_RECIPIENTS_MAX 32$", LimitExceeded)


def test_a_message_is_read_to_its_limit_and_no_further() -> None:
    """Both in DER and in armour; an encoder cannot hide more in it, for nothing is decompressed."""
    rest = len(Message(content=tlv(0x80, bytes(65_008))).encode()) - 65_008
    fits = (CMS_BYTES_MAX - rest) // 16 * 16
    assert EnvelopedData.parse(Message(content=tlv(0x80, bytes(fits))).encode()).ciphertext == bytes(fits)
    refused(bytes(CMS_BYTES_MAX + 1), "^CMS: has 65537 bytes; CMS_BYTES_MAX allows 65536 bytes$", LimitExceeded)
    refused(Message(content=tlv(0x80, bytes(fits + 16))).encode(), "CMS_BYTES_MAX", LimitExceeded)


def test_deep_nesting_is_refused() -> None:
    """Wherever it is."""
    bomb = b"\x05\x00"
    for _ in range(20):
        bomb = tlv(0x30, bomb)
    refused(
        with_recipient(identifier=tlv(0x30, bomb, integer(1)), version=integer(0)), "ASN1_DEPTH_MAX", LimitExceeded
    )
    refused(b"\x30\x80" * 30_000, "ASN1_DEPTH_MAX", LimitExceeded)


# ---- damage of any kind ------------------------------------------------------------------------


@UNTIMED
@given(st.sampled_from(sorted(WRITTEN)), st.data())
def test_damage_is_refused_or_gives_another_message(name: str, draw: st.DataObject) -> None:
    """Cut, extended or changed anywhere: one of two errors, or a message that is still one."""
    data = bytearray(vector(name))
    match draw.draw(st.sampled_from(["cut", "extend", "change", "insert"])):
        case "cut":
            data = data[: draw.draw(st.integers(0, len(data) - 1))]
        case "extend":
            data += draw.draw(st.binary(min_size=1, max_size=40))
        case "change":
            data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
        case _:
            place = draw.draw(st.integers(0, len(data)))
            data[place:place] = draw.draw(st.binary(min_size=1, max_size=4))
    try:
        found = EnvelopedData.parse(bytes(data))
    except (MalformedStatement, LimitExceeded):
        return
    assert 1 <= len(found.recipients) <= CMS_RECIPIENTS_MAX
    assert len(found.vector) == found.cipher.block_bytes
    assert len(found.ciphertext) % found.cipher.block_bytes == 0


@UNTIMED
@given(st.binary(max_size=400))
def test_no_bytes_make_the_reader_fail_otherwise(data: bytes) -> None:
    """Of any kind."""
    for attempt in (data, tlv(0x30, oid("1.2.840.113549.1.7.3"), data), b"-----BEGIN CMS-----\n" + data):
        try:
            EnvelopedData.parse(attempt)
        except (MalformedStatement, LimitExceeded):
            continue


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(["aes-256.der", "oaep-sha256.der"]), st.data())
def test_a_changed_bit_never_raises_anything_but_what_is_told(name: str, draw: st.DataObject) -> None:
    """Whatever is opened of it, errors are of the same words, or of what anybody can see."""
    data = bytearray(vector(name))
    data[draw.draw(st.integers(0, len(data) - 1))] ^= 1 << draw.draw(st.integers(0, 7))
    try:
        opened(bytes(data))
    except (MalformedStatement, LimitExceeded):
        return
    except BlobInvalid as error:
        seen = "CMS: does not open", "CMS: none of its recipients", "wrapped key: "
        assert error.message.startswith(seen)  # noqa: PT017 - either outcome is right


# ---- opening -----------------------------------------------------------------------------------


def block(content: bytes, *, start: bytes = b"\x00\x02", zero: bytes = b"\x00") -> bytes:
    """Encrypt a block that is padded as PKCS #1 v1.5 does, or nearly."""
    whole = start + b"\x5a" * (256 - len(start) - len(zero) - len(content)) + zero + content
    public = private_key().public_key
    return pow(int.from_bytes(whole, "big"), public.exponent, public.modulus).to_bytes(256, "big")


BAD_KEYS = {
    "block type": block(CONTENT_KEY, start=b"\x00\x01"),
    "first byte": block(CONTENT_KEY, start=b"\x01\x02"),
    "no end of the filler": block(b"", zero=b""),
    "short key": block(CONTENT_KEY[1:]),
    "long key": block(CONTENT_KEY + b"\0"),
    "no key": block(b""),
    "another key": block(CONTENT_KEY[::-1]),
}


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_every_wrong_content_key_looks_like_changed_content(key: bytes) -> None:
    """With PKCS #1 v1.5: the same error in the same words, whatever is wrong with the padding."""
    message = EnvelopedData.parse(with_recipient(key=tlv(0x04, key)))
    changed = EnvelopedData.parse(Message(content=tlv(0x80, encrypted_content(bytes(32), padded=False))).encode())
    errors = []
    for each in (message, changed):
        with pytest.raises(BlobInvalid, match=NOT_OPEN) as caught:
            each.open(private_key())
        assert caught.value.__suppress_context__
        errors.append((type(caught.value), caught.value.message, caught.value.hint))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("name", ["block type", "short key", "no key"])
def test_a_content_key_that_does_not_unwrap_is_replaced_and_used(name: str) -> None:
    """So nobody learns from an error that the padding was bad: content under the replacement opens."""
    replacement = private_key().unwrap(BAD_KEYS[name], Padding.PKCS1, range(32, 33)).expose()
    assert len(replacement) == 32
    message = Message(
        recipients=[Recipient(key=tlv(0x04, BAD_KEYS[name])).encode()],
        content=tlv(0x80, encrypted_content(key=replacement)),
    )
    assert opened(message.encode()) == CONTENT


def test_changed_content_that_ends_in_padding_opens_to_other_bytes() -> None:
    """CBC vouches for nothing, and this is not hidden."""
    ciphertext = bytearray(encrypted_content())
    ciphertext[0] ^= 1
    assert opened(Message(content=tlv(0x80, bytes(ciphertext))).encode()) != CONTENT


def test_wrong_oaep_looks_like_changed_content() -> None:
    """Another key, another hash, a changed ciphertext: the same error in the same words."""
    found = EnvelopedData.parse(vector("oaep-sha256.der"))
    recipient = found.recipient_for(recipient_key())
    wrong = [
        replace(recipient, oaep=Oaep()),
        replace(recipient, oaep=None),
        replace(recipient, encrypted_key=bytes(255) + b"\1"),
    ]
    for each in wrong:
        with pytest.raises(BlobInvalid, match=NOT_OPEN) as caught:
            found.open(private_key(), each)
        assert caught.value.__suppress_context__
    with pytest.raises(BlobInvalid, match=NOT_OPEN):
        replace(found, ciphertext=bytes(16)).open(private_key(), recipient)


def test_the_key_of_another_cipher_does_not_open() -> None:
    """A content key of 256 bits is none for AES of 128 bits, whatever the message says."""
    found = EnvelopedData.parse(Message().encode())
    with pytest.raises(BlobInvalid, match=NOT_OPEN):
        replace(found, cipher=ContentCipher.AES_128_CBC).open(private_key())


def test_what_anybody_can_see_of_an_encrypted_key_is_told_apart() -> None:
    """Its length, and that it is not below the modulus."""
    modulus = private_key().public_key.modulus.to_bytes(256, "big")
    for key, words in ((encrypted_key()[1:], "has 255 bytes"), (modulus, "not below the modulus")):
        found = EnvelopedData.parse(with_recipient(key=tlv(0x04, key)))
        calls: list[Callable[[], object]] = [
            lambda found=found: found.recipient_for(recipient_key()),  # type: ignore[misc]
            lambda found=found: found.open(private_key(), found.recipients[0]),  # type: ignore[misc]
        ]
        for call in calls:
            with pytest.raises(BlobInvalid, match=words):
                call()


def test_a_key_alone_tells_its_recipient_where_it_can() -> None:
    """By its identifier, or as the only recipient that a certificate names."""
    for name in ("key-identifier.der", "aes-256.der", "nss.ber"):
        assert EnvelopedData.parse(vector(name)).open(private_key()) == Secret(CONTENT)
    with pytest.raises(BlobInvalid, match=r"cannot be told without a certificate$"):
        EnvelopedData.parse(vector("two-recipients.der")).open(private_key())
    with pytest.raises(BlobInvalid, match=r"^CMS: none of its recipients has the name of this key"):
        EnvelopedData.parse(vector("key-identifier.der")).open(private_key("other"))


def test_a_certificate_finds_its_recipient_or_none() -> None:
    """Never another that happens to be alone."""
    for name in ("aes-256.der", "key-identifier.der"):
        with pytest.raises(BlobInvalid, match=r"^CMS: none of its recipients has the name of this key"):
            EnvelopedData.parse(vector(name)).recipient_for(recipient_key("other"))
    twice = Message(recipients=[Recipient().encode(), Recipient().encode()]).encode()
    with pytest.raises(BlobInvalid, match=r"^CMS: 2 of its recipients has the name of this key"):
        EnvelopedData.parse(twice).recipient_for(recipient_key())


def test_the_digest_of_a_recipient_is_that_of_its_encrypted_key_alone() -> None:
    """A copy with another armour, encoding, name or content has the same."""
    found = EnvelopedData.parse(vector("default.der")).recipients[0]
    assert (
        found.digest
        == replace(found, identifier=EnvelopedData.parse(Message().encode()).recipients[0].identifier).digest
    )
    assert found.digest != replace(found, encrypted_key=b"").digest


def test_nothing_encrypted_is_shown() -> None:
    """Neither content nor key are secret, but a log has no use for them."""
    text = repr(EnvelopedData.parse(vector("aes-256.der")))
    assert "AES_256_CBC" in text
    assert "ciphertext" not in text
    assert "encrypted_key" not in text


def test_a_key_of_another_size_is_no_recipient() -> None:
    """A key alone is compared by what its ciphertexts look like."""
    found = EnvelopedData.parse(vector("aes-256.der"))
    short = type(recipient_key()).from_public_key(RsaPublicKey((1 << 3071) + 1, 65537))
    with pytest.raises(BlobInvalid, match=r"^wrapped key: has 256 bytes; with this RSA key it has 384$"):
        found.recipient_for(short)
