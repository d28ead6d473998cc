"""Kinds of key material: what is right passes as it is, what is wrong is named, and no secret is ever quoted."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pyrage import x25519
from tests.support.cms import VECTORS, integer, oid, tlv, vector

from strongroom.crypto.secret import Secret
from strongroom.errors import MalformedStatement, UsageError
from strongroom.fields import Algorithm, Kind
from strongroom.formats.armour import read_pem
from strongroom.formats.kinds import KeyKind, describe, validate

UNTIMED = settings(deadline=None)  # a busy machine is no failure
IDENTITY = str(x25519.Identity.generate())
PASSWORD = "-".join(f"{11 * number:06}" for number in (0, 1, 65_535, 4_096, 12_345, 54_321, 9, 33_333))
ED25519 = read_pem((VECTORS / "pkcs8" / "ed25519.pem").read_bytes(), ("PRIVATE KEY",))[1]


def pkcs8(name: str) -> Secret:
    return Secret((VECTORS / "pkcs8" / name).read_bytes())


GOOD = [
    (KeyKind.RAW, Secret(b"\0anything"), ""),
    (KeyKind.PKCS8, pkcs8("rsa-3072.pem"), "RSA 3072"),
    (KeyKind.PKCS8, pkcs8("rsa-pss-2048.der"), "RSA 2048"),
    (KeyKind.PKCS8, pkcs8("ec-p384.pem"), "EC P-384"),
    (KeyKind.PKCS8, pkcs8("ed25519.pem"), "Ed25519"),
    (KeyKind.PKCS8, pkcs8("ed25519.der"), "Ed25519"),
    (KeyKind.PKCS8, pkcs8("encrypted-ed25519.pem"), "encrypted (PBES2)"),
    (KeyKind.PKCS8, pkcs8("encrypted-ed25519.der"), "encrypted (PBES2)"),
    (KeyKind.PKCS8, pkcs8("encrypted-scrypt.pem"), "encrypted (PBES2)"),
    (KeyKind.PKCS8, pkcs8("encrypted-pbe-sha1-3des.pem"), "encrypted (1.2.840.113549.1.12.1.3)"),
    (KeyKind.OPENSSH, Secret((VECTORS / "openssh" / "rsa-3072.key").read_bytes()), "RSA 3072"),
    (
        KeyKind.OPENSSH,
        Secret((VECTORS / "openssh" / "ed25519-chacha20.key").read_bytes()),
        "Ed25519, encrypted (chacha20-poly1305@openssh.com)",
    ),
    (KeyKind.AGE_IDENTITY, Secret(IDENTITY.encode()), "X25519"),
    (KeyKind.BITLOCKER, Secret(PASSWORD.encode()), ""),
    (KeyKind.CMS, Secret(vector("nss.ber")), "CMS, AES-128-CBC"),
    (KeyKind.CMS, Secret(vector("default.smime")), "CMS, 3DES-CBC"),
    (KeyKind.VOLUME_KEY, Secret(vector("volume-key-default.packet")), "volume_key, asymmetric_wrap_secret_only"),
]


@pytest.mark.parametrize(("kind", "material", "algorithm"), GOOD)
def test_what_is_of_its_kind_passes_and_is_named(kind: KeyKind, material: Secret, algorithm: str) -> None:
    """In words that a record's fields can hold."""
    assert validate(kind, material) is None
    assert describe(kind, material) == algorithm
    assert TypeAdapter(Algorithm).validate_python(algorithm) == algorithm
    assert TypeAdapter(Kind).validate_python(str(kind)) == kind


@pytest.mark.parametrize("kind", [each for each in KeyKind if each is not KeyKind.RAW])
@UNTIMED
@given(st.binary(max_size=100))
def test_any_bytes_are_judged_without_another_error(kind: KeyKind, data: bytes) -> None:
    """A sentence without these bytes in it, or None."""
    found = validate(kind, Secret(data))
    assert found is None or found
    if found is None:
        describe(kind, Secret(data))


