"""`capi show` says what a blob is and nothing secret; `capi derive` gives old keys to files and pipes."""

import json
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.support.cryptoapi import OWN_PRIVATE, OWN_PUBLIC, PUBLIC, WRAPPED

from strongroom.crypto.rsa import RsaPublicKey
from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode
from strongroom.formats.alg_id import RsaUse, SessionAlgorithm
from strongroom.formats.cryptoapi import PrivateKeyBlob, PublicKeyBlob
from strongroom_cli import capi as module
from strongroom_cli.app import _Root
from strongroom_cli.capi import capi

Run = Callable[..., Result]
SIMPLE = {each.algorithm: each for each in WRAPPED}
AES_256 = SIMPLE[SessionAlgorithm.AES_256]
AES_KEY = "a3bc508753274827cf2515600eaea32c226a7895c0533fcc0a67de054e4822f0"  # of `password`, by SHA-1


@pytest.fixture
def run() -> Run:
    """Run `capi` as the whole command does, with its errors and exit codes."""
    root = _Root(name="strongroom")
    root.add_command(capi)

    def command(*words: str | Path, typed: bytes = b"") -> Result:
        result = CliRunner().invoke(root, ["capi", *map(str, words)], input=typed)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return command


@pytest.fixture
def show(run: Run, tmp_path: Path) -> Callable[..., Result]:
    """Show a blob from a file."""

    def command(blob: bytes, *more: str) -> Result:
        path = tmp_path / "blob"
        path.write_bytes(blob)
        return run("show", path, *more)

    return command


def fields(result: Result) -> dict[str, str]:
    """Return what was printed for people, a field a line."""
    assert result.exit_code == ExitCode.DONE, result.output
    return {line[:19].strip(): line[19:] for line in result.stdout.splitlines()}


def hidden(result: Result, *secrets: bytes) -> None:
    """Check that no part of a secret was printed in any form that a program prints bytes in."""
    for secret in secrets:
        for start in range(0, len(secret) - 7, 4):
            part = secret[start : start + 8]
            for order in (part, part[::-1]):
                assert order.hex() not in result.output.lower()
                assert order not in result.output_bytes
                assert str(int.from_bytes(order, "big")) not in result.output


# ---- show --------------------------------------------------------------------------------------


def test_a_public_key_is_shown(show: Callable[..., Result]) -> None:
    """Type, version, use, size, exponent and fingerprint."""
    fingerprint = PublicKeyBlob.parse(PUBLIC).key.fingerprint
    assert fields(show(PUBLIC)) == {
        "type": "PUBLICKEYBLOB",
        "version": "2",
        "algorithm": "RSA, exchange",
        "modulus bits": "2048",
        "exponent": "65537",
        "modulus sha256": fingerprint,
        "new keys": "yes",
    }


def test_a_private_key_is_shown_without_what_is_private(show: Callable[..., Result]) -> None:
    """The same fingerprint as that of its public blob, and a word about what lies there."""
    shown = show(OWN_PRIVATE)
    found = fields(shown)
    assert found["type"] == "PRIVATEKEYBLOB"
    assert found["holds"] == "a private key in the clear"
    assert found["modulus sha256"] == fields(show(OWN_PUBLIC))["modulus sha256"]
    for result in (shown, show(OWN_PRIVATE, "-o", "json")):
        hidden(result, OWN_PRIVATE[276:])


def test_a_session_key_is_shown_without_the_key(show: Callable[..., Result]) -> None:
    """Algorithm and length; no digest either, from which a short key could be found."""
    for algorithm, each in SIMPLE.items():
        result = show(each.plaintext)
        found = fields(result)
        assert found["type"] == "PLAINTEXTKEYBLOB"
        assert found["algorithm"] == algorithm.label
        assert found["key bits"] == str(8 * (len(each.plaintext) - 12))
        assert found["holds"] == "a key in the clear"
        assert ("parity" in found) is algorithm.is_des
        for shown in (result, show(each.plaintext, "-o", "json")):
            hidden(shown, each.plaintext[12:])
            assert re.search("[0-9a-f]{16}", shown.output) is None


