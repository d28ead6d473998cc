"""Names that mean more than they say to whoever takes them for a pattern: none of them reaches anybody else."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from pamqp.commands import Basic
from structlog.testing import capture_logs
from tests.integration.test_recovery_approvals import code_of
from tests.support import authority as make
from tests.support import requests as ask
from tests.support.broker_owner import owning
from tests.support.recovery import Place
from tests.support.waiting import until

from strongroom.fields import Body
from strongroom.statements import Statement
from strongroom.topology import EXCHANGE

NAMES = [
    "laptop-.*",
    "laptop-041%",
    "laptop-041_",
    ".*",
    "laptop-0417|laptop-0418",
    "^laptop",
    "[a-z]*",
    "laptop-0417\n",
    "*",
    "#",
]


def misnamed(body: Body, **changes: Any) -> Statement:
    """Return a statement whose members its writer's own library would have refused, signed by the first host."""
    return Statement.sign(body.TYPE, make.altered(body, **changes), make.signing_key(make.PRINCIPAL))


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_that_is_a_pattern_is_nobodys(place: Place, name: str) -> None:
    """An enrolled host asks as, and for, all that a pattern would match: refused as malformed, and set aside."""
    statements = [
        misnamed(ask.request_body(), principal=name),
        misnamed(ask.request_body(), principal=name, requester=name),
        misnamed(ask.listing_body(), principal=name),
        misnamed(ask.listing_body(), principal=name, requester=name),
    ]
    async with place.worker():
        codes = {await code_of(place, statement) for statement in statements}
    assert codes <= {"malformed", "limit_exceeded"}
    assert sorted(set(await place.quarantined())) == sorted(codes)
    assert await place.rows("SELECT * FROM releases") == []


@pytest.mark.parametrize("name", ["disk/%", "disk/roo_", ".*", "%", "disk/root' OR ''='", "*"])
async def test_a_record_name_that_is_a_pattern_is_a_name_like_any_other(place: Place, name: str) -> None:
    """Names of records may hold such characters: they are compared as they are, and find nothing else."""
    async with place.worker():
        assert (await place.refusal(ask.request(name=name))).code == "not_found"
        await place.release(ask.request())


@pytest.mark.parametrize("prefix", ["lap.*", "^", "[a-z]", "laptop-%", "laptop-_", "*", "laptop-|server-", "."])
async def test_a_prefix_that_is_a_pattern_invites_nobody(place: Place, prefix: str) -> None:
    """A bad officer's invitation for every name there is: its enrolments are refused as malformed."""
    body = make.invitation_body(prefix="laptop-", uses=100)
    invited = Statement.sign(body.TYPE, make.altered(body, prefix=prefix), make.signing_key("officer-a"))
    enrolment = make.enrolment(invited, "server-0001")
    async with place.worker():
        rejection = await place.rejection(enrolment.envelope(), verb="enrol")
    assert rejection.code == "malformed"
    assert await place.quarantined() == ["malformed"]
    assert [leaf.type for leaf in await place.log()].count("enrolment") == 2


async def test_a_prefix_begins_a_name_and_replaces_nobody(place: Place) -> None:
    """A fleet's invitation enrols names that begin with it and no others, and no name that is taken."""
    invited = make.invitation(prefix="laptop-04", uses=100)
    async with place.worker():
        codes = [
            (await place.rejection(make.enrolment(invited, name, key="a thief").envelope(), verb="enrol")).code
            for name in (make.PRINCIPAL, "my-laptop-0419", "laptop-03", "laptop-0")
        ]
        await place.enrol(make.enrolment(invited, "laptop-0419"))
    assert codes == ["invitation_invalid"] * 4


@pytest.mark.parametrize(
    "routing_key", ["v1.recovery.*", "v1.recovery.#", "v1.recovery.^laptop$", "v1.enrol.laptop-0418"]
)
async def test_a_routing_key_says_nothing_about_who_asks(place: Place, routing_key: str) -> None:
    """He routes messages as he likes: a genuine one is taken for who signed it, a false one is set aside."""
    with capture_logs() as lines:
        async with place.worker(), owning(place.brokers) as channel:
            for statement in (ask.request(key="a thief"), ask.request()):
                await channel.basic_publish(
                    statement.envelope(),
                    exchange=EXCHANGE,
                    routing_key=routing_key,
                    properties=Basic.Properties(delivery_mode=2),
                )
            await until(lambda: len(outcomes(lines)) == 2, "two messages")
    assert outcomes(lines) == [("quarantined", "signature_invalid"), ("released", None)]


def outcomes(lines: Sequence[Mapping[str, Any]]) -> list[tuple[str, str | None]]:
    """Return what became of messages, by the worker's log."""
    return [(line["outcome"], line.get("code")) for line in lines if line["event"] == "message"]
