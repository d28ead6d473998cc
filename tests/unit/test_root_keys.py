"""One root key hands over to the next: who is believed from where, and what is refused (SPEC 2.12)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import authority as make

from strongroom import limits
from strongroom.crypto.signing import SigningKey
from strongroom.errors import PermanentError, RosterInvalid, SignatureInvalid
from strongroom.mandates import RootChange, RosterBody
from strongroom.root_keys import judge_change, sign_change
from strongroom.roster import Roster
from strongroom.statements import Signature, Statement, canonical_json, pae, parse_envelope

KEYS = [make.signing_key(f"root {number}") for number in range(4)]
FIRST, SECOND, THIRD, STRANGER = KEYS


def change(former: SigningKey, new: SigningKey, authority: str = make.AUTHORITY) -> bytes:
    """Return the envelope of a hand-over that both have signed."""
    return sign_change(authority, former, new, now=make.NOW).envelope()


def half_signed(former: SigningKey, new: SigningKey, *signers: SigningKey) -> bytes:
    """Return the envelope of a hand-over that only these have signed."""
    whole = parse_envelope(change(former, new))
    return Statement.sign(whole.type, whole.body, *signers).envelope()


def chain(*keys: SigningKey) -> list[bytes]:
    """Return the changes that lead along these keys."""
    return [change(one, two) for one, two in pairwise(keys)]


def signed(changes: Sequence[bytes], key: SigningKey, **members: Any) -> Statement:
    """Return a roster that carries changes, signed by a key; not verified."""
    return make.signed(make.roster_body(root_changes=list(changes), **members), key)


@pytest.mark.parametrize("pinned", [FIRST, SECOND, THIRD], ids=["first", "second", "last"])
def test_whoever_has_pinned_any_of_the_root_keys_follows_to_the_last(pinned: SigningKey) -> None:
    """The same roster holds under each of its root keys, and says which one has signed it."""
    roster = Roster.verified(signed(chain(FIRST, SECOND, THIRD), THIRD), pinned.public_key)
    assert roster.root_keys == (FIRST.public_key, SECOND.public_key, THIRD.public_key)
    assert roster.root_key == THIRD.public_key


def test_without_a_change_there_is_one_root_key() -> None:
    """As ever: the pinned key signs."""
    roster = Roster.verified(signed([], FIRST), FIRST.public_key)
    assert roster.root_keys == (FIRST.public_key,)


@pytest.mark.parametrize("signer", [FIRST, SECOND, STRANGER])
@pytest.mark.parametrize("pinned", [FIRST, SECOND, THIRD], ids=["first", "second", "last"])
def test_only_the_last_root_key_signs(pinned: SigningKey, signer: SigningKey) -> None:
    """Whoever has handed over signs no roster that says so, whatever key is pinned."""
    with pytest.raises(RosterInvalid, match="did not sign it"):
        Roster.verified(signed(chain(FIRST, SECOND, THIRD), signer), pinned.public_key)


def test_a_pinned_key_that_no_change_names_is_not_led_on() -> None:
    """A whole chain of strangers, well signed, is worth nothing."""
    with pytest.raises(RosterInvalid, match="is none of these"):
        Roster.verified(signed(chain(STRANGER, SECOND), SECOND), FIRST.public_key)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ([half_signed(FIRST, SECOND, FIRST)], "root_changes.0: signatures"),
        ([half_signed(FIRST, SECOND, SECOND)], "root_changes.0: signatures"),
        ([half_signed(FIRST, SECOND, SECOND, STRANGER)], "root_changes.0: signatures"),
        ([half_signed(FIRST, SECOND, FIRST, SECOND, STRANGER)], "root_changes.0: signatures"),
        ([half_signed(FIRST, SECOND, SECOND, SECOND)], "root_changes.0: signatures"),
        ([change(FIRST, SECOND, "keys.example.net")], "is of the authority 'keys.example.net'"),
        ([change(SECOND, STRANGER), change(FIRST, SECOND)], "root_changes.1: does not follow"),
        ([change(FIRST, STRANGER), change(FIRST, SECOND)], "root_changes.1: does not follow"),
        ([change(FIRST, SECOND), change(FIRST, SECOND)], "root_changes.1: does not follow"),
        ([change(FIRST, SECOND), change(SECOND, FIRST)], "root_changes.1: goes back"),
        ([*chain(FIRST, THIRD, STRANGER, THIRD), change(THIRD, SECOND)], "goes back"),
        ([change(FIRST, FIRST)], "root_changes.0"),
        ([b"no envelope"], "root_changes.0: envelope"),
        ([make.roster().statement.envelope()], "root_changes.0: payloadType"),
    ],
    ids=[
        "not by the new one",
        "not by the old one",
        "a stranger for the old one",
        "a third signature",
        "one twice",
        "another authority",
        "wrong order",
        "two ways",
        "twice",
        "there and back",
        "a loop",
        "to itself",
        "no envelope",
        "another statement",
    ],
)
@pytest.mark.parametrize("pinned", [FIRST, SECOND], ids=["first", "second"])
def test_changes_that_do_not_hold_lead_nowhere(changes: list[bytes], says: str, pinned: SigningKey) -> None:
    """Each is refused by whoever has pinned the first key, and by whoever has pinned the last."""
    for signer in (FIRST, SECOND):
        with pytest.raises(RosterInvalid, match=says):
            Roster.verified(signed(changes, signer), pinned.public_key)


@pytest.mark.parametrize("place", [0, 1], ids=["the old key's", "the new key's"])
@pytest.mark.parametrize("pinned", [FIRST, SECOND], ids=["first", "second"])
def test_a_forged_signature_of_either_key_is_noticed(place: int, pinned: SigningKey) -> None:
    """The key id alone is a hint: a signature under it that does not verify is none."""
    whole = parse_envelope(change(FIRST, SECOND))
    signatures = list(whole.signatures)
    forged = STRANGER.sign(pae(whole.type, whole.body))
    signatures[place] = Signature(signatures[place].key_id, forged)
    envelope = Statement(whole.type, whole.body, tuple(signatures)).envelope()
    with pytest.raises(RosterInvalid, match="does not hold"):
        Roster.verified(signed([envelope], SECOND), pinned.public_key)


def test_more_changes_than_the_limit_are_refused_before_any_is_looked_at() -> None:
    """An envelope more than the limit says so, though it is no envelope at all."""
    body = make.roster_body().model_dump(mode="json")
    body["root_changes"] = [""] * (limits.ROOT_CHANGES_MAX + 1)
    statement = Statement.sign(RosterBody.TYPE, canonical_json(body), FIRST)
    with pytest.raises(RosterInvalid, match=f"the limit is {limits.ROOT_CHANGES_MAX}"):
        Roster.verified(statement, FIRST.public_key)


@given(st.binary(max_size=200) | st.lists(st.binary(max_size=40), max_size=4), st.sampled_from([FIRST, SECOND]))
def test_whatever_stands_in_the_place_of_changes_is_refused_or_holds(junk: Any, pinned: SigningKey) -> None:
    """No bytes there make anything else than a refusal, and nobody's signature is dispensed with."""
    members = make.roster_body().model_dump(mode="json")
    members["root_changes"] = [each.hex() for each in junk] if isinstance(junk, list) else junk.hex()
    statement = Statement.sign(RosterBody.TYPE, canonical_json(members), STRANGER)
    with pytest.raises(PermanentError):
        Roster.verified(statement, pinned.public_key)