def test_a_wrapped_key_is_shown(show: Callable[..., Result]) -> None:
    """With the digest that copies have in common, and nothing about its padding, which nobody can see."""
    found = fields(show(AES_256.simple))
    assert found["type"] == "SIMPLEBLOB"
    assert found["algorithm"] == "AES-256"
    assert found["modulus bytes"] == "256"
    assert found["padding"] == "PKCS #1 v1.5 or OAEP: no blob says which"
    assert re.fullmatch("[0-9a-f]{64}", found["ciphertext sha256"])
    assert found["new keys"] == "yes"
    assert fields(show(SIMPLE[SessionAlgorithm.RC4].simple))["new keys"].startswith("no: ")


@pytest.mark.parametrize(
    ("key", "parity"), [("01" * 8, "odd"), ("00" * 8, "not set"), ("01" * 7 + "03", "not set")]
)
def test_the_parity_of_a_des_key_is_said(show: Callable[..., Result], key: str, parity: str) -> None:
    """Some programs insist on it."""
    assert fields(show(bytes.fromhex("080200000166000008000000" + key)))["parity"] == parity


def test_a_weak_public_key_is_shown_as_such(show: Callable[..., Result]) -> None:
    """It can be looked at, and is said to be of no use."""
    short = RsaPublicKey(1 << 511 | 1, 3)
    found = fields(show(PublicKeyBlob(RsaUse.EXCHANGE, short).encode()))
    assert found["modulus bits"] == "512"
    assert found["exponent"] == "3"
    assert found["new keys"].startswith("no: modulus: has 512 bits")
    found = fields(show(PublicKeyBlob(RsaUse.SIGNATURE, PublicKeyBlob.parse(PUBLIC).key).encode()))
    assert found["algorithm"] == "RSA, signature"
    assert found["new keys"] == "no: it is for signatures"


def test_a_blob_is_one_json_document(show: Callable[..., Result]) -> None:
    """For programs."""
    document = json.loads(show(PUBLIC, "-o", "json").stdout)
    assert document["schema"] == 1
    assert document["kind"] == "key-blob"
    assert (document["type"], document["version"]) == ("PUBLICKEYBLOB", 2)
    assert (document["modulus_bits"], document["exponent"]) == (2048, 65537)


def test_a_blob_may_come_through_a_pipe(run: Run) -> None:
    """A dash is standard input."""
    assert fields(run("show", "-", typed=PUBLIC))["type"] == "PUBLICKEYBLOB"


def test_a_damaged_blob_is_refused_by_its_field(show: Callable[..., Result]) -> None:
    """Exit code 1, no words about its content."""
    start = PrivateKeyBlob.parse(Secret(OWN_PRIVATE)).key.public.size
    damaged = OWN_PRIVATE[: 20 + start] + bytes([OWN_PRIVATE[20 + start] ^ 2]) + OWN_PRIVATE[21 + start :]
    for blob, words in (
        (b"", "key blob: is 0 bytes"),
        (PUBLIC[:-1], "PUBLICKEYBLOB: length: is 275 bytes"),
        (PUBLIC + b"\0", "PUBLICKEYBLOB: length: is 277 bytes"),
        (bytes(1_000_000), "KEY_BLOB_BYTES_MAX"),
        (damaged, "PRIVATEKEYBLOB: prime1, prime2: are not"),
    ):
        result = show(blob)
        assert result.exit_code == ExitCode.FAILED
        assert words in result.stderr
        assert result.stdout == ""
        hidden(result, blob[20 : min(len(blob), 1200)])


# ---- derive ------------------------------------------------------------------------------------


