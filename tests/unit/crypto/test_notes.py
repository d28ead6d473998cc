"""Notes, checkpoints and proof texts: published vectors, one test a refused deformity, and tampering."""

import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.crypto import notes, tlog
from strongroom.crypto.notes import Checkpoint, NoteSignature
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import CheckpointInvalid, ProofInvalid

VECTORS = Path(__file__).parents[2] / "vectors" / "tlog"
PUBLISHED: list[dict[str, Any]] = json.loads((VECTORS / "notes.json").read_text(encoding="utf-8"))
GOLDEN = (VECTORS / "golden.tlog-proof").read_bytes().decode()

UNTIMED = settings(deadline=None)  # a busy machine is no failure

ORIGIN = "strongroom.example/escrow"
KEY = SigningKey.from_seed(Secret(bytes(range(32))))
OTHER_KEY = SigningKey.from_seed(Secret(bytes(range(1, 33))))
LEAVES = [f"leaf {index}".encode() for index in range(11)]
FRONTIER, NODES = tlog.append(tlog.Frontier.empty(), LEAVES)
CHECKPOINT = Checkpoint(ORIGIN, FRONTIER.size, FRONTIER.root())
NOTE = notes.sign_checkpoint(CHECKPOINT, KEY.sign, KEY.public_key)
TEXT, _, SIGNATURE_LINE = NOTE.partition("\n\n")
ROOT = b64encode(CHECKPOINT.root).decode()
PROOF = tlog.inclusion_proof(4, 11, NODES)
PROOF_TEXT = notes.proof_text(4, PROOF, NOTE)


def signed(text: str, name: str = ORIGIN, key: SigningKey = KEY) -> str:
    """Sign any text as a note."""
    return f"{text}\n{notes.note_signature_line(name, key.public_key, key.sign(text.encode()))}"


def published_key(vkey: str) -> tuple[str, bytes, bytes]:
    name, key_id, encoded = vkey.split("+", 2)
    return name, bytes.fromhex(key_id), b64decode(encoded).removeprefix(b"\x01")


# ---- published values -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case["vkey"].partition("+")[0])
def test_published_notes_verify_under_their_published_keys(case: dict[str, Any]) -> None:
    """Notes that other programs signed verify, under the key id that they computed."""
    name, key_id, public_key = published_key(case["vkey"])
    assert notes.note_key_id(name, public_key) == key_id
    assert notes.verify_note(case["note"], name, public_key) == case["note"].partition("\n\n")[0] + "\n"


@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case["vkey"].partition("+")[0])
def test_a_published_note_with_another_text_is_refused(case: dict[str, Any]) -> None:
    """The published signatures hold for nothing but their text."""
    name, _, public_key = published_key(case["vkey"])
    with pytest.raises(CheckpointInvalid, match="is false"):
        notes.verify_note("." + case["note"], name, public_key)


def test_a_published_checkpoint_is_read_with_its_cosignatures() -> None:
    """A checkpoint of a running log, cosigned by witnesses, gives its three lines and all its signers."""
    case = next(case for case in PUBLISHED if "checkpoint" in case)
    expected = case["checkpoint"]
    checkpoint, signatures = notes.parse_checkpoint(case["note"])
    assert checkpoint == Checkpoint(expected["origin"], expected["size"], b64decode(expected["root"]))
    assert [signature.name for signature in signatures] == expected["signers"]
    assert notes.checkpoint_body(checkpoint).decode() == case["note"].partition("\n\n")[0] + "\n"


def test_a_checkpoint_whose_signer_is_not_its_origin_is_refused() -> None:
    """Where key name and origin differ, as in that log, the key does not speak for the log asked for."""
    case = next(case for case in PUBLISHED if "checkpoint" in case)
    name, _, public_key = published_key(case["vkey"])
    with pytest.raises(CheckpointInvalid, match="is of the log"):
        notes.verify_checkpoint(case["note"], name, public_key)
    with pytest.raises(CheckpointInvalid, match="no signature by this key"):
        notes.verify_checkpoint(case["note"], case["checkpoint"]["origin"], public_key)


