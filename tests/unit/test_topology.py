"""Topology: the values SPEC section 8 names, and the definitions document that is shipped."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from strongroom import topology
from strongroom.errors import Denied, UsageError

SHIPPED = Path(__file__).parents[2] / "deploy" / "rabbitmq" / "definitions.json"


def entries(document: dict[str, object], kind: str) -> list[dict[str, Any]]:
    """One section of a definitions document."""
    section = document[kind]
    assert isinstance(section, list)
    return section


def pattern(text: str | None) -> re.Pattern[str]:
    r"""A permission as Python reads it: what PCRE calls `\z` is `\Z` here."""
    return re.compile((text or "").replace(r"\z", r"\Z"))


def user(name: str) -> topology.User:
    """One of the users."""
    return next(one for one in topology.USERS if one.name == name)


def test_the_shipped_definitions_are_rendered_from_the_topology() -> None:
    """deploy/rabbitmq/definitions.json is exactly the document without passwords; render it after a change."""
    assert SHIPPED.read_text(encoding="utf-8") == json.dumps(topology.definitions({}), indent=2) + "\n"


def test_every_queue_is_a_quorum_queue_that_drops_nothing() -> None:
    """No queue relies on a default that differs between versions, and no delivery limit is in reach."""
    for queue in topology.QUEUES:
        assert queue.arguments()["x-queue-type"] == "quorum"
        assert int(queue.arguments()["x-delivery-limit"]) > 10**9
        assert queue.arguments().get("x-overflow", "reject-publish") == "reject-publish"


@pytest.mark.parametrize(("name", "length"), [("escrow", 1_000_000), ("recovery", 100_000)])
def test_a_work_queue_refuses_what_exceeds_its_length(name: str, length: int) -> None:
    """Publishers are told that a queue is full."""
    arguments = next(queue for queue in topology.QUEUES if queue.name == name).arguments()
    assert (arguments["x-max-length"], arguments["x-overflow"]) == (length, "reject-publish")


def test_no_queue_has_a_dead_letter_exchange() -> None:
    """RabbitMQ before 4.0 can be brought down through its dead-lettering, by any sender."""
    for queue in topology.QUEUES:
        assert not [name for name in queue.arguments() if "dead-letter" in name]


def test_only_the_operator_configures() -> None:
    """Agents, officers and workers can declare, bind and delete nothing, subscribers only queues of events."""
    assert [one.name for one in topology.USERS if one.configure != r"^\z"] == ["operator", "events"]
    assert user("events").configure == r"^events\."
    assert [one.name for one in topology.USERS if one.tags] == ["operator"]


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("fleet", ["escrow", "enrol", "recovery"]), ("officer", ["recovery"])],
)
def test_topic_rights_allow_the_routing_keys_of_a_user_and_no_others(name: str, allowed: list[str]) -> None:
    """A user's topic pattern matches its verbs with a well-formed name, and nothing around or beside that."""
    keys = pattern(user(name).topic_write)
    verbs: tuple[topology.Verb, ...] = ("escrow", "enrol", "recovery")
    for verb in verbs:
        assert bool(keys.search(topology.routing_key(verb, "laptop-0417"))) is (verb in allowed)
    for bad in ("", "ab", "a" * 65, "Laptop", "a.b.c", "a_bc", "*", "#", "abc ", "abc\n"):
        assert not keys.search(f"v1.{allowed[0]}.{bad}")
    assert not keys.search(f"xv1.{allowed[0]}.abc")
    assert not keys.search(f"v2.{allowed[0]}.abc")


def test_no_permission_ends_in_a_dollar() -> None:
    """In PCRE it would also match before a line break."""
    patterns = [
        text
        for one in (*topology.USERS, topology.account("abc", "agent"), topology.account("abc", "officer"))
        for text in (one.configure, one.write, one.read, one.topic_write)
        if text is not None
    ]
    assert len(patterns) > 25
    assert not [text for text in patterns if "$" in text]


def test_only_the_recovery_worker_may_write_events() -> None:
    """Whoever subscribes hears no other voice, the operator's aside."""
    writers = {one.name for one in topology.USERS if pattern(one.write).search(topology.EVENTS_EXCHANGE)}
    assert writers == {"operator", "recovery"}
    keys = pattern(user("recovery").topic_write)
    assert user("recovery").topic_exchange == topology.EVENTS_EXCHANGE
    assert keys.search(topology.event_key("released", "laptop-0417"))
    assert not keys.search(topology.event_key("released", "laptop-0417\n"))


# ---- accounts of their own ----


@pytest.mark.parametrize(("kind", "verbs"), [("agent", {"escrow", "enrol", "recovery"}), ("officer", {"recovery"})])
def test_an_account_may_publish_under_its_own_name(kind: topology.AccountKind, verbs: set[str]) -> None:
    """The verbs of its kind, its whole name and nothing behind it; it configures and reads nothing."""
    own = topology.account("abc", kind)
    keys = pattern(own.topic_write)
    assert {verb for verb in topology.VERBS if keys.search(topology.routing_key(verb, "abc"))} == verbs
    for bad in ("abcd", "xabc", "abc\n", "abc.d", "ab"):
        assert not keys.search(f"v1.recovery.{bad}")
    assert (own.configure, own.read, own.write) == (r"^\z", r"^\z", r"^strongroom\z")


