"""Keys that other programs wrapped: what may be escrowed, what the prover holds it to, and what comes out."""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st
from tests.support import authority as make
from tests.support import cms
from tests.support import wrapped as given
from tests.support.cryptoapi import WRAPPED
from tests.support.cryptoapi import Wrapped as Vector

from strongroom.crypto.certificates import names_of
from strongroom.crypto.rsa import Padding, PrivateRsaKey, RsaPublicKey
from strongroom.crypto.secret import Secret
from strongroom.errors import (
    BlobInvalid,
    Denied,
    KeyDeviceUnavailable,
    KeyUnknown,
    LimitExceeded,
    MalformedStatement,
    PermanentError,
)
from strongroom.formats.alg_id import SessionAlgorithm
from strongroom.formats.cms_recipients import IssuerAndSerialNumber, SubjectKeyIdentifier
from strongroom.formats.cryptoapi import PlaintextKeyBlob, SimpleBlob
from strongroom.mandates import SealingKeyState
from strongroom.messages import WrappedFormat, Wrapping
from strongroom.roster import Roster
from strongroom.wrapped import check, identify, recipient_key, unwrap

SIMPLE: Final = WrappedFormat.CRYPTOAPI_SIMPLE
OPENED_CMS: Final = {
    "default.der": Padding.PKCS1,
    "default.pem": Padding.PKCS1,
    "default.smime": Padding.PKCS1,
    "aes-128.der": Padding.PKCS1,
    "aes-192.der": Padding.PKCS1,
    "aes-256.der": Padding.PKCS1,
    "aes-256-streamed.ber": Padding.PKCS1,
    "key-identifier.der": Padding.PKCS1,
    "nss.ber": Padding.PKCS1,
    "oaep-sha1.der": Padding.OAEP,
    "oaep-sha256.der": Padding.OAEP,
    "oaep-sha256-mgf1-sha1.der": Padding.OAEP,
    "oaep-sha384.der": Padding.OAEP,
    "oaep-sha512.der": Padding.OAEP,
}
CMS_ROSTER: Final = make.roster(transport_keys=[given.CMS])
KEY: Final = bytes(range(32))


def simple_roster(state: SealingKeyState = SealingKeyState.ACTIVE) -> Roster:
    return make.roster(transport_keys=[given.entry(state=state)])


def identified(
    material: bytes,
    padding: Padding,
    kind: WrappedFormat = SIMPLE,
    *,
    roster: Roster | None = None,
    kid: str = given.SIMPLE.kid,
) -> Wrapping:
    return identify(kind, Secret(material), padding, kid, roster or simple_roster())


def opened(wrapping: Wrapping, material: bytes, key: Any = None) -> bytes:
    return unwrap(wrapping, Secret(material), key or given.transport_key()).expose()


def of_cms(material: bytes, padding: Padding, **changes: Any) -> Wrapping:
    """Return what is signed of a message, without asking `identify`."""
    members = {"format": WrappedFormat.CMS, "padding": padding.value, "kid": given.CMS.kid}
    return given.wrapping(material, **(members | changes))


def by_key_identifier(**recipient: Any) -> bytes:
    """Return a message in AES-256 to the CMS key, named by the identifier that certificates usually have."""
    return cms.Message(recipients=[cms.Recipient(**recipient).encode()]).encode()


# ---- the vectors, all the way ----


@pytest.mark.parametrize("vector", WRAPPED, ids=lambda each: each.label)
def test_every_simple_blob_of_the_vectors_gives_its_key(vector: Vector) -> None:
    """All 14, as another implementation wrote them: identified, checked, and opened to the key in the vectors."""
    signed = identified(vector.simple, vector.padding)
    assert signed.digest == hashlib.sha256(vector.simple[12:][::-1]).hexdigest()
    assert (signed.format, signed.padding, signed.kid) == (SIMPLE, vector.padding.value, given.SIMPLE.kid)
    check(signed, Secret(vector.simple))
    assert opened(signed, vector.simple) == PlaintextKeyBlob.parse(Secret(vector.plaintext)).key.expose()


@pytest.mark.parametrize("name", OPENED_CMS)
def test_every_cms_message_of_the_vectors_gives_its_content(name: str) -> None:
    """As OpenSSL, NSS and S/MIME write them, with the padding that they name themselves."""
    material = cms.vector(name)
    signed = of_cms(material, OPENED_CMS[name])
    check(signed, Secret(material))
    assert opened(signed, material, given.transport_key("cms")) == cms.CONTENT


