"""`Agent.recover` where policy asks for approvals, a delay or patience: requests that wait and are kept."""

import stat
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.agents import MATERIAL, NOW, Clock, ForgingLink, key, linked, lost, once, rejected_by

from strongroom.crypto.key_file import read_sealing_key
from strongroom.crypto.secret import Secret
from strongroom.errors import (
    ExitCode,
    KeyFileInvalid,
    LimitExceeded,
    LogForked,
    NoAnswer,
    RateLimited,
    ReplyInvalid,
    UsageError,
)
from strongroom.fields import Capacity, parse_body
from strongroom.leaves import ReleaseLeaf, parse_leaf
from strongroom.limits import APPROVED_REQUEST_LIFE_SECONDS_MAX, REQUEST_LIFE_SECONDS_MAX
from strongroom.mandates import Policy
from strongroom.messages import Request, RequestState
from strongroom.replies import Reply
from strongroom.statements import parse_envelope
from strongroom.testing import FakeAuthority, FakeLog, FakeMessage
from strongroom_agent import waiting as waiting_module
from strongroom_agent.agent import Agent, Asked, Recovery, Unreleased
from strongroom_agent.home import Home
from strongroom_agent.identity import attach, create_officer_home
from strongroom_agent.spool import Refusal
from strongroom_agent.waiting import pursue

WANTED = {"name": "disk", "principal": "laptop-0417", "reason": "left the company"}

Ask = Callable[..., Awaitable[Recovery]]


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """One question follows the other at once."""
    monkeypatch.setattr(waiting_module, "FIRST_PAUSE_SECONDS", 0.0)


@pytest.fixture
def alice(officer_home: Callable[[str], Home], agent: Agent) -> Home:  # noqa: ARG001
    """An officer's home; the host of `agent` is enrolled before."""
    return officer_home("alice")


@pytest.fixture
def officer(alice: Home, authority: FakeAuthority, clock: Clock) -> Iterator[Agent]:
    with Agent.open(alice.path, connector=authority.connect, clock=clock) as opened:
        yield opened


async def waiting(asker: Agent, **asked: Any) -> Unreleased:
    """Ask and return the answer that there is to wait."""
    with pytest.raises(Unreleased) as caught:
        await asker.recover(**(asked or WANTED))
    assert caught.value.remote_code == "approval_required"
    return caught.value


def sent(authority: FakeAuthority) -> list[Request]:
    """Return the distinct requests that reached the authority, in order."""
    asked = [m.body for m in authority.received if parse_envelope(m.body).type == Request.TYPE]
    return [parse_body(parse_envelope(body), Request) for body in dict.fromkeys(asked)]


def files(home: Home) -> dict[str, int]:
    """Return the names in the folder of kept requests, with their modes."""
    folder = home.path / "requests"
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} if folder.exists() else {}


# ---- a request that waits ----


async def test_an_officers_request_waits_and_says_all_that_officers_need(
    agent: Agent, officer: Agent, authority: FakeAuthority
) -> None:
    """Id, digest, recipient key, approvals so far, expiry, and what to do next; exit code 5."""
    await agent.escrow([key()])
    error = await waiting(officer)
    [request] = sent(authority)
    case = authority.workers.docket.cases[request.id]
    assert error.exit_code is ExitCode.WAITING
    assert error.state is RequestState.PENDING
    assert error.asked == Asked(
        id=request.id,
        digest=case.statement.digest.hex(),
        recipient_key=error.asked.recipient_key,
        principal="laptop-0417",
        reason="left the company",
        issued_at=NOW,
        expires_at=NOW + APPROVED_REQUEST_LIFE_SECONDS_MAX,
        is_kept=True,
        was_kept=False,
        unwrap=False,
    )
    for needed in (
        request.id,
        f"sha256:{error.asked.digest}",
        error.asked.recipient_key,
        "asks for 2, there are 0",
        "2027-01-22 08:00:00Z",
    ):
        assert needed in error.message
    assert error.hint is not None
    assert f"strongroom approve {request.id}" in error.hint


