"""A witness signs what continues all that it has signed before, and nothing else."""

import fcntl
from pathlib import Path

import pytest
from tests.support.exports import NOW, edited

from strongroom.crypto.cosignatures import cosign, verify_cosignature
from strongroom.crypto.signing import SigningKey
from strongroom.errors import Busy, CheckpointInvalid, ConfigurationInvalid, LogForked, NotFound, ProofInvalid
from strongroom_audit.checkpoints import Known
from strongroom_audit.folder import Export, LogFolder, split_notes
from strongroom_audit.witness import Witness

from .conftest import Audited, Make

NAME = "witness.example/w1"


class Watched:
    """An export of 20 escrow statements, and a witness of it."""

    def __init__(self, audited: Audited, state: Path) -> None:
        self.audited, self.state, self.key = audited, state, SigningKey.generate()
        for _ in range(20):
            audited.authority.store("laptop-1")
        audited.export()

    def cosign(self, *, now: int = NOW) -> Known:
        """Cosign the escrow log's checkpoint."""
        rosters = [self.audited.authority.roster]
        return Witness(NAME, self.key, self.state).cosign(Export(self.audited.path), "escrow", rosters, now=now)

    def note(self) -> str:
        """Return the checkpoint of the export."""
        return (self.audited.path / "escrow/checkpoint").read_text()


@pytest.fixture
def watched(make: Make, tmp_path: Path) -> Watched:
    return Watched(make(), tmp_path / "witness.cosigned")


def test_the_cosigned_note_is_written_back_and_kept(watched: Watched) -> None:
    """It holds, the log's own signature too, and it is the witness's state."""
    before = watched.note()
    known = watched.cosign()
    assert verify_cosignature(watched.note(), NAME, watched.key.public_key) == NOW
    assert watched.note().startswith(before)
    assert known.checkpoint.size == 20
    assert split_notes(watched.state.read_text()) == [watched.note()]
    assert watched.audited.errors() == []
    assert watched.note() in Export(watched.audited.path).checkpoints()


def test_it_may_be_repeated(watched: Watched) -> None:
    """The later time takes the place of the earlier."""
    watched.cosign()
    watched.cosign(now=NOW + 5)
    assert verify_cosignature(watched.note(), NAME, watched.key.public_key) == NOW + 5
    assert len(split_notes(watched.state.read_text())) == 1


def test_a_log_that_has_grown_is_cosigned_again(watched: Watched) -> None:
    """It continues what was cosigned."""
    watched.cosign()
    for _ in range(300):
        watched.audited.authority.store("laptop-1")
    watched.audited.export()
    assert watched.cosign().checkpoint.size == 320


@pytest.mark.parametrize("size", [15, 20, 30])
def test_another_history_is_not_signed(watched: Watched, size: int) -> None:
    """Smaller, of the same size, or larger; state and export stay as they are."""
    watched.cosign()
    state, log = watched.state.read_text(), watched.audited.authority.escrow
    del log.rows[10:]
    watched.audited.authority.escrow = log.rebuilt()
    for _ in range(size - 10):
        watched.audited.authority.store("laptop-1")
    for each in (watched.audited.path / "escrow").rglob("*"):
        if each.is_file():
            each.unlink()
    note = watched.audited.authority.escrow.checkpoint()
    watched.audited.export()
    with pytest.raises(LogForked, match="20 leaves"):
        watched.cosign()
    assert (watched.state.read_text(), watched.note()) == (state, note)


def test_a_tree_that_does_not_lead_to_its_checkpoint_is_not_signed(watched: Watched) -> None:
    """A leaf was edited."""
    log = watched.audited.authority.escrow
    log.sealed = log.checkpoint()
    log.rows[3].leaf = edited(log.rows[3].leaf, time=1)
    watched.audited.export()
    before = watched.note()
    with pytest.raises(ProofInvalid, match="nothing was signed"):
        watched.cosign()
    assert watched.note() == before
    assert not watched.state.exists()


def test_an_export_without_leaves_is_not_signed(watched: Watched) -> None:
    """Their files are missing."""
    (watched.audited.path / "escrow/tile/entries/000.p/20").unlink()
    with pytest.raises(ProofInvalid, match="no files"):
        watched.cosign()


def test_a_checkpoint_that_the_log_did_not_sign_is_not_signed(watched: Watched) -> None:
    """The witness knows the log's key from the roster."""
    log = watched.audited.authority.escrow
    log.key = SigningKey.generate()
    (watched.audited.path / "escrow/checkpoint").write_text(log.checkpoint())
    with pytest.raises(CheckpointInvalid):
        watched.cosign()


def test_without_a_checkpoint_there_is_nothing_to_sign(watched: Watched) -> None:
    """The log was not exported yet."""
    (watched.audited.path / "escrow/checkpoint").unlink()
    with pytest.raises(NotFound):
        watched.cosign()


@pytest.mark.parametrize("is_note", [True, False])
def test_a_state_file_that_the_witness_did_not_write_is_refused(watched: Watched, *, is_note: bool) -> None:
    """A true checkpoint with somebody else's cosignature, or no checkpoint at all."""
    watched.cosign()
    log = watched.audited.authority.escrow
    other = cosign(log.checkpoint(), NAME, SigningKey.generate(), 1)
    watched.state.write_text(other if is_note else "nonsense\n")
    with pytest.raises(ConfigurationInvalid, match="cosigned: "):
        watched.cosign()


def test_state_is_on_disk_before_the_signature_can_be_seen(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full right after that leaves a witness that remembers."""

    def full(*_arguments: object) -> None:
        raise OSError("full")

    monkeypatch.setattr(LogFolder, "write", full)
    with pytest.raises(OSError, match="full"):
        watched.cosign()
    assert len(split_notes(watched.state.read_text())) == 1
    assert NAME not in watched.note()


def test_two_at_a_time_are_one_too_many(watched: Watched) -> None:
    """The state file is locked while it is worked with."""
    with watched.state.with_name(f"{watched.state.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Busy):
            watched.cosign()


def test_each_log_has_its_own_place_in_the_state(watched: Watched) -> None:
    """Cosigning one does not forget the other."""
    watched.cosign()
    rosters = [watched.audited.authority.roster]
    Witness(NAME, watched.key, watched.state).cosign(Export(watched.audited.path), "recovery", rosters, now=NOW)
    assert len(split_notes(watched.state.read_text())) == 2
    watched.cosign()
    assert len(split_notes(watched.state.read_text())) == 2
