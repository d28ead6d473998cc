"""Checkpoints from elsewhere: every one is a prefix of the tree, or is named, with where the histories part."""

import pytest
from tests.support.exports import NOW, Authority

from strongroom.crypto.cosignatures import VerifierKey, cosign
from strongroom.crypto.notes import SignatureType
from strongroom.crypto.signing import SigningKey
from strongroom.errors import TransientError
from strongroom.root_keys import sign_change
from strongroom.roster import Roster
from strongroom.statements import Statement
from strongroom_audit import findings, folder
from strongroom_audit.findings import Severity
from strongroom_audit.folder import Export, join_notes, split_notes

from .conftest import Audited, Make


@pytest.fixture
def audited(make: Make) -> Audited:
    """A host with 20 statements."""
    made = make()
    for _ in range(20):
        made.authority.store("laptop-1")
    return made


def other_history(audited: Audited, at: int, size: int) -> str:
    """Return a checkpoint that the log's key signed over the same leaves up to `at`, and others after it."""
    authority = audited.authority
    truth = authority.escrow
    authority.escrow = truth.rebuilt()
    del authority.escrow.rows[at:]
    authority.escrow = authority.escrow.rebuilt()
    for _ in range(size - at):
        authority.store("laptop-1")
    note, authority.escrow = authority.escrow.checkpoint(), truth
    return note


