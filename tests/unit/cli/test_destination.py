"""Where a command may put a key, judged before the key is there."""

from pathlib import Path

import pytest

from strongroom.errors import UsageError
from strongroom_cli.destination import check_destination, destination, is_stdout


def test_a_key_goes_nowhere_by_itself() -> None:
    """The way to the terminal is told by the commands that have one."""
    for reveal, named in ((None, False), (False, True)):
        with pytest.raises(UsageError, match="say where") as caught:
            check_destination(None, force=False, json=False, reveal=reveal)
        assert ("--reveal" in (caught.value.hint or "")) == named
    check_destination(None, force=False, json=False, reveal=True)


@pytest.mark.parametrize("out", [None, Path("-")])
def test_a_key_is_never_part_of_a_document(out: Path | None) -> None:
    """Both go to standard output."""
    assert is_stdout(out)
    with pytest.raises(UsageError, match="JSON"):
        check_destination(out, force=False, json=True, reveal=True)


def test_a_file_that_is_there_is_refused_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    """A folder in any case; what is not there yet is fine."""
    there = tmp_path / "there"
    there.write_bytes(b"before")
    with pytest.raises(UsageError, match="exists"):
        check_destination(there, force=False, json=True)
    for force in (False, True):
        with pytest.raises(UsageError, match="is a folder"):
            check_destination(tmp_path, force=force, json=False)
        check_destination(tmp_path / "new", force=force, json=False)
    check_destination(there, force=True, json=True)


def test_a_key_is_for_its_owner_alone_and_there_only_when_all_went_well(tmp_path: Path) -> None:
    """What was overwritten stays when the writing fails."""
    out = tmp_path / "key"
    with destination(out, force=False) as stream:
        stream.write(b"first")
    assert (out.read_bytes(), out.stat().st_mode & 0o777) == (b"first", 0o600)
    with pytest.raises(RuntimeError), destination(out, force=True) as stream:
        stream.write(b"second")
        raise RuntimeError
    assert out.read_bytes() == b"first"


def test_a_pipe_gets_the_key_at_once(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """And nothing else."""
    with destination(Path("-"), force=False) as stream:
        stream.write(b"key")
    assert capfdbinary.readouterr().out == b"key"
