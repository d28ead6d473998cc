"""What every keyring does alike, whether its keys lie in files, on a token, or some here and some there."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.tokens import RSA_BITS, shelf_in

from strongroom.crypto.key_file import write_sealing_key
from strongroom.crypto.keyring import FileKeyring, JoinedKeyring, Keyring
from strongroom.crypto.rsa import Padding, PrivateRsaKey, RsaPublicKey, wrap
from strongroom.crypto.sealing import PrivateSealingKey, Suite, seal, transport_kid
from strongroom.crypto.secret import Secret
from strongroom.crypto.token_objects import KeyLabel
from strongroom.crypto.transport_key_file import write_transport_key
from strongroom.errors import BlobInvalid, KeyUnknown

INFO = b"the place of this blob"
MATERIAL = Secret(b"planted key material")
KEY_LENGTHS = range(16, 33)


@dataclass(frozen=True)
class Held:
    """A keyring, and the public halves of one sealing key and one transport key in it."""

    keyring: Keyring
    sealing: bytes
    transport: RsaPublicKey
    kids: tuple[str, str]

    def sealed(self, info: bytes = INFO) -> bytes:
        """Seal the material to the sealing key."""
        return seal(Suite.P256, self.sealing, MATERIAL.expose(), info)


def in_files(folder: Path) -> Held:
    """Write both keys into files."""
    folder.mkdir()
    sealing, transport = PrivateSealingKey.generate(Suite.P256), PrivateRsaKey.generate(RSA_BITS)
    write_sealing_key(folder / "sealing.key", sealing, None)
    write_transport_key(folder / "transport.key", transport, None)
    kids = sealing.kid, transport_kid(transport.public_key.to_spki())
    return Held(FileKeyring(folder, None), sealing.public_key, transport.public_key, kids)


@pytest.fixture(params=["files", "token", "both, from the files", "both, from the token"], scope="module")
def held(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    folder = tmp_path_factory.mktemp("keyring")
    if request.param == "files":
        yield in_files(folder / "keys")
        return
    with shelf_in(folder / "shelf") as shelf:
        token = shelf.add("contract")
        keys = token.make(KeyLabel.SEALING), token.make(KeyLabel.TRANSPORT)
        on_token = token.keyring()
        kids = keys[0].kid, keys[1].kid
        there = Held(on_token, keys[0].public_key, RsaPublicKey.from_spki(keys[1].public_key), kids)
        if request.param != "token":
            files = in_files(folder / "keys")
            joined = JoinedKeyring(files.keyring, on_token)
            chosen = files if "files" in request.param else there
            there = Held(joined, chosen.sealing, chosen.transport, chosen.kids)
        yield there
        on_token.close()


def test_it_holds_its_keys_by_their_ids(held: Held) -> None:
    """The ids are those that the public keys give, and each key says its own."""
    sealing, transport = held.kids
    assert sealing in held.keyring.kids
    assert transport in held.keyring.transport_kids
    assert not held.keyring.kids & held.keyring.transport_kids
    assert (held.keyring.opener(sealing).kid, held.keyring.opener(sealing).suite) == (sealing, Suite.P256)
    assert held.keyring.transport(transport).public_key == held.transport


def test_it_opens_what_was_sealed_to_it(held: Held) -> None:
    """The same blob gives the same plaintext, as often as it is asked."""
    opener, blob = held.keyring.opener(held.kids[0]), held.sealed()
    assert [opener.open(blob, INFO) for _ in range(3)] == [MATERIAL] * 3
    empty = seal(Suite.P256, held.sealing, b"", b"")
    assert opener.open(empty, b"") == Secret(b"")


def bad_blobs(held: Held) -> dict[str, tuple[bytes, bytes]]:
    """Return blobs that do not open, each with its info."""
    blob = held.sealed()
    other = PrivateSealingKey.generate(Suite.P256)
    return {
        "another place": (blob, INFO + b"."),
        "another key": (seal(Suite.P256, other.public_key, b"x", INFO), INFO),
        "nothing": (b"", INFO),
        "too short": (blob[:80], INFO),
        "truncated": (blob[:-1], INFO),
        "extended": (blob + b"\0", INFO),
        "a flipped bit of the ciphertext": (blob[:70] + bytes([blob[70] ^ 1]) + blob[71:], INFO),
        "a point that is not on the curve": (blob[:64] + bytes([blob[64] ^ 1]) + blob[65:], INFO),
        "the point at infinity": (bytes(65) + blob[65:], INFO),
        "a compressed point": (bytes([2 + blob[64] % 2]) + blob[1:], INFO),
        "an odd way to write the same point": (bytes([6 + blob[64] % 2]) + blob[1:], INFO),
        "another one-time key": (other.public_key + blob[65:], INFO),
    }


def test_it_refuses_every_blob_that_does_not_open_with_one_message(held: Held) -> None:
    """Whoever asks learns that the blob does not open, and never why; afterwards good ones open as before."""
    opener, said = held.keyring.opener(held.kids[0]), set()
    for blob, info in bad_blobs(held).values():
        with pytest.raises(BlobInvalid) as caught:
            opener.open(blob, info)
        said.add(str(caught.value))
    assert len(said) == 1
    assert opener.open(held.sealed(), INFO) == MATERIAL


def test_it_serves_several_threads_at_once(held: Held) -> None:
    """Each gets its own answer, good or bad."""
    sealing, transport = held.kids
    ring = held.keyring
    expected = [Secret(bytes([number]) * 16) for number in range(40)]
    blobs = [seal(Suite.P256, held.sealing, each.expose(), INFO) for each in expected]
    wrapped = [wrap(held.transport, each, Padding.OAEP) for each in expected]

    def both(number: int) -> tuple[Secret, Secret]:
        if number % 8 == 0:
            with pytest.raises(BlobInvalid):
                ring.opener(sealing).open(blobs[number], b"another place")
        opened = ring.opener(sealing).open(blobs[number], INFO)
        return opened, ring.transport(transport).unwrap(wrapped[number], Padding.OAEP, KEY_LENGTHS)

    with ThreadPoolExecutor(max_workers=8) as pool:
        assert list(pool.map(both, range(40))) == [(each, each) for each in expected]


@pytest.mark.parametrize("kid", ["", "0" * 32, "strongroom-sealing"])
def test_a_key_that_it_does_not_hold_is_unknown(held: Held, kid: str) -> None:
    """Also where the id is that of a key of the other kind."""
    for unknown in (kid, held.kids[1]):
        with pytest.raises(KeyUnknown):
            held.keyring.opener(unknown)
    for unknown in (kid, held.kids[0]):
        with pytest.raises(KeyUnknown):
            held.keyring.transport(unknown)


def test_it_unwraps_transported_keys(held: Held) -> None:
    """RSA-OAEP with SHA-1, as CryptoAPI wraps; the length has to be one that was asked for."""
    key = held.keyring.transport(held.kids[1])
    ciphertext = wrap(held.transport, MATERIAL, Padding.OAEP)
    assert key.unwrap(ciphertext, Padding.OAEP, KEY_LENGTHS) == MATERIAL
    with pytest.raises(BlobInvalid):
        key.unwrap(ciphertext, Padding.OAEP, range(21, 22))


def test_it_refuses_every_wrapped_key_that_does_not_open_with_one_message(held: Held) -> None:
    """Bad padding, a changed byte and another length all sound the same."""
    key, said = held.keyring.transport(held.kids[1]), set()
    good = wrap(held.transport, MATERIAL, Padding.OAEP)
    bad = {
        "another padding": wrap(held.transport, MATERIAL, Padding.PKCS1),
        "a flipped bit": good[:-1] + bytes([good[-1] ^ 1]),
        "zero": bytes(held.transport.size),
        "one": bytes(held.transport.size - 1) + b"\1",
        "the largest": (held.transport.modulus - 1).to_bytes(held.transport.size, "big"),
        "another length": wrap(held.transport, Secret(b"x" * 40), Padding.OAEP),
    }
    for ciphertext in bad.values():
        with pytest.raises(BlobInvalid) as caught:
            key.unwrap(ciphertext, Padding.OAEP, KEY_LENGTHS)
        said.add(str(caught.value))
    assert len(said) == 1
    assert key.unwrap(good, Padding.OAEP, KEY_LENGTHS) == MATERIAL


def test_what_can_be_no_ciphertext_is_refused_before_the_key_is_used(held: Held) -> None:
    """A wrong length and a number that is not below the modulus: anybody can see that."""
    key = held.keyring.transport(held.kids[1])
    for ciphertext in (b"", bytes(held.transport.size - 1), bytes([0xFF]) * held.transport.size):
        with pytest.raises(BlobInvalid, match=r"^wrapped key"):
            key.unwrap(ciphertext, Padding.OAEP, KEY_LENGTHS)


def test_nothing_of_it_shows_a_key(held: Held) -> None:
    """A keyring shows numbers, keys show what is public."""
    assert "sealing keys, " in repr(held.keyring)
    for kid in held.kids:
        assert kid not in repr(held.keyring)
    assert repr(held.keyring.opener(held.kids[0])).endswith(f"{held.kids[0]}>")
    assert held.transport.fingerprint in repr(held.keyring.transport(held.kids[1]))
