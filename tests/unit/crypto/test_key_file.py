import base64
import errno
import json
import os
import stat
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from strongroom.crypto import key_file, secret_file
from strongroom.crypto.key_file import (
    DEFAULT_KDF_COST,
    KdfCost,
    read_passphrase,
    read_sealing_key,
    read_signing_key,
    write_sealing_key,
    write_signing_key,
)
from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.crypto.secret import Secret
from strongroom.crypto.secret_file import KEY_FILE_BYTES_MAX
from strongroom.crypto.signing import SigningKey
from strongroom.errors import KeyFileInvalid

CHEAP = KdfCost(iterations=1, lanes=1, memory_kib=8)
SEED = b"canary seed of thirty-two bytes!"
PASSPHRASE = Secret(b"canary passphrase")
SIGNING_KEY = SigningKey.from_seed(Secret(SEED))
SEALING_KEYS = {suite: PrivateSealingKey.generate(suite) for suite in Suite}

each_suite = pytest.mark.parametrize("suite", list(Suite))
with_and_without_passphrase = pytest.mark.parametrize("passphrase", [None, PASSPHRASE], ids=["plain", "protected"])

PROTECTED_FILE = """{
  "format": "strongroom-key/v1",
  "algorithm": "ed25519",
  "id": "c7fc7c5378a064555d985ed3ea67490a",
  "public_key": "yLVJblrElSq4AUg4VN0yOp22O3+sIhZx1DX7DGtwccs=",
  "protection": {
    "kdf": "argon2id",
    "iterations": 1,
    "lanes": 1,
    "memory_kib": 8,
    "salt": "MgAUEQ8tSNy78gmwyM0uug==",
    "cipher": "aes-256-gcm",
    "nonce": "7+X+BRmQti/HSE22"
  },
  "private_key": "3+pDlUNOhWLZ/e4Cu0loOjaxjDpF+gtNBeMk1Rs8X3C9/cQ064IgAtZiGYj5Luo4"
}
"""


def read(path: Path, passphrase: Secret | None = PASSPHRASE) -> SigningKey:
    return read_signing_key(path, passphrase)


def refused(act: Callable[[], object], path: Path) -> KeyFileInvalid:
    """Give the KeyFileInvalid that this raises, having checked that it helps and that it shows no secret."""
    with pytest.raises(KeyFileInvalid) as caught:
        act()
    error = caught.value
    assert str(error).startswith(f"{path}: ")
    assert error.hint
    shown = [str(error), repr(error), error.hint]
    causes: list[BaseException] = [error]
    while causes:
        cause = causes.pop()
        shown += [repr(cause), repr(vars(cause))]
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            if "strongroom" in Path(frame.f_code.co_filename).parts:
                shown += [repr(frame.f_locals)]
        causes += [linked for linked in (cause.__cause__, cause.__context__) if linked]
    for text in shown:
        for hidden in (SEED, PASSPHRASE.expose()):
            for notation in (hidden.decode(), hidden.hex(), base64.b64encode(hidden).decode()):
                assert notation not in text
    return error