async def test_the_same_call_takes_up_the_kept_request_and_brings_the_key_once_it_is_approved(
    agent: Agent, officer: Agent, authority: FakeAuthority, alice: Home, clock: Clock
) -> None:
    """Across restarts: another process, days later, with the key that was kept."""
    await agent.escrow([key()])
    error = await waiting(officer)
    clock.seconds += 3 * 86_400
    authority.approve(error.asked.id, "officer-1")
    with Agent.open(alice.path, connector=authority.connect, clock=clock) as again:
        assert "there are 1" in (await waiting(again)).message
        authority.approve(error.asked.id, "officer-2")
        found = await again.recover(**WANTED)  # type: ignore[arg-type]
    assert found.keys[0].material.expose() == MATERIAL
    assert found.request_id == error.asked.id
    assert found.digest == error.asked.digest
    assert [request.id for request in sent(authority)] == [error.asked.id]
    leaf = parse_leaf(authority.recovery_log.leaves[found.log_index])
    assert isinstance(leaf, ReleaseLeaf)
    assert len(leaf.approvals) == 2


async def test_request_and_key_are_on_disk_before_the_request_is_sent(
    agent: Agent, officer: Agent, authority: FakeAuthority, alice: Home
) -> None:
    """Only for their owner; the file is what is sent, the key is the one it names."""
    await agent.escrow([key()])
    seen: list[dict[str, int]] = []

    def alter(message: FakeMessage, reply: Reply) -> Reply:
        seen.append(files(alice))
        request = parse_body(parse_envelope(message.body), Request)
        assert (alice.path / "requests" / f"{request.id}.json").read_bytes() == message.body
        kept = read_sealing_key(alice.path / "requests" / f"{request.id}.key", None)
        assert kept.public_key == request.recipient_key
        return reply

    authority.alter = alter
    error = await waiting(officer)
    assert seen == [{f"{error.asked.id}.json": 0o600, f"{error.asked.id}.key": 0o600}]
    assert stat.S_IMODE((alice.path / "requests").stat().st_mode) == 0o700


async def test_a_kept_key_is_under_the_passphrase_of_its_home(
    agent: Agent, authority: FakeAuthority, tmp_path: Path, clock: Clock
) -> None:
    """Neither without it nor by signing anew in silence does the command go on."""
    await agent.escrow([key()])
    passphrase = Secret(b"correct horse")
    home = create_officer_home(tmp_path / "bob", "bob", passphrase=passphrase)
    authority.name_officer("bob", home.config.public_key)
    home = attach(
        home,
        root_key=authority.root.public_key,
        roster=authority.roster.statement.envelope(),
        broker_url="amqp://broker.example",
        broker_ca=None,
        now=NOW,
    )
    with Agent.open(home.path, passphrase=passphrase, connector=authority.connect, clock=clock) as bob:
        error = await waiting(bob)
        path = home.path / "requests" / f"{error.asked.id}.key"
        with pytest.raises(KeyFileInvalid, match="passphrase"):
            read_sealing_key(path, None)
        authority.approve(error.asked.id, "officer-1", "officer-2")
        assert (await bob.recover(**WANTED)).keys[0].material.expose() == MATERIAL  # type: ignore[arg-type]


async def test_a_kept_request_stays_until_the_caller_has_put_the_key_where_it_belongs(
    agent: Agent, officer: Agent, authority: FakeAuthority, alice: Home
) -> None:
    """A crash after the release loses nothing: the same call brings the same release."""
    await agent.escrow([key()])
    error = await waiting(officer)
    authority.approve(error.asked.id, "officer-1", "officer-2")
    one = await officer.recover(**WANTED)  # type: ignore[arg-type]
    size = authority.recovery_log.size
    other = await officer.recover(**WANTED)  # type: ignore[arg-type]
    assert (one, authority.recovery_log.size) == (other, size)
    assert len(files(alice)) == 2
    other.settle()
    other.settle()
    assert files(alice) == {}
    assert (await waiting(officer)).asked.id != error.asked.id


