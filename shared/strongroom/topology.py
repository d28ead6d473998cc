r"""Everything that has to exist in RabbitMQ, as values: exchanges, queues, bindings, users and their rights.

This is the only place that spells a queue name, a routing key or a permission.
`deploy/rabbitmq/definitions.json` is rendered from it, `strongroom.broker` declares and checks it, and agents
and workers declare nothing. SPEC section 8.

Permissions are regular expressions that RabbitMQ looks for in a name (PCRE). They end in `\z`, because `$` also
matches before a line break at the end, and a routing key may hold one.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from strongroom.errors import Denied, UsageError

VHOST: Final = "strongroom"
EXCHANGE: Final = "strongroom"
DEAD_EXCHANGE: Final = "strongroom.dead"
EVENTS_EXCHANGE: Final = "strongroom.events"
ESCROW_QUEUE: Final = "escrow"
RECOVERY_QUEUE: Final = "recovery"
QUARANTINE_QUEUE: Final = "quarantine"

Verb = Literal["escrow", "enrol", "recovery"]
"""What a message asks for: the second word of its routing key."""

VERBS: Final[tuple[Verb, ...]] = get_args(Verb)

AccountKind = Literal["agent", "officer"]
"""Whose account of its own: that of a host, or of a person."""

_SALT_BYTES = 4
_NAME_PATTERN = "[a-z0-9-]{3,64}"
_NOTHING = r"^\z"
_EVERYTHING = ".*"

DELIVERIES_MAX: Final = 20
"""A worker quarantines what has been given back more often than this, see `strongroom.broker.Consumer`."""

_BROKER_DELIVERIES_MAX = 2_000_000_000


def routing_key(verb: Verb, name: str) -> str:
    """Return the routing key under which `name` publishes what it asks for.

    Args:
        verb: what the message asks for.
        name: the sender, a principal or an officer (`[a-z0-9-]{3,64}`); the broker refuses any other.
    """
    return f"v1.{verb}.{name}"


def event_key(what: str, principal: str) -> str:
    """Return the routing key under which subscribers hear `what` happened, in one word, to a principal."""
    return f"v1.{what}.{principal}"


def check_sender(user_id: str | None, key: str, name: str) -> None:
    """Check that broker account, routing key and signed body of a message all name the same sender.

    For brokers where every agent has an account of its own, as a second line behind the signature.

    Args:
        user_id: the property of that name; RabbitMQ lets a sender write nothing but its own account there.
        key: the routing key.
        name: the sender according to the body.

    Raises:
        Denied: they differ, or there is no `user_id`.
    """
    if user_id is None:
        raise Denied(
            f"user_id: is missing, must be {name!r}", hint="let the sender use a broker account of its own"
        )
    if user_id != name:
        raise Denied(f"user_id: is {user_id!r}, the body names {name!r}")
    if key not in {routing_key(verb, name) for verb in VERBS}:
        raise Denied(f"user_id: is {user_id!r}, the routing key is {key!r}")


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable topic exchange."""

    name: str


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding of a queue to a topic exchange; `pattern` is matched against routing keys."""

    exchange: str
    pattern: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue.

    The broker never moves or drops a message of its own accord; only a message's own expiration ends it. RabbitMQ
    could dead-letter what was delivered too often, but up to 3.13 it reads the `x-death` header that a sender
    wrote, and a forged one makes it fail (found on 3.10.8). Any sender can bring that about with an expiration.
    With the strategy at-most-once a few such messages take the queue down; with at-least-once they end all
    dead-lettering on the node, and at its next start every queue with that strategy. So no queue has a dead-letter
    exchange: workers quarantine what has been given back too often, and wait for the confirm.

    The delivery limit is set out of reach because 4.x drops messages after 20 deliveries unless told; "no limit"
    cannot be said in a way that both 3.10 (no negative numbers) and 4.x understand. A queue that is full refuses
    new messages instead of dropping old ones.
    """

    name: str
    bindings: tuple[Binding, ...]
    length_max: int | None = None

    def arguments(self) -> dict[str, str | int]:
        """Return the arguments of `queue.declare` and of a definitions document."""
        arguments: dict[str, str | int] = {"x-queue-type": "quorum", "x-delivery-limit": _BROKER_DELIVERIES_MAX}
        if self.length_max is not None:
            arguments |= {"x-max-length": self.length_max, "x-overflow": "reject-publish"}
        return arguments


@dataclass(frozen=True, slots=True)
class User:
    """A broker account and its rights in the virtual host, as the regular expressions RabbitMQ matches.

    `topic_write` limits the routing keys it may publish to `topic_exchange`; None does not limit them. Consuming
    direct reply-to asks for no right at all; answering asks for write on the default exchange, whose name in
    permissions is `amq.default`; binding a queue to an exchange asks for write on the queue and read on the
    exchange. These rights are the second line of defence: workers believe signatures only.
    """

    name: str
    configure: str
    write: str
    read: str
    topic_write: str | None = None
    topic_exchange: str = EXCHANGE
    tags: tuple[str, ...] = ()


EXCHANGES: Final = (Exchange(EXCHANGE), Exchange(DEAD_EXCHANGE), Exchange(EVENTS_EXCHANGE))

QUEUES: Final = (
    Queue(ESCROW_QUEUE, bindings=(Binding(EXCHANGE, "v1.escrow.*"),), length_max=1_000_000),
    Queue(
        RECOVERY_QUEUE,
        bindings=(Binding(EXCHANGE, "v1.enrol.*"), Binding(EXCHANGE, "v1.recovery.*")),
        length_max=100_000,
    ),
    Queue(QUARANTINE_QUEUE, bindings=(Binding(DEAD_EXCHANGE, "#"),)),
)

