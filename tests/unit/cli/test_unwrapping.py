"""`escrow --format` and `recover --unwrap` as people and programs meet them; what officers are shown of it."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from tests.support import cms
from tests.support.agents import Clock, officer_home
from tests.support.cryptoapi import OWN_PRIVATE, OWN_PUBLIC, WRAPPED
from tests.support.wrapping import KID, message, packet, take_transport_keys

from strongroom.crypto.rsa import Padding, RsaPublicKey
from strongroom.crypto.secret import Secret
from strongroom.errors import ExitCode
from strongroom.formats.alg_id import RsaUse
from strongroom.formats.cryptoapi import PrivateKeyBlob, PublicKeyBlob, SimpleBlob
from strongroom.testing import FakeAuthority
from strongroom_agent import waiting
from strongroom_agent.agent import Agent
from strongroom_agent.enrolment import Enrolled, enrol
from strongroom_agent.home import Home
from strongroom_cli import approval, output, requests
from strongroom_cli.app import cli

Run = Callable[..., Result]

OAEP = next(each for each in WRAPPED if each.label == "AES-256-oaep")
PKCS1 = next(each for each in WRAPPED if each.label == "AES-256-pkcs1")
APPLICATION = PrivateKeyBlob.parse(Secret(OWN_PRIVATE)).load()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(clock: Clock) -> FakeAuthority:
    made = FakeAuthority(clock=clock)
    take_transport_keys(made)
    return made


@pytest.fixture
async def host(authority: FakeAuthority, tmp_path: Path, clock: Clock) -> Enrolled:
    document = authority.invitation_file("laptop-0417")
    return await enrol(tmp_path / "host", document, connector=authority.connect, clock=clock)


@pytest.fixture
def alice(authority: FakeAuthority, host: Enrolled, tmp_path: Path) -> Home:  # noqa: ARG001
    """An officer, named after the host was enrolled."""
    return officer_home(authority, tmp_path / "alice")


@pytest.fixture
def run(authority: FakeAuthority, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command with a home, in a folder of its own; it reaches the authority in memory."""
    open_home = Agent.open

    def opened(path: Path, *, passphrase: Secret | None = None) -> Agent:
        return open_home(path, passphrase=passphrase, connector=authority.connect, clock=clock)

    monkeypatch.setattr(Agent, "open", opened)
    monkeypatch.setattr(waiting, "FIRST_PAUSE_SECONDS", 0.0)
    for module in (approval, requests):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=clock))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def command(home: Home, *words: str, stdin: str = "") -> Result:
        result = CliRunner().invoke(cli, [*words, "--home", str(home.path)], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return command


def escrowed(run: Run, host: Enrolled, material: bytes, *words: str) -> None:
    Path("blob").write_bytes(material)
    told = run(host.home, "escrow", "blob", "--name", "archive", *words)
    assert told.exit_code == ExitCode.DONE, told.output


def simple(run: Run, host: Enrolled, vector: object = PKCS1) -> None:
    assert isinstance(vector, type(PKCS1))
    escrowed(run, host, vector.simple, "--format", "cryptoapi-simple", "--padding", vector.padding.value)


def asked(authority: FakeAuthority) -> str:
    """Return the id of the newest request that the authority knows."""
    return list(authority.workers.docket.cases)[-1]


def recovered(run: Run, host: Enrolled, authority: FakeAuthority, *words: str) -> Result:
    """Ask as the host, have it approved, and ask again."""
    command = ("recover", "--name", "archive", "--out", "out", *words)
    waits = run(host.home, *command)
    assert waits.exit_code == ExitCode.WAITING, waits.output
    assert not Path("out").exists()
    authority.approve(asked(authority), "officer-1")
    return run(host.home, *command)


# ---- escrow ----


def test_a_wrapped_key_is_escrowed_with_its_format_as_its_kind(
    run: Run, host: Enrolled, authority: FakeAuthority
) -> None:
    """And the algorithm that it names."""
    simple(run, host)
    [stored] = authority.workers.records.values()
    assert (stored.record.kind, stored.record.algorithm) == ("cryptoapi-simple", "AES-256")
    assert stored.record.wrapping is not None
    assert stored.record.wrapping.kid == KID
    escrowed(run, host, message(), "--format", "cms", "--kind", "disk-key")
    *_, newest = authority.workers.records.values()
    assert newest.record.kind == "disk-key"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--format", "cryptoapi-simple"), "does not say it"),
        (("--padding", "oaep"), "go with --format"),
        (("--transport-key", KID), "go with --format"),
        (("--format", "cms", "--transport-key", "x"), "must be a key id"),
        (("--format", "cms", "--live", "file"), "leave --live out"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    run: Run, host: Enrolled, words: tuple[str, ...], told: str
) -> None:
    """As usage, before anything is read or sealed."""
    Path("blob").write_bytes(message())
    refused = run(host.home, "escrow", "blob", "--name", "archive", *words)
    assert refused.exit_code == ExitCode.USAGE
    assert told in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("material", "words", "told"),
    [
        (PKCS1.simple[:-1], ("--format", "cryptoapi-simple", "--padding", "pkcs1"), "has 255 bytes"),
        (message(), ("--format", "cms", "--padding", "oaep"), "padding"),
        (cms.vector("refused-auth-enveloped.der"), ("--format", "cms"), "AuthEnvelopedData"),
        (cms.vector("volume-key-default.packet"), ("--format", "volume-key"), "only asymmetric packets"),
        (b"not a key", ("--kind", "openssh"), "kind openssh: PEM"),
        (b"1" * 47 + b"2", ("--kind", "recovery-password-bitlocker"), "mistyped"),
    ],
)
def test_what_is_not_what_it_is_said_to_be_fails_with_the_reason(
    run: Run, host: Enrolled, material: bytes, words: tuple[str, ...], told: str
) -> None:
    """Exit code 1, nothing in the spool."""
    Path("blob").write_bytes(material)
    refused = run(host.home, "escrow", "blob", "--name", "archive", *words)
    assert refused.exit_code == ExitCode.FAILED
    assert told in " ".join(refused.stderr.split())
    assert json.loads(run(host.home, "status", "-o", "json").stdout)["records"] == []