async def test_a_request_that_never_arrived_is_the_one_that_is_sent_again(
    agent: Agent, officer: Agent, authority: FakeAuthority, alice: Home
) -> None:
    """Without broker, it is kept all the same."""
    await agent.escrow([key()])
    authority.broker_down = True
    with pytest.raises(Exception, match=r"broker\.example"):
        await officer.recover(**WANTED, wait_seconds=0.01)  # type: ignore[arg-type]
    [name, _] = sorted(files(alice))
    authority.broker_down = False
    assert f"{(await waiting(officer)).asked.id}.json" == name


async def test_another_selection_is_another_request(agent: Agent, officer: Agent) -> None:
    """Name, records in any order, and principal decide; the reason does not."""
    ids = [(await agent.escrow([key(name=name)])).records[0].facts.id for name in ("disk", "other")]
    first = (await waiting(officer)).asked
    others = [
        (await waiting(officer, **{**WANTED, "name": "other"})).asked,
        (await waiting(officer, principal="laptop-0417", records=ids, reason="why")).asked,
        (await waiting(officer, principal="laptop-0417", records=ids[:1], reason="why")).asked,
    ]
    assert len({each.id for each in (first, *others)}) == 4
    again = (await waiting(officer, principal="laptop-0417", records=ids[::-1], reason="another")).asked
    assert (again.id, again.was_kept, again.reason) == (others[1].id, True, "why")


async def test_a_new_request_takes_the_place_of_the_kept_one(
    agent: Agent, officer: Agent, alice: Home, authority: FakeAuthority
) -> None:
    """When it is asked for; requests for other keys stay."""
    await agent.escrow([key(), key(name="other")])
    old = (await waiting(officer)).asked
    other = (await waiting(officer, **{**WANTED, "name": "other"})).asked
    new = (await waiting(officer, **WANTED, anew=True)).asked
    assert new.id not in (old.id, other.id)
    assert {name.partition(".")[0] for name in files(alice)} == {new.id, other.id}
    assert (await waiting(officer)).asked.id == new.id
    assert len(sent(authority)) == 3


async def test_the_watcher_hears_of_the_request_and_of_every_answer(agent: Agent, officer: Agent) -> None:
    """First that it is ready, then that it waits; taken up again, it says so."""
    await agent.escrow([key()])
    heard: list[tuple[Asked, Unreleased | None]] = []
    with pytest.raises(Unreleased):
        await officer.recover(**WANTED, watch=lambda asked, answer: heard.append((asked, answer)))  # type: ignore[arg-type]
    with pytest.raises(Unreleased):
        await officer.recover(**WANTED, watch=lambda asked, answer: heard.append((asked, answer)))  # type: ignore[arg-type]
    assert [(asked.was_kept, answer) for asked, answer in heard] == [(False, None), (True, None)]


@pytest.mark.parametrize("reason", ["", "  "])
async def test_an_officer_gives_a_reason_before_anything_is_made(
    officer: Agent, authority: FakeAuthority, alice: Home, reason: str
) -> None:
    """Nothing is sent, nothing is kept."""
    with pytest.raises(UsageError, match="reason"):
        await officer.recover(name="disk", principal="laptop-0417", reason=reason)
    assert sent(authority) == []
    assert files(alice) == {}


async def test_a_host_waits_too_where_policy_asks_approvals_of_it(agent: Agent, authority: FakeAuthority) -> None:
    """Self-recovery under a policy that asks for one officer; the host has heard of that policy by a sync."""
    await agent.escrow([key()])
    authority.renew_roster(policy=Policy(self_recovery_approvals=1))
    await agent.sync()
    error = await waiting(agent, name="disk")
    assert error.asked.is_kept
    authority.approve(error.asked.id, "officer-3")
    found = await agent.recover(name="disk")
    assert found.keys[0].material.expose() == MATERIAL


async def test_a_delay_lets_an_approved_request_wait(
    agent: Agent, authority: FakeAuthority, officer: Agent, clock: Clock
) -> None:
    """And the answer says until when."""
    await agent.escrow([key()])
    authority.renew_roster(policy=Policy(officer_recovery_delay_hours=2))
    error = await waiting(officer)
    assert error.retry_at == NOW + 7_200
    assert "not before 2027-01-15 10:00:00Z" in error.message
    authority.approve(error.asked.id, "officer-1", "officer-2")
    await waiting(officer)
    clock.seconds += 7_200
    assert (await officer.recover(**WANTED)).keys  # type: ignore[arg-type]


