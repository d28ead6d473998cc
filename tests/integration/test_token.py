"""A token, SoftHSM's, and what goes wrong with tokens: nothing of it may look as if a key were lost."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pkcs11 import Attribute, KeyType, MechanismFlag, Token, TokenFlag
from pkcs11.exceptions import PinLocked, PKCS11Error
from pkcs11.util.ec import encode_named_curve_parameters
from structlog.testing import capture_logs
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.proving import named, proven_place
from tests.support.recovery import place_of
from tests.support.resealing import adopt, new_key, reseal_leaves, resealer, write_key
from tests.support.tokens import MODULE, PIN, Shelf, SoftToken, shelf_in
from tests.support.workers import Brokers, Databases, write_files

from strongroom.blobs import BlobContext, ReleaseContext, check_fingerprint, open_material, seal_material
from strongroom.crypto import token, token_objects, token_session
from strongroom.crypto.key_file import write_sealing_key
from strongroom.crypto.keyring import open_keyring
from strongroom.crypto.pkcs11_module import DeviceFault, Pkcs11Module
from strongroom.crypto.pkcs11_uri import Pkcs11Uri
from strongroom.crypto.rsa import Padding, RsaPublicKey, wrap
from strongroom.crypto.sealing import PrivateSealingKey, Suite, kid, seal
from strongroom.crypto.secret import Secret
from strongroom.crypto.token import TokenKeyring
from strongroom.crypto.token_keys import make_key
from strongroom.crypto.token_objects import KeyLabel, TokenKey
from strongroom.crypto.token_session import TokenSession
from strongroom.errors import (
    BlobInvalid,
    ConfigurationInvalid,
    Denied,
    KeyDeviceUnavailable,
    KeyFileInvalid,
    UsageError,
)
from strongroom.fields import new_id
from strongroom.key_cards import KeyCard
from strongroom.mandates import SealingKey, SealingKeyState
from strongroom.messages import Record, Release
from strongroom.roster import Roster
from strongroom.service import Health
from strongroom.settings import read_root_key, read_roster
from strongroom_cli import drill
from strongroom_cli.authority import init
from strongroom_cli.authority_keys import add_key
from strongroom_cli.doctor import doctor
from strongroom_cli.officer import init as officer_init
from strongroom_recovery.reseal import worker as reseal_worker

INFO = b"the place of this blob"
MATERIAL = Secret(b"planted key material")
WRONG = Secret(b"a wrong pin")
LENGTHS = range(16, 33)
NO_FLAGS = TokenFlag(0)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    with shelf_in(tmp_path / "shelf") as made:
        yield made


@pytest.fixture
def soft(shelf: Shelf) -> SoftToken:
    """A token without keys."""
    return shelf.add("authority")


class Opened:
    """A token with a sealing key and a transport key, opened."""

    def __init__(self, soft: SoftToken) -> None:
        self.soft = soft
        self.sealing, self.transport = soft.make(KeyLabel.SEALING), soft.make(KeyLabel.TRANSPORT)
        self.keyring = soft.keyring()
        self.blob = seal(Suite.P256, self.sealing.public_key, MATERIAL.expose(), INFO)
        self.wrapped = wrap(RsaPublicKey.from_spki(self.transport.public_key), MATERIAL, Padding.OAEP)

    def open(self, blob: bytes | None = None) -> Secret:
        """Open a blob that was sealed to it."""
        return self.keyring.opener(self.sealing.kid).open(blob or self.blob, INFO)

    def unwrap(self, wrapped: bytes | None = None, padding: Padding = Padding.OAEP) -> Secret:
        """Unwrap a key that was wrapped for it."""
        return self.keyring.transport(self.transport.kid).unwrap(wrapped or self.wrapped, padding, LENGTHS)

    @property
    def questions(self) -> list[Callable[[], Secret]]:
        """Everything it can be asked: good and bad blobs, good and bad wrapped keys."""
        bad = self.blob[:-1] + bytes([self.blob[-1] ^ 1])
        return [self.open, self.unwrap, lambda: self.open(bad), lambda: self.unwrap(self.spoilt)]

    @property
    def spoilt(self) -> bytes:
        """A wrapped key with another last bit."""
        return self.wrapped[:-1] + bytes([self.wrapped[-1] ^ 1])

    def check(self) -> None:
        """Assert that it opens what it should, and refuses what it should."""
        opens, unwraps, *refused = self.questions
        assert (opens(), unwraps()) == (MATERIAL, MATERIAL)
        for question in refused:
            with pytest.raises(BlobInvalid):
                question()


@pytest.fixture
def opened(soft: SoftToken) -> Iterator[Opened]:
    made = Opened(soft)
    yield made
    made.keyring.close()


# ---- keys that are made there --------------------------------------------------------------------------------


def test_a_key_that_is_made_on_a_token_stays_there(soft: SoftToken) -> None:
    """It is marked so, its value is not given out, its CKA_ID is its kid, and it may do one thing only."""
    for label, able in ((KeyLabel.SEALING, "DERIVE"), (KeyLabel.TRANSPORT, "DECRYPT")):
        made = soft.make(label)
        session = TokenSession.open(soft.uri, PIN)
        (private,) = session._objects("PRIVATE_KEY", label=label)
        marks = ("SENSITIVE", "NEVER_EXTRACTABLE", "EXTRACTABLE", "PRIVATE", "TOKEN", "SIGN", "UNWRAP", able)
        assert [token_objects.attribute(private, name) for name in marks] == [
            *(True, True, False, True, True, False, False, True)
        ]
        assert token_objects.attribute(private, "ID").hex() == made.kid
        with pytest.raises(DeviceFault, match="AttributeSensitive"):
            token_objects.attribute(private, "VALUE" if label is KeyLabel.SEALING else "PRIVATE_EXPONENT")
        session.close()
        keyring = soft.keyring()
        assert made.kid in keyring.kids | keyring.transport_kids
        keyring.close()


def test_a_key_is_known_by_its_public_key_and_not_by_what_it_is_called(soft: SoftToken) -> None:
    """The CKA_ID only leads from one half to the other."""
    made = soft.make(KeyLabel.SEALING)
    edit(soft, lambda held: held.__setitem__(Attribute.ID, b"another"))
    keyring = soft.keyring()
    assert keyring.kids == {made.kid}
    keyring.close()


def test_a_key_that_does_not_work_is_not_left_on_the_token(
    soft: SoftToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody finds half a key later."""
    with monkeypatch.context() as patch:
        patch.setattr(token_objects, "works", lambda *_: False)
        with pytest.raises(ConfigurationInvalid, match="does not open what is sealed to its public key"):
            soft.make(KeyLabel.SEALING)
    assert objects(soft) == []


