import hashlib

import pytest
from tests.support import authority as make
from tests.support import wrapped as given

from strongroom.crypto.rsa import Padding
from strongroom.crypto.sealing import Suite, overhead
from strongroom.errors import (
    Denied,
    Expired,
    KeyUnknown,
    LimitExceeded,
    MalformedStatement,
    PrincipalRevoked,
    PrincipalUnknown,
    ProofInvalid,
    RecordConflict,
    SignatureInvalid,
    StatementConflict,
    WrongAuthority,
)
from strongroom.leaves import EscrowLeaf, parse_leaf
from strongroom.limits import CLOCK_SKEW_SECONDS, KEY_MATERIAL_BYTES_MAX
from strongroom.mandates import SealingKeyState
from strongroom.registry import Registry
from strongroom.statements import Statement
from strongroom_escrow.handler import Existing, Submission, adopt, compare, judge, leaf, read, settle

OTHER = "laptop-0418"


def judged(statement: Statement, registry: Registry | None = None, *, now: int = make.NOW) -> Submission:
    submission = read(statement.envelope())
    judge(submission, registry or make.registry(make.PRINCIPAL), now)
    return submission


def refused(submission: Submission) -> bool:
    return submission.refusal is not None


def accepted(*statements: Statement) -> list[Submission]:
    registry = make.registry(make.PRINCIPAL, OTHER)
    return [judged(statement, registry) for statement in statements]


def test_a_statement_by_the_principals_key_is_accepted_with_its_key_id() -> None:
    """A good statement has a signer and no refusal."""
    submission = judged(make.escrow())
    assert submission.refusal is None
    assert submission.key_id == make.signing_key(make.PRINCIPAL).key_id


def test_bytes_that_are_no_envelope_are_refused_and_named_by_their_own_digest() -> None:
    """Garbage has no id; its digest is that of the message body."""
    submission = read(b"\xff\xfenot json")
    assert isinstance(submission.refusal, MalformedStatement)
    assert submission.id is None
    assert submission.digest == hashlib.sha256(b"\xff\xfenot json").digest()


def test_a_statement_of_another_type_is_refused() -> None:
    """An enrolment on the escrow queue is malformed there."""
    assert isinstance(read(make.enrolment(make.invitation()).envelope()).refusal, MalformedStatement)


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        (make.escrow("nobody-here"), PrincipalUnknown),
        (make.escrow(key="a stranger"), SignatureInvalid),
        (make.escrow(authority="other.example.org"), WrongAuthority),
        (make.escrow(issued_at=make.NOW + CLOCK_SKEW_SECONDS + 1), Expired),
        (make.escrow(records=[make.record(kid="0" * 32)]), KeyUnknown),
    ],
)
def test_each_fault_of_a_statement_is_refused_by_name(statement: Statement, refusal: type[Exception]) -> None:
    """A stranger, an unknown principal, a wrong authority, a future date and an unknown kid are told apart."""
    assert isinstance(judged(statement).refusal, refusal)


def test_a_statement_dated_within_the_clock_skew_is_accepted() -> None:
    """The edge of the clock skew is inside."""
    assert judged(make.escrow(issued_at=make.NOW + CLOCK_SKEW_SECONDS)).refusal is None


def test_another_principals_statement_is_refused_although_the_signer_is_enrolled() -> None:
    """A principal cannot escrow under another's name."""
    registry = make.registry(make.PRINCIPAL, OTHER)
    assert isinstance(judged(make.escrow(OTHER, key=make.PRINCIPAL), registry).refusal, SignatureInvalid)


def test_a_replaced_key_is_refused() -> None:
    """After a replacement the former key speaks no more."""
    registry = make.registry(make.PRINCIPAL)
    invited = make.invitation(officers=("officer-a", "officer-b"), replaces=True)
    renewed = make.enrolment(invited, key="the new key")
    registry.apply(make.enrolment_leaf(renewed))
    registry.admit_enrolment(make.PRINCIPAL, renewed)
    assert isinstance(judged(make.escrow(), registry).refusal, PrincipalRevoked)
    assert judged(make.escrow(key="the new key"), registry).refusal is None


