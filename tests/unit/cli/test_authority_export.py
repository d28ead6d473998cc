"""`authority export`: the transport key of a verified roster, in the forms that other programs take."""

import json
import subprocess
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from tests.support import authority as make
from tests.support.cms import private_key
from tests.support.cryptoapi import PUBLIC
from tests.support.wrapping import KEY, KID, kid_of

from strongroom.crypto.rsa import PrivateRsaKey
from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode
from strongroom.formats.cms import EnvelopedData
from strongroom.mandates import SealingKeyState, TransportKey
from strongroom.roster import Roster
from strongroom.wrapped import recipient_key
from strongroom_agent.identity import attach, create_officer_home
from strongroom_cli import authority_export
from strongroom_cli.app import cli

Run = Callable[..., Result]
OTHER = private_key("other")


def named(key: PrivateRsaKey, state: SealingKeyState = SealingKeyState.ACTIVE) -> TransportKey:
    return TransportKey(kid=kid_of(key), public_key=key.public_key.to_spki(), state=state)


def founded(folder: Path, *keys: TransportKey) -> Roster:
    """Write a roster and the root's public key into a folder, as `authority init` does."""
    roster = make.roster(transport_keys=list(keys))
    (folder / "roster.json").write_bytes(roster.statement.envelope())
    (folder / "root.pub").write_text(b64encode(make.signing_key("root").public_key).decode())
    return roster


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in a folder of its own, at the time of the roster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(authority_export, "time", SimpleNamespace(time=lambda: make.NOW))

    def command(*words: str) -> Result:
        result = CliRunner().invoke(cli, ["authority", "export", *words])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return command


def test_the_public_key_blob_is_the_one_of_the_other_implementation(run: Run, tmp_path: Path) -> None:
    """Byte for byte; what it is is said on standard error."""
    founded(tmp_path, named(KEY))
    told = run(".", "--as", "publickeyblob", "--out", "authority.blob")
    assert told.exit_code == ExitCode.DONE
    assert Path("authority.blob").read_bytes() == PUBLIC
    assert f"exported transport key {KID} (active), written to authority.blob" in told.stderr
    assert "2048 bits" in told.stderr


@pytest.mark.parametrize("options", [(), ("-keyopt", "rsa_padding_mode:oaep"), ("-keyid",)])
def test_openssl_encrypts_to_the_certificate_and_the_message_is_for_the_key(
    run: Run, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """By issuer and serial number, or by key identifier; in either padding."""
    roster = founded(tmp_path, named(KEY))
    assert run("roster.json", "--as", "certificate", "--out", "cert.pem").exit_code == ExitCode.DONE
    Path("content").write_bytes(b"a key")
    into = ("-in", "content", "-outform", "DER", "-out", "message", "-recip", "cert.pem")
    subprocess.run(["openssl", "cms", "-encrypt", "-binary", "-aes256", *into, *options], check=True)
    message = EnvelopedData.parse(Path("message").read_bytes())
    recipient = message.recipient_for(recipient_key(roster.body.transport_keys[0], roster.body.authority))
    assert (recipient.oaep is not None) == (len(options) == 2)
    assert message.open(KEY, recipient) == Secret(b"a key")


def test_the_bare_public_key_goes_to_standard_output(run: Run, tmp_path: Path) -> None:
    """Where a pipe wants it."""
    founded(tmp_path, named(KEY))
    told = run(".", "--as", "pem", "--out", "-")
    assert told.stdout.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert "written to" not in told.stderr


def test_the_first_active_key_is_exported_unless_another_is_named(run: Run, tmp_path: Path) -> None:
    """An accepted one is taken still, a closed one not."""
    founded(
        tmp_path,
        named(private_key(), SealingKeyState.CLOSED),
        named(OTHER, SealingKeyState.ACCEPTED),
        named(KEY),
    )

    def exported(*words: str) -> str:
        told = run(".", "--as", "pem", "--out", "out", "--force", "-o", "json", *words)
        return str(json.loads(told.stdout)["kid"]) if told.exit_code == 0 else str(told.exit_code)

    assert exported() == KID
    assert exported("--kid", kid_of(OTHER)) == kid_of(OTHER)
    assert exported("--kid", kid_of(private_key())) == str(ExitCode.FAILED.value)
    assert exported("--kid", "0" * 32) == str(ExitCode.FAILED.value)


def test_a_program_is_told_what_it_got(run: Run, tmp_path: Path) -> None:
    """One document."""
    founded(tmp_path, named(KEY))
    document = json.loads(run(".", "--as", "certificate", "--out", "cert.pem", "-o", "json").stdout)
    assert document == {
        "schema": 1,
        "kind": "transport-key",
        "authority": make.AUTHORITY,
        "roster_version": 1,
        "kid": KID,
        "state": "active",
        "modulus_bits": 2048,
        "modulus_sha256": KEY.public_key.fingerprint,
        "as": "certificate",
        "out": "cert.pem",
    }


def test_the_newest_roster_of_a_home_serves_as_well(run: Run, tmp_path: Path) -> None:
    """Without any file of the authority."""
    home = create_officer_home(tmp_path / "alice", "officer-a", passphrase=None)
    officer = make.officer("officer-a").model_copy(update={"public_key": home.config.public_key})
    roster = make.roster(transport_keys=[named(KEY)], officers=[officer, make.officer("officer-b")])
    attach(
        home,
        root_key=make.signing_key("root").public_key,
        roster=roster.statement.envelope(),
        broker_url="amqps://officer:hidden@broker.example/strongroom",
        broker_ca=None,
        now=make.NOW,
    )
    assert run("--as", "publickeyblob", "--out", "blob", "--home", "alice").exit_code == ExitCode.DONE
    assert Path("blob").read_bytes() == PUBLIC
    refused = run("--as", "pem", "--out", "o", "--home", "alice", "--root-key", "alice/config.toml")
    assert refused.exit_code == ExitCode.USAGE


def test_a_roster_that_the_pinned_key_did_not_sign_gives_nothing(run: Run, tmp_path: Path) -> None:
    """Whoever wraps for a false key wraps for its maker."""
    founded(tmp_path, named(KEY))
    Path("root.pub").write_text(b64encode(make.signing_key("somebody").public_key).decode())
    assert run(".", "--as", "pem", "--out", "out").exit_code == ExitCode.FAILED
    assert not Path("out").exists()


def test_an_expired_roster_and_one_without_such_a_key_give_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with what to do about it."""
    founded(tmp_path)
    told = run(".", "--as", "pem", "--out", "out")
    assert told.exit_code == ExitCode.FAILED
    assert "no active transport key" in told.stderr
    assert "add-key" in told.stderr
    founded(tmp_path, named(KEY))
    monkeypatch.setattr(authority_export, "time", SimpleNamespace(time=lambda: make.NOW + 366 * make.DAY))
    assert "expired" in run(".", "--as", "pem", "--out", "out").stderr
    assert not Path("out").exists()


def test_a_file_is_not_overwritten_by_mistake(run: Run, tmp_path: Path) -> None:
    """And standard output holds a document or a key, never both."""
    founded(tmp_path, named(KEY))
    Path("out").write_text("mine")
    assert run(".", "--as", "pem", "--out", "out").exit_code == ExitCode.USAGE
    assert Path("out").read_text() == "mine"
    assert run(".", "--as", "pem", "--out", "not/there").exit_code == ExitCode.USAGE
    assert run(".", "--as", "pem", "--out", "-", "-o", "json").exit_code == ExitCode.USAGE
    assert run(".", "--as", "pem", "--out", "out", "--force").exit_code == ExitCode.DONE
    assert Path("out").read_text() != "mine"