def test_a_short_transport_key_is_not_made(soft: SoftToken) -> None:
    """The same lower limit as for key files."""
    with pytest.raises(ValueError, match="2048"):
        make_key(soft.uri, PIN, KeyLabel.TRANSPORT, bits=1024)


def edit(soft: SoftToken, change: Callable[[Any], None], kind: str | None = None) -> None:
    """Change every object on a token, or those of a kind, as its owner can."""
    session = TokenSession.open(soft.uri, PIN, writing=True)
    for each in ("PRIVATE_KEY", "PUBLIC_KEY"):
        for held in session._objects(each) if kind in (None, each) else ():
            change(held)
    session.close()


def objects(soft: SoftToken) -> list[str]:
    """Return the labels of all objects on a token."""
    found: list[str] = []
    edit(soft, lambda held: found.append(held.label))
    return found


# ---- tokens that come and go ---------------------------------------------------------------------------------


def test_a_token_that_is_taken_away_and_put_back_costs_no_blob(opened: Opened, shelf: Shelf) -> None:
    """While it is away nothing is said about any blob, good or bad; afterwards everything is as before."""
    opened.check()
    with shelf.away():
        for question in opened.questions * 2:
            with pytest.raises(KeyDeviceUnavailable, match="authority"):
                question()
    opened.check()


def test_sessions_that_were_closed_behind_its_back_are_opened_again_unnoticed(opened: Opened, shelf: Shelf) -> None:
    """The question is put again to a new session; neither a good nor a bad blob is answered otherwise."""
    for question in opened.questions[:2]:
        shelf.reset()
        assert question() == MATERIAL
    shelf.reset()
    opened.check()


def test_a_logout_by_somebody_else_in_the_process_is_made_good(opened: Opened) -> None:
    """There is one login for all sessions of a process, and whoever made it ends it."""
    first, opened.keyring = opened.keyring, opened.soft.keyring()
    opened.check()
    first.close()
    opened.check()


def test_a_session_never_uses_the_numbers_of_one_that_came_later(opened: Opened, shelf: Shelf) -> None:
    """After a restart the same handles may be those of another token's session and keys."""
    other = Opened(shelf.add("another"))
    for each in (other, opened, other):
        each.keyring.close()
        shelf.reset()
        each.keyring = each.soft.keyring()
    opened.check()
    other.check()
    other.keyring.close()