def test_a_closed_sealing_key_is_refused_and_an_accepted_one_is_taken() -> None:
    """Blobs to a closed key are refused, blobs to a key that is only accepted are not."""
    fresh = make.sealing_entry(make.sealing_key("fresh"))
    for state, refusal in ((SealingKeyState.ACCEPTED, type(None)), (SealingKeyState.CLOSED, KeyUnknown)):
        roster = make.roster(sealing_keys=[make.sealing_entry(state=state), fresh])
        registry = make.registry(make.PRINCIPAL, bootstrap=roster)
        assert isinstance(judged(make.escrow(), registry).refusal, refusal)


@pytest.mark.parametrize(
    ("length", "fits"), [(0, False), (1, True), (KEY_MATERIAL_BYTES_MAX, True), (KEY_MATERIAL_BYTES_MAX + 1, False)]
)
def test_a_blob_is_as_long_as_its_suite_makes_it(length: int, *, fits: bool) -> None:
    """A blob for 1 to 65,536 bytes of key material passes; one byte beyond either edge names field and bytes."""
    blob = bytes(overhead(Suite.X_WING) + 32 + length)
    submission = judged(make.escrow(records=[make.record(), make.record(blob=blob)]))
    if fits:
        assert submission.refusal is None
    else:
        assert isinstance(submission.refusal, LimitExceeded)
        assert "records.1.blob" in submission.refusal.message


def test_a_blob_of_another_suite_than_its_key_is_refused() -> None:
    """Suite and kid must belong together."""
    submission = judged(make.escrow(records=[make.record(suite=Suite.P256)]))
    assert isinstance(submission.refusal, MalformedStatement)


def test_fresh_statements_are_stored_in_order_and_get_consecutive_leaves() -> None:
    """Leaves are numbered in the order of the batch, refused members left out."""
    first, stranger, second = accepted(make.escrow(), make.escrow(key="a stranger"), make.escrow(OTHER))
    fresh = settle([first, stranger, second], Existing(), 100)
    adopt([first, stranger, second], fresh, 7)
    assert fresh == [first, second]
    assert (first.leaf_index, stranger.leaf_index, second.leaf_index) == (7, None, 8)


def test_a_repeat_in_the_batch_is_stored_once_and_proven_twice() -> None:
    """Two deliveries of one statement share a leaf."""
    statement = make.escrow()
    batch = accepted(statement, statement)
    fresh = settle(batch, Existing(), 100)
    adopt(batch, fresh, 3)
    assert len(fresh) == 1
    assert [submission.leaf_index for submission in batch] == [3, 3]


def test_a_repeat_of_a_stored_statement_gets_the_stored_leaf() -> None:
    """Same id and same digest: the leaf that is there."""
    statement = make.escrow()
    batch = accepted(statement)
    stored = Existing({str(batch[0].id): (statement.digest, 5)}, {})
    assert settle(batch, stored, 100) == []
    assert batch[0].leaf_index == 5


def test_a_stored_statement_is_proven_again_although_its_key_was_replaced_since() -> None:
    """A receipt, once given, is given again whatever happened to the key."""
    statement = make.escrow(key="a key of former times")
    submission = judged(statement)
    assert refused(submission)
    assert settle([submission], Existing({str(submission.id): (statement.digest, 5)}, {}), 100) == []
    assert not refused(submission)
    assert submission.leaf_index == 5


@pytest.mark.parametrize("stored", [True, False])
def test_the_same_id_with_other_bytes_is_a_conflict(*, stored: bool) -> None:
    """The first holder of an id keeps it, in the database and within a batch."""
    first = make.escrow()
    second = make.escrow(id=read(first.envelope()).id)
    batch = accepted(first, second)
    existing = Existing({str(batch[0].id): (first.digest, 5)}, {}) if stored else Existing()
    adopt(batch, settle(batch, existing, 100), 9)
    assert batch[0].refusal is None
    assert isinstance(batch[1].refusal, StatementConflict)
    assert batch[1].leaf_index is None


