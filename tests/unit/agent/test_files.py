"""Sealed files: ordinary age files whose session key is in escrow before they appear."""

import errno
import io
import os
import stat
import subprocess
import sys
import threading
from hashlib import sha256
from pathlib import Path

import pyrage
import pytest
from pyrage import x25519
from tests.support.agents import Clock

from strongroom.crypto.secret import Secret
from strongroom.errors import (
    BlobInvalid,
    BrokerUnavailable,
    ExitCode,
    KeyFileInvalid,
    LimitExceeded,
    TransientError,
    UsageError,
)
from strongroom.testing import FakeAuthority
from strongroom_agent import age, files
from strongroom_agent.agent import Agent
from strongroom_agent.files import name_of

CONTENT = b"thesis, chapter one\n" * 10_000


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "thesis.txt"
    path.write_bytes(CONTENT)
    return path


def names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def leftovers(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if entry.name.startswith(".")]


async def test_a_sealed_file_opens_with_the_owners_identity_and_any_age_tool(agent: Agent, document: Path) -> None:
    """It is an ordinary age file."""
    sealed = await agent.seal_file(document)
    assert sealed.path == document.with_name("thesis.txt.age")
    identity = age.read_identities(agent._home.age_key_file)
    assert pyrage.decrypt(sealed.path.read_bytes(), identity) == CONTENT
    opened = agent.open_file(sealed.path, overwrite=True)
    assert opened == document
    assert opened.read_bytes() == CONTENT


async def test_the_recovered_session_key_alone_opens_the_file(agent: Agent, document: Path, tmp_path: Path) -> None:
    """`recover` finds it by the file's own header; the result is an age identity file."""
    sealed = await agent.seal_file(document)
    assert sealed.delivery.stored == 1
    found = await agent.recover(name=name_of(sealed.path))
    identity_file = tmp_path / "session.key"
    identity_file.write_bytes(found.keys[0].material.expose())
    agent._home.age_key_file.unlink()
    opened = agent.open_file(sealed.path, output=tmp_path / "again.txt", identity_file=identity_file)
    assert opened.read_bytes() == CONTENT
    record = found.keys[0].record
    assert (record.kind, record.description, record.id) == ("age-identity", "thesis.txt", sealed.record_id)


async def test_a_file_is_named_by_its_header(agent: Agent, document: Path) -> None:
    """`file-` and 32 hex digits of the SHA-256 of everything through the line of the MAC."""
    sealed = await agent.seal_file(document)
    content = sealed.path.read_bytes()
    end = content.index(b"\n", content.index(b"\n--- ") + 1) + 1
    assert sealed.name == f"file-{sha256(content[:end]).hexdigest()[:32]}" == name_of(sealed.path)
    with sealed.path.open("r+b") as stream:
        stream.truncate(end)
    assert name_of(sealed.path) == sealed.name


async def test_the_session_key_is_in_the_spool_before_the_file_appears(
    agent: Agent, document: Path, authority: FakeAuthority
) -> None:
    """Without broker the file appears all the same, because its key is safe."""
    authority.broker_down = True
    seen: list[tuple[int, bool]] = []
    target = document.with_name("thesis.txt.age")
    add = agent._spool.add

    def look(packed: list[object], now: int) -> None:
        seen.append((len(agent._spool.spooled()), target.exists()))
        add(packed, now)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent._spool, "add", look)
        sealed = await agent.seal_file(document, wait_seconds=0.02)
    assert seen == [(0, False)]
    assert isinstance(sealed.delivery.error, BrokerUnavailable)
    assert sealed.delivery.exit_code is ExitCode.TRY_LATER
    assert target.exists()


