"""A host with a broker account of its own, from the operator's command to its end, with real processes."""

import json
import secrets
from pathlib import Path

import pytest
from deploy.local.rabbitmq import PrivateRabbit
from deploy.local.trial import Trial
from tests.support.accounts import certificate, import_definitions, users
from tests.support.command import Command

from strongroom.errors import ExitCode


@pytest.mark.parametrize("external", [False, True])
def test_a_host_is_given_an_account_uses_it_and_loses_it(
    *, trial: Trial, place: Path, strongroom: Command, external: bool
) -> None:
    """Enrolled and escrowing by password or by certificate; once the account is deleted its keys stay spooled."""
    broker = trial.stack.broker
    assert isinstance(broker, PrivateRabbit)
    name = "by-certificate" if external else "by-password"
    address = f"amqps://127.0.0.1:{broker.port}/strongroom"
    if external:
        files = certificate(broker, name, place)
        made = strongroom("broker", "account", name, "--external").done()
        login: tuple[str | Path, ...] = ("--broker-certificate", files.file, "--broker-key", files.key_file)
    else:
        made = strongroom("broker", "account", name, "--url", address, "--url-file", "own.url").done()
        login = ("--broker-url-file", "own.url")
    import_definitions(broker, json.loads(made.out))
    (place / "inv.json").write_bytes(strongroom("invite", name, home=".local/officer-1").done().out)
    (place / "k").write_bytes(secrets.token_bytes(32))

    strongroom("enrol", "inv.json", *login, home="h").done()
    strongroom("escrow", "k", "--name", "disk", home="h").done()
    broker.rabbitmqctl("delete_user", name)
    assert name not in users(broker)
    refused = strongroom("escrow", "k", "--name", "disk", "--wait", "1", home="h").done(ExitCode.TRY_LATER)
    assert b"refused the login" in refused.out + refused.err.encode()


def test_a_certificate_without_its_key_is_a_usage_error(place: Path, strongroom: Command) -> None:
    """Nothing is made."""
    for name in ("inv.json", "pem"):
        (place / name).write_text("x")
    strongroom("enrol", "inv.json", "--broker-certificate", "pem", home="h").done(ExitCode.USAGE)
    assert not (place / "h").exists()