def test_sync_names_a_live_key_that_is_no_more_of_its_kind(run: Run, host: Enrolled) -> None:
    """With what is wrong and what to do; nothing of it is quoted."""
    Path("password").write_bytes(b"-".join([b"000000"] * 8))
    words = ("--name", "bitlocker", "--kind", "recovery-password-bitlocker", "--live", "file")
    assert run(host.home, "escrow", "password", *words).exit_code == ExitCode.DONE
    Path("password").write_bytes(b"-".join([b"000001"] * 8))
    told = run(host.home, "sync")
    assert told.exit_code == ExitCode.FAILED
    said = " ".join(told.stderr.split())
    assert "bitlocker: the live key is not what its record says" in said
    assert "group 1 is mistyped" in said
    assert "000001" not in told.output
    assert json.loads(run(host.home, "sync", "-o", "json").stdout)["unfit"].keys() == {"bitlocker"}


# ---- recover ----


def test_without_unwrap_the_bytes_come_back_as_they_were_with_the_way_to_the_key(run: Run, host: Enrolled) -> None:
    """On standard error, where no program takes it for the key."""
    simple(run, host)
    told = run(host.home, "recover", "--name", "archive", "--out", "out")
    assert told.exit_code == ExitCode.DONE
    assert Path("out").read_bytes() == PKCS1.simple
    assert "wrapped     still, as it was escrowed (cryptoapi-simple, pkcs1)" in told.stderr
    assert KID in told.stderr
    assert "--unwrap" in told.stderr


@pytest.mark.parametrize("words", [("--unwrap",), ("--as", "key"), ("--unwrap", "--as", "key")])
def test_the_bare_key_is_written(
    run: Run, host: Enrolled, authority: FakeAuthority, words: tuple[str, ...]
) -> None:
    """`--as` asks for unwrapping by itself."""
    simple(run, host)
    told = recovered(run, host, authority, *words)
    assert told.exit_code == ExitCode.DONE
    assert Path("out").read_bytes() == PKCS1.plaintext[12:]
    assert "unwrapped   from cryptoapi-simple, pkcs1; written as key" in told.stderr
    assert "Nobody has signed for what was inside" in told.stderr


@pytest.mark.parametrize("vector", [PKCS1, OAEP], ids=lambda vector: vector.label)
def test_a_plaintext_blob_is_the_one_of_the_other_implementation(
    run: Run, host: Enrolled, authority: FakeAuthority, vector: object
) -> None:
    """Byte for byte."""
    assert isinstance(vector, type(PKCS1))
    simple(run, host, vector)
    assert recovered(run, host, authority, "--as", "cryptoapi-plaintext").exit_code == ExitCode.DONE
    assert Path("out").read_bytes() == vector.plaintext


@pytest.mark.parametrize("padding", [None, "pkcs1", "oaep"])
@pytest.mark.parametrize("vector", [PKCS1, OAEP], ids=lambda vector: vector.label)
def test_a_simple_blob_for_the_application_opens_there(
    run: Run, host: Enrolled, authority: FakeAuthority, vector: object, padding: str | None
) -> None:
    """Padded as the escrowed one was, or as was said."""
    assert isinstance(vector, type(PKCS1))
    simple(run, host, vector)
    Path("application").write_bytes(OWN_PUBLIC)
    words = ["--as", "cryptoapi-simple", "--to", "application", *(["--padding", padding] if padding else [])]
    assert recovered(run, host, authority, *words).exit_code == ExitCode.DONE
    opened = SimpleBlob.parse(Path("out").read_bytes()).open(
        APPLICATION, Padding(padding) if padding else vector.padding
    )
    assert opened.encode().expose() == vector.plaintext


