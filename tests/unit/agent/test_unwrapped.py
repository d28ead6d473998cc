"""The forms in which an unwrapped key goes on to other programs; figures are those of another implementation."""

import pytest
from tests.support.cryptoapi import OWN_PRIVATE, OWN_PUBLIC, WRAPPED, Wrapped
from tests.support.wrapping import KEY, KID, message

from strongroom.crypto.rsa import Padding
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, UsageError
from strongroom.fields import new_id
from strongroom.formats.alg_id import RsaUse
from strongroom.formats.cryptoapi import PlaintextKeyBlob, PrivateKeyBlob, PublicKeyBlob, SimpleBlob
from strongroom.messages import ReleasedRecord, WrappedFormat, Wrapping
from strongroom.wrapped import unwrap
from strongroom_agent.recovery import RecoveredKey
from strongroom_agent.unwrapped import content, plaintext_blob, simple_blob

APPLICATION = PrivateKeyBlob.parse(Secret(OWN_PRIVATE)).load()
RECIPIENT = PublicKeyBlob.parse(OWN_PUBLIC)


def recovered(
    material: bytes, padding: Padding, digest: str, kind: WrappedFormat = WrappedFormat.CRYPTOAPI_SIMPLE
) -> RecoveredKey:
    """Return a key as it comes out of a release that was asked to unwrap it."""
    wrapping = Wrapping(format=kind, padding=padding.value, kid=KID, digest=digest)
    record = ReleasedRecord(
        id=new_id(),
        name="archive",
        kind="cryptoapi-simple",
        description="",
        serial_number="",
        algorithm="AES-256",
        fingerprint="0" * 64,
        labels={},
        wrapping=wrapping,
        principal="laptop-0417",
        issued_at=1,
        blob=b"-",
    )
    return RecoveredKey(Secret(material), record, unwrap(wrapping, Secret(material), KEY))


def of_vector(vector: Wrapped) -> RecoveredKey:
    return recovered(vector.simple, vector.padding, SimpleBlob.parse(vector.simple).ciphertext_digest)


@pytest.mark.parametrize("vector", WRAPPED, ids=lambda vector: vector.label)
def test_the_session_key_and_its_plaintext_blob_are_those_of_the_other_implementation(vector: Wrapped) -> None:
    """Byte for byte."""
    found = of_vector(vector)
    assert plaintext_blob(found).encode().expose() == vector.plaintext
    assert content(found).expose() == vector.plaintext[12:]


@pytest.mark.parametrize("padding", [None, *Padding])
@pytest.mark.parametrize("vector", WRAPPED, ids=lambda vector: vector.label)
def test_a_blob_for_the_application_opens_with_its_private_key(vector: Wrapped, padding: Padding | None) -> None:
    """By default with the padding that the escrowed blob had; aiKeyAlg stays."""
    blob = SimpleBlob.parse(simple_blob(of_vector(vector), RECIPIENT, padding).encode())
    opened = blob.open(APPLICATION, padding or vector.padding)
    assert opened == PlaintextKeyBlob.parse(Secret(vector.plaintext))


def test_a_message_has_no_session_key_to_write_as_a_blob() -> None:
    """Nothing says what its content is a key for; the bare content is there."""
    from strongroom.formats.cms import EnvelopedData

    made = message()
    digest = EnvelopedData.parse(made).recipients[0].digest
    found = recovered(made, Padding.PKCS1, digest, WrappedFormat.CMS)
    assert content(found).expose() == b"what the message holds"
    for form in (lambda: plaintext_blob(found), lambda: simple_blob(found, RECIPIENT, None)):
        with pytest.raises(UsageError, match="came as cms") as caught:
            form()
        assert "--as key" in (caught.value.hint or "")


def test_what_was_not_asked_for_is_not_there() -> None:
    """A wrapped key that came back as it is holds nothing that could be written otherwise."""
    vector = WRAPPED[0]
    whole = of_vector(vector)
    for form in (content, plaintext_blob):
        with pytest.raises(UsageError, match="was not asked for"):
            form(RecoveredKey(whole.material, whole.record))


def test_a_signature_key_gets_no_session_key() -> None:
    """As CryptoAPI has it."""
    with pytest.raises(BlobInvalid, match="RSA_SIGN"):
        simple_blob(of_vector(WRAPPED[0]), PublicKeyBlob(RsaUse.SIGNATURE, RECIPIENT.key), None)
