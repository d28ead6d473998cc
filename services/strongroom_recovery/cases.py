"""What the database keeps of a request, its approvals and its signer: believed only by the digests in the log."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from strongroom.database import Transaction
from strongroom.errors import PermanentError, ProofInvalid
from strongroom.fields import parse_body
from strongroom.logs import get_logger
from strongroom.messages import Request
from strongroom.registry import Registry
from strongroom.roster import Roster
from strongroom.statements import Statement, parse_envelope
from strongroom_recovery import store
from strongroom_recovery.ledger import Case, Logged

Key = TypeVar("Key", int, str)

_RESTORE_HINT = "restore the database from a backup, and find out who changed it"


async def requests_of(tx: Transaction, cases: Iterable[Case]) -> dict[str, Statement]:
    """Return the stored statements of these requests, by id; one that is lost or changed is logged and left out."""
    wanted = {case.id: Logged(case.id, case.digest, case.index, case.asked_at) for case in cases}
    return _checked("request", wanted, await store.requests(tx, wanted))


async def request_of(tx: Transaction, case: Case) -> tuple[Statement, Request]:
    """Return the stored statement of a request. Raises ProofInvalid when it is lost or changed."""
    statement = (await requests_of(tx, [case])).get(case.id)
    if statement is None:
        raise ProofInvalid(f"request {case.id}: what is stored is not what was asked", hint=_RESTORE_HINT)
    return statement, parse_body(statement, Request)


async def approvals_of(tx: Transaction, case: Case) -> list[Statement]:
    """Return the stored approvals of a request; one that is lost or changed is logged and left out."""
    wanted = {logged.index: logged for logged in case.approvals}
    found = _checked("approval", wanted, await store.trust_statements(tx, wanted))
    return [found[index] for index in wanted if index in found]


async def statement_of(tx: Transaction, logged: Logged, what: str) -> Statement:
    """Return the stored statement that a leaf names. Raises ProofInvalid when it is lost or changed."""
    found = _checked(what, {logged.index: logged}, await store.trust_statements(tx, [logged.index]))
    if logged.index not in found:
        raise ProofInvalid(f"{what} {logged.id}: what is stored is not what was accepted", hint=_RESTORE_HINT)
    return found[logged.index]


async def enrolment_of(tx: Transaction, registry: Registry, case: Case) -> tuple[Statement | None, Roster | None]:
    """Return the enrolment of the principal's key that signed a request, and the roster that was in force for it.

    None for both when the enrolment's statement is lost or changed.
    """
    standing = registry.standing(case.principal, case.key_id)
    if standing is None:
        return None, None
    wanted = {standing.index: Logged(case.principal, standing.digest, standing.index, standing.since)}
    found = _checked("enrolment", wanted, await store.trust_statements(tx, wanted))
    statement = found.get(standing.index)
    return (None, None) if statement is None else (statement, registry.roster_of(standing))


def _checked(what: str, wanted: Mapping[Key, Logged], envelopes: Mapping[Key, bytes]) -> dict[Key, Statement]:
    found: dict[Key, Statement] = {}
    for key, logged in wanted.items():
        try:
            statement = parse_envelope(envelopes.get(key, b""))
        except PermanentError:
            statement = None
        if statement is not None and statement.digest == logged.digest:
            found[key] = statement
        else:
            # The log says that it was there: somebody has changed the database.
            get_logger().error(
                "stored statement lost", kind=what, message_id=logged.id, index=logged.index, hint=_RESTORE_HINT
            )
    return found