async def test_a_request_too_short_for_a_newer_roster_is_signed_anew(
    agent: Agent, authority: FakeAuthority
) -> None:
    """The roster came with the answer; the short request is let go."""
    await agent.escrow([key()])
    authority.renew_roster(policy=Policy(self_recovery_approvals=1))
    error = await waiting(agent, name="disk")
    short, long = sent(authority)
    assert (short.expires_at, long.expires_at) == (
        NOW + REQUEST_LIFE_SECONDS_MAX,
        NOW + APPROVED_REQUEST_LIFE_SECONDS_MAX,
    )
    assert (error.asked.id, error.asked.is_kept) == (long.id, True)
    assert set(files(agent._home)) == {f"{long.id}.json", f"{long.id}.key"}


async def test_a_request_too_long_for_a_newer_roster_is_signed_anew(agent: Agent, authority: FakeAuthority) -> None:
    """It never arrived while it would have waited; now nobody has to approve anything."""
    await agent.escrow([key()])
    authority.renew_roster(policy=Policy(self_recovery_approvals=1))
    await agent.sync()
    authority.broker_down = True
    with pytest.raises(Exception, match=r"broker\.example"):
        await agent.recover(name="disk", wait_seconds=0.01)
    authority.broker_down = False
    authority.renew_roster(policy=Policy())
    found = await agent.recover(name="disk")
    assert found.keys[0].material.expose() == MATERIAL
    assert files(agent._home) == {}


async def test_a_short_request_is_not_kept(agent: Agent) -> None:
    """Where nothing is waited for, nothing is left behind."""
    await agent.escrow([key()])
    found = await agent.recover(name="disk")
    assert files(agent._home) == {}
    found.settle()


async def test_a_copy_of_a_request_does_not_wait_for_days_in_a_queue(
    agent: Agent, officer: Agent, authority: FakeAuthority
) -> None:
    """It is sent again as long as it lives."""
    await agent.escrow([key()])
    await waiting(officer)
    assert authority.received[-1].expiration_seconds == REQUEST_LIFE_SECONDS_MAX


# ---- requests that are over ----


async def test_a_denied_request_is_over(
    agent: Agent, officer: Agent, authority: FakeAuthority, alice: Home
) -> None:
    """Exit code 4; nothing of it stays, and the next call signs a new one."""
    await agent.escrow([key()])
    error = await waiting(officer)
    authority.deny(error.asked.id, "officer-1")
    with pytest.raises(Unreleased) as caught:
        await officer.recover(**WANTED)  # type: ignore[arg-type]
    assert (caught.value.state, caught.value.exit_code) == (RequestState.DENIED, ExitCode.DENIED)
    assert error.asked.id in caught.value.message
    assert files(alice) == {}
    assert (await waiting(officer)).asked.id != error.asked.id


async def test_a_request_refused_for_good_is_over(officer: Agent, alice: Home, authority: FakeAuthority) -> None:
    """Here because there is no such key."""
    with pytest.raises(Unreleased) as caught:
        await officer.recover(**WANTED)  # type: ignore[arg-type]
    assert (caught.value.remote_code, caught.value.exit_code) == ("not_found", ExitCode.NOT_FOUND)
    assert caught.value.state is RequestState.REFUSED
    assert files(alice) == {}
    assert len(sent(authority)) == 1


async def test_an_expired_request_is_swept_and_a_new_one_signed(
    agent: Agent, officer: Agent, alice: Home, clock: Clock
) -> None:
    """One second after its life."""
    await agent.escrow([key()])
    old = (await waiting(officer)).asked
    clock.seconds = old.expires_at
    assert (await waiting(officer)).asked.id == old.id
    clock.seconds += 1
    new = (await waiting(officer)).asked
    assert new.id != old.id
    assert {name.partition(".")[0] for name in files(alice)} == {new.id}


