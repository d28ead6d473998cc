"""Sealing a range again, without a database: what is done, what is left, and what the entry says of it."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.support import authority as make
from tests.support.resealing import OLD, Ring, new_key
from tests.unit.recovery.test_proving import stretch

from strongroom.crypto.sealing import PrivateSealingKey, Suite
from strongroom.errors import NoAnswer
from strongroom.leaves import ResealLeaf, parse_leaf
from strongroom_recovery.key_blobs import KeyBlob, opened
from strongroom_recovery.prover.proving import Stretch, Trouble, examine
from strongroom_recovery.reseal.resealing import Resealing, given_up, reseal

NEW = new_key()
REGISTRY = make.registry(make.PRINCIPAL)


def again(
    given: Stretch, *keys: PrivateSealingKey, to: PrivateSealingKey = NEW, is_enough: Callable[[], bool] = bool
) -> Resealing:
    return reseal(given, REGISTRY, Ring(*(keys or (OLD, NEW))), make.sealing_entry(to), is_enough)


def left(done: Resealing) -> list[tuple[int, str | None, str]]:
    return [(each.index, each.record, each.code) for each in done.troubles]


@pytest.mark.parametrize("suite", Suite)
def test_each_record_is_sealed_in_its_place_to_the_new_key(suite: Suite) -> None:
    """The prover opens the new blobs, by the new key, and nothing else has changed."""
    given = stretch(*(make.escrow(records=[make.record(), make.record()]) for _ in range(3)))
    key = new_key(suite)
    done = again(given, to=key)
    assert (done.first, done.end, len(done.blobs), done.troubles, done.looked) == (0, 3, 6, [], 6)
    after = replace(given, resealed={each.record: KeyBlob(key.kid, suite.value, each.blob) for each in done.blobs})
    looked = examine(after, REGISTRY, Ring(key))
    assert (looked.records, looked.kids, looked.unprovable) == (6, {key.kid: 6}, [])
    assert again(after, OLD, key, to=key).blobs == []


def test_the_entry_has_the_digest_of_the_new_blobs_in_order_of_place() -> None:
    """Over the 36 characters of each id and the SHA-256 of each blob, and nothing else (SPEC 7.7)."""
    done = again(stretch(make.escrow(records=[make.record(), make.record()]), make.escrow()))
    leaf = parse_leaf(done.leaf(make.NOW))
    assert isinstance(leaf, ResealLeaf)
    joined = b"".join(each.record.encode() + hashlib.sha256(each.blob).digest() for each in done.blobs)
    assert leaf.digest == hashlib.sha256(joined).hexdigest()
    assert (leaf.time, leaf.first, leaf.count, leaf.size) == (make.NOW, 0, 2, 2)
    assert (leaf.root, leaf.kid, leaf.records, leaf.left) == (done.head.root.hex(), NEW.kid, 3, 0)


def test_an_entry_without_new_blobs_has_the_digest_of_nothing() -> None:
    """A range where nothing was to be done is on the record, too."""
    done = again(stretch(make.escrow()), to=OLD)
    leaf = parse_leaf(done.leaf(make.NOW))
    assert isinstance(leaf, ResealLeaf)
    assert (leaf.records, leaf.left, leaf.digest) == (0, 0, hashlib.sha256().hexdigest())


def test_what_does_not_open_is_left_and_named() -> None:
    """A blob that is none, a fingerprint of another key, a key that is not here: the rest is done."""
    bad, other, good = make.record(blob=b"x"), make.record(fingerprint="ab" * 32), make.record()
    done = again(stretch(make.escrow(records=[bad, other, good])))
    assert left(done) == [(0, bad.id, "blob_invalid"), (0, other.id, "fingerprint_mismatch")]
    assert [each.record for each in done.blobs] == [good.id]
    assert left(again(stretch(make.escrow(records=[good])), NEW)) == [(0, good.id, "key_unknown")]


def test_a_statement_that_is_not_what_was_accepted_is_left_whole() -> None:
    """Missing, edited, or without its leaf; its neighbour is sealed again."""
    given = stretch(make.escrow(), make.escrow())
    for spoilt in (
        replace(given, statements={1: given.statements[1]}),
        replace(given, statements={**given.statements, 0: given.statements[1]}),
        replace(given, leaves={1: given.leaves[1]}),
    ):
        done = again(spoilt)
        assert left(done) == [(0, None, "proof_invalid")]
        assert [each.place for each in done.blobs] == [1]


def test_a_record_that_the_index_does_not_have_as_signed_is_left() -> None:
    """There is nowhere to put a blob of a record that has no row."""
    given = stretch(make.escrow())
    [row] = given.rows[0]
    assert left(again(replace(given, rows={}))) == [(0, row.id, "not_found")]
    assert left(again(replace(given, rows={0: [row._replace(name="x")]}))) == [(0, row.id, "proof_invalid")]


def test_it_ends_where_it_is_told_and_goes_through_one_leaf_at_least() -> None:
    """The entry covers what was gone through, and no more."""
    given = stretch(*(make.escrow() for _ in range(4)))
    done = again(given, is_enough=lambda: True)
    assert (done.first, done.end, len(done.blobs)) == (0, 1, 1)


def test_the_newest_blob_is_what_the_next_is_made_of_and_the_signed_one_if_that_is_damaged() -> None:
    """A damaged one is mended by the next change of keys, while the key of the signed one is there."""
    record = make.record()
    given = stretch(make.escrow(records=[record]))
    second, third = again(given).blobs[0], new_key(Suite.P256)
    newest = KeyBlob(NEW.kid, "x-wing", second.blob)
    for blob, keys in ((newest, (NEW, third)), (newest._replace(blob=b"x"), (OLD, NEW, third))):
        [found] = again(replace(given, resealed={record.id: blob}), *keys, to=third).blobs
        sealed = KeyBlob(third.kid, "dhkem-p256", found.blob)
        key = opened(make.AUTHORITY, make.PRINCIPAL, record, Ring(third), (sealed,))
        assert key.material.expose() == b"a session key"


def test_a_device_that_does_not_answer_leaves_nothing_as_unopened() -> None:
    """The piece is given up as a whole, and comes again."""

    class Silent(Ring):
        def opener(self, kid: str) -> PrivateSealingKey:
            raise NoAnswer(kid)

    with pytest.raises(NoAnswer):
        reseal(stretch(make.escrow()), REGISTRY, Silent(OLD, NEW), make.sealing_entry(NEW))


def test_what_has_a_blob_already_is_withdrawn_and_left_only_if_it_is_outdated() -> None:
    """Done by another meanwhile, it is neither counted nor named."""
    done = again(stretch(make.escrow(records=[make.record() for _ in range(3)])))
    meanwhile, outdated, mine = (each.record for each in done.blobs)
    done.withdraw({meanwhile, outdated}, {outdated})
    assert [each.record for each in done.blobs] == [mine]
    assert left(done) == [(0, outdated, "record_conflict")]


def test_a_leaf_that_cannot_be_read_is_left_alone() -> None:
    """One leaf, one trouble."""
    head = stretch(make.escrow()).head
    done = given_up(0, head, make.sealing_entry(NEW), "why")
    assert (done.first, done.end, done.blobs) == (0, 1, [])
    assert done.troubles == [Trouble(0, None, None, "proof_invalid", "why")]
