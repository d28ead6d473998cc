"""The checker of the fault tests must itself find what it is there to find."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.support.checker import Report, check, spool
from tests.support.hosts import escrow, keys
from tests.support.site import Site

from strongroom.fields import new_id

Rows = list[dict[str, Any]]


@pytest.fixture
async def stored(site: Site) -> Site:
    """The site with three statements of two records each."""
    if not site.homes:
        home = await site.enrol("checked")
        async with site.worker("escrow").running():
            for _ in range(3):
                assert (await escrow(home, keys(2))).stored == 1
    return site


def looking_through(site: Site, table: str, alter: Callable[[Rows], Rows]) -> Site:
    """Return the same site, but for what it reads from one table."""

    class Altered(Site):
        async def rows(self, query: str, *args: object) -> Any:
            found = [dict(row) for row in await site.rows(query, *args)]
            return alter(found) if f"FROM {table}" in query else found

    return Altered(
        *(getattr(site, name) for name in ("folder", "databases", "brokers", "roster", "root_key", "officer"))
    )


def found(report: Report) -> set[str]:
    """Return which kinds of broken promises were found."""
    return {kind for kind in ("lost", "duplicate", "unexpected") if getattr(report, kind)}


def without_first(rows: Rows) -> Rows:
    return rows[1:]


def first_twice(rows: Rows) -> Rows:
    return [rows[0], *rows]


def foreign(rows: Rows) -> Rows:
    return [rows[0] | {"id": new_id()}, *rows[1:]]


def with_(column: str, value: Callable[[Any], Any]) -> Callable[[Rows], Rows]:
    return lambda rows: [rows[0] | {column: value(rows[0][column])}, *rows[1:]]


async def test_a_site_without_faults_is_found_whole(stored: Site) -> None:
    """Nothing was done to it: nothing is found, and everything was looked at."""
    handed_over = [record for each in spool(stored.homes[0]) for record in each.records]
    report = await check(stored, handed_over)
    report.assert_kept()
    assert (report.rows, report.leaves, report.records, report.states) == (3, 3, 6, {"stored": 3})


@pytest.mark.parametrize(
    ("table", "alter", "expected"),
    [
        ("escrow_statements", without_first, {"lost", "unexpected"}),
        ("escrow_statements", first_twice, {"duplicate"}),
        ("escrow_statements", foreign, {"lost", "unexpected"}),
        ("escrow_statements", with_("digest", lambda _: bytes(32)), {"lost", "unexpected"}),
        ("escrow_statements", with_("principal", lambda _: "another"), {"unexpected"}),
        ("records", without_first, {"unexpected"}),
        ("records", first_twice, {"duplicate"}),
        ("records", foreign, {"unexpected"}),
    ],
)
async def test_rows_that_are_not_as_they_were_sent_are_found(
    stored: Site, table: str, alter: Callable[[Rows], Rows], expected: set[str]
) -> None:
    """A row that is gone, doubled, made up or changed breaks the promise that it breaks."""
    report = await check(looking_through(stored, table, alter))
    assert found(report) == expected
    with pytest.raises(AssertionError):
        report.assert_kept()


@pytest.mark.parametrize(
    ("table", "alter"),
    [
        ("escrow_leaves", with_("leaf", lambda leaf: leaf.replace(b"{", b"{ ", 1))),
        ("escrow_leaves", without_first),
        ("escrow_checkpoints", lambda rows: rows[:-1]),
        ("escrow_checkpoints", with_("size", lambda size: size + 1)),
    ],
    ids=["other leaf", "no leaf", "no checkpoint", "other checkpoint"],
)
async def test_a_log_that_is_not_what_was_signed_is_found(
    stored: Site, table: str, alter: Callable[[Rows], Rows]
) -> None:
    """The leaves must give the root of every checkpoint, and the last one must be over all of them."""
    with pytest.raises(AssertionError):
        await check(looking_through(stored, table, alter))


async def test_a_key_that_is_in_no_spool_is_lost(stored: Site) -> None:
    """What was handed over and is nowhere is named."""
    report = await check(stored, [record := new_id()])
    assert found(report) == {"lost"}
    assert record in report.lost[0]
