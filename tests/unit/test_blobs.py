import dataclasses
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom import blobs
from strongroom.blobs import (
    BlobContext,
    OpenedMaterial,
    ReleaseContext,
    check_fingerprint,
    open_material,
    open_unwrapped,
    reseal,
    seal_material,
    seal_unwrapped,
)
from strongroom.crypto.sealing import PrivateSealingKey, Suite, overhead, seal
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, FingerprintMismatch, KeyUnknown, LimitExceeded, NoAnswer
from strongroom.limits import KEY_MATERIAL_BYTES_MAX

FROZEN = json.loads((Path(__file__).parents[1] / "vectors" / "hpke" / "frozen.json").read_text())
KEYS = {suite: PrivateSealingKey.generate(suite) for suite in Suite}
ONE_TIME = {suite: PrivateSealingKey.generate(suite) for suite in Suite}
MATERIAL = Secret(b"key material")
AUTHORITY, PRINCIPAL = "authority.example", "laptop-0417"
RECORD, OTHER_RECORD = "01890a5d-ac96-774b-bcce-b302099a8057", "01890a5d-ac96-774b-bcce-b302099a8058"
DIGEST = hashlib.sha256(b"request").digest()

each_suite = pytest.mark.parametrize("suite", list(Suite))


def place(suite: Suite, record_id: str = RECORD) -> BlobContext:
    return BlobContext(AUTHORITY, PRINCIPAL, record_id, KEYS[suite].kid, suite)


def release_place(suite: Suite, digest: bytes = DIGEST) -> ReleaseContext:
    return ReleaseContext(AUTHORITY, digest, PRINCIPAL, RECORD, ONE_TIME[suite].kid)


