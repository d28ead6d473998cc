"""The texts in which a transparency log speaks: signed notes, checkpoints and proofs (c2sp.org).

Formats: c2sp.org/signed-note with Ed25519 keys, c2sp.org/tlog-checkpoint, c2sp.org/tlog-proof@v1. Reading is
strict: there is one spelling for each value, and a text that is not spelled so is refused. Signatures by
other keys, such as witnesses' cosignatures, are kept and ignored.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Final

from strongroom.crypto.signing import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, verify
from strongroom.crypto.tlog import HASH_BYTES, LOG_SIZE_MAX
from strongroom.errors import CheckpointInvalid, ProofInvalid, SignatureInvalid

NOTE_SIGNATURES_MAX: Final = 16  # the least that signed-note lets a verifier stop at
NOTE_BYTES_MAX: Final = 128 * 1024  # room for 16 signatures of 5 kB, the largest that signed-note expects
PROOF_HASHES_MAX: Final = 63  # the longest path in a tree of LOG_SIZE_MAX leaves
PROOF_BYTES_MAX: Final = NOTE_BYTES_MAX + 8 * 1024  # a note, a longest proof and 5 kB of `extra`

_PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"
_KEY_ID_BYTES: Final = 4
_CHECKPOINT_LINES_MIN: Final = 3
_SIGNATURE_MARK: Final = "\N{EM DASH} "
_DECIMAL: Final = re.compile("0|[1-9][0-9]{0,18}")
_CONTROL: Final = re.compile("[\x00-\x09\x0b-\x1f]")  # all but newline


class SignatureType(IntEnum):
    """What an Ed25519 key signs notes for: the signature type identifier of c2sp.org/signed-note."""

    NOTE = 0x01
    COSIGNATURE = 0x04  # c2sp.org/tlog-cosignature


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line of a note: the name and 4-byte id of the claimed key, and the raw signature."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log asserts when it signs: its own name, its number of leaves and their 32-byte root hash.

    Raises:
        CheckpointInvalid: the origin is empty or not one line of text, the size is out of range, or the root
            is not 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not self.origin or "\n" in self.origin:
            raise CheckpointInvalid("the origin of a checkpoint is one line that is not empty")
        _require_text(self.origin)
        if not 0 <= self.size <= LOG_SIZE_MAX:
            raise CheckpointInvalid(f"the size of a checkpoint is 0 to {LOG_SIZE_MAX}")
        if len(self.root) != HASH_BYTES:
            raise CheckpointInvalid(f"the root of a checkpoint is {HASH_BYTES} bytes")


def note_key_id(name: str, public_key: bytes, kind: SignatureType = SignatureType.NOTE) -> bytes:
    """Return the 4-byte id under which an Ed25519 key signs notes.

    It is the beginning of SHA-256(name || newline || type || public key) (c2sp.org/signed-note, Signatures).

    Args:
        name: key name: not empty, without Unicode spaces and plus signs.
        public_key: 32 raw bytes.
        kind: what it signs; the same key has another id for each.

    Raises:
        CheckpointInvalid: not a key name, or not the length of a public key.
    """
    _require_key_name(name)
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise CheckpointInvalid(f"a note key is {PUBLIC_KEY_BYTES} bytes, this one {len(public_key)}")
    return sha256(name.encode() + b"\n" + bytes([kind]) + public_key).digest()[:_KEY_ID_BYTES]


def note_signature_line(name: str, public_key: bytes, signature: bytes) -> str:
    """Spell an Ed25519 signature as a line of a signed note, with its newline.

    Args:
        name: key name, as for `note_key_id`.
        public_key: 32 raw bytes.
        signature: 64 raw bytes, over the text of the note with its final newline.

    Raises:
        CheckpointInvalid: not a key name, or not the length of a public key or a signature.
    """
    if len(signature) != SIGNATURE_BYTES:
        raise CheckpointInvalid(f"a note signature is {SIGNATURE_BYTES} bytes, this one {len(signature)}")
    return f"{_SIGNATURE_MARK}{name} {_base64(note_key_id(name, public_key) + signature)}\n"


def parse_note(note: str) -> tuple[str, list[NoteSignature]]:
    """Split a signed note into its text, final newline included, and its signatures; verify nothing.

    Raises:
        CheckpointInvalid: not a signed note, or above `NOTE_BYTES_MAX` or `NOTE_SIGNATURES_MAX`.
    """
    if len(note) > NOTE_BYTES_MAX or len(_require_text(note)) > NOTE_BYTES_MAX:
        raise CheckpointInvalid(f"a note is at most {NOTE_BYTES_MAX} bytes")
    text, blank_line, block = note.rpartition("\n\n")
    if not blank_line or not block.endswith("\n"):
        raise CheckpointInvalid("a note is text, an empty line and lines with signatures")
    lines = block.removesuffix("\n").split("\n")
    if len(lines) > NOTE_SIGNATURES_MAX:
        raise CheckpointInvalid(f"a note has at most {NOTE_SIGNATURES_MAX} signatures, this one {len(lines)}")
    return text + "\n", [_parse_signature_line(line) for line in lines]


def verify_note(note: str, name: str, public_key: bytes) -> str:
    """Return the text of a note that this Ed25519 key signed; believe no other signature.

    Args:
        note: the signed note.
        name: the key's name.
        public_key: 32 raw bytes.

    Raises:
        CheckpointInvalid: not a signed note, not signed by this key, or any signature in its name is false.
    """
    text, signatures = parse_note(note)
    key_id = note_key_id(name, public_key)
    own = [line.signature for line in signatures if line.name == name and line.key_id == key_id]
    if not own:
        raise CheckpointInvalid(f"the note carries no signature by this key of {name!r}")
    for signature in own:
        try:
            verify(public_key, text.encode(), signature)
        except SignatureInvalid as error:
            raise CheckpointInvalid(f"the signature by {name!r} is false: {error.message}") from None
    return text


def checkpoint_body(checkpoint: Checkpoint) -> bytes:
    """Spell a checkpoint as the three lines that its log signs (c2sp.org/tlog-checkpoint, note text)."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{_base64(checkpoint.root)}\n".encode()


