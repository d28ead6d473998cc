"""Who speaks for whom, read from the recovery log and nothing else (SPEC 2.8). Pure."""

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from strongroom.errors import (
    Expired,
    LogForked,
    PermanentError,
    PrincipalRevoked,
    PrincipalUnknown,
    RosterExpired,
    SignatureInvalid,
    StateCorrupt,
)
from strongroom.leaves import EnrolmentLeaf, EscrowLeaf, RevocationLeaf, RosterLeaf, parse_leaf
from strongroom.limits import CLOCK_SKEW_SECONDS
from strongroom.roster import Roster, check_authority, judge_enrolment
from strongroom.statements import Statement

VERIFIED_ENROLMENTS_KEPT_MAX: Final = 100_000

# How the leaves of these types end, for they are written with sorted members.
_SILENT: Final = b"request release refusal approval denial invitation attestation reseal retirement".split()
_LEAVES_PASSED_OVER: Final = tuple(b',"type":"%b"}' % name for name in _SILENT)
# A proof leaf alone begins with a count; in a text of another leaf the quotation marks would be escaped.
_PROOF_BEGINS, _PROOF_GOES_ON = b'{"count":', b',"type":"proof",'


@dataclass(frozen=True, slots=True)
class Standing:
    """One enrolment of a principal as the log has it: statement digest, key id, roster of its time, leaf index.

    since: time of its leaf. until: of the leaf that replaced or revoked it, None while it is in force. is_revoked:
    whether that was a revocation. Times in seconds.
    """

    digest: bytes
    key_id: str
    roster_version: int
    index: int
    since: int
    until: int | None = None
    is_revoked: bool = False

    def spoke_at(self, time: int) -> bool:
        """Say whether it was in force at a time that another worker's clock gave, by the clock skew."""
        ended = self.until is not None and time > self.until + CLOCK_SKEW_SECONDS
        return not ended and time >= self.since - CLOCK_SKEW_SECONDS


