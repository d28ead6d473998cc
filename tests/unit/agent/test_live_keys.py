"""Looking at live keys: what cannot be read is unknown, and never taken for another key."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from strongroom.blobs import BlobContext, seal_material
from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.crypto.secret import Secret
from strongroom.errors import KeyFileInvalid
from strongroom.limits import KEY_MATERIAL_BYTES_MAX
from strongroom_agent import age, live_keys
from strongroom_agent.checks import Check, Kind
from strongroom_agent.live_keys import LiveKey, Place, look, look_at, read_identity

RECORD = "01a2050e-1a43-74ad-a430-3b0ef9071f2e"


def of_file(path: Path) -> Check:
    return Check("disk", Kind.FILE, (str(path),))


def command(*arguments: str) -> Check:
    return Check("disk", Kind.COMMAND, arguments)


def python(program: str) -> Check:
    return command(sys.executable, "-I", "-c", program)


@contextmanager
def standing_in_for_stdin() -> Iterator[None]:
    """Have a pipe as standard input, as a command in a script may have."""
    true, (reader, writer) = os.dup(0), os.pipe()
    os.dup2(reader, 0)
    try:
        yield
    finally:
        os.dup2(true, 0)
        for each in (true, reader, writer):
            os.close(each)


async def test_a_file_is_the_key_byte_by_byte(tmp_path: Path) -> None:
    """Line ends too."""
    path = tmp_path / "k"
    path.write_bytes(b"secret\n\0")
    assert await look(of_file(path)) == LiveKey(of_file(path), material=Secret(b"secret\n\0"))


async def test_a_file_that_cannot_be_a_key_is_unknown(tmp_path: Path) -> None:
    """Gone, a folder, a pipe without writer, empty, or longer than a key; nothing of it is quoted."""
    path = tmp_path / "k"
    assert "No such file" in str((await look(of_file(path))).reason)
    assert (await look(of_file(tmp_path))).reason is not None
    os.mkfifo(path)
    assert "no regular file" in str((await look(of_file(path))).reason)
    path.unlink()
    path.write_bytes(b"")
    assert "is empty" in str((await look(of_file(path))).reason)
    path.write_bytes(b"s" * (KEY_MATERIAL_BYTES_MAX + 1))
    found = await look(of_file(path))
    assert (found.material, found.opens) == (None, None)
    assert "is too long" in str(found.reason)
    path.write_bytes(b"s" * KEY_MATERIAL_BYTES_MAX)
    assert (await look(of_file(path))).reason is None


async def test_an_age_identity_file_holds_one_key(tmp_path: Path) -> None:
    """The identity as text; comments and line ends around it do not matter, and two are none."""
    identity, text = age.new_identity()
    path = tmp_path / "identity"
    age.write_identity(path, identity)
    check = Check("disk", Kind.AGE, (str(path),))
    assert await look(check) == LiveKey(check, material=text)
    assert read_identity(path) == text
    path.write_text(path.read_text() * 2)
    assert "2 identities" in str((await look(check)).reason)
    with pytest.raises(KeyFileInvalid):
        read_identity(path)
    path.write_text("AGE-SECRET-KEY-1NONSENSE")
    found = await look(check)
    assert found.material is None
    assert "NONSENSE" not in str(found.reason)


async def test_a_command_says_yes_or_no_by_its_exit_code() -> None:
    """0 and 1; it gives no key."""
    yes, no = command("/bin/true"), command("/bin/false")
    assert await look(yes) == LiveKey(yes, opens=True)
    assert await look(no) == LiveKey(no, opens=False)


@pytest.mark.parametrize(
    "program", ["raise SystemExit(2)", "raise SystemExit(75)", "import os; os.kill(os.getpid(), 9)"]
)
async def test_a_command_that_ends_otherwise_says_nothing(program: str) -> None:
    """Another code, or a signal."""
    found = await look(python(program))
    assert (found.material, found.opens) == (None, None)
    assert "says nothing" in str(found.reason)


async def test_a_command_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    """Or that may not be run."""
    path = tmp_path / "program"
    assert "No such file" in str((await look(command(str(path)))).reason)
    path.write_text("#!/bin/sh\n")
    assert "ermission" in str((await look(command(str(path)))).reason)


async def test_a_command_that_does_not_end_is_ended_with_all_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a minute, here at once; nothing stays behind."""
    monkeypatch.setattr(live_keys, "COMMAND_SECONDS", 0.2)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    found = await look(command("/bin/sh", "-c", f"exec 3>{pipe}; sleep 600 & sleep 600; true"))
    assert "did not end" in str(found.reason)
    os.set_blocking(reader, True)
    # The end of the pipe comes when the last process that holds it has gone.
    assert os.read(reader, 1) == b""
    os.close(reader)


async def test_a_command_is_given_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell, no passphrase file in its environment, no standard input, and nowhere to print to."""
    monkeypatch.setenv("STRONGROOM_PASSPHRASE_FILE", "/secret")
    monkeypatch.setenv("STRONGROOM_HOME", "/home")
    out = tmp_path / "out"
    program = f"""
import os, sys
given = [name for name in os.environ if name.startswith("STRONGROOM")]
same = os.fstat(0).st_rdev == os.fstat(1).st_rdev == os.fstat(2).st_rdev == os.stat("/dev/null").st_rdev
open({str(out)!r}, "w").write(repr((given, same, sys.argv[1:])))
"""
    check = command(sys.executable, "-I", "-c", program, "$HOME; exit 1")
    with standing_in_for_stdin():
        assert (await look(check)).opens
    assert out.read_text() == repr(([], True, ["$HOME; exit 1"]))


async def test_several_checks_are_looked_at_by_name(tmp_path: Path) -> None:
    """One that is unknown keeps no other from being looked at."""
    path = tmp_path / "k"
    path.write_bytes(b"key")
    gone = Check("gone", Kind.FILE, ("/nonexistent",))
    found = await look_at([gone, of_file(path)])
    assert (found["gone"].material, found["disk"].material) == (None, Secret(b"key"))


def test_a_fingerprint_is_of_its_key_its_salt_and_its_place() -> None:
    """Another of any of them is not the same."""
    key = PrivateSealingKey.generate(Suite.P256)
    context = BlobContext("vault.example", "laptop-0417", RECORD, key.kid, key.suite)
    sealed = seal_material(Secret(b"key"), context, key.public_key)
    place = Place("vault.example", "laptop-0417")
    assert place.is_same(Secret(b"key"), RECORD, sealed.fingerprint, sealed.salt)
    assert not place.is_same(Secret(b"kez"), RECORD, sealed.fingerprint, sealed.salt)
    assert not place.is_same(Secret(b"key"), RECORD, sealed.fingerprint, Secret(b"\0" * 32))
    assert not place.is_same(Secret(b"key"), RECORD[:-1] + "f", sealed.fingerprint, sealed.salt)
    assert not Place("vault.example", "laptop-0418").is_same(
        Secret(b"key"), RECORD, sealed.fingerprint, sealed.salt
    )


def test_what_was_found_does_not_show_the_key(tmp_path: Path) -> None:
    """In no repr."""
    assert "very secret" not in repr(LiveKey(of_file(tmp_path), material=Secret(b"very secret")))