def test_the_golden_proof_is_still_spelled_the_same() -> None:
    """The receipt text kept in the vectors is made again byte for byte, and read again value for value."""
    assert PROOF_TEXT == GOLDEN
    assert notes.parse_proof(GOLDEN) == (4, PROOF, NOTE)


# ---- checkpoints ----------------------------------------------------------------------------------


def test_a_signed_checkpoint_is_verified_under_its_origin_and_key() -> None:
    """What sign_checkpoint writes, verify_checkpoint reads back."""
    assert notes.verify_checkpoint(NOTE, ORIGIN, KEY.public_key) == CHECKPOINT


def test_a_checkpoint_names_one_signature_with_the_origin_as_key_name() -> None:
    """The signature line bears the origin, the key id and the 64 raw bytes."""
    signature = KEY.sign(notes.checkpoint_body(CHECKPOINT))
    assert notes.parse_checkpoint(NOTE) == (
        CHECKPOINT,
        [NoteSignature(ORIGIN, notes.note_key_id(ORIGIN, KEY.public_key), signature)],
    )


def test_the_checkpoint_of_an_empty_log_is_signed_and_read() -> None:
    """Size 0 is spelled `0`."""
    empty = Checkpoint(ORIGIN, 0, tlog.EMPTY_ROOT)
    assert notes.checkpoint_body(empty).startswith(f"{ORIGIN}\n0\n".encode())
    note = notes.sign_checkpoint(empty, KEY.sign, KEY.public_key)
    assert notes.verify_checkpoint(note, ORIGIN, KEY.public_key) == empty


def test_a_log_that_signs_with_the_wrong_key_is_stopped() -> None:
    """sign_checkpoint hands out no note that its own readers would refuse."""
    with pytest.raises(CheckpointInvalid, match="is false"):
        notes.sign_checkpoint(CHECKPOINT, OTHER_KEY.sign, KEY.public_key)


@pytest.mark.parametrize("origin", ["two words", "no\N{NO-BREAK SPACE}break", "a+b"])
def test_an_origin_that_is_no_key_name_cannot_sign(origin: str) -> None:
    """An origin with Unicode spaces or a plus sign may be read, and cannot be signed with."""
    checkpoint = Checkpoint(origin, 0, tlog.EMPTY_ROOT)
    with pytest.raises(CheckpointInvalid, match="key name"):
        notes.sign_checkpoint(checkpoint, KEY.sign, KEY.public_key)