def test_a_key_is_written_to_a_file_of_its_owner(run: Run, tmp_path: Path) -> None:
    """Mode 0600; the password comes from standard input, without its line end."""
    for number, typed in enumerate((b"password", b"password\n", b"password\r\n", b"password\nanother line\n")):
        out = tmp_path / f"key{number}"
        result = run("derive", "--hash", "sha-1", "--algorithm", "aes-256", "--out", out, typed=typed)
        assert result.exit_code == ExitCode.DONE
        assert out.read_bytes().hex() == AES_KEY
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        assert result.stdout == ""
        assert result.stderr == f"derived a key: AES-256, 256 bits, written to {out}\n"
        hidden(result, bytes.fromhex(AES_KEY), b"password")


def test_a_key_goes_to_standard_output_on_demand(run: Run) -> None:
    """The bare bytes, and what is said goes elsewhere."""
    result = run("derive", "--hash", "sha-1", "--algorithm", "aes-256", "--out", "-", typed=b"password")
    assert result.stdout_bytes.hex() == AES_KEY
    assert result.stderr == "derived a key: AES-256, 256 bits\n"


def test_the_password_may_be_in_a_file(run: Run, tmp_path: Path) -> None:
    """Its first line, and only where nobody else may read it."""
    path = tmp_path / "password"
    path.write_bytes(b"password\n")
    path.chmod(0o600)
    words = ("derive", "--hash", "sha-1", "--algorithm", "aes-256", "--password-file", path, "--out", "-")
    assert run(*words).stdout_bytes.hex() == AES_KEY
    path.chmod(0o644)
    result = run(*words)
    assert result.exit_code == ExitCode.FAILED
    assert "others may use this file" in result.stderr
    assert result.stdout == ""


