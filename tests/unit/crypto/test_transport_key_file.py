"""Key files of transport keys: they are key files, of another kind than those of signing and sealing keys."""

from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from strongroom.crypto.key_file import (
    KdfCost,
    read_sealing_key,
    read_signing_key,
    write_sealing_key,
    write_signing_key,
)
from strongroom.crypto.rsa import PrivateRsaKey, RsaPublicKey
from strongroom.crypto.sealing import PrivateSealingKey, Suite, transport_kid
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.crypto.transport_key_file import read_private_key, read_transport_key, write_transport_key
from strongroom.errors import KeyFileInvalid

CHEAP = KdfCost(iterations=1, lanes=1, memory_kib=8)
PASSPHRASE = Secret(b"canary passphrase")
KEY = PrivateRsaKey.generate(2048)
SEALING = PrivateSealingKey.generate(Suite.P256)


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_transport_key_is_read_as_it_was_written(tmp_path: Path, passphrase: Secret | None) -> None:
    """Plain and under a passphrase; whoever reads sealing keys and transport keys gets it, too."""
    path = tmp_path / "transport.key"
    write_transport_key(path, KEY, passphrase, cost=CHEAP)
    for found in (read_transport_key(path, passphrase), read_private_key(path, passphrase)):
        assert isinstance(found, PrivateRsaKey)
        assert found.private_bytes() == KEY.private_bytes()
    assert ('"kdf": "none"' in path.read_text()) == (passphrase is None)


def test_its_id_is_that_of_the_roster(tmp_path: Path) -> None:
    """SPEC 2.2: 32 hex digits of a digest over the SubjectPublicKeyInfo in DER."""
    path = tmp_path / "transport.key"
    write_transport_key(path, KEY, None)
    spki = KEY.public_key.to_spki()
    expected = sha256(b"strongroom/transport-key/v1" + spki).hexdigest()[:32]
    assert f'"id": "{expected}"' in path.read_text()
    assert transport_kid(spki) == expected


def test_a_file_of_another_kind_is_named_for_what_it_is(tmp_path: Path) -> None:
    """Each reader says what the file is, and what it wants instead."""
    signing, sealing, transport = (tmp_path / f"{name}.key" for name in ("signing", "sealing", "transport"))
    write_signing_key(signing, SigningKey.generate(), None)
    write_sealing_key(sealing, SEALING, None)
    write_transport_key(transport, KEY, None)
    refusals = {
        (read_sealing_key, transport): ("transport key (rsa)", "name a sealing key file"),
        (read_signing_key, transport): ("transport key (rsa)", "name a signing key file"),
        (read_transport_key, sealing): ("sealing key (dhkem-p256)", "name a transport key file"),
        (read_transport_key, signing): ("signing key (ed25519)", "name a transport key file"),
        (read_private_key, signing): ("signing key (ed25519)", "name a sealing or transport key file"),
    }
    for (read, path), (words, hint) in refusals.items():
        with pytest.raises(KeyFileInvalid) as caught:
            read(path, None)
        assert words in str(caught.value)
        assert caught.value.hint == hint
    found = read_private_key(sealing, None)
    assert isinstance(found, PrivateSealingKey)
    assert found.kid == SEALING.kid


def test_a_file_whose_halves_do_not_belong_together_is_refused(tmp_path: Path) -> None:
    """Another id, or the private key of another pair."""
    path, other = tmp_path / "transport.key", tmp_path / "other.key"
    write_transport_key(path, KEY, None)
    write_transport_key(other, PrivateRsaKey.generate(2048), None)
    lines, others = path.read_text().splitlines(), other.read_text().splitlines()
    for number, line in enumerate(lines):
        if line == others[number]:
            continue
        mixed = tmp_path / f"mixed-{number}.key"
        mixed.touch(mode=0o600)
        mixed.write_text("\n".join([*lines[:number], others[number], *lines[number + 1 :]]))
        with pytest.raises(KeyFileInvalid, match="do not belong together"):
            read_transport_key(mixed, None)


def test_a_public_key_in_der_is_read_back() -> None:
    """Modulus and exponent survive; another form of the same key, another kind and other bytes are refused."""
    spki = KEY.public_key.to_spki()
    assert RsaPublicKey.from_spki(spki) == KEY.public_key
    of_curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    curve = of_curve.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    of_rsa = serialization.load_der_public_key(spki)
    bare = of_rsa.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.PKCS1)
    assert len(spki) == 24 + len(bare)
    without_null = b"\x30\x82\x01\x20\x30\x0b" + spki[6:17] + spki[19:]
    for other in (bare, without_null, curve, b"", spki + b"\0", spki[:-1], b"\x30\x84\x00\x00" + spki[2:]):
        with pytest.raises(ValueError, match="public key"):
            RsaPublicKey.from_spki(other)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_public_key_or_a_value_error(raw: bytes) -> None:
    """Nothing else comes of them."""
    with pytest.raises(ValueError, match="public key"):
        RsaPublicKey.from_spki(raw)
