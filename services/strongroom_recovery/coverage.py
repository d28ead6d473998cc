"""Coverage: what every principal holds against what it should hold, a page of principals at a time (SPEC 5.14)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from strongroom.audits import Counts, Coverage, CoverageRequest, Gap, GapState, Proving
from strongroom.database import Transaction
from strongroom.errors import PermanentError, ProofInvalid
from strongroom.limits import COVERAGE_PRINCIPALS_MAX, INTEGER_MAX
from strongroom.mandates import Role
from strongroom.roster import Roster
from strongroom.statements import Statement
from strongroom_recovery import coverage_store as store
from strongroom_recovery.desk import Answer, Desk, Hints
from strongroom_recovery.gaps import (
    Filling,
    Held,
    Judge,
    Place,
    Ranges,
    clean_ranges,
    replaced,
    spoken_of,
    with_time_stored,
)
from strongroom_recovery.handler import Submission, check_officers_question
from strongroom_recovery.proofs import Finding

# Looked at by the first query for a page, and by each further one twice as many: a page full of gaps ends early.
_PRINCIPALS_FIRST: Final = 1_000
# Up to here every finding is looked up for every page; beyond, all records of the page's principals are looked at.
_FINDINGS_FEW: Final = 5_000
_LOST_CODES: Final = frozenset({"not_found", "proof_invalid"})


async def cover(desk: Desk, submission: Submission, asked: CoverageRequest, hints: Hints, now: int) -> Answer:
    """Answer a coverage request with a signed page, or with a rejection; nothing is written.

    Raises PermanentError when the requester cannot be verified, RosterExpired, DatabaseUnavailable.
    """
    async with desk.database.reading() as tx:
        await desk.follow(tx, now)
        await desk.verify_sender(tx, submission.statement, asked.authority, asked.requester, asked.requester_kind)
        try:
            check_coverage(asked, desk.registry.roster, now)
            page = await _page(desk, tx, asked, submission.digest, now)
        except PermanentError as error:
            return Answer("refused", desk.reply(hints, desk.rejection(submission, error, now)), error)
    return Answer("listed", desk.reply(hints, Statement.sign(Coverage.TYPE, page.to_bytes(), desk.reply_key)))


def check_coverage(asked: CoverageRequest, roster: Roster, now: int) -> None:
    """Decide whether a coverage request of a verified requester may be answered.

    Raises Denied for a principal, OfficerUnknown for an officer with neither role `audit` nor `recover`, Expired,
    LimitExceeded for too long a life.
    """
    check_officers_question(asked, roster, {Role.AUDIT, Role.RECOVER}, now)


async def _page(desk: Desk, tx: Transaction, asked: CoverageRequest, digest: bytes, now: int) -> Coverage:
    following = desk.registry.speaking(asked.after, COVERAGE_PRINCIPALS_MAX + 1)
    principals = following[:COVERAGE_PRINCIPALS_MAX]
    page = Coverage(
        authority=asked.authority,
        request=asked.id,
        request_digest=digest.hex(),
        roster_version=desk.registry.roster.body.version,
        as_of=now,
        proving=await _proving(desk, tx),
        counts=Counts(**dict.fromkeys(Counts.model_fields, INTEGER_MAX)),
        gaps=[],
        next="z" * 64,  # as long as any name, so that the size is not underestimated
    )
    filling = Filling(page)
    view = await _View.of(desk, tx, [name for name, _ in principals], asked.silent_days, now)
    last, first, count = None, 0, _PRINCIPALS_FIRST
    while first < len(principals) and not filling.is_full:
        last = await view.take(tx, principals[first : first + count], filling) or last
        first, count = first + count, 2 * count
    is_whole = not filling.is_full and len(principals) == len(following)
    is_end = last == following[-1][0] if following else True
    return page.model_copy(
        update={
            "counts": filling.figures(),
            "gaps": filling.gaps,
            "next": None if is_whole or is_end else last,
        }
    )


async def _proving(desk: Desk, tx: Transaction) -> Proving:
    try:
        size = (await desk.escrow_log.head(tx)).size
    except ProofInvalid:
        size = 0  # nothing was ever escrowed
    proofs = desk.ledger.proofs
    oldest = proofs.oldest()
    return Proving(
        size=size,
        backlog=sum(end - first for first, end in proofs.gaps(size)),
        oldest_at=None if oldest is None else oldest.time,
    )


@dataclass(frozen=True, slots=True)
class _View:
    """What is known of the principals of one page before their records are counted.

    remarked: records that something is said of, by principal and id. lost: findings about what the index does not
    name, by principal. looks_through: whether there are too many findings to look each of them up.
    """

    judge: Judge
    clean: Ranges
    remarked: dict[str, dict[str, Place]]
    lost: dict[str, list[Finding]]
    looks_through: bool

    @classmethod
    async def of(cls, desk: Desk, tx: Transaction, names: Sequence[str], silent_days: int, now: int) -> "_View":
        ledger, policy = desk.ledger, desk.registry.roster.body.policy
        judge = Judge(ledger, now, silent_days, policy.replace_days, policy.expected)
        clean = clean_ranges(ledger)
        wanted = frozenset(names)
        findings = list(ledger.proofs.findings())
        is_many = len(findings) > _FINDINGS_FEW
        if is_many:
            findings = [each for each in findings if each.record is None or each.code in _LOST_CODES]
        faulty, lost = await store.by_finding(tx, findings)
        ids = [*spoken_of(ledger, wanted), *(id_ for principal, id_ in faulty if principal in wanted)]
        places = await store.by_id(tx, dict.fromkeys(ids), clean)
        remarked: dict[str, dict[str, Place]] = {}
        for place in places:
            if place.principal in wanted:
                remarked.setdefault(place.principal, {})[place.id] = place
        return cls(judge, clean, remarked, lost, is_many)

    async def take(self, tx: Transaction, principals: Sequence[tuple[str, int]], filling: Filling) -> str | None:
        """Count these principals, each with the time of its enrolment, until the page is full; return the last."""
        judge = self.judge
        names = [name for name, _ in principals]
        wanted = judge.wanted(names, await self._labelled(tx, names))
        expected = {name for each in set(wanted.values()) for name in each}
        holdings = await store.held(
            tx, names, self.clean, expected, alive=judge.alive(principals), since=judge.silent_before
        )
        plain, held = holdings.plain, holdings.others
        missing = await self._missing(tx, wanted, holdings)
        remarked = {name: self.remarked[name] for name in names if name in self.remarked}
        if self.looks_through:
            for place in await store.unclean(tx, names, self.clean):
                remarked.setdefault(place.principal, {})[place.id] = place
        others = {place.id: place for each in held.values() for place in each.others}
        others |= {place.id: place for each in remarked.values() for place in each.values()}
        gaps = await self._gaps(tx, others)
        owners = {id_: others[id_].principal for id_ in gaps}
        owners |= {each.record: name for name in names for each in self.lost.get(name, ()) if each.record}
        superseded = replaced(judge.ledger, owners, await store.superseding(tx, list(owners)))
        # Of these there is something to say; the many others are only counted.
        notable = (
            {name for name in names if name not in plain} | missing.keys() | remarked.keys() | self.lost.keys()
        )
        held |= {name: Held(plain[name], judge.now, ()) for name in notable & plain.keys()}
        counted: list[int] = []
        last = None
        for name, since in principals:
            if name not in notable:
                counted.append(plain[name])
            else:
                has = held.get(name)
                places = {place.id: place for place in has.others} if has else {}
                places |= remarked.get(name, {})
                found = judge.judge(
                    name,
                    since,
                    has,
                    missing=missing.get(name, ()),
                    records=((place, gaps.get(place.id)) for place in places.values()),
                    replaced=superseded,
                    lost=[each for each in self.lost.get(name, ()) if each.record not in superseded],
                )
                if not filling.takes(found):
                    break
            last = name
            if filling.is_full:
                break
        filling.takes_plain(counted)
        return last

    async def _gaps(self, tx: Transaction, places: dict[str, Place]) -> dict[str, Gap]:
        """Return in what these records fall short, those that do, by id."""
        gaps = {id_: gap for id_, place in places.items() if (gap := self.judge.gap(place)) is not None}
        stored = {places[id_].leaf_index for id_, gap in gaps.items() if gap.state is GapState.STORED}
        times = await store.stored_at(tx, stored)
        return dict(zip(gaps, with_time_stored(gaps.values(), places, times), strict=True))

    async def _labelled(self, tx: Transaction, names: Sequence[str]) -> dict[tuple[str, str], set[str]]:
        """Return which of these principals have a record with a label that policy speaks of, by name and value."""
        labelled: dict[tuple[str, str], set[str]] = {}
        for each in self.judge.expected:
            if each.label is not None:
                those = [name for name in names if name.startswith(each.prefix)]
                found = await store.labelled(tx, those, each.label) if those else set()
                labelled.setdefault((each.label.name, each.label.value), set()).update(found)
        return labelled

    async def _missing(
        self, tx: Transaction, wanted: Mapping[str, Sequence[str]], holdings: store.Holdings
    ) -> dict[str, list[str | None]]:
        """Return what each principal lacks, if anything; None is any key, where no certain one is expected."""
        names = {name for name in holdings.short for name in wanted[name]}
        there = await store.names(tx, holdings.short, names)
        missing: dict[str, list[str | None]] = {}
        for name in holdings.short:
            missing[name] = [each for each in wanted[name] if each not in there.get(name, ())]
        for name in wanted.keys() - holdings.plain.keys() - holdings.others.keys():
            missing[name] = [*wanted[name]] or [None]
        return {name: lacks for name, lacks in missing.items() if lacks}