_VERBS_OF: Final[dict[AccountKind, Sequence[Verb]]] = {"agent": VERBS, "officer": ("recovery",)}


def _publisher(account: str, kind: AccountKind, names: str) -> User:
    verbs = _VERBS_OF[kind]
    choice = verbs[0] if len(verbs) == 1 else f"({'|'.join(verbs)})"
    return User(
        account,
        configure=_NOTHING,
        write=r"^strongroom\z",
        read=_NOTHING,
        topic_write=rf"^v1\.{choice}\.{names}\z",
    )


USERS: Final = (
    User("operator", configure=_EVERYTHING, write=_EVERYTHING, read=_EVERYTHING, tags=("administrator",)),
    User("escrow", configure=_NOTHING, write=r"^(amq\.default|strongroom\.dead)\z", read=r"^escrow\z"),
    User(
        "recovery",
        configure=_NOTHING,
        write=r"^(amq\.default|strongroom\.(dead|events))\z",
        read=r"^recovery\z",
        topic_write=rf"^v1\.[a-z-]+\.{_NAME_PATTERN}\z",
        topic_exchange=EVENTS_EXCHANGE,
    ),
    User("events", configure=r"^events\.", write=r"^events\.", read=r"^(events\..*|strongroom\.events)\z"),
    _publisher("fleet", "agent", _NAME_PATTERN),
    _publisher("officer", "officer", _NAME_PATTERN),
)


def account(name: str, kind: AccountKind) -> User:
    """Return the broker account of one agent or officer: it may publish under its own name and no other.

    Raises:
        UsageError: not a name of a principal or officer, or that of an account with other rights.
    """
    if not re.fullmatch(_NAME_PATTERN, name):
        raise UsageError(f"{name!r}: a name is 3 to 64 of a-z, 0-9 and -")
    if name in {user.name for user in USERS}:
        raise UsageError(f"{name}: is an account of the broker with other rights", hint="choose another name")
    return _publisher(name, kind, name)


def password_hash(password: str, salt: bytes) -> str:
    """Return a password in the form that RabbitMQ stores and imports (`rabbit_password_hashing_sha256`).

    Args:
        password: the password as text.
        salt: 4 random bytes, fresh for every user.

    Raises:
        ValueError: the salt has another length.

    Source: RabbitMQ "Passwords", computing a password hash: base64(salt, SHA-256(salt, UTF-8 password)).
    """
    if len(salt) != _SALT_BYTES:
        raise ValueError(f"a RabbitMQ password salt has {_SALT_BYTES} bytes, not {len(salt)}")
    digest = hashlib.sha256(salt + password.encode()).digest()
    return base64.b64encode(salt + digest).decode("ascii")


def definitions(password_hashes: Mapping[str, str]) -> dict[str, object]:
    """Render the topology as a definitions document (`load_definitions`, `rabbitmqctl import_definitions`).

    A user without a hash is rendered with an empty one: the account exists with its rights, and no password
    opens it until the operator sets one (`rabbitmqctl change_password`). Importing again sets the hashes
    again, so a node that loads the document at every start needs `definitions.skip_if_unchanged = true`.

    Args:
        password_hashes: user name to `password_hash()`; the document is as secret as these hashes.

    Raises:
        ValueError: a name that is no user of this topology.
    """
    unknown = sorted(set(password_hashes) - {user.name for user in USERS})
    if unknown:
        raise ValueError(f"no such broker users: {', '.join(unknown)}")
    return {
        "vhosts": [{"name": VHOST}],
        **_accounts(USERS, password_hashes),
        "exchanges": [
            {
                "name": exchange.name,
                "vhost": VHOST,
                "type": "topic",
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
            for exchange in EXCHANGES
        ],
        "queues": [
            {
                "name": queue.name,
                "vhost": VHOST,
                "durable": True,
                "auto_delete": False,
                "arguments": queue.arguments(),
            }
            for queue in QUEUES
        ],
        "bindings": [
            {
                "source": binding.exchange,
                "vhost": VHOST,
                "destination": queue.name,
                "destination_type": "queue",
                "routing_key": binding.pattern,
                "arguments": {},
            }
            for queue in QUEUES
            for binding in queue.bindings
        ],
        "parameters": [],
        "global_parameters": [],
        "policies": [],
    }


def account_definitions(user: User, password_hash: str | None) -> dict[str, object]:
    """Render one account as a definitions document; importing it into a running broker changes nothing else.

    Args:
        user: see `account`. An account of this name that exists gets this password and these rights.
        password_hash: see `password_hash()`; None makes an account that no password opens, for a client
            certificate.
    """
    return _accounts([user], {} if password_hash is None else {user.name: password_hash})


def _accounts(users: Sequence[User], password_hashes: Mapping[str, str]) -> dict[str, object]:
    return {
        "users": [
            {
                "name": user.name,
                "password_hash": password_hashes.get(user.name, ""),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": list(user.tags),
                "limits": {},
            }
            for user in users
        ],
        "permissions": [
            {
                "user": user.name,
                "vhost": VHOST,
                "configure": user.configure,
                "write": user.write,
                "read": user.read,
            }
            for user in users
        ],
        "topic_permissions": [
            {
                "user": user.name,
                "vhost": VHOST,
                "exchange": user.topic_exchange,
                "write": user.topic_write,
                "read": _NOTHING,
            }
            for user in users
            if user.topic_write is not None
        ],
    }