async def test_a_request_that_comes_too_soon_is_to_be_tried_later(
    agent: Agent, authority: FakeAuthority, officer: Agent, alice: Home, clock: Clock
) -> None:
    """Exit code 75 with the time of the next chance; the request is kept and goes out again then."""
    await agent.escrow([key(), key(name="other")])
    authority.renew_roster(policy=Policy(requests_per_hour=1))
    await waiting(officer)
    clock.seconds += 60
    other = {**WANTED, "name": "other"}
    with pytest.raises(Unreleased) as caught:
        await officer.recover(**other)  # type: ignore[arg-type]
    error = caught.value
    assert (error.remote_code, error.exit_code) == ("rate_limited", ExitCode.TRY_LATER)
    assert (error.retry_at, error.state) == (NOW + 3_600, RequestState.PENDING)
    assert "not before 2027-01-15 09:00:00Z" in error.message
    assert f"{error.asked.id}.json" in files(alice)
    clock.seconds = NOW + 3_600
    assert (await waiting(officer, **other)).asked.id == error.asked.id


# ---- following ----


async def test_following_brings_the_key_through_approvals(
    agent: Agent, officer: Agent, authority: FakeAuthority
) -> None:
    """Each answer that lets it wait is told; here an officer approves after each."""
    await agent.escrow([key()])
    officers = iter(["officer-1", "officer-2"])
    told: list[str] = []

    def watch(asked: Asked, answer: Unreleased | None) -> None:
        if answer is not None:
            told.append(answer.words)
            authority.approve(asked.id, next(officers))

    found = await officer.recover(**WANTED, follow=True, watch=watch)  # type: ignore[arg-type]
    assert found.keys[0].material.expose() == MATERIAL
    assert told == [f"approvals: policy asks for 2, there are {given}" for given in (0, 1)]


async def test_following_ends_with_a_denial(agent: Agent, officer: Agent, authority: FakeAuthority) -> None:
    """At once."""
    await agent.escrow([key()])

    def watch(asked: Asked, answer: Unreleased | None) -> None:
        if answer is not None:
            authority.deny(asked.id, "officer-1")

    with pytest.raises(Unreleased) as caught:
        await officer.recover(**WANTED, follow=True, watch=watch)  # type: ignore[arg-type]
    assert caught.value.remote_code == "denied"


async def test_following_ends_with_the_expiry(
    agent: Agent, officer: Agent, authority: FakeAuthority, clock: Clock, alice: Home
) -> None:
    """The authority says so."""
    await agent.escrow([key()])

    def watch(asked: Asked, answer: Unreleased | None) -> None:
        if answer is not None:
            clock.seconds = asked.expires_at + 61

    with pytest.raises(Unreleased) as caught:
        await officer.recover(**WANTED, follow=True, watch=watch)  # type: ignore[arg-type]
    assert (caught.value.remote_code, caught.value.state) == ("expired", RequestState.EXPIRED)
    assert files(alice) == {}
    assert len(sent(authority)) == 1


class Pursued:
    """An attempt that goes on being answered with `answers`, and remembers how long the pauses were."""

    def __init__(self, *answers: BaseException) -> None:
        self._answers = iter(answers)
        self.pauses: list[float] = []

    async def attempt(self, _seconds: float) -> Recovery:
        """Raise the next answer."""
        raise next(self._answers)

    async def sleep(self, seconds: float) -> None:
        """Remember the pause."""
        self.pauses.append(seconds)

    async def run(self, wait_seconds: float, draw: Callable[[float, float], float]) -> Unreleased:
        """Pursue, from second NOW on, and return what ends it."""
        with pytest.raises(Unreleased) as caught:
            await pursue(
                self.attempt,
                wait_seconds=wait_seconds,
                clock=lambda: NOW,
                watch=lambda _asked, _answer: None,
                sleep=self.sleep,
                draw=draw,
            )
        return caught.value


def let_wait(code: str = "approval_required", retry_at: int | None = None) -> Unreleased:
    asked = Asked(
        "id",
        "0" * 64,
        "0" * 32,
        "laptop-0417",
        "why",
        NOW,
        NOW + 9,
        is_kept=True,
        was_kept=False,
        unwrap=False,
    )
    return Unreleased(Refusal(code, "words", b"", retry_at), asked)