def test_a_volume_key_packet_gives_what_its_message_holds() -> None:
    """The packet of format `asymmetric` is a CMS message in a frame."""
    packet = cms.vector("volume-key-asymmetric.packet")
    signed = of_cms(packet, Padding.PKCS1, format=WrappedFormat.VOLUME_KEY)
    check(signed, Secret(packet))
    assert opened(signed, packet, given.transport_key("cms"))


@pytest.mark.parametrize("name", ["volume-key-default.packet", "volume-key-cleartext.packet"])
def test_a_volume_key_packet_that_holds_no_message_is_refused(name: str) -> None:
    """Only volume_key itself opens the others: they are escrowed as they are, not as wrapped keys."""
    with pytest.raises(MalformedStatement, match="asymmetric"):
        identified(cms.vector(name), Padding.PKCS1, WrappedFormat.VOLUME_KEY, roster=CMS_ROSTER, kid=given.CMS.kid)


# ---- the names of a transport key ----


def test_a_certificate_is_named_after_the_key_and_the_authority() -> None:
    """Serial number and key identifier follow from the public key, the issuer from the authority's id."""
    spki = given.SIMPLE.public_key
    names = names_of(spki, make.AUTHORITY)
    assert 0 < names.serial_number < 2**127
    assert names.serial_number == int.from_bytes(hashlib.sha256(spki).digest()[:16], "big") % 2**127
    # The BIT STRING of a 2,048 bit key: its value is the last 270 bytes of the SubjectPublicKeyInfo.
    assert names.key_identifier == hashlib.sha256(spki[-270:]).digest()[:20]
    common_name = cms.tlv(0x30, cms.oid("2.5.4.3"), cms.tlv(0x0C, make.AUTHORITY.encode()))
    assert names.issuer == cms.tlv(0x30, cms.tlv(0x31, common_name))
    assert names_of(spki, "other.example.org").issuer != names.issuer
    assert names_of(given.CMS.public_key, make.AUTHORITY).serial_number != names.serial_number


def test_a_key_that_is_none_has_no_names() -> None:
    """Neither garbage, nor a key under another's kid."""
    for entry in (
        given.SIMPLE.model_copy(update={"public_key": b"no key"}),
        given.SIMPLE.model_copy(update={"kid": given.CMS.kid}),
    ):
        with pytest.raises(KeyUnknown, match="transport key"):
            recipient_key(entry, make.AUTHORITY)


def test_a_message_is_found_by_every_name_of_the_certificate() -> None:
    """By issuer and serial number, by its key identifier, and by the one that other certificates have."""
    names = names_of(given.CMS.public_key, make.AUTHORITY)
    serial = cms.tlv(0x30, names.issuer, cms.integer(names.serial_number))
    for recipient in (
        {"version": cms.integer(0), "identifier": serial},
        {"identifier": cms.tlv(0x80, names.key_identifier)},
        {},
    ):
        material = by_key_identifier(**recipient)
        signed = identified(material, Padding.PKCS1, WrappedFormat.CMS, roster=CMS_ROSTER, kid=given.CMS.kid)
        assert opened(signed, material, given.transport_key("cms")) == cms.CONTENT
    kinds = Counter(type(name) for name in recipient_key(given.CMS, make.AUTHORITY).names)
    assert kinds == {IssuerAndSerialNumber: 1, SubjectKeyIdentifier: 2}


@pytest.mark.parametrize("name", ["default.der", "aes-256.der", "oaep-sha1.der"])
def test_a_message_for_another_certificate_is_refused(name: str) -> None:
    """Issuer and serial number of some other certificate: nobody can tell whose key it is before it is opened."""
    with pytest.raises(BlobInvalid, match="none of its recipients"):
        identified(cms.vector(name), OPENED_CMS[name], WrappedFormat.CMS, roster=CMS_ROSTER, kid=given.CMS.kid)


