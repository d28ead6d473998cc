import copy
import hashlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from strongroom.crypto import signing
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey, key_id, verify
from strongroom.errors import SignatureInvalid

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "ed25519" / "rfc8032.json").read_text())["vectors"]
KEY = SigningKey.from_seed(Secret(b"a seed of thirty-two bytes, fine"))
PRIME = 2**255 - 19
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


# ---- the curve, from RFC 8032 section 5.1, to find its points of small order --------------------------

Point = tuple[int, int]
D = -121665 * pow(121666, -1, PRIME) % PRIME
NEUTRAL: Point = (0, 1)


def add(one: Point, other: Point) -> Point:
    (x1, y1), (x2, y2) = one, other
    product = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, PRIME) % PRIME,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, PRIME) % PRIME,
    )


def multiply(point: Point, factor: int) -> Point:
    result = NEUTRAL
    while factor:
        if factor & 1:
            result = add(result, point)
        point, factor = add(point, point), factor >> 1
    return result


def points() -> Iterator[Point]:
    """Give points of the whole curve, outside the prime-order group too."""
    for y in range(2, 60):
        square = (y * y - 1) * pow(D * y * y + 1, -1, PRIME) % PRIME
        root = pow(square, (PRIME + 3) // 8, PRIME)
        for x in (root, root * pow(2, (PRIME - 1) // 4, PRIME) % PRIME):
            if x * x % PRIME == square:
                yield x, y


def small_order_points() -> set[Point]:
    return {multiply(point, GROUP_ORDER) for point in points()}


def test_the_refused_coordinates_are_those_of_the_eight_points_of_small_order() -> None:
    """Multiplying curve points by the group order leaves exactly the eight points whose y is refused."""
    found = small_order_points()
    assert all(multiply(point, 8) == NEUTRAL for point in found)
    assert len(found) == 8
    assert {y for _, y in found} == signing._SMALL_ORDER_Y


# ---- signatures --------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_the_published_vectors_hold(vector: dict[str, str]) -> None:
    """Public key and signature of RFC 8032 section 7.1 come out of seed and message, and verify."""
    key = SigningKey.from_seed(Secret(bytes.fromhex(vector["seed"])))
    message = bytes.fromhex(vector["message"])
    assert key.public_key.hex() == vector["public_key"]
    assert key.sign(message).hex() == vector["signature"]
    verify(key.public_key, message, bytes.fromhex(vector["signature"]))


@given(message=st.binary(max_size=500))
def test_a_signature_verifies_under_its_own_key_only(message: bytes) -> None:
    """Any message's signature holds under its key and under no other."""
    signature = KEY.sign(message)
    verify(KEY.public_key, message, signature)
    with pytest.raises(SignatureInvalid):
        verify(SigningKey.generate().public_key, message, signature)


def test_no_signature_holds_after_any_single_bit_was_changed() -> None:
    """Every bit of signature, message and public key counts."""
    message = b"message"
    signature = KEY.sign(message)
    for changed in each_bit_flipped(signature):
        with pytest.raises(SignatureInvalid):
            verify(KEY.public_key, message, changed)
    for changed in each_bit_flipped(message):
        with pytest.raises(SignatureInvalid):
            verify(KEY.public_key, changed, signature)
    for changed in each_bit_flipped(KEY.public_key):
        with pytest.raises(SignatureInvalid):
            verify(changed, message, signature)


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    """A signature is 64 bytes; a prefix or an extension is SignatureInvalid and says so."""
    signature = (KEY.sign(b"m") * 2)[:length]
    with pytest.raises(SignatureInvalid, match=f"64 bytes, this one {length}"):
        verify(KEY.public_key, b"m", signature)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_public_key_of_another_length_is_refused(length: int) -> None:
    """A public key is 32 bytes; a prefix or an extension is SignatureInvalid and says so."""
    with pytest.raises(SignatureInvalid, match=f"32 bytes, this one {length}"):
        verify((KEY.public_key * 2)[:length], b"m", KEY.sign(b"m"))


def test_a_public_key_off_the_curve_is_refused() -> None:
    """A y coordinate without a point gives no valid key."""
    on_curve = {y for _, y in points()}
    off_curve = next(y for y in range(2, 60) if y not in on_curve)
    with pytest.raises(SignatureInvalid):
        verify(off_curve.to_bytes(32, "little"), b"m", KEY.sign(b"m"))


def test_public_keys_of_small_order_are_refused() -> None:
    """Under the neutral point one signature holds for every message with the bare library, and for none here."""
    neutral = (1).to_bytes(32, "little")
    forged = neutral + bytes(32)
    for message in (b"one", b"two"):
        Ed25519PublicKey.from_public_bytes(neutral).verify(forged, message)
    for _, y in small_order_points():
        for sign in (0, 1):
            with pytest.raises(SignatureInvalid, match="small order"):
                verify((y | sign << 255).to_bytes(32, "little"), b"one", forged)


@pytest.mark.parametrize("excess", range(19))
def test_public_keys_that_are_not_canonical_are_refused(excess: int) -> None:
    """A coordinate of the prime or more is a second spelling of another key, and is not read."""
    for sign in (0, 1):
        with pytest.raises(SignatureInvalid, match="canonical"):
            verify((PRIME + excess | sign << 255).to_bytes(32, "little"), b"m", KEY.sign(b"m"))


def test_a_signature_cannot_be_spelt_a_second_way() -> None:
    """Adding the group order to S would be another valid signature without RFC 8032's range check."""
    signature = KEY.sign(b"m")
    scalar = int.from_bytes(signature[32:], "little") + GROUP_ORDER
    with pytest.raises(SignatureInvalid):
        verify(KEY.public_key, b"m", signature[:32] + scalar.to_bytes(32, "little"))


# ---- keys --------------------------------------------------------------------------------------


def test_a_key_survives_its_seed() -> None:
    """A key made again from its seed is the same key."""
    key = SigningKey.generate()
    again = SigningKey.from_seed(key.seed())
    assert (again.public_key, again.key_id, again.sign(b"m")) == (key.public_key, key.key_id, key.sign(b"m"))
    assert len(key.seed()) == 32
    assert len(key.public_key) == 32


def test_generated_keys_differ() -> None:
    """Two generated keys are two keys."""
    assert SigningKey.generate().public_key != SigningKey.generate().public_key


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    """A seed is 32 bytes; the error names the length and not the bytes."""
    with pytest.raises(ValueError, match=f"32 bytes, this one {length}") as caught:
        SigningKey.from_seed(Secret(b"S" * length))
    assert "SSSS" not in str(caught.value)


def test_a_key_id_is_the_hash_of_label_and_public_key() -> None:
    """The key id is what SPEC section 1.4 says."""
    digest = hashlib.sha256(b"strongroom/signing-key/v1" + KEY.public_key).hexdigest()
    assert KEY.key_id == key_id(KEY.public_key) == digest[:32]


def test_a_signing_key_shows_only_its_id() -> None:
    """Neither repr nor str nor format shows the seed, and pickling and copying are refused."""
    assert repr(KEY) == str(KEY) == f"{KEY}" == f"<SigningKey {KEY.key_id}>"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither copied nor pickled"):
            leak(KEY)


def each_bit_flipped(original: bytes) -> Iterator[bytes]:
    """Give every string that differs from the original in one bit."""
    for position in range(8 * len(original)):
        changed = bytearray(original)
        changed[position // 8] ^= 1 << (position % 8)
        yield bytes(changed)
