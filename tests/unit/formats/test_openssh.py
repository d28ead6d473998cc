"""OpenSSH's private keys: read as ssh-keygen writes them, every length and name judged, nothing secret quoted."""

import base64
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cms import VECTORS

from strongroom.crypto.secret import Secret
from strongroom.errors import LimitExceeded, MalformedStatement
from strongroom.formats.openssh import OpensshKey

UNTIMED = settings(deadline=None)  # a busy machine is no failure
KEYS = {
    "ed25519": OpensshKey("Ed25519", None),
    "rsa-3072": OpensshKey("RSA 3072", None),
    "ecdsa-256": OpensshKey("EC P-256", None),
    "ecdsa-384": OpensshKey("EC P-384", None),
    "ecdsa-521": OpensshKey("EC P-521", None),
    "ed25519-aes256-ctr": OpensshKey("Ed25519", "aes256-ctr"),
    "ed25519-aes256-gcm": OpensshKey("Ed25519", "aes256-gcm@openssh.com"),
    "ed25519-chacha20": OpensshKey("Ed25519", "chacha20-poly1305@openssh.com"),
    "rsa-3072-aes256-cbc": OpensshKey("RSA 3072", "aes256-cbc"),
}
NAME = b"ssh-ed25519"


def written(name: str) -> bytes:
    return (VECTORS / "openssh" / f"{name}.key").read_bytes()


def body(name: str) -> bytes:
    return base64.b64decode(b"".join(written(name).splitlines()[1:-1]))


def pem(content: bytes, label: str = "OPENSSH PRIVATE KEY") -> Secret:
    text = base64.encodebytes(content).decode()
    return Secret(f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode())


def string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def key(
    *,
    cipher: bytes = b"aes256-ctr",
    kdf: bytes = b"bcrypt",
    options: bytes = string(b"salt" * 4) + struct.pack(">I", 16),
    count: int = 1,
    public: bytes = string(NAME) + string(bytes(32)),
    private: bytes = bytes(128),
    after: bytes = b"",
) -> Secret:
    head = b"openssh-key-v1\0" + string(cipher) + string(kdf) + string(options) + struct.pack(">I", count)
    return pem(head + string(public) + string(private) + after)


@pytest.mark.parametrize("name", KEYS)
def test_what_ssh_keygen_wrote_is_named(name: str) -> None:
    """Algorithm, and what it is encrypted in."""
    assert OpensshKey.parse(Secret(written(name))) == KEYS[name]


