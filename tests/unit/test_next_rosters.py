"""Keys that come, change their state, and go, from one roster to the next (SPEC 2.11)."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import authority as make

from strongroom.crypto.key_file import read_sealing_key, read_signing_key
from strongroom.crypto.sealing import Suite, kid
from strongroom.crypto.signing import key_id
from strongroom.crypto.transport_key_file import read_transport_key
from strongroom.errors import ConfigurationInvalid, KeyFileInvalid, PermanentError, RosterInvalid, UsageError
from strongroom.key_cards import KeyCard, KeyUse, new_key
from strongroom.mandates import SealingKeyState
from strongroom.next_rosters import Changes, next_roster
from strongroom.root_keys import sign_change
from strongroom.roster import Roster
from strongroom.roster_words import differences, pitfalls
from strongroom.statements import canonical_json

ROOT = make.signing_key("root")
ACTIVE, ACCEPTED, CLOSED = SealingKeyState


@cache
def card(use: KeyUse, number: int = 0) -> KeyCard:
    """Return the card of a key that is the same every time."""
    if use is KeyUse.SEALING:
        key = make.sealing_key(f"card {number}")
        return KeyCard(use=use, id=key.kid, suite=key.suite, public_key=key.public_key)
    signing = make.signing_key(f"{use} {number}")
    return KeyCard(use=use, id=signing.key_id, suite=None, public_key=signing.public_key)


@pytest.fixture(scope="module")
def transport(tmp_path_factory: pytest.TempPathFactory) -> KeyCard:
    """The card of a transport key, which takes its time to make."""
    return new_key(KeyUse.TRANSPORT, tmp_path_factory.mktemp("keys"), None, transport_bits=2048)[0]


def follow(before: Roster | None = None, *, root: Any = ROOT, **changes: Any) -> Roster:
    """Return the roster that follows one, by default that of the builders, with these changes."""
    return next_roster(before or make.roster(), Changes(**changes), root, now=make.NOW, life_seconds=make.DAY)


def states(roster: Roster) -> dict[str, SealingKeyState]:
    """Return the state of every sealing key, in the roster's order."""
    return {key.kid: key.state for key in roster.body.sealing_keys}


OLD = make.sealing_key().kid
NEW = card(KeyUse.SEALING)


# ---- sealing keys ----


def test_an_added_key_is_accepted_and_not_yet_used() -> None:
    """So workers can have it before the first host seals to it."""
    after = follow(add_keys=[NEW])
    assert states(after) == {OLD: ACTIVE, NEW.id: ACCEPTED}
    assert after.active_sealing_key().kid == OLD


def test_an_added_key_may_be_used_at_once() -> None:
    """It becomes the first, and the one before is still taken."""
    after = follow(add_keys=[NEW], states={NEW.id: ACTIVE})
    assert list(states(after).items()) == [(NEW.id, ACTIVE), (OLD, ACCEPTED)]
    assert after.active_sealing_key().kid == NEW.id


def test_a_key_goes_its_way_through_all_its_states_and_out() -> None:
    """Accepted, closed, removed; and a closed one may be accepted again."""
    rosters = [follow(add_keys=[NEW], states={NEW.id: ACTIVE})]
    for changes in ({"states": {OLD: CLOSED}}, {"states": {OLD: ACCEPTED}}, {"states": {OLD: CLOSED}}, {}):
        rosters.append(follow(rosters[-1], **changes))
    assert [states(each)[OLD] for each in rosters] == [ACCEPTED, CLOSED, ACCEPTED, CLOSED, CLOSED]
    assert states(follow(rosters[-1], remove_keys=[OLD])) == {NEW.id: ACTIVE}


@pytest.mark.parametrize("state", [ACTIVE, ACCEPTED])
def test_only_a_closed_key_leaves_the_roster(state: SealingKeyState) -> None:
    """Whoever removes it is told what has to come first."""
    before = follow(add_keys=[NEW], states={NEW.id: state})
    with pytest.raises(UsageError, match=f"is {state}, and only a closed key") as caught:
        follow(before, remove_keys=[NEW.id])
    assert "retire-key" in str(caught.value.hint)


def test_the_only_active_key_is_not_closed() -> None:
    """No reader would accept a roster that hosts cannot seal by."""
    with pytest.raises(RosterInvalid, match="none is active"):
        follow(states={OLD: CLOSED})