def each_bit_flipped(original: bytes) -> Iterator[bytes]:
    """Give every string that differs from the original in one bit."""
    for position in range(8 * len(original)):
        changed = bytearray(original)
        changed[position // 8] ^= 1 << (position % 8)
        yield bytes(changed)


def each_ascii_bit_flipped(original: str) -> Iterator[str]:
    """Give every ASCII text that differs from the original in one bit."""
    for changed in each_bit_flipped(original.encode()):
        if changed.isascii():
            yield changed.decode()


Context = TypeVar("Context", BlobContext, ReleaseContext)


def with_field(context: Context, name: str, value: Any) -> Context:
    return dataclasses.replace(context, **{name: value})


# ---- sealing and opening a record's blob -------------------------------------------------------


@each_suite
@given(material=st.binary(min_size=1, max_size=300))
def test_key_material_opens_in_its_place(suite: Suite, material: bytes) -> None:
    """Material and salt come back, and the fingerprint that sealing gave holds."""
    sealed = seal_material(Secret(material), place(suite), KEYS[suite].public_key)
    opened = open_material(sealed.blob, place(suite), KEYS[suite])
    assert opened == OpenedMaterial(Secret(material), sealed.salt)
    check_fingerprint(opened, AUTHORITY, PRINCIPAL, RECORD, sealed.fingerprint)


@pytest.mark.parametrize("vector", FROZEN, ids=lambda vector: vector["key"]["suite"])
def test_frozen_blobs_still_open_in_their_places(vector: dict[str, Any]) -> None:
    """Contexts, framing and fingerprint are those of version 1, byte for byte."""
    suite, record, release = Suite(vector["key"]["suite"]), vector["record"], vector["release"]
    key = PrivateSealingKey.from_bytes(suite, Secret(bytes.fromhex(vector["key"]["private_key"])))
    owner = record["authority"], record["principal"], record["record_id"]
    context = BlobContext(*owner, key.kid, suite)
    assert context.info().hex() == record["info"]
    opened = open_material(bytes.fromhex(record["blob"]), context, key)
    assert opened.material.expose().hex() == record["material"]
    assert opened.salt.expose().hex() == record["salt"]
    check_fingerprint(opened, *owner, record["fingerprint"])
    digest = bytes.fromhex(release["request_digest"])
    release_context = ReleaseContext(owner[0], digest, owner[1], owner[2], key.kid)
    assert release_context.info().hex() == release["info"]
    assert open_material(bytes.fromhex(release["blob"]), release_context, key) == opened


def changed_places(suite: Suite) -> Iterator[BlobContext]:
    """Give every place that differs from the blob's in one bit of one field, and the one of the other suite."""
    context = place(suite)
    for name in ("authority", "principal", "record_id", "kid"):
        for text in each_ascii_bit_flipped(getattr(context, name)):
            yield with_field(context, name, text)
    yield from (dataclasses.replace(context, suite=other) for other in Suite if other is not suite)


@each_suite
def test_no_blob_opens_when_any_single_bit_of_its_place_was_changed(suite: Suite) -> None:
    """Authority, principal, record id, kid and suite are all bound."""
    blob = seal_material(MATERIAL, place(suite), KEYS[suite].public_key).blob
    changes = list(changed_places(suite))
    assert len(changes) == 7 * (len(AUTHORITY) + len(PRINCIPAL) + len(RECORD) + 32) + 1
    for context in changes:
        with pytest.raises(BlobInvalid):
            open_material(blob, context, KEYS[suite])


@each_suite
def test_no_blob_opens_after_any_single_bit_was_changed(suite: Suite) -> None:
    """Every bit of the blob counts."""
    blob = seal_material(Secret(b"k"), place(suite), KEYS[suite].public_key).blob
    for changed in each_bit_flipped(blob):
        with pytest.raises(BlobInvalid):
            open_material(changed, place(suite), KEYS[suite])


names = st.text(st.characters(codec="utf-8"), max_size=20)


@settings(max_examples=60)
@given(
    one=st.tuples(names, names, names),
    other=st.tuples(names, names, names),
    shift=st.integers(min_value=0, max_value=20),
)
def test_the_blob_of_one_record_never_opens_for_another(
    one: tuple[str, str, str], other: tuple[str, str, str], shift: int
) -> None:
    """A blob opens in another place only if it is the same place, also when text moves from field to field."""
    key = KEYS[Suite.P256]
    joined = "".join(one)
    shifted = (joined[:shift], joined[shift:], "")
    blob = seal_material(MATERIAL, BlobContext(*one, key.kid, Suite.P256), key.public_key).blob
    for where in (other, shifted, (one[1], one[0], one[2])):
        context = BlobContext(*where, key.kid, Suite.P256)
        if where == one:
            assert open_material(blob, context, key).material == MATERIAL
        else:
            with pytest.raises(BlobInvalid):
                open_material(blob, context, key)


@each_suite
def test_a_blob_lifted_into_another_record_does_not_open(suite: Suite) -> None:
    """The holder of a copy of somebody's blob cannot escrow it as its own and ask for it back."""
    stolen = seal_material(MATERIAL, place(suite), KEYS[suite].public_key).blob
    for thief in (
        place(suite, OTHER_RECORD),
        dataclasses.replace(place(suite), principal="laptop-0418"),
        dataclasses.replace(place(suite), authority="other.example"),
    ):
        with pytest.raises(BlobInvalid):
            open_material(stolen, thief, KEYS[suite])


def test_the_info_is_label_and_fields_with_their_lengths() -> None:
    """The bytes bound to a blob are those of SPEC section 3.4."""
    context = BlobContext("a", "bé", "c", "d", Suite.X_WING)
    assert context.info() == b"strongroom/blob/v1\x00\x01a\x00\x03b\xc3\xa9\x00\x01c\x00\x01d\x00\x06x-wing"


def test_no_label_is_the_beginning_of_another() -> None:
    """The contexts of blobs, releases and fingerprints can never give the same bytes."""
    labels = (blobs._BLOB_LABEL, blobs._RELEASE_LABEL, blobs._FINGERPRINT_LABEL)
    assert not any(one != other and one.startswith(other) for one in labels for other in labels)
    assert len(set(labels)) == 3


@each_suite
def test_nothing_is_sealed_to_another_key_than_the_one_named(suite: Suite) -> None:
    """A public key that its kid does not name is refused, because that blob could never be opened."""
    for public_key in (ONE_TIME[suite].public_key, KEYS[suite].public_key[:-1], b""):
        with pytest.raises(KeyUnknown):
            seal_material(MATERIAL, place(suite), public_key)
        with pytest.raises(KeyUnknown):
            reseal(
                OpenedMaterial(MATERIAL, Secret(bytes(32))),
                dataclasses.replace(release_place(suite), recipient_key_id=KEYS[suite].kid),
                suite,
                public_key,
            )


def test_a_device_that_does_not_answer_is_no_damaged_blob() -> None:
    """A transient error of an opener passes through, so that nobody reports a key as lost."""

    class Unplugged:
        kid = KEYS[Suite.P256].kid
        suite = Suite.P256

        def open(self, blob: bytes, info: bytes) -> Secret:
            raise NoAnswer(f"no answer about {len(blob)} and {len(info)} bytes")

    with pytest.raises(NoAnswer):
        open_material(b"blob", place(Suite.P256), Unplugged())


# ---- limits and framing ------------------------------------------------------------------------


@each_suite
@pytest.mark.parametrize("length", [1, KEY_MATERIAL_BYTES_MAX])
def test_key_material_at_the_limits_is_sealed(suite: Suite, length: int) -> None:
    """One byte and 65,536 bytes both survive, in a blob longer by the salt and the suite's overhead."""
    sealed = seal_material(Secret(b"k" * length), place(suite), KEYS[suite].public_key)
    assert len(sealed.blob) == overhead(suite) + 32 + length
    assert len(open_material(sealed.blob, place(suite), KEYS[suite]).material) == length


@pytest.mark.parametrize("length", [0, KEY_MATERIAL_BYTES_MAX + 1])
def test_key_material_beyond_the_limits_is_refused(length: int) -> None:
    """The error names the field, the limit and its unit."""
    with pytest.raises(LimitExceeded, match="KEY_MATERIAL_BYTES_MAX allows 1 to 65536 bytes"):
        seal_material(Secret(b"k" * length), place(Suite.P256), KEYS[Suite.P256].public_key)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 32 + KEY_MATERIAL_BYTES_MAX + 1])
