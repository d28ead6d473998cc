import copy
import hashlib
import hmac
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from strongroom.crypto.sealing import (
    PUBLIC_KEY_BYTES,
    Opener,
    PrivateSealingKey,
    Suite,
    encode_context,
    kid,
    overhead,
    seal,
)
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, KeyUnknown

VECTORS = Path(__file__).parents[2] / "vectors" / "hpke"
KEM_IDS = {Suite.X_WING: 0x647A, Suite.P256: 0x0010}
ENC_BYTES = {Suite.X_WING: 1120, Suite.P256: 65}
HKDF_SHA256 = (1).to_bytes(2, "big")
AEAD_AES_128_GCM, AEAD_AES_256_GCM = 1, 2


# ---- HPKE once more, from RFC 9180 sections 4 and 5 and draft-connolly-cfrg-xwing-kem section 5 ------------


class Schedule(NamedTuple):
    """The output of the key schedule."""

    key: bytes
    base_nonce: bytes


def labeled_extract(suite_id: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    """LabeledExtract of RFC 9180 section 4."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite_id + label + ikm, "sha256")


def labeled_expand(suite_id: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    """LabeledExpand of RFC 9180 section 4; one HKDF block is enough for every length used here."""
    assert length <= 32
    labeled_info = length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info
    return hmac.digest(prk, labeled_info + b"\x01", "sha256")[:length]


def dhkem_p256_secret(shared_point: bytes, enc: bytes, public_key: bytes) -> bytes:
    """ExtractAndExpand of RFC 9180 section 4.1."""
    suite_id = b"KEM" + KEM_IDS[Suite.P256].to_bytes(2, "big")
    prk = labeled_extract(suite_id, b"", b"eae_prk", shared_point)
    return labeled_expand(suite_id, prk, b"shared_secret", enc + public_key, 32)


def key_schedule(suite: Suite, shared_secret: bytes, info: bytes, aead: int) -> Schedule:
    """KeySchedule of RFC 9180 section 5.1 in base mode."""
    suite_id = b"HPKE" + KEM_IDS[suite].to_bytes(2, "big") + HKDF_SHA256 + aead.to_bytes(2, "big")
    context = (
        b"\x00"
        + labeled_extract(suite_id, b"", b"psk_id_hash", b"")
        + labeled_extract(suite_id, b"", b"info_hash", info)
    )
    secret = labeled_extract(suite_id, shared_secret, b"secret", b"")
    return Schedule(
        labeled_expand(suite_id, secret, b"key", context, {1: 16, 2: 32}[aead]),
        labeled_expand(suite_id, secret, b"base_nonce", context, 12),
    )


def p256_scalar(raw: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(raw, "big"), ec.SECP256R1())


def p256_point(raw: bytes) -> ec.EllipticCurvePublicKey:
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)


def encoded_point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def x_wing_secret(mlkem_secret: bytes, x25519_secret: bytes, x25519_enc: bytes, x25519_public: bytes) -> bytes:
    """The X-Wing combiner."""
    return hashlib.sha3_256(
        mlkem_secret + x25519_secret + x25519_enc + x25519_public + bytes.fromhex("5c2e2f2f5e5c")
    ).digest()


def reference_decapsulate(suite: Suite, private: bytes, public_key: bytes, enc: bytes) -> bytes:
    """Give the KEM's shared secret to the holder of the private key."""
    if suite is Suite.P256:
        return dhkem_p256_secret(p256_scalar(private).exchange(ec.ECDH(), p256_point(enc)), enc, public_key)
    mlkem_secret = mlkem.MLKEM768PrivateKey.from_seed_bytes(private[:64]).decapsulate(enc[:1088])
    x25519_key = x25519.X25519PrivateKey.from_private_bytes(private[64:])
    x25519_secret = x25519_key.exchange(x25519.X25519PublicKey.from_public_bytes(enc[1088:]))
    return x_wing_secret(mlkem_secret, x25519_secret, enc[1088:], public_key[1184:])


def reference_encapsulate(suite: Suite, public_key: bytes) -> tuple[bytes, bytes]:
    """Give a fresh KEM shared secret and its encapsulation."""
    if suite is Suite.P256:
        ephemeral = ec.generate_private_key(ec.SECP256R1())
        enc = encoded_point(ephemeral.public_key())
        return dhkem_p256_secret(ephemeral.exchange(ec.ECDH(), p256_point(public_key)), enc, public_key), enc
    mlkem_secret, mlkem_enc = mlkem.MLKEM768PublicKey.from_public_bytes(public_key[:1184]).encapsulate()
    ephemeral_x = x25519.X25519PrivateKey.generate()
    x25519_enc = ephemeral_x.public_key().public_bytes_raw()
    x25519_secret = ephemeral_x.exchange(x25519.X25519PublicKey.from_public_bytes(public_key[1184:]))
    return x_wing_secret(mlkem_secret, x25519_secret, x25519_enc, public_key[1184:]), mlkem_enc + x25519_enc


def reference_open(suite: Suite, private: bytes, public_key: bytes, blob: bytes, info: bytes) -> bytes:
    """Open a blob of this project without its code."""
    enc, ciphertext = blob[: ENC_BYTES[suite]], blob[ENC_BYTES[suite] :]
    shared_secret = reference_decapsulate(suite, private, public_key, enc)
    schedule = key_schedule(suite, shared_secret, info, AEAD_AES_256_GCM)
    return AESGCM(schedule.key).decrypt(schedule.base_nonce, ciphertext, b"")


def reference_seal(suite: Suite, public_key: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Seal a blob for this project without its code."""
    shared_secret, enc = reference_encapsulate(suite, public_key)
    schedule = key_schedule(suite, shared_secret, info, AEAD_AES_256_GCM)
    return enc + AESGCM(schedule.key).encrypt(schedule.base_nonce, plaintext, b"")


# ---- interoperation ----------------------------------------------------------------------------


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


FROZEN = load("frozen.json")
KEYS = {suite: PrivateSealingKey.generate(suite) for suite in Suite}
each_suite = pytest.mark.parametrize("suite", list(Suite))


def test_the_reference_reproduces_the_published_p256_vector() -> None:
    """Shared secret, key, nonce and ciphertext of RFC 9180 appendix A.3.1 come out of the reference here."""
    v = {name: bytes.fromhex(value) for name, value in load("rfc9180-a3.json").items() if name != "source"}
    assert encoded_point(p256_scalar(v["private_key"]).public_key()) == v["public_key"]
    assert encoded_point(p256_scalar(v["ephemeral_private_key"]).public_key()) == v["enc"]
    shared = reference_decapsulate(Suite.P256, v["private_key"], v["public_key"], v["enc"])
    assert shared == v["shared_secret"]
    schedule = key_schedule(Suite.P256, shared, v["info"], AEAD_AES_128_GCM)
    assert schedule == (v["key"], v["base_nonce"])
    assert AESGCM(schedule.key).encrypt(schedule.base_nonce, v["plaintext"], v["aad"]) == v["ciphertext"]


@each_suite
def test_an_independent_implementation_opens_our_blobs(suite: Suite) -> None:
    """A blob of ours opens with the reference, so other HPKE libraries can open it."""
    key = KEYS[suite]
    blob = seal(suite, key.public_key, b"key material", b"info")
    assert reference_open(suite, key.private_bytes().expose(), key.public_key, blob, b"info") == b"key material"


@each_suite
def test_we_open_the_blobs_of_an_independent_implementation(suite: Suite) -> None:
    """A blob that the reference sealed opens here, so other HPKE libraries can seal for us."""
    key = KEYS[suite]
    blob = reference_seal(suite, key.public_key, b"key material", b"info")
    assert key.open(blob, b"info") == Secret(b"key material")


@pytest.mark.parametrize("vector", FROZEN, ids=lambda vector: vector["key"]["suite"])
def test_frozen_blobs_still_open(vector: dict[str, dict[str, str]]) -> None:
    """Key derivation, kid and blob format are those of version 1, byte for byte."""
    private = Secret(bytes.fromhex(vector["key"]["private_key"]))
    key = PrivateSealingKey.from_bytes(Suite(vector["key"]["suite"]), private)
    assert (key.public_key.hex(), key.kid) == (vector["key"]["public_key"], vector["key"]["kid"])
    for place in (vector["record"], vector["release"]):
        plaintext = key.open(bytes.fromhex(place["blob"]), bytes.fromhex(place["info"]))
        assert plaintext.expose().hex() == vector["record"]["salt"] + vector["record"]["material"]


# ---- sealing and opening -----------------------------------------------------------------------


@each_suite
@given(plaintext=st.binary(max_size=300), info=st.binary(max_size=300))
def test_what_was_sealed_opens(suite: Suite, plaintext: bytes, info: bytes) -> None:
    """Every plaintext comes back under the same info, and the blob is longer by exactly the overhead."""
    key: Opener = KEYS[suite]
    blob = seal(suite, KEYS[suite].public_key, plaintext, info)
    assert key.open(blob, info) == Secret(plaintext)
    assert len(blob) - len(plaintext) == overhead(suite) == ENC_BYTES[suite] + 16


@each_suite
def test_sealing_twice_gives_different_blobs(suite: Suite) -> None:
    """Equal plaintexts cannot be recognised by their blobs."""
    key = KEYS[suite]
    assert seal(suite, key.public_key, b"same", b"info") != seal(suite, key.public_key, b"same", b"info")


@each_suite
def test_no_blob_opens_after_any_single_bit_was_changed(suite: Suite) -> None:
    """Every one of the blob's bits counts, those of the encapsulated key included."""
    key = KEYS[suite]
    blob = seal(suite, key.public_key, b"k", b"info")
    for changed in each_bit_flipped(blob):
        with pytest.raises(BlobInvalid):
            key.open(changed, b"info")


@each_suite
def test_no_blob_opens_when_any_single_bit_of_its_info_was_changed(suite: Suite) -> None:
    """Every one of the info's bits counts."""
    key = KEYS[suite]
    info = b"strongroom/test/v1"
    blob = seal(suite, key.public_key, b"k", info)
    for changed in (*each_bit_flipped(info), b"", info[:-1], info + b"\x00"):
        with pytest.raises(BlobInvalid):
            key.open(blob, changed)


@each_suite
def test_every_failure_to_open_reads_the_same(suite: Suite) -> None:
    """Truncation, garbage, wrong info, another key or suite: one message and no cause to tell them apart."""
    key = KEYS[suite]
    other_suite = next(other for other in Suite if other is not suite)
    blob = seal(suite, key.public_key, b"k", b"info")
    low_order = {
        Suite.X_WING: blob[:1088] + bytes(32) + blob[1120:],
        Suite.P256: b"\x04" + bytes(64) + blob[65:],
    }
    attempts = [
        (blob, b"other info"),
        (b"", b"info"),
        (blob[:1], b"info"),
        (blob[: ENC_BYTES[suite]], b"info"),
        (blob[:-1], b"info"),
        (blob + b"\x00", b"info"),
        (b"\xff" * len(blob), b"info"),
        (bytes(len(blob)), b"info"),
        (low_order[suite], b"info"),
        (seal(suite, PrivateSealingKey.generate(suite).public_key, b"k", b"info"), b"info"),
        (seal(other_suite, KEYS[other_suite].public_key, b"k", b"info"), b"info"),
    ]
    messages = set()
    for attempted, info in attempts:
        with pytest.raises(BlobInvalid) as caught:
            key.open(attempted, info)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        messages.add((str(caught.value), caught.value.hint))
    assert messages == {("the blob does not open with this key in this place", None)}


def malformed_public_keys() -> Iterator[tuple[Suite, bytes]]:
    x_wing, point = KEYS[Suite.X_WING].public_key, KEYS[Suite.P256].public_key
    for suite, good in ((Suite.X_WING, x_wing), (Suite.P256, point)):
        yield from ((suite, bad) for bad in (b"", good[:-1], good + b"\x00", b"\xff" * len(good)))
    small_order = (bytes(32), (1).to_bytes(32, "little"), (2**255 - 20).to_bytes(32, "little"))
    yield from ((Suite.X_WING, x_wing[:1184] + bad) for bad in small_order)
    yield Suite.X_WING, b"\xff\xff\xff" + x_wing[3:]
    yield Suite.X_WING, point
    yield Suite.P256, x_wing
    yield Suite.P256, bytes([2 + (point[64] & 1)]) + point[1:33]
    yield Suite.P256, bytes([6 + (point[64] & 1)]) + point[1:]
    yield Suite.P256, b"\x04" + bytes(64)
    yield Suite.P256, point[:64] + bytes([point[64] ^ 1])
    yield Suite.P256, bytes(65)


@pytest.mark.parametrize(("suite", "public_key"), list(malformed_public_keys()))
def test_nothing_is_sealed_to_a_malformed_public_key(suite: Suite, public_key: bytes) -> None:
    """Wrong lengths, coordinates off the curve, other encodings and small-order points are KeyUnknown."""
    with pytest.raises(KeyUnknown):
        seal(suite, public_key, b"k", b"info")


# ---- keys --------------------------------------------------------------------------------------


@each_suite
def test_a_key_survives_its_private_bytes(suite: Suite) -> None:
    """A key made again from its private bytes is the same key and opens the same blobs."""
    key = KEYS[suite]
    again = PrivateSealingKey.from_bytes(suite, key.private_bytes())
    assert (again.suite, again.public_key, again.kid) == (key.suite, key.public_key, key.kid)
    assert again.open(seal(suite, key.public_key, b"k", b"info"), b"info") == Secret(b"k")


@each_suite
def test_generated_keys_differ(suite: Suite) -> None:
    """Two generated keys share neither private bytes nor kid."""
    assert PrivateSealingKey.generate(suite).kid != KEYS[suite].kid
    assert PrivateSealingKey.generate(suite).private_bytes() != KEYS[suite].private_bytes()


def test_keys_have_the_lengths_of_the_specification() -> None:
    """Public keys are 1216 and 65 bytes, private keys 96 and 32."""
    assert {suite: len(key.public_key) for suite, key in KEYS.items()} == {Suite.X_WING: 1216, Suite.P256: 65}
    assert {suite: len(key.private_bytes()) for suite, key in KEYS.items()} == {
        Suite.X_WING: 96,
        Suite.P256: 32,
    }
    assert PUBLIC_KEY_BYTES == {Suite.X_WING: 1216, Suite.P256: 65}


@pytest.mark.parametrize(
    ("suite", "private"),
    [
        (Suite.X_WING, b""),
        (Suite.X_WING, b"S" * 95),
        (Suite.X_WING, b"S" * 97),
        (Suite.P256, b"S" * 31),
        (Suite.P256, bytes(32)),
        (Suite.P256, b"\xff" * 32),
    ],
)
def test_malformed_private_bytes_are_refused_without_being_shown(suite: Suite, private: bytes) -> None:
    """Wrong lengths and scalars out of range are ValueErrors that name the suite and not the bytes."""
    with pytest.raises(ValueError, match=suite.value) as caught:
        PrivateSealingKey.from_bytes(suite, Secret(private))
    assert "SSSS" not in str(caught.value)
    assert caught.value.__cause__ is None


@each_suite
def test_a_kid_is_the_hash_of_label_suite_and_public_key(suite: Suite) -> None:
    """The kid is what SPEC section 3.2 says, worked out here by hand."""
    name = suite.value.encode()
    public_key = KEYS[suite].public_key
    hashed = b"strongroom/sealing-key/v1" + bytes([0, len(name)]) + name + public_key
    assert KEYS[suite].kid == kid(suite, public_key) == hashlib.sha256(hashed).hexdigest()[:32]


def test_a_kid_names_the_suite_too() -> None:
    """The same public key bytes have another kid under another suite."""
    assert kid(Suite.X_WING, b"same") != kid(Suite.P256, b"same")


@each_suite
def test_a_private_key_shows_only_suite_and_kid(suite: Suite) -> None:
    """Neither repr nor str nor format shows private bytes, and pickling and copying are refused."""
    key = KEYS[suite]
    assert repr(key) == str(key) == f"{key}" == f"<PrivateSealingKey {suite.value} {key.kid}>"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither copied nor pickled"):
            leak(key)


# ---- contexts ----------------------------------------------------------------------------------


def test_a_context_is_the_label_and_each_field_with_its_length() -> None:
    """The bytes are those of SPEC section 3.3."""
    assert encode_context(b"label", b"ab", b"", b"\x00") == b"label\x00\x02ab\x00\x00\x00\x01\x00"
    assert encode_context(b"label", b"x" * 258)[5:8] == b"\x01\x02x"


@given(
    one=st.lists(st.binary(max_size=4), max_size=4),
    other=st.lists(st.binary(max_size=4), max_size=4),
)
def test_different_fields_never_give_the_same_context(one: list[bytes], other: list[bytes]) -> None:
    """Contexts are equal exactly when their fields are."""
    assert (encode_context(b"l", *one) == encode_context(b"l", *other)) == (one == other)


@given(fields=st.lists(st.binary(max_size=300), max_size=5))
def test_the_fields_can_be_read_back_from_a_context(fields: list[bytes]) -> None:
    """A context is injective: a reader that knows the label gets exactly the fields back."""
    rest, found = encode_context(b"label", *fields)[5:], []
    while rest:
        length = int.from_bytes(rest[:2], "big")
        found.append(rest[2 : 2 + length])
        rest = rest[2 + length :]
    assert found == fields


def test_a_context_field_is_at_most_65535_bytes() -> None:
    """The largest length fits, one more is refused."""
    assert len(encode_context(b"l", bytes(65535))) == 1 + 2 + 65535
    with pytest.raises(ValueError, match="65535"):
        encode_context(b"l", bytes(65536))


def each_bit_flipped(original: bytes) -> Iterator[bytes]:
    """Give every string that differs from the original in one bit."""
    for position in range(8 * len(original)):
        changed = bytearray(original)
        changed[position // 8] ^= 1 << (position % 8)
        yield bytes(changed)
