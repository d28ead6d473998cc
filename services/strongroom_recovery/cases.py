"""What the database keeps of a request, its approvals and its signer: believed only by the digests in the log."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from strongroom.crypto.signing import key_id
from strongroom.database import Transaction
from strongroom.errors import RESTORE_HINT, PermanentError, ProofInvalid, SignatureInvalid
from strongroom.fields import parse_body
from strongroom.logs import get_logger
from strongroom.messages import Request
from strongroom.registry import Registry
from strongroom.roster import Roster
from strongroom.statements import Statement, parse_envelope
from strongroom_recovery import store
from strongroom_recovery.ledger import Case, Logged

Key = TypeVar("Key", int, str)


async def requests_of(tx: Transaction, cases: Iterable[Case]) -> dict[str, Statement]:
    """Return the stored statements of these requests, by id; one that is lost or changed is logged and left out."""
    wanted = {case.id: Logged(case.id, case.digest, case.index, case.asked_at) for case in cases}
    return _checked("request", wanted, await store.requests(tx, wanted))


async def request_of(tx: Transaction, case: Case) -> Request:
    """Return what a request asks for, from its stored statement. Raises ProofInvalid when it is lost or changed."""
    statement = (await requests_of(tx, [case])).get(case.id)
    if statement is None:
        raise ProofInvalid(f"request {case.id}: what is stored is not what was asked", hint=RESTORE_HINT)
    return parse_body(statement, Request)


async def approvals_of(tx: Transaction, case: Case, roster: Roster) -> list[Statement]:
    """Return the stored approvals of a request; one that is lost or changed is logged and left out.

    A digest does not cover signatures: that of an officer who has the same key still is looked at too.
    """
    wanted = {logged.index: logged for logged in case.approvals}
    found = _checked("approval", wanted, await store.trust_statements(tx, wanted))
    keys = {key_id(officer.public_key): officer.public_key for officer in roster.body.officers}
    for logged in case.approvals:
        if logged.index in found and logged.key_id in keys:
            try:
                found[logged.index].verify_signature(keys[logged.key_id], logged.key_id)
            except SignatureInvalid:
                del found[logged.index]
                _report("approval", logged)
    return [found[index] for index in wanted if index in found]


async def denial_of(tx: Transaction, case: Case) -> Statement | None:
    """Return the stored denial of a request that was denied; a lost one is logged."""
    if case.outcome is None or case.outcome.statement is None:
        return None
    found = await statements_of(tx, [case.outcome.statement], "denial")
    return found[0] if found else None


async def statements_of(tx: Transaction, wanted: Sequence[Logged], what: str) -> list[Statement]:
    """Return the stored statements that these leaves name, in order; one that is lost is logged and left out."""
    by_index = {logged.index: logged for logged in wanted}
    found = _checked(what, by_index, await store.trust_statements(tx, by_index))
    return [found[index] for index in by_index if index in found]


async def statement_of(tx: Transaction, logged: Logged, what: str) -> Statement:
    """Return the stored statement that a leaf names. Raises ProofInvalid when it is lost or changed."""
    found = await statements_of(tx, [logged], what)
    if not found:
        raise ProofInvalid(f"{what} {logged.id}: what is stored is not what was accepted", hint=RESTORE_HINT)
    return found[0]


async def enrolment_of(tx: Transaction, registry: Registry, case: Case) -> tuple[Statement | None, Roster | None]:
    """Return the enrolment of the principal's key that signed a request, and the roster that was in force for it.

    None for both when the enrolment's statement is lost or changed.
    """
    standing = registry.standing(case.principal, case.key_id)
    if standing is None:
        return None, None
    logged = Logged(case.principal, standing.digest, standing.index, standing.since)
    found = await statements_of(tx, [logged], "enrolment")
    return (found[0], registry.roster_of(standing)) if found else (None, None)


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
            _report(what, logged)
    return found


def _report(what: str, logged: Logged) -> None:
    """Say that the log names a statement which is not there any more: somebody has changed the database."""
    get_logger().error(
        "stored statement lost", kind=what, message_id=logged.id, index=logged.index, hint=RESTORE_HINT
    )
