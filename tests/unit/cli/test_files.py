"""seal, open and escrow --file at the command: pipes, passphrases, and what is refused with which words."""

import json
import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pyrage
import pytest
from click.testing import CliRunner, Result
from pyrage import x25519

from strongroom.errors import ExitCode
from strongroom_cli.app import cli

PROGRAM = Path(sys.executable).parent / "strongroom"
CONTENT = b"minutes of the meeting\n" * 5_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a command runs: with a file, a passphrase and an identity, and without a home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STRONGROOM_HOME", str(tmp_path / "nowhere"))
    (tmp_path / "minutes").write_bytes(CONTENT)
    (tmp_path / "words").write_text("correct horse\nanother line\n")
    (tmp_path / "words").chmod(0o600)
    return tmp_path


@pytest.fixture
def identity(folder: Path) -> x25519.Identity:
    made = x25519.Identity.generate()
    (folder / "key").write_text(f"{made}\n")
    return made


def run(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(cli, arguments, input=stdin)


def seal(folder: Path) -> bytes:
    assert run("seal", "minutes", "--passphrase-from", "words").exit_code == ExitCode.DONE
    return (folder / "minutes.age").read_bytes()


def on_terminal(arguments: list[str], answers: list[str], **options: str) -> tuple[int, str]:
    """Run the command on a terminal, give one answer to each prompt; return exit code and what was shown."""
    process, terminal = pty.fork()
    if not process:
        os.execve(str(PROGRAM), [str(PROGRAM), *arguments], {**os.environ, **options, "TERM": "xterm"})  # noqa: S606
    shown, waiting = "", list(answers)
    while True:
        assert select.select([terminal], [], [], 60)[0], shown
        try:
            part = os.read(terminal, 4_096).decode()
        except OSError:
            break
        shown += part
        if part.rstrip().endswith(":") and waiting:
            os.write(terminal, waiting.pop(0).encode() + b"\n")
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), shown


# ---- a passphrase ----


def test_a_passphrase_needs_no_home_and_leaves_nothing_in_escrow(folder: Path) -> None:
    """Its first line counts, and no other; pyrage opens it."""
    result = run("seal", "minutes", "--passphrase", "--passphrase-from", "words")
    assert result.exit_code == ExitCode.DONE
    assert "Nothing is in escrow" in result.stdout
    assert pyrage.passphrase.decrypt((folder / "minutes.age").read_bytes(), "correct horse") == CONTENT
    result = run("open", "minutes.age", "--passphrase-from", "words", "--output-file", "again", "-o", "json")
    assert json.loads(result.stdout)["path"] == "again"
    assert (folder / "again").read_bytes() == CONTENT
    assert not (folder / "nowhere").exists()


def test_of_a_file_sealed_to_a_passphrase_nothing_is_asked_of_the_authority(folder: Path) -> None:
    """`recover --file` says so before a home is needed, and what opens the file."""
    run("seal", "minutes", "--passphrase", "--passphrase-from", "words")
    result = run("recover", "--file", "minutes.age", "--out", "session.key")
    assert result.exit_code == ExitCode.USAGE
    assert "nothing of it is in escrow" in result.stderr
    assert "strongroom open minutes.age" in result.stderr
    assert not (folder / "session.key").exists()


def test_a_passphrase_is_asked_for_twice_and_never_shown(folder: Path) -> None:
    """A slip of the finger would close the file for good."""
    code, shown = on_terminal(["seal", "minutes", "--passphrase"], ["one two", "one too", "one two", "one two"])
    assert code == ExitCode.DONE, shown
    assert "do not match" in shown
    assert "one two" not in shown
    code, shown = on_terminal(["open", "minutes.age", "--output-file", "again"], ["one two"])
    assert code == ExitCode.DONE, shown
    assert "one two" not in shown
    assert (folder / "again").read_bytes() == CONTENT


def test_without_a_terminal_nobody_is_asked(folder: Path) -> None:
    """The hint names the option."""
    command = [str(PROGRAM), "seal", "minutes", "--passphrase"]
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, start_new_session=True
    )
    assert result.returncode == ExitCode.USAGE
    assert "--passphrase-from" in result.stderr


def test_the_passphrase_of_a_home_is_not_taken_for_that_of_a_file(folder: Path) -> None:
    """Two options, and each says what it is for; the environment's is left alone."""
    result = run("seal", "minutes", "--passphrase", "--passphrase-file", "words")
    assert result.exit_code == ExitCode.USAGE
    assert "--passphrase-from" in result.stderr
    assert not (folder / "minutes.age").exists()


def test_the_wrong_passphrase_opens_nothing(folder: Path) -> None:
    """And leaves nothing."""
    seal(folder)
    (folder / "words").write_text("Correct horse\n")
    result = run("open", "minutes.age", "--passphrase-from", "words", "--output-file", "again")
    assert result.exit_code == ExitCode.FAILED
    assert "passphrase does not open" in result.stderr
    assert not (folder / "again").exists()


