"""Every error Strongroom raises on purpose, on one screen.

StrongroomError
├── PermanentError                the same input will fail again: quarantine it, tell the sender
│   ├── MalformedStatement        bytes that are not a statement of its type (names the field)
│   ├── LimitExceeded             a named limit of SPEC section 11 is exceeded
│   ├── SignatureInvalid          a signature is missing, unknown or wrong
│   ├── WrongAuthority            addressed to another authority
│   ├── Expired                   past its expiry, or dated in the future beyond the clock skew
│   ├── PrincipalUnknown          nobody is enrolled under this name
│   ├── PrincipalRevoked          the principal, or the key it signed with, was revoked or replaced
│   ├── RosterInvalid             a roster that the pinned root key does not vouch for, or a rolled-back one
│   ├── OfficerUnknown            not an officer of the roster, or without the role
│   ├── InvitationInvalid         used up, for another principal, or short of signatures
│   ├── StatementConflict         this id is taken by other bytes
│   ├── RecordConflict            this record id is taken, or belongs to somebody else
│   ├── KeyUnknown                no such sealing key, or it may not be sealed to
│   ├── BlobInvalid               a key blob does not open in its place
│   ├── FingerprintMismatch       a blob opens, and holds another key than was signed for
│   ├── ProofInvalid              an inclusion or consistency proof does not hold
│   ├── CheckpointInvalid         a checkpoint that the pinned log key did not sign, or misshapen
│   ├── ReplyInvalid              an answer that the authority did not sign, or for something else
│   ├── NotFound                  no such record, name or message
│   ├── Denied                    policy says no
│   ├── ApprovalRequired          policy asks for approvals that are not there yet
│   ├── ApprovalInvalid           an approval or denial that cannot count for this request
│   ├── RateLimited               this requester has asked for too much in too short a time
│   ├── KeyFileInvalid            a key file is damaged, readable by others, or the passphrase is wrong
│   ├── ConfigurationInvalid      a setting is missing or wrong (names it)
│   ├── Rejected                  the authority answered with a rejection (carries its code)
│   └── UsageError                the command line asks for something impossible
├── TransientError                may succeed later: back off, try again
│   ├── BrokerUnavailable         no broker, or it does not confirm
│   ├── Unroutable                the broker has no queue for this
│   ├── DatabaseUnavailable       no database, or it refuses for now
│   ├── KeyDeviceUnavailable      the device that holds the private keys does not answer
│   ├── NoAnswer                  nothing came back in time; nothing is known
│   ├── RosterExpired             a worker has no current roster to judge by
│   └── Busy                      a spool or a lock is held by somebody else
└── FatalError                    state is unknown or untrustworthy: stop, let the broker redeliver
    ├── CommitUnknown             the connection broke inside COMMIT
    ├── LogForked                 the log no longer continues what was signed before
    ├── SchemaMismatch            the database is not at the schema of this program
    └── StateCorrupt              own files or rows contradict each other
"""

from enum import IntEnum
from typing import ClassVar, Final

RESTORE_HINT: Final = "restore the database from a backup, and find out who changed it"
"""What to do about rows that contradict what was signed."""


class ExitCode(IntEnum):
    """Exit codes of the `strongroom` command (documented in README.md; 75 is EX_TEMPFAIL of sysexits.h)."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    DENIED = 4
    WAITING = 5
    NOT_PROVEN = 6
    TRY_LATER = 75


class StrongroomError(Exception):
    """Base of all errors; `code` is the stable name that goes over the wire and into logs and JSON output.

    The message is written for the person who has to act on it. It never holds key material.
    `hint` says what to do next and is shown on a line of its own.
    """

    code: ClassVar[str] = "failed"
    exit_code: ExitCode = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Keep the message and the optional hint."""
        super().__init__(message)
        self.message = message
        self.hint = hint


# ---- permanent: the input is at fault ----------------------------------------------------------


class PermanentError(StrongroomError):
    """The same input will fail again: quarantine it and tell the sender.

    `retry_at`, in seconds since 1970, says from when on it may succeed after all, where that is known.
    """

    code = "refused"

    def __init__(self, message: str, *, hint: str | None = None, retry_at: int | None = None) -> None:
        """Keep the message, the optional hint and the optional time."""
        super().__init__(message, hint=hint)
        self.retry_at = retry_at


class MalformedStatement(PermanentError):
    """Bytes that are not a statement of the type they claim; the message names the field."""

    code = "malformed"


class LimitExceeded(PermanentError):
    """A named limit is exceeded; the message names the field, the limit and its unit."""

    code = "limit_exceeded"


class SignatureInvalid(PermanentError):
    """A signature is missing, made by an unknown key, or does not verify."""

    code = "signature_invalid"


class WrongAuthority(PermanentError):
    """The statement is addressed to another authority."""

    code = "wrong_authority"


class Expired(PermanentError):
    """Past its expiry, or dated further into the future than the clock skew allows."""

    code = "expired"


class PrincipalUnknown(PermanentError):
    """Nobody is enrolled under this name."""

    code = "principal_unknown"


class PrincipalRevoked(PermanentError):
    """The principal was revoked, or the key that signed was replaced."""

    code = "principal_revoked"