def test_a_blob_without_salt_and_key_material_is_refused(length: int) -> None:
    """What opens must hold 32 bytes of salt and 1 to 65,536 bytes of key material."""
    key, context = KEYS[Suite.P256], place(Suite.P256)
    blob = seal(Suite.P256, key.public_key, b"p" * length, context.info())
    with pytest.raises(BlobInvalid):
        open_material(blob, context, key)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_salt_of_another_length_is_refused(length: int) -> None:
    """A salt is 32 bytes; a shorter one would let framing and fingerprint be read two ways."""
    with pytest.raises(ValueError, match="32 bytes"):
        seal_material(MATERIAL, place(Suite.P256), KEYS[Suite.P256].public_key, salt=Secret(b"s" * length))


def test_neither_repr_shows_key_material_or_salt() -> None:
    """Sealed and opened material show lengths and the fingerprint only, and no kilobytes of blob."""
    sealed = seal_material(
        Secret(b"canary-material"), place(Suite.P256), KEYS[Suite.P256].public_key, salt=Secret(b"canary!!" * 4)
    )
    opened = open_material(sealed.blob, place(Suite.P256), KEYS[Suite.P256])
    assert "canary" not in f"{sealed!r}{opened!r}"
    assert repr(sealed) == f"SealedMaterial(fingerprint='{sealed.fingerprint}', salt=<Secret: 32 bytes>)"
    assert repr(opened) == "OpenedMaterial(material=<Secret: 15 bytes>, salt=<Secret: 32 bytes>)"


# ---- fingerprints ------------------------------------------------------------------------------


def test_a_fingerprint_is_the_hmac_of_place_and_material_under_the_salt() -> None:
    """The fingerprint is what SPEC section 3.5 says, worked out here by hand."""
    salt = bytes(range(32))
    key = KEYS[Suite.P256]
    context = BlobContext("a", "b", "c", key.kid, Suite.P256)
    sealed = seal_material(MATERIAL, context, key.public_key, salt=Secret(salt))
    message = b"strongroom/fingerprint/v1\x00\x01a\x00\x01b\x00\x01c" + b"key material"
    assert sealed.fingerprint == hmac.digest(salt, message, "sha256").hex()


def test_a_fingerprint_tells_nothing_without_its_salt() -> None:
    """Equal key material has another fingerprint every time, because the salt is fresh."""
    sealed = [seal_material(MATERIAL, place(Suite.P256), KEYS[Suite.P256].public_key) for _ in range(2)]
    assert sealed[0].fingerprint != sealed[1].fingerprint
    assert sealed[0].salt != sealed[1].salt


def test_sealing_again_with_the_same_salt_keeps_the_fingerprint() -> None:
    """A blob sealed anew to another key still holds what its owner signed for."""
    first = seal_material(MATERIAL, place(Suite.P256), KEYS[Suite.P256].public_key)
    again = seal_material(MATERIAL, place(Suite.X_WING), KEYS[Suite.X_WING].public_key, salt=first.salt)
    assert again.fingerprint == first.fingerprint


