"""An account of its own for each agent, by password or by certificate, on a real broker."""

import json
from pathlib import Path

import pytest
from aiormq.abc import AbstractChannel
from click.testing import CliRunner
from deploy.local import certificates
from deploy.local.place import Place
from deploy.local.rabbitmq import PrivateRabbit
from pamqp.commands import Basic
from tests.integration.broker.conftest import Link
from tests.support.accounts import certificate, import_definitions, own_account, users

from strongroom.broker import ClientCertificate, Consumer, Requester, connect
from strongroom.errors import BrokerUnavailable
from strongroom.topology import EXCHANGE, AccountKind, routing_key
from strongroom_cli.broker import account

NAME = "laptop-7"


async def publish(
    server: PrivateRabbit, url: str, key: str, *, user_id: str | None = None, by: ClientCertificate | None = None
) -> None:
    """Connect, publish one message, wait for the confirm."""
    async with connect(url, ca_file=server.ca_file, name="test", certificate=by) as connection:
        channel = await connection.channel(confirms=True)
        await connection.publish(channel, EXCHANGE, key, b"x", Basic.Properties(user_id=user_id))


@pytest.mark.parametrize(("kind", "verbs"), [("agent", {"escrow", "enrol", "recovery"}), ("officer", {"recovery"})])
async def test_an_account_publishes_under_its_own_name_and_no_other(
    kind: AccountKind, verbs: set[str], broker: PrivateRabbit
) -> None:
    """Neither another name, nor one that its own is part of, nor its own with a line break behind it."""
    with own_account(broker, NAME, kind) as url:
        for verb in ("escrow", "enrol", "recovery"):
            if verb in verbs:
                await publish(broker, url, f"v1.{verb}.{NAME}", user_id=NAME)
            else:
                with pytest.raises(BrokerUnavailable, match="access to topic"):
                    await publish(broker, url, f"v1.{verb}.{NAME}")
        for key in ("other-1", f"{NAME}7", f"x{NAME}", f"{NAME}\n", f"{NAME}.x"):
            with pytest.raises(BrokerUnavailable, match="access to topic"):
                await publish(broker, url, f"v1.recovery.{key}")


async def test_the_broker_refuses_another_accounts_name_in_user_id(broker: PrivateRabbit) -> None:
    """What a worker reads in `user_id` is the account that published."""
    with own_account(broker, NAME) as url, pytest.raises(BrokerUnavailable, match="user_id property"):
        await publish(broker, url, f"v1.escrow.{NAME}", user_id="operator")


async def test_a_dollar_would_let_a_line_break_pass_behind_the_name(broker: PrivateRabbit) -> None:
    r"""Why every pattern ends in `\z`: the same account with `$` publishes under a key that is not its own."""
    with own_account(broker, NAME) as url:
        dollar = ("set_topic_permissions", "-p", "strongroom", NAME, EXCHANGE, rf"^v1\.escrow\.{NAME}$", "^$")
        broker.rabbitmqctl(*dollar)
        await publish(broker, url, f"v1.escrow.{NAME}\n")


async def test_a_certificate_opens_the_account_of_its_common_name(broker: PrivateRabbit, tmp_path: Path) -> None:
    """User and password of the URL are not used; `user_id` is checked against the common name."""
    by = certificate(broker, NAME, tmp_path)
    with own_account(broker, NAME, external=True) as url:
        for each in (url, url.replace("amqps://", "amqps://fleet:wrong@")):
            await publish(broker, each, f"v1.escrow.{NAME}", user_id=NAME, by=by)
        with pytest.raises(BrokerUnavailable, match="access to topic"):
            await publish(broker, url, "v1.escrow.other-1", by=by)
        with pytest.raises(BrokerUnavailable, match="user_id property"):
            await publish(broker, url, f"v1.escrow.{NAME}", user_id="other-1", by=by)


async def test_a_certificate_without_an_account_opens_nothing(broker: PrivateRabbit, tmp_path: Path) -> None:
    """An account has to exist; the error says what to look at."""
    url = f"amqps://127.0.0.1:{broker.port}/strongroom"
    with pytest.raises(BrokerUnavailable, match="refused the login") as refused:
        await publish(broker, url, f"v1.escrow.{NAME}", by=certificate(broker, NAME, tmp_path))
    assert "common name" in str(refused.value.hint)


@pytest.mark.parametrize("signer", ["a foreign authority", "the authority of the servers"])
async def test_a_certificate_of_another_authority_opens_nothing(
    signer: str, broker: PrivateRabbit, tmp_path: Path
) -> None:
    """Only the agents' authority counts, not even the one that signed the broker's own certificate."""
    if signer == "a foreign authority":
        foreign = Place(tmp_path / "foreign")
        foreign.create()
        certificates.ensure(foreign)
        pem, key = certificates.issue_agent(foreign, NAME)
        foreign.remove()
    else:
        pem, key = ((broker.place.root / "tls" / name).read_bytes() for name in ("server.pem", "server.key"))
    by = ClientCertificate(tmp_path / "client.pem", tmp_path / "client.key")
    by.file.write_bytes(pem)
    by.key_file.write_bytes(key)
    with (
        own_account(broker, NAME, external=True) as url,
        pytest.raises(BrokerUnavailable, match=r"SSL|reset by peer"),
    ):
        await publish(broker, url, f"v1.escrow.{NAME}", by=by)