@pytest.mark.parametrize("stored", [True, False])
def test_somebody_elses_record_id_is_a_conflict_and_none_of_the_statement_is_taken(*, stored: bool) -> None:
    """A record id that is taken refuses the whole statement, in the database and within a batch."""
    mine = make.record()
    theirs = make.escrow(OTHER, records=[make.record(OTHER), make.record(OTHER, id=mine.id)])
    batch = accepted(make.escrow(records=[mine]), theirs)
    existing = Existing({}, {mine.id: "another statement"}) if stored else Existing()
    fresh = settle(batch, existing, 100)
    assert batch[1] not in fresh
    assert isinstance(batch[1].refusal, RecordConflict)
    assert mine.id in batch[1].refusal.message


def test_a_leaf_names_statement_principal_and_signer_and_nothing_about_the_key() -> None:
    """The leaf holds ids and digests, never a description or a serial number."""
    statement = make.escrow()
    submission = judged(statement)
    written = leaf(submission, make.NOW)
    parsed = parse_leaf(written)
    assert isinstance(parsed, EscrowLeaf)
    assert (parsed.id, parsed.digest) == (submission.id, statement.digest.hex())
    assert (parsed.principal, parsed.key) == (make.PRINCIPAL, make.signing_key(make.PRINCIPAL).key_id)
    assert b"S3Z8NB0K" not in written


def test_a_submission_that_was_not_verified_has_no_leaf() -> None:
    """Only a verified submission may reach the log."""
    with pytest.raises(ValueError, match="verified"):
        leaf(read(make.escrow().envelope()), make.NOW)


def test_a_row_that_points_at_another_statements_leaf_gives_no_receipt() -> None:
    """A repeat keeps its leaf index only if that leaf names its own id and digest."""
    (submission,), (other,) = accepted(make.escrow()), accepted(make.escrow(OTHER))
    for logged, index in ((leaf(submission, make.NOW), 4), (leaf(other, make.NOW), None)):
        submission.leaf_index = 4
        compare(submission, {4: logged})
        assert submission.leaf_index == index
    assert isinstance(submission.refusal, ProofInvalid)


def test_a_row_that_names_a_leaf_beyond_the_log_gives_no_receipt_and_stops_nobody() -> None:
    """An edited leaf index is refused for its own statement; the last leaf of the log is not beyond it."""
    statement = make.escrow()
    for size, index in ((6, 5), (5, None)):
        (submission,) = accepted(statement)
        assert settle([submission], Existing({str(submission.id): (statement.digest, 5)}, {}), size) == []
        assert submission.leaf_index == index
        assert isinstance(submission.refusal, ProofInvalid) is (index is None)


def test_a_conflict_that_only_a_row_claims_is_not_told_to_the_sender() -> None:
    """A conflict holds if the log's leaf is another statement's with this id; else the row was edited."""
    statement = make.escrow()
    for rival, told in ((make.escrow(id=read(statement.envelope()).id), True), (make.escrow(), False)):
        (submission,), (holder,) = accepted(statement), accepted(rival)
        assert settle([submission], Existing({str(submission.id): (b"other", 3)}, {}), 9) == []
        compare(submission, {3: leaf(holder, make.NOW)})
        assert submission.is_told is told
        assert isinstance(submission.refusal, StatementConflict if told else ProofInvalid)


def test_a_refused_broker_account_is_not_told_to_the_sender() -> None:
    """Nobody signed it: whoever runs the broker could otherwise end an honest sender's trying."""
    assert not Submission(make.escrow().envelope(), refusal=Denied("user_id: is missing")).is_told
    assert Submission(b"", refusal=MalformedStatement("envelope: is empty")).is_told


# ---- wrapped keys ----

BLOB = given.simple_blob(bytes(32), Padding.OAEP)
DIGEST = given.digest_of(BLOB)
TAKEN = "another principal escrowed this wrapped key first"