def test_a_fingerprint_binds_material_salt_and_place() -> None:
    """A fingerprint fails for one changed bit of the material, the salt, any part of the place, or itself."""
    sealed = seal_material(MATERIAL, place(Suite.P256), KEYS[Suite.P256].public_key)
    opened = OpenedMaterial(MATERIAL, sealed.salt)
    where = AUTHORITY, PRINCIPAL, RECORD
    check_fingerprint(opened, *where, sealed.fingerprint)
    for material in each_bit_flipped(MATERIAL.expose()):
        assert_mismatch(OpenedMaterial(Secret(material), sealed.salt), where, sealed.fingerprint)
    for salt in each_bit_flipped(sealed.salt.expose()):
        assert_mismatch(OpenedMaterial(MATERIAL, Secret(salt)), where, sealed.fingerprint)
    for authority in each_ascii_bit_flipped(AUTHORITY):
        assert_mismatch(opened, (authority, PRINCIPAL, RECORD), sealed.fingerprint)
    for principal in each_ascii_bit_flipped(PRINCIPAL):
        assert_mismatch(opened, (AUTHORITY, principal, RECORD), sealed.fingerprint)
    for record_id in each_ascii_bit_flipped(RECORD):
        assert_mismatch(opened, (AUTHORITY, PRINCIPAL, record_id), sealed.fingerprint)
    for fingerprint in each_ascii_bit_flipped(sealed.fingerprint):
        assert_mismatch(opened, where, fingerprint)


@pytest.mark.parametrize("fingerprint", ["", "é" * 64, "\ud800", "0" * 63, "0" * 65])
def test_a_fingerprint_that_is_none_does_not_match(fingerprint: str) -> None:
    """Empty, overlong, non-ASCII and broken text is a mismatch like any other."""
    assert_mismatch(OpenedMaterial(MATERIAL, Secret(bytes(32))), (AUTHORITY, PRINCIPAL, RECORD), fingerprint)


def test_a_fingerprint_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison is left to hmac.compare_digest, whose time does not depend on the content."""
    compared: list[bytes] = []

    def watched(one: bytes, other: bytes) -> bool:
        compared.extend((one, other))
        return True

    monkeypatch.setattr(hmac, "compare_digest", watched)
    check_fingerprint(OpenedMaterial(MATERIAL, Secret(bytes(32))), AUTHORITY, PRINCIPAL, RECORD, "0" * 64)
    assert len(compared[0]) == 64
    assert compared[1] == b"0" * 64


def assert_mismatch(opened: OpenedMaterial, where: tuple[str, str, str], fingerprint: str) -> None:
    """Fail unless the fingerprint is refused with an error that names the record."""
    with pytest.raises(FingerprintMismatch, match="of record"):
        check_fingerprint(opened, *where, fingerprint)


# ---- releases ----------------------------------------------------------------------------------


@each_suite
def test_a_released_blob_opens_with_the_one_time_key(suite: Suite) -> None:
    """The requester gets material and salt, so it can check the fingerprint that the owner signed."""
    sealed = seal_material(MATERIAL, place(Suite.P256), KEYS[Suite.P256].public_key)
    opened = open_material(sealed.blob, place(Suite.P256), KEYS[Suite.P256])
    released = reseal(opened, release_place(suite), suite, ONE_TIME[suite].public_key)
    received = open_material(released, release_place(suite), ONE_TIME[suite])
    assert received == opened
    check_fingerprint(received, AUTHORITY, PRINCIPAL, RECORD, sealed.fingerprint)


def test_a_released_blob_is_bound_to_every_field_of_its_place() -> None:
    """One changed bit of authority, request, principal, record or recipient, and it does not open."""
    suite = Suite.P256
    context = release_place(suite)
    released = reseal(OpenedMaterial(MATERIAL, Secret(bytes(32))), context, suite, ONE_TIME[suite].public_key)
    places = [dataclasses.replace(context, request_digest=digest) for digest in each_bit_flipped(DIGEST)]
    for name in ("authority", "principal", "record_id", "recipient_key_id"):
        places += [with_field(context, name, text) for text in each_ascii_bit_flipped(getattr(context, name))]
    assert len(places) == 8 * 32 + 7 * (len(AUTHORITY) + len(PRINCIPAL) + len(RECORD) + 32)
    for changed in places:
        with pytest.raises(BlobInvalid):
            open_material(released, changed, ONE_TIME[suite])


def test_a_blob_of_a_record_is_no_release_and_the_other_way_round() -> None:
    """The two kinds of blob cannot stand for each other, even under one key."""
    key = KEYS[Suite.P256]
    release = ReleaseContext(AUTHORITY, DIGEST, PRINCIPAL, RECORD, key.kid)
    sealed = seal_material(MATERIAL, place(Suite.P256), key.public_key)
    with pytest.raises(BlobInvalid):
        open_material(sealed.blob, release, key)
    released = reseal(OpenedMaterial(MATERIAL, sealed.salt), release, Suite.P256, key.public_key)
    with pytest.raises(BlobInvalid):
        open_material(released, place(Suite.P256), key)


def test_the_info_of_a_release_is_label_and_fields_with_their_lengths() -> None:
    """The bytes bound to a release are those of SPEC section 3.6."""
    info = ReleaseContext("a", bytes(32), "b", "c", "d").info()
    assert info == b"strongroom/release/v1\x00\x01a\x00\x20" + bytes(32) + b"\x00\x01b\x00\x01c\x00\x01d"


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_request_digest_of_another_length_is_refused(length: int) -> None:
    """A request digest is 32 raw bytes; hex text would be bound as another value."""
    with pytest.raises(ValueError, match="32 bytes"):
        ReleaseContext(AUTHORITY, bytes(length), PRINCIPAL, RECORD, "kid")


# ---- what was inside a wrapped key ----

PLACE = ReleaseContext("backup.example.org", bytes(range(32)), "laptop-0417", "record", ONE_TIME[Suite.X_WING].kid)


@pytest.mark.parametrize("suite", list(Suite))
@pytest.mark.parametrize("size", [1, 32, KEY_MATERIAL_BYTES_MAX])
def test_unwrapped_content_opens_in_its_place(suite: Suite, size: int) -> None:
    """From one byte to the most that key material may have; the blob is longer by the suite's overhead alone."""
    key = ONE_TIME[suite]
    place = dataclasses.replace(PLACE, recipient_key_id=key.kid)
    blob = seal_unwrapped(Secret(bytes(size)), place, suite, key.public_key)
    assert len(blob) == overhead(suite) + size
    assert open_unwrapped(blob, place, key) == Secret(bytes(size))


