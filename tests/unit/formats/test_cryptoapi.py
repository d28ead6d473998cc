"""Key blobs of CryptoAPI: what another implementation made is read and written alike, and nothing else is read."""

import re
import struct
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from random import Random

import pytest
from cryptography.hazmat.decrepit.ciphers import algorithms as old
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cryptoapi import OWN_PRIVATE, OWN_PUBLIC, PUBLIC, WRAPPED, Wrapped, authority_key

from strongroom.crypto.rsa import RSA_BITS_MAX, Padding, PrivateRsaKey, RsaPrivateNumbers, RsaPublicKey
from strongroom.crypto.secret import Secret
from strongroom.errors import BlobInvalid, LimitExceeded, MalformedStatement, PermanentError
from strongroom.formats.alg_id import RsaUse, SessionAlgorithm
from strongroom.formats.cryptoapi import (
    KEY_BLOB_BYTES_MAX,
    RSA_BITS_LEGACY_MIN,
    KeyBlob,
    PlaintextKeyBlob,
    PrivateKeyBlob,
    PublicKeyBlob,
    SimpleBlob,
    parse_key_blob,
)

UNTIMED = settings(deadline=None)  # a busy machine is no failure
EVERY = pytest.mark.parametrize("wrapped", WRAPPED, ids=lambda each: each.label)
PKCS1 = [each for each in WRAPPED if each.padding is Padding.PKCS1]
OAEP = [each for each in WRAPPED if each.padding is Padding.OAEP]
AES_256 = next(each for each in PKCS1 if each.algorithm is SessionAlgorithm.AES_256)
SAMPLES = {
    "SIMPLEBLOB": AES_256.simple,
    "PUBLICKEYBLOB": PUBLIC,
    "PRIVATEKEYBLOB": OWN_PRIVATE,
    "PLAINTEXTKEYBLOB": AES_256.plaintext,
}
SELF_CONTAINED = {kind: blob for kind, blob in SAMPLES.items() if kind != "SIMPLEBLOB"}
ALG_IDS = [*SessionAlgorithm, *RsaUse]


def parse(blob: bytes) -> KeyBlob:
    return parse_key_blob(Secret(blob))


def encoded(blob: KeyBlob) -> bytes:
    written = blob.encode()
    return written.expose() if isinstance(written, Secret) else written


def refused(blob: bytes, words: str, error: type[PermanentError] = MalformedStatement) -> None:
    with pytest.raises(error, match=words) as caught:
        parse(blob)
    # An error that hangs on another one would bring the words of that one into a log.
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def replaced(blob: bytes, offset: int, new: bytes) -> bytes:
    return blob[:offset] + new + blob[offset + len(new) :]