async def test_no_file_appears_when_its_key_cannot_be_spooled(
    agent: Agent, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the file nor a part of it stays."""

    def refuse(*_arguments: object) -> None:
        raise LimitExceeded("no")

    monkeypatch.setattr(agent._spool, "add", refuse)
    with pytest.raises(LimitExceeded):
        await agent.seal_file(document)
    assert not document.with_name("thesis.txt.age").exists()
    assert leftovers(document.parent) == []


async def test_an_expired_roster_is_renewed_before_a_file_is_sealed(
    agent: Agent, document: Path, authority: FakeAuthority, clock: Clock
) -> None:
    """As for any other key."""
    clock.seconds = authority.roster.body.expires_at + 61
    authority.renew_roster()
    assert (await agent.seal_file(document)).delivery.stored == 1


async def test_every_file_has_a_session_key_of_its_own(agent: Agent, document: Path, tmp_path: Path) -> None:
    """Also the same file sealed twice."""
    one = await agent.seal_file(document)
    two = await agent.seal_file(document, output=tmp_path / "two.age")
    assert one.name != two.name
    found = await agent.recover(name=two.name)
    key_file = tmp_path / "two.key"
    key_file.write_bytes(found.keys[0].material.expose())
    with pytest.raises(BlobInvalid):
        agent.open_file(one.path, output=tmp_path / "x", identity_file=key_file)


async def test_outputs_are_private_whatever_the_umask(agent: Agent, document: Path) -> None:
    """Mode 0600 for the sealed file and for its content."""
    before = os.umask(0)
    try:
        sealed = await agent.seal_file(document)
        opened = agent.open_file(sealed.path, overwrite=True)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (sealed.path, opened)] == [0o600, 0o600]


async def test_nothing_is_overwritten_unless_told(agent: Agent, document: Path) -> None:
    """The existing file stays as it is, and nothing is escrowed."""
    target = document.with_name("thesis.txt.age")
    target.write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        await agent.seal_file(document)
    assert target.read_text() == "mine"
    assert agent._spool.overview(None) == []
    sealed = await agent.seal_file(document, overwrite=True)
    with pytest.raises(UsageError, match="exists"):
        agent.open_file(sealed.path)
    assert agent.open_file(sealed.path, overwrite=True) == document
    assert leftovers(document.parent) == []


async def test_a_file_that_appears_meanwhile_is_not_overwritten(
    agent: Agent, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last moment counts; the session key stays in escrow, which harms nobody."""
    target = document.with_name("thesis.txt.age")
    add = agent._spool.add

    def meanwhile(packed: list[object], now: int) -> None:
        target.write_text("mine")
        add(packed, now)  # type: ignore[arg-type]

    monkeypatch.setattr(agent._spool, "add", meanwhile)
    with pytest.raises(UsageError, match="exists"):
        await agent.seal_file(document)
    assert target.read_text() == "mine"
    assert leftovers(document.parent) == []


async def test_a_file_system_without_hard_links_serves_too(
    agent: Agent, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule against overwriting holds there as well."""

    def refuse(_self: Path, _target: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    sealed = await agent.seal_file(document)
    assert name_of(sealed.path) == sealed.name
    with pytest.raises(UsageError, match="exists"):
        await agent.seal_file(document)


async def test_the_name_of_a_file_may_hold_anything(agent: Agent, tmp_path: Path) -> None:
    """Bytes that are no UTF-8 and control characters do not reach the authority."""
    path = tmp_path / os.fsdecode(b"caf\xe9\x07" + b"n" * 200)
    path.write_bytes(b"content")
    sealed = await agent.seal_file(path, output=tmp_path / "sealed.age")
    assert sealed.delivery.records[0].facts.description == "caf\N{REPLACEMENT CHARACTER}?" + "n" * 200


# ---- what is no sealed file ----


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"plain text",
        b"age-encryption.org/v1\n",
        b"age-encryption.org/v1\n-> X25519 abc\n",
        b"age-encryption.org/v1\n--- without an end",
        b"age-encryption.org/v2\n--- mac\n",
        b"-----BEGIN AGE ENCRYPTED FILE-----\n",
        b"age-encryption.org/v1\n" + b"-> x\n" * 20_000 + b"--- mac\n",
    ],
    ids=["empty", "text", "cut", "stanza", "open", "version", "armor", "endless"],
)
def test_what_has_no_age_header_has_no_name(tmp_path: Path, content: bytes) -> None:
    """And reading ends after a bounded header."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        name_of(path)


def test_a_missing_file_has_no_name(tmp_path: Path) -> None:
    """The error names it."""
    with pytest.raises(UsageError, match="nowhere"):
        name_of(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", ["flipped", "cut"])
async def test_a_damaged_file_gives_no_content_at_all(
    agent: Agent, document: Path, tmp_path: Path, damage: str
) -> None:
    """Not even the chunks before the damage."""
    sealed = await agent.seal_file(document)
    content = bytearray(sealed.path.read_bytes())
    if damage == "flipped":
        content[-1] ^= 1
    else:
        del content[-20_000:]
    sealed.path.write_bytes(content)
    with pytest.raises(BlobInvalid):
        agent.open_file(sealed.path, output=tmp_path / "opened")
    assert "opened" not in names(tmp_path)
    assert leftovers(tmp_path) == []


async def test_a_file_sealed_by_somebody_else_does_not_open(agent: Agent, tmp_path: Path) -> None:
    """The hint names the way to its session key."""
    path = tmp_path / "theirs.age"
    path.write_bytes(pyrage.encrypt(b"theirs", [x25519.Identity.generate().to_public()]))
    with pytest.raises(BlobInvalid) as caught:
        agent.open_file(path)
    assert "recover" in str(caught.value.hint)


async def test_paths_that_cannot_be_used_are_named(agent: Agent, document: Path, tmp_path: Path) -> None:
    """A missing source, a missing folder, a name without .age."""
    with pytest.raises(UsageError, match="nowhere"):
        await agent.seal_file(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no-folder"):
        await agent.seal_file(document, output=tmp_path / "no-folder" / "x.age")
    with pytest.raises(UsageError, match="does not end"):
        agent.open_file(document)


@pytest.mark.parametrize(
    "content",
    [b"", b"# only a comment\n", b"AGE-SECRET-KEY-1WRONG\n", b"\xff\xfe", b"x" * 70_000, b"ssh-ed25519 AAAA\n"],
    ids=["empty", "comment", "wrong", "binary", "large", "ssh"],
)
async def test_a_bad_identity_file_is_named_and_not_shown(
    agent: Agent, document: Path, tmp_path: Path, content: bytes
) -> None:
    """Its content might be almost a key."""
    sealed = await agent.seal_file(document)
    path = tmp_path / "identity"
    path.write_bytes(content)
    with pytest.raises(KeyFileInvalid) as caught:
        agent.open_file(sealed.path, output=tmp_path / "x", identity_file=path)
    assert "WRONG" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_an_identity_file_is_read_with_comments_and_blank_lines(tmp_path: Path) -> None:
    """As age-keygen writes it."""
    identity = x25519.Identity.generate()
    path = tmp_path / "identity"
    path.write_text(f"# created: today\r\n# public key: {identity.to_public()}\r\n\r\n{identity}\r\n")
    assert [str(each) for each in age.read_identities(path)] == [str(identity)]


async def test_a_full_disk_leaves_nothing_behind(
    agent: Agent, document: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is worth trying again, and no part of the file stays, sealed or open."""
    sealed = await agent.seal_file(document)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TransientError, match="No space left"):
        await agent.seal_file(document, output=document.with_name("other.age"))
    with pytest.raises(TransientError, match="No space left"):
        agent.open_file(sealed.path, output=document.with_name("opened"))
    assert {"other.age", "opened"} & set(names(document.parent)) == set()
    assert leftovers(document.parent) == []


class Failing(io.RawIOBase):
    """A stream on a full disk."""

    def writable(self) -> bool:
        """Claim to be."""
        return True

    def write(self, _content: object) -> int:
        """Fail."""
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_failing_stream_is_not_taken_for_a_damaged_file() -> None:
    """Neither when sealing nor when opening."""
    identity = x25519.Identity.generate()
    sealed = pyrage.encrypt(b"x" * 200_000, [identity.to_public()])
    with pytest.raises(OSError, match="No space left"):
        age.decrypt(io.BytesIO(sealed), Failing(), [identity])
    with pytest.raises(OSError, match="No space left"):
        age.encrypt(io.BytesIO(b"x" * 200_000), Failing(), [identity.to_public()])


def test_sealing_and_opening_take_constant_memory(tmp_path: Path) -> None:
    """A file of 96 MiB goes through with less than 24 MiB more than a file of one byte."""
    program = f"""
import resource, sys
from pathlib import Path
from pyrage import x25519
from strongroom_agent import age, files
folder, size = Path({str(tmp_path)!r}), int(sys.argv[1])
identity = x25519.Identity.generate()
key = folder / f"{{size}}.key"
age.write_identity(key, identity)
source = folder / f"{{size}}"
with source.open("wb") as stream:
    stream.truncate(size)
with files.sealing(source, folder / f"{{size}}.age", identity.to_public(), overwrite=False):
    pass
with files.opening(folder / f"{{size}}.age") as sealed:
    sealed.open_with_identities(key, folder / f"{{size}}.out", overwrite=False)
assert (folder / f"{{size}}.out").stat().st_size == size
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    paths = os.pathsep.join(path for path in sys.path if path)
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", program, str(size)],
                check=True,
                capture_output=True,
                env={**os.environ, "PYTHONPATH": paths},
            ).stdout
        )
        for size in (1, 96 * 1024 * 1024)
    ]
    assert peaks[1] - peaks[0] < 24 * 1024


def test_a_default_output_is_the_name_without_its_suffix() -> None:
    """Only `.age` is taken off."""
    assert files.default_output(Path("a/thesis.tar.age")) == Path("a/thesis.tar")


# ---- what is read ----


async def test_a_pipe_is_sealed_and_opened(agent: Agent, tmp_path: Path) -> None:
    """It is read once, from its beginning to its end."""
    pipes = [tmp_path / "in", tmp_path / "back"]
    for pipe in pipes:
        os.mkfifo(pipe)
    feeding = threading.Thread(target=pipes[0].write_bytes, args=(CONTENT,))
    feeding.start()
    sealed = await agent.seal_file(pipes[0], output=tmp_path / "sealed.age")
    feeding.join()
    feeding = threading.Thread(target=pipes[1].write_bytes, args=(sealed.path.read_bytes(),))
    feeding.start()
    opened = agent.open_file(pipes[1], output=tmp_path / "opened")
    feeding.join()
    assert opened.read_bytes() == CONTENT


@pytest.mark.parametrize("change", ["grows", "same size"])
@pytest.mark.parametrize("to", ["identities", "passphrase"])
def test_a_file_that_changes_while_it_is_read_is_not_sealed(document: Path, change: str, to: str) -> None:
    """Half of one state and half of another are of no use to anybody."""

    def change_it(read: int | None) -> None:
        if read is None:
            with document.open("ab" if change == "grows" else "r+b") as stream:
                stream.write(b"more")
            os.utime(document, ns=(1, 1))

    target = document.with_name("sealed.age")
    with pytest.raises(TransientError, match="changed while it was read"):
        if to == "passphrase":
            files.seal_to_passphrase(document, target, Secret(b"p"), overwrite=False, watch=change_it)
        else:
            recipient = x25519.Identity.generate().to_public()
            with files.sealing(document, target, recipient, overwrite=False, watch=change_it):
                pytest.fail("sealed")
    assert names(document.parent).count("sealed.age") == 0
    assert leftovers(document.parent) == []


async def test_a_watcher_is_told_how_far_it_is(agent: Agent, tmp_path: Path) -> None:
    """About once in each MiB, and at the end."""
    path = tmp_path / "large"
    path.write_bytes(bytes(5 * 1024 * 1024 + 1))
    told: list[int | None] = []
    sealed = await agent.seal_file(path, watch=told.append)
    assert told == [*(each * 1024 * 1024 for each in range(1, 6)), None]
    told.clear()
    with files.opening(sealed.path) as content:
        content.open_with_identities(agent._home.age_key_file, tmp_path / "out", overwrite=False, watch=told.append)
    assert [each for each in told if each is None] == [None]
    assert max(each or 0 for each in told) <= sealed.path.stat().st_size


@pytest.mark.parametrize("direction", ["seal", "open"])
async def test_ctrl_c_leaves_nothing_and_is_no_other_error(agent: Agent, tmp_path: Path, direction: str) -> None:
    """Neither a failing disk nor a damaged file: pyrage makes such of whatever a stream raises."""
    path = tmp_path / "large"
    path.write_bytes(bytes(3 * 1024 * 1024))
    sealed = await agent.seal_file(path)
    before = set(names(tmp_path))

    def interrupt(_read: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        if direction == "seal":
            await agent.seal_file(path, output=tmp_path / "x", watch=interrupt)
        else:
            with files.opening(sealed.path) as content:
                content.open_with_identities(
                    agent._home.age_key_file, tmp_path / "x", overwrite=False, watch=interrupt
                )
    assert set(names(tmp_path)) == before


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
async def test_only_a_regular_file_is_replaced(agent: Agent, document: Path, tmp_path: Path, kind: str) -> None:
    """Who overwrites /dev/null by mistake has a broken machine."""
    target = tmp_path / kind
    match kind:
        case "folder":
            target.mkdir()
        case "pipe":
            os.mkfifo(target)
        case _:
            # By a link, which alone would be lost.
            target.symlink_to("/dev/null")
    with pytest.raises(UsageError, match="no regular file"):
        await agent.seal_file(document, output=target, overwrite=True)
    assert target.exists()
    assert not target.is_file()


def test_a_file_in_ascii_armor_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """The age program opens it."""
    path = tmp_path / "armored.age"
    path.write_bytes(pyrage.encrypt(b"x", [x25519.Identity.generate().to_public()], armored=True))
    with pytest.raises(UsageError, match="armor") as caught, files.opening(path):
        pytest.fail("opened")
    assert "age -d" in str(caught.value.hint)


# ---- a passphrase instead ----


def test_a_file_for_a_passphrase_opens_with_it_alone(document: Path, tmp_path: Path) -> None:
    """Its header says that it is for one; an identity does not open it."""
    target = tmp_path / "sealed.age"
    files.seal_to_passphrase(document, target, Secret(b"words"), overwrite=False)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with files.opening(target) as sealed:
        assert sealed.is_for_passphrase
        sealed.open_with_passphrase(Secret(b"words"), tmp_path / "opened", overwrite=False)
    assert (tmp_path / "opened").read_bytes() == CONTENT
    key = tmp_path / "key"
    age.write_identity(key, x25519.Identity.generate())
    with files.opening(target) as sealed, pytest.raises(BlobInvalid):
        sealed.open_with_identities(key, tmp_path / "x", overwrite=False)
    with files.opening(target) as sealed, pytest.raises(BlobInvalid):
        sealed.open_with_passphrase(Secret(b"Words"), tmp_path / "x", overwrite=False)
    assert "x" not in names(tmp_path)


def test_a_hostile_work_factor_is_refused_before_a_passphrase_is_asked_for(document: Path, tmp_path: Path) -> None:
    """As soon as the header is read."""
    target = tmp_path / "sealed.age"
    files.seal_to_passphrase(document, target, Secret(b"words"), overwrite=False)
    target.write_bytes(target.read_bytes().replace(b" 18\n", b" 30\n", 1))
    with pytest.raises(LimitExceeded, match=r"2\^30"), files.opening(target):
        pytest.fail("opened")


# ---- the session key of a file that is there already ----


def sealed_elsewhere(path: Path, identity: x25519.Identity, content: bytes = CONTENT) -> Path:
    """Make an age file as another program does, and its identity file beside it."""
    path.write_bytes(pyrage.encrypt(content, [identity.to_public(), x25519.Identity.generate().to_public()]))
    key = path.with_suffix(".key")
    age.write_identity(key, identity)
    return key


@pytest.mark.parametrize("content", [b"", b"x", CONTENT], ids=["empty", "byte", "chunks"])
async def test_the_key_of_a_sealed_file_can_be_escrowed_afterwards(
    agent: Agent, tmp_path: Path, content: bytes
) -> None:
    """And is found by the file, as if `seal` had made it."""
    path = tmp_path / "theirs.age"
    key = sealed_elsewhere(path, x25519.Identity.generate(), content)
    delivery = await agent.escrow_session_key(path, key)
    assert delivery.stored == 1
    found = await agent.recover(name=name_of(path))
    assert (found.keys[0].record.kind, found.keys[0].record.description) == ("age-identity", "theirs.age")
    recovered = tmp_path / "recovered"
    recovered.write_bytes(found.keys[0].material.expose())
    assert agent.open_file(path, identity_file=recovered).read_bytes() == content


async def test_of_several_identities_the_one_that_opens_is_escrowed(agent: Agent, tmp_path: Path) -> None:
    """The others are none of the authority's business."""
    identity = x25519.Identity.generate()
    path = tmp_path / "theirs.age"
    key = sealed_elsewhere(path, identity)
    key.write_text(f"{x25519.Identity.generate()}\n{identity}\n{x25519.Identity.generate()}\n")
    await agent.escrow_session_key(path, key)
    found = await agent.recover(name=name_of(path))
    assert found.keys[0].material.expose() == str(identity).encode()


async def test_an_identity_that_does_not_open_the_file_is_not_escrowed(agent: Agent, tmp_path: Path) -> None:
    """Nor for a file that is damaged at its beginning, nor is one with a passphrase taken for one with a key."""
    path = tmp_path / "theirs.age"
    key = sealed_elsewhere(path, x25519.Identity.generate())
    other = sealed_elsewhere(tmp_path / "other.age", x25519.Identity.generate())
    with pytest.raises(BlobInvalid, match="no identity fits"):
        await agent.escrow_session_key(path, other)
    content = bytearray(path.read_bytes())
    content[-len(CONTENT)] ^= 1
    (tmp_path / "damaged.age").write_bytes(content)
    with pytest.raises(BlobInvalid):
        await agent.escrow_session_key(tmp_path / "damaged.age", key)
    protected = tmp_path / "protected.age"
    files.seal_to_passphrase(key, protected, Secret(b"words"), overwrite=False)
    with pytest.raises(UsageError, match="passphrase"):
        await agent.escrow_session_key(protected, key)
    assert agent._spool.spooled() == []


async def test_the_identity_of_the_home_is_not_escrowed_as_a_session_key(agent: Agent, document: Path) -> None:
    """It opens all files of the host, and whoever gets one of them back would have them all."""
    sealed = await agent.seal_file(document)
    before = agent._spool.counts()
    with pytest.raises(UsageError, match="own identity"):
        await agent.escrow_session_key(sealed.path, agent._home.age_key_file)
    assert agent._spool.counts() == before


def test_no_more_than_the_beginning_of_a_file_is_read_to_see_whether_it_opens() -> None:
    """A file of a terabyte takes as long as one of a page."""
    identity = x25519.Identity.generate()
    sealed = pyrage.encrypt(bytes(1_000_000), [identity.to_public()])
    asked: list[int] = []

    class Watched(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(size or -1)
            return super().read(size)

    assert age.opening_identity(Watched(sealed), [identity]) is identity
    assert len(asked) == 1
    assert 0 < asked[0] < 200_000