@pytest.mark.parametrize(
    ("origin", "size", "root", "reason"),
    [
        ("", 1, bytes(32), "one line"),
        ("a\nb", 1, bytes(32), "one line"),
        ("a\tb", 1, bytes(32), "control characters"),
        ("a\udc80", 1, bytes(32), "UTF-8"),
        (ORIGIN, -1, bytes(32), "size"),
        (ORIGIN, tlog.LOG_SIZE_MAX + 1, bytes(32), "size"),
        (ORIGIN, 1, bytes(31), "32 bytes"),
        (ORIGIN, 1, bytes(33), "32 bytes"),
    ],
)
def test_a_checkpoint_that_cannot_be_spelled_cannot_be_made(
    origin: str, size: int, root: bytes, reason: str
) -> None:
    """A Checkpoint always has a spelling that reads back."""
    with pytest.raises(CheckpointInvalid, match=reason):
        Checkpoint(origin, size, root)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{ORIGIN}\n11\n", "an origin, a size and a root"),
        (f"\n11\n{ROOT}\n", "no line is empty"),
        (f"{ORIGIN}\n\n{ROOT}\n", "no line is empty"),
        (f"{ORIGIN}\n11\n\n", "no line is empty"),
        (f"{ORIGIN}\n11\n{ROOT}\n\n", "no line is empty"),
        (f"{ORIGIN}\n11\n{ROOT}\nextension\n\nextension\n", "no line is empty"),
        (f"{ORIGIN}\n011\n{ROOT}\n", "plain decimal"),
        (f"{ORIGIN}\n00\n{ROOT}\n", "plain decimal"),
        (f"{ORIGIN}\n+11\n{ROOT}\n", "plain decimal"),
        (f"{ORIGIN}\n-11\n{ROOT}\n", "plain decimal"),
        (f"{ORIGIN}\n 11\n{ROOT}\n", "plain decimal"),
        (f"{ORIGIN}\n11 \n{ROOT}\n", "plain decimal"),
        (f"{ORIGIN}\n1_1\n{ROOT}\n", "plain decimal"),
        (f"{ORIGIN}\n0x11\n{ROOT}\n", "plain decimal"),
        (f"{ORIGIN}\n11.0\n{ROOT}\n", "plain decimal"),
        (f"{ORIGIN}\n\N{ARABIC-INDIC DIGIT ONE}1\n{ROOT}\n", "plain decimal"),
        (f"{ORIGIN}\n{'1' * 5000}\n{ROOT}\n", "plain decimal"),
        (f"{ORIGIN}\n{tlog.LOG_SIZE_MAX + 1}\n{ROOT}\n", f"0 to {tlog.LOG_SIZE_MAX}"),
        (f"{ORIGIN}\n11\n{ROOT.rstrip('=')}\n", "canonical base64"),
        (f"{ORIGIN}\n11\n{ROOT}=\n", "canonical base64"),
        (f"{ORIGIN}\n11\n{ROOT} \n", "canonical base64"),
        (f"{ORIGIN}\n11\n {ROOT}\n", "canonical base64"),
        (f"{ORIGIN}\n11\n{'A' * 42}B=\n", "canonical base64"),
        (f"{ORIGIN}\n11\n{'-' * 42}A=\n", "canonical base64"),
        (f"{ORIGIN}\n11\n\N{FULLWIDTH LATIN CAPITAL LETTER A}{ROOT[1:]}\n", "canonical base64"),
        (f"{ORIGIN}\n11\n{b64encode(bytes(31)).decode()}\n", "32 bytes"),
        (f"{ORIGIN}\n11\n{b64encode(bytes(33)).decode()}\n", "32 bytes"),
    ],
)
def test_a_misshapen_checkpoint_is_refused_though_it_is_signed(text: str, reason: str) -> None:
    """One deformity of the text each; the signature over it holds."""
    note = signed(text)
    assert notes.verify_note(note, ORIGIN, KEY.public_key) == text
    with pytest.raises(CheckpointInvalid, match=reason):
        notes.verify_checkpoint(note, ORIGIN, KEY.public_key)
    with pytest.raises(CheckpointInvalid, match=reason):
        notes.parse_checkpoint(note)


def test_extension_lines_are_tolerated_and_signed() -> None:
    """Lines after the root that are not empty are read past, and are under the signature."""
    note = signed(f"{ORIGIN}\n11\n{ROOT}\nfirst extension\nsecond\n")
    assert notes.verify_checkpoint(note, ORIGIN, KEY.public_key) == CHECKPOINT
    with pytest.raises(CheckpointInvalid, match="is false"):
        notes.verify_checkpoint(note.replace("first", "other"), ORIGIN, KEY.public_key)


def test_the_largest_size_is_read() -> None:
    """The size may be as large as a log can grow."""
    largest = Checkpoint(ORIGIN, tlog.LOG_SIZE_MAX, bytes(32))
    note = notes.sign_checkpoint(largest, KEY.sign, KEY.public_key)
    assert notes.verify_checkpoint(note, ORIGIN, KEY.public_key) == largest