@pytest.mark.parametrize("name", ["", "ab", "a" * 65, "Abc", "a.c", "a|b", "abc\n", ".*"])
def test_an_account_with_another_sort_of_name_is_refused(name: str) -> None:
    """The name goes into a regular expression: nothing but letters, digits and dashes may be in it."""
    with pytest.raises(UsageError, match="a name is"):
        topology.account(name, "agent")


@pytest.mark.parametrize("name", [one.name for one in topology.USERS])
def test_an_account_never_takes_the_place_of_one_with_other_rights(name: str) -> None:
    """Importing it would take the operator's or a worker's rights away, or give a host their password."""
    with pytest.raises(UsageError, match="other rights"):
        topology.account(name, "agent")


def test_an_accounts_definitions_hold_the_account_alone() -> None:
    """A user with the given hash, or with none, its rights, and no other section."""
    own = topology.account("abc", "agent")
    document = topology.account_definitions(own, "hash")
    assert document.keys() == {"users", "permissions", "topic_permissions"}
    assert [one["password_hash"] for one in entries(document, "users")] == ["hash"]
    assert [one["user"] for one in entries(document, "permissions")] == ["abc"]
    assert [one["user"] for one in entries(document, "topic_permissions")] == ["abc"]
    without = topology.account_definitions(own, None)
    assert [one["password_hash"] for one in entries(without, "users")] == [""]


@pytest.mark.parametrize("verb", topology.VERBS)
def test_a_sender_is_who_account_routing_key_and_body_say(verb: topology.Verb) -> None:
    """All three agree."""
    topology.check_sender("abc", topology.routing_key(verb, "abc"), "abc")


@pytest.mark.parametrize(
    ("user_id", "key", "name"),
    [
        (None, "v1.escrow.abc", "abc"),
        ("", "v1.escrow.abc", "abc"),
        ("fleet", "v1.escrow.abc", "abc"),
        ("abc", "v1.escrow.abc", "abd"),
        ("abc", "v1.escrow.abd", "abc"),
        ("abc", "v1.escrow.abc\n", "abc"),
        ("abc", "v2.escrow.abc", "abc"),
        ("abc", "abc", "abc"),
        ("abc", "", "abc"),
        ("abd", "v1.escrow.abd", "abc"),
        ("abd", "v1.escrow.abc", "abc"),
    ],
)
def test_a_sender_whose_account_routing_key_and_body_differ_is_denied(
    user_id: str | None, key: str, name: str
) -> None:
    """An absent user, another one in any of the three places, and a routing key of another shape."""
    with pytest.raises(Denied, match=r"^user_id: "):
        topology.check_sender(user_id, key, name)


def test_routing_key_is_version_verb_name() -> None:
    """The routing key of SPEC 8.1."""
    assert topology.routing_key("enrol", "laptop-0417") == "v1.enrol.laptop-0417"


def test_password_hash_is_salted_sha256() -> None:
    """RabbitMQ's documented example: salt 908DC60A, password test12, gives this string."""
    assert (
        topology.password_hash("test12", bytes.fromhex("908DC60A"))
        == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
    )
    salt = b"\x00\x01\x02\x03"
    assert (
        base64.b64decode(topology.password_hash("ö", salt)) == salt + hashlib.sha256(salt + "ö".encode()).digest()
    )


@pytest.mark.parametrize("length", [0, 3, 5])
def test_password_hash_wants_a_salt_of_four_bytes(length: int) -> None:
    """RabbitMQ would take another split for a wrong password, silently."""
    with pytest.raises(ValueError, match="4 bytes"):
        topology.password_hash("x", bytes(length))


def test_definitions_give_a_password_only_to_users_with_a_hash() -> None:
    """The given hash is rendered; everybody else gets the empty hash that no password opens."""
    users = entries(topology.definitions({"fleet": "hash"}), "users")
    assert {one["name"]: one["password_hash"] for one in users} == {
        "operator": "",
        "escrow": "",
        "recovery": "",
        "events": "",
        "fleet": "hash",
        "officer": "",
    }


def test_definitions_refuse_a_user_they_do_not_know() -> None:
    """A misspelt user name must not silently leave the real one without its password."""
    with pytest.raises(ValueError, match="flet"):
        topology.definitions({"flet": "hash"})


def test_every_binding_names_an_exchange_and_a_queue_of_the_document() -> None:
    """The document is closed: RabbitMQ refuses to import a binding to something it does not know."""
    document = topology.definitions({})
    exchanges = {one["name"] for one in entries(document, "exchanges")}
    queues = {one["name"] for one in entries(document, "queues")}
    for binding in entries(document, "bindings"):
        assert binding["source"] in exchanges
        assert binding["destination"] in queues
    assert {one["user"] for one in entries(document, "permissions")} == {one.name for one in topology.USERS}