@UNTIMED
@given(st.sampled_from(GOOD), st.data())
def test_damage_is_judged_without_another_error(good: tuple[KeyKind, Secret, str], draw: st.DataObject) -> None:
    """Cut, extended or changed; and what is said of it quotes no run of its bytes."""
    kind, material, _ = good
    data = bytearray(material.expose())
    match draw.draw(st.sampled_from(["cut", "extend", "change"])):
        case "cut":
            data = data[: draw.draw(st.integers(0, len(data) - 1))]
        case "extend":
            data += draw.draw(st.binary(min_size=1, max_size=8))
        case _:
            data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    found = validate(kind, Secret(bytes(data)))
    assert found is None or found
    if found is not None and kind in (KeyKind.AGE_IDENTITY, KeyKind.BITLOCKER):
        secret = bytes(data[16:]).decode("latin-1")
        assert not any(secret[start : start + 5] in found for start in range(len(secret) - 4))


def test_a_kind_that_is_not_here_says_nothing_of_the_bytes() -> None:
    """Kinds are words for people, too."""
    assert validate("disk-key", Secret(b"anything")) is None
    assert describe("disk-key", Secret(b"anything")) == ""


def test_describe_raises_what_validate_says() -> None:
    """So that a caller may use either."""
    material = Secret(b"no key")
    with pytest.raises(MalformedStatement) as caught:
        describe(KeyKind.AGE_IDENTITY, material)
    assert caught.value.message == validate(KeyKind.AGE_IDENTITY, material)


# ---- PKCS #8 -----------------------------------------------------------------------------------


def relabelled(name: str, before: str, after: str) -> Secret:
    return Secret(pkcs8(name).expose().replace(before.encode(), after.encode()))


ALGORITHM = tlv(0x30, oid("1.3.101.112"))
SEED = tlv(0x04, tlv(0x04, bytes(range(32))))