# ---- the note around it ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("note", "reason"),
    [
        ("", "text, an empty line"),
        (f"{TEXT}\n", "text, an empty line"),
        (f"{TEXT}\n{SIGNATURE_LINE}", "text, an empty line"),
        (NOTE.removesuffix("\n"), "text, an empty line"),
        (f"{TEXT}\n\n", "text, an empty line"),
        (f"{NOTE}\n", "text, an empty line"),
        (f"{TEXT}\n\n\n", "text, an empty line"),
        (NOTE.replace("\n", "\r\n"), "control characters"),
        (NOTE.replace("\n", "\t\n", 1), "control characters"),
        (NOTE.replace("\n", "\x00\n", 1), "control characters"),
        (NOTE.replace("\n", "\x1f\n", 1), "control characters"),
        (NOTE.replace("\n", "\udcff\n", 1), "UTF-8"),
        (NOTE.replace("\N{EM DASH} ", "\N{EN DASH} "), "signature line"),
        (NOTE.replace("\N{EM DASH} ", "- "), "signature line"),
        (NOTE.replace("\N{EM DASH} ", "\N{EM DASH}"), "signature line"),
        (NOTE.replace("\N{EM DASH} ", ""), "signature line"),
        (NOTE.replace("\N{EM DASH} ", "\N{EM DASH}  "), "signature line"),
        (NOTE.replace(f"{ORIGIN} ", f"{ORIGIN}  "), "signature line"),
        (NOTE.replace(f"{ORIGIN} ", f"{ORIGIN}\N{NO-BREAK SPACE}"), "signature line"),
        (NOTE.replace(f"{ORIGIN} ", "two\N{NO-BREAK SPACE}words "), "key name"),
        (NOTE.replace(f"{ORIGIN} ", "a+b "), "key name"),
        (NOTE.replace(f"{ORIGIN} ", " "), "key name"),
        (NOTE.replace("=\n", "\n"), "signature line"),
        (NOTE.removesuffix("\n") + " \n", "signature line"),
        (f"{TEXT}\n\n\N{EM DASH} {ORIGIN}\n", "signature line"),
        (f"{TEXT}\n\n\N{EM DASH} {ORIGIN} \n", "signature line"),
        (f"{TEXT}\n\n\N{EM DASH} {ORIGIN} AAAAAA==\n", "signature line"),
        (f"{NOTE}not a signature\n", "signature line"),
        (f"{TEXT}\n\n" + SIGNATURE_LINE * 17, "at most 16 signatures"),
        (f"{'x' * notes.NOTE_BYTES_MAX}\n\n{SIGNATURE_LINE}", "at most 131072 bytes"),
        ("\N{EM DASH}" * (notes.NOTE_BYTES_MAX // 2) + f"\n\n{SIGNATURE_LINE}", "at most 131072 bytes"),
    ],
)
def test_a_misshapen_note_is_refused(note: str, reason: str) -> None:
    """One deformity of the note each, refused for that reason whether or not a key is at hand."""
    with pytest.raises(CheckpointInvalid, match=reason):
        notes.parse_note(note)
    with pytest.raises(CheckpointInvalid, match=reason):
        notes.parse_checkpoint(note)
    with pytest.raises(CheckpointInvalid, match=reason):
        notes.verify_checkpoint(note, ORIGIN, KEY.public_key)


def test_a_note_of_the_largest_size_is_read() -> None:
    """The limit of a note is 128 KiB, counted in UTF-8, and inclusive."""
    room = notes.NOTE_BYTES_MAX - len(f"\n\n{SIGNATURE_LINE}".encode())
    text, _ = notes.parse_note(f"{'x' * room}\n\n{SIGNATURE_LINE}")
    assert text == "x" * room + "\n"
    with pytest.raises(CheckpointInvalid, match="at most 131072 bytes"):
        notes.parse_note(f"{'x' * (room + 1)}\n\n{SIGNATURE_LINE}")


def test_a_note_with_sixteen_signatures_is_read() -> None:
    """The log's own signature and fifteen witnesses', the least that every verifier must take."""
    note = NOTE + "\N{EM DASH} witness.example AAAAAAA=\n" * 15
    assert notes.verify_checkpoint(note, ORIGIN, KEY.public_key) == CHECKPOINT


def test_the_text_of_a_note_ends_at_its_last_empty_line() -> None:
    """A text may hold empty lines, and even lines that look like signatures."""
    text = f"first\n\n{SIGNATURE_LINE}\nlast\n"
    assert notes.verify_note(signed(text), ORIGIN, KEY.public_key) == text


def test_signatures_of_unknown_keys_are_ignored() -> None:
    """Other names, our name with another key id, and another name with our key id, change nothing."""
    own_id = notes.note_key_id(ORIGIN, KEY.public_key)
    junk = bytes(64)
    strangers = [
        f"\N{EM DASH} {name} {b64encode(key_id + signature).decode()}\n"
        for name, key_id, signature in (
            ("witness.example", b"\x00\x00\x00\x01", junk),
            (ORIGIN, bytes(4), junk),
            ("witness.example", own_id, junk),
            ("ml-dsa.example", b"\x00\x00\x00\x02", bytes(2420)),
        )
    ]
    note = f"{TEXT}\n\n{''.join(strangers[:2])}{SIGNATURE_LINE}{''.join(strangers[2:])}"
    assert notes.verify_checkpoint(note, ORIGIN, KEY.public_key) == CHECKPOINT


@pytest.mark.parametrize(
    "note",
    [
        signed(TEXT + "\n", ORIGIN, OTHER_KEY),
        signed(TEXT + "\n", "witness.example", KEY),
        f"{TEXT}\n\n\N{EM DASH} {ORIGIN} {b64encode(bytes(68)).decode()}\n",
    ],
    ids=["another key", "another name", "another key id"],
)
def test_a_note_without_the_known_keys_signature_is_refused(note: str) -> None:
    """Only the pinned key under its own name counts."""
    with pytest.raises(CheckpointInvalid, match="no signature by this key"):
        notes.verify_checkpoint(note, ORIGIN, KEY.public_key)


def test_one_false_signature_of_the_known_key_refuses_the_note() -> None:
    """A true signature beside a false one under the same name and key id does not save the note."""
    false = notes.note_signature_line(ORIGIN, KEY.public_key, KEY.sign(b"something else"))
    for block in (false + SIGNATURE_LINE, SIGNATURE_LINE + false):
        with pytest.raises(CheckpointInvalid, match="is false"):
            notes.verify_checkpoint(f"{TEXT}\n\n{block}", ORIGIN, KEY.public_key)


@pytest.mark.parametrize("length", [0, 1, 63, 65])
def test_a_signature_of_another_length_under_the_known_key_is_refused(length: int) -> None:
    """An Ed25519 signature is 64 bytes; anything else under the key's id is false, not unknown."""
    own_id = notes.note_key_id(ORIGIN, KEY.public_key)
    line = f"\N{EM DASH} {ORIGIN} {b64encode(own_id + bytes(length)).decode()}\n"
    with pytest.raises(CheckpointInvalid, match="is false" if length else "signature line"):
        notes.verify_checkpoint(f"{TEXT}\n\n{line}", ORIGIN, KEY.public_key)


def test_lines_that_cannot_be_read_back_are_not_written() -> None:
    """note_signature_line takes 32-byte keys, 64-byte signatures and key names only."""
    with pytest.raises(CheckpointInvalid, match="64 bytes"):
        notes.note_signature_line(ORIGIN, KEY.public_key, bytes(63))
    with pytest.raises(CheckpointInvalid, match="32 bytes"):
        notes.note_signature_line(ORIGIN, KEY.public_key[:-1], bytes(64))
    for name in ("", "a b", "a\nb", "a\x00b", "a+b", "a\N{EM SPACE}b", "a\udc80"):
        with pytest.raises(CheckpointInvalid):
            notes.note_signature_line(name, KEY.public_key, bytes(64))


# ---- proofs ---------------------------------------------------------------------------------------


@UNTIMED
@given(
    index=st.integers(0, tlog.LOG_SIZE_MAX - 1),
    proof=st.lists(st.binary(min_size=32, max_size=32), max_size=notes.PROOF_HASHES_MAX),
)
def test_a_proof_text_reads_back(index: int, proof: list[bytes]) -> None:
    """Whatever proof_text writes, parse_proof reads, and there is no other spelling of it."""
    text = notes.proof_text(index, proof, NOTE)
    assert notes.parse_proof(text) == (index, proof, NOTE)


def test_extra_data_is_read_past_and_dropped() -> None:
    """A proof may carry opaque data, which nothing authenticates."""
    text = PROOF_TEXT.replace("\nindex", f"\nextra {b64encode(b'anything').decode()}\nindex")
    assert notes.parse_proof(text) == (4, PROOF, NOTE)


HEADER = "c2sp.org/tlog-proof@v1"
FIRST_HASH = b64encode(PROOF[0]).decode()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "begins with"),
        (NOTE, "begins with"),
        ("\n" + PROOF_TEXT, "begins with"),
        ("\N{ZERO WIDTH NO-BREAK SPACE}" + PROOF_TEXT, "begins with"),
        (PROOF_TEXT.replace("@v1", "@v2"), "begins with"),
        (PROOF_TEXT.replace("@v1", "@v1 "), "begins with"),
        (PROOF_TEXT.replace("\n", "\r\n"), "begins with"),
        (f"{HEADER}\n\n{NOTE}", "line with the leaf index"),
        (HEADER, "line with the leaf index"),
        (PROOF_TEXT.replace("index", "Index"), "line with the leaf index"),
        (PROOF_TEXT.replace("index 4", "index\t4"), "line with the leaf index"),
        (PROOF_TEXT.replace("index 4\n", ""), "line with the leaf index"),
        (PROOF_TEXT.replace("index 4", "\nindex 4"), "line with the leaf index"),
        (PROOF_TEXT.replace("index 4", "index "), "plain decimal"),
        (PROOF_TEXT.replace("index 4", "index  4"), "plain decimal"),
        (PROOF_TEXT.replace("index 4", "index 04"), "plain decimal"),
        (PROOF_TEXT.replace("index 4", "index -4"), "plain decimal"),
        (PROOF_TEXT.replace("index 4", "index 4 "), "plain decimal"),
        (PROOF_TEXT.replace("index 4", f"index {tlog.LOG_SIZE_MAX}"), "plain decimal in range"),
        (PROOF_TEXT.replace("index 4", f"index {'9' * 5000}"), "plain decimal"),
        (PROOF_TEXT.replace("\nindex", "\nextra \nindex"), "extra data"),
        (PROOF_TEXT.replace("\nindex", "\nextra AAA\nindex"), "extra data"),
        (PROOF_TEXT.replace("\nindex", "\nextra AAB=\nindex"), "extra data"),
        (PROOF_TEXT.replace("\nindex", "\nextra\nindex"), "line with the leaf index"),
        (PROOF_TEXT.replace("\nindex", "\nextra AAAA\nextra AAAA\nindex"), "line with the leaf index"),
        (PROOF_TEXT.replace("index 4\n", "index 4\nextra AAAA\n"), "canonical base64"),
        (PROOF_TEXT.replace("index 4\n", "index 4\nindex 4\n"), "canonical base64"),
        (PROOF_TEXT.replace(FIRST_HASH, FIRST_HASH + " "), "canonical base64"),
        (PROOF_TEXT.replace(FIRST_HASH, FIRST_HASH.rstrip("=")), "canonical base64"),
        (PROOF_TEXT.replace(FIRST_HASH, "A" * 42 + "B="), "canonical base64"),
        (PROOF_TEXT.replace(FIRST_HASH, b64encode(bytes(31)).decode()), "canonical base64"),
        (PROOF_TEXT.replace(FIRST_HASH, b64encode(bytes(33)).decode()), "canonical base64"),
        (PROOF_TEXT.replace(FIRST_HASH, PROOF[0].hex()), "canonical base64"),
        (PROOF_TEXT.replace(FIRST_HASH, "\n".join([FIRST_HASH] * 62)), "at most 63 hashes"),
        ("x" * (notes.PROOF_BYTES_MAX + 1), "at most 139264 bytes"),
    ],
)
def test_a_misshapen_proof_is_refused(text: str, reason: str) -> None:
    """One deformity of the proof each."""
    with pytest.raises(ProofInvalid, match=reason):
        notes.parse_proof(text)


