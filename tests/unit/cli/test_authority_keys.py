"""`strongroom authority add-key`, `new-root`, and what `sign-roster` does with their cards and statements."""

import json
from pathlib import Path

import pytest
from tests.unit.cli.test_authority import Place

from strongroom.crypto.key_file import read_sealing_key, read_signing_key
from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import key_id
from strongroom.crypto.transport_key_file import read_transport_key
from strongroom.key_cards import KeyCard, KeyUse
from strongroom.mandates import SealingKeyState
from strongroom.roster import Roster
from strongroom.settings import read_root_key
from strongroom.statements import parse_envelope

SMALL = ("--suite", "dhkem-p256")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.init(*SMALL, "--no-transport-key")
    return made


def add_key(place: Place, *words: str, code: int = 0, to: str = "card.json") -> KeyCard:
    """Make a key; its card is in a file of this name."""
    result = place.say(
        "authority", "add-key", str(place.keys), "--no-passphrase", *words, code=code, to=to if code == 0 else None
    )
    assert code == 0, result.output
    card = KeyCard.parse((place.folder / to).read_bytes())
    assert card.id in result.stderr
    return card


def sealing_states(roster: Roster) -> dict[str, SealingKeyState]:
    """Return the state of every sealing key, the one in use first."""
    return {key.kid: key.state for key in roster.body.sealing_keys}


# ---- keys ----


def test_an_authority_has_a_transport_key_unless_it_is_left_out(tmp_path: Path) -> None:
    """An RSA key of 3,072 bits lies with the sealing keys, and the roster names it."""
    other = Place(tmp_path)
    said = other.init(*SMALL).stdout
    (key,) = other.verified().body.transport_keys
    assert key.state is SealingKeyState.ACTIVE
    assert key.kid in said
    read = read_transport_key(other.keys / "recovery" / "sealing" / f"{key.kid}.key", None)
    assert (read.public_key.bits, read.public_key.to_spki()) == (3072, key.public_key)


def test_a_sealing_key_is_added_used_and_taken_out_again(place: Place) -> None:
    """Its file stays with the recovery worker, its card goes to the root key."""
    (old,) = sealing_states(place.verified())
    card = add_key(place, *SMALL)
    assert read_sealing_key(place.keys / "recovery" / "sealing" / f"{card.id}.key", None).kid == card.id
    path = str(place.folder / "card.json")
    said = place.sign("--add-key", path, "--activate", card.id, "--in-place").stderr
    assert f"sealing key {card.id} is added, active" in said
    assert f"warning: key {card.id} is new" in said
    assert list(sealing_states(place.verified())) == [card.id, old]
    assert "only a closed key" in place.sign("--remove-key", old, code=2).stderr
    place.sign("--close", old, "--in-place")
    assert sealing_states(place.verified())[old] is SealingKeyState.CLOSED
    assert "retire-key" in place.sign("--remove-key", card.id, code=2).stderr
    place.sign("--remove-key", old, "--in-place")
    assert list(sealing_states(place.verified())) == [card.id]


def test_a_key_cannot_be_two_things_at_once(place: Place) -> None:
    """Nothing is signed."""
    (old,) = sealing_states(place.verified())
    assert "active and closed at once" in place.sign("--activate", old, "--close", old, code=2).stderr


@pytest.mark.parametrize("use", [use for use in KeyUse if not use.is_added])
def test_a_workers_key_is_replaced(place: Place, use: KeyUse) -> None:
    """The new file lies beside the old one until the roster is there."""
    before = (place.keys / use.file).read_bytes()
    card = add_key(place, "--for", use.value)
    made = read_signing_key(place.keys / use.worker / f"{use.value}-{card.id}.key", None)
    assert made.key_id == card.id
    assert (place.keys / use.file).read_bytes() == before
    said = place.sign("--replace-key", str(place.folder / "card.json"), "--in-place").stderr
    assert card.id in said
    assert "first put its key file in place" in said
    body = place.verified().body
    named = getattr(body.logs, use.worker).public_key if use.is_of_a_log else getattr(body.replies, use.worker)
    assert key_id(named) == card.id
    shown = place.say("authority", "show", str(place.keys)).stdout
    assert card.id in shown
    if use.is_of_a_log:
        (former,) = getattr(body.logs, use.worker).former
        assert f"former key  keys.example.org/{use.worker}  key {key_id(former)}" in shown
        place.sign("--distrust", key_id(former), "--in-place")
        assert getattr(place.verified().body.logs, use.worker).former == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--for", "escrow-log", *SMALL), "--suite"),
        (("--bits", "4096"), "--bits"),
        (("--into", "/not/there"), "not/there"),
    ],
)
def test_what_does_not_fit_a_key_is_refused(place: Place, words: tuple[str, ...], said: str) -> None:
    """As a wrong use of the command."""
    result = place.say("authority", "add-key", str(place.keys), "--no-passphrase", *words, code=2)
    assert said in result.stderr