def sign_checkpoint(checkpoint: Checkpoint, sign: Callable[[bytes], bytes], public_key: bytes) -> str:
    """Sign a checkpoint as a note, with the origin as the key name.

    Args:
        checkpoint: what to assert.
        sign: returns the 64-byte Ed25519 signature of the bytes that it is given.
        public_key: 32 raw bytes, the public half of the key behind `sign`.

    Returns:
        The signed note; it has been verified.

    Raises:
        CheckpointInvalid: the origin is no key name, or `sign` does not sign with this key.
    """
    body = checkpoint_body(checkpoint)
    note = f"{body.decode()}\n{note_signature_line(checkpoint.origin, public_key, sign(body))}"
    # A log that is given the wrong key must stop here, not hand out receipts that nobody can verify.
    verify_checkpoint(note, checkpoint.origin, public_key)
    return note


def parse_checkpoint(note: str) -> tuple[Checkpoint, list[NoteSignature]]:
    """Read a checkpoint note and its signatures; verify nothing.

    Raises:
        CheckpointInvalid: not a signed note, or its text is not a checkpoint.
    """
    text, signatures = parse_note(note)
    return _parse_checkpoint_text(text), signatures


def verify_checkpoint(note: str, origin: str, public_key: bytes) -> Checkpoint:
    """Return the checkpoint that the log `origin` signed with this key.

    Args:
        note: the checkpoint note; signatures of other keys in it are ignored.
        origin: the log's name, which is its key name too.
        public_key: 32 raw bytes, the pinned key of the log.

    Raises:
        CheckpointInvalid: not a checkpoint note, not signed by this key, a false signature in its name, or
            about another log.
    """
    checkpoint = _parse_checkpoint_text(verify_note(note, origin, public_key))
    if checkpoint.origin != origin:
        raise CheckpointInvalid(f"the checkpoint is of the log {checkpoint.origin!r}, not of {origin!r}")
    return checkpoint


def proof_text(index: int, proof: Sequence[bytes], checkpoint_note: str) -> str:
    """Spell an inclusion proof and the checkpoint it leads to as c2sp.org/tlog-proof@v1, without `extra`.

    Args:
        index: zero-based leaf index.
        proof: 32-byte hashes, from the leaf's sibling up (`tlog.inclusion_proof`).
        checkpoint_note: the signed checkpoint, kept verbatim.

    Raises:
        ProofInvalid: index, number or length of the hashes are out of range.
    """
    if not 0 <= index < LOG_SIZE_MAX:
        raise ProofInvalid("the leaf index of a proof is out of range")
    if len(proof) > PROOF_HASHES_MAX or any(len(value) != HASH_BYTES for value in proof):
        raise ProofInvalid(f"a proof is at most {PROOF_HASHES_MAX} hashes of {HASH_BYTES} bytes")
    lines = [_PROOF_HEADER, f"index {index}", *map(_base64, proof)]
    return "\n".join([*lines, "", checkpoint_note])