def test_a_password_is_asked_for_where_somebody_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without showing it."""
    monkeypatch.setattr(module, "somebody_is_there", lambda: True)
    result = run("derive", "--hash", "sha-1", "--algorithm", "aes-256", "--out", "-", typed=b"password\n")
    assert result.stdout_bytes.hex() == AES_KEY
    assert result.stderr.startswith("Password: ")
    assert "password" not in result.stderr
    assert (
        "the password is empty"
        in run("derive", "--hash", "sha-1", "--algorithm", "aes-256", "--out", "-", typed=b"\n").stderr
    )


def test_no_option_takes_a_password() -> None:
    """Other users of the host see the command line."""
    parameters = {parameter.name for parameter in capi.commands["derive"].params}
    assert parameters == {
        *("base_hash", "algorithm", "bits", "salt", "parity", "password_file", "encoding", "out", "force", "output")
    }


def test_a_password_of_unicode_programs_is_hashed_as_utf_16(run: Run) -> None:
    """Little-endian, without a mark and without an end."""
    words = ("derive", "--hash", "md5", "--algorithm", "rc4", "--bits", "128", "--out", "-")
    wide = run(*words, "--encoding", "utf-16-le", typed="pässword\n".encode()).stdout_bytes
    assert wide == run(*words, typed="pässword".encode("utf-16-le")).stdout_bytes
    assert wide != run(*words, typed="pässword".encode()).stdout_bytes
    refused = run(*words, "--encoding", "utf-16-le", typed=b"p\xe4ssword")
    assert refused.exit_code == ExitCode.USAGE
    assert "the password is not UTF-8" in refused.stderr
    assert "ssword" not in refused.stderr.replace("password", "")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (("--algorithm", "des"), "5e89"),
        (("--algorithm", "des", "--parity", "as-is"), "5e88"),
        (("--algorithm", "3des-112"), "5e89"),
        (("--algorithm", "aes-128"), "5e884898da28047151d0e56f8dc62927"),
        (("--algorithm", "rc2", "--bits", "40"), "5e884898da" + 11 * "00"),
        (("--algorithm", "rc4", "--bits", "40", "--salt", "none"), "5e884898da"),
        (("--algorithm", "rc4", "--bits", "40", "--salt", "created"), "5e884898da28047151d0e56f8dc62927"),
    ],
)
def test_algorithm_length_salt_and_parity_are_chosen(run: Run, options: tuple[str, ...], key: str) -> None:
    """DES keys have odd parity unless they shall be as they are."""
    result = run("derive", "--hash", "sha-256", *options, "--out", "-", typed=b"password")
    if key == "5e88":
        assert result.stdout_bytes.hex() == "5e884898da280471"
    elif key == "5e89":
        assert all(byte.bit_count() % 2 for byte in result.stdout_bytes)
    else:
        assert result.stdout_bytes.hex() == key


def test_every_algorithm_and_hash_has_a_name(run: Run) -> None:
    """Those with one length need no --bits."""
    for base_hash in ("md5", "sha-1", "sha-256", "sha-384", "sha-512"):
        for algorithm, size in (("des", 8), ("3des", 24), ("3des-112", 16), ("aes-128", 16), ("aes-192", 24)):
            result = run("derive", "--hash", base_hash, "--algorithm", algorithm, "--out", "-", typed=b"password")
            assert len(result.stdout_bytes) == size


def test_what_was_derived_is_one_json_document(run: Run, tmp_path: Path) -> None:
    """Without the key, which goes to a file."""
    out = tmp_path / "key"
    words = ("derive", "--hash", "md5", "--algorithm", "rc2", "--bits", "40", "-o", "json")
    document = json.loads(run(*words, "--out", out, typed=b"password").stdout)
    assert document == {
        "schema": 1,
        "kind": "derived-key",
        "hash": "md5",
        "algorithm": "RC2",
        "key_bits": 40,
        "salt_bytes": 11,
        "out": str(out),
    }
    refused = run(*words, "--out", "-", typed=b"password")
    assert refused.exit_code == ExitCode.USAGE
    assert "a key is never part of a JSON document" in refused.stderr


def test_no_file_is_overwritten_without_a_word(run: Run, tmp_path: Path) -> None:
    """--force says it; a folder is none."""
    out = tmp_path / "key"
    out.write_bytes(b"before")
    words = ("derive", "--hash", "sha-1", "--algorithm", "aes-256", "--out")
    refused = run(*words, out, typed=b"password")
    assert refused.exit_code == ExitCode.USAGE
    assert "exists" in refused.stderr
    assert out.read_bytes() == b"before"
    assert run(*words, out, "--force", typed=b"password").exit_code == ExitCode.DONE
    assert out.read_bytes().hex() == AES_KEY
    assert "is a folder" in run(*words, tmp_path, "--force", typed=b"password").stderr


@pytest.mark.parametrize(
    ("words", "typed", "said"),
    [
        (("--algorithm", "aes-256"), b"password", "say where the key shall go"),
        (("--algorithm", "rc4", "--out", "-"), b"password", "--bits: say how many bits the RC4 key has"),
        (("--algorithm", "rc4", "--bits", "41", "--out", "-"), b"password", "bits: RC4 keys have 40 to 128"),
        (("--algorithm", "des", "--bits", "56", "--out", "-"), b"password", "bits: DES keys have 64 bits, not 56"),
        (
            ("--algorithm", "rc4", "--bits", "128", "--salt", "created", "--out", "-"),
            b"password",
            "salt: is created",
        ),
        (("--algorithm", "aes-512", "--out", "-"), b"password", "Invalid value for '--algorithm'"),
        (("--algorithm", "aes-256", "--out", "-"), b"", "the password is empty"),
        (("--algorithm", "aes-256", "--out", "-"), b"\n", "the password is empty"),
        (("--algorithm", "aes-256", "--out", "-"), b"x" * 65_537, "the password has more than 65,536 bytes"),
    ],
)
def test_what_cannot_be_derived_is_refused(run: Run, words: tuple[str, ...], typed: bytes, said: str) -> None:
    """By the option that is wrong; nothing is printed in the place of a key."""
    result = run("derive", "--hash", "sha-1", *words, typed=typed)
    assert result.exit_code in {ExitCode.USAGE, ExitCode.FAILED}
    assert said in result.stderr
    assert result.stdout == ""
