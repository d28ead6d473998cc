"""Receipts by a log key that the authority disowns: what they were for goes out again (SPEC 2.11)."""

from base64 import b64encode
from typing import Final

from strongroom.crypto.notes import note_key_id, parse_proof
from strongroom.errors import CheckpointInvalid, ProofInvalid
from strongroom.log_keys import Signers
from strongroom.roster import Roster
from strongroom_agent.state import State

_KEY_ID_CHARACTERS: Final = 5  # of base64: 30 of the 32 bits by which a note names its key
_SIGNATURE: Final = "\n\N{EM DASH} "  # begins a line of a note that says who signed it


def let_go(state: State, roster: Roster) -> int:
    """Spool every stored statement again whose receipt no key signed that the roster names for the escrow log.

    Return how many. Sent again, each gets a receipt of its old leaf by the key of now; what the authority does not
    have after all is stored with that. A roster that names all keys there were changes nothing.
    """
    signers = Signers.of(roster.body.logs.escrow)
    named = [
        f"{_SIGNATURE}{signers.origin} {b64encode(note_key_id(signers.origin, key)).decode()[:_KEY_ID_CHARACTERS]}"
        for key in (signers.public_key, *signers.former)
    ]
    # A receipt with one signature was verified under the key which that one names, when it came. One with several
    # may name any key beside the thief's: lines by keys that are not known yet were passed over then.
    by_named = " OR ".join(["instr(proof, ?) > 0"] * len(named))
    doubtful = state.rows(
        "SELECT id, proof FROM statements WHERE state = 'stored' AND NOT"  # noqa: S608  no text of ours
        f" (length(proof) - length(replace(proof, ?, '')) = ? AND ({by_named}))",
        _SIGNATURE,
        len(_SIGNATURE),
        *named,
    )
    worthless = [id_ for id_, proof in doubtful if not _is_signed(proof, signers)]
    with state.transaction():
        for id_ in worthless:
            state.execute("UPDATE statements SET state = 'spooled' WHERE id = ? AND state = 'stored'", id_)
    return len(worthless)


def _is_signed(proof: str, signers: Signers) -> bool:
    try:
        signers.verify(parse_proof(proof)[2])
    except (CheckpointInvalid, ProofInvalid):
        return False
    return True
