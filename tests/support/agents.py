"""What tests of agents share: a clock that stands still, keys to escrow, and tampering with what arrives."""

from collections.abc import Callable
from dataclasses import replace

from strongroom.crypto.secret import Secret
from strongroom.crypto.signing import SigningKey
from strongroom.errors import Denied
from strongroom.replies import Reply, rejection
from strongroom.statements import parse_envelope
from strongroom.testing import FakeMessage
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


def rejected_by(key: SigningKey, *, of: bytes | None = None) -> Alteration:
    """Answer with a rejection signed by this key, of the message or of another digest."""

    def alter(message: FakeMessage, _reply: Reply) -> Reply:
        statement = parse_envelope(message.body)
        refusal = rejection(
            Denied("no"), authority="vault.example", request=None, digest=of or statement.digest, now=NOW, key=key
        )
        return Reply(statement=refusal)

    return alter


def without_consistency(_message: FakeMessage, reply: Reply) -> Reply:
    """Leave the consistency proof out."""
    return replace(reply, consistency=None)