@pytest.mark.parametrize(
    ("material", "words"),
    [
        (pkcs8("refused-pkcs1.pem"), "PEM: is 'RSA PRIVATE KEY', must be 'ENCRYPTED PRIVATE KEY' or 'PRIVATE KEY'"),
        (pkcs8("refused-pkcs1.der"), "PKCS #8: privateKeyAlgorithm: is INTEGER, must be SEQUENCE"),
        (pkcs8("refused-traditional-encrypted.pem"), "PEM: is not well-formed; must be one block of base64, and"),
        (pkcs8("refused-public.pem"), "PEM: is 'PUBLIC KEY', must be"),
        (pkcs8("refused-dh.pem"), "PKCS #8: privateKeyAlgorithm: is 1.2.840.113549.1.3.1, which cannot be judged"),
        (pkcs8("refused-dsa.pem"), "PKCS #8: privateKeyAlgorithm: is 1.2.840.10040.4.1, which cannot be judged"),
        (pkcs8("refused-curve.pem"), "private key: does not load"),
        (
            relabelled("ed25519.pem", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
            "is labelled 'ENCRYPTED PRIVATE KEY', and is not",
        ),
        (
            relabelled("encrypted-ed25519.pem", "ENCRYPTED ", ""),
            "PKCS #8: is labelled 'PRIVATE KEY', and is encrypted",
        ),
        (Secret(ED25519 + b"\0"), "ASN.1: 1 bytes follow the end"),
        (Secret(ED25519[:-1]), "ASN.1: element at byte 0"),
        (Secret(pkcs8("ed25519.pem").expose() * 2), "PEM: holds 2 blocks"),
        (
            Secret(tlv(0x30, integer(2), ALGORITHM, SEED)),
            "PKCS #8: version: is 2; only 0, without a public key, can be judged",
        ),
        (Secret(tlv(0x30, integer(1), ALGORITHM, SEED, tlv(0x81, bytes(33)))), "PKCS #8: version: is 1; only 0"),
        (Secret(tlv(0x30, integer(0), ALGORITHM)), "PKCS #8: privateKey: is missing"),
        (
            Secret(tlv(0x30, integer(0), ALGORITHM, SEED, tlv(0x81, bytes(33)))),
            "PKCS #8: [1] follows the last field",
        ),
        (Secret(tlv(0x30, integer(0), tlv(0x30, oid("1.2.3")), SEED)), "is 1.2.3, which cannot be judged"),
        (Secret(tlv(0x30, ALGORITHM, tlv(0x04))), "PKCS #8: encryptedData: is empty"),
        (Secret(tlv(0x30, ALGORITHM)), "PKCS #8: encryptedData: is missing"),
        (Secret(tlv(0x30, ALGORITHM, tlv(0x04, b"x"), tlv(0x04))), "PKCS #8: OCTET STRING follows"),
        (Secret(b"\x30\x80" + ED25519[2:] + b"\0\0"), "ASN.1: element at byte 0: has an indefinite length"),
    ],
)
def test_what_is_no_pkcs8_is_refused_by_name(material: Secret, words: str) -> None:
    """Old formats of keys, other labels, other algorithms, and more than one key."""
    found = validate(KeyKind.PKCS8, material)
    assert found is not None
    assert words in found


def test_a_key_may_have_attributes() -> None:
    """They are not looked at; without them it is one, too."""
    assert validate(KeyKind.PKCS8, Secret(tlv(0x30, integer(0), ALGORITHM, SEED))) is None
    assert validate(KeyKind.PKCS8, Secret(tlv(0x30, integer(0), ALGORITHM, SEED, tlv(0xA0)))) is None


# ---- age ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [IDENTITY, f"{IDENTITY}\n", f"{IDENTITY}\r\n", f"# created: today\n# public key: age1…\n\n{IDENTITY}\n\n"],
)
def test_an_identity_file_with_one_identity_is_one(text: str) -> None:
    """With the comments that age-keygen writes."""
    assert validate(KeyKind.AGE_IDENTITY, Secret(text.encode())) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has 0 lines with a key, must have 1"),
        ("# comment\n", "has 0 lines with a key, must have 1"),
        (f"{IDENTITY}\n{IDENTITY}\n", "has 2 lines with a key, must have 1"),
        (f" {IDENTITY}", "does not begin with AGE-SECRET-KEY-1"),
        (IDENTITY.lower(), "does not begin with AGE-SECRET-KEY-1"),
        ("AGE-PLUGIN-YUBIKEY-1QQ", "does not begin with AGE-SECRET-KEY-1"),
        (IDENTITY[:-1], "is mistyped or cut"),
        (f"{IDENTITY} ", "is mistyped or cut"),
        (IDENTITY[:30] + ("Q" if IDENTITY[30] != "Q" else "P") + IDENTITY[31:], "is mistyped or cut"),
        (IDENTITY + "é", "is mistyped or cut"),
    ],
)
def test_what_is_no_single_identity_is_refused_by_name(text: str, words: str) -> None:
    """Without a character of it."""
    found = validate(KeyKind.AGE_IDENTITY, Secret(text.encode()))
    assert found is not None
    assert found.startswith(f"age identity: {words}")
    assert IDENTITY[20:] not in found


# ---- recovery passwords ------------------------------------------------------------------------


@UNTIMED
@given(st.lists(st.integers(0, 65_535), min_size=8, max_size=8), st.sampled_from(["-", " ", "", " - ", "--"]))
def test_every_recovery_password_passes_however_it_is_parted(numbers: list[int], between: str) -> None:
    """Eight 16-bit numbers, each times 11."""
    text = between.join(f"{11 * number:06}" for number in numbers)
    assert validate(KeyKind.BITLOCKER, Secret(f" {text}\r\n".encode())) is None


