"""Receipts by a log key that the authority disowns: what they were for goes out again (SPEC 2.11)."""

from base64 import b64encode

from strongroom.crypto.notes import note_key_id
from strongroom.roster import Roster
from strongroom_agent.state import State

_KEY_ID_CHARACTERS = 5  # of base64: 30 of the 32 bits by which a note names its key


def let_go(state: State, roster: Roster) -> int:
    """Spool every stored statement again whose receipt no key signed that the roster names for the escrow log.

    Return how many. Sent again, each gets a receipt of its old leaf by the key of now; what the authority does not
    have after all is stored with that. A roster that names all keys there were changes nothing.
    """
    log = roster.body.logs.escrow
    signed = [
        f"— {log.origin} {b64encode(note_key_id(log.origin, key)).decode()[:_KEY_ID_CHARACTERS]}"
        for key in (log.public_key, *log.former)
    ]
    nowhere = " AND ".join(["instr(proof, ?) = 0"] * len(signed))
    return state.execute(
        f"UPDATE statements SET state = 'spooled' WHERE state = 'stored' AND {nowhere}",  # noqa: S608  no text of ours
        *signed,
    )