def against(*notes: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return the option that compares these notes."""
    return {"against": tuple(("laptop.checkpoints", note) for note in notes)}


@pytest.mark.parametrize("size", [1, 7, 8, 19, 20])
def test_a_checkpoint_of_an_earlier_time_is_a_prefix(audited: Audited, size: int) -> None:
    """And it is collected."""
    note = audited.authority.escrow.checkpoint(size)
    assert audited.findings(**against(note)) == []
    assert note in Export(audited.path).checkpoints()


def test_a_checkpoint_of_another_history_is_named_with_where_it_forks(audited: Audited) -> None:
    """Size, root, source; between the largest checkpoint that is a prefix and its own size."""
    fork = other_history(audited, 12, 16)
    good = [audited.authority.escrow.checkpoint(size) for size in (4, 12)]
    [finding] = audited.findings(**against(*good, fork))
    assert (finding.code, finding.index, finding.id) == ("log_forked", 12, "laptop.checkpoints")
    assert "16 leaves" in finding.words
    assert "forks at one of leaves 12 to 15" in finding.words
    assert fork not in Export(audited.path).checkpoints()


def test_a_fork_that_was_collected_before_is_named_ever_after(audited: Audited) -> None:
    """Two histories, one of which an earlier audit saw."""
    audited.export()
    Export(audited.path).collect(other_history(audited, 12, 20))
    assert audited.errors() == [("escrow", 0, "log_forked")]


def test_a_checkpoint_beyond_the_log_is_named(audited: Audited) -> None:
    """A tail was cut off, which nothing in the log itself shows."""
    note = audited.authority.escrow.checkpoint()
    del audited.authority.escrow.rows[15:]
    audited.authority.escrow = audited.authority.escrow.rebuilt()
    assert audited.errors(**against(note)) == [("escrow", 15, "checkpoint_beyond")]


@pytest.mark.parametrize("log", ["escrow", "recovery"])
def test_checkpoints_of_either_log_are_told_apart(audited: Audited, log: str) -> None:
    """By their origin."""
    note = audited.authority.logs[log].checkpoint(2)
    audited.export()
    verdict = audited.verdict(**against(note))
    assert verdict.findings.kept == []
    assert [
        (each.log, each.checkpoint.size) for each in verdict.compared if each.source != f"{each.log}/checkpoint"
    ] == [(log, 2)]


def test_a_checkpoint_of_somebody_elses_log_is_named(audited: Audited) -> None:
    """Its origin is neither log's."""
    stranger = Authority()
    stranger.escrow.origin = "other.example/escrow"
    stranger.enrol("laptop-1")
    stranger.store("laptop-1")
    assert audited.errors(**against(stranger.escrow.checkpoint())) == [("escrow", None, "checkpoint_invalid")]


def test_a_forged_checkpoint_is_named(audited: Audited) -> None:
    """The right origin, another key."""
    log = audited.authority.escrow.rebuilt()
    log.key = SigningKey.generate()
    assert audited.errors(**against(log.checkpoint(5))) == [("escrow", None, "checkpoint_invalid")]


@pytest.mark.parametrize("text", ["nonsense\n", "a\nb\n\nc\n", "\x00\n"])
def test_what_is_no_checkpoint_is_named(audited: Audited, text: str) -> None:
    """Nothing crashes on it."""
    assert audited.errors(**against(*split_notes(text))) == [("escrow", None, "checkpoint_invalid")]


# ---- witnesses ----


WITNESS = SigningKey.generate()
VKEY = VerifierKey("witness.example/w1", WITNESS.public_key, SignatureType.COSIGNATURE)


def test_a_cosignature_that_holds_is_told(audited: Audited) -> None:
    """With the time at which the witness saw it."""
    audited.authority.escrow.sealed = cosign(audited.authority.escrow.checkpoint(), VKEY.name, WITNESS, NOW)
    audited.export()
    verdict = audited.verdict(witnesses=(VKEY,))
    own = next(each for each in verdict.compared if each.log == "escrow")
    assert own.cosigned == {VKEY.name: NOW}
    assert [(each.log, each.code) for each in verdict.findings.kept] == [("recovery", "not_cosigned")]


def test_a_false_cosignature_is_named(audited: Audited) -> None:
    """Of another checkpoint."""
    log = audited.authority.escrow
    line = cosign(log.checkpoint(3), VKEY.name, WITNESS, NOW).rstrip("\n").rpartition("\n")[2]
    log.sealed = f"{log.checkpoint()}{line}\n"
    assert audited.errors(witnesses=(VKEY,)) == [("escrow", None, "cosignature_false")]


def test_a_fork_says_who_cosigned_it(audited: Audited) -> None:
    """That witness was deceived, or is a part of it."""
    fork = cosign(other_history(audited, 12, 16), VKEY.name, WITNESS, NOW)
    found = [each for each in audited.findings(witnesses=(VKEY,), **against(fork)) if each.code == "log_forked"]
    assert "cosigned by witness.example/w1" in found[0].words


# ---- notes in a file ----


def test_notes_in_a_file_come_back_as_they_were(audited: Audited) -> None:
    """Also those with several signatures."""
    log = audited.authority.escrow
    notes = [log.checkpoint(3), cosign(log.checkpoint(5), VKEY.name, WITNESS, NOW), log.checkpoint()]
    assert split_notes(join_notes(notes)) == notes
    assert split_notes("\n\n" + join_notes(notes) + "\n\n") == notes
    assert split_notes("") == []


def test_checkpoints_are_collected_once(audited: Audited) -> None:
    """However often an export is verified."""
    audited.export()
    for _ in range(3):
        assert audited.verdict().errors == 0
    assert len(Export(audited.path).checkpoints()) == 2


def test_an_export_that_cannot_be_written_to_is_verified_all_the_same(
    audited: Audited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a medium for reading alone: a warning, for nothing is remembered."""

    def refused(*_arguments: object) -> None:
        raise TransientError("read-only file system")

    audited.export()
    monkeypatch.setattr(folder, "write", refused)
    assert (audited.errors(), audited.warnings()) == ([], [("recovery", None, "not_collected")])


@pytest.mark.parametrize("kept", [findings.KEPT_MAX, 0])
def test_a_fork_is_not_collected_however_much_else_is_wrong(
    audited: Audited, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Also where it is not among the findings that are kept word for word."""
    monkeypatch.setattr(findings, "KEPT_MAX", kept)
    fork = other_history(audited, 12, 16)
    audited.export()
    assert audited.verdict(**against(fork)).errors == 1
    assert fork not in Export(audited.path).checkpoints()


@pytest.mark.parametrize("kept", [findings.KEPT_MAX, 0])
def test_nothing_is_collected_from_a_tree_that_does_not_hold(
    audited: Audited, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    """Its checkpoint is signed, and its leaves do not lead to it."""
    note = audited.authority.escrow.checkpoint()
    audited.authority.escrow.rows.pop()
    audited.authority.escrow = audited.authority.escrow.rebuilt()
    audited.authority.store("laptop-1")
    audited.authority.escrow.sealed = note
    audited.export()
    monkeypatch.setattr(findings, "KEPT_MAX", kept)
    assert audited.verdict().findings.counts[Severity.ERROR, "root_mismatch"] == 1
    assert note not in Export(audited.path).checkpoints()


def change_log_key(audited: Audited, *, distrusted: bool) -> SigningKey:
    """Change the key of the escrow log by a roster that is on the record, append under it; return the old key."""
    authority = audited.authority
    before, old = authority.roster, authority.escrow.key
    authority.escrow.key = SigningKey.generate()
    log = before.body.logs.escrow.model_copy(
        update={"public_key": authority.escrow.key.public_key, "former": [] if distrusted else [old.public_key]}
    )
    body = before.body.model_copy(
        update={
            "version": before.body.version + 1,
            "previous": before.digest.hex(),
            "logs": before.body.logs.model_copy(update={"escrow": log}),
        }
    )
    statement = Statement.sign(body.TYPE, body.to_bytes(), authority.root)
    authority.roster = Roster.verified(statement, authority.root.public_key)
    authority.log_roster()
    authority.store("laptop-1")
    return old


def test_what_a_former_key_of_the_log_has_signed_still_counts(audited: Audited) -> None:
    """As long as the newest roster names it: a prefix is a prefix."""
    note = audited.authority.escrow.checkpoint(12)
    change_log_key(audited, distrusted=False)
    assert audited.findings(**against(note)) == []
    assert note in Export(audited.path).checkpoints()


def test_what_a_disowned_key_has_signed_counts_for_nothing(audited: Audited) -> None:
    """Though an older roster on the record named it: it may be a thief's."""
    note = audited.authority.escrow.checkpoint(12)
    change_log_key(audited, distrusted=True)
    [finding] = audited.findings(**against(note))
    assert (finding.code, finding.id) == ("checkpoint_invalid", "laptop.checkpoints")
    assert note not in Export(audited.path).checkpoints()


def test_an_audit_holds_under_the_root_key_of_before_and_after_a_change(audited: Audited) -> None:
    """The rosters of before are verified by the key of their time, though only the new one is pinned."""
    authority = audited.authority
    before, old, new = authority.roster, authority.root, SigningKey.generate()
    change = sign_change(before.body.authority, old, new, now=NOW).envelope()
    body = before.body.model_copy(
        update={
            "version": before.body.version + 1,
            "previous": before.digest.hex(),
            "root_changes": [change],
        }
    )
    authority.roster = Roster.verified(Statement.sign(body.TYPE, body.to_bytes(), new), old.public_key)
    authority.log_roster()
    assert audited.findings(root_key=old.public_key) == []
    assert audited.findings(root_key=new.public_key) == []
    assert audited.findings(root_key=SigningKey.generate().public_key) != []


def test_a_former_key_signs_nothing_after_its_time(audited: Audited) -> None:
    """Though it continues what the next key has signed: whoever has stolen it writes no entries of his own."""
    old = change_log_key(audited, distrusted=False)
    seen = audited.authority.escrow.checkpoint()
    audited.authority.store("laptop-1")
    true, audited.authority.escrow.key = audited.authority.escrow.key, old
    assert [code for _, _, code in audited.errors(**against(seen))] == ["log_forked"]
    audited.authority.escrow.key = true
    audited.export()
    assert audited.findings(**against(seen)) == []