@pytest.mark.parametrize("password", ["", NAME, "x"])
async def test_no_password_opens_an_account_for_certificates(password: str, broker: PrivateRabbit) -> None:
    """It has an empty hash."""
    with (
        own_account(broker, NAME, external=True) as url,
        pytest.raises(BrokerUnavailable, match="refused the login"),
    ):
        await publish(broker, url.replace("amqps://", f"amqps://{NAME}:{password}@"), f"v1.escrow.{NAME}")


async def test_a_requester_says_its_name_only_where_the_account_is_its_own(
    broker: PrivateRabbit, link: Link, tmp_path: Path
) -> None:
    """By password, by certificate, and over the account that the fleet shares; the consumer reads it."""
    by = certificate(broker, NAME, tmp_path)
    fleet = broker.url("fleet")
    with own_account(broker, NAME) as own:
        for number, (url, files) in enumerate([(own, None), (fleet, by), (fleet, None)]):
            async with (
                connect(url, ca_file=broker.ca_file, name="test", certificate=files) as connection,
                Requester(connection, name=NAME) as requester,
            ):
                await requester.submit(
                    routing_key("escrow", NAME),
                    b"x",
                    message_id=f"m-{number}",
                    headers={},
                    expiration_seconds=None,
                )
    seen: list[str | None] = []
    async with link("escrow") as connection, Consumer(connection, "escrow", prefetch_count=10) as consumer:
        while len(seen) < 3:
            batch = await consumer.next_batch(10, 0.1)
            seen += [one.user_id for one in batch]
            await consumer.ack_through(batch[-1])
    assert seen == [NAME, NAME, None]


# ---- strongroom broker account ----


def exported(server: PrivateRabbit) -> dict[str, object]:
    """What a broker holds, as a definitions document."""
    document: dict[str, object] = json.loads(server.rabbitmqctl("export_definitions", "-", "--silent"))
    return document


async def test_importing_the_commands_document_adds_the_account_and_changes_nothing_else(
    broker: PrivateRabbit, tmp_path: Path
) -> None:
    """Users and rights of all others are as before, as are queues, exchanges and bindings; the URL file works."""
    before = exported(broker)
    url_file = tmp_path / "url"
    address = f"amqps://127.0.0.1:{broker.port}/strongroom"
    told = CliRunner().invoke(account, [NAME, "--url", address, "--url-file", str(url_file), "-o", "json"])
    assert told.exit_code == 0, told.output
    url = url_file.read_text().strip()
    assert url_file.stat().st_mode & 0o777 == 0o600
    assert url.partition(":")[2].partition("@")[0].rpartition(":")[2] not in told.output
    import_definitions(broker, json.loads(told.output))
    try:
        after = exported(broker)
        for section in ("users", "permissions", "topic_permissions"):
            rest = [one for one in after[section] if NAME not in (one.get("user"), one.get("name"))]  # type: ignore[attr-defined]
            assert len(after[section]) == len(rest) + 1  # type: ignore[arg-type]
            assert sorted(map(json.dumps, rest)) == sorted(map(json.dumps, before[section]))  # type: ignore[call-overload]
        assert {name for name in after if after[name] != before[name]} == {
            "users",
            "permissions",
            "topic_permissions",
        }
        await publish(broker, url, f"v1.escrow.{NAME}", user_id=NAME)
    finally:
        broker.rabbitmqctl("delete_user", NAME)


async def test_a_deleted_account_is_out_at_once(broker: PrivateRabbit, operator: AbstractChannel) -> None:
    """`delete_user` ends what is connected, refuses the next login, and leaves what was sent in the queue."""
    with own_account(broker, NAME) as url:
        async with connect(url, ca_file=broker.ca_file, name="test") as connection:
            channel = await connection.channel(confirms=True)
            await connection.publish(channel, EXCHANGE, f"v1.escrow.{NAME}", b"sent", Basic.Properties())
            broker.rabbitmqctl("delete_user", NAME)
            with pytest.raises(BrokerUnavailable, match=r"deleted|lost"):
                await connection.publish(channel, EXCHANGE, f"v1.escrow.{NAME}", b"late", Basic.Properties())
        assert NAME not in users(broker)
        with pytest.raises(BrokerUnavailable, match="refused the login"):
            await publish(broker, url, f"v1.escrow.{NAME}")
    assert (await operator.basic_get("escrow", no_ack=True, timeout=60)).body == b"sent"
