"""A fleet of which an authority in memory gives the coverage, and pages that it should not have signed."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.agents import NOW

from strongroom.audits import Counts, Coverage, CoverageRequest, Gap, GapState, Proving
from strongroom.crypto.signing import SigningKey
from strongroom.fields import new_id, parse_body
from strongroom.replies import Reply
from strongroom.statements import Statement, parse_envelope
from strongroom.testing import FakeAuthority, FakeMessage

PROVING = Proving(size=12, backlog=2, oldest_at=NOW - 600)


def gap(principal: str, state: str = "stored", name: str | None = "disk", **changes: Any) -> Gap:
    """Return a gap; members as given."""
    members: dict[str, Any] = {"record": new_id(), "since": NOW - 60, "code": None}
    if state in {"missing", "silent"}:
        members["record"] = None
    return Gap(principal=principal, state=GapState(state), name=name, **(members | changes))


@dataclass
class Fleet:
    """Principals by name, each with its gaps, of which an authority gives `at_once` a page; each has a proven key.

    Put `answer` in the place of the authority's `alter`. asked: the questions that came. changes: members of every
    page that are to be others. key: who signs, by default the recovery worker.
    """

    authority: FakeAuthority
    gaps: dict[str, list[Gap]] = field(default_factory=dict)
    at_once: int = 20_000
    asked: list[CoverageRequest] = field(default_factory=list)
    changes: Callable[[Coverage], dict[str, Any]] = lambda _page: {}
    key: SigningKey | None = None

    def add(self, *gaps: Gap) -> None:
        """Let principals have these gaps."""
        for each in gaps:
            self.gaps.setdefault(each.principal, []).append(each)

    def answer(self, message: FakeMessage, reply: Reply) -> Reply:
        """Answer a coverage request, and let every other answer through."""
        statement = parse_envelope(message.body)
        if statement.type != CoverageRequest.TYPE:
            return reply
        asked = parse_body(statement, CoverageRequest)
        self.asked.append(asked)
        following = [name for name in sorted(self.gaps) if asked.after is None or name > asked.after]
        names = following[: self.at_once]
        page = self.page(asked, statement.digest, names, is_last=len(names) == len(following))
        page = page.model_copy(update=self.changes(page))
        key = self.key or self.authority.recovery_reply_key
        return Reply(statement=Statement.sign(Coverage.TYPE, page.to_bytes(), key), roster=reply.roster)

    def page(self, asked: CoverageRequest, digest: bytes, names: Sequence[str], *, is_last: bool) -> Coverage:
        """Return the page about these principals."""
        gaps = [each for name in names for each in self.gaps[name]]
        counts = Counter(dict.fromkeys(Counts.model_fields, 0))
        counts.update(each.state.value for each in gaps)
        counts.update(principals=len(names), proven=len(names))
        return Coverage(
            authority=self.authority.name,
            request=asked.id,
            request_digest=digest.hex(),
            roster_version=self.authority.roster.body.version,
            as_of=self.authority.now,
            proving=PROVING,
            counts=Counts(**counts),
            gaps=gaps,
            next=None if is_last else names[-1],
        )