def test_unwrapped_content_has_a_label_of_its_own() -> None:
    """As SPEC 5.17 spells it: label, authority, request digest, principal, record id, one-time key."""
    names = [each.encode() for each in (PLACE.principal, PLACE.record_id, PLACE.recipient_key_id)]
    fields = [PLACE.authority.encode(), PLACE.request_digest, *names]
    joined = b"".join(len(each).to_bytes(2, "big") + each for each in fields)
    assert PLACE.unwrapped_info() == b"strongroom/unwrapped/v1" + joined
    assert PLACE.unwrapped_info() != PLACE.info()


@pytest.mark.parametrize(
    "changed",
    [
        {"authority": "other.example.org"},
        {"request_digest": bytes(32)},
        {"principal": "laptop-0418"},
        {"record_id": "another"},
    ],
)
def test_unwrapped_content_opens_nowhere_else(changed: dict[str, Any]) -> None:
    """Under another authority, request, principal or record."""
    key = ONE_TIME[Suite.X_WING]
    blob = seal_unwrapped(Secret(b"content"), PLACE, Suite.X_WING, key.public_key)
    with pytest.raises(BlobInvalid):
        open_unwrapped(blob, dataclasses.replace(PLACE, **changed), key)


@pytest.mark.parametrize("size", [0, KEY_MATERIAL_BYTES_MAX + 1])
def test_unwrapped_content_of_another_size_is_neither_sealed_nor_opened(size: int) -> None:
    """Nothing at all, and one byte too many."""
    key = ONE_TIME[Suite.X_WING]
    with pytest.raises(LimitExceeded, match="KEY_MATERIAL_BYTES_MAX"):
        seal_unwrapped(Secret(bytes(size)), PLACE, Suite.X_WING, key.public_key)
    blob = seal(Suite.X_WING, key.public_key, bytes(size), PLACE.unwrapped_info())
    with pytest.raises(BlobInvalid):
        open_unwrapped(blob, PLACE, key)


def test_unwrapped_content_is_not_sealed_to_another_key_than_the_one_named() -> None:
    """It would be lost without anyone noticing."""
    with pytest.raises(KeyUnknown):
        seal_unwrapped(Secret(b"content"), PLACE, Suite.X_WING, KEYS[Suite.X_WING].public_key)
