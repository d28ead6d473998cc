import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from strongroom.crypto.key_file import KdfCost, write_sealing_key, write_signing_key
from strongroom.crypto.keyring import FileKeyring, JoinedKeyring, Keyring, open_keyring
from strongroom.crypto.rsa import PrivateRsaKey
from strongroom.crypto.sealing import PrivateSealingKey, Suite, seal, transport_kid
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.crypto.transport_key_file import write_transport_key
from strongroom.errors import ConfigurationInvalid, KeyFileInvalid, KeyUnknown

CHEAP = KdfCost(iterations=1, lanes=1, memory_kib=8)
PASSPHRASE = Secret(b"canary passphrase")
SEALING_KEYS = {suite: PrivateSealingKey.generate(suite) for suite in Suite}


def refused(act: Callable[[], object], path: Path) -> None:
    with pytest.raises(KeyFileInvalid) as caught:
        act()
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.hint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one key of each suite, one of them protected, and a file that is no key."""
    write_sealing_key(tmp_path / "a.key", SEALING_KEYS[Suite.X_WING], None)
    write_sealing_key(tmp_path / "b.key", SEALING_KEYS[Suite.P256], PASSPHRASE, cost=CHEAP)
    (tmp_path / "README").write_text("not a key")
    return tmp_path


def test_a_keyring_holds_every_sealing_key_of_its_folder(folder: Path) -> None:
    """Each key opens what was sealed to it, found by its kid."""
    held: Keyring = FileKeyring(folder, PASSPHRASE)
    assert held.kids == {key.kid for key in SEALING_KEYS.values()}
    for suite, key in SEALING_KEYS.items():
        opener = held.opener(key.kid)
        assert (opener.kid, opener.suite) == (key.kid, suite)
        assert opener.open(seal(suite, key.public_key, b"k", b"info"), b"info") == Secret(b"k")


@pytest.mark.parametrize("kid", ["", "0" * 32, "a.key"])
def test_a_kid_that_the_keyring_does_not_hold_is_unknown(folder: Path, kid: str) -> None:
    """Asking for another key is KeyUnknown."""
    with pytest.raises(KeyUnknown):
        FileKeyring(folder, PASSPHRASE).opener(kid)


def test_a_keyring_with_one_bad_key_is_refused(folder: Path) -> None:
    """A worker starts with all its keys or not at all, and the error names the file."""
    refused(lambda: FileKeyring(folder, None), folder / "b.key")
    write_signing_key(folder / "c.key", SigningKey.generate(), None)
    refused(lambda: FileKeyring(folder, PASSPHRASE), folder / "c.key")
    (folder / "c.key").unlink()
    (folder / "a.key").chmod(0o640)
    refused(lambda: FileKeyring(folder, PASSPHRASE), folder / "a.key")


def test_a_keyring_without_keys_is_refused(tmp_path: Path) -> None:
    """An empty or missing folder is an error at the start, not at the first recovery."""
    refused(lambda: FileKeyring(tmp_path, None), tmp_path)
    refused(lambda: FileKeyring(tmp_path / "missing", None), tmp_path / "missing")


def test_a_keyring_does_not_see_later_changes(folder: Path) -> None:
    """The keys are those of the moment when the keyring was made."""
    held = FileKeyring(folder, PASSPHRASE)
    for path in folder.glob("*.key"):
        path.unlink()
    assert held.opener(SEALING_KEYS[Suite.P256].kid).kid == SEALING_KEYS[Suite.P256].kid
    assert repr(held) == "<FileKeyring: 2 sealing keys, 0 transport keys>"


def test_transport_keys_lie_beside_sealing_keys(folder: Path) -> None:
    """The folder is one; each key is found by the id of its kind."""
    key = PrivateRsaKey.generate(2048)
    write_transport_key(folder / "c.key", key, None)
    held = FileKeyring(folder, PASSPHRASE)
    kid = transport_kid(key.public_key.to_spki())
    assert held.kids == {each.kid for each in SEALING_KEYS.values()}
    assert held.transport_kids == {kid}
    assert held.transport(kid).public_key == key.public_key
    assert repr(held) == "<FileKeyring: 2 sealing keys, 1 transport keys>"


def test_joined_keyrings_have_the_keys_of_all(tmp_path: Path) -> None:
    """Each key is used where it is."""
    rings = []
    for number, suite in enumerate(Suite):
        (tmp_path / str(number)).mkdir()
        write_sealing_key(tmp_path / str(number) / "a.key", SEALING_KEYS[suite], None)
        rings.append(FileKeyring(tmp_path / str(number), None))
    joined: Keyring = JoinedKeyring(*rings)
    for suite, key in SEALING_KEYS.items():
        sealed = seal(suite, key.public_key, b"k", b"info")
        assert joined.opener(key.kid).open(sealed, b"info") == Secret(b"k")
    assert repr(joined) == "<JoinedKeyring: 2 sealing keys, 0 transport keys>"
    with pytest.raises(KeyUnknown):
        joined.opener("0" * 32)


def test_a_key_that_is_in_two_keyrings_is_refused(folder: Path) -> None:
    """Which of the two is used must not be left to chance; the key is named."""
    twice = FileKeyring(folder, PASSPHRASE)
    with pytest.raises(ConfigurationInvalid, match=min(twice.kids)) as caught:
        JoinedKeyring(twice, FileKeyring(folder, PASSPHRASE))
    assert caught.value.hint
    for path in folder.glob("*.key"):
        path.unlink()
    write_transport_key(folder / "c.key", PrivateRsaKey.generate(2048), None)
    alone = FileKeyring(folder, None)
    with pytest.raises(ConfigurationInvalid, match=min(alone.transport_kids)):
        JoinedKeyring(alone, alone)


def test_a_process_without_any_keyring_is_told_both_settings() -> None:
    """Files and token are named."""
    with pytest.raises(ConfigurationInvalid) as caught:
        open_keyring(None, None, pin_file=None, passphrase=None)
    assert {"STRONGROOM_SEALING_KEYS_DIR", "STRONGROOM_KEYRING"} <= set(str(caught.value.hint).split())


def test_a_process_with_a_folder_alone_needs_no_pkcs11(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who have no token need not install its library."""
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    held = open_keyring(None, folder, pin_file=None, passphrase=PASSPHRASE)
    assert held.kids == {key.kid for key in SEALING_KEYS.values()}