def test_a_change_names_both_keys_to_whoever_judges_it() -> None:
    """The statement is judged alone before a roster is signed with it."""
    judged = judge_change(parse_envelope(change(FIRST, SECOND)))
    assert (judged.former, judged.public_key) == (FIRST.public_key, SECOND.public_key)
    assert judged.TYPE == RootChange.TYPE
    with pytest.raises(SignatureInvalid):
        judge_change(parse_envelope(half_signed(FIRST, SECOND, FIRST)))


# ---- one roster after the other ----


def verified(changes: Sequence[bytes], key: SigningKey, pinned: SigningKey = FIRST, **members: Any) -> Roster:
    """Return a verified roster that carries changes."""
    return Roster.verified(signed(changes, key, **members), pinned.public_key)


LATER: dict[str, Any] = {"version": 3, "previous": "0" * 64}


def test_a_roster_after_a_change_follows_one_before_it() -> None:
    """So does one after the next change, and the same again."""
    one, two = verified([], FIRST), verified(chain(FIRST, SECOND), SECOND, **LATER)
    three = verified(chain(FIRST, SECOND, THIRD), THIRD, **LATER | {"version": 9})
    for older, newer in ((one, two), (two, three), (one, three), (two, two)):
        newer.check_follows(older)


@pytest.mark.parametrize(
    ("changes", "key"),
    [([], FIRST), (chain(FIRST, STRANGER), STRANGER), (chain(FIRST, THIRD), THIRD)],
    ids=["none", "another", "one left out"],
)
def test_a_roster_that_lacks_a_change_that_was_seen_is_refused(changes: list[bytes], key: SigningKey) -> None:
    """Who stole the former root key can sign rosters, and whoever has heard of the change takes none of them."""
    held = verified(chain(FIRST, SECOND), SECOND, **LATER)
    with pytest.raises(RosterInvalid, match="nothing here leads on"):
        verified(changes, key, **LATER | {"version": 9}).check_follows(held)


def test_an_older_roster_is_verified_by_the_root_key_of_its_time() -> None:
    """Whoever pins the newest root key reads what the first one signed, and no stranger's, and no newer one."""
    newest = verified(chain(FIRST, SECOND), SECOND, SECOND, **LATER)
    older = newest.verified_older(signed([], FIRST))
    assert older.root_key == FIRST.public_key
    for wrong in (signed([], STRANGER), signed([], SECOND), signed([], FIRST, **LATER | {"version": 4})):
        with pytest.raises(RosterInvalid):
            newest.verified_older(wrong)


@pytest.mark.parametrize("role", ["officer", "reply", "log", "former key of a log"])
def test_a_former_root_key_has_no_other_place(role: str) -> None:
    """What has signed rosters once neither approves nor answers."""
    key = FIRST.public_key
    body = make.roster_body()
    logs, replies = body.logs, body.replies
    members: dict[str, dict[str, Any]] = {
        "officer": {"officers": [*body.officers[:2], body.officers[2].model_copy(update={"public_key": key})]},
        "reply": {"replies": replies.model_copy(update={"escrow": key})},
        "log": {"logs": logs.model_copy(update={"escrow": logs.escrow.model_copy(update={"public_key": key})})},
        "former key of a log": {
            "logs": logs.model_copy(update={"escrow": logs.escrow.model_copy(update={"former": [key]})})
        },
    }
    with pytest.raises(RosterInvalid, match="two places"):
        verified(chain(FIRST, SECOND), SECOND, **members[role])
