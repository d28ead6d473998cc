"""Transfer files: keys on their way from one authority to another, still sealed, with what proves them (SPEC 5.18).

A file is lines of JSON. The first says what it is: `{"format": "strongroom-transfer/v1", "authority", "principal",
"destination": {"authority", "principal"}, "releases", "records", "roster"}`, `roster` being the envelope of the
newest one that the exporter had, and the counts those of what follows. Each line behind it is one release:
`{"request", "release", "receipt"}`: two envelopes and the receipt of the release's leaf in the recovery log.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Final

from pydantic import Field

from strongroom import receipts
from strongroom.crypto.sealing import kid
from strongroom.crypto.signing import key_id
from strongroom.errors import (
    CheckpointInvalid,
    Denied,
    KeyUnknown,
    MalformedStatement,
    PermanentError,
    ProofInvalid,
    UsageError,
    WrongAuthority,
)
from strongroom.fields import Authority, Part, Principal, parse_body, validated
from strongroom.leaves import ReleaseLeaf, parse_leaf
from strongroom.limits import INTEGER_MAX
from strongroom.messages import Destination, Release, Request
from strongroom.roster import Roster, check_authority
from strongroom.statements import Statement, canonical_json, parse_json, statement_from_document

FORMAT: Final = "strongroom-transfer/v1"
LINE_BYTES_MAX: Final = 4_194_304  # a release, a receipt and a request or a roster, as a reply has them

_ELSEWHERE: Final = (
    "take it in on the host that it is for, or with its --home; or have officers `strongroom export` for this one"
)

_Count = Annotated[int, Field(ge=0, le=INTEGER_MAX)]


class Header(Part):
    """What the first line of a transfer file says, apart from its format and the roster."""

    authority: Authority
    principal: Principal
    destination: Destination
    releases: _Count
    records: _Count


@dataclass(frozen=True, slots=True)
class Moved:
    """One release of a transfer file, with the request that it answers; nothing is verified."""

    request: Request
    request_statement: Statement
    release: Release
    release_statement: Statement
    receipt: object

    @classmethod
    def of(cls, document: object) -> "Moved":
        """Read a line; raises MalformedStatement or LimitExceeded."""
        if not isinstance(document, dict) or document.keys() != {"request", "release", "receipt"}:
            raise MalformedStatement("transfer: a line must have exactly request, release and receipt")
        asked, given = (statement_from_document(document[each]) for each in ("request", "release"))
        return cls(parse_body(asked, Request), asked, parse_body(given, Release), given, document["receipt"])

    @staticmethod
    def line(request: Statement, release: Statement, receipt: Mapping[str, object]) -> bytes:
        """Write a line, with its line feed."""
        document = {"request": request.document(), "release": release.document(), "receipt": receipt}
        return canonical_json(document) + b"\n"

    def check_signed(self, source: Roster) -> None:
        """Verify that the source's recovery worker released this, and that its recovery log says so.

        Raises SignatureInvalid, WrongAuthority, ProofInvalid, CheckpointInvalid.
        """
        check_authority(self.release.authority, source)
        signer = source.body.replies.recovery
        self.release_statement.verify_signature(signer, key_id(signer))
        log = source.body.logs.recovery
        try:
            proven = receipts.verify(self.receipt, log.public_key, log.origin)
        except CheckpointInvalid:
            proven = self._by_former(source)
        leaf = parse_leaf(proven.leaf)
        named = (self.request.id, self.request_statement.digest.hex(), self.release_statement.digest.hex())
        if not isinstance(leaf, ReleaseLeaf) or (leaf.id, leaf.digest, leaf.release) != named:
            raise ProofInvalid("receipt: of something else than the release beside it")

    def _by_former(self, source: Roster) -> receipts.VerifiedReceipt:
        log = source.body.logs.recovery
        for key in log.former:
            try:
                return receipts.verify(self.receipt, key, log.origin)
            except CheckpointInvalid:
                continue
        raise CheckpointInvalid("receipt: no key of the source's recovery log signed its checkpoint")

    def check_for(self, destination: Destination, roster: Roster) -> None:
        """Check that this is a move of keys to a principal of this authority, sealed to a key that it takes.

        Raises MalformedStatement for a release that does not answer the request beside it or moves nothing,
        WrongAuthority, Denied for another principal, KeyUnknown.
        """
        request, release = self.request, self.release
        answered = (request.id, self.request_statement.digest.hex(), request.authority)
        if (release.request, release.request_digest, release.authority) != answered:
            raise MalformedStatement("transfer: a release that answers another request than the one beside it")
        if request.destination is None:
            raise MalformedStatement("transfer: a request that moves nothing")
        if request.destination.authority != destination.authority:
            raise WrongAuthority(
                f"transfer: is for {request.destination.authority}, not {destination.authority}", hint=_ELSEWHERE
            )
        if request.destination.principal != destination.principal:
            raise Denied(
                f"transfer: is for {request.destination.principal}, not {destination.principal}", hint=_ELSEWHERE
            )
        recipient = kid(request.recipient_suite, request.recipient_key)
        if roster.accepted_sealing_key(recipient).suite is not request.recipient_suite:
            raise KeyUnknown(f"transfer: sealing key {recipient} is of another suite")
        if sorted(each.id for each in release.records) != sorted(request.records or []):
            raise MalformedStatement("transfer: a release of other records than were asked for")
        for record in release.records:
            if record.moved_fingerprint is None or record.wrapping is not None:
                raise MalformedStatement(f"transfer: record {record.id}: was not sealed for another authority")
            if record.principal != request.principal:
                raise MalformedStatement(f"transfer: record {record.id}: is of somebody else")


class TransferFile:
    """A transfer file, read a line at a time and as often as need be."""

    def __init__(self, path: Path) -> None:
        """Read the first line; raises UsageError for a file that is none."""
        self._path = path
        try:
            with path.open("rb") as stream:
                self.header, self.roster = _first(_line(stream, self._path))
        except OSError as error:
            raise _unreadable(path, error) from None
        except PermanentError:
            raise UsageError(
                f"{path}: is no transfer file", hint="name one that `strongroom export` wrote"
            ) from None

    @staticmethod
    def first_line(header: Header, roster: Statement) -> bytes:
        """Write the first line, with its line feed."""
        document = {"format": FORMAT, "roster": roster.document(), **header.model_dump(mode="json")}
        return canonical_json(document) + b"\n"

    def moved(self) -> Iterator[Moved]:
        """Give every release; raises MalformedStatement at the end of a file that was cut short or lengthened.

        Raises UsageError for a file that is not there any more, or cannot be read.
        """
        releases = records = 0
        try:
            with self._path.open("rb") as stream:
                _line(stream, self._path)
                while (document := _line(stream, self._path)) is not None:
                    moved = Moved.of(document)
                    releases += 1
                    records += len(moved.release.records)
                    yield moved
        except OSError as error:
            raise _unreadable(self._path, error) from None
        if (releases, records) != (self.header.releases, self.header.records):
            raise MalformedStatement(
                f"transfer: has {releases} releases with {records} records,"
                f" its first line says {self.header.releases} with {self.header.records}"
            )


def _unreadable(path: Path, error: OSError) -> UsageError:
    hint = "it has to stay in its place, and readable here, until all is taken in; the same command goes on"
    return UsageError(f"{path}: {error.strerror or 'cannot be read'}", hint=hint)


def _first(document: object | None) -> tuple[Header, Statement]:
    if not isinstance(document, dict) or document.pop("format", None) != FORMAT:
        raise MalformedStatement("transfer: is another file")
    roster = statement_from_document(document.pop("roster", None))
    return validated(document, Header), roster


def _line(stream: BinaryIO, path: Path) -> dict[str, object] | None:
    """Return the object on the next line, None at the end; MalformedStatement."""
    data = stream.readline(LINE_BYTES_MAX + 1)
    if not data:
        return None
    if len(data) > LINE_BYTES_MAX or not data.endswith(b"\n"):
        raise MalformedStatement(f"transfer: a line of {path.name} is cut or too long")
    document = parse_json(data, what="transfer")
    if not isinstance(document, dict):
        raise MalformedStatement(f"transfer: a line of {path.name} is no object")
    return document