def test_a_token_whose_keys_are_gone_condemns_no_blob(opened: Opened, shelf: Shelf) -> None:
    """An empty token of the same name is trouble with the token; nobody may take the records for lost."""
    shelf.util("--delete-token", "--token", "authority")
    shelf.add("authority")
    shelf.reset()
    for question in opened.questions:
        with pytest.raises(KeyDeviceUnavailable, match="a key is not there any more"):
            question()


def test_a_token_that_gives_wrong_results_condemns_no_blob(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a blob is called bad, the key has to open one of our making."""
    with monkeypatch.context() as patch:
        patch.setattr(token_objects, "derived", lambda *_: Secret(bytes(32)))
        with pytest.raises(KeyDeviceUnavailable, match="wrong results"):
            opened.open()
    opened.check()


@pytest.mark.parametrize("trial", [None, Secret(bytes(32))], ids=["refused, too", "wrong"])
def test_a_token_that_refuses_a_wrapped_key_has_to_open_one_of_our_making(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, trial: Secret | None
) -> None:
    """Its word for a bad ciphertext is that for its own faults; where it fails at ours, no key is called bad."""

    def decrypted(_private: object, ciphertext: bytes) -> Secret:
        if trial is None or ciphertext == opened.wrapped:
            raise DeviceFault("EncryptedDataInvalid")
        return trial

    with monkeypatch.context() as patch:
        patch.setattr(token_objects, "decrypted", decrypted)
        with pytest.raises(KeyDeviceUnavailable):
            opened.unwrap()
    opened.check()


def test_one_failure_of_a_token_is_made_good(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is repeated in a new session, and the answer is the right one, good or bad."""
    for function in ("derived", "decrypted"):
        working, failures = getattr(token_objects, function), [DeviceFault("DeviceError")]

        def once(*arguments: Any, working: Any = working, failures: Any = failures) -> Secret:
            if failures:
                raise failures.pop()
            found: Secret = working(*arguments)
            return found

        with monkeypatch.context() as patch:
            patch.setattr(token_objects, function, once)
            opened.check()


def test_a_token_that_hangs_is_given_up_and_taken_up_again(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever; when it answers at last, it goes on."""
    again = Event()
    working = token_objects.derived

    def hanging(*arguments: Any) -> Secret:
        again.wait()
        return working(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(token, "ANSWER_SECONDS_MAX", 0.01)
        patch.setattr(token_objects, "derived", hanging)
        for _ in range(2):
            with pytest.raises(KeyDeviceUnavailable, match="no answer"):
                opened.open()
        again.set()
    opened.check()


def test_a_keyring_that_is_closed_stays_closed(opened: Opened) -> None:
    """Closing again does nothing."""
    opened.keyring.close()
    opened.keyring.close()
    with pytest.raises(RuntimeError):
        opened.open()


def test_a_child_process_does_not_use_the_token_of_its_parent(soft: SoftToken, shelf: Shelf) -> None:
    """Session, login and thread are the parent's; without this the child would wait for ever."""
    made = soft.make(KeyLabel.SEALING)
    script = f"""
import os
from strongroom.crypto.keyring import open_keyring
from strongroom.crypto.sealing import Suite, seal
ring = open_keyring({soft.setting!r}, None, pin_file=None, passphrase=None)
opener, blob = ring.opener({made.kid!r}), seal(Suite.P256, bytes.fromhex({made.public_key.hex()!r}), b"x", b"")
child = os.fork()
if child == 0:
    try:
        opener.open(blob, b"")
    except RuntimeError as error:
        os.write(1, str(error).encode())
    ring.close()
    os._exit(0)
os.waitpid(child, 0)
assert opener.open(blob, b"").expose() == b"x"
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "SOFTHSM2_CONF": str(shelf.config)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "a TokenKeyring belongs to the process that made it"), done.stderr


# ---- PINs ----------------------------------------------------------------------------------------------------


class Counted:
    """A token that counts logins, and says of itself what a test wants."""

    def __init__(self, real: Token, flags: TokenFlag, logins: list[None], refusal: PKCS11Error | None) -> None:
        self._real, self._logins, self._refusal = real, logins, refusal
        self.flags = real.flags | flags

    def open(self, **arguments: Any) -> Any:
        """Log in, if that is wanted, and count it."""
        if "user_pin" in arguments:
            self._logins.append(None)
        if self._refusal is not None:
            raise self._refusal
        return self._real.open(**arguments)


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[None]]:
    """Give a function that begins to count logins, with other flags or a refusal if need be."""
    found = token_session._found

    def counting(flags: TokenFlag = NO_FLAGS, refusal: PKCS11Error | None = None) -> list[None]:
        logins: list[None] = []
        monkeypatch.setattr(token_session, "_found", lambda *where: Counted(found(*where), flags, logins, refusal))
        return logins

    return counting


def test_a_wrong_pin_is_tried_once(soft: SoftToken, count: Callable[..., list[None]]) -> None:
    """The error says where to correct it, and does not show it; the right one still opens the token."""
    logins = count()
    with pytest.raises(ConfigurationInvalid, match="refused the PIN, which was tried once") as caught:
        TokenKeyring(soft.uri, WRONG)
    assert "STRONGROOM_KEYRING_PIN_FILE" in str(caught.value.hint)
    assert WRONG.expose().decode() not in f"{caught.value} {caught.value.hint} {caught.value!r}"
    assert len(logins) == 1
    soft.keyring().close()


def test_a_pin_that_became_wrong_is_tried_once_for_all_that_is_asked(
    opened: Opened, shelf: Shelf, count: Callable[..., list[None]]
) -> None:
    """It was changed while the token was in use: reconnecting must not use up the tries that are left."""
    writing = TokenSession.open(opened.soft.uri, PIN, writing=True)
    writing._session.set_pin(PIN.expose().decode(), "another pin")
    shelf.reset()
    logins = count()
    for question in opened.questions * 2:
        with pytest.raises(KeyDeviceUnavailable, match="refused the PIN"):
            question()
    assert len(logins) == 1


@pytest.mark.parametrize(
    ("flags", "refusal", "words", "tried"),
    [
        (TokenFlag.USER_PIN_LOCKED, None, "its PIN is locked", 0),
        (NO_FLAGS, PinLocked(), "its PIN is locked", 1),
        (TokenFlag.USER_PIN_FINAL_TRY, None, "one more wrong PIN would lock it", 0),
    ],
)
def test_a_pin_that_is_locked_or_nearly_is_not_tried(
    soft: SoftToken,
    count: Callable[..., list[None]],
    *,
    flags: TokenFlag,
    refusal: PKCS11Error | None,
    words: str,
    tried: int,
) -> None:
    """A worker that its supervisor starts again and again must not lock the token."""
    logins = count(flags, refusal)
    with pytest.raises(ConfigurationInvalid, match=words) as caught:
        TokenKeyring(soft.uri, WRONG)
    assert caught.value.hint
    assert len(logins) == tried


def test_a_token_without_a_user_pin_is_refused(soft: SoftToken, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets it up has to finish."""

    class Bare:
        flags = TokenFlag.TOKEN_INITIALIZED

    monkeypatch.setattr(token_session, "_found", lambda *_: Bare())
    with pytest.raises(ConfigurationInvalid, match="no user PIN yet"):
        soft.keyring()


def test_the_pin_comes_from_a_guarded_file(soft: SoftToken, shelf: Shelf, tmp_path: Path) -> None:
    """The file of the URI, or else that of the setting; others may not read it, and there has to be one."""
    made = soft.make(KeyLabel.SEALING)
    for uri, pin_file in ((soft.setting, None), (str(soft.uri), shelf.pin_file), (soft.setting, tmp_path / "none")):
        ring = open_keyring(uri, None, pin_file=pin_file, passphrase=None)
        assert isinstance(ring, TokenKeyring)
        assert ring.kids == {made.kid}
        ring.close()
    with pytest.raises(ConfigurationInvalid, match="no file with its PIN"):
        open_keyring(str(soft.uri), None, pin_file=None, passphrase=None)
    shelf.pin_file.chmod(0o644)
    with pytest.raises(KeyFileInvalid, match="others may use this file"):
        open_keyring(soft.setting, None, pin_file=None, passphrase=None)
    shelf.pin_file.write_bytes(b"\xff\n")
    shelf.pin_file.chmod(0o600)
    with pytest.raises(ConfigurationInvalid, match="no UTF-8"):
        open_keyring(soft.setting, None, pin_file=None, passphrase=None)


# ---- tokens and modules that cannot be used ------------------------------------------------------------------


def test_a_token_that_is_not_there_is_named(soft: SoftToken) -> None:
    """Each attribute of the URI counts; the error says what was looked for, and how to see what there is."""
    for missing in ("token=other", "token=authority;serial=0", "token=authority;model=x", "slot-id=4711"):
        uri = Pkcs11Uri.parse(f"pkcs11:{missing}?module-path={MODULE}")
        with pytest.raises(ConfigurationInvalid, match="has no token with") as caught:
            TokenKeyring(uri, PIN)
        assert uri.description in str(caught.value)
        assert "--list-slots" in str(caught.value.hint)
    assert soft.keyring().kids == frozenset()


def test_two_tokens_of_one_label_are_told_apart_by_their_serial_numbers(soft: SoftToken, shelf: Shelf) -> None:
    """Neither is chosen for the operator; the error names both."""
    made = soft.make(KeyLabel.SEALING)
    before = serials()
    shelf.add("authority")
    shelf.reset()
    with pytest.raises(ConfigurationInvalid, match="2 tokens have token 'authority'") as caught:
        soft.keyring()
    assert all(serial in str(caught.value.hint) for serial in serials())
    chosen = Pkcs11Uri(MODULE, token="authority", serial=before.pop())
    keyring = TokenKeyring(chosen, PIN)
    assert keyring.kids == {made.kid}
    keyring.close()


def serials() -> set[str]:
    module = Pkcs11Module.load(MODULE)
    with module.lock:
        return {each.serial.decode() for each in module.tokens(Pkcs11Uri(MODULE, token="authority"))}


@pytest.mark.parametrize("file", ["no module", "another library", "missing", "a folder"])
def test_a_file_that_is_no_module_is_refused(tmp_path: Path, file: str) -> None:
    """The error names the file and what to look at."""
    (tmp_path / "no module").write_text("#!/bin/sh\n")
    (tmp_path / "a folder").mkdir()
    (tmp_path / "another library").symlink_to(next(Path("/lib").glob("*/libm.so.6")))
    with pytest.raises(ConfigurationInvalid, match="cannot be loaded") as caught:
        TokenKeyring(Pkcs11Uri(tmp_path / file, token="authority"), PIN)
    assert str(tmp_path / file) in str(caught.value)
    assert "module-path" in str(caught.value.hint)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who have no token install none of it."""
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(ConfigurationInvalid, match="python-pkcs11") as caught:
        Pkcs11Module(MODULE)
    assert caught.value.hint == "install strongroom[hsm]"


# ---- keys that cannot be used --------------------------------------------------------------------------------


def unusable(soft: SoftToken, words: str) -> None:
    """Assert that the token is refused for a key of which the error says this, and what to do."""
    with pytest.raises(ConfigurationInvalid, match=words) as caught:
        soft.keyring()
    assert "the private key strongroom-" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("label", KeyLabel)
def test_a_key_without_its_public_half_is_refused(soft: SoftToken, label: KeyLabel) -> None:
    """Without it nobody knows which key this is."""
    soft.make(label)
    edit(soft, lambda held: held.destroy(), "PUBLIC_KEY")
    unusable(soft, "has no public key objects")


def test_a_key_with_two_public_halves_is_refused(soft: SoftToken) -> None:
    """One of them would be chosen by chance."""
    for _ in range(2):
        soft.make(KeyLabel.SEALING)
    edit(soft, lambda held: held.__setitem__(Attribute.ID, b"the same"))
    unusable(soft, "has 2 public key objects")


def test_a_public_half_of_another_key_is_refused(soft: SoftToken) -> None:
    """Whoever can write to the token could have others seal to a key of his own."""
    soft.make(KeyLabel.SEALING)
    other = PrivateSealingKey.generate(Suite.P256).public_key
    taken: list[bytes] = []
    edit(soft, lambda held: taken.append(held.id), "PUBLIC_KEY")
    edit(soft, lambda held: held.destroy(), "PUBLIC_KEY")
    session = TokenSession.open(soft.uri, PIN, writing=True)
    session._session.create_object(
        {
            Attribute.CLASS: 2,
            Attribute.KEY_TYPE: KeyType.EC,
            Attribute.EC_PARAMS: token_objects.P256_PARAMETERS,
            Attribute.EC_POINT: b"\x04\x41" + other,
            Attribute.ID: taken[0],
            Attribute.TOKEN: True,
        }
    )
    session.close()
    unusable(soft, "does not open what is sealed to its public key")


GOOD: dict[Attribute, Any] = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}


@pytest.mark.parametrize(
    ("label", "curve", "able", "marks", "words"),
    [
        (KeyLabel.SEALING, "secp256r1", MechanismFlag.DERIVE, {Attribute.EXTRACTABLE: True}, "can be extracted"),
        (
            KeyLabel.SEALING,
            "secp256r1",
            MechanismFlag.DERIVE,
            {Attribute.SENSITIVE: False},
            "not marked as sensitive",
        ),
        (KeyLabel.SEALING, "secp256r1", MechanismFlag.SIGN, {}, "CKA_DERIVE is not set"),
        (KeyLabel.SEALING, "secp384r1", MechanismFlag.DERIVE, {}, "has no public key of P-256"),
        (KeyLabel.SEALING, None, MechanismFlag.DECRYPT, {Attribute.DERIVE: True}, "has no public key of P-256"),
        (KeyLabel.TRANSPORT, None, MechanismFlag.SIGN, {}, "CKA_DECRYPT is not set"),
        (KeyLabel.TRANSPORT, None, MechanismFlag.DECRYPT, {}, "has no public key of RSA"),
    ],
)
def test_a_key_that_was_made_otherwise_is_refused(
    soft: SoftToken,
    *,
    label: KeyLabel,
    curve: str | None,
    able: MechanismFlag,
    marks: dict[Attribute, Any],
    words: str,
) -> None:
    """Keys that could leave the token, may not do their work, or are of another kind."""
    session = TokenSession.open(soft.uri, PIN, writing=True)
    given: dict[str, Any] = {
        "store": True,
        "label": label.value,
        "id": b"made by hand",
        "capabilities": able,
        "private_template": GOOD | marks,
    }
    if curve is None:
        session._session.generate_keypair(KeyType.RSA, 1024, **given)
    else:
        parameters = {Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}
        session._session.create_domain_parameters(KeyType.EC, parameters, local=True).generate_keypair(**given)
    session.close()
    unusable(soft, words)


def test_keys_of_others_on_the_token_are_left_alone(opened: Opened) -> None:
    """Only those with the two labels are Strongroom's."""
    session = TokenSession.open(opened.soft.uri, PIN, writing=True)
    session._session.generate_keypair(KeyType.RSA, 1024, store=True, label="of the mail server")
    session.close()
    again = opened.soft.keyring()
    assert again.kids | again.transport_kids == {opened.sealing.kid, opened.transport.kid}
    again.close()


def test_a_token_opens_no_pkcs1_padding(opened: Opened) -> None:
    """Tokens tell bad padding from good; the refusal is the same for every ciphertext, and no blob is condemned."""
    public = RsaPublicKey.from_spki(opened.transport.public_key)
    for ciphertext in (wrap(public, MATERIAL, Padding.PKCS1), opened.wrapped, bytes(public.size)):
        with pytest.raises(Denied, match="on a token") as caught:
            opened.unwrap(ciphertext, Padding.PKCS1)
        assert "key file" in str(caught.value.hint)


# ---- folder and token ----------------------------------------------------------------------------------------


def test_a_folder_and_a_token_make_one_keyring(opened: Opened, tmp_path: Path) -> None:
    """That is how keys move into hardware: old blobs open from the file, new ones on the token."""
    old = PrivateSealingKey.generate(Suite.X_WING)
    (tmp_path / "keys").mkdir()
    write_sealing_key(tmp_path / "keys" / "old.key", old, None)
    opened.keyring.close()
    ring = open_keyring(opened.soft.setting, tmp_path / "keys", pin_file=None, passphrase=None)
    assert ring.kids == {old.kid, opened.sealing.kid}
    assert ring.transport_kids == {opened.transport.kid}
    assert ring.opener(old.kid).open(seal(old.suite, old.public_key, b"x", INFO), INFO) == Secret(b"x")
    assert ring.opener(opened.sealing.kid).open(opened.blob, INFO) == MATERIAL


def test_the_doctor_and_the_drill_open_the_token(
    soft: SoftToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both say how many keys open there, and which one of the roster does not."""
    key, other = soft.make(KeyLabel.SEALING), make.sealing_key()
    roster = make.roster(sealing_keys=[entry(key), make.sealing_entry(other)])
    files = write_files(tmp_path / "recovery", roster, "recovery")
    for name in ("root_key_file", "roster_file"):
        monkeypatch.setenv(f"STRONGROOM_{name.upper()}", str(files[name]))
    monkeypatch.setenv("STRONGROOM_KEYRING", soft.setting)

    def said() -> dict[str, str]:
        told = CliRunner().invoke(doctor, ["--home", str(tmp_path / "none"), "-o", "json"])
        (found,) = [each for each in json.loads(told.stdout)["findings"] if each["check"] == "sealing keys"]
        return {name: found[name] for name in ("verdict", "detail")}

    found = said()
    assert found["verdict"] == "failed"
    assert f"the token: {other.kid}" in found["detail"]
    monkeypatch.setenv("STRONGROOM_SEALING_KEYS_DIR", str(files["sealing_keys_dir"]))
    assert said() == {"verdict": "ok", "detail": f"2 open in {files['sealing_keys_dir']} and the token"}
    assert drill._keyring(None, soft.setting, None, None).kids == {key.kid}
    with pytest.raises(UsageError, match="--keys or --pkcs11"):
        drill._keyring(None, None, None, None)


# ---- the ceremony --------------------------------------------------------------------------------------------


@pytest.fixture
def found(tmp_path: Path, soft: SoftToken) -> Callable[..., Result]:
    """Give a function that founds an authority on the token in the folder `keys`, with more options if need be."""
    card = tmp_path / "officer.json"
    told = CliRunner().invoke(officer_init, ["alice", "--home", str(tmp_path / "alice")])
    card.write_text(told.stdout)

    def founding(*options: str) -> Result:
        arguments = (
            str(tmp_path / "keys"),
            "--authority",
            make.AUTHORITY,
            "--officer",
            str(card),
            "--no-passphrase",
        )
        few = ("--replacement-signatures", "1", "--no-transport-key", "--pkcs11", soft.setting)
        return CliRunner().invoke(init, [*arguments, *few, *options])

    return founding


def test_an_authority_is_founded_on_a_token(found: Callable[..., Result], soft: SoftToken, tmp_path: Path) -> None:
    """Its first roster names the key that was made there, and no key file holds it."""
    done = found()
    assert done.exit_code == 0, done.stderr
    keys = tmp_path / "keys"
    roster = Roster.verified(read_roster(keys / "roster.json"), read_root_key(keys / "root.pub"))
    (named_there,) = roster.body.sealing_keys
    assert named_there.suite is Suite.P256
    keyring = soft.keyring()
    assert keyring.kids == {named_there.kid}
    keyring.close()
    assert sorted(file.name for file in (keys / "recovery").iterdir()) == ["log.key", "reply.key"]


def test_a_ceremony_that_fails_leaves_no_key_on_the_token(
    found: Callable[..., Result], soft: SoftToken, tmp_path: Path
) -> None:
    """Whatever can be found out before the key is made is found out before."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "taken").touch()
    assert found().exit_code != 0
    (tmp_path / "keys" / "taken").unlink()
    absent = str(Pkcs11Uri(MODULE, token="another", pin_source=soft.shelf.pin_file))
    for options in (("--suite", "x-wing"), ("--authority", "No Name"), ("--pkcs11", absent)):
        assert found(*options).exit_code != 0
        assert list((tmp_path / "keys").iterdir()) == []
    assert objects(soft) == []


@pytest.mark.parametrize(("use", "suite"), [("sealing", "dhkem-p256"), ("transport", None)])
def test_a_key_is_added_on_a_token(
    found: Callable[..., Result], soft: SoftToken, tmp_path: Path, use: str, suite: str | None
) -> None:
    """Its card is that of the key on the token; the steps that follow are said."""
    assert found().exit_code == 0
    arguments = [str(tmp_path / "keys"), "--for", use, "--pkcs11", soft.setting]
    done = CliRunner().invoke(add_key, [*arguments, *(("--bits", "2048") if use == "transport" else ())])
    assert done.exit_code == 0, done.stderr
    card = KeyCard.parse(done.stdout_bytes)
    assert (card.use.value, card.suite) == (use, suite)
    keyring = soft.keyring()
    assert card.id in keyring.kids | keyring.transport_kids
    keyring.close()
    assert "there is no other copy" in done.stderr
    for wrong in (("--for", "escrow-log"), ("--into", str(tmp_path)), ("--suite", "x-wing")):
        refused = CliRunner().invoke(add_key, [*arguments, *wrong])
        assert isinstance(refused.exception, UsageError | SystemExit)


# ---- workers -------------------------------------------------------------------------------------------------


def entry(key: TokenKey) -> SealingKey:
    """Return the roster's entry for a key on a token."""
    return SealingKey(kid=key.kid, suite=Suite.P256, public_key=key.public_key, state=SealingKeyState.ACTIVE)


def sealed_to(key: TokenKey) -> Record:
    """Return a record whose blob is sealed to a key on a token."""
    assert key.kid == kid(Suite.P256, key.public_key)
    record_id = new_id()
    place = BlobContext(make.AUTHORITY, make.PRINCIPAL, record_id, key.kid, Suite.P256)
    sealed = seal_material(MATERIAL, place, key.public_key)
    return make.record(
        id=record_id, kid=key.kid, suite=Suite.P256, blob=sealed.blob, fingerprint=sealed.fingerprint
    )


class Waited(Health):
    """Sets an event at the first sign of life that says `waiting`."""

    def __init__(self) -> None:
        """Begin without."""
        super().__init__(None)
        self.waiting = asyncio.Event()

    def beat(self, outcome: str) -> None:
        """Look at one."""
        if outcome == "waiting":
            self.waiting.set()


async def test_the_recovery_worker_waits_for_a_token_that_is_away_and_then_answers(
    soft: SoftToken, shelf: Shelf, database: Databases, broker: Brokers, tmp_path: Path
) -> None:
    """The message stays in hand: it is neither answered nor quarantined, and no key is called lost."""
    key = soft.make(KeyLabel.SEALING)
    async with place_of(database, broker, tmp_path, enrolled=(make.PRINCIPAL,)) as place:
        place.roster = make.next_roster(place.roster, sealing_keys=[make.sealing_entry(), entry(key)])
        place.write_roster(place.roster)
        await place.escrow(make.escrow(records=[sealed_to(key)]))
        request, health = ask.request(), Waited()
        with capture_logs() as lines:
            async with place.worker(health=health, keyring=soft.setting):
                with shelf.away():
                    name = await place.submit(request.envelope())
                    await health.waiting.wait()
                release = place.signed(await place.answer(name), Release)
        (record,) = release.records
        recipient = ask.recipient(Suite.X_WING)
        context = ReleaseContext(make.AUTHORITY, request.digest, make.PRINCIPAL, record.id, recipient.kid)
        material = open_material(record.blob, context, recipient)
        check_fingerprint(material, make.AUTHORITY, make.PRINCIPAL, record.id, record.fingerprint)
        assert material.material == MATERIAL
        assert await place.quarantined() == []
        assert "key_device_unavailable" in {line.get("code") for line in lines}


async def test_a_worker_whose_token_lacks_a_key_of_the_roster_says_where_it_belongs(
    soft: SoftToken, database: Databases, broker: Brokers, tmp_path: Path
) -> None:
    """The error names the kid, and both places."""
    key, other = soft.make(KeyLabel.SEALING), PrivateSealingKey.generate(Suite.P256)
    async with place_of(database, broker, tmp_path, enrolled=(make.PRINCIPAL,)) as place:
        place.write_roster(make.next_roster(place.roster, sealing_keys=[entry(key), make.sealing_entry(other)]))
        with pytest.raises(ConfigurationInvalid, match=other.kid) as caught:
            async with place.worker(keyring=soft.setting, sealing_keys_dir=None):
                pass
    assert "folder of sealing keys" in str(caught.value.hint)
    assert "token" in str(caught.value.hint)


async def test_the_prover_waits_for_a_token_that_is_away_and_then_proves(
    soft: SoftToken, shelf: Shelf, database: Databases, tmp_path: Path
) -> None:
    """Nothing is written while it is away; afterwards every key is proven."""
    key = soft.make(KeyLabel.SEALING)
    at = await proven_place(database, tmp_path)
    at.place.write_roster(make.next_roster(at.place.roster, sealing_keys=[make.sealing_entry(), entry(key)]))
    await at.escrow(make.escrow(records=[sealed_to(key), make.record(), sealed_to(key)]))
    async with at.prover(keyring=soft.setting) as prover:
        with shelf.away(), pytest.raises(KeyDeviceUnavailable):
            await prover.turn(asyncio.Event())
        assert await at.proofs() == []
        assert await prover.turn(asyncio.Event())
    (proof,) = await at.proofs()
    assert (named([proof]), proof.records) == (set(), 3)


async def test_sealing_again_waits_for_a_token_that_is_taken_away_in_the_middle(
    soft: SoftToken, shelf: Shelf, database: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed stays, no record is left for it, and the rest follows when the token is back."""
    old, key = soft.make(KeyLabel.SEALING), new_key()
    at = await proven_place(database, tmp_path)
    at.place.write_roster(make.next_roster(at.place.roster, sealing_keys=[make.sealing_entry(), entry(old)]))
    await at.escrow(*(make.escrow(records=[sealed_to(old)]) for _ in range(3)))
    write_key(at, key)
    await adopt(at, (key, SealingKeyState.ACTIVE), (make.sealing_key(), SealingKeyState.CLOSED))
    monkeypatch.setattr(reseal_worker, "LOOK_SECONDS_MAX", -1)  # a leaf at a time
    stop = asyncio.Event()
    async with resealer(at, keyring=soft.setting) as job:
        assert await job.turn(stop)
        with shelf.away(), pytest.raises(KeyDeviceUnavailable):
            await job.turn(stop)
        assert [(leaf.records, leaf.left) for leaf in await reseal_leaves(at)] == [(1, 0)]
        await job.serve(stop)
        assert job.is_done
    assert [(leaf.first, leaf.records, leaf.left) for leaf in await reseal_leaves(at)] == [
        (n, 1, 0) for n in range(3)
    ]
    (proof,) = await at.look()
    assert (named([proof]), proof.kids) == (set(), {key.kid: 3})
