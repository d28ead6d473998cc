"""Who spoke for whom and when, by the recovery log and the enrolments that hold (SPEC 2.8, 2.9). Pure."""

from collections import Counter
from dataclasses import dataclass, field

from strongroom_audit.escrow_audit import Key


@dataclass(slots=True)
class Standings:
    """Takes enrolments and revocations in the order of the log; times in seconds.

    uses: of an invitation, by id. revoked_at: the newest revocation of a principal or a key of it.
    """

    keys: dict[str, tuple[Key, ...]] = field(default_factory=dict)
    uses: Counter[str] = field(default_factory=Counter)
    revoked_at: dict[str, int] = field(default_factory=dict)
    _revoked: set[tuple[str, int]] = field(default_factory=set)  # principal, and which of its keys in order

    def enrol(self, principal: str, key_id: str, public_key: bytes | None, time: int, invitation: str) -> None:
        """From here on this key speaks for the principal, and no earlier one does; None for one not proven."""
        former = self.keys.get(principal, ())
        if former and former[-1].until is None:
            former = (*former[:-1], former[-1]._replace(until=time))
        self.keys[principal] = (*former, Key(key_id, public_key, time, None))
        self.uses[invitation] += 1

    def revoke(self, principal: str, key_id: str | None, time: int) -> None:
        """From here on nobody speaks for the principal, or nobody by this key."""
        ended: list[Key] = []
        for place, key in enumerate(self.keys.get(principal, ())):
            if key_id in (None, key.key_id):
                self._revoked.add((principal, place))
                ended.append(key._replace(until=time if key.until is None else min(key.until, time)))
            else:
                ended.append(key)
        self.keys[principal] = tuple(ended)
        self.revoked_at[principal] = max(time, self.revoked_at.get(principal, 0))

    def is_enrolled(self, principal: str) -> bool:
        """Say whether the name is taken, also after a revocation."""
        return bool(self.keys.get(principal))

    def has_had(self, principal: str, key_id: str) -> bool:
        """Say whether this key was ever enrolled for this principal."""
        return any(key.key_id == key_id for key in self.keys.get(principal, ()))

    def speaking(self, principal: str, key_id: str) -> Key | None:
        """Return the key if it speaks for the principal now."""
        known = self.keys.get(principal, ())
        if not known or known[-1].key_id != key_id or (principal, len(known) - 1) in self._revoked:
            return None
        return known[-1]