@pytest.mark.parametrize(
    "text",
    [
        PROOF_TEXT.partition("\n\n")[0],
        PROOF_TEXT.partition("\n\n")[0] + "\n\n",
        PROOF_TEXT.replace(f"\n{ORIGIN}\n11", f"\n\n{ORIGIN}\n11"),
        PROOF_TEXT.replace(f"\n{ORIGIN}\n11", f"\n{ORIGIN}\n011"),
        PROOF_TEXT.removesuffix("\n"),
        PROOF_TEXT + "\n",
    ],
    ids=["none", "empty", "after a second empty line", "size with a zero", "cut off", "with a tail"],
)
def test_a_proof_without_a_well_shaped_checkpoint_is_refused(text: str) -> None:
    """The checkpoint in a proof is read as strictly as one that stands alone."""
    with pytest.raises(CheckpointInvalid):
        notes.parse_proof(text)


def test_a_proof_of_the_largest_shape_is_read() -> None:
    """63 hashes and the last index of the largest log are within limits, and one byte more of text is not."""
    largest = notes.proof_text(tlog.LOG_SIZE_MAX - 1, [bytes(32)] * 63, NOTE)
    assert notes.parse_proof(largest) == (tlog.LOG_SIZE_MAX - 1, [bytes(32)] * 63, NOTE)