def private_file(path: Path, content: bytes | str) -> Path:
    """Write a file of mode 0600 as an attacker or an accident could."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "signing.key"


@pytest.fixture
def plain(path: Path) -> Path:
    write_signing_key(path, SIGNING_KEY, None)
    return path


@pytest.fixture
def protected(path: Path) -> Path:
    write_signing_key(path, SIGNING_KEY, PASSPHRASE, cost=CHEAP)
    return path


# ---- writing and reading back ------------------------------------------------------------------


@with_and_without_passphrase
def test_a_signing_key_survives_its_file(path: Path, passphrase: Secret | None) -> None:
    """The key that is read is the key that was written."""
    write_signing_key(path, SIGNING_KEY, passphrase, cost=CHEAP)
    found = read_signing_key(path, passphrase)
    assert (found.seed(), found.key_id) == (SIGNING_KEY.seed(), SIGNING_KEY.key_id)


@each_suite
@with_and_without_passphrase
def test_a_sealing_key_survives_its_file(path: Path, suite: Suite, passphrase: Secret | None) -> None:
    """The key that is read is the key that was written, in its suite."""
    key = SEALING_KEYS[suite]
    write_sealing_key(path, key, passphrase, cost=CHEAP)
    found = read_sealing_key(path, passphrase)
    assert (found.suite, found.private_bytes(), found.kid) == (suite, key.private_bytes(), key.kid)


def test_a_passphrase_costs_what_the_default_says(path: Path) -> None:
    """Without a word about cost, a guess takes 3 passes over 32 MiB, and the file says so."""
    write_signing_key(path, SIGNING_KEY, PASSPHRASE)
    protection = json.loads(path.read_text())["protection"]
    assert (protection["iterations"], protection["lanes"], protection["memory_kib"]) == (3, 1, 32768)
    assert KdfCost(3, 1, 32768) == DEFAULT_KDF_COST
    assert read(path).key_id == SIGNING_KEY.key_id


def test_an_unprotected_file_needs_no_passphrase(plain: Path) -> None:
    """A passphrase given for a file without protection is not used."""
    assert read(plain, PASSPHRASE).key_id == read(plain, None).key_id == SIGNING_KEY.key_id


def test_a_protected_file_holds_no_private_byte(protected: Path) -> None:
    """Under a passphrase neither the seed nor the passphrase stands in the file."""
    text = protected.read_text()
    assert base64.b64encode(SEED).decode()[:20] not in text
    assert "canary" not in text


def test_protecting_twice_gives_different_files(tmp_path: Path) -> None:
    """Salt and nonce are fresh, so equal keys under equal passphrases cannot be recognised."""
    files = []
    for name in ("one", "two"):
        write_signing_key(tmp_path / name, SIGNING_KEY, PASSPHRASE, cost=CHEAP)
        files.append(json.loads((tmp_path / name).read_text()))
    for field in ("salt", "nonce"):
        assert files[0]["protection"][field] != files[1]["protection"][field]
    assert files[0]["private_key"] != files[1]["private_key"]


def test_the_protection_is_argon2id_and_gcm_over_every_other_field(protected: Path) -> None:
    """The file opens by its own description with the bare primitives, so the format is what is documented."""
    file = json.loads(protected.read_text())
    protection = file["protection"]
    salt, nonce = (base64.b64decode(protection[name]) for name in ("salt", "nonce"))
    bound = b"strongroom-key/v1"
    for field in (
        b"ed25519",
        file["id"].encode(),
        base64.b64decode(file["public_key"]),
        b"argon2id",
        (1).to_bytes(4, "big"),
        (1).to_bytes(4, "big"),
        (8).to_bytes(4, "big"),
        salt,
        b"aes-256-gcm",
        nonce,
    ):
        bound += len(field).to_bytes(2, "big") + field
    key = Argon2id(salt=salt, length=32, iterations=1, lanes=1, memory_cost=8).derive(PASSPHRASE.expose())
    assert AESGCM(key).decrypt(nonce, base64.b64decode(file["private_key"]), bound) == SEED


def test_a_file_of_version_1_still_opens(path: Path) -> None:
    """A file that the first version wrote is read by every later one."""
    assert read(private_file(path, PROTECTED_FILE)).seed() == Secret(SEED)


# ---- the file on disk --------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_a_key_file_is_made_with_mode_0600(path: Path, umask: int) -> None:
    """Whatever the umask, the owner and nobody else may read and write it."""
    before = os.umask(umask)
    try:
        write_signing_key(path, SIGNING_KEY, None)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_file_is_never_readable_by_others_while_it_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is created with mode 0600, exclusively, and does not follow a symbolic link."""
    calls: list[tuple[int, int]] = []
    bare = os.open

    def watched(name: Path, flags: int, mode: int = 0o777) -> int:
        calls.append((flags, mode))
        return bare(name, flags, mode)

    monkeypatch.setattr(os, "open", watched)
    write_signing_key(path, SIGNING_KEY, None)
    flags, mode = calls[0]
    assert mode == 0o600
    assert flags & os.O_EXCL
    assert flags & os.O_CREAT
    assert flags & os.O_NOFOLLOW