def test_a_key_without_a_passphrase_has_to_be_asked_for(place: Place) -> None:
    """As with `init`."""
    result = place.say("authority", "add-key", str(place.keys), code=2)
    assert "--workers-passphrase-file" in result.stderr
    assert len(list((place.keys / "recovery" / "sealing").iterdir())) == 1


def test_a_file_that_is_no_card_is_refused(place: Place) -> None:
    """So is a card on the wrong option."""
    assert "key card: " in place.sign("--add-key", str(place.keys / "root.pub"), code=2).stderr
    add_key(place, "--for", "escrow-reply")
    card = str(place.folder / "card.json")
    assert "--replace-key" in place.sign("--add-key", card, code=2).stderr


# ---- the root key ----


def new_root(place: Place, *words: str) -> Path:
    """Make another root key; the statement is in `change.json`. Return its file."""
    place.say("authority", "new-root", str(place.keys), "--no-passphrase", *words, to="change.json")
    (made,) = (place.folder / "spare").glob("*.key")
    return made


@pytest.fixture
def spare(place: Place) -> Path:
    (place.folder / "spare").mkdir()
    return new_root(place, "--into", str(place.folder / "spare"))


def test_a_spare_root_key_takes_over_when_the_root_key_is_lost(place: Place, spare: Path) -> None:
    """With the statement of long ago, the spare alone signs; the old pin goes on, and the new one works."""
    before = place.verified()
    place.sign("--in-place")
    (place.keys / "root" / "root.key").unlink()
    said = place.sign(
        "--root-change", str(place.folder / "change.json"), "--root-key-file", str(spare), "--in-place"
    )
    assert "the root key is another one" in said.stderr
    pinned = [read_root_key(place.keys / "root.pub"), read_root_key(spare.with_suffix(".pub"))]
    for root in pinned:
        roster = Roster.verified(parse_envelope((place.keys / "roster.json").read_bytes()), root)
        assert roster.root_keys == tuple(pinned)
        roster.check_follows(before)
    for root_key in (place.keys / "root.pub", spare.with_suffix(".pub")):
        shown = place.say("authority", "show", str(place.keys / "roster.json"), "--root-key", str(root_key)).stdout
        assert f"signed by root key {key_id(pinned[1])}" in shown
        assert f"former root {key_id(pinned[0])}" in shown
    place.sign("--root-key-file", str(spare), "--in-place")
    assert place.verified().body.version == 4


def test_the_old_root_key_signs_no_roster_after_the_change(place: Place, spare: Path) -> None:
    """Whoever still has it is told which one it is now, and makes no second change."""
    change = str(place.folder / "change.json")
    assert "--root-key-file" in place.sign("--root-change", change, code=2).stderr
    place.sign("--root-change", change, "--root-key-file", str(spare), "--in-place")
    new = read_signing_key(spare, None).key_id
    assert new in place.sign(code=2).stderr
    result = place.say("authority", "new-root", str(place.keys), "--no-passphrase", code=2)
    assert "handed over" in result.stderr
    assert (
        "hands over from root key"
        in place.sign("--root-change", change, "--root-key-file", str(spare), code=2).stderr
    )


def test_a_new_root_key_is_under_its_own_passphrase(place: Place) -> None:
    """It is asked for, as for every private key; without one nothing is made."""
    secret = place.folder / "spare.pass"
    secret.write_text("open sesame\n")
    secret.chmod(0o600)
    words = ("authority", "new-root", str(place.keys))
    assert "--new-passphrase-file" in place.say(*words, code=2).stderr
    place.say(*words, "--new-passphrase-file", str(secret), to="change.json")
    (made,) = (place.keys / "root").glob("root-*.key")
    assert json.loads(made.read_text())["protection"]["kdf"] == "argon2id"
    assert read_signing_key(made, Secret(b"open sesame")).key_id in made.name


def test_a_file_that_is_no_root_change_is_refused(place: Place, spare: Path) -> None:
    """A roster is none, and an envelope of another authority neither."""
    for file, code in ((place.keys / "roster.json", 1), (place.keys / "root.pub", 2)):
        result = place.sign("--root-change", str(file), "--root-key-file", str(spare), code=code)
        assert result.stdout == ""


def test_closing_the_only_active_key_says_how_another_takes_over(place: Place) -> None:
    """The way out is named, because nothing can be sealed without an active key."""
    (old,) = sealing_states(place.verified())
    refused = place.sign("--close", old, code=1).stderr
    assert "none is active" in refused
    assert "--add-key CARD --activate NEW" in " ".join(refused.split())
