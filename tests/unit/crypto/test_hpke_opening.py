"""The opening of a blob around a foreign Diffie-Hellman, against published figures and against the library."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from strongroom.crypto.hpke_opening import is_point, kem_secret, key_schedule, open_with
from strongroom.crypto.sealing import PrivateSealingKey, Suite, overhead, seal
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, KeyDeviceUnavailable

# RFC 9180 appendix A.3.1: DHKEM(P-256, HKDF-SHA256), HKDF-SHA256, AES-128-GCM, base mode.
INFO = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
ENC = bytes.fromhex(
    "04a92719c6195d5085104f469a8b9814d5838ff72b60501e2c4466e5e67b325ac9"
    "8536d7b61a1af4b78e5b7f951c0900be863c403ce65c9bfcb9382657222d18c4"
)
PUBLIC = bytes.fromhex(
    "04fe8c19ce0905191ebc298a9245792531f26f0cece2460639e8bc39cb7f706a82"
    "6a779b4cf969b8a0e539c7f62fb3d30ad6aa8f80e30f1d128aafd68a2ce72ea0"
)
PRIVATE = Secret(bytes.fromhex("f3ce7fdae57e1a310d87f1ebbde6f328be0a99cdbcadf4d6589cf29de4b8ffd2"))
SHARED_SECRET = Secret(bytes.fromhex("c0d26aeab536609a572b07695d933b589dcf363ff9d93c93adea537aeabb8cb8"))
KEY = Secret(bytes.fromhex("868c066ef58aae6dc589b6cfdd18f97e"))
BASE_NONCE = Secret(bytes.fromhex("4e0bc5018beba4bf004cca59"))
AES_128_GCM = bytes.fromhex("0001")

KEY_PAIR = PrivateSealingKey.from_bytes(Suite.P256, PRIVATE)


def ecdh(point: bytes) -> Secret:
    """Do what a token does."""
    private = ec.derive_private_key(int.from_bytes(PRIVATE.expose(), "big"), ec.SECP256R1())
    return Secret(private.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)))


def never(point: bytes) -> Secret:
    """Be asked for nothing."""
    pytest.fail(f"asked for {point.hex()}")


def test_the_kem_gives_the_published_secret() -> None:
    """The key pair is that of the RFC, and so is what both sides share."""
    assert KEY_PAIR.public_key == PUBLIC
    assert kem_secret(ecdh(ENC), ENC, PUBLIC) == SHARED_SECRET


def test_the_key_schedule_gives_the_published_key_and_nonce() -> None:
    """With the number and key length of the cipher for which figures are published."""
    assert key_schedule(SHARED_SECRET, INFO, aead=AES_128_GCM, key_bytes=16) == (KEY, BASE_NONCE)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_what_the_library_seals_is_opened(material: bytes, info: bytes) -> None:
    """Both give the same plaintext."""
    blob = seal(Suite.P256, PUBLIC, material, info)
    assert open_with(ecdh, PUBLIC, blob, info) == KEY_PAIR.open(blob, info) == Secret(material)


@given(st.binary(max_size=200), st.data())
def test_every_change_is_refused_as_the_library_refuses_it(material: bytes, data: st.DataObject) -> None:
    """A flipped bit anywhere, in the point, the ciphertext or the tag; one message."""
    blob = bytearray(seal(Suite.P256, PUBLIC, material, INFO))
    position = data.draw(st.integers(0, 8 * len(blob) - 1))
    blob[position // 8] ^= 1 << position % 8
    with pytest.raises(BlobInvalid) as caught:
        open_with(ecdh, PUBLIC, bytes(blob), INFO)
    with pytest.raises(BlobInvalid) as expected:
        KEY_PAIR.open(bytes(blob), INFO)
    assert str(caught.value) == str(expected.value)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_blob_are_refused(blob: bytes) -> None:
    """Nothing but BlobInvalid comes of them."""
    with pytest.raises(BlobInvalid):
        open_with(ecdh, PUBLIC, blob, INFO)


def test_the_private_key_is_never_given_a_point_off_the_curve() -> None:
    """It would answer with parts of itself."""
    good = seal(Suite.P256, PUBLIC, b"x", INFO)
    off = good[:64] + bytes([good[64] ^ 1]) + good[65:]
    compressed = bytes([2 + good[64] % 2]) + good[1:33]
    for blob in (
        off,
        bytes(len(good)),
        compressed + bytes(60),
        bytes([6 + good[64] % 2]) + good[1:],
        good[:80],
        b"",
    ):
        with pytest.raises(BlobInvalid):
            open_with(never, PUBLIC, blob, INFO)
        assert not is_point(blob[:65]) or len(blob) < overhead(Suite.P256)


def test_what_the_device_raises_leaves_as_it_is() -> None:
    """Trouble with the device says nothing about the blob."""

    def gone(_point: bytes) -> Secret:
        raise KeyDeviceUnavailable("gone")

    with pytest.raises(KeyDeviceUnavailable):
        open_with(gone, PUBLIC, seal(Suite.P256, PUBLIC, b"x", INFO), INFO)