async def test_pauses_double_from_five_seconds_to_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fifth more or less, so that officers' commands do not come in step."""
    monkeypatch.setattr(waiting_module, "FIRST_PAUSE_SECONDS", 5.0)
    for draw, factor in ((min, 0.8), (max, 1.2)):
        pursued = Pursued(*[let_wait() for _ in range(6)], let_wait("denied"))
        await pursued.run(10_000, draw)
        assert pursued.pauses == pytest.approx([factor * pause for pause in (5, 10, 20, 40, 60, 60)])


async def test_the_last_answer_is_raised_when_a_pause_would_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for in vain."""
    monkeypatch.setattr(waiting_module, "FIRST_PAUSE_SECONDS", 5.0)
    last = let_wait()
    pursued = Pursued(last)
    assert await pursued.run(5.5, max) is last
    assert pursued.pauses == []


async def test_a_rate_limit_is_waited_out_where_there_is_time() -> None:
    """Until the moment that it names."""
    pursued = Pursued(let_wait(RateLimited.code, NOW + 900), let_wait(RateLimited.code, NOW + 90_000))
    await pursued.run(10_000, max)
    assert pursued.pauses == [900]


# ---- answers that are not to be believed ----


async def refused(asker: Agent, error: type[Exception], **asked: Any) -> None:
    with pytest.raises(error) as caught:
        await asker.recover(**(asked or WANTED))
    assert type(caught.value) is error


async def test_waiting_without_a_receipt_is_not_believed(
    agent: Agent, officer: Agent, authority: FakeAuthority, alice: Home
) -> None:
    """Who waits is on record, or is kept waiting by somebody else; the request stays."""
    await agent.escrow([key()])
    authority.alter = lambda _message, reply: replace(reply, receipt=None, consistency=None)
    await refused(officer, ReplyInvalid)
    assert len(files(alice)) == 2


@pytest.mark.parametrize("member", ["id", "digest", "requester", "requester_kind", "key", "principal"])
async def test_a_request_leaf_that_differs_in_one_member_is_refused(
    agent: Agent, officer: Agent, authority: FakeAuthority, alice: Home, member: str
) -> None:
    """What is on record must be exactly what was asked."""
    await agent.escrow([key()])
    other = {
        "id": "01a2050e-1a43-74ad-a430-3b0ef9071f2e",
        "digest": "0" * 64,
        "requester": "mallory",
        "requester_kind": Capacity.PRINCIPAL,
        "key": "0" * 32,
        "principal": "laptop-0418",
    }[member]
    await answered_by_leaf(officer, authority, {member: other})
    assert len(files(alice)) == 2


async def answered_by_leaf(officer: Agent, authority: FakeAuthority, changes: dict[str, Any]) -> None:
    def alter(message: FakeMessage, reply: Reply) -> Reply:
        log = authority.recovery_log
        index = log.append(parse_leaf(log.leaves[-1]).model_copy(update=changes).to_bytes())
        held = int(message.headers["x-strongroom-tree-size"])
        return replace(reply, receipt=dict(log.receipt(index)), consistency=log.consistency(held))

    authority.alter = alter
    await refused(officer, ReplyInvalid)


@pytest.mark.parametrize(
    "changes", [{"code": "denied"}, {"digest": "0" * 64}, {"id": "01a2050e-1a43-74ad-a430-3b0ef9071f2e"}]
)
async def test_a_refusal_leaf_that_says_something_else_is_refused(
    officer: Agent, authority: FakeAuthority, changes: dict[str, str], alice: Home
) -> None:
    """The refusal is signed; the log has another one. The request stays."""
    await answered_by_leaf(officer, authority, changes)
    assert len(files(alice)) == 2


async def test_a_denial_of_another_request_is_refused(
    agent: Agent, officer: Agent, authority: FakeAuthority, alice: Home
) -> None:
    """Even under a signed refusal of this one."""
    await agent.escrow([key()])
    error = await waiting(officer)
    authority.deny(error.asked.id, "officer-1")
    await answered_by_leaf(officer, authority, {"request": "01a2050e-1a43-74ad-a430-3b0ef9071f2e"})
    assert len(files(alice)) == 2


async def test_a_leaf_that_does_not_fit_the_refusal_is_refused(
    agent: Agent, officer: Agent, authority: FakeAuthority
) -> None:
    """A request on record is no denial, and a release no reason to wait."""
    await agent.escrow([key()])
    await waiting(officer)

    def alter(message: FakeMessage, reply: Reply) -> Reply | None:
        told = rejected_by(authority.recovery_reply_key, roster_version=2)(message, reply)
        assert isinstance(told, Reply)
        return replace(reply, statement=told.statement)

    authority.alter = alter
    await refused(officer, ReplyInvalid)


async def test_a_waiting_receipt_of_a_rewritten_log_is_a_fork(
    agent: Agent, officer: Agent, authority: FakeAuthority
) -> None:
    """The evidence is kept, as for a release."""
    await agent.escrow([key()])
    await waiting(officer)
    log = FakeLog(authority.recovery_log.origin)
    log.key = authority.recovery_log.key

    def alter(_message: FakeMessage, reply: Reply) -> Reply:
        index = log.append(authority.recovery_log.leaves[-1])
        return replace(reply, receipt=dict(log.receipt(index)), consistency=None)

    authority.alter = alter
    await refused(officer, LogForked)
    assert [each.log for each in officer._state.evidence()] == ["recovery"]


async def test_a_verified_wait_moves_the_checkpoint_on(
    agent: Agent, officer: Agent, authority: FakeAuthority
) -> None:
    """The next answer has to continue it."""
    await agent.escrow([key()])
    await waiting(officer)
    held = officer._state.checkpoint("recovery")
    assert held is not None
    assert held.size == authority.recovery_log.size


async def test_a_refusal_of_a_request_whose_signatures_were_taken_off_does_not_count(
    agent: Agent, officer: Agent, authority: FakeAuthority, alice: Home
) -> None:
    """It is genuine, and of another message; the request stays and is sent again."""
    await agent.escrow([key()])

    officer._connector = linked(authority.connect, ForgingLink)
    await refused(officer, ReplyInvalid)
    assert authority.workers.docket.cases == {}
    assert len(files(alice)) == 2
    officer._connector = authority.connect
    await waiting(officer)
    assert len({request.id for request in sent(authority)}) == 1


async def test_a_release_by_a_roster_that_did_not_come_with_it_is_refused(
    agent: Agent, authority: FakeAuthority
) -> None:
    """Somebody withholds the newer one."""
    await agent.escrow([key()])
    authority.renew_roster()
    authority.alter = lambda _message, reply: replace(reply, roster=None)
    with pytest.raises(ReplyInvalid, match="goes by roster version 2, which did not come with it"):
        await agent.recover(name="disk")
    authority.alter = lambda _message, reply: reply
    assert (await agent.recover(name="disk")).keys


async def test_a_lost_release_leaves_the_request_kept(
    agent: Agent, officer: Agent, authority: FakeAuthority, alice: Home
) -> None:
    """The key can still be had: the release is on record and comes again."""
    await agent.escrow([key()])
    error = await waiting(officer)
    authority.approve(error.asked.id, "officer-1", "officer-2")
    authority.alter = lost
    with pytest.raises(NoAnswer):
        await officer.recover(**WANTED, wait_seconds=0.01)  # type: ignore[arg-type]
    assert len(files(alice)) == 2
    authority.alter = once(lost)
    assert (await officer.recover(**WANTED)).keys  # type: ignore[arg-type]


async def test_a_limit_that_no_other_life_would_help_with_is_raised(agent: Agent, authority: FakeAuthority) -> None:
    """A release too large, for one; nothing is signed anew for it."""
    await agent.escrow([key()])
    authority.alter = rejected_by(authority.recovery_reply_key, error=LimitExceeded("release: too large"))
    with pytest.raises(Unreleased) as caught:
        await agent.recover(name="disk")
    assert caught.value.remote_code == "limit_exceeded"
    assert len(sent(authority)) == 1