def test_a_key_file_is_on_disk_when_the_writer_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole file is synced first, then the folder that names it."""
    synced: list[tuple[str, int]] = []
    bare = os.fsync

    def watched(descriptor: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), os.fstat(descriptor).st_size))
        bare(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    write_signing_key(path, SIGNING_KEY, None)
    assert [Path(name).parent for name, _ in synced] == [path.parent, path.parent.parent]
    assert synced[0][1] == path.stat().st_size > 0


def test_a_key_file_is_never_overwritten(plain: Path) -> None:
    """Writing to a taken path is refused and leaves the file as it was."""
    before = plain.read_bytes()
    error = refused(lambda: write_signing_key(plain, SigningKey.generate(), None), plain)
    assert "never overwritten" in str(error)
    refused(lambda: write_sealing_key(plain, SEALING_KEYS[Suite.P256], None), plain)
    assert plain.read_bytes() == before


def test_a_key_file_is_not_written_through_a_symbolic_link(tmp_path: Path, path: Path) -> None:
    """A link that somebody put in the way does not send the key elsewhere."""
    path.symlink_to(tmp_path / "elsewhere")
    refused(lambda: write_signing_key(path, SIGNING_KEY, None), path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_that_cannot_be_written_leaves_no_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is reported by name, and half a key does not stand in the way of the next attempt."""

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert "No space left" in str(refused(lambda: write_signing_key(path, SIGNING_KEY, None), path))
    assert not path.exists()
    write_signing_key(path, SIGNING_KEY, None)


def test_a_key_file_needs_its_folder(tmp_path: Path) -> None:
    """A missing folder is reported, not made."""
    missing = tmp_path / "missing" / "signing.key"
    assert "No such file" in str(refused(lambda: write_signing_key(missing, SIGNING_KEY, None), missing))


def test_an_empty_passphrase_protects_nothing(path: Path) -> None:
    """An empty passphrase is refused before anything is written."""
    error = refused(lambda: write_signing_key(path, SIGNING_KEY, Secret(b""), cost=CHEAP), path)
    assert "empty" in str(error)
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o660, 0o644, 0o440, 0o444, 0o777])
def test_a_key_file_that_others_may_use_is_refused(plain: Path, mode: int) -> None:
    """Any permission bit for group or others is refused, with the command that mends it."""
    plain.chmod(mode)
    error = refused(lambda: read(plain), plain)
    assert f"mode {mode:04o}" in str(error)
    assert error.hint == f"chmod 600 {plain}"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_key_file_that_only_its_owner_may_use_is_read(plain: Path, mode: int) -> None:
    """What the owner itself may do is the owner's business."""
    plain.chmod(mode)
    assert read(plain).key_id == SIGNING_KEY.key_id


def test_the_hint_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    """A path with blanks is quoted in the command of the hint."""
    path = tmp_path / "my keys" / "signing.key"
    path.parent.mkdir()
    write_signing_key(path, SIGNING_KEY, None)
    path.chmod(0o644)
    assert refused(lambda: read(path), path).hint == f"chmod 600 '{path}'"


def test_a_symbolic_link_to_a_key_file_is_followed(tmp_path: Path, plain: Path) -> None:
    """Keys may live elsewhere; the permissions that count are those of the file itself."""
    link = tmp_path / "link.key"
    link.symlink_to(plain)
    assert read(link).key_id == SIGNING_KEY.key_id
    plain.chmod(0o640)
    refused(lambda: read(link), link)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """Folders, FIFOs, devices, missing files and endless links are refused, and no reader hangs."""
    fifo, folder, loop = tmp_path / "fifo", tmp_path / "folder", tmp_path / "loop"
    os.mkfifo(fifo, 0o600)
    folder.mkdir(0o700)
    loop.symlink_to(loop)
    for path in (fifo, folder, Path("/dev/null")):
        assert "not a regular file" in str(refused(lambda path=path: read(path), path))  # type: ignore[misc]
    for path in (tmp_path / "missing", loop):
        refused(lambda path=path: read(path), path)  # type: ignore[misc]