@dataclass(slots=True)
class Registry:
    """Folds the leaves of the recovery log, in order, into the present standing of every principal.

    The leaves must be those under a verified checkpoint. Statements (rosters, enrolments) come from an
    untrusted store: each is matched with the digest in its leaf and verified up to `root_key` before use.
    `bootstrap` is the verified roster of the worker's own configuration, in force until the log names one.
    """

    root_key: bytes
    bootstrap: Roster
    size: int = 0
    logged_roster_version: int = 0
    _rosters: dict[int, Roster] = field(default_factory=dict)
    _roster_digests: dict[int, bytes] = field(default_factory=dict)
    _standings: dict[str, tuple[Standing, ...]] = field(default_factory=dict)
    _invitation_uses: Counter[str] = field(default_factory=Counter)
    _revoked_at: dict[str, int] = field(default_factory=dict)
    _names: list[str] = field(default_factory=list)  # of `_standings`, in order, as far as they were asked for
    # (principal, statement digest) → signing key of verified enrolments, the longest unused first
    _verified: dict[tuple[str, bytes], bytes] = field(default_factory=dict)

    # ---- folding the log ----

    def apply(self, leaf: bytes) -> None:
        """Take the next leaf of the log into account. Raises LogForked for one that makes no sense."""
        # A look at the last bytes saves parsing the many leaves that say nothing about standing. It errs
        # towards parsing only, and a leaf of a type that this program does not know is not passed over.
        is_proof = leaf.startswith(_PROOF_BEGINS) and _PROOF_GOES_ON in leaf
        if not is_proof and not leaf.endswith(_LEAVES_PASSED_OVER):
            self._take(leaf)
        self.size += 1

    def _take(self, leaf: bytes) -> None:
        try:
            entry = parse_leaf(leaf)
        except PermanentError as error:
            raise LogForked(f"recovery log: leaf {self.size}: {error.message}") from None
        if isinstance(entry, RosterLeaf):
            self._take_roster(entry)
        elif isinstance(entry, EnrolmentLeaf):
            self._take_enrolment(entry)
        elif isinstance(entry, RevocationLeaf):
            self._take_revocation(entry)
        elif isinstance(entry, EscrowLeaf):
            raise LogForked(f"recovery log: leaf {self.size}: is of the escrow log")

    def _take_roster(self, entry: RosterLeaf) -> None:
        if entry.version <= self.logged_roster_version:
            raise LogForked(f"recovery log: leaf {self.size} goes back to roster version {entry.version}")
        self.logged_roster_version = entry.version
        self._roster_digests[entry.version] = bytes.fromhex(entry.digest)

    def _take_enrolment(self, entry: EnrolmentLeaf) -> None:
        digest, version = bytes.fromhex(entry.digest), self.logged_roster_version
        standing = Standing(digest, entry.key, version, self.size, entry.time)
        former = self._standings.get(entry.principal, ())
        if former and former[-1].until is None:
            former = (*former[:-1], replace(former[-1], until=entry.time))
        self._standings[entry.principal] = (*former, standing)
        self._invitation_uses[entry.invitation] += 1

    def _take_revocation(self, entry: RevocationLeaf) -> None:
        # The leaf is enough: a false one, by a stolen log key, could only lock somebody out.
        standings = self._standings.get(entry.principal, ())
        self._standings[entry.principal] = tuple(
            replace(each, until=entry.time if each.until is None else min(each.until, entry.time), is_revoked=True)
            if entry.key in (None, each.key_id)
            else each
            for each in standings
        )
        self._revoked_at[entry.principal] = max(entry.time, self._revoked_at.get(entry.principal, 0))

    # ---- rosters ----

    def current_roster(self, now: int) -> Roster:
        """Return the roster in force. Raises RosterExpired unless it is current at time `now` (seconds)."""
        roster = self.roster
        try:
            roster.check_current(now)
        except Expired as error:
            raise RosterExpired(error.message, hint=error.hint) from None
        return roster

    @property
    def roster(self) -> Roster:
        """The roster in force: the newest that the log names, else the bootstrap roster.

        Raises StateCorrupt while a roster that the log names was not admitted.
        """
        if not self.logged_roster_version:
            return self.bootstrap
        return self._roster(self.logged_roster_version)

    def _roster(self, version: int) -> Roster:
        if version not in self._rosters:
            raise StateCorrupt(f"roster version {version} is in the recovery log but was not admitted")
        return self._rosters[version]

    def rosters_wanted(self) -> list[bytes]:
        """Return the digests of roster statements that the log names and `admit_roster` has not seen."""
        return [digest for version, digest in self._roster_digests.items() if version not in self._rosters]

    def admit_roster(self, statement: Statement) -> None:
        """Verify a roster that the log names, by the root key of its time.

        Raises the errors of `Roster.verified`, WrongAuthority, RosterInvalid for one that does not go on from the
        root keys of those before, or StateCorrupt if the log does not name it.
        """
        roster = Roster.verified(statement, self.bootstrap.root_keys[0])
        check_authority(roster.body.authority, self.bootstrap)
        for other in (self.bootstrap, *deque(self._rosters.values(), maxlen=1)):
            older, newer = sorted((other, roster), key=lambda each: each.body.version)
            newer.check_root_keys_follow(older)
        if self._roster_digests.get(roster.body.version) != roster.digest:
            raise StateCorrupt(f"roster version {roster.body.version} is not the one in the recovery log")
        self._rosters[roster.body.version] = roster

    # ---- principals ----

    def is_enrolled(self, principal: str) -> bool:
        """Say whether a key speaks for this principal, or did: the name is taken, also after a revocation."""
        return bool(self._standings.get(principal))

    def uses(self, invitation_id: str) -> int:
        """Return how many enrolments this invitation has led to."""
        return self._invitation_uses[invitation_id]

    def revoked_at(self, principal: str) -> int | None:
        """Return the latest time of a revocation of this principal or one of its keys, in seconds."""
        return self._revoked_at.get(principal)

    def has_had(self, principal: str, key_id: str) -> bool:
        """Say whether this key was ever enrolled for this principal."""
        return any(standing.key_id == key_id for standing in self._standings.get(principal, ()))

    def speaks(self, principal: str, key_id: str) -> bool:
        """Say whether this key speaks for this principal now."""
        standings = self._standings.get(principal, ())
        return bool(standings) and standings[-1].key_id == key_id and not standings[-1].is_revoked

    def speaking(self, after: str | None, count_max: int) -> list[tuple[str, int]]:
        """Return the next principals in order of name, after `after` or from the first, that a key speaks for.

        Each comes with the time of its newest enrolment, in seconds; no more than `count_max`.
        """
        if len(self._names) < len(self._standings):
            # A dictionary keeps the order in which names came first: what is new stands behind what was taken.
            self._names += islice(self._standings, len(self._names), None)
            self._names.sort()
        found: list[tuple[str, int]] = []
        place = 0 if after is None else bisect_right(self._names, after)
        while place < len(self._names) and len(found) < count_max:
            name = self._names[place]
            standings = self._standings[name]
            if standings and standings[-1].until is None:
                found.append((name, standings[-1].since))
            place += 1
        return found

    def standing(self, principal: str, key_id: str) -> Standing | None:
        """Return the newest enrolment of this key for this principal."""
        found = (each for each in reversed(self._standings.get(principal, ())) if each.key_id == key_id)
        return next(found, None)

    def roster_of(self, standing: Standing) -> Roster:
        """Return the roster that was in force when a standing was logged. Raises StateCorrupt as `roster`."""
        return self._roster(standing.roster_version) if standing.roster_version else self.bootstrap

    def enrolments_wanted(self, principals: Iterable[str], *, former: bool = False) -> dict[bytes, str]:
        """Return digest → principal of the enrolment statements to admit before signatures can be judged.

        With `former` also those of keys that were replaced since, for `verify_former`. What is verified
        already counts as used now, so that admitting the wanted ones does not push it out before its turn.
        """
        wanted: dict[bytes, str] = {}
        for name in principals:
            standings = self._standings.get(name, ())
            for standing in standings if former else standings[-1:]:
                signing_key = self._verified.pop((name, standing.digest), None)
                if signing_key is None:
                    wanted[standing.digest] = name
                else:
                    self._verified[name, standing.digest] = signing_key
        return wanted

    def admit_enrolment(self, principal: str, statement: Statement) -> None:
        """Verify an enrolment of a principal by the roster of its time and remember it.

        Raises StateCorrupt when it is none that the log names for this principal, or the errors of
        `judge_enrolment` when its chain does not hold.
        """
        standing = next((s for s in self._standings.get(principal, ()) if s.digest == statement.digest), None)
        if standing is None:
            raise StateCorrupt(f"enrolment of {principal}: is not a statement that the recovery log names")
        judged = judge_enrolment(statement, self.roster_of(standing))
        if judged.enrolment.principal != principal or judged.key_id != standing.key_id:
            raise StateCorrupt(f"enrolment of {principal}: contradicts its leaf in the recovery log")
        self._verified[principal, statement.digest] = judged.enrolment.signing_key
        if len(self._verified) > VERIFIED_ENROLMENTS_KEPT_MAX:
            self._verified.pop(next(iter(self._verified)))

    def verify(self, statement: Statement, principal: str) -> str:
        """Check that the key that speaks for `principal` now signed a statement; return the key's id.

        Raises PrincipalUnknown when nobody is enrolled under the name, PrincipalRevoked when a key that
        was replaced or revoked since signed it, SignatureInvalid for any other key or a wrong signature,
        StateCorrupt when the enrolment was not admitted first.
        """
        standings = self._known(principal)
        signers = {signature.key_id for signature in statement.signatures}
        signed = next((each for each in reversed(standings) if each.key_id in signers), None)
        if signed is not None and signed.is_revoked:
            raise PrincipalRevoked(
                f"principal: {principal} was revoked, or the key that signed for it",
                hint="the officers have to invite this host anew: `strongroom invite --replace`",
            )
        if signed is not None and signed is not standings[-1]:
            raise PrincipalRevoked(
                f"principal: the key that signed for {principal} was replaced",
                hint="enrol this host with a new invitation",
            )
        return self._verify_by(standings[-1], statement, principal)

    def verify_former(self, statement: Statement, principal: str, key_id: str, time: int) -> bool:
        """Check that a key that speaks for `principal`, now or earlier, signed a statement that a log names.

        Arguments: `key_id` and `time` (seconds) of the statement's leaf. Returns whether the key was in force then.
        Raises as `verify`, PrincipalRevoked excepted.
        """
        self._known(principal)
        standing = self.standing(principal, key_id)
        if standing is None:
            raise SignatureInvalid(f"signatures: key {key_id} never spoke for {principal}")
        self._verify_by(standing, statement, principal)
        return standing.spoke_at(time)

    def view(self, principals: Iterable[str]) -> "Registry":
        """Return what judges these principals' statements as this does now, and does not change with it.

        For a thread that verifies while the log is followed further.
        """
        standings = {name: self._standings[name] for name in principals if name in self._standings}
        digests = ((name, each.digest) for name, former in standings.items() for each in former)
        return Registry(
            self.root_key,
            self.bootstrap,
            logged_roster_version=self.logged_roster_version,
            _rosters=dict(self._rosters),
            _standings=standings,
            _verified={of: self._verified[of] for of in digests if of in self._verified},
        )

    def _known(self, principal: str) -> tuple[Standing, ...]:
        standings = self._standings.get(principal)
        if not standings:
            raise PrincipalUnknown(
                f"principal: nobody is enrolled as {principal}", hint="enrol with an officer's invitation"
            )
        return standings

    def _verify_by(self, standing: Standing, statement: Statement, principal: str) -> str:
        signing_key = self._verified.get((principal, standing.digest))
        if signing_key is None:
            raise StateCorrupt(f"enrolment of {principal}: was not admitted before use")
        statement.verify_signature(signing_key, standing.key_id)
        return standing.key_id
