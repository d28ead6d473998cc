"""What officers ask and say: the docket, approvals, denials, revocations, invitations; hosts have a part in it."""

from collections.abc import Callable
from functools import partial

from strongroom import limits
from strongroom.audits import Coverage
from strongroom.errors import NotFound
from strongroom.messages import RequestState
from strongroom_agent import countersigning, coverage, docket, verdicts
from strongroom_agent.caller import ASK_SECONDS, Caller
from strongroom_agent.cases import Case, Consent
from strongroom_agent.countersigning import SentInvitation
from strongroom_agent.coverage import FleetCoverage
from strongroom_agent.docket import Scope, VerifiedDocket
from strongroom_agent.home import Role
from strongroom_agent.identity import check_officers_home
from strongroom_agent.invitation import IssuedInvitation
from strongroom_agent.patience import Deadline
from strongroom_agent.session import Session
from strongroom_agent.verdicts import Recorded


class OfficerCalls(Caller):
    """Which requests there are, and what is said to them; hosts read and forbid what is asked for of their own."""

    async def docket(
        self,
        *,
        pending: bool = True,
        request: str | None = None,
        principal: str | None = None,
        limit: int | None = None,
        wait_seconds: float = ASK_SECONDS,
    ) -> VerifiedDocket:
        """Read which requests there are, newest first, each of them verified here up to the root key.

        Arguments: `pending`, only those that wait; `request`, this id alone, whatever its state; `principal`, for
        whose records (by default everybody's for an officer, the owner's own for a host); with `limit`, no more
        pages are asked for once that many are there. Raises as `recover` does for what an answer can be.
        """
        own = None if self._home.config.role is Role.OFFICER else self._home.config.name
        scope = Scope(principal=principal or own, request=request, pending=pending and request is None)
        reading = docket.Reading(self._home, self._signing_key(), scope)
        found: list[VerifiedDocket] = []

        async def attempt(session: Session, deadline: Deadline) -> VerifiedDocket:
            async for page in reading.pages(session, deadline):
                found.append(page)
                if limit is not None and sum(len(each.cases) for each in found) >= limit:
                    break
            return VerifiedDocket.of(found)

        return await self._patiently(attempt, wait_seconds)

    async def case(self, request: str, *, wait_seconds: float = ASK_SECONDS) -> Case:
        """Return the request with this id, verified; raises NotFound, and as `docket`.

        One that does not wait any more is not shown as waiting by `status` from then on.
        """
        found = await self.docket(request=request, wait_seconds=wait_seconds)
        if not found.cases:
            raise NotFound(
                f"request {request}: is not on the docket", hint="`strongroom requests --all` lists those that are"
            )
        [case] = found.cases
        if case.state is not RequestState.PENDING:
            self._state.forget_pending(case.id)
        return case

    async def coverage(
        self,
        *,
        silent_days: int,
        take: Callable[[Coverage], None] = lambda _page: None,
        wait_seconds: float = ASK_SECONDS,
    ) -> FleetCoverage:
        """Read how well the whole fleet is covered; give each verified page to `take` as it comes, and add them up.

        Arguments: `silent_days`, after how many days without a sign of life a principal counts as silent. Raises
        OfficerUnknown for the home of a host; Rejected for an officer with neither role `audit` nor `recover`; and
        as `recover` does for what an answer can be.
        """
        self.check_is_officer()
        reading = coverage.Reading(self._home, self._signing_key(), silent_days=silent_days)

        async def attempt(session: Session, deadline: Deadline) -> FleetCoverage:
            async for page in reading.pages(session, deadline):
                take(page)
            return reading.result()

        return await self._patiently(attempt, wait_seconds)

    def check_is_officer(self) -> None:
        """Raise OfficerUnknown for the home of a host, before anything is asked."""
        check_officers_home(self._home)

    def check_approvable(self, case: Case) -> None:
        """Raise unless the owner of this home may approve this request now.

        OfficerUnknown without the role; ApprovalInvalid for a request that was not verified, does not wait, is the
        officer's own, or was approved by this officer already; Expired.
        """
        verdicts.check_approvable(case, self._home, self._roster())

    def standing_approval(self, case: Case) -> Consent | None:
        """Return the approval by the owner of this home that counts already; OfficerUnknown without the role."""
        return verdicts.standing_approval(case, self._home, self._roster())

    def check_revoker(self) -> None:
        """Raise OfficerUnknown unless the owner of this home has the role `revoke`, by the newest roster seen."""
        verdicts.check_revoker(self._home, self._trust().newest)

    async def approve(
        self,
        case: Case,
        *,
        reason: str = "",
        life_seconds: int = limits.APPROVAL_LIFE_SECONDS_MAX,
        wait_seconds: float = ASK_SECONDS,
    ) -> Recorded:
        """Agree to a request, as it was read from the docket, and return when that is on the record.

        The approval ends after `life_seconds` or with the request. It is sent again, the same, while no answer
        comes. Raises as `check_approvable`; Rejected; and as `recover` does for what an answer can be.
        """
        verdict = verdicts.approval(
            case,
            self._home,
            self._roster(),
            self._signing_key(),
            reason=reason,
            life_seconds=life_seconds,
            now=self._now,
        )
        return await self._patiently(verdict.deliver, wait_seconds)

    async def deny(self, case: Case, *, reason: str, wait_seconds: float = ASK_SECONDS) -> Recorded:
        """Forbid a request for good, as an officer or as the owner of the records; it need not be a verified one.

        It is not shown as waiting by `status` from then on. Raises OfficerUnknown, ApprovalInvalid when it does
        not wait or is for another host's records, Expired, UsageError without a reason; otherwise as `approve`.
        """
        verdict = verdicts.denial(
            case,
            self._home,
            self._roster(),
            self._signing_key(),
            reason=reason,
            now=self._now,
        )
        recorded = await self._patiently(verdict.deliver, wait_seconds)
        self._state.forget_pending(case.id)
        return recorded

    async def revoke(
        self, principal: str, *, key: str | None = None, reason: str, wait_seconds: float = ASK_SECONDS
    ) -> Recorded:
        """End a principal at once, or the one key of it with the id `key`, as an officer with the role `revoke`.

        Raises OfficerUnknown, UsageError without a reason; otherwise as `approve`.
        """
        verdict = verdicts.revocation(
            principal,
            self._home,
            self._trust().newest,
            self._signing_key(),
            key_id=key,
            reason=reason,
            now=self._now,
        )
        return await self._patiently(verdict.deliver, wait_seconds)

    async def send_invitation(
        self, issued: IssuedInvitation, *, wait_seconds: float = ASK_SECONDS
    ) -> SentInvitation:
        """Let the recovery worker keep an invitation with the signatures it has, for other officers to add theirs.

        It comes back in the `invitations` of their `docket`. Raises UsageError for one that an officer made the
        one-time key of, or that needs no other signature; otherwise as `approve`.
        """
        return await self._patiently(partial(countersigning.send, issued), wait_seconds)
