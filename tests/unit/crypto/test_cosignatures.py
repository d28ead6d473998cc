"""Cosignatures and verifier keys: published ones, an independent spelling, one test a refused deformity."""

import json
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.crypto import notes
from strongroom.crypto.cosignatures import (
    COSIGNATURE_TIME_MAX,
    VerifierKey,
    cosign,
    parse_vkey,
    verify_cosignature,
    vkey,
)
from strongroom.crypto.notes import Checkpoint, SignatureType
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import CheckpointInvalid

UNTIMED = settings(deadline=None)  # a busy machine is no failure

PUBLISHED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "tlog" / "notes.json").read_text(encoding="utf-8")
)

# A checkpoint of a Certificate Transparency log as it was served, less three witnesses, and the fourth's
# published verifier key, which the tests of transparency-dev/formats also read.
SERVED = (
    "arche2025h1.staging.ct.transparency.dev\n"
    "1432088532\n"
    "U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n"
    "\n"
    "\N{EM DASH} arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbd"
    "Q3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=\n"
    "\N{EM DASH} arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygN"
    "I75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=\n"
    "\N{EM DASH} remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTy"
    "nk5XeU/zZ0WBxtqB0DrAWfBw==\n"
)
SERVED_VKEY = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"

ORIGIN = "strongroom.example/escrow"
LOG_KEY = SigningKey.from_seed(Secret(bytes(range(32))))
NOTE = notes.sign_checkpoint(Checkpoint(ORIGIN, 11, bytes(32)), LOG_KEY.sign, LOG_KEY.public_key)
TEXT = NOTE.partition("\n\n")[0] + "\n"

WITNESS = "witness.example/w1"
SEED = bytes(range(2, 34))
KEY = SigningKey.from_seed(Secret(SEED))
OTHER_KEY = SigningKey.from_seed(Secret(bytes(range(3, 35))))
TIME = 1_679_315_147
COSIGNED = cosign(NOTE, WITNESS, KEY, TIME)


def line(name: str, key_id: bytes, signature: bytes) -> str:
    return f"\N{EM DASH} {name} {b64encode(key_id + signature).decode()}\n"


def spelled(time: int, text: str = TEXT, name: str = WITNESS, header: str = "cosignature/v1") -> str:
    """Spell a cosignature line from the specification alone."""
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    key_id = sha256(name.encode() + b"\n\x04" + key.public_key().public_bytes_raw()).digest()[:4]
    return line(name, key_id, time.to_bytes(8, "big") + key.sign(f"{header}\ntime {time}\n{text}".encode()))


# ---- published values -----------------------------------------------------------------------------


def test_a_served_cosignature_verifies_under_its_published_key() -> None:
    """The witness's own time is returned."""
    name, public_key, kind = parse_vkey(SERVED_VKEY)
    assert kind is SignatureType.COSIGNATURE
    assert verify_cosignature(SERVED, name, public_key) == 1_779_573_024
    with pytest.raises(CheckpointInvalid, match="is false"):
        verify_cosignature(SERVED.replace("1432088532", "1432088533"), name, public_key)


def test_a_printed_cosignature_verifies_under_its_published_key() -> None:
    """The second published checkpoint, of a firmware log, was cosigned at the time that its source prints."""
    note = next(case["note"] for case in PUBLISHED if "checkpoint" in case)
    public_key = bytes.fromhex("e90299398a4d39d030da888a0923ecf16786881ac12243db73c9f0cf2a2d80e6")
    assert verify_cosignature(note, "ArmoredWitness-floral-sky", public_key) == 1_729_698_499


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        (SERVED_VKEY, "remora.n621.de", SignatureType.COSIGNATURE),
        *((case["vkey"], case["vkey"].partition("+")[0], SignatureType.NOTE) for case in PUBLISHED),
        (
            "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f",
            "arche2025h1.staging.ct.transparency.dev",
            SignatureType.NOTE,
        ),
    ],
)
def test_published_verifier_keys_are_read_and_spelled(text: str, name: str, kind: SignatureType) -> None:
    """Each gives its name, its type and 32 bytes, and is spelled again as it was; base64 may hold plus signs."""
    key = parse_vkey(text)
    assert (key.name, key.kind) == (name, kind)
    assert key.public_key == b64decode(text.split("+", 2)[2])[1:]
    assert vkey(*key) == text


# ---- cosigning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("time", [0, 1, TIME, COSIGNATURE_TIME_MAX])
def test_a_cosignature_is_spelled_as_the_specification_says(time: int) -> None:
    """One line is added after the others: key id of type 4, 8 bytes of time, 64 of signature; it reads back."""
    cosigned = cosign(NOTE, WITNESS, KEY, time)
    assert cosigned == NOTE + spelled(time)
    assert verify_cosignature(cosigned, WITNESS, KEY.public_key) == time