def flipped(blob: bytes, bit: int) -> bytes:
    return replaced(blob, bit // 8, bytes([blob[bit // 8] ^ 1 << bit % 8]))


def session_key(algorithm: SessionAlgorithm) -> PlaintextKeyBlob:
    return PlaintextKeyBlob(algorithm, Secret(bytes(range(1, algorithm.key_bytes[-1] + 1))))


def own_numbers() -> RsaPrivateNumbers:
    return PrivateKeyBlob.parse(Secret(OWN_PRIVATE)).key


# ---- what another implementation made ----------------------------------------------------------


@EVERY
def test_a_simple_blob_gives_the_key_that_was_exported_beside_it(wrapped: Wrapped) -> None:
    """Both paddings, every algorithm; read and written back byte for byte."""
    blob = SimpleBlob.parse(wrapped.simple)
    assert blob.encode() == wrapped.simple
    opened = blob.open(authority_key(), wrapped.padding)
    assert opened.algorithm is wrapped.algorithm
    assert opened.encode().expose() == wrapped.plaintext
    assert PlaintextKeyBlob.parse(Secret(wrapped.plaintext)) == opened


@EVERY
def test_the_key_of_a_simple_blob_decrypts_what_was_encrypted_with_it(wrapped: Wrapped) -> None:
    """The bytes of the key stand in the order in which ciphers take them."""
    key = SimpleBlob.parse(wrapped.simple).open(authority_key(), wrapped.padding).key.expose()
    ciphers: dict[SessionAlgorithm, Callable[[], Cipher[modes.CBC] | Cipher[None]]] = {
        SessionAlgorithm.RC4: lambda: Cipher(old.ARC4(key), None),
        SessionAlgorithm.RC2: lambda: Cipher(old.RC2(key), modes.CBC(bytes(8))),
        SessionAlgorithm.DES: lambda: Cipher(old.TripleDES(key * 3), modes.CBC(bytes(8))),
        SessionAlgorithm.TRIPLE_DES: lambda: Cipher(old.TripleDES(key), modes.CBC(bytes(8))),
    }
    cipher = ciphers.get(wrapped.algorithm, lambda: Cipher(algorithms.AES(key), modes.CBC(bytes(16))))()
    assert cipher.decryptor().update(wrapped.encrypted).startswith(wrapped.data)


def test_the_public_key_of_the_authority_is_read_and_written_back() -> None:
    """It is the public half of the private key in the vectors."""
    blob = PublicKeyBlob.parse(PUBLIC)
    assert blob.key == authority_key().public_key
    assert blob.key.exponent == 65537
    assert blob.use is RsaUse.EXCHANGE
    assert blob.encode() == PUBLIC


def test_a_key_pair_is_read_written_back_and_usable() -> None:
    """What is wrapped for its public blob opens with its private blob; both have the same modulus."""
    pair, public = PrivateKeyBlob.parse(Secret(OWN_PRIVATE)), PublicKeyBlob.parse(OWN_PUBLIC)
    assert pair.encode().expose() == OWN_PRIVATE
    assert pair.key.public == public.key
    key = pair.load()
    assert key.numbers() == pair.key
    session = session_key(SessionAlgorithm.AES_256)
    for padding in Padding:
        assert SimpleBlob.seal(session, public, padding).open(key, padding) == session


@pytest.mark.parametrize("algorithm", SessionAlgorithm)
@pytest.mark.parametrize("padding", Padding)
def test_what_is_sealed_opens_by_the_rules_of_the_format(algorithm: SessionAlgorithm, padding: Padding) -> None:
    """Header, reversed ciphertext, and for PKCS #1 v1.5 the block itself, computed with bare integers."""
    session = session_key(algorithm)
    blob = SimpleBlob.seal(session, PublicKeyBlob.parse(PUBLIC), padding).encode()
    assert blob[:12] == struct.pack("<BBHII", 1, 2, 0, algorithm, 0xA400)
    assert len(blob) == 12 + 256
    assert SimpleBlob.parse(blob).open(authority_key(), padding) == session
    numbers = authority_key().numbers()
    exponent = int.from_bytes(numbers.private_exponent.expose(), "big")
    block = pow(int.from_bytes(blob[12:], "little"), exponent, numbers.public.modulus).to_bytes(256, "big")
    if padding is Padding.PKCS1:
        assert block[:2] == b"\x00\x02"
        filler, zero, key = block[2:].partition(b"\x00")
        assert (len(filler), zero, key) == (253 - len(session.key), b"\x00", session.key.expose())
    else:
        assert block[0] == 0


def test_two_blobs_of_one_key_differ() -> None:
    """Padding is random."""
    session, public = session_key(SessionAlgorithm.AES_128), PublicKeyBlob.parse(PUBLIC)
    for padding in Padding:
        assert SimpleBlob.seal(session, public, padding) != SimpleBlob.seal(session, public, padding)


@UNTIMED
@given(st.sampled_from(list(SessionAlgorithm)), st.data())
def test_every_session_key_survives_writing_and_reading(algorithm: SessionAlgorithm, data: st.DataObject) -> None:
    """Of every algorithm and length, whatever its parity."""
    size = data.draw(st.sampled_from(algorithm.key_bytes))
    blob = PlaintextKeyBlob(algorithm, Secret(data.draw(st.binary(min_size=size, max_size=size))))
    assert PlaintextKeyBlob.parse(blob.encode()) == blob
    assert parse_key_blob(blob.encode()) == blob


@UNTIMED
@given(
    st.sampled_from(list(RsaUse)),
    st.integers(256, RSA_BITS_MAX // 8),
    st.integers(1, 2**31 - 1).map(lambda half: 2 * half + 1),
    st.randoms(use_true_random=False),
)
def test_every_public_key_survives_writing_and_reading(
    use: RsaUse, size: int, exponent: int, random: Random
) -> None:
    """Of every length that is a whole number of bytes."""
    modulus = random.getrandbits(8 * size) | 1 << 8 * size - 1 | 1
    blob = PublicKeyBlob(use, RsaPublicKey(modulus, exponent))
    assert len(blob.encode()) == 20 + size
    assert PublicKeyBlob.parse(blob.encode()) == blob


@UNTIMED
@given(st.sampled_from(list(SessionAlgorithm)), st.binary(min_size=48, max_size=RSA_BITS_MAX // 8))
def test_every_simple_blob_survives_writing_and_reading(algorithm: SessionAlgorithm, ciphertext: bytes) -> None:
    """Whatever its ciphertext, which is reversed in the blob."""
    blob = SimpleBlob(algorithm, ciphertext)
    assert blob.encode().endswith(ciphertext[::-1])
    assert SimpleBlob.parse(blob.encode()) == blob


# ---- damage of any kind ------------------------------------------------------------------------


def judged(blob: bytes) -> KeyBlob | None:
    """Read a blob, or see it refused with one of two errors; what is read is written back as it was."""
    try:
        found = parse_key_blob(Secret(blob), rsa_bits_min=RSA_BITS_LEGACY_MIN)
    except (MalformedStatement, LimitExceeded):
        return None
    assert encoded(found) == blob
    return found


@UNTIMED
@given(st.binary(max_size=400))
def test_noise_is_refused_or_written_back_as_it_was(blob: bytes) -> None:
    """No other error, whatever the bytes."""
    judged(blob)


@UNTIMED
@given(st.sampled_from(list(SAMPLES.values())), st.data())
def test_a_changed_blob_is_refused_or_written_back_as_it_was(blob: bytes, data: st.DataObject) -> None:
    """Nothing is read that does not matter: two different blobs never mean the same."""
    offset = data.draw(st.integers(0, len(blob)))
    cut = data.draw(st.integers(0, 8))
    judged(blob[:offset] + data.draw(st.binary(max_size=8)) + blob[offset + cut :])


@UNTIMED
@given(
    st.sampled_from([1, 6, 7, 8]),
    st.sampled_from(ALG_IDS),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=1200),
)
def test_any_content_behind_a_good_header_is_refused_or_written_back(
    kind: int, algorithm: int, number: int, rest: bytes
) -> None:
    """Deeper than noise gets."""
    judged(struct.pack("<BBHII", kind, 2, 0, algorithm, number) + rest)


@pytest.mark.parametrize("kind", SELF_CONTAINED)
def test_every_truncation_is_refused(kind: str) -> None:
    """At every length, by name of the field or as a whole."""
    blob = SELF_CONTAINED[kind]
    for size in range(len(blob)):
        refused(blob[:size], f"^{kind}: length|^key blob: is {size} bytes")


@UNTIMED
@given(st.integers(0, len(AES_256.simple) - 1), st.sampled_from([*PKCS1, *OAEP]))
def test_a_truncated_simple_blob_does_not_open(size: int, wrapped: Wrapped) -> None:
    """It may look like a blob for a shorter RSA key; with this one it is refused for everybody to see."""
    try:
        blob = SimpleBlob.parse(wrapped.simple[:size])
    except MalformedStatement:
        return
    with pytest.raises(BlobInvalid, match=r"wrapped key: has .* bytes; with this RSA key it has 256"):
        blob.open(authority_key(), wrapped.padding)


@pytest.mark.parametrize("kind", SELF_CONTAINED)
@pytest.mark.parametrize("more", [b"\0", bytes(8), b"\xff" * 100])
def test_nothing_may_stand_after_the_end(kind: str, more: bytes) -> None:
    """Not even zeros."""
    refused(SELF_CONTAINED[kind] + more, f"^{kind}: length: is .* bytes; by its fields it has")


@UNTIMED
@given(st.binary(min_size=1, max_size=64), st.sampled_from([*PKCS1, *OAEP]))
def test_an_extended_simple_blob_does_not_open(more: bytes, wrapped: Wrapped) -> None:
    """The ciphertext is longer than the modulus then."""
    with pytest.raises(BlobInvalid, match="wrapped key: has"):
        SimpleBlob.parse(wrapped.simple + more).open(authority_key(), wrapped.padding)


@UNTIMED
@given(st.integers(0, 8 * len(OWN_PRIVATE) - 1))
def test_a_flipped_bit_of_a_private_key_is_refused(bit: int) -> None:
    """Each number has but one value that fits the others; only the use of the key stands alone."""
    blob = flipped(OWN_PRIVATE, bit)
    if bit == 8 * 5 + 7:  # 0xa400 to 0x2400
        assert PrivateKeyBlob.parse(Secret(blob)).use is RsaUse.SIGNATURE
    else:
        assert judged(blob) is None


@pytest.mark.parametrize("bit", [bit for bit in range(8 * 12) if bit != 8 * 5 + 7])
def test_a_flipped_bit_before_the_numbers_of_a_public_key_is_refused(bit: int) -> None:
    """Header and magic."""
    assert judged(flipped(PUBLIC, bit)) is None


@pytest.mark.parametrize("bit", range(8 * 12))
def test_a_flipped_bit_before_the_key_of_a_plaintext_blob_is_refused(bit: int) -> None:
    """Header and length."""
    assert judged(flipped(AES_256.plaintext, bit)) is None


@UNTIMED
@given(st.integers(8 * 12, 8 * len(OAEP[0].simple) - 1), st.sampled_from(OAEP))
def test_a_flipped_bit_of_an_oaep_ciphertext_keeps_it_shut(bit: int, wrapped: Wrapped) -> None:
    """OAEP notices every change; where the number is too large, everybody may see it."""
    with pytest.raises(BlobInvalid, match=r"does not open|is not below the modulus"):
        SimpleBlob.parse(flipped(wrapped.simple, bit)).open(authority_key(), Padding.OAEP)


@UNTIMED
@given(st.integers(8 * 12, 8 * len(PKCS1[0].simple) - 1), st.sampled_from(PKCS1))
def test_a_flipped_bit_of_a_v15_ciphertext_gives_another_key_without_a_word(bit: int, wrapped: Wrapped) -> None:
    """Of a length that the algorithm has, the same each time; only a number above the modulus is refused."""
    blob = SimpleBlob.parse(flipped(wrapped.simple, bit))
    if int.from_bytes(blob.ciphertext, "big") >= authority_key().public_key.modulus:
        with pytest.raises(BlobInvalid, match="is not below the modulus"):
            blob.open(authority_key(), Padding.PKCS1)
        return
    opened = blob.open(authority_key(), Padding.PKCS1)
    assert len(opened.key) in wrapped.algorithm.key_bytes
    assert opened.encode().expose() != wrapped.plaintext
    assert opened == blob.open(authority_key(), Padding.PKCS1)


@pytest.mark.parametrize("wrapped", PKCS1, ids=lambda each: each.label)
def test_a_v15_blob_that_is_marked_oaep_does_not_open(wrapped: Wrapped) -> None:
    """The padding is never guessed."""
    with pytest.raises(BlobInvalid, match="does not open"):
        SimpleBlob.parse(wrapped.simple).open(authority_key(), Padding.OAEP)


@pytest.mark.parametrize("wrapped", OAEP, ids=lambda each: each.label)
def test_an_oaep_blob_that_is_marked_v15_gives_another_key_without_a_word(wrapped: Wrapped) -> None:
    """So the padding has to be kept beside the blob, and what comes out be compared."""
    opened = SimpleBlob.parse(wrapped.simple).open(authority_key(), Padding.PKCS1)
    assert len(opened.key) in wrapped.algorithm.key_bytes
    assert opened.encode().expose() != wrapped.plaintext


# ---- one field after the other -----------------------------------------------------------------


@pytest.mark.parametrize("kind", SAMPLES)
def test_only_version_2_and_reserved_0_are_read(kind: str) -> None:
    """By name of blob and field."""
    for version in (0, 1, 3, 255):
        refused(replaced(SAMPLES[kind], 1, bytes([version])), f"^{kind}: bVersion: is {version}, must be 2")
    for reserved in (b"\1\0", b"\0\1"):
        refused(replaced(SAMPLES[kind], 2, reserved), f"^{kind}: reserved: is 0x0.0.")


@pytest.mark.parametrize(
    ("type_", "name"),
    [
        (0x0, "no type of a key blob"),
        (0x9, "OPAQUEKEYBLOB"),
        (0xA, "PUBLICKEYBLOBEX"),
        (0xB, "SYMMETRICWRAPKEYBLOB"),
        (0xC, "KEYSTATEBLOB"),
        (0xFF, "no type of a key blob"),
    ],
)
def test_other_types_of_blobs_are_refused_by_name(type_: int, name: str) -> None:
    """Including those that CryptoAPI has besides."""
    refused(
        replaced(PUBLIC, 0, bytes([type_])), rf"^key blob: bType: is 0x{type_:02x} \({name}\); must be one of SIM"
    )


def test_a_blob_of_one_type_is_not_read_as_another() -> None:
    """Whoever asks for a public key gets no private one."""
    readers: dict[str, Callable[[bytes], KeyBlob]] = {
        "SIMPLEBLOB": SimpleBlob.parse,
        "PUBLICKEYBLOB": PublicKeyBlob.parse,
        "PRIVATEKEYBLOB": lambda blob: PrivateKeyBlob.parse(Secret(blob)),
        "PLAINTEXTKEYBLOB": lambda blob: PlaintextKeyBlob.parse(Secret(blob)),
    }
    for wanted, read in readers.items():
        for kind, blob in SAMPLES.items():
            if kind == wanted:
                assert encoded(read(blob)) == blob
            else:
                with pytest.raises(MalformedStatement, match=rf"^{wanted}: bType: is 0x0. \({kind}\)"):
                    read(blob)


@pytest.mark.parametrize("kind", SAMPLES)
@UNTIMED
@given(st.integers(0, 2**32 - 1) | st.sampled_from(ALG_IDS))
def test_an_algorithm_of_the_wrong_kind_is_refused(kind: str, algorithm: int) -> None:
    """Session keys have symmetric algorithms, RSA keys an RSA one, and a length that suits it."""
    original = struct.unpack_from("<I", SAMPLES[kind], 4)[0]
    blob = replaced(SAMPLES[kind], 4, struct.pack("<I", algorithm))
    is_rsa = kind in {"PUBLICKEYBLOB", "PRIVATEKEYBLOB"}
    # A SIMPLEBLOB does not show the length of its key.
    allowed = list(RsaUse) if is_rsa else list(SessionAlgorithm) if kind == "SIMPLEBLOB" else [original]
    if algorithm in allowed:
        assert encoded(parse(blob)) == blob
    else:
        refused(blob, f"^{kind}: (aiKeyAlg: is 0x{algorithm:08x}|dwKeySize)")


def test_algorithms_have_the_numbers_of_wincrypt() -> None:
    """And the lengths of their keys, in bytes."""
    assert {each.label: (each.value, list(each.key_bytes)) for each in SessionAlgorithm} == {
        "DES": (0x6601, [8]),
        "RC2": (0x6602, list(range(5, 17))),
        "3DES": (0x6603, [24]),
        "3DES-112": (0x6609, [16]),
        "AES-128": (0x660E, [16]),
        "AES-192": (0x660F, [24]),
        "AES-256": (0x6610, [32]),
        "RC4": (0x6801, list(range(5, 17))),
    }
    assert (RsaUse.SIGNATURE, RsaUse.EXCHANGE) == (0x2400, 0xA400)


def test_aes_without_a_length_is_no_algorithm_of_a_blob() -> None:
    """CALG_AES, 0x6611."""
    refused(replaced(AES_256.plaintext, 4, struct.pack("<I", 0x6611)), "aiKeyAlg: is 0x00006611")


@UNTIMED
@given(st.integers(0, 2**32 - 1).filter(lambda wrapping: wrapping != 0xA400))
def test_a_simple_blob_names_rsa_key_exchange_as_its_wrapping(wrapping: int) -> None:
    """Neither a signature key nor a session key nor anything else."""
    refused(replaced(AES_256.simple, 8, struct.pack("<I", wrapping)), f"^SIMPLEBLOB: algid: is 0x{wrapping:08x}")


@pytest.mark.parametrize("size", [0, 1, 47, RSA_BITS_MAX // 8 + 1])
def test_a_ciphertext_of_a_length_that_no_rsa_key_has_is_refused(size: int) -> None:
    """Shorter than the shortest or longer than the longest."""
    with pytest.raises(MalformedStatement, match=f"^SIMPLEBLOB: encryptedKey: is {size} bytes, must be 48 to 1024"):
        SimpleBlob(SessionAlgorithm.AES_128, bytes(size))


@UNTIMED
@given(st.integers(0, 2**32 - 1).filter(lambda size: size != 32))
def test_a_misdeclared_key_length_is_refused(size: int) -> None:
    """However long the blob is."""
    refused(replaced(AES_256.plaintext, 8, struct.pack("<I", size)), "^PLAINTEXTKEYBLOB: length")


@pytest.mark.parametrize("algorithm", SessionAlgorithm)
def test_a_key_of_a_length_that_its_algorithm_does_not_have_is_refused(algorithm: SessionAlgorithm) -> None:
    """Also when blob and length agree; the message names the limit."""
    for size in {0, algorithm.key_bytes[0] - 1, algorithm.key_bytes[-1] + 1, 64}:
        blob = struct.pack("<BBHII", 8, 2, 0, algorithm, size) + bytes(size)
        refused(
            blob, f"^PLAINTEXTKEYBLOB: dwKeySize: is {size} bytes; {re.escape(algorithm.label)} keys have [0-9]"
        )


@pytest.mark.parametrize("parity", [bytes(8), bytes([1] * 8), bytes(range(8))])
def test_des_keys_are_read_whatever_their_parity(parity: bytes) -> None:
    """Some implementations set it and some do not."""
    key = PlaintextKeyBlob(SessionAlgorithm.DES, Secret(parity))
    assert PlaintextKeyBlob.parse(key.encode()).key.expose() == parity


@pytest.mark.parametrize("kind", ["PUBLICKEYBLOB", "PRIVATEKEYBLOB"])
@UNTIMED
@given(st.binary(min_size=4, max_size=4))
def test_a_wrong_magic_is_refused(kind: str, magic: bytes) -> None:
    """That of the other type, too."""
    blob = replaced(SAMPLES[kind], 8, magic)
    if blob == SAMPLES[kind]:
        return
    refused(blob, f"^{kind}: magic: is 0x[0-9a-f]{{8}}, must be 0x3[12]415352")


def test_the_magic_of_the_other_type_is_refused() -> None:
    """RSA1 is public, RSA2 private; noise after the header of a private key is explained."""
    refused(replaced(PUBLIC, 8, b"RSA2"), "^PUBLICKEYBLOB: magic: is 0x32415352, must be 0x31415352$")
    refused(
        replaced(OWN_PRIVATE, 8, b"RSA1"), "^PRIVATEKEYBLOB: magic: .* must be 0x32415352; is the key encrypted"
    )


@pytest.mark.parametrize("kind", ["PUBLICKEYBLOB", "PRIVATEKEYBLOB"])
@UNTIMED
@given(st.integers(0, 2**32 - 1).filter(lambda bits: bits != 2048))
def test_a_misdeclared_modulus_length_is_refused(kind: str, bits: int) -> None:
    """Outside the limits by their names, inside them by the length of the blob or of the modulus."""
    blob = replaced(SAMPLES[kind], 12, struct.pack("<I", bits))
    if 2048 <= bits <= RSA_BITS_MAX:
        refused(blob, f"^{kind}: (length|modulus: has 2048 bits, must have the {bits} of bitlen)")
    else:
        refused(
            blob, f"^{kind}: bitlen: is {bits} bits; allowed are RSA_BITS_MIN 2048 to RSA_BITS_MAX", LimitExceeded
        )


def test_a_short_modulus_is_read_only_on_demand() -> None:
    """1,024 bits, for a look; a blob of them says so itself."""
    blob = PublicKeyBlob(RsaUse.EXCHANGE, RsaPublicKey(1 << 1023 | 1, 65537))
    refused(blob.encode(), "^PUBLICKEYBLOB: bitlen: is 1024 bits; allowed are RSA_BITS_MIN 2048", LimitExceeded)
    assert PublicKeyBlob.parse(blob.encode(), rsa_bits_min=1024) == blob
    assert parse_key_blob(Secret(blob.encode()), rsa_bits_min=1024) == blob


def test_a_modulus_must_have_every_bit_that_is_declared() -> None:
    """Leading zeros would let two blobs mean one key."""
    refused(replaced(PUBLIC, 275, b"\x01"), "^PUBLICKEYBLOB: modulus: has 2041 bits, must have the 2048 of bitlen")
    refused(PUBLIC[:20] + bytes(256), "^PUBLICKEYBLOB: modulus: has 0 bits")


def test_an_even_modulus_is_refused() -> None:
    """It is no product of two odd primes."""
    even = bytes([PUBLIC[20] & 0xFE])
    refused(replaced(PUBLIC, 20, even), "^PUBLICKEYBLOB: modulus: is even")
    refused(replaced(OWN_PRIVATE, 20, even), "^PRIVATEKEYBLOB: modulus: is even")


@pytest.mark.parametrize("exponent", [0, 1, 2, 4, 65536, 2**32 - 2])
def test_an_exponent_that_no_rsa_key_has_is_refused(exponent: int) -> None:
    """Even, or below 3."""
    blob = replaced(PUBLIC, 16, struct.pack("<I", exponent))
    refused(blob, f"^PUBLICKEYBLOB: pubexp: is {exponent}, must be odd, at least 3")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (RsaPublicKey(1 << 2048 | 1, 65537), "bitlen: is 2049 bits, must be 384 to 8192 bits and a multiple of 8"),
        (RsaPublicKey(1 << 375 | 1, 65537), "bitlen: is 376 bits"),
        (RsaPublicKey(1 << RSA_BITS_MAX + 7 | 1, 65537), "bitlen: is 8200 bits"),
        (RsaPublicKey(1 << 2047, 65537), "modulus: is even"),
        (RsaPublicKey(1 << 2047 | 1, 2**32 + 1), "pubexp: is 4294967297, must be odd, at least 3 and below"),
        (RsaPublicKey(1 << 2047 | 1, 1), "pubexp: is 1"),
    ],
)
def test_nothing_is_written_that_could_not_be_read(key: RsaPublicKey, words: str) -> None:
    """A public key that no blob can hold is refused before."""
    with pytest.raises(MalformedStatement, match=f"^PUBLICKEYBLOB: {words}"):
        PublicKeyBlob(RsaUse.EXCHANGE, key)


def test_the_longest_blob_is_read_and_a_longer_one_is_not() -> None:
    """The limit is that of a private key with the longest modulus."""
    assert KEY_BLOB_BYTES_MAX == 20 + RSA_BITS_MAX // 8 + 5 * RSA_BITS_MAX // 16 + RSA_BITS_MAX // 8
    longest = PUBLIC + bytes(KEY_BLOB_BYTES_MAX - len(PUBLIC))
    refused(longest, "^PUBLICKEYBLOB: length")
    words = f"^key blob: has {KEY_BLOB_BYTES_MAX + 1} bytes; KEY_BLOB_BYTES_MAX allows {KEY_BLOB_BYTES_MAX} bytes"
    refused(longest + b"\0", words, LimitExceeded)


def test_numbers_in_big_endian_are_refused() -> None:
    """Of every field that has a byte order."""
    refused(replaced(PUBLIC, 4, PUBLIC[4:8][::-1]), "aiKeyAlg")
    refused(replaced(PUBLIC, 8, PUBLIC[8:12][::-1]), "magic")
    refused(replaced(PUBLIC, 12, PUBLIC[12:16][::-1]), "bitlen", LimitExceeded)
    refused(replaced(PUBLIC, 16, PUBLIC[16:20][::-1]), "pubexp")
    refused(replaced(AES_256.simple, 8, AES_256.simple[8:12][::-1]), "algid")
    refused(replaced(AES_256.plaintext, 8, AES_256.plaintext[8:12][::-1]), "length")


@pytest.mark.parametrize("wrapped", WRAPPED, ids=lambda each: each.label)
def test_a_ciphertext_in_big_endian_does_not_give_the_key(wrapped: Wrapped) -> None:
    """It is another number."""
    blob = SimpleBlob.parse(wrapped.simple[:12] + wrapped.simple[12:][::-1])
    try:
        opened = blob.open(authority_key(), wrapped.padding)
    except BlobInvalid:
        return
    assert wrapped.padding is Padding.PKCS1
    assert opened.encode().expose() != wrapped.plaintext


# ---- private keys ------------------------------------------------------------------------------

PARTS = {
    "prime1": (276, 128),
    "prime2": (404, 128),
    "exponent1": (532, 128),
    "exponent2": (660, 128),
    "coefficient": (788, 128),
    "privateExponent": (916, 256),
}
WORDS = {
    "prime1": "prime1, prime2: are not two numbers whose product",
    "prime2": "prime1, prime2: are not two numbers whose product",
    "exponent1": "exponent1: is not the private exponent modulo prime1 - 1",
    "exponent2": "exponent2: is not the private exponent modulo prime2 - 1",
    "coefficient": "coefficient: is not the inverse of prime2 modulo prime1",
    "privateExponent": "privateExponent: is not the inverse of pubexp",
}


@pytest.mark.parametrize("part", PARTS)
def test_each_number_of_a_private_key_must_fit_the_others(part: str) -> None:
    """Zero, one, two more, and in the wrong byte order; the message names it and quotes nothing."""
    start, size = PARTS[part]
    own = OWN_PRIVATE[start : start + size]
    more = (int.from_bytes(own, "little") + 2).to_bytes(size, "little")
    for wrong in (bytes(size), b"\1" + bytes(size - 1), more, own[::-1]):
        refused(replaced(OWN_PRIVATE, start, wrong), f"^PRIVATEKEYBLOB: {WORDS[part]}[a-z0-9 -]*$")


def integer(secret: Secret) -> int:
    return int.from_bytes(secret.expose(), "big")


def test_a_larger_exponent_that_does_the_same_is_refused() -> None:
    """Each number has one form."""
    key = own_numbers()
    totient = (integer(key.prime1) - 1) * (integer(key.prime2) - 1)
    exponent = integer(key.private_exponent)
    larger = exponent + totient * ((key.public.modulus - exponent) // totient + 1)
    assert larger * key.public.exponent % totient == 1
    start, size = PARTS["privateExponent"]
    refused(replaced(OWN_PRIVATE, start, larger.to_bytes(size, "little")), "privateExponent: is not the inverse")


def test_an_exponent_must_suit_both_primes() -> None:
    """Right for one and wrong for the other, it would decrypt nothing, and still agree with its two halves."""
    key = own_numbers()
    one, other = integer(key.prime1) - 1, integer(key.prime2) - 1
    for step in (one, other):
        wrong = (integer(key.private_exponent) + step) % (one * other)
        numbers = replace(
            key,
            exponent1=Secret((wrong % one).to_bytes(128, "big")),
            exponent2=Secret((wrong % other).to_bytes(128, "big")),
            private_exponent=Secret(wrong.to_bytes(256, "big")),
        )
        with pytest.raises(MalformedStatement, match="privateExponent: is not the inverse"):
            PrivateKeyBlob(RsaUse.EXCHANGE, numbers)


def test_a_larger_coefficient_that_does_the_same_is_refused() -> None:
    """Each number has one form."""
    key, larger = next(
        (key, larger)
        for key in (PrivateRsaKey.generate(2048).numbers() for _ in count())
        if (larger := integer(key.coefficient) + integer(key.prime1)) < 2**1024
    )
    start, size = PARTS["coefficient"]
    blob = PrivateKeyBlob(RsaUse.EXCHANGE, key).encode().expose()
    assert judged(blob)
    refused(replaced(blob, start, larger.to_bytes(size, "little")), "coefficient: is not the inverse")


def test_a_private_number_of_another_length_is_not_written() -> None:
    """It would move all that follow."""
    key = own_numbers()
    longer = replace(key, prime1=Secret(b"\0" + key.prime1.expose()))
    with pytest.raises(MalformedStatement, match=r"^PRIVATEKEYBLOB: length: of a private number"):
        PrivateKeyBlob(RsaUse.EXCHANGE, longer)


def test_a_private_key_of_an_odd_number_of_bytes_is_refused() -> None:
    """Its halves would not be whole bytes."""
    public = RsaPublicKey(1 << 2055 | 1, 65537)
    assert PublicKeyBlob(RsaUse.EXCHANGE, public).encode()
    half, whole = Secret(bytes(129)), Secret(bytes(257))
    with pytest.raises(MalformedStatement, match=r"^PRIVATEKEYBLOB: bitlen: is 2056 bits, .* a multiple of 16"):
        PrivateKeyBlob(RsaUse.EXCHANGE, RsaPrivateNumbers(public, half, half, half, half, half, whole))


def test_a_key_pair_whose_primes_are_none_is_not_loaded() -> None:
    """All numbers fit each other, and yet it is no RSA key."""
    numbers = PrivateRsaKey.generate(2048).numbers()
    p, e = int.from_bytes(numbers.prime1.expose(), "big"), 65537
    q = next(
        q
        for q in range(2**1024 - 3, 2**1023, -6)
        if q % 5 == 0 and (p * q).bit_length() == 2048 and (q - 1) % e and q % p
    )
    d = pow(e, -1, (p - 1) * (q - 1))
    values = [(p, 128), (q, 128), (d % (p - 1), 128), (d % (q - 1), 128), (pow(q, -1, p), 128), (d, 256)]
    parts = (Secret(value.to_bytes(size, "big")) for value, size in values)
    blob = PrivateKeyBlob(RsaUse.EXCHANGE, RsaPrivateNumbers(RsaPublicKey(p * q, e), *parts))
    with pytest.raises(MalformedStatement, match=r"^PRIVATEKEYBLOB: key: these numbers are not an RSA key pair$"):
        blob.load()


def test_a_short_key_pair_is_loaded_only_on_demand(short_key: PrivateRsaKey) -> None:
    """1,024 bits: parsed and loaded where somebody says so, both times."""
    blob = PrivateKeyBlob(RsaUse.EXCHANGE, short_key.numbers()).encode()
    refused(blob.expose(), "bitlen: is 1024 bits; allowed are RSA_BITS_MIN 2048", LimitExceeded)
    pair = PrivateKeyBlob.parse(blob, rsa_bits_min=1024)
    with pytest.raises(MalformedStatement, match="this RSA key has 1024 bits; it must have at least 2048"):
        pair.load()
    assert pair.load(rsa_bits_min=1024).numbers() == short_key.numbers()


# ---- sealing -----------------------------------------------------------------------------------


def test_nothing_is_sealed_to_a_signature_key() -> None:
    """CryptoAPI would not open it."""
    recipient = PublicKeyBlob(RsaUse.SIGNATURE, PublicKeyBlob.parse(PUBLIC).key)
    with pytest.raises(BlobInvalid, match="aiKeyAlg: is RSA_SIGN"):
        SimpleBlob.seal(session_key(SessionAlgorithm.AES_128), recipient, Padding.OAEP)


def test_nothing_is_sealed_to_a_short_key(short_key: PrivateRsaKey) -> None:
    """Even where it was read on demand."""
    recipient = PublicKeyBlob(RsaUse.EXCHANGE, short_key.public_key)
    for padding in Padding:
        with pytest.raises(LimitExceeded, match="modulus: has 1024 bits"):
            SimpleBlob.seal(session_key(SessionAlgorithm.AES_128), recipient, padding)


def test_a_blob_of_an_older_short_key_opens(short_key: PrivateRsaKey) -> None:
    """What was wrapped long ago can be read."""
    public = short_key.public_key
    block = b"\x00\x02" + b"\x01" * (public.size - 3 - 16) + b"\x00" + b"k" * 16
    number = pow(int.from_bytes(block, "big"), public.exponent, public.modulus)
    blob = SimpleBlob.parse(
        struct.pack("<BBHII", 1, 2, 0, SessionAlgorithm.AES_128, 0xA400) + number.to_bytes(public.size, "little")
    )
    assert blob.open(short_key, Padding.PKCS1).key.expose() == b"k" * 16


# ---- secrets -----------------------------------------------------------------------------------


def test_no_blob_shows_what_is_secret_in_it() -> None:
    """Neither repr nor str."""
    for kind, blob in SAMPLES.items():
        shown = repr(parse(blob)) + str(parse(blob))
        assert kind != "PRIVATEKEYBLOB" or str(int.from_bytes(OWN_PRIVATE[276:404], "little")) not in shown
        for start in range(12, len(blob) - 8):
            for part in (blob[start : start + 8], blob[start : start + 8][::-1]):
                assert part.hex() not in shown
                assert repr(part)[2:-1] not in shown


def test_the_digest_of_a_ciphertext_does_not_hang_on_the_algorithm() -> None:
    """A copy with another algorithm in its header is still a copy."""
    one = SimpleBlob.parse(AES_256.simple)
    other = SimpleBlob.parse(replaced(AES_256.simple, 4, struct.pack("<I", SessionAlgorithm.RC4)))
    assert one != other
    assert one.ciphertext_digest == other.ciphertext_digest
    assert one.ciphertext_digest != SimpleBlob.parse(OAEP[0].simple).ciphertext_digest
