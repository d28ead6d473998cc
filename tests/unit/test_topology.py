"""Topology: the values SPEC section 8 names, and the definitions document that is shipped."""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from strongroom import topology

SHIPPED = Path(__file__).parents[2] / "deploy" / "rabbitmq" / "definitions.json"


def entries(document: dict[str, object], kind: str) -> list[dict[str, Any]]:
    """One section of a definitions document."""
    section = document[kind]
    assert isinstance(section, list)
    return section


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
    """Agents, officers and workers can declare, bind and delete nothing."""
    assert [one.name for one in topology.USERS if one.configure != "^$"] == ["operator"]
    assert [one.name for one in topology.USERS if one.tags] == ["operator"]


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("fleet", ["escrow", "enrol", "recovery"]), ("officer", ["recovery"])],
)
def test_topic_rights_allow_the_routing_keys_of_a_user_and_no_others(name: str, allowed: list[str]) -> None:
    """A user's topic pattern matches its verbs with a well-formed name, and nothing around or beside that."""
    pattern = re.compile(user(name).topic_write or "")
    verbs: tuple[topology.Verb, ...] = ("escrow", "enrol", "recovery")
    for verb in verbs:
        assert bool(pattern.search(topology.routing_key(verb, "laptop-0417"))) is (verb in allowed)
    for bad in ("", "ab", "a" * 65, "Laptop", "a.b.c", "a_bc", "*", "#", "abc "):
        assert not pattern.search(f"v1.{allowed[0]}.{bad}")
    assert not pattern.search(f"xv1.{allowed[0]}.abc")
    assert not pattern.search(f"v2.{allowed[0]}.abc")


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
