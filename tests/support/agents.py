"""What tests of agents share: a clock that stands still, keys to escrow, and tampering with what arrives."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import Denied, PermanentError
from strongroom.messages import Rejection
from strongroom.replies import Reply
from strongroom.statements import Statement, parse_envelope
from strongroom.testing import FakeAuthority, FakeMessage
from strongroom_agent.home import Home
from strongroom_agent.identity import attach, create_officer_home
from strongroom_agent.link import Connector, Link
from strongroom_agent.packing import KeyToEscrow

NOW = 1_800_000_000
MATERIAL = b"the key to everything, 32 bytes!"

Alteration = Callable[[FakeMessage, Reply], Reply | bytes | None]


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self, seconds: float = NOW) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        """Give the time in seconds since 1970."""
        return self.seconds


def key(material: bytes = MATERIAL, name: str = "disk") -> KeyToEscrow:
    """Give a key to escrow."""
    return KeyToEscrow(material=Secret(material), name=name, kind="disk-key", serial_number="C02XYZ")


def officer_home(authority: FakeAuthority, path: Path) -> Home:
    """Make the home of an officer with every role, called as its folder is, whom the newest roster names."""
    home = create_officer_home(path, path.name, passphrase=None)
    authority.name_officer(path.name, home.config.public_key)
    return attach(
        home,
        root_key=authority.root.public_key,
        roster=authority.roster.statement.envelope(),
        broker_url="amqps://officer:hidden@broker.example/strongroom",
        broker_ca=None,
        now=NOW,
    )


def on(verb: str, alteration: Alteration) -> Alteration:
    """Alter the answers to messages of this verb only."""

    def alter(message: FakeMessage, reply: Reply) -> Reply | bytes | None:
        return alteration(message, reply) if message.routing_key.startswith(f"v1.{verb}.") else reply

    return alter


def lost(_message: FakeMessage, _reply: Reply) -> None:
    """Lose every answer."""


def once(alteration: Alteration) -> Alteration:
    """Alter the first answer only."""
    left = [alteration]

    def alter(message: FakeMessage, reply: Reply) -> Reply | bytes | None:
        return left.pop()(message, reply) if left else reply

    return alter


def in_turn(*alterations: Alteration) -> Alteration:
    """Alter each answer in another way."""
    left = iter(alterations)

    def alter(message: FakeMessage, reply: Reply) -> Reply | bytes | None:
        return next(left)(message, reply)

    return alter


def rejected_by(
    key: SigningKey,
    *,
    of: bytes | None = None,
    error: PermanentError | None = None,
    roster_version: int = 1,
) -> Alteration:
    """Answer with a rejection signed by this key, of the message or of other bytes, for `error` or `denied`."""

    def alter(message: FakeMessage, _reply: Reply) -> Reply:
        why = error or Denied("no")
        body = Rejection(
            authority="vault.example",
            request=None,
            digest=hashlib.sha256(of or message.body).hexdigest(),
            roster_version=roster_version,
            code=why.code,
            message=why.message,
            rejected_at=NOW,
            retry_at=why.retry_at,
        )
        return Reply(statement=Statement.sign(Rejection.TYPE, body.to_bytes(), key))

    return alter


def without_consistency(_message: FakeMessage, reply: Reply) -> Reply:
    """Leave the consistency proof out."""
    return replace(reply, consistency=None)


class CountingLink:
    """A link that remembers how many messages were under way at once, in `most`."""

    most = 0

    def __init__(self, link: Link, flying: set[str]) -> None:
        self._link, self._flying = link, flying

    async def submit(
        self,
        routing_key: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, int | str],
        expiration_seconds: float | None,
    ) -> None:
        """Count one more, and let the others of the round go on."""
        self._flying.add(message_id)
        CountingLink.most = max(CountingLink.most, len(self._flying))
        await asyncio.sleep(0)
        await self._link.submit(
            routing_key, body, message_id=message_id, headers=headers, expiration_seconds=expiration_seconds
        )

    async def answer(self, message_id: str, timeout_seconds: float) -> bytes:
        """Count one less."""
        answer = await self._link.answer(message_id, timeout_seconds)
        self._flying.discard(message_id)
        return answer


class ForgingLink:
    """A link on which every message arrives with another key's signature in the place of its sender's."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def submit(
        self,
        routing_key: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, int | str],
        expiration_seconds: float | None,
    ) -> None:
        """Hand a forged message on."""
        true = parse_envelope(body)
        forged = Statement.sign(true.type, true.body, SigningKey.generate()).envelope()
        await self._link.submit(
            routing_key, forged, message_id=message_id, headers=headers, expiration_seconds=expiration_seconds
        )

    async def answer(self, message_id: str, timeout_seconds: float) -> bytes:
        """Hand the answer back as it is."""
        return await self._link.answer(message_id, timeout_seconds)


class SilentLink:
    """A link on which no answer ever comes; `asked` is set once somebody waits."""

    asked = asyncio.Event()

    def __init__(self, link: Link) -> None:
        self._link = link

    async def submit(
        self,
        routing_key: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, int | str],
        expiration_seconds: float | None,
    ) -> None:
        """Hand the message on."""
        await self._link.submit(
            routing_key, body, message_id=message_id, headers=headers, expiration_seconds=expiration_seconds
        )

    async def answer(self, message_id: str, timeout_seconds: float) -> bytes:  # noqa: ARG002
        """Wait for ever."""
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError("nothing sets that event")


class BackwardLink:
    """A link whose answers arrive in the opposite order of the messages."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._order: list[tuple[str, asyncio.Event]] = []

    async def submit(
        self,
        routing_key: str,
        body: bytes,
        *,
        message_id: str,
        headers: Mapping[str, int | str],
        expiration_seconds: float | None,
    ) -> None:
        """Remember the order."""
        self._order.append((message_id, asyncio.Event()))
        await self._link.submit(
            routing_key, body, message_id=message_id, headers=headers, expiration_seconds=expiration_seconds
        )

    async def answer(self, message_id: str, timeout_seconds: float) -> bytes:
        """Wait until every answer to a later message has arrived."""
        await asyncio.sleep(0)
        turn = next(event for id_, event in self._order if id_ == message_id)
        if self._order[-1][0] != message_id:
            await turn.wait()
        self._order.pop()
        answer = await self._link.answer(message_id, timeout_seconds)
        if self._order:
            self._order[-1][1].set()
        return answer


def linked(connect: Connector, wrap: Callable[[Link], Link]) -> Connector:
    """Give a connector whose links are wrapped."""

    @asynccontextmanager
    async def connector(home: Home) -> AsyncIterator[Link]:
        async with connect(home) as link:
            yield wrap(link)

    return connector
