"""Witnesses: a second key under a checkpoint (c2sp.org/tlog-cosignature), and keys as text.

A witness that has seen a checkpoint continue everything it has seen of that log before adds its cosignature.
Two histories of one log then need the witness as an accomplice too. A cosignature says nothing about whether
the log signed the checkpoint: verify that as well, with `notes.verify_checkpoint`.

Only the type with Ed25519 keys is spoken here, `cosignature/v1`.
"""

from base64 import b64decode, b64encode
from typing import Final, NamedTuple

from strongroom.crypto.notes import (
    NoteSignature,
    SignatureType,
    note_key_id,
    parse_checkpoint,
    parse_note,
)
from strongroom.crypto.signing import SIGNATURE_BYTES, SigningKey, verify
from strongroom.errors import CheckpointInvalid, SignatureInvalid

COSIGNATURE_TIME_MAX: Final = 2**63 - 1  # seconds since 1970

_TIME_BYTES: Final = 8
_VKEY_HINT: Final = "a verifier key is name+id+key, where the id is 8 hex digits and the key base64"


class VerifierKey(NamedTuple):
    """A public key that notes are verified under: its name, 32 raw bytes, and what it signs."""

    name: str
    public_key: bytes
    kind: SignatureType


def cosign(note: str, name: str, signing_key: SigningKey, time: int) -> str:
    """Add a witness's cosignature to a checkpoint, in the place of an older one by the same key.

    It asserts that this is the largest checkpoint the witness has seen of that log, and that it continues all
    that it saw before: check that, and the log's own signature, first.

    Args:
        note: the checkpoint note; its text and all other signature lines stay as they are.
        name: the witness's key name, such as `witness.example/w1`: no Unicode spaces, no plus sign.
        signing_key: the witness's own key, which it signs nothing else with.
        time: when the checkpoint was seen, in seconds since 1970.

    Returns:
        The note with the new line at its end; it has been verified.

    Raises:
        CheckpointInvalid: not a checkpoint note, not a key name, a time that cannot be spelled, or no room
            left for a signature.
    """
    if not 0 <= time <= COSIGNATURE_TIME_MAX:
        raise CheckpointInvalid(f"the time of a cosignature is 0 to {COSIGNATURE_TIME_MAX} seconds since 1970")
    text, signatures = parse_note(note)
    key_id = note_key_id(name, signing_key.public_key, SignatureType.COSIGNATURE)
    lines = note.removeprefix(f"{text}\n").removesuffix("\n").split("\n")
    kept = [line for line, by in zip(lines, signatures, strict=True) if not _is_by(by, name, key_id)]
    signature = time.to_bytes(_TIME_BYTES, "big") + signing_key.sign(_message(text, time))
    line = f"\N{EM DASH} {name} {b64encode(key_id + signature).decode()}"
    cosigned = "\n".join([text, *kept, line, ""])
    # This also refuses a text that is no checkpoint, and a note with too many signatures or too large.
    verify_cosignature(cosigned, name, signing_key.public_key)
    return cosigned


def verify_cosignature(note: str, name: str, public_key: bytes) -> int:
    """Return when this witness saw the checkpoint, in seconds since 1970; of several times the latest.

    The time is the witness's word; whether it lies in the future is for the caller to judge.

    Args:
        note: the checkpoint note; signatures of other keys in it are ignored.
        name: the witness's key name.
        public_key: 32 raw bytes.

    Raises:
        CheckpointInvalid: not a checkpoint note, not cosigned by this key, or a false cosignature in its
            name.
    """
    parse_checkpoint(note)
    text, signatures = parse_note(note)
    key_id = note_key_id(name, public_key, SignatureType.COSIGNATURE)
    times = [_verified_time(by, text, public_key) for by in signatures if _is_by(by, name, key_id)]
    if not times:
        raise CheckpointInvalid(f"the checkpoint carries no cosignature by this key of {name!r}")
    return max(times)


def vkey(name: str, public_key: bytes, kind: SignatureType = SignatureType.NOTE) -> str:
    """Spell a public key the way logs and witnesses hand theirs out: `name+id+base64(type || key)`.

    Args:
        name: key name, as for `note_key_id`.
        public_key: 32 raw bytes.
        kind: a log's key signs notes, a witness's key cosignatures.

    Raises:
        CheckpointInvalid: not a key name, or not the length of a public key.
    """
    key_id = note_key_id(name, public_key, kind)
    return f"{name}+{key_id.hex()}+{b64encode(bytes([kind]) + public_key).decode()}"


def parse_vkey(text: str) -> VerifierKey:
    """Read a verifier key of one of the two Ed25519 types (c2sp.org/signed-note, Verifier keys).

    Raises:
        CheckpointInvalid: not spelled as one, of another type, or its id is not that of its name and key.
    """
    name, _, rest = text.partition("+")
    encoded = rest.partition("+")[2]  # base64 may hold plus signs itself
    try:
        material = b64decode(encoded, validate=True)
        key = VerifierKey(name, material[1:], SignatureType(material[0]))
    except (ValueError, IndexError):
        raise CheckpointInvalid(_VKEY_HINT) from None
    if vkey(*key) != text:  # there is one spelling of a key, and the id is a part of it
        raise CheckpointInvalid(f"{_VKEY_HINT}; this one is spelled otherwise, or its id is another's")
    return key


def _is_by(signature: NoteSignature, name: str, key_id: bytes) -> bool:
    return (signature.name, signature.key_id) == (name, key_id)


def _verified_time(line: NoteSignature, text: str, public_key: bytes) -> int:
    """Return the time in a cosignature that holds: 8 bytes, big-endian, before the 64 of the signature."""
    if len(line.signature) != _TIME_BYTES + SIGNATURE_BYTES:
        raise CheckpointInvalid(
            f"the cosignature by {line.name!r} is not {_TIME_BYTES + SIGNATURE_BYTES} bytes long"
        )
    time = int.from_bytes(line.signature[:_TIME_BYTES], "big")
    if time > COSIGNATURE_TIME_MAX:
        raise CheckpointInvalid(f"the cosignature by {line.name!r} bears an impossible time")
    try:
        verify(public_key, _message(text, time), line.signature[_TIME_BYTES:])
    except SignatureInvalid as error:
        raise CheckpointInvalid(f"the cosignature by {line.name!r} is false: {error.message}") from None
    return time


def _message(text: str, time: int) -> bytes:
    """Return what a witness signs: a header, the time, and the text of the checkpoint."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()
