"""What the replay of a leaf of the recovery log needs: its statement, its signer, a place for findings. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from strongroom.crypto.signing import key_id
from strongroom.errors import Expired, PermanentError
from strongroom.fields import Body, Capacity, parse_body
from strongroom.leaves import Leaf, RequestLeaf, RosterLeaf
from strongroom.roster import Roster, check_authority, is_expired
from strongroom.statements import Statement, parse_envelope
from strongroom_audit.clocks import Clock
from strongroom_audit.findings import Finding, error, warning
from strongroom_audit.standings import Standings

B = TypeVar("B", bound=Body)


@dataclass(slots=True)
class Replay:
    """Who may say what at this place of the log.

    root_key: 32 bytes. now: the auditor's time. rosters: all that hold, in the order of the log. signatures: how
    many statements were verified.
    """

    root_key: bytes
    now: int
    findings: list[Finding] = field(default_factory=list)
    standings: Standings = field(default_factory=Standings)
    rosters: list[Roster] = field(default_factory=list)
    clock: Clock = field(default_factory=lambda: Clock("recovery"))
    signatures: int = 0
    _ids: dict[str, int] = field(default_factory=dict)
    _index: int = 0

    @property
    def roster(self) -> Roster | None:
        """The roster in force, as far as one holds."""
        return self.rosters[-1] if self.rosters else None

    def _wrong(self, code: str, words: str, *, id: str | None = None) -> None:  # noqa: A002
        self.findings.append(error("recovery", self._index, code, words, id=id))

    def _check_roster_time(self, entry: Leaf) -> None:
        roster = self.roster
        if isinstance(entry, RosterLeaf):
            return
        if roster is None:
            self._wrong("roster_missing", "no roster that holds was in force yet")
        elif is_expired(roster.body.expires_at, entry.time):
            words = (
                f"roster version {roster.body.version} had expired {entry.time - roster.body.expires_at} s before"
            )
            self.findings.append(warning("recovery", self._index, "roster_expired", words))

    def _statement(self, entry: Any, line: bytes) -> Statement | None:
        """Return the statement if it is the one that the leaf names."""
        id_ = getattr(entry, "id", None) or f"roster version {entry.version}"
        if line in (b"", b"null"):
            self._wrong("statement_missing", f"the statement of this leaf, {a(entry.type)}, is missing", id=id_)
            return None
        try:
            statement = parse_envelope(line)
        except PermanentError as failure:
            self._wrong("statement_malformed", f"the statement cannot be read: {failure.message}", id=id_)
            return None
        if statement.digest.hex() != entry.digest:
            self._wrong(
                "statement_wrong", "the statement is not the one that the leaf names: another digest", id=id_
            )
            return None
        return statement

    def _judged(self, entry: Any, code: str, judge: Callable[[], None]) -> bool:
        """Say whether what `judge` checks holds; what it raises becomes a finding."""
        try:
            judge()
        except PermanentError as failure:
            id_ = getattr(entry, "id", None)
            if isinstance(failure, Expired) and failure.message.startswith("issued_at"):
                words = f"{a(entry.type)} that was logged before it was signed: {failure.message}"
                self.findings.append(warning("recovery", self._index, "clock", words, id=id_))
            else:
                self._wrong(code, f"{a(entry.type)} that does not hold: {failure.message}", id=id_)
            return False
        self.signatures += 1
        return True

    def _once(self, entry: Any) -> None:
        """A statement of an id goes into the log once."""
        kind = "request" if isinstance(entry, RequestLeaf) else "mandate"
        known = self._ids.setdefault(f"{kind} {entry.id}", self._index)
        if known != self._index:
            self._wrong("statement_twice", f"leaf {known} names a statement of this id already", id=entry.id)

    def _compare(self, entry: Any, **said: object) -> None:
        """Find members of a leaf that are not what its statement says."""
        for name, value in said.items():
            if getattr(entry, name) != value:
                self._wrong("leaf_differs", f"the leaf's {name} is not what the statement says", id=entry.id)

    def _body(self, statement: Statement, model: type[B], roster: Roster) -> B:
        body = parse_body(statement, model)
        check_authority(body.authority, roster)
        return body

    def _check_signed(self, statement: Statement, who: tuple[Capacity, str], key: str, roster: Roster) -> None:
        """Check that a key in force, the one that the leaf names, signed. Raises PermanentError."""
        capacity, name = who
        if capacity is Capacity.OFFICER:
            officer = roster.officer(name)
            public_key: bytes | None = officer.public_key
            if key_id(officer.public_key) != key:
                raise PermanentError(f"the leaf names another key than that of officer {name}")
        else:
            speaking = self.standings.speaking(name, key)
            if speaking is None:
                raise PermanentError(f"key {key} did not speak for {name} then")
            public_key = speaking.public_key
        if public_key is None:
            raise PermanentError(f"the enrolment of {name} does not hold")
        statement.verify_signature(public_key, key)


def a(noun: str) -> str:
    """Return a noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