def parse_proof(text: str) -> tuple[int, list[bytes], str]:
    """Read a c2sp.org/tlog-proof@v1; verify nothing, and drop `extra`, which nobody vouches for.

    Returns:
        The leaf index, the 32-byte hashes from the leaf's sibling up, and the checkpoint note verbatim: what
        `verify_checkpoint` and `tlog.verify_inclusion` take.

    Raises:
        ProofInvalid: not spelled as a proof, or above `PROOF_BYTES_MAX`.
        CheckpointInvalid: the note in it is not a checkpoint.
    """
    if len(text) > PROOF_BYTES_MAX:
        raise ProofInvalid(f"a proof is at most {PROOF_BYTES_MAX} bytes")
    head, _, note = text.partition("\n\n")
    header, *lines = head.split("\n")
    if header != _PROOF_HEADER:
        raise ProofInvalid(f"a proof begins with the line {_PROOF_HEADER}")
    if lines and lines[0].startswith("extra ") and not _parse_base64(lines.pop(0).removeprefix("extra ")):
        raise ProofInvalid("the extra data of a proof is not canonical base64")
    if not lines or not lines[0].startswith("index "):
        raise ProofInvalid("a proof has a line with the leaf index")
    index = _parse_decimal(lines.pop(0).removeprefix("index "))
    if index is None or index >= LOG_SIZE_MAX:
        raise ProofInvalid("the leaf index of a proof is not a plain decimal in range")
    if len(lines) > PROOF_HASHES_MAX:
        raise ProofInvalid(f"a proof has at most {PROOF_HASHES_MAX} hashes, this one {len(lines)}")
    proof: list[bytes] = []
    for line in lines:
        value = _parse_base64(line)
        if value is None or len(value) != HASH_BYTES:
            raise ProofInvalid(f"a line of the proof is not the canonical base64 of {HASH_BYTES} bytes")
        proof.append(value)
    parse_checkpoint(note)
    return index, proof, note


def _parse_checkpoint_text(text: str) -> Checkpoint:
    """Read the text of a checkpoint note; lines after the third are extensions, which nobody audits."""
    lines = text.removesuffix("\n").split("\n")
    if len(lines) < _CHECKPOINT_LINES_MIN or "" in lines:
        raise CheckpointInvalid("a checkpoint is an origin, a size and a root, and no line is empty")
    size = _parse_decimal(lines[1])
    if size is None:
        raise CheckpointInvalid("the size of a checkpoint is not a plain decimal")
    root = _parse_base64(lines[2])
    if root is None:
        raise CheckpointInvalid("the root of a checkpoint is not canonical base64")
    return Checkpoint(lines[0], size, root)


def _parse_signature_line(line: str) -> NoteSignature:
    name, _, encoded = line.removeprefix(_SIGNATURE_MARK).partition(" ")
    signature = _parse_base64(encoded)
    if not line.startswith(_SIGNATURE_MARK) or signature is None or len(signature) <= _KEY_ID_BYTES:
        raise CheckpointInvalid("a signature line of a note is a dash, a key name and canonical base64")
    _require_key_name(name)
    return NoteSignature(name, signature[:_KEY_ID_BYTES], signature[_KEY_ID_BYTES:])


def _require_key_name(name: str) -> None:
    _require_text(name)
    if not name or "+" in name or any(character.isspace() for character in name):
        raise CheckpointInvalid("a key name is not empty and has neither spaces nor plus signs")


def _require_text(text: str) -> bytes:
    """Return the text in UTF-8; refuse ASCII control characters other than newline, and lone surrogates."""
    if _CONTROL.search(text):
        raise CheckpointInvalid("a note has no control characters")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise CheckpointInvalid("a note is valid UTF-8") from None


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


def _parse_base64(text: str) -> bytes | None:
    """Decode standard base64 (RFC 4648 section 4); None unless it is the one canonical spelling."""
    try:
        value = b64decode(text, validate=True)
    except ValueError:
        return None
    return value if _base64(value) == text else None


def _parse_decimal(text: str) -> int | None:
    """Decode an ASCII decimal of at most 19 digits; None for a sign, a leading zero or anything else."""
    return int(text) if _DECIMAL.fullmatch(text) else None