def wrapped(principal: str = make.PRINCIPAL, blob: bytes = BLOB, *, before: int = 0) -> Statement:
    """Return a statement with a wrapped key, behind so many records of other keys."""
    records = [make.record(principal) for _ in range(before)]
    return make.escrow(principal, records=[*records, given.record(principal, material=blob)])


def known(principal: str) -> Existing:
    return Existing(wrapped={DIGEST: principal})


@pytest.mark.parametrize("state", list(SealingKeyState))
def test_a_key_wrapped_to_a_closed_transport_key_is_refused(state: SealingKeyState) -> None:
    """One to an active or accepted key is taken, one to a closed key or a key of nobody is not."""
    registry = make.registry(make.PRINCIPAL, bootstrap=make.roster(transport_keys=[given.entry(state=state)]))
    refusal = judged(wrapped(), registry).refusal
    assert isinstance(refusal, KeyUnknown if state is SealingKeyState.CLOSED else type(None))
    if refusal is not None:
        assert refusal.message == f"wrapping: kid: {given.SIMPLE.kid} is closed"
    assert isinstance(judged(wrapped(), make.registry(make.PRINCIPAL)).refusal, KeyUnknown)


def both(*statements: Statement) -> list[Submission]:
    """Judge statements of two principals by a roster with a transport key."""
    registry = make.registry(make.PRINCIPAL, OTHER, bootstrap=make.roster(transport_keys=[given.SIMPLE]))
    return [judged(statement, registry) for statement in statements]


def test_the_first_escrow_of_a_wrapped_key_wins() -> None:
    """Another principal's is refused, as the sender's fault, and names the field and not the first."""
    [copy] = both(wrapped(OTHER, before=2))
    assert settle([copy], known(make.PRINCIPAL), 5) == []
    assert isinstance(copy.refusal, RecordConflict)
    assert copy.refusal.message == f"records.2.wrapping.digest: {TAKEN}"
    assert make.PRINCIPAL not in f"{copy.refusal.message} {copy.refusal.hint}"
    assert copy.is_told


def test_a_principal_may_escrow_its_own_wrapped_key_again() -> None:
    """Under another record, beside the first in the database, in the batch, or in one statement."""
    twice = make.escrow(records=[given.record(material=BLOB), given.record(material=BLOB)])
    submissions = both(wrapped(), wrapped(), twice)
    assert settle(submissions, known(make.PRINCIPAL), 5) == submissions
    assert settle(both(wrapped()), Existing(), 5) != []


def test_the_first_escrow_wins_inside_a_batch() -> None:
    """In the order of the messages, whoever is in front; other wrapped keys are not concerned."""
    another = given.simple_blob(bytes(32), Padding.OAEP)
    for first, second in ((make.PRINCIPAL, OTHER), (OTHER, make.PRINCIPAL)):
        submissions = both(wrapped(first), wrapped(second), wrapped(second, another))
        assert settle(submissions, Existing(), 0) == [submissions[0], submissions[2]]
        assert isinstance(submissions[1].refusal, RecordConflict)


def test_a_refused_statement_takes_no_wrapped_key() -> None:
    """What was refused for another reason does not keep the next one out."""
    [refused_one, genuine] = both(wrapped(OTHER), wrapped())
    refused_one.refusal = SignatureInvalid("not signed")
    assert settle([refused_one, genuine], Existing(), 0) == [genuine]


def test_a_repeat_of_a_wrapped_key_stays_harmless() -> None:
    """The same statement again gets its leaf, also if the database now names another as the first."""
    [submission] = both(wrapped())
    assert submission.statement is not None
    stored = {submission.id or "": (submission.digest, 3)}
    assert settle([submission], Existing(statements=stored, wrapped={DIGEST: OTHER}), 5) == []
    assert (submission.refusal, submission.leaf_index) == (None, 3)


def test_a_digest_in_the_database_of_another_key_is_no_conflict() -> None:
    """Only the same digest counts."""
    [submission] = both(wrapped())
    assert settle([submission], Existing(wrapped={"ab" * 32: OTHER}), 0) == [submission]
