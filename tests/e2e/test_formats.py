"""What other programs wrapped for the authority goes into escrow and comes back, by real processes on real servers.

The other programs are OpenSSL, and an implementation of CryptoAPI whose blobs, keys and data are figures in a file.
"""

import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.decrepit.ciphers import algorithms as old
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from deploy.local.trial import Trial
from tests.e2e.conftest import Enrol
from tests.support.cms import VECTORS
from tests.support.command import Command
from tests.support.cryptoapi import OWN_PRIVATE, OWN_PUBLIC, WRAPPED, Wrapped
from tests.support.wrapping import KEY, KID, packet

from strongroom.crypto.key_file import read_signing_key
from strongroom.crypto.rsa import Padding
from strongroom.crypto.secret import Secret
from strongroom.crypto.transport_key_file import write_transport_key
from strongroom.errors import ExitCode
from strongroom.formats.alg_id import SessionAlgorithm
from strongroom.formats.cryptoapi import PlaintextKeyBlob, PrivateKeyBlob, PublicKeyBlob, SimpleBlob
from strongroom.key_cards import KeyCard, KeyUse
from strongroom.mandates import SealingKeyState
from strongroom.messages import WrappedFormat
from strongroom.next_rosters import Changes, next_roster, replace_roster
from strongroom.roster import Roster
from strongroom.settings import read_roster
from strongroom_agent.agent import Agent, KeyToEscrow, Unreleased
from strongroom_agent.unwrapped import plaintext_blob, simple_blob
from strongroom_agent.wrapping import Wrapped as Wrapping

ASKING, SECOND, THIRD = (f".local/officer-{number}" for number in (1, 2, 3))
HEADER = bytes.fromhex("0102000010660000 00a40000")  # SIMPLEBLOB, AES-256, RSA key exchange


@pytest.fixture(scope="module")
def _vectors_key(trial: Trial) -> None:
    """Let the authority have the key that the other implementation's blobs are wrapped for, beside its own."""
    folder = trial.folder / "authority"
    root = read_signing_key(folder / "root" / "root.key", None)
    before = Roster.verified(read_roster(folder / "roster.json"), root.public_key)
    spki = KEY.public_key.to_spki()
    if KID in {key.kid for key in before.body.transport_keys}:
        return
    write_transport_key(folder / "recovery" / "sealing" / f"{KID}.key", KEY, None)
    card = KeyCard(use=KeyUse.TRANSPORT, id=KID, suite=None, public_key=spki)
    changes = Changes(add_keys=[card], states={KID: SealingKeyState.ACCEPTED})
    replace_roster(folder / "roster.json", next_roster(before, changes, root, now=before.body.issued_at + 1))
    for worker in ("escrow", "recovery", "prover"):
        trial.stop_worker(worker)
    trial.up(lambda _step: None)


