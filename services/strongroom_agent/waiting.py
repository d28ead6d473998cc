"""Requests that wait for approvals or for their time: what people are told of them, and going on asking."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from secrets import SystemRandom
from typing import Final, TypeVar

from strongroom.errors import (
    ApprovalRequired,
    CheckpointInvalid,
    Denied,
    Expired,
    KeyUnknown,
    ProofInvalid,
    RateLimited,
    Rejected,
)
from strongroom.messages import RequestState
from strongroom_agent.patience import seconds_left
from strongroom_agent.spool import Refusal

FIRST_PAUSE_SECONDS: Final = 5.0
PAUSE_SECONDS_MAX: Final = 60.0
OPEN: Final = frozenset(
    kind.code for kind in (ApprovalRequired, RateLimited, ProofInvalid, CheckpointInvalid, KeyUnknown)
)
"""Codes of refusals after which the same request may still lead to the keys: it waits, or the authority has to mend
something of its own."""

_JITTER: Final = 0.2
_COUNT: Final = re.compile(r"approvals: (?:policy|unwrapping) asks for (\d+), there are (\d+)(.*)", re.DOTALL)
_DELAY: Final = "delay: "
_RANDOM: Final = SystemRandom()

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, as people speak of it.

    digest: of the statement (hex), which officers see and sign over. recipient_key: kid of the one-time key that
    the answer is sealed to. is_kept: whether it is on disk until it is answered. was_kept: whether it was there
    before, and is only taken up again. unwrap: whether it asks for what is inside wrapped keys, which policy never
    lets pass without an officer. Times in seconds since 1970.
    """

    id: str
    digest: str
    recipient_key: str
    principal: str
    reason: str
    issued_at: int
    expires_at: int
    is_kept: bool
    was_kept: bool
    unwrap: bool


class Unreleased(Rejected):
    """The authority's signed word that it does not give the keys, not yet or not at all; `asked` is the request."""

    def __init__(self, refusal: Refusal, asked: Asked) -> None:
        """Say it for people, with what officers need to find the request."""
        message = f"request {asked.id}: the authority says: {refusal.message}"
        hint: str | None = None
        if refusal.code == ApprovalRequired.code:
            message += (
                f"; digest sha256:{asked.digest}, recipient key {asked.recipient_key},"
                f" expires {_time(asked.expires_at)}"
            )
            hint = (
                f"officers run `strongroom requests` and `strongroom approve {asked.id}`;"
                " then give the same command again, or give it now with --wait SECONDS"
            )
        if refusal.code in OPEN and refusal.retry_at is not None:
            message += f"; not before {_time(refusal.retry_at)}"
        if refusal.code == RateLimited.code:
            hint = "give the same command again then"
        super().__init__(message, remote_code=refusal.code, hint=hint, retry_at=refusal.retry_at)
        self.asked = asked
        self.words = refusal.message

    @property
    def is_waiting(self) -> bool:
        """Whether approvals or time are missing, and nothing else."""
        return self.remote_code == ApprovalRequired.code

    @property
    def is_approved(self) -> bool:
        """Whether only time has to pass, until `retry_at`."""
        count = _COUNT.fullmatch(self.words)
        enough = self.words.startswith(_DELAY) if count is None else int(count[2]) >= int(count[1])
        return self.is_waiting and self.retry_at is not None and enough

    @property
    def outlook(self) -> str:
        """What lets a request wait, e.g. `1 of 2 (bob)` approvals; the authority's words if of another form."""
        if self.is_approved and self.retry_at is not None:
            return f"approved; the key can be fetched from {_time(self.retry_at)} on"
        count = _COUNT.fullmatch(self.words)
        return f"{count[2]} of {count[1]}{count[3]}" if count else self.words

    @property
    def is_open(self) -> bool:
        """Whether the same request may still lead to the keys."""
        return self.remote_code in OPEN

    @property
    def state(self) -> RequestState:
        """What has become of the request."""
        outcomes = {Denied.code: RequestState.DENIED, Expired.code: RequestState.EXPIRED}
        return RequestState.PENDING if self.is_open else outcomes.get(self.remote_code, RequestState.REFUSED)


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


Watch = Callable[[Asked, Unreleased | None], None]
"""Is told of a request when it is ready to be sent, and again with every answer that lets it wait."""


async def pursue(
    attempt: Callable[[float], Awaitable[T]],
    *,
    wait_seconds: float,
    clock: Callable[[], float],
    watch: Watch,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    draw: Callable[[float, float], float] = _RANDOM.uniform,
) -> T:
    """Go on asking through answers that let the request wait, until it is answered or `wait_seconds` are over.

    `attempt` is given the seconds that are left. Between two attempts is a pause of 5 s that doubles up to 60 s, a
    fifth more or less, and at least until the moment that a rate limit names. The last answer is raised when a
    pause would take longer than what is left, and every error that is final at once.
    """
    deadline = asyncio.get_running_loop().time() + wait_seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await attempt(seconds_left(deadline))
        except Unreleased as error:
            if not error.is_open:
                raise
            watch(error.asked, error)
            seconds = draw(pause * (1 - _JITTER), pause * (1 + _JITTER))
            if error.remote_code == RateLimited.code and error.retry_at is not None:
                seconds = max(seconds, error.retry_at - clock())
            if seconds >= seconds_left(deadline):
                raise
        await sleep(seconds)
        pause = min(PAUSE_SECONDS_MAX, pause * 2)