def test_keys_on_tokens_and_old_algorithms_are_refused_by_name() -> None:
    """The file of a token's key holds nothing to keep."""
    for kind in (b"sk-ssh-ed25519@openssh.com", b"sk-ecdsa-sha2-nistp256@openssh.com"):
        with pytest.raises(MalformedStatement, match=r"^OpenSSH key: is on a security token; this file holds no"):
            OpensshKey.parse(key(public=string(kind)))
    for wrong in (Secret(written("refused-dsa")), key(public=string(b"ssh-other"))):
        with pytest.raises(MalformedStatement, match=r"^OpenSSH key: public key: type: must be RSA, ECDSA or Ed25"):
            OpensshKey.parse(wrong)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (pem(body("ed25519"), "RSA PRIVATE KEY"), "^PEM: is 'RSA PRIVATE KEY', must be 'OPENSSH PRIVATE KEY'$"),
        (pem(b"openssh-key-v2\0" + body("ed25519")[15:]), "does not begin with openssh-key-v1"),
        (pem(b""), "does not begin with openssh-key-v1"),
        (key(cipher=b"rot13"), "cipher: is none that OpenSSH has"),
        (key(cipher=b"\xff"), "cipher: is not ASCII"),
        (key(kdf=b"none", options=b""), "key derivation: must be bcrypt, and none without encryption"),
        (key(cipher=b"none"), "key derivation: must be bcrypt, and none without encryption"),
        (key(kdf=b"scrypt"), "key derivation: must be bcrypt, and none without encryption"),
        (key(cipher=b"none", kdf=b"none"), "options: must be empty without encryption"),
        (key(options=b""), "options: salt: ends beyond"),
        (key(options=string(b"") + bytes(3) + b"\1"), "must have a salt and rounds"),
        (key(options=string(b"salt") + bytes(4)), "must have a salt and rounds"),
        (key(options=string(b"salt") + bytes(5)), "options: 1 bytes follow the last field"),
        (key(count=0), "holds 0 keys, must hold 1"),
        (key(count=2), "holds 2 keys, must hold 1"),
        (key(public=string(NAME) + string(bytes(31))), "public key: has 31 bytes, must have 32"),
        (key(public=string(NAME) + string(bytes(32)) + b"x"), "public key: 1 bytes follow the last field"),
        (key(public=string(NAME)), "public key: point: ends beyond what it lies in"),
        (key(public=b""), "public key: type: ends beyond what it lies in"),
        (key(public=string(b"ecdsa-sha2-nistp256") + string(b"nistp384") + string(b"p")), "curve: is none that"),
        (key(public=string(b"ecdsa-sha2-nistp192") + string(b"nistp192") + string(b"p")), "curve: is none that"),
        (key(private=b""), "private key: has 0 bytes, must be whole blocks of 16"),
        (key(private=bytes(24)), "private key: has 24 bytes, must be whole blocks of 16"),
        (key(after=b"x"), "^OpenSSH key: 1 bytes follow the last field$"),
        (key(cipher=b"aes256-gcm@openssh.com", after=bytes(15)), "authentication tag: ends beyond"),
        (key(cipher=b"aes256-gcm@openssh.com", after=bytes(17)), "1 bytes follow the last field"),
    ],
)
def test_a_key_with_one_thing_wrong_is_refused_by_name(data: Secret, words: str) -> None:
    """Each of them is otherwise one that is read."""
    assert OpensshKey.parse(key()) == OpensshKey("Ed25519", "aes256-ctr")
    with pytest.raises(MalformedStatement, match=words):
        OpensshKey.parse(data)


def test_a_key_whose_halves_do_not_belong_together_is_refused() -> None:
    """Both are well-formed."""
    data = body("ed25519")
    first, last = data.index(NAME), data.rindex(NAME)
    public, private = first + len(NAME) + 4, last + len(NAME) + 4 + 32 + 4
    for place, words in (
        (public, "does not load: it is damaged"),
        (private, "is not the private half of the public"),
    ):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(MalformedStatement, match=f"^private key: {words}"):
            OpensshKey.parse(pem(changed))


def test_a_compressed_point_is_refused() -> None:
    """OpenSSH writes none, and the loader has no ValueError for it."""
    data = body("ecdsa-256")
    point = data.rindex(bytes.fromhex("00000041") + b"\x04") + 4
    with pytest.raises(MalformedStatement, match=r"^private key: does not load"):
        OpensshKey.parse(pem(data[:point] + b"\x02" + data[point + 1 :]))


@UNTIMED
@given(st.sampled_from(sorted(KEYS)), st.data())
def test_damage_is_refused_or_leaves_a_key_that_is_encrypted(name: str, draw: st.DataObject) -> None:
    """A key in the clear has no bit to spare but in its comment; cut and extended keys are always refused."""
    whole = body(name)
    for wrong in (whole[: draw.draw(st.integers(0, len(whole) - 1))], whole + draw.draw(st.binary(min_size=1))):
        with pytest.raises((MalformedStatement, LimitExceeded)):
            OpensshKey.parse(pem(wrong))
    changed = bytearray(whole)
    place = draw.draw(st.integers(0, len(whole) - 1))
    changed[place] ^= draw.draw(st.integers(1, 255))
    try:
        found = OpensshKey.parse(pem(bytes(changed)))
    except (MalformedStatement, LimitExceeded):
        return
    comment = whole.rindex(b"example") if KEYS[name].cipher is None else 0
    assert found.cipher is not None or comment <= place < comment + len(b"example")


@UNTIMED
@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail_otherwise(data: bytes) -> None:
    """With and without a good beginning."""
    for attempt in (Secret(data), pem(data), pem(b"openssh-key-v1\0" + data), key(public=data), key(options=data)):
        try:
            OpensshKey.parse(attempt)
        except (MalformedStatement, LimitExceeded):
            continue