def test_the_log_still_vouches_for_a_cosigned_checkpoint() -> None:
    """The log's own signature holds as before, and a cosignature is none of it."""
    assert notes.verify_checkpoint(COSIGNED, ORIGIN, LOG_KEY.public_key) == Checkpoint(ORIGIN, 11, bytes(32))
    alone = COSIGNED.replace(NOTE.removeprefix(f"{TEXT}\n"), "")
    assert verify_cosignature(alone, WITNESS, KEY.public_key) == TIME
    with pytest.raises(CheckpointInvalid, match="no signature by this key"):
        notes.verify_checkpoint(alone, ORIGIN, LOG_KEY.public_key)


def test_an_older_line_of_the_same_key_is_replaced_and_no_other() -> None:
    """Lines of other names, of other keys of this name, and of this key as a note key stay, in their order."""
    others = [
        line(WITNESS, notes.note_key_id(WITNESS, KEY.public_key), KEY.sign(TEXT.encode())),
        line(WITNESS, notes.note_key_id(WITNESS, OTHER_KEY.public_key, SignatureType.COSIGNATURE), bytes(72)),
        spelled(TIME, name="witness.example/w2"),
    ]
    old = spelled(TIME - 86_400)
    note = NOTE + others[0] + old + others[1] + old + others[2]
    assert cosign(note, WITNESS, KEY, TIME) == NOTE + "".join(others) + spelled(TIME)


def test_extension_lines_are_cosigned() -> None:
    """Whatever the text says after its third line is in the message too."""
    text = f"{TEXT}extension\n"
    note = f"{text}\n{line(ORIGIN, bytes(4), bytes(64))}"
    cosigned = cosign(note, WITNESS, KEY, TIME)
    assert cosigned == note + spelled(TIME, text)
    with pytest.raises(CheckpointInvalid, match="is false"):
        verify_cosignature(cosigned.replace("extension", "extensiom"), WITNESS, KEY.public_key)


@pytest.mark.parametrize("time", [-1, COSIGNATURE_TIME_MAX + 1])
def test_a_time_that_cannot_be_spelled_is_refused(time: int) -> None:
    """A time is 0 to 2**63 - 1."""
    with pytest.raises(CheckpointInvalid, match="the time of a cosignature"):
        cosign(NOTE, WITNESS, KEY, time)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\udc80"])
def test_what_is_no_key_name_cannot_cosign(name: str) -> None:
    """A line that could not be read back is not written."""
    with pytest.raises(CheckpointInvalid):
        cosign(NOTE, name, KEY, TIME)


def test_a_note_that_is_no_checkpoint_is_not_cosigned() -> None:
    """A witness speaks of logs only: any other signed text is refused, by the reader too."""
    note = "some\ntext\n\n" + line(ORIGIN, bytes(4), bytes(64))
    with pytest.raises(CheckpointInvalid, match="a checkpoint is"):
        cosign(note, WITNESS, KEY, TIME)
    with pytest.raises(CheckpointInvalid, match="a checkpoint is"):
        verify_cosignature(note + spelled(TIME, "some\ntext\n"), WITNESS, KEY.public_key)