def test_a_failing_disk_is_reported_by_name(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while reading is a KeyFileInvalid that names path and cause, like every other."""

    def failing(_descriptor: int) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def read_from_failing_disk() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(os, "fstat", failing)
            read(plain)

    assert "Input/output error" in str(refused(read_from_failing_disk, plain))


def test_no_file_descriptor_stays_open(tmp_path: Path, plain: Path) -> None:
    """Reading, refusing and writing leave no open file behind."""
    before = set(Path("/proc/self/fd").iterdir())
    read(plain)
    refused(lambda: read(tmp_path), tmp_path)
    refused(lambda: write_signing_key(plain, SIGNING_KEY, None), plain)
    write_signing_key(tmp_path / "other", SIGNING_KEY, None)
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_file_over_64_kib_is_refused(plain: Path) -> None:
    """65,536 bytes are read, one more is refused."""
    content = plain.read_bytes()
    private_file(plain, content + b" " * (KEY_FILE_BYTES_MAX - len(content)))
    assert read(plain).key_id == SIGNING_KEY.key_id
    private_file(plain, content + b" " * (KEY_FILE_BYTES_MAX + 1 - len(content)))
    assert "65536" in str(refused(lambda: read(plain), plain))


# ---- what is refused in a file -----------------------------------------------------------------


def test_a_wrong_passphrase_is_refused(protected: Path) -> None:
    """Another passphrase, none, and an empty one do not open the file."""
    for wrong in (Secret(b"canary passphrasf"), Secret(b"canary passphrase "), Secret(b"")):
        assert "passphrase is wrong" in str(refused(lambda wrong=wrong: read(protected, wrong), protected))  # type: ignore[misc]
    assert "under a passphrase" in str(refused(lambda: read(protected, None), protected))


def leaves(value: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Give every field of a JSON object and of the objects in it."""
    for name, child in value.items():
        if isinstance(child, dict):
            yield from leaves(child, (*where, name))
        else:
            yield (*where, name), child


def changed(value: Any) -> Iterator[Any]:
    """Give values near this one: plausible ones, and ones of another type."""
    yield from (None, True, 1.5, "", [], {}, [value], {"value": value})
    if isinstance(value, int):
        yield from (value + 1, value - 1, -value, 0, 2**31, 2**64, str(value), float(value))
    else:
        yield from (5, value + " ", value + "=", value[:-1], value + "A", value.swapcase(), "\ud800")
        for position in range(len(value)):
            yield value[:position] + ("B" if value[position] == "A" else "A") + value[position + 1 :]
        yield from ("none", "argon2id", "ed25519", "x-wing", "dhkem-p256", "strongroom-key/v2")


def with_change(content: dict[str, Any], where: tuple[str, ...], value: Any) -> str:
    copied: dict[str, Any] = json.loads(json.dumps(content))
    holder = copied
    for name in where[:-1]:
        holder = holder[name]
    holder[where[-1]] = value
    return json.dumps(copied)


@with_and_without_passphrase
def test_a_file_with_any_field_changed_is_refused(path: Path, passphrase: Secret | None) -> None:
    """Every field is bound or checked: no other value, of the same type or another, is read."""
    write_signing_key(path, SIGNING_KEY, passphrase, cost=CHEAP)
    content = json.loads(path.read_text())
    tried = 0
    for where, value in leaves(content):
        for other in changed(value):
            if other != value or type(other) is not type(value):
                private_file(path, with_change(content, where, other))
                refused(lambda: read(path), path)
                tried += 1
    assert tried > 200


@each_suite
def test_a_sealing_key_file_with_a_bound_field_changed_is_refused(path: Path, suite: Suite) -> None:
    """Suite, id, public key and private key belong together, with a passphrase and without."""
    key, other = SEALING_KEYS[suite], PrivateSealingKey.generate(suite)
    for passphrase in (None, PASSPHRASE):
        path.unlink(missing_ok=True)
        write_sealing_key(path, key, passphrase, cost=CHEAP)
        content = json.loads(path.read_text())
        changes = {
            "algorithm": next(name.value for name in Suite if name is not suite),
            "id": other.kid,
            "public_key": base64.b64encode(other.public_key).decode(),
            "private_key": base64.b64encode(other.private_bytes().expose()).decode(),
        }
        for field, value in changes.items():
            private_file(path, with_change(content, (field,), value))
            refused(lambda: read_sealing_key(path, PASSPHRASE), path)
        private_file(path, json.dumps({**content, **changes, "algorithm": suite.value, "private_key": "AAAA"}))
        refused(lambda: read_sealing_key(path, PASSPHRASE), path)


@with_and_without_passphrase
def test_a_file_with_any_field_missing_is_refused(path: Path, passphrase: Secret | None) -> None:
    """Every field is needed."""
    write_signing_key(path, SIGNING_KEY, passphrase, cost=CHEAP)
    content = json.loads(path.read_text())
    for where, _ in [*leaves(content), (("protection",), None)]:
        copied = json.loads(json.dumps(content))
        holder = copied["protection"] if len(where) == 2 else copied
        del holder[where[-1]]
        private_file(path, json.dumps(copied))
        error = refused(lambda: read(path), path)
        assert where[0] in str(error)


@with_and_without_passphrase
@pytest.mark.parametrize("value", ["", "A", "AAA=AAA=", "QQ==QQ==", "QR==", "not base64", "é", 5, None, ["QQ=="]])
def test_a_private_key_that_is_no_base64_is_refused_by_name(
    path: Path, passphrase: Secret | None, value: object
) -> None:
    """The error names the field, and is not mistaken for a wrong passphrase."""
    write_signing_key(path, SIGNING_KEY, passphrase, cost=CHEAP)
    private_file(path, with_change(json.loads(path.read_text()), ("private_key",), value))
    assert "the field private_key is missing or wrong" in str(refused(lambda: read(path), path))


@with_and_without_passphrase
def test_a_file_with_an_unknown_field_is_refused(path: Path, passphrase: Secret | None) -> None:
    """A field that this version does not know is not ignored."""
    write_signing_key(path, SIGNING_KEY, passphrase, cost=CHEAP)
    content = json.loads(path.read_text())
    for where in (("comment",), ("protection", "comment")):
        private_file(path, with_change(content, where, "x"))
        assert "unknown" in str(refused(lambda: read(path), path))


@pytest.mark.parametrize("field", ["format", "private_key", "kdf"])
def test_a_file_with_a_field_twice_is_refused(plain: Path, field: str) -> None:
    """A repeated field is refused, because readers differ in which of the two they take."""
    lines = plain.read_text().splitlines()
    position = next(number for number, line in enumerate(lines) if f'"{field}"' in line)
    lines.insert(position, lines[position].rstrip(",") + ",")
    private_file(plain, "\n".join(lines))
    assert "twice" in str(refused(lambda: read(plain), plain))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"null",
        b"5",
        b"[]",
        b"{}",
        b"NaN",
        b'"canary seed of thirty-two bytes!"',
        b"\xff\xfe",
        b"\x00" * 100,
        b"{",
        b'{"private_key": "' + base64.b64encode(SEED) + b'"',
        b'{"private_key": "' + base64.b64encode(SEED) + b'"}',
        b'{"private_key": "\\ud800"}',
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"format": ' + b"9" * 5000 + b"}",
        b"-----BEGIN PRIVATE KEY-----\n" + base64.b64encode(SEED) + b"\n-----END PRIVATE KEY-----\n",
    ],
)
def test_what_is_no_key_file_is_refused(path: Path, content: bytes) -> None:
    """Any other content is refused without showing it, however deep or broken."""
    private_file(path, content)
    assert "not a key file" in str(refused(lambda: read(path), path))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory_kib", 1024 * 1024 + 1),
        ("memory_kib", 2**31),
        ("memory_kib", 7),
        ("iterations", 17),
        ("iterations", 0),
        ("lanes", 17),
        ("lanes", 0),
        ("lanes", -1),
    ],
)
def test_an_absurd_cost_is_refused_before_it_is_paid(
    protected: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: int
) -> None:
    """A file that asks for over 1 GiB, 16 iterations or 16 lanes does not get to run its key derivation."""

    def never(**_cost: object) -> None:
        raise AssertionError("the key derivation was started")

    monkeypatch.setattr(key_file, "Argon2id", never)
    content = json.loads(protected.read_text())
    private_file(protected, with_change(content, ("protection", field), value))
    assert "cost" in str(refused(lambda: read(protected), protected))