def test_content_of_a_message_has_no_blob_and_the_release_is_there_for_another_form(
    run: Run, host: Enrolled, authority: FakeAuthority
) -> None:
    """No file appears, and the same request gives the content."""
    escrowed(run, host, packet(message()), "--format", "volume-key")
    told = recovered(run, host, authority, "--as", "cryptoapi-plaintext")
    assert told.exit_code == ExitCode.USAGE
    assert "--as key" in " ".join(told.stderr.split())
    assert not Path("out").exists()
    before = len(authority.workers.docket.cases)
    assert run(host.home, "recover", "--name", "archive", "--out", "out", "--as", "key").exit_code == ExitCode.DONE
    assert Path("out").read_bytes() == b"what the message holds"
    assert len(authority.workers.docket.cases) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--as", "cryptoapi-simple"), "for which public key"),
        (("--to", "application"), "go with --as cryptoapi-simple"),
        (("--unwrap", "--padding", "oaep"), "go with --as cryptoapi-simple"),
        (("--as", "key", "--to", "application"), "go with --as cryptoapi-simple"),
        (("--as", "cryptoapi-simple", "--to", "blob"), "must be 0x06"),
        (("--as", "cryptoapi-simple", "--to", "signer"), "is a key for signatures"),
        (("--as", "cryptoapi-simple", "--to", "short"), "RSA_BITS_MIN"),
        (("--as", "cryptoapi-simple", "--to", "weak"), "small factor"),
    ],
)
def test_a_wish_that_cannot_be_met_is_refused_before_anything_is_asked(
    run: Run, host: Enrolled, authority: FakeAuthority, words: tuple[str, ...], told: str
) -> None:
    """A key that was released in vain is disclosed all the same."""
    simple(run, host)
    recipient = PublicKeyBlob.parse(OWN_PUBLIC)
    Path("application").write_bytes(OWN_PUBLIC)
    Path("signer").write_bytes(PublicKeyBlob(RsaUse.SIGNATURE, recipient.key).encode())
    short = OWN_PUBLIC[:12] + (1024).to_bytes(4, "little") + OWN_PUBLIC[16:20] + OWN_PUBLIC[-128:]
    Path("short").write_bytes(short)
    weak = RsaPublicKey(3 * (recipient.key.modulus // 3 | 1), recipient.key.exponent)
    Path("weak").write_bytes(PublicKeyBlob(RsaUse.EXCHANGE, weak).encode())
    refused = run(host.home, "recover", "--name", "archive", "--out", "out", *words)
    assert refused.exit_code in {ExitCode.USAGE, ExitCode.FAILED}
    assert told in " ".join(refused.stderr.split())
    assert not authority.workers.docket.cases


def test_who_waits_is_told_that_unwrapping_is_always_approved(
    run: Run, host: Enrolled, authority: FakeAuthority
) -> None:
    """The host's own recovery needs nobody otherwise."""
    simple(run, host)
    told = run(host.home, "recover", "--name", "archive", "--out", "out", "--unwrap")
    assert told.exit_code == ExitCode.WAITING
    assert told.stderr.startswith("waiting for approval: 0 of 1\n")
    assert "unwrapping  is always approved by an officer, whatever policy says" in told.stderr
    assert f"strongroom approve {asked(authority)}" in told.stderr


def test_programs_are_told_what_was_written(run: Run, host: Enrolled, authority: FakeAuthority) -> None:
    """The wrapping, whether it was opened, and the form."""
    simple(run, host)
    plain = json.loads(run(host.home, "recover", "--name", "archive", "--out", "o1", "-o", "json").stdout)
    assert (plain["unwrapped"], plain["as"]) == (False, None)
    assert (plain["record"]["wrapping"]["kid"], plain["record"]["algorithm"]) == (KID, "AES-256")
    document = json.loads(recovered(run, host, authority, "--as", "cryptoapi-plaintext", "-o", "json").stdout)
    assert (document["unwrapped"], document["as"]) == (True, "cryptoapi-plaintext")


# ---- what officers see ----


def test_an_officer_sees_that_wrapped_keys_are_to_be_opened(
    run: Run, host: Enrolled, alice: Home, authority: FakeAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the table, in the words, in JSON, and in the question."""
    simple(run, host)
    run(host.home, "recover", "--name", "archive", "--out", "out", "--unwrap")
    id_ = asked(authority)
    assert "archive (unwrapped)" in run(alice, "requests").stdout
    words = run(alice, "requests", id_).stdout
    assert "UNWRAP" in words
    assert "what other programs wrapped for the authority is opened for the requester" in words
    assert json.loads(run(alice, "requests", id_, "-o", "json").stdout)["unwrap"] is True
    monkeypatch.setattr(output, "somebody_is_there", lambda: True)
    told = run(alice, "approve", id_, stdin="n\n")
    assert "UNWRAP" in told.stderr
    assert "Approve it, and with it that the wrapped keys are opened?" in told.stderr
    assert told.exit_code == ExitCode.FAILED