def test_a_note_without_room_is_not_cosigned() -> None:
    """Sixteen signatures are the most that every reader takes; replacing one needs no room."""
    others = line("witness.example/w2", bytes(4), bytes(72)) * 14
    full = cosign(NOTE + others, WITNESS, KEY, TIME)
    assert verify_cosignature(cosign(full, WITNESS, KEY, TIME + 1), WITNESS, KEY.public_key) == TIME + 1
    with pytest.raises(CheckpointInvalid, match="at most 16 signatures"):
        cosign(full, "witness.example/w3", KEY, TIME)
    large = line(ORIGIN, bytes(4), bytes((notes.NOTE_BYTES_MAX - len(TEXT) - 120) // 4 * 3))
    notes.parse_checkpoint(f"{TEXT}\n{large}")
    with pytest.raises(CheckpointInvalid, match="at most 131072 bytes"):
        cosign(f"{TEXT}\n{large}", WITNESS, KEY, TIME)


# ---- verifying ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key"),
    [(WITNESS, OTHER_KEY), ("witness.example/w2", KEY), (ORIGIN, LOG_KEY)],
    ids=["key", "name", "log"],
)
def test_a_checkpoint_without_the_witness_is_refused(name: str, key: SigningKey) -> None:
    """Only this key under its own name counts, and a log's signature is no cosignature."""
    with pytest.raises(CheckpointInvalid, match="no cosignature by this key"):
        verify_cosignature(COSIGNED, name, key.public_key)


def test_one_false_cosignature_refuses_the_checkpoint() -> None:
    """A true one beside a false one of the same key does not save it, in either order."""
    false = spelled(TIME, TEXT.replace("11", "12"))
    for block in (spelled(TIME) + false, false + spelled(TIME)):
        with pytest.raises(CheckpointInvalid, match="is false"):
            verify_cosignature(NOTE + block, WITNESS, KEY.public_key)


def test_the_latest_of_several_times_is_returned() -> None:
    """Whatever the order of the lines."""
    for times in ((TIME, TIME + 5), (TIME + 5, TIME)):
        note = NOTE + "".join(map(spelled, times))
        assert verify_cosignature(note, WITNESS, KEY.public_key) == TIME + 5


def test_a_cosignature_for_another_purpose_is_refused() -> None:
    """The header keeps apart what else the key might sign."""
    with pytest.raises(CheckpointInvalid, match="is false"):
        verify_cosignature(NOTE + spelled(TIME, header="cosignature/v2"), WITNESS, KEY.public_key)


@pytest.mark.parametrize("length", [1, 8, 64, 71, 73])
def test_a_cosignature_of_another_length_is_refused(length: int) -> None:
    """Under the witness's key id it is 72 bytes; anything else is false, not unknown."""
    key_id = notes.note_key_id(WITNESS, KEY.public_key, SignatureType.COSIGNATURE)
    with pytest.raises(CheckpointInvalid, match="not 72 bytes"):
        verify_cosignature(NOTE + line(WITNESS, key_id, bytes(length)), WITNESS, KEY.public_key)


def test_a_time_above_the_largest_is_refused() -> None:
    """Even if the signature holds, the time has 63 bits."""
    with pytest.raises(CheckpointInvalid, match="impossible time"):
        verify_cosignature(NOTE + spelled(2**63), WITNESS, KEY.public_key)


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_of_a_cosigned_checkpoint_is_refused(bit: int) -> None:
    """Every character of the text and of the witness's line matters; the log's own line is not its business."""
    log_line = range(len(TEXT) + 1, len(NOTE) - 1)
    for place, character in enumerate(COSIGNED):
        if place not in log_line:
            note = COSIGNED[:place] + chr(ord(character) ^ 1 << bit) + COSIGNED[place + 1 :]
            with pytest.raises(CheckpointInvalid):
                verify_cosignature(note, WITNESS, KEY.public_key)


# ---- verifier keys --------------------------------------------------------------------------------


@UNTIMED
@given(
    name=st.text(st.characters(exclude_characters="+", exclude_categories=["Cs", "Cc", "Z"]), min_size=1),
    public_key=st.binary(min_size=32, max_size=32),
    kind=st.sampled_from(SignatureType),
)
def test_a_verifier_key_reads_back(name: str, public_key: bytes, kind: SignatureType) -> None:
    """Whatever vkey spells, parse_vkey reads."""
    assert parse_vkey(vkey(name, public_key, kind)) == VerifierKey(name, public_key, kind)


VKEY = vkey(WITNESS, KEY.public_key, SignatureType.COSIGNATURE)


def test_a_verifier_key_has_the_id_of_its_signatures() -> None:
    """The key id in the text is the one in the signature line, for both types."""
    for kind in SignatureType:
        text = vkey(WITNESS, KEY.public_key, kind)
        material = bytes([kind]) + KEY.public_key
        key_id = sha256(WITNESS.encode() + b"\n" + material).hexdigest()[:8]
        assert text == f"{WITNESS}+{key_id}+{b64encode(material).decode()}"
    assert VKEY.split("+")[1] == notes.parse_note(COSIGNED)[1][-1].key_id.hex()


@pytest.mark.parametrize(
    "text",
    [
        "",
        WITNESS,
        VKEY.rpartition("+")[0],
        VKEY.rpartition("+")[0] + "+",
        VKEY.replace(WITNESS, ""),
        VKEY.replace(WITNESS, f"{WITNESS} "),
        VKEY.replace(WITNESS, "witness.example/w2"),
        VKEY.replace(WITNESS, "a\udc80"),
        VKEY + "=",
        VKEY + "\n",
        " " + VKEY,
        VKEY[:-1],
        VKEY.replace("+B", "+\N{LATIN SMALL LETTER E WITH ACUTE}"),
        "+".join([WITNESS, VKEY.split("+")[1].upper(), VKEY.split("+", 2)[2]]),
        "+".join([WITNESS, "0" + VKEY.split("+")[1], VKEY.split("+", 2)[2]]),
        "+".join([WITNESS, "00000000", VKEY.split("+", 2)[2]]),
        f"{WITNESS}+00000000+{b64encode(bytes([4]) + bytes(31)).decode()}",
        f"{WITNESS}+00000000+{b64encode(bytes([6]) + bytes(1312)).decode()}",
        f"{WITNESS}+{sha256(WITNESS.encode() + b'xx' + bytes(32)).hexdigest()[:8]}+{b64encode(bytes(33)).decode()}",
    ],
)
def test_a_misshapen_verifier_key_is_refused(text: str) -> None:
    """One deformity each: a part missing, another name, another id, another spelling, another type."""
    with pytest.raises(CheckpointInvalid):
        parse_vkey(text)


@pytest.mark.parametrize("place", range(len(VKEY)))
def test_any_flipped_bit_of_a_verifier_key_is_refused(place: int) -> None:
    """Name, id and key hang together."""
    for bit in range(8):
        with pytest.raises(CheckpointInvalid):
            parse_vkey(VKEY[:place] + chr(ord(VKEY[place]) ^ 1 << bit) + VKEY[place + 1 :])
