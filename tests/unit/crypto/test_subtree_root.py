"""Rows of hashes and their root, against a naive tree straight from RFC 6962."""

from functools import cache
from hashlib import sha256

import pytest
from hypothesis import settings

from strongroom.crypto import tlog
from strongroom.crypto.tlog import Frontier
from strongroom.errors import ProofInvalid

UNTIMED = settings(deadline=None)  # a busy machine is no failure

SIZES = range(1, 41)
LEAVES = [f"leaf {index}".encode() for index in SIZES]
HASHES = [sha256(b"\x00" + leaf).digest() for leaf in LEAVES]
_, NODES = tlog.append(Frontier.empty(), LEAVES)


@cache
def naive_root(begin: int, end: int) -> bytes:
    """MTH of RFC 6962 section 2.1, over HASHES[begin:end]."""
    if end - begin == 1:
        return HASHES[begin]
    power = 1
    while 2 * power < end - begin:
        power *= 2
    return sha256(b"\x01" + naive_root(begin, begin + power) + naive_root(begin + power, end)).digest()


def test_a_row_of_leaf_hashes_has_the_root_of_its_tree() -> None:
    """subtree_root of all leaf hashes is the definition's root, for every size."""
    for size in SIZES:
        assert tlog.subtree_root(b"".join(HASHES[:size])) == naive_root(0, size)


def test_a_row_of_subtrees_has_the_root_of_the_tree_over_them() -> None:
    """Rows of complete subtrees, with the smaller tree at the end if there is one, have the root of the whole."""
    for level in range(6):
        width = 1 << level
        for size in SIZES:
            begins = range(0, size, width)
            row = b"".join(naive_root(begin, min(begin + width, size)) for begin in begins)
            assert tlog.subtree_root(row) == naive_root(0, size)


def test_an_empty_row_has_the_root_of_the_empty_tree() -> None:
    """No hashes are a log without leaves."""
    assert tlog.subtree_root(b"") == tlog.EMPTY_ROOT


@pytest.mark.parametrize("length", [1, 31, 33, 63, 65, 95, 97])
def test_a_row_that_ends_within_a_hash_is_refused(length: int) -> None:
    """What is not a whole number of hashes has no root, not even the row's own bytes."""
    with pytest.raises(ProofInvalid, match=f"{length} bytes are no row"):
        tlog.subtree_root(bytes(length))