@UNTIMED
@given(st.integers(0, 47), st.integers(1, 9))
def test_every_mistyped_digit_is_found_and_its_group_named(place: int, more: int) -> None:
    """A changed digit never leaves a multiple of 11."""
    digits = PASSWORD.replace("-", "")
    changed = str((int(digits[place]) + more) % 10)
    found = validate(KeyKind.BITLOCKER, Secret((digits[:place] + changed + digits[place + 1 :]).encode()))
    assert found is not None
    assert found.startswith(f"recovery password: group {place // 6 + 1} is mistyped: it is not a multiple of 11")


@UNTIMED
@given(st.integers(0, 46))
def test_two_neighbouring_digits_that_changed_places_are_found(place: int) -> None:
    """Within a group; unless they are the same."""
    digits = PASSWORD.replace("-", "")
    if place % 6 == 5 or digits[place] == digits[place + 1]:
        return
    swapped = digits[:place] + digits[place + 1] + digits[place] + digits[place + 2 :]
    assert validate(KeyKind.BITLOCKER, Secret(swapped.encode())) is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PASSWORD[:-7].encode(), "has 7 groups, must have 8 of 6 digits"),
        (f"{PASSWORD}-000000".encode(), "has 9 groups, must have 8 of 6 digits"),
        (PASSWORD.replace("-", "")[:-1].encode(), "has 1 groups, must have 8 of 6 digits"),
        (PASSWORD[:-1].encode(), "group 8 is not 6 digits"),
        (PASSWORD.replace("000011", "00001l").encode(), "group 2 is not 6 digits"),
        (PASSWORD.replace("000011", "\u0660\u0660\u0660\u0660\u0661\u0661").encode(), "group 2 is not 6 digits"),
        (PASSWORD.replace("000000", "720896", 1).encode(), "group 1 is mistyped: it is not below 720,896"),
        (PASSWORD.replace("000000", "999999", 1).encode(), "group 1 is mistyped: it is not below 720,896"),
        (PASSWORD.encode("utf-16"), "holds zero bytes; is it UTF-16? Save it as plain text"),
        (b"", "has 1 groups, must have 8 of 6 digits"),
        (b"Recovery Key: " + PASSWORD.encode(), "has 10 groups, must have 8 of 6 digits"),
    ],
)
def test_what_is_no_recovery_password_is_refused_by_name(text: bytes, words: str) -> None:
    """With the number of the group, and none of its digits."""
    found = validate(KeyKind.BITLOCKER, Secret(text))
    assert found == f"recovery password: {words}"


@pytest.mark.parametrize(
    ("kind", "near"),
    [
        ("recovery-password-bitloker", "recovery-password-bitlocker"),
        ("opensh", "openssh"),
        ("OpenSSH", "openssh"),
        ("pkcs-8", "pkcs8"),
        ("age-identiy", "age-identity"),
        ("volume_key", "volume-key"),
    ],
)
def test_a_mistyped_kind_is_refused_and_names_the_one_that_is_checked(kind: str, near: str) -> None:
    """Whatever the bytes are: as a word of its own it would skip the look at them. The word is not quoted."""
    with pytest.raises(UsageError) as caught:
        describe(kind, Secret(b"x"))
    assert validate(kind, Secret(b"x")) == caught.value.message
    assert near in caught.value.message
    assert kind not in caught.value.message
    assert near in (caught.value.hint or "")


@pytest.mark.parametrize(
    "kind",
    [
        *(
            "key",
            "disk-key",
            "session-key",
            "luks",
            "raw-key",
            "raw",
            "pkcs7",
            "pkcs12",
            "openssl",
            "ssh-key",
            "age",
        ),
        *("recovery-key", "recovery-password", "recovery-password-filevault", "volume-header", "cryptoapi-simple"),
    ],
)
def test_another_word_is_a_kind_of_its_own(kind: str) -> None:
    """Its bytes are taken as they are."""
    assert describe(kind, Secret(b"x")) == ""