class RosterInvalid(PermanentError):
    """A roster that the pinned root key does not vouch for, or one older than the newest seen."""

    code = "roster_invalid"


class OfficerUnknown(PermanentError):
    """Not an officer of the roster, or an officer without the role this needs."""

    code = "officer_unknown"
    exit_code = ExitCode.DENIED


class InvitationInvalid(PermanentError):
    """An invitation that is used up, for another principal, or short of officers' signatures."""

    code = "invitation_invalid"
    exit_code = ExitCode.DENIED


class StatementConflict(PermanentError):
    """This statement id is already taken by other bytes."""

    code = "statement_conflict"


class RecordConflict(PermanentError):
    """This record id is already taken."""

    code = "record_conflict"


class KeyUnknown(PermanentError):
    """No such sealing key, or one that may no longer be sealed to."""

    code = "key_unknown"


class BlobInvalid(PermanentError):
    """A key blob does not open in the place where it stands."""

    code = "blob_invalid"


class FingerprintMismatch(PermanentError):
    """A blob opens and holds another key than the one its owner signed for."""

    code = "fingerprint_mismatch"


class ProofInvalid(PermanentError):
    """An inclusion or consistency proof does not hold."""

    code = "proof_invalid"


class CheckpointInvalid(PermanentError):
    """A checkpoint that the pinned log key did not sign, or one that is misshapen."""

    code = "checkpoint_invalid"


class ReplyInvalid(PermanentError):
    """An answer that the authority did not sign, or that answers something else."""

    code = "reply_invalid"


class NotFound(PermanentError):
    """No such record, name or message."""

    code = "not_found"
    exit_code = ExitCode.NOT_FOUND


class Denied(PermanentError):
    """Policy says no."""

    code = "denied"
    exit_code = ExitCode.DENIED


class ApprovalRequired(PermanentError):
    """Policy asks for approvals that are not there yet."""

    code = "approval_required"
    exit_code = ExitCode.WAITING


class ApprovalInvalid(PermanentError):
    """An approval or a denial that cannot count: by the requester, a second one, or for no request that waits."""

    code = "approval_invalid"
    exit_code = ExitCode.DENIED


class RateLimited(PermanentError):
    """More than policy allows one requester in an hour or a day; `retry_at` says when to come back."""

    code = "rate_limited"
    exit_code = ExitCode.TRY_LATER


class KeyFileInvalid(PermanentError):
    """A key file is damaged, readable by others, or its passphrase is wrong."""

    code = "key_file_invalid"


class ConfigurationInvalid(PermanentError):
    """A setting is missing or wrong; the message names it."""

    code = "configuration_invalid"
    exit_code = ExitCode.USAGE


class Rejected(PermanentError):
    """The authority answered with a signed rejection; `remote_code` is the code it gave.

    The exit code is that of the error which the authority names.
    """

    code = "rejected"

    def __init__(
        self, message: str, *, remote_code: str, hint: str | None = None, retry_at: int | None = None
    ) -> None:
        """Keep the authority's own code beside its words."""
        super().__init__(message, hint=hint, retry_at=retry_at)
        self.remote_code = remote_code
        self.exit_code = by_code(remote_code).exit_code


class UsageError(PermanentError):
    """The command line asks for something impossible."""

    code = "usage"
    exit_code = ExitCode.USAGE


def by_code(code: str) -> type[PermanentError]:
    """Return the permanent error with this wire code; PermanentError itself for a code that none has."""
    return next((kind for kind in PermanentError.__subclasses__() if kind.code == code), PermanentError)


# ---- transient: the surroundings are at fault --------------------------------------------------


class TransientError(StrongroomError):
    """May succeed later: back off and try again."""

    code = "try_later"
    exit_code = ExitCode.TRY_LATER


class BrokerUnavailable(TransientError):
    """No broker could be reached, or it did not confirm in time."""

    code = "broker_unavailable"


class Unroutable(TransientError):
    """The broker has no queue for this routing key: its topology is not applied."""

    code = "unroutable"


class DatabaseUnavailable(TransientError):
    """The database cannot be reached, or refuses for now."""

    code = "database_unavailable"


class KeyDeviceUnavailable(TransientError):
    """The device that holds private keys does not answer, or refuses for now; nothing is said about any blob."""

    code = "key_device_unavailable"


class NoAnswer(TransientError):
    """Nothing came back in time; whether the request was carried out is not known."""

    code = "no_answer"


class RosterExpired(TransientError):
    """A worker has no current roster: no message may be judged, and none is lost by waiting."""

    code = "roster_expired"


class Busy(TransientError):
    """A spool or a lock is held by somebody else."""

    code = "busy"


# ---- fatal: nobody can say what is true --------------------------------------------------------


class FatalError(StrongroomError):
    """State is unknown or untrustworthy: stop the process and let the broker redeliver."""

    code = "fatal"


class CommitUnknown(FatalError):
    """The connection broke inside COMMIT: the batch may or may not be stored."""

    code = "commit_unknown"


class LogForked(FatalError):
    """The log no longer continues what was signed or seen before."""

    code = "log_forked"


class SchemaMismatch(FatalError):
    """The database is not at the schema that this program was written for."""

    code = "schema_mismatch"


class StateCorrupt(FatalError):
    """Own files or rows contradict each other."""

    code = "state_corrupt"