@pytest.mark.parametrize(
    ("index", "proof"),
    [
        (-1, []),
        (tlog.LOG_SIZE_MAX, []),
        (0, [bytes(31)]),
        (0, [bytes(33)]),
        (0, [bytes(32)] * 64),
    ],
)
def test_a_proof_that_cannot_be_read_back_is_not_written(index: int, proof: list[bytes]) -> None:
    """proof_text refuses what parse_proof would refuse."""
    with pytest.raises(ProofInvalid):
        notes.proof_text(index, proof, NOTE)


# ---- tampering with the whole receipt -------------------------------------------------------------


def check(leaf: bytes, text: str) -> None:
    """Check a receipt as its holder does."""
    index, proof, note = notes.parse_proof(text)
    checkpoint = notes.verify_checkpoint(note, ORIGIN, KEY.public_key)
    tlog.verify_inclusion(tlog.leaf_hash(leaf), index, checkpoint.size, proof, checkpoint.root)


def test_the_untouched_receipt_holds() -> None:
    """The receipt that the next tests damage is good, for its own leaf alone."""
    check(LEAVES[4], PROOF_TEXT)
    with pytest.raises(ProofInvalid):
        check(LEAVES[5], PROOF_TEXT)


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_of_a_receipt_is_refused(bit: int) -> None:
    """Every character of the text matters: index, hashes, origin, size, root, key id and signature."""
    for place, character in enumerate(PROOF_TEXT):
        text = PROOF_TEXT[:place] + chr(ord(character) ^ 1 << bit) + PROOF_TEXT[place + 1 :]
        with pytest.raises((ProofInvalid, CheckpointInvalid)):
            check(LEAVES[4], text)