def test_a_cost_at_the_limits_is_a_cost() -> None:
    """The limits themselves are allowed, one beyond is a ValueError that names the limit."""
    KdfCost(16, 16, 1024 * 1024)
    KdfCost(1, 1, 8)
    for beyond in ((17, 1, 8), (0, 1, 8), (1, 17, 1024), (1, 0, 8), (1, 1, 7), (1, 2, 15), (1, 1, 1024 * 1024 + 1)):
        with pytest.raises(ValueError, match="key derivation takes"):
            KdfCost(*beyond)


def test_a_key_of_the_other_kind_is_refused(tmp_path: Path, plain: Path) -> None:
    """A signing key is not read as a sealing key, nor a sealing key as a signing key."""
    sealing = tmp_path / "sealing.key"
    write_sealing_key(sealing, SEALING_KEYS[Suite.X_WING], None)
    assert "sealing key (x-wing)" in str(refused(lambda: read(sealing), sealing))
    assert "signing key (ed25519)" in str(refused(lambda: read_sealing_key(plain, None), plain))


# ---- passphrases -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"pass phrase", b"pass phrase\n", b"pass phrase\r\n", b"pass phrase\nsecond line\n"]
)
def test_a_passphrase_is_the_first_line(path: Path, content: bytes) -> None:
    """The line end does not belong to it, blanks do."""
    assert read_passphrase(private_file(path, content)) == Secret(b"pass phrase")


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n", b"\nsecond line\n"])
def test_an_empty_passphrase_is_refused(path: Path, content: bytes) -> None:
    """An empty file or first line is no passphrase."""
    assert "empty" in str(refused(lambda: read_passphrase(private_file(path, content)), path))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o440, 0o444, 0o660])
