"""What answering any message needs: the log, the registry, the reply key, and the shape of an answer."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from strongroom.crypto.keyring import Keyring
from strongroom.crypto.signing import SigningKey
from strongroom.database import Database, Transaction
from strongroom.errors import RESTORE_HINT, ConfigurationInvalid, PermanentError, ProofInvalid, StateCorrupt
from strongroom.fields import Capacity
from strongroom.follower import RecoveryLogFollower
from strongroom.leaves import Leaf, parse_leaf
from strongroom.log_writer import LogWriter
from strongroom.receipts import Receipt
from strongroom.registry import Registry
from strongroom.replies import Consistency, Reply, rejection
from strongroom.roster import Roster
from strongroom.statements import Statement, canonical_json
from strongroom_recovery.escrow_log import EscrowLog
from strongroom_recovery.handler import Submission, Unreadable, verify_sender
from strongroom_recovery.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Hints:
    """What a sender says it holds: leaves under its newest checkpoint, and its roster version; 0 is none."""

    tree_size: int = 0
    roster_version: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """What subscribers are told of: ids only (SPEC 5.11).

    what: the type of the leaf. id: of the statement. request: id of the request it is about, if any.
    """

    what: str
    time: int
    principal: str
    id: str
    request: str | None
    log_index: int

    def to_bytes(self) -> bytes:
        """Write it as the body of an AMQP message."""
        return canonical_json(asdict(self))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a message led to; everything it speaks of is committed.

    outcome: `enrolled`, `invited`, `revoked`, `approved`, `denied`, `attested`, `pending`, `released`, `listed`,
    `repeated`, `refused`, or `quarantined`, which asks the worker to see to that. refusal: why, where nothing was
    given. records: number of keys handed out. event: what subscribers are told.
    """

    outcome: str
    reply: Reply
    refusal: PermanentError | None = None
    records: int = 0
    event: Event | None = None


@dataclass(frozen=True, slots=True)
class Desk:
    """The means by which messages are answered; one for the process."""

    database: Database
    registry: Registry
    ledger: Ledger
    follower: RecoveryLogFollower
    writer: LogWriter
    escrow_log: EscrowLog
    keyring: Keyring
    reply_key: SigningKey
    check_usable: Callable[[Roster], None]

    async def begin(self, tx: Transaction, now: int) -> None:
        """Lock the recovery log for the rest of the transaction, and `follow` it."""
        await self.writer.lock(tx)
        await self.follow(tx, now)

    async def follow(self, tx: Transaction, now: int) -> Roster:
        """Take in what the recovery log says until now, and return the roster in force.

        Raises RosterExpired when nothing may be judged; StateCorrupt when the roster names keys that this process
        does not hold, because another worker adopted it; and what the log's reader and writer raise.
        """
        await self.follower.advance(tx)
        roster = self.registry.current_roster(now)
        try:
            self.check_usable(roster)
        except ConfigurationInvalid as error:
            raise StateCorrupt(f"roster version {roster.body.version}: {error.message}", hint=error.hint) from None
        self.escrow_log.go_by(roster.body.logs.escrow)
        return roster

    async def admit(self, tx: Transaction, principal: str, *, former: bool = False) -> None:
        """Make the principal's key known to the registry, with `former` also the keys that it replaced.

        Raises ProofInvalid when its stored enrolment is missing or false: that concerns this principal alone.
        """
        try:
            await self.follower.admit(tx, [principal], former=former)
        except StateCorrupt as error:
            raise ProofInvalid(error.message, hint=RESTORE_HINT) from None

    async def verify_sender(
        self, tx: Transaction, statement: Statement, authority: str, name: str, capacity: Capacity
    ) -> str:
        """Check who signed a statement, as `handler.verify_sender` does, or raise ProofInvalid as `admit` does."""
        if capacity is Capacity.PRINCIPAL:
            await self.admit(tx, name)
        return verify_sender(statement, authority, name, capacity, self.registry)

    async def logged(self, tx: Transaction, leaf_index: int | None) -> tuple[Leaf, Receipt]:
        """Return an earlier leaf of the recovery log and its receipt; the transaction holds the log's lock.

        Raises ProofInvalid when the index, which a database row named, is none, and LogForked when the log is
        not what was signed.
        """
        if leaf_index is None or not 0 <= leaf_index < self.writer.size:
            raise ProofInvalid("the database names a leaf that the recovery log does not have")
        # Nothing was appended yet: the head is committed, and its checkpoint may be given to anybody.
        published = await self.writer.published()
        proofs = await self.writer.leaf_proofs(tx, [leaf_index], published.size)
        return parse_leaf(proofs[leaf_index].leaf), published.receipt_of(proofs[leaf_index])

    async def consistency(self, tx: Transaction, hints: Hints, size: int) -> Consistency | None:
        """Return the proof that the log of `size` leaves continues the one that the sender knows of."""
        proofs = await self.writer.consistency(tx, {hints.tree_size} - {0}, size)
        proof = proofs.get(hints.tree_size)
        return None if proof is None else Consistency(hints.tree_size, tuple(proof))

    def reply(
        self,
        hints: Hints,
        statement: Statement | None = None,
        receipt: Receipt | None = None,
        consistency: Consistency | None = None,
        attached: tuple[Statement, ...] = (),
    ) -> Reply:
        """Put a reply together, with the roster in force for a sender whose own is older."""
        roster = self.registry.roster
        return Reply(
            statement=statement,
            receipt=None if receipt is None else dict(receipt.to_document()),
            consistency=consistency,
            roster=roster.statement if hints.roster_version < roster.body.version else None,
            attached=attached,
        )

    def rejection(self, submission: Submission | Unreadable, error: PermanentError, now: int) -> Statement:
        """Say, signed, why a message was not accepted; the same arguments always give the same bytes."""
        return rejection(
            error,
            roster=self.registry.roster,
            request=submission.id,
            received=submission.envelope,
            now=now,
            key=self.reply_key,
        )

    def quarantined(
        self, submission: Submission | Unreadable, error: PermanentError, hints: Hints, now: int
    ) -> Answer:
        """Reject a message whose sender was not verified, or that the database cannot be trusted to answer."""
        return Answer("quarantined", self.reply(hints, self.rejection(submission, error, now)), error)