def openssl(place: Path, *words: str, stdin: bytes = b"") -> bytes:
    """Run OpenSSL in a folder."""
    run = subprocess.run(["openssl", *words], cwd=place, input=stdin, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()
    return run.stdout


def exported(strongroom: Command, form: str, out: str) -> str:
    """Export the authority's own transport key; return its id."""
    words = ("authority", "export", ".local/authority", "--as", form, "--out", out, "--force", "-o", "json")
    return str(strongroom(*words).done().document["kid"])


def by_officers(strongroom: Command, host: Path, name: str, *words: str) -> None:
    """Let an officer recover a key with the agreement of two others; it is in the file `out` then."""
    asked = (
        "recover",
        "--principal",
        host.name,
        "--name",
        name,
        "--reason",
        "a test",
        "--out",
        "out",
        "-o",
        "json",
    )
    document = strongroom(*asked, *words, home=ASKING).done(ExitCode.WAITING).document
    for officer in (SECOND, THIRD):
        strongroom("approve", str(document["request"]), "--yes", home=officer).done()
    strongroom(*asked, *words, home=ASKING).done()


# ---- CryptoAPI ----


def decrypted(vector: Wrapped, key: bytes) -> bytes:
    """Decrypt what the other implementation encrypted under a session key."""
    ciphers: dict[SessionAlgorithm, Callable[[], Cipher[modes.CBC] | Cipher[None]]] = {
        SessionAlgorithm.RC4: lambda: Cipher(old.ARC4(key), None),
        SessionAlgorithm.RC2: lambda: Cipher(old.RC2(key), modes.CBC(bytes(8))),
        SessionAlgorithm.DES: lambda: Cipher(old.TripleDES(key * 3), modes.CBC(bytes(8))),
        SessionAlgorithm.TRIPLE_DES: lambda: Cipher(old.TripleDES(key), modes.CBC(bytes(8))),
    }
    cipher = ciphers.get(vector.algorithm, lambda: Cipher(algorithms.AES(key), modes.CBC(bytes(16))))()
    return cipher.decryptor().update(vector.encrypted)


@pytest.mark.usefixtures("_vectors_key")
async def test_every_blob_of_another_implementation_comes_back_for_its_application(
    place: Path, strongroom: Command, enrolled: Enrol
) -> None:
    """Both paddings, all algorithms: its plaintext blob, and a new SIMPLEBLOB that the application's key opens."""
    home = enrolled("capi-vectors")
    keys = [
        KeyToEscrow(
            material=Secret(vector.simple),
            name=f"archive-{number}",
            kind="cryptoapi-simple",
            wrapped=Wrapping(WrappedFormat.CRYPTOAPI_SIMPLE, vector.padding, KID),
        )
        for number, vector in enumerate(WRAPPED)
    ]
    strongroom("sync", home=home).done()
    with Agent.open(home) as host:
        delivery = await host.escrow(keys, wait_seconds=60)
    assert delivery.exit_code is ExitCode.DONE, delivery.error
    ids = [row.facts.id for row in delivery.records]
    assert [row.facts.algorithm for row in delivery.records] == [each.algorithm.label for each in WRAPPED]
    with Agent.open(place / ASKING) as officer:
        with pytest.raises(Unreleased) as caught:
            await officer.recover(records=ids, principal=home.name, reason="a test", unwrap=True)
        for other in (SECOND, THIRD):
            strongroom("approve", caught.value.asked.id, "--yes", home=other).done()
        recovery = await officer.recover(records=ids, principal=home.name, reason="a test", unwrap=True)
        recovery.settle()
    found = {each.record.name: each for each in recovery.keys}
    application = PrivateKeyBlob.parse(Secret(OWN_PRIVATE)).load()
    for number, vector in enumerate(WRAPPED):
        recovered = found[f"archive-{number}"]
        assert recovered.material.expose() == vector.simple
        assert plaintext_blob(recovered).encode().expose() == vector.plaintext
        for padding in Padding:
            again = simple_blob(recovered, PublicKeyBlob.parse(OWN_PUBLIC), padding).encode()
            opened = SimpleBlob.parse(again).open(application, padding)
            assert decrypted(vector, opened.key.expose()).startswith(vector.data)


@pytest.mark.parametrize("padding", list(Padding))
def test_a_blob_that_another_program_wraps_today_is_given_back_for_that_program(
    place: Path, strongroom: Command, enrolled: Enrol, padding: Padding
) -> None:
    """Wrapped by OpenSSL for the exported key, recovered for the application's key, and opened there by OpenSSL."""
    home = enrolled(f"capi-{padding.value}")
    mode = ("-pkeyopt", f"rsa_padding_mode:{padding.value}")
    kid = exported(strongroom, "pem", "authority.pub")
    exported(strongroom, "publickeyblob", "authority.blob")
    assert b"RSA1" in (place / "authority.blob").read_bytes()
    key = secrets.token_bytes(32)
    ciphertext = openssl(place, "pkeyutl", "-encrypt", "-pubin", "-inkey", "authority.pub", *mode, stdin=key)
    (place / "session.blob").write_bytes(HEADER + ciphertext[::-1])
    named = ("--transport-key", kid) if padding is Padding.OAEP else ()
    words = ("--format", "cryptoapi-simple", "--padding", padding.value, *named, "--until", "proven")
    strongroom("escrow", "session.blob", "--name", "archive", *words, home=home).done()

    (place / "application.blob").write_bytes(OWN_PUBLIC)
    by_officers(strongroom, home, "archive", "--as", "cryptoapi-simple", "--to", "application.blob")
    blob = (place / "out").read_bytes()
    assert (blob[:12], blob == (place / "session.blob").read_bytes()) == (HEADER, False)
    private = PrivateKeyBlob.parse(Secret(OWN_PRIVATE)).load().private_bytes().expose()
    loaded = load_der_private_key(private, None)
    (place / "application.pem").write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    opened = openssl(place, "pkeyutl", "-decrypt", "-inkey", "application.pem", *mode, stdin=blob[12:][::-1])
    assert opened == key


def test_the_host_itself_needs_an_officer_to_unwrap_and_none_for_the_bytes(
    place: Path, strongroom: Command, enrolled: Enrol
) -> None:
    """Policy lets it recover alone; what is inside takes one approval, and the officer is shown what it is for."""
    home = enrolled("capi-host")
    exported(strongroom, "publickeyblob", "authority.blob")
    recipient = PublicKeyBlob.parse((place / "authority.blob").read_bytes())
    key = PlaintextKeyBlob(SessionAlgorithm.AES_256, Secret(secrets.token_bytes(32)))
    (place / "blob").write_bytes(SimpleBlob.seal(key, recipient, Padding.OAEP).encode())
    words = ("escrow", "blob", "--name", "archive", "--format", "cryptoapi-simple", "--padding", "oaep")
    strongroom(*words, home=home).done()
    told = strongroom("recover", "--name", "archive", "--out", "same", home=home).done()
    assert (place / "same").read_bytes() == (place / "blob").read_bytes()
    assert "--unwrap" in told.err

    waits = strongroom("recover", "--name", "archive", "--out", "out", "--unwrap", home=home).done(ExitCode.WAITING)
    assert "0 of 1" in waits.err
    assert "always approved by an officer" in waits.err
    [request] = strongroom("requests", "-o", "json", home=home).done().document["requests"]
    assert (request["unwrap"], request["needed"], request["destination"]) == (True, 1, None)
    assert b"UNWRAP" in strongroom("requests", str(request["id"]), home=SECOND).done().out
    strongroom("approve", str(request["id"]), "--yes", home=SECOND).done()
    strongroom("recover", "--name", "archive", "--out", "out", "--unwrap", home=home).done()
    assert (place / "out").read_bytes() == key.key.expose()


def test_a_copied_blob_is_refused_as_somebody_elses(
    place: Path, strongroom: Command, operator: Command, enrolled: Enrol
) -> None:
    """The first escrow wins, by whatever format the second comes; it is quarantined, and the sender told."""
    owner, thief = enrolled("capi-owner"), enrolled("capi-thief")
    exported(strongroom, "certificate", "authority.pem")
    (place / "k").write_bytes(secrets.token_bytes(32))
    openssl(
        place,
        "cms",
        "-encrypt",
        "-binary",
        "-aes256",
        "-in",
        "k",
        "-outform",
        "DER",
        "-out",
        "m",
        "-recip",
        "authority.pem",
    )
    strongroom("escrow", "m", "--name", "k", "--format", "cms", home=owner).done()
    (place / "copy").write_bytes(packet((place / "m").read_bytes()))
    told = strongroom("escrow", "copy", "--name", "k", "--format", "volume-key", home=thief).done(ExitCode.FAILED)
    assert "another principal escrowed this wrapped key first" in told.out.decode() + told.err
    listed = operator("quarantine", "list", "-o", "json").done().document["messages"]
    codes = {each["code"] for each in listed if each["routing_key"] == f"v1.escrow.{thief.name}"}
    assert codes == {"record_conflict"}
    # Its owner may escrow it again.
    strongroom("escrow", "copy", "--name", "k", "--format", "volume-key", home=owner).done()


# ---- CMS and volume_key ----


@pytest.mark.parametrize(
    ("cipher", "options"),
    [
        ("-aes128", ()),
        ("-aes256", ()),
        ("-aes256", ("-keyopt", "rsa_padding_mode:oaep")),
        ("-aes128", ("-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256")),
        ("-aes256", ("-keyid",)),
    ],
)
def test_a_message_of_openssl_comes_back_from_officers_as_what_was_encrypted(
    place: Path, strongroom: Command, enrolled: Enrol, cipher: str, options: tuple[str, ...]
) -> None:
    """The exported certificate, `openssl cms -encrypt -recip`, `escrow --format cms`, officers: the same bytes."""
    home = enrolled(f"cms{cipher}-{len(options)}{'-id' if '-keyid' in options else ''}")
    exported(strongroom, "certificate", "authority.pem")
    (place / "secret").write_bytes(secrets.token_bytes(100))
    words = ("-in", "secret", "-outform", "DER", "-out", "message", "-recip", "authority.pem", *options)
    openssl(place, "cms", "-encrypt", "-binary", cipher, *words)
    strongroom("escrow", "message", "--name", "mail", "--format", "cms", home=home).done()
    by_officers(strongroom, home, "mail", "--unwrap")
    assert (place / "out").read_bytes() == (place / "secret").read_bytes()


def test_what_cannot_be_opened_is_refused_when_it_is_escrowed(
    place: Path, strongroom: Command, enrolled: Enrol
) -> None:
    """AES-GCM, another program's certificate, a contradicted padding: each by name, nothing in the spool."""
    home = enrolled("cms-refused")
    exported(strongroom, "certificate", "authority.pem")
    (place / "secret").write_bytes(b"a key")
    (place / "stranger.pem").write_bytes((VECTORS / "cms" / "other.crt.pem").read_bytes())
    for name, cipher, certificate in (
        ("gcm", "-aes-256-gcm", "authority.pem"),
        ("stranger", "-aes256", "stranger.pem"),
        ("good", "-aes256", "authority.pem"),
    ):
        words = ("-in", "secret", "-outform", "DER", "-out", name, "-recip", certificate)
        openssl(place, "cms", "-encrypt", "-binary", cipher, *words)
    for name, more, said in (
        ("gcm", (), "AuthEnvelopedData"),
        ("stranger", (), "none of its recipients"),
        ("good", ("--padding", "oaep"), "padding: is 'oaep', and the message says 'pkcs1'"),
    ):
        told = strongroom("escrow", name, "--name", "mail", "--format", "cms", *more, home=home).done(
            ExitCode.FAILED
        )
        assert said in told.err
    assert strongroom("status", "-o", "json", home=home).done().document["records"] == []


def test_a_volume_key_packet_is_opened_for_the_authority_and_kept_for_others(
    place: Path, strongroom: Command, enrolled: Enrol
) -> None:
    """One around a message to the authority gives its content; one of the program itself comes back as it is."""
    home = enrolled("volume-key")
    exported(strongroom, "certificate", "authority.pem")
    (place / "secret").write_bytes(b"the passphrase of the volume")
    words = ("-in", "secret", "-outform", "DER", "-out", "message", "-recip", "authority.pem")
    openssl(place, "cms", "-encrypt", "-binary", "-aes256", *words)
    (place / "packet").write_bytes(packet((place / "message").read_bytes()))
    strongroom("escrow", "packet", "--name", "volume", "--format", "volume-key", home=home).done()
    by_officers(strongroom, home, "volume", "--as", "key")
    assert (place / "out").read_bytes() == (place / "secret").read_bytes()

    for name in ("volume-key-asymmetric", "volume-key-default"):
        theirs = VECTORS / "cms" / f"{name}.packet"
        strongroom("escrow", theirs, "--name", name, "--kind", "volume-key", home=home).done()
        strongroom("recover", "--name", name, "--out", name, home=home).done()
        assert (place / name).read_bytes() == theirs.read_bytes()