@UNTIMED
@given(data=st.data())
def test_a_cut_or_doubled_piece_of_a_receipt_is_refused(data: st.DataObject) -> None:
    """Whatever piece is taken out of a receipt or repeated in it, it is refused."""
    begin = data.draw(st.integers(0, len(PROOF_TEXT) - 1))
    end = data.draw(st.integers(begin + 1, len(PROOF_TEXT)))
    piece = PROOF_TEXT[begin:end]
    for text in (PROOF_TEXT[:begin] + PROOF_TEXT[end:], PROOF_TEXT[:end] + piece + PROOF_TEXT[end:]):
        with pytest.raises((ProofInvalid, CheckpointInvalid)):
            check(LEAVES[4], text)


@UNTIMED
@given(text=st.text(alphabet=st.characters() | st.sampled_from("\n \N{EM DASH}=0A")))
def test_no_text_crashes_a_parser(text: str) -> None:
    """Whatever stands where a proof or a note should stand is refused with the project's errors."""
    for parse in (notes.parse_note, notes.parse_checkpoint, notes.parse_proof):
        for attempt in (
            text,
            f"{HEADER}\nindex 0\n{text}",
            f"{TEXT}\n\n{text}",
            f"{text}\n\n{SIGNATURE_LINE}",
        ):
            try:
                parse(attempt)
            except (ProofInvalid, CheckpointInvalid):
                continue