def test_transport_keys_come_and_go_as_sealing_keys_do(transport: KeyCard) -> None:
    """They are a list of their own: to activate one does nothing to sealing keys."""
    before = follow(add_keys=[transport], states={transport.id: ACTIVE})
    assert [(key.kid, key.state) for key in before.body.transport_keys] == [(transport.id, ACTIVE)]
    assert states(before) == {OLD: ACTIVE}
    closed = follow(before, states={transport.id: CLOSED})
    assert any("no transport key is left" in each for each in pitfalls(before.body, closed.body))
    assert follow(closed, remove_keys=[transport.id]).body.transport_keys == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"add_keys": [NEW, NEW]}, "two have the same kid"),
        ({"add_keys": [card(KeyUse.ESCROW_LOG)]}, "escrow log key"),
        ({"replace_keys": [NEW]}, "sealing key"),
        ({"replace_keys": [card(KeyUse.ESCROW_LOG), card(KeyUse.ESCROW_LOG, 1)]}, "same key"),
        ({"states": {NEW.id: ACTIVE}}, "no sealing or transport key"),
        ({"remove_keys": [NEW.id]}, "no sealing or transport key"),
        ({"distrust": [NEW.id]}, "no former key"),
        ({"distrust": [key_id(make.roster().body.logs.escrow.public_key)]}, "no former key"),
    ],
)
def test_changes_of_keys_that_cannot_be_are_refused(changes: dict[str, Any], says: str) -> None:
    """Each says which key it is about."""
    with pytest.raises((UsageError, RosterInvalid), match=says):
        follow(**changes)


def test_a_key_that_is_there_is_not_added_again() -> None:
    """Its state is changed by its kid."""
    with pytest.raises(UsageError, match="already"):
        follow(follow(add_keys=[NEW]), add_keys=[NEW])


# ---- logs and replies ----


@pytest.mark.parametrize("log", ["escrow", "recovery"])
def test_the_key_that_a_log_had_goes_to_its_former_ones(log: str) -> None:
    """Oldest first; the other log stays."""
    use = KeyUse(f"{log}-log")
    rosters = [make.roster()]
    for number in range(2):
        rosters.append(follow(rosters[-1], replace_keys=[card(use, number)]))
    keys = [getattr(each.body.logs, log).public_key for each in rosters]
    assert keys[1:] == [card(use, number).public_key for number in range(2)]
    assert getattr(rosters[-1].body.logs, log).former == keys[:2]
    other = "recovery" if log == "escrow" else "escrow"
    assert getattr(rosters[-1].body.logs, other) == getattr(rosters[0].body.logs, other)


def test_a_former_key_that_was_stolen_counts_no_more() -> None:
    """Only that one is taken out of the list."""
    before = follow(follow(replace_keys=[card(KeyUse.ESCROW_LOG)]), replace_keys=[card(KeyUse.ESCROW_LOG, 1)])
    first, second = before.body.logs.escrow.former
    after = follow(before, distrust=[key_id(first)])
    assert after.body.logs.escrow.former == [second]
    assert any(key_id(first) in each and "counts no more" in each for each in differences(before.body, after.body))


def test_a_former_key_does_not_come_back() -> None:
    """What signed once, and perhaps was lost, is no log's key again."""
    use = KeyUse.ESCROW_LOG
    before = follow(follow(replace_keys=[card(use)]), replace_keys=[card(use, 1)])
    with pytest.raises(RosterInvalid, match="two places"):
        follow(before, replace_keys=[card(use)])


@pytest.mark.parametrize("worker", ["escrow", "recovery"])
def test_a_reply_key_is_replaced_without_a_trace(worker: str) -> None:
    """A reply is believed when it comes, by the roster of that moment."""
    use = KeyUse(f"{worker}-reply")
    after = follow(replace_keys=[card(use)])
    assert getattr(after.body.replies, worker) == card(use).public_key
    assert after.body.logs == make.roster().body.logs


# ---- the root key ----


def test_the_roster_after_a_change_is_signed_by_the_new_root_key() -> None:
    """And by no other."""
    new = make.signing_key("root 2")
    changes = [sign_change(make.AUTHORITY, ROOT, new, now=make.NOW)]
    after = follow(root=new, root_changes=changes)
    assert after.root_keys == (ROOT.public_key, new.public_key)
    assert any("root key" in each for each in differences(make.roster().body, after.body))
    with pytest.raises(UsageError, match="has to be signed by root key") as caught:
        follow(root_changes=changes)
    assert "--root-key-file" in str(caught.value.hint)
    with pytest.raises(UsageError, match="has to be signed by root key"):
        follow(after)
    assert follow(after, root=new).root_keys == after.root_keys


