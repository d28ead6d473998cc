"""Whose checkpoints of a log count, while its keys change (SPEC 2.11)."""

import hashlib

import pytest
from tests.support import authority as make

from strongroom.crypto.notes import Checkpoint, sign_checkpoint
from strongroom.crypto.signing import SigningKey
from strongroom.errors import CheckpointInvalid
from strongroom.log_keys import Signed, Signers
from strongroom.mandates import LogKey

ORIGIN = f"{make.AUTHORITY}/escrow"
FIRST, SECOND, THIRD, STRANGER = (make.signing_key(f"log {number}") for number in range(4))
SIGNERS = Signers(ORIGIN, THIRD.public_key, (FIRST.public_key, SECOND.public_key))


def note(key: SigningKey, size: int = 3, origin: str = ORIGIN) -> str:
    """Return a checkpoint note."""
    checkpoint = Checkpoint(origin, size, hashlib.sha256(b"%d" % size).digest())
    return sign_checkpoint(checkpoint, key.sign, key.public_key)


def signed(key: SigningKey, size: int = 3) -> Signed:
    """Return a checkpoint by a key as it is after verifying."""
    return Signers(ORIGIN, key.public_key).verify(note(key, size))


@pytest.mark.parametrize("key", [FIRST, SECOND, THIRD])
def test_the_key_of_now_and_the_former_ones_count(key: SigningKey) -> None:
    """What comes back says which one it was."""
    found = SIGNERS.verify(note(key))
    assert (found.key, found.note, found.checkpoint.size) == (key.public_key, note(key), 3)


def test_a_key_that_is_not_named_counts_for_nothing() -> None:
    """Nor does a key of the log under another origin."""
    for wrong in (note(STRANGER), note(FIRST, origin=f"{ORIGIN}/working")):
        with pytest.raises(CheckpointInvalid):
            SIGNERS.verify(wrong)


def test_a_roster_names_the_signers() -> None:
    """With the origin that is asked for."""
    log = LogKey(origin=ORIGIN, public_key=THIRD.public_key, former=[FIRST.public_key, SECOND.public_key])
    assert Signers.of(log) == SIGNERS
    assert Signers.of(log, "other").origin == "other"


@pytest.mark.parametrize(
    ("known", "new"),
    [
        (None, FIRST),
        (FIRST, FIRST),
        (FIRST, SECOND),
        (FIRST, THIRD),
        (SECOND, THIRD),
        (THIRD, THIRD),
        (STRANGER, THIRD),
    ],
)
def test_time_goes_on_from_key_to_key(known: SigningKey | None, new: SigningKey) -> None:
    """Before the hand-over was seen the former key's checkpoints count, afterwards those of the next."""
    SIGNERS.check_not_superseded(signed(known) if known else None, signed(new, 4))


@pytest.mark.parametrize(("known", "new"), [(SECOND, FIRST), (THIRD, FIRST), (THIRD, SECOND), (STRANGER, SECOND)])
def test_a_former_key_signs_no_more_once_the_next_was_seen(known: SigningKey, new: SigningKey) -> None:
    """Also against what was signed by a key that is not named any more: only the key of now is after that."""
    with pytest.raises(CheckpointInvalid, match="signs no more"):
        SIGNERS.check_not_superseded(signed(known), signed(new, 4))