def test_a_message_that_names_the_key_twice_is_refused() -> None:
    """Two encrypted keys for one name: which of them is the wrapped key, nobody can say."""
    material = cms.Message(recipients=[cms.Recipient().encode(), cms.Recipient().encode()]).encode()
    with pytest.raises(BlobInvalid, match="2 of its recipients"):
        identified(material, Padding.PKCS1, WrappedFormat.CMS, roster=CMS_ROSTER, kid=given.CMS.kid)


@pytest.mark.parametrize("state", list(SealingKeyState))
def test_a_message_for_two_transport_keys_is_refused(state: SealingKeyState) -> None:
    """Its other copy has another digest: whoever gets hold of the message could escrow that one first."""
    names = names_of(given.SIMPLE.public_key, make.AUTHORITY)
    other = cms.Recipient(identifier=cms.tlv(0x80, names.key_identifier)).encode()
    stranger = cms.Recipient(identifier=cms.tlv(0x80, bytes(20))).encode()
    roster = make.roster(transport_keys=[given.CMS, given.entry("simple", state)])
    with pytest.raises(BlobInvalid, match="two transport keys"):
        identified(
            cms.Message(recipients=[cms.Recipient().encode(), other]).encode(),
            Padding.PKCS1,
            WrappedFormat.CMS,
            roster=roster,
            kid=given.CMS.kid,
        )
    # The sender's own certificate beside the authority's does no harm.
    identified(
        cms.Message(recipients=[cms.Recipient().encode(), stranger]).encode(),
        Padding.PKCS1,
        WrappedFormat.CMS,
        roster=roster,
        kid=given.CMS.kid,
    )


# ---- what may not be escrowed ----


@pytest.mark.parametrize(
    ("roster", "kid", "words"),
    [
        (simple_roster(SealingKeyState.CLOSED), given.SIMPLE.kid, "closed"),
        (simple_roster(), given.CMS.kid, "no transport key"),
        (make.roster(), given.SIMPLE.kid, "no transport key"),
    ],
)
def test_a_transport_key_that_is_not_taken_is_refused(roster: Roster, kid: str, words: str) -> None:
    """One that is closed, one that the roster does not have, and any where it has none."""
    with pytest.raises(KeyUnknown, match=f"{kid}.*{words}"):
        identified(given.simple_blob(KEY, Padding.OAEP), Padding.OAEP, roster=roster, kid=kid)


def test_an_accepted_transport_key_is_taken() -> None:
    """As blobs to an accepted sealing key are."""
    roster = simple_roster(SealingKeyState.ACCEPTED)
    assert identified(given.simple_blob(KEY, Padding.OAEP), Padding.OAEP, roster=roster).kid == given.SIMPLE.kid


def test_a_message_that_says_another_padding_is_refused() -> None:
    """In both directions; a SIMPLEBLOB says none."""
    oaep = by_key_identifier(algorithm=cms.algorithm(cms.RSAES_OAEP, cms.tlv(0x30)))
    for material, padding in ((by_key_identifier(), Padding.OAEP), (oaep, Padding.PKCS1)):
        with pytest.raises(MalformedStatement, match=r"^padding: is '\w+', and the message says"):
            identified(material, padding, WrappedFormat.CMS, roster=CMS_ROSTER, kid=given.CMS.kid)