@pytest.mark.parametrize(
    ("authority", "former", "says"),
    [("keys.example.net", "root", "authority"), (make.AUTHORITY, "another", "hands over from")],
)
def test_a_change_of_another_root_key_is_not_carried(authority: str, former: str, says: str) -> None:
    """It would make a roster that nobody reads."""
    new = make.signing_key("root 2")
    change = sign_change(authority, make.signing_key(former), new, now=make.NOW)
    with pytest.raises(UsageError, match=says):
        follow(root=new, root_changes=[change])
    with pytest.raises(UsageError, match="root change"):
        follow(root=new, root_changes=[make.roster().statement])


# ---- what is said ----


def test_every_change_of_a_key_is_said(transport: KeyCard) -> None:
    """By its id, so that whoever signs can compare."""
    before = make.roster()
    cards = [card(use) for use in KeyUse if not use.is_added]
    after = follow(add_keys=[NEW, transport], states={NEW.id: ACTIVE}, replace_keys=cards)
    said = differences(before.body, after.body)
    for each in (NEW, transport, *cards):
        assert any(each.id in words for words in said), each.use
    assert any(OLD in words and "accepted" in words and "was active" in words for words in said)
    assert differences(before.body, follow().body) == []


def test_what_has_to_be_done_first_is_said() -> None:
    """A key file before the roster, and a roster file before the start."""
    before = make.roster()
    assert pitfalls(before.body, follow().body) == []
    (new,) = pitfalls(before.body, follow(add_keys=[NEW]).body)
    assert NEW.id in new
    assert "refuses this roster" in new
    closing = follow(before, add_keys=[NEW], states={NEW.id: ACTIVE, OLD: CLOSED})
    assert any("was active until now" in each for each in pitfalls(before.body, closing.body))
    (reply,) = pitfalls(before.body, follow(replace_keys=[card(KeyUse.ESCROW_REPLY)]).body)
    assert reply.startswith("the escrow worker has another key")
    log = pitfalls(before.body, follow(replace_keys=[card(KeyUse.RECOVERY_LOG)]).body)
    assert [each.split(":")[0] for each in log] == [
        "the recovery worker has another key",
        "the recovery log has another key",
    ]


# ---- cards ----


@pytest.mark.parametrize("use", KeyUse)
def test_a_new_key_is_in_its_file_and_its_card_is_that_of_the_file(use: KeyUse, tmp_path: Path) -> None:
    """The card says nothing private; the file is under the passphrase, and never overwritten."""
    made, path = new_key(use, tmp_path, None, suite=Suite.P256, transport_bits=2048)
    assert KeyCard.parse(made.to_bytes()) == made
    assert made.id in path.name
    if use is KeyUse.SEALING:
        assert read_sealing_key(path, None).public_key == made.public_key
        assert made.id == kid(Suite.P256, made.public_key)
    elif use is KeyUse.TRANSPORT:
        assert read_transport_key(path, None).public_key.to_spki() == made.public_key
    else:
        assert read_signing_key(path, None).public_key == made.public_key
    with pytest.raises(KeyFileInvalid):
        new_key(use, tmp_path / "missing", None, suite=Suite.P256, transport_bits=2048)


def altered(**members: object) -> bytes:
    """Return the card of a sealing key with other members."""
    return canonical_json({**NEW.model_dump(mode="json"), **members})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        altered(format="strongroom-key-card/v2"),
        altered(use="root"),
        altered(id="0" * 32),
        altered(suite=None),
        altered(suite="dhkem-p256"),
        altered(use="escrow-log"),
        altered(use="transport", suite=None),
        altered(public_key=""),
        altered(private_key=""),
        NEW.to_bytes() + b" " * 20_000,
    ],
)
def test_a_card_out_of_shape_is_refused(data: bytes) -> None:
    """With what is wrong, and where cards come from."""
    with pytest.raises(ConfigurationInvalid, match="key card: ") as caught:
        KeyCard.parse(data)
    assert "add-key" in str(caught.value.hint)


@given(st.binary(max_size=300) | st.integers(0, 2000).map(lambda cut: NEW.to_bytes()[:cut]))
def test_no_bytes_but_a_card_make_a_card(data: bytes) -> None:
    """What is read is what was written, or nothing."""
    try:
        found = KeyCard.parse(data)
    except PermanentError:
        return
    assert found == NEW
