"""What a request puts on the record, and how fast: leaves, conflicts of ids, haste."""

from types import SimpleNamespace
from typing import Any

import pytest
from tests.support import authority as make
from tests.support import requests as ask

from strongroom.errors import RateLimited, StatementConflict
from strongroom.fields import Capacity, new_id, parse_body
from strongroom.leaves import RefusalLeaf, ReleaseLeaf, RequestLeaf, parse_leaf
from strongroom.mandates import Policy
from strongroom.messages import Request
from strongroom.statements import Statement
from strongroom_recovery.ledger import HOUR_SECONDS, Ledger
from strongroom_recovery.requests import Granted, Ruling, VerifiedRequest, _rule

NOW = make.NOW
OFFICER: dict[str, Any] = {"requester": "officer-a", "requester_kind": Capacity.OFFICER}


def verified(statement: Statement) -> VerifiedRequest:
    return VerifiedRequest(parse_body(statement, Request), statement.digest, statement.signatures[0].key_id)


# ---- leaves ----


@pytest.mark.parametrize("statement", [ask.request(), ask.request(**OFFICER)], ids=["owner", "officer"])
def test_a_new_request_is_the_case_that_its_own_leaf_makes(statement: Statement) -> None:
    """What is decided before the leaf is written is the same case that every worker reads from it afterwards."""
    asked, ledger = verified(statement), Ledger()
    ledger.apply(asked.leaf(NOW))
    assert asked.case(NOW, 0) == ledger.case(asked.request.id)


def test_the_leaves_name_who_asked_for_what_and_what_became_of_it() -> None:
    """Each leaf reads back as what SPEC 7.2 says."""
    statement = ask.request(**OFFICER)
    asked, release, records = verified(statement), make.escrow(), [new_id(), new_id()]
    members: dict[str, Any] = {"time": NOW, "id": asked.request.id, "digest": statement.digest.hex()}
    assert parse_leaf(asked.leaf(NOW)) == RequestLeaf(
        **members, **OFFICER, key=make.signing_key("officer-a").key_id, principal=make.PRINCIPAL
    )
    granted = Granted(release, records, ["5e" * 32])
    assert parse_leaf(asked.release_leaf(granted, NOW)) == ReleaseLeaf(
        **members, release=release.digest.hex(), approvals=["5e" * 32], records=records
    )
    assert parse_leaf(asked.refusal_leaf("not_found", NOW)) == RefusalLeaf(**members, **OFFICER, code="not_found")


# ---- how fast the log grows ----


class Worker:
    """Rules on requests that need no database, and folds what it put on the record."""

    def __init__(self, *, requests_per_hour: int) -> None:
        self.ledger = Ledger()
        roster = make.roster(policy=Policy(requests_per_hour=requests_per_hour))
        self._registry = make.registry(make.PRINCIPAL, bootstrap=roster)

    async def rule(self, statement: Statement, now: int) -> Ruling:
        """Decide; the answer is in the ledger on return."""
        desk: Any = SimpleNamespace(ledger=self.ledger, registry=self._registry, writer=self.ledger)
        no_database: Any = None
        ruling = await _rule(desk, no_database, verified(statement), now)
        for leaf in ruling.leaves:
            self.ledger.apply(leaf)
        return ruling


def logged_codes(ruling: Ruling) -> list[str]:
    leaves = [parse_leaf(leaf) for leaf in ruling.leaves]
    return [leaf.code if isinstance(leaf, RefusalLeaf) else leaf.type for leaf in leaves]


async def test_another_request_under_an_id_is_refused_on_the_record() -> None:
    """It is a conflict, and what became of the first one is not touched."""
    worker, first = Worker(requests_per_hour=3), ask.request()
    worker.ledger.apply(ask.request_leaf(first))
    id_ = parse_body(first, Request).id
    ruling = await worker.rule(ask.request(id=id_, **OFFICER), NOW)
    assert isinstance(ruling.decision, StatementConflict)
    assert (logged_codes(ruling), ruling.is_new) == (["statement_conflict"], False)
    case = worker.ledger.case(id_)
    assert case is not None
    assert (case.digest, case.outcome) == (first.digest, None)


@pytest.mark.parametrize("is_taken", [True, False], ids=["a taken id", "a new id"])
async def test_a_flood_leaves_one_line_an_hour_in_the_log(is_taken: bool) -> None:  # noqa: FBT001
    """Beyond the hourly limit the first is on the record and the others are not, also under an id that is taken."""
    worker, first = Worker(requests_per_hour=2), ask.request()
    worker.ledger.apply(ask.request_leaf(first))
    for number in range(2):
        worker.ledger.apply(ask.request_leaf(ask.request(**OFFICER), time=NOW + number))
    changes = {"id": parse_body(first, Request).id} if is_taken else {}
    logged: list[list[str]] = []
    for number in range(5):
        ruling = await worker.rule(ask.request(**changes, **OFFICER, reason=f"ticket {number}"), NOW + 2)
        assert isinstance(ruling.decision, RateLimited)
        assert (ruling.decision.retry_at, ruling.is_new) == (NOW + HOUR_SECONDS, False)
        logged.append(logged_codes(ruling))
    assert logged == [["rate_limited"], [], [], [], []]


async def test_conflicts_of_ids_count_as_requests() -> None:
    """As many as policy lets somebody ask in an hour are conflicts; the next one came too soon."""
    worker, first = Worker(requests_per_hour=2), ask.request()
    worker.ledger.apply(ask.request_leaf(first))
    decisions = [
        (await worker.rule(ask.request(id=parse_body(first, Request).id, **OFFICER, reason=reason), NOW)).decision
        for reason in ("first", "second", "third")
    ]
    assert [type(decision) for decision in decisions] == [StatementConflict, StatementConflict, RateLimited]