def test_too_much_work_is_refused_before_anybody_is_asked(folder: Path) -> None:
    """On a terminal, where the next thing would be the prompt."""
    (folder / "bomb.age").write_bytes(seal(folder).replace(b" 18\n", b" 30\n", 1))
    code, shown = on_terminal(["open", "bomb.age"], ["never given"])
    assert code == ExitCode.FAILED
    assert "2^30" in shown
    assert "Passphrase" not in shown


@pytest.mark.usefixtures("identity")
def test_identities_and_passphrases_do_not_replace_each_other(folder: Path, identity: x25519.Identity) -> None:
    """The header says which it takes."""
    seal(folder)
    (folder / "other.age").write_bytes(pyrage.encrypt(b"x", [identity.to_public()]))
    for arguments in (
        ("open", "minutes.age", "--identity", "key", "--output-file", "again"),
        ("open", "other.age", "--passphrase-from", "words", "--output-file", "again"),
    ):
        result = run(*arguments)
        assert result.exit_code == ExitCode.USAGE
        assert "replaces" in result.stderr


# ---- pipes ----


def test_standard_input_and_output_serve_where_nothing_can_be_lost(folder: Path, identity: x25519.Identity) -> None:
    """`seal -` with a name, `open` to a pipe; never a sealed file to a pipe, nor content into a JSON document."""
    result = run("seal", "-", "--passphrase-from", "words", "--output-file", "piped.age", stdin=CONTENT)
    assert result.exit_code == ExitCode.DONE
    sealed = (folder / "piped.age").read_bytes()
    result = run("open", "-", "--passphrase-from", "words", "--output-file", "-", stdin=sealed)
    assert (result.exit_code, result.stdout_bytes) == (ExitCode.DONE, CONTENT)
    theirs = pyrage.encrypt(CONTENT, [identity.to_public()])
    result = run("open", "-", "--identity", "key", "--output-file", "-", stdin=theirs)
    assert (result.exit_code, result.stdout_bytes) == (ExitCode.DONE, CONTENT)
    for arguments in (
        ("seal", "-", "--passphrase-from", "words"),
        ("seal", "minutes", "--passphrase-from", "words", "--output-file", "-"),
        ("seal", "minutes", "--output-file", "-"),
        ("open", "-", "--identity", "key"),
        ("open", "piped.age", "--passphrase-from", "words", "--output-file", "-", "-o", "json"),
    ):
        refused = run(*arguments, stdin=theirs)
        assert refused.exit_code == ExitCode.USAGE, arguments
        assert refused.stdout_bytes == b""


def test_damaged_content_on_standard_output_ends_with_a_failure(identity: x25519.Identity) -> None:
    """What came out before the damage is right, and the exit code says that it is not all."""
    damaged = pyrage.encrypt(CONTENT * 3, [identity.to_public()])[:-1]
    result = run("open", "-", "--identity", "key", "--output-file", "-", stdin=damaged)
    assert result.exit_code == ExitCode.FAILED
    assert (CONTENT * 3).startswith(result.stdout_bytes)


def test_sealing_a_secret_ends_with_kill_without_a_trace(folder: Path) -> None:
    """The signal comes while the command waits for more to seal."""
    command = [str(PROGRAM), "seal", "-", "--passphrase-from", "words", "--output-file", "piped.age"]
    before = sorted(folder.iterdir())
    with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        # More than a pipe holds: when this returns, reading has begun.
        process.stdin.write(bytes(1_000_000))
        process.stdin.flush()
        process.terminate()
        assert process.wait() == 128 + 15
    assert sorted(folder.iterdir()) == before


def test_progress_is_for_people_alone(folder: Path) -> None:
    """On a terminal there are bytes and a rate; to a pipe goes nothing."""
    with (folder / "large").open("wb") as stream:
        stream.truncate(200_000_000)
    code, shown = on_terminal(["seal", "large", "--passphrase-from", "words"], [])
    assert code == ExitCode.DONE
    assert "Sealing large" in shown
    assert "MB/s" in shown
    result = run("open", "large.age", "--passphrase-from", "words", "--output-file", "again")
    assert (result.exit_code, result.stderr) == (ExitCode.DONE, "")


# ---- escrow --file ----


@pytest.mark.usefixtures("identity")
def test_escrow_of_a_sealed_file_takes_no_other_word_on_it(folder: Path) -> None:
    """The age file says what the record is called; half of the options say nothing."""
    seal(folder)
    for arguments in (
        ("--file", "minutes.age"),
        ("--identity-file", "key"),
        ("--file", "minutes.age", "--identity-file", "key", "--name", "x"),
        ("--file", "minutes.age", "--identity-file", "key", "--kind", "x"),
        ("minutes", "--file", "minutes.age", "--identity-file", "key"),
        ("minutes",),
    ):
        result = run("escrow", *arguments)
        assert result.exit_code == ExitCode.USAGE, arguments
        assert "error: --" in result.stderr