def foreign(bits: int) -> bytes:
    """Return a SIMPLEBLOB of a ciphertext as long as a modulus of so many bits."""
    return SimpleBlob(SessionAlgorithm.AES_256, b"\1" * (bits // 8)).encode()


@pytest.mark.parametrize("bits", [1024, 2040, 2056, 3072, 4096])
def test_a_ciphertext_for_a_key_of_another_size_is_refused(bits: int) -> None:
    """Shorter or longer than the modulus; a byte either way is enough."""
    with pytest.raises(BlobInvalid, match="256"):
        identified(foreign(bits), Padding.PKCS1)


def test_a_ciphertext_that_is_not_below_the_modulus_is_refused() -> None:
    """The modulus added to a ciphertext would be a copy with another digest."""
    key = given.transport_key().public_key
    for number in (key.modulus, key.modulus + 1, 2**key.bits - 1):
        blob = SimpleBlob(SessionAlgorithm.AES_256, number.to_bytes(key.size, "big")).encode()
        with pytest.raises(BlobInvalid, match="modulus"):
            identified(blob, Padding.PKCS1)
    below = SimpleBlob(SessionAlgorithm.AES_256, (key.modulus - 1).to_bytes(key.size, "big")).encode()
    assert identified(below, Padding.PKCS1).digest == given.digest_of(below)


def test_a_blob_with_the_bytes_of_its_ciphertext_reversed_does_not_open() -> None:
    """Big-endian where CryptoAPI writes little-endian: refused at once, or as what does not open."""
    blob = given.simple_blob(KEY, Padding.OAEP)
    reversed_ = blob[:12] + blob[12:][::-1]
    with pytest.raises(BlobInvalid):
        opened(identified(reversed_, Padding.OAEP), reversed_)


@pytest.mark.parametrize("kind", list(WrappedFormat))
def test_material_of_another_format_is_refused(kind: WrappedFormat) -> None:
    """Each format for each other, and bytes that are of none; `check` says the same of it."""
    materials = {
        WrappedFormat.CRYPTOAPI_SIMPLE: given.simple_blob(KEY, Padding.PKCS1),
        WrappedFormat.CMS: by_key_identifier(),
        WrappedFormat.VOLUME_KEY: cms.vector("volume-key-asymmetric.packet"),
    }
    digests = {given.digest_of(material) for material in materials.values()}
    for other in (*(material for of, material in materials.items() if of is not kind), b"", b"\0" * 300, KEY):
        with pytest.raises((MalformedStatement, LimitExceeded)):
            identified(other, Padding.PKCS1, kind, roster=CMS_ROSTER, kid=given.CMS.kid)
        for digest in digests:
            with pytest.raises(BlobInvalid):
                check(Wrapping(format=kind, padding="pkcs1", kid=given.CMS.kid, digest=digest), Secret(other))


# ---- what was signed must be so ----


@dataclass(frozen=True)
class Case:
    """Something wrapped, and what is signed of it."""

    material: bytes
    wrapping: Wrapping
    key: PrivateRsaKey
    inside: bytes


_SIMPLE_OAEP = given.simple_blob(KEY, Padding.OAEP)
_SIMPLE_PKCS1 = given.simple_blob(KEY, Padding.PKCS1)
_CMS_PKCS1 = by_key_identifier()
CASES: Final = {
    "simple-oaep": Case(_SIMPLE_OAEP, given.wrapping(_SIMPLE_OAEP), given.transport_key(), KEY),
    "simple-pkcs1": Case(_SIMPLE_PKCS1, given.wrapping(_SIMPLE_PKCS1, padding="pkcs1"), given.transport_key(), KEY),
    "cms-pkcs1": Case(_CMS_PKCS1, of_cms(_CMS_PKCS1, Padding.PKCS1), given.transport_key("cms"), cms.CONTENT),
    "cms-oaep": Case(
        cms.vector("oaep-sha1.der"),
        of_cms(cms.vector("oaep-sha1.der"), Padding.OAEP),
        given.transport_key("cms"),
        cms.CONTENT,
    ),
}


def answer(attempt: Callable[[], object]) -> str | None:
    """Return the words of a BlobInvalid; None where there is none."""
    try:
        attempt()
    except BlobInvalid as error:
        return error.message
    return None


@pytest.mark.parametrize("name", CASES)
@drawn(data=st.data())
def test_damaged_material_never_gives_what_was_inside_as_if_nothing_were(name: str, data: st.DataObject) -> None:
    """Cut, longer, or with a bit flipped: the same two answers as ever, or something else than was wrapped.

    What may pass for the original is only what lies around it: the same encrypted key and the same content, written
    in other bytes, or a SIMPLEBLOB that says another algorithm of the same key length.
    """
    case = CASES[name]
    damage = data.draw(st.sampled_from(["cut", "longer", "flipped"]))
    if damage == "cut":
        material = case.material[: data.draw(st.integers(0, len(case.material) - 1))]
    elif damage == "longer":
        material = case.material + data.draw(st.binary(min_size=1, max_size=8))
    else:
        bit = data.draw(st.integers(0, 8 * len(case.material) - 1))
        changed = bytearray(case.material)
        changed[bit // 8] ^= 1 << bit % 8
        material = bytes(changed)
    refusal = answer(lambda: check(case.wrapping, Secret(material)))
    if refusal is not None:
        assert refusal == "the key material is not the wrapped key that was signed for"
        assert answer(lambda: opened(case.wrapping, material, case.key)) == refusal
        return
    assert damage == "flipped" or name.startswith("cms")
    refusal = answer(lambda: opened(case.wrapping, material, case.key))
    if refusal is not None:
        assert refusal == "the wrapped key does not open as it was signed for"
    elif opened(case.wrapping, material, case.key) == case.inside:
        assert given.digest_of(material) == given.digest_of(case.material)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "lie",
    [{"digest": "ab" * 32}, {"format": "volume-key"}, {"format": "other"}],
    ids=lambda each: next(iter(each.values()))[:9],
)
def test_another_format_or_digest_than_was_signed_is_found_by_the_prover(name: str, lie: dict[str, str]) -> None:
    """The same words for all of it, and nothing is unwrapped."""
    case = CASES[name]
    others = {WrappedFormat.CRYPTOAPI_SIMPLE: WrappedFormat.CMS}
    if lie.get("format") == "other":
        lie = {"format": others.get(case.wrapping.format, WrappedFormat.CRYPTOAPI_SIMPLE)}
    wrong = Wrapping.model_validate(case.wrapping.model_dump() | lie)
    for attempt in (lambda: check(wrong, Secret(case.material)), lambda: opened(wrong, case.material, case.key)):
        with pytest.raises(BlobInvalid) as caught:
            attempt()
        assert caught.value.message == "the key material is not the wrapped key that was signed for"


@pytest.mark.parametrize("name", ["cms-pkcs1", "cms-oaep"])
def test_another_padding_than_the_message_says_is_found_by_the_prover(name: str) -> None:
    """A message names its padding, so that a false one need not wait for the private key."""
    case = CASES[name]
    other = "oaep" if case.wrapping.padding == "pkcs1" else "pkcs1"
    with pytest.raises(BlobInvalid, match="not the wrapped key"):
        check(case.wrapping.model_copy(update={"padding": other}), Secret(case.material))


def test_one_recipient_twice_is_found_by_the_prover() -> None:
    """The same encrypted key at two places of a message: there is no telling which one was meant."""
    recipient = cms.Recipient().encode()
    material = cms.Message(recipients=[recipient, recipient]).encode()
    with pytest.raises(BlobInvalid, match="not the wrapped key"):
        check(of_cms(material, Padding.PKCS1), Secret(material))


def test_the_prover_needs_no_private_key_and_does_not_judge_what_is_inside() -> None:
    """A ciphertext that nobody can open passes: that it is the one that was signed is all that can be said."""
    blob = SimpleBlob(SessionAlgorithm.AES_256, b"\1" * 256).encode()
    check(given.wrapping(blob), Secret(blob))


# ---- one answer ----


def test_an_oaep_blob_that_is_marked_v1_5_gives_a_key_that_opens_nothing() -> None:
    """No error, a key of the right length, the same each time, and not the one inside."""
    blob = given.simple_blob(KEY, Padding.OAEP)
    signed = given.wrapping(blob, padding="pkcs1")
    assert opened(signed, blob) == opened(signed, blob)
    assert len(opened(signed, blob)) == len(KEY)
    assert opened(signed, blob) != KEY


def test_a_v1_5_blob_that_is_marked_oaep_does_not_open() -> None:
    """The one answer; the padding that would fit is never tried."""
    blob = given.simple_blob(KEY, Padding.PKCS1)
    with pytest.raises(BlobInvalid) as caught:
        opened(given.wrapping(blob), blob)
    assert caught.value.message == "the wrapped key does not open as it was signed for"


def unpadded_key() -> bytes:
    """Return the ciphertext of a number that is padded in no way, always the same."""
    key = given.transport_key("cms").public_key
    return pow(3, key.exponent, key.modulus).to_bytes(key.size, "big")


def test_what_does_not_open_says_nothing_about_why() -> None:
    """Another padding; a message whose content was changed, or is empty, or whose key is unpadded: one sentence."""
    changed = bytearray(by_key_identifier(algorithm=cms.algorithm(cms.RSA_ENCRYPTION)))
    changed[-17] ^= 0x40  # the end of the block before the last: the padding comes out wrong
    empty = cms.Message(content=cms.tlv(0x80, cms.encrypted_content(b""))).encode()
    unpadded = by_key_identifier(key=cms.tlv(0x04, unpadded_key()))
    words = set()
    for material in (bytes(changed), empty, unpadded):
        with pytest.raises(BlobInvalid) as caught:
            opened(of_cms(material, Padding.PKCS1), material, given.transport_key("cms"))
        words.add(caught.value.message)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
    blob = given.simple_blob(KEY, Padding.PKCS1)
    with pytest.raises(BlobInvalid) as caught:
        opened(given.wrapping(blob), blob)
    assert words == {caught.value.message}


def test_garbage_of_a_v1_5_message_looks_like_any_wrong_key() -> None:
    """Badly padded, or well padded with a key that the sender does not know: content comes out about as often.

    Of 1,024 contents about four end in padding by chance, whether the content key came out of the message or stands
    in for it. All of it is the same in each run.
    """
    key = given.transport_key("cms")
    bad = cms.tlv(0x04, unpadded_key())
    good = cms.tlv(0x04, cms.encrypted_key(hashlib.sha256(b"unknown").digest()))
    for encrypted in (bad, good):
        count = 0
        for number in range(1024):
            content = hashlib.shake_256(number.to_bytes(4, "big")).digest(32)
            material = cms.Message(
                recipients=[cms.Recipient(key=encrypted).encode()], content=cms.tlv(0x80, content)
            ).encode()
            try:
                opened(of_cms(material, Padding.PKCS1), material, key)
            except BlobInvalid:
                continue
            count += 1
        assert 1 <= count <= 12


# ---- whose private key ----


def test_another_transport_key_is_not_used() -> None:
    """What was wrapped for one key is not tried with another, and the blob is not blamed."""
    blob = given.simple_blob(KEY, Padding.OAEP)
    with pytest.raises(KeyUnknown, match=given.SIMPLE.kid):
        opened(given.wrapping(blob), blob, given.transport_key("cms"))


class Device:
    """A transport key on a device: OAEP with SHA-1 works there, and whatever `fails` says does not."""

    def __init__(self, name: str, *, fails: Exception | None = None) -> None:
        self._key = given.transport_key(name)
        self._fails = fails

    @property
    def public_key(self) -> RsaPublicKey:
        """The public half."""
        return self._key.public_key

    def unwrap(self, ciphertext: bytes, padding: Padding, lengths: range) -> Secret:
        """Unwrap, or fail as told."""
        if self._fails:
            raise self._fails
        return self._key.unwrap(ciphertext, padding, lengths)


@pytest.mark.parametrize("name", CASES)
def test_a_key_on_a_device_opens_the_same(name: str) -> None:
    """Nothing but `unwrap` is asked of it."""
    case = CASES[name]
    device = Device("simple" if name.startswith("simple") else "cms")
    assert opened(case.wrapping, case.material, device) == case.inside


@pytest.mark.parametrize("name", ["oaep-sha256.der", "oaep-sha512.der", "oaep-sha256-mgf1-sha1.der"])
def test_another_hash_than_a_device_knows_is_denied(name: str) -> None:
    """The blob is not blamed: with the key in a file it opens."""
    material = cms.vector(name)
    with pytest.raises(Denied, match="SHA-"):
        opened(of_cms(material, Padding.OAEP), material, Device("cms"))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("error", [Denied("not with this padding"), KeyDeviceUnavailable("gone")])
def test_a_device_that_does_not_answer_is_not_taken_for_a_blob_that_does_not_open(
    name: str, error: Exception
) -> None:
    """Its error passes as it is: the record is not lost."""
    case = CASES[name]
    device = Device("simple" if name.startswith("simple") else "cms", fails=error)
    with pytest.raises(type(error)) as caught:
        opened(case.wrapping, case.material, device)
    assert caught.value is error


@drawn(material=st.binary(max_size=400), kind=st.sampled_from(WrappedFormat), padding=st.sampled_from(Padding))
def test_no_bytes_bring_anything_but_an_error_of_ours(
    material: bytes, kind: WrappedFormat, padding: Padding
) -> None:
    """Whatever is offered, the answer is a PermanentError or something that can be signed."""
    with pytest.raises(PermanentError):
        identified(material, padding, kind, roster=CMS_ROSTER, kid=given.CMS.kid)
    with pytest.raises(BlobInvalid):
        check(Wrapping(format=kind, padding=padding.value, kid=given.CMS.kid, digest="ab" * 32), Secret(material))