def test_a_passphrase_file_that_others_may_use_is_refused(path: Path, mode: int) -> None:
    """Outside the folders of mounted secrets the rule is that of key files."""
    private_file(path, PASSPHRASE.expose()).chmod(mode)
    assert refused(lambda: read_passphrase(path), path).hint == f"chmod 600 {path}"


def mounted_below(folder: Path, variable: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    if variable:
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    else:
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        monkeypatch.setattr(secret_file, "MOUNTED_SECRETS", folder)


mounts = pytest.mark.parametrize("variable", [True, False], ids=["credentials", "run-secrets"])


@mounts
@pytest.mark.parametrize(
    ("mode", "accepted"),
    [(0o400, True), (0o440, True), (0o444, True), (0o640, False), (0o644, False), (0o464, False), (0o445, False)],
)
def test_a_mounted_passphrase_may_be_readable_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, variable: bool, mode: int, accepted: bool
) -> None:
    """Below the two folders of mounted secrets, read bits for others are accepted, other bits are not."""
    mounted_below(path.parent, variable, monkeypatch)
    private_file(path, PASSPHRASE.expose()).chmod(mode)
    if accepted:
        assert read_passphrase(path) == PASSPHRASE
    else:
        refused(lambda: read_passphrase(path), path)


@mounts
def test_a_key_file_gets_no_exception_as_a_mounted_secret(
    plain: Path, monkeypatch: pytest.MonkeyPatch, *, variable: bool
) -> None:
    """The exception is for passphrases; a key file that others may read is refused everywhere."""
    mounted_below(plain.parent, variable, monkeypatch)
    plain.chmod(0o440)
    refused(lambda: read(plain), plain)


@mounts
def test_a_link_out_of_the_mounted_secrets_is_no_mounted_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, variable: bool
) -> None:
    """What counts is where the file lies, not where its name lies; the file behind a link inside does."""
    mount = tmp_path / "secrets"
    (mount / "data").mkdir(parents=True)
    mounted_below(mount, variable, monkeypatch)
    for target, accepted in ((tmp_path / "outside", False), (mount / "data" / "inside", True)):
        private_file(target, PASSPHRASE.expose()).chmod(0o444)
        link = mount / f"link to {target.name}"
        link.symlink_to(target)
        if accepted:
            assert read_passphrase(link) == PASSPHRASE
        else:
            refused(lambda link=link: read_passphrase(link), link)  # type: ignore[misc]


@pytest.mark.parametrize("value", ["", ".", "relative"])
def test_a_credentials_directory_that_is_no_absolute_path_counts_for_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """An empty or relative variable does not turn the working directory into a place of mounted secrets."""
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", value)
    private_file(path, PASSPHRASE.expose()).chmod(0o444)
    refused(lambda: read_passphrase(path), path)


def test_a_mounted_secret_belongs_to_root_or_to_this_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of somebody else, or in a folder of a similar name, is no mounted secret."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    secret = Path("/run/secrets/passphrase")
    assert secret_file._is_mounted(secret, 0o444, 0)
    assert secret_file._is_mounted(secret, 0o400, 1000)
    assert not secret_file._is_mounted(secret, 0o444, 1001)
    assert not secret_file._is_mounted(Path("/run/secrets-of-others/passphrase"), 0o444, 0)
    assert not secret_file._is_mounted(Path("/run/passphrase"), 0o444, 0)
